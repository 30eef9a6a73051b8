//! Compares what a running server answers with the zone that it should hold.

use std::collections::BTreeSet;

use parfait_dns::{Data, Name, Rcode, RecordType, Shown, Zone};
use parfait_packet::{Difference, Fault, Finding, Origin};

/// What a server said to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The question's name.
    pub name: Name,
    /// The question's type.
    pub kind: RecordType,
    /// The outcome.
    pub rcode: Rcode,
    /// The records of the answer, in any order.
    pub records: Vec<(Name, Data)>,
}

/// Every question to which the zone has records: what to ask a server so that nothing is missed.
#[must_use]
pub fn questions(zone: &Zone) -> BTreeSet<(Name, RecordType)> {
    let records = zone.records();
    records
        .map(|found| (found.name, found.record.data.kind()))
        .collect()
}

/// Every difference, both ways, in the order of the observations. Times to live are not compared:
/// a cache between us and the server may have counted them down.
#[must_use]
pub fn prove(zone: &Zone, observed: &[Observation]) -> Vec<Finding> {
    observed.iter().flat_map(|o| differences(zone, o)).collect()
}

fn differences(zone: &Zone, observed: &Observation) -> Vec<Finding> {
    let answer = zone.answer(&observed.name, observed.kind);
    let question = format!("{} {}", observed.name, observed.kind);
    let mut findings = Vec::new();
    let mut add = |difference, item: String, found: String, origin: Option<Origin>| {
        findings.push(Finding {
            fault: Fault::NameDifferent,
            difference,
            item,
            found,
            origin,
        });
    };
    if answer.rcode == Rcode::NotOurs {
        return findings;
    }
    if answer.rcode != observed.rcode {
        let found = format!("{:?}", observed.rcode);
        let item = format!("{question}: {:?}", answer.rcode);
        add(
            Difference::Different,
            item,
            found,
            answer.origins().into_iter().next(),
        );
    }
    let shown = |name: &Name, data: &Data| {
        Shown {
            name,
            ttl: zone.ttl(),
            data,
        }
        .to_string()
    };
    for found in &answer.records {
        let same = |(name, data): &(Name, Data)| *name == found.name && *data == found.record.data;
        if !observed.records.iter().any(same) {
            let origin = Some(found.record.origin.clone());
            let item = shown(&found.name, &found.record.data);
            add(Difference::Missing, item, String::new(), origin);
        }
    }
    for (name, data) in &observed.records {
        let same = answer
            .records
            .iter()
            .any(|f| f.name == *name && f.record.data == *data);
        // What follows an alias out of the zone is another server's.
        if !same && zone.holds(name) {
            add(Difference::Extra, shown(name, data), String::new(), None);
        }
    }
    findings
}
