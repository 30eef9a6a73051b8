//! [`State::route`]: which way a packet goes, decided as the kernel's forwarding information base
//! (FIB) decides.
//!
//! ```text
//!   is it mine? (127/8, ::1, any address of an up link) ──▶ Local
//!   longest prefix, then lowest metric ─┬─ refusing route ─▶ Refused
//!                                       └─ unicast ────────▶ Unicast: link, next hop, source
//!   nothing matches ──────────────────────────────────────▶ NoRoute
//! ```
//!
//! A planned state need not hold the routes that the kernel makes itself for the prefix of each
//! address: they are derived. Source addresses are chosen like the kernel does: the route's hint,
//! else for IPv4 the link's address that shares a prefix with the gateway, else its first (here: the
//! lowest, where the kernel takes the one added first), and for
//! IPv6 by RFC 6724 rules 1, 2, 3, 5, 6 and 8.
//!
//! An IPv4 link without an address borrows one: `lo`'s first, as the kernel does, then (here) by the
//! links' names, where the kernel goes by their numbers.
//!
//! Left out: multicast and broadcast, and policy rules.

use std::cmp::Reverse;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use parfait_packet::{Family, Origin};
use serde::Serialize;

use crate::nft::AddressType;
use crate::{Address, IfName, Item, Mtu, Route, RouteKind, RouteProtocol, Scope, State};

/// What the FIB says about a destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteDecision {
    /// It is this namespace's own.
    Local {
        /// The address; none for loopback addresses that no link lists.
        address: Option<Address>,
        /// What the address exists for.
        origin: Option<Origin>,
    },
    /// It goes out.
    Unicast(Unicast),
    /// A route refuses it.
    Refused {
        /// The route.
        route: Route,
        /// What the route exists for.
        origin: Option<Origin>,
    },
    /// No route matches: the network is unreachable.
    NoRoute,
}

/// The way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unicast {
    /// The route that matched.
    pub route: Route,
    /// What the route exists for.
    pub origin: Option<Origin>,
    /// The link it leaves by.
    pub link: IfName,
    /// Whose Ethernet address it is sent to: the gateway, or the destination itself.
    pub next_hop: IpAddr,
    /// The source address of packets that this machine sends itself; none if no link has any.
    pub source: Option<IpAddr>,
    /// The largest packet of this machine's own: the route's limit, else the link's, if the link is known.
    pub mtu: Option<Mtu>,
}

impl State {
    /// Which way a packet to `destination` goes.
    #[must_use]
    pub fn route(&self, destination: IpAddr) -> RouteDecision {
        if let Some(item) = self.owner(destination) {
            return RouteDecision::Local {
                address: Some(item.value.clone()),
                origin: item.origin.clone(),
            };
        }
        if destination.is_loopback() {
            return RouteDecision::Local {
                address: None,
                origin: None,
            };
        }
        let Some((route, origin)) = self.best(destination) else {
            return RouteDecision::NoRoute;
        };
        let Some(link) = route.link.clone().filter(|_| !route.kind.refuses()) else {
            return match route.kind {
                kind if kind.refuses() => RouteDecision::Refused { route, origin },
                _ => RouteDecision::NoRoute,
            };
        };
        let next_hop = route.via.unwrap_or(destination);
        let mtu = route
            .mtu
            .or_else(|| self.links.get(&link).map(|item| item.value.mtu));
        RouteDecision::Unicast(Unicast {
            source: route
                .source
                .or_else(|| self.select_source(&link, destination, route.via)),
            link,
            next_hop,
            mtu,
            route,
            origin,
        })
    }

    /// The largest packet of others that goes this way unchanged.
    #[must_use]
    pub fn mtu_of_forwarded(&self, way: &Unicast) -> Option<Mtu> {
        let unheeded = way.route.family() == Family::Ipv6 && !way.route.mtu_lock;
        match unheeded {
            true => self.links.get(&way.link).map(|item| item.value.mtu),
            false => way.mtu,
        }
    }

    /// What routing makes of an address (`fib … type` in nf_tables).
    #[must_use]
    pub fn address_type(&self, address: IpAddr) -> AddressType {
        if address.is_multicast() {
            return AddressType::Multicast;
        }
        match self.route(address) {
            RouteDecision::Local { .. } => AddressType::Local,
            RouteDecision::Unicast(_) => AddressType::Unicast,
            RouteDecision::Refused { .. } => AddressType::Unreachable,
            RouteDecision::NoRoute => AddressType::Unspec,
        }
    }

    /// The address entry that makes `address` this namespace's own.
    #[must_use]
    pub fn owner(&self, address: IpAddr) -> Option<&Item<Address>> {
        self.addresses
            .values()
            .find(|item| item.value.address.addr() == address && self.is_up(&item.value.link))
    }

    /// A link that is not listed counts as up, so that a part of a plan can be asked.
    fn is_up(&self, link: &IfName) -> bool {
        self.links.get(link).is_none_or(|item| item.value.up)
    }

    /// The route that wins: the longest prefix, then the lowest metric.
    fn best(&self, destination: IpAddr) -> Option<(Route, Option<Origin>)> {
        let stated = self
            .routes
            .values()
            .filter(|item| item.value.destination.contains(&destination))
            .map(|item| (item.value.clone(), item.origin.clone()));
        let derived = self
            .addresses
            .values()
            .filter(|item| item.value.address.contains(&destination))
            .filter_map(|item| self.connected(item));
        stated
            .chain(derived)
            .filter(|(route, _)| route.link.as_ref().is_none_or(|link| self.is_up(link)))
            .min_by_key(|(route, _)| (Reverse(route.destination.prefix_len()), route.metric))
    }

