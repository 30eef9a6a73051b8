//! Topology hints: who should use an endpoint, after the Service's `trafficDistribution` (KEP-4444 and
//! KEP-3015).
//!
//! A ready endpoint is hinted for its own zone and, with `PreferSameNode`, for its own node as well, so
//! that a proxy which knows no nodes' hints still keeps to the zone. Whether hints are heeded is the
//! node's decision. Left out: the older annotation `service.kubernetes.io/topology-mode: Auto`, which
//! shares endpoints out by the zones' CPUs.

use k8s_openapi::api::core::v1::ServiceSpec;
use k8s_openapi::api::discovery::v1::{EndpointHints, ForNode, ForZone};

/// The hints of a ready endpoint, if its Service asks for any.
pub fn hints(spec: &ServiceSpec, node: Option<&str>, zone: Option<&str>) -> Option<EndpointHints> {
    let nodes = match spec.traffic_distribution.as_deref()? {
        "PreferClose" | "PreferSameZone" => None,
        "PreferSameNode" => node.map(|name| {
            vec![ForNode {
                name: name.to_owned(),
            }]
        }),
        _ => return None,
    };
    let zones = zone.map(|name| {
        vec![ForZone {
            name: name.to_owned(),
        }]
    });
    (nodes.is_some() || zones.is_some()).then_some(EndpointHints {
        for_nodes: nodes,
        for_zones: zones,
    })
}
