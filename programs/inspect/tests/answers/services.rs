//! Services from inside and outside the cluster: which address, which policy, whom else there is, and whose source.

use super::*;

/// Two of web's endpoints are on node-1, one on node-3; node-2 has none.
const FRONT: &str = "
pod web-4 on=node-1 ip=10.244.1.4 ports=8080/TCP
service web ip=10.96.0.20 ports=http:80/TCP>8080@30080 balanced=203.0.113.9 externalIPs=203.0.114.9 created=2026-01-01T00:00:00Z
slice web-a of=web ports=http:8080/TCP \
endpoints=10.244.1.3@node-1/web-1,10.244.1.4@node-1/web-4!serving,10.244.3.2@node-3/web-3,10.244.2.2@node-2/web-2!notready
service local ip=10.96.0.21 ports=http:80/TCP>8080@30081 balanced=203.0.113.10 externalPolicy=Local internalPolicy=Local
slice local-a of=local ports=http:8080/TCP endpoints=10.244.1.3@node-1/web-1,10.244.3.2@node-3/web-3!notready
service few ip=10.96.0.22 ports=http:80/TCP>8080 balanced=203.0.113.11 sources=198.51.100.0/24 affinity=60
slice few-a of=few ports=http:8080/TCP endpoints=10.244.1.3@node-1/web-1
service twin ip=10.96.0.20 ports=http:80/TCP>8080,more:81/TCP>8080@30080 created=2026-01-02T00:00:00Z
slice twin-a of=twin ports=http:8080/TCP,more:8080/TCP endpoints=10.244.2.2@node-2/web-2
";

fn front() -> Snapshot {
    clusters(&[APART, FRONT])
}

/// What each step of the first way there says, where a Service has a hand in it.
fn said(from: &str, to: &str, with: &str) -> Vec<String> {
    let answer = ask(&front(), from, to, with).expect("a question");
    let hops = answer.ways.iter().flat_map(|way| &way.there);
    let of_service = hops.filter(|hop| hop.layer == parfait_packet::Layer::Transport);
    let mut said: Vec<String> = of_service.map(|hop| hop.what.clone()).collect();
    said.dedup();
    said
}

#[test]
fn somebody_outside_by_a_node_port_is_led_anywhere_and_masqueraded_if_that_is_elsewhere() {
    let answer = ask(&front(), "198.51.100.1", "192.168.77.12:30080", "").expect("a question");
    assert_eq!(
        outcomes(&answer),
        [
            "1/2 pod default/web-1 on node-1: tcp 192.168.77.12:40000 → 10.244.1.3:8080",
            "1/2 pod default/web-3 on node-3: tcp 10.244.2.1:40000 → 10.244.3.2:8080",
        ]
    );
    assert_eq!(
        steps(&answer),
        "\
there outside wire: comes to node-2 by eth0
there node node-2 prerouting: the destination becomes 10.244.1.3:8080 (pod default/web-1), one of 2 endpoints at random (by spec.ports[].nodePort; externalTrafficPolicy: Cluster); not chosen: 1 not ready, 1 terminating
there node node-2 routing: to 192.168.77.11 through eth0
there node node-2 postrouting: masquerade: the source 198.51.100.1 becomes 192.168.77.12: neither the client nor the endpoint is a pod of this node, and the answer must come back here
there underlay wire: direct: unchanged over eth0 to 192.168.77.11: the underlay carries pod addresses, MTU 1500
there node node-1 routing: straight to it through pf2019a5a4401b
there node node-1 wire: veth pf2019a5a4401b to eth0 of pod default/web-1
there pod default/web-1 delivery: received from 192.168.77.12:40000
back pod default/web-1 egress: leaves by eth0 to its gateway on node-1, interface pf2019a5a4401b
back node node-1 routing: straight to it through eth0
back underlay wire: direct: unchanged over eth0 to 192.168.77.12: the underlay carries pod addresses, MTU 1500
back node node-2 prerouting: conntrack undoes the translation: tcp 10.244.1.3:8080 → 192.168.77.12:40000 becomes tcp 192.168.77.12:30080 → 198.51.100.1:40000
back node node-2 routing: to 192.168.77.1 through eth0
back underlay wire: leaves the cluster through eth0 to 192.168.77.1"
    );
}

