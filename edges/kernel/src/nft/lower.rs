//! Statements as nf_tables' expressions: small instructions over registers.
//!
//! ```text
//!   ip daddr 10.0.0.0/8 meta l4proto tcp th dport 80 dnat to 1.2.3.4:80
//!
//!   [ payload load 1b @ network header + 16 => reg 1 ]   [ cmp eq reg 1 0x0a ]
//!   [ meta load l4proto => reg 1 ]                       [ cmp eq reg 1 0x06 ]
//!   [ payload load 2b @ transport header + 2 => reg 1 ]  [ cmp eq reg 1 0x0050 ]
//!   [ immediate reg 1 0x01020304 ] [ immediate reg 2 0x0050 ]
//!   [ nat dnat ip addr_min reg 1 proto_min reg 2 ]
//! ```
//!
//! The same instructions as `nft --debug=netlink` shows for the same text. What has no such form is
//! an `Err` that says so, for the caller to name the rule.

use std::net::IpAddr;

use parfait_linux::nft::{
    DataType, Family, Field, Mark, NewMark, NewPriority, Operand, RejectWith, Rule, Statement,
    Value, Verdict,
};

use super::attr::Writer;
use super::element;
use super::layout::{self, Part, VERDICT_REGISTER, register};
use super::number::{LIST_ELEM, data, expr, family as nfproto, rule};
use super::set::{ANONYMOUS, Layout};

mod acts;

pub use acts::put_limit;

/// An anonymous set that a rule needs: it is made in the same transaction, before the rule.
pub struct Anonymous<'a> {
    /// Its number within the transaction.
    pub id: u32,
    /// Its layout.
    pub layout: Layout,
    /// Its elements.
    pub rows: &'a [Vec<Value>],
}

/// The anonymous sets of a rule, numbered from `id` on.
pub fn anonymous_sets(family: Family, rule: &Rule, id: u32) -> Result<Vec<Anonymous<'_>>, String> {
    let mut sets = Vec::new();
    for statement in &rule.statements {
        let Statement::Match {
            fields,
            operand: Operand::Anonymous(rows),
            ..
        } = statement
        else {
            continue;
        };
        if rows.is_empty() {
            return Err("an anonymous set needs an element".to_owned());
        }
        let layout = Layout {
            parts: layout::parts(fields, of_values(family, rows.iter().flatten())),
            data: DataType::None,
            family,
            interval: !rows.iter().flatten().all(Value::is_exact),
            dynamic: None,
        };
        let id = id + u32::try_from(sets.len()).unwrap_or(0);
        sets.push(Anonymous { id, layout, rows });
    }
    Ok(sets)
}

/// Writes the expressions of a rule whose anonymous sets are numbered from `id` on.
pub fn write(writer: &mut Writer, family: Family, rule: &Rule, id: u32) -> Result<(), String> {
    let mut lowering = Lowering { writer, family, id };
    for statement in &rule.statements {
        lowering.statement(statement)?;
    }
    Ok(())
}

struct Lowering<'w> {
    writer: &'w mut Writer,
    family: Family,
    id: u32,
}

