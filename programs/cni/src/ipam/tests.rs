//! IPAM against a model, and killed at every moment.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::file::Moment;

fn id(number: u8) -> AttachmentId {
    AttachmentId {
        container: format!("c{number}"),
        ifname: "eth0".to_owned(),
    }
}

fn pf0() -> IfName {
    IfName::new("pf0").unwrap()
}

fn ranges(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn allocate(folder: &Path, number: u8, ranges: &[IpNet]) -> Result<Vec<String>, Error> {
    let mut ipam = Ipam::open(folder, "boot-1", &|_| {})?;
    let given = ipam.allocate(&id(number), ranges, &pf0(), "test")?;
    Ok(given.addresses.iter().map(ToString::to_string).collect())
}

fn release(folder: &Path, number: u8) {
    let mut ipam = Ipam::open(folder, "boot-1", &|_| {}).unwrap();
    ipam.release(&id(number)).unwrap();
}

#[test]
fn the_first_pod_gets_the_third_address_of_each_range() {
    let folder = tempfile::tempdir().unwrap();
    let ranges = ranges(&["10.244.1.0/24", "fd00:10:244:1::/64"]);
    let first = ["10.244.1.2", "fd00:10:244:1::2"];
    assert_eq!(allocate(folder.path(), 1, &ranges).unwrap(), first);
    assert_eq!(allocate(folder.path(), 1, &ranges).unwrap(), first, "again");
    release(folder.path(), 1);
    release(folder.path(), 1);
    let second = ["10.244.1.3", "fd00:10:244:1::3"];
    assert_eq!(
        allocate(folder.path(), 2, &ranges).unwrap(),
        second,
        "not reused at once"
    );
}

#[test]
fn a_full_range_says_so_and_what_comes_back_is_given_again() {
    let folder = tempfile::tempdir().unwrap();
    // .0, .1 and .7 are reserved.
    let ranges = ranges(&["10.244.1.0/29"]);
    for number in 0..5 {
        allocate(folder.path(), number, &ranges).unwrap();
    }
    let error = allocate(folder.path(), 5, &ranges).unwrap_err();
    assert_eq!(error.code, Code::Exhausted);
    assert!(
        error.message.contains("10.244.1.0/29 (5 addresses"),
        "{error}"
    );
    release(folder.path(), 3);
    assert_eq!(allocate(folder.path(), 5, &ranges).unwrap(), ["10.244.1.5"]);
    for tiny in ["10.244.1.0/31", "10.244.1.0/32", "fd00::/128"] {
        let folder = tempfile::tempdir().unwrap();
        let error = allocate(folder.path(), 0, &self::ranges(&[tiny])).unwrap_err();
        assert_eq!(error.code, Code::Exhausted, "{tiny}");
    }
}

#[test]
fn nothing_outlives_a_reboot() {
    let folder = tempfile::tempdir().unwrap();
    let ranges = ranges(&["10.244.1.0/29"]);
    for number in 0..5 {
        allocate(folder.path(), number, &ranges).unwrap();
    }
    let mut ipam = Ipam::open(folder.path(), "boot-2", &|_| {}).unwrap();
    assert_eq!(ipam.find(&id(1)), None);
    assert!(ipam.allocate(&id(9), &ranges, &pf0(), "test").is_ok());
}

#[test]
fn a_damaged_file_is_an_error_and_a_lost_one_is_rebuilt() {
    let folder = tempfile::tempdir().unwrap();
    let ranges = ranges(&["10.244.1.0/24"]);
    allocate(folder.path(), 1, &ranges).unwrap();
    let path = folder.path().join("ipam/allocations.json");
    std::fs::write(&path, "{").unwrap();
    let error = allocate(folder.path(), 2, &ranges).unwrap_err();
    assert!(error.to_string().contains("Move the file away"), "{error}");
    std::fs::remove_file(&path).unwrap();
    let mut ipam = Ipam::open(folder.path(), "boot-1", &|_| {}).unwrap();
    assert!(ipam.is_fresh());
    ipam.adopt(&IfName::new("pf7").unwrap(), "10.244.1.2".parse().unwrap());
    let given = ipam.allocate(&id(2), &ranges, &pf0(), "test").unwrap();
    assert_eq!(given.addresses, ["10.244.1.3".parse::<IpAddr>().unwrap()]);
}

/// Runs `change` with a kill at `moment`; whether it was killed.
fn killed(folder: &Path, moment: Moment, change: impl FnOnce(&mut Ipam<'_>)) -> bool {
    let hook = |now: Moment| {
        if now == moment {
            // Unwinding does what the kernel does to a killed process: locks go, files stay.
            std::panic::resume_unwind(Box::new("killed"));
        }
    };
    let run = std::panic::AssertUnwindSafe(|| {
        change(&mut Ipam::open(folder, "boot-1", &hook).unwrap());
    });
    std::panic::catch_unwind(run).is_err()
}

#[test]
fn killed_at_any_moment_it_leaves_the_old_or_the_new() {
    let ranges = ranges(&["10.244.1.0/24", "fd00:10:244:1::/64"]);
    for moment in [
        Moment::Created,
        Moment::HalfWritten,
        Moment::Written,
        Moment::Renamed,
    ] {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let kept = allocate(folder, 1, &ranges).unwrap();
        assert!(killed(folder, moment, |ipam| {
            let _ = ipam.allocate(&id(2), &ranges, &pf0(), "test");
        }));
        // Whether 2 was given or not, 1 keeps its addresses and nobody else gets them.
        assert_eq!(allocate(folder, 1, &ranges).unwrap(), kept, "{moment:?}");
        let two = allocate(folder, 2, &ranges).unwrap();
        let three = allocate(folder, 3, &ranges).unwrap();
        assert!(two != kept && three != kept && two != three, "{moment:?}");
        assert!(killed(folder, moment, |ipam| {
            let _ = ipam.release(&id(1));
        }));
        release(folder, 1);
        assert_eq!(allocate(folder, 2, &ranges).unwrap(), two, "{moment:?}");
    }
}

#[derive(Clone, Debug)]
enum Action {
    Allocate(u8),
    Release(u8),
    KilledWhileAllocating(u8),
}

fn action() -> impl Strategy<Value = Action> {
    (0u8..3, 0u8..8).prop_map(|(kind, number)| match kind {
        0 => Action::Allocate(number),
        1 => Action::Release(number),
        _ => Action::KilledWhileAllocating(number),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn an_address_has_one_owner(actions in prop::collection::vec(action(), 1..40)) {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let ranges = ranges(&["10.244.1.0/29", "fd00::/64"]);
        let mut model: BTreeMap<u8, Vec<String>> = BTreeMap::new();
        for action in actions {
            match action {
                Action::Allocate(number) => match allocate(folder, number, &ranges) {
                    Ok(given) => {
                        if let Some(had) = model.get(&number) {
                            prop_assert_eq!(had, &given);
                        }
                        let others = model.iter().filter(|(other, _)| **other != number);
                        for address in &given {
                            prop_assert!(others.clone().all(|(_, theirs)| !theirs.contains(address)));
                            prop_assert!(!["10.244.1.0", "10.244.1.1", "10.244.1.7", "fd00::", "fd00::1"].contains(&address.as_str()));
                        }
                        model.insert(number, given);
                    }
                    Err(error) => {
                        prop_assert_eq!(error.code, Code::Exhausted);
                        prop_assert_eq!(model.len(), 5);
                    }
                },
                Action::Release(number) => {
                    release(folder, number);
                    model.remove(&number);
                }
                Action::KilledWhileAllocating(number) => {
                    // The runtime does not know whether it worked, and sends a DEL.
                    let ranges = ranges.clone();
                    killed(folder, Moment::Written, |ipam| {
                        let _ = ipam.allocate(&id(number), &ranges, &pf0(), "test");
                    });
                    release(folder, number);
                    model.remove(&number);
                }
            }
        }
    }
}
