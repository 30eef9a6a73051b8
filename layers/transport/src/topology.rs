//! Which of a Service's endpoints are wanted for new connections on one node.
//!
//! ```text
//!   all ──ready?──▶ ready ──hints?──▶ those for this node or zone          policy Cluster
//!    │                └────here?────▶ those on this node                   policy Local
//!    └─ none ready: those that still serve while they terminate (KEP-1669), by the same policy
//! ```
//!
//! Follows kube-proxy's `pkg/proxy/topology.go`: hints are heeded if every ready endpoint has one and one of them
//! is for us; otherwise all ready endpoints are used, because a hint must never make a Service unreachable.
//! So it takes no more than to know how many of the endpoints are what: a [`Census`], of each slice and added up.

use std::iter::Sum;
use std::net::IpAddr;
use std::sync::Arc;

use parfait_cluster::{Endpoint, TrafficPolicy};

use crate::{PassedOver, Pool};

/// The node that is planned for, as endpoints see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Here {
    /// Its name.
    pub node: String,
    /// Its zone, if it has one.
    pub zone: Option<String>,
}

impl Here {
    fn has(&self, endpoint: &Endpoint) -> bool {
        endpoint.node.as_deref() == Some(self.node.as_str())
    }
}

/// What an endpoint may be, seen from one node; one may be several of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// Ready.
    Ready,
    /// Ready, and on this node.
    Here,
    /// Ready, and hinted for some nodes.
    HintedNodes,
    /// Ready, and hinted for this node.
    ForThisNode,
    /// Ready, and hinted for some zones.
    HintedZones,
    /// Ready, and hinted for this node's zone.
    ForThisZone,
    /// Not ready any more, but serving while it terminates.
    Ending,
    /// The same on this node.
    EndingHere,
}

impl Group {
    const ALL: [Self; 8] = [
        Self::Ready,
        Self::Here,
        Self::HintedNodes,
        Self::ForThisNode,
        Self::HintedZones,
        Self::ForThisZone,
        Self::Ending,
        Self::EndingHere,
    ];

    /// Whether an endpoint is that.
    pub(crate) fn has(self, endpoint: &Endpoint, here: &Here) -> bool {
        let ending = endpoint.serving && endpoint.terminating;
        match (self, endpoint.ready) {
            (Self::Ending, false) => ending,
            (Self::EndingHere, false) => ending && here.has(endpoint),
            (Self::Ending | Self::EndingHere, true) | (_, false) => false,
            (Self::Ready, true) => true,
            (Self::Here, true) => here.has(endpoint),
            (Self::HintedNodes, true) => !endpoint.node_hints.is_empty(),
            (Self::ForThisNode, true) => endpoint.node_hints.contains(&here.node),
            (Self::HintedZones, true) => !endpoint.zone_hints.is_empty(),
            (Self::ForThisZone, true) => {
                let zone = here.zone.as_ref();
                zone.is_some_and(|zone| endpoint.zone_hints.contains(zone))
            }
        }
    }

    /// Whom a policy wants, of all that were counted.
    pub(crate) fn wanted(policy: TrafficPolicy, all: &Census) -> Self {
        let heeded = |hinted, ours| all.count(hinted) == all.count(Self::Ready) && all.has(ours);
        match policy {
            TrafficPolicy::Local if all.has(Self::Here) => Self::Here,
            TrafficPolicy::Local => Self::EndingHere,
            TrafficPolicy::Cluster if !all.has(Self::Ready) => Self::Ending,
            TrafficPolicy::Cluster if heeded(Self::HintedNodes, Self::ForThisNode) => {
                Self::ForThisNode
            }
            TrafficPolicy::Cluster if heeded(Self::HintedZones, Self::ForThisZone) => {
                Self::ForThisZone
            }
            TrafficPolicy::Cluster => Self::Ready,
        }
    }
}

/// How many of some endpoints are what, in the order of [`Group::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Census([u32; Group::ALL.len()]);

impl Census {
    pub(crate) fn of(endpoints: &[Arc<Endpoint>], here: &Here) -> Self {
        let mut census = Self::default();
        for endpoint in endpoints {
            for (group, count) in Group::ALL.iter().zip(&mut census.0) {
                *count += u32::from(group.has(endpoint, here));
            }
        }
        census
    }

    pub(crate) const fn count(&self, group: Group) -> usize {
        self.0[group as usize] as usize
    }

    pub(crate) const fn has(&self, group: Group) -> bool {
        self.count(group) > 0
    }
}

impl Sum for Census {
    fn sum<I: Iterator<Item = Self>>(censuses: I) -> Self {
        let mut sum = Self::default();
        for census in censuses {
            for (all, more) in sum.0.iter_mut().zip(census.0) {
                *all += more;
            }
        }
        sum
    }
}

impl Pool {
    /// Whether new connections may go to an address and port.
    #[must_use]
    pub fn has(&self, socket: (IpAddr, u16)) -> bool {
        let found = self
            .backends
            .binary_search_by(|one| one.socket().cmp(&socket));
        found.is_ok()
    }

    /// Why none go to an endpoint that is not in it.
    pub(crate) fn why_not(&self, endpoint: &Endpoint, here: &Here) -> PassedOver {
        match self.wanted {
            wanted if wanted.has(endpoint, here) => PassedOver::BeyondMost,
            _ if !endpoint.ready && endpoint.terminating => PassedOver::Terminating,
            _ if !endpoint.ready => PassedOver::NotReady,
            _ if self.policy == TrafficPolicy::Local => PassedOver::OnAnotherNode,
            Group::ForThisNode => PassedOver::ForAnotherNode,
            _ => PassedOver::ForAnotherZone,
        }
    }
}
