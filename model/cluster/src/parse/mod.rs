//! API objects into Parfait's own types: the only place where they are read.
//!
//! "Parse, don't validate": what comes out cannot be wrong, and what was wrong is in the notes. An
//! object that cannot be used at all gives no [`Object`]; a bad part of one is left out of it.

mod balancer;
mod cluster_policy;
mod policy;
mod service;
mod traffic;
mod workload;

use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parfait_packet::Origin;

pub use balancer::{RawLoadBalancerPool, RawPoolSpec};
pub use cluster_policy::{RawClusterNetworkPolicy, RawNodeNetworkPolicy};

use crate::{
    ClusterNetworkPolicy, Config, EndpointSlice, LoadBalancerPool, Namespace, NetworkPolicy, Node,
    NodeNetworkPolicy, Note, Pod, Service,
};

/// An object of a kind that the network depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// The ConfigMap with Parfait's configuration.
    Config(Config),
    /// A Node.
    Node(Node),
    /// A Pod.
    Pod(Pod),
    /// A Service.
    Service(Service),
    /// An EndpointSlice.
    EndpointSlice(EndpointSlice),
    /// A Namespace.
    Namespace(Namespace),
    /// A NetworkPolicy.
    NetworkPolicy(NetworkPolicy),
    /// A ClusterNetworkPolicy.
    ClusterNetworkPolicy(ClusterNetworkPolicy),
    /// A NodeNetworkPolicy.
    NodeNetworkPolicy(NodeNetworkPolicy),
    /// Addresses for load balancers.
    LoadBalancerPool(LoadBalancerPool),
}

