//! What is explained is what happens: random clusters are built for real, random packets are sent, and
//! the kernel's word is compared with `explain`'s.
//!
//! For each question, every way that `explain` names must be seen (of several, within a number of
//! tries that leaves less than one chance in a million to miss one), and nothing else: which address
//! and port receives, from which source, whether it is refused or unreachable, and the largest packet
//! that fits. Then the cluster's Services change, the plan is carried out anew, and all that is asked again; then there
//! are policies of all three kinds; then instead of them a configuration of how pods leave the cluster.
//!
//! `PARFAIT_SEED=NUMBER` repeats one cluster; `PARFAIT_CLUSTERS=NUMBER` says how many. Needs root (or a user
//! namespace).

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

mod bad_input;
mod egress;
#[path = "../../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;
mod isolation;
mod machines;
#[path = "../../../../layers/transport/tests/policy/policies.rs"]
mod policies;
mod policy;
#[path = "../../../inspect/tests/random/mod.rs"]
mod random;
mod services;
mod sockets;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

use machines::Machines;
use parfait_cluster::Snapshot;
use parfait_inspect::{Answer, Question, Side, Way, explain};
use parfait_kernel::NetNs;
use parfait_packet::{Reason, Verdict};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use random::{Ask, Goal, LISTENING, Life, OUTSIDE, Party, Scene};
use sockets::{Outcome, Patience, Receivers, fits, send};

/// Clusters, and questions in each, before and after its Services change.
const CLUSTERS: u64 = 32;
const ASKS: usize = 14;

/// A try for each of n ways misses one of four with (3/4)^50 < 10^-6 at most.
const TRIES: usize = 50;

