//! The ways that packets take: with which source and destination they arrive, through which wires, and
//! how the reply finds back.

use crate::fixture::{APART, SIX, clusters};
use crate::{ask, outcomes, shop, steps};

/// Where the ways of a question end.
fn ends(from: &str, to: &str, with: &str) -> Vec<String> {
    outcomes(&ask(&shop(), from, to, with).expect("an answer"))
}

/// The steps of its first way.
fn walk(from: &str, to: &str, with: &str) -> String {
    steps(&ask(&shop(), from, to, with).expect("an answer"))
}

#[test]
fn a_pod_of_the_same_node() {
    let wanted = "\
there pod default/client egress: leaves by eth0 to its gateway on node-1, interface pfb5eb0c41497f
there node node-1 routing: straight to it through pf2019a5a4401b
there node node-1 wire: veth pf2019a5a4401b to eth0 of pod default/web-1
there pod default/web-1 delivery: received from 10.244.1.2:40000
back pod default/web-1 egress: leaves by eth0 to its gateway on node-1, interface pf2019a5a4401b
back node node-1 routing: straight to it through pfb5eb0c41497f
back node node-1 wire: veth pfb5eb0c41497f to eth0 of pod default/client
back pod default/client delivery: received from 10.244.1.3:8080";
    assert_eq!(walk("pod/client", "pod/web-1", ""), wanted);
}

#[test]
fn a_pod_that_sends_to_its_own_address_never_leaves_itself() {
    let wanted = "\
there pod default/web-1 routing: its own address
there pod default/web-1 delivery: received from 10.244.1.3:40000
back pod default/web-1 routing: its own address
back pod default/web-1 delivery: received from 10.244.1.3:8080";
    assert_eq!(walk("pod/web-1", "pod/web-1", ""), wanted);
}

#[test]
fn nodes_speak_to_each_other_outside_of_the_tunnel() {
    let answer = ask(&shop(), "node/node-1", "node/node-3", "22").expect("an answer");
    let wanted = "\
there node node-1 routing: to 192.168.77.1 through eth0
there underlay wire: unchanged over eth0 to 192.168.77.1: nodes' own addresses need no tunnel, MTU 1500
there node node-3 routing: the node's own address
there node node-3 delivery: received from 192.168.77.11:40000
back node node-3 routing: to 192.168.88.1 through eth0
back underlay wire: unchanged over eth0 to 192.168.88.1: nodes' own addresses need no tunnel, MTU 1500
back node node-1 routing: the node's own address
back node node-1 delivery: received from 192.168.88.13:22";
    assert_eq!(steps(&answer), wanted);
    assert_eq!(answer.ways[0].mtu, Some(1500));
}

#[test]
fn a_pod_of_a_node_on_the_segment() {
    let wanted = "\
there pod default/client egress: leaves by eth0 to its gateway on node-1, interface pfb5eb0c41497f
there node node-1 routing: to 192.168.77.12 through eth0
there underlay wire: direct: unchanged over eth0 to 192.168.77.12: the underlay carries pod addresses, MTU 1500
there node node-2 routing: straight to it through pf2019a2a4401b
there node node-2 wire: veth pf2019a2a4401b to eth0 of pod default/web-2
there pod default/web-2 delivery: received from 10.244.1.2:40000
back pod default/web-2 egress: leaves by eth0 to its gateway on node-2, interface pf2019a2a4401b
back node node-2 routing: to 192.168.77.11 through eth0
back underlay wire: direct: unchanged over eth0 to 192.168.77.11: the underlay carries pod addresses, MTU 1500
back node node-1 routing: straight to it through pfb5eb0c41497f
back node node-1 wire: veth pfb5eb0c41497f to eth0 of pod default/client
back pod default/client delivery: received from 10.244.2.2:8080";
    assert_eq!(walk("pod/client", "pod/web-2", ""), wanted);
}

