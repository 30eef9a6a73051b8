//! What one network namespace of a Linux kernel can hold, as ordered plain data: links, addresses,
//! routes, neighbours, forwarding entries, sysctls, nf_tables and tracked connections.
//!
//! ```text
//!   layers plan ──▶ State ──▶ diff(observed, desired) ──▶ [Step] ──▶ the kernel edge executes
//!                     │
//!                     └──▶ State::route, neighbour, fdb, nft: where would this packet go?
//! ```
//!
//! One [`State`] is what a layer wants, or what the kernel edge observed. The two are compared with
//! [`diff()`], which removes only what is Parfait's own ([`Ownership`]). Everything prints as `ip`,
//! `bridge`, `sysctl` and `nft` print it, and a [`Step`] as the command an operator would type.
//!
//! Promises: planning the same twice prints the same bytes (everything is ordered); comparing a
//! state with itself yields no step; applying the steps reaches the goal and leaves foreign things
//! alone (both are property tests).
//!
//! Deliberately absent: policy routing (rules, tables besides `main`), multipath routes, qdiscs,
//! multicast, and everything that touches a kernel, which is the kernel edge's job.

mod address;
pub mod attachment;
mod compare;
pub mod conntrack;
mod diff;
mod fib;
mod link;
mod name;
mod neighbour;
pub mod nft;
mod offload;
mod qdisc;
mod route;
mod state;
mod step;
mod sysctl;

pub use address::{Address, AddressKey, Scope};
pub use compare::{Faults, compare};
pub use diff::{Ownership, diff};
pub use fib::{RouteDecision, Unicast};
pub use link::{Link, LinkKind, Vxlan};
pub use name::{Alias, IfName, InvalidName, InvalidNumber, Mac, Mtu, Vni};
pub use neighbour::{FdbEntry, FdbKey, Neighbour, NeighbourKey};
pub use offload::Offload;
pub use qdisc::Tbf;
pub use route::{Route, RouteKey, RouteKind, RouteProtocol};
pub use state::{Item, Object, State};
pub use step::Step;
pub use sysctl::{Sysctl, SysctlKey};

/// An address prefix, as routes and addresses carry it.
pub type Prefix = ipnet::IpNet;
