//! Random rulesets and random packets: what [`evaluate`] says and what the kernel does are the same.
//!
//! ```text
//!   client 10.0.0.1–3 ──veth── router: the ruleset ──veth── server 10.1.0.1–3, a raw socket
//! ```
//!
//! Every packet is the first of its connection. The server sees it with the addresses and ports that
//! rules made of it, or does not see it.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use parfait_kernel::NetNs;
use parfait_kernel::nft::NftSocket;
use parfait_linux::nft::evaluate::{AddressType, Branch, Context, End, ct_state, evaluate};
use parfait_linux::nft::{
    BaseChain, Chain, ChainType, Family, Field, Hook, Operand, Policy, Rule, Statement, Table,
    Tables, Value, render,
};
use parfait_packet::{Packet, Protocol};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRunner};
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, ipproto};

#[path = "../../../model/linux/tests/support/nft_tables.rs"]
mod nft_tables;

const HOSTS: [u8; 3] = [1, 2, 3];
const ROUTER: u8 = 254;

struct Net {
    client: NetNs,
    router: RefCell<NftSocket>,
    server: OwnedFd,
    port: Cell<u16>,
    _keep: [NetNs; 2],
}

impl Net {
    fn new() -> Self {
        let [client, router, server] =
            [0; 3].map(|_| NetNs::create().expect("a network namespace (this test needs root)"));
        for (end, name, net) in [(&client, "c", 0), (&server, "s", 1)] {
            let fd = std::os::fd::AsRawFd::as_raw_fd(end);
            let path = format!("/proc/{}/fd/{fd}", std::process::id());
            ip(
                &router,
                &format!("link add {name} type veth peer name eth0 netns {path}"),
            );
            ip(
                &router,
                &format!("addr add 10.{net}.0.{ROUTER}/24 dev {name}"),
            );
            ip(&router, &format!("link set {name} up"));
            for host in HOSTS {
                ip(end, &format!("addr add 10.{net}.0.{host}/24 dev eth0"));
            }
            ip(end, "link set eth0 up");
            ip(end, &format!("route add default via 10.{net}.0.{ROUTER}"));
        }
        ip(&router, "link set lo up");
        let forward = || std::fs::write("/proc/sys/net/ipv4/ip_forward", "1");
        router.run(forward).expect("entering").expect("forwarding");
        let raw = || {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let udp = Some(ipproto::UDP);
            rustix::net::socket_with(AddressFamily::INET, SocketType::RAW, flags, udp)
        };
        let raw = server.run(raw).expect("entering").expect("a raw socket");
        let socket = router.run(NftSocket::open).expect("entering");
        Self {
            client,
            router: RefCell::new(socket.expect("a socket")),
            server: raw,
            port: Cell::new(10_000),
            _keep: [router, server],
        }
    }

