//! [`Step`]: one change to a network namespace. It prints as the command an operator would type.
//!
//! [`State::apply`] says what each step does, purely; the kernel edge does the same to a kernel. Its
//! property is stated in [`diff`](crate::diff()).

use std::fmt;

use crate::{Address, FdbEntry, IfName, Item, Link, Neighbour, Object, Route, State, Sysctl};

/// One change to a network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make what is not there. Finding it there just like this is success; finding something else
    /// in its place is an error, as it is not Parfait's.
    Create(Item<Object>),
    /// Make what is there like this, without a moment in which it is absent. A route takes the
    /// place of the one with the same destination and metric, a forwarding entry of the one with
    /// the same Ethernet address.
    Change(Item<Object>),
    /// Remove it. Finding it gone is success.
    Delete(Object),
}

impl Step {
    /// What it is about.
    #[must_use]
    pub const fn object(&self) -> &Object {
        match self {
            Self::Create(item) | Self::Change(item) => &item.value,
            Self::Delete(object) => object,
        }
    }
}

impl State {
    /// Does to this value what the step does to a kernel.
    pub fn apply(&mut self, step: &Step) {
        match step {
            Step::Create(item) if self.holds(&item.value) => {}
            Step::Create(item) => self.insert(item.value.clone(), item.origin.clone()),
            Step::Change(item) => {
                match &item.value {
                    Object::Route(route) => self.routes.retain(|key, _| {
                        (key.destination, key.metric) != (route.destination, route.metric)
                    }),
                    Object::Fdb(entry) => self.fdb.retain(|_, old| !entry.displaces(&old.value)),
                    _ => {}
                }
                self.insert(item.value.clone(), item.origin.clone());
            }
            Step::Delete(object) => self.remove(object),
        }
    }

    /// Whether the object is there, just like this (as far as a link's plan says).
    #[must_use]
    pub fn satisfies(&self, object: &Object) -> bool {
        fn is<T: PartialEq>(found: Option<&Item<T>>, wanted: &T) -> bool {
            found.is_some_and(|found| found.value == *wanted)
        }
        match object {
            Object::Link(link) => {
                let found = self.links.get(&link.name);
                found.is_some_and(|found| found.value.satisfies(link))
            }
            Object::Address(address) => {
                let found = self.addresses.get(&address.key());
                found.is_some_and(|found| found.value.satisfies(address))
            }
            Object::Route(route) => is(self.routes.get(&route.key()), route),
            Object::Neighbour(neighbour) => is(self.neighbours.get(&neighbour.key()), neighbour),
            Object::Fdb(entry) => is(self.fdb.get(&entry.key()), entry),
            Object::Sysctl(sysctl) => {
                let found = self.sysctls.get(&sysctl.key);
                found.is_some_and(|found| found.value.satisfies(sysctl))
            }
        }
    }

    /// Whether something has the object's key.
    fn holds(&self, object: &Object) -> bool {
        match object {
            Object::Link(link) => self.links.contains_key(&link.name),
            Object::Address(address) => self.addresses.contains_key(&address.key()),
            Object::Route(route) => self.routes.contains_key(&route.key()),
            Object::Neighbour(neighbour) => self.neighbours.contains_key(&neighbour.key()),
            Object::Fdb(entry) => self.fdb.contains_key(&entry.key()),
            Object::Sysctl(sysctl) => self.sysctls.contains_key(&sysctl.key),
        }
    }

    fn remove(&mut self, object: &Object) {
        match object {
            Object::Link(link) => self.remove_link(&link.name),
            Object::Address(address) => drop(self.addresses.remove(&address.key())),
            Object::Route(route) => drop(self.routes.remove(&route.key())),
            Object::Neighbour(neighbour) => drop(self.neighbours.remove(&neighbour.key())),
            Object::Fdb(entry) => drop(self.fdb.remove(&entry.key())),
            Object::Sysctl(sysctl) => drop(self.sysctls.remove(&sysctl.key)),
        }
    }

    /// A link takes everything that lies on it along.
    fn remove_link(&mut self, name: &IfName) {
        self.links.remove(name);
        self.addresses.retain(|(link, _), _| link != name);
        self.routes.retain(|key, _| key.link.as_ref() != Some(name));
        self.neighbours.retain(|(link, _), _| link != name);
        self.fdb.retain(|(link, _, _), _| link != name);
        self.sysctls
            .retain(|key, _| key.link().as_ref() != Some(name));
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self {
            Self::Create(_) => "add",
            Self::Change(_) => "replace",
            Self::Delete(_) => "del",
        };
        match self.object() {
            Object::Link(link) => self.link(link, f),
            Object::Address(address) => {
                let Address {
                    link,
                    address,
                    lent,
                    ..
                } = address;
                write!(f, "ip address {verb} {address} dev {link}")?;
                match lent.filter(|_| !matches!(self, Self::Delete(_))) {
                    Some(seconds) => write!(f, " valid_lft {seconds} preferred_lft 0"),
                    None => Ok(()),
                }
            }
            Object::Route(route) => command_for_route(route, verb, f),
            Object::Neighbour(neighbour) => command_for_neighbour(neighbour, verb, f),
            Object::Fdb(FdbEntry {
                link,
                mac,
                destination,
            }) => write!(
                f,
                "bridge fdb {verb} {mac} dev {link} dst {destination} self permanent"
            ),
            Object::Sysctl(Sysctl { key, value, .. }) => write!(f, "sysctl -w {key}={value:?}"),
        }
    }
}

impl Step {
    fn link(&self, link: &Link, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(_) => {
                write!(f, "ip link add {}", link.name)?;
                link.options(f)?;
                write!(f, " type {}", link.kind)
            }
            Self::Change(_) => {
                write!(f, "ip link set dev {}", link.name)?;
                link.options(f)
            }
            Self::Delete(_) => write!(f, "ip link del {}", link.name),
        }
    }
}

fn command_for_route(route: &Route, verb: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let family = match route.family() {
        parfait_packet::Family::Ipv4 => "",
        parfait_packet::Family::Ipv6 => " -6",
    };
    write!(f, "ip{family} route {verb} {route}")
}

fn command_for_neighbour(
    neighbour: &Neighbour,
    verb: &str,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    write!(
        f,
        "ip neighbour {verb} {} dev {}",
        neighbour.address, neighbour.link
    )?;
    match neighbour.mac {
        Some(mac) if verb != "del" => write!(
            f,
            " lladdr {mac} nud {}",
            if neighbour.permanent {
                "permanent"
            } else {
                "reachable"
            }
        ),
        _ => Ok(()),
    }
}
