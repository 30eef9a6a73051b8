//! How fields lie in registers and in the keys of sets.
//!
//! ```text
//!   ip daddr . meta l4proto . th dport
//!   0a 60 00 01│06 00 00 00│01 bb 00 00      each padded to 4 bytes; a key of one field is not
//! ```
//!
//! Headers' fields are in network byte order; marks, conntrack's bits and random numbers in the
//! machine's own. Type numbers are nft's (enum datatypes), 6 bits each in a concatenation.

use std::net::{IpAddr, Ipv6Addr};

use parfait_linux::nft::{Family, Field, Value};

use super::number::udata;

/// Bytes of an interface name with its NULs (IFNAMSIZ).
pub const IFNAME: usize = 16;
/// NFT_REG_VERDICT.
pub const VERDICT_REGISTER: u32 = 0;
/// NFT_REG32_00: the first of 16 registers of 4 bytes.
const FIRST_REGISTER: u32 = 8;

/// nft's number for a type of value.
pub mod datatype {
    pub const NFPROTO: u32 = 2;
    pub const INTEGER: u32 = 4;
    pub const IPADDR: u32 = 7;
    pub const IP6ADDR: u32 = 8;
    pub const INET_PROTOCOL: u32 = 12;
    pub const INET_SERVICE: u32 = 13;
    pub const ICMP_TYPE: u32 = 14;
    pub const MARK: u32 = 19;
    pub const CLASSID: u32 = 23;
    pub const CT_STATE: u32 = 26;
    pub const CT_DIR: u32 = 27;
    pub const CT_STATUS: u32 = 28;
    pub const ICMPV6_TYPE: u32 = 29;
    pub const FIB_ADDR: u32 = 38;
    pub const IFNAME: u32 = 41;
}

/// One field of a key: which, of which type, how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The field.
    pub field: Field,
    /// nft's type.
    pub datatype: u32,
    /// Its bytes, without padding.
    pub length: usize,
}

impl Part {
    /// A field where addresses are of this family.
    pub fn new(field: Field, family: Family) -> Self {
        let datatype = match field {
            Field::Saddr | Field::Daddr | Field::CtOriginalDaddr => match family {
                Family::Ip6 => datatype::IP6ADDR,
                Family::Ip | Family::Inet => datatype::IPADDR,
            },
            Field::L4Proto => datatype::INET_PROTOCOL,
            Field::Sport | Field::Dport | Field::CtOriginalDport => datatype::INET_SERVICE,
            Field::IcmpType => datatype::ICMP_TYPE,
            Field::Icmpv6Type => datatype::ICMPV6_TYPE,
            Field::Iifname | Field::Oifname => datatype::IFNAME,
            Field::Mark | Field::CtMark => datatype::MARK,
            Field::Priority => datatype::CLASSID,
            Field::NumgenRandom(_) => datatype::INTEGER,
            Field::CtState => datatype::CT_STATE,
            Field::CtStatus => datatype::CT_STATUS,
            Field::FibDaddrType | Field::FibSaddrType => datatype::FIB_ADDR,
            Field::CtDirection => datatype::CT_DIR,
            Field::NfProto => datatype::NFPROTO,
        };
        Self {
            field,
            datatype,
            length: length_of(datatype),
        }
    }

    /// A field that stands for all of this type, where a set says no more; `None` for types that no
    /// field has.
    pub fn of_datatype(datatype: u32) -> Option<Self> {
        let field = match datatype {
            datatype::IPADDR | datatype::IP6ADDR => Field::Daddr,
            datatype::INET_PROTOCOL => Field::L4Proto,
            datatype::INET_SERVICE => Field::Dport,
            datatype::IFNAME => Field::Iifname,
            datatype::MARK => Field::Mark,
            datatype::CLASSID => Field::Priority,
            datatype::CT_STATE => Field::CtState,
            datatype::CT_STATUS => Field::CtStatus,
            datatype::CT_DIR => Field::CtDirection,
            datatype::FIB_ADDR => Field::FibDaddrType,
            datatype::NFPROTO => Field::NfProto,
            datatype::ICMP_TYPE => Field::IcmpType,
            datatype::ICMPV6_TYPE => Field::Icmpv6Type,
            _ => return None,
        };
        let length = length_of(datatype);
        Some(Self {
            field,
            datatype,
            length,
        })
    }

