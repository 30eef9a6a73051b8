//! [`Tracked`]: the connections that a client has already to where a question sends it.
//!
//! ```text
//!   explain pod/client svc/web      a new connection: one of 3 endpoints
//!     node-1 tracks 2 from pod client to 10.96.0.20:80: port 40312 → web-1, port 40318 → web-9, which is gone
//! ```
//!
//! They do not decide where a new one goes, and each of them keeps to where its first packet went: who wonders why their
//! client is served differently from what is explained sees it here, and asks for the way of one with its source port.
//!
//! Deliberately absent: connections straight to a pod, where there is nothing to be kept; and, where the kernel cannot be
//! asked, a word about it: nobody has asked about any of them.

use parfait_linux::conntrack::Entry;
use serde::Serialize;

use crate::memory::{self, Pinned};
use crate::services;
use crate::walk::{Inside, Walker};

/// How many are told of.
const TOLD: usize = 5;

/// Connections of one client to one place, which a node tracks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tracked {
    /// The node.
    pub node: String,
    /// How many there are.
    pub count: usize,
    /// How many of them lead nowhere.
    pub stale: usize,
    /// Some of them: those that are stale come first.
    pub first: Vec<Connection>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// By which it can be asked for.
    pub source_port: u16,
    /// Where it goes, in which state, and for how long yet.
    #[serde(flatten)]
    pub pinned: Pinned,
    /// The pod there, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
}

/// Adds to the answer what is tracked of a packet's sender and destination, where a node translates that.
pub(crate) fn list(walker: &Walker<'_>, inside: &Inside<'_>) {
    let (world, packet) = (walker.world, &inside.seen);
    if walker.answers.is_some() || world.of_one_flow() || !packet.protocol.has_ports() {
        return;
    }
    let at = memory::sent_to(packet);
    if !services::translates(inside, packet) || world.is_listed(inside.name, at) {
        return;
    }
    let entries = world.memory.connections(inside.name, packet.source, at);
    let mut entries = entries.unwrap_or_default();
    entries.retain(|entry| !entry.is_over());
    let all = entries
        .iter()
        .map(|entry| connection(walker, inside, entry));
    let mut all: Vec<_> = all.collect();
    all.sort_by_key(|one| (one.pinned.stale.is_none(), one.source_port));
    let stale = all.iter().filter(|one| one.pinned.stale.is_some()).count();
    let tracked = Tracked {
        node: inside.name.to_owned(),
        count: all.len(),
        stale,
        first: all.into_iter().take(TOLD).collect(),
    };
    world.list(at, tracked);
}

fn connection(walker: &Walker<'_>, inside: &Inside<'_>, entry: &Entry) -> Connection {
    let (pinned, _) = memory::pinned(inside, entry);
    let pod = walker.world.snapshot.pod_at(pinned.to.ip());
    Connection {
        source_port: entry.original.source.port(),
        pod: pod.map(|pod| pod.name.to_string()),
        pinned,
    }
}
