//! The Kubernetes API server, as an edge: what it says becomes a [`parfait_cluster::Snapshot`], and
//! what Parfait has to say goes back as annotations, status and Events.
//!
//! ```text
//!   list + watch ──▶ Feed ──▶ Snapshot          (the agent's loop)
//!   list         ──▶ read ──▶ Snapshot          (explain, once)
//! ```
//!
//! Promises: what the API server has not finished listing is never treated as deleted; a watch
//! that ends is taken up again where it ended, or listed anew (kube-rs does both).
//!
//! Deliberately absent: deciding anything. Requests are made with the credentials of the
//! kubeconfig, or those of the pod that this program runs in.

mod accepted;
mod balancer;
mod client;
mod events;
mod feed;
mod kinds;
mod lease;
mod read;
mod report;
pub mod rights;

pub use accepted::{accept, has_status};
pub use balancer::Balancers;
pub use client::{Error, client};
pub use events::Events;
pub use feed::{Feed, News};
pub use kinds::config_yaml;
pub use lease::{Lease, RENEW};
pub use read::{Skipped, read};
pub use report::report_underlay;
