//! `cargo xtask`: the chores of the project, in Rust, so that they run the same on every machine.
//!
//! ```text
//! cargo xtask tidy      the house rules that a compiler cannot check
//! cargo xtask test      every test and every story, with one closing line of figures
//! cargo xtask stories   the stories alone, or those whose names contain a word
//! cargo xtask bench NAME  the promised figures, against what people use now
//! cargo xtask oracle    policies against a second reading of the API, on random clusters without end
//! cargo xtask ci        formatting, tidy, clippy, documentation, tests, stories
//! ```
//!
//! It promises to need nothing but the standard library and cargo: it is the first thing that runs on
//! a fresh clone, before any dependency has been built. It installs nothing: that is `.ci/run`.

mod bench;
mod ci;
mod console;
mod hosts;
mod oracle;
mod stories;
mod tally;
mod test;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const HELP: &str = "\
The chores of the project.

Usage: cargo xtask <COMMAND>

Commands:
  tidy              Check the house rules: module docs, sizes, the four arrows, banned calls, links
  test              Build and run every test and every story; the last line is the sum
  stories [NAME]…   Run the stories, or those whose names contain one of the words
  bench NAME        Measure the promised figures against a reference: cni, path, policy, routes,
                    services; `-o json`, and for services `--hold 60s`
  oracle            Compare policies with a second reading of the API on 100,000 random clusters;
                    `--clusters NUMBER`, `--seed NUMBER`
  ci                Everything a change must pass, each step timed: formatting, tidy, clippy,
                    documentation, build, tests, stories
  help              Print this

Environment:
  PARFAIT_REQUIRE_ALL=1   A skipped test is a failure (set by .ci/run)
  UPDATE_STORIES=1        Write what the commands printed into the stories, to be reviewed with git diff

Exit codes: 0 all well, 1 something failed, 2 bad usage.
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    if words.len() > 1 && words.iter().any(|w| *w == "--help" || *w == "-h") {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let root = workspace();
    match words.as_slice() {
        ["tidy"] => tidy::main(&root),
        ["test"] => test::main(&root),
        ["stories", names @ ..] => stories::main(&root, names),
        ["bench", words @ ..] => bench::main(&root, words),
        ["oracle", words @ ..] => oracle::main(&root, words),
        ["ci"] => ci::main(&root),
        ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        [] => {
            eprint!("{HELP}");
            ExitCode::from(2)
        }
        [command, ..] => {
            eprintln!("error: `cargo xtask {command}` with these arguments is not known\n\n{HELP}");
            ExitCode::from(2)
        }
    }
}

/// The folder of the workspace: xtask lies directly in it.
fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}
