//! Pod CIDRs that cannot be used: who keeps one, and what everybody is told.

#[path = "fixture/mod.rs"]
mod fixture;

use parfait_cluster::settle;

/// The CIDRs that each node keeps, and the notes.
fn settled(text: &str) -> (String, Vec<String>) {
    let snapshot = fixture::cluster(text);
    let (settled, notes) = settle(&snapshot);
    let again = settle(&settled);
    assert!(again.1.is_empty(), "settled once and for all");
    let nodes = settled.nodes.values().map(|node| {
        let cidrs: Vec<_> = node.pod_cidrs.iter().map(ToString::to_string).collect();
        format!("{} {}", node.name, cidrs.join(","))
    });
    let notes = notes.iter().map(ToString::to_string);
    (nodes.collect::<Vec<_>>().join("; "), notes.collect())
}

#[test]
fn nothing_is_said_where_everybody_has_a_range_of_their_own() {
    let snapshot = fixture::cluster(fixture::DUAL);
    let (settled, notes) = settle(&snapshot);
    assert!(notes.is_empty(), "{notes:?}");
    assert!(matches!(settled, std::borrow::Cow::Borrowed(_)));
}

#[test]
fn a_configured_range_with_a_node_or_a_service_in_it_is_not_used_and_nothing_of_it() {
    for (range, why) in [
        (
            "192.168.0.0/16",
            "holds an address of Node node-2; routing it to pods would cut that node off",
        ),
        ("10.0.0.0/8", "holds the clusterIP of Service default/web"),
    ] {
        let snapshot = fixture::cluster(&format!(
            "config clusterCIDRs=172.16.0.0/12,{range}
             node node-2 pods=172.16.2.0/24 underlay=192.168.77.12/24
             service web ip=10.96.0.20 ports=80/TCP"
        ));
        let (settled, notes) = settle(&snapshot);
        let ranges = settled.config.cluster_cidrs.iter();
        let ranges: Vec<_> = ranges.map(ToString::to_string).collect();
        assert_eq!(ranges, ["172.16.0.0/12"]);
        let [note] = &notes[..] else {
            panic!("{notes:?}");
        };
        let note = note.to_string();
        let of = "ConfigMap kube-system/parfait clusterCIDRs";
        assert!(note.starts_with(&format!("{of}: {range} {why}")), "{note}");
        assert!(note.contains("so it is not used. Give pods "), "{note}");
        assert!(settle(&settled).1.is_empty(), "settled once and for all");
    }
}

#[test]
fn of_two_nodes_the_first_by_name_keeps_a_cidr_and_both_are_told() {
    let (kept, notes) = settled(
        "node node-2 pods=10.244.1.0/24,fd00:2::/64 underlay=192.168.77.12/24
         node node-1 pods=10.244.1.0/24 underlay=192.168.77.11/24",
    );
    assert_eq!(kept, "node-1 10.244.1.0/24; node-2 fd00:2::/64");
    assert_eq!(notes.len(), 2);
    assert!(
        notes[0].starts_with(
            "Node node-2 spec.podCIDRs: 10.244.1.0/24 overlaps 10.244.1.0/24 of Node node-1, whose name comes first"
        ) && notes[0].contains("Recreate one of the two Nodes"),
        "{notes:?}"
    );
    assert!(
        notes[1].starts_with(
            "Node node-1 spec.podCIDRs: 10.244.1.0/24 overlaps 10.244.1.0/24 of Node node-2"
        ),
        "{notes:?}"
    );
}

#[test]
fn a_wider_and_a_narrower_cidr_overlap_whichever_comes_first() {
    for (first, second) in [
        ("10.244.0.0/16", "10.244.7.0/24"),
        ("10.244.7.0/24", "10.244.0.0/16"),
    ] {
        let (kept, notes) = settled(&format!(
            "node a pods=10.1.0.0/24 underlay=192.168.77.10/24
             node b pods={first} underlay=192.168.77.11/24
             node c pods={second} underlay=192.168.77.12/24
             node d pods=10.245.0.0/24 underlay=192.168.77.13/24"
        ));
        assert_eq!(
            kept,
            format!("a 10.1.0.0/24; b {first}; c ; d 10.245.0.0/24")
        );
        assert_eq!(notes.len(), 2);
    }
}

/// Whoever could choose a Service's address could otherwise cut off the pods of any node.
#[test]
fn one_stray_service_takes_no_pod_cidr_away() {
    let both = "node a pods=10.244.1.0/24,fd00:244:1::/64 underlay=192.168.77.11/24
                service stray ip=10.244.1.9,fd00:244:1::9 ports=80/TCP";
    let (kept, notes) = settled(&format!("config serviceCIDRs=10.96.0.0/16\n{both}"));
    assert_eq!(kept, "a 10.244.1.0/24");
    let of_six =
        "Node a spec.podCIDRs: fd00:244:1::/64 holds the clusterIP of Service default/stray";
    assert!(
        matches!(&notes[..], [note] if note.starts_with(of_six)),
        "{notes:?}"
    );
    let ranges = "config clusterCIDRs=10.244.0.0/16 serviceCIDRs=10.96.0.0/16,fd00:96::/112";
    let snapshot = fixture::cluster(&format!("{ranges}\n{both}"));
    let (settled, notes) = settle(&snapshot);
    assert!(notes.is_empty(), "{notes:?}");
    assert_eq!(*settled, snapshot);
}

#[test]
fn what_would_hide_nodes_or_services_or_has_no_room_is_not_used() {
    let table = [
        (
            "node a pods=192.168.77.0/24 underlay=192.168.77.11/24",
            "Node a spec.podCIDRs: 192.168.77.0/24 holds an address of Node a; routing it to pods would cut that node off",
        ),
        (
            "config serviceCIDRs=10.96.0.0/16\nnode a pods=10.96.4.0/24 underlay=192.168.77.11/24",
            "Node a spec.podCIDRs: 10.96.4.0/24 overlaps the Services' range 10.96.0.0/16",
        ),
        (
            "node a pods=10.96.4.0/24 underlay=192.168.77.11/24\nservice web ip=10.96.4.9 ports=80/TCP",
            "Node a spec.podCIDRs: 10.96.4.0/24 holds the clusterIP of Service default/web",
        ),
        (
            "node a pods=10.244.1.0/31 underlay=192.168.77.11/24",
            "Node a spec.podCIDRs: 10.244.1.0/31 has no address for a pod, as the node itself takes the first; it is \
             not used. Give nodes at least a /30",
        ),
        (
            "node a pods=fd00::/127 underlay=192.168.77.11/24",
            "Node a spec.podCIDRs: fd00::/127 has no address for a pod, as the node itself takes the first; it is not \
             used. Give nodes at least a /126",
        ),
    ];
    for (text, wanted) in table {
        let (kept, notes) = settled(text);
        assert_eq!(kept, "a ", "{text}");
        assert!(
            matches!(&notes[..], [note] if note.starts_with(wanted)),
            "{notes:?}"
        );
    }
}
