//! Policies as users write them: what the kernel then holds, and what is said of a packet.

use parfait_cluster::{Direction, Object, Parsed, Snapshot, parse};
use parfait_linux::nft::{Hook, render};
use parfait_packet::{Origin, Packet};
use parfait_transport::policy::{self, Explanation, Level};
use serde_json::{Value, json};

use crate::fixture;

const CLUSTER: &str = "
node node-1 pods=10.244.1.0/24 underlay=192.168.77.11/24
node node-2 pods=10.244.2.0/24 underlay=192.168.77.12/24
pod shop/web on=node-1 ip=10.244.1.2 ports=http:8080/TCP labels=app:web
pod shop/client on=node-1 ip=10.244.1.3 labels=app:client
pod shop/other on=node-2 ip=10.244.2.3 labels=app:other
pod tools/probe on=node-2 ip=10.244.2.4 labels=app:client
namespace shop labels=team:shop
namespace tools labels=team:ops
service kube-system/kube-dns ip=10.96.0.10 ports=dns:53/UDP,dns-tcp:53/TCP servedByNode labels=k8s-app:kube-dns
namespace kube-system
";

/// The cluster with policies `shop/NAME`; and what was noted about them.
pub fn with(policies: &[(&str, Value)]) -> (Snapshot, Vec<String>) {
    let mut snapshot = fixture::cluster(CLUSTER);
    let mut said = Vec::new();
    for (name, spec) in policies {
        let policy = json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec});
        let policy = serde_json::from_value(policy).expect("a NetworkPolicy");
        add(&mut snapshot, Parsed::NetworkPolicy(&policy), &mut said);
    }
    note_planned(&snapshot, &mut said);
    (snapshot, said)
}

/// Adds a policy, and what was noted when it was read.
pub fn add(snapshot: &mut Snapshot, policy: Parsed<'_>, said: &mut Vec<String>) {
    let (Some(object), notes) = parse(policy, &|_| Err(String::new())) else {
        panic!("no policy");
    };
    said.extend(notes.iter().map(ToString::to_string));
    snapshot.take(object.key(), Some(object), notes);
}

/// Adds what is noted when `node-1` is planned.
pub fn note_planned(snapshot: &Snapshot, said: &mut Vec<String>) {
    let notes = policy::plan(snapshot, "node-1").notes;
    said.extend(notes.iter().map(ToString::to_string));
}

fn explain(snapshot: &Snapshot, from: &str, to: &str, port: u16) -> Option<Explanation> {
    let ip = |text: &str| text.parse().expect("an address");
    let protocol = if port == 53 { "udp" } else { "tcp" };
    let protocol = protocol.parse().expect("a protocol");
    let packet = Packet::new(ip(from), ip(to), protocol, port).expect("one family");
    let plan = policy::plan(snapshot, "node-1");
    let mut both = Direction::ALL.into_iter();
    both.find_map(|direction| policy::explain(&plan, snapshot, &packet, direction, Hook::Forward))
}

/// `allowed by …` or `denied by …`, or what would have to be otherwise.
pub fn said(snapshot: &Snapshot, from: &str, to: &str, port: u16) -> String {
    let Some(explained) = explain(snapshot, from, to, port) else {
        return "nobody asked".to_owned();
    };
    let mut text = match explained.accepted {
        true => "allowed".to_owned(),
        false => "denied".to_owned(),
    };
    if let Some(rule) = &explained.rule {
        text += &format!(" by {rule}");
    }
    if let Some(name) = &explained.rule_name {
        text += &format!(" {name:?}");
    }
    let level = explained.level.filter(|_| !explained.accepted);
    if let Some(level) = level.filter(|level| *level != Level::NetworkPolicy) {
        text += &format!(" ({})", level.name());
    }
    for rule in &explained.passed {
        text += &format!(", after {rule}");
    }
    if let Some(near) = explained.nearest.first() {
        text += &format!(", if {} ({})", near.hint, near.rule);
    }
    text
}

