//! `cargo xtask ci`: everything that a change must pass, cheapest step first, each step timed.
//!
//! All steps run even after one failed, so that one run shows everything; only what needs a build that
//! did not succeed is left out. One profile, dev, serves all steps: clippy and the documentation share
//! the dependencies' metadata, tests and stories share one build.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::tally::Tally;
use super::{console, hosts, stories, test, tidy};

/// A finished step.
struct Step {
    name: &'static str,
    passed: bool,
    time: Duration,
}

/// Runs all steps, and prints their times and the tests' sum.
pub fn main(root: &Path) -> ExitCode {
    let mut steps = Vec::new();
    let mut tally = Tally::default();
    hosts::report(hosts::rights());

    step(&mut steps, "formatting", || {
        console::run(test::cargo(root).args(["fmt", "--all", "--check"]))
    });
    step(&mut steps, "tidy", || tidy::main(root) == ExitCode::SUCCESS);
    step(&mut steps, "clippy", || {
        let args = [
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ];
        console::run(test::cargo(root).args(args))
    });
    step(&mut steps, "documentation", || {
        let args = ["doc", "--workspace", "--no-deps"];
        console::run(
            test::cargo(root)
                .args(args)
                .env("RUSTDOCFLAGS", "-D warnings"),
        )
    });
    if step(&mut steps, "build", || test::build(root)) {
        step(&mut steps, "tests", || count(&mut tally, test::tests(root)));
        step(&mut steps, "stories", || {
            count(&mut tally, stories::run(root, &["--workspace"], &[]))
        });
    } else {
        tally.fail();
    }

    print(&steps);
    let tests = test::close(&tally);
    match steps.iter().all(|step| step.passed) {
        true => tests,
        false => ExitCode::FAILURE,
    }
}

fn step(steps: &mut Vec<Step>, name: &'static str, work: impl FnOnce() -> bool) -> bool {
    console::heading(name);
    let start = Instant::now();
    let passed = work();
    steps.push(Step {
        name,
        passed,
        time: start.elapsed(),
    });
    passed
}

fn count(sum: &mut Tally, part: Tally) -> bool {
    let passed = part.failed == 0;
    sum.add(part);
    passed
}

fn print(steps: &[Step]) {
    console::heading("steps");
    for step in steps {
        let word = if step.passed { "ok" } else { "FAILED" };
        println!(
            "{:<14} {word:<7} {:>10}",
            step.name,
            console::spell(step.time)
        );
    }
    let total = steps.iter().map(|step| step.time).sum();
    println!("{:<14} {:<7} {:>10}", "all", "", console::spell(total));
}
