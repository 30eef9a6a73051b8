//! [`Memory`]: what nodes' kernels remember of flows, and how that overrules what a first packet would meet.
//!
//! ```text
//!   conntrack   tcp 10.244.1.2:40000 → 10.96.0.20:80, answered by 10.244.2.7:8080    this very flow goes on to there
//!   affinity    10.244.1.2 . 10.96.0.20 . tcp . 80 : 10.244.2.7 . 8080               this client's next one as well
//!   policy_ended  10.244.1.2 . 10.244.2.7 . tcp . 40000 . 8080                       this very flow is over
//! ```
//!
//! A tracked connection is of exactly one source port, so one decides only if the question names its port; otherwise
//! those that there are stand beside the answer ([`crate::tracked`]). The kernel
//! then asks no nat chain, but does with each packet what it did with the first: a pod may be gone since, and an entry
//! that nobody removed leads there still. What session affinity keeps and what policies have ended is put into the
//! planned map and set, and so is found by the rules that are walked.
//!
//! Deliberately absent: looking. Who asks has the kernels at hand, or says why not.

use std::net::{IpAddr, SocketAddr};

use parfait_linux::conntrack::{Entry, Tuple};
use parfait_linux::nft::{Hook, Table};
use parfait_packet::{Layer, Origin, Packet, Stage};
use parfait_transport::affinity::{self, Kept};
use parfait_transport::{Former, Frontend, policy};
use serde::{Deserialize, Serialize};

use crate::hook;
use crate::leg::{Leg, Step};
use crate::render::socket;
use crate::services;
use crate::walk::{Inside, Walker};

/// What can be asked of a node's kernel. An error says why it cannot, in words.
pub trait Memory {
    /// The endpoints that these clients keep there.
    ///
    /// # Errors
    /// If that kernel cannot be asked.
    fn kept(&self, node: &str, clients: &[IpAddr]) -> Result<Vec<Keeps>, String>;

    /// The connection there that began with a packet like this.
    ///
    /// # Errors
    /// If that kernel cannot be asked.
    fn connection(&self, node: &str, first: &Tuple) -> Result<Option<Entry>, String>;

    /// The directions of connections there that policies have ended, with this port at either end.
    ///
    /// # Errors
    /// If that kernel cannot be asked.
    fn ended(&self, node: &str, port: u16) -> Result<Vec<Ended>, String>;

    /// The connections there that this client has to a Service's port, or to a node's.
    ///
    /// # Errors
    /// If that kernel cannot be asked.
    fn connections(&self, node: &str, client: IpAddr, at: Frontend) -> Result<Vec<Entry>, String>;
}

/// There are no kernels: the cluster exists on paper.
#[derive(Clone, Copy, Debug)]
pub struct OnPaper;

impl Memory for OnPaper {
    fn kept(&self, _: &str, _: &[IpAddr]) -> Result<Vec<Keeps>, String> {
        Ok(Vec::new())
    }

    fn connection(&self, _: &str, _: &Tuple) -> Result<Option<Entry>, String> {
        Ok(None)
    }

    fn ended(&self, _: &str, _: u16) -> Result<Vec<Ended>, String> {
        Ok(Vec::new())
    }

    fn connections(&self, _: &str, _: IpAddr, _: Frontend) -> Result<Vec<Entry>, String> {
        Ok(Vec::new())
    }
}

/// An endpoint that a client keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keeps {
    /// Who, what for, and which.
    pub kept: Kept,
    /// For how many seconds yet, if it is not used.
    pub expires: u64,
}

/// A direction of a connection that policies have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// As forwarding sees it.
    pub direction: Tuple,
    /// For how many seconds yet, if policies do not allow it before.
    pub expires: u64,
}

/// What decided where a packet goes before any rule was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pinned {
    /// The node that remembers.
    pub node: String,
    /// What it remembers.
    pub by: By,
    /// Where the packet was sent to.
    pub from: SocketAddr,
    /// Where it goes.
    pub to: SocketAddr,
    /// A connection's state: `ESTABLISHED`; `answered` or `unanswered` for UDP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<&'static str>,
    /// After how many seconds that is forgotten, if nothing passes.
    pub expires: u64,
    /// Why it is of no use any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale: Option<String>,
}

/// The two things that a kernel remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// A tracked connection.
    Connection,
    /// Session affinity.
    Affinity,
}

/// Puts what clients keep and what has ended into the planned tables, as if the kernel had told.
pub(crate) fn remember<'t>(
    tables: impl Iterator<Item = &'t mut Table>,
    kept: &[Keeps],
    ended: &[Ended],
) {
    for table in tables.filter(|table| table.name == "parfait") {
        let six = table.family == parfait_linux::nft::Family::Ip6;
        let kept = kept.iter().map(|keeps| &keeps.kept);
        let kept = kept.filter(|kept| kept.client.is_ipv6() == six);
        if let Some(map) = table.sets.get_mut(affinity::MAP) {
            map.elements.extend(kept.map(Kept::element));
        }
        let ended = ended.iter().map(|ended| &ended.direction);
        let ended = ended.filter(|direction| direction.source.is_ipv6() == six);
        if let Some(set) = table.sets.get_mut(policy::ENDED) {
            set.elements.extend(ended.map(policy::element_of));
        }
    }
}

