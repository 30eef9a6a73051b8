//! The packet's way through the chains of a hook, with nf_tables' call stack.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use parfait_packet::Packet;

use super::super::{
    BaseChain, ChainType, Data, Family, Field, Hook, Mark, NewData, NewMark, Operand, Policy, Rule,
    Statement, Table, Tables, Update, Verdict, render,
};
use super::lookup::{self, Answer, Answers, Hit, Seen};
use super::weigh::{merge, multiply, same};
use super::{Branch, Context, End, Trace, ct_state, ct_status};

/// The kernel's own limit of nested jumps (NFT_JUMP_STACK_SIZE).
const DEEPEST_JUMP: usize = 16;
/// More ways than anybody would read, or rules than a kernel would run: something loops.
const MOST_WAYS: u32 = 4096;
const MOST_RULES: u32 = 100_000;
/// Priorities at which the kernel runs all nat chains of a hook (NF_IP_PRI_NAT_DST, _SRC).
const NAT_DST: i32 = -100;
const NAT_SRC: i32 = 100;
/// From here on the hook's packets are of a connection, or of none for good (NF_IP_PRI_CONNTRACK).
const CONNTRACK: i32 = -200;

/// Statements that neither decide nor change anything, by the kernel's name of the expression.
const HARMLESS: [&str; 4] = ["log", "last", "objref", "meta nftrace set"];
/// Expressions that need connections.
const TRACKING: [&str; 8] = [
    "connlimit",
    "ct",
    "match",
    "masq",
    "nat",
    "redir",
    "synproxy",
    "target",
];
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
    context: &'a Context<'a>,
    hook: Hook,
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

/// One chain being run.
#[derive(Clone)]
struct Frame<'a> {
    table: &'a Table,
    name: &'a str,
    rules: &'a [Rule],
    rule: usize,
    statement: usize,
    /// How many steps there were when the chain that called it did so.
    steps: usize,
    /// Whether its rules ended in a `return`.
    returned: bool,
    /// The last element that a match in this rule found.
    hit: Option<Hit>,
}

