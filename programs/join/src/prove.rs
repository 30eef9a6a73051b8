//! [`prove`]: one node's plan against what its kernel holds, all layers, and what the layers alone
//! cannot see: who else has an address, and what other programs' rules do to pods' packets.
//!
//! ```text
//!   NodePlan ─▶ State ─┬─ link, internet, transport: missing, different, extra
//!   Observed ──────────┼─ the underlay that all stands on
//!   Snapshot ──────────┼─ addresses without an owner, or with two
//!                      └─ probes ─▶ other programs' rules
//! ```

use parfait_cluster::Snapshot;
use parfait_linux::{Offload, State, nft};
use parfait_packet::Finding;
use parfait_transport::Handles;

use crate::{NodePlan, probes};

/// What a node's kernel holds.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Links, addresses, routes, neighbours, forwarding entries, the planned settings, and the tables
    /// of all programs.
    pub state: State,
    /// The numbers of the rules in those tables.
    pub handles: Handles,
    /// About the interface that the tunnel uses, where somebody asked.
    pub offload: Option<Offload>,
}

/// Everything that is not as planned, in the order of layers and codes.
#[must_use]
pub fn prove(snapshot: &Snapshot, plan: &NodePlan, observed: &Observed) -> Vec<Finding> {
    let desired = plan.state();
    let state = &observed.state;
    let objects = State {
        tables: nft::Tables::new(),
        ..desired.clone()
    };
    let mut findings = parfait_link::prove(&objects, state);
    findings.extend(parfait_link::underlay(&plan.link, state));
    let offload = observed.offload.as_ref();
    findings.extend(offload.and_then(|facts| parfait_link::offload(&plan.link, facts).0));
    findings.extend(parfait_internet::prove(&objects, state));
    let learned = parfait_internet::prove_learned(snapshot, &plan.node, state);
    findings.extend(learned);
    findings.extend(tables(plan, state));
    let owners = parfait_internet::owners(&plan.internet, snapshot, &desired, state);
    findings.extend(owners);
    findings.extend(foreign(snapshot, plan, observed));
    findings.sort();
    findings.dedup();
    findings
}

/// What other programs' rules do to this node's pods' packets.
#[must_use]
pub fn foreign(snapshot: &Snapshot, plan: &NodePlan, observed: &Observed) -> Vec<Finding> {
    let address_type = |address| observed.state.address_type(address);
    let tables = &observed.state.tables;
    if tables.keys().all(|(_, name)| name == "parfait") {
        return Vec::new();
    }
    let probes = probes::probes(snapshot, plan);
    parfait_transport::foreign(tables, &observed.handles, &probes, &address_type)
}

/// Two layers share the tables: each gets its own part.
fn tables(plan: &NodePlan, observed: &State) -> Vec<Finding> {
    let only = |tables: &nft::Tables| State {
        tables: tables.clone(),
        ..State::default()
    };
    let internet = parfait_internet::apply(&plan.internet);
    let transport = parfait_transport::apply(&plan.transport);
    let mut findings = parfait_internet::prove(&only(&internet.tables), &only(&observed.tables));
    findings.extend(parfait_transport::prove(&transport, &observed.tables));
    findings
}
