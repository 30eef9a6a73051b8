//! [`Selecting`]: the policies that are for a pod, and what of their rules makes it of one class or another.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use parfait_cluster::{
    ClusterNetworkPolicy, Direction, LabelSelector, Namespace, NetworkPolicy, ObjectName, Peer,
    Pod, PolicyRule, PolicyTier, PortMatch, Service, Snapshot,
};
use parfait_packet::Protocol;

use super::classes::Key;

/// Which names of ports mean which numbers at a pod.
pub(super) type Names = BTreeMap<(Protocol, String), BTreeSet<u16>>;

/// The policies that are for a pod in one direction, each kind in the order in which they are asked.
pub(super) struct Selecting<'a> {
    pub(super) direction: Direction,
    /// ClusterNetworkPolicies of tier Admin.
    pub(super) admin: Vec<&'a ClusterNetworkPolicy>,
    /// NetworkPolicies, which isolate it.
    pub(super) policies: Vec<&'a NetworkPolicy>,
    /// ClusterNetworkPolicies of tier Baseline; none where a NetworkPolicy isolates, which leaves them nothing.
    pub(super) baseline: Vec<&'a ClusterNetworkPolicy>,
}

impl<'a> Selecting<'a> {
    pub(super) fn of(snapshot: &'a Snapshot, pod: &Pod, direction: Direction) -> Self {
        let policies = isolating(snapshot, pod, direction);
        let baseline = match policies.is_empty() {
            true => of_tier(snapshot, pod, direction, PolicyTier::Baseline),
            false => Vec::new(),
        };
        Self {
            direction,
            admin: of_tier(snapshot, pod, direction, PolicyTier::Admin),
            policies,
            baseline,
        }
    }

    /// Those of a class; what is gone is left out.
    pub(super) fn of_class(snapshot: &'a Snapshot, key: &Key) -> Self {
        let cluster = |names: &[String]| {
            let found = names.iter().map(|name| snapshot.cluster_policies.get(name));
            found.flatten().collect()
        };
        let policies = key.policies.iter();
        let policies = policies.filter_map(|name| snapshot.policies.get(name));
        Self {
            direction: key.direction,
            admin: cluster(&key.admin),
            policies: policies.collect(),
            baseline: cluster(&key.baseline),
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.admin.is_empty() && self.policies.is_empty() && self.baseline.is_empty()
    }

    /// All rules.
    pub(super) fn rules(&self) -> impl Iterator<Item = &'a PolicyRule> {
        let direction = self.direction;
        let cluster = self.admin.iter().chain(&self.baseline);
        let cluster = cluster.flat_map(move |policy| policy.rules(direction));
        let cluster = cluster.map(|rule| &rule.matches);
        let policies = self.policies.iter();
        let policies = policies.filter_map(move |policy| policy.rules(direction));
        policies.flatten().chain(cluster)
    }
}

/// The NetworkPolicies that isolate a pod in a direction.
fn isolating<'a>(
    snapshot: &'a Snapshot,
    pod: &Pod,
    direction: Direction,
) -> Vec<&'a NetworkPolicy> {
    // No name of a policy is empty.
    let first = ObjectName {
        namespace: pod.name.namespace.clone(),
        name: String::new(),
    };
    let here = snapshot.policies.range(first..);
    let here = here.take_while(|(name, _)| name.namespace == pod.name.namespace);
    let selects = |policy: &&NetworkPolicy| {
        policy.rules(direction).is_some() && policy.pods.matches(&pod.labels)
    };
    here.map(|(_, policy)| policy).filter(selects).collect()
}

/// The ClusterNetworkPolicies of a tier that say anything about a direction of a pod, by priority and name.
fn of_tier<'a>(
    snapshot: &'a Snapshot,
    pod: &Pod,
    direction: Direction,
    tier: PolicyTier,
) -> Vec<&'a ClusterNetworkPolicy> {
    let known = snapshot.namespaces.get(&pod.name.namespace);
    let labels = match known {
        Some(namespace) => Cow::Borrowed(&namespace.labels),
        // What the API server gives each.
        None => Cow::Owned(Namespace::new(&pod.name.namespace).labels),
    };
    let all = snapshot.cluster_policies.values();
    let of_tier = all.filter(|policy| policy.tier == tier && !policy.rules(direction).is_empty());
    let mut selecting: Vec<_> = of_tier
        .filter(|policy| policy.namespaces.matches(&labels) && policy.pods.matches(&pod.labels))
        .collect();
    selecting.sort_by_key(|policy| policy.priority);
    selecting
}

