//! Lines for the container's log.
//!
//! `println!` panics when nobody reads the log any more; these do not care.

use std::io::Write;

/// A line on standard output: what the program does.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// A line on standard error: why it ends.
pub fn complain(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
