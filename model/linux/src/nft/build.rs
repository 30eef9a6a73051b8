//! Short ways to write tables down, so that a layer's rules read nearly as `nft` prints them.
//!
//! ```text
//!   Rule::new([Statement::is(Field::Oifname, Value::Ifname("eth0".into())), Statement::Verdict(Verdict::Accept)])
//!   oifname "eth0" accept
//! ```
//!
//! Nothing here checks anything: what a kernel refuses is found when it is executed.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use parfait_packet::Origin;

use super::{
    BaseChain, Chain, Data, DataType, Dynamic, Element, Family, Field, Key, Limit, Mark, NewMark,
    Operand, Rule, Set, Statement, Table, Tables, Value,
};

/// Adds what another layer wants of the same tables. Where both name a set or chain, the other's wins.
pub fn join(tables: &mut Tables, more: Tables) {
    for (key, table) in more {
        match tables.entry(key) {
            Entry::Vacant(entry) => drop(entry.insert(table)),
            Entry::Occupied(mut entry) => {
                let present = entry.get_mut();
                present.sets.extend(table.sets);
                present.chains.extend(table.chains);
                present.counters.extend(table.counters);
                present.limits.extend(table.limits);
            }
        }
    }
}

impl Table {
    /// A table without sets and chains.
    #[must_use]
    pub fn new(family: Family, name: &str) -> Self {
        Self {
            family,
            name: name.to_owned(),
            sets: BTreeMap::new(),
            chains: BTreeMap::new(),
            counters: BTreeSet::new(),
            limits: BTreeMap::new(),
        }
    }

    /// The same table with one more set.
    #[must_use]
    pub fn set(mut self, name: &str, set: Set) -> Self {
        self.sets.insert(name.to_owned(), set);
        self
    }

    /// The same table with one more chain.
    #[must_use]
    pub fn chain(mut self, name: &str, chain: Chain) -> Self {
        self.chains.insert(name.to_owned(), chain);
        self
    }

    /// The same table with one more counter.
    #[must_use]
    pub fn counter(mut self, name: &str) -> Self {
        self.counters.insert(name.to_owned());
        self
    }

    /// The same table with one more limit.
    #[must_use]
    pub fn limit(mut self, name: &str, limit: Limit) -> Self {
        self.limits.insert(name.to_owned(), limit);
        self
    }

    /// Its key in [`super::Tables`].
    #[must_use]
    pub fn key(&self) -> (Family, String) {
        (self.family, self.name.clone())
    }
}

impl Chain {
    /// A chain that only rules jump to.
    #[must_use]
    pub fn regular(rules: impl IntoIterator<Item = Rule>) -> Self {
        Self {
            hook: None,
            rules: rules.into_iter().collect(),
        }
    }

    /// A chain that the kernel calls.
    #[must_use]
    pub fn base(hook: BaseChain, rules: impl IntoIterator<Item = Rule>) -> Self {
        Self {
            hook: Some(hook),
            rules: rules.into_iter().collect(),
        }
    }
}

impl Rule {
    /// A rule without an origin.
    #[must_use]
    pub fn new(statements: impl IntoIterator<Item = Statement>) -> Self {
        Self {
            statements: statements.into_iter().collect(),
            origin: None,
        }
    }

    /// The same rule, saying what it exists for.
    #[must_use]
    pub fn origin(mut self, origin: Origin) -> Self {
        self.origin = Some(origin);
        self
    }
}

impl Statement {
    /// `FIELD VALUE`.
    #[must_use]
    pub fn is(field: Field, value: Value) -> Self {
        Self::Match {
            fields: vec![field],
            negated: false,
            operand: Operand::Values(vec![value]),
        }
    }

    /// `FIELD != VALUE`.
    #[must_use]
    pub fn is_not(field: Field, value: Value) -> Self {
        Self::Match {
            fields: vec![field],
            negated: true,
            operand: Operand::Values(vec![value]),
        }
    }

    /// `FIELDS @SET`.
    #[must_use]
    pub fn in_set(fields: impl IntoIterator<Item = Field>, set: &str) -> Self {
        Self::Match {
            fields: fields.into_iter().collect(),
            negated: false,
            operand: Operand::Set(set.to_owned()),
        }
    }

    /// `FIELDS != @SET`.
    #[must_use]
    pub fn not_in_set(fields: impl IntoIterator<Item = Field>, set: &str) -> Self {
        Self::Match {
            fields: fields.into_iter().collect(),
            negated: true,
            operand: Operand::Set(set.to_owned()),
        }
    }

    /// Any of the bits is set: `ct state new`, `ct status dnat`.
    #[must_use]
    pub fn any_bit(field: Field, bits: u32) -> Self {
        Self::Match {
            fields: vec![field],
            negated: false,
            operand: Operand::Bits(bits),
        }
    }

    /// None of the bits is set: `ct state ! established,related`.
    #[must_use]
    pub fn no_bit(field: Field, bits: u32) -> Self {
        Self::Match {
            fields: vec![field],
            negated: true,
            operand: Operand::Bits(bits),
        }
    }
}

impl NewMark {
    /// That mark as it is.
    #[must_use]
    pub const fn copy(mark: Mark) -> Self {
        Self::From {
            mark,
            and: u32::MAX,
            xor: 0,
        }
    }

    /// That mark with these bits set: `MARK | BITS`.
    #[must_use]
    pub const fn with_bits(mark: Mark, bits: u32) -> Self {
        Self::From {
            mark,
            and: !bits,
            xor: bits,
        }
    }
}

impl Set {
    /// An empty set (or map, by `data`) with exact keys.
    #[must_use]
    pub fn new(key: impl IntoIterator<Item = Field>, data: DataType) -> Self {
        Self {
            key: key.into_iter().collect(),
            data,
            interval: false,
            dynamic: None,
            elements: BTreeMap::new(),
        }
    }

    /// The same set with `flags interval`.
    #[must_use]
    pub fn interval(mut self) -> Self {
        self.interval = true;
        self
    }

    /// The same set with `flags dynamic`: rules add elements.
    #[must_use]
    pub const fn dynamic(mut self, dynamic: Dynamic) -> Self {
        self.dynamic = Some(dynamic);
        self
    }

    /// The same set with one more element.
    #[must_use]
    pub fn element(mut self, key: Key, element: Element) -> Self {
        self.elements.insert(key, element);
        self
    }
}

impl Element {
    /// An element without an origin.
    #[must_use]
    pub const fn new(data: Data) -> Self {
        Self { data, origin: None }
    }

    /// The same element, saying what it exists for.
    #[must_use]
    pub fn origin(mut self, origin: Origin) -> Self {
        self.origin = Some(origin);
        self
    }
}

impl Value {
    /// A prefix in its canonical form: a single host is an address.
    #[must_use]
    pub fn prefix(net: IpNet) -> Self {
        Self::Prefix(net).canonical()
    }
}
