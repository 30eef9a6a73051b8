//! How large a packet may be, tried with real ones: on underlays of 9000, 1500, 1400 and 1280 bytes, direct
//! and through the tunnel, over IPv4 and IPv6 outside and inside. What fits arrives; what does not is
//! answered by ICMP, never by silence; and TCP finds its size by itself. And nodes track what the tunnel carries, not
//! the tunnel's own packets.
//!
//! ```text
//!   pod a ══ pf… ┌ node-1 ┐ eth0 ══ ┐        ┌ ══ eth0 ┌ node-2 ┐ pf… ══ pod b
//!                                   └ fabric ┘
//!                                       └══ narrow link of 1300 bytes ══ outside
//! ```
//!
//! Needs root (or a user namespace), `ip`, `ping` and `sysctl`.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

#[path = "../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::process::Command;
use std::time::Duration;

use parfait_agent::Machine;
use parfait_cluster::Snapshot;
use parfait_join::NodePlan;
use parfait_kernel::NetNs;
use parfait_kernel::conntrack::Filter;
use parfait_kernel::nft::NftSocket;
use parfait_packet::Family;

/// Of the link to the world outside.
const OUTSIDE_MTU: u32 = 1300;

/// One underlay to try.
#[derive(Clone, Copy, Debug)]
struct Case {
    mtu: u32,
    /// Of the second node.
    second: u32,
    routing: &'static str,
    /// Of the tunnel: IPv6 where nodes have no other address.
    outer: Family,
    /// Those of pods.
    inner: &'static [Family],
    /// The largest packet between pods.
    largest: u32,
}

const fn case(
    mtu: u32,
    routing: &'static str,
    outer: Family,
    inner: &'static [Family],
    largest: u32,
) -> Case {
    Case {
        mtu,
        second: mtu,
        routing,
        outer,
        inner,
        largest,
    }
}

impl Case {
    /// The underlay's MTU at this node.
    const fn of(&self, number: usize) -> u32 {
        if number == 1 { self.mtu } else { self.second }
    }
}

const BOTH: &[Family] = &Family::ALL;
const V4: &[Family] = &[Family::Ipv4];

const CASES: [Case; 11] = [
    case(9000, "direct", Family::Ipv4, BOTH, 9000),
    case(9000, "vxlan", Family::Ipv4, BOTH, 8950),
    case(9000, "vxlan", Family::Ipv6, BOTH, 8930),
    case(1500, "vxlan", Family::Ipv6, BOTH, 1430),
    case(1400, "direct", Family::Ipv4, BOTH, 1400),
    case(1400, "vxlan", Family::Ipv4, BOTH, 1350),
    case(1400, "vxlan", Family::Ipv6, BOTH, 1330),
    case(1280, "direct", Family::Ipv4, BOTH, 1280),
    // IPv6 needs 1280 bytes (RFC 8200 section 5): the outer packets are cut, if they are IPv4.
    case(1280, "vxlan", Family::Ipv4, BOTH, 1280),
    case(1280, "vxlan", Family::Ipv4, V4, 1230),
    case(1280, "vxlan", Family::Ipv6, V4, 1210),
];

/// One node's card takes less than the other's.
const MIXED: [Case; 4] = [
    mixed(1500, case(9000, "direct", Family::Ipv4, BOTH, 1500)),
    mixed(1500, case(9000, "vxlan", Family::Ipv4, BOTH, 1450)),
    mixed(1400, case(1500, "vxlan", Family::Ipv6, BOTH, 1330)),
    mixed(1400, case(1500, "direct", Family::Ipv4, V4, 1400)),
];

const fn mixed(second: u32, case: Case) -> Case {
    Case { second, ..case }
}

struct Net {
    snapshot: Snapshot,
    fabric: NetNs,
    outside: NetNs,
    nodes: [NetNs; 2],
    pods: [NetNs; 2],
}

impl Net {
    /// `None`, said aloud, where namespaces are not allowed.
    fn new(test: &str, case: Case) -> Option<Self> {
        let space = || NetNs::create();
        let spaces = || -> Result<_, parfait_kernel::Error> {
            let (fabric, outside) = (space()?, space()?);
            Ok((fabric, outside, [space()?, space()?], [space()?, space()?]))
        };
        let (fabric, outside, nodes, pods) = match spaces() {
            Ok(spaces) => spaces,
            Err(error) => {
                let mut stderr = std::io::stderr();
                let _ = writeln!(stderr, "SKIP: {test}: {error}");
                return None;
            }
        };
        let net = Self {
            snapshot: fixture::cluster(&cluster(case)),
            fabric,
            outside,
            nodes,
            pods,
        };
        net.cable(case);
        for number in [1, 2] {
            net.attach(number, case);
            net.carry_out(number);
        }
        Some(net)
    }

