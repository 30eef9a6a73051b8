//! What Services and host ports did to a packet, in words.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use parfait_cluster::{ObjectName, TrafficPolicy};
use parfait_linux::nft::Trace;
use parfait_packet::{Family, Kind, Origin, Packet, Reason};
use parfait_transport::{Arrival, Backend, Explanation, PassedOver, Source, Why};

use crate::leg;
use crate::leg::Leg;
use crate::memory::{self, By, Pinned};
use crate::resolve;
use crate::walk::{Inside, Walker};

/// What the transport layer says of a packet as it came to this node.
pub(crate) fn explain<'i>(inside: &'i Inside<'_>, packet: &Packet) -> Option<Explanation<'i>> {
    let sender_is_the_node = inside.iif.is_none();
    parfait_transport::explain(&inside.known.plan.transport, packet, sender_is_the_node)
}

/// Whether this node gives a packet another destination, or refuses it for want of one.
pub(crate) fn translates(inside: &Inside<'_>, packet: &Packet) -> bool {
    let ports = &inside.known.plan.transport.common.host_ports;
    let at_host_port = || parfait_transport::host_ports::explain(ports, packet).is_some();
    explain(inside, packet).is_some() || at_host_port()
}

/// Remembers the Service that a packet comes to.
pub(crate) fn meet(walker: &Walker<'_>, inside: &Inside<'_>) {
    let explained = explain(inside, &inside.seen).filter(|_| walker.answers.is_none());
    let origin = explained.map(|explained| explained.origin);
    if let Some(origin) = origin.filter(|origin| origin.kind == Kind::Service) {
        walker
            .world
            .meet(ObjectName::new(&origin.namespace, &origin.name));
    }
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
    let pod = pod(walker, after.destination);
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
    let kept = pinned(inside, before);
    let of = match (&kept, explained.candidates.len()) {
        (Some(kept), _) => format!(
            "kept by ClientIP affinity ({} s left){}",
            kept.expires,
            kept.stale
                .as_ref()
                .map(|why| format!("; stale, and the agent removes it: {why}"))
                .unwrap_or_default()
        ),
        (None, 1) => "the only endpoint".to_owned(),
        (None, of) => format!("one of {of} endpoints at random"),
    };
    // The same for each of its endpoints, and it may have very many.
    let others = || others(&explained.passed_over());
    let others = match *before == inside.seen {
        true => inside.others.get_or_init(others).clone(),
        false => others(),
    };
    let keeps = match explained.affinity {
        Some(seconds) if kept.is_none() => {
            if let Err(why) = &inside.known.kept {
                walker.world.tell(format!(
                    "which endpoints clients keep at {} is not known: {why}",
                    inside.name
                ));
            }
            format!("; a client keeps its endpoint until it is silent for {seconds} s")
        }
        _ => String::new(),
    };
    format!("{becomes}, {of}{}{others}{keeps}", by(&explained))
}

/// The pod that has an address, in brackets.
pub(crate) fn pod(walker: &Walker<'_>, address: IpAddr) -> String {
    let pod = walker.world.snapshot.pod_at(address);
    pod.map(|pod| format!(" (pod {})", pod.name))
        .unwrap_or_default()
}

/// The endpoint that the sender keeps where it sends this, by session affinity.
pub(crate) fn pinned(inside: &Inside<'_>, packet: &Packet) -> Option<Pinned> {
    let explained = explain(inside, packet)?;
    explained.affinity?;
    let keeps = memory::keeps(inside, packet)?;
    let to = keeps.kept.endpoint;
    let serves = is_candidate(&explained, to);
    Some(Pinned {
        node: inside.name.to_owned(),
        by: By::Affinity,
        from: SocketAddr::new(packet.destination, packet.destination_port),
        to,
        state: None,
        expires: keeps.expires,
        stale: (!serves).then(|| Why::EndpointGone(to).to_string()),
    })
}

/// Why a packet of a tracked connection goes where no new one would, if it is so.
pub(crate) fn no_candidate(inside: &Inside<'_>, packet: &Packet, to: SocketAddr) -> String {
    let explained = explain(inside, packet);
    let Some(explained) = explained.filter(|explained| !is_candidate(explained, to)) else {
        return String::new();
    };
    let passed_over = explained.passed_over();
    let mut passed_over = passed_over.iter();
    let of = passed_over.find(|(backend, _)| backend.socket() == (to.ip(), to.port()));
    match of {
        Some((_, why)) => format!("; new connections do not go there: it is {}", why.what()),
        None => "; new connections do not go there: it is no endpoint any more".to_owned(),
    }
}

fn is_candidate(explained: &Explanation<'_>, to: SocketAddr) -> bool {
    let mut candidates = explained.candidates.iter();
    candidates.any(|backend| backend.socket() == (to.ip(), to.port()))
}

