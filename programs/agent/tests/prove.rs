//! Prove finds what is broken: a node's plan is carried out in a real network namespace, one thing is
//! broken as an operator or another program would break it, and the proof must name it, alone with what
//! follows from it, and for whom it was there.
//!
//! ```text
//!   pod: eth0 ══ pf… ┌ node ┐ eth0 ══ far   (192.168.77.0/24; node-2 there, node-3 behind the tunnel)
//! ```
//!
//! Needs root (or a user namespace), `ip`, `bridge`, `sysctl` and `nft`.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

#[path = "prove/balancer.rs"]
mod balancer;
#[path = "../../../model/cluster/tests/fixture/balancers.rs"]
mod balancers;
#[path = "../../../edges/kernel/tests/support/broken_packets.rs"]
mod broken_packets;
#[path = "../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;
#[path = "prove/policies.rs"]
mod policies;
#[path = "prove/sets.rs"]
mod sets;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::Command;

use parfait_agent::{Machine, Upkeep};
use parfait_cluster::Snapshot;
use parfait_join::{NodePlan, Observed, prove};
use parfait_kernel::nft::NftSocket;
use parfait_kernel::{NetNs, Socket, offload};
use parfait_linux::IfName;
use parfait_linux::attachment::{host_interface, tunnel_mac};
use parfait_packet::Finding;

/// A node whose plan is carried out, with the namespace of its pod `client`.
struct Broken {
    snapshot: Snapshot,
    node: NetNs,
    pod: NetNs,
}

