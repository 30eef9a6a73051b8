//! No denial is silent: in a lab, packets that policies deny are counted, explained and found where operators look.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

use std::time::{Duration, Instant};

use serde_json::Value;

mod support;

use support::Desk;

const MANIFEST: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers:
  - {name: web, image: example.com/web, ports: [{containerPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
spec:
  containers:
  - {name: client, image: example.com/client, command: [sleep, '1000']}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: friend}}}]
    ports: [{port: 8080}]
";

const PACKETS: u64 = 50;

#[test]
fn what_policies_deny_is_counted_explained_and_found() {
    let Some(desk) = Desk::new("what_policies_deny_is_counted_explained_and_found") else {
        return;
    };
    let manifest = desk.file("manifest.yaml", MANIFEST);
    desk.ok(&["lab", "up", "--nodes", "1", "-f", &manifest, "--no-check"]);
    let explained = desk.ok(&["policy", "explain", "pod/web", "-o", "json"]);
    let explained: Value = serde_json::from_str(&explained).unwrap();
    let address = explained["addresses"][0].as_str().unwrap();
    // Datagrams are sent once each, so that it is known how many there are.
    let send = format!("for i in {{1..{PACKETS}}}; do echo x > /dev/udp/{address}/9; done");
    desk.ok(&["lab", "exec", "pod/client", "--", "bash", "-c", &send]);

    let said = said(&desk);
    assert_eq!(said["denied"], PACKETS, "{said:#}");
    let sampled = said["sampled"].as_u64().unwrap();
    assert_eq!(said["unsampled"], PACKETS - sampled, "{said:#}");
    let [denial] = said["denials"].as_array().unwrap().as_slice() else {
        panic!("{said:#}");
    };
    let of = |field: &str| denial[field].as_str().unwrap().to_owned();
    assert_eq!(
        (of("from"), of("to"), of("direction")),
        (
            "Pod default/client".to_owned(),
            "Pod default/web".to_owned(),
            "ingress".to_owned()
        )
    );
    assert_eq!(
        (&denial["port"], of("protocol")),
        (&9.into(), "udp".to_owned())
    );
    assert_eq!(
        denial["by"],
        serde_json::json!(["NetworkPolicy default/web"])
    );
    assert_eq!(
        of("wouldPassIf"),
        "the pod had label app=friend and the port were 8080/tcp"
    );
    let text = desk.ok(&["policy", "denials", "-n", "default"]);
    assert!(text.contains("the pod had label app=friend"), "{text}");
    let lost = format!(
        "50 packets denied, {sampled} explained, {} only counted",
        PACKETS - sampled
    );
    assert!(text.contains(&lost), "{text}");
    assert!(
        !desk
            .ok(&["policy", "denials", "-n", "other"])
            .contains("friend")
    );

    let url = "http://127.0.0.1:9442/metrics";
    let metrics = desk.ok(&["lab", "exec", "node/1", "--", "curl", "-sf", url]);
    for line in [
        r#"parfait_policy_denied_packets_total{kind="NetworkPolicy",namespace="default",policy="web",rule="",direction="ingress"} 50"#,
        r#"parfait_denied_packets_total{direction="ingress"} 50"#,
    ] {
        assert!(
            metrics.lines().any(|other| other == line),
            "{line} is not in:\n{metrics}"
        );
    }
    // What is counted is no difference from the plan.
    desk.ok(&["node", "status", "node-1"]);
    desk.ok(&["lab", "down"]);
}

/// What the node's agent says, once it has counted all packets: it does so after a sample, and at every regular look.
fn said(desk: &Desk) -> Value {
    let until = Instant::now() + Duration::from_secs(120);
    loop {
        let (_, text, _) = desk.run(&["policy", "denials", "-o", "json"]);
        let said: Value = serde_json::from_str(&text).unwrap_or_default();
        let said = said[0].clone();
        if said["denied"].as_u64() >= Some(PACKETS) || Instant::now() > until {
            return said;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
