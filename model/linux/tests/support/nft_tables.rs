//! Random tables that a kernel accepts, for property tests of the model and of the kernel edge.
//!
//! Every field, operand and statement occurs. What the kernel would refuse does not: ranges overlap
//! nowhere, `dnat` stands only where `nat` chains lead, jumps go only to chains further on, and
//! nat and other chains do not share what they jump to.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use parfait_linux::nft::{
    BaseChain, Chain, ChainType, Data, DataType, Dynamic, Element, Family, Field, Hook, Limit, Log,
    Mark, NewData, NewMark, NewPriority, Operand, Per, Policy, RateUnit, RejectWith, Rule, Set,
    Statement, Table, Tables, Update, Value, Verdict,
};
use parfait_packet::{Kind, Origin};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;

/// The one name of all tables made here.
pub const NAME: &str = "parfait";

/// Up to one table of each of the families `ip` and `ip6`.
pub fn tables() -> impl Strategy<Value = Tables> {
    let of = |family| proptest::option::weighted(0.8, table(family));
    (of(Family::Ip), of(Family::Ip6)).prop_map(|(v4, v6)| {
        let tables = v4.into_iter().chain(v6);
        tables.map(|table| (table.key(), table)).collect()
    })
}

/// One table.
pub fn table(family: Family) -> impl Strategy<Value = Table> {
    (
        btree_map("set_[a-d]", set(family), 0..4),
        btree_map("vmap_[a-c]", map(family, DataType::Verdict), 0..3),
        btree_map("targets_[ab]", map(family, DataType::Target), 0..2),
        btree_map("sources_[ab]", map(family, DataType::Address), 0..2),
        btree_map("priorities", map(family, DataType::Priority), 0..2),
        btree_map("choices", choices(family), 0..2),
        btree_map("dynamic_[a-c]", dynamic(), 0..3),
        btree_map("limit_[ab]", limit(), 0..3),
        btree_set("counter_[ab]", 0..3),
    )
        .prop_flat_map(
            move |(sets, vmaps, targets, sources, numbers, choices, dynamic, limits, counters)| {
                let mut all = sets;
                all.extend(vmaps);
                all.extend(targets);
                all.extend(sources);
                all.extend(numbers);
                all.extend(choices);
                all.extend(dynamic);
                let shared = Shared {
                    limits: limits.keys().cloned().collect(),
                    counters: counters.iter().cloned().collect(),
                };
                let chains = vec(chain(family, all.clone(), shared), 0..5);
                chains.prop_map(move |chains| Table {
                    limits: limits.clone(),
                    counters: counters.clone(),
                    ..assemble(family, all.clone(), chains)
                })
            },
        )
}

/// Names the chains: base chains, and the regular ones `last` and `nat` that everything may go to.
fn assemble(family: Family, sets: BTreeMap<String, Set>, chains: Vec<Chain>) -> Table {
    let mut table = Table::new(family, NAME);
    table.sets = sets;
    for (index, chain) in chains.into_iter().enumerate() {
        table.chains.insert(format!("base-{index}"), chain);
    }
    table.chain("last", Chain::regular([Rule::new([Statement::Counter])]))
}

fn chain(
    family: Family,
    sets: BTreeMap<String, Set>,
    shared: Shared,
) -> impl Strategy<Value = Chain> {
    (hook(), policy()).prop_flat_map(move |((kind, hook, priority), policy)| {
        let rule = rule(family, sets.clone(), &shared, kind, hook);
        vec(rule, 0..5).prop_map(move |rules| {
            // A nat chain with a drop policy would be refused by nobody, but is nonsense.
            Chain::base(
                BaseChain {
                    kind,
                    hook,
                    priority,
                    policy,
                },
                rules,
            )
        })
    })
}

fn policy() -> impl Strategy<Value = Policy> {
    select(vec![Policy::Accept, Policy::Drop])
}

