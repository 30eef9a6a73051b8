//! One rule: whom it means, at which ports, and whether anything is left of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use parfait_cluster::{Direction, LabelSelector, Peer, Pod, PolicyPort, PolicyRule, PortMatch};
use parfait_packet::{Origin, Protocol};

use super::{Check, Linter, counted};
use crate::policy::select::named;

/// Ports by protocol and number.
type Open = BTreeSet<(Protocol, u16)>;

/// Looks at a rule of a policy of this namespace, or of none, for these pods.
pub(super) fn check(
    linter: &mut Linter<'_>,
    namespace: &str,
    selected: &[&Pod],
    direction: Direction,
    rule: &PolicyRule,
    origin: &Origin,
) {
    let mut peers = Vec::new();
    let mut blocks = false;
    let mut nobody = 0;
    for peer in rule.peers.iter().flatten() {
        if let Peer::Block { cidr, except } = peer {
            match except.iter().find(|hole| hole.contains(cidr)) {
                Some(hole) => {
                    let message = format!("nothing is left of ipBlock {cidr} without {hole}");
                    linter.tell(Check::PeerMatchesNobody, origin, message);
                    nobody += 1;
                }
                None => blocks = true,
            }
            continue;
        }
        if let Peer::Nodes(selector) = peer {
            let mut nodes = linter.snapshot.nodes.values();
            if nodes.any(|node| selector.matches(&node.labels)) {
                blocks = true;
            } else {
                let message = format!("no node fits {}", one("nodes", selector));
                linter.tell(Check::PeerMatchesNobody, origin, message);
                nobody += 1;
            }
            continue;
        }
        let meant = linter.members.meant(namespace, peer);
        let meant: Vec<Box<[IpAddr]>> = meant.map(|member| member.addresses.clone()).collect();
        if meant.is_empty() {
            let message = format!("no pod {} fits {}", place(peer), said(peer));
            linter.tell(Check::PeerMatchesNobody, origin, message);
            nobody += 1;
        }
        peers.extend(meant.into_iter().flatten());
    }
    // Of a list of which nothing could be read, each mistake is told.
    let listed = rule.peers.as_ref().map(Vec::len);
    if listed == Some(nobody) && nobody > 0 {
        let why = "nobody fits its peers".to_owned();
        linter.tell(Check::RuleAllowsNothing, origin, why);
    }
    let unused = listed == Some(nobody);
    let Some(ports) = rule
        .ports
        .as_ref()
        .filter(|ports| !unused && !ports.is_empty())
    else {
        return;
    };
    let receivers: Vec<Receiver<'_>> = match direction {
        Direction::Ingress => selected.iter().map(|pod| Receiver::pod(pod)).collect(),
        // Who is meant by an address is not known.
        Direction::Egress if blocks || rule.peers.is_none() => return,
        Direction::Egress => {
            let pods = peers.iter();
            let pods = pods.filter_map(|address| linter.by_address.get(address));
            pods.map(|pod| Receiver::pod(pod)).collect()
        }
    };
    closed(linter, ports, &receivers, origin);
}

/// Who may be asked at a port.
struct Receiver<'a> {
    pod: &'a Pod,
    declared: Open,
}

impl<'a> Receiver<'a> {
    fn pod(pod: &'a Pod) -> Self {
        let ports = pod.ports.iter();
        Self {
            pod,
            declared: ports.map(|port| (port.protocol, port.port)).collect(),
        }
    }

    fn opens(&self, port: &PolicyPort) -> bool {
        match &port.port {
            PortMatch::Name(name) => named(self.pod, port.protocol, name).next().is_some(),
            PortMatch::Numbers(first, last) => {
                let from = (port.protocol, *first);
                self.declared
                    .range(from..=(port.protocol, *last))
                    .next()
                    .is_some()
            }
        }
    }
}

/// Ports that nobody of the receivers declares. Pods that declare none may open any.
fn closed(
    linter: &mut Linter<'_>,
    ports: &[PolicyPort],
    receivers: &[Receiver<'_>],
    origin: &Origin,
) {
    let silent = receivers
        .iter()
        .any(|receiver| receiver.declared.is_empty());
    let Some(first) = receivers.first() else {
        return;
    };
    let mut nothing = true;
    for port in ports {
        let name = matches!(port.port, PortMatch::Name(_));
        if receivers.iter().any(|receiver| receiver.opens(port)) {
            nothing = false;
            continue;
        }
        nothing &= name;
        if silent && !name {
            continue;
        }
        let whose = match receivers.len() {
            1 => first.pod.origin().to_string(),
            many => format!("{} as {}", counted(many, "pod"), first.pod.origin()),
        };
        let what = match &port.port {
            PortMatch::Name(name) => format!(
                "calls a port of {} {name:?}; it allows nothing",
                port.protocol
            ),
            PortMatch::Numbers(from, to) if from == to => {
                format!("declares {from}/{}", port.protocol)
            }
            PortMatch::Numbers(from, to) => {
                format!("declares any of {from}-{to}/{}", port.protocol)
            }
        };
        linter.tell(
            Check::PortNotOpen,
            origin,
            format!("no container of {whose} {what}"),
        );
    }
    if nothing {
        let why = "no receiver has a port of these names".to_owned();
        linter.tell(Check::RuleAllowsNothing, origin, why);
    }
}

/// What lets everybody in or out that may not have been meant so.
pub(super) fn everybody(rule: &PolicyRule) -> Option<String> {
    let Some(peers) = &rule.peers else {
        let all = "a rule without peers and ports allows everybody everything".to_owned();
        return rule.ports.is_none().then_some(all);
    };
    peers.iter().find_map(|peer| match peer {
        Peer::Pods {
            namespaces: Some(namespaces),
            pods,
        } if is_empty(namespaces) && is_empty(pods) => {
            Some("an empty namespaceSelector allows the pods of all namespaces".to_owned())
        }
        Peer::Block { cidr, except } if cidr.prefix_len() == 0 && except.is_empty() => {
            let ports = rule.ports.is_none();
            ports.then(|| format!("ipBlock {cidr} allows everybody everything, pods too"))
        }
        _ => None,
    })
}

fn is_empty(selector: &LabelSelector) -> bool {
    *selector == LabelSelector::default()
}

fn place(peer: &Peer) -> &'static str {
    match peer {
        Peer::Pods {
            namespaces: None, ..
        } => "of its namespace",
        _ => "of any namespace",
    }
}

/// `podSelector app=web`, as in the policy.
fn said(peer: &Peer) -> String {
    let Peer::Pods { namespaces, pods } = peer else {
        return String::new();
    };
    let namespaces = namespaces
        .iter()
        .map(|selector| one("namespaceSelector", selector));
    let pods = (!is_empty(pods)).then(|| one("podSelector", pods));
    let parts: Vec<String> = namespaces.chain(pods).collect();
    match parts.is_empty() {
        true => "an empty podSelector".to_owned(),
        false => parts.join(" and "),
    }
}

fn one(name: &str, selector: &LabelSelector) -> String {
    let wanted = selector.missing(&BTreeMap::new());
    // What no labels fulfil is named by `missing`; the others hold without labels.
    let negative = selector.match_expressions.iter().map(ToString::to_string);
    let negative = negative.filter(|text| !wanted.contains(text));
    let parts: Vec<String> = wanted.iter().cloned().chain(negative).collect();
    match parts.is_empty() {
        true => format!("an empty {name}"),
        false => format!("{name} with {}", parts.join(" and ")),
    }
}
