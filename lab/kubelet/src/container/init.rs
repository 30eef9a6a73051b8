//! From a fresh process to the container's program: every step that happens in the container's first process.
//!
//! The program itself becomes PID 1, as under every container runtime: a program without a handler for
//! SIGTERM ignores it there, and is killed when its grace is over. The built-ins have one.

use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::cgroup::Cgroup;
use super::spec::{Identity, Limits, RunSpec};
use super::{StepError, mounts, privileges, rootfs, seccomp};

/// What a program needs to be started, in a container's namespaces.
pub struct Start<'a> {
    pub argv: &'a [String],
    pub env: &'a [(String, String)],
    pub cwd: Option<&'a str>,
    pub identity: &'a Identity,
    pub capabilities: &'a [u8],
    pub limits: &'a Limits,
}

/// The pipe on which the first process tells its monitor about notes and failures. It is closed by execve, so
/// its end without a failure means that the program runs.
pub struct Teller(pub File);

impl Teller {
    pub fn note(&mut self, text: &str) {
        let _ = writeln!(self.0, "N{}", text.replace('\n', " "));
    }

    pub fn failure(&mut self, text: &str) {
        let _ = writeln!(self.0, "F{}", text.replace('\n', " "));
    }
}

/// Everything between fork and execve. Returns only to say what went wrong.
pub fn become_container(
    spec: &RunSpec,
    cgroup: Option<&Cgroup>,
    output: [OwnedFd; 2],
    teller: &mut Teller,
) -> StepError {
    match prepare(spec, cgroup, output, teller) {
        Ok(()) => start(&Start {
            argv: &spec.argv,
            env: &spec.env,
            cwd: spec.cwd.as_deref(),
            identity: &spec.identity,
            capabilities: &spec.capabilities,
            limits: &spec.limits,
        }),
        Err(error) => error,
    }
}

fn prepare(
    spec: &RunSpec,
    cgroup: Option<&Cgroup>,
    output: [OwnedFd; 2],
    teller: &mut Teller,
) -> Result<(), StepError> {
    // The monitor's death is the container's: nothing may be left running.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(StepError::at("tie the container to its monitor"))?;
    rustix::process::setsid().map_err(StepError::at("start a session"))?;
    let [out, err] = output;
    redirect(&out, &err)?;
    yield_to_the_host();
    if let Some(cgroup) = cgroup {
        cgroup.enter();
    }
    if let Some(path) = &spec.netns {
        enter_netns(path)?;
    }
    let flags =
        UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS | UnshareFlags::NEWCGROUP;
    // SAFETY: none of these flags (unlike CLONE_FILES) is shared with other threads; there are none.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(StepError::at("make namespaces"))?;
    mounts::make_all_private()?;
    rustix::system::sethostname(spec.hostname.as_bytes()).map_err(StepError::at(format!(
        "set the host name {:?}",
        spec.hostname
    )))?;
    for note in rootfs::enter(&spec.root, spec.limits.pids)? {
        teller.note(&note);
    }
    Ok(())
}

/// When memory or time is short on the machine, containers are the ones to go without. proc_pid_oom_score_adj(5), and
/// sched(7) on autogroups, of which the session just started is one. Where a kernel has not the one or the other the
/// container runs all the same.
fn yield_to_the_host() {
    let _ = std::fs::write("/proc/self/oom_score_adj", "900");
    let _ = std::fs::write("/proc/self/autogroup", "5");
}

/// Gives up privileges and executes the program. Returns only to say what went wrong.
pub fn start(start: &Start<'_>) -> StepError {
    match try_start(start) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn try_start(start: &Start<'_>) -> Result<std::convert::Infallible, StepError> {
    keep_to_ourselves()?;
    privileges::set_limits(start.limits, start.identity.uid.unwrap_or(0))?;
    privileges::surrender(start.identity, start.capabilities)?;
    seccomp::install()?;
    // After giving up root: a directory only root may enter is not entered.
    let cwd = start.cwd.filter(|d| !d.is_empty()).unwrap_or("/");
    std::env::set_current_dir(cwd).map_err(StepError::at(format!("enter workingDir {cwd:?}")))?;
    let program = find_program(start)?;
    execute(&program, start.argv, start.env)
}

/// From here to execve, which undoes it, this process has no more power than the container's others, and by its `/proc`
/// files or ptrace(2) they could reach what it still holds: the host's binary behind `exe`, the descriptors of its
/// monitor. A process that is not dumpable is closed to them (prctl(2); runc's CVE-2016-9962 and CVE-2019-5736).
fn keep_to_ourselves() -> Result<(), StepError> {
    // SAFETY: PR_SET_DUMPABLE takes a number and touches no memory.
    if unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) } == 0 {
        return Ok(());
    }
    Err(StepError::at("close the process to others")(
        std::io::Error::last_os_error(),
    ))
}

