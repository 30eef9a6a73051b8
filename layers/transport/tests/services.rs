//! Services that are reached from outside: what node-1 holds for each kind, and who has what two of them want.

#[path = "../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;

use fixture::{DUAL, clusters};
use parfait_cluster::{Attachment, ObjectName, Snapshot};
use parfait_linux::nft::{Element, Table, Value, render};
use parfait_packet::{Packet, Protocol};
use parfait_transport::{Plan, apply, explain, localhost, plan};

const SLICE: &str = "slice web-a of=web ports=http:8080/TCP endpoints=10.244.1.3@node-1/web-1,10.244.2.2@node-2/web-2
slice web-6 of=web ports=http:8080/TCP endpoints=fd00:10:244:2::2@node-2/web-2";

fn web(words: &str) -> Snapshot {
    let service = format!("service web ip=10.96.0.20,fd00:10:96::20 ports=http:80/TCP>8080{words}");
    clusters(&[DUAL, &service, SLICE])
}

/// The elements of maps and sets in both tables that `wanted` names, without whose they are.
fn elements(snapshot: &Snapshot, wanted: &[&str]) -> Vec<String> {
    let tables = apply(&plan(snapshot, "node-1"));
    let in_table = |table: &Table| {
        let sets = table.sets.iter();
        let sets = sets.filter(|(name, _)| wanted.iter().any(|wanted| name.starts_with(wanted)));
        let lines = sets.flat_map(|(name, set)| {
            let print = move |(key, element): (&Vec<Value>, &Element)| {
                let plain = Element {
                    origin: None,
                    ..element.clone()
                };
                format!("{name}: {}", render::element(&set.key, key, &plain))
            };
            set.elements.iter().map(print)
        });
        lines.collect::<Vec<_>>()
    };
    tables.iter().flat_map(in_table).collect()
}

fn notes(plan: &Plan) -> Vec<String> {
    plan.notes().iter().map(ToString::to_string).collect()
}

#[test]
fn a_node_port_is_at_the_nodes_primary_addresses() {
    assert_eq!(
        elements(
            &web("@30080"),
            &["services", "node_ports", "node_addresses"]
        ),
        [
            "node_addresses: 192.168.77.11",
            "node_ports_tcp: 30080",
            "services: 10.96.0.20 . tcp . 80 : 0:2",
            "services: 192.168.77.11 . tcp . 30080 : 0:2",
            "node_addresses: fd00:77::11",
            "node_ports_tcp: 30080",
            "services: fd00:10:96::20 . tcp . 80 : 0:1",
            "services: fd00:77::11 . tcp . 30080 : 0:1",
        ]
    );
}

#[test]
fn endpoints_of_this_node_alone_serve_outside_clients_of_a_local_service() {
    let wanted = ["services", "inside_", "outside_", "endpoints_"];
    let found = elements(
        &web(" externalIPs=203.0.114.9 externalPolicy=Local"),
        &wanted,
    );
    assert_eq!(
        found[..8],
        [
            "endpoints_2: 10.96.0.20 . tcp . 80 . 0 : 10.244.1.3 . 8080",
            "endpoints_2: 10.96.0.20 . tcp . 80 . 1 : 10.244.2.2 . 8080",
            "endpoints_2: 203.0.114.9 . tcp . 80 . 0 : 10.244.1.3 . 8080",
            "endpoints_2: 203.0.114.9 . tcp . 80 . 1 : 10.244.2.2 . 8080",
            "inside_services: 203.0.114.9 . tcp . 80 : 0:2",
            "outside_1: 203.0.114.9 . tcp . 80 . 0 : 10.244.1.3 . 8080",
            "outside_ips: 203.0.114.9",
            "outside_services: 203.0.114.9 . tcp . 80 : 1:1",
        ]
    );
}