#[test]
fn the_kernel_does_what_is_explained() {
    if let Err(error) = NetNs::create() {
        let mut stderr = std::io::stderr();
        let _ = writeln!(stderr, "SKIP: the_kernel_does_what_is_explained: {error}");
        return;
    }
    let number = |key: &str| std::env::var(key).ok().and_then(|text| text.parse().ok());
    let seeds = match number("PARFAIT_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("PARFAIT_CLUSTERS").unwrap_or(CLUSTERS),
    };
    let mut failures = Vec::new();
    let mut sent = 0;
    for seed in seeds {
        match one_cluster(seed) {
            Ok(count) => sent += count,
            Err(error) => failures.push(format!("PARFAIT_SEED={seed}: {error}")),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    assert!(sent > 0, "no packet was sent");
}

/// What a cluster has besides its pods and Services.
#[derive(Clone, Copy, PartialEq, Eq)]
enum With {
    Nothing,
    Policies,
    Egress,
}

/// Builds the cluster of a seed and sends; changes its Services and sends again. Gives the number of
/// questions.
fn one_cluster(seed: u64) -> Result<usize, String> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let before = pick(&random::scene(), &mut runner)?;
    let after = Scene {
        services: pick(&random::services(before.pods.clone()), &mut runner)?,
        ..before.clone()
    };
    let receivers = Receivers::new().map_err(|error| error.to_string())?;
    let snapshot = fixture::cluster(&before.to_string());
    let built = Machines::build(&before, &snapshot);
    let machines = built.map_err(|error| format!("{error}\n{before}"))?;
    let mut count = 0;
    for (scene, with) in [
        (&before, With::Nothing),
        (&after, With::Nothing),
        (&after, With::Policies),
        (&after, With::Egress),
    ] {
        let mut asks = pick(&random::asks(scene, ASKS), &mut runner)?;
        let mut snapshot = fixture::cluster(&scene.to_string());
        match with {
            With::Nothing => {}
            With::Policies => snapshot = policy::with_policies(&snapshot, &mut runner)?,
            With::Egress => {
                snapshot = egress::with_egress(&snapshot, &mut runner)?;
                asks = egress::outwards(scene, asks);
                machines.lead_back(scene)?;
            }
        }
        let has = (
            snapshot.policies.clone(),
            snapshot.cluster_policies.clone(),
            snapshot.node_policies.clone(),
            snapshot.config.egress.clone(),
        );
        let in_scene = |error: String| format!("{error}\n{scene}\n{has:?}");
        machines.plan(&snapshot).map_err(in_scene)?;
        if count == 0 {
            listen(scene, &snapshot, &machines, &receivers).map_err(in_scene)?;
        }
        let results = asks
            .iter()
            .map(|ask| compare(scene, &snapshot, &machines, *ask));
        let wrong: Vec<_> = results.filter_map(Result::err).collect();
        if !wrong.is_empty() {
            return Err(in_scene(wrong.join("\n")));
        }
        count += asks.len();
    }
    Ok(count)
}

fn pick<T: std::fmt::Debug>(
    from: &impl Strategy<Value = T>,
    runner: &mut TestRunner,
) -> Result<T, String> {
    let tree = from.new_tree(runner);
    Ok(tree.map_err(|reason| reason.to_string())?.current())
}

fn listen(
    scene: &Scene,
    snapshot: &Snapshot,
    machines: &Machines,
    receivers: &Receivers,
) -> Result<(), String> {
    let outside: Vec<IpAddr> = OUTSIDE
        .iter()
        .filter_map(|text| text.parse().ok())
        .collect();
    receivers.listen(&machines.fabric, &outside, &LISTENING)?;
    for (number, netns) in (1..).zip(&machines.nodes) {
        let name = format!("node-{number}");
        let mut own = snapshot.nodes[&name].addresses.clone();
        let plan = parfait_join::NodePlan::new(snapshot, &name).internet;
        let tunnel = plan.tunnel.iter().flat_map(|(_, addresses)| addresses);
        own.extend(tunnel.map(|(address, _)| address));
        own.extend(plan.served.iter().map(|served| served.address));
        receivers.listen(netns, &own, &LISTENING)?;
    }
    for (index, netns) in &machines.pods {
        let own = [4, 6].map(|family| scene.pod_address(*index, family));
        let own: Vec<_> = own
            .iter()
            .flatten()
            .filter_map(|text| text.parse().ok())
            .collect();
        receivers.listen(netns, &own, &LISTENING)?;
    }
    Ok(())
}

fn compare(
    scene: &Scene,
    snapshot: &Snapshot,
    machines: &Machines,
    ask: Ask,
) -> Result<(), String> {
    let netns = match ask.from {
        Party::Pod(index) => machines.of_pod(scene, index),
        Party::Node(number) => machines.nodes.get(number - 1),
        Party::Outside(_) => Some(&machines.fabric),
    };
    let Some(netns) = netns else {
        // A pod without a network sends nothing.
        return Ok(());
    };
    let address = scene.goal_address(ask.to, ask.family).ok_or("no address")?;
    if is_gone(scene, ask.to) || ask.protocol == "SCTP" {
        // Sockets of SCTP are a module that few kernels have. Its rules are those of TCP and UDP.
        return Ok(());
    }
    let to = SocketAddr::new(address.parse().map_err(|_| "no address")?, ask.port);
    let question = Question {
        from: ask.from.side(scene, ask.family),
        to: Side::Address(to.ip(), None),
        port: Some(ask.port),
        protocol: ask.protocol.parse().ok(),
        family: None,
        source_port: None,
        namespace: None,
        size: None,
    };
    let answer = explain(snapshot, &question).map_err(|error| error.to_string())?;
    let Some(answer) = random::entering(answer, ask.from) else {
        return Ok(());
    };
    let way = machines.way_in(scene, ask, to.ip())?;
    let mut wanted: BTreeSet<_> = answer.ways.iter().map(expected).collect();
    if let Some(documented) = egress::documented(scene, snapshot, ask)
        && wanted != BTreeSet::from([documented.clone()])
    {
        let nothing = disagreement(ask, to, &answer, &wanted, &BTreeSet::new());
        return Err(format!("documented: {documented}\n{nothing}"));
    }
    let is_node = machines.nodes.iter().any(|node| std::ptr::eq(node, netns));
    let ends = answer.ways.iter().map(|way| way.there.last());
    let mut ends = ends.map(|hop| hop.map(|hop| hop.stage));
    let at_home = is_node && ends.all(|stage| stage == Some(parfait_packet::Stage::Output));
    if at_home && ask.protocol == "UDP" && wanted.remove(&Outcome::Silence) {
        // What the output hook drops, it refuses to the socket that sends it (EPERM).
        wanted.insert(Outcome::Refused);
    }
    let keeps = keeps_its_endpoint(scene, ask);
    let seen = try_until(netns, ask.protocol, to, &wanted, keeps);
    let large = size(netns, ask, to, &answer);
    machines.close(way)?;
    let seen = seen?;
    if seen != wanted && !(keeps && seen.len() == 1 && seen.is_subset(&wanted)) {
        return Err(disagreement(ask, to, &answer, &wanted, &seen));
    }
    large
}

/// The largest packet that is explained fits, and one byte more does not.
fn size(netns: &NetNs, ask: Ask, to: SocketAddr, answer: &Answer) -> Result<(), String> {
    let [way] = &answer.ways[..] else {
        return Ok(());
    };
    let delivered = matches!(expected(way), Outcome::Delivered(..));
    let Some(mtu) = way.mtu.filter(|_| delivered && ask.protocol == "UDP") else {
        return Ok(());
    };
    let fits = |bytes, patience| {
        netns
            .run(|| fits(to, bytes, patience))
            .map_err(|error| error.to_string())
    };
    match (fits(mtu, Patience::LONG)?, fits(mtu + 1, Patience::SHORT)?) {
        (true, false) => Ok(()),
        found => Err(format!(
            "{ask:?} to {to}: packets of {mtu} bytes and of one more should fit (true, false), but {found:?}\n{}",
            parfait_inspect::render(answer, parfait_inspect::Detail::Full)
        )),
    }
}

/// Whether a client's connections all go to one of the endpoints, which every way may be.
fn keeps_its_endpoint(scene: &Scene, ask: Ask) -> bool {
    match ask.to {
        Goal::Service(index)
        | Goal::Balanced(index)
        | Goal::External(index)
        | Goal::NodePort(index, _) => scene.services[index].traffic.affinity.is_some(),
        _ => false,
    }
}

/// An ended pod's address: nothing is attached there in this test, and a real node may still have it.
fn is_gone(scene: &Scene, goal: Goal) -> bool {
    matches!(goal, Goal::Pod(index) if scene.pods[index].life == Life::Succeeded)
}

fn try_until(
    netns: &NetNs,
    protocol: &str,
    to: SocketAddr,
    wanted: &BTreeSet<Outcome>,
    keeps: bool,
) -> Result<BTreeSet<Outcome>, String> {
    let tries = || {
        let mut seen = BTreeSet::new();
        // One more than needed, so that a second connection is seen to end like the first. What cannot be
        // reached takes long.
        let slow = [Outcome::Unreachable, Outcome::Silence];
        let enough = match wanted.iter().any(|outcome| slow.contains(outcome)) {
            true => 1,
            false => wanted.len() + 1,
        };
        let patience = match wanted.contains(&Outcome::Silence) {
            true => Patience::SHORT,
            false => Patience::LONG,
        };
        for count in 0..if keeps { 4 } else { TRIES } {
            if count >= enough && (seen.is_superset(wanted) || !seen.is_subset(wanted)) {
                break;
            }
            seen.insert(send(protocol, to, patience));
        }
        seen
    };
    netns.run(tries).map_err(|error| error.to_string())
}

/// What the sender and receiver of a way will see.
fn expected(way: &Way) -> Outcome {
    let last = way.there.iter().rev().find_map(|hop| hop.packet);
    match (&way.verdict, last) {
        (Verdict::Delivered, Some(packet))
        | (
            Verdict::Unknown {
                reason: Reason::ExternalDestination,
            },
            Some(packet),
        ) => {
            // Where nothing listens, a receiver refuses.
            match LISTENING.contains(&packet.destination_port) {
                true => Outcome::Delivered(
                    SocketAddr::new(packet.destination, packet.destination_port),
                    packet.source,
                ),
                false => Outcome::Refused,
            }
        }
        (Verdict::NotDelivered { reason }, _) => match reason {
            Reason::NoEndpoints
            | Reason::NoSuchServicePort
            | Reason::NoService
            | Reason::Rejected => Outcome::Refused,
            Reason::NoLocalEndpoints => match way.there.last() {
                Some(hop) if hop.what.starts_with("dropped") => Outcome::Silence,
                _ => Outcome::Refused,
            },
            Reason::NoSuchAddress | Reason::NoRoute | Reason::OutsideCluster => {
                Outcome::Unreachable
            }
            // ICMP's "administratively prohibited" is no host unreachable for IPv6 (EACCES).
            Reason::NoEgressAddress => match last.is_some_and(|packet| packet.source.is_ipv4()) {
                true => Outcome::Unreachable,
                false => Outcome::Refused,
            },
            Reason::SourceNotAllowed
            | Reason::ReplyFromElsewhere
            | Reason::NoNeighbour
            | Reason::NotLocal
            | Reason::EgressDenied
            | Reason::IngressDenied
            | Reason::NodeDenied
            | Reason::Dropped => Outcome::Silence,
            other => Outcome::Other(other.to_string()),
        },
        (other, _) => Outcome::Other(format!("{other:?}")),
    }
}

fn disagreement(
    ask: Ask,
    to: SocketAddr,
    answer: &Answer,
    wanted: &BTreeSet<Outcome>,
    seen: &BTreeSet<Outcome>,
) -> String {
    let list = |outcomes: &BTreeSet<Outcome>| {
        let lines: Vec<_> = outcomes.iter().map(ToString::to_string).collect();
        lines.join("; ")
    };
    format!(
        "{ask:?} {} to {to}\n  explained: {}\n  the kernel: {}\n{}",
        ask.protocol,
        list(wanted),
        list(seen),
        parfait_inspect::render(answer, parfait_inspect::Detail::Full)
    )
}
