//! Lowers the plan to records: the zone that the node's server holds.

use std::net::IpAddr;

use parfait_cluster::ObjectName;
use parfait_dns::{Data, Name, NameError, Record, Zone};
use parfait_packet::{Kind, Origin};

use crate::plan::{Change, Host, NamedPort, Naming, Plan, dashed};

/// How long records may be remembered, in seconds. Endpoints come and go, and the server is near.
const TTL: u32 = 5;
/// The version of the specification that the records follow.
const SPECIFICATION: &str = "1.1.0";

/// Makes the zone of a plan.
#[must_use]
pub fn apply(plan: &Plan) -> Zone {
    let ours = |data: Data| Record {
        data,
        origin: Origin::parfait("dns"),
    };
    let below = |label: &str| {
        plan.domain
            .child(label)
            .unwrap_or_else(|_| plan.domain.clone())
    };
    let server = below("dns")
        .child("ns")
        .unwrap_or_else(|_| plan.domain.clone());
    let soa = ours(Data::Soa {
        primary: server.clone(),
        mailbox: below("hostmaster"),
        negative_ttl: TTL,
    });
    let mut zone = Zone::new(plan.domain.clone(), soa, TTL, plan.networks.clone());
    zone.insert(plan.domain.clone(), ours(Data::Ns(server)));
    zone.insert(
        below("dns-version"),
        ours(Data::Txt(SPECIFICATION.to_owned())),
    );
    zone.insert_empty(below("svc"));
    zone.insert_empty(below("pod"));
    for namespace in &plan.namespaces {
        add_namespace(&mut zone, plan, namespace);
    }
    for (service, naming) in &plan.services {
        add_service(&mut zone, plan, service, naming);
    }
    for (pod, addresses) in &plan.pods {
        add_pod(&mut zone, plan, pod, addresses);
    }
    zone
}

/// Brings a zone from what the plan said before the changes to what it says now.
pub fn reapply(zone: &mut Zone, plan: &Plan, changes: &[Change]) {
    for change in changes {
        match change {
            Change::All => *zone = apply(plan),
            Change::Namespace(namespace) => match plan.namespaces.contains(namespace) {
                true => add_namespace(zone, plan, namespace),
                false => remove_namespace(zone, plan, namespace),
            },
            Change::Service(service, before) => {
                if let Some(before) = before {
                    remove_service(zone, plan, service, before);
                }
                if let Some(naming) = plan.services.get(service) {
                    add_service(zone, plan, service, naming);
                }
            }
            Change::Pod(pod, before) => {
                remove_pod(zone, plan, pod, before);
                if let Some(addresses) = plan.pods.get(pod) {
                    add_pod(zone, plan, pod, addresses);
                }
            }
        }
    }
}

/// The Service at whose addresses the cluster's servers answer.
fn is_the_servers(service: &ObjectName) -> bool {
    service.namespace == "kube-system" && service.name == "kube-dns"
}

fn servers_name(plan: &Plan) -> Result<Name, NameError> {
    plan.domain.child("dns")?.child("ns")
}

fn namespace_names(plan: &Plan, namespace: &str) -> impl Iterator<Item = Name> {
    ["svc", "pod"]
        .into_iter()
        .filter_map(move |kind| plan.domain.child(kind).ok()?.child(namespace).ok())
}

fn add_namespace(zone: &mut Zone, plan: &Plan, namespace: &str) {
    for name in namespace_names(plan, namespace) {
        zone.insert_empty(name);
    }
}

fn remove_namespace(zone: &mut Zone, plan: &Plan, namespace: &str) {
    for name in namespace_names(plan, namespace) {
        zone.remove_empty(&name);
    }
}

fn add_service(zone: &mut Zone, plan: &Plan, service: &ObjectName, naming: &Naming) {
    let Some(name) = plan.service_name(service) else {
        return;
    };
    let origin = Origin::new(Kind::Service, &service.namespace, &service.name);
    match naming {
        Naming::Alias { target } => {
            let record = Record {
                data: Data::Cname(target.clone()),
                origin: origin.field("spec.externalName"),
            };
            zone.insert(name, record);
        }
        Naming::Virtual { addresses, ports } => {
            let origin = origin.field("spec.clusterIPs");
            // A Service that waits for its address exists already.
            zone.insert_empty(name.clone());
            for address in addresses {
                add_address(zone, &name, *address, &origin);
                add_reverse(zone, *address, &name, &origin);
                if let (true, Ok(server)) = (is_the_servers(service), servers_name(plan)) {
                    add_address(zone, &server, *address, &origin);
                }
            }
            for port in ports {
                add_port(zone, &name, port, &name, 100);
            }
        }
        Naming::Headless { hosts } => {
            zone.insert_empty(name.clone());
            add_hosts(zone, &name, hosts);
        }
    }
}

