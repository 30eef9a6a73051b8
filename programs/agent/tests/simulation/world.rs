//! The cluster around node-1: what is true, what the API server says of it, and the CNI plugin.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;
use parfait_cluster::{Snapshot, Underlay};
use parfait_kernel::conntrack::Filter;
use parfait_kernel::nft::{Error, Handles, Observed};
use parfait_kernel::{FakeNetfilter, Netfilter};
use parfait_linux::attachment::{host_interface, host_mac, pod_mac};
use parfait_linux::conntrack::Entry;
use parfait_linux::nft::{NftStep, Tables};
use parfait_linux::{
    Address, IfName, Link, LinkKind, Mac, Mtu, Neighbour, Object, Route, RouteProtocol, Scope,
    State, Sysctl, SysctlKey,
};
use parfait_packet::Family;

use crate::{Dice, fixture};

/// nf_tables that another program changes right after they were read, as often as it is told.
#[derive(Clone, Debug, Default)]
pub struct Racing {
    pub fake: FakeNetfilter,
    pub races: usize,
}

impl Netfilter for Racing {
    fn observe(&mut self, name: &str) -> Result<Observed, Error> {
        let observed = self.fake.observe(name);
        if self.races > 0 {
            self.races -= 1;
            self.fake.changed();
        }
        observed
    }

    fn observe_set(&mut self, table: &str, set: &str) -> Result<Observed, Error> {
        self.fake.observe_set(table, set)
    }

    fn survey(&mut self) -> Result<(Observed, Handles), Error> {
        self.fake.survey()
    }

    fn execute_at(&mut self, steps: &[NftStep], generation: u32) -> Result<(), Error> {
        self.fake.execute_at(steps, generation)
    }

    fn connections(&mut self, filter: &Filter) -> Result<Vec<Entry>, Error> {
        self.fake.connections(filter)
    }

    fn delete_connection(&mut self, entry: &Entry) -> Result<bool, Error> {
        self.fake.delete_connection(entry)
    }
}

/// A peer: the last byte of its address, its segment, and the number of its pod CIDR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Peer {
    host: usize,
    segment: usize,
    cidr: usize,
}

/// A Service: its port and the endpoints in its slice, each with whether it is ready.
#[derive(Clone, Debug, Default)]
struct Service {
    port: usize,
    endpoints: BTreeMap<usize, bool>,
}

/// Everything but the kernel and the agent.
pub struct World {
    own_host: usize,
    own_cidr: usize,
    underlay: Option<Underlay>,
    peers: BTreeMap<usize, Peer>,
    services: BTreeMap<usize, Service>,
    /// Pods that are attached, by number of the name, with the number of their address.
    attached: BTreeMap<usize, (usize, usize)>,
    /// Pods as the API server tells of them.
    told: BTreeMap<usize, (usize, usize)>,
    /// Things that are not Parfait's, and must stay.
    pub foreign: Vec<Object>,
    pub foreign_tables: Tables,
    /// Foreign routes where Parfait's should be.
    pub in_the_way: Vec<Route>,
    /// What happened, for whoever reads about a failure.
    pub story: Vec<String>,
}

impl World {
    pub fn new() -> Self {
        Self {
            own_host: 11,
            own_cidr: 1,
            underlay: None,
            peers: BTreeMap::new(),
            services: BTreeMap::new(),
            attached: BTreeMap::new(),
            told: BTreeMap::new(),
            foreign: Vec::new(),
            foreign_tables: Tables::new(),
            in_the_way: Vec::new(),
            story: Vec::new(),
        }
    }

    /// What node-1 holds before Parfait comes.
    pub fn machine() -> State {
        let mut state = State::default();
        let eth0 = name("eth0");
        state.insert(Link::new(IfName::loopback(), LinkKind::Loopback), None);
        let mut link = Link::new(eth0.clone(), LinkKind::Other("device".to_owned()));
        link.mac = Some(Mac::local([1; 6]));
        state.insert(link, None);
        for address in own_addresses(11) {
            state.insert(Address::new(eth0.clone(), address), None);
        }
        for (everywhere, via) in [("0.0.0.0/0", "192.168.77.1"), ("::/0", "fd00:77::1")] {
            let route = Route {
                protocol: RouteProtocol::BOOT,
                ..Route::via(parse(everywhere), parse(via), eth0.clone())
            };
            state.insert(route, None);
        }
        for family in Family::ALL {
            state.insert(Sysctl::new(SysctlKey::forwarding(family), "0"), None);
        }
        for link in ["all", "default", "eth0"] {
            settings(&mut state, link, ["0", "2", "1"]);
        }
        let listens = SysctlKey::conf(Family::Ipv6, &eth0, "accept_ra");
        state.insert(Sysctl::new(listens, "1"), None);
        state
    }

    /// What a kernel does by itself: a link gets its link-local address and route.
    pub fn kernel_reacts(state: &mut State) {
        let tunnel = name(parfait_link::plan::TUNNEL);
        if state.links.contains_key(&tunnel) {
            settings(state, tunnel.as_str(), ["1", "2", "1"]);
            let mut address = Address::new(tunnel.clone(), parse("fe80::42/64"));
            address.scope = Scope::Link;
            state.insert(address, None);
            let mut route = Route::direct(parse("fe80::/64"), tunnel);
            route.protocol = RouteProtocol::KERNEL;
            route.metric = 256;
            state.insert(route, None);
        }
    }

