//! [`ProcessId`]: a process named by number *and* start time, so that a reused number is not it.
//!
//! Start times are field 22 of `/proc/PID/stat` (`proc_pid_stat(5)`), in clock ticks since boot.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};
use std::{fs, io};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process, told apart from a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number in the host's PID namespace.
    pub pid: i32,
    /// When it started, in ticks since boot.
    pub start_time: u64,
}

impl ProcessId {
    /// The process which has this number now.
    pub fn observe(pid: i32) -> io::Result<Self> {
        Ok(Self {
            pid,
            start_time: stat(pid)?.1,
        })
    }

    /// Whether it still runs; a zombie does not.
    #[must_use]
    pub fn alive(&self) -> bool {
        stat(self.pid)
            .is_ok_and(|(state, start)| start == self.start_time && !matches!(state, 'Z' | 'X'))
    }

    /// A handle on it that no other process can slip into; `None` when it has gone.
    pub fn open(&self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(None);
        };
        match pidfd_open(pid, PidfdFlags::empty()) {
            // The number may have been reused before it was opened: look again, now that it is held.
            Ok(fd) => Ok(self.alive().then_some(fd)),
            Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Sends a signal; a process that has gone already is no error.
pub(crate) fn signal(pidfd: &OwnedFd, signal: Signal) -> io::Result<()> {
    match pidfd_send_signal(pidfd, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Waits until the process has ended; false when it has not in time.
pub(crate) fn wait_gone(pidfd: &OwnedFd, patience: Duration) -> io::Result<bool> {
    let end = Instant::now() + patience;
    loop {
        let left = end.saturating_duration_since(Instant::now()).as_millis();
        let timeout = i32::try_from(left).unwrap_or(i32::MAX);
        let mut fd = libc::pollfd {
            fd: pidfd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one pollfd is passed with the length one, and outlives the call.
        match unsafe { libc::poll(&raw mut fd, 1, timeout) } {
            0 => return Ok(false),
            n if n > 0 => return Ok(true),
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// State letter and start time of a process.
fn stat(pid: i32) -> io::Result<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the program's name in parentheses and may hold anything, ')' too.
    let rest = text.rsplit_once(')').map(|(_, rest)| rest.trim_start());
    let parsed = rest.and_then(|rest| {
        let mut fields = rest.split(' ');
        let state = fields.next()?.chars().next()?;
        let start = fields.nth(18)?.parse().ok()?;
        Some((state, start))
    });
    parsed.ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("/proc/{pid}/stat: {text:?}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_number_is_another_process() {
        let me = ProcessId::observe(std::process::id() as i32).unwrap();
        assert!(me.alive());
        let before = ProcessId {
            start_time: me.start_time - 1,
            ..me
        };
        assert!(!before.alive());
        assert!(before.open().unwrap().is_none());
    }

    #[test]
    fn a_zombie_is_not_alive() {
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let id = ProcessId::observe(child.id() as i32).unwrap();
        let fd = pidfd_open(Pid::from_raw(id.pid).unwrap(), PidfdFlags::empty()).unwrap();
        assert!(wait_gone(&fd, Duration::from_secs(5)).unwrap());
        assert!(!id.alive());
        child.wait().unwrap();
    }
}
