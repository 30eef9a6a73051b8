//! The pods of one node that policies isolate, in classes: all pods that the same policies select share one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use parfait_cluster::{
    Direction, NetworkPolicy, Note, ObjectName, Peer, Pod, PolicyRule, PortMatch, Snapshot,
};
use parfait_linux::attachment::fnv1a;
use parfait_packet::{Origin, Protocol};

use super::class::{Action, Class, Level, Step, Tier};
use super::matches::{Collected, PortRange};
use super::select::{Member, Members, named};

/// What policies want of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The pods here that are isolated, by address.
    pub pods: BTreeMap<IpAddr, Isolated>,
    /// The addresses at which this node's agent answers itself.
    pub served: BTreeMap<IpAddr, Origin>,
    /// What could not be planned.
    pub notes: Vec<Note>,
}

/// A pod that is isolated in at least one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Isolated {
    /// The pod.
    pub pod: Origin,
    /// What may come in; `None` is everything.
    pub ingress: Option<Arc<Class>>,
    /// What may go out; `None` is everything.
    pub egress: Option<Arc<Class>>,
}

impl Isolated {
    /// The class of a direction.
    #[must_use]
    pub fn class(&self, direction: Direction) -> Option<&Arc<Class>> {
        match direction {
            Direction::Ingress => self.ingress.as_ref(),
            Direction::Egress => self.egress.as_ref(),
        }
    }
}

impl Plan {
    /// All classes, by the names of their chains.
    #[must_use]
    pub fn classes(&self) -> BTreeMap<&str, &Arc<Class>> {
        let classes = self.pods.values().flat_map(|pod| {
            let both = [&pod.ingress, &pod.egress];
            both.into_iter().flatten()
        });
        classes.map(|class| (class.name.as_str(), class)).collect()
    }
}

/// Plans one node.
#[must_use]
pub fn plan(snapshot: &Snapshot, node: &str) -> Plan {
    let mut plan = Plan::default();
    if snapshot.policies.is_empty() {
        return plan;
    }
    let mut planner = Planner {
        members: Members::of(snapshot),
        keys: BTreeMap::new(),
        names: BTreeSet::new(),
        notes: BTreeSet::new(),
    };
    let extra = extra_addresses(snapshot, node);
    for pod in snapshot.pods_on(node).filter(|pod| !pod.host_network) {
        let [ingress, egress] = Direction::ALL.map(|direction| {
            let policies = isolating(snapshot, pod, direction);
            planner.class(pod, direction, policies)
        });
        if ingress.is_none() && egress.is_none() {
            continue;
        }
        let more = extra.get(&pod.name).into_iter().flatten();
        for address in pod.addresses.iter().chain(more) {
            let isolated = Isolated {
                pod: pod.origin(),
                ingress: ingress.clone(),
                egress: egress.clone(),
            };
            plan.pods.insert(*address, isolated);
        }
    }
    plan.served = served(snapshot);
    plan.notes = planner.notes.into_iter().collect();
    plan
}

/// The policies that isolate a pod in a direction.
pub(super) fn isolating<'a>(
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

/// Addresses of pods' further interfaces, which only the node knows.
fn extra_addresses(snapshot: &Snapshot, node: &str) -> BTreeMap<ObjectName, BTreeSet<IpAddr>> {
    let mut extra: BTreeMap<ObjectName, BTreeSet<IpAddr>> = BTreeMap::new();
    for attachment in snapshot.attachments_on(node) {
        if let Some((pod, _)) = &attachment.pod {
            let addresses = extra.entry(pod.clone()).or_default();
            addresses.extend(&attachment.addresses);
        }
    }
    extra
}

fn served(snapshot: &Snapshot) -> BTreeMap<IpAddr, Origin> {
    let services = snapshot.services.values();
    let served = services.filter(|service| service.served_by_node);
    let addresses = served.flat_map(|service| {
        let origin = service.origin().field("spec.clusterIPs");
        let addresses = service.cluster_ips.iter();
        addresses.map(move |address| (*address, origin.clone()))
    });
    addresses.collect()
}

/// Which names of ports mean which numbers at a pod.
type Names = BTreeMap<(Protocol, String), BTreeSet<u16>>;

/// What makes a class one: the direction, the policies, and what the names that they use mean.
type ClassKey = (Direction, Vec<ObjectName>, Names);

struct Planner<'a> {
    members: Members<'a>,
    keys: BTreeMap<ClassKey, Arc<Class>>,
    names: BTreeSet<String>,
    notes: BTreeSet<Note>,
}

