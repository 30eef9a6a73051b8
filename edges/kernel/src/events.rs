//! [`Events`]: that somebody else has changed links, addresses, routes, settings or rules.
//!
//! ```text
//!   ip, nft, sysctl, … ─▶ kernel ─┬─ rtnetlink groups ─▶ filter ─┐
//!                                 └─ nf_tables group ──▶ filter ─┴─ epoll ─▶ one file descriptor
//! ```
//!
//! What changed is not told: whoever is told looks again anyhow, as news can get lost. The kernel
//! itself leaves out what was done through our own sockets (by their port numbers, in a socket filter,
//! bpf(4)), so that a thousand own routes wake nobody; what follows from own changes without a sender
//! (the routes of an address) is told like anybody's.
//!
//! Left out: neighbours, which change with traffic, routes that router advertisements refresh, and addresses that are lent
//! for as long again: of those of IPv6 the kernel does not say who did it (`inet6_ifa_notify`). Their end is told.
//! Source: rtnetlink(7), net/core/rtnetlink.c, net/ipv6/addrconf.c, `nf_tables_gen_notify` in
//! net/netfilter/nf_tables_api.c.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use rustix::event::epoll;
use rustix::io::Errno;

use crate::Error;
use crate::error::errno_of;

/// `RTNLGRP_*` of linux/rtnetlink.h: links, addresses and routes of both families, and their
/// forwarding and rp_filter settings (netconf).
const ROUTE_GROUPS: [u32; 7] = [1, 5, 7, 9, 11, 24, 25];

/// `NFNLGRP_NFTABLES` of linux/netfilter/nfnetlink.h.
const NFTABLES_GROUP: u32 = 7;

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN`: a ruleset was committed. Told once, whatever is in it.
const NEW_GENERATION: u16 = 10 << 8 | 15;

/// `RTPROT_RA`, and `RTM_F_CLONED`.
const ROUTER_ADVERTISEMENT: u8 = 9;
const CLONED: u32 = 0x200;

/// `IFA_CACHEINFO` of linux/if_addr.h, and where attributes begin behind `struct ifaddrmsg`.
const CACHE_INFO: u16 = 6;
const ADDRESS_HEADER: usize = 8;

/// Where a message's type and sender's port stand in its header (netlink(7), `struct nlmsghdr`).
const TYPE_AT: u32 = 4;
const PORT_AT: u32 = 12;

/// Somebody else's changes to one network namespace, as one file descriptor to wait for.
#[derive(Debug)]
pub struct Events {
    epoll: OwnedFd,
    sockets: [netlink_sys::Socket; 2],
    buffer: Vec<u8>,
}

impl Events {
    /// Begins to listen in the calling thread's network namespace. What is done through the sockets
    /// `own` is left out.
    ///
    /// # Errors
    /// If the kernel refuses a socket, a filter or a group.
    pub fn open(own: &[RawFd]) -> Result<Self, Error> {
        let ports = own.iter().map(|fd| port(*fd));
        let ports: Vec<u32> = ports.collect::<Result<_, _>>().map_err(failed)?;
        let route = listen(NETLINK_ROUTE, &filter(None, &ports), &ROUTE_GROUPS)?;
        let rules = listen(
            NETLINK_NETFILTER,
            &filter(Some(NEW_GENERATION), &ports),
            &[NFTABLES_GROUP],
        )?;
        let open = |errno| Error::Open { errno };
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(open)?;
        let sockets = [route, rules];
        for socket in &sockets {
            let data = epoll::EventData::new_u64(0);
            // SAFETY: the descriptor is the socket's own, which outlives this borrow.
            let fd = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
            epoll::add(&epoll, fd, data, epoll::EventFlags::IN).map_err(open)?;
        }
        Ok(Self {
            epoll,
            sockets,
            buffer: vec![0; 64 * 1024],
        })
    }

    /// Reads what there is to read; whether somebody has changed something. Does not wait. Where too
    /// much happened at once the kernel drops news and says so (ENOBUFS): then something has changed.
    ///
    /// # Errors
    /// If the kernel cannot be heard any more.
    pub fn heard(&mut self) -> Result<bool, Error> {
        let mut heard = false;
        for socket in &self.sockets {
            loop {
                match socket.recv(&mut &mut self.buffer[..], libc::MSG_TRUNC) {
                    Ok(length) => {
                        let length = length.min(self.buffer.len());
                        heard |= matters(&self.buffer[..length]);
                    }
                    Err(error) => match errno_of(&error) {
                        Errno::WOULDBLOCK => break,
                        Errno::INTR => {}
                        Errno::NOBUFS => heard = true,
                        _ => return Err(Error::exchange("listening for changes", &error)),
                    },
                }
            }
        }
        Ok(heard)
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(error: std::io::Error) -> Error {
    Error::Open {
        errno: errno_of(&error),
    }
}

fn listen(
    protocol: isize,
    filter: &[libc::sock_filter],
    groups: &[u32],
) -> Result<netlink_sys::Socket, Error> {
    let mut socket = netlink_sys::Socket::new(protocol).map_err(failed)?;
    socket.bind_auto().map_err(failed)?;
    socket.set_non_blocking(true).map_err(failed)?;
    attach(socket.as_raw_fd(), filter).map_err(failed)?;
    for group in groups {
        socket
            .add_membership(*group)
            .map_err(|error| Error::exchange("listening for changes", &error))?;
    }
    Ok(socket)
}

/// The port number of a netlink socket: what the kernel writes into the messages about its doings.
fn port(fd: RawFd) -> std::io::Result<u32> {
    // SAFETY: all zeroes is a valid sockaddr_nl.
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    let mut length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address and its length are valid for the call.
    let done = unsafe { libc::getsockname(fd, (&raw mut address).cast(), &raw mut length) };
    match done {
        0 => Ok(address.nl_pid),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// A program that lets a message through if it is of this type and from none of these ports.
///
/// ```text
///   ldh [4]; jne TYPE, drop     ld [12]; jeq PORT, drop; …     ret all     drop: ret 0
/// ```
fn filter(only: Option<u16>, ports: &[u32]) -> Vec<libc::sock_filter> {
    let step = |code: u32, jt, jf, k| libc::sock_filter {
        code: u16::try_from(code).unwrap_or_default(),
        jt,
        jf,
        k,
    };
    let load = |size, at| step(libc::BPF_LD | size | libc::BPF_ABS, 0, 0, at);
    let equal = |value, jt, jf| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, jt, jf, value);
    let ports = &ports[..ports.len().min(64)];
    let mut left = u8::try_from(ports.len()).unwrap_or_default();
    let mut program = Vec::new();
    if let Some(only) = only {
        program.push(load(libc::BPF_H, TYPE_AT));
        // Past the load and the ports' comparisons, and the return that accepts. What the header has
        // in this machine's byte order is loaded in the network's.
        let kind = u32::from(u16::from_be_bytes(only.to_ne_bytes()));
        program.push(equal(kind, 0, left + 2));
    }
    program.push(load(libc::BPF_W, PORT_AT));
    for port in ports {
        program.push(equal(u32::from_be_bytes(port.to_ne_bytes()), left, 0));
        left -= 1;
    }
    program.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX));
    program.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, 0));
    program
}

