//! A packet between two of its look-ups, while endpoints change: whichever transaction comes then, it finds one.
//!
//! The kernel looks at the current generation once for the rules of chains, and anew at each set. So what such a packet
//! sees is the old rules with the new sets, or, if it has been to `services` before, the old `services` too.

#[path = "../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;

use std::collections::BTreeMap;

use fixture::{THREE, clusters};
use parfait_linux::nft::{AddressType, Chain, Context, Hook, Tables, diff, evaluate, phases};
use parfait_packet::{Packet, Protocol};
use parfait_transport::{apply, plan};

fn tables(endpoints: usize, words: &str) -> Tables {
    let endpoint = |nth: usize| format!("10.244.1.{}@node-1", 3 + nth);
    let endpoints: Vec<_> = (0..endpoints).map(endpoint).collect();
    let text = format!(
        "service web ip=10.96.0.20 ports=http:80/TCP>8080 externalIPs=203.0.114.9 {words}
         slice web-a of=web ports=http:8080/TCP endpoints={}",
        endpoints.join(",")
    );
    let tables = apply(&plan(&clusters(&[THREE, &text]), "node-1")).into_iter();
    tables.map(|table| (table.key(), table)).collect()
}

/// What a packet sees that began with `old` and goes on with `new`; of the sets named, still the old elements.
fn between(old: &Tables, new: &Tables, seen: &[&str]) -> Tables {
    let mut mixed = new.clone();
    for (key, table) in &mut mixed {
        let before = &old[key];
        let chains = table.chains.iter().map(|(name, chain)| {
            // A chain that is new has no rules in the old generation.
            let unruled = Chain {
                rules: Vec::new(),
                ..chain.clone()
            };
            (
                name.clone(),
                before.chains.get(name).cloned().unwrap_or(unruled),
            )
        });
        table.chains = chains.collect::<BTreeMap<_, _>>();
        for name in seen {
            table
                .sets
                .insert((*name).to_owned(), before.sets[*name].clone());
        }
    }
    mixed
}

fn arrives(tables: &Tables, to: &str) -> bool {
    let address = |text: &str| text.parse().expect("an address");
    let packet = Packet::new(address("10.244.1.2"), address(to), Protocol::Tcp, 80);
    let packet = packet.expect("one family");
    let elsewhere = |_| AddressType::Unicast;
    let mut context = Context::new(packet, &elsewhere);
    context.iifname = Some("pf1");
    let branches = evaluate(tables, Hook::Prerouting, &context);
    branches
        .iter()
        .all(|branch| branch.packet.destination != packet.destination)
}

/// How its clients are led.
const WAYS: [&str; 4] = [
    "",
    "affinity=60",
    "externalPolicy=Local",
    "externalPolicy=Local affinity=60",
];

/// The maps that a packet may have looked into already, in this order.
const MAPS: [&str; 4] = [
    "services",
    "service_choices",
    "inside_services",
    "local_choices",
];

#[test]
fn whatever_the_moment_a_packet_finds_an_endpoint() {
    for (way, other) in WAYS.iter().flat_map(|way| WAYS.map(|other| (*way, other))) {
        for (before, after) in [(2, 3), (3, 2), (1, 5), (4, 1), (3, 3)] {
            changes(&tables(before, way), &tables(after, other), |number| {
                format!("{before} {way:?} to {after} {other:?}, part {number}")
            });
        }
    }
}

/// A packet in each moment of a change.
fn changes(before: &Tables, goal: &Tables, part: impl Fn(usize) -> String) {
    let mut held = before.clone();
    for (number, phase) in phases(diff(&held, goal)).into_iter().enumerate() {
        let old = held.clone();
        for step in &phase {
            diff::apply(&mut held, step);
        }
        for looked_up in 0..=MAPS.len() {
            let seen = &MAPS[..looked_up];
            let mixed = between(&old, &held, seen);
            for to in ["10.96.0.20", "203.0.114.9"] {
                assert!(arrives(&mixed, to), "{}, {seen:?}: {to}", part(number));
            }
        }
    }
    assert_eq!(held, *goal, "all parts together are the change");
}
