//! NetworkPolicies in answers: by whose rule a packet passes, and by whose there is none.

use parfait_cluster::{Parsed, Snapshot, parse};
use serde_json::{Value, json};

use crate::fixture::clusters;
use crate::{SHOP, ask, steps, verdict};

/// [`crate::shop`], the pods labelled, and these policies of namespace default.
pub(crate) fn shop_with(policies: &[(&str, Value)]) -> Snapshot {
    let mut snapshot = clusters(&[
        crate::fixture::APART,
        SHOP,
        "namespace default\nnamespace kube-system
         service kube-system/kube-dns ip=10.96.0.10 ports=dns:53/UDP servedByNode labels=k8s-app:kube-dns",
    ]);
    for pod in snapshot.pods.values_mut() {
        let app = pod.name.name.split('-').next().unwrap_or_default();
        pod.labels.insert("app".to_owned(), app.to_owned());
    }
    for (name, spec) in policies {
        let policy = json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec});
        let policy = serde_json::from_value(policy).expect("a NetworkPolicy");
        let (object, notes) = parse(Parsed::NetworkPolicy(&policy), &|_| Err(String::new()));
        assert_eq!(notes, []);
        snapshot.insert(object.expect("a NetworkPolicy"));
    }
    snapshot
}

fn web() -> [(&'static str, Value); 2] {
    let web = json!({"matchLabels": {"app": "web"}});
    [
        (
            "deny-all",
            json!({"podSelector": {}, "policyTypes": ["Ingress"]}),
        ),
        (
            "web",
            json!({
                "podSelector": web,
                "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}], "ports": [{"port": 8080}]}],
                "egress": [{"to": [{"podSelector": web}]},
                           {"to": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}],
                            "ports": [{"port": 53, "protocol": "UDP"}]}],
            }),
        ),
    ]
}

#[test]
fn who_is_isolated_is_reached_by_the_rules_alone() {
    let snapshot = shop_with(&web());
    let table = [
        ("pod/client", "pod/web-1", "8080", "delivered"),
        ("pod/client", "pod/web-1", "8081", "PF311"),
        ("pod/client", "pod/web-1", "icmp", "PF311"),
        ("pod/client", "pod/web-3", "8080", "delivered"),
        ("pod/client", "pod/web-3", "8081", "PF311"),
        // Through a Service, what counts is the pod behind it.
        ("pod/client", "svc/web", "", "delivered"),
        ("pod/web-1", "svc/self", "", "delivered"),
        ("pod/web-2", "svc/self", "", "PF311"),
        ("pod/web-1", "pod/client", "80", "PF310"),
        ("pod/web-1", "10.96.0.10:53", "udp", "delivered"),
        ("pod/web-1", "10.96.0.10:53", "tcp", "PF310"),
        ("pod/client", "10.96.0.10:53", "tcp", "delivered"),
        // Without endpoints, that is what is said.
        ("pod/web-1", "svc/empty", "", "PF301"),
        // A node reaches its own pods, and is reached by them; other nodes are addresses.
        ("node/node-1", "pod/web-1", "9", "delivered"),
        ("node/node-2", "pod/web-1", "9", "PF311"),
        ("pod/web-1", "node/node-1", "22", "delivered"),
        ("pod/web-1", "node/node-2", "22", "PF310"),
        ("pod/web-1", "192.0.2.1:80", "", "PF310"),
    ];
    for (from, to, with, wanted) in table {
        let answer = ask(&snapshot, from, to, with).expect("an answer");
        assert_eq!(
            verdict(&answer),
            wanted,
            "{from} to {to} {with}\n{}",
            steps(&answer)
        );
    }
}

