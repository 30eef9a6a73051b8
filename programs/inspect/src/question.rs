//! [`explain`]: a question, answered.

use std::borrow::Cow;
use std::net::IpAddr;

use parfait_cluster::{Bandwidth, Node, ObjectName, Pod, Snapshot, Underlay};
use parfait_linux::RouteDecision;
use parfait_linux::nft::AddressType;
use parfait_packet::{Family, Hop, Layer, Packet, Protocol, Reason, Stage, Verdict};

use crate::answer::{Answer, Way};
use crate::deliver::{self, sender_is};
use crate::leg::{Arrival, Fate, FoundBy, Leg, Receiver, Step};
use crate::memory::{Memory, OnPaper};
use crate::outside;
use crate::resolve::{Error, Sender, Target, without_network};
use crate::side::Side;
use crate::walk::Walker;
use crate::world::World;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Who sends.
    pub from: Side,
    /// Who is meant to receive.
    pub to: Side,
    /// The port, where the target does not say it.
    pub port: Option<u16>,
    /// The protocol; the target's own, or TCP, where it is not given.
    pub protocol: Option<Protocol>,
    /// The IP family; the sender's first that both sides have, where it is not given.
    pub family: Option<Family>,
    /// The source port: asks for this very flow, as a node may track it already.
    pub source_port: Option<u16>,
    /// The namespace of names that name none: `default` for the sender, where it is not given, and the
    /// sender's own for the receiver.
    pub namespace: Option<String>,
    /// How large the packet is; without it, small.
    pub size: Option<Size>,
}

/// How large a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// With its IP header, in bytes.
    pub bytes: u32,
    /// It must not be cut into fragments: IPv4's DF bit; for IPv6, the sender does not either.
    pub whole: bool,
}

/// Walks the packet of a question, and its reply, through the cluster: the first packet of a connection.
///
/// # Errors
/// If the question names what is not there, or leaves open what it asks.
pub fn explain(snapshot: &Snapshot, question: &Question) -> Result<Answer, Error> {
    explain_with(snapshot, question, &OnPaper)
}

/// As [`explain`], but nodes' kernels can be asked what they remember.
///
/// # Errors
/// As [`explain`].
pub fn explain_with(
    snapshot: &Snapshot,
    question: &Question,
    memory: &dyn Memory,
) -> Result<Answer, Error> {
    let (snapshot, mut notes) = assume(snapshot);
    let sender = Sender::find(&snapshot, &question.from, question.namespace.as_deref())?;
    let mut target = Target::find(&snapshot, sender, question)?;
    notes.append(&mut target.notes);
    let addresses = sender.addresses();
    let world = World::new(&snapshot, memory, addresses, question.source_port);
    let families = shared(sender, &target);
    let family = question.family.or(families.first().copied());
    if let ([first, second], None) = (families.as_slice(), question.family) {
        notes.push(format!(
            "both sides also have {second}, and the sender's program chooses; this is the way of {first}"
        ));
    }
    if matches!(sender, Sender::Outside(_)) {
        notes.extend(outside::note(&snapshot, &target.addresses, family));
    }
    let ways = match destinations(&snapshot, sender, &target, family) {
        Err(reason) => vec![stillborn(reason)],
        Ok(packets) => {
            let each = u64::try_from(packets.len()).unwrap_or(u64::MAX);
            let mut ways = Vec::new();
            for packet in packets {
                let mut leg = Leg::new(packet);
                leg.weight = (1, each);
                leg.size = question.size;
                if let Some(port) = question.source_port.filter(|_| packet.protocol.has_ports()) {
                    leg.packet.source_port = port;
                }
                ways.extend(there_and_back(&world, sender, leg));
            }
            ways
        }
    };
    let meant = target
        .addresses
        .iter()
        .flat_map(|ip| outside::services_at(&snapshot, *ip));
    meant.for_each(|service| world.meet(service.name.clone()));
    let known = target.addresses.iter();
    let known = known.filter_map(|address| outside::announced(&snapshot, *address));
    notes.extend(known.map(|announced| announced.describe()));
    notes.extend(world.notes());
    let verdict = ways.iter().fold(Verdict::Delivered, |worst, way| {
        worst.worse(way.verdict.clone())
    });
    Ok(Answer {
        from: sender.describe(),
        to: target.what,
        protocol: target.protocol,
        port: target.port,
        verdict,
        name: target.name,
        ways,
        tracked: world.tracked(),
        notes,
    })
}

