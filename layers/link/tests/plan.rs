//! What the link layer wants of a node, as `ip` and `bridge` would print it, for clusters of a few
//! nodes; and every kind of difference that [`parfait_link::prove`] must find.

#[path = "../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;

use std::collections::BTreeSet;

use fixture::{APART, DUAL, SIX, THREE, cluster, clusters};
use parfait_cluster::{Path, Snapshot};
use parfait_linux::{IfName, Item, Link, LinkKind, Mac, Mtu, Neighbour, State};
use parfait_packet::Family;

/// The planned state without the pods' veth pairs.
fn tunnels(snapshot: &Snapshot, node: &str) -> String {
    let mut plan = parfait_link::plan(snapshot, node);
    plan.attachments.clear();
    values(&parfait_link::apply(&plan))
}

/// Every value, without its origin.
fn values(state: &State) -> String {
    let lines = state.objects().map(|item| item.value.to_string());
    lines.collect::<Vec<_>>().join("\n")
}

fn paths(snapshot: &Snapshot, node: &str) -> Vec<String> {
    let plan = parfait_link::plan(snapshot, node);
    let print = |((peer, family), path): (&(String, Family), &Path)| match path {
        Path::Direct { interface, via, .. } => {
            format!("{peer} {family} direct via {via} dev {interface}")
        }
        Path::Learned { interface, via } => {
            format!("{peer} {family} learned via {via} dev {interface}")
        }
        Path::Vxlan { device, remote, .. } => {
            format!("{peer} {family} vxlan to {remote} dev {device}")
        }
    };
    plan.paths.iter().map(print).collect()
}

#[test]
fn peers_on_the_segment_are_direct_and_others_in_the_tunnel() {
    let direct = [
        "node-2 IPv4 direct via 192.168.77.12 dev eth0",
        "node-3 IPv4 direct via 192.168.77.13 dev eth0",
    ];
    assert_eq!(paths(&cluster(THREE), "node-1"), direct);
    let apart = [
        "node-2 IPv4 direct via 192.168.77.12 dev eth0",
        "node-3 IPv4 vxlan to 192.168.88.13 dev pf-vxlan",
    ];
    assert_eq!(paths(&cluster(APART), "node-1"), apart);
    let from_the_other_side = [
        "node-1 IPv4 vxlan to 192.168.77.11 dev pf-vxlan",
        "node-2 IPv4 vxlan to 192.168.77.12 dev pf-vxlan",
    ];
    assert_eq!(paths(&cluster(APART), "node-3"), from_the_other_side);
    let six = [
        "node-2 IPv6 direct via fd00:77::12 dev eth0",
        "node-3 IPv6 vxlan to fd00:88::13 dev pf-vxlan",
    ];
    assert_eq!(paths(&cluster(SIX), "node-1"), six);
}

#[test]
fn routing_is_what_the_administrator_says() {
    let vxlan = clusters(&[THREE, "config routing=vxlan"]);
    let all = [
        "node-2 IPv4 vxlan to 192.168.77.12 dev pf-vxlan",
        "node-3 IPv4 vxlan to 192.168.77.13 dev pf-vxlan",
    ];
    assert_eq!(paths(&vxlan, "node-1"), all);
    let direct = clusters(&[APART, "config routing=direct"]);
    let behind_the_router = [
        "node-2 IPv4 direct via 192.168.77.12 dev eth0",
        "node-3 IPv4 direct via 192.168.77.1 dev eth0",
    ];
    assert_eq!(paths(&direct, "node-1"), behind_the_router);
}

#[test]
fn pods_of_a_family_that_the_underlay_lacks_take_the_tunnel() {
    let snapshot = cluster(
        "node node-1 pods=fd00:10:244:1::/64 underlay=192.168.77.11/24
         node node-2 pods=fd00:10:244:2::/64 underlay=192.168.77.12/24",
    );
    let wanted = ["node-2 IPv6 vxlan to 192.168.77.12 dev pf-vxlan"];
    assert_eq!(paths(&snapshot, "node-1"), wanted);
}

#[test]
fn a_segment_needs_no_tunnel() {
    assert_eq!(tunnels(&cluster(THREE), "node-1"), "");
}