/// By which field the packet comes here, and the policy where it is not simply to use all endpoints.
fn by(explained: &Explanation<'_>) -> String {
    let local = explained.policy == TrafficPolicy::Local;
    match explained.arrival {
        None => String::new(),
        Some(Arrival::ClusterIp) if local => " (internalTrafficPolicy: Local)".to_owned(),
        Some(Arrival::ClusterIp) => String::new(),
        Some(arrival) => {
            let policy = match (local, explained.inside) {
                (true, _) => "externalTrafficPolicy: Local",
                (false, true) => "a client in the cluster is served by any endpoint",
                (false, false) => "externalTrafficPolicy: Cluster",
            };
            format!(" (by {}; {policy})", arrival.field())
        }
    }
}

/// Why a packet that was translated here goes on with its source, or with another. `seen` is the packet as it came.
pub(crate) fn source(inside: &Inside<'_>, seen: &Packet, now: &Packet) -> Option<Source> {
    explain(inside, seen)?;
    let plan = &inside.known.plan.transport;
    let here = inside.iif.is_none();
    Some(parfait_transport::source(
        plan,
        seen.source,
        now.destination,
        here,
    ))
}

/// How many endpoints of the Service get no new connections, by the reason.
fn others(passed_over: &[(Backend, PassedOver)]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, why) in passed_over {
        *counts.entry(why.what()).or_default() += 1;
    }
    let counts = counts.iter().map(|(why, count)| format!("{count} {why}"));
    let counts: Vec<_> = counts.collect();
    match counts.is_empty() {
        true => String::new(),
        false => format!("; not chosen: {}", counts.join(", ")),
    }
}

/// Why it goes nowhere.
pub(crate) fn refused(
    walker: &Walker<'_>,
    inside: &Inside<'_>,
    packet: Packet,
    mut leg: Leg,
) -> leg::Arrival {
    let explained = explain(inside, &packet);
    let reason = explained.as_ref().and_then(|e| e.refused);
    let reason = reason.unwrap_or(Reason::Rejected);
    if let (Some(explained), Some(hop)) = (explained, leg.hops.last_mut()) {
        hop.what = match reason {
            Reason::Rejected if inside.tracked.is_some() => {
                "refused: its connection was never translated, and so leads to no endpoint"
                    .to_owned()
            }
            Reason::NoService => format!("refused: no Service has {}", packet.destination),
            Reason::NoSuchServicePort if !packet.protocol.has_ports() => {
                "refused: a Service answers at its ports alone, not to ICMP".to_owned()
            }
            Reason::NoSuchServicePort => {
                format!(
                    "refused: the Service has no port {}/{}; it has {}",
                    packet.destination_port,
                    packet.protocol,
                    ports(walker, &explained.origin)
                )
            }
            Reason::SourceNotAllowed => format!(
                "dropped: {} is in none of the Service's loadBalancerSourceRanges",
                packet.source
            ),
            _ => not_candidates(walker, reason, &explained, packet.family()),
        };
        hop.origins = vec![explained.origin];
    }
    leg.lost(reason)
}

/// The ports that a Service has, in words.
fn ports(walker: &Walker<'_>, of: &Origin) -> String {
    let name = ObjectName::new(&of.namespace, &of.name);
    let service = walker.world.snapshot.services.get(&name);
    service.map_or_else(|| "none".to_owned(), resolve::describe_ports)
}

fn not_candidates(
    walker: &Walker<'_>,
    reason: Reason,
    explained: &Explanation<'_>,
    family: Family,
) -> String {
    let how = match explained.silent {
        true => "dropped, so that load balancers look elsewhere",
        false => "refused",
    };
    let passed_over = explained.passed_over();
    if passed_over.is_empty() {
        return format!(
            "{how}: the Service has no endpoints; {}",
            none(walker, explained, family)
        );
    }
    let listed = passed_over
        .iter()
        .take(5)
        .map(|(backend, why)| match &backend.endpoint.pod {
            Some(pod) => format!("pod {pod} is {}", why.what()),
            None => format!("{} is {}", backend.endpoint.address, why.what()),
        });
    let mut listed = listed.collect::<Vec<_>>().join(", ");
    if let more @ 1.. = passed_over.len().saturating_sub(5) {
        listed.push_str(&format!(", and {more} more"));
    }
    let what = match reason {
        Reason::NoLocalEndpoints => "no endpoint on this node",
        _ => "no ready endpoints",
    };
    format!("{how}: the Service has {what}{}; {listed}", by(explained))
}

/// Why there is not even one that could be passed over.
fn none(walker: &Walker<'_>, explained: &Explanation<'_>, family: Family) -> String {
    let snapshot = walker.world.snapshot;
    let of = &explained.origin;
    let service = snapshot
        .services
        .get(&ObjectName::new(&of.namespace, &of.name));
    let port = service.and_then(|service| {
        let mut ports = service.ports.iter();
        Some((
            service,
            ports.find(|port| service.port_origin(port) == *of)?,
        ))
    });
    match port {
        Some((service, port)) => parfait_transport::absent(snapshot, service, port, family),
        None => "no EndpointSlice lists any".to_owned(),
    }
}
