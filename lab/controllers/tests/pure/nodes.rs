//! Node CIDRs and node lifecycle.

use parfait_lab_controllers::{Config, Family, Write};
use serde_json::{Value, json};

use crate::support::{Cluster, cluster, object, web};

fn cidrs(cluster: &Cluster, node: &str) -> Value {
    cluster.value("Node", node)["spec"]["podCIDRs"].clone()
}

#[test]
fn a_nodes_number_is_in_its_cidrs() {
    let mut cluster = cluster(12, "");
    cluster.settle();
    assert_eq!(
        cidrs(&cluster, "node-1"),
        json!(["10.244.1.0/24", "fd00:10:244:1::/64"])
    );
    assert_eq!(
        cidrs(&cluster, "node-12"),
        json!(["10.244.12.0/24", "fd00:10:244:c::/64"])
    );
    assert_eq!(
        cluster.value("Node", "node-3")["spec"]["podCIDR"],
        "10.244.3.0/24"
    );
}

#[test]
fn nodes_without_a_number_get_the_lowest_free_part_and_nobody_the_same() {
    let named =
        |name: &str| format!("\n---\napiVersion: v1\nkind: Node\nmetadata: {{ name: {name} }}\n");
    let mut cluster = cluster(
        2,
        &(named("alpha") + &named("beta") + &named("gamma-1") + &named("far-9000")),
    );
    cluster.settle();
    let mut all: Vec<String> = cluster
        .memory
        .world
        .nodes
        .values()
        .map(|node| node.spec.as_ref().unwrap().pod_cidr.clone().unwrap())
        .collect();
    all.sort();
    assert_eq!(
        all,
        [
            "10.244.1.0/24",
            "10.244.2.0/24",
            "10.244.3.0/24",
            "10.244.4.0/24",
            "10.244.5.0/24",
            "10.244.6.0/24"
        ]
    );
}

#[test]
fn one_family_only() {
    for (family, expected) in [
        (Family::IPv4, "10.244.1.0/24"),
        (Family::IPv6, "fd00:10:244:1::/64"),
    ] {
        let mut cluster = cluster(1, "");
        cluster.config = Config::for_families(&[family]);
        cluster.settle();
        assert_eq!(cidrs(&cluster, "node-1"), json!([expected]));
    }
}

#[test]
fn a_full_cluster_cidr_is_said_once_on_the_node() {
    let mut cluster = cluster(6, "");
    cluster.config.cluster_cidrs = vec!["10.244.0.0/22".parse().unwrap()];
    cluster.settle();
    assert_eq!(
        cidrs(&cluster, "node-4"),
        json!(["10.244.0.0/24"]),
        "part 0 is used last"
    );
    for node in ["node-5", "node-6"] {
        assert_eq!(cidrs(&cluster, node), Value::Null);
        assert_eq!(cluster.events(node).len(), 1);
        assert!(cluster.events(node)[0].starts_with("CIDRNotAvailable"));
    }
}

#[test]
fn a_silent_node_and_its_pods_are_not_ready_until_it_speaks_again() {
    let lease = "
---
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: { name: node-1, namespace: kube-node-lease }
spec: { renewTime: '2026-03-01T12:00:00.000000Z' }
---
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: { name: node-2, namespace: kube-node-lease }
spec: { renewTime: '2026-03-01T12:01:00.000000Z' }
---
apiVersion: v1
kind: Service
metadata: { name: web }
spec: { selector: { app: web }, ports: [{ port: 80 }], ipFamilies: [IPv4] }
";
    let mut cluster = cluster(2, &(web(2) + lease));
    cluster.run();
    cluster.wait(39);
    assert_eq!(cluster.wants(), [""; 0]);
    cluster.wait(2);
    assert_eq!(cluster.wants(), ["update the status of Node node-1"]);
    cluster.settle();
    let ready = &cluster.value("Node", "node-1")["status"]["conditions"][0];
    assert_eq!(
        (ready["status"].as_str(), ready["reason"].as_str()),
        (Some("Unknown"), Some("NodeStatusUnknown"))
    );
    let endpoints = cluster
        .memory
        .world
        .endpoint_slices
        .values()
        .next()
        .unwrap()
        .endpoints
        .clone()
        .unwrap();
    for endpoint in endpoints {
        let ready = endpoint.conditions.unwrap().ready.unwrap();
        assert_eq!(ready, endpoint.node_name.as_deref() == Some("node-2"));
    }
    assert_eq!(
        cluster.events("node-1"),
        ["NodeNotReady: Node node-1 status is now: NodeNotReady"]
    );
    // A new pod avoids the node.
    cluster.edit("Deployment", "web", |web| {
        web["spec"]["replicas"] = json!(3)
    });
    cluster.settle();
    assert_eq!(cluster.spread(), [1, 2]);
}

#[test]
fn nobody_is_silent_while_nobody_listens() {
    let mut cluster = cluster(1, "");
    cluster.settle();
    cluster.wait(3_600);
    // The laptop was asleep, or the controllers have just started.
    cluster.memory.world.watching_since = Some(cluster.now);
    cluster.wait(40);
    assert_eq!(cluster.wants(), [""; 0]);
    cluster.wait(1);
    assert_eq!(cluster.wants(), ["update the status of Node node-1"]);
}

#[test]
fn a_finalizer_on_a_homeless_pod_keeps_nobody_busy() {
    let mut cluster = cluster(2, &web(2));
    cluster.run();
    let name = cluster.pod_names().remove(0);
    cluster.edit("Pod", &name, |pod| {
        pod["metadata"]["finalizers"] = json!(["example.org/wait"])
    });
    let node = cluster.value("Pod", &name)["spec"]["nodeName"].clone();
    cluster.delete("Node", node.as_str().unwrap());
    cluster.run();
    assert!(cluster.pod_names().contains(&name));
    assert_eq!(cluster.spread(), [2]);
}

#[test]
fn pods_of_a_node_that_is_gone_go_too() {
    let mut cluster = cluster(2, &web(2));
    cluster.run();
    cluster.delete("Node", "node-1");
    cluster.run();
    assert_eq!(cluster.spread(), [2]);
}

#[test]
fn a_node_that_has_never_reported_is_starting_not_lost() {
    let mut cluster = cluster(0, "");
    cluster.apply(&Write::Create(object(
        "{apiVersion: v1, kind: Node, metadata: {name: node-1}}",
    )));
    cluster.settle();
    cluster.wait(3_600);
    assert_eq!(cluster.wants(), [""; 0]);
}
