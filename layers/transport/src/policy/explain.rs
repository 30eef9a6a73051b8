//! Which policies have to do with a packet: the tier and the rule that decide, those that passed it on before, and if it is
//! denied, what came nearest to letting it pass.

use std::borrow::Cow;
use std::net::IpAddr;

use parfait_cluster::{
    ClusterRule, Direction, LabelSelector, ObjectName, Peer, Pod, PolicyAction, PolicyPort,
    PolicyRule, PortMatch, Snapshot,
};
use parfait_linux::nft::Hook;
use parfait_packet::{Family, Kind, Origin, Packet};

use super::class::{Class, Decision, Level};
use super::plan::Plan;
use super::select::{named, stands_for};

/// What policies say of a packet in one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The pod, or the node, that policies select.
    pub pod: Origin,
    /// The direction, as that pod sees it.
    pub direction: Direction,
    /// Whether the packet passes.
    pub accepted: bool,
    /// The tier that decides; if none does, the packet passes.
    pub level: Option<Level>,
    /// The rule that decides; `None` if it is the end of a tier.
    pub rule: Option<Origin>,
    /// What that rule is called, if it has a name.
    pub rule_name: Option<String>,
    /// The `ipBlock` of a NetworkPolicy's rule by which that is about a pod, which none of its selectors means.
    pub block: Option<ipnet::IpNet>,
    /// The rules by which tiers before have passed the packet on.
    pub passed: Vec<Origin>,
    /// The NetworkPolicies that isolate the pod in this direction, if they were asked.
    pub isolated_by: Vec<Origin>,
    /// If it does not pass: the rules that would let it with the least change, nearest first.
    pub nearest: Vec<Near>,
}

/// A rule that does not match a packet, and what would have to be otherwise.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Near {
    /// How many things would have to be otherwise.
    pub steps: usize,
    /// The rule.
    pub rule: Origin,
    /// What would have to be: `the port were 8080/tcp`.
    pub hint: String,
}

/// How many of the nearest rules are named.
const NAMED: usize = 3;

/// Explains a packet as a hook sees it on the pod's node. `None` if no policy is asked there.
#[must_use]
pub fn explain(
    plan: &Plan,
    snapshot: &Snapshot,
    packet: &Packet,
    direction: Direction,
    at: Hook,
) -> Option<Explanation> {
    let (own, peer) = match direction {
        Direction::Ingress => (packet.destination, packet.source),
        Direction::Egress => (packet.source, packet.destination),
    };
    let isolated = plan.pods.get(&own)?;
    let class = isolated.class(direction)?;
    let to_node = at == Hook::Input && !plan.served.contains_key(&packet.destination);
    let class = match to_node {
        true => class.towards_node()?,
        false => Cow::Borrowed(class.as_ref()),
    };
    Some(by_class(&class, &isolated.pod, snapshot, packet, peer))
}

/// Explains a packet that reaches the node itself. `None` if no policy is asked.
#[must_use]
pub fn explain_node(plan: &Plan, snapshot: &Snapshot, packet: &Packet) -> Option<Explanation> {
    let host = plan.host.as_ref()?;
    let asked = host.always(packet).is_none() && !plan.served.contains_key(&packet.destination);
    let node = asked.then(|| host.peers.get(&packet.destination))?;
    let node = node.cloned().unwrap_or_else(|| Origin::parfait("node"));
    Some(by_class(
        &host.class,
        &node,
        snapshot,
        packet,
        packet.source,
    ))
}

fn by_class(
    class: &Class,
    whose: &Origin,
    snapshot: &Snapshot,
    packet: &Packet,
    peer: IpAddr,
) -> Explanation {
    let direction = class.direction;
    let decision = class.decide(peer, packet);
    let asked = Asked {
        snapshot,
        packet,
        peer: Who::at(snapshot, peer),
        receiver: snapshot.pod_at(packet.destination),
        direction,
    };
    let mut nearest = match decision.accepted {
        true => Vec::new(),
        false => asked.nearest(class, &decision),
    };
    nearest.sort();
    nearest.truncate(NAMED);
    let level = decision.tier.map(|tier| tier.level);
    let isolated_by = match level {
        Some(Level::NetworkPolicy) => class.policies(Level::NetworkPolicy).to_vec(),
        _ => Vec::new(),
    };
    Explanation {
        pod: whose.clone(),
        direction,
        accepted: decision.accepted,
        level,
        rule: decision.rule.cloned(),
        rule_name: decision.rule.and_then(|rule| called(snapshot, rule)),
        block: decision.rule.and_then(|rule| asked.block(class, rule)),
        passed: decision.passed.into_iter().cloned().collect(),
        isolated_by,
        nearest,
    }
}

/// What a rule of a ClusterNetworkPolicy or NodeNetworkPolicy is called.
fn called(snapshot: &Snapshot, rule: &Origin) -> Option<String> {
    let mut both = Direction::ALL
        .into_iter()
        .flat_map(|direction| ranked(snapshot, rule, direction));
    let (_, found) = both.find(|(origin, _)| origin == rule)?;
    Some(found.name.clone()).filter(|name| !name.is_empty())
}

