//! `parfait`: the one binary. Every subcommand is dispatched here and lives in a crate of its own.
//!
//! Who calls decides what it is: a container runtime (`CNI_COMMAND` in the environment) gets the CNI
//! plugin, a probe that calls `grpc_health_probe` gets that, the lab calls its hidden subcommands,
//! people get the command line. What changes namespaces runs here before any thread exists.

mod args;
mod exit;
mod explain;
mod hidden;
mod lab;
mod log;
mod manifest;
mod memory;
mod node;
mod output;
mod policy;

use std::process::ExitCode;

use clap::Parser;
use parfait_lab_fabric::StateRoot;

use args::{Args, Command, Lab, Node};
use exit::Failure;

fn main() -> ExitCode {
    if let Some(code) = hidden::dispatch() {
        return code;
    }
    let args = Args::parse();
    let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").map(std::path::PathBuf::from);
    let root = StateRoot::locate(args.state_dir.as_deref(), runtime_dir.as_deref());
    let done = match args.command {
        Command::Cni => return parfait_cni::process(),
        // Before there is a second thread.
        Command::Lab(Lab::Exec(args)) => lab::exec(&root, &args),
        Command::Node(Node::Status(args)) => node::run(&root, &args),
        Command::Lab(command) => run(lab::run(&root, command)),
        Command::Explain(args) => run(explain::run(&root, &args)),
        Command::Policy(command) => run(policy::run(&root, command)),
        Command::Manifest(args) => manifest::run(&args),
        Command::Agent(args) => run(agent(args)),
    };
    done.map_or_else(|failure| failure.report(), ExitCode::from)
}

fn run(work: impl Future<Output = Result<u8, Failure>>) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.map_err(Failure::failed)?.block_on(work)
}

async fn agent(args: args::Agent) -> Result<u8, Failure> {
    log::to(std::io::stderr);
    let options = parfait_agent::Options {
        kubeconfig: args.kubeconfig,
        state_dir: args.agent_state_dir,
        cni_conf_dir: args.cni_conf_dir,
        cni_bin_dir: args.cni_bin_dir,
        metrics: args.metrics_bind_address.0,
        healthz: args.healthz_bind_address.0,
        take_over: args
            .take_over
            .map(|args::Predecessor::KubeProxy| parfait_agent::Predecessor::KubeProxy),
        ..parfait_agent::Options::new(&args.node_name)
    };
    parfait_agent::run(options).await.map_err(Failure::failed)?;
    Ok(exit::DONE)
}
