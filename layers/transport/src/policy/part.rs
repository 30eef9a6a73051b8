//! [`Part`]: what is lowered of a plan: all of it, or what differs from another one ([`difference()`]).
//!
//! Parts of plans that follow each other share what is the same ([`Arc::ptr_eq`]), so a difference costs what differs, but for
//! one look at each pod and class of the node.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use parfait_cluster::Direction;
use parfait_linux::nft::{Data, DataType, Element, Field, Set, Table, Value, Verdict};
use parfait_packet::{Family, Origin};

use super::apply::{TO_NODE, add_base, add_class, add_shared, add_step, isolated, own, set};
use super::class::{Class, Step, Tier};
use super::ended::{self, ENDED};
use super::host;
use super::plan::{Isolated, Plan};
use crate::apply::Patch;
use crate::ruleset::table_family;

/// The parts of the tables that differ between two plans, as they are in each.
#[must_use]
pub fn difference(before: &Plan, after: &Plan) -> Patch {
    let mut patch = Patch::default();
    if std::ptr::eq(before, after) {
        return patch;
    }
    for family in Family::ALL {
        let (mut was, mut is) = (Part::of(before, family), Part::of(after, family));
        was.trim(&mut is);
        if !(was.is_empty() && is.is_empty()) {
            let [was, is] = [was, is].map(|part| part.lower(family));
            patch.before.insert(was.key(), was);
            patch.after.insert(is.key(), is);
        }
    }
    patch
}

/// What is lowered of one family: all of a plan, or [what two of them do not have in common](Part::trim).
pub(super) struct Part<'a> {
    pods: BTreeMap<IpAddr, &'a Isolated>,
    /// By name.
    classes: BTreeMap<&'a str, &'a Arc<Class>>,
    /// Those that have chains of their own, by these.
    tiers: BTreeMap<&'a str, (Direction, &'a Arc<Tier>)>,
    /// Those of tiers with chains of their own, by name.
    steps: BTreeMap<&'a str, (Direction, &'a Arc<Step>)>,
    /// Addresses of both families, in order, by the names of their sets.
    groups: BTreeMap<&'a str, Cow<'a, [IpAddr]>>,
    /// What is there wherever a pod is isolated.
    base: Option<Base<'a>>,
    /// Whether there are ClusterNetworkPolicies for packets to the node.
    to_node: bool,
    /// What is of the node itself.
    host: Option<host::Part<'a>>,
    /// Whether connections can be ended.
    ended: bool,
    /// Whether policies select any pod.
    any: bool,
}

#[derive(PartialEq)]
pub(super) struct Base<'a> {
    pub(super) served: Vec<(IpAddr, &'a Origin)>,
    pub(super) to_node: bool,
}

impl<'a> Part<'a> {
    pub(super) fn of(plan: &'a Plan, family: Family) -> Self {
        let pods = plan.pods.iter();
        let pods = pods.filter(|(address, _)| Family::of(**address) == family);
        let pods: BTreeMap<IpAddr, &Isolated> = pods.map(|(at, pod)| (*at, pod)).collect();
        let classes = pods.values().flat_map(|pod| {
            let both = [&pod.ingress, &pod.egress];
            both.into_iter().flatten()
        });
        let classes: BTreeMap<&str, &Arc<Class>> =
            classes.map(|class| (class.name.as_str(), class)).collect();
        let any = !pods.is_empty();
        let mut egress = pods.values().filter_map(|pod| pod.egress.as_ref());
        let to_node = egress.any(|class| class.towards_node().is_some());
        let served = plan.served.iter();
        let served = served.filter(|(address, _)| Family::of(**address) == family);
        let host = host::Part::of(plan, family);
        let tiers = tiers(&classes);
        Self {
            groups: groups(&classes, &tiers),
            steps: steps(&tiers),
            tiers,
            base: any.then(|| Base {
                served: served.map(|(address, by)| (*address, by)).collect(),
                to_node,
            }),
            pods,
            classes,
            to_node,
            ended: any || host.is_some(),
            host,
            any,
        }
    }