fn hook() -> impl Strategy<Value = (ChainType, Hook, i32)> {
    let hooks = vec![
        (ChainType::Filter, Hook::Prerouting),
        (ChainType::Filter, Hook::Input),
        (ChainType::Filter, Hook::Forward),
        (ChainType::Filter, Hook::Output),
        (ChainType::Filter, Hook::Postrouting),
        (ChainType::Nat, Hook::Prerouting),
        (ChainType::Nat, Hook::Output),
        (ChainType::Nat, Hook::Postrouting),
        (ChainType::Route, Hook::Output),
    ];
    select(hooks).prop_flat_map(|(kind, hook)| {
        // The kernel takes nat chains only behind the tracking of connections.
        let least = if kind == ChainType::Nat { -180 } else { -320 };
        (Just(kind), Just(hook), least..180_i32)
    })
}

/// One rule for a chain of this type at this hook.
fn rule(
    family: Family,
    sets: BTreeMap<String, Set>,
    shared: &Shared,
    kind: ChainType,
    hook: Hook,
) -> impl Strategy<Value = Rule> + use<> {
    let matching = matching(family, sets.clone(), hook);
    let last = last(family, sets.clone(), kind, hook).prop_map(|last| vec![last]);
    let two = by_priority(&sets, hook).map(|two| (1, two));
    let last = [(3, last.boxed())].into_iter().chain(two).collect();
    let last = proptest::strategy::Union::new_weighted(last);
    let passing = vec(passing(family, &sets, shared, hook), 0..2);
    let mark = proptest::option::weighted(0.3, set_mark());
    (
        vec(matching, 0..4),
        any::<bool>(),
        mark,
        passing,
        last,
        origin(),
    )
        .prop_map(|(mut statements, counter, mark, passing, last, origin)| {
            statements.extend(mark);
            statements.extend(passing);
            if counter {
                statements.push(Statement::Counter);
            }
            statements.extend(last);
            Rule { statements, origin }
        })
}

/// The names of what rules share.
struct Shared {
    limits: Vec<String>,
    counters: Vec<String>,
}

/// A set or map that rules add to.
fn dynamic() -> impl Strategy<Value = Set> {
    let data = select(vec![
        DataType::None,
        DataType::Target,
        DataType::Address,
        DataType::Priority,
    ]);
    let timeout = proptest::option::of((1..1_000_000_u64).prop_map(Duration::from_secs));
    (
        vec(field(Hook::Forward), 1..3),
        data,
        timeout,
        1..70_000_u32,
    )
        .prop_map(|(key, data, timeout, size)| {
            Set::new(key, data).dynamic(Dynamic { size, timeout })
        })
}

fn limit() -> impl Strategy<Value = Limit> {
    let packets = (
        1..1000_u64,
        select(Per::ALL.to_vec()),
        1..100_u32,
        any::<bool>(),
    );
    (packets, any::<bool>()).prop_map(|((rate, per, burst, over), bytes)| Limit {
        rate: if bytes { rate * 512 } else { rate },
        unit: if bytes {
            RateUnit::Bytes
        } else {
            RateUnit::Packets
        },
        // The kernel counts in nanoseconds, and bytes in a week of them are too many for it.
        per: if bytes { Per::Minute } else { per },
        burst,
        over,
    })
}

