//! `cargo xtask stories`: builds the binary and runs the stories of `stories/` with it.
//!
//! The runner is the test program of the crate in `stories/`; this only hands it the binary and the
//! names. Stories run one after another: each may bring up a whole cluster.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::tally::Tally;
use super::{console, test};

/// Builds the binary, and runs the stories whose names contain one of `names`; all if there is none.
pub fn main(root: &Path, names: &[&str]) -> ExitCode {
    console::heading("build");
    let mut tally = Tally::default();
    if console::run(test::cargo(root).args(["build", "--package", "parfait"])) {
        console::heading("stories");
        tally.add(run(root, &["--package", "parfait-stories"], names));
        if tally.is_empty() && !names.is_empty() {
            eprintln!(
                "error: no story is named like {}; see stories/",
                names.join(" or ")
            );
            tally.fail();
        }
    } else {
        tally.fail();
    }
    test::close(&tally)
}

/// Runs stories with the binary that is already built. `packages` is what the build before selected:
/// cargo settles the features of all libraries by that, and another choice would build them again.
pub fn run(root: &Path, packages: &[&str], names: &[&str]) -> Tally {
    let mut command = test::cargo(root);
    command
        .arg("test")
        .args(packages)
        .args(["--test", "stories", "--"])
        .args(names);
    if let Some(binary) = binary() {
        command.env("PARFAIT_BIN", binary);
    }
    test::watch(&mut command)
}

/// The binary lies beside ours: both are built by the same cargo with the same profile.
fn binary() -> Option<PathBuf> {
    let ours = std::env::current_exe().ok()?;
    let theirs = ours.parent()?.join("parfait");
    theirs.is_file().then_some(theirs)
}
