//! The plugin as a runtime uses it: in a node's network namespace, for pods in theirs.
//!
//! Each test makes its own namespaces and lets them go. Needs root (or a user namespace); without,
//! the tests fail rather than pass silently.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Instant;

use parfait_cluster::PodIsolation;
use parfait_cni::{Code, NodeConfig};
use parfait_kernel::NetNs;
use parfait_kernel::conntrack::Filter;
use parfait_kernel::nft::NftSocket;
use serde_json::{Value, json};

const NODE_SETUP: [&str; 7] = [
    "ip link set lo up",
    "ip link add eth0 type veth peer name far0",
    "ip link set eth0 up",
    "ip link set far0 up",
    "ip addr add 192.168.77.11/24 dev eth0",
    "ip addr add fd00:77::11/64 dev eth0 nodad",
    "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
];

/// A node: a namespace with an underlay interface, and a folder for its state.
struct Node {
    netns: NetNs,
    folder: tempfile::TempDir,
}

/// A pod's sandbox, known by its number.
struct Pod {
    netns: NetNs,
    number: usize,
}

impl Pod {
    fn new(number: usize) -> Self {
        let netns = NetNs::create().expect("root, or a user namespace");
        Self { netns, number }
    }
}

fn shell(netns: &NetNs, command: &str) -> Result<String, String> {
    let output = netns
        .run(|| {
            let mut words = command.split_whitespace();
            let program = words.next().unwrap();
            Command::new(program).args(words).output().unwrap()
        })
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!(
            "{command}: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        ))
    }
}

impl Node {
    fn new(cidrs: &[&str]) -> Self {
        let node = Self {
            netns: NetNs::create().expect("root, or a user namespace"),
            folder: tempfile::tempdir().unwrap(),
        };
        for command in NODE_SETUP {
            shell(&node.netns, command).unwrap();
        }
        node.config(cidrs).write(node.folder.path()).unwrap();
        node
    }

    fn config(&self, cidrs: &[&str]) -> NodeConfig {
        NodeConfig {
            // The first is not on any interface, as behind a cloud's NAT.
            addresses: ["203.0.113.7", "192.168.77.11", "fd00:77::11"]
                .map(|address| address.parse().unwrap())
                .to_vec(),
            node: "node-1".to_owned(),
            pod_cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
            mtu: 1450,
            // Most tests here have no agent that could know a pod.
            pod_isolation: PodIsolation::None,
            ..NodeConfig::default()
        }
    }

    fn network(&self, version: &str) -> Value {
        json!({
            "cniVersion": version,
            "name": "parfait",
            "type": "parfait",
            "stateDir": self.folder.path(),
        })
    }

    /// One call of the plugin, with the configuration's additional fields.
    fn call(&self, command: &str, pod: &Pod, more: Value) -> Result<Value, (Code, String)> {
        let netns = format!("/proc/{}/fd/{}", std::process::id(), pod.netns.as_raw_fd());
        let number = pod.number;
        let arguments =
            format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-{number}");
        let variables = BTreeMap::from([
            ("CNI_COMMAND", command.to_owned()),
            ("CNI_CONTAINERID", format!("container-{number}")),
            ("CNI_NETNS", netns),
            ("CNI_IFNAME", "eth0".to_owned()),
            ("CNI_ARGS", arguments),
        ]);
        self.run(&variables, more)
    }

    fn run(
        &self,
        variables: &BTreeMap<&str, String>,
        more: Value,
    ) -> Result<Value, (Code, String)> {
        let mut config = self.network("1.1.0");
        for (key, value) in more.as_object().into_iter().flatten() {
            config[key] = value.clone();
        }
        let input = config.to_string();
        let run = || parfait_cni::run(&|name| variables.get(name).cloned(), &mut input.as_bytes());
        match self.netns.run(run).unwrap() {
            Ok(text) if text.is_empty() => Ok(Value::Null),
            Ok(text) => Ok(serde_json::from_str(&text).unwrap()),
            Err((error, _)) => Err((error.code, error.to_string())),
        }
    }

