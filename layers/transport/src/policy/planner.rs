//! [`Planner`]: the plan of one node's policies, which follows the cluster's changes at the cost of what each touches.
//!
//! ```text
//!   a pod elsewhere ──▶ which peers meant it, which do? ──▶ their groups: one address; their classes: compiled anew
//!   a policy ─────────▶ its classes: compiled anew ──┐
//!   a pod of this node ──────────────────────────────┴────▶ which policies select it
//! ```
//!
//! Following and planning anew come to the same plan, which a test holds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use parfait_cluster::{Direction, Key, ObjectName, Pod, Snapshot};
use parfait_packet::Origin;

use super::class::Level;
use super::classes::{self, Classes};
use super::compile::Compiler;
use super::group::{Group, Groups, LARGE};
use super::host::Host;
use super::members::Members;
use super::plan::{Isolated, Plan};
use super::regroup::Regrouped;
use super::select::{self, Selecting, Subject};
use super::stale::Stale;

/// A plan, and what is remembered to change it in parts.
#[derive(Debug)]
pub struct Planner {
    pub(super) plan: Arc<Plan>,
    node: String,
    /// Nothing, where there are no policies.
    members: Members,
    groups: Groups,
    classes: Classes,
    /// All pods of this node, and their classes in both directions.
    here: BTreeMap<ObjectName, [Option<Arc<classes::Key>>; 2]>,
    /// Whom ClusterNetworkPolicies are for.
    subjects: BTreeMap<String, Subject>,
    idle: bool,
}

impl Planner {
    /// Plans one node.
    #[must_use]
    pub fn new(snapshot: &Snapshot, node: &str) -> Self {
        Self::grouping(snapshot, node, LARGE)
    }

