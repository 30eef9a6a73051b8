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
    let mut findings = objects(&desired, state);
    findings.extend(tables(plan, &desired, state));
    findings.extend(surroundings(snapshot, plan, &desired, state));
    findings.extend(foreign(snapshot, plan, observed));
    findings.sort();
    findings.dedup();
    findings
}

/// The differences in everything but tables. Each layer compares the kinds of things that it plans, so
/// both get everything.
#[must_use]
pub fn objects(desired: &State, observed: &State) -> Vec<Finding> {
    let desired = &State {
        tables: nft::Tables::new(),
        ..desired.clone()
    };
    let mut findings = parfait_link::prove(desired, observed);
    findings.extend(parfait_internet::prove(desired, observed));
    findings
}

/// What a comparison of plan and kernel does not see: the underlay that all stands on, the routes that
/// a routing daemon should have brought, and who else has an address.
#[must_use]
pub fn surroundings(
    snapshot: &Snapshot,
    plan: &NodePlan,
    desired: &State,
    observed: &State,
) -> Vec<Finding> {
    let mut findings = parfait_link::underlay(&plan.link, observed);
    let learned = parfait_internet::prove_learned(snapshot, &plan.node, observed);
    findings.extend(learned);
    let owners = parfait_internet::owners(&plan.internet, snapshot, desired, observed);
    findings.extend(owners);
    findings
}

/// What other programs' rules do to this node's pods' packets, and its card to the tunnel's.
#[must_use]
pub fn foreign(snapshot: &Snapshot, plan: &NodePlan, observed: &Observed) -> Vec<Finding> {
    let card = observed.offload.as_ref();
    let card = card.and_then(|facts| parfait_link::offload(&plan.link, facts).0);
    let mut findings = rules(snapshot, plan, observed);
    findings.extend(parfait_transport::kube_proxy::found(&observed.state));
    findings.extend(card);
    findings
}

fn rules(snapshot: &Snapshot, plan: &NodePlan, observed: &Observed) -> Vec<Finding> {
    let address_type = |address| observed.state.address_type(address);
    let tables = &observed.state.tables;
    if tables.keys().all(|(_, name)| name == "parfait") {
        return Vec::new();
    }
    let probes = probes::probes(snapshot, plan);
    parfait_transport::foreign(tables, &observed.handles, &probes, &address_type)
}

/// The differences in the tables that are desired. Two layers share them: each gets its own part.
#[must_use]
pub fn tables(plan: &NodePlan, desired: &State, observed: &State) -> Vec<Finding> {
    let wanted = |key: &(_, String)| desired.tables.contains_key(key);
    let mut internet = parfait_internet::apply(&plan.internet).tables;
    internet.retain(|key, _| wanted(key));
    let mut findings = parfait_internet::prove_tables(&internet, &observed.tables);
    let mut policies = parfait_transport::policy::apply(&plan.policy);
    policies.retain(|table| wanted(&table.key()));
    findings.extend(parfait_transport::policy::prove(
        &policies,
        &observed.tables,
    ));
    let mut others = internet;
    let policies = policies.into_iter().map(|table| (table.key(), table));
    nft::join(&mut others, policies.collect());
    findings.extend(parfait_transport::prove_but(
        desired.tables.values(),
        &observed.tables,
        &others,
    ));
    findings
}
