//! From a pod's first packet until its last: whichever part of a change a packet meets, nothing passes that the pod's
//! policies deny, while the pod is attached, known, over and gone.
//!
//! ```text
//!   attached ──▶ known: its address is there, with its policies, in one transaction ──▶ over ──▶ gone ──▶ detached
//!   isolated     policies                                                               isolated again
//! ```

#[path = "../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;

use fixture::{THREE, clusters};
use parfait_cluster::{Attachment, Object, ObjectName, Parsed, Snapshot, parse};
use parfait_join::NodePlan;
use parfait_linux::attachment::host_interface;
use parfait_linux::nft::evaluate::ct_state;
use parfait_linux::nft::{AddressType, Context, End, Hook, Tables, diff, evaluate, phases};
use parfait_packet::{Packet, Protocol};
use serde_json::json;

const NEW: &str = "10.244.1.9";
/// Of its second interface, which the API never tells.
const SECOND: (&str, &str) = ("pf00000000000a", "10.244.1.10");
const OTHER: &str = "10.244.2.3";

/// What is allowed to and from pods labelled `app: new`, in both forms.
fn policies() -> [Object; 2] {
    let port = json!([{"port": 8080}]);
    let own = json!({
        "podSelector": {"matchLabels": {"app": "new"}}, "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"ports": port}], "egress": [{"ports": port}],
    });
    let own = json!({"metadata": {"name": "own", "namespace": "default"}, "spec": own});
    let own = serde_json::from_value(own).expect("a NetworkPolicy");
    let at = |port: u16| json!({"tcp": {"destinationPort": {"number": port}}});
    let everybody = json!([{"namespaces": {}}]);
    let rules = |list: &str| json!([{"action": "Accept", list: everybody, "protocols": [at(8080)]}, {"action": "Deny", list: everybody}]);
    let subject =
        json!({"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "new"}}}});
    let tier = json!({"tier": "Admin", "priority": 1, "subject": subject, "ingress": rules("from"), "egress": rules("to")});
    let tier = json!({"metadata": {"name": "tier"}, "spec": tier});
    let tier = serde_json::from_value(tier).expect("a ClusterNetworkPolicy");
    [
        Parsed::NetworkPolicy(&own),
        Parsed::ClusterNetworkPolicy(&tier),
    ]
    .map(|policy| {
        let (object, notes) = parse(policy, &|_| Err(String::new()));
        assert_eq!(notes, []);
        object.expect("a policy")
    })
}

/// The cluster with these pods besides the other one, of which `new` is attached or not.
fn cluster(pods: &str, attached: bool, policies: &[Object]) -> Snapshot {
    let other = format!("pod other on=node-2 ip={OTHER}\nnamespace default");
    let mut snapshot = clusters(&[THREE, &other, pods]);
    for policy in policies {
        snapshot.insert(policy.clone());
    }
    let first = host_interface("default", "new").to_string();
    let attachment = |id: &str, interface: &str, address: &str| Attachment {
        id: id.to_owned(),
        pod: Some((ObjectName::new("default", "new"), None)),
        interface: interface.to_owned(),
        first: address == NEW,
        addresses: vec![address.parse().expect("an address")],
        mac: None,
        port_mappings: Vec::new(),
    };
    let both = [
        attachment("c1/eth0", &first, NEW),
        attachment("c1/net1", SECOND.0, SECOND.1),
    ];
    snapshot.attach("node-1", both.into_iter().filter(|_| attached));
    snapshot
}

/// Whether the first packet of a connection is let through: from the pod and to it, by each of its interfaces.
fn passes(tables: &Tables, port: u16) -> [bool; 4] {
    let first = host_interface("default", "new");
    let ways = [(first.as_str(), NEW), SECOND];
    let [one, two] = ways.map(|(interface, own)| {
        [(own, OTHER), (OTHER, own)].map(|(from, to)| {
            let ip = |text: &str| text.parse().expect("an address");
            let packet = Packet::new(ip(from), ip(to), Protocol::Tcp, port).expect("one family");
            let elsewhere = |_| AddressType::Unicast;
            let mut context = Context::new(packet, &elsewhere);
            let links = (Some(interface), Some("eth0"));
            (context.iifname, context.oifname) = match from == own {
                true => links,
                false => (links.1, links.0),
            };
            context.ct_state = ct_state::NEW;
            let branches = evaluate(tables, Hook::Forward, &context);
            branches.iter().any(|branch| branch.end == End::Accepted)
        })
    });
    [one[0], one[1], two[0], two[1]]
}

#[test]
fn nothing_passes_that_policies_deny_from_the_first_packet_until_the_last() {
    let new = |more: &str| format!("pod new on=node-1 labels=app:new {more}");
    let twin = "pod twin on=node-1 ip=10.244.1.8 labels=app:new\n";
    let all = policies();
    let sets = [&all[..1], &all[1..], &all[..]];
    // Whether another pod of its class was there before.
    for (policies, before) in sets.into_iter().flat_map(|set| [(set, ""), (set, twin)]) {
        let life = [
            (String::new(), false, [false; 4]),
            (String::new(), true, [false; 4]),
            (new("phase=Pending"), true, [true; 4]),
            (new(&format!("ip={NEW}")), true, [true; 4]),
            (new(&format!("ip={NEW} phase=Failed")), true, [false; 4]),
            (String::new(), true, [false; 4]),
            (String::new(), false, [false; 4]),
        ];
        let mut held = Tables::new();
        for (pods, attached, allowed) in life {
            let snapshot = cluster(&format!("{before}{pods}"), attached, policies);
            let goal = NodePlan::new(&snapshot, "node-1").state().tables;
            for phase in phases(diff(&held, &goal)) {
                for step in &phase {
                    diff::apply(&mut held, step);
                }
                assert_eq!(passes(&held, 80), [false; 4], "{pods:?} after {phase:?}");
            }
            assert_eq!(held, goal);
            let found = passes(&held, 8080);
            assert_eq!(found, allowed, "{pods:?} {attached}");
        }
    }
}
