//! [`Router`]: the route table of the router between the nodes, as an administrator or a cloud keeps it.
//!
//! ```text
//!   ip route add 10.244.1.0/24 via 192.168.77.11 dev segment-1 proto static
//!   ip route add 10.244.3.0/24 via 192.168.78.13 dev segment-2 proto static
//! ```
//!
//! It is a real route table, of the lab's own network namespace. What is in none of its routes is refused: there
//! is no default route. Its own addresses and those of its segments' nodes it knows from its links.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use parfait_kernel::{Kernel, NetNs, Socket};
use parfait_linux::{IfName, Item, Object, Route, RouteKind, RouteProtocol, Step};

use crate::underlay::network;
use crate::{Error, LabSpec};

/// Routes that a routing daemon made: BIRD's number in linux/rtnetlink.h.
const BIRD: RouteProtocol = RouteProtocol(12);

/// The router between the nodes.
pub struct Router {
    socket: Socket,
    spec: LabSpec,
}

impl Router {
    /// Opens the route table of the calling thread's network namespace, which must be the lab's own.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn open(spec: &LabSpec) -> Result<Self, Error> {
        let socket = Socket::open().map_err(|e| network("reach the router", e))?;
        Ok(Self {
            socket,
            spec: spec.clone(),
        })
    }

    /// Makes the table equal to `wanted`, destination to node. Answers which routes cannot be made, and why.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn hold(
        &mut self,
        wanted: &BTreeMap<IpNet, IpAddr>,
    ) -> Result<BTreeMap<IpNet, String>, Error> {
        let mut failed = BTreeMap::new();
        let mut routes = BTreeMap::new();
        for (destination, node) in wanted {
            match self.route(*destination, *node) {
                Some(route) => drop(routes.insert(route.destination, route)),
                None => {
                    let why = format!("no machine of this lab has {node}");
                    failed.insert(*destination, why);
                }
            }
        }
        let state = self.socket.observe(&[]);
        let state = state.map_err(|e| network("read the router's routes", e))?;
        let held = state.routes.values().map(|item| &item.value);
        let held = held.filter(|route| route.protocol == RouteProtocol::STATIC);
        let held: Vec<Route> = held.cloned().collect();
        let mut steps = Vec::new();
        for route in &held {
            if routes.get(&route.destination) != Some(route) {
                steps.push(Step::Delete(Object::from(route.clone())));
            }
        }
        let new = routes.into_values().filter(|route| !held.contains(route));
        steps.extend(new.map(|route| Step::Create(Item::new(Object::from(route), None))));
        for step in &steps {
            tracing::info!("router: {step}");
            if let Err(errors) = self.socket.execute(std::slice::from_ref(step))
                && let Object::Route(route) = step.object()
            {
                let why: Vec<_> = errors.iter().map(ToString::to_string).collect();
                failed.insert(route.destination, why.join("; "));
            }
        }
        Ok(failed)
    }

    fn route(&self, destination: IpNet, node: IpAddr) -> Option<Route> {
        let (_, link) = self.spec.behind(node)?;
        let link = IfName::new(&link).ok()?;
        Some(Route {
            protocol: RouteProtocol::STATIC,
            ..Route::via(destination.trunc(), node, link)
        })
    }
}

/// Whether a routing daemon has added routes to all of these networks.
///
/// # Errors
/// If the kernel cannot be asked.
pub fn has_learned(netns: &NetNs, networks: &[IpNet]) -> Result<bool, Error> {
    let failed = |e| network("read the routes of a machine", e);
    let state = Socket::open_in(netns).map_err(failed)?.observe(&[]);
    let state = state.map_err(failed)?;
    let learned = |network: &&IpNet| {
        state.routes.values().map(|item| &item.value).any(|route| {
            route.destination == **network
                && route.protocol == BIRD
                && route.kind == RouteKind::Unicast
        })
    };
    Ok(networks.iter().all(|network| learned(&network)))
}
