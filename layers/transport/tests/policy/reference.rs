//! NetworkPolicy as its documentation says it, for one packet: a second reading of the API, from its own objects, which
//! knows nothing of how Parfait parses, plans and programs it.
//!
//! Sentences in quotation marks are from the API's documentation (`kubectl explain networkpolicy`, and "Network
//! Policies" on kubernetes.io).

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use parfait_cluster::{RawClusterNetworkPolicy, RawNodeNetworkPolicy};

use crate::cluster;
use crate::random::NODES;

/// The objects of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    pub namespaces: Vec<Namespace>,
    pub pods: Vec<Pod>,
    pub services: Vec<Service>,
    pub policies: Vec<NetworkPolicy>,
    pub cluster: Vec<RawClusterNetworkPolicy>,
    pub of_nodes: Vec<RawNodeNetworkPolicy>,
    /// The labels of the nodes.
    pub nodes: Vec<Labels>,
}

/// A packet, as the API knows it.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub from: IpAddr,
    pub to: IpAddr,
    /// `TCP`, `UDP`, `SCTP`, or what has no ports.
    pub protocol: &'a str,
    pub port: i32,
}

/// Somebody whom a selector can mean.
pub struct Somebody<'a> {
    pub namespace: &'a str,
    pub labels: Labels,
    /// Name, protocol and number.
    pub ports: Vec<(String, String, i32)>,
}

pub type Labels = BTreeMap<String, String>;

/// The peers and ports of a rule.
type Rule<'a> = (
    Option<&'a Vec<NetworkPolicyPeer>>,
    Option<&'a Vec<NetworkPolicyPort>>,
);

/// Whether policies let the packet out of where it comes from.
pub fn lets_out(objects: &Objects, asked: Question<'_>) -> bool {
    decide(objects, asked, "Egress")
}

/// Whether policies let the packet in to where it goes.
pub fn lets_in(objects: &Objects, asked: Question<'_>) -> bool {
    decide(objects, asked, "Ingress")
}

fn decide(objects: &Objects, asked: Question<'_>, direction: &str) -> bool {
    // "A pod cannot block access to itself."
    if asked.from == asked.to {
        return true;
    }
    let (own, other) = match direction {
        "Egress" => (asked.from, asked.to),
        _ => (asked.to, asked.from),
    };
    let Some(pod) = pod_at(objects, own) else {
        return true;
    };
    let subject = somebody_at(objects, own).expect("a pod");
    let tier = |tier| cluster::decides(objects, asked, direction, tier, &subject);
    // "If Admin tier has made a final decision (Accept or Deny) on a connection, then no further evaluation is done."
    if let Some(decided) = tier("Admin") {
        return decided;
    }
    let policies = objects.policies.iter();
    let isolating: Vec<_> = policies
        .filter(|policy| selects(policy, pod) && has_type(policy, direction))
        .collect();
    // "By default, a pod is non-isolated; all connections are allowed." But: "Baseline tier is a cluster-wide policy that
    // can be overridden by the v1.NetworkPolicy."
    if isolating.is_empty() {
        return tier("Baseline").unwrap_or(true);
    }
    // A pod always reaches its own node, as far as NetworkPolicies are concerned.
    if is_own_node(pod, other) && direction == "Egress" {
        return true;
    }
    // "Network policies do not conflict; they are additive."
    isolating.into_iter().any(|policy| {
        let namespace = policy.metadata.namespace.as_deref().unwrap_or("default");
        let spec = policy.spec.as_ref().expect("a spec");
        let mut rules: Vec<Rule<'_>> = Vec::new();
        match direction {
            "Egress" => {
                let egress = spec.egress.iter().flatten();
                rules.extend(egress.map(|rule| (rule.to.as_ref(), rule.ports.as_ref())));
            }
            _ => {
                let ingress = spec.ingress.iter().flatten();
                rules.extend(ingress.map(|rule| (rule.from.as_ref(), rule.ports.as_ref())));
            }
        }
        let receiver = somebody_at(objects, asked.to);
        rules.into_iter().any(|(peers, ports)| {
            // "If this field is empty or missing, this rule matches all sources."
            let peers = peers.filter(|peers| !peers.is_empty());
            let ports = ports.filter(|ports| !ports.is_empty());
            let by_name = |peer: Option<&NetworkPolicyPeer>| {
                ports.is_none_or(|ports| {
                    ports.iter().any(|port| {
                        // An address behind an ipBlock has no names of its own.
                        let nameless = direction == "Egress"
                            && peer.is_some_and(|peer| peer.ip_block.is_some());
                        is_at(port, asked, receiver.as_ref().filter(|_| !nameless))
                    })
                })
            };
            match peers {
                None => by_name(None),
                Some(peers) => peers
                    .iter()
                    .any(|peer| means(objects, namespace, peer, other) && by_name(Some(peer))),
            }
        })
    })
}

/// Whether an address is that of the node that a pod is on.
pub fn is_own_node(pod: &Pod, address: IpAddr) -> bool {
    let name = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    let mut nodes = NODES.iter().zip(["node-1", "node-2"]);
    nodes.any(|(own, node)| name == Some(node) && own.iter().any(|own| own.parse() == Ok(address)))
}

/// The labels of a namespace.
pub fn team_of(objects: &Objects, name: &str) -> Labels {
    let mut namespaces = objects.namespaces.iter();
    let found = namespaces.find(|namespace| namespace.metadata.name.as_deref() == Some(name));
    let labels = found.and_then(|namespace| namespace.metadata.labels.clone());
    labels.unwrap_or_default()
}

