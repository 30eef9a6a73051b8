//! Policies into a [`Class`]: [`Compiler`], which makes one for each set of policies that select some pod.
//!
//! ```text
//!   ClusterNetworkPolicies of a tier, by priority and name ─▶ rules in order ─▶ those with the same action, one
//!   NetworkPolicies ─▶ their rules, which all accept ─▶ one step                 behind the other: one step
//! ```
//!
//! So a packet costs as many look-ups as actions alternate, however many policies and rules there are. Only of denials
//! each rule is a step of its own, so that they are counted by rules, as long as a tier has few ([`FEW`]).

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use parfait_cluster::{
    ClusterNetworkPolicy, ClusterRule, Direction, LabelSelector, NetworkPolicy, Node,
    NodeNetworkPolicy, Note, Peer, PolicyAction, PolicyRule, PortMatch, Snapshot,
};
use parfait_linux::attachment::fnv1a;
use parfait_packet::{Kind, Origin, Protocol};

use super::class::{Class, Level, Step, Tier};
use super::classes::Key;
use super::group::{Group, Groups};
use super::host;
use super::matches::{Collected, Matches, PortRange};
use super::members::{Member, Members};
use super::select::{Names, Selecting, named_ports, whose};

/// Of tiers with no more rules each one that denies is a step of its own. A look-up costs about 25 ns, so that all of them do
/// not cost a connection more than a hundredth of its time.
const FEW: usize = 32;

/// A policy whose rules are asked in order.
struct Ranked<'a> {
    origin: Origin,
    priority: u16,
    rules: Vec<(Origin, &'a ClusterRule)>,
}

impl<'a> Ranked<'a> {
    fn cluster(policy: &'a ClusterNetworkPolicy, direction: Direction) -> Self {
        let rules = policy.rules(direction).iter().enumerate();
        let rules = rules.map(|(index, rule)| (policy.rule_origin(direction, index), rule));
        Self {
            origin: policy.origin(),
            priority: policy.priority,
            rules: rules.collect(),
        }
    }

    fn node(policy: &'a NodeNetworkPolicy) -> Self {
        let rules = policy.ingress.iter().enumerate();
        Self {
            origin: policy.origin(),
            priority: policy.priority,
            rules: rules
                .map(|(index, rule)| (policy.rule_origin(index), rule))
                .collect(),
        }
    }
}

/// Makes classes of one snapshot. What was asked once is remembered.
pub(super) struct Compiler<'a> {
    snapshot: &'a Snapshot,
    members: &'a Members,
    groups: &'a mut Groups,
    asked: BTreeMap<Asked<'a>, Meant<'a>>,
    /// Tiers that classes have in common, by their chains.
    tiers: BTreeMap<String, Arc<Tier>>,
    /// Steps that tiers have in common, by their names, and what could not be compiled of them.
    steps: BTreeMap<String, (Arc<Step>, BTreeSet<Note>)>,
    /// What could not be compiled as it stands, of the tier that is being made.
    notes: BTreeSet<Note>,
}

/// Whose rule a peer stands in (empty, if that does not matter) and the peer.
type Asked<'a> = (&'a str, &'a Peer);

