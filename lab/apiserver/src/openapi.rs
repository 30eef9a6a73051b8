//! The least OpenAPI that lets kubectl trust the server with field validation.
//!
//! Before an apply, kubectl looks for the query parameter `fieldValidation` on the PATCH operation of the object's kind
//! in `/openapi/v3/…` (`k8s.io/cli-runtime/pkg/resource/query_param_verifier_v3.go`). Found, it leaves validation to the
//! server, which is where this project does it; not found, it would validate by itself against a full schema.
//!
//! So the documents here list paths and that parameter and no schemas: `kubectl explain` has nothing to say, and
//! kubectl takes the merge keys of built-in kinds from its own types.

use serde_json::{Map, Value, json};

use crate::registry::{self, Resource, api_version};

/// `/openapi/v3`: where the documents are.
pub fn index(rows: &[&'static Resource]) -> Value {
    let paths: Map<String, Value> = registry::groups(rows)
        .into_iter()
        .map(|(group, version)| {
            let path = base(group, version);
            let url = format!("/openapi/v3/{path}?hash=parfait");
            (path, json!({ "serverRelativeURL": url }))
        })
        .collect();
    json!({ "paths": paths })
}

/// `/openapi/v3/api/v1` and `/openapi/v3/apis/GROUP/VERSION`.
pub fn document(rows: &[&'static Resource], path: &str) -> Option<Value> {
    let (group, version) = registry::groups(rows)
        .into_iter()
        .find(|(g, v)| base(g, v) == path)?;
    let rows = rows
        .iter()
        .filter(|r| r.group == group && r.version == version);
    let paths: Map<String, Value> = rows
        .map(|resource| (object_path(resource), operations(resource)))
        .collect();
    Some(json!({ "openapi": "3.0.0", "info": info(), "paths": paths }))
}

/// `/openapi/v2`, for clients that insist: the same in the old form.
pub fn v2(rows: &[&'static Resource]) -> Value {
    let paths: Map<String, Value> = rows
        .iter()
        .map(|resource| (object_path(resource), operations(resource)))
        .collect();
    json!({ "swagger": "2.0", "info": info(), "paths": paths, "definitions": {} })
}

fn info() -> Value {
    json!({ "title": "Kubernetes", "version": crate::router::VERSION })
}

fn base(group: &str, version: &str) -> String {
    let prefix = if group.is_empty() { "api" } else { "apis" };
    format!("{prefix}/{}", api_version(group, version))
}

fn object_path(resource: &Resource) -> String {
    let namespace = if resource.namespaced {
        "/namespaces/{namespace}"
    } else {
        ""
    };
    format!(
        "/{}{namespace}/{}/{{name}}",
        base(resource.group, resource.version),
        resource.plural
    )
}

fn operations(resource: &Resource) -> Value {
    let parameters: Vec<Value> = ["dryRun", "fieldManager", "fieldValidation"]
        .into_iter()
        .map(|name| json!({ "name": name, "in": "query", "schema": { "type": "string" } }))
        .collect();
    let kind =
        json!({ "group": resource.group, "version": resource.version, "kind": resource.kind });
    let operation = |action: &str| {
        json!({
            "x-kubernetes-action": action, "x-kubernetes-group-version-kind": kind, "parameters": parameters,
            "responses": { "200": { "description": "OK" } },
        })
    };
    json!({ "patch": operation("patch"), "put": operation("put") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_advertises_field_validation() {
        let rows: Vec<_> = registry::all().iter().collect();
        for resource in registry::all() {
            let document =
                document(&rows, &base(resource.group, resource.version)).expect("indexed");
            let patch = &document["paths"][object_path(resource)]["patch"];
            assert_eq!(
                patch["x-kubernetes-group-version-kind"]["kind"],
                resource.kind
            );
            assert_eq!(patch["parameters"][2]["name"], "fieldValidation");
        }
        assert!(document(&rows, "apis/nope/v1").is_none());
    }
}
