//! What the internet layer wants of a node, as `ip` and `nft` would print it, for clusters of a few
//! nodes; and every kind of difference that [`parfait_internet::prove`] must find.
//!
//! Layers do not know each other, so the paths that the link layer would hand over are written down
//! here.

#[path = "../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;

use std::net::IpAddr;

use fixture::{APART, DUAL, THREE, cluster, clusters};
use parfait_cluster::{Path, Paths, Snapshot};
use parfait_internet::{Place, Plan};
use parfait_linux::nft::{Family as TableFamily, render};
use parfait_linux::{IfName, Object, Route, RouteProtocol, State, SysctlKey};
use parfait_packet::Family;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// `node-2 direct 192.168.77.12` or `node-3 vxlan 192.168.88.13`, one a line.
fn paths(text: &str) -> Paths {
    let path = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let [peer, kind, address] = words[..] else {
            panic!("{line}");
        };
        let path = match kind {
            "direct" => Path::Direct {
                interface: "eth0".to_owned(),
                via: ip(address),
                mtu: None,
            },
            _ => Path::Vxlan {
                device: "pf-vxlan".to_owned(),
                remote: ip(address),
                mac: [2, 0, 0, 0, 0, 3],
                mtu: None,
            },
        };
        let families = match kind {
            // A tunnel takes both.
            "vxlan" => Family::ALL.to_vec(),
            _ => vec![Family::of(ip(address))],
        };
        families
            .into_iter()
            .map(move |family| ((peer.to_owned(), family), path.clone()))
            .collect::<Vec<_>>()
    };
    text.lines().flat_map(path).collect()
}

const ONE_SEGMENT: &str = "node-2 direct 192.168.77.12\nnode-3 direct 192.168.77.13";
const TWO_SEGMENTS: &str = "node-2 direct 192.168.77.12\nnode-3 vxlan 192.168.88.13";

fn plan(snapshot: &Snapshot, over: &str) -> Plan {
    parfait_internet::plan(snapshot, "node-1", &paths(over))
}

/// Everything but settings, which have a test of their own.
fn values(state: &State) -> String {
    let objects = state.objects().map(|item| item.value);
    let objects = objects.filter(|object| !matches!(object, Object::Sysctl(_)));
    objects.map(|object| format!("{object}\n")).collect()
}

#[test]
fn routes_of_a_segment_lead_to_the_peers() {
    let state = parfait_internet::apply(&plan(&cluster(THREE), ONE_SEGMENT));
    let wanted = "\
unreachable 10.244.0.0/16 proto 112
unreachable 10.244.1.0/24 proto 112
10.244.1.2 dev pfb5eb0c41497f proto 113 scope link src 192.168.77.11
10.244.1.3 dev pf2019a5a4401b proto 113 scope link src 192.168.77.11
10.244.2.0/24 via 192.168.77.12 dev eth0 proto 112
10.244.3.0/24 via 192.168.77.13 dev eth0 proto 112
";
    assert_eq!(values(&state), wanted);
}

#[test]
fn an_address_that_the_machine_has_not_is_no_source() {
    let mut snapshot = cluster(THREE);
    let this = snapshot.nodes.get_mut("node-1").expect("node-1");
    this.addresses.insert(0, ip("203.0.113.11"));
    let routes = values(&parfait_internet::apply(&plan(&snapshot, ONE_SEGMENT)));
    assert!(
        routes.contains("10.244.1.2 dev pfb5eb0c41497f proto 113 scope link src 192.168.77.11\n"),
        "{routes}"
    );
    let this = snapshot.nodes.get_mut("node-1").expect("node-1");
    this.addresses = vec![ip("203.0.113.11")];
    let routes = values(&parfait_internet::apply(&plan(&snapshot, ONE_SEGMENT)));
    assert!(
        routes.contains("10.244.1.2 dev pfb5eb0c41497f proto 113 scope link\n"),
        "the kernel chooses: {routes}"
    );
}

