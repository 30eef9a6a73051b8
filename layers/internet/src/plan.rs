//! Where addresses lead, and which packets leave with another source.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use parfait_cluster::{Config, Node, Note, Path, Paths, Snapshot, Underlay};
use parfait_linux::attachment::host_interface;
use parfait_linux::{IfName, Mtu};
use parfait_packet::{Family, Origin};

use crate::announce::{Announcing, announcing};
use crate::egress::{self, Sources};
use crate::isolation::{self, KnownPods};

/// What the internet layer wants of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The node.
    pub node: String,
    /// The node's own pod CIDRs.
    pub own: Vec<(IpNet, Origin)>,
    /// The node's interfaces to the underlay, and whether a router told it its default IPv6 route there.
    pub underlays: BTreeMap<IfName, bool>,
    /// Other programs' interfaces whose names begin as pods' do.
    pub cards: BTreeSet<IfName>,
    /// Routes to this node's pods.
    pub pods: Vec<PodRoute>,
    /// Routes to peers' pods.
    pub peers: Vec<NextHop>,
    /// Routes to peers' pods that a routing daemon is expected to have learned; not made here.
    pub learned: Vec<NextHop>,
    /// The tunnel's device, and this node's own addresses on it.
    pub tunnel: Option<(IfName, Vec<(IpAddr, Origin)>)>,
    /// This node's end of the tunnel on the underlay, if packets go through it.
    pub tunnel_end: Option<(IpAddr, Origin)>,
    /// The pods here that are not isolated, or no longer; `None` if nobody is.
    pub known_pods: Option<KnownPods>,
    /// Addresses at which this node's agent answers itself.
    pub served: Vec<ServedAddress>,
    /// Addresses of load balancers that this node makes known.
    pub announcing: Vec<Announcing>,
    /// Where pods go with their own address; everywhere else with the node's.
    pub unmasqueraded: BTreeMap<IpNet, Origin>,
    /// Pods' sources outside of the cluster, where they are not the node's address.
    pub sources: Sources,
    /// The pod networks of the whole cluster.
    pub pod_networks: BTreeMap<IpNet, Origin>,
    /// The configured ranges, whose addresses are refused where no narrower route leads to them.
    pub refused: Vec<(IpNet, Origin)>,
    /// What could not be planned.
    pub notes: Vec<Note>,
}

/// A route to a pod of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRoute {
    /// The pod's address.
    pub address: IpAddr,
    /// The node's end of its veth pair.
    pub interface: IfName,
    /// The source of packets that the node itself sends there: the interface has no address.
    pub source: Option<IpAddr>,
    /// The pod.
    pub origin: Origin,
}

/// A route to the pods of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The peer's pod CIDR.
    pub destination: IpNet,
    /// The next hop.
    pub via: IpAddr,
    /// The interface.
    pub interface: IfName,
    /// The source of packets that this node itself sends there, where the kernel must be told.
    pub source: Option<IpAddr>,
    /// No prefix of the interface says that the next hop is there: in a tunnel, or in a cloud.
    pub onlink: bool,
    /// The largest packet that the peer takes, if the interface takes larger ones.
    pub mtu: Option<Mtu>,
    /// The peer and its pod CIDR.
    pub origin: Origin,
}

/// A Service address that the node's agent answers at itself, such as cluster DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedAddress {
    /// The address.
    pub address: IpAddr,
    /// The Service.
    pub origin: Origin,
}

/// Plans one node's routing.
#[must_use]
pub fn plan(snapshot: &Snapshot, node: &str, paths: &Paths) -> Plan {
    let mut plan = Plan {
        node: node.to_owned(),
        pods: pod_routes(snapshot, node),
        known_pods: isolation::known_pods(snapshot, node),
        served: served(snapshot),
        pod_networks: snapshot.pod_networks(),
        ..Plan::default()
    };
    plan.unmasqueraded.clone_from(&plan.pod_networks);
    let Some(this) = snapshot.nodes.get(node) else {
        return plan;
    };
    plan.announcing = announcing(snapshot, this);
    let underlays = this.underlay.iter().flat_map(Underlay::interfaces);
    plan.underlays = underlays
        .filter_map(|one| Some((IfName::new(&one.interface).ok()?, one.advertised)))
        .collect();
    let cards = this.underlay.iter().flat_map(|one| &one.cards);
    plan.cards = cards.filter_map(|name| IfName::new(name).ok()).collect();
    let field = this.origin().field("spec.podCIDRs");
    plan.own = this
        .pod_cidrs
        .iter()
        .map(|cidr| (*cidr, field.clone()))
        .collect();
    if this.pod_cidrs.is_empty() {
        plan.notes.push(Note::new(
            field,
            "the node has no pod CIDR; its pods get no addresses",
        ));
    }
    for ((peer, family), path) in paths {
        if let Some(peer) = snapshot.nodes.get(peer) {
            plan.lead_to(this, peer, *family, path);
        }
    }
    for net in &snapshot.config.egress.non_masquerade_cidrs {
        let origin = Config::origin().field("egress.nonMasqueradeCIDRs");
        egress::cover(&mut plan.unmasqueraded, *net, origin);
    }
    let (unmasqueraded, notes) = (&plan.unmasqueraded, &mut plan.notes);
    plan.sources = egress::sources(snapshot, this, paths, unmasqueraded, notes);
    plan.refuse_the_rest(snapshot);
    plan
}

