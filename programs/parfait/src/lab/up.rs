//! `parfait lab up`: from nothing to applications that answer.
//!
//! ```text
//!   read manifests ─▶ start the lab ─▶ apply ─▶ wait ─▶ check ─▶ what to try next
//!        │ faults: exit 2,    │ Ctrl-C: down     └───── Ctrl-C: the lab keeps running
//!        │ nothing started
//! ```

use std::io::IsTerminal;
use std::process::Command;
use std::time::{Duration, Instant};

use kube::Client;
use parfait_lab_fabric::{
    Condition, Event, IpFamily, LabName, LabSpec, Routing, Starting, StateRoot, Underlay, down,
    start, sweep,
};

use super::api::{self, Running, short_name};
use super::manifest::{self, Fault, Manifest};
use super::progress::Progress;
use super::{apply, bird, check, rollout, status};
use crate::args::Up;
use crate::exit::{DONE, FAILED, Failure, USAGE};
use crate::output::{counted, say};

const MTU: u32 = 1500;

pub async fn run(root: &StateRoot, args: &Up) -> Result<u8, Failure> {
    let manifests = match manifest::read(&args.filename) {
        Ok(manifests) => manifests,
        Err(faults) => return Ok(complain(&faults)),
    };
    let name = &args.which.name;
    let mut progress = Progress::new();
    match root.lab(name).observe()? {
        Condition::Running(record) => {
            may_join(args, &record.spec)?;
            progress.done(&format!(
                "lab {name} is running: {}, {}, routing {}",
                nodes(&record.spec),
                record.spec.ip_family,
                record.spec.routing
            ));
        }
        _ => bring_up(root, args, &progress).await?,
    }
    let finish = finish(root, args, &manifests, &mut progress);
    tokio::select! {
        code = finish => code,
        _ = tokio::signal::ctrl_c() => {
            eprintln!("\ninterrupted: lab {name} keeps running; `{}` ends it", down_command(name));
            Ok(FAILED)
        }
    }
}

/// Faults in manifests, all of them.
fn complain(faults: &[Fault]) -> u8 {
    for fault in faults {
        eprintln!("parfait: {fault}");
    }
    USAGE
}

