//! The other half of `lab check`, running inside a pod's or node's network: connects for real.
//!
//! It is this program again, which entered the namespaces before it started any thread. It reads
//! attempts as JSON from standard input and writes outcomes to standard output. Names are looked up
//! by the C library with the pod's own resolv.conf and hosts, as the pod's programs do.

use std::ffi::CString;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::plan::Transport;

/// How many connections are tried at a time.
const PARALLEL: usize = 32;

/// How long a UDP packet's refusal is waited for when there is no answer.
const UDP_PATIENCE: Duration = Duration::from_millis(300);

/// A connection to try from here.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    pub host: String,
    pub port: u16,
    pub transport: Transport,
}

/// What the other side is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Batch {
    pub requests: Vec<Request>,
    pub timeout_millis: u64,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "result", content = "detail")]
pub enum Verdict {
    /// TCP: connected. UDP: an answer came.
    Connected,
    /// UDP: no answer, but no refusal either.
    Sent,
    /// The DNS says that there is no such name.
    NoSuchName,
    /// The name could not be looked up.
    LookupFailed(String),
    /// The connection failed.
    Failed(String),
}

/// What was tried at one address, or that there was none.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Which request.
    pub request: usize,
    pub address: Option<SocketAddr>,
    #[serde(flatten)]
    pub verdict: Verdict,
    pub micros: u64,
}

/// Serves one batch; the exit code.
pub fn serve() -> u8 {
    let served = || -> io::Result<()> {
        let mut text = String::new();
        io::stdin().take(16 << 20).read_to_string(&mut text)?;
        let batch: Batch = serde_json::from_str(&text)?;
        let mut out = io::stdout().lock();
        serde_json::to_writer(&mut out, &try_all(&batch))?;
        out.flush()
    };
    match served() {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("parfait: {error}");
            1
        }
    }
}

fn try_all(batch: &Batch) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let timeout = Duration::from_millis(batch.timeout_millis.max(1));
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(request) = batch.requests.get(index) else {
                return;
            };
            let outcomes = try_one(index, request, timeout);
            done.lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .extend(outcomes);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL.min(batch.requests.len()) {
            scope.spawn(work);
        }
    });
    let mut outcomes = done
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    outcomes.sort_by_key(|outcome| (outcome.request, outcome.address));
    outcomes
}

/// Tries every address of the name: that IPv4 works says nothing about IPv6.
fn try_one(request: usize, wanted: &Request, timeout: Duration) -> Vec<Outcome> {
    let began = Instant::now();
    let addresses = match lookup(&wanted.host) {
        Ok(addresses) => addresses,
        Err(verdict) => {
            let micros = began.elapsed().as_micros() as u64;
            return vec![Outcome {
                request,
                address: None,
                verdict,
                micros,
            }];
        }
    };
    let each = addresses.into_iter().map(|ip| {
        let address = SocketAddr::new(ip, wanted.port);
        let began = Instant::now();
        let tried = match wanted.transport {
            Transport::Tcp => {
                TcpStream::connect_timeout(&address, timeout).map(|_| Verdict::Connected)
            }
            Transport::Udp => ask(address, timeout),
        };
        let verdict = tried.unwrap_or_else(|error| Verdict::Failed(plainly(&error)));
        Outcome {
            request,
            address: Some(address),
            verdict,
            micros: began.elapsed().as_micros() as u64,
        }
    });
    each.collect()
}

/// Sends a packet and waits for an answer, or for the refusal that an ICMP error becomes. The
/// packet is a DNS question, which a DNS server answers and an echo server echoes.
fn ask(address: SocketAddr, timeout: Duration) -> io::Result<Verdict> {
    const QUESTION: &[u8] =
        b"\x70\x66\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x0akubernetes\x07default\x03svc\x07cluster\x05local\x00\x00\x01\x00\x01";
    let any = if address.is_ipv4() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    } else {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(UDP_PATIENCE.min(timeout)))?;
    socket.send(QUESTION)?;
    match socket.recv(&mut [0; 2048]) {
        Ok(_) => Ok(Verdict::Connected),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
            ) =>
        {
            Ok(Verdict::Sent)
        }
        Err(error) => Err(error),
    }
}

