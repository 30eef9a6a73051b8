//! The rules objects must keep, kind by kind, in Kubernetes' words.
//!
//! Source: `pkg/apis/*/validation/validation.go`. All broken rules of an object are reported at once. What is checked is
//! what a network's user runs into: names, ports, selectors, probes, volumes, immutability. What is not: security
//! contexts, resource arithmetic, affinity terms, volume sources; such fields are checked for type only.

pub mod apps;
pub mod metadata;
pub mod names;
pub mod network;
pub mod other;
pub mod pod;
pub mod ports;
pub mod service;
pub mod warnings;

/// The message for a field that may not change.
const IMMUTABLE: &str = "field is immutable";