    /// The route that the kernel makes for an address's prefix, unless the state lists it.
    fn connected(&self, item: &Item<Address>) -> Option<(Route, Option<Origin>)> {
        let Address { link, address, .. } = &item.value;
        if address.prefix_len() == address.max_prefix_len() {
            return None;
        }
        let (metric, source) = match address {
            IpNet::V4(v4) => (0, Some(IpAddr::V4(v4.addr()))),
            IpNet::V6(_) => (256, None),
        };
        let route = Route {
            protocol: RouteProtocol::KERNEL,
            metric,
            source,
            ..Route::direct(*address, link.clone())
        };
        (!self.routes.contains_key(&route.key())).then(|| (route, item.origin.clone()))
    }

    /// The source address that masquerade takes for packets that leave by `link`: unlike routing, it
    /// also looks for the prefix of a destination that is on the link itself.
    #[must_use]
    pub fn source(&self, link: &IfName, destination: IpAddr, next_hop: IpAddr) -> Option<IpAddr> {
        self.select_source(link, destination, Some(next_hop))
    }

    /// The source address of what this machine sends where no route says otherwise.
    fn select_source(
        &self,
        link: &IfName,
        destination: IpAddr,
        via: Option<IpAddr>,
    ) -> Option<IpAddr> {
        let family = Family::of(destination);
        let candidates = self.addresses.values().map(|item| &item.value);
        let candidates = candidates.filter(|address| {
            Family::of(address.address.addr()) == family && self.is_up(&address.link)
        });
        let best = match destination {
            IpAddr::V4(_) => {
                // An address elsewhere must be valid everywhere, one of this link beyond the machine.
                let usable = |address: &&Address| match address.scope {
                    Scope::Global => true,
                    Scope::Host => false,
                    _ => address.link == *link,
                };
                candidates.filter(usable).min_by_key(|address| {
                    (
                        address.link != *link,
                        address.link == *link
                            && !via.is_some_and(|via| address.address.contains(&via)),
                        address.link != IfName::loopback(),
                    )
                })
            }
            IpAddr::V6(destination) => candidates
                .filter(|address| address.scope != Scope::Link || address.link == *link)
                .filter(|address| !address.address.addr().is_loopback())
                .max_by_key(|address| preference(address, link, destination)),
        };
        best.map(|address| address.address.addr())
    }
}

/// How much an IPv6 source address is preferred: RFC 6724 section 5, rules 2, 3, 5, 6 and 8.
fn preference(
    address: &Address,
    link: &IfName,
    destination: Ipv6Addr,
) -> (Reverse<u8>, bool, bool, bool, u32) {
    let IpNet::V6(net) = address.address else {
        return (Reverse(u8::MAX), false, false, false, 0);
    };
    let reach = |address: Ipv6Addr| u8::from(!address.is_unicast_link_local());
    // Rule 2: the smallest scope that reaches the destination; too small a one only as a last resort.
    let scope = match (reach(net.addr()), reach(destination)) {
        (source, target) if source < target => 2,
        (source, target) => source - target,
    };
    let common = (u128::from(net.addr()) ^ u128::from(destination)).leading_zeros();
    (
        Reverse(scope),
        // Rule 3: one whose preferred lifetime is over only as a last resort.
        address.scope != Scope::Host,
        address.link == *link,
        label(net.addr()) == label(destination),
        common.min(u32::from(net.prefix_len())),
    )
}

/// The label of an address in the default policy table (RFC 6724 section 2.1).
const fn label(address: Ipv6Addr) -> u8 {
    let segments = address.segments();
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 1] => 0,
        [0, 0, 0, 0, 0, 0xffff, _, _] => 4,
        [0x2002, ..] => 2,
        [0x2001, 0, ..] => 5,
        [first, ..] if first & 0xfe00 == 0xfc00 => 13,
        _ => 1,
    }
}

impl fmt::Display for RouteDecision {
    /// As the line that matched in `ip route`, or the error that `ip route get` gives.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local {
                address: Some(address),
                ..
            } => write!(f, "local {} dev {}", address.address.addr(), address.link),
            Self::Local { address: None, .. } => f.write_str("local dev lo"),
            Self::Unicast(way) => way.route.fmt(f),
            Self::Refused { route, .. } => route.fmt(f),
            Self::NoRoute => f.write_str("network is unreachable"),
        }
    }
}

impl RouteDecision {
    /// What it was decided by exists for this object.
    #[must_use]
    pub const fn origin(&self) -> Option<&Origin> {
        match self {
            Self::Local { origin, .. } | Self::Refused { origin, .. } => origin.as_ref(),
            Self::Unicast(way) => way.origin.as_ref(),
            Self::NoRoute => None,
        }
    }

    /// The kind of the route that decided, as `ip route get` prints it.
    #[must_use]
    pub const fn kind(&self) -> RouteKind {
        match self {
            Self::Local { .. } => RouteKind::Local,
            Self::Unicast(_) => RouteKind::Unicast,
            Self::Refused { route, .. } => route.kind,
            Self::NoRoute => RouteKind::Unreachable,
        }
    }
}
