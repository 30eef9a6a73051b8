//! [`Hop`]: one step of a packet's way, in a [`Stage`], owned by a [`Layer`]; and the [`Verdict`]
//! at its end.

use std::fmt;

use serde::Serialize;

use crate::{Origin, Packet, Reason};

/// The four layers, as the field teaches them (RFC 1122 section 1.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// Cables and their kin: veth pairs, VXLAN, MTU, neighbours.
    Link,
    /// Addresses, routes, forwarding, masquerade.
    Internet,
    /// Services: virtual addresses and their endpoints.
    Transport,
    /// Names, and later HTTP.
    Application,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Link => "link",
            Self::Internet => "internet",
            Self::Transport => "transport",
            Self::Application => "application",
        })
    }
}

/// Where in a network namespace a packet is. Linux interleaves the layers, so a walk goes by
/// stages and asks the layer that owns what it finds there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The name is looked up, before there is a packet.
    Name,
    /// The sender's own namespace: its address, route and interface.
    Egress,
    /// Netfilter's prerouting hook, or output for a packet the node itself sends.
    Prerouting,
    /// Netfilter's output hook.
    Output,
    /// The routing decision.
    Routing,
    /// Netfilter's forward hook.
    Forward,
    /// Netfilter's input hook.
    Input,
    /// Netfilter's postrouting hook.
    Postrouting,
    /// Between two namespaces: a veth pair, the underlay, a tunnel.
    Wire,
    /// The receiver's own namespace.
    Delivery,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "name",
            Self::Egress => "egress",
            Self::Prerouting => "prerouting",
            Self::Output => "output",
            Self::Routing => "routing",
            Self::Forward => "forward",
            Self::Input => "input",
            Self::Postrouting => "postrouting",
            Self::Wire => "wire",
            Self::Delivery => "delivery",
        })
    }
}

/// One step of a packet's way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hop {
    /// Where this happens: `pod default/web-1`, `node node-1`, `underlay`.
    pub place: String,
    /// The stage within that place.
    pub stage: Stage,
    /// The layer that decided this step.
    pub layer: Layer,
    /// What happened, in one line.
    pub what: String,
    /// The kernel's side of it, as `ip` or `nft` print it; empty if there is none.
    pub evidence: String,
    /// The objects this step exists for.
    pub origins: Vec<Origin>,
    /// The packet as it leaves this step; `None` while there is only a name.
    pub packet: Option<Packet>,
}

/// How a packet's way ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "verdict")]
pub enum Verdict {
    /// It reaches the receiver (on every possible way, where there is a choice), and so does the
    /// reply the sender.
    Delivered,
    /// It is lost, refused or cannot leave, on at least one of the possible ways.
    NotDelivered {
        /// Why, and what to do.
        reason: Reason,
    },
    /// What is known does not suffice to tell.
    Unknown {
        /// What is missing.
        reason: Reason,
    },
}

impl Verdict {
    /// The worse of two: a lost packet before an unknown fate before a delivered one.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        match (&self, &other) {
            (Self::NotDelivered { .. }, _) | (_, Self::Delivered) => self,
            (_, Self::NotDelivered { .. }) | (Self::Delivered, _) => other,
            _ => self,
        }
    }
}
