//! Services and EndpointSlices.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use parfait_packet::{Family, Kind, Origin};

use super::{addresses, balancer, is_usable, port, protocol, traffic};
use crate::{
    Distribution, Endpoint, EndpointPort, EndpointSlice, Note, ObjectName, Outside, Service,
    ServicePort, ServiceType, TargetPort, TrafficPolicy,
};

/// The label that ties an EndpointSlice to its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

pub(super) fn service(service: &core::Service, notes: &mut Vec<Note>) -> Option<Service> {
    let metadata = &service.metadata;
    let spec = service.spec.clone().unwrap_or_default();
    let mut parsed = Service {
        name: ObjectName::new(
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.name.as_deref()?,
        ),
        created: metadata
            .creation_timestamp
            .as_ref()
            .map(|time| time.0.as_second()),
        kind: ServiceType::ClusterIp,
        cluster_ips: Vec::new(),
        headless: spec.cluster_ip.as_deref() == Some("None"),
        ports: Vec::new(),
        selector: spec.selector.clone().unwrap_or_default(),
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or_default(),
        served_by_node: metadata
            .annotations
            .as_ref()
            .and_then(|annotations| annotations.get(Service::SERVED_BY))
            .is_some_and(|by| by == "node"),
        left_by: Service::OTHERS.into_iter().find(|label| {
            let labels = metadata.labels.as_ref();
            labels.is_some_and(|labels| labels.contains_key(*label))
        }),
        labels: BTreeMap::new(),
        outside: Outside::default(),
        internal_policy: TrafficPolicy::Cluster,
        affinity: None,
        distribution: Distribution::Even,
    };
    if parsed.served_by_node {
        parsed.labels = metadata.labels.clone().unwrap_or_default();
    }
    let origin = parsed.origin();
    parsed.kind = service_type(&spec, &origin, notes)?;
    parsed.cluster_ips = cluster_ips(&spec, &origin, notes);
    parsed.ports = service_ports(&spec, &origin, notes);
    parsed.outside = traffic::outside(&spec, service.status.as_ref(), &origin, notes);
    parsed.outside.load_balancer = balancer::of_service(service, &origin, notes);
    let internal = spec.internal_traffic_policy.as_deref();
    let field = origin.clone().field("spec.internalTrafficPolicy");
    parsed.internal_policy = traffic::policy(internal, &field, notes);
    parsed.affinity = traffic::affinity(&spec, &origin, notes);
    parsed.distribution = traffic::distribution(&spec, &origin, notes);
    Some(parsed)
}

fn service_type(
    spec: &core::ServiceSpec,
    origin: &Origin,
    notes: &mut Vec<Note>,
) -> Option<ServiceType> {
    match spec.type_.as_deref().unwrap_or("ClusterIP") {
        "ClusterIP" => Some(ServiceType::ClusterIp),
        "NodePort" => Some(ServiceType::NodePort),
        "LoadBalancer" => Some(ServiceType::LoadBalancer),
        "ExternalName" => Some(ServiceType::ExternalName(
            spec.external_name.clone().unwrap_or_default(),
        )),
        other => {
            notes.push(Note::new(
                origin.clone().field("spec.type"),
                format!("unknown type {other:?}; the Service is left out"),
            ));
            None
        }
    }
}

fn cluster_ips(spec: &core::ServiceSpec, origin: &Origin, notes: &mut Vec<Note>) -> Vec<IpAddr> {
    let many = spec.cluster_ips.clone().unwrap_or_default();
    let texts = if many.is_empty() {
        spec.cluster_ip.iter().cloned().collect()
    } else {
        many
    };
    let given = texts
        .iter()
        .filter(|text| !text.is_empty() && *text != "None");
    addresses(given, &origin.clone().field("spec.clusterIPs"), notes)
}

