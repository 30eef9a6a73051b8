//! [`World`]: every node's plan and what its kernel then holds, computed when a packet gets there.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use parfait_cluster::{Config, Key, Node, ObjectName, Snapshot, Underlay};
use parfait_join::NodePlan;
use parfait_linux::nft::{AddressType, Tables};
use parfait_linux::{Address, IfName, Link, LinkKind, Mtu, Route, State};
use parfait_packet::{Family, Kind, Origin};
use parfait_transport::Frontend;
use parfait_transport::policy::ENDED;

use crate::memory::{self, Ended, Keeps, Memory};
use crate::tracked::Tracked;

/// The cluster, as far as packets can see it.
pub(crate) struct World<'a> {
    pub(crate) snapshot: &'a Snapshot,
    nodes: BTreeMap<&'a str, OnceCell<Known>>,
    pub(crate) memory: &'a dyn Memory,
    /// Whose packets are walked.
    clients: &'a [IpAddr],
    /// Their source port, if it was told: they may be of a connection that is tracked, or was.
    source_port: Option<u16>,
    told: RefCell<BTreeSet<String>>,
    /// The Services that packets were meant for, or met.
    met: RefCell<BTreeSet<ObjectName>>,
    /// What nodes track, by node and by where it is sent.
    tracked: RefCell<BTreeMap<(String, Frontend), Tracked>>,
}

/// One node: its plan, and what its kernel holds if the plan is carried out.
pub(crate) struct Known {
    pub(crate) plan: NodePlan,
    pub(crate) state: State,
    /// The endpoints that the sender keeps there; else why nobody knows.
    pub(crate) kept: Result<Vec<Keeps>, String>,
    /// What policies have ended there of connections with the source port that was told.
    pub(crate) ended: Vec<Ended>,
}

impl<'a> World<'a> {
    pub(crate) fn new(
        snapshot: &'a Snapshot,
        memory: &'a dyn Memory,
        clients: &'a [IpAddr],
        source_port: Option<u16>,
    ) -> Self {
        Self {
            snapshot,
            nodes: snapshot
                .nodes
                .keys()
                .map(|name| (name.as_str(), OnceCell::new()))
                .collect(),
            memory,
            clients,
            source_port,
            told: RefCell::default(),
            met: RefCell::default(),
            tracked: RefCell::default(),
        }
    }

    /// The packets are of one connection, which may be tracked already.
    pub(crate) const fn of_one_flow(&self) -> bool {
        self.source_port.is_some()
    }

    /// A node's plan and state; `None` if the snapshot has no such node.
    pub(crate) fn node(&self, name: &str) -> Option<(&Node, &Known)> {
        let node = self.snapshot.nodes.get(name)?;
        let known = self.nodes.get(name)?.get_or_init(|| {
            let plan = NodePlan::new(self.snapshot, name);
            let mut state = given(node);
            state.extend(plan.state());
            state.extend(parfait_internet::learned(&plan.internet));
            let kept = match plan.transport.keeps_clients() {
                true => self.memory.kept(name, self.clients),
                false => Ok(Vec::new()),
            };
            let mut tables = state.tables.values();
            let isolates = tables.any(|table| table.sets.contains_key(ENDED));
            // A kernel that cannot be asked was asked for the connection too, which is told.
            let port = self.source_port.filter(|_| isolates);
            let ended = port.and_then(|port| self.memory.ended(name, port).ok());
            let ended = ended.unwrap_or_default();
            let keeps = kept.as_deref().unwrap_or_default();
            memory::remember(state.tables.values_mut(), keeps, &ended);
            Known {
                plan,
                state,
                kept,
                ended,
            }
        });
        Some((node, known))
    }

