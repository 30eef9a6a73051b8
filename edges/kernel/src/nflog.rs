//! [`PacketLog`]: packets that rules tell of (`log group N`, nft(8)), through nfnetlink_log.
//!
//! ```text
//!   rule: log prefix "ingress-shop-…" group 4244 ──▶ nfnetlink_log ──▶ socket ──▶ Logged { prefix, packet }
//! ```
//!
//! The kernel hands over the first bytes of each packet; what is in its headers is read here, as in an IP stack that
//! trusts nobody. If packets come faster than they are read the kernel drops them and says so once (ENOBUFS): how often
//! is counted. Source: linux/netfilter/nfnetlink_log.h, net/netfilter/nfnetlink_log.c; RFC 791, RFC 8200.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, RawFd};

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use parfait_linux::nft::Hook;
use parfait_packet::{Packet, Protocol};
use rustix::io::Errno;

use crate::Error;
use crate::error::errno_of;
use crate::nft::attr::{HEADER, Writer, find};

/// `NFNL_SUBSYS_ULOG << 8`, with `NFULNL_MSG_PACKET` and `NFULNL_MSG_CONFIG`.
const PACKET: u16 = 4 << 8;
const CONFIG: u16 = 4 << 8 | 1;

/// `NFULA_CFG_CMD`: `NFULNL_CFG_CMD_BIND`. `NFULA_CFG_MODE`: how many bytes, and `NFULNL_COPY_PACKET`.
const CFG_CMD: u16 = 1;
const CFG_MODE: u16 = 2;
const BIND: u8 = 1;
const COPY_PACKET: u8 = 2;

/// `NFULA_PACKET_HDR`, `NFULA_PAYLOAD` and `NFULA_PREFIX`.
const PACKET_HEADER: u16 = 1;
const PAYLOAD: u16 = 9;
const PREFIX: u16 = 10;

const NLMSG_ERROR: u16 = 2;
const REQUEST_ACK: u16 = 0x1 | 0x4;

/// The most that is read of each packet.
const COPY: u32 = 256;

/// A packet that a rule told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// What the rule says.
    pub prefix: String,
    /// The packet, as it was there.
    pub packet: Packet,
    /// Where it was; `None` if nobody says so.
    pub hook: Option<Hook>,
}

/// Listens to one group in one network namespace.
pub struct PacketLog {
    socket: Socket,
    buffer: Vec<u8>,
    overruns: u64,
}

impl PacketLog {
    /// Begins to listen in the calling thread's network namespace.
    ///
    /// # Errors
    /// If the kernel has no nfnetlink_log, or somebody else listens to the group.
    pub fn open(group: u16) -> Result<Self, Error> {
        let open = |error: std::io::Error| Error::Open {
            errno: errno_of(&error),
        };
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(open)?;
        socket.bind_auto().map_err(open)?;
        let mut log = Self {
            socket,
            buffer: vec![0; 64 * 1024],
            overruns: 0,
        };
        log.configure(group, |writer| writer.put(CFG_CMD, &[BIND]))?;
        let mut mode = COPY.to_be_bytes().to_vec();
        mode.extend([COPY_PACKET, 0]);
        log.configure(group, |writer| writer.put(CFG_MODE, &mode))?;
        log.socket.set_non_blocking(true).map_err(open)?;
        Ok(log)
    }

    /// How often packets were lost because nobody read them in time.
    #[must_use]
    pub const fn overruns(&self) -> u64 {
        self.overruns
    }

    /// Reads what there is to read. Does not wait.
    ///
    /// # Errors
    /// If the kernel cannot be heard any more.
    pub fn read(&mut self) -> Result<Vec<Logged>, Error> {
        let mut logged = Vec::new();
        loop {
            match self.socket.recv(&mut &mut self.buffer[..], 0) {
                Ok(length) => {
                    let messages = self.buffer.get(..length).unwrap_or_default();
                    logged.extend(split(messages).filter_map(|(kind, body)| match kind {
                        PACKET => parse(body),
                        _ => None,
                    }));
                }
                Err(error) => match errno_of(&error) {
                    Errno::WOULDBLOCK => return Ok(logged),
                    Errno::INTR => {}
                    Errno::NOBUFS => self.overruns += 1,
                    _ => return Err(Error::exchange("reading denied packets", &error)),
                },
            }
        }
    }

    fn configure(&mut self, group: u16, attribute: impl FnOnce(&mut Writer)) -> Result<(), Error> {
        let failed = |error: std::io::Error| Error::exchange("listening to a log group", &error);
        let mut writer = Writer::default();
        let start = writer.message(CONFIG, REQUEST_ACK, 1, 0, group);
        attribute(&mut writer);
        writer.end_message(start);
        let kernel = SocketAddr::new(0, 0);
        let sent = self.socket.send_to(writer.bytes(), &kernel, 0);
        sent.map_err(failed)?;
        loop {
            let length = self
                .socket
                .recv(&mut &mut self.buffer[..], 0)
                .map_err(failed)?;
            let messages = self.buffer.get(..length).unwrap_or_default();
            // Packets of the group may come before the answer.
            let answer = split(messages).find(|(kind, _)| *kind == NLMSG_ERROR);
            if let Some((_, body)) = answer {
                let code = body.get(..4).and_then(|code| code.try_into().ok());
                return match code.map_or(0, i32::from_ne_bytes) {
                    0 => Ok(()),
                    code => Err(failed(std::io::Error::from_raw_os_error(-code))),
                };
            }
        }
    }
}

