//! The downward API: what a pod may ask about itself with `fieldRef` and `resourceFieldRef`.
//!
//! Values are as Kubernetes gives them (`pkg/fieldpath`, `pkg/api/v1/resource`); a limit that is not set is
//! the node's capacity.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};

use crate::quantity;

/// The addresses a pod can ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    pub pod: Vec<IpAddr>,
    pub host: Vec<IpAddr>,
}

/// How much the node has, for limits that are not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    pub cpus: u64,
    pub memory: u64,
}

/// The value of a `fieldPath`, or what is wrong with it.
pub fn field(pod: &Pod, addresses: &Addresses, path: &str) -> Result<String, String> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let text = |value: Option<&String>| value.cloned().unwrap_or_default();
    Ok(match path {
        "metadata.name" => text(meta.name.as_ref()),
        "metadata.namespace" => text(meta.namespace.as_ref()),
        "metadata.uid" => text(meta.uid.as_ref()),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => text(spec.and_then(|s| s.node_name.as_ref())),
        "spec.serviceAccountName" => spec
            .and_then(|s| s.service_account_name.clone())
            .unwrap_or_else(|| "default".to_owned()),
        "status.hostIP" => first(&addresses.host),
        "status.hostIPs" => all(&addresses.host),
        "status.podIP" => first(&addresses.pod),
        "status.podIPs" => all(&addresses.pod),
        _ => {
            return subscript(path, "metadata.labels", meta.labels.as_ref())
                .or_else(|| subscript(path, "metadata.annotations", meta.annotations.as_ref()))
                .ok_or_else(|| format!("fieldPath {path:?} is not one a pod can refer to"));
        }
    })
}

/// The value of a `resourceFieldRef` of `container`.
pub fn resource(
    container: &Container,
    machine: Machine,
    selector: &ResourceFieldSelector,
) -> Result<String, String> {
    let unknown = || {
        format!(
            "resource {:?} is not one a pod can refer to",
            selector.resource
        )
    };
    let (list, name) = selector.resource.split_once('.').ok_or_else(unknown)?;
    let resources = container.resources.as_ref();
    let limits = resources.and_then(|r| r.limits.as_ref());
    let requests = resources.and_then(|r| r.requests.as_ref());
    let set = match list {
        "limits" => limits.and_then(|l| l.get(name)),
        "requests" => requests
            .and_then(|r| r.get(name))
            .or(limits.and_then(|l| l.get(name))),
        _ => return Err(unknown()),
    };
    let fallback = match (list, name) {
        ("limits", "cpu") => machine.cpus.to_string(),
        ("limits", "memory") => machine.memory.to_string(),
        _ => "0".to_owned(),
    };
    let value = set.map_or(fallback.as_str(), |q| q.0.as_str());
    let divisor = selector.divisor.as_ref().map_or("0", |d| d.0.as_str());
    quantity::divided(value, divisor)
        .map(|n| n.to_string())
        .ok_or_else(|| format!("{value:?} divided by {divisor:?} is not a quantity"))
}

fn subscript(path: &str, map_path: &str, map: Option<&BTreeMap<String, String>>) -> Option<String> {
    let key = path
        .strip_prefix(map_path)?
        .strip_prefix("['")?
        .strip_suffix("']")?;
    let value = map.and_then(|m| m.get(key)).cloned();
    Some(value.unwrap_or_default())
}

fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let entries = map.into_iter().flatten();
    let lines: Vec<String> = entries.map(|(k, v)| format!("{k}={v:?}")).collect();
    lines.join("\n")
}

fn first(list: &[IpAddr]) -> String {
    list.first().map(ToString::to_string).unwrap_or_default()
}

fn all(list: &[IpAddr]) -> String {
    let list: Vec<String> = list.iter().map(ToString::to_string).collect();
    list.join(",")
}
