//! A random cluster built for real: a fabric of two segments and a router, a network namespace for each
//! node and pod, the CNI plugin run for each pod, and each node's plan carried out as the agent does.
//!
//! ```text
//!   fabric: 198.51.100.1 on lo; br77 192.168.77.1/24 ── n1 ══ eth0 (node-1) ── pf… ══ eth0 (pod)
//!                               br88 192.168.88.1/24 ── n2 ══ eth0 (node-2) …
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::path::Path;

use ipnet::IpNet;
use parfait_agent::Machine;
use parfait_cluster::Snapshot;
use parfait_cni::NodeConfig;
use parfait_join::NodePlan;
use parfait_kernel::{Kernel, NetNs, Socket, sysctl};
use parfait_linux::{
    Address, IfName, Item, Link, LinkKind, Mtu, Object, Route, RouteProtocol, Step, Sysctl,
    SysctlKey,
};
use parfait_packet::{Family, Finding};
use serde_json::json;

use crate::random::{Ask, Goal, Life, OUTSIDE, Party, Scene};

/// The namespaces of one cluster. They go with this value.
pub struct Machines {
    pub fabric: NetNs,
    /// From index 0, node-1 on.
    pub nodes: Vec<NetNs>,
    /// Those of pods with a network of their own.
    pub pods: BTreeMap<usize, NetNs>,
    folders: Vec<tempfile::TempDir>,
}

impl Machines {
    /// Builds the cluster and attaches its pods. An error is a sentence.
    pub fn build(scene: &Scene, snapshot: &Snapshot) -> Result<Self, String> {
        let fabric = NetNs::create().map_err(text)?;
        let mut switch = Socket::open_in(&fabric).map_err(text)?;
        fabric.run(quick_errors).map_err(text)??;
        router(&mut switch)?;
        let mut machines = Self {
            fabric,
            nodes: Vec::new(),
            pods: BTreeMap::new(),
            folders: Vec::new(),
        };
        for (number, segment) in (1..).zip(&scene.nodes) {
            let node = node(scene, &mut switch, number, *segment)?;
            machines.nodes.push(node);
            machines.folders.push(tempfile::tempdir().map_err(text)?);
        }
        if scene.routing == "direct" {
            carry_pods(scene, &mut switch)?;
        }
        for (index, pod) in scene.pods.iter().enumerate() {
            if pod.life == Life::Running {
                let netns = machines.attach(scene, snapshot, index)?;
                machines.pods.insert(index, netns);
            }
        }
        Ok(machines)
    }

    /// Carries out every node's plan, and checks that nothing is then left to do or to find.
    pub fn plan(&self, snapshot: &Snapshot) -> Result<(), String> {
        for (number, netns) in (1..).zip(&self.nodes) {
            let name = format!("node-{number}");
            let plan = NodePlan::new(snapshot, &name);
            let run = || sync(&plan).map_err(|error| format!("{name}: {error}"));
            netns.run(run).map_err(text)??;
        }
        Ok(())
    }

    /// The router's way to an address outside that a node answers at: by the node that the sender goes by.
    pub fn way_in(
        &self,
        scene: &Scene,
        ask: Ask,
        address: IpAddr,
    ) -> Result<Option<Route>, String> {
        let (Party::Outside(by), Goal::Balanced(_) | Goal::External(_)) = (ask.from, ask.to) else {
            return Ok(None);
        };
        let node = scene.node_address(by, ask.family).unwrap_or_default();
        let via = node.parse().map_err(text)?;
        let way = route(IpNet::from(address), via, &bridge(scene.nodes[by - 1])?);
        let mut router = Socket::open_in(&self.fabric).map_err(text)?;
        execute(&mut router, &[create(way.clone())])?;
        Ok(Some(way))
    }

    /// Gives each node an address for pods to leave with, and lets the router know the way back to these and to pods.
    pub fn lead_back(&self, scene: &Scene) -> Result<(), String> {
        let mut router = Socket::open_in(&self.fabric).map_err(text)?;
        if scene.routing != "direct" {
            carry_pods(scene, &mut router)?;
        }
        let mut ways = Vec::new();
        for ((number, segment), netns) in (1..).zip(&scene.nodes).zip(&self.nodes) {
            let mut own = Vec::new();
            for family in &scene.underlay {
                let address = IpNet::from(crate::egress::chosen(number, *family));
                own.push(create(Address::new(IfName::loopback(), address)));
                let via = scene.node_address(number, *family).unwrap_or_default();
                let via = via.parse().map_err(text)?;
                ways.push(create(route(address, via, &bridge(*segment)?)));
            }
            execute(&mut Socket::open_in(netns).map_err(text)?, &own)?;
        }
        execute(&mut router, &ways)
    }