#[test]
fn a_tunnelled_peer_is_behind_its_own_address_in_the_pod_network() {
    let state = parfait_internet::apply(&plan(&cluster(APART), TWO_SEGMENTS));
    let wanted = "\
inet 10.244.1.1/32 scope global pf-vxlan
unreachable 10.244.0.0/16 proto 112
unreachable 10.244.1.0/24 proto 112
10.244.1.2 dev pfb5eb0c41497f proto 113 scope link src 192.168.77.11
10.244.1.3 dev pf2019a5a4401b proto 113 scope link src 192.168.77.11
10.244.2.0/24 via 192.168.77.12 dev eth0 proto 112
10.244.3.0/24 via 10.244.3.1 dev pf-vxlan proto 112 src 10.244.1.1 onlink
";
    assert_eq!(values(&state), wanted);
}

#[test]
fn both_families_are_one_code_path() {
    let over = "node-2 direct 192.168.77.12\nnode-2 direct fd00:77::12\nnode-3 vxlan 192.168.88.13";
    let state = parfait_internet::apply(&plan(&cluster(DUAL), over));
    let six: String = values(&state)
        .lines()
        .filter(|line| line.contains("fd00") || line.contains("v6"))
        .map(|line| format!("{line}\n"))
        .collect();
    let wanted = "\
inet6 fd00:10:244:1::1/128 scope global pf-vxlan
unreachable fd00:10:244::/56 proto 112 metric 1024
unreachable fd00:10:244:1::/64 proto 112 metric 1024
fd00:10:244:1::2 dev pfb5eb0c41497f proto 113 src fd00:77::11 metric 1024
fd00:10:244:1::3 dev pf2019a5a4401b proto 113 src fd00:77::11 metric 1024
fd00:10:244:2::/64 via fd00:77::12 dev eth0 proto 112 metric 1024
fd00:10:244:3::/64 via fd00:10:244:3::1 dev pf-vxlan proto 112 src fd00:10:244:1::1 metric 1024 onlink
";
    assert_eq!(six, wanted);
}

