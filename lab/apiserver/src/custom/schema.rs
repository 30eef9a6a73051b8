//! The structural schema of a custom resource: pruning, defaults and rules.
//!
//! ```text
//!  body ─▶ prune (what the schema does not know) ─▶ defaults ─▶ rules ─▶ stored
//! ```
//!
//! Source: the API's documentation of "Specifying a structural schema" and the OpenAPI v3 subset named there;
//! messages as `k8s.io/kube-openapi/pkg/validation` words them. Of
//! `x-kubernetes-validations` only some rules are evaluated, see `rules.rs`. Left out: `dependencies` and `$ref`, which structural
//! schemas may not use.

use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use regex::Regex;
use serde_json::{Map, Value};

use super::rules;
use crate::kind::{Completed, Completion, TypeError};
use crate::status::FieldErrors;

/// What every object has, whatever its schema says.
const ENVELOPE: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Prunes, fills defaults and validates one custom object.
pub fn complete(
    schema: &JSONSchemaProps,
    completion: Completion<'_>,
) -> Result<Completed, TypeError> {
    let mut value = completion.value;
    let mut unknown = Vec::new();
    let mut envelope = Map::new();
    let Some(object) = value.as_object_mut() else {
        return Err(TypeError {
            path: ".".to_owned(),
            message: "expected an object".to_owned(),
        });
    };
    for field in ENVELOPE {
        if let Some(kept) = object.remove(field) {
            envelope.insert(field.to_owned(), kept);
        }
    }
    let body = JSONSchemaProps {
        required: schema.required.as_ref().map(|required| {
            let rest = required
                .iter()
                .filter(|name| !ENVELOPE.contains(&name.as_str()));
            rest.cloned().collect()
        }),
        ..schema.clone()
    };
    prune(&mut value, &body, "", &mut unknown);
    fill(&mut value, &body);
    let mut errors = FieldErrors::default();
    check(&value, &body, "", &mut errors);
    if let Some(object) = value.as_object_mut() {
        object.extend(envelope);
    }
    Ok(Completed {
        value,
        unknown,
        errors,
    })
}

/// Removes what the schema does not know, and nulls where null is no value.
fn prune(value: &mut Value, schema: &JSONSchemaProps, path: &str, unknown: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            object.retain(|name, value| match member(schema, name) {
                Member::Known(schema) => {
                    if value.is_null() && schema.nullable != Some(true) {
                        return false;
                    }
                    prune(value, schema, &join(path, name), unknown);
                    true
                }
                Member::Free => true,
                Member::Unknown => {
                    unknown.push(join(path, name));
                    false
                }
            });
        }
        Value::Array(items) => {
            if let Some(schema) = element(schema) {
                for (index, item) in items.iter_mut().enumerate() {
                    prune(item, schema, &format!("{path}[{index}]"), unknown);
                }
            }
        }
        _ => {}
    }
}

enum Member<'a> {
    Known(&'a JSONSchemaProps),
    Free,
    Unknown,
}

fn member<'a>(schema: &'a JSONSchemaProps, name: &str) -> Member<'a> {
    let declared = schema.properties.as_ref().and_then(|all| all.get(name));
    match (declared, &schema.additional_properties) {
        (Some(schema), _) => Member::Known(schema),
        (None, Some(JSONSchemaPropsOrBool::Schema(schema))) => Member::Known(schema),
        (None, Some(JSONSchemaPropsOrBool::Bool(true))) => Member::Free,
        _ if schema.x_kubernetes_preserve_unknown_fields == Some(true) => Member::Free,
        _ if schema.x_kubernetes_embedded_resource == Some(true) && ENVELOPE.contains(&name) => {
            Member::Free
        }
        _ => Member::Unknown,
    }
}

fn element(schema: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match schema.items.as_ref()? {
        JSONSchemaPropsOrArray::Schema(schema) => Some(schema),
        // Not allowed in a structural schema.
        JSONSchemaPropsOrArray::Schemas(_) => None,
    }
}

