//! `cargo xtask tidy`: the house rules that neither the compiler nor clippy checks.
//!
//! Each rule is one small function from the files of the tree to the places that break it. A report
//! is a line that an editor can jump to, and says what is wrong, why it matters and what to do:
//!
//! ```text
//! layers/link/src/plan.rs:12: pure: `std::fs` in a layer: …
//! ```
//!
//! The rules look at text and paths, never at types, so the whole tree takes well under a second and
//! half-written code can be checked as well. What needs types is left to clippy.

mod arrows;
mod bans;
mod manifest;
mod prose;
mod shape;
mod source;
#[cfg(test)]
mod tests;
mod tree;

use std::fmt;
use std::path::Path;
use std::process::ExitCode;

use tree::Tree;

/// One place that breaks one rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Path below the workspace, with `/`.
    pub path: String,
    /// Line, counted from 1.
    pub line: usize,
    /// The rule's short name.
    pub rule: &'static str,
    /// What is wrong, why it matters, and what to do.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {}: {}",
            self.path, self.line, self.rule, self.text
        )
    }
}

/// Prints every violation in the workspace; fails if there is one.
pub fn main(root: &Path) -> ExitCode {
    let found = match check(root) {
        Ok(found) => found,
        Err(error) => {
            eprintln!("error: cannot read the tree: {error}");
            return ExitCode::FAILURE;
        }
    };
    for violation in &found {
        println!("{violation}");
    }
    match found.len() {
        0 => {
            println!("tidy: clean");
            ExitCode::SUCCESS
        }
        n => {
            println!("tidy: {n} to put right (the rules and their reasons: STYLE.md)");
            ExitCode::FAILURE
        }
    }
}

/// Every violation below `root`, ordered by path and line.
pub fn check(root: &Path) -> std::io::Result<Vec<Violation>> {
    let tree = Tree::read(root)?;
    let mut found = Vec::new();
    arrows::check(&tree, &mut found);
    shape::check(&tree, &mut found);
    bans::check(&tree, &mut found);
    prose::check(&tree, &mut found);
    found.sort();
    found.dedup();
    Ok(found)
}
