//! [`Pool`]: the ranges of a node, and which of their addresses is given next. Pure.
//!
//! ```text
//!   10.244.1.0/24     .0 nobody's   .1 the node's own   .2 … .254 pods'   .255 broadcast
//!   fd00:10:244:1::/64  ::0 nobody's  ::1 the node's own  ::2 … pods'
//! ```
//!
//! A pod gets one address of each family that has a range. Several ranges of a family are used up in
//! their order. An address that was given back is not given again before all others of its range
//! were: who still sends to it should not reach another pod.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use parfait_packet::Family;

use crate::error::{Code, Error};
use crate::ipam::store::Name;

/// Ranges that do not overlap and have addresses to give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    ranges: Vec<IpNet>,
}

/// The address of each range that was given last.
pub(super) type Last = BTreeMap<String, IpAddr>;

/// What is taken, and by whom.
pub(super) struct Taken<'a> {
    pub owners: BTreeMap<IpAddr, &'a Name>,
    /// An owner for people.
    pub describe: &'a dyn Fn(&Name) -> String,
}

impl Pool {
    /// Parses the ranges of a node. `foreign` are addresses and ranges that pods must not get, and
    /// what they are: the node's own addresses, the Services' ranges.
    ///
    /// # Errors
    /// If there is none, one is too small, two overlap, or one has a foreign address. Then pods
    /// cannot be attached: no part of it is used.
    pub fn parse(ranges: &[IpNet], foreign: &[(IpNet, &str)]) -> Result<Self, Error> {
        let refused = |message: String, advice: &str| {
            Err(Error::new(Code::InvalidConfig, message).advise(advice))
        };
        let ranges: Vec<IpNet> = ranges.iter().map(IpNet::trunc).collect();
        for (position, range) in ranges.iter().enumerate() {
            if bounds(range).is_none() {
                return refused(
                    format!(
                        "this node's pod range {range} is too small: a range's first two addresses, and the last of IPv4, are no pod's"
                    ),
                    "Use ranges of at least 4 addresses (/30, /126), better /24 and /64 (the controller manager's --node-cidr-mask-size).",
                );
            }
            if let Some(other) = ranges[..position]
                .iter()
                .find(|other| overlap(other, range))
            {
                return refused(
                    format!("this node's pod ranges {other} and {range} overlap"),
                    "An address would have two owners: take one of them away (Node.spec.podCIDRs, extraCIDRs in node.json).",
                );
            }
            let own = nth(range, 1);
            let covered = foreign
                .iter()
                .find(|(net, _)| overlap(net, range) && *net != IpNet::from(own));
            if let Some((net, what)) = covered {
                return refused(
                    format!("this node's pod range {range} overlaps with {what} {net}"),
                    "A pod could get an address that is another's: choose a pod range apart from the machines' network and from the Services' range.",
                );
            }
        }
        Ok(Self { ranges })
    }

    /// The ranges, in the order in which they are used up.
    #[must_use]
    pub fn ranges(&self) -> &[IpNet] {
        &self.ranges
    }

    /// The families that pods get an address of, IPv4 first.
    #[must_use]
    pub fn families(&self) -> BTreeSet<Family> {
        self.ranges
            .iter()
            .map(|range| Family::of(range.addr()))
            .collect()
    }

    /// Whether these are such addresses as this pool gives: one of each family, in it.
    #[must_use]
    pub fn fits(&self, addresses: &[IpAddr]) -> bool {
        let of: Vec<_> = addresses.iter().map(|ip| Family::of(*ip)).collect();
        let all = addresses.iter().all(|ip| self.range_of(*ip).is_some());
        all && self.families().into_iter().eq(of)
    }

    fn range_of(&self, address: IpAddr) -> Option<&IpNet> {
        self.ranges.iter().find(|range| range.contains(&address))
    }

    /// How many addresses of a range can be given, whoever has them.
    #[must_use]
    pub fn size(range: &IpNet) -> u128 {
        bounds(range).map_or(0, |(first, last)| (last - first).saturating_add(1))
    }

    /// Chooses one address of each family: the one that is wished for, or the next free one.
    ///
    /// # Errors
    /// If a wish cannot be fulfilled, or a family is exhausted.
    pub(super) fn choose(
        &self,
        wished: &[IpAddr],
        taken: &Taken<'_>,
        last: &Last,
    ) -> Result<Vec<IpAddr>, Error> {
        one_of_each(wished)?;
        for address in wished {
            self.may_have(*address, taken)?;
        }
        let next = |family: Family| match wished.iter().find(|ip| Family::of(**ip) == family) {
            Some(address) => Ok(*address),
            None => self.next(family, taken, last),
        };
        self.families().into_iter().map(next).collect()
    }

