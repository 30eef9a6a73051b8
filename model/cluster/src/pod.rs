//! [`Pod`]: what the network needs to know of a pod.

use std::collections::BTreeMap;
use std::net::IpAddr;

use parfait_packet::{Family, Kind, Origin, Protocol};

use crate::{Bandwidth, ObjectName};

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub name: ObjectName,
    /// `metadata.uid`: what tells it from another of its name. Empty if unknown.
    pub uid: String,
    /// `metadata.creationTimestamp`, in seconds since 1970.
    pub created: Option<i64>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// `spec.nodeName`, once it is scheduled.
    pub node: Option<String>,
    /// `spec.hostNetwork`: it uses its node's addresses.
    pub host_network: bool,
    /// `spec.hostname` and `spec.subdomain`.
    pub hostname: Option<String>,
    /// See `hostname`.
    pub subdomain: Option<String>,
    /// Its addresses: `status.podIPs`, or what its node knows better (see [`crate::Snapshot::attach`]).
    pub addresses: Vec<IpAddr>,
    /// `status.podIPs`.
    pub reported: Vec<IpAddr>,
    /// The Ethernet address that was asked for, where its node knows of one.
    pub mac: Option<[u8; 6]>,
    /// `status.phase`.
    pub phase: Phase,
    /// The Ready condition.
    pub ready: bool,
    /// `metadata.deletionTimestamp` is set.
    pub terminating: bool,
    /// The ports that its containers declare.
    pub ports: Vec<ContainerPort>,
    /// How much it may receive and send.
    pub bandwidth: Bandwidth,
}

/// `status.phase`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not started yet.
    Pending,
    /// At least one container runs.
    Running,
    /// All containers ended well, and stay so.
    Succeeded,
    /// All containers ended, at least one badly.
    Failed,
    /// The node cannot be asked.
    Unknown,
}

/// A port that a container declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerPort {
    /// The container.
    pub container: String,
    /// The port's name.
    pub name: Option<String>,
    /// The number.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// The port of its node that leads there.
    pub host: Option<HostPort>,
}

/// `hostPort` and `hostIP` of a container's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The node's port.
    pub port: u16,
    /// The node's address; `None` for all of both families.
    pub ip: Option<IpAddr>,
}

impl Pod {
    /// The pod's address of a family.
    #[must_use]
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses
            .iter()
            .copied()
            .find(|a| Family::of(*a) == family)
    }

    /// Whether the pod's network exists: it is neither ended nor still to come.
    #[must_use]
    pub fn has_network(&self) -> bool {
        !self.addresses.is_empty()
            && matches!(self.phase, Phase::Pending | Phase::Running | Phase::Unknown)
    }

    /// The object, for what exists because of it.
    #[must_use]
    pub fn origin(&self) -> Origin {
        Origin::new(Kind::Pod, &self.name.namespace, &self.name.name)
    }
}
