//! The words for one packet and what happened to it: [`Packet`], [`Stage`], [`Hop`], [`Verdict`],
//! [`Reason`] and [`Origin`]; and for what is wrong with a node: [`Finding`] and [`Fault`].
//!
//! Every layer, the explainer and the tests speak in these. Nothing here decides anything: a
//! layer decides, and says what it decided in these words.
//!
//! ```text
//!   sender ─▶ output ─▶ routing ─▶ postrouting ─▶ wire ─▶ prerouting ─▶ routing ─▶ input ─▶ receiver
//!                                                          └▶ forward ─▶ postrouting ─▶ …
//! ```
//!
//! Deliberately absent: payloads, fragments and sequence numbers. A packet here is the first one
//! of a connection, which is the one that NAT and policy decide on.

mod fault;
mod finding;
mod hop;
mod origin;
mod packet;
mod reason;

pub use fault::Fault;
pub use finding::{Difference, Finding};
pub use hop::{Hop, Layer, Stage, Verdict};
pub use origin::{Asked, Kind, Origin};
pub use packet::{Family, Packet, Protocol, UnknownProtocol};
pub use reason::{Reason, Remedy};
