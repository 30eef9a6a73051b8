//! Services and endpoints that cannot be used, in a lab: who wrote them reads it in Events, `explain` and `node status`,
//! and other Services' clients notice nothing.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

use k8s_openapi::api::events::v1::Event;

mod support;

use support::{Desk, events};

const GOOD: &str = "\
apiVersion: v1
kind: Service
metadata: {name: good}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers:
  - {name: web, image: example.com/web, ports: [{containerPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  containers:
  - {name: client, image: example.com/client, command: [sleep, '1000']}
";

/// A slice of no Service, an endpoint and a pool's addresses that are no machine's: none is refused by an API server.
const BAD: &str = "\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: lost, labels: {kubernetes.io/service-name: nobody}}
addressType: IPv4
ports: [{name: '', port: 8080, protocol: TCP}]
endpoints: [{addresses: [10.244.0.77]}]
---
apiVersion: v1
kind: Service
metadata: {name: named}
spec:
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: named-a, labels: {kubernetes.io/service-name: named}}
addressType: IPv4
ports: [{name: '', port: 8080, protocol: TCP}]
endpoints: [{addresses: [255.255.255.255]}]
---
apiVersion: parfait.dev/v1alpha1
kind: LoadBalancerPool
metadata: {name: office}
spec: {addresses: [192.168.77.300, 127.0.0.1]}
";

#[test]
fn what_cannot_be_used_is_told_where_its_author_looks() {
    let Some(desk) = Desk::new("what_cannot_be_used_is_told_where_its_author_looks") else {
        return;
    };
    let good = desk.file("good.yaml", GOOD);
    desk.ok(&["lab", "up", "--nodes", "2", "-f", &good, "--no-check"]);
    let bad = desk.file("bad.yaml", BAD);
    desk.ok(&["lab", "up", "-f", &bad, "--no-check"]);

    let wanted = [
        (
            "lost",
            "metadata.labels[kubernetes.io/service-name]: there is no Service default/nobody; nobody is led to its endpoints",
        ),
        (
            "named-a",
            "endpoints: \"255.255.255.255\" is not a usable IPv4 address; the endpoint is left out",
        ),
        (
            "office",
            "spec.addresses: \"192.168.77.300\" is not an address, a CIDR or FIRST-LAST; it is left out",
        ),
        (
            "office",
            "spec.addresses: 127.0.0.1 has addresses of the loopback (127.0.0.0/8); no Service gets them",
        ),
    ];
    let events = events(&desk, |events| events.len() >= wanted.len());
    let mut said: Vec<_> = events.iter().map(of_it).collect();
    said.sort();
    let mut all = wanted.map(|(name, text)| (name.to_owned(), text.to_owned()));
    all.sort();
    assert_eq!(said, all);

    let (_, explained, _) = desk.run(&["explain", "pod/client", "svc/named:80"]);
    assert!(explained.contains(wanted[1].1), "{explained}");
    assert!(explained.contains("PF301"), "{explained}");
    let (_, status, _) = desk.run(&["node", "status", "1"]);
    for (_, text) in &wanted[..2] {
        assert!(status.contains(text), "{text} is not in:\n{status}");
    }
    let fetched = desk.ok(&[
        "lab",
        "exec",
        "pod/client",
        "--",
        "curl",
        "-sf",
        "http://good/",
    ]);
    assert!(fetched.contains("web"), "{fetched}");
    let other = desk.ok(&["explain", "pod/client", "svc/good"]);
    assert!(
        !other.contains("255.255") && !other.contains("nobody"),
        "{other}"
    );
    desk.ok(&["lab", "down"]);
}

fn of_it(event: &Event) -> (String, String) {
    let regarding = event.regarding.clone().unwrap();
    assert_eq!(event.reason.as_deref(), Some("Invalid"));
    assert_eq!(event.type_.as_deref(), Some("Warning"));
    assert!(regarding.uid.is_some(), "kubectl describe asks by UID");
    (regarding.name.unwrap(), event.note.clone().unwrap())
}
