//! Removing a link without waiting for the kernel to forget it.
//!
//! `RTM_DELLINK` takes a link away at once: it carries nothing more, nobody finds it, listeners are
//! told. But the call returns only when every processor has let go of it (`netdev_run_todo` in
//! net/core/dev.c waits for `rcu_barrier`), some 15 to 30 ms later. A program that ends after the
//! call has no use for that wait, and its caller neither. So a child process makes the call, and this
//! one goes on as soon as the kernel announces that the link is gone. Of all that is announced it hears only that
//! (a filter, socket(7)): of many that remove links at once, each would wake for every change of every link.
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
        let mut listener = self.removal_listener(index)?;
        let (sequence, request) = self.prepared(Message::DelLink(link_by_index(index)));
        let (child, ended) = send_from_child(self.as_raw_fd(), &request).map_err(failed)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let fds = [listener.as_raw_fd(), ended.as_raw_fd()];
            let [told, over] = readable(fds, deadline).map_err(failed)?;
            if told && listener.heard()? {
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

    /// The number of a link, if it has this Ethernet address. The number is asked for first: a link that takes the name
    /// meanwhile has another.
    pub(crate) fn index_with(&self, name: &IfName, mac: Mac) -> Result<Option<u32>, Error> {
        let Some(index) = self.index(name)? else {
            return Ok(None);
        };
        match ethernet_address(self.as_raw_fd(), name) {
            Ok(found) => Ok((found == Some(mac)).then_some(index)),
            Err(Errno::NODEV) => Ok(None),
            Err(errno) => Err(Error::Exchange {
                operation: format!("asking for the Ethernet address of {name}"),
                errno,
            }),
        }
    }
}

/// The Ethernet address of a link (`SIOCGIFHWADDR` of netdevice(7)). `RTM_GETLINK` tells it too, and twenty times as much,
/// and waits for whoever makes or removes a link.
fn ethernet_address(socket: RawFd, link: &IfName) -> Result<Option<Mac>, Errno> {
    // SAFETY: all zeroes is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // A name has at most 15 bytes, so that a NUL is left.
    for (to, from) in request.ifr_name.iter_mut().zip(link.as_str().bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    // SAFETY: the request is valid for the call, which writes into it.
    let done = unsafe { libc::ioctl(socket, libc::SIOCGIFHWADDR as _, &raw mut request) };
    if done != 0 {
        return Err(crate::error::errno_of(&std::io::Error::last_os_error()));
    }
    // SAFETY: the kernel has written an address there.
    let found = unsafe { request.ifr_ifru.ifru_hwaddr };
    if found.sa_family != libc::ARPHRD_ETHER {
        return Ok(None);
    }
    let mut bytes = [0; 6];
    for (to, from) in bytes.iter_mut().zip(found.sa_data) {
        *to = from.to_ne_bytes()[0];
    }
    Ok(Some(Mac::new(bytes)))
}

/// Lets a netlink socket hear only that this link is gone, as classic BPF:
///
/// ```text
///   nlmsghdr   0 length  4 type   6 flags  8 sequence  12 port
///   ifinfomsg 16 family 18 type  20 index                         family 0: a bridge also tells of ports it loses
/// ```
pub(crate) fn only_removal_of(index: u32, socket: RawFd) -> std::io::Result<()> {
    use libc::{BPF_ABS, BPF_B, BPF_H, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
    let code = |code: u32, jump_false, value| libc::sock_filter {
        code: u16::try_from(code).unwrap_or_default(),
        jt: 0,
        jf: jump_false,
        k: value,
    };
    let load = |size, at| code(BPF_LD | size | BPF_ABS, 0, at);
    let unless = |value, skip| code(BPF_JMP | BPF_JEQ | BPF_K, skip, value);
    // The filter reads numbers as the network has them, netlink writes them as the machine does.
    let removal = u16::from_be_bytes(libc::RTM_DELLINK.to_ne_bytes());
    let filter = [
        load(BPF_H, 4),
        unless(removal.into(), 5),
        load(BPF_B, 16),
        unless(0, 3),
        load(BPF_W, 20),
        unless(u32::from_be_bytes(index.to_ne_bytes()), 1),
        code(BPF_RET | BPF_K, 0, u32::MAX),
        code(BPF_RET | BPF_K, 0, 0),
    ];
    crate::events::attach(socket, &filter)
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
            // Not every C library has a function for it.
            libc::syscall(libc::SYS_close_range, 1, libc::c_uint::MAX, 0);
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

#[cfg(test)]
mod tests {
    use parfait_linux::{Link, LinkKind};

    use super::*;
    use crate::NetNs;

    #[test]
    fn a_listener_hears_of_its_own_link_only_and_only_that_it_is_gone() {
        let netns = NetNs::create().expect("root, or a user namespace");
        let mut socket = Socket::open_in(&netns).unwrap();
        let link = |name: &str, mac| Link {
            mac: Some(Mac::local([mac; 6])),
            ..Link::new(IfName::new(name).unwrap(), LinkKind::Veth { peer: None })
        };
        let pair = |socket: &mut Socket, near: &str, far: &str, mac| {
            let near = link(near, mac);
            socket
                .create_veth(&near, &link(far, mac + 1), None)
                .unwrap();
            near
        };
        let ours = pair(&mut socket, "pf0", "pf1", 1);
        let other = pair(&mut socket, "pf2", "pf3", 3);
        let index = socket.index_with(&ours.name, ours.mac.unwrap()).unwrap();
        let mut listener = socket.removal_listener(index.unwrap()).unwrap();
        let told = |listener: &Socket| {
            let fds = [listener.as_raw_fd(), listener.as_raw_fd()];
            readable(fds, Instant::now()).is_ok()
        };
        socket.set_up(&ours.name).unwrap();
        assert!(socket.delete_link(&other.name).unwrap());
        assert!(!told(&listener), "of what is not its own");
        assert!(socket.delete_link(&ours.name).unwrap());
        assert!(told(&listener) && listener.heard().unwrap());
        assert!(!told(&listener), "of its other end");
    }
}
