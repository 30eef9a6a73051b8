//! Which load balancer gets which address, as tables; and that carrying a decision out changes it no more.

#[path = "../../../model/cluster/tests/fixture/balancers.rs"]
mod balancers;
#[path = "../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;

use balancers::{add_balancer, add_pool, balancer_mut, hold};
use fixture::{DUAL, THREE, cluster};
use parfait_cluster::{Namespace, Snapshot};
use parfait_transport::pools::{Decision, allocate, faults, writers};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Three nodes and a pool of four addresses.
fn office() -> Snapshot {
    let mut snapshot = cluster(THREE);
    let addresses = json!(["192.168.77.200-192.168.77.203"]);
    add_pool(&mut snapshot, "office", json!({ "addresses": addresses }));
    snapshot
}

fn print(decision: &Decision) -> String {
    let addresses: Vec<_> = decision.addresses.iter().map(ToString::to_string).collect();
    let told = match &decision.told {
        None => "forgotten".to_owned(),
        Some(told) => format!("{} {}: {}", told.satisfied, told.reason, told.message),
    };
    format!("{} [{}] {told}", decision.service.name, addresses.join(" "))
}

fn printed(snapshot: &Snapshot) -> Vec<String> {
    allocate(snapshot).iter().map(print).collect()
}

/// Carries decisions out, as the writer does.
fn carry_out(snapshot: &mut Snapshot) {
    for decision in allocate(snapshot) {
        let name = decision.service.name.clone();
        let balancer = balancer_mut(snapshot, &name).expect("it is one");
        balancer.held = decision.addresses;
        balancer.told = decision.told;
        balancer.elsewhere = false;
    }
}

#[test]
fn the_older_gets_the_lowest_and_keeps_it() {
    let mut snapshot = office();
    for (name, created) in [("api", 30), ("web", 10), ("zoo", 20)] {
        add_balancer(&mut snapshot, name, json!({}));
        let key = parfait_cluster::ObjectName::new("default", name);
        snapshot.services.get_mut(&key).expect("added").created = Some(created);
    }
    let first = [
        "api [192.168.77.202] true Allocated: 192.168.77.202 from LoadBalancerPool office",
        "web [192.168.77.200] true Allocated: 192.168.77.200 from LoadBalancerPool office",
        "zoo [192.168.77.201] true Allocated: 192.168.77.201 from LoadBalancerPool office",
    ];
    assert_eq!(printed(&snapshot), first);
    carry_out(&mut snapshot);
    snapshot
        .services
        .remove(&parfait_cluster::ObjectName::new("default", "web"));
    assert_eq!(printed(&snapshot), [first[0], first[2]], "nobody moves up");
    add_balancer(&mut snapshot, "new", json!({}));
    assert!(printed(&snapshot)[1].starts_with("new [192.168.77.200]"));
}

#[test]
fn wishes_are_granted_if_they_can_be_and_what_is_held_stays_until_then() {
    let mut snapshot = office();
    add_balancer(
        &mut snapshot,
        "api",
        json!({"loadBalancerIP": "192.168.77.201"}),
    );
    add_balancer(&mut snapshot, "far", json!({"loadBalancerIP": "192.0.2.1"}));
    let wish = json!({"parfait.dev/load-balancer-ips": "192.168.77.201, nonsense"});
    let notes = add_balancer(&mut snapshot, "web", json!({"annotations": wish}));
    let note = "Service default/web metadata.annotations[parfait.dev/load-balancer-ips]: \"nonsense\" is not an IP \
                address; it is left out";
    assert_eq!(notes, [note]);
    let refused = [
        "api [192.168.77.201] true Allocated: 192.168.77.201 from LoadBalancerPool office",
        "far [] false WishRefused: 192.0.2.1 is in no pool for this Service: office (192.168.77.200-192.168.77.203)",
        "web [] false WishRefused: 192.168.77.201 belongs to Service default/api",
    ];
    assert_eq!(printed(&snapshot), refused);
    carry_out(&mut snapshot);
    let wish = json!({"parfait.dev/load-balancer-ips": "192.168.77.203"});
    add_balancer(&mut snapshot, "web", json!({"annotations": wish}));
    carry_out(&mut snapshot);
    let wish = json!({"parfait.dev/load-balancer-ips": "192.168.77.201"});
    add_balancer(&mut snapshot, "web", json!({"annotations": wish}));
    let kept = "web [192.168.77.203] false WishRefused: 192.168.77.203 from LoadBalancerPool office; 192.168.77.201 \
                belongs to Service default/api";
    assert_eq!(printed(&snapshot)[2], kept);
    snapshot
        .services
        .remove(&parfait_cluster::ObjectName::new("default", "api"));
    assert!(printed(&snapshot)[1].starts_with("web [192.168.77.201] true"));
}

