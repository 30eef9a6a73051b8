//! Policies of a node itself: whom its own processes, and pods on its network, take connections from.
//!
//! ```text
//! table ip parfait {
//!   set node_peers   { type ipv4_addr }                                    every address of every node
//!   set node_api     { type ipv4_addr . inet_proto . inet_service }        where the API server answers, here or elsewhere
//!   chain node-input { type filter hook input priority filter + 6;
//!     ct state established,related,untracked accept
//!     ip saddr . ip daddr . meta l4proto . th sport . th dport @policy_ended counter drop   (see `ended.rs`)
//!     iifname lo accept
//!     meta l4proto { icmp, ipv6-icmp } accept
//!     ip saddr @node_peers accept
//!     ip daddr @node_dns accept                                            (cluster DNS: pods' policies are about that)
//!     ip daddr . meta l4proto . th dport @node_api accept
//!     ip saddr . meta l4proto . th sport @node_api accept                  (in connections older than their tracking)
//!     meta l4proto . th dport { tcp . 10250, udp . 68, udp . 546 } accept  (the kubelet, DHCP)
//!     goto node-policies }
//!   chain node-output { type filter hook output priority filter + 6;       the first two of these rules }
//!   chain node-policies { … look-ups, as in a pod's chain; accept }
//! }
//! ```
//!
//! The first rules are the safety net. With them no policy can keep the agent from the API server, the API server from the
//! kubelet, or nodes from each other (BGP, tunnels, etcd): who shuts themselves out can still take the policy back. They are
//! there only where a policy is. Connections that a policy forbids since they began end as those of pods do (`ended.rs`),
//! never those of the safety net, nor what the node has begun itself.
//!
//! Deliberately absent: policies for what nodes send. What a node needs for that (the API server behind its load balancer,
//! nameservers, time, images, a cloud's metadata) no object of the cluster names, so there could be no safety net: one
//! mistake, and no agent hears that it was taken back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use parfait_cluster::{self as cluster, Node, NodeNetworkPolicy, ObjectName, Snapshot};
use parfait_linux::nft::evaluate::ct_state;
use parfait_linux::nft::{
    BaseChain, Chain, ChainType, Field, Hook, Key, Operand, Policy, Rule, Statement, Table, Value,
    Verdict,
};
use parfait_packet::{Family, Origin, Packet, Protocol};

use super::apply;
use super::class::Class;
use super::compile::Compiler;
use super::plan::Plan;

/// The chain that every packet to the node itself meets.
pub const INPUT: &str = "node-input";
/// The chain that what the node sends meets: answers in connections that ended.
pub const OUTPUT: &str = "node-output";
/// The policies' chain.
pub const CLASS: &str = "node-policies";
pub(super) const PEERS: &str = "node_peers";
pub(super) const API: &str = "node_api";
pub(super) const SERVED: &str = "node_dns";

/// Behind what pods' own policies say of packets to their node.
const PRIORITY: i32 = 6;

/// What may reach a node at any address, whatever policies say: the kubelet, which asks for a certificate itself, and
/// answers to broadcasts of DHCP (RFC 2131, RFC 8415), which are of no connection.
const ALWAYS: [(Protocol, u16); 3] = [
    (Protocol::Tcp, 10250),
    (Protocol::Udp, 68),
    (Protocol::Udp, 546),
];

/// What policies want of the node itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The rules.
    pub class: Arc<Class>,
    /// All addresses of all nodes.
    pub peers: BTreeMap<IpAddr, Origin>,
    /// Where the API server answers.
    pub api: BTreeSet<(IpAddr, Protocol, u16)>,
}

impl Host {
    /// What the policies of a node come to; `None` if none is for it.
    pub(super) fn of<'a>(
        snapshot: &'a Snapshot,
        node: &str,
        compiler: &mut Compiler<'a>,
    ) -> Option<Self> {
        let node = snapshot.nodes.get(node)?;
        let class = compiler.node(&selecting(snapshot, node))?;
        let nodes = snapshot.nodes.values();
        let peers = nodes.flat_map(|node| {
            let addresses = node.every_address().into_iter();
            addresses.map(|address| (address, node.origin()))
        });
        Some(Self {
            class: Arc::new(class),
            peers: peers.collect(),
            api: api(snapshot),
        })
    }

    /// Whether policies forbid a connection to the node with this first packet.
    pub(super) fn denies(&self, packet: &Packet) -> bool {
        self.always(packet).is_none() && !self.class.decide(packet.source, packet).accepted
    }

    /// Why the node accepts a packet before any policy is asked.
    #[must_use]
    pub fn always(&self, packet: &Packet) -> Option<&'static str> {
        let to = (packet.destination, packet.protocol, packet.destination_port);
        let from = (packet.source, packet.protocol, packet.source_port);
        if !packet.protocol.has_ports() {
            Some("ICMP always passes")
        } else if self.peers.contains_key(&packet.source) {
            Some("nodes of the cluster always reach each other")
        } else if self.api.contains(&to) {
            Some("the API server can always be reached")
        } else if self.api.contains(&from) {
            Some("what the API server sends always passes")
        } else if ALWAYS.contains(&(packet.protocol, packet.destination_port)) {
            Some("the kubelet and DHCP can always be reached")
        } else {
            None
        }
    }
}

