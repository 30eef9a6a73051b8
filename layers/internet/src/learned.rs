//! Routes to peers' pods that a routing daemon on the node learns (`routing: bgp`).
//!
//! ```text
//!   unreachable 10.244.1.0/24 proto 112      the agent's: the daemon reads it and announces it
//!   10.244.2.0/24 via … proto bird           the daemon's: expected here, proved, never made
//!   unreachable 10.244.0.0/16 proto 112      the agent's: what is withdrawn is refused at once
//! ```
//!
//! Which daemon made a route, and whether it has joined several into one, is its own affair: a way counts as
//! learned if the kernel would send the peer's pods' packets along a route that is neither a default
//! route nor Parfait's nor one that the kernel derived from an address.

use std::net::IpAddr;

use ipnet::IpNet;
use parfait_cluster::{Routing, Snapshot};
use parfait_linux::{Route, RouteDecision, RouteProtocol, State};
use parfait_packet::{Difference, Fault, Finding, Origin};

use crate::Plan;

/// The metric with which BIRD adds its routes, unless it is told another.
const METRIC: u32 = 32;

/// `RTPROT_BIRD` of linux/rtnetlink.h.
const BIRD: u8 = 12;

/// The routes that a routing daemon is expected to have added, as BIRD does.
#[must_use]
pub fn learned(plan: &Plan) -> State {
    let mut state = State::default();
    for peer in &plan.learned {
        let mut route = Route::via(peer.destination.trunc(), peer.via, peer.interface.clone());
        route.protocol = RouteProtocol(BIRD);
        route.metric = METRIC;
        state.insert(route, peer.origin.clone());
    }
    state
}

/// The peers' pod CIDRs to which no routing daemon has brought this node a route.
#[must_use]
pub fn unlearned(snapshot: &Snapshot, node: &str, observed: &State) -> Vec<IpNet> {
    missing(snapshot, node, observed)
        .map(|(cidr, _)| cidr)
        .collect()
}

/// The same as findings.
#[must_use]
pub fn prove_learned(snapshot: &Snapshot, node: &str, observed: &State) -> Vec<Finding> {
    let finding = |(cidr, origin): (IpNet, Origin)| Finding {
        fault: Fault::RouteMissing,
        difference: Difference::Missing,
        item: format!("{cidr}, learned by a routing daemon"),
        found: String::new(),
        origin: Some(origin),
    };
    missing(snapshot, node, observed).map(finding).collect()
}

fn missing(
    snapshot: &Snapshot,
    node: &str,
    observed: &State,
) -> impl Iterator<Item = (IpNet, Origin)> {
    let bgp = snapshot.config.routing == Routing::Bgp;
    let peers = snapshot
        .nodes
        .values()
        .filter(move |peer| bgp && peer.name != node);
    let cidrs = peers.flat_map(|peer| {
        let origin = peer.origin().field("spec.podCIDRs");
        peer.pod_cidrs
            .iter()
            .map(move |cidr| (*cidr, origin.clone()))
    });
    cidrs.filter(|(cidr, _)| !is_learned(observed, cidr.network()))
}

fn is_learned(observed: &State, address: IpAddr) -> bool {
    let RouteDecision::Unicast(way) = observed.route(address) else {
        return false;
    };
    let own = [
        RouteProtocol::PARFAIT,
        RouteProtocol::PARFAIT_CNI,
        RouteProtocol::KERNEL,
    ];
    way.route.destination.prefix_len() > 0 && !own.contains(&way.route.protocol)
}
