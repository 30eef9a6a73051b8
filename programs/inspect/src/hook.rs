//! What happened in a netfilter hook, in words, and how it goes on.

use std::net::IpAddr;

use parfait_internet::Place;
use parfait_linux::IfName;
use parfait_linux::nft::{Branch, End, Hook, Trace};
use parfait_packet::{Kind, Layer, Origin, Packet, Reason, Stage};

use crate::leg::{Arrival, Fate, Leg, Step};
use crate::policies;
use crate::services;
use crate::walk::{Inside, Walker};

/// Takes one way through a hook: its steps are added, and the packet goes on or ends.
pub(crate) fn pass(
    walker: &Walker<'_>,
    inside: &Inside<'_>,
    at: Hook,
    oif: Option<&str>,
    branch: Branch,
    mut leg: Leg,
) -> Result<Leg, Box<Arrival>> {
    let before = leg.packet;
    leg.packet = branch.packet;
    leg.marks = (branch.mark, branch.ct_mark);
    leg.untracked = branch.untracked;
    // Without an address to give, the kernel drops the packet (nf_nat_masquerade_ipv4 and _ipv6).
    let mut nameless = false;
    if branch.masquerade {
        match masqueraded(inside, oif, &leg.packet) {
            Some(source) => leg.packet.source = source,
            None => nameless = true,
        }
    }
    if let Some(last) = branch.steps.last() {
        let what = describe(walker, inside, at, &branch, before, &leg);
        if leg.packet.destination != before.destination {
            leg.pinned.extend(services::pinned(inside, &before));
        }
        let mut evidence: Vec<&str> = Vec::new();
        for step in &branch.steps {
            evidence.push(&step.rule);
            evidence.extend(step.element.as_deref());
        }
        leg.step(Step {
            place: &inside.place(),
            stage: stage(at),
            layer: layer(last),
            what,
            evidence: evidence.join("\n"),
            origins: objects(&branch.steps),
        });
    }
    if at == Hook::Postrouting
        && leg.packet.source == inside.seen.source
        && !nameless
        && inside.tracked.is_none()
    {
        kept(inside, &mut leg);
    }
    match branch.end {
        _ if nameless => Err(Box::new(leg.lost(Reason::Dropped))),
        End::Accepted => Ok(own_node(walker, inside, at, leg)),
        End::Dropped => Err(Box::new(dropped(
            walker,
            inside,
            at,
            &branch.steps,
            before,
            leg,
        ))),
        End::Rejected(_) if branch.steps.last().is_some_and(is_egress) => {
            Err(Box::new(refused_outside(inside, before, leg)))
        }
        End::Rejected(_) => Err(Box::new(services::refused(walker, inside, before, leg))),
        End::Unknown(_) => Err(Box::new(leg.ends(Fate::Unknown(Reason::UnknownRule)))),
    }
}

/// By whom it was dropped, which the rule tells.
fn dropped(
    walker: &Walker<'_>,
    inside: &Inside<'_>,
    at: Hook,
    steps: &[Trace],
    before: Packet,
    mut leg: Leg,
) -> Arrival {
    if isolated(steps) {
        if let Some(hop) = leg.hops.last_mut() {
            "dropped: this node's agent does not know the pod with this address yet"
                .clone_into(&mut hop.what);
        }
        return leg.lost(Reason::PodNotKnown);
    }
    if services::decided(steps) {
        return services::refused(walker, inside, before, leg);
    }
    if policies::have_ended(steps) {
        return policies::ended(walker, inside, &before, at, leg);
    }
    match policies::decided(steps) {
        Some(whose) => policies::denied(walker, inside, &before, whose, at, leg),
        None => leg.lost(Reason::Dropped),
    }
}

/// A step for a packet between a pod and its own node, about which the pod's policies are not asked.
fn own_node(walker: &Walker<'_>, inside: &Inside<'_>, at: Hook, mut leg: Leg) -> Leg {
    if let Some((what, pod)) = policies::own_node(walker, inside, &leg.packet, at) {
        leg.step(Step {
            place: &inside.place(),
            stage: stage(at),
            layer: Layer::Transport,
            what,
            evidence: String::new(),
            origins: vec![pod],
        });
    }
    leg
}

/// A step for a translated packet that keeps its source.
fn kept(inside: &Inside<'_>, leg: &mut Leg) {
    let translated = leg.packet.destination != inside.seen.destination && !leg.reply;
    let source = services::source(inside, &inside.seen, &leg.packet).filter(|_| translated);
    if let Some(source) = source.filter(|source| source.is_kept()) {
        leg.step(Step {
            place: &inside.place(),
            stage: Stage::Postrouting,
            layer: Layer::Transport,
            what: format!("the source {} is kept: {}", leg.packet.source, source.why()),
            evidence: String::new(),
            origins: Vec::new(),
        });
    }
}

/// Whether the rules for pods that nobody knows yet have ended it.
fn isolated(steps: &[Trace]) -> bool {
    let last = steps.last();
    last.is_some_and(|step| {
        step.table == "parfait" && step.chain == parfait_internet::isolation::CHAIN
    })
}

