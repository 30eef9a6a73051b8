//! How large a packet may be, and what becomes of a larger one: cut, refused at home, or refused on the
//! way with a message that names who sends it.

use parfait_inspect::{Answer, Question, Size, explain};
use parfait_packet::Family;

use crate::fixture::clusters;

/// node-3's underlay is smaller than the others', as is the tunnel that its pods' packets take.
const NARROW: &str = "
config clusterCIDRs=10.244.0.0/16,fd00:10:244::/56 serviceCIDRs=10.96.0.0/16 routing=direct
node node-1 pods=10.244.1.0/24,fd00:10:244:1::/64 underlay=192.168.77.11/24,fd00:77::11/64 gateway=192.168.77.1,fd00:77::1 mtu=9000
node node-2 pods=10.244.2.0/24,fd00:10:244:2::/64 underlay=192.168.77.12/24,fd00:77::12/64 gateway=192.168.77.1,fd00:77::1 mtu=1400
pod client on=node-1 ip=10.244.1.2,fd00:10:244:1::2
pod web on=node-2 ip=10.244.2.2,fd00:10:244:2::2
pod near on=node-1 ip=10.244.1.3,fd00:10:244:1::3
";

fn ask(from: &str, to: &str, family: Family, size: Option<(u32, bool)>) -> Answer {
    ask_in(NARROW, from, to, family, size)
}

fn ask_in(
    cluster: &str,
    from: &str,
    to: &str,
    family: Family,
    size: Option<(u32, bool)>,
) -> Answer {
    let question = Question {
        from: from.parse().expect("a side"),
        to: to.parse().expect("a side"),
        port: None,
        protocol: Some(parfait_packet::Protocol::Icmp),
        family: Some(family),
        source_port: None,
        namespace: None,
        size: size.map(|(bytes, whole)| Size { bytes, whole }),
    };
    explain(&clusters(&[cluster]), &question).expect("an answer")
}

fn code(answer: &Answer) -> &'static str {
    match &answer.verdict {
        parfait_packet::Verdict::Delivered => "delivered",
        parfait_packet::Verdict::NotDelivered { reason }
        | parfait_packet::Verdict::Unknown { reason } => reason.code(),
    }
}

/// The step at which something was said about the size.
fn said(answer: &Answer) -> String {
    let mut steps = answer.ways[0].there.iter();
    let step = steps.find(|step| step.what.contains("do not fit"));
    step.map(|step| format!("{}: {}", step.place, step.what))
        .unwrap_or_default()
}

#[test]
fn both_ways_have_their_own_size() {
    let near = &ask("pod/client", "pod/near", Family::Ipv6, None).ways[0];
    assert_eq!((near.mtu, near.mtu_back), (Some(9000), Some(9000)));
    let back = &ask("pod/web", "pod/client", Family::Ipv4, None).ways[0];
    assert_eq!((back.mtu, back.mtu_back), (Some(1400), Some(1400)));
    assert_eq!(
        back.larger.as_deref(),
        Some("at pod default/web, the sender's own kernel refuses it (message too long, mtu 1400)")
    );
}

#[test]
fn a_packet_that_is_too_large_at_home_is_cut_or_refused_there() {
    let of = |size| ask("pod/web", "pod/client", Family::Ipv4, Some(size));
    assert_eq!(code(&of((1400, true))), "delivered");
    assert_eq!(code(&of((1401, true))), "PF104");
    assert_eq!(
        said(&of((1401, true))),
        "pod default/web: 1401 bytes do not fit: the sender's own kernel refuses it (message too long, mtu 1400)"
    );
    assert_eq!(code(&of((4000, false))), "delivered");
    assert_eq!(
        said(&of((4000, false))),
        "pod default/web: 4000 bytes do not fit: cut into 3 fragments"
    );
}

#[test]
fn an_underlay_whose_ends_differ_is_known_to_the_node_that_sends() {
    for (family, node, cut) in [
        (Family::Ipv4, "192.168.77.11", "delivered"),
        (Family::Ipv6, "fd00:77::11", "PF104"),
    ] {
        let of = |size| ask("pod/client", "pod/web", family, Some(size));
        assert_eq!(code(&of((1400, true))), "delivered");
        assert_eq!(code(&of((1401, false))), cut);
        let said = said(&of((1401, true)));
        let told = format!("node node-1: 1401 bytes do not fit: {node} answers with");
        assert!(
            said.starts_with(&told) && said.ends_with("mtu 1400"),
            "{said}"
        );
    }
}

#[test]
fn where_a_daemon_makes_the_route_an_underlay_whose_ends_differ_swallows_what_is_too_large() {
    let bgp = NARROW.replace("routing=direct", "routing=bgp");
    for family in Family::ALL {
        let of = |size| ask_in(&bgp, "pod/client", "pod/web", family, Some(size));
        assert_eq!(code(&of((1400, true))), "delivered");
        assert_eq!(code(&of((1401, false))), "PF104");
        assert!(said(&of((1401, true))).contains("nobody tells the sender"));
    }
}
