//! The plugin as a process, killed (SIGKILL) at any time; then GC, and nothing is left.
//!
//! The process is this test itself, started again for [`the_plugin`]. `PARFAIT_RUNS` kills more often.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

use std::io::Write;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use parfait_cni::{Environment, NodeConfig, ipam};
use parfait_kernel::NetNs;
use serde_json::{Value, json};

/// Not a test: what the other one starts, as a runtime starts the plugin.
#[test]
fn the_plugin() {
    if std::env::var("CNI_COMMAND").is_ok() {
        let environment: Environment<'_> = &|name| std::env::var(name).ok();
        parfait_cni::main(environment, &mut std::io::stdin(), &mut std::io::stdout());
    }
}

fn network(state_dir: &std::path::Path) -> Value {
    json!({"cniVersion": "1.1.0", "name": "n", "type": "parfait", "stateDir": state_dir, "waitForAgent": 0})
}

/// Starts the plugin in a node's namespace, and kills it after a while.
fn killed(
    node: &NetNs,
    pod: &NetNs,
    command: &str,
    number: u64,
    state_dir: &std::path::Path,
    after: Duration,
) {
    let netns = format!("/proc/{}/fd/{}", std::process::id(), pod.as_raw_fd());
    let spawn = || {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_plugin", "--nocapture"])
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", format!("c{number}"))
            .env("CNI_IFNAME", "eth0")
            .env("CNI_NETNS", &netns)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let mut child = node.run(spawn).unwrap();
    let mut input = child.stdin.take().unwrap();
    let _ = input.write_all(network(state_dir).to_string().as_bytes());
    drop(input);
    std::thread::sleep(after);
    let _ = child.kill();
    child.wait().unwrap();
}

fn links(node: &NetNs) -> String {
    let list = || {
        Command::new("ip")
            .args(["-o", "link", "show", "type", "veth"])
            .output()
            .unwrap()
    };
    String::from_utf8(node.run(list).unwrap().stdout).unwrap()
}

#[test]
fn killed_at_any_time_it_leaves_nothing_that_gc_does_not_find() {
    let runs = std::env::var("PARFAIT_RUNS").ok();
    let runs: u64 = runs.and_then(|runs| runs.parse().ok()).unwrap_or(60);
    let folder = tempfile::tempdir().unwrap();
    let (node, pod) = (
        NetNs::create().expect("root, or a user namespace"),
        NetNs::create().unwrap(),
    );
    let config = NodeConfig {
        node: "node-1".to_owned(),
        pod_cidrs: vec![
            "10.244.1.0/24".parse().unwrap(),
            "fd00::/64".parse().unwrap(),
        ],
        mtu: 1450,
        ..NodeConfig::default()
    };
    config.write(folder.path()).unwrap();
    let mut seed = 7_u64;
    let mut answered = 0;
    for number in 0..runs {
        // Knuth's generator: the same delays in every run, spread over some milliseconds.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let after = Duration::from_micros((seed >> 33) % 30_000);
        killed(&node, &pod, "ADD", number, folder.path(), after);
        answered += usize::from(!links(&node).is_empty());
        if number % 2 == 0 {
            killed(&node, &pod, "DEL", number, folder.path(), after / 2);
        }
        let mut config = network(folder.path());
        config["cni.dev/valid-attachments"] = json!([]);
        let input = config.to_string();
        let collect = || {
            let environment: Environment<'_> =
                &|name| (name == "CNI_COMMAND").then(|| "GC".to_owned());
            parfait_cni::run(environment, &mut input.as_bytes())
        };
        node.run(collect).unwrap().unwrap();
        assert_eq!(links(&node), "", "after {after:?}");
        assert!(ipam::read_all(folder.path()).unwrap().0.is_empty());
        assert_eq!(
            std::fs::read_dir(ipam::folder(folder.path())).map_or(0, Iterator::count),
            0
        );
    }
    assert!(
        answered > 0,
        "it was always killed before it had done anything"
    );
}
