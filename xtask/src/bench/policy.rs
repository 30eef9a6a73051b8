//! `cargo xtask bench policy`: policies, from the cluster's objects to the kernel, and the packets that meet them.
//!
//! The cluster has 20,000 pods in 308 namespaces, of which the node has 250, and 5,000 NetworkPolicies, without and with 100
//! ClusterNetworkPolicies of five rules each; how they look is said in `model/cluster/tests/fixture/guarded.rs`.
//!
//! | rows | what is timed |
//! |---|---|
//! | compile | planning all policies, lowering them, and the steps that an empty kernel needs |
//! | first sync | an agent's first turn: until the kernel has taken the first transaction |
//! | a change | the agent's turn, from one changed object to the kernel; what the kernel sees nothing of is not counted |
//! | prove | reading back what the kernel holds, and comparing it element by element |
//! | MiB | the resident memory of a process that does only this, with the cluster's objects |
//! | connection, request | pod to pod on one node, see [`super::services`] |
//! | … to a node | the same from a pod to its node, with NodeNetworkPolicies, of which the last denies everybody else |
//! | a denied packet | processor time of a datagram from its sender to where it is dropped, 200,000 of them |
//!
//! The reference for packets is the same policies as rules, one for each rule of each policy, tried one by one. It is
//! measured beside ours, and both against pods that no policy selects.

use std::path::Path;

use super::harness::{Goal, Row, Times, nobody, read};
use super::shell;
use super::spaces::{node, pods};

/// Pods, NetworkPolicies, ClusterNetworkPolicies.
const SIZES: [(&str, &str); 2] = [
    ("20000 5000 0", ""),
    ("20000 5000 100", ", 100 of the cluster"),
];
const ROUNDS: usize = 3;
/// Changes of each kind in a round.
const TURNS: usize = 34;

/// How many policies select the pod that is connected to, or the node.
const SELECTING: [u32; 4] = [0, 10, 100, 1_000];
const ON_NODES: [u32; 3] = [0, 10, 100];
/// The node's address.
const NODE: &str = "10.128.0.1";
const TRAFFIC_ROUNDS: usize = 15;
const COUNT: usize = 1_500;
const STORM: u32 = 200_000;
/// With policies against without.
const SAME: f64 = 1.05;

/// Measures everything.
pub fn run(root: &Path) -> Result<Vec<Row>, String> {
    let program = super::release(root).join("examples/bench_policy");
    let program = program.display().to_string();
    let mut rows = cluster(&program)?;
    rows.extend(traffic(&program)?);
    rows.push(storm(&program)?);
    Ok(rows)
}

/// A row's name, its samples, and its goal.
const ROWS: &[(&str, &str, Goal)] = &[
    ("compile", "layer", Goal::Milliseconds(1000.0)),
    ("… plan", "layer-plan", Goal::Told),
    ("… lower", "layer-lower", Goal::Told),
    ("… diff", "layer-diff", Goal::Told),
    ("first sync", "agent-first", Goal::Milliseconds(1000.0)),
    ("… kernel", "agent-first-kernel", Goal::Told),
    ("… proved", "agent-proved", Goal::Told),
    ("a peer's label", "peer", Goal::Milliseconds(5.0)),
    ("a peer comes or goes", "gone", Goal::Milliseconds(5.0)),
    ("a cluster DNS pod's label", "dns", Goal::Milliseconds(5.0)),
    ("nobody's peer's label", "nobody", Goal::Milliseconds(5.0)),
    ("an own pod's label", "own", Goal::Milliseconds(5.0)),
    ("a policy's rule", "policy", Goal::Milliseconds(5.0)),
    ("a rule of the cluster", "cluster", Goal::Milliseconds(5.0)),
    ("a namespace's label", "namespace", Goal::Told),
    ("… kernel, a transaction", "agent-kernel", Goal::Told),
    ("prove", "prove", Goal::Milliseconds(1000.0)),
    ("MiB, objects alone", "memory-snapshot", Goal::Told),
    (
        "MiB resident",
        "memory-agent-changed",
        Goal::Mebibytes(150.0),
    ),
    ("… at its peak", "memory-agent-peak", Goal::Told),
];

