//! The internet layer: addresses, routes, forwarding, and masquerade of what leaves the cluster.
//!
//! ```text
//!   10.244.1.2 ─▶ route 10.244.1.2 dev pf3f29…                      a pod of this node
//!   10.244.2.5 ─▶ route 10.244.2.0/24 via …                         a peer's pods, by the link layer's path
//!   10.244.1.9 ─▶ unreachable 10.244.1.0/24                         nobody: refused at once
//!   10.244.9.9 ─▶ unreachable 10.244.0.0/16                         nor does any node: the same
//!   192.0.2.1  ─▶ the node's default route, source rewritten to the node's address
//! ```
//!
//! [`plan()`] decides from the snapshot and the paths of the link layer; [`apply()`] lowers that to
//! addresses, routes, sysctls and nf_tables; [`explain()`] says where an address lives; [`prove()`]
//! compares the kernel's with the planned ones.
//!
//! Inside the pod network no address is ever rewritten: a server sees the client pod's own address.
//! Deliberately absent: policy routing; speaking BGP, which a routing daemon does (learned.rs).

pub mod announce;
pub mod apply;
pub mod egress;
pub mod explain;
pub mod isolation;
pub mod learned;
pub mod liveness;
pub mod owners;
pub mod plan;
pub mod prove;
mod refuse;
mod settings;
mod untracked;

pub use announce::{Announced, Announcing, announced, announcing, holder, peers};
pub use apply::{SOURCE_NAT, apply};
pub use explain::{Place, explain};
pub use isolation::{KnownPods, isolation, nobody_known};
pub use learned::{learned, prove_learned, unlearned};
pub use liveness::{Beat, Liveness};
pub use owners::owners;
pub use plan::{NextHop, Plan, PodRoute, ServedAddress, plan};
pub use prove::{prove, prove_tables};
