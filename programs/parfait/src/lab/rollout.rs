//! Waiting until every workload is available, and saying what it waits for.
//!
//! A Deployment is available when it has been seen by its controller and all its replicas are
//! updated and available (`kubectl rollout status`); a StatefulSet and a DaemonSet when all pods are
//! ready; a bare pod when it is ready or has succeeded. Why one is not is read from its pods: the
//! first that is not ready, its containers' states, its conditions, its newest warning.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Event, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use kube::Client;

use super::api::{all, pod_phase, pod_ready};
use crate::exit::Failure;

const PERIOD: Duration = Duration::from_millis(250);

/// How far one workload is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// `deployment/frontend`, with the namespace in front unless it is `default`.
    pub name: String,
    pub available: i32,
    pub desired: i32,
    /// What it waits for, if anything is known.
    pub reason: Option<String>,
    /// It has ended, badly, and nothing starts it again.
    pub failed: bool,
}

impl Progress {
    pub const fn done(&self) -> bool {
        self.available >= self.desired
    }
}

/// What a look at the cluster shows.
struct View {
    deployments: Vec<Deployment>,
    stateful_sets: Vec<StatefulSet>,
    daemon_sets: Vec<DaemonSet>,
    pods: Vec<Pod>,
    events: Vec<Event>,
}

/// Looks until everything is available or the time is up; `tell` hears of each look. Answers the
/// last look.
pub async fn wait(
    client: &Client,
    patience: Duration,
    mut tell: impl FnMut(&[Progress]),
) -> Result<Vec<Progress>, Failure> {
    let end = Instant::now() + patience;
    let mut before = false;
    loop {
        let progress = look(client).await?;
        tell(&progress);
        let done = progress.iter().all(|one| one.done() || one.failed);
        // Twice in a row: without a readiness probe a container that crashes at once is ready for
        // a moment.
        if (done && (before || progress.is_empty())) || Instant::now() >= end {
            return Ok(progress);
        }
        before = done;
        tokio::time::sleep(PERIOD).await;
    }
}

/// How far every workload is.
pub async fn look(client: &Client) -> Result<Vec<Progress>, Failure> {
    let view = View {
        deployments: all(client).await?,
        stateful_sets: all(client).await?,
        daemon_sets: all(client).await?,
        pods: all(client).await?,
        // They only add words: a server without events is no reason to fail.
        events: all(client).await.unwrap_or_default(),
    };
    Ok(view.progress())
}

