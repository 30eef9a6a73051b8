//! What users of Services wait for in vain elsewhere, on two nodes with a client and three endpoints:
//!
//! - endpoints change a thousand times under streams of new connections and datagrams, and none is lost;
//! - an endpoint that terminates keeps the connections it has, and new ones go to others (kubernetes#43576, #123116);
//! - the last endpoint serves while it terminates (KEP-1669);
//! - a Service without endpoints refuses at once, over TCP and UDP, rather than to let the client wait.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parfait_agent::{Machine, Upkeep};
use parfait_cluster::{Key, ObjectName, Snapshot};
use parfait_join::NodePlan;
use parfait_kernel::NetNs;
use parfait_kernel::nft::NftSocket;
use parfait_transport::{Lowered, plan, replan};

use crate::fixture;
use crate::machines::Machines;
use crate::random::{LISTENING, Life, Pod, Scene};
use crate::sockets::{Outcome, Patience, Receivers, send};

/// How often the endpoints change.
const CHANGES: usize = 1000;

/// Longer than anything here takes; only a failure waits so long.
const LONG: Duration = Duration::from_secs(30);

const WEB: &str =
    "service web ip=10.96.0.20 ports=tcp:80/TCP>8080,udp:80/UDP>8080,flood:81/UDP>8081";

/// The port of which pods only count the datagrams, and how many are sent at most: each is tracked.
const FLOOD: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 20)), 81);
const MOST: usize = 100_000;

/// The client, and endpoints on both nodes.
fn scene() -> Scene {
    let pod = |node| Pod {
        node,
        life: Life::Running,
        host_port: None,
    };
    Scene {
        routing: "auto",
        families: vec![4],
        underlay: vec![4],
        nodes: vec![77, 77],
        pods: vec![pod(1), pod(1), pod(2), pod(2)],
        services: Vec::new(),
    }
}

/// The cluster with these endpoints of `web`: pods' numbers, and their state as the fixture spells it.
fn with(endpoints: &[(usize, &str)]) -> Snapshot {
    let scene = scene();
    let endpoint = |(pod, state): &(usize, &str)| {
        let address = scene.pod_address(*pod, 4).expect("IPv4");
        format!("{address}@node-{}/p{pod}{state}", scene.pods[*pod].node)
    };
    let endpoints: Vec<_> = endpoints.iter().map(endpoint).collect();
    let slice = format!(
        "slice web-a of=web family=IPv4 ports=tcp:8080/TCP,udp:8080/UDP,flood:8081/UDP endpoints={}",
        endpoints.join(",")
    );
    fixture::clusters(&[&scene.to_string(), WEB, &slice])
}

fn slice() -> BTreeSet<Key> {
    [Key::EndpointSlice(ObjectName::new("default", "web-a"))].into()
}

fn web() -> SocketAddr {
    SocketAddr::new([10, 96, 0, 20].into(), 80)
}

fn address(pod: usize) -> IpAddr {
    let text = scene().pod_address(pod, 4).expect("IPv4");
    text.parse().expect("an address")
}

/// Both nodes, carried out; `None` if there can be no namespaces.
fn built(test: &str) -> Option<Machines> {
    if let Err(error) = NetNs::create() {
        let _ = writeln!(std::io::stderr(), "SKIP: {test}: {error}");
        return None;
    }
    let snapshot = with(&[(1, "")]);
    let machines = Machines::build(&scene(), &snapshot).expect("two nodes");
    machines.plan(&snapshot).expect("a plan");
    Some(machines)
}

/// Takes one snapshot after the other on node-1, as its agent does.
fn follow(upkeep: &mut Upkeep, snapshot: &Snapshot) {
    let round = upkeep.round(snapshot, &slice()).expect("node-1 is there");
    assert_eq!(round.failures, Vec::<String>::new());
}

