//! [`Upkeep`]: the loop's work on one node's kernel, without its clock, sockets and files, so that it
//! can be tried on a kernel in memory.
//!
//! ```text
//!   Snapshot ─▶ plan ─▶ (prove) ─▶ diff ─▶ execute ─▶ (prove)      one Round
//! ```
//!
//! While the kernel is as planned, a round costs what has changed: the plan follows, and only the parts of the tables
//! that a change touches are lowered, compared and carried out ([`Follower`]). If Services alone have changed, nothing
//! else is looked at. Any doubt (a failure, another program's change, a regular look) makes the round a whole one.
//!
//! It proves when it looks at the kernel anew: before repairing, so that an operator learns what
//! somebody has changed, and after, so that steps which the kernel accepted without effect are found.
//! At the regular looks, which are rarer, it also proves what a comparison with the plan cannot see:
//! other programs' rules that stop pods' packets, addresses of two, the network card. Other programs'
//! tables may be large and change all the time, so they are not read whenever something has changed.
//! What is wrong with pods' own links is told only if it is still so at the next look: they come and
//! go before the API server says so. Repairing them is not the agent's; deleting the pod is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use parfait_cluster::{DeniedConnections, ForeignChanges, Key, Node, Note, Snapshot, Underlay};
use parfait_join::{Delta, Follower, NodePlan, Observed};
use parfait_kernel::nft::NftSocket;
use parfait_kernel::{Kernel, Netfilter, Socket};
use parfait_linux::attachment::is_host_interface;
use parfait_linux::{IfName, Item, State, SysctlKey, nft};
use parfait_packet::{Family, Finding, Origin};
use parfait_transport::affinity;

use crate::denied::Denied;
use crate::flows::{Changed, Flows, Outcome};
use crate::machine::{Machine, SyncError, attachable, unknown};
use crate::take_over::{Predecessor, take_over};
use crate::{memory, underlay};

/// One node's kernel, kept equal to what the cluster's objects say.
pub struct Upkeep<K = Socket, N = NftSocket> {
    node: String,
    machine: Machine<K, N>,
    /// The plan that was carried out last.
    follower: Option<Follower>,
    /// What the last round found out about this machine.
    ground: Ground,
    /// The next round proves, as it looks at everything anew.
    looking: bool,
    /// The kernel has been as planned before: what differs now, somebody has changed.
    settled: bool,
    suspected: BTreeSet<Finding>,
    /// The next round looks around as well, or is the first.
    around: bool,
    /// What was found around at the last regular look.
    surroundings: Differences,
    /// What others have changed, was told, and is left.
    left: BTreeSet<Finding>,
    flows: Flows,
    denied: Denied,
    /// Whose rules are removed, and whether they were.
    predecessor: Option<(Predecessor, bool)>,
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
    /// Whether the kernel's tables are the planned ones.
    pub tables: bool,
    /// What waits for the CNI plugin or the API server.
    pub put_off: Vec<String>,
    /// How the kernel differed from the plan before it was repaired.
    pub drift: BTreeSet<Finding>,
    /// Whether all was looked at and proved.
    pub looked: bool,
    /// How it differs still.
    pub findings: BTreeSet<Finding>,
    /// What this kernel cannot hold at all, and what is done instead.
    pub lacking: Vec<Note>,
    /// The kernel has no IPv6.
    pub no_ipv6: bool,
}

/// What a plan is carried out on.
#[derive(Clone, Default)]
struct Ground {
    underlay: Option<Underlay>,
    lacking: Vec<Note>,
    no_ipv6: bool,
    /// The node's own addresses.
    addresses: BTreeSet<IpAddr>,
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

    /// What is found and was not told as somebody's change.
    #[must_use]
    pub fn untold(&self) -> BTreeSet<Finding> {
        self.findings.difference(&self.drift).cloned().collect()
    }