#[test]
fn only_what_leaves_the_cluster_is_masqueraded() {
    let nobody_isolated = format!("{APART}\nconfig clusterCIDRs=10.244.0.0/16 podIsolation=none");
    let state = parfait_internet::apply(&plan(&cluster(&nobody_isolated), TWO_SEGMENTS));
    let table = &state.tables[&(TableFamily::Ip, "parfait".to_owned())];
    // node-2 is on the segment and knows the way back; node-3 is not, and gets no pod addresses.
    let wanted = "\
table ip parfait {
	set own_pods {
		typeof ip saddr
		flags interval
		elements = { 10.244.1.0/24 comment \"Node node-1 spec.podCIDRs\" }
	}

	set pod_networks {
		typeof ip saddr
		flags interval
		elements = { 10.244.0.0/16 comment \"ConfigMap kube-system/parfait clusterCIDRs\" }
	}

	set unmasqueraded {
		typeof ip daddr
		flags interval
		elements = { 10.244.0.0/16 comment \"ConfigMap kube-system/parfait clusterCIDRs\", 192.168.77.12 comment \"Node node-2\" }
	}

	chain source_nat {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr @own_pods ip daddr != @unmasqueraded masquerade fully-random comment \"Parfait masquerade\"
		oifname \"pf-vxlan\" ip saddr != @pod_networks masquerade fully-random comment \"Parfait tunnel masquerade\"
	}

	chain tunnel-output {
		type filter hook output priority raw; policy accept;
		ip saddr 192.168.77.11 udp dport 4789 notrack comment \"Node node-1 status.addresses\"
	}

	chain tunnel-prerouting {
		type filter hook prerouting priority raw; policy accept;
		ip daddr 192.168.77.11 udp dport 4789 notrack comment \"Node node-1 status.addresses\"
	}
}
";
    assert_eq!(
        render::ruleset(&[((TableFamily::Ip, "parfait".to_owned()), table.clone())].into()),
        wanted
    );
}

#[test]
fn a_segment_alone_has_no_tunnel_masquerade() {
    let state = parfait_internet::apply(&plan(&cluster(THREE), ONE_SEGMENT));
    for table in state.tables.values() {
        assert_eq!(table.chains["source_nat"].rules.len(), 1);
    }
}

#[test]
fn peers_behind_the_underlays_router_are_unmasqueraded_by_their_own_address() {
    let over = "node-2 direct 192.168.77.12\nnode-3 direct 192.168.77.1";
    let plan = plan(&cluster(APART), over);
    let unmasqueraded: Vec<_> = plan.unmasqueraded.keys().map(ToString::to_string).collect();
    assert_eq!(
        unmasqueraded,
        ["10.244.0.0/16", "192.168.77.12/32", "192.168.88.13/32"]
    );
}

#[test]
fn an_address_that_the_agent_answers_is_on_the_loopback() {
    let snapshot = clusters(&[
        THREE,
        "service kube-system/kube-dns ip=10.96.0.10,fd00:10:96::a ports=53/UDP servedByNode",
    ]);
    let state = parfait_internet::apply(&plan(&snapshot, ONE_SEGMENT));
    let addresses: Vec<_> = state
        .addresses
        .values()
        .map(|item| item.value.to_string())
        .collect();
    // Host scope: the kernel must never pick it as a source.
    assert_eq!(
        addresses,
        [
            "inet 10.96.0.10/32 scope host proto 0x70 lo",
            "inet6 fd00:10:96::a/128 scope host proto 0x70 lo"
        ]
    );
}

#[test]
fn a_pod_cidr_outside_the_configured_range_is_still_a_pod_network() {
    let snapshot = clusters(&[
        THREE,
        "node node-9 pods=10.99.9.0/24 underlay=192.168.77.19/24",
    ]);
    let networks: Vec<_> = plan(&snapshot, ONE_SEGMENT)
        .pod_networks
        .into_iter()
        .map(|(net, origin)| format!("{net} because of {origin}"))
        .collect();
    assert_eq!(
        networks,
        [
            "10.99.9.0/24 because of Node node-9 spec.podCIDRs",
            "10.244.0.0/16 because of ConfigMap kube-system/parfait clusterCIDRs",
        ]
    );
}

/// What is refused, and what is noted.
fn refused(text: &str, over: &str) -> (Vec<String>, Vec<String>) {
    let plan = plan(&cluster(text), over);
    let ranges = plan.refused.iter();
    let ranges = ranges.map(|(range, origin)| format!("{range} because of {origin}"));
    let notes = plan.notes.iter().map(ToString::to_string);
    (ranges.collect(), notes.collect())
}

#[test]
fn what_is_in_no_pod_cidr_is_refused_unless_that_would_hide_pods_or_nodes() {
    let of = "because of ConfigMap kube-system/parfait clusterCIDRs";
    let (ranges, notes) = refused(DUAL, ONE_SEGMENT);
    assert_eq!(
        ranges,
        [
            format!("10.244.0.0/16 {of}"),
            format!("fd00:10:244::/56 {of}")
        ]
    );
    assert_eq!(notes, Vec::<String>::new());
    let table: [(&str, &[&str]); 3] = [
        (
            "node node-1 pods=10.244.1.0/24 underlay=192.168.77.11/24",
            &[],
        ),
        (
            "config clusterCIDRs=10.244.1.0/24
          node node-1 pods=10.244.1.0/24 underlay=192.168.77.11/24",
            &[],
        ),
        (
            "config clusterCIDRs=10.244.2.0/25
          node node-1 pods=10.244.1.0/24 underlay=192.168.77.11/24
          node node-2 pods=10.244.2.0/24 underlay=192.168.77.12/24",
            &[],
        ),
    ];
    for (text, wanted) in table {
        let (ranges, notes) = refused(text, "node-2 direct 192.168.77.12");
        assert_eq!(ranges, Vec::<String>::new(), "{text}");
        assert_eq!(notes, wanted, "{text}");
    }
}

#[test]
fn a_node_without_a_pod_cidr_leaves_a_note() {
    let snapshot = cluster("node node-1 underlay=192.168.77.11/24");
    let notes: Vec<_> = plan(&snapshot, "")
        .notes
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        notes,
        ["Node node-1 spec.podCIDRs: the node has no pod CIDR; its pods get no addresses"]
    );
}

#[test]
fn an_address_is_explained_by_whose_it_is() {
    let snapshot = clusters(&[THREE, "service web ip=10.96.0.20 ports=80/TCP"]);
    let plan = plan(&snapshot, ONE_SEGMENT);
    let table = [
        ("10.244.2.2", "Pod default/web-2"),
        ("192.168.77.12", "Node node-2"),
        ("10.244.2.1", "Node node-2"),
        ("10.96.0.20", "Service default/web"),
        ("10.244.2.99", "nobody in Node node-2 spec.podCIDRs"),
        ("10.244.99.1", "nobody"),
        ("192.0.2.1", "outside"),
        ("2001:db8::1", "outside"),
    ];
    for (address, wanted) in table {
        let place = match parfait_internet::explain(&plan, &snapshot, ip(address)) {
            Place::Pod(origin) | Place::Node(origin) | Place::Service(origin) => origin.to_string(),
            Place::Nobody { node: Some(node) } => format!("nobody in {node}"),
            Place::Nobody { node: None } => "nobody".to_owned(),
            Place::Outside => "outside".to_owned(),
        };
        assert_eq!(place, wanted, "{address}");
    }
}

/// What `prove` says after the kernel was changed behind the agent's back.
fn findings(change: impl FnOnce(&mut State)) -> Vec<String> {
    let desired = parfait_internet::apply(&plan(&cluster(APART), TWO_SEGMENTS));
    let mut observed = desired.clone();
    change(&mut observed);
    let findings = parfait_internet::prove(&desired, &observed);
    findings.iter().map(ToString::to_string).collect()
}

#[test]
fn nothing_is_found_where_nothing_differs() {
    assert_eq!(findings(|_| {}), Vec::<String>::new());
}

#[test]
fn a_missing_route_is_found() {
    let found = findings(|state| {
        state
            .routes
            .retain(|key, _| key.destination.to_string() != "10.244.2.0/24");
    });
    assert_eq!(
        found,
        [
            "internet layer: missing: 10.244.2.0/24 via 192.168.77.12 dev eth0 proto 112 [Node node-2 spec.podCIDRs] (PF251)"
        ]
    );
}

#[test]
fn a_missing_route_to_a_pod_is_found() {
    let found = findings(|state| {
        state
            .routes
            .retain(|key, _| key.destination.to_string() != "10.244.1.2/32");
    });
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("internet layer: missing: 10.244.1.2 dev pf"),
        "{found:?}"
    );
    assert!(
        found[0].ends_with("proto 113 scope link src 192.168.77.11 [Pod default/client] (PF251)"),
        "{found:?}"
    );
}

