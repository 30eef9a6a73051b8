//! Which path leads to each peer, and how large a packet may be.
//!
//! Per peer and family: `direct` if its address lies on this node's own segment (or the
//! administrator says that the underlay carries pod addresses: then through the node's default
//! gateway to peers elsewhere), else `vxlan`. The two ends decide alike, because both see the same
//! prefixes. In `bgp` the next hops are the same as in `direct`, but a routing daemon makes the routes.

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
    let outer = outer(snapshot);
    plan.paths = paths(snapshot, this, &underlay, outer, &mut plan.notes);
    let mtu = |one: &Underlay| Mtu::new(one.mtu).unwrap_or(Mtu::ETHERNET);
    plan.pod_mtu = underlay.interfaces().map(mtu).min();
    if plan
        .paths
        .values()
        .any(|path| matches!(path, Path::Vxlan { .. }))
        || snapshot.config.routing == Routing::Vxlan
    {
        let wire = underlay.of(outer).map_or(Mtu::ETHERNET, mtu);
        plan.tunnel = tunnel(this, outer, room(this, outer, wire, &mut plan.notes));
        let inner = plan.tunnel.as_ref().map(|tunnel| tunnel.mtu);
        plan.pod_mtu = inner.into_iter().chain(plan.pod_mtu).min();
        plan.peers = peers(snapshot, &plan.paths);
    }
    narrow(&mut plan.paths, snapshot, &underlay, outer);
    plan.underlay = Some(underlay);
    plan
}

/// The family of the outer packets. A tunnel's device has one source address, so that all nodes must choose
/// the same: the cluster's first family, unless some node lacks it and none lacks the other.
fn outer(snapshot: &Snapshot) -> Family {
    let first = snapshot.config.cluster_cidrs.first();
    let first = first.map_or(Family::Ipv4, |cidr| Family::of(cidr.addr()));
    let second = match first {
        Family::Ipv4 => Family::Ipv6,
        Family::Ipv6 => Family::Ipv4,
    };
    let mut nodes = snapshot
        .nodes
        .values()
        .filter(|node| !node.addresses.is_empty());
    let lacks = |node: &Node, family| node.underlay_address(family).is_none();
    match nodes.clone().any(|node| lacks(node, first)) && !nodes.any(|node| lacks(node, second)) {
        true => second,
        false => first,
    }
}

fn paths(
    snapshot: &Snapshot,
    this: &Node,
    underlay: &Underlay,
    outer: Family,
    notes: &mut Vec<Note>,
) -> Paths {
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
            let path = match snapshot.config.routing {
                Routing::Direct | Routing::Bgp => {
                    unchanged(snapshot.config.routing, this, underlay, peer, family)
                }
                Routing::Auto => match neighbour(underlay, peer, family) {
                    Some(path) => Ok(path),
                    None => tunnelled(this, peer, family, outer),
                },
                Routing::Vxlan => tunnelled(this, peer, family, outer),
            };
            match path {
                Ok(path) => drop(paths.insert((peer.name.clone(), family), path)),
                Err(note) => notes.push(note),
            }
        }
    }
    paths
}

/// Straight to the peer, if it is on the same segment.
fn neighbour(underlay: &Underlay, peer: &Node, family: Family) -> Option<Path> {
    let via = peer.underlay_address(family)?;
    let interface = underlay.beside(via)?.interface.clone();
    Some(Path::Direct {
        interface,
        via,
        mtu: None,
    })
}

/// The underlay carries pods' addresses: to the peer itself on the same segment, else to its router. The kernel
/// takes a next hop only on the segment.
fn unchanged(
    routing: Routing,
    this: &Node,
    underlay: &Underlay,
    peer: &Node,
    family: Family,
) -> Result<Path, Note> {
    if routing == Routing::Bgp {
        return learned(this, underlay, peer, family);
    }
    if let Some(path) = neighbour(underlay, peer, family) {
        return Ok(path);
    }
    if let Some(why) = &peer.network_unavailable {
        let message = format!(
            "the underlay has no route to the node's pods ({why}); {} refuses what is for them",
            this.name
        );
        let field = peer.origin().field("status.conditions[NetworkUnavailable]");
        return Err(Note::new(field, message));
    }
    behind_the_router(underlay, peer, family).ok_or_else(|| unreachable(this, peer, family))
}

fn behind_the_router(underlay: &Underlay, peer: &Node, family: Family) -> Option<Path> {
    peer.underlay_address(family)?;
    let via = underlay.gateway(family)?;
    let mut interfaces = underlay.interfaces();
    let interface = interfaces.find(|one| one.gateways.contains(&via))?;
    Some(Path::Direct {
        interface: interface.interface.clone(),
        via,
        mtu: None,
    })
}

