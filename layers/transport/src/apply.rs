//! The plan as nf_tables: per family one table, two maps for all Services, and one chain and map per
//! *number* of endpoints.
//!
//! ```text
//! table ip parfait {
//!   map services    { type ipv4_addr . inet_proto . inet_service : verdict }
//!   map endpoints_3 { type ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service }
//!   set cluster_ips { type ipv4_addr }
//!   set hairpin     { type ipv4_addr . ipv4_addr }
//!   set service_networks { type ipv4_addr; flags interval }
//!   chain services-prerouting  { type nat hook prerouting priority dstnat; … vmap @services }
//!   chain services-output      { type nat hook output priority -100;       … vmap @services }
//!   chain n3                   { dnat to … numgen random mod 3 map @endpoints_3 }
//!   chain refuse-forward       { type filter hook forward priority filter; ip daddr @cluster_ips reject
//!                                ip daddr @service_networks oifname != "lo" reject }
//!   chain refuse-output        { type filter hook output priority filter;  … as in refuse-forward }
//!   chain hairpin              { type nat hook postrouting priority srcnat - 1; … @hairpin masquerade }
//! }
//! ```
//!
//! And only on nodes where pods have host ports, see `host_ports.rs`:
//!
//! ```text
//!   map host_ports    { type inet_proto . inet_service : ipv4_addr . inet_service }
//!   map host_ports_at { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service }
//!   set served        { type ipv4_addr }
//!   chain services-prerouting, services-output { … fib daddr type local goto own-addresses }
//!   chain own-addresses        { ip daddr @served return;  dnat to … map @host_ports_at;  dnat to … map @host_ports }
//!   chain hairpin              { … ct status dnat ip saddr 127.0.0.0/8 masquerade }
//!   chain loopback-guard       { type filter hook prerouting priority mangle;
//!                                ip daddr 127.0.0.0/8 iifname != "lo" ct direction original drop }
//! ```

use std::collections::BTreeMap;

use parfait_linux::nft::{
    BaseChain, Chain, ChainType, Data, DataType, Element, Family as TableFamily, Field, Hook, Key,
    Operand, Policy, RejectWith, Rule, Set, Statement, Table, Value, Verdict,
};
use parfait_packet::{Family, Origin};

use crate::host_ports::{self, HostPorts, OWN_ADDRESSES};
use crate::{Frontend, Plan, Virtual};

/// The name of Parfait's tables, which all layers share.
const TABLE: &str = "parfait";

/// The key that all Service maps begin with.
const FRONTEND: [Field; 3] = [Field::Daddr, Field::L4Proto, Field::Dport];

/// The tables that a node must hold for this plan: one of each family.
#[must_use]
pub fn apply(plan: &Plan, node: &str) -> Vec<Table> {
    Family::ALL
        .into_iter()
        .map(|family| table(plan, node, family))
        .collect()
}

fn table(plan: &Plan, node: &str, family: Family) -> Table {
    let of_family = |frontend: &Frontend| Family::of(frontend.address) == family;
    let frontends = plan
        .frontends
        .iter()
        .filter(|(frontend, _)| of_family(frontend));
    let mut sets = BTreeMap::from([
        ("services".to_owned(), services(frontends.clone())),
        ("hairpin".to_owned(), hairpin(frontends.clone(), node)),
        ("cluster_ips".to_owned(), cluster_ips(plan, family)),
        (
            "service_networks".to_owned(),
            service_networks(plan, family),
        ),
    ]);
    let mut chains = base_chains();
    for (frontend, behind) in frontends {
        let count = behind.backends.len();
        if count == 0 {
            continue;
        }
        let map = sets
            .entry(format!("endpoints_{count}"))
            .or_insert_with(|| endpoints(count));
        map.elements.extend(endpoint_elements(frontend, behind));
        chains
            .entry(format!("n{count}"))
            .or_insert_with(|| choice(count));
    }
    let ports = plan.host_ports_of(node);
    if ports.keys().any(|wish| wish.family == family) {
        add_host_ports(plan, ports, family, &mut sets, &mut chains);
    }
    let family = match family {
        Family::Ipv4 => TableFamily::Ip,
        Family::Ipv6 => TableFamily::Ip6,
    };
    Table {
        sets,
        chains,
        ..Table::new(family, TABLE)
    }
}

