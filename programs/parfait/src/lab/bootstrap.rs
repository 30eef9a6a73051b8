//! What a lab's cluster starts with, and where its API server answers.
//!
//! The address plan is fixed, as labs live in networks of their own: pods 10.244.0.0/16 and
//! fd00:10:244::/56, Services 10.96.0.0/16 and fd00:10:96::/112, the cluster's DNS at the tenth
//! Service address. An IP family that was not asked for is in none of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::PostParams;
use kube::{Api, Client};
use parfait_lab_apiserver as apiserver;
use parfait_lab_controllers as controllers;
use parfait_lab_fabric::{IpFamily, LabSpec};
use serde_json::json;

use crate::exit::{Failure, said};
use crate::manifest;

/// Where the API server listens on the underlay.
pub const API_PORT: u16 = 6443;

const CLUSTER4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16);
const CLUSTER6: Ipv6Net =
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 0), 56);
const SERVICES4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16);
const SERVICES6: Ipv6Net =
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0), 112);
const DNS4: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
const DNS6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0xa);

/// What of each family is wanted, IPv4 first.
fn of<T>(family: IpFamily, v4: T, v6: T) -> Vec<T> {
    let v4 = family.v4().then_some(v4);
    let v6 = family.v6().then_some(v6);
    v4.into_iter().chain(v6).collect()
}

/// Where nodes and pods reach the API server.
pub fn advertised(spec: &LabSpec) -> Vec<SocketAddr> {
    spec.gateways()
        .iter()
        .map(|net| SocketAddr::new(net.addr(), API_PORT))
        .collect()
}

/// The API server's configuration.
pub fn api_server(spec: &LabSpec) -> apiserver::Config {
    let family = spec.ip_family;
    apiserver::Config {
        families: of(family, apiserver::Family::Ipv4, apiserver::Family::Ipv6),
        service_cidr_v4: family.v4().then_some(SERVICES4),
        service_cidr_v6: family.v6().then_some(SERVICES6),
        extra_sans: spec.gateways().iter().map(IpNet::addr).collect(),
        token: None,
        advertise: advertised(spec),
    }
}

/// The controllers' configuration for a family; `api_server`: where it listens, if there is one.
pub fn controllers(
    family: IpFamily,
    api_server: Vec<SocketAddr>,
    root_ca: Option<String>,
) -> controllers::Config {
    let underlay4 = IpNet::new_assert(Ipv4Addr::new(192, 168, 77, 0).into(), 24);
    let underlay6 = IpNet::new_assert(Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 0).into(), 64);
    controllers::Config {
        cluster_cidrs: of(family, CLUSTER4.into(), CLUSTER6.into()),
        node_mask_ipv4: 24,
        node_mask_ipv6: 64,
        service_cidrs: of(family, SERVICES4.into(), SERVICES6.into()),
        api_server,
        root_ca,
        node_grace_seconds: 40,
        underlay: of(family, underlay4, underlay6),
    }
}

/// The ranges that nodes' pod CIDRs come from.
pub fn cluster_cidrs(spec: &LabSpec) -> Vec<IpNet> {
    of(spec.ip_family, CLUSTER4.into(), CLUSTER6.into())
}

/// The ConfigMap that every agent and every explanation reads.
pub fn config_map(spec: &LabSpec) -> serde_json::Value {
    let list = |nets: Vec<IpNet>| {
        nets.iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let (cluster, services) = (
        list(cluster_cidrs(spec)),
        list(of(spec.ip_family, SERVICES4.into(), SERVICES6.into())),
    );
    let yaml = format!(
        "routing: {}\nclusterCIDRs: [{cluster}]\nserviceCIDRs: [{services}]\nclusterDomain: cluster.local\n",
        // In a flow list an IPv6 prefix must not end in a colon and a space, which it never does.
        spec.routing
    );
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "parfait", "namespace": "kube-system"},
        "data": {"config.yaml": yaml},
    })
}

/// The cluster's DNS.
pub fn dns_addresses(spec: &LabSpec) -> Vec<IpAddr> {
    of(spec.ip_family, DNS4.into(), DNS6.into())
}