/// Statements that the packet goes on from.
fn passing(
    family: Family,
    sets: &BTreeMap<String, Set>,
    shared: &Shared,
    hook: Hook,
) -> BoxedStrategy<Statement> {
    let prefix = proptest::option::of("[a-z]{1,9}: ");
    let log = (proptest::option::of(0..9_u16), prefix, 0..2_u32, 0..2_u16).prop_map(
        |(group, prefix, snaplen, threshold)| {
            let of_group = u16::from(group.is_some());
            Statement::Log(Log {
                group,
                prefix,
                snaplen: u32::from(of_group) * snaplen * 64,
                queue_threshold: of_group * threshold * 8,
            })
        },
    );
    let limit = limit().prop_map(Statement::Limit).boxed();
    let mut all = vec![limit, log.boxed(), Just(Statement::Notrack).boxed()];
    if !shared.limits.is_empty() {
        let limits = select(shared.limits.clone());
        all.push(limits.prop_map(Statement::NamedLimit).boxed());
    }
    if !shared.counters.is_empty() {
        let counters = select(shared.counters.clone());
        all.push(counters.prop_map(Statement::NamedCounter).boxed());
    }
    let dynamic: Vec<(String, Set)> = sets
        .iter()
        .filter(|(_, set)| set.dynamic.is_some() && works_at(&set.key, hook))
        .map(|(name, set)| (name.clone(), set.clone()))
        .collect();
    if !dynamic.is_empty() {
        let update = (select(dynamic), any::<bool>(), address(family), 1..9_u64);
        let update = update.prop_map(|((set, like), fixed, address, seconds)| {
            let data = match (&like.data, fixed) {
                (DataType::None | DataType::Verdict, _) => NewData::None,
                (DataType::Priority, _) => NewData::Fixed(Data::Priority(0x1_0002)),
                (DataType::Target, true) => NewData::Fixed(Data::Target(address, 80)),
                (DataType::Address, true) => NewData::Fixed(Data::Address(address)),
                (DataType::Target, false) => NewData::Fields(vec![Field::Daddr, Field::Dport]),
                (DataType::Address, false) => NewData::Fields(vec![Field::Saddr]),
            };
            let timed = like.dynamic.and_then(|dynamic| dynamic.timeout);
            Statement::Update(Update {
                set,
                key: like.key.clone(),
                timeout: timed.map(|_| Duration::from_secs(seconds)),
                data,
            })
        });
        all.push(update.boxed());
    }
    proptest::strategy::Union::new(all).boxed()
}

/// A priority that the packet gets, by a map or whatever it is, and what is done by it.
fn by_priority(sets: &BTreeMap<String, Set>, hook: Hook) -> Option<BoxedStrategy<Vec<Statement>>> {
    let choices = sets.contains_key("choices").then(|| Statement::Vmap {
        fields: vec![Field::Priority],
        map: "choices".to_owned(),
    })?;
    let number = PRIORITIES.prop_map(NewPriority::Number).boxed();
    let map = sets
        .get("priorities")
        .filter(|set| works_at(&set.key, hook));
    let map = map.map(|set| {
        let (fields, map) = (set.key.clone(), "priorities".to_owned());
        Just(NewPriority::Map { fields, map }).boxed()
    });
    let to = proptest::strategy::Union::new([number].into_iter().chain(map));
    let two = to.prop_map(move |to| vec![Statement::SetPriority(to), choices.clone()]);
    Some(two.boxed())
}

/// So few that most are found.
const PRIORITIES: std::ops::Range<u32> = 0..4;

/// What is done by the packet's priority.
fn choices(family: Family) -> impl Strategy<Value = Set> {
    let element = (data(family, DataType::Verdict), origin())
        .prop_map(|(data, origin)| Element { data, origin });
    let key = PRIORITIES.prop_map(|number| vec![Value::Number(number)]);
    btree_map(key, element, 0..4).prop_map(|elements| Set {
        elements,
        ..Set::new([Field::Priority], DataType::Verdict)
    })
}

fn set_mark() -> impl Strategy<Value = Statement> {
    let mark = || select(vec![Mark::Packet, Mark::Connection]);
    let bits = || select(vec![0, u32::MAX, 1, 0xf0, 0xffff_0000]);
    let from = (mark(), bits(), bits()).prop_map(|(mark, and, xor)| match and {
        // What keeps nothing is a number.
        0 => NewMark::Number(xor),
        and => NewMark::From { mark, and, xor },
    });
    let to = prop_oneof![any::<u32>().prop_map(NewMark::Number), from];
    (mark(), to).prop_map(|(mark, to)| Statement::SetMark(mark, to))
}

