//! What to do to a kernel that holds some tables so that it holds others: [`diff`] gives steps,
//! [`apply`] carries one out on the plain data.
//!
//! All steps of one [`diff`] may be **one** transaction, or those of [`super::phases()`], in their order, which is one that
//! nf_tables accepts: what refers to something goes before it and comes after it.
//!
//! ```text
//!   flush rules ─▶ delete elements ─▶ delete sets ─▶ delete chains ─▶ delete counters, limits
//!        ─▶ add counters, limits ─▶ add chains ─▶ add sets ─▶ add elements ─▶ add rules
//! ```
//!
//! So a changed element is a deletion and an addition, and a chain with a changed rule is flushed
//! and filled: within a transaction no packet sees the moment between.
//!
//! Comments count. An element or rule whose origin differs is written anew even though it does the
//! same, because what cannot name its object is worth little; they are compared as they are
//! written ([`comment`]), so a comment too long for the kernel does not differ for ever.
//!
//! Deliberately absent: the smallest edit of a chain's rules. Parfait's chains are a handful of
//! rules; what grows with a cluster is elements, and those are compared one by one.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use parfait_packet::Origin;

use super::{
    BaseChain, Chain, DataType, Dynamic, Element, Family, Field, Key, Limit, NewPriority, Operand,
    Policy, Rule, Set, Statement, Table, Tables, canonical,
};

/// The longest comment that the kernel keeps of an element: with a NUL behind it, two bytes before it and one before these,
/// 255 bytes, which is what fits `ext_len` of `struct nft_set_ext_tmpl`. It does not look: a longer one is cut, or refused.
const LONGEST_COMMENT: usize = 251;

/// What must be known of a set to write its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetType {
    /// The fields of its key.
    pub key: Vec<Field>,
    /// What its elements carry.
    pub data: DataType,
    /// `flags interval`.
    pub interval: bool,
    /// `flags dynamic`.
    pub dynamic: Option<Dynamic>,
}

impl SetType {
    /// The type of a set.
    #[must_use]
    pub fn of(set: &Set) -> Self {
        Self {
            key: set.key.clone(),
            data: set.data.clone(),
            interval: set.interval,
            dynamic: set.dynamic,
        }
    }

    fn is_of(&self, set: &Set) -> bool {
        (&self.key, &self.data) == (&set.key, &set.data)
            && (self.interval, self.dynamic) == (set.interval, set.dynamic)
    }

    fn empty(&self) -> Set {
        Set {
            key: self.key.clone(),
            data: self.data.clone(),
            interval: self.interval,
            dynamic: self.dynamic,
            elements: BTreeMap::new(),
        }
    }
}

/// One operation on the tables of a network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NftStep {
    /// The table's family.
    pub family: Family,
    /// The table's name.
    pub table: String,
    /// What is done in or to it.
    pub action: Action,
}

/// What an [`NftStep`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// `add table`.
    AddTable,
    /// `delete table`, with all it holds.
    DeleteTable,
    /// `flush chain`: delete all its rules.
    FlushChain(String),
    /// `delete rule … handle`: another program's. [`diff`] never says so, and [`apply`] does nothing, since plain
    /// data has no handles.
    DeleteRule(String, u64),
    /// `delete element`, by key.
    DeleteElements(String, SetType, Vec<Key>),
    /// `delete set` or `delete map`.
    DeleteSet(String),
    /// `delete chain`.
    DeleteChain(String),
    /// `delete counter`.
    DeleteCounter(String),
    /// `delete limit`.
    DeleteLimit(String),
    /// `add counter`.
    AddCounter(String),
    /// `add limit`.
    AddLimit(String, Limit),
    /// `add chain`.
    AddChain(String, Option<BaseChain>),
    /// Change a base chain's policy.
    SetPolicy(String, BaseChain),
    /// `add set` or `add map`, without elements.
    AddSet(String, SetType),
    /// `add element`.
    AddElements(String, SetType, Vec<(Key, Element)>),
    /// `add rule`, at the end of the chain, in this order.
    AddRules(String, Vec<Rule>),
}

/// What is written as the comment for this origin: its text, cut to what the kernel keeps.
#[must_use]
pub fn comment(origin: &Origin) -> String {
    let mut text = origin.to_string();
    if text.len() > LONGEST_COMMENT {
        let end = (0..=LONGEST_COMMENT)
            .rev()
            .find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
        // A space at the end, where a field would begin, is not read back.
        text.truncate(text.trim_end().len());
    }
    text
}

