//! What a card says about tunnels, and packets with a wrong checksum, in a real network namespace.
//!
//! Needs root (or a user namespace), `ip`, and `ethtool` nowhere.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

#[path = "support/broken_packets.rs"]
mod broken_packets;

use std::process::Command;

use parfait_kernel::{NetNs, offload};
use parfait_linux::IfName;

fn sh(netns: &NetNs, script: &str) {
    let run = || Command::new("sh").args(["-ec", script]).status().unwrap();
    assert!(netns.run(run).unwrap().success(), "{script}");
}

#[test]
fn broken_packets_are_counted_and_a_card_says_what_it_does() {
    let netns = NetNs::create().expect("root, or a user namespace");
    sh(
        &netns,
        "ip link set lo up; ip link add eth0 type veth peer name far",
    );
    let eth0 = IfName::new("eth0").unwrap();
    let before = netns.run(|| offload::observe(&eth0)).unwrap();
    assert_eq!(
        (before.driver.as_str(), before.checksum_errors),
        ("veth", 0)
    );
    assert_eq!(
        before.tunnel_checksums,
        Some(true),
        "a veth passes everything on"
    );
    netns
        .run(|| {
            let _open = std::net::UdpSocket::bind("127.0.0.1:4789").unwrap();
            broken_packets::send(12);
        })
        .unwrap();
    let after = netns.run(|| offload::observe(&eth0)).unwrap();
    assert_eq!(after.checksum_errors, 12);
    let gone = netns.run(|| offload::observe(&IfName::new("gone0").unwrap()));
    assert_eq!(gone.unwrap().tunnel_checksums, None);
}
