//! Policies into a [`Class`]: [`Compiler`], which makes one for each set of policies that select some pod.
//!
//! ```text
//!   ClusterNetworkPolicies of a tier, by priority and name ─▶ rules in order ─▶ those with the same action, one
//!   NetworkPolicies ─▶ their rules, which all accept ─▶ one step                 behind the other: one step
//! ```
//!
//! So a packet costs as many look-ups as actions alternate, however many policies and rules there are.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use parfait_cluster::{
    ClusterNetworkPolicy, Direction, NetworkPolicy, Note, ObjectName, Peer, Pod, PolicyAction,
    PolicyRule, PortMatch, Snapshot,
};
use parfait_linux::attachment::fnv1a;
use parfait_packet::{Origin, Protocol};

use super::class::{Class, Level, Step, Tier};
use super::matches::{Collected, Matches, PortRange};
use super::select::{Member, Members, Selecting, named};

/// Which names of ports mean which numbers at a pod.
type Names = BTreeMap<(Protocol, String), BTreeSet<u16>>;

/// What makes a class one: the direction, the policies, and what the names that they use mean.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key<'a> {
    direction: Direction,
    admin: Vec<&'a str>,
    policies: Vec<&'a ObjectName>,
    baseline: Vec<&'a str>,
    names: Names,
}

/// Makes classes, each once.
pub(super) struct Compiler<'a> {
    members: Members<'a>,
    classes: BTreeMap<Key<'a>, Arc<Class>>,
    /// The classes' names.
    taken: BTreeSet<String>,
    /// What could not be compiled as it stands.
    pub(super) notes: BTreeSet<Note>,
}

impl<'a> Compiler<'a> {
    pub(super) fn new(snapshot: &'a Snapshot) -> Self {
        Self {
            members: Members::of(snapshot),
            classes: BTreeMap::new(),
            taken: BTreeSet::new(),
            notes: BTreeSet::new(),
        }
    }

    /// The class of a pod that these policies select, if any do.
    pub(super) fn class(&mut self, pod: &Pod, selecting: &Selecting<'a>) -> Option<Arc<Class>> {
        if selecting.is_empty() {
            return None;
        }
        let direction = selecting.direction;
        let names = match direction {
            Direction::Ingress => names(pod, selecting.rules()),
            Direction::Egress => Names::new(),
        };
        let cluster = |policies: &[&'a ClusterNetworkPolicy]| {
            let names = policies.iter().map(|policy| policy.name.as_str());
            names.collect()
        };
        let key = Key {
            direction,
            admin: cluster(&selecting.admin),
            policies: selecting.policies.iter().map(|p| &p.name).collect(),
            baseline: cluster(&selecting.baseline),
            names,
        };
        if let Some(class) = self.classes.get(&key) {
            return Some(Arc::clone(class));
        }
        let name = self.name(&key);
        let admin = self.ranked(Level::Admin, &selecting.admin, &key, &name);
        let policies = self.additive(&selecting.policies, &key, &name);
        let baseline = self.ranked(Level::Baseline, &selecting.baseline, &key, &name);
        let class = Arc::new(Class {
            name,
            direction,
            tiers: [admin, policies, baseline].into_iter().flatten().collect(),
        });
        self.classes.insert(key, Arc::clone(&class));
        Some(class)
    }

    /// A name for a class that no other has. Policies of one namespace cannot make it that of another's.
    fn name(&mut self, key: &Key<'_>) -> String {
        let hash = fnv1a(&[format!("{key:?}").as_bytes()]) >> 16;
        let direction = key.direction.name();
        let name = match key.policies.first() {
            Some(first) => format!("{direction}-{}-{hash:012x}", first.namespace),
            None => format!("{direction}-{hash:012x}"),
        };
        let more = (2..).map(|number| format!("{name}-{number}"));
        let mut all = [name.clone()].into_iter().chain(more);
        let free = all.find(|name| !self.taken.contains(name)).unwrap_or(name);
        self.taken.insert(free.clone());
        free
    }

