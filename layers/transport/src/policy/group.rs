//! [`Group`]: the addresses of a peer that means very many pods. They are in one set, which all that name the peer look up,
//! instead of in a set of each of them; so a pod that comes costs one element, whatever names it.
//!
//! ```text
//!   set peers-5d1c0a2b9e3f4a77 { type ipv4_addr; elements = { 10.244.1.2, 10.244.1.3, … } }
//!   ip saddr @peers-5d1c0a2b9e3f4a77 meta l4proto . th dport @ingress-shop-3f29c1d04a11-peers-5d1c0a2b9e3f4a77-ports accept
//! ```

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use parfait_cluster::Peer;
use parfait_linux::attachment::fnv1a;
use parfait_packet::Origin;

use super::matches::Ports;
use super::members::{Members, Moved};

/// A peer with more addresses than this has a set of its own.
pub const LARGE: usize = 256;

/// What their sets' names begin with.
pub(super) const PREFIX: &str = "peers-";

/// The addresses of all that one peer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its set.
    pub name: String,
    /// The namespace whose pods are meant, if the peer does not select any.
    pub whose: Option<String>,
    /// The peer.
    pub peer: Peer,
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

/// All groups of one node.
#[derive(Debug)]
pub(super) struct Groups {
    all: Vec<Arc<Group>>,
    /// So many addresses are not worth one.
    pub(super) large: usize,
}

impl Groups {
    /// None yet.
    pub(super) const fn new(large: usize) -> Self {
        Self {
            all: Vec::new(),
            large,
        }
    }

    /// The group of a peer.
    pub(super) fn of(&self, whose: Option<&str>, peer: &Peer) -> Option<Arc<Group>> {
        let mut groups = self.all.iter();
        let found = groups.find(|group| group.whose.as_deref() == whose && group.peer == *peer);
        found.cloned()
    }

    /// Makes one, if these addresses are worth it.
    pub(super) fn make(
        &mut self,
        whose: Option<&str>,
        peer: &Peer,
        addresses: impl Iterator<Item = IpAddr>,
    ) -> Option<Arc<Group>> {
        let mut addresses: Vec<IpAddr> = addresses.collect();
        if addresses.len() <= self.large {
            return None;
        }
        addresses.sort_unstable();
        let group = Arc::new(Group {
            name: self.name(whose, peer),
            whose: whose.map(str::to_owned),
            peer: peer.clone(),
            addresses,
        });
        self.all.push(Arc::clone(&group));
        Some(group)
    }

    /// A name that no other has: nobody's peer can be taken for somebody else's.
    fn name(&self, whose: Option<&str>, peer: &Peer) -> String {
        let hash = fnv1a(&[format!("{whose:?} {peer:?}").as_bytes()]);
        let name = format!("{PREFIX}{hash:016x}");
        let more = (2..).map(|number| format!("{name}-{number}"));
        let mut all = [name.clone()].into_iter().chain(more);
        let taken = |name: &String| self.all.iter().any(|group| group.name == *name);
        all.find(|name| !taken(name)).unwrap_or(name)
    }

    /// What a change of the cluster makes of them. Whether any is another now.
    pub(super) fn follow(&mut self, moved: &Moved, members: &Members) -> bool {
        let changed = self.all.iter_mut().map(|group| {
            let changes = moved.in_peer(members, group.whose.as_deref(), &group.peer);
            for (before, after) in &changes {
                Arc::make_mut(group).change(before, after);
            }
            !changes.is_empty()
        });
        changed.fold(false, |any, changed| any | changed)
    }

    /// As it is now.
    pub(super) fn called(&self, name: &str) -> Option<&Arc<Group>> {
        self.all.iter().find(|group| group.name == name)
    }

    /// Forgets those that are too small now.
    pub(super) fn shrink(&mut self) {
        let large = self.large;
        self.all.retain(|group| group.addresses.len() > large);
    }

    /// Forgets those that nobody names.
    pub(super) fn keep(&mut self, named: &BTreeSet<&str>) {
        self.all.retain(|group| named.contains(group.name.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_two_have_stays_until_both_are_gone() {
        let ip = |last: u8| IpAddr::from([10, 0, 0, last]);
        let peer = Peer::Pods {
            namespaces: None,
            pods: Default::default(),
        };
        let mut group = Group {
            name: "peers-1".to_owned(),
            whose: None,
            peer,
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
