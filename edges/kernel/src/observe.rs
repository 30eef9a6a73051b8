//! What a network namespace holds, read over netlink into a [`State`].
//!
//! Left out: tables besides `main`, multicast and broadcast routes, neighbours that need no address
//! resolution (`NOARP`), proxy entries, and forwarding entries without an underlay address.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::address::{
    AddressAttribute, AddressMessage, AddressProtocol, AddressScope,
};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteScope,
    RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use parfait_linux::{
    Address, Alias, FdbEntry, IfName, Link, LinkKind, Mac, Mtu, Neighbour, Route, RouteKind,
    RouteProtocol, Scope, State, Sysctl, SysctlKey, Vni, Vxlan,
};
use parfait_packet::Origin;
use rustix::io::Errno;

use crate::message::MTU_LOCK;
use crate::{Error, Socket, sysctl};

/// Interface names by their numbers.
type Names = HashMap<u32, IfName>;

impl Socket {
    /// Everything that [`Kernel::observe`](crate::Kernel::observe) lists.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn observe(&mut self, sysctls: &[SysctlKey]) -> Result<State, Error> {
        let mut state = State::default();
        let names = self.observe_links(&mut state)?;
        self.observe_addresses(&names, &mut state)?;
        self.observe_routes(&names, &mut state)?;
        self.observe_neighbours(&names, &mut state)?;
        if state
            .links
            .values()
            .any(|item| matches!(item.value.kind, LinkKind::Vxlan(_)))
        {
            self.observe_fdb(&names, &mut state)?;
        }
        let values = self.inside(|| {
            let read = |key: &SysctlKey| Some(Sysctl::new(key.clone(), &sysctl::read(key).ok()?));
            sysctls.iter().filter_map(read).collect::<Vec<_>>()
        })?;
        for value in values {
            state.insert(value, None);
        }
        Ok(state)
    }

    /// Whether an address is this namespace's own, and can be sent from. One question, however many there are.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn is_own(&mut self, address: IpAddr) -> Result<bool, Error> {
        let route = self.route_to(address)?;
        Ok(route.is_some_and(|route| route.header.kind == RouteType::Local))
    }

    /// Who made the route to this very address, not to a range that it is in. One question, however
    /// many routes there are.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn host_route(&mut self, address: IpAddr) -> Result<Option<RouteProtocol>, Error> {
        let length = IpNet::from(address).prefix_len();
        let route = self.route_to(address)?;
        let exact = route.filter(|route| route.header.destination_prefix_length == length);
        Ok(exact.map(|route| RouteProtocol(route.header.protocol.into())))
    }

    /// The route that packets to an address take.
    fn route_to(&mut self, address: IpAddr) -> Result<Option<RouteMessage>, Error> {
        let mut question = RouteMessage::default();
        question.header.address_family = match address {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        question.header.destination_prefix_length = IpNet::from(address).prefix_len();
        question.header.flags = RouteFlags::FibMatch;
        let destination = RouteAttribute::Destination(address.into());
        question.attributes.push(destination);
        match self.ask("a route", RouteNetlinkMessage::GetRoute(question)) {
            // What routes that refuse answer (`fib_props` in net/ipv4/fib_semantics.c).
            Err(Error::Exchange {
                errno: Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::ACCESS | Errno::INVAL,
                ..
            }) => Ok(None),
            Ok(Some(RouteNetlinkMessage::NewRoute(route))) => Ok(Some(route)),
            found => found.map(|_| None),
        }
    }

    pub(crate) fn observe_links(&mut self, state: &mut State) -> Result<Names, Error> {
        let question = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let mut found = Vec::new();
        for message in self.dump("links", &question)? {
            if let RouteNetlinkMessage::NewLink(message) = message {
                found.push(message);
            }
        }
        let names: Names = found
            .iter()
            .filter_map(|message| Some((message.header.index, name_of(message)?)))
            .collect();
        for message in found {
            if let Some(link) = link(&message, &names) {
                let origin = link
                    .alias
                    .as_ref()
                    .and_then(|alias| Origin::parse(alias.as_str()));
                state.insert(link, origin);
            }
        }
        Ok(names)
    }

    pub(crate) fn observe_addresses(
        &mut self,
        names: &Names,
        state: &mut State,
    ) -> Result<(), Error> {
        let question = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        for message in self.dump("addresses", &question)? {
            if let RouteNetlinkMessage::NewAddress(message) = message
                && let Some(address) = address(&message, names)
            {
                state.insert(address, None);
            }
        }
        Ok(())
    }

    pub(crate) fn observe_routes(&mut self, names: &Names, state: &mut State) -> Result<(), Error> {
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut question = RouteMessage::default();
            question.header.address_family = family;
            for message in self.dump("routes", &RouteNetlinkMessage::GetRoute(question))? {
                if let RouteNetlinkMessage::NewRoute(message) = message
                    && let Some(route) = route(&message, names)
                {
                    state.insert(route, None);
                }
            }
        }
        Ok(())
    }

    pub(crate) fn observe_neighbours(
        &mut self,
        names: &Names,
        state: &mut State,
    ) -> Result<(), Error> {
        let question = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
        for message in self.dump("neighbours", &question)? {
            if let RouteNetlinkMessage::NewNeighbour(message) = message
                && let Some(neighbour) = neighbour(&message, names)
            {
                state.insert(neighbour, None);
            }
        }
        Ok(())
    }

    pub(crate) fn observe_fdb(&mut self, names: &Names, state: &mut State) -> Result<(), Error> {
        let mut question = NeighbourMessage::default();
        question.header.family = AddressFamily::Bridge;
        let question = RouteNetlinkMessage::GetNeighbour(question);
        for message in self.dump("forwarding entries", &question)? {
            if let RouteNetlinkMessage::NewNeighbour(message) = message
                && let Some(entry) = fdb(&message, names)
            {
                state.insert(entry, None);
            }
        }
        Ok(())
    }
}