impl Lowering<'_> {
    fn statement(&mut self, statement: &Statement) -> Result<(), String> {
        match statement {
            Statement::Match {
                fields,
                negated,
                operand,
            } => self.matching(fields, *negated, operand)?,
            Statement::Vmap { fields, map } => {
                self.load_all(fields, self.family)?;
                self.look_up(map, None, false, Some(VERDICT_REGISTER));
            }
            Statement::DnatMap { fields, map } => {
                self.map_address("dnat", fields, map)?;
                self.dnat(self.family);
            }
            Statement::SnatMap {
                fields,
                map,
                fully_random,
            } => {
                self.map_address("snat", fields, map)?;
                self.nat_address(expr::NAT_SNAT, self.family, *fully_random);
            }
            Statement::Snat {
                address,
                fully_random,
            } => {
                self.immediate(register(0), &layout::address_bytes(*address));
                self.nat_address(expr::NAT_SNAT, family_of(*address), *fully_random);
            }
            Statement::DnatAddress(address) => {
                self.immediate(register(0), &layout::address_bytes(*address));
                self.nat_address(expr::NAT_DNAT, family_of(*address), false);
            }
            Statement::Redirect(port) => self.redirect(*port),
            Statement::SetMark(mark, to) => self.set_mark(*mark, *to),
            Statement::SetPriority(to) => self.set_priority(to)?,
            Statement::Dnat(address, port) => {
                let bytes = layout::address_bytes(*address);
                let words = bytes.len() / 4;
                self.immediate(register(0), &bytes);
                self.immediate(register(words), &port.to_be_bytes());
                self.dnat(family_of(*address));
            }
            Statement::Masquerade { fully_random } => self.expression("masq", |writer| {
                if *fully_random {
                    writer.put_u32(expr::MASQ_FLAGS, expr::FULLY_RANDOM);
                }
            }),
            Statement::Notrack => self.expression("notrack", |_| {}),
            Statement::Reject(with) => self.reject(*with),
            Statement::Counter => self.expression("counter", |_| {}),
            Statement::NamedCounter(name) => self.object(acts::COUNTER, name),
            Statement::Limit(limit) => self.limit(limit),
            Statement::NamedLimit(name) => self.object(acts::LIMIT, name),
            Statement::Log(log) => self.log(log)?,
            Statement::Update(update) => self.update(update)?,
            Statement::Verdict(verdict) => self.verdict(verdict),
            Statement::Opaque(expression) => {
                return Err(format!("{expression} belongs to another program"));
            }
        }
        Ok(())
    }

    /// Loads what a map has for these fields.
    fn map_address(&mut self, what: &str, fields: &[Field], map: &str) -> Result<(), String> {
        if self.family == Family::Inet {
            return Err(format!("{what} by a map needs a table of family ip or ip6"));
        }
        self.load_all(fields, self.family)?;
        self.look_up(map, None, false, Some(register(0)));
        Ok(())
    }

    fn redirect(&mut self, port: Option<u16>) {
        if let Some(port) = port {
            self.immediate(register(0), &port.to_be_bytes());
        }
        self.expression("redir", |writer| {
            if port.is_some() {
                writer.put_u32(expr::REDIR_REG_PROTO_MIN, register(0));
            }
        });
    }

    fn set_mark(&mut self, mark: Mark, to: NewMark) {
        match to {
            NewMark::Number(number) => self.immediate(register(0), &number.to_ne_bytes()),
            NewMark::From { mark, and, xor } => {
                match mark {
                    Mark::Packet => self.meta(register(0), expr::META_MARK),
                    Mark::Connection => self.ct(register(0), expr::CT_MARK),
                }
                if (and, xor) != (u32::MAX, 0) {
                    self.bitwise(&and.to_ne_bytes(), &xor.to_ne_bytes());
                }
            }
        }
        let (name, source, key, number) = match mark {
            Mark::Packet => ("meta", expr::META_SREG, expr::META_KEY, expr::META_MARK),
            Mark::Connection => ("ct", expr::CT_SREG, expr::CT_KEY, expr::CT_MARK),
        };
        self.expression(name, |writer| {
            writer.put_u32(key, number);
            writer.put_u32(source, register(0));
        });
    }

    fn set_priority(&mut self, to: &NewPriority) -> Result<(), String> {
        match to {
            NewPriority::Number(number) => self.immediate(register(0), &number.to_ne_bytes()),
            NewPriority::Map { fields, map } => {
                self.load_all(fields, self.family)?;
                self.look_up(map, None, false, Some(register(0)));
            }
        }
        self.expression("meta", |writer| {
            writer.put_u32(expr::META_KEY, expr::META_PRIORITY);
            writer.put_u32(expr::META_SREG, register(0));
        });
        Ok(())
    }

    fn matching(
        &mut self,
        fields: &[Field],
        negated: bool,
        operand: &Operand,
    ) -> Result<(), String> {
        let op = if negated { expr::NEQ } else { expr::EQ };
        match (fields, operand) {
            ([field], Operand::Values(values)) => match values.as_slice() {
                [value] => self.compare(*field, value, negated),
                _ => Err("one field is compared with one value".to_owned()),
            },
            (_, Operand::Values(_)) => {
                Err("several fields are looked up in a set, even in one of one element".to_owned())
            }
            ([field], Operand::Bits(mask)) => {
                let part = Part::new(*field, self.family);
                if part.length != 4 {
                    return Err(format!("{field:?} has no bits"));
                }
                self.load(&part, 0)?;
                self.mask(&mask.to_ne_bytes());
                // Any bit set is "not zero".
                let op = if negated { expr::EQ } else { expr::NEQ };
                self.cmp(op, &[0; 4]);
                Ok(())
            }
            (_, Operand::Bits(_)) => Err("bits are of one field".to_owned()),
            (_, Operand::Anonymous(rows)) => {
                self.load_all(fields, of_values(self.family, rows.iter().flatten()))?;
                let id = self.id;
                self.id += 1;
                self.look_up(ANONYMOUS, Some(id), op == expr::NEQ, None);
                Ok(())
            }
            (_, Operand::Set(name)) => {
                self.load_all(fields, self.family)?;
                self.look_up(name, None, negated, None);
                Ok(())
            }
        }
    }

    /// One field against one value.
    fn compare(&mut self, field: Field, value: &Value, negated: bool) -> Result<(), String> {
        let op = if negated { expr::NEQ } else { expr::EQ };
        let part = Part::new(field, of_values(self.family, std::iter::once(value)));
        if let Value::Ifname(name) = value
            && let Some(start) = name.strip_suffix('*')
        {
            if start.is_empty() || start.len() >= layout::IFNAME {
                return Err(format!("no interface name is like {name:?}"));
            }
            self.load(&part, 0)?;
            self.cmp(op, start.as_bytes());
            return Ok(());
        }
        let wrong = || format!("{value:?} is no value of {field:?}");
        let (first, last) = part.range(value).ok_or_else(wrong)?;
        match value {
            Value::Prefix(net) => {
                let length = usize::from(net.prefix_len());
                if length > 0 && length % 8 == 0 {
                    // Whole bytes: load no more of the address than the prefix has.
                    let short = Part {
                        length: length / 8,
                        ..part
                    };
                    self.load(&short, 0)?;
                    self.cmp(op, &first[..length / 8]);
                } else {
                    let mask = layout::address_bytes(net.netmask());
                    self.load(&part, 0)?;
                    self.mask(&mask);
                    self.cmp(op, &first);
                }
            }
            Value::Ports(..) if negated => {
                self.load(&part, 0)?;
                self.expression("range", |writer| {
                    writer.put_u32(expr::RANGE_SREG, register(0));
                    writer.put_u32(expr::RANGE_OP, expr::NEQ);
                    put_data(writer, expr::RANGE_FROM, &first);
                    put_data(writer, expr::RANGE_TO, &last);
                });
            }
            Value::Ports(..) => {
                self.load(&part, 0)?;
                self.cmp(expr::GTE, &first);
                self.cmp(expr::LTE, &last);
            }
            _ => {
                self.load(&part, 0)?;
                self.cmp(op, &first);
            }
        }
        Ok(())
    }

    fn load(&mut self, part: &Part, word: usize) -> Result<(), String> {
        let to = register(word);
        let v6 = part.datatype == layout::datatype::IP6ADDR;
        match part.field {
            Field::Saddr => {
                self.payload(
                    to,
                    expr::NETWORK_HEADER,
                    if v6 { 8 } else { 12 },
                    part.length,
                );
            }
            Field::Daddr => {
                self.payload(
                    to,
                    expr::NETWORK_HEADER,
                    if v6 { 24 } else { 16 },
                    part.length,
                );
            }
            Field::Sport => self.payload(to, expr::TRANSPORT_HEADER, 0, 2),
            Field::Dport => self.payload(to, expr::TRANSPORT_HEADER, 2, 2),
            Field::L4Proto => self.meta(to, expr::META_L4PROTO),
            Field::NfProto => self.meta(to, expr::META_NFPROTO),
            Field::Iifname => self.meta(to, expr::META_IIFNAME),
            Field::Oifname => self.meta(to, expr::META_OIFNAME),
            Field::Mark => self.meta(to, expr::META_MARK),
            Field::Priority => self.meta(to, expr::META_PRIORITY),
            Field::IcmpType | Field::Icmpv6Type => self.payload(to, expr::TRANSPORT_HEADER, 0, 1),
            Field::CtOriginalDaddr if v6 => self.ct_original(to, expr::CT_DST_IP6),
            Field::CtOriginalDaddr => self.ct_original(to, expr::CT_DST_IP),
            Field::CtOriginalDport => self.ct_original(to, expr::CT_PROTO_DST),
            Field::CtState => self.ct(to, expr::CT_STATE),
            Field::CtStatus => self.ct(to, expr::CT_STATUS),
            Field::CtMark => self.ct(to, expr::CT_MARK),
            Field::CtDirection => self.ct(to, expr::CT_DIRECTION),
            Field::FibSaddrType => self.fib(to, expr::FIB_SADDR),
            Field::FibDaddrType => self.fib(to, expr::FIB_DADDR),
            Field::NumgenRandom(0) => return Err("numgen needs a modulus above 0".to_owned()),
            Field::NumgenRandom(modulus) => self.expression("numgen", |writer| {
                writer.put_u32(expr::NG_DREG, to);
                writer.put_u32(expr::NG_MODULUS, modulus);
                writer.put_u32(expr::NG_TYPE, expr::NG_RANDOM);
                writer.put_u32(expr::NG_OFFSET, 0);
            }),
        }
        Ok(())
    }

    fn payload(&mut self, to: u32, base: u32, offset: u32, length: usize) {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        self.expression("payload", |writer| {
            writer.put_u32(expr::PAYLOAD_DREG, to);
            writer.put_u32(expr::PAYLOAD_BASE, base);
            writer.put_u32(expr::PAYLOAD_OFFSET, offset);
            writer.put_u32(expr::PAYLOAD_LEN, length);
        });
    }

    fn meta(&mut self, to: u32, key: u32) {
        self.expression("meta", |writer| {
            writer.put_u32(expr::META_DREG, to);
            writer.put_u32(expr::META_KEY, key);
        });
    }

    fn ct(&mut self, to: u32, key: u32) {
        self.expression("ct", |writer| {
            writer.put_u32(expr::CT_DREG, to);
            writer.put_u32(expr::CT_KEY, key);
        });
    }

    fn ct_original(&mut self, to: u32, key: u32) {
        self.expression("ct", |writer| {
            writer.put_u32(expr::CT_DREG, to);
            writer.put_u32(expr::CT_KEY, key);
            writer.put(expr::CT_DIRECTION_ATTRIBUTE, &[0]);
        });
    }

    fn fib(&mut self, to: u32, flags: u32) {
        self.expression("fib", |writer| {
            writer.put_u32(expr::FIB_DREG, to);
            writer.put_u32(expr::FIB_RESULT, expr::FIB_ADDRTYPE);
            writer.put_u32(expr::FIB_FLAGS, flags);
        });
    }

    fn mask(&mut self, mask: &[u8]) {
        self.bitwise(mask, &vec![0; mask.len()]);
    }

    fn bitwise(&mut self, mask: &[u8], xor: &[u8]) {
        let length = u32::try_from(mask.len()).unwrap_or(0);
        self.expression("bitwise", |writer| {
            writer.put_u32(expr::BITWISE_SREG, register(0));
            writer.put_u32(expr::BITWISE_DREG, register(0));
            writer.put_u32(expr::BITWISE_LEN, length);
            put_data(writer, expr::BITWISE_MASK, mask);
            put_data(writer, expr::BITWISE_XOR, xor);
        });
    }

    fn cmp(&mut self, op: u32, bytes: &[u8]) {
        self.expression("cmp", |writer| {
            writer.put_u32(expr::CMP_SREG, register(0));
            writer.put_u32(expr::CMP_OP, op);
            put_data(writer, expr::CMP_DATA, bytes);
        });
    }

    fn look_up(&mut self, name: &str, id: Option<u32>, invert: bool, to: Option<u32>) {
        self.expression("lookup", |writer| {
            writer.put_str(expr::LOOKUP_SET, name);
            writer.put_u32(expr::LOOKUP_SREG, register(0));
            if let Some(to) = to {
                writer.put_u32(expr::LOOKUP_DREG, to);
            }
            if let Some(id) = id {
                writer.put_u32(expr::LOOKUP_SET_ID, id);
            }
            if invert {
                writer.put_u32(expr::LOOKUP_FLAGS, expr::LOOKUP_INVERT);
            }
        });
    }

    fn immediate(&mut self, to: u32, bytes: &[u8]) {
        self.expression("immediate", |writer| {
            writer.put_u32(expr::IMMEDIATE_DREG, to);
            put_data(writer, expr::IMMEDIATE_DATA, bytes);
        });
    }

    fn verdict(&mut self, verdict: &Verdict) {
        self.expression("immediate", |writer| {
            writer.put_u32(expr::IMMEDIATE_DREG, VERDICT_REGISTER);
            writer.nest(expr::IMMEDIATE_DATA, |w| element::put_verdict(w, verdict));
        });
    }

    /// Address and port lie in the first registers.
    fn dnat(&mut self, family: Family) {
        let (number, words) = match family {
            Family::Ip6 => (nfproto::IPV6, 4),
            _ => (nfproto::IPV4, 1),
        };
        self.expression("nat", |writer| {
            writer.put_u32(expr::NAT_TYPE, expr::NAT_DNAT);
            writer.put_u32(expr::NAT_FAMILY, u32::from(number));
            writer.put_u32(expr::NAT_REG_ADDR_MIN, register(0));
            writer.put_u32(expr::NAT_REG_PROTO_MIN, register(words));
        });
    }

    /// The address lies in the first registers.
    fn nat_address(&mut self, kind: u32, family: Family, fully_random: bool) {
        let number = match family {
            Family::Ip6 => nfproto::IPV6,
            _ => nfproto::IPV4,
        };
        self.expression("nat", |writer| {
            writer.put_u32(expr::NAT_TYPE, kind);
            writer.put_u32(expr::NAT_FAMILY, u32::from(number));
            writer.put_u32(expr::NAT_REG_ADDR_MIN, register(0));
            if fully_random {
                writer.put_u32(expr::NAT_FLAGS, expr::FULLY_RANDOM);
            }
        });
    }

    fn reject(&mut self, with: RejectWith) {
        let (kind, code) = match (with, self.family) {
            (RejectWith::TcpReset, _) => (expr::REJECT_TCP_RST, 0),
            (RejectWith::PortUnreachable, Family::Ip) => (expr::REJECT_ICMP, 3),
            (RejectWith::PortUnreachable, Family::Ip6) => (expr::REJECT_ICMP, 4),
            (RejectWith::PortUnreachable, Family::Inet) => (expr::REJECT_ICMPX, 1),
            (RejectWith::AdminProhibited, Family::Ip) => (expr::REJECT_ICMP, 13),
            (RejectWith::AdminProhibited, Family::Ip6) => (expr::REJECT_ICMP, 1),
            (RejectWith::AdminProhibited, Family::Inet) => (expr::REJECT_ICMPX, 3),
            (RejectWith::NoRoute, Family::Inet) => (expr::REJECT_ICMPX, 0),
            (RejectWith::NoRoute, _) => (expr::REJECT_ICMP, 0),
            (RejectWith::HostUnreachable, Family::Ip) => (expr::REJECT_ICMP, 1),
            (RejectWith::HostUnreachable, Family::Ip6) => (expr::REJECT_ICMP, 3),
            (RejectWith::HostUnreachable, Family::Inet) => (expr::REJECT_ICMPX, 2),
            (RejectWith::Code(code), Family::Inet) => (expr::REJECT_ICMPX, code),
            (RejectWith::Code(code), _) => (expr::REJECT_ICMP, code),
        };
        self.expression("reject", |writer| {
            writer.put_u32(expr::REJECT_TYPE, kind);
            writer.put(expr::REJECT_CODE, &[code]);
        });
    }

    fn expression(&mut self, name: &str, inner: impl FnOnce(&mut Writer)) {
        self.writer.nest(LIST_ELEM, |writer| {
            writer.put_str(rule::EXPR_NAME, name);
            writer.nest(rule::EXPR_DATA, inner);
        });
    }
}

fn put_data(writer: &mut Writer, kind: u16, bytes: &[u8]) {
    writer.nest(kind, |writer| writer.put(data::VALUE, bytes));
}

/// In a table of both families, the values say which header is meant.
fn of_values<'a>(family: Family, mut values: impl Iterator<Item = &'a Value>) -> Family {
    if family != Family::Inet {
        return family;
    }
    values
        .find_map(|value| match value {
            Value::Address(address) => Some(family_of(*address)),
            Value::Prefix(net) => Some(family_of(net.addr())),
            _ => None,
        })
        .unwrap_or(family)
}

fn family_of(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family::Ip,
        IpAddr::V6(_) => Family::Ip6,
    }
}
