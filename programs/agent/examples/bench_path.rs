//! What `cargo xtask bench path` is made of: a node of a cluster of two with its pods attached, and a
//! server and a client that do nothing but connect.
//!
//! ```text
//! bench_path node ROUTING NUMBER FOLDER POD NETNS [POD NETNS …]    in the node's network namespace
//! bench_path serve PORT                                            until it is killed
//! bench_path connect ADDRESS:PORT MILLISECONDS                     prints microseconds per connection
//! ```
//!
//! A node gets its pods from the CNI plugin itself, and its routes and rules as the agent makes them:
//! planned, and carried out by [`Machine`]. It needs an `eth0` with 192.168.77.1NUMBER/24.

#![allow(clippy::expect_used, reason = "a benchmark may end by panicking")]

#[path = "../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use parfait_agent::Machine;
use parfait_cluster::Snapshot;
use parfait_cni::NodeConfig;
use parfait_join::NodePlan;
use parfait_linux::Mtu;
use rustix::net::sockopt::set_socket_linger;

/// Clients, and servers: more of each than there are processors on most machines.
const THREADS: usize = 4;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match &words[..] {
        ["node", routing, number, folder, pods @ ..] => {
            node(routing, number, Path::new(folder), pods);
        }
        ["serve", port] => serve(port.parse().expect("a port")),
        ["connect", target, time] => connect(target, time.parse().expect("milliseconds")),
        _ => panic!("usage: bench_path node|serve|connect …, see the top of its source"),
    }
}

fn cluster(routing: &str) -> Snapshot {
    fixture::cluster(&format!(
        "config routing={routing} clusterCIDRs=10.244.0.0/16 serviceCIDRs=10.96.0.0/16
         node node-1 pods=10.244.1.0/24 underlay=192.168.77.11/24 gateway=192.168.77.1
         node node-2 pods=10.244.2.0/24 underlay=192.168.77.12/24 gateway=192.168.77.1
         pod a on=node-1 ip=10.244.1.2
         pod b on=node-1 ip=10.244.1.3
         pod c on=node-2 ip=10.244.2.2
         service c ip=10.96.0.20 ports=http:80/TCP>8080
         slice c-a of=c ports=http:8080/TCP endpoints=10.244.2.2@node-2/c"
    ))
}

fn node(routing: &str, number: &str, folder: &Path, pods: &[&str]) {
    let snapshot = cluster(routing);
    let name = format!("node-{number}");
    let of_node = &snapshot.nodes[&name];
    let mtu = parfait_link::plan(&snapshot, &name).pod_mtu;
    let config = NodeConfig {
        node: name.clone(),
        addresses: of_node.addresses.clone(),
        pod_cidrs: of_node.pod_cidrs.clone(),
        mtu: mtu.unwrap_or(Mtu::ETHERNET).bytes(),
        ..NodeConfig::default()
    };
    config.write(folder).expect("a folder to write to");
    for pod in pods.chunks(2) {
        let [pod, netns] = pod else {
            panic!("a pod without a network namespace");
        };
        attach(folder, pod, netns);
    }
    let desired = NodePlan::new(&snapshot, &name).state();
    let mut machine = Machine::open().expect("root in a network namespace");
    machine.sync(&desired).expect("a kernel that takes it");
    machine.forget();
    let left = machine.sync(&desired).expect("a kernel that takes it");
    assert_eq!(left, 0, "steps are left: {:?}", machine.put_off());
}

fn attach(folder: &Path, pod: &str, netns: &str) {
    let environment = |name: &str| match name {
        "CNI_COMMAND" => Some("ADD".to_owned()),
        "CNI_CONTAINERID" => Some(format!("container-{pod}")),
        "CNI_NETNS" => Some(netns.to_owned()),
        "CNI_IFNAME" => Some("eth0".to_owned()),
        "CNI_PATH" => Some("/opt/cni/bin".to_owned()),
        "CNI_ARGS" => Some(format!("K8S_POD_NAMESPACE=default;K8S_POD_NAME={pod}")),
        _ => None,
    };
    let config = format!(
        "{{\"cniVersion\":\"1.1.0\",\"name\":\"bench\",\"type\":\"parfait\",\"stateDir\":\"{}\"}}",
        folder.display()
    );
    let added = parfait_cni::run(&environment, &mut config.as_bytes());
    added.map_err(|(error, _)| error).expect("an attached pod");
}

/// Accepts, says one byte, and waits for the client to go.
fn serve(port: u16) {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).expect("a free port");
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Ok((mut stream, _)) = listener.accept() {
                    let _ = stream.write_all(b"!").and_then(|()| stream.read(&mut [0]));
                }
            });
        }
    });
}

/// Connects, reads the byte and resets the connection, so that no port stays taken.
fn connect(target: &str, milliseconds: u64) {
    let start = Instant::now();
    let end = start + Duration::from_millis(milliseconds);
    let one = || -> std::io::Result<()> {
        let mut stream = TcpStream::connect(target)?;
        set_socket_linger(&stream, Some(Duration::ZERO))?;
        stream.read_exact(&mut [0])
    };
    let worker = || {
        let mut done = 0_u32;
        while Instant::now() < end {
            one().expect("a server that answers");
            done += 1;
        }
        done
    };
    let connections: u32 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS).map(|_| scope.spawn(worker)).collect();
        let counts = workers.into_iter().map(|worker| worker.join());
        counts.map(|count| count.expect("a worker that ends")).sum()
    });
    let each = start.elapsed().as_secs_f64() * 1e6 / f64::from(connections);
    println!("{each:.4}");
}
