//! To be filled.
pub mod server;
