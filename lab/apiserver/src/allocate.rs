//! Pools of Service addresses and node ports.
//!
//! Like kube-apiserver, dynamic allocation keeps out of the lower band of each range (KEP-3070: between 16 and 256
//! addresses) so that well-known addresses such as the cluster DNS can be asked for explicitly. Unlike it, the
//! next free address is taken in order and not at random: a lab that is built twice gets the same addresses.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// An IP family, as `spec.ipFamilies` spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// `IPv4`.
    Ipv4,
    /// `IPv6`.
    Ipv6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() {
            Family::Ipv4
        } else {
            Family::Ipv6
        }
    }

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Family::Ipv4 => Family::Ipv6,
            Family::Ipv6 => Family::Ipv4,
        }
    }

    /// As the API spells it.
    pub fn name(self) -> &'static str {
        match self {
            Family::Ipv4 => "IPv4",
            Family::Ipv6 => "IPv6",
        }
    }

    /// From the API's spelling.
    pub fn parse(text: &str) -> Option<Self> {
        [Family::Ipv4, Family::Ipv6]
            .into_iter()
            .find(|f| f.name() == text)
    }
}

/// Why a value could not be had. `Display` gives Kubernetes' words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllocateError {
    /// Outside the range of Services.
    #[error(
        "failed to allocate IP {address}: the provided IP ({address}) is not in the valid range. The range of valid IPs is {range}"
    )]
    AddressOutOfRange {
        /// The address asked for.
        address: IpAddr,
        /// The family's range.
        range: IpNet,
    },
    /// Held by another Service.
    #[error("failed to allocate IP {0}: provided IP is already allocated")]
    AddressTaken(IpAddr),
    /// The pool is exhausted.
    #[error("failed to allocate a serviceIP: range is full")]
    Full,
    /// The lab has no range for this family.
    #[error("{0} is not configured on this cluster")]
    NoSuchFamily(&'static str),
    /// Outside 30000-32767.
    #[error("provided port is not in the valid range. The range of valid ports is 30000-32767")]
    PortOutOfRange,
    /// Held by another Service.
    #[error("provided port is already allocated")]
    PortTaken,
}

/// The range of node ports, Kubernetes' default.
pub const NODE_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;

/// All pools.
#[derive(Debug, Clone)]
pub struct Addresses {
    families: Vec<Family>,
    pools: Vec<Pool>,
    ports: BTreeSet<u16>,
}

#[derive(Debug, Clone)]
struct Pool {
    family: Family,
    range: IpNet,
    used: BTreeSet<IpAddr>,
    next: u128,
}

impl Addresses {
    /// Pools for the given ranges; `families` gives the order of preference.
    pub fn new(v4: Option<Ipv4Net>, v6: Option<Ipv6Net>, families: Vec<Family>) -> Self {
        let pool = |family, range: IpNet| Pool {
            family,
            range: range.trunc(),
            used: BTreeSet::new(),
            next: 0,
        };
        let pools = [
            v4.map(|n| pool(Family::Ipv4, n.into())),
            v6.map(|n| pool(Family::Ipv6, n.into())),
        ];
        let pools: Vec<Pool> = pools
            .into_iter()
            .flatten()
            .filter(|p| families.contains(&p.family))
            .collect();
        let served = |f: &Family| pools.iter().any(|p| p.family == *f);
        Addresses {
            families: families.into_iter().filter(served).collect(),
            pools,
            ports: BTreeSet::new(),
        }
    }

    /// Configured families, preferred first.
    pub fn families(&self) -> &[Family] {
        &self.families
    }

    /// The range of a family.
    pub fn range(&self, family: Family) -> Option<IpNet> {
        self.pools
            .iter()
            .find(|p| p.family == family)
            .map(|p| p.range)
    }

    /// Takes the next free address of a family.
    pub fn take_any(&mut self, family: Family) -> Result<IpAddr, AllocateError> {
        let pool = self.pool(family)?;
        let usable = pool.usable();
        let band = (usable / 16).clamp(16, 256).min(usable.saturating_sub(1));
        let upper = usable.saturating_sub(band);
        let candidates = (0..upper)
            .map(|i| band + (pool.next + i) % upper.max(1))
            .chain(0..band);
        for offset in candidates {
            let address = pool.nth(offset);
            if pool.used.insert(address) {
                if offset >= band {
                    pool.next = offset - band + 1;
                }
                return Ok(address);
            }
        }
        Err(AllocateError::Full)
    }

    /// Takes a certain address.
    pub fn take(&mut self, address: IpAddr) -> Result<(), AllocateError> {
        let pool = self.pool(Family::of(address))?;
        let base = pool.range.network();
        let last = pool.nth(pool.usable().saturating_sub(1));
        if !pool.range.contains(&address) || address == base || address > last {
            return Err(AllocateError::AddressOutOfRange {
                address,
                range: pool.range,
            });
        }
        if pool.used.insert(address) {
            Ok(())
        } else {
            Err(AllocateError::AddressTaken(address))
        }
    }

