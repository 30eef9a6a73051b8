//! What every namespace and every pod may count on: the API server's own Service, a default
//! ServiceAccount, and the CA certificate.
//!
//! In Kubernetes the API server publishes `default/kubernetes` itself and two controllers make the rest.
//! Here the addresses come from the [`Config`].

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMap, Namespace, Service, ServiceAccount, ServicePort, ServiceSpec,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::config::{Config, Family, nth_address};
use crate::endpoint_slice::SERVICE_NAME;
use crate::world::{World, name_of};
use crate::write::Write;

const NAME: &str = "kubernetes";
const ROOT_CA: &str = "kube-root-ca.crt";

pub fn step(world: &World, config: &Config) -> Vec<Write> {
    let mut writes = publish_api_server(world, config);
    for namespace in world
        .namespaces
        .values()
        .filter(|ns| ns.metadata.deletion_timestamp.is_none())
    {
        writes.extend(service_account(world, namespace));
        writes.extend(root_ca(world, config, namespace));
    }
    writes
}

fn publish_api_server(world: &World, config: &Config) -> Vec<Write> {
    let Some(port) = config.api_server.first().map(|address| address.port()) else {
        return Vec::new();
    };
    if !world.accepts_new("default") {
        return Vec::new();
    }
    let mut writes = Vec::new();
    let wanted = service(config, port);
    let present = world.find::<Service>("default", NAME);
    let spec = present.or(Some(&wanted)).and_then(|s| s.spec.as_ref());
    let families: Vec<Family> = spec
        .into_iter()
        .flat_map(|spec| spec.ip_families.iter().flatten())
        .filter_map(|text| Family::parse(text))
        .collect();
    if present.is_none() {
        writes.push(Write::Create(wanted.into()));
    }
    for family in families {
        let wanted = slice(config, family);
        let name = wanted.metadata.name.clone().unwrap_or_default();
        match world.find::<EndpointSlice>("default", &name) {
            None if wanted.endpoints.is_some() => writes.push(Write::Create(wanted.into())),
            Some(present)
                if wanted.endpoints.is_some()
                    && (present.endpoints != wanted.endpoints || present.ports != wanted.ports) =>
            {
                let mut present = present.clone();
                present.endpoints = wanted.endpoints;
                present.ports = wanted.ports;
                writes.push(Write::Update(present.into()));
            }
            _ => {}
        }
    }
    writes
}

fn service(config: &Config, port: u16) -> Service {
    let addresses: Vec<String> = config
        .service_cidrs
        .iter()
        .filter_map(|cidr| nth_address(*cidr, 1))
        .map(|address| address.to_string())
        .collect();
    let families: Vec<String> = config
        .service_cidrs
        .iter()
        .map(|cidr| Family::of(cidr.addr()).as_str().to_owned())
        .collect();
    let policy = if families.len() > 1 {
        "RequireDualStack"
    } else {
        "SingleStack"
    };
    Service {
        metadata: meta(
            NAME,
            [("component", "apiserver"), ("provider", "kubernetes")],
        ),
        spec: Some(ServiceSpec {
            cluster_ip: addresses.first().cloned(),
            cluster_ips: Some(addresses),
            ip_families: Some(families),
            ip_family_policy: Some(policy.to_owned()),
            ports: Some(vec![ServicePort {
                name: Some("https".to_owned()),
                port: 443,
                protocol: Some("TCP".to_owned()),
                target_port: Some(IntOrString::Int(i32::from(port))),
                ..ServicePort::default()
            }]),
            type_: Some("ClusterIP".to_owned()),
            session_affinity: Some("None".to_owned()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn slice(config: &Config, family: Family) -> EndpointSlice {
    let name = if family == Family::IPv4 {
        NAME.to_owned()
    } else {
        format!("{NAME}-ipv6")
    };
    let endpoints: Vec<Endpoint> = config
        .api_server
        .iter()
        .filter(|address| Family::of(address.ip()) == family)
        .map(|address| Endpoint {
            addresses: vec![address.ip().to_string()],
            conditions: Some(EndpointConditions {
                ready: Some(true),
                ..EndpointConditions::default()
            }),
            ..Endpoint::default()
        })
        .collect();
    let port = config
        .api_server
        .first()
        .map(|address| i32::from(address.port()));
    EndpointSlice {
        address_type: family.as_str().to_owned(),
        endpoints: (!endpoints.is_empty()).then_some(endpoints),
        metadata: meta(&name, [(SERVICE_NAME, NAME)]),
        ports: Some(vec![EndpointPort {
            name: Some("https".to_owned()),
            port,
            protocol: Some("TCP".to_owned()),
            app_protocol: None,
        }]),
    }
}

fn meta<const N: usize>(name: &str, labels: [(&str, &str); N]) -> ObjectMeta {
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some("default".to_owned()),
        labels: Some(BTreeMap::from(labels)),
        ..ObjectMeta::default()
    }
}

fn service_account(world: &World, namespace: &Namespace) -> Option<Write> {
    if world
        .find::<ServiceAccount>(name_of(namespace), "default")
        .is_some()
    {
        return None;
    }
    let metadata = ObjectMeta {
        name: Some("default".to_owned()),
        namespace: namespace.metadata.name.clone(),
        ..ObjectMeta::default()
    };
    Some(Write::Create(
        ServiceAccount {
            metadata,
            ..ServiceAccount::default()
        }
        .into(),
    ))
}

fn root_ca(world: &World, config: &Config, namespace: &Namespace) -> Option<Write> {
    let certificate = config.root_ca.as_ref()?;
    let data = Some(BTreeMap::from([("ca.crt".to_owned(), certificate.clone())]));
    match world.find::<ConfigMap>(name_of(namespace), ROOT_CA) {
        Some(present) if present.data == data => None,
        Some(present) => Some(Write::Update(
            ConfigMap {
                data,
                ..present.clone()
            }
            .into(),
        )),
        None => {
            let metadata = ObjectMeta {
                name: Some(ROOT_CA.to_owned()),
                namespace: namespace.metadata.name.clone(),
                ..ObjectMeta::default()
            };
            Some(Write::Create(
                ConfigMap {
                    metadata,
                    data,
                    ..ConfigMap::default()
                }
                .into(),
            ))
        }
    }
}
