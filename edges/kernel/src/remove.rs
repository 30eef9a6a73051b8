//! Removing a link without waiting for the kernel to forget it.
//!
//! `RTM_DELLINK` takes a link away at once: it carries nothing more, nobody finds it, listeners are
//! told. But the call returns only when every processor has let go of it (`netdev_run_todo` in
//! net/core/dev.c waits for `rcu_barrier`), some 15 to 30 ms later. A program that ends after the
//! call has no use for that wait, and its caller neither. So a child process makes the call, and this
//! one goes on as soon as the kernel announces that the link is gone.
//!
//! The child outlives the program by those milliseconds; whoever adopts orphans reaps it.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use netlink_packet_route::RouteNetlinkMessage as Message;
use parfait_linux::{IfName, Mac};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, waitpid};

use crate::execute::refused;
use crate::message::link_by_index;
use crate::socket::Refusal;
use crate::{Error, Socket};

/// How long the kernel may take to take a link away: many at once wait for each other.
const PATIENCE: Duration = Duration::from_secs(30);

impl Socket {
    /// Removes a link if it has this Ethernet address, as
    /// [`delete_link_with`](Self::delete_link_with) does, but returns as soon as it is gone.
    ///
    /// # Errors
    /// If the kernel cannot be asked, or refuses.
    pub fn delete_link_soon(&mut self, name: &IfName, mac: Mac) -> Result<bool, Error> {
        let Some(index) = self.index_with(name, mac)? else {
            return Ok(false);
        };
        let failed = |errno| {
            let refusal = Refusal {
                errno,
                message: None,
            };
            refused(format!("ip link del {name}"), refusal)
        };
        // It listens before the child acts.
        let mut listener = self.link_listener()?;
        let (sequence, request) = self.prepared(Message::DelLink(link_by_index(index)));
        let (child, ended) = send_from_child(self.as_raw_fd(), &request).map_err(failed)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let fds = [listener.as_raw_fd(), ended.as_raw_fd()];
            let [told, over] = readable(fds, deadline).map_err(failed)?;
            if told && listener.heard_of_removal(index)? {
                return Ok(true);
            }
            if over {
                break;
            }
        }
        match waitpid(Some(child), WaitOptions::empty()) {
            Ok(Some((_, status))) if status.exit_status() == Some(0) => {}
            _ => return Err(failed(Errno::IO)),
        }
        match self.acknowledged(sequence)? {
            Ok(()) => Ok(true),
            Err(refusal) if refusal.errno == Errno::NODEV => Ok(false),
            Err(refusal) => Err(refused(format!("ip link del {name}"), refusal)),
        }
    }
}

/// Waits until something can be read from one of these, and says from which.
fn readable(fds: [RawFd; 2], deadline: Instant) -> Result<[bool; 2], Errno> {
    let mut polled = fds.map(|fd| libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    });
    let left = deadline.saturating_duration_since(Instant::now());
    let left = left.as_millis().try_into().unwrap_or(libc::c_int::MAX);
    // SAFETY: the array is valid for its length, and lives until the call returns.
    let count = unsafe { libc::poll(polled.as_mut_ptr(), 2, left) };
    match count {
        0 => Err(Errno::TIMEDOUT),
        1.. => Ok(polled.map(|fd| fd.revents != 0)),
        _ => match std::io::Error::last_os_error() {
            error if error.kind() == std::io::ErrorKind::Interrupted => Ok([false; 2]),
            error => Err(crate::error::errno_of(&error)),
        },
    }
}

/// Sends a request from a child process, which ends when the kernel is done with it. The answer
/// comes to the socket, which both share.
fn send_from_child(socket: RawFd, request: &[u8]) -> Result<(Pid, OwnedFd), Errno> {
    // SAFETY: until it ends, the child makes only async-signal-safe system calls (fork(2) in a
    // program that may have threads): it allocates nothing and takes no lock.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: see above. Descriptor 0 becomes the socket and all others are closed: somebody
        // may wait for the end of our output, or for a lock that is held through one of them.
        unsafe {
            if libc::dup2(socket, 0) != 0 {
                libc::_exit(1);
            }
            libc::close_range(1, libc::c_uint::MAX, 0);
            let sent = libc::send(0, request.as_ptr().cast(), request.len(), 0);
            libc::_exit(i32::from(sent < 0));
        }
    }
    if child < 0 {
        return Err(crate::error::errno_of(&std::io::Error::last_os_error()));
    }
    let child = Pid::from_raw(child).ok_or(Errno::SRCH)?;
    Ok((child, pidfd_open(child, PidfdFlags::empty())?))
}