fn name_of(message: &LinkMessage) -> Option<IfName> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => IfName::new(name).ok(),
            _ => None,
        })
}

fn mac(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok().map(Mac::new)
}

/// `None` for what has no valid name or MTU: no link of ours.
pub(crate) fn link(message: &LinkMessage, names: &Names) -> Option<Link> {
    let mut kind = "device".to_owned();
    let mut vxlan = None;
    let mut link = Link::new(name_of(message)?, LinkKind::Loopback);
    let mut other_end = None;
    let mut elsewhere = false;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Address(bytes) => link.mac = mac(bytes),
            // The loopback's and some tunnels' are larger than what a packet can be.
            LinkAttribute::Mtu(mtu) => link.mtu = Mtu::new((*mtu).min(65_536)).ok()?,
            LinkAttribute::IfAlias(alias) => link.alias = Some(Alias::new(alias)),
            LinkAttribute::Controller(index) => link.master = names.get(index).cloned(),
            LinkAttribute::Link(index) => other_end = names.get(index).cloned(),
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(InfoKind::Other(name)) => kind.clone_from(name),
                        LinkInfo::Kind(known) => kind = known.to_string(),
                        LinkInfo::Data(InfoData::Vxlan(options)) => vxlan = vxlan_of(options),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    link.up = message.header.flags.contains(LinkFlags::Up);
    // A link that is down has none either; that it is down says enough.
    link.carrier = !link.up || message.header.flags.contains(LinkFlags::LowerUp);
    link.kind = match (kind.as_str(), vxlan) {
        _ if message.header.flags.contains(LinkFlags::Loopback) => LinkKind::Loopback,
        ("veth", _) => LinkKind::Veth {
            peer: other_end.filter(|_| !elsewhere),
        },
        ("vxlan", Some(vxlan)) => LinkKind::Vxlan(vxlan),
        ("bridge", _) => LinkKind::Bridge,
        _ => LinkKind::Other(kind),
    };
    Some(link)
}

/// `None` for a VXLAN device without an identifier or local address, which is none of ours.
fn vxlan_of(options: &[InfoVxlan]) -> Option<Vxlan> {
    let mut vni = None;
    let mut local = None;
    let mut port = Vxlan::PORT;
    let mut learning = true;
    for option in options {
        match option {
            InfoVxlan::Id(number) => vni = Vni::new(*number).ok(),
            InfoVxlan::Local(address) => local = Some(IpAddr::V4(*address)),
            InfoVxlan::Local6(address) => local = Some(IpAddr::V6(*address)),
            InfoVxlan::Port(number) => port = *number,
            InfoVxlan::Learning(yes) => learning = *yes,
            _ => {}
        }
    }
    Some(Vxlan {
        vni: vni?,
        port,
        local: local?,
        learning,
    })
}

/// On a point-to-point link, `Address` is the other end's.
fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    let mut local = None;
    let mut remote = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => remote = Some(*address),
            _ => {}
        }
    }
    local.or(remote)
}

fn address(message: &AddressMessage, names: &Names) -> Option<Address> {
    let address = IpNet::new(own_address(message)?, message.header.prefix_len).ok()?;
    Some(Address {
        link: names.get(&message.header.index)?.clone(),
        address,
        scope: match message.header.scope {
            // What [`crate::message::address`] makes of an IPv6 address that is no source.
            AddressScope::Universe if address.addr().is_ipv6() && is_deprecated(message) => {
                Scope::Host
            }
            AddressScope::Universe => Scope::Global,
            AddressScope::Site => Scope::Site,
            AddressScope::Link => Scope::Link,
            AddressScope::Host => Scope::Host,
            _ => Scope::Nowhere,
        },
        protocol: message.attributes.iter().find_map(protocol),
        lent: None,
    })
}

/// Who assigned an address, unless that is the kernel itself.
fn protocol(attribute: &AddressAttribute) -> Option<RouteProtocol> {
    match attribute {
        AddressAttribute::Protocol(AddressProtocol::Other(number)) => Some(RouteProtocol(*number)),
        _ => None,
    }
}

