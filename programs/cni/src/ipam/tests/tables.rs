//! Cases by name.

use super::super::*;
use super::model::{Node, id, ranges};

const DUAL: [&str; 2] = ["10.244.1.0/24", "fd00:10:244:1::/64"];

fn texts(addresses: &[IpAddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

fn add(node: &mut Node, number: u8) -> Result<Vec<String>, Error> {
    node.add(number, &[], None)
        .unwrap()
        .map(|given| texts(&given))
}

fn wish(node: &mut Node, number: u8, wished: &[&str]) -> Result<Vec<String>, Error> {
    let wished: Vec<IpAddr> = wished.iter().map(|ip| ip.parse().unwrap()).collect();
    node.add(number, &wished, None)
        .unwrap()
        .map(|given| texts(&given))
}

#[test]
fn the_first_pod_gets_the_third_address_of_each_range() {
    let mut node = Node::new(&DUAL);
    let first = ["10.244.1.2", "fd00:10:244:1::2"];
    assert_eq!(add(&mut node, 1).unwrap(), first);
    assert_eq!(add(&mut node, 1).unwrap(), first, "again");
    node.del(1, None);
    node.del(1, None);
    let second = ["10.244.1.3", "fd00:10:244:1::3"];
    assert_eq!(add(&mut node, 2).unwrap(), second, "not reused at once");
}

#[test]
fn a_full_range_says_so_and_what_comes_back_is_given_again() {
    // .0, .1 and .7 are reserved.
    let mut node = Node::new(&["10.244.1.0/29"]);
    for number in 0..5 {
        add(&mut node, number).unwrap();
    }
    let error = add(&mut node, 5).unwrap_err();
    assert_eq!(error.code, Code::Exhausted);
    assert!(
        error.message.contains("10.244.1.0/29 (5 in use)"),
        "{error}"
    );
    node.del(3, None);
    assert_eq!(add(&mut node, 5).unwrap(), ["10.244.1.5"]);
    // A namespace whose file is gone lives on with its processes: its interface says so.
    std::fs::remove_file(node.netns(2)).unwrap();
    assert_eq!(add(&mut node, 6).unwrap_err().code, Code::Exhausted);
    // One whose DEL was lost: its interface and its namespace went with its container.
    std::fs::remove_file(node.netns(1)).unwrap();
    let interface = node.wanted(1, &[]).interface;
    node.kernel.0.links.retain(|_, link| *link != interface);
    node.kernel.0.routes.retain(|_, link| *link != interface);
    assert_eq!(add(&mut node, 6).unwrap(), ["10.244.1.3"]);
}

#[test]
fn several_ranges_of_a_family_are_used_up_in_their_order() {
    let mut node = Node::new(&["10.1.0.0/30", "10.2.0.0/30", "fd00::/64"]);
    assert_eq!(add(&mut node, 1).unwrap(), ["10.1.0.2", "fd00::2"]);
    assert_eq!(add(&mut node, 2).unwrap(), ["10.2.0.2", "fd00::3"]);
    // The node's range changes: what is in use stays, and is not given again.
    node.ranges = ranges(&["10.2.0.0/29"]);
    assert_eq!(add(&mut node, 3).unwrap(), ["10.2.0.3"]);
    assert_eq!(node.names().len(), 3);
}

#[test]
fn an_address_that_is_asked_for_is_given_or_refused_with_its_owner() {
    let mut node = Node::new(&DUAL);
    let both = ["10.244.1.9", "fd00:10:244:1::9"];
    assert_eq!(
        wish(&mut node, 1, &["10.244.1.9"]).unwrap()[0],
        "10.244.1.9"
    );
    for (wished, part) in [
        (&["10.244.1.9"][..], "in use by container c1/eth0"),
        (&["10.244.1.1"], "the node's own address"),
        (&["10.244.1.0"], "the first address"),
        (&["10.244.1.255"], "the broadcast address"),
        (
            &["10.9.9.9"],
            "in none of this node's pod ranges (10.244.1.0/24, ",
        ),
        (&["10.244.1.4", "10.244.1.5"], "one address of a family"),
    ] {
        let error = wish(&mut node, 2, wished).unwrap_err();
        assert!(error.message.contains(part), "{error}");
    }
    node.del(1, None);
    assert_eq!(wish(&mut node, 2, &both).unwrap(), both);
    // Another wish for the same container: the old address is free as soon as it is attached.
    assert_eq!(
        wish(&mut node, 2, &["10.244.1.8"]).unwrap()[0],
        "10.244.1.8"
    );
    assert_eq!(wish(&mut node, 3, &both).unwrap(), both);
}

#[test]
fn ranges_that_cannot_be_used_are_refused() {
    let own = [("10.1.0.9/32".parse().unwrap(), "this node's own address")];
    for (texts, part) in [
        (&["10.244.1.0/31"][..], "too small"),
        (&["10.244.1.0/32"], "too small"),
        (&["fd00::/127"], "too small"),
        (&["fd00::/128"], "too small"),
        (&["10.0.0.0/24", "10.0.0.128/25"], "overlap"),
        (&["10.1.0.0/24"], "this node's own address 10.1.0.9/32"),
    ] {
        let error = Pool::parse(&ranges(texts), &own).unwrap_err();
        assert!(error.message.contains(part), "{error}");
        assert!(!error.details.is_empty());
    }
}

#[test]
fn a_damaged_file_keeps_its_addresses_and_is_told() {
    let mut node = Node::new(&["10.244.1.0/29"]);
    for number in 1..=2 {
        add(&mut node, number).unwrap();
    }
    let path = node.store().path(&node.names()[0]);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, &text[..20]).unwrap();
    let error = node.ipam().find(&id(1)).unwrap_err();
    let place = format!("{}, line 1", path.display());
    assert!(error.message.contains(&place), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text[..20]);
    let (records, errors) = read_all(node.folder.path()).unwrap();
    assert_eq!((records.len(), errors.len()), (1, 1));
    assert_eq!(add(&mut node, 3).unwrap(), ["10.244.1.4"]);
    // DEL finds its interface by its addresses.
    node.del(1, None);
    assert_eq!(node.kernel.0.links.len(), 2);
    assert_eq!(node.names().len(), 2);
}

#[test]
fn what_a_newer_parfait_wrote_is_not_touched() {
    let mut node = Node::new(&["10.244.1.0/29"]);
    add(&mut node, 1).unwrap();
    std::fs::write(node.store().version(), "2\n").unwrap();
    let ipam = node.ipam();
    let results = [
        add(&mut node, 2).unwrap_err(),
        ipam.release(&id(1), &mut node.kernel).unwrap_err(),
        ipam.collect("n", &BTreeSet::new(), &mut node.kernel)
            .unwrap_err(),
        read_all(node.folder.path()).unwrap_err(),
    ];
    for error in results {
        assert!(
            error.message.contains("written by a newer parfait"),
            "{error}"
        );
        assert!(error.details.contains("drain the node"), "{error}");
    }
    assert_eq!((node.names().len(), node.kernel.0.links.len()), (1, 1));
    std::fs::write(node.store().version(), "garbage").unwrap();
    let error = add(&mut node, 2).unwrap_err();
    assert!(error.message.contains("ipam/version, line 1"), "{error}");
}

#[test]
fn a_lost_folder_is_rebuilt_from_the_kernel() {
    let mut node = Node::new(&DUAL);
    add(&mut node, 1).unwrap();
    std::fs::remove_dir_all(node.folder.path().join("ipam")).unwrap();
    assert_eq!(add(&mut node, 2).unwrap()[0], "10.244.1.3");
    assert_eq!(node.names().len(), 2);
    node.kernel.0 = Seen::default();
    node.live.clear();
    node.collect(None);
    assert_eq!(node.names(), []);
}

#[test]
fn an_address_whose_record_was_removed_by_hand_is_not_given_again() {
    let mut node = Node::new(&["10.244.1.0/29"]);
    for number in 1..=2 {
        add(&mut node, number).unwrap();
    }
    for name in node.names() {
        std::fs::remove_file(node.store().path(&name)).unwrap();
    }
    // Nothing is remembered of what was given last either.
    let hint = format!(r#"{{"boot":"{}","last":{{}}}}"#, node.boot());
    node.ipam()
        .write_hint(&serde_json::from_str(&hint).unwrap())
        .unwrap();
    assert_eq!(add(&mut node, 3).unwrap(), ["10.244.1.4"]);
    assert_eq!(
        node.names().len(),
        3,
        "and what is there has a record again"
    );
    let error = wish(&mut node, 4, &["10.244.1.2"]).unwrap_err();
    assert!(error.message.contains("10.244.1.2"), "{error}");
}

#[test]
fn two_hundred_at_once_get_different_addresses() {
    let node = Node::new(&DUAL);
    let pool = Pool::parse(&node.ranges, &[]).unwrap();
    let given: Vec<_> = std::thread::scope(|scope| {
        let one = |number| {
            let (node, pool) = (&node, &pool);
            let run = move || {
                let mut kernel = super::model::Kernel::default();
                let given = node
                    .ipam()
                    .allocate(node.wanted(number, &[]), pool, &mut kernel);
                given.unwrap().attached().unwrap().addresses
            };
            scope.spawn(run)
        };
        let threads: Vec<_> = (0..200).map(one).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), 400);
    assert_eq!(read_all(node.folder.path()).unwrap().0.len(), 200);
}
