//! The kernel's tables as values.
//!
//! One dump each of tables, chains, rules and sets, and one of each set's elements. The kernel
//! numbers its rulesets: if that number changed while reading, everything is read again, so what is
//! returned was all there at one moment.

use std::collections::BTreeMap;
use std::time::Duration;

use parfait_linux::nft::{
    BaseChain, Chain, ChainType, Data, Element, Family, Hook, Key, Policy, Rule, Set, Table,
    Tables, Value,
};
use parfait_packet::Origin;
use rustix::io::Errno;

use super::attr::{attributes, find};
use super::element;
use super::execute::family_number;
use super::number::{
    GEN_ID, chain, elem, family as nfproto, msg, object, rule, set as nset, table,
};
use super::raise::{self, Known};
use super::set::{self, Count, Definition, Layout, read_comment};
use super::socket::{DUMP, Message};
use super::{Error, NftSocket};

/// How often a reading that was overtaken by a change is done again.
const TRIES: usize = 10;

/// How often, and how far apart, a set that is being resized is read.
const RESIZE_TRIES: usize = 60;
const RESIZE_WAIT: Duration = Duration::from_millis(10);

/// The tables that were there at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The tables.
    pub tables: Tables,
    /// The number of that moment's ruleset, for [`NftSocket::execute_at`].
    pub generation: u32,
}

/// What a packet has added to a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// What it is looked up by.
    pub key: Key,
    /// What it maps to.
    pub data: Data,
    /// For how long yet.
    pub expires: Duration,
}

/// Reads the tables that `wanted` picks, by family and name.
pub fn observe(
    socket: &mut NftSocket,
    wanted: &dyn Fn(Family, &str) -> bool,
) -> Result<Observed, Error> {
    at_one_moment(socket, |socket| read_tables(socket, wanted, None))
}

/// Reads one set of the tables of this name, and nothing else of them.
pub fn observe_set(socket: &mut NftSocket, table: &str, set: &str) -> Result<Observed, Error> {
    at_one_moment(socket, |socket| {
        read_tables(socket, &|_, name| name == table, Some(set))
    })
}

fn at_one_moment(
    socket: &mut NftSocket,
    read: impl Fn(&mut NftSocket) -> Result<Tables, Error>,
) -> Result<Observed, Error> {
    let mut generation = current_generation(socket)?;
    for _ in 0..TRIES {
        let tables = read(socket);
        let now = current_generation(socket)?;
        if now == generation {
            let tables = tables?;
            return Ok(Observed { tables, generation });
        }
        generation = now;
    }
    Err(Error::Changed)
}

/// The number of the ruleset that is in force.
pub fn current_generation(socket: &mut NftSocket) -> Result<u32, Error> {
    let read = |message: &Message<'_>| find(message.attributes, GEN_ID).map(|id| id.u32());
    let operation = "reading the ruleset's generation";
    let ids = socket.request(msg::GETGEN, 0, nfproto::UNSPEC, operation, |_| {}, read)?;
    Ok(ids.first().copied().unwrap_or(0))
}

fn read_tables(
    socket: &mut NftSocket,
    wanted: &dyn Fn(Family, &str) -> bool,
    only: Option<&str>,
) -> Result<Tables, Error> {
    let names = socket.request(
        msg::GETTABLE,
        DUMP,
        nfproto::UNSPEC,
        "listing tables",
        |_| {},
        |message| {
            let name = find(message.attributes, table::NAME)?.str();
            Some((family_of(message.family)?, name))
        },
    )?;
    let mut tables = Tables::new();
    for (family, name) in names {
        if wanted(family, &name) {
            let table = read_table(socket, family, &name, only)?;
            tables.insert((family, name), table);
        }
    }
    Ok(tables)
}

