//! [`State`]: everything one network namespace holds, or should hold.
//!
//! Each thing is an [`Item`]: its value and, where known, the [`Origin`] that it exists for. Origins
//! take no part in comparisons, because the kernel has room for few of them (a link's alias, a
//! rule's comment).

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use parfait_packet::{Family, Origin};
use serde::Serialize;

use crate::nft;
use crate::{
    Address, AddressKey, FdbEntry, FdbKey, IfName, Link, Mac, Neighbour, NeighbourKey, Route,
    RouteKey, Sysctl, SysctlKey,
};

/// A value, and what it exists for. Two items are equal if their values are.
#[derive(Clone, Debug, Serialize)]
pub struct Item<T> {
    /// What the kernel holds.
    pub value: T,
    /// The object, and field of it, that asked for it.
    pub origin: Option<Origin>,
}

impl<T> Item<T> {
    /// A value and what it exists for.
    #[must_use]
    pub fn new(value: T, origin: impl Into<Option<Origin>>) -> Self {
        Self {
            value,
            origin: origin.into(),
        }
    }
}

impl<T: PartialEq> PartialEq for Item<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for Item<T> {}

/// What one network namespace holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Network interfaces.
    pub links: BTreeMap<IfName, Item<Link>>,
    /// IP addresses.
    pub addresses: BTreeMap<AddressKey, Item<Address>>,
    /// Routes of the main table.
    pub routes: BTreeMap<RouteKey, Item<Route>>,
    /// Neighbour entries.
    pub neighbours: BTreeMap<NeighbourKey, Item<Neighbour>>,
    /// Forwarding entries of VXLAN devices.
    pub fdb: BTreeMap<FdbKey, Item<FdbEntry>>,
    /// Settings. Only those that a plan names are ever read or written.
    pub sysctls: BTreeMap<SysctlKey, Item<Sysctl>>,
    /// nf_tables, whose parts carry their own origins.
    pub tables: BTreeMap<(nft::Family, String), nft::Table>,
}

impl State {
    /// Puts an object in, in place of the one with the same key.
    pub fn insert(&mut self, object: impl Into<Object>, origin: impl Into<Option<Origin>>) {
        let origin = origin.into();
        match object.into() {
            Object::Link(value) => {
                self.links
                    .insert(value.name.clone(), Item { value, origin });
            }
            Object::Address(value) => {
                self.addresses.insert(value.key(), Item { value, origin });
            }
            Object::Route(value) => {
                self.routes.insert(value.key(), Item { value, origin });
            }
            Object::Neighbour(value) => {
                self.neighbours.insert(value.key(), Item { value, origin });
            }
            Object::Fdb(value) => {
                self.fdb.insert(value.key(), Item { value, origin });
            }
            Object::Sysctl(value) => {
                self.sysctls
                    .insert(value.key.clone(), Item { value, origin });
            }
        }
    }

    /// Puts a table in, in place of the one with the same family and name.
    pub fn insert_table(&mut self, table: nft::Table) {
        self.tables
            .insert((table.family, table.name.clone()), table);
    }

    /// Adds what another layer wants. Where both name the same thing, the other's wins; of a table
    /// that both name, what both hold is kept.
    pub fn extend(&mut self, other: Self) {
        self.links.extend(other.links);
        self.addresses.extend(other.addresses);
        self.routes.extend(other.routes);
        self.neighbours.extend(other.neighbours);
        self.fdb.extend(other.fdb);
        self.sysctls.extend(other.sysctls);
        nft::join(&mut self.tables, other.tables);
    }

    /// The same without anything of a family: its addresses, routes, neighbours, settings and tables.
    #[must_use]
    pub fn without(mut self, family: Family) -> Self {
        let other = |address: IpAddr| Family::of(address) != family;
        self.addresses.retain(|(_, net), _| other(net.addr()));
        self.routes.retain(|key, _| other(key.destination.addr()));
        self.neighbours.retain(|(_, address), _| other(*address));
        let (of, table) = match family {
            Family::Ipv4 => ("net.ipv4.", nft::Family::Ip),
            Family::Ipv6 => ("net.ipv6.", nft::Family::Ip6),
        };
        self.sysctls.retain(|key, _| !key.as_str().starts_with(of));
        self.tables.retain(|(family, _), _| *family != table);
        self
    }

    /// The neighbour entry for an address on a link.
    #[must_use]
    pub fn neighbour(&self, link: &IfName, address: IpAddr) -> Option<&Item<Neighbour>> {
        self.neighbours.get(&(link.clone(), address))
    }

    /// The forwarding entry of a VXLAN device for an Ethernet address.
    #[must_use]
    pub fn fdb(&self, link: &IfName, mac: Mac) -> Option<&Item<FdbEntry>> {
        self.fdb
            .values()
            .find(|item| item.value.link == *link && item.value.mac == mac)
    }

    /// Everything except tables, links first, in order.
    pub fn objects(&self) -> impl Iterator<Item = Item<Object>> + '_ {
        fn items<K, T: Clone + Into<Object>>(
            map: &BTreeMap<K, Item<T>>,
        ) -> impl Iterator<Item = Item<Object>> + '_ {
            map.values()
                .map(|item| Item::new(item.value.clone().into(), item.origin.clone()))
        }
        items(&self.links)
            .chain(items(&self.addresses))
            .chain(items(&self.routes))
            .chain(items(&self.neighbours))
            .chain(items(&self.fdb))
            .chain(items(&self.sysctls))
    }
}

impl fmt::Display for State {
    /// One line an object, with what it exists for; tables are `nft`'s to print.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Item { value, origin } in self.objects() {
            match origin {
                Some(origin) => writeln!(f, "{value}  # {origin}")?,
                None => writeln!(f, "{value}")?,
            }
        }
        Ok(())
    }
}

/// One thing of any kind that a [`State`] holds, except tables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Object {
    /// A network interface.
    Link(Link),
    /// An IP address.
    Address(Address),
    /// A route.
    Route(Route),
    /// A neighbour entry.
    Neighbour(Neighbour),
    /// A forwarding entry.
    Fdb(FdbEntry),
    /// A setting.
    Sysctl(Sysctl),
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(link) => link.fmt(f),
            Self::Address(address) => address.fmt(f),
            Self::Route(route) => route.fmt(f),
            Self::Neighbour(neighbour) => neighbour.fmt(f),
            Self::Fdb(entry) => entry.fmt(f),
            Self::Sysctl(sysctl) => sysctl.fmt(f),
        }
    }
}

macro_rules! into_object {
    ($($variant:ident($kind:ty),)*) => {
        $(impl From<$kind> for Object {
            fn from(value: $kind) -> Self {
                Self::$variant(value)
            }
        })*
    };
}

into_object! {
    Link(Link),
    Address(Address),
    Route(Route),
    Neighbour(Neighbour),
    Fdb(FdbEntry),
    Sysctl(Sysctl),
}
