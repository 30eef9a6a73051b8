//! Random clusters and questions, for properties and for comparisons with the kernel.
//!
//! A [`Scene`] prints as the text that the tests' fixture reads, so that what fails can be read, kept
//! and cut down by hand. Addresses are given out as the lab and the CNI plugin do: node N has host part
//! 10+N, its pods 2, 3, ….
//!
//! Left out, since they are cases of their own: nodes whose agent is silent, two Services with one
//! address, and nodes that list their families in different orders.

#![allow(dead_code, reason = "each test includes what it needs of this")]

use std::fmt;

use parfait_inspect::{Answer, Side};
use parfait_packet::Verdict;
use proptest::prelude::*;
use proptest::sample::select;

/// The ports at which something listens, in every pod and on every node.
pub const LISTENING: [u16; 2] = [8080, 9090];

/// A pod's host port is this and its number; it leads to this port of the pod.
pub const HOST_PORTS: (u16, u16) = (8100, 8080);

/// Addresses outside of the cluster.
pub const OUTSIDE: [&str; 2] = ["198.51.100.1", "2001:db8::1"];

/// How nodes are sent packets from outside: by the router of their segment.
pub fn router(segment: u8, family: u8) -> String {
    match family {
        4 => format!("192.168.{segment}.1"),
        _ => format!("fd00:{segment}::1"),
    }
}

/// The addresses that every node answers itself.
pub const AGENT: [&str; 2] = ["10.96.0.10", "fd00:10:96::a"];

/// A cluster.
#[derive(Clone, Debug)]
pub struct Scene {
    pub routing: &'static str,
    /// The families of pods and Services, 4 or 6, the first one first.
    pub families: Vec<u8>,
    /// The underlay's, if they are others.
    pub underlay: Vec<u8>,
    /// For each node its segment, 77 or 88.
    pub nodes: Vec<u8>,
    pub pods: Vec<Pod>,
    pub services: Vec<Service>,
}

/// A pod.
#[derive(Clone, Debug)]
pub struct Pod {
    /// From 1.
    pub node: usize,
    pub life: Life,
    /// The protocol of a port of its node that leads to it.
    pub host_port: Option<&'static str>,
}

/// How far a pod has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Running,
    OnTheHostsNetwork,
    Pending,
    Succeeded,
}

/// A Service and its EndpointSlices.
#[derive(Clone, Debug)]
pub struct Service {
    pub headless: bool,
    pub ports: Vec<Port>,
    /// The pod's number, and its state as the fixture spells it (ready, if empty).
    pub endpoints: Vec<(usize, &'static str)>,
    pub traffic: Traffic,
}

/// How a Service wants its traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub node_ports: bool,
    pub balanced: bool,
    /// `loadBalancerSourceRanges`.
    pub sources: &'static str,
    pub external_ips: bool,
    /// `externalTrafficPolicy: Local`.
    pub local_outside: bool,
    /// `internalTrafficPolicy: Local`.
    pub local_inside: bool,
    pub affinity: Option<u32>,
    pub hints: Hints,
}

/// For whom endpoints are hinted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hints {
    #[default]
    Nobody,
    /// Each for its own zone.
    Zones,
    /// Each for its own node.
    Nodes,
    /// Each for its own zone, but for the first.
    SomeZones,
}

/// A Service's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    pub protocol: &'static str,
    pub port: u16,
    pub target: u16,
}

/// Who sends to whom.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    pub from: Party,
    pub to: Goal,
    pub protocol: &'static str,
    pub port: u16,
    pub family: u8,
}

/// A sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    Pod(usize),
    /// From 1.
    Node(usize),
    /// Somebody behind the router, which leads to this node what is for no other.
    Outside(usize),
}

impl Party {
    /// As it is typed.
    pub fn side(self, scene: &Scene, family: u8) -> Side {
        match self {
            Self::Pod(index) => Side::Pod(format!("p{index}"), None),
            Self::Node(number) => Side::Node(format!("node-{number}"), None),
            Self::Outside(by) => {
                let address = scene.outside_sender(by, family).unwrap_or_default();
                Side::Address(address.parse().expect("an address"), None)
            }
        }
    }
}