/// The rules of a policy that are asked in order; none if it is a NetworkPolicy.
fn ranked<'a>(
    snapshot: &'a Snapshot,
    policy: &Origin,
    direction: Direction,
) -> Vec<(Origin, &'a ClusterRule)> {
    match policy.kind {
        Kind::ClusterNetworkPolicy => {
            let policy = snapshot.cluster_policies.get(&policy.name);
            let rules = policy.into_iter().flat_map(|policy| {
                let rules = policy.rules(direction).iter().enumerate();
                rules.map(move |(index, rule)| (policy.rule_origin(direction, index), rule))
            });
            rules.collect()
        }
        Kind::NodeNetworkPolicy if direction == Direction::Ingress => {
            let policy = snapshot.node_policies.get(&policy.name);
            let rules = policy.into_iter().flat_map(|policy| {
                let rules = policy.ingress.iter().enumerate();
                rules.map(move |(index, rule)| (policy.rule_origin(index), rule))
            });
            rules.collect()
        }
        _ => Vec::new(),
    }
}

/// Who is at the other end.
struct Who<'a> {
    address: IpAddr,
    /// Namespace and labels of the pod, or of the Service that the node answers for.
    labelled: Option<(&'a str, &'a std::collections::BTreeMap<String, String>)>,
}

impl<'a> Who<'a> {
    fn at(snapshot: &'a Snapshot, address: IpAddr) -> Self {
        let pod = snapshot.pod_at(address);
        let served = || {
            let service = snapshot.service_at(address)?;
            let namespace = service.name.namespace.as_str();
            service
                .served_by_node
                .then(|| (namespace, stands_for(service)))
        };
        let pod = pod.map(|pod| (pod.name.namespace.as_str(), &pod.labels));
        Self {
            address,
            labelled: pod.or_else(served),
        }
    }
}

/// How many things would have to be otherwise, and which.
type Missing = (usize, Option<String>);

const NOTHING: Missing = (0, None);

struct Asked<'a> {
    snapshot: &'a Snapshot,
    packet: &'a Packet,
    peer: Who<'a>,
    receiver: Option<&'a Pod>,
    direction: Direction,
}