fn add_host_ports(
    plan: &Plan,
    ports: &HostPorts,
    family: Family,
    sets: &mut BTreeMap<String, Set>,
    chains: &mut BTreeMap<String, Chain>,
) {
    sets.extend(host_ports::maps(ports, family));
    sets.insert("served".to_owned(), served(plan, family));
    if let Some(hairpin) = sets.get_mut("hairpin") {
        let targets = ports.iter().filter(|(wish, _)| wish.family == family);
        for (_, target) in targets {
            let own = Value::Address(target.address);
            let own = hairpin.elements.entry(vec![own.clone(), own]);
            own.or_insert_with(|| element(Data::None, &target.origin));
        }
    }
    chains.insert(OWN_ADDRESSES.to_owned(), host_ports::own_addresses(family));
    let mut more = |chain: &str, rule| {
        if let Some(chain) = chains.get_mut(chain) {
            chain.rules.push(rule);
        }
    };
    more("services-prerouting", host_ports::look_up());
    more("services-output", host_ports::look_up());
    if family == Family::Ipv4 {
        more("hairpin", host_ports::leave_the_loopback());
        let guard = Chain {
            hook: base(ChainType::Filter, Hook::Prerouting, -150),
            rules: vec![host_ports::guard_the_loopback()],
        };
        chains.insert("loopback-guard".to_owned(), guard);
    }
}

/// `set served`: what the node's agent answers itself.
fn served(plan: &Plan, family: Family) -> Set {
    let mut set = Set::new([Field::Daddr], DataType::None);
    let addresses = plan.served.iter();
    for address in addresses.filter(|address| Family::of(**address) == family) {
        let origin = Origin::parfait("cluster DNS");
        set.elements
            .insert(vec![Value::Address(*address)], element(Data::None, &origin));
    }
    set
}

/// `map services`: a virtual address and port to the chain for its number of endpoints.
fn services<'a>(frontends: impl Iterator<Item = (&'a Frontend, &'a Virtual)>) -> Set {
    let elements = frontends
        .filter(|(_, behind)| !behind.backends.is_empty())
        .map(|(frontend, behind)| {
            let verdict = Verdict::Goto(format!("n{}", behind.backends.len()));
            (
                key(frontend),
                element(Data::Verdict(verdict), &behind.origin),
            )
        });
    Set {
        elements: elements.collect(),
        ..Set::new(FRONTEND, DataType::Verdict)
    }
}

/// `map endpoints_N`: a virtual address, port and number below N to an endpoint.
fn endpoints(count: usize) -> Set {
    Set::new(numbered(count), DataType::Target)
}

fn endpoint_elements(frontend: &Frontend, behind: &Virtual) -> Vec<(Key, Element)> {
    let numbered = (0u32..).zip(&behind.backends);
    numbered
        .map(|(number, backend)| {
            let mut key = key(frontend);
            key.push(Value::Number(number));
            let data = Data::Target(backend.address, backend.port);
            (key, element(data, &backend.origin))
        })
        .collect()
}

/// `set hairpin`: pods of this node that can reach themselves through a Service. The packet must
/// leave the node's side with another source, or the pod would answer itself directly and the
/// reply would not be translated back.
fn hairpin<'a>(frontends: impl Iterator<Item = (&'a Frontend, &'a Virtual)>, node: &str) -> Set {
    let mut elements = BTreeMap::new();
    for backend in frontends.flat_map(|(_, behind)| &behind.backends) {
        if backend.node.as_deref() == Some(node) {
            let own = Value::Address(backend.address);
            elements
                .entry(vec![own.clone(), own])
                .or_insert_with(|| element(Data::None, &backend.origin));
        }
    }
    Set {
        elements,
        ..Set::new([Field::Saddr, Field::Daddr], DataType::None)
    }
}

/// `set cluster_ips`: every virtual address. What arrives there untranslated has no endpoint to go to.
fn cluster_ips(plan: &Plan, family: Family) -> Set {
    let addresses = plan
        .addresses
        .iter()
        .filter(|(address, _)| Family::of(**address) == family);
    Set {
        elements: addresses
            .map(|(address, origin)| (vec![Value::Address(*address)], element(Data::None, origin)))
            .collect(),
        ..Set::new([Field::Daddr], DataType::None)
    }
}

/// `set service_networks`: where Services have their addresses. What arrives there untranslated and is
/// not the node's own, as cluster DNS is, must not leave by the default route.
fn service_networks(plan: &Plan, family: Family) -> Set {
    let networks = plan
        .networks
        .iter()
        .filter(|(network, _)| Family::of(network.addr()) == family);
    Set {
        interval: true,
        elements: networks
            .map(|(network, origin)| (vec![Value::Prefix(*network)], element(Data::None, origin)))
            .collect(),
        ..Set::new([Field::Daddr], DataType::None)
    }
}

