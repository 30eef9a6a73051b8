//! The plan as addresses, routes, sysctls and nf_tables.
//!
//! ```text
//! table ip parfait {
//!   set own_pods      { type ipv4_addr; flags interval; elements = { 10.244.1.0/24 } }
//!   set pod_networks  { type ipv4_addr; flags interval; elements = { 10.244.0.0/16 } }
//!   set unmasqueraded { type ipv4_addr; flags interval; elements = { 10.244.0.0/16, 192.168.77.12 } }
//!   chain source_nat { type nat hook postrouting priority srcnat;
//!     ip saddr @own_pods ip daddr != @unmasqueraded masquerade fully-random
//!     meta oifname "pf-vxlan" ip saddr != @pod_networks masquerade fully-random }
//! }
//! ```
//!
//! What a new pod may do is in `isolation.rs`, chosen source addresses are in `egress.rs`, what the tunnel's own packets
//! are spared is in `untracked.rs`.

use std::collections::BTreeMap;

use ipnet::IpNet;
use parfait_cluster::Announcement;
use parfait_linux::nft::{
    BaseChain, Chain, ChainType, Data, DataType, Element, Family as TableFamily, Field, Hook,
    Operand, Policy, Rule, Set, Statement, Table, Value,
};
use parfait_linux::{Address, IfName, Route, RouteProtocol, Scope, State};
use parfait_packet::{Family, Origin};

use crate::egress;
use crate::isolation::{CHAIN, KNOWN, isolation};
use crate::refuse;
use crate::settings::settings;
use crate::untracked;
use crate::{Announcing, Plan};

/// The chain that gives packets another source. Not `masquerade`, a word of nft's language: `nft -f` would not read
/// back what `nft list ruleset` prints.
pub const SOURCE_NAT: &str = "source_nat";

/// What the node's kernel must hold.
#[must_use]
pub fn apply(plan: &Plan) -> State {
    let mut state = State::default();
    for (setting, origin) in settings(plan) {
        state.insert(setting, origin);
    }
    for family in Family::ALL {
        state.insert_table(table(plan, family));
    }
    if let Some((device, addresses)) = &plan.tunnel {
        for (address, origin) in addresses {
            state.insert(
                Address::new(device.clone(), IpNet::from(*address)),
                origin.clone(),
            );
        }
    }
    for served in &plan.served {
        let mut address = Address::new(IfName::loopback(), IpNet::from(served.address));
        // Or the kernel would choose it as a source for interfaces without an address.
        address.scope = Scope::Host;
        // So that it goes when the Service does: the loopback and its other addresses are not ours.
        address.protocol = Some(RouteProtocol::PARFAIT);
        state.insert(address, served.origin.clone());
    }
    announced(plan, &mut state);
    routes(plan, &mut state);
    state
}

/// Addresses of load balancers: for ARP and NDP on the underlay's interface, where no sender takes them as its own;
/// for a routing daemon as a route, since the node's own packets must find one before they are translated.
///
/// ```text
/// inet 192.168.77.200/32 scope host proto 0x70 eth0
/// 192.0.2.1 dev eth0 proto 112 scope link
/// ```
fn announced(plan: &Plan, state: &mut State) {
    for announcing in &plan.announcing {
        let origin = announcing.origin.clone();
        match announcing.announcement {
            Announcement::Neighbor => state.insert(on_link(announcing), origin),
            Announcement::Bgp => {
                let (alone, link) = (announcing.address.into(), announcing.interface.clone());
                state.insert(Route::direct(alone, link), origin);
            }
            Announcement::None => {}
        }
    }
}

/// For how long the kernel keeps a load balancer's address of which it hears no more. Whole seconds are all it counts.
const LENT: u32 = 2;

/// A load balancer's address on the interface to the segment.
#[must_use]
pub fn on_link(announcing: &Announcing) -> Address {
    Address {
        scope: Scope::Host,
        protocol: Some(RouteProtocol::PARFAIT),
        lent: Some(LENT),
        ..Address::new(announcing.interface.clone(), announcing.address.into())
    }
}

