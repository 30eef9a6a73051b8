//! [`NodeFacts`]: what only the node itself knows about its underlay.

use std::net::IpAddr;

use ipnet::IpNet;
use parfait_linux::{IfName, Mtu, State};

/// The interface that carries a node's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its name.
    pub interface: IfName,
    /// The node's address and the prefix that is on the same link.
    pub prefix: IpNet,
    /// The largest packet that the underlay carries.
    pub mtu: Mtu,
}

impl NodeFacts {
    /// The facts about each of the node's addresses that an interface here carries, in their order.
    #[must_use]
    pub fn of(state: &State, addresses: &[IpAddr]) -> Vec<Self> {
        let fact = |address: &IpAddr| {
            let found = state.owner(*address)?;
            let link = state.links.get(&found.value.link)?;
            Some(Self {
                interface: found.value.link.clone(),
                prefix: found.value.address,
                mtu: link.value.mtu,
            })
        };
        addresses.iter().filter_map(fact).collect()
    }
}