#[test]
fn a_tunnel_has_one_device_and_two_entries_for_each_peer() {
    let wanted = "\
pf-vxlan: address d2:0b:54:8a:c3:10 mtu 1450 up vxlan id 4242 local 192.168.77.11 dstport 4789 nolearning
10.244.3.1 dev pf-vxlan lladdr d2:0b:56:8a:c3:10 PERMANENT
d2:0b:56:8a:c3:10 dev pf-vxlan dst 192.168.88.13 self permanent";
    assert_eq!(tunnels(&cluster(APART), "node-1"), wanted);
}

#[test]
fn both_families_of_a_peer_share_its_forwarding_entry() {
    let wanted = "\
pf-vxlan: address d2:0b:54:8a:c3:10 mtu 1450 up vxlan id 4242 local 192.168.77.11 dstport 4789 nolearning
10.244.3.1 dev pf-vxlan lladdr d2:0b:56:8a:c3:10 PERMANENT
fd00:10:244:3::1 dev pf-vxlan lladdr d2:0b:56:8a:c3:10 PERMANENT
d2:0b:56:8a:c3:10 dev pf-vxlan dst 192.168.88.13 self permanent";
    assert_eq!(tunnels(&cluster(DUAL), "node-1"), wanted);
}

#[test]
fn a_tunnel_over_ipv6_has_larger_headers() {
    let table = [
        (APART, 1500, 1450),
        (APART, 9000, 8950),
        (SIX, 1500, 1430),
        (SIX, 1280, 1210),
        // The outer packets are of the node's first family, whatever the inner ones are.
        (DUAL, 1500, 1450),
    ];
    for (text, underlay, wanted) in table {
        let snapshot = cluster(&text.replace(" gateway=", &format!(" mtu={underlay} gateway=")));
        let plan = parfait_link::plan(&snapshot, "node-1");
        assert_eq!(plan.pod_mtu, Mtu::new(wanted).ok(), "{underlay}");
        assert_eq!(plan.tunnel.map(|tunnel| tunnel.mtu), Mtu::new(wanted).ok());
    }
    let plan = parfait_link::plan(&cluster(THREE), "node-1");
    assert_eq!(plan.pod_mtu, Mtu::new(1500).ok(), "no tunnel, no headers");
}

#[test]
fn a_pod_has_a_named_interface_and_a_pinned_neighbour() {
    let mut plan = parfait_link::plan(&cluster(THREE), "node-2");
    plan.tunnel = None;
    let wanted = "\
pf2019a2a4401b: address fa:67:95:11:87:a1 mtu 1500 up veth  # Pod default/web-2
10.244.2.2 dev pf2019a2a4401b lladdr 86:80:2d:0e:af:db PERMANENT  # Pod default/web-2
";
    assert_eq!(parfait_link::apply(&plan).to_string(), wanted);
}

#[test]
fn pods_without_a_network_of_their_own_are_not_attached() {
    let snapshot = clusters(&[
        THREE,
        "pod host on=node-2 ip=192.168.77.12 hostNetwork
         pod pending on=node-2 phase=Pending
         pod done on=node-2 ip=10.244.2.9 phase=Succeeded",
    ]);
    let plan = parfait_link::plan(&snapshot, "node-2");
    let pods: Vec<_> = plan.attachments.iter().map(|a| a.pod.to_string()).collect();
    assert_eq!(pods, ["default/web-2"]);
}

#[test]
fn a_node_that_has_not_reported_leaves_a_note() {
    let snapshot = cluster(
        "node node-1 pods=10.244.1.0/24 underlay=192.168.77.11/24 silent
         node node-2 pods=10.244.2.0/24 underlay=192.168.77.12/24",
    );
    let notes: Vec<_> = parfait_link::plan(&snapshot, "node-1")
        .notes
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        notes,
        [
            "Node node-1 metadata.annotations[parfait.dev/underlay]: the node's agent has not reported \
          its underlay yet; no path can be planned"
        ]
    );
    assert_eq!(parfait_link::plan(&snapshot, "node-9"), {
        let mut empty = parfait_link::Plan::default();
        "node-9".clone_into(&mut empty.node);
        empty
    });
}