#[test]
fn who_is_left_out_is_told_why() {
    let mut snapshot = office();
    for name in ["a", "b", "c", "d", "e"] {
        add_balancer(&mut snapshot, name, json!({}));
    }
    let last =
        "e [] false Exhausted: no free IPv4 address in office (192.168.77.200-192.168.77.203)";
    assert_eq!(printed(&snapshot)[4], last);
    add_balancer(
        &mut snapshot,
        "dual",
        json!({"ipFamilies": ["IPv6", "IPv4"]}),
    );
    carry_out(&mut snapshot);
    snapshot.services.retain(|name, _| name.name == "dual");
    let half = "dual [192.168.77.200] false Exhausted: 192.168.77.200 from LoadBalancerPool office; no free IPv6 \
                address in office (no IPv6 addresses)";
    assert_eq!(printed(&snapshot), [half]);
    add_pool(
        &mut snapshot,
        "six",
        json!({"addresses": ["fd00:77::200/127"]}),
    );
    let both = "dual [fd00:77::200 192.168.77.200] true Allocated: fd00:77::200 from LoadBalancerPool six; \
                192.168.77.200 from LoadBalancerPool office";
    assert_eq!(printed(&snapshot), [both]);
}

#[test]
fn other_peoples_services_are_left_alone() {
    let mut snapshot = office();
    add_balancer(
        &mut snapshot,
        "cloud",
        json!({"loadBalancerClass": "example.org/cloud"}),
    );
    hold(&mut snapshot, "cloud", &["192.168.77.200"]);
    add_balancer(&mut snapshot, "given", json!({}));
    hold(&mut snapshot, "given", &["203.0.113.9"]);
    add_balancer(&mut snapshot, "adopted", json!({}));
    hold(&mut snapshot, "adopted", &["192.168.77.202"]);
    add_balancer(&mut snapshot, "plain", json!({"type": "ClusterIP"}));
    add_balancer(
        &mut snapshot,
        "ours",
        json!({"loadBalancerClass": "parfait.dev/load-balancer"}),
    );
    add_balancer(
        &mut snapshot,
        "room",
        json!({"loadBalancerClass": "parfait.dev/room"}),
    );
    let wanted = [
        "adopted [192.168.77.202] true Allocated: 192.168.77.202 from LoadBalancerPool office",
        "ours [192.168.77.201] true Allocated: 192.168.77.201 from LoadBalancerPool office",
        "room [] false NoPool: no LoadBalancerPool is for this Service",
    ];
    assert_eq!(printed(&snapshot), wanted);
    let spec = json!({"addresses": ["192.168.77.210"], "loadBalancerClass": "parfait.dev/room"});
    add_pool(&mut snapshot, "room", spec);
    assert!(printed(&snapshot)[2].starts_with("room [192.168.77.210] true"));
}

