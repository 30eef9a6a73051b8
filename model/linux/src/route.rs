//! [`Route`]: one line of `ip route`, of the main table.
//!
//! Parfait marks its routes with protocol numbers of its own (`rtm_protocol`, rtnetlink(7)), and
//! removes no route that carries another. The numbers are assigned in no `rt_protos` file; 80,
//! which also is not, is in use by Calico.
//!
//! Left out: other tables, multipath routes, and types of service. Of a foreign multipath route
//! only the first way is seen.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use parfait_packet::Family;
use serde::Serialize;

use crate::{IfName, Mtu, Scope};

/// Who made a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct RouteProtocol(pub u8);

impl RouteProtocol {
    /// The kernel itself, for the prefix of an address.
    pub const KERNEL: Self = Self(2);
    /// `ip route` without `proto`.
    pub const BOOT: Self = Self(3);
    /// The administrator.
    pub const STATIC: Self = Self(4);
    /// Learned from a router's advertisement.
    pub const RA: Self = Self(9);
    /// Parfait's agent.
    pub const PARFAIT: Self = Self(112);
    /// Parfait's CNI plugin, for the pods it attached. They go with the pod's interface; the agent
    /// does not remove them.
    pub const PARFAIT_CNI: Self = Self(113);
}

impl fmt::Display for RouteProtocol {
    /// As `ip` prints it, with the names of its `rt_protos`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            0 => "unspec",
            1 => "redirect",
            2 => "kernel",
            3 => "boot",
            4 => "static",
            9 => "ra",
            11 => "zebra",
            12 => "bird",
            16 => "dhcp",
            42 => "babel",
            99 => "openr",
            186 => "bgp",
            187 => "isis",
            188 => "ospf",
            189 => "rip",
            192 => "eigrp",
            number => return write!(f, "{number}"),
        };
        f.write_str(name)
    }
}

/// What becomes of a packet that a route matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteKind {
    /// It is sent on.
    Unicast,
    /// It has arrived.
    Local,
    /// It goes to everybody on the link.
    Broadcast,
    /// It goes to a group.
    Multicast,
    /// The sender is told that there is no way (ICMP host unreachable).
    Unreachable,
    /// It vanishes.
    Blackhole,
    /// The sender is told that it is forbidden (ICMP administratively prohibited).
    Prohibit,
}

impl RouteKind {
    /// Whether the packet ends here, unheard.
    #[must_use]
    pub const fn refuses(self) -> bool {
        matches!(self, Self::Unreachable | Self::Blackhole | Self::Prohibit)
    }
}

impl fmt::Display for RouteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unicast => "unicast",
            Self::Local => "local",
            Self::Broadcast => "broadcast",
            Self::Multicast => "multicast",
            Self::Unreachable => "unreachable",
            Self::Blackhole => "blackhole",
            Self::Prohibit => "prohibit",
        })
    }
}

/// One route of the main table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Route {
    /// The addresses it is for, without host bits.
    pub destination: IpNet,
    /// What it does.
    pub kind: RouteKind,
    /// The next hop; without one, the destination is itself on the link.
    pub via: Option<IpAddr>,
    /// The link; none for a route that refuses.
    pub link: Option<IfName>,
    /// The source address that this machine's own packets prefer on this route.
    pub source: Option<IpAddr>,
    /// Take the next hop to be on the link, though no address's prefix says so.
    pub onlink: bool,
    /// How far the destination is. IPv6 does not tell: always global.
    pub scope: Scope,
    /// Which of several equally long matches wins: the lowest.
    pub metric: u32,
    /// Who made it.
    pub protocol: RouteProtocol,
    /// The largest packet that the path carries, if smaller than the link's.
    pub mtu: Option<Mtu>,
    /// Nothing that is heard on the way changes it. Linux forwards IPv6 packets by a locked one only
    /// (`ip6_dst_mtu_maybe_forward` in include/net/ip6_route.h), IPv4 packets by any.
    pub mtu_lock: bool,
}

/// What tells two routes apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteKey {
    /// The addresses it is for.
    pub destination: IpNet,
    /// Its metric.
    pub metric: u32,
    /// Its link. A plan holds at most one route of a destination and metric; the kernel has more
    /// for IPv6 (`fe80::/64` on every link).
    pub link: Option<IfName>,
}