/// As kube-proxy's `newBaseServiceInfo`, which looks at the ranges of one family.
#[test]
fn source_ranges_of_one_family_leave_the_other_open_and_are_told() {
    let snapshot = web(" balanced=203.0.113.9,2001:db8::9 sources=198.51.100.0/24,10.0.0.0/8");
    assert_eq!(
        elements(
            &snapshot,
            &["source_ranges", "restricted_services", "services"]
        ),
        [
            "restricted_services: 203.0.113.9 . tcp . 80 : 0:2",
            "services: 10.96.0.20 . tcp . 80 : 0:2",
            "services: 203.0.113.9 . tcp . 80 : f:1",
            "source_ranges: 203.0.113.9 . tcp . 80 . 10.0.0.0/8",
            "source_ranges: 203.0.113.9 . tcp . 80 . 198.51.100.0/24",
            "services: 2001:db8::9 . tcp . 80 : 0:1",
            "services: fd00:10:96::20 . tcp . 80 : 0:1",
        ]
    );
    assert_eq!(
        notes(&plan(&snapshot, "node-1")),
        [
            "Service default/web spec.loadBalancerSourceRanges: none of the ranges is IPv6; everybody may \
             connect to 2001:db8::9"
        ]
    );
}

/// `allowFromNode` of kube-proxy: a program of the node that has the address sends from that one.
#[test]
fn whom_ranges_let_in_from_the_nodes_address_they_let_in_from_the_load_balancers() {
    let ranges = |sources: &str| {
        let words = format!("@30080 balanced=203.0.113.9,2001:db8::9 sources={sources}");
        elements(&web(&words), &["source_ranges"])
    };
    let at = "source_ranges: 203.0.113.9 . tcp . 80 .";
    assert_eq!(
        ranges("192.168.77.0/24"),
        [format!("{at} 203.0.113.9"), format!("{at} 192.168.77.0/24")]
    );
    for others in ["192.168.88.0/24", "10.244.0.0/16"] {
        assert_eq!(ranges(others), [format!("{at} {others}")]);
    }
    let six = "source_ranges: 2001:db8::9 . tcp . 80 .";
    assert_eq!(
        ranges("fd00:77::/64"),
        [format!("{six} 2001:db8::9"), format!("{six} fd00:77::/64")]
    );
}

#[test]
fn a_clients_endpoint_is_kept_by_a_chain_of_the_endpoint() {
    assert_eq!(
        elements(&web(" affinity=60"), &["services", "keep_"]),
        [
            "keep_2: 10.96.0.20 . tcp . 80 . 0 : goto keep-60-10.244.1.3-8080",
            "keep_2: 10.96.0.20 . tcp . 80 . 1 : goto keep-60-10.244.2.2-8080",
            "services: 10.96.0.20 . tcp . 80 : 2:2",
            "keep_1: fd00:10:96::20 . tcp . 80 . 0 : goto keep-60-fd00-10-244-2--2-8080",
            "services: fd00:10:96::20 . tcp . 80 : 2:1",
        ]
    );
    let tables = apply(&plan(&web(" affinity=60"), "node-1"));
    let print = |table: &Table| {
        let name = "keep-60-10.244.1.3-8080";
        let chain = table.chains.get(name)?;
        Some(render::chain(table.family, name, chain))
    };
    let chain = tables.iter().find_map(print).expect("a chain");
    let update = "update @affinity { ip saddr . ip daddr . meta l4proto . th dport timeout 1m : 10.244.1.3 . 8080 }";
    assert!(chain.contains(update), "{chain}");
}

/// Its own address is refused whole, and the node's other ports are the node's.
#[test]
fn without_endpoints_each_way_in_from_outside_is_refused_at_its_port() {
    let service = "service web ip=10.96.0.20 ports=http:80/TCP>8080@30080,dns:53/UDP balanced=203.0.113.9 externalIPs=203.0.114.9";
    // A slice's port of another protocol is none of the Service's.
    let slice = "slice web-a of=web ports=dns:53/TCP endpoints=10.244.1.3@node-1/web-1";
    assert_eq!(
        elements(
            &clusters(&[DUAL, service, slice]),
            &["refused", "services", "cluster_ips"]
        ),
        [
            "cluster_ips: 10.96.0.20",
            "refused: 192.168.77.11 . tcp . 30080",
            "refused: 203.0.113.9 . tcp . 80",
            "refused: 203.0.113.9 . udp . 53",
            "refused: 203.0.114.9 . tcp . 80",
            "refused: 203.0.114.9 . udp . 53",
            "refused: fd00:77::11 . tcp . 30080",
        ]
    );
}

