//! delete and deletecollection: preconditions, grace, finalizers and propagation.
//!
//! What happens at once and what waits:
//!
//! | object | waits for |
//! |---|---|
//! | a Pod on a node, still running | the kubelet, which deletes it again with grace 0 |
//! | anything with `metadata.finalizers` | whoever removes them |
//! | a Namespace | its `spec.finalizers`, removed through `/finalize` by the namespace controller |
//! | the rest | nothing |
//!
//! `propagationPolicy`: `Background` (the default) removes the object and leaves its dependents to the garbage
//! collector; `Foreground` and `Orphan` put the finalizer `foregroundDeletion` or `orphan` on the object, and the
//! garbage collector does its work and takes it off. This server never touches dependents itself.

use std::sync::Arc;

use axum::body::Body;
use http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Call, Core, value_response};
use crate::body;
use crate::prepare;
use crate::registry::Resource;
use crate::select::Selector;
use crate::service_addresses;
use crate::status::{self, ApiError};
use crate::store::{Key, Object, Writer};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// `metav1.DeleteOptions`, as far as it is honoured.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeleteOptions {
    /// Seconds a Pod may take to end.
    pub grace_period_seconds: Option<i64>,
    /// `Background`, `Foreground` or `Orphan`.
    pub propagation_policy: Option<String>,
    /// What must hold.
    pub preconditions: Option<Preconditions>,
    /// `["All"]` to change nothing.
    pub dry_run: Vec<String>,
}

/// What must hold for a delete to happen.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Preconditions {
    /// The object's uid.
    pub uid: Option<String>,
    /// The object's resource version.
    pub resource_version: Option<String>,
}

/// DELETE of one object.
pub fn one(call: &Call) -> Result<Response<Body>, ApiError> {
    let options = options(call)?;
    delete_in(&call.core, call, &call.key(), &options)
}

/// Deletes one object and answers as DELETE does; eviction uses it too.
pub fn delete_in(
    core: &Core,
    call: &Call,
    key: &Key,
    options: &DeleteOptions,
) -> Result<Response<Body>, ApiError> {
    let resource = call.target.resource;
    let (object, gone) = core
        .store
        .write(|store| delete_one(store, resource, key, options))?;
    if gone && !resource.returns_deleted {
        let uid = object.value["metadata"]["uid"].as_str().unwrap_or_default();
        return Ok(value_response(
            StatusCode::OK,
            &status::deleted(resource, &key.name, uid),
        ));
    }
    Ok(call.show(StatusCode::OK, &object))
}

