//! A packet that fits no connection must not reach a pod untranslated: the pod would answer the endpoint itself, with a
//! reset, and end the connection that it knows nothing of (kubernetes/kubernetes#74839).
//!
//! ```text
//!   client ──▶ 10.96.0.20:80 ──▶ one:8080      the connection
//!   client ◀── one:8080, sequence out of the window      conntrack: invalid, so its source is not translated back
//! ```
//!
//! Needs root (or a user namespace) and `ip`.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

#[path = "../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;
mod one_node;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use one_node::Machines;
use parfait_agent::Upkeep;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, recv, sendto, socket};

const CLUSTER: &str = "
config clusterCIDRs=10.244.0.0/16 serviceCIDRs=10.96.0.0/16
node node-1 pods=10.244.1.0/24,fd00:10:244:1::/64 underlay=192.168.77.11/24,fd00:77::11/64
pod client on=node-1 ip=10.244.1.2,fd00:10:244:1::2
pod one on=node-1 ip=10.244.1.3,fd00:10:244:1::3
service web ip=10.96.0.20 ports=web:80/TCP>8080
slice web-a of=web ports=web:8080/TCP endpoints=10.244.1.3@node-1/one
";

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 2);
const ENDPOINT: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 3);
const PORT: u16 = 8080;

/// What the header of a TCP segment says (RFC 9293 section 3.1).
#[derive(Clone, Copy, Debug)]
struct Segment {
    source: u16,
    destination: u16,
    sequence: u32,
    acknowledged: u32,
}

impl Segment {
    /// From an IP packet without options.
    fn read(packet: &[u8]) -> Self {
        let tcp = &packet[20..];
        let two = |at: usize| u16::from_be_bytes([tcp[at], tcp[at + 1]]);
        let four = |at: usize| u32::from(two(at)) << 16 | u32::from(two(at + 2));
        Self {
            source: two(0),
            destination: two(2),
            sequence: four(4),
            acknowledged: four(8),
        }
    }

    /// An empty ACK from the endpoint to the client, with its checksum.
    fn write(self) -> [u8; 20] {
        let mut tcp = [0; 20];
        tcp[0..2].copy_from_slice(&self.source.to_be_bytes());
        tcp[2..4].copy_from_slice(&self.destination.to_be_bytes());
        tcp[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        tcp[8..12].copy_from_slice(&self.acknowledged.to_be_bytes());
        // Five words of header; ACK; a window.
        tcp[12..16].copy_from_slice(&[5 << 4, 0x10, 0x10, 0]);
        let pseudo = [ENDPOINT.octets(), CLIENT.octets(), [0, 6, 0, 20]].concat();
        let words = pseudo.chunks(2).chain(tcp.chunks(2));
        let sum: u32 = words.map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let folded = (folded & 0xffff) + (folded >> 16);
        let checksum = !u16::try_from(folded).unwrap();
        tcp[16..18].copy_from_slice(&checksum.to_be_bytes());
        tcp
    }
}

#[test]
fn a_packet_of_no_connection_does_not_reset_one() {
    let pods = [("default", "client", 2), ("default", "one", 3)];
    let test = "a_packet_of_no_connection_does_not_reset_one";
    let Some(machines) = Machines::new(test, &pods) else {
        return;
    };
    let snapshot = fixture::cluster(CLUSTER);
    let round = || {
        let mut agent = Upkeep::open("node-1").unwrap();
        agent.round(&snapshot, &BTreeSet::new()).unwrap()
    };
    let round = machines.node.run(round).unwrap();
    assert!(round.tables, "{:?}", round.failures);
    let one = &machines.pods["one"];
    let listen = || TcpListener::bind((ENDPOINT, PORT)).unwrap();
    let listener = one.run(listen).unwrap();
    let raw = || socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::TCP)).unwrap();
    let raw: OwnedFd = one.run(raw).unwrap();
    let to: SocketAddr = "10.96.0.20:80".parse().unwrap();
    let connect = || TcpStream::connect(to).unwrap();
    let mut client = machines.pods["client"].run(connect).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(b"first").unwrap();
    let mut buffer = [0; 5];
    server.read_exact(&mut buffer).unwrap();

    // The last segment that came is that of these five bytes.
    let mut packet = [0; 256];
    let mut last = None;
    while let Ok((length, _)) = recv(&raw, &mut packet, RecvFlags::DONTWAIT) {
        last = Some(Segment::read(&packet[..length]));
    }
    let seen = last.unwrap();
    let stray = Segment {
        source: PORT,
        destination: seen.source,
        sequence: seen.acknowledged.wrapping_add(1 << 30),
        // So that the reset which answers it would count.
        acknowledged: seen.sequence.wrapping_add(5),
    };
    let target = SocketAddrV4::new(CLIENT, 0);
    let sent = sendto(&raw, &stray.write(), SendFlags::empty(), &target).unwrap();
    assert_eq!(sent, 20);
    std::thread::sleep(Duration::from_millis(300));

    client.write_all(b"later").unwrap();
    server.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"later");
    server.write_all(b"still").unwrap();
    client.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"still");
}