/// Whoever asks how it is reached from outside, and has forgotten the pool, would see a node port that works.
#[test]
fn a_load_balancer_without_an_address_is_said_to_have_none_and_why() {
    let services = "
        service lb ip=10.96.0.30 ports=80/TCP>8080@30090 loadBalancer
        slice lb-a of=lb ports=8080/TCP endpoints=10.244.1.3@node-1/web-1
        service other ip=10.96.0.31 ports=80/TCP>8080@30091 loadBalancer=example.com/other
        slice other-a of=other ports=8080/TCP endpoints=10.244.1.3@node-1/web-1
        service bare ip=10.96.0.32 ports=80/TCP>8080 loadBalancer=parfait.dev/office
    ";
    let snapshot = clusters(&[APART, services]);
    let table = [
        (
            "lb",
            "no LoadBalancerPool is for it, and nobody else has given it one",
        ),
        (
            "other",
            "its loadBalancerClass example.com/other is not Parfait's, and nobody else has given it one",
        ),
    ];
    for (name, why) in table {
        let to = format!("svc/{name}");
        let answer = ask(&snapshot, "198.51.100.1", &to, "").expect("a question");
        let note = format!(
            "Service default/{name} has no load balancer's address: {why}; this is the way to another address of it"
        );
        assert!(answer.notes.contains(&note), "{:?}", answer.notes);
        let inside = ask(&snapshot, "pod/client", &to, "").expect("a question");
        assert!(!inside.notes.contains(&note), "{:?}", inside.notes);
    }
    let error = ask(&snapshot, "198.51.100.1", "svc/bare", "").expect_err("no address");
    assert_eq!(
        error.to_string(),
        "Service default/bare has no address for clients outside the cluster: no load balancer's (no LoadBalancerPool is \
         for this Service), no spec.externalIPs, no spec.ports[].nodePort; ask from a pod or a node"
    );
    let answer = ask(&front(), "198.51.100.1", "svc/web", "").expect("a question");
    assert!(
        !answer
            .notes
            .iter()
            .any(|note| note.contains("no load balancer's"))
    );
}

/// externalTrafficPolicy Local, and no endpoint anywhere: nobody answers ARP, and nothing is to be found out outside.
#[test]
fn an_address_that_no_node_makes_known_is_not_delivered() {
    let services = "
        service lb ip=10.96.0.30 ports=80/TCP>8080@30090 balanced=192.168.77.200 externalPolicy=Local
        slice lb-a of=lb ports=8080/TCP endpoints=10.244.1.3@node-1/web-1!notready
        service ok ip=10.96.0.31 ports=80/TCP>8080@30091 balanced=192.168.77.201 externalPolicy=Local
        slice ok-a of=ok ports=8080/TCP endpoints=10.244.1.3@node-1/web-1
    ";
    let mut snapshot = clusters(&[APART, services]);
    let pool = parfait_cluster::LoadBalancerPool {
        name: "office".to_owned(),
        addresses: vec!["192.168.77.200/29".parse().expect("a range")],
        announcement: parfait_cluster::Announcement::Neighbor,
        class: None,
        service_selector: parfait_cluster::LabelSelector::default(),
        namespaces: Vec::new(),
        namespace_selector: parfait_cluster::LabelSelector::default(),
    };
    snapshot.pools.insert(pool.name.clone(), pool);
    let asked = |to: &str| verdict(&ask(&snapshot, "192.168.77.1", to, "").expect("a question"));
    assert_eq!(asked("svc/lb"), "PF212");
    assert_eq!(asked("svc/ok"), "delivered");
}

