//! Host ports: ports of a node that lead to one of its pods.
//!
//! ```text
//!   192.168.77.11:8080 ──own-addresses──▶ host_ports_at [192.168.77.11 . tcp . 8080] ─┐ the one with hostIP first
//!                                         host_ports    [tcp . 8080] ────────────────┴▶ 10.244.1.2:80
//! ```
//!
//! A Pod asks for one with `containers[].ports[].hostPort`; a caller of the CNI plugin that has no Pod,
//! with the capability `portMappings`. A host port counts for packets to any of the node's own addresses,
//! or to the one that `hostIP` names: from outside, from pods and from the node itself.
//!
//! - Senders keep their address, but for a pod that reaches itself (hairpin) and for the node's
//!   127.0.0.1, from which nothing may leave a machine: those get one of the node's.
//! - The IPv6 loopback cannot leave at all (there is no `route_localnet` for it), so `::1` leads to the
//!   node itself.
//! - What the agent answers itself, cluster DNS, is its own, whatever pods ask for.
//! - Of two pods with the same wish the older one has it, one that is being deleted last; the other
//!   gets a note.
//!
//! Node ports are of the same kind, a port of any own address, and will be looked up in the same chain.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use parfait_cluster::{ContainerPort, HostPort, Note, ObjectName, Pod, Snapshot};
use parfait_linux::attachment::host_interface;
use parfait_linux::nft::{
    Chain, Data, DataType, Element, Field, Key, Rule, Set, Statement, Value, Verdict,
};
use parfait_linux::{Sysctl, SysctlKey};
use parfait_packet::{Family, Origin, Packet, Protocol};

/// The chain in which ports of the node's own addresses are looked up.
pub(crate) const OWN_ADDRESSES: &str = "own-addresses";

/// What a client connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wish {
    /// The family.
    pub family: Family,
    /// The node's address; `None` for all of the family.
    pub address: Option<IpAddr>,
    /// The protocol.
    pub protocol: Protocol,
    /// The node's port.
    pub port: u16,
}

/// Where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The pod's address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// The pod; `None` for a container without one.
    pub pod: Option<ObjectName>,
    /// The Pod's field.
    pub origin: Origin,
}

/// The host ports of one node.
pub type HostPorts = BTreeMap<Wish, Target>;

/// The host ports of a node.
pub(crate) fn plan(snapshot: &Snapshot, node: &str, notes: &mut Vec<Note>) -> HostPorts {
    let mut ports = HostPorts::new();
    let asks = |pod: &&Pod| {
        let asks = pod.ports.iter().any(|port| port.host.is_some());
        asks && !pod.host_network
    };
    let mut pods: Vec<&Pod> = snapshot.pods_on(node).filter(asks).collect();
    pods.sort_by_key(|pod| (pod.terminating, pod.created.unwrap_or(i64::MAX), &pod.name));
    for pod in pods {
        for declared in &pod.ports {
            for (wish, target) in of_pod(pod, declared) {
                take(&mut ports, wish, target, notes);
            }
        }
    }
    for (wish, target) in without_pod(snapshot, node) {
        take(&mut ports, wish, target, notes);
    }
    ports
}

fn take(ports: &mut HostPorts, wish: Wish, target: Target, notes: &mut Vec<Note>) {
    match ports.get(&wish) {
        None => {
            ports.insert(wish, target);
        }
        // The other family has told.
        Some(first)
            if notes.iter().any(|note| note.origin == target.origin) || *first == target => {}
        Some(first) => {
            let at = wish
                .address
                .map_or_else(String::new, |ip| format!(" of {ip}"));
            let message = format!(
                "port {}/{}{at} of the node already leads to {}; it does not lead here",
                wish.port, wish.protocol, first.origin
            );
            notes.push(Note::new(target.origin, message));
        }
    }
}

fn of_pod(pod: &Pod, declared: &ContainerPort) -> Vec<(Wish, Target)> {
    let Some(host) = &declared.host else {
        return Vec::new();
    };
    let name = declared.name.clone();
    let name = name.unwrap_or_else(|| format!("{}/{}", declared.port, declared.protocol));
    let field = format!(
        "spec.containers[{}].ports[{name}].hostPort",
        declared.container
    );
    let target = |address| Target {
        address,
        port: declared.port,
        pod: Some(pod.name.clone()),
        origin: pod.origin().field(&field),
    };
    let wish = |family| wish(host, declared.protocol, family);
    let families = Family::ALL.into_iter();
    let of_family =
        families.filter_map(|family| Some((wish(family)?, target(pod.address(family)?))));
    of_family.collect()
}

/// What callers without a Pod asked for. With a Pod, its own fields say the same.
fn without_pod(snapshot: &Snapshot, node: &str) -> Vec<(Wish, Target)> {
    let mut asked = Vec::new();
    for attachment in snapshot.attachments_on(node).filter(|a| a.pod.is_none()) {
        for mapping in &attachment.port_mappings {
            let host = HostPort {
                port: mapping.host_port,
                ip: mapping.host_ip,
            };
            for address in &attachment.addresses {
                let target = Target {
                    address: *address,
                    port: mapping.port,
                    pod: None,
                    origin: attachment.origin().field("portMappings"),
                };
                let wish = wish(&host, mapping.protocol, Family::of(*address));
                asked.extend(wish.map(|wish| (wish, target)));
            }
        }
    }
    asked
}

