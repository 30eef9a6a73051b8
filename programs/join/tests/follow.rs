//! A plan that follows changes is the plan of the whole, and what it changes in the tables leads there.

#[path = "../../../model/cluster/tests/fixture/balancers.rs"]
mod balancers;
#[path = "../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;

use std::collections::BTreeSet;

use fixture::{DUAL, clusters};
use parfait_cluster::{Attachment, Key, Object, Parsed, Snapshot, parse};
use parfait_join::{Follower, NodePlan};
use parfait_linux::State;
use parfait_linux::nft::{Tables, diff};
use proptest::prelude::*;

const NODE: &str = "node-1";

const OBJECTS: &str = "service web ip=10.96.0.20,fd00:10:96::20 ports=http:80/TCP>8080
service names ip=10.96.0.10 ports=dns:53/UDP servedByNode
service odd ip=10.244.3.9 ports=80/TCP
slice web-a of=web ports=http:8080/TCP endpoints=10.244.1.3@node-1/web-1,10.244.2.2@node-2/web-2
slice kubernetes of=kubernetes ports=https:6443/TCP endpoints=192.168.77.11
slice web-6 of=web ports=http:8080/TCP endpoints=fd00:10:244:1::3@node-1/web-1
node node-3 pods=10.244.3.0/24 underlay=192.168.77.13/24
node node-0 pods=10.244.2.0/25 underlay=192.168.77.14/24
pod web-1 on=node-1 ip=10.244.1.3,fd00:10:244:1::3 hostPorts=8080>80
pod web-3 on=node-1 ip=10.244.1.4
pod far on=node-2 ip=10.244.2.9
namespace default
namespace kube-system";

/// The `spec` of each policy, in turns with another of the same name.
const POLICIES: [[&str; 2]; 2] = [
    [
        r#"{"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "a"}}}]}]}"#,
        r#"{"podSelector": {"matchLabels": {"app": "a"}}, "policyTypes": ["Ingress", "Egress"]}"#,
    ],
    [
        r#"{"podSelector": {}, "egress": [{"to": [{"namespaceSelector": {"matchLabels": {"team": "a"}}}]}]}"#,
        r#"{"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 80}]}]}"#,
    ],
];

/// The `spec` of a ClusterNetworkPolicy, and another of the same name.
const CLUSTER_POLICIES: [&str; 2] = [
    r#"{"tier": "Admin", "priority": 1, "subject": {"namespaces": {}},
        "ingress": [{"action": "Deny", "from": [{"pods": {"podSelector": {"matchLabels": {"app": "a"}}}}]}]}"#,
    r#"{"tier": "Baseline", "priority": 1, "subject": {"namespaces": {"matchLabels": {"team": "a"}}},
        "egress": [{"action": "Deny", "to": [{"nodes": {}}, {"networks": ["10.244.2.0/24"]}]}]}"#,
];

/// The `spec` of a NodeNetworkPolicy, for all nodes.
const NODE_POLICY: &str =
    r#"{"priority": 1, "ingress": [{"action": "Deny", "from": [{"networks": ["0.0.0.0/0"]}]}]}"#;

/// What comes and goes: among it a node that takes another's pod CIDR, a Service with an address of a third's pods,
/// and one that its node answers, by turns.
fn objects() -> Vec<Object> {
    let snapshot = clusters(&[DUAL, OBJECTS]);
    let mut objects: Vec<Object> = Vec::new();
    for service in snapshot.services.values() {
        let mut other = service.clone();
        other.served_by_node = !other.served_by_node;
        objects.extend([service.clone(), other].map(Object::Service));
    }
    let slices = snapshot.slices.values();
    objects.extend(slices.map(|slice| Object::EndpointSlice((**slice).clone())));
    for mut pod in snapshot.pods.values().cloned() {
        objects.push(Object::Pod(pod.clone()));
        pod.labels.insert("app".to_owned(), "a".to_owned());
        objects.push(Object::Pod(pod));
    }
    for mut namespace in snapshot.namespaces.values().cloned() {
        objects.push(Object::Namespace(namespace.clone()));
        namespace.labels.insert("team".to_owned(), "a".to_owned());
        objects.push(Object::Namespace(namespace));
    }
    objects.extend(policies());
    objects.extend(cluster_policies());
    objects.push(node_policy());
    let others = snapshot.nodes.values().filter(|node| node.name != NODE);
    objects.extend(others.cloned().map(Object::Node));
    objects.extend(load_balancers());
    objects
}

/// The Service `web` as a load balancer whose address this node makes known, if it has an endpoint.
fn load_balancers() -> Vec<Object> {
    let mut snapshot = Snapshot::default();
    let mut spec = serde_json::json!({"addresses": ["192.0.2.0/28"], "announcement": "BGP"});
    balancers::add_pool(&mut snapshot, "office", spec.clone());
    let mut of_team = Snapshot::default();
    let team = serde_json::json!({"matchLabels": {"team": "a"}});
    spec["namespaceSelector"] = team;
    balancers::add_pool(&mut of_team, "office", spec);
    let policy = serde_json::json!({"externalTrafficPolicy": "Local"});
    balancers::add_balancer(&mut snapshot, "web", policy);
    let mut objects: Vec<_> = snapshot
        .services
        .values()
        .cloned()
        .map(Object::Service)
        .collect();
    balancers::hold(&mut snapshot, "web", &["192.0.2.1"]);
    objects.extend(snapshot.services.into_values().map(Object::Service));
    let pools = snapshot
        .pools
        .into_values()
        .chain(of_team.pools.into_values());
    objects.extend(pools.map(Object::LoadBalancerPool));
    objects
}

