//! Discovery: which groups, versions and resources there are, in the old form and in the aggregated one.
//!
//! kubectl since 1.26 asks `/api` and `/apis` for `APIGroupDiscoveryList` (KEP-3352) and needs nothing else; older
//! clients and kube-rs walk the groups. Both are made from the table of kinds.

use serde_json::{Value, json};

use crate::handle::subresources;
use crate::registry::{self, Resource, api_version};

const VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

/// The content type of the aggregated form, exactly as clients ask for it.
pub const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Whether the client prefers the aggregated form.
pub fn wants_aggregated(accept: &str) -> bool {
    accept.split(',').any(|entry| {
        let has = |wanted: &str| entry.split(';').any(|part| part.trim() == wanted);
        has("as=APIGroupDiscoveryList") && has("v=v2")
    })
}

/// `/api` or `/apis`, aggregated.
pub fn aggregated(core: bool) -> Value {
    let items: Vec<Value> = registry::groups()
        .into_iter()
        .filter(|(group, _)| group.is_empty() == core)
        .map(|(group, version)| {
            let resources: Vec<Value> = rows(group, version).map(aggregated_resource).collect();
            let metadata = if core { json!({ "creationTimestamp": null }) } else { json!({ "name": group, "creationTimestamp": null }) };
            json!({
                "metadata": metadata,
                "versions": [{ "version": version, "resources": resources, "freshness": "Current" }],
            })
        })
        .collect();
    json!({ "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items })
}

/// `/api` in the old form.
pub fn core_versions() -> Value {
    json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] })
}

/// `/apis` in the old form.
pub fn group_list() -> Value {
    let groups: Vec<Value> = registry::groups()
        .into_iter()
        .filter(|(g, _)| !g.is_empty())
        .map(group_value)
        .collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

/// `/apis/GROUP`.
pub fn group(name: &str) -> Option<Value> {
    let found = registry::groups()
        .into_iter()
        .find(|(g, _)| *g == name && !g.is_empty())?;
    let mut value = group_value(found);
    value["kind"] = json!("APIGroup");
    value["apiVersion"] = json!("v1");
    Some(value)
}

/// `/api/v1` and `/apis/GROUP/VERSION`.
pub fn resource_list(group: &str, version: &str) -> Option<Value> {
    let resources: Vec<Value> = rows(group, version).flat_map(plain_resources).collect();
    if resources.is_empty() {
        return None;
    }
    let group_version = api_version(group, version);
    Some(
        json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources }),
    )
}

fn rows<'a>(group: &'a str, version: &'a str) -> impl Iterator<Item = &'static Resource> + 'a {
    registry::all()
        .iter()
        .filter(move |r| r.group == group && r.version == version)
}

fn group_value((group, version): (&str, &str)) -> Value {
    let version = json!({ "groupVersion": api_version(group, version), "version": version });
    json!({ "name": group, "versions": [version], "preferredVersion": version })
}

fn aggregated_resource(resource: &'static Resource) -> Value {
    let subresources: Vec<Value> = subresources(resource)
        .into_iter()
        .map(|(name, verbs)| {
            let (group, version, kind) = subresource_kind(resource, name);
            json!({
                "subresource": name, "verbs": verbs,
                "responseKind": { "group": group, "version": version, "kind": kind },
            })
        })
        .collect();
    let mut value = json!({
        "resource": resource.plural,
        "responseKind": { "group": resource.group, "version": resource.version, "kind": resource.kind },
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": VERBS,
    });
    if !resource.short_names.is_empty() {
        value["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        value["categories"] = json!(resource.categories);
    }
    if !subresources.is_empty() {
        value["subresources"] = Value::Array(subresources);
    }
    value
}

fn plain_resources(resource: &'static Resource) -> Vec<Value> {
    let mut main = json!({
        "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
        "kind": resource.kind, "verbs": VERBS,
    });
    if !resource.short_names.is_empty() {
        main["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        main["categories"] = json!(resource.categories);
    }
    let subs = subresources(resource).into_iter().map(|(name, verbs)| {
        let (group, version, kind) = subresource_kind(resource, name);
        json!({
            "name": format!("{}/{name}", resource.plural), "singularName": "", "namespaced": resource.namespaced,
            "group": group, "version": version, "kind": kind, "verbs": verbs,
        })
    });
    std::iter::once(main).chain(subs).collect()
}

fn subresource_kind(resource: &Resource, name: &str) -> (&'static str, &'static str, &'static str) {
    match name {
        "scale" => ("autoscaling", "v1", "Scale"),
        "eviction" => ("policy", "v1", "Eviction"),
        "binding" => ("", "v1", "Binding"),
        _ => (resource.group, resource.version, resource.kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_agree() {
        let aggregated = aggregated(false);
        let groups = aggregated["items"].as_array().expect("items");
        assert_eq!(
            groups.len(),
            group_list()["groups"].as_array().expect("groups").len()
        );
        let apps = groups
            .iter()
            .find(|g| g["metadata"]["name"] == "apps")
            .expect("apps is a group");
        let deployment = &apps["versions"][0]["resources"][0];
        assert_eq!(
            deployment["subresources"][1]["responseKind"]["kind"],
            "Scale"
        );
        assert!(resource_list("apps", "v1").is_some());
        assert!(resource_list("apps", "v2").is_none());
        assert!(group("nope").is_none());
    }

    #[test]
    fn real_kubectl_is_understood() {
        assert!(wants_aggregated(
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
        ));
        assert!(!wants_aggregated("application/json"));
    }
}
