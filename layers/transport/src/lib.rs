//! The transport layer: Services, as three map look-ups and no chain per Service.
//!
//! ```text
//!   client ──▶ 10.96.0.20:80 ──services──▶ 3 endpoints ──service_choices──▶ chain n3 ──endpoints_3──▶ 10.244.2.4:8080
//!              (virtual address)  look-up 1                 look-up 2                    look-up 3: one of three, at random
//! ```
//!
//! [`plan()`] decides from the snapshot which endpoints stand behind each virtual address and port;
//! [`apply()`] lowers that to nf_tables; [`explain()`] says which Service, candidates and refusals a
//! packet meets; [`prove()`] compares the kernel's tables with the planned ones.
//!
//! [`replan()`] and [`Lowered::reapply()`] do the same for what changed alone, at the cost of what changed.
//!
//! The semantics follow KEP-3866 (kube-proxy's nftables mode), KEP-1669 (terminating endpoints) and KEP-2086
//! (traffic policies). Services of every type, and host ports ([`host_ports`]), over TCP, UDP and SCTP. Which
//! address a load balancer gets is decided in [`pools`], for the cluster and not for a node. See README.md for the picture of the ruleset.

pub mod absent;
pub mod affinity;
pub mod apply;
pub mod explain;
pub mod foreign;
mod health_checks;
pub mod host_ports;
pub mod kube_proxy;
mod listing;
pub mod localhost;
pub mod plan;
pub mod policy;
pub mod pools;
pub mod programs;
pub mod prove;
mod ruleset;
pub mod service;
pub mod stale;
mod topology;

pub use absent::absent;
pub use apply::{Lowered, Patch, apply};
pub use explain::{Explanation, Source, explain, source};
pub use foreign::{Handles, Probe, foreign};
pub use host_ports::HostPorts;
pub use plan::{Change, Changes, Common, Plan, node_addresses, plan, replan};
pub use programs::Program;
pub use prove::{prove, prove_but};
pub use service::{Arrival, Backend, Frontend, PassedOver, Pool, ServicePlan, Virtual};
pub use stale::{Former, Stale, Why, stale};
pub use topology::Here;
