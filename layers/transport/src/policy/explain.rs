//! Which policies have to do with a packet: those that isolate the pod, the rule that allows it, and if none does,
//! what came nearest.

use std::net::IpAddr;

use parfait_cluster::{
    Direction, LabelSelector, NetworkPolicy, ObjectName, Peer, Pod, PolicyPort, PolicyRule,
    PortMatch, Snapshot,
};
use parfait_packet::{Family, Origin, Packet};

use super::class::Level;
use super::plan::Plan;
use super::select::{named, stands_for};

/// What policies say of a packet in one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The pod that is isolated.
    pub pod: Origin,
    /// The direction, as that pod sees it.
    pub direction: Direction,
    /// The policies that isolate it in this direction.
    pub isolated_by: Vec<Origin>,
    /// The rule that allows the packet.
    pub allowed_by: Option<Origin>,
    /// If none does: the rules that would with the least change, nearest first.
    pub nearest: Vec<Near>,
}

/// A rule that does not allow a packet, and what would have to be otherwise.
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

/// Explains a packet as forwarding sees it on the pod's node. `None` if the pod there is not isolated.
#[must_use]
pub fn explain(
    plan: &Plan,
    snapshot: &Snapshot,
    packet: &Packet,
    direction: Direction,
) -> Option<Explanation> {
    let (own, peer) = match direction {
        Direction::Ingress => (packet.destination, packet.source),
        Direction::Egress => (packet.source, packet.destination),
    };
    let isolated = plan.pods.get(&own)?;
    let class = isolated.class(direction)?;
    let decision = class.decide(peer, packet);
    let policies = class.policies(Level::NetworkPolicy);
    let mut nearest = Vec::new();
    if !decision.accepted {
        let asked = Asked {
            snapshot,
            packet,
            peer: Who::at(snapshot, peer),
            receiver: snapshot.pod_at(packet.destination),
            direction,
        };
        let policies = policies.iter().filter_map(|origin| {
            let name = ObjectName::new(&origin.namespace, &origin.name);
            snapshot.policies.get(&name)
        });
        nearest = policies.flat_map(|policy| asked.near(policy)).collect();
        nearest.sort();
        nearest.truncate(NAMED);
    }
    Some(Explanation {
        pod: isolated.pod.clone(),
        direction,
        isolated_by: policies.to_vec(),
        allowed_by: decision.rule.filter(|_| decision.accepted).cloned(),
        nearest,
    })
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
    /// The rules of a policy, with what of each is missing.
    fn near(&self, policy: &NetworkPolicy) -> Vec<Near> {
        let rules = policy.rules(self.direction).unwrap_or_default();
        let near = rules.iter().enumerate().filter_map(|(index, rule)| {
            let (steps, hint) = self.rule_missing(policy, rule)?;
            Some(Near {
                steps,
                rule: policy.rule_origin(self.direction, index),
                hint,
            })
        });
        near.collect()
    }

    /// What is missing for the peer of a rule that comes nearest; `None` if none can be.
    fn rule_missing(&self, policy: &NetworkPolicy, rule: &PolicyRule) -> Option<(usize, String)> {
        let everybody = (rule.peers.is_none()).then(|| self.both(Some(NOTHING), rule, true));
        let peers = rule.peers.iter().flatten().map(|peer| match peer {
            // Who receives at an address has names, but an ipBlock does not say who that is.
            Peer::Block { cidr, except } => {
                let named = self.direction == Direction::Ingress;
                self.both(self.block_missing(cidr, except), rule, named)
            }
            Peer::Pods { namespaces, pods } => {
                let own = &policy.name.namespace;
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
