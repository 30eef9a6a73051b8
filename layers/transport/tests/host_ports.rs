//! Host ports: the ruleset as `nft` prints it, who has a port that two ask for, and that what is
//! explained is what the ruleset does.

#[path = "../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;

use std::net::IpAddr;

use fixture::{DUAL, THREE, cluster, clusters};
use parfait_cluster::{Attachment, PortMapping, Snapshot};
use parfait_linux::nft::{
    AddressType, Branch, Context, End, Hook, Table, Tables, evaluate, render,
};
use parfait_packet::{Packet, Protocol};
use parfait_transport::{Plan, host_ports, plan};

const DNS: &str = "service dns ip=10.96.0.10,fd00:10:96::a ports=53/UDP servedByNode";

fn tables(plan: &Plan) -> Tables {
    let tables = parfait_transport::apply(plan).into_iter();
    tables.map(|table| (table.key(), table)).collect()
}

fn notes(plan: &Plan) -> Vec<String> {
    plan.notes().iter().map(ToString::to_string).collect()
}

fn packet(from: &str, to: &str, protocol: Protocol, port: u16) -> Packet {
    let ip = |text: &str| text.parse().expect("an address");
    Packet::new(ip(from), ip(to), protocol, port).expect("one family")
}

/// node-1's own addresses in [`DUAL`], those that the agent answers at included.
fn address_type(address: IpAddr) -> AddressType {
    let own = [
        "127.0.0.1",
        "127.0.0.2",
        "::1",
        "192.168.77.11",
        "fd00:77::11",
        "10.244.1.1",
        "10.96.0.10",
        "fd00:10:96::a",
    ];
    match own.iter().any(|own| own.parse() == Ok(address)) {
        true => AddressType::Local,
        false => AddressType::Unicast,
    }
}

fn at(tables: &Tables, hook: Hook, iif: Option<&str>, packet: Packet) -> Branch {
    let mut context = Context::new(packet, &address_type);
    context.iifname = iif;
    context.oifname = iif.is_none().then_some("lo");
    let branches = evaluate(tables, hook, &context);
    assert_eq!(branches.len(), 1);
    branches.into_iter().next().expect("one")
}

/// What is particular to host ports.
fn particular(table: &Table) -> String {
    let text = render::ruleset(&[(table.key(), table.clone())].into());
    let blocks = text.split("\n\n").filter(|block| {
        [
            "host_ports",
            "own-addresses",
            "loopback-guard",
            "chain services-postrouting",
            "services-prerouting",
        ]
        .iter()
        .any(|name| block.lines().take(2).any(|line| line.contains(name)))
    });
    blocks.collect::<Vec<_>>().join("\n\n")
}

#[test]
fn the_ruleset_of_a_node_with_host_ports() {
    let text = format!(
        "{THREE}\n{DNS}\npod proxy on=node-1 ip=10.244.1.7 hostPorts=8080>80,53/UDP>5353@192.168.77.11"
    );
    let snapshot = cluster(&text);
    let other = plan(&snapshot, "node-2");
    let plan = plan(&snapshot, "node-1");
    let table = parfait_transport::apply(&plan).remove(0);
    let wanted = "\
map host_ports {
		typeof meta l4proto . th dport : ip daddr . th dport
		elements = { tcp . 8080 comment \"Pod default/proxy spec.containers[main].ports[80/tcp].hostPort\" : 10.244.1.7 . 80 }
	}

	map host_ports_at {
		typeof ip daddr . meta l4proto . th dport : ip daddr . th dport
		elements = { 192.168.77.11 . udp . 53 comment \"Pod default/proxy spec.containers[main].ports[5353/udp].hostPort\" : 10.244.1.7 . 5353 }
	}

	chain loopback-guard {
		type filter hook prerouting priority mangle; policy accept;
		ip daddr 127.0.0.0/8 iifname != \"lo\" ct direction original drop comment \"Parfait host ports\"
	}

	chain own-addresses {
		ip daddr @served return comment \"Parfait host ports\"
		dnat ip to ip daddr . meta l4proto . th dport map @host_ports_at comment \"Parfait host ports\"
		dnat ip to meta l4proto . th dport map @host_ports comment \"Parfait host ports\"
	}

	chain services-postrouting {
		type nat hook postrouting priority srcnat - 1; policy accept;
		ct status dnat ip saddr . ip daddr @hairpin masquerade comment \"Parfait hairpin\"
		ct status dnat ct original ip daddr @cluster_ips ip saddr != @service_pods fib saddr type != local ip daddr != @service_pods masquerade fully-random comment \"Parfait clients outside the cluster\"
		ct status dnat ct original ip daddr @outside_ips ip saddr != @service_pods fib saddr type != local ip daddr != @service_pods masquerade fully-random comment \"Parfait clients of another node\"
		ct status dnat meta l4proto tcp ct original ip daddr @node_addresses ct original proto-dst @node_ports_tcp ip saddr != @service_pods fib saddr type != local ip daddr != @service_pods masquerade fully-random comment \"Parfait clients of another node\"
		ct status dnat meta l4proto udp ct original ip daddr @node_addresses ct original proto-dst @node_ports_udp ip saddr != @service_pods fib saddr type != local ip daddr != @service_pods masquerade fully-random comment \"Parfait clients of another node\"
		ct status dnat meta l4proto sctp ct original ip daddr @node_addresses ct original proto-dst @node_ports_sctp ip saddr != @service_pods fib saddr type != local ip daddr != @service_pods masquerade fully-random comment \"Parfait clients of another node\"
		ct status dnat ip saddr != @service_pods ip saddr != @node_sources fib saddr type local ip daddr != @service_pods oifname != \"lo\" masquerade fully-random comment \"Parfait the node's other addresses\"
		ct status dnat ip saddr 127.0.0.0/8 masquerade comment \"Parfait host ports\"
	}

	chain services-prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		meta priority set ip daddr . meta l4proto . th dport map @services meta priority vmap @service_choices comment \"Parfait Services\"
		fib daddr type local goto own-addresses comment \"Parfait host ports\"
	}";
    assert_eq!(particular(&table).trim(), wanted);
    // Nodes and families without host ports have none of this.
    let others = [
        parfait_transport::apply(&plan).remove(1),
        parfait_transport::apply(&other).remove(0),
    ];
    for other in others {
        let text = particular(&other);
        assert!(
            !text.contains("host_ports") && !text.contains("own-addresses"),
            "{text}"
        );
    }
}

