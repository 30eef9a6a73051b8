//! `parfait lab exec`: a program of this host in the network of a node or a pod.
//!
//! Runs before any thread is started, as joining a user namespace demands it.

use std::path::Path;

use parfait_lab_fabric::{StateRoot, Target};

use super::check;
use crate::args::Exec;
use crate::exit::Failure;

/// The subcommand: the program's exit code.
pub fn exec(root: &StateRoot, args: &Exec) -> Result<u8, Failure> {
    Ok(parfait_lab_fabric::exec(
        root,
        &args.which.name,
        &args.target,
        &args.command,
    )?)
}

/// `lab-connect STATE NAME TARGET`: connects from a target's network on behalf of `lab check`.
pub fn connect(arguments: &[String]) -> Result<u8, Failure> {
    let [state, name, target] = arguments else {
        return Err(Failure::usage(
            "lab-connect STATE NAME TARGET (started by `parfait lab check`)",
        ));
    };
    let root = StateRoot::locate(Some(Path::new(state)), None);
    let name = name.parse().map_err(Failure::usage)?;
    let target: Target = target.parse().map_err(Failure::usage)?;
    Ok(parfait_lab_fabric::run_in(
        &root,
        &name,
        &target,
        check::serve,
    )?)
}