/// The cluster's DNS as a Service: every node's agent answers at its addresses itself.
pub fn dns_service(spec: &LabSpec) -> serde_json::Value {
    let addresses: Vec<_> = dns_addresses(spec)
        .iter()
        .map(ToString::to_string)
        .collect();
    let families = of(spec.ip_family, "IPv4", "IPv6");
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "kube-dns", "namespace": "kube-system",
            "labels": {"k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS"},
            "annotations": {"parfait.dev/served-by": "node"},
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": addresses[0], "clusterIPs": addresses, "ipFamilies": families,
            "ipFamilyPolicy": if families.len() == 2 { "RequireDualStack" } else { "SingleStack" },
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
            ],
        },
    })
}

/// Creates the objects.
pub async fn create(client: &Client, spec: &LabSpec) -> Result<(), Failure> {
    let failed = |what: &'static str| {
        move |e: kube::Error| Failure::failed(format!("cannot create {what}: {}", said(&e)))
    };
    let parameters = PostParams::default();
    let config: ConfigMap = serde_json::from_value(config_map(spec)).map_err(Failure::failed)?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
    maps.create(&parameters, &config)
        .await
        .map_err(failed("ConfigMap kube-system/parfait"))?;
    let dns: Service = serde_json::from_value(dns_service(spec)).map_err(Failure::failed)?;
    let services: Api<Service> = Api::namespaced(client.clone(), "kube-system");
    services
        .create(&parameters, &dns)
        .await
        .map_err(failed("Service kube-system/kube-dns"))?;
    rights(client).await?;
    for text in manifest::DEFINITIONS {
        let definition: CustomResourceDefinition =
            serde_saphyr::from_str(text).map_err(Failure::failed)?;
        Api::all(client.clone())
            .create(&parameters, &definition)
            .await
            .map_err(failed("a CustomResourceDefinition"))?;
    }
    Ok(())
}

/// The rights of agents, as `parfait manifest` prints them.
async fn rights(client: &Client) -> Result<(), Failure> {
    let failed = |e: kube::Error| {
        Failure::failed(format!("cannot create the rights of agents: {}", said(&e)))
    };
    let parameters = PostParams::default();
    let rights = manifest::rights();
    let within = manifest::NAMESPACE;
    let accounts = Api::namespaced(client.clone(), within);
    accounts
        .create(&parameters, &rights.account)
        .await
        .map_err(failed)?;
    let roles = Api::namespaced(client.clone(), within);
    roles
        .create(&parameters, &rights.role)
        .await
        .map_err(failed)?;
    let bindings = Api::namespaced(client.clone(), within);
    bindings
        .create(&parameters, &rights.binding)
        .await
        .map_err(failed)?;
    let roles = Api::all(client.clone());
    roles
        .create(&parameters, &rights.cluster_role)
        .await
        .map_err(failed)?;
    let bindings = Api::all(client.clone());
    bindings
        .create(&parameters, &rights.cluster_binding)
        .await
        .map_err(failed)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use parfait_lab_fabric::{LabName, Routing};

    #[test]
    fn the_configuration_is_what_agents_understand() {
        for family in [IpFamily::Dual, IpFamily::Ipv4, IpFamily::Ipv6] {
            for routing in [Routing::Auto, Routing::Direct, Routing::Vxlan, Routing::Bgp] {
                let spec = LabSpec {
                    name: LabName::default(),
                    nodes: 1,
                    ip_family: family,
                    routing,
                    underlay: parfait_lab_fabric::Underlay::Flat,
                    mtu: 1500,
                };
                let map = config_map(&spec);
                let text = map["data"]["config.yaml"].as_str().unwrap();
                let config =
                    parfait_kube::config_yaml(text).unwrap_or_else(|e| panic!("{text}: {e}"));
                let families = usize::from(family.v4()) + usize::from(family.v6());
                assert_eq!(
                    (config.cluster_cidrs.len(), config.service_cidrs.len()),
                    (families, families)
                );
                let dns = dns_service(&spec);
                assert_eq!(
                    dns["spec"]["clusterIPs"].as_array().unwrap().len(),
                    families
                );
            }
        }
    }
}