/// Datagrams of a flow each, as fast as queues of packets stay short; how many were sent.
fn flood(ended: &AtomicBool) -> usize {
    let mut sent = 0;
    while !ended.load(Ordering::Relaxed) && sent < MOST {
        for _ in 0..32 {
            let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
            sent += usize::from(socket.send_to(b"?", FLOOD).is_ok());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    sent
}

/// Lets pods count what comes of it.
fn count(machines: &Machines) {
    for pod in 1..=3 {
        let rules = "add table inet seen
            add chain inet seen in { type filter hook input priority 0; }
            add rule inet seen in udp dport 8081 counter drop";
        let load = || Command::new("nft").arg(rules).status();
        let loaded = machines.pods[&pod].run(load).expect("a namespace");
        assert!(loaded.expect("nft").success());
    }
}

fn counted(machines: &Machines) -> u64 {
    let count = |pod| {
        let counts = || NftSocket::open().and_then(|mut nft| nft.counts("seen"));
        let counts = machines.pods[&pod].run(counts).expect("a namespace");
        counts.expect("counters").into_values().sum::<u64>()
    };
    (1..=3).map(count).sum()
}

/// How many packets found a processor's queue full, in all namespaces: the second column (softnet_seq_show, net/core).
fn overrun() -> u64 {
    let lines = std::fs::read_to_string("/proc/net/softnet_stat").expect("statistics");
    let dropped = lines.lines().filter_map(|line| line.split(' ').nth(1));
    let dropped = dropped.map(|number| u64::from_str_radix(number, 16).expect("a number"));
    dropped.sum()
}

#[test]
fn a_thousand_endpoint_changes_lose_no_connection() {
    let Some(machines) = built("a_thousand_endpoint_changes_lose_no_connection") else {
        return;
    };
    let receivers = Receivers::new().expect("a runtime");
    for pod in 1..=3 {
        let listen = receivers.listen(&machines.pods[&pod], &[address(pod)], &LISTENING);
        listen.expect("sockets");
    }
    let client = &machines.pods[&0];
    let ended = AtomicBool::new(false);
    count(&machines);
    let overrun_before = overrun();
    let (outcomes, sent) = std::thread::scope(|scope| {
        let stream = || {
            let mut outcomes = Vec::new();
            while !ended.load(Ordering::Relaxed) {
                outcomes.push(send("TCP", web(), Patience::LONG));
                std::thread::sleep(Duration::from_millis(3));
            }
            outcomes
        };
        let stream = scope.spawn(move || client.run(stream).expect("a namespace"));
        let flood = scope.spawn(|| client.run(|| flood(&ended)).expect("a namespace"));
        let change = || {
            let mut snapshot = with(&[(1, "")]);
            let mut services = plan(&snapshot, "node-1");
            let mut lowered = Lowered::new(&services);
            let mut machine = Machine::open().expect("a node");
            let whole = NodePlan::new(&snapshot, "node-1").state();
            machine.sync(&whole).expect("a plan");
            for count in 0..CHANGES {
                // Every choice of the three but none, in turns: sometimes as many as before, sometimes others.
                let choice = 1 + count % 7;
                let endpoints = (1..=3).filter(|pod| choice & (1 << (pod - 1)) != 0);
                let endpoints: Vec<_> = endpoints.map(|pod| (pod, "")).collect();
                snapshot = with(&endpoints);
                let changes = replan(&mut services, &snapshot, &slice());
                let patch = lowered.reapply(&services, &changes);
                let done = machine.patch(None, &patch).expect("a change");
                assert!(done.is_some(), "nobody else changes rules");
            }
        };
        machines.nodes[0].run(change).expect("a namespace");
        ended.store(true, Ordering::Relaxed);
        let sent = flood.join().expect("the stream of datagrams");
        (stream.join().expect("the stream of connections"), sent)
    });
    let begin = Instant::now();
    let missing = || {
        let here = counted(&machines) + (overrun() - overrun_before);
        (sent as u64).saturating_sub(here)
    };
    while missing() > 0 && begin.elapsed() < LONG {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(missing(), 0, "of {sent} datagrams");
    assert!(sent > 1000, "{sent} datagrams");
    let reached: BTreeSet<_> = outcomes.iter().cloned().collect();
    let own = Outcome::Delivered;
    let wanted = (1..=3).map(|pod| own(SocketAddr::new(address(pod), 8080), address(0)));
    assert_eq!(reached, wanted.collect(), "{} connections", outcomes.len());
    assert!(outcomes.len() > 50, "{} connections", outcomes.len());
}

fn echo(machines: &Machines, pod: u8) {
    let index = usize::from(pod);
    let at = SocketAddr::new(address(index), 8080);
    serve(&machines.pods[&index], at, pod);
}

/// Says which pod it is and then answers each byte of each connection with the same, until the test's process ends.
pub fn serve(netns: &NetNs, at: SocketAddr, pod: u8) {
    let listener = netns.run(|| TcpListener::bind(at));
    let listener = listener.expect("a namespace").expect("a socket");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let (mut from, mut to) = (stream.try_clone()?, stream);
                to.write_all(&[pod])?;
                std::io::copy(&mut from, &mut to)
            });
        }
    });
}

