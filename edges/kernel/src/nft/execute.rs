//! Steps into the kernel: one transaction of nfnetlink messages.
//!
//! ```text
//!   BATCH_BEGIN │ NEWTABLE │ NEWCHAIN │ NEWSET │ NEWSETELEM… │ NEWRULE… │ BATCH_END
//! ```
//!
//! All or nothing: the kernel builds the next generation of the ruleset, and no packet sees
//! anything between the two. A refusal names the object, the errno and the kernel's own words.
//!
//! Without the right to enlarge the send buffer (a user namespace on a machine with a small
//! net.core.wmem_max), what does not fit goes in several transactions, in order. Each of them is
//! whole, but packets may see the moments between; only a first load of thousands of Services is
//! that large.

use std::ops::Range;

use parfait_linux::nft::diff::{Action, SetType};
use parfait_linux::nft::{BaseChain, ChainType, Family, Hook, NftStep, Policy, Rule, diff, render};
use rustix::io::Errno;

use super::attr::{HEADER, Writer};
use super::number::{BATCH_GENID, chain, elem, family as nfproto, msg, object, rule, set, table};
use super::set::{Layout, comment};
use super::socket::{ACK, REQUEST, Refusal};
use super::{Error, NftSocket, element, lower};

const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
/// nfnetlink's number of nf_tables, in a batch's own messages.
const SUBSYSTEM: u16 = 10;
/// Elements in one message: a nest is at most 65,535 bytes, comments included.
const ELEMENTS: usize = 400;
const ELEMENT_BYTES: usize = 60_000;

/// Carries the steps out; with a generation, only if the ruleset is still of that generation.
pub fn execute(
    socket: &mut NftSocket,
    steps: &[NftStep],
    mut generation: Option<u32>,
) -> Result<(), Error> {
    let mut batch = Batch::default();
    for step in steps {
        batch.step(step)?;
    }
    if batch.messages.is_empty() {
        return Ok(());
    }
    let room = socket.room(batch.writer.len() + 2 * HEADER + 64);
    for part in batch.split(room) {
        batch.send(socket, part, generation.take())?;
    }
    Ok(())
}

/// All messages of some steps.
#[derive(Default)]
struct Batch<'a> {
    writer: Writer,
    messages: Vec<Message<'a>>,
    anonymous: u32,
}

/// One message, and what it is about.
struct Message<'a> {
    bytes: Range<usize>,
    about: About<'a>,
    /// It must be in the same transaction as the message before.
    joined: bool,
}

#[derive(Clone)]
struct About<'a> {
    step: &'a NftStep,
    /// Which of the step's rules or elements.
    range: Range<usize>,
    /// Where in the message each element ends.
    ends: Vec<usize>,
}

impl<'a> Batch<'a> {
    fn step(&mut self, step: &'a NftStep) -> Result<(), Error> {
        let named = |writer: &mut Writer, table: u16, kind: u16, name: &str| {
            writer.put_str(table, &step.table);
            writer.put_str(kind, name);
        };
        match &step.action {
            Action::AddTable => self.message(step, msg::NEWTABLE, CREATE, |writer| {
                writer.put_str(table::NAME, &step.table);
                writer.put_u32(table::FLAGS, 0);
            }),
            Action::DeleteTable => self.message(step, msg::DELTABLE, 0, |writer| {
                writer.put_str(table::NAME, &step.table);
            }),
            Action::FlushChain(name) => self.delete_rules(step, name, None),
            Action::DeleteRule(name, handle) => self.delete_rules(step, name, Some(*handle)),
            Action::DeleteChain(name) => self.message(step, msg::DELCHAIN, 0, |writer| {
                named(writer, chain::TABLE, chain::NAME, name);
            }),
            Action::DeleteCounter(name) => {
                self.object(step, msg::DELOBJ, object::COUNTER, name, |_| {})
            }
            Action::DeleteLimit(name) => {
                self.object(step, msg::DELOBJ, object::LIMIT, name, |_| {})
            }
            Action::AddCounter(name) => {
                self.object(step, msg::NEWOBJ, object::COUNTER, name, |_| {})
            }
            Action::AddLimit(name, limit) => {
                let put = |writer: &mut Writer| lower::put_limit(writer, limit);
                self.object(step, msg::NEWOBJ, object::LIMIT, name, put);
            }
            Action::AddChain(name, hook) => self.message(step, msg::NEWCHAIN, CREATE, |writer| {
                named(writer, chain::TABLE, chain::NAME, name);
                if let Some(hook) = hook {
                    put_hook(writer, *hook);
                }
            }),
            Action::SetPolicy(name, hook) => self.message(step, msg::NEWCHAIN, 0, |writer| {
                named(writer, chain::TABLE, chain::NAME, name);
                put_hook(writer, *hook);
            }),
            Action::DeleteSet(name) => self.message(step, msg::DELSET, 0, |writer| {
                named(writer, set::TABLE, set::NAME, name);
            }),
            Action::AddSet(name, kind) => {
                let layout = layout(step, name, kind)?;
                self.set(step, name, &layout);
            }
            Action::AddElements(name, kind, elements) => {
                let layout = layout(step, name, kind)?;
                let elements = elements.iter().map(|(key, element)| (key, Some(element)));
                self.elements(step, name, None, msg::NEWSETELEM, elements, &layout)?;
            }
            Action::DeleteElements(name, kind, keys) => {
                let layout = layout(step, name, kind)?;
                let keys = keys.iter().map(|key| (key, None));
                self.elements(step, name, None, msg::DELSETELEM, keys, &layout)?;
            }
            Action::AddRules(name, rules) => {
                for (index, rule) in rules.iter().enumerate() {
                    self.rule(step, name, index, rule)?;
                }
            }
        }
        Ok(())
    }