fn service_ports(
    spec: &core::ServiceSpec,
    origin: &Origin,
    notes: &mut Vec<Note>,
) -> Vec<ServicePort> {
    let mut ports = Vec::new();
    for declared in spec.ports.iter().flatten() {
        let label = declared
            .name
            .clone()
            .unwrap_or_else(|| declared.port.to_string());
        let origin = origin.clone().field(&format!("spec.ports[{label}]"));
        let number = port(declared.port, &origin, notes);
        let protocol = protocol(declared.protocol.as_deref(), &origin, notes);
        let (Some(number), Some(protocol)) = (number, protocol) else {
            continue;
        };
        let target = match &declared.target_port {
            None => TargetPort::Number(number),
            Some(IntOrString::String(name)) => TargetPort::Name(name.clone()),
            Some(IntOrString::Int(target)) => match port(*target, &origin, notes) {
                Some(target) => TargetPort::Number(target),
                None => continue,
            },
        };
        ports.push(ServicePort {
            name: declared.name.clone().filter(|name| !name.is_empty()),
            protocol,
            port: number,
            target,
            node_port: declared
                .node_port
                .filter(|number| *number != 0)
                .and_then(|number| {
                    port(
                        number,
                        &origin.clone().field(&format!("{}.nodePort", origin.field)),
                        notes,
                    )
                }),
        });
    }
    unlike(ports, origin, notes)
}