    /// Everything that could not be planned.
    #[must_use]
    pub fn notes(&self) -> BTreeSet<Note> {
        let planned = self.plan.notes();
        planned.chain(self.lacking.iter().cloned()).collect()
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
            follower: None,
            ground: Ground::default(),
            looking: true,
            settled: false,
            suspected: BTreeSet::new(),
            around: true,
            surroundings: Differences::default(),
            left: BTreeSet::new(),
            flows: Flows::default(),
            denied: Denied::default(),
            predecessor: None,
        }
    }

    /// The machine.
    pub fn machine(&mut self) -> &mut Machine<K, N> {
        &mut self.machine
    }

    /// At the first round and at regular looks, once its own rules stand, the rules of this program are removed.
    pub const fn take_over(&mut self, predecessor: Predecessor) {
        self.predecessor = Some((predecessor, false));
    }

    /// The next round looks at the kernel again, instead of trusting what it knows, and proves.
    pub fn look_again(&mut self) {
        self.machine.forget();
        self.looking = true;
    }

    /// The next round looks around as well: at other programs' rules, and who else has an address.
    pub fn look_around(&mut self) {
        self.look_again();
        self.around = true;
        self.flows.look();
    }

    /// Plans and carries out. `None` if there is no such Node. `changed` is all that is new in the snapshot since
    /// the last round.
    pub fn round(&mut self, snapshot: &Snapshot, changed: &BTreeSet<Key>) -> Option<Round> {
        let Some(node) = snapshot.nodes.get(&self.node) else {
            self.follower = None;
            return None;
        };
        let follower = self.follower.as_mut();
        let delta = follower.map(|follower| follower.follow(snapshot, changed));
        let new = || Follower::new(snapshot, &node.name);
        let follower = self.follower.get_or_insert_with(new);
        let mut round = Round {
            plan: follower.plan().clone(),
            underlay: None,
            steps: 0,
            failures: Vec::new(),
            tables: false,
            put_off: Vec::new(),
            drift: BTreeSet::new(),
            looked: false,
            findings: BTreeSet::new(),
            lacking: Vec::new(),
            no_ipv6: false,
        };
        if let Err(error) = self.carry_out(node, snapshot, delta, &mut round) {
            if let SyncError::Observe(_) = error {
                // Nobody knows how far it got.
                self.machine.forget();
            }
            round.failures.push(error.to_string());
        }
        Some(round)
    }

    fn carry_out(
        &mut self,
        node: &Node,
        snapshot: &Snapshot,
        delta: Option<Delta>,
        round: &mut Round,
    ) -> Result<(), SyncError> {
        let restore = snapshot.config.foreign_changes == ForeignChanges::Restore;
        let patch = delta.filter(|_| restore && !self.looking && self.machine.is_patchable());
        let services_alone = patch.as_ref().is_some_and(|delta| !delta.objects);
        let desired = match services_alone && self.machine.knows_objects() {
            true => None,
            false => Some(self.survey_ground(node, snapshot, &round.plan)?),
        };
        round.underlay.clone_from(&self.ground.underlay);
        round.lacking.clone_from(&self.ground.lacking);
        round.no_ipv6 = self.ground.no_ipv6;
        if round.underlay.is_none() {
            round.failures.push(nowhere(node));
        }
        if round.plan.link.underlay.is_none() {
            // What was not carried out cannot be built on.
            self.machine.forget();
            return Ok(());
        }
        if let Some(delta) = patch
            && self.patch(desired.as_ref(), delta, round)?
        {
            self.tend_denied(snapshot.config.denied_connections, round);
            return Ok(());
        }
        let done = self.carry_out_all(snapshot, round);
        memory::give_back();
        done
    }

    /// Carries out what has changed. `false` if that cannot be done in parts.
    fn patch(
        &mut self,
        desired: Option<&State>,
        mut delta: Delta,
        round: &mut Round,
    ) -> Result<bool, SyncError> {
        if round.no_ipv6 {
            delta.tables.drop_family(Family::Ipv6);
        }
        let patched = self.machine.patch(desired, &delta.tables);
        round.tables = self.machine.tables_done();
        round.put_off = self.machine.put_off().to_vec();
        let Some(steps) = patched? else {
            return Ok(false);
        };
        round.steps = steps;
        if delta.services.may_leave_clients() {
            self.tend_clients(round);
        }
        self.tend_flows(Changed::Services(&delta.services.services), round);
        Ok(true)
    }

    /// Looks at what the plan stands on, and returns what of it this kernel can hold, without tables.
    fn survey_ground(
        &mut self,
        node: &Node,
        snapshot: &Snapshot,
        plan: &NodePlan,
    ) -> Result<State, SyncError> {
        let desired = plan.objects();
        let mut underlay = self.underlay(node, snapshot, &desired)?;
        if underlay.is_none() {
            // The address may have come since.
            self.machine.forget();
            underlay = self.underlay(node, snapshot, &desired)?;
        }
        let observed = self.machine.observe_objects(&desired)?;
        let no_ipv6 = lacks_ipv6(&desired, observed);
        let desired = match no_ipv6 {
            true => desired.without(Family::Ipv6),
            false => desired,
        };
        self.ground = Ground {
            underlay,
            lacking: lacking(node, no_ipv6, &desired, observed),
            no_ipv6,
            addresses: observed
                .addresses
                .keys()
                .map(|(_, net)| net.addr())
                .collect(),
        };
        Ok(desired)
    }

    /// Compares and carries out everything.
    fn carry_out_all(&mut self, snapshot: &Snapshot, round: &mut Round) -> Result<(), SyncError> {
        let changes = snapshot.config.foreign_changes;
        let mut desired = round.plan.state();
        if round.no_ipv6 {
            desired = desired.without(Family::Ipv6);
        }
        let desired = &desired;
        let observed = self.machine.observe(desired)?;
        if !self.settled {
            self.flows.remember(&observed.tables);
        }
        let looking = std::mem::take(&mut self.looking);
        if looking && self.settled {
            round.drift = prove(&round.plan, desired, observed).sure;
            // What others have besides, as a route of their own, is found and told, but stays theirs.
            round.drift.retain(|found| found.fault.is_put_right());
            self.tell(changes, &round.drift);
        }
        let synced = match changes {
            ForeignChanges::Restore => self.machine.sync(desired),
            ForeignChanges::Report => self.machine.sync_changes(desired),
        };
        round.tables = self.machine.tables_done();
        round.put_off = self.machine.put_off().to_vec();
        if round.tables {
            let changed = looking || synced.as_ref().map_or(true, |steps| *steps > 0);
            if changed && round.plan.transport.keeps_clients() {
                self.tend_clients(round);
            }
            self.tend_flows(Changed::Anything, round);
            self.tend_denied(snapshot.config.denied_connections, round);
        }
        round.steps = synced?;
        self.settled = true;
        if looking {
            if round.steps > 0 {
                self.machine.forget();
            }
            let observed = self.machine.observe(desired)?;
            let found = prove(&round.plan, desired, observed);
            round.findings = found.lasting(&self.suspected);
            round.looked = true;
            self.suspected = found.suspected;
            self.prove_surroundings(snapshot, desired, round);
        }
        self.machine.settle();
        Ok(())
    }

    /// Takes away what the kernel remembers of clients whose endpoint is gone.
    fn tend_clients(&mut self, round: &mut Round) {
        let services = round.plan.transport.clone();
        let stale = |tables: &_| affinity::stale(&services, tables);
        if let Err(error) = self.machine.tend(affinity::MAP, stale) {
            round.failures.push(error.to_string());
        }
    }

    /// Ends flows that lead nowhere: after clients' endpoints were forgotten, or they would be given the same again.
    fn tend_flows(&mut self, changed: Changed<'_>, round: &mut Round) {
        let (_, netfilter) = self.machine.parts();
        let (plan, own) = (&round.plan.transport, &self.ground.addresses);
        match self.flows.tend(plan, changed, own, netfilter) {
            Outcome::Done => {}
            Outcome::PutOff => {
                let later = "connections that lead nowhere are looked for a little later";
                round.put_off.push(later.to_owned());
            }
            Outcome::Failed(error) => {
                let message = format!(
                    "connections to endpoints that are gone cannot be found, and last until they time out: {error}"
                );
                let note = Note::new(Origin::parfait("Services"), message);
                round.lacking.push(note);
            }
        }
    }

    /// Ends connections that policies forbid since they began.
    fn tend_denied(&mut self, denied: DeniedConnections, round: &mut Round) {
        if denied == DeniedConnections::Keep {
            return;
        }
        let (plan, own) = (&round.plan.policy, &self.ground.addresses);
        match self.denied.tend(plan, own, &mut self.machine) {
            Ok(true) => {}
            Ok(false) => {
                let later = "connections that policies forbid are looked for a little later";
                round.put_off.push(later.to_owned());
            }
            Err(error) => round.failures.push(format!(
                "connections that policies forbid cannot be ended: {error}"
            )),
        }
    }

    /// What was found around stays found until the next regular look.
    fn prove_surroundings(&mut self, snapshot: &Snapshot, desired: &State, round: &mut Round) {
        if self.around {
            self.succeed(round);
            let underlay = round.plan.link.underlay.as_ref();
            let card = underlay.and_then(|underlay| IfName::new(&underlay.interface).ok());
            match self.machine.survey(desired, card.as_ref()) {
                Ok(observed) => {
                    let found = Differences::around(snapshot, &round.plan, desired, &observed);
                    let before = std::mem::replace(&mut self.surroundings, found).suspected;
                    self.surroundings.sure = self.surroundings.lasting(&before);
                    self.around = false;
                }
                Err(error) => round
                    .put_off
                    .push(format!("other programs' rules are not known: {error}")),
            }
            self.looking = self.around;
        }
        round
            .findings
            .extend(self.surroundings.sure.iter().cloned());
    }

    /// Removes the rules of the program that did this before.
    fn succeed(&mut self, round: &mut Round) {
        let Some((predecessor, before)) = self.predecessor else {
            return;
        };
        let (_, netfilter) = self.machine.parts();
        match take_over(predecessor, netfilter) {
            Ok(removed) => {
                for what in &removed {
                    tracing::info!("took over from {predecessor}: removed {what}");
                }
                if before && !removed.is_empty() {
                    tracing::warn!(
                        "{predecessor}'s rules were back: it still runs here, and must be stopped"
                    );
                }
                self.predecessor = Some((predecessor, before || !removed.is_empty()));
            }
            Err(error) => {
                let failure = format!("{predecessor}'s rules could not be removed: {error}");
                round.failures.push(failure);
            }
        }
    }

    /// Says what others have changed: each time it is put right, or once while it is left.
    fn tell(&mut self, changes: ForeignChanges, drift: &BTreeSet<Finding>) {
        for drift in drift {
            match changes {
                ForeignChanges::Restore => {
                    tracing::warn!("{drift}: somebody changed it; putting it right");
                }
                ForeignChanges::Report if self.left.contains(drift) => {}
                ForeignChanges::Report => tracing::error!(
                    "{drift}: somebody changed it, and it stays so, as foreignChanges is report; \
                     a restart of the agent puts it right"
                ),
            }
        }
        self.left.clone_from(drift);
    }

    /// What only this machine knows of its underlay.
    fn underlay(
        &mut self,
        node: &Node,
        snapshot: &Snapshot,
        desired: &State,
    ) -> Result<Option<Underlay>, SyncError> {
        let observed = self.machine.observe_objects(desired)?;
        if let Some(listens) = underlay::listens(node, observed) {
            self.machine.watch(listens);
        }
        let observed = self.machine.observe_objects(desired)?;
        Ok(underlay::underlay(snapshot, node, observed))
    }
}

