//! `parfait policy lint`: what is legal and probably not meant.

use parfait_lab_fabric::StateRoot;
use parfait_transport::policy::lint;
use parfait_transport::policy::lint::{Advice, Check, Severity};
use serde_json::{Value, json};

use super::{asked, say_json, say_notes};
use crate::args::{Output, PolicyLint};
use crate::exit::{DONE, FAILED, Failure};
use crate::explain::snapshot;
use crate::lab::Columns;
use crate::output::{counted, say};

pub async fn run(root: &StateRoot, args: &PolicyLint) -> Result<u8, Failure> {
    let ignored: Vec<Check> = args
        .ignore
        .iter()
        .map(|name| check(name))
        .collect::<Result<_, _>>()?;
    let (snapshot, notes, _) = snapshot(root, &args.picture).await?;
    let advice = lint(&snapshot).into_iter();
    let advice = advice.filter(|one| asked(&args.namespace, &one.origin.namespace));
    let advice: Vec<Advice> = advice.filter(|one| !ignored.contains(&one.check)).collect();
    let policies = snapshot.policies.len();
    let policies = policies + snapshot.cluster_policies.len() + snapshot.node_policies.len();
    match args.output {
        Output::Json => say_json(&advice.iter().map(as_json).collect())?,
        Output::Text => print(&advice, &notes, policies),
    }
    let severe = advice
        .iter()
        .any(|one| one.check.severity() < Severity::Info);
    Ok(if severe { FAILED } else { DONE })
}

fn check(name: &str) -> Result<Check, Failure> {
    let found = Check::ALL.into_iter().find(|check| check.name() == name);
    found.ok_or_else(|| {
        let all: Vec<_> = Check::ALL.iter().map(|check| check.name()).collect();
        Failure::usage(format!(
            "no check is called {name:?}; there are {}",
            all.join(", ")
        ))
    })
}

fn as_json(advice: &Advice) -> Value {
    json!({
        "severity": advice.check.severity().to_string(),
        "check": advice.check.name(),
        "origin": advice.origin,
        "message": advice.message,
    })
}

fn print(advice: &[Advice], notes: &[String], policies: usize) {
    if !advice.is_empty() {
        let mut table = Columns::new(["SEVERITY", "CHECK", "POLICY", "WHAT"]);
        for one in advice {
            let severity = one.check.severity().to_string();
            let origin = one.origin.to_string();
            table.row([&severity, one.check.name(), &origin, &one.message]);
        }
        say!("{table}");
    }
    say_notes(notes);
    let count = |severity| {
        advice
            .iter()
            .filter(|one| one.check.severity() == severity)
            .count()
    };
    say!(
        "{}: {}, {}, {}",
        counted(policies, "policy", "policies"),
        counted(count(Severity::Error), "error", "errors"),
        counted(count(Severity::Warning), "warning", "warnings"),
        counted(count(Severity::Info), "info", "infos")
    );
}