fn base_chains() -> BTreeMap<String, Chain> {
    let nat = |hook, priority| base(ChainType::Nat, hook, priority);
    let filter = |hook| base(ChainType::Filter, hook, 0);
    let dispatch = |hook| Chain {
        hook: nat(hook, -100),
        rules: vec![look_up_service()],
    };
    let refuse = |hook| Chain {
        hook: filter(hook),
        rules: refuse_rules(),
    };
    let hairpin = Chain {
        hook: nat(Hook::Postrouting, 99),
        rules: vec![masquerade_hairpin()],
    };
    [
        ("services-prerouting", dispatch(Hook::Prerouting)),
        ("services-output", dispatch(Hook::Output)),
        ("refuse-forward", refuse(Hook::Forward)),
        ("refuse-output", refuse(Hook::Output)),
        ("hairpin", hairpin),
    ]
    .map(|(name, chain)| (name.to_owned(), chain))
    .into()
}

#[allow(clippy::unnecessary_wraps, reason = "the shape of Chain::hook")]
fn base(kind: ChainType, hook: Hook, priority: i32) -> Option<BaseChain> {
    let policy = Policy::Accept;
    Some(BaseChain {
        kind,
        hook,
        priority,
        policy,
    })
}

/// `ip daddr . meta l4proto . th dport vmap @services`
fn look_up_service() -> Rule {
    rule(
        vec![Statement::Vmap {
            fields: FRONTEND.to_vec(),
            map: "services".to_owned(),
        }],
        "Services",
    )
}

/// `dnat to ip daddr . meta l4proto . th dport . numgen random mod N map @endpoints_N`
fn choice(count: usize) -> Chain {
    let dnat = Statement::DnatMap {
        fields: numbered(count),
        map: format!("endpoints_{count}"),
    };
    Chain {
        hook: None,
        rules: vec![rule(vec![dnat], "Services")],
    }
}

/// At once, not a time-out:
///
/// ```text
/// ct state new ip daddr @cluster_ips reject                        (a Service without endpoints, or such a port)
/// ct state new ip daddr @service_networks oifname != "lo" reject   (no Service)
/// ```
fn refuse_rules() -> Vec<Rule> {
    let to = |set: &str| Statement::Match {
        fields: vec![Field::Daddr],
        negated: false,
        operand: Operand::Set(set.to_owned()),
    };
    let not_the_nodes_own = Statement::Match {
        fields: vec![Field::Oifname],
        negated: true,
        operand: Operand::Values(vec![Value::Ifname("lo".to_owned())]),
    };
    let without_endpoints = refuse(vec![to("cluster_ips")], "Services without endpoints");
    let no_service = refuse(
        vec![to("service_networks"), not_the_nodes_own],
        "addresses without a Service",
    );
    without_endpoints.into_iter().chain(no_service).collect()
}

/// `ct state new … meta l4proto tcp reject with tcp reset`, and for the others `ct state new … reject`.
fn refuse(matches: Vec<Statement>, part: &str) -> [Rule; 2] {
    let new = Statement::Match {
        fields: vec![Field::CtState],
        negated: false,
        operand: Operand::Bits(8),
    };
    let tcp = Statement::Match {
        fields: vec![Field::L4Proto],
        negated: false,
        operand: Operand::Values(vec![Value::Protocol(6)]),
    };
    let reset = Statement::Reject(RejectWith::TcpReset);
    let unreachable = Statement::Reject(RejectWith::PortUnreachable);
    [vec![tcp, reset], vec![unreachable]].map(|end| {
        let start = [new.clone()].into_iter().chain(matches.clone());
        rule(start.chain(end).collect(), part)
    })
}

/// `ct status dnat ip saddr . ip daddr @hairpin masquerade`
fn masquerade_hairpin() -> Rule {
    let translated = Statement::Match {
        fields: vec![Field::CtStatus],
        negated: false,
        operand: Operand::Bits(32),
    };
    let own = Statement::Match {
        fields: vec![Field::Saddr, Field::Daddr],
        negated: false,
        operand: Operand::Set("hairpin".to_owned()),
    };
    let masquerade = Statement::Masquerade {
        fully_random: false,
    };
    rule(vec![translated, own, masquerade], "hairpin")
}

fn rule(statements: Vec<Statement>, part: &str) -> Rule {
    Rule {
        statements,
        origin: Some(Origin::parfait(part)),
    }
}

fn numbered(count: usize) -> Vec<Field> {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    let mut fields = FRONTEND.to_vec();
    fields.push(Field::NumgenRandom(count));
    fields
}

fn key(frontend: &Frontend) -> Key {
    let family = Family::of(frontend.address);
    vec![
        Value::Address(frontend.address),
        Value::Protocol(frontend.protocol.number(family)),
        Value::Port(frontend.port),
    ]
}

fn element(data: Data, origin: &Origin) -> Element {
    Element {
        data,
        origin: Some(origin.clone()),
    }
}