/// A connection to a Service, and the pod that it got.
pub fn connect(client: &NetNs, to: SocketAddr) -> (TcpStream, u8) {
    let stream = client.run(|| TcpStream::connect_timeout(&to, LONG));
    let mut stream = stream.expect("a namespace").expect("a connection");
    stream.set_read_timeout(Some(LONG)).expect("a socket");
    let mut pod = [0];
    stream.read_exact(&mut pod).expect("a greeting");
    (stream, pod[0])
}

pub fn echoes(stream: &mut TcpStream) {
    stream.write_all(b"!").expect("an open connection");
    let mut byte = [0];
    stream.read_exact(&mut byte).expect("an echo");
}

#[test]
fn an_endpoint_that_terminates_keeps_its_connections_and_gets_no_new_ones() {
    let Some(machines) = built("an_endpoint_that_terminates_keeps_its_connections") else {
        return;
    };
    for pod in 1..=2 {
        echo(&machines, pod);
    }
    let client = &machines.pods[&0];
    let mut upkeep = machines.nodes[0].run(|| Upkeep::open("node-1").expect("a node"));
    let upkeep = upkeep.as_mut().expect("a namespace");
    let mut turn = |endpoints: &[(usize, &str)]| {
        let snapshot = with(endpoints);
        machines.nodes[0]
            .run(|| follow(upkeep, &snapshot))
            .expect("a namespace");
    };
    turn(&[(1, "")]);
    let (mut old, pod) = connect(client, web());
    assert_eq!(pod, 1);
    turn(&[(1, "!serving"), (2, "")]);
    echoes(&mut old);
    for _ in 0..20 {
        let (mut new, pod) = connect(client, web());
        echoes(&mut new);
        assert_eq!(pod, 2);
    }
    // The other is gone before it: of all that are left it is the one that serves.
    turn(&[(1, "!serving"), (2, "!terminating")]);
    let (mut last, pod) = connect(client, web());
    echoes(&mut last);
    assert_eq!(pod, 1);
    echoes(&mut old);
}

#[test]
fn a_service_without_endpoints_refuses_at_once() {
    let Some(machines) = built("a_service_without_endpoints_refuses_at_once") else {
        return;
    };
    for state in ["", "!notready", "!terminating"] {
        let endpoints = [(1, state)];
        let snapshot = with(if state.is_empty() { &[] } else { &endpoints });
        machines.plan(&snapshot).expect("a plan");
        let clients = [&machines.pods[&0], &machines.nodes[0]];
        for (client, protocol) in clients.iter().flat_map(|c| [(c, "TCP"), (c, "UDP")]) {
            let outcome = client
                .run(|| send(protocol, web(), Patience::SHORT))
                .expect("a namespace");
            assert_eq!(outcome, Outcome::Refused, "{state:?} {protocol}");
        }
    }
}

