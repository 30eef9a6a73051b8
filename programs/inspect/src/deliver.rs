//! The end of the way: a pod, or a node itself.

use std::net::IpAddr;

use parfait_cluster::{Bandwidth, ObjectName, Pod, rate};
use parfait_linux::{Mac, Unicast};
use parfait_packet::{Layer, Origin, Packet, Reason, Stage};

use crate::leg::{Arrival, Fate, Leg, Receiver, Step};
use crate::walk::Inside;
use crate::world::World;

/// A packet leaves a node for one of its pods.
pub(crate) fn to_pod(
    world: &World<'_>,
    inside: &Inside<'_>,
    way: &Unicast,
    (mac, origin): (Mac, Option<Origin>),
    mut leg: Leg,
) -> Arrival {
    let attachments = &inside.known.plan.link.attachments;
    let Some(attachment) = attachments
        .iter()
        .find(|a| a.interface == way.link && a.pod_mac == mac)
    else {
        return leg.lost(Reason::LinkDown);
    };
    let pod = world.snapshot.pods.get(&attachment.pod);
    leg.step(Step {
        place: &inside.place(),
        stage: Stage::Wire,
        layer: Layer::Link,
        what: format!(
            "veth {} to eth0 of pod {}{}",
            way.link,
            attachment.pod,
            at_most(
                pod.and_then(|pod| pod.bandwidth.ingress),
                Bandwidth::INGRESS
            )
        ),
        evidence: inside
            .known
            .state
            .neighbour(&way.link, way.next_hop)
            .map(|entry| entry.value.to_string())
            .unwrap_or_default(),
        origins: origin.into_iter().collect(),
    });
    if !attachment.addresses.contains(&leg.packet.destination) {
        return leg.lost(Reason::NotLocal);
    }
    let what = format!("pod {} on {}", attachment.pod, inside.name);
    received(world, &format!("pod {}", attachment.pod), pod, &mut leg);
    leg.ends(Fate::Delivered(Receiver {
        what,
        node: inside.name.to_owned(),
        pod: Some(attachment.pod.clone()),
    }))
}

/// What a token bucket does to more than it holds (`tbf` at the end that sends).
pub(crate) fn at_most(limit: Option<u64>, annotation: &str) -> String {
    limit.map_or_else(String::new, |bits| {
        format!(
            "; {} at most ({annotation}): what exceeds it waits, then is dropped",
            rate(bits)
        )
    })
}

/// A pod sends to its own address: that is its loopback, and never leaves it.
pub(crate) fn to_itself(world: &World<'_>, node: &str, pod: &Pod, mut leg: Leg) -> Arrival {
    let place = format!("pod {}", pod.name);
    let address = leg.packet.destination;
    leg.step(Step {
        place: &place,
        stage: Stage::Routing,
        layer: Layer::Internet,
        what: "its own address".to_owned(),
        evidence: format!("local {address} dev eth0"),
        origins: vec![pod.origin()],
    });
    received(world, &place, Some(pod), &mut leg);
    leg.ends(Fate::Delivered(Receiver {
        what: format!("pod {} on {node}", pod.name),
        node: node.to_owned(),
        pod: Some(pod.name.clone()),
    }))
}

/// A packet is the node's own.
pub(crate) fn to_node(world: &World<'_>, inside: &Inside<'_>, mut leg: Leg) -> Arrival {
    let address = leg.packet.destination;
    let served = inside
        .known
        .plan
        .internet
        .served
        .iter()
        .find(|s| s.address == address);
    let what = if let Some(served) = served {
        leg.step(Step {
            place: &inside.place(),
            stage: Stage::Delivery,
            layer: Layer::Application,
            what: "the node's agent answers itself".to_owned(),
            evidence: String::new(),
            origins: vec![served.origin.clone()],
        });
        format!("the agent of {}", inside.name)
    } else {
        let pod = host_network_pod(world, inside.name, &leg.packet);
        received(world, &inside.place(), pod, &mut leg);
        match pod {
            Some(pod) => format!("pod {} in the network of {}", pod.name, inside.name),
            None => format!("node {}", inside.name),
        }
    };
    leg.ends(Fate::Delivered(Receiver {
        what,
        node: inside.name.to_owned(),
        pod: None,
    }))
}

fn host_network_pod<'w>(world: &'w World<'_>, node: &str, packet: &Packet) -> Option<&'w Pod> {
    let mut pods = world.snapshot.pods_on(node).filter(|pod| pod.host_network);
    pods.find(|pod| declares(pod, packet))
}

fn declares(pod: &Pod, packet: &Packet) -> bool {
    let port = (packet.destination_port, packet.protocol);
    pod.ports
        .iter()
        .any(|declared| (declared.port, declared.protocol) == port)
}

fn received(world: &World<'_>, place: &str, pod: Option<&Pod>, leg: &mut Leg) {
    let packet = leg.packet;
    let mut what = format!("received from {}", from(packet.source, packet));
    if let Some(pod) = pod
        && packet.protocol.has_ports()
        && !leg.reply
        && !declares(pod, &packet)
    {
        let port = format!("port {}/{}", packet.destination_port, packet.protocol);
        what.push_str(&format!(
            "; no container declares {port}: refused unless one listens all the same"
        ));
        // Who declares others has probably not forgotten this one.
        if !pod.ports.is_empty() {
            world.tell(format!(
                "{port} is none that the receiver's containers declare: it arrives, and is refused unless one listens \
                 there all the same"
            ));
        }
    }
    leg.step(Step {
        place,
        stage: Stage::Delivery,
        layer: Layer::Transport,
        what,
        evidence: String::new(),
        origins: pod.map(Pod::origin).into_iter().collect(),
    });
}

fn from(address: IpAddr, packet: Packet) -> String {
    crate::render::socket(address, packet.source_port, packet.protocol)
}

/// The pod that sent the first packet, for the reply's end.
pub(crate) fn sender_is(fate: &Fate, node: &str, pod: Option<&ObjectName>) -> bool {
    match fate {
        Fate::Delivered(receiver) => receiver.node == node && receiver.pod.as_ref() == pod,
        _ => false,
    }
}
