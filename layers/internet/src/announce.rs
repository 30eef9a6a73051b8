//! Who makes a load balancer's address known outside of the cluster.
//!
//! ```text
//!   Neighbor   node-2: 192.168.77.200/32 on eth0, so that its kernel answers ARP and NDP    one node
//!   BGP        192.0.2.1/32 dev eth0 proto 112, which a routing daemon passes on            every candidate
//! ```
//!
//! Candidates are the nodes on whose segment the address lies (all, if it lies on nobody's) and, with
//! `externalTrafficPolicy: Local`, only those with endpoints. Of a Neighbor pool's candidates the first has the address;
//! the order is that of rendezvous hashing (Thaler and Ravishankar 1998): each address has its own, so that addresses
//! spread over the nodes, and a node that goes or comes moves no address but its own. Nodes that are not Ready stand
//! behind the others.
//!
//! No agreement is sought: each node decides for itself by what it hears (`liveness.rs`). While all hear the same, all
//! decide the same. Where one of two does not hear the other, [`holder`] says who yields.

use std::collections::BTreeSet;
use std::net::IpAddr;

use parfait_cluster::{
    Announcement, Endpoint, Hearing, Key, LoadBalancerPool, Node, Service, Snapshot, TrafficPolicy,
};
use parfait_linux::IfName;
use parfait_linux::attachment::fnv1a;
use parfait_packet::{Family, Origin};

/// How many of the first candidates listen to each other. If all fall silent at once, the next stand in when Kubernetes
/// finds that they are not Ready.
pub const STANDBY: usize = 3;

/// An address that is made known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// The address.
    pub address: IpAddr,
    /// The Service.
    pub service: Origin,
    /// Its LoadBalancerPool.
    pub pool: Origin,
    /// How.
    pub announcement: Announcement,
    /// Nodes that can, the best first.
    pub candidates: Vec<String>,
    /// It must stay on nodes with endpoints.
    pub local: bool,
}

/// An address that this node makes known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcing {
    /// The address.
    pub address: IpAddr,
    /// Where.
    pub interface: IfName,
    /// How.
    pub announcement: Announcement,
    /// The Service.
    pub origin: Origin,
}

impl Announced {
    /// Who makes it known and why, in words.
    #[must_use]
    pub fn describe(&self) -> String {
        let from = format!("{} is from {}", self.address, self.pool);
        let among = match self.local {
            true => "nodes with endpoints (externalTrafficPolicy: Local)",
            false => "nodes",
        };
        let Some((first, others)) = self.candidates.split_first() else {
            return format!("{from}, and nobody makes it known: there are no {among} that could");
        };
        match self.announcement {
            Announcement::Bgp => {
                format!(
                    "{from}; {among} announce it by BGP: {}",
                    self.candidates.join(", ")
                )
            }
            _ if others.is_empty() => {
                format!(
                    "{from}; {first} answers ARP and NDP for it, alone of the {among} on its segment"
                )
            }
            _ => {
                let others = &others[..others.len().min(STANDBY - 1)];
                format!(
                    "{from}; {first} answers ARP and NDP for it, the first in this address's order of the {among} on \
                     its segment; if it falls silent: {}",
                    others.join(", then ")
                )
            }
        }
    }
}

/// Every address of a load balancer that is made known, by Service.
#[must_use]
pub fn announced(snapshot: &Snapshot) -> Vec<Announced> {
    let services = snapshot.services.values();
    let of_service = |service| {
        let addresses: &[IpAddr] = match snapshot.pools.is_empty() {
            true => &[],
            false => balanced(service),
        };
        addresses
            .iter()
            .filter_map(move |address| find(snapshot, service, *address))
    };
    services.flat_map(of_service).collect()
}

/// How one address of a Service is made known; `None` if nobody does.
#[must_use]
pub fn find(snapshot: &Snapshot, service: &Service, address: IpAddr) -> Option<Announced> {
    let pool = snapshot.pool_of(service, address)?;
    let candidates = match pool.announcement {
        Announcement::None => return None,
        Announcement::Neighbor => candidates(snapshot, service, address, true),
        Announcement::Bgp => candidates(snapshot, service, address, false),
    };
    Some(Announced {
        address,
        service: service.origin(),
        pool: pool.origin(),
        announcement: pool.announcement,
        candidates,
        local: service.outside.policy == TrafficPolicy::Local,
    })
}

/// Whether a change of this object may change who makes which address known. Of a Service that is gone nothing is said:
/// what was planned for it knows.
#[must_use]
pub fn depends_on(snapshot: &Snapshot, key: &Key) -> bool {
    let local = |service: &Service| {
        !balanced(service).is_empty() && service.outside.policy == TrafficPolicy::Local
    };
    match key {
        Key::Service(_) | Key::EndpointSlice(_) if snapshot.pools.is_empty() => false,
        Key::Service(name) => {
            let service = snapshot.services.get(name);
            service.is_some_and(|service| service.outside.load_balancer.is_some())
        }
        Key::EndpointSlice(name) => match snapshot.slices.get(name) {
            Some(slice) => snapshot.services.get(&slice.service).is_some_and(local),
            None => snapshot.services.values().any(local),
        },
        Key::Namespace(_) => {
            let mut pools = snapshot.pools.values();
            pools.any(LoadBalancerPool::reads_namespaces)
        }
        Key::Node(_) | Key::Config | Key::LoadBalancerPool(_) => true,
        Key::Pod(_)
        | Key::NetworkPolicy(_)
        | Key::ClusterNetworkPolicy(_)
        | Key::NodeNetworkPolicy(_) => false,
    }
}

