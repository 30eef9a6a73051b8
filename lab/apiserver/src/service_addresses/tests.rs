//! Families, addresses and node ports of Services, as tables.

use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use super::{assign, release};
use crate::allocate::{Addresses, Family};

fn pools(families: &[Family]) -> Addresses {
    let v4 = "10.96.0.0/16".parse().expect("a network");
    let v6 = "fd00:10:96::/112".parse().expect("a network");
    Addresses::new(Some(v4), Some(v6), families.to_vec())
}

const DUAL: &[Family] = &[Family::Ipv4, Family::Ipv6];

fn service(spec: Value) -> Service {
    serde_json::from_value(
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": {}, "spec": spec }),
    )
    .expect("a Service")
}

/// Policy, families and addresses of a new Service, or the first complaint.
fn assigned(families: &[Family], spec: Value) -> Result<String, String> {
    let mut service = service(spec);
    let errors = assign(&mut pools(families), &mut service, None);
    if let Some(error) = errors.0.first() {
        return Err(error.to_string());
    }
    let spec = service.spec.expect("there is a spec");
    let list = |list: Option<Vec<String>>| list.unwrap_or_default().join(",");
    let policy = spec.ip_family_policy.unwrap_or_default();
    Ok(format!(
        "{policy} {} {}",
        list(spec.ip_families),
        list(spec.cluster_ips)
    ))
}

#[test]
fn families_and_addresses() {
    let v4 = &[Family::Ipv4][..];
    let v6_first = &[Family::Ipv6, Family::Ipv4][..];
    let selector = json!({ "a": "b" });
    for (families, spec, expected) in [
        (DUAL, json!({}), "SingleStack IPv4 10.96.1.1"),
        (v6_first, json!({}), "SingleStack IPv6 fd00:10:96::101"),
        (
            DUAL,
            json!({ "ipFamilyPolicy": "PreferDualStack" }),
            "PreferDualStack IPv4,IPv6 10.96.1.1,fd00:10:96::101",
        ),
        (
            v4,
            json!({ "ipFamilyPolicy": "PreferDualStack" }),
            "PreferDualStack IPv4 10.96.1.1",
        ),
        (
            DUAL,
            json!({ "ipFamilies": ["IPv6"] }),
            "SingleStack IPv6 fd00:10:96::101",
        ),
        (
            DUAL,
            json!({ "ipFamilies": ["IPv4", "IPv6"] }),
            "RequireDualStack IPv4,IPv6 10.96.1.1,fd00:10:96::101",
        ),
        (
            DUAL,
            json!({ "clusterIP": "fd00:10:96::a" }),
            "SingleStack IPv6 fd00:10:96::a",
        ),
        (
            DUAL,
            json!({ "clusterIPs": ["10.96.0.10", "fd00:10:96::a"], "clusterIP": "10.96.0.10" }),
            "RequireDualStack IPv4,IPv6 10.96.0.10,fd00:10:96::a",
        ),
        (
            DUAL,
            json!({ "clusterIP": "None", "selector": selector }),
            "SingleStack IPv4 None",
        ),
        (
            DUAL,
            json!({ "clusterIP": "None" }),
            "RequireDualStack IPv4,IPv6 None",
        ),
        (DUAL, json!({ "type": "ExternalName" }), "  "),
    ] {
        assert_eq!(assigned(families, spec).as_deref(), Ok(expected));
    }
}

#[test]
fn refusals() {
    for (families, spec, expected) in [
        (
            &[Family::Ipv4][..],
            json!({ "ipFamilyPolicy": "RequireDualStack" }),
            "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services",
        ),
        (
            &[Family::Ipv4][..],
            json!({ "ipFamilies": ["IPv6"] }),
            "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster",
        ),
        (
            DUAL,
            json!({ "clusterIP": "10.1.1.1" }),
            "spec.clusterIPs: Invalid value: [\"10.1.1.1\"]: failed to allocate IP 10.1.1.1: the provided IP (10.1.1.1) \
             is not in the valid range. The range of valid IPs is 10.96.0.0/16",
        ),
        (
            DUAL,
            json!({ "type": "NodePort", "ports": [{ "port": 80, "nodePort": 80 }] }),
            "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid \
             ports is 30000-32767",
        ),
    ] {
        assert_eq!(assigned(families, spec), Err(expected.to_owned()));
    }
}

#[test]
fn a_refused_service_holds_nothing() {
    let mut pools = pools(DUAL);
    let spec = json!({ "clusterIP": "10.96.0.5", "type": "NodePort", "ports": [{ "port": 1, "nodePort": 1 }] });
    assert!(!assign(&mut pools, &mut service(spec), None).is_empty());
    assert!(
        assign(
            &mut pools,
            &mut service(json!({ "clusterIP": "10.96.0.5" })),
            None
        )
        .is_empty()
    );
}

#[test]
fn an_update_keeps_and_extends_and_a_delete_gives_back() {
    let mut pools = pools(DUAL);
    let ports = json!([{ "port": 80, "protocol": "TCP" }]);
    let mut old = service(json!({ "type": "NodePort", "ports": ports }));
    assert!(assign(&mut pools, &mut old, None).is_empty());
    let mut new =
        service(json!({ "type": "NodePort", "ports": ports, "ipFamilyPolicy": "PreferDualStack" }));
    assert!(assign(&mut pools, &mut new, Some(&old)).is_empty());
    let spec = new.spec.clone().expect("there is a spec");
    assert_eq!(
        spec.cluster_ips.as_deref(),
        Some(&["10.96.1.1".to_owned(), "fd00:10:96::101".to_owned()][..])
    );
    assert_eq!(spec.ports.expect("ports")[0].node_port, Some(30086));
    release(&mut pools, &new);
    let mut next = service(json!({ "clusterIP": "10.96.1.1" }));
    assert!(assign(&mut pools, &mut next, None).is_empty());
}

#[test]
fn one_node_port_may_serve_two_protocols() {
    let spec = json!({ "type": "NodePort", "ports": [
        { "name": "a", "port": 53, "protocol": "UDP", "nodePort": 30053 },
        { "name": "b", "port": 53, "protocol": "TCP", "nodePort": 30053 },
    ] });
    assert!(assigned(DUAL, spec).is_ok());
}

#[test]
fn a_load_balancer_has_node_ports_unless_it_wants_none() {
    let ports = json!([{ "port": 80 }, { "name": "own", "port": 81, "nodePort": 30081 }]);
    for (wish, expected) in [
        (json!({}), [true, true]),
        (
            json!({ "allocateLoadBalancerNodePorts": false }),
            [false, true],
        ),
    ] {
        let mut spec = json!({ "type": "LoadBalancer", "ports": ports });
        let more = wish.as_object().cloned().unwrap_or_default();
        spec.as_object_mut().expect("a spec").extend(more);
        let mut service = service(spec);
        assert!(assign(&mut pools(DUAL), &mut service, None).is_empty());
        let ports = service.spec.and_then(|spec| spec.ports).expect("ports");
        let found = ports.iter().map(|port| port.node_port.is_some());
        assert_eq!(found.collect::<Vec<_>>(), expected, "{wish}");
    }
}
