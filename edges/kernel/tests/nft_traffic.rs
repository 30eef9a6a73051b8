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
use parfait_linux::conntrack::Entry;
use parfait_linux::nft::evaluate::{AddressType, Context, End, evaluate};
use parfait_linux::nft::{
    BaseChain, Chain, ChainType, Data, DataType, Dynamic, Element, Family, Field, Hook, NewData,
    Policy, RejectWith, Rule, Set, Statement, Table, Tables, Update, Value, Verdict, compare, diff,
};
use parfait_packet::{Fault, Packet, Protocol};

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

    /// What the client finds when it connects by TCP; silence is only waited for where it is
    /// expected, for a busy machine may take its time to answer.
    fn connect(&self, to: &str, port: u16, expected: Seen) -> Seen {
        let wait = match expected {
            Seen::Silence => WAIT,
            _ => Duration::from_secs(5),
        };
        let to = SocketAddr::new(to.parse().expect("an address"), port);
        let connect = || TcpStream::connect_timeout(&to, wait);
        match self.client.run(connect).expect("entering") {
            Ok(_) => Seen::Connected,
            Err(error) => match error.kind() {
                ErrorKind::TimedOut | ErrorKind::WouldBlock => Seen::Silence,
                ErrorKind::ConnectionRefused => Seen::Refused,
                ErrorKind::HostUnreachable => Seen::Prohibited,
                ErrorKind::NetworkUnreachable => Seen::NoRoute,
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
    NoRoute,
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

fn tables(table: Table) -> Tables {
    Tables::from([(table.key(), table)])
}

/// Rulesets that only decide; the client tries port 80 of each server, all of which listen.
const DECIDING: [(&str, &str); 11] = [
    (
        "drop one",
        "chain forward { HOOK policy accept; ip daddr 198.51.100.1 drop; }",
    ),
    (
        "policy drop but replies and one",
        "chain forward { HOOK policy drop; ct state established,related accept
            ip daddr 198.51.100.2 accept; }",
    ),
    (
        "exact set",
        "set s { typeof ip daddr . th dport; elements = { 198.51.100.2 . 80 }; }
        chain forward { HOOK policy accept; ip daddr . th dport @s drop; }",
    ),
    (
        "ranges",
        "set s { typeof ip daddr . th dport; flags interval
            elements = { 198.51.100.2/31 . 70-80 }; }
        chain forward { HOOK policy accept; ip daddr . th dport @s drop; }",
    ),
    (
        "verdict map",
        "chain more { ip daddr 198.51.100.2 return; meta l4proto tcp reject with tcp reset; }
        map v { typeof ip daddr : verdict; elements = { 198.51.100.1 : drop,
            198.51.100.2 : jump more, 198.51.100.3 : goto more }; }
        chain forward { HOOK policy drop; ct state established,related accept
            ip daddr vmap @v; accept; }",
    ),
    (
        "rejects",
        "chain forward { HOOK policy accept; ip daddr 198.51.100.1 reject
            ip daddr 198.51.100.2 reject with icmp admin-prohibited
            ip daddr 198.51.100.3 meta l4proto tcp reject with tcp reset; }",
    ),
    (
        "other rejects",
        "limit l { rate 100/second; }
        counter c { }
        chain forward { HOOK policy accept; ip daddr 198.51.100.1 reject with icmp net-unreachable
            ip daddr 198.51.100.2 counter name c reject with icmp host-unreachable
            log group 3 limit name l accept; }",
    ),
    (
        "marks and where the connection went",
        "chain forward { HOOK policy accept; meta mark set 5
            ct original ip daddr 198.51.100.1 ct mark set meta mark
            ct mark 5 meta mark set ct mark & 0x4 meta mark 4 drop
            icmp type echo-request drop
            meta l4proto tcp ct original proto-dst 80 ip daddr 198.51.100.2 drop; }",
    ),
    (
        "not in an anonymous set",
        "chain forward { HOOK policy accept
            ct direction original ip daddr != { 198.51.100.0/31, 192.0.2.0/24 } drop; }",
    ),
    (
        "interfaces and a range of ports",
        "chain forward { HOOK policy accept
            iifname \"c*\" oifname != \"x\" th dport 1-100 ip daddr 198.51.100.3 drop; }",
    ),
    (
        "every second, then all",
        "chain forward { HOOK policy accept
            numgen random mod 2 0 ip daddr 198.51.100.1 drop; ip daddr 198.51.100.1 drop; }",
    ),
];

