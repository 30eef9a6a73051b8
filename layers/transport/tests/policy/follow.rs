//! A plan that follows random changes of a random cluster is the plan of the whole, and what differs in the tables leads
//! there.

use std::collections::BTreeSet;

use parfait_cluster::{Key, Object, Snapshot};
use parfait_linux::nft::{Table, Tables, diff};
use parfait_transport::policy::{self, Planner};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::changed::changed;
use crate::{random, snapshot};

const NODE: &str = "node-1";

/// What another snapshot has under a key, for [`Snapshot::insert`].
fn object(snapshot: &Snapshot, key: &Key) -> Option<Object> {
    match key {
        Key::Config => Some(Object::Config(snapshot.config.clone())),
        Key::Node(name) => snapshot.nodes.get(name).cloned().map(Object::Node),
        Key::Pod(name) => snapshot.pods.get(name).cloned().map(Object::Pod),
        Key::Service(name) => snapshot.services.get(name).cloned().map(Object::Service),
        Key::EndpointSlice(name) => {
            let slice = snapshot.slices.get(name);
            slice.map(|slice| Object::EndpointSlice((**slice).clone()))
        }
        Key::Namespace(name) => {
            let namespace = snapshot.namespaces.get(name).cloned();
            namespace.map(Object::Namespace)
        }
        Key::NetworkPolicy(name) => {
            let policy = snapshot.policies.get(name).cloned();
            policy.map(Object::NetworkPolicy)
        }
        Key::ClusterNetworkPolicy(name) => {
            let policy = snapshot.cluster_policies.get(name).cloned();
            policy.map(Object::ClusterNetworkPolicy)
        }
        Key::NodeNetworkPolicy(name) => {
            let policy = snapshot.node_policies.get(name).cloned();
            policy.map(Object::NodeNetworkPolicy)
        }
        Key::LoadBalancerPool(name) => {
            let pool = snapshot.pools.get(name).cloned();
            pool.map(Object::LoadBalancerPool)
        }
    }
}

fn keyed(tables: Vec<Table>) -> Tables {
    let tables = tables.into_iter();
    tables.map(|table| (table.key(), table)).collect()
}

/// As they are held by who carries differences out.
fn held(tables: Vec<Table>) -> Tables {
    let mut held = Tables::new();
    for step in diff(&Tables::new(), &keyed(tables)) {
        diff::apply(&mut held, &step);
    }
    held
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 64,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_plan_that_follows_is_the_plan_of_the_whole(
        clusters in prop::collection::vec(random::objects(), 2..5),
        order in prop::collection::vec((any::<Index>(), 1_usize..4), 16),
        large in 0_usize..6,
    ) {
        let goals: Vec<Snapshot> = clusters.iter().map(snapshot).collect();
        let mut now = goals[0].clone();
        let mut planner = Planner::grouping(&now, NODE, large);
        let mut tables = held(policy::apply(planner.plan()));
        let mut order = order.into_iter().cycle();
        for goal in &goals[1..] {
            let mut left: Vec<Key> = changed(&now, goal).into_iter().collect();
            while !left.is_empty() {
                let (_, many) = order.next().expect("a cycle");
                let mut keys = BTreeSet::new();
                for _ in 0..many.min(left.len()) {
                    let (index, _) = order.next().expect("a cycle");
                    let key = left.remove(index.index(left.len()));
                    match object(goal, &key) {
                        Some(object) => now.insert(object),
                        None => now.remove(&key),
                    }
                    keys.insert(key);
                }
                let before = planner.plan().clone();
                planner.follow(&now, &keys);
                let fresh = Planner::grouping(&now, NODE, large);
                prop_assert_eq!(planner.plan(), fresh.plan(), "after {:?}", keys);
                let patch = policy::difference(&before, planner.plan());
                for step in diff(&patch.before, &patch.after) {
                    diff::apply(&mut tables, &step);
                }
                let wanted = keyed(policy::apply(fresh.plan()));
                let steps = diff(&tables, &wanted);
                prop_assert_eq!(steps, [], "after {:?}", keys);
            }
        }
    }
}
