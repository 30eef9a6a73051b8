//! Nodes and pods.

use k8s_openapi::api::core::v1 as core;
use parfait_packet::Origin;

use super::{list, port, protocol};
use crate::{
    Bandwidth, ContainerPort, HostPort, Namespace, Node, Note, ObjectName, Phase, Pod, Underlay,
};

pub(super) fn node(node: &core::Node, notes: &mut Vec<Note>) -> Node {
    let metadata = &node.metadata;
    let status = node.status.clone().unwrap_or_default();
    let mut parsed = Node {
        name: metadata.name.clone().unwrap_or_default(),
        addresses: Vec::new(),
        pod_cidrs: Vec::new(),
        ready: status
            .conditions
            .iter()
            .flatten()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
        zone: metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get("topology.kubernetes.io/zone").cloned()),
        network_unavailable: network_unavailable(&status),
        leaving: metadata.deletion_timestamp.is_some() || is_to_be_deleted(node),
        labels: metadata.labels.clone().unwrap_or_default(),
        reported: status
            .addresses
            .iter()
            .flatten()
            .filter_map(|address| address.address.parse().ok())
            .collect(),
        underlay_interface: metadata
            .annotations
            .as_ref()
            .and_then(|all| all.get(Node::UNDERLAY_INTERFACE).cloned())
            .filter(|name| !name.is_empty()),
        underlay: None,
    };
    let origin = parsed.origin();
    let internal = status
        .addresses
        .iter()
        .flatten()
        .filter(|address| address.type_ == "InternalIP")
        .map(|address| &address.address);
    parsed.addresses = list(
        internal,
        "an IP address",
        &origin.clone().field("status.addresses"),
        notes,
    );
    let cidrs = node.spec.as_ref().map(|spec| {
        let many = spec.pod_cidrs.clone().unwrap_or_default();
        if many.is_empty() {
            spec.pod_cidr.iter().cloned().collect()
        } else {
            many
        }
    });
    parsed.pod_cidrs = list(
        cidrs.unwrap_or_default(),
        "a CIDR",
        &origin.clone().field("spec.podCIDRs"),
        notes,
    );
    parsed.underlay = underlay(metadata, &origin, notes);
    parsed
}

/// The taint by which the cluster autoscaler says so (`cloud-provider`'s `ToBeDeletedTaint`).
fn is_to_be_deleted(node: &core::Node) -> bool {
    let taints = node
        .spec
        .iter()
        .flat_map(|spec| spec.taints.iter().flatten());
    let mut keys = taints.map(|taint| taint.key.as_str());
    keys.any(|key| key == "ToBeDeletedByClusterAutoscaler")
}

fn network_unavailable(status: &core::NodeStatus) -> Option<String> {
    let mut conditions = status.conditions.iter().flatten();
    let condition =
        conditions.find(|one| one.type_ == "NetworkUnavailable" && one.status == "True")?;
    let reason = condition.reason.as_deref().unwrap_or("NetworkUnavailable");
    let message = condition.message.as_deref();
    Some(match message.filter(|text| !text.is_empty()) {
        Some(message) => format!("{reason}: {message}"),
        None => reason.to_owned(),
    })
}

fn underlay(
    metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    origin: &Origin,
    notes: &mut Vec<Note>,
) -> Option<Underlay> {
    let text = metadata.annotations.as_ref()?.get(Underlay::ANNOTATION)?;
    match serde_json::from_str(text) {
        Ok(underlay) => Some(underlay),
        Err(error) => {
            let field = format!("metadata.annotations[{}]", Underlay::ANNOTATION);
            notes.push(Note::new(
                origin.clone().field(&field),
                format!("{error}; the underlay counts as unknown"),
            ));
            None
        }
    }
}

