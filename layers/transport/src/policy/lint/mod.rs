//! What is legal in policies, and probably not meant: [`lint()`].
//!
//! ```text
//!   mistake                a part that cannot be used
//!   selects-no-pod         podSelector fits nobody
//!   peer-matches-nobody    a peer that fits nobody
//!   rule-allows-nothing    a rule of which nothing is left
//!   rule-shadowed          another rule for the same pods allows all that it does
//!   policy-redundant       without it everything would be the same; a duplicate, for instance
//!   port-not-open          no container of the receivers declares it
//!   allows-everybody       an empty selector, a rule without peers and ports, 0.0.0.0/0
//!   no-dns                 isolated for egress, and not even cluster DNS may be asked
//!   selects-no-node        nodeSelector fits no node
//!   node-locked-out        nobody but nodes may reach what others have to: ssh, health checks
//! ```
//!
//! Selectors and rules are compared by what they say (`covers.rs`), so that pods which come and go change nothing of
//! that; whom they fit is told of the pods that are there.

mod cluster;
mod covers;
mod dns;
mod node;
mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use parfait_cluster::{Direction, Key, NetworkPolicy, Pod, Snapshot};
use parfait_packet::Origin;

use super::members::Members;
use super::plan::{Plan, plan};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// A part of the policy is not in force.
    Error,
    /// It does hardly what was meant.
    Warning,
    /// It could be said more simply.
    Info,
}

/// What is asked of policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// A part cannot be used.
    Mistake,
    /// `podSelector` fits nobody.
    SelectsNoPod,
    /// A peer fits nobody.
    PeerMatchesNobody,
    /// Nothing is left of a rule.
    RuleAllowsNothing,
    /// Another rule allows all of it.
    RuleShadowed,
    /// Without the policy everything would be the same.
    PolicyRedundant,
    /// No container declares the port.
    PortNotOpen,
    /// Everybody is allowed everything.
    AllowsEverybody,
    /// Cluster DNS cannot be asked.
    NoDns,
    /// `nodeSelector` fits no node.
    SelectsNoNode,
    /// Only nodes reach what others have to.
    NodeLockedOut,
}

/// Something that was probably not meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Advice {
    /// The policy, and which part of it.
    pub origin: Origin,
    /// Which check found it.
    pub check: Check,
    /// What is found, and what follows from it.
    pub message: String,
}

impl Check {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Mistake,
        Self::SelectsNoPod,
        Self::PeerMatchesNobody,
        Self::RuleAllowsNothing,
        Self::RuleShadowed,
        Self::PolicyRedundant,
        Self::PortNotOpen,
        Self::AllowsEverybody,
        Self::NoDns,
        Self::SelectsNoNode,
        Self::NodeLockedOut,
    ];

    /// Its stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mistake => "mistake",
            Self::SelectsNoPod => "selects-no-pod",
            Self::PeerMatchesNobody => "peer-matches-nobody",
            Self::RuleAllowsNothing => "rule-allows-nothing",
            Self::RuleShadowed => "rule-shadowed",
            Self::PolicyRedundant => "policy-redundant",
            Self::PortNotOpen => "port-not-open",
            Self::AllowsEverybody => "allows-everybody",
            Self::NoDns => "no-dns",
            Self::SelectsNoNode => "selects-no-node",
            Self::NodeLockedOut => "node-locked-out",
        }
    }

    /// How bad it is.
    #[must_use]
    pub const fn severity(self) -> Severity {
        match self {
            Self::Mistake => Severity::Error,
            Self::RuleShadowed => Severity::Info,
            _ => Severity::Warning,
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        })
    }
}