#[test]
fn labels_and_namespaces_choose_services() {
    let mut snapshot = office();
    let spec =
        json!({"addresses": ["192.0.2.1"], "serviceSelector": {"matchLabels": {"tier": "front"}}});
    add_pool(&mut snapshot, "front", spec);
    let spec = json!({"addresses": ["192.0.2.9"], "namespaces": ["shop"]});
    add_pool(&mut snapshot, "a-shop", spec);
    add_balancer(&mut snapshot, "api", json!({}));
    add_balancer(&mut snapshot, "web", json!({"labels": {"tier": "front"}}));
    let printed = printed(&snapshot);
    assert!(
        printed[0].starts_with("api [192.168.77.200]"),
        "{printed:?}"
    );
    assert!(
        printed[1].starts_with("web [192.0.2.1]"),
        "front comes before office: {printed:?}"
    );
    let bad = json!({"addresses": ["192.0.2.9"], "serviceSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}});
    let notes = add_pool(&mut snapshot, "bad", bad);
    let note = "LoadBalancerPool bad spec.serviceSelector: In of a needs at least one value; the pool is not used";
    assert_eq!(notes, [note]);
}

#[test]
fn labels_of_namespaces_choose_services() {
    let mut snapshot = office();
    let spec = |more: Value| {
        let mut spec = json!({"addresses": ["192.0.2.1"]});
        spec["namespaceSelector"] = more;
        spec
    };
    let team = json!({"matchLabels": {"team": "a"}});
    add_pool(&mut snapshot, "a", spec(team.clone()));
    add_balancer(&mut snapshot, "web", json!({}));
    let starts = |snapshot: &Snapshot, with: &str| {
        let printed = printed(snapshot);
        assert!(printed[0].starts_with(with), "{printed:?}");
    };
    starts(&snapshot, "web [192.168.77.200]");
    carry_out(&mut snapshot);
    let namespace = snapshot.namespaces.entry("default".to_owned());
    let namespace = namespace.or_insert_with(|| Namespace::new("default"));
    namespace.labels.insert("team".to_owned(), "a".to_owned());
    starts(&snapshot, "web [192.168.77.200]");
    snapshot.pools.remove("office");
    starts(&snapshot, "web [192.0.2.1]");
    // Names and labels both count.
    let mut both = spec(team);
    both["namespaces"] = json!(["shop"]);
    add_pool(&mut snapshot, "a", both);
    starts(&snapshot, "web [] forgotten");
    // A namespace that nobody has told of yet has its name.
    snapshot.namespaces.clear();
    let named = json!({"matchLabels": {"kubernetes.io/metadata.name": "default"}});
    add_pool(&mut snapshot, "a", spec(named));
    starts(&snapshot, "web [192.0.2.1]");
    let operator =
        json!({"matchExpressions": [{"key": "team", "operator": "Is", "values": ["a"]}]});
    let notes = add_pool(&mut snapshot, "a", spec(operator));
    let [note] = &notes[..] else {
        panic!("{notes:?}");
    };
    let wanted = "LoadBalancerPool a spec.namespaceSelector: ";
    assert!(
        note.starts_with(wanted) && note.ends_with("; the pool is not used"),
        "{note}"
    );
    starts(&snapshot, "web [] forgotten");
}

#[test]
fn what_a_pool_loses_is_given_back_and_replaced() {
    let mut snapshot = office();
    add_balancer(&mut snapshot, "web", json!({}));
    carry_out(&mut snapshot);
    add_pool(
        &mut snapshot,
        "office",
        json!({"addresses": ["192.168.77.202/31"]}),
    );
    assert!(printed(&snapshot)[0].starts_with("web [192.168.77.202] true"));
    carry_out(&mut snapshot);
    snapshot.pools.clear();
    assert_eq!(
        printed(&snapshot),
        ["web [] forgotten"],
        "somebody else may care for it"
    );
    carry_out(&mut snapshot);
    assert_eq!(printed(&snapshot), Vec::<String>::new());
    let mut snapshot = office();
    add_balancer(&mut snapshot, "web", json!({}));
    carry_out(&mut snapshot);
    balancer_mut(&mut snapshot, "web").expect("one").wanted = false;
    assert_eq!(
        printed(&snapshot),
        ["web [] forgotten"],
        "it is no load balancer any more"
    );
}

#[test]
fn addresses_that_others_use_are_not_given() {
    let mut snapshot = cluster(THREE);
    let addresses = json!([
        "10.244.255.254-10.245.0.1",
        "192.168.77.11-192.168.77.14",
        "192.168.77.1"
    ]);
    add_pool(&mut snapshot, "careless", json!({ "addresses": addresses }));
    add_pool(
        &mut snapshot,
        "second",
        json!({"addresses": ["192.168.77.14/31"]}),
    );
    for name in ["a", "b", "c", "d"] {
        add_balancer(&mut snapshot, name, json!({}));
    }
    add_balancer(
        &mut snapshot,
        "e",
        json!({"loadBalancerIP": "192.168.77.12"}),
    );
    let printed = printed(&snapshot);
    let given = ["10.245.0.0", "10.245.0.1", "192.168.77.14", "192.168.77.15"];
    for (line, address) in printed.iter().zip(given) {
        assert!(line.contains(&format!("[{address}]")), "{line}");
    }
    assert_eq!(
        printed[4],
        "e [] false WishRefused: 192.168.77.12 belongs to Node node-2"
    );
    let notes: Vec<_> = faults(&snapshot).iter().map(ToString::to_string).collect();
    let wanted = [
        "10.244.255.254-10.245.0.1 has addresses of ConfigMap kube-system/parfait clusterCIDRs (10.244.0.0/16); no \
         Service gets them",
        "192.168.77.11-192.168.77.14 has addresses of Node node-1 (192.168.77.11), Node node-2 (192.168.77.12), \
         Node node-3 (192.168.77.13); no Service gets them",
        "192.168.77.1 has addresses of a gateway (192.168.77.1); no Service gets them",
    ];
    let wanted = wanted.map(|text| format!("LoadBalancerPool careless spec.addresses: {text}"));
    assert_eq!(notes[..3], wanted);
    let overlap = "LoadBalancerPool second spec.addresses: 192.168.77.14-192.168.77.15 overlaps LoadBalancerPool \
                   careless; an address in both is announced as the first by name says";
    assert_eq!(notes[3..], [overlap]);
}

/// What the first Service gets of a pool that has more than hosts' addresses, and what is said of the pool.
#[test]
fn addresses_that_are_no_hosts_are_not_given() {
    let four = "192.168.77.0-192.168.77.255 has addresses of broadcasts in 192.168.77.0/24 (192.168.77.0), a gateway \
                (192.168.77.1), Node node-1 (192.168.77.11), and 2 more; no Service gets them";
    for (range, first, said) in [
        ("192.168.77.0/24", "192.168.77.2", four),
        (
            "192.168.77.255-192.168.78.0",
            "192.168.78.0",
            "192.168.77.255-192.168.78.0 has addresses of broadcasts in 192.168.77.0/24 (192.168.77.255); no Service \
             gets them",
        ),
        (
            "fd00:77::/126",
            "fd00:77::2",
            "fd00:77::-fd00:77::3 has addresses of all routers of fd00:77::/64 (fd00:77::), a gateway (fd00:77::1); no \
             Service gets them",
        ),
        // Nobody's segment: whoever leads it here may use the first and the last address as well.
        ("192.0.2.0/31", "192.0.2.0", ""),
        (
            "127.0.0.0/8",
            "",
            "127.0.0.0-127.255.255.255 has addresses of the loopback (127.0.0.0/8); no Service gets them",
        ),
        (
            "223.255.255.255-224.0.0.1",
            "223.255.255.255",
            "223.255.255.255-224.0.0.1 has addresses of multicast groups (224.0.0.0/4); no Service gets them",
        ),
        (
            "::ffff:192.0.2.1",
            "",
            "::ffff:192.0.2.1 has addresses of IPv4, mapped into IPv6 (::ffff:0.0.0.0/96); no Service gets them",
        ),
        (
            "0.0.0.0/0",
            "1.0.0.0",
            "0.0.0.0-255.255.255.255 has addresses of ",
        ),
        (
            "::/0",
            "::2",
            "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff has addresses of ",
        ),
    ] {
        let mut snapshot = cluster(DUAL);
        add_pool(&mut snapshot, "p", json!({"addresses": [range]}));
        let family = if range.contains(':') { "IPv6" } else { "IPv4" };
        add_balancer(&mut snapshot, "web", json!({"ipFamilies": [family]}));
        let given = printed(&snapshot);
        assert!(given[0].starts_with(&format!("web [{first}]")), "{given:?}");
        let notes: Vec<_> = faults(&snapshot).iter().map(ToString::to_string).collect();
        let about = "LoadBalancerPool p spec.addresses: ";
        match said {
            "" => assert_eq!(notes, [""; 0]),
            said => assert!(
                notes.len() == 1 && notes[0].starts_with(&format!("{about}{said}")),
                "{notes:?}"
            ),
        }
    }
}

#[test]
fn three_nodes_may_write_and_those_that_are_ready_come_first() {
    let mut snapshot = cluster(THREE);
    let first = writers(&snapshot)[0].to_owned();
    assert_eq!(writers(&snapshot).len(), 3);
    for (name, node) in &mut snapshot.nodes {
        node.ready = *name != first;
    }
    assert_eq!(writers(&snapshot)[2], first);
}

proptest! {
    #[test]
    fn nobody_shares_an_address_and_carrying_out_changes_nothing_more(
        services in prop::collection::btree_map(
            "[a-f]", (prop::option::of(0..9u8), prop::collection::vec(0..9u8, 0..3), any::<bool>()), 1..6),
        changes in prop::collection::vec(("[a-f]", prop::option::of(0..9u8)), 0..5),
    ) {
        let ip = |n: u8| format!("192.168.77.{}", 198 + n);
        let mut snapshot = office();
        for (name, (wish, held, ours)) in &services {
            add_balancer(&mut snapshot, name, json!({"loadBalancerIP": wish.map(ip)}));
            let held: Vec<_> = held.iter().map(|n| ip(*n)).collect();
            hold(&mut snapshot, name, &held.iter().map(String::as_str).collect::<Vec<_>>());
            balancer_mut(&mut snapshot, name).expect("added").told = ours.then(Default::default);
        }
        for (name, wish) in [(String::from("a"), None)].into_iter().chain(changes) {
            if services.contains_key(&name) {
                add_balancer(&mut snapshot, &name, json!({"loadBalancerIP": wish.map(ip)}));
            }
            let decided = allocate(&snapshot);
            let mut given: Vec<_> = decided.iter().flat_map(|one| &one.addresses).collect();
            let all = given.len();
            given.sort();
            given.dedup();
            prop_assert_eq!(given.len(), all, "{:?}", decided);
            carry_out(&mut snapshot);
            prop_assert_eq!(allocate(&snapshot), decided);
        }
    }
}
