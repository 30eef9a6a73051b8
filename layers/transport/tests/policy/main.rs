//! NetworkPolicy and ClusterNetworkPolicy: what is planned, lowered and explained, against a second reading of the API
//! ([`reference`]) on random clusters; and as tables, with what users really write.

#[path = "../../../../model/cluster/tests/fixture/changed.rs"]
mod changed;
mod cluster;
mod cluster_tables;
mod effective;
#[path = "../../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;
mod follow;
mod lint;
mod node_advice;
mod node_tables;
mod policies;
mod random;
mod reference;
mod scale;
mod tables;

use std::net::IpAddr;

use parfait_cluster::{Direction, Parsed, Snapshot, parse};
use parfait_linux::nft::evaluate::ct_state;
use parfait_linux::nft::{AddressType, Context, End, Hook, Set, Tables, Value, evaluate};
use parfait_packet::{Family, Packet};
use parfait_transport::policy::group::LARGE;
use parfait_transport::policy::{self, Plan, Planner};
use policies::PORTS;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use random::{DNS, NODES, OUTSIDE, PROTOCOLS};
use reference::{Objects, Question};

/// How many random clusters; `PARFAIT_RUNS=NUMBER` says how many instead, `PARFAIT_SEED=NUMBER` which
/// (`cargo xtask oracle`).
const CLUSTERS: u32 = 1_000;

/// How many packets each is asked about.
const PACKETS: usize = 24;

/// A node's plan and tables.
struct Node {
    plan: Plan,
    tables: Tables,
}

/// The objects as the agent sees them, on two nodes.
fn snapshot(objects: &Objects) -> Snapshot {
    let mut snapshot = fixture::cluster(
        "node node-1 pods=10.244.1.0/24,fd00:10:244:1::/64 underlay=192.168.77.11/24,fd00:77::11/64
         node node-2 pods=10.244.2.0/24,fd00:10:244:2::/64 underlay=192.168.77.12/24,fd00:77::12/64",
    );
    let namespaces = objects.namespaces.iter().map(Parsed::Namespace);
    let all = namespaces
        .chain(objects.pods.iter().map(Parsed::Pod))
        .chain(objects.services.iter().map(Parsed::Service))
        .chain(objects.policies.iter().map(Parsed::NetworkPolicy))
        .chain(objects.cluster.iter().map(Parsed::ClusterNetworkPolicy))
        .chain(objects.of_nodes.iter().map(Parsed::NodeNetworkPolicy));
    for object in all {
        let (object, notes) = parse(object, &|_| Err("no configuration".to_owned()));
        let object = object.expect("an object");
        assert_eq!(notes, [], "{object:?}");
        snapshot.take(object.key(), Some(object), notes);
    }
    for (node, labels) in snapshot.nodes.values_mut().zip(&objects.nodes) {
        node.labels.clone_from(labels);
    }
    snapshot
}

/// `large` as for [`Planner::grouping`].
fn node(snapshot: &Snapshot, name: &str, large: usize) -> Node {
    let plan = Planner::grouping(snapshot, name, large);
    let plan = Plan::clone(plan.plan());
    let mut state = parfait_linux::State::default();
    for table in parfait_transport::apply(&parfait_transport::plan(snapshot, name)) {
        state.insert_table(table);
    }
    let mut policies = parfait_linux::State::default();
    for table in policy::apply(&plan) {
        policies.insert_table(table);
    }
    state.extend(policies);
    Node {
        plan,
        tables: state.tables,
    }
}

/// Whether the node's rules let a packet through.
fn passes(node: &Node, hook: Hook, packet: Packet, state: u32) -> bool {
    let elsewhere = |_| AddressType::Unicast;
    let mut context = Context::new(packet, &elsewhere);
    context.iifname = Some("pf0123456789ab");
    context.ct_state = state;
    if hook == Hook::Forward {
        context.oifname = Some("eth0");
    }
    let branches = evaluate(&node.tables, hook, &context);
    let [branch] = branches.as_slice() else {
        panic!("{branches:?}");
    };
    match branch.end {
        End::Accepted => true,
        End::Dropped => false,
        _ => panic!("{branch:?}"),
    }
}

