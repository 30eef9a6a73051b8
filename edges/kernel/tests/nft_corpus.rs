//! Rulesets as `nft` text: loaded by `nft` itself, observed, and printed as `nft` prints them; then
//! written by us, and printed by `nft` as before. So neither direction has only itself as witness.

use std::io::Write;
use std::process::{Command, Stdio};

use parfait_kernel::NetNs;
use parfait_kernel::nft::{Error, NftSocket};
use parfait_linux::nft::diff::{Action, SetType};
use parfait_linux::nft::{
    Chain, Data, DataType, Element, Family, Field, NftStep, Rule, Set, Statement, Table, Tables,
    Value, Verdict, diff, render,
};
use parfait_packet::{Kind, Origin};

/// Everything that Parfait writes, as `nft --stateless list ruleset` of 1.0.6 prints it. Sets that
/// the kernel hashes have one element, for it prints them in an order of its own.
const CORPUS: &str = r#"table ip parfait {
	counter dropped {
	}

	limit logs {
		rate 10/second
	}

	limit volume {
		rate over 3 mbytes/minute burst 7 kbytes
	}

	map affinity {
		typeof ip saddr . ip daddr . meta l4proto . th dport : ip daddr . th dport
		size 65535
		flags dynamic,timeout
		timeout 3h
	}

	map choices {
		typeof meta priority : verdict
		elements = { none : accept, 0:2 : drop, 0:a comment "Parfait Services" : goto n10, f:0 : drop, f:1 : drop,
			     root : drop }
	}

	set clients {
		typeof ip saddr
		size 100
		flags dynamic
	}

	map endpoints_10 {
		typeof ip daddr . meta l4proto . th dport . numgen random mod 10 : ip daddr . th dport
		elements = { 10.96.0.1 . tcp . 443 . 9 comment "Service default/web spec.ports[https]" : 10.244.1.2 . 6443 }
	}

	set exact {
		typeof ip saddr
	}

	map gateways {
		typeof ip saddr : ip saddr
		elements = { 10.244.1.2 comment "Pod shop/web" : 192.0.2.7 }
	}

	set interfaces {
		typeof iifname
		elements = { "eth0" }
	}

	set known_pods {
		typeof iifname . ip saddr
		elements = { "pf0123456789ab" . 10.244.1.2 }
	}

	map numbers {
		typeof ip daddr : meta priority
		elements = { 10.96.0.1 : 0:a, 10.96.0.2 comment "Service default/web" : f:0,
			     10.96.0.3 : none, 10.96.0.4 : root }
	}

	map peers {
		typeof ip saddr . th dport : verdict
		flags interval
		elements = { 10.244.0.0/16 . 80-90 : jump more,
			     10.245.1.0/24 . 0-65535 comment "NetworkPolicy shop/web" : drop }
	}

	map ports {
		typeof th dport : verdict
		elements = { 80 comment "Node node-1" : jump n10 }
	}

	set prefixes {
		typeof ip saddr
		flags interval
		elements = { 10.1.2.3, 10.244.0.0/16,
			     192.168.0.0/16, 255.255.255.255 }
	}

	set ranges {
		typeof ip saddr . th dport
		flags interval
		elements = { 10.244.0.0/16 . 80-90 }
	}

	map services {
		typeof ip daddr . meta l4proto . th dport : verdict
		elements = { 10.96.0.1 . tcp . 443 comment "Service default/kubernetes spec.ports[https]" : goto n10 }
	}

	set wide {
		typeof ct state . meta mark . fib daddr type . ct direction
		elements = { new . 0x00000005 . local . original }
	}

	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		ct state invalid drop
		ct status dnat accept
		ct status ! dnat accept
		ct state != new accept
		ct state == new accept
		ct state { established, new } counter accept
		th dport 80-90 accept
		th dport != 80-90 accept
		th dport { 80-90, 100 } accept
		tcp sport 5 reject with tcp reset
		reject with tcp reset
		meta l4proto { tcp, udp } reject
		reject with icmp admin-prohibited
		meta mark != 0x00000000 goto more
		meta mark & 0x00000005 != 0x00000000 jump more
		iifname "lo" continue
		iifname "eth*" oifname != "wan" return
		iifname @interfaces drop
		numgen random mod 3 1 accept
		ip saddr @prefixes drop
		ip saddr != @exact drop
		ip saddr . th dport @ranges accept
		ct state . meta mark . fib daddr type . ct direction @wide accept
		ip saddr . th dport { 10.0.0.0/8 . 80-90 } accept
		ip saddr 10.0.0.0/12 ip daddr != 10.0.0.0/8 accept
		ip saddr { 10.0.0.0/8, 192.0.2.1 } drop comment "NetworkPolicy shop/web spec.ingress[0]"
		fib daddr type local accept
		fib daddr type != { local, broadcast } drop
		fib saddr type != local accept
		ct direction reply accept
		ct state ! established,related iifname "pf*" iifname != "pf-vxlan" iifname . ip saddr != @known_pods drop
		oifname "pf*" oifname != "pf-vxlan" oifname . ip daddr != @known_pods drop
		ct mark 0x00000001 meta mark set ct mark
		ct mark & 0x00000002 != 0x00000000 meta mark set 0x00000007 counter
		ct mark set meta mark accept
		counter name "dropped" drop
		limit name "logs" log prefix "pf: " group 3 snaplen 128 queue-threshold 4
		limit rate 5/second log
		limit rate over 6/week burst 8 packets log group 0 drop
		limit rate 1536 kbytes/hour accept
		limit name "volume" reject with icmp net-unreachable
		reject with icmp host-unreachable
		reject with icmp prot-unreachable
		reject with icmp net-prohibited
		reject with icmp host-prohibited
		icmp type echo-request accept
		icmp type != { echo-reply, destination-unreachable, 77 } drop
		meta l4proto tcp ct original ip daddr 203.0.113.5 ct original proto-dst 30080 accept
		ct original ip daddr != 10.0.0.0/8 accept
		ip saddr . th dport vmap @peers
		update @clients { ip saddr }
		meta mark set meta mark | 0x00004000
		ct mark set ct mark & 0x0001ffff ^ 0x00000003 | 0x00010000
	}

	chain more {
		th dport vmap @ports
	}

	chain n10 {
	}

	chain output {
		type route hook output priority mangle; policy accept;
		udp dport 4789 notrack
	}

	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 masquerade fully-random
		oifname "eth*" masquerade
		snat to ip saddr map @gateways
		snat to ip saddr map @gateways fully-random
		ip saddr 10.0.0.1 snat to 192.0.2.1
		ip saddr 10.0.0.2 snat to 192.0.2.1 fully-random
	}

	chain prerouting {
		type nat hook prerouting priority dstnat + 5; policy accept;
		update @affinity { ip saddr . ip daddr . meta l4proto . tcp dport timeout 1h30m : 10.244.1.2 . 8080 } dnat to 10.244.1.2:8080
		update @affinity { ip saddr . ip daddr . meta l4proto . th dport : ip daddr . th dport }
		dnat ip to ip saddr . ip daddr . meta l4proto . th dport map @affinity
		ip daddr 192.0.2.9 dnat to 10.244.1.2
		ip daddr 192.0.2.10 redirect
		meta l4proto tcp ip daddr 192.0.2.11 redirect to :8080
		ip daddr . meta l4proto . th dport vmap @services
		meta priority set ip daddr map @numbers meta priority vmap @choices
		meta priority set none meta priority 1:10 drop
		ip daddr 10.0.0.0/8 tcp dport 80 counter dnat to 1.2.3.4:80 comment "Service default/web spec.ports[http]"
		dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 10 map @endpoints_10
	}
}
table ip6 parfait {
	map endpoints_1 {
		typeof ip6 daddr . meta l4proto . th dport . numgen random mod 1 : ip6 daddr . th dport
		elements = { fd00:10:96::1 . tcp . 443 . 0 : fd00:10:244::2 . 6443 }
	}

	map gateways {
		typeof ip6 saddr : ip6 saddr
		elements = { fd00:10:244::2 : 2001:db8::7 }
	}

	set prefixes {
		typeof ip6 daddr
		flags interval
		elements = { ::1,
			     fd00:10::/32 }
	}

	chain forward {
		type filter hook forward priority 77; policy accept;
		ip6 daddr @prefixes reject
		reject with icmpv6 admin-prohibited
		ip6 saddr fd00::/64 ip6 daddr != fd00::1 drop
		ip6 saddr { fd00::/64, fe80::1 } drop
		meta l4proto ipv6-icmp accept
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
		ct original ip6 daddr fd00::1 reject with icmpv6 addr-unreachable
		reject with icmpv6 no-route
		reject with icmpv6 policy-fail
		reject with icmpv6 reject-route
	}

	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		snat to ip6 saddr map @gateways fully-random
		ip6 daddr fd00::1 snat to 2001:db8::8
	}

	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		udp dport 53 dnat to [fd00::2]:53
		dnat ip6 to ip6 daddr . meta l4proto . th dport . numgen random mod 1 map @endpoints_1
	}
}
"#;