/// Of what a Service has twice, the first: the API server refuses such a Service, and endpoints are found by name and
/// protocol.
fn unlike(ports: Vec<ServicePort>, origin: &Origin, notes: &mut Vec<Note>) -> Vec<ServicePort> {
    let (mut names, mut numbers, mut at_nodes) =
        (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut kept = Vec::new();
    for mut port in ports {
        let protocol = port.protocol;
        let label = port.name.clone().unwrap_or_else(|| port.port.to_string());
        let field = |more| origin.clone().field(&format!("spec.ports[{label}]{more}"));
        let twin = match port.name.as_deref() {
            _ if !numbers.insert((port.port, protocol)) => Some(format!("port {}", port.port)),
            name if !names.insert((name.map(str::to_owned), protocol)) => Some("a name".to_owned()),
            _ => None,
        };
        if let Some(what) = twin {
            let message = format!("another port of {protocol} has {what} already; it is left out");
            notes.push(Note::new(field(""), message));
            continue;
        }
        if let Some(number) = port
            .node_port
            .filter(|number| !at_nodes.insert((*number, protocol)))
        {
            let message = format!("another port has {number}/{protocol} already; it is left out");
            notes.push(Note::new(field(".nodePort"), message));
            port.node_port = None;
        }
        kept.push(port);
    }
    kept
}

pub(super) fn endpoint_slice(
    slice: &discovery::EndpointSlice,
    notes: &mut Vec<Note>,
) -> Option<EndpointSlice> {
    let metadata = &slice.metadata;
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let name = ObjectName::new(namespace, metadata.name.as_deref()?);
    let origin = Origin::new(Kind::EndpointSlice, &name.namespace, &name.name);
    let mut unusable = |field: &str, message: String| {
        notes.push(Note::new(origin.clone().field(field), message));
        None
    };
    let labels = metadata.labels.as_ref();
    let Some(service) = labels.and_then(|labels| labels.get(SERVICE_NAME)) else {
        let message = format!("the label {SERVICE_NAME} is missing; it belongs to no Service");
        return unusable("metadata.labels", message);
    };
    let family = match slice.address_type.as_str() {
        "IPv4" => Some(Family::Ipv4),
        "IPv6" => Some(Family::Ipv6),
        // Packets go to addresses: kube-proxy ignores these as well.
        "FQDN" => {
            unusable("addressType", named(slice.endpoints.as_deref()));
            None
        }
        other => {
            let message = format!("{other:?} is not IPv4, IPv6 or FQDN; the slice is left out");
            return unusable("addressType", message);
        }
    };
    let mut parsed = EndpointSlice {
        name,
        service: ObjectName::new(namespace, service),
        family,
        ports: Vec::new(),
        endpoints: Vec::new(),
    };
    let Some(family) = family else {
        return Some(parsed);
    };
    parsed.ports = slice_ports(slice, &origin.clone().field("ports"), notes);
    parsed.endpoints = endpoints(slice, family, namespace, &origin.field("endpoints"), notes);
    Some(parsed)
}

fn slice_ports(
    slice: &discovery::EndpointSlice,
    field: &Origin,
    notes: &mut Vec<Note>,
) -> Vec<EndpointPort> {
    let mut ports = Vec::new();
    for declared in slice.ports.iter().flatten() {
        let Some(number) = declared.port else {
            // The API: of a Service's slice, it "must be set".
            let name = declared.name.as_deref().unwrap_or_default();
            let message =
                format!("port {name:?} has no number; it is left out, as with kube-proxy");
            notes.push(Note::new(field.clone(), message));
            continue;
        };
        let Some(number) = port(number, field, notes) else {
            continue;
        };
        if let Some(protocol) = protocol(declared.protocol.as_deref(), field, notes) {
            ports.push(EndpointPort {
                name: declared.name.clone().filter(|name| !name.is_empty()),
                protocol,
                port: number,
            });
        }
    }
    ports
}

fn endpoints(
    slice: &discovery::EndpointSlice,
    family: Family,
    namespace: &str,
    field: &Origin,
    notes: &mut Vec<Note>,
) -> Vec<Arc<Endpoint>> {
    let mut usable = Vec::new();
    let mut unusable = 0;
    for declared in slice.endpoints.iter().flatten() {
        match endpoint(declared, family, namespace) {
            Ok(endpoint) => usable.push(Arc::new(endpoint)),
            Err(text) => {
                unusable += 1;
                if unusable <= NAMED {
                    let message = format!(
                        "{text:?} is not a usable {family} address; the endpoint is left out"
                    );
                    notes.push(Note::new(field.clone(), message));
                }
            }
        }
    }
    if unusable > NAMED {
        let more = unusable - NAMED;
        let message = format!("{more} more have no usable {family} address, and are left out");
        notes.push(Note::new(field.clone(), message));
    }
    usable
}

/// How many of a slice's endpoints that are of no use are told one by one.
const NAMED: usize = 3;

/// Why the endpoints of a slice of names are no candidates.
fn named(endpoints: Option<&[discovery::Endpoint]>) -> String {
    let endpoints = endpoints.unwrap_or_default();
    let names: Vec<_> = endpoints
        .iter()
        .filter_map(|e| e.addresses.first())
        .collect();
    let mut told: Vec<_> = names.iter().take(NAMED).map(|name| name.as_str()).collect();
    let more = format!("{} more", names.len().saturating_sub(NAMED));
    if names.len() > NAMED {
        told.push(&more);
    }
    let whom = match told.is_empty() {
        true => String::new(),
        false => format!(" ({})", told.join(", ")),
    };
    format!(
        "FQDN endpoints are names, not addresses{whom}: no packet goes to them, as with kube-proxy"
    )
}

/// An endpoint, or what it has instead of an address.
fn endpoint<'a>(
    declared: &'a discovery::Endpoint,
    family: Family,
    namespace: &str,
) -> Result<Endpoint, &'a str> {
    let text = declared.addresses.first().map_or("", String::as_str);
    let address = text.parse::<IpAddr>().ok();
    let address = address.filter(|ip| Family::of(*ip) == family && is_usable(*ip));
    let address = address.ok_or(text)?;
    let conditions = declared.conditions.clone().unwrap_or_default();
    let ready = conditions.ready.unwrap_or(true);
    let target = declared.target_ref.as_ref();
    let hints = declared.hints.as_ref();
    let pod = target.filter(|target| target.kind.as_deref() == Some("Pod"));
    Ok(Endpoint {
        address,
        ready,
        serving: conditions.serving.unwrap_or(ready),
        terminating: conditions.terminating.unwrap_or(false),
        node: declared.node_name.clone(),
        zone: declared.zone.clone(),
        hostname: declared.hostname.clone(),
        pod: pod.and_then(|pod| {
            let namespace = pod.namespace.as_deref().unwrap_or(namespace);
            Some(ObjectName::new(namespace, pod.name.as_deref()?))
        }),
        zone_hints: hints
            .and_then(|hints| hints.for_zones.as_ref())
            .map_or_else(Vec::new, |zones| {
                zones.iter().map(|zone| zone.name.clone()).collect()
            }),
        node_hints: hints
            .and_then(|hints| hints.for_nodes.as_ref())
            .map_or_else(Vec::new, |nodes| {
                nodes.iter().map(|node| node.name.clone()).collect()
            }),
    })
}
