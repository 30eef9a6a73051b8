//! What `nft list ruleset` prints of our tables, `nft -f` takes: an administrator who saves a node's ruleset can load
//! it. (Where the tables are already, nft 1.0.6 complains of its own maps of addresses and ports as well.)
//!
//! Needs root (or a user namespace) and `nft`.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

#[path = "../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;

use std::io::Write as _;
use std::process::{Command, Stdio};

use parfait_cluster::{Parsed, ServiceType, Snapshot, TrafficPolicy, parse};
use parfait_join::NodePlan;
use parfait_kernel::NetNs;
use parfait_kernel::nft::NftSocket;
use serde_json::json;

/// Something of everything that makes rules, but no session affinity: nft does not take the `dnat` to a port
/// that it prints, because the protocol was looked up in the chain before.
fn everything() -> Snapshot {
    let mut snapshot = fixture::clusters(&[
        fixture::DUAL,
        "pod door on=node-1 ip=10.244.1.9,fd00:10:244:1::9 hostPorts=80/TCP>8080,53/UDP>53@192.168.77.11
         service web ip=10.96.0.20,fd00:10:96::20 ports=http:80/TCP>8080
         slice web-4 of=web ports=http:8080/TCP endpoints=10.244.1.3@node-1/web-1,10.244.2.2@node-2/web-2
         slice web-6 of=web ports=http:8080/TCP endpoints=fd00:10:244:2::2@node-2/web-2
         service none ip=10.96.0.21,fd00:10:96::21 ports=http:80/TCP>8080",
    ]);
    let web = snapshot.services.values_mut();
    let web = web.into_iter().find(|service| service.name.name == "web");
    let web = web.unwrap();
    web.kind = ServiceType::LoadBalancer;
    web.ports[0].node_port = Some(30080);
    web.internal_policy = TrafficPolicy::Local;
    web.outside.policy = TrafficPolicy::Local;
    web.outside.external_ips = vec!["198.51.100.7".parse().unwrap()];
    web.outside.load_balancer_ips = vec!["198.51.100.8".parse().unwrap()];
    web.outside.source_ranges = Some(vec!["203.0.113.0/24".parse().unwrap()]);
    snapshot.config.egress = serde_json::from_value(json!({"masquerade": false, "addresses": [
        {"namespace": "default", "addresses": ["192.168.77.11", "fd00:77::11"]},
    ]}))
    .unwrap();
    let mut insert = |policy: Parsed<'_>| {
        let (object, notes) = parse(policy, &|_| Err(String::new()));
        assert_eq!(notes, []);
        snapshot.insert(object.unwrap());
    };
    let own = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [
        {"from": [{"podSelector": {}}], "ports": [{"port": 8080}, {"port": 9000, "endPort": 9010}]},
        {"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}, {"ipBlock": {"cidr": "2001:db8::/64"}}], "ports": [{"port": 80}]},
    ]});
    let own = json!({"metadata": {"name": "own", "namespace": "default"}, "spec": own});
    insert(Parsed::NetworkPolicy(&serde_json::from_value(own).unwrap()));
    let to = json!([{"nodes": {}}, {"networks": ["169.254.169.254/32"]}]);
    let tier = json!({"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, "egress": [{"action": "Deny", "to": to}]});
    let tier = json!({"metadata": {"name": "tier"}, "spec": tier});
    insert(Parsed::ClusterNetworkPolicy(
        &serde_json::from_value(tier).unwrap(),
    ));
    let from = json!([{"networks": ["192.0.2.0/24"]}]);
    let door = json!({"priority": 1, "ingress": [{"action": "Deny", "from": from}]});
    let door = json!({"metadata": {"name": "door"}, "spec": door});
    insert(Parsed::NodeNetworkPolicy(
        &serde_json::from_value(door).unwrap(),
    ));
    snapshot
}

#[test]
fn nft_reads_back_what_it_prints_of_our_tables() {
    let (netns, other) = match (NetNs::create(), NetNs::create()) {
        (Ok(netns), Ok(other)) => (netns, other),
        (Err(error), _) | (_, Err(error)) => {
            let mut stderr = std::io::stderr();
            let _ = writeln!(
                stderr,
                "SKIP: nft_reads_back_what_it_prints_of_our_tables: {error}"
            );
            return;
        }
    };
    let tables = NodePlan::new(&everything(), "node-1").state().tables;
    assert!(
        tables
            .values()
            .map(|table| table.chains.len())
            .sum::<usize>()
            > 12
    );
    let printed = netns.run(|| {
        NftSocket::open()
            .unwrap()
            .reconcile("parfait", &tables)
            .unwrap();
        let printed = Command::new("nft")
            .args(["list", "ruleset"])
            .output()
            .unwrap();
        assert!(printed.status.success(), "{printed:?}");
        printed.stdout
    });
    let printed = printed.unwrap();
    let read = other.run(|| {
        let mut nft = Command::new("nft");
        nft.args(["-f", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped());
        let mut nft = nft.spawn().unwrap();
        nft.stdin.take().unwrap().write_all(&printed).unwrap();
        nft.wait_with_output().unwrap()
    });
    let read = read.unwrap();
    let said = String::from_utf8_lossy(&read.stderr);
    assert!(
        read.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&printed)
    );
}
