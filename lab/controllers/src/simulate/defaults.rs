//! What an API server would have filled in: namespaces, Service families, addresses and node ports.
//!
//! Only the defaults that decisions depend on. Objects that an API server would refuse are taken as they
//! are; `kubectl apply` is the place for that.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Namespace, Service, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::config::{Config, Family, nth_address};
use crate::object::{Object, known_kinds};
use crate::pods;
use crate::world::{World, is_passive, key_of};

/// Kinds outside every namespace, among those the controllers do not know.
const CLUSTER_SCOPED: [&str; 16] = [
    "APIService",
    "AdminNetworkPolicy",
    "BaselineAdminNetworkPolicy",
    "ClusterNetworkPolicy",
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "GatewayClass",
    "IngressClass",
    "LoadBalancerPool",
    "MutatingWebhookConfiguration",
    "NodeNetworkPolicy",
    "PersistentVolume",
    "PriorityClass",
    "StorageClass",
    "ValidatingWebhookConfiguration",
];

const FIRST_NODE_PORT: i32 = 30_000;
const LAST_NODE_PORT: i32 = 32_767;

/// The objects with their defaults, in a world, and what there is to say about them.
pub fn prepare(objects: Vec<Object>, config: &Config) -> (World, Vec<String>) {
    let mut world = World::default();
    let mut notes = Vec::new();
    for mut object in objects {
        if is_namespaced(&object) {
            object
                .meta_mut()
                .namespace
                .get_or_insert_with(|| "default".to_owned());
        } else {
            object.meta_mut().namespace = None;
        }
        if let Object::Other(other) = &object
            && !is_passive(object.api_version(), object.kind())
        {
            let types = other.types.clone().unwrap_or_default();
            notes.push(format!(
                "{} ({}) is kept, but no controller of the lab acts on this kind",
                object.reference(),
                types.api_version
            ));
        }
        world.insert(object);
    }
    add_namespaces(&mut world);
    forget_absent_owners(&mut world, &mut notes);
    notes.extend(misfits(&world));
    allocate(&mut world, config, &mut notes);
    (world, notes)
}

fn is_namespaced(object: &Object) -> bool {
    match object {
        Object::Other(_) => !CLUSTER_SCOPED.contains(&object.kind()),
        _ => known_kinds()
            .iter()
            .any(|kind| kind.kind == object.kind() && kind.namespaced),
    }
}

fn add_namespaces(world: &mut World) {
    let used: BTreeSet<String> = world
        .views()
        .iter()
        .filter_map(|view| view.meta.namespace.clone())
        .collect();
    for name in used.into_iter().chain(["default".to_owned()]) {
        if world.find::<Namespace>("", &name).is_none() {
            let mut namespace = Namespace::default();
            let label = ("kubernetes.io/metadata.name".to_owned(), name.clone());
            namespace.metadata.labels = Some([label].into());
            namespace.metadata.name = Some(name);
            world.insert(namespace.into());
        }
    }
}

/// In an export of some kinds only, owners may be missing: their dependents stay, as if nobody
/// owned them.
fn forget_absent_owners(world: &mut World, notes: &mut Vec<String>) {
    let uids: BTreeSet<String> = world
        .views()
        .iter()
        .filter_map(|view| view.meta.uid.clone())
        .collect();
    let orphans: Vec<_> = world
        .views()
        .iter()
        .filter(|view| {
            view.meta
                .owner_references
                .iter()
                .flatten()
                .any(|o| !uids.contains(&o.uid))
        })
        .map(crate::namespace::view_reference)
        .collect();
    for reference in orphans {
        let Some(mut object) = world.object(&reference) else {
            continue;
        };
        let owners = object.meta_mut().owner_references.get_or_insert_default();
        let absent: Vec<String> = owners
            .iter()
            .filter(|owner| !uids.contains(&owner.uid))
            .map(|owner| format!("{} {}", owner.kind, owner.name))
            .collect();
        owners.retain(|owner| uids.contains(&owner.uid));
        notes.push(format!(
            "{reference} is owned by {}, which is not among the objects",
            absent.join(", ")
        ));
        world.insert(object);
    }
}

/// Workloads that no API server would take, because their pods would not be theirs.
fn misfits(world: &World) -> Vec<String> {
    let deployments = world.deployments.iter().map(|(key, o)| {
        let spec = o.spec.as_ref().map(|s| (&s.selector, &s.template));
        ("Deployment", key, spec)
    });
    let stateful_sets = world.stateful_sets.iter().map(|(key, o)| {
        let spec = o.spec.as_ref().map(|s| (&s.selector, &s.template));
        ("StatefulSet", key, spec)
    });
    let daemon_sets = world.daemon_sets.iter().map(|(key, o)| {
        let spec = o.spec.as_ref().map(|s| (&s.selector, &s.template));
        ("DaemonSet", key, spec)
    });
    deployments
        .chain(stateful_sets)
        .chain(daemon_sets)
        .filter(|(_, _, spec)| !spec.is_some_and(|(selector, template)| pods::template_fits(selector, template)))
        .map(|(kind, (namespace, name), _)| {
            format!("{kind} {namespace}/{name} makes no pods: its selector does not match the labels of its own pod template")
        })
        .collect()
}

