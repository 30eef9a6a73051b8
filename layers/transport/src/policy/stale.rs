//! [`Stale`]: the classes that must be compiled anew, and what of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parfait_cluster::{self as cluster, Direction, ObjectName, Peer, PolicyRule, Snapshot};

use super::classes::{Classes, Key};
use super::group::{Groups, Named, Settled};
use super::members::{Members, Moved};
use super::select::whose;

/// Classes, by what of them is not what policies and the cluster say now.
#[derive(Debug, Default)]
pub(super) struct Stale {
    /// What NetworkPolicies make of them.
    pub(super) policies: BTreeSet<Arc<Key>>,
    /// What ClusterNetworkPolicies do.
    pub(super) cluster: BTreeSet<Arc<Key>>,
}

impl Stale {
    pub(super) fn is_empty(&self) -> bool {
        self.policies.is_empty() && self.cluster.is_empty()
    }

    /// All of them, each once.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Key>> {
        self.policies.union(&self.cluster)
    }

    /// Leaves out those that are no class of any pod.
    pub(super) fn keep(&mut self, used: &BTreeSet<Arc<Key>>) {
        self.policies.retain(|key| used.contains(key));
        self.cluster.retain(|key| used.contains(key));
    }

    /// A policy is another one. Nodes are peers of some.
    pub(super) fn by_policy(&mut self, classes: &Classes, changed: &cluster::Key) {
        for key in classes.kept.keys() {
            let mut all = key.admin.iter().chain(&key.baseline);
            let (own, cluster) = match changed {
                cluster::Key::NetworkPolicy(name) => (key.policies.contains(name), false),
                cluster::Key::ClusterNetworkPolicy(name) => (false, all.any(|one| one == name)),
                cluster::Key::Node(_) | cluster::Key::Config => (false, all.next().is_some()),
                _ => return,
            };
            self.policies.extend(own.then(|| Arc::clone(key)));
            self.cluster.extend(cluster.then(|| Arc::clone(key)));
        }
    }

    /// Somebody moved whom peers mean in their own sets: what is in a group is another there.
    pub(super) fn by_peers(
        &mut self,
        classes: &Classes,
        groups: &Groups,
        members: &Members,
        snapshot: &Snapshot,
        moved: &Moved,
    ) {
        let grouped = |own: &str, peer: &Peer| groups.of(whose(own, peer), peer).is_some();
        self.by_rules(classes, snapshot, |own, rule, direction, copies| {
            let grouped = |peer: &Peer| !copies && grouped(own, peer);
            moved.is_in_rule(members, own, rule, direction, grouped)
        });
    }

    /// Peers are groups now, or none any more.
    pub(super) fn by_groups(
        &mut self,
        classes: &Classes,
        groups: &Groups,
        snapshot: &Snapshot,
        settled: &Settled,
    ) {
        if settled.made.is_empty() && settled.gone.is_empty() {
            return;
        }
        self.policies.extend(groups.naming(&settled.made).cloned());
        for (key, kept) in &classes.kept {
            if kept.class.groups().any(|name| settled.gone.contains(name)) {
                self.policies.insert(Arc::clone(key));
                self.cluster.insert(Arc::clone(key));
            }
        }
        let is_made = |own: &str, peer: &Peer| {
            let named: Named = (whose(own, peer).to_owned(), Arc::new(peer.clone()));
            settled.made.contains(&named)
        };
        let mut stale = Self::default();
        stale.by_rules(classes, snapshot, |own, rule, _, _| {
            let mut peers = rule.peers.iter().flatten();
            own.is_empty() && peers.any(|peer| is_made(own, peer))
        });
        self.cluster.append(&mut stale.cluster);
    }

    /// Those with a rule that is so. Each policy's rules are asked once; who copies groups, for want of room, apart.
    fn by_rules(
        &mut self,
        classes: &Classes,
        snapshot: &Snapshot,
        is_so: impl Fn(&str, &PolicyRule, Direction, bool) -> bool,
    ) {
        let mut of_policies: BTreeMap<(Direction, bool, &ObjectName), bool> = BTreeMap::new();
        let mut of_cluster: BTreeMap<(Direction, &str), bool> = BTreeMap::new();
        for (key, kept) in &classes.kept {
            let (direction, copies) = (key.direction, kept.copies);
            let mut policies = key.policies.iter();
            let own = policies.any(|name| {
                *of_policies
                    .entry((direction, copies, name))
                    .or_insert_with(|| {
                        let policy = snapshot.policies.get(name);
                        let rules = policy.and_then(|policy| policy.rules(direction));
                        let mut rules = rules.into_iter().flatten();
                        rules.any(|rule| is_so(&name.namespace, rule, direction, copies))
                    })
            });
            let mut cluster = key.admin.iter().chain(&key.baseline);
            let cluster = cluster.any(|name| {
                *of_cluster.entry((direction, name)).or_insert_with(|| {
                    let policy = snapshot.cluster_policies.get(name);
                    let rules = policy.map(|policy| policy.rules(direction));
                    let mut rules = rules.into_iter().flatten();
                    rules.any(|rule| is_so("", &rule.matches, direction, false))
                })
            });
            self.policies.extend(own.then(|| Arc::clone(key)));
            self.cluster.extend(cluster.then(|| Arc::clone(key)));
        }
    }
}