#[test]
fn what_nft_shows() {
    let (snapshot, notes) = with(&[
        (
            "deny-all",
            json!({"podSelector": {}, "policyTypes": ["Ingress"]}),
        ),
        (
            "web",
            json!({
                "podSelector": {"matchLabels": {"app": "web"}},
                "ingress": [
                    {"from": [{"podSelector": {"matchLabels": {"app": "client"}}}], "ports": [{"port": "http"}]},
                    {"from": [{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}}],
                     "ports": [{"port": 80, "endPort": 90}]},
                ],
                "egress": [{"to": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}],
                            "ports": [{"port": 53, "protocol": "UDP"}]}],
            }),
        ),
    ]);
    assert_eq!(notes, [""; 0]);
    let tables = policy::apply(&policy::plan(&snapshot, "node-1")).into_iter();
    let tables = tables.map(|table| (table.key(), table)).collect();
    insta::assert_snapshot!(render::ruleset(&tables));
    // Of a family in which nobody is isolated, nothing.
    let (snapshot, _) = with(&[]);
    let none = policy::apply(&policy::plan(&snapshot, "node-1"));
    assert!(
        none.iter()
            .all(|table| table.chains.is_empty() && table.sets.is_empty())
    );
}

const WEB: &str = "10.244.1.2";

/// From where to where, and what is said.
const NEAREST: [(&str, &str, u16, &str); 10] = [
    (
        "10.244.1.3",
        WEB,
        8080,
        "allowed by NetworkPolicy shop/web spec.ingress[0]",
    ),
    (
        "192.0.2.9",
        WEB,
        1,
        "allowed by NetworkPolicy shop/web spec.ingress[2]",
    ),
    (
        "10.244.1.3",
        WEB,
        80,
        "denied, if the port were 8080/tcp (http) (NetworkPolicy shop/web spec.ingress[0])",
    ),
    (
        "10.244.2.3",
        WEB,
        8080,
        "denied, if the pod had label app=client (NetworkPolicy shop/web spec.ingress[0])",
    ),
    (
        "10.244.2.4",
        WEB,
        9000,
        "denied, if namespace tools had label team=web (NetworkPolicy shop/web spec.ingress[1])",
    ),
    (
        "10.244.2.4",
        WEB,
        8080,
        "denied, if the pod were in namespace shop (NetworkPolicy shop/web spec.ingress[0])",
    ),
    (
        "198.51.100.1",
        WEB,
        80,
        "denied, if 198.51.100.1 were in 192.0.2.0/24 (NetworkPolicy shop/web spec.ingress[2])",
    ),
    (
        "192.0.2.200",
        WEB,
        80,
        "denied, if 192.0.2.200 were not in except 192.0.2.128/25 (NetworkPolicy shop/web spec.ingress[2])",
    ),
    ("10.244.2.3", "10.244.1.3", 80, "denied"),
    (WEB, "10.244.2.3", 80, "nobody asked"),
];

#[test]
fn a_denied_packet_is_told_what_came_nearest() {
    let (snapshot, notes) = with(&[
        (
            "deny-all",
            json!({"podSelector": {}, "policyTypes": ["Ingress"]}),
        ),
        (
            "web",
            json!({
                "podSelector": {"matchLabels": {"app": "web"}},
                "ingress": [
                    {"from": [{"podSelector": {"matchLabels": {"app": "client"}}}], "ports": [{"port": "http"}]},
                    {"from": [{"namespaceSelector": {"matchLabels": {"team": "web"}},
                               "podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["client"]}]}}],
                     "ports": [{"port": 9000}]},
                    {"from": [{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}}]},
                ],
            }),
        ),
    ]);
    assert_eq!(notes, [""; 0]);
    for (from, to, port, wanted) in NEAREST {
        assert_eq!(
            said(&snapshot, from, to, port),
            wanted,
            "{from} to {to}:{port}"
        );
    }
    let denied = explain(&snapshot, "10.244.2.3", WEB, 80).expect("isolated");
    let names: Vec<_> = denied.isolated_by.iter().map(Origin::to_string).collect();
    assert_eq!(
        names,
        ["NetworkPolicy shop/deny-all", "NetworkPolicy shop/web"]
    );
}

#[test]
fn what_allows_dns_elsewhere_allows_it_here() {
    let deny = json!({"podSelector": {}, "policyTypes": ["Egress"]});
    let (snapshot, _) = with(&[("deny", deny.clone())]);
    assert_eq!(said(&snapshot, "10.244.1.3", "10.96.0.10", 53), "denied");
    for to in [
        json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
                "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}]),
        json!([{"namespaceSelector": {}}]),
        json!([{"ipBlock": {"cidr": "10.96.0.0/16"}}]),
        json!([]),
    ] {
        for port in [json!(53), json!("dns")] {
            if to[0].get("ipBlock").is_some() && port == "dns" {
                continue;
            }
            let rule = json!({"to": to, "ports": [{"protocol": "UDP", "port": port}]});
            let dns = json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [rule]});
            let (snapshot, notes) = with(&[("deny", deny.clone()), ("dns", dns)]);
            assert_eq!(notes, [""; 0]);
            let found = said(&snapshot, "10.244.1.3", "10.96.0.10", 53);
            assert_eq!(
                found, "allowed by NetworkPolicy shop/dns spec.egress[0]",
                "{rule}"
            );
        }
    }
}