/// Nodes whose agents have not reported are assumed to have one interface of 1500 bytes and to share
/// no segment. The answer says so.
fn assume(snapshot: &Snapshot) -> (Cow<'_, Snapshot>, Vec<String>) {
    let silent = |node: &Node| node.underlay.is_none() && !node.addresses.is_empty();
    if !snapshot.nodes.values().any(silent) {
        return (Cow::Borrowed(snapshot), Vec::new());
    }
    let mut snapshot = snapshot.clone();
    let mut assumed = Vec::new();
    for node in snapshot.nodes.values_mut().filter(|node| silent(node)) {
        node.underlay = Some(Underlay {
            interface: "eth0".to_owned(),
            mtu: 1500,
            addresses: node
                .addresses
                .iter()
                .map(|address| (*address).into())
                .collect(),
            // A default route that leads straight out of the interface.
            gateways: Family::ALL
                .into_iter()
                .filter(|family| node.address(*family).is_some())
                .map(Family::unspecified)
                .collect(),
            advertised: false,
            egress: Vec::new(),
            config: None,
            other: None,
            unlearned: Vec::new(),
            cards: Vec::new(),
            node_ports: Vec::new(),
        });
        assumed.push(node.name.clone());
    }
    let note = format!(
        "no Parfait agent has reported the underlay of {}: assumed are an interface eth0 of 1500 \
         bytes with a default route, and no shared segment, so that packets between nodes take the tunnel",
        assumed.join(", ")
    );
    (Cow::Owned(snapshot), vec![note])
}

/// The families that both sides have, the sender's first one first.
fn shared(sender: Sender<'_>, target: &Target) -> Vec<Family> {
    let mut families: Vec<_> = sender.addresses().iter().map(|a| Family::of(*a)).collect();
    families.dedup();
    families.retain(|family| target.addresses.iter().any(|a| Family::of(*a) == *family));
    families
}

/// The first packets that the sender may send: one for each address it may try.
fn destinations(
    snapshot: &Snapshot,
    sender: Sender<'_>,
    target: &Target,
    family: Option<Family>,
) -> Result<Vec<Packet>, Reason> {
    if let Some(reason) = target.failure {
        return Err(reason);
    }
    if sender.addresses().is_empty() {
        return Err(match sender {
            Sender::Pod(pod) => without_network(snapshot, pod),
            Sender::Node(_) | Sender::Outside(_) => Reason::PodNotRunning,
        });
    }
    let source = family.and_then(|family| sender.address(family));
    let source = source.ok_or(Reason::FamilyMismatch)?;
    let packet = |address: &IpAddr| Packet::new(source, *address, target.protocol, target.port);
    let packets: Vec<_> = target.addresses.iter().filter_map(packet).collect();
    match packets.is_empty() {
        true => Err(Reason::FamilyMismatch),
        false => Ok(packets),
    }
}

/// A packet that is never sent.
fn stillborn(reason: Reason) -> Way {
    let fate = match reason {
        Reason::ExternalDestination => Fate::Unknown(reason),
        _ => Fate::Lost(reason),
    };
    Way {
        probability: (1, 1),
        by: None,
        end: "nothing is sent".to_owned(),
        verdict: fate.verdict(),
        mtu: None,
        larger: None,
        mtu_back: None,
        larger_back: None,
        pinned: Vec::new(),
        there: Vec::new(),
        back: Vec::new(),
    }
}

fn there_and_back(world: &World<'_>, sender: Sender<'_>, leg: Leg) -> Vec<Way> {
    let sent = leg.packet;
    let walker = Walker {
        world,
        answers: None,
    };
    let arrivals = send(&walker, sender, leg);
    arrivals
        .into_iter()
        .map(|arrival| match arrival.fate.clone() {
            Fate::Delivered(receiver) => reply(world, sender, sent, arrival, &receiver),
            Fate::Unknown(reason)
                if arrival.leg.left.is_some() && !matches!(sender, Sender::Outside(_)) =>
            {
                from_outside(world, sender, sent, arrival, reason)
            }
            fate => Way {
                probability: arrival.leg.weight,
                by: arrival.leg.by.clone(),
                end: "not delivered".to_owned(),
                verdict: fate.verdict(),
                mtu: arrival.leg.mtu(),
                larger: larger(&arrival.leg),
                mtu_back: None,
                larger_back: None,
                pinned: arrival.leg.pinned,
                there: arrival.leg.hops,
                back: Vec::new(),
            },
        })
        .collect()
}

