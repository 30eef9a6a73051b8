//! [`LabSpec`]: what a lab was asked to be, and the underlay addresses that follow from it.
//!
//! The addresses are fixed by convention: the switch is `192.168.77.1/24` and `fd00:77::1/64`,
//! node N has host part 10+N (IPv4) and 0x10+N (IPv6). A second segment is `192.168.78.1/24` and
//! `fd00:78::1/64`; in a cloud each node is alone with its address, a /32 and a /128. They live in the lab's own network
//! namespace, so that labs beside each other may use the same ones.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::LabName;

/// The switch's IPv4 address, where nodes find the API server.
pub const UNDERLAY_GATEWAY4: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
/// The switch's IPv6 address.
pub const UNDERLAY_GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 1);

/// Which families the underlay and the cluster have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpFamily {
    /// IPv4 and IPv6, IPv4 first.
    #[default]
    Dual,
    /// Only IPv4.
    Ipv4,
    /// Only IPv6.
    Ipv6,
}

impl IpFamily {
    /// Whether there is IPv4.
    #[must_use]
    pub const fn v4(self) -> bool {
        matches!(self, Self::Dual | Self::Ipv4)
    }

    /// Whether there is IPv6.
    #[must_use]
    pub const fn v6(self) -> bool {
        matches!(self, Self::Dual | Self::Ipv6)
    }
}

/// How packets of pods travel between nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Routing {
    /// Direct where the underlay carries pod addresses, VXLAN elsewhere.
    #[default]
    Auto,
    /// Routes through the underlay.
    Direct,
    /// Encapsulated in VXLAN.
    Vxlan,
    /// Along routes that BIRD learns on each node.
    Bgp,
}

/// What lies between the nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Underlay {
    /// One segment.
    #[default]
    Flat,
    /// Two segments and a router between them that knows every node's pod network.
    Routed,
    /// Each node alone on its link to a router, which forwards what its route table says.
    Cloud,
    /// Two segments and a router that learns the pod networks from the nodes' BGP daemons.
    Bgp,
}

impl Underlay {
    /// How pods' packets travel unless something else is asked for.
    #[must_use]
    pub const fn usual_routing(self) -> Routing {
        match self {
            Self::Flat => Routing::Auto,
            Self::Routed | Self::Cloud => Routing::Direct,
            Self::Bgp => Routing::Bgp,
        }
    }
}

macro_rules! words {
    ($type:ty, $what:literal, $($variant:ident = $word:literal),*) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $word),* })
            }
        }

        impl FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)*
                    _ => Err(format!(concat!("{:?} is no ", $what, ", use one of", $(" ", $word),*), text)),
                }
            }
        }
    };
}

words!(
    IpFamily,
    "IP family",
    Dual = "dual",
    Ipv4 = "ipv4",
    Ipv6 = "ipv6"
);
words!(
    Routing,
    "routing mode",
    Auto = "auto",
    Direct = "direct",
    Vxlan = "vxlan",
    Bgp = "bgp"
);
words!(
    Underlay,
    "underlay",
    Flat = "flat",
    Routed = "routed",
    Cloud = "cloud",
    Bgp = "bgp"
);

/// What `parfait lab up` asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabSpec {
    /// Its name.
    pub name: LabName,
    /// How many nodes, 1 to [`LabSpec::MAX_NODES`].
    pub nodes: u8,
    /// Address families.
    pub ip_family: IpFamily,
    /// How pods' packets travel between nodes.
    pub routing: Routing,
    /// What lies between the nodes.
    #[serde(default)]
    pub underlay: Underlay,
    /// The MTU of the underlay.
    pub mtu: u32,
}

/// A network on which several nodes, or one, see each other without a router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The link at the switch or router: a bridge, or in a cloud the node's own port.
    pub link: String,
    /// The addresses that the switch or router has there.
    pub gateways: Vec<IpNet>,
    /// The nodes on it, counted from 1.
    pub nodes: Vec<u8>,
}

impl LabSpec {
    /// As many nodes as the address plan has room for and one machine can be asked to bear.
    pub const MAX_NODES: u8 = 64;

    /// The addresses of node `index`, counted from 1.
    #[must_use]
    pub fn node_addresses(&self, index: u8) -> NodeAddresses {
        self.on_segment(self.second(index), 10 + index, 0x10 + u16::from(index))
    }

    /// A node's addresses with their prefix lengths, IPv4 first.
    #[must_use]
    pub fn node_prefixes(&self, index: u8) -> Vec<IpNet> {
        self.prefixes(self.node_addresses(index))
    }

    /// Whether a node is on the second segment: the later half of them, if there are two.
    fn second(&self, index: u8) -> bool {
        let two = matches!(self.underlay, Underlay::Routed | Underlay::Bgp);
        two && index > self.nodes.div_ceil(2)
    }

    fn on_segment(&self, second: bool, host4: u8, host6: u16) -> NodeAddresses {
        let v4 = Ipv4Addr::new(192, 168, 77 + u8::from(second), host4);
        let v6 = Ipv6Addr::new(0xfd00, 0x77 + u16::from(second), 0, 0, 0, 0, 0, host6);
        NodeAddresses {
            v4: self.ip_family.v4().then_some(v4),
            v6: self.ip_family.v6().then_some(v6),
        }
    }

    /// In a cloud nobody else is on a node's link.
    fn prefixes(&self, addresses: NodeAddresses) -> Vec<IpNet> {
        match self.underlay {
            Underlay::Cloud => addresses.all().into_iter().map(IpNet::from).collect(),
            _ => addresses.with_prefix(),
        }
    }

