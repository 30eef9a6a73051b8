//! [`FakeNetfilter`]: the nf_tables and connections of a network namespace in memory, whose calls can be made to fail.
//!
//! Like the real ones, a transaction happens whole or not at all, only on the ruleset that its maker
//! has seen, and is refused if it names what is not there. Left out: references from rules to sets
//! and chains, which the kernel counts.

use std::collections::BTreeMap;
use std::time::Duration;

use parfait_linux::conntrack::Entry;
use parfait_linux::nft::diff::{self, Action};
use parfait_linux::nft::{NftStep, Table, Tables};
use rustix::io::Errno;

use crate::Netfilter;
use crate::conntrack::Filter;
use crate::nft::{Error, Handles, Observed};

/// The tables of a network namespace in memory.
#[derive(Clone, Debug, Default)]
pub struct FakeNetfilter {
    /// All tables, other programs' too. Who changes them must call [`FakeNetfilter::changed`].
    pub tables: Tables,
    /// The tracked connections.
    pub connections: Vec<Entry>,
    /// How many calls there were.
    pub calls: usize,
    /// Which calls fail, by their position since the start, and with what. A failing transaction
    /// changes nothing.
    pub faults: BTreeMap<usize, Errno>,
    /// How long it takes to list connections, whether there are any or not.
    pub listing: Duration,
    generation: u32,
}

impl FakeNetfilter {
    /// Another program has changed the tables: transactions made for the ruleset before are refused.
    pub fn changed(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }

    fn call(&mut self, operation: &'static str) -> Result<(), Error> {
        let fault = self.faults.get(&self.calls).copied();
        self.calls += 1;
        match fault {
            Some(errno) => Err(Error::Socket { operation, errno }),
            None => Ok(()),
        }
    }
}

impl Netfilter for FakeNetfilter {
    fn observe(&mut self, name: &str) -> Result<Observed, Error> {
        self.call("listing tables")?;
        let named = self.tables.iter().filter(|((_, found), _)| found == name);
        Ok(Observed {
            tables: named
                .map(|(key, table)| (key.clone(), table.clone()))
                .collect(),
            generation: self.generation,
        })
    }

    fn observe_set(&mut self, table: &str, set: &str) -> Result<Observed, Error> {
        let mut observed = self.observe(table)?;
        for table in observed.tables.values_mut() {
            table.sets.retain(|name, _| name == set);
            table.chains.clear();
        }
        Ok(observed)
    }

    /// Rules here have no numbers.
    fn survey(&mut self) -> Result<(Observed, Handles), Error> {
        self.call("listing tables")?;
        let observed = Observed {
            tables: self.tables.clone(),
            generation: self.generation,
        };
        Ok((observed, Handles::new()))
    }

    fn execute_at(&mut self, steps: &[NftStep], generation: u32) -> Result<(), Error> {
        self.call("sending a transaction")?;
        if generation != self.generation {
            return Err(Error::Changed);
        }
        let mut tables = self.tables.clone();
        for step in steps {
            if let Some(errno) = refusal(&tables, step) {
                return Err(Error::Refused {
                    operation: step.to_string(),
                    object: String::new(),
                    errno,
                    hint: String::new(),
                });
            }
            diff::apply(&mut tables, step);
        }
        self.tables = tables;
        self.changed();
        Ok(())
    }

    fn connections(&mut self, filter: &Filter) -> Result<Vec<Entry>, Error> {
        self.call("listing tracked connections")?;
        std::thread::sleep(self.listing);
        let meant = self.connections.iter().filter(|e| filter.matches(e));
        Ok(meant.cloned().collect())
    }

    fn delete_connection(&mut self, entry: &Entry) -> Result<bool, Error> {
        self.call("deleting a tracked connection")?;
        let before = self.connections.len();
        self.connections.retain(|known| known != entry);
        Ok(self.connections.len() < before)
    }
}

/// What the kernel would say to one step.
fn refusal(tables: &Tables, step: &NftStep) -> Option<Errno> {
    let table = tables.get(&(step.family, step.table.clone()));
    match (&step.action, table) {
        (Action::AddTable, _) => None,
        (_, None) => Some(Errno::NOENT),
        (action, Some(table)) => refusal_within(table, action),
    }
}

fn refusal_within(table: &Table, action: &Action) -> Option<Errno> {
    let absent = |there: bool| (!there).then_some(Errno::NOENT);
    match action {
        Action::AddTable | Action::DeleteTable | Action::DeleteRule(..) => None,
        Action::AddChain(..)
        | Action::AddSet(..)
        | Action::AddCounter(_)
        | Action::AddLimit(..) => None,
        Action::DeleteCounter(name) => absent(table.counters.contains(name)),
        Action::DeleteLimit(name) => absent(table.limits.contains_key(name)),
        Action::FlushChain(name)
        | Action::DeleteChain(name)
        | Action::SetPolicy(name, _)
        | Action::AddRules(name, _) => absent(table.chains.contains_key(name)),
        Action::DeleteSet(name) => absent(table.sets.contains_key(name)),
        Action::DeleteElements(name, _, keys) => absent(table.sets.get(name).is_some_and(|set| {
            let mut keys = keys.iter();
            keys.all(|key| set.elements.contains_key(key))
        })),
        Action::AddElements(name, _, elements) => {
            let Some(set) = table.sets.get(name) else {
                return Some(Errno::NOENT);
            };
            let mut elements = elements.iter();
            let taken = elements.any(|(key, element)| {
                let there = set.elements.get(key);
                there.is_some_and(|there| there.data != element.data)
            });
            taken.then_some(Errno::EXIST)
        }
    }
}
