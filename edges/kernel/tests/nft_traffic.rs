//! Real traffic through real rules: the kernel does what [`evaluate`] says, and its connections are
//! listed and deleted.
//!
//! ```text
//!   client 192.0.2.1 ──veth── router ──veth── server 198.51.100.1 (and .2, .3)
//! ```
//!
//! Three network namespaces of their own; nothing leaves them.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;

use parfait_kernel::NetNs;
use parfait_kernel::conntrack::Filter;
use parfait_kernel::nft::NftSocket;
use parfait_linux::nft::evaluate::{AddressType, Context, End, evaluate};
use parfait_linux::nft::{
    BaseChain, Chain, ChainType, Data, DataType, Element, Family, Field, Hook, Operand, Policy,
    RejectWith, Rule, Set, Statement, Table, Tables, Value, Verdict,
};
use parfait_packet::{Packet, Protocol};

const CLIENT: &str = "192.0.2.1";
const SERVERS: [&str; 3] = ["198.51.100.1", "198.51.100.2", "198.51.100.3"];
const VIP: &str = "203.0.113.10";
const WAIT: Duration = Duration::from_millis(150);

struct Net {
    client: NetNs,
    router: NetNs,
    server: NetNs,
}

impl Net {
    fn new() -> Self {
        let [client, router, server] =
            [0; 3].map(|_| NetNs::create().expect("a network namespace (this test needs root)"));
        let net = Self {
            client,
            router,
            server,
        };
        net.link(&net.client, "c", "192.0.2.254/24", "192.0.2.1/24");
        net.link(&net.server, "s", "198.51.100.254/24", "198.51.100.1/24");
        for address in &SERVERS[1..] {
            ip(&net.server, &format!("addr add {address}/24 dev eth0"));
        }
        for (end, via) in [
            (&net.client, "192.0.2.254"),
            (&net.server, "198.51.100.254"),
        ] {
            ip(end, &format!("route add default via {via}"));
        }
        let forward = || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1");
        let forwarding = net.router.run(forward).expect("entering");
        // /proc/sys/net shows the namespace of the thread that opens it.
        forwarding.expect("turning forwarding on");
        net
    }

    /// A veth pair between the router and one end.
    fn link(&self, end: &NetNs, name: &str, here: &str, there: &str) {
        let path = format!("/proc/{}/fd/{}", std::process::id(), fd(end));
        let add = format!("link add {name} type veth peer name eth0 netns {path}");
        ip(&self.router, &add);
        for (netns, device, address) in [(&self.router, name, here), (end, "eth0", there)] {
            ip(netns, &format!("addr add {address} dev {device}"));
            ip(netns, &format!("link set {device} up"));
            ip(netns, "link set lo up");
        }
    }

    fn rules(&self, tables: &Tables) {
        let load = || -> Result<(), parfait_kernel::nft::Error> {
            NftSocket::open()?.reconcile("test", tables)?;
            Ok(())
        };
        self.router.run(load).expect("entering").expect("loading");
    }

