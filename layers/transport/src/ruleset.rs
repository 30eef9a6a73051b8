//! The parts of the ruleset that exist once: base chains, and the sets that no one Service fills.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use parfait_linux::nft::evaluate::ct_state;
use parfait_linux::nft::{
    BaseChain, Chain, ChainType, Data, DataType, Dynamic, Element, Family as TableFamily, Field,
    Hook, Key, NewPriority, Policy, RejectWith, Rule, Set, Statement, Table, Value, Verdict,
};
use parfait_packet::{Family, Origin, Protocol};

use crate::Plan;
use crate::host_ports::{self, OWN_ADDRESSES, Wish};
use crate::localhost;
use crate::plan::Common;

/// The name of Parfait's tables, which all layers share.
const TABLE: &str = "parfait";

/// What is done by a packet's priority, see [`look_up`]: the choices among endpoints are in all of them. They are three,
/// because the kernel takes no chain that its own look-up could lead to.
pub(crate) const CHOICES: [&str; 3] = ["service_choices", "restricted_choices", "local_choices"];
/// The priority of packets to load balancers that not everybody may use, which the chain `restricted` decides about.
pub(crate) const GOTO_RESTRICTED: u32 = 0xf_0001;
/// The priority of packets for which `externalTrafficPolicy: Local` makes a difference, by the chain `local`.
pub(crate) const GOTO_LOCAL: u32 = 0xf_0002;

/// The key that all Service maps begin with.
pub(crate) const FRONTEND: [Field; 3] = [Field::Daddr, Field::L4Proto, Field::Dport];

/// How many clients' endpoints are remembered (65,536 elements are about 10 MB of kernel memory).
const REMEMBERED: u32 = 65_536;

const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// The definition of a set that always exists.
pub(crate) fn definition(name: &str) -> Set {
    match name {
        "services" | "restricted_services" | "inside_services" | "outside_services" => {
            Set::new(FRONTEND, DataType::Priority)
        }
        _ if CHOICES.contains(&name) => Set::new([Field::Priority], DataType::Verdict),
        "source_ranges" => Set {
            interval: true,
            ..Set::new(
                [FRONTEND.as_slice(), &[Field::Saddr]].concat(),
                DataType::None,
            )
        },
        "refused" => Set::new(FRONTEND, DataType::None),
        "cluster_ips" | "outside_ips" | "node_addresses" | "node_sources" => {
            Set::new([Field::Daddr], DataType::None)
        }
        "hairpin" => Set::new([Field::Saddr, Field::Daddr], DataType::None),
        "affinity" => Set {
            dynamic: Some(Dynamic {
                size: REMEMBERED,
                // The API's default; each rule says its own.
                timeout: Some(Duration::from_secs(10_800)),
            }),
            ..Set::new(AFFINITY, DataType::Target)
        },
        "service_networks" | "service_clients" | "service_pods" => Set {
            interval: true,
            ..Set::new([Field::Daddr], DataType::None)
        },
        // node_ports_tcp and its kin
        _ => Set::new([Field::Dport], DataType::None),
    }
}

/// What a client keeps its endpoint for.
pub(crate) const AFFINITY: [Field; 4] = [Field::Saddr, Field::Daddr, Field::L4Proto, Field::Dport];

/// The sets that Services fill.
pub(crate) const FILLED: [&str; 14] = [
    "service_choices",
    "restricted_choices",
    "local_choices",
    "services",
    "restricted_services",
    "inside_services",
    "outside_services",
    "source_ranges",
    "refused",
    "cluster_ips",
    "outside_ips",
    "node_ports_tcp",
    "node_ports_udp",
    "node_ports_sctp",
];

/// The set of a protocol's node ports.
pub(crate) fn node_ports(protocol: Protocol) -> String {
    format!("node_ports_{protocol}")
}