#[test]
fn of_several_nodes_that_may_get_a_packet_each_way_names_its_own() {
    let answer = ask(&front(), "198.51.100.1", "203.0.114.9:80", "").expect("a question");
    let text = render(&answer, Detail::Normal);
    let ways: Vec<&str> = text.lines().filter(|line| line.contains(" %  ")).collect();
    assert_eq!(
        ways[0],
        "    17 %  by node-1, pod default/web-1 on node-1: delivered"
    );
    assert_eq!(
        ways[5],
        "    17 %  by node-3, pod default/web-3 on node-3: delivered"
    );
    let snapshot = clusters(&[
        APART,
        "service ports ip=10.96.0.40 ports=80/TCP>8080@30090 externalPolicy=Local
         slice ports-a of=ports ports=8080/TCP endpoints=10.244.1.3@node-1/web-1",
    ]);
    let answer = ask(&snapshot, "198.51.100.1", "svc/ports", "").expect("a question");
    let text = render(&answer, Detail::Normal);
    let ways: Vec<&str> = text.lines().filter(|line| line.contains(" %  ")).collect();
    assert_eq!(
        ways[0],
        "    33 %  by node-1, pod default/web-1 on node-1: delivered"
    );
    let refused = "    33 %  by node-2, not delivered: the Service has endpoints, but none on this node, and its \
                   traffic policy is Local (transport layer, PF308)";
    assert_eq!(ways[1], refused);
}

/// A packet is found to be too large before its source becomes the node's, which is who tells the sender.
#[test]
fn a_node_that_masquerades_tells_the_sender_itself_what_does_not_fit() {
    let snapshot = clusters(&[fixture::THREE, FRONT]);
    let answer = ask(&snapshot, "198.51.100.1", "192.168.77.12:30080", "").expect("a question");
    let larger = answer.ways[0].larger.as_deref();
    assert_eq!(
        larger,
        Some("at node node-2, 192.168.77.12 answers with ICMP fragmentation needed, mtu 1500")
    );
}

#[test]
fn a_load_balancers_packets_may_come_to_any_node_and_with_policy_local_to_those_with_endpoints() {
    let table = [
        (
            "svc/web",
            6,
            "which node gets packets for 203.0.113.9 is decided outside the cluster; here each that may is as likely",
        ),
        ("svc/local", 1, ""),
    ];
    for (to, ways, note) in table {
        let answer = ask(&front(), "198.51.100.1", to, "").expect("a question");
        assert_eq!(verdict(&answer), "delivered", "{to}");
        assert_eq!(answer.ways.len(), ways, "{to}");
        assert_eq!(answer.notes.concat(), note, "{to}");
    }
    assert_eq!(
        said("198.51.100.1", "svc/local", "")[1],
        "the source 198.51.100.1 is kept: the endpoint is a pod of this node, so the answer comes by here"
    );
}

/// FIELD: a Local Service's outside address answers clients outside by the nodes with endpoints alone, and clients
/// inside from everywhere.
#[test]
fn external_traffic_policy_local_says_whom_it_is_for() {
    let table = [
        ("198.51.100.1", "192.168.77.11:30081", "delivered"),
        ("198.51.100.1", "192.168.77.12:30081", "PF308"),
        ("pod/web-2", "203.0.113.10:80", "delivered"),
        ("node/node-2", "203.0.113.10:80", "delivered"),
        ("node/node-2", "192.168.77.12:30081", "delivered"),
        // A node is no client of another node's port within the cluster; what it sends there comes from outside.
        ("node/node-1", "192.168.77.12:30081", "PF308"),
        ("pod/web-2", "10.96.0.21:80", "PF308"),
        ("pod/client", "10.96.0.21:80", "delivered"),
    ];
    for (from, to, wanted) in table {
        let answer = ask(&front(), from, to, "").expect("a question");
        assert_eq!(verdict(&answer), wanted, "{from} {to}");
    }
    assert_eq!(
        said("198.51.100.1", "192.168.77.12:30081", ""),
        [
            "dropped, so that load balancers look elsewhere: the Service has no endpoint on this node \
          (by spec.ports[].nodePort; externalTrafficPolicy: Local); pod default/web-1 is on another node, \
          pod default/web-3 is not ready"
        ]
    );
    assert_eq!(
        said("pod/web-2", "10.96.0.21:80", ""),
        [
            "refused: the Service has no endpoint on this node (internalTrafficPolicy: Local); \
          pod default/web-1 is on another node, pod default/web-3 is not ready"
        ]
    );
    assert_eq!(
        said("pod/web-2", "203.0.113.10:80", "")[0],
        "the destination becomes 10.244.1.3:8080 (pod default/web-1), the only endpoint (by \
         status.loadBalancer.ingress; a client in the cluster is served by any endpoint); not chosen: 1 not ready"
    );
}