impl Route {
    /// The metric that the kernel gives a route without one.
    #[must_use]
    pub const fn default_metric(family: Family) -> u32 {
        match family {
            Family::Ipv4 => 0,
            Family::Ipv6 => 1024,
        }
    }

    /// `unreachable DESTINATION`, one of Parfait's.
    #[must_use]
    pub fn unreachable(destination: IpNet) -> Self {
        Self {
            destination: destination.trunc(),
            kind: RouteKind::Unreachable,
            via: None,
            link: None,
            source: None,
            onlink: false,
            scope: Scope::Global,
            metric: Self::default_metric(Family::of(destination.addr())),
            protocol: RouteProtocol::PARFAIT,
            mtu: None,
            mtu_lock: false,
        }
    }

    /// `DESTINATION dev LINK`, one of Parfait's: everybody in it is on the link.
    #[must_use]
    pub fn direct(destination: IpNet, link: IfName) -> Self {
        let scope = match destination {
            IpNet::V4(_) => Scope::Link,
            IpNet::V6(_) => Scope::Global,
        };
        Self {
            kind: RouteKind::Unicast,
            link: Some(link),
            scope,
            ..Self::unreachable(destination)
        }
    }

    /// `DESTINATION via NEXT dev LINK`, one of Parfait's.
    #[must_use]
    pub fn via(destination: IpNet, via: IpAddr, link: IfName) -> Self {
        Self {
            via: Some(via),
            scope: Scope::Global,
            ..Self::direct(destination, link)
        }
    }

    /// The family of its destination.
    #[must_use]
    pub const fn family(&self) -> Family {
        match self.destination {
            IpNet::V4(_) => Family::Ipv4,
            IpNet::V6(_) => Family::Ipv6,
        }
    }

    /// What tells it apart.
    #[must_use]
    pub fn key(&self) -> RouteKey {
        RouteKey {
            destination: self.destination,
            metric: self.metric,
            link: self.link.clone(),
        }
    }
}

impl fmt::Display for Route {
    /// `10.244.2.0/24 via 192.168.77.12 dev eth0 proto 112`, in the order of `ip route`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind != RouteKind::Unicast {
            write!(f, "{} ", self.kind)?;
        }
        match self.destination {
            net if net.prefix_len() == 0 => f.write_str("default")?,
            net if net.prefix_len() == net.max_prefix_len() => write!(f, "{}", net.addr())?,
            net => write!(f, "{net}")?,
        }
        match self.via {
            Some(via) if Family::of(via) != self.family() => write!(f, " via inet6 {via}")?,
            Some(via) => write!(f, " via {via}")?,
            None => {}
        }
        if let Some(link) = &self.link {
            write!(f, " dev {link}")?;
        }
        if self.protocol != RouteProtocol::BOOT {
            write!(f, " proto {}", self.protocol)?;
        }
        if self.scope != Scope::Global {
            write!(f, " scope {}", self.scope)?;
        }
        if let Some(source) = self.source {
            write!(f, " src {source}")?;
        }
        if self.metric != 0 {
            write!(f, " metric {}", self.metric)?;
        }
        if self.onlink {
            f.write_str(" onlink")?;
        }
        if let Some(mtu) = self.mtu {
            let lock = if self.mtu_lock { "lock " } else { "" };
            write!(f, " mtu {lock}{mtu}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_ip_route_does() {
        let eth0 = || IfName::new("eth0").unwrap();
        let route = Route {
            mtu: Mtu::new(1450).ok(),
            onlink: true,
            source: "10.244.1.1".parse().ok(),
            ..Route::via(
                "10.244.2.0/24".parse().unwrap(),
                "192.168.77.12".parse().unwrap(),
                eth0(),
            )
        };
        assert_eq!(
            route.to_string(),
            "10.244.2.0/24 via 192.168.77.12 dev eth0 proto 112 src 10.244.1.1 onlink mtu 1450"
        );
        let locked = Route {
            mtu_lock: true,
            ..route
        };
        assert!(locked.to_string().ends_with(" onlink mtu lock 1450"));
        let host = Route::direct("fd00::2/128".parse().unwrap(), eth0());
        assert_eq!(host.to_string(), "fd00::2 dev eth0 proto 112 metric 1024");
        let none = Route::unreachable("10.244.0.0/16".parse().unwrap());
        assert_eq!(none.to_string(), "unreachable 10.244.0.0/16 proto 112");
    }
}
