//! [`Group`]: the addresses of a peer that means very many pods, or that very many name. They are in one set, which all that
//! name the peer look up, instead of in a set of each of them; so a pod that comes costs one element, whatever names it.
//!
//! ```text
//!   set peers-5d1c0a2b9e3f4a77 { type ipv4_addr; elements = { 10.244.1.2, 10.244.1.3, … } }
//!   ip saddr @peers-5d1c0a2b9e3f4a77 meta l4proto . th dport @ingress-shop-3f29c1d04a11-peers-5d1c0a2b9e3f4a77-ports accept
//! ```
//!
//! Which peers are groups follows from the cluster as it is (`Groups::settle`), so nothing depends on what was there
//! before. Where a peer becomes one or none any more, `LARGE` and `MANY` bound what is written anew, so that it may do so
//! with every pod that comes and goes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use parfait_cluster::Peer;
use parfait_linux::attachment::fnv1a;
use parfait_packet::Origin;

use super::classes::Key;
use super::matches::Ports;
use super::members::{Members, Moved};

/// A peer that would be more elements than this in the sets of the classes that name it is a group.
pub const LARGE: usize = 256;

/// So is one that more classes than this name, however few it means now: whoever it means next would come to all of them.
const MANY: usize = 16;

/// A class looks up no more groups than this, but for those of more than [`LARGE`] addresses: each costs a packet one or
/// two look-ups. The addresses of others are in the class's own sets.
const MOST: usize = 4;

/// What their sets' names begin with.
pub(super) const PREFIX: &str = "peers-";

/// The addresses of all that one peer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its set.
    pub name: String,
    /// In order; one that two have is there twice.
    addresses: Vec<IpAddr>,
}

/// What of a group is matched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grouped {
    /// Everything.
    pub all: Option<Origin>,
    /// These ports.
    pub ports: Ports,
}

impl Group {
    /// Its addresses, in order.
    #[must_use]
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Whether somebody in it has this address.
    #[must_use]
    pub fn holds(&self, address: IpAddr) -> bool {
        self.addresses.binary_search(&address).is_ok()
    }

    /// One member's addresses become others.
    pub(super) fn change(&mut self, before: &[IpAddr], after: &[IpAddr]) {
        for address in before {
            if let Ok(at) = self.addresses.binary_search(address) {
                self.addresses.remove(at);
            }
        }
        for address in after {
            let at = self.addresses.binary_search(address);
            self.addresses.insert(at.unwrap_or_else(|at| at), *address);
        }
    }
}

/// The namespace whose pods a peer means (empty, if it selects namespaces), and the peer.
pub(super) type Named = (String, Arc<Peer>);

/// All groups of one node, and what decides which there are.
#[derive(Debug)]
pub(super) struct Groups {
    /// By what makes them [`Named`].
    known: BTreeMap<String, BTreeMap<Arc<Peer>, Known>>,
    /// Whom the NetworkPolicies of a class name.
    of_class: BTreeMap<Arc<Key>, Vec<Named>>,
    /// More elements than this are worth one.
    pub(super) large: usize,
    many: usize,
    most: usize,
}

/// What is known of a peer.
#[derive(Debug, Default)]
struct Known {
    /// NetworkPolicies of so many classes name it.
    users: usize,
    /// It means so many addresses.
    addresses: usize,
    group: Option<Arc<Group>>,
}

/// Which peers are groups since the last time, and which were.
#[derive(Debug, Default)]
pub(super) struct Settled {
    pub(super) made: BTreeSet<Named>,
    /// The names of their sets.
    pub(super) gone: BTreeSet<String>,
}

impl Groups {
    /// None yet.
    pub(super) fn new(large: usize) -> Self {
        Self {
            known: BTreeMap::new(),
            of_class: BTreeMap::new(),
            large,
            many: (large / (LARGE / MANY)).max(1),
            most: MOST.min(large),
        }
    }

