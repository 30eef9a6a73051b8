//! What a packet has in a field, and what a set says to it.

use std::ops::Bound;
use std::slice;

use ipnet::IpNet;
use parfait_packet::{Family, Origin, Packet, Protocol};

use super::super::{Data, Element, Field, Key, Operand, Set, Table, Value, render};
use super::{Context, ct_state};

/// `numgen` beyond this is not tried value by value.
const LARGEST_MODULUS: u32 = 65_536;
/// Up to so many, trying all is as fast.
const FEW_ELEMENTS: usize = 64;

/// The packet as rules see it now.
pub struct Seen<'a> {
    /// The packet and its surroundings.
    pub context: Context<'a>,
    /// Its priority, if a rule has written it.
    pub priority: Option<u32>,
    /// Its source is one that the kernel has chosen.
    pub masqueraded: bool,
    /// Its source port is one that the kernel has chosen.
    pub snat: bool,
}

/// The element that a look-up found.
#[derive(Clone, Debug)]
pub struct Hit {
    /// The element, as `nft` prints it.
    pub text: String,
    /// What it maps to.
    pub data: Data,
    /// What it exists for.
    pub origin: Option<Origin>,
}

/// Equal if they do the same.
impl PartialEq for Hit {
    fn eq(&self, other: &Self) -> bool {
        self.data == other.data
    }
}

/// What a match or look-up can come out as.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The rule does not apply.
    No,
    /// It does; by this element, if a set was asked.
    Yes(Option<Hit>),
    /// Nobody can tell.
    Unknown(String),
}

/// Answers and of how many equally likely cases each is the answer.
pub type Answers = Vec<(u64, Answer)>;

/// A match statement's answers.
pub fn matches(
    table: &Table,
    seen: &Seen<'_>,
    fields: &[Field],
    negated: bool,
    operand: &Operand,
) -> Answers {
    by_case(fields, |random| {
        let key = match key(seen, fields, random) {
            Ok(key) => key,
            Err(missing) => return missing.answer(),
        };
        let hit = match operand {
            Operand::Values(values) => covers(values, &key).then_some(None),
            Operand::Anonymous(rows) => rows.iter().any(|row| covers(row, &key)).then_some(None),
            Operand::Bits(mask) => key
                .iter()
                .any(|value| matches!(value, Value::Number(bits) if bits & mask != 0))
                .then_some(None),
            Operand::Set(name) => match table.sets.get(name) {
                Some(set) => find(set, &key).map(Some),
                None => return Answer::Unknown(format!("lookup @{name}")),
            },
        };
        match (hit, negated) {
            (Some(hit), false) => Answer::Yes(hit),
            (None, true) => Answer::Yes(None),
            (Some(_), true) | (None, false) => Answer::No,
        }
    })
}

/// A map look-up's answers.
pub fn look_up(table: &Table, seen: &Seen<'_>, fields: &[Field], map: &str) -> Answers {
    let Some(set) = table.sets.get(map) else {
        return vec![(1, Answer::Unknown(format!("lookup @{map}")))];
    };
    by_case(fields, |random| {
        match key(seen, fields, random).map(|key| find(set, &key)) {
            Ok(Some(hit)) => Answer::Yes(Some(hit)),
            Ok(None) => Answer::No,
            Err(missing) => missing.answer(),
        }
    })
}

/// Asks once, or once for each value that `numgen` can have; equal answers are put together.
fn by_case(fields: &[Field], ask: impl Fn(&[u32]) -> Answer) -> Answers {
    let moduli: Vec<u32> = fields
        .iter()
        .filter_map(|field| match field {
            Field::NumgenRandom(modulus) => Some(*modulus),
            _ => None,
        })
        .collect();
    let cases = moduli.iter().try_fold(1_u32, |cases, modulus| {
        cases
            .checked_mul((*modulus).max(1))
            .filter(|n| *n <= LARGEST_MODULUS)
    });
    let Some(cases) = cases else {
        return vec![(1, Answer::Unknown("numgen of too many values".to_owned()))];
    };
    let mut answers = Answers::new();
    for case in 0..cases {
        let mut rest = case;
        let random: Vec<u32> = moduli
            .iter()
            .map(|modulus| {
                let value = rest % (*modulus).max(1);
                rest /= (*modulus).max(1);
                value
            })
            .collect();
        let answer = ask(&random);
        match answers.iter_mut().find(|(_, known)| *known == answer) {
            Some((count, _)) => *count += 1,
            None => answers.push((1, answer)),
        }
    }
    answers
}

fn covers(pattern: &[Value], key: &[Value]) -> bool {
    pattern.len() == key.len() && pattern.iter().zip(key).all(|(p, value)| p.covers(value))
}

/// The element that covers the key. In large sets only those are tried that begin with an address's
/// prefix, or an interface's pattern, in canonical form ([`super::super::canonical`]).
fn find_covering<'a>(set: &'a Set, key: &Key) -> Option<(&'a Key, &'a Element)> {
    let covering = |(pattern, _): &(&Key, &Element)| covers(pattern, key);
    let first = key.first().filter(|_| set.elements.len() > FEW_ELEMENTS);
    let Some(wider) = first.and_then(wider) else {
        return set.elements.iter().find(covering);
    };
    wider.into_iter().find_map(|begin| {
        let from = (Bound::Included(slice::from_ref(&begin)), Bound::Unbounded);
        let mut beginning = set
            .elements
            .range::<[Value], _>(from)
            .take_while(|(pattern, _)| pattern.first() == Some(&begin));
        beginning.find(covering)
    })
}

