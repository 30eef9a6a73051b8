//! Rules and their statements as `nft` prints them.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::super::extra::Time;
use super::super::{
    Data, Family, Field, Limit, Log, NewData, NewMark, NewPriority, Operand, Per, RateUnit,
    RejectWith, Rule, Set, Statement, Update, Value,
};
use super::value::{self, TH};

/// A rule in a table of this family, with its comment.
#[must_use]
pub fn rule(family: Family, rule: &Rule) -> String {
    let mut words: Vec<Option<String>> = Vec::new();
    // Matches that only make a later one valid, which takes their place in print.
    let mut dependencies: Vec<(usize, Field)> = Vec::new();
    let mut th = TH;
    for (index, each) in rule.statements.iter().enumerate() {
        dependencies.retain(|(at, field)| {
            let replaced = replaces(each, *field, th);
            if replaced {
                words[*at] = None;
            }
            !replaced
        });
        words.push(Some(print(family, each, th)));
        match (each, sole_value(each)) {
            (_, Some((Field::L4Proto, Value::Protocol(number)))) => {
                th = transport_header(*number);
                dependencies.retain(|(_, field)| *field != Field::L4Proto);
                dependencies.push((index, Field::L4Proto));
            }
            (_, Some((Field::NfProto, _))) => dependencies.push((index, Field::NfProto)),
            (Statement::Match { .. }, _) => {}
            _ => dependencies.clear(),
        }
    }
    let mut out = words.into_iter().flatten().collect::<Vec<_>>().join(" ");
    if let Some(origin) = &rule.origin {
        let _ = write!(out, " comment \"{origin}\"");
    }
    out
}

/// One statement in a table of this family.
#[must_use]
pub fn statement(family: Family, statement: &Statement) -> String {
    print(family, statement, TH)
}

/// The family that the addresses in a rule are of.
pub fn guess_family(rule: &Rule) -> Family {
    let of = |statement| family_of(Family::Inet, statement);
    rule.statements
        .iter()
        .map(of)
        .find(|family| *family != Family::Inet)
        .unwrap_or(Family::Ip)
}

/// The family that a set's addresses are of, where the table is of both.
pub fn family_of_set(family: Family, set: &Set) -> Family {
    let Some((key, element)) = set.elements.first_key_value() else {
        return family;
    };
    let data = match element.data {
        Data::Target(address, _) | Data::Address(address) => Some(family_of_address(address)),
        _ => None,
    };
    match family {
        Family::Inet => key
            .iter()
            .find_map(family_of_value)
            .or(data)
            .unwrap_or(family),
        family => family,
    }
}

fn print(table: Family, statement: &Statement, th: &str) -> String {
    let family = family_of(table, statement);
    let nat = if family == Family::Ip6 { "ip6" } else { "ip" };
    // In a table of both families, the address does not say it to `nft`.
    let of_family = match table {
        Family::Inet => format!("{nat} "),
        _ => String::new(),
    };
    match statement {
        Statement::Match {
            fields,
            negated,
            operand,
        } => matching(
            &value::fields(fields, family, th),
            fields,
            *negated,
            operand,
        ),
        Statement::Vmap { fields, map } => {
            format!("{} vmap @{map}", value::fields(fields, family, th))
        }
        Statement::DnatMap { fields, map } => {
            let fields = value::fields(fields, family, th);
            format!("dnat {nat} to {fields} map @{map}")
        }
        Statement::Dnat(address, port) => {
            let to = std::net::SocketAddr::new(*address, *port);
            format!("dnat {of_family}to {to}")
        }
        Statement::DnatAddress(address) => format!("dnat {of_family}to {address}"),
        Statement::Redirect(None) => "redirect".to_owned(),
        Statement::Redirect(Some(port)) => format!("redirect to :{port}"),
        Statement::Snat {
            address,
            fully_random,
        } => format!("snat {of_family}to {address}{}", random(*fully_random)),
        Statement::SnatMap {
            fields,
            map,
            fully_random,
        } => {
            let fields = value::fields(fields, family, th);
            format!("snat to {fields} map @{map}{}", random(*fully_random))
        }
        Statement::SetMark(mark, to) => format!("{} set {}", value::mark(*mark), new_mark(*to)),
        Statement::SetPriority(NewPriority::Number(number)) => {
            format!("meta priority set {}", value::priority(*number))
        }
        Statement::SetPriority(NewPriority::Map { fields, map }) => {
            let fields = value::fields(fields, family, th);
            format!("meta priority set {fields} map @{map}")
        }
        Statement::Masquerade { fully_random: true } => "masquerade fully-random".to_owned(),
        Statement::Masquerade {
            fully_random: false,
        } => "masquerade".to_owned(),
        Statement::Notrack => "notrack".to_owned(),
        Statement::Reject(with) => reject(family, *with),
        Statement::Counter => "counter".to_owned(),
        Statement::NamedCounter(name) => format!("counter name \"{name}\""),
        Statement::Limit(limit) => self::limit(limit),
        Statement::NamedLimit(name) => format!("limit name \"{name}\""),
        Statement::Log(log) => self::log(log),
        Statement::Update(each) => update(each, family, th),
        Statement::Verdict(verdict) => verdict.to_string(),
        Statement::Opaque(expression) => expression.clone(),
    }
}