    /// What the client finds when it connects by TCP.
    fn connect(&self, to: &str, port: u16) -> Seen {
        let to = SocketAddr::new(to.parse().expect("an address"), port);
        let connect = || TcpStream::connect_timeout(&to, WAIT);
        match self.client.run(connect).expect("entering") {
            Ok(_) => Seen::Connected,
            Err(error) => match error.kind() {
                ErrorKind::TimedOut | ErrorKind::WouldBlock => Seen::Silence,
                ErrorKind::ConnectionRefused => Seen::Refused,
                ErrorKind::HostUnreachable => Seen::Prohibited,
                other => panic!("{other:?}: {error}"),
            },
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Connected,
    Silence,
    Refused,
    Prohibited,
}

fn fd(netns: &NetNs) -> i32 {
    std::os::fd::AsRawFd::as_raw_fd(netns)
}

fn ip(netns: &NetNs, arguments: &str) {
    let run = || Command::new("ip").args(arguments.split(' ')).output();
    let output = netns.run(run).expect("entering").expect("ip");
    assert!(output.status.success(), "ip {arguments}: {output:?}");
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn base(kind: ChainType, hook: Hook, priority: i32, policy: Policy, rules: Vec<Rule>) -> Chain {
    Chain::base(
        BaseChain {
            kind,
            hook,
            priority,
            policy,
        },
        rules,
    )
}

fn forward(policy: Policy, rules: Vec<Vec<Statement>>) -> Table {
    let rules = rules.into_iter().map(Rule::new).collect();
    let chain = base(ChainType::Filter, Hook::Forward, 0, policy, rules);
    Table::new(Family::Ip, "test").chain("forward", chain)
}

fn tables(table: Table) -> Tables {
    Tables::from([(table.key(), table)])
}

fn is(field: Field, value: Value) -> Statement {
    Statement::is(field, value)
}

fn verdict(verdict: Verdict) -> Statement {
    Statement::Verdict(verdict)
}

/// Rulesets that only decide; the client tries port 80 of each server, all of which listen.
fn deciding() -> Vec<(&'static str, Table)> {
    let net = |text: &str| Value::Prefix(text.parse().expect("a prefix"));
    let to = |index: usize| is(Field::Daddr, Value::Address(address(SERVERS[index])));
    let drop = || verdict(Verdict::Drop);
    let accept = || verdict(Verdict::Accept);
    let mut set = Set::new([Field::Daddr, Field::Dport], DataType::None);
    let key = vec![Value::Address(address(SERVERS[1])), Value::Port(80)];
    set.elements.insert(key, Element::new(Data::None));
    let in_set = Statement::in_set([Field::Daddr, Field::Dport], "s");
    let mut ranges = Set::new([Field::Daddr, Field::Dport], DataType::None).interval();
    let key = vec![net("198.51.100.2/31"), Value::Ports(70, 80)];
    ranges.elements.insert(key, Element::new(Data::None));
    let mut vmap = Set::new([Field::Daddr], DataType::Verdict);
    for (index, to) in [
        Verdict::Drop,
        Verdict::Jump("more".into()),
        Verdict::Goto("more".into()),
    ]
    .into_iter()
    .enumerate()
    {
        let key = vec![Value::Address(address(SERVERS[index]))];
        vmap.elements.insert(key, Element::new(Data::Verdict(to)));
    }
    let look_up = Statement::Vmap {
        fields: vec![Field::Daddr],
        map: "v".into(),
    };
    let more = Chain::regular([
        Rule::new([to(1), verdict(Verdict::Return)]),
        Rule::new([Statement::Reject(RejectWith::TcpReset)]),
    ]);
    let not_one = Statement::Match {
        fields: vec![Field::Daddr],
        negated: true,
        operand: Operand::Anonymous(vec![vec![net("198.51.100.0/31")]]),
    };
    let first = is(Field::CtDirection, Value::Number(0));
    vec![
        (
            "drop one",
            forward(Policy::Accept, vec![vec![to(0), drop()]]),
        ),
        (
            "policy drop but replies and one",
            forward(
                Policy::Drop,
                vec![
                    vec![Statement::any_bit(Field::CtState, 6), accept()],
                    vec![to(1), accept()],
                ],
            ),
        ),
        (
            "exact set",
            forward(Policy::Accept, vec![vec![in_set.clone(), drop()]]).set("s", set),
        ),
        (
            "ranges",
            forward(Policy::Accept, vec![vec![in_set, drop()]]).set("s", ranges),
        ),
        (
            "verdict map",
            forward(
                Policy::Drop,
                vec![
                    vec![Statement::any_bit(Field::CtState, 6), accept()],
                    vec![look_up],
                    vec![accept()],
                ],
            )
            .set("v", vmap)
            .chain("more", more),
        ),
        (
            "rejects",
            forward(
                Policy::Accept,
                vec![
                    vec![to(0), Statement::Reject(RejectWith::PortUnreachable)],
                    vec![to(1), Statement::Reject(RejectWith::AdminProhibited)],
                    vec![to(2), Statement::Reject(RejectWith::TcpReset)],
                ],
            ),
        ),
        (
            "not in an anonymous set",
            forward(Policy::Accept, vec![vec![first, not_one, drop()]]),
        ),
        (
            "interfaces and a range of ports",
            forward(
                Policy::Accept,
                vec![vec![
                    is(Field::Iifname, Value::Ifname("c*".into())),
                    Statement::is_not(Field::Oifname, Value::Ifname("x".into())),
                    is(Field::Dport, Value::Ports(1, 100)),
                    to(2),
                    drop(),
                ]],
            ),
        ),
        (
            "every second, then all",
            forward(
                Policy::Accept,
                vec![
                    vec![is(Field::NumgenRandom(2), Value::Number(0)), to(0), drop()],
                    vec![to(0), drop()],
                ],
            ),
        ),
    ]
}

#[test]
fn the_kernel_decides_as_evaluated() {
    let net = Net::new();
    let listen = || SERVERS.map(|server| TcpListener::bind((server, 80)).expect("a listener"));
    let _listeners = net.server.run(listen).expect("entering");
    for (name, table) in deciding() {
        let tables = tables(table);
        net.rules(&tables);
        for server in SERVERS {
            let packet = Packet::new(address(CLIENT), address(server), Protocol::Tcp, 80);
            let context = Context {
                iifname: Some("c"),
                oifname: Some("s"),
                ..Context::new(packet.expect("one family"), &|_| AddressType::Unicast)
            };
            let branches = evaluate(&tables, Hook::Forward, &context);
            assert_eq!(branches.len(), 1, "{name}: {branches:?}");
            let expected = match branches[0].end {
                End::Accepted => Seen::Connected,
                End::Dropped => Seen::Silence,
                // Linux tells a TCP client "refused" for both of these.
                End::Rejected(RejectWith::TcpReset | RejectWith::PortUnreachable) => Seen::Refused,
                End::Rejected(RejectWith::AdminProhibited) => Seen::Prohibited,
                End::Unknown(ref why) => panic!("{name}: {why}"),
            };
            assert_eq!(net.connect(server, 80), expected, "{name}: {server}");
        }
    }
}

#[test]
fn nat_chains_are_passed_by_while_nothing_tracks_connections() {
    let net = Net::new();
    let listen = || TcpListener::bind((SERVERS[0], 80)).expect("a listener");
    let _listener = net.server.run(listen).expect("entering");
    let chain = base(
        ChainType::Nat,
        Hook::Prerouting,
        -100,
        Policy::Drop,
        Vec::new(),
    );
    let table = Table::new(Family::Ip, "test").chain("nat", chain);
    let packet = Packet::new(address(CLIENT), address(SERVERS[0]), Protocol::Tcp, 80);
    let context = Context::new(packet.expect("one family"), &|_| AddressType::Unicast);
    let tracks = Rule::new([Statement::any_bit(Field::CtState, 8), Statement::Counter]);
    let tracking = base(
        ChainType::Filter,
        Hook::Prerouting,
        0,
        Policy::Accept,
        vec![tracks],
    );
    for (table, end, seen) in [
        (table.clone(), End::Accepted, Seen::Connected),
        (
            table.chain("tracking", tracking),
            End::Dropped,
            Seen::Silence,
        ),
    ] {
        let tables = tables(table);
        net.rules(&tables);
        assert_eq!(evaluate(&tables, Hook::Prerouting, &context)[0].end, end);
        assert_eq!(net.connect(SERVERS[0], 80), seen);
    }
}

/// A Service of UDP with an endpoint at each of the servers of `numbers`.
fn service(endpoints: &[&str]) -> Table {
    let frontend = vec![Field::Daddr, Field::L4Proto, Field::Dport];
    let key = vec![
        Value::Address(address(VIP)),
        Value::Protocol(17),
        Value::Port(53),
    ];
    let count = u32::try_from(endpoints.len()).expect("few");
    let mut random = frontend.clone();
    random.push(Field::NumgenRandom(count));
    let verdict = Element::new(Data::Verdict(Verdict::Goto("n".into())));
    let services = Set::new(frontend.clone(), DataType::Verdict).element(key.clone(), verdict);
    let mut targets = Set::new(random.clone(), DataType::Target);
    for (number, server) in (0..).zip(endpoints) {
        let mut key = key.clone();
        key.push(Value::Number(number));
        let element = Element::new(Data::Target(address(server), 5353));
        targets.elements.insert(key, element);
    }
    let look_up = Statement::Vmap {
        fields: frontend,
        map: "services".into(),
    };
    let translate = Statement::DnatMap {
        fields: random,
        map: "targets".into(),
    };
    let hook = base(
        ChainType::Nat,
        Hook::Prerouting,
        -100,
        Policy::Accept,
        vec![Rule::new([look_up])],
    );
    let out = base(
        ChainType::Nat,
        Hook::Postrouting,
        100,
        Policy::Accept,
        vec![Rule::new([
            Statement::any_bit(Field::CtStatus, 32),
            Statement::Masquerade { fully_random: true },
        ])],
    );
    Table::new(Family::Ip, "test")
        .set("services", services)
        .set("targets", targets)
        .chain("n", Chain::regular([Rule::new([translate])]))
        .chain("prerouting", hook)
        .chain("postrouting", out)
}

#[test]
fn a_udp_service_is_translated_as_evaluated_and_forgotten_when_told() {
    let net = Net::new();
    let bind = || SERVERS.map(|server| UdpSocket::bind((server, 5353)).expect("a socket"));
    let servers = net.server.run(bind).expect("entering");
    for server in &servers {
        server.set_read_timeout(Some(WAIT)).expect("a timeout");
    }
    let service_of_two = tables(service(&SERVERS[..2]));
    net.rules(&service_of_two);
    let client = || UdpSocket::bind((CLIENT, 0)).expect("a socket");
    let mut seen = [0; 3];
    for _ in 0..40 {
        let socket = net.client.run(client).expect("entering");
        seen[ask(&socket, &servers).expect("an answer").0] += 1;
    }
    let packet = Packet::new(address(CLIENT), address(VIP), Protocol::Udp, 53);
    let context = Context::new(packet.expect("one family"), &|_| AddressType::Unicast);
    let branches = evaluate(&service_of_two, Hook::Prerouting, &context);
    let expected: Vec<_> = branches.iter().map(|b| b.packet.destination).collect();
    for (index, server) in SERVERS.iter().enumerate() {
        let possible = expected.contains(&address(server));
        assert_eq!(seen[index] > 0, possible, "{seen:?}");
    }

    // A client that keeps its port keeps its endpoint, though the Service has another now …
    let socket = net.client.run(client).expect("entering");
    let (first, from) = ask(&socket, &servers).expect("an answer");
    assert_eq!(from.ip(), address("198.51.100.254"), "masqueraded");
    net.rules(&tables(service(&SERVERS[2..])));
    assert_eq!(ask(&socket, &servers).map(|(index, _)| index), Some(first));
    // … until its connection is deleted.
    let filter = Filter {
        protocol: Some(17),
        destination: Some(address(VIP)),
        destination_port: Some(53),
        reply_source: Some(address(SERVERS[first])),
        reply_source_port: None,
    };
    let mut kernel = net
        .router
        .run(NftSocket::open)
        .expect("entering")
        .expect("a socket");
    let entries = kernel.connections(&filter).expect("listing");
    let ours = entries
        .iter()
        .find(|entry| entry.original.source == socket.local_addr().expect("an address"));
    let ours = ours.expect("our connection");
    assert!(ours.is_dnat());
    assert_eq!(ours.original.destination.to_string(), "203.0.113.10:53");
    assert_eq!(ours.reply.source.port(), 5353);
    assert_eq!(
        conntrack(&net.router),
        kernel
            .connections(&Filter::default())
            .expect("listing")
            .len()
    );
    let deleted = kernel.delete_connections(&filter).expect("deleting");
    assert_eq!(deleted, entries.len());
    assert_eq!(kernel.connections(&filter).expect("listing"), []);
    assert_eq!(ask(&socket, &servers).map(|(index, _)| index), Some(2));
}

/// Sends to the Service; which server got it, and from whom.
fn ask(client: &UdpSocket, servers: &[UdpSocket; 3]) -> Option<(usize, SocketAddr)> {
    client.send_to(b"?", (VIP, 53)).expect("sending");
    let mut buffer = [0; 8];
    for _ in 0..50 {
        for (index, server) in servers.iter().enumerate() {
            server.set_nonblocking(true).expect("non-blocking");
            if let Ok((_, from)) = server.recv_from(&mut buffer) {
                return Some((index, from));
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    None
}

/// How many connections conntrack(8) lists.
fn conntrack(netns: &NetNs) -> usize {
    let run = || Command::new("conntrack").args(["-L"]).output();
    let output = netns.run(run).expect("entering");
    let output = output.expect("conntrack, of the package of that name, is needed by this test");
    String::from_utf8_lossy(&output.stdout).lines().count()
}
