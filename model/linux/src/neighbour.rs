//! [`Neighbour`] and [`FdbEntry`]: who on a link has which address.
//!
//! A neighbour entry says which Ethernet address an IP address has (ARP, RFC 826; RFC 4861). A
//! forwarding database (FDB) entry of a VXLAN device says behind which underlay address an Ethernet
//! address lives (RFC 7348 section 4). Parfait pins both: nothing is asked for on the wire and
//! nothing is learned.
//!
//! Left out: entries of bridges, proxy and router flags.

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

use crate::{IfName, Mac};

/// One line of `ip neigh`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Neighbour {
    /// The link it is on.
    pub link: IfName,
    /// Its IP address.
    pub address: IpAddr,
    /// Its Ethernet address; `None` while the kernel is still asking, or has failed to learn it.
    pub mac: Option<Mac>,
    /// Whether the entry stays until it is removed.
    pub permanent: bool,
}

/// What tells two neighbours apart.
pub type NeighbourKey = (IfName, IpAddr);

impl Neighbour {
    /// A pinned entry.
    #[must_use]
    pub const fn permanent(link: IfName, address: IpAddr, mac: Mac) -> Self {
        Self {
            link,
            address,
            mac: Some(mac),
            permanent: true,
        }
    }

    /// What tells it apart.
    #[must_use]
    pub fn key(&self) -> NeighbourKey {
        (self.link.clone(), self.address)
    }
}

impl fmt::Display for Neighbour {
    /// `10.244.2.0 dev pf-vxlan lladdr 02:42:0a:f4:02:00 PERMANENT`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} dev {}", self.address, self.link)?;
        if let Some(mac) = self.mac {
            write!(f, " lladdr {mac}")?;
        }
        f.write_str(match (self.permanent, self.mac) {
            (true, _) => " PERMANENT",
            (false, Some(_)) => " REACHABLE",
            (false, None) => " INCOMPLETE",
        })
    }
}

/// One line of `bridge fdb show dev VXLAN`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct FdbEntry {
    /// The VXLAN device.
    pub link: IfName,
    /// The Ethernet address of the tunnel's other end.
    pub mac: Mac,
    /// The underlay address that frames to it are sent to.
    pub destination: IpAddr,
}

/// What tells two entries apart. An address has one destination, except the all-zero one, which
/// stands for "every address not listed" and may have several.
pub type FdbKey = (IfName, Mac, IpAddr);

impl FdbEntry {
    /// What tells it apart.
    #[must_use]
    pub fn key(&self) -> FdbKey {
        (self.link.clone(), self.mac, self.destination)
    }

    /// Whether both cannot exist at once: the same unicast address behind two destinations.
    #[must_use]
    pub fn displaces(&self, other: &Self) -> bool {
        self.link == other.link
            && self.mac == other.mac
            && self.destination != other.destination
            && self.mac.bytes() != [0; 6]
    }
}

impl fmt::Display for FdbEntry {
    /// `02:42:0a:f4:02:00 dev pf-vxlan dst 192.168.77.12 self permanent`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            link,
            mac,
            destination,
        } = self;
        write!(f, "{mac} dev {link} dst {destination} self permanent")
    }
}
