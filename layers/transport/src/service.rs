//! [`ServicePlan`]: one Service on one node. Where its packets arrive, and where each may go on to.
//!
//! ```text
//!   10.96.0.20:80     ClusterIP      ─┐ inside, by internalTrafficPolicy
//!   203.0.113.9:80    LoadBalancer   ─┤ outside, by externalTrafficPolicy; from inside the cluster: any endpoint
//!   192.168.77.11:30080  NodePort    ─┘
//! ```
//!
//! A client within the cluster that uses an address meant for outside is served by any endpoint, whatever
//! `externalTrafficPolicy` says: `Local` protects the address of an outside client, which it is not
//! (KEP-3866; kube-proxy does the same).

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use parfait_cluster::{
    Endpoint, Note, ObjectName, Service, ServicePort, ServiceType, Snapshot, TrafficPolicy,
};
use parfait_packet::{Family, Origin, Protocol};
use serde::{Deserialize, Serialize};

use crate::listing::{Counted, Known, Listing, MOST};
use crate::plan::{Claim, Common};
use crate::topology::{Group, Here};

/// An address and port that clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Frontend {
    /// The address: the Service's own, one that leads here from outside, or the node's.
    pub address: IpAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

/// By which of a Service's addresses packets arrive. If two Services claim the same [`Frontend`], the
/// one whose kind comes first here has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Arrival {
    /// `spec.clusterIPs`.
    ClusterIp,
    /// `status.loadBalancer.ingress`.
    LoadBalancer,
    /// `spec.externalIPs`.
    ExternalIp,
    /// `spec.ports[].nodePort` at one of the node's addresses.
    NodePort,
}

impl Arrival {
    /// The field of the Service, as `kubectl explain` spells it.
    #[must_use]
    pub const fn field(self) -> &'static str {
        match self {
            Self::ClusterIp => "spec.clusterIPs",
            Self::LoadBalancer => "status.loadBalancer.ingress",
            Self::ExternalIp => "spec.externalIPs",
            Self::NodePort => "spec.ports[].nodePort",
        }
    }
}

/// What stands behind a [`Frontend`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Virtual {
    /// By which address packets arrive.
    pub arrival: Arrival,
    /// The Service and its port.
    pub origin: Origin,
    /// All endpoints that slices list for it.
    pub(crate) listing: Listing,
    /// Where connections of clients in the cluster go: its pods and nodes.
    pub inside: Arc<Pool>,
    /// Where those of all others go. The same pool, unless `externalTrafficPolicy` makes a difference.
    pub outside: Arc<Pool>,
    /// How many seconds a client keeps its endpoint.
    pub affinity: Option<u32>,
    /// Who may connect; `None` is everybody.
    pub sources: Option<Arc<[IpNet]>>,
}

impl Virtual {
    /// Whether it matters where the client is.
    #[must_use]
    pub fn splits(&self) -> bool {
        !Arc::ptr_eq(&self.inside, &self.outside)
    }

    /// Whether it leads where another does, whatever else is listed for the two.
    fn leads_as(&self, other: &Self) -> bool {
        let rest = |behind: &Self| (behind.arrival, behind.affinity, behind.splits());
        rest(self) == rest(other)
            && self.origin == other.origin
            && self.sources == other.sources
            && self.inside == other.inside
            && self.outside == other.outside
    }

    /// Whether nobody's connections go anywhere.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inside.backends.is_empty() && self.outside.backends.is_empty()
    }
}

/// The endpoints that share new connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The policy that chose them.
    pub policy: TrafficPolicy,
    /// Some endpoint takes connections, if not here.
    pub elsewhere: bool,
    /// Of which endpoints they are chosen.
    pub(crate) wanted: Group,
    /// Where new connections go, each with the same probability, ordered by address.
    pub backends: Vec<Backend>,
}

/// One endpoint of a Service's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The endpoint, as its slice has it.
    pub endpoint: Arc<Endpoint>,
    /// Its port.
    pub port: u16,
    /// The EndpointSlice that lists it.
    pub origin: Origin,
}

impl Backend {
    /// Its address and port.
    #[must_use]
    pub fn socket(&self) -> (IpAddr, u16) {
        (self.endpoint.address, self.port)
    }
}

