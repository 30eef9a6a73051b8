//! `parfait policy list`: the policies; or the classes that they make of pods, and what these allow.

use std::collections::{BTreeMap, BTreeSet};

use parfait_cluster::{Direction, Key, NetworkPolicy, Snapshot};
use parfait_lab_fabric::StateRoot;
use parfait_packet::Origin;
use parfait_transport::policy::Effective;
use parfait_transport::policy::overview::{Overview, of_class};
use serde_json::{Value, json};

use super::{asked, explain, say_json, say_notes};
use crate::args::{Output, PolicyList};
use crate::exit::{DONE, Failure};
use crate::explain::snapshot;
use crate::lab::Columns;
use crate::output::say;

pub async fn run(root: &StateRoot, args: &PolicyList) -> Result<u8, Failure> {
    let (snapshot, notes, _) = snapshot(root, &args.picture).await?;
    match args.effective {
        true => effective(&snapshot, args)?,
        false => policies(&snapshot, args)?,
    }
    if args.output == Output::Text {
        say_notes(&notes);
    }
    Ok(DONE)
}

/// A policy, and whom it isolates.
struct Row<'a> {
    policy: &'a NetworkPolicy,
    directions: Vec<&'static str>,
    rules: usize,
    /// How many pods of each node.
    pods: BTreeMap<&'a str, usize>,
    notes: Vec<String>,
}

impl<'a> Row<'a> {
    fn of(snapshot: &'a Snapshot, policy: &'a NetworkPolicy) -> Self {
        let isolates = |way: &Direction| policy.rules(*way).is_some();
        let directions = Direction::ALL.iter().filter(|way| isolates(way));
        let rules = Direction::ALL.iter().filter_map(|way| policy.rules(*way));
        let mut pods = BTreeMap::new();
        for pod in snapshot.pods.values() {
            let fits =
                pod.name.namespace == policy.name.namespace && policy.pods.matches(&pod.labels);
            if fits && !pod.host_network && pod.has_network() {
                *pods
                    .entry(pod.node.as_deref().unwrap_or_default())
                    .or_default() += 1;
            }
        }
        let notes = snapshot.notes.get(&Key::NetworkPolicy(policy.name.clone()));
        Self {
            policy,
            directions: directions.map(|way| way.name()).collect(),
            rules: rules.map(<[_]>::len).sum(),
            pods,
            notes: notes
                .into_iter()
                .flatten()
                .map(ToString::to_string)
                .collect(),
        }
    }

    fn as_json(&self) -> Value {
        let name = &self.policy.name;
        json!({
            "namespace": name.namespace,
            "name": name.name,
            "directions": self.directions,
            "rules": self.rules,
            "podsByNode": self.pods,
            "notes": self.notes,
        })
    }
}

fn policies(snapshot: &Snapshot, args: &PolicyList) -> Result<(), Failure> {
    let policies = snapshot.policies.values();
    let policies = policies.filter(|policy| asked(&args.namespace, &policy.name.namespace));
    let rows: Vec<Row<'_>> = policies.map(|policy| Row::of(snapshot, policy)).collect();
    if args.output == Output::Json {
        return say_json(&rows.iter().map(Row::as_json).collect());
    }
    if rows.is_empty() {
        say!("no NetworkPolicies: every pod may talk to every pod");
        return Ok(());
    }
    let mut table = Columns::new([
        "NAMESPACE",
        "NAME",
        "ISOLATES FOR",
        "RULES",
        "PODS",
        "ON NODES",
    ]);
    for row in &rows {
        let name = &row.policy.name;
        let nodes: Vec<String> = row
            .pods
            .iter()
            .map(|(node, pods)| format!("{node} {pods}"))
            .collect();
        table.row([
            &name.namespace,
            &name.name,
            &row.directions.join(", "),
            &row.rules.to_string(),
            &row.pods.values().sum::<usize>().to_string(),
            &nodes.join(", "),
        ]);
    }
    say!("{table}");
    for note in rows.iter().flat_map(|row| &row.notes) {
        say!("note: {note}");
    }
    Ok(())
}

fn effective(snapshot: &Snapshot, args: &PolicyList) -> Result<(), Failure> {
    let effective = Effective::of(snapshot);
    let mut classes: Vec<(BTreeSet<&Origin>, Overview)> = effective
        .classes()
        .into_values()
        .map(|(class, pods)| (pods, of_class(snapshot, class)))
        .filter(|(pods, _)| {
            pods.iter()
                .any(|pod| asked(&args.namespace, &pod.namespace))
        })
        .collect();
    classes
        .sort_by(|(some, one), (more, other)| (some, one.direction).cmp(&(more, other.direction)));
    if args.output == Output::Json {
        let class = |(pods, overview): &(BTreeSet<&Origin>, Overview)| {
            let mut value = explain::as_json(overview);
            value["pods"] = json!(pods);
            value
        };
        return say_json(&classes.iter().map(class).collect());
    }
    if classes.is_empty() {
        say!("no pod is isolated");
    }
    for (index, (pods, overview)) in classes.iter().enumerate() {
        if index > 0 {
            say!();
        }
        let first: Vec<String> = pods.iter().take(4).map(ToString::to_string).collect();
        let more = match pods.len() - first.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        say!("{}{more}", first.join(", "));
        explain::print(overview);
    }
    Ok(())
}
