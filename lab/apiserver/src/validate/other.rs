//! Secrets, ConfigMaps and Nodes.

use k8s_openapi::api::core::v1::{ConfigMap, Node, Secret};

use super::IMMUTABLE;
use crate::status::FieldErrors;

const LIMIT: usize = 1024 * 1024;

/// Secret.
pub fn secret(secret: &Secret, errors: &mut FieldErrors) {
    let data = secret.data.iter().flatten();
    keys(data.clone().map(|(k, _)| k.as_str()), "data", errors);
    if data.map(|(_, v)| v.0.len()).sum::<usize>() > LIMIT {
        errors.too_long("data", LIMIT);
    }
}

/// Secret, from one to the next.
pub fn secret_update(new: &Secret, old: &Secret, errors: &mut FieldErrors) {
    if new.type_ != old.type_ {
        errors.invalid("type", new.type_.clone().unwrap_or_default(), IMMUTABLE);
    }
    if old.immutable == Some(true) {
        if new.immutable != Some(true) {
            errors.forbidden("immutable", "field is immutable when `immutable` is set");
        }
        if new.data != old.data {
            errors.forbidden("data", "field is immutable when `immutable` is set");
        }
    }
}

/// ConfigMap.
pub fn config_map(map: &ConfigMap, errors: &mut FieldErrors) {
    keys(
        map.data.iter().flatten().map(|(k, _)| k.as_str()),
        "data",
        errors,
    );
    keys(
        map.binary_data.iter().flatten().map(|(k, _)| k.as_str()),
        "binaryData",
        errors,
    );
    for key in map.binary_data.iter().flatten().map(|(k, _)| k) {
        if map.data.as_ref().is_some_and(|d| d.contains_key(key)) {
            errors.invalid(
                format!("data[{key}]"),
                key.as_str(),
                "duplicate of key present in binaryData",
            );
        }
    }
    let text: usize = map.data.iter().flatten().map(|(_, v)| v.len()).sum();
    let binary: usize = map
        .binary_data
        .iter()
        .flatten()
        .map(|(_, v)| v.0.len())
        .sum();
    if text + binary > LIMIT {
        errors.too_long("", LIMIT);
    }
}

/// ConfigMap, from one to the next.
pub fn config_map_update(new: &ConfigMap, old: &ConfigMap, errors: &mut FieldErrors) {
    if old.immutable == Some(true) {
        if new.immutable != Some(true) {
            errors.forbidden("immutable", "field is immutable when `immutable` is set");
        }
        if new.data != old.data || new.binary_data != old.binary_data {
            errors.forbidden("data", "field is immutable when `immutable` is set");
        }
    }
}

/// Node.
pub fn node(node: &Node, errors: &mut FieldErrors) {
    let spec = node.spec.as_ref();
    for (i, cidr) in spec
        .iter()
        .flat_map(|s| s.pod_cidrs.iter().flatten())
        .enumerate()
    {
        if cidr.parse::<ipnet::IpNet>().is_err() {
            errors.invalid(
                format!("spec.podCIDRs[{i}]"),
                cidr.as_str(),
                "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            );
        }
    }
}

/// Node, from one to the next: pod ranges are given once.
pub fn node_update(new: &Node, old: &Node, errors: &mut FieldErrors) {
    let cidrs = |node: &Node| {
        node.spec
            .as_ref()
            .and_then(|s| s.pod_cidrs.clone())
            .unwrap_or_default()
    };
    if !cidrs(old).is_empty() && cidrs(new) != cidrs(old) {
        errors.forbidden(
            "spec.podCIDRs",
            "node updates may not change podCIDR except from \"\" to valid",
        );
    }
}

fn keys<'a>(keys: impl Iterator<Item = &'a str>, field: &str, errors: &mut FieldErrors) {
    for key in keys {
        let legal = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if key.is_empty() || key.len() > 253 || key == "." || key == ".." || !key.chars().all(legal)
        {
            errors.invalid(
                format!("{field}[{key}]"),
                key,
                "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or \
                 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
            );
        }
    }
}
