//! NodeNetworkPolicies as administrators write them: what the kernel then holds, what passes whatever they say, and mistakes.

use parfait_cluster::{EndpointSlice, Parsed, Snapshot};
use parfait_linux::conntrack::Entry;
use parfait_linux::nft::evaluate::ct_state;
use parfait_linux::nft::{self, Hook, render};
use parfait_packet::Packet;
use parfait_transport::policy::{self, group::LARGE};
use serde_json::{Value, json};

use crate::cluster_tables::connection;
use crate::tables::{add, note_planned, with};
use crate::{Node, node, passes};

/// Where the API server answers, on `node-1` and elsewhere.
const API: &str = "
slice kubernetes of=kubernetes ports=https:6443/TCP endpoints=192.168.77.11
slice kubernetes-2 of=kubernetes ports=https:6443/TCP endpoints=203.0.113.7
slice elsewhere of=web ports=https:6444/TCP endpoints=192.168.77.11
";

/// The cluster with a policy for nodes; and what was noted.
pub fn of_nodes(policies: &[(&str, Value)]) -> (Snapshot, Vec<String>) {
    let (mut snapshot, mut said) = with(&[]);
    for slice in crate::fixture::cluster(API).slices.values() {
        let slice = EndpointSlice::clone(slice);
        snapshot.insert(parfait_cluster::Object::EndpointSlice(slice));
    }
    for (name, spec) in policies {
        let raw = json!({"metadata": {"name": name}, "spec": spec});
        let raw = serde_json::from_value(raw).expect("a NodeNetworkPolicy");
        add(&mut snapshot, Parsed::NodeNetworkPolicy(&raw), &mut said);
    }
    note_planned(&snapshot, &mut said);
    (snapshot, said)
}

pub fn everywhere() -> Value {
    json!([{"networks": ["0.0.0.0/0", "::/0"]}])
}

pub fn closed() -> Value {
    json!({"priority": 1, "ingress": [{"action": "Deny", "from": everywhere()}]})
}

/// Whether `node-1` takes a new connection, `192.0.2.1 192.168.77.11 tcp 22`; programmed and explained.
fn takes(snapshot: &Snapshot, node: &Node, text: &str) -> bool {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [from, to, protocol, port] = words.as_slice() else {
        panic!("{text}");
    };
    let [from, to] = [from, to].map(|ip| ip.parse().expect("an address"));
    let (protocol, port) = (
        protocol.parse().expect("a protocol"),
        port.parse().expect("a port"),
    );
    let packet = Packet::new(from, to, protocol, port).expect("one family");
    let explained = policy::explain_node(&node.plan, snapshot, &packet);
    let passed = passes(node, Hook::Input, packet, ct_state::NEW);
    let said = explained
        .as_ref()
        .is_none_or(|explained| explained.accepted);
    assert_eq!(said, passed, "{text}: {explained:?}");
    // What it was asked and has answered goes on.
    assert!(passes(node, Hook::Input, packet, ct_state::ESTABLISHED));
    passed
}

#[test]
fn what_nft_shows_of_a_node() {
    let rules = json!({"priority": 1, "ingress": [
        {"action": "Accept", "from": [{"networks": ["192.0.2.0/24"]}], "protocols": [{"tcp": {"destinationPort": {"number": 22}}}]},
        {"action": "Deny", "from": everywhere()},
    ]});
    let (snapshot, notes) = of_nodes(&[("door", rules)]);
    assert_eq!(notes, [""; 0]);
    let tables = policy::apply(&policy::plan(&snapshot, "node-1")).into_iter();
    let tables = tables.map(|table| (table.key(), table)).collect();
    insta::assert_snapshot!(render::ruleset(&tables));
}

