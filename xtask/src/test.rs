//! `cargo xtask test`: every test and every story, and one closing line with the sum.
//!
//! It builds first, in one go and with one set of features, so that the tests, the stories and the
//! binary that the stories run share every artifact. It goes on after a failure: one run shows all.
//!
//! As root the kernel tests make their own namespaces. Without root the test programs run as the root
//! of a user namespace with a network of its own (only `lo`, which is brought up); where the system
//! forbids that, they skip, loudly.

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, ExitCode};

use super::hosts::{self, Rights};
use super::tally::Tally;
use super::{console, stories};

/// Runs everything and prints the sum.
pub fn main(root: &Path) -> ExitCode {
    console::heading("what this machine has");
    hosts::report(hosts::rights());
    console::heading("build");
    let mut tally = Tally::default();
    if build(root) {
        console::heading("tests");
        tally.add(tests(root));
        console::heading("stories");
        tally.add(stories::run(root, &["--workspace"], &[]));
    } else {
        tally.fail();
    }
    close(&tally)
}

/// Builds the binary and all test programs.
pub fn build(root: &Path) -> bool {
    console::run(cargo(root).args(["build", "--workspace", "--bins", "--tests"]))
}

/// Runs all test programs. The stories' one is told that its turn comes later, as a step of its own.
pub fn tests(root: &Path) -> Tally {
    let mut command = match hosts::rights() {
        Rights::Root | Rights::None => cargo(root),
        Rights::UserNamespace => in_user_namespace(root),
    };
    command
        .args(["test", "--workspace", "--no-fail-fast"])
        .env("PARFAIT_STORIES", "later");
    watch(&mut command)
}

/// Runs a test program and counts. A failure that it did not count is counted here.
pub fn watch(command: &mut Command) -> Tally {
    watch_to(command, (io::stdout(), io::stderr()))
}

fn watch_to(command: &mut Command, outputs: (impl Write + Send, impl Write + Send)) -> Tally {
    let mut tally = Tally::default();
    let ended = console::run_watched(command, outputs, |line| tally.read(line));
    match ended {
        Ok(status) if status.success() => {}
        Ok(_) if tally.failed > 0 => {}
        Ok(status) => {
            eprintln!("error: the tests ended with {status}");
            tally.fail();
        }
        Err(error) => {
            eprintln!("error: cannot run {error}");
            tally.fail();
        }
    }
    tally
}

/// Names the skips, and prints the closing line, alone on the last line.
pub fn close(tally: &Tally) -> ExitCode {
    let strict = std::env::var("PARFAIT_REQUIRE_ALL").is_ok_and(|value| value == "1");
    if tally.skipped() > 0 {
        console::heading("skipped");
        for reason in tally.reasons() {
            println!("{reason}");
        }
        let so = match strict {
            true => "PARFAIT_REQUIRE_ALL=1, so this run fails",
            false => "these parts are NOT tested on this machine",
        };
        println!("{} skipped: {so}", tally.skipped());
    }
    println!("\n{tally}");
    match fails(tally, strict) {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    }
}

fn fails(tally: &Tally, strict: bool) -> bool {
    tally.failed > 0 || (strict && tally.skipped() > 0)
}

/// The cargo that runs us, in the workspace, with system programs in its PATH.
pub fn cargo(root: &Path) -> Command {
    let mut command = Command::new(program());
    command.current_dir(root).env("PATH", hosts::path());
    command
}

fn in_user_namespace(root: &Path) -> Command {
    let mut command = Command::new("unshare");
    command
        .current_dir(root)
        .env("PATH", hosts::path())
        .args(["-Urnm", "sh", "-c"])
        .arg("ip link set lo up && exec \"$0\" --offline \"$@\"")
        .arg(program());
    command
}

fn program() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Tally {
        quietly(Command::new("sh").args(["-c", script]))
    }

    /// What these programs print is not ours to print: whoever counts our output would count it.
    fn quietly(command: &mut Command) -> Tally {
        watch_to(command, (io::sink(), io::sink()))
    }

    const PASSED: &str = "echo 'test result: ok. 2 passed; 0 failed; 0 ignored'";

    #[test]
    fn a_test_program_is_counted() {
        assert_eq!(shell(PASSED).to_string(), "2 passed, 0 failed, 0 skipped");
    }

    #[test]
    fn a_crash_that_no_test_reported_is_a_failure() {
        let crash = format!("{PASSED}; kill -SEGV $$");
        assert_eq!(shell(&crash).to_string(), "2 passed, 1 failed, 0 skipped");
        assert_eq!(quietly(&mut Command::new("no-such-program")).failed, 1);
    }

    #[test]
    fn a_failure_is_counted_once() {
        let failed = "echo 'test result: FAILED. 2 passed; 1 failed; 0 ignored'; exit 101";
        assert_eq!(shell(failed).to_string(), "2 passed, 1 failed, 0 skipped");
    }

    #[test]
    fn a_skip_fails_only_where_all_is_required() {
        let skipped = shell(&format!("echo 'SKIP: a: no nft' >&2; {PASSED}"));
        assert_eq!(skipped.to_string(), "1 passed, 0 failed, 1 skipped");
        assert!(!fails(&skipped, false) && fails(&skipped, true));
        let passed = shell(PASSED);
        assert!(!fails(&passed, true));
    }
}