#[test]
fn a_pod_of_a_node_behind_the_router() {
    let wanted = "\
there pod default/client egress: leaves by eth0 to its gateway on node-1, interface pfb5eb0c41497f
there node node-1 routing: to 10.244.3.1 through pf-vxlan
there underlay wire: vxlan: inside UDP from 192.168.77.11 to 192.168.88.13 port 4789 (VXLAN 4242, 50 bytes of headers), MTU 1450
there node node-3 routing: straight to it through pf2019a3a4401b
there node node-3 wire: veth pf2019a3a4401b to eth0 of pod default/web-3
there pod default/web-3 delivery: received from 10.244.1.2:40000
back pod default/web-3 egress: leaves by eth0 to its gateway on node-3, interface pf2019a3a4401b
back node node-3 routing: to 10.244.1.1 through pf-vxlan
back underlay wire: vxlan: inside UDP from 192.168.88.13 to 192.168.77.11 port 4789 (VXLAN 4242, 50 bytes of headers), MTU 1450
back node node-1 routing: straight to it through pfb5eb0c41497f
back node node-1 wire: veth pfb5eb0c41497f to eth0 of pod default/client
back pod default/client delivery: received from 10.244.3.2:8080";
    assert_eq!(walk("pod/client", "pod/web-3", ""), wanted);
}

#[test]
fn one_of_three_endpoints() {
    assert_eq!(
        ends("pod/client", "svc/web", ""),
        [
            "1/3 pod default/web-1 on node-1: tcp 10.244.1.2:40000 → 10.244.1.3:8080",
            "1/3 pod default/web-2 on node-2: tcp 10.244.1.2:40000 → 10.244.2.2:8080",
            "1/3 pod default/web-3 on node-3: tcp 10.244.1.2:40000 → 10.244.3.2:8080",
        ]
    );
}

#[test]
fn a_pod_that_meets_itself_in_its_service_sees_the_node() {
    let wanted = "\
there pod default/web-1 egress: leaves by eth0 to its gateway on node-1, interface pf2019a5a4401b
there node node-1 prerouting: the destination becomes 10.244.1.3:8080 (pod default/web-1), the only endpoint
there node node-1 routing: straight to it through pf2019a5a4401b
there node node-1 postrouting: masquerade: the source 10.244.1.3 becomes 192.168.77.11: a pod that reaches itself would answer itself directly
there node node-1 wire: veth pf2019a5a4401b to eth0 of pod default/web-1
there pod default/web-1 delivery: received from 192.168.77.11:40000
back pod default/web-1 egress: leaves by eth0 to its gateway on node-1, interface pf2019a5a4401b
back node node-1 prerouting: conntrack undoes the translation: tcp 10.244.1.3:8080 → 192.168.77.11:40000 becomes tcp 10.96.0.21:80 → 10.244.1.3:40000
back node node-1 routing: straight to it through pf2019a5a4401b
back node node-1 wire: veth pf2019a5a4401b to eth0 of pod default/web-1
back pod default/web-1 delivery: received from 10.96.0.21:80";
    assert_eq!(walk("pod/web-1", "svc/self", ""), wanted);
    assert_eq!(
        ends("pod/web-1", "svc/self", ""),
        ["1/1 pod default/web-1 on node-1: tcp 192.168.77.11:40000 → 10.244.1.3:8080"]
    );
}

#[test]
fn a_pod_that_may_meet_itself_among_others() {
    assert_eq!(
        ends("pod/web-1", "svc/web", ""),
        [
            "1/3 pod default/web-1 on node-1: tcp 192.168.77.11:40000 → 10.244.1.3:8080",
            "1/3 pod default/web-2 on node-2: tcp 10.244.1.3:40000 → 10.244.2.2:8080",
            "1/3 pod default/web-3 on node-3: tcp 10.244.1.3:40000 → 10.244.3.2:8080",
        ]
    );
}

#[test]
fn a_node_speaks_from_its_underlay_or_its_address_in_the_pod_network() {
    assert_eq!(
        ends("node/node-1", "pod/web-2", ""),
        ["1/1 pod default/web-2 on node-2: tcp 192.168.77.11:40000 → 10.244.2.2:8080"]
    );
    assert_eq!(
        ends("node/node-1", "pod/web-3", ""),
        ["1/1 pod default/web-3 on node-3: tcp 10.244.1.1:40000 → 10.244.3.2:8080"]
    );
    let wanted = "\
there node node-1 output: the destination becomes 10.244.3.2:8080 (pod default/web-3), the only endpoint
there node node-1 routing: to 10.244.3.1 through pf-vxlan
there node node-1 postrouting: masquerade: the source 192.168.77.11 becomes 10.244.1.1
there underlay wire: vxlan: inside UDP from 192.168.77.11 to 192.168.88.13 port 4789 (VXLAN 4242, 50 bytes of headers), MTU 1450
there node node-3 routing: straight to it through pf2019a3a4401b
there node node-3 wire: veth pf2019a3a4401b to eth0 of pod default/web-3
there pod default/web-3 delivery: received from 10.244.1.1:40000
back pod default/web-3 egress: leaves by eth0 to its gateway on node-3, interface pf2019a3a4401b
back node node-3 routing: to 10.244.1.1 through pf-vxlan
back underlay wire: vxlan: inside UDP from 192.168.88.13 to 192.168.77.11 port 4789 (VXLAN 4242, 50 bytes of headers), MTU 1450
back node node-1 prerouting: conntrack undoes the translation: tcp 10.244.3.2:8080 → 10.244.1.1:40000 becomes tcp 10.96.0.22:80 → 192.168.77.11:40000
back node node-1 routing: the node's own address
back node node-1 delivery: received from 10.96.0.22:80";
    assert_eq!(walk("node/node-1", "svc/far", ""), wanted);
}

