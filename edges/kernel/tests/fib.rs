//! The evaluation of routes against the kernel's own: random namespaces, and for every destination
//! what [`State::route`] says and what `ip route get` says.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use parfait_kernel::{Kernel, NetNs, Socket};
use parfait_linux::{Address, IfName, Ownership, Route, RouteDecision, State, diff};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const LINKS: [&str; 2] = ["eth0", "eth1"];

fn name(text: &str) -> IfName {
    IfName::new(text).unwrap()
}

fn run(netns: &NetNs, command: &str) -> Result<String, String> {
    let words: Vec<_> = command.split_whitespace().collect();
    let output = netns
        .run(|| Command::new(words[0]).args(&words[1..]).output().unwrap())
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}

fn fresh() -> NetNs {
    let netns = NetNs::create().expect("root, or a user namespace");
    for command in [
        "ip link set lo up",
        // Addresses under duplicate address detection are no sources yet.
        "sysctl -qw net.ipv6.conf.default.accept_dad=0",
        "ip link add eth0 type veth peer name far0",
        "ip link add eth1 type veth peer name far1",
        "ip link set eth0 up",
        "ip link set far0 up",
        "ip link set eth1 up",
        "ip link set far1 up",
    ] {
        run(&netns, command).unwrap();
    }
    // The kernel gives a link its own address some time after it came up.
    let start = Instant::now();
    while settled(&netns) < 4 {
        assert!(start.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(1));
    }
    netns
}

/// How many links have a link-local address that they may use.
fn settled(netns: &NetNs) -> usize {
    let addresses = run(netns, "ip -6 -o addr show scope link -tentative").unwrap();
    addresses.lines().count()
}

/// A few addresses that lie in each other's prefixes often.
fn ip(v6: bool, number: u8) -> IpAddr {
    let (net, host) = (number / 8 % 4, number % 8 + 1);
    if v6 {
        IpAddr::from([0xfd00, 0, 0, net.into(), 0, 0, 0, host.into()])
    } else {
        IpAddr::from([10, 0, net, host])
    }
}

fn prefix(v6: bool, number: u8, length: u8) -> IpNet {
    let lengths = if v6 {
        [0, 48, 62, 64, 128]
    } else {
        [0, 16, 22, 24, 32]
    };
    IpNet::new(ip(v6, number), lengths[usize::from(length) % 5]).unwrap()
}

#[derive(Clone, Debug)]
struct World {
    addresses: Vec<(bool, usize, u8, u8)>,
    routes: Vec<(bool, usize, u8, u8, u8, u8)>,
}

fn world() -> impl Strategy<Value = World> {
    let address = (any::<bool>(), 0usize..3, any::<u8>(), 3u8..5);
    let route = (
        any::<bool>(),
        0usize..2,
        any::<u8>(),
        any::<u8>(),
        any::<u8>(),
        0u8..6,
    );
    (
        prop::collection::vec(address, 0..6),
        prop::collection::vec(route, 0..8),
    )
        .prop_map(|(addresses, routes)| World { addresses, routes })
}

/// What a random plan holds. Some of it the kernel will refuse; what it took is what counts.
fn plan(world: &World) -> State {
    let mut state = State::default();
    for (v6, link, number, length) in &world.addresses {
        let (link, length) = match link {
            2 => (IfName::loopback(), 4),
            index => (name(LINKS[*index]), *length),
        };
        let length = if length == 3 {
            24 + 40 * u8::from(*v6)
        } else {
            32 + 96 * u8::from(*v6)
        };
        let net = IpNet::new(ip(*v6, *number), length).unwrap();
        state.insert(Address::new(link, net), None);
    }
    for (v6, link, number, length, via, kind) in &world.routes {
        let destination = prefix(*v6, *number, *length).trunc();
        let link = name(LINKS[*link]);
        let mut route = match kind {
            0 => Route::unreachable(destination),
            1 | 2 => Route::direct(destination, link),
            _ => Route {
                onlink: true,
                ..Route::via(destination, ip(*v6, *via), link)
            },
        };
        route.metric += u32::from(kind % 2) * 10;
        state.insert(route, None);
    }
    state
}

/// `(kind, device, gateway, source)`, as both sides can say it.
type Answer = (String, String, Option<String>, Option<String>);

fn ours(state: &State, destination: IpAddr) -> Option<Answer> {
    match state.route(destination) {
        RouteDecision::Local { .. } => Some(("local".into(), "lo".into(), None, None)),
        RouteDecision::Unicast(way) => Some((
            "unicast".into(),
            way.link.to_string(),
            way.route.via.map(|via| via.to_string()),
            way.source.map(|source| source.to_string()),
        )),
        RouteDecision::Refused { .. } | RouteDecision::NoRoute => None,
    }
}

fn kernels(netns: &NetNs, destination: IpAddr) -> Option<Answer> {
    let line = run(netns, &format!("ip -o route get {destination}")).ok()?;
    let words: Vec<_> = line.split_whitespace().collect();
    if words[0] == "local" {
        return Some(("local".into(), "lo".into(), None, None));
    }
    if words[0] == "unreachable" {
        return None;
    }
    let fields: BTreeMap<_, _> = words.windows(2).map(|pair| (pair[0], pair[1])).collect();
    let field = |key| fields.get(key).map(|value| (*value).to_owned());
    Some((
        "unicast".into(),
        field("dev").unwrap(),
        field("via"),
        field("src"),
    ))
}

#[test]
fn routes_are_evaluated_as_the_kernel_does() {
    let mut runner = TestRunner::new(Config {
        cases: 24,
        failure_persistence: None,
        ..Config::default()
    });
    let outcome = runner.run(&world(), |world| {
        let netns = fresh();
        let mut socket = Socket::open_in(&netns).unwrap();
        // What the kernel refuses (a prefix twice, a next hop that is its own) is not there.
        let _ = socket.execute(&diff(
            &State::default(),
            &plan(&world),
            &Ownership::agent([]),
        ));
        let state = socket.observe(&[]).unwrap();
        for v6 in [false, true] {
            for number in 0..32 {
                let destination = ip(v6, number);
                prop_assert_eq!(
                    ours(&state, destination),
                    kernels(&netns, destination),
                    "{}\n{}",
                    destination,
                    state
                );
            }
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
