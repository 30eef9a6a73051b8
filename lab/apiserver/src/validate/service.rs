//! Services: ports, types, addresses, families. What needs the pools is checked in [`crate::service_addresses`].

use std::collections::HashSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::names::{NameRule, label1123_complaint};
use super::{metadata, ports};
use crate::status::FieldErrors;

/// A Service on its own.
pub fn service(service: &Service, errors: &mut FieldErrors) {
    let empty = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&empty);
    let kind = spec.type_.as_deref().unwrap_or("ClusterIP");
    if !matches!(
        kind,
        "ClusterIP" | "NodePort" | "LoadBalancer" | "ExternalName"
    ) {
        errors.not_supported(
            "spec.type",
            kind,
            &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
        );
    }
    let headless = spec.cluster_ip.as_deref() == Some("None");
    let all = spec.ports.as_deref().unwrap_or_default();
    if all.is_empty() && !headless && kind != "ExternalName" {
        errors.required("spec.ports", "");
    }
    if headless && matches!(kind, "NodePort" | "LoadBalancer") {
        errors.invalid(
            "spec.clusterIPs[0]",
            "None",
            format!("may not be set to 'None' for {kind} services"),
        );
    }
    if kind == "ExternalName" {
        external_name(spec, errors);
    }
    service_ports(all, kind, errors);
    cluster_ips(spec, errors);
    policies(spec, kind, errors);
    for (key, value) in spec.selector.iter().flatten() {
        metadata::label(key, value, "spec.selector", errors);
    }
    for (i, ip) in spec.external_ips.iter().flatten().enumerate() {
        match ip.parse::<IpAddr>() {
            Ok(address)
                if address.is_loopback() || address.is_unspecified() || address.is_multicast() =>
            {
                errors.invalid(
                    format!("spec.externalIPs[{i}]"),
                    ip.as_str(),
                    "may not be unspecified, loopback or multicast",
                );
            }
            Ok(_) => {}
            Err(_) => errors.invalid(format!("spec.externalIPs[{i}]"), ip.as_str(), NOT_AN_IP),
        }
    }
    for (i, range) in spec
        .load_balancer_source_ranges
        .iter()
        .flatten()
        .enumerate()
    {
        if range.trim().parse::<ipnet::IpNet>().is_err() {
            errors.invalid(
                format!("spec.LoadBalancerSourceRanges[{i}]"),
                range.as_str(),
                "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            );
        }
    }
}

const NOT_AN_IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

/// The primary address and family of a Service stay.
pub fn service_update(new: &Service, old: &Service, errors: &mut FieldErrors) {
    let (Some(new), Some(old)) = (&new.spec, &old.spec) else {
        return;
    };
    let external = |spec: &ServiceSpec| spec.type_.as_deref() == Some("ExternalName");
    if external(new) || external(old) {
        return;
    }
    let primary = |spec: &ServiceSpec| {
        let first = spec
            .cluster_ips
            .as_ref()
            .and_then(|ips| ips.first().cloned());
        spec.cluster_ip
            .clone()
            .filter(|ip| !ip.is_empty())
            .or(first)
    };
    if let (Some(new_ip), Some(old_ip)) = (primary(new), primary(old))
        && new_ip != old_ip
    {
        errors.invalid(
            "spec.clusterIPs[0]",
            vec![new_ip],
            "may not change once set",
        );
    }
    let family = |spec: &ServiceSpec| spec.ip_families.as_ref().and_then(|f| f.first().cloned());
    if let (Some(new_family), Some(old_family)) = (family(new), family(old))
        && new_family != old_family
    {
        errors.invalid("spec.ipFamilies[0]", new_family, "may not change once set");
    }
}

fn external_name(spec: &ServiceSpec, errors: &mut FieldErrors) {
    if spec.cluster_ip.as_deref().is_some_and(|ip| !ip.is_empty()) {
        errors.forbidden(
            "spec.clusterIPs[0]",
            "may not be set for ExternalName services",
        );
    }
    match spec
        .external_name
        .as_deref()
        .unwrap_or_default()
        .trim_end_matches('.')
    {
        "" => errors.required("spec.externalName", ""),
        name => {
            if let Some(complaint) = NameRule::Subdomain.complaint(name) {
                errors.invalid("spec.externalName", name, complaint);
            }
        }
    }
}

