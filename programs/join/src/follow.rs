//! [`Follower`]: one node's plan that follows the cluster's changes, at the cost of what each touches.
//!
//! ```text
//!   changed keys ─┬─ Services, EndpointSlices ─▶ transport::replan ─▶ reapply ─┐
//!                 ├─ policies, Namespaces, pods elsewhere ─▶ policies ─────────┤
//!                 └─ anything else ─▶ link, internet planned anew ─▶ apply ────┴─▶ Delta: before, after
//! ```
//!
//! Nothing below the transport layer depends on a Service, as long as no Service's address makes a pod CIDR
//! unusable, which is looked at with every changed Service, and unless its load balancer's address is made known here.
//! Of another node's pods, and of labels, only policies speak. What a [`Delta`] says is what planning and lowering
//! everything would say, which a test compares.
//!
//! Deliberately absent: knowing what the kernel holds. Who carries a delta out must have carried out all before.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parfait_cluster::{Key, Note, ObjectName, Pod, Snapshot};
use parfait_linux::nft::{self, Tables};
use parfait_packet::Origin;
use parfait_transport::policy::{self, Planner};
use parfait_transport::{Changes, Lowered, Patch, replan};

use crate::{NodePlan, lower_layers};

/// A plan, and what is remembered to change it in parts.
pub struct Follower {
    plan: NodePlan,
    lowered: Lowered,
    /// The internet layer's part of the tables.
    internet: Tables,
    policies: Planner,
    /// The pods here as far as the layers below ask.
    here: BTreeMap<ObjectName, Pod>,
    /// Why pod CIDRs are not used.
    disputes: Vec<Note>,
}

/// What one change of the cluster makes different on the node.
#[derive(Debug, Default)]
pub struct Delta {
    /// Links, addresses, routes, neighbours or settings may be others: [`NodePlan::objects`] says which.
    pub objects: bool,
    /// The parts of the tables that may differ, before and after.
    pub tables: Patch,
    /// The Services that differ.
    pub services: Changes,
}

impl Follower {
    /// Begins with a whole plan.
    #[must_use]
    pub fn new(snapshot: &Snapshot, node: &str) -> Self {
        let (plan, policies) = NodePlan::with_planner(snapshot, node);
        let here = snapshot.pods.values();
        let here = here.filter(|pod| pod.node.as_deref() == Some(node));
        Self {
            here: here.map(|pod| (pod.name.clone(), outline(pod))).collect(),
            lowered: Lowered::new(&plan.transport),
            internet: parfait_internet::apply(&plan.internet).tables,
            policies,
            disputes: parfait_cluster::disputes(snapshot),
            plan,
        }
    }

    /// The plan as it is now.
    #[must_use]
    pub const fn plan(&self) -> &NodePlan {
        &self.plan
    }

    /// Brings the plan to what the snapshot says now, of which `changed` is new since the last time.
    pub fn follow(&mut self, snapshot: &Snapshot, changed: &BTreeSet<Key>) -> Delta {
        let above = |key: &Key| match key {
            _ if parfait_internet::announce::depends_on(snapshot, key) => false,
            Key::EndpointSlice(_) => true,
            Key::Service(name) => !self.is_below(snapshot, name),
            Key::Pod(name) => !self.is_here(snapshot, name) || self.is_relabelled(snapshot, name),
            Key::NetworkPolicy(_)
            | Key::ClusterNetworkPolicy(_)
            | Key::NodeNetworkPolicy(_)
            | Key::Namespace(_) => true,
            Key::Config | Key::Node(_) | Key::LoadBalancerPool(_) => false,
        };
        let services = changed.iter().any(|key| matches!(key, Key::Service(_)));
        let disputed = services && parfait_cluster::disputes(snapshot) != self.disputes;
        let above = changed.iter().all(above) && !disputed;
        self.follow_outlines(snapshot, changed);
        match above {
            true => self.follow_above(snapshot, changed),
            false => self.follow_all(snapshot, changed),
        }
    }

