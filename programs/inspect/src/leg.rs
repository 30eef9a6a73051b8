//! [`Leg`]: a packet on its way, with the steps it has made; and the [`Fate`] at the way's end.

use std::net::IpAddr;

use parfait_cluster::ObjectName;
use parfait_packet::{Family, Hop, Layer, Origin, Packet, Reason, Stage, Verdict};

use crate::memory::Pinned;
use crate::question::Size;

/// A packet on its way.
#[derive(Clone)]
pub(crate) struct Leg {
    /// The packet as it is now.
    pub(crate) packet: Packet,
    /// The probability of this way: numerator and denominator.
    pub(crate) weight: (u64, u64),
    /// The node by which it came into the cluster, if it comes from outside.
    pub(crate) by: Option<String>,
    /// The steps so far.
    pub(crate) hops: Vec<Hop>,
    /// What was translated where, which the reply needs.
    pub(crate) bindings: Vec<Binding>,
    /// What kernels remember, and that decided.
    pub(crate) pinned: Vec<Pinned>,
    /// The smallest wire so far.
    pub(crate) narrowest: Option<Narrow>,
    /// How large the packet is, where that was asked.
    pub(crate) size: Option<Size>,
    /// The node and interface by which it left the cluster.
    pub(crate) left: Option<(String, String)>,
    /// How many more nodes it may pass.
    pub(crate) hop_limit: u8,
    /// Whether it answers another packet.
    pub(crate) reply: bool,
    /// `meta mark` and, where known, `ct mark` on the node where it is.
    pub(crate) marks: (u32, Option<u32>),
    /// Whether it is of no connection on the node where it is, on purpose.
    pub(crate) untracked: bool,
}

/// A wire that is smaller than all before it.
#[derive(Clone)]
pub(crate) struct Narrow {
    /// The largest packet that fits through.
    pub(crate) mtu: u32,
    /// Where larger ones end.
    pub(crate) place: String,
    /// What becomes of larger ones, in words.
    pub(crate) larger: String,
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
            by: None,
            hops: Vec::new(),
            bindings: Vec::new(),
            pinned: Vec::new(),
            narrowest: None,
            size: None,
            left: None,
            hop_limit: Self::HOP_LIMIT,
            reply: false,
            marks: (0, Some(0)),
            untracked: false,
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

    /// The packet has to fit through here too. What becomes of a larger one depends on who finds out:
    /// the sender itself, or somebody on the way who may tell it (`teller` is its address). Whether the
    /// packet goes on.
    pub(crate) fn narrow(&mut self, mtu: Option<u32>, place: &str, found: FoundBy) -> bool {
        let Some(mtu) = mtu else {
            return true;
        };
        if self
            .narrowest
            .as_ref()
            .is_none_or(|so_far| mtu < so_far.mtu)
        {
            self.narrowest = Some(Narrow {
                mtu,
                place: place.to_owned(),
                larger: self.larger(mtu, found),
            });
        }
        let Some(size) = self.size.filter(|size| size.bytes > mtu) else {
            return true;
        };
        let whole = match found {
            FoundBy::Sender => size.whole,
            FoundBy::Way(_) => size.whole || self.packet.family() == Family::Ipv6,
            FoundBy::Nobody => true,
        };
        let what = match whole {
            true => format!(
                "{} bytes do not fit: {}",
                size.bytes,
                self.larger(mtu, found)
            ),
            false => format!(
                "{} bytes do not fit: cut into {} fragments",
                size.bytes,
                fragments(size.bytes, mtu, self.packet.family())
            ),
        };
        self.step(Step {
            place,
            stage: Stage::Wire,
            layer: Layer::Link,
            what,
            evidence: format!("mtu {mtu}"),
            origins: Vec::new(),
        });
        if !whole {
            // From here on it travels in pieces.
            self.size = None;
        }
        !whole
    }

    /// What becomes of a larger packet that must not be cut.
    fn larger(&self, mtu: u32, found: FoundBy) -> String {
        let message = match self.packet.family() {
            Family::Ipv4 => "ICMP fragmentation needed",
            Family::Ipv6 => "ICMPv6 packet too big",
        };
        match found {
            FoundBy::Sender => {
                format!("the sender's own kernel refuses it (message too long, mtu {mtu})")
            }
            FoundBy::Way(Some(teller)) => {
                format!("{teller} answers with {message}, mtu {mtu}")
            }
            FoundBy::Nobody => {
                format!(
                    "the interface there takes {mtu} bytes, and nobody tells the sender: it is lost unheard"
                )
            }
            FoundBy::Way(None) => {
                format!(
                    "{message} cannot be sent, as nobody there has an address: it is lost unheard"
                )
            }
        }
    }

    /// The largest packet that fits through all wires so far.
    pub(crate) fn mtu(&self) -> Option<u32> {
        self.narrowest.as_ref().map(|narrow| narrow.mtu)
    }

    pub(crate) fn ends(self, fate: Fate) -> Arrival {
        Arrival { leg: self, fate }
    }

    pub(crate) fn lost(self, reason: Reason) -> Arrival {
        self.ends(Fate::Lost(reason))
    }
}

/// Who finds out that a packet is too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FoundBy {
    /// The kernel that sends it.
    Sender,
    /// A node on the way, with the address that it tells the sender from.
    Way(Option<IpAddr>),
    /// The interface at the far end of a wire: it takes no longer frames, and its kernel sees none.
    Nobody,
}

/// Into how many pieces: each but the last carries a multiple of 8 bytes (RFC 791, RFC 8200).
fn fragments(bytes: u32, mtu: u32, family: Family) -> u32 {
    let (header, each) = match family {
        Family::Ipv4 => (20, mtu.saturating_sub(20)),
        // The fragment header takes 8 more.
        Family::Ipv6 => (40, mtu.saturating_sub(48)),
    };
    let each = (each / 8 * 8).max(8);
    bytes.saturating_sub(header).div_ceil(each)
}

/// The product of two probabilities.
pub(crate) const fn times(a: (u64, u64), b: (u64, u64)) -> (u64, u64) {
    (a.0 * b.0, a.1 * b.1)
}