impl Ord for Backend {
    fn cmp(&self, other: &Self) -> Ordering {
        let sockets = self.socket().cmp(&other.socket());
        sockets.then_with(|| self.origin.cmp(&other.origin))
    }
}

impl PartialOrd for Backend {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Why an endpoint gets no new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassedOver {
    /// Its readiness probe fails, or has not passed yet.
    NotReady,
    /// Its pod is being deleted, and others are ready.
    Terminating,
    /// The traffic policy is `Local`.
    OnAnotherNode,
    /// It is hinted for other nodes, and others are for this one.
    ForAnotherNode,
    /// It is hinted for other zones, and others are for this one.
    ForAnotherZone,
    /// There are more than a node leads to (`MOST`), and this one's are others.
    BeyondMost,
}

impl PassedOver {
    /// In words.
    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::NotReady => "not ready",
            Self::Terminating => "terminating",
            Self::OnAnotherNode => "on another node",
            Self::ForAnotherNode => "hinted for other nodes",
            Self::ForAnotherZone => "hinted for other zones",
            Self::BeyondMost => "left to other nodes, as there are too many for one",
        }
    }
}

/// One Service on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePlan {
    /// The Service.
    pub service: ObjectName,
    /// `metadata.creationTimestamp`: of two that claim the same, the older has it.
    pub created: Option<i64>,
    /// Every address and port where its packets arrive.
    pub frontends: BTreeMap<Frontend, Virtual>,
    /// What another Service has of them and of the addresses.
    pub lost: BTreeMap<Claim, ObjectName>,
    /// Its own addresses, also if it has no ports: nobody else answers there.
    pub cluster_ips: BTreeMap<IpAddr, Origin>,
    /// Those of its addresses that lead here from outside.
    pub outside_ips: BTreeMap<IpAddr, Origin>,
    /// `spec.healthCheckNodePort`, with how many local endpoints take connections from outside.
    pub health_check: Option<(u16, usize)>,
    /// What of it could not be planned.
    pub notes: Vec<Note>,
}

impl ServicePlan {
    /// The frontends that packets reach this Service by.
    pub fn held(&self) -> impl Iterator<Item = (&Frontend, &Virtual)> {
        let frontends = self.frontends.iter();
        frontends.filter(|(at, behind)| self.holds(at, behind))
    }

    /// The Service's addresses, in the order of precedence, but for those that nodes answer themselves: whoever
    /// could have one of them would be the cluster's DNS.
    fn arriving(&mut self, service: &Service, common: &Common) -> Vec<(Arrival, IpAddr)> {
        let outside = &service.outside;
        let mut arriving = Vec::new();
        for (arrival, addresses) in [
            (Arrival::ClusterIp, &service.cluster_ips),
            (Arrival::LoadBalancer, &outside.load_balancer_ips),
            (Arrival::ExternalIp, &outside.external_ips),
        ] {
            let origin = service.origin().field(arrival.field());
            for address in addresses {
                if let Some(owner) = common.served.get(address) {
                    let message = format!(
                        "{address} belongs to Service {owner}, which every node answers itself; it is left out here"
                    );
                    self.notes.push(Note::new(origin.clone(), message));
                    continue;
                }
                let own = match arrival {
                    Arrival::ClusterIp => &mut self.cluster_ips,
                    _ => &mut self.outside_ips,
                };
                own.entry(*address).or_insert_with(|| origin.clone());
                arriving.push((arrival, *address));
            }
        }
        arriving
    }

    /// Whether its packets go where those of another plan of the same Service go.
    pub(crate) fn leads_as(&self, other: &Self) -> bool {
        let mut frontends = self.frontends.iter().zip(&other.frontends);
        self.frontends.len() == other.frontends.len()
            && self.lost == other.lost
            && self.cluster_ips == other.cluster_ips
            && self.outside_ips == other.outside_ips
            && frontends.all(|((at, ours), (there, theirs))| at == there && ours.leads_as(theirs))
    }

