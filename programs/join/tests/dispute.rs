//! Two nodes with one pod CIDR: every node routes it alike, and nobody's other routes suffer.

#[path = "../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;

use parfait_join::NodePlan;

#[test]
fn a_pod_cidr_of_two_nodes_leads_to_the_first_by_name_from_everywhere() {
    let snapshot = fixture::cluster(
        "config clusterCIDRs=10.244.0.0/16
         node node-1 pods=10.244.1.0/24 underlay=192.168.77.11/24
         node node-2 pods=10.244.1.0/24 underlay=192.168.77.12/24
         node node-3 pods=10.244.3.0/24 underlay=192.168.77.13/24
         node node-4 pods=192.168.77.0/24 underlay=192.168.77.14/24
         node node-5 pods=10.244.1.0/24 underlay=192.168.88.15/24",
    );
    let routes = |node: &str| {
        let state = NodePlan::new(&snapshot, node).state();
        let routes = state.routes.values().map(|item| item.value.to_string());
        routes
            .filter(|route| !route.contains("/16"))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        routes("node-1"),
        [
            "unreachable 10.244.1.0/24 proto 112",
            "10.244.3.0/24 via 192.168.77.13 dev eth0 proto 112",
        ]
    );
    assert_eq!(
        routes("node-3"),
        [
            "10.244.1.0/24 via 192.168.77.11 dev eth0 proto 112",
            "unreachable 10.244.3.0/24 proto 112",
        ]
    );
    assert_eq!(
        routes("node-2"),
        [
            "10.244.1.0/24 via 192.168.77.11 dev eth0 proto 112",
            "10.244.3.0/24 via 192.168.77.13 dev eth0 proto 112",
        ]
    );
    for node in ["node-1", "node-2", "node-4"] {
        let plan = NodePlan::new(&snapshot, node);
        let about = format!("Node {node} spec.podCIDRs: ");
        let notes: Vec<_> = plan.notes().map(|note| note.to_string()).collect();
        assert!(
            notes.iter().any(|note| note.starts_with(&about)),
            "{notes:#?}"
        );
    }
}