    /// Its bytes in a concatenation.
    pub fn padded(&self) -> usize {
        self.length.next_multiple_of(4)
    }

    /// The first and last value, as bytes; they are the same for an exact value. `None` if the value
    /// is not one of this field.
    pub fn range(&self, value: &Value) -> Option<(Vec<u8>, Vec<u8>)> {
        let exact = |bytes: Vec<u8>| Some((bytes.clone(), bytes));
        match value {
            Value::Address(address) => exact(address_bytes(*address)),
            Value::Prefix(net) => {
                Some((address_bytes(net.network()), address_bytes(net.broadcast())))
            }
            Value::Protocol(number) => exact(vec![*number]),
            Value::Port(port) => exact(port.to_be_bytes().into()),
            Value::Ports(first, last) => {
                Some((first.to_be_bytes().into(), last.to_be_bytes().into()))
            }
            Value::Ifname(name) => exact(ifname_bytes(name)?),
            Value::Number(number) if self.length == 1 => exact(vec![u8::try_from(*number).ok()?]),
            Value::Number(number) => exact(number.to_ne_bytes().into()),
        }
        .filter(|(first, _)| first.len() == self.length && self.holds(value))
    }

    fn holds(&self, value: &Value) -> bool {
        match value {
            Value::Address(_) | Value::Prefix(_) => {
                matches!(self.datatype, datatype::IPADDR | datatype::IP6ADDR)
            }
            Value::Protocol(_) => self.datatype == datatype::INET_PROTOCOL,
            Value::Port(_) | Value::Ports(..) => self.datatype == datatype::INET_SERVICE,
            Value::Ifname(_) => self.datatype == datatype::IFNAME,
            Value::Number(_) => !matches!(
                self.datatype,
                datatype::IPADDR
                    | datatype::IP6ADDR
                    | datatype::INET_PROTOCOL
                    | datatype::INET_SERVICE
                    | datatype::IFNAME
            ),
        }
    }

    /// The value that these bytes are.
    pub fn value(&self, bytes: &[u8]) -> Option<Value> {
        let bytes = bytes.get(..self.length)?;
        Some(match self.datatype {
            datatype::IPADDR => Value::Address(<[u8; 4]>::try_from(bytes).ok()?.into()),
            datatype::IP6ADDR => Value::Address(<[u8; 16]>::try_from(bytes).ok()?.into()),
            datatype::INET_PROTOCOL => Value::Protocol(bytes[0]),
            datatype::INET_SERVICE => Value::Port(u16::from_be_bytes(bytes.try_into().ok()?)),
            datatype::IFNAME => {
                let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(IFNAME);
                Value::Ifname(String::from_utf8_lossy(&bytes[..end]).into_owned())
            }
            _ if self.length == 1 => Value::Number(u32::from(bytes[0])),
            _ => Value::Number(u32::from_ne_bytes(bytes.try_into().ok()?)),
        })
    }

    /// The values from the first to the last, as few as can be. `None` for ranges of what is not
    /// ordered.
    pub fn values(&self, first: &[u8], last: &[u8]) -> Option<Vec<Value>> {
        let (first, last) = (self.value(first)?, self.value(last)?);
        match (first, last) {
            (Value::Address(a), Value::Address(b)) => prefixes(a, b),
            (Value::Port(a), Value::Port(b)) => Some(vec![Value::Ports(a, b).canonical()]),
            (Value::Protocol(a), Value::Protocol(b)) => {
                Some((a..=b).map(Value::Protocol).collect())
            }
            (first, last) => (first == last).then(|| vec![first]),
        }
    }
}

/// The parts of a key; `family` is that of its addresses.
pub fn parts(fields: &[Field], family: Family) -> Vec<Part> {
    fields
        .iter()
        .map(|field| Part::new(*field, family))
        .collect()
}