    pub(crate) fn holds(&self, at: &Frontend, behind: &Virtual) -> bool {
        let lost = |claim| self.lost.contains_key(&claim);
        // Of an own address that another Service has, every port is the other's.
        let own = behind.arrival == Arrival::ClusterIp;
        !(lost(Claim::Frontend(*at)) || own && lost(Claim::Address(at.address)))
    }

    /// Those of `addresses` that no other Service has.
    pub(crate) fn held_of<'a>(
        &'a self,
        addresses: &'a BTreeMap<IpAddr, Origin>,
    ) -> impl Iterator<Item = (&'a IpAddr, &'a Origin)> {
        let lost = |address: &IpAddr| self.lost.contains_key(&Claim::Address(*address));
        addresses.iter().filter(move |(address, _)| !lost(address))
    }
}

/// Cluster DNS and its like are answered on the node itself; an ExternalName is only a name; and some say by a label that
/// they are another program's.
pub(crate) fn is_ours(service: &Service) -> bool {
    let name = matches!(service.kind, ServiceType::ExternalName(_));
    !(service.served_by_node || name || service.left_by.is_some())
}

/// Plans one Service. What was planned `earlier` for the same node and zone is used again.
pub(crate) fn plan_service(
    snapshot: &Snapshot,
    service: &Service,
    here: &Here,
    common: &Common,
    earlier: Option<&ServicePlan>,
) -> ServicePlan {
    let known = Known::of(earlier);
    let slices = snapshot.slices_of(&service.name);
    let slices: Vec<Counted> = slices.map(|slice| known.count(slice, here)).collect();
    let mut plan = ServicePlan {
        service: service.name.clone(),
        created: service.created,
        frontends: BTreeMap::new(),
        lost: BTreeMap::new(),
        cluster_ips: BTreeMap::new(),
        outside_ips: BTreeMap::new(),
        health_check: None,
        notes: Vec::new(),
    };
    let arriving = plan.arriving(service, common);
    for family in Family::ALL {
        let sources = sources(service, family, common, &mut plan.notes);
        for port in &service.ports {
            let pools = Pools::of(Listing::of(&slices, port, family), service, here);
            let mut add = |arrival, address: IpAddr, number| {
                let frontend = Frontend {
                    address,
                    protocol: port.protocol,
                    port: number,
                };
                let restricted = arrival == Arrival::LoadBalancer;
                let behind = Virtual {
                    sources: sources.clone().filter(|_| restricted),
                    ..pools.behind(service, port, arrival)
                };
                plan.frontends.entry(frontend).or_insert(behind);
            };
            let of_family = |address: &IpAddr| Family::of(*address) == family;
            for (arrival, address) in arriving.iter().filter(|(_, ip)| of_family(ip)) {
                add(*arrival, *address, port.port);
            }
            if let Some(number) = port.node_port {
                let addresses = common.node_addresses.iter();
                for address in addresses.filter(|ip| of_family(ip)) {
                    add(Arrival::NodePort, *address, number);
                }
            }
        }
    }
    plan.health_check = health_check(&slices, service, here);
    plan.notes.extend(strays(snapshot, service));
    plan.notes.extend(too_many(service, &plan.frontends));
    plan
}

/// That a Service has more endpoints than a node leads to.
fn too_many(service: &Service, frontends: &BTreeMap<Frontend, Virtual>) -> Option<Note> {
    let wanted = |behind: &Virtual| {
        let pools = [&behind.inside, &behind.outside].into_iter();
        // Only where there are so many is there anything to count.
        let full = pools.filter(|pool| pool.backends.len() == MOST);
        full.map(|pool| behind.listing.census().count(pool.wanted))
            .max()
    };
    let most = frontends.values().filter_map(wanted).max();
    let most = most.filter(|most| *most > MOST)?;
    let message = format!(
        "{most} endpoints would take connections; each node leads to {MOST} of them, and each to others"
    );
    Some(Note::new(service.origin(), message))
}

