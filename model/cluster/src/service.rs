//! [`Service`]: a stable name and address for a changing set of endpoints.

use std::collections::BTreeMap;
use std::net::IpAddr;

use parfait_packet::{Kind, Origin, Protocol};

use crate::ObjectName;

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub name: ObjectName,
    /// `spec.type`.
    pub kind: ServiceType,
    /// `spec.clusterIPs`; empty for a headless Service and for ExternalName.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.clusterIP: None`.
    pub headless: bool,
    /// `spec.ports`.
    pub ports: Vec<ServicePort>,
    /// `spec.selector`; empty when somebody else writes its EndpointSlices.
    pub selector: BTreeMap<String, String>,
    /// `spec.publishNotReadyAddresses`.
    pub publish_not_ready: bool,
    /// The annotation [`Service::SERVED_BY`] is `node`: every node's agent answers at its
    /// addresses itself, as cluster DNS does.
    pub served_by_node: bool,
}

/// `spec.type`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceType {
    /// Reachable inside the cluster.
    ClusterIp,
    /// Also on a port of every node.
    NodePort,
    /// Also at addresses that something outside announces.
    LoadBalancer,
    /// An alias for a DNS name.
    ExternalName(String),
}

/// One of `spec.ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name; may be absent if there is only one.
    pub name: Option<String>,
    /// The protocol.
    pub protocol: Protocol,
    /// The port at the Service's addresses.
    pub port: u16,
    /// The port at the endpoints.
    pub target: TargetPort,
    /// The port at every node's addresses, if there is one.
    pub node_port: Option<u16>,
}

/// `spec.ports[].targetPort`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// A number.
    Number(u16),
    /// The name of a container's port, which may differ from pod to pod.
    Name(String),
}

impl Service {
    /// The annotation that says who answers at the Service's addresses.
    pub const SERVED_BY: &'static str = "parfait.dev/served-by";

    /// The object, for what exists because of it.
    #[must_use]
    pub fn origin(&self) -> Origin {
        Origin::new(Kind::Service, &self.name.namespace, &self.name.name)
    }

    /// One of its ports, as `spec.ports[http]` or `spec.ports[80]`.
    #[must_use]
    pub fn port_origin(&self, port: &ServicePort) -> Origin {
        let label = port.name.clone().unwrap_or_else(|| port.port.to_string());
        self.origin().field(&format!("spec.ports[{label}]"))
    }
}
