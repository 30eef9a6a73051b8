//! Subresources: status, scale, binding, eviction, finalize; and the ones that need a kubelet.
//!
//! `log`, `exec`, `attach`, `portforward` and `proxy` are streams through a node's kubelet. They are routed here and
//! answered with 501 and a sentence; serving one means one more arm in [`dispatch`].

use axum::body::Body;
use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::delete::{DeleteOptions, delete_in};
use super::write::{Checks, Update, Warnings, patch_part, replace_part};
use super::{Call, value_response};
use crate::body;
use crate::patch::{self, PatchForm, schema};
use crate::prepare::{self, Part};
use crate::registry::Resource;
use crate::request::FieldValidation;
use crate::status::{ApiError, FieldErrors};
use crate::store::Object;

/// The subresources of a resource with their verbs, for discovery and for routing.
pub fn of(resource: &Resource) -> Vec<(&'static str, &'static [&'static str])> {
    let mut found: Vec<(&str, &[&str])> = Vec::new();
    if resource.status {
        found.push(("status", &["get", "patch", "update"]));
    }
    if resource.scale {
        found.push(("scale", &["get", "patch", "update"]));
    }
    if resource.is_core("Pod") {
        found.push(("binding", &["create"]));
        found.push(("eviction", &["create"]));
    }
    if resource.is_core("Namespace") {
        found.push(("finalize", &["update"]));
    }
    found
}

/// Answers a request for a subresource.
pub fn dispatch(call: Call, method: &Method) -> Result<Response<Body>, ApiError> {
    let resource = call.target.resource;
    let sub = call.target.subresource.clone().unwrap_or_default();
    if !of(resource).iter().any(|(name, _)| *name == sub) {
        return Err(unserved(resource, &sub));
    }
    match (sub.as_str(), method) {
        ("status", &Method::GET) => super::read::get(&call),
        ("status", &Method::PUT) => replace_part(&call, Part::Status),
        ("status", &Method::PATCH) => patch_part(&call, Part::Status),
        ("scale", &Method::GET) => read_scale(&call),
        ("scale", &Method::PUT | &Method::PATCH) => write_scale(&call, method),
        ("binding", &Method::POST) => bind(&call),
        ("eviction", &Method::POST) => evict(&call),
        ("finalize", &Method::PUT) => replace_part(&call, Part::Main),
        _ => Err(ApiError::method_not_allowed()),
    }
}

fn unserved(resource: &Resource, sub: &str) -> ApiError {
    let streams = match (resource.group, resource.kind) {
        ("", "Pod") => &[
            "log",
            "exec",
            "attach",
            "portforward",
            "proxy",
            "ephemeralcontainers",
            "resize",
        ][..],
        ("", "Service" | "Node") => &["proxy"],
        ("", "ServiceAccount") => &["token"],
        _ => &[],
    };
    if streams.contains(&sub) {
        return ApiError::not_implemented(format!(
            "{}/{sub} is not served by this lab yet; `parfait lab exec` runs a program inside a pod's or node's network",
            resource.plural
        ));
    }
    ApiError::no_such_resource()
}

fn read(call: &Call) -> Result<std::sync::Arc<Object>, ApiError> {
    let resource = call.target.resource;
    let object = call.core.store.read(resource.slot, &call.key());
    object.ok_or_else(|| ApiError::not_found(resource, call.name()))
}

fn read_scale(call: &Call) -> Result<Response<Body>, ApiError> {
    Ok(value_response(
        StatusCode::OK,
        &scale_of(&read(call)?.value),
    ))
}

/// The `autoscaling/v1` Scale of a workload.
fn scale_of(value: &Value) -> Value {
    let metadata = &value["metadata"];
    let kept = [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ];
    let metadata: serde_json::Map<String, Value> = kept
        .iter()
        .filter_map(|f| metadata.get(*f).map(|v| ((*f).to_owned(), v.clone())))
        .collect();
    let selector = &value["spec"]["selector"];
    // ReplicationControllers have a plain map, the rest a LabelSelector.
    let labels = selector.get("matchLabels").unwrap_or(selector).as_object();
    let terms: Vec<String> = labels
        .into_iter()
        .flatten()
        .filter_map(|(k, v)| v.as_str().map(|v| format!("{k}={v}")))
        .collect();
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": { "replicas": value["spec"]["replicas"].as_i64().unwrap_or(0) },
        "status": {
            "replicas": value["status"]["replicas"].as_i64().unwrap_or(0),
            "selector": terms.join(","),
        },
    })
}