fn stray(protocol: RouteProtocol) -> Route {
    let destination = "10.244.9.0/24".parse().expect("a prefix");
    let mut route = Route::unreachable(destination);
    route.protocol = protocol;
    route
}

#[test]
fn an_extra_route_is_found_if_it_is_ours() {
    for protocol in [RouteProtocol::PARFAIT, RouteProtocol::PARFAIT_CNI] {
        let found = findings(|state| state.insert(stray(protocol), None));
        assert_eq!(
            found,
            [format!(
                "internet layer: extra: unreachable 10.244.9.0/24 proto {protocol} (PF253)"
            )]
        );
    }
    for protocol in [
        RouteProtocol::STATIC,
        RouteProtocol::KERNEL,
        RouteProtocol(80),
    ] {
        let found = findings(|state| state.insert(stray(protocol), None));
        assert_eq!(found, Vec::<String>::new(), "{protocol}");
    }
}

#[test]
fn a_route_that_leads_elsewhere_is_found() {
    let found = findings(|state| {
        for item in state.routes.values_mut() {
            if item.value.destination.to_string() == "10.244.2.0/24" {
                item.value.via = Some(ip("192.168.77.66"));
            }
        }
    });
    assert_eq!(
        found,
        [
            "internet layer: different: 10.244.2.0/24 via 192.168.77.12 dev eth0 proto 112 (found \
          10.244.2.0/24 via 192.168.77.66 dev eth0 proto 112) [Node node-2 spec.podCIDRs] (PF252)"
        ]
    );
}

