//! `parfait policy`: what NetworkPolicies come to, on any cluster or in a folder of YAML, and what they have denied. What is found is decided by
//! the transport layer; here it is printed.

mod denials;
mod explain;
mod lint;
mod list;
mod matrix;
mod nodes;

use parfait_lab_fabric::StateRoot;
use parfait_packet::Origin;
use serde_json::Value;

use crate::args::Policy;
use crate::exit::Failure;
use crate::output::say;

pub async fn run(root: &StateRoot, command: Policy) -> Result<u8, Failure> {
    match command {
        Policy::Explain(args) => explain::run(root, &args).await,
        Policy::List(args) => list::run(root, &args).await,
        Policy::Lint(args) => lint::run(root, &args).await,
        Policy::Matrix(args) => matrix::run(root, &args).await,
        Policy::Denials(args) => denials::run(root, &args),
    }
}

/// Whether something of a namespace is asked for: of all, if none is named.
fn asked(namespaces: &[String], namespace: &str) -> bool {
    namespaces.is_empty() || namespaces.iter().any(|one| one == namespace)
}

fn listed(origins: &[Origin]) -> String {
    let all: Vec<String> = origins.iter().map(ToString::to_string).collect();
    all.join(", ")
}

fn say_json(value: &Value) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(Failure::failed)?;
    say!("{text}");
    Ok(())
}

fn say_notes(notes: &[String]) {
    for note in notes {
        say!("note: {note}");
    }
}
