//! The lab's kubelet.

pub mod container;

pub use container::container_main;
