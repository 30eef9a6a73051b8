//! What Kubernetes promises about a packet, written down straight from its documentation and KEPs, without
//! routes, rulesets or nodes' state: whoever has read "Services, Load Balancing, and Networking" could
//! have written it.
//!
//! - Every pod can reach every other pod at its address, and is seen with its own.
//! - A Service's address and port lead to one of its ready endpoints, each as likely; if none is ready, to
//!   those still serving while they terminate (KEP-1669); if there are none of these, the client is refused.
//! - A pod's host port leads from its node's address to the pod, which sees who sends.
//! - An address that no Service and no pod has is refused.
//! - Whoever leaves the pod network is seen with the node's address where pod addresses mean nothing.

mod services;

use std::collections::BTreeSet;
use std::net::IpAddr;

use parfait_inspect::Answer;
use parfait_packet::{Reason, Verdict};

use crate::random::{AGENT, Ask, Goal, HOST_PORTS, Life, Party, Scene};

/// What is promised.
#[derive(Debug)]
pub enum Promise {
    /// One of these, each as likely.
    Delivered(Vec<Receiver>),
    /// Not delivered, for one of these reasons.
    Lost(Vec<Reason>),
    /// Nobody can tell.
    Unknown,
    /// It depends on what is not promised.
    Anything,
}

/// Who receives.
#[derive(Debug)]
pub struct Receiver {
    at: IpAddr,
    port: u16,
    /// The sources it may see.
    sees: BTreeSet<IpAddr>,
}

/// What is promised about a question.
pub fn promise(scene: &Scene, ask: Ask) -> Promise {
    if let Party::Pod(index) = ask.from
        && !matches!(
            scene.pods[index].life,
            Life::Running | Life::OnTheHostsNetwork
        )
    {
        let reason = match scene.pods[index].life {
            Life::Pending => Reason::PodNotKnown,
            _ => Reason::PodNotRunning,
        };
        return Promise::Lost(vec![reason]);
    }
    let has_way_out = scene.underlay.contains(&ask.family);
    let address = scene.goal_address(ask.to, ask.family).map(|text| ip(&text));
    let straight = |at: IpAddr| {
        let sees = sources(scene, ask, at, false);
        Promise::Delivered(vec![Receiver {
            at,
            port: ask.port,
            sees,
        }])
    };
    match (ask.to, address) {
        (Goal::HostPort(index), Some(node)) => {
            let pod = scene.pod_address(index, ask.family).map(|text| ip(&text));
            let asked = scene.pods[index].life == Life::Running
                && scene.pods[index].host_port == Some(ask.protocol);
            match pod.filter(|_| asked) {
                None => straight(node),
                Some(at) => {
                    let itself = ask.from == Party::Pod(index);
                    let sees = sources(scene, ask, if itself { at } else { node }, itself);
                    let port = HOST_PORTS.1;
                    Promise::Delivered(vec![Receiver { at, port, sees }])
                }
            }
        }
        (
            Goal::Service(index)
            | Goal::Balanced(index)
            | Goal::External(index)
            | Goal::NodePort(index, _),
            Some(_),
        ) => services::promise(scene, ask, index),
        (Goal::NoService, Some(_)) => refused(Reason::NoService, has_way_out),
        (Goal::Pod(index), Some(_)) if scene.pods[index].life == Life::Succeeded => {
            Promise::Lost(vec![Reason::NoSuchAddress])
        }
        (Goal::Pod(_) | Goal::Node(_) | Goal::Agent, Some(at)) => straight(at),
        (Goal::NodesOwnInPodNetwork(node), Some(at)) if tunnels(scene, node, ask.family) => {
            straight(at)
        }
        (Goal::NodesOwnInPodNetwork(_), Some(_)) => Promise::Lost(vec![Reason::NoRoute]),
        (Goal::Nobody(_) | Goal::NoNode, Some(_)) => Promise::Lost(vec![Reason::NoSuchAddress]),
        (Goal::Outside, Some(_)) if has_way_out => Promise::Unknown,
        (Goal::Outside, Some(_)) => Promise::Lost(vec![Reason::OutsideCluster]),
        (_, None) => Promise::Lost(vec![Reason::FamilyMismatch]),
    }
}

