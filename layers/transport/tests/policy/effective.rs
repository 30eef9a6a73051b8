//! What policies come to: pods' overviews, and what may pass between two addresses.

use std::net::IpAddr;

use parfait_cluster::{Direction, ObjectName};
use parfait_packet::Packet;
use parfait_transport::policy::effective::Ports;
use parfait_transport::policy::overview::{Line, Who};
use parfait_transport::policy::{Effective, overview};
use serde_json::{Value, json};

use crate::tables::with;

fn policies() -> [(&'static str, Value); 4] {
    [
        (
            "web",
            json!({
                "podSelector": {"matchLabels": {"app": "web"}},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [
                    {"from": [{"podSelector": {}}], "ports": [{"port": "http"}, {"port": 9000, "endPort": 9010}]},
                    {"from": [{"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}}]},
                    {"from": [{"ipBlock": {"cidr": "192.0.2.0/26"}}], "ports": [{"port": 22}]},
                ],
                "egress": [{"ports": [{"port": 53, "protocol": "UDP"}]}],
            }),
        ),
        (
            "quiet",
            json!({
                "podSelector": {"matchLabels": {"app": "other"}},
                "policyTypes": ["Egress"],
                "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 8080}]}],
            }),
        ),
        (
            "second",
            json!({
                "podSelector": {"matchLabels": {"app": "web"}},
                "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"team": "ops"}}}]}],
            }),
        ),
        (
            "closed",
            json!({"podSelector": {"matchLabels": {"app": "client"}}}),
        ),
    ]
}

fn said(line: &Line) -> String {
    let who = line.who.iter().map(|who| match who {
        Who::Pod(origin, _) | Who::Service(origin) => origin.to_string(),
        Who::Block(net) => net.to_string(),
        Who::Elsewhere(family) => format!("any other {family}"),
    });
    let ports: Vec<_> = line.ports.iter().map(ToString::to_string).collect();
    let by: Vec<_> = line
        .by
        .iter()
        .map(|by| format!("{} {}", by.name, by.field))
        .collect();
    format!(
        "{} | {} | {} | {}{}",
        who.collect::<Vec<_>>().join(", "),
        ports.join(", "),
        line.passes,
        by.join(", "),
        if line.other_end {
            ", of the other end"
        } else {
            ""
        }
    )
}

#[test]
fn a_pod_s_policies_and_those_of_the_other_ends() {
    let (snapshot, _) = with(&policies());
    let pod = &snapshot.pods[&ObjectName::new("shop", "web")];
    let [ingress, egress] = overview(&snapshot, &Effective::of(&snapshot), pod);
    assert_eq!(ingress.policies.len(), 2);
    let lines: Vec<_> = ingress.lines.iter().map(said).collect();
    let wanted = [
        "Pod shop/client | 8080/tcp, 9000-9010/tcp | true | web spec.ingress[0]",
        "Pod shop/other | 8080/tcp | true | web spec.ingress[0]",
        "Pod shop/other | 9000-9010/tcp | false | quiet , of the other end",
        "Pod tools/probe | everything | true | second spec.ingress[0]",
        "192.0.2.0/25, 192.0.2.0/26 | everything | true | web spec.ingress[1]",
    ];
    // The narrower range's own rule is for a port that the wider one's has already.
    assert_eq!(lines, wanted);
    let lines: Vec<_> = egress.lines.iter().map(said).collect();
    let wanted = [
        "Pod shop/client | 53/udp | false | closed , of the other end",
        "Pod shop/other, Pod tools/probe, Service kube-system/kube-dns, any other IPv4, any other IPv6 | 53/udp | true | web spec.egress[0]",
    ];
    assert_eq!(lines, wanted);
    let pod = &snapshot.pods[&ObjectName::new("shop", "client")];
    let [_, egress] = overview(&snapshot, &Effective::of(&snapshot), pod);
    assert_eq!(egress.policies, []);
    let lines: Vec<_> = egress.lines.iter().map(said).collect();
    assert!(
        lines.contains(&"Pod shop/web | 8080/tcp, 9000-9010/tcp | true | web spec.ingress[0], of the other end".to_owned()),
        "{lines:#?}"
    );
}

#[test]
fn ranges_of_ports_say_what_each_port_s_packet_meets() {
    let (snapshot, _) = with(&policies());
    let effective = Effective::of(&snapshot);
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    let ends = [
        "10.244.1.2",
        "10.244.1.3",
        "10.244.2.3",
        "10.244.2.4",
        "192.0.2.1",
        "192.0.2.200",
    ];
    for (from, to) in ends
        .iter()
        .flat_map(|from| ends.map(|to| (ip(from), ip(to))))
    {
        let spans = effective.between(from, to);
        for (protocol, port) in [
            ("tcp", 22),
            ("tcp", 8080),
            ("tcp", 9010),
            ("tcp", 9011),
            ("udp", 53),
            ("udp", 0),
            ("icmp", 0),
        ] {
            let protocol = protocol.parse().expect("a protocol");
            let mut packet = Packet::new(from, to, protocol, port).expect("one family");
            packet.destination_port = port;
            let found: Vec<_> = spans
                .iter()
                .filter(|span| match span.ports {
                    Ports::Everything => true,
                    Ports::Range(range) => {
                        range.protocol == protocol && (range.first..=range.last).contains(&port)
                    }
                })
                .collect();
            let [span] = found.as_slice() else {
                panic!("{from} {to} {packet:?}: {found:?}");
            };
            let passes = [
                (from, to, Direction::Egress),
                (to, from, Direction::Ingress),
            ];
            let passes = passes.into_iter().all(|(own, peer, direction)| {
                let class = effective.class(own, direction);
                class.is_none_or(|class| class.decide(peer, &packet).accepted)
            });
            assert_eq!(span.passes(), passes, "{from} {to} {packet:?}");
        }
    }
}
