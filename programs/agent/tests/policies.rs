//! NetworkPolicies on a real kernel while they change: what they forbid ends, what they allow is not disturbed, and
//! there is no moment with neither the old ones nor the new.
//!
//! ```text
//!   client ══╗
//!   friend ══╬ node-1       server: 10.244.1.4, TCP and UDP 8080
//!   server ══╝
//! ```
//!
//! Needs root (or a user namespace), `ip` and `nft`.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

#[path = "../../../model/cluster/tests/fixture/changed.rs"]
mod changed;
#[path = "../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;
mod one_node;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use one_node::{Machines, must};
use parfait_agent::Upkeep;
use parfait_cluster::{DeniedConnections, Parsed, Snapshot, parse};
use parfait_kernel::NetNs;
use serde_json::{Value, json};

const PODS: [(&str, &str, u8); 3] = [
    ("default", "client", 2),
    ("default", "friend", 3),
    ("default", "server", 4),
];

const CLUSTER: &str = "
config clusterCIDRs=10.244.0.0/16,fd00:10:244::/56 serviceCIDRs=10.96.0.0/16,fd00:10:96::/112
node node-1 pods=10.244.1.0/24,fd00:10:244:1::/64 underlay=192.168.77.11/24,fd00:77::11/64
pod client on=node-1 ip=10.244.1.2,fd00:10:244:1::2 labels=app:client
pod friend on=node-1 ip=10.244.1.3,fd00:10:244:1::3 labels=app:friend
pod server on=node-1 ip=10.244.1.4,fd00:10:244:1::4 labels=app:server
namespace default
";

const SERVER: [&str; 2] = ["10.244.1.4:8080", "[fd00:10:244:1::4]:8080"];

/// How long a packet on its way through one machine is waited for, and how long one that must not come.
const PATIENCE: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_millis(500);

/// The cluster with these policies.
fn cluster(policies: &[Value]) -> Snapshot {
    let mut snapshot = fixture::cluster(CLUSTER);
    for (number, spec) in policies.iter().enumerate() {
        let name = format!("policy-{number}");
        let policy = json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec});
        let policy = serde_json::from_value(policy).unwrap();
        let (object, notes) = parse(Parsed::NetworkPolicy(&policy), &|_| Err(String::new()));
        assert_eq!(notes, []);
        snapshot.insert(object.unwrap());
    }
    snapshot
}

/// So many more clients elsewhere: a peer that means them has a set of its own from 257 addresses on.
fn crowd(mut snapshot: Snapshot, count: u16) -> Snapshot {
    let lines = (0..count).map(|nth| {
        let (third, last) = (2 + nth / 200, 2 + nth % 200);
        format!("pod crowd-{nth} on=node-2 ip=10.244.{third}.{last} labels=app:client\n")
    });
    let pods = fixture::cluster(&lines.collect::<String>()).pods;
    snapshot.pods.extend(pods);
    snapshot
}

/// Who may reach the server.
fn only(apps: &[&str]) -> Value {
    let from = json!({"podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": apps}]}});
    json!({"podSelector": {"matchLabels": {"app": "server"}}, "ingress": [{"from": [from]}]})
}

struct Net {
    machines: Machines,
    agent: Option<Upkeep>,
    seen: Snapshot,
}

impl Net {
    /// `None`, said aloud, where namespaces are not allowed.
    fn new(test: &str) -> Option<Self> {
        let machines = Machines::new(test, &PODS)?;
        must(
            &machines.node,
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
        );
        Some(Self {
            machines,
            agent: None,
            seen: Snapshot::default(),
        })
    }