    fn follow_outlines(&mut self, snapshot: &Snapshot, changed: &BTreeSet<Key>) {
        let names = changed.iter().filter_map(|key| match key {
            Key::Pod(name) => Some(name),
            _ => None,
        });
        for name in names {
            let pod = snapshot.pods.get(name);
            match pod.filter(|pod| pod.node.as_ref() == Some(&self.plan.node)) {
                Some(pod) => drop(self.here.insert(name.clone(), outline(pod))),
                None => drop(self.here.remove(name)),
            }
        }
    }

    /// Whether a Service's addresses are or were the node's own, which the internet layer plans.
    fn is_below(&self, snapshot: &Snapshot, name: &ObjectName) -> bool {
        let now = snapshot.services.get(name);
        let is_same =
            |origin: &Origin| origin.namespace == name.namespace && origin.name == name.name;
        let internet = &self.plan.internet;
        let served = internet.served.iter().map(|served| &served.origin);
        let announcing = internet.announcing.iter().map(|one| &one.origin);
        now.is_some_and(|service| service.served_by_node) || served.chain(announcing).any(is_same)
    }

    /// Whether a pod is or was on this node.
    fn is_here(&self, snapshot: &Snapshot, name: &ObjectName) -> bool {
        let now = snapshot.pods.get(name).and_then(|pod| pod.node.as_ref());
        let mut before = self.plan.link.attachments.iter();
        now == Some(&self.plan.node) || before.any(|attachment| attachment.pod == *name)
    }

    /// Whether only policies speak of what is new about a pod of this node.
    fn is_relabelled(&self, snapshot: &Snapshot, name: &ObjectName) -> bool {
        let now = snapshot.pods.get(name).map(outline);
        now.is_some() && now.as_ref() == self.here.get(name)
    }

    /// What the layers below do not depend on.
    fn follow_above(&mut self, snapshot: &Snapshot, changed: &BTreeSet<Key>) -> Delta {
        let (mine, others): (BTreeSet<Key>, BTreeSet<Key>) =
            changed.iter().cloned().partition(Key::is_of_a_service);
        let transport = Arc::make_mut(&mut self.plan.transport);
        let services = replan(transport, snapshot, &mine);
        let mut tables = self.lowered.reapply(transport, &services);
        if !others.is_empty() || policy::depends_on(snapshot, &mine) {
            // Without a dispute that is the snapshot itself.
            let (settled, _) = match self.disputes.is_empty() {
                true => (Cow::Borrowed(snapshot), Vec::new()),
                false => parfait_cluster::settle(snapshot),
            };
            self.follow_policies(&settled, &others, &mut tables);
        }
        Delta {
            objects: false,
            tables,
            services,
        }
    }

    fn follow_policies(
        &mut self,
        snapshot: &Snapshot,
        changed: &BTreeSet<Key>,
        tables: &mut Patch,
    ) {
        self.policies.follow(snapshot, changed);
        let after = Arc::clone(self.policies.plan());
        let before = std::mem::replace(&mut self.plan.policy, after);
        let patch = policy::difference(&before, &self.plan.policy);
        nft::join(&mut tables.before, patch.before);
        nft::join(&mut tables.after, patch.after);
    }

    fn follow_all(&mut self, snapshot: &Snapshot, changed: &BTreeSet<Key>) -> Delta {
        let (settled, disputes) = parfait_cluster::settle(snapshot);
        let transport = Arc::make_mut(&mut self.plan.transport);
        // What was disputed may be another node's CIDR now, which the configuration's key stands for.
        let mut changed = changed.clone();
        changed.insert(Key::Config);
        let services = replan(transport, &settled, &changed);
        let mut tables = self.lowered.reapply(transport, &services);
        let (link, internet) = lower_layers(&settled, &self.plan.node, &disputes);
        let after = parfait_internet::apply(&internet).tables;
        let before = std::mem::replace(&mut self.internet, after);
        if before != self.internet {
            nft::join(&mut tables.before, before);
            nft::join(&mut tables.after, self.internet.clone());
        }
        self.follow_policies(&settled, &changed, &mut tables);
        self.plan.link = link;
        self.plan.internet = internet;
        self.disputes = disputes;
        Delta {
            objects: true,
            tables,
            services,
        }
    }
}

/// A pod without its labels, and without whether it is ready, which EndpointSlices say.
fn outline(pod: &Pod) -> Pod {
    Pod {
        labels: BTreeMap::new(),
        ready: false,
        ..pod.clone()
    }
}
