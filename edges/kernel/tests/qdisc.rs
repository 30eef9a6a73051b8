//! Token buckets in real network namespaces, compared with what `tc` says is there.
//!
//! Each test makes its own namespace and lets it go. Needs root (or a user namespace); without, the tests fail rather
//! than pass silently.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

use std::process::Command;

use parfait_kernel::{NetNs, Socket};
use parfait_linux::{IfName, Tbf};

fn shell(netns: &NetNs, command: &str) -> String {
    let output = netns
        .run(|| {
            let mut words = command.split_whitespace();
            let program = words.next().unwrap();
            Command::new(program).args(words).output().unwrap()
        })
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {text}");
    String::from_utf8(output.stdout).unwrap()
}

fn node() -> (NetNs, Socket, IfName) {
    let netns = NetNs::create().expect("root, or a user namespace");
    shell(&netns, "ip link add eth0 type veth peer name far0");
    let socket = Socket::open_in(&netns).unwrap();
    (netns, socket, IfName::new("eth0").unwrap())
}

#[test]
fn a_token_bucket_is_set_read_and_removed_as_tc_sees_it() {
    let (netns, mut socket, eth0) = node();
    assert_eq!(socket.tbf(&eth0).unwrap(), None);
    socket.remove_tbf(&eth0).unwrap();
    for (rate, burst, limit, told) in [
        (125_000, 100_000, 103_125, "rate 1Mbit "),
        (1_000, 2_000, 3_000, "rate 8Kbit "),
        // More than 32 bits hold.
        (10_000_000_000, 50_000_000, 300_000_000, "rate 80Gbit "),
    ] {
        let tbf = Tbf { rate, burst, limit };
        // Over what is there: first the kernel's own queue, then the one before.
        socket.set_tbf(&eth0, &tbf).unwrap();
        let shown = shell(&netns, "tc qdisc show dev eth0");
        assert!(
            shown.starts_with("qdisc tbf 1: root") && shown.contains(told),
            "{shown}"
        );
        let found = socket.tbf(&eth0).unwrap().unwrap();
        assert!(found.satisfies(&tbf), "{found:?} {tbf:?}");
        assert!(
            !Tbf {
                burst: burst / 2,
                ..found
            }
            .satisfies(&tbf)
        );
    }
    socket.remove_tbf(&eth0).unwrap();
    assert_eq!(socket.tbf(&eth0).unwrap(), None);
    assert!(!shell(&netns, "tc qdisc show dev eth0").contains("tbf"));
}

#[test]
fn what_tc_made_is_read_and_another_queue_is_no_token_bucket() {
    let (netns, mut socket, eth0) = node();
    shell(
        &netns,
        "tc qdisc add dev eth0 root tbf rate 10mbit burst 64kb limit 128kb",
    );
    let found = socket.tbf(&eth0).unwrap().unwrap();
    let wanted = Tbf {
        rate: 1_250_000,
        burst: 64 << 10,
        limit: 128 << 10,
    };
    assert!(found.satisfies(&wanted), "{found:?}");
    shell(&netns, "tc qdisc replace dev eth0 root pfifo");
    assert_eq!(socket.tbf(&eth0).unwrap(), None);
}

#[test]
fn a_link_that_is_not_there_is_named() {
    let (_netns, mut socket, _) = node();
    let nobody = IfName::new("nobody0").unwrap();
    let tbf = Tbf {
        rate: 1000,
        burst: 2000,
        limit: 3000,
    };
    let error = socket.set_tbf(&nobody, &tbf).unwrap_err().to_string();
    assert!(error.contains("there is no link nobody0"), "{error}");
    assert_eq!(socket.tbf(&nobody).unwrap(), None);
}
