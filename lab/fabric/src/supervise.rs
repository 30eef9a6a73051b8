//! How a process becomes a lab.
//!
//! ```text
//! lab up ── spawns ──► first process          (host's namespaces; binds the host's sockets,
//!    ▲                    │ leaves the host     then leaves)
//!    │ events             │ fork
//!    │ (pipe)             ├─► writes lab.json, ends
//!    │                    ▼
//!    │                 PID 1: private mounts, /proc, switch and nodes
//!    │                    │ fork
//!    └─────────────────── ▼
//!                      PID 2: the supervisor (`programs/parfait`), runs until SIGTERM
//! ```
//!
//! A socket stays in the network namespace in which it was made: that is how the API server
//! listens on the host's loopback without any connection between the two networks.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fs, process};

use parfait_kernel::NetNs;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};

use crate::event::{Event, Events};
use crate::spec::NodeAddresses;
use crate::state::{LabDir, Record, StateRoot};
use crate::{Error, LabName, LabSpec, ProcessId, cgroup, host, init, underlay};

/// The file descriptor by which the supervisor inherits the lab's lock.
pub(crate) const LOCK_FD: i32 = 3;

/// One machine: a network namespace with an address on the underlay.
#[derive(Debug)]
pub struct Machine {
    /// `node-1`, …
    pub name: String,
    /// Its addresses.
    pub addresses: NodeAddresses,
    /// Its network namespace.
    pub netns: NetNs,
    /// Its directory.
    pub dir: PathBuf,
}

/// What the supervisor finds when the machines stand.
#[derive(Debug)]
pub struct Inside {
    /// Where the lab keeps its state.
    pub dir: LabDir,
    /// What was asked for.
    pub spec: LabSpec,
    /// The nodes.
    pub machines: Vec<Machine>,
    /// Sockets that listen on the host's loopback.
    pub listeners: Vec<TcpListener>,
    /// Cgroups, one a hierarchy, below which pods may be limited.
    pub cgroups: Vec<PathBuf>,
    /// To tell `lab up` what is going on, until [`Inside::ready`].
    pub events: Events,
    /// Where the API server listens on the host.
    pub api: Vec<SocketAddr>,
}

impl Inside {
    /// Says that the lab is ready. From now on it lives without the command that made it.
    pub fn ready(&mut self) -> Result<(), Error> {
        self.dir.write_ready()?;
        let event = Event::Ready {
            api: self.api.clone(),
        };
        let told = self.events.send(&event);
        // Replaced by nothing: the reader sees the end, and later events go nowhere.
        match File::options().write(true).open("/dev/null") {
            Ok(null) => self.events = Events::new(null),
            Err(error) => return Err(Error::state("open", Path::new("/dev/null"), error)),
        }
        told.map_err(|error| Error::state("report to", Path::new("lab up"), error))
    }
}

/// Becomes the lab whose directory is `lab`; `body` runs in it as the supervisor.
///
/// Called in a process of one thread, with the lab's lock as file descriptor 3 and a pipe to
/// `lab up` as standard output. `body` answers with a text when it failed.
pub fn supervise(lab: &Path, body: impl FnOnce(Inside) -> Result<(), String>) -> ExitCode {
    let mut events = match take_stdout() {
        Ok(file) => Events::new(file),
        Err(error) => {
            tracing::error!("cannot take over standard output: {error}");
            return ExitCode::FAILURE;
        }
    };
    match first_process(lab, &mut events) {
        Ok(Role::First) => ExitCode::SUCCESS,
        Ok(Role::Init(outset)) => init_process(*outset, events, body),
        Err(error) => failed(&mut events, &error.to_string()),
    }
}

/// What was found or made before the fork and is needed after it.
struct Outset {
    dir: LabDir,
    spec: LabSpec,
    lock: OwnedFd,
    listeners: Vec<TcpListener>,
    api: Vec<SocketAddr>,
    cgroups: Vec<PathBuf>,
}

enum Role {
    First,
    Init(Box<Outset>),
}

