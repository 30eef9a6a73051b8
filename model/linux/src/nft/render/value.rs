//! Fields and values as `nft` prints them.

use super::super::{Family, Field, Mark, Value};

/// What the transport header is called while its protocol is not known.
pub const TH: &str = "th";

/// One key (or row of an anonymous set): its values joined by ` . `.
#[must_use]
pub fn key(fields: &[Field], values: &[Value]) -> String {
    let words: Vec<String> = fields
        .iter()
        .zip(values)
        .map(|(field, value)| self::value(*field, value))
        .collect();
    words.join(" . ")
}

/// The lowest key that this one covers: what `nft` sorts ranges by.
pub fn start(key: &[Value]) -> Vec<Value> {
    let start = |value: &Value| match value {
        Value::Prefix(net) => Value::Address(net.network()),
        Value::Ports(first, _) => Value::Port(*first),
        value => value.clone(),
    };
    key.iter().map(start).collect()
}

/// The fields of a match or set, joined by ` . `; `th` names the transport header.
pub fn fields(fields: &[Field], family: Family, th: &str) -> String {
    let words: Vec<String> = fields.iter().map(|f| field(*f, family, th)).collect();
    words.join(" . ")
}

/// One field.
pub fn field(field: Field, family: Family, th: &str) -> String {
    let ip = if family == Family::Ip6 { "ip6" } else { "ip" };
    match field {
        Field::Saddr => format!("{ip} saddr"),
        Field::Daddr => format!("{ip} daddr"),
        Field::L4Proto => "meta l4proto".to_owned(),
        Field::Sport => format!("{th} sport"),
        Field::Dport => format!("{th} dport"),
        Field::Iifname => "iifname".to_owned(),
        Field::Oifname => "oifname".to_owned(),
        Field::Mark => mark(Mark::Packet).to_owned(),
        Field::CtMark => mark(Mark::Connection).to_owned(),
        Field::Priority => "meta priority".to_owned(),
        Field::NumgenRandom(modulus) => format!("numgen random mod {modulus}"),
        Field::IcmpType => "icmp type".to_owned(),
        Field::Icmpv6Type => "icmpv6 type".to_owned(),
        Field::CtOriginalDaddr => format!("ct original {ip} daddr"),
        Field::CtOriginalDport => "ct original proto-dst".to_owned(),
        Field::CtState => "ct state".to_owned(),
        Field::CtStatus => "ct status".to_owned(),
        Field::FibDaddrType => "fib daddr type".to_owned(),
        Field::FibSaddrType => "fib saddr type".to_owned(),
        Field::CtDirection => "ct direction".to_owned(),
        Field::NfProto => "meta nfproto".to_owned(),
    }
}

/// A mark.
pub fn mark(mark: Mark) -> &'static str {
    match mark {
        Mark::Packet => "meta mark",
        Mark::Connection => "ct mark",
    }
}

/// One value of one field.
pub fn value(field: Field, value: &Value) -> String {
    match value {
        Value::Address(address) => address.to_string(),
        Value::Prefix(net) => net.to_string(),
        Value::Protocol(number) => {
            protocol(*number).map_or_else(|| number.to_string(), str::to_owned)
        }
        Value::Port(port) => port.to_string(),
        Value::Ports(first, last) => format!("{first}-{last}"),
        Value::Ifname(name) => format!("\"{name}\""),
        Value::Number(number) => self::number(field, *number),
    }
}

/// The bits of a mask, joined as `nft` joins them in this place.
pub fn bits(field: Field, mask: u32, join: &str) -> String {
    let names = bit_names(field);
    let mut words: Vec<String> = Vec::new();
    let mut rest = mask;
    for (bit, name) in names {
        if rest & bit != 0 {
            rest &= !bit;
            words.push((*name).to_owned());
        }
    }
    if rest != 0 || words.is_empty() {
        words.push(format!("{rest:#x}"));
    }
    words.join(join)
}

fn number(field: Field, number: u32) -> String {
    match field {
        Field::Mark | Field::CtMark => format!("{number:#010x}"),
        Field::Priority => priority(number),
        Field::CtState | Field::CtStatus => bits(field, number, " | "),
        Field::FibDaddrType | Field::FibSaddrType => usize::try_from(number)
            .ok()
            .and_then(|n| ADDRESS_TYPES.get(n))
            .map_or_else(|| number.to_string(), |name| (*name).to_owned()),
        Field::IcmpType => icmp_type(&ICMP_TYPES, number),
        Field::Icmpv6Type => icmp_type(&ICMPV6_TYPES, number),
        Field::CtDirection if number == 0 => "original".to_owned(),
        Field::CtDirection if number == 1 => "reply".to_owned(),
        Field::NfProto if number == 2 => "ipv4".to_owned(),
        Field::NfProto if number == 10 => "ipv6".to_owned(),
        _ => number.to_string(),
    }
}