/// DELETE of a collection.
pub fn collection(call: &Call) -> Result<Response<Body>, ApiError> {
    let resource = call.target.resource;
    if resource.namespaced && call.target.namespace.is_none() {
        return Err(ApiError::method_not_allowed());
    }
    let options = options(call)?;
    let selector = Selector::parse(
        resource,
        &call.options.label_selector,
        &call.options.field_selector,
    )?;
    let namespace = call.target.namespace.as_deref();
    let listing = call.core.store.list(resource.slot, namespace, None);
    let listing = listing.map_err(|_| ApiError::internal("the present state is not remembered"))?;
    let mut deleted = Vec::new();
    for object in listing
        .objects
        .iter()
        .filter(|o| selector.matches(&o.value))
    {
        match call
            .core
            .store
            .write(|store| delete_one(store, resource, &object.key(), &options))
        {
            Ok((object, _)) => deleted.push(object),
            // Somebody else was faster, which is what the client wanted.
            Err(error) if error.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    let shown: Vec<&Object> = deleted.iter().map(AsRef::as_ref).collect();
    let text = call
        .view
        .list(resource, &shown, call.core.store.revision(), "", 0);
    Ok(super::json_response(StatusCode::OK, text))
}

/// Removes an object for good and gives back what it held.
pub fn forget(store: &mut Writer<'_>, resource: &Resource, key: &Key) -> Option<Arc<Object>> {
    let object = store.remove(resource.slot, key)?;
    if resource.is_core("Service")
        && let Ok(service) = crate::kind::parse(&object.value)
    {
        service_addresses::release(store.addresses(), &service);
    }
    Some(object)
}

fn options(call: &Call) -> Result<DeleteOptions, ApiError> {
    let mut options = if call.body.iter().all(u8::is_ascii_whitespace) {
        DeleteOptions::default()
    } else {
        let value = body::decode(&call.content_type, &call.body)?.value;
        serde_json::from_value(value)
            .map_err(|error| ApiError::bad_request(format!("cannot read DeleteOptions: {error}")))?
    };
    options.grace_period_seconds = options
        .grace_period_seconds
        .or(call.options.grace_period_seconds);
    options.propagation_policy = options
        .propagation_policy
        .or_else(|| call.options.propagation_policy.clone());
    if call.options.dry_run {
        options.dry_run.push("All".to_owned());
    }
    if let Some(policy) = options.propagation_policy.as_deref()
        && !matches!(policy, "Background" | "Foreground" | "Orphan")
    {
        return Err(ApiError::bad_request(format!(
            "propagationPolicy: Unsupported value: {policy:?}: supported values: \"Background\", \"Foreground\", \"Orphan\""
        )));
    }
    if options.grace_period_seconds.is_some_and(|s| s < 0) {
        return Err(ApiError::bad_request(
            "gracePeriodSeconds: Invalid value: must be greater than or equal to 0",
        ));
    }
    Ok(options)
}

/// Deletes or marks one object; the flag says whether it is gone.
fn delete_one(
    store: &mut Writer<'_>,
    resource: &Resource,
    key: &Key,
    options: &DeleteOptions,
) -> Result<(Arc<Object>, bool), ApiError> {
    let current = store.read(resource.slot, key).cloned();
    let current = current.ok_or_else(|| ApiError::not_found(resource, &key.name))?;
    check_preconditions(resource, &current.value, options)?;
    if resource.is_core("Namespace")
        && matches!(key.name.as_str(), "default" | "kube-system" | "kube-public")
    {
        return Err(ApiError::forbidden(
            resource,
            &key.name,
            "this namespace may not be deleted",
        ));
    }
    let mut value = current.value.clone();
    mark(resource, &mut value, options);
    let finished = prepare::is_finished(resource, &value);
    if options.dry_run.iter().any(|d| d == "All") {
        return Ok((Object::unstored(value), finished));
    }
    if finished {
        let gone = forget(store, resource, key);
        return Ok((gone.unwrap_or(current), true));
    }
    if value == current.value {
        return Ok((current, false));
    }
    Ok((store.put(resource.slot, key.clone(), value), false))
}

fn check_preconditions(
    resource: &Resource,
    value: &Value,
    options: &DeleteOptions,
) -> Result<(), ApiError> {
    let Some(preconditions) = &options.preconditions else {
        return Ok(());
    };
    let checks = [
        ("uid", "UID", &preconditions.uid),
        (
            "resourceVersion",
            "ResourceVersion",
            &preconditions.resource_version,
        ),
    ];
    for (field, word, wanted) in checks {
        let found = value["metadata"][field].as_str().unwrap_or_default();
        if let Some(wanted) = wanted.as_deref().filter(|w| *w != found) {
            let why = format!(
                "Precondition failed: {word} in precondition: {wanted}, {word} in object meta: {found}"
            );
            return Err(ApiError::conflict(resource, prepare::name_of(value), &why));
        }
    }
    Ok(())
}

/// Sets the marks of a deletion that may have to wait.
fn mark(resource: &Resource, value: &mut Value, options: &DeleteOptions) {
    let grace = grace(resource, value, options);
    let first = value["metadata"]["deletionTimestamp"].is_null();
    if first {
        value["metadata"]["deletionTimestamp"] = json!(timestamp_after(grace));
        if let Some(generation) = value["metadata"]["generation"].as_i64() {
            value["metadata"]["generation"] = json!(generation + 1);
        }
        propagate(value, options.propagation_policy.as_deref());
        if resource.is_core("Namespace") {
            value["status"]["phase"] = json!("Terminating");
        }
    }
    let before = value["metadata"]["deletionGracePeriodSeconds"].as_i64();
    // A second delete may shorten the grace, never lengthen it.
    if before.is_none_or(|before| grace < before) {
        value["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        if !first {
            value["metadata"]["deletionTimestamp"] = json!(timestamp_after(grace));
        }
    }
}

fn grace(resource: &Resource, value: &Value, options: &DeleteOptions) -> i64 {
    if !resource.is_core("Pod") {
        return 0;
    }
    let unplaced = value["spec"]["nodeName"].as_str().is_none_or(str::is_empty);
    let over = matches!(
        value["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    );
    if unplaced || over {
        return 0;
    }
    let own = value["spec"]["terminationGracePeriodSeconds"].as_i64();
    options.grace_period_seconds.or(own).unwrap_or(30).max(0)
}

fn timestamp_after(seconds: i64) -> String {
    let now = k8s_openapi::jiff::Timestamp::now();
    let then = now
        .checked_add(k8s_openapi::jiff::SignedDuration::from_secs(seconds))
        .unwrap_or(now);
    then.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn propagate(value: &mut Value, policy: Option<&str>) {
    let wanted = match policy {
        Some("Foreground") => Some(FOREGROUND),
        Some("Orphan") => Some(ORPHAN),
        Some(_) => None,
        // No word from the client leaves what is there.
        None => return,
    };
    let metadata = &mut value["metadata"];
    let mut finalizers: Vec<Value> = metadata["finalizers"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    finalizers.retain(|f| f != FOREGROUND && f != ORPHAN);
    finalizers.extend(wanted.map(|f| json!(f)));
    match (finalizers.is_empty(), metadata.as_object_mut()) {
        (true, Some(metadata)) => drop(metadata.remove("finalizers")),
        (false, Some(metadata)) => {
            drop(metadata.insert("finalizers".to_owned(), Value::Array(finalizers)))
        }
        (_, None) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::core;

    fn pod(node: &str) -> Value {
        json!({ "metadata": { "name": "p", "generation": 1 }, "spec": { "nodeName": node, "terminationGracePeriodSeconds": 7 } })
    }

    #[test]
    fn a_running_pod_waits_for_its_kubelet_and_an_unplaced_one_does_not() {
        let mut running = pod("node-1");
        mark(core("pods"), &mut running, &DeleteOptions::default());
        assert_eq!(running["metadata"]["deletionGracePeriodSeconds"], 7);
        assert!(!prepare::is_finished(core("pods"), &running));
        let longer = DeleteOptions {
            grace_period_seconds: Some(60),
            ..Default::default()
        };
        mark(core("pods"), &mut running, &longer);
        assert_eq!(running["metadata"]["deletionGracePeriodSeconds"], 7);
        let now = DeleteOptions {
            grace_period_seconds: Some(0),
            ..Default::default()
        };
        mark(core("pods"), &mut running, &now);
        assert!(prepare::is_finished(core("pods"), &running));
        let mut unplaced = pod("");
        mark(core("pods"), &mut unplaced, &DeleteOptions::default());
        assert!(prepare::is_finished(core("pods"), &unplaced));
    }

    #[test]
    fn propagation_is_left_to_the_garbage_collector_by_finalizer() {
        let foreground = DeleteOptions {
            propagation_policy: Some("Foreground".to_owned()),
            ..Default::default()
        };
        let mut value = json!({ "metadata": { "name": "x" } });
        mark(core("configmaps"), &mut value, &foreground);
        assert_eq!(value["metadata"]["finalizers"], json!([FOREGROUND]));
        assert!(!prepare::is_finished(core("configmaps"), &value));
        let mut value = json!({ "metadata": { "name": "x", "finalizers": ["mine"] } });
        mark(core("configmaps"), &mut value, &DeleteOptions::default());
        assert!(!prepare::is_finished(core("configmaps"), &value));
    }

    #[test]
    fn a_namespace_waits_for_its_own_finalizers() {
        let mut value =
            json!({ "metadata": { "name": "x" }, "spec": { "finalizers": ["kubernetes"] } });
        mark(core("namespaces"), &mut value, &DeleteOptions::default());
        assert_eq!(value["status"]["phase"], "Terminating");
        assert!(!prepare::is_finished(core("namespaces"), &value));
    }
}