/// Whether Services or their slices with these keys matter to policies: those that say where the API server is.
#[must_use]
pub fn depends_on(snapshot: &Snapshot, keys: &BTreeSet<cluster::Key>) -> bool {
    let api = |key: &cluster::Key| match key {
        // Of a slice that is gone, only the namespace is known.
        cluster::Key::EndpointSlice(name) => name.namespace == "default",
        _ => false,
    };
    !snapshot.node_policies.is_empty() && keys.iter().any(api)
}

/// The policies that are for a node, by priority and name.
fn selecting<'a>(snapshot: &'a Snapshot, node: &Node) -> Vec<&'a NodeNetworkPolicy> {
    let all = snapshot.node_policies.values();
    let mut selecting: Vec<_> = all
        .filter(|policy| policy.nodes.matches(&node.labels))
        .collect();
    selecting.sort_by_key(|policy| policy.priority);
    selecting
}

/// Where the API server answers: the endpoints of the Service `default/kubernetes`.
fn api(snapshot: &Snapshot) -> BTreeSet<(IpAddr, Protocol, u16)> {
    let service = ObjectName::new("default", "kubernetes");
    let slices = snapshot.slices_of(&service);
    let answers = slices.flat_map(|slice| {
        let endpoints = slice.endpoints.iter().map(|endpoint| endpoint.address);
        endpoints.flat_map(|address| {
            let ports = slice.ports.iter();
            ports.map(move |port| (address, port.protocol, port.port))
        })
    });
    answers.collect()
}

/// What is lowered of one family.
#[derive(Clone, PartialEq)]
pub(super) struct Part<'a> {
    host: &'a Host,
    served: Vec<(IpAddr, &'a Origin)>,
}

impl<'a> Part<'a> {
    pub(super) fn of(plan: &'a Plan, family: Family) -> Option<Self> {
        let served = plan.served.iter();
        let served = served.filter(|(address, _)| Family::of(**address) == family);
        Some(Self {
            host: plan.host.as_ref()?,
            served: served.map(|(address, by)| (*address, by)).collect(),
        })
    }

    /// What always passes, as a chain with its sets, and the policies' chain.
    pub(super) fn add(&self, table: Table, family: Family) -> Table {
        let table = add(table, self.host, family);
        let served = self.served.iter();
        let served = served.map(|(address, by)| (vec![Value::Address(*address)], *by));
        let table = table.set(SERVED, apply::set(&[Field::Daddr], false, served));
        apply::add_class(table, &self.host.class, family)
    }
}

fn add(mut table: Table, host: &Host, family: Family) -> Table {
    let here = host.peers.iter();
    let here = here.filter(|(address, _)| Family::of(**address) == family);
    let peers = here.map(|(address, node)| (vec![Value::Address(*address)], node));
    let peers = apply::set(&[Field::Saddr], false, peers);
    let by = Origin::parfait("API server");
    let here = host.api.iter();
    let api = here.filter(|(ip, ..)| Family::of(*ip) == family);
    let api = api.map(|(address, protocol, port)| {
        let key = vec![
            Value::Address(*address),
            Value::Protocol(protocol.number(family)),
            Value::Port(*port),
        ];
        (key, &by)
    });
    let at = [Field::Daddr, Field::L4Proto, Field::Dport];
    let api = apply::set(&at, false, api);
    let hook = |hook| BaseChain {
        kind: ChainType::Filter,
        hook,
        priority: PRIORITY,
        policy: Policy::Accept,
    };
    table = table.set(PEERS, peers).set(API, api);
    table
        .chain(INPUT, Chain::base(hook(Hook::Input), input(family, at)))
        .chain(OUTPUT, Chain::base(hook(Hook::Output), begin()))
}

/// What is known goes on, unless it has ended.
fn begin() -> Vec<Rule> {
    let known = ct_state::ESTABLISHED | ct_state::RELATED | ct_state::UNTRACKED;
    let known = Statement::any_bit(Field::CtState, known);
    vec![accepted("answers", known), apply::ended()]
}

fn accepted(what: &str, matches: Statement) -> Rule {
    let accept = Statement::Verdict(Verdict::Accept);
    Rule::new([matches, accept]).origin(Origin::parfait(what))
}

fn input(family: Family, at: [Field; 3]) -> Vec<Rule> {
    let icmp = Value::Protocol(Protocol::Icmp.number(family));
    let always: Vec<Key> = ALWAYS
        .iter()
        .map(|(protocol, port)| vec![Value::Protocol(protocol.number(family)), Value::Port(*port)])
        .collect();
    let always = Statement::Match {
        fields: at[1..].to_vec(),
        negated: false,
        operand: Operand::Anonymous(always),
    };
    let from = [Field::Saddr, Field::L4Proto, Field::Sport];
    let loopback = Value::Ifname("lo".to_owned());
    let always = [
        ("loopback", Statement::is(Field::Iifname, loopback)),
        ("ICMP", Statement::is(Field::L4Proto, icmp)),
        ("nodes", Statement::in_set([Field::Saddr], PEERS)),
        ("cluster DNS", Statement::in_set([Field::Daddr], SERVED)),
        ("API server", Statement::in_set(at, API)),
        ("API server", Statement::in_set(from, API)),
        ("kubelet and DHCP", always),
    ];
    let always = always
        .into_iter()
        .map(|(what, matches)| accepted(what, matches));
    let policies = Statement::Verdict(Verdict::Goto(CLASS.to_owned()));
    let policies = Rule::new([policies]).origin(Origin::parfait("policies of the node"));
    begin()
        .into_iter()
        .chain(always)
        .chain([policies])
        .collect()
}
