//! The plan as nf_tables, only where pods are isolated: one look-up for the pod, and a few for what its policies
//! allow, however many policies and rules these are.
//!
//! ```text
//! table ip parfait {
//!   map egress_isolated  { type ipv4_addr : verdict; elements = { 10.244.1.2 : goto egress-shop-3f29c1d04a11 } }
//!   map ingress_isolated { type ipv4_addr : verdict }
//!   map egress_to_node   { type ipv4_addr : verdict }                           (where ClusterNetworkPolicies are asked)
//!   set policy_served    { type ipv4_addr }                                     (cluster DNS)
//!   chain policy-forward { type filter hook forward priority filter + 5;
//!     ct state established,related accept
//!     ip saddr . ip daddr . meta l4proto . th sport . th dport @policy_ended counter drop   (see `ended.rs`)
//!     ip saddr . ip daddr @hairpin accept                                       (a pod reaches itself)
//!     ip saddr vmap @egress_isolated
//!     ip daddr vmap @ingress_isolated }
//!   chain policy-input { type filter hook input priority filter + 5;
//!     … the same two
//!     ip daddr @policy_served ip saddr vmap @egress_isolated
//!     ct state untracked accept                                                 (neighbour discovery)
//!     ip saddr vmap @egress_to_node }
//!   chain policy-ingress { ip daddr vmap @ingress_isolated; accept }            (what egress has let through)
//!   chain egress-shop-3f29c1d04a11 {
//!     jump egress-Admin-09a1c7d2b3e4                                            (ClusterNetworkPolicies, for all classes that they are for)
//!     ip daddr . meta l4proto . th dport @egress-shop-3f29c1d04a11-host-ports goto policy-ingress
//!     … one look-up for each form of what is allowed, see `matches.rs`, and for each group of very many, see `group.rs`
//!     limit rate 1/second log … group 4244; counter drop }                      (see `denial.rs`)
//!   chain egress-Admin-09a1c7d2b3e4 {
//!     ip daddr @egress-Admin-5d0c11e2f3a4-hosts goto egress-Admin-5d0c11e2f3a4-deny   (called after its rules: tiers share it)
//!     … the same look-ups for each of its steps
//!     return }
//! }
//! ```
//!
//! Exact terms are hashed; only ranges of addresses or ports are in interval sets. It comes after the refusals of
//! Services (`refuse-forward`, priority 0), so that a Service without endpoints says so whatever policies say.
//! Everything is in the transaction that makes a new pod known, so no packet of it passes before.

use std::net::IpAddr;

use parfait_cluster::{Direction, PolicyAction};
use parfait_linux::nft::evaluate::ct_state;
use parfait_linux::nft::{
    BaseChain, Chain, ChainType, Data, DataType, Element, Field, Hook, Key, Policy, Rule, Set,
    Statement, Table, Tables, Value, Verdict, compare,
};
use parfait_packet::{Family, Fault, Finding, Origin};

use super::class::{Class, Level, Step, Tier};
use super::denial;
use super::ended::{self, ENDED};
use super::group::{self, Grouped};
use super::host;
use super::matches::{PortRange, Ports};
use super::part::{Base, Part};
use super::plan::Plan;

const SERVED: &str = "policy_served";
pub(super) const TO_NODE: &str = "egress_to_node";
const FORWARD: &str = "policy-forward";
const INPUT: &str = "policy-input";
const INGRESS: &str = "policy-ingress";

/// The chains that every packet meets where a pod is isolated.
pub const BASE: [&str; 2] = [FORWARD, INPUT];
/// The chains in which packets of connections that have ended are dropped.
pub const ENDING: [&str; 4] = [FORWARD, INPUT, host::INPUT, host::OUTPUT];

/// Behind the refusals of Services.
const PRIORITY: i32 = 5;

/// The tables' parts that a node must hold for this plan: of each family one, empty where no pod is isolated.
#[must_use]
pub fn apply(plan: &Plan) -> Vec<Table> {
    Family::ALL.map(|family| table(plan, family)).into()
}

/// Every difference between [`apply()`]'s parts of the tables and what is there of them.
#[must_use]
pub fn prove(desired: &[Table], observed: &Tables) -> Vec<Finding> {
    let found = desired.iter().flat_map(|table| {
        let there = observed.get(&table.key());
        compare(Fault::PolicyDifferent, table, there, |_| true, is_ours)
    });
    found.collect()
}