/// The part of an answer that is about what comes in by the sender's node, if that node may be led to at all.
pub fn entering(mut answer: Answer, from: Party) -> Option<Answer> {
    let Party::Outside(node) = from else {
        return Some(answer);
    };
    let comes = |way: &parfait_inspect::Way| way.there.first().map(|hop| hop.what.clone());
    let entries: std::collections::BTreeSet<_> = answer.ways.iter().map(comes).collect();
    let each = u64::try_from(entries.len()).expect("few");
    let wanted = format!("comes to node-{node} by eth0");
    answer
        .ways
        .retain(|way| comes(way).as_ref() == Some(&wanted));
    for way in &mut answer.ways {
        let (parts, of) = way.probability;
        way.probability = lowest(parts * each, of);
    }
    let worse = |worst: Verdict, way: &parfait_inspect::Way| worst.worse(way.verdict.clone());
    answer.verdict = answer.ways.iter().fold(Verdict::Delivered, worse);
    (!answer.ways.is_empty()).then_some(answer)
}

fn lowest(parts: u64, of: u64) -> (u64, u64) {
    let (mut a, mut b) = (parts, of);
    while b > 0 {
        (a, b) = (b, a % b);
    }
    (parts / a, of / a)
}

/// A receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    Pod(usize),
    /// A node's address on the underlay.
    Node(usize),
    /// The port of a pod's node that leads to the pod, if it has asked for one.
    HostPort(usize),
    /// A node's first address in the pod network.
    NodesOwnInPodNetwork(usize),
    Service(usize),
    /// The address of a Service's load balancer.
    Balanced(usize),
    /// The one in a Service's `externalIPs`.
    External(usize),
    /// The first node port of a Service at a node, from 1.
    NodePort(usize, usize),
    /// What every node answers itself, as it does for cluster DNS.
    Agent,
    /// An address of a node's pod CIDR that no pod has.
    Nobody(usize),
    /// An address of the pod network in no node's pod CIDR.
    NoNode,
    /// An address that a Service could have, and none has.
    NoService,
    Outside,
}

impl Scene {
    /// A node's address on the underlay.
    pub fn node_address(&self, node: usize, family: u8) -> Option<String> {
        self.underlay.contains(&family).then(|| {
            let segment = self.nodes[node - 1];
            match family {
                4 => format!("192.168.{segment}.{}", 10 + node),
                _ => format!("fd00:{segment}::1{node}"),
            }
        })
    }

    /// The address with this host part in a node's pod CIDR.
    pub fn in_pod_cidr(node: usize, family: u8, host: usize) -> String {
        match family {
            4 => format!("10.244.{node}.{host}"),
            _ => format!("fd00:10:244:{node}::{host:x}"),
        }
    }

    /// A pod's address, if it has one.
    pub fn pod_address(&self, index: usize, family: u8) -> Option<String> {
        let pod = &self.pods[index];
        match pod.life {
            Life::OnTheHostsNetwork => self.node_address(pod.node, family),
            Life::Pending => None,
            Life::Running | Life::Succeeded if !self.families.contains(&family) => None,
            Life::Succeeded => Some(Self::in_pod_cidr(pod.node, family, 200 + index)),
            Life::Running => {
                let before = self.pods[..index].iter();
                let earlier = before.filter(|p| p.node == pod.node && p.life == Life::Running);
                Some(Self::in_pod_cidr(pod.node, family, 2 + earlier.count()))
            }
        }
    }

    /// A Service's address.
    pub fn service_address(&self, index: usize, family: u8) -> Option<String> {
        let has = !self.services[index].headless && self.families.contains(&family);
        has.then(|| match family {
            4 => format!("10.96.0.{}", 20 + index),
            _ => format!("fd00:10:96::{:x}", 20 + index),
        })
    }