/// As the node's routing daemon has learned it; where it has not, its agent reports that.
fn learned(this: &Node, underlay: &Underlay, peer: &Node, family: Family) -> Result<Path, Note> {
    let unlearned = peer
        .pod_cidr(family)
        .filter(|cidr| underlay.unlearned.contains(cidr));
    if let Some(cidr) = unlearned {
        let message = format!(
            "no routing daemon has brought {} a route to {cidr}; it refuses what is for the node's pods",
            this.name
        );
        return Err(Note::new(peer.origin().field("spec.podCIDRs"), message));
    }
    let expected =
        neighbour(underlay, peer, family).or_else(|| behind_the_router(underlay, peer, family));
    match expected.as_ref().and_then(Path::unchanged) {
        Some((interface, via)) => Ok(Path::Learned {
            interface: interface.to_owned(),
            via,
        }),
        None => Err(unreachable(this, peer, family)),
    }
}

fn tunnelled(this: &Node, peer: &Node, family: Family, outer: Family) -> Result<Path, Note> {
    let ends = this
        .underlay_address(outer)
        .zip(peer.underlay_address(outer));
    match ends {
        Some((_, remote)) => Ok(Path::Vxlan {
            device: TUNNEL.to_owned(),
            remote,
            mac: tunnel_mac(&peer.name).bytes(),
            mtu: None,
        }),
        None => Err(unreachable(this, peer, family)),
    }
}

fn unreachable(this: &Node, peer: &Node, family: Family) -> Note {
    Note::new(
        peer.origin().field("status.addresses"),
        format!(
            "no address that {} can reach; its {family} pods stay unreachable",
            this.name
        ),
    )
}

/// What a tunnel over this wire leaves of it. IPv6 needs 1280 bytes (RFC 8200 section 5): where less is
/// left, a tunnel over IPv4 takes that much all the same, as the kernel cuts the outer packets. Over IPv6
/// it does not (`ip6_fragment` refuses what no socket here sent): then IPv6 has no place in it.
fn room(this: &Node, outer: Family, wire: Mtu, notes: &mut Vec<Note>) -> Mtu {
    let left = wire.less(overhead(outer));
    let least = Mtu::new(1280).unwrap_or(left);
    if left >= least || this.pod_cidr(Family::Ipv6).is_none() {
        return left;
    }
    let (room, what) = match outer {
        Family::Ipv4 => (
            least,
            "larger packets between nodes travel in two fragments",
        ),
        Family::Ipv6 => (left, "pods cannot have it"),
    };
    notes.push(Note::new(
        this.origin()
            .field(&format!("metadata.annotations[{}]", Underlay::ANNOTATION)),
        format!(
            "of the underlay's {wire} bytes the tunnel leaves {left}, but IPv6 needs 1280: {what}; give the \
             underlay an MTU of at least {}",
            1280 + overhead(outer)
        ),
    ));
    room
}

/// Where a peer's interface takes less than this node sends, nobody would tell the sender: the peer's card
/// drops what is too large, and a segment has no router.
fn narrow(paths: &mut Paths, snapshot: &Snapshot, underlay: &Underlay, outer: Family) {
    for ((peer, family), path) in paths {
        let theirs = snapshot.nodes.get(peer);
        let Some(theirs) = theirs.and_then(|peer| peer.underlay.as_ref()) else {
            continue;
        };
        let (mtu, wire, carried, around) = match path {
            Path::Direct { interface, mtu, .. } => {
                let mut interfaces = underlay.interfaces();
                let own = interfaces.find(|one| one.interface == *interface);
                (mtu, own, *family, 0)
            }
            Path::Vxlan { mtu, .. } => (mtu, underlay.of(outer), outer, overhead(outer)),
            Path::Learned { .. } => continue,
        };
        let (Some(wire), Some(theirs)) = (wire, theirs.of(carried)) else {
            continue;
        };
        if theirs.mtu >= wire.mtu {
            continue;
        }
        // Of IPv6 there is no smaller packet (RFC 8200 section 5).
        let least = match family {
            Family::Ipv4 => 0,
            Family::Ipv6 => 1280,
        };
        *mtu = Some(theirs.mtu.saturating_sub(around).max(least));
    }
}

fn tunnel(this: &Node, outer: Family, mtu: Mtu) -> Option<Tunnel> {
    let local = this.underlay_address(outer)?;
    Some(Tunnel {
        device: IfName::new(TUNNEL).ok()?,
        vni: Vni::new(VNI).ok()?,
        local,
        mac: tunnel_mac(&this.name),
        mtu,
        origin: this.origin(),
    })
}

/// Outer IP, UDP and VXLAN headers, and the inner Ethernet header (RFC 7348 section 5), in bytes.
pub(crate) const fn overhead(outer: Family) -> u32 {
    match outer {
        Family::Ipv4 => 50,
        Family::Ipv6 => 70,
    }
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