/// What the sender of a packet keeps at the Service's port that it is sent to.
pub(crate) fn keeps<'k>(inside: &'k Inside<'_>, packet: &Packet) -> Option<&'k Keeps> {
    let at = sent_to(packet);
    let kept = inside.known.kept.as_ref().ok()?;
    kept.iter()
        .find(|keeps| keeps.kept.client == packet.source && keeps.kept.at == at)
}

/// Where a packet is sent to.
pub(crate) const fn sent_to(packet: &Packet) -> Frontend {
    Frontend {
        address: packet.destination,
        protocol: packet.protocol,
        port: packet.destination_port,
    }
}

/// A tracked connection as what decides, and whose it is if it is stale.
pub(crate) fn pinned(inside: &Inside<'_>, entry: &Entry) -> (Pinned, Option<Origin>) {
    let plan = &inside.known.plan.transport;
    let own =
        |address| inside.known.address_type(address) == parfait_linux::nft::AddressType::Local;
    let (stale, origin) = plan.why_stale(&Former::default(), &own, entry).unzip();
    let pinned = Pinned {
        node: inside.name.to_owned(),
        by: By::Connection,
        from: entry.original.destination,
        to: entry.reply.source,
        state: Some(entry.state()),
        expires: entry.expires.into(),
        stale: stale.map(|why| why.to_string()),
    };
    (pinned, origin)
}

/// Asks for the connection that a packet is of, if its source port was told.
pub(crate) fn tracked(walker: &Walker<'_>, node: &str, packet: &Packet) -> Option<Entry> {
    let world = walker.world;
    if walker.answers.is_some() || !world.of_one_flow() {
        return None;
    }
    let tuple = Tuple::of(packet)?;
    match world.memory.connection(node, &tuple) {
        Ok(Some(entry)) => Some(entry),
        Ok(None) => {
            world.tell(format!(
                "{node} tracks no connection {packet}: there this is the way of a first packet"
            ));
            None
        }
        Err(why) => {
            world.tell(format!(
                "the connections that {node} tracks are not known: {why}. There this is the way of a first packet"
            ));
            None
        }
    }
}

/// What a tracked connection does to a packet of it at a hook.
pub(crate) fn follow(walker: &Walker<'_>, inside: &Inside<'_>, at: Hook, mut leg: Leg) -> Leg {
    let Some(entry) = &inside.tracked else {
        return leg;
    };
    match at {
        Hook::Prerouting | Hook::Output => destination(walker, inside, at, entry, &mut leg),
        Hook::Postrouting if entry.reply.destination != entry.original.source => {
            let to = entry.reply.destination;
            let from = leg.packet.source;
            (leg.packet.source, leg.packet.source_port) = (to.ip(), to.port());
            leg.step(Step {
                place: &inside.place(),
                stage: Stage::Postrouting,
                layer: Layer::Transport,
                what: format!("the source {from} becomes {to}, as when the connection began"),
                evidence: entry.to_string(),
                origins: Vec::new(),
            });
        }
        _ => {}
    }
    leg
}

fn destination(walker: &Walker<'_>, inside: &Inside<'_>, at: Hook, entry: &Entry, leg: &mut Leg) {
    let (pinned, origin) = pinned(inside, entry);
    let (from, to, expires) = (pinned.from, pinned.to, pinned.expires);
    let state = entry.state();
    let mut what = match entry.is_dnat() {
        true => format!(
            "pinned by a tracked connection ({state}, {from} → {to}, expires in {expires} s): the destination becomes {}{}",
            socket(to.ip(), to.port(), leg.packet.protocol),
            services::pod(walker, to.ip()),
        ),
        false => format!(
            "part of a tracked connection ({state}, expires in {expires} s), which is not translated"
        ),
    };
    match &pinned.stale {
        Some(why) => what.push_str(&format!("; stale, and the agent removes it: {why}")),
        None if entry.is_dnat() => what.push_str(&services::no_candidate(inside, &leg.packet, to)),
        None => {}
    }
    if entry.is_dnat() {
        (leg.packet.destination, leg.packet.destination_port) = (to.ip(), to.port());
    }
    let met = services::explain(inside, &inside.seen).map(|explained| explained.origin);
    if entry.is_dnat() || pinned.stale.is_some() {
        leg.pinned.push(pinned);
    }
    leg.step(Step {
        place: &inside.place(),
        stage: hook::stage(at),
        layer: Layer::Transport,
        what,
        evidence: entry.to_string(),
        origins: origin.or(met).into_iter().collect(),
    });
}