pub(super) fn pod(pod: &core::Pod, notes: &mut Vec<Note>) -> Pod {
    let metadata = &pod.metadata;
    let spec = pod.spec.clone().unwrap_or_default();
    let status = pod.status.clone().unwrap_or_default();
    let name = ObjectName::new(
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
    );
    let mut parsed = Pod {
        name,
        uid: metadata.uid.clone().unwrap_or_default(),
        created: metadata
            .creation_timestamp
            .as_ref()
            .map(|time| time.0.as_second()),
        labels: metadata.labels.clone().unwrap_or_default(),
        node: spec.node_name.clone().filter(|name| !name.is_empty()),
        host_network: spec.host_network.unwrap_or_default(),
        hostname: spec.hostname.clone(),
        subdomain: spec.subdomain.clone(),
        addresses: Vec::new(),
        reported: Vec::new(),
        mac: None,
        phase: phase(status.phase.as_deref()),
        ready: status
            .conditions
            .iter()
            .flatten()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
        terminating: metadata.deletion_timestamp.is_some(),
        ports: Vec::new(),
        bandwidth: Bandwidth::default(),
    };
    let origin = parsed.origin();
    parsed.bandwidth = Bandwidth::read(metadata.annotations.as_ref(), &origin, notes);
    let many: Vec<String> = status
        .pod_ips
        .iter()
        .flatten()
        .map(|ip| ip.ip.clone())
        .collect();
    let addresses = if many.is_empty() {
        status.pod_ip.iter().cloned().collect()
    } else {
        many
    };
    parsed.addresses = list(
        addresses.iter().filter(|text| !text.is_empty()),
        "an IP address",
        &origin.clone().field("status.podIPs"),
        notes,
    );
    parsed.reported.clone_from(&parsed.addresses);
    parsed.ports = container_ports(&spec, &origin, notes);
    parsed
}

pub(super) fn namespace(namespace: &core::Namespace) -> Option<Namespace> {
    Some(Namespace {
        name: namespace.metadata.name.clone()?,
        labels: namespace.metadata.labels.clone().unwrap_or_default(),
    })
}

fn container_ports(
    spec: &core::PodSpec,
    origin: &Origin,
    notes: &mut Vec<Note>,
) -> Vec<ContainerPort> {
    let mut ports = Vec::new();
    // A sidecar is an init container that keeps running (KEP-753).
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|container| container.restart_policy.as_deref() == Some("Always"));
    for container in sidecars.chain(&spec.containers) {
        let origin = origin
            .clone()
            .field(&format!("spec.containers[{}].ports", container.name));
        for declared in container.ports.iter().flatten() {
            let number = port(declared.container_port, &origin, notes);
            let protocol = protocol(declared.protocol.as_deref(), &origin, notes);
            if let (Some(port), Some(protocol)) = (number, protocol) {
                ports.push(ContainerPort {
                    container: container.name.clone(),
                    name: declared.name.clone(),
                    port,
                    protocol,
                    host: host_port(declared, &origin, notes),
                });
            }
        }
    }
    ports
}

fn host_port(
    declared: &core::ContainerPort,
    origin: &Origin,
    notes: &mut Vec<Note>,
) -> Option<HostPort> {
    let asked = declared.host_port.filter(|asked| *asked != 0)?;
    let port = port(asked, origin, notes)?;
    let text = declared.host_ip.as_deref().unwrap_or_default();
    let ip = match text {
        "" => None,
        _ => match text.parse() {
            Ok(ip) => Some(ip),
            Err(_) => {
                notes.push(Note::new(
                    origin.clone(),
                    format!("hostIP {text:?} is not an IP address; hostPort {port} is left out"),
                ));
                return None;
            }
        },
    };
    Some(HostPort { port, ip })
}

fn phase(text: Option<&str>) -> Phase {
    match text {
        Some("Running") => Phase::Running,
        Some("Succeeded") => Phase::Succeeded,
        Some("Failed") => Phase::Failed,
        Some("Unknown") => Phase::Unknown,
        _ => Phase::Pending,
    }
}
