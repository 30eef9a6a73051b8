//! [`Classes`]: the classes of one node's pods, by what makes each of them one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parfait_cluster::{Direction, Note, ObjectName, Pod};
use parfait_linux::attachment::fnv1a;

use super::class::{Class, Tier};
use super::select::{Names, Selecting, names};

/// What makes a class one: the direction, the policies, and what the names that they use mean.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// Of all the rest: most names that keys begin with are the same.
    hash: u64,
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
        let key = Self {
            admin: cluster(&selecting.admin),
            policies: policies.map(|policy| policy.name.clone()).collect(),
            baseline: cluster(&selecting.baseline),
            names: match direction {
                Direction::Ingress => names(pod, selecting.rules()),
                Direction::Egress => Names::new(),
            },
            ..Self::nothing(direction)
        };
        Some(Self {
            hash: fnv1a(&[format!("{key:?}").as_bytes()]),
            ..key
        })
    }

    /// That of pods, or of a node, that no policy selects.
    pub(super) const fn nothing(direction: Direction) -> Self {
        Self {
            hash: 0,
            direction,
            admin: Vec::new(),
            policies: Vec::new(),
            baseline: Vec::new(),
            names: Names::new(),
        }
    }
}

/// A class, and how it was compiled.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) class: Arc<Class>,
    /// It names more groups than it looks up: members of others are in sets of its own.
    pub(super) copies: bool,
}

/// Classes by their keys.
#[derive(Debug, Default)]
pub(super) struct Classes {
    pub(super) kept: BTreeMap<Arc<Key>, Kept>,
    /// Their names.
    taken: BTreeSet<String>,
}

impl Classes {
    /// The name of a class, which is nobody else's. Policies of one namespace cannot make it that of another's.
    pub(super) fn name(&mut self, key: &Key) -> String {
        if let Some(kept) = self.kept.get(key) {
            return kept.class.name.clone();
        }
        let hash = key.hash >> 16;
        let direction = key.direction.name();
        let name = match key.policies.first() {
            Some(first) => format!("{direction}-{}-{hash:012x}", first.namespace),
            None => format!("{direction}-{hash:012x}"),
        };
        let more = (2..).map(|number| format!("{name}-{number}"));
        let mut all = [name.clone()].into_iter().chain(more);
        let name = all.find(|name| !self.taken.contains(name)).unwrap_or(name);
        self.taken.insert(name.clone());
        name
    }

    /// Takes what a class is now. It stays the one it was if it is the same.
    pub(super) fn put(&mut self, key: &Arc<Key>, class: Class, copies: bool) {
        let before = self.kept.remove(key).map(|kept| kept.class);
        let same = before.filter(|before| **before == class);
        let class = same.unwrap_or_else(|| Arc::new(class));
        self.kept.insert(Arc::clone(key), Kept { class, copies });
    }

    /// Forgets all but these.
    pub(super) fn keep(&mut self, used: &BTreeSet<Arc<Key>>) {
        self.kept.retain(|key, _| used.contains(key));
        let names = self.kept.values().map(|kept| kept.class.name.clone());
        self.taken = names.collect();
    }

    /// The names of all groups that they look up.
    pub(super) fn groups(&self) -> BTreeSet<&str> {
        let tiers = self.tiers().into_values();
        tiers.flat_map(|tier| tier.groups()).collect()
    }

    /// What could not be compiled of them.
    pub(super) fn notes(&self) -> Vec<Note> {
        let tiers = self.tiers().into_values();
        let notes: BTreeSet<&Note> = tiers.flat_map(|tier| &tier.notes).collect();
        notes.into_iter().cloned().collect()
    }

    /// Each tier once, by its chain.
    fn tiers(&self) -> BTreeMap<&str, &Tier> {
        let tiers = self.kept.values().flat_map(|kept| &kept.class.tiers);
        tiers.map(|tier| (tier.chain.as_str(), &**tier)).collect()
    }
}
