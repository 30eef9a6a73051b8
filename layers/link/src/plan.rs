//! Which path leads to each peer, and how large a packet may be.
//!
//! Per peer and family: `direct` if its address lies on this node's own segment (or the
//! administrator says that the underlay carries pod addresses: then through the node's default
//! gateway to peers elsewhere), else `vxlan`. The two ends decide alike, because both see the same
//! prefixes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use parfait_cluster::{Node, Note, ObjectName, Path, Paths, Routing, Snapshot, Underlay};
use parfait_linux::attachment::{host_interface, host_mac, pod_mac, tunnel_mac};
use parfait_linux::{IfName, Mac, Mtu, Vni};
use parfait_packet::{Family, Origin};

/// The tunnel's device.
pub const TUNNEL: &str = "pf-vxlan";

/// The tunnel's network identifier, the same in every cluster.
pub const VNI: u32 = 4242;

/// What the link layer wants of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The node.
    pub node: String,
    /// What is known of the node's underlay; without it nothing else can be planned.
    pub underlay: Option<Underlay>,
    /// The path to each peer.
    pub paths: Paths,
    /// The tunnel's device, if any peer needs it.
    pub tunnel: Option<Tunnel>,
    /// The peers behind the tunnel.
    pub peers: Vec<Peer>,
    /// This node's pods.
    pub attachments: Vec<Attachment>,
    /// The largest packet a pod may send, for pods that start now.
    pub pod_mtu: Option<Mtu>,
    /// What could not be planned.
    pub notes: Vec<Note>,
}

/// The tunnel's device on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Its name.
    pub device: IfName,
    /// Its network identifier.
    pub vni: Vni,
    /// The source of the outer packets.
    pub local: IpAddr,
    /// Its Ethernet address.
    pub mac: Mac,
    /// The largest inner packet.
    pub mtu: Mtu,
    /// The node.
    pub origin: Origin,
}

/// A peer behind the tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The destination of the outer packets.
    pub remote: IpAddr,
    /// The Ethernet address of its tunnel device.
    pub mac: Mac,
    /// Its own addresses in the pod network: the next hops of the routes to its pods.
    pub next_hops: Vec<IpAddr>,
    /// The node.
    pub origin: Origin,
}

/// The node's end of a pod's veth pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The pod.
    pub pod: ObjectName,
    /// The interface's name.
    pub interface: IfName,
    /// Its Ethernet address.
    pub mac: Mac,
    /// The pod's Ethernet address.
    pub pod_mac: Mac,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
    /// The pod.
    pub origin: Origin,
}

/// Plans one node's links.
#[must_use]
pub fn plan(snapshot: &Snapshot, node: &str) -> Plan {
    let mut plan = Plan {
        node: node.to_owned(),
        attachments: attachments(snapshot, node),
        ..Plan::default()
    };
    let Some(this) = snapshot.nodes.get(node) else {
        return plan;
    };
    let Some(underlay) = this.underlay.clone() else {
        let field = format!("metadata.annotations[{}]", Underlay::ANNOTATION);
        plan.notes.push(Note::new(
            this.origin().field(&field),
            "the node's agent has not reported its underlay yet; no path can be planned",
        ));
        return plan;
    };
    plan.paths = paths(snapshot, this, &underlay, &mut plan.notes);
    let mtu = Mtu::new(underlay.mtu).unwrap_or(Mtu::ETHERNET);
    plan.pod_mtu = Some(mtu);
    if plan
        .paths
        .values()
        .any(|path| matches!(path, Path::Vxlan { .. }))
        || snapshot.config.routing == Routing::Vxlan
    {
        plan.tunnel = tunnel(this, mtu);
        plan.pod_mtu = plan.tunnel.as_ref().map(|tunnel| tunnel.mtu);
        plan.peers = peers(snapshot, &plan.paths);
    }
    plan.underlay = Some(underlay);
    plan
}

fn paths(snapshot: &Snapshot, this: &Node, underlay: &Underlay, notes: &mut Vec<Note>) -> Paths {
    let mut paths = Paths::new();
    for peer in snapshot
        .nodes
        .values()
        .filter(|peer| peer.name != this.name)
    {
        for family in Family::ALL {
            if peer.pod_cidr(family).is_none() {
                continue;
            }
            match path(snapshot.config.routing, this, underlay, peer, family) {
                Some(path) => {
                    paths.insert((peer.name.clone(), family), path);
                }
                None => notes.push(Note::new(
                    peer.origin().field("status.addresses"),
                    format!(
                        "no address that {} can reach; its {family} pods stay unreachable",
                        this.name
                    ),
                )),
            }
        }
    }
    paths
}

fn path(
    routing: Routing,
    this: &Node,
    underlay: &Underlay,
    peer: &Node,
    family: Family,
) -> Option<Path> {
    let on_segment = |address: &IpAddr| underlay.addresses.iter().any(|net| net.contains(address));
    let neighbour = peer.address(family).filter(on_segment);
    let direct = match routing {
        // The kernel takes a next hop only on the segment: beyond it is the underlay's router.
        Routing::Direct => neighbour.or_else(|| {
            peer.address(family)?;
            underlay.gateway(family)
        }),
        Routing::Auto => neighbour,
        Routing::Vxlan => None,
    };
    if let Some(via) = direct {
        return Some(Path::Direct {
            interface: underlay.interface.clone(),
            via,
        });
    }
    if routing == Routing::Direct {
        return None;
    }
    // The outer family is this node's primary one: one device has one source address.
    let outer = Family::of(this.own_addresses().next()?);
    Some(Path::Vxlan {
        device: TUNNEL.to_owned(),
        remote: peer.address(outer)?,
        mac: tunnel_mac(&peer.name).bytes(),
    })
}

fn tunnel(this: &Node, underlay: Mtu) -> Option<Tunnel> {
    let local = this.own_addresses().next()?;
    // Outer IP, UDP and VXLAN headers, and the inner Ethernet header (RFC 7348 section 5).
    let overhead = match Family::of(local) {
        Family::Ipv4 => 50,
        Family::Ipv6 => 70,
    };
    Some(Tunnel {
        device: IfName::new(TUNNEL).ok()?,
        vni: Vni::new(VNI).ok()?,
        local,
        mac: tunnel_mac(&this.name),
        mtu: underlay.less(overhead),
        origin: this.origin(),
    })
}

fn peers(snapshot: &Snapshot, paths: &Paths) -> Vec<Peer> {
    let mut peers: BTreeMap<&str, Peer> = BTreeMap::new();
    for ((name, family), path) in paths {
        let (Path::Vxlan { remote, mac, .. }, Some(node)) = (path, snapshot.nodes.get(name)) else {
            continue;
        };
        let peer = peers.entry(name).or_insert_with(|| Peer {
            remote: *remote,
            mac: Mac::new(*mac),
            next_hops: Vec::new(),
            origin: node.origin(),
        });
        peer.next_hops.extend(node.pod_network_address(*family));
    }
    peers.into_values().collect()
}

fn attachments(snapshot: &Snapshot, node: &str) -> Vec<Attachment> {
    let own = snapshot.pods_on(node).filter(|pod| !pod.host_network);
    own.filter_map(|pod| {
        let first = *pod.addresses.first()?;
        Some(Attachment {
            pod: pod.name.clone(),
            interface: host_interface(&pod.name.namespace, &pod.name.name),
            mac: host_mac(first),
            pod_mac: pod_mac(first),
            addresses: pod.addresses.clone(),
            origin: pod.origin(),
        })
    })
    .collect()
}
