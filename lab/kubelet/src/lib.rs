//! The lab's kubelet: it runs the pods of one node of the lab, and cannot be made to harm the machine.
//!
//! ```text
//!   API server ──watch──▶ pods ─▶ one task each ─▶ sandbox (network by CNI, volumes, names)
//!        ▲                             │      └──▶ containers (parfait lab-container)
//!        └── status, events, node ◀────┘              ▲
//!                                      └── probes ────┘
//! ```
//!
//! It does what `kubelet` and a container runtime do in a real cluster, as far as the network and its users can tell:
//! a pod is a network namespace, attached by running the CNI plugins of the node's configuration list; its containers
//! are programs of this machine or the lab's built-in ones in the place of images; probes, restarts, deletions, statuses and
//! events follow Kubernetes. There is one process per node, `parfait lab-kubelet`, started inside the node's network
//! namespace and the lab's mount and PID namespaces.
//!
//! Pure and tested as tables: [`lifecycle`] (what to do next), [`status`], [`env`](mod@env), [`dns`], [`security`],
//! [`fields`], the contents of [`volumes`]. Doing: [`cni`], [`container`], [`probes`] and the pods' tasks.
//!
//! Deliberately absent: images and their configuration, storage that persists, `kubectl exec` and `logs` (a kubelet's HTTP
//! server), resource management, eviction, static pods, ephemeral containers, GPUs, Windows.

mod api;
pub mod cni;
pub mod container;
pub mod dns;
pub mod env;
mod events;
pub mod fields;
mod kubelet;
pub mod lifecycle;
mod netns;
mod node;
pub mod paths;
mod pods;
pub mod probes;
mod quantity;
mod runtime;
mod sandbox;
pub mod security;
pub mod sources;
pub mod status;
pub mod volumes;
mod worker;

pub use container::container_main;
pub use kubelet::{Error, Options, run};
pub use lifecycle::Backoff;
pub use paths::{Paths, PodPaths};
