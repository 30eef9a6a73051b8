//! Real callers of the CNI plugin: containerd's CRI with runc, as a kubelet uses it. Needs root,
//! containerd, runc and busybox (Debian: containerd, runc, busybox-static, containernetworking-plugins).

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

mod containerd;
mod cri;

use containerd::{Containerd, IMAGE, possible, until};
use cri::{Cri, Sandbox};

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