/// The safety net: with everything denied, nobody is locked out for good.
#[test]
fn what_a_node_needs_passes_whatever_policies_say() {
    let (snapshot, notes) = of_nodes(&[("nobody", closed())]);
    assert_eq!(notes, [""; 0]);
    let node = node(&snapshot, "node-1", LARGE);
    for passing in [
        "192.168.77.12 192.168.77.11 tcp 22",   // from another node
        "192.168.77.12 192.168.77.11 udp 4789", // a tunnel
        "10.244.2.1 192.168.77.11 tcp 179",     // from its address in the pod network
        "198.51.100.1 192.168.77.11 tcp 6443",  // the API server
        "198.51.100.1 192.168.77.11 tcp 10250", // the kubelet
        "198.51.100.1 192.168.77.11 icmp 0",
        "192.0.2.1 255.255.255.255 udp 68", // an offer of DHCP
        "10.244.1.2 10.96.0.10 udp 53",     // cluster DNS
    ] {
        assert!(takes(&snapshot, &node, passing), "{passing}");
    }
    for denied in [
        "198.51.100.1 192.168.77.11 tcp 22",
        "10.244.1.2 192.168.77.11 tcp 22",     // its own pod
        "198.51.100.1 192.168.77.11 tcp 6444", // another Service
        "198.51.100.1 192.168.77.11 udp 6443",
        "198.51.100.1 192.168.77.11 sctp 22",
    ] {
        assert!(!takes(&snapshot, &node, denied), "{denied}");
    }
}

/// Of connections that there are: those to the node that policies deny, but none of the safety net, and none of its own.
#[test]
fn connections_to_a_node_end_that_policies_forbid() {
    let (snapshot, notes) = of_nodes(&[("nobody", closed())]);
    assert_eq!(notes, [""; 0]);
    let plan = policy::plan(&snapshot, "node-1");
    let own =
        ["192.168.77.11", "10.244.1.1", "10.96.0.10"].map(|ip| ip.parse().expect("an address"));
    let entries = [
        "198.51.100.1:4000 192.168.77.11:22", // denied
        "10.244.1.2:4000 192.168.77.11:22",   // denied to a pod of its own
        "10.244.2.3:4000 10.244.1.1:22",      // denied to another node's
        "192.168.77.12:4000 192.168.77.11:22",
        "198.51.100.1:4000 192.168.77.11:6443",
        "198.51.100.1:4000 192.168.77.11:10250",
        "10.244.1.2:4000 10.96.0.10:53",
        "10.244.1.2:4000 10.244.2.3:22",       // between pods
        "192.168.77.11:4000 198.51.100.1:443", // of its own
        "192.168.77.11:4000 10.244.1.2:8080",
        "192.168.77.11:6443 192.168.77.11:4000", // the API server's, taken up midway
        "203.0.113.7:6443 192.168.77.11:4000",   // the same elsewhere
    ];
    let mut entries: Vec<_> = entries.map(connection).into();
    // Of who knows whom, since before anything was tracked.
    entries.push(Entry {
        midway: true,
        ..connection("198.51.100.9:443 192.168.77.11:4000")
    });
    let ended: Vec<String> = policy::forbidden(&plan, &own.into(), &entries)
        .iter()
        .map(|one| {
            let original = &one.entry.original;
            let (from, to) = (original.source, original.destination);
            format!("{from} {to} {} of {}", one.direction.name(), one.pod)
        })
        .collect();
    let wanted = [
        "198.51.100.1:4000 192.168.77.11:22 ingress of Node node-1",
        "10.244.1.2:4000 192.168.77.11:22 ingress of Node node-1",
        "10.244.2.3:4000 10.244.1.1:22 ingress of Node node-1",
    ];
    assert_eq!(ended, wanted);
}

