//! What the server does to an object's metadata and status before it is stored: the "strategy" of each write.
//!
//! Source: `registry/rest/create.go`, `update.go` and the strategies of the kinds. The server owns uid, creation time,
//! generation, deletion marks and resource version; the client owns the rest. The main path writes everything but
//! status, `/status` writes only status (for Pods and Nodes labels and annotations too).

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::custom;
use crate::random;
use crate::registry::{Form, Resource};
use crate::status::ApiError;

/// Which part of an object a write is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Everything but status.
    Main,
    /// Only status.
    Status,
    /// Everything, as the server itself writes.
    Whole,
}

/// Now, as the API prints times.
pub fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Checks that a body is an object of this resource, and fills in kind and version where left out.
pub fn check_kind(resource: &Resource, value: &mut Value) -> Result<(), ApiError> {
    let Some(object) = value.as_object_mut() else {
        return Err(ApiError::bad_request(format!(
            "the body is not a JSON object, expected a {}",
            resource.kind
        )));
    };
    let api_version = resource.api_version();
    for (field, expected) in [
        ("apiVersion", api_version.as_str()),
        ("kind", resource.kind),
    ] {
        match object.get(field).and_then(Value::as_str) {
            None | Some("") => drop(object.insert(field.to_owned(), json!(expected))),
            Some(found) if found == expected => {}
            Some(found) if field == "apiVersion" => {
                return Err(ApiError::bad_request(format!(
                    "the API version in the data ({found}) does not match the expected API version ({expected})"
                )));
            }
            Some(found) => {
                return Err(ApiError::bad_request(format!(
                    "{found} in version {api_version:?} cannot be handled as a {expected}: the kind does not match the path"
                )));
            }
        }
    }
    if !object.get("metadata").is_some_and(Value::is_object) {
        object.insert("metadata".to_owned(), json!({}));
    }
    Ok(())
}

/// The object's name, empty if it has none.
pub fn name_of(value: &Value) -> &str {
    value["metadata"]["name"].as_str().unwrap_or_default()
}

/// Prepares a new object. `namespace` is the one in the path.
pub fn create(resource: &Resource, namespace: &str, value: &mut Value) -> Result<(), ApiError> {
    check_kind(resource, value)?;
    let Some(metadata) = value["metadata"].as_object_mut() else {
        return Ok(());
    };
    if metadata
        .get("resourceVersion")
        .and_then(Value::as_str)
        .is_some_and(|v| !v.is_empty())
    {
        return Err(ApiError::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    place(resource, namespace, metadata)?;
    generate_name(metadata);
    for server_owned in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "managedFields",
        "selfLink",
        "resourceVersion",
    ] {
        metadata.remove(server_owned);
    }
    metadata.insert("uid".to_owned(), json!(random::uid()));
    metadata.insert("creationTimestamp".to_owned(), json!(now()));
    if resource.generation {
        metadata.insert("generation".to_owned(), json!(1));
    } else {
        metadata.remove("generation");
    }
    initial_status(resource, value);
    Ok(())
}

/// Prepares a successor of `old`.
pub fn update(
    resource: &Resource,
    part: Part,
    value: &mut Value,
    old: &Value,
) -> Result<(), ApiError> {
    check_kind(resource, value)?;
    let name = name_of(old).to_owned();
    let given = |field: &str, value: &Value| {
        value["metadata"][field]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    if !name_of(value).is_empty() && name_of(value) != name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({name})",
            name_of(value)
        )));
    }
    let version = given("resourceVersion", value);
    if !matches!(version.as_str(), "" | "0") && version != given("resourceVersion", old) {
        return Err(ApiError::stale(resource, &name));
    }
    let uid = given("uid", value);
    if !uid.is_empty() && uid != given("uid", old) {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            given("uid", old)
        );
        return Err(ApiError::conflict(resource, &name, &why));
    }
    let namespace = given("namespace", old);
    if let Some(metadata) = value["metadata"].as_object_mut() {
        place(resource, &namespace, metadata)?;
        metadata.remove("managedFields");
        metadata.remove("selfLink");
        let kept = [
            "name",
            "uid",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generation",
            "generateName",
            "resourceVersion",
        ];
        for field in kept {
            match old["metadata"].get(field) {
                Some(value) => drop(metadata.insert(field.to_owned(), value.clone())),
                None => drop(metadata.remove(field)),
            }
        }
    }
    separate_status(resource, part, value, old);
    Ok(())
}

/// Counts a change of anything but metadata and status.
pub fn bump_generation(resource: &Resource, value: &mut Value, old: &Value) {
    let same = |key: &str| value.get(key) == old.get(key);
    let keys = value
        .as_object()
        .into_iter()
        .chain(old.as_object())
        .flat_map(Map::keys);
    let changed = keys
        .filter(|k| !matches!(k.as_str(), "metadata" | "status"))
        .any(|k| !same(k));
    if resource.generation && changed {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
        value["metadata"]["generation"] = json!(generation);
    }
}

/// Whether an object marked for deletion has nothing left to wait for.
pub fn is_finished(resource: &Resource, value: &Value) -> bool {
    let metadata = &value["metadata"];
    let none = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    !metadata["deletionTimestamp"].is_null()
        && none(&metadata["finalizers"])
        && metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
        && (!resource.is_core("Namespace") || none(&value["spec"]["finalizers"]))
}

