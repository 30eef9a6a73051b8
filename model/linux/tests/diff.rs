//! The laws of `diff`, on random namespaces: nothing to do between equals; its steps reach the
//! goal; and what is not Parfait's stays as it was.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use parfait_linux::{
    Address, FdbEntry, IfName, Link, LinkKind, Mac, Mtu, Neighbour, Object, Ownership, Route,
    RouteProtocol, State, Step, Sysctl, SysctlKey, Vni, Vxlan, diff,
};
use proptest::collection::vec;
use proptest::prelude::*;

const OURS: [&str; 2] = ["pf-vxlan", "pf-dummy"];
const FOREIGN: [&str; 2] = ["eth0", "docker0"];

fn name(text: &str) -> IfName {
    IfName::new(text).expect("a valid name")
}

fn ownership() -> Ownership {
    Ownership::agent(OURS.map(name))
}

fn host(number: u8, v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number.into()).into()
    } else {
        Ipv4Addr::new(10, 0, 0, number).into()
    }
}

fn link(link: &'static str) -> impl Strategy<Value = Link> {
    (any::<bool>(), 1400u32..1402, 0u32..2, 0u8..3).prop_map(move |(up, mtu, vni, kind)| {
        let kind = match (link, kind) {
            ("pf-vxlan", 0..2) => LinkKind::Vxlan(Vxlan {
                vni: Vni::new(vni).expect("small"),
                port: Vxlan::PORT,
                local: host(1, false),
                learning: false,
            }),
            (_, 0) => LinkKind::Bridge,
            (_, 1) => LinkKind::Other("dummy".into()),
            _ => LinkKind::Veth { peer: None },
        };
        let mut link = Link::new(name(link), kind);
        link.up = up;
        link.mtu = Mtu::new(mtu).expect("in range");
        link.mac = (vni == 1).then(|| Mac::local([9; 6]));
        link
    })
}