    /// Takes it away.
    pub fn close(&self, way: Option<Route>) -> Result<(), String> {
        let Some(way) = way else {
            return Ok(());
        };
        let mut router = Socket::open_in(&self.fabric).map_err(text)?;
        execute(&mut router, &[Step::Delete(way.into())])
    }

    /// The namespace that a pod sends from.
    pub fn of_pod(&self, scene: &Scene, index: usize) -> Option<&NetNs> {
        match scene.pods[index].life {
            Life::Running => self.pods.get(&index),
            Life::OnTheHostsNetwork => self.nodes.get(scene.pods[index].node - 1),
            Life::Pending | Life::Succeeded => None,
        }
    }

    fn attach(&self, scene: &Scene, snapshot: &Snapshot, index: usize) -> Result<NetNs, String> {
        let pod = NetNs::create().map_err(text)?;
        let node = scene.pods[index].node;
        let result = self.add(node, snapshot, &format!("p{index}"), &pod)?;
        for family in &scene.families {
            let wanted = scene.pod_address(index, *family).unwrap_or_default();
            if !result.contains(&format!("\"{wanted}/")) {
                return Err(format!(
                    "p{index}: {wanted} was expected of CNI, which gave {result}"
                ));
            }
        }
        Ok(pod)
    }

    /// Runs the CNI plugin's ADD for a pod, in the namespace of a node (from 1).
    pub fn add(
        &self,
        node: usize,
        snapshot: &Snapshot,
        name: &str,
        pod: &NetNs,
    ) -> Result<String, String> {
        let folder = self.folder(node);
        let config = node_config(snapshot, &format!("node-{node}"));
        config.write(folder).map_err(text)?;
        add(&self.nodes[node - 1], folder, name, pod)
    }

    /// Where a node (from 1) keeps what must survive.
    pub fn folder(&self, node: usize) -> &Path {
        self.folders[node - 1].path()
    }
}

fn node_config(snapshot: &Snapshot, name: &str) -> NodeConfig {
    let node = &snapshot.nodes[name];
    let mtu = parfait_link::plan(snapshot, name).pod_mtu;
    NodeConfig {
        node: name.to_owned(),
        addresses: node.addresses.clone(),
        pod_cidrs: node.pod_cidrs.clone(),
        mtu: mtu.unwrap_or(Mtu::ETHERNET).bytes(),
        ..NodeConfig::default()
    }
}

/// Runs the CNI plugin's ADD in a node's namespace; it must have been told of its node.
pub fn add(node: &NetNs, folder: &Path, name: &str, pod: &NetNs) -> Result<String, String> {
    let variables = BTreeMap::from([
        ("CNI_COMMAND", "ADD".to_owned()),
        ("CNI_CONTAINERID", format!("container-{name}")),
        (
            "CNI_NETNS",
            format!("/proc/{}/fd/{}", std::process::id(), pod.as_raw_fd()),
        ),
        ("CNI_IFNAME", "eth0".to_owned()),
        ("CNI_PATH", "/opt/cni/bin".to_owned()),
        (
            "CNI_ARGS",
            format!("K8S_POD_NAMESPACE=default;K8S_POD_NAME={name}"),
        ),
    ]);
    let network = json!({
        "cniVersion": "1.1.0", "name": "parfait", "type": "parfait", "stateDir": folder,
    })
    .to_string();
    let add = || {
        let environment = |key: &str| variables.get(key).cloned();
        parfait_cni::run(&environment, &mut network.as_bytes())
    };
    let added = node.run(add).map_err(text)?;
    added.map_err(|(error, _)| format!("CNI ADD of {name}: {error}"))
}

fn sync(plan: &NodePlan) -> Result<(), String> {
    let desired = plan.state();
    let mut machine = Machine::open().map_err(text)?;
    machine.sync(&desired).map_err(text)?;
    let stale = |tables: &_| parfait_transport::affinity::stale(&plan.transport, tables);
    let map = parfait_transport::affinity::MAP;
    machine.tend(map, stale).map_err(text)?;
    machine.forget();
    let again = machine.sync(&desired).map_err(text)?;
    if again != 0 {
        return Err(format!(
            "{again} steps were left after the plan was carried out"
        ));
    }
    machine.forget();
    let observed = machine.observe(&desired).map_err(text)?;
    let link = parfait_link::apply(&plan.link);
    let internet = parfait_internet::apply(&plan.internet);
    let transport = parfait_transport::apply(&plan.transport);
    let findings = [
        parfait_link::prove(&link, observed),
        parfait_internet::prove(&internet, observed),
        parfait_transport::prove(&transport, &observed.tables),
    ];
    let findings: Vec<_> = findings.iter().flatten().map(Finding::to_string).collect();
    match findings.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "found after the plan was carried out:\n{}",
            findings.join("\n")
        )),
    }
}

