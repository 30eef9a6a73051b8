//! The monitor: the container's parent, outside of it.
//!
//! It makes the PID namespace and the first process, writes the log, delivers the signals that the kubelet
//! sends as bytes on standard input, and reports the end. One thread, one poll(2) loop, no state but descriptors.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::process::ExitCode;

use rustix::process::{Pid, PidfdFlags, WaitOptions, WaitStatus};
use rustix::thread::UnshareFlags;

use super::cgroup::Cgroup;
use super::init::{self, Teller};
use super::log::{LogFile, Stream};
use super::spec::{Report, RunSpec, write_report};
use super::{StepError, spec};

/// Runs one container from start to end.
pub fn run(spec: &RunSpec) -> ExitCode {
    // Away from any terminal, whose Ctrl-C is not meant for us.
    let _ = rustix::process::setsid();
    match supervise(spec) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            write_report(&Report::Failed {
                message: describe(&error),
            });
            ExitCode::FAILURE
        }
    }
}

/// The error with what it comes from.
pub fn describe(error: &StepError) -> String {
    let hint = match error.source.raw_os_error() {
        Some(libc::EPERM) if error.step.starts_with("mount proc") => {
            " (the kernel allows a new /proc in a user namespace only where an unobstructed one is mounted)"
        }
        Some(libc::ENOSPC) => {
            " (the machine's or the user's limit of namespaces or mounts is reached)"
        }
        _ => "",
    };
    format!("{error}{hint}")
}

fn supervise(spec: &RunSpec) -> Result<(), StepError> {
    let cgroup = spec
        .limits
        .cgroup
        .as_deref()
        .map(|name| Cgroup::create(name, spec.limits.pids, spec.limits.memory));
    let pipe = || {
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(StepError::at("make a pipe"))
    };
    let (out_r, out_w) = pipe()?;
    let (err_r, err_w) = pipe()?;
    let (tell_r, tell_w) = pipe()?;
    // SAFETY: CLONE_NEWPID changes nothing for this process, only where its next child is.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWPID) }
        .map_err(StepError::at("make a PID namespace"))?;
    // SAFETY: this process has one thread, so the child may do everything.
    let pid = match unsafe { libc::fork() } {
        0 => {
            drop((out_r, err_r, tell_r));
            let mut teller = Teller(File::from(tell_w));
            let error = init::become_container(spec, cgroup.as_ref(), [out_w, err_w], &mut teller);
            teller.failure(&describe(&error));
            std::process::exit(127);
        }
        pid => Pid::from_raw(pid)
            .filter(|_| pid > 0)
            .ok_or_else(|| StepError::at("fork")(std::io::Error::last_os_error()))?,
    };
    drop((out_w, err_w, tell_w));
    let (notes, failure) = listen(tell_r);
    if let Some(message) = failure {
        let _ = rustix::process::waitpid(Some(pid), WaitOptions::empty());
        return Err(StepError::new("start the container", message));
    }
    write_report(&Report::Started {
        pid: pid.as_raw_nonzero().get(),
        notes,
    });
    let status = watch(spec, pid, out_r, err_r)?;
    write_report(&Report::Exited {
        code: status.exit_status(),
        signal: status.terminating_signal(),
        oom_killed: cgroup.as_ref().is_some_and(Cgroup::oom_killed),
    });
    Ok(())
}

/// Reads what the first process has to say, until it executes its program or gives up.
fn listen(pipe: OwnedFd) -> (Vec<String>, Option<String>) {
    let mut text = String::new();
    let _ = File::from(pipe).read_to_string(&mut text);
    let mut notes = Vec::new();
    let mut failure = None;
    for line in text.lines() {
        match line.split_at_checked(1) {
            Some(("N", note)) => notes.push(note.to_owned()),
            Some(("F", message)) => failure = Some(message.to_owned()),
            _ => {}
        }
    }
    (notes, failure)
}

