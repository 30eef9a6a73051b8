//! Flows outlive what they lead to, unless the agent ends them: clients that keep their port, servers that come and
//! go, and the agent's own upkeep between them, in network namespaces. What must not be touched is looked at with it.
//!
//! ```text
//!   client ══╗                      ┌ outside
//!   one    ══╬ node-1 ┐ eth0 ══ eth0
//!   two    ══╝        Service dns: 10.96.0.20:53, node port 30053, 203.0.113.9:53 ─▶ one, two at 5353
//! ```
//!
//! Needs root (or a user namespace), `ip` and `nft`.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

mod affinity;
#[path = "../../../../model/cluster/tests/fixture/changed.rs"]
mod changed;
#[path = "../../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;
mod host_ports;
mod node_ports;
#[path = "../one_node/mod.rs"]
mod one_node;
mod sctp;

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use one_node::{Machines, must};
use parfait_agent::{Round, Upkeep};
use parfait_cluster::{Key, Snapshot, Underlay};
use parfait_kernel::NetNs;
use parfait_kernel::conntrack::Filter;
use parfait_kernel::nft::NftSocket;
use parfait_linux::conntrack::Entry;

const PODS: [(&str, &str, u8); 3] = [
    ("default", "client", 2),
    ("default", "one", 3),
    ("default", "two", 4),
];

const CLUSTER: &str = "
config clusterCIDRs=10.244.0.0/16,fd00:10:244::/56 serviceCIDRs=10.96.0.0/16,fd00:10:96::/112
node node-1 pods=10.244.1.0/24,fd00:10:244:1::/64 underlay=192.168.77.11/24,fd00:77::11/64
pod client on=node-1 ip=10.244.1.2,fd00:10:244:1::2
pod one on=node-1 ip=10.244.1.3,fd00:10:244:1::3
pod two on=node-1 ip=10.244.1.4,fd00:10:244:1::4
service names ip=10.96.0.10 ports=dns:53/UDP servedByNode
";

const DNS: &str = "service dns ip=10.96.0.20,fd00:10:96::20 ports=dns:53/UDP>5353,web:80/TCP>8080";

/// Where Service dns is reached.
const OWN: [&str; 2] = ["10.96.0.20:53", "[fd00:10:96::20]:53"];
const NODE_PORT: &str = "192.168.77.11:30053";
const EXTERNAL: &str = "203.0.113.9:53";
const WEB: &str = "10.96.0.20:80";

/// How long a datagram on its way through one machine is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Service dns with these pods as endpoints; `None` without the Service.
fn cluster(endpoints: Option<&[&str]>) -> Snapshot {
    let Some(endpoints) = endpoints else {
        return fixture::cluster(CLUSTER);
    };
    let slices = slices("dns", "dns:5353/UDP,web:8080/TCP", endpoints);
    let mut snapshot = fixture::clusters(&[CLUSTER, DNS, &slices]);
    let dns = snapshot.services.values_mut().next().unwrap();
    dns.ports[0].node_port = Some(30_053);
    dns.outside.external_ips = vec!["203.0.113.9".parse().unwrap()];
    snapshot
}

/// A Service's slices of both families, with these pods.
fn slices(of: &str, ports: &str, endpoints: &[&str]) -> String {
    let mut text = String::new();
    for (family, net) in [(4, "10.244.1."), (6, "fd00:10:244:1::")] {
        let endpoints = endpoints.iter().map(|pod| {
            let (_, _, last) = PODS
                .iter()
                .find(|(_, name, _)| pod.starts_with(name))
                .unwrap();
            let (pod, state) = pod.split_once('!').unwrap_or((pod, "ready"));
            format!("{net}{last}@node-1/{pod}!{state}")
        });
        let endpoints: Vec<_> = endpoints.collect();
        if !endpoints.is_empty() {
            let list = endpoints.join(",");
            text.push_str(&format!(
                "slice {of}-{family} of={of} ports={ports} endpoints={list}\n"
            ));
        }
    }
    text
}

struct Net {
    machines: Machines,
    /// Those of pods one and two, both families.
    servers: [UdpSocket; 2],
    agent: Option<Upkeep>,
    /// What the agent saw last.
    seen: Snapshot,
    /// What it has reported.
    underlay: Option<Underlay>,
}

