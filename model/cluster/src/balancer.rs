//! [`LoadBalancerPool`]: addresses for Services of type LoadBalancer, and how they are made known to the network outside;
//! [`LoadBalancer`]: what one Service asks for, and has.
//!
//! ```yaml
//! apiVersion: parfait.dev/v1alpha1
//! kind: LoadBalancerPool
//! metadata: {name: office}
//! spec:
//!   addresses: [192.168.77.200-192.168.77.219, "fd00:77::200/123", 203.0.113.7]
//!   announcement: Neighbor                 # Neighbor (ARP and NDP) | BGP | None
//!   serviceSelector: {matchLabels: {…}}    # left out: every Service
//!   namespaces: [prod]                     # left out: of every namespace
//!   namespaceSelector: {matchLabels: {…}}  # left out: whatever labels the namespace has
//!   loadBalancerClass: parfait.dev/office  # left out: Services without a class, or with parfait.dev/load-balancer
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use parfait_packet::{Family, Kind, Origin};

use crate::{LabelSelector, Namespace, Service, Snapshot};

/// Addresses for load balancers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadBalancerPool {
    /// Its name.
    pub name: String,
    /// `spec.addresses`.
    pub addresses: Vec<AddressRange>,
    /// `spec.announcement`.
    pub announcement: Announcement,
    /// `spec.loadBalancerClass`.
    pub class: Option<String>,
    /// `spec.serviceSelector`.
    pub service_selector: LabelSelector,
    /// `spec.namespaces`: of which it is for Services; empty: of all.
    pub namespaces: Vec<String>,
    /// `spec.namespaceSelector`: of those, the namespaces with such labels.
    pub namespace_selector: LabelSelector,
}

/// How the network outside learns where an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Announcement {
    /// One node answers for it by ARP and NDP.
    Neighbor,
    /// The routing daemons of all nodes announce it.
    Bgp,
    /// Somebody leads it to the nodes.
    None,
}

impl LoadBalancerPool {
    /// The class of Services that want an address from Parfait and from nobody else.
    pub const CLASS: &'static str = "parfait.dev/load-balancer";

    /// What every class of Parfait's begins with; Services of others are left alone.
    pub const CLASSES: &'static str = "parfait.dev/";

    /// Whether an address is in the pool.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|range| range.contains(address))
    }

    /// Whether a Service of this class may have one of the addresses.
    #[must_use]
    pub fn is_for_class(&self, class: Option<&str>) -> bool {
        match &self.class {
            Some(own) => class == Some(own),
            None => class.is_none_or(|class| class == Self::CLASS),
        }
    }

    /// Whether labels of namespaces decide whom it is for.
    #[must_use]
    pub fn reads_namespaces(&self) -> bool {
        self.namespace_selector != LabelSelector::default()
    }

    /// The object, for what exists because of it.
    #[must_use]
    pub fn origin(&self) -> Origin {
        Origin::new(Kind::LoadBalancerPool, "", &self.name)
    }

    /// `office (192.168.77.200-192.168.77.219, 203.0.113.7)`: the pool and its addresses of a family.
    #[must_use]
    pub fn describe(&self, family: Family) -> String {
        let ranges = self.addresses.iter();
        let of_family = ranges.filter(|range| range.family() == family);
        let ranges: Vec<_> = of_family.map(ToString::to_string).collect();
        match ranges.is_empty() {
            true => format!("{} (no {family} addresses)", self.name),
            false => format!("{} ({})", self.name, ranges.join(", ")),
        }
    }
}

/// What a Service asks of a load balancer, and has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadBalancer {
    /// `spec.type` is LoadBalancer. If not, it was, and what it has is taken back.
    pub wanted: bool,
    /// `spec.loadBalancerClass`: who gives it an address.
    pub class: Option<String>,
    /// `metadata.labels`, for [`LoadBalancerPool::service_selector`].
    pub labels: BTreeMap<String, String>,
    /// `spec.ipFamilies`: it wants one address of each.
    pub families: Vec<Family>,
    /// `spec.loadBalancerIP` and the annotation [`LoadBalancer::WISHES`]: the addresses it would like to have.
    pub wishes: Vec<IpAddr>,
    /// `status.loadBalancer.ingress[].ip`, all of them.
    pub held: Vec<IpAddr>,
    /// There is something else in `status.loadBalancer.ingress`, which others have written.
    pub elsewhere: bool,
    /// The condition [`LoadBalancer::CONDITION`], which says that `held` is Parfait's doing.
    pub told: Option<Told>,
}

/// What Parfait says of a Service's addresses, in its condition and in Events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// It has all that it asks for.
    pub satisfied: bool,
    /// In one word, for programs.
    pub reason: String,
    /// In words.
    pub message: String,
}

impl LoadBalancer {
    /// The Service's annotation with the addresses that it would like to have, separated by commas: at most one of
    /// each family.
    pub const WISHES: &'static str = "parfait.dev/load-balancer-ips";

    /// The type of the condition in the Service's status.
    pub const CONDITION: &'static str = "parfait.dev/LoadBalancerAddress";

