//! [`phases`]: the steps of one difference as the transactions in which packets on their way notice none.
//!
//! A transaction is atomic for one look-up, not for one packet. The kernel asks which generation is current once
//! for the rules of a packet's chains (`nft_do_chain`, nf_tables_core.c), and again at each look-up in a set
//! (`nft_genmask_cur`). So a packet may find in a map what was there before a transaction, and look what that
//! leads to up after it:
//!
//! ```text
//!   packet:       @services ──▶ 2 ───────────────────────────▶ @endpoints_2: nothing, any more
//!   transaction:                    services: 3, endpoints_2: deleted, endpoints_3: added
//! ```
//!
//! or the other way round, where a map already leads to a chain that has no rules yet for it. Hence up to three:
//!
//! ```text
//!   1. chains that are new, with their rules, and sets that are new, with their elements
//!   2. everything else: elements that come or change, rules that change
//!   3. elements, sets and chains that only go
//! ```
//!
//! A new set's elements are there before any rule names it, because those of concatenated intervals are found only some
//! time after the rules of their transaction count (`nft_set_commit_update`, nf_tables_api.c).
//!
//! Elements of intervals go in the second, because those that come may overlap them. A table that is new has no
//! packets to confuse, and where a set or chain is made anew under its name, all is one transaction: what refers to
//! it leaves no choice.

use std::collections::BTreeSet;

use super::diff::{Action, NftStep, SetType};
use super::{Family, Key};

/// The transactions, in their order; none is empty. All steps, carried out in one go, come to the same.
#[must_use]
pub fn phases(steps: Vec<NftStep>) -> Vec<Vec<NftStep>> {
    let tables: BTreeSet<(Family, String)> = steps.iter().map(NftStep::table).collect();
    let mut phases = [Vec::new(), Vec::new(), Vec::new()];
    let mut steps = steps;
    for table in tables {
        let (of_table, others) = steps.into_iter().partition(|step| step.table() == table);
        steps = others;
        let parts = Names::of(&of_table).parts(of_table);
        for (phase, part) in phases.iter_mut().zip(parts) {
            phase.extend(part);
        }
    }
    phases
        .into_iter()
        .filter(|phase| !phase.is_empty())
        .collect()
}

impl NftStep {
    fn table(&self) -> (Family, String) {
        (self.family, self.table.clone())
    }
}

/// What the steps in one table make and delete.
#[derive(Default)]
struct Names {
    /// Chains without a hook, which nothing leads to yet.
    new_chains: BTreeSet<String>,
    gone_chains: BTreeSet<String>,
    /// Sets that no rule names yet.
    new_sets: BTreeSet<String>,
    /// Whether all is one transaction.
    whole: bool,
    /// Sets that lose elements.
    losing: BTreeSet<String>,
    /// Keys that come to them.
    come: BTreeSet<(String, Key)>,
}

impl Names {
    fn of(steps: &[NftStep]) -> Self {
        let mut names = Self::default();
        let mut gone = BTreeSet::new();
        for step in steps {
            match &step.action {
                Action::AddTable | Action::DeleteTable => names.whole = true,
                Action::DeleteChain(name) => drop(names.gone_chains.insert(name.clone())),
                Action::DeleteSet(name)
                | Action::DeleteCounter(name)
                | Action::DeleteLimit(name) => drop(gone.insert(name.as_str())),
                Action::AddSet(name, _) => {
                    names.whole |= gone.contains(name.as_str());
                    names.new_sets.insert(name.clone());
                }
                Action::AddCounter(name) | Action::AddLimit(name, _) => {
                    names.whole |= gone.contains(name.as_str());
                }
                Action::AddChain(name, hook) => {
                    names.whole |= names.gone_chains.contains(name);
                    if hook.is_none() {
                        names.new_chains.insert(name.clone());
                    }
                }
                Action::DeleteElements(set, ..) => drop(names.losing.insert(set.clone())),
                Action::AddElements(set, _, elements) if names.losing.contains(set) => {
                    let keys = elements.iter().map(|(key, _)| (set.clone(), key.clone()));
                    names.come.extend(keys);
                }
                _ => {}
            }
        }
        names
    }

    fn parts(&self, steps: Vec<NftStep>) -> [Vec<NftStep>; 3] {
        if self.whole {
            return [Vec::new(), steps, Vec::new()];
        }
        let mut parts = [Vec::new(), Vec::new(), Vec::new()];
        for step in steps {
            let [first, then, last] = &mut parts;
            match &step.action {
                Action::AddSet(..) | Action::AddCounter(_) | Action::AddLimit(..) => {
                    first.push(step)
                }
                Action::AddElements(set, ..) if self.new_sets.contains(set) => first.push(step),
                Action::AddChain(name, _) | Action::AddRules(name, _)
                    if self.new_chains.contains(name) =>
                {
                    first.push(step);
                }
                Action::FlushChain(name) if self.gone_chains.contains(name) => last.push(step),
                Action::DeleteSet(_)
                | Action::DeleteChain(_)
                | Action::DeleteCounter(_)
                | Action::DeleteLimit(_) => last.push(step),
                Action::DeleteElements(set, kind, keys) if !kind.interval => {
                    let (replaced, gone) = self.split(set, keys);
                    then.extend(deletion(&step, set, kind, replaced));
                    last.extend(deletion(&step, set, kind, gone));
                }
                _ => then.push(step),
            }
        }
        parts
    }

    /// The keys that come again, and those that only go.
    fn split(&self, set: &str, keys: &[Key]) -> (Vec<Key>, Vec<Key>) {
        let comes = |key: &Key| self.come.contains(&(set.to_owned(), key.clone()));
        keys.iter().cloned().partition(comes)
    }
}

fn deletion(of: &NftStep, set: &str, kind: &SetType, keys: Vec<Key>) -> Option<NftStep> {
    (!keys.is_empty()).then(|| NftStep {
        family: of.family,
        table: of.table.clone(),
        action: Action::DeleteElements(set.to_owned(), kind.clone(), keys),
    })
}