/// The set of ended connections is shared with pods' policies: it stays for as long as either needs it.
#[test]
fn what_has_ended_stays_ended_while_any_policy_is_there() {
    let deny = json!({"podSelector": {}});
    let (mut both, _) = with(&[("web", deny)]);
    let raw = json!({"metadata": {"name": "nobody"}, "spec": closed()});
    let raw = serde_json::from_value(raw).expect("a NodeNetworkPolicy");
    let pods = policy::plan(&both, "node-1");
    add(&mut both, Parsed::NodeNetworkPolicy(&raw), &mut Vec::new());
    let both = policy::plan(&both, "node-1");
    let (alone, _) = of_nodes(&[("nobody", closed())]);
    let alone = policy::plan(&alone, "node-1");
    for (before, after) in [
        (&both, &pods),
        (&both, &alone),
        (&pods, &both),
        (&alone, &both),
    ] {
        assert!(!before.pods.is_empty() || !after.pods.is_empty());
        let patch = policy::difference(before, after);
        for tables in [&patch.before, &patch.after] {
            // The pods have no IPv6.
            let mut ipv4 = tables
                .values()
                .filter(|table| table.family == nft::Family::Ip);
            assert!(!ipv4.any(|table| table.sets.contains_key(policy::ENDED)));
        }
    }
    let gone = policy::difference(&alone, &policy::Plan::default());
    let mut tables = gone.before.values();
    assert!(tables.all(|table| table.sets.contains_key(policy::ENDED)));
}

#[test]
fn policies_are_for_the_nodes_that_they_select() {
    let mut policy = closed();
    policy["nodeSelector"] = json!({"matchLabels": {"role": "edge"}});
    let (mut snapshot, notes) = of_nodes(&[("edge", policy)]);
    assert_eq!(notes, [""; 0]);
    assert_eq!(policy::plan(&snapshot, "node-1").host, None);
    let asked = "198.51.100.1 192.168.77.11 tcp 22";
    assert!(takes(&snapshot, &node(&snapshot, "node-1", LARGE), asked));
    let edge = snapshot.nodes.get_mut("node-1").expect("a node");
    edge.labels.insert("role".to_owned(), "edge".to_owned());
    assert!(!takes(&snapshot, &node(&snapshot, "node-1", LARGE), asked));
    assert_eq!(policy::plan(&snapshot, "node-2").host, None);
}

/// A mistake, and what is noted.
#[test]
fn mistakes_in_rules_of_nodes_fail_closed() {
    let table = [
        (
            json!({"action": "Pass", "from": everywhere()}),
            "ingress[0].action: \"Pass\" is neither Accept nor Deny; the rule denies everything",
        ),
        (
            json!({"action": "Deny", "from": everywhere(), "protocols": [{"destinationNamedPort": "http"}]}),
            "ingress[0].protocols: a node has no named ports; the rule denies everything",
        ),
        (
            json!({"action": "Deny", "from": [{"domainNames": ["example.com"]}]}),
            "ingress[0].from[0]: {\"domainNames\":[\"example.com\"]} is not one of namespaces, pods, networks, nodes; the rule \
          denies everything",
        ),
        (
            json!({"action": "Deny", "from": [{"networks": ["10.0.0.0/33"]}]}),
            "ingress[0].from[0].networks[0]: \"10.0.0.0/33\" is not a CIDR; the rule denies everything",
        ),
    ];
    for (rule, wanted) in table {
        let spec = json!({"priority": 1, "ingress": [rule]});
        let (snapshot, notes) = of_nodes(&[("p", spec)]);
        assert_eq!(notes, [format!("NodeNetworkPolicy p spec.{wanted}")]);
        let node = node(&snapshot, "node-1", LARGE);
        assert!(!takes(
            &snapshot,
            &node,
            "198.51.100.1 192.168.77.11 tcp 22"
        ));
        assert!(takes(
            &snapshot,
            &node,
            "198.51.100.1 192.168.77.11 tcp 6443"
        ));
    }
    let bad = json!({"priority": 1, "nodeSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]},
                     "ingress": [{"action": "Accept", "from": everywhere()}]});
    let (snapshot, notes) = of_nodes(&[("bad", bad), ("nobody", closed())]);
    let note = "NodeNetworkPolicy bad spec.nodeSelector: \"Like\" is none of In, NotIn, Exists, DoesNotExist; it is left out; \
                of this policy only rules that deny are used";
    assert_eq!(notes, [note]);
    let node = node(&snapshot, "node-1", LARGE);
    assert!(!takes(
        &snapshot,
        &node,
        "198.51.100.1 192.168.77.11 tcp 22"
    ));
}
