//! [`settle`]: pod CIDRs that cannot be used, because another node has their addresses, a node or a Service
//! lies in them, or they are too small; and configured ranges that cannot, because a node or a Service lies in them.
//!
//! A Service's address outside of the configured `serviceCIDRs` of its family is the Service's fault (the transport layer
//! says so): it takes no pod CIDR away, which would cut off all pods of a node.
//!
//! Every node plans alike, so all must decide alike, and the same each time. Of two nodes the first by name
//! keeps its CIDR. What a node does not keep, nobody routes to it, and its CNI plugin hands none of it out; the
//! pods that have addresses of it already go on as far as the keeper's routes let them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::{Config, Node, Note, Service, Snapshot};

/// The snapshot with the pod CIDRs and `clusterCIDRs` that can be used, and a note for each that cannot: both
/// sides of a dispute get one.
#[must_use]
pub fn settle(snapshot: &Snapshot) -> (Cow<'_, Snapshot>, Vec<Note>) {
    let found = find(snapshot);
    if found.lost.is_empty() && found.ranges.is_empty() {
        return (Cow::Borrowed(snapshot), found.notes);
    }
    let mut settled = snapshot.clone();
    let usable = &mut settled.config.cluster_cidrs;
    usable.retain(|range| !found.ranges.contains(range));
    for (node, cidr) in found.lost {
        if let Some(node) = settled.nodes.get_mut(node) {
            node.pod_cidrs.retain(|other| *other != cidr);
        }
    }
    (Cow::Owned(settled), found.notes)
}

/// The notes of [`settle`] alone.
#[must_use]
pub fn disputes(snapshot: &Snapshot) -> Vec<Note> {
    find(snapshot).notes
}

/// What cannot be used.
struct Found<'s> {
    /// Pod CIDRs, and the nodes that lose them.
    lost: Vec<(&'s str, IpNet)>,
    /// Of the configured ranges.
    ranges: Vec<IpNet>,
    /// Why.
    notes: Vec<Note>,
}

fn find(snapshot: &Snapshot) -> Found<'_> {
    let mut notes = Vec::new();
    let mut lost = Vec::new();
    let mut kept = Kept::default();
    let taken = Taken::of(snapshot);
    for node in snapshot.nodes.values() {
        let origin = || node.origin().field("spec.podCIDRs");
        for cidr in &node.pod_cidrs {
            let keeper = kept.overlapping(cidr);
            if let Some((theirs, keeper)) = keeper {
                notes.push(Note::new(origin(), format!(
                    "{cidr} overlaps {theirs} of {}, whose name comes first and which keeps it; this node's is not \
                     used. Recreate one of the two Nodes, so that it gets a podCIDR of its own",
                    keeper.origin()
                )));
                notes.push(Note::new(keeper.origin().field("spec.podCIDRs"), format!(
                    "{theirs} overlaps {cidr} of {}; this node keeps it, as its name comes first",
                    node.origin()
                )));
            } else if let Some(why) = taken.unusable(cidr) {
                notes.push(Note::new(origin(), format!("{cidr} {why}")));
            } else {
                kept.insert(cidr, node);
                continue;
            }
            lost.push((node.name.as_str(), *cidr));
        }
    }
    let configured = &snapshot.config.cluster_cidrs;
    let ranges = configured.iter().filter_map(|range| {
        let why = taken.inside(range)?;
        let origin = Config::origin().field("clusterCIDRs");
        notes.push(Note::new(origin, format!("{range} {why}")));
        Some(*range)
    });
    Found {
        ranges: ranges.collect(),
        lost,
        notes,
    }
}

/// Networks that do not overlap, by their first address; so one look to each side finds an overlap.
#[derive(Default)]
struct Kept<'s>(BTreeMap<IpAddr, (IpNet, &'s Node)>);

impl<'s> Kept<'s> {
    fn insert(&mut self, cidr: &IpNet, node: &'s Node) {
        self.0.insert(cidr.network(), (*cidr, node));
    }

    fn overlapping(&self, cidr: &IpNet) -> Option<(IpNet, &'s Node)> {
        let before = self.0.range(..=cidr.broadcast()).next_back();
        before
            .filter(|(_, (net, _))| net.contains(&cidr.network()) || cidr.contains(&net.network()))
            .map(|(_, found)| *found)
    }
}

/// What pod CIDRs must leave alone, sorted: a cluster may have thousands of each.
struct Taken<'s> {
    nodes: BTreeMap<IpAddr, &'s Node>,
    /// Those of families that `ranges` says nothing of.
    services: BTreeMap<IpAddr, &'s Service>,
    ranges: &'s [IpNet],
}

impl<'s> Taken<'s> {
    fn of(snapshot: &'s Snapshot) -> Self {
        let ranges = &snapshot.config.service_cidrs[..];
        let nodes = snapshot.nodes.values();
        let services = snapshot.services.values();
        let services = services.flat_map(|service| {
            let addresses = service.cluster_ips.iter();
            let is_said = |ip: IpAddr| {
                ranges
                    .iter()
                    .any(|range| range.addr().is_ipv4() == ip.is_ipv4())
            };
            let apart = addresses.filter(move |ip| !is_said(**ip));
            apart.map(move |ip| (*ip, service))
        });
        Self {
            nodes: nodes
                .flat_map(|node| node.addresses.iter().map(move |address| (*address, node)))
                .collect(),
            services: services.collect(),
            ranges,
        }
    }

    /// Why a pod CIDR cannot be used at all, and what to do.
    fn unusable(&self, cidr: &IpNet) -> Option<String> {
        if cidr.max_prefix_len() - cidr.prefix_len() < 2 {
            return Some(format!(
                "has no address for a pod, as the node itself takes the first; it is not used. Give nodes at least a \
                 /{} (the controller manager's --node-cidr-mask-size)",
                cidr.max_prefix_len() - 2
            ));
        }
        let overlap =
            |range: &&IpNet| range.contains(&cidr.network()) || cidr.contains(&range.network());
        if let Some(range) = self.ranges.iter().find(overlap) {
            return Some(format!(
                "overlaps the Services' range {range}; its pods would be taken for Services, so it is not used. Give \
                 pods and Services ranges of their own"
            ));
        }
        self.inside(cidr)
    }

    /// Who has an address in a range of pods, so that it cannot be one.
    fn inside(&self, range: &IpNet) -> Option<String> {
        let all = range.network()..=range.broadcast();
        if let Some((_, node)) = self.nodes.range(all.clone()).next() {
            return Some(format!(
                "holds an address of {}; routing it to pods would cut that node off, so it is not used. Give pods a \
                 range apart from the nodes' network",
                node.origin()
            ));
        }
        let (_, service) = self.services.range(all).next()?;
        Some(format!(
            "holds the clusterIP of {}; a pod with that address would never be reached, so it is not used. Give pods \
             and Services ranges of their own",
            service.origin()
        ))
    }
}