    /// One rule of a chain, or all.
    fn delete_rules(&mut self, step: &'a NftStep, name: &str, handle: Option<u64>) {
        self.message(step, msg::DELRULE, 0, |writer| {
            writer.put_str(rule::TABLE, &step.table);
            writer.put_str(rule::CHAIN, name);
            if let Some(handle) = handle {
                writer.put(rule::HANDLE, &handle.to_be_bytes());
            }
        });
    }

    fn set(&mut self, step: &'a NftStep, name: &str, layout: &Layout) {
        self.anonymous += 1;
        let id = self.anonymous;
        self.message(step, msg::NEWSET, CREATE, |writer| {
            layout.write(writer, &step.table, name, id);
        });
    }

    /// A named counter or limit, with what it is made of.
    fn object(
        &mut self,
        step: &'a NftStep,
        kind: u16,
        number: u32,
        name: &str,
        data: impl FnOnce(&mut Writer),
    ) {
        let flags = if kind == msg::NEWOBJ { CREATE } else { 0 };
        self.message(step, kind, flags, |writer| {
            writer.put_str(object::TABLE, &step.table);
            writer.put_str(object::NAME, name);
            writer.put_u32(object::TYPE, number);
            if kind == msg::NEWOBJ {
                writer.nest(object::DATA, data);
            }
        });
    }

    fn message(
        &mut self,
        step: &'a NftStep,
        kind: u16,
        flags: u16,
        body: impl FnOnce(&mut Writer),
    ) {
        let start = self.begin(step, kind, flags);
        body(&mut self.writer);
        self.end(step, start, 0..0, Vec::new(), false);
    }

    fn begin(&mut self, step: &NftStep, kind: u16, flags: u16) -> usize {
        let family = family_number(step.family);
        self.writer.message(kind, REQUEST | flags, 0, family, 0)
    }

    fn end(
        &mut self,
        step: &'a NftStep,
        start: usize,
        range: Range<usize>,
        ends: Vec<usize>,
        joined: bool,
    ) {
        self.writer.end_message(start);
        self.messages.push(Message {
            bytes: start..self.writer.len(),
            about: About { step, range, ends },
            joined,
        });
    }