fn add_hosts(zone: &mut Zone, service: &Name, hosts: &[Host]) {
    // The hosts of one port share a hundred, as other servers have it; a client only sees that they are equal.
    let weight = u16::try_from(100 / hosts.len().max(1)).unwrap_or(1).max(1);
    for host in hosts {
        add_address(zone, service, host.address, &host.origin);
        let Ok(name) = service.child(&host.label) else {
            continue;
        };
        add_address(zone, &name, host.address, &host.origin);
        add_reverse(zone, host.address, &name, &host.origin);
        for port in &host.ports {
            add_port(zone, service, port, &name, weight);
        }
    }
}

fn remove_service(zone: &mut Zone, plan: &Plan, service: &ObjectName, before: &Naming) {
    let Some(name) = plan.service_name(service) else {
        return;
    };
    zone.remove_below(&name);
    match before {
        Naming::Alias { .. } => {}
        Naming::Virtual { addresses, .. } => {
            for address in addresses {
                zone.remove_reverse(*address, &name);
            }
            if let (true, Ok(server)) = (is_the_servers(service), servers_name(plan)) {
                zone.remove_below(&server);
            }
        }
        Naming::Headless { hosts } => {
            for host in hosts {
                zone.remove_reverse(host.address, &name);
            }
        }
    }
}

fn pod_name(plan: &Plan, namespace: &str, address: IpAddr) -> Option<Name> {
    let pods = plan.domain.child("pod").ok()?;
    pods.child(namespace).ok()?.child(&dashed(address)).ok()
}

fn add_pod(zone: &mut Zone, plan: &Plan, pod: &ObjectName, addresses: &[IpAddr]) {
    let origin = Origin::new(Kind::Pod, &pod.namespace, &pod.name).field("status.podIPs");
    for address in addresses {
        if let Some(name) = pod_name(plan, &pod.namespace, *address) {
            add_address(zone, &name, *address, &origin);
        }
    }
}

/// Removes a pod's records, unless another pod of the namespace has the address too: pods in their
/// node's network do, and so may an old pod and its successor for a moment.
fn remove_pod(zone: &mut Zone, plan: &Plan, pod: &ObjectName, before: &[IpAddr]) {
    for address in before {
        let Some(name) = pod_name(plan, &pod.namespace, *address) else {
            continue;
        };
        zone.remove_below(&name);
        let first = ObjectName::new(&pod.namespace, "");
        let namespace = plan.pods.range(first..);
        let namespace = namespace.take_while(|(other, _)| other.namespace == pod.namespace);
        for (other, addresses) in namespace {
            if addresses.contains(address) {
                add_pod(zone, plan, other, &[*address]);
            }
        }
    }
}

fn add_address(zone: &mut Zone, name: &Name, address: IpAddr, origin: &Origin) {
    let record = Record {
        data: Data::Address(address),
        origin: origin.clone(),
    };
    zone.insert(name.clone(), record);
}

fn add_reverse(zone: &mut Zone, address: IpAddr, name: &Name, origin: &Origin) {
    let record = Record {
        data: Data::Ptr(name.clone()),
        origin: origin.clone(),
    };
    zone.insert(Name::reverse(address), record);
}

/// `_http._tcp.web.default.svc.cluster.local. SRV 0 100 80 web.default.svc.cluster.local.`
fn add_port(zone: &mut Zone, service: &Name, port: &NamedPort, target: &Name, weight: u16) {
    let protocol = port.protocol.to_string().to_ascii_lowercase();
    let named = service
        .child(&format!("_{protocol}"))
        .and_then(|name| name.child(&format!("_{}", port.name)));
    let Ok(name) = named else {
        return;
    };
    let record = Record {
        data: Data::Srv {
            priority: 0,
            weight,
            port: port.port,
            target: target.clone(),
        },
        origin: port.origin.clone(),
    };
    zone.insert(name, record);
}