/// Whom a peer means.
#[derive(Clone)]
enum Meant<'a> {
    Few(Rc<[&'a Member]>),
    Many(Arc<Group>),
}

impl<'a> Compiler<'a> {
    pub(super) const fn new(
        snapshot: &'a Snapshot,
        members: &'a Members,
        groups: &'a mut Groups,
    ) -> Self {
        Self {
            snapshot,
            members,
            groups,
            asked: BTreeMap::new(),
            tiers: BTreeMap::new(),
            steps: BTreeMap::new(),
            notes: BTreeSet::new(),
        }
    }

    /// A tier that need not be made again.
    pub(super) fn know(&mut self, tier: &Arc<Tier>) {
        if tier.level.is_shared() && !self.tiers.contains_key(&tier.chain) {
            self.tiers.insert(tier.chain.clone(), Arc::clone(tier));
        }
    }

    /// The class of pods that these policies select; `own` is what NetworkPolicies make of it, if that is known.
    pub(super) fn class(
        &mut self,
        key: &Key,
        selecting: &Selecting<'a>,
        name: String,
        own: Option<Option<Arc<Tier>>>,
    ) -> Class {
        let [admin, baseline] = [&selecting.admin, &selecting.baseline].map(|policies| {
            let policies = policies.iter();
            let ranked = policies.map(|policy| Ranked::cluster(policy, key.direction));
            ranked.collect()
        });
        let admin = self.shared(Level::Admin, admin, key, &name);
        let made = || self.additive(&selecting.policies, key, &name).map(Arc::new);
        let policies = own.unwrap_or_else(made);
        let baseline = self.shared(Level::Baseline, baseline, key, &name);
        Class {
            name,
            direction: key.direction,
            tiers: [admin, policies, baseline].into_iter().flatten().collect(),
        }
    }

    /// NetworkPolicies: what any rule of any of them matches is accepted.
    fn additive(&mut self, policies: &[&'a NetworkPolicy], key: &Key, name: &str) -> Option<Tier> {
        policies.first()?;
        let mut collected = Collected::default();
        for policy in policies {
            let rules = policy.rules(key.direction).unwrap_or_default();
            for (index, rule) in rules.iter().enumerate() {
                let by = policy.rule_origin(key.direction, index);
                self.add(&mut collected, &policy.name.namespace, rule, key, &by);
            }
        }
        Some(Tier {
            level: Level::NetworkPolicy,
            policies: policies.iter().map(|policy| policy.origin()).collect(),
            steps: vec![Arc::new(Step {
                name: name.to_owned(),
                action: PolicyAction::Accept,
                matches: collected.finish(),
            })],
            notes: std::mem::take(&mut self.notes),
            chain: name.to_owned(),
        })
    }

    /// The class of a node itself, if policies select it.
    pub(super) fn node(&mut self, policies: &[&'a NodeNetworkPolicy]) -> Option<Class> {
        let direction = Direction::Ingress;
        let key = Key::nothing(direction);
        let policies = policies.iter().map(|policy| Ranked::node(policy));
        let chain = host::CLASS.to_owned();
        let tier = self.ranked(Level::Node, policies.collect(), &key, chain)?;
        Some(Class {
            name: host::CLASS.to_owned(),
            direction,
            tiers: vec![Arc::new(tier)],
        })
    }

    /// A tier that all classes have in common for which these policies are.
    fn shared(
        &mut self,
        level: Level,
        policies: Vec<Ranked<'a>>,
        key: &Key,
        class: &str,
    ) -> Option<Arc<Tier>> {
        let chain = chain(level, &policies, key, class);
        if let Some(known) = self.tiers.get(&chain) {
            return Some(Arc::clone(known));
        }
        let tier = Arc::new(self.ranked(level, policies, key, chain.clone())?);
        self.tiers.insert(chain, Arc::clone(&tier));
        Some(tier)
    }

    /// Policies of one tier: the first rule that matches decides.
    fn ranked(
        &mut self,
        level: Level,
        policies: Vec<Ranked<'a>>,
        key: &Key,
        chain: String,
    ) -> Option<Tier> {
        policies.first()?;
        self.ambiguous(&policies);
        let few = policies
            .iter()
            .map(|policy| policy.rules.len())
            .sum::<usize>()
            <= FEW;
        let apart = |action| few && action == PolicyAction::Deny;
        let mut runs: Vec<Vec<&(Origin, &'a ClusterRule)>> = Vec::new();
        for rule in policies.iter().flat_map(|policy| &policy.rules) {
            let action = rule.1.action;
            match runs.last_mut() {
                Some(run) if run[0].1.action == action && !apart(action) => run.push(rule),
                _ => runs.push(vec![rule]),
            }
        }
        let steps = runs.into_iter().enumerate().map(|(index, run)| {
            let name = match level.is_shared() {
                true => called(level, &run, key, &chain),
                false => format!("{chain}-{index}"),
            };
            self.step(name, &run, key)
        });
        let steps = steps.filter(|step| step.matches != Matches::default());
        Some(Tier {
            level,
            steps: steps.collect(),
            notes: std::mem::take(&mut self.notes),
            policies: policies
                .iter()
                .map(|policy| policy.origin.clone())
                .collect(),
            chain,
        })
    }

    /// Rules with the same action.
    fn step(&mut self, name: String, run: &[&(Origin, &'a ClusterRule)], key: &Key) -> Arc<Step> {
        if !self.steps.contains_key(&name) {
            let before = std::mem::take(&mut self.notes);
            let mut collected = Collected::default();
            for (by, rule) in run {
                self.add(&mut collected, "", &rule.matches, key, by);
            }
            let step = Arc::new(Step {
                name: name.clone(),
                action: run[0].1.action,
                matches: collected.finish(),
            });
            let notes = std::mem::replace(&mut self.notes, before);
            self.steps.insert(name.clone(), (step, notes));
        }
        let (step, notes) = &self.steps[&name];
        self.notes.extend(notes.iter().cloned());
        Arc::clone(step)
    }

    /// Of two with one priority the API leaves open which is asked first. Here it is the first by name; where their actions
    /// differ, somebody should know.
    fn ambiguous(&mut self, policies: &[Ranked<'_>]) {
        for pair in policies.windows(2) {
            let [first, second] = pair else { continue };
            let both = [first, second].into_iter().flat_map(|policy| &policy.rules);
            let actions: BTreeSet<_> = both.map(|(_, rule)| rule.action).collect();
            if first.priority == second.priority && actions.len() > 1 {
                let Ranked {
                    origin, priority, ..
                } = first;
                let message = format!(
                    "{priority} is also the priority of {origin}, and both are for the same {}; {}, the first by name, is \
                     asked first",
                    match origin.kind {
                        Kind::NodeNetworkPolicy => "nodes",
                        _ => "pods",
                    },
                    origin.name
                );
                let at = second.origin.clone().field("spec.priority");
                self.notes.insert(Note::new(at, message));
            }
        }
    }

    fn add(
        &mut self,
        to: &mut Collected,
        namespace: &'a str,
        rule: &'a PolicyRule,
        key: &Key,
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
                members(to, self.members.all(), Some(&[]), &named, by);
            }
            return;
        };
        for peer in peers {
            match peer {
                Peer::Pods { .. } => match self.meant(namespace, peer) {
                    Meant::Many(group)
                        if named.is_empty() && self.looks_up(to, namespace, &group) =>
                    {
                        to.group(&group, fixed.as_deref(), by);
                    }
                    Meant::Many(_) => {
                        let all = self.members.meant(namespace, peer);
                        members(to, all, fixed.as_deref(), &named, by);
                    }
                    Meant::Few(few) => {
                        members(to, few.iter().copied(), fixed.as_deref(), &named, by);
                    }
                },
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
                    for address in nodes(self.snapshot, selector) {
                        to.host(address, fixed.as_deref(), by);
                    }
                }
            }
        }
    }

    /// Whether a group is looked up: not if the rules of a class's NetworkPolicies name too many.
    fn looks_up(&self, to: &Collected, namespace: &str, group: &Group) -> bool {
        let (there, many) = to.groups(group);
        namespace.is_empty() || there || self.groups.has_room_for(group, many)
    }

    fn meant(&mut self, namespace: &'a str, peer: &'a Peer) -> Meant<'a> {
        let asked = (whose(namespace, peer), peer);
        if let Some(known) = self.asked.get(&asked) {
            return known.clone();
        }
        let meant = match self.groups.of(asked.0, peer) {
            Some(group) => Meant::Many(Arc::clone(group)),
            None => {
                let few: Rc<[_]> = self.members.meant(namespace, peer).collect();
                let addresses = few.iter().flat_map(|member| member.addresses.iter());
                match self.groups.make(asked.0, peer, addresses.copied()) {
                    Some(group) => Meant::Many(group),
                    None => Meant::Few(few),
                }
            }
        };
        self.asked.insert(asked, meant.clone());
        meant
    }
}

/// What the chain of a tier is called. Namespaces have no capitals, so that no class is called so; and where names of ports
/// mean what they mean at the class's pods, the tier is that class's alone.
fn chain(level: Level, policies: &[Ranked<'_>], key: &Key, class: &str) -> String {
    let tier = level.name();
    let rules = policies.iter().flat_map(|policy| &policy.rules);
    let mut ports = rules.flat_map(|(_, rule)| named_ports(&rule.matches));
    if key.direction == Direction::Ingress && ports.next().is_some() {
        return format!("{class}-{tier}");
    }
    let names = policies.iter().map(|policy| policy.origin.name.as_str());
    let names: Vec<&str> = names.collect();
    let hash = fnv1a(&[names.join(" ").as_bytes()]) >> 16;
    format!("{}-{tier}-{hash:012x}", key.direction.name())
}

/// What the sets of a step are called after: its rules, so that tiers have it in common wherever it stands in them.
fn called(level: Level, run: &[&(Origin, &ClusterRule)], key: &Key, chain: &str) -> String {
    let rules = run.iter();
    let rules = rules.map(|(by, _)| format!("{} {}", by.name, by.field));
    let rules: Vec<String> = rules.collect();
    let hash = fnv1a(&[rules.join(" ").as_bytes()]) >> 16;
    let mut ports = run.iter().flat_map(|(_, rule)| named_ports(&rule.matches));
    let own = key.direction == Direction::Ingress && ports.next().is_some();
    match own {
        true => format!("{chain}-{hash:012x}"),
        false => format!("{}-{}-{hash:012x}", key.direction.name(), level.name()),
    }
}

/// The addresses of the nodes that a selector means: those in `status.addresses`, and those that Parfait knows them by.
fn nodes(snapshot: &Snapshot, selector: &LabelSelector) -> BTreeSet<std::net::IpAddr> {
    let nodes = snapshot.nodes.values();
    let meant = nodes.filter(|node| selector.matches(&node.labels));
    meant.flat_map(Node::every_address).collect()
}

fn members<'m>(
    to: &mut Collected,
    members: impl IntoIterator<Item = &'m Member>,
    fixed: Option<&[PortRange]>,
    named: &[(Protocol, &str)],
    by: &Origin,
) {
    for member in members {
        let at = named.iter().flat_map(|(protocol, name)| {
            let numbers = member.named(*protocol, name);
            numbers.map(|number| one(*protocol, number))
        });
        let ports: Option<Vec<PortRange>> =
            fixed.map(|fixed| fixed.iter().copied().chain(at).collect());
        for address in &member.addresses {
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