/// One way, at one point of it.
#[derive(Clone)]
struct Way<'a> {
    entry: usize,
    frames: Vec<Frame<'a>>,
    nat_done: bool,
    /// Sets that rules on this way have added to: by which fields, and what, if that is known.
    updated: BTreeMap<String, Option<(Vec<Field>, Hit)>>,
    branch: Branch,
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

    /// Runs one statement of the rule that the innermost chain is at.
    fn statement(&self, way: &mut Way<'a>, statement: &'a Statement) -> Next {
        let seen = Seen {
            context: Context {
                packet: way.branch.packet,
                ct_state: self.ct_state(way),
                ct_status: way.branch.ct_status,
                mark: way.branch.mark,
                ct_mark: way.branch.ct_mark,
                ..*self.context
            },
            masqueraded: way.branch.masquerade,
            snat: way.branch.snat,
        };
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
            | Statement::SnatMap { fields, map, .. } => {
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
            (Statement::Vmap { .. }, Some(hit)) => match hit.data.clone() {
                Data::Verdict(verdict) => {
                    way.found(hit);
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

    /// To this node itself: where it comes from, and otherwise the interface's first address.
    fn redirect(&self, way: &mut Way<'a>, port: Option<u16>) -> Next {
        let family = self.context.packet.family();
        let address = match (self.hook, family) {
            (Hook::Output, parfait_packet::Family::Ipv4) => Some(Ipv4Addr::LOCALHOST.into()),
            (Hook::Output, parfait_packet::Family::Ipv6) => Some(Ipv6Addr::LOCALHOST.into()),
            _ => self.context.redirected,
        };
        match address {
            Some(address) => self.dnat(way, address, port),
            None => Next::Unmodelled("redir".to_owned()),
        }
    }

    fn dnat(&self, way: &mut Way<'a>, address: IpAddr, port: Option<u16>) -> Next {
        way.trace();
        let packet: &mut Packet = &mut way.branch.packet;
        let before = *packet;
        packet.destination = address;
        if let Some(port) = port.filter(|_| packet.protocol.has_ports()) {
            packet.destination_port = port;
        }
        if *packet != before {
            way.branch.ct_status |= ct_status::DNAT;
        }
        self.nat_is_set_up(way)
    }

    fn snat(&self, way: &mut Way<'a>, address: IpAddr, fully_random: bool) -> Next {
        way.trace();
        let moved = way.branch.packet.source != address;
        way.branch.packet.source = address;
        way.branch.snat = true;
        if moved || fully_random {
            way.branch.ct_status |= ct_status::SNAT;
        }
        self.nat_is_set_up(way)
    }

    /// Without a connection there is no mark to write (which does nothing), and none to read (which
    /// ends the rule).
    fn set_mark(&self, way: &mut Way<'a>, mark: Mark, to: NewMark) -> Next {
        let untracked = ct_state::UNTRACKED | ct_state::INVALID;
        let tracked = self.ct_state(way) & untracked == 0;
        let branch = &mut way.branch;
        let new = match to {
            NewMark::Number(number) => number,
            NewMark::From { mark, and, xor } => {
                let now = match mark {
                    Mark::Packet => branch.mark,
                    Mark::Connection if tracked => match branch.ct_mark {
                        Some(now) => now,
                        None => return Next::Unmodelled("ct mark set".to_owned()),
                    },
                    Mark::Connection => {
                        if let Some(frame) = way.frames.last_mut() {
                            frame.next_rule();
                        }
                        return Next::On;
                    }
                };
                (now & and) ^ xor
            }
        };
        match mark {
            Mark::Packet => branch.mark = new,
            Mark::Connection if tracked => branch.ct_mark = Some(new),
            Mark::Connection => {}
        }
        Next::On
    }

    fn masquerade(&self, way: &mut Way<'a>) -> Next {
        way.trace();
        way.branch.masquerade = true;
        self.nat_is_set_up(way)
    }

    /// `ct state` as this way's packet has it here.
    fn ct_state(&self, way: &Way<'a>) -> u32 {
        match way.branch.untracked {
            true => ct_state::UNTRACKED,
            // `nft_ct_get_eval` knows no better word for it.
            false if self.is_before_tracking(way) => ct_state::INVALID,
            false => self.context.ct_state,
        }
    }

    /// What is tracked already stays so (`nft_notrack_eval`).
    fn notrack(&self, way: &mut Way<'a>) -> Next {
        if self.is_before_tracking(way) {
            way.trace();
            way.branch.untracked = true;
        }
        Next::On
    }

    /// Nobody has asked conntrack for the packet's connection yet. What comes by the loopback was asked for when it
    /// was sent.
    fn is_before_tracking(&self, way: &Way<'a>) -> bool {
        let first = match self.hook {
            Hook::Prerouting => self.context.iifname != Some("lo"),
            Hook::Output => true,
            Hook::Input | Hook::Forward | Hook::Postrouting => false,
        };
        let entry = self.chains.get(way.entry);
        first && entry.is_some_and(|entry| entry.base.priority < CONNTRACK)
    }

    fn nat_is_set_up(&self, way: &mut Way<'a>) -> Next {
        way.nat_done = true;
        self.accept(way)
    }

    /// Ends this base chain and enters the next.
    fn accept(&self, way: &mut Way<'a>) -> Next {
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
enum Next {
    On,
    Done(End),
    Split(Answers),
    Unmodelled(String),
}

impl<'a> Frame<'a> {
    fn new(table: &'a Table, name: &'a str, rules: &'a [Rule], steps: usize) -> Self {
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

    fn next_rule(&mut self) {
        self.rule += 1;
        self.statement = 0;
        self.hit = None;
    }
}

impl<'a> Way<'a> {
    fn ends(mut self, end: End) -> Branch {
        self.branch.end = end;
        self.branch
    }

    fn found(&mut self, hit: Hit) {
        if let Some(frame) = self.frames.last_mut() {
            frame.hit = Some(hit);
        }
    }

    /// Notes what a rule adds. What is there already stays as it is.
    fn adds(&mut self, update: &Update, seen: &Seen<'_>) {
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
    fn held(&self, update: &Update, seen: &Seen<'_>) -> Option<Hit> {
        let table = self.frames.last()?.table;
        match lookup::look_up(table, seen, &update.key, &update.set).as_slice() {
            [(_, Answer::Yes(hit))] => hit.clone(),
            _ => None,
        }
    }

    /// Notes that a set has no element for the packet, if it could have had one.
    fn misses(&mut self, set: Option<&str>) {
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
    fn is_at_a_map(&self) -> bool {
        let statement = self.frames.last().and_then(|frame| {
            let rule = frame.rules.get(frame.rule)?;
            rule.statements.get(frame.statement.checked_sub(1)?)
        });
        matches!(
            statement,
            Some(Statement::Vmap { .. } | Statement::DnatMap { .. } | Statement::SnatMap { .. })
        )
    }

    /// Notes the rule that the innermost chain is at.
    fn trace(&mut self) {
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
    fn call(&mut self, name: &str, goto: bool, steps: usize) -> Result<(), String> {
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

/// The named set or map that a statement looks into.
fn looked_up(statement: &Statement) -> Option<&str> {
    match statement {
        Statement::Match {
            operand: Operand::Set(name),
            ..
        }
        | Statement::Vmap { map: name, .. }
        | Statement::DnatMap { map: name, .. }
        | Statement::SnatMap { map: name, .. } => Some(name),
        _ => None,
    }
}

/// Whether a rule of this table makes the kernel track connections: without one in any table, nat
/// chains see no packet, and not even their policy counts (`nf_nat_inet_fn` wants a connection).
fn tracks(table: &Table) -> bool {
    let field = |field: &Field| {
        matches!(
            field,
            Field::CtState
                | Field::CtStatus
                | Field::CtDirection
                | Field::CtMark
                | Field::CtOriginalDaddr
                | Field::CtOriginalDport
        )
    };
    let mut statements = table
        .chains
        .values()
        .flat_map(|chain| &chain.rules)
        .flat_map(|rule| &rule.statements);
    statements.any(|statement| match statement {
        Statement::Match { fields, .. } | Statement::Vmap { fields, .. } => {
            fields.iter().any(field)
        }
        Statement::Dnat(..)
        | Statement::DnatAddress(_)
        | Statement::Redirect(_)
        | Statement::DnatMap { .. }
        | Statement::Snat { .. }
        | Statement::SnatMap { .. }
        | Statement::SetMark(Mark::Connection, _)
        | Statement::SetMark(
            _,
            NewMark::From {
                mark: Mark::Connection,
                ..
            },
        )
        | Statement::Masquerade { .. } => true,
        Statement::Opaque(expression) => is_one_of(&TRACKING, expression),
        Statement::Update(update) => update.key.iter().any(field),
        Statement::Notrack
        | Statement::Reject(_)
        | Statement::Counter
        | Statement::NamedCounter(_)
        | Statement::Limit(_)
        | Statement::NamedLimit(_)
        | Statement::Log(_)
        | Statement::Verdict(_)
        | Statement::SetMark(..) => false,
    })
}

/// What a hook's chains are sorted by.
pub(super) fn order(base: BaseChain) -> (i32, i32) {
    let at = match (base.kind, base.hook) {
        (ChainType::Nat, Hook::Prerouting | Hook::Output) => NAT_DST,
        (ChainType::Nat, _) => NAT_SRC,
        _ => base.priority,
    };
    (at, base.priority)
}

fn is_one_of(names: &[&str], expression: &str) -> bool {
    names.iter().any(|name| {
        expression
            .strip_prefix(name)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    })
}