fn read_table(
    socket: &mut NftSocket,
    family: Family,
    name: &str,
    only: Option<&str>,
) -> Result<Table, Error> {
    let mut table = Table::new(family, name);
    let mut known = Known {
        named: BTreeMap::new(),
        anonymous: BTreeMap::new(),
    };
    let definitions = read_definitions(socket, family, name)?;
    let wanted = |set: &Definition| only.is_none_or(|name| set.name == name);
    for definition in definitions.into_iter().filter(wanted) {
        let Definition {
            name: set_name,
            anonymous,
            layout,
            count,
        } = definition;
        let Some(layout) = layout else { continue };
        let Some(elements) = read_whole(socket, family, name, &set_name, &layout, count)? else {
            continue;
        };
        if anonymous {
            let rows: Vec<Vec<Value>> = elements.into_keys().collect();
            known.anonymous.insert(set_name, (layout, rows));
        } else {
            let kind = layout.kind();
            let set = Set {
                key: kind.key,
                data: kind.data,
                interval: kind.interval,
                dynamic: kind.dynamic,
                elements,
            };
            known.named.insert(set_name.clone(), layout);
            table.sets.insert(set_name, set);
        }
    }
    if only.is_some() {
        return Ok(table);
    }
    read_objects(socket, &mut table)?;
    table.chains = read_chains(socket, family, name)?;
    for (chain, rule) in read_rules(socket, family, name, &known)? {
        if let Some(chain) = table.chains.get_mut(&chain) {
            chain.rules.push(rule);
        }
    }
    Ok(table)
}

fn read_definitions(
    socket: &mut NftSocket,
    family: Family,
    table: &str,
) -> Result<Vec<Definition>, Error> {
    socket.request(
        msg::GETSET,
        DUMP,
        family_number(family),
        "listing sets",
        |writer| writer.put_str(nset::TABLE, table),
        |message| {
            let ours = find(message.attributes, nset::TABLE)?.str() == table;
            set::read(message.attributes).filter(|_| ours)
        },
    )
}

/// Reads what packets have added to a map of single values, and for how long each element stays yet. Nothing if there is
/// no such table or map.
pub fn observe_remembered(
    socket: &mut NftSocket,
    family: Family,
    table: &str,
    map: &str,
) -> Result<Vec<Remembered>, Error> {
    let definitions = match read_definitions(socket, family, table) {
        Err(error) if error.errno() == Some(Errno::NOENT) => return Ok(Vec::new()),
        definitions => definitions?,
    };
    let found = definitions.into_iter().find(|found| found.name == map);
    let Some(layout) = found.and_then(|found| found.layout) else {
        return Ok(Vec::new());
    };
    let raw = read_raw(socket, family, table, map, &layout)?.unwrap_or_default();
    Ok(raw
        .iter()
        .filter_map(|raw| raw.remembered(&layout))
        .collect())
}