/// `limit rate …`.
#[must_use]
pub fn limit(limit: &Limit) -> String {
    format!("limit {}", rate(limit))
}

/// `rate …`, as it stands in a named limit.
pub fn rate(limit: &Limit) -> String {
    let per = match limit.per {
        Per::Second => "second",
        Per::Minute => "minute",
        Per::Hour => "hour",
        Per::Day => "day",
        Per::Week => "week",
    };
    let over = if limit.over { "over " } else { "" };
    match limit.unit {
        RateUnit::Packets => {
            let burst = match limit.burst {
                0 | Limit::PACKET_BURST => String::new(),
                burst => format!(" burst {burst} packets"),
            };
            format!("rate {over}{}/{per}{burst}", limit.rate)
        }
        RateUnit::Bytes => {
            let (rate, unit) = bytes(limit.rate);
            let burst = match limit.burst {
                0 => String::new(),
                burst => {
                    let (burst, unit) = bytes(burst.into());
                    format!(" burst {burst} {unit}")
                }
            };
            format!("rate {over}{rate} {unit}/{per}{burst}")
        }
    }
}

/// In the largest unit that leaves nothing over (`get_rate` in nftables' statement.c).
fn bytes(mut number: u64) -> (u64, &'static str) {
    let mut units = ["bytes", "kbytes", "mbytes"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    while number > 0 && number.is_multiple_of(1024) {
        let Some(larger) = units.next() else { break };
        number /= 1024;
        unit = larger;
    }
    (number, unit)
}

fn log(log: &Log) -> String {
    let mut out = "log".to_owned();
    if let Some(prefix) = &log.prefix {
        let _ = write!(out, " prefix \"{prefix}\"");
    }
    if let Some(group) = log.group {
        let _ = write!(out, " group {group}");
    }
    if log.snaplen > 0 {
        let _ = write!(out, " snaplen {}", log.snaplen);
    }
    if log.queue_threshold > 0 {
        let _ = write!(out, " queue-threshold {}", log.queue_threshold);
    }
    out
}

fn update(update: &Update, family: Family, th: &str) -> String {
    let mut out = format!(
        "update @{} {{ {}",
        update.set,
        value::fields(&update.key, family, th)
    );
    if let Some(timeout) = update.timeout {
        let _ = write!(out, " timeout {}", Time(timeout));
    }
    match &update.data {
        NewData::None | NewData::Fixed(Data::None) => {}
        NewData::Fixed(Data::Target(address, port)) => {
            let _ = write!(out, " : {address} . {port}");
        }
        NewData::Fixed(Data::Address(address)) => {
            let _ = write!(out, " : {address}");
        }
        NewData::Fixed(Data::Priority(number)) => {
            let _ = write!(out, " : {}", value::priority(*number));
        }
        NewData::Fixed(Data::Verdict(verdict)) => {
            let _ = write!(out, " : {verdict}");
        }
        NewData::Fields(fields) => {
            let _ = write!(out, " : {}", value::fields(fields, family, th));
        }
    }
    out.push_str(" }");
    out
}

fn random(fully_random: bool) -> &'static str {
    if fully_random { " fully-random" } else { "" }
}

/// The kernel knows only `& and ^ xor`; nft finds the bits in it that are set whatever they were
/// (`netlink_parse_bitwise_bool`).
fn new_mark(to: NewMark) -> String {
    let (mark, and, xor) = match to {
        NewMark::Number(number) => return format!("{number:#010x}"),
        NewMark::From { mark, and, xor } => (mark, and, xor),
    };
    let or = xor & !and;
    let (and, xor) = (and | or, xor & and);
    let mut out = value::mark(mark).to_owned();
    for (operator, number, nothing) in [("&", and, u32::MAX), ("^", xor, 0), ("|", or, 0)] {
        if number != nothing {
            let _ = write!(out, " {operator} {number:#010x}");
        }
    }
    out
}