/// Own addresses that the configured ranges do not have, if they have any of that family.
fn strays<'a>(snapshot: &'a Snapshot, service: &'a Service) -> impl Iterator<Item = Note> + 'a {
    let ranges = &snapshot.config.service_cidrs;
    let is_stray = |address: &&IpAddr| {
        let family = Family::of(**address);
        let of_family = ranges.iter().filter(|net| Family::of(net.addr()) == family);
        let of_family: Vec<_> = of_family.collect();
        !of_family.is_empty() && !of_family.iter().any(|net| net.contains(*address))
    };
    service.cluster_ips.iter().filter(is_stray).map(|address| {
        let message = format!(
            "{address} lies in none of the configured serviceCIDRs; it is served, but what no Service has next to it is \
             not refused, and if it is a pod's as well, the pod is not reached"
        );
        Note::new(service.origin().field("spec.clusterIPs"), message)
    })
}

/// Who may use the load balancer's addresses of a family. As with kube-proxy (`newBaseServiceInfo`), ranges of the other
/// family say nothing about this one.
///
/// Whoever may use them from this node's own address, as its programs do, may from the load balancer's address itself: that
/// is their source where the node has it, as one that announces it does (`allowFromNode` of kube-proxy's
/// `writeServiceToTables`).
fn sources(
    service: &Service,
    family: Family,
    common: &Common,
    notes: &mut Vec<Note>,
) -> Option<Arc<[IpNet]>> {
    let ranges = service.outside.source_ranges.as_deref()?;
    let of_family = ranges.iter().filter(|net| Family::of(net.addr()) == family);
    let mut of_family: Vec<IpNet> = of_family.copied().collect();
    let addresses = service.outside.load_balancer_ips.iter();
    let mut addresses = addresses.filter(|address| Family::of(**address) == family);
    if !of_family.is_empty() || ranges.is_empty() {
        let is_pods = |own: &IpAddr| common.own_pods.keys().any(|net| net.contains(own));
        let mut own = common.own.iter().filter(|own| !is_pods(own));
        if own.any(|own| of_family.iter().any(|net| net.contains(own))) {
            of_family.extend(addresses.map(|address| IpNet::from(*address)));
        }
        return Some(of_family.into());
    }
    if let Some(open) = addresses.next() {
        let message = format!("none of the ranges is {family}; everybody may connect to {open}");
        let field = service.origin().field("spec.loadBalancerSourceRanges");
        notes.push(Note::new(field, message));
    }
    None
}

/// The pools of one Service port and family; policies that come to the same share one.
struct Pools {
    listing: Listing,
    cluster: Arc<Pool>,
    internal: Arc<Pool>,
    external: Arc<Pool>,
}

impl Pools {
    fn of(listing: Listing, service: &Service, here: &Here) -> Self {
        let cluster = Arc::new(listing.pool(TrafficPolicy::Cluster, here));
        let by = |policy| match policy {
            TrafficPolicy::Cluster => cluster.clone(),
            TrafficPolicy::Local => Arc::new(listing.pool(policy, here)),
        };
        Self {
            internal: by(service.internal_policy),
            external: by(service.outside.policy),
            cluster,
            listing,
        }
    }

    fn behind(&self, service: &Service, port: &ServicePort, arrival: Arrival) -> Virtual {
        let (inside, outside) = match arrival {
            Arrival::ClusterIp => (&self.internal, &self.internal),
            Arrival::LoadBalancer | Arrival::ExternalIp | Arrival::NodePort => {
                (&self.cluster, &self.external)
            }
        };
        Virtual {
            arrival,
            origin: service.port_origin(port),
            listing: self.listing.clone(),
            inside: inside.clone(),
            outside: outside.clone(),
            affinity: service.affinity,
            sources: None,
        }
    }
}

/// The endpoints here, of any port and family, each counted once (as kube-proxy does).
fn health_check(slices: &[Counted], service: &Service, here: &Here) -> Option<(u16, usize)> {
    let port = service.outside.health_check_node_port?;
    if service.outside.policy != TrafficPolicy::Local {
        return None;
    }
    let slices = slices
        .iter()
        .filter(|counted| counted.census.has(Group::Here));
    let endpoints = slices.flat_map(|counted| &counted.slice.endpoints);
    let ready = endpoints.filter(|endpoint| Group::Here.has(endpoint, here));
    let pods: BTreeSet<_> = ready
        .map(|endpoint| match &endpoint.pod {
            Some(pod) => (Some(pod), None),
            None => (None, Some(endpoint.address)),
        })
        .collect();
    Some((port, pods.len()))
}
