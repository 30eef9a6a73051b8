//! A Deployment's status: the counts and the two conditions that `kubectl rollout status` and
//! `kubectl wait` read. Wording as in Kubernetes' `deployment/util/deployment_util.go`.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Version, rollout};
use crate::pods::nonzero;
use crate::world::name_of;

/// The status that the world shows; `created` names a ReplicaSet this very step creates.
pub fn status(
    deployment: &Deployment,
    new: Option<&Version>,
    old: &[Version],
    created: Option<&str>,
    now: Timestamp,
) -> DeploymentStatus {
    let all = || new.into_iter().chain(old);
    let reported = |field: fn(&k8s_openapi::api::apps::v1::ReplicaSetStatus) -> i32| -> i32 {
        all().filter_map(|v| v.set.status.as_ref()).map(field).sum()
    };
    let total = reported(|s| s.replicas);
    let ready = reported(|s| s.ready_replicas.unwrap_or(0));
    let available = reported(|s| s.available_replicas.unwrap_or(0));
    let updated = new
        .and_then(|v| v.set.status.as_ref())
        .map_or(0, |s| s.replicas);
    let wanted: i32 = all().map(|v| v.wanted).sum();
    let before = deployment.status.clone().unwrap_or_default();
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: nonzero(total),
        ready_replicas: nonzero(ready),
        available_replicas: nonzero(available),
        updated_replicas: nonzero(updated),
        unavailable_replicas: nonzero((wanted - available).max(0)),
        collision_count: before.collision_count,
        terminating_replicas: None,
        conditions: None,
    };
    let mut conditions = before.conditions.clone().unwrap_or_default();
    set(
        &mut conditions,
        availability(deployment, available),
        false,
        now,
    );
    if let Some((progress, refresh)) = progress(deployment, &status, new, created, now) {
        set(&mut conditions, progress, refresh, now);
    }
    conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
    status.conditions = Some(conditions);
    status
}

fn availability(deployment: &Deployment, available: i32) -> DeploymentCondition {
    if available >= rollout::floor(deployment) {
        condition(
            "Available",
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        )
    } else {
        condition(
            "Available",
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        )
    }
}

/// The Progressing condition, where it must change, and whether this counts as new progress.
fn progress(
    deployment: &Deployment,
    status: &DeploymentStatus,
    new: Option<&Version>,
    created: Option<&str>,
    now: Timestamp,
) -> Option<(DeploymentCondition, bool)> {
    let spec = deployment.spec.as_ref()?;
    let say = |status: &str, reason: &str, message: &str, news: bool| {
        Some((condition("Progressing", status, reason, message), news))
    };
    let named = |text: &str| match new {
        Some(version) => format!("ReplicaSet \"{}\" {text}", name_of(version.set)),
        None => format!("Deployment \"{}\" {text}", name_of(deployment)),
    };
    if let Some(name) = created {
        let message = format!("Created new replica set \"{name}\"");
        return say("True", "NewReplicaSetCreated", &message, true);
    }
    if spec.paused == Some(true) {
        return say("Unknown", "DeploymentPaused", "Deployment is paused", false);
    }
    if new.is_some() && is_complete(deployment, status) {
        let message = named("has successfully progressed.");
        return say("True", "NewReplicaSetAvailable", &message, false);
    }
    let before = deployment.status.as_ref();
    let conditions = before.and_then(|s| s.conditions.as_ref());
    let present = conditions.and_then(|all| all.iter().find(|c| c.type_ == "Progressing"));
    if before.is_none_or(|before| progressed(before, status)) || present.is_none() {
        let message = named("is progressing.");
        return say("True", "ReplicaSetUpdated", &message, true);
    }
    let present = present?;
    if present.reason.as_deref() == Some("DeploymentPaused") {
        return say(
            "Unknown",
            "DeploymentResumed",
            "Deployment is resumed",
            true,
        );
    }
    // A rollout that was complete is not held to the deadline when a pod dies later.
    let deadline = i64::from(spec.progress_deadline_seconds.unwrap_or(600));
    let since = present.last_update_time.as_ref().map_or(now, |t| t.0);
    let expired = now.duration_since(since) > SignedDuration::from_secs(deadline);
    if expired && present.reason.as_deref() != Some("NewReplicaSetAvailable") {
        let message = named("has timed out progressing.");
        return say("False", "ProgressDeadlineExceeded", &message, false);
    }
    None
}

fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let goal = rollout::replicas(deployment);
    let counts = [
        status.updated_replicas,
        status.replicas,
        status.available_replicas,
    ];
    counts.iter().all(|count| count.unwrap_or(0) == goal)
}

fn progressed(before: &DeploymentStatus, after: &DeploymentStatus) -> bool {
    let old = |s: &DeploymentStatus| s.replicas.unwrap_or(0) - s.updated_replicas.unwrap_or(0);
    after.updated_replicas > before.updated_replicas
        || old(after) < old(before)
        || after.ready_replicas > before.ready_replicas
        || after.available_replicas > before.available_replicas
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> DeploymentCondition {
    DeploymentCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: None,
        last_update_time: None,
    }
}

/// Puts a condition in, keeping its times where nothing happened.
fn set(
    conditions: &mut Vec<DeploymentCondition>,
    mut wanted: DeploymentCondition,
    refresh: bool,
    now: Timestamp,
) {
    let Some(present) = conditions.iter_mut().find(|c| c.type_ == wanted.type_) else {
        wanted.last_transition_time = Some(Time(now));
        wanted.last_update_time = Some(Time(now));
        conditions.push(wanted);
        return;
    };
    let same_status = present.status == wanted.status;
    if same_status
        && present.reason == wanted.reason
        && present.message == wanted.message
        && !refresh
    {
        return;
    }
    wanted.last_transition_time = if same_status {
        present.last_transition_time.clone()
    } else {
        Some(Time(now))
    };
    wanted.last_update_time = Some(Time(now));
    *present = wanted;
}