    /// The agent learns of this, and carries it out.
    fn told(&mut self, snapshot: &Snapshot) {
        let keys = changed::changed(&self.seen, snapshot);
        let agent = &mut self.agent;
        let run = || {
            let agent = agent.get_or_insert_with(|| Upkeep::open("node-1").unwrap());
            let mut round = agent.round(snapshot, &keys).unwrap();
            let begin = Instant::now();
            while round.unfinished() && begin.elapsed() < PATIENCE {
                assert_eq!(round.failures, Vec::<String>::new());
                thread::sleep(Duration::from_millis(10));
                round = agent.round(snapshot, &Default::default()).unwrap();
            }
            assert!(round.tables && round.planned());
        };
        self.machines.node.run(run).unwrap();
        self.seen = snapshot.clone();
    }

    fn pod(&self, name: &str) -> &NetNs {
        &self.machines.pods[name]
    }

    fn listen(&self) -> TcpListener {
        listen(self.pod("server"), 8080)
    }

    /// A connection's two ends.
    fn connect(&self, pod: &str, to: &str, listener: &TcpListener) -> Option<Ends> {
        connect(self.pod(pod), to, listener)
    }
}

fn listen(netns: &NetNs, port: u16) -> TcpListener {
    let listen = || TcpListener::bind(("::", port)).unwrap();
    netns.run(listen).unwrap()
}

fn connect(netns: &NetNs, to: &str, listener: &TcpListener) -> Option<Ends> {
    let to: SocketAddr = to.parse().unwrap();
    let connect = || TcpStream::connect_timeout(&to, SILENCE * 4);
    let near = netns.run(connect).unwrap().ok()?;
    Some(Ends {
        near,
        far: listener.accept().unwrap().0,
    })
}

struct Ends {
    near: TcpStream,
    far: TcpStream,
}

impl Ends {
    /// Whether what one end sends comes to the other, each way.
    fn talk(&mut self, wait: Duration) -> [bool; 2] {
        let (near, far) = (&mut self.near, &mut self.far);
        [arrives(near, far, wait), arrives(far, near, wait)]
    }
}

fn arrives(from: &mut TcpStream, to: &mut TcpStream, wait: Duration) -> bool {
    to.set_read_timeout(Some(wait)).unwrap();
    let sent = from.write_all(b"?").is_ok();
    sent && to.read_exact(&mut [0]).is_ok()
}

#[test]
fn a_connection_that_a_new_policy_forbids_ends_and_others_go_on() {
    let Some(mut net) = Net::new("a_connection_that_a_new_policy_forbids_ends") else {
        return;
    };
    net.told(&cluster(&[]));
    net.told(&cluster(&[only(&["client", "friend"])]));
    let listener = net.listen();
    for to in SERVER {
        let mut client = net.connect("client", to, &listener).expect("allowed");
        let mut friend = net.connect("friend", to, &listener).expect("allowed");
        assert_eq!(client.talk(PATIENCE), [true, true]);
        assert_eq!(friend.talk(PATIENCE), [true, true]);
        net.told(&cluster(&[only(&["friend"])]));
        // The server's first: conntrack would take it for the first packet of another connection.
        assert!(!arrives(&mut client.far, &mut client.near, SILENCE), "{to}");
        assert_eq!(client.talk(SILENCE), [false, false], "{to}");
        assert_eq!(friend.talk(PATIENCE), [true, true], "{to}");
        assert!(net.connect("client", to, &listener).is_none(), "{to}");
        // What was only lost on its way comes again when it may: TCP sends it anew.
        net.told(&cluster(&[only(&["client", "friend"])]));
        assert_eq!(client.talk(PATIENCE * 3), [true, true], "{to}");
    }
}

#[test]
fn connections_are_kept_if_the_configuration_says_so() {
    let Some(mut net) = Net::new("connections_are_kept_if_the_configuration_says_so") else {
        return;
    };
    net.told(&cluster(&[only(&["client"])]));
    let listener = net.listen();
    let mut client = net
        .connect("client", SERVER[0], &listener)
        .expect("allowed");
    let mut denied = cluster(&[only(&["friend"])]);
    denied.config.denied_connections = DeniedConnections::Keep;
    net.told(&denied);
    assert_eq!(client.talk(PATIENCE), [true, true]);
    assert!(net.connect("client", SERVER[0], &listener).is_none());
}