impl View {
    fn progress(&self) -> Vec<Progress> {
        let mut found = Vec::new();
        for d in &self.deployments {
            let desired = d.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
            let status = d.status.clone().unwrap_or_default();
            let seen = current(&d.metadata, status.observed_generation);
            let available = status
                .available_replicas
                .unwrap_or(0)
                .min(status.updated_replicas.unwrap_or(0));
            let selector = d.spec.as_ref().map(|s| &s.selector);
            found.push(self.workload(
                "deployment",
                &d.metadata,
                selector,
                desired,
                available,
                seen,
            ));
        }
        for s in &self.stateful_sets {
            let desired = s.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
            let status = s.status.clone().unwrap_or_default();
            let seen = current(&s.metadata, status.observed_generation);
            let selector = s.spec.as_ref().map(|s| &s.selector);
            let ready = status.ready_replicas.unwrap_or(0);
            found.push(self.workload("statefulset", &s.metadata, selector, desired, ready, seen));
        }
        for d in &self.daemon_sets {
            let status = d.status.clone().unwrap_or_default();
            let seen = current(&d.metadata, status.observed_generation);
            let selector = d.spec.as_ref().map(|s| &s.selector);
            let desired = status.desired_number_scheduled;
            found.push(self.workload(
                "daemonset",
                &d.metadata,
                selector,
                desired,
                status.number_ready,
                seen,
            ));
        }
        let bare = |pod: &&Pod| {
            pod.metadata
                .owner_references
                .as_deref()
                .unwrap_or_default()
                .is_empty()
        };
        for pod in self.pods.iter().filter(bare) {
            let done = pod_ready(pod) || pod_phase(pod) == "Succeeded";
            let reason = if done { None } else { self.why_not(pod) };
            found.push(Progress {
                name: title("pod", &pod.metadata),
                available: i32::from(done),
                desired: 1,
                reason,
                failed: pod_phase(pod) == "Failed",
            });
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }

    fn workload(
        &self,
        kind: &str,
        metadata: &ObjectMeta,
        selector: Option<&LabelSelector>,
        desired: i32,
        available: i32,
        seen: bool,
    ) -> Progress {
        // What the controller has not seen yet is not available, whatever an old status says.
        let (desired, available) = if seen {
            (desired, available)
        } else {
            (desired.max(1), 0)
        };
        let labels = selector
            .and_then(|s| s.match_labels.clone())
            .unwrap_or_default();
        let mine = |pod: &&Pod| {
            pod.metadata.namespace == metadata.namespace && selects(&labels, &pod.metadata)
        };
        let reason = if available >= desired {
            None
        } else {
            let stuck = self.pods.iter().filter(mine).find(|pod| !pod_ready(pod));
            stuck
                .and_then(|pod| self.why_not(pod))
                .or_else(|| (!seen).then(|| "its controller has not seen it yet".to_owned()))
                .or_else(|| self.warning("", metadata))
        };
        Progress {
            name: title(kind, metadata),
            available,
            desired,
            reason,
            failed: false,
        }
    }

    /// What a pod that is not ready waits for.
    fn why_not(&self, pod: &Pod) -> Option<String> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let status = pod.status.as_ref();
        let containers = status.into_iter().flat_map(|s| {
            s.init_container_statuses
                .iter()
                .flatten()
                .chain(s.container_statuses.iter().flatten())
        });
        if let Some(why) = containers.filter(|c| !c.ready).find_map(stuck) {
            return Some(format!("{name}: {why}"));
        }
        let running_init = status
            .and_then(|s| {
                s.init_container_statuses
                    .as_ref()?
                    .iter()
                    .find(|c| !c.ready)
            })
            .filter(|c| c.state.as_ref().is_some_and(|s| s.running.is_some()));
        if let Some(init) = running_init {
            return Some(format!(
                "{name}: its init container {} has not ended",
                init.name
            ));
        }
        self.why_waiting(pod)
    }

    /// What a pod whose containers give no reason waits for.
    fn why_waiting(&self, pod: &Pod) -> Option<String> {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let status = pod.status.as_ref();
        let conditions = status
            .and_then(|s| s.conditions.as_deref())
            .unwrap_or_default();
        let unscheduled = conditions
            .iter()
            .find(|c| c.type_ == "PodScheduled" && c.status != "True");
        let said = unscheduled
            .and_then(|c| c.message.clone())
            .map(|m| format!("{name}: {m}"));
        said.or_else(|| self.warning("Pod", &pod.metadata))
            .or_else(|| {
                let not_ready = conditions
                    .iter()
                    .find(|c| c.type_ == "Ready" && c.status != "True");
                let message =
                    not_ready.and_then(|c| c.message.clone().or_else(|| c.reason.clone()));
                Some(format!(
                    "{name}: {}",
                    message.unwrap_or_else(|| pod_phase(pod).to_lowercase())
                ))
            })
    }

    /// The newest warning about an object; `kind` may be left open.
    fn warning(&self, kind: &str, object: &ObjectMeta) -> Option<String> {
        let about = |event: &&Event| {
            let regarding = &event.involved_object;
            event.type_.as_deref() == Some("Warning")
                && (kind.is_empty() || regarding.kind.as_deref() == Some(kind))
                && regarding.name == object.name
                && regarding.namespace == object.namespace
        };
        let newest = self
            .events
            .iter()
            .filter(about)
            .max_by_key(|e| e.last_timestamp.clone().map(|t| t.0))?;
        let name = object.name.as_deref().unwrap_or_default();
        newest
            .message
            .as_ref()
            .map(|message| format!("{name}: {message}"))
    }
}

fn current(metadata: &ObjectMeta, observed: Option<i64>) -> bool {
    observed.unwrap_or(0) >= metadata.generation.unwrap_or(0)
}

fn selects(labels: &BTreeMap<String, String>, pod: &ObjectMeta) -> bool {
    let has = pod.labels.clone().unwrap_or_default();
    !labels.is_empty()
        && labels
            .iter()
            .all(|(key, value)| has.get(key) == Some(value))
}

fn title(kind: &str, metadata: &ObjectMeta) -> String {
    let name = metadata.name.as_deref().unwrap_or_default();
    match metadata.namespace.as_deref() {
        None | Some("default") => format!("{kind}/{name}"),
        Some(namespace) => format!("{namespace} {kind}/{name}"),
    }
}

