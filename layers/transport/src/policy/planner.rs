//! [`Planner`]: the plan of one node's policies, which follows the cluster's changes at the cost of what each touches.
//!
//! ```text
//!   a pod elsewhere ──▶ which peers meant it, which do? ──▶ their groups: one address; their classes: compiled anew
//!   a policy ─────────▶ its classes: compiled anew ──┐
//!   a pod of this node ──────────────────────────────┴────▶ which policies select which pod of this node
//! ```
//!
//! Following and planning anew come to the same plan, which a test holds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use parfait_cluster::{Direction, Key, ObjectName, Peer, Pod, Snapshot};
use parfait_packet::Origin;

use super::class::{Class, Regrouped};
use super::classes::{self, Classes, Kept};
use super::compile::{Compiler, whose};
use super::group::{Groups, LARGE};
use super::host::Host;
use super::members::{Members, Moved};
use super::plan::{Isolated, Plan};
use super::select::Selecting;

/// A plan, and what is remembered to change it in parts.
#[derive(Debug)]
pub struct Planner {
    pub(super) plan: Arc<Plan>,
    node: String,
    /// Nothing, where there are no policies.
    members: Members,
    groups: Groups,
    classes: Classes,
    /// All pods of this node.
    here: BTreeSet<ObjectName>,
    idle: bool,
}

impl Planner {
    /// Plans one node.
    #[must_use]
    pub fn new(snapshot: &Snapshot, node: &str) -> Self {
        Self::grouping(snapshot, node, LARGE)
    }

    /// The same with a set of its own for each peer with more addresses than this, for tests with few.
    #[must_use]
    pub fn grouping(snapshot: &Snapshot, node: &str, large: usize) -> Self {
        let mut planner = Self {
            plan: Arc::default(),
            node: node.to_owned(),
            members: Members::default(),
            groups: Groups::new(large),
            classes: Classes::default(),
            here: BTreeSet::new(),
            idle: is_idle(snapshot),
        };
        if !planner.idle {
            let here = snapshot.pods.values().filter(|pod| planner.is_on(pod));
            planner.here = here.map(|pod| pod.name.clone()).collect();
            planner.members = Members::of(snapshot);
            let pods = planner.judge(snapshot, &BTreeSet::new());
            planner.finish(pods, served(snapshot));
            planner.follow_host(snapshot);
        }
        planner
    }

    /// The plan as it is now.
    #[must_use]
    pub const fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Brings the plan to what the snapshot says now, of which `changed` is new since the last time.
    pub fn follow(&mut self, snapshot: &Snapshot, changed: &BTreeSet<Key>) {
        self.follow_pods(snapshot, changed);
        self.follow_host(snapshot);
    }

    /// Policies of the node itself, which are few, are compiled anew.
    fn follow_host(&mut self, snapshot: &Snapshot) {
        if snapshot.node_policies.is_empty() && self.plan.host.is_none() {
            return;
        }
        // Sets of very many are for classes of pods.
        let mut groups = Groups::new(usize::MAX);
        let mut compiler = Compiler::new(snapshot, &self.members, &mut groups);
        let host = Host::of(snapshot, &self.node, &mut compiler);
        let (host, notes) = host.unzip();
        let mut all = self.classes.notes();
        all.extend(notes.into_iter().flatten());
        if self.plan.host != host || self.plan.notes != all {
            let plan = Arc::make_mut(&mut self.plan);
            plan.host = host;
            plan.notes = all;
        }
    }

    fn follow_pods(&mut self, snapshot: &Snapshot, changed: &BTreeSet<Key>) {
        if self.idle || is_idle(snapshot) {
            if !(self.idle && is_idle(snapshot)) {
                *self = Self::grouping(snapshot, &self.node, self.groups.large);
            }
            return;
        }
        let mut stale = BTreeSet::new();
        let (mut judged, mut regrouped, mut services) = (false, false, false);
        for key in changed {
            judged |= self.is_judged(snapshot, key);
            stale.extend(self.of_policy(key));
            let Some(moved) = self.members.follow(snapshot, key) else {
                continue;
            };
            services |= matches!(key, Key::Service(_));
            stale.extend(self.touched(snapshot, &moved));
            regrouped |= self.groups.follow(&moved, &self.members);
        }
        if regrouped {
            self.groups.shrink();
            stale.extend(self.without_group());
        }
        if !(judged || regrouped || services) && stale.is_empty() {
            return;
        }
        let mut pods = self.plan.pods.clone();
        if judged {
            pods = self.judge(snapshot, &stale);
        } else if !stale.is_empty() {
            self.compile(snapshot, &stale);
        }
        if regrouped {
            self.regroup();
        }
        let served = match services {
            true => served(snapshot),
            false => self.plan.served.clone(),
        };
        self.finish(pods, served);
    }