/// Lets the sender send.
fn send(walker: &Walker<'_>, sender: Sender<'_>, mut leg: Leg) -> Vec<Arrival> {
    match sender {
        Sender::Outside(_) => outside::send(walker, leg),
        Sender::Pod(pod) if !pod.has_network() || pod.node.is_none() => {
            vec![leg.lost(Reason::PodNotRunning)]
        }
        Sender::Pod(pod) if !pod.host_network => {
            let node = pod.node.as_deref().unwrap_or_default();
            from_pod(walker, node, &pod.name, leg)
        }
        Sender::Pod(_) | Sender::Node(_) => {
            let node = sender.node().unwrap_or_default();
            // The source is what the route says, not necessarily the node's primary address.
            let source = walker.world.node(node).and_then(|(_, known)| {
                match known.state.route(leg.packet.destination) {
                    RouteDecision::Unicast(way) => way.source,
                    // A node speaks to each of its addresses from that address.
                    RouteDecision::Local { .. } => Some(leg.packet.destination),
                    _ => None,
                }
            });
            leg.packet.source = source.unwrap_or(leg.packet.source);
            walker.originate(node, leg)
        }
    }
}

fn interface(pod: &ObjectName) -> String {
    parfait_linux::attachment::host_interface(&pod.namespace, &pod.name).to_string()
}

/// A pod sends: to its node, unless it means itself.
fn from_pod(walker: &Walker<'_>, node: &str, name: &ObjectName, mut leg: Leg) -> Vec<Arrival> {
    let pod = walker.world.snapshot.pods.get(name);
    let to = leg.packet.destination;
    if let Some(pod) = pod.filter(|pod| to.is_loopback() || pod.addresses.contains(&to)) {
        return vec![deliver::to_itself(walker.world, node, pod, leg)];
    }
    let gateway = parfait_linux::attachment::pod_gateway(leg.packet.family());
    let known = walker.world.node(node);
    let mtu = known.and_then(|(_, known)| known.plan.link.pod_mtu);
    let place = format!("pod {name}");
    let mtu = mtu.map(parfait_linux::Mtu::bytes);
    if !leg.narrow(mtu, &place, FoundBy::Sender) {
        return vec![leg.lost(Reason::TooBig)];
    }
    let interface = interface(name);
    leg.step(Step {
        place: &place,
        stage: Stage::Egress,
        layer: Layer::Link,
        what: format!(
            "leaves by eth0 to its gateway on {node}, interface {interface}{}",
            deliver::at_most(pod.and_then(|pod| pod.bandwidth.egress), Bandwidth::EGRESS)
        ),
        evidence: format!("default via {gateway} dev eth0 onlink"),
        origins: pod.map(Pod::origin).into_iter().collect(),
    });
    walker.enter(node, &interface, leg)
}

fn reply(
    world: &World<'_>,
    sender: Sender<'_>,
    sent: Packet,
    arrival: Arrival,
    receiver: &Receiver,
) -> Way {
    let answers = arrival.leg.bindings.clone();
    let walker = Walker {
        world,
        answers: Some(&answers),
    };
    let mut leg = Leg::new(arrival.leg.packet.reply());
    leg.reply = true;
    let returned = match &receiver.pod {
        Some(pod) => from_pod(&walker, &receiver.node, pod, leg),
        None => walker.originate(&receiver.node, leg),
    };
    returned_to(sender, sent, arrival, returned, &receiver.what)
}

