//! Deployment: one ReplicaSet per version of the pod template, and a careful way from one to the next.
//!
//! ```text
//! Deployment web ──owns──▶ ReplicaSet web-6f5c (revision 2, growing)   ──owns──▶ pods
//!                └─owns──▶ ReplicaSet web-b7d9 (revision 1, shrinking) ──owns──▶ pods
//! ```
//!
//! Promised: while a rolling update runs, at most `replicas + maxSurge` pods are active and no step
//! takes the number of available pods below `replicas - maxUnavailable`. [`rollout`] decides the sizes,
//! [`status`] says how far it is, in the words `kubectl rollout status` waits for. Revisions are kept
//! in the `deployment.kubernetes.io/revision` annotation, so `kubectl rollout history` and `undo` work.
//!
//! Left out: proportional scaling (a Deployment scaled in the middle of a rollout sizes its new
//! ReplicaSet first) and progress-deadline wake-ups between steps (the driver steps every second).

mod rollout;
mod status;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::names;
use crate::object::{controller_of, controller_reference, is_terminating, reference};
use crate::pods;
use crate::world::{World, name_of, namespace_of, uid_of};
use crate::write::{Delete, Propagation, Severity, Write};

pub(crate) const COMPONENT: &str = "deployment-controller";
const HASH_LABEL: &str = "pod-template-hash";
const REVISION: &str = "deployment.kubernetes.io/revision";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAXIMUM: &str = "deployment.kubernetes.io/max-replicas";

pub fn step(world: &World, now: Timestamp) -> Vec<Write> {
    world
        .deployments
        .values()
        .flat_map(|deployment| reconcile(world, deployment, now))
        .collect()
}

/// One ReplicaSet of a Deployment and how its pods are doing.
#[derive(Clone, Debug)]
pub(crate) struct Version<'a> {
    pub set: &'a ReplicaSet,
    /// `spec.replicas`.
    pub wanted: i32,
    /// Pods that are active now: more than `wanted` until the ReplicaSet has removed them.
    pub active: i32,
    /// Available pods that will still be there when the ReplicaSet has its wanted size.
    pub available: i32,
    /// Pods of any state that still run, those being deleted included.
    pub running: i32,
}

fn reconcile(world: &World, deployment: &Deployment, now: Timestamp) -> Vec<Write> {
    let Some(spec) = &deployment.spec else {
        return Vec::new();
    };
    let (sets, mut writes) =
        pods::claim::<Deployment, ReplicaSet>(world, deployment, &spec.selector);
    let hash = names::template_hash(&spec.template);
    let (new, old) = versions(world, deployment, sets, &hash, now);
    let mut created = None;
    if !is_terminating(&deployment.metadata)
        && writes.is_empty()
        && world.accepts_new(namespace_of(deployment))
        && pods::template_fits(&spec.selector, &spec.template)
    {
        let paused = spec.paused.unwrap_or(false);
        if let Some(write) = annotate(deployment, new.as_ref(), &old, paused) {
            writes.push(write);
        } else if paused {
            writes.extend(rollout::scale_only(deployment, new.as_ref(), &old));
        } else if new.is_none()
            && rollout::may_create(deployment, &old)
            && !name_is_taken(world, deployment, &hash)
        {
            let set = new_set(deployment, &hash, &old);
            let message = scaled_message("up", &set, 0);
            created = Some(name_of(&set).to_owned());
            writes.push(Write::Create(set.into()));
            writes.push(scaled_event(deployment, message));
            writes.extend(rollout::resize(deployment, None, &old));
        } else {
            writes.extend(rollout::resize(deployment, new.as_ref(), &old));
            writes.extend(clean_up(deployment, new.as_ref(), &old));
        }
    }
    let status = status::status(deployment, new.as_ref(), &old, created.as_deref(), now);
    if deployment.status.as_ref() != Some(&status) {
        let mut deployment = deployment.clone();
        deployment.status = Some(status);
        writes.push(Write::UpdateStatus(deployment.into()));
    }
    writes
}

/// A ReplicaSet of that name is still going (or is not ours): creating would only be refused.
fn name_is_taken(world: &World, deployment: &Deployment, hash: &str) -> bool {
    let name = format!("{}-{hash}", name_of(deployment));
    world
        .find::<ReplicaSet>(namespace_of(deployment), &name)
        .is_some()
}

fn versions<'a>(
    world: &'a World,
    deployment: &Deployment,
    sets: Vec<&'a ReplicaSet>,
    hash: &str,
    now: Timestamp,
) -> (Option<Version<'a>>, Vec<Version<'a>>) {
    let spec = deployment.spec.as_ref();
    let min_ready = spec.and_then(|s| s.min_ready_seconds).unwrap_or(0);
    let (mut new, mut old) = (None, Vec::new());
    for set in sets {
        let mine = world
            .in_namespace::<Pod>(namespace_of(set))
            .filter(|pod| controller_of(&pod.metadata).is_some_and(|c| c.uid == uid_of(set)));
        let mine: Vec<&Pod> = mine.collect();
        let count = pods::count(mine.iter().copied(), min_ready, now);
        let wanted = set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
        let version = Version {
            set,
            wanted,
            active: count.active,
            available: count.available.min(wanted),
            running: mine.iter().filter(|pod| !pods::is_finished(pod)).count() as i32,
        };
        let same = spec.is_some_and(|s| same_template(set, &s.template, hash));
        if same && new.is_none() && !is_terminating(&set.metadata) {
            new = Some(version);
        } else {
            old.push(version);
        }
    }
    old.sort_by(|a, b| {
        let age = |v: &Version| (revision(&v.set.metadata), pods::created(&v.set.metadata));
        age(a)
            .cmp(&age(b))
            .then_with(|| name_of(a.set).cmp(name_of(b.set)))
    });
    (new, old)
}

