//! How a Service wants its traffic: from outside, by policy, with affinity, by distance.

use k8s_openapi::api::core::v1 as core;
use parfait_packet::Origin;

use super::{addresses, list, port};
use crate::{Distribution, Note, Outside, TrafficPolicy};

/// The API's default, three hours.
const AFFINITY_SECONDS: i32 = 10_800;

pub(super) fn outside(
    spec: &core::ServiceSpec,
    status: Option<&core::ServiceStatus>,
    origin: &Origin,
    notes: &mut Vec<Note>,
) -> Outside {
    let at = |field: &str| origin.clone().field(field);
    let load_balancer = spec.type_.as_deref() == Some("LoadBalancer");
    let ingress = status.and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    let arriving = ingress
        .into_iter()
        .flatten()
        .filter(|point| load_balancer && point.ip_mode.as_deref() != Some("Proxy"))
        .filter_map(|point| point.ip.clone());
    let health_check = spec.health_check_node_port.filter(|number| *number != 0);
    let health_check =
        health_check.and_then(|number| port(number, &at("spec.healthCheckNodePort"), notes));
    let ranges = spec
        .load_balancer_source_ranges
        .as_deref()
        .unwrap_or_default();
    Outside {
        external_ips: addresses(
            spec.external_ips.iter().flatten(),
            &at("spec.externalIPs"),
            notes,
        ),
        load_balancer_ips: addresses(arriving, &at("status.loadBalancer.ingress"), notes),
        source_ranges: (!ranges.is_empty()).then(|| {
            let ranges = ranges.iter().map(|range| range.trim());
            list(
                ranges,
                "a CIDR",
                &at("spec.loadBalancerSourceRanges"),
                notes,
            )
        }),
        load_balancer: None,
        policy: policy(
            spec.external_traffic_policy.as_deref(),
            &at("spec.externalTrafficPolicy"),
            notes,
        ),
        health_check_node_port: health_check,
    }
}

pub(super) fn policy(text: Option<&str>, field: &Origin, notes: &mut Vec<Note>) -> TrafficPolicy {
    match text {
        None | Some("" | "Cluster") => TrafficPolicy::Cluster,
        Some("Local") => TrafficPolicy::Local,
        Some(other) => {
            let message = format!("{other:?} is neither Cluster nor Local; Cluster is assumed");
            notes.push(Note::new(field.clone(), message));
            TrafficPolicy::Cluster
        }
    }
}

pub(super) fn affinity(
    spec: &core::ServiceSpec,
    origin: &Origin,
    notes: &mut Vec<Note>,
) -> Option<u32> {
    let field = origin.clone().field("spec.sessionAffinity");
    match spec.session_affinity.as_deref() {
        None | Some("" | "None") => return None,
        Some("ClientIP") => {}
        Some(other) => {
            let message = format!("{other:?} is neither None nor ClientIP; None is assumed");
            notes.push(Note::new(field, message));
            return None;
        }
    }
    let config = spec.session_affinity_config.as_ref();
    let given = config.and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
    let seconds = given.unwrap_or(AFFINITY_SECONDS);
    match u32::try_from(seconds)
        .ok()
        .filter(|seconds| (1..=86_400).contains(seconds))
    {
        Some(seconds) => Some(seconds),
        None => {
            let message = format!("{seconds} s is not 1 to 86400; {AFFINITY_SECONDS} s is assumed");
            let field = origin
                .clone()
                .field("spec.sessionAffinityConfig.clientIP.timeoutSeconds");
            notes.push(Note::new(field, message));
            u32::try_from(AFFINITY_SECONDS).ok()
        }
    }
}

pub(super) fn distribution(
    spec: &core::ServiceSpec,
    origin: &Origin,
    notes: &mut Vec<Note>,
) -> Distribution {
    match spec.traffic_distribution.as_deref() {
        None | Some("") => Distribution::Even,
        Some("PreferSameZone" | "PreferClose") => Distribution::SameZone,
        Some("PreferSameNode") => Distribution::SameNode,
        Some(other) => {
            let message = format!(
                "{other:?} is not known (PreferSameZone, PreferSameNode); all endpoints are used alike"
            );
            notes.push(Note::new(
                origin.clone().field("spec.trafficDistribution"),
                message,
            ));
            Distribution::Even
        }
    }
}
