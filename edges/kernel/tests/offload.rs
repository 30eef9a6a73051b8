//! What a card says about tunnels, and packets with a wrong checksum, in a real network namespace.
//!
//! Needs root (or a user namespace), `ip`, and `ethtool` nowhere.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

use std::process::Command;

use parfait_kernel::{NetNs, offload};
use parfait_linux::IfName;

fn sh(netns: &NetNs, script: &str) {
    let run = || Command::new("sh").args(["-ec", script]).status().unwrap();
    assert!(netns.run(run).unwrap().success(), "{script}");
}

/// A whole IPv4 packet with a UDP header whose checksum is wrong, through a raw socket.
fn send_broken(count: usize) {
    // SAFETY: no pointer is passed.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW) };
    assert!(fd >= 0);
    let mut packet = vec![0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend([127, 0, 0, 1, 127, 0, 0, 1]);
    packet.extend([
        0x9c, 0x40, 0x12, 0xb5, 0, 12, 0xde, 0xad, b'o', b'o', b'p', b's',
    ]);
    // SAFETY: all zeroes is a valid sockaddr_in.
    let mut to: libc::sockaddr_in = unsafe { std::mem::zeroed() };
    to.sin_family = libc::sa_family_t::try_from(libc::AF_INET).unwrap();
    to.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
    for _ in 0..count {
        // SAFETY: packet and address are valid for their lengths.
        let sent = unsafe {
            libc::sendto(
                fd,
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const to).cast(),
                size_of_val(&to) as libc::socklen_t,
            )
        };
        assert!(sent > 0, "{}", std::io::Error::last_os_error());
    }
    // SAFETY: the descriptor is ours.
    unsafe { libc::close(fd) };
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
            send_broken(12);
        })
        .unwrap();
    let after = netns.run(|| offload::observe(&eth0)).unwrap();
    assert_eq!(after.checksum_errors, 12);
    let gone = netns.run(|| offload::observe(&IfName::new("gone0").unwrap()));
    assert_eq!(gone.unwrap().tunnel_checksums, None);
}
