//! Defaults of workloads: `pkg/apis/apps/v1/defaults.go` and `batch`.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{
    DaemonSet, Deployment, ReplicaSet, RollingUpdateDaemonSet, RollingUpdateDeployment,
    RollingUpdateStatefulSetStrategy, StatefulSet,
};
use k8s_openapi::api::batch::v1::{CronJob, Job, JobSpec};
use k8s_openapi::api::core::v1::{PodTemplateSpec, ReplicationController};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{or, or_text, other, pod};

/// Deployment.
pub fn deployment(object: &mut Deployment) {
    let Some(spec) = object.spec.as_mut() else {
        return;
    };
    or(&mut spec.replicas, 1);
    or(&mut spec.revision_history_limit, 10);
    or(&mut spec.progress_deadline_seconds, 600);
    let strategy = spec.strategy.get_or_insert_default();
    or_text(&mut strategy.type_, "RollingUpdate");
    if strategy.type_.as_deref() == Some("RollingUpdate") {
        let rolling = strategy
            .rolling_update
            .get_or_insert_with(RollingUpdateDeployment::default);
        or(
            &mut rolling.max_unavailable,
            IntOrString::String("25%".to_owned()),
        );
        or(
            &mut rolling.max_surge,
            IntOrString::String("25%".to_owned()),
        );
    }
    template(&mut spec.template);
}

/// ReplicaSet.
pub fn replica_set(object: &mut ReplicaSet) {
    let Some(spec) = object.spec.as_mut() else {
        return;
    };
    or(&mut spec.replicas, 1);
    if let Some(t) = spec.template.as_mut() {
        template(t);
    }
}

/// StatefulSet.
pub fn stateful_set(object: &mut StatefulSet) {
    let Some(spec) = object.spec.as_mut() else {
        return;
    };
    or(&mut spec.replicas, 1);
    or(&mut spec.revision_history_limit, 10);
    or_text(&mut spec.pod_management_policy, "OrderedReady");
    let strategy = spec.update_strategy.get_or_insert_default();
    or_text(&mut strategy.type_, "RollingUpdate");
    if strategy.type_.as_deref() == Some("RollingUpdate") {
        let rolling = strategy
            .rolling_update
            .get_or_insert_with(RollingUpdateStatefulSetStrategy::default);
        or(&mut rolling.partition, 0);
    }
    let retention = spec
        .persistent_volume_claim_retention_policy
        .get_or_insert_default();
    or_text(&mut retention.when_deleted, "Retain");
    or_text(&mut retention.when_scaled, "Retain");
    for claim in spec.volume_claim_templates.iter_mut().flatten() {
        other::persistent_volume_claim(claim);
        claim
            .status
            .get_or_insert_default()
            .phase
            .get_or_insert_with(|| "Pending".to_owned());
    }
    template(&mut spec.template);
}

/// DaemonSet.
pub fn daemon_set(object: &mut DaemonSet) {
    let Some(spec) = object.spec.as_mut() else {
        return;
    };
    or(&mut spec.revision_history_limit, 10);
    let strategy = spec.update_strategy.get_or_insert_default();
    or_text(&mut strategy.type_, "RollingUpdate");
    if strategy.type_.as_deref() == Some("RollingUpdate") {
        let rolling = strategy
            .rolling_update
            .get_or_insert_with(RollingUpdateDaemonSet::default);
        or(&mut rolling.max_unavailable, IntOrString::Int(1));
        or(&mut rolling.max_surge, IntOrString::Int(0));
    }
    template(&mut spec.template);
}

/// ReplicationController.
pub fn replication_controller(object: &mut ReplicationController) {
    let Some(spec) = object.spec.as_mut() else {
        return;
    };
    or(&mut spec.replicas, 1);
    if let Some(t) = spec.template.as_mut() {
        template(t);
        if spec.selector.as_ref().is_none_or(BTreeMap::is_empty) {
            spec.selector = t.metadata.as_ref().and_then(|m| m.labels.clone());
        }
    }
}

/// Job.
pub fn job(object: &mut Job) {
    if let Some(spec) = object.spec.as_mut() {
        job_spec(spec);
    }
}

/// CronJob.
pub fn cron_job(object: &mut CronJob) {
    let spec = &mut object.spec;
    or_text(&mut spec.concurrency_policy, "Allow");
    or(&mut spec.suspend, false);
    or(&mut spec.successful_jobs_history_limit, 3);
    or(&mut spec.failed_jobs_history_limit, 1);
    if let Some(job) = spec.job_template.spec.as_mut() {
        template(&mut job.template);
    }
}

fn job_spec(spec: &mut JobSpec) {
    if spec.completions.is_none() && spec.parallelism.is_none() {
        spec.completions = Some(1);
    }
    or(&mut spec.parallelism, 1);
    or(&mut spec.backoff_limit, 6);
    or(&mut spec.suspend, false);
    or_text(&mut spec.completion_mode, "NonIndexed");
    template(&mut spec.template);
}

fn template(template: &mut PodTemplateSpec) {
    if let Some(spec) = template.spec.as_mut() {
        pod::pod_spec(spec);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_deployment_rolls_by_quarters() {
        let value = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {},
            "spec": { "selector": {}, "template": { "spec": { "containers": [{ "name": "a", "image": "b" }] } } } });
        let mut object: Deployment = serde_json::from_value(value).expect("a Deployment");
        deployment(&mut object);
        let value = serde_json::to_value(object).expect("it prints");
        let spec = &value["spec"];
        assert_eq!(spec["replicas"], 1);
        assert_eq!(spec["revisionHistoryLimit"], 10);
        assert_eq!(
            spec["strategy"],
            json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": "25%", "maxUnavailable": "25%" } })
        );
        assert_eq!(spec["template"]["spec"]["restartPolicy"], "Always");
        // Accounts, priorities and tolerations are admission's, for pods only.
        assert!(spec["template"]["spec"].get("tolerations").is_none());
    }
}
