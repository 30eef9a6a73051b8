//! Small questions to nf_tables, about rulesets that `nft` has loaded.

use std::process::Command;
use std::time::Duration;

use parfait_kernel::NetNs;
use parfait_kernel::nft::NftSocket;
use parfait_linux::nft::diff::SetType;
use parfait_linux::nft::{DataType, Family, Field, Set, Value};

#[path = "support/processor_time.rs"]
mod processor_time;
use processor_time::processor_time;

const RULES: &str = r#"
table ip parfait {
    set known_pods { type ifname . ipv4_addr; elements = { "pf0123456789ab" . 10.244.1.2 } }
    set nets { type ipv4_addr; flags interval; elements = { 10.0.0.0/8, 192.0.2.1 } }
    set boxes { type ipv4_addr . inet_service; flags interval; elements = { 10.0.0.0/8 . 80-90 } }
    chain isolation { type filter hook forward priority -10; }
    chain regular { }
}
table ip6 parfait { }
table inet firewall {
    chain late { type filter hook input priority 5; policy drop; }
    chain regular { }
}
table netdev others { }
"#;

fn in_netns<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    let netns = NetNs::create().expect("a network namespace (this test needs root)");
    netns.run(run).expect("entering it")
}

fn load(ruleset: &str) {
    let output = Command::new("nft").arg(ruleset).output();
    let output = output.expect("nft, of the package nftables, is needed by this test");
    assert!(output.status.success(), "{output:?}");
}

fn kind(key: &[Field], interval: bool) -> SetType {
    let mut set = Set::new(key.iter().copied(), DataType::None);
    set.interval = interval;
    SetType::of(&set)
}

fn address(last: [u8; 4]) -> Value {
    Value::Address(last.into())
}

#[test]
fn an_element_is_found_by_its_key() {
    in_netns(|| {
        load(RULES);
        let mut socket = NftSocket::open().expect("a socket");
        let mut ask = |set: &str, kind: &SetType, key: &[Value]| {
            let found = socket.contains(Family::Ip, "parfait", set, kind, key);
            found.expect("an answer")
        };
        let pods = kind(&[Field::Iifname, Field::Saddr], false);
        let pod = |name: &str, last| [Value::Ifname(name.to_owned()), address([10, 244, 1, last])];
        assert!(ask("known_pods", &pods, &pod("pf0123456789ab", 2)));
        assert!(!ask("known_pods", &pods, &pod("pf0123456789ab", 3)));
        assert!(!ask("known_pods", &pods, &pod("pf0123456789a", 2)));
        assert!(!ask("gone", &pods, &pod("pf0123456789ab", 2)));
        let nets = kind(&[Field::Saddr], true);
        for (last, there) in [
            ([10, 0, 0, 0], true),
            ([10, 255, 255, 255], true),
            ([11, 0, 0, 0], false),
            ([192, 0, 2, 1], true),
            ([192, 0, 2, 2], false),
        ] {
            assert_eq!(ask("nets", &nets, &[address(last)]), there, "{last:?}");
        }
        let boxes = kind(&[Field::Saddr, Field::Dport], true);
        let to = |port| [address([10, 1, 2, 3]), Value::Port(port)];
        assert!(ask("boxes", &boxes, &to(85)));
        assert!(!ask("boxes", &boxes, &to(91)));

        let prefix = Value::Prefix("10.0.0.0/8".parse().expect("a prefix"));
        let error = socket
            .contains(Family::Ip, "parfait", "nets", &nets, &[prefix])
            .expect_err("not one value");
        assert_eq!(
            error.to_string(),
            "nf_tables: ip parfait nets: a range is looked up by one of its values"
        );
    });
}

#[test]
fn tables_and_chains_are_there_or_not() {
    in_netns(|| {
        load(RULES);
        let mut socket = NftSocket::open().expect("a socket");
        for (family, table, there) in [
            (Family::Ip, "parfait", true),
            (Family::Ip6, "parfait", true),
            (Family::Inet, "parfait", false),
            (Family::Ip, "firewall", false),
        ] {
            let found = socket.has_table(family, table).expect("an answer");
            assert_eq!(found, there, "{family} {table}");
        }
        for (table, chain, there) in [
            ("parfait", "isolation", true),
            ("parfait", "regular", true),
            ("parfait", "late", false),
            ("gone", "isolation", false),
        ] {
            let found = socket.has_chain(Family::Ip, table, chain);
            assert_eq!(found.expect("an answer"), there, "{table} {chain}");
        }
        let foreign = socket.foreign_base_chains("parfait").expect("an answer");
        let printed: Vec<String> = foreign
            .iter()
            .map(|c| format!("{} {} {}: {}", c.family, c.table, c.chain, c.base))
            .collect();
        assert_eq!(
            printed,
            ["inet firewall late: type filter hook input priority filter + 5; policy drop;"]
        );
    });
}

#[test]
fn asking_does_not_take_longer_in_a_large_set() {
    in_netns(|| {
        load(RULES);
        let elements: Vec<String> = (0..20_000)
            .map(|n| format!("pf{n} . 10.{}.{}.1", n / 256, n % 256))
            .collect();
        let elements = elements.join(", ");
        let path = std::env::temp_dir().join(format!("nft-ask-{}", std::process::id()));
        let add = format!("add element ip parfait known_pods {{ {elements} }}");
        std::fs::write(&path, add).expect("writing");
        let output = Command::new("nft").arg("-f").arg(&path).output();
        assert!(output.expect("nft").status.success());
        std::fs::remove_file(&path).expect("removing");
        let mut socket = NftSocket::open().expect("a socket");
        let pods = kind(&[Field::Iifname, Field::Saddr], false);
        let began = processor_time();
        for number in 0..200_u8 {
            let key = [
                Value::Ifname(format!("pf{number}")),
                address([10, 0, number, 1]),
            ];
            let found = socket.contains(Family::Ip, "parfait", "known_pods", &pods, &key);
            assert!(found.expect("an answer"));
        }
        let took = processor_time() - began;
        // Less than a millisecond each; ten times that is allowed for.
        assert!(took < Duration::from_secs(2), "{took:?}");
        eprintln!("{:?} for one of 20,000", took / 200);
    });
}