fn is_ours(name: &str) -> bool {
    let fixed = [SERVED, TO_NODE, ENDED, FORWARD, INPUT, INGRESS];
    let hosts = [
        host::INPUT,
        host::OUTPUT,
        host::PEERS,
        host::API,
        host::SERVED,
    ];
    let is_host = hosts.contains(&name) || name.starts_with(host::CLASS);
    let maps = Direction::ALL.map(isolated);
    let is_map = maps.iter().any(|map| map == name);
    is_host
        || fixed.contains(&name)
        || is_map
        || is_class(name).is_some()
        || name.starts_with(group::PREFIX)
}

/// The direction of a class's chain or set, if a name is one's.
#[must_use]
pub fn is_class(name: &str) -> Option<Direction> {
    let mut directions = Direction::ALL.into_iter();
    directions.find(|direction| {
        let rest = name.strip_prefix(direction.name());
        rest.is_some_and(|rest| rest.starts_with('-'))
    })
}

pub(super) fn isolated(direction: Direction) -> String {
    format!("{}_isolated", direction.name())
}

fn table(plan: &Plan, family: Family) -> Table {
    Part::of(plan, family).lower(family)
}

pub(super) fn add_base(table: Table, base: &Base<'_>) -> Table {
    let served = base.served.iter();
    let served = served.map(|(address, by)| (vec![Value::Address(*address)], *by));
    table
        .set(SERVED, set(&[Field::Daddr], false, served))
        .chain(FORWARD, Chain::base(hook(Hook::Forward), forward()))
        .chain(INPUT, Chain::base(hook(Hook::Input), input(base.to_node)))
        .chain(INGRESS, Chain::regular(let_out()))
}

const fn hook(hook: Hook) -> BaseChain {
    BaseChain {
        kind: ChainType::Filter,
        hook,
        priority: PRIORITY,
        policy: Policy::Accept,
    }
}

/// The pod's own address in a packet of a direction.
pub(super) const fn own(direction: Direction) -> Field {
    match direction {
        Direction::Ingress => Field::Daddr,
        Direction::Egress => Field::Saddr,
    }
}

/// The address of who is at the other end.
const fn peer(direction: Direction) -> Field {
    match direction {
        Direction::Ingress => Field::Saddr,
        Direction::Egress => Field::Daddr,
    }
}

fn forward() -> Vec<Rule> {
    let itself = Statement::in_set([Field::Saddr, Field::Daddr], "hairpin");
    vec![
        answers(),
        ended(),
        rule([itself, Statement::Verdict(Verdict::Accept)]),
        rule([look_up(Direction::Egress)]),
        rule([look_up(Direction::Ingress)]),
    ]
}

fn input(to_node: bool) -> Vec<Rule> {
    let served = Statement::in_set([Field::Daddr], SERVED);
    let mut rules = vec![
        answers(),
        ended(),
        rule([served, look_up(Direction::Egress)]),
    ];
    if to_node {
        let map = TO_NODE.to_owned();
        let fields = vec![Field::Saddr];
        rules.push(rule([untracked(), Statement::Verdict(Verdict::Accept)]));
        rules.push(rule([Statement::Vmap { fields, map }]));
    }
    rules
}

fn let_out() -> Vec<Rule> {
    vec![
        rule([look_up(Direction::Ingress)]),
        rule([Statement::Verdict(Verdict::Accept)]),
    ]
}

/// `ct state established,related accept`
fn answers() -> Rule {
    let known = ct_state::ESTABLISHED | ct_state::RELATED;
    rule([
        Statement::any_bit(Field::CtState, known),
        Statement::Verdict(Verdict::Accept),
    ])
}

/// `ct state untracked`: what keeps neighbours known (RFC 4861), which the kernel tracks not.
fn untracked() -> Statement {
    Statement::any_bit(Field::CtState, ct_state::UNTRACKED)
}

/// `ip saddr . ip daddr . meta l4proto . th sport . th dport @policy_ended counter drop`
pub(super) fn ended() -> Rule {
    rule([
        Statement::in_set(ended::FLOW, ENDED),
        Statement::Counter,
        Statement::Verdict(Verdict::Drop),
    ])
}

