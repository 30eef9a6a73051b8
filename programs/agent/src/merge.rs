//! [`objects`] and [`tables`]: what the kernel should hold if only the plan's own changes are carried out, and
//! what other programs have changed stays (`foreignChanges: report`).
//!
//! ```text
//!   carried out last │ planned now │ the goal
//!   the same           the same      what is there, whoever put it there
//!   different          different     what is planned now
//! ```

use std::collections::BTreeMap;

use parfait_linux::State;
use parfait_linux::nft::{Chain, Set, Table, Tables};

/// The goal for everything but tables.
pub(crate) fn objects(carried: &State, desired: &State, observed: &State) -> State {
    State {
        links: merge(&carried.links, &desired.links, &observed.links),
        addresses: merge(&carried.addresses, &desired.addresses, &observed.addresses),
        routes: merge(&carried.routes, &desired.routes, &observed.routes),
        neighbours: merge(
            &carried.neighbours,
            &desired.neighbours,
            &observed.neighbours,
        ),
        fdb: merge(&carried.fdb, &desired.fdb, &observed.fdb),
        sysctls: merge(&carried.sysctls, &desired.sysctls, &observed.sysctls),
        tables: Tables::new(),
    }
}

/// The goal for the tables: chain by chain, and element by element of sets that are as they were.
pub(crate) fn tables(carried: &Tables, desired: &Tables, observed: &Tables) -> Tables {
    let mut goal = merge(carried, desired, observed);
    for (key, wanted) in desired {
        if let (Some(before), Some(found)) = (carried.get(key), observed.get(key)) {
            goal.insert(key.clone(), table(before, wanted, found));
        }
    }
    goal
}

fn table(carried: &Table, desired: &Table, observed: &Table) -> Table {
    let chains: BTreeMap<String, Chain> = merge(&carried.chains, &desired.chains, &observed.chains);
    let mut sets: BTreeMap<String, Set> = merge(&carried.sets, &desired.sets, &observed.sets);
    for (name, wanted) in &desired.sets {
        let (before, found) = (carried.sets.get(name), observed.sets.get(name));
        if let (Some(before), Some(found)) = (before, found)
            && is_alike(before, wanted)
            && is_alike(found, wanted)
        {
            let mut set = wanted.clone();
            set.elements = merge(&before.elements, &wanted.elements, &found.elements);
            sets.insert(name.clone(), set);
        }
    }
    Table {
        chains,
        sets,
        ..desired.clone()
    }
}

/// Whether the elements of one could be the other's.
fn is_alike(a: &Set, b: &Set) -> bool {
    let empty = |set: &Set| Set {
        elements: BTreeMap::new(),
        ..set.clone()
    };
    empty(a) == empty(b)
}

fn merge<K: Ord + Clone, V: Clone + PartialEq>(
    carried: &BTreeMap<K, V>,
    desired: &BTreeMap<K, V>,
    observed: &BTreeMap<K, V>,
) -> BTreeMap<K, V> {
    let keys = observed.keys().chain(desired.keys());
    keys.filter_map(|key| {
        let planned = desired.get(key);
        let goal = match carried.get(key) == planned {
            true => observed.get(key),
            false => planned,
        };
        Some((key.clone(), goal?.clone()))
    })
    .collect()
}
