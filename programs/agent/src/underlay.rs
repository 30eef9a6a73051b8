//! What only this machine knows of its underlay: which interface leads to the other nodes, and what is on it.
//!
//! ```text
//!   Node 192.168.77.11 fd00:77::11         eth0  10.1.0.5/24                  not the Node's: left alone
//!                                          eth1  192.168.77.11/24 …           carries its IPv4 address
//!                                          eth2  fd00:77::11/64               carries its IPv6 address
//! ```
//!
//! The interface is the one that carries the Node's address of a family, whatever its name and place in the
//! list; each family may have its own. The annotation [`Node::UNDERLAY_INTERFACE`] names another one, which need
//! not carry an address that the Node lists: then its first address of each family is where the others send.

use std::net::IpAddr;

use ipnet::IpNet;
use parfait_cluster::{Config, Node, Snapshot, Underlay};
use parfait_linux::{IfName, RouteKind, RouteProtocol, State, SysctlKey};
use parfait_packet::Family;

/// What the machine knows; `None` if no interface has an address that the Node lists, or the chosen one has none
/// that is up.
#[must_use]
pub fn underlay(snapshot: &Snapshot, node: &Node, state: &State) -> Option<Underlay> {
    let mut found: Vec<Underlay> = Vec::new();
    for (link, address) in addresses(node, state) {
        match found.iter_mut().find(|one| one.interface == link.as_str()) {
            Some(one) => one.addresses.push(address),
            None => found.push(interface(&link, address, state)?),
        }
    }
    let mut underlay = None;
    for mut one in found.into_iter().rev() {
        one.other = underlay.take().map(Box::new);
        underlay = Some(one);
    }
    let mut underlay = underlay?;
    underlay.egress = egress(&snapshot.config, state);
    underlay.unlearned = parfait_internet::unlearned(snapshot, &node.name, state);
    Some(underlay)
}

/// The setting that says whether the kernel listens to routers on the first interface.
#[must_use]
pub fn listens(node: &Node, state: &State) -> Option<SysctlKey> {
    let (link, _) = addresses(node, state).into_iter().next()?;
    Some(accept_ra(&link))
}

/// The addresses at which other nodes reach this one, in the Node's order, and the interfaces that carry them.
fn addresses(node: &Node, state: &State) -> Vec<(IfName, IpNet)> {
    if let Some(chosen) = &node.underlay_interface {
        let first = |family: &Family| {
            Some((
                IfName::new(chosen).ok()?,
                first(chosen, *family, node, state)?,
            ))
        };
        return Family::ALL.iter().filter_map(first).collect();
    }
    let mut found: Vec<(IfName, IpNet)> = Vec::new();
    for address in &node.addresses {
        let carries = state.addresses.values().map(|item| &item.value);
        let carries = carries.filter(|a| {
            a.address.addr() == *address
                && a.link != IfName::loopback()
                && state.links.get(&a.link).is_some_and(|link| link.value.up)
        });
        // Where two interfaces have it, the one whose prefix reaches others; then the one already known.
        let best = carries.max_by_key(|a| {
            let known = found.iter().any(|(link, _)| *link == a.link);
            (known, std::cmp::Reverse(a.address.prefix_len()))
        });
        if let Some(best) = best {
            found.push((best.link.clone(), best.address));
        }
    }
    // At most one more interface, that of the other family: a third would be a second way for one of them.
    let first_of = |family: Family| {
        let mut of_family = found
            .iter()
            .filter(|(_, net)| Family::of(net.addr()) == family);
        of_family.next().map(|(link, _)| link.clone())
    };
    let kept = Family::ALL.map(first_of);
    found.retain(|(link, _)| kept.contains(&Some(link.clone())));
    found
}

/// The address of a family that an interface gives to packets which choose none: the Node's own if it has
/// that, else the first that was assigned to it (`primary` in ip-address(8)).
fn first(interface: &str, family: Family, node: &Node, state: &State) -> Option<IpNet> {
    let up = |link: &IfName| state.links.get(link).is_some_and(|link| link.value.up);
    let here = state
        .addresses
        .values()
        .map(|item| &item.value)
        .filter(|a| {
            let address = a.address.addr();
            let usable = !matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
            a.link.as_str() == interface && up(&a.link) && usable && Family::of(address) == family
        });
    let rank = |address: IpAddr| {
        let primary =
            state.routes.values().map(|item| &item.value).any(|route| {
                route.protocol == RouteProtocol::KERNEL && route.source == Some(address)
            });
        (!node.addresses.contains(&address), !primary)
    };
    here.map(|a| a.address).min_by_key(|net| rank(net.addr()))
}

fn interface(link: &IfName, address: IpNet, state: &State) -> Option<Underlay> {
    let gateways = state.routes.values().filter_map(|item| {
        let route = &item.value;
        let default = route.destination.prefix_len() == 0 && route.kind == RouteKind::Unicast;
        route
            .via
            .filter(|_| default && route.link.as_ref() == Some(link))
    });
    Some(Underlay {
        interface: link.to_string(),
        mtu: state.links.get(link)?.value.mtu.bytes(),
        addresses: vec![address],
        gateways: gateways.collect(),
        other: None,
        unlearned: Vec::new(),
        advertised: advertised(link, state),
        egress: Vec::new(),
    })
}

/// Whether the kernel itself took the default IPv6 route from a router's advertisement, and still listens.
fn advertised(link: &IfName, state: &State) -> bool {
    let listens = state.sysctls.get(&accept_ra(link));
    let routes = state.routes.values().map(|item| &item.value);
    let mut told = routes
        .filter(|route| route.protocol == RouteProtocol::RA && route.link.as_ref() == Some(link));
    listens.is_some_and(|setting| ["1", "2"].contains(&setting.value.value.as_str()))
        && told.any(|route| route.destination.prefix_len() == 0)
}

fn accept_ra(link: &IfName) -> SysctlKey {
    SysctlKey::conf(Family::Ipv6, link, "accept_ra")
}

/// The configured egress addresses that this machine has.
fn egress(config: &Config, state: &State) -> Vec<IpAddr> {
    let mut here = Vec::new();
    for address in config.egress.addresses.iter().flat_map(|e| &e.addresses) {
        if !here.contains(address) && state.owner(*address).is_some() {
            here.push(*address);
        }
    }
    here
}
