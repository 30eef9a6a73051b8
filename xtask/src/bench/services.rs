//! `cargo xtask bench services`: Services, from the cluster's objects to the kernel, and the packets that meet them.
//!
//! The reference is the ruleset that kube-proxy's nftables mode makes, a chain for each Service port and each endpoint,
//! given to `nft -f` ready made. The real program computes it first, and takes longer.
//!
//! | rows | what is timed |
//! |---|---|
//! | first sync | an agent's first turn: planning everything, and making an empty kernel equal to it |
//! | one endpoint | from a changed EndpointSlice to the kernel, among so many |
//! | 1,000 changes a second | how long the last change had waited when the time was over |
//! | prove | reading back what the kernel holds, and comparing it element by element |
//! | MiB | the most resident memory of a process that does only this |
//! | connection, request | see [`traffic`] |
//!
//! "Layer" is the transport layer with its kernel socket alone, "agent" is all of the agent's turn.

pub mod traffic;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::harness::{Goal, Row, Times, nobody, read};
use super::shell;
use super::spaces::node;

/// Where files of the run lie, in a `/run` of its own.
pub const FOLDER: &str = "/run/bench";
/// Services that all have ten endpoints, and a large cluster of Services of all sizes.
const EVEN: &str = "even 5000 50000";
const LARGE: &str = "mixed 10000 250000";
/// The same sizes of Services as [`EVEN`], in a cluster five times as large.
const WIDE: &str = "even 25000 250000";
/// One Service of very many endpoints, of which a node leads to some.
const HUGE: &str = "even 1 1000000";
const ROUNDS: usize = 3;
const TURNS: usize = 100;
/// Whole turns of an agent with 250,000 endpoints.
const FEW: usize = 20;
/// The reference's changes are slow.
const CHANGES: usize = 3;

/// The program that measures, and what was measured.
struct Bench {
    program: PathBuf,
    rows: Vec<Row>,
}

/// Measures everything; changes are held for so many seconds.
pub fn run(root: &Path, hold: u32) -> Result<Vec<Row>, String> {
    fs::create_dir_all(FOLDER).map_err(|error| format!("{FOLDER}: {error}"))?;
    let mut bench = Bench {
        program: super::release(root).join("examples/bench_services"),
        rows: Vec::new(),
    };
    bench.even()?;
    bench.large()?;
    bench.huge()?;
    bench.hold(hold)?;
    bench.rows.extend(traffic::run(&bench.program)?);
    Ok(bench.rows)
}

/// A row's name, its samples, those of the reference, and its goal.
const EVEN_ROWS: &[(&str, &str, Option<&str>, Goal)] = &[
    (
        "first sync, agent",
        "agent-first",
        Some("first"),
        Goal::Milliseconds(500.0),
    ),
    (
        "first sync, layer",
        "first",
        Some("first"),
        Goal::Milliseconds(500.0),
    ),
    ("… plan", "first-plan", None, Goal::Told),
    ("… lower", "first-lower", None, Goal::Told),
    ("… diff", "first-diff", None, Goal::Told),
    ("… kernel", "first-kernel", None, Goal::Told),
    (
        "one endpoint, agent",
        "agent-change",
        Some("change"),
        Goal::Milliseconds(5.0),
    ),
    (
        "one endpoint, layer",
        "change",
        Some("change"),
        Goal::Milliseconds(5.0),
    ),
    ("… plan", "change-plan", None, Goal::Told),
    ("… lower", "change-lower", None, Goal::Told),
    ("… diff", "change-diff", None, Goal::Told),
    ("… kernel", "change-kernel", None, Goal::Told),
    ("one endpoint, all compared", "whole", None, Goal::Told),
    (
        "prove, 60,000 elements",
        "prove",
        None,
        Goal::Milliseconds(1000.0),
    ),
    ("… proved", "agent-proved", None, Goal::Told),
    (
        "MiB resident, agent",
        "memory-agent-changed",
        None,
        Goal::Mebibytes(100.0),
    ),
    ("… at its peak", "memory-agent-peak", None, Goal::Told),
    ("MiB, layer", "memory-peak", None, Goal::Mebibytes(100.0)),
];

impl Bench {
    /// 5,000 Services with ten endpoints each, in turns with the reference.
    fn even(&mut self) -> Result<(), String> {
        let (mut ours, mut rival) = (Times::new(), Times::new());
        self.call("none", "rival 5000 50000 /run/bench", &mut Times::new())?;
        for _ in 0..ROUNDS {
            self.call("ours", &format!("layers {EVEN} {TURNS}"), &mut ours)?;
            self.call("ours", &format!("agent {EVEN} {TURNS}"), &mut ours)?;
            node("rival")?;
            load("rival.nft", "first", &mut rival)?;
            for _ in 0..CHANGES {
                load("rival-there.nft", "change", &mut rival)?;
                load("rival-back.nft", "change", &mut rival)?;
            }
            shell("ip netns del rival")?;
        }
        for (name, key, reference, goal) in EVEN_ROWS {
            let samples = |times: &Times, key: &str| times.get(key).cloned().unwrap_or_default();
            self.rows.push(Row {
                name: format!("{name}, 5,000 × 10"),
                ours: samples(&ours, key),
                reference: match reference {
                    Some(key) => ("nft, kube-proxy's".to_owned(), samples(&rival, key)),
                    None => nobody(),
                },
                goal: *goal,
            });
        }
        Ok(())
    }

