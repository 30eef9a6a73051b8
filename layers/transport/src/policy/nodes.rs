//! NodeNetworkPolicies on paper: who may no longer reach a node, or may now, when they change.
//!
//! ```text
//!   - any other IPv4 address → Node node-1, Node node-2 22/tcp: denied by NodeNetworkPolicy door spec.ingress[1]
//! ```
//!
//! Whoever always passes ([`ALWAYS_PASS`]) loses nothing, and is not told.

use std::collections::BTreeMap;
use std::net::IpAddr;

use parfait_cluster::Snapshot;
use parfait_packet::{Family, Origin, Protocol};

use super::class::Class;
use super::effective::{Effective, Ports, Ruling, blocks, differing, elsewhere};
use super::overview::{Groups, Who};

/// Who reaches a node whatever its policies say.
pub const ALWAYS_PASS: &str = "answers, nodes of the cluster, ICMP, and connections to the kubelet, the API server and \
                               cluster DNS pass whatever a node's policies say";

/// Some who could reach some ports of a node, and no longer can; or the other way around.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeChange {
    /// Whether they can now.
    pub passes: bool,
    /// Who they are.
    pub who: Vec<Who>,
    /// The ports.
    pub ports: Vec<Ports>,
    /// The rule that says so; none: no policy says anything against it.
    pub by: Vec<Origin>,
    /// Of which nodes.
    pub nodes: Vec<Origin>,
}

/// What is otherwise afterwards for those who are there, and for addresses outside of the cluster.
#[must_use]
pub fn changes(snapshot: &Snapshot, before: &Effective, after: &Effective) -> Vec<NodeChange> {
    // Most nodes have the same policies.
    let mut pairs: Vec<([Option<&Class>; 2], Vec<Origin>)> = Vec::new();
    for (name, node) in &snapshot.nodes {
        let both = [before, after].map(|of| of.nodes.get(name).map(|host| &*host.class));
        match pairs.iter_mut().find(|(pair, _)| *pair == both) {
            Some((_, nodes)) => nodes.push(node.origin()),
            None => pairs.push((both, vec![node.origin()])),
        }
    }
    let pairs = pairs.into_iter().filter(|([was, is], _)| was != is);
    pairs
        .flat_map(|(pair, nodes)| of_nodes(snapshot, pair, &nodes))
        .collect()
}

fn of_nodes(
    snapshot: &Snapshot,
    [was, is]: [Option<&Class>; 2],
    nodes: &[Origin],
) -> Vec<NodeChange> {
    let mut groups = Groups::new();
    let said = |peer: IpAddr| -> Vec<(Ports, Option<Ruling>)> {
        let differing = differing(was, is, peer).into_iter();
        differing.filter(|(ports, _)| !is_icmp(*ports)).collect()
    };
    let pods = snapshot.pods.values();
    for pod in pods.filter(|pod| !pod.host_network && pod.has_network()) {
        let addresses = pod.addresses.iter();
        let both = addresses.map(|address| (Family::of(*address), said(*address)));
        groups.add_pod(pod, both.collect());
    }
    let classes: Vec<&Class> = was.into_iter().chain(is).collect();
    for (net, address) in blocks(&classes) {
        groups.add(Who::Block(net), said(address));
    }
    for family in Family::ALL {
        if let Some(address) = elsewhere(&classes, family) {
            groups.add(Who::Elsewhere(family), said(address));
        }
    }
    let mut changes = Vec::new();
    for (said, who) in groups.0 {
        let mut outcomes: BTreeMap<(bool, Vec<Origin>), Vec<Ports>> = BTreeMap::new();
        for (ports, ruling) in said {
            let passes = ruling.as_ref().is_none_or(|ruling| ruling.accepted);
            let by = ruling.map(|ruling| ruling.by().to_vec());
            let outcome = (passes, by.unwrap_or_default());
            outcomes.entry(outcome).or_default().push(ports);
        }
        changes.extend(
            outcomes
                .into_iter()
                .map(|((passes, by), ports)| NodeChange {
                    passes,
                    who: who.iter().cloned().collect(),
                    ports,
                    by,
                    nodes: nodes.to_vec(),
                }),
        );
    }
    changes.sort();
    changes
}

/// It always passes.
const fn is_icmp(ports: Ports) -> bool {
    matches!(ports, Ports::Range(range) if matches!(range.protocol, Protocol::Icmp))
}
