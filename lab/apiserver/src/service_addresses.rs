//! Gives a Service its IP families, cluster addresses and node ports, and takes them back.
//!
//! This runs under the store's lock, after validation, so that two Services never get one address. The rules are
//! those of `pkg/registry/core/service/storage/alloc.go` (KEP-563 for dual stack): families follow from
//! `ipFamilyPolicy`, `ipFamilies` and explicit `clusterIPs` in that order; a headless Service has families and no
//! addresses; an ExternalName Service has neither.
//!
//! Left out: `IPAddress` objects for each address (MultiCIDRServiceAllocator); the API serves them, nobody fills them.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};

use crate::allocate::{Addresses, AllocateError, Family};
use crate::status::FieldErrors;

/// Fills in and takes what `service` needs, given what its predecessor already holds. On errors nothing is taken.
pub fn assign(pools: &mut Addresses, service: &mut Service, old: Option<&Service>) -> FieldErrors {
    let before = pools.clone();
    let mut errors = FieldErrors::default();
    if let Some(old) = old {
        // What the predecessor holds is free for its successor, and for nobody else: we hold the lock.
        release(pools, old);
    }
    let empty = ServiceSpec::default();
    let old_spec = old.and_then(|s| s.spec.as_ref()).unwrap_or(&empty);
    if let Some(spec) = service.spec.as_mut() {
        keep_allocated(spec, old_spec);
        if type_of(spec) == "ExternalName" {
            clear(spec);
        } else {
            let families = assign_families(pools, spec, old.is_some(), &mut errors);
            if errors.is_empty() && spec.cluster_ip.as_deref() != Some("None") {
                assign_cluster_ips(pools, spec, &families, &mut errors);
            }
        }
        if errors.is_empty() {
            assign_node_ports(pools, spec, &mut errors);
        }
    }
    if !errors.is_empty() {
        *pools = before;
    }
    errors
}

/// Gives back everything a Service holds.
pub fn release(pools: &mut Addresses, service: &Service) {
    let Some(spec) = &service.spec else { return };
    let addresses = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    for address in addresses.filter_map(|a| a.parse::<IpAddr>().ok()) {
        pools.release(address);
    }
    let ports = spec
        .ports
        .iter()
        .flatten()
        .filter_map(|p| p.node_port)
        .chain(spec.health_check_node_port);
    for port in ports.filter_map(|p| u16::try_from(p).ok()) {
        pools.release_port(port);
    }
}

fn type_of(spec: &ServiceSpec) -> &str {
    spec.type_.as_deref().unwrap_or("ClusterIP")
}

/// A client that leaves out allocated values on update keeps them (`patchAllocatedValues`).
fn keep_allocated(spec: &mut ServiceSpec, old: &ServiceSpec) {
    let is_set = |s: &Option<String>| s.as_deref().is_some_and(|s| !s.is_empty());
    let external = type_of(spec) == "ExternalName" || type_of(old) == "ExternalName";
    if !external && is_set(&old.cluster_ip) {
        if !is_set(&spec.cluster_ip) {
            spec.cluster_ip.clone_from(&old.cluster_ip);
        }
        if spec.cluster_ips.as_ref().is_none_or(Vec::is_empty) && spec.cluster_ip == old.cluster_ip
        {
            spec.cluster_ips.clone_from(&old.cluster_ips);
        }
        if spec.ip_family_policy.is_none() {
            spec.ip_family_policy.clone_from(&old.ip_family_policy);
            if spec.ip_families.as_ref().is_none_or(Vec::is_empty) {
                spec.ip_families.clone_from(&old.ip_families);
            }
        }
    }
    let has_node_ports = |t: &str| matches!(t, "NodePort" | "LoadBalancer");
    if has_node_ports(type_of(spec)) && has_node_ports(type_of(old)) {
        for port in spec
            .ports
            .iter_mut()
            .flatten()
            .filter(|p| p.node_port.is_none())
        {
            let same = |o: &&k8s_openapi::api::core::v1::ServicePort| {
                o.port == port.port && o.protocol == port.protocol && o.name == port.name
            };
            port.node_port = old
                .ports
                .iter()
                .flatten()
                .find(same)
                .and_then(|o| o.node_port);
        }
        if spec.health_check_node_port.is_none() {
            spec.health_check_node_port = old.health_check_node_port;
        }
    }
}