/// The cluster with a policy for nodes that lets nobody in.
fn closed() -> Snapshot {
    let everybody = json!([{"networks": ["0.0.0.0/0", "::/0"]}]);
    let spec = json!({"priority": 1, "ingress": [{"action": "Deny", "from": everybody}]});
    let policy = serde_json::from_value(json!({"metadata": {"name": "nobody"}, "spec": spec}));
    let mut snapshot = cluster(&[]);
    let policy = Parsed::NodeNetworkPolicy(&policy.unwrap());
    let (object, notes) = parse(policy, &|_| Err(String::new()));
    assert_eq!(notes, []);
    snapshot.insert(object.unwrap());
    snapshot
}

#[test]
fn a_connection_to_a_node_ends_that_a_new_policy_forbids_and_what_must_not_goes_on() {
    let Some(mut net) = Net::new("a_connection_to_a_node_ends_that_a_new_policy_forbids") else {
        return;
    };
    net.told(&cluster(&[]));
    let [ssh, kubelet] = [22, 10_250].map(|port| listen(&net.machines.node, port));
    let outside = listen(&net.machines.outside, 443);
    for (own, other) in [
        ("192.168.77.11", "198.51.100.1:443"),
        ("[fd00:77::11]", "[2001:db8:9::1]:443"),
    ] {
        let at = format!("{own}:22");
        let mut ended = [
            connect(&net.machines.outside, &at, &ssh).expect("nothing denies it"),
            connect(net.pod("client"), &at, &ssh).expect("nothing denies it"),
        ];
        let kubelet_at = format!("{own}:10250");
        let mut kept = [
            connect(&net.machines.outside, &kubelet_at, &kubelet).expect("always allowed"),
            connect(&net.machines.node, other, &outside).expect("its own"),
            connect(&net.machines.node, &at, &ssh).expect("with itself"),
        ];
        net.told(&closed());
        for ends in &mut ended {
            // The node's first: conntrack would take it for the first packet of another connection.
            assert!(!arrives(&mut ends.far, &mut ends.near, SILENCE), "{at}");
            assert_eq!(ends.talk(SILENCE), [false, false], "{at}");
        }
        for ends in &mut kept {
            assert_eq!(ends.talk(PATIENCE), [true, true], "{own}");
        }
        assert!(connect(&net.machines.outside, &at, &ssh).is_none());
        // What was only lost on its way comes again when it may: TCP sends it anew.
        net.told(&cluster(&[]));
        for ends in &mut ended {
            assert_eq!(ends.talk(PATIENCE * 3), [true, true], "{at}");
        }
    }
}

/// Its kernel takes it for the other end's, of which it sees the first packet.
#[test]
fn what_a_node_began_before_its_agent_did_goes_on() {
    let Some(mut net) = Net::new("what_a_node_began_before_its_agent_did_goes_on") else {
        return;
    };
    let outside = listen(&net.machines.outside, 443);
    let mut own = connect(&net.machines.node, "198.51.100.1:443", &outside).expect("no rules yet");
    net.told(&cluster(&[]));
    assert!(arrives(&mut own.far, &mut own.near, PATIENCE));
    net.told(&closed());
    assert!(arrives(&mut own.far, &mut own.near, PATIENCE));
    assert!(arrives(&mut own.near, &mut own.far, PATIENCE));
}

#[test]
fn connections_to_a_node_are_kept_if_the_configuration_says_so() {
    let Some(mut net) = Net::new("connections_to_a_node_are_kept") else {
        return;
    };
    net.told(&cluster(&[]));
    let ssh = listen(&net.machines.node, 22);
    let at = "192.168.77.11:22";
    let mut kept = connect(net.pod("client"), at, &ssh).expect("nothing denies it");
    let mut denied = closed();
    denied.config.denied_connections = DeniedConnections::Keep;
    net.told(&denied);
    assert_eq!(kept.talk(PATIENCE), [true, true]);
    assert!(connect(net.pod("client"), at, &ssh).is_none());
}