    /// The networks between the nodes.
    #[must_use]
    pub fn segments(&self) -> Vec<Segment> {
        let segment = |link: &str, second, nodes: Vec<u8>| Segment {
            link: link.to_owned(),
            gateways: self.prefixes(self.on_segment(second, 1, 1)),
            nodes,
        };
        let on = |second| {
            (1..=self.nodes)
                .filter(|n| self.second(*n) == second)
                .collect()
        };
        match self.underlay {
            Underlay::Flat => vec![segment("underlay", false, on(false))],
            Underlay::Routed | Underlay::Bgp => vec![
                segment("segment-1", false, on(false)),
                segment("segment-2", true, on(true)),
            ],
            Underlay::Cloud => (1..=self.nodes)
                .map(|node| segment(&port(node), false, vec![node]))
                .collect(),
        }
    }

    /// The switch's addresses with their prefix lengths, IPv4 first.
    #[must_use]
    pub fn gateways(&self) -> Vec<IpNet> {
        NodeAddresses {
            v4: self.ip_family.v4().then_some(UNDERLAY_GATEWAY4),
            v6: self.ip_family.v6().then_some(UNDERLAY_GATEWAY6),
        }
        .with_prefix()
    }

    /// The node's number and the router's link to it, for an address on the underlay.
    #[must_use]
    pub fn behind(&self, address: IpAddr) -> Option<(u8, String)> {
        self.segments().into_iter().find_map(|segment| {
            let mut nodes = segment.nodes.into_iter();
            let node = nodes.find(|node| self.node_addresses(*node).all().contains(&address))?;
            Some((node, segment.link))
        })
    }

    /// `node-1`, `node-2`, …
    pub fn node_names(&self) -> impl Iterator<Item = String> {
        (1..=self.nodes).map(|index| format!("node-{index}"))
    }
}

/// The switch's or router's end of the cable to a node.
pub(crate) fn port(node: u8) -> String {
    format!("n{node}")
}

/// A node's addresses on the underlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAddresses {
    /// Its IPv4 address, in a /24.
    pub v4: Option<Ipv4Addr>,
    /// Its IPv6 address, in a /64.
    pub v6: Option<Ipv6Addr>,
}

impl NodeAddresses {
    /// The addresses there are, IPv4 first.
    #[must_use]
    pub fn all(&self) -> Vec<IpAddr> {
        self.v4
            .map(IpAddr::V4)
            .into_iter()
            .chain(self.v6.map(IpAddr::V6))
            .collect()
    }

    /// The same as interface addresses.
    #[must_use]
    pub fn with_prefix(&self) -> Vec<IpNet> {
        self.all()
            .into_iter()
            .map(|ip| {
                let len = if ip.is_ipv4() { 24 } else { 64 };
                IpNet::new_assert(ip, len)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(ip_family: IpFamily) -> LabSpec {
        LabSpec {
            name: LabName::default(),
            nodes: 3,
            ip_family,
            routing: Routing::Auto,
            underlay: Underlay::Flat,
            mtu: 1500,
        }
    }

    #[test]
    fn addresses_follow_the_family() {
        let text = |family, index| {
            let all = spec(family).node_addresses(index).with_prefix();
            all.iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(text(IpFamily::Dual, 1), "192.168.77.11/24 fd00:77::11/64");
        assert_eq!(text(IpFamily::Ipv4, 3), "192.168.77.13/24");
        assert_eq!(text(IpFamily::Ipv6, 16), "fd00:77::20/64");
        assert_eq!(
            spec(IpFamily::Ipv6).gateways(),
            ["fd00:77::1/64".parse().unwrap()]
        );
    }

    #[test]
    fn segments_follow_the_underlay() {
        let text = |underlay| {
            let spec = LabSpec {
                underlay,
                ..spec(IpFamily::Dual)
            };
            let segment = |s: Segment| {
                let node = |n: u8| {
                    spec.node_prefixes(n)
                        .iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                };
                let nodes: Vec<_> = s.nodes.into_iter().map(|n| node(n).join(",")).collect();
                format!("{} {}: {}", s.link, s.gateways[0], nodes.join(" "))
            };
            spec.segments().into_iter().map(segment).collect::<Vec<_>>()
        };
        assert_eq!(
            text(Underlay::Flat),
            [
                "underlay 192.168.77.1/24: 192.168.77.11/24,fd00:77::11/64 192.168.77.12/24,fd00:77::12/64 192.168.77.13/24,fd00:77::13/64"
            ]
        );
        assert_eq!(
            text(Underlay::Routed),
            [
                "segment-1 192.168.77.1/24: 192.168.77.11/24,fd00:77::11/64 192.168.77.12/24,fd00:77::12/64",
                "segment-2 192.168.78.1/24: 192.168.78.13/24,fd00:78::13/64",
            ]
        );
        assert_eq!(text(Underlay::Bgp), text(Underlay::Routed));
        assert_eq!(
            text(Underlay::Cloud)[2],
            "n3 192.168.77.1/32: 192.168.77.13/32,fd00:77::13/128"
        );
        let cloud = LabSpec {
            underlay: Underlay::Cloud,
            ..spec(IpFamily::Ipv6)
        };
        let behind = cloud.behind("fd00:77::12".parse().unwrap());
        assert_eq!(behind, Some((2, "n2".to_owned())));
        assert_eq!(cloud.behind("fd00:77::1".parse().unwrap()), None);
    }

    #[test]
    fn words_parse_as_they_print() {
        for word in ["dual", "ipv4", "ipv6"] {
            assert_eq!(
                word.parse::<IpFamily>().map(|w| w.to_string()),
                Ok(word.to_owned())
            );
        }
        let error = "ospf".parse::<Routing>().unwrap_err();
        assert_eq!(
            error,
            "\"ospf\" is no routing mode, use one of auto direct vxlan bgp"
        );
    }
}
