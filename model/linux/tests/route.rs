//! Which way packets go, as tables: a node, a pod, and what happens when parts are missing.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

use std::net::IpAddr;

use parfait_linux::{
    Address, IfName, Link, LinkKind, Mtu, Route, RouteDecision, RouteProtocol, State,
};
use parfait_packet::{Kind, Origin};

fn name(text: &str) -> IfName {
    IfName::new(text).expect("a valid name")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn net(text: &str) -> ipnet::IpNet {
    text.parse().expect("a prefix")
}

/// A node of the lab: an underlay interface, a pod, a route to another node's pods.
fn node() -> State {
    let mut state = State::default();
    for (link, kind) in [
        ("lo", LinkKind::Loopback),
        ("eth0", LinkKind::Other("device".into())),
        ("pf0123456789a", LinkKind::Veth { peer: None }),
        ("down0", LinkKind::Bridge),
    ] {
        let mut link = Link::new(name(link), kind);
        link.up = link.name.as_str() != "down0";
        state.insert(link, None);
    }
    for (link, address) in [
        ("lo", "127.0.0.1/8"),
        ("lo", "::1/128"),
        ("lo", "10.244.1.1/32"),
        ("eth0", "192.168.77.11/24"),
        ("eth0", "fd00:77::11/64"),
        ("eth0", "fe80::11/64"),
        ("down0", "172.16.0.1/24"),
    ] {
        state.insert(
            Address::new(name(link), net(address)),
            Origin::parfait("test"),
        );
    }
    let node_2 = Origin::new(Kind::Node, "", "node-2").field("spec.podCIDRs[0]");
    for route in [
        Route {
            mtu: Mtu::new(1450).ok(),
            ..Route::via(net("10.244.2.0/24"), ip("192.168.77.12"), name("eth0"))
        },
        Route::via(net("fd00:10:244:2::/64"), ip("fd00:77::12"), name("eth0")),
        Route::direct(net("10.244.1.2/32"), name("pf0123456789a")),
        Route::direct(net("fd00:10:244:1::2/128"), name("pf0123456789a")),
        Route::unreachable(net("10.244.0.0/16")),
        Route {
            protocol: RouteProtocol::STATIC,
            ..Route::via(net("0.0.0.0/0"), ip("192.168.77.1"), name("eth0"))
        },
        Route {
            metric: 50,
            ..Route::via(net("10.9.0.0/16"), ip("192.168.77.3"), name("eth0"))
        },
        Route {
            metric: 10,
            source: Some(ip("10.244.1.1")),
            ..Route::via(net("10.9.0.0/16"), ip("192.168.77.4"), name("eth0"))
        },
        Route::direct(net("10.8.0.0/16"), name("down0")),
    ] {
        state.insert(route, node_2.clone());
    }
    state
}

/// `destination → decision [to next hop] [from source] [mtu]`
fn say(state: &State, destination: &str) -> String {
    match state.route(ip(destination)) {
        RouteDecision::Unicast(way) => format!(
            "{} to {} from {} mtu {}",
            way.route,
            way.next_hop,
            way.source.map_or("nothing".into(), |ip| ip.to_string()),
            way.mtu.map_or("?".into(), |mtu| mtu.to_string()),
        ),
        other => other.to_string(),
    }
}

#[test]
fn a_node_routes_as_the_kernel_would() {
    let table = [
        // Its own addresses, on whichever link, and every loopback address.
        ("192.168.77.11", "local 192.168.77.11 dev eth0"),
        ("10.244.1.1", "local 10.244.1.1 dev lo"),
        ("127.8.9.10", "local dev lo"),
        ("::1", "local ::1 dev lo"),
        // Neighbours on the underlay, by the prefix of its address.
        (
            "192.168.77.12",
            "192.168.77.0/24 dev eth0 proto kernel scope link src 192.168.77.11 to 192.168.77.12 from 192.168.77.11 mtu 1500",
        ),
        (
            "fd00:77::12",
            "fd00:77::/64 dev eth0 proto kernel metric 256 to fd00:77::12 from fd00:77::11 mtu 1500",
        ),
        // The other node's pods, with the path's own MTU.
        (
            "10.244.2.7",
            "10.244.2.0/24 via 192.168.77.12 dev eth0 proto 112 mtu 1450 to 192.168.77.12 from 192.168.77.11 mtu 1450",
        ),
        (
            "fd00:10:244:2::7",
            "fd00:10:244:2::/64 via fd00:77::12 dev eth0 proto 112 metric 1024 to fd00:77::12 from fd00:77::11 mtu 1500",
        ),
        // Its own pod: the host end has no address, so the loopback's is taken.
        (
            "10.244.1.2",
            "10.244.1.2 dev pf0123456789a proto 112 scope link to 10.244.1.2 from 10.244.1.1 mtu 1500",
        ),
        // A pod that is nobody's, and the world.
        ("10.244.3.4", "unreachable 10.244.0.0/16 proto 112"),
        (
            "1.1.1.1",
            "default via 192.168.77.1 dev eth0 proto static to 192.168.77.1 from 192.168.77.11 mtu 1500",
        ),
        ("2001:db8::1", "network is unreachable"),
        // The lower metric wins, and its hint is the source.
        (
            "10.9.1.1",
            "10.9.0.0/16 via 192.168.77.4 dev eth0 proto 112 src 10.244.1.1 metric 10 to 192.168.77.4 from 10.244.1.1 mtu 1500",
        ),
        // A link that is down carries nothing and owns nothing.
        (
            "10.8.0.1",
            "default via 192.168.77.1 dev eth0 proto static to 192.168.77.1 from 192.168.77.11 mtu 1500",
        ),
        (
            "172.16.0.1",
            "default via 192.168.77.1 dev eth0 proto static to 192.168.77.1 from 192.168.77.11 mtu 1500",
        ),
    ];
    let node = node();
    for (destination, expected) in table {
        assert_eq!(say(&node, destination), expected, "{destination}");
    }
}

#[test]
fn a_decision_names_what_it_exists_for() {
    let decision = node().route(ip("10.244.2.7"));
    let origin = decision.origin().map(ToString::to_string);
    assert_eq!(origin.as_deref(), Some("Node node-2 spec.podCIDRs[0]"));
}

#[test]
fn a_pod_reaches_everything_through_its_gateway() {
    let mut pod = State::default();
    pod.insert(Link::new(name("eth0"), LinkKind::Veth { peer: None }), None);
    for address in ["10.244.1.2/32", "fd00:10:244:1::2/128"] {
        pod.insert(Address::new(name("eth0"), net(address)), None);
    }
    for (destination, gateway) in [("0.0.0.0/0", "169.254.1.1"), ("::/0", "fe80::1")] {
        let route = Route {
            onlink: true,
            ..Route::via(net(destination), ip(gateway), name("eth0"))
        };
        pod.insert(route, None);
    }
    for (destination, next_hop, source) in [
        ("10.244.1.3", "169.254.1.1", "10.244.1.2"),
        ("fd00:10:96::a", "fe80::1", "fd00:10:244:1::2"),
    ] {
        let RouteDecision::Unicast(way) = pod.route(ip(destination)) else {
            panic!("{destination} has no way out");
        };
        assert_eq!((way.next_hop, way.source), (ip(next_hop), Some(ip(source))));
    }
}

#[test]
fn ipv6_sources_are_chosen_by_rfc_6724() {
    let mut state = State::default();
    for address in ["fe80::5/64", "fd00:77::5/64", "2001:db8::5/64"] {
        state.insert(Address::new(name("eth0"), net(address)), None);
    }
    state.insert(Route::via(net("::/0"), ip("fe80::1"), name("eth0")), None);
    for (destination, source) in [
        ("fe80::9", "fe80::5"),           // rule 2, scope
        ("fd00:10::9", "fd00:77::5"),     // rule 6, label
        ("2001:db8:1::9", "2001:db8::5"), // rule 6, label
        ("2a00::9", "2001:db8::5"),       // rule 6, label
    ] {
        let RouteDecision::Unicast(way) = state.route(ip(destination)) else {
            panic!("{destination} has no way out");
        };
        assert_eq!(way.source, Some(ip(source)), "{destination}");
    }
}
