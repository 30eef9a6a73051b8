//! Who announces a load balancer's address; and that with peers that die, come back, flap and cannot hear each other
//! there is one holder again soon, and only one.

#[path = "../../../model/cluster/tests/fixture/balancers.rs"]
mod balancers;
#[path = "../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use balancers::{add_balancer, add_pool, hold};
use fixture::{APART, DUAL, THREE, clusters};
use parfait_cluster::{Hearing, ObjectName, Snapshot, TrafficPolicy};
use parfait_internet::announce::find;
use parfait_internet::liveness::{BACK, BEAT, SILENCE};
use parfait_internet::{Announced, Beat, Liveness, announced, apply, holder, peers, plan};
use parfait_linux::{Route, RouteProtocol};
use proptest::prelude::*;
use serde_json::json;

const SLICE: &str = "slice web-a of=web ports=http:8080/TCP \
    endpoints=10.244.1.3@node-1/web-1!notready,10.244.2.2@node-2/web-2,10.244.3.2@node-3/web-3";

/// A cluster with one load balancer that has this address.
fn with(cluster: &str, announcement: &str, address: &str) -> Snapshot {
    let mut snapshot = clusters(&[cluster, SLICE]);
    snapshot
        .nodes
        .values_mut()
        .for_each(|node| node.ready = true);
    let addresses = json!([
        "192.168.77.200/29",
        "192.168.88.200",
        "192.0.2.1",
        "fd00:77::200"
    ]);
    let spec = json!({"addresses": addresses, "announcement": announcement});
    add_pool(&mut snapshot, "office", spec);
    add_balancer(&mut snapshot, "web", json!({}));
    hold(&mut snapshot, "web", &[address]);
    snapshot
}

fn one(snapshot: &Snapshot) -> Announced {
    let mut all = announced(snapshot);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn sorted(snapshot: &Snapshot) -> Vec<String> {
    let mut candidates = one(snapshot).candidates;
    candidates.sort();
    candidates
}

fn set_policy(snapshot: &mut Snapshot, policy: TrafficPolicy) {
    let web = ObjectName::new("default", "web");
    snapshot
        .services
        .get_mut(&web)
        .expect("there")
        .outside
        .policy = policy;
}

#[test]
fn candidates_are_on_the_segment_and_have_endpoints_where_that_matters() {
    let all = ["node-1", "node-2", "node-3"];
    for (cluster, announcement, address, wanted) in [
        (THREE, "Neighbor", "192.168.77.200", &all[..]),
        (APART, "Neighbor", "192.168.77.200", &all[..2]),
        (APART, "Neighbor", "192.168.88.200", &all[2..]),
        (APART, "Neighbor", "192.0.2.1", &all[..]),
        (APART, "BGP", "192.168.77.200", &all[..]),
        (DUAL, "Neighbor", "fd00:77::200", &all[..2]),
        (THREE, "Neighbor", "fd00:77::200", &[]),
    ] {
        let mut snapshot = with(cluster, announcement, address);
        assert_eq!(sorted(&snapshot), wanted, "{announcement} {address}");
        set_policy(&mut snapshot, TrafficPolicy::Local);
        let six = address.contains(':');
        let serving = wanted.iter().filter(|name| **name != "node-1" && !six);
        let serving: Vec<_> = serving.copied().collect();
        assert_eq!(
            sorted(&snapshot),
            serving,
            "{announcement} {address}, Local"
        );
    }
    for announcement in ["None", "Sometimes"] {
        let snapshot = with(THREE, announcement, "192.168.77.200");
        assert_eq!(announced(&snapshot), [], "{announcement}");
    }
    let mut snapshot = with(THREE, "Neighbor", "192.168.77.200");
    hold(&mut snapshot, "web", &["203.0.113.9"]);
    assert_eq!(announced(&snapshot), [], "it is in no pool");
}

#[test]
fn addresses_spread_and_a_node_that_goes_moves_its_own_only() {
    let mut snapshot = with(THREE, "Neighbor", "192.168.77.200");
    let spec = json!({"addresses": ["192.168.77.64/26"]});
    add_pool(&mut snapshot, "office", spec);
    let first = |snapshot: &Snapshot| -> BTreeMap<IpAddr, String> {
        let service = &snapshot.services[&ObjectName::new("default", "web")];
        let all = (64..128).map(|last| IpAddr::from([192, 168, 77, last]));
        let holders = all.map(|ip| {
            (
                ip,
                find(snapshot, service, ip)
                    .expect("in the pool")
                    .candidates
                    .remove(0),
            )
        });
        holders.collect()
    };
    let before = first(&snapshot);
    for node in ["node-1", "node-2", "node-3"] {
        let count = before.values().filter(|holder| *holder == node).count();
        assert!((12..=32).contains(&count), "{node} has {count} of 64");
    }
    snapshot.nodes.get_mut("node-2").expect("there").ready = false;
    for (ip, holder) in first(&snapshot) {
        match before[&ip].as_str() {
            "node-2" => assert_ne!(holder, "node-2"),
            kept => assert_eq!(holder, kept, "{ip}"),
        }
    }
}

/// Not a pod's, which the CNI plugin makes.
fn is_host(route: &Route) -> bool {
    route.destination.prefix_len() == 32 && route.protocol == RouteProtocol::PARFAIT
}

/// What a node's kernel gets for it.
fn held(snapshot: &Snapshot, node: &str) -> String {
    let plan = plan(snapshot, node, &BTreeMap::new());
    let state = apply(&plan);
    let addresses = state.addresses.values().map(|item| item.value.to_string());
    let routes = state.routes.values().map(|item| &item.value);
    let routes = routes.filter(|route| is_host(route));
    let routes = routes.map(ToString::to_string);
    addresses.chain(routes).collect::<Vec<_>>().join("\n")
}

#[test]
fn one_node_has_the_address_and_all_have_the_route() {
    let snapshot = with(THREE, "Neighbor", "192.168.77.200");
    let candidates = one(&snapshot).candidates;
    assert_eq!(
        held(&snapshot, &candidates[0]),
        "inet 192.168.77.200/32 scope host proto 0x70 eth0"
    );
    let state = apply(&plan(&snapshot, &candidates[0], &BTreeMap::new()));
    let lent = state.addresses.values().map(|item| item.value.lent);
    assert_eq!(lent.collect::<Vec<_>>(), [Some(2)]);
    assert_eq!(held(&snapshot, &candidates[1]), "");
    assert_eq!(peers(&snapshot, "node-1").len(), 2);
    let snapshot = with(THREE, "BGP", "192.0.2.1");
    for node in ["node-1", "node-2", "node-3"] {
        assert_eq!(
            held(&snapshot, node),
            "192.0.2.1 dev eth0 proto 112 scope link"
        );
    }
    assert_eq!(peers(&snapshot, "node-1").len(), 0, "nobody stands in");
    let state = apply(&plan(&snapshot, "node-1", &BTreeMap::new()));
    let route = state.routes.values().find(|item| is_host(&item.value));
    let origin = route
        .and_then(|item| item.origin.clone())
        .expect("it has one");
    assert_eq!(
        origin.to_string(),
        "Service default/web status.loadBalancer.ingress"
    );
}

#[test]
fn who_hears_what_decides_who_yields() {
    let (a, b, c) = ("node-a", "node-b", "node-c");
    let mut announced = one(&with(THREE, "Neighbor", "192.168.77.200"));
    announced.candidates = [a, b, c].map(str::to_owned).to_vec();
    let set = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<BTreeSet<_>>()
    };
    for (me, silent, deaf, wanted) in [
        (a, &[][..], &[][..], a),
        (b, &[], &[], a),
        (b, &[a], &[], b),
        (c, &[a], &[], b),
        (c, &[a, b], &[], c),
        // b has taken over from a, which it does not hear.
        (a, &[], &[b], b),
        // c does not hear a, but b does, and is before c.
        (a, &[], &[c], a),
        // Neither of the two has heard the other long enough again: the better one has it.
        (b, &[a], &[a], a),
        (a, &[b], &[b], a),
        // All alone.
        (a, &[b, c], &[], a),
    ] {
        let hearing = Hearing {
            silent: set(silent),
            deaf: set(deaf),
        };
        assert_eq!(
            holder(&announced, me, &hearing),
            Some(wanted),
            "{me} {hearing:?}"
        );
    }
}

