//! What the controllers must be told: the address plan of the cluster and where its API answers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The plan of a cluster. The order of the families is their preference: the first is the primary.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// At most one prefix per family; every node gets a part of each.
    pub cluster_cidrs: Vec<IpNet>,
    /// Prefix length of a node's part of the IPv4 cluster CIDR.
    pub node_mask_ipv4: u8,
    /// Prefix length of a node's part of the IPv6 cluster CIDR.
    pub node_mask_ipv6: u8,
    /// At most one prefix per family. The API server allocates from them; [`crate::simulate()`] does
    /// where there is none, and `default/kubernetes` takes the first address of each.
    pub service_cidrs: Vec<IpNet>,
    /// Where the API server listens, per family: the endpoints of `default/kubernetes`. Without
    /// any, that Service is not published.
    pub api_server: Vec<SocketAddr>,
    /// The API server's CA certificate (PEM), published in every namespace as
    /// `kube-root-ca.crt`. Without it, that ConfigMap is not published.
    pub root_ca: Option<String>,
    /// A node whose Lease is older than this is no longer trusted to be alive.
    pub node_grace_seconds: i64,
    /// [`crate::simulate()`] only: the nodes' network, node-N having host part 10+N (decimal in
    /// IPv4, 0x10+N in IPv6).
    pub underlay: Vec<IpNet>,
}

/// An address family as the API spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    IPv4,
    IPv6,
}

impl Family {
    pub fn as_str(self) -> &'static str {
        match self {
            Family::IPv4 => "IPv4",
            Family::IPv6 => "IPv6",
        }
    }

    pub fn parse(text: &str) -> Option<Family> {
        match text {
            "IPv4" => Some(Family::IPv4),
            "IPv6" => Some(Family::IPv6),
            _ => None,
        }
    }

    pub fn of(address: IpAddr) -> Family {
        if address.is_ipv4() {
            Family::IPv4
        } else {
            Family::IPv6
        }
    }
}

impl Config {
    /// The families of the cluster, the primary first.
    pub fn families(&self) -> Vec<Family> {
        self.cluster_cidrs
            .iter()
            .map(|cidr| Family::of(cidr.addr()))
            .collect()
    }

    /// The lab's plan, restricted to some families: `[IPv4]`, `[IPv6]` or both in either order.
    pub fn for_families(families: &[Family]) -> Config {
        let pick = |v4: IpNet, v6: IpNet| {
            families
                .iter()
                .map(|f| if *f == Family::IPv4 { v4 } else { v6 })
                .collect()
        };
        Config {
            cluster_cidrs: pick(v4([10, 244, 0, 0], 16), v6([0xfd00, 0x10, 0x244, 0], 56)),
            node_mask_ipv4: 24,
            node_mask_ipv6: 64,
            service_cidrs: pick(v4([10, 96, 0, 0], 16), v6([0xfd00, 0x10, 0x96, 0], 112)),
            api_server: Vec::new(),
            root_ca: None,
            node_grace_seconds: 40,
            underlay: pick(v4([192, 168, 77, 0], 24), v6([0xfd00, 0x77, 0, 0], 64)),
        }
    }
}

impl Default for Config {
    /// The lab's dual-stack plan, IPv4 first.
    fn default() -> Config {
        Config::for_families(&[Family::IPv4, Family::IPv6])
    }
}

/// The `n`-th address of a prefix, if the prefix has that many.
pub(crate) fn nth_address(net: IpNet, n: u128) -> Option<IpAddr> {
    let address = match net {
        IpNet::V4(net) => {
            let n = u32::try_from(n).ok()?;
            IpAddr::V4(Ipv4Addr::from(u32::from(net.network()).checked_add(n)?))
        }
        IpNet::V6(net) => IpAddr::V6(Ipv6Addr::from(u128::from(net.network()).checked_add(n)?)),
    };
    net.contains(&address).then_some(address)
}

fn v4(octets: [u8; 4], prefix: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from(octets), prefix))
}

fn v6(head: [u16; 4], prefix: u8) -> IpNet {
    let [a, b, c, d] = head;
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0),
        prefix,
    ))
}
