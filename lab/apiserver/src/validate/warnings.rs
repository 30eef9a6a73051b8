//! What is legal and probably not meant: sentences for `Warning` headers, which kubectl prints.
//!
//! Source: `pkg/api/pod/warnings.go` and `pkg/api/service/warnings.go`, the ones about ports and names.

use std::collections::HashMap;

use serde_json::Value;

use crate::registry::Resource;

/// Warnings about an object that passed validation.
pub fn of(resource: &Resource, value: &Value) -> Vec<String> {
    match (resource.group, resource.kind) {
        ("", "Pod") => pod(&value["spec"], "spec"),
        ("apps", "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet") | ("batch", "Job") => {
            pod(&value["spec"]["template"]["spec"], "spec.template.spec")
        }
        _ => Vec::new(),
    }
}

/// What is told to everybody who reads or writes a deprecated kind, also where there is no object of it: the lab's
/// controllers write EndpointSlices alone, and `kubectl get endpoints` is empty.
pub fn deprecated(resource: &Resource) -> Vec<String> {
    match (resource.group, resource.kind) {
        ("", "Endpoints") => vec![
            "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"
                .to_owned(),
        ],
        _ => Vec::new(),
    }
}

fn pod(spec: &Value, field: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut first: HashMap<(i64, String), String> = HashMap::new();
    for (i, container) in spec["containers"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        for (j, port) in container["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .enumerate()
        {
            let number = port["containerPort"].as_i64().unwrap_or(0);
            let protocol = port["protocol"].as_str().unwrap_or("TCP").to_owned();
            let here = format!("{field}.containers[{i}].ports[{j}]");
            match first.get(&(number, protocol.clone())) {
                Some(there) => {
                    warnings.push(format!("{here}: duplicate port definition with {there}"))
                }
                None => drop(first.insert((number, protocol), here)),
            }
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn two_containers_on_one_port_are_warned_about() {
        let port = json!({ "containerPort": 80, "protocol": "TCP" });
        let spec = json!({ "containers": [{ "ports": [port] }, { "ports": [{ "containerPort": 80, "protocol": "UDP" }, port] }] });
        assert_eq!(
            pod(&spec, "spec"),
            [
                "spec.containers[1].ports[1]: duplicate port definition with spec.containers[0].ports[0]"
            ]
        );
    }
}
