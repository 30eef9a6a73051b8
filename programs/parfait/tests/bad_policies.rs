//! Policies of which a part cannot be used, in a lab: who wrote them reads it in Events, from one agent alone.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::events::v1::Event;

mod support;

use support::{Desk, events};

/// An ipBlock has no names of ports, which an API server does not refuse; pods of it are on both nodes. And domain names
/// are for the application layer.
const MANIFEST: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: one, labels: {app: web}}
spec:
  nodeName: node-1
  containers: [{name: main, image: example.com/web}]
---
apiVersion: v1
kind: Pod
metadata: {name: two, labels: {app: web}}
spec:
  nodeName: node-2
  containers: [{name: main, image: example.com/web}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: named}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Egress]
  egress: [{to: [{ipBlock: {cidr: 192.0.2.0/24}}], ports: [{port: http}]}]
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: domains}
spec:
  tier: Admin
  priority: 7
  subject: {namespaces: {}}
  egress: [{name: away, action: Accept, to: [{domainNames: ['*.example.com']}]}]
";

#[test]
fn what_of_policies_cannot_be_used_is_told_once_where_their_authors_look() {
    let test = "what_of_policies_cannot_be_used_is_told_once_where_their_authors_look";
    let Some(desk) = Desk::new(test) else {
        return;
    };
    let manifest = desk.file("manifest.yaml", MANIFEST);
    desk.ok(&["lab", "up", "--nodes", "2", "-f", &manifest, "--no-check"]);
    let said = said(&desk);
    let [named] = said["NetworkPolicy named"].as_slice() else {
        panic!("{said:#?}");
    };
    assert!(
        named.starts_with("spec.egress[0]: port \"http\" is a name"),
        "{named}"
    );
    let [domains] = said["ClusterNetworkPolicy domains"].as_slice() else {
        panic!("{said:#?}");
    };
    assert!(domains.starts_with("spec.egress[0]"), "{domains}");
    assert!(domains.contains("domainNames"), "{domains}");
    desk.ok(&["lab", "down"]);
}

/// What Events of ours say, by their objects, once there are some of both; and a moment later, when there might be more.
fn said(desk: &Desk) -> BTreeMap<String, Vec<String>> {
    let by_object = |events: &[Event]| {
        let mut said: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for event in events.iter().cloned() {
            let regarding = event.regarding.unwrap();
            let object = format!("{} {}", regarding.kind.unwrap(), regarding.name.unwrap());
            said.entry(object).or_default().push(event.note.unwrap());
        }
        said
    };
    events(desk, |events| by_object(events).len() >= 2);
    std::thread::sleep(Duration::from_secs(1));
    by_object(&events(desk, |_| true))
}