/// Every value that covers this one, if they can be told one by one.
fn wider(value: &Value) -> Option<Vec<Value>> {
    match value {
        Value::Address(address) => {
            let host = IpNet::from(*address);
            let prefix = |length| IpNet::new(*address, length).ok();
            let nets = (0..=host.max_prefix_len()).filter_map(prefix);
            let mut all: Vec<Value> = nets.map(|net| Value::Prefix(net.trunc())).collect();
            all.push(value.clone());
            Some(all)
        }
        Value::Ifname(name) => {
            let starts = name.char_indices().map(|(at, _)| &name[..at]);
            let mut all: Vec<Value> = starts.map(|s| Value::Ifname(format!("{s}*"))).collect();
            all.push(Value::Ifname(format!("{name}*")));
            all.push(value.clone());
            Some(all)
        }
        _ => None,
    }
}

fn find(set: &Set, key: &Key) -> Option<Hit> {
    let (key, element) = match set.elements.get_key_value(key) {
        Some(found) => found,
        None if set.interval => find_covering(set, key)?,
        None => return None,
    };
    Some(Hit {
        text: render::element(&set.key, key, element),
        data: element.data.clone(),
        origin: element.origin.clone(),
    })
}

/// Why a field has no value.
enum Missing {
    /// The packet has no such field: the rule does not apply, whatever it asks.
    Absent,
    /// The kernel chooses it, and will not say how.
    Chosen,
    /// The caller did not say what there is of the connection.
    Untold(&'static str),
}

impl Missing {
    fn answer(self) -> Answer {
        match self {
            Self::Absent => Answer::No,
            Self::Chosen => Answer::Unknown("payload of a translated source".to_owned()),
            Self::Untold(what) => Answer::Unknown(what.to_owned()),
        }
    }
}

/// The key that these fields of the packet make, with these results of `numgen`.
fn key(seen: &Seen<'_>, fields: &[Field], random: &[u32]) -> Result<Key, Missing> {
    let mut random = random.iter();
    fields
        .iter()
        .map(|field| match field {
            Field::NumgenRandom(_) => {
                let value = random.next().map(|value| Value::Number(*value));
                value.ok_or(Missing::Absent)
            }
            Field::Saddr | Field::Sport | Field::FibSaddrType if seen.masqueraded => {
                Err(Missing::Chosen)
            }
            Field::Sport if seen.snat => Err(Missing::Chosen),
            Field::CtOriginalDaddr | Field::CtOriginalDport if seen.context.original.is_none() => {
                Err(Missing::Untold("ct original"))
            }
            Field::Priority => {
                let untold = Missing::Untold("meta priority");
                seen.priority.map(Value::Number).ok_or(untold)
            }
            Field::CtMark if seen.context.ct_mark.is_none() => Err(Missing::Untold("ct mark")),
            field => value(&seen.context, *field).ok_or(Missing::Absent),
        })
        .collect()
}

/// Pings, and their answers.
fn icmp(packet: &Packet, family: Family, number: u32) -> Option<Value> {
    let ping = packet.protocol == Protocol::Icmp && packet.family() == family;
    ping.then_some(Value::Number(number))
}

fn value(context: &Context<'_>, field: Field) -> Option<Value> {
    let packet = &context.packet;
    let port = |port| packet.protocol.has_ports().then_some(Value::Port(port));
    let name = |name: Option<&str>| Some(Value::Ifname(name.unwrap_or_default().to_owned()));
    let tracked = context.ct_state & (ct_state::UNTRACKED | ct_state::INVALID) == 0;
    let ct = |number: u32| tracked.then_some(Value::Number(number));
    match field {
        Field::Saddr => Some(Value::Address(packet.source)),
        Field::Daddr => Some(Value::Address(packet.destination)),
        Field::L4Proto => Some(Value::Protocol(packet.protocol.number(packet.family()))),
        Field::Sport => port(packet.source_port),
        Field::Dport => port(packet.destination_port),
        Field::Iifname => name(context.iifname),
        Field::Oifname => name(context.oifname),
        Field::Mark => Some(Value::Number(context.mark)),
        Field::CtMark => ct(context.ct_mark?),
        Field::NumgenRandom(_) | Field::Priority => None,
        Field::IcmpType => icmp(packet, Family::Ipv4, [8, 0][usize::from(context.reply)]),
        Field::Icmpv6Type => icmp(packet, Family::Ipv6, [128, 129][usize::from(context.reply)]),
        Field::CtOriginalDaddr | Field::CtOriginalDport => {
            let original = context.original.filter(|_| tracked)?;
            match field {
                Field::CtOriginalDaddr => Some(Value::Address(original.destination)),
                _ => Some(Value::Port(original.destination_port)),
            }
        }
        Field::CtState => Some(Value::Number(context.ct_state)),
        Field::CtStatus => ct(context.ct_status),
        Field::CtDirection => ct(u32::from(context.reply)),
        Field::FibDaddrType => Some(Value::Number(
            (context.address_type)(packet.destination) as u32
        )),
        Field::FibSaddrType => Some(Value::Number((context.address_type)(packet.source) as u32)),
        Field::NfProto => Some(Value::Number(match packet.family() {
            Family::Ipv4 => 2,
            Family::Ipv6 => 10,
        })),
    }
}
