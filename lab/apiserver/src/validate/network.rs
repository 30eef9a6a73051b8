//! EndpointSlices, NetworkPolicies and Ingresses.

use std::collections::HashSet;
use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{
    Ingress, IngressBackend, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::apps::label_selector;
use super::names::{NameRule, label1123_complaint};
use super::{IMMUTABLE, ports};
use crate::status::FieldErrors;

const MAX_ENDPOINTS: usize = 1000;

/// EndpointSlice.
pub fn endpoint_slice(slice: &EndpointSlice, errors: &mut FieldErrors) {
    if !matches!(slice.address_type.as_str(), "IPv4" | "IPv6" | "FQDN") {
        if slice.address_type.is_empty() {
            errors.required("addressType", "");
        } else {
            errors.not_supported(
                "addressType",
                slice.address_type.as_str(),
                &["FQDN", "IPv4", "IPv6"],
            );
        }
    }
    let endpoints = slice.endpoints.as_deref().unwrap_or_default();
    if endpoints.len() > MAX_ENDPOINTS {
        errors.too_long("endpoints", MAX_ENDPOINTS);
    }
    for (i, endpoint) in endpoints.iter().enumerate() {
        if endpoint.addresses.is_empty() {
            errors.required(
                format!("endpoints[{i}].addresses"),
                "must contain at least 1 address",
            );
        }
        for (j, address) in endpoint.addresses.iter().enumerate() {
            let right = match slice.address_type.as_str() {
                "IPv4" => address.parse::<IpAddr>().is_ok_and(|a| a.is_ipv4()),
                "IPv6" => address.parse::<IpAddr>().is_ok_and(|a| a.is_ipv6()),
                _ => true,
            };
            if !right {
                let detail = format!("must be a valid {} address", slice.address_type);
                errors.invalid(
                    format!("endpoints[{i}].addresses[{j}]"),
                    address.as_str(),
                    detail,
                );
            }
        }
        if let Some(hostname) = endpoint.hostname.as_deref()
            && let Some(complaint) = label1123_complaint(hostname)
        {
            errors.invalid(format!("endpoints[{i}].hostname"), hostname, complaint);
        }
    }
    let mut names = HashSet::new();
    for (i, port) in slice.ports.iter().flatten().enumerate() {
        let name = port.name.as_deref().unwrap_or_default();
        if !names.insert(name) {
            errors.duplicate(format!("ports[{i}].name"), name);
        }
        ports::protocol(
            port.protocol.as_deref().unwrap_or("TCP"),
            &format!("ports[{i}].protocol"),
            errors,
        );
    }
}

/// EndpointSlice, from one to the next.
pub fn endpoint_slice_update(new: &EndpointSlice, old: &EndpointSlice, errors: &mut FieldErrors) {
    if new.address_type != old.address_type {
        errors.invalid("addressType", new.address_type.as_str(), IMMUTABLE);
    }
}

/// NetworkPolicy.
pub fn network_policy(policy: &NetworkPolicy, errors: &mut FieldErrors) {
    let Some(spec) = &policy.spec else { return };
    if let Some(selector) = &spec.pod_selector {
        label_selector(selector, "spec.podSelector", errors);
    }
    for (i, rule) in spec.ingress.iter().flatten().enumerate() {
        let field = format!("spec.ingress[{i}]");
        policy_ports(rule.ports.as_deref(), &field, errors);
        peers(rule.from.as_deref(), &format!("{field}.from"), errors);
    }
    for (i, rule) in spec.egress.iter().flatten().enumerate() {
        let field = format!("spec.egress[{i}]");
        policy_ports(rule.ports.as_deref(), &field, errors);
        peers(rule.to.as_deref(), &format!("{field}.to"), errors);
    }
    for (i, kind) in spec.policy_types.iter().flatten().enumerate() {
        if !matches!(kind.as_str(), "Ingress" | "Egress") {
            errors.not_supported(
                format!("spec.policyTypes[{i}]"),
                kind.as_str(),
                &["Egress", "Ingress"],
            );
        }
    }
}

fn policy_ports(all: Option<&[NetworkPolicyPort]>, field: &str, errors: &mut FieldErrors) {
    for (i, port) in all.unwrap_or_default().iter().enumerate() {
        let field = format!("{field}.ports[{i}]");
        ports::protocol(
            port.protocol.as_deref().unwrap_or("TCP"),
            &format!("{field}.protocol"),
            errors,
        );
        if let Some(value) = &port.port {
            ports::number_or_name(value, &format!("{field}.port"), errors);
        }
        let Some(end) = port.end_port else { continue };
        match &port.port {
            Some(IntOrString::Int(start)) if end < *start => {
                errors.invalid(
                    format!("{field}.endPort"),
                    end,
                    "must be greater than or equal to `port`",
                );
            }
            Some(IntOrString::Int(_)) => ports::number(end, &format!("{field}.endPort"), errors),
            _ => errors.invalid(
                format!("{field}.endPort"),
                end,
                "may not be specified when `port` is not numeric",
            ),
        }
    }
}

fn peers(all: Option<&[NetworkPolicyPeer]>, field: &str, errors: &mut FieldErrors) {
    for (i, peer) in all.unwrap_or_default().iter().enumerate() {
        let field = format!("{field}[{i}]");
        let selects = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
        if let Some(selector) = &peer.pod_selector {
            label_selector(selector, &format!("{field}.podSelector"), errors);
        }
        if let Some(selector) = &peer.namespace_selector {
            label_selector(selector, &format!("{field}.namespaceSelector"), errors);
        }
        let Some(block) = &peer.ip_block else {
            if !selects {
                errors.required(field, "must specify a peer");
            }
            continue;
        };
        if selects {
            errors.forbidden(field, "may not specify both ipBlock and another peer");
            continue;
        }
        let Ok(range) = block.cidr.parse::<ipnet::IpNet>() else {
            errors.invalid(
                format!("{field}.ipBlock.cidr"),
                block.cidr.as_str(),
                "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            );
            continue;
        };
        for (j, except) in block.except.iter().flatten().enumerate() {
            let inside = except
                .parse::<ipnet::IpNet>()
                .is_ok_and(|e| range.contains(&e) && range != e);
            if !inside {
                errors.invalid(
                    format!("{field}.ipBlock.except[{j}]"),
                    except.as_str(),
                    format!("must be a strict subset of `cidr` {:?}", block.cidr),
                );
            }
        }
    }
}

/// Ingress.
pub fn ingress(ingress: &Ingress, errors: &mut FieldErrors) {
    let Some(spec) = &ingress.spec else {
        return errors.invalid(
            "spec",
            "",
            "either `defaultBackend` or `rules` must be specified",
        );
    };
    let rules = spec.rules.as_deref().unwrap_or_default();
    if rules.is_empty() && spec.default_backend.is_none() {
        errors.invalid(
            "spec",
            "",
            "either `defaultBackend` or `rules` must be specified",
        );
    }
    if let Some(default) = &spec.default_backend {
        backend(default, "spec.defaultBackend", errors);
    }
    for (i, rule) in rules.iter().enumerate() {
        let field = format!("spec.rules[{i}]");
        if let Some(host) = rule.host.as_deref().filter(|h| !h.is_empty())
            && let Some(complaint) =
                NameRule::Subdomain.complaint(host.strip_prefix("*.").unwrap_or(host))
        {
            errors.invalid(format!("{field}.host"), host, complaint);
        }
        for (j, path) in rule.http.iter().flat_map(|h| &h.paths).enumerate() {
            let field = format!("{field}.http.paths[{j}]");
            let kind = path.path_type.as_str();
            if kind.is_empty() {
                errors.required(format!("{field}.pathType"), "pathType must be specified");
            } else if !matches!(kind, "Exact" | "Prefix" | "ImplementationSpecific") {
                errors.not_supported(
                    format!("{field}.pathType"),
                    kind,
                    &["Exact", "ImplementationSpecific", "Prefix"],
                );
            }
            let text = path.path.as_deref().unwrap_or_default();
            if kind != "ImplementationSpecific" && !text.starts_with('/') {
                errors.invalid(format!("{field}.path"), text, "must be an absolute path");
            }
            backend(&path.backend, &format!("{field}.backend"), errors);
        }
    }
}

fn backend(backend: &IngressBackend, field: &str, errors: &mut FieldErrors) {
    let Some(service) = &backend.service else {
        if backend.resource.is_none() {
            errors.required(field, "either `service` or `resource` must be specified");
        }
        return;
    };
    if service.name.is_empty() {
        errors.required(format!("{field}.service.name"), "");
    }
    let port = service.port.as_ref();
    match (
        port.and_then(|p| p.name.as_deref()),
        port.and_then(|p| p.number),
    ) {
        (Some(name), None | Some(0)) => {
            ports::name(name, &format!("{field}.service.port.name"), errors)
        }
        (None, Some(number)) => {
            ports::number(number, &format!("{field}.service.port.number"), errors)
        }
        (None, None) => errors.required(field, "port name or number is required"),
        (Some(_), Some(_)) => errors.invalid(field, "", "cannot set both port name & port number"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn complaints(spec: Value) -> Vec<String> {
        let value = json!({ "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {}, "spec": spec });
        let policy: NetworkPolicy = serde_json::from_value(value).expect("a NetworkPolicy");
        let mut errors = FieldErrors::default();
        network_policy(&policy, &mut errors);
        errors.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn policies() {
        assert!(
            complaints(
                json!({ "podSelector": {}, "ingress": [{ "from": [{ "podSelector": {} }] }] })
            )
            .is_empty()
        );
        assert_eq!(
            complaints(
                json!({ "podSelector": {}, "ingress": [{ "from": [{}], "ports": [{ "port": 80, "endPort": 70 }] }] })
            ),
            [
                "spec.ingress[0].ports[0].endPort: Invalid value: 70: must be greater than or equal to `port`",
                "spec.ingress[0].from[0]: Required value: must specify a peer",
            ]
        );
        let to =
            |peer: Value| complaints(json!({ "podSelector": {}, "egress": [{ "to": [peer] }] }));
        assert_eq!(
            to(json!({ "ipBlock": { "cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"] } })),
            [
                "spec.egress[0].to[0].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr` \"10.0.0.0/8\""
            ]
        );
        assert_eq!(
            to(json!({ "ipBlock": { "cidr": "10.0.0.0/33" } })),
            [
                "spec.egress[0].to[0].ipBlock.cidr: Invalid value: \"10.0.0.0/33\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
            ]
        );
        let like = to(
            json!({ "podSelector": { "matchExpressions": [{ "key": "a", "operator": "Like" }] } }),
        );
        assert_eq!(like.len(), 1, "{like:?}");
        assert!(
            like[0].starts_with("spec.egress[0].to[0].podSelector.matchExpressions[0].operator: "),
            "{like:?}"
        );
        let both = complaints(json!({ "podSelector": {}, "policyTypes": ["Both"] }));
        assert_eq!(both.len(), 1, "{both:?}");
        assert!(
            both[0].starts_with("spec.policyTypes[0]: Unsupported value: \"Both\""),
            "{both:?}"
        );
    }
}
