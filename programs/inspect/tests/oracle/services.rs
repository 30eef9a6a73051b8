//! What Kubernetes promises about Services: "Virtual IPs and Service Proxies", "Traffic Policies", "Topology Aware
//! Routing" and KEP-1669, KEP-2086, KEP-2433.
//!
//! - Whoever connects from a pod or a node to one of a Service's addresses is served by what its own node knows. What
//!   comes to another node's port, or from outside, is served by the node it comes to.
//! - `internalTrafficPolicy` is for the Service's own addresses, `externalTrafficPolicy` for the others, and only for
//!   clients that are outside the cluster: for others these lead to any endpoint.
//! - Hints are heeded if every ready endpoint has one and one is for the node or its zone.
//! - An endpoint sees the client, unless answers would not find back to the node that translated.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use parfait_packet::Reason;

use super::{Promise, Receiver, direct, ip, nodes_own, refused, sources};
use crate::random::{Ask, Goal, Hints, Life, Party, Port, Scene, Service};

/// A connection to one of a Service's addresses, on the node that translates it.
struct Arrived<'s> {
    scene: &'s Scene,
    ask: Ask,
    service: &'s Service,
    node: usize,
    /// The sources that this node may see.
    from: BTreeSet<IpAddr>,
    /// Whether the client is on this node.
    here: bool,
}

/// What is promised to who connects to a Service.
pub(super) fn promise(scene: &Scene, ask: Ask, index: usize) -> Promise {
    let service = &scene.services[index];
    let has_way_out = scene.underlay.contains(&ask.family);
    let Some(port) = port(scene, ask, index) else {
        return refused(Reason::NoSuchServicePort, has_way_out);
    };
    let arrived = Arrived::new(scene, ask, service);
    let takers = arrived.endpoints(|state| matches!(state, "" | "!serving"), &|_| true);
    if takers.is_empty() {
        return refused(Reason::NoEndpoints, has_way_out);
    }
    match arrived.allowed() {
        Some(true) => {}
        Some(false) => return Promise::Lost(vec![Reason::SourceNotAllowed]),
        None => return Promise::Anything,
    }
    let candidates = match arrived.local() {
        Some(true) => arrived.candidates_here(),
        Some(false) => arrived.candidates(),
        None => return Promise::Anything,
    };
    if candidates.is_empty() {
        return refused(Reason::NoLocalEndpoints, has_way_out);
    }
    let receivers = candidates.into_iter().map(|at| Receiver {
        at,
        port: port.target,
        sees: arrived.seen_at(at),
    });
    Promise::Delivered(receivers.collect())
}

fn port(scene: &Scene, ask: Ask, index: usize) -> Option<Port> {
    let mut ports = scene.services[index].ports.iter().enumerate();
    let number = |nth: usize, port: &Port| match ask.to {
        Goal::NodePort(..) => Scene::node_port(index, nth),
        _ => port.port,
    };
    let found =
        ports.find(|(nth, port)| (port.protocol, number(*nth, port)) == (ask.protocol, ask.port));
    found.map(|(_, port)| *port)
}

impl<'s> Arrived<'s> {
    fn new(scene: &'s Scene, ask: Ask, service: &'s Service) -> Self {
        let of = match ask.from {
            Party::Pod(index) => scene.pods[index].node,
            Party::Node(node) | Party::Outside(node) => node,
        };
        let node = match ask.to {
            Goal::NodePort(_, node) => node,
            _ => of,
        };
        let outside = matches!(ask.from, Party::Outside(_));
        let underlay = |node| scene.node_address(node, ask.family).map(|text| ip(&text));
        let pod = match ask.from {
            Party::Pod(index) if scene.pods[index].life == Life::Running => {
                scene.pod_address(index, ask.family).map(|text| ip(&text))
            }
            _ => None,
        };
        let here = of == node && !outside;
        let seen = match (outside, pod) {
            (true, _) => scene.outside_sender(node, ask.family).map(|text| ip(&text)),
            (false, Some(pod)) if here || direct(scene, of, node, ask.family) => Some(pod),
            (false, _) => underlay(of),
        };
        Self {
            scene,
            ask,
            service,
            node,
            from: seen.into_iter().collect(),
            here,
        }
    }

