//! One pod, both directions: what isolates it, who may reach it, what it may reach. [`overview()`] has the policies of
//! the other ends in it as well.
//!
//! ```text
//!   ingress   isolated by NetworkPolicy shop/web
//!     Pod shop/client   8080/tcp     may       by NetworkPolicy shop/web spec.ingress[0]
//!     Pod shop/quiet    8080/tcp     may not   by NetworkPolicy shop/quiet, the other end's
//! ```
//!
//! Whom the pod's own policies deny because no rule of theirs allows them is not listed: that is everybody else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use parfait_cluster::{Direction, Pod, Snapshot};
use parfait_packet::{Family, Origin};

use super::class::Class;
use super::effective::{Effective, Ports, Span, blocks, elsewhere, towards};

/// One direction of a pod, or of all pods of a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    /// The direction.
    pub direction: Direction,
    /// The policies that isolate it, or are asked before; none: it is not isolated.
    pub policies: Vec<Origin>,
    /// What is allowed, and what is denied by name.
    pub lines: Vec<Line>,
}

/// What becomes of some ports of some peers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    /// Who is at the other end.
    pub who: Vec<Who>,
    /// The ports.
    pub ports: Vec<Ports>,
    /// Whether they pass.
    pub passes: bool,
    /// The rule or policies because of which; none: nothing isolates.
    pub by: Vec<Origin>,
    /// Whether these are the other end's.
    pub other_end: bool,
}

/// Somebody at the other end.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// A pod; with a family, if it has addresses of both that are treated differently.
    Pod(Origin, Option<Family>),
    /// Cluster DNS, which the nodes answer.
    Service(Origin),
    /// A range of addresses that a rule names.
    Block(IpNet),
    /// Any other address of a family.
    Elsewhere(Family),
}

/// What policies make of a pod.
#[must_use]
pub fn overview(snapshot: &Snapshot, effective: &Effective, pod: &Pod) -> [Overview; 2] {
    Direction::ALL.map(|direction| {
        let mut groups = Groups::new();
        let others = snapshot.pods.values();
        let others = others.filter(|other| !other.host_network && other.has_network());
        for other in others.filter(|other| other.name != pod.name) {
            groups.pod(effective, direction, pod, other);
        }
        let mut classes = pod.addresses.iter();
        let class = classes.find_map(|address| effective.class(*address, direction));
        groups.addresses(snapshot, class.map(|class| &**class), direction);
        Overview {
            direction,
            policies: class.map(|class| policies(class)).unwrap_or_default(),
            lines: groups.lines(direction),
        }
    })
}

/// What a class makes of its pods, whatever the policies of the other ends.
#[must_use]
pub fn of_class(snapshot: &Snapshot, class: &Class) -> Overview {
    let mut groups = Groups::new();
    let pods = snapshot.pods.values();
    for pod in pods.filter(|pod| !pod.host_network && pod.has_network()) {
        let spans = pod
            .addresses
            .iter()
            .map(|address| (Family::of(*address), towards(class, *address)));
        groups.add_pod(pod, spans.collect());
    }
    groups.addresses(snapshot, Some(class), class.direction);
    Overview {
        direction: class.direction,
        policies: policies(class),
        lines: groups.lines(class.direction),
    }
}

fn policies(class: &Class) -> Vec<Origin> {
    let all = class.tiers.iter().flat_map(|tier| &tier.policies);
    all.cloned().collect()
}

/// Peers of whom the same is said.
pub(super) struct Groups<S>(pub(super) BTreeMap<Vec<S>, BTreeSet<Who>>);

impl<S: Ord> Groups<S> {
    pub(super) const fn new() -> Self {
        Self(BTreeMap::new())
    }

    pub(super) fn add(&mut self, who: Who, said: Vec<S>) {
        self.0.entry(said).or_default().insert(who);
    }

    /// A pod, and what is said of its address of each family.
    pub(super) fn add_pod(&mut self, pod: &Pod, said: Vec<(Family, Vec<S>)>) {
        let alike = said.windows(2).all(|two| two[0].1 == two[1].1);
        for (family, said) in said {
            let family = (!alike).then_some(family);
            self.add(Who::Pod(pod.origin(), family), said);
        }
    }
}

impl Groups<Span> {
    fn pod(&mut self, effective: &Effective, direction: Direction, pod: &Pod, other: &Pod) {
        let pairs = pod.addresses.iter().filter_map(|own| {
            let family = Family::of(*own);
            let peer = other.address(family)?;
            let (from, to) = ends(direction, *own, peer);
            Some((family, effective.between(from, to)))
        });
        self.add_pod(other, pairs.collect());
    }

    /// Peers that are no pods.
    fn addresses(&mut self, snapshot: &Snapshot, class: Option<&Class>, direction: Direction) {
        let Some(class) = class else { return };
        if direction == Direction::Egress {
            let services = snapshot.services.values();
            for service in services.filter(|service| service.served_by_node) {
                for address in &service.cluster_ips {
                    self.add(Who::Service(service.origin()), towards(class, *address));
                }
            }
        }
        for (net, address) in blocks(&[class]) {
            self.add(Who::Block(net), towards(class, address));
        }
        for family in Family::ALL {
            if let Some(address) = elsewhere(&[class], family) {
                self.add(Who::Elsewhere(family), towards(class, address));
            }
        }
    }

    fn lines(self, direction: Direction) -> Vec<Line> {
        let mut lines = Vec::new();
        for (spans, who) in self.0 {
            let mut outcomes: BTreeMap<_, Vec<Ports>> = BTreeMap::new();
            for span in &spans {
                if let Some(outcome) = outcome(span, direction) {
                    outcomes.entry(outcome).or_default().push(span.ports);
                }
            }
            for ((denied, other_end, by), ports) in outcomes {
                lines.push(Line {
                    who: who.iter().cloned().collect(),
                    ports,
                    passes: !denied,
                    by,
                    other_end,
                });
            }
        }
        lines.sort();
        lines
    }
}

const fn ends(direction: Direction, own: IpAddr, peer: IpAddr) -> (IpAddr, IpAddr) {
    match direction {
        Direction::Ingress => (peer, own),
        Direction::Egress => (own, peer),
    }
}

/// Whether it is denied, whether by the other end, and by what; `None` if it is among everybody else.
fn outcome(span: &Span, direction: Direction) -> Option<(bool, bool, Vec<Origin>)> {
    let other = match direction {
        Direction::Ingress => Direction::Egress,
        Direction::Egress => Direction::Ingress,
    };
    let (own, other) = (span.ruling(direction), span.ruling(other));
    if let Some(own) = own.filter(|own| !own.accepted) {
        return own
            .rule
            .as_ref()
            .map(|rule| (true, false, vec![rule.clone()]));
    }
    if let Some(other) = other.filter(|other| !other.accepted) {
        return Some((true, true, other.by().to_vec()));
    }
    match (own, other) {
        // Nobody isolates: so may everybody.
        (None, None) => None,
        (None, Some(other)) => Some((false, true, other.by().to_vec())),
        (Some(own), _) => Some((false, false, own.by().to_vec())),
    }
}