/// Named counters and limits.
fn read_objects(socket: &mut NftSocket, table: &mut Table) -> Result<(), Error> {
    let name = table.name.clone();
    let found = socket.request(
        msg::GETOBJ,
        DUMP,
        family_number(table.family),
        "listing objects",
        |writer| writer.put_str(object::TABLE, &name),
        |message| {
            let ours = find(message.attributes, object::TABLE)?.str() == name;
            let kind = find(message.attributes, object::TYPE)
                .filter(|_| ours)?
                .u32();
            let data = find(message.attributes, object::DATA)?.value.to_vec();
            Some((kind, find(message.attributes, object::NAME)?.str(), data))
        },
    )?;
    for (kind, name, data) in found {
        match kind {
            object::COUNTER => drop(table.counters.insert(name)),
            object::LIMIT => {
                if let Some(limit) = raise::read_limit(&data) {
                    table.limits.insert(name, limit);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// A set's elements, all of them.
///
/// The kernel lists a hash set bucket by bucket, and does not say if it resized the table meanwhile
/// (which it does for a while after many were added): then elements are missing from the list. So
/// they are counted, and read again until their number is right; where the kernel tells no number,
/// until two readings agree.
fn read_whole(
    socket: &mut NftSocket,
    family: Family,
    table: &str,
    set: &str,
    layout: &Layout,
    count: Count,
) -> Result<Option<BTreeMap<Key, Element>>, Error> {
    let mut before = None;
    for _ in 0..RESIZE_TRIES {
        let Some(elements) = read_elements(socket, family, table, set, layout)? else {
            return Ok(None);
        };
        let enough = match count {
            Count::Varies => true,
            Count::Exactly(count) => elements.len() == count,
            Count::Untold => elements.is_empty() || before == Some(elements.len()),
        };
        if enough {
            return Ok(Some(elements));
        }
        before = Some(elements.len());
        std::thread::sleep(RESIZE_WAIT);
    }
    Err(Error::Changed)
}

/// A set's elements; `None` if some of them are of a kind that is not modelled.
fn read_elements(
    socket: &mut NftSocket,
    family: Family,
    table: &str,
    set: &str,
    layout: &Layout,
) -> Result<Option<BTreeMap<Key, Element>>, Error> {
    let raw = read_raw(socket, family, table, set, layout)?;
    Ok(raw.and_then(|raw| element::collect(layout, raw)))
}

/// A set's elements as they are sent; `None` as above.
fn read_raw(
    socket: &mut NftSocket,
    family: Family,
    table: &str,
    set: &str,
    layout: &Layout,
) -> Result<Option<Vec<element::Raw>>, Error> {
    let mut origins = element::Origins::default();
    let messages = socket.request(
        msg::GETSETELEM,
        DUMP,
        family_number(family),
        "listing elements",
        |writer| {
            writer.put_str(elem::LIST_TABLE, table);
            writer.put_str(elem::LIST_SET, set);
        },
        |message| {
            let list = find(message.attributes, elem::LIST_ELEMENTS)?;
            let read = |each| element::read(layout, &mut origins, &each);
            Some(list.nested().map(read).collect::<Option<Vec<_>>>())
        },
    )?;
    let raw: Option<Vec<Vec<_>>> = messages.into_iter().collect();
    Ok(raw.map(|raw| raw.into_iter().flatten().collect()))
}

fn read_chains(
    socket: &mut NftSocket,
    family: Family,
    table: &str,
) -> Result<BTreeMap<String, Chain>, Error> {
    let chains = socket.request(
        msg::GETCHAIN,
        DUMP,
        family_number(family),
        "listing chains",
        |_| {},
        |message| {
            let ours = find(message.attributes, chain::TABLE)?.str() == table;
            read_chain(message.attributes).filter(|_| ours)
        },
    )?;
    Ok(chains.into_iter().collect())
}

/// A chain without its rules.
pub fn read_chain(bytes: &[u8]) -> Option<(String, Chain)> {
    let name = find(bytes, chain::NAME)?.str();
    let hook = find(bytes, chain::HOOK).and_then(|hook| {
        let priority = find(hook.value, chain::HOOK_PRIORITY)?.value;
        Some(BaseChain {
            kind: match find(bytes, chain::TYPE)?.str().as_str() {
                "nat" => ChainType::Nat,
                "route" => ChainType::Route,
                _ => ChainType::Filter,
            },
            hook: match find(hook.value, chain::HOOK_HOOKNUM)?.u32() {
                0 => Hook::Prerouting,
                1 => Hook::Input,
                2 => Hook::Forward,
                3 => Hook::Output,
                4 => Hook::Postrouting,
                // The ingress of one device, which no packet of this model passes by.
                _ => return None,
            },
            priority: i32::from_be_bytes(priority.try_into().ok()?),
            policy: match find(bytes, chain::POLICY)?.u32() {
                0 => Policy::Drop,
                _ => Policy::Accept,
            },
        })
    });
    let rules = Vec::new();
    Some((name, Chain { hook, rules }))
}

/// The table's rules with their chains' names, in order.
fn read_rules(
    socket: &mut NftSocket,
    family: Family,
    table: &str,
    known: &Known,
) -> Result<Vec<(String, Rule)>, Error> {
    socket.request(
        msg::GETRULE,
        DUMP,
        family_number(family),
        "listing rules",
        |writer| writer.put_str(rule::TABLE, table),
        |message| {
            let mut read = Rule::new([]);
            let mut chain = None;
            for attribute in attributes(message.attributes) {
                match attribute.kind {
                    rule::TABLE if attribute.str() != table => return None,
                    rule::CHAIN => chain = Some(attribute.str()),
                    rule::EXPRESSIONS => read.statements = raise::read(family, known, &attribute),
                    rule::USERDATA => {
                        read.origin = read_comment(attribute.value).and_then(Origin::parse);
                    }
                    _ => {}
                }
            }
            Some((chain?, read))
        },
    )
}

/// The families that are modelled.
pub fn family_of(number: u8) -> Option<Family> {
    match number {
        nfproto::IPV4 => Some(Family::Ip),
        nfproto::IPV6 => Some(Family::Ip6),
        nfproto::INET => Some(Family::Inet),
        _ => None,
    }
}
