//! [`Path`]: how packets for a peer node's pods get to that node.
//!
//! The link layer decides it, the internet layer routes by it; the word stands here because
//! layers do not know each other.

use std::collections::BTreeMap;
use std::net::IpAddr;

use parfait_packet::Family;

/// How packets for a peer's pods cross the underlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Path {
    /// Unchanged: the underlay carries pod addresses.
    Direct {
        /// The node's interface to the underlay.
        interface: String,
        /// The next hop, in the packets' own family: the peer itself or, if it is on another segment,
        /// the router of the underlay.
        via: IpAddr,
        /// The largest packet that the peer takes, in bytes, if this node's interface sends larger ones.
        mtu: Option<u32>,
    },
    /// Unchanged, along a route that a routing daemon of the node has learned: nobody here makes it.
    Learned {
        /// The node's interface to the underlay.
        interface: String,
        /// The next hop, as the daemon is expected to find it: the peer itself or the router.
        via: IpAddr,
    },
    /// Inside UDP (RFC 7348).
    Vxlan {
        /// The tunnel's device on this node.
        device: String,
        /// The peer's address on the underlay: where the outer packet goes.
        remote: IpAddr,
        /// The peer's device address: six bytes of Ethernet.
        mac: [u8; 6],
        /// The largest packet inside that the peer takes, in bytes, if this node's tunnel takes larger
        /// ones.
        mtu: Option<u32>,
    },
}

impl Path {
    /// The largest packet that the peer takes, if this node would send larger ones.
    #[must_use]
    pub const fn mtu(&self) -> Option<u32> {
        match self {
            Self::Direct { mtu, .. } | Self::Vxlan { mtu, .. } => *mtu,
            Self::Learned { .. } => None,
        }
    }

    /// The interface and the next hop, where the underlay carries the packets as they are.
    #[must_use]
    pub fn unchanged(&self) -> Option<(&str, IpAddr)> {
        match self {
            Self::Direct { interface, via, .. } | Self::Learned { interface, via } => {
                Some((interface, *via))
            }
            Self::Vxlan { .. } => None,
        }
    }
}

/// The path to each peer, by node name and the family of the pods' packets.
pub type Paths = BTreeMap<(String, Family), Path>;
