//! Job: pods that run until enough of them have succeeded.
//!
//! `completions` pods must succeed, at most `parallelism` at a time; without `completions`, one success ends it
//! when the others have finished too. After more than `backoffLimit` failures, or after
//! `activeDeadlineSeconds`, the Job has failed and its running pods are deleted. `ttlSecondsAfterFinished`
//! deletes it in the end.
//!
//! Left out: indexed Jobs (they fail at once and say so), failure and success policies, the growing pause
//! between attempts, and the finalizer that lets Kubernetes count pods that were deleted meanwhile: here a
//! finished pod must stay until its Job has finished. CronJobs have no controller.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::names;
use crate::object::{controller_of, is_terminating, reference};
use crate::pods::{self, nonzero};
use crate::world::{World, name_of, namespace_of, uid_of};
use crate::write::{Delete, Propagation, Severity, Write};

const COMPONENT: &str = "job-controller";

pub fn step(world: &World, now: Timestamp) -> Vec<Write> {
    world
        .jobs
        .values()
        .flat_map(|job| reconcile(world, job, now))
        .collect()
}

/// A Job's pods by what became of them.
struct Pods<'a> {
    all: Vec<&'a Pod>,
    active: Vec<&'a Pod>,
    succeeded: i32,
    failed: i32,
}

fn reconcile(world: &World, job: &Job, now: Timestamp) -> Vec<Write> {
    let Some(spec) = &job.spec else {
        return Vec::new();
    };
    if is_terminating(&job.metadata) {
        return Vec::new();
    }
    if let Some(finished) = finished_at(job) {
        return expire(job, spec, finished, now);
    }
    let pods = pods_of(world, job);
    let mut status = job.status.clone().unwrap_or_default();
    let suspended = spec.suspend == Some(true);
    if status.start_time.is_none() && !suspended {
        status.start_time = Some(Time(now));
    }
    let ready = pods.active.iter().filter(|pod| pods::is_ready(pod)).count();
    status.active = nonzero(pods.active.len() as i32);
    status.ready = Some(ready as i32);
    status.succeeded = nonzero(pods.succeeded);
    status.failed = nonzero(pods.failed);
    let mut writes = Vec::new();
    let mut told = None;
    match verdict(spec, &status, &pods, now) {
        Some(condition) => {
            writes.extend(pods.active.iter().map(|pod| Write::delete(reference(*pod))));
            let severity = match condition.type_.as_str() {
                "Complete" => Severity::Normal,
                _ => Severity::Warning,
            };
            let (reason, message) = (condition.reason.clone(), condition.message.clone());
            let reason = reason.unwrap_or_default();
            let message = message.unwrap_or_default();
            if condition.type_ == "Complete" {
                status.completion_time = Some(Time(now));
            }
            told = Some(Write::event(
                reference(job),
                severity,
                COMPONENT,
                &reason,
                message,
            ));
            status.active = None;
            status.ready = Some(0);
            let mut condition = condition;
            condition.last_transition_time = Some(Time(now));
            condition.last_probe_time = Some(Time(now));
            status.conditions.get_or_insert_default().push(condition);
        }
        None if suspended => {
            writes.extend(pods.active.iter().map(|pod| Write::delete(reference(*pod))));
        }
        None => writes.extend(resize(world, job, spec, &pods)),
    }
    writes.extend(report(job, status));
    writes.extend(told);
    writes
}

fn report(job: &Job, status: JobStatus) -> Option<Write> {
    (job.status.as_ref() != Some(&status)).then(|| {
        let mut job = job.clone();
        job.status = Some(status);
        Write::UpdateStatus(job.into())
    })
}

fn finished_at(job: &Job) -> Option<Timestamp> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let last = conditions
        .iter()
        .find(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True")?;
    Some(
        last.last_transition_time
            .as_ref()
            .map_or(Timestamp::UNIX_EPOCH, |t| t.0),
    )
}

fn expire(job: &Job, spec: &JobSpec, finished: Timestamp, now: Timestamp) -> Vec<Write> {
    let Some(ttl) = spec.ttl_seconds_after_finished else {
        return Vec::new();
    };
    if now.duration_since(finished) < SignedDuration::from_secs(i64::from(ttl)) {
        return Vec::new();
    }
    vec![Write::Delete(Delete {
        target: reference(job),
        propagation: Some(Propagation::Background),
        ..Delete::default()
    })]
}

