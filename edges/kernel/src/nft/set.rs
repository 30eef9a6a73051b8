//! The definition of a set: what NFT_MSG_NEWSET carries, written and read.
//!
//! A set in the kernel is a number of bytes mapped to a number of bytes. What they mean, nft(8)
//! keeps in two places that the kernel only stores: the type numbers of key and data, and, since
//! `typeof`, a description of each field as user data. Both are written, so that
//! `nft list ruleset` prints our sets; the second is preferred when reading, because only it can
//! tell `ip saddr` from `ip daddr`. Follows libnftnl's udata and nft's `*_expr_build_udata`.

use std::time::Duration;

use parfait_linux::nft::diff::SetType;
use parfait_linux::nft::{DataType, Dynamic, Family, Field};

use super::attr::{Attribute, Writer, attributes, find};
use super::layout::{self, Part};
use super::number::{LIST_ELEM, data, expr, set, udata};

/// A set's key and data as bytes.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The fields of the key.
    pub parts: Vec<Part>,
    /// What elements carry.
    pub data: DataType,
    /// The family of a target's address.
    pub family: Family,
    /// Whether keys are ranges.
    pub interval: bool,
    /// Whether rules add elements.
    pub dynamic: Option<Dynamic>,
}

impl Layout {
    /// The layout of a set in a table of this family; `None` where the family cannot be told.
    pub fn new(kind: &SetType, family: Family) -> Option<Self> {
        let addresses = kind
            .key
            .iter()
            .any(|field| matches!(field, Field::Saddr | Field::Daddr | Field::CtOriginalDaddr));
        if family == Family::Inet
            && (addresses || matches!(kind.data, DataType::Target | DataType::Address))
        {
            return None;
        }
        Some(Self {
            parts: layout::parts(&kind.key, family),
            data: kind.data.clone(),
            family,
            interval: kind.interval,
            dynamic: kind.dynamic,
        })
    }

    /// The set's type without its bytes.
    pub fn kind(&self) -> SetType {
        SetType {
            key: self.parts.iter().map(|part| part.field).collect(),
            data: self.data.clone(),
            interval: self.interval,
            dynamic: self.dynamic,
        }
    }

    /// What the data consists of.
    pub fn data_parts(&self) -> Vec<Part> {
        let fields: &[Field] = match self.data {
            DataType::None | DataType::Verdict => &[],
            DataType::Target => &[Field::Daddr, Field::Dport],
            DataType::Address => &[Field::Saddr],
            DataType::Priority => &[Field::Priority],
        };
        layout::parts(fields, self.family)
    }

    /// The bytes of the data in a register.
    pub fn data_length(&self) -> usize {
        layout::key_length(&self.data_parts())
    }

    /// Writes the attributes of a named set.
    pub fn write(&self, writer: &mut Writer, table: &str, name: &str, id: u32) {
        self.write_with(writer, table, name, id, None);
    }

    /// Writes the attributes of an anonymous set of so many elements.
    pub fn write_anonymous(&self, writer: &mut Writer, table: &str, id: u32, size: usize) {
        self.write_with(writer, table, ANONYMOUS, id, Some(size));
    }

