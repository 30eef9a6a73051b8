//! [`Class`]: what policies make of one direction of all pods that the same of them select.
//!
//! ```text
//!   class ─▶ tier ─▶ step: Accept what matches ─▶ step: Deny … ─▶ step: Pass …       first match decides
//!            tier ◀────────────────────────────────────────────────────┘
//!              └─▶ step … ─▶ the end of the last tier
//! ```
//!
//! A tier asks its steps in order. The first that matches accepts, denies, or passes on to the next tier; what no step
//! matches goes there too, but for the tier of NetworkPolicies, which denies what it does not accept. What no tier
//! decides is accepted. The ruleset, the judgement of tracked connections and `explain` all read this one form.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use parfait_cluster::{Direction, Note, PolicyAction, PolicyTier};
use parfait_packet::{Origin, Packet};

use super::matches::Matches;

/// What policies make of a direction of the pods that all of them select.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// Its chain.
    pub name: String,
    /// The direction.
    pub direction: Direction,
    /// Its tiers, in order; never none.
    pub tiers: Vec<Arc<Tier>>,
}

/// Policies that are asked together. Classes for which the same ClusterNetworkPolicies are have these tiers in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    /// Which tier it is.
    pub level: Level,
    /// Its chain: that of its class, or its own.
    pub chain: String,
    /// Its policies, in the order in which they are asked; never none.
    pub policies: Vec<Origin>,
    /// What they say. Tiers with the same rules behind each other have these steps in common.
    pub steps: Vec<Arc<Step>>,
    /// What could not be compiled of them as it stands.
    pub notes: BTreeSet<Note>,
}

/// Which tier, in the order in which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// ClusterNetworkPolicies of tier Admin.
    Admin,
    /// NetworkPolicies: where any isolates, what no rule accepts is denied, and no tier behind is asked.
    NetworkPolicy,
    /// ClusterNetworkPolicies of tier Baseline.
    Baseline,
    /// NodeNetworkPolicies, the only tier of a node itself.
    Node,
}

/// Rules with the same action, one behind the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What its sets are called after.
    pub name: String,
    /// What becomes of a packet that they match.
    pub action: PolicyAction,
    /// What they match.
    pub matches: Matches,
}

/// What a class says of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// Whether it passes.
    pub accepted: bool,
    /// The tier that decides; if none does, the packet passes.
    pub tier: Option<&'a Tier>,
    /// The rule that decides; `None` if it is the end of a tier.
    pub rule: Option<&'a Origin>,
    /// The rules by which tiers before have passed it on.
    pub passed: Vec<&'a Origin>,
}

impl Class {
    /// What becomes of a packet of which the peer has this address.
    #[must_use]
    pub fn decide(&self, peer: IpAddr, packet: &Packet) -> Decision<'_> {
        let mut decision = Decision {
            accepted: true,
            tier: None,
            rule: None,
            passed: Vec::new(),
        };
        for tier in &self.tiers {
            match tier.find(peer, packet) {
                Some((PolicyAction::Pass, rule)) => decision.passed.push(rule),
                Some((action, rule)) => {
                    decision.accepted = action == PolicyAction::Accept;
                    decision.tier = Some(tier);
                    decision.rule = Some(rule);
                    return decision;
                }
                None if tier.level.denies() => {
                    decision.accepted = false;
                    decision.tier = Some(tier);
                    return decision;
                }
                None => {}
            }
        }
        decision
    }

    /// What it makes of packets to the pod's own node, which NetworkPolicies always let through: of ClusterNetworkPolicies
    /// alone. `None` is nothing.
    #[must_use]
    pub fn towards_node(&self) -> Option<Cow<'_, Self>> {
        let isolating = self.tiers.iter().position(|tier| tier.level.denies());
        match isolating {
            None => Some(Cow::Borrowed(self)),
            Some(0) => None,
            Some(end) => Some(Cow::Owned(Self {
                name: format!("{}-node", self.name),
                direction: self.direction,
                tiers: self.tiers[..end].to_vec(),
            })),
        }
    }

    /// The groups that it names.
    pub(super) fn groups(&self) -> impl Iterator<Item = &str> {
        self.tiers.iter().flat_map(|tier| tier.groups())
    }

    /// One of its tiers.
    pub(super) fn tier(&self, level: Level) -> Option<&Arc<Tier>> {
        self.tiers.iter().find(|tier| tier.level == level)
    }

    /// What could not be compiled of it.
    pub(super) fn notes(&self) -> impl Iterator<Item = &Note> {
        self.tiers.iter().flat_map(|tier| &tier.notes)
    }

    /// Whether the same chains are entered for it: its own, and that for packets to the node.
    pub(super) fn leads_as(&self, other: &Self) -> bool {
        let levels = |class: &Self| {
            class
                .tiers
                .iter()
                .map(|tier| tier.level)
                .collect::<Vec<_>>()
        };
        self.name == other.name && levels(self) == levels(other)
    }

    /// Whether its own chain is the same as another's in the kernel, whatever is in chains that it only leads to.
    pub(super) fn is_lowered_as(&self, other: &Self) -> bool {
        let same = |(a, b): (&Arc<Tier>, &Arc<Tier>)| match a.level.is_shared() {
            true => a.chain == b.chain && a.level == b.level,
            false => a.is_lowered_as(b),
        };
        let (mine, others) = (&self.tiers, &other.tiers);
        self.name == other.name && mine.len() == others.len() && mine.iter().zip(others).all(same)
    }

    /// The policies of a tier.
    #[must_use]
    pub fn policies(&self, level: Level) -> &[Origin] {
        self.tier(level).map_or(&[], |tier| &tier.policies)
    }
}

impl Tier {
    /// The groups that it names.
    pub(super) fn groups(&self) -> impl Iterator<Item = &str> {
        let steps = self.steps.iter();
        steps.flat_map(|step| step.matches.groups.keys().map(String::as_str))
    }

    /// Whether it is the same in the kernel.
    pub(super) fn is_lowered_as(&self, other: &Self) -> bool {
        let same = |(a, b): (&Arc<Step>, &Arc<Step>)| Arc::ptr_eq(a, b) || a.is_lowered_as(b);
        let is_called = (&self.chain, self.level) == (&other.chain, other.level);
        let steps = self.steps.len() == other.steps.len();
        let steps = steps && self.steps.iter().zip(&other.steps).all(same);
        is_called && self.policies == other.policies && steps
    }

    /// The first rule that matches, and what it does.
    fn find(&self, peer: IpAddr, packet: &Packet) -> Option<(PolicyAction, &Origin)> {
        self.steps.iter().find_map(|step| {
            let rule = step.matches.find(peer, packet)?;
            Some((step.action, rule))
        })
    }
}

impl Step {
    /// Whether it is the same in the kernel.
    pub(super) fn is_lowered_as(&self, other: &Self) -> bool {
        let is_called = (&self.name, self.action) == (&other.name, other.action);
        is_called && self.matches.is_lowered_as(&other.matches)
    }
}

impl Level {
    /// What it is called.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => PolicyTier::Admin.name(),
            Self::NetworkPolicy => "NetworkPolicy",
            Self::Baseline => PolicyTier::Baseline.name(),
            Self::Node => "Node",
        }
    }

    /// Whether it has a chain of its own, to which those of classes lead.
    #[must_use]
    pub const fn is_shared(self) -> bool {
        matches!(self, Self::Admin | Self::Baseline)
    }

    /// Whether what no step matches is denied.
    #[must_use]
    pub const fn denies(self) -> bool {
        matches!(self, Self::NetworkPolicy)
    }
}