    fn cable(&self, case: Case) {
        let mtu = case.mtu;
        let router = "sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
             sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
             ip link set lo up";
        sh(
            &self.fabric,
            &format!("{router}; ip link add br0 mtu {mtu} type bridge; ip link set br0 up"),
        );
        sh(
            &self.outside,
            "ip link set lo up; sysctl -qw net.ipv6.conf.default.accept_dad=0",
        );
        for (number, node) in (1..).zip(&self.nodes) {
            let mtu = case.of(number);
            sh(
                node,
                "sysctl -qw net.ipv6.conf.default.accept_dad=0; ip link set lo up",
            );
            sh(
                &self.fabric,
                &format!(
                    "ip link add n{number} mtu {mtu} type veth peer name eth0 mtu {mtu} netns {}
                     ip link set n{number} master br0 up",
                    path(node)
                ),
            );
            sh(
                node,
                &format!(
                    "ip link set eth0 up; ip addr add fd00:77::1{number}/64 dev eth0
                     ip -6 route add default via fd00:77::1"
                ),
            );
            if case.outer == Family::Ipv4 {
                sh(
                    node,
                    &format!(
                        "ip addr add 192.168.77.1{number}/24 dev eth0
                         ip route add default via 192.168.77.1"
                    ),
                );
            }
        }
        sh(
            &self.fabric,
            &format!(
                "ip link set br0 mtu {mtu}
                 ip addr add 192.168.77.1/24 dev br0; ip addr add fd00:77::1/64 dev br0
                 ip link add up0 mtu 9000 type veth peer name eth0 mtu 9000 netns {}
                 ip link set up0 up; ip addr add 192.0.2.1/24 dev up0; ip addr add 2001:db8::1/64 dev up0",
                path(&self.outside)
            ),
        );
        sh(
            &self.outside,
            "ip link set eth0 up; ip addr add 192.0.2.2/24 dev eth0; ip addr add 2001:db8::2/64 dev eth0
             ip route add default via 192.0.2.1; ip -6 route add default via 2001:db8::1",
        );
    }

    /// As the CNI plugin does.
    fn attach(&self, number: usize, case: Case) {
        let plan = NodePlan::new(&self.snapshot, &format!("node-{number}"));
        let mtu = plan.link.pod_mtu.unwrap();
        if case.of(number) == case.mtu.min(case.second) {
            assert_eq!(mtu.bytes(), case.largest, "{case:?}");
        }
        let attachment = &plan.link.attachments[0];
        let (name, mac, pod_mac) = (&attachment.interface, attachment.mac, attachment.pod_mac);
        let pod = &self.pods[number - 1];
        sh(
            &self.nodes[number - 1],
            &format!(
                "ip link add {name} address {mac} mtu {mtu} type veth peer name eth0 mtu {mtu} address {pod_mac} netns {}
                 ip link set {name} up",
                path(pod)
            ),
        );
        sh(
            pod,
            &format!(
                "sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.eth0.accept_dad=0 || true
                 ip link set lo up; ip link set eth0 up
                 ip addr add 10.244.{number}.2/32 dev eth0
                 ip neigh add 169.254.1.1 lladdr {mac} dev eth0 nud permanent
                 ip route add 169.254.1.1 dev eth0; ip route add default via 169.254.1.1 dev eth0"
            ),
        );
        if case.inner.contains(&Family::Ipv6) {
            sh(
                pod,
                &format!(
                    "ip addr add fd00:10:244:{number}::2/128 dev eth0 nodad
                     ip neigh add fe80::1 lladdr {mac} dev eth0 nud permanent
                     ip -6 route add default via fe80::1 dev eth0"
                ),
            );
        }
    }

    fn carry_out(&self, number: usize) {
        let plan = NodePlan::new(&self.snapshot, &format!("node-{number}"));
        let desired = plan.state();
        let sync = || Machine::open().unwrap().sync(&desired).map(drop);
        self.nodes[number - 1].run(sync).unwrap().unwrap();
    }

    /// The pods keep interfaces that are larger than their path by now is.
    fn widen_pods(&self, bytes: u32) {
        for (number, (node, pod)) in (1..).zip(self.nodes.iter().zip(&self.pods)) {
            let plan = NodePlan::new(&self.snapshot, &format!("node-{number}"));
            let name = &plan.link.attachments[0].interface;
            sh(node, &format!("ip link set {name} mtu {bytes}"));
            sh(pod, &format!("ip link set eth0 mtu {bytes}"));
        }
    }
}

