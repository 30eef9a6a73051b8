//! [`diff()`]: the steps from what a kernel holds to what it should hold.
//!
//! Make before break: what is wanted is made first, in the order in which things need each other
//! (links, settings, addresses, neighbours and forwarding entries, routes); what is no longer wanted
//! goes last. Only a link of the wrong kind is removed first, since its name is needed.
//!
//! Only Parfait's own things are changed or removed; see [`Ownership`]. Where something foreign
//! stands in the way, a [`Step::Create`] is made none the less: executing it fails with what is in
//! the way, which an operator must see.
//!
//! Laws (see the tests): `diff(x, x)` is empty; applying the diff reaches the desired state, as far
//! as nothing foreign is in the way, and leaves foreign things as they were.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    FdbEntry, IfName, Item, Link, Object, Route, RouteProtocol, Scope, State, Step, SysctlKey,
};

/// What is Parfait's, so that nothing else is ever changed or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// Routes with this protocol, and addresses where the kernel keeps theirs.
    pub routes: RouteProtocol,
    /// Links of these names, with all addresses (except those that the kernel gives each link
    /// itself), permanent neighbours and forwarding entries on them.
    pub links: BTreeSet<IfName>,
}

impl Ownership {
    /// The agent's: its routes, and the links of these names.
    #[must_use]
    pub fn agent(links: impl IntoIterator<Item = IfName>) -> Self {
        Self {
            routes: RouteProtocol::PARFAIT,
            links: links.into_iter().collect(),
        }
    }
}

/// The steps that turn what is `observed` into what is `desired`.
///
/// `desired` holds at most one route of each destination and metric, and one forwarding entry of
/// each unicast Ethernet address and link, as the kernel does.
#[must_use]
pub fn diff(observed: &State, desired: &State, ownership: &Ownership) -> Vec<Step> {
    let mut steps = Vec::new();
    let gone = links(observed, desired, ownership, &mut steps);
    let there = Observed {
        state: observed,
        renumbered: renumbered(&steps, observed),
        gone,
        ownership,
    };
    there.make_settings(desired, &mut steps);
    there.make_addresses(desired, &mut steps);
    there.make_neighbours(desired, &mut steps);
    let moved_entries = there.make_fdb(desired, &mut steps);
    let moved_routes = there.make_routes(desired, &mut steps);
    there.remove_routes(desired, &moved_routes, &mut steps);
    there.remove_fdb(desired, &moved_entries, &mut steps);
    there.remove_neighbours(desired, &mut steps);
    there.remove_addresses(desired, &mut steps);
    steps
}

/// The steps for links, and the links that are not there afterwards or are there anew, empty.
fn links(
    observed: &State,
    desired: &State,
    ownership: &Ownership,
    steps: &mut Vec<Step>,
) -> BTreeSet<IfName> {
    let mut gone = BTreeSet::new();
    for (name, item) in &observed.links {
        let keep = match desired.links.get(name) {
            Some(wanted) => item.value.kind.satisfies(&wanted.value.kind),
            None => false,
        };
        if !keep && ownership.links.contains(name) {
            steps.push(Step::Delete(item.value.clone().into()));
            gone.insert(name.clone());
        }
    }
    for (name, item) in &desired.links {
        match observed.links.get(name).filter(|_| !gone.contains(name)) {
            None => steps.push(Step::Create(lift(item))),
            Some(old) if old.value.satisfies(&item.value) => {}
            Some(old) if ownership.links.contains(name) => {
                steps.push(Step::Change(Item::new(
                    Object::Link(merge(&old.value, &item.value)),
                    item.origin.clone(),
                )));
            }
            Some(_) => steps.push(Step::Create(lift(item))),
        }
    }
    gone
}

/// The links that get another Ethernet address. The kernel then forgets their neighbours, pinned ones
/// too (`neigh_changeaddr` in net/core/neighbour.c).
fn renumbered(steps: &[Step], observed: &State) -> BTreeSet<IfName> {
    let changed = steps.iter().filter_map(|step| match step {
        Step::Change(Item {
            value: Object::Link(link),
            ..
        }) => Some(link),
        _ => None,
    });
    let mac = |link: &Link| observed.links.get(&link.name).and_then(|old| old.value.mac);
    let other = changed.filter(|link| link.mac != mac(link));
    other.map(|link| link.name.clone()).collect()
}