/// A running lab takes more manifests, but no other shape.
fn may_join(args: &Up, spec: &LabSpec) -> Result<(), Failure> {
    let name = &args.which.name;
    let differs = |what: &str, asked: Option<String>, is: String| {
        asked
            .filter(|asked| *asked != is)
            .map(|asked| format!("it has {what} {is}, not {asked}"))
    };
    let differences: Vec<_> = [
        differs(
            "nodes:",
            args.nodes.map(|n| n.to_string()),
            spec.nodes.to_string(),
        ),
        differs(
            "IP family",
            args.ip_family.map(|f| f.to_string()),
            spec.ip_family.to_string(),
        ),
        differs(
            "routing",
            args.routing.map(|r| r.to_string()),
            spec.routing.to_string(),
        ),
        differs(
            "underlay",
            args.underlay.map(|u| u.to_string()),
            spec.underlay.to_string(),
        ),
        differs("MTU", args.mtu.map(|m| m.to_string()), spec.mtu.to_string()),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !differences.is_empty() {
        let why = differences.join(", ");
        return Err(Failure::usage(format!(
            "lab {name} is already running, and {why}\n  do:  `{}` first, or choose another name with --name",
            down_command(name)
        )));
    }
    if args.filename.is_empty() {
        return Err(Failure::usage(format!(
            "lab {name} is already running\n  do:  apply more with `-f FILE`, end it with `{}`, or choose another name with --name",
            down_command(name)
        )));
    }
    Ok(())
}

/// What was asked for, where it can be.
fn spec(args: &Up) -> Result<LabSpec, Failure> {
    let underlay = args.underlay.unwrap_or_default();
    let routing = args.routing.unwrap_or(underlay.usual_routing());
    if routing == Routing::Bgp && underlay != Underlay::Bgp {
        return Err(Failure::usage(format!(
            "--routing bgp needs routing daemons, and --underlay {underlay} has none\n  do:  `--underlay bgp`"
        )));
    }
    if underlay == Underlay::Bgp {
        bird::program()?;
    }
    Ok(LabSpec {
        name: args.which.name.clone(),
        nodes: args.nodes.unwrap_or(3),
        ip_family: args.ip_family.unwrap_or(IpFamily::Dual),
        routing,
        underlay,
        mtu: args.mtu.unwrap_or(MTU),
    })
}

fn nodes(spec: &LabSpec) -> String {
    counted(spec.nodes.into(), "node", "nodes")
}

async fn bring_up(root: &StateRoot, args: &Up, progress: &Progress) -> Result<(), Failure> {
    let began = Instant::now();
    for dead in sweep(root)? {
        progress.note(&format!("lab {dead} had died; what it left is removed"));
    }
    let spec = spec(args)?;
    progress.line(format!("lab {}: making {}", spec.name, nodes(&spec)));
    let mut supervisor = Command::new("/proc/self/exe");
    supervisor.arg("lab-supervise");
    let starting = start(root, &spec, supervisor)?;
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let reader = tokio::task::spawn_blocking(move || read_events(starting, &tell));
    let shown = async {
        while let Some(event) = told.recv().await {
            match event {
                Event::Step { what } => progress.done(&what),
                Event::Warning { what } => progress.note(&format!("warning: {what}")),
                Event::Failed { .. } | Event::Ready { .. } => {}
            }
        }
        reader
            .await
            .map_err(Failure::failed)?
            .map_err(Failure::from)
    };
    tokio::select! {
        result = shown => result?,
        _ = tokio::signal::ctrl_c() => {
            progress.clear();
            down(root, &spec.name, Duration::from_secs(1))?;
            return Err(Failure::failed(format!("interrupted: lab {} was not ready and is taken down again", spec.name)));
        }
    }
    progress.done(&format!(
        "lab {}: {} ready in {:.1} s ({}, routing {})",
        spec.name,
        nodes(&spec),
        began.elapsed().as_secs_f64(),
        spec.ip_family,
        spec.routing
    ));
    Ok(())
}

fn read_events(
    mut starting: Starting,
    tell: &tokio::sync::mpsc::UnboundedSender<Event>,
) -> Result<(), parfait_lab_fabric::Error> {
    while let Some(event) = starting.next_event()? {
        // Whoever listened was interrupted: nothing to tell any more.
        let _ = tell.send(event);
    }
    Ok(())
}

async fn finish(
    root: &StateRoot,
    args: &Up,
    manifests: &[Manifest],
    progress: &mut Progress,
) -> Result<u8, Failure> {
    let lab = api::running(root, &args.which.name)?;
    let client = lab.client().await?;
    let faults = apply::apply(&client, manifests, |manifest, outcome| {
        let name = short_name(
            &manifest.name,
            manifest.namespace.as_deref().unwrap_or("default"),
        );
        progress.line(format!(
            "{}/{name} {}",
            manifest.kind.to_lowercase(),
            format!("{outcome:?}").to_lowercase()
        ));
    })
    .await?;
    if !faults.is_empty() {
        progress.clear();
        let code = complain(&faults);
        eprintln!(
            "the other objects are applied, and lab {} keeps running; `{}` ends it",
            args.which.name,
            down_command(&args.which.name)
        );
        return Ok(code);
    }
    if !manifests.is_empty() {
        let objects = counted(manifests.len(), "object", "objects");
        progress.done(&format!("{objects} applied"));
    }
    if !available(&client, args.wait, progress).await? {
        return Ok(FAILED);
    }
    let mut code = DONE;
    if !args.no_check {
        progress.line("checking every connection".to_owned());
        let report = check::check(root, &lab, &client, None, Duration::from_secs(3)).await?;
        progress.done(&report.summary());
        if !report.passed() {
            progress.clear();
            say!("{}", report.table());
            check::explain_first(&lab, &report).await;
            code = FAILED;
        }
    }
    progress.clear();
    next_steps(root, &lab, &client, &args.which.name).await?;
    Ok(code)
}

/// Waits for the workloads; false, and why, when they are not available in time.
async fn available(
    client: &Client,
    patience: Duration,
    progress: &mut Progress,
) -> Result<bool, Failure> {
    let began = Instant::now();
    let last = rollout::wait(client, patience, |look| {
        let waiting: Vec<_> = look.iter().filter(|p| !p.done()).collect();
        for one in &waiting {
            let why = one
                .reason
                .as_deref()
                .map(|r| format!(": {r}"))
                .unwrap_or_default();
            progress.waiting(
                &one.name,
                &format!("{}/{}{why}", one.available, one.desired),
            );
        }
        if let Some(first) = waiting.first() {
            let why = first.reason.as_deref().unwrap_or("starting");
            progress.line(format!(
                "{} of {} available; {} {}/{}: {why}",
                look.len() - waiting.len(),
                look.len(),
                first.name,
                first.available,
                first.desired
            ));
        }
    })
    .await?;
    let late: Vec<_> = last.iter().filter(|p| !p.done()).collect();
    if late.is_empty() {
        if !last.is_empty() {
            progress.done(&format!(
                "{} available after {:.1} s",
                counted(last.len(), "workload", "workloads"),
                began.elapsed().as_secs_f64()
            ));
        }
        return Ok(true);
    }
    progress.clear();
    eprintln!(
        "parfait: not available after {} s:",
        began.elapsed().as_secs()
    );
    for one in late {
        eprintln!(
            "  {} {}/{}: {}",
            one.name,
            one.available,
            one.desired,
            one.reason
                .as_deref()
                .unwrap_or("nothing is known about why")
        );
    }
    eprintln!(
        "  do:  `kubectl describe` says more; apply the corrected file again, or wait longer with --wait"
    );
    Ok(false)
}

/// What a newcomer may type next, with names that exist.
async fn next_steps(
    root: &StateRoot,
    lab: &Running,
    client: &Client,
    name: &LabName,
) -> Result<(), Failure> {
    let which = if *name == LabName::default() {
        String::new()
    } else {
        format!(" --name {name}")
    };
    say!();
    status::print(lab, client).await?;
    say!("\nIt runs on in the background. What to try next:\n");
    if std::env::var_os("PARFAIT_STATE_DIR").is_none() && !root.is_usual() {
        say!("  export PARFAIT_STATE_DIR={}", root.base().display());
    }
    say!("  export KUBECONFIG={}", lab.dir.kubeconfig().display());
    say!("  kubectl get pods -A -o wide");
    match check::example(client).await? {
        Some((pod, host, port)) => {
            say!("  parfait explain{which} pod/{pod} {host}:{port}");
            say!("  parfait lab exec{which} pod/{pod} -- curl -s http://{host}:{port}/");
            say!("  parfait lab check{which}");
        }
        None => {
            say!("  parfait lab up{which} -f FILE            # your own manifests");
            say!("  parfait lab exec{which} node/1 -- ip route");
        }
    }
    say!("  parfait lab status{which}");
    say!("  {}", down_command(name));
    if std::io::stdout().is_terminal() {
        say!();
    }
    Ok(())
}

fn down_command(name: &LabName) -> String {
    if *name == LabName::default() {
        "parfait lab down".to_owned()
    } else {
        format!("parfait lab down --name {name}")
    }
}
