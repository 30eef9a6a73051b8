//! `parfait policy denials`: what the agents have sampled and explained of what policies denied.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use parfait_agent::denials::FILE;
use parfait_lab_fabric::{Condition, StateRoot};
use serde_json::{Value, json};

use super::say_json;
use crate::args::{Output, PolicyDenials};
use crate::exit::{DONE, FAILED, Failure};
use crate::lab::Columns;
use crate::lab::api;
use crate::output::{counted, say};

/// Where an agent keeps its files, if nobody says otherwise.
const STATE_DIR: &str = "/var/lib/parfait";

pub fn run(root: &StateRoot, args: &PolicyDenials) -> Result<u8, Failure> {
    let mut nodes = Vec::new();
    for (node, folder) in folders(root, args)? {
        match read(&folder.join(FILE))? {
            Some(mut said) => {
                select(&mut said, &args.namespace);
                said["node"] = json!(node);
                nodes.push(said);
            }
            None => eprintln!(
                "{node}: the agent has written no {FILE} in {} yet",
                folder.display()
            ),
        }
    }
    let code = if nodes.is_empty() { FAILED } else { DONE };
    match args.output {
        Output::Json => say_json(&nodes.into())?,
        Output::Text => print(&nodes),
    }
    Ok(code)
}

/// Nodes, and where their agents keep their files.
fn folders(root: &StateRoot, args: &PolicyDenials) -> Result<Vec<(String, PathBuf)>, Failure> {
    let here = |folder: &Path| vec![("this machine".to_owned(), folder.to_owned())];
    if let Some(folder) = &args.agent_state_dir {
        return Ok(here(folder));
    }
    match root.lab(&args.which.name).observe()? {
        Condition::Running(_) => {
            let lab = api::running(root, &args.which.name)?;
            let nodes = lab.record.spec.node_names();
            let folders = nodes.map(|node| (node.clone(), lab.dir.node(&node).join("lib")));
            Ok(folders.collect())
        }
        _ => Ok(here(Path::new(STATE_DIR))),
    }
}

fn read(path: &Path) -> Result<Option<Value>, Failure> {
    let failed =
        |error: &dyn std::fmt::Display| Failure::failed(format!("{}: {error}", path.display()));
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| failed(&error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(&error)),
    }
}

/// Leaves the denials to and from pods of these namespaces.
fn select(said: &mut Value, namespaces: &[String]) {
    let Some(denials) = said["denials"].as_array_mut() else {
        return;
    };
    denials.retain(|denial| {
        let ends = [text(denial, "from"), text(denial, "to")];
        let mut spaces = ends
            .iter()
            .filter_map(|end| end.strip_prefix("Pod ")?.split('/').next());
        namespaces.is_empty() || spaces.any(|space| namespaces.iter().any(|one| one == space))
    });
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_default()
}

fn print(nodes: &[Value]) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let mut table = Columns::new([
        "NODE",
        "LAST",
        "FROM",
        "TO",
        "PORT",
        "DENIED BY",
        "WOULD PASS IF",
    ]);
    let mut shown = 0;
    for node in nodes {
        for denial in node["denials"].as_array().into_iter().flatten() {
            let last = now.saturating_sub(denial["last"].as_u64().unwrap_or_default());
            let by: Vec<&str> = denial["by"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            let port = format!("{}/{}", denial["port"], text(denial, "protocol"));
            table.row([
                text(node, "node"),
                &format!("{last}s"),
                text(denial, "from"),
                text(denial, "to"),
                &port,
                &format!("{} ({})", by.join(", "), text(denial, "direction")),
                text(denial, "wouldPassIf"),
            ]);
            shown += 1;
        }
    }
    if shown > 0 {
        say!("{table}");
    }
    for node in nodes {
        let denied = node["denied"].as_u64().unwrap_or_default();
        let denied = usize::try_from(denied).unwrap_or(usize::MAX);
        say!(
            "{}: {} denied, {} explained, {} only counted",
            text(node, "node"),
            counted(denied, "packet", "packets"),
            node["sampled"],
            node["unsampled"]
        );
    }
}
