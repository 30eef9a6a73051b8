//! Clients whose endpoint is gone: the kernel remembers which endpoint each client has, and does not know when that
//! endpoint ends.
//!
//! ```text
//!   affinity { 10.244.1.5 . 10.96.0.20 . tcp . 80 : 10.244.2.2 . 8080 }     10.244.2.2 is no endpoint any more
//!         └─▶ deleted: the client's next connection gets one that is
//! ```
//!
//! An endpoint that only terminates takes no new connections either, so its clients move away; their established
//! connections are conntrack's and live on.

use std::net::{IpAddr, SocketAddr};

use parfait_linux::nft::diff::SetType;
use parfait_linux::nft::{Data, Element, Key, NftStep, Set, Tables, Value, diff::Action};
use serde::{Deserialize, Serialize};

use crate::plan::Changes;
use crate::stale::of_key;
use crate::{Frontend, Plan, ServicePlan};

/// The map that the kernel fills.
pub const MAP: &str = "affinity";

/// The endpoint that a client keeps: one element of that map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The client.
    pub client: IpAddr,
    /// The Service's address and port.
    pub at: Frontend,
    /// The endpoint.
    pub endpoint: SocketAddr,
}

impl Kept {
    /// Reads an element; `None` if it is not of such a map.
    #[must_use]
    pub fn of(key: &[Value], data: &Data) -> Option<Self> {
        let (Value::Address(client), rest) = key.split_first()? else {
            return None;
        };
        let Data::Target(address, port) = data else {
            return None;
        };
        Some(Self {
            client: *client,
            at: of_key(rest)?,
            endpoint: SocketAddr::new(*address, *port),
        })
    }

    /// As the map has it.
    #[must_use]
    pub fn element(&self) -> (Key, Element) {
        let mut key = vec![Value::Address(self.client)];
        key.extend(crate::apply::key(&self.at));
        let data = Data::Target(self.endpoint.ip(), self.endpoint.port());
        (key, Element::new(data))
    }
}

/// The steps that take away what clients have of endpoints that serve them no more.
#[must_use]
pub fn stale(plan: &Plan, observed: &Tables) -> Vec<NftStep> {
    let ours = observed.values().filter(|table| table.name == "parfait");
    let maps = ours.filter_map(|table| Some((table, table.sets.get(MAP)?)));
    maps.filter_map(|(table, map)| {
        let keys = stale_keys(plan, map);
        (!keys.is_empty()).then(|| NftStep {
            family: table.family,
            table: table.name.clone(),
            action: Action::DeleteElements(MAP.to_owned(), SetType::of(map), keys),
        })
    })
    .collect()
}

impl Plan {
    /// Whether clients of any Service keep their endpoint.
    #[must_use]
    pub fn keeps_clients(&self) -> bool {
        self.services.values().any(|service| keeps_clients(service))
    }
}

impl Changes {
    /// Whether clients of any Service kept their endpoint, which may be gone now.
    #[must_use]
    pub fn may_leave_clients(&self) -> bool {
        let mut before = self
            .services
            .iter()
            .filter_map(|(before, _)| before.as_ref());
        before.any(|service| keeps_clients(service))
    }
}

fn keeps_clients(service: &ServicePlan) -> bool {
    let mut frontends = service.frontends.values();
    frontends.any(|behind| behind.affinity.is_some())
}

fn stale_keys(plan: &Plan, map: &Set) -> Vec<Key> {
    let elements = map.elements.iter();
    let gone = elements.filter(|(key, element)| !serves(plan, key, &element.data));
    gone.map(|(key, _)| key.clone()).collect()
}

fn serves(plan: &Plan, key: &Key, data: &Data) -> bool {
    let Some(kept) = Kept::of(key, data) else {
        return false;
    };
    let Some((_, behind)) = plan.find(&kept.at) else {
        return false;
    };
    let client = kept.client;
    let node = client.is_loopback() || plan.common.own.contains(&client);
    let pool = match node || plan.is_inside(client) {
        true => &behind.inside,
        false => &behind.outside,
    };
    behind.affinity.is_some() && pool.has((kept.endpoint.ip(), kept.endpoint.port()))
}