    fn write_with(
        &self,
        writer: &mut Writer,
        table: &str,
        name: &str,
        id: u32,
        size: Option<usize>,
    ) {
        let concat = self.interval && self.parts.len() > 1;
        let flag = |condition, flag| if condition { flag } else { 0 };
        let flags = flag(self.interval, set::INTERVAL)
            | flag(concat, set::CONCAT)
            | flag(self.data != DataType::None, set::MAP)
            | flag(self.dynamic.is_some(), set::EVAL)
            | flag(self.timeout().is_some(), set::TIMEOUT)
            | flag(size.is_some(), set::ANONYMOUS | set::CONSTANT);
        let size = size.filter(|_| !self.interval).map(length);
        let size = size.or(self.dynamic.map(|dynamic| dynamic.size));
        writer.put_str(set::TABLE, table);
        writer.put_str(set::NAME, name);
        writer.put_u32(set::FLAGS, flags);
        writer.put_u32(set::KEY_TYPE, layout::key_type(&self.parts));
        writer.put_u32(set::KEY_LEN, length(layout::key_length(&self.parts)));
        match self.data {
            DataType::None => {}
            DataType::Verdict => {
                writer.put_u32(set::DATA_TYPE, set::VERDICT);
                writer.put_u32(set::DATA_LEN, 0);
            }
            DataType::Target | DataType::Address | DataType::Priority => {
                writer.put_u32(set::DATA_TYPE, layout::key_type(&self.data_parts()));
                writer.put_u32(set::DATA_LEN, length(self.data_length()));
            }
        }
        if concat || size.is_some() || self.dynamic.is_some() {
            writer.nest(set::DESC, |writer| {
                if let Some(size) = size {
                    writer.put_u32(set::DESC_SIZE, size);
                }
                if concat {
                    writer.nest(set::DESC_CONCAT, |writer| self.write_lengths(writer));
                }
            });
        }
        if let Some(timeout) = self.timeout() {
            writer.put(set::TIMEOUT_ATTRIBUTE, &milliseconds(timeout).to_be_bytes());
        }
        writer.put_u32(set::ID, id);
        writer.put(set::USERDATA, &self.userdata());
    }

    fn timeout(&self) -> Option<Duration> {
        self.dynamic.and_then(|dynamic| dynamic.timeout)
    }

    fn write_lengths(&self, writer: &mut Writer) {
        for part in &self.parts {
            writer.nest(LIST_ELEM, |writer| {
                writer.put_u32(set::FIELD_LEN, length(part.length));
            });
        }
    }

    fn userdata(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put(
            &mut out,
            udata::SET_KEY_BYTEORDER,
            &byteorder(&self.parts).to_ne_bytes(),
        );
        let parts = self.data_parts();
        let data = match self.data {
            DataType::None => None,
            DataType::Verdict => Some((0, typeof_expression(udata::VERDICT, &[]))),
            DataType::Target | DataType::Address | DataType::Priority => {
                Some((byteorder(&parts), typeof_key(&parts)))
            }
        };
        if let Some((byteorder, _)) = data {
            put(
                &mut out,
                udata::SET_DATA_BYTEORDER,
                &byteorder.to_ne_bytes(),
            );
        }
        let key = typeof_key(&self.parts);
        if let Ok(1..=255) = u8::try_from(key.len()) {
            put(&mut out, udata::SET_KEY_TYPEOF, &key);
            if let Some((_, data)) = data {
                put(&mut out, udata::SET_DATA_TYPEOF, &data);
            }
        }
        out
    }
}

/// The name that makes the kernel choose one.
pub const ANONYMOUS: &str = "__set%d";

/// A set as the kernel describes it.
pub struct Definition {
    /// Its name.
    pub name: String,
    /// Whether it belongs to one rule and has no name of its own.
    pub anonymous: bool,
    /// Its layout; `None` if it is of a type that is not modelled.
    pub layout: Option<Layout>,
    /// What is known of its number of elements.
    pub count: Count,
}

/// What is known of a set's number of elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// It has so many.
    Exactly(usize),
    /// Kernels before 6.16 do not say.
    Untold,
    /// They come and go, or count otherwise than they are listed.
    Varies,
}

/// Reads NFT_MSG_NEWSET.
pub fn read(attributes: &[u8]) -> Option<Definition> {
    let number = |kind| find(attributes, kind).map_or(0, |found| found.u32());
    let flags = number(set::FLAGS);
    Some(Definition {
        name: find(attributes, set::NAME)?.str(),
        anonymous: flags & set::ANONYMOUS != 0,
        layout: read_layout(attributes, flags),
        count: match find(attributes, set::COUNT) {
            _ if flags & (set::INTERVAL | set::TIMEOUT | set::EVAL) != 0 => Count::Varies,
            Some(count) => usize::try_from(count.u32()).map_or(Count::Untold, Count::Exactly),
            None => Count::Untold,
        },
    })
}