/// ```text
/// unreachable 10.244.0.0/16 proto 112
/// unreachable 10.244.1.0/24 proto 112
/// 10.244.1.2 dev pf3f29… proto 113 scope link src 192.168.77.11   (made by the CNI plugin)
/// 10.244.2.0/24 via 192.168.77.12 dev eth0 proto 112              (direct)
/// 10.244.2.0/24 via 10.244.2.1 dev pf-vxlan proto 112 src 10.244.1.1 onlink  (vxlan)
/// 10.244.3.0/24 via 192.168.77.13 dev eth0 proto 112 mtu 1400     (its node's card takes less)
/// ```
fn routes(plan: &Plan, state: &mut State) {
    for (cidr, origin) in plan.refused.iter().chain(&plan.own) {
        state.insert(Route::unreachable(*cidr), origin.clone());
    }
    for pod in &plan.pods {
        let mut route = Route::direct(IpNet::from(pod.address), pod.interface.clone());
        route.protocol = RouteProtocol::PARFAIT_CNI;
        route.source = pod.source;
        state.insert(route, pod.origin.clone());
    }
    for peer in &plan.peers {
        let mut route = Route::via(peer.destination.trunc(), peer.via, peer.interface.clone());
        route.source = peer.source;
        route.onlink = peer.onlink;
        route.mtu = peer.mtu;
        // Linux heeds no other for IPv6 that it forwards.
        route.mtu_lock = peer.mtu.is_some() && route.family() == Family::Ipv6;
        state.insert(route, peer.origin.clone());
    }
}

fn table(plan: &Plan, family: Family) -> Table {
    let own = plan.own.iter().map(|(cidr, origin)| (cidr, origin));
    let sets = BTreeMap::from([
        ("own_pods".to_owned(), prefixes(own, Field::Saddr, family)),
        (
            "pod_networks".to_owned(),
            prefixes(&plan.pod_networks, Field::Saddr, family),
        ),
        (
            "unmasqueraded".to_owned(),
            prefixes(&plan.unmasqueraded, Field::Daddr, family),
        ),
    ]);
    let hook = BaseChain {
        kind: ChainType::Nat,
        hook: Hook::Postrouting,
        priority: 100,
        policy: Policy::Accept,
    };
    let mut rules = vec![leaving_the_cluster()];
    if let Some((device, _)) = &plan.tunnel {
        rules.push(entering_the_tunnel(device));
    }
    let family_of_table = match family {
        Family::Ipv4 => TableFamily::Ip,
        Family::Ipv6 => TableFamily::Ip6,
    };
    let mut table = Table {
        sets,
        ..Table::new(family_of_table, "parfait")
    }
    .chain(SOURCE_NAT, Chain::base(hook, rules));
    if let Some(known) = &plan.known_pods {
        let (known, isolated) = isolation(known, plan.underlays.keys().chain(&plan.cards), family);
        table = table.set(KNOWN, known).chain(CHAIN, isolated);
    }
    let table = refuse::add(&plan.announcing, family, table);
    let table = untracked::add(plan.tunnel_end.as_ref(), family, table);
    egress::add(&plan.sources, family, table)
}

/// `ip saddr @own_pods ip daddr != @unmasqueraded masquerade fully-random`: nobody outside the
/// cluster knows the way back to a pod.
fn leaving_the_cluster() -> Rule {
    Rule {
        statements: vec![
            in_set(Field::Saddr, false, "own_pods"),
            in_set(Field::Daddr, true, "unmasqueraded"),
            Statement::Masquerade { fully_random: true },
        ],
        origin: Some(Origin::parfait("masquerade")),
    }
}

/// `meta oifname "pf-vxlan" ip saddr != @pod_networks masquerade fully-random`: the reply to a node
/// must come back through the tunnel, as the underlay does not know pod addresses.
fn entering_the_tunnel(device: &IfName) -> Rule {
    Rule {
        statements: vec![
            Statement::Match {
                fields: vec![Field::Oifname],
                negated: false,
                operand: Operand::Values(vec![Value::Ifname(device.to_string())]),
            },
            in_set(Field::Saddr, true, "pod_networks"),
            Statement::Masquerade { fully_random: true },
        ],
        origin: Some(Origin::parfait("tunnel masquerade")),
    }
}

fn in_set(field: Field, negated: bool, set: &str) -> Statement {
    Statement::Match {
        fields: vec![field],
        negated,
        operand: Operand::Set(set.to_owned()),
    }
}

pub(crate) fn prefixes<'a>(
    networks: impl IntoIterator<Item = (&'a IpNet, &'a Origin)>,
    field: Field,
    family: Family,
) -> Set {
    let of_family = networks
        .into_iter()
        .filter(|(net, _)| Family::of(net.addr()) == family);
    let elements = of_family.map(|(net, origin)| {
        let element = Element {
            data: Data::None,
            origin: Some(origin.clone()),
        };
        (vec![Value::prefix(*net)], element)
    });
    Set {
        interval: true,
        elements: elements.collect(),
        ..Set::new([field], DataType::None)
    }
}
