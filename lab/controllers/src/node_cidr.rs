//! Node CIDRs: each node's part of the cluster's pod addresses, in `spec.podCIDR` and `spec.podCIDRs`.
//!
//! ```text
//! 10.244.0.0/16, /24 a node:  node-1 → 10.244.1.0/24   node-2 → 10.244.2.0/24   …
//! ```
//!
//! The number at the end of a node's name chooses its part where that is free, so that the addresses of a
//! lab can be read; other nodes get the lowest free part above 0, in the order of their creation, and part 0
//! when nothing else is left. All families use the same number. A node that has its CIDRs keeps them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::config::{Config, nth_address};
use crate::object::{is_terminating, reference};
use crate::pods;
use crate::scheduler::natural;
use crate::world::{World, name_of};
use crate::write::{Severity, Write};

const COMPONENT: &str = "node-cidr-controller";

pub fn step(world: &World, config: &Config, now: Timestamp) -> Vec<Write> {
    let mut used: BTreeSet<u32> = world
        .nodes
        .values()
        .flat_map(|node| parts_of(node, config))
        .collect();
    let mut bare: Vec<&Node> = world
        .nodes
        .values()
        .filter(|node| !has_cidr(node) && !is_terminating(&node.metadata))
        .collect();
    bare.sort_by_key(|node| (pods::created(&node.metadata), natural(name_of(*node))));
    // First the nodes whose own number is free, so that a latecomer's name is not taken from it.
    let mut writes = Vec::new();
    let mut others = Vec::new();
    for node in bare {
        match u32::try_from(natural(name_of(node)).1)
            .ok()
            .filter(|n| *n > 0)
        {
            Some(number) if !used.contains(&number) && cidrs(config, number).is_some() => {
                used.insert(number);
                writes.extend(assign(node, config, number));
            }
            _ => others.push(node),
        }
    }
    for node in others {
        let free = (1..=parts(config))
            .chain([0])
            .find(|n| !used.contains(n) && cidrs(config, *n).is_some());
        match free {
            Some(number) => {
                used.insert(number);
                writes.extend(assign(node, config, number));
            }
            None => writes.extend(exhausted(node, now)),
        }
    }
    writes
}

/// The `number`-th part of each cluster CIDR, if every one has it.
fn cidrs(config: &Config, number: u32) -> Option<Vec<IpNet>> {
    config
        .cluster_cidrs
        .iter()
        .map(|cluster| {
            let (mask, bits) = mask(*cluster, config);
            let step = 1u128.checked_shl(u32::from(bits.checked_sub(mask)?))?;
            let address = nth_address(*cluster, step.checked_mul(u128::from(number))?)?;
            IpNet::new(address, mask).ok()
        })
        .collect()
}

fn mask(cluster: IpNet, config: &Config) -> (u8, u8) {
    match cluster {
        IpNet::V4(net) => (config.node_mask_ipv4.max(net.prefix_len()), 32),
        IpNet::V6(net) => (config.node_mask_ipv6.max(net.prefix_len()), 128),
    }
}

/// How many parts to look through: those of the smallest cluster CIDR, or 65,535.
fn parts(config: &Config) -> u32 {
    let of = |cluster: &IpNet| {
        let (mask, _) = mask(*cluster, config);
        (1u32 << (mask - cluster.prefix_len()).min(16)) - 1
    };
    config.cluster_cidrs.iter().map(of).min().unwrap_or(0)
}

fn has_cidr(node: &Node) -> bool {
    node.spec
        .as_ref()
        .is_some_and(|spec| spec.pod_cidr.as_ref().is_some_and(|cidr| !cidr.is_empty()))
}

/// Which numbered parts a node's CIDRs are.
fn parts_of(node: &Node, config: &Config) -> Vec<u32> {
    let spec = node.spec.as_ref();
    let texts = spec
        .into_iter()
        .flat_map(|s| s.pod_cidrs.iter().flatten().chain(&s.pod_cidr));
    texts
        .filter_map(|text| text.parse::<IpNet>().ok())
        .filter_map(|net| {
            let cluster = config
                .cluster_cidrs
                .iter()
                .find(|cluster| cluster.contains(&net.addr()))?;
            let (mask, bits) = mask(*cluster, config);
            let offset = number(net.network()) - number(cluster.network());
            u32::try_from(offset.checked_shr(u32::from(bits - mask))?).ok()
        })
        .collect()
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

fn assign(node: &Node, config: &Config, number: u32) -> Option<Write> {
    let cidrs: Vec<String> = cidrs(config, number)?
        .iter()
        .map(IpNet::to_string)
        .collect();
    let first = cidrs.first()?.clone();
    let mut node = node.clone();
    let spec = node.spec.get_or_insert_default();
    spec.pod_cidr = Some(first);
    spec.pod_cidrs = Some(cidrs);
    Some(Write::Update(node.into()))
}

/// Says once, on the node, that there are no addresses left.
fn exhausted(node: &Node, now: Timestamp) -> Vec<Write> {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    let told = conditions
        .into_iter()
        .flatten()
        .any(|c| c.reason.as_deref() == Some("CIDRNotAvailable"));
    if told || node.status.is_none() {
        return Vec::new();
    }
    let message = "the cluster CIDR has no free part for this node; use a larger cluster CIDR or a longer node mask";
    let mut changed = node.clone();
    let conditions = changed
        .status
        .get_or_insert_default()
        .conditions
        .get_or_insert_default();
    conditions.retain(|c| c.type_ != "NetworkUnavailable");
    conditions.push(NodeCondition {
        type_: "NetworkUnavailable".to_owned(),
        status: "True".to_owned(),
        reason: Some("CIDRNotAvailable".to_owned()),
        message: Some(message.to_owned()),
        last_heartbeat_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    });
    vec![
        Write::UpdateStatus(changed.into()),
        Write::event(
            reference(node),
            Severity::Warning,
            COMPONENT,
            "CIDRNotAvailable",
            message,
        ),
    ]
}
