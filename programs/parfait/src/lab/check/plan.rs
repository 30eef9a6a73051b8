//! What there is to check: from the cluster's objects to connections to try. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, Container, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use parfait_lab_fabric::Target;
use serde::{Deserialize, Serialize};

use super::env;
use crate::lab::api::{node_ready, pod_phase, pod_ready, short_name};

/// The annotation of a Service that every node serves itself: the cluster's DNS.
const SERVED_BY: &str = "parfait.dev/served-by";

/// The cluster as far as checks need it.
#[derive(Debug, Default)]
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub pods: Vec<Pod>,
    pub services: Vec<Service>,
    pub slices: Vec<EndpointSlice>,
    pub config_maps: Vec<ConfigMap>,
}

/// What carries the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Transport {
    Tcp,
    Udp,
}

/// One connection to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// From whose network.
    pub from: Target,
    /// To whom, as people call it: `cartservice:7070`, `svc/cartservice:7070`, `pod/cart-1:7070`.
    pub to: String,
    /// The name or address that is connected to.
    pub host: String,
    pub port: u16,
    pub transport: Transport,
    /// Whether a Service or pod has this name, so that it must resolve.
    pub exists: bool,
    /// Why it is tried.
    pub because: String,
}

/// Everything to try, in a stable order; pods first. `namespace`: only its pods and Services.
pub fn plan(cluster: &Cluster, namespace: Option<&str>) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    let wanted = |object: &Option<String>| namespace.is_none_or(|ns| object.as_deref() == Some(ns));
    for pod in cluster
        .pods
        .iter()
        .filter(|pod| wanted(&pod.metadata.namespace))
    {
        if pod_phase(pod) == "Running" {
            from_pod(cluster, pod, &mut attempts);
        }
    }
    let nodes: Vec<&str> = cluster
        .nodes
        .iter()
        .filter(|n| node_ready(n))
        .filter_map(|n| n.metadata.name.as_deref())
        .collect();
    for service in cluster
        .services
        .iter()
        .filter(|service| wanted(&service.metadata.namespace))
    {
        for node in &nodes {
            to_service(cluster, service, node, &mut attempts);
        }
    }
    // Two Services may have the same endpoints.
    let mut seen = BTreeSet::new();
    attempts.retain(|a| seen.insert((a.from.to_string(), a.host.clone(), a.port, a.transport)));
    attempts
}

fn from_pod(cluster: &Cluster, pod: &Pod, attempts: &mut Vec<Attempt>) {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let Some(spec) = &pod.spec else { return };
    let host_network = spec.host_network.unwrap_or(false);
    let from = match (&spec.node_name, host_network) {
        (Some(node), true) => Target::Node(node.clone()),
        _ => Target::Pod(short_name(name, namespace)),
    };
    let mut seen = BTreeSet::new();
    for container in &spec.containers {
        for peer in env::named(&environment(cluster, namespace, container)) {
            if !seen.insert((peer.host.clone(), peer.port)) {
                continue;
            }
            attempts.push(Attempt {
                from: from.clone(),
                to: format!("{}:{}", peer.host, peer.port),
                transport: transport(cluster, namespace, &peer.host, peer.port),
                exists: exists(cluster, namespace, &peer.host),
                because: format!("{} of {}", peer.variable, short_name(name, namespace)),
                host: peer.host,
                port: peer.port,
            });
        }
    }
}

/// A container's variables as far as they are written down: values and ConfigMaps. Secrets are
/// left alone: a connection string in one is not for printing in a table.
fn environment(
    cluster: &Cluster,
    namespace: &str,
    container: &Container,
) -> BTreeMap<String, String> {
    let map = |name: &str| {
        let found = cluster.config_maps.iter().find(|map| {
            map.metadata.name.as_deref() == Some(name)
                && map.metadata.namespace.as_deref() == Some(namespace)
        });
        found.and_then(|map| map.data.clone()).unwrap_or_default()
    };
    let mut all = BTreeMap::new();
    for source in container.env_from.iter().flatten() {
        if let Some(reference) = &source.config_map_ref {
            let prefix = source.prefix.as_deref().unwrap_or_default();
            all.extend(
                map(&reference.name)
                    .into_iter()
                    .map(|(key, value)| (format!("{prefix}{key}"), value)),
            );
        }
    }
    for variable in container.env.iter().flatten() {
        let key = variable
            .value_from
            .as_ref()
            .and_then(|from| from.config_map_key_ref.as_ref());
        let value = variable
            .value
            .clone()
            .or_else(|| key.and_then(|key| map(&key.name).get(&key.key).cloned()));
        if let Some(value) = value {
            // `$(NAME)` stands for a variable defined before (Kubernetes' dependent variables).
            let value = all
                .iter()
                .fold(value, |text: String, (k, v): (&String, &String)| {
                    text.replace(&format!("$({k})"), v)
                });
            all.insert(variable.name.clone(), value);
        }
    }
    all
}