/// An API object, of a kind that Parfait reads.
#[derive(Clone, Copy, Debug)]
pub enum Parsed<'a> {
    /// core/v1 ConfigMap.
    ConfigMap(&'a core::ConfigMap),
    /// core/v1 Node.
    Node(&'a core::Node),
    /// core/v1 Pod.
    Pod(&'a core::Pod),
    /// core/v1 Service.
    Service(&'a core::Service),
    /// discovery.k8s.io/v1 EndpointSlice.
    EndpointSlice(&'a discovery::EndpointSlice),
    /// core/v1 Namespace.
    Namespace(&'a core::Namespace),
    /// networking.k8s.io/v1 NetworkPolicy.
    NetworkPolicy(&'a networking::NetworkPolicy),
    /// policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy.
    ClusterNetworkPolicy(&'a RawClusterNetworkPolicy),
    /// parfait.dev/v1alpha1 NodeNetworkPolicy.
    NodeNetworkPolicy(&'a RawNodeNetworkPolicy),
    /// parfait.dev/v1alpha1 LoadBalancerPool.
    LoadBalancerPool(&'a RawLoadBalancerPool),
}

impl Parsed<'_> {
    const fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::ConfigMap(object) => &object.metadata,
            Self::Node(object) => &object.metadata,
            Self::Pod(object) => &object.metadata,
            Self::Service(object) => &object.metadata,
            Self::EndpointSlice(object) => &object.metadata,
            Self::Namespace(object) => &object.metadata,
            Self::NetworkPolicy(object) => &object.metadata,
            Self::ClusterNetworkPolicy(object) => &object.metadata,
            Self::NodeNetworkPolicy(object) => &object.metadata,
            Self::LoadBalancerPool(object) => &object.metadata,
        }
    }

    /// Whether it has a name, and one that a path can have: an [`Origin`] is read back by it. The API server sees to
    /// that for all kinds (`ValidatePathSegmentName`, and more for most).
    fn is_named(&self) -> bool {
        let metadata = self.metadata();
        let strange = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | '%');
        let name = metadata.name.as_deref().unwrap_or_default();
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        !name.is_empty() && !name.contains(strange) && !namespace.contains(strange)
    }
}

/// Reads an API object; of one without a name nothing. `config_yaml` turns the configuration's YAML into a [`Config`]:
/// the YAML library belongs to the edges.
#[must_use]
pub fn parse(
    object: Parsed<'_>,
    config_yaml: &dyn Fn(&str) -> Result<Config, String>,
) -> (Option<Object>, Vec<Note>) {
    let mut notes = Vec::new();
    if !object.is_named() {
        return (None, notes);
    }
    let object = match object {
        Parsed::ConfigMap(map) => config(map, config_yaml, &mut notes).map(Object::Config),
        Parsed::Node(node) => Some(Object::Node(workload::node(node, &mut notes))),
        Parsed::Pod(pod) => Some(Object::Pod(workload::pod(pod, &mut notes))),
        Parsed::Service(service) => service::service(service, &mut notes).map(Object::Service),
        Parsed::EndpointSlice(slice) => {
            service::endpoint_slice(slice, &mut notes).map(Object::EndpointSlice)
        }
        Parsed::Namespace(namespace) => workload::namespace(namespace).map(Object::Namespace),
        Parsed::NetworkPolicy(policy) => {
            policy::network_policy(policy, &mut notes).map(Object::NetworkPolicy)
        }
        Parsed::ClusterNetworkPolicy(policy) => {
            cluster_policy::cluster_network_policy(policy, &mut notes)
                .map(Object::ClusterNetworkPolicy)
        }
        Parsed::NodeNetworkPolicy(policy) => {
            cluster_policy::node_network_policy(policy, &mut notes).map(Object::NodeNetworkPolicy)
        }
        Parsed::LoadBalancerPool(pool) => {
            balancer::pool(pool, &mut notes).map(Object::LoadBalancerPool)
        }
    };
    (object, notes)
}

fn config(
    map: &core::ConfigMap,
    config_yaml: &dyn Fn(&str) -> Result<Config, String>,
    notes: &mut Vec<Note>,
) -> Option<Config> {
    let origin = Origin::new(
        parfait_packet::Kind::ConfigMap,
        map.metadata.namespace.as_deref().unwrap_or_default(),
        map.metadata.name.as_deref().unwrap_or_default(),
    )
    .field("data[config.yaml]");
    let text = map.data.as_ref().and_then(|data| data.get(Config::KEY));
    let config = match text {
        Some(text) => config_yaml(text).map_err(crate::config::suggest),
        None => Err(format!("there is no key {}", Config::KEY)),
    };
    match config.and_then(|config| config.check().map_err(|error| error.to_string())) {
        Ok(config) => Some(config),
        Err(message) => {
            notes.push(Note::new(
                origin,
                format!("{message}; the configuration before it stays in force"),
            ));
            None
        }
    }
}

/// A list of addresses or CIDRs; those that do not parse are left out with a note.
fn list<T: std::str::FromStr>(
    texts: impl IntoIterator<Item = impl AsRef<str>>,
    what: &str,
    origin: &Origin,
    notes: &mut Vec<Note>,
) -> Vec<T> {
    let mut parsed = Vec::new();
    for text in texts {
        match text.as_ref().parse() {
            Ok(value) => parsed.push(value),
            Err(_) => notes.push(Note::new(
                origin.clone(),
                format!("{:?} is not {what}; it is left out", text.as_ref()),
            )),
        }
    }
    parsed
}

/// A list of addresses of Services: what does not parse, and what cannot be one machine's for others, is left out with
/// a note.
fn addresses(
    texts: impl IntoIterator<Item = impl AsRef<str>>,
    origin: &Origin,
    notes: &mut Vec<Note>,
) -> Vec<IpAddr> {
    let parsed: Vec<IpAddr> = list(texts, "an IP address", origin, notes);
    let (usable, special): (Vec<_>, Vec<_>) = parsed.into_iter().partition(|ip| is_usable(*ip));
    notes.extend(special.into_iter().map(|address| {
        let message = format!("{address} is no address that others could reach; it is left out");
        Note::new(origin.clone(), message)
    }));
    usable
}

/// Whether an address can be an endpoint's or a Service's: as `ValidateEndpointIP` of Kubernetes has it, not
/// unspecified, loopback, link-local or multicast; nor broadcast, nor IPv4 in IPv6's clothes.
fn is_usable(address: IpAddr) -> bool {
    let special = match address {
        IpAddr::V4(four) => four.is_link_local() || four.is_broadcast(),
        IpAddr::V6(six) => six.is_unicast_link_local() || six.to_ipv4_mapped().is_some(),
    };
    let none = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    !special && !none
}

/// A port number, 1 to 65535.
fn port(number: i32, origin: &Origin, notes: &mut Vec<Note>) -> Option<u16> {
    let parsed = u16::try_from(number).ok().filter(|port| *port != 0);
    if parsed.is_none() {
        notes.push(Note::new(
            origin.clone(),
            format!("{number} is not a port (1 to 65535); it is left out"),
        ));
    }
    parsed
}

/// A protocol; the API's default is TCP.
fn protocol(
    text: Option<&str>,
    origin: &Origin,
    notes: &mut Vec<Note>,
) -> Option<parfait_packet::Protocol> {
    let text = text.unwrap_or("TCP");
    let parsed: Option<parfait_packet::Protocol> = text
        .parse()
        .ok()
        .filter(|p: &parfait_packet::Protocol| p.has_ports());
    if parsed.is_none() {
        notes.push(Note::new(
            origin.clone(),
            format!("protocol {text:?} is none of TCP, UDP, SCTP; the port is left out"),
        ));
    }
    parsed
}
