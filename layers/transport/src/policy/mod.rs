//! NetworkPolicy and ClusterNetworkPolicy on one node: who may talk to its pods, and to whom they may.
//!
//! ```text
//!   policies ─▶ pods of this node that they select ─▶ a class for each set of policies
//!                                                             │  tiers of steps: peers × ports, each with its rule
//!                       packet ──▶ address ──▶ class ──▶ look-ups ──▶ passes, or is dropped
//! ```
//!
//! [`plan()`] decides which pods are isolated, by which policies, and what these allow; [`apply()`] lowers that to
//! nf_tables; [`explain()`] names the tier and the rule that decide, or what came nearest to one; [`prove()`] compares.
//!
//! What the API leaves open is decided so:
//!
//! - A packet is judged where the pod is, as forwarding sees it: with the destination behind a Service, not the
//!   Service's; with the source before it is masqueraded there. `ipBlock` means any address, a pod's too.
//! - A pod's own node always reaches it, and it its node (the documentation's exception), unless a ClusterNetworkPolicy denies
//!   that; other nodes are addresses like all others. Pods on a node's network are the node: not selected, and no peers.
//! - Names are asked of the Service that nodes' agents answer for (cluster DNS) as if a pod with the Service's
//!   selector, or with its labels, answered there: what allows DNS elsewhere allows it here.
//! - A pod reaches itself, through a Service too. Answers pass, and errors about what passed.
//! - A named port is the receiving pod's; an `ipBlock` that packets go *to* has no names, and such a rule allows
//!   nothing.
//!
//! [`host`] is about the node itself: NodeNetworkPolicies, and what passes whatever they say.
//!
//! Deliberately absent: rules by domain name or by HTTP request.

mod apply;
pub mod class;
mod classes;
mod compile;
pub mod denial;
pub mod effective;
pub mod ended;
mod explain;
pub mod group;
pub mod host;
pub mod lint;
pub mod matches;
pub mod matrix;
mod members;
pub mod nodes;
pub mod overview;
mod part;
mod plan;
mod planner;
mod regroup;
mod select;
mod stale;
mod teller;

pub use apply::{BASE, ENDING, apply, is_class, prove};
pub use class::{Class, Decision, Level, Step, Tier};
pub use effective::Effective;
pub use ended::{ENDED, Forbidden, direction_of, element_of, end, forbidden};
pub use explain::{Explanation, Near, explain, explain_node};
pub use host::{Host, depends_on};
pub use lint::lint;
pub use matrix::Matrix;
pub use overview::overview;
pub use part::difference;
pub use plan::{Isolated, Plan, plan};
pub use planner::Planner;
pub use teller::{first_node, is_of};