/// If somebody outside answers: the way back, from the node to whose address the answer goes. Whether anybody does,
/// stays unknown; that the answer would not get through does not.
fn from_outside(
    world: &World<'_>,
    sender: Sender<'_>,
    sent: Packet,
    arrival: Arrival,
    reason: Reason,
) -> Way {
    let answers = arrival.leg.bindings.clone();
    let walker = Walker {
        world,
        answers: Some(&answers),
    };
    let mut leg = Leg::new(arrival.leg.packet.reply());
    leg.reply = true;
    let (node, interface) = arrival.leg.left.clone().unwrap_or_default();
    let to = leg.packet.destination;
    let known = world.node(&node).map(|(_, known)| known);
    let comes_here = known.is_some_and(|known| known.address_type(to) == AddressType::Local);
    leg.step(Step {
        place: "outside",
        stage: Stage::Wire,
        layer: Layer::Internet,
        what: match comes_here {
            true => format!("who answers sends to {to}, an address of {node}, which gets it through {interface}"),
            false => format!(
                "who answers sends to {to}, the pod's own address: it comes back only if the way there is known outside"
            ),
        },
        evidence: String::new(),
        origins: Vec::new(),
    });
    let returned = match comes_here {
        true => walker.enter(&node, &interface, leg),
        false => vec![leg.ends(Fate::Unknown(reason))],
    };
    let mut way = returned_to(sender, sent, arrival, returned, "outside");
    if way.verdict == Verdict::Delivered {
        way.verdict = Verdict::Unknown { reason };
    }
    way
}

/// A way there, with the way back: delivered if the reply is, to who sent.
fn returned_to(
    sender: Sender<'_>,
    sent: Packet,
    arrival: Arrival,
    returned: Vec<Arrival>,
    receiver: &str,
) -> Way {
    let pod = match sender {
        Sender::Pod(pod) if !pod.host_network => Some(&pod.name),
        _ => None,
    };
    let node = sender.node().unwrap_or_default();
    let expected = Packet {
        source: sent.source,
        ..sent
    }
    .reply();
    let returned = returned.into_iter().next();
    let (mtu_back, larger_back) = match &returned {
        Some(back) => (back.leg.mtu(), larger(&back.leg)),
        None => (None, None),
    };
    let (fate, back) = match returned {
        None => (Fate::Lost(Reason::NoRoute), Vec::new()),
        Some(back) if matches!(sender, Sender::Outside(_)) => back_outside(back, &expected),
        Some(back) if !sender_is(&back.fate, node, pod) => match back.fate {
            Fate::Delivered(_) => (Fate::Lost(Reason::ReplyFromElsewhere), back.leg.hops),
            fate => (fate, back.leg.hops),
        },
        Some(back) if ends(&back.leg.packet) != ends(&expected) && pod.is_some() => {
            (Fate::Lost(Reason::ReplyFromElsewhere), back.leg.hops)
        }
        Some(back) => (back.fate, back.leg.hops),
    };
    Way {
        probability: arrival.leg.weight,
        by: arrival.leg.by.clone(),
        end: receiver.to_owned(),
        verdict: fate.verdict(),
        mtu: arrival.leg.mtu(),
        larger: larger(&arrival.leg),
        mtu_back,
        larger_back,
        pinned: arrival.leg.pinned,
        there: arrival.leg.hops,
        back,
    }
}

/// The end of a reply to somebody outside: if it leaves the cluster as it should, it is the others' to deliver.
fn back_outside(back: Arrival, expected: &Packet) -> (Fate, Vec<Hop>) {
    let left = matches!(back.fate, Fate::Unknown(Reason::ExternalDestination));
    let fate = match left {
        true if ends(&back.leg.packet) == ends(expected) => Fate::Delivered(Receiver {
            what: "outside the cluster".to_owned(),
            node: String::new(),
            pod: None,
        }),
        true => Fate::Lost(Reason::ReplyFromElsewhere),
        false => back.fate,
    };
    (fate, back.leg.hops)
}

/// What becomes of packets that do not fit, and where.
fn larger(leg: &Leg) -> Option<String> {
    let narrow = leg.narrowest.as_ref()?;
    Some(format!("at {}, {}", narrow.place, narrow.larger))
}

/// What a socket compares: both addresses and ports.
fn ends(packet: &Packet) -> (IpAddr, u16, IpAddr, u16) {
    (
        packet.source,
        packet.source_port,
        packet.destination,
        packet.destination_port,
    )
}