fn node(scene: &Scene, switch: &mut Socket, number: usize, segment: u8) -> Result<NetNs, String> {
    let netns = NetNs::create().map_err(text)?;
    netns.run(quick_errors).map_err(text)??;
    let plug = Link {
        master: Some(bridge(segment)?),
        ..Link::new(name(&format!("n{number}"))?, LinkKind::Veth { peer: None })
    };
    let eth0 = Link::new(name("eth0")?, LinkKind::Veth { peer: None });
    switch
        .create_veth(&plug, &eth0, Some(&netns))
        .map_err(text)?;
    execute(switch, &[Step::Change(item(plug))])?;
    let mut socket = Socket::open_in(&netns).map_err(text)?;
    socket.set_up(&IfName::loopback()).map_err(text)?;
    let mut steps = Vec::new();
    for family in &scene.underlay {
        let address = scene.node_address(number, *family).unwrap_or_default();
        let net = prefix(&address, if *family == 4 { 24 } else { 64 })?;
        steps.push(create(Address::new(eth0.name.clone(), net)));
        let gateway = gateways(segment)[usize::from(*family == 6)]
            .parse()
            .map_err(text)?;
        steps.push(create(route(everywhere(*family), gateway, &eth0.name)));
    }
    execute(&mut socket, &steps)?;
    Ok(netns)
}

/// Bridges, their addresses, and an address that stands for the world outside.
fn router(switch: &mut Socket) -> Result<(), String> {
    switch.set_up(&IfName::loopback()).map_err(text)?;
    let mut steps = Vec::new();
    for segment in [77, 88] {
        let bridge = bridge(segment)?;
        steps.push(create(Link::new(bridge.clone(), LinkKind::Bridge)));
        for (gateway, length) in gateways(segment).iter().zip([24, 64]) {
            steps.push(create(Address::new(
                bridge.clone(),
                prefix(gateway, length)?,
            )));
        }
    }
    for outside in OUTSIDE {
        let address: IpAddr = outside.parse().map_err(text)?;
        steps.push(create(Address::new(
            IfName::loopback(),
            IpNet::from(address),
        )));
    }
    for family in Family::ALL {
        steps.push(create(Sysctl::new(SysctlKey::forwarding(family), "1")));
    }
    execute(switch, &steps)
}

/// An underlay that carries pod addresses: the router knows where they are.
fn carry_pods(scene: &Scene, switch: &mut Socket) -> Result<(), String> {
    let mut steps = Vec::new();
    for (number, segment) in (1..).zip(&scene.nodes) {
        for family in &scene.families {
            let Some(address) = scene.node_address(number, *family) else {
                continue;
            };
            let cidr = Scene::in_pod_cidr(number, *family, 0);
            let cidr = prefix(&cidr, if *family == 4 { 24 } else { 64 })?;
            let via = address.parse().map_err(text)?;
            steps.push(create(route(cidr, via, &bridge(*segment)?)));
        }
    }
    execute(switch, &steps)
}

/// ICMP errors are limited to one a second; here each must arrive. (An IPv4 `icmp_ratelimit` of 0 would use
/// up what `ip_error` has left for a sender.)
fn quick_errors() -> Result<(), String> {
    for key in ["net.ipv4.icmp_ratemask", "net.ipv6.icmp.ratelimit"] {
        let key = SysctlKey::new(key).map_err(text)?;
        sysctl::write(&Sysctl::new(key, "0")).map_err(text)?;
    }
    let dad = SysctlKey::new("net.ipv6.conf.default.accept_dad").map_err(text)?;
    sysctl::write(&Sysctl::new(dad, "0")).map_err(text)
}

fn gateways(segment: u8) -> [String; 2] {
    [format!("192.168.{segment}.1"), format!("fd00:{segment}::1")]
}

fn bridge(segment: u8) -> Result<IfName, String> {
    name(&format!("br{segment}"))
}

fn name(name: &str) -> Result<IfName, String> {
    IfName::new(name).map_err(text)
}

fn prefix(address: &str, length: u8) -> Result<IpNet, String> {
    IpNet::new(address.parse().map_err(text)?, length).map_err(text)
}

fn everywhere(family: u8) -> IpNet {
    match family {
        4 => IpNet::V4(ipnet::Ipv4Net::default()),
        _ => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

fn route(destination: IpNet, via: IpAddr, link: &IfName) -> Route {
    Route {
        protocol: RouteProtocol::BOOT,
        ..Route::via(destination, via, link.clone())
    }
}

fn create(object: impl Into<Object>) -> Step {
    Step::Create(item(object))
}

fn item(object: impl Into<Object>) -> Item<Object> {
    Item::new(object.into(), None)
}

fn execute(socket: &mut Socket, steps: &[Step]) -> Result<(), String> {
    socket.execute(steps).map_err(|errors| {
        let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
        errors.join("; ")
    })
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
