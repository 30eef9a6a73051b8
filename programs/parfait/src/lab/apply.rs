//! Applying manifests, as `kubectl apply` does: create what is not there, merge into what is.
//!
//! A merge has three sides: what was applied last time (an annotation, kubectl's own, so that both
//! can take turns), what is there, and what the file says. A field that the file no longer has is
//! removed; a field that only the server or somebody else has set stays. Lists are replaced whole,
//! when what is there does not already contain what the file says.
//! Source: kubectl's "declarative management of objects", RFC 7396 for the patch.
//!
//! Namespaces come first, then what others refer to, then workloads; otherwise in the files' order.
//! A fault in one object does not keep the others from being applied, and all faults are returned.

use std::collections::BTreeMap;

use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{ApiCapabilities, Discovery, Scope};
use kube::{Api, Client, ResourceExt};
use serde_json::{Map, Value};

use super::manifest::{Fault, Manifest};
use crate::exit::{Failure, said};

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What became of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Created,
    Configured,
    Unchanged,
}

/// Applies everything; `tell` hears of each object.
pub async fn apply(
    client: &Client,
    manifests: &[Manifest],
    mut tell: impl FnMut(&Manifest, Outcome),
) -> Result<Vec<Fault>, Failure> {
    let discovery = Discovery::new(client.clone()).run().await?;
    let mut ordered: Vec<&Manifest> = manifests.iter().collect();
    ordered.sort_by_key(|manifest| rank(&manifest.kind));
    let mut faults = Vec::new();
    for manifest in ordered {
        match apply_one(client, &discovery, manifest).await {
            Ok(outcome) => tell(manifest, outcome),
            Err(fault) => faults.push(fault),
        }
    }
    Ok(faults)
}

fn rank(kind: &str) -> u8 {
    match kind {
        "Namespace" => 0,
        "CustomResourceDefinition" => 1,
        "ServiceAccount" | "ConfigMap" | "Secret" | "ClusterRole" | "Role"
        | "ClusterRoleBinding" | "RoleBinding" => 2,
        "NetworkPolicy" => 3,
        "Service" => 4,
        _ => 5,
    }
}

async fn apply_one(
    client: &Client,
    discovery: &Discovery,
    manifest: &Manifest,
) -> Result<Outcome, Fault> {
    let name = format!("{} {}", manifest.kind, manifest.name);
    let (resource, capabilities) = resolve(discovery, manifest)?;
    let api: Api<DynamicObject> = if capabilities.scope == Scope::Cluster {
        Api::all_with(client.clone(), &resource)
    } else {
        let namespace = manifest.namespace.as_deref().unwrap_or("default");
        Api::namespaced_with(client.clone(), namespace, &resource)
    };
    let refused = |error: kube::Error| {
        manifest
            .place
            .fault_of_field(format!("{name}: {}", said(&error)))
    };
    let desired = with_last_applied(&manifest.object);
    // Two rounds: somebody may create or delete the object between the look and the write.
    for last in [false, true] {
        let written = match api.get_opt(&manifest.name).await.map_err(refused)? {
            None => create(client, &api, &desired)
                .await
                .map(|()| Outcome::Created),
            Some(live) => merge(&api, live, &desired, &manifest.object).await,
        };
        match written {
            Ok(outcome) => return Ok(outcome),
            Err(kube::Error::Api(status))
                if !last && matches!(status.code, 404 | 409) && status.reason != "NotFound" => {}
            Err(error) => return Err(refused(error)),
        }
    }
    Err(manifest
        .place
        .fault(format!("{name}: it changes faster than it can be applied")))
}

/// The server's resource for a kind; what it knows instead, if it has none.
fn resolve(
    discovery: &Discovery,
    manifest: &Manifest,
) -> Result<(ApiResource, ApiCapabilities), Fault> {
    let (group, version) = manifest
        .api_version
        .rsplit_once('/')
        .unwrap_or(("", &manifest.api_version));
    let kind = GroupVersionKind::gvk(group, version, &manifest.kind);
    discovery.resolve_gvk(&kind).ok_or_else(|| {
        let known: BTreeMap<String, String> = discovery
            .groups()
            .flat_map(|group| group.recommended_resources())
            .map(|(resource, _)| (resource.kind, resource.api_version))
            .collect();
        let hint = match known.get(&manifest.kind) {
            Some(version) => format!("this cluster has it as apiVersion {version}"),
            None => {
                let nearest = parfait_cluster::nearest(&manifest.kind, known.keys().map(String::as_str));
                nearest.map_or_else(
                    || "a lab has no CustomResourceDefinitions; `kubectl api-resources` lists what it has".to_owned(),
                    |kind| format!("did you mean {kind}?"),
                )
            }
        };
        manifest.place.fault(format!("there is no kind {} in {}: {hint}", manifest.kind, manifest.api_version))
    })
}