/// Puts defaults where fields are missing.
fn fill(value: &mut Value, schema: &JSONSchemaProps) {
    match value {
        Value::Object(object) => {
            for (name, schema) in schema.properties.iter().flatten() {
                if let (None, Some(default)) = (object.get(name), &schema.default) {
                    object.insert(name.clone(), default.0.clone());
                }
            }
            for (name, value) in object.iter_mut() {
                if let Member::Known(schema) = member(schema, name) {
                    fill(value, schema);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = element(schema) {
                items.iter_mut().for_each(|item| fill(item, schema));
            }
        }
        _ => {}
    }
}

fn check(value: &Value, schema: &JSONSchemaProps, path: &str, errors: &mut FieldErrors) {
    if value.is_null() && schema.nullable == Some(true) {
        return;
    }
    if !is_of_type(value, schema) {
        let wanted = schema.type_.as_deref().unwrap_or("integer or string");
        let found = json_type(value);
        let detail = format!("{path} in body must be of type {wanted}: {found:?}");
        errors.invalid(path, found, detail);
        return;
    }
    if let Some(allowed) = &schema.enum_
        && !allowed.iter().any(|allowed| allowed.0 == *value)
    {
        let allowed: Vec<String> = allowed.iter().map(|value| plain(&value.0)).collect();
        let allowed: Vec<&str> = allowed.iter().map(String::as_str).collect();
        errors.not_supported(path, value.clone(), &allowed);
    }
    match value {
        Value::Object(object) => check_object(object, schema, path, errors),
        Value::Array(items) => check_list(items, schema, path, errors),
        Value::String(text) => check_text(text, schema, path, errors),
        Value::Number(number) => {
            check_number(number.as_f64().unwrap_or_default(), schema, path, errors);
        }
        Value::Null | Value::Bool(_) => {}
    }
    check_combined(value, schema, path, errors);
    rules::check(value, schema, path, errors);
}

fn is_of_type(value: &Value, schema: &JSONSchemaProps) -> bool {
    if schema.x_kubernetes_int_or_string == Some(true) {
        return value.is_string() || value.is_i64() || value.is_u64();
    }
    match schema.type_.as_deref() {
        None | Some("") => true,
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some(_) => false,
    }
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn check_object(
    object: &Map<String, Value>,
    schema: &JSONSchemaProps,
    path: &str,
    errors: &mut FieldErrors,
) {
    for name in schema.required.iter().flatten() {
        if !object.contains_key(name) {
            errors.required(join(path, name), "");
        }
    }
    let what = Count {
        path,
        found: object.len(),
        unit: "properties",
    };
    what.check(schema.min_properties, schema.max_properties, errors);
    for (name, value) in object {
        if let Member::Known(schema) = member(schema, name) {
            check(value, schema, &join(path, name), errors);
        }
    }
}

fn check_list(items: &[Value], schema: &JSONSchemaProps, path: &str, errors: &mut FieldErrors) {
    let what = Count {
        path,
        found: items.len(),
        unit: "items",
    };
    what.check(schema.min_items, schema.max_items, errors);
    if let Some(schema) = element(schema) {
        for (index, item) in items.iter().enumerate() {
            check(item, schema, &format!("{path}[{index}]"), errors);
        }
    }
    let keys = schema.x_kubernetes_list_map_keys.as_deref();
    let identity = |item: &Value| match schema.x_kubernetes_list_type.as_deref() {
        Some("map") => Some(Value::from_iter(
            keys.unwrap_or_default().iter().map(|key| item[key].clone()),
        )),
        Some("set") => Some(item.clone()),
        _ if schema.unique_items == Some(true) => Some(item.clone()),
        _ => None,
    };
    for (index, item) in items.iter().enumerate() {
        let Some(own) = identity(item) else { return };
        if items[..index]
            .iter()
            .any(|earlier| identity(earlier).as_ref() == Some(&own))
        {
            errors.duplicate(format!("{path}[{index}]"), own);
        }
    }
}

/// A number of things that has bounds.
struct Count<'a> {
    path: &'a str,
    found: usize,
    unit: &'static str,
}

impl Count<'_> {
    fn check(&self, least: Option<i64>, most: Option<i64>, errors: &mut FieldErrors) {
        let (path, unit) = (self.path, self.unit);
        let found = i64::try_from(self.found).unwrap_or(i64::MAX);
        let mut wrong = |bound: &str, limit: i64| {
            let detail = format!("{path} in body should have at {bound} {limit} {unit}");
            errors.invalid(path, found, detail);
        };
        if let Some(least) = least.filter(|least| found < *least) {
            wrong("least", least);
        }
        if let Some(most) = most.filter(|most| found > *most) {
            wrong("most", most);
        }
    }
}

fn check_text(text: &str, schema: &JSONSchemaProps, path: &str, errors: &mut FieldErrors) {
    let what = Count {
        path,
        found: text.chars().count(),
        unit: "chars",
    };
    what.check(schema.min_length, schema.max_length, errors);
    if let Some(pattern) = &schema.pattern
        && Regex::new(pattern).is_ok_and(|regex| !regex.is_match(text))
    {
        let detail = format!("{path} in body should match '{pattern}'");
        errors.invalid(path, text, detail);
    }
    let Some(format) = schema.format.as_deref() else {
        return;
    };
    if !is_of_format(text, format) {
        let detail = format!("{path} in body must be of type {format}: {text:?}");
        errors.invalid(path, text, detail);
    }
}

/// Formats that are not listed here are not checked, as the API says.
fn is_of_format(text: &str, format: &str) -> bool {
    match format {
        "ipv4" => matches!(text.parse(), Ok(IpAddr::V4(_))),
        "ipv6" => matches!(text.parse(), Ok(IpAddr::V6(_))),
        "cidr" => text.parse::<IpNet>().is_ok(),
        "date-time" => text.parse::<jiff::Timestamp>().is_ok(),
        _ => true,
    }
}

fn check_number(number: f64, schema: &JSONSchemaProps, path: &str, errors: &mut FieldErrors) {
    let mut wrong = |how: &str, limit: f64| {
        let detail = format!("{path} in body should be {how} {limit}");
        errors.invalid(path, number, detail);
    };
    if let Some(least) = schema.minimum {
        let exclusive = schema.exclusive_minimum == Some(true);
        if number < least || (exclusive && number <= least) {
            let how = ["greater than or equal to", "greater than"];
            wrong(how[usize::from(exclusive)], least);
        }
    }
    if let Some(most) = schema.maximum {
        let exclusive = schema.exclusive_maximum == Some(true);
        if number > most || (exclusive && number >= most) {
            let how = ["less than or equal to", "less than"];
            wrong(how[usize::from(exclusive)], most);
        }
    }
    if let Some(step) = schema.multiple_of
        && step != 0.0
        && (number / step).fract() != 0.0
    {
        wrong("a multiple of", step);
    }
}

fn check_combined(value: &Value, schema: &JSONSchemaProps, path: &str, errors: &mut FieldErrors) {
    let holds = |schema: &&JSONSchemaProps| {
        let mut errors = FieldErrors::default();
        check(value, schema, path, &mut errors);
        errors.is_empty()
    };
    for schema in schema.all_of.iter().flatten() {
        check(value, schema, path, errors);
    }
    if let Some(any) = &schema.any_of
        && !any.iter().any(|schema| holds(&schema))
    {
        let detail = format!("{path} in body must validate at least one schema (anyOf)");
        errors.invalid(path, value.clone(), detail);
    }
    if let Some(one) = &schema.one_of
        && one.iter().filter(holds).count() != 1
    {
        let detail = format!("{path} in body must validate one and only one schema (oneOf)");
        errors.invalid(path, value.clone(), detail);
    }
    if let Some(not) = &schema.not
        && holds(&not.as_ref())
    {
        let detail = format!("{path} in body must not validate the schema (not)");
        errors.invalid(path, value.clone(), detail);
    }
}

fn join(path: &str, name: &str) -> String {
    match path {
        "" => name.to_owned(),
        _ => format!("{path}.{name}"),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The object as stored, what was unknown, and what is wrong.
    fn completed(schema: Value, spec: Value) -> (Value, Vec<String>, Vec<String>) {
        let schema = json!({ "type": "object", "properties": { "spec": schema } });
        let schema: JSONSchemaProps = serde_json::from_value(schema).expect("a schema");
        let value =
            json!({ "apiVersion": "a/v1", "kind": "K", "metadata": { "name": "x" }, "spec": spec });
        let done = complete(&schema, Completion { value, old: None }).expect("an object");
        let errors = done.errors.0.iter().map(ToString::to_string).collect();
        (done.value["spec"].clone(), done.unknown, errors)
    }

    #[test]
    fn what_the_schema_does_not_know_is_pruned_and_named() {
        let schema = json!({ "type": "object", "properties": {
            "free": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
            "list": { "type": "array", "items": { "type": "object", "properties": { "a": { "type": "integer" } } } },
            "map": { "type": "object", "additionalProperties": { "type": "string" } },
        } });
        let spec = json!({ "free": { "x": 1 }, "list": [{ "a": 1, "b": 2 }], "map": { "k": "v" }, "lst": [], "none": null });
        let (value, unknown, errors) = completed(schema, spec);
        assert_eq!(
            value,
            json!({ "free": { "x": 1 }, "list": [{ "a": 1 }], "map": { "k": "v" } })
        );
        assert_eq!(unknown, ["spec.list[0].b", "spec.lst", "spec.none"]);
        assert_eq!(errors, [""; 0]);
    }

    #[test]
    fn defaults_fill_what_is_missing_at_any_depth() {
        let schema = json!({ "type": "object", "properties": {
            "port": { "type": "integer", "default": 80 },
            "inner": { "type": "object", "default": {}, "properties": { "tier": { "type": "string", "default": "Admin" } } },
        } });
        let (value, _, errors) = completed(schema, json!({}));
        assert_eq!(value, json!({ "port": 80, "inner": { "tier": "Admin" } }));
        assert_eq!(errors, [""; 0]);
    }

    #[test]
    fn rules_are_told_with_the_field() {
        let cases = [
            (
                json!({ "type": "integer", "minimum": 0, "maximum": 1000 }),
                json!(1001),
                "less than or equal to 1000",
            ),
            (
                json!({ "type": "integer" }),
                json!("x"),
                "must be of type integer: \"string\"",
            ),
            (
                json!({ "type": "string", "enum": ["Accept", "Deny"] }),
                json!("Drop"),
                "supported values: \"Accept\", \"Deny\"",
            ),
            (
                json!({ "type": "string", "format": "cidr" }),
                json!("10.0.0.0/99"),
                "must be of type cidr",
            ),
            (
                json!({ "type": "string", "pattern": "^a+$" }),
                json!("b"),
                "should match '^a+$'",
            ),
            (
                json!({ "type": "array", "maxItems": 1 }),
                json!([1, 2]),
                "at most 1 items",
            ),
            (
                json!({ "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"] }),
                json!([{ "n": 1 }, { "n": 1 }]),
                "Duplicate value",
            ),
            (
                json!({ "type": "object", "required": ["name"] }),
                json!({}),
                "spec.name: Required value",
            ),
            (
                json!({ "x-kubernetes-int-or-string": true }),
                json!(true),
                "must be of type integer or string",
            ),
            (
                json!({ "oneOf": [{ "type": "string" }, { "minLength": 1 }] }),
                json!("both"),
                "one and only one",
            ),
        ];
        for (schema, value, expected) in cases {
            let (_, _, errors) = completed(schema.clone(), value.clone());
            assert!(
                errors.len() == 1 && errors[0].contains(expected),
                "{schema} {value}: {errors:?}"
            );
        }
    }
}
