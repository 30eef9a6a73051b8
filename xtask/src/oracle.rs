//! `cargo xtask oracle`: the long run of policies against a second reading of the API.
//!
//! The tests compare what is planned, programmed and explained with the reference evaluator
//! (`layers/transport/tests/policy/reference.rs`) on a thousand random clusters. This does so on as many as one has
//! patience for, in batches with a seed each, which is printed. A disagreement is shrunk to the smallest cluster that
//! shows it, printed by the test, and ends the run; its seed repeats it.
//!
//! ```text
//! cargo xtask oracle                              100,000 clusters, of seeds that nobody has tried
//! cargo xtask oracle --clusters 1000 --seed 7     the batch of one seed
//! ```

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::{console, test};

/// Clusters in a batch: a minute's work or so.
const BATCH: u32 = 10_000;

/// What can be chosen.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    clusters: u32,
    seed: u64,
}

/// Runs batch after batch.
pub fn main(root: &Path, words: &[&str]) -> ExitCode {
    let Some(options) = parse(words, fresh()) else {
        eprintln!(
            "error: only these options are known\n\nUsage: cargo xtask oracle [--clusters 100000] [--seed NUMBER]"
        );
        return ExitCode::from(2);
    };
    if !console::run(command(root).arg("--no-run")) {
        return ExitCode::FAILURE;
    }
    let start = Instant::now();
    for (seed, clusters) in batches(&options) {
        println!("seed {seed}: {clusters} clusters");
        if !batch(root, seed, clusters) {
            eprintln!(
                "error: they disagree; again: cargo xtask oracle --clusters {clusters} --seed {seed}"
            );
            return ExitCode::FAILURE;
        }
    }
    println!(
        "{} clusters agree, {} s",
        options.clusters,
        start.elapsed().as_secs()
    );
    ExitCode::SUCCESS
}

fn parse(words: &[&str], fresh: u64) -> Option<Options> {
    let mut options = Options {
        clusters: 100_000,
        seed: fresh,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let value = words.next()?;
        match *word {
            "--clusters" => options.clusters = value.parse().ok().filter(|number| *number > 0)?,
            "--seed" => options.seed = value.parse().ok()?,
            _ => return None,
        }
    }
    Some(options)
}

/// A seed that no run before had, most likely.
fn fresh() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

/// The seeds, and how many clusters each is for.
fn batches(options: &Options) -> impl Iterator<Item = (u64, u32)> {
    let full = (0..options.clusters / BATCH).map(|_| BATCH);
    let rest = options.clusters % BATCH;
    let sizes = full.chain((rest > 0).then_some(rest));
    let first = options.seed;
    (0..)
        .zip(sizes)
        .map(move |(nth, size)| (first.wrapping_add(nth), size))
}

fn batch(root: &Path, seed: u64, clusters: u32) -> bool {
    console::run(
        command(root)
            .args(["--", "what_is_programmed"])
            .env("PARFAIT_RUNS", clusters.to_string())
            .env("PARFAIT_SEED", seed.to_string()),
    )
}

/// The test, optimized, as part of the workspace, which settles the features of all libraries.
fn command(root: &Path) -> Command {
    let mut command = test::cargo(root);
    command.args(["test", "--release", "--quiet", "--workspace"]);
    command.args(["--test", "policy"]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_are_tried_in_batches_of_following_seeds() {
        let tried = |clusters| -> Vec<_> { batches(&Options { clusters, seed: 7 }).collect() };
        assert_eq!(tried(1_000), [(7, 1_000)]);
        assert_eq!(tried(20_000), [(7, 10_000), (8, 10_000)]);
        assert_eq!(tried(20_001), [(7, 10_000), (8, 10_000), (9, 1)]);
    }

    #[test]
    fn options_are_read() {
        let options = |clusters, seed| Some(Options { clusters, seed });
        assert_eq!(parse(&[], 3), options(100_000, 3));
        assert_eq!(parse(&["--seed", "7", "--clusters", "5"], 3), options(5, 7));
        for wrong in [&["--seed"][..], &["--clusters", "0"], &["7", "8"]] {
            assert_eq!(parse(wrong, 3), None, "{wrong:?}");
        }
    }
}
