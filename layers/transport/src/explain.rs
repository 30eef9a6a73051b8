//! What a packet meets in this layer: the Service, its candidates, and why others are none.

use parfait_packet::{Origin, Packet, Reason};

use crate::plan::{Backend, PassedOver};
use crate::{Frontend, Plan};

/// What the transport layer does with a packet to a virtual address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The Service and the port; the Service alone if it has no such port; the configured range if
    /// there is no such Service.
    pub origin: Origin,
    /// Where the connection can go, each with the same probability.
    pub candidates: Vec<Backend>,
    /// Endpoints that are no candidates, and why.
    pub passed_over: Vec<(Backend, PassedOver)>,
    /// Why the connection is refused, if it is.
    pub refused: Option<Reason>,
}

/// Explains a packet as its sender made it. `None` if its destination is neither a virtual address nor could
/// be one, or if each node's agent answers there itself.
#[must_use]
pub fn explain(plan: &Plan, packet: &Packet) -> Option<Explanation> {
    let Some(service) = plan.addresses.get(&packet.destination) else {
        return no_service(plan, packet);
    };
    let frontend = Frontend {
        address: packet.destination,
        protocol: packet.protocol,
        port: packet.destination_port,
    };
    let Some(behind) = plan.frontends.get(&frontend) else {
        return Some(Explanation {
            origin: service.clone().field("spec.ports"),
            candidates: Vec::new(),
            passed_over: Vec::new(),
            refused: Some(Reason::NoSuchServicePort),
        });
    };
    Some(Explanation {
        origin: behind.origin.clone(),
        candidates: behind.backends.clone(),
        passed_over: behind.passed_over.clone(),
        refused: behind.backends.is_empty().then_some(Reason::NoEndpoints),
    })
}

fn no_service(plan: &Plan, packet: &Packet) -> Option<Explanation> {
    if plan.served.contains(&packet.destination) {
        return None;
    }
    let mut networks = plan.networks.iter();
    let (_, origin) = networks.find(|(network, _)| network.contains(&packet.destination))?;
    Some(Explanation {
        origin: origin.clone(),
        candidates: Vec::new(),
        passed_over: Vec::new(),
        refused: Some(Reason::NoService),
    })
}