impl Net {
    /// `None`, said aloud, where namespaces are not allowed.
    fn new(test: &str) -> Option<Self> {
        let machines = Machines::new(test, &PODS)?;
        must(
            &machines.node,
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
        );
        let servers = ["one", "two"].map(|pod| {
            let bind = || UdpSocket::bind("[::]:5353").unwrap();
            let server = machines.pods[pod].run(bind).unwrap();
            server.set_nonblocking(true).unwrap();
            server
        });
        Some(Self {
            machines,
            servers,
            agent: None,
            seen: Snapshot::default(),
            underlay: None,
        })
    }

    /// A client that keeps its port. Pod `client` unless somebody else is named.
    fn client(&self, netns: &NetNs, to: &str) -> Client {
        let to: SocketAddr = to.parse().unwrap();
        let any = match to {
            SocketAddr::V4(_) => "0.0.0.0:0",
            SocketAddr::V6(_) => "[::]:0",
        };
        let bind = || UdpSocket::bind(any).unwrap();
        let socket = netns.run(bind).unwrap();
        Client { socket, to }
    }

    /// The agent's rounds as it runs, with its first one.
    fn round(&mut self, snapshot: &Snapshot) -> Round {
        let round = self.told(snapshot, false);
        if self.underlay != round.underlay {
            self.underlay.clone_from(&round.underlay);
            self.told(snapshot, false);
        }
        round
    }

    /// The same with a regular look.
    fn look(&mut self, snapshot: &Snapshot) -> Round {
        self.told(snapshot, true)
    }

    fn told(&mut self, snapshot: &Snapshot, look: bool) -> Round {
        let mut now = snapshot.clone();
        if self.underlay.is_some() {
            let node = now.nodes.get_mut("node-1").unwrap();
            node.underlay.clone_from(&self.underlay);
        }
        let keys = changed::changed(&self.seen, &now);
        let agent = &mut self.agent;
        let run = || {
            let agent = agent.get_or_insert_with(|| Upkeep::open("node-1").unwrap());
            if look {
                agent.look_around();
            }
            rounds(agent, &now, &keys)
        };
        let round = self.machines.node.run(run).unwrap();
        self.seen = now;
        round
    }

    /// The agent ends, and starts anew at the next round.
    fn restart(&mut self) {
        self.agent = None;
    }

    /// Which server gets what this client sends; `None` if it is told that there is none, or nobody does.
    fn arrives(&self, client: &Client) -> Option<usize> {
        let mut buffer = [0; 8];
        for server in &self.servers {
            while server.recv_from(&mut buffer).is_ok() {}
        }
        let begin = Instant::now();
        // What the node itself sends and rejects is refused on the spot.
        client.socket.send_to(b"?", client.to).ok()?;
        client.socket.set_nonblocking(true).unwrap();
        while begin.elapsed() < PATIENCE {
            for (index, server) in self.servers.iter().enumerate() {
                if let Ok((_, from)) = server.recv_from(&mut buffer) {
                    server.send_to(b"!", from).unwrap();
                    return Some(index);
                }
            }
            match client.socket.recv_from(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => return None,
                _ => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        None
    }

    fn connections(&self) -> Vec<Entry> {
        let list = || NftSocket::open().unwrap().connections(&Filter::default());
        self.machines.node.run(list).unwrap().unwrap()
    }

    /// Those of one client.
    fn of(&self, client: &Client) -> Vec<Entry> {
        let mut all = self.connections();
        all.retain(|entry| entry.original.destination == client.to);
        all
    }

    fn pod(&self, name: &str) -> &NetNs {
        &self.machines.pods[name]
    }
}

/// The first round, after the ones that it asks for.
fn rounds(agent: &mut Upkeep, snapshot: &Snapshot, keys: &BTreeSet<Key>) -> Round {
    let none = BTreeSet::new();
    let first = agent.round(snapshot, keys).unwrap();
    let mut last = agent.round(snapshot, &none).unwrap();
    let begin = Instant::now();
    while last.unfinished() && begin.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(10));
        last = agent.round(snapshot, &none).unwrap();
    }
    for round in [&first, &last] {
        assert_eq!(round.failures, Vec::<String>::new());
        assert!(round.tables);
    }
    first
}

