//! The link layer: cables and their kin. Which path leads to each peer, the tunnel's device and its
//! pinned neighbours, the node's end of each pod's veth pair, and how large a packet may be.
//!
//! ```text
//!   pod eth0 ══veth══ pf3f29… │ node │ eth0 ────── underlay ────── eth0 │ peer │ …    direct
//!                             │      │ pf-vxlan ══ UDP 4789 ══ pf-vxlan │      │      vxlan
//! ```
//!
//! [`plan()`] decides from the snapshot; [`apply()`] lowers that to links, neighbours and forwarding
//! entries; [`explain()`] says what a wire is and how much fits through; [`prove()`] compares the
//! kernel's with the planned ones.
//!
//! Nothing floods and nothing is learned: every neighbour is pinned (RFC 7348 section 4.2 without
//! its multicast). Deliberately absent: making the pods' veth pairs, which is the CNI plugin's work,
//! so that pods start while the agent restarts; and encryption.

pub mod apply;
pub mod explain;
pub mod offload;
pub mod plan;
pub mod prove;

pub use apply::apply;
pub use explain::explain;
pub use offload::offload;
pub use plan::{Attachment, Peer, Plan, Tunnel, plan};
pub use prove::{prove, underlay};
