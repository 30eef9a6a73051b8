//! [`NodeStatus`]: one node's plan, thing by thing, next to what its kernel holds.
//!
//! ```text
//!   Snapshot ─▶ NodePlan ─┬─▶ interfaces, addresses, peers, routes, … each with its Origin
//!   Observed ─────────────┴─▶ ok, missing, different, extra; findings
//! ```
//!
//! Without what the kernel holds it is the plan alone, and nothing is said to be in order. Rules and
//! their elements are too many to list: of them only what differs is told, as findings.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;

use parfait_cluster::{ForeignChanges, Key, Note, Snapshot};
use parfait_join::{NodePlan, Observed, prove};
use parfait_linux::{Address, IfName, Item, Link, State, Sysctl, Tbf, Vxlan};
use parfait_packet::{Difference, Family, Fault, Finding, Origin};
use serde::Serialize;

/// Whether the kernel holds what is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Held {
    /// Just so.
    Ok,
    /// Nobody looked.
    Unknown,
    /// There, Parfait's, and not planned.
    Extra,
    /// There, but otherwise.
    Different,
    /// Not there.
    Missing,
}

impl Display for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Extra => "EXTRA",
            Self::Different => "DIFFERENT",
            Self::Missing => "MISSING",
        })
    }
}

/// One planned thing, or one in excess.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// As `ip` or `sysctl` print it.
    pub item: String,
    /// Whether the kernel holds it.
    pub held: Held,
    /// What is there instead; empty unless it is [`Held::Different`].
    #[serde(skip_serializing_if = "String::is_empty")]
    pub found: String,
    /// What it exists for.
    pub origin: Option<Origin>,
}

/// The way to one peer's pods, in one family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// The peer.
    pub node: String,
    /// Of the pods' addresses.
    pub family: Family,
    /// `direct` or `vxlan`; `none` if no path leads there.
    pub path: &'static str,
    /// The next hop on the underlay: the peer, or a router.
    pub next_hop: Option<IpAddr>,
    /// The interface.
    pub interface: String,
    /// What a packet is put in: `VXLAN 4242, UDP 4789`; empty if it goes as it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub encapsulation: String,
    /// The family of the outer packets.
    pub outer: Option<Family>,
    /// The headers that this takes, in bytes.
    pub overhead: u32,
    /// The largest packet that a pod can send there, in bytes.
    pub mtu: Option<u32>,
    /// Whether all that leads there is held.
    pub held: Held,
}

/// How large packets may be, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Budget {
    /// On the underlay, as the node reports it.
    pub underlay: Option<u32>,
    /// What the tunnel's headers take of it.
    pub overhead: Option<u32>,
    /// In the tunnel; none if no peer needs one.
    pub tunnel: Option<u32>,
    /// In a pod that starts now.
    pub pod: Option<u32>,
}

/// What one attachment was given, as the CNI plugin recorded it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Allocation {
    /// The pod, or the container that no pod was named for.
    pub purpose: String,
    /// The node's end of its veth pair.
    pub interface: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether the node has that interface, with the token bucket that it was given.
    pub held: Held,
    /// What the node's end may send to the pod, if that is limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<Tbf>,
    /// The token bucket that the node's end has.
    #[serde(skip)]
    pub found: Option<Tbf>,
    /// The pod, if the API knows it with one of these addresses.
    pub origin: Option<Origin>,
}

/// One node: what is planned, and what is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// The node.
    pub node: String,
    /// Whether its kernel was looked at.
    pub observed: bool,
    /// How large packets may be.
    pub mtu: Budget,
    /// Network interfaces.
    pub interfaces: Vec<Entry>,
    /// IP addresses.
    pub addresses: Vec<Entry>,
    /// The other nodes.
    pub peers: Vec<Peer>,
    /// Routes.
    pub routes: Vec<Entry>,
    /// Pinned neighbour entries.
    pub neighbours: Vec<Entry>,
    /// The tunnel's forwarding entries.
    pub forwarding: Vec<Entry>,
    /// Settings.
    pub sysctls: Vec<Entry>,
    /// What pods were given.
    pub allocations: Vec<Allocation>,
    /// What the agent does about what others change.
    pub foreign_changes: ForeignChanges,
    /// What is wrong, and what to do.
    pub findings: Vec<Finding>,
    /// What could not be planned, or not be looked at.
    pub notes: Vec<String>,
}