/// A mistake isolates what it selects, and allows nothing.
#[test]
fn mistakes_allow_nothing_and_are_noted() {
    let ingress =
        |rule: Value| json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [rule]});
    let at = "NetworkPolicy shop/p spec.ingress[0]";
    let table = [
        (ingress(json!({"from": [{}]})),
         format!("{at}.from[0]: it names neither pods, namespaces nor an ipBlock; it allows nothing")),
        (ingress(json!({"from": [{"podSelector": {}, "ipBlock": {"cidr": "0.0.0.0/0"}}]})),
         format!("{at}.from[0]: ipBlock cannot stand beside a selector; it allows nothing")),
        (ingress(json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/33"}}]})),
         format!("{at}.from[0]: \"10.0.0.0/33\" is not a CIDR; it allows nothing")),
        (ingress(json!({"from": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0"]}}]})),
         format!("{at}.from[0]: except \"10.0.0.0\" is not a CIDR; it allows nothing")),
        (ingress(json!({"from": [{"podSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}}]})),
         format!("{at}.from[0]: \"Like\" is none of In, NotIn, Exists, DoesNotExist; it allows nothing")),
        (ingress(json!({"ports": [{"port": 90, "endPort": 80}]})),
         format!("{at}.ports[0]: endPort 80 is less than port 90; it allows nothing")),
        (ingress(json!({"ports": [{"endPort": 80}]})),
         format!("{at}.ports[0]: endPort needs a port with a number; it allows nothing")),
        (ingress(json!({"ports": [{"port": 70000}]})),
         format!("{at}.ports[0]: 70000 is not a port (1 to 65535); it is left out")),
        (ingress(json!({"ports": [{"protocol": "ICMP"}]})),
         format!("{at}.ports[0]: protocol \"ICMP\" is none of TCP, UDP, SCTP; the port is left out")),
        (json!({"podSelector": {"matchExpressions": [{"key": "app", "operator": "Like", "values": ["x"]}]}}),
         "NetworkPolicy shop/p spec.podSelector: \"Like\" is none of In, NotIn, Exists, DoesNotExist; it is left out, \
          and pods are isolated whether they fulfil it or not".to_owned()),
        (json!({"podSelector": {}, "policyTypes": ["Both"]}),
         "NetworkPolicy shop/p spec.policyTypes: \"Both\" is none of Ingress, Egress; the policy isolates in both \
          directions".to_owned()),
    ];
    // What another policy allows, it allows beside each of these.
    let good = json!({"podSelector": {}, "ingress": [{"ports": [{"port": 81}]}]});
    for (spec, wanted) in table {
        let (snapshot, notes) = with(&[("p", spec.clone()), ("good", good.clone())]);
        assert_eq!(notes, [wanted], "{spec}");
        let denied = explain(&snapshot, "10.244.1.3", WEB, 80).expect("isolated");
        assert!(!denied.accepted, "{spec}");
        let by_p = |origin: &Origin| origin.name == "p";
        assert!(denied.isolated_by.iter().any(by_p), "{spec}: {denied:?}");
        assert_eq!(
            said(&snapshot, "10.244.2.3", WEB, 81),
            "allowed by NetworkPolicy shop/good spec.ingress[0]",
            "{spec}"
        );
    }
    let outside =
        json!({"from": [{"ipBlock": {"cidr": "10.244.1.0/24", "except": ["192.0.2.0/24"]}}]});
    let (snapshot, notes) = with(&[("p", ingress(outside))]);
    assert_eq!(
        notes,
        [format!(
            "{at}.from[0]: except 192.0.2.0/24 lies outside of 10.244.1.0/24; it changes nothing"
        )]
    );
    assert_eq!(
        said(&snapshot, "10.244.1.3", "10.244.1.2", 80),
        format!("allowed by {at}")
    );
}

/// A type that is none of the two isolates in both directions.
#[test]
fn a_wrong_policy_type_isolates_for_ingress_and_egress() {
    let (snapshot, notes) = with(&[("p", json!({"podSelector": {}, "policyTypes": ["Both"]}))]);
    assert_eq!(notes.len(), 1, "{notes:?}");
    for (from, to) in [("10.244.2.3", WEB), (WEB, "10.244.2.3")] {
        let found = said(&snapshot, from, to, 80);
        assert_eq!(found, "denied", "{from} to {to}");
    }
}

#[test]
fn a_mistake_leaves_the_rest_of_its_policy() {
    let rules = json!([
        {"from": [{"ipBlock": {"cidr": "10.0.0.0/33"}}, {"podSelector": {"matchLabels": {"app": "client"}}}],
         "ports": [{"port": 90, "endPort": 80}, {"port": 8080}]},
        {"from": [{"podSelector": {"matchExpressions": [{"key": "app", "operator": "Like"}]}}]},
        {"ports": [{"port": 9000}]},
    ]);
    let web = json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": rules});
    let (snapshot, notes) = with(&[("p", web)]);
    assert_eq!(notes.len(), 3, "{notes:?}");
    for (from, port, wanted) in [
        (
            "10.244.1.3",
            8080,
            "allowed by NetworkPolicy shop/p spec.ingress[0]",
        ),
        (
            "10.244.2.3",
            9000,
            "allowed by NetworkPolicy shop/p spec.ingress[2]",
        ),
        ("10.244.1.3", 85, "denied"),
        ("10.244.2.3", 8080, "denied"),
    ] {
        let found = said(&snapshot, from, WEB, port);
        assert!(found.starts_with(wanted), "{from} to {port}: {found}");
    }
}

/// However many pods it means, and however many rules name it.
#[test]
fn a_peer_of_very_many_pods_is_one_set() {
    const MANY: usize = 20_000;
    let pod = |nth: usize| {
        let address = format!(
            "10.{}.{}.{}",
            100 + nth / 62_500,
            nth / 250 % 250,
            nth % 250 + 1
        );
        format!("pod shop/crowd-{nth} on=node-2 ip={address} labels=app:crowd")
    };
    let lines: Vec<_> = (0..MANY).map(pod).collect();
    let rule = |port: u16| json!({"from": [{"podSelector": {}}], "ports": [{"port": port}]});
    let rules: Vec<_> = (1000..1040).map(rule).collect();
    let (mut snapshot, _) = with(&[
        (
            "everybody",
            json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": rules}),
        ),
        (
            "small",
            json!({"podSelector": {"matchLabels": {"app": "client"}},
                         "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}]}),
        ),
    ]);
    let few = elements(&snapshot);
    for pod in fixture::cluster(&lines.join("\n")).pods.into_values() {
        snapshot.insert(Object::Pod(pod));
    }
    let many = elements(&snapshot);
    assert!(
        (MANY..MANY + few).contains(&many),
        "{many}, and {few} before"
    );
    assert_eq!(
        said(&snapshot, "10.100.7.7", WEB, 1007),
        "allowed by NetworkPolicy shop/everybody spec.ingress[7]"
    );
    let found = said(&snapshot, WEB, "10.244.1.3", 80);
    assert_eq!(found, "allowed by NetworkPolicy shop/small spec.ingress[0]");
}

/// How many elements `node-1` holds.
fn elements(snapshot: &Snapshot) -> usize {
    let tables = policy::apply(&policy::plan(snapshot, "node-1"));
    let sets = tables.iter().flat_map(|table| table.sets.values());
    sets.map(|set| set.elements.len()).sum()
}

#[test]
fn a_name_means_nothing_at_an_ip_block() {
    let rule = json!({"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"port": "http"}]});
    let policy = json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [rule]});
    let (snapshot, notes) = with(&[("p", policy)]);
    assert_eq!(
        notes,
        [
            "NetworkPolicy shop/p spec.egress[0]: port \"http\" is a name, which the addresses of an ipBlock \
                        do not have; it allows nothing there"
        ]
    );
    let found = said(&snapshot, "10.244.1.3", "10.244.1.2", 8080);
    assert!(!found.starts_with("allowed"), "{found}");
}

/// Policies of another namespace cannot be made to share a chain.
#[test]
fn chains_are_named_for_their_namespace() {
    let (snapshot, _) = with(&[("p", json!({"podSelector": {}}))]);
    let plan = policy::plan(&snapshot, "node-1");
    let classes = plan.classes();
    let names: Vec<_> = classes.keys().collect();
    assert!(
        names.iter().all(|name| name.starts_with("ingress-shop-")),
        "{names:?}"
    );
    assert_eq!(
        names.len(),
        1,
        "pods that the same policies select share one: {names:?}"
    );
}