/// What other programs write, in forms that are read but never written by Parfait.
const FOREIGN: &str = r"
table inet firewall {
	set blocked { type ipv4_addr . inet_service; flags interval; auto-merge
		elements = { 10.0.0.1-10.0.0.6 . 22 } }
	map services { type ipv4_addr : mark; elements = { 10.0.0.1 : 5 } }
	chain input {
		type filter hook input priority filter; policy accept;
		iif lo accept
		ip saddr 10.0.0.1 ip daddr 10.0.0.2 accept
		ip6 daddr fd00::1 tcp dport { 80, 443 } reject
		tcp flags syn limit rate 5/second accept
		ip saddr . tcp dport @blocked drop
		meta mark set ip saddr map @services
		tcp sport 1 tcp dport 2 log prefix x drop
		ct mark 5 return
		icmp type echo-request accept
	}
}
";

#[test]
fn the_corpus_is_read_and_written_as_nft_does() {
    in_netns(|| {
        load(CORPUS);
        assert_eq!(list(), CORPUS, "the corpus is as nft prints it");
        let mut socket = NftSocket::open().expect("a socket");
        let observed = socket.observe_all().expect("observing").tables;
        assert_eq!(render::ruleset(&observed), CORPUS, "read");
        nft(&["flush", "ruleset"]);
        socket
            .execute(&diff(&Tables::new(), &observed))
            .expect("executing");
        assert_eq!(list(), CORPUS, "written");
        let again = socket.observe_all().expect("observing").tables;
        assert_eq!(diff(&again, &observed), []);
        // It parses as JSON is made from it too.
        let json = nft(&["-j", "list", "ruleset"]);
        assert!(json.contains("endpoints_10"), "{json}");
    });
}

