//! Senders outside the cluster: what they connect to, and where their packets come in.
//!
//! ```text
//!   198.51.100.1 ──▶ 192.168.77.11:30080   a node's own address: that node
//!                ──▶ 203.0.113.9:80        a load balancer's, or one of externalIPs: whichever node it is led to,
//!                                          or those that make it known themselves, if it is of a LoadBalancerPool
//!                ──▶ 10.244.2.7:8080       a pod's: the pod's node, if somebody outside knows the way
//! ```
//!
//! Which node gets packets for an address that is no node's is decided outside; every node that may get them is shown.

use std::collections::BTreeSet;
use std::net::IpAddr;

use parfait_cluster::{Announcement, Node, Service, Snapshot, TrafficPolicy};
use parfait_internet::Announced;
use parfait_packet::{Family, Layer, Reason, Stage};

use crate::leg::{Arrival, Fate, Leg, Step, times};
use crate::walk::Walker;

/// Somebody outside sends: to each node that may get the packet.
pub(crate) fn send(walker: &Walker<'_>, leg: Leg) -> Vec<Arrival> {
    let snapshot = walker.world.snapshot;
    let to = leg.packet.destination;
    let nodes = entries(snapshot, to);
    if nodes.is_empty() {
        return vec![match announced(snapshot, to) {
            Some(_) => leg.lost(Reason::NotAnnounced),
            None => leg.ends(Fate::Unknown(Reason::ExternalDestination)),
        }];
    }
    let each = u64::try_from(nodes.len()).unwrap_or(u64::MAX);
    let arrive = |node: &Node| {
        let mut leg = leg.clone();
        leg.weight = times(leg.weight, (1, each));
        leg.by = Some(node.name.clone());
        let underlay = node.underlay.as_ref();
        let underlay = underlay.and_then(|u| u.of(leg.packet.family()));
        let interface = underlay.map_or("eth0", |u| u.interface.as_str());
        leg.step(Step {
            place: "outside",
            stage: Stage::Wire,
            layer: Layer::Link,
            what: format!("comes to {} by {interface}", node.name),
            evidence: String::new(),
            origins: Vec::new(),
        });
        walker.enter(&node.name, interface, leg)
    };
    nodes.into_iter().flat_map(arrive).collect()
}

/// The nodes that packets from outside to an address may come to.
fn entries(snapshot: &Snapshot, address: IpAddr) -> Vec<&Node> {
    let nodes = || snapshot.nodes.values();
    if let Some(node) = nodes().find(|node| node.is_at(address)) {
        return vec![node];
    }
    if let Some(pod) = snapshot.pod_at(address) {
        let on = |node: &&Node| pod.node.as_ref() == Some(&node.name);
        return nodes().filter(on).collect();
    }
    if let Some(announced) = announced(snapshot, address) {
        let all = announced.candidates.len();
        let first = match announced.announcement {
            Announcement::Neighbor => 1,
            _ => all,
        };
        let there = announced.candidates.iter().take(first);
        return there.filter_map(|name| snapshot.nodes.get(name)).collect();
    }
    let claimants = services_at(snapshot, address);
    if claimants.is_empty() {
        return Vec::new();
    }
    let claimants = claimants.into_iter();
    let here = claimants.flat_map(|service| healthy(snapshot, service, address));
    let here: BTreeSet<&str> = here.collect();
    let passes = |node: &&Node| here.is_empty() || here.contains(node.name.as_str());
    nodes().filter(passes).collect()
}

/// How a load balancer's address is made known outside, if it is one of Parfait's.
pub(crate) fn announced(snapshot: &Snapshot, address: IpAddr) -> Option<Announced> {
    let mut services = snapshot.services.values();
    let service = services.find(|service| service.outside.load_balancer_ips.contains(&address))?;
    parfait_internet::announce::find(snapshot, service, address)
}

/// The nodes that pass a Service's health check (`spec.healthCheckNodePort`), where a load balancer asks; none if it
/// does not.
fn healthy<'s>(snapshot: &'s Snapshot, service: &'s Service, address: IpAddr) -> Vec<&'s str> {
    let balanced = service.outside.load_balancer_ips.contains(&address);
    if !balanced || service.outside.policy != TrafficPolicy::Local {
        return Vec::new();
    }
    let slices = snapshot.slices_of(&service.name);
    let ready = slices
        .flat_map(|slice| &slice.endpoints)
        .filter(|e| e.ready);
    ready
        .filter_map(|endpoint| endpoint.node.as_deref())
        .collect()
}

/// The Services that have an address, as their own or as one that leads here from outside, the oldest first.
pub(crate) fn services_at(snapshot: &Snapshot, address: IpAddr) -> Vec<&Service> {
    let has = |service: &&Service| {
        let outside = &service.outside;
        let all = [
            &service.cluster_ips,
            &outside.load_balancer_ips,
            &outside.external_ips,
        ];
        all.into_iter()
            .any(|addresses| addresses.contains(&address))
    };
    let mut services: Vec<&Service> = snapshot.services.values().filter(has).collect();
    services.sort_by_key(|service| service.created.unwrap_or(i64::MAX));
    services
}

/// What a client outside connects to if it means a Service's port: the addresses and the port there.
pub(crate) fn ways_in(
    snapshot: &Snapshot,
    service: &Service,
    port: (u16, Option<u16>),
) -> (Vec<IpAddr>, u16) {
    let outside = &service.outside;
    let (number, node_port) = port;
    for addresses in [&outside.load_balancer_ips, &outside.external_ips] {
        if !addresses.is_empty() {
            return (addresses.clone(), number);
        }
    }
    let Some(node_port) = node_port else {
        return (Vec::new(), number);
    };
    let config = &snapshot.config;
    let nodes = snapshot.nodes.values();
    let addresses = nodes.flat_map(|node| parfait_transport::node_addresses(config, node));
    (addresses.collect(), node_port)
}

/// What should be known about an answer to somebody outside.
pub(crate) fn note(
    snapshot: &Snapshot,
    addresses: &[IpAddr],
    family: Option<Family>,
) -> Option<String> {
    let of_family = |address: &&IpAddr| family.is_none_or(|family| Family::of(**address) == family);
    let address = addresses.iter().find(of_family)?;
    let several = entries(snapshot, *address).len() > 1;
    several.then(|| {
        format!(
            "which node gets packets for {address} is decided outside the cluster; here each that may is as likely"
        )
    })
}
