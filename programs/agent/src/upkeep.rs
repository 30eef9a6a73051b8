//! [`Upkeep`]: the loop's work on one node's kernel, without its clock, sockets and files, so that it
//! can be tried on a kernel in memory.
//!
//! ```text
//!   Snapshot ─▶ plan ─▶ (prove) ─▶ diff ─▶ execute ─▶ (prove)      one Round
//! ```
//!
//! It proves when it looks at the kernel anew: before repairing, so that an operator learns what
//! somebody has changed, and after, so that steps which the kernel accepted without effect are found.
//! What is wrong with pods' own links is told only if it is still so at the next look: they come and
//! go before the API server says so. Repairing them is not the agent's; deleting the pod is.

use std::collections::{BTreeMap, BTreeSet};

use parfait_cluster::{Node, Note, Snapshot, Underlay};
use parfait_join::NodePlan;
use parfait_kernel::nft::NftSocket;
use parfait_kernel::{Kernel, Netfilter, NodeFacts, Socket};
use parfait_linux::attachment::is_host_interface;
use parfait_linux::{IfName, RouteKind, State, nft};
use parfait_packet::Finding;

use crate::machine::{Machine, SyncError, attachable};

/// One node's kernel, kept equal to what the cluster's objects say.
pub struct Upkeep<K = Socket, N = NftSocket> {
    node: String,
    machine: Machine<K, N>,
    /// The next round proves, as it looks at everything anew.
    looking: bool,
    /// The kernel has been as planned before: what differs now, somebody has changed.
    settled: bool,
    suspected: BTreeSet<Finding>,
}

/// What one round came to.
#[derive(Debug)]
pub struct Round {
    /// The plan that was carried out.
    pub plan: NodePlan,
    /// The underlay of this node as it is; it must be in the Node before peers can be planned.
    pub underlay: Option<Underlay>,
    /// How many steps were tried.
    pub steps: usize,
    /// What could not be done, and must be tried again.
    pub failures: Vec<String>,
    /// What waits for the CNI plugin or the API server.
    pub put_off: Vec<String>,
    /// How the kernel differed from the plan before it was repaired.
    pub drift: BTreeSet<Finding>,
    /// How it differs still.
    pub findings: BTreeSet<Finding>,
}

impl Round {
    /// Whether the round should be repeated soon.
    #[must_use]
    pub fn unfinished(&self) -> bool {
        !(self.failures.is_empty() && self.put_off.is_empty())
    }

    /// Whether the kernel is as planned now.
    #[must_use]
    pub fn planned(&self) -> bool {
        self.failures.is_empty() && self.plan.link.underlay.is_some()
    }

    /// Everything that could not be planned.
    #[must_use]
    pub fn notes(&self) -> BTreeSet<Note> {
        self.plan.notes().cloned().collect()
    }
}

impl Upkeep {
    /// Opens this node's kernel: the network namespace of the calling thread.
    ///
    /// # Errors
    /// As [`Machine::open`].
    pub fn open(node: &str) -> Result<Self, SyncError> {
        Ok(Self::new(node, Machine::open()?))
    }
}

impl<K: Kernel, N: Netfilter> Upkeep<K, N> {
    /// The upkeep of a node.
    pub fn new(node: &str, machine: Machine<K, N>) -> Self {
        Self {
            node: node.to_owned(),
            machine,
            looking: true,
            settled: false,
            suspected: BTreeSet::new(),
        }
    }

    /// The machine.
    pub fn machine(&mut self) -> &mut Machine<K, N> {
        &mut self.machine
    }

    /// The next round looks at the kernel again, instead of trusting what it knows, and proves.
    pub fn look_again(&mut self) {
        self.machine.forget();
        self.looking = true;
    }

    /// Plans and carries out. `None` if there is no such Node.
    pub fn round(&mut self, snapshot: &Snapshot) -> Option<Round> {
        let node = snapshot.nodes.get(&self.node)?;
        let plan = NodePlan::new(snapshot, &node.name);
        let desired = plan.state();
        let mut round = Round {
            plan,
            underlay: None,
            steps: 0,
            failures: Vec::new(),
            put_off: Vec::new(),
            drift: BTreeSet::new(),
            findings: BTreeSet::new(),
        };
        let outcome = self.carry_out(node, &desired, &mut round);
        if let Err(error) = outcome {
            round.failures.push(error.to_string());
        }
        Some(round)
    }