/// `MAJOR:MINOR` in hexadecimal, as tc(8) has it (`tchandle_type_print` in nftables' meta.c).
pub fn priority(number: u32) -> String {
    match number {
        0 => "none".to_owned(),
        u32::MAX => "root".to_owned(),
        _ => format!("{:x}:{:x}", number >> 16, number & 0xffff),
    }
}

fn icmp_type(names: &[(u32, &str)], number: u32) -> String {
    let found = names.iter().find(|(known, _)| *known == number);
    found.map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned())
}

/// `icmp_type_tbl` of nftables' proto.c.
#[rustfmt::skip]
const ICMP_TYPES: [(u32, &str); 13] = [
    (0, "echo-reply"), (3, "destination-unreachable"), (4, "source-quench"), (5, "redirect"),
    (8, "echo-request"), (9, "router-advertisement"), (10, "router-solicitation"),
    (11, "time-exceeded"), (12, "parameter-problem"), (13, "timestamp-request"),
    (14, "timestamp-reply"), (15, "info-request"), (16, "info-reply"),
];
/// `icmp6_type_tbl` of nftables' proto.c.
#[rustfmt::skip]
const ICMPV6_TYPES: [(u32, &str); 18] = [
    (1, "destination-unreachable"), (2, "packet-too-big"), (3, "time-exceeded"),
    (4, "parameter-problem"), (128, "echo-request"), (129, "echo-reply"),
    (130, "mld-listener-query"), (131, "mld-listener-report"), (132, "mld-listener-done"),
    (133, "nd-router-solicit"), (134, "nd-router-advert"), (135, "nd-neighbor-solicit"),
    (136, "nd-neighbor-advert"), (137, "nd-redirect"), (138, "router-renumbering"),
    (141, "ind-neighbor-solicit"), (142, "ind-neighbor-advert"), (143, "mld2-listener-report"),
];

/// The RTN_* numbers of linux/rtnetlink.h.
const ADDRESS_TYPES: [&str; 12] = [
    "unspec",
    "unicast",
    "local",
    "broadcast",
    "anycast",
    "multicast",
    "blackhole",
    "unreachable",
    "prohibit",
    "throw",
    "nat",
    "xresolve",
];

fn bit_names(field: Field) -> &'static [(u32, &'static str)] {
    match field {
        Field::CtState => &[
            (1, "invalid"),
            (2, "established"),
            (4, "related"),
            (8, "new"),
            (64, "untracked"),
        ],
        Field::CtStatus => &[
            (1, "expected"),
            (2, "seen-reply"),
            (4, "assured"),
            (8, "confirmed"),
            (16, "snat"),
            (32, "dnat"),
            (512, "dying"),
        ],
        _ => &[],
    }
}

/// The name of a protocol number.
fn protocol(number: u8) -> Option<&'static str> {
    let found = PROTOCOLS.binary_search_by_key(&number, |(number, _)| *number);
    found.ok().map(|index| PROTOCOLS[index].1)
}

/// /etc/protocols of Debian's netbase 6.4, which nft asks.
#[rustfmt::skip]
const PROTOCOLS: &[(u8, &str)] = &[
    (0, "ip"), (1, "icmp"), (2, "igmp"), (3, "ggp"), (4, "ipencap"), (5, "st"), (6, "tcp"),
    (8, "egp"), (9, "igp"), (12, "pup"), (17, "udp"), (20, "hmp"), (22, "xns-idp"), (27, "rdp"),
    (29, "iso-tp4"), (33, "dccp"), (36, "xtp"), (37, "ddp"), (38, "idpr-cmtp"), (41, "ipv6"),
    (43, "ipv6-route"), (44, "ipv6-frag"), (45, "idrp"), (46, "rsvp"), (47, "gre"), (50, "esp"),
    (51, "ah"), (57, "skip"), (58, "ipv6-icmp"), (59, "ipv6-nonxt"), (60, "ipv6-opts"),
    (73, "rspf"), (81, "vmtp"), (88, "eigrp"), (89, "ospf"), (93, "ax.25"), (94, "ipip"),
    (97, "etherip"), (98, "encap"), (103, "pim"), (108, "ipcomp"), (112, "vrrp"), (115, "l2tp"),
    (124, "isis"), (132, "sctp"), (133, "fc"), (135, "mobility-header"), (136, "udplite"),
    (137, "mpls-in-ip"), (138, "manet"), (139, "hip"), (140, "shim6"), (141, "wesp"),
    (142, "rohc"), (143, "ethernet"),
];
