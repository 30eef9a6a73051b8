//! What a packet meets in this layer: the Service, its candidates, and why others are none.

use std::net::IpAddr;
use std::sync::Arc;

use parfait_cluster::TrafficPolicy;
use parfait_packet::{Origin, Packet, Reason};

use crate::topology::Here;
use crate::{Arrival, Backend, Frontend, PassedOver, Plan, Pool, Virtual};

/// With which source a translated packet goes on, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Kept: the client is a pod of this node, to which the answer comes back by itself.
    KeptForOwnPod,
    /// Kept: the client is this node.
    KeptForNode,
    /// Kept: the endpoint is a pod of this node, whose answer passes here in any case.
    KeptToOwnPod,
    /// One of the node's: this node sends from 127.0.0.1, which nobody else can answer.
    FromLoopback,
    /// Another of the node's: this node sends from an address that others may not know.
    FromUnknown,
    /// One of the node's: the endpoint is the client itself, and would answer itself directly.
    Hairpin,
    /// One of the node's: neither is here, and the answer must come back to be translated.
    FromElsewhere,
}

impl Source {
    /// Why the source is kept, or is not.
    #[must_use]
    pub const fn why(self) -> &'static str {
        match self {
            Self::KeptForOwnPod => "the client is a pod of this node",
            Self::KeptForNode => "the client is this node itself",
            Self::KeptToOwnPod => "the endpoint is a pod of this node, so the answer comes by here",
            Self::FromLoopback => "nobody but the node itself can answer its loopback",
            Self::FromUnknown => "answers to this address of the node may not find back to it",
            Self::Hairpin => "a pod that reaches itself would answer itself directly",
            Self::FromElsewhere => {
                "neither the client nor the endpoint is a pod of this node, and the answer must come back here"
            }
        }
    }

    /// Whether the packet keeps its source.
    #[must_use]
    pub const fn is_kept(self) -> bool {
        matches!(
            self,
            Self::KeptForOwnPod | Self::KeptForNode | Self::KeptToOwnPod
        )
    }
}

/// What a packet of a Service that leaves this node for an endpoint shows as its source; `here` says whether this node
/// sends it.
#[must_use]
pub fn source(plan: &Plan, client: IpAddr, endpoint: IpAddr, here: bool) -> Source {
    let common = &plan.common;
    let own = |address| common.own_pods.keys().any(|cidr| cidr.contains(&address));
    if client == endpoint && common.pods.contains_key(&client) {
        Source::Hairpin
    } else if here && client.is_loopback() {
        Source::FromLoopback
    } else if here && !own(endpoint) && !common.own.contains(&client) {
        Source::FromUnknown
    } else if here {
        Source::KeptForNode
    } else if own(client) {
        Source::KeptForOwnPod
    } else if own(endpoint) {
        Source::KeptToOwnPod
    } else {
        Source::FromElsewhere
    }
}

/// What the transport layer does with a packet to a virtual address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation<'p> {
    /// The Service and the port; the Service alone if it has no such port; the configured range if
    /// there is no such Service.
    pub origin: Origin,
    /// By which of the Service's addresses the packet arrives.
    pub arrival: Option<Arrival>,
    /// The policy that chose the candidates.
    pub policy: TrafficPolicy,
    /// Whether the client counts as one within the cluster.
    pub inside: bool,
    /// Where the connection can go, each with the same probability.
    pub candidates: &'p [Backend],
    /// What it arrives at, and whose endpoints are asked there.
    behind: Option<(&'p Virtual, &'p Pool, &'p Here)>,
    /// For how many seconds the client keeps its endpoint, once it has one.
    pub affinity: Option<u32>,
    /// Why the connection goes nowhere, if it does not.
    pub refused: Option<Reason>,
    /// Nobody tells the client: the packet is dropped, so that load balancers look elsewhere.
    pub silent: bool,
}

impl Explanation<'_> {
    /// Endpoints that are no candidates, and why, by address.
    #[must_use]
    pub fn passed_over(&self) -> Vec<(Backend, PassedOver)> {
        let listed = self
            .behind
            .map(|(behind, pool, here)| behind.passed_over(pool, here));
        listed.unwrap_or_default()
    }
}

/// Explains a packet as its sender made it, on the node that is planned for; `here` says whether the sender is that
/// node itself. `None` if the destination is no address of a Service and could be none, or if each node's agent
/// answers there itself.
#[must_use]
pub fn explain<'p>(plan: &'p Plan, packet: &Packet, here: bool) -> Option<Explanation<'p>> {
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

fn arrived<'p>(
    plan: &'p Plan,
    packet: &Packet,
    behind: &'p Virtual,
    here: bool,
) -> Explanation<'p> {
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
        None => pool.backends.as_slice(),
        Some(_) => &[],
    };
    Explanation {
        origin: behind.origin.clone(),
        arrival: Some(behind.arrival),
        policy: pool.policy,
        inside,
        candidates,
        behind: Some((behind, pool, &plan.here)),
        affinity: behind.affinity,
        refused,
        // As chains `restricted` and `local` have it; without any endpoint it never comes to them.
        silent: refused.is_some() && !behind.is_empty(),
    }
}

/// Why a pool has nobody.
fn empty(pool: &Arc<Pool>) -> Reason {
    match pool.elsewhere {
        true => Reason::NoLocalEndpoints,
        false => Reason::NoEndpoints,
    }
}

fn no_service<'p>(plan: &'p Plan, packet: &Packet) -> Option<Explanation<'p>> {
    if plan.common.served.contains_key(&packet.destination) {
        return None;
    }
    let mut networks = plan.common.networks.iter();
    let (_, origin) = networks.find(|(network, _)| network.contains(&packet.destination))?;
    Some(Explanation {
        refused: Some(Reason::NoService),
        ..nowhere(origin.clone())
    })
}

fn nowhere<'p>(origin: Origin) -> Explanation<'p> {
    Explanation {
        origin,
        arrival: None,
        policy: TrafficPolicy::Cluster,
        inside: true,
        candidates: &[],
        behind: None,
        affinity: None,
        refused: None,
        silent: false,
    }
}