    /// The zone of a node.
    pub fn zone(node: usize) -> &'static str {
        ["zone-a", "zone-b"][node % 2]
    }

    /// A Service's address that leads to it from outside, in one of two ranges.
    fn outside_address(&self, range: u8, index: usize, family: u8) -> Option<String> {
        let has = !self.services[index].headless && self.families.contains(&family);
        has.then(|| match family {
            4 => format!("203.0.{range}.{}", 20 + index),
            _ => format!("2001:db8:{range}::{:x}", 20 + index),
        })
    }

    /// The address of its load balancer.
    pub fn balanced_address(&self, index: usize, family: u8) -> Option<String> {
        let address = self.outside_address(113, index, family);
        address.filter(|_| self.services[index].traffic.balanced)
    }

    /// The one in its `externalIPs`.
    pub fn external_address(&self, index: usize, family: u8) -> Option<String> {
        let address = self.outside_address(114, index, family);
        address.filter(|_| self.services[index].traffic.external_ips)
    }

    /// The address that a sender outside has.
    pub fn outside_sender(&self, node: usize, family: u8) -> Option<String> {
        let has = self.underlay.contains(&family);
        has.then(|| router(self.nodes[node - 1], family))
    }

    /// The goal's address, if it has one of this family.
    pub fn goal_address(&self, goal: Goal, family: u8) -> Option<String> {
        match goal {
            Goal::Pod(index) => self.pod_address(index, family),
            Goal::Node(node) => self.node_address(node, family),
            Goal::HostPort(index) => self.node_address(self.pods[index].node, family),
            Goal::NodesOwnInPodNetwork(_) | Goal::Nobody(_) if !self.families.contains(&family) => {
                None
            }
            Goal::NodesOwnInPodNetwork(node) => Some(Self::in_pod_cidr(node, family, 1)),
            Goal::Nobody(node) => Some(Self::in_pod_cidr(node, family, 99)),
            Goal::Service(index) => self.service_address(index, family),
            Goal::Balanced(index) => self.balanced_address(index, family),
            Goal::External(index) => self.external_address(index, family),
            Goal::NodePort(index, node) => {
                let service = &self.services[index];
                let has = service.traffic.node_ports && !service.headless;
                let address = self.node_address(node, family);
                address.filter(|_| has && self.families.contains(&family))
            }
            Goal::Agent => {
                let address = AGENT[usize::from(family == 6)].to_owned();
                self.families.contains(&family).then_some(address)
            }
            Goal::NoNode | Goal::NoService if !self.families.contains(&family) => None,
            Goal::NoNode => Some(Self::in_pod_cidr(9, family, 9)),
            Goal::NoService => {
                Some(["10.96.9.9", "fd00:10:96::909"][usize::from(family == 6)].to_owned())
            }
            Goal::Outside => Some(OUTSIDE[usize::from(family == 6)].to_owned()),
        }
    }

    fn service(&self, index: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service = &self.services[index];
        let addresses = self
            .families
            .iter()
            .filter_map(|v| self.service_address(index, *v));
        let addresses: Vec<_> = addresses.collect();
        let address = match service.headless {
            true => "headless".to_owned(),
            false => format!("ip={}", addresses.join(",")),
        };
        let ports = service.ports.iter().enumerate().map(|(nth, p)| {
            let node_port = match service.traffic.node_ports && !service.headless {
                true => format!("@{}", Self::node_port(index, nth)),
                false => String::new(),
            };
            format!(
                "{}:{}/{}>{}{node_port}",
                p.name(),
                p.port,
                p.protocol,
                p.target
            )
        });
        let ports = ports.collect::<Vec<_>>().join(",");
        write!(f, "service s{index} {address} ports={ports}")?;
        self.traffic(index, f)?;
        self.slices(index, f)
    }

    /// The port of every node that leads to a Service's nth port.
    pub fn node_port(index: usize, nth: usize) -> u16 {
        30_000 + u16::try_from(10 * index + nth).unwrap_or_default()
    }

    fn traffic(&self, index: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let traffic = self.services[index].traffic;
        let families = self.families.iter();
        let balanced = families
            .clone()
            .filter_map(|v| self.balanced_address(index, *v));
        let external = families.filter_map(|v| self.external_address(index, *v));
        let lists = [
            ("balanced", balanced.collect::<Vec<_>>()),
            ("externalIPs", external.collect()),
            ("sources", vec![traffic.sources.to_owned()]),
        ];
        for (word, list) in lists {
            let text = list.join(",");
            if !text.is_empty() {
                write!(f, " {word}={text}")?;
            }
        }
        for (word, local) in [
            ("externalPolicy", traffic.local_outside),
            ("internalPolicy", traffic.local_inside),
        ] {
            if local {
                write!(f, " {word}=Local")?;
            }
        }
        match traffic.affinity {
            Some(seconds) => writeln!(f, " affinity={seconds}"),
            None => writeln!(f),
        }
    }

    /// For whom an endpoint is hinted, as the fixture spells it.
    fn hint(&self, index: usize, nth: usize, node: usize) -> String {
        match self.services[index].traffic.hints {
            Hints::Zones => format!("~{}", Self::zone(node)),
            Hints::SomeZones if nth > 0 => format!("~{}", Self::zone(node)),
            Hints::Nodes => format!("~node-{node}"),
            Hints::Nobody | Hints::SomeZones => String::new(),
        }
    }

    fn slices(&self, index: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service = &self.services[index];
        for family in &self.families {
            let endpoints = service.endpoints.iter().enumerate();
            let endpoints = endpoints.filter_map(|(nth, (pod, state))| {
                let address = self.pod_address(*pod, *family)?;
                let node = self.pods[*pod].node;
                let hint = self.hint(index, nth, node);
                Some(format!("{address}@node-{node}/p{pod}{state}{hint}"))
            });
            let endpoints: Vec<_> = endpoints.collect();
            let ports = service.ports.iter();
            let ports = ports.map(|p| format!("{}:{}/{}", p.name(), p.target, p.protocol));
            writeln!(
                f,
                "slice s{index}-v{family} of=s{index} family=IPv{family} ports={} endpoints={}",
                ports.collect::<Vec<_>>().join(","),
                endpoints.join(",")
            )?;
        }
        Ok(())
    }
}

