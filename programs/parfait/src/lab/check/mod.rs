//! `parfait lab check`: every connection that the cluster's objects name, made for real.
//!
//! ```text
//!   API ──▶ plan ──▶ one process for each sender, inside its network ──▶ report
//!                    (this program again: `connect`)
//! ```

mod connect;
mod env;
mod plan;
mod report;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use futures::StreamExt;
use kube::Client;
use parfait_lab_fabric::{LabName, StateRoot, Target};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::api::{self, Running, all};
use crate::args;
use crate::exit::{DONE, FAILED, Failure};
use crate::output::say;
use connect::{Batch, Outcome, Request, Verdict};
use plan::{Attempt, Cluster};
pub use report::Report;

/// How many senders work at a time.
const SENDERS: usize = 16;

/// The subcommand.
pub async fn run(root: &StateRoot, args: &args::Check) -> Result<u8, Failure> {
    let lab = api::running(root, &args.which.name)?;
    let client = lab.client().await?;
    let report = check(root, &lab, &client, args.namespace.as_deref(), args.timeout).await?;
    report.print(args.output);
    if report.passed() {
        return Ok(DONE);
    }
    if args.output == args::Output::Text {
        explain_first(&lab, &report).await;
    }
    Ok(FAILED)
}

/// Checks everything and answers what came of it.
pub async fn check(
    root: &StateRoot,
    lab: &Running,
    client: &Client,
    namespace: Option<&str>,
    timeout: Duration,
) -> Result<Report, Failure> {
    let cluster = cluster(client).await?;
    let attempts = plan::plan(&cluster, namespace);
    // Pods come before nodes, as they do in the plan.
    let mut senders: BTreeMap<(bool, String), (Target, Vec<Attempt>)> = BTreeMap::new();
    for attempt in attempts {
        let node = matches!(attempt.from, Target::Node(_));
        let sender = senders
            .entry((node, attempt.from.to_string()))
            .or_insert_with(|| (attempt.from.clone(), Vec::new()));
        sender.1.push(attempt);
    }
    let name = lab.dir.name();
    let work = senders.into_values().map(|(from, attempts)| async move {
        let outcomes = send(root, name, &from, &attempts, timeout).await;
        (attempts, outcomes)
    });
    let done: Vec<_> = futures::stream::iter(work)
        .buffered(SENDERS)
        .collect()
        .await;
    Ok(Report::new(
        done,
        plan::without_endpoints(&cluster, namespace),
    ))
}

/// Explains the first failure below its table.
pub async fn explain_first(lab: &Running, report: &Report) {
    let Some(failure) = report.first_failure() else {
        return;
    };
    let question = crate::explain::Question {
        from: failure.from.clone(),
        to: failure.host.clone(),
        port: failure.port,
        udp: failure.udp,
    };
    say!("\nThe first failure, explained:\n");
    match crate::explain::of_running(lab, &question).await {
        Ok((text, delivered)) => {
            say!("{}", text.trim_end());
            if delivered {
                say!("\n{}", beyond_the_plan(&failure.detail));
            }
        }
        Err(error) => say!("  it cannot be explained: {error}"),
    }
}

/// What to think when a packet that should be delivered was not.
fn beyond_the_plan(detail: &str) -> &'static str {
    match detail {
        "refused" | "reset" => {
            "The network delivers it, and the receiver itself refuses: nothing listens on that port there.\n  do:  compare the Service's targetPort with what the program listens on: `parfait lab exec pod/POD -- ss -ltn`"
        }
        _ => {
            "By the plan it is delivered, so that the kernel differs from the plan, or the receiver is stuck.\n  do:  look into the logs of the agents (`parfait lab status` says where), and try again in a moment"
        }
    }
}

/// Names for an example of what to try: a pod, and a host and port it talks to.
pub async fn example(client: &Client) -> Result<Option<(String, String, u16)>, Failure> {
    Ok(plan::example(&cluster(client).await?))
}

/// What the hidden subcommand does inside of a sender's network.
pub fn serve() -> u8 {
    connect::serve()
}

async fn cluster(client: &Client) -> Result<Cluster, Failure> {
    Ok(Cluster {
        nodes: all(client).await?,
        pods: all(client).await?,
        services: all(client).await?,
        slices: all(client).await?,
        config_maps: all(client).await?,
    })
}

/// Runs a sender's attempts in its network. What keeps all of them from being tried is the outcome
/// of each.
async fn send(
    root: &StateRoot,
    name: &LabName,
    from: &Target,
    attempts: &[Attempt],
    timeout: Duration,
) -> Vec<Outcome> {
    let requests = attempts
        .iter()
        .map(|a| Request {
            host: a.host.clone(),
            port: a.port,
            transport: a.transport,
        })
        .collect();
    let batch = Batch {
        requests,
        timeout_millis: timeout.as_millis() as u64,
    };
    match talk(root.base(), name, from, &batch).await {
        Ok(outcomes) => outcomes,
        Err(why) => (0..attempts.len())
            .map(|request| Outcome {
                request,
                address: None,
                verdict: Verdict::Failed(why.clone()),
                micros: 0,
            })
            .collect(),
    }
}

async fn talk(
    state: &Path,
    name: &LabName,
    from: &Target,
    batch: &Batch,
) -> Result<Vec<Outcome>, String> {
    let text = |e: std::io::Error| e.to_string();
    let mut child = Command::new("/proc/self/exe")
        .arg("lab-connect")
        .arg(state)
        .arg(name.as_str())
        .arg(from.to_string())
        // A DNS that does not answer is known after seconds, not after the half minute of the default.
        .env("RES_OPTIONS", "timeout:2 attempts:1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(text)?;
    let question = serde_json::to_vec(batch).map_err(|e| e.to_string())?;
    if let Some(mut stdin) = child.stdin.take() {
        // A child that died says why on its standard error.
        let _ = stdin.write_all(&question).await;
    }
    let output = child.wait_with_output().await.map_err(text)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(said.trim().trim_start_matches("parfait: ").to_owned());
    }
    serde_json::from_slice(&output.stdout).map_err(|e| e.to_string())
}
