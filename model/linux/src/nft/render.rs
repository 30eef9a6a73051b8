//! Tables, sets, chains and rules as `nft --stateless list ruleset` prints them (nftables 1.0.6).
//!
//! Stateless: a counter is printed without its counts. Elements are printed in the order of their
//! keys, where `nft` prints those of a hash set in the kernel's order. As `nft` does, a match that
//! only makes the next one valid is folded into it: `meta l4proto tcp th dport 80` reads
//! `tcp dport 80`.
//!
//! A rule alone does not know its table's family, so [`rule`] takes it; its `Display` guesses from
//! the addresses in it and otherwise says `ip`.

use std::fmt::{self, Display, Write as _};

use super::extra::Time;
use super::{
    BaseChain, Chain, ChainType, Data, DataType, Element, Family, Field, Hook, Policy, Rule, Set,
    Table, Tables, Verdict,
};

mod statement;
mod value;

pub use statement::{limit, rule, statement};
pub use value::key;

/// A whole ruleset, as `nft list ruleset` prints it.
#[must_use]
pub fn ruleset(tables: &Tables) -> String {
    tables.values().fold(String::new(), |mut out, table| {
        let _ = writeln!(out, "{table}");
        out
    })
}

/// `set NAME { … }` or `map NAME { … }`, indented as within its table.
#[must_use]
pub fn set(family: Family, name: &str, set: &Set) -> String {
    let mut out = String::new();
    let _ = write_set(&mut out, family, name, set);
    out
}

/// `chain NAME { … }`, indented as within its table.
#[must_use]
pub fn chain(family: Family, name: &str, chain: &Chain) -> String {
    let mut out = String::new();
    let _ = write_chain(&mut out, family, name, chain);
    out
}

/// One element of a set with these fields: `10.96.0.1 . tcp . 443 comment "…" : goto n2`.
#[must_use]
pub fn element(fields: &[Field], values: &[super::Value], element: &Element) -> String {
    let mut out = key(fields, values);
    if let Some(origin) = &element.origin {
        let _ = write!(out, " comment \"{origin}\"");
    }
    match &element.data {
        Data::None => {}
        Data::Verdict(verdict) => {
            let _ = write!(out, " : {verdict}");
        }
        Data::Target(address, port) => {
            let _ = write!(out, " : {address} . {port}");
        }
        Data::Address(address) => {
            let _ = write!(out, " : {address}");
        }
        Data::Priority(number) => {
            let _ = write!(out, " : {}", value::priority(*number));
        }
    }
    out
}

impl Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
        })
    }
}

impl Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
        })
    }
}

impl Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accept => "accept",
            Self::Drop => "drop",
        })
    }
}

impl Display for ChainType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
            Self::Route => "route",
        })
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Continue => f.write_str("continue"),
            Self::Return => f.write_str("return"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

impl Display for BaseChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "type {} hook {} priority ", self.kind, self.hook)?;
        write_priority(f, self.hook, self.priority)?;
        write!(f, "; policy {};", self.policy)
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&rule(statement::guess_family(self), self))
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {} {{", self.family, self.name)?;
        let mut first = true;
        for name in &self.counters {
            if !std::mem::take(&mut first) {
                writeln!(f)?;
            }
            writeln!(f, "\tcounter {name} {{\n\t}}")?;
        }
        for (name, limit) in &self.limits {
            if !std::mem::take(&mut first) {
                writeln!(f)?;
            }
            writeln!(f, "\tlimit {name} {{\n\t\t{}\n\t}}", statement::rate(limit))?;
        }
        for (name, set) in &self.sets {
            if !std::mem::take(&mut first) {
                writeln!(f)?;
            }
            write_set(f, self.family, name, set)?;
        }
        for (name, chain) in &self.chains {
            if !std::mem::take(&mut first) {
                writeln!(f)?;
            }
            write_chain(f, self.family, name, chain)?;
        }
        f.write_str("}")
    }
}

