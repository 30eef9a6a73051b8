//! Connections that were allowed when they began and are not any more: they end.
//!
//! ```text
//!   policies change ─▶ tracked connections are judged anew ─▶ forbidden ones: into set policy_ended, out of conntrack
//!                                                              └─▶ the next packet, of either end, is dropped
//! ```
//!
//! Answers pass unasked, so a connection that conntrack knows would go on for ever. Without its entry the next packet
//! begins a new one; but if that is the *other* end's, which may send where this one may not, conntrack would take it
//! for the first (`nf_conntrack_tcp_loose`) and this end's for answers. Hence the set, in which both directions stay
//! for a day, or until policies allow the connection again.
//!
//! Judged are connections through forwarding that have a pod of this node at one end, those to cluster DNS, and those to
//! the node itself. What a node begins, with its own pods or anybody else, policies do not know; nor do they end what
//! it may have begun.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use parfait_cluster::Direction;
use parfait_linux::conntrack::{Entry, Tuple};
use parfait_linux::nft::diff::{Action, SetType};
use parfait_linux::nft::{
    Data, DataType, Dynamic, Element, Field, Key, NftStep, Set, Tables, Value,
};
use parfait_packet::{Family, Origin, Packet, Protocol};

use super::plan::Plan;
use crate::ruleset::table_family;

/// The set.
pub const ENDED: &str = "policy_ended";

/// What is looked up in it.
pub(super) const FLOW: [Field; 5] = [
    Field::Saddr,
    Field::Daddr,
    Field::L4Proto,
    Field::Sport,
    Field::Dport,
];

/// How many directions of connections the set holds, and for how long.
const SIZE: u32 = 65_536;
const STAYS: Duration = Duration::from_secs(86_400);

/// What an element is of: a connection's first direction, or that of its answers.
const THERE: &str = "connections that ended";
const BACK: &str = "answers of connections that ended";

pub(super) fn definition() -> Set {
    let dynamic = Dynamic {
        size: SIZE,
        timeout: Some(STAYS),
    };
    Set::new(FLOW, DataType::None).dynamic(dynamic)
}

/// A tracked connection that policies forbid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forbidden<'a> {
    /// The connection.
    pub entry: &'a Entry,
    /// The pod that is isolated, or the node.
    pub pod: Origin,
    /// The direction in which it is.
    pub direction: Direction,
}

/// The connections of these that policies forbid. `own` are the node's addresses.
#[must_use]
pub fn forbidden<'a>(
    plan: &Plan,
    own: &BTreeSet<IpAddr>,
    entries: &'a [Entry],
) -> Vec<Forbidden<'a>> {
    let forbidden = entries.iter().filter_map(|entry| {
        let packet = first_packet(entry)?;
        let (pod, direction) = plan.forbids(own, &packet)?;
        // It may be the node's own, begun before its kernel tracked connections: which end did is not known.
        if entry.midway && own.contains(&packet.destination) {
            return None;
        }
        Some(Forbidden {
            entry,
            pod: pod.clone(),
            direction,
        })
    });
    forbidden.collect()
}

/// The direction of a connection that an element of the set is of.
#[must_use]
pub fn direction_of(key: &Key) -> Option<Tuple> {
    Tuple::of(&flow(key)?)
}

/// The element for a direction of a connection.
#[must_use]
pub fn element_of(direction: &Tuple) -> (Key, Element) {
    let Tuple {
        protocol,
        source,
        destination,
        ..
    } = direction;
    let key = vec![
        Value::Address(source.ip()),
        Value::Address(destination.ip()),
        Value::Protocol(*protocol),
        Value::Port(source.port()),
        Value::Port(destination.port()),
    ];
    (key, element(THERE))
}

