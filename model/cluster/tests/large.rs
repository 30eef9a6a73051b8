//! The generated clusters that tests and benchmarks use are what they say they are.

#[path = "fixture/large.rs"]
mod large;

use std::collections::BTreeSet;

use large::{Large, OURS};
use parfait_cluster::{ServiceType, Snapshot, settle};

fn sizes(snapshot: &Snapshot) -> Vec<usize> {
    let services = snapshot.services.keys();
    services
        .map(|name| snapshot.slices_of(name).map(|s| s.endpoints.len()).sum())
        .collect()
}

#[test]
fn a_mixed_cluster_has_many_small_services_and_few_large_ones() {
    let snapshot = Large::mixed(1_000, 25_000).snapshot();
    let sizes = sizes(&snapshot);
    assert_eq!(sizes.len(), 1_000);
    assert_eq!(sizes.iter().sum::<usize>(), 25_000);
    assert!(sizes.iter().filter(|size| **size <= 3).count() >= 700);
    let hundreds = sizes.iter().filter(|size| **size >= 200).count();
    assert!((3..50).contains(&hundreds), "{hundreds}");
    let slices = snapshot.slices.values();
    assert!(slices.clone().all(|slice| slice.endpoints.len() <= 100));
    let endpoints = slices.flat_map(|slice| &slice.endpoints);
    let addresses: BTreeSet<_> = endpoints.map(|endpoint| endpoint.address).collect();
    assert_eq!(addresses.len(), 25_000, "no address twice");
    let kinds = |kind| {
        let services = snapshot.services.values();
        services.filter(|service| service.kind == kind).count()
    };
    assert!((30..70).contains(&kinds(ServiceType::NodePort)));
    assert!((2..30).contains(&kinds(ServiceType::LoadBalancer)));
    assert!(!snapshot.pods.is_empty() && snapshot.pods_on(OURS).count() == snapshot.pods.len());
    assert!(settle(&snapshot).1.is_empty(), "its ranges do not overlap");
}

#[test]
fn an_even_cluster_has_services_of_one_size() {
    let snapshot = Large::even(300, 10).snapshot();
    assert_eq!(sizes(&snapshot), [10; 300]);
    let mut endpoints = snapshot.slices.values().flat_map(|slice| &slice.endpoints);
    assert!(endpoints.all(|endpoint| endpoint.ready));
}

#[test]
fn the_same_seed_gives_the_same_cluster() {
    let first = Large::mixed(100, 1_000);
    assert_eq!(first.snapshot(), first.snapshot());
    let other = Large { seed: 2, ..first };
    assert_ne!(first.snapshot(), other.snapshot());
}