fn read_layout(attributes: &[u8], flags: u32) -> Option<Layout> {
    let number = |kind| find(attributes, kind).map_or(0, |found| found.u32());
    let length = usize::try_from(number(set::KEY_LEN)).ok()?;
    let described = find(attributes, set::USERDATA).and_then(|userdata| {
        let parts = read_typeof(tlv(userdata.value, udata::SET_KEY_TYPEOF)?)?;
        (layout::key_length(&parts) == length).then_some(parts)
    });
    let parts = match described {
        Some(parts) => parts,
        None => parts_of_type(number(set::KEY_TYPE))?,
    };
    if layout::key_length(&parts) != length || flags & set::OBJECT != 0 {
        return None;
    }
    let (v4, v6) = [Family::Ip, Family::Ip6]
        .map(|family| [Field::Daddr, Field::Dport].map(|field| Part::new(field, family)))
        .into();
    let (data, family) = match number(set::DATA_TYPE) {
        _ if flags & set::MAP == 0 => (DataType::None, Family::Ip),
        set::VERDICT => (DataType::Verdict, Family::Ip),
        kind if kind == layout::key_type(&v4) => (DataType::Target, Family::Ip),
        kind if kind == layout::key_type(&v6) => (DataType::Target, Family::Ip6),
        layout::datatype::CLASSID => (DataType::Priority, Family::Ip),
        layout::datatype::IPADDR => (DataType::Address, Family::Ip),
        layout::datatype::IP6ADDR => (DataType::Address, Family::Ip6),
        _ => return None,
    };
    Some(Layout {
        parts,
        data,
        family,
        interval: flags & set::INTERVAL != 0,
        dynamic: read_dynamic(attributes, flags),
    })
}

/// `flags dynamic`; a set with only `flags timeout` is filled by programs.
fn read_dynamic(attributes: &[u8], flags: u32) -> Option<Dynamic> {
    let described = find(attributes, set::DESC);
    let size = described.and_then(|desc| find(desc.value, set::DESC_SIZE));
    let timeout = find(attributes, set::TIMEOUT_ATTRIBUTE);
    (flags & set::EVAL != 0).then(|| Dynamic {
        size: size.map_or(0, |size| size.u32()),
        timeout: timeout.and_then(|timeout| read_milliseconds(timeout.value)),
    })
}

/// A time as the kernel takes it.
pub fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A time as the kernel gives it; `None` for no time.
pub fn read_milliseconds(bytes: &[u8]) -> Option<Duration> {
    let number = u64::from_be_bytes(bytes.try_into().ok()?);
    (number > 0).then(|| Duration::from_millis(number))
}

fn parts_of_type(mut kind: u32) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    while kind != 0 {
        parts.insert(0, Part::of_datatype(kind & 0x3f)?);
        kind >>= 6;
    }
    (!parts.is_empty()).then_some(parts)
}

fn length(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// enum byteorder: invalid 0, host endian 1, big endian 2.
fn byteorder(parts: &[Part]) -> u32 {
    match parts {
        [part] if is_payload(part.field) => 2,
        [_] => 1,
        _ => 0,
    }
}

fn is_payload(field: Field) -> bool {
    matches!(
        field,
        Field::Saddr
            | Field::Daddr
            | Field::Sport
            | Field::Dport
            | Field::IcmpType
            | Field::Icmpv6Type
            | Field::CtOriginalDaddr
            | Field::CtOriginalDport
    )
}

/// One entry of user data.
fn put(out: &mut Vec<u8>, kind: u8, value: &[u8]) {
    if let Ok(length) = u8::try_from(value.len()) {
        out.extend([kind, length]);
        out.extend(value);
    }
}

/// The value of the first entry of this type.
fn tlv(bytes: &[u8], kind: u8) -> Option<&[u8]> {
    entries(bytes)
        .find(|(found, _)| *found == kind)
        .map(|(_, value)| value)
}

fn entries(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (header, rest) = bytes.split_at_checked(2)?;
        let (value, rest) = rest.split_at_checked(usize::from(header[1]))?;
        bytes = rest;
        Some((header[0], value))
    })
}