/// Everything there is to say about the policies of a cluster, in the order of the policies.
#[must_use]
pub fn lint(snapshot: &Snapshot) -> Vec<Advice> {
    let plans: Vec<Plan> = snapshot
        .nodes
        .keys()
        .map(|node| plan(snapshot, node))
        .collect();
    let mut linter = Linter {
        snapshot,
        members: Members::of(snapshot),
        by_address: by_address(snapshot),
        found: BTreeSet::new(),
    };
    for policy in snapshot.policies.values() {
        linter.policy(policy);
    }
    for policy in snapshot.cluster_policies.values() {
        cluster::check(&mut linter, policy);
    }
    for policy in snapshot.node_policies.values() {
        node::check(&mut linter, policy);
    }
    node::locked_out(&mut linter, &plans);
    for plan in &plans {
        for note in &plan.notes {
            linter.tell(Check::Mistake, &note.origin, note.message.clone());
        }
    }
    dns::check(&mut linter, &plans);
    linter.found.into_iter().collect()
}

struct Linter<'a> {
    snapshot: &'a Snapshot,
    members: Members,
    by_address: BTreeMap<IpAddr, &'a Pod>,
    found: BTreeSet<Advice>,
}

impl<'a> Linter<'a> {
    fn tell(&mut self, check: Check, origin: &Origin, message: String) {
        self.found.insert(Advice {
            origin: origin.clone(),
            check,
            message,
        });
    }

    fn policy(&mut self, policy: &'a NetworkPolicy) {
        let key = Key::NetworkPolicy(policy.name.clone());
        for note in self.snapshot.notes.get(&key).into_iter().flatten() {
            self.tell(Check::Mistake, &note.origin, note.message.clone());
        }
        let selected = self.selected(policy);
        if let Some(other) = covers::redundant(self.snapshot, policy) {
            self.tell(Check::PolicyRedundant, &policy.origin(), other);
        } else {
            self.shadowed(policy);
        }
        for direction in Direction::ALL {
            let rules = policy.rules(direction).unwrap_or_default();
            for (index, rule) in rules.iter().enumerate() {
                let origin = policy.rule_origin(direction, index);
                if let Some(what) = rules::everybody(rule) {
                    self.tell(Check::AllowsEverybody, &origin, what);
                }
                let namespace = &policy.name.namespace;
                rules::check(self, namespace, &selected, direction, rule, &origin);
            }
        }
    }

    /// The pods that a policy isolates.
    fn selected(&mut self, policy: &NetworkPolicy) -> Vec<&'a Pod> {
        let field = policy.origin().field("spec.podSelector");
        let there = self.snapshot.pods.values();
        let there = there.filter(|pod| pod.name.namespace == policy.name.namespace);
        let fitting = there.filter(|pod| policy.pods.matches(&pod.labels));
        let (nodes, own): (Vec<_>, Vec<_>) = fitting.partition(|pod| pod.host_network);
        match (own.is_empty(), nodes.is_empty()) {
            (false, _) => {}
            (true, true) => self.tell(
                Check::SelectsNoPod,
                &field,
                format!("no pod of namespace {} fits it", policy.name.namespace),
            ),
            (true, false) => self.tell(
                Check::SelectsNoPod,
                &field,
                "only pods on their node's network fit it, which policies do not isolate"
                    .to_owned(),
            ),
        }
        own
    }

    fn shadowed(&mut self, policy: &NetworkPolicy) {
        for direction in Direction::ALL {
            let rules = policy.rules(direction).unwrap_or_default();
            for index in 0..rules.len() {
                if let Some(by) = covers::shadow(self.snapshot, policy, direction, index) {
                    let origin = policy.rule_origin(direction, index);
                    let message = format!("{by} allows all that it does, to the same pods");
                    self.tell(Check::RuleShadowed, &origin, message);
                }
            }
        }
    }
}

/// The pods with a network of their own.
fn by_address(snapshot: &Snapshot) -> BTreeMap<IpAddr, &Pod> {
    let pods = snapshot.pods.values().filter(|pod| !pod.host_network);
    let addresses = pods.flat_map(|pod| pod.addresses.iter().map(move |address| (*address, pod)));
    addresses.collect()
}

/// `1 pod`, `2 pods`.
fn counted(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}
