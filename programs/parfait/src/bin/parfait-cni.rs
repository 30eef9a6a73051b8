//! `parfait-cni`: the CNI plugin and nothing else.
//!
//! The program `parfait` can do the same. This one exists because a container runtime starts a process for every pod:
//! without what the agent and the lab need, a process starts in half the time (see the figures in `programs/cni`). The
//! agent installs it, if it lies beside `parfait`.

use std::process::ExitCode;

fn main() -> ExitCode {
    parfait_cni::process()
}