impl Broken {
    /// `None`, said aloud, where namespaces are not allowed.
    fn new(test: &str, more: &str) -> Option<Self> {
        let spaces = NetNs::create().and_then(|node| Ok((node, NetNs::create()?)));
        let (node, pod) = match spaces {
            Ok(spaces) => spaces,
            Err(error) => {
                let mut stderr = std::io::stderr();
                let _ = writeln!(stderr, "SKIP: {test}: {error}");
                return None;
            }
        };
        let snapshot = fixture::clusters(&[fixture::DUAL, more]);
        let broken = Self {
            snapshot,
            node,
            pod,
        };
        broken.sh("ip link set lo up
             sysctl -qw net.ipv6.conf.default.accept_dad=0
             ip link add eth0 type veth peer name far
             ip link set far up
             ip link set eth0 up
             ip addr add 192.168.77.11/24 dev eth0
             ip addr add fd00:77::11/64 dev eth0
             ip route add default via 192.168.77.1
             ip -6 route add default via fd00:77::1");
        let plan = broken.plan();
        for attachment in &plan.link.attachments {
            let (name, mac) = (&attachment.interface, attachment.mac);
            let mtu = plan.link.pod_mtu.unwrap();
            let peer = format!("peer-{}", attachment.pod.name);
            broken.sh(&format!(
                "ip link add {name} address {mac} mtu {mtu} type veth peer name {peer}
                 ip link set {name} up
                 ip link set {peer} up"
            ));
        }
        broken.to_pod("peer-client");
        broken.repair();
        assert_eq!(broken.found(), [], "nothing is broken yet");
        Some(broken)
    }

    /// Moves one end of a cable to where the pod is.
    fn to_pod(&self, link: &str) {
        use std::os::fd::AsRawFd as _;
        let fd = self.pod.as_raw_fd();
        let own = std::process::id();
        self.sh(&format!("ip link set {link} netns /proc/{own}/fd/{fd}"));
        inside(&self.pod, &format!("ip link set {link} name eth0 up"));
    }

    fn plan(&self) -> NodePlan {
        NodePlan::new(&self.snapshot, "node-1")
    }

    fn sh(&self, script: &str) {
        inside(&self.node, script);
    }

    /// What the agent does when it looks again.
    fn repair(&self) {
        let desired = self.plan().state();
        let sync = || Machine::open().unwrap().sync(&desired).map(drop);
        self.node.run(sync).unwrap().unwrap();
    }

    fn found(&self) -> Vec<Finding> {
        let plan = self.plan();
        let sysctls: Vec<_> = plan.state().sysctls.keys().cloned().collect();
        let observe = || {
            let mut netfilter = NftSocket::open().unwrap();
            let mut state = Socket::open().unwrap().observe(&sysctls).unwrap();
            state.tables = netfilter.observe_all().unwrap().tables;
            let handles = netfilter.handles().unwrap();
            Observed {
                state,
                handles,
                offload: Some(offload::observe(&IfName::new("eth0").unwrap())),
            }
        };
        let observed = self.node.run(observe).unwrap();
        prove(&self.snapshot, &plan, &observed)
    }

    /// The proof has one finding of this code, that begins so and is there for this object.
    fn finds(&self, code: &str, item: &str, origin: &str) {
        let found = self.found();
        let matching = found.iter().filter(|finding| {
            let of = finding.origin.as_ref().map(ToString::to_string);
            finding.fault.code() == code
                && finding.item.contains(item)
                && of.unwrap_or_default().contains(origin)
        });
        let text: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(
            matching.count(),
            1,
            "{code} {item} [{origin}] in\n{}",
            text.join("\n")
        );
    }
}

fn inside(netns: &NetNs, script: &str) {
    let run = || {
        let mut shell = Command::new("sh");
        shell.args(["-ec", script]).output().unwrap()
    };
    let output = netns.run(run).unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {error}");
}

/// Breaks one thing after the other, each in a node of its own. The agent's next look repairs it.
fn each(test: &str, repaired: bool, breaks: &[(&str, &str, &str, &str)]) {
    for (script, code, item, origin) in breaks {
        let Some(node) = Broken::new(test, "") else {
            return;
        };
        node.sh(&named(script));
        node.finds(code, &named(item), origin);
        if repaired {
            node.repair();
            assert_eq!(node.found(), [], "after the repair of {script}");
        }
    }
}

/// `CLIENT` stands for the pod's interface, `MAC3` for the Ethernet address of node-3's tunnel.
fn named(text: &str) -> String {
    text.replace("CLIENT", host_interface("default", "client").as_str())
        .replace("MAC3", &tunnel_mac("node-3").to_string())
}

#[test]
fn a_broken_link_neighbour_or_forwarding_entry_is_found() {
    let test = "a_broken_link_neighbour_or_forwarding_entry_is_found";
    each(
        test,
        true,
        &[
            ("ip link del pf-vxlan", "PF151", "pf-vxlan:", "Node node-1"),
            (
                "ip link set pf-vxlan down",
                "PF152",
                "pf-vxlan:",
                "Node node-1",
            ),
            (
                "ip link set pf-vxlan mtu 1400",
                "PF153",
                "pf-vxlan: address",
                "Node node-1",
            ),
            (
                "ip link set pf-vxlan address 02:00:00:00:00:01",
                "PF154",
                "pf-vxlan:",
                "Node node-1",
            ),
            (
                "ip neigh del 10.244.3.1 dev pf-vxlan",
                "PF157",
                "10.244.3.1 dev pf-vxlan lladdr MAC3",
                "Node node-3",
            ),
            (
                "ip neigh replace 10.244.3.1 dev pf-vxlan lladdr 02:00:00:00:00:01 nud permanent",
                "PF158",
                "10.244.3.1 dev pf-vxlan lladdr MAC3",
                "Node node-3",
            ),
            (
                "ip neigh add 10.244.9.1 dev pf-vxlan lladdr 02:00:00:00:00:01 nud permanent",
                "PF159",
                "10.244.9.1 dev pf-vxlan",
                "",
            ),
            (
                "bridge fdb del MAC3 dev pf-vxlan dst 192.168.88.13",
                "PF160",
                "MAC3 dev pf-vxlan dst 192.168.88.13",
                "Node node-3",
            ),
            (
                "bridge fdb add 02:00:00:00:00:01 dev pf-vxlan dst 192.168.88.99 self permanent",
                "PF161",
                "dst 192.168.88.99",
                "",
            ),
            (
                "ip neigh replace 10.244.1.2 dev CLIENT lladdr 02:00:00:00:00:01 nud permanent",
                "PF158",
                "10.244.1.2 dev CLIENT",
                "Pod default/client",
            ),
        ],
    );
}

#[test]
fn a_link_that_the_agent_does_not_own_is_found_too() {
    let test = "a_link_that_the_agent_does_not_own_is_found_too";
    each(
        test,
        false,
        &[
            (
                "ip link set CLIENT mtu 1300",
                "PF153",
                "CLIENT:",
                "Pod default/client",
            ),
            (
                "ip link set CLIENT down",
                "PF152",
                "CLIENT:",
                "Pod default/client",
            ),
            (
                "ip link del CLIENT",
                "PF151",
                "CLIENT:",
                "Pod default/client",
            ),
            (
                "ip link add pf0123456789ab type veth peer name gone",
                "PF155",
                "pf0123456789ab:",
                "",
            ),
            (
                "ip link set eth0 mtu 1400",
                "PF153",
                "eth0: mtu 1500",
                "Node node-1",
            ),
            (
                "ip link set eth0 down",
                "PF152",
                "eth0: mtu 1500",
                "Node node-1",
            ),
            (
                "ip link set far down",
                "PF152",
                "eth0: mtu 1500",
                "Node node-1",
            ),
            (
                "ip addr del 192.168.77.11/24 dev eth0",
                "PF156",
                "192.168.77.11/24 dev eth0",
                "Node node-1",
            ),
        ],
    );
    let Some(node) = Broken::new(test, "") else {
        return;
    };
    inside(&node.pod, "ip link set eth0 down");
    node.finds("PF152", &named("CLIENT:"), "Pod default/client");
}

#[test]
fn a_broken_route_address_or_setting_is_found() {
    let test = "a_broken_route_address_or_setting_is_found";
    each(
        test,
        true,
        &[
            (
                "ip route del 10.244.2.0/24",
                "PF251",
                "10.244.2.0/24 via 192.168.77.12 dev eth0",
                "Node node-2 spec.podCIDRs",
            ),
            (
                "ip -6 route del fd00:10:244:3::/64",
                "PF251",
                "fd00:10:244:3::/64 via",
                "Node node-3 spec.podCIDRs",
            ),
            (
                "ip route del 10.244.1.2",
                "PF251",
                "10.244.1.2 dev CLIENT",
                "Pod default/client",
            ),
            (
                "ip route replace 10.244.2.0/24 via 192.168.77.66 proto 112",
                "PF252",
                "10.244.2.0/24 via 192.168.77.12 dev eth0",
                "Node node-2",
            ),
            (
                "ip route add 10.244.9.0/24 via 192.168.77.66 proto 112",
                "PF253",
                "10.244.9.0/24 via 192.168.77.66",
                "",
            ),
            (
                "ip addr del 10.244.1.1/32 dev pf-vxlan",
                "PF255",
                "10.244.1.1/32",
                "Node node-1",
            ),
            (
                "sysctl -qw net.ipv4.ip_forward=0",
                "PF259",
                "net.ipv4.ip_forward = 1",
                "Parfait forwarding",
            ),
            (
                "sysctl -qw net.ipv6.conf.all.forwarding=0",
                "PF259",
                "net.ipv6.conf.all.forwarding = 1",
                "Parfait forwarding",
            ),
            (
                "nft delete table ip6 parfait",
                "PF260",
                "table ip6 parfait",
                "",
            ),
        ],
    );
}

/// It would be taken for a source.
#[test]
fn an_address_of_cluster_dns_with_another_scope_is_found() {
    let test = "an_address_of_cluster_dns_with_another_scope_is_found";
    let dns = "service kube-system/kube-dns ip=10.96.0.10 ports=dns:53/UDP servedByNode";
    let Some(node) = Broken::new(test, dns) else {
        return;
    };
    node.sh("ip addr del 10.96.0.10/32 dev lo
         ip addr add 10.96.0.10/32 dev lo scope global");
    let item = "inet 10.96.0.10/32 scope host";
    node.finds("PF256", item, "Service kube-system/kube-dns");
    // It is another program's, which the agent does not take away.
    node.sh("ip addr del 10.96.0.10/32 dev lo");
    node.repair();
    assert_eq!(node.found(), [], "after the repair");
}

#[test]
fn a_card_that_spoils_the_tunnels_packets_is_found() {
    let Some(node) = Broken::new("a_card_that_spoils_the_tunnels_packets_is_found", "") else {
        return;
    };
    let send = |count| node.node.run(|| broken_packets::send(count)).unwrap();
    send(9);
    assert_eq!(node.found(), [], "so few may come from anywhere");
    send(1);
    node.finds(
        "PF162",
        "eth0: 10 UDP packets with wrong checksums",
        "Node node-1",
    );
}

#[test]
fn what_others_add_in_the_way_is_found() {
    let test = "what_others_add_in_the_way_is_found";
    each(
        test,
        false,
        &[
            (
                "ip route add 10.244.2.128/25 via 192.168.77.1",
                "PF254",
                "10.244.2.128/25 via 192.168.77.1",
                "Node node-2",
            ),
            (
                "ip route add blackhole 10.244.1.128/25",
                "PF254",
                "blackhole 10.244.1.128/25",
                "Node node-1",
            ),
            // In the pod range, but no pod: nobody could ever be given it.
            (
                "ip addr add 10.244.1.77/32 dev lo",
                "PF257",
                "10.244.1.77/32 scope global lo",
                "Node node-1 spec.podCIDRs",
            ),
            (
                "ip addr add 10.244.2.2/32 dev eth0",
                "PF257",
                "10.244.2.2/32 scope global eth0",
                "Pod default/web-2",
            ),
            (
                "ip addr add fd00:10:244:1::2/128 dev far",
                "PF257",
                "fd00:10:244:1::2/128",
                "Pod default/client",
            ),
            (
                "ip addr add 192.168.77.11/32 dev lo",
                "PF258",
                "192.168.77.11",
                "Node node-1",
            ),
            (
                "ip addr add 10.9.9.9/32 dev CLIENT",
                "PF257",
                "10.9.9.9/32",
                "",
            ),
        ],
    );
}

#[test]
fn an_address_that_two_have_is_found() {
    let test = "an_address_that_two_have_is_found";
    let twice = [
        (
            "pod twin on=node-2 ip=10.244.1.2",
            "10.244.1.2",
            "Pod default/client",
        ),
        (
            "node node-4 pods=10.244.4.0/24 underlay=192.168.77.11/24 gateway=192.168.77.1",
            "192.168.77.11",
            "Node node-1",
        ),
        (
            "node node-4 pods=10.244.1.128/25 underlay=192.168.77.14/24 gateway=192.168.77.1",
            "10.244.1.0/24",
            "Node node-4 spec.podCIDRs",
        ),
    ];
    for (line, item, origin) in twice {
        let Some(mut node) = Broken::new(test, "") else {
            return;
        };
        node.snapshot = fixture::clusters(&[fixture::DUAL, line]);
        node.finds("PF258", item, origin);
    }
}

/// Tables of other programs, and how the rule that stops pods is named.
const TABLES: [(&str, &str, &str); 7] = [
    // A container engine's.
    (
        "table ip filter {
           chain FORWARD {
             type filter hook forward priority 0; policy drop
           }
         }",
        "PF352",
        "table ip filter chain FORWARD: policy drop",
    ),
    // A firewall's.
    (
        "table inet firewalld {
           chain allow { ct state established accept; }
           chain filter_FORWARD {
             type filter hook forward priority 10; policy accept;
             jump allow
             reject with icmpx admin-prohibited
           }
         }",
        "PF352",
        "table inet firewalld chain filter_FORWARD handle 5: reject with icmpx",
    ),
    // An administrator's.
    (
        "table ip mine {
           chain early {
             type filter hook prerouting priority -300
             ip saddr 10.244.0.0/16 drop
           }
         }",
        "PF352",
        "table ip mine chain early handle 2: ip saddr 10.244.0.0/16 drop",
    ),
    (
        "table inet mine {
           chain in {
             type filter hook input priority 0
             udp dport 4789 drop
           }
         }",
        "PF352",
        "handle 2: udp dport 4789 drop",
    ),
    // The tunnel's packets are neither new nor of a connection.
    (
        "table inet mine {
           chain in {
             type filter hook input priority 0
             udp dport 4789 ct state new,established accept
             udp dport 4789 drop
           }
         }",
        "PF352",
        "handle 3: udp dport 4789 drop",
    ),
    (
        "table inet mine {
           chain out {
             type filter hook output priority 0
             oifname \"pf*\" drop
           }
         }",
        "PF352",
        "handle 2: oifname \"pf*\" drop",
    ),
    // Nobody can tell.
    (
        "table ip mine {
           chain through {
             type filter hook forward priority 0
             ip saddr 10.244.0.0/16 ip ttl 3 drop
           }
         }",
        "PF353",
        "table ip mine chain through handle 2:",
    ),
];

