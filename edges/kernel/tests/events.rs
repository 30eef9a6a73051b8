//! Somebody else's changes are heard, one's own are not, in a real network namespace.
//!
//! Needs root (or a user namespace), `ip`, `nft` and `sysctl`.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::process::Command;
use std::time::Duration;

use parfait_kernel::events::Events;
use parfait_kernel::nft::NftSocket;
use parfait_kernel::{Kernel as _, NetNs, Socket};
use parfait_linux::nft::{Family, Table, Tables, diff};
use parfait_linux::{Address, IfName, Item, Route, Step};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

fn sh(netns: &NetNs, script: &str) {
    let run = || Command::new("sh").args(["-ec", script]).status().unwrap();
    assert!(netns.run(run).unwrap().success(), "{script}");
}

/// Whether something is heard within this time.
fn heard(events: &mut Events, within: Duration) -> bool {
    let deadline = std::time::Instant::now() + within;
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let left = Timespec::try_from(left).unwrap();
        let fd = events.as_fd();
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        if poll(&mut fds, Some(&left)).unwrap() == 0 {
            return false;
        }
        if events.heard().unwrap() {
            return true;
        }
    }
}

#[test]
fn what_others_change_is_heard_and_what_we_change_is_not() {
    let netns = NetNs::create().expect("root, or a user namespace");
    sh(
        &netns,
        "ip link set lo up; ip link add eth0 type veth peer name far; ip link set far up; ip link set eth0 up
         ip addr add 192.168.77.11/24 dev eth0",
    );
    let mut kernel = Socket::open_in(&netns).unwrap();
    let mut netfilter = netns.run(NftSocket::open).unwrap().unwrap();
    let own = [kernel.as_raw_fd(), netfilter.as_raw_fd()];
    let mut events = netns.run(|| Events::open(&own)).unwrap().unwrap();
    let soon = Duration::from_secs(10);
    let quiet = Duration::from_millis(200);
    // What came before is not news, but its echo may be.
    while heard(&mut events, quiet) {}
    let changes = [
        "ip route add 10.244.2.0/24 via 192.168.77.12",
        "ip -6 route add fd00:9::/64 dev eth0",
        "ip route del 10.244.2.0/24",
        "ip addr add 192.168.77.99/24 dev eth0",
        "ip link set eth0 mtu 1400",
        "ip link set far down",
        "nft add table ip foreign",
        "nft delete table ip foreign",
        "sysctl -qw net.ipv4.ip_forward=1",
        "sysctl -qw net.ipv6.conf.all.forwarding=1",
    ];
    for change in changes {
        sh(&netns, change);
        assert!(heard(&mut events, soon), "{change}");
        while heard(&mut events, quiet) {}
    }
    // One's own: through the sockets that were named.
    let steps: Vec<_> = (0..2000u32)
        .map(|number| {
            let net = format!("10.{}.{}.0/24", 100 + number / 256, number % 256);
            let route = Route::unreachable(net.parse().unwrap());
            Step::Create(Item::new(route.into(), None))
        })
        .collect();
    kernel.execute(&steps).unwrap();
    let mut desired = Tables::new();
    let table = Table::new(Family::Ip, "parfait");
    desired.insert((Family::Ip, "parfait".to_owned()), table);
    netfilter.execute(&diff(&Tables::new(), &desired)).unwrap();
    assert!(!heard(&mut events, quiet), "our own changes are heard");
    sh(&netns, "nft delete table ip parfait");
    assert!(heard(&mut events, soon), "our table was removed");
}

#[test]
fn neighbours_come_and_go_unheard() {
    let netns = NetNs::create().expect("root, or a user namespace");
    sh(
        &netns,
        "ip link set lo up; ip link add eth0 type veth peer name far; ip link set far up; ip link set eth0 up",
    );
    let mut events = netns.run(|| Events::open(&[])).unwrap().unwrap();
    let quiet = Duration::from_millis(200);
    while heard(&mut events, quiet) {}
    sh(
        &netns,
        "ip neigh add 192.168.77.12 lladdr 02:00:00:00:00:01 dev eth0 nud permanent",
    );
    assert!(!heard(&mut events, quiet));
}

/// Of an IPv6 address the kernel does not say who prolonged it, and an agent that lends one twice a second would look at
/// everything as often.
#[test]
fn an_address_is_lent_unheard_and_its_end_is_heard() {
    let netns = NetNs::create().expect("root, or a user namespace");
    sh(
        &netns,
        // No address of its own comes later, when it is known that nobody has it.
        "ip link set lo up; ip link add eth0 type veth peer name far; \
         for link in eth0 far; do ip link set $link addrgenmode none up; done",
    );
    let mut kernel = Socket::open_in(&netns).unwrap();
    let own = [kernel.as_raw_fd()];
    let mut events = netns.run(|| Events::open(&own)).unwrap().unwrap();
    let quiet = Duration::from_millis(200);
    for text in ["192.168.77.200/32", "fd00:77::200/128"] {
        let address = Address {
            lent: Some(3),
            ..Address::new(IfName::new("eth0").unwrap(), text.parse().unwrap())
        };
        let steps = [Step::Create(Item::new(address.clone().into(), None))];
        kernel.execute(&steps).unwrap();
        while heard(&mut events, quiet) {}
        for _ in 0..3 {
            kernel.lend(std::slice::from_ref(&address)).unwrap();
            assert!(!heard(&mut events, quiet), "{text} is lent on");
        }
        assert!(heard(&mut events, Duration::from_secs(20)), "{text} ends");
    }
    sh(&netns, "ip addr add fd00:77::9/64 dev eth0 preferred_lft 0");
    let soon = Duration::from_secs(10);
    assert!(heard(&mut events, soon), "an address of somebody else");
}
