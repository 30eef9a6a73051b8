//! [`Service`]: a stable name and address for a changing set of endpoints.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use parfait_packet::{Kind, Origin, Protocol};

use crate::{LoadBalancer, ObjectName};

/// A Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub name: ObjectName,
    /// `metadata.creationTimestamp`, in seconds since 1970.
    pub created: Option<i64>,
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
    /// `metadata.labels`, kept where `served_by_node`: what answers there has no pods with labels of their own.
    pub labels: BTreeMap<String, String>,
    /// `spec.publishNotReadyAddresses`.
    pub publish_not_ready: bool,
    /// The annotation [`Service::SERVED_BY`] is `node`: every node's agent answers at its
    /// addresses itself, as cluster DNS does.
    pub served_by_node: bool,
    /// One of [`Service::OTHERS`], if it has such a label: nodes do not lead anybody to its endpoints.
    pub left_by: Option<&'static str>,
    /// How it is reached from outside the cluster.
    pub outside: Outside,
    /// `spec.internalTrafficPolicy`: which endpoints serve the Service's own addresses.
    pub internal_policy: TrafficPolicy,
    /// `spec.sessionAffinity: ClientIP`: for how many seconds a client keeps its endpoint, 1 to 86400.
    pub affinity: Option<u32>,
    /// `spec.trafficDistribution`: which endpoints are preferred.
    pub distribution: Distribution,
}

/// How a Service is reached from outside the cluster, besides its node ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outside {
    /// `spec.externalIPs`: addresses that somebody leads to the nodes.
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress[].ip`, of a LoadBalancer whose packets arrive at the nodes with that
    /// destination (`ipMode: VIP`, KEP-1860).
    pub load_balancer_ips: Vec<IpAddr>,
    /// `spec.loadBalancerSourceRanges`: who may use `load_balancer_ips`; `None` is everybody. Ranges that
    /// cannot be read let nobody in.
    pub source_ranges: Option<Vec<IpNet>>,
    /// What it asks of a load balancer, and has; of most Services nothing.
    pub load_balancer: Option<Box<LoadBalancer>>,
    /// `spec.externalTrafficPolicy`: which endpoints serve packets from outside.
    pub policy: TrafficPolicy,
    /// `spec.healthCheckNodePort`: where each node tells load balancers whether it has endpoints.
    pub health_check_node_port: Option<u16>,
}

/// `spec.internalTrafficPolicy` and `spec.externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// Endpoints on any node.
    #[default]
    Cluster,
    /// Only endpoints on the node where the packet is.
    Local,
}

/// `spec.trafficDistribution` (KEP-4444, KEP-3015).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Distribution {
    /// All endpoints alike.
    #[default]
    Even,
    /// `PreferSameZone`, or its old name `PreferClose`: those that are hinted for the node's zone.
    SameZone,
    /// `PreferSameNode`: those on the node itself, then as `SameZone`.
    SameNode,
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

    /// The labels by which a Service is not for whoever leads to all others, as kube-proxy has it (`ProxyServer.Run`):
    /// another program of the cluster serves it, or it is a name only.
    pub const OTHERS: [&'static str; 2] = [
        "service.kubernetes.io/service-proxy-name",
        "service.kubernetes.io/headless",
    ];

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