    fn find(&self, whose: &str, peer: &Peer) -> Option<&Known> {
        self.known.get(whose)?.get(peer)
    }

    fn known_mut(&mut self, (whose, peer): &Named) -> Option<&mut Known> {
        self.known.get_mut(whose)?.get_mut(peer)
    }

    /// The group of a peer.
    pub(super) fn of(&self, whose: &str, peer: &Peer) -> Option<&Arc<Group>> {
        self.find(whose, peer)?.group.as_ref()
    }

    /// Whether a class that looks up so many groups looks up this one, too.
    pub(super) const fn has_room_for(&self, group: &Group, so_many: usize) -> bool {
        group.addresses.len() > self.large || so_many < self.most
    }

    /// Whether a class names more groups than it looks up.
    pub(super) fn are_too_many(&self, class: &Key) -> bool {
        let named = self.of_class.get(class).into_iter().flatten();
        let groups = named.filter(|(whose, peer)| self.of(whose, peer).is_some());
        groups.count() > self.most
    }

    /// From now on the NetworkPolicies of a class name these.
    pub(super) fn name<'a>(
        &mut self,
        class: &Arc<Key>,
        named: BTreeSet<(&'a str, &'a Peer)>,
        members: &Members,
    ) {
        self.forget(class);
        let mut all = Vec::new();
        for (whose, peer) in named {
            let there = self.known.entry(whose.to_owned()).or_default();
            let known = there.get_key_value(peer).map(|(peer, _)| Arc::clone(peer));
            let peer = known.unwrap_or_else(|| Arc::new(peer.clone()));
            let known = there.entry(Arc::clone(&peer)).or_insert_with(|| Known {
                addresses: addresses(members, whose, &peer).count(),
                ..Known::default()
            });
            known.users += 1;
            all.push((whose.to_owned(), peer));
        }
        self.of_class.insert(Arc::clone(class), all);
    }

    fn forget(&mut self, class: &Key) {
        for named in self.of_class.remove(class).into_iter().flatten() {
            if let Some(known) = self.known_mut(&named) {
                known.users -= 1;
            }
        }
    }

    /// Forgets whom all classes but these name.
    pub(super) fn keep(&mut self, used: &BTreeSet<Arc<Key>>) {
        let gone = self.of_class.keys().filter(|class| !used.contains(*class));
        for class in gone.cloned().collect::<Vec<_>>() {
            self.forget(&class);
        }
    }

    /// The classes of which NetworkPolicies name any of these.
    pub(super) fn naming(&self, peers: &BTreeSet<Named>) -> impl Iterator<Item = &Arc<Key>> {
        let classes = self.of_class.iter();
        let classes = classes.filter(|(_, named)| named.iter().any(|one| peers.contains(one)));
        classes.map(|(class, _)| class)
    }

    /// Makes the group of a peer that no NetworkPolicy names, if these addresses are worth one.
    pub(super) fn make(
        &mut self,
        whose: &str,
        peer: &Peer,
        addresses: impl Iterator<Item = IpAddr>,
    ) -> Option<Arc<Group>> {
        let addresses: Vec<IpAddr> = addresses.collect();
        if addresses.len() <= self.large || self.find(whose, peer).is_some() {
            return None;
        }
        let known = Known {
            users: 0,
            addresses: addresses.len(),
            group: Some(Group::new(whose, peer, addresses, self)),
        };
        let group = known.group.clone();
        let there = self.known.entry(whose.to_owned()).or_default();
        there.insert(Arc::new(peer.clone()), known);
        group
    }

    /// What a change of the cluster makes of them. Those that are others now come to `changed`, by name.
    pub(super) fn follow(
        &mut self,
        moved: &Moved,
        members: &Members,
        changed: &mut BTreeMap<String, Arc<Group>>,
    ) {
        // Whom peers of other namespaces' own pods mean is the same.
        for whose in ["", moved.namespace()] {
            for (peer, known) in self.known.get_mut(whose).into_iter().flatten() {
                for (before, after) in moved.in_peer(members, whose, peer) {
                    known.addresses = known.addresses + after.len() - before.len();
                    if let Some(group) = &mut known.group {
                        Arc::make_mut(group).change(before, after);
                        changed.insert(group.name.clone(), Arc::clone(group));
                    }
                }
            }
        }
    }

    /// Makes the groups that are worth it now, and forgets those that are not.
    pub(super) fn settle(&mut self, members: &Members) -> Settled {
        let mut settled = Settled::default();
        let (large, many) = (self.large, self.many);
        for (whose, there) in &mut self.known {
            for (peer, known) in there {
                let elements = known.addresses.saturating_mul(known.users.max(1));
                let is_worth = elements > large || known.users > many;
                match &known.group {
                    Some(group) if !is_worth => {
                        settled.gone.insert(group.name.clone());
                        known.group = None;
                    }
                    None if is_worth => {
                        settled.made.insert((whose.clone(), Arc::clone(peer)));
                    }
                    _ => {}
                }
            }
        }
        for named in &settled.made {
            let (whose, peer) = named;
            let all = addresses(members, whose, peer).collect();
            let group = Group::new(whose, peer, all, self);
            if let Some(known) = self.known_mut(named) {
                known.group = Some(group);
            }
        }
        self.sweep(|known| known.users > 0 || known.group.is_some());
        settled
    }

    /// Forgets those that only ClusterNetworkPolicies named, unless they still do.
    pub(super) fn keep_named<'a>(&mut self, named: impl FnOnce() -> BTreeSet<&'a str>) {
        let known = self.known.values().flat_map(BTreeMap::values);
        if known.into_iter().all(|known| known.users > 0) {
            return;
        }
        let named = named();
        let is_named = |group: &Arc<Group>| named.contains(group.name.as_str());
        self.sweep(|known| known.users > 0 || known.group.as_ref().is_some_and(is_named));
    }

    fn sweep(&mut self, keep: impl Fn(&Known) -> bool) {
        self.known.retain(|_, there| {
            there.retain(|_, known| keep(known));
            !there.is_empty()
        });
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Group>> {
        let known = self.known.values().flat_map(BTreeMap::values);
        known.filter_map(|known| known.group.as_ref())
    }
}

