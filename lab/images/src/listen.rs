//! Opening the ports of a built-in server, on both IP families by one socket.
//!
//! A socket bound to `[::]` with `IPV6_V6ONLY` off takes IPv4 too (RFC 3493, section 3.7); where the
//! kernel has no IPv6 it is `0.0.0.0`. `SO_REUSEPORT` stays off, so that a second server on the same
//! port of a pod fails, as it does in a real one, instead of sharing its traffic.

use crate::catalogue::Protocol;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, ipproto, sockopt};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Why a port could not be opened, with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error(
        "cannot listen on {protocol} port {port}: it is taken (EADDRINUSE). The containers of a pod share one \
         network namespace, so another container of this pod listens on it, or, with hostNetwork, another \
         program of the node; give one of them another port"
    )]
    Taken { protocol: &'static str, port: u16 },
    #[error(
        "cannot listen on {protocol} port {port}: not permitted (EACCES). Ports below \
         net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE; use a higher port or add the capability"
    )]
    Denied { protocol: &'static str, port: u16 },
    #[error("this kernel has no {protocol} ({errno}), so port {port} is not served")]
    Unsupported {
        protocol: &'static str,
        port: u16,
        errno: Errno,
    },
    #[error("cannot listen on {protocol} port {port}: {operation}: {errno}")]
    Failed {
        protocol: &'static str,
        port: u16,
        operation: &'static str,
        errno: Errno,
    },
}

/// A listening TCP socket, not blocking. Port 0 takes a free one.
pub fn tcp(port: u16) -> Result<TcpListener, ListenError> {
    open(Protocol::Tcp, port).map(TcpListener::from)
}

/// A bound UDP socket, not blocking.
pub fn udp(port: u16) -> Result<UdpSocket, ListenError> {
    open(Protocol::Udp, port).map(UdpSocket::from)
}

/// A listening one-to-one SCTP socket (RFC 6458, section 4), which is used like a TCP one.
pub fn sctp(port: u16) -> Result<TcpListener, ListenError> {
    open(Protocol::Sctp, port).map(TcpListener::from)
}

fn open(protocol: Protocol, port: u16) -> Result<OwnedFd, ListenError> {
    let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    match open_at(protocol, v6) {
        Err((_, Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL)) => {
            let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
            open_at(protocol, v4)
        }
        result => result,
    }
    .map_err(|(operation, errno)| explain(protocol, port, operation, errno))
}

fn open_at(protocol: Protocol, address: SocketAddr) -> Result<OwnedFd, (&'static str, Errno)> {
    let (kind, ip_protocol) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        Protocol::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket =
        net::socket_with(family, kind, flags, Some(ip_protocol)).map_err(|e| ("socket", e))?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, false).map_err(|e| ("setsockopt IPV6_V6ONLY", e))?;
    }
    if protocol != Protocol::Udp {
        // A restarted container must not wait for the old one's connections in TIME_WAIT. For UDP this
        // option would let two sockets share a port.
        sockopt::set_socket_reuseaddr(&socket, true).map_err(|e| ("setsockopt SO_REUSEADDR", e))?;
    }
    net::bind(&socket, &address).map_err(|e| ("bind", e))?;
    if protocol != Protocol::Udp {
        net::listen(&socket, BACKLOG).map_err(|e| ("listen", e))?;
    }
    Ok(socket)
}

fn explain(protocol: Protocol, port: u16, operation: &'static str, errno: Errno) -> ListenError {
    let protocol = match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    };
    match errno {
        Errno::ADDRINUSE => ListenError::Taken { protocol, port },
        Errno::ACCESS | Errno::PERM => ListenError::Denied { protocol, port },
        Errno::PROTONOSUPPORT | Errno::SOCKTNOSUPPORT => ListenError::Unsupported {
            protocol,
            port,
            errno,
        },
        _ => ListenError::Failed {
            protocol,
            port,
            operation,
            errno,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_socket_takes_both_families() {
        let listener = tcp(0).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        if listener.local_addr().unwrap().is_ipv6() {
            std::net::TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
        }
    }

    #[test]
    fn a_taken_port_is_named_for_tcp_and_udp() {
        let first = tcp(0).unwrap();
        let port = first.local_addr().unwrap().port();
        let error = tcp(port).unwrap_err().to_string();
        assert!(error.contains(&format!("TCP port {port}")), "{error}");
        assert!(error.contains("another container of this pod"), "{error}");

        let first = udp(0).unwrap();
        let port = first.local_addr().unwrap().port();
        assert!(matches!(
            udp(port),
            Err(ListenError::Taken {
                protocol: "UDP",
                ..
            })
        ));
    }
}
