//! Random clusters with NetworkPolicies, as API objects of a small world in which much meets: two nodes, three
//! namespaces, few labels and few ports. Shrinks to fewer objects with fewer fields.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use crate::policies::{cluster_policy, node_policy, policy};
use crate::reference::Objects;

/// Most is in the first one.
pub const NAMESPACES: [&str; 5] = ["red", "red", "red", "blue", "kube-system"];
pub const DNS: [&str; 2] = ["10.96.0.10", "fd00:10:96::a"];
pub const OUTSIDE: [&str; 2] = ["192.0.2.7", "2001:db8::7"];
pub const NODES: [[&str; 2]; 2] = [
    ["192.168.77.11", "fd00:77::11"],
    ["192.168.77.12", "fd00:77::12"],
];
/// TCP most of the time, as everywhere.
pub const PROTOCOLS: [&str; 6] = ["TCP", "TCP", "TCP", "UDP", "SCTP", "ICMP"];

/// A cluster.
pub fn objects() -> impl Strategy<Value = Objects> {
    let namespaces = prop::collection::vec(labels("team", &["a", "b"]), 3);
    let pods = prop::collection::vec(pod(), 1..6);
    let policies = prop::collection::vec((select(&NAMESPACES[..]), policy()), 0..5);
    let cluster = prop::collection::vec(cluster_policy(), 0..4);
    let nodes = prop::collection::vec(labels("team", &["a", "b"]), 2);
    let own = prop::collection::vec(node_policy(), 0..3);
    let all = (namespaces, pods, policies, cluster, nodes, own);
    all.prop_map(|(namespaces, pods, policies, cluster, nodes, own)| {
        let namespaces = ["red", "blue", "kube-system"]
            .iter()
            .zip(namespaces)
            .map(|(name, labels)| typed(json!({"metadata": {"name": name, "labels": labels}})));
        let pods = pods.into_iter().enumerate();
        let policies = policies.into_iter().enumerate();
        let cluster = cluster.into_iter().enumerate();
        Objects {
            namespaces: namespaces.collect(),
            pods: pods.map(|(index, pod)| addressed(index, pod)).collect(),
            services: vec![typed(dns())],
            policies: policies
                .map(|(index, (namespace, spec))| {
                    let name = format!("policy-{index}");
                    let metadata = json!({"name": name, "namespace": namespace});
                    typed(json!({"metadata": metadata, "spec": spec}))
                })
                .collect(),
            cluster: cluster
                .map(|(index, spec)| {
                    let name = format!("cluster-{index}");
                    typed(json!({"metadata": {"name": name}, "spec": spec}))
                })
                .collect(),
            nodes: nodes.into_iter().map(typed).collect(),
            of_nodes: own
                .into_iter()
                .enumerate()
                .map(|(index, spec)| {
                    let name = format!("node-{index}");
                    typed(json!({"metadata": {"name": name}, "spec": spec}))
                })
                .collect(),
        }
    })
}

pub fn typed<T: k8s_openapi::serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an API object")
}

fn dns() -> Value {
    json!({
        "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {"app": "a"},
                     "annotations": {"parfait.dev/served-by": "node"}},
        "spec": {"clusterIP": DNS[0], "clusterIPs": DNS,
                 "ports": [{"name": "dns", "port": 53, "protocol": "UDP"},
                           {"name": "http", "port": 80, "protocol": "TCP"}]},
    })
}

fn labels(key: &'static str, values: &'static [&'static str]) -> impl Strategy<Value = Value> {
    prop::option::of(select(values)).prop_map(move |value| match value {
        Some(value) => json!({key: value}),
        None => json!({}),
    })
}

fn pod() -> impl Strategy<Value = Value> {
    let http = prop::option::weighted(0.8, select(&[80, 8080][..]));
    let dns = prop::option::of(Just(53));
    let life = prop_oneof![8 => Just("Running"), 1 => Just("Succeeded"), 1 => Just("host")];
    let app = labels("app", &["a", "b"]);
    let place = (select(&NAMESPACES[..]), 0_usize..2);
    (place, app, http, dns, life).prop_map(|((namespace, node), app, http, dns, life)| {
        let mut ports = Vec::new();
        ports.extend(http.map(|port| json!({"name": "http", "containerPort": port})));
        ports.extend(
            dns.map(|port| json!({"name": "dns", "containerPort": port, "protocol": "UDP"})),
        );
        json!({
            "metadata": {"namespace": namespace, "labels": app},
            "spec": {"nodeName": format!("node-{}", node + 1), "hostNetwork": life == "host",
                     "containers": [{"name": "main", "ports": ports}]},
            "status": {"phase": if life == "Succeeded" { life } else { "Running" }},
        })
    })
}

/// The third pod of node-1 is 10.244.1.4.
fn addressed<T: k8s_openapi::serde::de::DeserializeOwned>(index: usize, mut pod: Value) -> T {
    pod["metadata"]["name"] = json!(format!("pod-{index}"));
    let node = usize::from(pod["spec"]["nodeName"] == "node-2");
    let ips = match pod["spec"]["hostNetwork"] == true {
        true => NODES[node].map(|ip| json!({"ip": ip})),
        false => [
            json!({"ip": format!("10.244.{}.{}", node + 1, index + 2)}),
            json!({"ip": format!("fd00:10:244:{}::{}", node + 1, index + 2)}),
        ],
    };
    pod["status"]["podIPs"] = json!(ips);
    typed(pod)
}