fn failed(events: &mut Events, message: &str) -> ExitCode {
    tracing::error!("{message}");
    // Nobody may be listening any more; the log has it.
    let _ = events.send(&Event::Failed {
        message: message.to_owned(),
    });
    ExitCode::FAILURE
}

/// Standard output is the pipe to `lab up`. What anything else prints goes to the log instead.
fn take_stdout() -> io::Result<File> {
    let pipe = io::stdout().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdout(io::stderr())?;
    Ok(File::from(pipe))
}

fn first_process(lab: &Path, events: &mut Events) -> Result<Role, Error> {
    let dir = lab_dir(lab)?;
    let spec = dir.spec()?;
    // SAFETY: `lab up` passes the open lock as this descriptor, and nothing else here owns it.
    let lock = unsafe { OwnedFd::from_raw_fd(LOCK_FD) };
    fcntl_setfd(&lock, FdFlags::CLOEXEC)
        .map_err(|e| Error::state("inherit", &dir.lock_path(), e))?;
    let listeners = host_listeners()?;
    let api: Vec<_> = listeners
        .iter()
        .filter_map(|l| l.local_addr().ok())
        .collect();
    let rootless = !host::privileged();
    let cgroups = if rootless {
        Vec::new()
    } else {
        cgroup::places(lab)
    };

    host::leave(rootless)?;
    // The network namespaces' sysctls are reached through /proc, which PID 1 mounts.
    let (wait, go) = io::pipe().map_err(|e| Error::state("make a pipe for", lab, e))?;
    // SAFETY: this process has one thread, so that the child is a whole copy of it.
    match unsafe { libc::fork() } {
        -1 => Err(Error::state("fork for", lab, io::Error::last_os_error())),
        0 => {
            drop(go);
            // Until the record is written the lab would be one nobody finds.
            if !matches!({ wait }.read(&mut [0]), Ok(1)) {
                process::exit(1);
            }
            let cgroups = cgroups.into_iter().filter(|path| path.is_dir()).collect();
            Ok(Role::Init(Box::new(Outset {
                dir,
                spec,
                lock,
                listeners,
                api,
                cgroups,
            })))
        }
        init => {
            drop(wait);
            let record = record(init, spec, api, rootless, cgroups)?;
            dir.write_record(&record)?;
            cgroup::create(&record.cgroups);
            { go }
                .write_all(&[1])
                .map_err(|e| Error::state("start", lab, e))?;
            events.step("left the host's namespaces").ok();
            Ok(Role::First)
        }
    }
}

fn record(
    init: i32,
    spec: LabSpec,
    api: Vec<SocketAddr>,
    rootless: bool,
    cgroups: Vec<PathBuf>,
) -> Result<Record, Error> {
    let path = PathBuf::from(format!("/proc/{init}"));
    let unknown = |e| Error::state("examine", &path, e);
    Ok(Record {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        spec,
        init: ProcessId::observe(init).map_err(unknown)?,
        pid_namespace: fs::metadata(path.join("ns/pid")).map_err(unknown)?.ino(),
        api,
        started: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs(),
        rootless,
        cgroups,
    })
}

/// Sockets on the host's loopback, on ports the kernel chooses. IPv6 may be off on the host.
fn host_listeners() -> Result<Vec<TcpListener>, Error> {
    let v4 =
        TcpListener::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), 0)).map_err(|source| Error::Host {
            what: "listen on 127.0.0.1".to_owned(),
            source,
            why: "kubectl reaches the lab's API server there".to_owned(),
            remedy: "bring the loopback interface up: `ip link set lo up`".to_owned(),
        })?;
    // The same port for both families where that is free, so that "localhost:PORT" is one thing.
    let port = v4.local_addr().map_or(0, |address| address.port());
    let bind6 = |port| TcpListener::bind((IpAddr::V6(Ipv6Addr::LOCALHOST), port));
    let v6 = bind6(port).or_else(|_| bind6(0)).ok();
    Ok([Some(v4), v6].into_iter().flatten().collect())
}

