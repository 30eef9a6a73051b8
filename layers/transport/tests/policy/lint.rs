//! What is told of policies that are legal and probably not meant.

use parfait_cluster::{Parsed, parse};
use parfait_transport::policy::{Matrix, lint};
use serde_json::{Value, json};

use crate::tables::with;

/// `CHECK FIELD: MESSAGE` of everything that is told, without the kind and name of the policy.
fn told(policies: &[(&str, Value)]) -> Vec<String> {
    let (snapshot, _) = with(policies);
    let told = lint(&snapshot).into_iter().map(|advice| {
        let origin = advice.origin;
        let (check, message) = (advice.check.name(), advice.message);
        format!("{check} {} {}: {message}", origin.name, origin.field)
    });
    told.collect()
}

fn app(name: &str) -> Value {
    json!({"matchLabels": {"app": name}})
}

fn web(rules: Value) -> Value {
    json!({"podSelector": app("web"), "policyTypes": ["Ingress"], "ingress": rules})
}

fn out(rules: Value) -> Value {
    json!({"podSelector": app("web"), "policyTypes": ["Egress"], "egress": rules})
}

#[test]
fn what_is_well_is_not_told() {
    let dns = json!({"to": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}],
                     "ports": [{"port": 53, "protocol": "UDP"}]});
    let policies = [
        (
            "deny-all",
            json!({"podSelector": {}, "policyTypes": ["Ingress"]}),
        ),
        (
            "web",
            web(json!([{"from": [{"podSelector": app("client")}], "ports": [{"port": "http"}]}])),
        ),
        ("names", out(json!([dns]))),
        (
            "outside",
            web(json!([{"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}])),
        ),
    ];
    assert_eq!(told(&policies), [""; 0]);
}

/// One policy whose selectors or addresses fit nobody, and what is told of it.
fn nobody() -> Vec<(Value, &'static [&'static str])> {
    vec![
        (
            json!({"podSelector": app("wbe")}),
            &["selects-no-pod p spec.podSelector: no pod of namespace shop fits it"],
        ),
        (
            web(
                json!([{"from": [{"podSelector": app("clinet")}, {"podSelector": app("client")}]}]),
            ),
            &[
                "peer-matches-nobody p spec.ingress[0]: no pod of its namespace fits podSelector with label app=clinet",
            ],
        ),
        (
            web(
                json!([{"from": [{"namespaceSelector": {"matchLabels": {"team": "x"}}, "podSelector": app("client")}]}]),
            ),
            &[
                "peer-matches-nobody p spec.ingress[0]: no pod of any namespace fits namespaceSelector with label team=x and podSelector with label app=client",
                "rule-allows-nothing p spec.ingress[0]: nobody fits its peers",
            ],
        ),
        (
            web(
                json!([{"from": [{"ipBlock": {"cidr": "10.0.0.0/24", "except": ["10.0.0.0/16"]}}]}]),
            ),
            &[
                "peer-matches-nobody p spec.ingress[0]: nothing is left of ipBlock 10.0.0.0/24 without 10.0.0.0/16",
                "rule-allows-nothing p spec.ingress[0]: nobody fits its peers",
            ],
        ),
        (
            web(json!([{"from": [{"ipBlock": {"cidr": "nonsense"}}]}])),
            &["mistake p spec.ingress[0].from[0]: \"nonsense\" is not a CIDR; it allows nothing"],
        ),
    ]
}

/// One policy with rules that say too little or too much.
fn rules() -> Vec<(Value, &'static [&'static str])> {
    vec![
        (
            web(json!([
                {"from": [{"podSelector": {}}], "ports": [{"port": 8080}]},
                {"from": [{"podSelector": app("client")}], "ports": [{"port": 8080}]},
            ])),
            &[
                "rule-shadowed p spec.ingress[1]: NetworkPolicy shop/p spec.ingress[0] allows all that it does, to the same pods",
            ],
        ),
        (
            web(
                json!([{"from": [{"podSelector": {}}], "ports": [{"port": 80}, {"port": "htpp"}, {"port": 8000, "endPort": 8100}]}]),
            ),
            &[
                "port-not-open p spec.ingress[0]: no container of Pod shop/web calls a port of tcp \"htpp\"; it allows nothing",
                "port-not-open p spec.ingress[0]: no container of Pod shop/web declares 80/tcp",
            ],
        ),
        (
            out(
                json!([{"to": [{"podSelector": app("web")}], "ports": [{"port": 81}]}, {"ports": [{"port": 53, "protocol": "UDP"}]}]),
            ),
            &["port-not-open p spec.egress[0]: no container of Pod shop/web declares 81/tcp"],
        ),
        (
            web(json!([{}])),
            &[
                "allows-everybody p spec.ingress[0]: a rule without peers and ports allows everybody everything",
            ],
        ),
        (
            web(json!([{"from": [{"namespaceSelector": {}}], "ports": [{"port": 8080}]}])),
            &[
                "allows-everybody p spec.ingress[0]: an empty namespaceSelector allows the pods of all namespaces",
            ],
        ),
        (
            web(json!([{"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}])),
            &[
                "allows-everybody p spec.ingress[0]: ipBlock 0.0.0.0/0 allows everybody everything, pods too",
            ],
        ),
        (
            out(json!([{"to": [{"podSelector": app("client")}]}])),
            &[
                "no-dns p spec.egress: Pod shop/web cannot ask cluster DNS, and so look up no name: nothing in NetworkPolicy shop/p allows port 53/udp to it",
            ],
        ),
    ]
}

#[test]
fn what_was_probably_not_meant_is_told() {
    for (policy, wanted) in nobody().into_iter().chain(rules()) {
        assert_eq!(told(&[("p", policy.clone())]), wanted, "{policy}");
    }
}

/// A second policy beside one that lets the clients in to web's port, and what is told of the two.
fn pairs() -> Vec<(Value, &'static [&'static str])> {
    let clients = json!({"podSelector": app("client")});
    vec![
        (
            web(json!([{"from": [clients], "ports": [{"port": 8080}]}])),
            &["policy-redundant b spec: it says the same as NetworkPolicy shop/a"],
        ),
        (
            json!({"podSelector": app("web")}),
            &[
                "policy-redundant b spec: NetworkPolicy shop/a isolates its pods as well, and allows them all that it does",
            ],
        ),
        // It isolates more pods, so both are needed.
        (json!({"podSelector": {}}), &[]),
        // Whom it lets in is one of the first one's.
        (
            web(
                json!([{"from": [{"podSelector": {"matchLabels": {"app": "client", "tier": "x"}}}], "ports": [{"port": 8080}]}]),
            ),
            &[
                "policy-redundant b spec: NetworkPolicy shop/a isolates its pods as well, and allows them all that it does",
                "peer-matches-nobody b spec.ingress[0]: no pod of its namespace fits podSelector with label app=client and label tier=x",
                "rule-allows-nothing b spec.ingress[0]: nobody fits its peers",
            ],
        ),
        // It lets in more, so the first says nothing of its own.
        (
            web(json!([{"from": [{"podSelector": {}}]}])),
            &[
                "policy-redundant a spec: NetworkPolicy shop/b isolates its pods as well, and allows them all that it does",
            ],
        ),
        // Another direction is another matter.
        (
            out(json!([{"to": [clients]}, {"ports": [{"port": 53, "protocol": "UDP"}]}])),
            &[],
        ),
    ]
}

#[test]
fn policies_that_change_nothing_are_told() {
    for (second, wanted) in pairs() {
        let first =
            web(json!([{"from": [{"podSelector": app("client")}], "ports": [{"port": 8080}]}]));
        let wanted: Vec<String> = wanted
            .iter()
            .map(|line| line.replace(" spec: ", " : "))
            .collect();
        assert_eq!(
            told(&[("a", first), ("b", second.clone())]),
            wanted,
            "{second}"
        );
    }
}

#[test]
fn the_truth_table_follows_the_policies_and_can_be_compared() {
    let tcp = "tcp".parse().expect("a protocol");
    let rows = |policies: &[(&str, Value)]| {
        let (snapshot, _) = with(policies);
        let matrix = Matrix::of(&snapshot, &[], &[(tcp, 8080), (tcp, 81)], None);
        let rows: Vec<String> = matrix
            .ports
            .iter()
            .flat_map(|(.., rows)| rows)
            .map(|row| row.iter().map(|cell| cell.letter()).collect())
            .collect();
        (matrix, rows)
    };
    // shop/client, shop/other, shop/web, tools/probe: of 8080, and then of 81.
    let (before, shown) = rows(&[]);
    assert_eq!(shown, ["...."; 8]);
    let clients =
        web(json!([{"from": [{"podSelector": app("client")}], "ports": [{"port": 8080}]}]));
    let quiet = json!({"podSelector": app("other"), "policyTypes": ["Egress"]});
    let (after, shown) = rows(&[("clients", clients), ("quiet", quiet)]);
    let wanted = ["....", "s.bs", "....", "..r."];
    assert_eq!(shown[..4], wanted);
    assert_eq!(shown[4..], ["..r.", "s.bs", "....", "..r."]);
    let changed: Vec<String> = before
        .changes(&after)
        .iter()
        .map(|change| {
            format!(
                "{} → {} {}: {}",
                change.from,
                change.to,
                change.port.1,
                change.after.what()
            )
        })
        .collect();
    assert_eq!(changed.len(), 4 + 5, "{changed:#?}");
    assert_eq!(
        changed[3],
        "Pod tools/probe → Pod shop/web 8080: denied by the receiver's policies"
    );
    assert_eq!(after.changes(&after), []);
}

#[test]
fn rules_of_the_cluster_that_are_never_asked_are_told() {
    let (mut snapshot, _) = with(&[]);
    let spec = json!({
        "tier": "Admin",
        "priority": 1,
        "subject": {"namespaces": {"matchLabels": {"team": "shop"}}},
        "ingress": [
            {"action": "Deny", "from": [{"namespaces": {}}], "protocols": [{"tcp": {"destinationPort": {"number": 8080}}}]},
            {"action": "Accept", "from": [{"namespaces": {"matchLabels": {"team": "ops"}}}], "protocols": [{"tcp": {"destinationPort": {"number": 8080}}}]},
            {"action": "Accept", "from": [{"namespaces": {"matchLabels": {"team": "none"}}}]},
        ],
        "egress": [
            {"action": "Deny", "to": [{"nodes": {"matchLabels": {"no": "label"}}}]},
            {"action": "Deny", "to": [{"nodes": {}}]},
        ],
    });
    let raw = json!({"metadata": {"name": "admin"}, "spec": spec});
    let raw = serde_json::from_value(raw).expect("a ClusterNetworkPolicy");
    let (object, notes) = parse(Parsed::ClusterNetworkPolicy(&raw), &|_| Err(String::new()));
    assert_eq!(notes, []);
    snapshot.insert(object.expect("a policy"));
    let told = lint(&snapshot).into_iter().map(|advice| {
        format!(
            "{} {}: {}",
            advice.check.name(),
            advice.origin.field,
            advice.message
        )
    });
    let told: Vec<String> = told.collect();
    let wanted = [
        "peer-matches-nobody spec.egress[0]: no node fits nodes with label no=label",
        "rule-allows-nothing spec.egress[0]: nobody fits its peers",
        "rule-shadowed spec.ingress[1]: it is never asked: spec.ingress[0] matches all that it does",
        "peer-matches-nobody spec.ingress[2]: no pod of any namespace fits namespaceSelector with label team=none",
        "rule-allows-nothing spec.ingress[2]: nobody fits its peers",
    ];
    assert_eq!(told, wanted);
}