/// Has `nft` load the ruleset, and gives it as observed.
fn parse(net: &Net, ruleset: &str) -> Tables {
    let hook = "type filter hook forward priority filter;";
    let ruleset = format!("table ip test {{\n{}\n}}", ruleset.replace("HOOK", hook));
    let load = || {
        let mut socket = NftSocket::open().expect("a socket");
        socket
            .reconcile("test", &Tables::new())
            .expect("deleting the one before");
        let output = Command::new("nft").arg(ruleset).output();
        let output = output.expect("nft, of the package nftables, is needed by this test");
        assert!(output.status.success(), "{output:?}");
        let tables = socket.observe_all().expect("observing").tables;
        // What the packets meet is to be what we write, not what nft wrote.
        socket.reconcile("test", &Tables::new()).expect("deleting");
        tables
    };
    net.router.run(load).expect("entering")
}

#[test]
fn the_kernel_decides_as_evaluated() {
    let net = Net::new();
    let listen = || SERVERS.map(|server| TcpListener::bind((server, 80)).expect("a listener"));
    let _listeners = net.server.run(listen).expect("entering");
    for (name, ruleset) in DECIDING {
        let tables = parse(&net, ruleset);
        net.rules(&tables);
        for server in SERVERS {
            let packet = Packet::new(address(CLIENT), address(server), Protocol::Tcp, 80);
            let context = Context {
                iifname: Some("c"),
                oifname: Some("s"),
                original: packet,
                ..Context::new(packet.expect("one family"), &|_| AddressType::Unicast)
            };
            let branches = evaluate(&tables, Hook::Forward, &context);
            assert_eq!(branches.len(), 1, "{name}: {branches:?}");
            let expected = match branches[0].end {
                End::Accepted => Seen::Connected,
                End::Dropped => Seen::Silence,
                // Linux tells a TCP client "refused" for both of these.
                End::Rejected(RejectWith::TcpReset | RejectWith::PortUnreachable) => Seen::Refused,
                End::Rejected(RejectWith::NoRoute) => Seen::NoRoute,
                // EHOSTUNREACH for all of these.
                End::Rejected(
                    RejectWith::AdminProhibited | RejectWith::HostUnreachable | RejectWith::Code(_),
                ) => Seen::Prohibited,
                End::Unknown(ref why) => panic!("{name}: {why}"),
            };
            assert_eq!(
                net.connect(server, 80, expected),
                expected,
                "{name}: {server}"
            );
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
        assert_eq!(net.connect(SERVERS[0], 80, seen), seen);
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
        ..Filter::default()
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
    delete_unanswered(&mut kernel, filter, &entries);
    assert_eq!(kernel.connections(&filter).expect("listing"), []);
    assert_eq!(ask(&socket, &servers).map(|(index, _)| index), Some(2));
}

/// Removes connections one by one; nobody has answered them.
fn delete_unanswered(kernel: &mut NftSocket, filter: Filter, entries: &[Entry]) {
    let unanswered = Filter {
        unanswered: true,
        ..filter
    };
    let listed = kernel.connections(&unanswered).expect("listing");
    let ids = |entries: &[Entry]| entries.iter().map(|entry| entry.id).collect::<Vec<_>>();
    assert_eq!(ids(&listed), ids(entries));
    for entry in entries {
        assert!(kernel.delete_connection(entry).expect("deleting"));
        assert!(!kernel.delete_connection(entry).expect("deleting"), "gone");
    }
}

/// Sends to the Service; which server got it, and from whom.
fn ask(client: &UdpSocket, servers: &[UdpSocket; 3]) -> Option<(usize, SocketAddr)> {
    client.send_to(b"?", (VIP, 53)).expect("sending");
    let mut buffer = [0; 8];
    for _ in 0..1000 {
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

/// Who came before goes where it went; others go to this server.
fn sticky(server: &str) -> Table {
    let dynamic = Dynamic {
        size: 1000,
        timeout: Some(Duration::from_secs(600)),
    };
    let key = vec![Field::Saddr, Field::Daddr];
    let affinity = Set::new(key.clone(), DataType::Target).dynamic(dynamic);
    let again = Statement::DnatMap {
        fields: key.clone(),
        map: "affinity".into(),
    };
    let note = Statement::Update(Update {
        set: "affinity".into(),
        key,
        timeout: Some(Duration::from_secs(300)),
        data: NewData::Fixed(Data::Target(address(server), 5353)),
    });
    let to_vip = Statement::is(Field::Daddr, Value::Address(address(VIP)));
    let rules = vec![
        Rule::new([again]),
        Rule::new([to_vip, note, Statement::Dnat(address(server), 5353)]),
    ];
    let chain = base(
        ChainType::Nat,
        Hook::Prerouting,
        -100,
        Policy::Accept,
        rules,
    );
    Table::new(Family::Ip, "test")
        .set("affinity", affinity)
        .chain("prerouting", chain)
}

#[test]
fn what_packets_add_is_looked_up_and_left_alone() {
    let net = Net::new();
    let bind = || SERVERS.map(|server| UdpSocket::bind((server, 5353)).expect("a socket"));
    let servers = net.server.run(bind).expect("entering");
    for server in &servers {
        server.set_read_timeout(Some(WAIT)).expect("a timeout");
    }
    let client = || UdpSocket::bind((CLIENT, 0)).expect("a socket");
    let packet = Packet::new(address(CLIENT), address(VIP), Protocol::Udp, 53);
    let context = Context::new(packet.expect("one family"), &|_| AddressType::Unicast);
    let first = tables(sticky(SERVERS[0]));
    net.rules(&first);
    let mut kernel = net
        .router
        .run(NftSocket::open)
        .expect("entering")
        .expect("a socket");
    let before = &evaluate(&first, Hook::Prerouting, &context)[0];
    assert!(before.missed.contains("affinity"));
    let socket = net.client.run(client).expect("entering");
    assert_eq!(ask(&socket, &servers).expect("an answer").0, 0);

    // Another server for whoever is new. What the packet has added stays …
    let second = tables(sticky(SERVERS[1]));
    net.rules(&second);
    let observed = kernel.observe_all().expect("observing").tables;
    let (key, table) = observed.first_key_value().expect("the table");
    let added = &table.sets["affinity"].elements;
    let client_and_vip = vec![
        Value::Address(address(CLIENT)),
        Value::Address(address(VIP)),
    ];
    let element = added.get(&client_and_vip).expect("what the packet added");
    assert_eq!(element.data, Data::Target(address(SERVERS[0]), 5353));
    // … and is nothing to put right.
    assert_eq!(diff(&observed, &second), []);
    let all = |_: &str| true;
    let findings = compare(
        Fault::ServicesDifferent,
        &second[key],
        Some(table),
        all,
        all,
    );
    assert_eq!(findings, []);
    let after = &evaluate(&observed, Hook::Prerouting, &context)[0];
    assert_eq!(after.packet.destination, address(SERVERS[0]));
    assert!(after.missed.is_empty());
    let socket = net.client.run(client).expect("entering");
    assert_eq!(ask(&socket, &servers).expect("an answer").0, 0);
}
