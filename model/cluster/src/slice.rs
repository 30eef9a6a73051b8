//! [`EndpointSlice`]: some of a Service's endpoints, of one IP family, or named in DNS.

use std::net::IpAddr;
use std::sync::Arc;

use parfait_packet::{Family, Kind, Origin, Protocol};

use crate::ObjectName;

/// An EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Namespace and name.
    pub name: ObjectName,
    /// The Service it belongs to: the label `kubernetes.io/service-name`.
    pub service: ObjectName,
    /// `addressType`; `None` for `FQDN`, whose endpoints are names: no packet can be sent to them, so none is kept.
    pub family: Option<Family>,
    /// Its ports, each valid for all its endpoints.
    pub ports: Vec<EndpointPort>,
    /// Its endpoints, which plans share.
    pub endpoints: Vec<Arc<Endpoint>>,
}

/// One of an EndpointSlice's ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPort {
    /// The name of the Service's port it belongs to.
    pub name: Option<String>,
    /// The protocol.
    pub protocol: Protocol,
    /// The number.
    pub port: u16,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address. (The API allows several, all of one endpoint; the first is used, as kube-proxy does.)
    pub address: IpAddr,
    /// `conditions.ready`, true where it is missing.
    pub ready: bool,
    /// `conditions.serving`, as `ready` where it is missing.
    pub serving: bool,
    /// `conditions.terminating`.
    pub terminating: bool,
    /// `nodeName`.
    pub node: Option<String>,
    /// `zone`.
    pub zone: Option<String>,
    /// `hostname`.
    pub hostname: Option<String>,
    /// `targetRef`, where it is a pod.
    pub pod: Option<ObjectName>,
    /// `hints.forZones[].name`: the zones whose nodes should use it.
    pub zone_hints: Vec<String>,
    /// `hints.forNodes[].name`: the nodes that should use it.
    pub node_hints: Vec<String>,
}

impl EndpointSlice {
    /// The object, for what exists because of it.
    #[must_use]
    pub fn origin(&self) -> Origin {
        Origin::new(Kind::EndpointSlice, &self.name.namespace, &self.name.name)
    }
}