/// What every node has, before the first Service.
pub(crate) fn base(plan: &Plan, family: Family) -> Table {
    let common = &plan.common;
    let mut sets: BTreeMap<String, Set> = FILLED
        .into_iter()
        .chain(["affinity"])
        .map(|name| (name.to_owned(), definition(name)))
        .collect();
    sets.extend(filled(common, family));
    let [services, restricted, _] = CHOICES;
    for (map, priority, chain) in [
        (services, GOTO_RESTRICTED, "restricted"),
        (services, GOTO_LOCAL, "local"),
        (restricted, GOTO_LOCAL, "local"),
    ] {
        let map = sets.get_mut(map).into_iter();
        map.for_each(|map| map.elements.extend([choice(priority, chain)]));
    }
    let mut table = Table {
        sets,
        chains: chains(),
        ..Table::new(table_family(family), TABLE)
    };
    if common.host_ports.keys().any(|wish| wish.family == family) {
        add_host_ports(&mut table, common, family);
    }
    let at_loopback = |wish: &Wish| wish.family == Family::Ipv4;
    let reached = common.host_ports.keys().any(at_loopback) || localhost::is_on(common);
    if family == Family::Ipv4 && reached {
        open_the_loopback(&mut table);
    }
    table
}

/// Only on nodes where pods have host ports, see `host_ports.rs`:
///
/// ```text
///   map host_ports    { type inet_proto . inet_service : ipv4_addr . inet_service }
///   map host_ports_at { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service }
///   set served        { type ipv4_addr }
///   chain services-prerouting, services-output { … fib daddr type local goto own-addresses }
///   chain own-addresses        { ip daddr @served return;  dnat to … map @host_ports_at;  dnat to … map @host_ports }
/// ```
fn add_host_ports(table: &mut Table, common: &Common, family: Family) {
    table
        .sets
        .extend(host_ports::maps(&common.host_ports, family));
    table
        .sets
        .insert("served".to_owned(), served(common, family));
    if let Some(hairpin) = table.sets.get_mut("hairpin") {
        let ports = common.host_ports.iter();
        for (_, target) in ports.filter(|(wish, _)| wish.family == family) {
            let own = Value::Address(target.address);
            let own = hairpin.elements.entry(vec![own.clone(), own]);
            own.or_insert_with(|| in_set(&target.origin));
        }
    }
    let own = host_ports::own_addresses(family);
    table.chains.insert(OWN_ADDRESSES.to_owned(), own);
    let mut more = |chain: &str, rule| {
        if let Some(chain) = table.chains.get_mut(chain) {
            chain.rules.push(rule);
        }
    };
    more("services-prerouting", host_ports::look_up());
    more("services-output", host_ports::look_up());
}

/// Where host ports or node ports are at 127.0.0.1:
///
/// ```text
///   chain services-postrouting { … ct status dnat ip saddr 127.0.0.0/8 masquerade }
///   chain loopback-guard       { type filter hook prerouting priority mangle;
///                                ip daddr 127.0.0.0/8 iifname != "lo" ct direction original drop }
/// ```
fn open_the_loopback(table: &mut Table) {
    if let Some(chain) = table.chains.get_mut("services-postrouting") {
        chain.rules.push(host_ports::leave_the_loopback());
    }
    let hook = hook(ChainType::Filter, Hook::Prerouting, -150);
    let guard = Chain::base(hook, [host_ports::guard_the_loopback()]);
    table.chains.insert("loopback-guard".to_owned(), guard);
}

/// `set served`: what the node's agent answers itself.
fn served(common: &Common, family: Family) -> Set {
    let origin = Origin::parfait("cluster DNS");
    let addresses = common.served.keys();
    let addresses = addresses.filter(|address| Family::of(**address) == family);
    Set {
        elements: addresses
            .map(|ip| (vec![Value::Address(*ip)], in_set(&origin)))
            .collect(),
        ..Set::new([Field::Daddr], DataType::None)
    }
}

pub(crate) fn table_family(family: Family) -> TableFamily {
    match family {
        Family::Ipv4 => TableFamily::Ip,
        Family::Ipv6 => TableFamily::Ip6,
    }
}

/// Those networks that lie in no other: the kernel takes no two intervals that overlap, and one that it refuses
/// would keep everything else from being done.
pub(crate) fn widest(networks: impl IntoIterator<Item = IpNet>) -> BTreeSet<IpNet> {
    let sorted: BTreeSet<IpNet> = networks.into_iter().map(|net| net.trunc()).collect();
    let mut widest: Vec<IpNet> = Vec::new();
    // A network sorts behind every one that it lies in.
    for net in sorted {
        if !widest.last().is_some_and(|last| last.contains(&net)) {
            widest.push(net);
        }
    }
    widest.into_iter().collect()
}

