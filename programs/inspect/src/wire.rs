//! The wires: from a node to its pods, to a peer, or out of the cluster.

use std::net::IpAddr;

use parfait_cluster::{Node, Path};
use parfait_linux::{LinkKind, Mac, Unicast};
use parfait_packet::{Family, Layer, Origin, Reason, Stage};

use crate::deliver;
use crate::leg::{Arrival, Fate, FoundBy, Leg, Step};
use crate::walk::{Inside, Walker};

impl Walker<'_> {
    /// A packet leaves a node by a link.
    pub(crate) fn wire(&self, inside: &Inside<'_>, way: &Unicast, mut leg: Leg) -> Vec<Arrival> {
        let state = &inside.known.state;
        let Some(link) = state.links.get(&way.link) else {
            return vec![leg.lost(Reason::LinkDown)];
        };
        let (mtu, found) = match inside.iif {
            None => (way.mtu, FoundBy::Sender),
            Some(_) => (
                state.mtu_of_forwarded(way),
                // It is found before the source is masqueraded (`ip_forward` in net/ipv4/ip_forward.c).
                FoundBy::Way(self.teller(inside, inside.seen.source)),
            ),
        };
        let mtu = mtu.map(parfait_linux::Mtu::bytes);
        if !leg.narrow(mtu, &inside.place(), found) {
            return vec![leg.lost(Reason::TooBig)];
        }
        match &link.value.kind {
            LinkKind::Veth { .. } => {
                let Some(mac) = self.neighbour(inside, way) else {
                    return vec![leg.lost(Reason::NoNeighbour)];
                };
                vec![deliver::to_pod(self.world, inside, way, mac, leg)]
            }
            LinkKind::Vxlan(_) => self.tunnel(inside, way, leg),
            LinkKind::Loopback => vec![leg.lost(Reason::NotLocal)],
            _ => self.underlay(inside, way, leg),
        }
    }

    /// The address from which a node tells a sender of what is wrong with a packet on its way: that of
    /// the route back (`icmp_send` in net/ipv4/icmp.c, `icmp6_send` in net/ipv6/icmp.c).
    fn teller(&self, inside: &Inside<'_>, sender: IpAddr) -> Option<IpAddr> {
        match inside.known.state.route(sender) {
            parfait_linux::RouteDecision::Unicast(way) => way.source,
            _ => None,
        }
    }

    fn neighbour(&self, inside: &Inside<'_>, way: &Unicast) -> Option<(Mac, Option<Origin>)> {
        let entry = inside.known.state.neighbour(&way.link, way.next_hop)?;
        Some((entry.value.mac?, entry.origin.clone()))
    }

    fn tunnel(&self, inside: &Inside<'_>, way: &Unicast, mut leg: Leg) -> Vec<Arrival> {
        let Some((mac, _)) = self.neighbour(inside, way) else {
            return vec![leg.lost(Reason::NoNeighbour)];
        };
        let Some(entry) = inside.known.state.fdb(&way.link, mac) else {
            return vec![leg.lost(Reason::NoNeighbour)];
        };
        let Some(peer) = self.world.owner(entry.value.destination) else {
            return vec![leg.ends(Fate::Unknown(Reason::NotInSnapshot))];
        };
        self.describe(inside, &peer.name, entry.value.to_string(), &mut leg);
        if !fits_into(peer, inside, way, &mut leg) {
            return vec![leg.lost(Reason::TooBig)];
        }
        self.enter(&peer.name, way.link.as_str(), leg)
    }

    fn underlay(&self, inside: &Inside<'_>, way: &Unicast, mut leg: Leg) -> Vec<Arrival> {
        let Some(peer) = self.behind(inside, way, leg.packet.destination) else {
            return vec![outside(inside, way, leg)];
        };
        let paths = &inside.known.plan.link.paths;
        let path = paths.get(&(peer.name.clone(), leg.packet.family()));
        match path.and_then(Path::unchanged).is_some() {
            true => self.describe(inside, &peer.name, String::new(), &mut leg),
            // The path is that of pods' addresses; nodes' own are on the underlay in any case.
            false => between_nodes(way, &mut leg),
        }
        if !fits_into(peer, inside, way, &mut leg) {
            return vec![leg.lost(Reason::TooBig)];
        }
        let arrives_on = peer
            .underlay
            .as_ref()
            .and_then(|underlay| underlay.of(leg.packet.family()))
            .map_or("eth0", |u| u.interface.as_str());
        self.enter(&peer.name, arrives_on, leg)
    }

    /// The node that a packet on the underlay gets to: the next hop itself, or the one that the
    /// underlay's router sends it to, because it is addressed to that node or, where the
    /// administrator says that the underlay carries pod addresses, to one of its pods.
    fn behind(&self, inside: &Inside<'_>, way: &Unicast, destination: IpAddr) -> Option<&Node> {
        let direct = self.world.owner(way.next_hop);
        let addressed = || self.world.owner(destination);
        let routed = || {
            let family = Family::of(destination);
            let nodes = &self.world.snapshot.nodes;
            let peer = nodes.values().find(|node| {
                let cidr = node.pod_cidr(family);
                cidr.is_some_and(|cidr| cidr.contains(&destination))
            })?;
            let paths = &inside.known.plan.link.paths;
            let (_, via) = paths.get(&(peer.name.clone(), family))?.unchanged()?;
            (via == way.next_hop).then_some(peer)
        };
        direct.or_else(addressed).or_else(routed)
    }

    fn describe(&self, inside: &Inside<'_>, peer: &str, evidence: String, leg: &mut Leg) {
        let family = leg.packet.family();
        let wire = parfait_link::explain(&inside.known.plan.link, peer, family);
        let (what, origins) = match wire {
            Some(wire) => {
                let mtu = wire
                    .mtu
                    .map(|mtu| format!(", MTU {mtu}"))
                    .unwrap_or_default();
                (
                    format!("{}: {}{mtu}", wire.kind, wire.what),
                    vec![wire.origin],
                )
            }
            None => (format!("over the underlay to node {peer}"), Vec::new()),
        };
        leg.step(Step {
            place: "underlay",
            stage: Stage::Wire,
            layer: Layer::Link,
            what,
            evidence,
            origins,
        });
    }
}

