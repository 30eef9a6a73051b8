//! Random ways out of a cluster: with the node's address or the pod's own, exceptions, and chosen source addresses, which
//! some nodes have and others have not.

use std::net::{IpAddr, SocketAddr};

use parfait_cluster::{ObjectName, Snapshot};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::pick;
use crate::random::{Ask, Goal, LISTENING, Life, Party, Scene};
use crate::sockets::Outcome;

/// Nodes to which chosen addresses may belong; a scene has some of them.
const NODES: [usize; 4] = [1, 2, 3, 4];

/// The address of a node with which pods may be told to leave.
pub fn chosen(node: usize, family: u8) -> IpAddr {
    let text = match family {
        4 => format!("192.0.2.{}", 10 + node),
        _ => format!("2001:db8:2::1{node}"),
    };
    text.parse().expect("an address")
}

/// The cluster with labels, and with a configuration of how pods leave it.
pub fn with_egress(snapshot: &Snapshot, runner: &mut TestRunner) -> Result<Snapshot, String> {
    let mut snapshot = snapshot.clone();
    let labels = ["a", "b"].into_iter().cycle();
    for (pod, label) in snapshot.pods.values_mut().zip(labels) {
        pod.labels.insert("app".to_owned(), label.to_owned());
    }
    let config = pick(&egress(), runner)?;
    snapshot.config.egress = serde_json::from_value(config).map_err(|error| error.to_string())?;
    for (number, node) in (1..).zip(snapshot.nodes.values_mut()) {
        if let Some(underlay) = &mut node.underlay {
            underlay.egress = [4, 6].map(|family| chosen(number, family)).into();
        }
    }
    Ok(snapshot)
}

fn egress() -> impl Strategy<Value = Value> {
    let exceptions = select(vec![
        vec![],
        vec![],
        vec!["198.51.100.0/24"],
        vec!["2001:db8::/64"],
        vec!["198.51.100.1/32", "2001:db8::1/128"],
        vec!["192.168.0.0/16", "fd00:77::/64"],
    ]);
    let entry = (select(vec!["a", "b", ""]), subsequence(&NODES[..], 1..=3));
    let entry = entry.prop_map(|(label, nodes)| {
        let both = nodes
            .iter()
            .flat_map(|node| [4, 6].map(|family| chosen(*node, family)));
        let labels = match label {
            "" => json!({}),
            label => json!({"matchLabels": {"app": label}}),
        };
        let addresses: Vec<_> = both.collect();
        json!({"namespace": "default", "podSelector": labels, "addresses": addresses})
    });
    let entries = prop::collection::vec(entry, 0..=2);
    (any::<bool>(), exceptions, entries).prop_map(|(masquerade, exceptions, entries)| {
        json!({"masquerade": masquerade, "nonMasqueradeCIDRs": exceptions, "addresses": entries})
    })
}

/// Questions about what leaves the cluster in place of others from inside; every fourth stays as it is.
pub fn outwards(scene: &Scene, asks: Vec<Ask>) -> Vec<Ask> {
    let outwards = asks.into_iter().enumerate().map(|(number, ask)| {
        let outside = scene.goal_address(Goal::Outside, ask.family).is_some();
        if number % 4 == 3 || !outside || matches!(ask.from, Party::Outside(_)) {
            return ask;
        }
        Ask {
            to: Goal::Outside,
            port: LISTENING[number % 2],
            protocol: if ask.protocol == "UDP" { "UDP" } else { "TCP" },
            ..ask
        }
    });
    outwards.collect()
}

/// What the receiver outside must see, by the configuration's documentation alone: a second reading of it. `None` where
/// that says nothing.
pub fn documented(scene: &Scene, snapshot: &Snapshot, ask: Ask) -> Option<Outcome> {
    let Party::Pod(index) = ask.from else {
        return None;
    };
    let leaves = ask.to == Goal::Outside && LISTENING.contains(&ask.port);
    let own_network = scene.pods[index].life == Life::Running;
    if !leaves || !own_network || !snapshot.policies.is_empty() {
        return None;
    }
    let node = scene.pods[index].node;
    let masqueraded: IpAddr = scene.node_address(node, ask.family)?.parse().ok()?;
    let own = scene.pod_address(index, ask.family)?.parse().ok()?;
    let outside: IpAddr = scene.goal_address(ask.to, ask.family)?.parse().ok()?;
    let egress = &snapshot.config.egress;
    let labels = &snapshot
        .pods
        .get(&ObjectName::new("default", &format!("p{index}")))?
        .labels;
    let mut entries = egress.addresses.iter();
    let entry = entries.find(|entry| entry.pod_selector.matches(labels));
    let source = match entry {
        _ if egress
            .non_masquerade_cidrs
            .iter()
            .any(|net| net.contains(&outside)) =>
        {
            Some(own)
        }
        Some(entry) => {
            let own = chosen(node, ask.family);
            entry.addresses.contains(&own).then_some(own)
        }
        None if egress.masquerade => Some(masqueraded),
        None => Some(own),
    };
    Some(match source {
        Some(source) => Outcome::Delivered(SocketAddr::new(outside, ask.port), source),
        // See `expected`.
        None if outside.is_ipv4() => Outcome::Unreachable,
        None => Outcome::Refused,
    })
}
