//! The node's servers: sockets that answer from what the layers decided.
//!
//! ```text
//!   pod ──UDP/TCP 53──▶ dns::run ──▶ Zone::answer ──▶ the cluster's names
//!                          └───────▶ upstream server    all others
//!   load balancer ──HTTP──▶ health::Server               has this node endpoints?
//!                  └─HTTP──▶ healthz::Healthz             does it take packets at all?
//!   Prometheus ──HTTP──▶ metrics::Metrics              what has been counted?
//!   agents ◀──UDP 4244──▶ beats::Beats                   is that node alive?
//! ```
//!
//! Nothing is decided here: which names exist is the application layer's, and the zone is swapped whole
//! while questions are answered. Deliberately absent: a cache of what upstream servers said, which
//! they have themselves; a proxy for HTTP, which comes later.

pub mod beats;
pub mod dns;
pub mod health;
pub mod healthz;
mod http;
pub mod metrics;
