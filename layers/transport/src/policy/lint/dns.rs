//! A default deny of egress that forgets DNS: names cannot be looked up, and everything seems to be down.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use parfait_cluster::{Direction, Snapshot};
use parfait_packet::{Origin, Packet, Protocol};

use super::{Check, Linter, counted};
use crate::policy::class::Class;
use crate::policy::plan::Plan;

/// Where cluster DNS answers, where nodes do not do it themselves: the labels that its pods have everywhere.
const DNS: (&str, &str, &str) = ("kube-system", "k8s-app", "kube-dns");

const PORT: u16 = 53;

pub(super) fn check(linter: &mut Linter<'_>, plans: &[Plan]) {
    let servers = servers(linter.snapshot);
    let mut silent: BTreeMap<&str, (&Class, BTreeSet<&Origin>)> = BTreeMap::new();
    for (own, isolated) in plans.iter().flat_map(|plan| &plan.pods) {
        let Some(class) = isolated.class(Direction::Egress) else {
            continue;
        };
        let mut reachable = servers
            .iter()
            .filter_map(|(server, port)| Packet::new(*own, *server, Protocol::Udp, *port));
        let known = reachable.clone().next().is_some();
        if known && !reachable.any(|packet| class.decide(packet.destination, &packet).accepted) {
            let (_, pods) = silent
                .entry(&class.name)
                .or_insert_with(|| (class, Default::default()));
            pods.insert(&isolated.pod);
        }
    }
    for (class, pods) in silent.into_values() {
        let policies: Vec<&Origin> = class.tiers.iter().flat_map(|tier| &tier.policies).collect();
        let (Some(policy), Some(first)) = (policies.first(), pods.first()) else {
            continue;
        };
        let listed: Vec<String> = policies.iter().map(ToString::to_string).collect();
        let whose = match pods.len() {
            1 => first.to_string(),
            many => format!("{} as {first}", counted(many, "pod")),
        };
        let message = format!(
            "{whose} cannot ask cluster DNS, and so look up no name: nothing in {} allows port {PORT}/udp to it",
            listed.join(", ")
        );
        let origin = (*policy).clone().field("spec.egress");
        linter.tell(Check::NoDns, &origin, message);
    }
}

/// The addresses of those who answer, and their ports.
fn servers(snapshot: &Snapshot) -> Vec<(IpAddr, u16)> {
    let services = snapshot
        .services
        .values()
        .filter(|service| service.served_by_node);
    let mut servers: Vec<_> = services
        .flat_map(|service| service.cluster_ips.iter().map(|address| (*address, PORT)))
        .collect();
    if servers.is_empty() {
        let (namespace, label, value) = DNS;
        let pods = snapshot.pods.values().filter(|pod| {
            pod.name.namespace == namespace
                && pod.labels.get(label).is_some_and(|found| found == value)
                && !pod.host_network
        });
        for pod in pods {
            let mut declared = pod
                .ports
                .iter()
                .filter(|port| port.protocol == Protocol::Udp);
            let port = declared.next().map_or(PORT, |port| port.port);
            servers.extend(pod.addresses.iter().map(|address| (*address, port)));
        }
    }
    servers
}
