//! [`LabSpec`]: what a lab was asked to be, and the underlay addresses that follow from it.
//!
//! The addresses are fixed by convention: the switch is `192.168.77.1/24` and `fd00:77::1/64`,
//! node N has host part 10+N (IPv4) and 0x10+N (IPv6). They live in the lab's own network
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
    Vxlan = "vxlan"
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
    /// The MTU of the underlay.
    pub mtu: u32,
}

impl LabSpec {
    /// As many nodes as the address plan has room for and one machine can be asked to bear.
    pub const MAX_NODES: u8 = 64;

    /// The addresses of node `index`, counted from 1.
    #[must_use]
    pub fn node_addresses(&self, index: u8) -> NodeAddresses {
        let v4 = Ipv4Addr::new(192, 168, 77, 10 + index);
        let v6 = Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 0x10 + u16::from(index));
        NodeAddresses {
            v4: self.ip_family.v4().then_some(v4),
            v6: self.ip_family.v6().then_some(v6),
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

    /// `node-1`, `node-2`, …
    pub fn node_names(&self) -> impl Iterator<Item = String> {
        (1..=self.nodes).map(|index| format!("node-{index}"))
    }
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
    fn words_parse_as_they_print() {
        for word in ["dual", "ipv4", "ipv6"] {
            assert_eq!(
                word.parse::<IpFamily>().map(|w| w.to_string()),
                Ok(word.to_owned())
            );
        }
        let error = "bgp".parse::<Routing>().unwrap_err();
        assert_eq!(
            error,
            "\"bgp\" is no routing mode, use one of auto direct vxlan"
        );
    }
}