impl Port {
    fn name(&self) -> String {
        format!("{}{}", self.protocol.to_lowercase(), self.port)
    }
}

impl fmt::Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has = |family| self.families.contains(&family);
        let both = |four: String, six: String| match (has(4), has(6)) {
            (true, true) => format!("{four},{six}"),
            (true, false) => four,
            _ => six,
        };
        let pods = both("10.244.0.0/16".to_owned(), "fd00:10:244::/56".to_owned());
        let services = both("10.96.0.0/16".to_owned(), "fd00:10:96::/112".to_owned());
        let routing = self.routing;
        writeln!(
            f,
            "config routing={routing} clusterCIDRs={pods} serviceCIDRs={services}"
        )?;
        for (node, segment) in (1..).zip(&self.nodes) {
            let pods = both(
                format!("10.244.{node}.0/24"),
                format!("fd00:10:244:{node}::/64"),
            );
            let addresses = self.underlay.iter().filter_map(|family| {
                let length = if *family == 4 { 24 } else { 64 };
                Some(format!("{}/{length}", self.node_address(node, *family)?))
            });
            let gateways = self.underlay.iter().map(|family| match family {
                4 => format!("192.168.{segment}.1"),
                _ => format!("fd00:{segment}::1"),
            });
            writeln!(
                f,
                "node node-{node} zone={} pods={pods} underlay={} gateway={}",
                Self::zone(node),
                addresses.collect::<Vec<_>>().join(","),
                gateways.collect::<Vec<_>>().join(",")
            )?;
        }
        for (index, pod) in self.pods.iter().enumerate() {
            let addresses = [4, 6].map(|family| self.pod_address(index, family));
            let addresses: Vec<_> = addresses.into_iter().flatten().collect();
            let life = match pod.life {
                Life::Running => "",
                Life::OnTheHostsNetwork => " hostNetwork",
                Life::Pending => " phase=Pending",
                Life::Succeeded => " phase=Succeeded",
            };
            let (from, to) = HOST_PORTS;
            let number = from + u16::try_from(index).unwrap_or_default();
            let host_port = pod
                .host_port
                .map(|protocol| format!(" hostPorts={number}/{protocol}>{to}"));
            writeln!(
                f,
                "pod p{index} on=node-{} ip={}{life}{}",
                pod.node,
                addresses.join(","),
                host_port.unwrap_or_default()
            )?;
        }
        let agent = both(AGENT[0].to_owned(), AGENT[1].to_owned());
        writeln!(f, "service dns ip={agent} ports=53/UDP servedByNode")?;
        (0..self.services.len()).try_for_each(|index| self.service(index, f))
    }
}