#[test]
fn nodes_see_the_pods_address_on_their_segment_and_the_nodes_beyond() {
    let table = [
        (
            "node/node-1",
            "1/1 node node-1: tcp 10.244.1.2:40000 → 192.168.77.11:22",
        ),
        (
            "node/node-2",
            "1/1 node node-2: tcp 10.244.1.2:40000 → 192.168.77.12:22",
        ),
        (
            "node/node-3",
            "1/1 node node-3: tcp 192.168.77.11:40000 → 192.168.88.13:22",
        ),
    ];
    for (to, wanted) in table {
        assert_eq!(ends("pod/client", to, "22"), [wanted]);
    }
}

#[test]
fn endpoints_in_the_hosts_network() {
    assert_eq!(
        ends("pod/client", "svc/exporter", ""),
        [
            "1/2 pod default/host-1 in the network of node-1: tcp 10.244.1.2:40000 → 192.168.77.11:9100",
            "1/2 pod default/host-3 in the network of node-3: tcp 192.168.77.11:40000 → 192.168.88.13:9100",
        ]
    );
    assert_eq!(
        ends("pod/host-1", "svc/exporter", "")[0],
        "1/2 pod default/host-1 in the network of node-1: tcp 192.168.77.11:40000 → 192.168.77.11:9100"
    );
}

#[test]
fn what_leaves_the_cluster_carries_the_nodes_address() {
    let wanted = "\
there pod default/client egress: leaves by eth0 to its gateway on node-1, interface pfb5eb0c41497f
there node node-1 routing: to 192.168.77.1 through eth0
there node node-1 postrouting: masquerade: the source 10.244.1.2 becomes 192.168.77.11
there underlay wire: leaves the cluster through eth0 to 192.168.77.1
back outside wire: who answers sends to 192.168.77.11, an address of node-1, which gets it through eth0
back node node-1 prerouting: conntrack undoes the translation: tcp 198.51.100.1:443 → 192.168.77.11:40000 becomes tcp 198.51.100.1:443 → 10.244.1.2:40000
back node node-1 routing: straight to it through pfb5eb0c41497f
back node node-1 wire: veth pfb5eb0c41497f to eth0 of pod default/client
back pod default/client delivery: received from 198.51.100.1:443";
    assert_eq!(walk("pod/client", "198.51.100.1:443", ""), wanted);
}

#[test]
fn a_pods_limits_are_told_where_they_are_felt() {
    let limited = "pod slow on=node-1 ip=10.244.1.9 egress=10M ingress=1.5G";
    let snapshot = clusters(&[APART, limited]);
    let steps = steps(&ask(&snapshot, "pod/slow", "pod/client", "80").expect("an answer"));
    let out = "; 10 Mbit/s at most (kubernetes.io/egress-bandwidth): what exceeds it waits, then is dropped";
    let back = "; 1500 Mbit/s at most (kubernetes.io/ingress-bandwidth): what exceeds it waits, then is dropped";
    let lines: Vec<_> = steps
        .lines()
        .filter(|line| line.contains("at most"))
        .collect();
    assert_eq!(lines.len(), 2, "{steps}");
    assert!(
        lines[0].starts_with("there pod default/slow egress: ") && lines[0].ends_with(out),
        "{steps}"
    );
    assert!(
        lines[1].starts_with("back node node-1 wire: ") && lines[1].ends_with(back),
        "{steps}"
    );
    let wrong = clusters(&[APART, "pod odd on=node-1 ip=10.244.1.9 egress=fast"]);
    let notes: Vec<_> = wrong
        .notes
        .values()
        .flatten()
        .map(ToString::to_string)
        .collect();
    assert!(
        notes
            .iter()
            .any(|note| note.contains("\"fast\" is not a rate")),
        "{notes:?}"
    );
}