fn balanced(service: &Service) -> &[IpAddr] {
    let balancer = service.outside.load_balancer.as_deref();
    match balancer.is_some_and(|balancer| balancer.wanted && balancer.is_ours()) {
        true => &service.outside.load_balancer_ips,
        false => &[],
    }
}

/// What one node makes known.
#[must_use]
pub fn announcing(snapshot: &Snapshot, node: &Node) -> Vec<Announcing> {
    let mine = announced(snapshot)
        .into_iter()
        .filter(|announced| match announced.announcement {
            Announcement::Neighbor => {
                holder(announced, &node.name, &snapshot.hearing) == Some(&node.name)
            }
            Announcement::Bgp => announced.candidates.contains(&node.name),
            Announcement::None => false,
        });
    mine.filter_map(|announced| {
        let Announced {
            address,
            announcement,
            service,
            ..
        } = announced;
        Some(Announcing {
            address,
            interface: interface(node, address)?,
            announcement,
            origin: service.field("status.loadBalancer.ingress"),
        })
    })
    .collect()
}

/// The peers that a node must hear: with it, they stand in for each other.
#[must_use]
pub fn peers(snapshot: &Snapshot, node: &str) -> BTreeSet<String> {
    let mut peers = BTreeSet::new();
    for announced in announced(snapshot) {
        let standby = announced.candidates.iter().take(STANDBY);
        if announced.announcement == Announcement::Neighbor
            && standby.clone().any(|one| one == node)
        {
            peers.extend(standby.cloned());
        }
    }
    peers.remove(node);
    peers
}

/// Who has an address of a Neighbor pool, as `me` sees it.
///
/// If I am the first of those I hear, I have it, with two exceptions: the next one says that it does not hear me, so
/// it has taken over; or a better one that I do not hear again yet says that it does not hear me, so both of us think
/// that the other is gone.
#[must_use]
pub fn holder<'a>(announced: &'a Announced, me: &str, hearing: &Hearing) -> Option<&'a str> {
    let candidates = || announced.candidates.iter().map(String::as_str);
    let heard = |one: &&str| *one == me || !hearing.silent.contains(*one);
    let first = candidates().find(heard)?;
    if first != me {
        return Some(first);
    }
    let deaf = |one: &&str| hearing.deaf.contains(*one);
    let mut better = candidates().take_while(|one| *one != me);
    let next = candidates().filter(|one| *one != me).find(heard);
    better.find(deaf).or(next.filter(deaf)).or(Some(first))
}

fn candidates(
    snapshot: &Snapshot,
    service: &Service,
    address: IpAddr,
    by_segment: bool,
) -> Vec<String> {
    let near = |node: &&Node| {
        let underlay = node.underlay.as_ref();
        underlay.is_some_and(|underlay| underlay.beside(address).is_some())
    };
    let segment = by_segment && snapshot.nodes.values().any(|node| near(&node));
    let serving = serving(snapshot, service, Family::of(address));
    let nodes = snapshot.nodes.values().filter(|node| {
        interface(node, address).is_some()
            && (!segment || near(node))
            && serving
                .as_ref()
                .is_none_or(|serving| serving.contains(node.name.as_str()))
    });
    let mut ranked: Vec<_> = nodes
        .map(|node| {
            (
                !node.ready,
                u64::MAX - weight(address, &node.name),
                &node.name,
            )
        })
        .collect();
    ranked.sort();
    ranked
        .into_iter()
        .map(|(_, _, name)| name.clone())
        .collect()
}

/// The nodes with endpoints for clients outside; `None` if any node will do.
fn serving<'a>(
    snapshot: &'a Snapshot,
    service: &Service,
    family: Family,
) -> Option<BTreeSet<&'a str>> {
    if service.outside.policy != TrafficPolicy::Local {
        return None;
    }
    let nodes = |takes: fn(&Endpoint) -> bool| -> BTreeSet<&'a str> {
        let slices = snapshot.slices_of(&service.name);
        let slices = slices.filter(|slice| slice.family == Some(family));
        let endpoints = slices.flat_map(|slice| &slice.endpoints);
        let taking = endpoints.filter(|endpoint| takes(endpoint));
        taking
            .filter_map(|endpoint| endpoint.node.as_deref())
            .collect()
    };
    let ready = nodes(|endpoint| endpoint.ready);
    Some(match ready.is_empty() {
        // As for the packets themselves (KEP-1669).
        true => nodes(|endpoint| endpoint.serving && endpoint.terminating),
        false => ready,
    })
}

/// The interface on whose segment an address is made known.
fn interface(node: &Node, address: IpAddr) -> Option<IfName> {
    let underlay = node.underlay.as_ref()?;
    let near = underlay.beside(address);
    let one = near.or_else(|| underlay.of(Family::of(address)))?;
    IfName::new(&one.interface).ok()
}

/// The larger, the better.
fn weight(address: IpAddr, node: &str) -> u64 {
    let hash = fnv1a(&[address.to_string().as_bytes(), b" ", node.as_bytes()]);
    // The hash's last bytes hardly reach its first bits, by which numbers are compared (the finalizer of splitmix64).
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}