/// Any cluster of up to four nodes, eight pods and three Services.
pub fn scene() -> impl Strategy<Value = Scene> {
    let families = select(vec![vec![4], vec![6], vec![4, 6], vec![4, 6], vec![6, 4]]);
    let nodes = prop::collection::vec(select(vec![77, 77, 88]), 1..=4);
    (
        select(vec!["auto", "auto", "vxlan", "direct"]),
        families,
        nodes,
        any::<u8>(),
    )
        .prop_flat_map(|(routing, families, nodes, mixed)| {
            let pods = prop::collection::vec(pod(nodes.len()), 1..=8);
            // Sometimes IPv6 pods over an underlay that has only IPv4.
            let underlay = match (mixed % 6, routing) {
                (0, "auto" | "vxlan") => vec![4],
                _ => families.clone(),
            };
            (
                Just(routing),
                Just(families),
                Just(underlay),
                Just(nodes),
                pods,
            )
        })
        .prop_flat_map(|(routing, families, underlay, nodes, pods)| {
            let services = services(pods.clone());
            let others = (Just(routing), Just(families), Just(underlay));
            (others, Just(nodes), Just(pods), services)
        })
        .prop_map(
            |((routing, families, underlay), nodes, pods, services)| Scene {
                routing,
                families,
                underlay,
                nodes,
                pods,
                services,
            },
        )
}

/// Any Services with these pods as their endpoints.
pub fn services(pods: Vec<Pod>) -> impl Strategy<Value = Vec<Service>> {
    prop::collection::vec(service(), 0..=3).prop_map(move |mut services| {
        for service in &mut services {
            let mut seen = Vec::new();
            service.endpoints.retain_mut(|(pod, _)| {
                *pod %= pods.len();
                let usable = matches!(pods[*pod].life, Life::Running | Life::OnTheHostsNetwork);
                let fresh = !seen.contains(pod);
                seen.push(*pod);
                usable && fresh
            });
            service
                .ports
                .dedup_by_key(|port| (port.protocol, port.port));
        }
        services
    })
}

fn pod(nodes: usize) -> impl Strategy<Value = Pod> {
    let life = prop_oneof![
        8 => Just(Life::Running),
        1 => Just(Life::OnTheHostsNetwork),
        1 => Just(Life::Pending),
        1 => Just(Life::Succeeded),
    ];
    let host_port = select(vec![None, None, Some("TCP"), Some("UDP")]);
    (1..=nodes, life, host_port).prop_map(|(node, life, host_port)| Pod {
        node,
        life,
        host_port,
    })
}

fn service() -> impl Strategy<Value = Service> {
    let port = (
        select(vec!["TCP", "TCP", "UDP", "UDP", "SCTP"]),
        select(LISTENING.to_vec()),
    )
        .prop_map(|(protocol, target)| Port {
            protocol,
            port: 80,
            target,
        });
    let state = select(vec![
        "",
        "",
        "",
        "",
        "!notready",
        "!serving",
        "!terminating",
    ]);
    let endpoints = prop::collection::vec((0_usize..8, state), 0..=4);
    let headless = prop::bool::weighted(0.1);
    let ports = prop::collection::vec(port, 1..=2);
    (headless, ports, endpoints, traffic()).prop_map(|(headless, ports, endpoints, traffic)| {
        Service {
            headless,
            ports,
            endpoints,
            traffic,
        }
    })
}

/// Ranges that take in one segment of nodes and those behind its router, all pods, one family, or nobody here.
const SOURCES: [&str; 7] = [
    "",
    "",
    "192.168.77.0/24,fd00:77::/64",
    "10.244.0.0/16,fd00:10:244::/56",
    "192.168.77.1/32,fd00:77::1/128",
    "fd00:10:244::/56",
    "198.51.100.0/24,2001:db8::/64,198.51.100.128/25",
];

