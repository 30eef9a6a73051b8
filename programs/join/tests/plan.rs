//! What one node must hold, joined from its layers: every layer's part is there, none hides another's.

#[path = "../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;

use std::collections::BTreeSet;

use fixture::{APART, DUAL, SIX, THREE, cluster, clusters};
use parfait_join::NodePlan;
use parfait_linux::nft::{Family, Table};

const WEB: &str = "service web ip=10.96.0.20 ports=http:80/TCP>8080
slice web-a of=web ports=http:8080/TCP endpoints=10.244.1.3@node-1/web-1,10.244.3.2@node-3/web-3";

fn names(table: &Table) -> BTreeSet<&str> {
    let names = table.sets.keys().chain(table.chains.keys());
    names.map(String::as_str).collect()
}

#[test]
fn one_table_of_each_family_holds_what_both_layers_want() {
    let plan = NodePlan::new(&clusters(&[APART, WEB]), "node-1");
    let tables = plan.state().tables;
    assert_eq!(tables.len(), 2);
    let joined = &tables[&(Family::Ip, "parfait".to_owned())];
    let internet = parfait_internet::apply(&plan.internet).tables;
    let internet = &internet[&(Family::Ip, "parfait".to_owned())];
    let transport = parfait_transport::apply(&plan.transport);
    let transport = transport.iter().find(|table| table.family == Family::Ip);
    let transport = transport.expect("one of each family");
    assert_eq!(names(internet).intersection(&names(transport)).count(), 0);
    let both = names(internet).union(&names(transport)).copied().collect();
    assert_eq!(names(joined), both);
}

#[test]
fn layers_plan_different_things() {
    for text in [THREE, APART, SIX, DUAL] {
        let plan = NodePlan::new(&clusters(&[text, WEB]), "node-1");
        let (link, internet) = (
            parfait_link::apply(&plan.link),
            parfait_internet::apply(&plan.internet),
        );
        let count = |state: &parfait_linux::State| state.objects().count();
        assert_eq!(count(&plan.state()), count(&link) + count(&internet));
    }
}

#[test]
fn every_route_of_the_agent_has_its_link_and_neighbour() {
    for text in [APART, SIX, DUAL] {
        let state = NodePlan::new(&cluster(text), "node-1").state();
        for item in state.routes.values() {
            let route = &item.value;
            let Some(link) = route.link.as_ref().filter(|link| link.as_str() != "eth0") else {
                continue;
            };
            assert!(state.links.contains_key(link), "{route}");
            let next_hop = route.via.unwrap_or(route.destination.addr());
            let neighbour = state.neighbour(link, next_hop);
            let mac = neighbour.and_then(|item| item.value.mac);
            assert!(mac.is_some(), "{route}: nobody may be asked for {next_hop}");
            if let Some(mac) = mac.filter(|_| link.as_str() == "pf-vxlan") {
                assert!(state.fdb(link, mac).is_some(), "{route}: {mac} is nowhere");
            }
        }
    }
}

#[test]
fn notes_of_all_layers_are_told() {
    let plan = NodePlan::new(
        &clusters(&[
            THREE,
            WEB,
            "node node-1 underlay=192.168.77.11/24 silent",
            "service zap ip=10.96.0.20 ports=81/TCP",
        ]),
        "node-1",
    );
    let notes: Vec<_> = plan.notes().map(|note| note.origin.to_string()).collect();
    assert_eq!(
        notes,
        [
            "Node node-1 metadata.annotations[parfait.dev/underlay]",
            "Node node-1 spec.podCIDRs",
            "Service default/zap spec.clusterIPs",
        ]
    );
}
