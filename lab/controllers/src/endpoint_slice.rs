//! EndpointSlices: which pods stand behind a Service, and in what state.
//!
//! For each Service with a selector and each of its address families, the pods it selects are put into
//! slices of at most [`MAX_ENDPOINTS`]. A named `targetPort` is looked up in each pod; pods with other
//! numbers get slices of their own. A pod being deleted stays, marked `terminating`, until it is gone
//! (KEP-1672). An endpoint stays in its slice and slices are reused, so that one changed pod is one
//! changed object. A Service nothing stands behind keeps one empty slice per family.
//!
//! Services without a selector are never touched: their endpoints are somebody else's. Left out: the
//! older Endpoints API.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::config::{Config, Family};
use crate::hints::hints;
use crate::names;
use crate::object::{controller_reference, is_terminating, reference};
use crate::pods;
use crate::selector;
use crate::world::{World, name_of, namespace_of, uid_of};
use crate::write::Write;

pub const MAX_ENDPOINTS: usize = 100;
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";

pub fn step(world: &World, config: &Config) -> Vec<Write> {
    let index = Index::new(world);
    world
        .services
        .values()
        .flat_map(|service| reconcile(world, config, &index, service))
        .collect()
}

/// Who may concern a Service, found without looking at everybody for each of thousands of Services.
struct Index<'a> {
    /// Our slices by namespace and Service.
    slices: BTreeMap<(&'a str, &'a str), Vec<&'a EndpointSlice>>,
    /// Pods by namespace and each of their labels.
    pods: BTreeMap<(&'a str, &'a str, &'a str), Vec<&'a Pod>>,
}

impl<'a> Index<'a> {
    fn new(world: &'a World) -> Index<'a> {
        let mut index = Index {
            slices: BTreeMap::new(),
            pods: BTreeMap::new(),
        };
        for slice in world.endpoint_slices.values() {
            let labels = pods::labels(&slice.metadata);
            let ours = labels
                .get(MANAGED_BY)
                .is_some_and(|manager| manager == MANAGER);
            if let Some(service) = labels.get(SERVICE_NAME).filter(|_| ours) {
                let key = (namespace_of(slice), service.as_str());
                index.slices.entry(key).or_default().push(slice);
            }
        }
        for pod in world.pods.values().filter(|pod| !pods::is_finished(pod)) {
            for (label, value) in pods::labels(&pod.metadata) {
                let key = (namespace_of(pod), label.as_str(), value.as_str());
                index.pods.entry(key).or_default().push(pod);
            }
        }
        index
    }

    fn selected(&self, namespace: &str, wanted: &BTreeMap<String, String>) -> Vec<&'a Pod> {
        let Some((label, value)) = wanted.first_key_value() else {
            return Vec::new();
        };
        let candidates = self
            .pods
            .get(&(namespace, label.as_str(), value.as_str()))
            .into_iter()
            .flatten();
        candidates
            .copied()
            .filter(|pod| selector::contains(pod.metadata.labels.as_ref(), wanted))
            .collect()
    }
}

/// The endpoints of one family that share their port numbers.
struct Group {
    family: Family,
    ports: Vec<EndpointPort>,
    endpoints: Vec<Endpoint>,
}

fn reconcile(world: &World, config: &Config, index: &Index, service: &Service) -> Vec<Write> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let Some(wanted) = spec.selector.as_ref().filter(|s| !s.is_empty()) else {
        return Vec::new();
    };
    if spec.type_.as_deref() == Some("ExternalName") || is_terminating(&service.metadata) {
        return Vec::new();
    }
    let namespace = namespace_of(service);
    let selected = index.selected(namespace, wanted);
    let mut unused: Vec<&EndpointSlice> = index
        .slices
        .get(&(namespace, name_of(service)))
        .into_iter()
        .flatten()
        .copied()
        .filter(|slice| !is_terminating(&slice.metadata))
        .collect();
    let groups: Vec<Group> = families(spec, config)
        .into_iter()
        .flat_map(|family| groups(world, service, spec, family, &selected))
        .collect();
    // Slices that already have a group's ports serve that group; only then are others reused.
    let mut homes: Vec<Vec<&EndpointSlice>> = groups
        .iter()
        .map(|group| {
            let fits = |slice: &&EndpointSlice| {
                slice.address_type == group.family.as_str()
                    && port_key(slice.ports.as_deref().unwrap_or_default())
                        == port_key(&group.ports)
            };
            let (fitting, rest) = unused.iter().copied().partition(fits);
            unused = rest;
            fitting
        })
        .collect();
    for (group, home) in groups
        .iter()
        .zip(&mut homes)
        .filter(|(_, home)| home.is_empty())
    {
        let same_family = |slice: &&EndpointSlice| slice.address_type == group.family.as_str();
        if let Some(at) = unused.iter().position(same_family) {
            home.push(unused.remove(at));
        }
    }
    let mut taken: BTreeSet<String> = BTreeSet::new();
    let mut writes: Vec<Write> = groups
        .into_iter()
        .zip(homes)
        .flat_map(|(group, home)| fill(world, service, group, &home, &mut taken))
        .collect();
    writes.extend(
        unused
            .into_iter()
            .map(|slice| Write::delete(reference(slice))),
    );
    writes
}