/// Bytes of the whole key.
pub fn key_length(parts: &[Part]) -> usize {
    match parts {
        [part] => part.length,
        parts => parts.iter().map(Part::padded).sum(),
    }
}

/// nft's type of the whole key.
pub fn key_type(parts: &[Part]) -> u32 {
    parts.iter().fold(0, |all, part| all << 6 | part.datatype)
}

/// The register that begins after this many words of 4 bytes.
pub fn register(word: usize) -> u32 {
    FIRST_REGISTER + u32::try_from(word).unwrap_or(u32::MAX - FIRST_REGISTER)
}

/// The word at which a register begins, as the kernel names it in a dump: NFT_REG_1 to _4 are those
/// of 16 bytes.
pub fn word(register: u32) -> Option<usize> {
    let word = match register {
        1..=4 => (register - 1) * 4,
        8..=23 => register - FIRST_REGISTER,
        _ => return None,
    };
    usize::try_from(word).ok()
}

/// An address in network byte order.
pub fn address_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().into(),
        IpAddr::V6(address) => address.octets().into(),
    }
}

/// The address in these bytes.
pub fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => None,
    }
}

/// A header's name in nft's own `typeof` data.
pub fn header(family: Family) -> u32 {
    match family {
        Family::Ip6 => udata::PROTO_IP6,
        _ => udata::PROTO_IP,
    }
}

fn length_of(datatype: u32) -> usize {
    match datatype {
        datatype::IP6ADDR => 16,
        datatype::INET_PROTOCOL
        | datatype::CT_DIR
        | datatype::NFPROTO
        | datatype::ICMP_TYPE
        | datatype::ICMPV6_TYPE => 1,
        datatype::INET_SERVICE => 2,
        datatype::IFNAME => IFNAME,
        _ => 4,
    }
}

/// The name with NULs to the full length; `None` if it does not fit or is a pattern.
fn ifname_bytes(name: &str) -> Option<Vec<u8>> {
    let fits = name.len() < IFNAME && !name.ends_with('*') && !name.contains('\0');
    fits.then(|| {
        let mut bytes = name.as_bytes().to_vec();
        bytes.resize(IFNAME, 0);
        bytes
    })
}

/// The prefixes that make up a range of addresses.
fn prefixes(first: IpAddr, last: IpAddr) -> Option<Vec<Value>> {
    let (mut next, last, bits) = match (first, last) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
        _ => return None,
    };
    let mut values = Vec::new();
    while next <= last {
        let mut size = next.trailing_zeros().min(bits);
        // The largest block that begins here and does not go beyond the last.
        while size > 0 && last - next < ones(size) {
            size -= 1;
        }
        let address = match first {
            IpAddr::V4(_) => IpAddr::V4(u32::try_from(next).ok()?.into()),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(next)),
        };
        let length = u8::try_from(bits - size).ok()?;
        values.push(Value::prefix(ipnet::IpNet::new(address, length).ok()?));
        match next
            .checked_add(ones(size))
            .and_then(|end| end.checked_add(1))
        {
            Some(after) => next = after,
            None => break,
        }
    }
    Some(values)
}

/// The number of this many ones.
fn ones(bits: u32) -> u128 {
    u128::MAX.checked_shr(128 - bits).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(first: &str, last: &str) -> Vec<String> {
        let parse = |text: &str| text.parse().expect("an address");
        prefixes(parse(first), parse(last))
            .expect("one family")
            .iter()
            .map(|value| match value {
                Value::Prefix(net) => net.to_string(),
                Value::Address(address) => address.to_string(),
                other => format!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_range_of_addresses_is_a_few_prefixes() {
        assert_eq!(split("10.0.0.0", "10.255.255.255"), ["10.0.0.0/8"]);
        assert_eq!(split("0.0.0.0", "255.255.255.255"), ["0.0.0.0/0"]);
        assert_eq!(
            split("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ["::/0"]
        );
        assert_eq!(
            split("10.2.0.0", "10.2.0.9"),
            ["10.2.0.0/29", "10.2.0.8/31"]
        );
        assert_eq!(split("10.0.0.1", "10.0.0.1"), ["10.0.0.1"]);
    }
}
