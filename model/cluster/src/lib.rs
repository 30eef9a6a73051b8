//! The cluster as Parfait sees it: API objects, parsed once into types that cannot be wrong, and
//! [`Snapshot`], one consistent picture of them.
//!
//! ```text
//!   watch events, YAML files ──parse──▶ Object ──insert──▶ Snapshot ──▶ the layers' plans
//!                                 └─▶ Note: what was wrong with it, and what was done instead
//! ```
//!
//! Parsing never stops at a bad object: it keeps what is usable and returns [`Note`]s, so that one
//! bad Service cannot stop the other 4,999.
//!
//! Deliberately absent: fields that the network does not depend on, and where objects come from
//! (the kube edge watches an API server; the inspector reads folders).

mod attachment;
mod balancer;
mod bandwidth;
mod cluster_policy;
mod config;
mod dispute;
mod egress;
mod hearing;
mod name;
mod namespace;
mod nearest;
mod node;
mod node_policy;
mod note;
mod parse;
mod path;
mod pod;
mod policy;
mod selector;
mod service;
mod slice;
mod snapshot;
#[cfg(test)]
mod tests;

pub use attachment::{Attachment, PortMapping};
pub use balancer::{AddressRange, Announcement, LoadBalancer, LoadBalancerPool, NotARange, Told};
pub use bandwidth::{Bandwidth, rate};
pub use cluster_policy::{ClusterNetworkPolicy, ClusterRule, PolicyAction, PolicyTier};
pub use config::{Config, ConfigError, DeniedConnections, ForeignChanges, PodIsolation, Routing};
pub use dispute::{disputes, settle};
pub use egress::{Egress, EgressAddresses};
pub use hearing::Hearing;
pub use name::ObjectName;
pub use namespace::Namespace;
pub use nearest::nearest;
pub use node::{Node, Underlay};
pub use node_policy::NodeNetworkPolicy;
pub use note::Note;
pub use parse::{
    Object, Parsed, RawClusterNetworkPolicy, RawLoadBalancerPool, RawNodeNetworkPolicy,
    RawPoolSpec, parse,
};
pub use path::{Path, Paths};
pub use pod::{ContainerPort, HostPort, Phase, Pod};
pub use policy::{Direction, NetworkPolicy, Peer, PolicyPort, PolicyRule, PortMatch};
pub use selector::{LabelExpression, LabelOperator, LabelSelector};
pub use service::{
    Distribution, Outside, Service, ServicePort, ServiceType, TargetPort, TrafficPolicy,
};
pub use slice::{Endpoint, EndpointPort, EndpointSlice};
pub use snapshot::{Key, Snapshot};