/// The ports that a pod's containers call so.
pub(super) fn named<'a>(
    pod: &'a Pod,
    protocol: Protocol,
    name: &'a str,
) -> impl Iterator<Item = u16> + 'a {
    let ports = pod
        .ports
        .iter()
        .filter(move |port| port.protocol == protocol);
    let ports = ports.filter(move |port| port.name.as_deref() == Some(name));
    ports.map(|port| port.port)
}

/// The ports of a rule that are names.
pub(super) fn named_ports(rule: &PolicyRule) -> impl Iterator<Item = (Protocol, &str)> {
    let ports = rule.ports.iter().flatten();
    ports.filter_map(|port| match &port.port {
        PortMatch::Name(name) => Some((port.protocol, name.as_str())),
        PortMatch::Numbers(..) => None,
    })
}

/// What the names that rules use for what comes in mean at a pod.
pub(super) fn names<'a>(pod: &Pod, rules: impl Iterator<Item = &'a PolicyRule>) -> Names {
    let used = rules.flat_map(named_ports);
    used.map(|(protocol, name)| {
        let numbers = named(pod, protocol, name).collect();
        ((protocol, name.to_owned()), numbers)
    })
    .collect()
}

/// The namespace whose pods a peer means; empty, if it selects namespaces.
pub(super) const fn whose<'a>(namespace: &'a str, peer: &Peer) -> &'a str {
    match peer {
        Peer::Pods {
            namespaces: Some(_),
            ..
        } => "",
        _ => namespace,
    }
}

/// The pods that the NetworkPolicies of a class name, but for those who are asked for ports by name, which are other
/// numbers at each.
pub(super) fn named_peers<'a>(snapshot: &'a Snapshot, key: &Key) -> BTreeSet<(&'a str, &'a Peer)> {
    let policies = key.policies.iter();
    let policies = policies.filter_map(|name| snapshot.policies.get(name));
    let peers = policies.flat_map(|policy| {
        let rules = policy.rules(key.direction).into_iter().flatten();
        let rules = rules.filter(|rule| {
            key.direction == Direction::Ingress || named_ports(rule).next().is_none()
        });
        let peers = rules.flat_map(|rule| rule.peers.iter().flatten());
        peers.map(|peer| (whose(&policy.name.namespace, peer), peer))
    });
    let pods = peers.filter(|(_, peer)| matches!(peer, Peer::Pods { .. }));
    pods.collect()
}

/// Whom a ClusterNetworkPolicy is for, in which order, and which names of ports of theirs it asks for: all of it that says
/// which class a pod is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    tier: PolicyTier,
    priority: u16,
    namespaces: LabelSelector,
    pods: LabelSelector,
    /// Whether it says anything of a direction.
    says: [bool; 2],
    names: BTreeSet<(Protocol, String)>,
}

impl Subject {
    pub(super) fn of(policy: &ClusterNetworkPolicy) -> Self {
        let rules = policy.ingress.iter();
        let names = rules.flat_map(|rule| named_ports(&rule.matches));
        Self {
            tier: policy.tier,
            priority: policy.priority,
            namespaces: policy.namespaces.clone(),
            pods: policy.pods.clone(),
            says: [!policy.ingress.is_empty(), !policy.egress.is_empty()],
            names: names
                .map(|(protocol, name)| (protocol, name.to_owned()))
                .collect(),
        }
    }
}

/// The labels of the pods that would answer for a Service, if nodes' agents did not.
pub(super) fn stands_for(service: &Service) -> &BTreeMap<String, String> {
    match service.selector.is_empty() {
        true => &service.labels,
        false => &service.selector,
    }
}
