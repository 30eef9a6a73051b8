//! What Services and host ports did to a packet, in words.

use parfait_linux::nft::Trace;
use parfait_packet::{Packet, Reason};
use parfait_transport::{Arrival, Backend, Explanation, PassedOver};

use crate::leg;
use crate::leg::Leg;
use crate::walk::{Inside, Walker};

/// What the transport layer says of a packet as it came to this node.
pub(crate) fn explain(inside: &Inside<'_>, packet: &Packet) -> Option<Explanation> {
    let sender_is_the_node = inside.iif.is_none();
    parfait_transport::explain(&inside.known.plan.transport, packet, sender_is_the_node)
}

/// Whether a drop is a Service's doing: nobody here serves clients from outside, or not this one.
pub(crate) fn decided(steps: &[Trace]) -> bool {
    let chains = ["local", "restricted"];
    let last = steps.last();
    last.is_some_and(|step| step.table == "parfait" && chains.contains(&step.chain.as_str()))
}

/// Where a packet goes on to.
pub(crate) fn chosen(
    walker: &Walker<'_>,
    inside: &Inside<'_>,
    before: &Packet,
    after: &Packet,
) -> String {
    let pod = walker.world.snapshot.pod_at(after.destination);
    let pod = pod
        .map(|pod| format!(" (pod {})", pod.name))
        .unwrap_or_default();
    let target = crate::render::socket(after.destination, after.destination_port, after.protocol);
    let becomes = format!("the destination becomes {target}{pod}");
    let Some(explained) = explain(inside, before) else {
        let ports = &inside.known.plan.transport.common.host_ports;
        let port = before.destination_port;
        return match parfait_transport::host_ports::explain(ports, before) {
            Some(_) => format!("{becomes}, which asked for port {port} of the node"),
            None => becomes,
        };
    };
    let of = match explained.candidates.len() {
        1 => "the only endpoint".to_owned(),
        of => format!("one of {of} endpoints at random"),
    };
    let nearby = nearby(&explained.passed_over);
    let keeps = match explained.affinity {
        Some(seconds) => {
            format!("; a client keeps its endpoint until it is silent for {seconds} s")
        }
        None => String::new(),
    };
    let by = match explained.arrival {
        None | Some(Arrival::ClusterIp) => String::new(),
        Some(arrival) => format!(" (by {})", arrival.field()),
    };
    format!("{becomes}, {of}{nearby}{by}{keeps}")
}

/// That others are farther, where that kept them out.
fn nearby(passed_over: &[(Backend, PassedOver)]) -> String {
    let count = |which: &[PassedOver]| {
        let farther = passed_over.iter();
        farther.filter(|(_, why)| which.contains(why)).count()
    };
    let (zone, node) = (
        count(&[PassedOver::ForAnotherZone]),
        count(&[PassedOver::ForAnotherNode, PassedOver::OnAnotherNode]),
    );
    match (node, zone) {
        (0, 0) => String::new(),
        (0, zone) => format!("; {zone} more in other zones"),
        (node, _) => format!("; {node} more on other nodes"),
    }
}

/// Why it goes nowhere.
pub(crate) fn refused(inside: &Inside<'_>, packet: Packet, mut leg: Leg) -> leg::Arrival {
    let explained = explain(inside, &packet);
    let reason = explained.as_ref().and_then(|e| e.refused);
    let reason = reason.unwrap_or(Reason::Rejected);
    if let (Some(explained), Some(hop)) = (explained, leg.hops.last_mut()) {
        hop.what = match reason {
            Reason::NoService => format!("refused: no Service has {}", packet.destination),
            Reason::NoSuchServicePort if !packet.protocol.has_ports() => {
                "refused: a Service answers at its ports alone, not to ICMP".to_owned()
            }
            Reason::NoSuchServicePort => {
                format!(
                    "refused: the Service has no port {}/{}",
                    packet.destination_port, packet.protocol
                )
            }
            Reason::SourceNotAllowed => format!(
                "dropped: {} is in none of the Service's loadBalancerSourceRanges",
                packet.source
            ),
            _ => not_candidates(reason, &explained.passed_over),
        };
        hop.origins = vec![explained.origin];
    }
    leg.lost(reason)
}

fn not_candidates(reason: Reason, passed_over: &[(Backend, PassedOver)]) -> String {
    if passed_over.is_empty() {
        return "refused: the Service has no endpoints; no pod matches its selector".to_owned();
    }
    let listed = passed_over
        .iter()
        .take(5)
        .map(|(backend, why)| match &backend.endpoint.pod {
            Some(pod) => format!("pod {pod} is {}", why.what()),
            None => format!("{} is {}", backend.endpoint.address, why.what()),
        });
    let listed = listed.collect::<Vec<_>>().join(", ");
    match reason {
        Reason::NoLocalEndpoints => {
            format!("refused: the Service has no endpoint on this node; {listed}")
        }
        _ => format!("refused: the Service has no ready endpoints; {listed}"),
    }
}