/// The desired link, with what the plan leaves open as it is.
fn merge(old: &Link, wanted: &Link) -> Link {
    Link {
        kind: old.kind.clone(),
        mac: wanted.mac.or(old.mac),
        alias: wanted.alias.clone().or_else(|| old.alias.clone()),
        ..wanted.clone()
    }
}

fn lift<T: Clone + Into<Object>>(item: &Item<T>) -> Item<Object> {
    Item::new(item.value.clone().into(), item.origin.clone())
}

/// What is observed, without what lies on links that are gone by now.
struct Observed<'a> {
    state: &'a State,
    gone: BTreeSet<IfName>,
    renumbered: BTreeSet<IfName>,
    ownership: &'a Ownership,
}

impl Observed<'_> {
    fn owns(&self, link: &IfName) -> bool {
        self.ownership.links.contains(link) && !self.gone.contains(link)
    }

    fn owns_route(&self, route: &Route) -> bool {
        route.protocol == self.ownership.routes && !self.left(route)
    }

    /// Whether the route went with its link.
    fn left(&self, route: &Route) -> bool {
        route
            .link
            .as_ref()
            .is_some_and(|link| self.gone.contains(link))
    }

    /// Forwarding of IPv6 comes last: turning it on makes the kernel forget the default routes that it
    /// learned from routers, except on interfaces whose `accept_ra` is 2 by then
    /// (`rt6_purge_dflt_routers` in net/ipv6/route.c).
    fn make_settings(&self, desired: &State, steps: &mut Vec<Step>) {
        let forwarding = SysctlKey::forwarding(parfait_packet::Family::Ipv6);
        let (last, first): (Vec<_>, Vec<_>) = desired
            .sysctls
            .iter()
            .partition(|(key, _)| **key == forwarding);
        for (key, item) in first.into_iter().chain(last) {
            let old = self.state.sysctls.get(key);
            let anew = key.link().is_some_and(|link| self.gone.contains(&link));
            match old.filter(|_| !anew) {
                Some(old) if old.value.satisfies(&item.value) => {}
                Some(_) => steps.push(Step::Change(lift(item))),
                None => steps.push(Step::Create(lift(item))),
            }
        }
    }

    fn make_addresses(&self, desired: &State, steps: &mut Vec<Step>) {
        for (key, item) in &desired.addresses {
            let old = self.state.addresses.get(key);
            match old.filter(|_| !self.gone.contains(&key.0)) {
                Some(old) if old.value.satisfies(&item.value) => {}
                Some(_) if self.owns(&key.0) => steps.push(Step::Change(lift(item))),
                _ => steps.push(Step::Create(lift(item))),
            }
        }
    }

    fn remove_addresses(&self, desired: &State, steps: &mut Vec<Step>) {
        for (key, item) in &self.state.addresses {
            // The kernel gives each link its link-local IPv6 address (RFC 4291 section 2.5.6).
            let marked = item.value.protocol == Some(self.ownership.routes);
            let ours = match item.value.scope {
                Scope::Link => false,
                _ if self.gone.contains(&key.0) => false,
                _ => marked || self.owns(&key.0),
            };
            if ours && !desired.addresses.contains_key(key) {
                steps.push(Step::Delete(item.value.clone().into()));
            }
        }
    }

    /// A neighbour that the kernel learned by itself gives way to a planned one on any link.
    fn make_neighbours(&self, desired: &State, steps: &mut Vec<Step>) {
        for (key, item) in &desired.neighbours {
            let old = self.state.neighbours.get(key);
            match old.filter(|_| !self.gone.contains(&key.0)) {
                Some(old) if old == item && !self.renumbered.contains(&key.0) => {}
                Some(old) if self.owns(&key.0) || !old.value.permanent => {
                    steps.push(Step::Change(lift(item)));
                }
                _ => steps.push(Step::Create(lift(item))),
            }
        }
    }

    fn remove_neighbours(&self, desired: &State, steps: &mut Vec<Step>) {
        for (key, item) in &self.state.neighbours {
            let ours = self.owns(&key.0) && item.value.permanent;
            if ours && !desired.neighbours.contains_key(key) {
                steps.push(Step::Delete(item.value.clone().into()));
            }
        }
    }

    /// The steps, and the observed entries that they displace.
    fn make_fdb(&self, desired: &State, steps: &mut Vec<Step>) -> BTreeSet<FdbEntry> {
        let mut moved = BTreeSet::new();
        for (key, item) in &desired.fdb {
            let here = !self.gone.contains(&key.0);
            if here && self.state.fdb.contains_key(key) {
                continue;
            }
            let first = (key.0.clone(), key.1, std::net::Ipv4Addr::UNSPECIFIED.into());
            let old = self
                .state
                .fdb
                .range(first..)
                .take_while(|(old, _)| (&old.0, old.1) == (&key.0, key.1))
                .find(|(_, old)| item.value.displaces(&old.value));
            match old.filter(|_| self.owns(&key.0)) {
                Some((_, old)) => {
                    moved.insert(old.value.clone());
                    steps.push(Step::Change(lift(item)));
                }
                None => steps.push(Step::Create(lift(item))),
            }
        }
        moved
    }

    fn remove_fdb(&self, desired: &State, moved: &BTreeSet<FdbEntry>, steps: &mut Vec<Step>) {
        for (key, item) in &self.state.fdb {
            let wanted = desired.fdb.contains_key(key) || moved.contains(&item.value);
            if self.owns(&key.0) && !wanted {
                steps.push(Step::Delete(item.value.clone().into()));
            }
        }
    }

    /// The steps, and the destinations and metrics whose old route they displace. Routes without a
    /// next hop come first: others may need them to reach theirs.
    fn make_routes<'d>(
        &self,
        desired: &'d State,
        steps: &mut Vec<Step>,
    ) -> BTreeSet<(&'d ipnet::IpNet, u32)> {
        let mut moved = BTreeSet::new();
        let mut occupied: BTreeMap<_, Vec<&Route>> = BTreeMap::new();
        for item in self.state.routes.values() {
            if !self.left(&item.value) {
                let slot = (item.value.destination, item.value.metric);
                occupied.entry(slot).or_default().push(&item.value);
            }
        }
        for through in [false, true] {
            for item in desired.routes.values() {
                let route = &item.value;
                if route.via.is_some() != through {
                    continue;
                }
                let slot = (route.destination, route.metric);
                let old = occupied.get(&slot).map_or(&[][..], Vec::as_slice);
                if old.contains(&route) {
                    continue;
                }
                let ours = old.iter().all(|old| self.owns_route(old));
                if !ours || old.is_empty() {
                    steps.push(Step::Create(lift(item)));
                    continue;
                }
                moved.insert((&route.destination, route.metric));
                if let [old] = old
                    && !hides_next_hop(old, route)
                {
                    steps.push(Step::Change(lift(item)));
                } else {
                    let delete = |&old: &&Route| Step::Delete(old.clone().into());
                    steps.extend(old.iter().map(delete));
                    steps.push(Step::Create(lift(item)));
                }
            }
        }
        moved
    }

    fn remove_routes(
        &self,
        desired: &State,
        moved: &BTreeSet<(&ipnet::IpNet, u32)>,
        steps: &mut Vec<Step>,
    ) {
        for (key, item) in &self.state.routes {
            let wanted =
                desired.routes.contains_key(key) || moved.contains(&(&key.destination, key.metric));
            if self.owns_route(&item.value) && !wanted {
                steps.push(Step::Delete(item.value.clone().into()));
            }
        }
    }
}

/// Whether the kernel would refuse the new route while the old one is there: it looks up an IPv6 next
/// hop before it takes a route, and wants to find it on the new route's link, or nowhere
/// (`ip6_route_check_nh` in net/ipv6/route.c).
fn hides_next_hop(old: &Route, new: &Route) -> bool {
    new.family() == parfait_packet::Family::Ipv6
        && new.link != old.link
        && new.via.is_some_and(|via| new.destination.contains(&via))
}