struct Client {
    socket: UdpSocket,
    to: SocketAddr,
}

impl Client {
    /// Learns of refusals.
    fn connected(self) -> Self {
        self.socket.connect(self.to).unwrap();
        self
    }

    /// Sends where nobody may be.
    fn send(&self) {
        let _ = self.socket.send_to(b"?", self.to);
    }
}

/// kubernetes/kubernetes#125467, #126130: a client that keeps its port is led to an endpoint that is there; and none
/// is taken away from an endpoint that serves.
#[test]
fn datagrams_follow_when_an_endpoint_is_replaced() {
    let Some(mut net) = Net::new("datagrams_follow_when_an_endpoint_is_replaced") else {
        return;
    };
    net.round(&cluster(Some(&["one"])));
    let client = net.pod("client");
    let mut clients = Vec::from(OWN.map(|to| net.client(client, to)));
    clients.push(net.client(&net.machines.outside, NODE_PORT));
    clients.push(net.client(&net.machines.outside, EXTERNAL));
    for client in &clients {
        assert_eq!(net.arrives(client), Some(0), "{}", client.to);
    }
    // It terminates and still serves: flows stay, though new ones would go to the other.
    net.round(&cluster(Some(&["one!serving", "two"])));
    for client in &clients {
        assert_eq!(
            net.arrives(client),
            Some(0),
            "{} while terminating",
            client.to
        );
    }
    let round = net.round(&cluster(Some(&["two"])));
    assert_eq!(round.steps, 0, "the rules do not change when it is gone");
    for client in &clients {
        assert_eq!(net.arrives(client), Some(1), "{}", client.to);
    }
    net.round(&cluster(Some(&["one", "two"])));
    for client in &clients {
        assert_eq!(
            net.arrives(client),
            Some(1),
            "{} has its endpoint",
            client.to
        );
    }
}

/// kubernetes/kubernetes#139628: without an endpoint left, clients are told so, and served when there is one again.
#[test]
fn datagrams_are_refused_when_a_service_is_scaled_to_zero() {
    let Some(mut net) = Net::new("datagrams_are_refused_when_a_service_is_scaled_to_zero") else {
        return;
    };
    net.round(&cluster(Some(&["one"])));
    let clients = OWN.map(|to| net.client(net.pod("client"), to).connected());
    for client in &clients {
        assert_eq!(net.arrives(client), Some(0));
    }
    net.round(&cluster(Some(&[])));
    for client in &clients {
        let begin = Instant::now();
        assert_eq!(net.arrives(client), None, "{}", client.to);
        assert!(begin.elapsed() < PATIENCE, "{} is told", client.to);
        assert_eq!(net.of(client), []);
    }
    net.round(&cluster(Some(&["two"])));
    for client in &clients {
        assert_eq!(net.arrives(client), Some(1));
    }
}

/// kubernetes/kubernetes#122740: a restart ends no flow; #126130: what went while the agent was down, it does.
#[test]
fn a_restart_ends_only_what_went_meanwhile() {
    let Some(mut net) = Net::new("a_restart_ends_only_what_went_meanwhile") else {
        return;
    };
    net.round(&cluster(Some(&["one", "two"])));
    let mut clients: Vec<Client> = Vec::new();
    for to in OWN {
        clients.push(net.client(net.pod("client"), to));
    }
    for to in [NODE_PORT, EXTERNAL] {
        clients.push(net.client(&net.machines.outside, to));
    }
    let chosen: Vec<_> = clients.iter().map(|client| net.arrives(client)).collect();
    // The node's own, and what is no Service's.
    let own = net.client(&net.machines.node, "192.168.77.1:4000");
    let away = net.client(net.pod("client"), "198.51.100.1:4000");
    own.send();
    away.send();
    // A removed one would come back with another number.
    let numbers = |entries: Vec<Entry>| entries.iter().map(|entry| entry.id).collect::<Vec<_>>();
    let before = numbers(net.connections());
    assert!(before.len() >= 6, "{before:?}");
    net.restart();
    assert_eq!(net.round(&cluster(Some(&["one", "two"]))).steps, 0);
    assert_eq!(numbers(net.connections()), before, "nothing was removed");
    for (client, chosen) in clients.iter().zip(chosen) {
        assert_eq!(net.arrives(client), chosen);
    }
    // Now the Service is deleted while no agent runs.
    net.restart();
    net.round(&cluster(None));
    for client in &clients {
        assert_eq!(net.of(client), [], "{}", client.to);
    }
    for client in [&own, &away] {
        assert_eq!(net.of(client).len(), 1, "{} is not ours", client.to);
    }
    // And it comes back with another endpoint, while none runs.
    net.restart();
    net.round(&cluster(Some(&["two"])));
    for client in &clients {
        assert_eq!(net.arrives(client), Some(1), "{}", client.to);
    }
}

