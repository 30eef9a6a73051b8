//! What the kubelet and its container program say to each other.
//!
//! Plain data, as one line of JSON each. The request is read byte by byte up to its newline, so that
//! nothing of what follows (signals) is swallowed by a buffer.

use std::io::{Read, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What the kubelet asks for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Request {
    /// Start a container.
    Run(Box<RunSpec>),
    /// Run a program inside a container that runs.
    Exec(ExecSpec),
}

/// One container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RunSpec {
    /// The host name inside: the pod's.
    pub hostname: String,
    /// The pod's network namespace; `None` stays in the node's (`hostNetwork`).
    pub netns: Option<PathBuf>,
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
    /// `workingDir`.
    pub cwd: Option<String>,
    pub root: RootSpec,
    pub identity: Identity,
    /// The capabilities to keep, by number.
    pub capabilities: Vec<u8>,
    pub limits: Limits,
    pub log: LogSpec,
}

/// A program to run in a container's namespaces.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ExecSpec {
    /// The container's first process, as the kubelet's PID namespace counts.
    pub pid: i32,
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
    pub cwd: Option<String>,
    pub identity: Identity,
    pub capabilities: Vec<u8>,
    pub limits: Limits,
}

/// The container's files.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RootSpec {
    /// An empty directory to build the root on; it can be the same for all, each has its own mounts.
    pub base: PathBuf,
    /// `readOnlyRootFilesystem`.
    pub read_only: bool,
    /// How much the container may write, in bytes, in all its overlays together.
    pub scratch_bytes: u64,
    /// Directories and files of the host that no container may see: the lab's own state above all.
    pub hide: Vec<PathBuf>,
    /// Volumes, and the pod's `/etc/hosts` and the like.
    pub binds: Vec<Bind>,
    /// The lab's binary, shown as [`PARFAIT`].
    pub parfait: PathBuf,
    /// Names under which the binary stands in `/run/parfait/bin`, the last directory of `PATH`.
    pub applets: Vec<String>,
}

/// The exit code of an exec whose program could not be run.
pub const EXEC_FAILED: u8 = 126;

/// Where a container sees the lab's binary.
pub const PARFAIT: &str = "/run/parfait/parfait";

/// One file or directory of the kubelet's, shown in the container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Bind {
    pub source: PathBuf,
    pub target: String,
    pub read_only: bool,
}

/// Whom the program runs as. Only identities that the user namespace maps can be taken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub groups: Vec<u32>,
}

/// How much the container may take.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Limits {
    /// The container's cgroup, below the lab's: `lab/node-1/uid/name`. `None` uses no cgroup.
    pub cgroup: Option<String>,
    /// Processes and threads.
    pub pids: u32,
    /// Bytes of memory, where a cgroup can be used.
    pub memory: Option<u64>,
    /// Open files of each process.
    pub nofile: u64,
}

/// Where the container's output goes.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LogSpec {
    pub path: PathBuf,
    /// Above this size the file is renamed to `….1` and begun anew.
    pub max_bytes: u64,
}

/// What the container program answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Report {
    /// The program runs. The notes say what could not be done as asked.
    Started { pid: i32, notes: Vec<String> },
    /// The program could not be started.
    Failed { message: String },
    /// The program ended by itself or by a signal.
    Exited {
        code: Option<i32>,
        signal: Option<i32>,
        oom_killed: bool,
    },
}

/// Reads the request: one line, and not a byte more.
pub fn read_request(input: &mut impl Read) -> std::io::Result<Request> {
    let mut line = Vec::new();
    let mut byte = [0u8; 1];
    while input.read(&mut byte)? == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    Ok(serde_json::from_slice(&line)?)
}

/// Writes one report. If the kubelet is gone nobody is left to tell, so a failure is ignored.
pub fn write_report(report: &Report) {
    if let Ok(mut line) = serde_json::to_vec(report) {
        line.push(b'\n');
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(&line).and_then(|()| out.flush());
    }
}