#[test]
fn a_headless_service_is_its_endpoints() {
    assert_eq!(
        ends("pod/client", "svc/db", ""),
        ["1/1 pod default/web-2 on node-2: tcp 10.244.1.2:40000 → 10.244.2.2:5432"]
    );
}

#[test]
fn cluster_dns_is_answered_on_the_clients_own_node() {
    let wanted = "\
there pod default/web-3 egress: leaves by eth0 to its gateway on node-3, interface pf2019a3a4401b
there node node-3 routing: the node's own address
there node node-3 delivery: the node's agent answers itself
back node node-3 routing: straight to it through pf2019a3a4401b
back node node-3 wire: veth pf2019a3a4401b to eth0 of pod default/web-3
back pod default/web-3 delivery: received from 10.96.0.10:53";
    assert_eq!(walk("pod/web-3", "svc/kube-dns.kube-system", ""), wanted);
}

#[test]
fn ipv6_takes_the_same_ways() {
    let snapshot = clusters(&[
        SIX,
        "service web ip=fd00:10:96::20 ports=80/TCP>8080
         slice web-a of=web ports=8080/TCP endpoints=fd00:10:244:1::3@node-1/web-1,fd00:10:244:3::2@node-3/web-3",
    ]);
    let ends = |from: &str, to: &str| outcomes(&ask(&snapshot, from, to, "22").expect("an answer"));
    let service = |from| outcomes(&ask(&snapshot, from, "svc/web", "").expect("an answer"));
    assert_eq!(
        service("pod/web-1"),
        [
            // Of the node's addresses, the one nearest to the pod's own (RFC 6724 rule 8).
            "1/2 pod default/web-1 on node-1: tcp [fd00:10:244:1::1]:40000 → [fd00:10:244:1::3]:8080",
            "1/2 pod default/web-3 on node-3: tcp [fd00:10:244:1::3]:40000 → [fd00:10:244:3::2]:8080",
        ]
    );
    assert_eq!(
        ends("pod/client", "node/node-3"),
        ["1/1 node node-3: tcp [fd00:77::11]:40000 → [fd00:88::13]:22"]
    );
}

#[test]
fn direct_routing_goes_through_the_underlays_router() {
    let snapshot = clusters(&[APART, "config routing=direct clusterCIDRs=10.244.0.0/16"]);
    let answer = ask(&snapshot, "pod/client", "pod/web-3", "").expect("an answer");
    let wanted = "\
there pod default/client egress: leaves by eth0 to its gateway on node-1, interface pfb5eb0c41497f
there node node-1 routing: to 192.168.77.1 through eth0
there underlay wire: direct: unchanged over eth0 to 192.168.77.1: the underlay carries pod addresses, MTU 1500
there node node-3 routing: straight to it through pf2019a3a4401b
there node node-3 wire: veth pf2019a3a4401b to eth0 of pod default/web-3
there pod default/web-3 delivery: received from 10.244.1.2:40000
back pod default/web-3 egress: leaves by eth0 to its gateway on node-3, interface pf2019a3a4401b
back node node-3 routing: to 192.168.88.1 through eth0
back underlay wire: direct: unchanged over eth0 to 192.168.88.1: the underlay carries pod addresses, MTU 1500
back node node-1 routing: straight to it through pfb5eb0c41497f
back node node-1 wire: veth pfb5eb0c41497f to eth0 of pod default/client
back pod default/client delivery: received from 10.244.3.2:8080";
    assert_eq!(steps(&answer), wanted);
}

#[test]
fn the_largest_packet_is_that_of_the_narrowest_wire() {
    let mtu = |to: &str| ask(&shop(), "pod/client", to, "").expect("an answer").ways[0].mtu;
    // Pods' interfaces are made for the tunnel, even where the wire is wider.
    assert_eq!(mtu("pod/web-2"), Some(1450));
    assert_eq!(mtu("pod/web-3"), Some(1450));
}

#[test]
fn a_node_that_has_not_reported_is_assumed_and_said_to_be() {
    let snapshot = clusters(&[&APART.replace(" gateway=192.168.88.1", " silent")]);
    let answer = ask(&snapshot, "pod/client", "pod/web-3", "").expect("an answer");
    assert_eq!(answer.exit_code(), 0);
    assert!(answer.notes[0].starts_with("no Parfait agent has reported the underlay of node-3"));
}