    /// Takes out what is the same in both, as far as that is cheap to say.
    fn trim(&mut self, other: &mut Self) {
        if self.base == other.base {
            (self.base, other.base) = (None, None);
        }
        if self.host == other.host {
            (self.host, other.host) = (None, None);
        }
        if self.ended == other.ended {
            (self.ended, other.ended) = (false, false);
        }
        // Maps lead to chains; what is in these does not matter to them.
        let same = |a: Option<&Arc<Class>>, b: Option<&Arc<Class>>| match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a.leads_as(b),
            (a, b) => a.is_none() && b.is_none(),
        };
        uncommon(&mut self.pods, &mut other.pods, |a, b| {
            let classes = same(a.ingress.as_ref(), b.ingress.as_ref());
            classes && same(a.egress.as_ref(), b.egress.as_ref()) && a.pod == b.pod
        });
        uncommon(&mut self.classes, &mut other.classes, |a, b| {
            Arc::ptr_eq(a, b) || a.is_lowered_as(b)
        });
        uncommon(&mut self.tiers, &mut other.tiers, |(_, a), (_, b)| {
            Arc::ptr_eq(a, b) || a.is_lowered_as(b)
        });
        uncommon(&mut self.steps, &mut other.steps, |(_, a), (_, b)| {
            Arc::ptr_eq(a, b) || a.is_lowered_as(b)
        });
        uncommon(&mut self.groups, &mut other.groups, |a, b| {
            std::ptr::eq(&**a, &**b) || a == b
        });
        for (name, addresses) in &mut self.groups {
            if let Some(others) = other.groups.get_mut(name) {
                let (mine, theirs) = (only(addresses, others), only(others, addresses));
                (*addresses, *others) = (Cow::Owned(mine), Cow::Owned(theirs));
            }
        }
    }

    fn is_empty(&self) -> bool {
        let nothing = self.pods.is_empty() && self.classes.is_empty();
        let nothing = nothing && self.tiers.is_empty() && self.steps.is_empty();
        let nothing = nothing && self.groups.is_empty() && !self.ended;
        nothing && self.base.is_none() && self.host.is_none()
    }

    pub(super) fn lower(&self, family: Family) -> Table {
        let mut table = Table::new(table_family(family), "parfait");
        if self.ended {
            table = table.set(ENDED, ended::definition());
        }
        if let Some(host) = &self.host {
            table = host.add(table, family);
        }
        if !self.any {
            return table;
        }
        if let Some(base) = &self.base {
            table = add_base(table, base);
        }
        table = self.add_pods(table);
        for (name, addresses) in &self.groups {
            let by = Origin::parfait("peers");
            let addresses = addresses.iter().filter(|ip| Family::of(**ip) == family);
            let elements = addresses.map(|ip| (vec![Value::Address(*ip)], &by));
            table = table.set(name, set(&[Field::Saddr], false, elements));
        }
        for (direction, step) in self.steps.values() {
            table = add_step(table, *direction, step, family);
        }
        for (direction, tier) in self.tiers.values() {
            table = add_shared(table, *direction, tier, family);
        }
        for class in self.classes.values() {
            table = add_class(table, class, family);
            let to_node = class.towards_node();
            if let Some(class) = to_node.filter(|_| class.direction == Direction::Egress) {
                table = add_class(table, &class, family);
            }
        }
        table
    }

    /// The maps that lead to classes.
    fn add_pods(&self, mut table: Table) -> Table {
        let enter = |map: &mut Set, address: IpAddr, pod: &Isolated, chain: String| {
            let element = Element::new(Data::Verdict(Verdict::Goto(chain)));
            let element = element.origin(pod.pod.clone());
            map.elements.insert(vec![Value::Address(address)], element);
        };
        let map = || Set::new([Field::Saddr], DataType::Verdict);
        let mut node = map();
        for direction in Direction::ALL {
            let mut map = Set::new([own(direction)], DataType::Verdict);
            for (address, pod) in &self.pods {
                let Some(class) = pod.class(direction) else {
                    continue;
                };
                enter(&mut map, *address, pod, class.name.clone());
                let to_node = class.towards_node();
                if let Some(class) = to_node.filter(|_| direction == Direction::Egress) {
                    enter(&mut node, *address, pod, class.name.clone());
                }
            }
            table = table.set(&isolated(direction), map);
        }
        match self.to_node {
            true => table.set(TO_NODE, node),
            false => table,
        }
    }
}

/// Takes out what two maps have in common.
fn uncommon<K: Ord + Clone, V>(
    a: &mut BTreeMap<K, V>,
    b: &mut BTreeMap<K, V>,
    same: impl Fn(&V, &V) -> bool,
) {
    let mut common = BTreeSet::new();
    a.retain(|key, value| {
        let is_common = b.get(key).is_some_and(|other| same(value, other));
        common.extend(is_common.then(|| key.clone()));
        !is_common
    });
    b.retain(|key, _| !common.contains(key));
}

/// What is in the first of two lists alone, both in order.
fn only(a: &[IpAddr], b: &[IpAddr]) -> Vec<IpAddr> {
    let mut b = b.iter().peekable();
    let is_not = |address: &&IpAddr| {
        while b.next_if(|other| other < address).is_some() {}
        b.peek() != Some(address)
    };
    a.iter().filter(is_not).copied().collect()
}

/// The tiers that classes lead to.
fn tiers<'a>(
    classes: &BTreeMap<&'a str, &'a Arc<Class>>,
) -> BTreeMap<&'a str, (Direction, &'a Arc<Tier>)> {
    let classes = classes.values();
    let tiers = classes.flat_map(|class| class.tiers.iter().map(|tier| (class.direction, tier)));
    let shared = tiers.filter(|(_, tier)| tier.level.is_shared());
    shared
        .map(|(direction, tier)| (tier.chain.as_str(), (direction, tier)))
        .collect()
}

/// Their steps.
fn steps<'a>(
    tiers: &BTreeMap<&'a str, (Direction, &'a Arc<Tier>)>,
) -> BTreeMap<&'a str, (Direction, &'a Arc<Step>)> {
    let steps = tiers.values().flat_map(|(direction, tier)| {
        let steps = tier.steps.iter();
        steps.map(|step| (step.name.as_str(), (*direction, step)))
    });
    steps.collect()
}

/// The groups that are named.
fn groups<'a>(
    classes: &BTreeMap<&'a str, &'a Arc<Class>>,
    tiers: &BTreeMap<&'a str, (Direction, &'a Arc<Tier>)>,
) -> BTreeMap<&'a str, Cow<'a, [IpAddr]>> {
    let own = classes.values().flat_map(|class| &class.tiers);
    let own = own.filter(|tier| !tier.level.is_shared());
    let tiers = own.chain(tiers.values().map(|(_, tier)| *tier));
    let steps = tiers.flat_map(|tier| &tier.steps);
    let groups = steps.flat_map(|step| step.matches.groups.values());
    groups
        .map(|(group, _)| (group.name.as_str(), Cow::Borrowed(group.addresses())))
        .collect()
}