/// Why there is no underlay.
fn nowhere(node: &Node) -> String {
    let (name, annotation) = (&node.name, Node::UNDERLAY_INTERFACE);
    if let Some(chosen) = &node.underlay_interface {
        return format!(
            "Node {name} is annotated {annotation}: {chosen}, but no interface {chosen} is here that is up and has \
             an address: correct the annotation, or remove it to use the one with the Node's own addresses"
        );
    }
    let addresses: Vec<_> = node.addresses.iter().map(ToString::to_string).collect();
    format!(
        "no interface here has one of the addresses of Node {name} ({}): is this the node that --node-name says?",
        addresses.join(", ")
    )
}

/// Whether the kernel was started or built without IPv6: it lacks the setting that every one with it has.
fn lacks_ipv6(desired: &State, observed: &State) -> bool {
    let forwarding = SysctlKey::forwarding(Family::Ipv6);
    unknown(desired, observed).any(|item| item.value.key == forwarding)
}

/// What the kernel cannot hold, in words.
fn lacking(node: &Node, no_ipv6: bool, desired: &State, observed: &State) -> Vec<Note> {
    let mut notes = Vec::new();
    if no_ipv6 && node.pod_cidr(Family::Ipv6).is_some() {
        notes.push(Note::new(
            node.origin().field("spec.podCIDRs"),
            "the node's kernel has no IPv6 (there is no /proc/sys/net/ipv6), so its pods get IPv4 addresses alone; \
             start it without ipv6.disable=1, or with CONFIG_IPV6",
        ));
    }
    for Item { value, origin } in unknown(desired, observed) {
        let message = format!(
            "this kernel has no setting {}, which should be {}; it is left out. It may belong to the machine \
             alone and not to its containers, or to a feature that was not built in",
            value.key, value.value
        );
        let origin = origin.clone().unwrap_or_else(|| node.origin());
        notes.push(Note::new(origin, message));
    }
    notes
}

