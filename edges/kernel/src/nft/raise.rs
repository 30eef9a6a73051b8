//! nf_tables' expressions as statements: the way back of [`super::lower`].
//!
//! The registers are followed symbolically: after `[ meta load l4proto => reg 1 ]` register 1 *is*
//! that field, and a comparison of it is a match of the field. What has no meaning here, or is
//! used in a way that none of our rules is, becomes a [`Statement::Opaque`] that begins with the
//! kernel's name of the expression; it never makes reading fail.

use std::collections::BTreeMap;

use parfait_linux::nft::{
    DataType, Family, Field, Mark, NewMark, NewPriority, Operand, RejectWith, Statement, Value,
};

use super::attr::{Attribute, find};
use super::element;
use super::layout::{self, Part, word};
use super::number::{data, expr, family as nfproto, rule};
use super::set::{self, Layout};

mod acts;

pub use acts::read_limit;

/// The sets of a table that rules can refer to.
pub struct Known {
    /// Layouts of named sets.
    pub named: BTreeMap<String, Layout>,
    /// Anonymous sets with their rows.
    pub anonymous: BTreeMap<String, (Layout, Vec<Vec<Value>>)>,
}

/// The statements of a rule, from its NFTA_RULE_EXPRESSIONS.
pub fn read(family: Family, known: &Known, expressions: &Attribute<'_>) -> Vec<Statement> {
    let mut raising = Raising {
        family,
        known,
        registers: BTreeMap::new(),
        nfproto: family,
        l4proto: None,
        statements: Vec::new(),
    };
    for each in expressions.nested() {
        let Some(name) = find(each.value, rule::EXPR_NAME) else {
            continue;
        };
        let inner = find(each.value, rule::EXPR_DATA).map_or(&[][..], |inner| inner.value);
        raising.expression(&name.str(), inner);
    }
    raising.statements
}

/// What a register holds.
#[derive(Clone, Debug)]
enum Content {
    /// Some fields one after another, the last of them perhaps not whole; masked, if there is one.
    Fields(Vec<(Part, usize)>, Option<Vec<u8>>),
    /// These bytes.
    Immediate(Vec<u8>),
    /// What a map has for these fields: of a target, the port is in the register after the address.
    Mapped(Vec<Field>, String, DataType),
    /// A mark, or what was made of one.
    Mark(NewMark),
    /// Something that is not modelled, by its expression.
    Other(String),
}

struct Raising<'a> {
    family: Family,
    known: &'a Known,
    registers: BTreeMap<usize, Content>,
    /// The family that addresses are of from here on.
    nfproto: Family,
    /// The protocol that the transport header is of from here on, if a match says.
    l4proto: Option<u8>,
    statements: Vec<Statement>,
}