/// On request, as kube-proxy's iptables mode has it (`--iptables-localhost-nodeports`), wherever the endpoint is.
#[test]
fn a_node_port_answers_at_the_nodes_own_loopback() {
    let Some(machines) = built("a_node_port_answers_at_the_nodes_own_loopback") else {
        return;
    };
    let receivers = Receivers::new().expect("a runtime");
    for pod in [1, 2] {
        let listen = receivers.listen(&machines.pods[&pod], &[address(pod)], &LISTENING);
        listen.expect("sockets");
    }
    let node = &machines.nodes[0];
    let at = SocketAddr::new([127, 0, 0, 1].into(), 30080);
    let ask = |protocol| {
        node.run(|| send(protocol, at, Patience::LONG))
            .expect("a namespace")
    };
    for (wanted, pods) in [(None, [1, 2]), (Some(true), [1, 2]), (Some(false), [1, 2])] {
        for pod in pods {
            let port = WEB
                .replace("TCP>8080", "TCP>8080@30080")
                .replace("UDP>8080", "UDP>8080@30080");
            let slice = format!(
                "slice web-a of=web family=IPv4 ports=tcp:8080/TCP,udp:8080/UDP endpoints={}@node-{}/p{pod}",
                address(pod),
                scene().pods[pod].node
            );
            let mut snapshot = fixture::clusters(&[&scene().to_string(), &port, &slice]);
            snapshot.config.localhost_node_ports = wanted;
            machines.plan(&snapshot).expect("a plan");
            for protocol in ["TCP", "UDP"] {
                let outcome = ask(protocol);
                match (wanted, outcome) {
                    (Some(true), Outcome::Delivered(to, from)) => {
                        assert_eq!(to, SocketAddr::new(address(pod), 8080));
                        assert!(!from.is_loopback(), "{from}");
                    }
                    (Some(true), other) => panic!("pod {pod} over {protocol}: {other:?}"),
                    (_, other) => assert_eq!(other, Outcome::Refused, "{wanted:?} {protocol}"),
                }
            }
        }
        let read = || std::fs::read_to_string("/proc/sys/net/ipv4/conf/all/route_localnet");
        let set = node.run(read).expect("a namespace").expect("a setting");
        let is = if wanted == Some(true) { "1" } else { "0" };
        assert_eq!(set.trim(), is, "{wanted:?}");
    }
}

/// The first card of a virtual machine is often a NAT's: the default route leads there, and its address is the same on all.
/// What the node sends to a Service begins with that one, and its answer must find back.
#[test]
fn a_node_with_another_default_route_reaches_services_on_the_others() {
    let test = "a_node_with_another_default_route_reaches_services_on_the_others";
    let Some(machines) = built(test) else {
        return;
    };
    for node in &machines.nodes {
        let add = "link add eth1 type veth peer name nat
            link set nat up
            link set eth1 up
            addr add 10.0.2.15/24 dev eth1
            route replace default via 10.0.2.2 dev eth1";
        for words in add.lines() {
            let ip = || Command::new("ip").args(words.split_whitespace()).status();
            let done = node.run(ip).expect("a namespace").expect("ip");
            assert!(done.success(), "{words}");
        }
    }
    let peer: IpAddr = [192, 168, 77, 12].into();
    let receivers = Receivers::new().expect("a runtime");
    for (netns, at) in [
        (&machines.pods[&1], address(1)),
        (&machines.pods[&2], address(2)),
        (&machines.nodes[1], peer),
    ] {
        receivers.listen(netns, &[at], &LISTENING).expect("sockets");
    }
    let own = [192, 168, 77, 11].into();
    // The pod on this node sees whom it answers by way of this node in any case.
    for (at, node, from) in [
        (address(1), 1, [10, 0, 2, 15].into()),
        (address(2), 2, own),
        (peer, 2, own),
    ] {
        let slice = format!(
            "slice web-a of=web family=IPv4 ports=tcp:8080/TCP,udp:8080/UDP endpoints={at}@node-{node}"
        );
        let snapshot = fixture::clusters(&[&scene().to_string(), WEB, &slice]);
        machines.plan(&snapshot).expect("a plan");
        for protocol in ["TCP", "UDP"] {
            let outcome = machines.nodes[0]
                .run(|| send(protocol, web(), Patience::LONG))
                .expect("a namespace");
            let wanted = Outcome::Delivered(SocketAddr::new(at, 8080), from);
            assert_eq!(outcome, wanted, "{protocol}");
        }
    }
}
