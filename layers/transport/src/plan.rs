//! Which endpoints stand behind each virtual address and port.
//!
//! Ready endpoints; where there are none, those that still serve while they terminate (KEP-1669);
//! where there are none of these either, connections are refused.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use parfait_cluster::{
    Config, Endpoint, EndpointSlice, Note, ObjectName, Service, ServicePort, ServiceType, Snapshot,
};
use parfait_packet::{Family, Kind, Origin, Protocol};

use crate::host_ports::{self, HostPorts};

/// A virtual address and port: what a client connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frontend {
    /// The Service's address.
    pub address: IpAddr,
    /// The protocol.
    pub protocol: Protocol,
    /// The Service's port.
    pub port: u16,
}

/// What stands behind a [`Frontend`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Virtual {
    /// The Service.
    pub service: ObjectName,
    /// The Service and its port.
    pub origin: Origin,
    /// Where new connections go, each with the same probability, ordered by address.
    pub backends: Vec<Backend>,
    /// Endpoints that get no new connections, and why not.
    pub passed_over: Vec<(Backend, PassedOver)>,
}

/// One endpoint of a [`Virtual`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backend {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// The node it is on.
    pub node: Option<String>,
    /// The pod it is.
    pub pod: Option<ObjectName>,
    /// The EndpointSlice that lists it.
    pub origin: Origin,
}

/// Why an endpoint gets no new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassedOver {
    /// Its readiness probe fails, or has not passed yet.
    NotReady,
    /// Its pod is being deleted, and others are ready.
    Terminating,
}

impl PassedOver {
    /// In words.
    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::NotReady => "not ready",
            Self::Terminating => "terminating",
        }
    }
}

/// What the transport layer wants of every node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Every virtual address and port.
    pub frontends: BTreeMap<Frontend, Virtual>,
    /// Every virtual address, also of Services without ports: nobody else answers there.
    pub addresses: BTreeMap<IpAddr, Origin>,
    /// The ranges that Services' addresses come from: the others there are nobody's.
    pub networks: BTreeMap<IpNet, Origin>,
    /// Addresses of Services that each node's agent answers itself.
    pub served: BTreeSet<IpAddr>,
    /// The host ports of every node that has some, by its name.
    pub host_ports: BTreeMap<String, HostPorts>,
    /// What could not be planned.
    pub notes: Vec<Note>,
}

/// Plans all Services and host ports of the snapshot.
#[must_use]
pub fn plan(snapshot: &Snapshot) -> Plan {
    let mut plan = Plan {
        served: served(snapshot),
        ..Plan::default()
    };
    plan.find_networks(snapshot);
    plan.host_ports = host_ports::plan(snapshot, &mut plan.notes);
    for service in snapshot
        .services
        .values()
        .filter(|service| is_ours(service))
    {
        for address in &service.cluster_ips {
            if let Some(owner) = plan.addresses.get(address) {
                let message = format!("{address} already belongs to {owner}; it is left out here");
                plan.notes.push(Note::new(
                    service.origin().field("spec.clusterIPs"),
                    message,
                ));
                continue;
            }
            let origin = service.origin().field("spec.clusterIPs");
            plan.addresses.insert(*address, origin);
            for port in &service.ports {
                let frontend = Frontend {
                    address: *address,
                    protocol: port.protocol,
                    port: port.port,
                };
                plan.frontends
                    .insert(frontend, stand_behind(snapshot, service, port, *address));
            }
        }
    }
    plan
}

impl Plan {
    /// The host ports of a node.
    #[must_use]
    pub fn host_ports_of(&self, node: &str) -> &HostPorts {
        static NONE: HostPorts = HostPorts::new();
        self.host_ports.get(node).unwrap_or(&NONE)
    }