    /// Whether the source may use the address; `None` if it depends on which the node's own is.
    fn allowed(&self) -> Option<bool> {
        let ranges = self.service.traffic.sources.split(',');
        let ranges = ranges.filter_map(|text| text.parse::<IpNet>().ok());
        let of_family = |net: &IpNet| net.addr().is_ipv4() == (self.ask.family == 4);
        let ranges: Vec<IpNet> = ranges.filter(of_family).collect();
        if !matches!(self.ask.to, Goal::Balanced(_)) || ranges.is_empty() {
            return Some(true);
        }
        same(
            self.from
                .iter()
                .map(|from| ranges.iter().any(|net| net.contains(from))),
        )
    }

    /// Whether only endpoints of this node count.
    fn local(&self) -> Option<bool> {
        let traffic = self.service.traffic;
        if matches!(self.ask.to, Goal::Service(_)) {
            return Some(traffic.local_inside);
        }
        if self.here || !traffic.local_outside {
            return Some(false);
        }
        let pods = ["10.244.0.0/16", "fd00:10:244::/56"];
        let pods = pods.map(|text| text.parse::<IpNet>().expect("a network"));
        same(
            self.from
                .iter()
                .map(|from| !pods.iter().any(|net| net.contains(from))),
        )
    }

    fn endpoints(
        &self,
        state: impl Fn(&str) -> bool,
        near: &dyn Fn(usize) -> bool,
    ) -> BTreeSet<IpAddr> {
        let endpoints = self.service.endpoints.iter();
        let of_state = endpoints.filter(|(_, text)| state(text));
        let near = of_state.filter(|(pod, _)| near(self.scene.pods[*pod].node));
        let addresses = near.filter_map(|(pod, _)| self.scene.pod_address(*pod, self.ask.family));
        addresses.map(|text| ip(&text)).collect()
    }

    fn candidates_here(&self) -> BTreeSet<IpAddr> {
        let here = |node| node == self.node;
        let ready = self.endpoints(|state| state.is_empty(), &here);
        match ready.is_empty() {
            true => self.endpoints(|state| state == "!serving", &here),
            false => ready,
        }
    }

    fn candidates(&self) -> BTreeSet<IpAddr> {
        let ready = |near: &dyn Fn(usize) -> bool| self.endpoints(str::is_empty, near);
        let first = self.service.endpoints.first();
        // An endpoint without a hint: nobody's is heeded.
        let unhinted = first.is_some_and(|(pod, state)| {
            state.is_empty() && self.scene.pod_address(*pod, self.ask.family).is_some()
        });
        let near = match self.service.traffic.hints {
            Hints::Nodes => ready(&|node| node == self.node),
            Hints::SomeZones if unhinted => BTreeSet::new(),
            Hints::Zones | Hints::SomeZones => {
                ready(&|node| Scene::zone(node) == Scene::zone(self.node))
            }
            Hints::Nobody => BTreeSet::new(),
        };
        let all = ready(&|_| true);
        match (near.is_empty(), all.is_empty()) {
            (false, _) => near,
            (true, false) => all,
            (true, true) => self.endpoints(|state| state == "!serving", &|_| true),
        }
    }

    /// The sources that an endpoint may see.
    fn seen_at(&self, at: IpAddr) -> BTreeSet<IpAddr> {
        if self.here {
            return sources(self.scene, self.ask, at, true);
        }
        let family = self.ask.family;
        let own = self.scene.node_address(self.node, family);
        let mut pods = (0..self.scene.pods.len()).filter(|index| {
            let pod = &self.scene.pods[*index];
            pod.node == self.node && pod.life == Life::Running
        });
        let is_here = pods
            .any(|index| self.scene.pod_address(index, family).map(|text| ip(&text)) == Some(at));
        match is_here || own.map(|text| ip(&text)) == Some(at) {
            true => self.from.clone(),
            false => nodes_own(self.scene, self.node, family, true),
        }
    }
}

/// What all say, if they say the same.
fn same(mut each: impl Iterator<Item = bool>) -> Option<bool> {
    let first = each.next()?;
    each.all(|other| other == first).then_some(first)
}
