//! The programs that stand in for container images in the lab.
//!
//! The lab pulls no images: its pods are namespaces with processes, and this crate supplies the
//! processes. [`resolve`] reads what a container declares (image, command, args, ports) and says what
//! to start instead; [`main`] is the code that then runs, in the pod, as `parfait image NAME …`.
//!
//! ```text
//!   image: nginx:1.27              →  parfait image stand-in --page … --port tcp/80=http
//!   image: busybox  command: [sh]  →  sh                       (a program of this machine)
//!   image: team/shop:v3  ports: …  →  parfait image stand-in --port tcp/8080=http …
//! ```
//!
//! | program | stands in for |
//! |---|---|
//! | `stand-in` | any server: HTTP/1.1, h2c, gRPC health, Redis commands, TCP and UDP echo, all on one port |
//! | `go-web` | the field's running example: a web application that pings its PostgreSQL |
//! | `postgres` | a PostgreSQL server that logs clients in and answers `SELECT 1`, and stores nothing |
//! | `idle` | `pause`, and a toolbox without a command: waits for the signal to end |
//! | `grpc_health_probe` | the probe of that name, for exec probes |
//! | `wget`, `nc` | those of busybox, on a machine that has none |
//!
//! What it promises: a program started here answers on every port it was given or ends with an error
//! that names the port; no client can hang or kill it; SIGTERM ends it within about a second with 0.
//! What it leaves out: the images' own behaviour (configuration files, storage, TLS). A manifest that
//! needs the real thing gives a `command` that is a program of this machine.

mod applets;
mod body;
mod catalogue;
mod conn;
mod console;
mod echo;
mod go_web;
mod grpc;
mod http;
mod identity;
mod idle;
mod listen;
mod options;
pub mod postgres;
mod redis;
mod serve;
mod sniff;
mod stand_in;

pub use catalogue::{Port, Protocol, Resolved, image_name, resolve};

use std::process::ExitCode;

/// The exit code of a program whose arguments make no sense.
pub(crate) const USAGE: u8 = 2;

/// Runs the built-in program `argv[0]` with the arguments after it: `parfait image NAME args…`.
pub fn main(argv: Vec<String>) -> ExitCode {
    let mut rest = argv.into_iter();
    let name = rest.next().unwrap_or_default();
    let args: Vec<String> = rest.collect();
    match name.as_str() {
        "stand-in" => stand_in::main(args),
        "go-web" => go_web::main(args),
        "postgres" => postgres::server::main(args),
        "idle" => idle::main(args),
        name if applet(name).is_some() => applet(name).map_or(ExitCode::FAILURE, |run| run(args)),
        _ => {
            eprintln!(
                "parfait image: there is no built-in program {name:?}; \
                 it is one of stand-in, go-web, postgres, idle, grpc_health_probe, wget, nc"
            );
            ExitCode::from(USAGE)
        }
    }
}

/// A program of its own right: takes the arguments after its name.
pub type Applet = fn(Vec<String>) -> ExitCode;

/// The programs that containers should find under their own names: always the gRPC health probe,
/// the others only where this machine lacks them.
pub fn missing_applets() -> Vec<&'static str> {
    let fallbacks = ["wget", "nc"].into_iter();
    let missing = fallbacks.filter(|name| !catalogue::machine_has(name));
    ["grpc_health_probe"].into_iter().chain(missing).collect()
}

/// The program that runs when the binary is called by another name, as in an exec probe whose command
/// is `/bin/grpc_health_probe`. `argv0` may be a path.
pub fn applet(argv0: &str) -> Option<Applet> {
    match argv0.rsplit('/').next() {
        Some("grpc_health_probe" | "grpc-health-probe") => Some(applets::grpc_health_probe::main),
        Some("wget") => Some(applets::wget::main),
        Some("nc" | "netcat") => Some(applets::nc::main),
        _ => None,
    }
}
