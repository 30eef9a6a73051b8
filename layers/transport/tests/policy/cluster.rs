//! ClusterNetworkPolicy as its documentation says it, for one packet: the part of [`crate::reference`] that is about the tiers
//! before and behind NetworkPolicies, from the objects as they are written.
//!
//! Sentences in quotation marks are from `kubectl explain clusternetworkpolicy` (network-policy-api 0.2).

use std::net::IpAddr;

use serde_json::Value;

use crate::random::NODES;
use crate::reference::{Objects, Question, Somebody, holds, somebody_at, team_of};

/// What a tier decides; `None` if it leaves that to the next one.
pub fn decides(
    objects: &Objects,
    asked: Question<'_>,
    direction: &str,
    tier: &str,
    subject: &Somebody<'_>,
) -> Option<bool> {
    let mut policies: Vec<(u64, &str, &Value)> = objects
        .cluster
        .iter()
        .map(|policy| (&policy.spec, policy.metadata.name.as_deref()))
        .map(|(spec, name)| {
            (
                spec["priority"].as_u64().expect("a priority"),
                name.expect("a name"),
                spec,
            )
        })
        .filter(|(_, _, spec)| spec["tier"] == tier && selects(objects, &spec["subject"], subject))
        .collect();
    // "Policies with lower priority values have higher precedence", and of the same priority the first by name here.
    policies.sort_by_key(|(priority, name, _)| (*priority, *name));
    let rules = policies
        .iter()
        .flat_map(|(_, _, spec)| list(&spec[direction.to_lowercase()]));
    for rule in rules {
        if matches(objects, asked, direction, rule) {
            return match rule["action"].as_str() {
                Some("Accept") => Some(true),
                Some("Deny") => Some(false),
                // "Skips all further ClusterNetworkPolicy rules in the current tier".
                Some("Pass") => None,
                other => panic!("action {other:?}"),
            };
        }
    }
    None
}

/// Whether a node itself takes a packet, by the description of NodeNetworkPolicy: "what a node needs to be one passes whatever
/// policies say: answers, ICMP, DHCP, other nodes, the kubelet and the API server".
pub fn node_takes(objects: &Objects, asked: Question<'_>, node: usize) -> bool {
    let of_node = |own: &&str| own.parse() == Ok(asked.from);
    if asked.protocol == "ICMP" || NODES.iter().flatten().any(of_node) {
        return true;
    }
    let labels = &objects.nodes[node];
    let mut policies: Vec<(u64, &str, &Value)> = objects
        .of_nodes
        .iter()
        .map(|policy| (&policy.spec, policy.metadata.name.as_deref()))
        .filter(|(spec, _)| holds(&selector(&spec["nodeSelector"]), labels))
        .map(|(spec, name)| {
            let priority = spec["priority"].as_u64().expect("a priority");
            (priority, name.expect("a name"), spec)
        })
        .collect();
    policies.sort_by_key(|(priority, name, _)| (*priority, *name));
    let mut rules = policies
        .iter()
        .flat_map(|(_, _, spec)| list(&spec["ingress"]));
    // "The first rule that matches decides; what none matches passes."
    let decides = rules.find(|rule| matches(objects, asked, "Ingress", rule));
    decides.is_none_or(|rule| rule["action"] == "Accept")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn matches(objects: &Objects, asked: Question<'_>, direction: &str, rule: &Value) -> bool {
    let (peers, other) = match direction {
        "Egress" => (&rule["to"], asked.to),
        _ => (&rule["from"], asked.from),
    };
    // "If any element matches […] then the specified action is applied."
    list(peers).iter().any(|peer| means(objects, peer, other))
        // "If unspecified, protocol-specific attributes will not be used to match traffic."
        && (rule["protocols"].is_null()
            || list(&rule["protocols"]).iter().any(|one| is_at(objects, asked, one)))
}

/// A subject selects, and a peer means, pods by their namespaces alone or by both.
fn selects(objects: &Objects, value: &Value, somebody: &Somebody<'_>) -> bool {
    let team = team_of(objects, somebody.namespace);
    let pods = &value["pods"];
    match value.get("namespaces") {
        Some(namespaces) => holds(&selector(namespaces), &team),
        None => {
            // "If empty, it selects all Namespaces."
            holds(&selector(&pods["namespaceSelector"]), &team)
                && holds(&selector(&pods["podSelector"]), &somebody.labels)
        }
    }
}

fn selector(value: &Value) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector {
    match value {
        Value::Null => Default::default(),
        value => serde_json::from_value(value.clone()).expect("a selector"),
    }
}

fn means(objects: &Objects, peer: &Value, address: IpAddr) -> bool {
    if let Some(networks) = peer.get("networks") {
        let within = |net: &Value| {
            let net: ipnet::IpNet = net
                .as_str()
                .and_then(|text| text.parse().ok())
                .expect("a CIDR");
            net.contains(&address)
        };
        return list(networks).iter().any(within);
    }
    if let Some(nodes) = peer.get("nodes") {
        // "matching on the IPs present in the node.Status.Addresses field of the node"
        let mut all = NODES.iter().zip(&objects.nodes);
        return all.any(|(own, labels)| {
            own.iter().any(|own| own.parse() == Ok(address)) && holds(&selector(nodes), labels)
        });
    }
    somebody_at(objects, address).is_some_and(|somebody| selects(objects, peer, &somebody))
}

fn is_at(objects: &Objects, asked: Question<'_>, one: &Value) -> bool {
    if let Some(name) = one["destinationNamedPort"].as_str() {
        let Some(receiver) = somebody_at(objects, asked.to) else {
            return false;
        };
        let mut ports = receiver.ports.iter();
        return ports.any(|(called, protocol, number)| {
            called == name && protocol == asked.protocol && *number == asked.port
        });
    }
    let port = &one[asked.protocol.to_lowercase()]["destinationPort"];
    let number = |value: &Value| {
        value
            .as_i64()
            .map(|number| i32::try_from(number).expect("a port"))
    };
    match number(&port["number"]) {
        Some(number) => number == asked.port,
        None => {
            let [start, end] = ["start", "end"].map(|end| number(&port["range"][end]));
            start
                .zip(end)
                .is_some_and(|(start, end)| (start..=end).contains(&asked.port))
        }
    }
}
