//! What each object of the cluster is called.
//!
//! The plan is keyed by object, so that one changed EndpointSlice costs what its Service costs, however
//! many others there are: [`Plan::replan`] takes a changed object and says whose names changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use parfait_cluster::{
    Config, EndpointPort, EndpointSlice, Key, Note, ObjectName, Service, ServiceType, Snapshot,
};
use parfait_dns::Name;
use parfait_packet::{Origin, Protocol};

/// The names of the cluster, before they are records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The cluster's domain.
    pub domain: Name,
    /// The ranges of the cluster's addresses: what has no name there has none anywhere.
    pub networks: Vec<IpNet>,
    /// What each Service is called.
    pub services: BTreeMap<ObjectName, Naming>,
    /// The addresses of the pods that have a network.
    pub pods: BTreeMap<ObjectName, Vec<IpAddr>>,
    /// The namespaces, whose names exist even when nothing is in them.
    pub namespaces: BTreeSet<String>,
    /// What could not be named, by object.
    pub notes: BTreeMap<ObjectName, Vec<Note>>,
    /// The Service of each slice, to know whom it concerned when it is gone.
    slices: BTreeMap<ObjectName, ObjectName>,
}

/// How a Service is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Naming {
    /// By its clusterIPs.
    Virtual {
        /// `spec.clusterIPs`.
        addresses: Vec<IpAddr>,
        /// Its named ports.
        ports: Vec<NamedPort>,
    },
    /// Headless: by its endpoints.
    Headless {
        /// The endpoints that are ready, ordered by label and address.
        hosts: Vec<Host>,
    },
    /// As an alias of another name.
    Alias {
        /// `spec.externalName`.
        target: Name,
    },
}

/// A port with a name, which gets an SRV record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedPort {
    /// Its name.
    pub name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number: the Service's for a virtual one, the endpoint's for a headless one.
    pub port: u16,
    /// Where it is declared.
    pub origin: Origin,
}

/// One endpoint of a headless Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Host {
    /// Its hostname, or its address with dashes where it has none.
    pub label: String,
    /// Its address.
    pub address: IpAddr,
    /// Its named ports.
    pub ports: Vec<NamedPort>,
    /// Where it is declared.
    pub origin: Origin,
}

/// Whose names changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A Service's; what it was called before.
    Service(ObjectName, Option<Naming>),
    /// A pod's; the addresses it had before.
    Pod(ObjectName, Vec<IpAddr>),
    /// A namespace's.
    Namespace(String),
    /// Everything's: the domain or the networks are others.
    All,
}

/// Decides what everything in the cluster is called.
#[must_use]
pub fn plan(snapshot: &Snapshot) -> Plan {
    let mut plan = Plan::empty(&snapshot.config);
    for name in snapshot.services.keys() {
        plan.replan_service(snapshot, name);
    }
    for name in snapshot.pods.keys() {
        plan.replan_pod(snapshot, name);
    }
    plan.namespaces = snapshot.namespaces.keys().cloned().collect();
    let slices = snapshot.slices.values();
    plan.slices = slices
        .map(|s| (s.name.clone(), s.service.clone()))
        .collect();
    plan
}

impl Plan {
    /// Decides anew about one object that was added, changed or removed, and what depends on it.
    pub fn replan(&mut self, snapshot: &Snapshot, key: &Key) -> Vec<Change> {
        match key {
            Key::Service(name) => self.replan_service(snapshot, name).into_iter().collect(),
            Key::EndpointSlice(name) => {
                let before = self.slices.remove(name);
                let now = snapshot.slices.get(name).map(|slice| slice.service.clone());
                if let Some(service) = &now {
                    self.slices.insert(name.clone(), service.clone());
                }
                let concerned: BTreeSet<_> = before.into_iter().chain(now).collect();
                let services = concerned.iter();
                services
                    .filter_map(|s| self.replan_service(snapshot, s))
                    .collect()
            }
            Key::Pod(name) => self.replan_pod(snapshot, name).into_iter().collect(),
            Key::Namespace(name) => {
                let changed = match snapshot.namespaces.contains_key(name) {
                    true => self.namespaces.insert(name.clone()),
                    false => self.namespaces.remove(name),
                };
                let change = changed.then(|| Change::Namespace(name.clone()));
                change.into_iter().collect()
            }
            Key::Config => {
                let fresh = Self::empty(&snapshot.config);
                if fresh.domain == self.domain && fresh.networks == self.networks {
                    return Vec::new();
                }
                *self = plan(snapshot);
                vec![Change::All]
            }
            Key::Node(_)
            | Key::NetworkPolicy(_)
            | Key::ClusterNetworkPolicy(_)
            | Key::NodeNetworkPolicy(_)
            | Key::LoadBalancerPool(_) => Vec::new(),
        }
    }

    /// All notes, ordered by object.
    pub fn notes(&self) -> impl Iterator<Item = &Note> {
        self.notes.values().flatten()
    }

    /// The domain of Services: `svc.cluster.local.`; `None` only if the cluster's domain is too long.
    #[must_use]
    pub fn services_domain(&self) -> Option<Name> {
        self.domain.child("svc").ok()
    }

