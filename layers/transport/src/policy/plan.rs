//! The pods of one node that policies select, in classes: all pods that the same policies select share one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use parfait_cluster::{Direction, Note, ObjectName, Snapshot};
use parfait_packet::Origin;

use super::class::Class;
use super::host::Host;
use super::planner::Planner;

/// What policies want of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The pods here that policies select, by address.
    pub pods: BTreeMap<IpAddr, Isolated>,
    /// The addresses at which this node's agent answers itself.
    pub served: BTreeMap<IpAddr, Origin>,
    /// What policies want of the node itself; `None` where none is for it.
    pub host: Option<Host>,
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
    Arc::unwrap_or_clone(Planner::new(snapshot, node).plan)
}

/// Addresses of pods' further interfaces, which only the node knows.
pub(super) fn extra_addresses(
    snapshot: &Snapshot,
    node: &str,
) -> BTreeMap<ObjectName, BTreeSet<IpAddr>> {
    let mut extra: BTreeMap<ObjectName, BTreeSet<IpAddr>> = BTreeMap::new();
    for attachment in snapshot.attachments_on(node) {
        if let Some((pod, _)) = &attachment.pod {
            let addresses = extra.entry(pod.clone()).or_default();
            addresses.extend(&attachment.addresses);
        }
    }
    extra
}
