//! SCTP through Services, without SCTP in the kernel: associations are opened by hand, on raw sockets.
//!
//! ```text
//!   client ── INIT, COOKIE ECHO, DATA ──▶ 10.96.0.30:80 ═▶ one or two at 8080
//!          ◀─ INIT ACK, COOKIE ACK ──────
//! ```
//!
//! Each packet's ports and checksum are looked at where it arrives (RFC 9260, sections 3 and 6.8).

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Instant;

use parfait_cluster::Snapshot;
use parfait_kernel::NetNs;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, ipproto, recv, recvfrom,
    send, sendto, socket_with,
};

use super::{CLUSTER, Net, PATIENCE, fixture, slices};

const OWN: [&str; 2] = ["10.96.0.30:80", "[fd00:10:96::30]:80"];
const NODE_PORT: &str = "192.168.77.11:30080";
const EXTERNAL: &str = "203.0.113.30:80";

/// The first client's port; SCTP's clients often fix theirs.
const FROM: u16 = 36_412;
/// The servers' port.
const AT: u16 = 8080;

/// What both ends want to read in front of packets from the other.
const TAG: u32 = 0x0bad_cafe;

const DATA: &[u8] = b"\0\x03\0\x14\0\0\0\x01\0\0\0\0\0\0\0\0last";
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const COOKIE_ECHO: &[u8] = b"\x0a\0\0\x08crumb123";
const COOKIE_ACK: &[u8] = b"\x0b\0\0\x04";

fn cluster(endpoints: &[&str]) -> Snapshot {
    let service = "service s1 ip=10.96.0.30,fd00:10:96::30 ports=s1:80/SCTP>8080@30080 externalIPs=203.0.113.30";
    fixture::clusters(&[CLUSTER, service, &slices("s1", "s1:8080/SCTP", endpoints)])
}

/// A packet's ports, and what follows the header.
type Packet = (u16, u16, Vec<u8>);

/// `INIT` or `INIT ACK`: tag, window, streams, the first number, and in the latter a cookie.
fn opening(kind: u8) -> Vec<u8> {
    let cookie: &[u8] = if kind == INIT {
        &[]
    } else {
        b"\0\x07\0\x08crum"
    };
    let length = u8::try_from(20 + cookie.len()).unwrap();
    let fixed = [
        &[kind, 0, 0, length],
        &TAG.to_be_bytes()[..],
        b"\0\x01\0\0\0\x01\0\x01\0\0\0\x01",
    ];
    [&fixed.concat(), cookie].concat()
}

/// CRC32c, as in RFC 9260, appendix A.
fn checksum(bytes: &[u8]) -> [u8; 4] {
    let mut sum = !0_u32;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            let low = sum & 1 == 1;
            sum = sum >> 1 ^ if low { 0x82f6_3b78 } else { 0 };
        }
    }
    (!sum).to_le_bytes()
}

fn write(from: u16, to: u16, chunk: &[u8]) -> Vec<u8> {
    // Who opens knows nobody's tag yet.
    let tag = if chunk[0] == INIT { 0 } else { TAG };
    let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
    let mut bytes = [&ports[..], &tag.to_be_bytes(), &[0; 4], chunk].concat();
    let sum = checksum(&bytes);
    bytes[8..12].copy_from_slice(&sum);
    bytes
}

/// Reads what a raw socket gave; IPv4 ones give the IP header too.
fn read(bytes: &[u8]) -> Packet {
    let header = match bytes[0] >> 4 {
        4 => usize::from(bytes[0] & 15) * 4,
        _ => 0,
    };
    let mut bytes = bytes[header..].to_vec();
    let sum: [u8; 4] = bytes[8..12].try_into().unwrap();
    bytes[8..12].fill(0);
    assert_eq!(sum, checksum(&bytes), "the checksum is of what arrived");
    let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    (port(0), port(2), bytes[12..].to_vec())
}

fn raw(netns: &NetNs, family: AddressFamily) -> OwnedFd {
    let open = || {
        socket_with(
            family,
            SocketType::RAW,
            SocketFlags::NONBLOCK,
            Some(ipproto::SCTP),
        )
    };
    netns.run(open).unwrap().unwrap()
}

fn family(of: SocketAddr) -> AddressFamily {
    match of {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    }
}

/// Raw sockets know no ports.
fn portless(mut of: SocketAddr) -> SocketAddr {
    of.set_port(0);
    of
}

/// Somebody who opens associations from one port.
struct Opener {
    socket: OwnedFd,
    port: u16,
    to: SocketAddr,
}

impl Opener {
    fn new(netns: &NetNs, port: u16, to: &str) -> Self {
        let to: SocketAddr = to.parse().unwrap();
        let socket = raw(netns, family(to));
        connect(&socket, &portless(to)).unwrap();
        Self { socket, port, to }
    }

    fn send(&self, chunk: &[u8]) {
        let bytes = write(self.port, self.to.port(), chunk);
        send(&self.socket, &bytes, SendFlags::empty()).unwrap();
    }

    /// What comes back; an error is what ICMP told.
    fn answer(&self) -> Result<Packet, Errno> {
        let mut buffer = [0; 256];
        wait(
            || match recv(&self.socket, &mut buffer, RecvFlags::empty()) {
                Ok((_, length)) => Some(Ok(read(&buffer[..length]))),
                Err(Errno::AGAIN) => None,
                Err(errno) => Some(Err(errno)),
            },
        )
        .unwrap_or(Err(Errno::TIMEDOUT))
    }
}

