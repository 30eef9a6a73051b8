//! Paths over the underlays that real networks have: routed, a cloud's, one with BGP, several interfaces.

#[path = "../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;

use fixture::{APART, DUAL, SIX, clusters};
use parfait_cluster::{Path, Routing, Snapshot, Underlay};
use parfait_packet::Family;

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

fn notes(snapshot: &Snapshot, node: &str) -> Vec<String> {
    let plan = parfait_link::plan(snapshot, node);
    plan.notes.iter().map(ToString::to_string).collect()
}

/// A second interface, as the agent reports it.
fn also(snapshot: &mut Snapshot, node: &str, interface: &str, mtu: u32, addresses: &[&str]) {
    let node = snapshot.nodes.get_mut(node).expect("a node");
    let parse = |text: &&str| text.parse().expect("a prefix");
    let underlay = node.underlay.as_mut().expect("reported");
    let addresses: Vec<_> = addresses.iter().map(parse).collect();
    underlay.addresses.retain(|net| !addresses.contains(net));
    underlay.other = Some(Box::new(Underlay {
        interface: interface.to_owned(),
        mtu,
        addresses,
        gateways: Vec::new(),
        other: None,
        unlearned: Vec::new(),
        cards: Vec::new(),
        node_ports: Vec::new(),
        advertised: false,
        egress: Vec::new(),
        config: None,
    }));
}

#[test]
fn learned_routes_lead_where_direct_ones_would() {
    for (text, near, router) in [
        (APART, "192.168.77.12", "192.168.77.1"),
        (SIX, "fd00:77::12", "fd00:77::1"),
    ] {
        let family = if text == SIX { "IPv6" } else { "IPv4" };
        let mut snapshot = clusters(&[text]);
        for (routing, word) in [(Routing::Direct, "direct"), (Routing::Bgp, "learned")] {
            snapshot.config.routing = routing;
            let wanted = [
                format!("node-2 {family} {word} via {near} dev eth0"),
                format!("node-3 {family} {word} via {router} dev eth0"),
            ];
            assert_eq!(paths(&snapshot, "node-1"), wanted);
        }
        let plan = parfait_link::plan(&snapshot, "node-1");
        assert_eq!(
            (plan.tunnel, plan.pod_mtu.map(|mtu| mtu.bytes())),
            (None, Some(1500))
        );
    }
}

#[test]
fn a_wire_that_was_learned_says_so() {
    let mut snapshot = clusters(&[APART]);
    snapshot.config.routing = Routing::Bgp;
    let plan = parfait_link::plan(&snapshot, "node-1");
    let wire = parfait_link::explain(&plan, "node-3", Family::Ipv4).expect("a wire");
    assert_eq!(
        (
            wire.kind,
            wire.what.as_str(),
            wire.mtu.map(|mtu| mtu.bytes())
        ),
        (
            "learned",
            "unchanged over eth0 to 192.168.77.1, along a route that a routing daemon has learned",
            Some(1500)
        )
    );
}

#[test]
fn what_no_daemon_has_brought_has_no_path() {
    let mut snapshot = clusters(&[DUAL]);
    snapshot.config.routing = Routing::Bgp;
    let cidr = "10.244.3.0/24".parse().expect("a CIDR");
    let node = snapshot.nodes.get_mut("node-1").expect("a node");
    node.underlay.as_mut().expect("reported").unlearned = vec![cidr];
    let wanted = [
        "node-2 IPv4 learned via 192.168.77.12 dev eth0",
        "node-2 IPv6 learned via fd00:77::12 dev eth0",
        "node-3 IPv6 learned via fd00:77::1 dev eth0",
    ];
    assert_eq!(paths(&snapshot, "node-1"), wanted);
    assert_eq!(
        notes(&snapshot, "node-1"),
        [
            "Node node-3 spec.podCIDRs: no routing daemon has brought node-1 a route to 10.244.3.0/24; it refuses \
             what is for the node's pods"
        ]
    );
}

#[test]
fn a_node_to_whose_pods_a_cloud_has_no_route_has_no_path_through_its_router() {
    let mut snapshot = clusters(&[APART]);
    let unavailable = |snapshot: &mut Snapshot, name: &str| {
        let node = snapshot.nodes.get_mut(name).expect("a node");
        node.network_unavailable = Some("NoRouteCreated: quota".to_owned());
    };
    unavailable(&mut snapshot, "node-2");
    unavailable(&mut snapshot, "node-3");
    assert_eq!(
        paths(&snapshot, "node-1").len(),
        2,
        "a tunnel needs no route of the cloud's"
    );
    snapshot.config.routing = Routing::Direct;
    let segment = ["node-2 IPv4 direct via 192.168.77.12 dev eth0"];
    assert_eq!(
        paths(&snapshot, "node-1"),
        segment,
        "nor does a node on the segment"
    );
    assert_eq!(
        notes(&snapshot, "node-1"),
        [
            "Node node-3 status.conditions[NetworkUnavailable]: the underlay has no route to the node's pods \
             (NoRouteCreated: quota); node-1 refuses what is for them"
        ]
    );
}

