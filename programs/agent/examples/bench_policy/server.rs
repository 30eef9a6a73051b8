//! The two pods of `traffic`, and any number of policies that select the one that answers: Parfait's ruleset for them,
//! and the same rule by rule, as tools without sets for whole classes of pods make it.
//!
//! Each policy allows some other pods, at some port. The last one allows the client, so that who tries rule by rule
//! tries all of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;

use ipnet::IpNet;
use parfait_cluster::{
    ClusterRule, LabelSelector, Namespace, NetworkPolicy, NodeNetworkPolicy, Object, ObjectName,
    Peer, Phase, Pod, PolicyAction, PolicyPort, PolicyRule, PortMatch, Snapshot,
};
use parfait_kernel::nft::NftSocket;
use parfait_linux::nft::{Tables, diff, join};
use parfait_packet::Protocol;
use parfait_transport::policy;

use crate::large::{Large, OURS, address};
use crate::traffic::processor_time;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 200);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 201);
const PORT: u16 = 8080;
/// Of UDP; no policy allows it.
const DENIED: u16 = 9;

/// How many pods each of the other policies allows.
const OTHERS: u32 = 4;

/// Makes the kernel hold what Services and policies want.
pub fn load(snapshot: &Snapshot) {
    let keyed = |tables: Vec<parfait_linux::nft::Table>| -> Tables {
        let tables = tables.into_iter();
        tables.map(|table| (table.key(), table)).collect()
    };
    let mut tables = keyed(parfait_transport::apply(&parfait_transport::plan(
        snapshot, OURS,
    )));
    join(
        &mut tables,
        keyed(policy::apply(&policy::plan(snapshot, OURS))),
    );
    let mut socket = NftSocket::open().expect("a netlink socket");
    let loaded = socket.execute(&diff(&Tables::new(), &tables));
    loaded.expect("a kernel that takes it");
}

/// Sends datagrams to a port that no policy allows, and tells what one costs in processor time: its way through the kernel
/// to where it is dropped is the sender's.
pub fn storm(packets: u32) {
    let socket = UdpSocket::bind((CLIENT, 0)).expect("the client's address");
    socket
        .connect((SERVER, DENIED))
        .expect("a way to the server");
    let before = processor_time();
    for _ in 0..packets {
        // A packet that is dropped on its way is not the sender's error.
        let _ = socket.send(b"x");
    }
    let took = processor_time().saturating_sub(before);
    let each = took.as_secs_f64() * 1e3 / f64::from(packets);
    println!("storm {each:.6}");
}

/// Writes one rule for each rule of each policy.
pub fn write(policies: u32, file: &Path) {
    let mut text = "table ip rules {\n  chain server {\n".to_owned();
    for nth in 0..policies {
        let (peers, port) = allowed(nth, policies);
        let peers: Vec<String> = peers.iter().map(ToString::to_string).collect();
        let peers = peers.join(", ");
        writeln!(text, "    ip saddr {{ {peers} }} tcp dport {port} accept").expect("memory");
    }
    write!(
        text,
        "    drop\n  }}\n  chain forward {{\n    type filter hook forward priority 0;\n    \
         ct state established,related accept\n    ip daddr {SERVER} jump server\n  }}\n}}\n"
    )
    .expect("memory");
    std::fs::write(file, text).expect("a folder to write to");
}

/// Whom a policy allows, and where.
fn allowed(nth: u32, policies: u32) -> (Vec<Ipv4Addr>, u16) {
    match nth + 1 == policies {
        true => (vec![CLIENT], PORT),
        false => {
            let first = nth * OTHERS;
            let peers = (first..first + OTHERS).map(other);
            (peers.collect(), 8000 + (nth % 100) as u16)
        }
    }
}

fn other(nth: u32) -> Ipv4Addr {
    match address([10, 129, 0, 0], nth) {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => unreachable!("four bytes are IPv4"),
    }
}

