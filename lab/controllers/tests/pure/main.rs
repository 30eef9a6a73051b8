//! The controllers without any cluster: a world goes in, writes come out.
//!
//! Each module is one controller (or two that belong together); `support` has the small language the tests
//! are written in. `properties` holds what must be true whatever happens in whatever order.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

mod deployment;
mod endpoints;
mod lifetimes;
mod nodes;
mod properties;
mod scheduler;
mod simulation;
mod support;
mod workloads;
