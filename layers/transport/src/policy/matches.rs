//! [`Matches`]: which packets of one direction rules match, as peers and ports, each with the rule that does.
//!
//! ```text
//!   everybody, at ports      tcp 8080                                 NetworkPolicy shop/web spec.ingress[0]
//!   hosts                    10.244.1.2                               …
//!   hosts, at ports          10.244.1.2 tcp 8080                      …
//!   groups, at ports         every pod tcp 9090                       …            (see `group.rs`)
//!   blocks                   10.0.0.0/8 without 10.1.0.0/16           …
//!   blocks, at ports         10.0.0.0/9 tcp 80-90                     …
//! ```
//!
//! Ports of one peer never overlap, nor do blocks: the kernel's interval sets take nothing else. What two rules
//! match is the first one's.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use parfait_packet::{Origin, Packet, Protocol};

use super::group::{Group, Grouped};

/// What is matched in one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matches {
    /// Everybody, everything.
    pub all: Option<Origin>,
    /// Everybody, at these ports.
    pub ports: Ports,
    /// These addresses, everything.
    pub hosts: Arc<BTreeMap<IpAddr, Origin>>,
    /// These addresses, at ports.
    pub host_ports: Arc<BTreeMap<IpAddr, Ports>>,
    /// The addresses of peers that mean very many, by the names of their sets.
    pub groups: BTreeMap<String, (Arc<Group>, Grouped)>,
    /// These ranges of addresses, everything.
    pub blocks: Arc<BTreeMap<IpNet, Origin>>,
    /// These ranges of addresses, at ports.
    pub block_ports: Arc<BTreeMap<IpNet, Ports>>,
}

/// Ports of a protocol, from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRange {
    /// The protocol.
    pub protocol: Protocol,
    /// The first port.
    pub first: u16,
    /// The last one.
    pub last: u16,
}

/// Ranges that do not overlap, in order. Mostly one or two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports(Vec<(PortRange, Origin)>);

impl Ports {
    /// The ranges.
    pub fn iter(&self) -> impl Iterator<Item = (&PortRange, &Origin)> {
        self.0.iter().map(|(range, by)| (range, by))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What matches a port.
    #[must_use]
    pub fn find(&self, protocol: Protocol, port: u16) -> Option<&Origin> {
        let mut ranges = self.iter();
        let holds = |range: &PortRange| {
            range.protocol == protocol && range.first <= port && port <= range.last
        };
        ranges.find(|(range, _)| holds(range)).map(|(_, by)| by)
    }

    /// Adds what of a range is not there yet.
    fn add(&mut self, range: PortRange, by: &Origin) {
        let mut free = Vec::new();
        let mut next = Some(range.first);
        let taken = self.iter().map(|(taken, _)| taken);
        let taken = taken.filter(|taken| taken.protocol == range.protocol);
        for taken in taken.filter(|taken| taken.first <= range.last && range.first <= taken.last) {
            let Some(first) = next else { break };
            if first < taken.first {
                free.push((first, taken.first - 1));
            }
            next = taken.last.checked_add(1);
        }
        free.extend(
            next.filter(|first| *first <= range.last)
                .map(|first| (first, range.last)),
        );
        for (first, last) in free {
            let rest = PortRange {
                first,
                last,
                ..range
            };
            let at = self.0.partition_point(|(other, _)| *other < rest);
            self.0.reserve_exact(1);
            self.0.insert(at, (rest, by.clone()));
        }
    }
}

/// Rules of policies, being added one by one.
#[derive(Debug, Default)]
pub(super) struct Collected {
    matches: Matches,
    blocks: BTreeMap<IpNet, Origin>,
    block_ports: BTreeMap<IpNet, Vec<(PortRange, Origin)>>,
}

impl Collected {
    /// Everybody; at these ports, or anything.
    pub(super) fn everybody(&mut self, ports: Option<&[PortRange]>, by: &Origin) {
        match ports {
            None => drop(self.matches.all.get_or_insert_with(|| by.clone())),
            Some(ports) => add_all(&mut self.matches.ports, ports, by),
        }
    }

    /// An address.
    pub(super) fn host(&mut self, address: IpAddr, ports: Option<&[PortRange]>, by: &Origin) {
        match ports {
            None => {
                let host = Arc::make_mut(&mut self.matches.hosts).entry(address);
                host.or_insert_with(|| by.clone());
            }
            Some([]) => {}
            Some(ports) => {
                let hosts = Arc::make_mut(&mut self.matches.host_ports);
                add_all(hosts.entry(address).or_default(), ports, by);
            }
        }
    }