impl Raising<'_> {
    fn expression(&mut self, name: &str, inner: &[u8]) {
        let done = match name {
            "payload" => self.payload(inner),
            "meta" => self.meta(inner),
            "ct" => self.ct(inner),
            "fib" => self.fib(inner),
            "numgen" => self.numgen(inner),
            "bitwise" => self.bitwise(inner),
            "cmp" => self.cmp(inner),
            "range" => self.range(inner),
            "immediate" => self.immediate(inner),
            "lookup" => self.lookup(inner),
            "nat" => self.nat(inner),
            "masq" => self.masquerade(inner),
            "redir" => self.redirect(inner),
            "notrack" => self.push(Statement::Notrack),
            "reject" => self.reject(inner),
            "counter" => self.push(Statement::Counter),
            "limit" => self.limit(inner),
            "objref" => self.object(inner),
            "log" => self.log(inner),
            "dynset" => self.dynset(inner),
            "match" | "target" => {
                // xtables: iptables-nft's own expressions.
                let what = find(inner, 1).map_or_else(String::new, |name| name.str());
                self.opaque(format!("{name} {what}"))
            }
            _ => None,
        };
        if done.is_none() {
            // It may have written to any register.
            self.registers.clear();
            self.statements.push(Statement::Opaque(name.to_owned()));
        }
    }

    #[allow(clippy::unnecessary_wraps)]
    fn push(&mut self, statement: Statement) -> Option<()> {
        self.statements.push(statement);
        Some(())
    }

    fn opaque(&mut self, expression: impl Into<String>) -> Option<()> {
        self.push(Statement::Opaque(expression.into()))
    }

    fn load(&mut self, register: u32, length: usize, content: Content) -> Option<()> {
        let first = word(register)?;
        for word in first..first + length.div_ceil(4) {
            self.registers.remove(&word);
        }
        self.registers.insert(first, content);
        Some(())
    }

    fn load_field(&mut self, register: u32, field: Field) -> Option<()> {
        let part = Part::new(field, self.nfproto);
        let content = Content::Fields(vec![(part, part.length)], None);
        self.load(register, part.length, content)
    }

    fn payload(&mut self, inner: &[u8]) -> Option<()> {
        let to = number(inner, expr::PAYLOAD_DREG)?;
        let base = number(inner, expr::PAYLOAD_BASE)?;
        let offset = number(inner, expr::PAYLOAD_OFFSET)?;
        let length = usize::try_from(number(inner, expr::PAYLOAD_LEN)?).ok()?;
        let layout: &[(u32, Field)] = match (base, self.nfproto) {
            (expr::NETWORK_HEADER, Family::Ip) => &[(12, Field::Saddr), (16, Field::Daddr)],
            (expr::NETWORK_HEADER, Family::Ip6) => &[(8, Field::Saddr), (24, Field::Daddr)],
            (expr::TRANSPORT_HEADER, _) if self.l4proto == Some(1) => &[(0, Field::IcmpType)],
            (expr::TRANSPORT_HEADER, _) if self.l4proto == Some(58) => &[(0, Field::Icmpv6Type)],
            (expr::TRANSPORT_HEADER, _) => &[(0, Field::Sport), (2, Field::Dport)],
            _ => &[],
        };
        let mut parts = Vec::new();
        let mut rest = length;
        for (at, field) in layout.iter().filter(|(at, _)| *at >= offset) {
            let part = Part::new(*field, self.nfproto);
            let begins = usize::try_from(*at - offset).ok()?;
            let length_of_part = part.length.min(rest);
            // A part of an address is a prefix; a part of a port is something else's.
            let whole = length_of_part == part.length || base == expr::NETWORK_HEADER;
            if rest > 0 && begins == length - rest && whole {
                parts.push((part, length_of_part));
                rest -= length_of_part;
            }
        }
        let content = if rest == 0 {
            Content::Fields(parts, None)
        } else {
            let header = match base {
                expr::NETWORK_HEADER => "network",
                expr::TRANSPORT_HEADER => "transport",
                _ => "other",
            };
            Content::Other(format!("payload {header} header + {offset}"))
        };
        self.load(to, length, content)
    }

    fn meta(&mut self, inner: &[u8]) -> Option<()> {
        let key = number(inner, expr::META_KEY)?;
        let Some(to) = number(inner, expr::META_DREG) else {
            let from = number(inner, expr::META_SREG);
            return match key {
                expr::META_MARK => self.set_mark(Mark::Packet, from, "meta set key 3"),
                expr::META_PRIORITY => self.set_priority(from),
                key => self.opaque(format!("meta set key {key}")),
            };
        };
        match set::meta_field(key) {
            Some(field) => self.load_field(to, field),
            None => self.load(to, 16, Content::Other(format!("meta key {key}"))),
        }
    }

    fn ct(&mut self, inner: &[u8]) -> Option<()> {
        let key = number(inner, expr::CT_KEY)?;
        let Some(to) = number(inner, expr::CT_DREG) else {
            let from = number(inner, expr::CT_SREG);
            return match key {
                expr::CT_MARK => self.set_mark(Mark::Connection, from, "ct set key 3"),
                key => self.opaque(format!("ct set key {key}")),
            };
        };
        let field = match find(inner, expr::CT_DIRECTION_ATTRIBUTE).map(|direction| direction.u32())
        {
            None => set::ct_field(key),
            Some(expr::ORIGINAL) => set::ct_original(key),
            Some(_) => None,
        };
        match field {
            Some(field) => self.load_field(to, field),
            None => self.load(to, 16, Content::Other(format!("ct key {key}"))),
        }
    }

    /// Writes a mark from a register.
    fn set_mark(&mut self, mark: Mark, from: Option<u32>, otherwise: &str) -> Option<()> {
        let new = match self.registers.get(&word(from?)?) {
            Some(Content::Immediate(bytes)) => <[u8; 4]>::try_from(bytes.as_slice())
                .ok()
                .map(|bytes| NewMark::Number(u32::from_ne_bytes(bytes))),
            Some(Content::Fields(parts, mask)) => match parts.as_slice() {
                [(part, _)] => {
                    let mask = mask.as_deref().unwrap_or(&[0xff; 4]);
                    new_mark(part, mask, &[0; 4])
                }
                _ => None,
            },
            Some(Content::Mark(new)) => Some(*new),
            _ => None,
        };
        match new {
            Some(new) => self.push(Statement::SetMark(mark, new)),
            None => self.opaque(otherwise),
        }
    }

    /// Writes the packet's priority from a register.
    fn set_priority(&mut self, from: Option<u32>) -> Option<()> {
        let new = match self.registers.get(&word(from?)?) {
            Some(Content::Immediate(bytes)) => <[u8; 4]>::try_from(bytes.as_slice())
                .ok()
                .map(|bytes| NewPriority::Number(u32::from_ne_bytes(bytes))),
            Some(Content::Mapped(fields, map, DataType::Priority)) => Some(NewPriority::Map {
                fields: fields.clone(),
                map: map.clone(),
            }),
            _ => None,
        };
        match new {
            Some(new) => self.push(Statement::SetPriority(new)),
            None => self.opaque("meta set key 2"),
        }
    }

    fn fib(&mut self, inner: &[u8]) -> Option<()> {
        let to = number(inner, expr::FIB_DREG)?;
        let flags = number(inner, expr::FIB_FLAGS)?;
        match (number(inner, expr::FIB_RESULT)?, flags) {
            (expr::FIB_ADDRTYPE, expr::FIB_SADDR) => self.load_field(to, Field::FibSaddrType),
            (expr::FIB_ADDRTYPE, expr::FIB_DADDR) => self.load_field(to, Field::FibDaddrType),
            (result, _) => self.load(to, 16, Content::Other(format!("fib result {result}"))),
        }
    }

    fn numgen(&mut self, inner: &[u8]) -> Option<()> {
        let to = number(inner, expr::NG_DREG)?;
        let modulus = number(inner, expr::NG_MODULUS)?;
        let random = number(inner, expr::NG_TYPE)? == expr::NG_RANDOM;
        let offset = number(inner, expr::NG_OFFSET).unwrap_or(0);
        if random && offset == 0 {
            self.load_field(to, Field::NumgenRandom(modulus))
        } else {
            self.load(to, 4, Content::Other("numgen".to_owned()))
        }
    }

    fn bitwise(&mut self, inner: &[u8]) -> Option<()> {
        let from = word(number(inner, expr::BITWISE_SREG)?)?;
        let to = number(inner, expr::BITWISE_DREG)?;
        let and = number(inner, expr::BITWISE_OP).unwrap_or(0) == 0;
        let mask = find(inner, expr::BITWISE_MASK).and_then(|mask| set::value_of(&mask));
        let xor = find(inner, expr::BITWISE_XOR).and_then(|xor| set::value_of(&xor));
        let plain = xor.is_some_and(|xor| xor.iter().all(|byte| *byte == 0));
        let content = match (self.registers.get(&from)?.clone(), mask) {
            (Content::Fields(parts, None), Some(mask)) if and && plain && parts.len() == 1 => {
                Content::Fields(parts, Some(mask.to_vec()))
            }
            (Content::Fields(parts, None), Some(mask)) if and && parts.len() == 1 => {
                new_mark(&parts[0].0, mask, xor?)
                    .map_or(Content::Other("bitwise".to_owned()), Content::Mark)
            }
            (Content::Other(expression), _) => Content::Other(expression),
            _ => Content::Other("bitwise".to_owned()),
        };
        self.load(to, mask.map_or(16, <[u8]>::len), content)
    }

    fn cmp(&mut self, inner: &[u8]) -> Option<()> {
        let from = word(number(inner, expr::CMP_SREG)?)?;
        let op = number(inner, expr::CMP_OP)?;
        let bytes = set::value_of(&find(inner, expr::CMP_DATA)?)?;
        let (parts, mask) = match self.registers.get(&from) {
            Some(Content::Fields(parts, mask)) => (parts.clone(), mask.clone()),
            Some(Content::Other(expression)) => {
                let expression = expression.clone();
                return self.opaque(expression);
            }
            _ => return self.opaque("cmp"),
        };
        let statements = match (op, parts.as_slice()) {
            (expr::EQ | expr::NEQ, [(part, length)]) => {
                compare(part, *length, mask.as_deref(), op == expr::NEQ, bytes).map(|s| vec![s])
            }
            (expr::EQ, parts) if mask.is_none() => compare_all(parts, bytes),
            (expr::GTE | expr::LTE, [(part, _)]) if mask.is_none() => {
                return self.bound(part, op, bytes);
            }
            _ => None,
        };
        match statements {
            Some(statements) => statements.into_iter().for_each(|s| self.matched(s)),
            None => self.opaque("cmp")?,
        }
        Some(())
    }

    /// Notes a match; one of the family says what later addresses are of.
    fn matched(&mut self, statement: Statement) {
        if let Statement::Match {
            fields,
            negated: false,
            operand: Operand::Values(values),
        } = &statement
            && fields.as_slice() == [Field::L4Proto]
        {
            self.l4proto = match values.as_slice() {
                [Value::Protocol(number)] => Some(*number),
                _ => None,
            };
        }
        if let Statement::Match {
            fields,
            negated: false,
            operand: Operand::Values(values),
        } = &statement
            && fields.as_slice() == [Field::NfProto]
        {
            self.nfproto = match values.as_slice() {
                [Value::Number(n)] if *n == u32::from(nfproto::IPV4) => Family::Ip,
                [Value::Number(n)] if *n == u32::from(nfproto::IPV6) => Family::Ip6,
                _ => self.family,
            };
        }
        self.statements.push(statement);
    }

    /// `>=` and, after it, `<=`: two comparisons that make one range of ports.
    fn bound(&mut self, part: &Part, op: u32, bytes: &[u8]) -> Option<()> {
        let Some(Value::Port(port)) = part.value(bytes) else {
            return self.opaque("cmp");
        };
        let ports = |first, last| Statement::Match {
            fields: vec![part.field],
            negated: false,
            operand: Operand::Values(vec![Value::Ports(first, last).canonical()]),
        };
        if op == expr::GTE {
            return self.push(ports(port, u16::MAX));
        }
        let first = match self.statements.last() {
            Some(Statement::Match {
                fields,
                negated: false,
                operand: Operand::Values(values),
            }) if fields.as_slice() == [part.field] => match values.as_slice() {
                [Value::Ports(first, u16::MAX)] => Some(*first),
                [Value::Port(u16::MAX)] => Some(u16::MAX),
                _ => None,
            },
            _ => None,
        };
        if first.is_some() {
            self.statements.pop();
        }
        self.push(ports(first.unwrap_or(0), port))
    }

    fn range(&mut self, inner: &[u8]) -> Option<()> {
        let from = word(number(inner, expr::RANGE_SREG)?)?;
        let negated = number(inner, expr::RANGE_OP)? == expr::NEQ;
        let first = set::value_of(&find(inner, expr::RANGE_FROM)?)?;
        let last = set::value_of(&find(inner, expr::RANGE_TO)?)?;
        if let Some(Content::Fields(parts, None)) = self.registers.get(&from)
            && let [(part, length)] = parts.as_slice()
            && *length == part.length
            && let Some(values) = part.values(first, last)
        {
            let field = part.field;
            let operand = match values.len() {
                1 => Operand::Values(values),
                _ => Operand::Anonymous(values.into_iter().map(|value| vec![value]).collect()),
            };
            return self.push(Statement::Match {
                fields: vec![field],
                negated,
                operand,
            });
        }
        self.opaque("range")
    }

    fn immediate(&mut self, inner: &[u8]) -> Option<()> {
        let to = number(inner, expr::IMMEDIATE_DREG)?;
        let value = find(inner, expr::IMMEDIATE_DATA)?;
        if to == layout::VERDICT_REGISTER {
            let verdict = find(value.value, data::VERDICT)?;
            return match element::read_verdict(&verdict) {
                Some(verdict) => self.push(Statement::Verdict(verdict)),
                None => self.opaque("immediate"),
            };
        }
        let bytes = set::value_of(&value)?.to_vec();
        self.load(to, bytes.len(), Content::Immediate(bytes))
    }

    fn lookup(&mut self, inner: &[u8]) -> Option<()> {
        let name = find(inner, expr::LOOKUP_SET)?.str();
        let from = word(number(inner, expr::LOOKUP_SREG)?)?;
        let negated = number(inner, expr::LOOKUP_FLAGS).unwrap_or(0) & expr::LOOKUP_INVERT != 0;
        let to = number(inner, expr::LOOKUP_DREG);
        let known = self.known;
        let anonymous = known.anonymous.get(&name);
        let layout = known
            .named
            .get(&name)
            .or(anonymous.map(|(layout, _)| layout));
        let fields = layout.and_then(|layout| self.fields_of(layout, from));
        let (Some(layout), Some(fields)) = (layout, fields) else {
            if let Some(to) = to.filter(|to| *to != layout::VERDICT_REGISTER) {
                self.load(to, 64, Content::Other(format!("lookup @{name}")))?;
            }
            return self.opaque(format!("lookup @{name}"));
        };
        match to {
            None => {
                let operand = match anonymous {
                    Some((_, rows)) => Operand::Anonymous(rows.clone()),
                    None => Operand::Set(name),
                };
                self.push(Statement::Match {
                    fields,
                    negated,
                    operand,
                })
            }
            Some(_) if anonymous.is_some() => self.opaque("lookup in an anonymous map"),
            Some(layout::VERDICT_REGISTER) => self.push(Statement::Vmap { fields, map: name }),
            Some(to) => {
                let content = Content::Mapped(fields, name, layout.data.clone());
                self.load(to, layout.data_length(), content)
            }
        }
    }

    /// The fields that lie in the registers where this set's key is expected.
    fn fields_of(&self, layout: &Layout, word: usize) -> Option<Vec<Field>> {
        self.fields_in(&layout.parts, word)
    }

    fn nat(&mut self, inner: &[u8]) -> Option<()> {
        let dnat = number(inner, expr::NAT_TYPE)? == expr::NAT_DNAT;
        let what = if dnat { "nat dnat" } else { "nat snat" };
        let at = |kind| number(inner, kind).and_then(word);
        let register = |kind| at(kind).and_then(|word| self.registers.get(&word));
        // The kernel repeats a register for the end of the range if there is none.
        let differs =
            |min, max| number(inner, max).is_some_and(|max| number(inner, min) != Some(max));
        let ranges = differs(expr::NAT_REG_ADDR_MIN, expr::NAT_REG_ADDR_MAX)
            || differs(expr::NAT_REG_PROTO_MIN, expr::NAT_REG_PROTO_MAX);
        let flags = number(inner, expr::NAT_FLAGS).unwrap_or(0) & !expr::NAT_IMPLIED_FLAGS;
        let fully_random = flags == expr::FULLY_RANDOM;
        if ranges || flags != 0 && (dnat || !fully_random) {
            return self.opaque(what);
        }
        let words = match number(inner, expr::NAT_FAMILY)? {
            family if family == u32::from(nfproto::IPV6) => 4,
            _ => 1,
        };
        let port = register(expr::NAT_REG_PROTO_MIN);
        let has_port = number(inner, expr::NAT_REG_PROTO_MIN).is_some();
        let statement = match (register(expr::NAT_REG_ADDR_MIN), port) {
            (Some(Content::Immediate(address)), None) if dnat && !has_port => {
                layout::address(address).map(Statement::DnatAddress)
            }
            (Some(Content::Immediate(address)), None) if !dnat && !has_port => {
                layout::address(address).map(|address| Statement::Snat {
                    address,
                    fully_random,
                })
            }
            (Some(Content::Mapped(fields, map, DataType::Address)), None) if !dnat && !has_port => {
                Some(Statement::SnatMap {
                    fields: fields.clone(),
                    map: map.clone(),
                    fully_random,
                })
            }
            (Some(Content::Immediate(address)), Some(Content::Immediate(port))) if dnat => {
                let port = port.get(..2).and_then(|port| port.try_into().ok());
                layout::address(address)
                    .zip(port.map(u16::from_be_bytes))
                    .map(|(address, port)| Statement::Dnat(address, port))
            }
            (Some(Content::Mapped(fields, map, DataType::Target)), None) if dnat => {
                let next = at(expr::NAT_REG_ADDR_MIN).map(|word| word + words);
                (at(expr::NAT_REG_PROTO_MIN) == next).then(|| Statement::DnatMap {
                    fields: fields.clone(),
                    map: map.clone(),
                })
            }
            _ => None,
        };
        match statement {
            Some(statement) => self.push(statement),
            None => self.opaque(what),
        }
    }

    fn redirect(&mut self, inner: &[u8]) -> Option<()> {
        let min = number(inner, expr::REDIR_REG_PROTO_MIN);
        let max = number(inner, expr::REDIR_REG_PROTO_MAX);
        // The registers say already that there is a port.
        let flags = number(inner, expr::REDIR_FLAGS).unwrap_or(0) & !expr::NAT_IMPLIED_FLAGS;
        let port = match min.map(|min| self.registers.get(&word(min)?)) {
            None => Some(None),
            Some(Some(Content::Immediate(port))) => {
                let port = port.get(..2).and_then(|port| port.try_into().ok());
                port.map(|port| Some(u16::from_be_bytes(port)))
            }
            Some(_) => None,
        };
        match port {
            Some(port) if flags == 0 && (max.is_none() || max == min) => {
                self.push(Statement::Redirect(port))
            }
            _ => self.opaque("redir"),
        }
    }

    fn masquerade(&mut self, inner: &[u8]) -> Option<()> {
        let flags = number(inner, expr::MASQ_FLAGS).unwrap_or(0);
        let ports = number(inner, expr::MASQ_REG_PROTO_MIN).is_some();
        match flags {
            0 | expr::FULLY_RANDOM if !ports => self.push(Statement::Masquerade {
                fully_random: flags != 0,
            }),
            _ => self.opaque("masq"),
        }
    }

    fn reject(&mut self, inner: &[u8]) -> Option<()> {
        let kind = number(inner, expr::REJECT_TYPE)?;
        let code = number(inner, expr::REJECT_CODE).unwrap_or(0);
        let icmp = kind == expr::REJECT_ICMP;
        let with = match (kind, u8::try_from(code).ok()?, self.nfproto) {
            (expr::REJECT_TCP_RST, _, _) => RejectWith::TcpReset,
            (expr::REJECT_ICMPX, 1, _)
            | (expr::REJECT_ICMP, 3, Family::Ip)
            | (expr::REJECT_ICMP, 4, Family::Ip6) => RejectWith::PortUnreachable,
            (expr::REJECT_ICMPX, 3, _)
            | (expr::REJECT_ICMP, 13, Family::Ip)
            | (expr::REJECT_ICMP, 1, Family::Ip6) => RejectWith::AdminProhibited,
            (expr::REJECT_ICMPX, 2, _)
            | (expr::REJECT_ICMP, 1, Family::Ip)
            | (expr::REJECT_ICMP, 3, Family::Ip6) => RejectWith::HostUnreachable,
            (expr::REJECT_ICMPX, 0, _) | (expr::REJECT_ICMP, 0, Family::Ip | Family::Ip6) => {
                RejectWith::NoRoute
            }
            (_, code, Family::Ip | Family::Ip6) if icmp => RejectWith::Code(code),
            _ => return self.opaque(format!("reject type {kind} code {code}")),
        };
        self.push(Statement::Reject(with))
    }
}

