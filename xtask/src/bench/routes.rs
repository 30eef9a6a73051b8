//! `cargo xtask bench routes`: a node of a cluster of 5,000, all reached through VXLAN: a route, a
//! neighbour and an FDB entry for each.
//!
//! The reference are `ip -batch` and `bridge -batch`, which are given the very same work. They find out
//! nothing and compare nothing; ours does both, and the rows name which part is timed:
//!
//! | row | what is timed |
//! |---|---|
//! | first sync | planning, and making an empty namespace equal to the plan |
//! | joins, leaves, in the kernel | carrying out the steps of one node |
//! | joins, leaves, whole turn | planning all nodes anew, looking at the kernel, comparing, carrying out |

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::harness::{Goal, Row, Samples};
use super::shell;

const NODES: usize = 5_000;
const ROUNDS: usize = 5;
const TURNS: usize = 20;

/// Samples by what they are of.
type Times = BTreeMap<String, Samples>;

/// Measures ours and the reference in turns.
pub fn run(root: &Path) -> Result<Vec<Row>, String> {
    let folder = Path::new("/run/bench");
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let program = super::release(root).join("examples/bench_routes");
    let (mut ours, mut reference) = (Times::new(), Times::new());
    let mut memory = 0;
    for _ in 0..ROUNDS {
        node("ours")?;
        let printed = shell(&format!(
            "ip netns exec ours {} {NODES} {TURNS} {}",
            program.display(),
            folder.display()
        ))?;
        memory = memory.max(read(&printed, &mut ours));
        shell("ip netns del ours")?;
        node("reference")?;
        batch("first", &mut reference)?;
        for _ in 0..TURNS {
            batch("join", &mut reference)?;
            batch("leave", &mut reference)?;
        }
        shell("ip netns del reference")?;
    }
    eprintln!(
        "{NODES} nodes: at most {} MiB of memory (VmHWM, snapshots included)",
        memory / 1024
    );
    let row = |name: &str, key: &str, batch: &str, goal| Row {
        name: name.to_owned(),
        ours: ours.get(key).cloned().unwrap_or_default(),
        reference: (
            "ip, bridge -batch".to_owned(),
            reference.get(batch).cloned().unwrap_or_default(),
        ),
        goal,
    };
    let first = Goal::Milliseconds(1000.0);
    let one = Goal::Milliseconds(5.0);
    Ok(vec![
        row("first sync", "first", "first", first),
        row("first sync, planning", "plan", "first", Goal::Told),
        row("a node joins, in the kernel", "join-kernel", "join", one),
        row("a node leaves, in the kernel", "leave-kernel", "leave", one),
        row("a node joins, planning", "join-plan", "join", Goal::Told),
        row("a node joins, whole turn", "join-turn", "join", Goal::Told),
        row(
            "a node leaves, whole turn",
            "leave-turn",
            "leave",
            Goal::Told,
        ),
    ])
}

/// A namespace with the underlay's interface.
fn node(name: &str) -> Result<(), String> {
    shell(&format!("ip netns add {name}"))?;
    for words in [
        "link set lo up",
        "link add eth0 type veth peer name far0",
        "link set eth0 up",
        "link set far0 up",
        "addr add 10.0.0.1/8 dev eth0",
    ] {
        shell(&format!("ip -n {name} {words}"))?;
    }
    Ok(())
}

fn batch(name: &str, times: &mut Times) -> Result<(), String> {
    let start = Instant::now();
    for (program, kind) in [("ip", "link"), ("ip", "ip"), ("bridge", "bridge")] {
        let file = format!("/run/bench/{name}.{kind}");
        if fs::metadata(&file).is_ok_and(|file| file.len() > 0) {
            shell(&format!("{program} -n reference -batch {file}"))?;
        }
    }
    let samples = times.entry(name.to_owned()).or_default();
    samples.push(start.elapsed());
    Ok(())
}

/// Takes the printed times, and returns the memory.
fn read(printed: &str, times: &mut Times) -> u64 {
    let mut memory = 0;
    for (name, number) in printed.lines().filter_map(|line| line.split_once(' ')) {
        match name {
            "memory" => memory = number.parse().unwrap_or(0),
            "steps" => {}
            _ => {
                let milliseconds: f64 = number.parse().unwrap_or(f64::NAN);
                if let Ok(time) = Duration::try_from_secs_f64(milliseconds / 1e3) {
                    times.entry(name.to_owned()).or_default().push(time);
                }
            }
        }
    }
    memory
}
