//! Planning what changed gives what planning everything gives.

#[path = "../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;

use std::collections::BTreeSet;

use fixture::{DUAL, clusters};
use parfait_cluster::{Key, Object, ObjectName, Snapshot, TrafficPolicy};
use parfait_linux::nft::diff::Action;
use parfait_linux::nft::{DataType, NftStep, Tables, diff};
use parfait_transport::{Lowered, Plan, apply, plan, replan};
use proptest::prelude::*;

const SERVICES: &str = "service web ip=10.96.0.20,fd00:10:96::20 ports=http:80/TCP>8080
service api ip=10.96.0.21 ports=http:80/TCP>8080,dns:53/UDP>5353
service rival ip=10.96.0.20 ports=http:80/TCP>8080
service names ip=10.96.0.10 ports=dns:53/UDP servedByNode
slice web-a of=web ports=http:8080/TCP endpoints=10.244.1.3@node-1/web-1,10.244.2.2@node-2/web-2
slice web-b of=web ports=http:8080/TCP endpoints=10.244.1.4@node-1/web-3!notready
slice web-again of=web ports=http:8080/TCP endpoints=10.244.1.3@node-1/web-1,10.244.2.2@node-2/web-2
slice web-6 of=web ports=http:8080/TCP endpoints=fd00:10:244:1::3@node-1/web-1
slice api-a of=api ports=http:8080/TCP,dns:5353/UDP endpoints=10.244.1.3@node-1/web-1
slice rival-a of=rival ports=http:8080/TCP endpoints=10.244.2.9@node-2
pod web-1 on=node-1 ip=10.244.1.3,fd00:10:244:1::3 hostPorts=8080>80";

/// Everything that can come and go; each Service in several forms, which all look at the same slices.
fn objects() -> Vec<Object> {
    let snapshot = clusters(&[DUAL, SERVICES]);
    let mut objects: Vec<Object> = Vec::new();
    for service in snapshot.services.values() {
        objects.push(Object::Service(service.clone()));
        let mut outside = service.clone();
        outside.ports[0].node_port = Some(30_080);
        outside.outside.external_ips = vec!["192.0.2.7".parse().expect("an address")];
        outside.outside.load_balancer_ips = vec!["203.0.113.9".parse().expect("an address")];
        outside.outside.source_ranges = Some(vec!["198.51.100.0/24".parse().expect("a CIDR")]);
        outside.outside.policy = TrafficPolicy::Local;
        objects.push(Object::Service(outside.clone()));
        outside.affinity = Some(60);
        outside.internal_policy = TrafficPolicy::Local;
        objects.push(Object::Service(outside));
    }
    let slices = snapshot.slices.values();
    objects.extend(slices.map(|slice| Object::EndpointSlice((**slice).clone())));
    objects.extend(snapshot.pods.values().cloned().map(Object::Pod));
    objects
}

fn tables(plan: &Plan) -> Tables {
    let tables = apply(plan).into_iter();
    tables.map(|table| (table.key(), table)).collect()
}

/// The kernel refuses a whole transaction for two intervals that overlap.
#[test]
fn ranges_that_lie_in_others_are_left_out() {
    let mut snapshot = clusters(&[DUAL, SERVICES]);
    for service in snapshot.services.values_mut() {
        service.outside.load_balancer_ips = vec!["203.0.113.9".parse().expect("an address")];
        let ranges = ["10.1.0.0/16", "10.0.0.0/8", "10.0.0.0/8", "192.0.2.7/24"];
        let ranges = ranges.map(|range| range.parse().expect("a CIDR"));
        service.outside.source_ranges = Some(ranges.into());
    }
    let tables = tables(&plan(&snapshot, "node-1"));
    let sets = tables.values().map(|table| &table.sets["source_ranges"]);
    let keys = sets.flat_map(|set| set.elements.keys());
    let ranges: BTreeSet<String> = keys.map(|key| format!("{:?}", key[3])).collect();
    assert_eq!(
        ranges.into_iter().collect::<Vec<_>>(),
        ["Prefix(10.0.0.0/8)", "Prefix(192.0.2.0/24)"]
    );
}