/// Why a container does not get ready, if it says: what it waits for, or how it ended.
fn stuck(container: &ContainerStatus) -> Option<String> {
    let state = container.state.as_ref()?;
    let name = &container.name;
    if let Some(ended) = state.terminated.as_ref().filter(|t| t.exit_code != 0) {
        return Some(format!("container {name} {}", how_it_ended(ended)));
    }
    let waiting = state.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().unwrap_or("waiting");
    if matches!(reason, "PodInitializing" | "ContainerCreating") {
        return None;
    }
    // A back-off says how long, not why: that is how the container ended last.
    let last = container
        .last_state
        .as_ref()
        .and_then(|s| s.terminated.as_ref());
    let more = match (reason, last, &waiting.message) {
        ("CrashLoopBackOff", Some(ended), _) => format!(": it {}", how_it_ended(ended)),
        (_, _, Some(message)) => format!(": {message}"),
        (_, _, None) => String::new(),
    };
    Some(format!("container {name}: {reason}{more}"))
}

/// The exit code, and the last thing it said.
fn how_it_ended(ended: &ContainerStateTerminated) -> String {
    let said = ended.message.as_deref().unwrap_or_default();
    match said.lines().rfind(|line| !line.trim().is_empty()) {
        Some(last) => format!("ended with code {}: {}", ended.exit_code, last.trim()),
        None => format!("ended with code {}", ended.exit_code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn view(
        deployment: serde_json::Value,
        pods: serde_json::Value,
        events: serde_json::Value,
    ) -> View {
        View {
            deployments: vec![serde_json::from_value(deployment).unwrap()],
            stateful_sets: Vec::new(),
            daemon_sets: Vec::new(),
            pods: serde_json::from_value(pods).unwrap(),
            events: serde_json::from_value(events).unwrap(),
        }
    }

    fn deployment(generation: i64, status: serde_json::Value) -> serde_json::Value {
        json!({"metadata": {"name": "web", "namespace": "default", "generation": generation},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": {}}, "status": status})
    }

    #[test]
    fn an_old_status_is_not_believed() {
        let status = json!({"observedGeneration": 1, "availableReplicas": 2, "updatedReplicas": 2});
        assert!(view(deployment(1, status.clone()), json!([]), json!([])).progress()[0].done());
        let progress = view(deployment(2, status), json!([]), json!([])).progress();
        assert!(!progress[0].done());
        assert_eq!(
            progress[0].reason.as_deref(),
            Some("its controller has not seen it yet")
        );
    }

    #[test]
    fn the_reason_is_the_nearest_to_the_cause() {
        let status = json!({"observedGeneration": 1, "availableReplicas": 1, "updatedReplicas": 2});
        let pod = |status: serde_json::Value| json!([{"metadata": {"name": "web-1", "namespace": "default", "labels": {"app": "web"}, "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u"}]}, "status": status}]);
        let reason = |pods, events| {
            view(deployment(1, status.clone()), pods, events).progress()[0]
                .reason
                .clone()
        };
        let crash = pod(
            json!({"containerStatuses": [{"name": "c", "ready": false, "image": "", "imageID": "", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}}]}),
        );
        assert_eq!(
            reason(crash, json!([])).as_deref(),
            Some("web-1: container c: CrashLoopBackOff: back-off 10s")
        );
        let probe = json!([{"metadata": {"name": "e"}, "type": "Warning", "message": "Readiness probe failed: 500", "involvedObject": {"kind": "Pod", "name": "web-1", "namespace": "default"}}]);
        assert_eq!(
            reason(pod(json!({"phase": "Running"})), probe).as_deref(),
            Some("web-1: Readiness probe failed: 500")
        );
        assert_eq!(
            reason(pod(json!({"phase": "Pending"})), json!([])).as_deref(),
            Some("web-1: pending")
        );
    }

    #[test]
    fn a_crash_is_explained_by_its_last_words_not_by_its_back_off() {
        let container = serde_json::from_value(json!({
            "name": "b", "ready": false, "restartCount": 3, "image": "", "imageID": "",
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
            "lastState": {"terminated": {"exitCode": 1, "message": "starting\nport 8080 is taken\n"}},
        }));
        assert_eq!(
            stuck(&container.unwrap()).as_deref(),
            Some("container b: CrashLoopBackOff: it ended with code 1: port 8080 is taken")
        );
    }
}
