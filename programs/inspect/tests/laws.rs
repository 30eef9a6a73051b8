//! Laws, on random clusters and questions:
//!
//! - planning the same cluster twice gives the same, and nothing to do between the two;
//! - the probabilities of all ways of a packet add up to one;
//! - the verdict is that of an oracle which knows only Kubernetes' rules, nothing of routes and rulesets;
//! - a node's ruleset alone, evaluated, does what the transport layer explains.
//!
//! That the kernel does the same is tested with the agent (`programs/agent/tests/kernel`).

#[path = "../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;
mod oracle;
mod random;

use std::collections::BTreeSet;

use parfait_cluster::Snapshot;
use parfait_inspect::{Answer, Question, Side, explain};
use parfait_join::NodePlan;
use parfait_linux::nft::{AddressType, Context, End, Hook, evaluate};
use parfait_linux::{Ownership, diff, nft};
use parfait_packet::{Packet, Protocol};
use proptest::prelude::*;
use random::{Ask, Party, Scene};

/// How many questions each cluster is asked.
const ASKS: usize = 20;

fn scene_and_asks() -> impl Strategy<Value = (Scene, Vec<Ask>)> {
    random::scene().prop_flat_map(|scene| {
        let asks = random::asks(&scene, ASKS);
        (Just(scene), asks)
    })
}

fn question(scene: &Scene, ask: Ask) -> Question {
    let address = scene.goal_address(ask.to, ask.family).unwrap_or_default();
    Question {
        from: match ask.from {
            Party::Pod(index) => Side::Pod(format!("p{index}")),
            Party::Node(number) => Side::Node(format!("node-{number}")),
        },
        to: Side::Address(address.parse().expect("an address"), None),
        port: Some(ask.port),
        protocol: ask.protocol.parse().ok(),
        family: None,
        namespace: None,
        size: None,
    }
}

fn answer(scene: &Scene, snapshot: &Snapshot, ask: Ask) -> Answer {
    let question = question(scene, ask);
    explain(snapshot, &question).unwrap_or_else(|error| panic!("{ask:?}: {error}\n{scene}"))
}

/// Whether fractions add up to one.
fn sum_is_one(fractions: &[(u64, u64)]) -> bool {
    let common: u64 = fractions.iter().map(|(_, of)| of).product();
    let sum: u64 = fractions
        .iter()
        .map(|(parts, of)| parts * (common / of))
        .sum();
    sum == common
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn planning_is_a_function_of_the_snapshot(scene in random::scene()) {
        let snapshot = fixture::cluster(&scene.to_string());
        for name in snapshot.nodes.keys() {
            let plan = NodePlan::new(&snapshot, name);
            let state = plan.state();
            let again = NodePlan::new(&snapshot.clone(), name).state();
            prop_assert_eq!(state.to_string(), again.to_string());
            prop_assert_eq!(nft::render::ruleset(&state.tables), nft::render::ruleset(&again.tables));
            let steps = diff(&state, &again, &Ownership::agent(state.links.keys().cloned()));
            prop_assert!(steps.is_empty(), "{:?}", steps);
            prop_assert!(nft::diff(&state.tables, &again.tables).is_empty());
            let link = parfait_link::apply(&plan.link);
            prop_assert_eq!(parfait_link::prove(&link, &state), vec![]);
            let internet = parfait_internet::apply(&plan.internet);
            prop_assert_eq!(parfait_internet::prove(&internet, &state), vec![]);
            let transport = parfait_transport::apply(&plan.transport);
            prop_assert_eq!(parfait_transport::prove(&transport, &state.tables), vec![]);
            prop_assert_eq!(plan.notes().count(), 0);
        }
    }

    #[test]
    fn all_ways_together_are_certain((scene, asks) in scene_and_asks()) {
        let snapshot = fixture::cluster(&scene.to_string());
        for ask in asks {
            let answer = answer(&scene, &snapshot, ask);
            let fractions: Vec<_> = answer.ways.iter().map(|way| way.probability).collect();
            prop_assert!(sum_is_one(&fractions), "{:?}: {:?}\n{}", ask, fractions, scene);
        }
    }

    #[test]
    fn the_verdict_is_what_kubernetes_promises((scene, asks) in scene_and_asks()) {
        let snapshot = fixture::cluster(&scene.to_string());
        for ask in asks {
            let answer = answer(&scene, &snapshot, ask);
            let promised = oracle::promise(&scene, ask);
            let kept = oracle::kept(&promised, &answer);
            prop_assert!(
                kept.is_ok(),
                "{:?}: {}\npromised: {:?}\n{}\n{}",
                ask,
                kept.unwrap_err(),
                promised,
                parfait_inspect::render(&answer, parfait_inspect::Detail::Full),
                scene
            );
        }
    }

    #[test]
    fn the_ruleset_alone_does_what_the_transport_layer_explains(scene in random::scene()) {
        let snapshot = fixture::cluster(&scene.to_string());
        let plan = NodePlan::new(&snapshot, "node-1");
        let tables = plan.state().tables;
        let services = plan.transport.services.values();
        let addresses = services.flat_map(|service| service.cluster_ips.keys());
        for (address, port) in addresses.flat_map(|a| [80, 81, 8080].map(|port| (*a, port))) {
            for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Icmp] {
                let source = if address.is_ipv4() { "10.244.1.77" } else { "fd00:10:244:1::77" };
                let source = source.parse().expect("an address");
                let packet = Packet::new(source, address, protocol, port).expect("one family");
                let explained = parfait_transport::explain(&plan.transport, &packet, false);
                let explained = explained.expect("a virtual address");
                let elsewhere = |_| AddressType::Unicast;
                let mut context = Context::new(packet, &elsewhere);
                // Not a pod's interface: what a pod that nobody knows may do is the internet layer's.
                context.iifname = Some("eth1");
                let branches = evaluate(&tables, Hook::Prerouting, &context);
                let reached: BTreeSet<_> = branches
                    .iter()
                    .map(|b| (b.packet.destination, b.packet.destination_port, b.weight))
                    .collect();
                let count = u64::try_from(explained.candidates.len()).expect("few");
                let wanted: BTreeSet<_> = match explained.refused {
                    None => explained.candidates.iter().map(|c| (c.endpoint.address, c.port, (1, count))).collect(),
                    Some(_) => [(address, packet.destination_port, (1, 1))].into(),
                };
                prop_assert_eq!(reached, wanted);
                context.oifname = Some("eth0");
                let rejected = evaluate(&tables, Hook::Forward, &context);
                prop_assert!(matches!(rejected[0].end, End::Rejected(_)));
                if explained.refused.is_none() {
                    context.packet = branches[0].packet;
                    let passed = evaluate(&tables, Hook::Forward, &context);
                    prop_assert_eq!(&passed[0].end, &End::Accepted);
                }
            }
        }
    }
}
