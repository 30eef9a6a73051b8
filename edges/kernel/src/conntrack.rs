//! Connections that the kernel tracks: listed, and removed when what they point to is gone.
//!
//! A UDP client that keeps its port would be sent to a dead endpoint for as long as it tries, because
//! its entry lives on: hence [`NftSocket::delete_connection`]. Which ones, the transport layer decides.
//!
//! The kernel hands over only the protocol that is asked for, since 5.8, and only those that nobody has
//! answered, since 5.13; older ones hand over all, and the rest is left out here: a node may have a million.
//!
//! Deliberately absent: events, and zones (entries of all are listed, and deleted by their number).
//! Follows linux/netfilter/nfnetlink_conntrack.h.

use std::net::{IpAddr, SocketAddr};

use parfait_linux::conntrack::{Entry, Icmp, Tuple};
use rustix::io::Errno;

use crate::nft::{ACK, DUMP};
use crate::nft::{Attribute, Error, NftSocket, Writer, address, find};

const CT_GET: u16 = 1 << 8 | 1;
const CT_DELETE: u16 = 1 << 8 | 2;
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const PROTOINFO: u16 = 4;
const TIMEOUT: u16 = 7;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;
const STATUS_MASK: u16 = 26;
const FILTER_ORIG_FLAGS: u16 = 1;
/// `CTA_FILTER_FLAG(CTA_PROTO_NUM)` of the kernel's nf_internals.h.
const BY_PROTOCOL: u32 = 1 << 3;
/// `IPS_SEEN_REPLY`.
const SEEN_REPLY: u32 = 1 << 1;
const PROTOINFO_TCP: u16 = 1;
const PROTOINFO_SCTP: u16 = 3;
/// Of TCP and of SCTP alike.
const PROTOINFO_STATE: u16 = 1;
/// `CTA_PROTOINFO_TCP_FLAGS_ORIGINAL`, and `IP_CT_TCP_FLAG_BE_LIBERAL`.
const PROTOINFO_FLAGS: u16 = 4;
const BE_LIBERAL: u8 = 0x08;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IP_V4_SRC: u16 = 1;
const IP_V4_DST: u16 = 2;
const IP_V6_SRC: u16 = 3;
const IP_V6_DST: u16 = 4;
const PROTO_NUM: u16 = 1;
const PROTO_SRC_PORT: u16 = 2;
const PROTO_DST_PORT: u16 = 3;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Which entries are meant: those to which everything here applies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this IP protocol.
    pub protocol: Option<u8>,
    /// Sent from this address.
    pub source: Option<IpAddr>,
    /// Sent to this address at first: a Service's.
    pub destination: Option<IpAddr>,
    /// Sent to this port at first.
    pub destination_port: Option<u16>,
    /// Answered from this address: an endpoint's.
    pub reply_source: Option<IpAddr>,
    /// Answered from this port.
    pub reply_source_port: Option<u16>,
    /// Not answered yet.
    pub unanswered: bool,
}

impl Filter {
    /// Whether this entry is meant.
    #[must_use]
    pub fn matches(&self, entry: &Entry) -> bool {
        let (to, from) = (entry.original.destination, entry.reply.source);
        is(self.protocol, entry.original.protocol)
            && is(self.source, entry.original.source.ip())
            && is(self.destination, to.ip())
            && is(self.destination_port, to.port())
            && is(self.reply_source, from.ip())
            && is(self.reply_source_port, from.port())
            && !(self.unanswered && entry.is_answered())
    }
}