/// `0.0.0.0` and `::` are all addresses of their family; no `hostIP` is all of both.
fn wish(host: &HostPort, protocol: Protocol, family: Family) -> Option<Wish> {
    let of_family = host.ip.is_none_or(|ip| Family::of(ip) == family);
    of_family.then_some(Wish {
        family,
        address: host.ip.filter(|ip| !ip.is_unspecified()),
        protocol,
        port: host.port,
    })
}

/// Where a packet to one of the node's own addresses leads by its host ports.
#[must_use]
pub fn explain<'p>(ports: &'p HostPorts, packet: &Packet) -> Option<&'p Target> {
    let wish = |address| Wish {
        family: packet.family(),
        address,
        protocol: packet.protocol,
        port: packet.destination_port,
    };
    if packet.destination == IpAddr::V6(Ipv6Addr::LOCALHOST) {
        return None;
    }
    let at = ports.get(&wish(Some(packet.destination)));
    at.or_else(|| ports.get(&wish(None)))
}

/// `map host_ports_at` and `map host_ports`: a port of the node, at one address or at all, to a pod's.
pub(crate) fn maps(ports: &HostPorts, family: Family) -> [(String, Set); 2] {
    let map = |fields: &[Field]| Set::new(fields.iter().copied(), DataType::Target);
    let (mut at, mut all) = (map(&AT), map(&ALL));
    for (wish, target) in ports.iter().filter(|(wish, _)| wish.family == family) {
        let data = Data::Target(target.address, target.port);
        let element = Element::new(data).origin(target.origin.clone());
        let mut key: Key = wish.address.map(Value::Address).into_iter().collect();
        key.push(Value::Protocol(wish.protocol.number(family)));
        key.push(Value::Port(wish.port));
        let map = if wish.address.is_some() {
            &mut at
        } else {
            &mut all
        };
        map.elements.insert(key, element);
    }
    [
        ("host_ports_at".to_owned(), at),
        ("host_ports".to_owned(), all),
    ]
}

const AT: [Field; 3] = [Field::Daddr, Field::L4Proto, Field::Dport];
const ALL: [Field; 2] = [Field::L4Proto, Field::Dport];

/// ```text
/// ip daddr @served return
/// dnat to ip daddr . meta l4proto . th dport map @host_ports_at
/// dnat to meta l4proto . th dport map @host_ports
/// ```
pub(crate) fn own_addresses(family: Family) -> Chain {
    let to = |fields: &[Field], map: &str| Statement::DnatMap {
        fields: fields.to_vec(),
        map: map.to_owned(),
    };
    let mut rules = vec![rule([
        Statement::in_set([Field::Daddr], "served"),
        Statement::Verdict(Verdict::Return),
    ])];
    if family == Family::Ipv6 {
        let loopback = Value::Address(Ipv6Addr::LOCALHOST.into());
        rules.push(rule([
            Statement::is(Field::Daddr, loopback),
            Statement::Verdict(Verdict::Return),
        ]));
    }
    rules.push(rule([to(&AT, "host_ports_at")]));
    rules.push(rule([to(&ALL, "host_ports")]));
    Chain::regular(rules)
}

/// `fib daddr type local goto own-addresses`
pub(crate) fn look_up() -> Rule {
    rule([
        Statement::is(Field::FibDaddrType, Value::Number(2)),
        Statement::Verdict(Verdict::Goto(OWN_ADDRESSES.to_owned())),
    ])
}

/// `ct status dnat ip saddr 127.0.0.0/8 masquerade`: nobody could answer that address.
pub(crate) fn leave_the_loopback() -> Rule {
    rule([
        Statement::any_bit(Field::CtStatus, 32),
        Statement::is(Field::Saddr, loopback()),
        Statement::Masquerade {
            fully_random: false,
        },
    ])
}

/// `ip daddr 127.0.0.0/8 iifname != "lo" ct direction original drop`: pods' interfaces must let the answers to the
/// loopback in ([`settings`]), and would then let in everything else that is sent there.
pub(crate) fn guard_the_loopback() -> Rule {
    rule([
        Statement::is(Field::Daddr, loopback()),
        Statement::is_not(Field::Iifname, Value::Ifname("lo".to_owned())),
        Statement::is(Field::CtDirection, Value::Number(0)),
        Statement::Verdict(Verdict::Drop),
    ])
}

/// `net.ipv4.conf.pf3f29….route_localnet = 1`: what the node sends from 127.0.0.1 to a host port may leave
/// by the pod's interface, and the answer come in there (ip-sysctl.rst).
#[must_use]
pub fn settings(ports: &HostPorts) -> BTreeMap<SysctlKey, (Sysctl, Origin)> {
    let four = ports.iter().filter(|(wish, _)| wish.family == Family::Ipv4);
    let setting = |(_, target): (&Wish, &Target)| {
        let pod = target.pod.as_ref()?;
        let link = host_interface(&pod.namespace, &pod.name);
        let key = SysctlKey::conf(Family::Ipv4, &link, "route_localnet");
        let setting = Sysctl::new(key.clone(), "1");
        Some((key, (setting, target.origin.clone())))
    };
    four.filter_map(setting).collect()
}

fn loopback() -> Value {
    let net = ipnet::Ipv4Net::new(Ipv4Addr::new(127, 0, 0, 0), 8);
    Value::prefix(net.expect("8 is a length").into())
}

fn rule(statements: impl IntoIterator<Item = Statement>) -> Rule {
    Rule::new(statements).origin(Origin::parfait("host ports"))
}
