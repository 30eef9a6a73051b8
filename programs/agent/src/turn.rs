//! One turn of the agent's loop: what changed is planned whole and carried out as differences, names
//! are served, and those who depend on it are told.

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::Client;
use parfait_cluster::{Key, Node, Note, Snapshot, Underlay};
use parfait_cni::NodeConfig;
use parfait_kernel::Socket;
use parfait_kube::News;
use parfait_linux::Prefix;
use parfait_packet::Finding;

use crate::accepting::Accepting;
use crate::attachments;
use crate::balancers::Balancers;
use crate::ended::Ended;
use crate::files;
use crate::health::HealthChecks;
use crate::names::Names;
use crate::once::Once;
use crate::options::Options;
use crate::standby::Standby;
use crate::telling::Telling;
use crate::upkeep::{Round, Upkeep};

/// What lasts from turn to turn.
pub(crate) struct Turns {
    options: Options,
    client: Client,
    upkeep: Upkeep,
    names: Names,
    health: HealthChecks,
    accepting: Accepting,
    balancers: Balancers,
    standby: Standby,
    ended: Ended,
    telling: Telling,
    reported: Option<Underlay>,
    /// What the CNI plugin was told.
    told: Option<NodeConfig>,
    /// This node's network stood once, so pods may come.
    ready: bool,
    /// What the last turn left undone.
    failures: BTreeSet<String>,
    /// The attachments that the rules know.
    known: BTreeSet<String>,
    /// The policies that were planned last.
    policies: Option<Arc<parfait_transport::policy::Plan>>,
    said: Said,
}

/// What is in the log already.
#[derive(Default)]
struct Said {
    notes: Once<Note>,
    failures: Once<String>,
    records: Once<String>,
    findings: Once<Finding>,
    no_node: bool,
    planned: bool,
}

impl Turns {
    pub(crate) fn new(options: Options, client: Client, upkeep: Upkeep, lender: Socket) -> Self {
        let health = HealthChecks::at(options.healthz);
        Self {
            names: Names::new(options.upstreams.clone()),
            accepting: Accepting::start(&client, &options.node_name),
            balancers: Balancers::start(&client, &options.node_name),
            standby: Standby::start(&options.node_name, lender),
            telling: Telling::start(&client, &options.node_name),
            options,
            client,
            upkeep,
            health,
            ended: Ended::default(),
            reported: None,
            told: None,
            ready: false,
            failures: BTreeSet::new(),
            known: BTreeSet::new(),
            policies: None,
            said: Said::default(),
        }
    }

    /// The next turn looks at the kernel and the files again, instead of trusting what it knows.
    pub(crate) fn look_again(&mut self) {
        self.upkeep.look_again();
        self.reported = None;
        self.told = None;
    }

    /// As [`Turns::look_again`], at everything that could trouble the node, other programs' rules too.
    pub(crate) fn look_around(&mut self) {
        self.look_again();
        self.upkeep.look_around();
    }

    /// Plans and carries out. What fails is logged. Whether something must be tried again soon.
    pub(crate) async fn turn(&mut self, snapshot: &mut Snapshot, news: &News) -> bool {
        let mut changed = news.changed.clone();
        if attachments::are_concerned(snapshot, &self.options.node_name, &changed) {
            changed.extend(self.look_at_attachments(snapshot));
        }
        self.names.follow(snapshot, &changed);
        // What these have written, others can write over.
        self.accepting.follow(snapshot, &news.told);
        self.balancers.follow(snapshot, &news.told);
        snapshot.hearing = self.standby.hearing();
        let upkeep = &mut self.upkeep;
        let round = tokio::task::block_in_place(|| upkeep.round(snapshot, &changed));
        self.known = match &round {
            Some(round) if round.tables => known(round, snapshot),
            _ => BTreeSet::new(),
        };
        self.policies = round.as_ref().map(|round| Arc::clone(&round.plan.policy));
        // Only what the tables know no more: what is left is the plugin's, which isolates who is next.
        let told = round.as_ref().is_some_and(|round| round.tables);
        let ended = !told || self.tend_ended();
        let node = snapshot.nodes.get(&self.options.node_name);
        let (Some(round), Some(node)) = (round, node) else {
            self.wait_for_node();
            // It was deleted, or never was.
            let _ = self.health.serve_node(true).await;
            return false;
        };
        self.said.no_node = false;
        let new = self.standby.follow(snapshot, &changed, &round);
        self.balancers.tell(&new);
        let mut unfinished = round.unfinished() || !ended;
        self.failures = round.failures.iter().cloned().collect();
        let notes = round.notes();
        self.telling.follow(snapshot, &notes);
        self.say(&round, notes);
        if let Some(underlay) = &round.underlay {
            self.report(node, underlay).await;
        }
        if let Some(reported) = &round.plan.link.underlay {
            if let Err(error) = self.names.serve(&round.plan.internet).await {
                self.failures.insert(error.to_string());
            }
            // A node is ready for pods once its own network stands.
            self.ready |= self.failures.is_empty();
            self.tell_plugin(snapshot, node, reported, &round);
        }
        // A port that somebody else has does not keep pods away.
        let checks = round.plan.transport.health_checks();
        let checks = self.health.serve(checks, round.tables);
        for error in checks.await.err().into_iter().flatten() {
            self.failures.insert(error.to_string());
        }
        self.failures
            .extend(self.health.serve_node(node.leaving).await.err());
        unfinished |= !self.failures.is_empty();
        for failure in self.said.failures.news(std::mem::take(&mut self.failures)) {
            tracing::warn!("{failure}; trying again");
        }
        unfinished
    }

