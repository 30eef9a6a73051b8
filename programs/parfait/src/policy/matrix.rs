//! `parfait policy matrix`: every pod to every pod; and what other policies would change.

use std::collections::BTreeSet;

use k8s_openapi::api::networking::v1::NetworkPolicy;
use parfait_cluster::{Parsed, Snapshot, parse};
use parfait_lab_fabric::StateRoot;
use parfait_packet::Protocol;
use parfait_transport::policy::matrix::{Cell, Changed};
use parfait_transport::policy::nodes::changes as changes_of_nodes;
use parfait_transport::policy::{Effective, Matrix};
use serde_json::{Value, json};

use super::{asked, nodes, say_json, say_notes};
use crate::args::{Output, PolicyMatrix};
use crate::exit::{DONE, FAILED, Failure};
use crate::explain::{family, snapshot};
use crate::lab::manifest;
use crate::output::say;

/// How many ports are shown that nobody asked for.
const PORTS: usize = 8;

pub async fn run(root: &StateRoot, args: &PolicyMatrix) -> Result<u8, Failure> {
    let (mut snapshot, mut notes, _) = snapshot(root, &args.picture).await?;
    let ports = match args.ports.as_slice() {
        [] => declared(&snapshot, &args.namespace, &mut notes),
        ports => ports.to_vec(),
    };
    let of = |snapshot: &Snapshot| {
        Matrix::of(
            snapshot,
            &args.namespace,
            &ports,
            args.ip_family.map(family),
        )
    };
    let matrix = of(&snapshot);
    if args.what_if.is_empty() {
        match args.output {
            Output::Json => say_json(&as_json(&matrix))?,
            Output::Text => print(&matrix, &notes),
        }
        return Ok(DONE);
    }
    let before = Effective::of(&snapshot);
    add(&mut snapshot, args, &mut notes)?;
    let after = of(&snapshot);
    let changes = matrix.changes(&after);
    let of_nodes = changes_of_nodes(&snapshot, &before, &Effective::of(&snapshot));
    match args.output {
        Output::Json => {
            let pods: Vec<_> = changes.iter().map(change).collect();
            let nodes: Vec<_> = of_nodes.iter().map(nodes::as_json).collect();
            say_json(&json!({"pods": pods, "nodes": nodes, "notes": notes}))?;
        }
        Output::Text => {
            nodes::print_changes(&of_nodes);
            print_changes(&changes, &notes);
        }
    }
    let same = changes.is_empty() && of_nodes.is_empty();
    Ok(if same { DONE } else { FAILED })
}

/// The ports that containers declare, the lowest first; TCP 80 where there are none.
fn declared(
    snapshot: &Snapshot,
    namespaces: &[String],
    notes: &mut Vec<String>,
) -> Vec<(Protocol, u16)> {
    let pods = snapshot.pods.values();
    let pods = pods.filter(|pod| !pod.host_network && asked(namespaces, &pod.name.namespace));
    let ports = pods.flat_map(|pod| &pod.ports);
    let ports: BTreeSet<_> = ports.map(|port| (port.protocol, port.port)).collect();
    if ports.len() > PORTS {
        let more = ports.len() - PORTS;
        let are = if more == 1 { "port is" } else { "ports are" };
        notes.push(format!("{more} more {are} declared; --port shows any"));
    }
    match ports.is_empty() {
        true => vec![(Protocol::Tcp, 80)],
        false => ports.into_iter().take(PORTS).collect(),
    }
}

/// Adds the policies of `--what-if`.
fn add(
    snapshot: &mut Snapshot,
    args: &PolicyMatrix,
    notes: &mut Vec<String>,
) -> Result<(), Failure> {
    let manifests = manifest::read(&args.what_if).map_err(|faults| {
        let lines: Vec<_> = faults.iter().map(ToString::to_string).collect();
        Failure::usage(lines.join("\nparfait: "))
    })?;
    for one in manifests {
        let wrong = |error: serde_json::Error| {
            Failure::usage(format!("{} {}: {error}", one.kind, one.name))
        };
        let object = one.object.clone();
        let (object, told) = match one.kind.as_str() {
            "NetworkPolicy" => {
                let mut policy: NetworkPolicy = serde_json::from_value(object).map_err(wrong)?;
                let namespace = &mut policy.metadata.namespace;
                namespace.get_or_insert_with(|| "default".to_owned());
                parse(Parsed::NetworkPolicy(&policy), &parfait_kube::config_yaml)
            }
            "ClusterNetworkPolicy" => {
                let policy = serde_json::from_value(object).map_err(wrong)?;
                let policy = Parsed::ClusterNetworkPolicy(&policy);
                parse(policy, &parfait_kube::config_yaml)
            }
            "NodeNetworkPolicy" => {
                let policy = serde_json::from_value(object).map_err(wrong)?;
                let policy = Parsed::NodeNetworkPolicy(&policy);
                parse(policy, &parfait_kube::config_yaml)
            }
            other => {
                notes.push(format!(
                    "{other} {} is no policy and changes nothing here",
                    one.name
                ));
                continue;
            }
        };
        notes.extend(told.iter().map(ToString::to_string));
        if let Some(object) = object {
            snapshot.take(object.key(), Some(object), told);
        }
    }
    Ok(())
}

fn print(matrix: &Matrix, notes: &[String]) {
    let names: Vec<String> = matrix
        .pods
        .iter()
        .map(|pod| format!("{}/{}", pod.namespace, pod.name))
        .collect();
    let digits = names.len().to_string().len();
    let width = names.iter().map(String::len).max().unwrap_or_default() + digits + 2;
    for (protocol, port, rows) in &matrix.ports {
        let head: Vec<String> = (1..=names.len())
            .map(|number| format!("{number:>digits$}"))
            .collect();
        let title = format!("{port}/{protocol}");
        say!("{title:width$}  {}", head.join(" "));
        for (index, (name, row)) in names.iter().zip(rows).enumerate() {
            let cells: Vec<String> = row
                .iter()
                .map(|cell| format!("{:>digits$}", cell.letter()))
                .collect();
            let from = format!("{:>digits$}  {name}", index + 1);
            say!("{from:width$}  {}", cells.join(" "));
        }
        say!();
    }
    say!(
        "rows send, columns receive: . passes, s the sender's policies deny it, r the receiver's, b both, - no family in common"
    );
    say_notes(notes);
}

fn print_changes(changes: &[Changed<'_>], notes: &[String]) {
    for change in changes {
        let (protocol, port) = change.port;
        let sign = if change.after == Cell::Passes {
            '+'
        } else {
            '-'
        };
        say!(
            "{sign} {} → {} {port}/{protocol}: {}; before: {}",
            change.from,
            change.to,
            change.after.what(),
            change.before.what()
        );
    }
    say_notes(notes);
    let verb = if changes.len() == 1 {
        "changes"
    } else {
        "change"
    };
    say!("{} of the connections between pods {verb}", changes.len());
}

fn as_json(matrix: &Matrix) -> Value {
    let ports = matrix.ports.iter().map(|(protocol, port, rows)| {
        let rows = rows
            .iter()
            .map(|row| row.iter().map(|cell| cell.letter()).collect::<String>());
        json!({"port": port, "protocol": protocol, "rows": rows.collect::<Vec<_>>()})
    });
    json!({"pods": matrix.pods, "ports": ports.collect::<Vec<_>>()})
}

fn change(change: &Changed<'_>) -> Value {
    json!({
        "from": change.from,
        "to": change.to,
        "protocol": change.port.0,
        "port": change.port.1,
        "before": change.before.what(),
        "after": change.after.what(),
    })
}