fn cluster(case: Case) -> String {
    let pick = |v4: &str, v6: &str, families: &[Family]| {
        let all = families.iter().map(|family| match family {
            Family::Ipv4 => v4.to_owned(),
            Family::Ipv6 => v6.to_owned(),
        });
        all.collect::<Vec<_>>().join(",")
    };
    let outer: &[Family] = match case.outer {
        Family::Ipv4 => &[Family::Ipv4, Family::Ipv6],
        Family::Ipv6 => &[Family::Ipv6],
    };
    let mut text = format!(
        "config routing={} clusterCIDRs={} serviceCIDRs=10.96.0.0/16\n",
        case.routing,
        pick("10.244.0.0/16", "fd00:10:244::/56", case.inner)
    );
    for number in [1, 2] {
        let cidrs = pick(
            &format!("10.244.{number}.0/24"),
            &format!("fd00:10:244:{number}::/64"),
            case.inner,
        );
        let addresses = pick(
            &format!("192.168.77.1{number}/24"),
            &format!("fd00:77::1{number}/64"),
            outer,
        );
        let own = pick(
            &format!("10.244.{number}.2"),
            &format!("fd00:10:244:{number}::2"),
            case.inner,
        );
        text += &format!(
            "node node-{number} pods={cidrs} underlay={addresses} gateway={} mtu={}\n",
            pick("192.168.77.1", "fd00:77::1", outer),
            case.of(number)
        );
        text += &format!("pod p{number} on=node-{number} ip={own}\n");
    }
    text
}

fn path(netns: &NetNs) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd())
}

fn sh(netns: &NetNs, script: &str) {
    let run = || Command::new("sh").args(["-ec", script]).output().unwrap();
    let output = netns.run(run).unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {error}");
}

