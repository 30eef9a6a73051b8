//! [`Zone`]: names and their records, and the one function that answers a question from them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;

use ipnet::IpNet;
use parfait_packet::{Family, Origin};

use crate::{Data, Name, Record, RecordType, Shown};

/// How many aliases are followed.
const MOST_ALIASES: usize = 8;

/// The outcome of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rcode {
    /// The name exists. Without records: it has none of that type (NODATA).
    NoError,
    /// Neither the name nor anything below it exists.
    NxDomain,
    /// The name is not in this zone; somebody else may know it.
    NotOurs,
}

/// All names that a cluster's server answers for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    domain: Name,
    ttl: u32,
    soa: Record,
    /// The ranges whose reverse names are the zone's too.
    networks: Vec<IpNet>,
    names: BTreeMap<Name, Records>,
    reverse: BTreeMap<IpAddr, Records>,
}

/// The records of one name. Shared, so that a copy of a zone that differs in one name costs little.
type Records = Arc<Vec<Record>>;

/// A record in an answer, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<'z> {
    /// The owner.
    pub name: Name,
    /// The record.
    pub record: &'z Record,
}

/// An answer to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<'z> {
    /// The outcome.
    pub rcode: Rcode,
    /// What was asked for, aliases first.
    pub records: Vec<Found<'z>>,
    /// With no records: the zone's SOA, which says how long that holds.
    pub authority: Vec<Found<'z>>,
    /// The addresses of names in `records`.
    pub additional: Vec<Found<'z>>,
    /// The target of the last alias, if it lies outside of the zone: somebody else knows it.
    pub outside: Option<Name>,
}

impl Zone {
    /// An empty zone that holds the names below `domain` and the reverse names of `networks`.
    #[must_use]
    pub fn new(domain: Name, soa: Record, ttl: u32, networks: Vec<IpNet>) -> Self {
        Self {
            domain,
            ttl,
            soa,
            networks,
            names: BTreeMap::new(),
            reverse: BTreeMap::new(),
        }
    }

    /// The domain whose names it holds.
    #[must_use]
    pub fn domain(&self) -> &Name {
        &self.domain
    }

    /// How long its records may be remembered, in seconds.
    #[must_use]
    pub fn ttl(&self) -> u32 {
        self.ttl
    }

    /// Adds a record. Of two that say the same one stays, with the first of their origins.
    pub fn insert(&mut self, name: Name, record: Record) {
        let records = match name.reversed_address() {
            Some(address) => self.reverse.entry(address).or_default(),
            None => self.names.entry(name).or_default(),
        };
        let records = Arc::make_mut(records);
        // Sorted, so that the order in which objects came does not matter.
        let place = records.partition_point(|r| r.data < record.data);
        match records.get_mut(place).filter(|r| r.data == record.data) {
            Some(same) if same.origin <= record.origin => {}
            Some(same) => same.origin = record.origin,
            None => records.insert(place, record),
        }
    }

    /// Makes a name exist though it has no records, as a namespace's does.
    pub fn insert_empty(&mut self, name: Name) {
        self.names.entry(name).or_default();
    }

    /// Takes back what [`Zone::insert_empty`] did. Records, and names below, stay.
    pub fn remove_empty(&mut self, name: &Name) {
        if self
            .names
            .get(name)
            .is_some_and(|records| records.is_empty())
        {
            self.names.remove(name);
        }
    }

    /// Removes a name and everything below it.
    pub fn remove_below(&mut self, name: &Name) {
        self.names.remove(name);
        let prefix = name.below();
        while let Some(next) = first_below(&self.names, &prefix).cloned() {
            self.names.remove(&next);
        }
    }

    /// Removes the reverse records that name `target` or a name below it.
    pub fn remove_reverse(&mut self, address: IpAddr, target: &Name) {
        let Some(records) = self.reverse.get_mut(&address) else {
            return;
        };
        let records = Arc::make_mut(records);
        records.retain(|r| !matches!(&r.data, Data::Ptr(to) if to.is_within(target)));
        if records.is_empty() {
            self.reverse.remove(&address);
        }
    }