    fn is_on(&self, pod: &Pod) -> bool {
        pod.node.as_deref() == Some(&self.node)
    }

    /// Whether the policies that select this node's pods may be others.
    fn is_judged(&mut self, snapshot: &Snapshot, key: &Key) -> bool {
        match key {
            Key::Pod(name) => {
                let now = snapshot.pods.get(name).is_some_and(|pod| self.is_on(pod));
                let before = self.here.contains(name);
                match now {
                    true => drop(self.here.insert(name.clone())),
                    false => drop(self.here.remove(name)),
                }
                now || before
            }
            Key::NetworkPolicy(policy) => {
                let mut here = self.here.iter();
                here.any(|pod| pod.namespace == policy.namespace)
            }
            // They select pods by their namespaces' labels.
            Key::Namespace(_) => !snapshot.cluster_policies.is_empty(),
            Key::ClusterNetworkPolicy(_) => true,
            // Attachments, which only the node knows.
            Key::Node(name) => *name == self.node,
            _ => false,
        }
    }

    /// The classes of a policy. Nodes are peers of some.
    fn of_policy(&self, key: &Key) -> BTreeSet<classes::Key> {
        let concerns = |class: &classes::Key| match key {
            Key::NetworkPolicy(name) => class.policies.contains(name),
            Key::ClusterNetworkPolicy(name) => {
                class.admin.contains(name) || class.baseline.contains(name)
            }
            Key::Node(_) | Key::Config => !(class.admin.is_empty() && class.baseline.is_empty()),
            _ => false,
        };
        let classes = self.classes.kept.keys();
        classes.filter(|class| concerns(class)).cloned().collect()
    }

    /// The classes of which a peer means others now.
    fn touched(&self, snapshot: &Snapshot, moved: &Moved) -> BTreeSet<classes::Key> {
        let mut known: BTreeMap<(Direction, &ObjectName), bool> = BTreeMap::new();
        let members = &self.members;
        let mut touched = BTreeSet::new();
        for key in self.classes.kept.keys() {
            let direction = key.direction;
            let is_in = |own: &str, rule| {
                let grouped = |peer: &Peer| self.groups.of(whose(own, peer), peer).is_some();
                moved.is_in_rule(members, own, rule, direction, grouped)
            };
            let mut policies = key.policies.iter();
            let found = policies.any(|name| {
                *known.entry((direction, name)).or_insert_with(|| {
                    let policy = snapshot.policies.get(name);
                    let rules = policy.and_then(|policy| policy.rules(direction));
                    let mut rules = rules.into_iter().flatten();
                    rules.any(|rule| is_in(&name.namespace, rule))
                })
            });
            let mut cluster = key.admin.iter().chain(&key.baseline);
            let found = found
                || cluster.any(|name| {
                    let policy = snapshot.cluster_policies.get(name);
                    let mut rules = policy
                        .into_iter()
                        .flat_map(|policy| policy.rules(direction));
                    rules.any(|rule| is_in("", &rule.matches))
                });
            if found {
                touched.insert(key.clone());
            }
        }
        touched
    }

    /// The classes that name a group which is none any more.
    fn without_group(&self) -> BTreeSet<classes::Key> {
        let gone = |name: &str| self.groups.called(name).is_none();
        let classes = self.classes.kept.iter();
        let classes = classes.filter(|(_, kept)| kept.class.groups().any(gone));
        classes.map(|(key, _)| key.clone()).collect()
    }

