//! Hints of EndpointSlices (`trafficDistribution`), and what keeps them from making a Service unreachable: KEP-3015,
//! kube-proxy's `pkg/proxy/topology.go`.

#[path = "../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;

use fixture::clusters;
use parfait_transport::plan;

const NODES: &str = "
config clusterCIDRs=10.244.0.0/16 serviceCIDRs=10.96.0.0/16
node node-1 pods=10.244.1.0/24 underlay=192.168.77.11/24 zone=a
node node-2 pods=10.244.2.0/24 underlay=192.168.77.12/24 zone=b
node node-3 pods=10.244.3.0/24 underlay=192.168.77.13/24
";

/// The endpoints that take new connections on a node, without what all have in common, and those that do not.
fn behind(node: &str, service: &str, endpoints: &str) -> (Vec<String>, Vec<String>) {
    let web = format!(
        "service web ip=10.96.0.20 ports=http:80/TCP>8080 {service}
         slice web-a of=web ports=http:8080/TCP endpoints={endpoints}"
    );
    let plan = plan(&clusters(&[NODES, &web]), node);
    let services = plan.services.values();
    let mut behind = services.flat_map(|service| service.frontends.values());
    let behind = behind.next().expect("a frontend");
    let pool = &behind.inside;
    let backends = pool.backends.iter().map(|b| b.endpoint.address.to_string());
    let passed = behind.passed_over(pool, &plan.here).into_iter();
    let passed = passed.map(|(b, why)| format!("{} {}", b.endpoint.address, why.what()));
    (backends.collect(), passed.collect())
}

/// Node, more of the Service, endpoints; which of them take connections, and why others do not.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

const TABLE: [Row; 14] = [
    // PreferSameZone.
    (
        "node-1",
        "",
        "10.244.1.3~a,10.244.2.3~b",
        &["10.244.1.3"],
        &["10.244.2.3 hinted for other zones"],
    ),
    (
        "node-2",
        "",
        "10.244.1.3~a,10.244.2.3~b",
        &["10.244.2.3"],
        &["10.244.1.3 hinted for other zones"],
    ),
    // PreferSameNode.
    (
        "node-1",
        "",
        "10.244.1.3~node-1,10.244.2.3~node-2",
        &["10.244.1.3"],
        &["10.244.2.3 hinted for other nodes"],
    ),
    // Nobody is hinted for this node, or for its zone; or it has none.
    (
        "node-3",
        "",
        "10.244.1.3~node-1,10.244.2.3~node-2",
        &["10.244.1.3", "10.244.2.3"],
        &[],
    ),
    (
        "node-1",
        "",
        "10.244.1.3~b,10.244.2.3~c",
        &["10.244.1.3", "10.244.2.3"],
        &[],
    ),
    (
        "node-3",
        "",
        "10.244.1.3~a,10.244.2.3~b",
        &["10.244.1.3", "10.244.2.3"],
        &[],
    ),
    // One has no hint: the slices are about to change.
    (
        "node-1",
        "",
        "10.244.1.3~a,10.244.2.3",
        &["10.244.1.3", "10.244.2.3"],
        &[],
    ),
    // The one for this zone is not ready, or about to go.
    (
        "node-1",
        "",
        "10.244.1.3!notready~a,10.244.2.3~b",
        &["10.244.2.3"],
        &["10.244.1.3 not ready"],
    ),
    (
        "node-1",
        "",
        "10.244.1.3!serving~a,10.244.2.3~b",
        &["10.244.2.3"],
        &["10.244.1.3 terminating"],
    ),
    // A traffic policy is no wish, but a demand.
    (
        "node-1",
        "internalPolicy=Local",
        "10.244.1.3@node-1~b,10.244.2.3@node-2~a",
        &["10.244.1.3"],
        &["10.244.2.3 on another node"],
    ),
    // It comes before readiness: one here that serves while it terminates, if none here is ready (KEP-1669).
    (
        "node-1",
        "internalPolicy=Local",
        "10.244.1.3@node-1!serving,10.244.2.3@node-2",
        &["10.244.1.3"],
        &["10.244.2.3 on another node"],
    ),
    (
        "node-1",
        "internalPolicy=Local",
        "10.244.1.3@node-1!serving,10.244.1.4@node-1",
        &["10.244.1.4"],
        &["10.244.1.3 terminating"],
    ),
    // Of those that terminate none is preferred.
    (
        "node-1",
        "",
        "10.244.1.3!serving~a,10.244.2.3!serving~b",
        &["10.244.1.3", "10.244.2.3"],
        &[],
    ),
    // Somebody else's controller may say that one serves and is not ready, without an end.
    (
        "node-1",
        "",
        "10.244.1.3!unready,10.244.2.3!notready",
        &[],
        &["10.244.1.3 not ready", "10.244.2.3 not ready"],
    ),
];

#[test]
fn hints_are_heeded_unless_they_would_leave_nobody() {
    for (node, service, endpoints, backends, passed_over) in TABLE {
        let wanted = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            behind(node, service, endpoints),
            (wanted(backends), wanted(passed_over)),
            "{node} {service} {endpoints}"
        );
    }
}