    /// A Service's name.
    #[must_use]
    pub fn service_name(&self, service: &ObjectName) -> Option<Name> {
        let namespace = self.services_domain()?.child(&service.namespace).ok()?;
        namespace.child(&service.name).ok()
    }

    fn empty(config: &Config) -> Self {
        // Config::check has seen to it that the domain is a name.
        let domain = config
            .cluster_domain
            .parse()
            .unwrap_or_else(|_| Name::root());
        Self {
            domain,
            networks: [&config.service_cidrs[..], &config.cluster_cidrs[..]].concat(),
            services: BTreeMap::new(),
            pods: BTreeMap::new(),
            namespaces: BTreeSet::new(),
            notes: BTreeMap::new(),
            slices: BTreeMap::new(),
        }
    }

    fn replan_service(&mut self, snapshot: &Snapshot, name: &ObjectName) -> Option<Change> {
        let mut notes = Vec::new();
        let service = snapshot.services.get(name);
        let naming = service.and_then(|service| naming(snapshot, service, &mut notes));
        match notes.is_empty() {
            true => self.notes.remove(name),
            false => self.notes.insert(name.clone(), notes),
        };
        if self.services.get(name) == naming.as_ref() {
            return None;
        }
        let before = match naming {
            Some(naming) => self.services.insert(name.clone(), naming),
            None => self.services.remove(name),
        };
        Some(Change::Service(name.clone(), before))
    }

    fn replan_pod(&mut self, snapshot: &Snapshot, name: &ObjectName) -> Option<Change> {
        let pod = snapshot.pods.get(name).filter(|pod| pod.has_network());
        let addresses = pod.map(|pod| pod.addresses.clone());
        if self.pods.get(name) == addresses.as_ref() {
            return None;
        }
        let before = match addresses {
            Some(addresses) => self.pods.insert(name.clone(), addresses),
            None => self.pods.remove(name),
        };
        Some(Change::Pod(name.clone(), before.unwrap_or_default()))
    }
}

/// Decides how a Service is called. `None` if it cannot be.
fn naming(snapshot: &Snapshot, service: &Service, notes: &mut Vec<Note>) -> Option<Naming> {
    if let ServiceType::ExternalName(target) = &service.kind {
        return match target.parse() {
            Ok(target) => Some(Naming::Alias { target }),
            Err(error) => {
                let origin = service.origin().field("spec.externalName");
                notes.push(Note::new(
                    origin,
                    format!("{error}; the Service has no name"),
                ));
                None
            }
        };
    }
    if service.headless {
        let hosts = hosts(snapshot, service, notes);
        return Some(Naming::Headless { hosts });
    }
    let ports = service.ports.iter().filter_map(|port| {
        Some(NamedPort {
            name: port.name.clone()?,
            protocol: port.protocol,
            port: port.port,
            origin: service.port_origin(port),
        })
    });
    Some(Naming::Virtual {
        addresses: service.cluster_ips.clone(),
        ports: ports.collect(),
    })
}

/// The endpoints of a headless Service that are ready, or all if it publishes those that are not. One
/// that stands in several slices, as it may while they are rearranged, is one.
fn hosts(snapshot: &Snapshot, service: &Service, notes: &mut Vec<Note>) -> Vec<Host> {
    let mut hosts = BTreeMap::<(String, IpAddr), Host>::new();
    for slice in snapshot.slices_of(&service.name) {
        let ports = slice.ports.iter();
        let ports: Vec<_> = ports.filter_map(|port| named(slice, port)).collect();
        for endpoint in &slice.endpoints {
            if !(endpoint.ready || service.publish_not_ready) {
                continue;
            }
            let address = endpoint.address;
            let origin = slice.origin().field(&format!("endpoints[{address}]"));
            let label = match endpoint.hostname.as_deref() {
                Some(hostname) if is_label(hostname) => hostname.to_owned(),
                Some(hostname) => {
                    let text = format!(
                        "hostname {hostname:?} is no DNS label; the endpoint is named by its address"
                    );
                    notes.push(Note::new(origin.clone(), text));
                    dashed(address)
                }
                None => dashed(address),
            };
            let host = Host {
                label: label.clone(),
                address,
                ports: ports.clone(),
                origin,
            };
            let known = hosts
                .entry((label, address))
                .or_insert_with(|| host.clone());
            for port in host.ports {
                if !known.ports.iter().any(|p| {
                    (&p.name, p.protocol, p.port) == (&port.name, port.protocol, port.port)
                }) {
                    known.ports.push(port);
                }
            }
        }
    }
    hosts.into_values().collect()
}

fn named(slice: &EndpointSlice, port: &EndpointPort) -> Option<NamedPort> {
    let name = port.name.clone().filter(|name| !name.is_empty())?;
    Some(NamedPort {
        origin: slice.origin().field(&format!("ports[{name}]")),
        name,
        protocol: port.protocol,
        port: port.port,
    })
}

/// A label of RFC 1123: lower-case letters, digits and inner dashes.
fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// `10-244-1-2`, or `fd00-10-244--2`: an address as a label.
pub(crate) fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}