fn service_ports(all: &[ServicePort], kind: &str, errors: &mut FieldErrors) {
    let mut names = HashSet::new();
    let mut numbers = HashSet::new();
    let mut node_ports = HashSet::new();
    for (i, port) in all.iter().enumerate() {
        let field = format!("spec.ports[{i}]");
        match port.name.as_deref().unwrap_or_default() {
            "" if all.len() > 1 => errors.required(format!("{field}.name"), ""),
            "" => {}
            name => {
                if let Some(complaint) = label1123_complaint(name) {
                    errors.invalid(format!("{field}.name"), name, complaint);
                } else if !names.insert(name) {
                    errors.duplicate(format!("{field}.name"), name);
                }
            }
        }
        ports::number(port.port, &format!("{field}.port"), errors);
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        ports::protocol(protocol, &format!("{field}.protocol"), errors);
        match &port.target_port {
            Some(IntOrString::String(name)) if name.is_empty() => {}
            Some(target) => ports::number_or_name(target, &format!("{field}.targetPort"), errors),
            None => {}
        }
        if !numbers.insert((port.port, protocol)) {
            errors.duplicate(
                field.clone(),
                serde_json::json!({ "port": port.port, "protocol": protocol }),
            );
        }
        let Some(node_port) = port.node_port.filter(|p| *p != 0) else {
            continue;
        };
        if kind == "ClusterIP" {
            errors.forbidden(
                format!("{field}.nodePort"),
                "may not be used when `type` is 'ClusterIP'",
            );
        } else if !node_ports.insert((node_port, protocol)) {
            errors.duplicate(format!("{field}.nodePort"), node_port);
        }
    }
}

fn cluster_ips(spec: &ServiceSpec, errors: &mut FieldErrors) {
    let ips = spec.cluster_ips.as_deref().unwrap_or_default();
    let first = spec.cluster_ip.as_deref().unwrap_or_default();
    match ips.first() {
        Some(_) if first.is_empty() => errors.forbidden(
            "spec.clusterIPs",
            "must be empty when `clusterIP` is not specified",
        ),
        Some(ip) if ip != first => errors.invalid(
            "spec.clusterIPs",
            ips.to_vec(),
            "first value must match `clusterIP`",
        ),
        _ => {}
    }
    if ips.len() > 2 {
        errors.invalid(
            "spec.clusterIPs",
            ips.to_vec(),
            "may only hold up to 2 values",
        );
    }
    let fallback = [first.to_owned()];
    let given = if ips.is_empty() && !first.is_empty() {
        &fallback[..]
    } else {
        ips
    };
    for (i, ip) in given.iter().enumerate().filter(|(_, ip)| *ip != "None") {
        if ip.parse::<IpAddr>().is_err() {
            errors.invalid(format!("spec.clusterIPs[{i}]"), ip.as_str(), NOT_AN_IP);
        }
    }
    let parsed: Vec<IpAddr> = ips.iter().filter_map(|ip| ip.parse().ok()).collect();
    if let [a, b] = parsed.as_slice()
        && a.is_ipv4() == b.is_ipv4()
    {
        errors.invalid(
            "spec.clusterIPs",
            ips.to_vec(),
            "may specify no more than one IP for each IP family",
        );
    }
    let families = spec.ip_families.as_deref().unwrap_or_default();
    for (i, family) in families.iter().enumerate() {
        if !matches!(family.as_str(), "IPv4" | "IPv6") {
            errors.not_supported(
                format!("spec.ipFamilies[{i}]"),
                family.as_str(),
                &["IPv4", "IPv6"],
            );
        } else if families[..i].contains(family) {
            errors.duplicate(format!("spec.ipFamilies[{i}]"), family.as_str());
        }
    }
}

