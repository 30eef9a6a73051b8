//! The lab's kubelet.

pub mod cni;
pub mod container;
pub mod dns;
pub mod env;
pub mod fields;
pub mod lifecycle;
mod netns;
pub mod paths;
mod quantity;
pub mod security;
pub mod sources;
pub mod status;

pub use container::container_main;