impl NodeStatus {
    /// 0 as planned, 1 something differs, 3 nobody can tell.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let unsure = |finding: &Finding| finding.fault == Fault::ForeignUnknown;
        if self.findings.iter().any(|finding| !unsure(finding)) {
            1
        } else if !self.observed || !self.findings.is_empty() {
            3
        } else {
            0
        }
    }
}

/// A node's status; `None` if the snapshot has no such node. Without `observed` it is the plan alone.
#[must_use]
pub fn status(
    snapshot: &Snapshot,
    node: &str,
    observed: Option<&Observed>,
    allocations: Vec<Allocation>,
) -> Option<NodeStatus> {
    let this = snapshot.nodes.get(node)?;
    let plan = NodePlan::new(snapshot, &this.name);
    let desired = plan.state();
    let state = observed.map(|observed| &observed.state);
    let findings = observed.map(|observed| prove(snapshot, &plan, observed));
    let mut findings = findings.unwrap_or_default();
    let allocations = allocated(snapshot, allocations, state);
    findings.extend(allocations.iter().filter_map(Allocation::unlimited));
    let offload = observed.and_then(|observed| observed.offload.as_ref());
    let spoiling = offload.and_then(|facts| parfait_link::offload(&plan.link, facts).1);
    let mut interfaces = underlay(&plan, state);
    interfaces.extend(links(&desired, state));
    Some(NodeStatus {
        node: this.name.clone(),
        observed: observed.is_some(),
        mtu: budget(&plan),
        interfaces,
        addresses: entries(
            &desired.addresses,
            state.map(|s| &s.addresses),
            Address::satisfies,
        ),
        peers: peers(snapshot, &plan, &findings, observed.is_some()),
        routes: entries(&desired.routes, state.map(|s| &s.routes), PartialEq::eq),
        neighbours: entries(
            &desired.neighbours,
            state.map(|s| &s.neighbours),
            PartialEq::eq,
        ),
        forwarding: entries(&desired.fdb, state.map(|s| &s.fdb), PartialEq::eq),
        sysctls: entries(
            &desired.sysctls,
            state.map(|s| &s.sysctls),
            Sysctl::satisfies,
        ),
        allocations,
        foreign_changes: snapshot.config.foreign_changes,
        findings,
        notes: unread(snapshot)
            .chain(plan.notes())
            .chain(spoiling)
            .map(|note| note.to_string())
            .collect(),
    })
}

/// What is wrong with the configuration, and with Services and their endpoints: that is the same on every node.
fn unread(snapshot: &Snapshot) -> impl Iterator<Item = Note> {
    let notes = snapshot.notes.iter();
    let notes = notes.filter(|(key, _)| **key == Key::Config || key.is_of_a_service());
    notes.flat_map(|(_, notes)| notes).cloned()
}

fn budget(plan: &NodePlan) -> Budget {
    let underlay = plan.link.underlay.as_ref().map(|underlay| underlay.mtu);
    let tunnel = plan.link.tunnel.as_ref().map(|tunnel| tunnel.mtu.bytes());
    Budget {
        underlay,
        overhead: underlay
            .zip(tunnel)
            .map(|(all, rest)| all.saturating_sub(rest)),
        tunnel,
        pod: plan.link.pod_mtu.map(parfait_linux::Mtu::bytes),
    }
}

