//! What policies come to: [`Effective`], the classes of a cluster's pods, and what may pass between two addresses.
//!
//! ```text
//!   sender's egress class ─┐
//!                          ├─▶ a packet passes if both let it ─▶ which ports, by which rules
//!   receiver's ingress class
//! ```
//!
//! It reads the same classes that are lowered to the kernel, of all nodes. What is not asked of policies (a pod and
//! itself, a pod and its node) is not here either.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use parfait_cluster::{Direction, Snapshot};
use parfait_packet::{Family, Origin, Packet, Protocol};

use super::class::{Class, Decision};
use super::host::Host;
use super::matches::{Matches, PortRange, without};
use super::plan::{Isolated, plan};

/// The isolated pods of a cluster, and the nodes that have policies of their own.
#[derive(Clone, Debug, Default)]
pub struct Effective {
    /// By address.
    pub pods: BTreeMap<IpAddr, Isolated>,
    /// By name.
    pub nodes: BTreeMap<String, Host>,
}

/// What of a packet's protocol and port is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ports {
    /// Everything, ICMP too.
    Everything,
    /// These ports; of ICMP, which has none, all of it.
    Range(PortRange),
}

impl fmt::Display for Ports {
    /// `everything`, `80/tcp`, `80-90/tcp`, `all of tcp`, `icmp`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Range(range) = self else {
            return f.write_str("everything");
        };
        let protocol = range.protocol;
        match (range.first, range.last) {
            _ if !protocol.has_ports() => write!(f, "{protocol}"),
            (0, u16::MAX) => write!(f, "all of {protocol}"),
            (first, last) if first == last => write!(f, "{first}/{protocol}"),
            (first, last) => write!(f, "{first}-{last}/{protocol}"),
        }
    }
}

/// What becomes of packets from one address to another at some ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The ports.
    pub ports: Ports,
    /// What the sender's policies say; `None` if it is not isolated.
    pub egress: Option<Ruling>,
    /// What the receiver's policies say.
    pub ingress: Option<Ruling>,
}

/// What the policies of one end say.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ruling {
    /// Whether it passes.
    pub accepted: bool,
    /// The rule that says so; if none does, that is the end of a tier, or nobody denies it.
    pub rule: Option<Origin>,
    /// The policies that were asked last.
    pub policies: Vec<Origin>,
}

impl Ruling {
    fn of(decision: &Decision<'_>) -> Self {
        let policies = decision.tier.map(|tier| tier.policies.clone());
        Self {
            accepted: decision.accepted,
            rule: decision.rule.cloned(),
            policies: policies.unwrap_or_default(),
        }
    }

    /// The rule, or else the policies, none of which has one.
    #[must_use]
    pub fn by(&self) -> &[Origin] {
        match &self.rule {
            Some(rule) => std::slice::from_ref(rule),
            None => &self.policies,
        }
    }
}

impl Span {
    /// Whether it passes.
    #[must_use]
    pub fn passes(&self) -> bool {
        let both = [&self.egress, &self.ingress];
        both.into_iter().flatten().all(|ruling| ruling.accepted)
    }

    /// What one end says.
    #[must_use]
    pub const fn ruling(&self, direction: Direction) -> Option<&Ruling> {
        match direction {
            Direction::Ingress => self.ingress.as_ref(),
            Direction::Egress => self.egress.as_ref(),
        }
    }
}

impl Effective {
    /// The isolated pods of all nodes.
    #[must_use]
    pub fn of(snapshot: &Snapshot) -> Self {
        let mut effective = Self::default();
        for node in snapshot.nodes.keys() {
            let plan = plan(snapshot, node);
            effective.pods.extend(plan.pods);
            let host = plan.host.map(|host| (node.clone(), host));
            effective.nodes.extend(host);
        }
        effective
    }

    /// The class of an address; `None` if nothing isolates it.
    #[must_use]
    pub fn class(&self, address: IpAddr, direction: Direction) -> Option<&Arc<Class>> {
        self.pods.get(&address)?.class(direction)
    }

    /// All classes with the pods in them.
    #[must_use]
    pub fn classes(&self) -> BTreeMap<&str, (&Class, BTreeSet<&Origin>)> {
        let mut classes: BTreeMap<&str, (&Class, BTreeSet<&Origin>)> = BTreeMap::new();
        for isolated in self.pods.values() {
            for class in Direction::ALL.iter().filter_map(|way| isolated.class(*way)) {
                let entry = classes.entry(&class.name);
                let (_, pods) = entry.or_insert_with(|| (class, BTreeSet::new()));
                pods.insert(&isolated.pod);
            }
        }
        classes
    }

    /// What may pass from one address to another, of all protocols and ports.
    #[must_use]
    pub fn between(&self, from: IpAddr, to: IpAddr) -> Vec<Span> {
        let egress = self
            .class(from, Direction::Egress)
            .map(|class| (&**class, to));
        let ingress = self
            .class(to, Direction::Ingress)
            .map(|class| (&**class, from));
        spans(egress, ingress)
    }
}

/// What a class says of a peer, of all protocols and ports.
#[must_use]
pub fn towards(class: &Class, peer: IpAddr) -> Vec<Span> {
    match class.direction {
        Direction::Egress => spans(Some((class, peer)), None),
        Direction::Ingress => spans(None, Some((class, peer))),
    }
}

