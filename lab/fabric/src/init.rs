//! PID 1 of the lab: starts the supervisor, reaps what nobody else waits for, and dies with it.
//!
//! It stays one thread without a runtime: a runtime that waits for its own children must not
//! compete with a loop that waits for everybody's. When this process ends, the kernel kills every
//! process in its PID namespace, and the namespaces go with the last of them.
//! Source: `pid_namespaces(7)`, `sigwaitinfo(2)`.

use std::io;
use std::mem::MaybeUninit;
use std::process::ExitCode;

use libc::c_int;

/// Runs `supervisor` in a child and waits until it has ended; its exit code is the lab's.
///
/// SIGTERM and SIGINT are handed on to the supervisor. `given` is what only the supervisor needs:
/// PID 1 lets go of its copy.
pub(crate) fn run<T>(given: T, supervisor: impl FnOnce(T) -> ExitCode) -> io::Result<ExitCode> {
    let signals = block(&[libc::SIGTERM, libc::SIGINT, libc::SIGCHLD])?;
    // SAFETY: this process has one thread, so that the child is a whole copy of it.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            unblock(&signals);
            Ok(supervisor(given))
        }
        child => {
            drop(given);
            Ok(watch(child, &signals))
        }
    }
}

fn watch(supervisor: c_int, signals: &libc::sigset_t) -> ExitCode {
    loop {
        if let Some(code) = reap(supervisor) {
            return code;
        }
        // SAFETY: the set is initialised, and no information beyond the number is asked for.
        let signal = unsafe { libc::sigwaitinfo(signals, std::ptr::null_mut()) };
        if matches!(signal, libc::SIGTERM | libc::SIGINT) {
            // SAFETY: a signal to our own child, which is not reaped yet.
            unsafe { libc::kill(supervisor, signal) };
        }
    }
}

/// Reaps every zombie there is; the supervisor's exit code when it was among them.
fn reap(supervisor: c_int) -> Option<ExitCode> {
    loop {
        let mut status = 0;
        // SAFETY: waitpid writes one int.
        match unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) } {
            pid if pid == supervisor => return Some(exit_code(status)),
            pid if pid > 0 => {}
            _ => return None,
        }
    }
}

/// What a shell would call it: the code, or 128 and the signal.
pub(crate) fn exit_code(status: c_int) -> ExitCode {
    let code = if libc::WIFSIGNALED(status) {
        128 + libc::WTERMSIG(status)
    } else {
        libc::WEXITSTATUS(status)
    };
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}

fn block(signals: &[c_int]) -> io::Result<libc::sigset_t> {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set that the following calls use.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for &signal in signals {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        let set = set.assume_init();
        match libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) {
            0 => Ok(set),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

fn unblock(set: &libc::sigset_t) {
    // SAFETY: the set is initialised; unblocking valid signals cannot fail.
    unsafe { libc::sigprocmask(libc::SIG_UNBLOCK, set, std::ptr::null_mut()) };
}