/// The steps by which these connections stay ended, and those that are allowed again can begin.
#[must_use]
pub fn end(
    plan: &Plan,
    own: &BTreeSet<IpAddr>,
    ended: &[Forbidden<'_>],
    observed: &Tables,
) -> Vec<NftStep> {
    let mut steps = Vec::new();
    for family in Family::ALL {
        let name = (table_family(family), "parfait".to_owned());
        let Some(set) = observed.get(&name).and_then(|table| table.sets.get(ENDED)) else {
            continue;
        };
        let step = |action| NftStep {
            family: name.0,
            table: name.1.clone(),
            action,
        };
        let allowed = again(plan, own, set);
        let most = usize::try_from(SIZE).unwrap_or(usize::MAX);
        let room = most.saturating_sub(set.elements.len());
        let packets = ended.iter().filter_map(|ended| first_packet(ended.entry));
        let packets =
            packets.filter(|packet| packet.family() == family && packet.protocol.has_ports());
        let new: BTreeMap<Key, Element> = packets
            .flat_map(|packet| [(packet, THERE), (packet.reply(), BACK)])
            .map(|(packet, way)| (key(&packet), element(way)))
            .filter(|(key, _)| !set.elements.contains_key(key))
            .take(room)
            .collect();
        if !allowed.is_empty() {
            let kind = SetType::of(set);
            steps.push(step(Action::DeleteElements(
                ENDED.to_owned(),
                kind,
                allowed,
            )));
        }
        if !new.is_empty() {
            let (kind, new) = (SetType::of(set), new.into_iter().collect());
            steps.push(step(Action::AddElements(ENDED.to_owned(), kind, new)));
        }
    }
    steps
}

/// The elements of connections that policies allow again: of both directions.
fn again(plan: &Plan, own: &BTreeSet<IpAddr>, set: &Set) -> Vec<Key> {
    // The kernel keeps the text alone.
    let there = Origin::parfait(THERE).to_string();
    let is_first = |element: &Element| {
        let origin = element.origin.as_ref().map(ToString::to_string);
        origin.as_ref() == Some(&there)
    };
    let first = set.elements.iter();
    let first = first.filter(|(_, element)| is_first(element));
    let allowed = first
        .filter_map(|(key, _)| flow(key))
        .filter(|packet| plan.forbids(own, packet).is_none());
    let keys = allowed.flat_map(|packet| [key(&packet), key(&packet.reply())]);
    keys.filter(|key| set.elements.contains_key(key)).collect()
}

fn element(way: &str) -> Element {
    Element::new(Data::None).origin(Origin::parfait(way))
}

impl Plan {
    /// Whose policies forbid a connection with this first packet, as forwarding sees it.
    fn forbids(&self, own: &BTreeSet<IpAddr>, packet: &Packet) -> Option<(&Origin, Direction)> {
        let (from, to) = (packet.source, packet.destination);
        if from == to || own.contains(&from) {
            return None;
        }
        let to_node = own.contains(&to) && !self.served.contains_key(&to);
        let ends = [
            (Direction::Egress, from, to),
            (Direction::Ingress, to, from),
        ];
        let mut ends = ends.into_iter();
        let by_pods = ends.find_map(|(direction, pod, peer)| {
            let isolated = self.pods.get(&pod)?;
            let class = isolated.class(direction)?;
            let class = match to_node {
                true => class.towards_node()?,
                false => Cow::Borrowed(class.as_ref()),
            };
            let denied = !class.decide(peer, packet).accepted;
            denied.then_some((&isolated.pod, direction))
        });
        by_pods.or_else(|| {
            let host = self.host.as_ref().filter(|_| to_node)?;
            let node = host.peers.get(&to)?;
            host.denies(packet).then_some((node, Direction::Ingress))
        })
    }
}

/// The first packet as forwarding saw it: its destination translated, and its source not yet.
fn first_packet(entry: &Entry) -> Option<Packet> {
    let (from, to) = (entry.original.source, entry.reply.source);
    // Our rules are of no zone.
    if entry.zone != 0 || Family::of(from.ip()) != Family::of(to.ip()) {
        return None;
    }
    Some(Packet {
        source: from.ip(),
        destination: to.ip(),
        protocol: Protocol::of_number(entry.original.protocol)?,
        source_port: from.port(),
        destination_port: to.port(),
    })
}

fn key(packet: &Packet) -> Key {
    vec![
        Value::Address(packet.source),
        Value::Address(packet.destination),
        Value::Protocol(packet.protocol.number(packet.family())),
        Value::Port(packet.source_port),
        Value::Port(packet.destination_port),
    ]
}

fn flow(key: &Key) -> Option<Packet> {
    let [
        Value::Address(source),
        Value::Address(destination),
        Value::Protocol(number),
        Value::Port(from),
        Value::Port(to),
    ] = key.as_slice()
    else {
        return None;
    };
    Some(Packet {
        source: *source,
        destination: *destination,
        protocol: Protocol::of_number(*number)?,
        source_port: *from,
        destination_port: *to,
    })
}
