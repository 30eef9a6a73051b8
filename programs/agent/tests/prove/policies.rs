//! What policies put into the kernel: every set and map, and every chain, once broken, is found (PF355), alone, with the
//! object that it is for; and the agent's next look repairs it.

use std::collections::BTreeSet;

use parfait_cluster::{Object, Parsed, Snapshot, parse};
use parfait_linux::nft::Family;
use parfait_packet::Fault;
use parfait_transport::policy;
use parfait_transport::policy::group::LARGE;
use serde_json::{Value, json};

use super::Broken;
use super::sets::Tried;

const CLUSTER: &str = "
service kube-system/kube-dns ip=10.96.0.10,fd00:10:96::a ports=dns:53/UDP servedByNode
service kubernetes ip=10.96.0.1 ports=https:443/TCP>6443
slice kubernetes of=kubernetes ports=https:6443/TCP endpoints=203.0.113.7
namespace default
namespace kube-system
";

/// What the sets of classes and steps are called behind their class, and the others' whole names.
const KINDS: [&str; 15] = [
    "block-ports",
    "blocks",
    "egress_isolated",
    "egress_to_node",
    "host-ports",
    "host-ranges",
    "hosts",
    "ingress_isolated",
    "node_api",
    "node_dns",
    "node_peers",
    "peers",
    "policy_served",
    "ports",
    "ranges",
];

fn policies() -> [Object; 4] {
    let app = |name: &str| json!({"podSelector": {"matchLabels": {"app": name}}});
    let port = json!([{"port": 80}]);
    let range = json!([{"port": 8000, "endPort": 8090}]);
    let block = |cidr: &str| json!({"ipBlock": {"cidr": cidr}});
    let web = json!({
        "podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {"from": [app("client")]}, {"from": [app("crowd")]}, {"from": [block("198.51.100.0/24")]},
            {"from": [block("2001:db8:3::/64")]}, {"ports": port}, {"ports": range},
            {"from": [app("web"), block("203.0.113.0/25")], "ports": [{"port": 81}, {"port": 9000, "endPort": 9090}]},
        ],
    });
    let tier = json!({
        "tier": "Admin", "priority": 1, "subject": {"namespaces": {}},
        "egress": [{"action": "Deny", "to": [{"networks": ["198.18.0.0/15"]}]}],
    });
    let door = json!({"priority": 1, "ingress": [{"action": "Deny", "from": [{"networks": ["198.18.0.0/15"]}]}]});
    let of = |name: &str, spec: Value| json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec});
    let raw = (of("web", web), of("tier", tier), of("door", door));
    let quiet = of(
        "quiet",
        json!({"podSelector": {"matchLabels": {"app": "client"}}}),
    );
    let [web, quiet] = [raw.0, quiet].map(|raw| {
        let policy = serde_json::from_value(raw).unwrap();
        read(Parsed::NetworkPolicy(&policy))
    });
    let tier = serde_json::from_value(raw.1).unwrap();
    let door = serde_json::from_value(raw.2).unwrap();
    [
        web,
        quiet,
        read(Parsed::ClusterNetworkPolicy(&tier)),
        read(Parsed::NodeNetworkPolicy(&door)),
    ]
}

fn read(policy: Parsed<'_>) -> Object {
    let (object, notes) = parse(policy, &|_| Err(String::new()));
    assert_eq!(notes, []);
    object.unwrap()
}

/// The node with policies of every kind, so that no set is empty; a peer with more pods than [`LARGE`] is one.
fn node(test: &str) -> Option<Broken> {
    let crowd = (0..=LARGE).map(|nth| {
        let (third, last) = (4 + nth / 200, 2 + nth % 200);
        format!("pod crowd-{nth} on=node-4 ip=10.244.{third}.{last} labels=app:crowd\n")
    });
    let text = format!("{CLUSTER}{}", crowd.collect::<String>());
    let mut node = Broken::new(test, &text)?;
    label(&mut node.snapshot);
    for policy in policies() {
        node.snapshot.insert(policy);
    }
    node.repair();
    assert_eq!(node.found(), [], "nothing is broken yet");
    Some(node)
}

