//! Workloads: the selector must select the template, and stays what it is.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{PodTemplateSpec, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{IMMUTABLE, metadata, pod};
use crate::status::FieldErrors;

/// Deployment.
pub fn deployment(object: &Deployment, errors: &mut FieldErrors) {
    let Some(spec) = &object.spec else {
        return errors.required("spec.selector", "");
    };
    workload(spec.replicas, &spec.selector, Some(&spec.template), errors);
    not_negative("spec.minReadySeconds", spec.min_ready_seconds, errors);
    not_negative(
        "spec.revisionHistoryLimit",
        spec.revision_history_limit,
        errors,
    );
    let Some(strategy) = &spec.strategy else {
        return;
    };
    match strategy.type_.as_deref() {
        Some("RollingUpdate") => {
            let rolling = strategy.rolling_update.as_ref();
            let zero = |value: Option<&IntOrString>| match value {
                Some(IntOrString::Int(n)) => *n == 0,
                Some(IntOrString::String(text)) => text == "0%",
                None => true,
            };
            let (unavailable, surge) = (
                rolling.and_then(|r| r.max_unavailable.as_ref()),
                rolling.and_then(|r| r.max_surge.as_ref()),
            );
            int_or_percent(
                "spec.strategy.rollingUpdate.maxUnavailable",
                unavailable,
                errors,
            );
            int_or_percent("spec.strategy.rollingUpdate.maxSurge", surge, errors);
            if zero(unavailable) && zero(surge) {
                errors.invalid(
                    "spec.strategy.rollingUpdate.maxUnavailable",
                    0,
                    "may not be 0 when `maxSurge` is 0",
                );
            }
        }
        Some("Recreate") => {
            if strategy.rolling_update.is_some() {
                errors.forbidden(
                    "spec.strategy.rollingUpdate",
                    "may not be specified when strategy `type` is 'Recreate'",
                );
            }
        }
        other => {
            errors.not_supported(
                "spec.strategy.type",
                other.unwrap_or_default(),
                &["Recreate", "RollingUpdate"],
            );
        }
    }
}

/// Deployment, from one to the next.
pub fn deployment_update(new: &Deployment, old: &Deployment, errors: &mut FieldErrors) {
    if let (Some(new), Some(old)) = (&new.spec, &old.spec) {
        same_selector(&new.selector, &old.selector, errors);
    }
}

/// ReplicaSet.
pub fn replica_set(object: &ReplicaSet, errors: &mut FieldErrors) {
    let Some(spec) = &object.spec else {
        return errors.required("spec.selector", "");
    };
    workload(
        spec.replicas,
        &spec.selector,
        spec.template.as_ref(),
        errors,
    );
}

/// ReplicaSet, from one to the next.
pub fn replica_set_update(new: &ReplicaSet, old: &ReplicaSet, errors: &mut FieldErrors) {
    if let (Some(new), Some(old)) = (&new.spec, &old.spec) {
        same_selector(&new.selector, &old.selector, errors);
    }
}

/// StatefulSet.
pub fn stateful_set(object: &StatefulSet, errors: &mut FieldErrors) {
    let Some(spec) = &object.spec else {
        return errors.required("spec.selector", "");
    };
    let template = with_claims(spec);
    workload(spec.replicas, &spec.selector, Some(&template), errors);
    if let Some(policy) = spec
        .pod_management_policy
        .as_deref()
        .filter(|p| !matches!(*p, "OrderedReady" | "Parallel"))
    {
        errors.invalid(
            "spec.podManagementPolicy",
            policy,
            "must be 'OrderedReady' or 'Parallel'",
        );
    }
}

/// The template with the volumes that the controller will add to each pod: one for every claim template, in place of
/// the template's own of that name.
fn with_claims(spec: &StatefulSetSpec) -> PodTemplateSpec {
    let mut template = spec.template.clone();
    let claims = spec.volume_claim_templates.iter().flatten();
    let names: Vec<String> = claims.filter_map(|c| c.metadata.name.clone()).collect();
    if let Some(pod) = template.spec.as_mut().filter(|_| !names.is_empty()) {
        let volumes = pod.volumes.get_or_insert_default();
        volumes.retain(|v| !names.contains(&v.name));
        volumes.extend(names.into_iter().map(|name| Volume {
            name,
            ..Volume::default()
        }));
    }
    template
}