/// The addresses of a name, in the C library's order. `std` hides which error it was.
fn lookup(host: &str) -> Result<Vec<IpAddr>, Verdict> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let Ok(name) = CString::new(host) else {
        return Err(Verdict::NoSuchName);
    };
    // SAFETY: all zeroes is a valid addrinfo: no hints but the socket type, which keeps each address
    // from being listed three times.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_socktype = libc::SOCK_STREAM;
    let mut list = std::ptr::null_mut();
    // SAFETY: the name ends with NUL, the hints are initialised, the result is freed below.
    let code = unsafe {
        libc::getaddrinfo(
            name.as_ptr(),
            std::ptr::null(),
            &raw const hints,
            &raw mut list,
        )
    };
    match code {
        0 => {}
        libc::EAI_NONAME | libc::EAI_NODATA => return Err(Verdict::NoSuchName),
        libc::EAI_AGAIN => return Err(Verdict::LookupFailed("the DNS does not answer".to_owned())),
        libc::EAI_SYSTEM => {
            return Err(Verdict::LookupFailed(
                io::Error::last_os_error().to_string(),
            ));
        }
        _ => {
            return Err(Verdict::LookupFailed(format!(
                "the DNS answers with an error ({code})"
            )));
        }
    }
    let mut addresses = Vec::new();
    let mut entry = list;
    while !entry.is_null() {
        // SAFETY: the list is getaddrinfo's until it is freed; each address has its family's type.
        let address = unsafe {
            let info = &*entry;
            entry = info.ai_next;
            match info.ai_family {
                libc::AF_INET => {
                    let v4 = &*info.ai_addr.cast::<libc::sockaddr_in>();
                    Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr))))
                }
                libc::AF_INET6 => {
                    let v6 = &*info.ai_addr.cast::<libc::sockaddr_in6>();
                    Some(IpAddr::V6(Ipv6Addr::from(v6.sin6_addr.s6_addr)))
                }
                _ => None,
            }
        };
        addresses.extend(address.filter(|a| !addresses.contains(a)));
    }
    // SAFETY: the list came from getaddrinfo and is not used after this.
    unsafe { libc::freeaddrinfo(list) };
    Ok(addresses)
}

fn plainly(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "refused".to_owned(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "timed out".to_owned(),
        io::ErrorKind::HostUnreachable => "host unreachable".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        io::ErrorKind::ConnectionReset => "reset".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_told_apart() {
        let open = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let echo = UdpSocket::bind("127.0.0.1:0").unwrap();
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = echo.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            let (n, from) = echo.recv_from(&mut buffer).unwrap();
            echo.send_to(&buffer[..n], from).unwrap();
        });
        let request = |host: &str, port, transport| Request {
            host: host.to_owned(),
            port,
            transport,
        };
        let batch = Batch {
            requests: vec![
                request(
                    "127.0.0.1",
                    open.local_addr().unwrap().port(),
                    Transport::Tcp,
                ),
                request("127.0.0.1", closed, Transport::Tcp),
                request("127.0.0.1", port, Transport::Udp),
                request(
                    "127.0.0.1",
                    silent.local_addr().unwrap().port(),
                    Transport::Udp,
                ),
                request("127.0.0.1", closed, Transport::Udp),
                request("nul\0", 1, Transport::Tcp),
            ],
            timeout_millis: 1000,
        };
        let verdicts: Vec<Verdict> = try_all(&batch).into_iter().map(|o| o.verdict).collect();
        let refused = Verdict::Failed("refused".to_owned());
        assert_eq!(
            verdicts,
            [
                Verdict::Connected,
                refused.clone(),
                Verdict::Connected,
                Verdict::Sent,
                refused,
                Verdict::NoSuchName
            ]
        );
    }
}
