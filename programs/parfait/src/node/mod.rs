//! `parfait node status`: one node's plan next to what its kernel holds.
//!
//! ```text
//!   of a lab's node ─▶ run in that node's network ─┐
//!   on a node, or anywhere with a kubeconfig ──────┴─▶ snapshot, kernel ─▶ inspect::status ─▶ table
//! ```
//!
//! Only where the cluster's picture and the kernel come from is decided here; comparing them is
//! `programs/inspect`'s.

mod table;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use parfait_cluster::Snapshot;
use parfait_inspect::node::{Allocation, Held};
use parfait_inspect::{NodeStatus, status};
use parfait_join::{NodePlan, Observed};
use parfait_kernel::nft::NftSocket;
use parfait_kernel::{NodeFacts, Socket, offload};
use parfait_lab_fabric::{Condition, LabName, StateRoot, Target};
use parfait_linux::{IfName, State};

use crate::args::{NodeStatus as Args, Output};
use crate::exit::Failure;
use crate::lab::api;
use crate::output::say;

/// Runs before any thread is started, as joining a lab's namespaces demands it.
pub fn run(root: &StateRoot, args: &Args) -> Result<u8, Failure> {
    match lab(root, args)? {
        Some(lab) => in_lab(root, &lab, args),
        None => here(args, None, None),
    }
}

/// The lab that is meant: the one that is named, else the default one, if it runs and nothing says that
/// this machine is meant.
fn lab(root: &StateRoot, args: &Args) -> Result<Option<LabName>, Failure> {
    if args.kubeconfig.is_some() {
        return Ok(None);
    }
    let name = args.lab.clone().unwrap_or_default();
    match root.lab(&name).observe()? {
        Condition::Running(_) => Ok(Some(name)),
        _ if args.lab.is_some() => api::running(root, &name).map(|_| None),
        _ => Ok(None),
    }
}

/// One node of a lab is looked at from within; of several, each in a process of its own.
fn in_lab(root: &StateRoot, lab: &LabName, args: &Args) -> Result<u8, Failure> {
    let record = api::running(root, lab)?;
    let names: Vec<String> = match &args.node {
        Some(node) => vec![node.clone()],
        None => record.record.spec.node_names().collect(),
    };
    let [node] = names.as_slice() else {
        return each(root, lab, &names, args);
    };
    let target: Target = format!("node/{node}").parse().map_err(Failure::usage)?;
    let kubeconfig = record.dir.node_kubeconfig();
    let looked = parfait_lab_fabric::run_in(root, lab, &target, || {
        // The target may have been a number.
        let name = record
            .record
            .spec
            .node_names()
            .find(|name| name == node || name.strip_prefix("node-") == Some(node.as_str()));
        let folder = name.as_ref().map(|name| record.dir.node(name).join("lib"));
        let args = Args {
            kubeconfig: Some(kubeconfig),
            node: name.or_else(|| args.node.clone()),
            ..args.clone()
        };
        let done = here(&args, Some(()), folder.as_deref());
        done.unwrap_or_else(|failure| failure.say())
    });
    Ok(looked?)
}

fn each(root: &StateRoot, lab: &LabName, nodes: &[String], args: &Args) -> Result<u8, Failure> {
    let program = std::env::current_exe().map_err(Failure::failed)?;
    let mut worst = 0;
    for (index, node) in nodes.iter().enumerate() {
        if index > 0 && args.output == Output::Text {
            say!();
        }
        let mut command = std::process::Command::new(&program);
        command.arg("--state-dir").arg(root.base());
        command
            .args(["node", "status", node, "--name"])
            .arg(lab.to_string());
        if args.output == Output::Json {
            command.args(["-o", "json"]);
        }
        let ended = command.status().map_err(Failure::failed)?;
        let code = ended.code().and_then(|code| u8::try_from(code).ok());
        // Something differs (1) is worse than that nobody can tell (3).
        worst = match (worst, code.unwrap_or(1)) {
            (1, _) | (_, 1) => 1,
            (0, code) => code,
            (worst, _) => worst,
        };
    }
    Ok(worst)
}

/// Looks at the kernel of the calling thread's network namespace.
fn here(args: &Args, in_lab: Option<()>, folder: Option<&Path>) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let (mut snapshot, mut notes) = runtime
        .map_err(Failure::failed)?
        .block_on(snapshot(args.kubeconfig.as_deref()))?;
    let node = named(args, &snapshot)?;
    let folder: PathBuf = folder.map_or_else(|| args.agent_state_dir.clone(), Path::to_path_buf);
    if !args.plan_only {
        // As the agent does: it knows its pods before the API tells their addresses.
        let (attached, _) = parfait_agent::attachments::read(&folder);
        snapshot.attach(&node, attached);
    }
    let observed = match args.plan_only {
        true => Err("only the plan was asked for".to_owned()),
        false => observe(&snapshot, &node),
    };
    let allocations = match (&observed, in_lab) {
        (Err(_), None) => Vec::new(),
        _ => allocations(&folder, &mut notes),
    };
    let allocations = match &observed {
        Ok(_) => with_buckets(allocations, &mut notes),
        Err(_) => allocations,
    };
    let mut status = status(&snapshot, &node, observed.as_ref().ok(), allocations)
        .ok_or_else(|| Failure::usage(format!("there is no node {node}")))?;
    if let Err(why) = observed {
        let note = format!("the kernel was NOT looked at, this is the plan alone: {why}");
        status.notes.insert(0, note);
    }
    status.notes.append(&mut notes);
    print(&status, args.output)?;
    Ok(status.exit_code())
}

