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
pub fn aggregated(all: &[&'static Resource], core: bool) -> Value {
    let items: Vec<Value> = groups(all)
        .into_iter()
        .filter(|(group, _)| group.is_empty() == core)
        .map(|(group, versions)| {
            let metadata = if core {
                json!({ "creationTimestamp": null })
            } else {
                json!({ "name": group, "creationTimestamp": null })
            };
            let versions: Vec<Value> = versions
                .into_iter()
                .map(|version| {
                    let resources: Vec<Value> =
                        rows(all, group, version).map(aggregated_resource).collect();
                    json!({ "version": version, "resources": resources, "freshness": "Current" })
                })
                .collect();
            json!({ "metadata": metadata, "versions": versions })
        })
        .collect();
    json!({ "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items })
}

/// Each group once, with its versions, the preferred one first.
fn groups(all: &[&'static Resource]) -> Vec<(&'static str, Vec<&'static str>)> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for (group, version) in registry::groups(all) {
        match groups.iter_mut().find(|(known, _)| *known == group) {
            Some((_, versions)) => versions.push(version),
            None => groups.push((group, vec![version])),
        }
    }
    for (_, versions) in &mut groups {
        versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
    }
    groups
}

/// `v2` before `v1` before `v1beta1` before `v1alpha1` before all else (`k8s.io/apimachinery/pkg/version`).
fn priority(version: &str) -> (u8, u32, u32) {
    let Some(rest) = version.strip_prefix('v') else {
        return (0, 0, 0);
    };
    let number = |text: &str| text.parse::<u32>().ok();
    for (word, rank) in [("alpha", 1), ("beta", 2)] {
        if let Some((major, minor)) = rest.split_once(word) {
            return match (number(major), number(minor)) {
                (Some(major), Some(minor)) => (rank, major, minor),
                _ => (0, 0, 0),
            };
        }
    }
    number(rest).map_or((0, 0, 0), |major| (3, major, 0))
}

/// `/api` in the old form.
pub fn core_versions() -> Value {
    json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] })
}

/// `/apis` in the old form.
pub fn group_list(all: &[&'static Resource]) -> Value {
    let groups: Vec<Value> = groups(all)
        .iter()
        .filter(|(group, _)| !group.is_empty())
        .map(group_value)
        .collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

/// `/apis/GROUP`.
pub fn group(all: &[&'static Resource], name: &str) -> Option<Value> {
    let found = groups(all)
        .into_iter()
        .find(|(g, _)| *g == name && !g.is_empty())?;
    let mut value = group_value(&found);
    value["kind"] = json!("APIGroup");
    value["apiVersion"] = json!("v1");
    Some(value)
}

/// `/api/v1` and `/apis/GROUP/VERSION`.
pub fn resource_list(all: &[&'static Resource], group: &str, version: &str) -> Option<Value> {
    let resources: Vec<Value> = rows(all, group, version)
        .flat_map(plain_resources)
        .collect();
    if resources.is_empty() {
        return None;
    }
    let group_version = api_version(group, version);
    Some(
        json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources }),
    )
}

fn rows<'a>(
    all: &'a [&'static Resource],
    group: &'a str,
    version: &'a str,
) -> impl Iterator<Item = &'static Resource> + 'a {
    all.iter()
        .copied()
        .filter(move |r| r.group == group && r.version == version)
}

fn group_value((group, versions): &(&str, Vec<&str>)) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| json!({ "groupVersion": api_version(group, version), "version": version }))
        .collect();
    json!({ "name": group, "versions": versions, "preferredVersion": versions.first() })
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
        let all: Vec<_> = registry::all().iter().collect();
        let aggregated = aggregated(&all, false);
        let groups = aggregated["items"].as_array().expect("items");
        assert_eq!(
            groups.len(),
            group_list(&all)["groups"].as_array().expect("groups").len()
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
        assert!(resource_list(&all, "apps", "v1").is_some());
        assert!(resource_list(&all, "apps", "v2").is_none());
        assert!(group(&all, "nope").is_none());
    }

    #[test]
    fn the_stable_version_is_preferred() {
        let mut versions = vec!["v1alpha2", "v1beta1", "odd", "v1", "v10", "v2", "v1alpha10"];
        versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
        let expected = ["v10", "v2", "v1", "v1beta1", "v1alpha10", "v1alpha2", "odd"];
        assert_eq!(versions, expected);
    }

    #[test]
    fn real_kubectl_is_understood() {
        assert!(wants_aggregated(
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
        ));
        assert!(!wants_aggregated("application/json"));
    }
}
