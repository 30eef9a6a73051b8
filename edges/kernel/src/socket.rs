//! [`Socket`]: a blocking rtnetlink socket (rtnetlink(7), netlink(7)).
//!
//! Requests go out many at a time in one `sendmsg`, each asking for its own acknowledgement; the
//! kernel handles them before the call returns, so the answers only have to be collected. A chunk is
//! small enough for its acknowledgements to fit the default receive buffer.
//!
//! A socket belongs to the network namespace in which it was opened, whatever its thread does later.
//! Left out: multicast groups, except for hearing that a link is gone.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
    NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::io::Errno;

use crate::error::errno_of;
use crate::remove::only_removal_of;
use crate::{Error, NetNs};

/// Requests in one `sendmsg`. Each acknowledgement takes about 1 KiB of the receive buffer, which
/// has 208 KiB unless the administrator changed it.
const CHUNK: usize = 128;

/// The kernel makes dump messages as large as the reader's buffer, up to 32 KiB.
const RECEIVE: usize = 64 * 1024;

/// How often a dump is tried again when what it lists changed meanwhile.
const DUMP_ATTEMPTS: usize = 8;

/// `RTNLGRP_LINK` of linux/rtnetlink.h.
const LINK_GROUP: u32 = 1;

/// `NLM_F_ACK_TLVS` and `NLMSGERR_ATTR_MSG` of linux/netlink.h.
const ACK_TLVS: u16 = 0x200;
const ATTR_MSG: u16 = 1;

/// One request: a message and the flags besides `NLM_F_REQUEST | NLM_F_ACK`.
pub(crate) type Request = (RouteNetlinkMessage, u16);

/// What the kernel said to one request.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub errno: Errno,
    pub message: Option<String>,
}

/// A blocking rtnetlink socket of one network namespace.
pub struct Socket {
    socket: netlink_sys::Socket,
    sequence: u32,
    buffer: Vec<u8>,
    /// The namespace, if it is not that of the process: /proc/sys is read by a thread in there.
    pub(crate) netns: Option<NetNs>,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket")
            .field("fd", &self.socket.as_raw_fd())
            .field("netns", &self.netns)
            .finish_non_exhaustive()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.socket.as_raw_fd()
    }
}