/// The differences between plan and kernel, from every layer.
#[derive(Debug, Default)]
pub struct Differences {
    /// Those that only the agent can have left, or somebody else made.
    pub sure: BTreeSet<Finding>,
    /// Those on planned pods' links, which may be the CNI plugin's doing that the API server has not
    /// told of yet.
    pub suspected: BTreeSet<Finding>,
}

impl Differences {
    /// What is sure, and what was suspected `before` and is so still.
    fn lasting(&self, before: &BTreeSet<Finding>) -> BTreeSet<Finding> {
        let lasting = self.suspected.intersection(before);
        self.sure.iter().chain(lasting).cloned().collect()
    }

    /// What no comparison with the plan shows. Other programs' rules are there or not; addresses and
    /// routes come and go with pods, nodes and routing daemons.
    fn around(snapshot: &Snapshot, plan: &NodePlan, desired: &State, observed: &Observed) -> Self {
        let surroundings = parfait_join::surroundings(snapshot, plan, desired, &observed.state);
        Self {
            sure: parfait_join::foreign(snapshot, plan, observed)
                .into_iter()
                .collect(),
            suspected: surroundings.into_iter().collect(),
        }
    }
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
    let objects = |desired: &State, observed: &State| -> BTreeSet<Finding> {
        parfait_join::objects(desired, observed)
            .into_iter()
            .collect()
    };
    let mut sure = objects(&possible, &held);
    let mut all = restrict(desired, |_| true);
    // What the kernel cannot hold is told in a note.
    for item in unknown(desired, observed) {
        all.sysctls.remove(&item.value.key);
    }
    let suspected = objects(&all, &known);
    let suspected = suspected.difference(&sure).cloned().collect();
    sure.extend(parfait_join::tables(plan, desired, observed));
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
