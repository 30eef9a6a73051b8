//! [`Liveness`]: which peers are alive, by the beats that come from them.
//!
//! ```text
//!   every 200 ms   node-1 ──"in force, I hear you"──▶ node-2
//!   silent for 1 s      ─▶ gone: others take over
//!   heard for 2 s again ─▶ back: it gets what is its own
//! ```
//!
//! A beat says whether the sender's rules are in force, and whether it hears the receiver: so a node learns that others
//! think it gone though it hears them. Time is the caller's; nothing here knows a clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use parfait_cluster::Hearing;

/// How often a node is to be heard.
pub const BEAT: Duration = Duration::from_millis(200);

/// After how long a silence a peer is gone.
pub const SILENCE: Duration = Duration::from_secs(1);

/// How long a peer that was gone is heard before it is back: a link that flaps moves nothing to and fro.
pub const BACK: Duration = Duration::from_secs(2);

/// What a peer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Its rules are in force.
    pub in_force: bool,
    /// It hears the receiver.
    pub hears: bool,
}

/// What one node hears of its peers.
#[derive(Clone, Debug, Default)]
pub struct Liveness {
    peers: BTreeMap<String, Peer>,
}

#[derive(Clone, Copy, Debug)]
struct Peer {
    alive: bool,
    /// When it was heard last; at first, when it became a peer.
    last: Duration,
    /// Since when it is heard without a gap, while it is not alive.
    since: Option<Duration>,
    /// When it came back.
    returned: Option<Duration>,
    /// What it said last.
    said: Option<Beat>,
}

impl Liveness {
    /// Listens to these peers and no others. New ones are alive until they have been silent for long enough.
    pub fn listen(&mut self, peers: &BTreeSet<String>, now: Duration) {
        self.peers.retain(|name, _| peers.contains(name));
        for name in peers {
            self.peers.entry(name.clone()).or_insert(Peer {
                alive: true,
                last: now,
                since: None,
                returned: None,
                said: None,
            });
        }
    }

    /// A peer was heard. Whether it may have stood in for this node until now, so that others must be told anew who has
    /// what: it says that it hears this node again, or is heard after a silence.
    pub fn heard(&mut self, name: &str, beat: Beat, now: Duration) -> bool {
        let Some(peer) = self.peers.get_mut(name) else {
            return false;
        };
        let gap = now.saturating_sub(peer.last) > SILENCE;
        let before = peer.said.replace(beat);
        peer.last = now;
        if !peer.alive && (gap || !beat.in_force) {
            peer.since = None;
        }
        if !peer.alive && beat.in_force {
            peer.since.get_or_insert(now);
        }
        gap || beat.hears && before.is_some_and(|before| !before.hears)
    }

    /// What is known now.
    pub fn hearing(&mut self, now: Duration) -> Hearing {
        let mut hearing = Hearing::default();
        for (name, peer) in &mut self.peers {
            let silent = now.saturating_sub(peer.last) > SILENCE;
            let in_force = peer.said.is_none_or(|said| said.in_force);
            if silent || !in_force {
                (peer.alive, peer.since, peer.returned) = (false, None, None);
            } else if peer
                .since
                .is_some_and(|since| now.saturating_sub(since) >= BACK)
            {
                (peer.alive, peer.since, peer.returned) = (true, None, Some(now));
            }
            if !peer.alive {
                hearing.silent.insert(name.clone());
            }
            // Both came back at about the same time: what it said before does not count.
            let settled = |returned| now.saturating_sub(returned) > 2 * BEAT;
            let settled = peer.returned.is_none_or(settled);
            let deaf = peer.said.is_some_and(|said| said.in_force && !said.hears);
            if deaf && settled && !silent {
                hearing.deaf.insert(name.clone());
            }
        }
        hearing
    }

    /// Whom to send a beat, and whether they are heard.
    pub fn beats(&self) -> impl Iterator<Item = (&str, bool)> {
        let peers = self.peers.iter();
        peers.map(|(name, peer)| (name.as_str(), peer.alive))
    }
}