fn matching(family: Family, sets: BTreeMap<String, Set>, hook: Hook) -> BoxedStrategy<Statement> {
    let exact = (field(hook), any::<bool>()).prop_flat_map(move |(field, negated)| {
        values(family, field).prop_map(move |value| Statement::Match {
            fields: vec![field],
            negated,
            operand: Operand::Values(vec![value]),
        })
    });
    let bits = (
        select(vec![
            Field::CtState,
            Field::CtStatus,
            Field::Mark,
            Field::CtMark,
        ]),
        1..16_u32,
        any::<bool>(),
    )
        .prop_map(|(field, bits, negated)| Statement::Match {
            fields: vec![field],
            negated,
            operand: Operand::Bits(bits),
        });
    let anonymous =
        (vec(field(hook), 1..4), any::<bool>()).prop_flat_map(move |(fields, negated)| {
            rows(family, &fields).prop_map(move |rows| Statement::Match {
                fields: fields.clone(),
                negated,
                operand: Operand::Anonymous(rows),
            })
        });
    let named: Vec<(String, Vec<Field>)> = sets
        .into_iter()
        .filter(|(_, set)| set.data == DataType::None && works_at(&set.key, hook))
        .map(|(name, set)| (name, set.key))
        .collect();
    if named.is_empty() {
        return prop_oneof![4 => exact, 1 => bits, 2 => anonymous].boxed();
    }
    let named =
        (select(named), any::<bool>()).prop_map(|((name, fields), negated)| Statement::Match {
            fields,
            negated,
            operand: Operand::Set(name),
        });
    prop_oneof![4 => exact, 1 => bits, 2 => anonymous, 2 => named].boxed()
}

/// `fib saddr type` and the interfaces cannot be asked for everywhere.
fn works_at(key: &[Field], hook: Hook) -> bool {
    key.iter().all(|field| match field {
        Field::Iifname => !matches!(hook, Hook::Output | Hook::Postrouting),
        Field::Oifname => !matches!(hook, Hook::Prerouting | Hook::Input),
        _ => true,
    })
}

fn last(
    family: Family,
    sets: BTreeMap<String, Set>,
    kind: ChainType,
    hook: Hook,
) -> BoxedStrategy<Statement> {
    let verdicts = vec![
        Verdict::Accept,
        Verdict::Drop,
        Verdict::Continue,
        Verdict::Return,
        Verdict::Jump("last".to_owned()),
        Verdict::Goto("last".to_owned()),
    ];
    let mut all: Vec<BoxedStrategy<Statement>> =
        vec![select(verdicts).prop_map(Statement::Verdict).boxed()];
    let maps = |data: &DataType| -> Vec<(String, Vec<Field>)> {
        sets.iter()
            .filter(|(_, set)| set.data == *data && works_at(&set.key, hook))
            // Nobody knows a packet's priority before a rule has written it.
            .filter(|(_, set)| !set.key.contains(&Field::Priority))
            .map(|(name, set)| (name.clone(), set.key.clone()))
            .collect()
    };
    let vmaps = maps(&DataType::Verdict);
    if !vmaps.is_empty() {
        let vmap = |(map, fields)| Statement::Vmap { fields, map };
        all.push(select(vmaps).prop_map(vmap).boxed());
    }
    let dnat = kind == ChainType::Nat && matches!(hook, Hook::Prerouting | Hook::Output);
    if dnat {
        let to = (address(family), 1..u16::MAX);
        all.push(to.prop_map(|(to, port)| Statement::Dnat(to, port)).boxed());
        let to = address(family).prop_map(Statement::DnatAddress);
        all.push(prop_oneof![to, Just(Statement::Redirect(None))].boxed());
        let targets = maps(&DataType::Target);
        if !targets.is_empty() {
            let map = |(map, fields)| Statement::DnatMap { fields, map };
            all.push(select(targets).prop_map(map).boxed());
        }
    }
    if kind == ChainType::Nat && hook == Hook::Postrouting {
        let masquerade = |fully_random| Statement::Masquerade { fully_random };
        all.push(any::<bool>().prop_map(masquerade).boxed());
        let snat = |(address, fully_random)| Statement::Snat {
            address,
            fully_random,
        };
        all.push((address(family), any::<bool>()).prop_map(snat).boxed());
        let sources = maps(&DataType::Address);
        if !sources.is_empty() {
            let map = |((map, fields), fully_random)| Statement::SnatMap {
                fields,
                map,
                fully_random,
            };
            let snat = (select(sources), any::<bool>()).prop_map(map);
            all.push(snat.boxed());
        }
    }
    if kind == ChainType::Filter && matches!(hook, Hook::Input | Hook::Forward | Hook::Output) {
        let with = vec![RejectWith::PortUnreachable, RejectWith::AdminProhibited];
        all.push(select(with).prop_map(Statement::Reject).boxed());
    }
    proptest::strategy::Union::new(all).boxed()
}