impl Group {
    /// With a name that no other has: nobody's peer can be taken for somebody else's.
    fn new(whose: &str, peer: &Peer, mut addresses: Vec<IpAddr>, groups: &Groups) -> Arc<Self> {
        let hash = fnv1a(&[format!("{whose:?} {peer:?}").as_bytes()]);
        let name = format!("{PREFIX}{hash:016x}");
        let more = (2..).map(|number| format!("{name}-{number}"));
        let mut all = [name.clone()].into_iter().chain(more);
        let taken = |name: &String| groups.all().any(|group| group.name == *name);
        let name = all.find(|name| !taken(name)).unwrap_or(name);
        addresses.sort_unstable();
        Arc::new(Self { name, addresses })
    }
}

/// The addresses that a peer means.
fn addresses<'m>(
    members: &'m Members,
    whose: &'m str,
    peer: &'m Peer,
) -> impl Iterator<Item = IpAddr> + 'm {
    let members = members.meant(whose, peer);
    members.flat_map(|member| member.addresses.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_two_have_stays_until_both_are_gone() {
        let ip = |last: u8| IpAddr::from([10, 0, 0, last]);
        let mut group = Group {
            name: "peers-1".to_owned(),
            addresses: vec![ip(1), ip(2)],
        };
        group.change(&[], &[ip(2), ip(3)]);
        assert_eq!(group.addresses(), [ip(1), ip(2), ip(2), ip(3)]);
        group.change(&[ip(2)], &[]);
        assert!(group.holds(ip(2)));
        group.change(&[ip(2)], &[ip(4)]);
        assert!(!group.holds(ip(2)) && group.holds(ip(4)));
    }
}