/// The first part of a pod's name as its label `app`.
fn label(snapshot: &mut Snapshot) {
    for pod in snapshot.pods.values_mut() {
        let app = pod.name.name.split('-').next().unwrap().to_owned();
        pod.labels.insert("app".to_owned(), app);
    }
}

/// `ingress-default-3f29c1d04a11-host-ports` is one of `host-ports`, `peers-…` one of `peers`.
fn kind(set: &str) -> Option<&'static str> {
    let mut kinds: Vec<_> = KINDS.into_iter().collect();
    kinds.sort_by_key(|kind| std::cmp::Reverse(kind.len()));
    let is = |kind: &&str| {
        let behind = set
            .strip_suffix(*kind)
            .is_some_and(|rest| rest.ends_with('-'));
        set == *kind || behind || (**kind == *"peers" && set.starts_with("peers-"))
    };
    kinds.into_iter().find(is)
}

#[test]
fn each_difference_in_each_set_of_policies_is_found_and_repaired() {
    let test = "each_difference_in_each_set_of_policies_is_found_and_repaired";
    let Some(node) = node(test) else {
        return;
    };
    let mut tried = BTreeSet::new();
    for table in policy::apply(&node.plan().policy) {
        for (name, set) in table.sets.iter().filter(|(_, set)| set.dynamic.is_none()) {
            if Tried::new(&node, &table, name, set).each_difference() {
                tried.insert(kind(name).unwrap_or(name).to_owned());
            }
        }
    }
    assert_eq!(tried, KINDS.map(str::to_owned).into());
}

#[test]
fn a_rule_of_policies_that_is_gone_or_too_many_is_found_and_repaired() {
    let test = "a_rule_of_policies_that_is_gone_or_too_many_is_found_and_repaired";
    let Some(node) = node(test) else {
        return;
    };
    let tables = policy::apply(&node.plan().policy);
    let table = tables.iter().find(|table| table.family == Family::Ip);
    let chains: Vec<_> = table.unwrap().chains.keys().collect();
    assert!(chains.len() > 10, "{chains:?}");
    for chain in chains {
        for script in [
            format!("nft flush chain ip parfait {chain}"),
            format!("nft insert rule ip parfait {chain} accept"),
        ] {
            node.sh(&script);
            let found = node.found();
            let text: Vec<_> = found.iter().map(ToString::to_string).collect();
            assert!(!found.is_empty(), "{script}");
            let of_it = |text: &String| text.contains(&format!("chain {chain}"));
            assert!(text.iter().all(of_it), "{script}: {text:#?}");
            assert!(found.iter().all(|one| one.fault == Fault::PolicyDifferent));
            node.repair();
            assert_eq!(node.found(), [], "after the repair of {script}");
        }
    }
}

/// What an agent of before could have left.
#[test]
fn a_chain_or_a_set_that_policies_have_left_is_found_and_repaired() {
    let test = "a_chain_or_a_set_that_policies_have_left_is_found_and_repaired";
    let Some(node) = node(test) else {
        return;
    };
    for left in [
        "chain ip parfait ingress-default-000000000000",
        "chain ip6 parfait egress-Admin-000000000000-0-deny",
        "chain ip parfait node-policies-9-deny",
        "set ip parfait peers-000000000000 { typeof ip saddr; }",
        "set ip6 parfait egress-default-000000000000-hosts { typeof ip6 daddr; }",
    ] {
        node.sh(&format!("nft 'add {left}'"));
        let name = left.split(' ').nth(3).unwrap();
        node.finds("PF355", name, "");
        node.repair();
        assert_eq!(node.found(), [], "after the repair of {left}");
    }
}