fn field(hook: Hook) -> impl Strategy<Value = Field> {
    let fields: Vec<Field> = [
        Field::Saddr,
        Field::Daddr,
        Field::L4Proto,
        Field::Sport,
        Field::Dport,
        Field::Iifname,
        Field::Oifname,
        Field::Mark,
        Field::CtMark,
        Field::CtOriginalDaddr,
        Field::NumgenRandom(7),
        Field::CtState,
        Field::CtStatus,
        Field::FibDaddrType,
        Field::FibSaddrType,
        Field::CtDirection,
    ]
    .into_iter()
    .filter(|field| works_at(&[*field], hook))
    .collect();
    select(fields)
}

/// A set of exact keys, or of ranges that do not overlap.
fn set(family: Family) -> impl Strategy<Value = Set> {
    prop_oneof![
        map(family, DataType::None),
        intervals(family, vec![Field::Saddr]),
        intervals(family, vec![Field::Daddr, Field::Dport]),
        intervals(family, vec![Field::Dport]),
        intervals(
            family,
            vec![Field::Saddr, Field::L4Proto, Field::Dport, Field::Iifname]
        ),
    ]
}

fn intervals(family: Family, key: Vec<Field>) -> impl Strategy<Value = Set> {
    // Elements differ in the third byte of the first field at least, and so never overlap.
    let rest = (any::<bool>(), 0..200_u8, origin());
    btree_map(0..250_u8, rest, 0..6).prop_map(move |rows| {
        let mut set = Set::new(key.clone(), DataType::None).interval();
        for (distinct, (wide, other, origin)) in rows {
            let value = |field: &Field| match field {
                Field::Saddr | Field::Daddr => range_of_addresses(family, distinct, wide),
                Field::Dport => {
                    let first = u16::from(distinct) * 256 + u16::from(other);
                    Value::Ports(first, if wide { first + 9 } else { first }).canonical()
                }
                Field::L4Proto => Value::Protocol(other),
                _ => Value::Ifname(format!("eth{other}")),
            };
            let key = key.iter().map(value).collect();
            set.elements.insert(
                key,
                Element {
                    data: Data::None,
                    origin,
                },
            );
        }
        set
    })
}

fn range_of_addresses(family: Family, distinct: u8, wide: bool) -> Value {
    let (address, length, host): (IpAddr, u8, u8) = match family {
        Family::Ip6 => (
            Ipv6Addr::new(0xfd00, u16::from(distinct), 0, 0, 0, 0, 0, 0).into(),
            44,
            128,
        ),
        _ => (Ipv4Addr::new(10, 0, distinct, 0).into(), 25, 32),
    };
    let length = if wide { length } else { host };
    Value::prefix(ipnet::IpNet::new(address, length).expect("a valid length")).canonical()
}

fn map(family: Family, data: DataType) -> impl Strategy<Value = Set> {
    vec(field(Hook::Forward), 1..5).prop_flat_map(move |key| {
        let keys: Vec<_> = key.iter().map(|field| exact(family, *field)).collect();
        let element = (self::data(family, data.clone()), origin())
            .prop_map(|(data, origin)| Element { data, origin });
        let data = data.clone();
        btree_map(keys, element, 0..8).prop_map(move |elements| Set {
            elements,
            ..Set::new(key.clone(), data.clone())
        })
    })
}

fn data(family: Family, data: DataType) -> BoxedStrategy<Data> {
    match data {
        DataType::None => Just(Data::None).boxed(),
        DataType::Verdict => select(vec![
            Verdict::Accept,
            Verdict::Drop,
            Verdict::Return,
            Verdict::Continue,
            Verdict::Jump("last".to_owned()),
            Verdict::Goto("last".to_owned()),
        ])
        .prop_map(Data::Verdict)
        .boxed(),
        DataType::Target => (address(family), 1..u16::MAX)
            .prop_map(|(address, port)| Data::Target(address, port))
            .boxed(),
        DataType::Address => address(family).prop_map(Data::Address).boxed(),
        DataType::Priority => PRIORITIES.prop_map(Data::Priority).boxed(),
    }
}

