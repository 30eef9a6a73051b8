//! Whatever stands in the API, nobody panics: it is read, planned for every node, followed as planned anew, explained,
//! and judged by `policy lint`, `list` and `matrix`.
//!
//! That the kernel takes what is planned of it is tested with the agent (`programs/agent/tests/hostile.rs`).

#[path = "../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;
#[path = "../../../model/cluster/tests/fixture/hostile.rs"]
mod hostile;

use std::collections::BTreeSet;

use parfait_cluster::{Object, Snapshot};
use parfait_inspect::{Detail, Question, explain, render};
use parfait_join::{Follower, NodePlan};
use parfait_packet::{Protocol, Verdict};
use parfait_transport::policy::{Effective, Matrix, lint, overview};
use proptest::prelude::*;

const NODE: &str = "node-1";

/// Who asks for whom.
const QUESTIONS: [(&str, &str); 9] = [
    ("pod/client", "svc/web:80"),
    ("pod/web-1", "svc/web:80"),
    ("pod/client", "svc/kept"),
    ("pod/client", "svc/db"),
    ("pod/client", "out:443"),
    ("pod/client", "pod/web-2:8080"),
    ("pod/client", "node/node-2:22"),
    ("203.0.113.9", "192.0.2.1:80"),
    ("203.0.113.9", "192.168.77.11:30080"),
];

fn question(from: &str, to: &str) -> Question {
    Question {
        from: from.parse().expect("a side"),
        to: to.parse().expect("a side"),
        port: None,
        protocol: None,
        family: None,
        source_port: None,
        namespace: None,
        size: None,
    }
}

/// The cluster with these objects, and the plan of a node that heard of them one by one.
fn follow(objects: &[Object]) -> (Snapshot, Follower) {
    let mut snapshot = fixture::clusters(&[fixture::DUAL]);
    let mut follower = Follower::new(&snapshot, NODE);
    for object in objects {
        let key = object.key();
        snapshot.insert(object.clone());
        follower.follow(&snapshot, &BTreeSet::from([key]));
    }
    (snapshot, follower)
}

/// Everything that anybody asks about policies.
fn judge(snapshot: &Snapshot) {
    let effective = Effective::of(snapshot);
    for pod in snapshot.pods.values() {
        let _ = overview(snapshot, &effective, pod);
    }
    let _ = lint(snapshot);
    let _ = Matrix::of(snapshot, &[], &[(Protocol::Tcp, 8080)], None);
}

#[test]
fn nothing_of_what_is_spoilt_is_wrong_by_itself() {
    let objects = hostile::spoil(&[]);
    assert_eq!(objects.len(), hostile::base().len());
    let (snapshot, _) = follow(&objects);
    let answer = explain(&snapshot, &question("203.0.113.9", "192.0.2.1:80"));
    let answer = answer.expect("an answer");
    assert_eq!(
        answer.verdict,
        Verdict::Delivered,
        "{}",
        render(&answer, Detail::Full)
    );
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(96)
    })]

    #[test]
    fn nobody_panics_at_what_stands_in_the_api(mistakes in hostile::mistakes()) {
        let (snapshot, follower) = follow(&hostile::spoil(&mistakes));
        for node in snapshot.nodes.keys() {
            let state = NodePlan::new(&snapshot, node).state();
            prop_assert!(!state.to_string().is_empty());
        }
        if snapshot.nodes.contains_key(NODE) {
            let fresh = NodePlan::new(&snapshot, NODE);
            prop_assert_eq!(&follower.plan().transport, &fresh.transport);
            prop_assert_eq!(&follower.plan().policy, &fresh.policy);
            prop_assert_eq!(follower.plan().state().to_string(), fresh.state().to_string());
        }
        for (from, to) in QUESTIONS {
            if let Ok(answer) = explain(&snapshot, &question(from, to)) {
                prop_assert!(!render(&answer, Detail::Full).is_empty());
            }
        }
        judge(&snapshot);
    }
}
