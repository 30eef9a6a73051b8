//! [`Reality`]: what the kernel holds, against which records are held.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use parfait_kernel::Socket;
use parfait_kernel::conntrack::Filter;
use parfait_kernel::nft::NftSocket;
use parfait_linux::attachment::host_mac;
use parfait_linux::{IfName, LinkKind, Mac, RouteProtocol, State};

use super::ended;
use crate::attach;
use crate::error::Error;
use crate::isolation;

/// The attachments of a node as its kernel has them.
pub trait Reality {
    /// Looks at all of them.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    fn look(&mut self) -> Result<Seen, Error>;

    /// Whether this very address leads to an attachment: a question that costs the same on a full node.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    fn is_routed(&mut self, address: IpAddr) -> Result<bool, Error>;

    /// Removes the attachment that has these addresses by the node's end, if it is there.
    ///
    /// # Errors
    /// If the kernel refuses.
    fn detach(&mut self, interface: &IfName, addresses: &[IpAddr]) -> Result<(), Error>;

    /// Removes the tracked connections that have one of these addresses at an end.
    ///
    /// # Errors
    /// If the kernel cannot be asked, or refuses.
    fn forget(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<(), Error>;

    /// Takes whoever had this interface with these addresses out of the pods that the agent knows.
    ///
    /// # Errors
    /// If the kernel cannot be asked, or refuses.
    fn isolate(&mut self, interface: &IfName, addresses: &[IpAddr]) -> Result<(), Error>;
}

/// What is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The nodes' ends by their Ethernet addresses, which follow from the first address each.
    pub links: BTreeMap<Mac, IfName>,
    /// The addresses that are routed to a node's end.
    pub routes: BTreeMap<IpAddr, IfName>,
}

impl Seen {
    /// The node's end of the attachment that has these addresses.
    #[must_use]
    pub fn interface(&self, addresses: &[IpAddr]) -> Option<&IfName> {
        self.links.get(&host_mac(*addresses.first()?))
    }

    /// Whether there is anything of an attachment with these addresses.
    #[must_use]
    pub fn has(&self, addresses: &[IpAddr]) -> bool {
        self.interface(addresses).is_some()
            || addresses.iter().any(|ip| self.routes.contains_key(ip))
    }

    /// What is routed to an interface, but not one of these.
    pub(super) fn others(&self, known: &BTreeSet<IpAddr>) -> BTreeMap<&IfName, Vec<IpAddr>> {
        let mut others = BTreeMap::<_, Vec<_>>::new();
        for (address, interface) in &self.routes {
            if !known.contains(address) {
                others.entry(interface).or_default().push(*address);
            }
        }
        others
    }
}

impl From<&State> for Seen {
    fn from(state: &State) -> Self {
        let mut seen = Self::default();
        for item in state.links.values() {
            if let (LinkKind::Veth { .. }, Some(mac)) = (&item.value.kind, item.value.mac) {
                seen.links.insert(mac, item.value.name.clone());
            }
        }
        for item in state.routes.values() {
            let route = &item.value;
            let host = route.destination.prefix_len() == route.destination.max_prefix_len();
            let link = route.link.as_ref().filter(|link| {
                let link = state.links.get(*link);
                link.is_some_and(|link| matches!(link.value.kind, LinkKind::Veth { .. }))
            });
            if let Some(link) = link
                && host
                && route.protocol == RouteProtocol::PARFAIT_CNI
            {
                seen.routes.insert(route.destination.addr(), link.clone());
            }
        }
        seen
    }
}

impl Reality for Socket {
    fn look(&mut self) -> Result<Seen, Error> {
        Ok(Seen::from(&self.observe(&[])?))
    }

    fn is_routed(&mut self, address: IpAddr) -> Result<bool, Error> {
        Ok(self.host_route(address)? == Some(RouteProtocol::PARFAIT_CNI))
    }

    fn detach(&mut self, interface: &IfName, addresses: &[IpAddr]) -> Result<(), Error> {
        attach::remove(self, interface, addresses)
    }

    fn forget(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<(), Error> {
        let mut netfilter = NftSocket::open()?;
        let entries = netfilter.connections(&Filter::default())?;
        ended::forget(&mut netfilter, &entries, addresses).map(drop)
    }

    fn isolate(&mut self, interface: &IfName, addresses: &[IpAddr]) -> Result<(), Error> {
        isolation::isolate(interface, addresses)
    }
}
