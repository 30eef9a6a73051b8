//! Steps executed into real network namespaces, compared with what `ip` and `bridge` say is there.
//!
//! Each test makes its own namespaces and lets them go. Needs root (or a user namespace); without,
//! the tests fail rather than pass silently.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use parfait_kernel::{Error, Kernel, NetNs, NodeFacts, Socket, sysctl};
use parfait_linux::{
    Address, Alias, FdbEntry, IfName, Link, LinkKind, Mac, Mtu, Neighbour, Ownership, Route,
    RouteProtocol, State, Step, Sysctl, SysctlKey, Vni, Vxlan, diff,
};
use parfait_packet::{Family, Kind, Origin};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount_bind, mount_change, mount_remount};
use rustix::thread::{UnshareFlags, unshare_unsafe};

#[path = "support/processor_time.rs"]
mod processor_time;
use processor_time::processor_time;

fn name(text: &str) -> IfName {
    IfName::new(text).unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What a program of iproute2 prints in a namespace.
fn shell(netns: &NetNs, command: &str) -> String {
    let output = netns
        .run(|| {
            let mut words = command.split_whitespace();
            Command::new(words.next().unwrap())
                .args(words)
                .output()
                .unwrap()
        })
        .unwrap();
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A namespace with `eth0` (one end of a veth pair) at 192.168.77.11/24 and fd00:77::11/64.
fn node() -> (NetNs, Socket) {
    let netns = NetNs::create().expect("root, or a user namespace");
    for command in [
        "ip link set lo up",
        "ip link add eth0 type veth peer name far0",
        "ip link set eth0 up",
        "ip link set far0 up",
        "ip addr add 192.168.77.11/24 dev eth0",
        "ip addr add fd00:77::11/64 dev eth0 nodad",
    ] {
        shell(&netns, command);
    }
    // An IPv6 address counts once its link has a carrier, which the kernel sees to later.
    let end = Instant::now() + Duration::from_secs(60);
    while !shell(&netns, "ip -6 route show table local").contains("fd00:77::11") {
        assert!(Instant::now() < end, "fd00:77::11 is not there");
        std::thread::sleep(Duration::from_millis(5));
    }
    let socket = Socket::open_in(&netns).unwrap();
    (netns, socket)
}

fn ownership() -> Ownership {
    Ownership::agent([name("pf-vxlan")])
}

fn vxlan_link() -> Link {
    let options = Vxlan {
        vni: Vni::new(4242).unwrap(),
        port: Vxlan::PORT,
        local: ip("192.168.77.11"),
        learning: false,
    };
    let mut link = Link::new(name("pf-vxlan"), LinkKind::Vxlan(options));
    link.mtu = Mtu::new(1450).unwrap();
    link.mac = Some(Mac::new([2, 0x42, 0, 0, 0, 1]));
    link.alias = Some(Alias::new("Node node-1"));
    link
}

/// What an agent wants on a node with one peer behind a tunnel and one on the underlay.
fn plan() -> State {
    let mut state = State::default();
    let peer = Origin::new(Kind::Node, "", "node-2").field("spec.podCIDRs[0]");
    let tunnel = name("pf-vxlan");
    let mac = Mac::new([2, 0x42, 0, 0, 0, 2]);
    state.insert(vxlan_link(), Origin::parfait("tunnel"));
    state.insert(Address::new(tunnel.clone(), net("10.244.1.0/32")), None);
    for (pods, gateway) in [
        ("10.244.2.0/24", "10.244.2.0"),
        ("fd00:10:244:2::/64", "fd00:10:244:2::"),
    ] {
        let gateway = ip(gateway);
        let route = Route {
            onlink: true,
            mtu: Mtu::new(1400).ok(),
            ..Route::via(net(pods), gateway, tunnel.clone())
        };
        state.insert(route, peer.clone());
        state.insert(
            Neighbour::permanent(tunnel.clone(), gateway, mac),
            peer.clone(),
        );
    }
    let entry = FdbEntry {
        link: tunnel,
        mac,
        destination: ip("192.168.77.12"),
    };
    state.insert(entry, peer.clone());
    for (pods, via) in [
        ("10.244.3.0/24", "192.168.77.13"),
        ("fd00:10:244:3::/64", "fd00:77::13"),
    ] {
        state.insert(Route::via(net(pods), ip(via), name("eth0")), peer.clone());
    }
    state.insert(Route::unreachable(net("10.244.0.0/16")), None);
    state.insert(Route::unreachable(net("fd00:10:244::/56")), None);
    for family in Family::ALL {
        state.insert(Sysctl::new(SysctlKey::forwarding(family), "1"), None);
    }
    state
}

fn sysctls() -> Vec<SysctlKey> {
    Family::ALL.map(SysctlKey::forwarding).to_vec()
}

fn reach(socket: &mut Socket, desired: &State) -> Vec<Step> {
    let observed = socket.observe(&sysctls()).unwrap();
    let steps = diff(&observed, desired, &ownership());
    if let Err(errors) = socket.execute(&steps) {
        panic!("{errors:#?}");
    }
    steps
}

#[test]
fn a_plan_is_reached_and_then_there_is_nothing_to_do() {
    let (netns, mut socket) = node();
    reach(&mut socket, &plan());
    let again = reach(&mut socket, &plan());
    let print: Vec<_> = again.iter().map(ToString::to_string).collect();
    assert_eq!(print, [""; 0]);

    let link = shell(&netns, "ip -d link show pf-vxlan");
    for part in [
        "mtu 1450",
        "vxlan id 4242 local 192.168.77.11",
        "dstport 4789",
        "nolearning",
        "link/ether 02:42:00:00:00:01",
        "alias Node node-1",
    ] {
        assert!(link.contains(part), "{part} is missing:\n{link}");
    }
    let v4 = shell(&netns, "ip route show proto 112");
    assert_eq!(
        v4.lines().map(str::trim).collect::<Vec<_>>(),
        [
            "unreachable 10.244.0.0/16",
            "10.244.2.0/24 via 10.244.2.0 dev pf-vxlan onlink mtu 1400",
            "10.244.3.0/24 via 192.168.77.13 dev eth0",
        ]
    );
    let v6 = shell(&netns, "ip -6 route show proto 112");
    for part in [
        "fd00:10:244:2::/64 via fd00:10:244:2:: dev pf-vxlan metric 1024 onlink mtu 1400",
        "fd00:10:244:3::/64 via fd00:77::13 dev eth0 metric 1024",
        "unreachable fd00:10:244::/56 dev lo metric 1024",
    ] {
        assert!(v6.contains(part), "{part} is missing:\n{v6}");
    }
    let neighbours = shell(&netns, "ip neigh show dev pf-vxlan");
    assert!(neighbours.contains("10.244.2.0 lladdr 02:42:00:00:00:02 PERMANENT"));
    let fdb = shell(&netns, "bridge fdb show dev pf-vxlan");
    assert!(
        fdb.contains("02:42:00:00:00:02 dst 192.168.77.12 self permanent"),
        "{fdb}"
    );
    assert_eq!(shell(&netns, "sysctl -n net.ipv4.ip_forward").trim(), "1");
}

#[test]
fn what_is_observed_prints_as_ip_prints_it() {
    let (netns, mut socket) = node();
    shell(
        &netns,
        "ip route add default via 192.168.77.1 metric 7 proto static src 192.168.77.11",
    );
    shell(&netns, "ip route add blackhole 10.66.0.0/16");
    shell(
        &netns,
        "ip route add 10.67.0.0/16 via inet6 fe80::5 dev eth0",
    );
    reach(&mut socket, &plan());
    let observed = socket.observe(&[]).unwrap();
    let ours: Vec<_> = observed
        .routes
        .values()
        .filter(|item| item.value.family() == Family::Ipv4)
        .map(|item| item.value.to_string())
        .collect();
    let mut theirs: Vec<_> = shell(&netns, "ip -4 route show table main")
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    theirs.sort();
    let mut sorted = ours.clone();
    sorted.sort();
    assert_eq!(sorted, theirs);
    let addresses = shell(&netns, "ip -o addr show");
    for item in observed.addresses.values() {
        let words = item.value.address.to_string();
        assert!(addresses.contains(&words), "{words} is not in\n{addresses}");
    }
    assert_eq!(
        observed.addresses.len(),
        addresses.lines().count(),
        "{addresses}"
    );
    let origin = observed.links[&name("pf-vxlan")].origin.as_ref();
    assert_eq!(
        origin.map(ToString::to_string).as_deref(),
        Some("Node node-1")
    );
}

#[test]
fn only_what_is_ours_goes_when_nothing_is_wanted() {
    let (netns, mut socket) = node();
    shell(&netns, "ip route add 10.50.0.0/16 via 192.168.77.5");
    let everything = "ip -o addr; ip route; ip -6 route; ip -o link";
    let print = |netns: &NetNs| -> String {
        everything
            .split(';')
            .map(|command| shell(netns, command.trim()))
            .collect()
    };
    let before = print(&netns);
    reach(&mut socket, &plan());
    assert_ne!(print(&netns), before);
    let nothing = State {
        sysctls: plan().sysctls,
        ..State::default()
    };
    reach(&mut socket, &nothing);
    // The kernel writes lifetimes of IPv6 routes; there are none here.
    assert_eq!(print(&netns), before);
}

#[test]
fn steps_done_twice_succeed() {
    let (_netns, mut socket) = node();
    let observed = socket.observe(&sysctls()).unwrap();
    let steps = diff(&observed, &plan(), &ownership());
    for _ in 0..2 {
        let done = socket.execute(&steps);
        assert!(done.is_ok(), "{done:#?}");
    }
    let there = socket.observe(&sysctls()).unwrap();
    let steps = diff(&there, &State::default(), &ownership());
    for _ in 0..2 {
        let done = socket.execute(&steps);
        assert!(done.is_ok(), "{done:#?}");
    }
}

#[test]
fn a_foreign_route_in_the_way_is_a_conflict_and_the_rest_is_done() {
    let (netns, mut socket) = node();
    shell(&netns, "ip route add 10.244.3.0/24 via 192.168.77.99");
    let observed = socket.observe(&sysctls()).unwrap();
    let errors = socket
        .execute(&diff(&observed, &plan(), &ownership()))
        .unwrap_err();
    assert!(
        matches!(&errors[..], [Error::Conflict { found, .. }] if found.contains("192.168.77.99")),
        "{errors:#?}"
    );
    let routes = shell(&netns, "ip route show");
    assert!(routes.contains("10.244.3.0/24 via 192.168.77.99"));
    assert!(routes.contains("10.244.2.0/24 via 10.244.2.0 dev pf-vxlan proto 112"));
}

#[test]
fn errors_say_which_step_and_why() {
    let (_netns, mut socket) = node();
    let mut state = State::default();
    state.insert(Route::direct(net("10.1.0.0/16"), name("nowhere")), None);
    state.insert(
        Route::via(net("10.2.0.0/16"), ip("172.31.0.1"), name("eth0")),
        None,
    );
    let steps = diff(&State::default(), &state, &ownership());
    let errors = socket.execute(&steps).unwrap_err();
    let print: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(print.len(), 2, "{print:#?}");
    assert!(
        print[0].starts_with("ip route add 10.1.0.0/16 dev nowhere"),
        "{print:#?}"
    );
    assert!(
        print[1].contains("Nexthop has invalid gateway"),
        "{print:#?}"
    );
}

#[test]
fn routes_and_forwarding_entries_move_without_a_gap() {
    let (netns, mut socket) = node();
    reach(&mut socket, &plan());
    let mut moved = plan();
    moved
        .routes
        .retain(|key, _| key.destination != net("10.244.3.0/24"));
    moved.insert(
        Route::via(net("10.244.3.0/24"), ip("10.244.2.0"), name("pf-vxlan")),
        None,
    );
    let key = moved
        .routes
        .keys()
        .find(|key| key.destination == net("10.244.3.0/24"));
    let key = key.unwrap().clone();
    moved.routes.get_mut(&key).unwrap().value.onlink = true;
    moved.fdb.clear();
    let entry = FdbEntry {
        link: name("pf-vxlan"),
        mac: Mac::new([2, 0x42, 0, 0, 0, 2]),
        destination: ip("192.168.77.22"),
    };
    moved.insert(entry, None);
    let steps = reach(&mut socket, &moved);
    let print: Vec<_> = steps.iter().map(ToString::to_string).collect();
    assert_eq!(
        print,
        [
            "bridge fdb replace 02:42:00:00:00:02 dev pf-vxlan dst 192.168.77.22 self permanent",
            "ip route replace 10.244.3.0/24 via 10.244.2.0 dev pf-vxlan proto 112 onlink",
        ]
    );
    assert_eq!(reach(&mut socket, &moved).len(), 0);
    let fdb = shell(&netns, "bridge fdb show dev pf-vxlan");
    assert!(!fdb.contains("192.168.77.12 "), "{fdb}");
}

/// Found by reading the kernel: it takes no IPv6 next hop that it would look for on another link.
#[test]
fn an_ipv6_route_moves_between_the_underlay_and_the_tunnel() {
    let (netns, mut socket) = node();
    let direct = plan();
    reach(&mut socket, &direct);
    let mut moved = plan();
    let pods = net("fd00:10:244:3::/64");
    moved.routes.retain(|key, _| key.destination != pods);
    let through = Route {
        onlink: true,
        ..Route::via(pods, ip("fd00:10:244:3::1"), name("pf-vxlan"))
    };
    moved.insert(through, None);
    for (plan, device) in [
        (&moved, "pf-vxlan"),
        (&direct, "eth0"),
        (&moved, "pf-vxlan"),
    ] {
        reach(&mut socket, plan);
        assert_eq!(reach(&mut socket, plan).len(), 0);
        let route = shell(&netns, "ip -6 route show fd00:10:244:3::/64");
        assert!(route.contains(device), "{route}");
        assert_eq!(route.lines().count(), 1, "{route}");
    }
}

#[test]
fn five_thousand_routes_take_less_than_a_second_each_way() {
    let (_netns, mut socket) = node();
    let mut plan = State::default();
    for number in 0..5000u32 {
        let destination = IpAddr::from((0x0a80_0000 + number * 256).to_be_bytes());
        let destination = IpNet::new(destination, 24).unwrap();
        plan.insert(
            Route::via(destination, ip("192.168.77.12"), name("eth0")),
            None,
        );
    }
    let start = processor_time();
    assert_eq!(reach(&mut socket, &plan).len(), 5000);
    let made = processor_time() - start;
    let start = processor_time();
    assert_eq!(reach(&mut socket, &plan).len(), 0);
    let compared = processor_time() - start;
    eprintln!("5,000 routes: made in {made:?}, compared in {compared:?}");
    assert!(made < Duration::from_secs(5) && compared < Duration::from_secs(5));
}

#[test]
fn a_veth_pair_is_made_across_namespaces() {
    let (netns, mut socket) = node();
    let pod = NetNs::create().unwrap();
    let mut near = Link::new(name("pf0"), LinkKind::Veth { peer: None });
    near.alias = Some(Alias::new("Pod default/web-1"));
    near.mac = Some(Mac::local([1; 6]));
    let mut far = Link::new(name("eth0"), LinkKind::Veth { peer: None });
    far.mac = Some(Mac::local([2; 6]));
    far.mtu = Mtu::new(1450).unwrap();
    socket.create_veth(&near, &far, Some(&pod)).unwrap();
    let found = socket.link(&near.name).unwrap().unwrap();
    assert!(found.satisfies(&near), "{found}");
    let found = Socket::open_in(&pod)
        .unwrap()
        .link(&far.name)
        .unwrap()
        .unwrap();
    assert!(found.satisfies(&far), "{found}");
    assert!(shell(&netns, "ip link show pf0").contains("link-netnsid"));
    assert!(socket.delete_link(&near.name).unwrap());
    assert!(!socket.delete_link(&near.name).unwrap());
    assert_eq!(
        Socket::open_in(&pod).unwrap().link(&far.name).unwrap(),
        None
    );
}

#[test]
fn a_link_comes_up_with_its_alias_and_settings() {
    let (netns, mut socket) = node();
    shell(&netns, "ip link add pf0 type veth peer name far1");
    shell(&netns, "ip link set far1 up");
    let set = |family, setting: &str, value: &str| {
        Sysctl::new(SysctlKey::conf(family, &name("pf0"), setting), value)
    };
    let settings = [
        set(Family::Ipv4, "rp_filter", "1"),
        set(Family::Ipv4, "send_redirects", "0"),
        set(Family::Ipv6, "addr_gen_mode", "1"),
        set(Family::Ipv6, "accept_ra", "0"),
    ];
    let read = |setting: &Sysctl| {
        let found = netns.run(|| sysctl::read(&setting.key));
        Sysctl::new(setting.key.clone(), &found.unwrap().unwrap())
    };
    for setting in &settings {
        assert_ne!(read(setting), *setting, "the test shows nothing");
    }
    let alias = Alias::new("Pod default/web-1");
    let bring_up = |socket: &mut Socket, link, settings: &[Sysctl]| {
        netns
            .run(|| socket.bring_up(&name(link), &alias, settings))
            .unwrap()
    };
    let unknown = [set(Family::Ipv4, "nonsense", "1")];
    for (link, settings) in [("pf0", &unknown[..]), ("pf1", &settings[..])] {
        assert!(bring_up(&mut socket, link, settings).is_err(), "{link}");
        assert!(!socket.link(&name("pf0")).unwrap().unwrap().up, "{link}");
    }
    bring_up(&mut socket, "pf0", &settings).unwrap();
    for setting in &settings {
        assert_eq!(read(setting), *setting);
    }
    let found = socket.link(&name("pf0")).unwrap().unwrap();
    assert!(found.up && found.alias == Some(alias.clone()), "{found}");
    // Not before it was told to have none.
    assert_eq!(shell(&netns, "ip -6 addr show dev pf0"), "");
}

#[test]
fn what_is_right_already_is_not_written_where_settings_are_read_only() {
    let netns = NetNs::create().unwrap();
    let forwarding = |value| Sysctl::new(SysctlKey::forwarding(Family::Ipv4), value);
    netns
        .run(|| {
            sysctl::write(&forwarding("1")).unwrap();
            // SAFETY: this thread alone gets mounts of its own, and ends after this.
            unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }.unwrap();
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            mount_change("/", private).unwrap();
            mount_bind("/proc/sys", "/proc/sys").unwrap();
            let read_only = MountFlags::BIND | MountFlags::RDONLY;
            mount_remount("/proc/sys", read_only, "").unwrap();
            sysctl::write(&forwarding("1")).unwrap();
            let error = sysctl::write(&forwarding("0")).unwrap_err();
            assert_eq!(error.errno(), Some(Errno::ROFS));
            assert_eq!(sysctl::read(&forwarding("0").key).unwrap(), "1");
        })
        .unwrap();
}

#[test]
fn own_addresses_are_told_from_others() {
    let (netns, mut socket) = node();
    shell(&netns, "ip route add default via 192.168.77.1");
    shell(&netns, "ip route add 192.168.77.13 dev eth0 proto 113");
    for (address, own) in [
        ("192.168.77.11", true),
        ("fd00:77::11", true),
        ("192.168.77.12", false),
        ("192.168.77.13", false),
        ("203.0.113.1", false),
        ("fd00:77::12", false),
        ("2001:db8::1", false),
    ] {
        assert_eq!(socket.is_own(ip(address)).unwrap(), own, "{address}");
    }
}

#[test]
fn a_visitor_of_a_namespace_comes_back() {
    let (home, away) = (NetNs::create().unwrap(), NetNs::create().unwrap());
    let at = |netns: &NetNs| NetNs::current().unwrap().is(netns);
    home.run(|| {
        assert!(away.visit(|| at(&away)).unwrap());
        assert!(at(&home));
        let panicked = std::panic::catch_unwind(|| away.visit(|| panic!("on purpose")));
        assert!(panicked.is_err() && at(&home));
    })
    .unwrap();
}

#[test]
fn a_link_of_the_wrong_kind_is_made_anew_and_a_changed_one_is_changed() {
    let (netns, mut socket) = node();
    shell(&netns, "ip link add pf-vxlan type bridge");
    reach(&mut socket, &plan());
    assert!(shell(&netns, "ip -d link show pf-vxlan").contains("vxlan id 4242"));
    let mut smaller = plan();
    smaller.insert(
        Link {
            mtu: Mtu::new(1300).unwrap(),
            ..vxlan_link()
        },
        None,
    );
    let steps = reach(&mut socket, &smaller);
    assert_eq!(
        steps.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["ip link set dev pf-vxlan address 02:42:00:00:00:01 mtu 1300 up alias \"Node node-1\""]
    );
    assert!(shell(&netns, "ip link show pf-vxlan").contains("mtu 1300"));
}

#[test]
fn facts_name_the_interface_of_the_nodes_addresses() {
    let (_netns, mut socket) = node();
    let state = socket.observe(&[]).unwrap();
    let facts = NodeFacts::of(
        &state,
        &[ip("fd00:77::11"), ip("192.168.77.11"), ip("1.2.3.4")],
    );
    assert_eq!(
        facts.iter().map(|fact| fact.prefix).collect::<Vec<_>>(),
        [net("fd00:77::11/64"), net("192.168.77.11/24")]
    );
    assert!(
        facts
            .iter()
            .all(|fact| fact.interface == name("eth0") && fact.mtu == Mtu::ETHERNET)
    );
}

#[test]
fn namespaces_are_named_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pod");
    let netns = NetNs::create_at(&path).unwrap();
    assert!(NetNs::open(&path).unwrap().is(&netns));
    assert!(!NetNs::current().unwrap().is(&netns));
    assert!(netns.run(|| NetNs::current().unwrap().is(&netns)).unwrap());
    let again = NetNs::create_at(&path).unwrap_err();
    assert_eq!(again.errno(), Some(rustix::io::Errno::EXIST));
    NetNs::remove(&path).unwrap();
    NetNs::remove(&path).unwrap();
    assert!(!path.exists());
    assert!(NetNs::open(&path).is_err());
}