/// What `ping` says to one packet of this size, header included, that must not be cut.
fn ping(from: &NetNs, to: &str, bytes: u32) -> String {
    let headers = if to.contains(':') { 48 } else { 28 };
    let size = (bytes - headers).to_string();
    let run = || {
        let mut ping = Command::new("ping");
        ping.args(["-n", "-c", "1", "-W", "2", "-M", "do", "-s", &size, to]);
        ping.output().unwrap()
    };
    let output = from.run(run).unwrap();
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

fn pod_address(number: u8, family: Family) -> String {
    match family {
        Family::Ipv4 => format!("10.244.{number}.2"),
        Family::Ipv6 => format!("fd00:10:244:{number}::2"),
    }
}

fn arrives(from: &NetNs, to: &str, bytes: u32, case: Case) {
    let said = ping(from, to, bytes);
    assert!(
        said.contains(" 1 received"),
        "{bytes} bytes to {to} on {case:?}: {said}"
    );
}

/// The sender hears of the size: from its own kernel, or from somebody on the way, whose address it is.
fn is_told(from: &NetNs, to: &str, bytes: u32, mtu: u32, teller: Option<&str>, case: Case) {
    let said = ping(from, to, bytes);
    let size = said.replace("mtu = ", "mtu=").replace("mtu: ", "mtu=");
    let heard = match teller {
        None => size.contains("essage too long"),
        Some(teller) => size
            .to_lowercase()
            .contains(&format!("from {teller} icmp_seq=1")),
    };
    assert!(
        heard && size.contains(&format!("mtu={mtu}")),
        "{bytes} bytes to {to} on {case:?} should be told {mtu} by {teller:?}: {said}"
    );
}

#[test]
fn what_fits_arrives_and_what_does_not_is_told() {
    for case in CASES {
        let Some(net) = Net::new("what_fits_arrives_and_what_does_not_is_told", case) else {
            return;
        };
        for family in case.inner {
            let to = pod_address(2, *family);
            for bytes in [100, 1200, case.largest] {
                arrives(&net.pods[0], &to, bytes, case);
            }
            is_told(
                &net.pods[0],
                &to,
                case.largest + 1,
                case.largest,
                None,
                case,
            );
        }
    }
}

#[test]
fn a_pod_with_a_larger_interface_than_its_path_is_told_by_its_node() {
    for case in CASES {
        let test = "a_pod_with_a_larger_interface_than_its_path_is_told_by_its_node";
        let Some(net) = Net::new(test, case) else {
            return;
        };
        net.widen_pods(16_000);
        for family in case.inner {
            let to = pod_address(2, *family);
            // A node without an address of the family has the one at its end of the tunnel.
            let node = match (family, case.outer) {
                (Family::Ipv4, Family::Ipv4) => "192.168.77.11",
                (Family::Ipv4, Family::Ipv6) => "10.244.1.1",
                (Family::Ipv6, _) => "fd00:77::11",
            };
            for bytes in [case.largest + 1, case.largest + 3000] {
                sh(
                    &net.pods[0],
                    "ip route flush cache; ip -6 route flush cache",
                );
                is_told(&net.pods[0], &to, bytes, case.largest, Some(node), case);
            }
            arrives(&net.pods[0], &to, case.largest, case);
            // TCP sends what its interface takes, hears of the path, and goes on.
            sh(
                &net.pods[0],
                "ip route flush cache; ip -6 route flush cache",
            );
            transfer(&net.pods[0], &net.pods[1], &to, case);
        }
    }
}

#[test]
fn a_node_tells_what_its_peers_card_would_drop_unheard() {
    for case in MIXED {
        let test = "a_node_tells_what_its_peers_card_would_drop_unheard";
        let Some(net) = Net::new(test, case) else {
            return;
        };
        for family in case.inner {
            let (there, back) = (pod_address(2, *family), pod_address(1, *family));
            let node = match (family, case.outer) {
                (Family::Ipv4, Family::Ipv4) => "192.168.77.11",
                (Family::Ipv4, Family::Ipv6) => "10.244.1.1",
                (Family::Ipv6, _) => "fd00:77::11",
            };
            let more = case.largest + 1;
            is_told(&net.pods[0], &there, more, case.largest, Some(node), case);
            arrives(&net.pods[0], &there, case.largest, case);
            is_told(&net.pods[1], &back, more, case.largest, None, case);
            let flush = "ip route flush cache; ip -6 route flush cache";
            sh(&net.pods[0], flush);
            transfer(&net.pods[0], &net.pods[1], &there, case);
            transfer(&net.pods[1], &net.pods[0], &back, case);
            // The node's own packets as well.
            transfer(&net.nodes[0], &net.pods[1], &there, case);
        }
    }
}

#[test]
fn outside_a_router_on_the_way_tells_the_pod_through_the_masquerade() {
    for case in CASES.into_iter().filter(|case| case.mtu > OUTSIDE_MTU) {
        let test = "outside_a_router_on_the_way_tells_the_pod_through_the_masquerade";
        let Some(net) = Net::new(test, case) else {
            return;
        };
        sh(&net.fabric, &format!("ip link set up0 mtu {OUTSIDE_MTU}"));
        let reaches = |family: &&Family| case.outer == Family::Ipv4 || **family == Family::Ipv6;
        for family in case.inner.iter().filter(reaches) {
            let (to, router) = match family {
                Family::Ipv4 => ("192.0.2.2", "192.168.77.1"),
                Family::Ipv6 => ("2001:db8::2", "fd00:77::1"),
            };
            arrives(&net.pods[0], to, OUTSIDE_MTU, case);
            let more = OUTSIDE_MTU + 20;
            is_told(&net.pods[0], to, more, OUTSIDE_MTU, Some(router), case);
            sh(
                &net.pods[0],
                "ip route flush cache; ip -6 route flush cache",
            );
            transfer(&net.pods[0], &net.outside, to, case);
        }
    }
}

#[test]
fn the_tunnels_own_packets_are_of_no_connection() {
    let tunnelled = |case: &Case| (case.mtu, case.routing) == (9000, "vxlan");
    for case in CASES.into_iter().filter(tunnelled) {
        let Some(net) = Net::new("the_tunnels_own_packets_are_of_no_connection", case) else {
            return;
        };
        let to = pod_address(2, Family::Ipv4);
        transfer(&net.pods[0], &net.pods[1], &to, case);
        let there = format!("{to}:");
        for node in &net.nodes {
            let listed = || NftSocket::open()?.connections(&Filter::default());
            let entries = node.run(listed).unwrap().unwrap();
            let sent_to: Vec<String> = entries
                .iter()
                .map(|entry| entry.original.destination.to_string())
                .collect();
            assert!(
                sent_to.iter().any(|to| to.starts_with(&there)),
                "what it carries is tracked: {sent_to:?}"
            );
            assert!(
                !sent_to.iter().any(|to| to.ends_with(":4789")),
                "{case:?}: {sent_to:?}"
            );
        }
    }
}

/// Sends as much as takes many packets, and waits until the other side has it all.
fn transfer(from: &NetNs, to: &NetNs, address: &str, case: Case) {
    const BYTES: usize = 1 << 20;
    let address: IpAddr = address.parse().unwrap();
    let listener = to
        .run(|| TcpListener::bind(SocketAddr::new(address, 0)).unwrap())
        .unwrap();
    let at = listener.local_addr().unwrap();
    std::thread::scope(|scope| {
        let received = scope.spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream
                .set_read_timeout(Some(Duration::from_secs(20)))
                .unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).map(|_| all.len())
        });
        from.run(|| {
            let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(10)).unwrap();
            stream
                .set_write_timeout(Some(Duration::from_secs(20)))
                .unwrap();
            stream.write_all(&vec![7; BYTES]).unwrap();
        })
        .unwrap();
        let received = received.join().unwrap();
        assert_eq!(received.ok(), Some(BYTES), "to {at} on {case:?}");
    });
}