    fn add(&self, pod: &Pod) -> Value {
        self.call("ADD", pod, json!({})).unwrap()
    }

    fn del(&self, pod: &Pod) {
        assert_eq!(self.call("DEL", pod, json!({})), Ok(Value::Null));
    }

    fn links(&self) -> usize {
        let links = shell(&self.netns, "ip -o link show type veth").unwrap();
        links.lines().filter(|line| line.contains(": pf")).count()
    }
}

fn addresses(result: &Value) -> Vec<String> {
    let ips = result["ips"].as_array().unwrap();
    ips.iter()
        .map(|ip| ip["address"].as_str().unwrap().to_owned())
        .collect()
}

const DUAL: [&str; 2] = ["10.244.1.0/24", "fd00:10:244:1::/64"];

#[test]
fn a_pod_is_attached_checked_and_detached() {
    let node = Node::new(&DUAL);
    let pod = Pod::new(1);
    let result = node.add(&pod);
    assert_eq!(
        addresses(&result),
        ["10.244.1.2/32", "fd00:10:244:1::2/128"]
    );
    assert_eq!(result["interfaces"][1]["name"], "eth0");
    assert_eq!(result["interfaces"][1]["mtu"], 1450);
    assert_eq!(result["ips"][0]["gateway"], "169.254.1.1");
    assert_eq!(result["routes"][1], json!({"dst": "::/0", "gw": "fe80::1"}));

    let inside = shell(&pod.netns, "ip -o addr show dev eth0").unwrap();
    assert!(inside.contains("10.244.1.2/32") && inside.contains("fd00:10:244:1::2/128"));
    assert!(!inside.contains("tentative"), "{inside}");
    let routes = shell(&pod.netns, "ip route show").unwrap();
    assert_eq!(
        routes.trim(),
        "default via 169.254.1.1 dev eth0 proto 113 onlink"
    );
    let host = result["interfaces"][0]["name"].as_str().unwrap();
    let link = shell(&node.netns, &format!("ip link show {host}")).unwrap();
    assert!(
        link.contains("alias Pod default/web-1") && link.contains("mtu 1450"),
        "{link}"
    );

    let routes = shell(&node.netns, "ip route show proto 113").unwrap();
    assert_eq!(
        routes.trim(),
        format!("10.244.1.2 dev {host} scope link src 192.168.77.11")
    );

    let previous = json!({ "prevResult": result });
    assert_eq!(node.call("CHECK", &pod, previous.clone()), Ok(Value::Null));
    shell(&pod.netns, "ip route del default").unwrap();
    let (code, message) = node.call("CHECK", &pod, previous).unwrap_err();
    assert_eq!(code, Code::Drifted);
    assert!(
        message.contains("pod: default via 169.254.1.1 dev eth0"),
        "{message}"
    );

    node.del(&pod);
    node.del(&pod);
    assert_eq!(node.links(), 0);
    assert!(shell(&pod.netns, "ip link show eth0").is_err());
    assert_eq!(shell(&node.netns, "ip route show proto 113").unwrap(), "");
}