    fn carry_out(
        &mut self,
        node: &Node,
        desired: &State,
        round: &mut Round,
    ) -> Result<(), SyncError> {
        let mut observed = self.machine.observe(desired)?;
        round.underlay = underlay(node, observed);
        if round.underlay.is_none() {
            // The address may have come since.
            self.machine.forget();
            observed = self.machine.observe(desired)?;
            round.underlay = underlay(node, observed);
        }
        if round.underlay.is_none() {
            let addresses: Vec<_> = node.addresses.iter().map(ToString::to_string).collect();
            round.failures.push(format!(
                "no interface here has one of the addresses of Node {} ({}): is this the node that --node-name says?",
                node.name,
                addresses.join(", ")
            ));
        }
        if round.plan.link.underlay.is_none() {
            return Ok(());
        }
        let looking = std::mem::take(&mut self.looking);
        if looking && self.settled {
            round.drift = prove(&round.plan, desired, observed).sure;
            for drift in &round.drift {
                tracing::warn!("{drift}: somebody changed it; putting it right");
            }
        }
        let synced = self.machine.sync(desired);
        round.put_off = self.machine.put_off().to_vec();
        round.steps = synced?;
        self.settled = true;
        if looking {
            if round.steps > 0 {
                self.machine.forget();
            }
            let observed = self.machine.observe(desired)?;
            let found = prove(&round.plan, desired, observed);
            let lasting = self.suspected.intersection(&found.suspected);
            round.findings = found.sure.iter().chain(lasting).cloned().collect();
            self.suspected = found.suspected;
        }
        Ok(())
    }
}

/// The differences between plan and kernel, from every layer.
pub struct Differences {
    /// Those that only the agent can have left, or somebody else made.
    pub sure: BTreeSet<Finding>,
    /// Those on planned pods' links, which may be the CNI plugin's doing that the API server has not
    /// told of yet.
    pub suspected: BTreeSet<Finding>,
}

/// Asks every layer. Links of pods that are not planned, with what lies on them, are left out:
/// their pods have just come, or have just gone.
#[must_use]
pub fn prove(plan: &NodePlan, desired: &State, observed: &State) -> Differences {
    let pods = |link: &IfName| is_host_interface(link.as_str());
    let planned = |link: &IfName| !pods(link) || desired.links.contains_key(link);
    let known = restrict(observed, planned);
    let possible = attachable(desired, observed);
    let held = State {
        neighbours: retained(&known.neighbours, |key| {
            !pods(&key.0) || possible.neighbours.contains_key(key)
        }),
        routes: retained(&known.routes, |key| {
            !key.link.as_ref().is_some_and(pods) || possible.routes.contains_key(key)
        }),
        ..restrict(&known, |link| !pods(link))
    };
    let mut sure = objects(&possible, &held);
    let suspected = objects(&restrict(desired, |_| true), &known);
    let suspected = suspected.difference(&sure).cloned().collect();
    sure.extend(tables(plan, observed));
    Differences { sure, suspected }
}

/// Without tables, and without what lies on other links than these.
fn restrict(state: &State, keep: impl Fn(&IfName) -> bool) -> State {
    State {
        links: retained(&state.links, &keep),
        addresses: retained(&state.addresses, |(link, _)| keep(link)),
        routes: retained(&state.routes, |key| key.link.as_ref().is_none_or(&keep)),
        neighbours: retained(&state.neighbours, |(link, _)| keep(link)),
        fdb: retained(&state.fdb, |(link, _, _)| keep(link)),
        sysctls: state.sysctls.clone(),
        tables: nft::Tables::new(),
    }
}

fn retained<K: Ord + Clone, V: Clone>(
    map: &BTreeMap<K, V>,
    keep: impl Fn(&K) -> bool,
) -> BTreeMap<K, V> {
    let kept = map.iter().filter(|(key, _)| keep(key));
    kept.map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// Each layer compares the kinds of things that it plans, so both get everything.
fn objects(desired: &State, observed: &State) -> BTreeSet<Finding> {
    let link = parfait_link::prove(desired, observed);
    let internet = parfait_internet::prove(desired, observed);
    link.into_iter().chain(internet).collect()
}

/// Two layers share the tables: each gets its own part.
fn tables(plan: &NodePlan, observed: &State) -> Vec<Finding> {
    let only = |tables: &nft::Tables| State {
        tables: tables.clone(),
        ..State::default()
    };
    let internet = parfait_internet::apply(&plan.internet);
    let transport = parfait_transport::apply(&plan.transport, &plan.node);
    let mut findings = parfait_internet::prove(&only(&internet.tables), &only(&observed.tables));
    findings.extend(parfait_transport::prove(&transport, &observed.tables));
    findings
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
