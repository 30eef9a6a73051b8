//! [`Record`]: what a name stands for, and the object it exists for. Prints as `dig` prints it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use parfait_packet::Origin;
use serde::Serialize;

use crate::Name;

/// The type of a record, or of the records that a question asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordType {
    /// An IPv4 address (RFC 1035).
    A,
    /// An IPv6 address (RFC 3596).
    Aaaa,
    /// An alias (RFC 1035).
    Cname,
    /// A name server (RFC 1035).
    Ns,
    /// A name for an address (RFC 1035).
    Ptr,
    /// The start of a zone (RFC 1035).
    Soa,
    /// A service's host and port (RFC 2782).
    Srv,
    /// Text (RFC 1035).
    Txt,
    /// A question for records of all types.
    Any,
    /// A type that zones here do not hold.
    Other(u16),
}

impl RecordType {
    const NAMED: [(Self, u16, &'static str); 9] = [
        (Self::A, 1, "A"),
        (Self::Ns, 2, "NS"),
        (Self::Cname, 5, "CNAME"),
        (Self::Soa, 6, "SOA"),
        (Self::Ptr, 12, "PTR"),
        (Self::Txt, 16, "TXT"),
        (Self::Aaaa, 28, "AAAA"),
        (Self::Srv, 33, "SRV"),
        (Self::Any, 255, "ANY"),
    ];

    /// The type of a number in the registry of DNS parameters.
    #[must_use]
    pub fn from_code(code: u16) -> Self {
        let found = Self::NAMED.iter().find(|(_, c, _)| *c == code);
        found.map_or(Self::Other(code), |(kind, _, _)| *kind)
    }

    /// Its number in the registry of DNS parameters.
    #[must_use]
    pub fn code(self) -> u16 {
        if let Self::Other(code) = self {
            return code;
        }
        let found = Self::NAMED.iter().find(|(kind, _, _)| *kind == self);
        found.map_or(0, |(_, code, _)| *code)
    }

    /// The type of an address.
    #[must_use]
    pub const fn of_address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::A,
            IpAddr::V6(_) => Self::Aaaa,
        }
    }

    /// Whether a record of type `other` answers a question for this type.
    #[must_use]
    pub fn asks_for(self, other: Self) -> bool {
        self == Self::Any || self == other
    }
}

impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Other(code) = self {
            return write!(f, "TYPE{code}");
        }
        let found = Self::NAMED.iter().find(|(kind, _, _)| kind == self);
        f.write_str(found.map_or("", |(_, _, name)| name))
    }
}

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Data {
    /// An IPv4 or IPv6 address: an A or AAAA record.
    Address(IpAddr),
    /// An alias's target.
    Cname(Name),
    /// A name server.
    Ns(Name),
    /// A name for an address.
    Ptr(Name),
    /// Where a service is.
    Srv {
        /// Lower comes first.
        priority: u16,
        /// The share among those of one priority.
        weight: u16,
        /// The port.
        port: u16,
        /// The host.
        target: Name,
    },
    /// One text of at most 255 bytes.
    Txt(String),
    /// The start of a zone.
    Soa {
        /// The primary name server.
        primary: Name,
        /// The mailbox of whoever is responsible.
        mailbox: Name,
        /// How long nobody needs to ask again for what does not exist, in seconds (RFC 2308).
        negative_ttl: u32,
    },
}

impl Data {
    /// Its record's type.
    #[must_use]
    pub const fn kind(&self) -> RecordType {
        match self {
            Self::Address(address) => RecordType::of_address(*address),
            Self::Cname(_) => RecordType::Cname,
            Self::Ns(_) => RecordType::Ns,
            Self::Ptr(_) => RecordType::Ptr,
            Self::Srv { .. } => RecordType::Srv,
            Self::Txt(_) => RecordType::Txt,
            Self::Soa { .. } => RecordType::Soa,
        }
    }

    /// An A record's data.
    #[must_use]
    pub const fn a(address: Ipv4Addr) -> Self {
        Self::Address(IpAddr::V4(address))
    }

    /// An AAAA record's data.
    #[must_use]
    pub const fn aaaa(address: Ipv6Addr) -> Self {
        Self::Address(IpAddr::V6(address))
    }
}

impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Cname(name) | Self::Ns(name) | Self::Ptr(name) => write!(f, "{name}"),
            Self::Srv {
                priority,
                weight,
                port,
                target,
            } => write!(f, "{priority} {weight} {port} {target}"),
            Self::Txt(text) => write!(f, "{text:?}"),
            Self::Soa {
                primary,
                mailbox,
                negative_ttl,
            } => write!(f, "{primary} {mailbox} 1 7200 1800 86400 {negative_ttl}"),
        }
    }
}

/// What a name stands for, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Record {
    /// What it says.
    pub data: Data,
    /// The object it exists for.
    pub origin: Origin,
}

/// A record as `dig` prints it: `web.default.svc.cluster.local. 5 IN A 10.96.0.7`.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// Whose record it is.
    pub name: &'a Name,
    /// How long it may be remembered, in seconds.
    pub ttl: u32,
    /// What it says.
    pub data: &'a Data,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, ttl, data } = self;
        write!(f, "{name} {ttl} IN {} {data}", data.kind())
    }
}
