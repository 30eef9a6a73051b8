//! [`probes`]: the packets that must pass a node, one of each sort.
//!
//! ```text
//!   a pod here ─▶ another pod here, a pod of each peer, the world outside; and back
//!   the node ─▶ a pod here             (probes of the kubelet)
//!   a pod here ─▶ cluster DNS          (answered by the node's agent)
//!   a peer's tunnel ─▶ this node's     (the packets outside of pods' packets)
//! ```
//!
//! Every pod is tried with TCP, since a rule may name one address; UDP and ICMP once each. Where the
//! node has no pod, one is imagined.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use parfait_cluster::Snapshot;
use parfait_linux::Vxlan;
use parfait_linux::attachment::host_interface;
use parfait_packet::{Family, Origin, Packet, Protocol};
use parfait_transport::Probe;

use crate::NodePlan;

/// How many pods of a node are tried, and how many peers.
const MOST: usize = 256;
const PEERS: usize = 8;

/// One end of a packet.
struct End {
    address: IpAddr,
    /// The interface behind which it is.
    link: String,
    what: String,
    origin: Origin,
}

/// The packets that must pass this node.
#[must_use]
pub fn probes(snapshot: &Snapshot, plan: &NodePlan) -> Vec<Probe> {
    let mut probes = Vec::new();
    for family in Family::ALL {
        let pods = pods(plan, family);
        let Some(first) = pods.first() else {
            continue;
        };
        let peers = peers(snapshot, plan, family);
        let outside = outside(plan, family);
        for pod in &pods {
            for other in peers.iter().take(1).chain(&outside) {
                probes.extend(through(pod, other, Protocol::Tcp));
            }
            if let Some(peer) = peers.first() {
                probes.extend(through(peer, pod, Protocol::Tcp));
            }
            if pod.address != first.address {
                probes.extend(through(first, pod, Protocol::Tcp));
            }
            probes.extend(from_node(plan, snapshot, pod));
        }
        for peer in peers.iter().take(PEERS) {
            for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Icmp] {
                probes.extend(through(first, peer, protocol));
                probes.extend(through(peer, first, protocol));
            }
        }
        probes.extend(names(plan, first));
    }
    probes.extend(tunnel(plan));
    probes
}

fn pods(plan: &NodePlan, family: Family) -> Vec<End> {
    let attachments = plan.link.attachments.iter();
    let pods = attachments.filter_map(|attachment| {
        let mut addresses = attachment.addresses.iter();
        let address = addresses.find(|address| Family::of(**address) == family)?;
        Some(End {
            address: *address,
            link: attachment.interface.to_string(),
            what: format!("pod {}", attachment.pod),
            origin: attachment.origin.clone(),
        })
    });
    let mut pods: Vec<_> = pods.take(MOST).collect();
    if pods.is_empty() {
        let own = plan.internet.own.iter();
        let own = own
            .filter(|(cidr, _)| Family::of(cidr.addr()) == family)
            .take(1);
        pods.extend(own.filter_map(|(cidr, origin)| {
            Some(End {
                address: some_host(cidr)?,
                link: host_interface("default", "imagined").to_string(),
                what: "a pod".to_owned(),
                origin: origin.clone(),
            })
        }));
    }
    pods
}

/// A pod on each peer, real or imagined.
fn peers(snapshot: &Snapshot, plan: &NodePlan, family: Family) -> Vec<End> {
    let peers = plan.internet.peers.iter().chain(&plan.internet.learned);
    let peers = peers.filter(|peer| Family::of(peer.destination.addr()) == family);
    let end = |peer: &parfait_internet::NextHop| {
        let mut pods = snapshot.pods.values().filter(|pod| {
            pod.node.as_ref() == Some(&peer.origin.name) && !pod.host_network && pod.has_network()
        });
        let address = pods.find_map(|pod| pod.address(family));
        Some(End {
            address: address.or_else(|| some_host(&peer.destination))?,
            link: peer.interface.to_string(),
            what: format!("a pod of {}", peer.origin.name),
            origin: peer.origin.clone(),
        })
    };
    peers.filter_map(end).collect()
}

/// An address of the documentation's (RFC 5737, RFC 3849), where the node has a default route.
fn outside(plan: &NodePlan, family: Family) -> Option<End> {
    let underlay = plan.link.underlay.as_ref()?.of(family)?;
    underlay.gateway(family)?;
    Some(End {
        address: match family {
            Family::Ipv4 => Ipv4Addr::new(203, 0, 113, 1).into(),
            Family::Ipv6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        },
        link: underlay.interface.clone(),
        what: "the world outside".to_owned(),
        origin: Origin::parfait("masquerade"),
    })
}

fn some_host(cidr: &IpNet) -> Option<IpAddr> {
    cidr.hosts().nth(5).or_else(|| cidr.hosts().next())
}

fn through(from: &End, to: &End, protocol: Protocol) -> Option<Probe> {
    // The pod's side is the one that somebody misses.
    let local = if from.what.starts_with("pod") {
        from
    } else {
        to
    };
    Some(Probe {
        packet: Packet::new(from.address, to.address, protocol, 8080)?,
        iif: Some(from.link.clone()),
        oif: Some(to.link.clone()),
        untracked: false,
        what: format!("{} to {}", from.what, to.what),
        origin: local.origin.clone(),
    })
}

fn from_node(plan: &NodePlan, snapshot: &Snapshot, pod: &End) -> Option<Probe> {
    let node = snapshot.nodes.get(&plan.node)?;
    let mut own = node.own_addresses();
    let own = own.find(|address| Family::of(*address) == Family::of(pod.address))?;
    Some(Probe {
        packet: Packet::new(own, pod.address, Protocol::Tcp, 8080)?,
        iif: None,
        oif: Some(pod.link.clone()),
        untracked: false,
        what: format!("the node itself to {}", pod.what),
        origin: pod.origin.clone(),
    })
}

/// Questions to cluster DNS, which the node's agent answers.
fn names(plan: &NodePlan, pod: &End) -> Vec<Probe> {
    let served = plan.internet.served.iter();
    let served = served.filter(|served| Family::of(served.address) == Family::of(pod.address));
    let probe = |served: &parfait_internet::ServedAddress| {
        Some(Probe {
            packet: Packet::new(pod.address, served.address, Protocol::Udp, 53)?,
            iif: Some(pod.link.clone()),
            oif: None,
            untracked: false,
            what: format!("{} to cluster DNS", pod.what),
            origin: served.origin.clone(),
        })
    };
    served.filter_map(probe).collect()
}

/// What carries pods' packets between nodes must get in and out itself.
fn tunnel(plan: &NodePlan) -> Vec<Probe> {
    let (Some(tunnel), Some(underlay)) = (&plan.link.tunnel, &plan.link.underlay) else {
        return Vec::new();
    };
    let underlay = underlay.of(Family::of(tunnel.local)).unwrap_or(underlay);
    let mut probes = Vec::new();
    for peer in plan.link.peers.iter().take(PEERS) {
        let ways = [(peer.remote, tunnel.local), (tunnel.local, peer.remote)];
        for (incoming, (from, to)) in [true, false].into_iter().zip(ways) {
            let link = || underlay.interface.clone();
            probes.extend(
                Packet::new(from, to, Protocol::Udp, Vxlan::PORT).map(|packet| Probe {
                    packet,
                    iif: incoming.then(link),
                    oif: (!incoming).then(link),
                    untracked: plan.internet.tunnel_end.is_some(),
                    what: format!("the tunnel of {}", peer.origin.name),
                    origin: peer.origin.clone(),
                }),
            );
        }
    }
    probes
}