#[test]
fn a_pod_and_its_node_reach_each_other_from_every_address() {
    let node = Node::new(&DUAL);
    shell(&node.netns, "ip addr add 10.244.1.1/32 dev lo").unwrap();
    shell(&node.netns, "ip addr add fd00:10:244:1::1/128 dev lo").unwrap();
    let pods = [Pod::new(1), Pod::new(2)];
    for pod in &pods {
        node.add(pod);
    }
    for (from, command) in [
        (&node.netns, "ping -c1 -w10 10.244.1.2"),
        (&node.netns, "ping -c1 -w10 -I 192.168.77.11 10.244.1.2"),
        (&node.netns, "ping -c1 -w10 -I 10.244.1.1 10.244.1.3"),
        (&node.netns, "ping -c1 -w10 fd00:10:244:1::2"),
        (&node.netns, "ping -c1 -w10 -I fd00:77::11 fd00:10:244:1::3"),
        (
            &node.netns,
            "ping -c1 -w10 -I fd00:10:244:1::1 fd00:10:244:1::3",
        ),
        (&pods[0].netns, "ping -c1 -w10 192.168.77.11"),
        (&pods[0].netns, "ping -c1 -w10 fd00:77::11"),
        (&pods[0].netns, "ping -c1 -w10 10.244.1.3"),
        (&pods[0].netns, "ping -c1 -w10 fd00:10:244:1::3"),
        (&pods[0].netns, "ping -c1 -w10 127.0.0.1"),
        (&pods[0].netns, "ping -c1 -w10 -M do -s 1422 10.244.1.3"),
    ] {
        shell(from, command).unwrap();
    }
}

#[test]
fn a_node_may_have_ipv6_only() {
    let node = Node::new(&["fd00:10:244:1::/64"]);
    let pods = [Pod::new(1), Pod::new(2)];
    for pod in &pods {
        // As a runtime that turns IPv6 off in every new namespace.
        shell(&pod.netns, "sysctl -qw net.ipv6.conf.all.disable_ipv6=1").unwrap();
        shell(
            &pod.netns,
            "sysctl -qw net.ipv6.conf.default.disable_ipv6=1",
        )
        .unwrap();
        assert_eq!(addresses(&node.add(pod)).len(), 1);
    }
    shell(&node.netns, "ping -c1 -w10 fd00:10:244:1::2").unwrap();
    shell(&pods[0].netns, "ping -c1 -w10 fd00:10:244:1::3").unwrap();
    assert_eq!(shell(&pods[0].netns, "ip -4 route").unwrap(), "");
}

#[test]
fn a_pod_cannot_send_from_another_pods_ipv4_address() {
    let node = Node::new(&["10.244.1.0/24"]);
    let pods = [Pod::new(1), Pod::new(2)];
    for pod in &pods {
        node.add(pod);
    }
    shell(&pods[0].netns, "ip addr add 10.244.1.9/32 dev eth0").unwrap();
    shell(&node.netns, "ip route add 10.244.1.9/32 dev eth0").unwrap();
    let spoofed = "ping -c1 -W1 -I 10.244.1.9 10.244.1.3";
    assert!(shell(&pods[0].netns, spoofed).is_err());
}

#[test]
fn thirty_two_pods_at_once_get_different_addresses() {
    let node = Node::new(&DUAL);
    let pods: Vec<_> = (0..32).map(Pod::new).collect();
    let start = Instant::now();
    let given: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = pods
            .iter()
            .map(|pod| scope.spawn(|| addresses(&node.add(pod))))
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    eprintln!("32 ADDs at once: {:?}", start.elapsed());
    let unique: BTreeSet<_> = given.iter().collect();
    assert_eq!(unique.len(), 64, "{given:?}");
    assert_eq!(node.links(), 32);
    std::thread::scope(|scope| {
        for pod in &pods {
            scope.spawn(|| node.del(pod));
        }
    });
    assert_eq!(node.links(), 0);
}

#[test]
fn one_add_takes_milliseconds() {
    let node = Node::new(&DUAL);
    let mut adds = Vec::new();
    let mut dels = Vec::new();
    for number in 0..20 {
        let pod = Pod::new(number);
        let start = Instant::now();
        node.add(&pod);
        adds.push(start.elapsed());
        let start = Instant::now();
        node.del(&pod);
        dels.push(start.elapsed());
    }
    adds.sort();
    dels.sort();
    eprintln!("median of 20: ADD {:?}, DEL {:?}", adds[10], dels[10]);
    assert!(adds[10].as_millis() < 200, "{adds:?}");
}