#[test]
fn a_peer_without_a_usable_address_leaves_a_note() {
    let snapshot = cluster(
        "config routing=direct
         node node-1 pods=10.244.1.0/24 underlay=192.168.77.11/24
         node node-2 pods=fd00:10:244:2::/64 underlay=192.168.77.12/24
         node node-3 pods=10.244.3.0/24 underlay=192.168.88.13/24",
    );
    let plan = parfait_link::plan(&snapshot, "node-1");
    let notes: Vec<_> = plan.notes.iter().map(ToString::to_string).collect();
    assert_eq!(
        notes,
        [
            "Node node-2 status.addresses: no address that node-1 can reach; its IPv6 pods stay unreachable",
            "Node node-3 status.addresses: no address that node-1 can reach; its IPv4 pods stay unreachable",
        ]
    );
}

#[test]
fn a_wire_is_explained_with_what_fits_through() {
    let snapshot = cluster(APART);
    let plan = parfait_link::plan(&snapshot, "node-1");
    let explain = |peer| {
        let wire = parfait_link::explain(&plan, peer, Family::Ipv4)?;
        Some(format!(
            "{}: {} mtu {:?}",
            wire.kind,
            wire.what,
            wire.mtu.map(Mtu::bytes)
        ))
    };
    assert_eq!(
        explain("node-2").as_deref(),
        Some(
            "direct: unchanged over eth0 to 192.168.77.12: the underlay carries pod addresses mtu Some(1500)"
        )
    );
    assert_eq!(
        explain("node-3").as_deref(),
        Some(
            "vxlan: inside UDP from 192.168.77.11 to 192.168.88.13 port 4789 (VXLAN 4242, 50 bytes of headers) mtu Some(1450)"
        )
    );
    assert_eq!(explain("node-1"), None);
}

#[test]
fn planning_twice_gives_the_same() {
    for text in [THREE, APART, SIX, DUAL] {
        let snapshot = cluster(text);
        let plan = || parfait_link::plan(&snapshot, "node-1");
        assert_eq!(plan(), plan());
        let print = || parfait_link::apply(&plan()).to_string();
        assert_eq!(print(), print());
    }
}

/// What `prove` says after the kernel was changed behind the agent's back.
fn findings(change: impl FnOnce(&mut State)) -> Vec<String> {
    let desired = parfait_link::apply(&parfait_link::plan(&cluster(APART), "node-1"));
    let mut observed = desired.clone();
    // What every node has besides.
    observed.insert(Link::new(IfName::loopback(), LinkKind::Loopback), None);
    let eth0 = IfName::new("eth0").expect("a name");
    observed.insert(Link::new(eth0, LinkKind::Other("device".to_owned())), None);
    change(&mut observed);
    let findings = parfait_link::prove(&desired, &observed);
    findings.iter().map(ToString::to_string).collect()
}

fn tunnel() -> IfName {
    IfName::new("pf-vxlan").expect("a name")
}

#[test]
fn nothing_is_found_where_nothing_differs() {
    assert_eq!(findings(|_| {}), Vec::<String>::new());
}

#[test]
fn a_missing_tunnel_is_found() {
    let found = findings(|state| {
        state.links.remove(&tunnel());
    });
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("link layer: missing: pf-vxlan:"),
        "{found:?}"
    );
    assert!(found[0].ends_with("[Node node-1] (PF151)"), "{found:?}");
}

#[test]
fn a_wrong_mtu_is_found() {
    let found = findings(|state| {
        let link = state.links.get_mut(&tunnel()).expect("planned");
        link.value.mtu = Mtu::ETHERNET;
    });
    assert_eq!(found.len(), 1);
    assert!(
        found[0].contains("different: pf-vxlan:") && found[0].contains("mtu 1500"),
        "{found:?}"
    );
}

#[test]
fn a_link_that_is_down_is_found() {
    let found = findings(|state| {
        for item in state.links.values_mut() {
            item.value.up = item.value.name.as_str() != "pf-vxlan";
        }
    });
    assert_eq!(found.len(), 1);
    assert!(found[0].contains(" down vxlan "), "{found:?}");
}

#[test]
fn a_wrong_neighbour_is_found() {
    let found = findings(|state| {
        let key = (tunnel(), "10.244.3.1".parse().expect("an address"));
        let entry = state.neighbours.get_mut(&key).expect("planned");
        entry.value.mac = Some(Mac::new([2, 0, 0, 0, 0, 9]));
    });
    assert_eq!(found.len(), 1);
    assert!(
        found[0].contains("10.244.3.1") && found[0].contains("02:00:00:00:00:09"),
        "{found:?}"
    );
}

