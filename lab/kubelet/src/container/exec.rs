//! A second program in a container that runs: exec probes, hooks, later `kubectl exec`.
//!
//! It enters all of the container's namespaces through its first process and has the same user, capabilities,
//! limits and system call filter. Its output goes to our own, its exit code becomes ours; 126 says that it could
//! not be run.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::ExitCode;

use rustix::process::{Pid, PidfdFlags};
use rustix::thread::ThreadNameSpaceType;

use super::init::{self, Start};
use super::monitor;
use super::spec::ExecSpec;
use super::{StepError, cgroup};

/// Runs one program in a container and waits for its end.
pub fn run(spec: &ExecSpec) -> ExitCode {
    let _ = rustix::process::setsid();
    if let Err(error) = enter(spec) {
        return monitor::complain(&monitor::describe(&error));
    }
    // SAFETY: this process has one thread, so the child may do everything.
    match unsafe { libc::fork() } {
        0 => {
            let error = become_program(spec);
            let code = monitor::complain(&monitor::describe(&error));
            std::process::exit(if code == ExitCode::SUCCESS { 0 } else { 126 });
        }
        pid => match Pid::from_raw(pid).filter(|_| pid > 0) {
            Some(pid) => monitor::wait_for_exec(pid),
            None => monitor::complain("fork failed"),
        },
    }
}

/// setns(2) with a pidfd, Linux 5.8. The PID namespace counts for the next child.
fn enter(spec: &ExecSpec) -> Result<(), StepError> {
    let step = || format!("enter the container of process {}", spec.pid);
    let pid = Pid::from_raw(spec.pid)
        .filter(|_| spec.pid > 0)
        .ok_or_else(|| StepError::new(step(), "no such process"))?;
    let pidfd =
        rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(StepError::at(step()))?;
    // The number may have been given to another process since. The pidfd holds on to whichever it is now, and
    // one that is in our own PID namespace is no container.
    let namespace = |who: &str| std::fs::read_link(format!("/proc/{who}/ns/pid"));
    let theirs = namespace(&spec.pid.to_string()).map_err(StepError::at(step()))?;
    if namespace("self").is_ok_and(|ours| ours == theirs) {
        return Err(StepError::new(step(), "it is no container's"));
    }
    if let Some(name) = &spec.limits.cgroup {
        cgroup::join(name);
    }
    let all = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::PROCESS_ID
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::CONTROL_GROUP
        | ThreadNameSpaceType::NETWORK;
    rustix::thread::move_into_thread_name_spaces(pidfd.as_fd(), all).map_err(StepError::at(step()))
}

fn become_program(spec: &ExecSpec) -> StepError {
    let prepared =
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .map_err(StepError::at("tie the program to its caller"))
            .and_then(|()| {
                let null = File::open("/dev/null").map_err(StepError::at("open /dev/null"))?;
                rustix::stdio::dup2_stdin(&null)
                    .map_err(StepError::at("redirect standard input"))?;
                init::close_others_at_exec()
            });
    if let Err(error) = prepared {
        return error;
    }
    init::start(&Start {
        argv: &spec.argv,
        env: &spec.env,
        cwd: spec.cwd.as_deref(),
        identity: &spec.identity,
        capabilities: &spec.capabilities,
        limits: &spec.limits,
    })
}
