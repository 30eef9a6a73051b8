//! [`NftSocket`]: a blocking nfnetlink socket (nf_tables and conntrack; linux/nfnetlink.h).
//!
//! It stays in the network namespace that its thread was in when it was opened. A transaction must
//! reach the kernel in one `sendmsg`, and so fit the send buffer: as the machine's root the buffer
//! is made as large as needed; in a user namespace it is what net.core.wmem_max allows, and
//! [`NftSocket::room`] says how much that is.

use std::os::fd::{AsRawFd, RawFd};

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use rustix::io::Errno;
use rustix::net::sockopt;

use super::Error;
use super::attr::{self, Writer};

/// For answers: the kernel fills as much of it as it can for each read.
const RECEIVE_BUFFER: usize = 1 << 18;
/// What the kernel keeps of a send buffer for itself, generously.
const OVERHEAD: usize = 4096;
/// How often a dump that was interrupted by a change is tried again.
const TRIES: usize = 10;

pub(crate) const REQUEST: u16 = 0x1;
pub(crate) const ACK: u16 = 0x4;
pub(crate) const DUMP: u16 = 0x300;
const DUMP_INTERRUPTED: u16 = 0x10;
const ACK_CAPPED: u16 = 0x100;
const ACK_TLVS: u16 = 0x200;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSGHDR: usize = 16;
const NLMSGERR_ATTR_MSG: u16 = 1;
const NLMSGERR_ATTR_OFFS: u16 = 2;

/// A socket to netfilter in one network namespace.
pub struct NftSocket {
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
}

/// One message of an answer: nfgenmsg's family and the attributes after it.
pub(crate) struct Message<'a> {
    pub family: u8,
    pub attributes: &'a [u8],
}

/// A negative answer to one message of a transaction.
pub(super) struct Refusal {
    pub sequence: u32,
    pub errno: Errno,
    pub hint: String,
    /// Where in the message the kernel found fault, if it says.
    pub offset: Option<usize>,
}

impl AsRawFd for NftSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl NftSocket {
    /// Opens a socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// If the kernel has no nfnetlink.
    pub fn open() -> Result<Self, Error> {
        let mut socket =
            Socket::new(NETLINK_NETFILTER).map_err(Error::socket("opening a netlink socket"))?;
        let bound = socket.bind(&SocketAddr::new(0, 0));
        bound.map_err(Error::socket("binding a netlink socket"))?;
        // Without these two the kernel still answers, only with less to say or more to read.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        Ok(Self {
            socket,
            buffer: vec![0; RECEIVE_BUFFER],
            sequence: 1,
        })
    }

    /// The next sequence number of a request.
    pub(crate) fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        self.sequence
    }

    /// Reserves sequence numbers, giving the first.
    pub(super) fn reserve(&mut self, count: usize) -> u32 {
        let first = self.next_sequence();
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.sequence = self.sequence.wrapping_add(count);
        first
    }

    /// Makes room to send this many bytes at once, and tells how many there is room for.
    pub(super) fn room(&mut self, bytes: usize) -> usize {
        let now = |socket: &Socket| sockopt::socket_send_buffer_size(socket).unwrap_or(0);
        let wanted = bytes + OVERHEAD;
        if now(&self.socket) < wanted {
            // The kernel doubles what it is given, for its own overhead.
            let forced = sockopt::set_socket_send_buffer_size_force(&self.socket, wanted);
            if forced.is_err() {
                let _ = sockopt::set_socket_send_buffer_size(&self.socket, wanted);
            }
        }
        now(&self.socket).saturating_sub(OVERHEAD)
    }

    /// Sends a transaction and collects what the kernel refused of it.
    pub(super) fn transact(&mut self, bytes: &[u8]) -> Result<Vec<Refusal>, Error> {
        let sent = self.socket.send(bytes, 0);
        sent.map_err(Error::socket("sending a transaction"))?;
        let mut refusals = Vec::new();
        // The kernel works while `send` runs: all answers are here when it returns.
        loop {
            let mut free = self.buffer.as_mut_slice();
            let received = match self.socket.recv(&mut free, libc::MSG_DONTWAIT) {
                Ok(received) => received,
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::AGAIN) => return Ok(refusals),
                    // More refusals than fit the receive buffer; those that came tell enough.
                    Some(Errno::NOBUFS) if !refusals.is_empty() => continue,
                    _ => return Err(Error::socket("reading the answer")(error)),
                },
            };
            let messages = self.buffer.get(..received).unwrap_or_default();
            refusals.extend(split(messages).filter_map(|message| message.refusal()));
        }
    }

    /// Sends one request and hands over each message of the answer, all at once at its end, so that
    /// a dump that was interrupted by a change and is tried again leaves no trace.
    pub(crate) fn request<T>(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        operation: &'static str,
        body: impl Fn(&mut Writer),
        mut read: impl FnMut(&Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let fail = |errno| Error::Socket { operation, errno };
        for _ in 0..TRIES {
            let sequence = self.next_sequence();
            let mut writer = Writer::default();
            let start = writer.message(kind, REQUEST | flags, sequence, family, 0);
            body(&mut writer);
            writer.end_message(start);
            let sent = self.socket.send(writer.bytes(), 0);
            sent.map_err(Error::socket(operation))?;
            let mut answers = Vec::new();
            match self.collect(sequence, flags, operation, &mut read, &mut answers)? {
                Ended::Whole => return Ok(answers),
                Ended::Interrupted => {}
                Ended::Refused(errno) => return Err(fail(errno)),
            }
        }
        Err(fail(Errno::INTR))
    }

    fn collect<T>(
        &mut self,
        sequence: u32,
        flags: u16,
        operation: &'static str,
        read: &mut impl FnMut(&Message<'_>) -> Option<T>,
        answers: &mut Vec<T>,
    ) -> Result<Ended, Error> {
        let mut interrupted = false;
        loop {
            let mut free = self.buffer.as_mut_slice();
            let received = self.socket.recv(&mut free, 0);
            let received = received.map_err(Error::socket(operation))?;
            let messages = self.buffer.get(..received).unwrap_or_default();
            for raw in split(messages).filter(|raw| raw.sequence == sequence) {
                interrupted |= raw.flags & DUMP_INTERRUPTED != 0;
                match raw.kind {
                    NLMSG_DONE if interrupted => return Ok(Ended::Interrupted),
                    NLMSG_ERROR | NLMSG_DONE => {
                        return Ok(raw
                            .refusal()
                            .map_or(Ended::Whole, |r| Ended::Refused(r.errno)));
                    }
                    _ => answers.extend(raw.message().as_ref().and_then(&mut *read)),
                }
                if flags & (DUMP | ACK) == 0 {
                    return Ok(Ended::Whole);
                }
            }
        }
    }
}

enum Ended {
    Whole,
    Interrupted,
    Refused(Errno),
}

struct Raw<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &'a [u8],
}