fn is_deprecated(message: &AddressMessage) -> bool {
    message.attributes.iter().any(|attribute| match attribute {
        AddressAttribute::CacheInfo(lifetimes) => {
            lifetimes.ifa_preferred == 0 && lifetimes.ifa_valid != 0
        }
        _ => false,
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

fn route_kind(kind: RouteType) -> Option<RouteKind> {
    Some(match kind {
        RouteType::Unicast => RouteKind::Unicast,
        RouteType::Local => RouteKind::Local,
        RouteType::Unreachable => RouteKind::Unreachable,
        RouteType::BlackHole => RouteKind::Blackhole,
        RouteType::Prohibit => RouteKind::Prohibit,
        _ => return None,
    })
}

fn route(message: &RouteMessage, names: &Names) -> Option<Route> {
    let header = &message.header;
    let cached = header.flags.contains(RouteFlags::Cloned);
    if header.table != RouteHeader::RT_TABLE_MAIN || header.tos != 0 || cached {
        return None;
    }
    let any = match header.address_family {
        AddressFamily::Inet => IpAddr::from([0; 4]),
        _ => IpAddr::from([0; 16]),
    };
    let mut destination = any;
    let mut route = Route::unreachable(IpNet::new(any, 0).ok()?);
    route.metric = 0;
    route.kind = route_kind(header.kind)?;
    route.protocol = RouteProtocol(header.protocol.into());
    route.onlink = header.flags.contains(RouteFlags::Onlink);
    route.scope = match header.scope {
        RouteScope::Universe => Scope::Global,
        RouteScope::Site => Scope::Site,
        RouteScope::Link => Scope::Link,
        RouteScope::Host => Scope::Host,
        _ => Scope::Nowhere,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address)?,
            RouteAttribute::Metrics(metrics) => {
                route.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Mtu::new(*mtu).ok(),
                    _ => None,
                });
                let locked = |metric: &RouteMetric| matches!(metric, RouteMetric::Lock(bits) if bits & MTU_LOCK != 0);
                route.mtu_lock = metrics.iter().any(locked);
            }
            RouteAttribute::PrefSource(address) => route.source = ip(address),
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::MultiPath(ways) => {
                let way = ways.first()?;
                route.link = Some(names.get(&way.interface_index)?.clone());
                way.attributes
                    .iter()
                    .for_each(|part| next_hop(part, names, &mut route));
            }
            other => next_hop(other, names, &mut route),
        }
    }
    route.destination = IpNet::new(destination, header.destination_prefix_length).ok()?;
    if route.kind.refuses() {
        // For IPv6 the kernel lists the loopback interface.
        route.link = None;
    }
    Some(route)
}

fn next_hop(attribute: &RouteAttribute, names: &Names, route: &mut Route) {
    match attribute {
        RouteAttribute::Gateway(address) => route.via = ip(address),
        RouteAttribute::Via(RouteVia::Inet(v4)) => route.via = Some(IpAddr::V4(*v4)),
        RouteAttribute::Via(RouteVia::Inet6(v6)) => route.via = Some(IpAddr::V6(*v6)),
        RouteAttribute::Oif(index) => route.link = names.get(index).cloned(),
        _ => {}
    }
}

/// The address and Ethernet address of an entry; an underlay address comes without its family.
fn ends(message: &NeighbourMessage) -> Option<(IpAddr, Option<Mac>)> {
    let mut address = None;
    let mut lladdr = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                address = Some(IpAddr::V4(*v4));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                address = Some(IpAddr::V6(*v6));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => {
                let v4 = <[u8; 4]>::try_from(bytes.as_slice()).ok().map(IpAddr::from);
                let v6 = <[u8; 16]>::try_from(bytes.as_slice())
                    .ok()
                    .map(IpAddr::from);
                address = v4.or(v6);
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => lladdr = mac(bytes),
            _ => {}
        }
    }
    Some((address?, lladdr))
}

fn neighbour(message: &NeighbourMessage, names: &Names) -> Option<Neighbour> {
    let header = &message.header;
    let ip = matches!(header.family, AddressFamily::Inet | AddressFamily::Inet6);
    let proxy = header.flags.contains(NeighbourFlags::Proxy);
    if !ip || proxy || matches!(header.state, NeighbourState::Noarp | NeighbourState::None) {
        return None;
    }
    let (address, mac) = ends(message)?;
    let failed = matches!(
        header.state,
        NeighbourState::Failed | NeighbourState::Incomplete
    );
    Some(Neighbour {
        link: names.get(&header.ifindex)?.clone(),
        address,
        mac: mac.filter(|_| !failed),
        permanent: header.state == NeighbourState::Permanent,
    })
}

fn fdb(message: &NeighbourMessage, names: &Names) -> Option<FdbEntry> {
    let header = &message.header;
    if header.family != AddressFamily::Bridge || !header.flags.contains(NeighbourFlags::Own) {
        return None;
    }
    let (destination, mac) = ends(message)?;
    Some(FdbEntry {
        link: names.get(&header.ifindex)?.clone(),
        mac: mac?,
        destination,
    })
}
