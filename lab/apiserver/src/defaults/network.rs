//! Defaults of Services, EndpointSlices and NetworkPolicies. A Service's families and addresses come later, from
//! [`crate::service_addresses`].

use k8s_openapi::api::core::v1::{ClientIPConfig, Service, ServiceSpec, SessionAffinityConfig};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{or, or_text};

/// Service.
pub fn service(object: &mut Service) {
    let Some(spec) = object.spec.as_mut() else {
        return;
    };
    or_text(&mut spec.type_, "ClusterIP");
    or_text(&mut spec.session_affinity, "None");
    if spec.session_affinity.as_deref() == Some("ClientIP") {
        let client = spec
            .session_affinity_config
            .get_or_insert_with(SessionAffinityConfig::default);
        or(
            &mut client
                .client_ip
                .get_or_insert_with(ClientIPConfig::default)
                .timeout_seconds,
            10_800,
        );
    } else {
        spec.session_affinity_config = None;
    }
    let headless = spec.cluster_ip.as_deref() == Some("None");
    for port in spec.ports.iter_mut().flatten() {
        or_text(&mut port.protocol, "TCP");
        let unset = match &port.target_port {
            None => true,
            Some(IntOrString::Int(number)) => *number == 0,
            Some(IntOrString::String(name)) => name.is_empty(),
        };
        if unset || (headless && port.target_port.is_none()) {
            port.target_port = Some(IntOrString::Int(port.port));
        }
    }
    let kind = spec.type_.clone().unwrap_or_default();
    if kind != "ExternalName" {
        or_text(&mut spec.internal_traffic_policy, "Cluster");
    }
    let external_ips = spec
        .external_ips
        .as_ref()
        .is_some_and(|ips| !ips.is_empty());
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer") || (kind == "ClusterIP" && external_ips)
    {
        or_text(&mut spec.external_traffic_policy, "Cluster");
    }
    if kind == "LoadBalancer" {
        or(&mut spec.allocate_load_balancer_node_ports, true);
    }
}

/// A Service of another type than before: what belonged to the old type goes, unless the client changed it
/// (`dropTypeDependentFields`). So `kubectl apply` can turn a NodePort Service into a ClusterIP one.
pub fn service_type_changed(object: &mut Service, old: &Service) {
    let (Some(new), Some(old)) = (object.spec.as_mut(), old.spec.as_ref()) else {
        return;
    };
    let is = |spec: &ServiceSpec, types: &[&str]| {
        types.contains(&spec.type_.as_deref().unwrap_or("ClusterIP"))
    };
    let leaves = |types: &[&str]| is(old, types) && !is(new, types);
    let external = !is(old, &["ExternalName"]) && is(new, &["ExternalName"]);
    let (node_ports, balancer) = (
        leaves(&["NodePort", "LoadBalancer"]),
        leaves(&["LoadBalancer"]),
    );
    if external && new.cluster_ip == old.cluster_ip {
        new.cluster_ip = None;
        new.cluster_ips = None;
        new.ip_families = None;
        new.ip_family_policy = None;
        new.internal_traffic_policy = None;
    }
    if node_ports {
        let held: Vec<i32> = old
            .ports
            .iter()
            .flatten()
            .filter_map(|p| p.node_port)
            .collect();
        for port in new.ports.iter_mut().flatten() {
            port.node_port = port.node_port.filter(|number| !held.contains(number));
        }
        new.external_traffic_policy = new
            .external_traffic_policy
            .take()
            .filter(|p| Some(p) != old.external_traffic_policy.as_ref());
    }
    if balancer {
        new.health_check_node_port = None;
        new.load_balancer_class = new
            .load_balancer_class
            .take()
            .filter(|c| Some(c) != old.load_balancer_class.as_ref());
        if new.allocate_load_balancer_node_ports == old.allocate_load_balancer_node_ports {
            new.allocate_load_balancer_node_ports = None;
        }
    }
}

/// EndpointSlice.
pub fn endpoint_slice(object: &mut EndpointSlice) {
    for port in object.ports.iter_mut().flatten() {
        or(&mut port.name, String::new());
        or_text(&mut port.protocol, "TCP");
    }
}

/// NetworkPolicy: it isolates ingress always, egress when it has egress rules.
pub fn network_policy(object: &mut NetworkPolicy) {
    let Some(spec) = object.spec.as_mut() else {
        return;
    };
    for rule in spec.ingress.iter_mut().flatten() {
        rule.ports
            .iter_mut()
            .flatten()
            .for_each(|p| or_text(&mut p.protocol, "TCP"));
    }
    for rule in spec.egress.iter_mut().flatten() {
        rule.ports
            .iter_mut()
            .flatten()
            .for_each(|p| or_text(&mut p.protocol, "TCP"));
    }
    if spec.policy_types.as_ref().is_none_or(Vec::is_empty) {
        let mut types = vec!["Ingress".to_owned()];
        if spec.egress.as_ref().is_some_and(|e| !e.is_empty()) {
            types.push("Egress".to_owned());
        }
        spec.policy_types = Some(types);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn defaulted(spec: Value) -> Value {
        let value = json!({ "apiVersion": "v1", "kind": "Service", "metadata": {}, "spec": spec });
        let mut object: Service = serde_json::from_value(value).expect("a Service");
        service(&mut object);
        serde_json::to_value(object).expect("it prints")["spec"].clone()
    }

    #[test]
    fn services() {
        assert_eq!(
            defaulted(json!({ "ports": [{ "port": 80 }] })),
            json!({
                "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
                "ports": [{ "port": 80, "protocol": "TCP", "targetPort": 80 }],
            })
        );
        let sticky = defaulted(json!({ "sessionAffinity": "ClientIP", "type": "NodePort" }));
        assert_eq!(
            sticky["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"],
            10_800
        );
        assert_eq!(sticky["externalTrafficPolicy"], "Cluster");
    }

    #[test]
    fn network_policies() {
        let types = |spec: Value| {
            let value = json!({ "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {}, "spec": spec });
            let mut object: NetworkPolicy = serde_json::from_value(value).expect("a NetworkPolicy");
            network_policy(&mut object);
            object
                .spec
                .and_then(|s| s.policy_types)
                .unwrap_or_default()
                .join(",")
        };
        assert_eq!(types(json!({ "podSelector": {} })), "Ingress");
        assert_eq!(
            types(json!({ "podSelector": {}, "egress": [{}] })),
            "Ingress,Egress"
        );
        assert_eq!(
            types(json!({ "podSelector": {}, "policyTypes": ["Egress"] })),
            "Egress"
        );
    }
}