fn policies() -> impl Iterator<Item = Object> {
    let named = POLICIES.iter().zip(["p", "q"]);
    let specs = named.flat_map(|(specs, name)| specs.iter().map(move |spec| (name, spec)));
    specs.map(|(name, spec)| {
        let text = format!(r#"{{"metadata": {{"name": "{name}"}}, "spec": {spec}}}"#);
        let policy = serde_json::from_str(&text).expect("a NetworkPolicy");
        let (object, notes) = parse(Parsed::NetworkPolicy(&policy), &|_| Err(String::new()));
        assert_eq!(notes, []);
        object.expect("a NetworkPolicy")
    })
}

fn cluster_policies() -> impl Iterator<Item = Object> {
    CLUSTER_POLICIES.iter().map(|spec| {
        let text = format!(r#"{{"metadata": {{"name": "c"}}, "spec": {spec}}}"#);
        let policy = serde_json::from_str(&text).expect("a ClusterNetworkPolicy");
        let parsed = Parsed::ClusterNetworkPolicy(&policy);
        let (object, notes) = parse(parsed, &|_| Err(String::new()));
        assert_eq!(notes, []);
        object.expect("a ClusterNetworkPolicy")
    })
}

fn node_policy() -> Object {
    let text = format!(r#"{{"metadata": {{"name": "n"}}, "spec": {NODE_POLICY}}}"#);
    let policy = serde_json::from_str(&text).expect("a NodeNetworkPolicy");
    let (object, notes) = parse(Parsed::NodeNetworkPolicy(&policy), &|_| Err(String::new()));
    assert_eq!(notes, []);
    object.expect("a NodeNetworkPolicy")
}

fn attachment(number: usize) -> Attachment {
    Attachment {
        id: format!("container-{number}/eth0"),
        pod: None,
        interface: format!("pf00000000000{number}"),
        first: true,
        addresses: vec![
            format!("10.244.1.{}", 20 + number)
                .parse()
                .expect("an address"),
        ],
        mac: None,
        port_mappings: Vec::new(),
    }
}

/// One thing changes; its key, as watches and the plugin's bell tell it.
fn change(snapshot: &mut Snapshot, objects: &[Object], what: usize, comes: bool) -> BTreeSet<Key> {
    let Some(object) = objects.get(what) else {
        let attached = (0..what - objects.len()).map(attachment);
        return snapshot.attach(NODE, attached);
    };
    let key = object.key();
    match comes {
        true => snapshot.insert(object.clone()),
        false => snapshot.remove(&key),
    }
    BTreeSet::from([key])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn following_and_planning_anew_come_to_the_same(
        events in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 1..24),
    ) {
        let objects = objects();
        let mut snapshot = clusters(&[DUAL]);
        let mut follower = Follower::new(&snapshot, NODE);
        let mut held = follower.plan().state();
        held.tables = Tables::new();
        // What is carried out is read back in one form of each value.
        for step in diff::diff(&Tables::new(), &follower.plan().state().tables) {
            diff::apply(&mut held.tables, &step);
        }
        for (index, comes) in events {
            let what = index.index(objects.len() + 3);
            let changed = change(&mut snapshot, &objects, what, comes);
            let delta = follower.follow(&snapshot, &changed);
            for step in diff::diff(&delta.tables.before, &delta.tables.after) {
                diff::apply(&mut held.tables, &step);
            }
            let (kept, fresh) = (follower.plan(), NodePlan::new(&snapshot, NODE));
            prop_assert_eq!(&kept.link, &fresh.link);
            prop_assert_eq!(&kept.internet, &fresh.internet);
            prop_assert_eq!(&kept.transport, &fresh.transport);
            prop_assert_eq!(&kept.policy, &fresh.policy);
            if delta.objects {
                let tables = std::mem::take(&mut held.tables);
                held = follower.plan().objects();
                held.tables = tables;
            }
            let fresh = fresh.state();
            let left = diff::diff(&held.tables, &fresh.tables);
            let left: Vec<_> = left.iter().map(ToString::to_string).collect();
            prop_assert_eq!(left, Vec::<String>::new());
            let objects = State { tables: held.tables.clone(), ..fresh };
            prop_assert!(held == objects, "the objects differ");
        }
    }
}

#[test]
fn a_policy_that_names_nodes_comes_while_a_pod_cidr_is_disputed() {
    let objects = objects();
    let mut snapshot = clusters(&[DUAL]);
    let mut follower = Follower::new(&snapshot, NODE);
    // A Service with an address of its pods.
    let is_rival = |object: &&Object| match object {
        Object::Node(node) => node.name == "node-3",
        Object::Service(service) => service.name.name == "odd" && !service.served_by_node,
        _ => false,
    };
    let rivals = objects.iter().filter(is_rival).cloned();
    let in_team = |object: &&Object| match object {
        Object::Namespace(namespace) => namespace.labels.contains_key("team"),
        _ => false,
    };
    let teams = objects.iter().filter(in_team).cloned();
    let naming_nodes = cluster_policies().nth(1).expect("two of them");
    for object in teams.chain(rivals).chain([naming_nodes]) {
        let key = object.key();
        snapshot.insert(object);
        follower.follow(&snapshot, &BTreeSet::from([key]));
        let fresh = NodePlan::new(&snapshot, NODE);
        assert_eq!(follower.plan().policy, fresh.policy);
    }
    assert!(!follower.plan().policy.pods.is_empty());
}
