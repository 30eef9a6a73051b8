//! `parfait-cni`: the CNI plugin and nothing else.
//!
//! The program `parfait` can do the same. This one exists because a container runtime starts a process for every pod:
//! without what the agent and the lab need, a process starts in half the time (see the figures in `programs/cni`). The
//! agent installs it, if it lies beside `parfait` and is of the same build, which it asks for with `--version`.

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args()
        .nth(1)
        .is_some_and(|word| word == "--version")
    {
        println!("parfait-cni {}", parfait_cni::BUILD);
        return ExitCode::SUCCESS;
    }
    parfait_cni::process()
}
