//! Real callers of the CNI plugin: containerd's CRI with runc, as a kubelet uses it. Needs root,
//! containerd, runc and busybox (Debian: containerd, runc, busybox-static, containernetworking-plugins).

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

mod chain;
mod containerd;
mod cri;

use chain::Chain;
use containerd::{Containerd, IMAGE, possible, until};
use cri::{Cri, Sandbox};
use serde_json::json;

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

fn cri(containerd: &Containerd) -> Cri {
    let (socket, logs) = (containerd.path("c.sock"), containerd.path("logs"));
    Cri::new(&socket, &logs, containerd.cgroup())
}

/// Says something from one sandbox's network to the other's, in both families.
fn talks(containerd: &Containerd, from: &Sandbox, to: &Sandbox) {
    let inspected = containerd.ctr("task ls").unwrap();
    let pid = |sandbox: &Sandbox| {
        let line = inspected
            .lines()
            .find(|line| line.starts_with(&sandbox.id))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    let address = containerd
        .shell(&format!(
            "nsenter -t {} -n ip -o addr show dev eth0",
            pid(to)
        ))
        .unwrap();
    for ip in &to.addresses {
        assert!(
            address.contains(&format!(" {ip}/")),
            "{ip} is not in {address}"
        );
        containerd
            .shell(&format!("nsenter -t {} -n ping -c 1 -W 5 {ip}", pid(from)))
            .unwrap();
    }
}

#[test]
fn sandboxes_of_containerd_have_addresses_and_leave_nothing() {
    if !possible("sandboxes_of_containerd_have_addresses_and_leave_nothing") {
        return;
    }
    let mut containerd = Containerd::start();
    let runtime = runtime();
    let cri = cri(&containerd);
    until("CRI is ready", || {
        runtime.block_on(cri.ready()).unwrap_or(false)
    });
    let run = |name: &str| runtime.block_on(cri.run(name)).unwrap();

    let (a, b) = (run("a"), run("b"));
    assert_eq!(a.addresses, ["10.244.1.2", "fd00:10:244:1::2"]);
    assert_eq!(b.addresses, ["10.244.1.3", "fd00:10:244:1::3"]);
    assert_eq!(containerd.attached(), (2, 2));
    talks(&containerd, &a, &b);

    containerd.restart();
    until("CRI is ready again", || {
        runtime.block_on(cri.ready()).unwrap_or(false)
    });
    assert_eq!(runtime.block_on(cri.addresses(&a.id)).unwrap(), a.addresses);
    talks(&containerd, &b, &a);
    let c = run("c");
    assert_eq!(c.addresses[0], "10.244.1.4");
    talks(&containerd, &a, &c);

    for sandbox in [a, b, c] {
        runtime.block_on(cri.stop(&sandbox.id)).unwrap();
        // A kubelet stops what is stopped.
        runtime.block_on(cri.stop(&sandbox.id)).unwrap();
        runtime.block_on(cri.remove(&sandbox.id)).unwrap();
    }
    assert_eq!(containerd.attached(), (0, 0));
}

#[test]
fn fifty_sandboxes_at_once_have_fifty_addresses() {
    if !possible("fifty_sandboxes_at_once_have_fifty_addresses") {
        return;
    }
    let containerd = Containerd::start();
    let runtime = runtime();
    let cri = cri(&containerd);
    until("CRI is ready", || {
        runtime.block_on(cri.ready()).unwrap_or(false)
    });
    let names: Vec<String> = (0..50).map(|number| format!("pod-{number}")).collect();
    let all = names.iter().map(|name| cri.run(name));
    let sandboxes = runtime
        .block_on(futures::future::try_join_all(all))
        .unwrap();
    let addresses: std::collections::BTreeSet<&String> = sandboxes
        .iter()
        .flat_map(|sandbox| &sandbox.addresses)
        .collect();
    assert_eq!(addresses.len(), 100);
    assert_eq!(containerd.attached(), (50, 50));
    let stops = sandboxes.iter().map(|sandbox| cri.stop(&sandbox.id));
    runtime
        .block_on(futures::future::try_join_all(stops))
        .unwrap();
    assert_eq!(containerd.attached(), (0, 0));
}

#[test]
fn ctr_runs_a_container_with_cni() {
    if !possible("ctr_runs_a_container_with_cni") {
        return;
    }
    let containerd = Containerd::start();
    containerd.at_the_usual_places();
    let run = format!(
        "run --rm --cni --snapshotter native --cgroup {}/one",
        containerd.cgroup()
    );
    let said = containerd
        .ctr(&format!(
            "{run} {IMAGE} one /bin/busybox ip -o addr show dev eth0"
        ))
        .unwrap();
    for address in ["10.244.1.2/32", "fd00:10:244:1::2/128"] {
        assert!(said.contains(address), "{said}");
    }
    assert_eq!(containerd.attached(), (0, 0));
}

#[test]
fn reference_plugins_work_behind_it() {
    if !possible("reference_plugins_work_behind_it") {
        return;
    }
    let node = Containerd::node_alone();
    let behind = [
        json!({
            "type": "portmap", "runtimeConfig": {"portMappings": [
                {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}
            ]},
        }),
        json!({
            "type": "bandwidth", "ingressRate": 8_000_000, "ingressBurst": 800_000,
            "egressRate": 8_000_000, "egressBurst": 800_000,
        }),
        json!({"type": "tuning", "sysctl": {"net.core.somaxconn": "321"}}),
        json!({"type": "firewall"}),
    ];
    let mut chain = Chain::new(&node, &behind);
    let result = chain.add("web").unwrap();
    assert_eq!(result["ips"][0]["address"], "10.244.1.2/32");
    chain.check("web").unwrap();
    let inside = node
        .shell("ip netns exec web cat /proc/sys/net/core/somaxconn")
        .unwrap();
    assert_eq!(inside.trim(), "321");
    let queues = node.shell("tc qdisc show").unwrap();
    assert!(queues.contains("rate 8Mbit"), "{queues}");
    node.shell("ip netns exec web sh -c 'echo hello | nc -l -p 80 -q 1 >/dev/null 2>&1 &'")
        .unwrap();
    let said = || {
        node.shell("nc -w 2 192.168.77.11 8080 </dev/null")
            .unwrap_or_default()
    };
    until("hello through the host's port", || said() == "hello\n");

    chain.del("web").unwrap();
    chain.del("web").unwrap();
    assert_eq!(node.attached(), (0, 0));
}

#[test]
fn it_works_by_itself_for_a_caller_like_libcni() {
    if !possible("it_works_by_itself_for_a_caller_like_libcni") {
        return;
    }
    let node = Containerd::node_alone();
    let mut alone = Chain::new(&node, &[]);
    let first = alone.add("one").unwrap();
    alone.check("one").unwrap();
    node.shell("ip netns exec one ping -c 1 -W 5 192.168.77.11")
        .unwrap();
    node.shell("ip -n one route del default").unwrap();
    alone.check("one").unwrap_err();
    alone.del("one").unwrap();
    let again = Chain::new(&node, &[]).add("two").unwrap();
    assert_ne!(
        first["interfaces"][0]["name"],
        again["interfaces"][0]["name"]
    );
}
