//! One way of a packet through chains, at one point of it, and what it has met so far.

use std::collections::BTreeMap;

use super::super::{Field, NewData, NewPriority, Rule, Statement, Table, Update, render};
use super::lookup::{self, Answer, Hit, Seen};
use super::{Branch, End, Trace};

/// The kernel's own limit of nested jumps (NFT_JUMP_STACK_SIZE).
const DEEPEST_JUMP: usize = 16;

/// One chain being run.
#[derive(Clone)]
pub(super) struct Frame<'a> {
    pub(super) table: &'a Table,
    pub(super) name: &'a str,
    pub(super) rules: &'a [Rule],
    pub(super) rule: usize,
    pub(super) statement: usize,
    /// How many steps there were when the chain that called it did so.
    pub(super) steps: usize,
    /// Whether its rules ended in a `return`.
    pub(super) returned: bool,
    /// The last element that a match in this rule found.
    pub(super) hit: Option<Hit>,
}

/// One way, at one point of it.
#[derive(Clone)]
pub(super) struct Way<'a> {
    pub(super) entry: usize,
    pub(super) frames: Vec<Frame<'a>>,
    pub(super) nat_done: bool,
    /// The packet's priority, once a rule of this hook has written it.
    pub(super) priority: Option<u32>,
    /// Sets that rules on this way have added to: by which fields, and what, if that is known.
    pub(super) updated: BTreeMap<String, Option<(Vec<Field>, Hit)>>,
    pub(super) branch: Branch,
}

impl<'a> Frame<'a> {
    pub(super) fn new(table: &'a Table, name: &'a str, rules: &'a [Rule], steps: usize) -> Self {
        Self {
            table,
            name,
            rules,
            rule: 0,
            statement: 0,
            steps,
            returned: false,
            hit: None,
        }
    }

    pub(super) fn next_rule(&mut self) {
        self.rule += 1;
        self.statement = 0;
        self.hit = None;
    }
}

impl<'a> Way<'a> {
    pub(super) fn ends(mut self, end: End) -> Branch {
        self.branch.end = end;
        self.branch
    }

    pub(super) fn found(&mut self, hit: Hit) {
        if let Some(frame) = self.frames.last_mut() {
            frame.hit = Some(hit);
        }
    }

    /// Notes an element that was found by the priority that another one in this rule maps to.
    pub(super) fn found_by_priority(&mut self, hit: Hit) {
        let Some(frame) = self.frames.last_mut() else {
            return;
        };
        frame.hit = Some(match frame.hit.take() {
            Some(first) => Hit {
                text: format!("{}, {}", first.text, hit.text),
                ..first
            },
            None => hit,
        });
    }

    /// Notes what a rule adds. What is there already stays as it is.
    pub(super) fn adds(&mut self, update: &Update, seen: &Seen<'_>) {
        if let Some(hit) = self.held(update, seen) {
            self.updated
                .insert(update.set.clone(), Some((update.key.clone(), hit)));
            return;
        }
        let known = match &update.data {
            NewData::Fixed(data) => Some(Hit {
                text: String::new(),
                data: data.clone(),
                origin: None,
            }),
            NewData::None | NewData::Fields(_) => None,
        };
        self.branch.missed.insert(update.set.clone());
        let added = known.map(|hit| (update.key.clone(), hit));
        self.updated.insert(update.set.clone(), added);
    }

    /// The element that was observed where a rule would add one.
    pub(super) fn held(&self, update: &Update, seen: &Seen<'_>) -> Option<Hit> {
        let table = self.frames.last()?.table;
        match lookup::look_up(table, seen, &update.key, &update.set).as_slice() {
            [(_, Answer::Yes(hit))] => hit.clone(),
            _ => None,
        }
    }

    /// Notes that a set has no element for the packet, if it could have had one.
    pub(super) fn misses(&mut self, set: Option<&str>) {
        let Some((name, frame)) = set.zip(self.frames.last()) else {
            return;
        };
        if frame
            .table
            .sets
            .get(name)
            .is_some_and(|set| set.dynamic.is_some())
        {
            self.branch.missed.insert(name.to_owned());
        }
    }

    /// Whether the statement that was begun does what an element says, and so more than match.
    pub(super) fn is_at_a_map(&self) -> bool {
        let statement = self.frames.last().and_then(|frame| {
            let rule = frame.rules.get(frame.rule)?;
            rule.statements.get(frame.statement.checked_sub(1)?)
        });
        matches!(
            statement,
            Some(
                Statement::Vmap { .. }
                    | Statement::DnatMap { .. }
                    | Statement::SnatMap { .. }
                    | Statement::SetPriority(NewPriority::Map { .. })
            )
        )
    }

    /// Notes the rule that the innermost chain is at.
    pub(super) fn trace(&mut self) {
        let Some(frame) = self.frames.last() else {
            return;
        };
        let Some(rule) = frame.rules.get(frame.rule) else {
            return;
        };
        let of_element = frame.hit.as_ref().and_then(|hit| hit.origin.clone());
        self.branch.steps.push(Trace {
            family: frame.table.family,
            table: frame.table.name.clone(),
            chain: frame.name.to_owned(),
            rule: render::rule(frame.table.family, rule),
            element: frame.hit.as_ref().map(|hit| hit.text.clone()),
            origins: rule.origin.clone().into_iter().chain(of_element).collect(),
        });
    }

    /// Runs another chain of the same table; with `goto`, in place of the current one.
    pub(super) fn call(&mut self, name: &str, goto: bool, steps: usize) -> Result<(), String> {
        let Some(frame) = self.frames.last_mut() else {
            return Ok(());
        };
        // The kernel comes back to the next rule, not to the rest of this one.
        frame.next_rule();
        let table = frame.table;
        let Some((name, chain)) = table.chains.get_key_value(name) else {
            return Err(format!("jump {name}: no such chain"));
        };
        let steps = if goto { frame.steps } else { steps };
        if goto {
            self.frames.pop();
        } else if self.frames.len() > DEEPEST_JUMP {
            return Err("jumps are nested too deeply".to_owned());
        }
        self.frames
            .push(Frame::new(table, name, &chain.rules, steps));
        Ok(())
    }
}