    /// NetworkPolicies: what any rule of any of them matches is accepted.
    fn additive(
        &mut self,
        policies: &[&'a NetworkPolicy],
        key: &Key<'_>,
        name: &str,
    ) -> Option<Tier> {
        policies.first()?;
        let mut collected = Collected::default();
        for policy in policies {
            let rules = policy.rules(key.direction).unwrap_or_default();
            for (index, rule) in rules.iter().enumerate() {
                let by = policy.rule_origin(key.direction, index);
                self.add(&mut collected, &policy.name.namespace, rule, key, &by);
            }
        }
        let chain = Level::NetworkPolicy.chain(name);
        Some(Tier {
            level: Level::NetworkPolicy,
            policies: policies.iter().map(|policy| policy.origin()).collect(),
            steps: vec![Step {
                name: chain.clone(),
                action: PolicyAction::Accept,
                matches: collected.finish(),
            }],
            chain,
        })
    }

    /// ClusterNetworkPolicies of one tier: the first rule that matches decides.
    fn ranked(
        &mut self,
        level: Level,
        policies: &[&'a ClusterNetworkPolicy],
        key: &Key<'_>,
        name: &str,
    ) -> Option<Tier> {
        policies.first()?;
        self.ambiguous(policies, key.direction);
        let mut steps: Vec<(PolicyAction, Collected)> = Vec::new();
        for policy in policies {
            for (index, rule) in policy.rules(key.direction).iter().enumerate() {
                if steps
                    .last()
                    .is_none_or(|(action, _)| *action != rule.action)
                {
                    steps.push((rule.action, Collected::default()));
                }
                let by = policy.rule_origin(key.direction, index);
                if let Some((_, collected)) = steps.last_mut() {
                    self.add(collected, "", &rule.matches, key, &by);
                }
            }
        }
        let chain = level.chain(name);
        let steps = steps.into_iter().enumerate();
        let steps = steps.map(|(index, (action, collected))| Step {
            name: format!("{chain}-{index}"),
            action,
            matches: collected.finish(),
        });
        Some(Tier {
            level,
            policies: policies.iter().map(|policy| policy.origin()).collect(),
            steps: steps
                .filter(|step| step.matches != Matches::default())
                .collect(),
            chain,
        })
    }

    /// Of two with one priority the API leaves open which is asked first. Here it is the first by name; where their actions
    /// differ, somebody should know.
    fn ambiguous(&mut self, policies: &[&ClusterNetworkPolicy], direction: Direction) {
        for pair in policies.windows(2) {
            let [first, second] = pair else { continue };
            let both = [first, second].into_iter();
            let actions: BTreeSet<_> = both
                .flat_map(|policy| policy.rules(direction))
                .map(|rule| rule.action)
                .collect();
            if first.priority == second.priority && actions.len() > 1 {
                let message = format!(
                    "{} is also the priority of {}, and both are for the same pods; {}, the first by name, is asked first",
                    second.priority,
                    first.origin(),
                    first.name
                );
                let at = second.origin().field("spec.priority");
                self.notes.insert(Note::new(at, message));
            }
        }
    }

    fn add(
        &mut self,
        to: &mut Collected,
        namespace: &'a str,
        rule: &'a PolicyRule,
        key: &Key<'_>,
        by: &Origin,
    ) {
        let direction = key.direction;
        // What goes in is for the pod itself, so names mean one thing; what goes out, at each peer another.
        let at_pod = (direction == Direction::Ingress).then_some(&key.names);
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
                    let meant = self.members.meant(namespace, peer);
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
                Peer::Nodes(selector) => {
                    for address in self.members.nodes(selector) {
                        to.host(address, fixed.as_deref(), by);
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

/// What the names that rules use for what comes in mean at a pod.
fn names<'a>(pod: &Pod, rules: impl Iterator<Item = &'a PolicyRule>) -> Names {
    let used = rules.flat_map(named_ports);
    used.map(|(protocol, name)| {
        let numbers = named(pod, protocol, name).collect();
        ((protocol, name.to_owned()), numbers)
    })
    .collect()
}
