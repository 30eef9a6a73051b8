//! What a packet meets in this layer: the Service, its candidates, and why others are none.

use std::sync::Arc;

use parfait_packet::{Origin, Packet, Reason};

use crate::{Arrival, Backend, Frontend, PassedOver, Plan, Pool, Virtual};

/// What the transport layer does with a packet to a virtual address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The Service and the port; the Service alone if it has no such port; the configured range if
    /// there is no such Service.
    pub origin: Origin,
    /// By which of the Service's addresses the packet arrives.
    pub arrival: Option<Arrival>,
    /// Where the connection can go, each with the same probability.
    pub candidates: Vec<Backend>,
    /// Endpoints that are no candidates, and why.
    pub passed_over: Vec<(Backend, PassedOver)>,
    /// For how many seconds the client keeps its endpoint, once it has one.
    pub affinity: Option<u32>,
    /// Why the connection goes nowhere, if it does not.
    pub refused: Option<Reason>,
}

/// Explains a packet as its sender made it, on the node that is planned for; `here` says whether the sender is that
/// node itself. `None` if the destination is no address of a Service and could be none, or if each node's agent
/// answers there itself.
#[must_use]
pub fn explain(plan: &Plan, packet: &Packet, here: bool) -> Option<Explanation> {
    let frontend = Frontend {
        address: packet.destination,
        protocol: packet.protocol,
        port: packet.destination_port,
    };
    if let Some((_, behind)) = plan.find(&frontend) {
        return Some(arrived(plan, packet, behind, here));
    }
    let Some(service) = plan.address(packet.destination) else {
        return no_service(plan, packet);
    };
    // Only a Service's own address is refused at other ports.
    let own = plan.is_cluster_ip(packet.destination);
    own.then(|| Explanation {
        refused: Some(Reason::NoSuchServicePort),
        ..nowhere(service.clone().field("spec.ports"))
    })
}

fn arrived(plan: &Plan, packet: &Packet, behind: &Virtual, here: bool) -> Explanation {
    let mut clients = plan.common.inside.keys();
    let inside = here || clients.any(|net| net.contains(&packet.source));
    let pool = if inside {
        &behind.inside
    } else {
        &behind.outside
    };
    let allowed = behind
        .sources
        .as_ref()
        .is_none_or(|sources| sources.iter().any(|net| net.contains(&packet.source)));
    let refused = match (behind.is_empty(), allowed, pool.backends.is_empty()) {
        (true, _, _) => Some(empty(pool)),
        (false, false, _) => Some(Reason::SourceNotAllowed),
        (false, true, true) => Some(empty(pool)),
        (false, true, false) => None,
    };
    let candidates = match refused {
        None => pool.backends.clone(),
        Some(_) => Vec::new(),
    };
    Explanation {
        origin: behind.origin.clone(),
        arrival: Some(behind.arrival),
        candidates,
        passed_over: pool.passed_over.clone(),
        affinity: behind.affinity,
        refused,
    }
}

/// Why a pool has nobody.
fn empty(pool: &Arc<Pool>) -> Reason {
    match pool.elsewhere {
        true => Reason::NoLocalEndpoints,
        false => Reason::NoEndpoints,
    }
}

fn no_service(plan: &Plan, packet: &Packet) -> Option<Explanation> {
    if plan.common.served.contains(&packet.destination) {
        return None;
    }
    let mut networks = plan.common.networks.iter();
    let (_, origin) = networks.find(|(network, _)| network.contains(&packet.destination))?;
    Some(Explanation {
        refused: Some(Reason::NoService),
        ..nowhere(origin.clone())
    })
}

fn nowhere(origin: Origin) -> Explanation {
    Explanation {
        origin,
        arrival: None,
        candidates: Vec::new(),
        passed_over: Vec::new(),
        affinity: None,
        refused: None,
    }
}