/// A user-data comment: its text without the final NUL.
pub fn read_comment(userdata: &[u8]) -> Option<&str> {
    let text = tlv(userdata, udata::COMMENT)?;
    std::str::from_utf8(text.strip_suffix(&[0]).unwrap_or(text)).ok()
}

/// A comment as user data.
pub fn comment(text: &str) -> Vec<u8> {
    let mut value = text.as_bytes().to_vec();
    value.push(0);
    let mut out = Vec::with_capacity(value.len() + 2);
    put(&mut out, udata::COMMENT, &value);
    out
}

fn typeof_key(parts: &[Part]) -> Vec<u8> {
    if let [part] = parts {
        return typeof_part(part);
    }
    let mut inner = Vec::new();
    for (index, part) in (0_u8..).zip(parts) {
        put(&mut inner, index, &typeof_part(part));
    }
    typeof_expression(udata::CONCAT, &inner)
}

fn typeof_expression(kind: u32, inner: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, udata::TYPEOF_EXPR, &kind.to_ne_bytes());
    put(&mut out, udata::TYPEOF_DATA, inner);
    out
}

fn typeof_part(part: &Part) -> Vec<u8> {
    let (kind, numbers): (u32, Vec<u32>) = match part.field {
        Field::Saddr | Field::Daddr => {
            let v6 = part.datatype == layout::datatype::IP6ADDR;
            let family = if v6 { Family::Ip6 } else { Family::Ip };
            // IPHDR_SADDR, IP6HDR_SADDR; the destination is the next.
            let source = if v6 { 8 } else { 11 };
            let field = source + u32::from(part.field == Field::Daddr);
            (udata::PAYLOAD, vec![layout::header(family), field])
        }
        Field::IcmpType => (udata::PAYLOAD, vec![udata::PROTO_ICMP, 1]),
        Field::Icmpv6Type => (udata::PAYLOAD, vec![udata::PROTO_ICMPV6, 1]),
        Field::CtOriginalDaddr => {
            let v6 = part.datatype == layout::datatype::IP6ADDR;
            let key = if v6 {
                expr::CT_DST_IP6
            } else {
                expr::CT_DST_IP
            };
            (udata::CT, vec![key, expr::ORIGINAL])
        }
        Field::CtOriginalDport => (udata::CT, vec![expr::CT_PROTO_DST, expr::ORIGINAL]),
        Field::Sport => (udata::PAYLOAD, vec![udata::PROTO_TH, 1]),
        Field::Dport => (udata::PAYLOAD, vec![udata::PROTO_TH, 2]),
        Field::L4Proto => (udata::META, vec![expr::META_L4PROTO]),
        Field::NfProto => (udata::META, vec![expr::META_NFPROTO]),
        Field::Iifname => (udata::META, vec![expr::META_IIFNAME]),
        Field::Oifname => (udata::META, vec![expr::META_OIFNAME]),
        Field::Mark => (udata::META, vec![expr::META_MARK]),
        Field::Priority => (udata::META, vec![expr::META_PRIORITY]),
        Field::NumgenRandom(modulus) => (udata::NUMGEN, vec![expr::NG_RANDOM, modulus, 0]),
        // No direction.
        Field::CtMark => (udata::CT, vec![expr::CT_MARK, u32::MAX]),
        Field::CtState => (udata::CT, vec![expr::CT_STATE, u32::MAX]),
        Field::CtStatus => (udata::CT, vec![expr::CT_STATUS, u32::MAX]),
        Field::CtDirection => (udata::CT, vec![expr::CT_DIRECTION, u32::MAX]),
        Field::FibSaddrType => (udata::FIB, vec![expr::FIB_ADDRTYPE, expr::FIB_SADDR]),
        Field::FibDaddrType => (udata::FIB, vec![expr::FIB_ADDRTYPE, expr::FIB_DADDR]),
    };
    let mut inner = Vec::new();
    for (index, number) in (0_u8..).zip(numbers) {
        put(&mut inner, index, &number.to_ne_bytes());
    }
    typeof_expression(kind, &inner)
}

