//! Real packets: receivers that say who they are and whom they saw, and senders that try.

use std::fmt;
use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use parfait_kernel::NetNs;

/// How a try ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Received at this address and port, from this address.
    Delivered(SocketAddr, IpAddr),
    /// A TCP reset, or ICMP port unreachable.
    Refused,
    /// The sender was told that there is no way.
    Unreachable,
    /// Nothing came back.
    Silence,
    /// Anything else.
    Other(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delivered(at, from) => write!(f, "delivered at {at}, from {from}"),
            Self::Refused => f.write_str("refused"),
            Self::Unreachable => f.write_str("unreachable"),
            Self::Silence => f.write_str("silence"),
            Self::Other(what) => f.write_str(what),
        }
    }
}

/// How long an answer is waited for.
#[derive(Clone, Copy)]
pub struct Patience {
    answer: Duration,
    connect: Duration,
}

impl Patience {
    /// Where none should come. A connection may take longer: an ICMP error that comes back while `connect` still
    /// sends the SYN, as it does on one machine, only counts when it answers the second SYN, a second later (RFC 6298).
    pub const SHORT: Self = Self {
        answer: Duration::from_millis(500),
        connect: Duration::from_millis(1800),
    };

    /// Where one should come: a busy machine takes its time.
    pub const LONG: Self = Self {
        answer: Duration::from_secs(20),
        connect: Duration::from_secs(20),
    };
}

/// Receivers; they end with this value.
pub struct Receivers {
    runtime: tokio::runtime::Runtime,
}

impl Receivers {
    pub fn new() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_io()
            .build()?;
        Ok(Self { runtime })
    }

    /// Listens in a namespace, over TCP and UDP. A receiver answers with the address it was reached
    /// at and the one it saw.
    pub fn listen(&self, netns: &NetNs, addresses: &[IpAddr], ports: &[u16]) -> Result<(), String> {
        let sockets = || -> std::io::Result<Vec<(TcpListener, UdpSocket)>> {
            let mut sockets = Vec::new();
            for address in addresses {
                for port in ports {
                    let at = SocketAddr::new(*address, *port);
                    let (tcp, udp) = (TcpListener::bind(at)?, UdpSocket::bind(at)?);
                    tcp.set_nonblocking(true)?;
                    udp.set_nonblocking(true)?;
                    sockets.push((tcp, udp));
                }
            }
            Ok(sockets)
        };
        let sockets = netns.run(sockets).map_err(|error| error.to_string())?;
        let _inside = self.runtime.enter();
        for (tcp, udp) in sockets.map_err(|error| format!("listen at {addresses:?}: {error}"))? {
            let text = |error: std::io::Error| error.to_string();
            let tcp = tokio::net::TcpListener::from_std(tcp).map_err(text)?;
            let udp = tokio::net::UdpSocket::from_std(udp).map_err(text)?;
            self.runtime.spawn(answer_tcp(tcp));
            self.runtime.spawn(answer_udp(udp));
        }
        Ok(())
    }
}

async fn answer_tcp(listener: tokio::net::TcpListener) {
    use tokio::io::AsyncWriteExt;
    while let Ok((mut stream, peer)) = listener.accept().await {
        if let Ok(local) = stream.local_addr() {
            let _ = stream
                .write_all(format!("{local} {}", peer.ip()).as_bytes())
                .await;
        }
    }
}

async fn answer_udp(socket: tokio::net::UdpSocket) {
    let mut buffer = [0; 64];
    let Ok(local) = socket.local_addr() else {
        return;
    };
    loop {
        // An ICMP error to an answer is reported here, and nobody's concern.
        if let Ok((_, peer)) = socket.recv_from(&mut buffer).await {
            let _ = socket
                .send_to(format!("{local} {}", peer.ip()).as_bytes(), peer)
                .await;
        }
    }
}

/// Sends one packet, or opens one connection, from the calling thread's namespace.
pub fn send(protocol: &str, to: SocketAddr, patience: Patience) -> Outcome {
    let answer = match protocol {
        "TCP" => connect(to, patience),
        _ => datagram(to, patience),
    };
    match answer {
        Ok(text) => parse(&text),
        Err(error) => match error.kind() {
            ErrorKind::ConnectionRefused => Outcome::Refused,
            // What the output hook rejects is refused on the spot: no ICMP is needed.
            ErrorKind::PermissionDenied => Outcome::Refused,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Outcome::Unreachable,
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Outcome::Silence,
            _ => Outcome::Other(error.to_string()),
        },
    }
}

/// Whether a UDP packet of this size, IP header included, arrives and is answered, without being cut into
/// fragments.
pub fn fits(to: SocketAddr, bytes: u32, patience: Patience) -> bool {
    let headers = match to {
        SocketAddr::V4(_) => 20 + 8,
        SocketAddr::V6(_) => 40 + 8,
    };
    let payload = vec![b'?'; usize::try_from(bytes.saturating_sub(headers)).unwrap_or(0)];
    let whole = |socket: &UdpSocket| match to {
        SocketAddr::V4(_) => {
            let probe = libc::IP_PMTUDISC_PROBE;
            set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, probe)
        }
        SocketAddr::V6(_) => {
            let probe = libc::IPV6_PMTUDISC_PROBE;
            set(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, probe)?;
            set(socket, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 1)
        }
    };
    let answered = || -> std::io::Result<()> {
        let socket = connected(to, patience)?;
        whole(&socket)?;
        socket.send(&payload)?;
        socket.recv(&mut [0; 128]).map(drop)
    };
    answered().is_ok()
}

fn connect(to: SocketAddr, patience: Patience) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, patience.connect)?;
    stream.set_read_timeout(Some(patience.answer))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn datagram(to: SocketAddr, patience: Patience) -> std::io::Result<String> {
    let socket = connected(to, patience)?;
    socket.send(b"who is there?")?;
    let mut buffer = [0; 128];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// A socket that takes answers only from the address that is asked, and that reports ICMP's host and
/// network unreachable too, not only port unreachable (ip(7), `IP_RECVERR`).
fn connected(to: SocketAddr, patience: Patience) -> std::io::Result<UdpSocket> {
    let (any, level, option): (IpAddr, _, _) = match to {
        SocketAddr::V4(_) => ([0; 4].into(), libc::IPPROTO_IP, libc::IP_RECVERR),
        SocketAddr::V6(_) => ([0; 16].into(), libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(patience.answer))?;
    set(&socket, level, option, 1)?;
    Ok(socket)
}

fn set(
    socket: &UdpSocket,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> std::io::Result<()> {
    // SAFETY: the pointer and the length are those of `value`, which outlives the call.
    let done = unsafe {
        let length = size_of_val(&value) as libc::socklen_t;
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            length,
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

fn parse(text: &str) -> Outcome {
    let parsed = text
        .split_once(' ')
        .and_then(|(at, from)| Some(Outcome::Delivered(at.parse().ok()?, from.parse().ok()?)));
    parsed.unwrap_or_else(|| Outcome::Other(format!("the answer {text:?}")))
}
