//! What EndpointSlices list for one port of a Service, and which of it takes new connections on one node.
//!
//! ```text
//!   slice web-7x2kp   80 endpoints   census: 78 ready, 2 here, …  ─┐ added up: what is wanted (topology.rs)
//!   slice web-q9d4m   95 endpoints   census: 95 ready, 0 here, …  ─┘ and only where it is, endpoints are looked at
//! ```
//!
//! Of more than [`MOST`] a node takes a part: every change of a Service costs what all its elements cost, so that one
//! Service of a million endpoints would hold up all others. It goes through the slices in an order of its own, and takes
//! what is wanted until it has enough. So each node takes another part, and keeps nearly all of it when slices come and
//! go (rendezvous hashing).
//!
//! A plan shares the slices with the snapshot, and keeps their censuses: of ten thousand slices, only the one that
//! changed is counted again. It keeps no list of whom it did not choose; [`Virtual::passed_over`] makes it for who asks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use parfait_cluster::{Endpoint, EndpointSlice, ServicePort, TrafficPolicy};
use parfait_linux::attachment::fnv1a;
use parfait_packet::Family;

use crate::topology::{Census, Group, Here};
use crate::{Backend, PassedOver, Pool, ServicePlan, Virtual};

/// How many endpoints share a Service's new connections on one node.
pub const MOST: usize = 8192;

/// A slice, and how many of its endpoints are what.
pub(crate) struct Counted {
    pub(crate) slice: Arc<EndpointSlice>,
    pub(crate) census: Census,
}

/// The censuses of an earlier plan, by the slices that it holds.
pub(crate) struct Known(BTreeMap<*const EndpointSlice, Census>);

impl Known {
    pub(crate) fn of(earlier: Option<&ServicePlan>) -> Self {
        let frontends = earlier.into_iter().flat_map(|plan| plan.frontends.values());
        let parts = frontends.flat_map(|behind| behind.listing.0.iter());
        let censuses = parts.map(|part| (Arc::as_ptr(&part.slice), part.census));
        Self(censuses.collect())
    }

    pub(crate) fn count(&self, slice: &Arc<EndpointSlice>, here: &Here) -> Counted {
        let known = self.0.get(&Arc::as_ptr(slice)).copied();
        Counted {
            slice: slice.clone(),
            census: known.unwrap_or_else(|| Census::of(&slice.endpoints, here)),
        }
    }
}

/// All that is listed for one port of a Service in one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing(Arc<[Part]>);

/// What one slice lists of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    slice: Arc<EndpointSlice>,
    census: Census,
    /// The number that the Service's port has there.
    port: u16,
}

impl Listing {
    pub(crate) fn of(slices: &[Counted], port: &ServicePort, family: Family) -> Self {
        let part = |counted: &Counted| {
            let mut ports = counted.slice.ports.iter();
            let found = ports.find(|it| it.name == port.name && it.protocol == port.protocol)?;
            Some(Part {
                slice: counted.slice.clone(),
                census: counted.census,
                port: found.port,
            })
        };
        let slices = slices.iter();
        let of_family = slices.filter(|counted| counted.slice.family == Some(family));
        Self(of_family.filter_map(part).collect())
    }

    /// The pool that a policy leaves.
    pub(crate) fn pool(&self, policy: TrafficPolicy, here: &Here) -> Pool {
        let census = self.census();
        let wanted = Group::wanted(policy, &census);
        Pool {
            policy,
            elsewhere: census.has(Group::Ready) || census.has(Group::Ending),
            wanted,
            backends: self.choose(wanted, &census, here),
        }
    }

    pub(crate) fn census(&self) -> Census {
        self.0.iter().map(|part| part.census).sum()
    }

    /// The addresses and ports of those that are so.
    pub(crate) fn sockets(
        &self,
        is: impl Fn(&Endpoint) -> bool + Copy,
    ) -> impl Iterator<Item = (IpAddr, u16)> {
        self.0.iter().flat_map(move |part| {
            let endpoints = part.slice.endpoints.iter();
            let wanted = endpoints.filter(move |endpoint| is(endpoint));
            wanted.map(|endpoint| (endpoint.address, part.port))
        })
    }

    /// What the slices that are not in `other` list.
    pub(crate) fn without(&self, other: &Self) -> Self {
        let key = |part: &Part| (Arc::as_ptr(&part.slice), part.port);
        let others: BTreeSet<_> = other.0.iter().map(key).collect();
        let parts = self.0.iter().filter(|part| !others.contains(&key(part)));
        Self(parts.cloned().collect())
    }

    /// Those that share new connections, by address.
    fn choose(&self, wanted: Group, census: &Census, here: &Here) -> Vec<Backend> {
        let parts = self.0.iter().filter(|part| part.census.has(wanted));
        let mut parts: Vec<&Part> = parts.collect();
        if census.count(wanted) > MOST {
            parts.sort_by_cached_key(|part| rank(&part.slice, here));
        }
        // The same endpoint may stand in two slices while a controller moves it.
        let mut chosen = BTreeMap::new();
        for part in parts {
            for backend in part.backends(|endpoint| wanted.has(endpoint, here)) {
                if chosen.len() == MOST {
                    break;
                }
                chosen.entry(backend.socket()).or_insert(backend);
            }
        }
        chosen.into_values().collect()
    }
}

impl Part {
    fn backends(&self, is: impl Fn(&Endpoint) -> bool) -> impl Iterator<Item = Backend> {
        let origin = self.slice.origin();
        let endpoints = self.slice.endpoints.iter();
        let wanted = endpoints.filter(move |endpoint| is(endpoint));
        wanted.map(move |endpoint| Backend {
            endpoint: endpoint.clone(),
            port: self.port,
            origin: origin.clone(),
        })
    }
}

/// Where a slice stands in this node's own order.
fn rank(slice: &EndpointSlice, here: &Here) -> u64 {
    let name = fnv1a(&[here.node.as_bytes(), b" ", slice.name.name.as_bytes()]);
    // Names differ in their last bytes, which hashing once does not bring into the first bits.
    fnv1a(&[&name.to_le_bytes()])
}

impl Virtual {
    /// The endpoints that get no new connections of one of its pools, and why not, by address.
    #[must_use]
    pub fn passed_over(&self, pool: &Pool, here: &Here) -> Vec<(Backend, PassedOver)> {
        let all = self
            .listing
            .0
            .iter()
            .flat_map(|part| part.backends(|_| true));
        let mut others: Vec<_> = all.filter(|one| !pool.has(one.socket())).collect();
        others.sort_unstable();
        others.dedup_by(|a, b| a.socket() == b.socket());
        let because = |backend: Backend| {
            let why = pool.why_not(&backend.endpoint, here);
            (backend, why)
        };
        others.into_iter().map(because).collect()
    }
}