    /// As many messages as the elements need.
    fn elements<'e>(
        &mut self,
        step: &'a NftStep,
        name: &str,
        id: Option<u32>,
        kind: u16,
        elements: impl Iterator<
            Item = (
                &'e parfait_linux::nft::Key,
                Option<&'e parfait_linux::nft::Element>,
            ),
        >,
        layout: &Layout,
    ) -> Result<(), Error> {
        let flags = if kind == msg::NEWSETELEM { CREATE } else { 0 };
        let mut elements = elements.enumerate().peekable();
        while let Some((first, _)) = elements.peek() {
            let first = *first;
            let start = self.begin(step, kind, flags);
            self.writer.put_str(elem::LIST_TABLE, &step.table);
            self.writer.put_str(elem::LIST_SET, name);
            if let Some(id) = id {
                self.writer.put_u32(elem::LIST_SET_ID, id);
            }
            let list = self.writer.begin_nest(elem::LIST_ELEMENTS);
            let mut ends = Vec::new();
            while ends.len() < ELEMENTS
                && self.writer.len() - list < ELEMENT_BYTES
                && let Some((_, (key, element))) = elements.next()
            {
                element::write(&mut self.writer, layout, key, element)
                    .map_err(|what| unsupported(step, name, what))?;
                ends.push(self.writer.len() - start);
            }
            self.writer.end_nest(list);
            let range = first..first + ends.len();
            self.end(step, start, range, ends, id.is_some());
        }
        Ok(())
    }

    /// A rule, and before it the anonymous sets that it looks into.
    fn rule(
        &mut self,
        step: &'a NftStep,
        name: &str,
        index: usize,
        each: &Rule,
    ) -> Result<(), Error> {
        let object = format!("{name} {}", render::rule(step.family, each));
        let fail = |what| unsupported(step, &object, what);
        let id = self.anonymous + 1;
        let sets = lower::anonymous_sets(step.family, each, id).map_err(fail)?;
        let joined = !sets.is_empty();
        for (nth, set) in sets.iter().enumerate() {
            self.anonymous = set.id;
            let start = self.begin(step, msg::NEWSET, CREATE);
            set.layout
                .write_anonymous(&mut self.writer, &step.table, set.id, set.rows.len());
            self.end(step, start, index..index + 1, Vec::new(), nth > 0);
            let element = parfait_linux::nft::Element::new(parfait_linux::nft::Data::None);
            let rows = set.rows.iter().map(|row| (row, Some(&element)));
            let before = self.messages.len();
            let anonymous = super::set::ANONYMOUS;
            self.elements(
                step,
                anonymous,
                Some(set.id),
                msg::NEWSETELEM,
                rows,
                &set.layout,
            )?;
            for message in &mut self.messages[before..] {
                message.about.range = index..index + 1;
                message.about.ends.clear();
            }
        }
        let start = self.begin(step, msg::NEWRULE, CREATE | APPEND);
        self.writer.put_str(rule::TABLE, &step.table);
        self.writer.put_str(rule::CHAIN, name);
        let list = self.writer.begin_nest(rule::EXPRESSIONS);
        lower::write(&mut self.writer, step.family, each, id).map_err(fail)?;
        self.writer.end_nest(list);
        if let Some(origin) = &each.origin {
            let text = diff::comment(origin);
            self.writer.put(rule::USERDATA, &comment(&text));
        }
        self.end(step, start, index..index + 1, Vec::new(), joined);
        Ok(())
    }

    /// The messages in as many parts as needed for each to fit `room` bytes; mostly one.
    fn split(&self, room: usize) -> Vec<Range<usize>> {
        let room = room.saturating_sub(2 * HEADER + 8);
        let mut parts: Vec<Range<usize>> = Vec::new();
        let mut size = 0;
        for (index, message) in self.messages.iter().enumerate() {
            size += message.bytes.len();
            match parts.last_mut() {
                Some(part) if size <= room || message.joined => part.end = index + 1,
                _ => {
                    size = message.bytes.len();
                    parts.push(index..index + 1);
                }
            }
        }
        if parts.len() > 1 {
            tracing::warn!(
                transactions = parts.len(),
                "this ruleset does not fit one transaction: raise net.core.wmem_max"
            );
        }
        parts
    }

    fn send(
        &self,
        socket: &mut NftSocket,
        part: Range<usize>,
        generation: Option<u32>,
    ) -> Result<(), Error> {
        let messages = &self.messages[part];
        let first = socket.reserve(messages.len() + 1);
        let mut out = Writer::default();
        let start = out.message(msg::BATCH_BEGIN, REQUEST, first, nfproto::UNSPEC, SUBSYSTEM);
        if let Some(generation) = generation {
            out.put_u32(BATCH_GENID, generation);
        }
        out.end_message(start);
        let last = messages.len().saturating_sub(1);
        let mut sequence = first;
        for (index, message) in messages.iter().enumerate() {
            sequence = sequence.wrapping_add(1);
            // Only the first and last are acknowledged: one answer a message could overrun the
            // receive buffer. Refusals are answered in any case.
            let ack = index == 0 || index == last;
            out.copy(
                &self.writer.bytes()[message.bytes.clone()],
                sequence,
                ack.then_some(ACK),
            );
        }
        let sequence = sequence.wrapping_add(1);
        let start = out.message(
            msg::BATCH_END,
            REQUEST,
            sequence,
            nfproto::UNSPEC,
            SUBSYSTEM,
        );
        out.end_message(start);
        let refusals = socket.transact(out.bytes())?;
        if refusals.iter().any(|refusal| is_restart(refusal.errno)) {
            return Err(Error::Changed);
        }
        match refusals.first() {
            None => Ok(()),
            Some(refusal) => Err(self.refused(messages, first, refusal)),
        }
    }

    fn refused(&self, messages: &[Message<'a>], first: u32, refusal: &Refusal) -> Error {
        let index = usize::try_from(refusal.sequence.wrapping_sub(first)).unwrap_or(usize::MAX);
        let message = index.checked_sub(1).and_then(|index| messages.get(index));
        let Some(message) = message else {
            return Error::Socket {
                operation: "beginning a transaction",
                errno: refusal.errno,
            };
        };
        let (operation, object) = message.about.words(refusal.offset);
        Error::Refused {
            operation: operation.to_owned(),
            object,
            errno: refusal.errno,
            hint: refusal.hint.clone(),
        }
    }
}

