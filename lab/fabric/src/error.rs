//! What can go wrong with the machines, with the object, the operation and what to do.

use std::io;
use std::path::{Path, PathBuf};

use crate::LabName;

/// A failure of the fabric. Its text says what, why, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A kernel feature or a permission is missing.
    #[error("cannot {what}: {source}\n  why: {why}\n  do:  {remedy}")]
    Host {
        /// The step, as an infinitive.
        what: String,
        /// The kernel's answer.
        source: io::Error,
        /// What that means here.
        why: String,
        /// What to do.
        remedy: String,
    },
    /// A file or directory of the lab's state cannot be used.
    #[error("cannot {operation} {path}: {source}{}", state_hint(.source))]
    State {
        /// `write`, `create`, …
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Not enough room for the lab's state before anything was begun.
    #[error(
        "no room for the lab's state: {path} has {free_kib} KiB free, a lab needs {needed_kib} KiB\n  do:  free some, or choose another place with --state-dir DIR or PARFAIT_STATE_DIR"
    )]
    NoRoom {
        /// The directory.
        path: PathBuf,
        /// What is free.
        free_kib: u64,
        /// What is needed.
        needed_kib: u64,
    },
    /// The state directory is somebody else's, or open to others.
    #[error(
        "{path} cannot hold labs: {why}\n  do:  remove or repair it, or choose another place with --state-dir DIR or PARFAIT_STATE_DIR"
    )]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A lab of this name is there already.
    #[error(
        "lab {0} is already running\n  do:  `parfait lab down --name {0}` first, or choose another name with --name"
    )]
    AlreadyRunning(LabName),
    /// Another command is creating or removing the lab just now.
    #[error(
        "lab {0} is being created or removed by another command\n  do:  wait until that is done, then try again"
    )]
    Busy(LabName),
    /// There is no lab of this name.
    #[error("lab {name} is not running{}\n  do:  `parfait lab up --name {name}`", others(.running))]
    NotRunning {
        /// The name asked for.
        name: LabName,
        /// What runs.
        running: Vec<LabName>,
    },
    /// The supervisor ended before the lab was ready.
    #[error("the lab ended before it was ready{}\n  its log: {log}{tail}", what(.message))]
    Died {
        /// What it said last, if anything.
        message: Option<String>,
        /// Where its log is.
        log: PathBuf,
        /// The end of that log.
        tail: String,
    },
    /// A network operation while the machines are made.
    #[error("cannot {what}: {why}")]
    Network {
        /// The step, as an infinitive, with the object.
        what: String,
        /// What the kernel said.
        why: String,
    },
    /// `exec` names something that is not there.
    #[error("there is no {kind} {name} in lab {lab}{}", nearest_hint(.nearest))]
    NoTarget {
        /// `node` or `pod`.
        kind: &'static str,
        /// The name.
        name: String,
        /// The lab.
        lab: LabName,
        /// The name that is there and looks most alike.
        nearest: Option<String>,
    },
    /// Something in the way to a node's or pod's namespaces failed.
    #[error("cannot enter {target}: {what}: {source}")]
    Enter {
        /// `node/node-1`, `pod/web.default`.
        target: String,
        /// The step.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A process of the lab did not go away.
    #[error(
        "lab {name}: process {pid} is still there {seconds} s after SIGKILL: it hangs in the kernel; see /proc/{pid}/stack"
    )]
    StillThere {
        /// The lab.
        name: LabName,
        /// PID 1 of the lab, as the host counts.
        pid: i32,
        /// How long it was waited for.
        seconds: u64,
    },
}

impl Error {
    /// A [`Error::State`].
    pub(crate) fn state(
        operation: &'static str,
        path: &Path,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::State {
            operation,
            path: path.to_owned(),
            source: source.into(),
        }
    }
}

fn state_hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => {
            "\n  why: the file system is full (or the quota used up)\n  do:  free some room, or choose another place with --state-dir DIR or PARFAIT_STATE_DIR"
        }
        Some(libc::EROFS) => {
            "\n  why: the file system is read-only\n  do:  choose another place with --state-dir DIR or PARFAIT_STATE_DIR"
        }
        Some(libc::EACCES | libc::EPERM) => {
            "\n  do:  choose a place of your own with --state-dir DIR or PARFAIT_STATE_DIR"
        }
        _ => "",
    }
}

fn others(running: &[LabName]) -> String {
    if running.is_empty() {
        return String::new();
    }
    let names: Vec<_> = running.iter().map(LabName::as_str).collect();
    format!(" (running: {})", names.join(", "))
}

fn what(message: &Option<String>) -> String {
    message
        .as_ref()
        .map(|m| format!(": {m}"))
        .unwrap_or_default()
}

fn nearest_hint(nearest: &Option<String>) -> String {
    nearest
        .as_ref()
        .map(|n| format!("; did you mean {n}?"))
        .unwrap_or_default()
}