    /// Whether a group is one of those so far, and how many these are.
    pub(super) fn groups(&self, group: &Group) -> (bool, usize) {
        let groups = &self.matches.groups;
        (groups.contains_key(&group.name), groups.len())
    }

    /// All addresses of a group.
    pub(super) fn group(&mut self, group: &Arc<Group>, ports: Option<&[PortRange]>, by: &Origin) {
        if ports.is_some_and(<[_]>::is_empty) {
            return;
        }
        let known = self.matches.groups.entry(group.name.clone());
        let (_, grouped) = known.or_insert_with(|| (Arc::clone(group), Grouped::default()));
        match ports {
            None => drop(grouped.all.get_or_insert_with(|| by.clone())),
            Some(ports) => add_all(&mut grouped.ports, ports, by),
        }
    }

    /// A range of addresses, without some of them.
    pub(super) fn block(
        &mut self,
        cidr: IpNet,
        except: &[IpNet],
        ports: Option<&[PortRange]>,
        by: &Origin,
    ) {
        for net in without(cidr, except) {
            match ports {
                None => {
                    let block = self.blocks.entry(net);
                    block.or_insert_with(|| by.clone());
                }
                Some(ports) => {
                    let ports = ports.iter().map(|range| (*range, by.clone()));
                    self.block_ports.entry(net).or_default().extend(ports);
                }
            }
        }
    }

    /// What is matched in all. What is matched anyway is not named twice.
    pub(super) fn finish(mut self) -> Matches {
        if self.matches.all.is_some() {
            return Matches {
                all: self.matches.all,
                ..Matches::default()
            };
        }
        let hosts = &self.matches.hosts;
        Arc::make_mut(&mut self.matches.host_ports)
            .retain(|address, _| !hosts.contains_key(address));
        let groups = self.matches.groups.values_mut();
        for (_, grouped) in groups.filter(|(_, grouped)| grouped.all.is_some()) {
            grouped.ports = Ports::default();
        }
        let mut blocks: BTreeMap<IpNet, Origin> = BTreeMap::new();
        for (net, by) in self.blocks {
            // A range sorts behind every one that it lies in.
            let last = blocks.keys().next_back();
            if !last.is_some_and(|last| last.contains(&net)) {
                blocks.insert(net, by);
            }
        }
        self.matches.blocks = Arc::new(blocks);
        self.matches.block_ports = Arc::new(disjoint(&self.block_ports));
        self.matches
    }
}

fn add_all(to: &mut Ports, ports: &[PortRange], by: &Origin) {
    for range in ports {
        to.add(*range, by);
    }
}

/// Ranges of addresses that do not overlap, each with the ports of all that it lies in.
fn disjoint(blocks: &BTreeMap<IpNet, Vec<(PortRange, Origin)>>) -> BTreeMap<IpNet, Ports> {
    let mut disjoint = BTreeMap::new();
    // The ranges that the present one lies in. A range sorts behind those.
    let mut wider: Vec<IpNet> = Vec::new();
    let nets: Vec<IpNet> = blocks.keys().copied().collect();
    for (index, net) in nets.iter().enumerate() {
        wider.retain(|wider| wider.contains(net));
        wider.push(*net);
        let mut ports = Ports::default();
        for (range, by) in wider.iter().filter_map(|net| blocks.get(net)).flatten() {
            ports.add(*range, by);
        }
        let within = nets[index + 1..]
            .iter()
            .take_while(|other| net.contains(*other));
        let within: Vec<IpNet> = within.copied().collect();
        for part in without(*net, &within) {
            disjoint.insert(part, ports.clone());
        }
    }
    disjoint
}

/// The ranges that are left of one when others are taken out of it.
pub(super) fn without(net: IpNet, holes: &[IpNet]) -> Vec<IpNet> {
    if holes.iter().any(|hole| hole.contains(&net)) {
        return Vec::new();
    }
    let within = holes.iter().filter(|hole| net.contains(*hole));
    let within: Vec<IpNet> = within.copied().collect();
    if within.is_empty() {
        return vec![net];
    }
    let halves = net.subnets(net.prefix_len() + 1).into_iter().flatten();
    halves.flat_map(|half| without(half, &within)).collect()
}

impl Matches {
    /// The rules that match anything, each as often as it does.
    pub(super) fn rules(&self) -> impl Iterator<Item = &Origin> {
        let ports = [&self.ports].into_iter().chain(self.host_ports.values());
        let groups = || self.groups.values().map(|(_, grouped)| grouped);
        let ports = ports.chain(self.block_ports.values());
        let ports = ports.chain(groups().map(|grouped| &grouped.ports));
        let ports = ports.flat_map(|ports| ports.iter().map(|(_, by)| by));
        let whole = self.hosts.values().chain(self.blocks.values());
        let whole = whole.chain(groups().filter_map(|grouped| grouped.all.as_ref()));
        self.all.iter().chain(whole).chain(ports)
    }

