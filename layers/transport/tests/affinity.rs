//! Clients keep their endpoint while it serves, and no longer.

#[path = "../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;

use std::net::IpAddr;

use fixture::{THREE, clusters};
use parfait_linux::nft::{Data, Element, Key, NftStep, Tables, Value, diff};
use parfait_transport::{affinity, apply, plan};

const WEB: &str = "service web ip=10.96.0.20 ports=http:80/TCP>8080";
const SLICE: &str = "slice web-a of=web ports=http:8080/TCP \
    endpoints=10.244.1.3@node-1/web-1,10.244.2.2@node-2/web-2!serving";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// What the kernel may hold: a client, the address it asked, and the endpoint it got.
const HELD: [(&str, &str, u16, &str); 5] = [
    ("10.244.1.2", "10.96.0.20", 80, "10.244.1.3"),
    ("10.244.3.9", "10.96.0.20", 80, "10.244.1.3"),
    // It terminates, and another is ready.
    ("10.244.2.9", "10.96.0.20", 80, "10.244.2.2"),
    // It is gone.
    ("10.244.2.8", "10.96.0.20", 80, "10.244.9.9"),
    // Such a Service is gone.
    ("10.244.2.8", "10.96.0.21", 80, "10.244.1.3"),
];

fn element((client, address, port, endpoint): (&str, &str, u16, &str)) -> (Key, Element) {
    let key = vec![
        Value::Address(ip(client)),
        Value::Address(ip(address)),
        Value::Protocol(6),
        Value::Port(port),
    ];
    (key, Element::new(Data::Target(ip(endpoint), 8080)))
}

/// Clients outside keep what the policy leaves to them, and those inside what is left to these.
#[test]
fn with_policy_local_each_side_keeps_its_own_endpoints() {
    let service = "service web ip=10.96.0.20 ports=http:80/TCP>8080 externalIPs=203.0.114.9 externalPolicy=Local affinity=60";
    let cases = [
        ("", ["10.244.1.3", "10.244.2.2"], ["10.244.1.3"].as_slice()),
        ("!serving", ["10.244.2.2", ""], &["10.244.1.3"]),
    ];
    for (state, inside, outside) in cases {
        let slice = format!(
            "slice web-a of=web ports=http:8080/TCP endpoints=10.244.1.3@node-1/web-1{state},10.244.2.2@node-2/web-2"
        );
        let plan = plan(&clusters(&[THREE, service, &slice]), "node-1");
        let tables = apply(&plan).into_iter();
        let tables: Tables = tables.map(|table| (table.key(), table)).collect();
        for client in ["10.244.1.2", "10.244.3.9", "192.168.77.11", "198.51.100.1"] {
            for endpoint in ["10.244.1.3", "10.244.2.2"] {
                let mut held = tables.clone();
                let mut tables = held.values_mut();
                let map = tables.find_map(|table| table.sets.get_mut("affinity"));
                let (key, element) = element((client, "203.0.114.9", 80, endpoint));
                map.expect("it is always there")
                    .elements
                    .insert(key, element);
                let stays = affinity::stale(&plan, &held).is_empty();
                let wanted = match client {
                    "198.51.100.1" => outside.contains(&endpoint),
                    _ => inside.contains(&endpoint),
                };
                assert_eq!(stays, wanted, "{client} with {endpoint}{state}");
            }
        }
    }
}

#[test]
fn only_clients_of_endpoints_that_are_gone_move() {
    for (keeps, gone) in [(Some(60), 3), (None, 5)] {
        let mut snapshot = clusters(&[THREE, WEB, SLICE]);
        for service in snapshot.services.values_mut() {
            service.affinity = keeps;
        }
        let plan = plan(&snapshot, "node-1");
        assert_eq!(plan.keeps_clients(), keeps.is_some());
        let tables = apply(&plan).into_iter();
        let mut tables: Tables = tables.map(|table| (table.key(), table)).collect();
        let map = tables
            .values_mut()
            .find_map(|table| table.sets.get_mut("affinity"))
            .expect("it is always there");
        map.elements.extend(HELD.map(element));
        let steps: Vec<NftStep> = affinity::stale(&plan, &tables);
        for step in &steps {
            diff::apply(&mut tables, step);
        }
        let left = tables
            .values()
            .map(|table| table.sets["affinity"].elements.len());
        assert_eq!(
            left.sum::<usize>(),
            HELD.len() - gone,
            "{keeps:?}: {steps:?}"
        );
        assert_eq!(affinity::stale(&plan, &tables), [], "once is enough");
    }
}