fn traffic() -> impl Strategy<Value = Traffic> {
    let hints = select(vec![
        Hints::Nobody,
        Hints::Nobody,
        Hints::Zones,
        Hints::Nodes,
        Hints::SomeZones,
    ]);
    let affinity = select(vec![None, None, Some(60), Some(10_800)]);
    let reached = (
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        select(&SOURCES[..]),
    );
    let local = (any::<bool>(), prop::bool::weighted(0.25));
    (reached, local, affinity, hints).prop_map(|(reached, local, affinity, hints)| Traffic {
        node_ports: reached.0,
        balanced: reached.1,
        external_ips: reached.2,
        sources: reached.3,
        local_outside: local.0,
        local_inside: local.1,
        affinity,
        hints,
    })
}

/// Any question about a cluster whose two sides have an address of the family.
pub fn asks(scene: &Scene, count: usize) -> impl Strategy<Value = Vec<Ask>> + use<> {
    let (pods, nodes) = (scene.pods.len(), scene.nodes.len());
    let services = scene.services.len();
    let from = prop_oneof![
        3 => (0..pods).prop_map(Party::Pod),
        1 => (1..=nodes).prop_map(Party::Node),
        1 => (1..=nodes).prop_map(Party::Outside),
    ];
    let service = 0..services.max(1);
    let of_service = prop_oneof![
        2 => service.clone().prop_map(Goal::Service),
        1 => service.clone().prop_map(Goal::Balanced),
        1 => service.clone().prop_map(Goal::External),
        1 => (service, 1..=nodes).prop_map(|(service, node)| Goal::NodePort(service, node)),
    ];
    let to = prop_oneof![
        3 => (0..pods).prop_map(Goal::Pod),
        1 => (1..=nodes).prop_map(Goal::Node),
        2 => (0..pods).prop_map(Goal::HostPort),
        1 => (1..=nodes).prop_map(Goal::NodesOwnInPodNetwork),
        u32::from(services > 0) * 15 => of_service,
        1 => (1..=nodes).prop_map(Goal::Nobody),
        1 => Just(Goal::NoNode),
        1 => Just(Goal::NoService),
        1 => Just(Goal::Outside),
        1 => Just(Goal::Agent),
    ];
    let port = select(vec![80, 80, 80, 8080, 8080, 9090, 7]);
    let family = select(scene.families.clone());
    let protocol = select(vec!["TCP", "UDP"]);
    let ask =
        (from, to, protocol, port, family).prop_map(|(from, to, protocol, port, family)| Ask {
            from,
            to,
            protocol,
            port,
            family,
        });
    let scene = scene.clone();
    let usable = prop::collection::vec(ask, count * 3);
    usable.prop_map(move |asks| {
        let usable = asks.into_iter().filter_map(|ask| scene.meant(ask));
        usable.take(count).collect()
    })
}

impl Scene {
    /// The question with the ports that there are, if both sides have an address of the family and the packet could be
    /// sent.
    fn meant(&self, mut ask: Ask) -> Option<Ask> {
        let first = |index: usize| self.services[index].ports.first();
        match ask.to {
            Goal::HostPort(index) => {
                ask.port = HOST_PORTS.0 + u16::try_from(index).unwrap_or_default();
            }
            Goal::NodePort(index, _) => {
                ask.port = Self::node_port(index, 0);
                ask.protocol = first(index)?.protocol;
            }
            Goal::Balanced(index) | Goal::External(index) => {
                (ask.protocol, ask.port) = (first(index)?.protocol, first(index)?.port);
            }
            Goal::Service(index) if ask.port == 80 => ask.protocol = first(index)?.protocol,
            _ => {}
        }
        let sender = match ask.from {
            Party::Pod(index) => self.pod_address(index, ask.family),
            Party::Node(node) => self.node_address(node, ask.family),
            Party::Outside(node) => self.outside_sender(node, ask.family),
        };
        // Nobody outside knows the way to other addresses; a node is sent its own packets.
        let led = match (ask.from, ask.to) {
            (Party::Outside(_), Goal::Balanced(_) | Goal::External(_)) => true,
            (Party::Outside(by), Goal::NodePort(_, node) | Goal::Node(node)) => by == node,
            (Party::Outside(by), Goal::HostPort(index)) => by == self.pods[index].node,
            (Party::Outside(_), _) => false,
            _ => true,
        };
        let has_addresses = sender.is_some() && self.goal_address(ask.to, ask.family).is_some();
        (led && has_addresses).then_some(ask)
    }
}