/// `ip saddr vmap @egress_isolated`
fn look_up(direction: Direction) -> Statement {
    Statement::Vmap {
        fields: vec![own(direction)],
        map: isolated(direction),
    }
}

fn rule(statements: impl IntoIterator<Item = Statement>) -> Rule {
    Rule::new(statements).origin(Origin::parfait("policy"))
}

pub(super) fn set<'a>(
    fields: &[Field],
    interval: bool,
    elements: impl IntoIterator<Item = (Key, &'a Origin)>,
) -> Set {
    let element = |(key, by): (Key, &Origin)| (key, Element::new(Data::None).origin(by.clone()));
    Set {
        interval,
        elements: elements.into_iter().map(element).collect(),
        ..Set::new(fields.iter().copied(), DataType::None)
    }
}

/// A class's chain, and the sets that have any elements.
pub(super) fn add_class(mut table: Table, class: &Class, family: Family) -> Table {
    let mut rules = Vec::new();
    let mut decided = false;
    for tier in &class.tiers {
        match tier.level {
            Level::Admin => rules.push(rule([leads(Verdict::Jump, tier)])),
            Level::Baseline => rules.push(rule([leads(Verdict::Goto, tier)])),
            Level::NetworkPolicy | Level::Node => {
                for step in &tier.steps {
                    table = add_step(table, class.direction, step, family);
                }
                let next = passes(class.direction);
                rules.extend(asked(class.direction, tier, &next, family));
            }
        }
        decided |= tier.level != Level::Admin;
    }
    if !decided {
        rules.push(rule([Statement::Verdict(passes(class.direction))]));
    }
    table.chain(&class.name, Chain::regular(rules))
}

fn leads(how: impl Fn(String) -> Verdict, tier: &Tier) -> Statement {
    Statement::Verdict(how(tier.chain.clone()))
}

/// A tier that has a chain of its own. Packets come back from that of tier Admin to be asked of NetworkPolicies.
pub(super) fn add_shared(table: Table, direction: Direction, tier: &Tier, family: Family) -> Table {
    let next = match tier.level {
        Level::Admin => Verdict::Return,
        _ => passes(direction),
    };
    let rules = asked(direction, tier, &next, family);
    table.chain(&tier.chain, Chain::regular(rules))
}

/// What becomes of a packet that policies let through in this direction.
fn passes(direction: Direction) -> Verdict {
    match direction {
        Direction::Ingress => Verdict::Accept,
        Direction::Egress => Verdict::Goto(INGRESS.to_owned()),
    }
}

/// The sets of a step, and the chain in which it denies.
pub(super) fn add_step(
    mut table: Table,
    direction: Direction,
    step: &Step,
    family: Family,
) -> Table {
    if let Some(by) = step.matches.rules().next()
        && step.action == PolicyAction::Deny
    {
        let name = denial::chain(step);
        let denied = Chain::regular(denial::rules(&name, by));
        table = table.chain(&name, denied);
    }
    if step.matches.all.is_some() {
        return table;
    }
    for (form, set) in sets(step, direction, family) {
        if !set.elements.is_empty() {
            table = table.set(&format!("{}-{form}", step.name), set);
        }
    }
    for (name, (_, grouped)) in &step.matches.groups {
        for (form, set) in group_ports(grouped, family) {
            if !set.elements.is_empty() {
                table = table.set(&format!("{}-{name}-{form}", step.name), set);
            }
        }
    }
    table
}