/// The names are the other way round than the ages.
#[test]
fn of_two_services_that_want_the_same_the_older_has_it() {
    let ages = ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"];
    for (first, second, winner) in [(ages[0], ages[1], "a"), (ages[1], ages[0], "b")] {
        let both = format!(
            "service a ip=10.96.0.21 ports=http:80/TCP>8080@30080 created={first}
             service b ip=10.96.0.21 ports=http:80/TCP>8080@30080,more:81/TCP>8080 created={second}
             slice a-a of=a ports=http:8080/TCP endpoints=10.244.1.3@node-1
             slice b-a of=b ports=http:8080/TCP,more:8080/TCP endpoints=10.244.2.2@node-2"
        );
        let plan = plan(&clusters(&[DUAL, &both]), "node-1");
        let ask = |port| {
            let packet = Packet::new(
                "10.244.1.2".parse().expect("an address"),
                "10.96.0.21".parse().expect("an address"),
                Protocol::Tcp,
                port,
            );
            let explained =
                explain(&plan, &packet.expect("one family"), false).expect("a Service's");
            (explained.origin.name.clone(), explained.refused.is_none())
        };
        assert_eq!(ask(80), (winner.to_owned(), true));
        // `b` keeps its other port only with the address.
        assert_eq!(ask(81), (winner.to_owned(), winner == "b"));
        let loser = if winner == "a" { "b" } else { "a" };
        let (address, port) = ("10.96.0.21", "192.168.77.11 port 30080/tcp");
        let note = |field: &str, what: &str| {
            format!(
                "Service default/{loser} {field}: {what} already belongs to Service default/{winner}; it is left out here"
            )
        };
        assert_eq!(
            notes(&plan)[..2],
            [
                note("spec.clusterIPs", address),
                note("spec.ports[http]", port)
            ]
        );
    }
}

#[test]
fn node_ports_are_not_at_addresses_of_one_link() {
    let snapshot = clusters(&[
        DUAL,
        "config nodePortAddresses=::/0,0.0.0.0/0
         node node-1 pods=10.244.1.0/24,fd00:10:244:1::/64 underlay=192.168.77.11/24,fd00:77::11/64,fe80::11/64,169.254.7.7/16",
    ]);
    let addresses = plan(&snapshot, "node-1").common.node_addresses;
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["192.168.77.11", "fd00:77::11"]);
}

/// The first underlay address of a family is its primary one.
#[test]
fn a_node_port_is_at_the_addresses_that_the_configuration_chooses() {
    let own = "node node-1 pods=10.244.1.0/24,fd00:10:244:1::/64 \
               underlay=192.168.77.11/24,10.50.0.11/24,fd00:77::11/64,fd00:50::11/64";
    for (chosen, wanted) in [
        ("", &["192.168.77.11", "fd00:77::11"][..]),
        ("10.50.0.0/16", &["10.50.0.11"]),
        ("10.50.0.11/32,fd00:50::/32", &["10.50.0.11", "fd00:50::11"]),
        (
            "10.0.0.0/8,192.168.0.0/16",
            &["10.50.0.11", "192.168.77.11"],
        ),
        ("172.16.0.0/12", &[]),
    ] {
        let config = match chosen.is_empty() {
            true => String::new(),
            false => format!("config nodePortAddresses={chosen}"),
        };
        let service = "service web ip=10.96.0.20,fd00:10:96::20 ports=http:80/TCP>8080@30080";
        let snapshot = clusters(&[DUAL, &config, own, service, SLICE]);
        let mut found: Vec<_> = elements(&snapshot, &["services"])
            .into_iter()
            .filter_map(|line| {
                Some(
                    line.strip_suffix(" . tcp . 30080 : 0:2")
                        .or(line.strip_suffix(" . tcp . 30080 : 0:1"))?
                        .replace("services: ", ""),
                )
            })
            .collect();
        found.sort();
        assert_eq!(found, wanted, "{chosen}");
    }
}

