//! The Service whose endpoints really answer in `traffic`: ten addresses of one network namespace, all pods of this
//! node, as the client is.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use parfait_cluster::{
    Distribution, Endpoint, EndpointPort, EndpointSlice, Object, ObjectName, Outside, Service,
    ServicePort, ServiceType, Snapshot, TargetPort, TrafficPolicy,
};
use parfait_packet::{Family, Protocol};

use crate::large::OURS;

/// Name, port at the Service, port at the endpoints: one to connect to, one for iperf3.
const PORTS: [(&str, u16, u16); 2] = [("http", 80, 8080), ("iperf", 5201, 5201)];

/// Adds it, with 10.64.0.80 and the endpoints 10.128.0.201 to 10.128.0.210.
pub fn add(snapshot: &mut Snapshot) {
    let name = ObjectName::new("bench", "target");
    let port = |(name, port, target): (&str, u16, u16)| ServicePort {
        name: Some(name.to_owned()),
        protocol: Protocol::Tcp,
        port,
        target: TargetPort::Number(target),
        node_port: None,
    };
    let at_endpoints = |(name, _, target): (&str, u16, u16)| EndpointPort {
        name: Some(name.to_owned()),
        protocol: Protocol::Tcp,
        port: target,
    };
    snapshot.insert(Object::Service(Service {
        name: name.clone(),
        kind: ServiceType::ClusterIp,
        cluster_ips: vec![Ipv4Addr::new(10, 64, 0, 80).into()],
        headless: false,
        ports: PORTS.map(port).into(),
        selector: BTreeMap::new(),
        created: None,
        publish_not_ready: false,
        served_by_node: false,
        left_by: None,
        labels: BTreeMap::new(),
        outside: Outside::default(),
        internal_policy: TrafficPolicy::Cluster,
        affinity: None,
        distribution: Distribution::Even,
    }));
    // iperf3 wants all its connections to go to one server.
    for (port, endpoints) in PORTS.into_iter().zip([201..=210, 201..=201]) {
        snapshot.insert(Object::EndpointSlice(EndpointSlice {
            name: ObjectName::new("bench", &format!("target-{}", port.0)),
            service: name.clone(),
            family: Some(Family::Ipv4),
            ports: vec![at_endpoints(port)],
            endpoints: endpoints.map(endpoint).collect(),
        }));
    }
}

/// One at 10.128.0.LAST.
pub fn endpoint(last: u8) -> Arc<Endpoint> {
    Arc::new(Endpoint {
        address: IpAddr::V4(Ipv4Addr::new(10, 128, 0, last)),
        ready: true,
        serving: true,
        terminating: false,
        node: Some(OURS.to_owned()),
        zone: None,
        hostname: None,
        pod: None,
        zone_hints: Vec::new(),
        node_hints: Vec::new(),
    })
}