    pub fn tell(&mut self, what: String) {
        self.story.push(what);
    }

    /// What the API server says.
    pub fn snapshot(&self) -> Snapshot {
        let mut text = String::from(
            "config clusterCIDRs=10.244.0.0/16,fd00:10:244::/56 serviceCIDRs=10.96.0.0/16\n\
             service dns ip=10.96.0.10 ports=dns:53/UDP servedByNode\n",
        );
        let own = Peer {
            host: self.own_host,
            segment: 77,
            cidr: self.own_cidr,
        };
        for (number, peer) in self.peers.iter().chain([(&1, &own)]) {
            let Peer {
                host,
                segment,
                cidr,
            } = peer;
            let _ = writeln!(
                text,
                "node node-{number} pods=10.244.{cidr}.0/24,fd00:10:244:{cidr}::/64 \
                 underlay=192.168.{segment}.{host}/24,fd00:{segment}::{host}/64"
            );
        }
        for (pod, at) in &self.told {
            let [four, six] = pod_addresses(*at);
            let _ = writeln!(text, "pod p-{pod} on=node-1 ip={four},{six}");
        }
        for (number, service) in &self.services {
            let port = service.port;
            let _ = writeln!(
                text,
                "service s-{number} ip=10.96.1.{number} ports=http:{port}/TCP"
            );
            let endpoint = |(at, ready): (&usize, &bool)| {
                let state = if *ready { "" } else { "!notready" };
                format!("10.244.{}.{}@node-{}{state}", at % 4, at + 2, at % 4)
            };
            let endpoints: Vec<_> = service.endpoints.iter().map(endpoint).collect();
            let _ = writeln!(
                text,
                "slice s-{number}-a of=s-{number} family=IPv4 ports=http:8080/TCP endpoints={}",
                endpoints.join(",")
            );
        }
        let mut snapshot = fixture::cluster(&text);
        let this = snapshot.nodes.get_mut("node-1").unwrap();
        this.underlay.clone_from(&self.underlay);
        snapshot
    }

    /// The agent reports its underlay.
    pub fn reported(&mut self, underlay: Option<&Underlay>) {
        if underlay.is_some() {
            self.underlay = underlay.cloned();
        }
    }

    pub fn api_catches_up(&mut self) {
        self.tell("the API server tells of all pods".to_owned());
        self.told.clone_from(&self.attached);
    }

    pub fn cluster_changes(&mut self, dice: &mut Dice, kernel: &mut State) {
        let number = 2 + dice.below(4);
        match dice.below(10) {
            0..3 => {
                let peer = Peer {
                    host: 11 + number + 20 * dice.below(2),
                    segment: [77, 88][dice.below(2)],
                    cidr: number + 10 * dice.below(2),
                };
                self.tell(format!("node-{number} is {peer:?}"));
                self.peers.insert(number, peer);
            }
            3 => {
                self.tell(format!("node-{number} leaves"));
                self.peers.remove(&number);
            }
            4 => self.own_address_changes(dice, kernel),
            5 => {
                self.own_cidr = 1 + 20 * dice.below(2);
                self.tell(format!("node-1 has the pod CIDR {}", self.own_cidr));
            }
            6 => {
                self.tell(format!("service s-{number} goes"));
                self.services.remove(&number);
            }
            _ => {
                let service = self.services.entry(number).or_default();
                service.port = 80 + dice.below(2);
                match dice.below(3) {
                    0 => drop(service.endpoints.pop_first()),
                    _ => drop(service.endpoints.insert(dice.below(6), dice.below(4) > 0)),
                }
                let text = format!("service s-{number} is {service:?}");
                self.tell(text);
            }
        }
    }

    /// The address of a machine changes, first there and at once in its Node.
    fn own_address_changes(&mut self, dice: &mut Dice, kernel: &mut State) {
        let eth0 = name("eth0");
        for old in own_addresses(self.own_host) {
            kernel
                .addresses
                .remove(&Address::new(eth0.clone(), old).key());
        }
        self.own_host = [11, 12][dice.below(2)];
        self.tell(format!("node-1 has the address {}", self.own_host));
        for new in own_addresses(self.own_host) {
            kernel.insert(Address::new(eth0.clone(), new), None);
        }
    }

    /// A pod is attached or detached, or the API server tells of it at last. The agent must never
    /// have put anything in the plugin's way.
    pub fn plugin_acts(&mut self, dice: &mut Dice, kernel: &mut State) -> Result<(), String> {
        let pod = dice.below(4);
        match dice.below(4) {
            0 | 1 if !self.attached.contains_key(&pod) => self.attach(pod, kernel),
            1 => {
                self.tell(format!("p-{pod} is detached"));
                if self.attached.remove(&pod).is_some() {
                    remove_link(kernel, &interface(pod));
                }
                Ok(())
            }
            _ => {
                let at = self.attached.get(&pod).copied();
                self.tell(format!("the API server says that p-{pod} is at {at:?}"));
                match at {
                    Some(at) => self.told.insert(pod, at),
                    None => self.told.remove(&pod),
                };
                Ok(())
            }
        }
    }