/// The sets that are filled whatever Services there are.
fn filled(common: &Common, family: Family) -> [(String, Set); 6] {
    let networks = |name: &str, networks: &BTreeMap<ipnet::IpNet, Origin>| {
        let networks = networks.iter();
        let of_family = networks.filter(|(net, _)| Family::of(net.addr()) == family);
        let widest = widest(of_family.clone().map(|(net, _)| *net));
        let of_family = of_family.filter(|(net, _)| widest.contains(net));
        let elements = of_family.map(|(net, origin)| (vec![Value::prefix(*net)], in_set(origin)));
        let set = Set {
            elements: elements.collect(),
            ..definition(name)
        };
        (name.to_owned(), set)
    };
    let pods = common.pods.iter();
    let pods = pods.filter(|(address, _)| Family::of(**address) == family);
    let twice = |ip: &IpAddr| vec![Value::Address(*ip), Value::Address(*ip)];
    let hairpin = Set {
        elements: pods
            .map(|(ip, origin)| (twice(ip), in_set(origin)))
            .collect(),
        ..definition("hairpin")
    };
    let here = Origin::parfait("node addresses");
    let addresses = |name: &str, all: &mut dyn Iterator<Item = &IpAddr>| {
        let of_family = all.filter(|address| Family::of(**address) == family);
        let elements = of_family.map(|ip| (vec![Value::Address(*ip)], in_set(&here)));
        let set = Set {
            elements: elements.collect(),
            ..definition(name)
        };
        (name.to_owned(), set)
    };
    [
        networks("service_networks", &common.networks),
        networks("service_clients", &common.inside),
        networks("service_pods", &common.own_pods),
        ("hairpin".to_owned(), hairpin),
        addresses("node_addresses", &mut common.node_addresses.iter()),
        addresses("node_sources", &mut common.own.iter()),
    ]
}

fn in_set(origin: &Origin) -> Element {
    Element {
        data: Data::None,
        origin: Some(origin.clone()),
    }
}

fn hook(kind: ChainType, hook: Hook, priority: i32) -> BaseChain {
    BaseChain {
        kind,
        hook,
        priority,
        policy: Policy::Accept,
    }
}

fn chains() -> BTreeMap<String, Chain> {
    let services = |at| Chain::base(hook(ChainType::Nat, at, -100), [look_up("services")]);
    let postrouting = hook(ChainType::Nat, Hook::Postrouting, 99);
    [
        ("services-prerouting", services(Hook::Prerouting)),
        ("services-output", services(Hook::Output)),
        ("restricted", Chain::regular(restricted())),
        ("local", Chain::regular(local())),
        ("refuse", Chain::regular(refuse())),
        (REFUSE_PORTS, Chain::regular(refuse_ports())),
        ("refusal", Chain::regular(refusal())),
        ("refuse-input", first_packets(Hook::Input, REFUSE_PORTS)),
        ("refuse-forward", forward()),
        ("strays", Chain::regular(strays())),
        ("refuse-output", first_packets(Hook::Output, "refuse")),
        (
            "services-postrouting",
            Chain::base(postrouting, masquerade()),
        ),
    ]
    .map(|(name, chain)| (name.to_owned(), chain))
    .into()
}

/// ```text
/// meta priority set ip daddr . meta l4proto . th dport map @services meta priority vmap @service_choices
/// ```
///
/// What a map gives and the next look-up takes must be written somewhere that nft(8) can name. The priority is read by
/// nobody in between, and [`forget`] ends it. A map of frontends that had verdicts itself would cost each change what
/// all Services cost: where such an element comes, the kernel walks all verdicts of the table (`nf_tables_validate`).
fn look_up(map: &str) -> Rule {
    rule(dispatch(map), "Services")
}

fn dispatch(map: &str) -> [Statement; 2] {
    let [services, restricted, local] = CHOICES;
    let choices = match map {
        "services" => services,
        "restricted_services" => restricted,
        _ => local,
    };
    let to = NewPriority::Map {
        fields: FRONTEND.to_vec(),
        map: map.to_owned(),
    };
    let choose = Statement::Vmap {
        fields: vec![Field::Priority],
        map: choices.to_owned(),
    };
    [Statement::SetPriority(to), choose]
}

/// `meta priority set none`: what the packet of a Service goes on with, as one that has just arrived has it.
pub(crate) fn forget() -> Statement {
    Statement::SetPriority(NewPriority::Number(0))
}

/// The element of one of [`CHOICES`] that leads from a priority to a chain.
pub(crate) fn choice(priority: u32, chain: &str) -> (Key, Element) {
    let verdict = Data::Verdict(Verdict::Goto(chain.to_owned()));
    let element = Element::new(verdict).origin(Origin::parfait("Services"));
    (vec![Value::Number(priority)], element)
}