#[test]
fn neighbours_and_entries_that_nobody_planned_are_found() {
    let found = findings(|state| {
        let stray = Mac::new([2, 0, 0, 0, 0, 9]);
        let address = "10.244.9.1".parse().expect("an address");
        state.insert(Neighbour::permanent(tunnel(), address, stray), None);
        let entry = parfait_linux::FdbEntry {
            link: tunnel(),
            mac: stray,
            destination: "192.168.88.99".parse().expect("an address"),
        };
        state.insert(entry, None);
    });
    assert_eq!(found.len(), 2);
    assert!(
        found
            .iter()
            .all(|text| text.contains("link layer: extra: ")),
        "{found:?}"
    );
}

#[test]
fn a_missing_forwarding_entry_is_found() {
    let found = findings(|state| state.fdb.clear());
    assert_eq!(found.len(), 1);
    assert!(
        found[0].contains("missing: ") && found[0].contains("dst 192.168.88.13"),
        "{found:?}"
    );
}

#[test]
fn a_pod_that_was_never_attached_is_found_and_a_stranger_as_well() {
    let found = findings(|state| {
        let own = parfait_linux::attachment::host_interface("default", "client");
        let Some(Item { mut value, .. }) = state.links.remove(&own) else {
            panic!("planned");
        };
        value.name = parfait_linux::attachment::host_interface("default", "gone");
        state.insert(value, None);
    });
    assert_eq!(found.len(), 2);
    assert!(
        found[0].contains("missing: ") && found[0].ends_with("[Pod default/client] (PF151)"),
        "{found:?}"
    );
    assert!(found[1].contains("extra: "), "{found:?}");
}

#[test]
fn what_others_made_is_nobodys_business() {
    let found = findings(|state| {
        let docker = IfName::new("docker0").expect("a name");
        state.insert(Link::new(docker.clone(), LinkKind::Bridge), None);
        let address = "172.17.0.2".parse().expect("an address");
        let mac = Mac::new([2, 0x42, 0, 0, 0, 2]);
        state.insert(Neighbour::permanent(docker, address, mac), None);
    });
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn a_tunnel_is_never_too_small_for_ipv6_if_the_kernel_can_cut_what_is_outside() {
    let of = |text: &str| {
        let snapshot = cluster(&text.replace(" gateway=", " mtu=1300 gateway="));
        parfait_link::plan(&snapshot, "node-1")
    };
    let [v4, dual, v6] = [APART, DUAL, SIX].map(of);
    assert_eq!(v4.pod_mtu, Mtu::new(1250).ok(), "IPv4 alone needs no more");
    assert!(v4.notes.is_empty());
    assert_eq!(dual.pod_mtu, Mtu::new(1280).ok());
    let note = dual.notes[0].to_string();
    assert!(
        note.contains("two fragments; give the underlay an MTU of at least 1330"),
        "{note}"
    );
    assert_eq!(v6.pod_mtu, Mtu::new(1230).ok());
    let note = v6.notes[0].to_string();
    assert!(
        note.contains("pods cannot have it; give the underlay an MTU of at least 1350"),
        "{note}"
    );
}

#[test]
fn a_peer_that_takes_less_is_sent_no_more() {
    let of = |text: &str, own: u32, peer: u32| {
        let mut snapshot = cluster(text);
        for (name, mtu) in [("node-1", own), ("node-2", peer), ("node-3", peer)] {
            if let Some(node) = snapshot.nodes.get_mut(name) {
                node.underlay.as_mut().expect("reported").mtu = mtu;
            }
        }
        let paths = parfait_link::plan(&snapshot, "node-1").paths;
        let mtus: BTreeSet<_> = paths.values().map(Path::mtu).collect();
        mtus.into_iter().collect::<Vec<_>>()
    };
    let tunnel = |text: &str| text.replace("config ", "config routing=vxlan ");
    assert_eq!(
        of(DUAL, 9000, 1500),
        [Some(1450), Some(1500)],
        "direct and tunnel"
    );
    assert_eq!(of(DUAL, 1500, 1500), [None]);
    assert_eq!(of(DUAL, 1500, 9000), [None]);
    assert_eq!(of(&tunnel(SIX), 1500, 1400), [Some(1330)]);
    // The smallest packet of IPv6 (RFC 8200 section 5).
    assert_eq!(of(&tunnel(SIX), 1500, 1300), [Some(1280)]);
}