fn lab_dir(lab: &Path) -> Result<LabDir, Error> {
    let name: Option<LabName> = lab
        .file_name()
        .and_then(|n| n.to_str())
        .and_then(|n| n.parse().ok());
    let base = lab.parent().and_then(Path::parent);
    match (name, base) {
        (Some(name), Some(base)) => Ok(StateRoot::locate(Some(base), None).lab(&name)),
        _ => Err(Error::state(
            "open",
            lab,
            io::Error::from(io::ErrorKind::InvalidInput),
        )),
    }
}

fn init_process(
    outset: Outset,
    mut events: Events,
    body: impl FnOnce(Inside) -> Result<(), String>,
) -> ExitCode {
    let machines = match build(&outset, &mut events) {
        Ok(machines) => machines,
        Err(error) => return failed(&mut events, &error.to_string()),
    };
    let Outset {
        dir,
        spec,
        lock,
        listeners,
        api,
        cgroups,
    } = outset;
    let inside = Inside {
        dir,
        spec,
        machines,
        listeners,
        cgroups,
        events,
        api,
    };
    let ended = init::run((inside, lock.try_clone()), |(inside, _lock)| {
        match body(inside) {
            Ok(()) => ExitCode::SUCCESS,
            Err(message) => {
                tracing::error!("{message}");
                ExitCode::FAILURE
            }
        }
    });
    drop(lock);
    ended.unwrap_or_else(|error| {
        tracing::error!("cannot start the supervisor: {error}");
        ExitCode::FAILURE
    })
}

/// The lab's own view of mounts and processes, then its network.
fn build(outset: &Outset, events: &mut Events) -> Result<Vec<Machine>, Error> {
    let abandoned = |e| Error::state("report to", Path::new("lab up"), e);
    private_mounts(&outset.dir)?;
    rustix::system::sethostname(format!("lab-{}", outset.dir.name()).as_bytes()).ok();
    let machines = underlay::build(&outset.dir, &outset.spec)?;
    events
        .step(match machines.len() {
            1 => "made the underlay and 1 node".to_owned(),
            many => format!("made the underlay and {many} nodes"),
        })
        .map_err(abandoned)?;
    Ok(machines)
}

fn private_mounts(dir: &LabDir) -> Result<(), Error> {
    let refused = |what: &str, why: &str| {
        let (what, why) = (what.to_owned(), why.to_owned());
        move |errno: rustix::io::Errno| {
            Error::Host {
            what,
            source: errno.into(),
            why,
            remedy: "run parfait outside of the container, or start the container with `--privileged` (or `--security-opt systempaths=unconfined` for /proc)".to_owned(),
        }
        }
    };
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .map_err(refused(
        "make the lab's mounts private",
        "a security module forbids mounting",
    ))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "/proc", "proc", flags, None).map_err(refused(
        "mount the lab's own /proc",
        "parts of /proc are hidden here, as in most containers, and then the kernel refuses a fresh one",
    ))?;
    mount(
        "tmpfs",
        dir.namespaces(),
        "tmpfs",
        flags,
        Some(c"mode=0700,size=64k"),
    )
    .map_err(refused(
        "mount a tmpfs",
        "a security module forbids mounting",
    ))?;
    hold_program(dir)
}

/// Keeps the running program reachable under a path of the lab's own.
fn hold_program(dir: &LabDir) -> Result<(), Error> {
    let program = dir.program();
    let failed = |e: io::Error| Error::state("hold the running program at", &program, e);
    fs::write(&program, b"").map_err(failed)?;
    // By its path: /proc/self/exe is a file of the host's mounts, which cannot be bound from here.
    let path = std::env::current_exe().map_err(failed)?;
    mount_bind(&path, &program).map_err(|e| failed(e.into()))?;
    let identity = |path: &Path| fs::metadata(path).map(|m| (m.dev(), m.ino()));
    if identity(&program).map_err(failed)?
        != identity(Path::new("/proc/self/exe")).map_err(failed)?
    {
        return Err(failed(io::Error::other(format!(
            "{} was replaced just now: try again",
            path.display()
        ))));
    }
    Ok(())
}
