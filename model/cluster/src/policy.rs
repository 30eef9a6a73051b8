//! [`NetworkPolicy`]: which pods are isolated, and who may talk to them all the same
//! (`networking.k8s.io/v1`).
//!
//! ```text
//!   podSelector ─▶ pods of the policy's namespace, isolated in one direction or both
//!   ingress, egress ─▶ rules: each allows its peers, at its ports. What no rule of any policy allows is denied.
//! ```
//!
//! The API gives empty and missing fields different meanings, which types keep apart here: no list (or an
//! empty one) of peers or ports is everything, [`None`]; a list of which nothing could be used is nothing,
//! an empty `Some`. So a policy with a mistake allows less than was meant, never more.

use ipnet::IpNet;
use parfait_packet::{Kind, Origin, Protocol};

use crate::{LabelSelector, ObjectName};

/// A NetworkPolicy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// Namespace and name.
    pub name: ObjectName,
    /// `spec.podSelector`: which pods of its namespace.
    pub pods: LabelSelector,
    /// What may come in; `None` if the policy says nothing about that.
    pub ingress: Option<Vec<PolicyRule>>,
    /// What may go out; `None` if the policy says nothing about that.
    pub egress: Option<Vec<PolicyRule>>,
}

/// One of `spec.ingress` or `spec.egress`, which stays at its place even if nothing of it could be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRule {
    /// `from` or `to`; `None` is everybody.
    pub peers: Option<Vec<Peer>>,
    /// `ports`; `None` is all ports of all protocols.
    pub ports: Option<Vec<PolicyPort>>,
}

/// One of `from` or `to`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// Pods with a network of their own.
    Pods {
        /// `namespaceSelector`; `None` is the policy's own namespace.
        namespaces: Option<LabelSelector>,
        /// `podSelector`; every pod, if it is missing.
        pods: LabelSelector,
    },
    /// `ipBlock`: addresses, whoever has them.
    Block {
        /// `cidr`.
        cidr: IpNet,
        /// `except`.
        except: Vec<IpNet>,
    },
    /// `nodes` of a ClusterNetworkPolicy: their addresses.
    Nodes(LabelSelector),
}

/// One of `ports`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyPort {
    /// `protocol`.
    pub protocol: Protocol,
    /// `port` and `endPort`.
    pub port: PortMatch,
}

/// Which ports of a protocol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortMatch {
    /// Those from the first to the last; one, if they are the same; all, if there is no `port`.
    Numbers(u16, u16),
    /// The one that the receiving pod's containers call so.
    Name(String),
}

/// A direction, as a pod sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// What comes in.
    Ingress,
    /// What goes out.
    Egress,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// As the API and `nft` names spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

impl NetworkPolicy {
    /// The object, for what exists because of it.
    #[must_use]
    pub fn origin(&self) -> Origin {
        Origin::new(Kind::NetworkPolicy, &self.name.namespace, &self.name.name)
    }

    /// Its rules for a direction; `None` if it isolates nobody in it.
    #[must_use]
    pub fn rules(&self, direction: Direction) -> Option<&[PolicyRule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }

    /// One of its rules, as `spec.ingress[0]`.
    #[must_use]
    pub fn rule_origin(&self, direction: Direction, index: usize) -> Origin {
        self.origin()
            .field(&format!("spec.{}[{index}]", direction.name()))
    }
}
