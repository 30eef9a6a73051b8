//! Who has an address: [`owners`] finds addresses of the cluster's ranges where nobody planned them,
//! and addresses that two have.
//!
//! Both are invisible in a comparison of plan and kernel alone: the plan of each is fulfilled. Only
//! what concerns the plan's node is told; the others' nodes tell theirs.
//!
//! Left out: another machine of the underlay's segment with a node's address, for which one would have
//! to ask on the wire (RFC 5227).

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use parfait_cluster::Snapshot;
use parfait_linux::attachment::is_host_interface;
use parfait_linux::{Address, Scope, State};
use parfait_packet::{Difference, Fault, Finding, Origin};

use crate::Plan;

/// Addresses in the wrong place, and addresses of two. `desired` is the node's whole plan, `observed`
/// what it holds.
#[must_use]
pub fn owners(plan: &Plan, snapshot: &Snapshot, desired: &State, observed: &State) -> Vec<Finding> {
    let mut findings = on_links(plan, snapshot, desired, observed);
    findings.extend(objects(plan, snapshot));
    findings.extend(networks(plan, snapshot));
    findings
}

fn on_links(plan: &Plan, snapshot: &Snapshot, desired: &State, observed: &State) -> Vec<Finding> {
    let mut holders: BTreeMap<IpAddr, Vec<&Address>> = BTreeMap::new();
    for item in observed.addresses.values() {
        let address = &item.value;
        if address.scope != Scope::Link && !address.address.addr().is_loopback() {
            let holders = holders.entry(address.address.addr()).or_default();
            holders.push(address);
        }
    }
    let mut findings = Vec::new();
    for (ip, holders) in holders {
        let planned = |address: &&&Address| desired.addresses.contains_key(&address.key());
        let strangers = holders.iter().filter(|address| !planned(address));
        // On pods' own interfaces any address is one too many, which prove says.
        let strangers = strangers.filter(|address| !is_host_interface(address.link.as_str()));
        let strangers: Vec<_> = strangers.collect();
        let node = snapshot.nodes.get(&plan.node);
        let own = node.is_some_and(|node| node.addresses.contains(&ip));
        if (own || holders.len() > strangers.len()) && holders.len() > 1 {
            let links: Vec<_> = holders.iter().map(|a| a.link.to_string()).collect();
            let origin = node.map(|node| node.origin().field("status.addresses"));
            let on = format!("on {}", links.join(" and "));
            findings.push(duplicate(ip.to_string(), on, origin));
            continue;
        }
        let Some(owner) = owner(plan, snapshot, ip).filter(|_| !own) else {
            continue;
        };
        for stranger in strangers {
            findings.push(Finding {
                fault: Fault::AddressWithoutOwner,
                difference: Difference::Extra,
                item: stranger.to_string(),
                found: format!("takes what is meant for {owner}"),
                origin: Some(owner.clone()),
            });
        }
    }
    findings
}

/// Whose address of the cluster's ranges it is, or whose range.
fn owner(plan: &Plan, snapshot: &Snapshot, ip: IpAddr) -> Option<Origin> {
    if let Some(pod) = snapshot.pod_at(ip) {
        return Some(pod.origin());
    }
    if let Some(service) = snapshot.service_at(ip) {
        return Some(service.origin().field("spec.clusterIPs"));
    }
    let mut networks = plan.pod_networks.iter();
    let network = networks.find(|(network, _)| network.contains(&ip));
    let node = |node: &&parfait_cluster::Node| node.pod_cidrs.iter().any(|net| net.contains(&ip));
    let node = snapshot.nodes.values().find(node);
    network.map(|(_, origin)| match node {
        Some(node) => node.origin().field("spec.podCIDRs"),
        None => origin.clone(),
    })
}

/// Pods and nodes of the API with one address.
fn objects(plan: &Plan, snapshot: &Snapshot) -> Vec<Finding> {
    let mut holders: BTreeMap<IpAddr, Vec<(Origin, bool)>> = BTreeMap::new();
    let pods = snapshot
        .pods
        .values()
        .filter(|pod| !pod.host_network && pod.has_network());
    for pod in pods {
        let here = pod.node.as_ref() == Some(&plan.node);
        for address in &pod.addresses {
            let holders = holders.entry(*address).or_default();
            holders.push((pod.origin().field("status.podIPs"), here));
        }
    }
    for node in snapshot.nodes.values() {
        let here = node.name == plan.node;
        for address in &node.addresses {
            let holders = holders.entry(*address).or_default();
            holders.push((node.origin().field("status.addresses"), here));
        }
    }
    let mut findings = Vec::new();
    for (address, holders) in holders {
        if holders.len() > 1 && holders.iter().any(|(_, here)| *here) {
            let names: Vec<_> = holders
                .iter()
                .map(|(origin, _)| format!("{} {}", origin.kind.name(), named(origin)))
                .collect();
            let found = names.join(" and ");
            let first = holders.into_iter().next().map(|(origin, _)| origin);
            findings.push(duplicate(address.to_string(), found, first));
        }
    }
    findings
}

/// Nodes whose pod CIDRs overlap this one's.
fn networks(plan: &Plan, snapshot: &Snapshot) -> Vec<Finding> {
    let overlap = |a: &IpNet, b: &IpNet| a.contains(&b.trunc()) || b.contains(&a.trunc());
    let others = snapshot
        .nodes
        .values()
        .filter(|node| node.name != plan.node);
    let mut findings = Vec::new();
    for node in others {
        for theirs in &node.pod_cidrs {
            for (own, _) in plan.own.iter().filter(|(own, _)| overlap(own, theirs)) {
                let found = format!("Node {} has {theirs}", node.name);
                let origin = node.origin().field("spec.podCIDRs");
                findings.push(duplicate(own.to_string(), found, Some(origin)));
            }
        }
    }
    findings
}

fn duplicate(item: String, found: String, origin: Option<Origin>) -> Finding {
    Finding {
        fault: Fault::DuplicateAddress,
        difference: Difference::Extra,
        item,
        found,
        origin,
    }
}

fn named(origin: &Origin) -> String {
    match origin.namespace.as_str() {
        "" => origin.name.clone(),
        namespace => format!("{namespace}/{}", origin.name),
    }
}
