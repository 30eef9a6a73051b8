//! The one form of each value that the kernel's answer is read back in.
//!
//! Several values mean the same to the kernel: `10.0.0.1` and `10.0.0.1/32`, `80` and `80-80`,
//! `{ 1, 2 }` and `{ 2, 1, 1 }`, an element in `{ 10.0.0.0/8, 10.1.0.0/16 }` that another covers.
//! [`canonical`] chooses one, so that comparing what is wanted with what is there needs no cases.
//!
//! Left alone: overlapping elements of *named* interval sets. The kernel refuses them, and which of
//! the two a planner meant is not for this file to say.

use std::borrow::Cow;

use super::{Operand, Rule, Set, Statement, Table, Value};

/// The table with every value in its canonical form; borrowed if it has that form already.
#[must_use]
pub fn canonical(table: &Table) -> Cow<'_, Table> {
    let sets = table
        .sets
        .values()
        .all(|set| set.elements.keys().flatten().all(Value::is_canonical));
    let rules = table
        .chains
        .values()
        .flat_map(|chain| &chain.rules)
        .all(rule_is_canonical);
    if sets && rules {
        return Cow::Borrowed(table);
    }
    let mut table = table.clone();
    if !sets {
        table.sets.values_mut().for_each(canonical_set);
    }
    if !rules {
        for rule in table.chains.values_mut().flat_map(|c| &mut c.rules) {
            rule.statements.iter_mut().for_each(canonical_statement);
        }
    }
    Cow::Owned(table)
}

impl Value {
    /// This value in its canonical form.
    #[must_use]
    pub fn canonical(self) -> Self {
        match self {
            Self::Prefix(net) if net.prefix_len() == net.max_prefix_len() => {
                Self::Address(net.addr())
            }
            Self::Prefix(net) => Self::Prefix(net.trunc()),
            Self::Ports(first, last) if first == last => Self::Port(first),
            other => other,
        }
    }

    fn is_canonical(&self) -> bool {
        match self {
            Self::Prefix(net) => {
                net.prefix_len() < net.max_prefix_len() && net.addr() == net.network()
            }
            Self::Ports(first, last) => first < last,
            _ => true,
        }
    }

    /// Whether every packet that `other` describes is described by this too.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Prefix(net), Self::Address(address)) => net.contains(address),
            (Self::Prefix(net), Self::Prefix(other)) => net.contains(other),
            (Self::Ports(first, last), Self::Port(port)) => first <= port && port <= last,
            (Self::Ports(first, last), Self::Ports(a, b)) => first <= a && b <= last,
            (Self::Ifname(pattern), Self::Ifname(name)) => match pattern.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => pattern == name,
            },
            (a, b) => a == b,
        }
    }
}

fn rule_is_canonical(rule: &Rule) -> bool {
    rule.statements.iter().all(|statement| match statement {
        Statement::Match {
            operand: Operand::Values(values),
            ..
        } => values.iter().all(Value::is_canonical),
        Statement::Match {
            operand: Operand::Anonymous(rows),
            ..
        } => anonymous(rows.clone()) == *rows,
        _ => true,
    })
}

fn canonical_set(set: &mut Set) {
    let elements = std::mem::take(&mut set.elements);
    set.elements = elements
        .into_iter()
        .map(|(key, element)| (key.into_iter().map(Value::canonical).collect(), element))
        .collect();
}

fn canonical_statement(statement: &mut Statement) {
    let Statement::Match { operand, .. } = statement else {
        return;
    };
    match operand {
        Operand::Values(values) => {
            for value in values {
                *value = value.clone().canonical();
            }
        }
        Operand::Anonymous(rows) => *rows = anonymous(std::mem::take(rows)),
        Operand::Set(_) | Operand::Bits(_) => {}
    }
}

/// Sorted, without rows that another row covers, ranges of ports that meet joined into one.
fn anonymous(rows: Vec<Vec<Value>>) -> Vec<Vec<Value>> {
    let mut rows: Vec<Vec<Value>> = rows
        .into_iter()
        .map(|row| row.into_iter().map(Value::canonical).collect())
        .collect();
    rows.sort();
    rows.dedup();
    if rows.iter().flatten().all(Value::is_exact) {
        return rows;
    }
    if rows.iter().all(|row| row.len() == 1) {
        join_ports(&mut rows);
    }
    let all = rows.clone();
    rows.retain(|row| !all.iter().any(|other| other != row && covers(other, row)));
    rows
}

impl Value {
    /// Whether it describes one value only, so that a set of such needs no intervals.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        match self {
            Self::Prefix(_) | Self::Ports(..) => false,
            Self::Ifname(name) => !name.ends_with('*'),
            _ => true,
        }
    }
}

fn covers(row: &[Value], other: &[Value]) -> bool {
    row.len() == other.len() && row.iter().zip(other).all(|(a, b)| a.covers(b))
}

fn join_ports(rows: &mut Vec<Vec<Value>>) {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    rows.retain(|row| match row.as_slice() {
        [Value::Port(port)] => {
            ranges.push((*port, *port));
            false
        }
        [Value::Ports(first, last)] => {
            ranges.push((*first, *last));
            false
        }
        _ => true,
    });
    ranges.sort_unstable();
    let mut joined: Vec<(u16, u16)> = Vec::new();
    for (first, last) in ranges {
        match joined.last_mut() {
            Some((_, end)) if first <= *end => *end = last.max(*end),
            _ => joined.push((first, last)),
        }
    }
    rows.extend(
        joined
            .into_iter()
            .map(|(first, last)| vec![Value::Ports(first, last).canonical()]),
    );
    rows.sort();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Value {
        Value::Prefix(text.parse().expect("a prefix"))
    }

    #[test]
    fn a_prefix_of_one_host_is_an_address() {
        assert_eq!(
            net("10.0.0.1/32").canonical(),
            Value::Address([10, 0, 0, 1].into())
        );
        assert_eq!(net("10.0.0.1/8").canonical(), net("10.0.0.0/8"));
        assert_eq!(Value::Ports(80, 80).canonical(), Value::Port(80));
    }

    #[test]
    fn anonymous_sets_are_sorted_and_without_overlaps() {
        let rows = vec![
            vec![net("10.1.0.0/16")],
            vec![net("10.0.0.0/8")],
            vec![net("10.0.0.0/8")],
        ];
        assert_eq!(anonymous(rows), vec![vec![net("10.0.0.0/8")]]);
        let ports = vec![
            vec![Value::Ports(5, 9)],
            vec![Value::Port(1)],
            vec![Value::Ports(7, 12)],
            vec![Value::Port(8)],
        ];
        assert_eq!(
            anonymous(ports),
            vec![vec![Value::Port(1)], vec![Value::Ports(5, 12)]]
        );
    }
}