fn outside(inside: &Inside<'_>, way: &Unicast, mut leg: Leg) -> Arrival {
    leg.step(Step {
        place: "underlay",
        stage: Stage::Wire,
        layer: Layer::Link,
        what: match way.route.via {
            Some(via) => format!("leaves the cluster through {} to {via}", way.link),
            None => format!(
                "leaves the cluster: it is on the segment of {}, and no node's",
                way.link
            ),
        },
        evidence: String::new(),
        origins: Vec::new(),
    });
    leg.left = Some((inside.name.to_owned(), way.link.to_string()));
    leg.ends(Fate::Unknown(Reason::ExternalDestination))
}

/// Whether the peer's interface takes the packet, with what is around it.
fn fits_into(peer: &Node, inside: &Inside<'_>, way: &Unicast, leg: &mut Leg) -> bool {
    let Some(underlay) = &peer.underlay else {
        return true;
    };
    let link = inside.known.state.links.get(&way.link);
    let around = match link.map(|link| &link.value.kind) {
        Some(LinkKind::Vxlan(vxlan)) => vxlan.overhead(),
        _ => 0,
    };
    let mtu = underlay.mtu.saturating_sub(around);
    leg.narrow(Some(mtu), &format!("node {}", peer.name), FoundBy::Nobody)
}

fn between_nodes(way: &Unicast, leg: &mut Leg) {
    let mtu = way.mtu.map(|mtu| format!(", MTU {mtu}"));
    let (link, to) = (&way.link, way.next_hop);
    leg.step(Step {
        place: "underlay",
        stage: Stage::Wire,
        layer: Layer::Link,
        what: format!(
            "unchanged over {link} to {to}: nodes' own addresses need no tunnel{}",
            mtu.unwrap_or_default()
        ),
        evidence: String::new(),
        origins: Vec::new(),
    });
}