    /// What could not be planned, as far as it concerns addresses and the Services that were met, on the nodes that a packet
    /// came to; what of these Services and their endpoints could not be read; and what is wrong with the configuration; and of pools, if a Service is a load balancer.
    pub(crate) fn notes(&self) -> BTreeSet<String> {
        let known = || self.nodes.values().filter_map(OnceCell::get);
        let planned = known().flat_map(|known| &known.plan.internet.notes);
        let configuration = self.snapshot.notes.get(&Key::Config);
        let all = planned.chain(configuration.into_iter().flatten());
        let mut all: BTreeSet<_> = all.map(ToString::to_string).collect();
        let met = self.met.borrow();
        let keys = met.iter().flat_map(|service| {
            let slices = self.snapshot.slices_of(service);
            let slices = slices.map(|slice| Key::EndpointSlice(slice.name.clone()));
            slices.chain([Key::Service(service.clone())])
        });
        let balanced = met
            .iter()
            .filter_map(|name| self.snapshot.services.get(name));
        let balanced = balanced.filter(|service| service.outside.load_balancer.is_some());
        // A pool that cannot be used is in no other list.
        let pools = balanced.take(1).flat_map(|_| self.snapshot.notes.keys());
        let pools = pools.filter(|key| matches!(key, Key::LoadBalancerPool(_)));
        let keys = keys.chain(pools.cloned());
        let read = keys
            .filter_map(|key| self.snapshot.notes.get(&key))
            .flatten();
        all.extend(read.map(ToString::to_string));
        for service in met.iter() {
            let planned = known().flat_map(|known| known.plan.transport.notes());
            let of_it = planned.filter(|note| {
                let of = &note.origin;
                of.kind == Kind::Service
                    && (&of.namespace, &of.name) == (&service.namespace, &service.name)
            });
            all.extend(of_it.map(|note| note.to_string()));
        }
        all.append(&mut self.told.borrow_mut());
        all
    }

    /// A packet is meant for this Service, or comes to one of its addresses.
    pub(crate) fn meet(&self, service: ObjectName) {
        self.met.borrow_mut().insert(service);
    }

    pub(crate) fn is_listed(&self, node: &str, at: Frontend) -> bool {
        self.tracked.borrow().contains_key(&(node.to_owned(), at))
    }

    /// What a node tracks of the client, for the answer.
    pub(crate) fn list(&self, at: Frontend, tracked: Tracked) {
        let key = (tracked.node.clone(), at);
        self.tracked.borrow_mut().insert(key, tracked);
    }

    /// Where there is any.
    pub(crate) fn tracked(&self) -> Vec<Tracked> {
        let tracked = self.tracked.borrow();
        let some = tracked.values().filter(|tracked| tracked.count > 0);
        some.cloned().collect()
    }

    /// A note for the answer.
    pub(crate) fn tell(&self, note: String) {
        self.told.borrow_mut().insert(note);
    }

    /// The node that has this address on the underlay.
    pub(crate) fn owner(&self, address: IpAddr) -> Option<&'a Node> {
        self.snapshot
            .nodes
            .values()
            .find(|node| node.is_at(address))
    }
}

impl Known {
    pub(crate) fn tables(&self) -> &Tables {
        &self.state.tables
    }

    /// What routing makes of an address here (`fib … type`).
    pub(crate) fn address_type(&self, address: IpAddr) -> AddressType {
        self.state.address_type(address)
    }
}

/// What a node has before Parfait: the loopback, its interface, address and default routes.
fn given(node: &Node) -> State {
    let mut state = State::default();
    let origin = Origin::parfait("loopback");
    let mut loopback = Link::new(IfName::loopback(), LinkKind::Loopback);
    loopback.mtu = Mtu::new(65_536).unwrap_or(loopback.mtu);
    state.insert(loopback, origin.clone());
    for own in [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ] {
        state.insert(
            Address::new(IfName::loopback(), IpNet::from(own)),
            origin.clone(),
        );
    }
    if let Some(underlay) = &node.underlay {
        for one in underlay.interfaces() {
            interface(node, one, &mut state);
        }
        // On whatever interface; the loopback will do.
        for address in &underlay.egress {
            if state.owner(*address).is_none() {
                let address = Address::new(IfName::loopback(), IpNet::from(*address));
                state.insert(address, Config::origin().field("egress.addresses"));
            }
        }
    }
    state
}

fn interface(node: &Node, underlay: &Underlay, state: &mut State) {
    let Ok(name) = IfName::new(&underlay.interface) else {
        return;
    };
    let origin = node
        .origin()
        .field(&format!("metadata.annotations[{}]", Underlay::ANNOTATION));
    let mut link = Link::new(name.clone(), LinkKind::Other("interface".to_owned()));
    link.mtu = Mtu::new(underlay.mtu).unwrap_or(link.mtu);
    state.insert(link, origin.clone());
    for address in &underlay.addresses {
        state.insert(Address::new(name.clone(), *address), origin.clone());
    }
    for gateway in &underlay.gateways {
        let everywhere = IpNet::new_assert(Family::of(*gateway).unspecified(), 0);
        let route = if gateway.is_unspecified() {
            Route::direct(everywhere, name.clone())
        } else {
            Route::via(everywhere, *gateway, name.clone())
        };
        state.insert(route, origin.clone());
    }
}
