//! One Service of very many endpoints: what a change of one of them costs, what a plan keeps of the others, and that it
//! comes to what planning everything comes to.

#[path = "../../../model/cluster/tests/fixture/large.rs"]
mod large;
#[path = "../../../edges/kernel/tests/support/processor_time.rs"]
mod processor_time;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use large::{Dice, Large, OURS};
use parfait_cluster::{Endpoint, EndpointSlice, Key, Object, ObjectName, Snapshot, TrafficPolicy};
use parfait_linux::nft::{Tables, diff};
use parfait_transport::{Lowered, Plan, apply, plan, replan};
use processor_time::processor_time;

/// As many as a node leads to, and some more.
const SOME: u32 = 10_000;

/// Changes some endpoint of one slice.
fn change(snapshot: &mut Snapshot, slice: &ObjectName, how: impl Fn(&mut Endpoint)) -> Key {
    let mut slice = EndpointSlice::clone(&snapshot.slices[slice]);
    how(Arc::make_mut(&mut slice.endpoints[0]));
    let object = Object::EndpointSlice(slice);
    let key = object.key();
    snapshot.insert(object);
    key
}

fn names(snapshot: &Snapshot) -> Vec<ObjectName> {
    snapshot.slices.keys().cloned().collect()
}

fn tables(plan: &Plan) -> Tables {
    let tables = apply(plan).into_iter();
    tables.map(|table| (table.key(), table)).collect()
}

#[test]
fn a_plan_holds_nothing_of_whom_it_did_not_choose() {
    let snapshot = Large::even(1, SOME).snapshot();
    let plan = plan(&snapshot, OURS);
    let endpoints = snapshot.slices.values().flat_map(|slice| &slice.endpoints);
    let held = endpoints.filter(|endpoint| Arc::strong_count(endpoint) > 1);
    assert_eq!(held.count(), 8192);
    let behind = plan.services.values().flat_map(|s| s.frontends.values());
    let others = behind.map(|behind| behind.passed_over(&behind.inside, &plan.here).len());
    assert_eq!(others.collect::<Vec<_>>(), [10_000 - 8192]);
}

#[test]
fn who_was_not_chosen_is_nothing_to_the_tables() {
    let mut snapshot = Large::even(1, SOME).snapshot();
    let mut kept = plan(&snapshot, OURS);
    let mut lowered = Lowered::new(&kept);
    let mut elements = |chosen: bool| {
        let is = |slice: &&Arc<EndpointSlice>| {
            let chosen_now = Arc::strong_count(&slice.endpoints[0]) > 1;
            chosen_now == chosen
        };
        let name = snapshot.slices.values().find(is).expect("one").name.clone();
        let key = change(&mut snapshot, &name, |endpoint| endpoint.ready ^= true);
        let changes = replan(&mut kept, &snapshot, &BTreeSet::from([key]));
        assert_eq!(changes.services.len(), 1);
        let patch = lowered.reapply(&kept, &changes);
        let sets = patch.after.values().flat_map(|table| table.sets.values());
        sets.map(|set| set.elements.len()).sum::<usize>()
    };
    assert_eq!(elements(false), 0);
    assert!(elements(true) > 8192);
}

/// A Service of 200,000 endpoints in slices of a thousand, the most that the API takes.
fn huge() -> Snapshot {
    let mut snapshot = Large::even(1, 200_000).snapshot();
    let slices: Vec<EndpointSlice> = snapshot.slices.values().map(|s| (**s).clone()).collect();
    for few in slices.chunks(10) {
        let mut one = few[0].clone();
        one.endpoints = few
            .iter()
            .flat_map(|slice| slice.endpoints.clone())
            .collect();
        for slice in few {
            snapshot.remove(&Key::EndpointSlice(slice.name.clone()));
        }
        snapshot.insert(Object::EndpointSlice(one));
    }
    snapshot
}

/// In processor time, and the least of some, because a machine that others use as well is slower for both.
#[test]
fn one_endpoint_is_planned_without_a_look_at_the_others() {
    let mut snapshot = huge();
    let names = names(&snapshot);
    let mut kept = plan(&snapshot, OURS);
    let costs = names.iter().step_by(50).map(|name| {
        let key = change(&mut snapshot, name, |endpoint| endpoint.ready ^= true);
        let start = processor_time();
        let changes = replan(&mut kept, &snapshot, &BTreeSet::from([key]));
        let changed = processor_time();
        assert_eq!(changes.services.len(), 1);
        let fresh = plan(&snapshot, OURS);
        let planned = processor_time();
        assert!(kept == fresh);
        [changed - start, planned - changed]
    });
    let costs: Vec<[Duration; 2]> = costs.collect();
    let [change, all] = [0, 1].map(|of| costs.iter().map(|cost| cost[of]).min());
    assert!(change.expect("some") * 2 < all.expect("some"), "{costs:?}");
}

/// Endpoints become ready, are hinted, and go; the node moves to another zone, and the Service's policy changes.
#[test]
fn what_changed_and_everything_come_to_the_same() {
    let mut snapshot = Large::even(1, SOME).snapshot();
    let names = names(&snapshot);
    let mut dice = Dice(7);
    let mut kept = plan(&snapshot, OURS);
    let mut lowered = Lowered::new(&kept);
    let mut held = tables(&kept);
    for round in 0..40 {
        let slice = &names[dice.below(names.len() as u32) as usize];
        let key = match round % 8 {
            0 => {
                let key = Key::EndpointSlice(slice.clone());
                snapshot.remove(&key);
                key
            }
            3 => {
                let node = snapshot.nodes.get_mut(OURS).expect("our node");
                node.zone = Some(format!("zone-{}", dice.below(3)));
                Key::Node(OURS.to_owned())
            }
            5 => {
                let service = snapshot.services.values_mut().next().expect("a Service");
                service.internal_policy = match service.internal_policy {
                    TrafficPolicy::Cluster => TrafficPolicy::Local,
                    TrafficPolicy::Local => TrafficPolicy::Cluster,
                };
                Key::Service(service.name.clone())
            }
            _ if !snapshot.slices.contains_key(slice) => continue,
            1 | 2 => change(&mut snapshot, slice, |endpoint| endpoint.ready ^= true),
            _ => change(&mut snapshot, slice, |endpoint| {
                endpoint.zone_hints = vec!["zone-1".to_owned()];
            }),
        };
        let changes = replan(&mut kept, &snapshot, &BTreeSet::from([key]));
        let patch = lowered.reapply(&kept, &changes);
        for step in diff(&patch.before, &patch.after) {
            diff::apply(&mut held, &step);
        }
        let fresh = plan(&snapshot, OURS);
        assert!(kept == fresh, "round {round}");
        assert!(held == tables(&fresh), "round {round}");
    }
}