    /// The same with another [`LARGE`], for tests with few pods.
    #[must_use]
    pub fn grouping(snapshot: &Snapshot, node: &str, large: usize) -> Self {
        let mut planner = Self {
            plan: Arc::default(),
            node: node.to_owned(),
            members: Members::default(),
            groups: Groups::new(large),
            classes: Classes::default(),
            here: BTreeMap::new(),
            subjects: BTreeMap::new(),
            idle: is_idle(snapshot),
        };
        if !planner.idle {
            planner.members = Members::of(snapshot);
            for policy in snapshot.cluster_policies.values() {
                let subject = Subject::of(policy);
                planner.subjects.insert(policy.name.clone(), subject);
            }
            let here = snapshot.pods.values().filter(|pod| planner.is_on(pod));
            let here = here.map(|pod| pod.name.clone()).collect();
            let mut stale = Stale::default();
            planner.judge(snapshot, here);
            planner.renew(&mut stale);
            planner.compile(snapshot, stale);
            planner.finish(snapshot, served(snapshot));
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
        let mut all = self.classes.notes();
        let noted = host.iter().flat_map(|host| host.class.notes());
        all.extend(noted.cloned());
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
        let mut stale = Stale::default();
        let (mut judged, mut regrouped) = (BTreeSet::new(), BTreeMap::new());
        // Pods' addresses, and at which of them this node's agent answers.
        let mut readdressed = false;
        for key in changed {
            judged.extend(self.judged_by(snapshot, key));
            stale.by_policy(&self.classes, key);
            readdressed |= matches!(key, Key::Node(name) if *name == self.node);
            if let Some(moved) = self.members.follow(snapshot, key) {
                readdressed |= matches!(key, Key::Service(_));
                stale.by_peers(&self.classes, &self.groups, &self.members, snapshot, &moved);
                self.groups.follow(&moved, &self.members, &mut regrouped);
            }
        }
        if !readdressed && judged.is_empty() && regrouped.is_empty() && stale.is_empty() {
            return;
        }
        if !judged.is_empty() {
            self.judge(snapshot, judged);
            self.renew(&mut stale);
        }
        self.regroup(&regrouped);
        self.compile(snapshot, stale);
        let served = match readdressed {
            true => served(snapshot),
            false => self.plan.served.clone(),
        };
        self.finish(snapshot, served);
    }

    fn is_on(&self, pod: &Pod) -> bool {
        pod.node.as_deref() == Some(&self.node)
    }

    /// The pods of this node that other policies may select than before.
    fn judged_by(&mut self, snapshot: &Snapshot, key: &Key) -> BTreeSet<ObjectName> {
        let of = |namespace: &str| {
            let here = self.here.keys();
            here.filter(|pod| pod.namespace == namespace)
                .cloned()
                .collect()
        };
        match key {
            Key::Pod(name) => {
                let pod = snapshot.pods.get(name);
                let is_here = pod.is_some_and(|pod| self.is_on(pod));
                let concerns = is_here || self.here.contains_key(name);
                concerns.then(|| name.clone()).into_iter().collect()
            }
            Key::NetworkPolicy(policy) => of(&policy.namespace),
            // ClusterNetworkPolicies select pods by their namespaces' labels.
            Key::Namespace(name) if !snapshot.cluster_policies.is_empty() => of(name),
            Key::ClusterNetworkPolicy(name) => {
                let now = snapshot.cluster_policies.get(name).map(Subject::of);
                let before = match now.clone() {
                    Some(now) => self.subjects.insert(name.clone(), now),
                    None => self.subjects.remove(name),
                };
                match before == now {
                    true => BTreeSet::new(),
                    false => self.here.keys().cloned().collect(),
                }
            }
            _ => BTreeSet::new(),
        }
    }

    /// Asks for these pods which policies select them.
    fn judge(&mut self, snapshot: &Snapshot, pods: BTreeSet<ObjectName>) {
        for name in pods {
            let pod = snapshot.pods.get(&name).filter(|pod| self.is_on(pod));
            let Some(pod) = pod else {
                self.here.remove(&name);
                continue;
            };
            let classes = match pod.has_network() && !pod.host_network {
                true => Direction::ALL.map(|direction| {
                    let selecting = Selecting::of(snapshot, pod, direction);
                    classes::Key::of(pod, &selecting).map(Arc::new)
                }),
                false => [None, None],
            };
            self.here.insert(name, classes);
        }
    }

    /// Forgets the classes that no pod is of any more. New ones are stale.
    fn renew(&mut self, stale: &mut Stale) {
        let used = self.here.values().flatten().flatten();
        let used: BTreeSet<Arc<classes::Key>> = used.cloned().collect();
        self.classes.keep(&used);
        self.groups.keep(&used);
        let known = &self.classes.kept;
        let new = used.iter().filter(|key| !known.contains_key(*key));
        stale.policies.extend(new.cloned());
        stale.keep(&used);
    }

    /// Decides which peers are groups, and compiles the classes that are stale.
    fn compile(&mut self, snapshot: &Snapshot, mut stale: Stale) {
        for key in &stale.policies {
            let named = select::named_peers(snapshot, key);
            self.groups.name(key, named, &self.members);
        }
        let settled = self.groups.settle(&self.members);
        stale.by_groups(&self.classes, &self.groups, snapshot, &settled);
        if stale.is_empty() {
            return;
        }
        let mut compiler = Compiler::new(snapshot, &self.members, &mut self.groups);
        let kept = self.classes.kept.iter();
        let fresh = kept.filter(|(key, _)| !stale.cluster.contains(*key));
        for tier in fresh.flat_map(|(_, kept)| &kept.class.tiers) {
            compiler.know(tier);
        }
        let mut compiled = Vec::new();
        for key in stale.all() {
            let name = self.classes.name(key);
            let before = self.classes.kept.get(key);
            let same = before.filter(|_| !stale.policies.contains(key));
            let own = same.map(|kept| kept.class.tier(Level::NetworkPolicy).cloned());
            let selecting = Selecting::of_class(snapshot, key);
            compiled.push((key, compiler.class(key, &selecting, name, own)));
        }
        for (key, class) in compiled {
            self.classes.put(key, class, self.groups.are_too_many(key));
        }
        self.groups.keep_named(|| self.classes.groups());
    }

    /// Lets classes name groups as they are now.
    fn regroup(&mut self, groups: &BTreeMap<String, Arc<Group>>) {
        if !groups.is_empty() {
            let mut regrouped = Regrouped::new(groups);
            for kept in self.classes.kept.values_mut() {
                regrouped.class(&mut kept.class);
            }
        }
    }

    fn finish(&mut self, snapshot: &Snapshot, served: BTreeMap<IpAddr, Origin>) {
        let extra = super::plan::extra_addresses(snapshot, &self.node);
        let mut pods = BTreeMap::new();
        for (name, keys) in &self.here {
            let [ingress, egress] = keys.each_ref().map(|key| {
                let kept = self.classes.kept.get(key.as_ref()?)?;
                Some(Arc::clone(&kept.class))
            });
            let selected = ingress.is_some() || egress.is_some();
            let Some(pod) = snapshot.pods.get(name).filter(|_| selected) else {
                continue;
            };
            let more = extra.get(name).into_iter().flatten();
            for address in pod.addresses.iter().chain(more) {
                let isolated = Isolated {
                    pod: pod.origin(),
                    ingress: ingress.clone(),
                    egress: egress.clone(),
                };
                pods.insert(*address, isolated);
            }
        }
        self.plan = Arc::new(Plan {
            pods,
            served,
            host: self.plan.host.clone(),
            notes: self.classes.notes(),
        });
    }
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