#[test]
fn a_failed_add_leaves_nothing() {
    let node = Node::new(&["10.244.1.0/24"]);
    let pod = Pod::new(1);
    shell(&pod.netns, "ip link add eth0 type veth peer name eth1").unwrap();
    let (code, message) = node.call("ADD", &pod, json!({})).unwrap_err();
    assert_eq!(code, Code::InvalidEnvironment);
    assert!(
        message.contains("already has an interface eth0"),
        "{message}"
    );
    assert_eq!(node.links(), 0);
    let next = node.add(&Pod::new(2));
    assert_eq!(addresses(&next), ["10.244.1.3/32"]);
}

#[test]
fn a_late_del_does_not_detach_the_pods_next_container() {
    let node = Node::new(&DUAL);
    let old = Pod::new(1);
    node.add(&old);
    // The same pod in another sandbox, before the old one's DEL arrives.
    let new = Pod::new(1);
    let variables = BTreeMap::from([
        ("CNI_COMMAND", "ADD".to_owned()),
        ("CNI_CONTAINERID", "container-1-again".to_owned()),
        (
            "CNI_NETNS",
            format!("/proc/{}/fd/{}", std::process::id(), new.netns.as_raw_fd()),
        ),
        ("CNI_IFNAME", "eth0".to_owned()),
        (
            "CNI_ARGS",
            "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-1".to_owned(),
        ),
    ]);
    let result = node.run(&variables, json!({})).unwrap();
    assert_eq!(addresses(&result)[0], "10.244.1.3/32");
    node.del(&old);
    assert_eq!(node.links(), 1);
    shell(&node.netns, "ping -c1 -w10 10.244.1.3").unwrap();
}

#[test]
fn del_works_when_the_namespace_is_gone() {
    let node = Node::new(&["10.244.1.0/29"]);
    for number in 0..12 {
        let pod = Pod::new(number);
        node.add(&pod);
        let variables = BTreeMap::from([
            ("CNI_COMMAND", "DEL".to_owned()),
            ("CNI_CONTAINERID", format!("container-{number}")),
            ("CNI_NETNS", "/nowhere".to_owned()),
            ("CNI_IFNAME", "eth0".to_owned()),
        ]);
        drop(pod);
        assert_eq!(node.run(&variables, json!({})), Ok(Value::Null));
    }
}

#[test]
fn what_the_runtime_does_not_list_is_collected() {
    let node = Node::new(&DUAL);
    let pods = [Pod::new(1), Pod::new(2), Pod::new(3)];
    for pod in &pods {
        node.add(pod);
    }
    let valid = json!({
        "cni.dev/valid-attachments": [{"containerID": "container-2", "ifname": "eth0"}]
    });
    assert_eq!(node.call("GC", &pods[0], valid), Ok(Value::Null));
    assert_eq!(node.links(), 1);
    shell(&node.netns, "ping -c1 -w10 10.244.1.3").unwrap();
    let (code, _) = node.call("GC", &pods[0], json!({})).unwrap_err();
    assert_eq!(code, Code::InvalidConfig);
}

#[test]
fn lost_allocations_are_rebuilt_from_the_kernel() {
    let node = Node::new(&DUAL);
    let pods = [Pod::new(1), Pod::new(2)];
    node.add(&pods[0]);
    std::fs::remove_dir_all(node.folder.path().join("ipam")).unwrap();
    assert_eq!(addresses(&node.add(&pods[1]))[0], "10.244.1.3/32");
    // The collector does not know the container, but sees its interface.
    let valid = json!({
        "cni.dev/valid-attachments": [{"containerID": "container-2", "ifname": "eth0"}]
    });
    assert_eq!(node.call("GC", &pods[0], valid), Ok(Value::Null));
    shell(&node.netns, "ping -c1 -w10 10.244.1.2").unwrap();
}

