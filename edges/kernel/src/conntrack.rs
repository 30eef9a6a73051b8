//! Connections that the kernel tracks: listed, and removed when what they point to is gone.
//!
//! A UDP client that keeps its port would be sent to a dead endpoint for as long as it tries, because
//! its entry lives on: hence [`NftSocket::delete_connections`]. TCP finds out by itself.
//!
//! Deliberately absent: events, filtering in the kernel (entries are filtered here), and zones (entries
//! of all are listed, and deleted by their number). Follows linux/netfilter/nfnetlink_conntrack.h.

use std::net::{IpAddr, SocketAddr};

use parfait_linux::conntrack::{Entry, Tuple};
use rustix::io::Errno;

use crate::nft::{ACK, DUMP};
use crate::nft::{Attribute, Error, NftSocket, Writer, address, find};

const CT_GET: u16 = 1 << 8 | 1;
const CT_DELETE: u16 = 1 << 8 | 2;
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const ID: u16 = 12;
const ZONE: u16 = 18;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IP_V4_SRC: u16 = 1;
const IP_V4_DST: u16 = 2;
const IP_V6_SRC: u16 = 3;
const IP_V6_DST: u16 = 4;
const PROTO_NUM: u16 = 1;
const PROTO_SRC_PORT: u16 = 2;
const PROTO_DST_PORT: u16 = 3;
const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Which entries are meant: those to which everything here applies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this IP protocol.
    pub protocol: Option<u8>,
    /// Sent to this address at first: a Service's.
    pub destination: Option<IpAddr>,
    /// Sent to this port at first.
    pub destination_port: Option<u16>,
    /// Answered from this address: an endpoint's.
    pub reply_source: Option<IpAddr>,
    /// Answered from this port.
    pub reply_source_port: Option<u16>,
}

impl Filter {
    /// Whether this entry is meant.
    #[must_use]
    pub fn matches(&self, entry: &Entry) -> bool {
        let (to, from) = (entry.original.destination, entry.reply.source);
        is(self.protocol, entry.original.protocol)
            && is(self.destination, to.ip())
            && is(self.destination_port, to.port())
            && is(self.reply_source, from.ip())
            && is(self.reply_source_port, from.port())
    }
}

impl NftSocket {
    /// Lists the connections of this socket's network namespace.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn connections(&mut self, filter: &Filter) -> Result<Vec<Entry>, Error> {
        let operation = "listing tracked connections";
        let mut entries = self.request(
            CT_GET,
            DUMP,
            AF_UNSPEC,
            operation,
            |_| {},
            |message| read(message.attributes).filter(|entry| filter.matches(entry)),
        )?;
        // A dump that had to go on in another read may repeat an entry.
        entries.sort_by_key(|entry| entry.id);
        entries.dedup_by_key(|entry| entry.id);
        Ok(entries)
    }

    /// Removes connections, so that their next packet is a first one again. Gives how many.
    ///
    /// # Errors
    /// If the kernel refuses. One that is gone already is no error.
    pub fn delete_connections(&mut self, filter: &Filter) -> Result<usize, Error> {
        let mut deleted = 0;
        for entry in self.connections(filter)? {
            let family = match entry.original.source {
                SocketAddr::V4(_) => AF_INET,
                SocketAddr::V6(_) => AF_INET6,
            };
            let operation = "deleting a tracked connection";
            let body = |writer: &mut Writer| write(writer, &entry);
            match self.request(CT_DELETE, ACK, family, operation, body, |_| None::<()>) {
                Ok(_) => deleted += 1,
                Err(error) if error.errno() == Some(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(deleted)
    }
}

fn is<T: PartialEq>(wanted: Option<T>, found: T) -> bool {
    wanted.is_none_or(|wanted| wanted == found)
}

fn read(attributes: &[u8]) -> Option<Entry> {
    let number = |kind| find(attributes, kind).map_or(0, |found| found.u32());
    Some(Entry {
        original: read_tuple(&find(attributes, TUPLE_ORIG)?)?,
        reply: read_tuple(&find(attributes, TUPLE_REPLY)?)?,
        status: number(STATUS),
        zone: u16::try_from(number(ZONE)).unwrap_or(0),
        id: number(ID),
    })
}

fn read_tuple(tuple: &Attribute<'_>) -> Option<Tuple> {
    let ip = find(tuple.value, TUPLE_IP)?;
    let proto = find(tuple.value, TUPLE_PROTO)?;
    let either = |v4, v6| {
        let found = find(ip.value, v4).or_else(|| find(ip.value, v6))?;
        address(found.value)
    };
    let port = |kind| {
        let found = find(proto.value, kind).map_or(0, |port| port.u32());
        u16::try_from(found).unwrap_or(0)
    };
    Some(Tuple {
        protocol: u8::try_from(find(proto.value, PROTO_NUM)?.u32()).ok()?,
        source: SocketAddr::new(either(IP_V4_SRC, IP_V6_SRC)?, port(PROTO_SRC_PORT)),
        destination: SocketAddr::new(either(IP_V4_DST, IP_V6_DST)?, port(PROTO_DST_PORT)),
    })
}

/// The kernel finds an entry by its tuple, and makes sure of it by its number.
fn write(writer: &mut Writer, entry: &Entry) {
    let tuple = &entry.original;
    writer.nest(TUPLE_ORIG, |writer| {
        writer.nest(TUPLE_IP, |writer| {
            match (tuple.source.ip(), tuple.destination.ip()) {
                (IpAddr::V4(source), IpAddr::V4(destination)) => {
                    writer.put(IP_V4_SRC, &source.octets());
                    writer.put(IP_V4_DST, &destination.octets());
                }
                (IpAddr::V6(source), IpAddr::V6(destination)) => {
                    writer.put(IP_V6_SRC, &source.octets());
                    writer.put(IP_V6_DST, &destination.octets());
                }
                _ => {}
            }
        });
        writer.nest(TUPLE_PROTO, |writer| {
            writer.put(PROTO_NUM, &[tuple.protocol]);
            writer.put(PROTO_SRC_PORT, &tuple.source.port().to_be_bytes());
            writer.put(PROTO_DST_PORT, &tuple.destination.port().to_be_bytes());
        });
    });
    if entry.zone != 0 {
        writer.put(ZONE, &entry.zone.to_be_bytes());
    }
    writer.put_u32(ID, entry.id);
}
