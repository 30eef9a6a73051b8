//! What `cargo xtask bench policy` measures, each part in a process of its own, in the network namespace that it is
//! started in.
//!
//! ```text
//! bench_policy layer PODS POLICIES CLUSTER         the transport layer's policies alone: plan, lower, compare
//! bench_policy agent PODS POLICIES CLUSTER TURNS   the agent with all of a node: first sync, changes one by one, memory
//! bench_policy load  POLICIES              the ruleset for `traffic`, left in the kernel
//! bench_policy load-node POLICIES          the same of as many NodeNetworkPolicies
//! bench_policy rival POLICIES FILE         the same rule by rule, for `nft -f`
//! bench_policy storm PACKETS               datagrams that the policies of `load` deny, from the pod that sends them
//! bench_policy traffic …                   see traffic.rs of bench_services
//! ```
//!
//! It prints `NAME NUMBER` lines: milliseconds, or KiB where the name begins with `memory`. Reading objects from
//! the API server is not in it.

#![allow(clippy::expect_used, reason = "a benchmark may end by panicking")]

mod changes;
#[path = "../../../../model/cluster/tests/fixture/guarded.rs"]
mod guarded;
#[path = "../../../../model/cluster/tests/fixture/large.rs"]
mod large;
mod server;
#[path = "../bench_services/told.rs"]
mod told;
#[path = "../bench_services/traffic.rs"]
mod traffic;
#[path = "../bench_services/watched.rs"]
mod watched;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use changes::{KINDS, Kind, Random, object};
use guarded::Guarded;
use large::OURS;
use parfait_agent::{Machine, Upkeep};
use parfait_cluster::{Key, Snapshot};
use parfait_kernel::nft::NftSocket;
use parfait_kernel::{Netfilter, Socket};
use parfait_linux::nft::{Tables, diff};
use parfait_transport::policy;
use told::{number, told, told_memory};
use watched::Watched;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["layer", pods, policies, cluster] => {
            layer(Guarded::new(
                number(pods),
                number(policies),
                number(cluster),
            ));
        }
        ["agent", pods, policies, cluster, turns] => agent(
            Guarded::new(number(pods), number(policies), number(cluster)),
            number(turns),
        ),
        ["load", policies] => server::load(&server::of_a_pod(number(policies))),
        ["load-node", policies] => server::load(&server::of_a_node(number(policies))),
        ["rival", policies, file] => server::write(number(policies), Path::new(file)),
        ["storm", packets] => server::storm(number(packets)),
        ["traffic", ref rest @ ..] => traffic::run(rest),
        _ => panic!("usage: see the top of main.rs"),
    }
}

/// From the cluster's objects to the steps that an empty kernel needs.
fn layer(size: Guarded) {
    let snapshot = size.snapshot();
    told_memory("memory-snapshot", "VmRSS");
    let start = Instant::now();
    let plan = policy::plan(&snapshot, OURS);
    told("layer-plan", start);
    told_memory("memory-plan", "VmRSS");
    let part = Instant::now();
    let tables: Tables = policy::apply(&plan)
        .into_iter()
        .map(|table| (table.key(), table))
        .collect();
    told("layer-lower", part);
    told_memory("memory-lower", "VmRSS");
    let part = Instant::now();
    let steps = diff(&Tables::new(), &tables);
    told("layer-diff", part);
    told("layer", start);
    assert!(!steps.is_empty(), "policies that ask for nothing");
    let classes = plan.classes().len();
    println!("isolated {}\nclasses {classes}", plan.pods.len());
    let sets = || tables.values().flat_map(|table| table.sets.values());
    let elements = |interval: bool| -> usize {
        let sets = sets().filter(|set| set.interval == interval);
        sets.map(|set| set.elements.len()).sum()
    };
    println!("exact {}\nintervals {}", elements(false), elements(true));
    println!("sets {}", sets().count());
    told_memory("memory-layer-peak", "VmHWM");
}

type Agent = Upkeep<Socket, Watched>;

/// What the agent does, with everything that a node has.
fn agent(size: Guarded, turns: u32) {
    let mut snapshot = size.snapshot();
    told_memory("memory-snapshot", "VmRSS");
    let start = Instant::now();
    let watched = Watched::open(start);
    let kernel = Socket::open().expect("a netlink socket");
    let mut upkeep = Upkeep::new(OURS, Machine::new(kernel, watched));
    round(&mut upkeep, &snapshot, &BTreeSet::new());
    told("agent-proved", start);
    told_memory("memory-agent", "VmRSS");
    told_memory("memory-agent-peak", "VmHWM");
    prove(&snapshot);
    for change in KINDS {
        changes(&mut upkeep, &mut snapshot, change, turns);
    }
    told_memory("memory-agent-changed", "VmRSS");
}

/// Changes of one kind, one by one, each of which is undone after it. What the kernel should see and chance made
/// nothing of (a pod that was in several groups is still in one) is not counted.
fn changes(upkeep: &mut Agent, snapshot: &mut Snapshot, (kind, name): (Kind, &str), turns: u32) {
    let Some(mut random) = Random::new(snapshot, kind) else {
        return;
    };
    let (mut told, mut tried) = (0, 0);
    while told < turns {
        assert!(
            tried < turns * 20,
            "{name}: {told} of {tried} are seen in the kernel"
        );
        tried += 1;
        let there = random.next(snapshot);
        let back = (there.0.clone(), object(snapshot, &there.0));
        for (key, object) in [there, back] {
            match object {
                Some(object) => snapshot.insert(object),
                None => snapshot.remove(&key),
            }
            let start = Instant::now();
            let steps = round(upkeep, snapshot, &BTreeSet::from([key]));
            let took = start.elapsed();
            let seen = random.is_seen().is_none_or(|seen| seen == (steps > 0));
            assert!(seen || steps == 0, "{name}: {steps} steps");
            if seen {
                println!("{name} {:.4}", took.as_secs_f64() * 1e3);
                told += 1;
            }
        }
    }
}

/// One look at the whole kernel.
fn prove(snapshot: &Snapshot) {
    let desired = policy::apply(&policy::plan(snapshot, OURS));
    let mut socket = NftSocket::open().expect("a netlink socket");
    for _ in 0..3 {
        let start = Instant::now();
        let observed = Netfilter::observe(&mut socket, "parfait");
        let observed = observed.expect("a kernel that answers");
        let found = policy::prove(&desired, &observed.tables);
        assert!(found.is_empty(), "{found:?}");
        told("prove", start);
    }
}

/// Gives how many steps it took.
fn round(upkeep: &mut Agent, snapshot: &Snapshot, changed: &BTreeSet<Key>) -> usize {
    let round = upkeep.round(snapshot, changed).expect("a Node");
    assert!(round.failures.is_empty(), "{:?}", round.failures);
    assert!(round.tables, "tables that are not as planned");
    round.steps
}