fn place(
    resource: &Resource,
    namespace: &str,
    metadata: &mut Map<String, Value>,
) -> Result<(), ApiError> {
    let given = metadata
        .get("namespace")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if !resource.namespaced {
        metadata.remove("namespace");
        return Ok(());
    }
    if !given.is_empty() && given != namespace {
        return Err(ApiError::bad_request(format!(
            "the namespace of the provided object does not match the namespace sent on the request ({given} and \
             {namespace})"
        )));
    }
    metadata.insert("namespace".to_owned(), json!(namespace));
    Ok(())
}

fn generate_name(metadata: &mut Map<String, Value>) {
    let text = |field: &str| {
        metadata
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    if !text("name").is_empty() || text("generateName").is_empty() {
        return;
    }
    // 63 less five random characters, as names of generated objects end up in labels.
    let base: String = text("generateName").chars().take(58).collect();
    metadata.insert(
        "name".to_owned(),
        json!(format!("{base}{}", random::suffix())),
    );
}

fn initial_status(resource: &Resource, value: &mut Value) {
    if !resource.status {
        return;
    }
    if resource.form == Form::Custom {
        // Its schema may want more of a status than an empty one has.
        if let Some(object) = value.as_object_mut() {
            object.remove("status");
        }
        return;
    }
    let status = match resource.kind {
        "Node" => return,
        "Pod" => json!({ "phase": "Pending" }),
        "Namespace" => json!({ "phase": "Active" }),
        "PersistentVolumeClaim" | "PersistentVolume" => json!({ "phase": "Pending" }),
        "Service" | "Ingress" => json!({ "loadBalancer": {} }),
        "CustomResourceDefinition" => custom::initial_status(value),
        _ => json!({}),
    };
    value["status"] = status;
}

fn separate_status(resource: &Resource, part: Part, value: &mut Value, old: &Value) {
    let put = |value: &mut Value, field: &str| match (value.as_object_mut(), old.get(field)) {
        (Some(object), Some(old)) => drop(object.insert(field.to_owned(), old.clone())),
        (Some(object), None) => drop(object.remove(field)),
        (None, _) => {}
    };
    match part {
        Part::Main if resource.status => put(value, "status"),
        Part::Status => {
            let (status, metadata) = (value.get("status").cloned(), value["metadata"].clone());
            *value = old.clone();
            value["status"] = status.unwrap_or_else(|| json!({}));
            if matches!(resource.kind, "Pod" | "Node") {
                for field in ["labels", "annotations"] {
                    value["metadata"][field] = metadata.get(field).cloned().unwrap_or(Value::Null);
                }
            }
        }
        Part::Main | Part::Whole => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::core;

    #[test]
    fn a_new_object_gets_what_the_server_owns() {
        let mut value = json!({ "metadata": { "generateName": "web-", "uid": "mine", "managedFields": [], "creationTimestamp": null } });
        create(core("pods"), "a", &mut value).expect("a pod may be created");
        let metadata = &value["metadata"];
        assert_eq!(metadata["namespace"], "a");
        assert_eq!(name_of(&value).len(), "web-".len() + 5);
        assert_ne!(metadata["uid"], "mine");
        assert_eq!(metadata["generation"], 1);
        assert!(metadata.get("managedFields").is_none());
        assert_eq!(value["status"]["phase"], "Pending");
        assert_eq!(value["kind"], "Pod");
    }

    #[test]
    fn a_body_for_another_place_is_refused() {
        let refused = |mut value: Value| {
            create(core("pods"), "a", &mut value)
                .expect_err("refused")
                .code
        };
        assert_eq!(refused(json!({ "metadata": { "namespace": "b" } })), 400);
        assert_eq!(refused(json!({ "kind": "Service" })), 400);
        assert_eq!(refused(json!({ "apiVersion": "v2" })), 400);
        assert_eq!(refused(json!([])), 400);
        assert_eq!(
            refused(json!({ "metadata": { "resourceVersion": "5" } })),
            400
        );
    }

    #[test]
    fn the_main_path_leaves_status_and_the_status_path_the_rest() {
        let old = json!({ "metadata": { "name": "p", "resourceVersion": "7", "uid": "u" }, "spec": { "a": 1 }, "status": { "s": 1 } });
        let new = json!({ "metadata": { "name": "p", "labels": { "x": "y" } }, "spec": { "a": 2 }, "status": { "s": 2 } });
        let mut main = new.clone();
        update(core("services"), Part::Main, &mut main, &old).expect("an update");
        assert_eq!(
            (&main["spec"]["a"], &main["status"]["s"]),
            (&json!(2), &json!(1))
        );
        let mut status = new;
        update(core("services"), Part::Status, &mut status, &old).expect("an update");
        assert_eq!(
            (&status["spec"]["a"], &status["status"]["s"]),
            (&json!(1), &json!(2))
        );
        assert!(status["metadata"].get("labels").is_none());
        let mut stale = json!({ "metadata": { "name": "p", "resourceVersion": "6" } });
        assert_eq!(
            update(core("services"), Part::Main, &mut stale, &old)
                .expect_err("stale")
                .code,
            409
        );
    }
}
