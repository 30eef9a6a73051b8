//! Server-side printing: the columns of `kubectl get`, as `pkg/printers/internalversion/printers.go` has them.
//!
//! A kind's [`Columns`] name the columns and compute the cells of a row from the stored JSON. Columns of priority 1 show
//! with `-o wide` only.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

mod age;
mod custom;
mod network;
mod objects;
mod pods;
mod workloads;

pub use custom::Printer;
pub use network::{
    ENDPOINTS, ENDPOINTSLICES, INGRESSCLASSES, INGRESSES, IPADDRESSES, NETWORKPOLICIES,
    SERVICECIDRS, SERVICES,
};
pub use objects::{
    CONFIGMAPS, CONTROLLERREVISIONS, CREATED_AT, DEFAULT, EVENTS, LEASES, NAMESPACES, NODES,
    PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, PODDISRUPTIONBUDGETS, PODTEMPLATES, PRIORITYCLASSES,
    ROLEBINDINGS, SECRETS, SERVICEACCOUNTS, STORAGECLASSES,
};
pub use pods::PODS;
pub use workloads::{
    CRONJOBS, DAEMONSETS, DEPLOYMENTS, JOBS, REPLICASETS, REPLICATIONCONTROLLERS, STATEFULSETS,
};

/// A column: name, and whether it is shown only with `-o wide`.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    name: &'static str,
    wide: bool,
}

const fn column(name: &'static str) -> Column {
    Column { name, wide: false }
}

const fn wide(name: &'static str) -> Column {
    Column { name, wide: true }
}

/// How a kind prints.
#[derive(Debug, Clone, Copy)]
pub struct Columns {
    columns: &'static [Column],
    cells: fn(&Value, Timestamp) -> Vec<Value>,
}

/// A `Table` of objects.
pub fn table(
    columns: &Columns,
    objects: &[&Value],
    headers: bool,
    metadata: &Value,
    row_object: impl Fn(&Value) -> Value,
) -> Value {
    let now = Timestamp::now();
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let mut row = json!({ "cells": (columns.cells)(object, now) });
            let object = row_object(object);
            if !object.is_null() {
                row["object"] = object;
            }
            row
        })
        .collect();
    let mut table = json!({ "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "rows": rows });
    table["columnDefinitions"] = if headers {
        definitions(columns)
    } else {
        Value::Null
    };
    table
}

/// A `Table` of custom objects, with the columns that their definition declares.
pub fn custom_table(
    printers: &[Printer],
    objects: &[&Value],
    headers: bool,
    metadata: &Value,
    row_object: impl Fn(&Value) -> Value,
) -> Value {
    const NAME: Columns = Columns {
        columns: &[column("Name")],
        cells: |object, _| vec![name(object)],
    };
    let now = Timestamp::now();
    let mut table = table(&NAME, objects, headers, metadata, row_object);
    if let Some(definitions) = table["columnDefinitions"].as_array_mut() {
        definitions.extend(printers.iter().map(Printer::definition));
    }
    for (row, object) in table["rows"]
        .as_array_mut()
        .into_iter()
        .flatten()
        .zip(objects)
    {
        if let Some(cells) = row["cells"].as_array_mut() {
            cells.extend(printers.iter().map(|printer| printer.cell(object, now)));
        }
    }
    table
}

fn definitions(columns: &Columns) -> Value {
    let definition = |column: &Column| {
        let name = column.name;
        json!({
            "name": name, "type": if is_number(name) { "integer" } else { "string" },
            "format": if name == "Name" { "name" } else { "" }, "description": "", "priority": i32::from(column.wide),
        })
    };
    columns.columns.iter().map(definition).collect()
}

/// Columns whose cells are numbers.
fn is_number(name: &str) -> bool {
    matches!(
        name,
        "Desired"
            | "Current"
            | "Up-to-date"
            | "Available"
            | "Data"
            | "Secrets"
            | "Revision"
            | "Active"
    )
}

/// Text at a path of keys, empty if absent.
fn text<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    path.iter()
        .fold(value, |v, key| &v[*key])
        .as_str()
        .unwrap_or_default()
}

/// A number at a path of keys, 0 if absent.
fn number(value: &Value, path: &[&str]) -> i64 {
    path.iter()
        .fold(value, |v, key| &v[*key])
        .as_i64()
        .unwrap_or(0)
}

/// Elements of a list, none if absent.
fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn name(object: &Value) -> Value {
    object["metadata"]["name"].clone()
}

fn age_of(object: &Value, now: Timestamp) -> Value {
    json!(age::since(
        text(object, &["metadata", "creationTimestamp"]),
        now
    ))
}

fn or_none(text: &str) -> Value {
    json!(if text.is_empty() { "<none>" } else { text })
}

/// `a=b,c=d`, or `<none>`.
fn labels(map: &Value) -> Value {
    let terms: Vec<String> = map
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    or_none(&terms.join(","))
}

/// A LabelSelector as kubectl prints it.
fn selector(selector: &Value) -> Value {
    let mut terms: Vec<String> = selector["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    for expression in items(&selector["matchExpressions"]) {
        let key = text(expression, &["key"]);
        let values: Vec<&str> = items(&expression["values"])
            .filter_map(Value::as_str)
            .collect();
        terms.push(match text(expression, &["operator"]) {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    or_none(&terms.join(","))
}

/// Names and images of a pod template's containers.
fn containers(spec: &Value) -> [Value; 2] {
    let join = |field: &str| {
        let texts: Vec<&str> = items(&spec["containers"])
            .map(|c| text(c, &[field]))
            .collect();
        json!(texts.join(","))
    };
    [join("name"), join("image")]
}

#[cfg(test)]
mod tests;