/// From, to, protocol, port; where it leads, if not to the node itself.
const WAYS: &[(&str, &str, Protocol, u16, &str)] = &[
    (
        "192.0.2.1",
        "192.168.77.11",
        Protocol::Tcp,
        8080,
        "10.244.1.7:80",
    ),
    (
        "192.0.2.1",
        "10.244.1.1",
        Protocol::Tcp,
        8080,
        "10.244.1.7:80",
    ),
    (
        "192.168.77.11",
        "192.168.77.11",
        Protocol::Tcp,
        8080,
        "10.244.1.7:80",
    ),
    (
        "127.0.0.1",
        "127.0.0.1",
        Protocol::Tcp,
        8080,
        "10.244.1.7:80",
    ),
    (
        "127.0.0.1",
        "127.0.0.2",
        Protocol::Tcp,
        8080,
        "10.244.1.8:81",
    ),
    (
        "2001:db8::1",
        "fd00:77::11",
        Protocol::Tcp,
        8080,
        "[fd00:10:244:1::7]:80",
    ),
    ("::1", "::1", Protocol::Tcp, 8080, ""),
    (
        "192.0.2.1",
        "192.168.77.11",
        Protocol::Sctp,
        7000,
        "10.244.1.7:7001",
    ),
    ("192.0.2.1", "192.168.77.11", Protocol::Udp, 8080, ""),
    (
        "192.0.2.1",
        "192.168.77.11",
        Protocol::Udp,
        53,
        "10.244.1.7:5353",
    ),
    // The agent's own.
    ("10.244.1.3", "10.96.0.10", Protocol::Udp, 53, ""),
    ("fd00:10:244:1::3", "fd00:10:96::a", Protocol::Udp, 53, ""),
    (
        "192.0.2.1",
        "192.168.77.11",
        Protocol::Tcp,
        9000,
        "10.244.1.8:90",
    ),
    ("2001:db8::1", "fd00:77::11", Protocol::Tcp, 9000, ""),
    (
        "2001:db8::1",
        "fd00:77::11",
        Protocol::Tcp,
        9001,
        "[fd00:10:244:1::8]:91",
    ),
    ("192.0.2.1", "192.168.77.11", Protocol::Tcp, 9001, ""),
    // Another node's.
    ("10.244.1.3", "192.168.77.12", Protocol::Tcp, 8080, ""),
    ("192.0.2.1", "192.168.77.11", Protocol::Icmp, 0, ""),
];

#[test]
fn where_packets_to_the_node_go() {
    let snapshot = clusters(&[
        DUAL,
        DNS,
        "pod a on=node-1 ip=10.244.1.7,fd00:10:244:1::7 hostPorts=53/UDP>5353,8080>80,7000/SCTP>7001",
        "pod b on=node-1 ip=10.244.1.8,fd00:10:244:1::8 hostPorts=8080>81@127.0.0.2,9000>90@0.0.0.0,9001>91@fd00:77::11",
    ]);
    let plan = plan(&snapshot, "node-1");
    let tables = tables(&plan);
    for (from, to, protocol, port, wanted) in WAYS {
        let packet = packet(from, to, *protocol, *port);
        for (hook, iif) in [(Hook::Prerouting, Some("eth0")), (Hook::Output, None)] {
            let guarded = iif.is_some() && to.starts_with("127.");
            let branch = at(&tables, hook, iif, packet);
            let what = format!("{packet} at {hook:?}");
            if guarded {
                assert_eq!(branch.end, End::Dropped, "{what}");
                continue;
            }
            assert_eq!(branch.end, End::Accepted, "{what}");
            let after = branch.packet;
            let found = match after == packet {
                true => String::new(),
                false => {
                    std::net::SocketAddr::new(after.destination, after.destination_port).to_string()
                }
            };
            assert_eq!(found, *wanted, "{what}");
        }
        let local = address_type(packet.destination) == AddressType::Local;
        if local && !plan.common.served.contains_key(&packet.destination) {
            let target = host_ports::explain(&plan.common.host_ports, &packet);
            let target = target.map(|t| std::net::SocketAddr::new(t.address, t.port).to_string());
            assert_eq!(target.unwrap_or_default(), *wanted, "{packet} explained");
        }
    }
}

