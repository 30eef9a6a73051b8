//! Names, labels, annotations, finalizers and owners of any object.

use serde_json::Value;

use super::names::{label_value_complaint, qualified_name_complaint};
use crate::registry::Resource;
use crate::status::FieldErrors;

const ANNOTATIONS_LIMIT: usize = 256 * 1024;

/// Checks an object's metadata.
pub fn metadata(resource: &Resource, metadata: &Value, errors: &mut FieldErrors) {
    let name = metadata["name"].as_str().unwrap_or_default();
    if name.is_empty() {
        errors.required("metadata.name", "name or generateName is required");
    } else if let Some(complaint) = resource.name_rule.complaint(name) {
        errors.invalid("metadata.name", name, complaint);
    }
    labels(&metadata["labels"], "metadata.labels", errors);
    let mut size = 0;
    for (key, value) in metadata["annotations"].as_object().into_iter().flatten() {
        size += key.len() + value.as_str().map_or(0, str::len);
        // Keys are checked in lower case, as Kubernetes does for history's sake.
        if let Some(complaint) = qualified_name_complaint(&key.to_lowercase()) {
            errors.invalid("metadata.annotations", key.as_str(), complaint);
        }
    }
    if size > ANNOTATIONS_LIMIT {
        errors.too_long("metadata.annotations", ANNOTATIONS_LIMIT);
    }
    for (i, finalizer) in metadata["finalizers"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        let finalizer = finalizer.as_str().unwrap_or_default();
        if let Some(complaint) = qualified_name_complaint(finalizer) {
            errors.invalid(format!("metadata.finalizers[{i}]"), finalizer, complaint);
        }
    }
    owners(&metadata["ownerReferences"], errors);
}

/// Checks a map of labels.
pub fn labels(labels: &Value, field: &str, errors: &mut FieldErrors) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        label(key, value.as_str().unwrap_or_default(), field, errors);
    }
}

/// Checks one label.
pub fn label(key: &str, value: &str, field: &str, errors: &mut FieldErrors) {
    if let Some(complaint) = qualified_name_complaint(key) {
        errors.invalid(field, key, complaint);
    }
    if let Some(complaint) = label_value_complaint(value) {
        errors.invalid(field, value, complaint);
    }
}

fn owners(owners: &Value, errors: &mut FieldErrors) {
    let mut controllers = 0;
    for (i, owner) in owners.as_array().into_iter().flatten().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().is_none_or(str::is_empty) {
                errors.required(
                    format!("metadata.ownerReferences[{i}].{field}"),
                    "must not be empty",
                );
            }
        }
        controllers += usize::from(owner["controller"] == true);
    }
    if controllers > 1 {
        errors.invalid(
            "metadata.ownerReferences",
            owners.clone(),
            "Only one reference can have Controller set to true",
        );
    }
}
