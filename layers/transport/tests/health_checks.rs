//! Load balancers are told of the endpoints on this node, of Services that want their packets to stay on it.

#[path = "../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;

use fixture::{THREE, clusters};
use parfait_cluster::{ObjectName, Snapshot, TrafficPolicy};
use parfait_transport::plan;

const SERVICES: &str = "
service api ip=10.96.0.21 ports=http:80/TCP>8080
service web ip=10.96.0.20 ports=http:80/TCP>8080,other:81/TCP>8080
slice web-a of=web ports=http:8080/TCP,other:8080/TCP endpoints=10.244.1.3@node-1/web-1,10.244.1.4@node-1/web-4!serving,10.244.2.2@node-2/web-2!notready
slice api-a of=api ports=http:8080/TCP endpoints=10.244.1.3@node-1/web-1!serving
";

/// Every Service with this policy, and the port of its name's turn.
fn snapshot(policy: TrafficPolicy, ports: [u16; 2]) -> Snapshot {
    let mut snapshot = clusters(&[THREE, SERVICES]);
    for (service, port) in snapshot.services.values_mut().zip(ports) {
        service.outside.policy = policy;
        service.outside.health_check_node_port = Some(port);
    }
    snapshot
}

/// `31000 default/web 1`, one port a line.
fn checks(snapshot: &Snapshot, node: &str) -> String {
    let plan = plan(snapshot, node);
    let checks = plan.health_checks().into_iter();
    let lines = checks.map(|(port, (service, endpoints))| format!("{port} {service} {endpoints}"));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn an_endpoint_counts_once_and_only_if_it_is_ready_and_here() {
    let local = snapshot(TrafficPolicy::Local, [31000, 31001]);
    for (node, web) in [("node-1", 1), ("node-2", 0), ("node-3", 0)] {
        let wanted = format!("31000 default/api 0\n31001 default/web {web}");
        assert_eq!(checks(&local, node), wanted, "{node}");
    }
    // One that terminates gets what comes all the same, until load balancers have heard.
    let plan = plan(&local, "node-1");
    let api = &plan.services[&ObjectName::new("default", "api")];
    assert!(api.frontends.values().all(|behind| !behind.is_empty()));
    let everywhere = snapshot(TrafficPolicy::Cluster, [31000, 31001]);
    assert_eq!(checks(&everywhere, "node-1"), "");
}

/// As of all that two Services want: the age counts, then the name.
#[test]
fn of_two_services_with_one_port_the_older_is_told_of_and_the_other_has_a_note() {
    for (created, winner, endpoints, loser) in [
        ([Some(2), Some(2)], "api", 0, "web"),
        ([Some(2), Some(1)], "web", 1, "api"),
        ([None, Some(1)], "web", 1, "api"),
    ] {
        let mut snapshot = snapshot(TrafficPolicy::Local, [31000, 31000]);
        for (service, created) in snapshot.services.values_mut().zip(created) {
            service.created = created;
        }
        let wanted = format!("31000 default/{winner} {endpoints}");
        assert_eq!(checks(&snapshot, "node-1"), wanted);
        let notes = plan(&snapshot, "node-1").notes();
        let notes: Vec<_> = notes.iter().map(ToString::to_string).collect();
        let wanted = format!(
            "Service default/{loser} spec.healthCheckNodePort: port 31000 already answers health checks of Service \
             default/{winner}; load balancers are told of that one alone"
        );
        assert_eq!(notes, [wanted]);
    }
}