async fn snapshot(kubeconfig: Option<&Path>) -> Result<(Snapshot, Vec<String>), Failure> {
    let client = match kubeconfig {
        Some(path) => api::client(path).await?,
        None => parfait_kube::client(None).await.map_err(|error| {
            Failure::failed(format!(
                "no lab runs, and {error}\n  do:  `parfait lab up`, or --kubeconfig FILE"
            ))
        })?,
    };
    let (snapshot, skipped) = parfait_kube::read(&client).await.map_err(Failure::failed)?;
    let notes = skipped
        .iter()
        .map(|skipped| format!("{} could not be read: {}", skipped.kind, skipped.why));
    Ok((snapshot, notes.collect()))
}

/// The node that is meant: as named, else the one that this machine is called.
fn named(args: &Args, snapshot: &Snapshot) -> Result<String, Failure> {
    let host = || {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        name.trim().to_lowercase()
    };
    let name = args.node.clone().unwrap_or_else(host);
    let name = name.strip_prefix("node/").unwrap_or(&name).to_owned();
    if snapshot.nodes.contains_key(&name) {
        return Ok(name);
    }
    let known: Vec<_> = snapshot.nodes.keys().cloned().collect();
    Err(Failure::usage(format!(
        "the cluster has no node {name}; it has {}\n  do:  parfait node status NODE",
        if known.is_empty() {
            "none".to_owned()
        } else {
            known.join(", ")
        }
    )))
}

/// What this kernel holds, if it is that node's; else why not.
fn observe(snapshot: &Snapshot, node: &str) -> Result<Observed, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let plan = NodePlan::new(snapshot, node);
    let sysctls: Vec<_> = plan.state().sysctls.keys().cloned().collect();
    let mut socket = Socket::open().map_err(|error| text(&error))?;
    let mut state = socket.observe(&sysctls).map_err(|error| text(&error))?;
    let tunnelled = plan.internet.tunnel.iter().flat_map(|(_, own)| own);
    let tunnelled: Vec<IpAddr> = tunnelled.map(|(address, _)| *address).collect();
    is_here(snapshot, node, &state, &tunnelled)?;
    let mut netfilter = NftSocket::open().map_err(|error| text(&error))?;
    let tables = netfilter.observe_all().map_err(|error| text(&error))?;
    state.tables = tables.tables;
    let handles = netfilter.handles().map_err(|error| text(&error))?;
    let underlay = plan.link.underlay.as_ref();
    let interface = underlay.and_then(|underlay| IfName::new(&underlay.interface).ok());
    Ok(Observed {
        state,
        handles,
        offload: interface.map(|name| offload::observe(&name)),
    })
}

/// Whether this machine, which holds this, is the node that has its addresses, or these others; else why not, in words.
pub fn is_here(
    snapshot: &Snapshot,
    node: &str,
    state: &State,
    others: &[IpAddr],
) -> Result<(), String> {
    let addresses = snapshot.nodes.get(node).map(|node| &node.addresses);
    let addresses = addresses.map(Vec::as_slice).unwrap_or_default();
    // An interface that is down has its addresses still.
    let here = |address: &_| {
        let mut held = state.addresses.keys();
        held.any(|(_, net)| net.addr() == *address)
    };
    if !NodeFacts::of(state, addresses).is_empty() || addresses.iter().chain(others).any(here) {
        return Ok(());
    }
    let list: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    Err(format!(
        "this machine is not {node}: no interface here has {}. Run it on that node",
        list.join(" or ")
    ))
}

fn print(status: &NodeStatus, output: Output) -> Result<(), Failure> {
    match output {
        Output::Json => say!(
            "{}",
            serde_json::to_string_pretty(status).map_err(Failure::failed)?
        ),
        Output::Text => table::print(status),
    }
    Ok(())
}

/// The token buckets of this kernel.
fn with_buckets(mut allocations: Vec<Allocation>, notes: &mut Vec<String>) -> Vec<Allocation> {
    let mut read = || -> Result<(), parfait_kernel::Error> {
        let mut socket = Socket::open()?;
        for allocation in &mut allocations {
            if let Ok(link) = IfName::new(&allocation.interface) {
                allocation.found = socket.tbf(&link)?;
            }
        }
        Ok(())
    };
    if let Err(error) = read() {
        notes.push(format!("token buckets were not looked at: {error}"));
    }
    allocations
}

/// What the CNI plugin gave to pods. A file that cannot be read is no reason to show nothing.
fn allocations(folder: &Path, notes: &mut Vec<String>) -> Vec<Allocation> {
    let records = match parfait_cni::ipam::read_all(folder) {
        Ok((records, damaged)) => {
            let told = |error| format!("an allocation cannot be read: {error}");
            notes.extend(damaged.into_iter().map(told));
            records
        }
        Err(error) => {
            notes.push(format!("the allocations cannot be read: {error}"));
            return Vec::new();
        }
    };
    let allocation = |record: parfait_cni::Record| Allocation {
        purpose: match &record.pod {
            Some(pod) => format!("{}/{}", pod.namespace, pod.name),
            None => record.id.to_string(),
        },
        interface: record.interface.to_string(),
        addresses: record.addresses,
        held: Held::Unknown,
        bucket: parfait_cni::bandwidth::ingress(record.bandwidth),
        found: None,
        origin: None,
    };
    records.into_iter().map(allocation).collect()
}