#[test]
fn a_denial_names_the_policies_and_the_nearest_rule() {
    let snapshot = shop_with(&web());
    let told = |from: &str, to: &str, with: &str| {
        let answer = ask(&snapshot, from, to, with).expect("an answer");
        let hop = answer.ways[0].there.last().expect("a step").clone();
        let origins: Vec<_> = hop.origins.iter().map(ToString::to_string).collect();
        format!(
            "{} {}: {} [{}]",
            hop.place,
            hop.stage,
            hop.what,
            origins.join(", ")
        )
    };
    assert_eq!(
        told("pod/client", "pod/web-1", "8081"),
        "node node-1 forward: dropped: Pod default/web-1 may not receive this: NetworkPolicy default/deny-all, \
         NetworkPolicy default/web isolate it for ingress, and no rule allows it; it would pass if the port were \
         8080/tcp (NetworkPolicy default/web spec.ingress[0]) [NetworkPolicy default/deny-all, NetworkPolicy default/web]"
    );
    assert_eq!(
        told("pod/web-1", "pod/client", "80"),
        "node node-1 forward: dropped: Pod default/web-1 may not send this: NetworkPolicy default/web isolates it for \
         egress, and no rule allows it; it would pass if the pod had label app=web (NetworkPolicy default/web \
         spec.egress[0]) [NetworkPolicy default/web]"
    );
    let only = shop_with(&web()[..1]);
    let answer = ask(&only, "pod/web-1", "pod/client", "80").expect("an answer");
    let hop = answer.ways[0].there.last().expect("a step");
    assert_eq!(
        hop.what,
        "dropped: Pod default/client may not receive this: NetworkPolicy default/deny-all isolates it for ingress, \
         and no rule could allow it"
    );
}

#[test]
fn what_passes_names_the_rules_by_which_it_does() {
    let mut policies = web().to_vec();
    let client = json!({"podSelector": {"matchLabels": {"app": "client"}}, "policyTypes": ["Egress"], "egress": [{}]});
    policies.push(("client", client));
    let answer = ask(&shop_with(&policies), "pod/client", "pod/web-1", "8080").expect("an answer");
    let forward = "node node-1 forward: ";
    let steps = steps(&answer);
    let said: Vec<_> = steps
        .lines()
        .filter(|line| line.contains(forward))
        .collect();
    assert_eq!(
        said,
        [
            "there node node-1 forward: Pod default/client may send this by NetworkPolicy default/client spec.egress[0]; \
             Pod default/web-1 may receive this by NetworkPolicy default/web spec.ingress[0]",
            "back node node-1 forward: an answer: policies judge the first packet of a connection",
        ]
    );
}

/// What the API leaves open is said where it decides.
#[test]
fn what_the_api_leaves_open_is_said() {
    let app = |name: &str| json!({"matchLabels": {"app": name}});
    let from = json!([{"ipBlock": {"cidr": "10.244.0.0/16"}}, {"podSelector": app("client")}]);
    let web =
        json!({"podSelector": app("web"), "ingress": [{"from": from, "ports": [{"port": 8080}]}]});
    let client = json!({"podSelector": app("client"), "policyTypes": ["Egress"], "egress": [{"to": [{"podSelector": {}}]}]});
    let snapshot = shop_with(&[("web", web), ("client", client)]);
    let by = "by NetworkPolicy default/web spec.ingress[0]";
    for (from, to, with, wanted) in [
        (
            "pod/web-2",
            "pod/web-1",
            "8080",
            format!(
                "Pod default/web-1 may receive this {by} (ipBlock 10.244.0.0/16 means any address, a pod's too)"
            ),
        ),
        (
            "pod/client",
            "pod/web-1",
            "8080",
            format!("Pod default/web-1 may receive this {by}\n"),
        ),
        (
            "pod/web-1",
            "svc/self",
            "",
            "a pod always reaches itself, whatever policies say".to_owned(),
        ),
        (
            "node/node-1",
            "pod/web-1",
            "9",
            "Pod default/web-1 is always reached by its own node, whatever policies say".to_owned(),
        ),
        (
            "pod/client",
            "node/node-1",
            "22",
            "Pod default/client always reaches its own node, whatever NetworkPolicies say"
                .to_owned(),
        ),
        (
            "pod/web-1",
            "pod/web-1",
            "8080",
            "its own address".to_owned(),
        ),
    ] {
        let answer = ask(&snapshot, from, to, with).expect("an answer");
        let steps = steps(&answer);
        assert_eq!(verdict(&answer), "delivered", "{from} to {to}\n{steps}");
        assert!(steps.contains(&wanted), "{from} to {to}: {wanted}\n{steps}");
    }
}
