//! [`Node`]: a machine that runs pods, and what its agent reports about its underlay.

use std::net::IpAddr;

use ipnet::IpNet;
use parfait_packet::{Family, Kind, Origin};
use serde::{Deserialize, Serialize};

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// `status.addresses` of type InternalIP, in order; the first is the primary one.
    pub addresses: Vec<IpAddr>,
    /// `spec.podCIDRs`.
    pub pod_cidrs: Vec<IpNet>,
    /// The Ready condition.
    pub ready: bool,
    /// The label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
    /// What the node's agent reports; `None` until it has run there.
    pub underlay: Option<Underlay>,
}

/// The interface that carries a node's address, as its agent reports it in the annotation
/// [`Underlay::ANNOTATION`], so that the node's plan can be computed anywhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Underlay {
    /// The interface's name, `eth0`.
    pub interface: String,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Its addresses with their prefix lengths: who is on the same segment.
    pub addresses: Vec<IpNet>,
    /// The next hops of its default routes.
    #[serde(default)]
    pub gateways: Vec<IpAddr>,
    /// Its default IPv6 route came from a router's advertisement, which the kernel took (RFC 4861).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub advertised: bool,
    /// Of the configured egress addresses those that the node has, on whatever interface, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<IpAddr>,
}

impl Underlay {
    /// The Node annotation that holds this as JSON.
    pub const ANNOTATION: &'static str = "parfait.dev/underlay";

    /// The next hop of the node's default route of a family.
    #[must_use]
    pub fn gateway(&self, family: Family) -> Option<IpAddr> {
        let mut gateways = self.gateways.iter().copied();
        gateways.find(|gateway| Family::of(*gateway) == family)
    }
}

impl Node {
    /// The node's address of a family.
    #[must_use]
    pub fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses
            .iter()
            .copied()
            .find(|a| Family::of(*a) == family)
    }

    /// The addresses that the node itself has, in order: not those by which a cloud's NAT reaches it,
    /// which its kernel takes neither as a source nor for a tunnel. All of them, until it is known.
    pub fn own_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let here = |address: &IpAddr| match &self.underlay {
            Some(underlay) => underlay.addresses.iter().any(|net| net.addr() == *address),
            None => true,
        };
        self.addresses.iter().copied().filter(here)
    }

    /// The node's pod CIDR of a family.
    #[must_use]
    pub fn pod_cidr(&self, family: Family) -> Option<IpNet> {
        self.pod_cidrs
            .iter()
            .copied()
            .find(|c| Family::of(c.addr()) == family)
    }

    /// The node's own address in the pod network: the first of its pod CIDR, which no pod gets.
    /// Packets that the node itself sends through a tunnel carry it.
    #[must_use]
    pub fn pod_network_address(&self, family: Family) -> Option<IpAddr> {
        match self.pod_cidr(family)?.network() {
            IpAddr::V4(network) => Some(IpAddr::V4(u32::from(network).checked_add(1)?.into())),
            IpAddr::V6(network) => Some(IpAddr::V6(u128::from(network).checked_add(1)?.into())),
        }
    }

    /// The object, for what exists because of it.
    #[must_use]
    pub fn origin(&self) -> Origin {
        Origin::new(Kind::Node, "", &self.name)
    }
}