fn policies(spec: &ServiceSpec, kind: &str, errors: &mut FieldErrors) {
    let checks: [(&str, &Option<String>, &[&str]); 4] = [
        (
            "sessionAffinity",
            &spec.session_affinity,
            &["ClientIP", "None"],
        ),
        (
            "ipFamilyPolicy",
            &spec.ip_family_policy,
            &["PreferDualStack", "RequireDualStack", "SingleStack"],
        ),
        (
            "internalTrafficPolicy",
            &spec.internal_traffic_policy,
            &["Cluster", "Local"],
        ),
        (
            "externalTrafficPolicy",
            &spec.external_traffic_policy,
            &["Cluster", "Local"],
        ),
    ];
    for (field, value, allowed) in checks {
        if let Some(value) = value.as_deref().filter(|v| !allowed.contains(v)) {
            errors.not_supported(format!("spec.{field}"), value, allowed);
        }
    }
    let outside = matches!(kind, "NodePort" | "LoadBalancer")
        || (kind == "ClusterIP" && spec.external_ips.as_ref().is_some_and(|e| !e.is_empty()));
    if let Some(policy) = spec.external_traffic_policy.as_deref().filter(|_| !outside) {
        errors.invalid(
            "spec.externalTrafficPolicy",
            policy,
            "may only be set for externally-accessible services",
        );
    }
    let timeout = spec
        .session_affinity_config
        .as_ref()
        .and_then(|c| c.client_ip.as_ref())
        .and_then(|c| c.timeout_seconds);
    if let Some(seconds) = timeout.filter(|s| !(1..=86_400).contains(s)) {
        errors.invalid(
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
            seconds,
            "must be greater than 0 and less than 86400",
        );
    }
    if let Some(value) = spec.traffic_distribution.as_deref()
        && !matches!(value, "PreferClose" | "PreferSameZone" | "PreferSameNode")
    {
        errors.not_supported(
            "spec.trafficDistribution",
            value,
            &["PreferClose", "PreferSameNode", "PreferSameZone"],
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn complaints(spec: Value) -> Vec<String> {
        let value = json!({ "apiVersion": "v1", "kind": "Service", "metadata": {}, "spec": spec });
        let object: Service = serde_json::from_value(value).expect("a Service");
        let mut errors = FieldErrors::default();
        service(&object, &mut errors);
        errors.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ports_are_required_unless_headless_or_external() {
        assert_eq!(complaints(json!({})), ["spec.ports: Required value"]);
        assert!(complaints(json!({ "clusterIP": "None" })).is_empty());
        assert!(
            complaints(json!({ "type": "ExternalName", "externalName": "example.com" })).is_empty()
        );
        assert_eq!(
            complaints(json!({ "type": "ExternalName" })),
            ["spec.externalName: Required value"]
        );
    }

    #[test]
    fn ports_are_told_apart() {
        assert_eq!(
            complaints(
                json!({ "ports": [{ "port": 80 }, { "port": 80, "name": "a" }, { "port": 81, "name": "a" }] })
            ),
            [
                "spec.ports[0].name: Required value",
                "spec.ports[1]: Duplicate value: {\"port\":80,\"protocol\":\"TCP\"}",
                "spec.ports[2].name: Duplicate value: \"a\"",
            ]
        );
        assert_eq!(
            complaints(json!({ "ports": [{ "port": 0, "targetPort": 70000 }] })),
            [
                "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                "spec.ports[0].targetPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            ]
        );
        assert_eq!(
            complaints(
                json!({ "ports": [{ "port": 80, "nodePort": 30000 }], "type": "ClusterIP" })
            ),
            ["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"]
        );
    }

    #[test]
    fn addresses_and_families() {
        let with = |extra: Value| {
            let mut spec = json!({ "ports": [{ "port": 80 }] });
            for (key, value) in extra.as_object().expect("fields") {
                spec[key] = value.clone();
            }
            complaints(spec)
        };
        assert_eq!(with(json!({ "clusterIP": "x" })).len(), 1);
        assert_eq!(
            with(json!({ "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.2"] })),
            ["spec.clusterIPs: Invalid value: [\"10.0.0.2\"]: first value must match `clusterIP`"]
        );
        assert_eq!(with(json!({ "ipFamilies": ["IPv5"] })).len(), 1);
        assert_eq!(with(json!({ "type": "Weird" })).len(), 1);
        assert_eq!(
            with(json!({ "externalTrafficPolicy": "Local" })),
            [
                "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services"
            ]
        );
    }
}