fn entries<K: Ord, T: Display>(
    desired: &BTreeMap<K, Item<T>>,
    observed: Option<&BTreeMap<K, Item<T>>>,
    satisfies: impl Fn(&T, &T) -> bool,
) -> Vec<Entry> {
    let entry = |(key, wanted): (&K, &Item<T>)| {
        let (held, found) = match observed.map(|observed| observed.get(key)) {
            None => (Held::Unknown, String::new()),
            Some(None) => (Held::Missing, String::new()),
            Some(Some(found)) if satisfies(&found.value, &wanted.value) => {
                (Held::Ok, String::new())
            }
            Some(Some(found)) => (Held::Different, found.value.to_string()),
        };
        Entry {
            item: wanted.value.to_string(),
            held,
            found,
            origin: wanted.origin.clone(),
        }
    };
    desired.iter().map(entry).collect()
}

fn links(desired: &State, observed: Option<&State>) -> Vec<Entry> {
    entries(
        &desired.links,
        observed.map(|state| &state.links),
        |found: &Link, wanted| found.satisfies(wanted) && found.carrier,
    )
}

/// The interface that everything stands on. It is given, not planned: it is there as reported, or not.
fn underlay(plan: &NodePlan, observed: Option<&State>) -> Vec<Entry> {
    let Some(reported) = &plan.link.underlay else {
        return Vec::new();
    };
    let found = |state: &State| {
        let name = IfName::new(&reported.interface).ok()?;
        state.links.get(&name).map(|item| item.value.clone())
    };
    let as_reported = |link: &Link| link.mtu.bytes() == reported.mtu && link.up && link.carrier;
    let (held, found) = match observed.map(found) {
        None => (Held::Unknown, String::new()),
        Some(None) => (Held::Missing, String::new()),
        Some(Some(link)) if as_reported(&link) => (Held::Ok, String::new()),
        Some(Some(link)) => (Held::Different, link.to_string()),
    };
    let addresses: Vec<_> = reported.addresses.iter().map(ToString::to_string).collect();
    vec![Entry {
        item: format!(
            "{}: mtu {} up, {}",
            reported.interface,
            reported.mtu,
            addresses.join(", ")
        ),
        held,
        found,
        origin: Some(
            Origin::new(parfait_packet::Kind::Node, "", &plan.node).field("status.addresses"),
        ),
    }]
}

fn peers(snapshot: &Snapshot, plan: &NodePlan, findings: &[Finding], observed: bool) -> Vec<Peer> {
    let others = snapshot
        .nodes
        .values()
        .filter(|node| node.name != plan.node);
    let mut peers = Vec::new();
    for node in others {
        let wrong = findings.iter().filter(|finding| {
            let of = finding.origin.as_ref();
            of.is_some_and(|origin| {
                (origin.kind, &origin.name) == (parfait_packet::Kind::Node, &node.name)
            })
        });
        let mut held = wrong.map(|finding| match finding.difference {
            parfait_packet::Difference::Missing => Held::Missing,
            parfait_packet::Difference::Different => Held::Different,
            parfait_packet::Difference::Extra => Held::Extra,
        });
        let seen = if observed { Held::Ok } else { Held::Unknown };
        let held = held.by_ref().max().unwrap_or(seen);
        for family in Family::ALL {
            if node.pod_cidr(family).is_some() {
                peers.push(peer(plan, &node.name, family, held));
            }
        }
    }
    peers
}

fn peer(plan: &NodePlan, node: &str, family: Family, held: Held) -> Peer {
    let wire = parfait_link::explain(&plan.link, node, family);
    let tunnel = plan.link.tunnel.as_ref();
    let wrapped = wire.as_ref().is_some_and(|wire| wire.overhead > 0);
    let tunnel = tunnel.filter(|_| wrapped);
    Peer {
        node: node.to_owned(),
        family,
        path: wire.as_ref().map_or("none", |wire| wire.kind),
        next_hop: wire.as_ref().map(|wire| wire.to),
        interface: wire
            .as_ref()
            .map(|w| w.interface.clone())
            .unwrap_or_default(),
        encapsulation: tunnel
            .map(|tunnel| format!("VXLAN {}, UDP {}", tunnel.vni, Vxlan::PORT))
            .unwrap_or_default(),
        outer: tunnel.map(|tunnel| Family::of(tunnel.local)),
        overhead: wire.as_ref().map_or(0, |wire| wire.overhead),
        mtu: wire
            .and_then(|wire| wire.mtu)
            .map(parfait_linux::Mtu::bytes),
        held,
    }
}