/// The steps from what is `observed` to what is `desired`. Tables of `observed` that `desired` has
/// not are deleted: pass only one's own.
#[must_use]
pub fn diff(observed: &Tables, desired: &Tables) -> Vec<NftStep> {
    let mut steps = Vec::new();
    for table in observed.values() {
        if !desired.contains_key(&(table.family, table.name.clone())) {
            steps.push(step(table, Action::DeleteTable));
        }
    }
    for (key, table) in desired {
        let table = canonical(table);
        let empty = Table::new(key.0, &key.1);
        let now = observed.get(key);
        let actions = table_actions(now.map(canonical).as_deref().unwrap_or(&empty), &table);
        if now.is_none() {
            steps.push(step(&table, Action::AddTable));
        }
        steps.extend(actions.into_iter().map(|action| step(&table, action)));
    }
    steps
}

/// Carries one step out on the plain data, as the kernel does. Steps on what is not there do nothing.
pub fn apply(tables: &mut Tables, step: &NftStep) {
    let key = (step.family, step.table.clone());
    match &step.action {
        Action::AddTable => {
            let table = Table::new(step.family, &step.table);
            tables.entry(key).or_insert(table);
        }
        Action::DeleteTable => drop(tables.remove(&key)),
        action => {
            if let Some(table) = tables.get_mut(&key) {
                apply_within(table, action);
            }
        }
    }
}

fn apply_within(table: &mut Table, action: &Action) {
    match action {
        Action::AddTable | Action::DeleteTable | Action::DeleteRule(..) => {}
        Action::FlushChain(name) => {
            if let Some(chain) = table.chains.get_mut(name) {
                chain.rules.clear();
            }
        }
        Action::DeleteElements(name, _, keys) => {
            if let Some(set) = table.sets.get_mut(name) {
                for key in keys {
                    set.elements.remove(key);
                }
            }
        }
        Action::DeleteSet(name) => drop(table.sets.remove(name)),
        Action::DeleteChain(name) => drop(table.chains.remove(name)),
        Action::DeleteCounter(name) => drop(table.counters.remove(name)),
        Action::DeleteLimit(name) => drop(table.limits.remove(name)),
        Action::AddCounter(name) => drop(table.counters.insert(name.clone())),
        Action::AddLimit(name, limit) => drop(table.limits.insert(name.clone(), limit.clone())),
        Action::AddChain(name, hook) => {
            let rules = Vec::new();
            let chain = Chain { hook: *hook, rules };
            table.chains.insert(name.clone(), chain);
        }
        Action::SetPolicy(name, hook) => {
            if let Some(chain) = table.chains.get_mut(name) {
                chain.hook = Some(*hook);
            }
        }
        Action::AddSet(name, kind) => drop(table.sets.insert(name.clone(), kind.empty())),
        Action::AddElements(name, _, elements) => {
            if let Some(set) = table.sets.get_mut(name) {
                set.elements.extend(elements.iter().cloned());
            }
        }
        Action::AddRules(name, rules) => {
            if let Some(chain) = table.chains.get_mut(name) {
                chain.rules.extend(rules.iter().cloned());
            }
        }
    }
}

fn step(table: &Table, action: Action) -> NftStep {
    NftStep {
        family: table.family,
        table: table.name.clone(),
        action,
    }
}

/// The steps within one table, in the order of the picture above.
fn table_actions(now: &Table, then: &Table) -> Vec<Action> {
    let mut actions = Vec::new();
    let replaced = replaced_sets(now, then);
    let renewed = renewed_limits(now, then);
    let rewritten: BTreeSet<&str> = now
        .chains
        .iter()
        .filter(|(name, chain)| must_rewrite(chain, then.chains.get(*name), &replaced, &renewed))
        .map(|(name, _)| name.as_str())
        .collect();
    let flushed = now
        .chains
        .iter()
        .filter(|(name, chain)| rewritten.contains(name.as_str()) && !chain.rules.is_empty());
    actions.extend(flushed.map(|(name, _)| Action::FlushChain(name.clone())));

    let elements = element_changes(now, then, &replaced);
    for (name, kind, deleted, _) in &elements {
        if !deleted.is_empty() {
            let keys = deleted.iter().map(|key| (*key).clone()).collect();
            actions.push(Action::DeleteElements(
                (*name).to_owned(),
                kind.clone(),
                keys,
            ));
        }
    }
    let gone = |name: &&String| !then.sets.contains_key(*name) || replaced.contains(name.as_str());
    let gone = now.sets.keys().filter(gone);
    actions.extend(gone.map(|name| Action::DeleteSet(name.clone())));
    chain_deletions(now, then, &mut actions);
    object_changes(now, then, &mut actions);
    chain_additions(now, then, &mut actions);

    for (name, kind, _, _) in &elements {
        if !now.sets.contains_key(*name) || replaced.contains(*name) {
            actions.push(Action::AddSet((*name).to_owned(), kind.clone()));
        }
    }
    for (name, kind, _, added) in elements {
        if !added.is_empty() {
            let pair = |(key, element): (&Key, &Element)| (key.clone(), element.clone());
            let added = added.into_iter().map(pair).collect();
            actions.push(Action::AddElements(name.to_owned(), kind, added));
        }
    }
    for (name, chain) in &then.chains {
        let fresh = !now.chains.contains_key(name) || rewritten.contains(name.as_str());
        if fresh && !chain.rules.is_empty() {
            actions.push(Action::AddRules(name.clone(), chain.rules.clone()));
        }
    }
    actions
}

