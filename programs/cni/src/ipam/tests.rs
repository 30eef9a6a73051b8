//! The allocations against a reference model: whatever is called, killed, rebooted or damaged, in
//! whatever order. `PARFAIT_RUNS=100000` runs longer than the default.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

mod laws;
mod model;
mod tables;
