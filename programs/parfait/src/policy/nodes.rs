//! NodeNetworkPolicies in what `parfait policy` prints: a list of their own, one node's overview, and who gains and
//! loses nodes.

use parfait_cluster::{Key, Node, NodeNetworkPolicy, Snapshot};
use parfait_packet::Origin;
use parfait_transport::policy::nodes::{ALWAYS_PASS, NodeChange};
use parfait_transport::policy::overview::{Overview, of_class};
use parfait_transport::policy::{Class, Effective};
use serde_json::{Value, json};

use super::{explain, listed, say_json, say_notes};
use crate::args::Output;
use crate::exit::Failure;
use crate::lab::Columns;
use crate::output::say;

/// A policy, the nodes that it is for, and what could not be used of it.
struct Row<'a> {
    policy: &'a NodeNetworkPolicy,
    nodes: Vec<&'a str>,
    notes: Vec<String>,
}

/// The policies for nodes, in the order in which they are asked.
pub struct List<'a>(Vec<Row<'a>>);

impl<'a> List<'a> {
    pub fn of(snapshot: &'a Snapshot) -> Self {
        let mut policies: Vec<_> = snapshot.node_policies.values().collect();
        policies.sort_by_key(|policy| policy.priority);
        let row = |policy: &'a NodeNetworkPolicy| {
            let nodes = snapshot.nodes.values();
            let nodes = nodes.filter(|node| policy.nodes.matches(&node.labels));
            let key = Key::NodeNetworkPolicy(policy.name.clone());
            let notes = snapshot.notes.get(&key).into_iter().flatten();
            Row {
                policy,
                nodes: nodes.map(|node| node.name.as_str()).collect(),
                notes: notes.map(ToString::to_string).collect(),
            }
        };
        Self(policies.into_iter().map(row).collect())
    }

    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn as_json(&self) -> impl Iterator<Item = Value> {
        self.0.iter().map(|row| {
            json!({
                "kind": "NodeNetworkPolicy",
                "name": row.policy.name,
                "priority": row.policy.priority,
                "rules": row.policy.ingress.len(),
                "nodes": row.nodes,
                "notes": row.notes,
            })
        })
    }

    pub fn print(&self) {
        let mut table = Columns::new(["PRIORITY", "NAME", "RULES", "NODES", "ON NODES"]);
        for Row { policy, nodes, .. } in &self.0 {
            let numbers = [policy.priority.into(), policy.ingress.len(), nodes.len()];
            let [priority, rules, count] = numbers.map(|number: usize| number.to_string());
            table.row([&priority, &policy.name, &rules, &count, &nodes.join(", ")]);
        }
        say!("{table}");
    }

    pub fn notes(&self) -> impl Iterator<Item = &String> {
        self.0.iter().flat_map(|row| &row.notes)
    }
}

/// What the policies of nodes come to, of nodes with the same ones together.
pub fn effective(snapshot: &Snapshot, effective: &Effective) -> Vec<(Vec<Origin>, Overview)> {
    let mut classes: Vec<(&Class, Vec<Origin>)> = Vec::new();
    for (name, host) in &effective.nodes {
        let node = snapshot.nodes.get(name).map(Node::origin);
        match classes.iter_mut().find(|(class, _)| *class == &*host.class) {
            Some((_, nodes)) => nodes.extend(node),
            None => classes.push((&host.class, node.into_iter().collect())),
        }
    }
    let classes = classes.into_iter();
    classes
        .map(|(class, nodes)| (nodes, of_class(snapshot, class)))
        .collect()
}

/// `parfait policy explain node/NAME`
pub fn explain(
    snapshot: &Snapshot,
    name: &str,
    notes: &[String],
    output: Output,
) -> Result<(), Failure> {
    let node = snapshot.nodes.get(name);
    let node = node.ok_or_else(|| Failure::usage(format!("there is no node {name:?}")))?;
    let effective = Effective::of(snapshot);
    let host = effective.nodes.get(name);
    let overview = host.map(|host| of_class(snapshot, &host.class));
    let addresses = node.every_address();
    if output == Output::Json {
        return say_json(&json!({
            "node": node.origin(),
            "addresses": addresses,
            "directions": overview.iter().map(explain::as_json).collect::<Vec<_>>(),
            "notes": notes,
        }));
    }
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    say!("{} ({})", node.origin(), addresses.join(", "));
    say!();
    match &overview {
        None => say!("ingress: no NodeNetworkPolicy is for it, everybody may reach it"),
        Some(overview) => {
            explain::print(overview);
            say!();
            say!("{ALWAYS_PASS}");
        }
    }
    say_notes(notes);
    Ok(())
}

pub fn print_changes(changes: &[NodeChange]) {
    for change in changes {
        let sign = if change.passes { '+' } else { '-' };
        let ports: Vec<_> = change.ports.iter().map(ToString::to_string).collect();
        let ports = ports.join(", ");
        let who = explain::named(&change.who);
        let nodes = explain::some(&change.nodes, ToString::to_string);
        let why = match change.by.as_slice() {
            [] => "no policy denies it any more".to_owned(),
            by if change.passes => format!("accepted by {}", listed(by)),
            by => format!("denied by {}", listed(by)),
        };
        say!("{sign} {who} → {nodes} {ports}: {why}");
    }
    if !changes.is_empty() {
        say!("note: {ALWAYS_PASS}");
    }
}

pub fn as_json(change: &NodeChange) -> Value {
    json!({
        "nodes": change.nodes,
        "peers": change.who.iter().map(explain::who).collect::<Vec<_>>(),
        "ports": change.ports.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "passes": change.passes,
        "because": change.by,
    })
}