impl AsRawFd for PacketLog {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// The messages of a datagram: their types, and what is behind nlmsghdr.
fn split(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.get(..16)?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length >= 16)?;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let body = bytes.get(16..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// A packet's message, behind nlmsghdr.
fn parse(body: &[u8]) -> Option<Logged> {
    let attributes = body.get(HEADER - 16..)?;
    Some(Logged {
        prefix: find(attributes, PREFIX)?.str(),
        packet: packet(find(attributes, PAYLOAD)?.value)?,
        hook: find(attributes, PACKET_HEADER).and_then(|header| hook(header.value)),
    })
}

/// `enum nf_inet_hooks`, behind the EtherType in `struct nfulnl_msg_packet_hdr`.
fn hook(header: &[u8]) -> Option<Hook> {
    let all = [
        Hook::Prerouting,
        Hook::Input,
        Hook::Forward,
        Hook::Output,
        Hook::Postrouting,
    ];
    all.get(usize::from(*header.get(2)?)).copied()
}

/// The packet of these first bytes of it, if it is of a protocol that policies know.
fn packet(bytes: &[u8]) -> Option<Packet> {
    let (source, destination, number, rest): (IpAddr, IpAddr, u8, &[u8]) = match bytes.first()? >> 4
    {
        4 => {
            let words = usize::from(bytes.first()? & 0xf);
            let address = |at: usize| {
                let bytes: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
                Some(IpAddr::from(Ipv4Addr::from(bytes)))
            };
            let fragment = u16::from_be_bytes([*bytes.get(6)?, *bytes.get(7)?]) & 0x1fff;
            let rest = match fragment {
                0 => bytes.get(words * 4..)?,
                // Ports are in the first fragment alone.
                _ => return None,
            };
            (address(12)?, address(16)?, *bytes.get(9)?, rest)
        }
        6 => {
            let address = |at: usize| {
                let bytes: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
                Some(IpAddr::from(Ipv6Addr::from(bytes)))
            };
            let (number, rest) = behind_extensions(*bytes.get(6)?, bytes.get(40..)?)?;
            (address(8)?, address(24)?, number, rest)
        }
        _ => return None,
    };
    let protocol = Protocol::of_number(number)?;
    let port = |at: usize| match protocol.has_ports() {
        true => Some(u16::from_be_bytes([*rest.get(at)?, *rest.get(at + 1)?])),
        false => Some(0),
    };
    Some(Packet {
        source,
        destination,
        protocol,
        source_port: port(0)?,
        destination_port: port(2)?,
    })
}

/// The header behind an IPv6 packet's hop-by-hop, routing and destination options (RFC 8200 section 4).
fn behind_extensions(mut number: u8, mut rest: &[u8]) -> Option<(u8, &[u8])> {
    while matches!(number, 0 | 43 | 60) {
        number = *rest.first()?;
        let length = (usize::from(*rest.get(1)?) + 1) * 8;
        rest = rest.get(length..)?;
    }
    Some((number, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipv4(protocol: u8, fragment: u16, rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x45, 0, 0, 40, 0, 0];
        bytes.extend(fragment.to_be_bytes());
        bytes.extend([64, protocol, 0, 0, 10, 244, 1, 2, 10, 244, 2, 3]);
        bytes.extend(rest);
        bytes
    }

    #[test]
    fn packets_are_read_and_what_is_too_short_is_none() {
        let tcp = ipv4(6, 0x4000, &[0xc0, 0x01, 0x1f, 0x90]);
        let read = packet(&tcp).expect("a packet");
        assert_eq!(
            (
                read.source.to_string(),
                read.destination.to_string(),
                read.source_port,
                read.destination_port
            ),
            (
                "10.244.1.2".to_owned(),
                "10.244.2.3".to_owned(),
                49_153,
                8_080
            )
        );
        for length in 0..tcp.len() {
            assert_eq!(packet(&tcp[..length]), None, "{length} bytes");
        }
        assert_eq!(packet(&ipv4(6, 7, &[0; 8])), None, "a later fragment");
        assert_eq!(packet(&ipv4(47, 0, &[0; 8])), None, "GRE");
        assert_eq!(
            packet(&ipv4(1, 0, &[8, 0])).map(|read| read.protocol),
            Some(Protocol::Icmp)
        );
        let mut six = vec![0x60, 0, 0, 0, 0, 16, 0, 64];
        six.extend(Ipv6Addr::LOCALHOST.octets());
        six.extend("fd00::2".parse::<Ipv6Addr>().expect("an address").octets());
        // Hop-by-hop options of 8 bytes, and UDP behind them.
        six.extend([17, 0, 1, 4, 0, 0, 0, 0, 0, 53, 0, 54]);
        let read = packet(&six).expect("a packet");
        assert_eq!(
            (read.protocol, read.source_port, read.destination_port),
            (Protocol::Udp, 53, 54)
        );
        for length in 0..six.len() {
            assert_eq!(packet(&six[..length]), None, "{length} bytes");
        }
    }
    proptest::proptest! {
        #[test]
        fn what_anybody_sends_is_read_without_a_panic(
            first in proptest::sample::select(vec![0x40_u8, 0x45, 0x4f, 0x60, 0x00]),
            rest in proptest::collection::vec(0_u8.., 0..96),
        ) {
            let mut bytes = vec![first];
            bytes.extend(rest);
            let _ = packet(&bytes);
            let _ = parse(&bytes);
            let _ = split(&bytes).count();
        }
    }
}