/// kubernetes/kubernetes#126130: flows that began before there was a rule for them, and were lost.
#[test]
fn datagrams_that_were_lost_before_the_service_existed_arrive() {
    let Some(mut net) = Net::new("datagrams_that_were_lost_before_the_service_existed_arrive")
    else {
        return;
    };
    // Tables that track, as on a node that was used before, and none of ours.
    must(
        &net.machines.node,
        "nft add table inet other
         nft 'add chain inet other through { type filter hook forward priority 0; }'
         nft 'add chain inet other in { type filter hook input priority 0; }'
         nft add rule inet other through ct state established accept
         nft add rule inet other in ct state established accept",
    );
    let mut clients = Vec::from(OWN.map(|to| net.client(net.pod("client"), to)));
    clients.push(net.client(&net.machines.outside, NODE_PORT));
    clients.push(net.client(net.pod("client"), EXTERNAL));
    for client in &clients {
        client.send();
    }
    let begin = Instant::now();
    while clients.iter().any(|client| net.of(client).is_empty()) {
        clients.iter().for_each(Client::send);
        assert!(begin.elapsed() < PATIENCE, "{:?}", net.connections());
    }
    net.round(&cluster(Some(&["one"])));
    for client in &clients {
        assert_eq!(net.arrives(client), Some(0), "{}", client.to);
    }
}

/// kubernetes/kubernetes#101607: a SYN on its way to a dead endpoint gets to one that is there, and what is established
/// is left to its two ends.
#[test]
fn connections_are_left_unless_nobody_ever_answered() {
    let Some(mut net) = Net::new("connections_are_left_unless_nobody_ever_answered") else {
        return;
    };
    let listen = || TcpListener::bind("[::]:8080").unwrap();
    let servers = ["one", "two"].map(|pod| net.pod(pod).run(listen).unwrap());
    net.round(&cluster(Some(&["one"])));
    let to: SocketAddr = WEB.parse().unwrap();
    let connect = || TcpStream::connect_timeout(&to, Duration::from_secs(60));
    let mut old = net.pod("client").run(connect).unwrap().unwrap();
    let (mut accepted, _) = servers[0].accept().unwrap();
    // Its pod is about to end: what is new gets no answer from it.
    must(
        net.pod("one"),
        "nft add table inet gone
         nft 'add chain inet gone in { type filter hook input priority 0; }'
         nft add rule inet gone in tcp flags syn drop",
    );
    let client = net.pod("client").clone();
    std::thread::scope(|scope| {
        let stuck = scope.spawn(|| client.run(connect).unwrap());
        let begin = Instant::now();
        let is_stuck = |entry: &Entry| entry.original.destination == to && !entry.is_answered();
        while !net.connections().iter().any(is_stuck) {
            assert!(begin.elapsed() < PATIENCE, "no SYN was seen");
        }
        net.look(&cluster(Some(&["two"])));
        assert!(stuck.join().unwrap().is_ok(), "its next SYN gets through");
    });
    servers[1].accept().unwrap();
    old.write_all(b"still here").unwrap();
    let mut buffer = [0; 10];
    accepted.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"still here");
    let from: IpAddr = accepted.peer_addr().unwrap().ip();
    assert!(from.to_string().ends_with("10.244.1.2"), "{from}");
}
