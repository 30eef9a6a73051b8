//! A lab whose agent stands still: a new pod starts all the same, reaches its own node and nobody else,
//! and everybody as soon as the agent goes on. And host ports, from everywhere.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

mod support;

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use support::Desk;

const PODS: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  nodeName: node-1
  containers:
  - {name: main, image: example.com/web, ports: [{containerPort: 8080, hostPort: 8088}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  nodeName: node-2
  containers:
  - {name: main, image: example.com/client, command: [sleep, '1000']}
";

const NEW: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: new}
spec:
  nodeName: node-1
  containers:
  - {name: main, image: example.com/client, command: [sleep, '1000']}
";

/// The agent of node-1 in this desk's lab.
fn agent(desk: &Desk) -> Pid {
    let ours = desk.0.path().to_str().unwrap().to_owned();
    let is_agent = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        let words: Vec<&str> = line.split('\0').collect();
        words.contains(&"agent") && words.contains(&"node-1") && line.contains(&ours)
    };
    let all = fs::read_dir("/proc").unwrap().flatten();
    let mut pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Pid::from_raw(pids.find(is_agent).expect("an agent")).unwrap()
}

/// Goes on with its agent, also when the test panics.
struct Stopped(Pid);

impl Stopped {
    fn new(pid: Pid) -> Self {
        kill_process(pid, Signal::STOP).unwrap();
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}

fn reaches(desk: &Desk, from: &str, to: &str) -> bool {
    let ping = ["lab", "exec", from, "--", "ping", "-n", "-c1", "-W1", to];
    desk.run(&ping).0 == Some(0)
}

/// The first address of a pod's eth0 in a family (`-4` or `-6`).
fn address(desk: &Desk, pod: &str, family: &str) -> String {
    let line = [
        "lab", "exec", pod, "--", "ip", "-o", family, "addr", "show", "eth0", "scope", "global",
    ];
    let said = desk.ok(&line);
    let address = said.split_whitespace().nth(3).unwrap_or_default();
    address.split('/').next().unwrap_or_default().to_owned()
}

#[test]
fn a_new_pod_waits_for_an_agent_that_stands_still_and_host_ports_lead_to_pods() {
    let Some(desk) = Desk::new("a_new_pod_waits_for_an_agent_that_stands_still") else {
        return;
    };
    let pods = desk.file("pods.yaml", PODS);
    desk.ok(&["lab", "up", "--nodes", "2", "-f", &pods]);
    host_ports(&desk);
    let others = [
        ("pod/web", "-4"),
        ("pod/web", "-6"),
        ("pod/client", "-4"),
        ("pod/client", "-6"),
    ];
    let others = others.map(|(pod, family)| address(&desk, pod, family));
    let stopped = Stopped::new(agent(&desk));
    let new = desk.file("new.yaml", NEW);
    desk.ok(&["lab", "up", "--nodes", "2", "-f", &new]);
    for own in ["192.168.77.11", "fd00:77::11"] {
        assert!(reaches(&desk, "pod/new", own), "its own node at {own}");
    }
    for other in &others {
        assert!(
            !reaches(&desk, "pod/new", other),
            "{other} before it is known"
        );
    }
    let own = address(&desk, "pod/new", "-4");
    assert!(
        !reaches(&desk, "pod/client", &own),
        "{own} before it is known"
    );
    drop(stopped);
    let end = Instant::now() + Duration::from_secs(30);
    while !others.iter().all(|other| reaches(&desk, "pod/new", other)) {
        assert!(
            Instant::now() < end,
            "the agent goes on, and the pod is still alone"
        );
    }
    assert!(reaches(&desk, "pod/client", &own));
    desk.ok(&["lab", "down"]);
    desk.nothing_is_left();
}

/// From the node itself, another node, the pod itself and another.
fn host_ports(desk: &Desk) {
    let ways = [
        ("node/1", "http://127.0.0.1:8088/"),
        ("node/1", "http://192.168.77.11:8088/"),
        ("node/2", "http://192.168.77.11:8088/"),
        ("node/2", "http://[fd00:77::11]:8088/"),
        ("pod/client", "http://192.168.77.11:8088/"),
        ("pod/client", "http://[fd00:77::11]:8088/"),
        ("pod/web", "http://192.168.77.11:8088/"),
        ("pod/web", "http://[fd00:77::11]:8088/"),
    ];
    for (from, url) in ways {
        let curl = [
            "lab",
            "exec",
            from,
            "--",
            "curl",
            "-sgfS",
            "-m5",
            "-o/dev/null",
            url,
        ];
        let (code, _, said) = desk.run(&curl);
        assert_eq!(code, Some(0), "{from} to {url}: {said}");
    }
    let said = desk.ok(&["explain", "pod/client", "192.168.77.11:8088"]);
    assert!(
        said.contains("which asked for port 8088 of the node"),
        "{said}"
    );
    assert!(said.contains("hostPort"), "{said}");
}
