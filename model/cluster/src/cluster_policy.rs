//! [`ClusterNetworkPolicy`]: what an administrator lets any pods do, before and behind what NetworkPolicies say
//! (`policy.networking.k8s.io/v1alpha2`, of network-policy-api 0.2).
//!
//! ```text
//!   subject ─▶ pods of any namespaces
//!   tier Admin ─▶ NetworkPolicies, for pods that any isolates ─▶ tier Baseline, for the others ─▶ accepted
//!   ingress, egress ─▶ rules, in order: the first that matches accepts, denies, or passes on to the next tier
//! ```
//!
//! What cannot be read fails closed, as the API's documentation wants it: such a rule accepts nothing, if it is one that
//! accepts, and denies everything, if not.

use parfait_packet::{Kind, Origin};

use crate::{Direction, LabelSelector, PolicyRule};

/// A ClusterNetworkPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterNetworkPolicy {
    /// Its name.
    pub name: String,
    /// `spec.tier`.
    pub tier: PolicyTier,
    /// `spec.priority`: in its tier, the lowest is asked first.
    pub priority: u16,
    /// `spec.subject`: the namespaces of the pods that it is for.
    pub namespaces: LabelSelector,
    /// `spec.subject`: which of their pods.
    pub pods: LabelSelector,
    /// What is done with what comes in.
    pub ingress: Vec<ClusterRule>,
    /// What is done with what goes out.
    pub egress: Vec<ClusterRule>,
}

/// `spec.tier`, in the order in which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PolicyTier {
    /// Before NetworkPolicies.
    Admin,
    /// Where no NetworkPolicy isolates.
    Baseline,
}

/// One of `spec.ingress` or `spec.egress`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterRule {
    /// `name`, which need not be there.
    pub name: String,
    /// `action`.
    pub action: PolicyAction,
    /// `from` or `to`, and `protocols`.
    pub matches: PolicyRule,
}

/// `action`: what becomes of a packet that a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PolicyAction {
    /// It passes, in this direction.
    Accept,
    /// It is dropped.
    Deny,
    /// The next tier is asked.
    Pass,
}

impl ClusterNetworkPolicy {
    /// The object, for what exists because of it.
    #[must_use]
    pub fn origin(&self) -> Origin {
        Origin::new(Kind::ClusterNetworkPolicy, "", &self.name)
    }

    /// Its rules for a direction; none say nothing about it.
    #[must_use]
    pub fn rules(&self, direction: Direction) -> &[ClusterRule] {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    /// One of its rules, as `spec.ingress[0]`.
    #[must_use]
    pub fn rule_origin(&self, direction: Direction, index: usize) -> Origin {
        self.origin()
            .field(&format!("spec.{}[{index}]", direction.name()))
    }
}

impl PolicyTier {
    /// As the API spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admin => "Admin",
            Self::Baseline => "Baseline",
        }
    }
}
