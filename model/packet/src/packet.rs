//! One packet: the five values that routing, NAT and policy look at, and its length.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An IP family. Code that handles both takes one of these instead of being written twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    /// Internet Protocol version 4 (RFC 791).
    #[serde(rename = "IPv4")]
    Ipv4,
    /// Internet Protocol version 6 (RFC 8200).
    #[serde(rename = "IPv6")]
    Ipv6,
}

impl Family {
    /// Both families, IPv4 first, the order in which a dual-stack cluster lists them by default.
    pub const ALL: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    /// The family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }

    /// The address that stands for none: `0.0.0.0` or `::`.
    #[must_use]
    pub const fn unspecified(self) -> IpAddr {
        match self {
            Self::Ipv4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Self::Ipv6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }

    /// Bits in an address of this family: 32 or 128. Also the prefix length of a single host.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::Ipv4 => 32,
            Self::Ipv6 => 128,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        })
    }
}

/// A transport protocol, or ICMP of the packet's family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// RFC 9293, protocol number 6.
    Tcp,
    /// RFC 768, protocol number 17.
    Udp,
    /// RFC 9260, protocol number 132.
    Sctp,
    /// Echo requests: ICMP (1, RFC 792) in IPv4, ICMPv6 (58, RFC 4443) in IPv6.
    Icmp,
}

impl Protocol {
    /// The number in the IP header, which for ICMP depends on the family.
    #[must_use]
    pub const fn number(self, family: Family) -> u8 {
        match (self, family) {
            (Self::Tcp, _) => 6,
            (Self::Udp, _) => 17,
            (Self::Sctp, _) => 132,
            (Self::Icmp, Family::Ipv4) => 1,
            (Self::Icmp, Family::Ipv6) => 58,
        }
    }

    /// The protocol of an IP header's number, if it is one of ours.
    #[must_use]
    pub const fn of_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            132 => Some(Self::Sctp),
            1 | 58 => Some(Self::Icmp),
            _ => None,
        }
    }

    /// Whether packets of this protocol carry ports.
    #[must_use]
    pub const fn has_ports(self) -> bool {
        !matches!(self, Self::Icmp)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
            Self::Icmp => "icmp",
        })
    }
}

/// A protocol name that is none of `tcp`, `udp`, `sctp`, `icmp`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownProtocol(pub String);

impl fmt::Display for UnknownProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "unknown protocol {:?}: use tcp, udp, sctp or icmp",
            self.0
        )
    }
}

impl std::error::Error for UnknownProtocol {}

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    /// Accepts both spellings in use: the API's `TCP` and the command line's `tcp`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            "icmp" | "icmpv6" => Ok(Self::Icmp),
            _ => Err(UnknownProtocol(text.to_owned())),
        }
    }
}

/// The first packet of a connection. Source and destination are always of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Packet {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Source port; 0 for ICMP.
    pub source_port: u16,
    /// Destination port; 0 for ICMP.
    pub destination_port: u16,
}

impl Packet {
    /// The source port shown where the sender's kernel would pick one (RFC 6056).
    pub const EPHEMERAL_PORT: u16 = 40_000;

    /// A packet to `destination`, or `None` if the two addresses are of different families.
    #[must_use]
    pub fn new(
        source: IpAddr,
        destination: IpAddr,
        protocol: Protocol,
        destination_port: u16,
    ) -> Option<Self> {
        (Family::of(source) == Family::of(destination)).then(|| Self {
            source,
            destination,
            protocol,
            source_port: if protocol.has_ports() {
                Self::EPHEMERAL_PORT
            } else {
                0
            },
            destination_port: if protocol.has_ports() {
                destination_port
            } else {
                0
            },
        })
    }

    /// The family of both addresses.
    #[must_use]
    pub const fn family(&self) -> Family {
        Family::of(self.destination)
    }

    /// The packet that answers this one.
    #[must_use]
    pub const fn reply(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            protocol: self.protocol,
            source_port: self.destination_port,
            destination_port: self.source_port,
        }
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |address: IpAddr, port: u16| match (address, self.protocol.has_ports()) {
            (address, false) => address.to_string(),
            (IpAddr::V4(v4), true) => format!("{v4}:{port}"),
            (IpAddr::V6(v6), true) => format!("[{v6}]:{port}"),
        };
        write!(
            f,
            "{} {} → {}",
            self.protocol,
            side(self.source, self.source_port),
            side(self.destination, self.destination_port)
        )
    }
}
