//! [`Leg`]: a packet on its way, with the steps it has made; and the [`Fate`] at the way's end.

use parfait_cluster::ObjectName;
use parfait_packet::{Hop, Layer, Origin, Packet, Reason, Stage, Verdict};

/// A packet on its way.
#[derive(Clone)]
pub(crate) struct Leg {
    /// The packet as it is now.
    pub(crate) packet: Packet,
    /// The probability of this way: numerator and denominator.
    pub(crate) weight: (u64, u64),
    /// The steps so far.
    pub(crate) hops: Vec<Hop>,
    /// What was translated where, which the reply needs.
    pub(crate) bindings: Vec<Binding>,
    /// The largest packet that fits through all wires so far.
    pub(crate) mtu: Option<u32>,
    /// How many more nodes it may pass.
    pub(crate) hop_limit: u8,
    /// Whether it answers another packet.
    pub(crate) reply: bool,
}

/// A conntrack entry with NAT: what came to a node, and what left it.
#[derive(Clone)]
pub(crate) struct Binding {
    pub(crate) node: String,
    pub(crate) before: Packet,
    pub(crate) after: Packet,
}

/// How a way ends.
#[derive(Clone)]
pub(crate) enum Fate {
    /// At a receiver, which can answer.
    Delivered(Receiver),
    Lost(Reason),
    Unknown(Reason),
}

/// Who has got the packet.
#[derive(Clone)]
pub(crate) struct Receiver {
    /// In words.
    pub(crate) what: String,
    /// The node whose network it uses or hangs on.
    pub(crate) node: String,
    /// The pod with a network of its own; `None` for the node itself.
    pub(crate) pod: Option<ObjectName>,
}

/// The end of one way.
pub(crate) struct Arrival {
    pub(crate) leg: Leg,
    pub(crate) fate: Fate,
}

impl Fate {
    pub(crate) fn verdict(&self) -> Verdict {
        match self {
            Self::Delivered(_) => Verdict::Delivered,
            Self::Lost(reason) => Verdict::NotDelivered { reason: *reason },
            Self::Unknown(reason) => Verdict::Unknown { reason: *reason },
        }
    }
}

/// What a step is about, besides the packet.
pub(crate) struct Step<'a> {
    pub(crate) place: &'a str,
    pub(crate) stage: Stage,
    pub(crate) layer: Layer,
    pub(crate) what: String,
    pub(crate) evidence: String,
    pub(crate) origins: Vec<Origin>,
}

impl Leg {
    /// The hop limit that Linux gives a packet.
    const HOP_LIMIT: u8 = 64;

    pub(crate) fn new(packet: Packet) -> Self {
        Self {
            packet,
            weight: (1, 1),
            hops: Vec::new(),
            bindings: Vec::new(),
            mtu: None,
            hop_limit: Self::HOP_LIMIT,
            reply: false,
        }
    }

    /// Adds a step, with the packet as it is now.
    pub(crate) fn step(&mut self, step: Step<'_>) {
        self.hops.push(Hop {
            place: step.place.to_owned(),
            stage: step.stage,
            layer: step.layer,
            what: step.what,
            evidence: step.evidence,
            origins: step.origins,
            packet: Some(self.packet),
        });
    }

    /// The packet has to fit through here too.
    pub(crate) fn narrow(&mut self, mtu: Option<u32>) {
        self.mtu = match (self.mtu, mtu) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }

    pub(crate) fn ends(self, fate: Fate) -> Arrival {
        Arrival { leg: self, fate }
    }

    pub(crate) fn lost(self, reason: Reason) -> Arrival {
        self.ends(Fate::Lost(reason))
    }
}

/// The product of two probabilities.
pub(crate) const fn times(a: (u64, u64), b: (u64, u64)) -> (u64, u64) {
    (a.0 * b.0, a.1 * b.1)
}