fn clear(spec: &mut ServiceSpec) {
    spec.cluster_ip = None;
    spec.cluster_ips = None;
    spec.ip_families = None;
    spec.ip_family_policy = None;
}

fn assign_families(
    pools: &Addresses,
    spec: &mut ServiceSpec,
    update: bool,
    errors: &mut FieldErrors,
) -> Vec<Family> {
    let given = |ip: &String| !ip.is_empty();
    if spec.cluster_ips.as_ref().is_none_or(Vec::is_empty)
        && let Some(ip) = spec.cluster_ip.clone().filter(given)
    {
        spec.cluster_ips = Some(vec![ip]);
    }
    let headless = spec.cluster_ip.as_deref() == Some("None");
    let anywhere = headless && spec.selector.as_ref().is_none_or(|s| s.is_empty());
    let policy = policy(spec, anywhere, update, errors);
    let single = policy == "SingleStack";
    let mut families = wanted_families(spec, single, update, errors);
    families.extend(pools.families().first().filter(|_| families.is_empty()));
    if !anywhere {
        // A headless Service without selector gets its endpoints from the user, of whatever family.
        check_configured(pools.families(), &families, &policy, errors);
    }
    if let (false, [one]) = (single, families.as_slice())
        && (pools.families().len() == 2 || anywhere)
    {
        families.push(one.other());
    }
    spec.ip_family_policy = Some(policy);
    spec.ip_families = Some(families.iter().map(|f| f.name().to_owned()).collect());
    if headless {
        spec.cluster_ips = Some(vec!["None".to_owned()]);
    }
    families
}

/// The policy asked for, or the one that what was asked for implies.
fn policy(spec: &ServiceSpec, anywhere: bool, update: bool, errors: &mut FieldErrors) -> String {
    let two = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|l| l.len() == 2);
    let asked_dual = two(&spec.cluster_ips) || two(&spec.ip_families);
    let implied = if anywhere || asked_dual {
        "RequireDualStack"
    } else {
        "SingleStack"
    };
    let policy = spec
        .ip_family_policy
        .clone()
        .unwrap_or_else(|| implied.to_owned());
    if policy == "SingleStack" && asked_dual && !update {
        errors.invalid(
            "spec.ipFamilyPolicy",
            policy.as_str(),
            "when multiple ipFamilies or clusterIPs are specified, ipFamilyPolicy must be PreferDualStack or \
             RequireDualStack",
        );
    }
    policy
}

/// The families named, completed by those of the explicit addresses.
fn wanted_families(
    spec: &mut ServiceSpec,
    single: bool,
    update: bool,
    errors: &mut FieldErrors,
) -> Vec<Family> {
    let named = spec.ip_families.iter().flatten();
    let mut families: Vec<Family> = named.filter_map(|f| Family::parse(f)).collect();
    if single && update {
        // Going down to a single stack drops the second family and its address.
        families.truncate(1);
        if let Some(ips) = spec.cluster_ips.as_mut() {
            ips.truncate(1);
        }
    }
    for (i, ip) in spec.cluster_ips.iter().flatten().enumerate() {
        let Ok(address) = ip.parse::<IpAddr>() else {
            continue;
        };
        match families.get(i) {
            None => families.push(Family::of(address)),
            Some(named) if *named != Family::of(address) => {
                let detail = format!(
                    "expected an {} value as indicated by `ipFamilies[{i}]`",
                    named.name()
                );
                errors.invalid(format!("spec.clusterIPs[{i}]"), ip.as_str(), detail);
            }
            Some(_) => {}
        }
    }
    families
}