    /// Gives an address back.
    pub fn release(&mut self, address: IpAddr) {
        if let Ok(pool) = self.pool(Family::of(address)) {
            pool.used.remove(&address);
        }
    }

    /// Takes the next free node port.
    pub fn take_any_port(&mut self) -> Result<u16, AllocateError> {
        // The first 86 ports are the static band of KEP-3668 for this range.
        let port = (30086..=*NODE_PORTS.end())
            .chain(*NODE_PORTS.start()..30086)
            .find(|p| !self.ports.contains(p));
        let port = port.ok_or(AllocateError::Full)?;
        self.ports.insert(port);
        Ok(port)
    }

    /// Takes a certain node port.
    pub fn take_port(&mut self, port: u16) -> Result<(), AllocateError> {
        if !NODE_PORTS.contains(&port) {
            return Err(AllocateError::PortOutOfRange);
        }
        if self.ports.insert(port) {
            Ok(())
        } else {
            Err(AllocateError::PortTaken)
        }
    }

    /// Gives a node port back.
    pub fn release_port(&mut self, port: u16) {
        self.ports.remove(&port);
    }

    fn pool(&mut self, family: Family) -> Result<&mut Pool, AllocateError> {
        let missing = AllocateError::NoSuchFamily(family.name());
        self.pools
            .iter_mut()
            .find(|p| p.family == family)
            .ok_or(missing)
    }
}

impl Pool {
    /// How many addresses may be handed out: not the network's own, nor IPv4's broadcast.
    fn usable(&self) -> u128 {
        let bits = u32::from(self.range.max_prefix_len() - self.range.prefix_len()).min(64);
        let reserved = if self.family == Family::Ipv4 { 2 } else { 1 };
        (1u128 << bits).saturating_sub(reserved)
    }

    /// The address at an offset, 0 being the first after the network's own.
    fn nth(&self, offset: u128) -> IpAddr {
        match self.range.network() {
            IpAddr::V4(base) => {
                let offset = u32::try_from(offset + 1).unwrap_or(u32::MAX);
                IpAddr::V4(Ipv4Addr::from(u32::from(base).saturating_add(offset)))
            }
            IpAddr::V6(base) => {
                IpAddr::V6(Ipv6Addr::from(u128::from(base).saturating_add(offset + 1)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> Addresses {
        let v4 = "10.96.0.0/16".parse().expect("a network");
        let v6 = "fd00:10:96::/112".parse().expect("a network");
        Addresses::new(Some(v4), Some(v6), vec![Family::Ipv4, Family::Ipv6])
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn dynamic_addresses_leave_the_low_band_free() {
        let mut pools = addresses();
        assert_eq!(pools.take_any(Family::Ipv4), Ok(ip("10.96.1.1")));
        assert_eq!(pools.take_any(Family::Ipv4), Ok(ip("10.96.1.2")));
        assert_eq!(pools.take_any(Family::Ipv6), Ok(ip("fd00:10:96::101")));
        assert_eq!(pools.take(ip("10.96.0.10")), Ok(()));
        assert_eq!(
            pools.take(ip("10.96.0.10")),
            Err(AllocateError::AddressTaken(ip("10.96.0.10")))
        );
        pools.release(ip("10.96.0.10"));
        assert_eq!(pools.take(ip("10.96.0.10")), Ok(()));
    }

    #[test]
    fn explicit_addresses_must_be_in_range() {
        let mut pools = addresses();
        for outside in ["10.97.0.1", "10.96.0.0", "10.96.255.255", "fd00:10:97::1"] {
            assert!(
                matches!(
                    pools.take(ip(outside)),
                    Err(AllocateError::AddressOutOfRange { .. })
                ),
                "{outside}"
            );
        }
        assert_eq!(
            pools
                .take(ip("192.0.2.1"))
                .expect_err("outside")
                .to_string(),
            "failed to allocate IP 192.0.2.1: the provided IP (192.0.2.1) is not in the valid range. The range of \
             valid IPs is 10.96.0.0/16"
        );
    }

    #[test]
    fn a_small_range_is_used_up_entirely() {
        let v4 = "10.0.0.0/29".parse().expect("a network");
        let mut pools = Addresses::new(Some(v4), None, vec![Family::Ipv4]);
        let mut taken: Vec<IpAddr> = (0..6)
            .map(|_| pools.take_any(Family::Ipv4).expect("room"))
            .collect();
        taken.sort();
        assert_eq!(taken.first(), Some(&ip("10.0.0.1")));
        assert_eq!(taken.last(), Some(&ip("10.0.0.6")));
        assert_eq!(pools.take_any(Family::Ipv4), Err(AllocateError::Full));
        assert!(pools.take_any(Family::Ipv6).is_err());
    }

    #[test]
    fn node_ports() {
        let mut pools = addresses();
        assert_eq!(pools.take_any_port(), Ok(30086));
        assert_eq!(pools.take_port(30080), Ok(()));
        assert_eq!(pools.take_port(30080), Err(AllocateError::PortTaken));
        assert_eq!(pools.take_port(80), Err(AllocateError::PortOutOfRange));
    }
}