#[test]
fn a_foreign_route_in_the_way_is_found() {
    let found = findings(|state| {
        for item in state.routes.values_mut() {
            if item.value.destination.to_string() == "10.244.2.0/24" {
                item.value.protocol = RouteProtocol::STATIC;
            }
        }
    });
    assert_eq!(found.len(), 1);
    assert!(
        found[0].contains("different: ") && found[0].contains("proto static"),
        "{found:?}"
    );
}

#[test]
fn a_route_by_hand_to_where_no_pod_is_yet_is_found_and_a_routing_daemons_is_not() {
    let with = |protocol| {
        findings(move |state| {
            let eth0 = IfName::new("eth0").expect("a name");
            let net = "10.244.99.0/24".parse().expect("a network");
            let mut route = Route::via(net, ip("192.168.77.66"), eth0);
            route.protocol = protocol;
            state.insert(route, None);
        })
    };
    for protocol in [RouteProtocol::BOOT, RouteProtocol::STATIC] {
        let found = with(protocol);
        assert_eq!(found.len(), 1, "{found:?}");
        let said = "extra: 10.244.99.0/24 via 192.168.77.66 dev eth0";
        assert!(found[0].contains(said), "{found:?}");
        let wins = "(wins over unreachable 10.244.0.0/16 proto 112) [ConfigMap kube-system/parfait clusterCIDRs] (PF254)";
        assert!(found[0].ends_with(wins), "{found:?}");
    }
    const BIRD: RouteProtocol = RouteProtocol(12); // RTPROT_BIRD
    assert_eq!(with(BIRD), Vec::<String>::new());
}

#[test]
fn forwarding_that_was_turned_off_is_found() {
    let found = findings(|state| {
        let key = SysctlKey::forwarding(Family::Ipv4);
        state.sysctls.get_mut(&key).expect("planned").value.value = "0".to_owned();
    });
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("different: net.ipv4"), "{found:?}");
}

#[test]
fn a_missing_address_of_the_tunnel_is_found() {
    let found = findings(|state| state.addresses.clear());
    assert_eq!(
        found,
        [
            "internet layer: missing: inet 10.244.1.1/32 scope global pf-vxlan [Node node-1 spec.podCIDRs] (PF255)"
        ]
    );
}

#[test]
fn a_masquerade_exception_that_is_gone_is_found() {
    let found = findings(|state| {
        let table = state
            .tables
            .get_mut(&(TableFamily::Ip, "parfait".to_owned()));
        let set = table.and_then(|table| table.sets.get_mut("unmasqueraded"));
        set.expect("planned").elements.pop_last();
    });
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("internet layer: missing: element @unmasqueraded 10.244.0.0/16"),
        "{found:?}"
    );
}

#[test]
fn a_changed_rule_and_a_missing_table_are_found() {
    let found = findings(|state| {
        let table = state
            .tables
            .get_mut(&(TableFamily::Ip, "parfait".to_owned()));
        let chain = table.and_then(|table| table.chains.get_mut("source_nat"));
        chain.expect("planned").rules.swap(0, 1);
    });
    assert_eq!(found.len(), 2);
    assert!(
        found
            .iter()
            .all(|text| text.contains("different: chain source_nat:")),
        "{found:?}"
    );
    let found = findings(|state| {
        state
            .tables
            .remove(&(TableFamily::Ip6, "parfait".to_owned()));
    });
    assert_eq!(
        found,
        ["internet layer: missing: table ip6 parfait (PF260)"]
    );
}

#[test]
fn an_address_that_only_looks_lost_is_left_alone() {
    let found = findings(|state| {
        let eth0 = IfName::new("eth0").expect("a name");
        let net = "192.168.77.11/24".parse().expect("an address");
        state.insert(parfait_linux::Address::new(eth0, net), None);
    });
    assert_eq!(found, Vec::<String>::new());
}