/// Load balancers that not everybody may use:
///
/// ```text
/// ip daddr . meta l4proto . th dport . ip saddr != @source_ranges drop
/// … map @restricted_services …
/// ```
fn restricted() -> [Rule; 2] {
    let key = [FRONTEND.as_slice(), &[Field::Saddr]].concat();
    let others = Statement::not_in_set(key, "source_ranges");
    [
        rule(
            [others, Statement::Verdict(Verdict::Drop)],
            "loadBalancerSourceRanges",
        ),
        look_up("restricted_services"),
    ]
}

/// Where `externalTrafficPolicy: Local` makes a difference. Without an endpoint here, the packet is dropped, so that
/// load balancers without health checks look elsewhere, as everywhere:
///
/// ```text
/// ip saddr @service_clients … map @inside_services …
/// fib saddr type local … map @inside_services …
/// … map @outside_services …
/// drop
/// ```
fn local() -> [Rule; 4] {
    let inside = |from| {
        rule(
            [from].into_iter().chain(dispatch("inside_services")),
            "Services",
        )
    };
    [
        inside(Statement::in_set([Field::Saddr], "service_clients")),
        inside(Statement::is(Field::FibSaddrType, Value::Number(RTN_LOCAL))),
        look_up("outside_services"),
        rule(
            [Statement::Verdict(Verdict::Drop)],
            "externalTrafficPolicy: Local",
        ),
    ]
}

/// Of linux/rtnetlink.h.
const RTN_LOCAL: u32 = 2;

/// A segment that fits no connection (out of its window, say) is not translated back. The pod that gets it knows nobody
/// of that address, and its reset would end the connection that the segment came from (kubernetes/kubernetes#74839):
///
/// ```text
/// ip saddr @service_pods drop
/// ip daddr @service_pods drop
/// ```
///
/// Only this node's pods', of which it sees both directions: what takes two ways through a router is nobody's to drop
/// (kubernetes/kubernetes#94861, #117924).
fn strays() -> [Rule; 2] {
    [Field::Saddr, Field::Daddr].map(|side| {
        let pods = Statement::in_set([side], "service_pods");
        let drop = Statement::Verdict(Verdict::Drop);
        rule([pods, drop], "packets of no connection")
    })
}

/// What arrives at an address of a Service untranslated has no endpoint to go to, and is told so at once:
///
/// ```text
/// ip daddr @cluster_ips goto refusal                         (a Service without endpoints, or such a port)
/// ip daddr @service_networks oifname != "lo" goto refusal    (no Service)
/// goto refuse-ports: ip daddr . meta l4proto . th dport @refused goto refusal
///                                                            (another address of such a Service)
/// ```
fn refuse() -> [Rule; 3] {
    let not_the_nodes_own = Statement::is_not(Field::Oifname, Value::Ifname("lo".to_owned()));
    let own = Statement::in_set([Field::Daddr], "cluster_ips");
    let range = Statement::in_set([Field::Daddr], "service_networks");
    let ports = Statement::Verdict(Verdict::Goto(REFUSE_PORTS.to_owned()));
    [
        rule([own, go_to_refusal()], "Services without endpoints"),
        rule(
            [range, not_the_nodes_own, go_to_refusal()],
            "addresses without a Service",
        ),
        rule([ports], "Services without endpoints"),
    ]
}

/// The chain of [`refuse_ports`].
const REFUSE_PORTS: &str = "refuse-ports";

/// `ct state new goto CHAIN`: the packets of connections that are there cost one look.
fn first_packets(at: Hook, chain: &str) -> Chain {
    Chain::base(hook(ChainType::Filter, at, 0), [first_packet(chain)])
}

fn first_packet(chain: &str) -> Rule {
    let new = Statement::any_bit(Field::CtState, ct_state::NEW);
    let go = Statement::Verdict(Verdict::Goto(chain.to_owned()));
    rule([new, go], "Services without endpoints")
}

/// The packets of connections that are there cost two looks:
///
/// ```text
/// ct state new goto refuse
/// ct state invalid meta l4proto tcp goto strays
/// ```
fn forward() -> Chain {
    let invalid = Statement::any_bit(Field::CtState, ct_state::INVALID);
    let tcp = Statement::is(Field::L4Proto, Value::Protocol(6));
    let go = Statement::Verdict(Verdict::Goto("strays".to_owned()));
    let stray = rule([invalid, tcp, go], "packets of no connection");
    let hook = hook(ChainType::Filter, Hook::Forward, 0);
    Chain::base(hook, [first_packet("refuse"), stray])
}

