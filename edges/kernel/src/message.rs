//! Objects as rtnetlink messages: what is sent to the kernel. What it sends is read in `observe`.

use std::net::IpAddr;
use std::os::fd::AsRawFd;

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressProtocol,
    AddressScope, CacheInfo,
};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteScope, RouteType,
    RouteVia,
};
use parfait_linux::{
    Address, FdbEntry, IfName, Link, LinkKind, Neighbour, Route, RouteKind, Scope, Vxlan,
};
use parfait_packet::Family;

use crate::NetNs;

const fn family(family: Family) -> AddressFamily {
    match family {
        Family::Ipv4 => AddressFamily::Inet,
        Family::Ipv6 => AddressFamily::Inet6,
    }
}

/// The bit of the lock that is the MTU's: 1 << `RTAX_MTU` (linux/rtnetlink.h).
pub(crate) const MTU_LOCK: u32 = 1 << 2;

/// See [`veth_pair`].
const ONE_QUEUE: [LinkAttribute; 2] =
    [LinkAttribute::NumTxQueues(1), LinkAttribute::NumRxQueues(1)];

/// A link by its name, for a question or a removal.
pub(crate) fn link_by_name(name: &IfName) -> LinkMessage {
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::IfName(name.as_str().to_owned()));
    message
}

/// A link by its number, for a removal.
pub(crate) fn link_by_index(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

/// A link to be made: `ip link add`. An alias is not taken here; see [`link_alias`].
pub(crate) fn link_to_create(link: &Link, master: Option<u32>) -> LinkMessage {
    let mut message = link_by_name(&link.name);
    put_link_options(&mut message, link, master);
    let kind = link.kind.name();
    let mut info = vec![LinkInfo::Kind(match kind {
        "veth" => InfoKind::Veth,
        "vxlan" => InfoKind::Vxlan,
        "bridge" => InfoKind::Bridge,
        "dummy" => InfoKind::Dummy,
        other => InfoKind::Other(other.to_owned()),
    })];
    match &link.kind {
        LinkKind::Vxlan(vxlan) => info.push(LinkInfo::Data(InfoData::Vxlan(vxlan_options(vxlan)))),
        LinkKind::Veth { peer: Some(peer) } => {
            let mut end = link_by_name(peer);
            end.attributes.push(LinkAttribute::Mtu(link.mtu.bytes()));
            info.push(LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(end))));
        }
        _ => {}
    }
    message.attributes.push(LinkAttribute::LinkInfo(info));
    message
}

/// Both ends of a veth pair; the other end is made in its namespace, not moved there, which would
/// take the kernel some 17 ms.
///
/// With one queue each, which is what an end has in use: not told so, the kernel makes one for every processor, puts all but
/// the first out of use again (`veth_init_queues` of drivers/net/veth.c), and waits for whoever may be looking at them.
pub(crate) fn veth_pair(near: &Link, far: &Link, far_netns: Option<&NetNs>) -> LinkMessage {
    let mut end = link_by_name(&far.name);
    put_link_options(&mut end, far, None);
    end.attributes.extend(ONE_QUEUE);
    // The kernel refuses to bring up an end whose other end is not there yet (ENOTCONN).
    end.header.flags = LinkFlags::empty();
    if let Some(netns) = far_netns {
        end.attributes
            .push(LinkAttribute::NetNsFd(netns.as_raw_fd()));
    }
    let mut message = link_by_name(&near.name);
    put_link_options(&mut message, near, None);
    message.attributes.extend(ONE_QUEUE);
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(end))),
    ]));
    message
}

/// A link as it should be: `ip link set`.
pub(crate) fn link_to_change(link: &Link, index: u32, master: Option<u32>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    put_link_options(&mut message, link, Some(master.unwrap_or(0)));
    if let Some(alias) = &link.alias {
        message
            .attributes
            .push(LinkAttribute::IfAlias(alias.as_str().to_owned()));
    }
    message
}

/// `ip link set dev NAME alias TEXT`, which the kernel does not take while making a link.
pub(crate) fn link_alias(link: &Link) -> Option<LinkMessage> {
    let alias = link.alias.as_ref()?;
    let mut message = link_by_name(&link.name);
    message
        .attributes
        .push(LinkAttribute::IfAlias(alias.as_str().to_owned()));
    Some(message)
}

/// `ip link set dev NAME up`.
pub(crate) fn link_up(name: &IfName) -> LinkMessage {
    let mut message = link_by_name(name);
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message
}

fn put_link_options(message: &mut LinkMessage, link: &Link, master: Option<u32>) {
    message.header.change_mask = LinkFlags::Up;
    if link.up {
        message.header.flags = LinkFlags::Up;
    }
    let attributes = &mut message.attributes;
    attributes.push(LinkAttribute::Mtu(link.mtu.bytes()));
    if let Some(mac) = link.mac {
        attributes.push(LinkAttribute::Address(mac.bytes().to_vec()));
    }
    if let Some(master) = master {
        attributes.push(LinkAttribute::Controller(master));
    }
}