/// This many Services with ten endpoints each (but `s1` has nine), and what it changes in the kernel if the last endpoint
/// of `s0` becomes this text.
fn steps_among(count: u32, last: &str) -> Vec<NftStep> {
    let mut text = String::from("config clusterCIDRs=10.244.0.0/16 serviceCIDRs=10.96.0.0/16\n");
    text.push_str("node node-1 pods=10.244.1.0/24 underlay=192.168.77.11/24\n");
    for n in 0..count {
        let (high, low) = (n / 200, n % 200 + 1);
        text.push_str(&format!(
            "service s{n} ip=10.96.{high}.{low} ports=http:80/TCP>8080\n"
        ));
        let ends = (1..=if n == 1 { 9 } else { 10 })
            .map(|end| format!("10.244.{}.{end}@node-2", 10 + n % 200));
        let ends = ends.collect::<Vec<_>>().join(",");
        text.push_str(&format!(
            "slice s{n}-a of=s{n} ports=http:8080/TCP endpoints={ends}\n"
        ));
    }
    let before = clusters(&[&text]);
    let after = clusters(&[&text.replacen(",10.244.10.10@node-2", last, 1)]);
    let mut kept = plan(&before, "node-1");
    let mut lowered = Lowered::new(&kept);
    let slice = Key::EndpointSlice(ObjectName::new("default", "s0-a"));
    let changes = replan(&mut kept, &after, &[slice].into());
    let patch = lowered.reapply(&kept, &changes);
    diff(&patch.before, &patch.after)
}

/// kubernetes/kubernetes#139513, #135639, #126013: what goes to the kernel for one endpoint depends on its Service alone.
#[test]
fn one_endpoint_costs_the_same_among_a_thousand_services() {
    let another = ",10.244.9.9@node-2";
    let alone = steps_among(1, another);
    assert_eq!(alone.len(), 2, "{alone:#?}");
    assert_eq!(steps_among(1000, another), alone);
}

/// Where an element with a verdict or a rule comes, the kernel walks all verdict maps of the table
/// (`nf_tables_validate`), so that a change would cost what all Services cost.
#[test]
fn another_number_of_endpoints_brings_no_verdict() {
    let steps = steps_among(3, "");
    let printed: Vec<String> = steps.iter().map(ToString::to_string).collect();
    assert_eq!(
        steps.len(),
        4,
        "from one of each map to the other: {printed:#?}"
    );
    for step in &steps {
        match &step.action {
            Action::AddElements(_, kind, _) => {
                assert_ne!(kind.data, DataType::Verdict, "{printed:#?}");
            }
            Action::DeleteElements(..) => {}
            other => panic!("{other:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_changed_and_everything_come_to_the_same(
        events in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 1..24),
    ) {
        let objects = objects();
        let mut snapshot: Snapshot = clusters(&[DUAL]);
        let mut kept = plan(&snapshot, "node-1");
        let mut lowered = Lowered::new(&kept);
        let mut held = tables(&kept);
        for (index, comes) in events {
            let object = index.get(&objects);
            let key: Key = object.key();
            match comes {
                true => snapshot.insert(object.clone()),
                false => snapshot.remove(&key),
            }
            let changes = replan(&mut kept, &snapshot, &BTreeSet::from([key]));
            let patch = lowered.reapply(&kept, &changes);
            for step in diff(&patch.before, &patch.after) {
                diff::apply(&mut held, &step);
            }
            let fresh = plan(&snapshot, "node-1");
            prop_assert_eq!(&kept, &fresh);
            prop_assert_eq!(&held, &tables(&fresh));
            // Nor does a comment name an object that gave way to another.
            prop_assert_eq!(diff(&held, &tables(&fresh)).len(), 0);
        }
    }
}