/// As its agent reports them: the card with the public address need not be the one to the other nodes.
#[test]
fn a_node_port_is_at_chosen_addresses_of_other_cards_too() {
    let config = "config nodePortAddresses=198.51.100.0/24";
    let service = "service web ip=10.96.0.20,fd00:10:96::20 ports=http:80/TCP>8080@30080";
    let mut snapshot = clusters(&[DUAL, config, service, SLICE]);
    let node = snapshot.nodes.get_mut("node-1").expect("a node");
    let underlay = node.underlay.as_mut().expect("a report");
    underlay.node_ports = ["198.51.100.7", "10.50.0.11"]
        .map(|text| text.parse().expect("an address"))
        .to_vec();
    assert_eq!(
        elements(&snapshot, &["services", "node_addresses"])[..3],
        [
            "node_addresses: 198.51.100.7",
            "services: 10.96.0.20 . tcp . 80 : 0:2",
            "services: 198.51.100.7 . tcp . 30080 : 0:2",
        ]
    );
}

/// An address that a pod has asked for may lie anywhere; the pod is a client of the cluster all the same.
#[test]
fn a_pod_with_an_address_outside_the_pod_networks_is_inside() {
    let mut snapshot = web(" externalIPs=203.0.114.9 externalPolicy=Local");
    let stray = "192.0.2.50".parse().expect("an address");
    snapshot.attach(
        "node-1",
        [Attachment {
            id: "c0ffee/eth0".to_owned(),
            pod: Some((ObjectName::new("default", "client"), None)),
            interface: "pf1".to_owned(),
            first: true,
            addresses: vec![stray],
            mac: None,
            port_mappings: Vec::new(),
        }],
    );
    let clients = |set: &str| elements(&snapshot, &[set])[..2].to_vec();
    assert_eq!(
        clients("service_clients"),
        [
            "service_clients: 192.0.2.50",
            "service_clients: 10.244.0.0/16"
        ]
    );
    assert_eq!(
        clients("service_pods"),
        ["service_pods: 192.0.2.50", "service_pods: 10.244.1.0/24"]
    );
    let plan = plan(&snapshot, "node-1");
    let to = "203.0.114.9".parse().expect("an address");
    let packet = Packet::new(stray, to, Protocol::Tcp, 80).expect("one family");
    let explained = explain(&plan, &packet, false).expect("a Service's");
    assert!(explained.inside && explained.candidates.len() == 2);
}

#[test]
fn a_slice_of_no_service_is_told_until_the_service_comes() {
    let orphan = "slice lost-a of=lost ports=http:8080/TCP endpoints=10.244.1.3@node-1";
    let alone = clusters(&[DUAL, orphan]);
    assert_eq!(
        notes(&plan(&alone, "node-1")),
        [
            "EndpointSlice default/lost-a metadata.labels[kubernetes.io/service-name]: there is no Service \
             default/lost; nobody is led to its endpoints"
        ]
    );
    let with = clusters(&[
        DUAL,
        orphan,
        "service lost ip=10.96.0.9 ports=http:80/TCP>8080",
    ]);
    assert_eq!(notes(&plan(&with, "node-1")), Vec::<String>::new());
}

#[test]
fn node_ports_are_at_the_loopback_on_request_and_nobody_else_gets_there() {
    let mut snapshot = web("@30080");
    let chains = |snapshot: &Snapshot| {
        let tables = apply(&plan(snapshot, "node-1"));
        let guards = |table: &Table| table.chains.contains_key("loopback-guard");
        tables.iter().map(guards).collect::<Vec<_>>()
    };
    assert_eq!(chains(&snapshot), [false, false]);
    snapshot.config.localhost_node_ports = Some(true);
    let at = "services: 127.0.0.1 . tcp . 30080 : 0:2".to_owned();
    assert!(elements(&snapshot, &["services"]).contains(&at));
    assert_eq!(chains(&snapshot), [true, false], "IPv4 alone");
    snapshot.config.localhost_node_ports = Some(false);
    assert!(!elements(&snapshot, &["services"]).contains(&at));
    assert_eq!(chains(&snapshot), [false, false]);
    let setting = |snapshot: &Snapshot| {
        let planned = localhost::setting(&plan(snapshot, "node-1").common);
        planned.map(|(setting, _)| setting.to_string())
    };
    assert_eq!(
        setting(&snapshot).as_deref(),
        Some("net.ipv4.conf.all.route_localnet = 0")
    );
    snapshot.config.localhost_node_ports = None;
    assert_eq!(setting(&snapshot), None);
}
