//! Policies of which a part cannot be used, in a lab: who wrote them reads it in Events, from one agent alone; and in their
//! status, where they have one.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::events::v1::Event;
use kube::api::{ApiResource, DynamicObject};
use kube::{Api, Resource};
use parfait_cluster::{RawClusterNetworkPolicy, RawNodeNetworkPolicy};
use serde_json::Value;

mod support;

use support::{Desk, ask, events};

/// An ipBlock has no names of ports, which an API server does not refuse; pods of it are on both nodes. And domain names
/// are for the application layer. Nor does it know the operators of a selector, or what others' priorities are.
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
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: twin-a}
spec:
  tier: Admin
  priority: 9
  subject: {namespaces: {}}
  ingress: [{action: Accept, from: [{namespaces: {matchLabels: {team: ops}}}]}]
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: twin-b}
spec:
  tier: Admin
  priority: 9
  subject: {namespaces: {}}
  ingress: [{action: Deny, from: [{namespaces: {matchLabels: {team: ops}}}]}]
---
apiVersion: parfait.dev/v1alpha1
kind: NodeNetworkPolicy
metadata: {name: door}
spec:
  priority: 7
  ingress: [{action: Deny, from: [{networks: [192.0.2.0/24]}]}]
---
apiVersion: parfait.dev/v1alpha1
kind: NodeNetworkPolicy
metadata: {name: typo}
spec:
  priority: 7
  nodeSelector: {matchExpressions: [{key: role, operator: Like, values: [edge]}]}
  ingress: [{action: Accept, from: [{networks: [192.0.2.0/24]}]}]
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
    let condition = accepted::<RawClusterNetworkPolicy>(&desk, "domains");
    assert_eq!(condition["status"], "False");
    assert_eq!(condition["message"], **domains, "as the Event says it");
    assert_eq!(condition["observedGeneration"], 1);
    let [twin] = said["ClusterNetworkPolicy twin-b"].as_slice() else {
        panic!("{said:#?}");
    };
    let wanted = "spec.priority: 9 is also the priority of ClusterNetworkPolicy twin-a";
    assert!(twin.starts_with(wanted), "{twin}");
    assert!(
        !said.contains_key("ClusterNetworkPolicy twin-a"),
        "{said:#?}"
    );
    let condition = accepted::<RawNodeNetworkPolicy>(&desk, "door");
    assert_eq!(condition["status"], "True", "{condition}");
    let [typo] = said["NodeNetworkPolicy typo"].as_slice() else {
        panic!("{said:#?}");
    };
    assert!(typo.starts_with("spec.nodeSelector: \"Like\""), "{typo}");
    let condition = accepted::<RawNodeNetworkPolicy>(&desk, "typo");
    assert_eq!(condition["message"], **typo, "as the Event says it");
    desk.ok(&["lab", "down"]);
}

/// What Events of ours say, by their objects, once there are some of each; and a moment later, when there might be more.
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
    events(desk, |events| by_object(events).len() >= 4);
    std::thread::sleep(Duration::from_secs(1));
    by_object(&events(desk, |_| true))
}

/// The one condition of a policy, once there is one.
fn accepted<K: Resource<DynamicType = ()>>(desk: &Desk, name: &str) -> Value {
    ask(desk, async |client| {
        let api: Api<DynamicObject> = Api::all_with(client, &ApiResource::erase::<K>(&()));
        let begin = Instant::now();
        loop {
            let object = api.get(name).await.unwrap();
            let conditions = object.data["status"]["conditions"].as_array();
            if let [condition] = conditions.map_or(&[][..], Vec::as_slice) {
                return condition.clone();
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "{object:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
}
