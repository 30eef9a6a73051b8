//! [`Selecting`]: the policies that are for a pod.

use std::borrow::Cow;
use std::collections::BTreeMap;

use parfait_cluster::{
    ClusterNetworkPolicy, Direction, Namespace, NetworkPolicy, ObjectName, Pod, PolicyRule,
    PolicyTier, Service, Snapshot,
};
use parfait_packet::Protocol;

use super::classes::Key;

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

/// The labels of the pods that would answer for a Service, if nodes' agents did not.
pub(super) fn stands_for(service: &Service) -> &BTreeMap<String, String> {
    match service.selector.is_empty() {
        true => &service.labels,
        false => &service.selector,
    }
}