fn families(spec: &ServiceSpec, config: &Config) -> Vec<Family> {
    let listed: Vec<Family> = spec
        .ip_families
        .iter()
        .flatten()
        .filter_map(|text| Family::parse(text))
        .collect();
    if listed.is_empty() {
        config.families()
    } else {
        listed
    }
}

fn groups(
    world: &World,
    service: &Service,
    spec: &ServiceSpec,
    family: Family,
    selected: &[&Pod],
) -> Vec<Group> {
    let mut by_ports: BTreeMap<PortKey, Group> = BTreeMap::new();
    for pod in selected {
        let Some(address) = address(pod, family) else {
            continue;
        };
        let ports = resolve_ports(spec, Some(pod));
        by_ports
            .entry(port_key(&ports))
            .or_insert_with(|| Group {
                family,
                ports,
                endpoints: Vec::new(),
            })
            .endpoints
            .push(endpoint(world, service, spec, pod, address));
    }
    if by_ports.is_empty() {
        let ports = resolve_ports(spec, None);
        return vec![Group {
            family,
            ports,
            endpoints: Vec::new(),
        }];
    }
    by_ports.into_values().collect()
}

/// The pod's first address of a family.
fn address(pod: &Pod, family: Family) -> Option<String> {
    let status = pod.status.as_ref()?;
    let mut all = status
        .pod_ips
        .iter()
        .flatten()
        .map(|ip| &ip.ip)
        .chain(&status.pod_ip);
    all.find(|text| {
        text.parse::<IpAddr>()
            .is_ok_and(|ip| Family::of(ip) == family)
    })
    .cloned()
}

fn endpoint(
    world: &World,
    service: &Service,
    spec: &ServiceSpec,
    pod: &Pod,
    address: String,
) -> Endpoint {
    let serving = pods::is_ready(pod);
    let terminating = is_terminating(&pod.metadata);
    let not_ready_too = spec.publish_not_ready_addresses.unwrap_or(false);
    let node = pods::node_name(pod);
    let zone = node
        .and_then(|name| world.find::<Node>("", name))
        .and_then(|node| {
            pods::labels(&node.metadata)
                .get("topology.kubernetes.io/zone")
                .cloned()
        });
    let pod_spec = pod.spec.as_ref();
    let ready = not_ready_too || serving && !terminating;
    let in_subdomain = pod_spec
        .and_then(|s| s.subdomain.as_deref())
        .is_some_and(|name| name == name_of(service));
    Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving || not_ready_too),
            terminating: Some(terminating),
        }),
        hostname: pod_spec
            .and_then(|s| s.hostname.clone())
            .filter(|h| in_subdomain && !h.is_empty()),
        hints: ready.then(|| hints(spec, node, zone.as_deref())).flatten(),
        node_name: node.map(str::to_owned),
        zone,
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: Some(namespace_of(pod).to_owned()),
            name: Some(name_of(pod).to_owned()),
            uid: Some(uid_of(pod).to_owned()),
            ..ObjectReference::default()
        }),
        ..Endpoint::default()
    }
}

/// The Service's ports as this pod serves them. A name the pod does not have leaves the port out;
/// so does any name while there is no pod to ask.
fn resolve_ports(spec: &ServiceSpec, pod: Option<&Pod>) -> Vec<EndpointPort> {
    let resolve = |port: &ServicePort| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        let number = match &port.target_port {
            Some(IntOrString::Int(number)) if *number != 0 => *number,
            Some(IntOrString::String(name)) => match name.parse() {
                Ok(number) => number,
                Err(_) => named_port(pod?, name, &protocol)?,
            },
            _ => port.port,
        };
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            port: Some(number),
            protocol: Some(protocol),
            app_protocol: port.app_protocol.clone(),
        })
    };
    let mut ports: Vec<EndpointPort> = spec.ports.iter().flatten().filter_map(resolve).collect();
    ports.sort_by_key(|port| (port.name.clone(), port.port));
    ports
}

fn named_port(pod: &Pod, name: &str, protocol: &str) -> Option<i32> {
    let spec = pod.spec.as_ref()?;
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|c| c.ports.iter().flatten());
    ports
        .filter(|port| port.name.as_deref() == Some(name))
        .find(|port| port.protocol.as_deref().unwrap_or("TCP") == protocol)
        .map(|port| port.container_port)
}

type PortKey = Vec<(String, Option<i32>, String, Option<String>)>;

