//! What a resolver makes of a name: every name that it tries, what it is told, and why.
//!
//! A pod's `resolv.conf` has a search list and `ndots:5`. A name with fewer dots is tried with each
//! suffix first and as it is last, one with as many or more the other way round, and one that ends
//! with a dot only as it is (resolv.conf(5), glibc's res_nsearch). So `example.org` costs a pod three
//! questions in vain before the right one, which explain shows.

use std::net::IpAddr;

use parfait_dns::{Name, Rcode, RecordType, Zone};
use parfait_packet::{Origin, Reason};
use serde::Serialize;

/// How a resolver gets on with a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// What it tries, in order, up to what ends the search.
    pub steps: Vec<Step>,
    /// How the search ends.
    pub outcome: Outcome,
}

/// One name that is tried, by a question for A and one for AAAA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The name.
    pub name: Name,
    /// What the server says.
    pub said: Said,
}

/// What the server says to one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Said {
    /// These addresses, and the objects that they come from.
    Addresses {
        /// IPv4 first, each family in the zone's order.
        addresses: Vec<IpAddr>,
        /// Why.
        origins: Vec<Origin>,
        /// The names on the way, if it is an alias.
        aliases: Vec<Name>,
    },
    /// The name exists and has no address (NODATA). The objects, if it has other records.
    NoAddress(Vec<Origin>),
    /// There is no such name (NXDOMAIN).
    NoName,
    /// It asks a server outside of the cluster for this name, itself or an alias's target.
    Outside {
        /// What is asked for there.
        name: Name,
        /// The object that points there, if one does.
        origins: Vec<Origin>,
    },
}

/// How the search ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// With addresses: those of the last step.
    Addresses(Vec<IpAddr>),
    /// Without; why.
    Nothing(Reason),
}

/// The search list of a pod in a namespace, as the kubelet writes it.
#[must_use]
pub fn search_list(domain: &Name, namespace: &str) -> Vec<Name> {
    let services = domain.child("svc").ok();
    let namespace = services.as_ref().and_then(|s| s.child(namespace).ok());
    namespace
        .into_iter()
        .chain(services)
        .chain([domain.clone()])
        .collect()
}

/// Resolves a name as a resolver with this search list and `ndots` does. `None` if the text is no name.
#[must_use]
pub fn explain(zone: &Zone, search: &[Name], ndots: usize, name: &str) -> Option<Explanation> {
    let mut steps = Vec::new();
    for candidate in candidates(search, ndots, name)? {
        let said = ask(zone, &candidate);
        let done = matches!(said, Said::Addresses { .. });
        steps.push(Step {
            name: candidate,
            said,
        });
        if done {
            break;
        }
    }
    let outcome = outcome(&steps);
    Some(Explanation { steps, outcome })
}

/// The names that are tried, in order.
fn candidates(search: &[Name], ndots: usize, name: &str) -> Option<Vec<Name>> {
    let as_it_is: Name = name.parse().ok()?;
    if name.ends_with('.') {
        return Some(vec![as_it_is]);
    }
    let dots = name.bytes().filter(|b| *b == b'.').count();
    // A suffix that makes the name too long is passed over.
    let with_suffixes = search
        .iter()
        .filter_map(|suffix| format!("{name}.{suffix}").parse().ok());
    let mut candidates: Vec<Name> = with_suffixes.collect();
    match dots >= ndots {
        true => candidates.insert(0, as_it_is),
        false => candidates.push(as_it_is),
    }
    Some(candidates)
}

fn ask(zone: &Zone, name: &Name) -> Said {
    let answers = [RecordType::A, RecordType::Aaaa].map(|kind| zone.answer(name, kind));
    let mut origins = Vec::new();
    for origin in answers.iter().flat_map(|a| a.origins()) {
        if !origins.contains(&origin) {
            origins.push(origin);
        }
    }
    let [v4, _] = &answers;
    if let Some(outside) = v4.outside.clone() {
        return Said::Outside {
            name: outside,
            origins,
        };
    }
    let addresses: Vec<IpAddr> = answers.iter().flat_map(|a| a.addresses()).collect();
    match v4.rcode {
        Rcode::NotOurs => Said::Outside {
            name: name.clone(),
            origins,
        },
        _ if !addresses.is_empty() => {
            let mut aliases: Vec<Name> = Vec::new();
            for found in answers.iter().flat_map(|a| &a.records) {
                if found.name != *name && !aliases.contains(&found.name) {
                    aliases.push(found.name.clone());
                }
            }
            Said::Addresses {
                addresses,
                origins,
                aliases,
            }
        }
        Rcode::NoError => Said::NoAddress(origins),
        Rcode::NxDomain => Said::NoName,
    }
}

/// A name that exists without an address weighs more than those that do not exist, and what only
/// servers outside know more than both.
fn outcome(steps: &[Step]) -> Outcome {
    let mut reason = Reason::NoSuchName;
    for step in steps {
        match &step.said {
            Said::Addresses { addresses, .. } => return Outcome::Addresses(addresses.clone()),
            Said::NoAddress(_) if reason == Reason::NoSuchName => {
                reason = Reason::NameWithoutAddress;
            }
            Said::Outside { .. } if reason == Reason::NoSuchName => {
                reason = Reason::ExternalDestination;
            }
            Said::NoAddress(_) | Said::Outside { .. } | Said::NoName => {}
        }
    }
    Outcome::Nothing(reason)
}
