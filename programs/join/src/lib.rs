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

mod follow;
mod probes;
mod prove;

use std::sync::Arc;

use parfait_cluster::{Note, Snapshot};
use parfait_linux::{State, nft};
use parfait_transport::policy::Planner;

pub use follow::{Delta, Follower};
pub use prove::{Observed, foreign, objects, prove, surroundings, tables};

/// One node's plans, layer by layer.
#[derive(Clone, Debug)]
pub struct NodePlan {
    /// The node.
    pub node: String,
    /// The link layer's.
    pub link: Arc<parfait_link::Plan>,
    /// The internet layer's.
    pub internet: Arc<parfait_internet::Plan>,
    /// The transport layer's.
    pub transport: Arc<parfait_transport::Plan>,
    /// The transport layer's for NetworkPolicies.
    pub policy: Arc<parfait_transport::policy::Plan>,
}

impl NodePlan {
    /// Plans one node.
    #[must_use]
    pub fn new(snapshot: &Snapshot, node: &str) -> Self {
        Self::with_planner(snapshot, node).0
    }

    /// Plans one node, and keeps what the plan of policies follows with.
    fn with_planner(snapshot: &Snapshot, node: &str) -> (Self, Planner) {
        let (settled, disputes) = parfait_cluster::settle(snapshot);
        let transport = Arc::new(parfait_transport::plan(&settled, node));
        let policies = Planner::new(&settled, node);
        let (link, internet) = lower_layers(&settled, node, &disputes);
        let plan = Self {
            node: node.to_owned(),
            link,
            internet,
            transport,
            policy: Arc::clone(policies.plan()),
        };
        (plan, policies)
    }

    /// What the node's kernel must hold.
    #[must_use]
    pub fn state(&self) -> State {
        let mut state = self.objects();
        state.tables = parfait_internet::apply(&self.internet).tables;
        let services = parfait_transport::apply(&self.transport).into_iter();
        nft::join(
            &mut state.tables,
            services.map(|table| (table.key(), table)).collect(),
        );
        nft::join(&mut state.tables, policies(&self.policy));
        state
    }

    /// The same without the tables.
    #[must_use]
    pub fn objects(&self) -> State {
        let mut state = parfait_link::apply(&self.link);
        state.extend(parfait_internet::apply(&self.internet));
        state.tables.clear();
        let ports = &self.transport.common.host_ports;
        for (setting, origin) in parfait_transport::host_ports::settings(ports).into_values() {
            state.insert(setting, origin);
        }
        let localhost = parfait_transport::localhost::setting(&self.transport.common);
        if let Some((setting, origin)) = localhost {
            state.insert(setting, origin);
        }
        state
    }

    /// Everything that could not be planned.
    pub fn notes(&self) -> impl Iterator<Item = Note> {
        let lower = self.link.notes.iter().chain(&self.internet.notes);
        let policies = self.policy.notes.iter().cloned();
        lower.cloned().chain(self.transport.notes()).chain(policies)
    }
}

/// What policies want of the tables.
fn policies(plan: &parfait_transport::policy::Plan) -> nft::Tables {
    let tables = parfait_transport::policy::apply(plan).into_iter();
    tables.map(|table| (table.key(), table)).collect()
}

/// The two layers that know no Services. `disputes` are why pod CIDRs are left out of the snapshot.
fn lower_layers(
    settled: &Snapshot,
    node: &str,
    disputes: &[Note],
) -> (Arc<parfait_link::Plan>, Arc<parfait_internet::Plan>) {
    let link = parfait_link::plan(settled, node);
    let mut internet = parfait_internet::plan(settled, node, &link.paths);
    internet.notes.extend_from_slice(disputes);
    (Arc::new(link), Arc::new(internet))
}