#[test]
fn what_others_write_is_read_as_far_as_it_is_modelled() {
    in_netns(|| {
        load(FOREIGN);
        let mut socket = NftSocket::open().expect("a socket");
        let observed = socket.observe_all().expect("observing").tables;
        let rules: Vec<String> = observed[&(Family::Inet, "firewall".to_owned())].chains["input"]
            .rules
            .iter()
            .map(|rule| render::rule(Family::Inet, rule))
            .collect();
        assert_eq!(
            rules,
            [
                "meta key 4 accept",
                "ip saddr 10.0.0.1 ip daddr 10.0.0.2 accept",
                "ip6 daddr fd00::1 tcp dport { 80, 443 } reject",
                "meta l4proto tcp payload transport header + 13 limit rate 5/second accept",
                "ip saddr . tcp dport @blocked drop",
                "meta nfproto ipv4 lookup @services meta set key 3",
                "tcp sport 1 tcp dport 2 log prefix \"x\" drop",
                "ct mark 0x00000005 return",
                "meta nfproto ipv4 icmp type echo-request accept",
            ]
        );
        let blocked = &observed[&(Family::Inet, "firewall".to_owned())].sets["blocked"];
        let keys: Vec<String> = blocked
            .elements
            .keys()
            .map(|key| render::key(&blocked.key, key))
            .collect();
        assert_eq!(
            keys,
            [
                "10.0.0.1 . 22",
                "10.0.0.6 . 22",
                "10.0.0.2/31 . 22",
                "10.0.0.4/31 . 22"
            ]
        );
    });
}

fn table(chain: Chain) -> Tables {
    let table = Table::new(Family::Ip, "parfait").chain("c", chain);
    Tables::from([(table.key(), table)])
}

fn step(action: Action) -> NftStep {
    NftStep {
        family: Family::Ip,
        table: "parfait".to_owned(),
        action,
    }
}

#[test]
fn a_refusal_names_the_element_and_changes_nothing() {
    in_netns(|| {
        let mut socket = NftSocket::open().expect("a socket");
        let kind = SetType {
            key: vec![Field::Daddr],
            data: DataType::Verdict,
            interval: false,
            dynamic: None,
        };
        let to = |host: u8, chain: &str| {
            let origin = Origin::new(Kind::Service, "default", "web");
            let verdict = Data::Verdict(Verdict::Goto(chain.to_owned()));
            let key = vec![Value::Address([10, 0, 0, host].into())];
            (key, Element::new(verdict).origin(origin))
        };
        let mut elements: Vec<_> = (0..200).map(|host| to(host, "c")).collect();
        elements.push(to(250, "nowhere"));
        let steps = [
            step(Action::AddTable),
            step(Action::AddChain("c".into(), None)),
            step(Action::AddSet("vips".into(), kind.clone())),
            step(Action::AddElements("vips".into(), kind, elements)),
        ];
        let error = socket.execute(&steps).expect_err("there is no such chain");
        let text = error.to_string();
        assert!(
            text.starts_with(
                "nf_tables: add element ip parfait vips { 10.0.0.250 comment \"Service default/web\" \
                 : goto nowhere }: No such file or directory"
            ),
            "{text}"
        );
        assert_eq!(
            socket.observe_all().expect("observing").tables,
            Tables::new()
        );
    });
}