/// StatefulSet, from one to the next: most of the spec stays.
pub fn stateful_set_update(new: &StatefulSet, old: &StatefulSet, errors: &mut FieldErrors) {
    let (Some(mut new), Some(old)) = (new.spec.clone(), old.spec.clone()) else {
        return;
    };
    new.replicas = old.replicas;
    new.template = old.template.clone();
    new.update_strategy.clone_from(&old.update_strategy);
    new.revision_history_limit = old.revision_history_limit;
    new.min_ready_seconds = old.min_ready_seconds;
    new.ordinals.clone_from(&old.ordinals);
    new.persistent_volume_claim_retention_policy
        .clone_from(&old.persistent_volume_claim_retention_policy);
    if new != old {
        errors.forbidden(
            "spec",
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
             'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        );
    }
}

/// DaemonSet.
pub fn daemon_set(object: &DaemonSet, errors: &mut FieldErrors) {
    let Some(spec) = &object.spec else {
        return errors.required("spec.selector", "");
    };
    workload(None, &spec.selector, Some(&spec.template), errors);
}

/// DaemonSet, from one to the next.
pub fn daemon_set_update(new: &DaemonSet, old: &DaemonSet, errors: &mut FieldErrors) {
    if let (Some(new), Some(old)) = (&new.spec, &old.spec) {
        same_selector(&new.selector, &old.selector, errors);
    }
}

fn workload(
    replicas: Option<i32>,
    selector: &LabelSelector,
    template: Option<&PodTemplateSpec>,
    errors: &mut FieldErrors,
) {
    not_negative("spec.replicas", replicas, errors);
    let empty = selector
        .match_labels
        .as_ref()
        .is_none_or(BTreeMap::is_empty)
        && selector
            .match_expressions
            .as_ref()
            .is_none_or(Vec::is_empty);
    label_selector(selector, "spec.selector", errors);
    let Some(template) = template else {
        if empty {
            errors.required("spec.selector", "");
        }
        return errors.required("spec.template", "");
    };
    let none = BTreeMap::new();
    let labels = template
        .metadata
        .as_ref()
        .and_then(|m| m.labels.as_ref())
        .unwrap_or(&none);
    if empty {
        // An empty selector would select every pod of the namespace.
        errors.required("spec.selector", "");
    }
    if empty || !selects(selector, labels) {
        let labels = serde_json::to_value(labels).unwrap_or_default();
        errors.invalid(
            "spec.template.metadata.labels",
            labels,
            "`selector` does not match template `labels`",
        );
    }
    pod::template(template, "spec.template", errors);
}

/// Checks a label selector.
pub fn label_selector(selector: &LabelSelector, field: &str, errors: &mut FieldErrors) {
    for (key, value) in selector.match_labels.iter().flatten() {
        metadata::label(key, value, &format!("{field}.matchLabels"), errors);
    }
    for (i, expression) in selector.match_expressions.iter().flatten().enumerate() {
        let field = format!("{field}.matchExpressions[{i}]");
        let values = expression.values.as_ref().is_some_and(|v| !v.is_empty());
        match expression.operator.as_str() {
            "In" | "NotIn" if !values => errors.required(
                format!("{field}.values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            ),
            "Exists" | "DoesNotExist" if values => errors.forbidden(
                format!("{field}.values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.invalid(
                format!("{field}.operator"),
                other,
                "not a valid selector operator",
            ),
        }
        metadata::label(&expression.key, "", &format!("{field}.key"), errors);
    }
}

fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let wanted = selector
        .match_labels
        .iter()
        .flatten()
        .all(|(k, v)| labels.get(k) == Some(v));
    wanted
        && selector.match_expressions.iter().flatten().all(|e| {
            let value = labels.get(&e.key);
            let listed = value.is_some_and(|v| e.values.iter().flatten().any(|x| x == v));
            match e.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value.is_some(),
                _ => value.is_none(),
            }
        })
}

fn same_selector(new: &LabelSelector, old: &LabelSelector, errors: &mut FieldErrors) {
    if new != old {
        errors.invalid(
            "spec.selector",
            serde_json::to_value(new).unwrap_or_default(),
            IMMUTABLE,
        );
    }
}

fn not_negative(field: &str, value: Option<i32>, errors: &mut FieldErrors) {
    if let Some(value) = value.filter(|v| *v < 0) {
        errors.invalid(field, value, "must be greater than or equal to 0");
    }
}

fn int_or_percent(field: &str, value: Option<&IntOrString>, errors: &mut FieldErrors) {
    match value {
        Some(IntOrString::Int(n)) => not_negative(field, Some(*n), errors),
        Some(IntOrString::String(text)) => {
            let digits = text.strip_suffix('%').unwrap_or_default();
            if digits.is_empty() || !digits.chars().all(|c| c.is_ascii_digit()) {
                errors.invalid(field, text.as_str(), "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')");
            }
        }
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object(selector: Value, labels: Value) -> Deployment {
        serde_json::from_value(json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {},
            "spec": {
                "selector": selector, "strategy": { "type": "Recreate" },
                "template": { "metadata": { "labels": labels }, "spec": { "containers": [{ "name": "a", "image": "i" }] } },
            },
        }))
        .expect("a Deployment")
    }

    fn complaints(deployment: &Deployment) -> Vec<String> {
        let mut errors = FieldErrors::default();
        super::deployment(deployment, &mut errors);
        errors.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_selector_selects_the_template() {
        assert!(
            complaints(&object(
                json!({ "matchLabels": { "a": "b" } }),
                json!({ "a": "b", "c": "d" })
            ))
            .is_empty()
        );
        let in_set =
            json!({ "matchExpressions": [{ "key": "a", "operator": "In", "values": ["b", "c"] }] });
        assert!(complaints(&object(in_set, json!({ "a": "b" }))).is_empty());
        assert_eq!(
            complaints(&object(
                json!({ "matchLabels": { "a": "b" } }),
                json!({ "a": "x" })
            )),
            [
                "spec.template.metadata.labels: Invalid value: {\"a\":\"x\"}: `selector` does not match template `labels`"
            ]
        );
        assert_eq!(
            complaints(&object(json!({}), json!({})))[0],
            "spec.selector: Required value"
        );
    }

    #[test]
    fn claim_templates_count_as_volumes() {
        let set = |claims: Value| -> StatefulSet {
            let container = json!({
                "name": "a", "image": "i", "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
            });
            serde_json::from_value(json!({
                "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {},
                "spec": {
                    "selector": { "matchLabels": { "a": "b" } }, "serviceName": "s", "volumeClaimTemplates": claims,
                    "template": { "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [container] } },
                },
            }))
            .expect("a StatefulSet")
        };
        let complaints = |set: &StatefulSet| {
            let mut errors = FieldErrors::default();
            stateful_set(set, &mut errors);
            errors.0.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let claim = json!([{ "metadata": { "name": "data" }, "spec": {} }]);
        assert_eq!(complaints(&set(claim)), Vec::<String>::new());
        assert_eq!(
            complaints(&set(json!([]))),
            ["spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"data\""]
        );
    }

    #[test]
    fn the_selector_stays() {
        let old = object(json!({ "matchLabels": { "a": "b" } }), json!({ "a": "b" }));
        let new = object(json!({ "matchLabels": { "a": "c" } }), json!({ "a": "c" }));
        let mut errors = FieldErrors::default();
        deployment_update(&new, &old, &mut errors);
        assert_eq!(
            errors.0[0].to_string(),
            "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"c\"}}: field is immutable"
        );
    }
}
