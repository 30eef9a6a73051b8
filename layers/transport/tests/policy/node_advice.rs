//! What NodeNetworkPolicies come to before they are applied: who loses a node, and what was probably not meant.

use parfait_transport::policy::nodes::{NodeChange, changes};
use parfait_transport::policy::overview::Who;
use parfait_transport::policy::{Effective, lint};
use serde_json::{Value, json};

use crate::node_tables::{closed, everywhere, of_nodes};

fn who(who: &Who) -> String {
    match who {
        Who::Pod(origin, _) | Who::Service(origin) => origin.to_string(),
        Who::Block(net) => net.to_string(),
        Who::Elsewhere(family) => format!("any other {family}"),
    }
}

/// `- WHO, WHO → node-1 PORTS: BY` of everything that changes.
fn changed(before: &[(&str, Value)], after: &[(&str, Value)]) -> Vec<String> {
    let [(was, _), (is, notes)] = [before, after].map(of_nodes);
    assert_eq!(notes, [""; 0]);
    let changes = changes(&is, &Effective::of(&was), &Effective::of(&is));
    let said = |change: NodeChange| {
        let sign = if change.passes { '+' } else { '-' };
        let whose: Vec<_> = change.who.iter().map(who).collect();
        let nodes: Vec<_> = change.nodes.iter().map(|node| node.name.as_str()).collect();
        let ports: Vec<_> = change.ports.iter().map(ToString::to_string).collect();
        let by: Vec<_> = change.by.iter().map(|by| by.field.clone()).collect();
        let (whose, ports, node) = (whose.join(", "), ports.join(", "), nodes.join(" "));
        format!("{sign} {whose} → {node} {ports}: {}", by.join(", "))
    };
    changes.into_iter().map(said).collect()
}

/// Administrators may do everything, clients ask for the web, and nobody else anything.
fn door() -> Value {
    let at = |port: u16| json!([{"tcp": {"destinationPort": {"number": port}}}]);
    let client =
        json!({"podSelector": {"matchLabels": {"app": "client"}}, "namespaceSelector": {}});
    json!({"priority": 1, "nodeSelector": {"matchLabels": {"role": "edge"}}, "ingress": [
        {"action": "Accept", "from": [{"networks": ["192.0.2.0/24"]}]},
        {"action": "Accept", "from": [{"pods": client}], "protocols": at(80)},
        {"action": "Deny", "from": everywhere()},
    ]})
}

fn everywhere_door() -> Value {
    let mut door = door();
    door.as_object_mut().map(|spec| spec.remove("nodeSelector"));
    door
}

#[test]
fn who_loses_a_node_and_who_gains_it_is_known_before() {
    let door = [("door", everywhere_door())];
    let wanted = [
        "- Pod shop/client, Pod tools/probe → node-1 node-2 0-79/tcp, 81-65535/tcp, all of udp, all of sctp: spec.ingress[2]",
        "- Pod shop/other, Pod shop/web, 0.0.0.0/0, ::/0 → node-1 node-2 all of tcp, all of udp, all of sctp: spec.ingress[2]",
    ];
    let told: Vec<String> = changed(&[], &door)
        .iter()
        .map(|line| line.replace("everything", "all of tcp, all of udp, all of sctp"))
        .collect();
    assert_eq!(told, wanted);
    let gained = changed(&door, &[]);
    let gained = gained.iter().filter(|line| line.starts_with("+ "));
    assert_eq!(gained.count(), 2);
    // A second policy behind the first changes nothing that the first has decided.
    let behind = json!({"priority": 2, "ingress": [{"action": "Deny", "from": everywhere()}]});
    let both = [("door", everywhere_door()), ("behind", behind)];
    assert_eq!(changed(&door, &both), [""; 0]);
    // No node has the label.
    assert_eq!(changed(&[], &[("door", self::door())]), [""; 0]);
}

/// `CHECK NAME FIELD: MESSAGE`
fn advised(policies: &[(&str, Value)]) -> Vec<String> {
    let (snapshot, _) = of_nodes(policies);
    let told = lint(&snapshot).into_iter().map(|advice| {
        let (check, origin) = (advice.check.name(), advice.origin);
        format!(
            "{check} {} {}: {}",
            origin.name, origin.field, advice.message
        )
    });
    told.collect()
}

#[test]
fn what_was_probably_not_meant_for_nodes_is_told() {
    assert_eq!(advised(&[("door", everywhere_door())]), [""; 0]);
    let alone = "node-locked-out nobody spec.ingress[0]: nobody but nodes of the cluster reaches ssh (22/tcp) of 2 nodes \
                 as Node node-1";
    assert_eq!(advised(&[("nobody", closed())]), [alone]);
    let nowhere = "selects-no-node door spec.nodeSelector: no node fits it";
    assert_eq!(advised(&[("door", door())]), [nowhere]);
    let twice = json!({"priority": 7, "ingress": [
        {"action": "Accept", "from": [{"networks": ["192.0.2.0/25"]}]},
        {"action": "Accept", "from": [{"namespaces": {"matchLabels": {"team": "none"}}}]},
    ]});
    let told = advised(&[("a", twice), ("door", everywhere_door())]);
    let wanted = [
        "rule-shadowed a spec.ingress[0]: it is never asked: NodeNetworkPolicy door spec.ingress[0] matches all that it does",
        "peer-matches-nobody a spec.ingress[1]: no pod of any namespace fits namespaceSelector with label team=none",
        "rule-allows-nothing a spec.ingress[1]: nobody fits its peers",
    ];
    assert_eq!(told, wanted);
    let mistake = json!({"priority": 1, "ingress": [{"action": "Pass", "from": everywhere()}]});
    let told = advised(&[("wrong", mistake)]);
    let why = "mistake wrong spec.ingress[0].action: \"Pass\" is neither Accept nor Deny; the rule denies everything";
    assert!(told.iter().any(|one| one == why), "{told:?}");
}