    /// The configured ranges; none that nodes or pods have a part in, which could then not be reached.
    fn find_networks(&mut self, snapshot: &Snapshot) {
        let name = Config::object_name();
        let config = Origin::new(Kind::ConfigMap, &name.namespace, &name.name);
        for range in &snapshot.config.service_cidrs {
            let range = range.trunc();
            let origin = config.clone().field("serviceCIDRs");
            let mut nodes = snapshot.nodes.values();
            let node = nodes.find(|node| {
                let overlaps = |cidr: &IpNet| cidr.contains(&range) || range.contains(cidr);
                node.addresses.iter().any(|own| range.contains(own))
                    || node.pod_cidrs.iter().any(overlaps)
            });
            match node {
                Some(node) => {
                    let message = format!(
                        "{range} holds addresses of {} or its pods; what no Service has there is not refused",
                        node.origin()
                    );
                    self.notes.push(Note::new(origin, message));
                }
                None => {
                    self.networks.insert(range, origin);
                }
            }
        }
    }
}

fn served(snapshot: &Snapshot) -> BTreeSet<IpAddr> {
    let services = snapshot.services.values();
    services
        .filter(|service| service.served_by_node)
        .flat_map(|service| service.cluster_ips.iter().copied())
        .collect()
}

/// Cluster DNS and its like are answered on the node itself; an ExternalName is only a name.
fn is_ours(service: &Service) -> bool {
    !service.served_by_node && !matches!(service.kind, ServiceType::ExternalName(_))
}

fn stand_behind(
    snapshot: &Snapshot,
    service: &Service,
    port: &ServicePort,
    address: IpAddr,
) -> Virtual {
    let family = Family::of(address);
    let mut ready = Vec::new();
    let mut serving = Vec::new();
    let mut not_ready = Vec::new();
    let slices = snapshot
        .slices_of(&service.name)
        .filter(|slice| slice.family == family);
    for (slice, endpoint, number) in slices.flat_map(|slice| endpoints_for(slice, port)) {
        let backend = backend(slice, endpoint, number);
        match (endpoint.ready, endpoint.serving && endpoint.terminating) {
            (true, _) => ready.push(backend),
            (false, true) => serving.push(backend),
            (false, false) => not_ready.push((
                backend,
                if endpoint.terminating {
                    PassedOver::Terminating
                } else {
                    PassedOver::NotReady
                },
            )),
        }
    }
    let mut passed_over = not_ready;
    let mut backends = if ready.is_empty() {
        serving
    } else {
        passed_over.extend(serving.into_iter().map(|b| (b, PassedOver::Terminating)));
        ready
    };
    backends.sort();
    // The same endpoint may stand in two slices while a controller moves it.
    backends.dedup_by(|a, b| (a.address, a.port) == (b.address, b.port));
    let chosen: BTreeSet<_> = backends.iter().map(|b| (b.address, b.port)).collect();
    passed_over.retain(|(b, _)| !chosen.contains(&(b.address, b.port)));
    passed_over.sort_by(|a, b| a.0.cmp(&b.0));
    Virtual {
        service: service.name.clone(),
        origin: service.port_origin(port),
        backends,
        passed_over,
    }
}

/// The endpoints of a slice, with the number that the Service's port has there.
fn endpoints_for<'a>(
    slice: &'a EndpointSlice,
    port: &ServicePort,
) -> impl Iterator<Item = (&'a EndpointSlice, &'a Endpoint, u16)> {
    let number = slice
        .ports
        .iter()
        .find(|candidate| candidate.name == port.name && candidate.protocol == port.protocol)
        .map(|found| found.port);
    slice
        .endpoints
        .iter()
        .filter_map(move |endpoint| Some((slice, &**endpoint, number?)))
}

fn backend(slice: &EndpointSlice, endpoint: &Endpoint, port: u16) -> Backend {
    Backend {
        address: endpoint.address,
        port,
        node: endpoint.node.clone(),
        pod: endpoint.pod.clone(),
        origin: slice.origin(),
    }
}