fn refuse_ports() -> [Rule; 1] {
    let port = Statement::in_set(FRONTEND, "refused");
    [rule([port, go_to_refusal()], "Services without endpoints")]
}

fn go_to_refusal() -> Statement {
    Statement::Verdict(Verdict::Goto("refusal".to_owned()))
}

/// `meta l4proto tcp reject with tcp reset`, and for the others `reject`.
fn refusal() -> [Rule; 2] {
    let tcp = Statement::is(Field::L4Proto, Value::Protocol(6));
    let reset = Statement::Reject(RejectWith::TcpReset);
    let unreachable = Statement::Reject(RejectWith::PortUnreachable);
    [vec![tcp, reset], vec![unreachable]].map(|end| rule(end, "Services without endpoints"))
}

/// Replies must come back to the node that translated. They do by themselves if the client or the endpoint is here:
///
/// ```text
/// ct status dnat ip saddr . ip daddr @hairpin masquerade
/// ct status dnat ct original ip daddr @cluster_ips FROM-ELSEWHERE masquerade fully-random
/// ct status dnat ct original ip daddr @outside_ips FROM-ELSEWHERE masquerade fully-random
/// ct status dnat meta l4proto tcp ct original ip daddr @node_addresses
///     ct original proto-dst @node_ports_tcp FROM-ELSEWHERE masquerade fully-random        (and udp, sctp)
/// ```
///
/// where FROM-ELSEWHERE is `ip saddr != @service_pods fib saddr type != local ip daddr != @service_pods`.
///
/// What the node itself sends has the source that leads to the Service's address, which may be that of a card that no other
/// node knows (the first one of a virtual machine, with the same address on all):
///
/// ```text
/// ct status dnat ip saddr != @service_pods ip saddr != @node_sources fib saddr type local
///     ip daddr != @service_pods oifname != "lo" masquerade fully-random
/// ```
fn masquerade() -> Vec<Rule> {
    let translated = Statement::any_bit(Field::CtStatus, 32);
    let own = Statement::in_set([Field::Saddr, Field::Daddr], "hairpin");
    let hairpin = Statement::Masquerade {
        fully_random: false,
    };
    let mut rules = vec![rule([translated.clone(), own, hairpin], "hairpin")];
    let mut elsewhere = |to: Vec<Statement>, part: &str| {
        let from_elsewhere = [
            Statement::not_in_set([Field::Saddr], "service_pods"),
            Statement::is_not(Field::FibSaddrType, Value::Number(RTN_LOCAL)),
            Statement::not_in_set([Field::Daddr], "service_pods"),
            Statement::Masquerade { fully_random: true },
        ];
        let translated = [translated.clone()].into_iter();
        rules.push(rule(translated.chain(to).chain(from_elsewhere), part));
    };
    let original = |set: &str| Statement::in_set([Field::CtOriginalDaddr], set);
    elsewhere(vec![original("cluster_ips")], "clients outside the cluster");
    elsewhere(vec![original("outside_ips")], "clients of another node");
    for protocol in PROTOCOLS {
        let number = protocol.number(Family::Ipv4);
        let to = vec![
            Statement::is(Field::L4Proto, Value::Protocol(number)),
            original("node_addresses"),
            Statement::in_set([Field::CtOriginalDport], &node_ports(protocol)),
        ];
        elsewhere(to, "clients of another node");
    }
    let from_another_card = [
        translated,
        Statement::not_in_set([Field::Saddr], "service_pods"),
        Statement::not_in_set([Field::Saddr], "node_sources"),
        Statement::is(Field::FibSaddrType, Value::Number(RTN_LOCAL)),
        Statement::not_in_set([Field::Daddr], "service_pods"),
        Statement::is_not(Field::Oifname, Value::Ifname("lo".to_owned())),
        Statement::Masquerade { fully_random: true },
    ];
    rules.push(rule(from_another_card, "the node's other addresses"));
    rules
}

pub(crate) fn rule(statements: impl IntoIterator<Item = Statement>, part: &str) -> Rule {
    Rule::new(statements).origin(Origin::parfait(part))
}