/// Whether the set was made from this template: by its hash, or (for sets made by another
/// controller, with another hash) by comparing the templates without it.
fn same_template(set: &ReplicaSet, template: &PodTemplateSpec, hash: &str) -> bool {
    if pods::labels(&set.metadata)
        .get(HASH_LABEL)
        .is_some_and(|label| label == hash)
    {
        return true;
    }
    let Some(mut theirs) = set.spec.as_ref().and_then(|s| s.template.clone()) else {
        return false;
    };
    if let Some(labels) = theirs.metadata.as_mut().and_then(|m| m.labels.as_mut()) {
        labels.remove(HASH_LABEL);
    }
    theirs == *template
}

fn revision(meta: &ObjectMeta) -> i64 {
    meta.annotations
        .as_ref()
        .and_then(|a| a.get(REVISION))
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

/// The new ReplicaSet's revision must be above all old ones (a rollback makes an old set new
/// again), and the Deployment shows it. One write at a time; the next step sees its effect.
fn annotate(
    deployment: &Deployment,
    new: Option<&Version>,
    old: &[Version],
    paused: bool,
) -> Option<Write> {
    let new = new?;
    let newest_old = old
        .iter()
        .map(|v| revision(&v.set.metadata))
        .max()
        .unwrap_or(0);
    let wanted = revision(&new.set.metadata).max(newest_old + 1);
    if revision(&new.set.metadata) != wanted && !paused {
        let mut set = new.set.clone();
        set.metadata
            .annotations
            .get_or_insert_default()
            .insert(REVISION.to_owned(), wanted.to_string());
        return Some(Write::Update(set.into()));
    }
    let shown = revision(&new.set.metadata);
    if revision(&deployment.metadata) == shown {
        return None;
    }
    let mut deployment = deployment.clone();
    deployment
        .metadata
        .annotations
        .get_or_insert_default()
        .insert(REVISION.to_owned(), shown.to_string());
    Some(Write::Update(deployment.into()))
}

fn new_set(deployment: &Deployment, hash: &str, old: &[Version]) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let newest = old
        .iter()
        .map(|v| revision(&v.set.metadata))
        .max()
        .unwrap_or(0);
    let mut template = spec.template;
    let meta = template.metadata.get_or_insert_default();
    let labels = meta.labels.get_or_insert_default();
    labels.insert(HASH_LABEL.to_owned(), hash.to_owned());
    let labels = labels.clone();
    let mut selector = spec.selector;
    selector
        .match_labels
        .get_or_insert_default()
        .insert(HASH_LABEL.to_owned(), hash.to_owned());
    let mut annotations = deployment.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| {
        !key.starts_with("kubectl.kubernetes.io/last-applied")
            && !key.starts_with("deployment.kubernetes.io/")
    });
    annotations.insert(REVISION.to_owned(), (newest + 1).to_string());
    annotations.insert(
        DESIRED.to_owned(),
        rollout::replicas(deployment).to_string(),
    );
    annotations.insert(MAXIMUM.to_owned(), rollout::ceiling(deployment).to_string());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", name_of(deployment))),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(rollout::first_size(deployment, old)),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

/// Gives a ReplicaSet another size, with the event a person reads in `kubectl describe`.
fn scale(deployment: &Deployment, version: &Version, size: i32) -> Vec<Write> {
    let mut set = version.set.clone();
    let direction = if size > version.wanted { "up" } else { "down" };
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.insert(
        DESIRED.to_owned(),
        rollout::replicas(deployment).to_string(),
    );
    annotations.insert(MAXIMUM.to_owned(), rollout::ceiling(deployment).to_string());
    if let Some(spec) = &mut set.spec {
        spec.replicas = Some(size);
    }
    let message = scaled_message(direction, &set, version.wanted);
    vec![Write::Update(set.into()), scaled_event(deployment, message)]
}

fn scaled_message(direction: &str, set: &ReplicaSet, from: i32) -> String {
    let size = set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
    format!(
        "Scaled {direction} replica set {} from {from} to {size}",
        name_of(set)
    )
}

fn scaled_event(deployment: &Deployment, message: String) -> Write {
    Write::event(
        reference(deployment),
        Severity::Normal,
        COMPONENT,
        "ScalingReplicaSet",
        message,
    )
}

/// Deletes the oldest empty ReplicaSets beyond `revisionHistoryLimit`, once the rollout is through.
fn clean_up(deployment: &Deployment, new: Option<&Version>, old: &[Version]) -> Vec<Write> {
    let limit = deployment
        .spec
        .as_ref()
        .and_then(|s| s.revision_history_limit)
        .unwrap_or(10);
    let complete = new.is_some_and(|v| v.available >= rollout::replicas(deployment));
    let empty: Vec<&Version> = old
        .iter()
        .filter(|v| v.wanted == 0 && v.active == 0 && !is_terminating(&v.set.metadata))
        .collect();
    if !complete || empty.len() != old.len() {
        return Vec::new();
    }
    let surplus = empty.len().saturating_sub(limit.max(0) as usize);
    let delete = |v: &&Version| {
        Write::Delete(Delete {
            target: reference(v.set),
            propagation: Some(Propagation::Background),
            ..Delete::default()
        })
    };
    empty.iter().take(surplus).map(delete).collect()
}