impl Plan {
    fn lead_to(&mut self, this: &Node, peer: &Node, family: Family, path: &Path) {
        let Some(destination) = peer.pod_cidr(family) else {
            return;
        };
        let (interface, via, source) = match path {
            Path::Direct { interface, via, .. } | Path::Learned { interface, via } => {
                // The underlay knows pod addresses, so a pod can talk to the peer as itself.
                let addresses = peer.addresses.iter().filter(|a| Family::of(**a) == family);
                for alone in addresses.map(|address| IpNet::from(*address)) {
                    if !self
                        .unmasqueraded
                        .keys()
                        .any(|known| known.contains(&alone))
                    {
                        self.unmasqueraded.insert(alone, peer.origin());
                    }
                }
                (interface, Some(*via), None)
            }
            Path::Vxlan { device, remote, .. } => {
                let end = this.underlay_address(Family::of(*remote));
                self.tunnel_end = end.map(|end| (end, this.origin().field("status.addresses")));
                let own = this.pod_network_address(family);
                self.own_tunnel(this, device, own);
                (device, peer.pod_network_address(family), own)
            }
        };
        let (Ok(interface), Some(via)) = (IfName::new(interface), via) else {
            return;
        };
        let link_local = matches!(via, IpAddr::V6(via) if via.is_unicast_link_local());
        let near = this
            .underlay
            .as_ref()
            .and_then(|underlay| underlay.beside(via));
        let routes = match path {
            Path::Learned { .. } => &mut self.learned,
            Path::Direct { .. } | Path::Vxlan { .. } => &mut self.peers,
        };
        routes.push(NextHop {
            destination,
            via,
            interface,
            source,
            onlink: source.is_some() || !link_local && near.is_none(),
            mtu: path.mtu().and_then(|mtu| Mtu::new(mtu).ok()),
            origin: peer.origin().field("spec.podCIDRs"),
        });
    }

    /// What is in no pod CIDR must not leave by the default route. A range within a pod CIDR would cut off its pods;
    /// one with a node's address in it is not here any more (`parfait_cluster::settle`).
    fn refuse_the_rest(&mut self, snapshot: &Snapshot) {
        for (range, origin) in configured(snapshot) {
            let own = self.own.iter().map(|(cidr, _)| cidr);
            let peers = self.peers.iter().chain(&self.learned);
            let mut led = own.chain(peers.map(|peer| &peer.destination));
            if !led.any(|cidr| cidr.contains(&range)) {
                self.refused.push((range, origin));
            }
        }
    }

    fn own_tunnel(&mut self, this: &Node, device: &str, own: Option<IpAddr>) {
        let Ok(device) = IfName::new(device) else {
            return;
        };
        let (_, addresses) = self.tunnel.get_or_insert((device, Vec::new()));
        if let Some(own) = own.filter(|own| !addresses.iter().any(|(known, _)| known == own)) {
            addresses.push((own, this.origin().field("spec.podCIDRs")));
        }
    }
}

fn pod_routes(snapshot: &Snapshot, node: &str) -> Vec<PodRoute> {
    let this = snapshot.nodes.get(node);
    let own = snapshot.pods_on(node).filter(|pod| !pod.host_network);
    own.flat_map(|pod| {
        let interface = host_interface(&pod.name.namespace, &pod.name.name);
        pod.addresses.iter().map(move |address| PodRoute {
            address: *address,
            interface: interface.clone(),
            source: this.and_then(|this| {
                this.own_addresses()
                    .find(|own| Family::of(*own) == Family::of(*address))
            }),
            origin: pod.origin(),
        })
    })
    .collect()
}

fn served(snapshot: &Snapshot) -> Vec<ServedAddress> {
    let services = snapshot
        .services
        .values()
        .filter(|service| service.served_by_node);
    services
        .flat_map(|service| {
            service.cluster_ips.iter().map(|address| ServedAddress {
                address: *address,
                origin: service.origin().field("spec.clusterIPs"),
            })
        })
        .collect()
}

/// The ranges that the administrator gave to pods.
fn configured(snapshot: &Snapshot) -> impl Iterator<Item = (IpNet, Origin)> {
    let ranges = snapshot.config.cluster_cidrs.iter();
    ranges.map(|cidr| (cidr.trunc(), Config::origin().field("clusterCIDRs")))
}
