//! The answer to a question, as plain data: what the text output prints and `-o json` writes.

use parfait_packet::{Hop, Protocol, Verdict};
use serde::Serialize;

use crate::memory::Pinned;
use crate::tracked::Tracked;

/// What happens to a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// Who sends, in words: `pod default/web-1 (10.244.1.2, node-1)`.
    pub from: String,
    /// Who is meant to receive, in words.
    pub to: String,
    /// The protocol.
    pub protocol: Protocol,
    /// The destination port; 0 for ICMP, and where a name that leads to nobody in the cluster is asked for without one.
    pub port: u16,
    /// The worst of all ways.
    pub verdict: Verdict,
    /// How the name is looked up, if there is one.
    pub name: Vec<Hop>,
    /// Every possible way, the most probable first.
    pub ways: Vec<Way>,
    /// Connections of the same ends that nodes track already: each keeps to its way, whatever a new one's is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tracked: Vec<Tracked>,
    /// What the answer rests on, and what should be known besides.
    pub notes: Vec<String>,
}

/// One possible way of the packet, and of its reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Way {
    /// Its probability: numerator and denominator.
    pub probability: (u64, u64),
    /// The node by which it comes into the cluster, if it comes from outside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Where it ends, in words.
    pub end: String,
    /// How it ends.
    pub verdict: Verdict,
    /// The largest packet that fits through all wires on the way, in bytes.
    pub mtu: Option<u32>,
    /// What becomes of larger packets that must not be cut, and where.
    pub larger: Option<String>,
    /// The largest packet that fits through all wires of the way back, in bytes.
    pub mtu_back: Option<u32>,
    /// What becomes of larger ones there.
    pub larger_back: Option<String>,
    /// What kernels remember, and that overrules chance.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pinned: Vec<Pinned>,
    /// The packet's steps.
    pub there: Vec<Hop>,
    /// The reply's steps.
    pub back: Vec<Hop>,
}

impl Answer {
    /// The exit code that tells a script the verdict: 0 delivered, 1 not delivered, 3 unknown.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self.verdict {
            Verdict::Delivered => 0,
            Verdict::NotDelivered { .. } => 1,
            Verdict::Unknown { .. } => 3,
        }
    }
}