/// The rules of a tier.
fn asked(direction: Direction, tier: &Tier, next: &Verdict, family: Family) -> Vec<Rule> {
    let mut rules = Vec::new();
    for step in &tier.steps {
        let verdict = Statement::Verdict(match step.action {
            PolicyAction::Accept => passes(direction),
            PolicyAction::Deny => Verdict::Goto(denial::chain(step)),
            PolicyAction::Pass => next.clone(),
        });
        if let Some(by) = &step.matches.all {
            // Behind it nothing is asked.
            rules.push(Rule::new([verdict]).origin(by.clone()));
            return rules;
        }
        for (form, set) in sets(step, direction, family) {
            if !set.elements.is_empty() {
                let within = Statement::in_set(set.key, &format!("{}-{form}", step.name));
                rules.push(rule([within, verdict.clone()]));
            }
        }
        for (name, (_, grouped)) in &step.matches.groups {
            let within = Statement::in_set([peer(direction)], name);
            if let Some(by) = &grouped.all {
                rules.push(Rule::new([within.clone(), verdict.clone()]).origin(by.clone()));
            }
            for (form, set) in group_ports(grouped, family) {
                if !set.elements.is_empty() {
                    let at = Statement::in_set(set.key, &format!("{}-{name}-{form}", step.name));
                    rules.push(rule([within.clone(), at, verdict.clone()]));
                }
            }
        }
    }
    let by = ends(direction, tier);
    if tier.level.denies() {
        rules.extend(denial::rules(&tier.chain, &by));
    } else {
        let next = Statement::Verdict(next.clone());
        rules.push(Rule::new([next]).origin(by));
    }
    rules
}

/// At which ports a group is matched.
fn group_ports(grouped: &Grouped, family: Family) -> [(&'static str, Set); 2] {
    [("ports", true), ("ranges", false)].map(|(form, exact)| {
        let ports = at_ports(None, &grouped.ports, family, exact);
        (form, set(&[Field::L4Proto, Field::Dport], !exact, ports))
    })
}

/// The first of a tier's policies; `explain` names all.
fn ends(direction: Direction, tier: &Tier) -> Origin {
    let field = format!("spec.{}", direction.name());
    match tier.policies.first() {
        Some(policy) => policy.clone().field(&field),
        None => Origin::parfait("policy"),
    }
}

/// What a step matches, in its forms, those first in which most packets are expected.
fn sets(step: &Step, direction: Direction, family: Family) -> [(&'static str, Set); 7] {
    let matches = &step.matches;
    let peer = peer(direction);
    let at = [peer, Field::L4Proto, Field::Dport];
    let hosts = || {
        matches
            .hosts
            .iter()
            .filter(|(ip, _)| Family::of(**ip) == family)
    };
    let host_ports = |exact: bool| {
        let hosts = matches.host_ports.iter();
        let hosts = hosts.filter(|(ip, _)| Family::of(**ip) == family);
        hosts.flat_map(move |(ip, ports)| at_ports(Some(Value::Address(*ip)), ports, family, exact))
    };
    let blocks = matches.blocks.iter();
    let blocks = blocks.filter(|(net, _)| Family::of(net.addr()) == family);
    let block_ports = matches.block_ports.iter();
    let block_ports = block_ports.filter(|(net, _)| Family::of(net.addr()) == family);
    let block_ports = block_ports.flat_map(|(net, ports)| {
        let net = Some(Value::prefix(*net));
        let exact = at_ports(net.clone(), ports, family, true);
        exact.chain(at_ports(net, ports, family, false))
    });
    let anybody = |exact| at_ports(None, &matches.ports, family, exact);
    let address = |ip: &IpAddr| vec![Value::Address(*ip)];
    [
        ("host-ports", set(&at, false, host_ports(true))),
        (
            "hosts",
            set(&[peer], false, hosts().map(|(ip, by)| (address(ip), by))),
        ),
        ("ports", set(&at[1..], false, anybody(true))),
        (
            "blocks",
            set(
                &[peer],
                true,
                blocks.map(|(net, by)| (vec![Value::prefix(*net)], by)),
            ),
        ),
        ("block-ports", set(&at, true, block_ports)),
        ("host-ranges", set(&at, true, host_ports(false))),
        ("ranges", set(&at[1..], true, anybody(false))),
    ]
}

/// Keys of single ports, or of ranges, behind a peer's value.
fn at_ports(
    peer: Option<Value>,
    ports: &Ports,
    family: Family,
    exact: bool,
) -> impl Iterator<Item = (Key, &Origin)> {
    let ports = ports
        .iter()
        .filter(move |(range, _)| (range.first == range.last) == exact);
    ports.map(move |(range, by)| {
        let mut key: Key = peer.clone().into_iter().collect();
        key.push(Value::Protocol(range.protocol.number(family)));
        key.push(value(*range));
        (key, by)
    })
}

fn value(range: PortRange) -> Value {
    match range.first == range.last {
        true => Value::Port(range.first),
        false => Value::Ports(range.first, range.last),
    }
}