fn wait<T>(mut until: impl FnMut() -> Option<T>) -> Option<T> {
    let begin = Instant::now();
    while begin.elapsed() < PATIENCE {
        if let Some(found) = until() {
            return Some(found);
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    None
}

/// What pods one and two receive.
struct Servers([[OwnedFd; 2]; 2]);

impl Servers {
    fn new(net: &Net) -> Self {
        let families = [AddressFamily::INET, AddressFamily::INET6];
        Self(["one", "two"].map(|pod| families.map(|family| raw(net.pod(pod), family))))
    }

    /// Which one gets the next packet, and whose it is.
    fn next(&self) -> Option<(usize, SocketAddr, Packet)> {
        let mut buffer = [0; 256];
        wait(|| {
            let all = self.0.iter().enumerate();
            let mut all = all.flat_map(|(index, sockets)| sockets.iter().map(move |s| (index, s)));
            all.find_map(|(index, socket)| {
                let (_, length, from) = recvfrom(socket, &mut buffer, RecvFlags::empty()).ok()?;
                let from = SocketAddr::try_from(from?).unwrap();
                let packet = read(&buffer[..length]);
                Some((index, SocketAddr::new(from.ip(), packet.0), packet))
            })
        })
    }

    /// Answers as that one.
    fn answer(&self, index: usize, to: SocketAddr, chunk: &[u8]) {
        let socket = &self.0[index][usize::from(to.is_ipv6())];
        let bytes = write(AT, to.port(), chunk);
        sendto(socket, &bytes, SendFlags::empty(), &portless(to)).unwrap();
    }

    /// An association is opened, whole. Which server has it.
    fn open(&self, client: &Opener) -> usize {
        let mut chosen = None;
        let rounds = [
            (opening(INIT), opening(INIT_ACK)),
            (COOKIE_ECHO.to_vec(), COOKIE_ACK.to_vec()),
        ];
        for (asked, answered) in rounds {
            client.send(&asked);
            let (index, from, packet) = self.next().unwrap_or_else(|| panic!("to {}", client.to));
            assert_eq!(packet, (client.port, AT, asked), "to {}", client.to);
            assert_eq!(*chosen.get_or_insert(index), index, "to {}", client.to);
            self.answer(index, from, &answered);
            let back = client
                .answer()
                .unwrap_or_else(|errno| panic!("to {}: {errno}", client.to));
            assert_eq!(
                back,
                (client.to.port(), client.port, answered),
                "to {}",
                client.to
            );
        }
        chosen.unwrap()
    }

    /// Which server gets more of an association.
    fn data(&self, client: &Opener) -> Option<usize> {
        client.send(DATA);
        let (index, _, packet) = self.next()?;
        assert_eq!(packet, (client.port, AT, DATA.to_vec()), "to {}", client.to);
        Some(index)
    }
}

/// One for each address, and with a port of its own: two flows of one port to one endpoint would have to share it.
fn openers(net: &Net) -> Vec<Opener> {
    let outside = &net.machines.outside;
    let inside = OWN.map(|to| (net.pod("client"), to));
    let all = inside
        .into_iter()
        .chain([NODE_PORT, EXTERNAL].map(|to| (outside, to)));
    let all = (FROM..).zip(all);
    all.map(|(port, (netns, to))| Opener::new(netns, port, to))
        .collect()
}

/// The states of what is tracked to one place.
fn states(net: &Net, client: &Opener) -> Vec<&'static str> {
    let all = net.connections();
    let of_it = all
        .iter()
        .filter(|entry| entry.original.destination == client.to);
    of_it.map(|entry| entry.state()).collect()
}

#[test]
fn an_association_is_opened_through_every_address_of_a_service() {
    let Some(mut net) = Net::new("an_association_is_opened_through_every_address_of_a_service")
    else {
        return;
    };
    net.round(&cluster(&["one"]));
    let servers = Servers::new(&net);
    for client in openers(&net) {
        assert_eq!(servers.open(&client), 0, "{}", client.to);
        assert_eq!(states(&net, &client), ["ESTABLISHED"], "{}", client.to);
    }
}

#[test]
fn an_association_with_nobody_is_refused_at_once() {
    let Some(mut net) = Net::new("an_association_with_nobody_is_refused_at_once") else {
        return;
    };
    net.round(&cluster(&[]));
    for client in openers(&net) {
        client.send(&opening(INIT));
        assert_eq!(client.answer(), Err(Errno::CONNREFUSED), "{}", client.to);
    }
}

/// kubernetes/kubernetes#101607, #125467 for SCTP: clients have one port and try for ever.
#[test]
fn an_association_ends_with_its_endpoint_and_not_before() {
    let Some(mut net) = Net::new("an_association_ends_with_its_endpoint_and_not_before") else {
        return;
    };
    net.round(&cluster(&["one"]));
    let servers = Servers::new(&net);
    let clients = openers(&net);
    for client in &clients {
        assert_eq!(servers.open(client), 0, "{}", client.to);
    }
    // It may be draining for as long as it is listed, across a restart too.
    net.round(&cluster(&["one!terminating", "two"]));
    net.restart();
    net.look(&cluster(&["one!terminating", "two"]));
    for client in &clients {
        assert_eq!(servers.data(client), Some(0), "{} drains", client.to);
    }
    net.round(&cluster(&["two"]));
    for client in &clients {
        assert_eq!(states(&net, client), [""; 0], "{}", client.to);
        assert_eq!(servers.open(client), 1, "{}", client.to);
    }
    // And what goes while no agent runs.
    net.restart();
    net.round(&cluster(&["one"]));
    for client in &clients {
        assert_eq!(servers.open(client), 0, "{}", client.to);
    }
}