/// What one field can be compared with, in canonical form.
fn values(family: Family, field: Field) -> BoxedStrategy<Value> {
    match field {
        Field::Saddr | Field::Daddr => {
            let bits: u8 = if family == Family::Ip6 { 128 } else { 32 };
            let prefix = (address(family), 0..=bits).prop_map(|(address, length)| {
                Value::prefix(ipnet::IpNet::new(address, length).expect("a valid length"))
            });
            prop_oneof![exact(family, field), prefix].boxed()
        }
        Field::Sport | Field::Dport => {
            let ports = (any::<u16>(), any::<u16>())
                .prop_map(|(a, b)| Value::Ports(a.min(b), a.max(b)).canonical());
            prop_oneof![exact(family, field), ports].boxed()
        }
        Field::Iifname | Field::Oifname => {
            let wild = "[a-z]{1,12}".prop_map(|name| Value::Ifname(format!("{name}*")));
            prop_oneof![exact(family, field), wild].boxed()
        }
        _ => exact(family, field),
    }
}

fn exact(family: Family, field: Field) -> BoxedStrategy<Value> {
    match field {
        Field::Saddr | Field::Daddr | Field::CtOriginalDaddr => {
            address(family).prop_map(Value::Address).boxed()
        }
        Field::IcmpType | Field::Icmpv6Type => (0..256_u32).prop_map(Value::Number).boxed(),
        Field::CtOriginalDport => any::<u16>().prop_map(Value::Port).boxed(),
        // nft 1.0.6 ends in an assertion over protocols that it knows and these fields do not.
        Field::L4Proto => select(vec![6, 17, 33, 132])
            .prop_map(Value::Protocol)
            .boxed(),
        Field::Sport | Field::Dport => any::<u16>().prop_map(Value::Port).boxed(),
        Field::Iifname | Field::Oifname => "[a-z]{1,14}[0-9]".prop_map(Value::Ifname).boxed(),
        Field::Mark | Field::CtMark | Field::Priority => {
            any::<u32>().prop_map(Value::Number).boxed()
        }
        Field::NumgenRandom(modulus) => (0..modulus).prop_map(Value::Number).boxed(),
        Field::CtState => select(vec![1, 2, 4, 8, 64]).prop_map(Value::Number).boxed(),
        Field::CtStatus => select(vec![4, 8, 16, 32]).prop_map(Value::Number).boxed(),
        Field::FibDaddrType | Field::FibSaddrType => (1..9_u32).prop_map(Value::Number).boxed(),
        Field::CtDirection => (0..2_u32).prop_map(Value::Number).boxed(),
        Field::NfProto => select(vec![2, 10]).prop_map(Value::Number).boxed(),
    }
}

fn rows(family: Family, fields: &[Field]) -> impl Strategy<Value = Vec<Vec<Value>>> + use<> {
    let row: Vec<_> = fields.iter().map(|field| exact(family, *field)).collect();
    proptest::collection::btree_set(row, 1..5).prop_map(|rows| rows.into_iter().collect())
}

/// An address of a small world, so that packets hit rules.
pub fn address(family: Family) -> BoxedStrategy<IpAddr> {
    match family {
        Family::Ip6 => (0..3_u16, 0..4_u16)
            .prop_map(|(net, host)| Ipv6Addr::new(0xfd00, net, 0, 0, 0, 0, 0, host).into())
            .boxed(),
        _ => (0..3_u8, 0..4_u8)
            .prop_map(|(net, host)| Ipv4Addr::new(10, net, 0, host).into())
            .boxed(),
    }
}

fn origin() -> impl Strategy<Value = Option<Origin>> {
    proptest::option::of(
        ("[a-z]{1,9}", "[a-z]{1,40}", "[a-z\\[\\].]{0,19}").prop_map(|(namespace, name, field)| {
            Origin::new(Kind::Service, &namespace, &name).field(&field)
        }),
    )
}
