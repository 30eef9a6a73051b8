//! [`Classes`]: the classes of one node's pods, by what makes each of them one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parfait_cluster::{Direction, Note, ObjectName, Pod};
use parfait_linux::attachment::fnv1a;

use super::class::Class;
use super::compile::{Names, names};
use super::select::Selecting;

/// What makes a class one: the direction, the policies, and what the names that they use mean.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) direction: Direction,
    pub(super) admin: Vec<String>,
    pub(super) policies: Vec<ObjectName>,
    pub(super) baseline: Vec<String>,
    pub(super) names: Names,
}

impl Key {
    /// That of a pod's class, if any policies select it.
    pub(super) fn of(pod: &Pod, selecting: &Selecting<'_>) -> Option<Self> {
        if selecting.is_empty() {
            return None;
        }
        let direction = selecting.direction;
        let cluster = |policies: &[&parfait_cluster::ClusterNetworkPolicy]| {
            let names = policies.iter().map(|policy| policy.name.clone());
            names.collect()
        };
        let policies = selecting.policies.iter();
        Some(Self {
            direction,
            admin: cluster(&selecting.admin),
            policies: policies.map(|policy| policy.name.clone()).collect(),
            baseline: cluster(&selecting.baseline),
            names: match direction {
                Direction::Ingress => names(pod, selecting.rules()),
                Direction::Egress => Names::new(),
            },
        })
    }
}

/// A class, and what could not be compiled of it.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) class: Arc<Class>,
    pub(super) notes: BTreeSet<Note>,
}

/// Classes by their keys.
#[derive(Debug, Default)]
pub(super) struct Classes {
    pub(super) kept: BTreeMap<Key, Kept>,
    /// Their names.
    taken: BTreeSet<String>,
}

impl Classes {
    /// A name for a class that no other has. Policies of one namespace cannot make it that of another's.
    pub(super) fn name(&self, key: &Key) -> String {
        let hash = fnv1a(&[format!("{key:?}").as_bytes()]) >> 16;
        let direction = key.direction.name();
        let name = match key.policies.first() {
            Some(first) => format!("{direction}-{}-{hash:012x}", first.namespace),
            None => format!("{direction}-{hash:012x}"),
        };
        let more = (2..).map(|number| format!("{name}-{number}"));
        let mut all = [name.clone()].into_iter().chain(more);
        all.find(|name| !self.taken.contains(name)).unwrap_or(name)
    }

    pub(super) fn insert(&mut self, key: Key, kept: Kept) {
        self.taken.insert(kept.class.name.clone());
        self.kept.insert(key, kept);
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Kept> {
        let kept = self.kept.remove(key)?;
        self.taken.remove(&kept.class.name);
        Some(kept)
    }

    /// Forgets all but these.
    pub(super) fn keep(&mut self, used: &BTreeSet<Key>) {
        self.kept.retain(|key, _| used.contains(key));
        let names = self.kept.values().map(|kept| kept.class.name.clone());
        self.taken = names.collect();
    }

    /// The notes of all.
    pub(super) fn notes(&self) -> Vec<Note> {
        let notes = self.kept.values().flat_map(|kept| &kept.notes);
        let notes: BTreeSet<&Note> = notes.collect();
        notes.into_iter().cloned().collect()
    }
}