impl NftSocket {
    /// Lists the connections of this socket's network namespace.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn connections(&mut self, filter: &Filter) -> Result<Vec<Entry>, Error> {
        let operation = "listing tracked connections";
        let mut entries = Vec::new();
        // The kernel filters within one family only.
        for family in [AF_INET, AF_INET6] {
            entries.extend(self.request(
                CT_GET,
                DUMP,
                family,
                operation,
                |writer| write_filter(writer, filter),
                |message| read(message.attributes).filter(|entry| filter.matches(entry)),
            )?);
        }
        // A dump that had to go on in another read may repeat an entry.
        entries.sort_by_key(|entry| entry.id);
        entries.dedup_by_key(|entry| entry.id);
        Ok(entries)
    }

    /// The connection that this packet began, or is of in that direction.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn connection(&mut self, tuple: &Tuple) -> Result<Option<Entry>, Error> {
        let operation = "looking up a tracked connection";
        let found = self.request(
            CT_GET,
            0,
            family(tuple),
            operation,
            |writer| write_tuple(writer, tuple),
            |message| read(message.attributes),
        );
        match found {
            // The kernel finds a connection by either of its directions.
            Ok(found) => Ok(found.into_iter().find(|entry| entry.original == *tuple)),
            Err(error) if error.errno() == Some(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes a connection, so that its next packet is a first one again. Whether it was still there.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn delete_connection(&mut self, entry: &Entry) -> Result<bool, Error> {
        let family = family(&entry.original);
        let operation = "deleting a tracked connection";
        let body = |writer: &mut Writer| write(writer, entry);
        match self.request(CT_DELETE, ACK, family, operation, body, |_| None::<()>) {
            Ok(_) => Ok(true),
            Err(error) if error.errno() == Some(Errno::NOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn write_filter(writer: &mut Writer, filter: &Filter) {
    if let Some(protocol) = filter.protocol {
        writer.nest(TUPLE_ORIG, |writer| {
            writer.nest(TUPLE_PROTO, |writer| writer.put(PROTO_NUM, &[protocol]));
        });
        writer.nest(FILTER, |writer| {
            // In the machine's own byte order, unlike everything else.
            writer.put(FILTER_ORIG_FLAGS, &BY_PROTOCOL.to_ne_bytes());
        });
    }
    if filter.unanswered {
        writer.put_u32(STATUS, 0);
        writer.put_u32(STATUS_MASK, SEEN_REPLY);
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
        state: read_state(attributes).unwrap_or(0),
        expires: number(TIMEOUT),
        zone: u16::try_from(number(ZONE)).unwrap_or(0),
        id: number(ID),
        midway: is_midway(attributes).unwrap_or(false),
    })
}

/// The kernel does not check windows of connections that it takes up midway (`tcp_new` of nf_conntrack_proto_tcp.c), and
/// of some that were handed to hardware.
fn is_midway(attributes: &[u8]) -> Option<bool> {
    let of = find(attributes, PROTOINFO)?;
    let flags = find(find(of.value, PROTOINFO_TCP)?.value, PROTOINFO_FLAGS)?;
    Some(flags.value.first()? & BE_LIBERAL != 0)
}

fn read_state(attributes: &[u8]) -> Option<u8> {
    let of = find(attributes, PROTOINFO)?;
    let of = find(of.value, PROTOINFO_TCP).or_else(|| find(of.value, PROTOINFO_SCTP))?;
    find(of.value, PROTOINFO_STATE)?.value.first().copied()
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
        icmp: [AF_INET, AF_INET6]
            .into_iter()
            .find_map(|family| read_icmp(&proto, family)),
    })
}

fn read_icmp(proto: &Attribute<'_>, family: u8) -> Option<Icmp> {
    let [id, kind, code] = icmp(family).map(|kind| find(proto.value, kind));
    Some(Icmp {
        id: u16::try_from(id?.u32()).ok()?,
        kind: u8::try_from(kind?.u32()).ok()?,
        code: u8::try_from(code?.u32()).ok()?,
    })
}

/// `CTA_PROTO_ICMP_ID`, `_TYPE` and `_CODE`, or `CTA_PROTO_ICMPV6_…`.
const fn icmp(family: u8) -> [u16; 3] {
    match family {
        AF_INET => [4, 5, 6],
        _ => [7, 8, 9],
    }
}

const fn family(tuple: &Tuple) -> u8 {
    match tuple.source {
        SocketAddr::V4(_) => AF_INET,
        SocketAddr::V6(_) => AF_INET6,
    }
}

/// The kernel finds an entry by its tuple, and makes sure of it by its number.
fn write(writer: &mut Writer, entry: &Entry) {
    write_tuple(writer, &entry.original);
    if entry.zone != 0 {
        writer.put(ZONE, &entry.zone.to_be_bytes());
    }
    writer.put_u32(ID, entry.id);
}

fn write_tuple(writer: &mut Writer, tuple: &Tuple) {
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
            let Some(Icmp { id, kind, code }) = tuple.icmp else {
                writer.put(PROTO_SRC_PORT, &tuple.source.port().to_be_bytes());
                writer.put(PROTO_DST_PORT, &tuple.destination.port().to_be_bytes());
                return;
            };
            let [of_id, of_kind, of_code] = icmp(family(tuple));
            writer.put(of_id, &id.to_be_bytes());
            writer.put(of_kind, &[kind]);
            writer.put(of_code, &[code]);
        });
    });
}