#[test]
fn of_two_pods_the_older_has_the_port_and_the_other_a_note() {
    let asks = |more: &str| format!("ip=10.244.1.7 hostPorts=8080>80 {more}");
    let table = [
        (
            "created=2026-01-02T00:00:00Z",
            "created=2026-01-01T00:00:00Z",
            "b",
        ),
        (
            "created=2026-01-01T00:00:00Z",
            "created=2026-01-02T00:00:00Z",
            "a",
        ),
        ("", "", "a"),
        (
            "created=2026-01-01T00:00:00Z terminating",
            "created=2026-01-02T00:00:00Z",
            "b",
        ),
    ];
    for (a, b, wanted) in table {
        let text = format!(
            "{THREE}\npod a on=node-1 {}\npod b on=node-1 {}",
            asks(a),
            asks(b)
        );
        let plan = plan(&cluster(&text), "node-1");
        let ports = &plan.common.host_ports;
        let owners: Vec<_> = ports
            .values()
            .map(|target| target.origin.name.to_string())
            .collect();
        assert_eq!(owners, [wanted], "{a} / {b}");
        let (winner, loser) = if wanted == "a" {
            ("a", "b")
        } else {
            ("b", "a")
        };
        let field = "spec.containers[main].ports[80/tcp].hostPort";
        assert_eq!(
            notes(&plan),
            [format!(
                "Pod default/{loser} {field}: port 8080/tcp of the node already leads to Pod default/{winner} {field}; it does not lead here"
            )]
        );
    }
}

#[test]
fn who_has_no_host_port() {
    for pod in [
        "pod a on=node-1 ip=192.168.77.11 hostNetwork hostPorts=8080>8080",
        "pod a on=node-1 ip=10.244.1.7 phase=Succeeded hostPorts=8080>80",
        "pod a on=node-1 phase=Pending hostPorts=8080>80",
        "pod a ip=10.244.1.7 hostPorts=8080>80",
        "pod a on=node-1 ip=10.244.1.7 hostPorts=8080>80@fd00:77::11",
    ] {
        let plan = plan(&clusters(&[THREE, pod]), "node-1");
        assert!(&plan.common.host_ports.is_empty(), "{pod}");
        assert!(plan.notes().is_empty(), "{pod}: {:?}", notes(&plan));
    }
}

fn container(id: &str, pod: Option<&str>, host_port: u16) -> Attachment {
    Attachment {
        id: id.to_owned(),
        pod: pod.map(|name| (parfait_cluster::ObjectName::new("default", name), None)),
        interface: "pf00000000000a".to_owned(),
        first: true,
        addresses: vec!["10.244.1.9".parse().expect("an address")],
        mac: None,
        port_mappings: vec![PortMapping {
            protocol: Protocol::Tcp,
            host_port,
            host_ip: None,
            port: 80,
        }],
    }
}

#[test]
fn a_container_without_a_pod_has_what_its_caller_asked_for() {
    let mut snapshot: Snapshot = clusters(&[THREE, "pod p on=node-1 phase=Pending"]);
    let attachments = [
        container("c9/eth0", None, 8080),
        container("c1/eth0", Some("p"), 8081),
    ];
    snapshot.attach("node-1", attachments);
    let plan = plan(&snapshot, "node-1");
    let ports = plan.common.host_ports.iter();
    let ports: Vec<_> = ports
        .map(|(wish, target)| (wish.port, target.origin.to_string()))
        .collect();
    // A Pod's are in its own fields; here it has none.
    assert_eq!(
        ports,
        [(8080, "Parfait container c9/eth0 portMappings".to_owned())]
    );
}

#[test]
fn what_is_missing_or_too_much_is_found() {
    let with = clusters(&[THREE, "pod a on=node-1 ip=10.244.1.7 hostPorts=8080>80"]);
    let without = cluster(THREE);
    let (with, without) = (plan(&with, "node-1"), plan(&without, "node-1"));
    let prove = |desired: &Plan, observed: &Plan| {
        let observed = tables(observed);
        parfait_transport::prove(&parfait_transport::apply(desired), &observed)
    };
    assert_eq!(prove(&with, &with), vec![]);
    let missing = prove(&with, &without);
    assert!(
        missing
            .iter()
            .any(|found| found.item.contains("tcp . 8080") || found.item.contains("host_ports")),
        "{missing:?}"
    );
    let extra = prove(&without, &with);
    for name in ["host_ports", "own-addresses", "loopback-guard"] {
        assert!(
            extra.iter().any(|found| found.item.contains(name)),
            "{name}: {extra:?}"
        );
    }
}