#[test]
fn without_the_agents_word_pods_wait() {
    let node = Node::new(&DUAL);
    let pod = Pod::new(1);
    assert_eq!(node.call("STATUS", &pod, json!({})), Ok(Value::Null));
    std::fs::remove_file(NodeConfig::path(node.folder.path())).unwrap();
    let (code, message) = node.call("ADD", &pod, json!({})).unwrap_err();
    assert_eq!(code, Code::TryAgainLater);
    assert!(message.contains("node.json"), "{message}");
    let (code, _) = node.call("STATUS", &pod, json!({})).unwrap_err();
    assert_eq!(code, Code::NotAvailable);
    node.config(&[]).write(node.folder.path()).unwrap();
    let (code, _) = node.call("ADD", &pod, json!({})).unwrap_err();
    assert_eq!(code, Code::TryAgainLater);
    assert_eq!(node.links(), 0);
}

#[test]
fn requests_that_make_no_sense_are_refused_with_a_code() {
    let node = Node::new(&DUAL);
    let pod = Pod::new(1);
    let previous = json!({"prevResult": {"cniVersion": "0.2.0", "ip4": {"ip": "10.0.0.1/24"}}});
    let (code, message) = node.call("ADD", &pod, previous).unwrap_err();
    assert_eq!(code, Code::IncompatibleVersion, "{message}");
    let (code, message) = node.call("ADD", &pod, json!({"mtu": 1400})).unwrap_err();
    assert_eq!(code, Code::UnsupportedField, "{message}");
    let (code, _) = node.call("DANCE", &pod, json!({})).unwrap_err();
    assert_eq!(code, Code::InvalidEnvironment);
    let (code, _) = node.call("CHECK", &pod, json!({})).unwrap_err();
    assert_eq!(code, Code::InvalidConfig);
    let own = Pod {
        netns: node.netns.clone(),
        number: 1,
    };
    let (code, message) = node.call("ADD", &own, json!({})).unwrap_err();
    assert_eq!(code, Code::InvalidNetNs);
    assert!(message.contains("node's own"), "{message}");
    let gone = BTreeMap::from([
        ("CNI_COMMAND", "ADD".to_owned()),
        ("CNI_CONTAINERID", "x".to_owned()),
        ("CNI_NETNS", "/nowhere".to_owned()),
        ("CNI_IFNAME", "eth0".to_owned()),
    ]);
    let (code, _) = node.run(&gone, json!({})).unwrap_err();
    assert_eq!(code, Code::UnknownContainer);
}

#[test]
fn every_version_gets_the_result_it_knows() {
    let node = Node::new(&DUAL);
    for (number, version) in parfait_cni::VERSIONS.iter().enumerate() {
        let pod = Pod::new(number);
        let result = node
            .call("ADD", &pod, json!({ "cniVersion": version }))
            .unwrap();
        assert_eq!(result["cniVersion"], *version);
        let old = version.starts_with("0.");
        assert_eq!(result["ips"][0].get("version").is_some(), old, "{version}");
        let mtu = result["interfaces"][1].get("mtu");
        assert_eq!(mtu.is_some(), *version == "1.1.0", "{version}");
    }
}