#[test]
fn a_refusal_names_the_rule_and_the_chain() {
    in_netns(|| {
        let mut socket = NftSocket::open().expect("a socket");
        let fine = Rule::new([Statement::Counter]);
        let masquerade = Statement::Masquerade {
            fully_random: false,
        };
        let rules = [
            fine,
            Rule::new([masquerade]),
            Rule::new([Statement::in_set([Field::Saddr], "gone")]),
        ];
        let steps = diff(&Tables::new(), &table(Chain::regular(rules)));
        let text = socket.execute(&steps).expect_err("no such set").to_string();
        assert!(
            text.starts_with(
                "nf_tables: add rule ip parfait c ip saddr @gone: No such file or directory"
            ),
            "{text}"
        );
        let text = socket
            .execute(&[step(Action::DeleteChain("c".into()))])
            .expect_err("no such chain")
            .to_string();
        assert!(
            text.starts_with("nf_tables: delete chain ip parfait c: No such file"),
            "{text}"
        );
    });
}

#[test]
fn what_has_no_form_is_said_before_anything_is_sent() {
    in_netns(|| {
        let mut socket = NftSocket::open().expect("a socket");
        let opaque = Rule::new([Statement::Opaque("limit".to_owned())]);
        let error = socket.execute(&diff(&Tables::new(), &table(Chain::regular([opaque]))));
        let error = error.expect_err("an opaque statement").to_string();
        assert_eq!(
            error,
            "nf_tables: ip parfait c limit: limit belongs to another program"
        );
    });
}

#[test]
fn a_change_by_another_program_is_noticed() {
    in_netns(|| {
        let mut socket = NftSocket::open().expect("a socket");
        let seen = socket.observe_all().expect("observing");
        nft(&["add", "table", "ip", "foreign"]);
        let steps = diff(&seen.tables, &table(Chain::regular([])));
        let error = socket
            .execute_at(&steps, seen.generation)
            .expect_err("it changed");
        assert!(matches!(error, Error::Changed), "{error}");
        socket
            .reconcile("parfait", &table(Chain::regular([])))
            .expect("looking again");
        assert!(
            list().starts_with("table ip foreign"),
            "left alone: {}",
            list()
        );
    });
}

#[test]
fn a_large_set_fits_one_transaction() {
    in_netns(|| {
        let mut socket = NftSocket::open().expect("a socket");
        let desired = large(20_000);
        let before = socket.observe_all().expect("observing").generation;
        socket.reconcile("parfait", &desired).expect("executing");
        let after = socket.observe_all().expect("observing");
        assert_eq!(diff(&after.tables, &desired), []);
        assert_eq!(after.generation, before + 1, "one transaction");
    });
}

fn large(count: u32) -> Tables {
    let mut set = Set::new([Field::Daddr, Field::Dport], DataType::None);
    for number in 0..count {
        let [_, a, b, c] = number.to_be_bytes();
        let origin = Origin::new(Kind::Service, "a-namespace", &"long".repeat(40));
        let key = vec![Value::Address([10, a, b, c].into()), Value::Port(80)];
        let element = Element::new(Data::None).origin(origin);
        set.elements.insert(key, element);
    }
    let table = Table::new(Family::Ip, "parfait").set("s", set);
    Tables::from([(table.key(), table)])
}

/// Without the right to force the send buffer: a user namespace, as a lab without root has. The
/// test runs itself again in one.
#[test]
fn a_large_set_is_written_in_a_user_namespace_too() {
    let test = std::env::current_exe().expect("this test");
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net"])
        .arg(test)
        .args([
            "--exact",
            "a_large_set_in_parts",
            "--ignored",
            "--nocapture",
        ])
        .output()
        .expect("unshare, of the package util-linux");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "run by a_large_set_is_written_in_a_user_namespace_too"]
fn a_large_set_in_parts() {
    let mut socket = NftSocket::open().expect("a socket");
    // An element takes more than 200 bytes, and the kernel doubles what it is asked for.
    let most = std::fs::read_to_string("/proc/sys/net/core/wmem_max").expect("a number");
    let most: u32 = most.trim().parse().expect("a number");
    let desired = large(most / 90);
    let before = socket.observe_all().expect("observing").generation;
    socket.reconcile("parfait", &desired).expect("executing");
    let after = socket.observe_all().expect("observing");
    assert_eq!(diff(&after.tables, &desired), []);
    assert!(
        after.generation > before + 1,
        "the send buffer was enlarged: this shows nothing"
    );
}

fn in_netns<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    let netns = NetNs::create().expect("a network namespace (this test needs root)");
    netns.run(run).expect("entering it")
}

fn list() -> String {
    nft(&["--stateless", "list", "ruleset"])
}

fn nft(arguments: &[&str]) -> String {
    let output = Command::new("nft").args(arguments).output();
    let output = output.expect("nft, of the package nftables, is needed by this test");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

fn load(ruleset: &str) {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("nft, of the package nftables, is needed by this test");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(ruleset.as_bytes()).expect("writing");
    drop(stdin);
    assert!(child.wait().expect("waiting").success());
}