    fn may_have(&self, address: IpAddr, taken: &Taken<'_>) -> Result<(), Error> {
        let Some(range) = self.range_of(address) else {
            let ranges: Vec<_> = self.ranges.iter().map(ToString::to_string).collect();
            let message = format!(
                "the address {address} that is asked for is in none of this node's pod ranges ({})",
                ranges.join(", ")
            );
            return Err(Error::new(Code::InvalidConfig, message)
                .advise("Ask for one in them, or bind the pod to the node that has it (spec.nodeName, a node selector)."));
        };
        if let Some(what) = reserved(range, address) {
            let message = format!("the address {address} that is asked for is {what} of {range}");
            return Err(Error::new(Code::InvalidConfig, message).advise("Ask for another one."));
        }
        match taken.owners.get(&address) {
            None => Ok(()),
            Some(owner) => {
                let owner = (taken.describe)(owner);
                let message =
                    format!("the address {address} that is asked for is in use by {owner}");
                Err(Error::new(Code::TryAgainLater, message)
                    .advise("Delete the pod that has it, or ask for another one."))
            }
        }
    }

    fn next(&self, family: Family, taken: &Taken<'_>, last: &Last) -> Result<IpAddr, Error> {
        let ranges = self
            .ranges
            .iter()
            .filter(|range| Family::of(range.addr()) == family);
        ranges
            .clone()
            .find_map(|range| {
                let last = last.get(&range.to_string()).copied();
                free(range, last, |ip| taken.owners.contains_key(ip))
            })
            .ok_or_else(|| {
                let used = |range: &IpNet| {
                    let used = taken.owners.keys().filter(|ip| range.contains(*ip)).count();
                    format!("{range} ({used} in use)")
                };
                let ranges: Vec<_> = ranges.map(used).collect();
                exhausted(&ranges.join(", "))
            })
    }

    /// Notes the address of each range that was given last.
    pub(super) fn note(&self, given: &[IpAddr], last: &mut Last) {
        last.retain(|range, _| self.ranges.iter().any(|own| own.to_string() == *range));
        for address in given {
            if let Some(range) = self.range_of(*address) {
                last.insert(range.to_string(), *address);
            }
        }
    }
}

fn one_of_each(wished: &[IpAddr]) -> Result<(), Error> {
    for family in Family::ALL {
        let of: Vec<_> = wished
            .iter()
            .filter(|ip| Family::of(**ip) == family)
            .collect();
        if let [first, second, ..] = of[..] {
            let message = format!(
                "{first} and {second} are asked for, but a pod has one address of a family"
            );
            return Err(Error::new(Code::InvalidConfig, message)
                .advise("Ask for one IPv4 and one IPv6 address at most."));
        }
    }
    Ok(())
}

/// The first free address after the last one given, around the end of the range. Looks at no more
/// addresses than are in use, and one.
fn free(range: &IpNet, last: Option<IpAddr>, used: impl Fn(&IpAddr) -> bool) -> Option<IpAddr> {
    let (first, end) = bounds(range)?;
    let start = match last.map(number) {
        Some(last) if (first..end).contains(&last) => last + 1,
        _ => first,
    };
    (start..=end)
        .chain(first..start)
        .map(|candidate| address(candidate, range))
        .find(|candidate| !used(candidate))
}

/// What no pod may have, in words.
fn reserved(range: &IpNet, address: IpAddr) -> Option<&'static str> {
    let (first, last) = bounds(range)?;
    let wanted = number(address);
    match wanted {
        _ if wanted == number(range.network()) => Some("the first address, nobody's,"),
        _ if wanted < first => Some("the node's own address"),
        _ if wanted > last => Some("the broadcast address"),
        _ => None,
    }
}

/// The first and last number that may be given: neither `.0`, `.1`, nor the IPv4 broadcast address.
fn bounds(range: &IpNet) -> Option<(u128, u128)> {
    let first = number(range.network()).checked_add(2)?;
    let last = number(range.broadcast());
    let last = match range {
        IpNet::V4(_) => last.checked_sub(1)?,
        IpNet::V6(_) => last,
    };
    (first <= last).then_some((first, last))
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

fn nth(range: &IpNet, offset: u128) -> IpAddr {
    address(number(range.network()).saturating_add(offset), range)
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn address(number: u128, range: &IpNet) -> IpAddr {
    match range {
        // Numbers come from within the range, so that they fit its family.
        IpNet::V4(_) => Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        IpNet::V6(_) => Ipv6Addr::from(number).into(),
    }
}

fn exhausted(ranges: &str) -> Error {
    let message = format!("no address is left in this node's pod ranges: {ranges}");
    Error::new(Code::Exhausted, message).advise(
        "Delete pods from this node, or give nodes larger ranges (the controller manager's --node-cidr-mask-size). What is provably dead was taken back already.",
    )
}
