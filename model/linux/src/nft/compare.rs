//! [`compare`]: a planned table against an observed one, both ways, as findings.
//!
//! [`super::diff()`] answers "what to do"; this answers "what is wrong", for people: one finding for each
//! element and rule, naming the object that it exists for.

use std::collections::BTreeMap;

use parfait_packet::{Difference, Fault, Finding, Origin};

use super::diff::SetType;
use super::{Chain, Family, Set, Table, canonical, render};

/// Every difference in the sets and chains that a layer planned, and those of its own by name
/// (`ours`) that it did not plan. Of a table that layers share, each compares its `part`, by name.
pub fn compare(
    fault: Fault,
    desired: &Table,
    observed: Option<&Table>,
    part: impl Fn(&str) -> bool,
    ours: impl Fn(&str) -> bool,
) -> Vec<Finding> {
    let mut findings = Findings {
        fault,
        family: desired.family,
        found: Vec::new(),
    };
    let name = format!("table {} {}", desired.family, desired.name);
    let Some(observed) = observed else {
        findings.add(Difference::Missing, name, String::new(), None);
        return findings.found;
    };
    let (desired, observed) = (canonical(desired), canonical(observed));
    for (name, set) in desired.sets.iter().filter(|(name, _)| part(name)) {
        match observed.sets.get(name) {
            None => findings.add(
                Difference::Missing,
                format!("set {name}"),
                String::new(),
                None,
            ),
            Some(found) => findings.elements(name, set, found),
        }
    }
    findings.objects(&desired, &observed, &part);
    for (name, chain) in desired.chains.iter().filter(|(name, _)| part(name)) {
        match observed.chains.get(name) {
            None => findings.add(
                Difference::Missing,
                format!("chain {name}"),
                String::new(),
                None,
            ),
            Some(found) => findings.rules(name, chain, found),
        }
    }
    findings.unplanned("set", &desired.sets, &observed.sets, &ours);
    findings.unplanned("chain", &desired.chains, &observed.chains, &ours);
    for name in observed
        .counters
        .difference(&desired.counters)
        .filter(|name| ours(name))
    {
        findings.add(
            Difference::Extra,
            format!("counter {name}"),
            String::new(),
            None,
        );
    }
    findings.unplanned("limit", &desired.limits, &observed.limits, &ours);
    findings.found
}

struct Findings {
    fault: Fault,
    family: Family,
    found: Vec<Finding>,
}

impl Findings {
    fn add(&mut self, difference: Difference, item: String, found: String, origin: Option<Origin>) {
        self.found.push(Finding {
            fault: self.fault,
            difference,
            item,
            found,
            origin,
        });
    }

    fn elements(&mut self, name: &str, desired: &Set, observed: &Set) {
        let print = |key: &super::Key, element: &super::Element| {
            format!(
                "element @{name} {}",
                render::element(&desired.key, key, element)
            )
        };
        if SetType::of(desired) != SetType::of(observed) {
            let found = render::set(self.family, name, observed);
            self.add(
                Difference::Different,
                format!("type of set {name}"),
                found,
                None,
            );
            return;
        }
        if desired.dynamic.is_some() {
            // They come and go with packets.
            return;
        }
        for (key, wanted) in &desired.elements {
            let origin = wanted.origin.clone();
            match observed.elements.get(key) {
                None => self.add(
                    Difference::Missing,
                    print(key, wanted),
                    String::new(),
                    origin,
                ),
                Some(found) if found == wanted => {}
                Some(found) => {
                    self.add(
                        Difference::Different,
                        print(key, wanted),
                        print(key, found),
                        origin,
                    );
                }
            }
        }
        for (key, found) in &observed.elements {
            if !desired.elements.contains_key(key) {
                let origin = found.origin.clone();
                self.add(Difference::Extra, print(key, found), String::new(), origin);
            }
        }
    }

    fn objects(&mut self, desired: &Table, observed: &Table, part: &impl Fn(&str) -> bool) {
        let missing = desired.counters.difference(&observed.counters);
        for name in missing.filter(|name| part(name)) {
            self.add(
                Difference::Missing,
                format!("counter {name}"),
                String::new(),
                None,
            );
        }
        for (name, wanted) in desired.limits.iter().filter(|(name, _)| part(name)) {
            match observed.limits.get(name) {
                None => self.add(
                    Difference::Missing,
                    format!("limit {name}"),
                    String::new(),
                    None,
                ),
                Some(found) if found == wanted => {}
                Some(found) => {
                    let found = render::limit(found);
                    self.add(Difference::Different, format!("limit {name}"), found, None);
                }
            }
        }
    }

    fn rules(&mut self, name: &str, desired: &Chain, observed: &Chain) {
        if desired.hook != observed.hook {
            let found = observed
                .hook
                .map(|hook| hook.to_string())
                .unwrap_or_default();
            self.add(
                Difference::Different,
                format!("hook of chain {name}"),
                found,
                None,
            );
        }
        let print = |rule: &super::Rule| format!("chain {name}: {rule}");
        let longest = desired.rules.len().max(observed.rules.len());
        for index in 0..longest {
            match (desired.rules.get(index), observed.rules.get(index)) {
                (Some(wanted), Some(found)) if wanted == found => {}
                (Some(wanted), Some(found)) => {
                    let origin = wanted.origin.clone();
                    self.add(Difference::Different, print(wanted), print(found), origin);
                }
                (Some(wanted), None) => {
                    let origin = wanted.origin.clone();
                    self.add(Difference::Missing, print(wanted), String::new(), origin);
                }
                (None, Some(found)) => {
                    let origin = found.origin.clone();
                    self.add(Difference::Extra, print(found), String::new(), origin);
                }
                (None, None) => {}
            }
        }
    }

    fn unplanned<T>(
        &mut self,
        what: &str,
        desired: &BTreeMap<String, T>,
        observed: &BTreeMap<String, T>,
        ours: &impl Fn(&str) -> bool,
    ) {
        for name in observed
            .keys()
            .filter(|name| !desired.contains_key(*name) && ours(name))
        {
            self.add(
                Difference::Extra,
                format!("{what} {name}"),
                String::new(),
                None,
            );
        }
    }
}
