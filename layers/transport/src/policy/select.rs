//! Whom policies mean: [`Selecting`], the policies that are for a pod, and [`Members`], who is meant by a peer.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;

use parfait_cluster::{
    ClusterNetworkPolicy, Direction, LabelSelector, Namespace, NetworkPolicy, Node, ObjectName,
    Peer, Pod, PolicyRule, PolicyTier, Service, Snapshot, TargetPort,
};
use parfait_packet::Protocol;

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

/// What a peer can mean: a pod with a network of its own, or a Service that nodes' agents answer for.
pub(super) struct Member<'a> {
    pub(super) labels: &'a BTreeMap<String, String>,
    pub(super) addresses: &'a [IpAddr],
    ports: Ports<'a>,
}

enum Ports<'a> {
    Pod(&'a Pod),
    Service(&'a Service),
}

impl Member<'_> {
    /// The ports that it calls so.
    pub(super) fn named(&self, protocol: Protocol, name: &str) -> Vec<u16> {
        let mut numbers: Vec<u16> = match self.ports {
            Ports::Pod(pod) => named(pod, protocol, name).collect(),
            Ports::Service(service) => {
                let ports = service.ports.iter().filter(|port| {
                    let target = TargetPort::Name(name.to_owned());
                    port.name.as_deref() == Some(name) || port.target == target
                });
                let ports = ports.filter(|port| port.protocol == protocol);
                ports.map(|port| port.port).collect()
            }
        };
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }
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

/// Whose rule a peer stands in (if that matters) and the peer.
type Asked<'a> = (Option<&'a str>, &'a Peer);

/// All that peers can mean, by namespace; what was asked once is remembered.
pub(super) struct Members<'a> {
    snapshot: &'a Snapshot,
    by_namespace: BTreeMap<&'a str, Vec<Rc<Member<'a>>>>,
    asked: RefCell<BTreeMap<Asked<'a>, Rc<[Rc<Member<'a>>]>>>,
}

impl<'a> Members<'a> {
    pub(super) fn of(snapshot: &'a Snapshot) -> Self {
        let mut by_namespace: BTreeMap<&str, Vec<Rc<Member<'_>>>> = BTreeMap::new();
        let pods = snapshot.pods.values();
        for pod in pods.filter(|pod| !pod.host_network && pod.has_network()) {
            let member = Member {
                labels: &pod.labels,
                addresses: &pod.addresses,
                ports: Ports::Pod(pod),
            };
            let there = by_namespace.entry(&pod.name.namespace).or_default();
            there.push(Rc::new(member));
        }
        let services = snapshot.services.values();
        for service in services.filter(|service| service.served_by_node) {
            let member = Member {
                labels: stands_for(service),
                addresses: &service.cluster_ips,
                ports: Ports::Service(service),
            };
            let there = by_namespace.entry(&service.name.namespace).or_default();
            there.push(Rc::new(member));
        }
        Self {
            snapshot,
            by_namespace,
            asked: RefCell::default(),
        }
    }

    /// Everybody.
    pub(super) fn all(&self) -> impl Iterator<Item = &Rc<Member<'a>>> {
        self.by_namespace.values().flatten()
    }

    /// Those whom a peer means in a rule of a policy of this namespace. An `ipBlock` means none of them.
    pub(super) fn meant(&self, namespace: &'a str, peer: &'a Peer) -> Rc<[Rc<Member<'a>>]> {
        let Peer::Pods { namespaces, pods } = peer else {
            return Rc::default();
        };
        let whose = namespaces.is_none().then_some(namespace);
        let found = self.asked.borrow().get(&(whose, peer)).cloned();
        if let Some(found) = found {
            return found;
        }
        let there: Box<dyn Iterator<Item = &str>> = match namespaces {
            None => Box::new(std::iter::once(namespace)),
            Some(selector) => Box::new(self.namespaces(selector)),
        };
        let there = there.filter_map(|namespace| self.by_namespace.get(namespace));
        let meant = there.flatten().filter(|member| pods.matches(member.labels));
        let meant: Rc<[_]> = meant.cloned().collect();
        let mut asked = self.asked.borrow_mut();
        asked.insert((whose, peer), Rc::clone(&meant));
        meant
    }

    /// The addresses of the nodes that a selector means: those in `status.addresses`, and those that Parfait knows them by.
    pub(super) fn nodes(&self, selector: &LabelSelector) -> BTreeSet<IpAddr> {
        let nodes = self.snapshot.nodes.values();
        let meant = nodes.filter(|node| selector.matches(&node.labels));
        meant.flat_map(Node::every_address).collect()
    }

    fn namespaces<'s>(
        &'s self,
        selector: &'s LabelSelector,
    ) -> impl Iterator<Item = &'a str> + use<'a, 's> {
        let all = self.snapshot.namespaces.values();
        let meant = all.filter(|namespace| selector.matches(&namespace.labels));
        meant.map(|namespace| namespace.name.as_str())
    }
}

/// The labels of the pods that would answer for a Service, if nodes' agents did not.
pub(super) fn stands_for(service: &Service) -> &BTreeMap<String, String> {
    match service.selector.is_empty() {
        true => &service.labels,
        false => &service.selector,
    }
}