#[test]
fn protocol_numbers_are_ours() {
    let table = std::fs::read_to_string("/etc/iproute2/rt_protos")
        .or_else(|_| std::fs::read_to_string("/usr/share/iproute2/rt_protos"))
        .unwrap();
    for protocol in [RouteProtocol::PARFAIT, RouteProtocol::PARFAIT_CNI] {
        let taken = table
            .lines()
            .any(|line| line.split_whitespace().next() == Some(&protocol.0.to_string()));
        assert!(!taken, "{protocol} is in rt_protos");
    }
}

#[test]
fn both_ends_of_a_veth_pair_have_one_queue_as_they_use() {
    let (netns, mut socket) = node();
    let [near, far] = ["pf0", "pf1"].map(|end| Link::new(name(end), LinkKind::Veth { peer: None }));
    socket.create_veth(&near, &far, None).unwrap();
    for end in ["pf0", "pf1"] {
        let shown = shell(&netns, &format!("ip -d link show {end}"));
        let one = shown.contains("numtxqueues 1 ") && shown.contains("numrxqueues 1 ");
        assert!(one, "{shown}");
    }
}

#[test]
fn a_link_is_gone_when_its_removal_returns_and_only_if_it_is_the_one_that_was_meant() {
    let (netns, mut socket) = node();
    let mut near = Link::new(name("pf0"), LinkKind::Veth { peer: None });
    near.mac = Some(Mac::local([1; 6]));
    let far = Link::new(name("pf1"), LinkKind::Veth { peer: None });
    let (ours, other) = (Mac::local([1; 6]), Mac::local([9; 6]));
    for _ in 0..3 {
        socket.create_veth(&near, &far, None).unwrap();
        assert!(!socket.delete_link_soon(&near.name, other).unwrap());
        assert!(!socket.delete_link_with(&near.name, other).unwrap());
        let start = Instant::now();
        assert!(socket.delete_link_soon(&near.name, ours).unwrap());
        eprintln!("removed in {:?}", start.elapsed());
        assert!(
            shell(&netns, "ip link show")
                .lines()
                .all(|line| !line.contains("pf0"))
        );
        // The late answer to the removal confuses no later question.
        assert_eq!(socket.link(&near.name).unwrap(), None);
        assert!(!socket.delete_link_soon(&near.name, ours).unwrap());
    }
}

#[test]
fn an_address_of_ours_on_the_loopback_goes_when_it_is_no_longer_wanted() {
    let (netns, mut socket) = node();
    shell(&netns, "ip addr add 10.9.9.9/32 dev lo");
    let mut desired = State::default();
    for text in ["10.96.0.10/32", "fd00:10:96::a/128"] {
        let mut address = Address::new(IfName::loopback(), net(text));
        address.scope = parfait_linux::Scope::Host;
        address.protocol = Some(RouteProtocol::PARFAIT);
        desired.insert(address, None);
    }
    assert_eq!(reach(&mut socket, &desired).len(), 2);
    assert_eq!(reach(&mut socket, &desired), [], "nothing is left to do");
    let observed = socket.observe(&[]).unwrap();
    for (key, item) in &desired.addresses {
        let found = &observed.addresses[key].value;
        assert_eq!(found.protocol, item.value.protocol, "{found}");
    }
    reach(&mut socket, &State::default());
    let left = shell(&netns, "ip addr show dev lo");
    assert!(left.contains("10.9.9.9/32"), "{left}");
    assert!(
        !left.contains("10.96.0.10") && !left.contains("fd00:10:96::a"),
        "{left}"
    );
}
