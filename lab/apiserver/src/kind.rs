//! From JSON to a typed object and back: parse, find unknown fields, fill defaults, validate.
//!
//! The generated API types are the schema. An object is read into its type and printed again; every path that
//! was in the input and is not in the output is a field the type does not know. That gives server-side field
//! validation for every kind without a schema document. Nulls are ignored, as Kubernetes drops them.
//!
//! Each kind's own defaults and rules are an `impl Kind`; this file holds them all, one screen, so that "what
//! does the server do to a Deployment" has one place to start from.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::status::FieldErrors;
use crate::validate::names::NameRule;

mod impls;

/// A kind with the defaults and rules of its own.
pub trait Kind:
    k8s_openapi::Metadata<Ty = ObjectMeta> + DeserializeOwned + Serialize + 'static
{
    /// How this kind's names are formed.
    const NAME: NameRule = NameRule::Subdomain;

    /// Fills in what the user may leave out, as kube-apiserver does.
    fn fill_defaults(&mut self) {}

    /// Drops what only made sense in the predecessor and was carried over unchanged.
    fn leave_behind(&mut self, _old: &Self) {}

    /// Rules on the object alone.
    fn validate(&self, _errors: &mut FieldErrors) {}

    /// Rules on the step from `old` to this.
    fn validate_update(&self, _old: &Self, _errors: &mut FieldErrors) {}
}

/// What to complete, and from which predecessor.
pub struct Completion<'a> {
    /// The object as the client means it, metadata already prepared.
    pub value: Value,
    /// What is stored now, for updates.
    pub old: Option<&'a Value>,
}

/// An object ready to be stored, unless `errors` says otherwise.
pub struct Completed {
    /// The object with defaults, without unknown fields.
    pub value: Value,
    /// Paths the type does not know.
    pub unknown: Vec<String>,
    /// Broken rules.
    pub errors: FieldErrors,
}

/// A field of the wrong type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("json: cannot unmarshal into field {path}: {message}")]
pub struct TypeError {
    /// Path such as `spec.replicas`.
    pub path: String,
    /// serde's words: what was found and what was expected.
    pub message: String,
}

/// Parses, fills defaults and validates one object of kind `T`.
pub fn complete<T: Kind>(completion: Completion<'_>) -> Result<Completed, TypeError> {
    let mut value = completion.value;
    quantities_to_strings(&mut value, false);
    let mut object: T = parse(&value)?;
    let unknown = unknown_fields(&value, &print(&object)?);
    let old: Option<T> = completion.old.map(parse).transpose()?;
    if let Some(old) = &old {
        object.leave_behind(old);
    }
    object.fill_defaults();
    let mut errors = FieldErrors::default();
    object.validate(&mut errors);
    if let Some(old) = old {
        object.validate_update(&old, &mut errors);
    }
    let mut value = print(&object)?;
    drop_nulls(&mut value);
    Ok(Completed {
        value,
        unknown,
        errors,
    })
}

/// Reads a typed object; the error names the field.
pub fn parse<T: DeserializeOwned>(value: &Value) -> Result<T, TypeError> {
    serde_path_to_error::deserialize(value).map_err(|error| TypeError {
        path: error.path().to_string(),
        message: error.inner().to_string(),
    })
}

fn print<T: Serialize>(object: &T) -> Result<Value, TypeError> {
    serde_json::to_value(object).map_err(|error| TypeError {
        path: ".".to_owned(),
        message: error.to_string(),
    })
}

/// Paths of `input` that are not in `output`, nulls aside.
fn unknown_fields(input: &Value, output: &Value) -> Vec<String> {
    let mut found = Vec::new();
    collect_unknown(input, output, "", &mut found);
    found
}

fn collect_unknown(input: &Value, output: &Value, path: &str, found: &mut Vec<String>) {
    match (input, output) {
        (Value::Object(input), Value::Object(output)) => {
            for (key, value) in input.iter().filter(|(_, v)| !v.is_null()) {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                match output.get(key) {
                    Some(output) => collect_unknown(value, output, &path, found),
                    None => found.push(path),
                }
            }
        }
        (Value::Array(input), Value::Array(output)) => {
            for (i, (a, b)) in input.iter().zip(output).enumerate() {
                collect_unknown(a, b, &format!("{path}[{i}]"), found);
            }
        }
        _ => {}
    }
}

/// Kubernetes accepts `cpu: 1` where its type is a string; the generated types do not. Numbers directly inside
/// the maps that hold quantities become strings first.
fn quantities_to_strings(value: &mut Value, holds_quantities: bool) {
    const MAPS: &[&str] = &[
        "limits",
        "requests",
        "capacity",
        "allocatable",
        "hard",
        "used",
        "overhead",
        "default",
        "defaultRequest",
        "max",
        "min",
        "maxLimitRequestRatio",
        "allocatedResources",
    ];
    match value {
        Value::Object(map) => {
            for (key, value) in map.iter_mut() {
                let scalar_quantity = matches!(key.as_str(), "sizeLimit" | "divisor");
                match value {
                    Value::Number(number) if holds_quantities || scalar_quantity => {
                        *value = Value::String(number.to_string());
                    }
                    _ => quantities_to_strings(value, MAPS.contains(&key.as_str())),
                }
            }
        }
        Value::Array(items) => items
            .iter_mut()
            .for_each(|v| quantities_to_strings(v, false)),
        _ => {}
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ConfigMap, Pod};
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_fields_are_named_with_their_path() {
        let value = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p", "labelz": {} },
            "spec": { "containers": [{ "name": "a", "imagee": "x", "env": null }], "replicas": 1 },
        });
        let done = complete::<Pod>(Completion { value, old: None }).expect("types are right");
        assert_eq!(
            done.unknown,
            [
                "metadata.labelz",
                "spec.containers[0].imagee",
                "spec.replicas"
            ]
        );
        assert!(done.value["spec"]["containers"][0].get("imagee").is_none());
    }

    #[test]
    fn type_errors_name_the_field() {
        let value = json!({ "apiVersion": "v1", "kind": "ConfigMap", "data": { "a": 1 } });
        let error = complete::<ConfigMap>(Completion { value, old: None })
            .err()
            .expect("a number is no text");
        assert_eq!(error.path, "data.a");
    }

    #[test]
    fn numeric_quantities_are_accepted() {
        let value = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" },
            "spec": { "containers": [{ "name": "a", "image": "x", "resources": { "limits": { "cpu": 1 } } }] },
        });
        let done =
            complete::<Pod>(Completion { value, old: None }).expect("a numeric quantity is legal");
        assert_eq!(
            done.value["spec"]["containers"][0]["resources"]["limits"]["cpu"],
            "1"
        );
        assert!(done.unknown.is_empty());
    }
}