/// The ports of a peer at which one of two classes of a direction lets pass what the other does not, and what the second
/// says of them.
pub(super) fn differing(
    before: Option<&Class>,
    after: Option<&Class>,
    peer: IpAddr,
) -> Vec<(Ports, Option<Ruling>)> {
    let end = |class: Option<_>| class.map(|class| (class, peer));
    // The first stands where a sender's would.
    let spans = spans(end(before), end(after)).into_iter();
    let passes = |ruling: &Option<Ruling>| ruling.as_ref().is_none_or(|ruling| ruling.accepted);
    spans
        .filter(|span| passes(&span.egress) != passes(&span.ingress))
        .map(|span| (span.ports, span.ingress))
        .collect()
}

/// The ranges of addresses that rules of classes name, each with an address that stands for what no smaller one names.
#[must_use]
pub fn blocks(classes: &[&Class]) -> Vec<(IpNet, IpAddr)> {
    let nets: BTreeSet<IpNet> = all_matches(classes).flat_map(nets).copied().collect();
    let stands = |net: IpNet| stands_for(classes, net, &nets).map(|address| (net, address));
    nets.iter().filter_map(|net| stands(*net)).collect()
}

/// An address that no rule names in particular.
#[must_use]
pub fn elsewhere(classes: &[&Class], family: Family) -> Option<IpAddr> {
    let nets: BTreeSet<IpNet> = all_matches(classes).flat_map(nets).copied().collect();
    let everywhere = IpNet::new_assert(family.unspecified(), 0);
    (!nets.contains(&everywhere)).then(|| stands_for(classes, everywhere, &nets))?
}

fn stands_for(classes: &[&Class], net: IpNet, nets: &BTreeSet<IpNet>) -> Option<IpAddr> {
    let smaller = nets
        .iter()
        .filter(|other| **other != net && net.contains(*other));
    let smaller: Vec<IpNet> = smaller.copied().collect();
    let named = |address: &IpAddr| {
        let mut all = all_matches(classes);
        all.any(|one| one.names(*address))
    };
    let left = without(net, &smaller).into_iter();
    left.flat_map(|part| [part.addr(), part.broadcast()])
        .find(|address| !named(address))
}

fn all_matches<'a>(classes: &'a [&Class]) -> impl Iterator<Item = &'a Matches> {
    classes.iter().flat_map(|class| matches(class))
}

fn matches(class: &Class) -> impl Iterator<Item = &Matches> {
    let steps = class.tiers.iter().flat_map(|tier| &tier.steps);
    steps.map(|step| &step.matches)
}

fn nets(matches: &Matches) -> impl Iterator<Item = &IpNet> {
    matches.blocks.keys().chain(matches.block_ports.keys())
}

/// A class and the peer that it is asked about.
type End<'a> = Option<(&'a Class, IpAddr)>;

fn spans(egress: End<'_>, ingress: End<'_>) -> Vec<Span> {
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp, Protocol::Icmp];
    let spans = protocols.map(|protocol| of_protocol(egress, ingress, protocol));
    let first = spans[0].first().cloned();
    let alike = |span: &Span, first: &Span| {
        (&span.egress, &span.ingress) == (&first.egress, &first.ingress)
    };
    match first {
        Some(first)
            if spans
                .iter()
                .all(|one| one.len() == 1 && alike(&one[0], &first)) =>
        {
            vec![Span {
                ports: Ports::Everything,
                ..first
            }]
        }
        _ => spans.into_iter().flatten().collect(),
    }
}

fn of_protocol(egress: End<'_>, ingress: End<'_>, protocol: Protocol) -> Vec<Span> {
    let mut points = BTreeSet::from([0]);
    if protocol.has_ports() {
        for (class, peer) in [egress, ingress].into_iter().flatten() {
            points.extend(matches(class).flat_map(|one| edges(one, peer, protocol)));
        }
    }
    let ends = points.iter().skip(1).map(|next| next - 1).chain([u16::MAX]);
    let mut spans: Vec<Span> = Vec::new();
    for (first, last) in points.iter().copied().zip(ends) {
        let rules = [egress, ingress].map(|end| {
            let (class, peer) = end?;
            let packet = Packet {
                source: peer,
                destination: peer,
                protocol,
                source_port: 0,
                destination_port: first,
            };
            Some(Ruling::of(&class.decide(peer, &packet)))
        });
        let [egress, ingress] = rules;
        let ports = Ports::Range(PortRange {
            protocol,
            first,
            last,
        });
        match spans.last_mut() {
            Some(Span {
                ports: Ports::Range(before),
                egress: out,
                ingress: into,
            }) if (&*out, &*into) == (&egress, &ingress) => {
                before.last = last;
            }
            _ => spans.push(Span {
                ports,
                egress,
                ingress,
            }),
        }
    }
    spans
}

/// The ports at which something else may be said of a peer.
fn edges(matches: &Matches, peer: IpAddr, protocol: Protocol) -> Vec<u16> {
    let around = matches
        .block_ports
        .iter()
        .filter(|(net, _)| net.contains(&peer));
    let all = [Some(&matches.ports), matches.host_ports.get(&peer)]
        .into_iter()
        .flatten();
    let all = all
        .chain(around.map(|(_, ports)| ports))
        .chain(matches.grouped(peer).map(|grouped| &grouped.ports))
        .flat_map(super::matches::Ports::iter);
    let ranges = all
        .map(|(range, _)| range)
        .filter(|range| range.protocol == protocol);
    ranges
        .flat_map(|range| [Some(range.first), range.last.checked_add(1)])
        .flatten()
        .collect()
}