impl About<'_> {
    /// The operation and the object, as exactly as the kernel's answer allows.
    fn words(&self, offset: Option<usize>) -> (&'static str, String) {
        let step = self.step;
        let table = format!("{} {}", step.family, step.table);
        let element = self.element(offset);
        let of_set = |name: &str, text: Option<String>| match text {
            Some(text) => format!("{table} {name} {{ {text} }}"),
            None => format!("{table} {name}"),
        };
        match &step.action {
            Action::AddTable => ("add table", table),
            Action::DeleteTable => ("delete table", table),
            Action::FlushChain(name) => ("flush chain", format!("{table} {name}")),
            Action::DeleteRule(name, handle) => {
                ("delete rule", format!("{table} {name} handle {handle}"))
            }
            Action::DeleteChain(name) => ("delete chain", format!("{table} {name}")),
            Action::DeleteCounter(name) => ("delete counter", format!("{table} {name}")),
            Action::DeleteLimit(name) => ("delete limit", format!("{table} {name}")),
            Action::AddCounter(name) => ("add counter", format!("{table} {name}")),
            Action::AddLimit(name, _) => ("add limit", format!("{table} {name}")),
            Action::AddChain(name, _) => ("add chain", format!("{table} {name}")),
            Action::SetPolicy(name, _) => ("set policy of chain", format!("{table} {name}")),
            Action::AddSet(name, _) => ("add set", format!("{table} {name}")),
            Action::DeleteSet(name) => ("delete set", format!("{table} {name}")),
            Action::DeleteElements(name, kind, keys) => {
                let text = keys.get(element).map(|key| render::key(&kind.key, key));
                ("delete element", of_set(name, text))
            }
            Action::AddElements(name, kind, elements) => {
                let text = elements
                    .get(element)
                    .map(|(key, element)| render::element(&kind.key, key, element));
                ("add element", of_set(name, text))
            }
            Action::AddRules(name, rules) => {
                let text = rules
                    .get(self.range.start)
                    .map(|rule| render::rule(step.family, rule));
                (
                    "add rule",
                    format!("{table} {name} {}", text.unwrap_or_default()),
                )
            }
        }
    }

    /// The element that lies at this offset of the message; without one, the first.
    fn element(&self, offset: Option<usize>) -> usize {
        let before = |offset: usize| self.ends.iter().filter(|end| **end <= offset).count();
        self.range.start
            + offset
                .map_or(0, before)
                .min(self.ends.len().saturating_sub(1))
    }
}

fn is_restart(errno: Errno) -> bool {
    // ERESTART, which libc does not name for user space.
    errno.raw_os_error() == 85
}

fn layout(step: &NftStep, name: &str, kind: &SetType) -> Result<Layout, Error> {
    Layout::new(kind, step.family).ok_or_else(|| {
        let what = "a set of addresses belongs in a table of family ip or ip6";
        unsupported(step, name, what.to_owned())
    })
}

fn unsupported(step: &NftStep, object: &str, what: String) -> Error {
    Error::Unsupported {
        object: format!("{} {} {object}", step.family, step.table),
        what,
    }
}

fn put_hook(writer: &mut Writer, base: BaseChain) {
    let hook: u32 = match base.hook {
        Hook::Prerouting => 0,
        Hook::Input => 1,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    };
    writer.nest(chain::HOOK, |writer| {
        writer.put_u32(chain::HOOK_HOOKNUM, hook);
        writer.put(chain::HOOK_PRIORITY, &base.priority.to_be_bytes());
    });
    let policy = match base.policy {
        Policy::Drop => 0,
        Policy::Accept => 1,
    };
    writer.put_u32(chain::POLICY, policy);
    let kind = match base.kind {
        ChainType::Filter => "filter",
        ChainType::Nat => "nat",
        ChainType::Route => "route",
    };
    writer.put_str(chain::TYPE, kind);
}

/// The kernel's number of a family.
pub fn family_number(family: Family) -> u8 {
    match family {
        Family::Ip => nfproto::IPV4,
        Family::Ip6 => nfproto::IPV6,
        Family::Inet => nfproto::INET,
    }
}