/// Gives every Service what an API server allocates.
fn allocate(world: &mut World, config: &Config, notes: &mut Vec<String>) {
    let specs = || {
        world
            .services
            .values()
            .filter_map(|service| service.spec.as_ref())
    };
    let mut used: BTreeSet<IpAddr> = specs().flat_map(given_addresses).collect();
    let mut ports: BTreeSet<i32> = specs()
        .flat_map(|spec| {
            spec.ports
                .iter()
                .flatten()
                .filter_map(|port| port.node_port)
        })
        .collect();
    for cidr in &config.service_cidrs {
        used.extend(nth_address(*cidr, 1));
        used.extend(nth_address(*cidr, 10));
    }
    for service in world.services.values_mut() {
        let (namespace, name) = key_of(&service.metadata);
        if !complete_service(service, config, &mut used, &mut ports) {
            notes.push(format!("Service {namespace}/{name} gets no address: the Service CIDR is full or lacks its family"));
        }
    }
}

fn given_addresses(spec: &ServiceSpec) -> Vec<IpAddr> {
    let texts = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    texts.filter_map(|text| text.parse().ok()).collect()
}

fn complete_service(
    service: &mut Service,
    config: &Config,
    used: &mut BTreeSet<IpAddr>,
    ports: &mut BTreeSet<i32>,
) -> bool {
    let spec = service.spec.get_or_insert_default();
    let kind = spec
        .type_
        .get_or_insert_with(|| "ClusterIP".to_owned())
        .clone();
    let exposed = matches!(kind.as_str(), "NodePort" | "LoadBalancer");
    let without_ports =
        kind == "LoadBalancer" && spec.allocate_load_balancer_node_ports == Some(false);
    for port in spec.ports.iter_mut().flatten() {
        port.protocol.get_or_insert_with(|| "TCP".to_owned());
        port.target_port.get_or_insert(IntOrString::Int(port.port));
        if exposed && !without_ports && port.node_port.is_none_or(|number| number == 0) {
            port.node_port =
                (FIRST_NODE_PORT..=LAST_NODE_PORT).find(|number| !ports.contains(number));
            ports.extend(port.node_port);
        }
    }
    if kind == "ExternalName" {
        return true;
    }
    spec.session_affinity
        .get_or_insert_with(|| "None".to_owned());
    spec.internal_traffic_policy
        .get_or_insert_with(|| "Cluster".to_owned());
    if exposed {
        spec.external_traffic_policy
            .get_or_insert_with(|| "Cluster".to_owned());
    }
    let families = choose_families(spec, config);
    spec.ip_families = Some(
        families
            .iter()
            .map(|family| family.as_str().to_owned())
            .collect(),
    );
    spec.ip_family_policy
        .get_or_insert_with(|| "SingleStack".to_owned());
    if spec.cluster_ip.as_deref() == Some("None") {
        spec.cluster_ips = Some(vec!["None".to_owned()]);
        return true;
    }
    let given = given_addresses(spec);
    let addresses: Option<Vec<IpAddr>> = families
        .iter()
        .map(|family| {
            let mine = given
                .iter()
                .find(|address| Family::of(**address) == *family)
                .copied();
            mine.or_else(|| lowest_free(config, *family, used))
        })
        .collect();
    let Some(addresses) = addresses.filter(|all| !all.is_empty()) else {
        return false;
    };
    used.extend(&addresses);
    let texts: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    spec.cluster_ip = texts.first().cloned();
    spec.cluster_ips = Some(texts);
    true
}

fn choose_families(spec: &ServiceSpec, config: &Config) -> Vec<Family> {
    let available: Vec<Family> = config
        .service_cidrs
        .iter()
        .map(|cidr| Family::of(cidr.addr()))
        .collect();
    let mut families: Vec<Family> = spec
        .ip_families
        .iter()
        .flatten()
        .filter_map(|text| Family::parse(text))
        .collect();
    for address in given_addresses(spec) {
        if !families.contains(&Family::of(address)) {
            families.push(Family::of(address));
        }
    }
    if families.is_empty() {
        families.extend(available.first());
    }
    let dual = matches!(
        spec.ip_family_policy.as_deref(),
        Some("PreferDualStack" | "RequireDualStack")
    );
    let headless_by_hand = spec.cluster_ip.as_deref() == Some("None")
        && spec
            .selector
            .as_ref()
            .is_none_or(|selector| selector.is_empty())
        && spec.ip_family_policy.is_none();
    if dual || headless_by_hand {
        families.extend(
            available
                .into_iter()
                .filter(|family| !families.contains(family))
                .collect::<Vec<_>>(),
        );
    }
    families
}

fn lowest_free(config: &Config, family: Family, used: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let cidr = config
        .service_cidrs
        .iter()
        .find(|cidr| Family::of(cidr.addr()) == family)?;
    (2u128..)
        .map_while(|n| nth_address(*cidr, n))
        .find(|address| !used.contains(address))
}
