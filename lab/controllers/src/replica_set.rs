//! ReplicaSet: as many active pods as `spec.replicas` says.
//!
//! The order in which surplus pods go is Kubernetes' (`ActivePodsWithRanks`): unscheduled before
//! scheduled, not ready before ready and ready before
//! available, cheap (`controller.kubernetes.io/pod-deletion-cost`) before dear,
//! on a crowded node before alone, young before old.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;

use crate::names;
use crate::object::{is_terminating, reference};
use crate::pods;
use crate::world::{World, name_of, namespace_of, uid_of};
use crate::write::{Severity, Write};

const COMPONENT: &str = "replicaset-controller";

pub fn step(world: &World, now: Timestamp) -> Vec<Write> {
    world
        .replica_sets
        .values()
        .flat_map(|set| reconcile(world, set, now))
        .collect()
}

fn reconcile(world: &World, set: &ReplicaSet, now: Timestamp) -> Vec<Write> {
    let Some(spec) = &set.spec else {
        return Vec::new();
    };
    let (owned, mut writes) = pods::claim::<ReplicaSet, Pod>(world, set, &spec.selector);
    let fits = spec
        .template
        .as_ref()
        .is_some_and(|template| pods::template_fits(&spec.selector, template));
    if !is_terminating(&set.metadata) && writes.is_empty() && fits {
        let active: Vec<&Pod> = owned
            .iter()
            .copied()
            .filter(|pod| pods::is_active(pod))
            .collect();
        let wanted = spec.replicas.unwrap_or(1).max(0) as usize;
        if active.len() < wanted && world.accepts_new(namespace_of(set)) {
            writes.extend(create(world, set, &owned, wanted - active.len()));
        } else if active.len() > wanted {
            writes.extend({
                let surplus = active.len() - wanted;
                remove(set, active, surplus, now)
            });
        }
    }
    let status = status(set, &owned, now);
    if set.status.as_ref() != Some(&status) {
        let mut set = set.clone();
        set.status = Some(status);
        writes.push(Write::UpdateStatus(set.into()));
    }
    writes
}

fn create(world: &World, set: &ReplicaSet, owned: &[&Pod], missing: usize) -> Vec<Write> {
    let Some(template) = set.spec.as_ref().and_then(|spec| spec.template.as_ref()) else {
        return Vec::new();
    };
    let existing: Vec<&str> = owned.iter().map(|pod| uid_of(*pod)).collect();
    let taken = |name: &str| world.find::<Pod>(namespace_of(set), name).is_some();
    names::fresh_names(name_of(set), uid_of(set), &existing, taken)
        .take(missing)
        .flat_map(|name| {
            let message = format!("Created pod: {name}");
            let pod = pods::from_template(set, template, name, &[]);
            [
                Write::Create(pod.into()),
                Write::event(
                    reference(set),
                    Severity::Normal,
                    COMPONENT,
                    "SuccessfulCreate",
                    message,
                ),
            ]
        })
        .collect()
}

fn remove(set: &ReplicaSet, mut active: Vec<&Pod>, surplus: usize, now: Timestamp) -> Vec<Write> {
    let mut on_node: BTreeMap<&str, usize> = BTreeMap::new();
    for pod in &active {
        *on_node
            .entry(pods::node_name(pod).unwrap_or_default())
            .or_default() += 1;
    }
    let min_ready = set
        .spec
        .as_ref()
        .and_then(|s| s.min_ready_seconds)
        .unwrap_or(0);
    active.sort_by_cached_key(|pod| {
        (
            removal_rank(pod, pods::is_available(pod, min_ready, now), &on_node),
            name_of(*pod).to_owned(),
        )
    });
    active
        .into_iter()
        .take(surplus)
        .flat_map(|pod| {
            let message = format!("Deleted pod: {}", name_of(pod));
            [
                Write::delete(reference(pod)),
                Write::event(
                    reference(set),
                    Severity::Normal,
                    COMPONENT,
                    "SuccessfulDelete",
                    message,
                ),
            ]
        })
        .collect()
}

type Rank = (
    bool,
    bool,
    bool,
    bool,
    i32,
    Reverse<usize>,
    Reverse<Timestamp>,
);

/// What goes first sorts first.
fn removal_rank(pod: &Pod, available: bool, on_node: &BTreeMap<&str, usize>) -> Rank {
    let cost = pod
        .metadata
        .annotations
        .as_ref()
        .and_then(|a| a.get("controller.kubernetes.io/pod-deletion-cost"))
        .and_then(|cost| cost.parse().ok())
        .unwrap_or(0);
    let node = pods::node_name(pod);
    (
        node.is_some(),
        pods::phase(pod) == "Running",
        pods::is_ready(pod),
        available,
        cost,
        Reverse(on_node.get(node.unwrap_or_default()).copied().unwrap_or(0)),
        Reverse(pods::created(&pod.metadata)),
    )
}

fn status(set: &ReplicaSet, owned: &[&Pod], now: Timestamp) -> ReplicaSetStatus {
    let spec = set.spec.clone().unwrap_or_default();
    let count = pods::count(
        owned.iter().copied(),
        spec.min_ready_seconds.unwrap_or(0),
        now,
    );
    let template_labels = spec
        .template
        .and_then(|t| t.metadata)
        .and_then(|m| m.labels)
        .unwrap_or_default();
    let labeled = owned
        .iter()
        .filter(|pod| pods::is_active(pod))
        .filter(|pod| crate::selector::contains(pod.metadata.labels.as_ref(), &template_labels))
        .count();
    ReplicaSetStatus {
        replicas: count.active,
        fully_labeled_replicas: pods::nonzero(labeled as i32),
        ready_replicas: pods::nonzero(count.ready),
        available_replicas: pods::nonzero(count.available),
        observed_generation: set.metadata.generation,
        conditions: set.status.as_ref().and_then(|s| s.conditions.clone()),
        terminating_replicas: None,
    }
}
