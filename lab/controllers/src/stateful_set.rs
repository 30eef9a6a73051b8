//! StatefulSet: pods with names that last: `db-0`, `db-1`, …
//!
//! With `OrderedReady` (the default) a pod is made when all before it are ready, and the last goes
//! first; `Parallel` waits for nobody. A rolling update replaces one pod at a time from the last
//! ordinal down to `partition`. Each pod gets its name as hostname and the Service's as subdomain, so
//! that it has a DNS name of its own.
//!
//! Left out: volumes. The lab has no storage, so each of `volumeClaimTemplates` becomes an empty
//! directory of the pod, and an event on the StatefulSet says so. `maxUnavailable` of rolling updates
//! counts as 1. A pod lost in the middle of an update comes back in the new version.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod, PodTemplateSpec, Volume};

use crate::object::{is_terminating, reference};
use crate::pods::{self, nonzero};
use crate::revision;
use crate::world::{World, name_of, namespace_of};
use crate::write::{Severity, Write};

const COMPONENT: &str = "statefulset-controller";

pub fn step(world: &World, now: Timestamp) -> Vec<Write> {
    world
        .stateful_sets
        .values()
        .flat_map(|set| reconcile(world, set, now))
        .collect()
}

/// A StatefulSet with what every decision about it needs.
struct Plan<'a> {
    world: &'a World,
    set: &'a StatefulSet,
    spec: &'a StatefulSetSpec,
    /// Owned pods by ordinal.
    pods: BTreeMap<i32, &'a Pod>,
    first: i32,
    /// One past the last ordinal.
    end: i32,
    current: String,
    update: String,
    now: Timestamp,
}

fn reconcile(world: &World, set: &StatefulSet, now: Timestamp) -> Vec<Write> {
    let Some(spec) = &set.spec else {
        return Vec::new();
    };
    let (owned, mut writes) = pods::claim::<StatefulSet, Pod>(world, set, &spec.selector);
    let lives = !is_terminating(&set.metadata)
        && world.accepts_new(namespace_of(set))
        && pods::template_fits(&spec.selector, &spec.template);
    if lives && let Some(write) = revision::ensure(world, set, &spec.template) {
        writes.push(write);
        writes.extend(claims_ignored(set, spec));
        return writes;
    }
    let update = revision::name(set, &spec.template);
    let current = set.status.as_ref().and_then(|s| s.current_revision.clone());
    let first = spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0);
    let plan = Plan {
        world,
        set,
        spec,
        pods: owned
            .iter()
            .filter_map(|pod| Some((ordinal(set, pod)?, *pod)))
            .collect(),
        first,
        end: first + spec.replicas.unwrap_or(1).max(0),
        current: current.unwrap_or_else(|| update.clone()),
        update,
        now,
    };
    let status = plan.status();
    if lives && writes.is_empty() {
        writes.extend(plan.act());
    }
    let in_use: Vec<&str> = [plan.current.as_str(), plan.update.as_str()]
        .into_iter()
        .chain(plan.pods.values().filter_map(|pod| plan.revision_of(pod)))
        .collect();
    if lives {
        let limit = spec.revision_history_limit.unwrap_or(10);
        writes.extend(revision::clean_up(world, set, &in_use, limit));
    }
    if set.status.as_ref() != Some(&status) {
        let mut set = set.clone();
        set.status = Some(status);
        writes.push(Write::UpdateStatus(set.into()));
    }
    writes
}

