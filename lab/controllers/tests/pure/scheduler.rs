//! Where pods go, and what is said of those that can go nowhere.

use serde_json::json;

use crate::support::{Cluster, cluster, web};

fn pod(name: &str, spec: &str) -> String {
    format!(
        "\n---\napiVersion: v1\nkind: Pod\nmetadata: {{ name: {name}, labels: {{ app: {name} }} }}\nspec:\n  containers: [{{ name: c, image: idle }}]\n{spec}\n"
    )
}

fn placed(cluster: &Cluster, name: &str) -> String {
    cluster.value("Pod", name)["spec"]["nodeName"]
        .as_str()
        .unwrap_or("nowhere")
        .to_owned()
}

#[test]
fn the_pods_of_an_owner_are_spread_evenly() {
    for (nodes, replicas, expected) in [
        (3, 7, vec![3, 2, 2]),
        (1, 4, vec![4]),
        (3, 2, vec![1, 1, 0]),
        (8, 8, vec![1; 8]),
    ] {
        let mut cluster = cluster(nodes, &web(replicas));
        cluster.settle();
        assert_eq!(
            cluster.spread(),
            expected,
            "{replicas} pods on {nodes} nodes"
        );
    }
}

#[test]
fn another_application_goes_where_there_are_fewer_pods() {
    let mut cluster = cluster(3, &(web(4) + &pod("alone", "")));
    cluster.settle();
    let mut spread = cluster.spread();
    spread.sort_unstable();
    assert_eq!(spread, [1, 2, 2]);
}

#[test]
fn the_owners_own_pods_count_before_all_others() {
    let pinned = |name: &str| pod(name, "  nodeName: node-1");
    let crowd = pinned("a") + &pinned("b") + &pinned("c");
    let mut cluster = cluster(2, &(web(2) + &crowd));
    cluster.settle();
    assert_eq!(
        cluster.spread(),
        [4, 1],
        "one of web on each, full as node-1 is"
    );
}

#[test]
fn rules_about_nodes_are_kept() {
    let table = [
        ("  nodeSelector: { disk: ssd }", "node-2"),
        ("  nodeName: node-3", "node-3"),
        (
            "  affinity: { nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [{ matchExpressions: [{ key: disk, operator: Exists }] }] } } }",
            "node-2",
        ),
        (
            "  affinity: { nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: [{ matchFields: [{ key: metadata.name, operator: In, values: [node-3] }] }] } } }",
            "node-3",
        ),
        ("  nodeSelector: { disk: tape }", "nowhere"),
        // node-1 is tainted: only who tolerates it may go there, and it is then the emptiest by name.
        (
            "  tolerations: [{ key: role, value: db, effect: NoSchedule }]",
            "node-1",
        ),
        ("  tolerations: [{ operator: Exists }]", "node-1"),
        (
            "  tolerations: [{ key: role, value: web, effect: NoSchedule }]",
            "node-2",
        ),
        ("  schedulerName: somebody-else", "nowhere"),
        ("  schedulingGates: [{ name: wait }]", "nowhere"),
    ];
    for (spec, expected) in table {
        let mut cluster = cluster(3, &pod("p", spec));
        cluster.edit("Node", "node-1", |node| {
            node["spec"]["taints"] =
                json!([{"key": "role", "value": "db", "effect": "NoSchedule"}]);
        });
        cluster.edit("Node", "node-2", |node| {
            node["metadata"]["labels"]["disk"] = json!("ssd")
        });
        cluster.settle();
        assert_eq!(placed(&cluster, "p"), expected, "{spec}");
    }
}

#[test]
fn a_pod_that_fits_nowhere_says_why_in_kubernetes_words_and_once() {
    let mut cluster = cluster(3, &pod("p", "  nodeSelector: { disk: ssd }"));
    cluster.edit("Node", "node-1", |node| {
        node["spec"]["unschedulable"] = json!(true)
    });
    cluster.edit("Node", "node-2", |node| {
        node["status"]["conditions"][0]["status"] = json!("False")
    });
    cluster.settle();
    let message = "0/3 nodes are available: \
        1 node(s) didn't match Pod's node affinity/selector, \
        1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }, \
        1 node(s) had untolerated taint {node.kubernetes.io/unschedulable: }.";
    let condition = &cluster.value("Pod", "p")["status"]["conditions"][0];
    assert_eq!(condition["type"], "PodScheduled");
    assert_eq!(condition["reason"], "Unschedulable");
    assert_eq!(condition["message"], message);
    cluster.settle();
    assert_eq!(
        cluster.events("p"),
        [format!("FailedScheduling: {message}")]
    );
    // The remedy is seen at once.
    cluster.edit("Node", "node-3", |node| {
        node["metadata"]["labels"]["disk"] = json!("ssd")
    });
    cluster.settle();
    assert_eq!(placed(&cluster, "p"), "node-3");
    assert!(
        cluster
            .events("p")
            .contains(&"Scheduled: Successfully assigned default/p to node-3".to_owned())
    );
}

#[test]
fn no_nodes_at_all() {
    let mut cluster = cluster(0, &pod("p", ""));
    cluster.settle();
    assert_eq!(
        cluster.events("p"),
        ["FailedScheduling: no nodes available to schedule pods"]
    );
}

#[test]
fn one_host_port_is_given_once_a_node() {
    let ports = "  hostNetwork: true\n  initContainers: []\n";
    let with_port = |name: &str| {
        pod(name, ports).replace("image: idle", "image: idle, ports: [{ containerPort: 80 }]")
    };
    let mut cluster = cluster(2, &(with_port("a") + &with_port("b") + &with_port("c")));
    cluster.settle();
    assert_eq!(cluster.spread(), [1, 1]);
    assert_eq!(
        cluster.events("c"),
        [
            "FailedScheduling: 0/2 nodes are available: 2 node(s) didn't have free ports for the requested pod ports."
        ]
    );
}

#[test]
fn pods_that_want_to_be_apart_are_and_pods_that_want_to_be_together_too() {
    let term =
        "[{ topologyKey: kubernetes.io/hostname, labelSelector: { matchLabels: { app: web } } }]";
    let apart = format!(
        "      affinity: {{ podAntiAffinity: {{ requiredDuringSchedulingIgnoredDuringExecution: {term} }} }}\n"
    );
    let mut cluster_apart = cluster(3, &(web(4) + &apart));
    cluster_apart.settle();
    assert_eq!(cluster_apart.spread(), [1, 1, 1], "the fourth waits");
    let together = format!(
        "      affinity: {{ podAffinity: {{ requiredDuringSchedulingIgnoredDuringExecution: {term} }} }}\n"
    );
    let mut cluster_together = cluster(3, &(web(4) + &together));
    cluster_together.settle();
    assert_eq!(cluster_together.spread(), [4, 0, 0]);
}