/// The Service that a name means in a namespace: `web`, `web.shop`, `web.shop.svc[.cluster.local]`.
fn service<'a>(cluster: &'a Cluster, namespace: &str, host: &str) -> Option<&'a Service> {
    let mut labels = host.trim_end_matches('.').split('.');
    let name = labels.next()?;
    let namespace = labels.next().unwrap_or(namespace);
    if labels.next().is_some_and(|third| third != "svc") {
        return None;
    }
    cluster.services.iter().find(|service| {
        service.metadata.name.as_deref() == Some(name)
            && service.metadata.namespace.as_deref() == Some(namespace)
    })
}

/// Whether something in the cluster has this name: a Service, or a pod of a headless one
/// (`db-0.db`). An address needs no name.
fn exists(cluster: &Cluster, namespace: &str, host: &str) -> bool {
    if host.parse::<std::net::IpAddr>().is_ok() || service(cluster, namespace, host).is_some() {
        return true;
    }
    let Some((pod, rest)) = host.split_once('.') else {
        return false;
    };
    let Some(service) = service(cluster, namespace, rest) else {
        return false;
    };
    cluster.pods.iter().any(|p| {
        p.metadata.namespace == service.metadata.namespace
            && p.spec
                .as_ref()
                .and_then(|s| s.hostname.as_deref())
                .or(p.metadata.name.as_deref())
                == Some(pod)
    })
}

fn transport(cluster: &Cluster, namespace: &str, host: &str, port: u16) -> Transport {
    let ports = service(cluster, namespace, host).and_then(|s| s.spec.as_ref()?.ports.as_ref());
    let of_port = |transport: &str| {
        let has = |p: &&k8s_openapi::api::core::v1::ServicePort| {
            p.port == i32::from(port) && p.protocol.as_deref().unwrap_or("TCP") == transport
        };
        ports.is_some_and(|ports| ports.iter().any(|p| has(&p)))
    };
    if of_port("UDP") && !of_port("TCP") {
        Transport::Udp
    } else {
        Transport::Tcp
    }
}

fn to_service(cluster: &Cluster, service: &Service, node: &str, attempts: &mut Vec<Attempt>) {
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let namespace = service.metadata.namespace.as_deref().unwrap_or("default");
    let Some(spec) = &service.spec else { return };
    let own = short_name(name, namespace);
    let slices: Vec<&EndpointSlice> = slices_of(cluster, name, namespace).collect();
    let served_by_node = service
        .metadata
        .annotations
        .as_ref()
        .is_some_and(|a| a.contains_key(SERVED_BY));
    for port in spec.ports.iter().flatten() {
        let (Ok(number), Some(transport)) = (
            u16::try_from(port.port),
            parse_transport(port.protocol.as_deref()),
        ) else {
            continue;
        };
        let mut push = |to: String, host: &str, port: u16, because: String| {
            let (host, from) = (host.to_owned(), Target::Node(node.to_owned()));
            attempts.push(Attempt {
                from,
                to,
                host,
                port,
                transport,
                exists: true,
                because,
            });
        };
        let endpoints: Vec<_> = slices
            .iter()
            .flat_map(|slice| endpoints(slice, port.name.as_deref()))
            .collect();
        let addresses = spec
            .cluster_ips
            .iter()
            .flatten()
            .filter(|ip| *ip != "None" && !ip.is_empty());
        for address in addresses {
            // A family without endpoints is answered by a refusal, which is right.
            let v6 = address.contains(':');
            if served_by_node || endpoints.iter().any(|(_, ip, _)| ip.contains(':') == v6) {
                push(
                    format!("svc/{own}:{number}"),
                    address,
                    number,
                    format!("Service {own}"),
                );
            }
        }
        for (pod, ip, target) in &endpoints {
            let to = pod
                .as_ref()
                .map_or_else(|| format!("{ip} of svc/{own}"), |pod| format!("pod/{pod}"));
            push(
                format!("{to}:{target}"),
                ip,
                *target,
                format!("endpoint of Service {own}"),
            );
        }
    }
}