    /// Asks for each pod of this node which policies select it, and compiles the classes that are new or stale.
    fn judge(
        &mut self,
        snapshot: &Snapshot,
        stale: &BTreeSet<classes::Key>,
    ) -> BTreeMap<IpAddr, Isolated> {
        let mut pods = BTreeMap::new();
        let mut used = BTreeSet::new();
        let extra = super::plan::extra_addresses(snapshot, &self.node);
        let mut compiler = Compiler::new(snapshot, &self.members, &mut self.groups);
        let here = self.here.iter().filter_map(|name| snapshot.pods.get(name));
        for pod in here.filter(|pod| pod.has_network() && !pod.host_network) {
            let [ingress, egress] = Direction::ALL.map(|direction| {
                let selecting = Selecting::of(snapshot, pod, direction);
                let key = classes::Key::of(pod, &selecting)?;
                let fresh = used.contains(&key) || !stale.contains(&key);
                let known = self.classes.kept.get(&key).filter(|_| fresh);
                let class = match known {
                    Some(kept) => Arc::clone(&kept.class),
                    None => renew(&mut self.classes, &mut compiler, &key, &selecting),
                };
                used.insert(key);
                Some(class)
            });
            if ingress.is_none() && egress.is_none() {
                continue;
            }
            let more = extra.get(&pod.name).into_iter().flatten();
            for address in pod.addresses.iter().chain(more) {
                let isolated = Isolated {
                    pod: pod.origin(),
                    ingress: ingress.clone(),
                    egress: egress.clone(),
                };
                pods.insert(*address, isolated);
            }
        }
        self.classes.keep(&used);
        pods
    }

    /// Compiles these classes anew.
    fn compile(&mut self, snapshot: &Snapshot, stale: &BTreeSet<classes::Key>) {
        let mut compiler = Compiler::new(snapshot, &self.members, &mut self.groups);
        for key in stale {
            let selecting = Selecting::of_class(snapshot, key);
            renew(&mut self.classes, &mut compiler, key, &selecting);
        }
    }

    /// Lets classes name groups as they are now.
    fn regroup(&mut self) {
        let mut done = Regrouped::default();
        for kept in self.classes.kept.values_mut() {
            let is_old = |name: &str, group: &Arc<_>| {
                let now = self.groups.called(name);
                now.filter(|now| !Arc::ptr_eq(now, group)).cloned()
            };
            if kept
                .class
                .has_groups(|name, group| is_old(name, group).is_some())
            {
                Arc::make_mut(&mut kept.class).regroup(is_old, &mut done);
            }
        }
    }

    fn finish(&mut self, mut pods: BTreeMap<IpAddr, Isolated>, served: BTreeMap<IpAddr, Origin>) {
        let kept = self.classes.kept.values().map(|kept| &kept.class);
        let classes: BTreeMap<&str, &Arc<Class>> =
            kept.map(|class| (class.name.as_str(), class)).collect();
        for isolated in pods.values_mut() {
            for class in [&mut isolated.ingress, &mut isolated.egress]
                .into_iter()
                .flatten()
            {
                if let Some(now) = classes.get(class.name.as_str()) {
                    *class = Arc::clone(now);
                }
            }
        }
        let named: BTreeSet<&str> = classes.values().flat_map(|class| class.groups()).collect();
        self.groups.keep(&named);
        self.plan = Arc::new(Plan {
            pods,
            served,
            host: self.plan.host.clone(),
            notes: self.classes.notes(),
        });
    }
}

/// Compiles a class, which stays the one it was if it is the same.
fn renew<'a>(
    classes: &mut Classes,
    compiler: &mut Compiler<'a>,
    key: &classes::Key,
    selecting: &Selecting<'a>,
) -> Arc<Class> {
    let before = classes.remove(key);
    let name = match &before {
        Some(kept) => kept.class.name.clone(),
        None => classes.name(key),
    };
    let (class, notes) = compiler.class(key, selecting, name);
    let class = match before {
        Some(kept) if *kept.class == class => kept.class,
        _ => Arc::new(class),
    };
    let kept = Kept {
        class: Arc::clone(&class),
        notes,
    };
    classes.insert(key.clone(), kept);
    class
}

fn is_idle(snapshot: &Snapshot) -> bool {
    let of_pods = snapshot.policies.is_empty() && snapshot.cluster_policies.is_empty();
    of_pods && snapshot.node_policies.is_empty()
}

fn served(snapshot: &Snapshot) -> BTreeMap<IpAddr, Origin> {
    let services = snapshot.services.values();
    let served = services.filter(|service| service.served_by_node);
    let addresses = served.flat_map(|service| {
        let origin = service.origin().field("spec.clusterIPs");
        let addresses = service.cluster_ips.iter();
        addresses.map(move |address| (*address, origin.clone()))
    });
    addresses.collect()
}
