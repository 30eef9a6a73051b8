//! The pods of one node that policies select, in classes: all pods that the same policies select share one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use parfait_cluster::{Direction, Note, ObjectName, Snapshot};
use parfait_packet::Origin;

use super::class::Class;
use super::compile::Compiler;
use super::select::Selecting;

/// What policies want of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The pods here that policies select, by address.
    pub pods: BTreeMap<IpAddr, Isolated>,
    /// The addresses at which this node's agent answers itself.
    pub served: BTreeMap<IpAddr, Origin>,
    /// What could not be planned.
    pub notes: Vec<Note>,
}

/// A pod that policies select in at least one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Isolated {
    /// The pod.
    pub pod: Origin,
    /// What may come in; `None` is everything.
    pub ingress: Option<Arc<Class>>,
    /// What may go out; `None` is everything.
    pub egress: Option<Arc<Class>>,
}

impl Isolated {
    /// The class of a direction.
    #[must_use]
    pub fn class(&self, direction: Direction) -> Option<&Arc<Class>> {
        match direction {
            Direction::Ingress => self.ingress.as_ref(),
            Direction::Egress => self.egress.as_ref(),
        }
    }
}

impl Plan {
    /// All classes, by the names of their chains.
    #[must_use]
    pub fn classes(&self) -> BTreeMap<&str, &Arc<Class>> {
        let classes = self.pods.values().flat_map(|pod| {
            let both = [&pod.ingress, &pod.egress];
            both.into_iter().flatten()
        });
        classes.map(|class| (class.name.as_str(), class)).collect()
    }
}

/// Plans one node.
#[must_use]
pub fn plan(snapshot: &Snapshot, node: &str) -> Plan {
    let mut plan = Plan::default();
    if snapshot.policies.is_empty() && snapshot.cluster_policies.is_empty() {
        return plan;
    }
    let mut compiler = Compiler::new(snapshot);
    let extra = extra_addresses(snapshot, node);
    for pod in snapshot.pods_on(node).filter(|pod| !pod.host_network) {
        let [ingress, egress] = Direction::ALL.map(|direction| {
            let selecting = Selecting::of(snapshot, pod, direction);
            compiler.class(pod, &selecting)
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
            plan.pods.insert(*address, isolated);
        }
    }
    plan.served = served(snapshot);
    plan.notes = compiler.notes.into_iter().collect();
    plan
}

/// Addresses of pods' further interfaces, which only the node knows.
fn extra_addresses(snapshot: &Snapshot, node: &str) -> BTreeMap<ObjectName, BTreeSet<IpAddr>> {
    let mut extra: BTreeMap<ObjectName, BTreeSet<IpAddr>> = BTreeMap::new();
    for attachment in snapshot.attachments_on(node) {
        if let Some((pod, _)) = &attachment.pod {
            let addresses = extra.entry(pod.clone()).or_default();
            addresses.extend(&attachment.addresses);
        }
    }
    extra
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
