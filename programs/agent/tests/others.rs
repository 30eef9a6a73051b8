//! Another program's rules in the node's kernel: named and explained, left alone, and those of kube-proxy removed when
//! the agent is told to take over; with the rules as `iptables` and `nft` load them.
//!
//! Needs root (or a user namespace), `ip`, `nft` and `iptables` with its nf_tables back end.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

#[path = "../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;
mod one_node;

use std::collections::BTreeSet;

use one_node::{Machines, must, sh};
use parfait_agent::{Predecessor, Round, Upkeep};
use parfait_cluster::Key;
use parfait_kernel::NetNs;

const CLUSTER: &str = "
config clusterCIDRs=10.244.0.0/16,fd00:10:244::/56 serviceCIDRs=10.96.0.0/16
node node-1 pods=10.244.1.0/24,fd00:10:244:1::/64 underlay=192.168.77.11/24,fd00:77::11/64
pod web on=node-1 ip=10.244.1.2,fd00:10:244:1::2
service web ip=10.96.0.20 ports=http:80/TCP>8080
slice web-a of=web ports=http:8080/TCP endpoints=10.244.1.2@node-1/web
";

/// As Docker, ufw, the kubelet, kube-router and an administrator leave them.
const OTHERS: &str = "
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER-USER - [0:0]
:KUBE-FIREWALL - [0:0]
:KUBE-ROUTER-INPUT - [0:0]
:ufw-before-input - [0:0]
-A INPUT -j KUBE-FIREWALL
-A INPUT -m comment --comment \"kube-router netpol\" -j KUBE-ROUTER-INPUT
-A INPUT -j ufw-before-input
-A FORWARD -j DOCKER-USER
-A FORWARD -s 198.51.100.9/32 -j DROP
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
:KUBE-MARK-DROP - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A KUBE-MARK-DROP -j MARK --set-xmark 0x8000/0x8000
COMMIT
*mangle
:PREROUTING ACCEPT [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-IPTABLES-HINT - [0:0]
COMMIT
";

/// As kube-proxy writes them in iptables mode, between those of [`OTHERS`].
const IPTABLES: &str = "
*filter
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SERVICES - [0:0]
-I INPUT 1 -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-I INPUT 1 -m comment --comment \"kubernetes health check service ports\" -j KUBE-NODEPORTS
-I INPUT 1 -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES
-I FORWARD 1 -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD
-I OUTPUT 1 -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A KUBE-FORWARD -m conntrack --ctstate INVALID -m nfacct --nfacct-name ct_state_invalid_dropped_pkts -j DROP
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
*nat
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-LOLE4ISW44XBNF3G - [0:0]
:KUBE-SEP-OKPIXFS5IAA7EYGS - [0:0]
-I PREROUTING 1 -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-I POSTROUTING 1 -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully
-A KUBE-SERVICES -d 10.96.0.20/32 -p tcp -m comment --comment \"default/web cluster IP\" -m tcp --dport 80 -j KUBE-SVC-LOLE4ISW44XBNF3G
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-SVC-LOLE4ISW44XBNF3G ! -s 10.244.0.0/16 -d 10.96.0.20/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ
-A KUBE-SVC-LOLE4ISW44XBNF3G -m comment --comment \"default/web -> 10.244.9.9:8080\" -j KUBE-SEP-OKPIXFS5IAA7EYGS
-A KUBE-SEP-OKPIXFS5IAA7EYGS -s 10.244.9.9/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-OKPIXFS5IAA7EYGS -p tcp -m tcp -j DNAT --to-destination 10.244.9.9:8080
COMMIT
*mangle
:KUBE-PROXY-CANARY - [0:0]
COMMIT
";

/// As kube-proxy writes them in nftables mode (KEP-3866), in small.
const NFTABLES: &str = "
table ip kube-proxy {
  comment \"rules for kube-proxy\"
  set cluster-ips { type ipv4_addr; comment \"Active ClusterIPs\"; elements = { 10.96.0.20 } }
  map service-ips {
    type ipv4_addr . inet_proto . inet_service : verdict
    elements = { 10.96.0.20 . tcp . 80 : goto service-42-default/web/tcp/http }
  }
  map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; }
  chain nat-prerouting { type nat hook prerouting priority -100; jump services; }
  chain nat-output { type nat hook output priority -100; jump services; }
  chain nat-postrouting { type nat hook postrouting priority 100; jump masquerading; }
  chain filter-forward { type filter hook forward priority -110; ct state new jump service-endpoints-check; }
  chain service-endpoints-check { ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }
  chain services { ip daddr . meta l4proto . th dport vmap @service-ips; }
  chain mark-for-masquerade { meta mark set meta mark or 0x4000; }
  chain masquerading { meta mark & 0x4000 == 0 return; meta mark set meta mark ^ 0x4000; masquerade fully-random; }
  chain service-42-default/web/tcp/http {
    ip daddr 10.96.0.20 tcp dport 80 ip saddr != 10.244.0.0/16 jump mark-for-masquerade
    numgen random mod 1 vmap { 0 : goto endpoint-7-default/web/tcp/http__10.244.9.9/8080 }
  }
  chain endpoint-7-default/web/tcp/http__10.244.9.9/8080 {
    ip saddr 10.244.9.9 jump mark-for-masquerade
    meta l4proto tcp dnat to 10.244.9.9:8080
  }
}
table ip6 kube-proxy {
  chain services { }
}
";

fn machines(test: &str) -> Option<Machines> {
    Machines::new(test, &[("default", "web", 2)])
}

/// `iptables-restore`, which adds to what is there.
fn iptables(node: &NetNs, rules: &str) {
    // nfacct objects need another kernel module; nothing else is left out.
    let rules = rules.replace("-m nfacct --nfacct-name ct_state_invalid_dropped_pkts ", "");
    must(
        node,
        &format!("iptables-nft-restore -n <<'END'\n{}\nEND", rules.trim()),
    );
}

fn nft(node: &NetNs, rules: &str) {
    must(node, &format!("nft -f - <<'END'\n{rules}\nEND"));
}

/// Everybody's rules but Parfait's.
fn others(node: &NetNs) -> String {
    let script = "for table in $(nft list tables | grep -v parfait | awk '{print $2 \".\" $3}'); do
        nft list table ${table%%.*} ${table#*.}; done | sed -E 's/packets [0-9]+ bytes [0-9]+//'";
    String::from_utf8(sh(node, script).stdout).unwrap()
}

/// The agent's rounds, until it knows its underlay and nothing is left to do.
fn rounds(node: &NetNs, predecessor: Option<Predecessor>) -> Round {
    let mut snapshot = fixture::cluster(CLUSTER);
    let reported = BTreeSet::from([Key::Node("node-1".to_owned())]);
    let run = || {
        let mut agent = Upkeep::open("node-1").unwrap();
        if let Some(predecessor) = predecessor {
            agent.take_over(predecessor);
        }
        for _ in 0..6 {
            agent.look_around();
            let round = agent.round(&snapshot, &reported).unwrap();
            assert_eq!(round.failures, Vec::<String>::new());
            let node = snapshot.nodes.get_mut("node-1").unwrap();
            let known = node.underlay == round.underlay;
            node.underlay.clone_from(&round.underlay);
            if known && round.steps == 0 {
                return round;
            }
        }
        panic!("the agent does not come to rest");
    };
    node.run(run).unwrap()
}

fn findings(round: &Round) -> Vec<String> {
    round.findings.iter().map(ToString::to_string).collect()
}

#[test]
fn kube_proxy_is_told_of_and_left_until_the_agent_takes_over() {
    let test = "kube_proxy_is_told_of_and_left_until_the_agent_takes_over";
    let Some(machines) = machines(test) else {
        return;
    };
    let node = &machines.node;
    iptables(node, OTHERS);
    must(node, "nft add table inet mine");
    let without = others(node);
    iptables(node, IPTABLES);
    nft(node, NFTABLES);
    // A dummy in truth, which not every kernel has; only the name counts.
    must(node, "ip link add kube-ipvs0 type bridge");
    let with = others(node);
    assert_ne!(with, without);

    let found = findings(&rounds(node, None));
    assert_eq!(others(node), with, "nothing of others is touched");
    let left: Vec<_> = found.iter().filter(|text| text.contains("PF354")).collect();
    let named = |item: &str| left.iter().any(|text| text.contains(item));
    assert!(
        named("table ip kube-proxy (") && named("table ip6 kube-proxy ("),
        "{left:#?}"
    );
    assert!(
        named("5 chains of table ip filter (KUBE-EXTERNAL-SERVICES, …) and 5 jumps to them"),
        "{left:#?}"
    );
    assert!(
        named("6 chains of table ip nat (KUBE-MARK-MASQ, …) and 3 jumps to them"),
        "{left:#?}"
    );
    assert!(
        named("1 chain of table ip mangle (KUBE-PROXY-CANARY) and 0 jumps"),
        "{left:#?}"
    );
    assert!(named("interface kube-ipvs0"), "{left:#?}");

    let found = findings(&rounds(node, Some(Predecessor::KubeProxy)));
    let left: Vec<_> = found.iter().filter(|text| text.contains("PF354")).collect();
    assert!(
        matches!(left[..], [ipvs] if ipvs.contains("kube-ipvs0")),
        "{left:#?}"
    );
    assert_eq!(
        others(node),
        without,
        "all of kube-proxy's is gone, and nothing else"
    );
    // iptables itself can still read and write what is left.
    must(
        node,
        "iptables-nft-save >/dev/null && iptables-nft -A FORWARD -s 198.51.100.10 -j DROP",
    );
}

#[test]
fn whose_rule_stops_pods_is_named_with_its_own_words_for_letting_them_pass() {
    let test = "whose_rule_stops_pods_is_named_with_its_own_words_for_letting_them_pass";
    let firewalld = "table inet firewalld {
        chain filter_FORWARD {
            type filter hook forward priority 10; policy accept;
            reject with icmpx admin-prohibited
        }
    }";
    let docker =
        "*filter\n:FORWARD DROP [0:0]\n:DOCKER-USER - [0:0]\n-A FORWARD -j DOCKER-USER\nCOMMIT";
    let ufw = "*filter\n:FORWARD ACCEPT [0:0]\n:ufw-reject-forward - [0:0]\n\
        -A FORWARD -j ufw-reject-forward\n-A ufw-reject-forward -j REJECT\nCOMMIT";
    let both =
        "*filter\n:FORWARD DROP [0:0]\n:DOCKER-USER - [0:0]\n:ufw-before-forward - [0:0]\nCOMMIT";
    for (rules, whose) in [
        (
            firewalld,
            "firewalld's: firewall-cmd --permanent --zone=trusted",
        ),
        (docker, "Docker's: iptables -I DOCKER-USER"),
        (ufw, "ufw's: ufw allow from CIDR"),
        (
            both,
            "ufw's: ufw allow from CIDR, ufw route allow from CIDR and ufw route allow to CIDR; or Docker's: iptables",
        ),
    ] {
        let Some(machines) = machines(test) else {
            return;
        };
        match rules.starts_with('*') {
            true => iptables(&machines.node, rules),
            false => nft(&machines.node, rules),
        }
        let found = findings(&rounds(&machines.node, None));
        assert!(
            found
                .iter()
                .any(|text| text.contains("PF35") && text.contains(whose)),
            "{whose}: {found:#?}"
        );
    }
}
