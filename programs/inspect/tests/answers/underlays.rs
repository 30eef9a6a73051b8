//! What is said where the underlay does not lead to a node's pods: in a cloud, and with a routing daemon.

use parfait_cluster::{Routing, Snapshot};

use crate::fixture::{APART, DUAL, clusters};
use crate::{ask, steps};

fn routed(text: &str, routing: Routing) -> Snapshot {
    let mut snapshot = clusters(&[text]);
    snapshot.config.routing = routing;
    snapshot
}

#[test]
fn a_learned_route_leads_through_the_router() {
    let answer = ask(
        &routed(APART, Routing::Bgp),
        "pod/client",
        "pod/web-3",
        "8080",
    );
    let steps = steps(&answer.expect("an answer"));
    for step in [
        "there node node-1 routing: to 192.168.77.1 through eth0",
        "there underlay wire: learned: unchanged over eth0 to 192.168.77.1, along a route that a routing daemon \
         has learned, MTU 1500",
        "back underlay wire: learned: unchanged over eth0 to 192.168.88.1",
        "there pod default/web-3 delivery: received from 10.244.1.2:40000",
    ] {
        assert!(steps.contains(step), "{step}\n{steps}");
    }
}

#[test]
fn a_withdrawn_route_is_the_reason() {
    let mut snapshot = routed(DUAL, Routing::Bgp);
    let node = snapshot.nodes.get_mut("node-1").expect("a node");
    node.underlay.as_mut().expect("reported").unlearned = ["10.244.3.0/24", "fd00:10:244:3::/64"]
        .map(|text| text.parse().expect("a CIDR"))
        .to_vec();
    for (to, cidr) in [
        ("10.244.3.2", "10.244.3.0/24"),
        ("fd00:10:244:3::2", "fd00:10:244:3::/64"),
    ] {
        let steps = steps(&ask(&snapshot, "pod/client", to, "8080").expect("an answer"));
        let said = format!("no routing daemon has brought node-1 a route to {cidr}; it refuses");
        assert!(steps.contains(&said), "{steps}");
    }
}

#[test]
fn a_cloud_without_a_route_is_the_reason_there_and_back() {
    let mut snapshot = routed(APART, Routing::Direct);
    let node = snapshot.nodes.get_mut("node-3").expect("a node");
    node.network_unavailable = Some("NoRouteCreated: the route quota is used up".to_owned());
    let said =
        "the underlay has no route to the node's pods (NoRouteCreated: the route quota is used up)";
    let there = steps(&ask(&snapshot, "pod/client", "pod/web-3", "8080").expect("an answer"));
    assert!(there.contains(said), "{there}");
    let back = steps(&ask(&snapshot, "pod/web-3", "pod/client", "8080").expect("an answer"));
    assert!(
        back.lines()
            .any(|line| line.starts_with("back") && line.contains(said)),
        "{back}"
    );
}