/// The two pods, and policies that select the one that answers.
pub fn of_a_pod(policies: u32) -> Snapshot {
    snapshot(policies, |nth, names, port| {
        Object::NetworkPolicy(allow(nth, names, port))
    })
}

/// The same with policies for the node, of which the last denies everything else.
pub fn of_a_node(policies: u32) -> Snapshot {
    snapshot(policies, |nth, names, port| {
        let last = nth + 1 == policies;
        Object::NodeNetworkPolicy(accept(nth, names, port, last))
    })
}

/// The pods, those that are allowed besides on other nodes, and what allows them.
fn snapshot(policies: u32, policy: impl Fn(u32, Vec<String>, u16) -> Object) -> Snapshot {
    let mut snapshot = Large::even(1, 1).snapshot();
    snapshot.insert(Object::Namespace(Namespace::new("bench")));
    snapshot.insert(Object::Pod(pod("client", CLIENT, OURS)));
    snapshot.insert(Object::Pod(pod("server", SERVER, OURS)));
    for nth in 0..policies {
        let (peers, port) = allowed(nth, policies);
        let mut names = Vec::new();
        for address in peers {
            let name = match address {
                CLIENT => "client".to_owned(),
                address => format!("other-{address}"),
            };
            if address != CLIENT {
                snapshot.insert(Object::Pod(pod(&name, address, "node-2")));
            }
            names.push(name);
        }
        snapshot.insert(policy(nth, names, port));
    }
    snapshot
}

fn allow(nth: u32, names: Vec<String>, port: u16) -> NetworkPolicy {
    let peers = names.iter().map(|name| Peer::Pods {
        namespaces: None,
        pods: called(name),
    });
    let port = PolicyPort {
        protocol: Protocol::Tcp,
        port: PortMatch::Numbers(port, port),
    };
    NetworkPolicy {
        name: ObjectName::new("bench", &format!("allow-{nth}")),
        pods: called("server"),
        ingress: Some(vec![PolicyRule {
            peers: Some(peers.collect()),
            ports: Some(vec![port]),
        }]),
        egress: None,
    }
}

fn accept(nth: u32, names: Vec<String>, port: u16, last: bool) -> NodeNetworkPolicy {
    let peers = names.iter().map(|name| Peer::Pods {
        namespaces: Some(LabelSelector::default()),
        pods: called(name),
    });
    let rule = |action, peers, ports| ClusterRule {
        name: String::new(),
        action,
        matches: PolicyRule {
            peers: Some(peers),
            ports,
        },
    };
    let port = PolicyPort {
        protocol: Protocol::Tcp,
        port: PortMatch::Numbers(port, port),
    };
    let everybody = Peer::Block {
        cidr: IpNet::new_assert(Ipv4Addr::UNSPECIFIED.into(), 0),
        except: Vec::new(),
    };
    let deny = last.then(|| rule(PolicyAction::Deny, vec![everybody], None));
    let accept = rule(PolicyAction::Accept, peers.collect(), Some(vec![port]));
    NodeNetworkPolicy {
        name: format!("accept-{nth}"),
        priority: u16::try_from(nth).expect("not that many policies"),
        nodes: LabelSelector::default(),
        ingress: [accept].into_iter().chain(deny).collect(),
    }
}

fn called(name: &str) -> LabelSelector {
    LabelSelector {
        match_labels: labels(name),
        match_expressions: Vec::new(),
    }
}

fn labels(name: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("app".to_owned(), name.to_owned())])
}

fn pod(name: &str, address: Ipv4Addr, node: &str) -> Pod {
    let addresses = vec![IpAddr::V4(address)];
    Pod {
        name: ObjectName::new("bench", name),
        uid: String::new(),
        created: None,
        labels: labels(name),
        node: Some(node.to_owned()),
        host_network: false,
        hostname: None,
        subdomain: None,
        reported: addresses.clone(),
        addresses,
        mac: None,
        phase: Phase::Running,
        ready: true,
        terminating: false,
        ports: Vec::new(),
        bandwidth: Default::default(),
    }
}
