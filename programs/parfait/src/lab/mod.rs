//! `parfait lab …`: the one-machine cluster from the command line.
//!
//! Each subcommand is a file. Nothing here knows how machines are made (`lab/fabric`) or what an
//! API object means to the network (`layers/`).

pub mod api;
pub mod apply;
mod bird;
pub mod bootstrap;
pub mod check;
mod columns;
mod down;
mod exec;
mod kubeconfig;
mod list;
pub mod manifest;
mod progress;
mod rollout;
mod routes;
mod status;
mod supervise;
mod up;

use parfait_lab_fabric::StateRoot;

use crate::args::Lab;
use crate::exit::Failure;

pub use columns::Columns;
pub use exec::{connect, exec};
pub use supervise::supervise;

/// Runs a subcommand; its exit code. `exec` is not among them, as it must not have a runtime.
pub async fn run(root: &StateRoot, command: Lab) -> Result<u8, Failure> {
    match command {
        Lab::Up(args) => up::run(root, &args).await,
        Lab::Status(args) => status::run(root, &args).await,
        Lab::Down(args) => down::run(root, &args),
        Lab::Kubeconfig(args) => kubeconfig::run(root, &args),
        Lab::List(args) => list::run(root, &args),
        Lab::Exec(args) => exec(root, &args),
        Lab::Check(args) => check::run(root, &args).await,
    }
}
