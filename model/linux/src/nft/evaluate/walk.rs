//! The packet's way through the chains of a hook, with nf_tables' call stack.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use super::super::{
    BaseChain, ChainType, Data, Family, Field, Hook, NewPriority, Operand, Policy, Rule, Statement,
    Table, Tables, Verdict,
};
use super::lookup::{self, Answer, Answers, Hit, Seen};
use super::translate::tracks;
use super::way::{Frame, Way};
use super::weigh::{merge, multiply, same};
use super::{Branch, Context, End, Trace, ct_state};

/// More ways than a Service has endpoints on one node, or rules than a kernel would run: something loops.
const MOST_WAYS: u32 = 10_000;
const MOST_RULES: u32 = 100_000;
/// Priorities at which the kernel runs all nat chains of a hook (NF_IP_PRI_NAT_DST, _SRC).
const NAT_DST: i32 = -100;
const NAT_SRC: i32 = 100;
/// Statements that neither decide nor change anything, by the kernel's name of the expression.
const HARMLESS: [&str; 4] = ["log", "last", "objref", "meta nftrace set"];
/// Expressions that can only match or not match: what comes after tells whether that matters.
const ONLY_MATCHES: [&str; 22] = [
    "bitwise",
    "byteorder",
    "cmp",
    "connlimit",
    "ct",
    "dynset",
    "exthdr",
    "fib",
    "hash",
    "inner",
    "limit",
    "lookup",
    "match",
    "meta",
    "numgen",
    "osf",
    "payload",
    "quota",
    "range",
    "rt",
    "socket",
    "xfrm",
];

/// All base chains of one hook and the packet that goes through them.
pub struct Walk<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) hook: Hook,
    pub(super) chains: Vec<Entry<'a>>,
    ways: Cell<u32>,
    rules: Cell<u32>,
}

/// A base chain of the hook.
#[derive(Clone)]
pub struct Entry<'a> {
    pub(super) table: &'a Table,
    pub(super) name: &'a str,
    pub(super) base: BaseChain,
    pub(super) rules: &'a [Rule],
}

impl<'a> Walk<'a> {
    /// The chains that this packet meets at this hook.
    pub fn new(tables: &'a Tables, hook: Hook, context: &'a Context<'a>) -> Self {
        let sees = |family| match family {
            Family::Ip => context.packet.family() == parfait_packet::Family::Ipv4,
            Family::Ip6 => context.packet.family() == parfait_packet::Family::Ipv6,
            Family::Inet => true,
        };
        let first = context.ct_state & (ct_state::NEW | ct_state::RELATED) != 0;
        let nat = first && (tables.values()).any(|table| sees(table.family) && tracks(table));
        let mut chains: Vec<Entry<'a>> = tables
            .values()
            .filter(|table| sees(table.family))
            .flat_map(|table| {
                table
                    .chains
                    .iter()
                    .map(move |(name, chain)| (table, name, chain))
            })
            .filter_map(|(table, name, chain)| {
                let base = chain.hook.filter(|base| base.hook == hook)?;
                let rules = chain.rules.as_slice();
                Some(Entry {
                    table,
                    name,
                    base,
                    rules,
                })
            })
            .filter(|entry| entry.base.kind != ChainType::Nat || nat)
            .collect();
        chains.sort_by_key(|entry| order(entry.base));
        Self {
            context,
            hook,
            chains,
            ways: Cell::new(0),
            rules: Cell::new(0),
        }
    }

    /// Every way from the first chain on.
    pub fn run(&self) -> Vec<Branch> {
        self.ways.set(0);
        self.rules.set(0);
        let mut way = Way {
            entry: 0,
            frames: Vec::new(),
            nat_done: self.context.nat_is_set_up,
            priority: None,
            updated: BTreeMap::new(),
            branch: self.start(),
        };
        self.enter(&mut way);
        merge(self.walk(way))
    }

    /// The packet as it comes.
    pub(super) fn start(&self) -> Branch {
        Branch {
            weight: (1, 1),
            packet: self.context.packet,
            ct_status: self.context.ct_status,
            mark: self.context.mark,
            ct_mark: self.context.ct_mark,
            untracked: self.context.ct_state == ct_state::UNTRACKED,
            masquerade: false,
            snat: false,
            missed: BTreeSet::new(),
            end: End::Accepted,
            steps: Vec::new(),
        }
    }