pub fn pod_at(objects: &Objects, address: IpAddr) -> Option<&Pod> {
    objects.pods.iter().find(|pod| {
        let status = pod.status.as_ref().expect("a status");
        let over = ["Succeeded", "Failed"].contains(&status.phase.as_deref().unwrap_or_default());
        let host = pod.spec.as_ref().and_then(|spec| spec.host_network);
        let mut ips = status.pod_ips.iter().flatten();
        !over && host != Some(true) && ips.any(|ip| ip.ip.parse() == Ok(address))
    })
}

pub fn somebody_at(objects: &Objects, address: IpAddr) -> Option<Somebody<'_>> {
    if let Some(pod) = pod_at(objects, address) {
        let containers = &pod.spec.as_ref().expect("a spec").containers;
        let ports = containers.iter().flat_map(|c| c.ports.iter().flatten());
        let port = |port: &k8s_openapi::api::core::v1::ContainerPort| {
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            Some((port.name.clone()?, protocol, port.container_port))
        };
        return Some(Somebody {
            namespace: pod.metadata.namespace.as_deref().unwrap_or("default"),
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            ports: ports.filter_map(port).collect(),
        });
    }
    // Cluster DNS, which has no pods here, answers as if it had those that its Service would select.
    let service = objects.services.iter().find(|service| {
        let ips = service
            .spec
            .as_ref()
            .and_then(|spec| spec.cluster_ips.as_ref());
        ips.into_iter()
            .flatten()
            .any(|ip| ip.parse() == Ok(address))
    })?;
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    let port = |port: &k8s_openapi::api::core::v1::ServicePort| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        Some((port.name.clone()?, protocol, port.port))
    };
    Some(Somebody {
        namespace: service.metadata.namespace.as_deref().unwrap_or("default"),
        labels: service.metadata.labels.clone().unwrap_or_default(),
        ports: ports.into_iter().flatten().filter_map(port).collect(),
    })
}

fn selects(policy: &NetworkPolicy, pod: &Pod) -> bool {
    let spec = policy.spec.as_ref().expect("a spec");
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    policy.metadata.namespace == pod.metadata.namespace
        && spec
            .pod_selector
            .as_ref()
            .is_none_or(|selector| holds(selector, &labels))
}

/// "If this field is not specified, it will default based on the existence of ingress or egress rules; policies that
/// contain an egress section are assumed to affect egress, and all policies […] are assumed to affect ingress."
fn has_type(policy: &NetworkPolicy, direction: &str) -> bool {
    let spec = policy.spec.as_ref().expect("a spec");
    match spec.policy_types.as_deref() {
        None | Some([]) => {
            direction == "Ingress" || spec.egress.as_ref().is_some_and(|rules| !rules.is_empty())
        }
        Some(types) => types.iter().any(|kind| kind == direction),
    }
}

fn means(objects: &Objects, own: &str, peer: &NetworkPolicyPeer, address: IpAddr) -> bool {
    if let Some(block) = &peer.ip_block {
        return is_in(block, address);
    }
    let Some(somebody) = somebody_at(objects, address) else {
        return false;
    };
    let namespace = match &peer.namespace_selector {
        // "Otherwise it selects the pods matching podSelector in the policy's own namespace."
        None => somebody.namespace == own,
        Some(selector) => objects.namespaces.iter().any(|namespace| {
            let labels = namespace.metadata.labels.clone().unwrap_or_default();
            namespace.metadata.name.as_deref() == Some(somebody.namespace)
                && holds(selector, &labels)
        }),
    };
    let pods = peer.pod_selector.as_ref();
    namespace && pods.is_none_or(|selector| holds(selector, &somebody.labels))
}

fn is_in(block: &IPBlock, address: IpAddr) -> bool {
    let within = |text: &String| {
        text.parse::<ipnet::IpNet>()
            .expect("a CIDR")
            .contains(&address)
    };
    within(&block.cidr) && !block.except.iter().flatten().any(within)
}

fn is_at(port: &NetworkPolicyPort, asked: Question<'_>, receiver: Option<&Somebody<'_>>) -> bool {
    if port.protocol.as_deref().unwrap_or("TCP") != asked.protocol {
        return false;
    }
    match &port.port {
        // "If this field is not provided, this matches all port names and numbers."
        None => true,
        Some(IntOrString::Int(first)) => {
            let last = port.end_port.unwrap_or(*first);
            *first <= asked.port && asked.port <= last
        }
        Some(IntOrString::String(wanted)) => receiver.is_some_and(|receiver| {
            let mut ports = receiver.ports.iter();
            ports.any(|(name, protocol, number)| {
                name == wanted && protocol == asked.protocol && *number == asked.port
            })
        }),
    }
}

pub fn holds(selector: &LabelSelector, labels: &Labels) -> bool {
    let mut equal = selector.match_labels.iter().flatten();
    let mut others = selector.match_expressions.iter().flatten();
    equal.all(|(key, value)| labels.get(key) == Some(value))
        && others.all(|other| {
            let found = labels.get(&other.key);
            let listed = |value: &String| other.values.iter().flatten().any(|v| v == value);
            match other.operator.as_str() {
                "In" => found.is_some_and(listed),
                "NotIn" => !found.is_some_and(listed),
                "Exists" => found.is_some(),
                "DoesNotExist" => found.is_none(),
                other => panic!("operator {other}"),
            }
        })
}