/// Sets whose type differs: they cannot be changed, only deleted and made anew.
fn replaced_sets<'a>(now: &'a Table, then: &Table) -> BTreeSet<&'a str> {
    let differs = |(name, set): &(&String, &Set)| {
        then.sets
            .get(*name)
            .is_some_and(|other| !SetType::of(set).is_of(other))
    };
    let names = now.sets.iter().filter(differs);
    names.map(|(name, _)| name.as_str()).collect()
}

/// Limits that differ: the kernel does not change one that is there.
fn renewed_limits<'a>(now: &'a Table, then: &Table) -> BTreeSet<&'a str> {
    let differs = |(name, limit): &(&String, &Limit)| {
        let other = then.limits.get(*name);
        other.is_some_and(|other| other != *limit)
    };
    let limits = now.limits.iter().filter(differs);
    limits.map(|(name, _)| name.as_str()).collect()
}

/// Whether a chain's rules must go before anything else is done.
fn must_rewrite(
    now: &Chain,
    then: Option<&Chain>,
    replaced: &BTreeSet<&str>,
    renewed: &BTreeSet<&str>,
) -> bool {
    let Some(then) = then else { return true };
    !same_rules(&now.rules, &then.rules)
        || needs_new_chain(now.hook, then.hook)
        || now
            .rules
            .iter()
            .any(|rule| refers_to(rule, replaced, renewed))
}

fn same_rules(now: &[Rule], then: &[Rule]) -> bool {
    now.len() == then.len()
        && now.iter().zip(then).all(|(a, b)| {
            a.statements == b.statements && same_origin(a.origin.as_ref(), b.origin.as_ref())
        })
}

fn same_element(now: &Element, then: &Element) -> bool {
    now.data == then.data && same_origin(now.origin.as_ref(), then.origin.as_ref())
}

fn same_origin(now: Option<&Origin>, then: Option<&Origin>) -> bool {
    now == then
        || match (now, then) {
            (Some(now), Some(then)) => comment(now) == comment(then),
            _ => false,
        }
}

fn refers_to(rule: &Rule, sets: &BTreeSet<&str>, limits: &BTreeSet<&str>) -> bool {
    rule.statements.iter().any(|statement| match statement {
        Statement::Match {
            operand: Operand::Set(name),
            ..
        }
        | Statement::Vmap { map: name, .. }
        | Statement::DnatMap { map: name, .. }
        | Statement::SnatMap { map: name, .. }
        | Statement::SetPriority(NewPriority::Map { map: name, .. }) => {
            sets.contains(name.as_str())
        }
        Statement::Update(update) => sets.contains(update.set.as_str()),
        Statement::NamedLimit(name) => limits.contains(name.as_str()),
        _ => false,
    })
}

/// Whether a chain cannot be changed in place: only a policy can.
fn needs_new_chain(now: Option<BaseChain>, then: Option<BaseChain>) -> bool {
    let without_policy = |hook: BaseChain| BaseChain {
        policy: Policy::Accept,
        ..hook
    };
    now.map(without_policy) != then.map(without_policy)
}

fn chain_deletions(now: &Table, then: &Table, actions: &mut Vec<Action>) {
    for (name, chain) in &now.chains {
        match then.chains.get(name) {
            Some(other) if !needs_new_chain(chain.hook, other.hook) => {}
            _ => actions.push(Action::DeleteChain(name.clone())),
        }
    }
}

fn object_changes(now: &Table, then: &Table, actions: &mut Vec<Action>) {
    let gone = now.counters.difference(&then.counters);
    actions.extend(gone.map(|name| Action::DeleteCounter(name.clone())));
    let stays = |table: &Table, name: &String, limit: &Limit| table.limits.get(name) == Some(limit);
    let gone = now
        .limits
        .iter()
        .filter(|(name, limit)| !stays(then, name, limit));
    actions.extend(gone.map(|(name, _)| Action::DeleteLimit(name.clone())));
    let new = then.counters.difference(&now.counters);
    actions.extend(new.map(|name| Action::AddCounter(name.clone())));
    let new = then
        .limits
        .iter()
        .filter(|(name, limit)| !stays(now, name, limit));
    actions.extend(new.map(|(name, limit)| Action::AddLimit(name.clone(), limit.clone())));
}

