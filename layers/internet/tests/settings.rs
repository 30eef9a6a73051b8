//! The settings that a node's plan has, as sysctl(8) prints them, and what proof says of those that differ.

#[path = "../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;

use std::net::IpAddr;

use fixture::{DUAL, THREE, cluster};
use parfait_cluster::{Path, Paths, Snapshot};
use parfait_linux::{State, Sysctl, SysctlKey};
use parfait_packet::Family;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn direct(peers: &[(&str, &str)]) -> Paths {
    let path = |(peer, via): &(&str, &str)| {
        let path = Path::Direct {
            interface: "eth0".to_owned(),
            via: ip(via),
            mtu: None,
        };
        (((*peer).to_owned(), Family::of(ip(via))), path)
    };
    peers.iter().map(path).collect()
}

fn state(snapshot: &Snapshot, paths: &Paths) -> State {
    parfait_internet::apply(&parfait_internet::plan(snapshot, "node-1", paths))
}

fn settings(state: &State) -> Vec<String> {
    let all = state.sysctls.values();
    all.map(|item| item.value.to_string()).collect()
}

#[test]
fn what_pods_packets_depend_on_is_set() {
    let mut paths = direct(&[("node-2", "192.168.77.12")]);
    let tunnel = Path::Vxlan {
        device: "pf-vxlan".to_owned(),
        remote: ip("192.168.88.13"),
        mac: [2, 0, 0, 0, 0, 3],
        mtu: None,
    };
    paths.insert(("node-3".to_owned(), Family::Ipv4), tunnel);
    let (client, web) = ("pfb5eb0c41497f", "pf2019a5a4401b");
    let mut wanted = vec![
        "net.ipv4.conf.all.rp_filter = 0".to_owned(),
        "net.ipv4.conf.all.send_redirects = 0".to_owned(),
        "net.ipv4.conf.default.forwarding = 1".to_owned(),
        "net.ipv4.ip_forward = 1".to_owned(),
        "net.ipv6.conf.all.forwarding = 1".to_owned(),
    ];
    for (link, sources) in [("eth0", 2), ("pf-vxlan", 2), (client, 1), (web, 1)] {
        wanted.push(format!("net.ipv4.conf.{link}.forwarding = 1"));
        wanted.push(format!("net.ipv4.conf.{link}.rp_filter = {sources}"));
        wanted.push(format!("net.ipv4.conf.{link}.send_redirects = 0"));
    }
    wanted.sort();
    let state = state(&cluster(DUAL), &paths);
    let mut found = settings(&state);
    found.sort();
    assert_eq!(found, wanted);
    let of = |link: &str| {
        let key = format!("net.ipv4.conf.{link}.rp_filter");
        let item = &state.sysctls[&SysctlKey::new(&key).expect("a key")];
        item.origin.as_ref().map(ToString::to_string)
    };
    assert_eq!(of(client).as_deref(), Some("Pod default/client"));
    assert_eq!(of("eth0").as_deref(), Some("Parfait reverse path filter"));
}

#[test]
fn a_node_that_routers_tell_its_default_route_goes_on_listening() {
    let mut snapshot = cluster(DUAL);
    let listens = |snapshot: &Snapshot| {
        let mut all = settings(&state(snapshot, &Paths::new())).into_iter();
        all.find(|setting| setting.contains("accept_ra"))
    };
    assert_eq!(listens(&snapshot), None);
    let this = snapshot.nodes.get_mut("node-1").expect("node-1");
    this.underlay.as_mut().expect("reported").advertised = true;
    assert_eq!(
        listens(&snapshot).as_deref(),
        Some("net.ipv6.conf.eth0.accept_ra = 2")
    );
}

#[test]
fn a_segment_with_thousands_of_peers_has_room_for_its_neighbours() {
    let thresholds = |peers: u16| {
        let nodes = (2..peers + 2).map(|number| {
            let (high, low) = (number / 256, number % 256);
            format!(
                "node node-{number} pods=10.{}.{low}.0/24 underlay=172.16.{high}.{low}/16",
                128 + high
            )
        });
        let own = "node node-1 pods=10.244.1.0/24 underlay=172.16.200.1/16".to_owned();
        let text: Vec<_> = nodes.chain([own]).collect();
        let paths = (2..peers + 2).map(|number| {
            let via = IpAddr::from([172, 16, (number / 256) as u8, (number % 256) as u8]);
            let interface = "eth0".to_owned();
            (
                (format!("node-{number}"), Family::Ipv4),
                Path::Direct {
                    interface,
                    via,
                    mtu: None,
                },
            )
        });
        let all = settings(&state(&cluster(&text.join("\n")), &paths.collect()));
        let all = all.into_iter().filter(|setting| setting.contains("gc_"));
        all.collect::<Vec<_>>()
    };
    assert_eq!(
        thresholds(256),
        Vec::<String>::new(),
        "the kernel's own suffice"
    );
    assert_eq!(
        thresholds(600),
        [
            "net.ipv4.neigh.default.gc_thresh1 = 1024",
            "net.ipv4.neigh.default.gc_thresh2 = 2048",
            "net.ipv4.neigh.default.gc_thresh3 = 4096",
        ]
    );
    assert_eq!(thresholds(600), thresholds(601), "in steps");
}

#[test]
fn a_value_that_will_do_is_no_finding_and_another_is() {
    let desired = state(&cluster(THREE), &Paths::new());
    let found = |key: &str, value: &str| {
        let mut observed = desired.clone();
        let key = SysctlKey::new(key).expect("a key");
        observed.insert(Sysctl::new(key, value), None);
        parfait_internet::prove(&desired, &observed).len()
    };
    assert_eq!(found("net.ipv4.conf.all.rp_filter", "1"), 0);
    // The kernel takes the larger one: it would make pods' interfaces loose.
    assert_eq!(found("net.ipv4.conf.all.rp_filter", "2"), 1);
    assert_eq!(found("net.ipv4.conf.eth0.forwarding", "0"), 1);
    assert_eq!(found("net.ipv4.conf.pfb5eb0c41497f.rp_filter", "2"), 1);
}
