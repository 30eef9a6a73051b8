//! The transport layer: Services, as two map look-ups and no chain per Service.
//!
//! ```text
//!   client ──▶ 10.96.0.20:80 ──services──▶ chain n3 ──endpoints_3──▶ 10.244.2.4:8080
//!              (virtual address)  look-up 1   (3 endpoints)  look-up 2: one of three, at random
//! ```
//!
//! [`plan()`] decides from the snapshot which endpoints stand behind each virtual address and port;
//! [`apply()`] lowers that to nf_tables; [`explain()`] says which Service, candidates and refusals a
//! packet meets; [`prove()`] compares the kernel's tables with the planned ones.
//!
//! The semantics follow KEP-3866 (kube-proxy's nftables mode) and KEP-1669 (terminating
//! endpoints). So far: ClusterIP Services and host ports ([`host_ports`]) over TCP, UDP and SCTP.
//! Deliberately absent until they are whole: node ports, load balancer and external addresses, traffic policies, session
//! affinity. See README.md for the picture of the ruleset.

pub mod apply;
pub mod explain;
pub mod foreign;
pub mod host_ports;
pub mod plan;
pub mod prove;

pub use apply::apply;
pub use explain::explain;
pub use foreign::{Handles, Probe, foreign};
pub use host_ports::HostPorts;
pub use plan::{Backend, Frontend, Plan, Virtual, plan};
pub use prove::prove;
