//! [`Entry`]: one connection that a kernel tracks.
//!
//! It has two tuples. The original is the first packet as its sender sent it; the reply is what an
//! answer looks like before translation is undone, so its source is the endpoint that `dnat` chose:
//!
//! ```text
//!   original   10.244.1.5:40000 → 10.96.0.10:53      what the client asked
//!   reply      10.244.2.7:53    → 10.244.1.5:40000   who answers it
//! ```
//!
//! Follows linux/netfilter/nf_conntrack_common.h.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use parfait_packet::{Packet, Protocol};
use serde::{Deserialize, Serialize};

/// `IPS_SEEN_REPLY`.
const SEEN_REPLY: u32 = 1 << 1;
/// `IPS_DST_NAT`.
const DST_NAT: u32 = 1 << 5;

/// One direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Tuple {
    /// The IP protocol's number.
    pub protocol: u8,
    /// Who sends; port 0 where the protocol has none.
    pub source: SocketAddr,
    /// Who receives.
    pub destination: SocketAddr,
    /// What ICMP and ICMPv6 have in place of ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<Icmp>,
}

/// By which conntrack knows a ping and its answers again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Icmp {
    /// The echo's identifier.
    pub id: u16,
    /// The message's type; of an IPv4 echo 8.
    pub kind: u8,
    /// Its code.
    pub code: u8,
}

/// One tracked connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The first packet, as it was sent.
    pub original: Tuple,
    /// An answer to it, as it is sent.
    pub reply: Tuple,
    /// The bits of `enum ip_conntrack_status`: answered 2, assured 4, snat 16, dnat 32, …
    pub status: u32,
    /// The number of the state that the kernel sees a TCP connection or an association of SCTP in; 0 for others.
    pub state: u8,
    /// After how many seconds the kernel forgets it, if nothing passes.
    pub expires: u32,
    /// The zone; 0 unless somebody's rules keep connections apart.
    pub zone: u16,
    /// The kernel's number for it.
    pub id: u32,
    /// It is a TCP connection of which the kernel has not seen the beginning (`nf_conntrack_tcp_loose`): the original may
    /// be either direction.
    #[serde(default)]
    pub midway: bool,
}

impl Entry {
    /// Whether one of these addresses is at an end of it, before translation or behind it.
    #[must_use]
    pub fn has_an_end_at(&self, addresses: &BTreeSet<IpAddr>) -> bool {
        let Self {
            original, reply, ..
        } = self;
        let ends = [
            original.source,
            original.destination,
            reply.source,
            reply.destination,
        ];
        ends.iter().any(|end| addresses.contains(&end.ip()))
    }
}

/// As conntrack(8) calls the states, by `enum tcp_conntrack`.
const TCP: [&str; 10] = [
    "NONE",
    "SYN_SENT",
    "SYN_RECV",
    "ESTABLISHED",
    "FIN_WAIT",
    "CLOSE_WAIT",
    "LAST_ACK",
    "TIME_WAIT",
    "CLOSE",
    "SYN_SENT2",
];
/// By `enum sctp_conntrack`.
const SCTP: [&str; 9] = [
    "NONE",
    "CLOSED",
    "COOKIE_WAIT",
    "COOKIE_ECHOED",
    "ESTABLISHED",
    "SHUTDOWN_SENT",
    "SHUTDOWN_RECD",
    "SHUTDOWN_ACK_SENT",
    "HEARTBEAT_SENT",
];

impl Tuple {
    /// The connection that a packet begins; `None` if its protocol has no ports to tell connections apart.
    #[must_use]
    pub fn of(packet: &Packet) -> Option<Self> {
        packet.protocol.has_ports().then(|| Self {
            protocol: packet.protocol.number(packet.family()),
            source: SocketAddr::new(packet.source, packet.source_port),
            destination: SocketAddr::new(packet.destination, packet.destination_port),
            icmp: None,
        })
    }
}

impl Entry {
    /// Its state as conntrack(8) prints it; where the protocol has none, whether an answer has come.
    #[must_use]
    pub fn state(&self) -> &'static str {
        let names: &[&str] = match Protocol::of_number(self.original.protocol) {
            Some(Protocol::Tcp) => &TCP,
            Some(Protocol::Sctp) => &SCTP,
            _ if self.is_answered() => return "answered",
            _ => return "unanswered",
        };
        names.get(usize::from(self.state)).unwrap_or(&"unknown")
    }

    /// Whether both ends have ended it, and it is remembered only for packets that are late.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let over = [
            "LAST_ACK",
            "TIME_WAIT",
            "CLOSE",
            "CLOSED",
            "SHUTDOWN_ACK_SENT",
        ];
        over.contains(&self.state())
    }

    /// Whether its destination was rewritten.
    #[must_use]
    pub const fn is_dnat(&self) -> bool {
        self.status & DST_NAT != 0
    }

    /// Whether an answer has come.
    #[must_use]
    pub const fn is_answered(&self) -> bool {
        self.status & SEEN_REPLY != 0
    }
}

impl fmt::Display for Entry {
    /// `udp 10.244.1.5:40000 → 10.96.0.10:53, answered by 10.244.2.7:53 → 10.244.1.5:40000`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (original, reply) = (&self.original, &self.reply);
        match Protocol::of_number(original.protocol) {
            Some(protocol) => write!(f, "{protocol}")?,
            None => write!(f, "protocol {}", original.protocol)?,
        }
        write!(
            f,
            " {} → {}, answered by {} → {}",
            original.source, original.destination, reply.source, reply.destination
        )
    }
}
