//! A lab without a cluster in it: only the switch and the nodes. It exists for the fabric's tests
//! and for looking at the machines alone; people use `parfait lab`.
//!
//! `bare-lab up STATE NAME NODES FAMILY [UNDERLAY]`, `bare-lab down STATE NAME`, `bare-lab list STATE`,
//! `bare-lab exec STATE NAME TARGET CMD…`

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use parfait_lab_fabric::{
    Condition, Event, Inside, LabSpec, Routing, StateRoot, down, exec, start, supervise, sweep,
};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let text: Vec<&str> = arguments.iter().filter_map(|a| a.to_str()).collect();
    let done = match text.as_slice() {
        ["supervise", lab] => return supervise(Path::new(lab), stay),
        ["up", state, name, nodes, family] => bring_up(state, name, nodes, family, "flat"),
        ["up", state, name, nodes, family, underlay] => {
            bring_up(state, name, nodes, family, underlay)
        }
        ["down", state, name] => parse(name).and_then(|name| {
            let ended =
                down(&root(state), &name, Duration::from_secs(3)).map_err(|e| e.to_string())?;
            println!("{ended:?}");
            Ok(0)
        }),
        ["list", state] => list(state),
        ["exec", state, name, target, ..] => parse(name).and_then(|name| {
            exec(&root(state), &name, &parse(target)?, &arguments[4..]).map_err(|e| e.to_string())
        }),
        _ => Err("usage: bare-lab up|down|list|exec STATE …".to_owned()),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(message) => {
            eprintln!("bare-lab: {message}");
            ExitCode::from(2)
        }
    }
}

fn root(state: &str) -> StateRoot {
    StateRoot::locate(Some(Path::new(state)), None)
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|e: T::Err| e.to_string())
}

fn bring_up(
    state: &str,
    name: &str,
    nodes: &str,
    family: &str,
    underlay: &str,
) -> Result<u8, String> {
    let spec = LabSpec {
        name: parse(name)?,
        nodes: parse(nodes)?,
        ip_family: parse(family)?,
        routing: Routing::Auto,
        underlay: parse(underlay)?,
        mtu: 1500,
    };
    let mut supervisor = Command::new("/proc/self/exe");
    supervisor.arg("supervise");
    let mut starting = start(&root(state), &spec, supervisor).map_err(|e| e.to_string())?;
    while let Some(event) = starting.next_event().map_err(|e| e.to_string())? {
        if let Event::Step { what } | Event::Warning { what } = event {
            println!("{what}");
        }
    }
    Ok(0)
}

fn list(state: &str) -> Result<u8, String> {
    let root = root(state);
    for name in sweep(&root).map_err(|e| e.to_string())? {
        println!("{name} removed");
    }
    for name in root.names().map_err(|e| e.to_string())? {
        if let Ok(Condition::Running(record)) = root.lab(&name).observe() {
            println!("{name} {} {}", record.init.pid, record.pid_namespace);
        }
    }
    Ok(0)
}

/// The supervisor of a bare lab: it waits for SIGTERM, whose default action ends it.
fn stay(mut inside: Inside) -> Result<(), String> {
    inside.ready().map_err(|e| e.to_string())?;
    loop {
        std::thread::park();
    }
}