impl Plan<'_> {
    fn act(&self) -> Vec<Write> {
        let ordered = self.spec.pod_management_policy.as_deref() != Some("Parallel");
        let mut writes = Vec::new();
        let mut waiting = false;
        for ordinal in self.first..self.end {
            match self.pods.get(&ordinal) {
                None => writes.extend(self.create(ordinal)),
                Some(pod) if pods::is_finished(pod) && !is_terminating(&pod.metadata) => {
                    writes.extend(self.delete(pod, "recreating the finished Pod"));
                }
                Some(pod) if self.is_healthy(pod) => continue,
                Some(_) => {}
            }
            waiting = true;
            if ordered {
                return writes;
            }
        }
        let mut condemned = self
            .pods
            .iter()
            .rev()
            .filter(|(n, _)| !(self.first..self.end).contains(n))
            .peekable();
        let shrinking = condemned.peek().is_some();
        for (_, pod) in condemned {
            if !is_terminating(&pod.metadata) {
                writes.extend(self.delete(pod, "successful"));
            }
            if ordered {
                return writes;
            }
        }
        if !shrinking && (!waiting || writes.is_empty()) {
            writes.extend(self.roll());
        }
        writes
    }

    /// Replaces the highest pod that is not of the update revision, when all above it are healthy.
    fn roll(&self) -> Vec<Write> {
        let strategy = self.spec.update_strategy.as_ref();
        if strategy.and_then(|s| s.type_.as_deref()) == Some("OnDelete") {
            return Vec::new();
        }
        for ordinal in (self.first + self.partition()..self.end).rev() {
            let Some(pod) = self.pods.get(&ordinal) else {
                return Vec::new();
            };
            if is_terminating(&pod.metadata) {
                return Vec::new();
            }
            if self.revision_of(pod) != Some(self.update.as_str()) {
                return self.delete(pod, "successful");
            }
            if !self.is_healthy(pod) {
                return Vec::new();
            }
        }
        Vec::new()
    }

    fn partition(&self) -> i32 {
        let rolling = self
            .spec
            .update_strategy
            .as_ref()
            .and_then(|s| s.rolling_update.as_ref());
        rolling.and_then(|r| r.partition).unwrap_or(0).max(0)
    }

    fn create(&self, ordinal: i32) -> Vec<Write> {
        let old = self.current != self.update && ordinal < self.first + self.partition();
        let old_template = || revision::template(self.world, namespace_of(self.set), &self.current);
        let (template, revision) = match old.then(old_template).flatten() {
            Some(template) => (template, &self.current),
            None => (self.spec.template.clone(), &self.update),
        };
        let pod = self.pod(ordinal, &template, revision);
        let message = format!(
            "create Pod {} in StatefulSet {} successful",
            name_of(&pod),
            name_of(self.set)
        );
        vec![
            Write::Create(pod.into()),
            self.event("SuccessfulCreate", message),
        ]
    }

    fn pod(&self, ordinal: i32, template: &PodTemplateSpec, revision: &str) -> Pod {
        let name = format!("{}-{ordinal}", name_of(self.set));
        let labels = [
            ("statefulset.kubernetes.io/pod-name", name.as_str()),
            ("apps.kubernetes.io/pod-index", &ordinal.to_string()),
            (revision::HASH_LABEL, revision),
        ];
        let mut pod = pods::from_template(self.set, template, name.clone(), &labels);
        let spec = pod.spec.get_or_insert_default();
        spec.hostname = Some(name.clone());
        spec.subdomain = self
            .spec
            .service_name
            .clone()
            .filter(|name| !name.is_empty());
        for claim in self.spec.volume_claim_templates.iter().flatten() {
            let volumes = spec.volumes.get_or_insert_default();
            volumes.retain(|volume| volume.name != name_of(claim));
            volumes.push(Volume {
                name: name_of(claim).to_owned(),
                empty_dir: Some(EmptyDirVolumeSource::default()),
                ..Volume::default()
            });
        }
        pod
    }

    fn delete(&self, pod: &Pod, outcome: &str) -> Vec<Write> {
        let message = format!(
            "delete Pod {} in StatefulSet {} {outcome}",
            name_of(pod),
            name_of(self.set)
        );
        vec![
            Write::delete(reference(pod)),
            self.event("SuccessfulDelete", message),
        ]
    }

    fn event(&self, reason: &str, message: String) -> Write {
        Write::event(
            reference(self.set),
            Severity::Normal,
            COMPONENT,
            reason,
            message,
        )
    }

    fn is_healthy(&self, pod: &Pod) -> bool {
        let min_ready = self.spec.min_ready_seconds.unwrap_or(0);
        pods::is_active(pod) && pods::is_available(pod, min_ready, self.now)
    }

    fn revision_of<'p>(&self, pod: &'p Pod) -> Option<&'p str> {
        pods::labels(&pod.metadata)
            .get(revision::HASH_LABEL)
            .map(String::as_str)
    }

    fn status(&self) -> StatefulSetStatus {
        let existing: Vec<&Pod> = self
            .pods
            .values()
            .copied()
            .filter(|pod| !pods::is_finished(pod))
            .collect();
        let of = |revision: &str| {
            let here =
                |pod: &&&Pod| pods::is_active(pod) && self.revision_of(pod) == Some(revision);
            existing.iter().filter(here).count() as i32
        };
        let min_ready = self.spec.min_ready_seconds.unwrap_or(0);
        let count = pods::count(existing.iter().copied(), min_ready, self.now);
        let wanted = self.end - self.first;
        let updated = of(&self.update);
        let complete =
            updated == wanted && count.ready == wanted && existing.len() as i32 == wanted;
        let current = if complete {
            &self.update
        } else {
            &self.current
        };
        StatefulSetStatus {
            replicas: existing.len() as i32,
            ready_replicas: nonzero(count.ready),
            available_replicas: nonzero(count.available),
            current_replicas: nonzero(of(current)),
            updated_replicas: nonzero(updated),
            current_revision: Some(current.clone()),
            update_revision: Some(self.update.clone()),
            observed_generation: self.set.metadata.generation,
            collision_count: self.set.status.as_ref().and_then(|s| s.collision_count),
            conditions: self.set.status.as_ref().and_then(|s| s.conditions.clone()),
        }
    }
}

/// `2` for `db-2` of StatefulSet `db`.
fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let text = name_of(pod).strip_prefix(name_of(set))?.strip_prefix('-')?;
    text.parse()
        .ok()
        .filter(|number: &i32| number.to_string() == text)
}

fn claims_ignored(set: &StatefulSet, spec: &StatefulSetSpec) -> Option<Write> {
    let names: Vec<&str> = spec
        .volume_claim_templates
        .iter()
        .flatten()
        .map(name_of)
        .collect();
    if names.is_empty() {
        return None;
    }
    let message = format!(
        "the lab has no storage: the volume claim templates {} become empty directories, and their data ends with the pod",
        names.join(", ")
    );
    Some(Write::event(
        reference(set),
        Severity::Warning,
        COMPONENT,
        "VolumeClaimTemplatesIgnored",
        message,
    ))
}