/// On which node an address is, if on one.
fn place(address: &str) -> Option<usize> {
    let networks = [
        ["10.244.1.", "fd00:10:244:1:"],
        ["10.244.2.", "fd00:10:244:2:"],
    ];
    let here = |node: &usize| {
        let pods = networks[*node]
            .iter()
            .any(|start| address.starts_with(start));
        pods || NODES[*node].contains(&address)
    };
    (0..2).find(here)
}

/// Everybody who can send or be sent to.
fn parties(objects: &Objects) -> Vec<String> {
    let ips = objects.pods.iter().flat_map(|pod| {
        let status = pod.status.as_ref().expect("a status");
        status.pod_ips.iter().flatten().map(|ip| ip.ip.clone())
    });
    let others = OUTSIDE.iter().chain(NODES.iter().flatten());
    ips.chain(others.map(ToString::to_string)).collect()
}

/// A packet, and from where to where it goes.
struct Asked<'a> {
    packet: Packet,
    ends: [&'a str; 2],
    /// Whether the API lets it out of the sender, and in to the receiver.
    promised: [bool; 2],
    /// It goes to the node that its sender is on.
    to_own_node: bool,
    /// Whether the node that it goes to takes it, if it is to a node.
    taken: Option<bool>,
}

impl Asked<'_> {
    /// What is planned and explained is what is promised.
    fn planned(&self, snapshot: &Snapshot, nodes: &[Node]) -> Result<(), TestCaseError> {
        let packet = &self.packet;
        for (at, direction) in [Direction::Egress, Direction::Ingress]
            .into_iter()
            .enumerate()
        {
            let Some(node) = place(self.ends[at]).map(|node| &nodes[node]) else {
                continue;
            };
            let hook = match self.to_own_node {
                true => Hook::Input,
                false => Hook::Forward,
            };
            let explained = policy::explain(&node.plan, snapshot, packet, direction, hook);
            let planned = explained.as_ref().is_none_or(|e| e.accepted);
            let itself = self.ends[0] == self.ends[1];
            prop_assert!(
                itself || planned == self.promised[at],
                "{packet} {direction:?}: {explained:?}"
            );
            if let (Some(taken), Direction::Ingress) = (self.taken, direction) {
                let said = policy::explain_node(&node.plan, snapshot, packet);
                let said = said.is_none_or(|said| said.accepted);
                prop_assert_eq!(said, taken, "{} into a node", packet);
            }
            let denied = explained.filter(|explained| !explained.accepted);
            for near in denied.iter().flat_map(|denied| &denied.nearest) {
                prop_assert!(
                    near.steps > 0 && !near.hint.is_empty(),
                    "{packet}: {near:?}"
                );
            }
        }
        Ok(())
    }

    /// What is programmed is what is promised.
    fn programmed(&self, nodes: &[Node]) -> Result<(), TestCaseError> {
        let packet = self.packet;
        let [sender, receiver] = self.ends.map(place);
        let [out, within] = self.promised;
        if let (Some(taken), Some(node)) = (self.taken, receiver) {
            let promised = taken && (out || !self.to_own_node);
            let own = NODES[node].contains(&self.ends[0]);
            let passed = own || passes(&nodes[node], Hook::Input, packet, ct_state::NEW);
            prop_assert_eq!(passed, own || promised, "{} into node-{}", packet, node + 1);
        }
        if DNS.contains(&self.ends[1]) || self.to_own_node {
            let Some(node) = sender else { return Ok(()) };
            let passed = passes(&nodes[node], Hook::Input, packet, ct_state::NEW);
            let out = out && (self.taken != Some(false));
            prop_assert_eq!(passed, out, "{} at node-{}", packet, node + 1);
            return Ok(());
        }
        let is_node = |address: &str| NODES.iter().flatten().any(|own| *own == address);
        for (node, here) in nodes.iter().enumerate() {
            // What a node sends or receives itself is not forwarded there.
            let own = |address: &str| is_node(address) && place(address) == Some(node);
            if self.ends.iter().any(|end| own(end)) || ![sender, receiver].contains(&Some(node)) {
                continue;
            }
            let promised = (sender != Some(node) || out) && (receiver != Some(node) || within);
            let passed = passes(here, Hook::Forward, packet, ct_state::NEW);
            prop_assert_eq!(passed, promised, "{} at node-{}", packet, node + 1);
            let answer = packet.reply();
            let answered = passes(here, Hook::Forward, answer, ct_state::ESTABLISHED);
            prop_assert!(answered, "{} at node-{}", answer, node + 1);
        }
        Ok(())
    }
}