#[test]
fn the_program_answers_on_its_standard_output() {
    let answer = |command: &str, input: &str| {
        let mut output = Vec::new();
        parfait_cni::main(
            &|name| (name == "CNI_COMMAND").then(|| command.to_owned()),
            &mut input.as_bytes(),
            &mut output,
        );
        serde_json::from_slice::<Value>(&output).unwrap()
    };
    let versions = answer("VERSION", r#"{"cniVersion":"1.0.0"}"#);
    assert_eq!(versions["cniVersion"], "1.0.0");
    assert_eq!(versions["supportedVersions"], json!(parfait_cni::VERSIONS));
    let error = answer("ADD", "{");
    assert_eq!(
        (error["code"].as_u64(), error["cniVersion"].as_str()),
        (Some(6), Some("1.1.0"))
    );
    let error = answer(
        "ADD",
        r#"{"cniVersion":"0.4.0","name":"n","stateDir":"/nowhere"}"#,
    );
    assert_eq!(
        (error["code"].as_u64(), error["cniVersion"].as_str()),
        (Some(4), Some("0.4.0"))
    );
}

/// The node's tables as the plugin leaves them where no agent has been yet.
#[test]
fn a_pod_is_closed_where_no_agent_has_been_yet() {
    let node = Node::new(&DUAL);
    let config = NodeConfig {
        pod_isolation: PodIsolation::UntilKnown,
        ..node.config(&DUAL)
    };
    config.write(node.folder.path()).unwrap();
    let pods: Vec<_> = (1..9).map(Pod::new).collect();
    // All at once: the tables are made once.
    let given: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = pods
            .iter()
            .map(|pod| scope.spawn(|| addresses(&node.add(pod))))
            .collect();
        let given = threads.into_iter().map(|thread| thread.join());
        given.map(Result::unwrap).collect()
    });
    for family in ["ip", "ip6"] {
        let table = shell(&node.netns, &format!("nft list table {family} parfait")).unwrap();
        assert_eq!(table.matches(" drop").count(), 2, "{table}");
    }
    for open in ["ping -c1 -w10 192.168.77.11", "ping -c1 -w10 fd00:77::11"] {
        shell(&pods[0].netns, open).unwrap();
    }
    for other in &given[1] {
        let (address, _) = other.split_once('/').unwrap();
        shell(&pods[0].netns, &format!("ping -c1 -W1 {address}")).unwrap_err();
    }
    // Not the agent's tables: they are left as they are.
    shell(&node.netns, "nft flush chain ip parfait isolation").unwrap();
    node.del(&pods[7]);
    node.add(&pods[7]);
    let table = shell(&node.netns, "nft list table ip parfait").unwrap();
    assert_eq!(table.matches(" drop").count(), 0, "{table}");
}

/// What belongs to a connection passes unasked: whoever gets an address must not get another's connections with it.
#[test]
fn an_address_comes_without_the_connections_of_whoever_had_it() {
    let node = Node::new(&DUAL);
    // A rule that asks has the kernel track connections.
    for command in [
        "nft add table inet tracking",
        "nft add chain inet tracking c { type filter hook input priority 0; }",
        "nft add rule inet tracking c ct state new accept",
    ] {
        shell(&node.netns, command).unwrap();
    }
    let (first, other) = (Pod::new(1), Pod::new(2));
    for pod in [&first, &other] {
        node.add(pod);
        for of_node in ["192.168.77.11", "fd00:77::11"] {
            shell(&pod.netns, &format!("ping -c1 -w10 {of_node}")).unwrap();
        }
    }
    let connected = || {
        let listed = || NftSocket::open().unwrap().connections(&Filter::default());
        let entries = node.netns.run(listed).unwrap().unwrap();
        let sources = entries.iter().map(|entry| entry.original.source.ip());
        sources.map(|ip| ip.to_string()).collect::<BTreeSet<_>>()
    };
    let all = [
        "10.244.1.2",
        "10.244.1.3",
        "fd00:10:244:1::2",
        "fd00:10:244:1::3",
    ];
    node.del(&first);
    assert_eq!(connected(), all.map(str::to_owned).into());
    // An address that nobody had yet costs no look.
    node.add(&Pod::new(3));
    assert_eq!(connected(), all.map(str::to_owned).into());
    let wish = json!({"runtimeConfig": {"ips": ["10.244.1.2"]}});
    let second = Pod::new(4);
    let given = addresses(&node.call("ADD", &second, wish).unwrap());
    assert_eq!(given[0], "10.244.1.2/32");
    assert_eq!(connected(), [all[1], all[3]].map(str::to_owned).into());
}

