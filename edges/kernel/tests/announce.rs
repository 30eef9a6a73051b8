//! An address that moves from one machine to another, in real network namespaces: who is asked, who has learned what,
//! whose source it is, and what becomes of it if nobody speaks for it any more.
//!
//! Needs root (or a user namespace), `ip` and `ping`.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use parfait_kernel::{Kernel as _, NetNs, Socket, announce};
use parfait_linux::{Address, IfName, Item, Object, RouteProtocol, Scope, Step};

fn sh(netns: &NetNs, script: &str) -> String {
    let run = || Command::new("sh").args(["-ec", script]).output().unwrap();
    let output = netns.run(run).unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{script}: {}",
        said(&output.stderr)
    );
    said(&output.stdout)
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Two nodes and a client on one switch.
fn segment() -> [NetNs; 4] {
    let switch = NetNs::create().expect("root, or a user namespace");
    sh(&switch, "ip link add br0 type bridge; ip link set br0 up");
    let machine = |last: u8| {
        let netns = NetNs::create().unwrap();
        let settings = "echo 0 > /proc/sys/net/ipv6/conf/all/accept_dad; echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad";
        sh(&netns, settings);
        let mut near = Socket::open_in(&switch).unwrap();
        let link = |name: &str| {
            parfait_linux::Link::new(
                IfName::new(name).unwrap(),
                parfait_linux::LinkKind::Veth { peer: None },
            )
        };
        near.create_veth(&link(&format!("p{last}")), &link("eth0"), Some(&netns))
            .unwrap();
        sh(&switch, &format!("ip link set p{last} master br0 up"));
        sh(
            &netns,
            &format!(
                "ip link set lo up; ip link set eth0 up; ip addr add 192.168.77.{last}/24 dev eth0; \
             ip addr add fd00:77::{last}/64 dev eth0 nodad"
            ),
        );
        netns
    };
    let machines = [machine(1), machine(2), machine(3)];
    let [a, b, client] = machines;
    [switch, a, b, client]
}

const ADDRESSES: [&str; 2] = ["192.168.77.200/32", "fd00:77::200/128"];

fn addresses() -> Vec<Address> {
    let address = |text: &&str| Address {
        scope: Scope::Host,
        protocol: Some(RouteProtocol::PARFAIT),
        lent: Some(4),
        ..Address::new(IfName::new("eth0").unwrap(), text.parse().unwrap())
    };
    ADDRESSES.iter().map(address).collect()
}

fn take(netns: &NetNs) {
    let created = addresses()
        .into_iter()
        .map(|address| Step::Create(Item::new(Object::from(address), None)));
    let created: Vec<_> = created.collect();
    Socket::open_in(netns).unwrap().execute(&created).unwrap();
}

fn mac(netns: &NetNs) -> String {
    let shown = sh(netns, "ip -o link show eth0");
    shown
        .split("link/ether ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .to_owned()
}

#[test]
fn neighbours_learn_at_once_where_an_address_has_moved() {
    let [_switch, a, b, client] = segment();
    take(&a);
    for ip in ["192.168.77.200", "fd00:77::200"] {
        eventually("an answer", || {
            let answer = client.run(|| {
                Command::new("ping")
                    .args(["-c1", "-W1", ip])
                    .output()
                    .unwrap()
            });
            answer.unwrap().status.success()
        });
        let known = sh(&client, &format!("ip neigh show {ip}"));
        assert!(known.contains(&mac(&a)), "{known}");
    }
    take(&b);
    let moved: Vec<IpAddr> = addresses()
        .iter()
        .map(|address| address.address.addr())
        .collect();
    let eth0 = IfName::new("eth0").unwrap();
    // A neighbour that was heard of less than a second ago is not changed (locktime in arp(7)): so it is told again.
    eventually("the client knows the new one", || {
        b.run(|| announce(&eth0, &moved)).unwrap().unwrap();
        moved
            .iter()
            .all(|ip| sh(&client, &format!("ip neigh show {ip}")).contains(&mac(&b)))
    });
    // The loser, which still has them, is not disturbed.
    assert_eq!(sh(&a, "ip -6 addr show dev eth0 dadfailed"), "");
    let gone = b
        .run(|| announce(&IfName::new("gone0").unwrap(), &moved))
        .unwrap();
    let said = gone.unwrap_err().to_string();
    assert!(
        said.starts_with("announce 192.168.77.200 on gone0"),
        "{said}"
    );
}

#[test]
fn the_kernel_takes_back_what_nobody_speaks_for_and_never_sends_from_it() {
    let [_switch, a, _b, _client] = segment();
    take(&a);
    for (to, own) in [
        ("192.168.77.3", "192.168.77.1"),
        ("fd00:77::3", "fd00:77::1"),
    ] {
        let route = sh(&a, &format!("ip route get {to}"));
        assert!(route.contains(&format!("src {own} ")), "{route}");
    }
    let held = || {
        let shown = sh(&a, "ip -o addr show dev eth0");
        ADDRESSES
            .iter()
            .filter(|address| shown.contains(*address))
            .count()
    };
    let mut socket = Socket::open_in(&a).unwrap();
    assert_eq!(held(), 2);
    let until = Instant::now() + Duration::from_secs(6);
    while Instant::now() < until {
        socket.lend(&addresses()).unwrap();
        assert_eq!(held(), 2, "somebody speaks for them");
        std::thread::sleep(Duration::from_millis(200));
    }
    let observed = socket.observe(&[]).unwrap();
    for address in addresses() {
        let found = observed.addresses.get(&address.key()).expect("it is there");
        assert!(found.value.satisfies(&address), "{}", found.value);
    }
    eventually("the kernel has taken them back", || held() == 0);
}

/// An agent that ends before it has said anything again leaves nothing that somebody would have to take away.
#[test]
fn an_address_is_lent_from_the_first_moment() {
    let [_switch, a, _b, _client] = segment();
    take(&a);
    let shown = sh(&a, "ip -o addr show dev eth0");
    for address in ADDRESSES {
        let line = shown.lines().find(|line| line.contains(address));
        let line = line.expect("it is there");
        assert!(line.contains("preferred_lft 0sec"), "{line}");
        let valid = line
            .split("valid_lft ")
            .nth(1)
            .and_then(|rest| rest.split("sec").next());
        let valid: u32 = valid
            .and_then(|text| text.parse().ok())
            .expect("seconds, not forever");
        assert!(valid <= 4, "{line}");
    }
}
