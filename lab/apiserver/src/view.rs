//! How objects are shown: plain, as a `Table` for `kubectl get`, or as `PartialObjectMetadata`.
//!
//! The client says in `Accept` (`application/json;as=Table;v=v1;g=meta.k8s.io`), the first form this server can print
//! wins. Protobuf and CBOR are not printed; clients that prefer them list JSON too.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::custom;
use crate::events;
use crate::registry::{Form, Resource};
use crate::status::ApiError;
use crate::store::Object;
use crate::table;

/// One way to show objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// The objects themselves.
    Plain,
    /// A server-side printed table.
    Table(Include),
    /// Only metadata.
    Metadata,
}

/// What a table's rows carry besides their cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Include {
    /// Nothing.
    None,
    /// The metadata.
    Metadata,
    /// The whole object.
    Object,
}

impl View {
    /// Chooses from the `Accept` header.
    pub fn parse(accept: &str, include_object: &str) -> Result<Self, ApiError> {
        if accept.trim().is_empty() {
            return Ok(View::Plain);
        }
        for entry in accept.split(',') {
            let mut parts = entry.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            if !matches!(media, "application/json" | "*/*" | "application/*") {
                continue;
            }
            let parameters: Vec<(&str, &str)> = parts.filter_map(|p| p.split_once('=')).collect();
            let parameter =
                |name: &str| parameters.iter().find(|(k, _)| *k == name).map(|(_, v)| *v);
            match (parameter("as"), parameter("v")) {
                (None, _) => return Ok(View::Plain),
                (Some("Table"), Some("v1")) => {
                    return Ok(View::Table(match include_object {
                        "None" => Include::None,
                        "Object" => Include::Object,
                        _ => Include::Metadata,
                    }));
                }
                (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("v1")) => {
                    return Ok(View::Metadata);
                }
                _ => {}
            }
        }
        Err(ApiError::not_acceptable())
    }

    /// One object.
    pub fn one(self, resource: &Resource, object: &Object) -> Bytes {
        match (self, resource.form) {
            (View::Plain, Form::Stored) => object.json(),
            (View::Plain, Form::EventsV1) => text(&events::to_events_v1(&object.value)),
            (View::Plain, Form::Custom) => text(&custom::spoken(resource, &object.value)),
            (View::Metadata, _) => text(&metadata_only(&object.value)),
            (View::Table(include), _) => {
                let rows = [&object.value];
                text(&self.table(
                    resource,
                    &rows,
                    include,
                    true,
                    &list_meta(object.revision, "", 0),
                ))
            }
        }
    }

    /// A list. `left_out` counts the objects that a further chunk holds.
    pub fn list(
        self,
        resource: &Resource,
        objects: &[&Object],
        revision: u64,
        token: &str,
        left_out: usize,
    ) -> Bytes {
        let meta = list_meta(revision, token, left_out);
        if let View::Table(include) = self {
            let rows: Vec<&Value> = objects.iter().map(|o| &o.value).collect();
            return text(&self.table(resource, &rows, include, true, &meta));
        }
        let (kind, version) = match self {
            View::Metadata => (
                "PartialObjectMetadataList".to_owned(),
                "meta.k8s.io/v1".to_owned(),
            ),
            _ => (resource.list_kind(), resource.api_version()),
        };
        let mut out = format!(
            "{{\"kind\":\"{kind}\",\"apiVersion\":\"{version}\",\"metadata\":{meta},\"items\":["
        )
        .into_bytes();
        for (i, object) in objects.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&self.one(resource, object));
        }
        out.extend_from_slice(b"]}\n");
        out.into()
    }

    /// One object of a watch event; the column definitions of a table go with the first only.
    pub fn event(self, resource: &Resource, object: &Object, first: bool) -> Bytes {
        match self {
            View::Table(include) => {
                let meta = list_meta(object.revision, "", 0);
                text(&self.table(resource, &[&object.value], include, first, &meta))
            }
            _ => self.one(resource, object),
        }
    }

    /// A bookmark: an object of the kind with nothing but a resource version.
    pub fn bookmark(self, resource: &Resource, revision: u64, initial_events_end: bool) -> Value {
        let mut metadata =
            json!({ "resourceVersion": revision.to_string(), "creationTimestamp": null });
        if initial_events_end {
            metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        match self {
            View::Plain => {
                json!({ "kind": resource.kind, "apiVersion": resource.api_version(), "metadata": metadata })
            }
            View::Metadata => {
                json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata })
            }
            View::Table(_) => json!({
                "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": { "resourceVersion": revision.to_string() },
                "columnDefinitions": null,
                "rows": [{ "cells": [], "object": {
                    "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
                } }],
            }),
        }
    }

    fn table(
        self,
        resource: &Resource,
        objects: &[&Value],
        include: Include,
        headers: bool,
        meta: &Value,
    ) -> Value {
        let row_object = |value: &Value| match include {
            Include::None => Value::Null,
            Include::Metadata => metadata_only(value),
            Include::Object if resource.form == Form::EventsV1 => events::to_events_v1(value),
            Include::Object if resource.form == Form::Custom => custom::spoken(resource, value),
            Include::Object => value.clone(),
        };
        match &resource.printers {
            None => table::table(&resource.columns, objects, headers, meta, row_object),
            Some(printers) => table::custom_table(printers, objects, headers, meta, row_object),
        }
    }
}

fn list_meta(revision: u64, token: &str, left_out: usize) -> Value {
    let mut meta = json!({ "resourceVersion": revision.to_string() });
    if !token.is_empty() {
        meta["continue"] = json!(token);
        meta["remainingItemCount"] = json!(left_out);
    }
    meta
}

fn metadata_only(value: &Value) -> Value {
    json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": value["metadata"] })
}

fn text(value: &Value) -> Bytes {
    Bytes::from(value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_headers_of_real_clients() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(
            View::parse(kubectl, "").ok(),
            Some(View::Table(Include::Metadata))
        );
        assert_eq!(
            View::parse("application/json, */*", "").ok(),
            Some(View::Plain)
        );
        assert_eq!(
            View::parse("application/vnd.kubernetes.protobuf,application/json", "").ok(),
            Some(View::Plain)
        );
        let partial = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        assert_eq!(View::parse(partial, "").ok(), Some(View::Metadata));
        assert_eq!(
            View::parse("application/vnd.kubernetes.protobuf", "").map_err(|e| e.code),
            Err(406)
        );
    }
}