    /// Waits until another peer is heard, or one no more. May be dropped at any time.
    pub(crate) async fn peers_changed(&mut self) {
        self.standby.changed().await;
    }

    /// The attachments that the rules of the last turn know.
    pub(crate) const fn known(&self) -> &BTreeSet<String> {
        &self.known
    }

    /// The policies that were planned in the last turn.
    pub(crate) const fn policies(&self) -> Option<&Arc<parfait_transport::policy::Plan>> {
        self.policies.as_ref()
    }

    fn look_at_attachments(&mut self, snapshot: &mut Snapshot) -> BTreeSet<Key> {
        let (attachments, errors) =
            tokio::task::block_in_place(|| attachments::read(&self.options.state_dir));
        for error in self.said.records.news(errors) {
            tracing::warn!("{error}; the pod is known when the API server tells its address");
        }
        snapshot.attach(&self.options.node_name, attachments)
    }

    /// After the tables know of the pods that are gone.
    fn tend_ended(&mut self) -> bool {
        let (ended, state_dir) = (&mut self.ended, &self.options.state_dir);
        let (_, netfilter) = self.upkeep.machine().parts();
        tokio::task::block_in_place(|| ended.tend(state_dir, netfilter))
    }

    fn wait_for_node(&mut self) {
        if !std::mem::replace(&mut self.said.no_node, true) {
            let node = &self.options.node_name;
            tracing::info!(
                node,
                "there is no such Node; nothing is changed until it comes"
            );
        }
    }

    /// Each thing is logged once, when it appears.
    fn say(&mut self, round: &Round, notes: BTreeSet<Note>) {
        // Before its underlay is reported the plan says so; that is on its way.
        if round.plan.link.underlay.is_some() {
            for note in self.said.notes.news(notes) {
                tracing::warn!("{note}");
            }
        }
        // Between two looks nothing is known to have ended.
        if round.looked {
            for finding in self.said.findings.news(round.untold()) {
                tracing::warn!("{finding}");
            }
        }
        for later in &round.put_off {
            tracing::debug!("not yet: {later}");
        }
        if round.planned() && (round.steps > 0 || !self.said.planned) {
            self.said.planned = true;
            tracing::info!(steps = round.steps, "the kernel is as planned");
        }
    }

    /// Tells the cluster about this node's underlay, when it is not what the Node says.
    async fn report(&mut self, node: &Node, underlay: &Underlay) {
        if [&node.underlay, &self.reported].contains(&&Some(underlay.clone())) {
            return;
        }
        match parfait_kube::report_underlay(&self.client, &node.name, underlay).await {
            Ok(()) => self.reported = Some(underlay.clone()),
            Err(error) => drop(self.failures.insert(error.to_string())),
        }
    }

    /// Tells the CNI plugin, and with it the container runtime, that pods can be attached.
    fn tell_plugin(
        &mut self,
        snapshot: &Snapshot,
        node: &Node,
        reported: &Underlay,
        round: &Round,
    ) {
        let mtu = round.plan.link.pod_mtu;
        let pod_cidrs = usable(node, round);
        let Some(mtu) = mtu.filter(|_| self.ready && !pod_cidrs.is_empty()) else {
            return;
        };
        // As the plan does: a Node may list addresses that its machine has not.
        let own = |address: &&_| reported.addresses.iter().any(|net| net.addr() == **address);
        let config = NodeConfig {
            node: node.name.clone(),
            addresses: node.addresses.iter().filter(own).copied().collect(),
            pod_cidrs,
            mtu: mtu.bytes(),
            service_cidrs: snapshot.config.service_cidrs.clone(),
            pod_isolation: snapshot.config.pod_isolation,
            ..NodeConfig::default()
        };
        if self.told.as_ref() == Some(&config) {
            return;
        }
        match files::write(&self.options, &config) {
            Ok(()) => self.told = Some(config),
            Err(error) => drop(self.failures.insert(error.to_string())),
        }
    }
}

/// The smallest MTU with which Linux lets an interface have IPv6, in bytes (RFC 8200 section 5).
const IPV6_LEAST: u32 = 1280;

/// The node's pod CIDRs that its kernel can route and no other node has.
fn usable(node: &Node, round: &Round) -> Vec<Prefix> {
    let own = round.plan.internet.own.iter();
    let own: Vec<_> = own.map(|(net, _)| *net).collect();
    let mtu = round.plan.link.pod_mtu;
    let narrow = mtu.is_some_and(|mtu| mtu.bytes() < IPV6_LEAST);
    let both = own.iter().any(|net| net.addr().is_ipv4());
    // With IPv6 alone nothing would be left, and the plugin says why.
    let no_ipv6 = round.no_ipv6 || narrow && both;
    let usable = node
        .pod_cidrs
        .iter()
        .filter(|net| own.contains(net) && !(no_ipv6 && net.addr().is_ipv6()));
    usable.copied().collect()
}

/// The attachments for which nothing more is to come.
fn known(round: &Round, snapshot: &Snapshot) -> BTreeSet<String> {
    let known = snapshot.attachments_on(&round.plan.node);
    known.map(|attachment| attachment.id.clone()).collect()
}