fn vxlan_options(vxlan: &Vxlan) -> Vec<InfoVxlan> {
    vec![
        InfoVxlan::Id(vxlan.vni.number()),
        InfoVxlan::Port(vxlan.port),
        match vxlan.local {
            IpAddr::V4(local) => InfoVxlan::Local(local),
            IpAddr::V6(local) => InfoVxlan::Local6(local),
        },
        InfoVxlan::Learning(vxlan.learning),
    ]
}

/// An address. Without duplicate address detection: IPAM gave it to this link alone.
pub(crate) fn address(address: &Address, index: u32) -> AddressMessage {
    let mut message = AddressMessage::default();
    let ip = address.address.addr();
    message.header.family = family(Family::of(ip));
    message.header.prefix_len = address.address.prefix_len();
    message.header.index = index;
    message.header.scope = match address.scope {
        Scope::Global => AddressScope::Universe,
        Scope::Site => AddressScope::Site,
        Scope::Link => AddressScope::Link,
        Scope::Host => AddressScope::Host,
        Scope::Nowhere => AddressScope::Nowhere,
    };
    if ip.is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad;
        message
            .attributes
            .push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    if is_no_source(address) || address.lent.is_some() {
        // IPv6 ignores the scope it is given. `preferred_lft 0` says the same: not as a source
        // (RFC 6724 section 5, rule 3).
        let mut lifetimes = CacheInfo::default();
        lifetimes.ifa_preferred = 0;
        lifetimes.ifa_valid = address.lent.unwrap_or(u32::MAX);
        message
            .attributes
            .push(AddressAttribute::CacheInfo(lifetimes));
    }
    if let Some(protocol) = address.protocol {
        let protocol = AddressProtocol::from(protocol.0);
        message
            .attributes
            .push(AddressAttribute::Protocol(protocol));
    }
    message.attributes.push(AddressAttribute::Local(ip));
    message.attributes.push(AddressAttribute::Address(ip));
    message
}

fn is_no_source(address: &Address) -> bool {
    let ip = address.address.addr();
    ip.is_ipv6() && !ip.is_loopback() && address.scope == Scope::Host
}

/// A route of the main table.
pub(crate) fn route(route: &Route, index: Option<u32>) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = family(route.family());
    header.destination_prefix_length = route.destination.prefix_len();
    header.table = RouteHeader::RT_TABLE_MAIN;
    header.protocol = route.protocol.0.into();
    header.scope = match route.scope {
        Scope::Global => RouteScope::Universe,
        Scope::Site => RouteScope::Site,
        Scope::Link => RouteScope::Link,
        Scope::Host => RouteScope::Host,
        Scope::Nowhere => RouteScope::NoWhere,
    };
    header.kind = match route.kind {
        RouteKind::Unicast => RouteType::Unicast,
        RouteKind::Local => RouteType::Local,
        RouteKind::Broadcast => RouteType::Broadcast,
        RouteKind::Multicast => RouteType::Multicast,
        RouteKind::Unreachable => RouteType::Unreachable,
        RouteKind::Blackhole => RouteType::BlackHole,
        RouteKind::Prohibit => RouteType::Prohibit,
    };
    if route.onlink {
        header.flags = RouteFlags::Onlink;
    }
    let attributes = &mut message.attributes;
    if route.destination.prefix_len() > 0 {
        let destination = match route.destination {
            IpNet::V4(net) => IpAddr::V4(net.network()),
            IpNet::V6(net) => IpAddr::V6(net.network()),
        };
        attributes.push(RouteAttribute::Destination(destination.into()));
    }
    match route.via {
        Some(via) if Family::of(via) == route.family() => {
            attributes.push(RouteAttribute::Gateway(via.into()));
        }
        Some(via) => attributes.push(RouteAttribute::Via(RouteVia::from(via))),
        None => {}
    }
    if let Some(index) = index {
        attributes.push(RouteAttribute::Oif(index));
    }
    if let Some(source) = route.source {
        attributes.push(RouteAttribute::PrefSource(source.into()));
    }
    if route.metric != 0 {
        attributes.push(RouteAttribute::Priority(route.metric));
    }
    if let Some(mtu) = route.mtu {
        let mut metrics = vec![RouteMetric::Mtu(mtu.bytes())];
        if route.mtu_lock {
            metrics.push(RouteMetric::Lock(MTU_LOCK));
        }
        attributes.push(RouteAttribute::Metrics(metrics));
    }
    message
}

/// A neighbour entry.
pub(crate) fn neighbour(neighbour: &Neighbour, index: u32) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(Family::of(neighbour.address));
    message.header.ifindex = index;
    message.header.state = if neighbour.permanent {
        NeighbourState::Permanent
    } else {
        NeighbourState::Reachable
    };
    message
        .attributes
        .push(NeighbourAttribute::Destination(neighbour.address.into()));
    if let Some(mac) = neighbour.mac {
        let mac = mac.bytes().to_vec();
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac));
    }
    message
}

/// A forwarding entry of a VXLAN device: `bridge fdb … self permanent`.
pub(crate) fn fdb(entry: &FdbEntry, index: u32) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Own;
    message.attributes = vec![
        NeighbourAttribute::LinkLayerAddress(entry.mac.bytes().to_vec()),
        NeighbourAttribute::Destination(entry.destination.into()),
    ];
    message
}