impl Asked<'_> {
    /// The rules that could let the packet pass, had they matched: all that accept and were asked before it was denied, and
    /// in the tier that denies also those that would have passed it on.
    fn nearest(&self, class: &Class, decision: &Decision<'_>) -> Vec<Near> {
        let mut near = Vec::new();
        for tier in &class.tiers {
            let decides = decision
                .tier
                .is_some_and(|decided| decided == tier.as_ref());
            for policy in &tier.policies {
                for (rule, action, namespace, matches) in self.rules(policy) {
                    if decision.rule == Some(&rule) {
                        return near;
                    }
                    let helps = match action {
                        PolicyAction::Accept => true,
                        PolicyAction::Pass => decides,
                        PolicyAction::Deny => false,
                    };
                    let missing = self.rule_missing(namespace, matches).filter(|_| helps);
                    // A rule of a tier before may match: it has passed the packet on.
                    let missing = missing.filter(|(steps, _)| *steps > 0);
                    near.extend(missing.map(|(steps, hint)| Near { steps, rule, hint }));
                }
            }
            if decides {
                break;
            }
        }
        near
    }

    /// The ipBlock by which a NetworkPolicy's rule means a pod.
    fn block(&self, class: &Class, rule: &Origin) -> Option<ipnet::IpNet> {
        self.peer.labelled?;
        let mut rules = class
            .policies(Level::NetworkPolicy)
            .iter()
            .flat_map(|policy| self.rules(policy));
        let (_, _, own, rule) = rules.find(|(origin, ..)| origin == rule)?;
        let peers = || rule.peers.iter().flatten();
        let selected = peers().any(|peer| match peer {
            Peer::Pods { namespaces, pods } => {
                self.pod_missing(own, namespaces.as_ref(), pods) == Some(NOTHING)
            }
            _ => false,
        });
        let mut blocks = peers().filter_map(|peer| match peer {
            Peer::Block { cidr, except } => {
                (self.block_missing(cidr, except) == Some(NOTHING)).then_some(*cidr)
            }
            _ => None,
        });
        blocks.next().filter(|_| !selected)
    }

    /// The rules of a policy, and the namespace that they are of.
    fn rules(
        &self,
        policy: &Origin,
    ) -> impl Iterator<Item = (Origin, PolicyAction, &str, &PolicyRule)> {
        let direction = self.direction;
        let cluster = ranked(self.snapshot, policy, direction).into_iter();
        let cluster = cluster.map(|(origin, rule)| (origin, rule.action, "", &rule.matches));
        let name = ObjectName::new(&policy.namespace, &policy.name);
        let own = self.snapshot.policies.get(&name);
        let own = own.filter(|_| policy.kind == Kind::NetworkPolicy);
        let own = own.into_iter().flat_map(move |policy| {
            let rules = policy.rules(direction).unwrap_or_default().iter();
            rules.enumerate().map(move |(index, rule)| {
                let origin = policy.rule_origin(direction, index);
                let namespace = policy.name.namespace.as_str();
                (origin, PolicyAction::Accept, namespace, rule)
            })
        });
        own.chain(cluster)
    }

    /// What is missing for the peer of a rule that comes nearest; `None` if none can be.
    fn rule_missing(&self, own: &str, rule: &PolicyRule) -> Option<(usize, String)> {
        let everybody = (rule.peers.is_none()).then(|| self.both(Some(NOTHING), rule, true));
        let peers = rule.peers.iter().flatten().map(|peer| match peer {
            // Who receives at an address has names, but an ipBlock does not say who that is.
            Peer::Block { cidr, except } => {
                let named = self.direction == Direction::Ingress;
                self.both(self.block_missing(cidr, except), rule, named)
            }
            Peer::Nodes(_) => None,
            Peer::Pods { namespaces, pods } => {
                self.both(self.pod_missing(own, namespaces.as_ref(), pods), rule, true)
            }
        });
        everybody.into_iter().chain(peers).flatten().min()
    }

    fn both(
        &self,
        peer: Option<Missing>,
        rule: &PolicyRule,
        named: bool,
    ) -> Option<(usize, String)> {
        let ((some, peer), (more, port)) = (peer?, self.port_missing(rule, named)?);
        let hints: Vec<String> = peer.into_iter().chain(port).collect();
        Some((some + more, hints.join(" and ")))
    }

    fn block_missing(&self, cidr: &ipnet::IpNet, except: &[ipnet::IpNet]) -> Option<Missing> {
        if Family::of(cidr.addr()) != Family::of(self.peer.address) {
            return None;
        }
        let hint = if !cidr.contains(&self.peer.address) {
            format!("{} were in {cidr}", self.peer.address)
        } else {
            match except.iter().find(|net| net.contains(&self.peer.address)) {
                None => return Some(NOTHING),
                Some(net) => format!("{} were not in except {net}", self.peer.address),
            }
        };
        // A pod's labels are easier to change than an address.
        Some((2, Some(hint)))
    }

    fn pod_missing(
        &self,
        own: &str,
        namespaces: Option<&LabelSelector>,
        pods: &LabelSelector,
    ) -> Option<Missing> {
        let (namespace, labels) = self.peer.labelled?;
        let mut wanted = Vec::new();
        match namespaces {
            None if namespace != own => {
                wanted.push(format!("the pod were in namespace {own}"));
            }
            None => {}
            Some(selector) => {
                let known = self.snapshot.namespaces.get(namespace);
                let labels = known.map(|namespace| &namespace.labels);
                let missing = selector.missing(labels.unwrap_or(&Default::default()));
                let missing = missing.into_iter();
                wanted.extend(missing.map(|what| format!("namespace {namespace} had {what}")));
            }
        }
        let missing = pods.missing(labels).into_iter();
        wanted.extend(missing.map(|what| format!("the pod had {what}")));
        let hint = (!wanted.is_empty()).then(|| wanted.join(" and "));
        Some((wanted.len(), hint))
    }

    /// `None` if there is no port at all.
    fn port_missing(&self, rule: &PolicyRule, named: bool) -> Option<Missing> {
        let Some(ports) = &rule.ports else {
            return Some(NOTHING);
        };
        let ports = ports.iter();
        let ports = ports.filter(|port| named || matches!(port.port, PortMatch::Numbers(..)));
        let ports: Vec<_> = ports.collect();
        if ports.iter().any(|port| self.is_at(port)) {
            return Some(NOTHING);
        }
        let shown: Vec<String> = ports.iter().map(|port| self.shown(port)).collect();
        let hint = match shown.as_slice() {
            [] => return None,
            [one] => format!("the port were {one}"),
            several => format!("the port were one of {}", several.join(", ")),
        };
        Some((1, Some(hint)))
    }

    fn is_at(&self, port: &PolicyPort) -> bool {
        let to = self.packet.destination_port;
        port.protocol == self.packet.protocol
            && match &port.port {
                PortMatch::Numbers(first, last) => (*first..=*last).contains(&to),
                PortMatch::Name(_) => self.numbers(port).contains(&to),
            }
    }

    fn numbers(&self, port: &PolicyPort) -> Vec<u16> {
        match (&port.port, self.receiver) {
            (PortMatch::Name(name), Some(pod)) => named(pod, port.protocol, name).collect(),
            _ => Vec::new(),
        }
    }

    fn shown(&self, port: &PolicyPort) -> String {
        let protocol = port.protocol;
        match &port.port {
            PortMatch::Numbers(0, u16::MAX) => format!("any of {protocol}"),
            PortMatch::Numbers(first, last) if first == last => format!("{first}/{protocol}"),
            PortMatch::Numbers(first, last) => format!("{first}-{last}/{protocol}"),
            PortMatch::Name(name) => match self.numbers(port).first() {
                Some(number) => format!("{number}/{protocol} ({name})"),
                None => format!("{name}/{protocol}, which the receiver has not"),
            },
        }
    }
}
