//! The cluster that a folder of YAML describes, without any cluster.
//!
//! [`simulate()`] runs the same controllers as the lab on the given objects until nothing changes any
//! more, and plays the parts of the API server (defaults, Service addresses; `defaults.rs`) and of the kubelets
//! (every placed pod runs and is ready at once). What comes out is a [`World`] with pods, nodes and
//! EndpointSlices, the same each time for the same input.
//!
//! Addresses: `node-N` has host part 10+N of the underlay; a node's first pod has host part 2 of the node's CIDR,
//! the next the lowest free one. A Service gets the lowest free address of the Service CIDR, host part
//! 2 upwards, 10 left free for the cluster's DNS: a real API server chooses others, so an address here says only
//! that there is one.

mod defaults;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStatus, HostIP, Node, NodeAddress,
    NodeCondition, Pod, PodCondition, PodIP,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use parfait_cluster::Underlay;

use crate::config::{Config, nth_address};
use crate::memory::Memory;
use crate::object::{Object, is_terminating};
use crate::pods;
use crate::world::{World, name_of, namespace_of};
use crate::write::{Event, Write};

/// More rounds than any finite set of objects should need.
const MAX_ROUNDS: usize = 2_000;

/// What became of the objects.
#[derive(Clone, Debug, Default)]
pub struct Simulation {
    pub world: World,
    /// What the controllers said, a pod that fits on no node for instance.
    pub events: Vec<Event>,
    /// What a reader should know: kinds nobody acts on, things assumed.
    pub notes: Vec<String>,
    /// False if the controllers were still busy when the rounds ran out.
    pub settled: bool,
}

/// Runs the controllers on `objects`, with `nodes` made-up nodes where the objects have none.
pub fn simulate(objects: Vec<Object>, config: &Config, nodes: usize) -> Simulation {
    let now = start(&objects);
    let (mut world, mut notes) = defaults::prepare(objects, config);
    add_nodes(&mut world, config, nodes, now, &mut notes);
    let mut memory = Memory::new(world, now);
    let mut settled = false;
    for _ in 0..MAX_ROUNDS {
        let writes = crate::step(&memory.world, config, now);
        let mut changed = writes.iter().any(|write| !matches!(write, Write::Event(_)));
        for write in &writes {
            // A refused write is one that another write of this round has overtaken.
            let _ = memory.apply(write, now);
        }
        changed |= play_kubelets(&mut memory, now);
        if !changed {
            settled = true;
            break;
        }
    }
    if !settled {
        notes.push(format!("the controllers had not settled after {MAX_ROUNDS} rounds; what follows is their last state"));
    }
    Simulation {
        world: memory.world,
        events: memory.events,
        notes,
        settled,
    }
}

/// A fixed time not before any of the objects, so that the same folder gives the same answer.
fn start(objects: &[Object]) -> Timestamp {
    const DAY_2026: i64 = 1_767_225_600;
    let fixed = Timestamp::from_second(DAY_2026).unwrap_or(Timestamp::UNIX_EPOCH);
    objects
        .iter()
        .map(|object| pods::created(object.meta()))
        .fold(fixed, Timestamp::max)
}

fn add_nodes(
    world: &mut World,
    config: &Config,
    nodes: usize,
    now: Timestamp,
    notes: &mut Vec<String>,
) {
    if world.nodes.is_empty() {
        for number in 1..=nodes {
            world.insert(new_node(&format!("node-{number}")).into());
        }
    }
    let named: BTreeSet<String> = world
        .pods
        .values()
        .filter_map(|pod| pods::node_name(pod).map(str::to_owned))
        .collect();
    for name in named {
        if world.find::<Node>("", &name).is_none() {
            notes.push(format!(
                "node {name} is named by a pod but not among the objects; it is assumed to exist"
            ));
            world.insert(new_node(&name).into());
        }
    }
    let mut order: Vec<String> = world
        .nodes
        .values()
        .map(|node| name_of(node).to_owned())
        .collect();
    order.sort_by(|a, b| crate::scheduler::natural(a).cmp(&crate::scheduler::natural(b)));
    for (index, name) in order.iter().enumerate() {
        if let Some(node) = world.nodes.get_mut(&(String::new(), name.clone())) {
            complete_node(node, config, index as u128 + 1, now);
        }
    }
}