#[test]
fn source_ranges_are_for_the_load_balancers_address_alone() {
    let table = [
        ("198.51.100.1", "203.0.113.11:80", "delivered"),
        ("192.0.2.1", "203.0.113.11:80", "PF309"),
        ("pod/client", "203.0.113.11:80", "PF309"),
        ("pod/client", "10.96.0.22:80", "delivered"),
    ];
    for (from, to, wanted) in table {
        let answer = ask(&front(), from, to, "").expect("a question");
        assert_eq!(verdict(&answer), wanted, "{from} {to}");
    }
    assert_eq!(
        said("192.0.2.1", "203.0.113.11:80", ""),
        ["dropped: 192.0.2.1 is in none of the Service's loadBalancerSourceRanges"]
    );
    assert_eq!(
        said("pod/client", "10.96.0.22:80", "")[0],
        "the destination becomes 10.244.1.3:8080 (pod default/web-1), the only endpoint; a client keeps its endpoint \
         until it is silent for 60 s"
    );
}

/// Of two Services with one address the older has all of its ports, and what the other has besides is its own.
#[test]
fn a_younger_services_port_at_anothers_address_is_no_port() {
    assert_eq!(
        said("pod/client", "10.96.0.20:81", ""),
        ["refused: the Service has no port 81/tcp; it has http (80/tcp)"]
    );
    let answer = ask(&front(), "pod/client", "10.96.0.20:80", "").expect("a question");
    assert_eq!(answer.to, "Service default/web");
    assert_eq!(answer.ways.len(), 2, "web's endpoints");
}

#[test]
fn a_node_port_at_the_loopback_is_masqueraded_and_the_answer_comes_back() {
    let mut snapshot = front();
    let ask = |snapshot: &Snapshot, from: &str| {
        ask(snapshot, from, "127.0.0.1:30080", "").expect("a question")
    };
    assert!(
        !steps(&ask(&snapshot, "node/node-2")).contains("becomes"),
        "not without being asked for"
    );
    snapshot.config.localhost_node_ports = Some(true);
    let answer = ask(&snapshot, "node/node-2");
    assert_eq!(
        outcomes(&answer),
        [
            "1/2 pod default/web-1 on node-1: tcp 192.168.77.12:40000 → 10.244.1.3:8080",
            "1/2 pod default/web-3 on node-3: tcp 10.244.2.1:40000 → 10.244.3.2:8080",
        ]
    );
    assert_eq!(verdict(&answer), "delivered", "{}", steps(&answer));
    let why = "the source 127.0.0.1 becomes 192.168.77.12: nobody but the node itself can answer its loopback";
    assert!(steps(&answer).contains(why), "{}", steps(&answer));
}

/// More endpoints than a node leads to, a hundred in each slice, of which none is on node-1.
fn many() -> Snapshot {
    let mut text = "service many ip=10.96.0.30 ports=80/TCP>8080
         service here ip=10.96.0.31 ports=80/TCP>8080 internalPolicy=Local\n"
        .to_owned();
    for slice in 0..90 {
        let list: Vec<_> = (0..100)
            .map(|n| format!("10.244.{}.{n}@node-2", 100 + slice))
            .collect();
        for of in ["many", "here"] {
            let list = list.join(",");
            text += &format!("slice {of}-{slice} of={of} ports=8080/TCP endpoints={list}\n");
        }
    }
    clusters(&[APART, &text])
}

#[test]
fn very_many_endpoints_are_counted_and_not_listed() {
    let snapshot = many();
    let answer = ask(&snapshot, "pod/client", "svc/many", "").expect("a question");
    assert_eq!(answer.ways.len(), 8192);
    let text = render(&answer, Detail::Normal);
    let chosen = "one of 8192 endpoints at random; not chosen: 808 left to other nodes, as there are too many for one";
    assert!(text.contains(chosen), "{text}");
    assert!(text.contains("\n  and 8176 more: "), "{text}");
    assert!(text.contains("\n  0.012 %  "), "{text}");
    for detail in [Detail::Normal, Detail::Full] {
        let lines = render(&answer, detail).lines().count();
        assert!(lines < 400, "{lines}");
    }
    let answer = ask(&snapshot, "pod/client", "svc/here", "").expect("a question");
    let text = render(&answer, Detail::Normal);
    let others = "10.244.100.4 is on another node, and 8995 more\n";
    assert!(text.contains(others), "{text}");
}