/// Creation with strict validation, so that a misspelt field is an error. kube has no parameter for
/// that on creation.
async fn create(
    client: &Client,
    api: &Api<DynamicObject>,
    desired: &Value,
) -> Result<(), kube::Error> {
    let uri = format!(
        "{}?fieldManager=parfait&fieldValidation=Strict",
        api.resource_url()
    );
    let body = serde_json::to_vec(desired).map_err(kube::Error::SerdeError)?;
    let request = http::Request::post(uri)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body)
        .map_err(kube::Error::HttpError)?;
    client.request::<Value>(request).await.map(drop)
}

async fn merge(
    api: &Api<DynamicObject>,
    live: DynamicObject,
    desired: &Value,
    applied: &Value,
) -> Result<Outcome, kube::Error> {
    let last = live
        .annotations()
        .get(LAST_APPLIED)
        .and_then(|text| serde_json::from_str(text).ok());
    let name = live.name_any();
    let live = serde_json::to_value(live).map_err(kube::Error::SerdeError)?;
    if last.as_ref() == Some(applied) && contains(&live, desired) {
        return Ok(Outcome::Unchanged);
    }
    let patch = three_way(last.as_ref(), &live, desired);
    let parameters = PatchParams {
        field_validation: Some(kube::api::ValidationDirective::Strict),
        ..PatchParams::apply("parfait")
    };
    let parameters = PatchParams {
        force: false,
        ..parameters
    };
    api.patch(&name, &parameters, &Patch::Merge(patch)).await?;
    Ok(Outcome::Configured)
}

/// The object with the annotation by which the next apply knows what this one said.
fn with_last_applied(object: &Value) -> Value {
    let mut desired = object.clone();
    let text = Value::String(object.to_string());
    if let Some(metadata) = desired.get_mut("metadata").and_then(Value::as_object_mut) {
        let annotations = metadata
            .entry("annotations")
            .or_insert_with(|| Value::Object(Map::new()));
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.insert(LAST_APPLIED.to_owned(), text);
        }
    }
    desired
}

/// The RFC 7396 patch that leads from `live` to `desired`, where only what `last` had may vanish.
fn three_way(last: Option<&Value>, live: &Value, desired: &Value) -> Value {
    let (Some(live), Some(desired)) = (live.as_object(), desired.as_object()) else {
        return desired.clone();
    };
    let mut patch = Map::new();
    for (key, want) in desired {
        let before = last.and_then(|last| last.get(key));
        match live.get(key) {
            Some(have) if have.is_object() && want.is_object() => {
                let inner = three_way(before, have, want);
                if inner.as_object().is_some_and(|inner| !inner.is_empty()) {
                    patch.insert(key.clone(), inner);
                }
            }
            Some(have) if contains(have, want) && before.is_none_or(|before| before == want) => {}
            _ => {
                patch.insert(key.clone(), want.clone());
            }
        }
    }
    let gone = last
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, _)| key);
    for key in gone.filter(|key| !desired.contains_key(*key) && live.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    Value::Object(patch)
}

/// Whether everything that `part` says is so in `whole`. Lists must have the same length.
fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part.iter().all(|(key, part)| {
            whole
                .get(key)
                .map_or(part.is_null(), |whole| contains(whole, part))
        }),
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len()
                && whole
                    .iter()
                    .zip(part)
                    .all(|(whole, part)| contains(whole, part))
        }
        _ => whole == part,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_merge_keeps_what_others_set_and_removes_what_the_file_had() {
        let last = json!({"spec": {"a": 1, "gone": 2, "list": [{"name": "x"}]}});
        let live = json!({"spec": {"a": 1, "gone": 2, "server": 3, "list": [{"name": "x", "default": true}]}, "status": {}});
        let desired = json!({"spec": {"a": 5, "new": {"b": 1}, "list": [{"name": "x"}]}});
        assert_eq!(
            three_way(Some(&last), &live, &desired),
            json!({"spec": {"a": 5, "new": {"b": 1}, "gone": null}})
        );
        // A field dropped from inside of a list shows only against what was applied last.
        let last = json!({"list": [{"name": "x", "env": "y"}]});
        let live = json!({"list": [{"name": "x", "env": "y"}]});
        assert_eq!(
            three_way(Some(&last), &live, &json!({"list": [{"name": "x"}]})),
            json!({"list": [{"name": "x"}]})
        );
    }

    #[test]
    fn what_is_there_already_needs_no_patch() {
        let live = json!({"metadata": {"uid": "u", "labels": {"a": "b"}}, "spec": {"replicas": 1, "x": [1, 2]}});
        let desired = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"x": [1, 2]}});
        assert!(contains(&live, &desired));
        assert_eq!(three_way(None, &live, &desired), json!({}));
        assert!(!contains(&live, &json!({"spec": {"x": [1]}})));
    }

    #[test]
    fn what_others_refer_to_comes_first() {
        let mut kinds = ["Deployment", "Service", "Namespace", "ConfigMap", "Pod"];
        kinds.sort_by_key(|kind| rank(kind));
        assert_eq!(
            kinds,
            ["Namespace", "ConfigMap", "Service", "Deployment", "Pod"]
        );
    }
}