/// While the agent is down nobody takes pods that end out of those it knew. A StatefulSet's next pod has the name of the one
/// before, and its address if it asks for it.
#[test]
fn a_pod_that_gets_name_and_address_of_another_is_not_known_for_it() {
    let node = Node::new(&DUAL);
    let config = NodeConfig {
        pod_isolation: PodIsolation::UntilKnown,
        ..node.config(&DUAL)
    };
    config.write(node.folder.path()).unwrap();
    let ips = ["10.244.1.2", "fd00:10:244:1::2"];
    let wish = json!({"runtimeConfig": {"ips": ips}});
    let first = Pod::new(1);
    node.call("ADD", &first, wish.clone()).unwrap();
    // As the agent does, and then it ends.
    let links = shell(&node.netns, "ip -o link show type veth").unwrap();
    let interface = links.split([' ', '@']).find(|word| word.starts_with("pf"));
    let interface = interface.unwrap().to_owned();
    let sets = [("ip", ips[0]), ("ip6", ips[1])];
    for (family, ip) in sets {
        for known in [&interface, "pf0000000000ff"] {
            let add = format!("nft add element {family} parfait known_pods {{ {known} . {ip} }}");
            shell(&node.netns, &add).unwrap();
        }
    }
    let known = || {
        sets.map(|(family, _)| {
            let list = format!("nft list set {family} parfait known_pods");
            let text = shell(&node.netns, &list).unwrap();
            [&interface, "pf0000000000ff"].map(|name| text.contains(name))
        })
    };
    // Asked for again, it is the same pod.
    node.call("ADD", &first, wish.clone()).unwrap();
    assert_eq!(known(), [[true, true]; 2]);
    node.del(&first);
    let next = Pod::new(1);
    let given = addresses(&node.call("ADD", &next, wish).unwrap());
    assert_eq!(given[0], "10.244.1.2/32");
    assert_eq!(known(), [[false, true]; 2], "who is known, and only that");
}

#[test]
fn an_add_that_is_sent_again_answers_the_same_and_touches_nothing() {
    let node = Node::new(&DUAL);
    let pod = Pod::new(1);
    let first = node.add(&pod);
    let inside = |netns: &NetNs| shell(netns, "ip -o link show eth0").unwrap();
    let before = inside(&pod.netns);
    assert_eq!(node.add(&pod), first);
    assert_eq!(inside(&pod.netns), before, "the interface is another");
    // What is not as it should be is made anew, with the same addresses.
    shell(&pod.netns, "ip addr flush dev eth0").unwrap();
    assert_eq!(node.add(&pod), first);
    assert_ne!(inside(&pod.netns), before);
    shell(&node.netns, "ping -c1 -w10 10.244.1.2").unwrap();
    // So it is in another sandbox of the same name.
    let again = Pod::new(1);
    assert_eq!(addresses(&node.add(&again)), addresses(&first));
    shell(&again.netns, "ping -c1 -w10 192.168.77.11").unwrap();
    assert_eq!(node.links(), 1);
}

#[test]
fn limits_hold_are_checked_and_go_with_the_pod() {
    let node = Node::new(&DUAL);
    let pod = Pod::new(1);
    let limits = json!({"ingressRate": 8_000_000, "ingressBurst": 800_000,
        "egressRate": 4_000_000, "egressBurst": 2_147_483_647_u64});
    let more = json!({"runtimeConfig": { "bandwidth": limits }});
    let result = node.call("ADD", &pod, more.clone()).unwrap();
    let host = result["interfaces"][0]["name"].as_str().unwrap();
    let ingress = shell(&node.netns, &format!("tc qdisc show dev {host} root")).unwrap();
    assert!(
        ingress.contains("tbf 1: ") && ingress.contains("rate 8Mbit"),
        "{ingress}"
    );
    let egress = shell(&pod.netns, "tc qdisc show dev eth0 root").unwrap();
    assert!(
        egress.contains("tbf 1: ") && egress.contains("rate 4Mbit"),
        "{egress}"
    );
    shell(&node.netns, "ping -c1 -w10 -s 1400 10.244.1.2").unwrap();

    let previous = json!({"prevResult": result, "runtimeConfig": more["runtimeConfig"]});
    assert_eq!(node.call("CHECK", &pod, previous.clone()), Ok(Value::Null));
    shell(&pod.netns, "tc qdisc del dev eth0 root").unwrap();
    let (code, message) = node.call("CHECK", &pod, previous).unwrap_err();
    assert_eq!(code, Code::Drifted);
    assert!(
        message.contains("pod: eth0 tbf rate 4000000bit"),
        "{message}"
    );
    node.del(&pod);

    let small = json!({"runtimeConfig": {"bandwidth": {"egressRate": 8000, "egressBurst": 8000}}});
    let (code, message) = node.call("ADD", &pod, small).unwrap_err();
    assert_eq!(code, Code::InvalidConfig);
    assert!(message.contains("11712 bits"), "{message}");
}

