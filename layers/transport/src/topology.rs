//! Which of a Service's endpoints take new connections on one node.
//!
//! ```text
//!   all ──ready?──▶ ready ──hints?──▶ those for this node or zone          policy Cluster
//!    │                └────here?────▶ those on this node                   policy Local
//!    └─ none ready: those that still serve while they terminate (KEP-1669), by the same policy
//! ```
//!
//! Of more than [`MOST`] a node takes a part, chosen by its name: every change of a Service costs what all its elements cost,
//! so that one Service of a million endpoints would hold up all others. Each node takes another part, and keeps nearly all
//! of it when endpoints come and go (rendezvous hashing).
//!
//! Follows kube-proxy's `pkg/proxy/topology.go`: hints are heeded if every ready endpoint has one and one of them
//! is for us; otherwise all ready endpoints are used, because a hint must never make a Service unreachable.

use std::net::IpAddr;
use std::sync::Arc;

use parfait_cluster::{Endpoint, TrafficPolicy};
use parfait_linux::attachment::fnv1a;

use crate::{Backend, PassedOver, Pool};

/// How many endpoints share a Service's new connections on one node.
pub const MOST: usize = 8192;

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

/// All endpoints of one Service port and family, and what may be done with each.
pub(crate) struct Endpoints {
    pub(crate) all: Vec<Backend>,
}

impl Endpoints {
    /// The pool that a policy leaves.
    pub(crate) fn pool(&self, policy: TrafficPolicy, here: &Here) -> Pool {
        let allowed = |backend: &&Backend| match policy {
            TrafficPolicy::Cluster => true,
            TrafficPolicy::Local => here.has(&backend.endpoint),
        };
        let ready = self.all.iter().filter(|backend| backend.endpoint.ready);
        let preferred = match policy {
            TrafficPolicy::Cluster => Preferred::of(ready.clone(), here),
            TrafficPolicy::Local => Preferred::All,
        };
        let near = |backend: &Backend| preferred.takes(&backend.endpoint, here);
        let ready: Vec<&Backend> = ready.filter(allowed).filter(|b| near(b)).collect();
        let wanted = match ready.is_empty() {
            true => {
                let ending = self.all.iter().filter(|backend| serves_to_the_end(backend));
                ending.filter(allowed).collect()
            }
            false => ready,
        };
        let (backends, beyond) = choose(wanted, here);
        let is_among = |backends: &[Backend], backend: &Backend| {
            let socket = backend.socket();
            let found = backends.binary_search_by(|known| known.socket().cmp(&socket));
            found.is_ok()
        };
        let others = self
            .all
            .iter()
            .filter(|backend| !is_among(&backends, backend));
        let mut passed_over: Vec<_> = others
            .map(|backend| {
                let why = match is_among(&beyond, backend) {
                    true => PassedOver::BeyondMost,
                    false => why_not(&backend.endpoint, policy, &preferred, here),
                };
                (backend.clone(), why)
            })
            .collect();
        passed_over.sort_by(|a, b| a.0.cmp(&b.0));
        passed_over.dedup_by(|a, b| a.0.socket() == b.0.socket());
        Pool {
            policy,
            elsewhere: self.all.iter().any(takes_connections),
            backends,
            passed_over,
        }
    }
}

/// Those that share new connections, and those that are too many; both by address.
fn choose(wanted: Vec<&Backend>, here: &Here) -> (Vec<Backend>, Vec<Backend>) {
    let mut wanted: Vec<Backend> = wanted.into_iter().cloned().collect();
    wanted.sort_unstable();
    // The same endpoint may stand in two slices while a controller moves it.
    wanted.dedup_by(|a, b| a.socket() == b.socket());
    if wanted.len() <= MOST {
        return (wanted, Vec::new());
    }
    wanted.sort_by_cached_key(|backend| rank(backend, here));
    let mut beyond = wanted.split_off(MOST);
    wanted.sort_unstable();
    beyond.sort_unstable();
    (wanted, beyond)
}

/// Where an endpoint stands in this node's own order.
fn rank(backend: &Backend, here: &Here) -> u64 {
    let (address, port) = backend.socket();
    let address = match address {
        IpAddr::V4(four) => four.to_ipv6_mapped().octets(),
        IpAddr::V6(six) => six.octets(),
    };
    fnv1a(&[here.node.as_bytes(), b" ", &address, &port.to_be_bytes()])
}

fn serves_to_the_end(backend: &Backend) -> bool {
    let endpoint = &backend.endpoint;
    !endpoint.ready && endpoint.serving && endpoint.terminating
}

/// Whether an endpoint would do, were it near enough.
fn takes_connections(backend: &Backend) -> bool {
    let endpoint = &backend.endpoint;
    endpoint.ready || (endpoint.serving && endpoint.terminating)
}

fn why_not(
    endpoint: &Arc<Endpoint>,
    policy: TrafficPolicy,
    preferred: &Preferred,
    here: &Here,
) -> PassedOver {
    match (endpoint.ready, preferred) {
        (false, _) if endpoint.terminating => PassedOver::Terminating,
        (false, _) => PassedOver::NotReady,
        (true, _) if policy == TrafficPolicy::Local && !here.has(endpoint) => {
            PassedOver::OnAnotherNode
        }
        (true, Preferred::Node) => PassedOver::ForAnotherNode,
        (true, _) => PassedOver::ForAnotherZone,
    }
}

/// Which hints are heeded.
enum Preferred {
    All,
    Zone,
    Node,
}

impl Preferred {
    fn of<'a>(ready: impl Iterator<Item = &'a Backend> + Clone, here: &Here) -> Self {
        let endpoints = ready.map(|backend| &*backend.endpoint);
        let heed = |hinted: fn(&Endpoint) -> bool, preferred: &Self| {
            endpoints.clone().all(hinted)
                && endpoints
                    .clone()
                    .any(|endpoint| preferred.takes(endpoint, here))
        };
        if heed(|endpoint| !endpoint.node_hints.is_empty(), &Self::Node) {
            return Self::Node;
        }
        if heed(|endpoint| !endpoint.zone_hints.is_empty(), &Self::Zone) {
            return Self::Zone;
        }
        Self::All
    }

    fn takes(&self, endpoint: &Endpoint, here: &Here) -> bool {
        match self {
            Self::All => true,
            Self::Zone => here
                .zone
                .as_ref()
                .is_some_and(|zone| endpoint.zone_hints.contains(zone)),
            Self::Node => endpoint.node_hints.contains(&here.node),
        }
    }
}