fn pods_of<'a>(world: &'a World, job: &'a Job) -> Pods<'a> {
    let all: Vec<&Pod> = world
        .in_namespace::<Pod>(namespace_of(job))
        .filter(|pod| controller_of(&pod.metadata).is_some_and(|c| c.uid == uid_of(job)))
        .collect();
    let ended = |phase| all.iter().filter(|pod| pods::phase(pod) == phase).count() as i32;
    Pods {
        active: all
            .iter()
            .copied()
            .filter(|pod| pods::is_active(pod))
            .collect(),
        succeeded: ended("Succeeded"),
        failed: ended("Failed"),
        all,
    }
}

/// How the Job has ended, if it has.
fn verdict(
    spec: &JobSpec,
    status: &JobStatus,
    pods: &Pods,
    now: Timestamp,
) -> Option<JobCondition> {
    let condition = |kind: &str, reason: &str, message: &str| JobCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        ..JobCondition::default()
    };
    if spec.completion_mode.as_deref() == Some("Indexed") {
        let message = "the lab does not run indexed Jobs; leave completionMode out";
        return Some(condition("Failed", "IndexedNotSupported", message));
    }
    let running = pods.all.iter().any(|pod| !pods::is_finished(pod));
    let complete = match spec.completions {
        Some(completions) => pods.succeeded >= completions,
        None => pods.succeeded > 0 && !running,
    };
    if complete {
        let message = "Reached expected number of succeeded pods";
        return Some(condition("Complete", "CompletionsReached", message));
    }
    if pods.failed > spec.backoff_limit.unwrap_or(6) {
        let message = "Job has reached the specified backoff limit";
        return Some(condition("Failed", "BackoffLimitExceeded", message));
    }
    let deadline = spec.active_deadline_seconds.map(SignedDuration::from_secs);
    let since = status.start_time.as_ref().map(|time| time.0);
    if deadline
        .zip(since)
        .is_some_and(|(deadline, since)| now.duration_since(since) >= deadline)
    {
        let message = "Job was active longer than specified deadline";
        return Some(condition("Failed", "DeadlineExceeded", message));
    }
    None
}

/// As many active pods as may run and are still needed.
fn resize(world: &World, job: &Job, spec: &JobSpec, pods: &Pods) -> Vec<Write> {
    let parallelism = spec.parallelism.unwrap_or(1).max(0);
    let wanted = match spec.completions {
        Some(completions) => parallelism.min(completions - pods.succeeded),
        // A success says that the work is done: nobody new.
        None if pods.succeeded > 0 => parallelism.min(pods.active.len() as i32),
        None => parallelism,
    };
    let wanted = wanted.max(0) as usize;
    // A pod being deleted still works; Kubernetes waits for it likewise before it starts another.
    let ending = pods
        .all
        .iter()
        .filter(|pod| !pods::is_finished(pod))
        .count()
        - pods.active.len();
    let present = pods.active.len() + ending;
    if present < wanted && world.accepts_new(namespace_of(job)) {
        create(world, job, spec, pods, wanted - present)
    } else {
        let surplus = pods.active.len().saturating_sub(wanted);
        let mut youngest = pods.active.clone();
        youngest.sort_by_key(|pod| std::cmp::Reverse(pods::created(&pod.metadata)));
        youngest
            .into_iter()
            .take(surplus)
            .map(|pod| Write::delete(reference(pod)))
            .collect()
    }
}

fn create(world: &World, job: &Job, spec: &JobSpec, pods: &Pods, missing: usize) -> Vec<Write> {
    let existing: Vec<&str> = pods.all.iter().map(|pod| uid_of(*pod)).collect();
    let taken = |name: &str| world.find::<Pod>(namespace_of(job), name).is_some();
    let labels = [
        ("batch.kubernetes.io/controller-uid", uid_of(job)),
        ("batch.kubernetes.io/job-name", name_of(job)),
        ("controller-uid", uid_of(job)),
        ("job-name", name_of(job)),
    ];
    names::fresh_names(name_of(job), uid_of(job), &existing, taken)
        .take(missing)
        .flat_map(|name| {
            let message = format!("Created pod: {name}");
            let pod = pods::from_template(job, &spec.template, name, &labels);
            let event = Write::event(
                reference(job),
                Severity::Normal,
                COMPONENT,
                "SuccessfulCreate",
                message,
            );
            [Write::Create(pod.into()), event]
        })
        .collect()
}