/// Looks the program up as execvp(3) would, with an error that says what a lab can run.
fn find_program(start: &Start<'_>) -> Result<PathBuf, StepError> {
    let Some(name) = start.argv.first().filter(|n| !n.is_empty()) else {
        return Err(StepError::new(
            "start the container",
            "the command is empty",
        ));
    };
    let base = name.rsplit('/').next().unwrap_or(name);
    let applet = Path::new("/run/parfait/bin").join(base);
    if applet.exists() {
        return Ok(applet);
    }
    if name.contains('/') {
        return match std::fs::metadata(name) {
            Ok(_) => Ok(PathBuf::from(name)),
            Err(source) => Err(StepError {
                step: format!(
                    "run {name:?} (the lab pulls no images: a command must be a program of this machine)"
                ),
                source,
            }),
        };
    }
    let path = start.env.iter().find(|(key, _)| key == "PATH");
    let runs = |p: &PathBuf| {
        std::fs::metadata(p).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    };
    path.map_or("", |(_, value)| value)
        .split(':')
        .map(|dir| Path::new(if dir.is_empty() { "." } else { dir }).join(name))
        .find(runs)
        .ok_or_else(|| {
            StepError::new(
                format!("run {name:?}"),
                "executable file not found in $PATH (the lab pulls no images: a command must be \
                 a program of this machine)",
            )
        })
}

fn execute(
    program: &Path,
    argv: &[String],
    env: &[(String, String)],
) -> Result<std::convert::Infallible, StepError> {
    let step = || format!("execute {}", program.display());
    let c = |bytes: Vec<u8>| {
        CString::new(bytes).map_err(|_| StepError::new(step(), "NUL byte in command or env"))
    };
    let path = c(program.as_os_str().as_bytes().to_vec())?;
    let argv: Vec<CString> = argv
        .iter()
        .map(|a| c(a.clone().into_bytes()))
        .collect::<Result<_, _>>()?;
    let env: Vec<CString> = env
        .iter()
        .map(|(k, v)| c(format!("{k}={v}").into_bytes()))
        .collect::<Result<_, _>>()?;
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter()
            .map(|s| s.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let (argv_p, env_p) = (pointers(&argv), pointers(&env));
    // SAFETY: all strings and both NULL-terminated arrays live until execve has read them.
    unsafe { libc::execve(path.as_ptr(), argv_p.as_ptr(), env_p.as_ptr()) };
    Err(StepError::at(step())(std::io::Error::last_os_error()))
}

/// Standard input from nowhere, output and errors into the pipes, and every other descriptor closed at execve.
fn redirect(out: &OwnedFd, err: &OwnedFd) -> Result<(), StepError> {
    let null = File::open("/dev/null").map_err(StepError::at("open /dev/null"))?;
    for (from, to) in [
        (null.as_raw_fd(), 0),
        (out.as_raw_fd(), 1),
        (err.as_raw_fd(), 2),
    ] {
        duplicate(from, to)?;
    }
    close_others_at_exec()
}

fn duplicate(from: RawFd, to: RawFd) -> Result<(), StepError> {
    // SAFETY: both are plain numbers; `to` is one of the three standard descriptors, which nothing owns.
    if unsafe { libc::dup2(from, to) } < 0 {
        return Err(StepError::at(format!("redirect descriptor {to}"))(
            std::io::Error::last_os_error(),
        ));
    }
    Ok(())
}

/// close_range(2) with CLOSE_RANGE_CLOEXEC, Linux 5.11.
pub fn close_others_at_exec() -> Result<(), StepError> {
    // SAFETY: it only marks descriptors, which stay open and owned until execve.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3 as libc::c_uint,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if result == 0 {
        return Ok(());
    }
    Err(StepError::at("mark descriptors to be closed")(
        std::io::Error::last_os_error(),
    ))
}

/// setns(2) into the network namespace bound at `path`.
fn enter_netns(path: &Path) -> Result<(), StepError> {
    let step = || format!("enter the pod's network namespace {}", path.display());
    let file = File::open(path).map_err(StepError::at(step()))?;
    rustix::thread::move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(StepError::at(step()))
}