    /// Whether it is the same in the kernel, where groups have sets of their own.
    pub(super) fn is_lowered_as(&self, other: &Self) -> bool {
        let (mine, others) = (self.groups.iter(), other.groups.iter());
        let others = others.map(|(name, (_, grouped))| (name, grouped));
        let groups = mine.map(|(name, (_, grouped))| (name, grouped)).eq(others);
        let anybody = (&self.all, &self.ports) == (&other.all, &other.ports);
        let hosts = self.hosts == other.hosts && self.host_ports == other.host_ports;
        let blocks = self.blocks == other.blocks && self.block_ports == other.block_ports;
        anybody && hosts && blocks && groups
    }

    /// Whether any peer but a range is meant by this address.
    #[must_use]
    pub fn names(&self, address: IpAddr) -> bool {
        let is_host = self.hosts.contains_key(&address) || self.host_ports.contains_key(&address);
        is_host || self.grouped(address).next().is_some()
    }

    /// What is matched of the groups that hold an address.
    pub(super) fn grouped(&self, address: IpAddr) -> impl Iterator<Item = &Grouped> {
        let groups = self.groups.values();
        let groups = groups.filter(move |(group, _)| group.holds(address));
        groups.map(|(_, grouped)| grouped)
    }

    /// What matches a packet of which the peer has this address.
    #[must_use]
    pub fn find(&self, peer: IpAddr, packet: &Packet) -> Option<&Origin> {
        fn around<V>(nets: &BTreeMap<IpNet, V>, address: IpAddr) -> Option<&V> {
            let mut nets = nets.iter();
            nets.find(|(net, _)| net.contains(&address))
                .map(|(_, found)| found)
        }
        let groups: Vec<&Grouped> = self.grouped(peer).collect();
        let at = [
            Some(&self.ports),
            self.host_ports.get(&peer),
            around(&self.block_ports, peer),
        ];
        let at = at.into_iter().flatten();
        let mut at = at.chain(groups.iter().map(|grouped| &grouped.ports));
        let anything = self.all.as_ref();
        anything
            .or_else(|| self.hosts.get(&peer))
            .or_else(|| groups.iter().find_map(|grouped| grouped.all.as_ref()))
            .or_else(|| around(&self.blocks, peer))
            .or_else(|| at.find_map(|ports| ports.find(packet.protocol, packet.destination_port)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_overlap_are_the_first_rules() {
        let by = Origin::parfait;
        let range = |first, last| PortRange {
            protocol: Protocol::Tcp,
            first,
            last,
        };
        let mut ports = Ports::default();
        for (first, last, name) in [
            (80, 90, "a"),
            (85, 100, "b"),
            (70, 110, "c"),
            (0, 65_535, "d"),
            (5, 6, "e"),
        ] {
            ports.add(range(first, last), &by(name));
        }
        let found: Vec<_> = ports
            .iter()
            .map(|(range, by)| (range.first, range.last, by.name.as_str()))
            .collect();
        let wanted = [
            (0, 69, "d"),
            (70, 79, "c"),
            (80, 90, "a"),
            (91, 100, "b"),
            (101, 110, "c"),
            (111, 65_535, "d"),
        ];
        assert_eq!(found, wanted);
        assert_eq!(ports.find(Protocol::Udp, 80), None);
    }

    #[test]
    fn what_is_taken_out_of_a_range_leaves_ranges() {
        let net = |text: &str| text.parse::<IpNet>().expect("a CIDR");
        let left = |cidr: &str, holes: &[&str]| {
            let holes: Vec<_> = holes.iter().map(|hole| net(hole)).collect();
            let left = without(net(cidr), &holes);
            left.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(left("10.0.0.0/8", &[]), ["10.0.0.0/8"]);
        assert_eq!(left("10.0.0.0/8", &["10.0.0.0/7"]), [""; 0]);
        assert_eq!(
            left("10.0.0.0/30", &["10.0.0.1/32", "10.0.0.0/31"]),
            ["10.0.0.2/31"]
        );
        assert_eq!(
            left("fd00::/126", &["fd00::3/128"]),
            ["fd00::/127", "fd00::2/128"]
        );
    }
}
