//! What cannot be used, in the kernel: a Service that wants another's node port, and slices of mixed families, stand
//! beside one that is in order, whose clients notice nothing.
//!
//! ```text
//!   client ══╗            Service good:  10.96.0.20, fd00:10:96::20, node port 30080 ─▶ one
//!   one    ══╬ node-1     Service twin:  10.96.0.21, node port 30080 too             ─▶ two
//!   two    ══╝            Service mixed: 10.96.0.22, fd00:10:96::22, slices of both families each ─▶ two
//! ```

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

use parfait_cluster::Snapshot;
use parfait_kernel::NetNs;

use crate::fixture;
use crate::machines::Machines;
use crate::random::{LISTENING, Life, Pod, Scene};
use crate::services::{connect, echoes, serve};
use crate::sockets::{Outcome, Patience, Receivers, send};

const GOOD: &str = "
service good ip=10.96.0.20,fd00:10:96::20 ports=http:80/TCP>8080@30080 created=2026-01-01T00:00:00Z
slice good-4 of=good ports=http:8080/TCP endpoints=ONE4@node-1/p1
slice good-6 of=good ports=http:8080/TCP endpoints=ONE6@node-1/p1
service still ip=10.96.0.25 ports=http:80/TCP>9999
slice still-4 of=still ports=http:9999/TCP endpoints=ONE4@node-1/p1
";

const BAD: &str = "
service twin ip=10.96.0.21 ports=http:80/TCP>8080@30080 created=2026-01-02T00:00:00Z
slice twin-4 of=twin ports=http:8080/TCP endpoints=TWO4@node-1/p2
service mixed ip=10.96.0.22,fd00:10:96::22 ports=http:80/TCP>8080 created=2026-01-02T00:00:00Z
slice mixed-4 of=mixed family=IPv4 ports=http:8080/TCP endpoints=TWO4@node-1/p2,TWO6@node-1/p2,127.0.0.1@node-1
slice mixed-6 of=mixed family=IPv6 ports=http:8080/TCP endpoints=TWO4@node-1/p2,TWO6@node-1/p2,::1@node-1
slice names of=mixed family=FQDN ports=http:8080/TCP endpoints=two.example.org
slice lost of=nobody ports=http:8080/TCP endpoints=TWO4@node-1/p2
";

/// Where a Service is reached, and the pod that it leads to.
const BEFORE: [(&str, usize); 4] = [
    ("10.96.0.20:80", 1),
    ("[fd00:10:96::20]:80", 1),
    ("192.168.77.11:30080", 1),
    ("[fd00:77::11]:30080", 1),
];
const BESIDES: [(&str, usize); 3] = [
    ("10.96.0.21:80", 2),
    ("10.96.0.22:80", 2),
    ("[fd00:10:96::22]:80", 2),
];

fn scene() -> Scene {
    let pod = Pod {
        node: 1,
        life: Life::Running,
        host_port: None,
    };
    Scene {
        routing: "auto",
        families: vec![4, 6],
        underlay: vec![4, 6],
        nodes: vec![77],
        pods: vec![pod.clone(), pod.clone(), pod],
        services: Vec::new(),
    }
}

fn address(pod: usize, family: u8) -> IpAddr {
    let text = scene().pod_address(pod, family).expect("both families");
    text.parse().expect("an address")
}

fn cluster(services: &[&str]) -> Snapshot {
    let mut text = services.concat();
    for (pod, name) in [(1, "ONE"), (2, "TWO")] {
        for family in [4, 6] {
            let own = address(pod, family).to_string();
            text = text.replace(&format!("{name}{family}"), &own);
        }
    }
    fixture::clusters(&[&scene().to_string(), &text])
}

/// Each of these often enough that a second endpoint would be seen (1/2^10 to miss it).
fn lead(client: &NetNs, all: &[(&str, usize)]) {
    for (to, pod) in all {
        let to: SocketAddr = to.parse().expect("a socket");
        let at = SocketAddr::new(address(*pod, if to.is_ipv4() { 4 } else { 6 }), 8080);
        for _ in 0..10 {
            let outcome = client.run(|| send("TCP", to, Patience::LONG));
            let outcome = outcome.expect("a namespace");
            assert!(
                matches!(&outcome, Outcome::Delivered(found, _) if *found == at),
                "{to}: {outcome}, not {at}"
            );
        }
    }
}

/// Duplicate node ports, mixed families, endpoints that are names or nobody's, and a slice of nothing.
#[test]
fn what_cannot_be_used_leaves_other_services_alone() {
    if let Err(error) = NetNs::create() {
        let mut stderr = std::io::stderr();
        let test = "what_cannot_be_used_leaves_other_services_alone";
        let _ = writeln!(stderr, "SKIP: {test}: {error}");
        return;
    }
    let good = cluster(&[GOOD]);
    let machines = Machines::build(&scene(), &good).expect("a node");
    machines.plan(&good).expect("a plan");
    let receivers = Receivers::new().expect("a runtime");
    for pod in [1, 2] {
        let own = [address(pod, 4), address(pod, 6)];
        let listen = receivers.listen(&machines.pods[&pod], &own, &LISTENING);
        listen.expect("sockets");
    }
    serve(&machines.pods[&1], SocketAddr::new(address(1, 4), 9999), 1);
    let client = &machines.pods[&0];
    let still = SocketAddr::new([10, 96, 0, 25].into(), 80);
    let (mut open, _) = connect(client, still);
    lead(client, &BEFORE);
    lead(&machines.fabric, &BEFORE[2..]);

    machines.plan(&cluster(&[GOOD, BAD])).expect("a plan");
    lead(client, &BEFORE);
    lead(&machines.fabric, &BEFORE[2..]);
    lead(client, &BESIDES);
    echoes(&mut open);

    machines.plan(&good).expect("a plan");
    lead(client, &BEFORE);
    echoes(&mut open);
}
