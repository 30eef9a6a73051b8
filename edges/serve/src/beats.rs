//! [`Beats`]: short messages between agents that stand in for each other, over UDP.
//!
//! ```text
//!   "parfait1"  flags  name of the sender
//!   8 bytes     1      1 to 253 bytes           1: its rules are in force   2: it hears the receiver
//! ```
//!
//! Nothing here is secret, and nothing is proved: a receiver takes a beat only from an address of the node that it names.
//! Who can forge that on the nodes' segment can answer ARP there as well, which is all that a beat could lead to.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::UdpSocket;

/// Where every agent listens.
pub const PORT: u16 = 4244;

const MAGIC: &[u8; 8] = b"parfait1";

/// The longest name of a Node: a DNS subdomain.
const LONGEST: usize = 253;

/// A beat, as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The sender's Node.
    pub node: String,
    /// Its rules are in force.
    pub in_force: bool,
    /// It hears the receiver.
    pub hears: bool,
}

impl Message {
    fn encode(&self) -> Vec<u8> {
        let flags = u8::from(self.in_force) | u8::from(self.hears) << 1;
        [MAGIC, &[flags][..], self.node.as_bytes()].concat()
    }

    /// `None` for anything else that somebody sent to this port.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (flags, name) = bytes.strip_prefix(MAGIC)?.split_first()?;
        let node = std::str::from_utf8(name).ok()?;
        let fits = (1..=LONGEST).contains(&node.len());
        fits.then(|| Self {
            node: node.to_owned(),
            in_force: flags & 1 != 0,
            hears: flags & 2 != 0,
        })
    }
}

/// The socket.
pub struct Beats(UdpSocket);

impl Beats {
    /// Listens at every address of the node, or of IPv4 where the kernel has no IPv6.
    ///
    /// # Errors
    /// If the port is taken.
    pub async fn open() -> io::Result<Self> {
        let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, PORT));
        let socket = match UdpSocket::bind(both).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
            Err(_) => UdpSocket::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT))).await,
            bound => bound,
        };
        socket.map(Self)
    }

    /// Waits for a beat. May be dropped at any time.
    ///
    /// # Errors
    /// If the socket is broken. What the network says of earlier beats (ICMP) is no error.
    pub async fn receive(&self) -> io::Result<(IpAddr, Message)> {
        let mut buffer = [0; 512];
        loop {
            match self.0.recv_from(&mut buffer).await {
                Ok((length, from)) => {
                    if let Some(message) = Message::decode(&buffer[..length]) {
                        return Ok((from.ip().to_canonical(), message));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends a beat. What cannot be sent now, the next may.
    pub fn send(&self, to: IpAddr, message: &Message) {
        let dual = self.0.local_addr().is_ok_and(|own| own.is_ipv6());
        let to = match to {
            IpAddr::V4(to) if dual => IpAddr::V6(to.to_ipv6_mapped()),
            to => to,
        };
        if let Err(error) = self
            .0
            .try_send_to(&message.encode(), SocketAddr::new(to, PORT))
        {
            tracing::trace!("a beat to {to} is lost: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_sent_is_read(node in "[a-z0-9.-]{1,253}", in_force: bool, hears: bool) {
            let message = Message { node, in_force, hears };
            prop_assert_eq!(Message::decode(&message.encode()), Some(message));
        }

        #[test]
        fn anything_is_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Message::decode(&bytes);
        }
    }

    #[test]
    fn what_is_no_beat_is_none() {
        for bytes in [
            &b""[..],
            b"parfait1",
            b"parfait1\x03",
            b"parfait2\x03node-1",
            b"parfait1\x03\xff\xfe",
        ] {
            assert_eq!(Message::decode(bytes), None, "{bytes:?}");
        }
    }
}
