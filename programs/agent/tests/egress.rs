//! With which source a pod's connection is seen outside of the cluster: a node, two pods and somebody outside,
//! each in a network namespace, the agent's own upkeep on the node, and `nc` at both ends.
//!
//! ```text
//!   pod prod/mailer ══╗
//!   pod prod/other  ══╬ node-1 ┐ eth0 ══ eth0 ┌ outside: 198.51.100.1, 2001:db8:9::1
//!   pod default/web ══╝   192.0.2.10, 2001:db8::10
//! ```
//!
//! Needs root (or a user namespace), `ip` and `nc`.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

#[path = "../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;
mod one_node;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use one_node::{Machines, sh};
use parfait_agent::Upkeep;
use parfait_cluster::{Key, Snapshot};
use parfait_packet::Family;
use serde_json::{Value, json};

const PODS: [(&str, &str, u8); 3] = [
    ("prod", "mailer", 2),
    ("prod", "other", 3),
    ("default", "web", 4),
];

const CLUSTER: &str = "
config clusterCIDRs=10.244.0.0/16,fd00:10:244::/56
node node-1 pods=10.244.1.0/24,fd00:10:244:1::/64 underlay=192.168.77.11/24,fd00:77::11/64
pod prod/mailer on=node-1 ip=10.244.1.2,fd00:10:244:1::2
pod prod/other on=node-1 ip=10.244.1.3,fd00:10:244:1::3
pod web on=node-1 ip=10.244.1.4,fd00:10:244:1::4
";

/// Where somebody listens outside, by family.
const OUTSIDE: [&str; 2] = ["198.51.100.1", "2001:db8:9::1"];

struct Egress(Machines);

impl Egress {
    /// The agent's rounds, until it has reported its underlay and there is nothing left to do.
    fn carry_out(&self, egress: &Value) -> Snapshot {
        let mut snapshot = fixture::cluster(CLUSTER);
        snapshot.config.egress = serde_json::from_value(egress.clone()).unwrap();
        snapshot.nodes.get_mut("node-1").unwrap().underlay = None;
        let reported = BTreeSet::from([Key::Node("node-1".to_owned())]);
        let rounds = || {
            let mut agent = Upkeep::open("node-1").unwrap();
            for _ in 0..6 {
                agent.look_again();
                let round = agent.round(&snapshot, &reported).unwrap();
                assert_eq!(round.failures, Vec::<String>::new());
                let node = snapshot.nodes.get_mut("node-1").unwrap();
                let known = node.underlay == round.underlay;
                node.underlay.clone_from(&round.underlay);
                if known && round.steps == 0 {
                    let found: Vec<_> = round.findings.iter().map(ToString::to_string).collect();
                    assert_eq!(found, Vec::<String>::new());
                    return snapshot;
                }
            }
            panic!("the agent does not come to rest");
        };
        self.0.node.run(rounds).unwrap()
    }

    /// Whom somebody outside sees when a pod connects; what the pod is told if it cannot.
    fn seen(&self, pod: &str, family: Family) -> String {
        let (option, outside) = match family {
            Family::Ipv4 => ("-4", OUTSIDE[0]),
            Family::Ipv6 => ("-6", OUTSIDE[1]),
        };
        let listen = || {
            Command::new("nc")
                .args([option, "-lvn", outside, "8080"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        };
        let mut server = self.0.outside.run(listen).unwrap();
        let mut said = BufReader::new(server.stderr.take().unwrap()).lines();
        said.next().unwrap().unwrap();
        let client = sh(
            &self.0.pods[pod],
            &format!("nc {option} -vnz -w 5 {outside} 8080 2>&1"),
        );
        let answer = if client.status.success() {
            let line = said.next().unwrap().unwrap();
            line.split_whitespace().nth(3).unwrap_or(&line).to_owned()
        } else {
            let error = String::from_utf8_lossy(&client.stdout);
            error
                .rsplit(": ")
                .next()
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        server.kill().unwrap();
        server.wait().unwrap();
        answer
    }
}

#[test]
fn somebody_outside_sees_the_source_that_the_configuration_says() {
    let test = "somebody_outside_sees_the_source_that_the_configuration_says";
    let Some(machines) = Machines::new(test, &PODS).map(Egress) else {
        return;
    };
    let chosen = json!({"addresses": [
        {"namespace": "prod", "podSelector": {"matchExpressions": [
            {"key": "no-such-label", "operator": "Exists"}]}, "addresses": ["192.0.2.77"]},
        {"namespace": "prod", "addresses": ["192.0.2.10", "2001:db8::10"]},
    ]});
    let missing = json!({"addresses": [{"namespace": "prod", "addresses": ["192.0.2.77"]}]});
    let refused = "No route to host";
    let table: [(Value, [&str; 2], [&str; 2]); 5] = [
        (
            json!({}),
            ["192.168.77.11", "fd00:77::11"],
            ["192.168.77.11", "fd00:77::11"],
        ),
        (
            chosen,
            ["192.0.2.10", "2001:db8::10"],
            ["192.168.77.11", "fd00:77::11"],
        ),
        // The first pod's sources are taken back, and never another is given.
        (
            missing,
            [refused, "Permission denied"],
            ["192.168.77.11", "fd00:77::11"],
        ),
        (
            json!({"masquerade": false}),
            ["10.244.1.2", "fd00:10:244:1::2"],
            ["10.244.1.4", "fd00:10:244:1::4"],
        ),
        (
            json!({"nonMasqueradeCIDRs": ["198.51.100.0/24"]}),
            ["10.244.1.2", "fd00:77::11"],
            ["10.244.1.4", "fd00:77::11"],
        ),
    ];
    for (egress, mailer, web) in table {
        let snapshot = machines.carry_out(&egress);
        let here = &snapshot.nodes["node-1"].underlay.as_ref().unwrap().egress;
        assert!(
            here.iter()
                .all(|address| address.to_string() != "192.0.2.77")
        );
        for (pod, wanted) in [("mailer", mailer), ("web", web)] {
            for (family, wanted) in Family::ALL.into_iter().zip(wanted) {
                let seen = machines.seen(pod, family);
                assert_eq!(seen, wanted, "{pod} over {family} with {egress}");
            }
        }
    }
}