    /// Sends one packet, and gives it as the server sees it, if it does within this time.
    fn send(&self, packet: &Packet, wait: Duration) -> Option<Packet> {
        while self.received().is_some() {}
        let from = SocketAddr::new(packet.source, packet.source_port);
        let to = SocketAddr::new(packet.destination, packet.destination_port);
        // The port says which packet this is, should an earlier one arrive late.
        let mark = packet.source_port.to_be_bytes();
        let send = || UdpSocket::bind(from).and_then(|socket| socket.send_to(&mark, to));
        // A rule that rejects may answer before sending returns.
        let _ = self.client.run(send).expect("entering");
        let until = Instant::now() + wait;
        loop {
            match self.received() {
                Some((seen, payload)) if payload == mark => return Some(seen),
                Some(_) => continue,
                None if Instant::now() > until => return None,
                None => {}
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn received(&self) -> Option<(Packet, [u8; 2])> {
        let mut buffer = [0; 256];
        let (length, _) = rustix::net::recv(&self.server, &mut buffer, RecvFlags::empty()).ok()?;
        let bytes = &buffer[..length];
        let header = usize::from(bytes[0] & 0x0f) * 4;
        let port = |at| u16::from_be_bytes([bytes[header + at], bytes[header + at + 1]]);
        let address = |at| IpAddr::from([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let packet = Packet {
            source: address(12),
            destination: address(16),
            protocol: Protocol::Udp,
            source_port: port(0),
            destination_port: port(2),
        };
        Some((packet, port(8).to_be_bytes()))
    }

    /// Has everybody's neighbours resolved, so that later packets need not wait for that.
    fn warm_up(&self) {
        for (from, to) in HOSTS.into_iter().zip(HOSTS) {
            let packet = Packet {
                source: Ipv4Addr::new(10, 0, 0, from).into(),
                destination: Ipv4Addr::new(10, 1, 0, to).into(),
                protocol: Protocol::Udp,
                source_port: self.fresh_port(),
                destination_port: 9,
            };
            let seen = self.send(&packet, Duration::from_secs(5));
            assert_eq!(seen, Some(packet), "without rules, packets pass");
        }
    }

    /// A source port that no packet had before.
    fn fresh_port(&self) -> u16 {
        self.port.set(self.port.get() + 1);
        self.port.get()
    }
}

fn ip(netns: &NetNs, arguments: &str) {
    let run = || Command::new("ip").args(arguments.split(' ')).output();
    let output = netns.run(run).expect("entering").expect("ip");
    assert!(output.status.success(), "ip {arguments}: {output:?}");
}

fn address_type(address: IpAddr) -> AddressType {
    let router = |net| IpAddr::from(Ipv4Addr::new(10, net, 0, ROUTER));
    if address == router(0) || address == router(1) {
        AddressType::Local
    } else {
        AddressType::Unicast
    }
}

/// All ways through the router.
fn predict(tables: &Tables, packet: Packet) -> Vec<Branch> {
    let mut ways = vec![Branch {
        weight: (1, 1),
        packet,
        ct_status: 0,
        mark: 0,
        ct_mark: Some(0),
        untracked: false,
        masquerade: false,
        snat: false,
        missed: Default::default(),
        end: End::Accepted,
        steps: Vec::new(),
    }];
    for hook in [Hook::Prerouting, Hook::Forward, Hook::Postrouting] {
        ways = ways
            .into_iter()
            .flat_map(|way| match way.end {
                End::Accepted => {
                    let context = Context {
                        iifname: Some("c"),
                        oifname: (hook != Hook::Prerouting).then_some("s"),
                        ct_status: way.ct_status,
                        mark: way.mark,
                        ct_mark: way.ct_mark,
                        original: Some(packet),
                        ct_state: match way.untracked {
                            true => ct_state::UNTRACKED,
                            false => ct_state::NEW,
                        },
                        ..Context::new(way.packet, &address_type)
                    };
                    let mut on = evaluate(tables, hook, &context);
                    for next in &mut on {
                        next.missed.extend(way.missed.iter().cloned());
                    }
                    on
                }
                _ => vec![way],
            })
            .collect();
    }
    ways
}

fn is_server(address: IpAddr) -> bool {
    HOSTS
        .iter()
        .any(|host| address == IpAddr::from(Ipv4Addr::new(10, 1, 0, *host)))
}

/// An address that the server takes a packet from.
fn is_client(address: IpAddr) -> bool {
    HOSTS
        .iter()
        .flat_map(|host| [0, 2].map(|net| Ipv4Addr::new(10, net, 0, *host)))
        .any(|client| address == IpAddr::from(client))
}

/// Without what the evaluator says it does not model: `ct status` compared as a whole.
fn modelled(mut tables: Tables) -> Tables {
    let whole_status = |rule: &Rule| {
        rule.statements.iter().any(|statement| match statement {
            Statement::Match {
                fields, operand, ..
            } => fields.contains(&Field::CtStatus) && !matches!(operand, Operand::Bits(_)),
            Statement::Vmap { fields, .. }
            | Statement::DnatMap { fields, .. }
            | Statement::SnatMap { fields, .. } => fields.contains(&Field::CtStatus),
            _ => false,
        })
    };
    for chain in tables
        .values_mut()
        .flat_map(|table| table.chains.values_mut())
    {
        chain.rules.retain(|rule| !whole_status(rule));
    }
    tables
}

/// Ports that occur in the ruleset, so that packets hit its rules.
fn ports(tables: &Tables) -> Vec<u16> {
    let mut ports = vec![53];
    let mut take = |value: &Value| match value {
        Value::Port(port) | Value::Ports(port, _) => ports.push((*port).max(1)),
        _ => {}
    };
    for table in tables.values() {
        for set in table.sets.values() {
            set.elements.keys().flatten().for_each(&mut take);
        }
        for rule in table.chains.values().flat_map(|chain| &chain.rules) {
            for statement in &rule.statements {
                match statement {
                    Statement::Match {
                        operand: Operand::Values(values),
                        ..
                    } => {
                        values.iter().for_each(&mut take);
                    }
                    Statement::Match {
                        operand: Operand::Anonymous(rows),
                        ..
                    } => {
                        rows.iter().flatten().for_each(&mut take);
                    }
                    _ => {}
                }
            }
        }
    }
    ports
}

/// How often each outcome was compared, to see that the test does not compare nothing.
#[derive(Debug, Default)]
struct Counts {
    delivered: u32,
    translated: u32,
    masqueraded: u32,
    source_translated: u32,
    lost: u32,
    unknown: u32,
}

fn check(
    net: &Net,
    tables: &Tables,
    packet: Packet,
    counts: &mut Counts,
) -> Result<(), TestCaseError> {
    let ways = predict(tables, packet);
    let known = |way: &Branch| match way.end {
        End::Unknown(_) => false,
        End::Accepted => {
            is_server(way.packet.destination) && (!way.snat || is_client(way.packet.source))
        }
        _ => true,
    };
    // What earlier packets have added to dynamic sets is not asked for here.
    let told = |way: &Branch| known(way) && way.missed.is_empty();
    if !ways.iter().all(told) {
        counts.unknown += 1;
        return Ok(());
    }
    let certain = ways.iter().all(|way| way.end == End::Accepted);
    // A packet that comes is not waited for any longer.
    let wait = Duration::from_millis(if certain { 3000 } else { 3 });
    let seen = net.send(&packet, wait);
    let router = IpAddr::from(Ipv4Addr::new(10, 1, 0, ROUTER));
    let agrees = |way: &Branch| match (&way.end, &seen) {
        (End::Accepted, Some(seen)) if way.masquerade => {
            seen.source == router
                && (seen.destination, seen.destination_port)
                    == (way.packet.destination, way.packet.destination_port)
        }
        // The port is the kernel's choice.
        (End::Accepted, Some(seen)) if way.snat => {
            let source_port = seen.source_port;
            *seen
                == Packet {
                    source_port,
                    ..way.packet
                }
        }
        (End::Accepted, Some(seen)) => *seen == way.packet,
        (End::Accepted, None) => false,
        (_, seen) => seen.is_none(),
    };
    let Some(way) = ways.iter().find(|way| agrees(way)) else {
        let steps: Vec<_> = ways
            .iter()
            .map(|way| (&way.end, way.packet, &way.steps))
            .collect();
        return Err(TestCaseError::fail(format!(
            "{packet}: evaluated {steps:#?}, but seen {seen:?} with\n{}",
            render::ruleset(tables)
        )));
    };
    match way.end {
        End::Accepted => {
            counts.delivered += 1;
            counts.translated += u32::from(way.packet.destination != packet.destination);
            counts.masqueraded += u32::from(way.masquerade);
            counts.source_translated += u32::from(way.snat);
        }
        _ => counts.lost += 1,
    }
    Ok(())
}

/// With one more chain that translates packets to one server into packets to another: random rules
/// alone do so too rarely.
fn translating((mut tables, dnat): (Tables, Option<(u8, u8, u16)>)) -> Tables {
    let Some((from, to, port)) = dnat else {
        return tables;
    };
    let server = |host| IpAddr::from(Ipv4Addr::new(10, 1, 0, host));
    let base = BaseChain {
        kind: ChainType::Nat,
        hook: Hook::Prerouting,
        priority: -185,
        policy: Policy::Accept,
    };
    let rule = Rule::new([
        Statement::is(Field::Daddr, Value::Address(server(from))),
        Statement::Dnat(server(to), port),
    ]);
    let out = BaseChain {
        hook: Hook::Postrouting,
        ..base
    };
    let snat = Rule::new([
        Statement::is(Field::Daddr, Value::Address(server(to))),
        Statement::is(Field::Mark, Value::Number(0)),
        Statement::Snat {
            address: Ipv4Addr::new(10, 2, 0, 1).into(),
            fully_random: port % 2 == 0,
        },
    ]);
    for table in tables.values_mut() {
        let chain = Chain::base(base, [rule.clone()]);
        table.chains.insert("translate".to_owned(), chain);
        let chain = Chain::base(out, [snat.clone()]);
        table.chains.insert("translate-source".to_owned(), chain);
    }
    tables
}

/// A rule that makes the kernel track connections. Without one in any table, nat chains are passed
/// by, but only from some time after the last such rule went: this one stays.
fn tracking() -> Table {
    let base = BaseChain {
        kind: ChainType::Filter,
        hook: Hook::Prerouting,
        priority: -190,
        policy: Policy::Accept,
    };
    let rule = Rule::new([Statement::any_bit(Field::CtState, 8), Statement::Counter]);
    Table::new(Family::Ip, "tracking").chain("prerouting", Chain::base(base, [rule]))
}

#[test]
fn the_kernel_does_to_random_packets_what_is_evaluated() {
    let net = Net::new();
    net.warm_up();
    let counts = RefCell::new(Counts::default());
    let always = Tables::from([(tracking().key(), tracking())]);
    let loaded = net.router.borrow_mut().reconcile("tracking", &always);
    loaded.expect("a rule that tracks connections");
    let host = || prop::sample::select(HOSTS.to_vec());
    let packets = prop::collection::vec((host(), host(), any::<prop::sample::Index>()), 6);
    let table = nft_tables::table(Family::Ip)
        .prop_map(|table| modelled(Tables::from([(table.key(), table)])));
    let table = (table, prop::option::of((host(), host(), 1..100_u16))).prop_map(translating);
    let mut runner = TestRunner::new(Config {
        max_shrink_iters: 300,
        ..cases(120)
    });
    let result = runner.run(&(table, packets), |(tables, packets)| {
        let mut socket = net.router.borrow_mut();
        let loaded = socket.reconcile(nft_tables::NAME, &tables);
        prop_assert!(loaded.is_ok(), "{:?}", loaded);
        let mut tables = tables;
        tables.insert(tracking().key(), tracking());
        for (from, to, port) in packets {
            let packet = Packet {
                source: Ipv4Addr::new(10, 0, 0, from).into(),
                destination: Ipv4Addr::new(10, 1, 0, to).into(),
                protocol: Protocol::Udp,
                source_port: net.fresh_port(),
                destination_port: *port.get(&ports(&tables)),
            };
            check(&net, &tables, packet, &mut counts.borrow_mut())?;
        }
        Ok(())
    });
    match result {
        Ok(()) => {}
        Err(TestError::Fail(why, _)) => panic!("{why}"),
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
    let counts = counts.into_inner();
    eprintln!("{counts:?}");
    assert!(counts.delivered > 20 && counts.lost > 20, "{counts:?}");
}

/// Failures are printed, not written beside the sources.
fn cases(cases: u32) -> Config {
    Config {
        failure_persistence: None,
        ..Config::with_cases(cases)
    }
}
