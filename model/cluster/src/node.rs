//! [`Node`]: a machine that runs pods, and what its agent reports about its underlay.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use parfait_packet::{Family, Kind, Origin};
use serde::{Deserialize, Deserializer, Serialize};

use crate::Config;

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
    /// What the condition `NetworkUnavailable` says while it is True: the underlay has no route to the
    /// node's pods.
    pub network_unavailable: Option<String>,
    /// It is being deleted, or about to be by the cluster autoscaler: load balancers must let it go (KEP-3836).
    pub leaving: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// All `status.addresses` that are addresses, of whatever type.
    pub reported: BTreeSet<IpAddr>,
    /// The annotation [`Node::UNDERLAY_INTERFACE`].
    pub underlay_interface: Option<String>,
    /// What the node's agent reports; `None` until it has run there.
    pub underlay: Option<Underlay>,
}

/// The interface that carries a node's addresses, or the one that was chosen, as its agent reports it in the annotation
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
    /// The same of the interface with the other family, where it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other: Option<Box<Underlay>>,
    /// In `routing: bgp`, the peers' pod CIDRs to which no routing daemon has brought a route.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unlearned: Vec<IpNet>,
    /// Its default IPv6 route came from a router's advertisement, which the kernel took (RFC 4861).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub advertised: bool,
    /// Of the configured egress addresses those that the node has, on whatever interface, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<IpAddr>,
    /// Those of its addresses where the configuration wants node ports (`nodePortAddresses`), on whatever interface, in order.
    #[serde(default, rename = "nodePorts", skip_serializing_if = "Vec::is_empty")]
    pub node_ports: Vec<IpAddr>,
    /// The node's other interfaces that are called `pf…` and are no pod's by their form (`pf0vf1` of a card with virtual
    /// functions), in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cards: Vec<String>,
    /// See [`crate::Snapshot::config_to_report`].
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "if_known"
    )]
    pub config: Option<Box<Config>>,
}

/// A configuration of another version may have fields that this one does not know; the rest still counts.
fn if_known<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Box<Config>>, D::Error> {
    let value = serde_json::Value::deserialize(from)?;
    Ok(serde_json::from_value(value).ok().map(Box::new))
}

impl Underlay {
    /// The Node annotation that holds this as JSON.
    pub const ANNOTATION: &'static str = "parfait.dev/underlay";

    /// The interfaces: this one, and that of the other family.
    pub fn interfaces(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |one| one.other.as_deref())
    }

    /// The one with an address of a family.
    #[must_use]
    pub fn of(&self, family: Family) -> Option<&Self> {
        let has = |one: &&Self| {
            one.addresses
                .iter()
                .any(|net| Family::of(net.addr()) == family)
        };
        self.interfaces().find(has)
    }

    /// The one to whose segment an address belongs.
    #[must_use]
    pub fn beside(&self, address: IpAddr) -> Option<&Self> {
        let near = |one: &&Self| one.addresses.iter().any(|net| net.contains(&address));
        self.interfaces().find(near)
    }

    /// All addresses with their prefix lengths.
    pub fn prefixes(&self) -> impl Iterator<Item = &IpNet> {
        self.interfaces().flat_map(|one| &one.addresses)
    }

    /// The next hop of the node's default route of a family.
    #[must_use]
    pub fn gateway(&self, family: Family) -> Option<IpAddr> {
        let mut gateways = self
            .interfaces()
            .flat_map(|one| one.gateways.iter().copied());
        gateways.find(|gateway| Family::of(*gateway) == family)
    }
}

impl Node {
    /// The annotation that names the interface to the other nodes (`eth1`), where it is not the one with the
    /// node's own addresses.
    pub const UNDERLAY_INTERFACE: &'static str = "parfait.dev/underlay-interface";

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
            Some(underlay) if self.underlay_interface.is_none() => {
                underlay.prefixes().any(|net| net.addr() == *address)
            }
            _ => true,
        };
        self.addresses.iter().copied().filter(here)
    }

    /// Where the other nodes send what is for this node's pods: its own address of a family or, if another
    /// interface was chosen for it, that one's.
    #[must_use]
    pub fn underlay_address(&self, family: Family) -> Option<IpAddr> {
        let chosen = self
            .underlay
            .as_ref()
            .filter(|_| self.underlay_interface.is_some());
        let chosen = chosen
            .into_iter()
            .flat_map(Underlay::prefixes)
            .map(IpNet::addr);
        let own = self
            .own_addresses()
            .filter(|_| self.underlay_interface.is_none());
        chosen
            .chain(own)
            .find(|address| Family::of(*address) == family)
    }

    /// Every address by which the node is known: those that it reports, on the underlay, and in the pod network.
    #[must_use]
    pub fn every_address(&self) -> BTreeSet<IpAddr> {
        let underlay = self.underlay.iter().flat_map(Underlay::prefixes);
        let network = Family::ALL.into_iter();
        let network = network.filter_map(|family| self.pod_network_address(family));
        let reported = self.reported.iter().copied();
        reported
            .chain(underlay.map(IpNet::addr))
            .chain(network)
            .collect()
    }

    /// Whether the node has this address on the underlay.
    #[must_use]
    pub fn is_at(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
            || Family::ALL
                .iter()
                .any(|family| self.underlay_address(*family) == Some(address))
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