/// Otherwise one would send to an address at which the other's device does not listen.
#[test]
fn nodes_that_list_their_families_in_another_order_agree_on_the_outer_one() {
    let mut snapshot = clusters(&[DUAL]);
    snapshot
        .nodes
        .get_mut("node-3")
        .expect("a node")
        .addresses
        .reverse();
    for (order, there, back) in [
        (
            ["10.244.0.0/16", "fd00:10:244::/56"],
            "192.168.88.13",
            "192.168.77.11",
        ),
        (
            ["fd00:10:244::/56", "10.244.0.0/16"],
            "fd00:88::13",
            "fd00:77::11",
        ),
    ] {
        snapshot.config.cluster_cidrs = order.map(|text| text.parse().expect("a CIDR")).to_vec();
        let to = |node: &str, peer: &str| {
            let plan = parfait_link::plan(&snapshot, node);
            let local = plan.tunnel.as_ref().map(|tunnel| tunnel.local.to_string());
            let remote = plan.peers.iter().find(|known| known.origin.name == peer);
            (local, remote.map(|known| known.remote.to_string()))
        };
        let (there, back) = (Some(there.to_owned()), Some(back.to_owned()));
        assert_eq!(to("node-1", "node-3"), (back.clone(), there.clone()));
        assert_eq!(to("node-3", "node-1"), (there, back));
    }
}

#[test]
fn a_family_that_some_node_lacks_is_outside_only_if_all_lack_the_other() {
    let text = "
        config clusterCIDRs=10.244.0.0/16,fd00:10:244::/56
        node node-1 pods=10.244.1.0/24,fd00:10:244:1::/64 underlay=192.168.77.11/24,fd00:77::11/64
        node node-2 pods=10.244.2.0/24,fd00:10:244:2::/64 underlay=fd00:88::12/64";
    let all = [
        "node-2 IPv4 vxlan to fd00:88::12 dev pf-vxlan",
        "node-2 IPv6 vxlan to fd00:88::12 dev pf-vxlan",
    ];
    assert_eq!(paths(&clusters(&[text]), "node-1"), all);
    let apart = clusters(&[
        text,
        "node node-3 pods=10.244.3.0/24 underlay=192.168.99.13/24",
    ]);
    let reached = ["node-3 IPv4 vxlan to 192.168.99.13 dev pf-vxlan"];
    assert_eq!(paths(&apart, "node-1"), reached);
    assert_eq!(
        notes(&apart, "node-1").first().map(String::as_str),
        Some(
            "Node node-2 status.addresses: no address that node-1 can reach; its IPv4 pods stay unreachable"
        )
    );
}

#[test]
fn each_family_takes_the_interface_that_carries_it() {
    let mut snapshot = clusters(&[DUAL]);
    for (node, host) in [("node-1", 11), ("node-2", 12)] {
        also(
            &mut snapshot,
            node,
            "eth2",
            1400,
            &[&format!("fd00:77::{host}/64")],
        );
    }
    let wanted = [
        "node-2 IPv4 direct via 192.168.77.12 dev eth0",
        "node-2 IPv6 direct via fd00:77::12 dev eth2",
    ];
    assert_eq!(paths(&snapshot, "node-1")[..2], wanted);
    let plan = parfait_link::plan(&snapshot, "node-1");
    assert_eq!(
        plan.pod_mtu.map(|mtu| mtu.bytes()),
        Some(1400),
        "the smallest"
    );
    assert_eq!(
        plan.tunnel.map(|tunnel| tunnel.mtu.bytes()),
        Some(1450),
        "over eth0"
    );
}

#[test]
fn a_chosen_interface_is_where_the_others_send() {
    let mut snapshot = clusters(&[APART]);
    for (name, address) in [
        ("node-1", "10.9.0.11/24"),
        ("node-2", "10.9.0.12/24"),
        ("node-3", "10.9.0.13/24"),
    ] {
        let node = snapshot.nodes.get_mut(name).expect("a node");
        node.underlay_interface = Some("eth1".to_owned());
        let underlay = node.underlay.as_mut().expect("reported");
        underlay.interface = "eth1".to_owned();
        underlay.addresses = vec![address.parse().expect("a prefix")];
    }
    let all = [
        "node-2 IPv4 direct via 10.9.0.12 dev eth1",
        "node-3 IPv4 direct via 10.9.0.13 dev eth1",
    ];
    assert_eq!(paths(&snapshot, "node-1"), all);
    snapshot.config.routing = Routing::Vxlan;
    let tunnel = parfait_link::plan(&snapshot, "node-1")
        .tunnel
        .expect("a tunnel");
    assert_eq!(tunnel.local.to_string(), "10.9.0.11");
    let own: Vec<_> = snapshot.nodes["node-1"]
        .own_addresses()
        .map(|a| a.to_string())
        .collect();
    assert_eq!(own, ["192.168.77.11"], "what pods know it by stays");
}