fn new_node(name: &str) -> Node {
    let mut node = Node::default();
    node.metadata.name = Some(name.to_owned());
    let label = ("kubernetes.io/hostname".to_owned(), name.to_owned());
    node.metadata.labels = Some([label].into());
    node
}

/// What the node's kubelet would have reported, where nothing is reported yet.
fn complete_node(node: &mut Node, config: &Config, number: u128, now: Timestamp) {
    let name = name_of(node).to_owned();
    let status = node.status.get_or_insert_default();
    let has_ip = status
        .addresses
        .iter()
        .flatten()
        .any(|address| address.type_ == "InternalIP");
    if !has_ip {
        let address = |kind: &str, address: String| NodeAddress {
            type_: kind.to_owned(),
            address,
        };
        let addresses = status.addresses.get_or_insert_default();
        let inside = config
            .underlay
            .iter()
            .filter_map(|net| nth_address(*net, host_part(net, number)));
        addresses.extend(inside.map(|ip| address("InternalIP", ip.to_string())));
        addresses.push(address("Hostname", name));
        report_underlay(node, config, number);
    }
    let status = node.status.get_or_insert_default();
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|c| c.type_ == "Ready") {
        // An exported node was heard of when it was exported; time has not passed since.
        Some(ready) => ready.last_heartbeat_time = Some(Time(now)),
        None => conditions.push(NodeCondition {
            type_: "Ready".to_owned(),
            status: "True".to_owned(),
            reason: Some("KubeletReady".to_owned()),
            message: Some("assumed ready".to_owned()),
            last_heartbeat_time: Some(Time(now)),
            last_transition_time: Some(Time(now)),
        }),
    }
}

/// The place of a lab's node on the underlay.
fn host_part(net: &IpNet, number: u128) -> u128 {
    if net.addr().is_ipv4() {
        10 + number
    } else {
        0x10 + number
    }
}

/// What the agent of a lab's node would have reported.
fn report_underlay(node: &mut Node, config: &Config, number: u128) {
    let on_link = |net: &IpNet| {
        let address = nth_address(*net, host_part(net, number))?;
        IpNet::new(address, net.prefix_len()).ok()
    };
    let underlay = Underlay {
        interface: "eth0".to_owned(),
        mtu: 1500,
        addresses: config.underlay.iter().filter_map(on_link).collect(),
        gateways: config
            .underlay
            .iter()
            .filter_map(|net| nth_address(*net, 1))
            .collect(),
        advertised: false,
        egress: Vec::new(),
        config: None,
        other: None,
        unlearned: Vec::new(),
        cards: Vec::new(),
        node_ports: Vec::new(),
    };
    let annotations = node.metadata.annotations.get_or_insert_default();
    annotations
        .entry(Underlay::ANNOTATION.to_owned())
        .or_insert_with(|| serde_json::json!(underlay).to_string());
}

/// Every placed pod runs and is ready, every deleted one ends. Says whether anything changed.
fn play_kubelets(memory: &mut Memory, now: Timestamp) -> bool {
    let mut used: BTreeSet<IpAddr> = memory.world.pods.values().flat_map(addresses).collect();
    let placed: Vec<Pod> = memory
        .world
        .pods
        .values()
        .filter(|pod| pods::node_name(pod).is_some())
        .cloned()
        .collect();
    let mut changed = false;
    for pod in placed {
        if is_terminating(&pod.metadata) {
            changed |= end(memory, &pod, now);
            continue;
        }
        let running = pods::phase(&pod) != "Pending"
            && (pods::is_finished(&pod) || !addresses(&pod).is_empty());
        let node = memory
            .world
            .find::<Node>("", pods::node_name(&pod).unwrap_or_default());
        let Some(node) = node.filter(|_| !running).cloned() else {
            continue;
        };
        let Some(ips) = pod_addresses(&pod, &node, &used) else {
            continue;
        };
        used.extend(&ips);
        memory.change_pod(namespace_of(&pod), name_of(&pod), |pod| {
            start_pod(pod, &node, &ips, now)
        });
        changed = true;
    }
    changed
}

