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
use std::net::IpAddr;

use parfait_cluster::{Note, Snapshot};
use parfait_inspect::{Answer, Question, Side, explain};
use parfait_join::NodePlan;
use parfait_linux::nft::{AddressType, Branch, Context, End, Hook, evaluate};
use parfait_linux::{Ownership, diff, nft};
use parfait_packet::{Packet, Protocol};
use parfait_transport::{Explanation, Frontend};
use proptest::prelude::*;
use random::{Ask, Scene};

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
        from: ask.from.side(scene, ask.family),
        to: Side::Address(address.parse().expect("an address"), None),
        port: Some(ask.port),
        protocol: ask.protocol.parse().ok(),
        family: None,
        source_port: None,
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
            // Ranges of one family only are common in these clusters, and told.
            let told = |note: &Note| note.origin.field == "spec.loadBalancerSourceRanges";
            prop_assert!(plan.notes().all(|note| told(&note)));
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
            let Some(answer) = random::entering(answer, ask.from) else {
                continue;
            };
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
        let services = parfait_transport::apply(&plan.transport).into_iter();
        let node = Node {
            tables: plan.state().tables,
            services: services.map(|table| (table.key(), table)).collect(),
            plan: &plan.transport,
            own: &snapshot.nodes["node-1"].addresses,
        };
        for packet in packets(&plan.transport, node.own) {
            let agrees = node.agrees(packet);
            prop_assert!(agrees.is_ok(), "{packet}: {}\n{scene}", agrees.unwrap_err());
        }
    }
}

/// A node's rules, and what they are lowered from.
struct Node<'a> {
    tables: nft::Tables,
    /// The transport layer's alone: with which source pods leave the cluster is another's.
    services: nft::Tables,
    plan: &'a parfait_transport::Plan,
    own: &'a [IpAddr],
}

/// From all sorts of senders to every address and port that leads to a Service, and to others of its own addresses.
fn packets(plan: &parfait_transport::Plan, own: &[IpAddr]) -> Vec<Packet> {
    let services = plan.services.values();
    let led = services
        .clone()
        .flat_map(|service| service.frontends.keys().copied());
    let addresses = services.flat_map(|service| service.cluster_ips.keys());
    let others = addresses.flat_map(|address| {
        let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp, Protocol::Icmp];
        let at = |protocol| Frontend {
            address: *address,
            protocol,
            port: 81,
        };
        protocols.map(at)
    });
    let strangers = [
        // A pod of this node, one of another, the router, somebody outside.
        ["10.244.1.77", "10.244.2.77", "192.168.77.1", "198.51.100.7"],
        [
            "fd00:10:244:1::77",
            "fd00:10:244:2::77",
            "fd00:77::1",
            "2001:db8::7",
        ],
    ];
    let strangers = strangers
        .into_iter()
        .flatten()
        .map(|text| text.parse().expect("an address"));
    let senders: Vec<IpAddr> = strangers.chain(own.iter().copied()).collect();
    let mut packets = Vec::new();
    for to in led.chain(others) {
        let packet = |from: &IpAddr| Packet::new(*from, to.address, to.protocol, to.port);
        packets.extend(senders.iter().filter_map(packet));
        // Every endpoint may be its own client.
        let endpoints = plan.find(&to).map(|(_, behind)| &behind.inside.backends);
        let endpoints = endpoints
            .into_iter()
            .flatten()
            .map(|backend| backend.endpoint.address);
        packets.extend(endpoints.filter_map(|from| packet(&from)));
    }
    packets
}

impl Node<'_> {
    /// Whether the rules do with a packet what is explained; if not, what differs.
    fn agrees(&self, packet: Packet) -> Result<(), String> {
        let here = self.own.contains(&packet.source);
        let explained = parfait_transport::explain(self.plan, &packet, here);
        let explained = explained.ok_or("not explained")?;
        let address_type = |address| match self.own.contains(&address) {
            true => AddressType::Local,
            false => AddressType::Unicast,
        };
        let mut context = Context::new(packet, &address_type);
        // Not a pod's interface: what a pod that nobody knows may do is the internet layer's.
        context.iifname = (!here).then_some("eth1");
        let first = if here { Hook::Output } else { Hook::Prerouting };
        let branches = evaluate(&self.tables, first, &context);
        let Some(_) = explained.refused else {
            return self.translates(&explained, &context, &branches);
        };
        let refused =
            |branches: &[Branch]| branches.iter().all(|b| matches!(b.end, End::Rejected(_)));
        let to_node = self.own.contains(&packet.destination);
        match (explained.silent, here) {
            (true, _) if branches.iter().all(|b| b.end == End::Dropped) => Ok(()),
            (false, true) if refused(&branches) => Ok(()),
            (false, false) if branches.iter().all(|b| b.packet == packet) => {
                context.oifname = (!to_node).then_some("eth0");
                let then = if to_node { Hook::Input } else { Hook::Forward };
                let branches = evaluate(&self.tables, then, &context);
                refused(&branches)
                    .then_some(())
                    .ok_or(format!("{branches:?}"))
            }
            _ => Err(format!("{explained:?}, but {branches:?}")),
        }
    }

    /// To every candidate, each as likely, and with the source that is explained.
    fn translates(
        &self,
        explained: &Explanation,
        context: &Context<'_>,
        branches: &[Branch],
    ) -> Result<(), String> {
        let count = u64::try_from(explained.candidates.len()).expect("few");
        let reached = branches
            .iter()
            .map(|b| (b.packet.destination, b.packet.destination_port, b.weight));
        let reached: BTreeSet<_> = reached.collect();
        let wanted = explained
            .candidates
            .iter()
            .map(|c| (c.endpoint.address, c.port, (1, count)));
        let wanted: BTreeSet<_> = wanted.collect();
        if reached != wanted {
            return Err(format!("explained {wanted:?}, but {reached:?}"));
        }
        let here = context.iifname.is_none();
        for branch in branches {
            let client = context.packet.source;
            let original = Some(context.packet);
            let mut context = Context {
                packet: branch.packet,
                oifname: Some("eth0"),
                original,
                ..*context
            };
            if !here {
                let passed = evaluate(&self.tables, Hook::Forward, &context);
                if passed.iter().any(|branch| branch.end != End::Accepted) {
                    return Err(format!("forwarded: {passed:?}"));
                }
            }
            context.ct_status = parfait_linux::nft::evaluate::ct_status::DNAT;
            let source =
                parfait_transport::source(self.plan, client, branch.packet.destination, here);
            let left = evaluate(&self.services, Hook::Postrouting, &context);
            if left
                .iter()
                .any(|branch| branch.masquerade == source.is_kept())
            {
                return Err(format!("{source:?}, but {left:?}"));
            }
        }
        Ok(())
    }
}
