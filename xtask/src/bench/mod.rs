//! `cargo xtask bench NAME`: the figures that the project promises, measured against what people use now.
//!
//! Ours and the reference take turns in one run on one machine, so that what else the machine does
//! meets both; what is compared are medians, and what is promised is their ratio. All of it happens in
//! network and mount namespaces that end with the run: the host's interfaces and rules are not touched.
//!
//! ```text
//! cargo xtask bench accelerator  Services chosen at connect(2) by a prototype in BPF, against nftables and no Service
//! cargo xtask bench cni      ADD and DEL against the reference plugins ptp and bridge
//! cargo xtask bench path     throughput and connections pod to pod against links joined by hand
//! cargo xtask bench policy   5,000 NetworkPolicies among 20,000 pods, and their packets, against a rule for each rule
//! cargo xtask bench routes   5,000 nodes' routes, neighbours and FDB entries against ip and bridge -batch
//! cargo xtask bench services 10,000 Services and 250,000 endpoints, and their packets, against kube-proxy's shape
//! ```
//!
//! A missed goal is printed as missed, and ends the run with 1.

mod accelerator;
mod cni;
mod harness;
mod path;
mod policy;
mod routes;
mod services;
mod spaces;

use std::path::Path;
use std::process::{Command, ExitCode};

use super::{console, test};
use harness::Row;

/// Set in the run that is inside the namespaces.
const INSIDE: &str = "PARFAIT_BENCH_INSIDE";

/// Runs a benchmark by name.
pub fn main(root: &Path, words: &[&str]) -> ExitCode {
    let Some((name, options)) = parse(words) else {
        return usage("one benchmark is needed, and of the options only those below");
    };
    let json = options.json;
    let run: &dyn Fn(&Path) -> Result<Vec<Row>, String> = match name {
        "accelerator" => &accelerator::run,
        "cni" => &cni::run,
        "path" => &path::run,
        "policy" => &policy::run,
        "routes" => &routes::run,
        "services" => &|root| services::run(root, options.hold),
        other => return usage(&format!("there is no benchmark {other:?}")),
    };
    if std::env::var_os(INSIDE).is_none() {
        return match build(root, name) {
            true => inside(words),
            false => ExitCode::FAILURE,
        };
    }
    match run(root) {
        Ok(rows) => {
            match json {
                true => println!("{}", harness::json(&rows)),
                false => print!("{}", harness::table(&rows)),
            }
            match rows.iter().any(Row::missed) {
                true => ExitCode::FAILURE,
                false => ExitCode::SUCCESS,
            }
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What can be chosen.
struct Options {
    json: bool,
    /// For so many seconds `services` holds a thousand changes a second.
    hold: u32,
}

/// `NAME`, and options before or behind it.
fn parse<'a>(words: &[&'a str]) -> Option<(&'a str, Options)> {
    let mut options = Options {
        json: false,
        hold: 10,
    };
    let mut name = None;
    let mut words = words.iter().copied();
    while let Some(word) = words.next() {
        match word {
            "-o" => options.json = words.next()? == "json",
            "--hold" => options.hold = services::seconds(words.next()?)?,
            word if name.is_none() && !word.starts_with('-') => name = Some(word),
            _ => return None,
        }
    }
    Some((name?, options))
}

fn usage(error: &str) -> ExitCode {
    eprintln!(
        "error: {error}\n\nUsage: cargo xtask bench accelerator|cni|path|policy|routes|services [--hold 60s] [-o json]"
    );
    ExitCode::from(2)
}

/// Optimized builds only: anything else would be a lie. Cargo's words go to stderr.
fn build(root: &Path, name: &str) -> bool {
    let mut cargo = test::cargo(root);
    if name == "cni" {
        cargo.args(["build", "--release", "--quiet", "-p", "parfait-cni"]);
        return console::run(cargo.args(["--target", &cni::triple()]));
    }
    let example = match name {
        "path" => "bench_path",
        "policy" => "bench_policy",
        "routes" => "bench_routes",
        _ => "bench_services",
    };
    cargo.args(["build", "--release", "--quiet", "-p", "parfait-agent"]);
    console::run(cargo.args(["--example", example]))
}

/// The same again in namespaces of its own, with a `/run` of its own, so that `ip netns` is private.
/// If this process dies, everything in there does.
fn inside(words: &[&str]) -> ExitCode {
    let Ok(program) = std::env::current_exe() else {
        return usage("this program does not know where it lies");
    };
    let mut command = Command::new("unshare");
    if !super::hosts::is_root() {
        command.args(["-U", "-r"]);
    }
    let script = "mount -t tmpfs none /run && ip link set lo up && exec \"$0\" \"$@\"";
    let flags = ["-n", "-m", "-p", "--fork", "--mount-proc", "--kill-child"];
    command
        .args(flags)
        .args(["sh", "-c", script])
        .arg(program)
        .arg("bench")
        .args(words)
        .env(INSIDE, "1")
        .env("PATH", super::hosts::path());
    match console::run(&mut command) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Where cargo puts what it builds.
fn target(root: &Path) -> std::path::PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR");
    target.map_or_else(|| root.join("target"), Into::into)
}

/// Where cargo puts optimized programs.
fn release(root: &Path) -> std::path::PathBuf {
    target(root).join("release")
}

/// Runs a command line of words without quotes.
fn shell(line: &str) -> Result<String, String> {
    let mut words = line.split_whitespace();
    let program = words.next().unwrap_or_default();
    let output = Command::new(program)
        .args(words)
        .output()
        .map_err(|error| format!("{line}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!(
            "{line}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}