    /// Every record, with its owner.
    pub fn records(&self) -> impl Iterator<Item = Found<'_>> {
        let names = self.names.iter();
        let forward = names.flat_map(|(name, all)| all.iter().map(|r| (name.clone(), r)));
        let reverse = self.reverse.iter();
        let reverse = reverse.flat_map(|(a, all)| all.iter().map(|r| (Name::reverse(*a), r)));
        forward
            .chain(reverse)
            .map(|(name, record)| Found { name, record })
    }

    /// Whether a name is this zone's to answer for.
    #[must_use]
    pub fn holds(&self, name: &Name) -> bool {
        if name.is_within(&self.domain) {
            return true;
        }
        name.reversed_address().is_some_and(|address| {
            let family = Family::of(address);
            let holds = |n: &IpNet| Family::of(n.addr()) == family && n.contains(&address);
            self.reverse.contains_key(&address) || self.networks.iter().any(holds)
        })
    }

    /// Answers a question.
    #[must_use]
    pub fn answer(&self, name: &Name, kind: RecordType) -> Answer<'_> {
        let mut answer = Answer {
            rcode: Rcode::NotOurs,
            records: Vec::new(),
            authority: Vec::new(),
            additional: Vec::new(),
            outside: None,
        };
        let mut name = name.clone();
        for _ in 0..MOST_ALIASES {
            if !self.holds(&name) {
                if answer.records.is_empty() && is_plain(&name, kind) {
                    answer.rcode = Rcode::NxDomain;
                }
                answer.outside = (!answer.records.is_empty()).then_some(name);
                return answer;
            }
            let Some(alias) = self.look_up(&name, kind, &mut answer) else {
                break;
            };
            answer.rcode = Rcode::NoError;
            name = alias.clone();
        }
        if !answer
            .records
            .iter()
            .any(|f| kind.asks_for(f.record.data.kind()))
        {
            answer.authority = vec![self.start()];
        }
        answer.additional = self.additional(&answer.records);
        answer
    }

    /// Adds the records of one name. Returns the target if it is an alias that has to be followed.
    fn look_up<'z>(
        &'z self,
        name: &Name,
        kind: RecordType,
        answer: &mut Answer<'z>,
    ) -> Option<&'z Name> {
        let Some(records) = self.at(name) else {
            answer.rcode = match self.exists(name) {
                true => Rcode::NoError,
                false => Rcode::NxDomain,
            };
            return None;
        };
        answer.rcode = Rcode::NoError;
        if *name == self.domain && kind.asks_for(RecordType::Soa) {
            answer.records.push(self.start());
        }
        for record in records {
            let found = record.data.kind();
            if kind.asks_for(found) || found == RecordType::Cname {
                answer.records.push(Found {
                    name: name.clone(),
                    record,
                });
            }
        }
        match records {
            [
                Record {
                    data: Data::Cname(target),
                    ..
                },
            ] if !kind.asks_for(RecordType::Cname) => Some(target),
            _ => None,
        }
    }

    fn at(&self, name: &Name) -> Option<&[Record]> {
        let records = match name.reversed_address() {
            Some(address) => self.reverse.get(&address),
            None => self.names.get(name),
        };
        match records {
            // The apex has at least its SOA.
            None if *name == self.domain => Some(&[]),
            other => other.map(|records| records.as_slice()),
        }
    }

    /// Whether a name without records exists, since something exists below it (RFC 8020).
    fn exists(&self, name: &Name) -> bool {
        first_below(&self.names, &name.below()).is_some()
    }

    fn start(&self) -> Found<'_> {
        Found {
            name: self.domain.clone(),
            record: &self.soa,
        }
    }

    /// The addresses of the hosts that SRV and NS records name (RFC 2782).
    fn additional(&self, records: &[Found<'_>]) -> Vec<Found<'_>> {
        let mut targets: Vec<&Name> = Vec::new();
        for found in records {
            if let Data::Srv { target, .. } | Data::Ns(target) = &found.record.data
                && !targets.contains(&target)
            {
                targets.push(target);
            }
        }
        let mut additional = Vec::new();
        for target in targets {
            let records = self.at(target).unwrap_or_default().iter();
            let addresses = records.filter(|r| matches!(r.data, Data::Address(_)));
            additional.extend(addresses.map(|record| Found {
                name: target.clone(),
                record,
            }));
        }
        additional
    }
}

impl Answer<'_> {
    /// The objects that the answer's records exist for, each once.
    #[must_use]
    pub fn origins(&self) -> Vec<Origin> {
        let mut origins: Vec<Origin> = Vec::new();
        for found in &self.records {
            if !origins.contains(&found.record.origin) {
                origins.push(found.record.origin.clone());
            }
        }
        origins
    }

    /// The addresses it leads to.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.records.iter().filter_map(|f| match f.record.data {
            Data::Address(address) => Some(address),
            _ => None,
        })
    }
}

impl Found<'_> {
    /// The record as `dig` prints it.
    #[must_use]
    pub fn shown(&self, ttl: u32) -> Shown<'_> {
        Shown {
            name: &self.name,
            ttl,
            data: &self.record.data,
        }
    }
}

/// Whether a question is for the address of a name without a dot. Nobody has one: such questions are
/// short names at the end of a search list, and are answered here rather than asked outside, where they
/// would only tell strangers about the cluster (as dnsmasq does with `domain-needed`).
fn is_plain(name: &Name, kind: RecordType) -> bool {
    name.labels().count() == 1 && matches!(kind, RecordType::A | RecordType::Aaaa)
}

/// The first name that begins with a prefix.
fn first_below<'a>(names: &'a BTreeMap<Name, Records>, prefix: &str) -> Option<&'a Name> {
    let from = (Bound::Included(prefix), Bound::Unbounded);
    let (name, _) = names.range::<str, _>(from).next()?;
    let text: &str = std::borrow::Borrow::borrow(name);
    text.starts_with(prefix).then_some(name)
}

#[cfg(test)]
#[path = "zone_tests.rs"]
mod tests;