/// Waits for the container's end, pumping its output meanwhile.
fn watch(spec: &RunSpec, pid: Pid, out: OwnedFd, err: OwnedFd) -> Result<WaitStatus, StepError> {
    let ended = rustix::process::pidfd_open(pid, PidfdFlags::empty())
        .map_err(StepError::at("watch the container"))?;
    let mut log = LogFile::open(&spec.log);
    let mut streams = [
        (Some(File::from(out)), Stream::new("stdout")),
        (Some(File::from(err)), Stream::new("stderr")),
    ];
    for (file, _) in &streams {
        if let Some(file) = file {
            rustix::fs::fcntl_setfl(file, rustix::fs::OFlags::NONBLOCK)
                .map_err(StepError::at("read the container's output"))?;
        }
    }
    let mut lifeline = true;
    loop {
        let hand = lifeline.then_some(libc::STDIN_FILENO);
        let files = streams.iter().filter_map(|(file, _)| file.as_ref());
        let fds = [ended.as_raw_fd()].into_iter().chain(hand);
        let ready = poll(fds.chain(files.map(AsRawFd::as_raw_fd)))?;
        let (ended_now, asked) = (ready[0], hand.is_some() && ready[1]);
        for (file, stream) in &mut streams {
            pump(file, stream, &mut log);
        }
        if ended_now {
            break;
        }
        if asked && !deliver(pid) {
            lifeline = false;
        }
    }
    // The PID namespace is gone with its first process, so what is still in the pipes is all there is.
    for (file, stream) in &mut streams {
        pump(file, stream, &mut log);
        stream.finish(&mut log);
    }
    match rustix::process::waitpid(Some(pid), WaitOptions::empty()) {
        Ok(Some((_, status))) => Ok(status),
        Ok(None) => Err(StepError::new("wait for the container", "it has no status")),
        Err(errno) => Err(StepError::at("wait for the container")(errno)),
    }
}

/// Moves what a pipe holds into the log.
fn pump(file: &mut Option<File>, stream: &mut Stream, log: &mut LogFile) {
    let mut buffer = [0u8; 16 << 10];
    while let Some(open) = file {
        match open.read(&mut buffer) {
            Ok(0) => *file = None,
            Ok(n) => stream.push(&buffer[..n], log),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Reads one byte of the kubelet's hand and does as told. False: the hand is gone, and the container is killed.
fn deliver(pid: Pid) -> bool {
    let mut byte = [0u8; 1];
    let read = rustix::io::read(std::io::stdin().as_fd(), &mut byte);
    let number = match read {
        Ok(1) => i32::from(byte[0]),
        Err(rustix::io::Errno::INTR) => return true,
        _ => libc::SIGKILL,
    };
    // SAFETY: sends a signal to our own child, which is not reaped yet, so the number is its.
    unsafe { libc::kill(pid.as_raw_nonzero().get(), number) };
    matches!(read, Ok(1))
}

/// poll(2) without a timeout: which of the descriptors can be read, or have ended.
fn poll(fds: impl Iterator<Item = RawFd>) -> Result<Vec<bool>, StepError> {
    let mut fds: Vec<libc::pollfd> = fds
        .map(|fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    // SAFETY: the array has exactly the length given.
    let result = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, -1) };
    let error = std::io::Error::last_os_error();
    if result < 0 && error.kind() != std::io::ErrorKind::Interrupted {
        return Err(StepError::at("wait for the container")(error));
    }
    Ok(fds.iter().map(|f| result > 0 && f.revents != 0).collect())
}

/// For `exec`: waits for a child and passes its end on as the exit code, killing it if the hand is gone.
pub fn wait_for_exec(pid: Pid) -> ExitCode {
    let Ok(ended) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else {
        return ExitCode::from(126);
    };
    let mut hand = true;
    loop {
        let stdin = hand.then_some(libc::STDIN_FILENO);
        match poll([ended.as_raw_fd()].into_iter().chain(stdin)) {
            Ok(ready) if ready[0] => break,
            Ok(ready) if hand && ready[1] => hand = deliver(pid),
            Ok(_) => {}
            Err(error) => return complain(&describe(&error)),
        }
    }
    match rustix::process::waitpid(Some(pid), WaitOptions::empty()) {
        Ok(Some((_, status))) => {
            let signal = status.terminating_signal().map(|s| 128 + s);
            let code = status.exit_status().or(signal).unwrap_or(126);
            ExitCode::from(u8::try_from(code).unwrap_or(126))
        }
        _ => ExitCode::from(126),
    }
}

/// Says on standard error, where an exec probe's output goes, why a program could not be run.
pub fn complain(message: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "{message}");
    ExitCode::from(spec::EXEC_FAILED)
}
