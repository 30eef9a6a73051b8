//! With which source address this node's pods leave the cluster.
//!
//! ```text
//! table ip parfait {
//!   map egress         { typeof ip saddr : ip saddr; elements = { 10.244.1.2 : 192.0.2.10 } }
//!   set egress_refused { typeof ip saddr; elements = { 10.244.1.3 } }
//!   set inside         { typeof ip daddr; flags interval; elements = { 10.244.0.0/16, 192.168.77.12 } }
//!   chain source_nat { type nat hook postrouting priority srcnat;
//!     ip daddr != @inside snat to ip saddr map @egress fully-random
//!     ip saddr @own_pods ip daddr != @unmasqueraded masquerade fully-random … }
//!   chain egress { type filter hook forward priority filter + 10;
//!     ct direction original ip saddr @egress_refused ip daddr != @inside reject with icmp admin-prohibited }
//! }
//! ```
//!
//! - An entry's pod leaves its own node with the first of the entry's addresses of its family that this
//!   node has. On a node without one, and in a family that the entry names no address of, it is refused: who
//!   chose an address relies on it, and any other source would be a leak.
//! - Inside are the pod networks, all nodes, and `nonMasqueradeCIDRs`: no egress address is used there.
//! - `masquerade: false` leaves pods' own addresses to everybody else, except, where they would have to come
//!   back through a tunnel, to the peer nodes themselves.
//! - What comes back arrives at the node's own address, and conntrack gives it to the pod: no other node knows.
//! - Replies of such a pod to somebody outside are not its own traffic, and pass (`ct direction original`).
//!
//! Deliberately absent: leaving through another node than the pod's own, which needs policy routing there.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use parfait_cluster::{Egress, Node, Note, Path, Paths, Pod, Snapshot};
use parfait_linux::nft::{
    BaseChain, Chain, ChainType, Data, DataType, Element, Field, Hook, Policy, RejectWith, Rule,
    Set, Statement, Table, Value,
};
use parfait_packet::{Family, Origin};

use crate::apply::SOURCE_NAT;

/// The chain that refuses.
pub const CHAIN: &str = "egress";

/// Pods' sources outside of the cluster, on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// The egress address of pods' addresses, and the entry that gives it.
    pub chosen: BTreeMap<IpAddr, (IpAddr, Origin)>,
    /// Pods' addresses that must have an egress address, and the entry of which this node has none.
    pub refused: BTreeMap<IpAddr, Origin>,
    /// Where neither counts. Empty if nothing is chosen.
    pub inside: BTreeMap<IpNet, Origin>,
    /// `masquerade: false`: the nodes behind the tunnel, to which pods still do not go as themselves.
    pub behind_tunnel: Option<BTreeMap<IpNet, Origin>>,
}

/// Plans the sources of a node's pods. `unmasqueraded` is where pods go as themselves.
pub(crate) fn sources(
    snapshot: &Snapshot,
    this: &Node,
    paths: &Paths,
    unmasqueraded: &BTreeMap<IpNet, Origin>,
    notes: &mut Vec<Note>,
) -> Sources {
    let egress = &snapshot.config.egress;
    let mut sources = Sources::default();
    if !egress.masquerade {
        sources.behind_tunnel = Some(behind_tunnel(snapshot, paths));
    }
    if egress.addresses.is_empty() {
        return sources;
    }
    sources.inside.clone_from(unmasqueraded);
    for node in snapshot.nodes.values() {
        for address in &node.addresses {
            cover(&mut sources.inside, IpNet::from(*address), node.origin());
        }
    }
    let mut without: BTreeMap<(usize, Family), Vec<&Pod>> = BTreeMap::new();
    let mut again: BTreeMap<(usize, usize), &Pod> = BTreeMap::new();
    for pod in snapshot.pods_on(&this.name).filter(|pod| !pod.host_network) {
        let mut entries = egress.of(pod);
        let Some((number, entry)) = entries.next() else {
            continue;
        };
        for (later, _) in entries {
            again.entry((number, later)).or_insert(pod);
        }
        for address in &pod.addresses {
            let family = Family::of(*address);
            let mut usable = entry.addresses.iter().filter(|a| Family::of(**a) == family);
            let origin = Egress::origin(number);
            match usable.find(|address| is_at(this, **address)) {
                Some(source) => drop(sources.chosen.insert(*address, (*source, origin))),
                None => {
                    sources.refused.insert(*address, origin);
                    without.entry((number, family)).or_default().push(pod);
                }
            }
        }
    }
    notes.extend(
        without
            .iter()
            .map(|(key, pods)| none_here(this, egress, *key, pods)),
    );
    for ((first, later), pod) in again {
        let message = format!(
            "Pod {} is meant by egress.addresses[{first}] too, which comes first and counts; \
             narrow one of the two selectors",
            pod.name
        );
        notes.push(Note::new(Egress::origin(later), message));
    }
    sources
}