impl Socket {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// If the kernel refuses one.
    pub fn open() -> Result<Self, Error> {
        let failed = |error: std::io::Error| Error::Open {
            errno: errno_of(&error),
        };
        let mut socket = netlink_sys::Socket::new(NETLINK_ROUTE).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        // Answers without the request in them, and with a reason in words.
        socket.set_cap_ack(true).map_err(failed)?;
        socket.set_ext_ack(true).map_err(failed)?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: vec![0; RECEIVE],
            netns: None,
        })
    }

    /// Opens a socket in another network namespace.
    ///
    /// # Errors
    /// If the namespace cannot be entered, or the kernel refuses a socket.
    pub fn open_in(netns: &NetNs) -> Result<Self, Error> {
        let mut socket = netns.run(Self::open)??;
        socket.netns = Some(netns.clone());
        Ok(socket)
    }

    /// Runs something in this socket's namespace: here if it is ours, else on a thread in there.
    pub(crate) fn inside<T: Send>(&self, run: impl FnOnce() -> T + Send) -> Result<T, Error> {
        match &self.netns {
            Some(netns) => netns.run(run),
            None => Ok(run()),
        }
    }

    /// Sends requests, and returns what the kernel said to each, in order.
    pub(crate) fn request(
        &mut self,
        requests: Vec<Request>,
    ) -> Result<Vec<Result<(), Refusal>>, Error> {
        let mut answers = Vec::with_capacity(requests.len());
        let mut requests = requests.into_iter().peekable();
        while requests.peek().is_some() {
            let first = self.sequence.wrapping_add(1);
            let mut bytes = Vec::new();
            let mut sent = 0;
            for (message, flags) in requests.by_ref().take(CHUNK) {
                self.encode(message, flags | NLM_F_ACK, &mut bytes);
                sent += 1;
            }
            self.send(&bytes)?;
            answers.extend(self.acknowledgements(first, sent)?);
        }
        Ok(answers)
    }

    /// Sends one request.
    pub(crate) fn one(&mut self, request: Request) -> Result<Result<(), Refusal>, Error> {
        let mut answers = self.request(vec![request])?;
        Ok(answers.pop().unwrap_or(Ok(())))
    }

    /// A request as it is sent, asking for an acknowledgement, and its number.
    pub(crate) fn prepared(&mut self, message: RouteNetlinkMessage) -> (u32, Vec<u8>) {
        let mut bytes = Vec::new();
        self.encode(message, NLM_F_ACK, &mut bytes);
        (self.sequence, bytes)
    }

    /// What the kernel said to a request that was sent.
    pub(crate) fn acknowledged(&mut self, sequence: u32) -> Result<Result<(), Refusal>, Error> {
        let mut answers = self.acknowledgements(sequence, 1)?;
        Ok(answers.pop().unwrap_or(Ok(())))
    }

    /// Another socket of this namespace, which hears that one link is gone and nothing else.
    pub(crate) fn removal_listener(&self, index: u32) -> Result<Self, Error> {
        let failed = |error| Error::exchange("listening for a link", &error);
        let listener = self.inside(Self::open)??;
        only_removal_of(index, listener.socket.as_raw_fd()).map_err(failed)?;
        listener.socket.add_membership(LINK_GROUP).map_err(failed)?;
        Ok(listener)
    }

    /// Reads what a listener heard; whether it was anything. Where too much happened at once, the
    /// kernel drops the news (ENOBUFS): then nothing was heard.
    pub(crate) fn heard(&mut self) -> Result<bool, Error> {
        match self.receive() {
            Err(error) if error.errno() == Some(Errno::NOBUFS) => Ok(false),
            length => length.map(|_| true),
        }
    }

    /// Lists everything of a kind. What cannot be read is left out, with a line in the log: it is
    /// some other program's.
    pub(crate) fn dump(
        &mut self,
        what: &'static str,
        message: &RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, Error> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut bytes = Vec::new();
            self.encode(message.clone(), NLM_F_DUMP, &mut bytes);
            self.send(&bytes)?;
            if let Some(found) = self.dumped(what)? {
                return Ok(found);
            }
        }
        Err(Error::Exchange {
            operation: format!("listing {what}, which keep changing"),
            errno: Errno::AGAIN,
        })
    }

    /// Asks about one thing. `None` if the kernel says that there is none.
    pub(crate) fn ask(
        &mut self,
        what: &'static str,
        message: RouteNetlinkMessage,
    ) -> Result<Option<RouteNetlinkMessage>, Error> {
        self.ask_with(what, message, 0)
    }

    /// Asks about one thing, with flags besides `NLM_F_REQUEST | NLM_F_ACK`.
    pub(crate) fn ask_with(
        &mut self,
        what: &'static str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Option<RouteNetlinkMessage>, Error> {
        let mut bytes = Vec::new();
        self.encode(message, flags | NLM_F_ACK, &mut bytes);
        self.send(&bytes)?;
        let mut found = None;
        loop {
            let length = self.receive()?;
            let mut rest = &self.buffer[..length];
            while let Some((header, payload, next)) = split(rest, what)? {
                rest = next;
                if header.sequence_number != self.sequence {
                    continue;
                }
                if header.message_type == NLMSG_ERROR {
                    return match refusal(header, payload) {
                        Ok(()) => Ok(found),
                        Err(refusal) if refusal.errno == Errno::NODEV => Ok(None),
                        Err(refusal) => Err(Error::Exchange {
                            operation: format!("asking about {what}"),
                            errno: refusal.errno,
                        }),
                    };
                }
                found = Some(decode(header, payload, what)?);
            }
        }
    }

    fn encode(&mut self, message: RouteNetlinkMessage, flags: u16, bytes: &mut Vec<u8>) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let start = bytes.len();
        bytes.resize(start + packet.buffer_len().next_multiple_of(4), 0);
        packet.serialize(&mut bytes[start..]);
    }

    fn send(&self, bytes: &[u8]) -> Result<(), Error> {
        loop {
            match self.socket.send(bytes, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::exchange("sending to the kernel", &error)),
            }
        }
    }

    /// One datagram into the buffer; its length.
    fn receive(&mut self) -> Result<usize, Error> {
        loop {
            match self.socket.recv(&mut &mut self.buffer[..], libc::MSG_TRUNC) {
                Ok(length) if length > self.buffer.len() => {
                    return Err(Error::Exchange {
                        operation: "receiving from the kernel".to_owned(),
                        errno: Errno::MSGSIZE,
                    });
                }
                Ok(length) => return Ok(length),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::exchange("receiving from the kernel", &error)),
            }
        }
    }

    fn acknowledgements(
        &mut self,
        first: u32,
        count: usize,
    ) -> Result<Vec<Result<(), Refusal>>, Error> {
        let mut answers = vec![None; count];
        let mut missing = count;
        while missing > 0 {
            let length = self.receive()?;
            let mut rest = &self.buffer[..length];
            while let Some((header, payload, next)) = split(rest, "a request")? {
                rest = next;
                let index = header.sequence_number.wrapping_sub(first) as usize;
                if header.message_type != NLMSG_ERROR {
                    continue;
                }
                if let Some(answer @ None) = answers.get_mut(index) {
                    *answer = Some(refusal(header, payload));
                    missing -= 1;
                }
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// The answers to one dump; `None` if it must be asked for again.
    fn dumped(&mut self, what: &'static str) -> Result<Option<Vec<RouteNetlinkMessage>>, Error> {
        let mut found = Vec::new();
        let mut interrupted = false;
        loop {
            let length = self.receive()?;
            let mut rest = &self.buffer[..length];
            while let Some((header, payload, next)) = split(rest, what)? {
                rest = next;
                if header.sequence_number != self.sequence {
                    continue;
                }
                interrupted |= header.flags & NLM_F_DUMP_INTR != 0;
                match header.message_type {
                    NLMSG_DONE => return Ok((!interrupted).then_some(found)),
                    NLMSG_ERROR => {
                        let errno =
                            refusal(header, payload).map_or_else(|no| no.errno, |()| Errno::IO);
                        return Err(Error::Exchange {
                            operation: format!("listing {what}"),
                            errno,
                        });
                    }
                    _ => match decode(header, payload, what) {
                        Ok(message) => found.push(message),
                        Err(error) => tracing::debug!(%error, "left out"),
                    },
                }
            }
        }
    }
}

/// A message's header and payload, and what follows it in the datagram.
type Framed<'a> = (NetlinkHeader, &'a [u8], &'a [u8]);

/// The first message of a datagram, and the rest; `None` at its end.
fn split<'a>(bytes: &'a [u8], what: &'static str) -> Result<Option<Framed<'a>>, Error> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let broken = || Error::Decode {
        what,
        message: format!("a message is cut off: {} bytes", bytes.len()),
    };
    let word = |at: usize| {
        bytes
            .get(at..at + 4)?
            .try_into()
            .ok()
            .map(u32::from_ne_bytes)
    };
    let half = |at: usize| {
        bytes
            .get(at..at + 2)?
            .try_into()
            .ok()
            .map(u16::from_ne_bytes)
    };
    let length = word(0).ok_or_else(broken)?;
    let mut header = NetlinkHeader::default();
    header.length = length;
    header.message_type = half(4).ok_or_else(broken)?;
    header.flags = half(6).ok_or_else(broken)?;
    header.sequence_number = word(8).ok_or_else(broken)?;
    header.port_number = word(12).ok_or_else(broken)?;
    let length = length as usize;
    let payload = bytes.get(16..length).ok_or_else(broken)?;
    let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    Ok(Some((header, payload, rest)))
}

fn decode(
    header: NetlinkHeader,
    payload: &[u8],
    what: &'static str,
) -> Result<RouteNetlinkMessage, Error> {
    RouteNetlinkMessage::deserialize(&header, payload).map_err(|error| Error::Decode {
        what,
        message: error.to_string(),
    })
}

/// Reads an `nlmsgerr` (netlink(7)): an acknowledgement if its number is 0.
fn refusal(header: NetlinkHeader, payload: &[u8]) -> Result<(), Refusal> {
    let number = payload
        .get(..4)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(-libc::EIO, i32::from_ne_bytes);
    if number == 0 {
        return Ok(());
    }
    // The header of the request follows, and the request itself unless it was left out.
    let request = match (header.flags & NLM_F_CAPPED, payload.get(4..8)) {
        (0, Some(bytes)) => bytes.try_into().map_or(16, u32::from_ne_bytes) as usize,
        _ => 16,
    };
    let words = payload
        .get(4 + request.next_multiple_of(4)..)
        .filter(|_| header.flags & ACK_TLVS != 0)
        .unwrap_or(&[]);
    let message = NlasIterator::new(words)
        .filter_map(Result::ok)
        .find(|nla| nla.kind() == ATTR_MSG)
        .map(|nla| {
            let text = nla.value();
            let end = text
                .iter()
                .position(|&byte| byte == 0)
                .unwrap_or(text.len());
            String::from_utf8_lossy(&text[..end]).into_owned()
        });
    Err(Refusal {
        errno: Errno::from_raw_os_error(-number),
        message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An `nlmsgerr` with an extended acknowledgement, as the kernel sends it.
    #[test]
    fn a_refusal_comes_with_its_number_and_words() {
        let mut payload = (-libc::EINVAL).to_ne_bytes().to_vec();
        payload.extend([0; 16]);
        payload.extend(16u16.to_ne_bytes());
        payload.extend(ATTR_MSG.to_ne_bytes());
        payload.extend(b"bad gateway\0");
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_CAPPED | ACK_TLVS;
        let refusal = refusal(header, &payload).unwrap_err();
        assert_eq!(refusal.errno, Errno::INVAL);
        assert_eq!(refusal.message.as_deref(), Some("bad gateway"));
    }

    proptest! {
        #[test]
        fn any_datagram_is_read_to_its_end(bytes in prop::collection::vec(any::<u8>(), 0..256), flags: u16) {
            let mut rest = &bytes[..];
            while let Ok(Some((mut header, payload, next))) = split(rest, "a test") {
                prop_assert!(next.len() < rest.len());
                header.flags = flags;
                let _ = refusal(header, payload);
                let _ = decode(header, payload, "a test");
                rest = next;
            }
        }
    }
}
