//! One turn of the agent's loop: what changed is planned whole and carried out as differences.

use std::collections::BTreeSet;
use std::time::Duration;

use kube::Client;
use parfait_cluster::{Key, Node, Note, Snapshot, Underlay};
use parfait_cni::NodeConfig;
use parfait_join::NodePlan;
use parfait_kernel::NodeFacts;
use parfait_linux::{RouteKind, State};

use crate::files;
use crate::machine::{Machine, SyncError};
use crate::names::Names;
use crate::options::Options;

/// What lasts from turn to turn.
pub(crate) struct Turns {
    options: Options,
    client: Client,
    machine: Machine,
    names: Names,
    noted: BTreeSet<Note>,
    failed: bool,
    reported: Option<Underlay>,
    synced: bool,
}

impl Turns {
    pub(crate) fn new(options: Options, client: Client, machine: Machine) -> Self {
        Self {
            names: Names::new(options.upstreams.clone()),
            options,
            client,
            machine,
            noted: BTreeSet::new(),
            failed: false,
            reported: None,
            synced: false,
        }
    }

    /// Whether the last turn left something undone.
    pub(crate) fn failed(&self) -> bool {
        self.failed
    }

    /// How long to wait for a change before looking at the kernel again.
    pub(crate) fn resync(&self) -> Duration {
        self.options.resync
    }

    /// The next turn looks at the kernel again, instead of trusting what it knows.
    pub(crate) fn look_again(&mut self) {
        self.machine.forget();
        self.reported = None;
    }

    /// Plans and carries out. What fails is logged and makes [`Self::failed`] true.
    pub(crate) async fn turn(&mut self, snapshot: &Snapshot, changed: &BTreeSet<Key>) {
        self.failed = false;
        self.names.follow(snapshot, changed);
        let Some(node) = snapshot.nodes.get(&self.options.node_name) else {
            tracing::info!(
                node = self.options.node_name,
                "there is no such Node yet; waiting for it"
            );
            return;
        };
        let plan = NodePlan::new(snapshot, &node.name);
        let desired = plan.state();
        self.report_underlay(node, &desired).await;
        self.say_notes(&plan);
        if plan.link.underlay.is_none() {
            return;
        }
        let outcome = tokio::task::block_in_place(|| self.machine.sync(&desired));
        match outcome {
            Ok(0) => {}
            Ok(steps) => tracing::info!(steps, "the kernel is as planned"),
            Err(error) => self.fail(&error),
        }
        if let Err(error) = self.names.serve(&plan.internet) {
            self.fail(&error);
        }
        // A node is ready for pods once its own network stands.
        self.synced |= !self.failed;
        if self.synced {
            self.write_files(node, &plan);
        }
    }

    fn fail(&mut self, error: &dyn std::fmt::Display) {
        tracing::warn!("{error}; trying again");
        self.failed = true;
    }

    fn write_files(&mut self, node: &Node, plan: &NodePlan) {
        let Some(mtu) = plan.link.pod_mtu.filter(|_| !node.pod_cidrs.is_empty()) else {
            return;
        };
        let config = NodeConfig {
            node: node.name.clone(),
            addresses: node.addresses.clone(),
            pod_cidrs: node.pod_cidrs.clone(),
            mtu: mtu.bytes(),
        };
        if let Err(error) = files::write(&self.options, &config) {
            self.fail(&error);
        }
    }

    /// Tells the cluster about this node's underlay, when it is not what the Node says.
    async fn report_underlay(&mut self, node: &Node, desired: &State) {
        let observed = tokio::task::block_in_place(|| {
            let state = self.machine.observe(desired)?;
            Ok::<_, SyncError>(underlay(node, state))
        });
        let underlay = match observed {
            Ok(underlay) => underlay,
            Err(error) => return self.fail(&error),
        };
        let Some(underlay) = underlay else {
            tracing::warn!(addresses = ?node.addresses, "no interface here has one of the Node's addresses");
            self.failed = true;
            return;
        };
        if node.underlay.as_ref() == Some(&underlay) || self.reported.as_ref() == Some(&underlay) {
            return;
        }
        match parfait_kube::report_underlay(&self.client, &node.name, &underlay).await {
            Ok(()) => self.reported = Some(underlay),
            Err(error) => self.fail(&error),
        }
    }

    /// Each note is logged once, when it appears.
    fn say_notes(&mut self, plan: &NodePlan) {
        let notes: BTreeSet<Note> = plan.notes().cloned().collect();
        for note in notes.difference(&self.noted) {
            tracing::warn!("{note}");
        }
        self.noted = notes;
    }
}

/// What only this machine knows of its underlay.
fn underlay(node: &Node, state: &State) -> Option<Underlay> {
    let facts = NodeFacts::of(state, &node.addresses);
    let first = facts.first()?;
    let here = facts
        .iter()
        .filter(|fact| fact.interface == first.interface);
    let gateways = state.routes.values().filter_map(|item| {
        let route = &item.value;
        let default = route.destination.prefix_len() == 0 && route.kind == RouteKind::Unicast;
        route
            .via
            .filter(|_| default && route.link.as_ref() == Some(&first.interface))
    });
    Some(Underlay {
        interface: first.interface.to_string(),
        mtu: first.mtu.bytes(),
        addresses: here.map(|fact| fact.prefix).collect(),
        gateways: gateways.collect(),
    })
}