impl Allocation {
    fn is_limited_as_asked(&self) -> bool {
        match (&self.bucket, &self.found) {
            (None, None) => true,
            (Some(wanted), Some(found)) => found.satisfies(wanted),
            _ => false,
        }
    }

    /// What is wrong with its token bucket, where the interface is there.
    fn unlimited(&self) -> Option<Finding> {
        let told = |bucket: &Option<Tbf>| bucket.map_or("no tbf".to_owned(), |tbf| tbf.to_string());
        (self.held == Held::Different).then(|| Finding {
            fault: Fault::Unlimited,
            difference: Difference::Different,
            item: format!("{}: {}", self.interface, told(&self.bucket)),
            found: told(&self.found),
            origin: self.origin.clone(),
        })
    }
}

/// What the plugin's records say, next to the interfaces and pods that are there.
fn allocated(
    snapshot: &Snapshot,
    mut allocations: Vec<Allocation>,
    observed: Option<&State>,
) -> Vec<Allocation> {
    for allocation in &mut allocations {
        let there = |state: &State| {
            let name = IfName::new(&allocation.interface).ok();
            name.is_some_and(|name| state.links.contains_key(&name))
        };
        allocation.held = match observed.map(there) {
            None => Held::Unknown,
            Some(true) if !allocation.is_limited_as_asked() => Held::Different,
            Some(true) => Held::Ok,
            Some(false) => Held::Missing,
        };
        let mut pods = allocation.addresses.iter();
        let pod = pods.find_map(|address| snapshot.pod_at(*address));
        allocation.origin = pod.map(parfait_cluster::Pod::origin);
    }
    allocations
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The interface of a pod that was given a token bucket, with the one that is there.
    fn allocation(bucket: Option<Tbf>, found: Option<Tbf>) -> Allocation {
        Allocation {
            purpose: "default/web".to_owned(),
            interface: "lo".to_owned(),
            addresses: Vec::new(),
            held: Held::Unknown,
            bucket,
            found,
            origin: None,
        }
    }

    #[test]
    fn a_token_bucket_that_was_changed_removed_or_added_is_found() {
        let wanted = Tbf {
            rate: 125_000,
            burst: 100_000,
            limit: 103_125,
        };
        let faster = Tbf {
            rate: 250_000,
            ..wanted
        };
        let mut state = State::default();
        let loopback = Link::new(IfName::loopback(), parfait_linux::LinkKind::Loopback);
        state.insert(loopback, None);
        for (bucket, found, said) in [
            (None, None, None),
            (Some(wanted), Some(wanted), None),
            (Some(wanted), None, Some("no tbf")),
            (Some(wanted), Some(faster), Some("tbf rate 2000000bit")),
            (None, Some(faster), Some("tbf rate 2000000bit")),
        ] {
            let given = vec![allocation(bucket, found)];
            let allocated = allocated(&Snapshot::default(), given, Some(&state));
            let finding = allocated[0].unlimited();
            let held = allocated[0].held;
            assert_eq!(
                held == Held::Different,
                said.is_some(),
                "{bucket:?} {found:?}"
            );
            let finding = finding.map(|finding| finding.found);
            match (&finding, said) {
                (Some(found), Some(said)) => assert!(found.starts_with(said), "{found}"),
                (found, said) => assert_eq!(found.is_some(), said.is_some()),
            }
        }
    }
}