/// Services with ports but without any endpoint that takes traffic: nothing to connect to.
pub fn without_endpoints(cluster: &Cluster, namespace: Option<&str>) -> Vec<String> {
    let bare = |service: &&Service| {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let ns = service.metadata.namespace.as_deref().unwrap_or("default");
        let spec = service.spec.clone().unwrap_or_default();
        let served = service
            .metadata
            .annotations
            .as_ref()
            .is_some_and(|a| a.contains_key(SERVED_BY));
        namespace.is_none_or(|wanted| wanted == ns)
            && !served
            && spec.type_.as_deref() != Some("ExternalName")
            && !slices_of(cluster, name, ns)
                .any(|slice| slice.endpoints.iter().flatten().any(ready))
    };
    let name = |service: &Service| {
        short_name(
            service.metadata.name.as_deref().unwrap_or_default(),
            service.metadata.namespace.as_deref().unwrap_or("default"),
        )
    };
    cluster.services.iter().filter(bare).map(name).collect()
}

fn slices_of<'a>(
    cluster: &'a Cluster,
    name: &str,
    namespace: &str,
) -> impl Iterator<Item = &'a EndpointSlice> {
    let (name, namespace) = (name.to_owned(), namespace.to_owned());
    cluster.slices.iter().filter(move |slice| {
        let of = slice
            .metadata
            .labels
            .as_ref()
            .and_then(|l| l.get("kubernetes.io/service-name"));
        of == Some(&name) && slice.metadata.namespace.as_ref() == Some(&namespace)
    })
}

fn ready(endpoint: &k8s_openapi::api::discovery::v1::Endpoint) -> bool {
    endpoint
        .conditions
        .as_ref()
        .and_then(|c| c.ready)
        .unwrap_or(true)
}

/// Pod name (if it is one), address and port of each ready endpoint for a Service's port.
fn endpoints(slice: &EndpointSlice, port: Option<&str>) -> Vec<(Option<String>, String, u16)> {
    let number = slice
        .ports
        .iter()
        .flatten()
        .find(|p| p.name.as_deref().unwrap_or_default() == port.unwrap_or_default());
    let Some(number) = number.and_then(|p| u16::try_from(p.port?).ok()) else {
        return Vec::new();
    };
    let namespace = slice.metadata.namespace.as_deref().unwrap_or("default");
    let each = slice
        .endpoints
        .iter()
        .flatten()
        .filter(|e| ready(e))
        .flat_map(|endpoint| {
            let target = endpoint
                .target_ref
                .as_ref()
                .filter(|t| t.kind.as_deref() == Some("Pod"));
            let pod = target
                .and_then(|t| t.name.as_deref())
                .map(|name| short_name(name, namespace));
            endpoint
                .addresses
                .iter()
                .map(move |ip| (pod.clone(), ip.clone(), number))
        });
    each.collect()
}

fn parse_transport(protocol: Option<&str>) -> Option<Transport> {
    match protocol.unwrap_or("TCP") {
        "TCP" => Some(Transport::Tcp),
        "UDP" => Some(Transport::Udp),
        // SCTP cannot be tried by a plain socket everywhere.
        _ => None,
    }
}

