//! What `cargo xtask bench routes` measures: one node of a cluster of many, kept by the agent's
//! [`Machine`] in the network namespace that this program is started in. Once everything is there, one
//! node more joins and leaves again, a number of times.
//!
//! ```text
//! bench_routes NODES TURNS FOLDER     prints `NAME MILLISECONDS` lines, and `memory KIBIBYTES`
//! ```
//!
//! FOLDER receives the same work as `ip -batch` and `bridge -batch` read it, for the reference. It needs
//! an `eth0` with 10.0.0.1/8. All nodes are reached through VXLAN: that is the most there can be.

#![allow(clippy::expect_used, reason = "a benchmark may end by panicking")]

#[path = "../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Instant;

use fixture::cluster;
use parfait_agent::Machine;
use parfait_cluster::Snapshot;
use parfait_join::NodePlan;
use parfait_kernel::{Kernel, Socket};
use parfait_linux::{IfName, Object, Ownership, State, Step, diff};

const OURS: &str = "node-1";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [nodes, turns, folder] = &arguments[..] else {
        panic!("usage: bench_routes NODES TURNS FOLDER");
    };
    let nodes: u32 = nodes.parse().expect("a number of nodes");
    let turns: u32 = turns.parse().expect("a number of turns");
    let (before, after) = (snapshot(nodes), snapshot(nodes + 1));
    let mut machine = Machine::open().expect("root in a network namespace");

    let start = Instant::now();
    let desired = NodePlan::new(&before, OURS).state();
    told("plan", start);
    machine.observe(&desired).expect("a kernel that answers");
    let start_kernel = Instant::now();
    let steps = machine.sync(&desired).expect("a kernel that takes it");
    told("sync", start_kernel);
    told("first", start);
    println!("steps {steps}");

    for _ in 0..turns {
        turn("join", &mut machine, &after);
        turn("leave", &mut machine, &before);
    }
    kernel_alone(&before, &after, turns);
    batches(
        Path::new(folder),
        &desired,
        &NodePlan::new(&after, OURS).state(),
    );
    println!("memory {}", memory());
}

/// Everything that the agent does: plan, look, compare, carry out.
fn turn(name: &str, machine: &mut Machine, snapshot: &Snapshot) {
    let start = Instant::now();
    let desired = NodePlan::new(snapshot, OURS).state();
    told(&format!("{name}-plan"), start);
    machine.sync(&desired).expect("a kernel that takes it");
    told(&format!("{name}-turn"), start);
}

/// The steps of one node alone, without finding out which they are.
fn kernel_alone(before: &Snapshot, after: &Snapshot, turns: u32) {
    let mut socket = Socket::open().expect("a netlink socket");
    let before = NodePlan::new(before, OURS).state();
    let after = NodePlan::new(after, OURS).state();
    let (join, leave) = (steps(&before, &after), steps(&after, &before));
    // A route, a neighbour and an FDB entry.
    assert_eq!((join.len(), leave.len()), (3, 3), "{join:?} {leave:?}");
    for _ in 0..turns {
        for (name, steps) in [("join-kernel", &join), ("leave-kernel", &leave)] {
            let start = Instant::now();
            socket.execute(steps).expect("a kernel that takes it");
            told(name, start);
        }
    }
}

fn steps(from: &State, to: &State) -> Vec<Step> {
    let tunnel = IfName::new("pf-vxlan").expect("a name");
    diff(from, to, &Ownership::agent([tunnel]))
}

/// The same for `ip` and `bridge`, a file each, all of it and one node's.
fn batches(folder: &Path, all: &State, after: &State) {
    let empty = State::default();
    for (name, steps) in [
        ("first", steps(&empty, all)),
        ("join", steps(all, after)),
        ("leave", steps(after, all)),
    ] {
        let (mut ip, mut bridge, mut link) = (String::new(), String::new(), String::new());
        for step in &steps {
            let line = step.to_string();
            let words = line.split_once(' ').map_or("", |(_, words)| words);
            let file = match step.object() {
                Object::Link(_) | Object::Address(_) => &mut link,
                Object::Fdb(_) => &mut bridge,
                Object::Route(_) | Object::Neighbour(_) => &mut ip,
                Object::Sysctl(_) => continue,
            };
            writeln!(file, "{words}").expect("memory");
        }
        for (kind, text) in [("link", link), ("ip", ip), ("bridge", bridge)] {
            fs::write(folder.join(format!("{name}.{kind}")), text).expect("a folder to write to");
        }
    }
}

fn snapshot(nodes: u32) -> Snapshot {
    let mut text =
        "config routing=vxlan clusterCIDRs=100.64.0.0/10 serviceCIDRs=10.255.0.0/16\n".to_owned();
    for number in 1..=nodes {
        let (high, low) = (number >> 8, number & 255);
        writeln!(
            text,
            "node node-{number} pods=100.{}.{low}.0/24 underlay=10.0.{high}.{low}/8 gateway=10.254.0.1",
            64 + high
        )
        .expect("memory");
    }
    cluster(&text)
}

fn told(name: &str, start: Instant) {
    println!("{name} {:.4}", start.elapsed().as_secs_f64() * 1e3);
}

/// The most memory this process ever had, in KiB.
fn memory() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = peak.and_then(|peak| peak.split_whitespace().next());
    number.unwrap_or("0").to_owned()
}