/// What may lie on a link: addresses, neighbours, forwarding entries.
fn on(links: [&'static str; 2]) -> impl Strategy<Value = Object> {
    let link = prop::sample::select(links.to_vec()).prop_map(name);
    (link, 1u8..4, any::<bool>(), 1u8..3, 0u8..4).prop_map(|(link, number, v6, mac, kind)| {
        let address = host(number, v6);
        let mac = Mac::local([mac; 6]);
        match kind {
            0 => Address::new(link, IpNet::from(address)).into(),
            1 => Neighbour::permanent(link, address, mac).into(),
            2 => Neighbour {
                permanent: false,
                ..Neighbour::permanent(link, address, mac)
            }
            .into(),
            _ => FdbEntry {
                link,
                mac,
                destination: address,
            }
            .into(),
        }
    })
}

/// Routes of different makers never share a destination here: what then happens is another test.
fn route(protocol: RouteProtocol) -> impl Strategy<Value = Object> {
    let links: Vec<_> = [OURS, FOREIGN].concat();
    let link = prop::sample::select(links).prop_map(name);
    (link, 0u8..4, any::<bool>(), 0u8..3, 0u32..2).prop_map(
        move |(link, number, v6, kind, metric)| {
            let foreign = u8::from(protocol != RouteProtocol::PARFAIT) * 100;
            let destination = IpNet::from(host(number + foreign, v6));
            let mut route = match kind {
                0 => Route::direct(destination, link),
                1 => Route::via(destination, host(200, v6), link),
                _ => Route::unreachable(destination),
            };
            route.metric = metric;
            route.protocol = protocol;
            route.into()
        },
    )
}

fn sysctl() -> impl Strategy<Value = Object> {
    (
        "[01]",
        prop::sample::select(vec!["ip_forward", "conf.all.rp_filter"]),
    )
        .prop_map(|(value, key)| {
            let key = SysctlKey::new(&format!("net.ipv4.{key}")).expect("below net");
            Sysctl::new(key, &value).into()
        })
}

/// Puts an object in, unless the kernel could not hold it beside what is there.
fn put(state: &mut State, object: Object) {
    let fits = match &object {
        Object::Route(route) => !state
            .routes
            .keys()
            .any(|key| (key.destination, key.metric) == (route.destination, route.metric)),
        Object::Fdb(entry) => !state.fdb.values().any(|old| entry.displaces(&old.value)),
        Object::Address(_) | Object::Neighbour(_) => true,
        Object::Link(_) | Object::Sysctl(_) => true,
    };
    let link = match &object {
        Object::Route(route) => route.link.clone(),
        Object::Address(address) => Some(address.link.clone()),
        Object::Neighbour(neighbour) => Some(neighbour.link.clone()),
        Object::Fdb(entry) => Some(entry.link.clone()),
        Object::Link(_) | Object::Sysctl(_) => None,
    };
    if fits && link.is_none_or(|link| state.links.contains_key(&link)) {
        state.insert(object, None);
    }
}

fn build(links: Vec<Link>, objects: Vec<Object>) -> State {
    let mut state = State::default();
    links.into_iter().for_each(|link| state.insert(link, None));
    objects
        .into_iter()
        .for_each(|object| put(&mut state, object));
    state
}

/// What a plan of Parfait's holds; foreign links are there to route over.
fn desired() -> impl Strategy<Value = State> {
    let links = prop::sample::subsequence(OURS.to_vec(), 0..=2)
        .prop_flat_map(|names| names.into_iter().map(link).collect::<Vec<_>>());
    let objects = vec(
        prop_oneof![on(OURS), route(RouteProtocol::PARFAIT), sysctl()],
        0..24,
    );
    (links, objects).prop_map(|(links, objects)| {
        // Routes over links that are not planned are over foreign ones, which are there.
        let mut state = build(links, Vec::new());
        for foreign in FOREIGN {
            state.insert(Link::new(name(foreign), LinkKind::Bridge), None);
        }
        objects
            .into_iter()
            .for_each(|object| put(&mut state, object));
        state
            .links
            .retain(|link, _| !FOREIGN.contains(&link.as_str()));
        state
    })
}

/// What a kernel may hold, of Parfait's and of others.
fn observed() -> impl Strategy<Value = State> {
    let ours = prop::sample::subsequence(OURS.to_vec(), 0..=2)
        .prop_flat_map(|names| names.into_iter().map(link).collect::<Vec<_>>());
    let foreign = FOREIGN.map(link);
    let objects = vec(
        prop_oneof![
            on(OURS),
            on(FOREIGN),
            route(RouteProtocol::PARFAIT),
            route(RouteProtocol::STATIC),
            sysctl(),
        ],
        0..32,
    );
    (ours, foreign, objects).prop_map(|(ours, foreign, objects)| {
        build(ours.into_iter().chain(foreign).collect(), objects)
    })
}

/// The part of a state that is not Parfait's and lies on no link of Parfait's.
fn foreign(state: &State) -> State {
    let mut rest = state.clone();
    let ours = |link: &IfName| OURS.contains(&link.as_str());
    rest.links.retain(|link, _| !ours(link));
    rest.addresses.retain(|(link, _), _| !ours(link));
    rest.neighbours.retain(|(link, _), _| !ours(link));
    rest.fdb.retain(|(link, _, _), _| !ours(link));
    rest.routes.retain(|key, item| {
        item.value.protocol != RouteProtocol::PARFAIT && !key.link.as_ref().is_some_and(ours)
    });
    rest.sysctls.clear();
    rest
}

proptest! {
    #[test]
    fn there_is_nothing_to_do_between_equals(state in observed()) {
        prop_assert_eq!(diff(&state, &state, &ownership()), vec![]);
    }

    #[test]
    fn applying_the_steps_reaches_the_goal(observed in observed(), desired in desired()) {
        let steps = diff(&observed, &desired, &ownership());
        let mut state = observed.clone();
        for step in &steps {
            state.apply(step);
        }
        let print = || steps.iter().map(|step| format!("{step}\n")).collect::<String>();
        prop_assert_eq!(diff(&state, &desired, &ownership()), vec![], "after\n{}", print());
        for (name, wanted) in &desired.links {
            prop_assert!(state.links[name].value.satisfies(&wanted.value));
        }
        for (key, wanted) in &desired.routes {
            prop_assert_eq!(state.routes.get(key), Some(wanted), "after\n{}", print());
        }
        for (key, wanted) in &desired.fdb {
            prop_assert_eq!(state.fdb.get(key), Some(wanted), "after\n{}", print());
        }
        for (key, wanted) in &desired.neighbours {
            prop_assert_eq!(state.neighbours.get(key), Some(wanted), "after\n{}", print());
        }
        for (key, item) in &state.routes {
            let ours = item.value.protocol == RouteProtocol::PARFAIT;
            prop_assert!(!ours || desired.routes.contains_key(key), "left over: {}", item.value);
        }
        prop_assert_eq!(foreign(&state), foreign(&observed));
    }

    #[test]
    fn planning_twice_prints_the_same(observed in observed(), desired in desired()) {
        let print = || format!("{:?}", diff(&observed, &desired, &ownership()));
        prop_assert_eq!(print(), print());
    }
}

fn one(object: impl Into<Object>) -> State {
    let mut state = State::default();
    state.insert(object, None);
    state
}

fn commands(observed: &State, desired: &State) -> Vec<String> {
    let steps = diff(observed, desired, &ownership());
    steps.iter().map(ToString::to_string).collect()
}

#[test]
fn steps_read_as_an_operator_would_type_them() {
    let pods: IpNet = "10.244.2.0/24".parse().unwrap();
    let far: IpAddr = "192.168.77.12".parse().unwrap();
    let mut desired = State::default();
    let options = Vxlan {
        vni: Vni::new(4242).unwrap(),
        port: Vxlan::PORT,
        local: "192.168.77.11".parse().unwrap(),
        learning: false,
    };
    let mut vxlan = Link::new(name("pf-vxlan"), LinkKind::Vxlan(options));
    vxlan.mtu = Mtu::new(1450).unwrap();
    let mac = Mac::new([2, 0x42, 0, 0, 0, 2]);
    let gateway: IpAddr = "10.244.2.0".parse().unwrap();
    desired.insert(vxlan.clone(), None);
    desired.insert(Neighbour::permanent(vxlan.name.clone(), gateway, mac), None);
    desired.insert(
        FdbEntry {
            link: vxlan.name.clone(),
            mac,
            destination: far,
        },
        None,
    );
    let route = Route {
        onlink: true,
        ..Route::via(pods, gateway, vxlan.name.clone())
    };
    desired.insert(route, None);
    let forward = SysctlKey::forwarding(parfait_packet::Family::Ipv4);
    desired.insert(Sysctl::new(forward, "1"), None);
    assert_eq!(
        commands(&State::default(), &desired),
        [
            "ip link add pf-vxlan mtu 1450 up type vxlan id 4242 local 192.168.77.11 dstport 4789 nolearning",
            "sysctl -w net.ipv4.ip_forward=\"1\"",
            "ip neighbour add 10.244.2.0 dev pf-vxlan lladdr 02:42:00:00:00:02 nud permanent",
            "bridge fdb add 02:42:00:00:00:02 dev pf-vxlan dst 192.168.77.12 self permanent",
            "ip route add 10.244.2.0/24 via 10.244.2.0 dev pf-vxlan proto 112 onlink",
        ]
    );
    assert_eq!(
        commands(&desired, &State::default()),
        ["ip link del pf-vxlan"],
        "everything on a link goes with it"
    );
}

#[test]
fn a_route_that_moves_is_replaced_not_removed() {
    let pods: IpNet = "10.244.2.0/24".parse().unwrap();
    let old = one(Route::direct(pods, name("pf-vxlan")));
    let new = one(Route::via(pods, host(2, false), name("eth0")));
    assert_eq!(
        commands(&old, &new),
        ["ip route replace 10.244.2.0/24 via 10.0.0.2 dev eth0 proto 112"]
    );
}

/// A node behind a tunnel is reached through an address of its own pods' range. The kernel refuses
/// such an IPv6 next hop while it finds it on another link.
#[test]
fn an_ipv6_route_that_hides_its_own_next_hop_goes_first() {
    let pods: IpNet = "fd00:10:244:2::/64".parse().unwrap();
    let old = one(Route::via(pods, host(2, true), name("eth0")));
    let gateway: IpAddr = "fd00:10:244:2::1".parse().unwrap();
    let new = one(Route {
        onlink: true,
        ..Route::via(pods, gateway, name("pf-vxlan"))
    });
    assert_eq!(
        commands(&old, &new),
        [
            "ip -6 route del fd00:10:244:2::/64 via fd00::2 dev eth0 proto 112 metric 1024",
            "ip -6 route add fd00:10:244:2::/64 via fd00:10:244:2::1 dev pf-vxlan proto 112 metric 1024 onlink",
        ]
    );
}

#[test]
fn a_foreign_route_in_the_way_is_reported_not_replaced() {
    let pods: IpNet = "10.244.2.0/24".parse().unwrap();
    let theirs = one(Route {
        protocol: RouteProtocol::STATIC,
        ..Route::direct(pods, name("eth0"))
    });
    let ours = one(Route::direct(pods, name("eth0")));
    let steps = diff(&theirs, &ours, &ownership());
    assert!(matches!(steps[..], [Step::Create(_)]), "{steps:?}");
    let mut state = theirs.clone();
    state.apply(&steps[0]);
    assert_eq!(state, theirs);
}

#[test]
fn an_address_with_our_number_is_removed_from_any_link_and_no_other() {
    let mut observed = State::default();
    for (text, protocol) in [
        ("10.96.0.10/32", Some(RouteProtocol::PARFAIT)),
        ("10.96.0.11/32", Some(RouteProtocol::PARFAIT_CNI)),
        ("10.96.0.12/32", None),
    ] {
        let mut address = Address::new(IfName::loopback(), text.parse().unwrap());
        address.protocol = protocol;
        observed.insert(address, None);
    }
    assert_eq!(
        commands(&observed, &State::default()),
        ["ip address del 10.96.0.10/32 dev lo"]
    );
    // A kernel before 5.18 does not keep the number: what is there will do.
    let mut desired = Address::new(IfName::loopback(), "10.96.0.12/32".parse().unwrap());
    desired.protocol = Some(RouteProtocol::PARFAIT);
    observed
        .addresses
        .retain(|_, item| item.value.protocol.is_none());
    assert_eq!(commands(&observed, &one(desired)), Vec::<String>::new());
}

#[test]
fn ipv6_is_forwarded_only_once_interfaces_keep_the_routes_they_learned() {
    let six = parfait_packet::Family::Ipv6;
    let mut desired = State::default();
    for (key, value) in [
        (SysctlKey::forwarding(six), "1"),
        (SysctlKey::conf(six, &name("eth0"), "accept_ra"), "2"),
        (SysctlKey::conf(six, &name("eth0"), "disable_ipv6"), "0"),
    ] {
        desired.insert(Sysctl::new(key, value), None);
    }
    let typed = commands(&State::default(), &desired);
    assert_eq!(
        typed.last().map(String::as_str),
        Some("sysctl -w net.ipv6.conf.all.forwarding=\"1\""),
        "{typed:?}"
    );
}
