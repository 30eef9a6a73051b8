//! [`Address`]: an IP address on a link, as `ip addr` shows it.
//!
//! Addresses that Parfait assigns are unique by construction (IPAM), so the kernel edge assigns
//! them without duplicate address detection (RFC 4862 section 5.4); the flag is not part of the
//! value. Where the kernel keeps who assigned an address (`IFA_PROTO`, since Linux 5.18), Parfait's are
//! known by their protocol on links of others too; an older kernel ignores it. Left out: what remains of a lifetime, labels,
//! broadcast and anycast addresses.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use crate::{IfName, RouteProtocol};

/// How far an address or a route is valid (rtnetlink(7), `rtm_scope`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Everywhere.
    Global,
    /// Within the site (IPv6, deprecated by RFC 3879).
    Site,
    /// On this link.
    Link,
    /// On this machine.
    Host,
    /// Nowhere: the destination does not exist.
    Nowhere,
}

impl Scope {
    /// The scope that the kernel gives an address by itself.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        if address.is_loopback() {
            return Self::Host;
        }
        match address {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => Self::Link,
            IpAddr::V4(_) | IpAddr::V6(_) => Self::Global,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Global => "global",
            Self::Site => "site",
            Self::Link => "link",
            Self::Host => "host",
            Self::Nowhere => "nowhere",
        })
    }
}

/// An IP address on a link. Its prefix says which neighbours are reached directly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Address {
    /// The link that has it.
    pub link: IfName,
    /// The address and the length of its prefix.
    pub address: IpNet,
    /// How far it is valid.
    pub scope: Scope,
    /// Who assigned it, by the number that their routes carry.
    pub protocol: Option<RouteProtocol>,
    /// For how many seconds the kernel keeps it if it is not told again; then it is no source either. Of one that is
    /// there nobody knows: it is `None`.
    #[serde(skip)]
    pub lent: Option<u32>,
}

/// What tells two addresses apart.
pub type AddressKey = (IfName, IpNet);

impl Address {
    /// An address with the scope that the kernel gives it by itself.
    #[must_use]
    pub fn new(link: IfName, address: IpNet) -> Self {
        Self {
            link,
            address,
            scope: Scope::of(address.addr()),
            protocol: None,
            lent: None,
        }
    }

    /// Whether this, which is there, is as planned. An address that somebody else assigned, or an older kernel
    /// keeps, will do.
    #[must_use]
    pub fn satisfies(&self, planned: &Self) -> bool {
        (&self.link, self.address, self.scope) == (&planned.link, planned.address, planned.scope)
    }

    /// What tells it apart.
    #[must_use]
    pub fn key(&self) -> AddressKey {
        (self.link.clone(), self.address)
    }
}

impl fmt::Display for Address {
    /// `inet 10.244.1.2/32 scope global eth0`, without the flags and label that `ip addr` adds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.address {
            IpNet::V4(_) => "inet",
            IpNet::V6(_) => "inet6",
        };
        let Self {
            link,
            address,
            scope,
            protocol,
            lent: _,
        } = self;
        write!(f, "{family} {address} scope {scope}")?;
        if let Some(RouteProtocol(number)) = protocol {
            write!(f, " proto {number:#x}")?;
        }
        write!(f, " {link}")
    }
}
