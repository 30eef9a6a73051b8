//! Compares the kernel's links, neighbours and forwarding entries with the planned ones.

use parfait_cluster::Underlay;
use parfait_linux::attachment::is_host_interface;
use parfait_linux::{Faults, IfName, Link, State, compare};
use parfait_packet::{Difference, Fault, Finding, Kind, Origin};

use crate::Plan;
use crate::plan::TUNNEL;

/// Every difference, both ways. `desired` is what [`crate::apply()`] returned, `observed` the whole
/// node; what is neither planned nor Parfait's by its name is left out.
#[must_use]
pub fn prove(desired: &State, observed: &State) -> Vec<Finding> {
    let links = compare(
        &Faults {
            missing: Fault::LinkMissing,
            different: spoiled,
            extra: Fault::LinkExtra,
        },
        &desired.links,
        &observed.links,
        |found, wanted| found.satisfies(wanted) && (found.carrier || !wanted.up),
        |name, _| ours(name),
    );
    let neighbours = compare(
        &Faults {
            missing: Fault::NeighbourMissing,
            different: |_, _| Fault::NeighbourDifferent,
            extra: Fault::NeighbourExtra,
        },
        &desired.neighbours,
        &observed.neighbours,
        PartialEq::eq,
        |key, found| ours(&key.0) && found.permanent,
    );
    let fdb = compare(
        &Faults {
            missing: Fault::FdbMissing,
            // An entry is its destination: one that leads elsewhere is another.
            different: |_, _| Fault::FdbMissing,
            extra: Fault::FdbExtra,
        },
        &desired.fdb,
        &observed.fdb,
        PartialEq::eq,
        |key, _| ours(&key.0),
    );
    [links, neighbours, fdb].concat()
}

/// What matters most about a link that is not as planned.
fn spoiled(found: &Link, wanted: &Link) -> Fault {
    if found.up != wanted.up || !found.carrier {
        Fault::LinkDown
    } else if found.mtu != wanted.mtu {
        Fault::WrongMtu
    } else {
        Fault::LinkDifferent
    }
}

/// The underlay as its node reported it against the interface that is there. It is nobody's plan, but
/// everything stands on it.
#[must_use]
pub fn underlay(plan: &Plan, observed: &State) -> Vec<Finding> {
    let interfaces = plan.underlay.iter().flat_map(Underlay::interfaces);
    interfaces
        .flat_map(|reported| interface(&plan.node, reported, observed))
        .collect()
}

fn interface(node: &str, reported: &Underlay, observed: &State) -> Vec<Finding> {
    let origin = Origin::new(Kind::Node, "", node).field("status.addresses");
    let finding = |fault, difference, item: String, found: String| Finding {
        fault,
        difference,
        item,
        found,
        origin: Some(origin.clone()),
    };
    let name = IfName::new(&reported.interface).ok();
    let Some(item) = name.and_then(|name| observed.links.get(&name)) else {
        let item = format!("{}: mtu {} up", reported.interface, reported.mtu);
        let gone = finding(
            Fault::UnderlayLost,
            Difference::Missing,
            item,
            String::new(),
        );
        return vec![gone];
    };
    let link = &item.value;
    let wanted = format!("{}: mtu {} up", link.name, reported.mtu);
    let mut findings = Vec::new();
    if !link.up || !link.carrier {
        let found = link.to_string();
        findings.push(finding(
            Fault::LinkDown,
            Difference::Different,
            wanted,
            found,
        ));
    } else if link.mtu.bytes() != reported.mtu {
        let found = link.to_string();
        findings.push(finding(
            Fault::WrongMtu,
            Difference::Different,
            wanted,
            found,
        ));
    }
    for address in &reported.addresses {
        if !observed
            .addresses
            .contains_key(&(link.name.clone(), *address))
        {
            let item = format!("{address} dev {}", link.name);
            findings.push(finding(
                Fault::UnderlayLost,
                Difference::Missing,
                item,
                String::new(),
            ));
        }
    }
    findings
}

fn ours(link: &IfName) -> bool {
    link.as_str() == TUNNEL || is_host_interface(link.as_str())
}