fn number(inner: &[u8], kind: u16) -> Option<u32> {
    find(inner, kind).map(|attribute| attribute.u32())
}

/// A mark of which some bits are kept and some turned.
fn new_mark(part: &Part, mask: &[u8], xor: &[u8]) -> Option<NewMark> {
    let mark = match part.field {
        Field::Mark => Mark::Packet,
        Field::CtMark => Mark::Connection,
        _ => return None,
    };
    let number = |bytes: &[u8]| Some(u32::from_ne_bytes(bytes.try_into().ok()?));
    let (and, xor) = (number(mask)?, number(xor)?);
    Some(NewMark::From { mark, and, xor })
}

/// One field (or the first bytes of it, or some bits of it) compared with bytes.
fn compare(
    part: &Part,
    length: usize,
    mask: Option<&[u8]>,
    negated: bool,
    bytes: &[u8],
) -> Option<Statement> {
    let address = matches!(
        part.field,
        Field::Saddr | Field::Daddr | Field::CtOriginalDaddr
    );
    let ifname = matches!(part.field, Field::Iifname | Field::Oifname);
    let is = |negated, operand| Statement::Match {
        fields: vec![part.field],
        negated,
        operand,
    };
    let value = match mask {
        None if bytes.len() > length => return None,
        None if bytes.len() == part.length => part.value(bytes)?,
        None if address => prefix(part, bytes, bytes.len() * 8)?,
        None if ifname => {
            let start = std::str::from_utf8(bytes).ok()?;
            match start.strip_suffix('\0') {
                Some(name) => Value::Ifname(name.to_owned()),
                None => Value::Ifname(format!("{start}*")),
            }
        }
        None => return None,
        Some(mask) if address => {
            let ones: u32 = mask.iter().map(|byte| byte.leading_ones()).sum();
            let bits: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
            let gap = mask.windows(2).any(|two| two[0] != 0xff && two[1] != 0);
            if gap || ones != bits || mask.len() != part.length {
                return None;
            }
            prefix(part, bytes, usize::try_from(ones).ok()?)?
        }
        Some(mask) if mask.len() == 4 && bytes.iter().all(|byte| *byte == 0) => {
            // "Not zero" is "any bit set".
            let bits = u32::from_ne_bytes(mask.try_into().ok()?);
            return Some(is(!negated, Operand::Bits(bits)));
        }
        Some(_) => return None,
    };
    Some(is(negated, Operand::Values(vec![value])))
}

/// Several whole fields, loaded as one and compared as one.
fn compare_all(parts: &[(Part, usize)], mut bytes: &[u8]) -> Option<Vec<Statement>> {
    let mut statements = Vec::new();
    for (part, length) in parts {
        let (mine, rest) = bytes.split_at_checked((*length).min(bytes.len()))?;
        bytes = rest;
        if !mine.is_empty() {
            statements.push(compare(part, *length, None, false, mine)?);
        }
    }
    bytes.is_empty().then_some(statements)
}

/// The prefix of this length that begins with these bytes.
fn prefix(part: &Part, bytes: &[u8], length: usize) -> Option<Value> {
    let mut whole = bytes.to_vec();
    whole.resize(part.length, 0);
    let address = layout::address(&whole)?;
    let net = ipnet::IpNet::new(address, u8::try_from(length).ok()?).ok()?;
    Some(Value::prefix(net))
}
