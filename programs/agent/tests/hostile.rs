//! Whatever stands in the API, the kernel takes the tables that are planned of it, whole, and holds then what was
//! planned: one bad object does not keep a node from following the others.
//!
//! Needs root (or a user namespace).

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

#[path = "../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;
#[path = "../../../model/cluster/tests/fixture/hostile.rs"]
mod hostile;

use std::io::Write as _;

use parfait_cluster::Object;
use parfait_join::NodePlan;
use parfait_kernel::NetNs;
use parfait_kernel::nft::NftSocket;
use parfait_linux::nft::diff;
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};

/// How many clusters the kernel is led through, one after the other.
const CLUSTERS: u32 = 96;

#[test]
fn the_kernel_takes_what_is_planned_of_anything() {
    inside("the_kernel_takes_what_is_planned_of_anything", || {
        let config = ProptestConfig {
            failure_persistence: None,
            // The kernel holds what the case before left.
            max_shrink_iters: 256,
            ..ProptestConfig::with_cases(CLUSTERS)
        };
        let led = TestRunner::new(config).run(&hostile::mistakes(), |mistakes| {
            lead_to(hostile::spoil(&mistakes)).map_err(TestCaseError::fail)
        });
        led.unwrap_or_else(|error| panic!("{error}"));
    });
}

/// Comments name objects, and the kernel keeps only so much of a comment.
#[test]
fn names_may_be_as_long_as_the_api_allows() {
    inside("names_may_be_as_long_as_the_api_allows", || {
        for length in (1..190).step_by(30).chain(190..=253) {
            lead_to(hostile::named(length)).unwrap_or_else(|error| panic!("{length}: {error}"));
        }
    });
}

fn inside(test: &str, run: impl FnOnce() + Send) {
    match NetNs::create() {
        Ok(netns) => netns.run(run).unwrap(),
        Err(error) => {
            let mut stderr = std::io::stderr();
            let _ = writeln!(stderr, "SKIP: {test}: {error}");
        }
    }
}

/// Leads the kernel from wherever it is to a cluster with these objects.
fn lead_to(objects: Vec<Object>) -> Result<(), String> {
    let mut snapshot = fixture::clusters(&[fixture::DUAL]);
    for object in objects {
        snapshot.insert(object);
    }
    let tables = NodePlan::new(&snapshot, "node-1").state().tables;
    let mut netfilter = NftSocket::open().unwrap();
    let carried_out = netfilter.reconcile("parfait", &tables);
    carried_out.map_err(|error| error.to_string())?;
    let held = netfilter.observe(|_, table| table == "parfait").unwrap();
    let left = diff(&held.tables, &tables);
    match left.first() {
        None => Ok(()),
        Some(first) => Err(format!("{} steps are left, the first: {first}", left.len())),
    }
}