fn end(memory: &mut Memory, pod: &Pod, now: Timestamp) -> bool {
    let target = crate::object::reference(pod);
    let delete = crate::write::Delete {
        target,
        grace_seconds: Some(0),
        ..Default::default()
    };
    let before = memory.world.pods.len();
    let _ = memory.apply(&Write::Delete(delete), now);
    memory.world.pods.len() != before
}

fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let status = pod.status.as_ref();
    let texts = status
        .into_iter()
        .flat_map(|s| s.pod_ips.iter().flatten().map(|ip| &ip.ip).chain(&s.pod_ip));
    let mut all: Vec<IpAddr> = texts.filter_map(|text| text.parse().ok()).collect();
    all.dedup();
    all
}

fn node_addresses(node: &Node) -> Vec<IpAddr> {
    let listed = node
        .status
        .as_ref()
        .and_then(|s| s.addresses.as_deref())
        .unwrap_or_default();
    listed
        .iter()
        .filter(|a| a.type_ == "InternalIP")
        .filter_map(|a| a.address.parse().ok())
        .collect()
}

/// The lowest free address of each of the node's CIDRs, from host part 2; `None` while it has none.
fn pod_addresses(pod: &Pod, node: &Node, used: &BTreeSet<IpAddr>) -> Option<Vec<IpAddr>> {
    if pod.spec.as_ref().and_then(|s| s.host_network) == Some(true) {
        return Some(node_addresses(node));
    }
    let spec = node.spec.as_ref()?;
    let cidrs = spec
        .pod_cidrs
        .clone()
        .or_else(|| spec.pod_cidr.clone().map(|cidr| vec![cidr]))?;
    let nets = cidrs.iter().filter_map(|text| text.parse::<IpNet>().ok());
    nets.map(|net| {
        let candidates = (2u128..).map_while(|n| nth_address(net, n));
        candidates.into_iter().find(|ip| !used.contains(ip))
    })
    .collect()
}

fn start_pod(pod: &mut Pod, node: &Node, ips: &[IpAddr], now: Timestamp) {
    let spec = pod.spec.clone().unwrap_or_default();
    let hosts: Vec<String> = node_addresses(node).iter().map(IpAddr::to_string).collect();
    let texts: Vec<String> = ips.iter().map(IpAddr::to_string).collect();
    for kind in ["Initialized", "ContainersReady", "Ready", "PodScheduled"] {
        let condition = PodCondition {
            type_: kind.to_owned(),
            status: "True".to_owned(),
            ..PodCondition::default()
        };
        pods::set_condition(pod, condition, now);
    }
    let running = |container: &Container| ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        ready: true,
        started: Some(true),
        state: Some(ContainerState {
            running: Some(ContainerStateRunning {
                started_at: Some(Time(now)),
            }),
            ..ContainerState::default()
        }),
        ..ContainerStatus::default()
    };
    let status = pod.status.get_or_insert_default();
    status.phase = Some("Running".to_owned());
    status.start_time = Some(Time(now));
    status.host_ip = hosts.first().cloned();
    status.host_ips = Some(hosts.into_iter().map(|ip| HostIP { ip }).collect());
    status.pod_ip = texts.first().cloned();
    status.pod_ips = Some(texts.into_iter().map(|ip| PodIP { ip }).collect());
    status.container_statuses = Some(spec.containers.iter().map(running).collect());
}