fn cluster(program: &str) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    for (size, what) in SIZES {
        let mut times = Times::new();
        for _ in 0..ROUNDS {
            for words in [format!("layer {size}"), format!("agent {size} {TURNS}")] {
                node("ours")?;
                let printed = shell(&format!("ip netns exec ours {program} {words}"))?;
                read(&printed, &mut times);
                shell("ip netns del ours")?;
            }
        }
        let taken = ROWS.iter().filter(|(_, key, _)| times.contains_key(*key));
        rows.extend(taken.map(|(name, key, goal)| Row {
            name: format!("{name}{what}"),
            ours: times[*key].clone(),
            reference: nobody(),
            goal: *goal,
        }));
    }
    Ok(rows)
}

/// In the pods that `traffic` has left, of which the server is isolated.
fn storm(program: &str) -> Result<Row, String> {
    let mut times = [Times::new(), Times::new()];
    for _ in 0..ROUNDS {
        for (times, node) in times.iter_mut().zip(["ours10", "rival10"]) {
            let storm = format!("ip netns exec {node}-c {program} storm {STORM}");
            read(&shell(&storm)?, times);
        }
    }
    let [ours, rival] = times.map(|mut times| times.remove("storm").unwrap_or_default());
    Ok(Row {
        name: "a denied packet".to_owned(),
        ours,
        reference: ("rule by rule, uncounted".to_owned(), rival),
        goal: Goal::Told,
    })
}

fn traffic(program: &str) -> Result<Vec<Row>, String> {
    let mut ways = Vec::new();
    for selecting in SELECTING {
        let (ours, rival) = (format!("ours{selecting}"), format!("rival{selecting}"));
        pods(&ours)?;
        shell(&format!("ip netns exec {ours} {program} load {selecting}"))?;
        ways.push(way(&ours));
        if selecting > 0 {
            pods(&rival)?;
            shell(&format!("{program} rival {selecting} /run/rival.nft"))?;
            shell(&format!("ip netns exec {rival} nft -f /run/rival.nft"))?;
            ways.push(way(&rival));
        }
    }
    for selecting in ON_NODES {
        let node = format!("node{selecting}");
        pods(&node)?;
        shell(&format!("ip -n {node} link set lo up"))?;
        shell(&format!("ip -n {node} addr add {NODE}/32 dev lo"))?;
        shell(&format!(
            "ip netns exec {node} {program} load-node {selecting}"
        ))?;
        ways.push(format!("{node}={node}-c,{node},{NODE}:8080"));
    }
    let words = ways.join(" ");
    let printed = shell(&format!(
        "{program} traffic {TRAFFIC_ROUNDS} {COUNT} {words}"
    ))?;
    let mut times = Times::new();
    read(&printed, &mut times);
    Ok(compared(&times))
}

fn way(node: &str) -> String {
    format!("{node}={node}-c,{node}-s,10.128.0.201:8080")
}

fn compared(times: &Times) -> Vec<Row> {
    let of = |key: String| times.get(&key).cloned().unwrap_or_default();
    let mut rows = Vec::new();
    for selecting in ON_NODES.into_iter().filter(|selecting| *selecting > 0) {
        for (what, key) in [
            ("connection to a node, processor time", "work"),
            ("request to a node, 99th percentile", "request-slow"),
        ] {
            rows.push(Row {
                name: format!("{what}, {selecting} policies"),
                ours: of(format!("node{selecting}-{key}")),
                reference: ("none".to_owned(), of(format!("node0-{key}"))),
                goal: Goal::Ratio(SAME),
            });
        }
    }
    for selecting in SELECTING.into_iter().filter(|selecting| *selecting > 0) {
        for (what, key, goal) in [
            ("connection, processor time", "work", Goal::Ratio(SAME)),
            ("… by the clock, 99th percentile", "slow", Goal::Told),
            (
                "request, 99th percentile",
                "request-slow",
                Goal::Ratio(SAME),
            ),
        ] {
            let name = format!("{what}, {selecting} policies");
            let ours = of(format!("ours{selecting}-{key}"));
            rows.push(Row {
                name: name.clone(),
                ours: ours.clone(),
                reference: ("none".to_owned(), of(format!("ours0-{key}"))),
                goal,
            });
            rows.push(Row {
                name,
                ours,
                reference: (
                    "rule by rule".to_owned(),
                    of(format!("rival{selecting}-{key}")),
                ),
                goal: Goal::Told,
            });
        }
    }
    rows
}
