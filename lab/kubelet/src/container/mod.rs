//! The container: one program in namespaces of its own, which cannot harm the machine it runs on.
//!
//! `parfait lab-container` is what the kubelet starts for every container and every exec probe. It reads
//! one [`Request`] as a line of JSON from its standard input, and answers with [`Report`] lines on its
//! standard output. The input stays open as the kubelet's hand on the container: each further byte is a signal
//! to deliver, and end of file, which also comes when the kubelet dies, kills it.
//!
//! ```text
//!   kubelet ── stdin: request, signals ──▶ monitor (this program) ── fork ──▶ PID 1 of the container
//!           ◀─ stdout: started, exited ──    writes N.log  ◀── its stdout, stderr
//! ```
//!
//! What stands between the program and the machine, from the outside in:
//!
//! - its own PID, mount, IPC, UTS and cgroup namespaces, and the pod's network namespace (`init`);
//! - a root made of the host's directories under overlays, whose changes stay in memory (`rootfs`);
//! - its own `/proc`, with the machine's switches read-only, and a `/dev` without devices (`pseudo`);
//! - no capabilities but a few harmless ones, no way to gain any, limits (`privileges`);
//! - no system calls that mount, trace the kernel, load code into it or make namespaces (`seccomp`);
//! - limits on processes and memory: cgroups where they can be used ([`cgroup`]), and a small
//!   `kernel.pid_max` of its PID namespace everywhere.
//!
//! What it leaves out: a user namespace per container (root in a container of a lab run by root is the host's
//! user 0, without its powers), disk quotas (there is no disk: everything written is in size-limited tmpfs), CPU
//! limits. It follows the OCI runtime specification where that says something, and runc's and Docker's
//! choices of what to mask and to forbid.

pub mod cgroup;
mod exec;
mod init;
mod log;
mod monitor;
mod mounts;
pub(crate) mod path;
mod private;
mod privileges;
mod pseudo;
mod rootfs;
mod seccomp;
pub mod spec;

pub use privileges::{allowed_capabilities, mapped};
pub use spec::{Bind, ExecSpec, Identity, Limits, LogSpec, Report, Request, RootSpec, RunSpec};

use std::process::ExitCode;

/// A step of starting a container that failed.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub struct StepError {
    /// What was tried, with its object: `mount overlay on /usr`.
    pub step: String,
    #[source]
    pub source: std::io::Error,
}

impl StepError {
    /// For `map_err`: names the step that a system call belongs to.
    pub(crate) fn at<E: Into<std::io::Error>>(step: impl Into<String>) -> impl FnOnce(E) -> Self {
        let step = step.into();
        move |source| StepError {
            step,
            source: source.into(),
        }
    }

    pub(crate) fn new(step: impl Into<String>, message: impl Into<String>) -> Self {
        StepError {
            step: step.into(),
            source: std::io::Error::other(message.into()),
        }
    }
}

/// Binds one file over another, in the caller's mount namespace.
pub(crate) fn bind_file(
    source: &std::path::Path,
    target: &std::path::Path,
) -> Result<(), StepError> {
    mounts::bind(source, target)
}

/// A tmpfs of `bytes` at `target`, in the caller's mount namespace.
pub(crate) fn make_tmpfs(target: &std::path::Path, bytes: u64, mode: u32) -> Result<(), StepError> {
    mounts::tmpfs(target, bytes, mode)
}

/// The entry of `parfait lab-container`. It must be called before any thread is started, since it forks.
pub fn container_main() -> ExitCode {
    let request = match spec::read_request(&mut std::io::stdin().lock()) {
        Ok(request) => request,
        Err(error) => {
            spec::write_report(&Report::Failed {
                message: format!("lab-container: the request on standard input: {error}"),
            });
            return ExitCode::from(2);
        }
    };
    match request {
        Request::Run(spec) => monitor::run(&spec),
        Request::Exec(spec) => exec::run(&spec),
    }
}