fn read_typeof(bytes: &[u8]) -> Option<Vec<Part>> {
    let number = |bytes: &[u8]| Some(u32::from_ne_bytes(bytes.try_into().ok()?));
    let kind = number(tlv(bytes, udata::TYPEOF_EXPR)?)?;
    let inner = tlv(bytes, udata::TYPEOF_DATA)?;
    if kind == udata::CONCAT {
        let mut parts = Vec::new();
        for (_, part) in entries(inner) {
            parts.extend(read_typeof(part)?);
        }
        return Some(parts);
    }
    let at = |index| number(tlv(inner, index)?);
    let (first, second) = (at(0)?, at(1));
    let mut family = Family::Ip;
    let field = match (kind, first, second) {
        (udata::PAYLOAD, udata::PROTO_IP, Some(11)) => Field::Saddr,
        (udata::PAYLOAD, udata::PROTO_IP, Some(12)) => Field::Daddr,
        (udata::PAYLOAD, udata::PROTO_IP6, Some(field @ (8 | 9))) => {
            family = Family::Ip6;
            if field == 8 {
                Field::Saddr
            } else {
                Field::Daddr
            }
        }
        // Of udp, udplite, tcp, dccp, sctp and th, the ports are the first two fields.
        (udata::PAYLOAD, udata::PROTO_UDP..=udata::PROTO_TH, Some(1)) => Field::Sport,
        (udata::PAYLOAD, udata::PROTO_UDP..=udata::PROTO_TH, Some(2)) => Field::Dport,
        (udata::PAYLOAD, udata::PROTO_ICMP, Some(1)) => Field::IcmpType,
        (udata::PAYLOAD, udata::PROTO_ICMPV6, Some(1)) => Field::Icmpv6Type,
        (udata::CT, expr::CT_DST_IP6, Some(expr::ORIGINAL)) => {
            family = Family::Ip6;
            Field::CtOriginalDaddr
        }
        (udata::CT, key, Some(expr::ORIGINAL)) => ct_original(key)?,
        (udata::META, key, _) => meta_field(key)?,
        (udata::CT, key, _) => ct_field(key)?,
        (udata::FIB, expr::FIB_ADDRTYPE, Some(expr::FIB_SADDR)) => Field::FibSaddrType,
        (udata::FIB, expr::FIB_ADDRTYPE, Some(expr::FIB_DADDR)) => Field::FibDaddrType,
        (udata::NUMGEN, expr::NG_RANDOM, Some(modulus)) => Field::NumgenRandom(modulus),
        _ => return None,
    };
    Some(vec![Part::new(field, family)])
}

/// The field of a `meta` key.
pub fn meta_field(key: u32) -> Option<Field> {
    Some(match key {
        expr::META_L4PROTO => Field::L4Proto,
        expr::META_NFPROTO => Field::NfProto,
        expr::META_IIFNAME => Field::Iifname,
        expr::META_OIFNAME => Field::Oifname,
        expr::META_MARK => Field::Mark,
        expr::META_PRIORITY => Field::Priority,
        _ => return None,
    })
}

/// The field of a `ct` key.
pub fn ct_field(key: u32) -> Option<Field> {
    Some(match key {
        expr::CT_STATE => Field::CtState,
        expr::CT_STATUS => Field::CtStatus,
        expr::CT_MARK => Field::CtMark,
        expr::CT_DIRECTION => Field::CtDirection,
        _ => return None,
    })
}

/// The field of a `ct original` key.
pub fn ct_original(key: u32) -> Option<Field> {
    Some(match key {
        expr::CT_DST_IP | expr::CT_DST_IP6 => Field::CtOriginalDaddr,
        expr::CT_PROTO_DST => Field::CtOriginalDport,
        _ => return None,
    })
}

/// The bytes of a data attribute (NFTA_DATA_VALUE).
pub fn value_of<'a>(attribute: &Attribute<'a>) -> Option<&'a [u8]> {
    attributes(attribute.value)
        .find(|inner| inner.kind == data::VALUE)
        .map(|inner| inner.value)
}