fn chain_additions(now: &Table, then: &Table, actions: &mut Vec<Action>) {
    for (name, chain) in &then.chains {
        match (now.chains.get(name), chain.hook) {
            (Some(other), hook) if !needs_new_chain(other.hook, hook) => {
                if let (true, Some(hook)) = (other.hook != hook, hook) {
                    actions.push(Action::SetPolicy(name.clone(), hook));
                }
            }
            _ => actions.push(Action::AddChain(name.clone(), chain.hook)),
        }
    }
}

type ElementChange<'a> = (&'a str, SetType, Vec<&'a Key>, Vec<(&'a Key, &'a Element)>);

/// For every set that stays, comes or is replaced: keys to delete and elements to add.
fn element_changes<'a>(
    now: &'a Table,
    then: &'a Table,
    replaced: &BTreeSet<&str>,
) -> Vec<ElementChange<'a>> {
    static NONE: BTreeMap<Key, Element> = BTreeMap::new();
    let mut changes = Vec::new();
    for (name, set) in &then.sets {
        if set.dynamic.is_some() {
            // They come and go with packets.
            changes.push((name.as_str(), SetType::of(set), Vec::new(), Vec::new()));
            continue;
        }
        let before = match now.sets.get(name) {
            Some(before) if !replaced.contains(name.as_str()) => &before.elements,
            _ => &NONE,
        };
        let (deleted, added) = merge(before, &set.elements);
        changes.push((name.as_str(), SetType::of(set), deleted, added));
    }
    // Elements of a set that goes need not be deleted one by one.
    changes
}

/// Walks both ordered maps at once: linear in their sizes, whatever differs.
fn merge<'a>(
    now: &'a BTreeMap<Key, Element>,
    then: &'a BTreeMap<Key, Element>,
) -> (Vec<&'a Key>, Vec<(&'a Key, &'a Element)>) {
    let (mut deleted, mut added) = (Vec::new(), Vec::new());
    let (mut left, mut right) = (now.iter().peekable(), then.iter().peekable());
    loop {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return (deleted, added),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let old = if order.is_le() { left.next() } else { None };
        let new = if order.is_ge() { right.next() } else { None };
        if let (Some((_, before)), Some((_, after))) = (old, new)
            && same_element(before, after)
        {
            continue;
        }
        deleted.extend(old.map(|(key, _)| key));
        added.extend(new);
    }
}

impl fmt::Display for NftStep {
    /// As one would type it, with the number of elements or rules in place of them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = format_args!("{} {}", self.family, self.table);
        match &self.action {
            Action::AddTable => write!(f, "add table {table}"),
            Action::DeleteTable => write!(f, "delete table {table}"),
            Action::FlushChain(name) => write!(f, "flush chain {table} {name}"),
            Action::DeleteRule(name, handle) => {
                write!(f, "delete rule {table} {name} handle {handle}")
            }
            Action::DeleteElements(name, kind, keys) => match keys.as_slice() {
                [key] => {
                    let key = super::render::key(&kind.key, key);
                    write!(f, "delete element {table} {name} {{ {key} }}")
                }
                keys => write!(f, "delete {} elements {table} {name}", keys.len()),
            },
            Action::DeleteSet(name) => write!(f, "delete set {table} {name}"),
            Action::DeleteChain(name) => write!(f, "delete chain {table} {name}"),
            Action::DeleteCounter(name) => write!(f, "delete counter {table} {name}"),
            Action::DeleteLimit(name) => write!(f, "delete limit {table} {name}"),
            Action::AddCounter(name) => write!(f, "add counter {table} {name}"),
            Action::AddLimit(name, _) => write!(f, "add limit {table} {name}"),
            Action::AddChain(name, None) => write!(f, "add chain {table} {name}"),
            Action::AddChain(name, Some(hook)) | Action::SetPolicy(name, hook) => {
                write!(f, "add chain {table} {name} {{ {hook} }}")
            }
            Action::AddSet(name, _) => write!(f, "add set {table} {name}"),
            Action::AddElements(name, kind, elements) => match elements.as_slice() {
                [(key, element)] => {
                    let element = super::render::element(&kind.key, key, element);
                    write!(f, "add element {table} {name} {{ {element} }}")
                }
                elements => write!(f, "add {} elements {table} {name}", elements.len()),
            },
            Action::AddRules(name, rules) => match rules.as_slice() {
                [rule] => {
                    let rule = super::render::rule(self.family, rule);
                    write!(f, "add rule {table} {name} {rule}")
                }
                rules => write!(f, "add {} rules {table} {name}", rules.len()),
            },
        }
    }
}