/// The objects that rules and elements exist for, each once; Parfait itself only if there is no other.
fn objects(steps: &[Trace]) -> Vec<Origin> {
    let mut objects: Vec<Origin> = Vec::new();
    for origin in steps.iter().flat_map(|step| &step.origins) {
        if !objects.contains(origin) {
            objects.push(origin.clone());
        }
    }
    if objects.iter().any(|origin| origin.kind != Kind::Parfait) {
        objects.retain(|origin| origin.kind != Kind::Parfait);
    }
    objects
}

/// Why there is no route, as the internet layer sees the address.
pub(crate) fn unreachable(place: &Place, packet: &Packet, inside: &Inside<'_>) -> (Reason, String) {
    let (address, node) = (packet.destination, inside.name);
    match place {
        Place::Nobody { node: Some(owner) } => (
            Reason::NoSuchAddress,
            format!("{address} lies in the pod CIDR of {owner}, but no pod has it"),
        ),
        Place::Nobody { node: None } => (
            Reason::NoSuchAddress,
            format!("{address} lies in the pod network, but in no node's pod CIDR"),
        ),
        Place::Pod(pod) => (Reason::NoRoute, format!("{node} has no route to {pod}")),
        Place::Node(owner) => (Reason::NoRoute, format!("{node} has no route to {owner}")),
        Place::Service(service) => (
            Reason::NoRoute,
            format!("{node} has no route to {address} of {service}"),
        ),
        Place::Outside if services::explain(inside, packet).is_some() => (
            Reason::NoRoute,
            format!("{node} has no route to {address}, and no Service has it"),
        ),
        Place::Outside => (
            Reason::OutsideCluster,
            format!("{address} is outside the cluster"),
        ),
    }
}

/// The source that masquerade gives: the outgoing interface's address.
fn masqueraded(inside: &Inside<'_>, oif: Option<&str>, packet: &Packet) -> Option<IpAddr> {
    let link = IfName::new(oif?).ok()?;
    let next_hop = match inside.known.state.route(packet.destination) {
        parfait_linux::RouteDecision::Unicast(way) => way.next_hop,
        _ => packet.destination,
    };
    inside
        .known
        .state
        .source(&link, packet.destination, next_hop)
}

fn describe(
    walker: &Walker<'_>,
    inside: &Inside<'_>,
    at: Hook,
    branch: &Branch,
    before: Packet,
    leg: &Leg,
) -> String {
    let after = leg.packet;
    if after.destination != before.destination || after.destination_port != before.destination_port
    {
        return services::chosen(walker, inside, &before, &after);
    }
    if branch.masquerade && after.source == before.source {
        return format!(
            "masquerade: the node has no address to put in place of {}, so the packet is dropped",
            before.source
        );
    }
    if branch.masquerade {
        let of_service = branch
            .steps
            .last()
            .is_some_and(|step| step.table == "parfait" && step.chain == "services-postrouting");
        let source = services::source(inside, &inside.seen, &after).filter(|_| of_service);
        let why = source.map(|source| format!(": {}", source.why()));
        return format!(
            "masquerade: the source {} becomes {}{}",
            before.source,
            after.source,
            why.unwrap_or_default()
        );
    }
    let chosen = branch
        .steps
        .last()
        .is_some_and(|step| step.chain == parfait_internet::SOURCE_NAT);
    if chosen && after.source != before.source {
        return format!(
            "the source {} becomes {}, which was chosen for this pod; what is answered to {} comes back to {}, \
             and is given to the pod",
            before.source, after.source, after.source, inside.name
        );
    }
    match &branch.end {
        End::Accepted => policies::passed(walker, inside, &before, at, &branch.steps)
            .unwrap_or_else(|| "let through".to_owned()),
        End::Dropped => "dropped".to_owned(),
        End::Rejected(_) => "refused, and the sender is told at once".to_owned(),
        End::Unknown(expression) => format!("cannot be evaluated: {expression}"),
    }
}

fn is_egress(step: &Trace) -> bool {
    step.table == "parfait" && step.chain == parfait_internet::egress::CHAIN
}

/// The pod must leave the cluster with an address that its node has not.
fn refused_outside(inside: &Inside<'_>, packet: Packet, mut leg: Leg) -> Arrival {
    let entry = inside
        .known
        .plan
        .internet
        .sources
        .refused
        .get(&packet.source);
    if let (Some(hop), Some(entry)) = (leg.hops.last_mut(), entry) {
        hop.what = format!(
            "refused: {} has none of the {} addresses of {entry}",
            inside.name,
            packet.family()
        );
        hop.origins = vec![entry.clone()];
    }
    leg.lost(Reason::NoEgressAddress)
}

/// Where packets of a hook are.
pub(crate) const fn stage(at: Hook) -> Stage {
    match at {
        Hook::Prerouting => Stage::Prerouting,
        Hook::Input => Stage::Input,
        Hook::Forward => Stage::Forward,
        Hook::Output => Stage::Output,
        Hook::Postrouting => Stage::Postrouting,
    }
}

fn layer(step: &Trace) -> Layer {
    if step.table == "parfait" && (step.chain == parfait_internet::SOURCE_NAT || is_egress(step)) {
        Layer::Internet
    } else {
        Layer::Transport
    }
}