/// Counts what comes from the client and from the friend, each packet a connection of its own.
fn sender(pod: &NetNs, to: SocketAddr, stop: &AtomicBool) -> u32 {
    let send = || {
        let mut sent = 0;
        while !stop.load(Ordering::Relaxed) {
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any).unwrap();
            sent += u32::from(socket.send_to(b"?", to).is_ok());
            thread::sleep(Duration::from_micros(300));
        }
        sent
    };
    pod.run(send).unwrap()
}

/// How many datagrams passed all policies and found a socket here full: the last column of `/proc/net/udp`.
fn overrun() -> u32 {
    let sockets = std::fs::read_to_string("/proc/thread-self/net/udp").unwrap();
    let lines = sockets.lines().skip(1);
    let dropped = lines.map(|line| line.split_whitespace().next_back().unwrap());
    dropped.map(|number| number.parse::<u32>().unwrap()).sum()
}

#[test]
fn there_is_no_moment_between_two_policies() {
    let Some(mut net) = Net::new("there_is_no_moment_between_two_policies") else {
        return;
    };
    // The client is allowed by all of them, each time by another rule; the friend by none.
    let block = json!({"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.244.1.3/32"]}});
    let ports = json!([{"protocol": "UDP", "port": 8000, "endPort": 8090}]);
    let server = json!({"matchLabels": {"app": "server"}});
    let clients = || vec![only(&["client"])];
    let both = || vec![json!({"podSelector": {}}), only(&["client", "server"])];
    let outside = json!({"podSelector": server, "ingress": [{"from": [block], "ports": ports}]});
    let mut forms = [
        cluster(&clients()),
        cluster(&both()),
        crowd(cluster(&clients()), 300),
        crowd(cluster(&clients()), 200),
        crowd(cluster(&both()), 300),
        crowd(cluster(&[outside]), 300),
    ];
    for form in &mut forms {
        // Tens of thousands of connections need not be listed after each change.
        form.config.denied_connections = DeniedConnections::Keep;
    }
    net.told(&forms[0]);
    let server = net
        .pod("server")
        .run(|| UdpSocket::bind(SERVER[0]).unwrap());
    let server = server.unwrap();
    server
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let (stop, done) = (AtomicBool::new(false), AtomicBool::new(false));
    let came = [AtomicU32::new(0), AtomicU32::new(0)];
    let to: SocketAddr = SERVER[0].parse().unwrap();
    let pods = ["client", "friend"].map(|name| net.machines.pods.remove(name).unwrap());
    let sent = thread::scope(|scope| {
        let senders = pods
            .each_ref()
            .map(|pod| scope.spawn(|| sender(pod, to, &stop)));
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if let Ok((_, from)) = server.recv_from(&mut [0; 8]) {
                    let friend = usize::from(from.ip().to_string() == "10.244.1.3");
                    came[friend].fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        for form in forms.iter().cycle().take(24) {
            net.told(form);
        }
        stop.store(true, Ordering::Relaxed);
        let sent = senders.map(|sender| sender.join().unwrap());
        let begin = Instant::now();
        while came[0].load(Ordering::Relaxed) < sent[0] && begin.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(5));
        }
        done.store(true, Ordering::Relaxed);
        sent
    });
    let [client, friend] = came.map(AtomicU32::into_inner);
    let overrun = net.pod("server").run(overrun).unwrap();
    assert!(sent.iter().all(|sent| *sent > 100), "{sent:?}");
    let told = format!("{client} came, {overrun} overran the socket, of {sent:?} sent");
    assert_eq!((client + overrun, friend), (sent[0], 0), "{told}");
}