#[test]
fn a_peer_is_gone_after_a_second_and_back_after_two() {
    let name = "node-2".to_owned();
    let beat = Beat {
        in_force: true,
        hears: true,
    };
    let at = Duration::from_millis;
    let mut liveness = Liveness::default();
    liveness.listen(&[name.clone()].into(), at(0));
    let silent = |liveness: &mut Liveness, millis| !liveness.hearing(at(millis)).silent.is_empty();
    assert!(!silent(&mut liveness, 1000), "it may still come");
    assert!(silent(&mut liveness, 1001));
    assert!(
        liveness.heard(&name, beat, at(5000)),
        "it may have stood in for us meanwhile"
    );
    for millis in (5200..7000).step_by(200) {
        assert!(!liveness.heard(&name, beat, at(millis)));
        assert!(silent(&mut liveness, millis), "{millis}");
    }
    liveness.heard(&name, beat, at(7000));
    assert!(!silent(&mut liveness, 7000));
    let out_of_force = Beat {
        in_force: false,
        ..beat
    };
    liveness.heard(&name, out_of_force, at(7200));
    assert!(silent(&mut liveness, 7200), "its rules are not there");
    let deaf = Beat {
        hears: false,
        ..beat
    };
    liveness.heard(&name, deaf, at(7400));
    assert_eq!(liveness.hearing(at(7400)).deaf.len(), 1);
    assert!(
        liveness.heard(&name, beat, at(7600)),
        "it had not heard us until now"
    );
}

/// Nodes, who of them runs, and which way beats get through.
struct World {
    announced: Announced,
    nodes: Vec<Option<Liveness>>,
    cut: BTreeSet<(usize, usize)>,
    now: Duration,
}