/// Asks the reference about one packet.
fn ask<'a>(
    objects: &Objects,
    ends: [&'a str; 2],
    protocol: &'a str,
    port: u16,
) -> Option<Asked<'a>> {
    let [from, to] = ends.map(|end| end.parse::<IpAddr>().expect("an address"));
    let question = Question {
        from,
        to,
        protocol,
        port: i32::from(port),
    };
    let packet = Packet::new(from, to, protocol.parse().expect("a protocol"), port)?;
    let promised = [
        reference::lets_out(objects, question),
        reference::lets_in(objects, question),
    ];
    let sender = reference::pod_at(objects, from);
    let to_own_node = sender.is_some_and(|pod| reference::is_own_node(pod, to));
    let taken = place(ends[1])
        .filter(|node| NODES[*node].contains(&ends[1]))
        .map(|node| cluster::node_takes(objects, question, node));
    Some(Asked {
        packet,
        ends,
        taken,
        promised,
        to_own_node,
    })
}

/// Whether two values of a field have anything in common.
fn meet(a: &Value, b: &Value) -> bool {
    a.covers(b)
        || b.covers(a)
        || match (a, b) {
            (Value::Ports(a, b), Value::Ports(c, d)) => a <= d && c <= b,
            _ => false,
        }
}

/// The kernel takes no two elements of an interval set that overlap.
fn overlap(set: &Set) -> bool {
    let keys: Vec<_> = set.elements.keys().collect();
    let mut pairs = keys
        .iter()
        .enumerate()
        .flat_map(|(at, a)| keys[at + 1..].iter().map(move |b| (a, b)));
    pairs.any(|(a, b)| a.iter().zip(b.iter()).all(|(a, b)| meet(a, b)))
}

fn number<T: std::str::FromStr>(key: &str) -> Option<T> {
    std::env::var(key).ok().and_then(|text| text.parse().ok())
}

/// Printed, so that a failure says how it is repeated.
fn seed() -> RngSeed {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = number("PARFAIT_SEED").unwrap_or_else(|| now.map_or(0, |now| now.as_secs()));
    println!("PARFAIT_SEED={seed}");
    RngSeed::Fixed(seed)
}

fn packets() -> impl Strategy<Value = Vec<(usize, usize, &'static str, u16)>> {
    let one = (
        any::<usize>(),
        any::<usize>(),
        prop::sample::select(&PROTOCOLS[..]),
        prop::sample::select(&PORTS[..]),
    );
    prop::collection::vec(one, PACKETS)
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: number("PARFAIT_RUNS").unwrap_or(CLUSTERS),
        rng_seed: seed(),
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_is_programmed_is_what_the_api_promises(
        objects in random::objects(),
        packets in packets(),
        large in prop_oneof![Just(LARGE), 0_usize..6],
    ) {
        let snapshot = snapshot(&objects);
        let nodes = ["node-1", "node-2"].map(|name| node(&snapshot, name, large));
        for table in nodes.iter().flat_map(|node| node.tables.values()) {
            for (name, set) in table.sets.iter().filter(|(_, set)| set.interval) {
                prop_assert!(!overlap(set), "{}: {:?}", name, set);
            }
        }
        let parties = parties(&objects);
        let families = |family| parties.iter().filter(move |p| Family::of(p.parse().expect("an address")) == family);
        for (from, to, protocol, port) in packets {
            for family in Family::ALL {
                let senders: Vec<_> = families(family).cloned().collect();
                let dns = DNS[usize::from(family == Family::Ipv6)].to_owned();
                let receivers: Vec<_> = families(family).cloned().chain([dns]).collect();
                let ends = [&senders[from % senders.len()], &receivers[to % receivers.len()]];
                let asked = ask(&objects, ends.map(String::as_str), protocol, port).expect("one family");
                asked.planned(&snapshot, &nodes)?;
                asked.programmed(&nodes)?;
            }
        }
    }
}