    /// 250,000 endpoints.
    fn large(&mut self) -> Result<(), String> {
        let (mut large, mut wide, mut even) = (Times::new(), Times::new(), Times::new());
        for _ in 0..ROUNDS {
            self.call("ours", &format!("layers {LARGE} {TURNS}"), &mut large)?;
            self.call("ours", &format!("agent {LARGE} {FEW}"), &mut large)?;
            self.call("ours", &format!("layers {WIDE} {TURNS}"), &mut wide)?;
            self.call("ours", &format!("layers {EVEN} {TURNS}"), &mut even)?;
        }
        let mut row = |name: &str, key: &str, goal| {
            self.rows.push(Row {
                name: format!("{name}, 10,000 / 250,000"),
                ours: large.get(key).cloned().unwrap_or_default(),
                reference: nobody(),
                goal,
            });
        };
        let (first, one) = (Goal::Milliseconds(5000.0), Goal::Milliseconds(5.0));
        row("first sync, agent", "agent-first", first);
        row("first sync, layer", "first", first);
        row("one endpoint, agent", "agent-change", one);
        row("one endpoint, layer", "change", one);
        row("… kernel", "change-kernel", Goal::Told);
        row("one endpoint, all compared", "whole", Goal::Told);
        row(
            "prove, 310,000 elements",
            "prove",
            Goal::Milliseconds(1000.0),
        );
        row("… proved", "agent-proved", Goal::Told);
        row(
            "MiB resident, agent",
            "memory-agent-changed",
            Goal::Mebibytes(400.0),
        );
        row("… at its peak", "memory-agent-peak", Goal::Told);
        row("MiB, layer", "memory-peak", Goal::Mebibytes(400.0));
        let change = |times: &Times| times.get("change").cloned().unwrap_or_default();
        self.rows.push(Row {
            name: "one endpoint, layer, 25,000 × 10".to_owned(),
            ours: change(&wide),
            reference: ("5,000 × 10".to_owned(), change(&even)),
            goal: Goal::Ratio(1.5),
        });
        Ok(())
    }

    /// All in one Service, which must not hold up others.
    fn huge(&mut self) -> Result<(), String> {
        let mut huge = Times::new();
        self.call("ours", &format!("layers {HUGE} {TURNS}"), &mut huge)?;
        for (name, key, goal) in [
            ("one endpoint, layer", "change", Goal::Milliseconds(100.0)),
            ("… plan", "change-plan", Goal::Told),
            ("MiB, layer", "memory-peak", Goal::Told),
            ("… objects alone", "memory-snapshot", Goal::Told),
        ] {
            self.rows.push(Row {
                name: format!("{name}, 1 × 1,000,000"),
                ours: huge.get(key).cloned().unwrap_or_default(),
                reference: nobody(),
                goal,
            });
        }
        Ok(())
    }

    fn hold(&mut self, seconds: u32) -> Result<(), String> {
        for (size, name, most) in [
            (EVEN, "5,000 × 10", 100.0),
            (LARGE, "10,000 / 250,000", 400.0),
        ] {
            let mut times = Times::new();
            self.call("ours", &format!("hold {size} {seconds}"), &mut times)?;
            let mut row = |what: &str, key: &str, goal| {
                self.rows.push(Row {
                    name: format!("{what}, {name}"),
                    ours: times.get(key).cloned().unwrap_or_default(),
                    reference: nobody(),
                    goal,
                });
            };
            let what = format!("1,000 changes/s for {seconds} s");
            row(
                &format!("{what}: late"),
                "hold-late",
                Goal::Milliseconds(100.0),
            );
            row(&format!("{what}: a batch"), "hold-batch", Goal::Told);
            row(
                &format!("{what}: MiB"),
                "memory-hold-after",
                Goal::Mebibytes(most),
            );
        }
        Ok(())
    }

    /// Runs the program in a new network namespace, with the interface that node-1 has.
    fn call(&self, namespace: &str, words: &str, times: &mut Times) -> Result<(), String> {
        node(namespace)?;
        let program = self.program.display();
        let printed = shell(&format!("ip netns exec {namespace} {program} {words}"))?;
        read(&printed, times);
        shell(&format!("ip netns del {namespace}")).map(drop)
    }
}

fn load(file: &str, name: &str, times: &mut Times) -> Result<(), String> {
    let start = Instant::now();
    shell(&format!("ip netns exec rival nft -f {FOLDER}/{file}"))?;
    times
        .entry(name.to_owned())
        .or_default()
        .push(start.elapsed());
    Ok(())
}

/// `10s`, `60`.
pub fn seconds(word: &str) -> Option<u32> {
    let number = word.strip_suffix('s').unwrap_or(word).parse().ok()?;
    (1..=3600).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_read_with_and_without_their_unit() {
        assert_eq!([seconds("60s"), seconds("5")], [Some(60), Some(5)]);
        assert_eq!([seconds("0"), seconds("1h"), seconds("")], [None; 3]);
    }
}
