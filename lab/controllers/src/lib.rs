//! The controllers of the lab's cluster: what makes a Deployment into pods, gives pods their nodes and
//! Services their endpoints.
//!
//! ```text
//!            ┌────────────── the API server ──────────────┐
//!      watch │                                            ▲ writes
//!            ▼                                            │
//!          World ──▶ step(world, config, now) ──▶ Vec<Write>
//! ```
//!
//! Every controller is a pure function of the [`World`]: no I/O, no clock, no randomness (names come from
//! hashing, [`names`]). It looks at what is, not at what happened, so a lost or repeated event changes
//! nothing, and a controller that acts on a picture a moment old is corrected by the next step. The
//! [`driver`] runs them against an API server; [`simulate()`] runs the same functions on a folder of YAML with
//! no cluster at all, which is how `parfait explain` knows where pods would be.
//!
//! Each file is one controller and says what it leaves out. Left out altogether: CronJobs, storage,
//! quotas, autoscaling, ServiceAccount tokens, certificates, and Service addresses (the API server gives
//! those).

pub mod config;
pub mod driver;
pub mod memory;
pub mod names;
pub mod object;
pub mod pods;
pub mod selector;
pub mod simulate;
pub mod world;
pub mod write;

mod affinity;
mod daemon_set;
mod deployment;
mod endpoint_slice;
mod garbage;
mod hints;
mod job;
mod kubernetes_service;
mod namespace;
mod node_cidr;
mod node_lifecycle;
mod replica_set;
mod revision;
mod scheduler;
mod stateful_set;

use std::collections::BTreeSet;

use jiff::Timestamp;

pub use config::{Config, Family};
pub use driver::{Error, run};
pub use object::{Object, ObjectError, ObjectRef};
pub use simulate::{Simulation, simulate};
pub use world::World;
pub use write::Write;

/// What all controllers want done about the world as it is: nothing, when it is as it should be.
///
/// At most one write per object comes out, because a second would only conflict with the first; what
/// was left out comes with the next step.
pub fn step(world: &World, config: &Config, now: Timestamp) -> Vec<Write> {
    let all = [
        kubernetes_service::step(world, config),
        namespace::step(world),
        garbage::step(world),
        node_cidr::step(world, config, now),
        node_lifecycle::step(world, config, now),
        deployment::step(world, now),
        replica_set::step(world, now),
        stateful_set::step(world, now),
        daemon_set::step(world, now),
        job::step(world, now),
        scheduler::step(world, now),
        endpoint_slice::step(world, config),
    ];
    let mut seen = BTreeSet::new();
    let mut kept = false;
    let mut first = |write: &Write| {
        // What tells of a write goes the way of that write.
        if let Some(target) = write.target() {
            kept = seen.insert((
                target.api_version,
                target.kind,
                target.namespace,
                target.name,
            ));
        }
        kept
    };
    all.into_iter()
        .flatten()
        .filter(|write| first(write))
        .collect()
}
