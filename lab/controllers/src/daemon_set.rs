//! DaemonSet: one pod on every node that fits.
//!
//! Each pod is made for its node (a node affinity on `metadata.name`, as Kubernetes does since 1.12)
//! and placed by the [scheduler](crate::scheduler). It tolerates the taints of trouble, so that it
//! stays where ordinary pods must not go. A rolling update takes down at most `maxUnavailable` nodes'
//! pods at a time; `maxSurge` is left out and counts as 0.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::api::core::v1::{
    NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Toleration,
};

use crate::names;
use crate::object::{is_terminating, reference};
use crate::pods::{self, nonzero};
use crate::revision;
use crate::scheduler;
use crate::selector::{Round, resolve};
use crate::world::{World, name_of, namespace_of, uid_of};
use crate::write::{Severity, Write};

const COMPONENT: &str = "daemonset-controller";

/// Taints that keep ordinary pods away and daemons not.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

pub fn step(world: &World, now: Timestamp) -> Vec<Write> {
    world
        .daemon_sets
        .values()
        .flat_map(|set| reconcile(world, set, now))
        .collect()
}

/// A node's name, whether the DaemonSet should run there, and its pods there.
struct Place<'a> {
    node: &'a str,
    wanted: bool,
    pods: Vec<&'a Pod>,
}

fn reconcile(world: &World, set: &DaemonSet, now: Timestamp) -> Vec<Write> {
    let Some(spec) = &set.spec else {
        return Vec::new();
    };
    let (owned, mut writes) = pods::claim::<DaemonSet, Pod>(world, set, &spec.selector);
    let lives = !is_terminating(&set.metadata)
        && world.accepts_new(namespace_of(set))
        && pods::template_fits(&spec.selector, &spec.template);
    if lives && let Some(write) = revision::ensure(world, set, &spec.template) {
        writes.push(write);
        return writes;
    }
    let hash = names::template_hash(&spec.template);
    let places = places(world, spec, &owned);
    let status = status(set, spec, &places, &hash, now);
    if lives && writes.is_empty() {
        let mut changes = place(world, set, spec, &places, &owned, &hash);
        if changes.is_empty() {
            changes = roll(set, spec, &places, &hash, now);
        }
        writes.extend(changes);
        let limit = spec.revision_history_limit.unwrap_or(10);
        let in_use = revision::name(set, &spec.template);
        writes.extend(revision::clean_up(world, set, &[&in_use], limit));
    }
    if set.status.as_ref() != Some(&status) {
        let mut set = set.clone();
        set.status = Some(status);
        writes.push(Write::UpdateStatus(set.into()));
    }
    writes
}