fn write_set(out: &mut impl fmt::Write, family: Family, name: &str, set: &Set) -> fmt::Result {
    let family = statement::family_of_set(family, set);
    let what = if set.data == DataType::None {
        "set"
    } else {
        "map"
    };
    writeln!(out, "\t{what} {name} {{")?;
    write!(
        out,
        "\t\ttypeof {}",
        value::fields(&set.key, family, value::TH)
    )?;
    match set.data {
        DataType::None => writeln!(out)?,
        DataType::Verdict => writeln!(out, " : verdict")?,
        DataType::Target => {
            let target = value::fields(&[Field::Daddr, Field::Dport], family, value::TH);
            writeln!(out, " : {target}")?;
        }
        DataType::Address => {
            let address = value::field(Field::Saddr, family, value::TH);
            writeln!(out, " : {address}")?;
        }
        DataType::Priority => {
            let priority = value::field(Field::Priority, family, value::TH);
            writeln!(out, " : {priority}")?;
        }
    }
    if let Some(dynamic) = set.dynamic {
        writeln!(out, "\t\tsize {}", dynamic.size)?;
    }
    let flags = [
        (set.interval, "interval"),
        (set.dynamic.is_some(), "dynamic"),
        (
            set.dynamic.is_some_and(|dynamic| dynamic.timeout.is_some()),
            "timeout",
        ),
    ];
    let flags: Vec<&str> = flags
        .iter()
        .filter(|(on, _)| *on)
        .map(|(_, name)| *name)
        .collect();
    if !flags.is_empty() {
        writeln!(out, "\t\tflags {}", flags.join(","))?;
    }
    if let Some(timeout) = set.dynamic.and_then(|dynamic| dynamic.timeout) {
        writeln!(out, "\t\ttimeout {}", Time(timeout))?;
    }
    let per_line = elements_per_line(&set.key, family);
    let mut elements: Vec<_> = set.elements.iter().collect();
    if set.interval {
        elements.sort_by_cached_key(|(key, _)| value::start(key));
    }
    for (index, (key, element)) in elements.into_iter().enumerate() {
        out.write_str(match index {
            0 => "\t\telements = { ",
            i if i % per_line == 0 => ",\n\t\t\t     ",
            _ => ", ",
        })?;
        out.write_str(&self::element(&set.key, key, element))?;
    }
    if !set.elements.is_empty() {
        writeln!(out, " }}")?;
    }
    writeln!(out, "\t}}")
}

/// `calculate_delim` in nftables' expression.c.
fn elements_per_line(key: &[Field], family: Family) -> usize {
    match key {
        [Field::Saddr | Field::Daddr | Field::CtOriginalDaddr] if family == Family::Ip6 => 1,
        [
            Field::Saddr
            | Field::Daddr
            | Field::CtOriginalDaddr
            | Field::CtState
            | Field::CtStatus
            | Field::CtDirection,
        ] => 2,
        [
            Field::L4Proto
            | Field::Sport
            | Field::Dport
            | Field::CtOriginalDport
            | Field::Mark
            | Field::CtMark
            | Field::Priority
            | Field::NumgenRandom(_)
            | Field::NfProto,
        ] => 5,
        _ => 1,
    }
}

fn write_chain(
    out: &mut impl fmt::Write,
    family: Family,
    name: &str,
    chain: &Chain,
) -> fmt::Result {
    writeln!(out, "\tchain {name} {{")?;
    if let Some(hook) = &chain.hook {
        writeln!(out, "\t\t{hook}")?;
    }
    for each in &chain.rules {
        writeln!(out, "\t\t{}", rule(family, each))?;
    }
    writeln!(out, "\t}}")
}

/// `prio2str` in nftables' rule.c: a name if one is within 10.
fn write_priority(out: &mut impl fmt::Write, hook: Hook, priority: i32) -> fmt::Result {
    let names = [
        (-300, "raw", true),
        (-150, "mangle", true),
        (-100, "dstnat", hook == Hook::Prerouting),
        (0, "filter", true),
        (50, "security", true),
        (100, "srcnat", hook == Hook::Postrouting),
    ];
    let near = names
        .iter()
        .find(|(standard, _, valid)| *valid && (priority - standard).abs() <= 10);
    match near.map(|(standard, name, _)| (priority - standard, name)) {
        Some((0, name)) => out.write_str(name),
        Some((more, name)) if more > 0 => write!(out, "{name} + {more}"),
        Some((less, name)) => write!(out, "{name} - {}", -less),
        None => write!(out, "{priority}"),
    }
}