    fn attach(&mut self, pod: usize, kernel: &mut State) -> Result<(), String> {
        let taken: BTreeSet<_> = self.attached.values().copied().collect();
        let free = (2..).map(|last| (self.own_cidr, last));
        let at = free.into_iter().find(|at| !taken.contains(at)).unwrap();
        self.tell(format!("p-{pod} is attached at {at:?}"));
        self.attached.insert(pod, at);
        for object in self.attachment(pod, at) {
            if let Object::Route(route) = &object {
                let mut routes = kernel.routes.values();
                if let Some(there) = routes.find(|r| r.value.destination == route.destination) {
                    return Err(format!("in the CNI plugin's way: {}", there.value));
                }
            }
            kernel.insert(object, None);
        }
        settings(kernel, interface(pod).as_str(), ["1", "1", "0"]);
        Ok(())
    }

    /// What the CNI plugin makes on the node.
    fn attachment(&self, pod: usize, at: (usize, usize)) -> Vec<Object> {
        let link = interface(pod);
        let addresses = pod_addresses(at);
        let mut veth = Link::new(link.clone(), LinkKind::Veth { peer: None });
        veth.mac = Some(host_mac(addresses[0]));
        veth.mtu = Mtu::ETHERNET;
        let mut made: Vec<Object> = vec![veth.into()];
        for (address, own) in addresses.into_iter().zip(own_addresses(self.own_host)) {
            let mac = pod_mac(addresses[0]);
            made.push(Neighbour::permanent(link.clone(), address, mac).into());
            let mut route = Route::direct(IpNet::from(address), link.clone());
            route.protocol = RouteProtocol::PARFAIT_CNI;
            route.source = Some(own.addr());
            made.push(route.into());
        }
        made
    }

    /// The laws that hold at any moment.
    pub fn nothing_is_lost(&self, kernel: &State, netfilter: &FakeNetfilter) -> Result<(), String> {
        for pod in self.attached.keys() {
            if !kernel.links.contains_key(&interface(*pod)) {
                return Err(format!("the link of p-{pod} is gone"));
            }
        }
        for link in kernel.links.keys() {
            let known = |pod: usize| self.attached.contains_key(&pod);
            if (0..4).any(|pod| interface(pod) == *link && !known(pod)) {
                return Err(format!("{link} was made by the agent"));
            }
        }
        let in_the_way = self.in_the_way.iter().cloned().map(Object::from);
        for object in self.foreign.iter().cloned().chain(in_the_way) {
            if !kernel.satisfies(&object) {
                return Err(format!("the agent touched what is foreign: {object}"));
            }
        }
        for (key, table) in &self.foreign_tables {
            if netfilter.tables.get(key) != Some(table) {
                return Err(format!("the agent touched the foreign table {key:?}"));
            }
        }
        Ok(())
    }

    /// The law of pods that the API server tells of truly: all that the plugin made is there.
    pub fn pods_are_whole(&self, kernel: &State) -> Result<(), String> {
        for (pod, at) in &self.attached {
            if self.told.get(pod) != Some(at) {
                continue;
            }
            let mut made = self.attachment(*pod, *at).into_iter();
            if let Some(lost) = made.find(|object| !kernel.satisfies(object)) {
                return Err(format!("p-{pod} has lost {lost}"));
            }
        }
        Ok(())
    }
}

/// An interface's settings as the kernel or the CNI plugin makes them, where they are not there yet.
fn settings(state: &mut State, link: &str, values: [&str; 3]) {
    for (setting, value) in ["forwarding", "rp_filter", "send_redirects"]
        .iter()
        .zip(values)
    {
        let key = SysctlKey::new(&format!("net.ipv4.conf.{link}.{setting}")).unwrap();
        if !state.sysctls.contains_key(&key) {
            state.insert(Sysctl::new(key, value), None);
        }
    }
}

pub fn name(text: &str) -> IfName {
    IfName::new(text).unwrap()
}

pub fn parse<T: std::str::FromStr>(text: &str) -> T {
    text.parse().ok().unwrap()
}

/// A link is removed, and the kernel removes what lies on it.
pub fn remove_link(kernel: &mut State, link: &IfName) {
    if let Some(found) = kernel.links.get(link).cloned() {
        kernel.apply(&parfait_linux::Step::Delete(found.value.into()));
    }
}

fn interface(pod: usize) -> IfName {
    host_interface("default", &format!("p-{pod}"))
}

fn pod_addresses((cidr, last): (usize, usize)) -> [IpAddr; 2] {
    [
        parse(&format!("10.244.{cidr}.{last}")),
        parse(&format!("fd00:10:244:{cidr}::{last}")),
    ]
}

fn own_addresses(host: usize) -> [IpNet; 2] {
    [
        parse(&format!("192.168.77.{host}/24")),
        parse(&format!("fd00:77::{host}/64")),
    ]
}