fn check_configured(
    configured: &[Family],
    families: &[Family],
    policy: &str,
    errors: &mut FieldErrors,
) {
    for (i, family) in families.iter().enumerate() {
        if !configured.contains(family) {
            errors.invalid(
                format!("spec.ipFamilies[{i}]"),
                family.name(),
                "not configured on this cluster",
            );
        }
    }
    if policy == "RequireDualStack" && configured.len() < 2 {
        errors.invalid(
            "spec.ipFamilyPolicy",
            policy,
            "this cluster is not configured for dual-stack services",
        );
    }
}

fn assign_cluster_ips(
    pools: &mut Addresses,
    spec: &mut ServiceSpec,
    families: &[Family],
    errors: &mut FieldErrors,
) {
    let asked: Vec<String> = spec.cluster_ips.clone().unwrap_or_default();
    let mut given = Vec::new();
    // Explicit addresses first, so that a dynamic one never takes what the same Service asks for.
    for text in &asked {
        if let Ok(address) = text.parse::<IpAddr>() {
            match pools.take(address) {
                Ok(()) => given.push(address),
                Err(error) => errors.invalid("spec.clusterIPs", asked.clone(), error.to_string()),
            }
        }
    }
    for family in families.iter().skip(given.len()) {
        match pools.take_any(*family) {
            Ok(address) => given.push(address),
            Err(error) => errors.invalid("spec.clusterIPs", asked.clone(), error.to_string()),
        }
    }
    spec.cluster_ip = given.first().map(IpAddr::to_string);
    spec.cluster_ips = Some(given.iter().map(IpAddr::to_string).collect());
}

fn assign_node_ports(pools: &mut Addresses, spec: &mut ServiceSpec, errors: &mut FieldErrors) {
    let kind = type_of(spec).to_owned();
    let balanced = kind == "LoadBalancer";
    if kind != "NodePort" && !balanced {
        for port in spec.ports.iter_mut().flatten() {
            port.node_port = None;
        }
        spec.health_check_node_port = None;
        return;
    }
    let dynamic = !balanced || spec.allocate_load_balancer_node_ports != Some(false);
    // One number may serve several protocols of one Service.
    let mut held: Vec<(i32, Option<String>)> = Vec::new();
    for (i, port) in spec.ports.iter().flatten().enumerate() {
        let Some(number) = port.node_port.filter(|n| *n != 0) else {
            continue;
        };
        let shared = held
            .iter()
            .any(|(n, protocol)| *n == number && *protocol != port.protocol);
        held.push((number, port.protocol.clone()));
        if !shared && let Err(error) = take_port(pools, number) {
            errors.invalid(
                format!("spec.ports[{i}].nodePort"),
                number,
                error.to_string(),
            );
        }
    }
    for (i, port) in spec.ports.iter_mut().flatten().enumerate() {
        if dynamic && port.node_port.is_none_or(|n| n == 0) {
            match pools.take_any_port() {
                Ok(number) => port.node_port = Some(i32::from(number)),
                Err(error) => {
                    errors.invalid(format!("spec.ports[{i}].nodePort"), 0, error.to_string())
                }
            }
        }
    }
    let local = spec.external_traffic_policy.as_deref() == Some("Local");
    if !(balanced && local) {
        spec.health_check_node_port = None;
        return;
    }
    let result = match spec.health_check_node_port.filter(|n| *n != 0) {
        Some(number) => take_port(pools, number).map(|()| number),
        None => pools.take_any_port().map(i32::from),
    };
    match result {
        Ok(number) => spec.health_check_node_port = Some(number),
        Err(error) => {
            errors.invalid(
                "spec.healthCheckNodePort",
                spec.health_check_node_port.unwrap_or(0),
                error.to_string(),
            );
        }
    }
}

fn take_port(pools: &mut Addresses, number: i32) -> Result<(), AllocateError> {
    pools.take_port(u16::try_from(number).map_err(|_| AllocateError::PortOutOfRange)?)
}

#[cfg(test)]
mod tests;