impl<'a> Raw<'a> {
    fn message(&self) -> Option<Message<'a>> {
        let (header, attributes) = self.payload.split_at_checked(4)?;
        Some(Message {
            family: header[0],
            attributes,
        })
    }

    /// What nlmsgerr says, or the number at the end of a dump; `None` for success.
    fn refusal(&self) -> Option<Refusal> {
        let (number, rest) = self.payload.split_at_checked(4)?;
        let number = i32::from_ne_bytes(number.try_into().ok()?);
        if number == 0 || !matches!(self.kind, NLMSG_ERROR | NLMSG_DONE) {
            return None;
        }
        let told = if self.kind == NLMSG_ERROR && self.flags & ACK_TLVS != 0 {
            let echoed = u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?);
            let echoed = match self.flags & ACK_CAPPED {
                0 => usize::try_from(echoed).unwrap_or(usize::MAX),
                _ => NLMSGHDR,
            };
            rest.get(echoed.next_multiple_of(4)..).unwrap_or_default()
        } else {
            &[]
        };
        let offset = attr::find(told, NLMSGERR_ATTR_OFFS)
            .and_then(|offset| Some(u32::from_ne_bytes(offset.value.try_into().ok()?)));
        Some(Refusal {
            sequence: self.sequence,
            errno: Errno::from_raw_os_error(number.saturating_neg()),
            hint: attr::find(told, NLMSGERR_ATTR_MSG).map_or_else(String::new, |m| m.str()),
            offset: offset.and_then(|offset| usize::try_from(offset).ok()),
        })
    }
}

/// The netlink messages in what one read gave, up to the first that does not fit.
fn split(mut bytes: &[u8]) -> impl Iterator<Item = Raw<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.get(..NLMSGHDR)?;
        let length = u32::from_ne_bytes(header[..4].try_into().ok()?);
        let length = usize::try_from(length).ok()?;
        let payload = bytes.get(NLMSGHDR..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Raw {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: u32::from_ne_bytes(header[8..12].try_into().ok()?),
            payload,
        })
    })
}
