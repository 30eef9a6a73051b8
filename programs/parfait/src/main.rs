//! `parfait`: the one binary. Every subcommand is dispatched here and lives in a crate of its own.
fn main() {}