#[test]
fn a_pod_gets_the_address_and_the_mac_it_asks_for() {
    let node = Node::new(&DUAL);
    let pod = Pod::new(1);
    let more = json!({"runtimeConfig": {"ips": ["10.244.1.77/24"], "mac": "02:00:00:00:00:99"}});
    let result = node.call("ADD", &pod, more).unwrap();
    assert_eq!(addresses(&result)[0], "10.244.1.77/32");
    assert_eq!(result["interfaces"][1]["mac"], "02:00:00:00:00:99");
    let link = shell(&pod.netns, "ip link show eth0").unwrap();
    assert!(link.contains("02:00:00:00:00:99"), "{link}");
    shell(&node.netns, "ping -c1 -w10 10.244.1.77").unwrap();
    assert_eq!(
        node.call("CHECK", &pod, json!({ "prevResult": result })),
        Ok(Value::Null)
    );
    let (_, message) = node
        .call(
            "ADD",
            &Pod::new(2),
            json!({"runtimeConfig": {"ips": ["10.244.1.77"]}}),
        )
        .unwrap_err();
    assert!(message.contains("10.244.1.77"), "{message}");
}

#[test]
fn ipv6_on_an_interface_too_small_for_it_is_refused_with_the_reason() {
    let node = Node::new(&["10.244.1.0/24", "fd00:10:244:1::/64"]);
    let mut config = node.config(&["fd00:10:244:1::/64"]);
    config.mtu = 1230;
    config.write(node.folder.path()).unwrap();
    let pod = Pod::new(1);
    let (code, message) = node.call("ADD", &pod, json!({})).unwrap_err();
    assert_eq!(code, Code::InvalidConfig);
    assert!(
        message.contains("1230 bytes, but IPv6 needs 1280"),
        "{message}"
    );
    node.call("DEL", &pod, json!({})).unwrap();
    // IPv4 does with less.
    config.pod_cidrs = vec!["10.244.1.0/24".parse().unwrap()];
    config.write(node.folder.path()).unwrap();
    node.call("ADD", &pod, json!({})).unwrap();
}

#[test]
fn an_address_that_leads_to_a_pod_is_not_given_though_its_record_is_gone() {
    for address in ["10.244.1.2", "fd00:10:244:1::2"] {
        let node = Node::new(&["10.244.1.0/24", "fd00:10:244:1::/64"]);
        let (first, second) = (Pod::new(1), Pod::new(2));
        node.call("ADD", &first, json!({})).unwrap();
        let folder = parfait_cni::ipam::folder(node.folder.path());
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.to_string_lossy().contains("container-1") {
                std::fs::remove_file(path).unwrap();
            }
        }
        let (records, _) = parfait_cni::ipam::read_all(node.folder.path()).unwrap();
        assert!(records.is_empty());
        let more = json!({ "runtimeConfig": { "ips": [address] } });
        let (_, message) = node.call("ADD", &second, more).unwrap_err();
        let found = format!("{address} that is asked for is in use by container (found)/pf");
        assert!(message.contains(&found), "{message}");
        node.call("ADD", &second, json!({})).unwrap();
    }
}
