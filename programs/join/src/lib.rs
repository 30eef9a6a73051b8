//! What one node must hold: the layers' plans, joined.
//!
//! Layers do not know each other. This is the one place where the link layer's paths are handed to
//! the internet layer, and where what each layer wants becomes one [`State`]. The agent executes
//! it; the inspector walks packets through it; both get it here, so they cannot differ.
//!
//! ```text
//!   Snapshot ─▶ link::plan ──paths──▶ internet::plan    transport::plan
//!                   └─ apply ─┐            └─ apply ─┐       └─ apply ─┐
//!                             └──────────────────────┴────── State ◀───┘
//! ```
//!
//! The application layer is not here: its zone is the cluster's, not a node's.

mod probes;
mod prove;

use std::sync::Arc;

use parfait_cluster::{Note, Snapshot};
use parfait_linux::State;

pub use prove::{Observed, foreign, objects, prove, surroundings, tables};

/// One node's plans, layer by layer.
#[derive(Clone, Debug)]
pub struct NodePlan {
    /// The node.
    pub node: String,
    /// The link layer's.
    pub link: parfait_link::Plan,
    /// The internet layer's.
    pub internet: parfait_internet::Plan,
    /// The transport layer's.
    pub transport: Arc<parfait_transport::Plan>,
}

impl NodePlan {
    /// Plans one node.
    #[must_use]
    pub fn new(snapshot: &Snapshot, node: &str) -> Self {
        let (settled, _) = parfait_cluster::settle(snapshot);
        let services = parfait_transport::plan(&settled, node);
        Self::with_services(snapshot, node, Arc::new(services))
    }

    /// Plans one node with Services that are already planned.
    #[must_use]
    pub fn with_services(
        snapshot: &Snapshot,
        node: &str,
        transport: Arc<parfait_transport::Plan>,
    ) -> Self {
        let (snapshot, notes) = parfait_cluster::settle(snapshot);
        let link = parfait_link::plan(&snapshot, node);
        let mut internet = parfait_internet::plan(&snapshot, node, &link.paths);
        internet.notes.extend(notes);
        Self {
            node: node.to_owned(),
            link,
            internet,
            transport,
        }
    }

    /// What the node's kernel must hold.
    #[must_use]
    pub fn state(&self) -> State {
        let mut state = parfait_link::apply(&self.link);
        state.extend(parfait_internet::apply(&self.internet));
        let mut services = State::default();
        for table in parfait_transport::apply(&self.transport) {
            services.insert_table(table);
        }
        let ports = &self.transport.common.host_ports;
        for (setting, origin) in parfait_transport::host_ports::settings(ports).into_values() {
            services.insert(setting, origin);
        }
        state.extend(services);
        state
    }

    /// Everything that could not be planned.
    pub fn notes(&self) -> impl Iterator<Item = Note> {
        let lower = self.link.notes.iter().chain(&self.internet.notes);
        lower.cloned().chain(self.transport.notes())
    }
}
