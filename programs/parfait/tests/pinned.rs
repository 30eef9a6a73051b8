//! `parfait explain` of flows that a node's kernel remembers, against real clients in a lab: where a connection that is
//! open goes, and which endpoint session affinity keeps, is what the client sees.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

mod support;

use serde_json::Value;
use support::Desk;

const SHOP: &str = "\
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: loyal}
spec:
  selector: {app: web}
  sessionAffinity: ClientIP
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: example.com/web
        ports: [{containerPort: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  containers:
  - name: client
    image: example.com/client
    command: [sleep, '1000']
";

const POLICY: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: no-calls}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress]
";

/// The client's port.
const PORT: &str = "40312";

#[test]
fn a_flow_goes_where_explain_says_that_it_is_pinned() {
    let Some(desk) = Desk::new("a_flow_goes_where_explain_says_that_it_is_pinned") else {
        return;
    };
    let shop = desk.file("shop.yaml", SHOP);
    desk.ok(&[
        "lab",
        "up",
        "--nodes",
        "2",
        "--ip-family",
        "ipv4",
        "-f",
        &shop,
        "--no-check",
    ]);
    let asked = ["pod/client", "svc/web", "--source-port", PORT];
    let before = explain(&desk, &asked);
    assert_eq!(before["ways"].as_array().unwrap().len(), 3, "{before:#}");
    let note = "tracks no connection tcp";
    assert!(before["notes"].to_string().contains(note), "{before:#}");

    let mut client = Open::new(&desk);
    let serves = client.served_by();
    let pinned = explain(&desk, &asked);
    let way = the_way(&pinned);
    assert_eq!(way["end"], format!("pod default/{serves}"), "{pinned:#}");
    let by = &way["pinned"][0];
    assert_eq!(
        (&by["by"], &by["state"]),
        (&"connection".into(), &"ESTABLISHED".into())
    );
    assert!(by["expires"].as_u64().unwrap() > 400_000, "{by}");
    let text = desk.ok(&["explain", "pod/client", "svc/web", "--source-port", PORT]);
    assert!(
        text.contains("pinned by a tracked connection (ESTABLISHED, 10.96."),
        "{text}"
    );
    is_listed(&desk, &serves);
    // Still the same one.
    assert_eq!(client.served_by(), serves);

    let fetch = || {
        desk.ok(&[
            "lab",
            "exec",
            "pod/client",
            "--",
            "curl",
            "-s",
            "http://loyal/",
        ])
    };
    let fetched = fetch();
    let loyal = explain(&desk, &["pod/client", "svc/loyal"]);
    let way = the_way(&loyal);
    let end = way["end"]
        .as_str()
        .unwrap()
        .trim_start_matches("pod default/");
    assert!(fetched.contains(end), "{fetched} {end}");
    assert_eq!(way["pinned"][0]["by"], "affinity", "{loyal:#}");
    let left = way["pinned"][0]["expires"].as_u64().unwrap();
    assert!((10_000..=10_800).contains(&left), "{left}");
    assert!(fetch().contains(end));
    is_ended(&desk);
    client.close();
    desk.ok(&["lab", "down"]);
}

/// A policy that forbids the open connection ends it, which is another answer than that to who begins one.
fn is_ended(desk: &Desk) {
    let policy = desk.file("policy.yaml", POLICY);
    desk.ok(&["lab", "up", "-f", &policy, "--no-check"]);
    let codes = |line: &[&str]| {
        let line: Vec<&str> = line.iter().chain(&["-o", "json"]).copied().collect();
        let (_, answer, error) = desk.run(&line);
        let answer: Value = serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{error}"));
        let ways = answer["ways"].as_array().unwrap().iter();
        let codes = ways.map(|way| way["verdict"]["reason"]["code"].to_string());
        codes.collect::<std::collections::BTreeSet<_>>()
    };
    let ended = "\"PF313\"".to_owned();
    let since = Instant::now();
    loop {
        let flow = codes(&["explain", "pod/client", "svc/web", "--source-port", PORT]);
        if flow.contains(&ended) {
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(60), "{flow:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    let new = codes(&["explain", "pod/client", "svc/web"]);
    assert_eq!(new, ["\"PF311\"".to_owned()].into());
}

/// Who does not know the client's port finds it beside the ways of a new connection.
fn is_listed(desk: &Desk, serves: &str) {
    let new = explain(desk, &["pod/client", "svc/web"]);
    assert_eq!(new["ways"].as_array().unwrap().len(), 3, "{new:#}");
    let tracked = &new["tracked"][0];
    assert_eq!(tracked["count"], 1, "{new:#}");
    assert_eq!(tracked["first"][0]["sourcePort"].to_string(), PORT);
    assert_eq!(tracked["first"][0]["pod"], format!("default/{serves}"));
}

fn explain(desk: &Desk, line: &[&str]) -> Value {
    let line: Vec<&str> = ["explain"]
        .iter()
        .chain(line)
        .chain(&["-o", "json"])
        .copied()
        .collect();
    serde_json::from_str(&desk.ok(&line)).unwrap()
}

/// The only way there is; where it ends, without the node.
fn the_way(answer: &Value) -> Value {
    let [way] = answer["ways"].as_array().unwrap().as_slice() else {
        panic!("not one way: {answer:#}");
    };
    let mut way = way.clone();
    let end = way["end"].as_str().unwrap();
    way["end"] = end.split(" on ").next().unwrap().into();
    way
}

/// A connection that stays open: `nc`, in the pod's network.
struct Open(Child, BufReader<std::process::ChildStdout>);

impl Open {
    fn new(desk: &Desk) -> Self {
        let mut child = desk
            .command(&[
                "lab",
                "exec",
                "pod/client",
                "--",
                "nc",
                "-p",
                PORT,
                "web",
                "80",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self(child, out)
    }

    /// Asks over the connection, and reads which pod it is.
    fn served_by(&mut self) -> String {
        let stdin = self.0.stdin.as_mut().unwrap();
        stdin
            .write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
            .unwrap();
        loop {
            let mut line = String::new();
            assert!(
                self.1.read_line(&mut line).unwrap() > 0,
                "the connection is closed"
            );
            let mut words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
            if let Some(pod) = words.find(|word| word.starts_with("web-")) {
                return pod.to_owned();
            }
        }
    }

    fn close(mut self) {
        drop(self.0.stdin.take());
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}
