//! `parfait lab list`: the labs of this user.

use std::time::{SystemTime, UNIX_EPOCH};

use parfait_lab_fabric::{Condition, StateRoot, sweep};
use serde_json::json;

use super::columns::Columns;
use crate::args::{List, Output};
use crate::exit::{DONE, Failure};
use crate::output::say;

pub fn run(root: &StateRoot, args: &List) -> Result<u8, Failure> {
    for name in sweep(root)? {
        eprintln!("lab {name} had died; what it left is removed");
    }
    let mut labs = Vec::new();
    for name in root.names()? {
        match root.lab(&name).observe()? {
            Condition::Running(record) => labs.push((name, Some(record))),
            Condition::Changing => labs.push((name, None)),
            Condition::Absent | Condition::Dead => {}
        }
    }
    match args.output {
        Output::Json => {
            let all: Vec<_> = labs.iter().map(|(name, record)| json!({"name": name, "running": record.is_some(), "record": record})).collect();
            say!(
                "{}",
                serde_json::to_string_pretty(&all).map_err(Failure::failed)?
            );
        }
        Output::Text if labs.is_empty() => {
            say!("no lab is running; `parfait lab up` makes one")
        }
        Output::Text => {
            let mut table = Columns::new(["NAME", "NODES", "FAMILY", "ROUTING", "API", "UP"]);
            for (name, record) in &labs {
                let Some(r) = record else {
                    table.row([name.as_str(), "-", "-", "-", "-", "(being made or removed)"]);
                    continue;
                };
                let api = r.api.first().map(ToString::to_string).unwrap_or_default();
                let spec = &r.spec;
                let row = [
                    name.to_string(),
                    spec.nodes.to_string(),
                    spec.ip_family.to_string(),
                    spec.routing.to_string(),
                    api,
                    age(r.started),
                ];
                table.row(row.each_ref().map(String::as_str));
            }
            say!("{table}");
        }
    }
    Ok(DONE)
}

/// How long ago a moment was: `7s`, `3m`, `2h5m`.
pub fn age(since: u64) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    match now.saturating_sub(since) {
        s @ 0..=119 => format!("{s}s"),
        s @ 120..=7199 => format!("{}m", s / 60),
        s => format!("{}h{}m", s / 3600, s % 3600 / 60),
    }
}