fn matching(left: &str, fields: &[Field], negated: bool, operand: &Operand) -> String {
    let not = if negated { "!= " } else { "" };
    match operand {
        Operand::Values(values) => {
            let exact = match (fields, values.as_slice()) {
                // `ct state new` is a test of bits: equality needs saying, but for several bits
                // nft 1.0.6 does not say it.
                ([Field::CtState | Field::CtStatus], [Value::Number(bits)])
                    if !negated && bits.count_ones() < 2 =>
                {
                    "== "
                }
                _ => not,
            };
            let right = value::key(fields, values);
            match values.len() {
                1 => format!("{left} {exact}{right}"),
                _ => format!("{left} {not}{{ {right} }}"),
            }
        }
        Operand::Anonymous(rows) => {
            let mut rows: Vec<&Vec<Value>> = rows.iter().collect();
            rows.sort_by_cached_key(|row| value::start(row));
            let rows: Vec<String> = rows
                .into_iter()
                .map(|row| value::key(fields, row))
                .collect();
            format!("{left} {not}{{ {} }}", rows.join(", "))
        }
        Operand::Set(name) => format!("{left} {not}@{name}"),
        Operand::Bits(mask) => match fields {
            [field @ (Field::CtState | Field::CtStatus)] => {
                let not = if negated { "! " } else { "" };
                format!("{left} {not}{}", value::bits(*field, *mask, ","))
            }
            _ => {
                let equals = if negated { "==" } else { "!=" };
                format!("{left} & {mask:#010x} {equals} 0x00000000")
            }
        },
    }
}

fn reject(family: Family, with: RejectWith) -> String {
    let name = match (with, family) {
        (RejectWith::TcpReset, _) => return "reject with tcp reset".to_owned(),
        (RejectWith::PortUnreachable, _) => return "reject".to_owned(),
        (RejectWith::AdminProhibited, _) => "admin-prohibited",
        (RejectWith::NoRoute, Family::Ip) => "net-unreachable",
        (RejectWith::NoRoute, _) => "no-route",
        (RejectWith::HostUnreachable, Family::Ip6) => "addr-unreachable",
        (RejectWith::HostUnreachable, _) => "host-unreachable",
        (RejectWith::Code(2), Family::Ip) => "prot-unreachable",
        (RejectWith::Code(9), Family::Ip) => "net-prohibited",
        (RejectWith::Code(10), Family::Ip) => "host-prohibited",
        (RejectWith::Code(5), Family::Ip6) => "policy-fail",
        (RejectWith::Code(6), Family::Ip6) => "reject-route",
        (RejectWith::Code(code), _) => &code.to_string(),
    };
    let protocol = match family {
        Family::Ip => "icmp",
        Family::Ip6 => "icmpv6",
        Family::Inet => "icmpx",
    };
    format!("reject with {protocol} {name}")
}

/// Whether `nft` prints this statement in a way that says the dependency already.
fn replaces(statement: &Statement, dependency: Field, th: &str) -> bool {
    let fields = match statement {
        Statement::Match { fields, .. }
        | Statement::Vmap { fields, .. }
        | Statement::DnatMap { fields, .. }
        | Statement::SnatMap { fields, .. }
        | Statement::SetPriority(NewPriority::Map { fields, .. }) => fields.as_slice(),
        Statement::Update(update) => &update.key,
        Statement::Reject(RejectWith::TcpReset) => return dependency == Field::L4Proto,
        _ => return false,
    };
    let mut fields = fields.iter();
    match dependency {
        Field::L4Proto => fields.any(|field| match field {
            Field::Sport | Field::Dport => th != TH,
            Field::IcmpType | Field::Icmpv6Type => true,
            _ => false,
        }),
        Field::NfProto => fields.any(|field| matches!(field, Field::Saddr | Field::Daddr)),
        _ => false,
    }
}

fn sole_value(statement: &Statement) -> Option<(Field, &Value)> {
    match statement {
        Statement::Match {
            fields,
            negated: false,
            operand: Operand::Values(values),
        } if fields.len() == 1 => Some((fields[0], values.first()?)),
        _ => None,
    }
}

fn transport_header(protocol: u8) -> &'static str {
    match protocol {
        6 => "tcp",
        17 => "udp",
        33 => "dccp",
        132 => "sctp",
        136 => "udplite",
        _ => TH,
    }
}

/// A table of both families holds addresses of either: the values say which.
fn family_of(family: Family, statement: &Statement) -> Family {
    if family != Family::Inet {
        return family;
    }
    let found = match statement {
        Statement::Match { operand, .. } => match operand {
            Operand::Values(values) => values.iter().find_map(family_of_value),
            Operand::Anonymous(rows) => rows.iter().flatten().find_map(family_of_value),
            Operand::Set(_) | Operand::Bits(_) => None,
        },
        Statement::Dnat(address, _)
        | Statement::DnatAddress(address)
        | Statement::Snat { address, .. } => Some(family_of_address(*address)),
        _ => None,
    };
    found.unwrap_or(family)
}

fn family_of_value(value: &Value) -> Option<Family> {
    match value {
        Value::Address(address) => Some(family_of_address(*address)),
        Value::Prefix(net) => Some(family_of_address(net.addr())),
        _ => None,
    }
}

fn family_of_address(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family::Ip,
        IpAddr::V6(_) => Family::Ip6,
    }
}