impl<'a> Planner<'a> {
    fn class(
        &mut self,
        pod: &Pod,
        direction: Direction,
        policies: Vec<&'a NetworkPolicy>,
    ) -> Option<Arc<Class>> {
        let first = policies.first()?;
        let names = match direction {
            Direction::Ingress => names(pod, &policies),
            Direction::Egress => Names::new(),
        };
        let of = policies.iter().map(|policy| policy.name.clone()).collect();
        let key = (direction, of, names);
        if let Some(class) = self.keys.get(&key) {
            return Some(Arc::clone(class));
        }
        let mut collected = Collected::default();
        for policy in &policies {
            let rules = policy.rules(direction).unwrap_or_default();
            for (index, rule) in rules.iter().enumerate() {
                let by = policy.rule_origin(direction, index);
                self.add(&mut collected, policy, rule, &key, &by);
            }
        }
        let name = self.name(&key, &first.name.namespace);
        let tier = Tier {
            level: Level::NetworkPolicy,
            chain: name.clone(),
            policies: policies.iter().map(|policy| policy.origin()).collect(),
            steps: vec![Step {
                name: name.clone(),
                action: Action::Accept,
                matches: collected.finish(),
            }],
        };
        let class = Arc::new(Class {
            name,
            direction,
            tiers: vec![tier],
        });
        self.keys.insert(key, Arc::clone(&class));
        Some(class)
    }

    /// A name for a class that no other has. Policies of one namespace cannot make it that of another's.
    fn name(&mut self, key: &ClassKey, namespace: &str) -> String {
        let (direction, policies, names) = key;
        let text = format!("{policies:?} {names:?}");
        let hash = fnv1a(&[text.as_bytes()]) >> 16;
        let name = format!("{}-{namespace}-{hash:012x}", direction.name());
        let more = (2..).map(|number| format!("{name}-{number}"));
        let mut all = [name.clone()].into_iter().chain(more);
        let free = all.find(|name| !self.names.contains(name)).unwrap_or(name);
        self.names.insert(free.clone());
        free
    }

    fn add(
        &mut self,
        to: &mut Collected,
        policy: &'a NetworkPolicy,
        rule: &'a PolicyRule,
        (direction, _, names): &ClassKey,
        by: &Origin,
    ) {
        // What goes in is for the pod itself, so names mean one thing; what goes out, at each peer another.
        let at_pod = (*direction == Direction::Ingress).then_some(names);
        let fixed = rule.ports.as_deref().map(|ports| fixed(ports, at_pod));
        let named: Vec<_> = match direction {
            Direction::Ingress => Vec::new(),
            Direction::Egress => named_ports(rule).collect(),
        };
        let Some(peers) = &rule.peers else {
            to.everybody(fixed.as_deref(), by);
            if !named.is_empty() {
                let all: Vec<_> = self.members.all().cloned().collect();
                members(to, &all, Some(&[]), &named, by);
            }
            return;
        };
        for peer in peers {
            match peer {
                Peer::Pods { .. } => {
                    let meant = self.members.meant(&policy.name.namespace, peer);
                    members(to, &meant, fixed.as_deref(), &named, by);
                }
                Peer::Block { cidr, except } => {
                    to.block(*cidr, except, fixed.as_deref(), by);
                    if let Some((_, name)) = named.first() {
                        let message = format!(
                            "port {name:?} is a name, which the addresses of an ipBlock do not have; it allows nothing there"
                        );
                        self.notes.insert(Note::new(by.clone(), message));
                    }
                }
            }
        }
    }
}

fn members(
    to: &mut Collected,
    members: &[Rc<Member<'_>>],
    fixed: Option<&[PortRange]>,
    named: &[(Protocol, &str)],
    by: &Origin,
) {
    for member in members {
        let at = named.iter().flat_map(|(protocol, name)| {
            let numbers = member.named(*protocol, name).into_iter();
            numbers.map(|number| one(*protocol, number))
        });
        let ports: Option<Vec<PortRange>> =
            fixed.map(|fixed| fixed.iter().copied().chain(at).collect());
        for address in member.addresses {
            to.host(*address, ports.as_deref(), by);
        }
    }
}

fn one(protocol: Protocol, port: u16) -> PortRange {
    PortRange {
        protocol,
        first: port,
        last: port,
    }
}

/// The ports of a rule that have numbers, those included whose names mean something to the pod.
fn fixed(ports: &[parfait_cluster::PolicyPort], names: Option<&Names>) -> Vec<PortRange> {
    let mut fixed = Vec::new();
    for port in ports {
        let protocol = port.protocol;
        match &port.port {
            PortMatch::Numbers(first, last) => fixed.push(PortRange {
                protocol,
                first: *first,
                last: *last,
            }),
            PortMatch::Name(name) => {
                let numbers = names.and_then(|names| names.get(&(protocol, name.clone())));
                let numbers = numbers.into_iter().flatten();
                fixed.extend(numbers.map(|number| one(protocol, *number)));
            }
        }
    }
    fixed
}

fn named_ports(rule: &PolicyRule) -> impl Iterator<Item = (Protocol, &str)> {
    let ports = rule.ports.iter().flatten();
    ports.filter_map(|port| match &port.port {
        PortMatch::Name(name) => Some((port.protocol, name.as_str())),
        PortMatch::Numbers(..) => None,
    })
}

/// What the names that policies use for what comes in mean at a pod.
fn names(pod: &Pod, policies: &[&NetworkPolicy]) -> Names {
    let rules = policies
        .iter()
        .filter_map(|policy| policy.ingress.as_deref());
    let used = rules.flatten().flat_map(named_ports);
    used.map(|(protocol, name)| {
        let numbers = named(pod, protocol, name).collect();
        ((protocol, name.to_owned()), numbers)
    })
    .collect()
}