    /// Whether Parfait may give it an address. `None` as a class is Parfait's as well, if there is a pool for it.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        let class = self.class.as_deref();
        class.is_none_or(|class| class.starts_with(LoadBalancerPool::CLASSES))
    }
}

impl Snapshot {
    /// The pools that a Service may have an address of, by name.
    pub fn pools_for<'a>(
        &'a self,
        service: &'a Service,
    ) -> impl Iterator<Item = &'a LoadBalancerPool> {
        let balancer = service.outside.load_balancer.as_deref();
        let balancer = balancer.filter(|balancer| balancer.wanted);
        let name = &service.name.namespace;
        // Without the object, which may come later, it is known by its name alone.
        let known = self.namespaces.get(name).cloned();
        let namespace = known.unwrap_or_else(|| Namespace::new(name));
        let pools = balancer.into_iter().flat_map(move |balancer| {
            let class = balancer.class.as_deref();
            let pools = self.pools.values();
            pools.filter(move |pool| {
                pool.is_for_class(class) && pool.service_selector.matches(&balancer.labels)
            })
        });
        pools.filter(move |pool| {
            let named = pool.namespaces.is_empty() || pool.namespaces.contains(&namespace.name);
            named && pool.namespace_selector.matches(&namespace.labels)
        })
    }

    /// The pool that an address of a Service is from: the first by name of those for the Service.
    #[must_use]
    pub fn pool_of(&self, service: &Service, address: IpAddr) -> Option<&LoadBalancerPool> {
        let mut pools = self.pools_for(service);
        // Not returned at once: the iterator borrows the Service as well.
        let name = pools
            .find(|pool| pool.contains(address))
            .map(|pool| &pool.name)?;
        self.pools.get(name)
    }
}

/// Addresses from one to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

/// What is not a range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an address, a CIDR or FIRST-LAST")]
pub struct NotARange;

impl AddressRange {
    /// The lowest address.
    #[must_use]
    pub const fn first(&self) -> IpAddr {
        self.first
    }

    /// The family of all.
    #[must_use]
    pub const fn family(&self) -> Family {
        Family::of(self.first)
    }

    /// Whether an address is one of them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        // Addresses of different families are ordered, too.
        self.first.is_ipv4() == address.is_ipv4() && (self.first..=self.last).contains(&address)
    }

    /// The address behind this one, if it is in the range.
    #[must_use]
    pub fn after(&self, address: IpAddr) -> Option<IpAddr> {
        let next: IpAddr = match address {
            IpAddr::V4(four) => IpAddr::V4(u32::from(four).checked_add(1)?.into()),
            IpAddr::V6(six) => IpAddr::V6(u128::from(six).checked_add(1)?.into()),
        };
        self.contains(next).then_some(next)
    }

    /// Whether two ranges share an address.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.first) || other.contains(self.first)
    }

    /// Whether it shares an address with a network.
    #[must_use]
    pub fn meets(&self, network: &IpNet) -> bool {
        self.overlaps(&Self::from(*network))
    }
}

impl From<IpNet> for AddressRange {
    /// All addresses of the network: load balancers' addresses are hosts of their own, whose network may use the first
    /// and the last as well.
    fn from(network: IpNet) -> Self {
        Self {
            first: network.network(),
            last: network.broadcast(),
        }
    }
}

impl FromStr for AddressRange {
    type Err = NotARange;

    fn from_str(text: &str) -> Result<Self, NotARange> {
        let text = text.trim();
        if let Ok(network) = text.parse::<IpNet>() {
            return Ok(network.into());
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let address = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| NotARange);
        let (first, last) = (address(first)?, address(last)?);
        match first.is_ipv4() == last.is_ipv4() && first <= last {
            true => Ok(Self { first, last }),
            false => Err(NotARange),
        }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_written_in_three_ways() {
        for (text, wanted) in [
            ("192.0.2.7", Some("192.0.2.7")),
            ("192.0.2.0/30", Some("192.0.2.0-192.0.2.3")),
            (" 192.0.2.5 - 192.0.2.9", Some("192.0.2.5-192.0.2.9")),
            ("fd00::200/127", Some("fd00::200-fd00::201")),
            ("fd00::1-fd00::ff", Some("fd00::1-fd00::ff")),
            ("192.0.2.9-192.0.2.5", None),
            ("192.0.2.9-fd00::1", None),
            ("192.0.2.0/33", None),
            ("office", None),
            ("", None),
        ] {
            let read = text.parse::<AddressRange>();
            let read = read.map(|range| range.to_string()).ok();
            assert_eq!(read.as_deref(), wanted, "{text:?}");
        }
    }

    #[test]
    fn a_range_ends_where_it_ends() {
        let range: AddressRange = "192.0.2.254-192.0.2.255".parse().unwrap();
        let last = range.after(range.first()).unwrap();
        assert_eq!(last.to_string(), "192.0.2.255");
        assert_eq!(range.after(last), None);
        let all: AddressRange = "0.0.0.0/0".parse().unwrap();
        assert!(!all.contains("::1".parse().unwrap()));
        assert_eq!(all.after("255.255.255.255".parse().unwrap()), None);
        let network: IpNet = "192.0.2.255/32".parse().unwrap();
        assert!(range.meets(&network) && all.overlaps(&range));
    }
}
