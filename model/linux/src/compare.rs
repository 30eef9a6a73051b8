//! [`compare()`]: planned things against observed ones, both ways, as findings.
//!
//! [`crate::diff()`] answers "what to do"; this answers "what is wrong", for people: it names the
//! object that each difference exists for.

use std::collections::BTreeMap;
use std::fmt::Display;

use parfait_packet::{Difference, Fault, Finding};

use crate::Item;

/// The faults that differences of one kind of thing are.
#[derive(Debug)]
pub struct Faults<T> {
    /// Planned, and not there.
    pub missing: Fault,
    /// Not as planned, by what is there and what was planned.
    pub different: fn(&T, &T) -> Fault,
    /// There, Parfait's, and not planned.
    pub extra: Fault,
}

/// Every difference between two maps of things. `satisfies(observed, desired)` says when a thing is
/// as planned, `ours(key)` whether one that is not planned is Parfait's, and therefore extra.
pub fn compare<K: Ord, T: Display>(
    faults: &Faults<T>,
    desired: &BTreeMap<K, Item<T>>,
    observed: &BTreeMap<K, Item<T>>,
    satisfies: impl Fn(&T, &T) -> bool,
    ours: impl Fn(&K, &T) -> bool,
) -> Vec<Finding> {
    let finding = |fault, difference, item: &Item<T>, found: String| Finding {
        fault,
        difference,
        item: item.value.to_string(),
        found,
        origin: item.origin.clone(),
    };
    let planned = desired
        .iter()
        .filter_map(|(key, wanted)| match observed.get(key) {
            None => Some(finding(
                faults.missing,
                Difference::Missing,
                wanted,
                String::new(),
            )),
            Some(found) if satisfies(&found.value, &wanted.value) => None,
            Some(found) => Some(finding(
                (faults.different)(&found.value, &wanted.value),
                Difference::Different,
                wanted,
                found.value.to_string(),
            )),
        });
    let extra = observed
        .iter()
        .filter(|(key, found)| !desired.contains_key(key) && ours(key, &found.value))
        .map(|(_, found)| finding(faults.extra, Difference::Extra, found, String::new()));
    planned.chain(extra).collect()
}