impl World {
    fn new() -> Self {
        let mut announced = one(&with(THREE, "Neighbor", "192.168.77.200"));
        announced.candidates = (0..3).map(name).collect();
        let nodes = vec![Some(Liveness::default()); 3];
        Self {
            announced,
            nodes,
            cut: BTreeSet::new(),
            now: Duration::ZERO,
        }
    }

    /// One round of beats; then everybody decides.
    fn step(&mut self) -> Vec<usize> {
        self.now += BEAT;
        let mut sent = Vec::new();
        for (from, node) in self.nodes.iter_mut().enumerate() {
            let Some(node) = node else { continue };
            let peers = (0..3).filter(|to| *to != from).map(name).collect();
            node.listen(&peers, self.now);
            let beats = node.beats().map(|(to, hears)| (from, to.to_owned(), hears));
            sent.extend(beats.collect::<Vec<_>>());
        }
        for (from, to, hears) in sent {
            let to: usize = to.parse().expect("a number");
            if let Some(node) = self.nodes[to]
                .as_mut()
                .filter(|_| !self.cut.contains(&(from, to)))
            {
                node.heard(
                    &name(from),
                    Beat {
                        in_force: true,
                        hears,
                    },
                    self.now,
                );
            }
        }
        let (announced, now) = (&self.announced, self.now);
        let nodes = self.nodes.iter_mut().enumerate();
        let holders = nodes.filter_map(|(index, node)| {
            let hearing = node.as_mut()?.hearing(now);
            (holder(announced, &name(index), &hearing) == Some(&name(index))).then_some(index)
        });
        holders.collect()
    }

    fn run(&mut self, time: Duration) -> Vec<usize> {
        let until = self.now + time;
        let mut holders = Vec::new();
        while self.now < until {
            holders = self.step();
        }
        holders
    }
}

fn name(index: usize) -> String {
    index.to_string()
}

#[test]
fn another_takes_over_in_about_a_second_and_gives_back_when_it_is_sure() {
    let mut world = World::new();
    assert_eq!(world.run(Duration::from_secs(3)), [0]);
    let before = world.now;
    world.nodes[0] = None;
    while world.step() != [1] {
        assert!(
            world.now - before < Duration::from_millis(1500),
            "nobody took over"
        );
    }
    assert_eq!(world.run(Duration::from_secs(3)), [1]);
    // It comes back, and flaps: nobody loses the address to it before it has been there for two seconds.
    for _ in 0..3 {
        world.nodes[0] = Some(Liveness::default());
        world.step();
        assert_eq!(world.step(), [1], "it hears that it is not heard");
        world.run(BACK / 2);
        world.nodes[0] = None;
        assert_eq!(world.run(SILENCE * 2), [1]);
    }
    world.nodes[0] = Some(Liveness::default());
    assert_eq!(world.run(BACK + SILENCE), [0]);
}

#[test]
fn an_agent_that_restarts_within_a_second_is_not_missed() {
    let mut world = World::new();
    world.run(Duration::from_secs(3));
    world.nodes[0] = None;
    for _ in 0..4 {
        assert_eq!(
            world.step(),
            Vec::<usize>::new(),
            "its kernel still has the address"
        );
    }
    world.nodes[0] = Some(Liveness::default());
    for _ in 0..20 {
        assert_eq!(world.step(), [0]);
    }
}

#[test]
fn halves_that_cannot_hear_each_other_have_a_holder_each_and_agree_when_they_meet() {
    let mut world = World::new();
    world.run(Duration::from_secs(3));
    world.cut = [(0, 1), (1, 0), (0, 2), (2, 0)].into();
    assert_eq!(
        world.run(Duration::from_secs(3)),
        [0, 1],
        "clients reach one or the other"
    );
    world.cut.clear();
    world.step();
    for _ in 0..30 {
        assert_eq!(world.step(), [0], "at once, and it stays so");
    }
}

proptest! {
    /// Whatever happened: some seconds after it ended, one node has the address if beats get through both ways or one.
    #[test]
    fn there_is_one_holder_in_the_end(
        events in prop::collection::vec((0..3usize, 0..3usize, 0..4u8, 1..20u32), 0..12),
        one_way in prop::option::of((0..3usize, 0..3usize)),
        dead in prop::option::of(0..3usize),
    ) {
        let mut world = World::new();
        for (a, b, what, steps) in events {
            match what {
                0 => drop(world.cut.insert((a, b))),
                1 => drop(world.cut.remove(&(a, b))),
                2 => world.nodes[a] = None,
                _ => { world.nodes[a].get_or_insert_default(); }
            }
            for _ in 0..steps {
                world.step();
            }
        }
        world.cut = one_way.into_iter().collect();
        for (index, node) in world.nodes.iter_mut().enumerate() {
            match dead == Some(index) {
                true => *node = None,
                false => { node.get_or_insert_default(); }
            }
        }
        world.run(BACK + SILENCE * 2);
        for _ in 0..20 {
            let holders = world.step();
            prop_assert_eq!(holders.len(), 1, "{:?} {:?} {:?}", holders, world.cut, dead);
        }
    }
}
