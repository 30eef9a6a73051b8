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
use parfait_linux::attachment::is_named_alike;
use parfait_linux::{IfName, RouteKind, RouteProtocol, Scope, State, SysctlKey};
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
    underlay.config = snapshot.config_to_report(&node.name);
    underlay.egress = egress(&snapshot.config, state);
    underlay.node_ports = node_ports(snapshot, state);
    underlay.cards = cards(state);
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
        cards: Vec::new(),
        node_ports: Vec::new(),
        advertised: advertised(link, state),
        egress: Vec::new(),
        config: None,
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

/// The interfaces that other programs have called `pf…`.
fn cards(state: &State) -> Vec<String> {
    let names = state.links.keys().map(IfName::as_str);
    let cards = names.filter(|name| is_named_alike(name));
    cards.map(str::to_owned).collect()
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

/// The addresses that lie in `nodePortAddresses`, as kube-proxy has it (`NodePortAddresses.GetNodeIPs`); but not those that
/// are here for a Service.
fn node_ports(snapshot: &Snapshot, state: &State) -> Vec<IpAddr> {
    let ranges = &snapshot.config.node_port_addresses;
    let assigned = state.addresses.values().map(|item| &item.value);
    // A range such as `::/0` means neither what each link has for itself, nor loopbacks.
    let own =
        assigned.filter(|a| a.scope == Scope::Global && a.protocol != Some(RouteProtocol::PARFAIT));
    let chosen = own
        .map(|a| a.address.addr())
        .filter(|ip| ranges.iter().any(|range| range.contains(ip)));
    // Before Linux 5.18 nobody knows who assigned an address.
    let of_service = |ip: &IpAddr| {
        let mut services = snapshot.services.values();
        services.any(|s| s.cluster_ips.contains(ip) || s.outside.load_balancer_ips.contains(ip))
    };
    let mut chosen: Vec<IpAddr> = chosen.filter(|ip| !of_service(ip)).collect();
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use parfait_cluster::{Parsed, parse};
    use parfait_linux::{Address, Link, LinkKind, Mtu, Route};

    /// `eth0 10.1.0.5/24 192.168.77.50/24` a line: an interface and its addresses.
    fn machine(text: &str) -> State {
        let mut state = State::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let mut words = line.split_whitespace();
            let name = IfName::new(words.next().unwrap()).unwrap();
            let mut link = Link::new(name.clone(), LinkKind::Other("interface".to_owned()));
            link.mtu = Mtu::new(1400).unwrap();
            state.insert(link, None);
            for net in words {
                state.insert(Address::new(name.clone(), net.parse().unwrap()), None);
            }
        }
        state
    }

    fn node(addresses: &[&str], chosen: Option<&str>) -> Node {
        Node {
            name: "node-1".to_owned(),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            pod_cidrs: Vec::new(),
            ready: true,
            zone: None,
            network_unavailable: None,
            leaving: false,
            labels: [].into(),
            reported: [].into(),
            underlay_interface: chosen.map(str::to_owned),
            underlay: None,
        }
    }

    /// `eth1 192.168.77.11/24 | eth2 fd00:77::11/64`
    fn found(state: &State, node: &Node) -> Option<String> {
        let underlay = underlay(&Snapshot::default(), node, state)?;
        let one = |one: &Underlay| {
            let nets = one.addresses.iter().map(ToString::to_string);
            format!("{} {}", one.interface, nets.collect::<Vec<_>>().join(" "))
        };
        Some(
            underlay
                .interfaces()
                .map(one)
                .collect::<Vec<_>>()
                .join(" | "),
        )
    }

    const THREE: &str = "
        eth0 10.1.0.5/24 fd00:1::5/64
        eth1 192.168.77.50/24 192.168.77.11/24 fe80::1/64
        eth2 fd00:77::50/64 fd00:77::11/64 172.16.0.1/12";

    #[test]
    fn interfaces_that_others_have_called_like_pods_are_reported() {
        let state = machine(
            "eth0 192.168.77.11/24
             pf0hpf
             pf0vf1
             pf-vxlan
             pf2019a5a4401b",
        );
        let found = underlay(
            &Snapshot::default(),
            &node(&["192.168.77.11"], None),
            &state,
        );
        assert_eq!(found.unwrap().cards, ["pf0hpf", "pf0vf1"]);
    }

    #[test]
    fn node_ports_are_at_chosen_addresses_of_whatever_interface() {
        let mut state = machine(THREE);
        let lo = IfName::loopback();
        for net in ["127.0.0.1/8", "10.96.0.10/32"] {
            state.insert(Address::new(lo.clone(), net.parse().unwrap()), None);
        }
        let mut ours = Address::new(
            IfName::new("eth1").unwrap(),
            "172.16.0.9/32".parse().unwrap(),
        );
        ours.protocol = Some(RouteProtocol::PARFAIT);
        state.insert(ours, None);
        let service = serde_json::json!({
            "metadata": {"name": "kube-dns", "namespace": "kube-system"},
            "spec": {"clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"]},
        });
        let service = serde_json::from_value(service).unwrap();
        let yaml = |_: &str| Err(String::new());
        let (object, _) = parse(Parsed::Service(&service), &yaml);
        let mut snapshot = Snapshot::default();
        snapshot.insert(object.unwrap());
        let mut chosen = |ranges: &[&str]| {
            snapshot.config.node_port_addresses =
                ranges.iter().map(|r| r.parse().unwrap()).collect();
            let found = underlay(&snapshot, &node(&["192.168.77.11"], None), &state);
            let found = found.unwrap().node_ports.into_iter();
            found.map(|ip| ip.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(chosen(&[]), Vec::<String>::new());
        assert_eq!(chosen(&["172.16.0.0/12"]), ["172.16.0.1"]);
        assert_eq!(
            chosen(&["fd00:1::/64", "10.1.0.5/32"]),
            ["10.1.0.5", "fd00:1::5"]
        );
        let all = ["10.1.0.5", "172.16.0.1", "192.168.77.11", "192.168.77.50"];
        assert_eq!(chosen(&["0.0.0.0/0"]), all);
        assert_eq!(
            chosen(&["::/0"]),
            ["fd00:1::5", "fd00:77::11", "fd00:77::50"]
        );
    }

    #[test]
    fn the_interface_with_the_nodes_address_is_taken_whatever_its_name() {
        for (addresses, wanted) in [
            (&["192.168.77.11"][..], Some("eth1 192.168.77.11/24")),
            (&["fd00:77::11"], Some("eth2 fd00:77::11/64")),
            (
                &["192.168.77.11", "fd00:77::11"],
                Some("eth1 192.168.77.11/24 | eth2 fd00:77::11/64"),
            ),
            (
                &["fd00:77::11", "192.168.77.11"],
                Some("eth2 fd00:77::11/64 | eth1 192.168.77.11/24"),
            ),
            (
                &["203.0.113.9", "10.1.0.5", "fd00:1::5"],
                Some("eth0 10.1.0.5/24 fd00:1::5/64"),
            ),
            (&["203.0.113.9"], None),
        ] {
            let node = node(addresses, None);
            assert_eq!(
                found(&machine(THREE), &node).as_deref(),
                wanted,
                "{addresses:?}"
            );
        }
    }

    #[test]
    fn an_interface_can_be_chosen() {
        let own = ["192.168.77.11"];
        let eth2 = found(&machine(THREE), &node(&own, Some("eth2")));
        assert_eq!(eth2.as_deref(), Some("eth2 172.16.0.1/12 fd00:77::11/64"));
        let eth1 = found(&machine(THREE), &node(&own, Some("eth1")));
        assert_eq!(
            eth1.as_deref(),
            Some("eth1 192.168.77.11/24"),
            "the Node's own comes first"
        );
        assert_eq!(found(&machine(THREE), &node(&own, Some("eth9"))), None);
    }

    /// The kernel prefers the address that was assigned first as a source, and says so in the prefix's route.
    #[test]
    fn of_several_addresses_the_primary_one_is_taken() {
        let mut state = machine("eth3 10.9.0.1/24 10.9.0.2/24 10.9.0.3/24");
        let prefix = "10.9.0.0/24".parse().unwrap();
        let mut route = Route::direct(prefix, IfName::new("eth3").unwrap());
        route.protocol = RouteProtocol::KERNEL;
        route.source = Some("10.9.0.2".parse().unwrap());
        state.insert(route, None);
        let chosen = node(&["192.168.77.11"], Some("eth3"));
        assert_eq!(found(&state, &chosen).as_deref(), Some("eth3 10.9.0.2/24"));
    }

    #[test]
    fn what_no_daemon_has_brought_is_reported() {
        use parfait_cluster::Routing;
        let mut state = machine("eth0 192.168.77.11/24");
        let this = node(&["192.168.77.11"], None);
        let mut snapshot = Snapshot::default();
        snapshot.config.routing = Routing::Bgp;
        let mut peer = this.clone();
        peer.name = "node-2".to_owned();
        peer.pod_cidrs = vec!["10.244.2.0/24".parse().unwrap()];
        snapshot.nodes.insert(peer.name.clone(), peer);
        let unlearned = |state: &State| underlay(&snapshot, &this, state).unwrap().unlearned.len();
        let via = |net: &str, protocol| Route {
            protocol: RouteProtocol(protocol),
            ..Route::via(
                net.parse().unwrap(),
                "192.168.77.1".parse().unwrap(),
                IfName::new("eth0").unwrap(),
            )
        };
        state.insert(via("0.0.0.0/0", 3), None);
        assert_eq!(
            unlearned(&state),
            1,
            "a default route is none of a daemon's"
        );
        state.insert(via("10.244.0.0/16", 186), None);
        assert_eq!(unlearned(&state), 0, "a daemon may join several into one");
        state.insert(Route::unreachable("10.244.0.0/17".parse().unwrap()), None);
        assert_eq!(unlearned(&state), 1, "the agent's own refusal is narrower");
        state.insert(via("10.244.2.0/24", 12), None);
        assert_eq!(unlearned(&state), 0);
    }
}