/// Whether an answer keeps a promise; if not, why.
pub fn kept(promise: &Promise, answer: &Answer) -> Result<(), String> {
    match (promise, &answer.verdict) {
        (Promise::Anything, _) => Ok(()),
        (Promise::Lost(reasons), Verdict::NotDelivered { reason }) if reasons.contains(reason) => {
            Ok(())
        }
        (
            Promise::Unknown,
            Verdict::Unknown {
                reason: Reason::ExternalDestination,
            },
        ) => Ok(()),
        (Promise::Delivered(receivers), Verdict::Delivered) => {
            let each = u64::try_from(receivers.len()).map_err(|error| error.to_string())?;
            if answer.ways.len() != receivers.len() {
                return Err(format!("{} ways to {each} receivers", answer.ways.len()));
            }
            for receiver in receivers {
                let found = answer.ways.iter().find_map(|way| {
                    let packet = way.there.last()?.packet?;
                    let at = (packet.destination, packet.destination_port);
                    (at == (receiver.at, receiver.port)).then_some((way, packet))
                });
                let (way, packet) = found.ok_or_else(|| format!("no way to {}", receiver.at))?;
                if way.probability != (1, each) {
                    return Err(format!(
                        "{} is as likely as {:?}",
                        receiver.at, way.probability
                    ));
                }
                if !receiver.sees.contains(&packet.source) {
                    return Err(format!("{} sees {}", receiver.at, packet.source));
                }
            }
            Ok(())
        }
        (_, verdict) => Err(format!("{verdict:?}")),
    }
}

/// Without any way out of the node, its kernel refuses before it comes to Services.
fn refused(reason: Reason, has_way_out: bool) -> Promise {
    match has_way_out {
        true => Promise::Lost(vec![reason]),
        false => Promise::Lost(vec![reason, Reason::NoRoute]),
    }
}

/// The sources that a receiver may see.
fn sources(scene: &Scene, ask: Ask, at: IpAddr, through_service: bool) -> BTreeSet<IpAddr> {
    let (node, own) = match ask.from {
        Party::Node(node) => (node, None),
        Party::Outside(node) => {
            let sender = scene.outside_sender(node, ask.family);
            return sender.into_iter().map(|text| ip(&text)).collect();
        }
        Party::Pod(index) => {
            let pod = &scene.pods[index];
            let own = scene
                .pod_address(index, ask.family)
                .filter(|_| pod.life == Life::Running);
            (pod.node, own.map(|text| ip(&text)))
        }
    };
    let nodes_own = || {
        if ask.to == Goal::Agent {
            // A node speaks to each of its addresses from that address.
            return [at].into();
        }
        nodes_own(scene, node, ask.family, through_service)
    };
    let Some(own) = own else {
        return nodes_own();
    };
    // It would answer itself directly, and not be understood.
    if through_service && own == at {
        return nodes_own();
    }
    let receiving = (1..=scene.nodes.len()).find(|node| {
        scene
            .node_address(*node, ask.family)
            .is_some_and(|text| ip(&text) == at)
    });
    match receiving {
        Some(other) if other != node && !direct(scene, node, other, ask.family) => nodes_own(),
        _ => [own].into(),
    }
}

/// The sources with which a node may speak.
fn nodes_own(scene: &Scene, node: usize, family: u8, through_service: bool) -> BTreeSet<IpAddr> {
    let underlay = scene.node_address(node, family);
    let tunnel = tunnels(scene, node, family);
    let in_pod_network = tunnel.then(|| Scene::in_pod_cidr(node, family, 1));
    // IPv6 has no host scope: the kernel may lend a pod that meets itself what the agent answers at.
    let agent = (through_service && family == 6).then(|| AGENT[1].to_owned());
    let own = underlay.into_iter().chain(in_pod_network).chain(agent);
    own.map(|text| ip(&text)).collect()
}

/// Whether the underlay carries pod addresses between two nodes.
fn direct(scene: &Scene, one: usize, other: usize, family: u8) -> bool {
    let segment = |node: usize| scene.nodes[node - 1];
    scene.underlay.contains(&family)
        && match scene.routing {
            "direct" => true,
            "vxlan" => false,
            _ => segment(one) == segment(other),
        }
}

/// Whether a node has an address in the pod network: it tunnels to somebody.
fn tunnels(scene: &Scene, node: usize, family: u8) -> bool {
    let mut others = (1..=scene.nodes.len()).filter(|other| *other != node);
    others.any(|other| !direct(scene, node, other, family))
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