fn port_key(ports: &[EndpointPort]) -> PortKey {
    let text =
        |value: &Option<String>, default: &str| value.clone().unwrap_or_else(|| default.to_owned());
    let mut key: PortKey = ports
        .iter()
        .map(|p| {
            (
                text(&p.name, ""),
                p.port,
                text(&p.protocol, "TCP"),
                p.app_protocol.clone(),
            )
        })
        .collect();
    key.sort();
    key
}

/// What tells whether an endpoint is still the same one.
fn identity(endpoint: &Endpoint) -> (String, Vec<String>) {
    let uid = endpoint
        .target_ref
        .as_ref()
        .and_then(|target| target.uid.clone());
    (uid.unwrap_or_default(), endpoint.addresses.clone())
}

/// Puts a group's endpoints into its slices: each where it was, new ones where there is room.
fn fill(
    world: &World,
    service: &Service,
    group: Group,
    home: &[&EndpointSlice],
    taken: &mut BTreeSet<String>,
) -> Vec<Write> {
    let mut left: BTreeMap<_, Endpoint> = group
        .endpoints
        .into_iter()
        .map(|endpoint| (identity(&endpoint), endpoint))
        .collect();
    let mut contents: Vec<Vec<Endpoint>> = home
        .iter()
        .map(|slice| {
            let present = slice.endpoints.iter().flatten();
            present
                .filter_map(|endpoint| left.remove(&identity(endpoint)))
                .collect()
        })
        .collect();
    let mut new: Vec<Endpoint> = left.into_values().collect();
    new.sort_by_key(|e| {
        e.target_ref
            .as_ref()
            .map(|t| (t.name.clone(), t.uid.clone()))
    });
    let mut new = new.into_iter().peekable();
    for content in &mut contents {
        let room = MAX_ENDPOINTS.saturating_sub(content.len());
        content.extend(new.by_ref().take(room));
    }
    while new.peek().is_some() || contents.is_empty() {
        contents.push(new.by_ref().take(MAX_ENDPOINTS).collect());
    }
    let mut writes = Vec::new();
    let keep_one_empty = contents.iter().all(Vec::is_empty);
    for (index, content) in contents.into_iter().enumerate() {
        let present = home.get(index).copied();
        match present {
            Some(slice) if content.is_empty() && !(keep_one_empty && index == 0) => {
                writes.push(Write::delete(reference(slice)));
            }
            Some(slice) => {
                let wanted = slice_of(
                    service,
                    group.family,
                    &group.ports,
                    content,
                    slice.metadata.clone(),
                );
                if !same(slice, &wanted) {
                    writes.push(Write::Update(wanted.into()));
                }
            }
            None if world.accepts_new(namespace_of(service)) => {
                let meta = new_meta(world, service, group.family, taken);
                let slice = slice_of(service, group.family, &group.ports, content, meta);
                writes.push(Write::Create(slice.into()));
            }
            None => {}
        }
    }
    writes
}

fn new_meta(
    world: &World,
    service: &Service,
    family: Family,
    taken: &mut BTreeSet<String>,
) -> ObjectMeta {
    let used = |name: &str| {
        taken.contains(name)
            || world
                .find::<EndpointSlice>(namespace_of(service), name)
                .is_some()
    };
    let seed = format!("{}/{}", uid_of(service), family.as_str());
    let name = names::fresh_names(name_of(service), &seed, &[], used)
        .next()
        .unwrap_or_default();
    taken.insert(name.clone());
    ObjectMeta {
        name: Some(name),
        generate_name: Some(format!("{}-", name_of(service))),
        namespace: service.metadata.namespace.clone(),
        owner_references: Some(vec![controller_reference(service)]),
        ..ObjectMeta::default()
    }
}

fn slice_of(
    service: &Service,
    family: Family,
    ports: &[EndpointPort],
    endpoints: Vec<Endpoint>,
    mut metadata: ObjectMeta,
) -> EndpointSlice {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), name_of(service).to_owned());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let headless = service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None");
    if headless {
        labels.insert(HEADLESS.to_owned(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    metadata.labels = Some(labels);
    EndpointSlice {
        address_type: family.as_str().to_owned(),
        endpoints: (!endpoints.is_empty()).then_some(endpoints),
        metadata,
        ports: (!ports.is_empty()).then(|| ports.to_vec()),
    }
}

fn same(present: &EndpointSlice, wanted: &EndpointSlice) -> bool {
    let endpoints = |slice: &EndpointSlice| slice.endpoints.clone().unwrap_or_default();
    let ports = |slice: &EndpointSlice| port_key(slice.ports.as_deref().unwrap_or_default());
    endpoints(present) == endpoints(wanted)
        && ports(present) == ports(wanted)
        && present.metadata.labels == wanted.metadata.labels
}