fn places<'a>(world: &'a World, spec: &DaemonSetSpec, owned: &[&'a Pod]) -> Vec<Place<'a>> {
    let mut by_node: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
    for pod in owned {
        if let Some(node) = pods::node_name(pod).or_else(|| meant_for(pod)) {
            by_node.entry(node).or_default().push(pod);
        }
    }
    let pod_spec = daemon_spec(spec.template.spec.clone().unwrap_or_default(), None);
    let place = |node| Place {
        node: name_of(node),
        wanted: scheduler::admits(&pod_spec, node),
        pods: by_node.get(name_of(node)).cloned().unwrap_or_default(),
    };
    world.nodes.values().map(place).collect()
}

/// Creates what is missing, deletes what has ended, is double, or is on the wrong node.
fn place(
    world: &World,
    set: &DaemonSet,
    spec: &DaemonSetSpec,
    places: &[Place],
    owned: &[&Pod],
    hash: &str,
) -> Vec<Write> {
    let mut writes = Vec::new();
    for place in places {
        let mut active: Vec<&Pod> = place
            .pods
            .iter()
            .copied()
            .filter(|pod| pods::is_active(pod))
            .collect();
        active.sort_by_key(|pod| (!pods::is_ready(pod), pods::created(&pod.metadata)));
        let keep = usize::from(place.wanted);
        for pod in active.iter().skip(keep) {
            writes.extend(delete(set, pod));
        }
        let mut vacant = place.wanted && active.is_empty();
        for pod in place.pods.iter().filter(|pod| !pods::is_active(pod)) {
            vacant = false;
            if !is_terminating(&pod.metadata) {
                writes.extend(delete(set, pod));
            }
        }
        if vacant {
            let here: Vec<&str> = owned.iter().map(|pod| uid_of(*pod)).collect();
            let seed = format!("{}/{}", uid_of(set), place.node);
            let taken = |name: &str| world.find::<Pod>(namespace_of(set), name).is_some();
            let name = names::fresh_names(name_of(set), &seed, &here, taken).next();
            writes.extend(
                name.into_iter()
                    .flat_map(|name| create(set, spec, place.node, name, hash)),
            );
        }
    }
    writes
}

fn create(
    set: &DaemonSet,
    spec: &DaemonSetSpec,
    node: &str,
    name: String,
    hash: &str,
) -> Vec<Write> {
    let message = format!("Created pod: {name}");
    let labels = [(revision::HASH_LABEL, hash)];
    let mut pod = pods::from_template(set, &spec.template, name, &labels);
    pod.spec = pod.spec.map(|spec| daemon_spec(spec, Some(node)));
    let event = Write::event(
        reference(set),
        Severity::Normal,
        COMPONENT,
        "SuccessfulCreate",
        message,
    );
    vec![Write::Create(pod.into()), event]
}

fn delete(set: &DaemonSet, pod: &Pod) -> Vec<Write> {
    let message = format!("Deleted pod: {}", name_of(pod));
    let event = Write::event(
        reference(set),
        Severity::Normal,
        COMPONENT,
        "SuccessfulDelete",
        message,
    );
    vec![Write::delete(reference(pod)), event]
}

/// Takes old pods down, those that serve nobody first, while no more than `maxUnavailable` nodes
/// are without an available pod.
fn roll(
    set: &DaemonSet,
    spec: &DaemonSetSpec,
    places: &[Place],
    hash: &str,
    now: Timestamp,
) -> Vec<Write> {
    let strategy = spec.update_strategy.as_ref();
    if strategy.and_then(|s| s.type_.as_deref()) == Some("OnDelete") {
        return Vec::new();
    }
    let wanted: Vec<&Place> = places.iter().filter(|place| place.wanted).collect();
    let allowed = strategy
        .and_then(|s| s.rolling_update.as_ref())
        .and_then(|r| r.max_unavailable.as_ref());
    let allowed = resolve(allowed, "1", wanted.len() as i32, Round::Up).max(1);
    let available = |pod: &&Pod| {
        pods::is_active(pod) && pods::is_available(pod, spec.min_ready_seconds.unwrap_or(0), now)
    };
    let mut unavailable = wanted
        .iter()
        .filter(|place| !place.pods.iter().any(&available))
        .count() as i32;
    let mut old: Vec<&Pod> = wanted
        .iter()
        .flat_map(|place| &place.pods)
        .copied()
        .filter(|pod| pods::is_active(pod) && hash_of(pod) != Some(hash))
        .collect();
    old.sort_by_key(|pod| available(pod));
    let mut writes = Vec::new();
    for pod in old {
        if available(&pod) {
            if unavailable >= allowed {
                break;
            }
            unavailable += 1;
        }
        writes.extend(delete(set, pod));
    }
    writes
}

/// The template's pod spec with the daemon's tolerations, and tied to a node.
fn daemon_spec(mut spec: PodSpec, node: Option<&str>) -> PodSpec {
    let mut tolerated: Vec<(&str, &str)> = TOLERATED.to_vec();
    if spec.host_network == Some(true) {
        tolerated.push(("node.kubernetes.io/network-unavailable", "NoSchedule"));
    }
    let tolerations = spec.tolerations.get_or_insert_default();
    for (key, effect) in tolerated {
        let toleration = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
    let Some(node) = node else { return spec };
    let field = NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let affinity = spec
        .affinity
        .get_or_insert_default()
        .node_affinity
        .get_or_insert_default();
    let required = affinity
        .required_during_scheduling_ignored_during_execution
        .get_or_insert_with(|| NodeSelector {
            node_selector_terms: vec![NodeSelectorTerm::default()],
        });
    for term in &mut required.node_selector_terms {
        term.match_fields = Some(vec![field.clone()]);
    }
    spec
}

/// The node an unscheduled daemon pod was made for.
fn meant_for(pod: &Pod) -> Option<&str> {
    let affinity = pod
        .spec
        .as_ref()?
        .affinity
        .as_ref()?
        .node_affinity
        .as_ref()?;
    let required = affinity
        .required_during_scheduling_ignored_during_execution
        .as_ref()?;
    let field = required
        .node_selector_terms
        .first()?
        .match_fields
        .as_ref()?
        .first()?;
    field.values.as_ref()?.first().map(String::as_str)
}

fn hash_of(pod: &Pod) -> Option<&str> {
    pods::labels(&pod.metadata)
        .get(revision::HASH_LABEL)
        .map(String::as_str)
}

fn status(
    set: &DaemonSet,
    spec: &DaemonSetSpec,
    places: &[Place],
    hash: &str,
    now: Timestamp,
) -> DaemonSetStatus {
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let mut status = DaemonSetStatus {
        observed_generation: set.metadata.generation,
        conditions: set.status.as_ref().and_then(|s| s.conditions.clone()),
        collision_count: set.status.as_ref().and_then(|s| s.collision_count),
        ..DaemonSetStatus::default()
    };
    let (mut updated, mut available) = (0, 0);
    for place in places {
        let active = || place.pods.iter().filter(|pod| pods::is_active(pod));
        let runs = active().next().is_some();
        if !place.wanted {
            status.number_misscheduled += i32::from(runs);
            continue;
        }
        status.desired_number_scheduled += 1;
        status.current_number_scheduled += i32::from(runs);
        status.number_ready += i32::from(active().any(|pod| pods::is_ready(pod)));
        available += i32::from(active().any(|pod| pods::is_available(pod, min_ready, now)));
        updated += i32::from(active().any(|pod| hash_of(pod) == Some(hash)));
    }
    status.number_available = nonzero(available);
    status.number_unavailable = nonzero(status.desired_number_scheduled - available);
    status.updated_number_scheduled = nonzero(updated);
    status
}