    fn walk(&self, mut way: Way<'a>) -> Vec<Branch> {
        loop {
            let Some(frame) = way.frames.last_mut() else {
                return vec![way.branch];
            };
            let Some(rule) = frame.rules.get(frame.rule) else {
                if let Some(end) = self.leave(&mut way) {
                    return vec![end];
                }
                continue;
            };
            let Some(statement) = rule.statements.get(frame.statement) else {
                frame.next_rule();
                continue;
            };
            self.rules.set(self.rules.get() + 1);
            if self.rules.get() > MOST_RULES {
                return vec![way.ends(End::Unknown("a loop of chains".to_owned()))];
            }
            frame.statement += 1;
            match self.statement(&mut way, statement) {
                Next::On => {}
                Next::Done(end) => return vec![way.ends(end)],
                Next::Split(answers) => return self.split(&way, statement, answers),
                Next::Unmodelled(expression) => return self.both(&way, expression),
            }
        }
    }

    /// The packet as a rule on this way sees it.
    fn seen(&self, way: &Way<'a>) -> Seen<'a> {
        Seen {
            context: Context {
                packet: way.branch.packet,
                ct_state: self.ct_state(way),
                ct_status: way.branch.ct_status,
                mark: way.branch.mark,
                ct_mark: way.branch.ct_mark,
                ..*self.context
            },
            priority: way.priority,
            masqueraded: way.branch.masquerade,
            snat: way.branch.snat,
        }
    }

    /// Runs one statement of the rule that the innermost chain is at.
    fn statement(&self, way: &mut Way<'a>, statement: &'a Statement) -> Next {
        let seen = self.seen(way);
        let Some(frame) = way.frames.last() else {
            return Next::On;
        };
        if let Some(added) = looked_up(statement).and_then(|set| way.updated.get(set)) {
            let added = added.clone();
            return self.look_up_what_was_added(way, statement, added);
        }
        let answers = match statement {
            Statement::Match {
                fields,
                negated,
                operand,
            } => lookup::matches(frame.table, &seen, fields, *negated, operand),
            Statement::Vmap { fields, map }
            | Statement::DnatMap { fields, map }
            | Statement::SnatMap { fields, map, .. }
            | Statement::SetPriority(NewPriority::Map { fields, map }) => {
                lookup::look_up(frame.table, &seen, fields, map)
            }
            Statement::Dnat(address, port) => return self.dnat(way, *address, Some(*port)),
            Statement::DnatAddress(address) => return self.dnat(way, *address, None),
            Statement::Redirect(port) => return self.redirect(way, *port),
            Statement::Snat {
                address,
                fully_random,
            } => return self.snat(way, *address, *fully_random),
            Statement::SetMark(mark, to) => return self.set_mark(way, *mark, *to),
            Statement::SetPriority(NewPriority::Number(number)) => {
                way.priority = Some(*number);
                return Next::On;
            }
            Statement::Masquerade { .. } => return self.masquerade(way),
            Statement::Notrack => return self.notrack(way),
            Statement::Reject(with) => {
                way.trace();
                return Next::Done(End::Rejected(*with));
            }
            Statement::Counter | Statement::NamedCounter(_) | Statement::Log(_) => return Next::On,
            Statement::Limit(_) | Statement::NamedLimit(_) => {
                return Next::Unmodelled("limit".to_owned());
            }
            Statement::Update(update) => {
                way.adds(update, &seen);
                return Next::On;
            }
            Statement::Verdict(verdict) => return self.verdict(way, verdict),
            Statement::Opaque(expression) if is_one_of(&HARMLESS, expression) => return Next::On,
            // With ports or flags of its own: the kernel chooses the source in any case.
            Statement::Opaque(expression) if is_one_of(&["masq"], expression) => {
                return self.masquerade(way);
            }
            Statement::Opaque(expression) => return Next::Unmodelled(expression.clone()),
        };
        match <[(u64, Answer); 1]>::try_from(answers) {
            Ok([(_, answer)]) => self.answer(way, statement, answer),
            Err(answers) => Next::Split(answers),
        }
    }

    /// A look-up in a set that this packet has added to: what came from a map is known.
    fn look_up_what_was_added(
        &self,
        way: &mut Way<'a>,
        statement: &'a Statement,
        added: Option<(Vec<Field>, Hit)>,
    ) -> Next {
        match (statement, added) {
            (Statement::DnatMap { fields, .. }, Some((key, hit))) if *fields == key => {
                self.answer(way, statement, Answer::Yes(Some(hit)))
            }
            _ => {
                let set = looked_up(statement).unwrap_or_default();
                Next::Unmodelled(format!("lookup @{set}"))
            }
        }
    }

    fn answer(&self, way: &mut Way<'a>, statement: &'a Statement, answer: Answer) -> Next {
        if matches!(answer, Answer::No | Answer::Yes(None)) {
            way.misses(looked_up(statement));
        }
        let hit = match answer {
            Answer::No => {
                if let Some(frame) = way.frames.last_mut() {
                    frame.next_rule();
                }
                return Next::On;
            }
            Answer::Unknown(expression) => return Next::Unmodelled(expression),
            Answer::Yes(hit) => hit,
        };
        match (statement, hit) {
            (Statement::Vmap { fields, .. }, Some(hit)) => match hit.data.clone() {
                Data::Verdict(verdict) => {
                    match fields.as_slice() {
                        [Field::Priority] => way.found_by_priority(hit),
                        _ => way.found(hit),
                    }
                    self.verdict(way, &verdict)
                }
                _ => Next::Done(End::Unknown("a vmap without verdicts".to_owned())),
            },
            (Statement::DnatMap { .. }, Some(hit)) => match hit.data.clone() {
                Data::Target(address, port) => {
                    way.found(hit);
                    self.dnat(way, address, Some(port))
                }
                _ => Next::Done(End::Unknown("a dnat map without targets".to_owned())),
            },
            (Statement::SnatMap { fully_random, .. }, Some(hit)) => match hit.data.clone() {
                Data::Address(address) => {
                    way.found(hit);
                    self.snat(way, address, *fully_random)
                }
                _ => Next::Done(End::Unknown("a snat map without addresses".to_owned())),
            },
            (Statement::SetPriority(_), Some(hit)) => match hit.data {
                Data::Priority(number) => {
                    way.found(hit);
                    way.priority = Some(number);
                    Next::On
                }
                _ => Next::Done(End::Unknown("a map without priorities".to_owned())),
            },
            (_, Some(hit)) => {
                way.found(hit);
                Next::On
            }
            (_, None) => Next::On,
        }
    }

    fn verdict(&self, way: &mut Way<'a>, verdict: &Verdict) -> Next {
        let steps = way.branch.steps.len();
        if *verdict != Verdict::Continue {
            way.trace();
        }
        match verdict {
            Verdict::Continue => Next::On,
            Verdict::Accept => self.accept(way),
            Verdict::Drop => Next::Done(End::Dropped),
            Verdict::Return => {
                if let Some(frame) = way.frames.last_mut() {
                    frame.rule = frame.rules.len();
                    frame.returned = true;
                }
                Next::On
            }
            Verdict::Jump(name) | Verdict::Goto(name) => {
                let goto = matches!(verdict, Verdict::Goto(_));
                match way.call(name, goto, steps) {
                    Ok(()) => Next::On,
                    Err(why) => Next::Done(End::Unknown(why)),
                }
            }
        }
    }

    /// Ends this base chain and enters the next.
    pub(super) fn accept(&self, way: &mut Way<'a>) -> Next {
        way.frames.clear();
        way.entry += 1;
        self.enter(way);
        Next::On
    }

    /// Enters the base chain that the way is at, or a later one if it does not run.
    fn enter(&self, way: &mut Way<'a>) {
        while let Some(entry) = self.chains.get(way.entry) {
            if entry.base.kind == ChainType::Nat && (way.nat_done || way.branch.untracked) {
                way.entry += 1;
                continue;
            }
            let steps = way.branch.steps.len();
            way.frames
                .push(Frame::new(entry.table, entry.name, entry.rules, steps));
            return;
        }
    }

    /// The end of a chain's rules: back to the caller, or the base chain's policy.
    fn leave(&self, way: &mut Way<'a>) -> Option<Branch> {
        let frame = way.frames.pop()?;
        if !way.frames.is_empty() || !frame.returned {
            // What a chain did that decided nothing is not worth telling.
            way.branch.steps.truncate(frame.steps);
        }
        if !way.frames.is_empty() {
            return None;
        }
        let entry = &self.chains[way.entry];
        if entry.base.policy == Policy::Drop {
            way.branch.steps.push(Trace {
                family: entry.table.family,
                table: entry.table.name.clone(),
                chain: entry.name.to_owned(),
                rule: "policy drop".to_owned(),
                element: None,
                origins: Vec::new(),
            });
            return Some(way.clone().ends(End::Dropped));
        }
        way.entry += 1;
        self.enter(way);
        None
    }

    /// One way for each answer, weighed by its number of cases.
    fn split(&self, way: &Way<'a>, statement: &'a Statement, answers: Answers) -> Vec<Branch> {
        let cases = answers.iter().map(|(count, _)| count).sum();
        let mut branches = Vec::new();
        for (count, answer) in answers {
            let mut way = way.clone();
            way.branch.weight = multiply(way.branch.weight, (count, cases));
            if !self.may_fork() {
                let end = End::Unknown("too many possible ways".to_owned());
                branches.push(way.ends(end));
                continue;
            }
            match self.answer(&mut way, statement, answer) {
                Next::Done(end) => branches.push(way.ends(end)),
                Next::Unmodelled(expression) => branches.extend(self.both(&way, expression)),
                Next::On | Next::Split(_) => branches.extend(self.walk(way)),
            }
        }
        merge(branches)
    }

    /// Tries what comes after a statement that is not modelled, as if it matched and as if not.
    fn both(&self, way: &Way<'a>, expression: String) -> Vec<Branch> {
        let only_matches = is_one_of(&ONLY_MATCHES, &expression) && !expression.contains(" set");
        if only_matches && !way.is_at_a_map() && self.may_fork() {
            let mut unmatched = way.clone();
            if let Some(frame) = unmatched.frames.last_mut() {
                frame.next_rule();
            }
            let unmatched = merge(self.walk(unmatched));
            let matched = merge(self.walk(way.clone()));
            if same(&matched, &unmatched) {
                return unmatched;
            }
        }
        let mut way = way.clone();
        way.trace();
        vec![way.ends(End::Unknown(expression))]
    }

    fn may_fork(&self) -> bool {
        self.ways.set(self.ways.get() + 1);
        self.ways.get() <= MOST_WAYS
    }
}

/// What comes after one statement.
pub(super) enum Next {
    On,
    Done(End),
    Split(Answers),
    Unmodelled(String),
}

/// The named set or map that a statement looks into.
fn looked_up(statement: &Statement) -> Option<&str> {
    match statement {
        Statement::Match {
            operand: Operand::Set(name),
            ..
        }
        | Statement::Vmap { map: name, .. }
        | Statement::DnatMap { map: name, .. }
        | Statement::SnatMap { map: name, .. }
        | Statement::SetPriority(NewPriority::Map { map: name, .. }) => Some(name),
        _ => None,
    }
}

/// What a hook's chains are sorted by: nat chains stand together, whatever their priorities are.
fn order(base: BaseChain) -> (i32, bool, i32) {
    (at(base), base.kind != ChainType::Nat, base.priority)
}

/// The priority at which the kernel calls a chain, of those of its hook.
pub(super) fn at(base: BaseChain) -> i32 {
    match (base.kind, base.hook) {
        (ChainType::Nat, Hook::Prerouting | Hook::Output) => NAT_DST,
        (ChainType::Nat, _) => NAT_SRC,
        _ => base.priority,
    }
}

pub(super) fn is_one_of(names: &[&str], expression: &str) -> bool {
    names.iter().any(|name| {
        expression
            .strip_prefix(name)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    })
}