/// Lets a socket hear only what this classic BPF program takes.
pub(crate) fn attach(fd: RawFd, program: &[libc::sock_filter]) -> std::io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).unwrap_or_default(),
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the program is valid for the call, which copies it.
    let done = unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of_val(&program) as libc::socklen_t,
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Whether one of these messages is more than the refreshing of a route or of an address that is lent.
fn matters(mut datagram: &[u8]) -> bool {
    while let Some(header) = datagram.get(..16) {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        let payload = datagram.get(16..length).unwrap_or_default();
        let route = [libc::RTM_NEWROUTE, libc::RTM_DELROUTE].contains(&kind);
        // struct rtmsg: rtm_protocol is its sixth byte, rtm_flags its last word.
        let refreshed = payload.get(5) == Some(&ROUTER_ADVERTISEMENT);
        let flags = payload.get(8..12).and_then(|word| word.try_into().ok());
        let cached = flags.is_some_and(|word| u32::from_ne_bytes(word) & CLONED != 0);
        let renewed = kind == libc::RTM_NEWADDR && is_lent(payload);
        if !(renewed || route && (refreshed || cached)) {
            return true;
        }
        datagram = datagram
            .get(length.max(16).next_multiple_of(4)..)
            .unwrap_or_default();
    }
    false
}

/// Whether an address is no source and stays for a time only, as Parfait lends them.
fn is_lent(payload: &[u8]) -> bool {
    let mut attributes = payload.get(ADDRESS_HEADER..).unwrap_or_default();
    while let Some(header) = attributes.get(..4) {
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        if u16::from_ne_bytes([header[2], header[3]]) == CACHE_INFO {
            // struct ifa_cacheinfo: for how long it is preferred, and for how long valid.
            let word = |at: usize| {
                let bytes = attributes.get(at..at + 4)?.try_into().ok()?;
                Some(u32::from_ne_bytes(bytes))
            };
            return word(4) == Some(0) && word(8).is_some_and(|valid| valid != u32::MAX);
        }
        let next = length.max(4).next_multiple_of(4);
        attributes = attributes.get(next..).unwrap_or_default();
    }
    false
}
