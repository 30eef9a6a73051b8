//! Opening the server's sockets: UDP and TCP, each bound to one address.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 256;
/// What may wait to be read, in bytes: a burst of some thousand questions.
const RECEIVE_BUFFER: usize = 1 << 20;

/// Bound sockets, not blocking, ready for [`super::run`].
#[derive(Debug, Default)]
pub struct Sockets {
    /// One for each address.
    pub udp: Vec<UdpSocket>,
    /// One for each address.
    pub tcp: Vec<TcpListener>,
}

impl Sockets {
    /// The addresses that clients can ask at, as the kernel has them: port 0 has become a real one.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let sockets = self.udp.iter();
        sockets.filter_map(|s| s.local_addr().ok()).collect()
    }
}

/// A socket that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another server is there.
    #[error(
        "DNS cannot listen at {address} ({transport}): it is taken (EADDRINUSE); stop the other DNS server \
         on this node, or let it listen at addresses of its own instead of all"
    )]
    Taken {
        /// The address.
        address: SocketAddr,
        /// `UDP` or `TCP`.
        transport: &'static str,
    },
    /// Anything else.
    #[error("DNS cannot listen at {address} ({transport}): {operation}: {errno}")]
    Failed {
        /// The address.
        address: SocketAddr,
        /// `UDP` or `TCP`.
        transport: &'static str,
        /// The system call.
        operation: &'static str,
        /// Its error.
        errno: Errno,
    },
}

/// Opens UDP and TCP at each address. The addresses need not be the node's yet (`IP_FREEBIND`): the
/// internet layer adds the Service's, and which of the two comes first does not matter.
///
/// # Errors
/// At the first address that cannot be bound.
pub fn bind(addresses: &[SocketAddr]) -> Result<Sockets, BindError> {
    let mut sockets = Sockets::default();
    for address in addresses {
        let udp = UdpSocket::from(open(*address, SocketType::DGRAM)?);
        // TCP listens at the port that UDP has got, where that was left to the kernel.
        let port = udp.local_addr().map_or(address.port(), |a| a.port());
        let same = SocketAddr::new(address.ip(), port);
        sockets.tcp.push(open(same, SocketType::STREAM)?.into());
        sockets.udp.push(udp);
    }
    Ok(sockets)
}

fn open(address: SocketAddr, kind: SocketType) -> Result<OwnedFd, BindError> {
    let transport = match kind {
        SocketType::DGRAM => "UDP",
        _ => "TCP",
    };
    try_open(address, kind).map_err(|(operation, errno)| match errno {
        Errno::ADDRINUSE => BindError::Taken { address, transport },
        errno => BindError::Failed {
            address,
            transport,
            operation,
            errno,
        },
    })
}

fn try_open(address: SocketAddr, kind: SocketType) -> Result<OwnedFd, (&'static str, Errno)> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let protocol = match kind {
        SocketType::DGRAM => ipproto::UDP,
        _ => ipproto::TCP,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket =
        net::socket_with(family, kind, flags, Some(protocol)).map_err(|e| ("socket", e))?;
    match address {
        SocketAddr::V4(_) => sockopt::set_ip_freebind(&socket, true),
        SocketAddr::V6(_) => sockopt::set_ipv6_v6only(&socket, true)
            .and_then(|()| sockopt::set_ipv6_freebind(&socket, true)),
    }
    .map_err(|e| ("setsockopt IP_FREEBIND", e))?;
    if kind == SocketType::STREAM {
        sockopt::set_socket_reuseaddr(&socket, true).map_err(|e| ("setsockopt SO_REUSEADDR", e))?;
    } else {
        // The kernel may give less; a smaller buffer only means that a burst is asked again.
        let _ = sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER);
    }
    net::bind(&socket, &address).map_err(|e| ("bind", e))?;
    if kind == SocketType::STREAM {
        net::listen(&socket, BACKLOG).map_err(|e| ("listen", e))?;
    }
    Ok(socket)
}