/// The table with the maps, sets and rules of this family.
pub(crate) fn add(sources: &Sources, family: Family, mut table: Table) -> Table {
    let mut rules = Vec::new();
    if !sources.inside.is_empty() {
        let chosen = sources
            .chosen
            .iter()
            .filter(|(pod, _)| Family::of(**pod) == family);
        let map = chosen.map(|(pod, (source, origin))| {
            let element = Element::new(Data::Address(*source)).origin(origin.clone());
            (vec![Value::Address(*pod)], element)
        });
        let refused = sources
            .refused
            .iter()
            .filter(|(pod, _)| Family::of(**pod) == family);
        let set = refused.map(|(pod, origin)| {
            let element = Element::new(Data::None).origin(origin.clone());
            (vec![Value::Address(*pod)], element)
        });
        let map = Set {
            elements: map.collect(),
            ..Set::new([Field::Saddr], DataType::Address)
        };
        let set = Set {
            elements: set.collect(),
            ..Set::new([Field::Saddr], DataType::None)
        };
        let inside = crate::apply::prefixes(&sources.inside, Field::Daddr, family);
        table = table
            .set("egress", map)
            .set("egress_refused", set)
            .set("inside", inside);
        table = table.chain(CHAIN, refusing());
        rules.push(leaving_by_choice());
    }
    if let (Some(nodes), Some(masquerade)) =
        (&sources.behind_tunnel, table.chains.get_mut(SOURCE_NAT))
    {
        // The rule for everybody outside goes; see `leaving_the_cluster`.
        masquerade.rules.remove(0);
        rules.push(to_nodes_behind_the_tunnel());
        let nodes = crate::apply::prefixes(nodes, Field::Daddr, family);
        table = table.set("behind_tunnel", nodes);
    }
    if let Some(masquerade) = table.chains.get_mut(SOURCE_NAT) {
        masquerade.rules.splice(0..0, rules);
    }
    table
}

/// Adds a network to disjoint ones: of two that share addresses the wider one stays.
pub(crate) fn cover(networks: &mut BTreeMap<IpNet, Origin>, net: IpNet, origin: Origin) {
    let net = net.trunc();
    if !networks.keys().any(|known| known.contains(&net)) {
        networks.retain(|known, _| !net.contains(known));
        networks.insert(net, origin);
    }
}

/// As far as its agent has reported it.
fn is_at(node: &Node, address: IpAddr) -> bool {
    node.underlay.as_ref().is_some_and(|underlay| {
        underlay.egress.contains(&address) || underlay.prefixes().any(|net| net.addr() == address)
    })
}

fn behind_tunnel(snapshot: &Snapshot, paths: &Paths) -> BTreeMap<IpNet, Origin> {
    let mut nodes = BTreeMap::new();
    for ((peer, family), path) in paths {
        if let (Path::Vxlan { .. }, Some(peer)) = (path, snapshot.nodes.get(peer)) {
            let addresses = peer.addresses.iter().filter(|a| Family::of(**a) == *family);
            nodes.extend(addresses.map(|address| (IpNet::from(*address), peer.origin())));
        }
    }
    nodes
}

fn none_here(
    this: &Node,
    egress: &Egress,
    (number, family): (usize, Family),
    pods: &[&Pod],
) -> Note {
    let entry = egress.addresses.get(number);
    let all = entry.into_iter().flat_map(|entry| &entry.addresses);
    let named: Vec<_> = all
        .filter(|address| Family::of(**address) == family)
        .map(ToString::to_string)
        .collect();
    let (why, what) = match named.is_empty() {
        true => (
            format!("it names no {family} address"),
            format!("name one that Node {} has", this.name),
        ),
        false => (
            format!("Node {} has none of {}", this.name, named.join(", ")),
            "give the node one of them, or name one that it has".to_owned(),
        ),
    };
    let first = pods
        .first()
        .map(|pod| pod.name.to_string())
        .unwrap_or_default();
    let others = match pods.len() {
        0 | 1 => String::new(),
        many => format!(" and {} more", many - 1),
    };
    let message = format!(
        "{why}, so {family} packets of Pod {first}{others} that would leave the cluster are refused; \
         {what}"
    );
    Note::new(Egress::origin(number), message)
}

/// `ip daddr != @inside snat to ip saddr map @egress fully-random`
fn leaving_by_choice() -> Rule {
    Rule::new([
        Statement::not_in_set([Field::Daddr], "inside"),
        Statement::SnatMap {
            fields: vec![Field::Saddr],
            map: "egress".to_owned(),
            fully_random: true,
        },
    ])
    .origin(Origin::parfait("egress addresses"))
}

/// `ip saddr @own_pods ip daddr @behind_tunnel masquerade fully-random`
fn to_nodes_behind_the_tunnel() -> Rule {
    Rule::new([
        Statement::in_set([Field::Saddr], "own_pods"),
        Statement::in_set([Field::Daddr], "behind_tunnel"),
        Statement::Masquerade { fully_random: true },
    ])
    .origin(Origin::parfait("masquerade"))
}

fn refusing() -> Chain {
    let hook = BaseChain {
        kind: ChainType::Filter,
        hook: Hook::Forward,
        priority: 10,
        policy: Policy::Accept,
    };
    let rule = Rule::new([
        Statement::is(Field::CtDirection, Value::Number(0)),
        Statement::in_set([Field::Saddr], "egress_refused"),
        Statement::not_in_set([Field::Daddr], "inside"),
        Statement::Reject(RejectWith::AdminProhibited),
    ]);
    Chain::base(hook, [rule.origin(Origin::parfait("egress addresses"))])
}