/// Names for an example: a ready pod, and a Service port that its environment names, if any does.
pub fn example(cluster: &Cluster) -> Option<(String, String, u16)> {
    let ready: Vec<Pod> = cluster
        .pods
        .iter()
        .filter(|pod| pod_ready(pod))
        .cloned()
        .collect();
    let some = Cluster {
        pods: ready,
        ..Cluster::default()
    };
    let named = some.pods.iter().find_map(|pod| {
        let namespace = pod.metadata.namespace.as_deref()?;
        let containers = &pod.spec.as_ref()?.containers;
        let peer = containers
            .iter()
            .flat_map(|c| env::named(&environment(cluster, namespace, c)))
            .find(|peer| service(cluster, namespace, &peer.host).is_some())?;
        Some((
            short_name(pod.metadata.name.as_deref()?, namespace),
            peer.host,
            peer.port,
        ))
    });
    named.or_else(|| {
        let pod = some.pods.first()?;
        let service = cluster.services.iter().find(|s| {
            s.metadata.namespace == pod.metadata.namespace
                && s.metadata.name.as_deref() != Some("kubernetes")
        })?;
        let port = service.spec.as_ref()?.ports.as_ref()?.first()?.port;
        let pod = short_name(
            pod.metadata.name.as_deref()?,
            pod.metadata.namespace.as_deref()?,
        );
        Some((
            pod,
            service.metadata.name.clone()?,
            u16::try_from(port).ok()?,
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn cluster() -> Cluster {
        fn list<T: serde::de::DeserializeOwned>(value: Value) -> Vec<T> {
            serde_json::from_value(value).unwrap()
        }
        Cluster {
            nodes: list(
                json!([{"metadata": {"name": "node-1"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}]),
            ),
            pods: list(json!([
                {"metadata": {"name": "front", "namespace": "default"}, "status": {"phase": "Running"}, "spec": {"containers": [{"name": "c", "env": [
                    {"name": "CART", "value": "cart:7070"}, {"name": "DB", "value": "db-0.db.shop:5432"}, {"name": "AI", "value": "assistant:80"},
                    {"name": "H", "value": "cart"}, {"name": "URL", "value": "http://$(H):8080/"}, {"name": "DNS", "value": "dns:53"}]}]}},
                {"metadata": {"name": "db-0", "namespace": "shop"}, "status": {"phase": "Pending"}, "spec": {"containers": [{"name": "c", "env": [{"name": "X", "value": "x:1"}]}]}}])),
            services: list(json!([
                {"metadata": {"name": "cart", "namespace": "default"}, "spec": {"clusterIPs": ["10.96.0.7", "fd00::7"], "ports": [{"port": 7070, "name": "grpc"}]}},
                {"metadata": {"name": "db", "namespace": "shop"}, "spec": {"clusterIPs": ["None"], "ports": [{"port": 5432}]}},
                {"metadata": {"name": "dns", "namespace": "default", "annotations": {"parfait.dev/served-by": "node"}}, "spec": {"clusterIPs": ["10.96.0.10"], "ports": [{"port": 53, "protocol": "UDP"}]}}])),
            slices: list(json!([
                {"addressType": "IPv4", "metadata": {"name": "cart-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "cart"}}, "ports": [{"name": "grpc", "port": 7777}],
                 "endpoints": [{"addresses": ["10.244.1.5"], "targetRef": {"kind": "Pod", "name": "cart-x"}}, {"addresses": ["10.244.1.6"], "conditions": {"ready": false}}]}])),
            config_maps: Vec::new(),
        }
    }

    #[test]
    fn everything_named_and_every_endpoint() {
        let lines: Vec<String> = plan(&cluster(), None)
            .iter()
            .map(|a| {
                format!(
                    "{} > {} {} {} {:?}{}",
                    a.from,
                    a.to,
                    a.host,
                    a.port,
                    a.transport,
                    if a.exists { "" } else { " absent" }
                )
            })
            .collect();
        assert_eq!(
            lines,
            [
                "pod/front > assistant:80 assistant 80 Tcp absent",
                "pod/front > cart:7070 cart 7070 Tcp",
                "pod/front > db-0.db.shop:5432 db-0.db.shop 5432 Tcp",
                "pod/front > dns:53 dns 53 Udp",
                "pod/front > cart:8080 cart 8080 Tcp",
                "node/node-1 > svc/cart:7070 10.96.0.7 7070 Tcp",
                "node/node-1 > pod/cart-x:7777 10.244.1.5 7777 Tcp",
                "node/node-1 > svc/dns:53 10.96.0.10 53 Udp",
            ]
        );
        assert_eq!(without_endpoints(&cluster(), None), ["db.shop"]);
    }

    #[test]
    fn a_namespace_alone() {
        assert!(plan(&cluster(), Some("shop")).is_empty());
        assert!(without_endpoints(&cluster(), Some("default")).is_empty());
    }
}