fn write_scale(call: &Call, method: &Method) -> Result<Response<Body>, ApiError> {
    let change = if method == Method::PATCH {
        let form = PatchForm::parse(&call.content_type)?;
        let patch = body::decode_json(&call.body)?.value;
        Change::Patch(form, patch)
    } else {
        Change::Replace(body::decode(&call.content_type, &call.body)?.value)
    };
    let update = update_of(call, Part::Main);
    let object = update.run(&call.core, &mut Warnings::default(), |current| {
        let scale = match &change {
            Change::Patch(form, patch) => {
                patch::apply(*form, &schema::OBJECT, &scale_of(current), patch)?
            }
            Change::Replace(scale) => scale.clone(),
        };
        scaled(call, current, &scale)
    })?;
    Ok(value_response(StatusCode::OK, &scale_of(&object.value)))
}

enum Change {
    Patch(PatchForm, Value),
    Replace(Value),
}

fn scaled(call: &Call, current: &Value, scale: &Value) -> Result<Value, ApiError> {
    let replicas = match &scale["spec"]["replicas"] {
        Value::Null => 0,
        number => number.as_i64().and_then(|n| i32::try_from(n).ok()).ok_or_else(|| {
            ApiError::bad_request(format!(
                "Scale in version \"v1\" cannot be handled as a Scale: json: cannot unmarshal into field \
                 spec.replicas: {number} is not a 32-bit integer"
            ))
        })?,
    };
    if replicas < 0 {
        let mut errors = FieldErrors::default();
        errors.invalid(
            "spec.replicas",
            replicas,
            "must be greater than or equal to 0",
        );
        return Err(ApiError::invalid(
            call.target.resource,
            call.name(),
            &errors.0,
        ));
    }
    let mut next = current.clone();
    next["spec"]["replicas"] = json!(replicas);
    // The client may insist on the version it read; its uid and name are checked as for any update.
    for field in ["resourceVersion", "uid", "name"] {
        if let Some(value) = scale["metadata"].get(field) {
            next["metadata"][field] = value.clone();
        }
    }
    Ok(next)
}

fn update_of(call: &Call, part: Part) -> Update<'static> {
    Update {
        resource: call.target.resource,
        key: call.key(),
        part,
        duplicates: &[],
        checks: Checks {
            validation: FieldValidation::Ignore,
            dry_run: call.options.dry_run,
        },
    }
}

/// The scheduler's word: this pod runs on that node.
fn bind(call: &Call) -> Result<Response<Body>, ApiError> {
    let binding = body::decode(&call.content_type, &call.body)?.value;
    let node = binding["target"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let resource = call.target.resource;
    if node.is_empty() {
        let mut errors = FieldErrors::default();
        errors.required("target.name", "");
        return Err(ApiError::invalid(resource, call.name(), &errors.0));
    }
    let update = update_of(call, Part::Whole);
    update.run(&call.core, &mut Warnings::default(), |current| {
        let taken = current["spec"]["nodeName"].as_str().unwrap_or_default();
        if !current["metadata"]["deletionTimestamp"].is_null() {
            return Err(ApiError::conflict(resource, call.name(), &format!("pod {} is being deleted, cannot be assigned to a host", call.name())));
        }
        if !taken.is_empty() {
            let why = format!("pod {} is already assigned to node {taken:?}", call.name());
            return Err(ApiError::conflict(resource, call.name(), &why));
        }
        let mut next = current.clone();
        next["spec"]["nodeName"] = json!(node);
        let condition = json!({
            "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": prepare::now(),
        });
        let conditions = next["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let others = conditions.into_iter().filter(|c| c["type"] != "PodScheduled");
        next["status"]["conditions"] = std::iter::once(condition).chain(others).collect();
        Ok(next)
    })?;
    Ok(value_response(StatusCode::CREATED, &success()))
}

/// A polite delete. Disruption budgets are stored and not consulted.
fn evict(call: &Call) -> Result<Response<Body>, ApiError> {
    let eviction = body::decode(&call.content_type, &call.body)?.value;
    let options: DeleteOptions = match eviction.get("deleteOptions") {
        None | Some(Value::Null) => DeleteOptions::default(),
        Some(options) => serde_json::from_value(options.clone()).map_err(|error| {
            ApiError::bad_request(format!("cannot read deleteOptions: {error}"))
        })?,
    };
    delete_in(&call.core, call, &call.key(), &options)?;
    Ok(value_response(StatusCode::CREATED, &success()))
}

fn success() -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 })
}