#[test]
fn a_rule_of_another_program_that_stops_pods_is_found() {
    let test = "a_rule_of_another_program_that_stops_pods_is_found";
    for (table, code, item) in TABLES {
        let Some(node) = Broken::new(test, "") else {
            return;
        };
        node.sh(&format!("nft -f - <<'EOF'\n{table}\nEOF"));
        node.finds(code, item, "");
    }
}

#[test]
fn a_rule_of_another_program_that_lets_pods_through_is_none_of_our_business() {
    let test = "a_rule_of_another_program_that_lets_pods_through_is_none_of_our_business";
    let Some(node) = Broken::new(test, "") else {
        return;
    };
    node.sh("nft -f - <<'EOF'
         table inet firewall {
           chain forward {
             type filter hook forward priority 0; policy drop
             ct state established,related accept
             iifname \"pf*\" accept
             oifname \"pf*\" accept
           }
           chain input {
             type filter hook input priority 0; policy drop
             iifname { \"lo\", \"pf*\" } accept
             udp dport 4789 accept
             tcp dport 22 accept
           }
         }\nEOF");
    assert_eq!(node.found(), []);
}

/// What the agent's log says at a regular look, in rounds of its own.
fn told(node: &Broken, agent: &mut Upkeep, around: bool) -> Vec<String> {
    let round = || {
        match around {
            true => agent.look_around(),
            false => agent.look_again(),
        }
        let mut round = agent.round(&node.snapshot, &BTreeSet::new()).unwrap();
        // Connections are listed for a tenth of the time, and these looks follow each other at once.
        let waits = |later: &String| later.starts_with("connections that lead nowhere");
        round.put_off.retain(|later| !waits(later));
        assert_eq!(
            (round.failures, round.put_off, round.looked),
            (vec![], vec![], true)
        );
        round.findings.iter().map(ToString::to_string).collect()
    };
    node.node.run(round).unwrap()
}

#[test]
fn the_agent_tells_of_other_programs_rules_at_its_regular_look() {
    let test = "the_agent_tells_of_other_programs_rules_at_its_regular_look";
    let Some(node) = Broken::new(test, "") else {
        return;
    };
    let nothing = Vec::<String>::new();
    let mut agent = node.node.run(|| Upkeep::open("node-1").unwrap()).unwrap();
    assert_eq!(told(&node, &mut agent, false), nothing);
    node.sh("nft -f - <<'EOF'
         table ip mine {
           chain early {
             type filter hook prerouting priority -300
             ip saddr 10.244.0.0/16 drop
           }
         }\nEOF");
    // Whenever something has changed it looks at its own only.
    assert_eq!(told(&node, &mut agent, false), nothing);
    let rule = "table ip mine chain early handle 2: ip saddr 10.244.0.0/16 drop";
    for around in [true, false] {
        let told = told(&node, &mut agent, around);
        assert!(!told.is_empty(), "{around}");
        assert!(
            told.iter()
                .all(|told| told.contains(rule) && told.ends_with("(PF352)")),
            "{told:#?}"
        );
    }
    node.sh("nft delete table ip mine");
    assert_eq!(told(&node, &mut agent, true), nothing);
    // An agent that starts tells what is there.
    node.sh("nft 'add table inet x; add chain inet x f { type filter hook forward priority 0; policy drop; }'");
    let mut agent = node.node.run(|| Upkeep::open("node-1").unwrap()).unwrap();
    let told = told(&node, &mut agent, false);
    assert!(!told.is_empty());
    assert!(told[0].contains("table inet x chain f: policy drop"));
}

#[test]
fn the_agent_tells_of_an_address_without_an_owner_when_it_stays() {
    let test = "the_agent_tells_of_an_address_without_an_owner_when_it_stays";
    let Some(node) = Broken::new(test, "") else {
        return;
    };
    let nothing = Vec::<String>::new();
    let mut agent = node.node.run(|| Upkeep::open("node-1").unwrap()).unwrap();
    node.sh("ip addr add 10.244.1.2/32 dev lo");
    assert_eq!(told(&node, &mut agent, true), nothing);
    let found = told(&node, &mut agent, true);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].contains("10.244.1.2") && found[0].contains("Pod default/client"));
    node.sh("ip addr del 10.244.1.2/32 dev lo");
    assert_eq!(told(&node, &mut agent, true), nothing);
}
