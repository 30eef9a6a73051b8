//! Where an address lives, as this layer sees the cluster.

use std::net::IpAddr;

use ipnet::IpNet;
use parfait_cluster::Snapshot;
use parfait_packet::{Family, Origin};

use crate::Plan;

/// Where an address lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A pod's own.
    Pod(Origin),
    /// A node's own.
    Node(Origin),
    /// A Service's; the transport layer rewrites it, or the node's agent answers there.
    Service(Origin),
    /// In the pod network, but nobody has it.
    Nobody {
        /// The node whose pod CIDR it lies in, if any.
        node: Option<Origin>,
    },
    /// Outside the cluster.
    Outside,
}

/// Explains an address, as the node of the plan sees it.
#[must_use]
pub fn explain(plan: &Plan, snapshot: &Snapshot, address: IpAddr) -> Place {
    if let Some(pod) = snapshot.pod_at(address) {
        return Place::Pod(pod.origin());
    }
    if let Some(node) = snapshot.node_at(address) {
        return Place::Node(node.origin());
    }
    if let Some(service) = snapshot.service_at(address) {
        return Place::Service(service.origin());
    }
    let family = Family::of(address);
    let holds = |net: &IpNet| Family::of(net.addr()) == family && net.contains(&address);
    if !plan.pod_networks.keys().any(holds) {
        return Place::Outside;
    }
    let node = snapshot
        .nodes
        .values()
        .find(|node| node.pod_cidr(family).as_ref().is_some_and(holds));
    Place::Nobody {
        node: node.map(|node| node.origin().field("spec.podCIDRs")),
    }
}
