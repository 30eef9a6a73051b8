//! Explaining packets: from a snapshot of the cluster, where a packet goes, and why.
//!
//! ```text
//!   Question ─▶ who sends, to which addresses ─▶ a walk through every node's planned State ─▶ Answer
//!               (resolve, names)                 (walk, hook, wire, deliver)                 (render)
//! ```
//!
//! The walk evaluates the same lowered values that the agents execute: [`parfait_join::NodePlan`]
//! makes them for both. So an explanation cannot drift from what is programmed; where reality differs
//! from the plan, the agent's prove says so.
//!
//! [`status`] shows one node's plan, thing by thing, next to what its kernel holds.
//!
//! [`Memory`] is what kernels remember of flows, where they can be asked.
//!
//! Deliberately absent: I/O. A snapshot comes from a running cluster (the kube edge), or from a
//! folder of YAML; this crate cannot tell which.

mod answer;
mod deliver;
mod hook;
mod leg;
mod memory;
mod names;
pub mod node;
mod outside;
mod policies;
mod question;
mod render;
mod resolve;
mod services;
mod side;
mod tracked;
mod walk;
mod wire;
mod world;

pub use answer::{Answer, Way};
pub use memory::{By, Ended, Keeps, Memory, OnPaper, Pinned};
pub use node::{NodeStatus, status};
pub use question::{Question, Size, explain, explain_with};
pub use render::{Detail, render};
pub use resolve::Error;
pub use side::{InvalidSide, Side};
pub use tracked::{Connection, Tracked};
