//! The CNI plugin: attaches pods to their node's network (Container Network Interface specification
//! 1.1.0). A container runtime starts it for every pod, with the request in `CNI_*` variables and the
//! network configuration on the standard input, and reads a JSON object from the standard output.
//!
//! ```text
//!   runtime ──exec──▶ ADD ─▶ IPAM gives addresses ─▶ veth pair, routes, neighbours ─▶ agent ─▶ result
//!                     DEL ─▶ the veth pair goes ─▶ IPAM takes the addresses back
//! ```
//!
//! It needs no daemon: it does the work itself, so pods start and stop while the agent restarts. All
//! it wants of the agent is `node.json` ([`NodeConfig`]), and a word when the agent knows the pod, if it is
//! there to give it ([`doorbell`]). DEL succeeds however often it is sent and whatever is gone already.
//!
//! The README of this folder is the user's page. Deliberately absent: delegating to IPAM plugins, `ipRanges`
//! and interfaces of other kinds than veth.

mod asked;
mod attach;
pub mod bandwidth;
mod config;
pub mod doorbell;
mod error;
mod file;
pub mod ipam;
mod isolation;
mod node;
mod plugin;
pub mod record;
mod request;
mod result;

use std::io::{Read, Write};
use std::process::ExitCode;

use crate::plugin::Plugin;

pub use asked::{Asked, CAPABILITIES, IPS_ANNOTATION};
pub use config::{AttachmentId, Environment, NetworkConfig, VERSIONS};
pub use error::{Code, Error};
pub use file::{Hook, Moment};
pub use node::NodeConfig;
pub use record::{Bandwidth, PodName, PortMapping, Record};

/// Which build this is: the version, and a number that every change of the plugin's sources changes. The agent installs a
/// `parfait-cni` only if it is of its own build, as they share files.
pub const BUILD: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (",
    env!("PARFAIT_CNI_SOURCES"),
    ")"
);

/// Runs the plugin as this process was called: what a program does that is called as a CNI plugin.
#[must_use]
pub fn process() -> ExitCode {
    let environment = |name: &str| std::env::var(name).ok();
    main(&environment, &mut std::io::stdin(), &mut std::io::stdout())
}

/// Runs the plugin.
pub fn main(
    environment: Environment<'_>,
    stdin: &mut dyn Read,
    stdout: &mut dyn Write,
) -> ExitCode {
    let (text, code) = match run(environment, stdin) {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err((error, version)) => (error.json(&version), ExitCode::FAILURE),
    };
    if text.is_empty() {
        return code;
    }
    // In one piece, as a runtime may read no more than one.
    match stdout.write_all(format!("{text}\n").as_bytes()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Configurations are some hundred bytes, and a prevResult with valid attachments some more each.
const LARGEST_CONFIG: u64 = 4 << 20;

/// Runs the plugin; an error goes with the version of the specification to report it in.
///
/// # Errors
/// What the runtime is told.
pub fn run(environment: Environment<'_>, stdin: &mut dyn Read) -> Result<String, (Error, String)> {
    let newest = VERSIONS[VERSIONS.len() - 1];
    let early = |error: Error| (error, newest.to_owned());
    let mut input = String::new();
    let command = environment("CNI_COMMAND").unwrap_or_default();
    if command.is_empty() {
        // Somebody tries it in a terminal, where nothing would ever come on the standard input.
        let message =
            "CNI_COMMAND is missing: this is a CNI plugin, for a container runtime to call";
        return Err(early(Error::new(Code::InvalidEnvironment, message).advise(
            format!(
                "It speaks the versions {} of the specification; see programs/cni/README.md.",
                VERSIONS.join(", ")
            ),
        )));
    }
    let read = stdin.take(LARGEST_CONFIG).read_to_string(&mut input);
    read.map_err(|error| {
        let message = format!("reading the network configuration: {error}");
        early(Error::new(Code::Io, message))
    })?;
    if command == "VERSION" {
        return Ok(result::versions(&input));
    }
    let config = NetworkConfig::parse(&input).map_err(early)?;
    let plugin = Plugin {
        config: &config,
        environment,
    };
    plugin
        .command(&command)
        .map_err(|error| (error, config.version.to_owned()))
}
