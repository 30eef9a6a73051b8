//! [`NodeNetworkPolicy`]: whom processes of the nodes themselves, and pods on their network, take connections from
//! (`parfait.dev/v1alpha1`).
//!
//! ```text
//!   nodeSelector ─▶ nodes
//!   ingress ─▶ rules, in order: the first that matches accepts or denies. What none matches is accepted.
//! ```
//!
//! The rules are those of a [`crate::ClusterNetworkPolicy`], from `networks` and `nodes` as well, and mistakes fail closed as
//! there. What a node always accepts, whatever its policies say, the transport layer decides.

use parfait_packet::{Kind, Origin};

use crate::{ClusterRule, LabelSelector};

/// A NodeNetworkPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeNetworkPolicy {
    /// Its name.
    pub name: String,
    /// `spec.priority`: the lowest is asked first.
    pub priority: u16,
    /// `spec.nodeSelector`: which nodes; by default all.
    pub nodes: LabelSelector,
    /// What is done with what comes in.
    pub ingress: Vec<ClusterRule>,
}

impl NodeNetworkPolicy {
    /// The object, for what exists because of it.
    #[must_use]
    pub fn origin(&self) -> Origin {
        Origin::new(Kind::NodeNetworkPolicy, "", &self.name)
    }

    /// One of its rules, as `spec.ingress[0]`.
    #[must_use]
    pub fn rule_origin(&self, index: usize) -> Origin {
        self.origin().field(&format!("spec.ingress[{index}]"))
    }
}
