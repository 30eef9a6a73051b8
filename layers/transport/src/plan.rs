//! All Services on one node, planned Service by Service.
//!
//! [`replan`] plans anew only what a change touches: a Service is planned from itself, its slices and the node, so
//! that one changed EndpointSlice costs what one Service costs, among ten thousand too. [`plan()`] is the same
//! with everything changed.
//!
//! Two Services that claim the same address and port: the one by whose more specific address it is has it
//! ([`Arrival`]), then the older one, then the first by name, on every node alike; the other gets a note.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use parfait_cluster::{Config, Key, Node, Note, ObjectName, Snapshot, Underlay};
use parfait_packet::{Family, Kind, Origin};

use crate::host_ports::{self, HostPorts};
use crate::localhost;
use crate::service::{self, plan_service};
use crate::topology::Here;
use crate::{Arrival, Frontend, ServicePlan, Virtual};

/// What the transport layer wants of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The node.
    pub here: Here,
    /// What does not depend on any one Service.
    pub common: Common,
    /// Every Service that has addresses, by name.
    pub services: BTreeMap<ObjectName, Arc<ServicePlan>>,
    /// Who wants what, in order; the first has it. Nearly always there is one.
    claims: BTreeMap<Claim, Vec<Claimant>>,
    /// The Service of each slice.
    slices: BTreeMap<ObjectName, ObjectName>,
    /// The slices of Services that there are not.
    orphans: BTreeMap<ObjectName, Vec<Origin>>,
    /// The Services of which there is something to say, or whose health is asked for: few of many.
    remarkable: BTreeSet<ObjectName>,
}

/// The part of the plan that does not depend on any one Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Common {
    /// Whether the configuration wants node ports at 127.0.0.1, or no more.
    pub localhost: Option<bool>,
    /// Where this node answers to node ports.
    pub node_addresses: Vec<IpAddr>,
    /// By which this node is known: what answers to these comes back to it.
    pub own: BTreeSet<IpAddr>,
    /// The ranges that Services' addresses come from, as configured.
    pub service_cidrs: Vec<IpNet>,
    /// Those of them that are Services' alone: the others there are nobody's.
    pub networks: BTreeMap<IpNet, Origin>,
    /// Addresses of Services that each node's agent answers itself, and whose they are. Nobody else can have them.
    pub served: BTreeMap<IpAddr, ObjectName>,
    /// Where clients within the cluster are: the pod networks.
    pub inside: BTreeMap<IpNet, Origin>,
    /// Where this node's own pods are.
    pub own_pods: BTreeMap<IpNet, Origin>,
    /// This node's pods, which can reach themselves through a Service.
    pub pods: BTreeMap<IpAddr, Origin>,
    /// Its host ports.
    pub host_ports: HostPorts,
    /// What could not be planned.
    pub notes: Vec<Note>,
}

/// What only one Service can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    /// An address, to refuse what is not for any of its ports.
    Address(IpAddr),
    /// An address and port.
    Frontend(Frontend),
}

/// Who claims something; the first in this order has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claimant {
    arrival: Arrival,
    /// `metadata.creationTimestamp`; unknown is youngest.
    created: i64,
    service: ObjectName,
}

/// What [`replan`] changed.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Services before and after; one of the two may be missing.
    pub services: Vec<Change>,
    /// Whether [`Plan::common`] changed.
    pub common: bool,
}

/// One Service before and after.
pub type Change = (Option<Arc<ServicePlan>>, Option<Arc<ServicePlan>>);

/// Plans all Services of the snapshot for one node.
#[must_use]
pub fn plan(snapshot: &Snapshot, node: &str) -> Plan {
    let mut plan = Plan::default();
    plan.here.node = node.to_owned();
    let services = snapshot.services.keys().cloned().map(Key::Service);
    let slices = snapshot.slices.keys().cloned().map(Key::EndpointSlice);
    let changed = services.chain(slices).chain([Key::Config]).collect();
    replan(&mut plan, snapshot, &changed);
    plan
}

/// Brings the plan to what the snapshot says now, of which `changed` is new.
pub fn replan(plan: &mut Plan, snapshot: &Snapshot, changed: &BTreeSet<Key>) -> Changes {
    let mut changes = Changes::default();
    let mut touched = plan.touched(snapshot, changed);
    let mut moved = false;
    if !changed.iter().all(Key::is_of_a_service) {
        let node = snapshot.nodes.get(&plan.here.node);
        let zone = node.and_then(|node| node.zone.clone());
        let common = Common::of(snapshot, &plan.here.node);
        moved = plan.here.zone != zone
            || plan.common.node_addresses != common.node_addresses
            || plan.common.own != common.own
            || plan.common.service_cidrs != common.service_cidrs;
        if moved {
            touched.extend(snapshot.services.keys().cloned());
        }
        changes.common = plan.common != common;
        plan.here.zone = zone;
        plan.common = common;
    }
    if changed.iter().any(|key| matches!(key, Key::Service(_))) {
        let served = served(snapshot);
        if plan.common.served != served {
            plan.common.served = served;
            changes.common = true;
            touched.extend(snapshot.services.keys().cloned());
        }
    }
    let mut before: BTreeMap<ObjectName, Option<Arc<ServicePlan>>> = BTreeMap::new();
    let mut contested = BTreeSet::new();
    for name in touched {
        let old = plan.services.remove(&name);
        let service = snapshot.services.get(&name);
        // To another zone, endpoints are something else.
        let earlier = old.as_deref().filter(|_| !moved);
        let new = service
            .filter(|service| service::is_ours(service))
            .map(|service| plan_service(snapshot, service, &plan.here, &plan.common, earlier));
        contested.extend(plan.reclaim(old.as_deref(), new.as_ref()));
        if let Some(new) = new {
            plan.services.insert(name.clone(), Arc::new(new));
        }
        let slices = snapshot.slices_of(&name).filter(|_| service.is_none());
        let orphans: Vec<_> = slices.map(|slice| slice.origin()).collect();
        match orphans.is_empty() {
            true => drop(plan.orphans.remove(&name)),
            false => drop(plan.orphans.insert(name.clone(), orphans)),
        }
        before.insert(name, old);
    }
    let rivals = contested.iter().filter_map(|claim| plan.claims.get(claim));
    for rival in rivals.flatten() {
        let present = plan.services.get(&rival.service);
        before
            .entry(rival.service.clone())
            .or_insert_with(|| present.cloned());
    }
    for (name, old) in before {
        plan.find_losses(&name);
        let new = plan.services.get(&name).cloned();
        if old != new {
            changes.services.push((old, new));
        }
    }
    changes
}

impl Plan {
    /// What stands behind an address and port.
    #[must_use]
    pub fn find(&self, frontend: &Frontend) -> Option<(&ServicePlan, &Virtual)> {
        let service = self.owner(Claim::Frontend(*frontend))?;
        let behind = service.frontends.get(frontend)?;
        service.holds(frontend, behind).then_some((service, behind))
    }

    /// The Service that has an address, and the field that says so.
    #[must_use]
    pub fn address(&self, address: IpAddr) -> Option<&Origin> {
        let service = self.owner(Claim::Address(address))?;
        let own = service.cluster_ips.get(&address);
        own.or_else(|| service.outside_ips.get(&address))
    }

    /// Everything that could not be planned.
    pub fn notes(&self) -> Vec<Note> {
        let lost = self.remarkable().flat_map(|(_, service)| {
            let lost = service.lost.iter();
            lost.filter_map(|(claim, winner)| self.loss(service, claim, winner))
        });
        let own = self.remarkable().flat_map(|(_, service)| &service.notes);
        let common = self.common.notes.iter().chain(own).cloned();
        let lost = lost.chain(self.lost_health_checks());
        common.chain(lost).chain(self.without_service()).collect()
    }

    /// Whether an address is a Service's own, and not one that leads here from outside.
    #[must_use]
    pub fn is_cluster_ip(&self, address: IpAddr) -> bool {
        let service = self.owner(Claim::Address(address));
        service.is_some_and(|service| service.cluster_ips.contains_key(&address))
    }

    pub(crate) fn remarkable(&self) -> impl Iterator<Item = (&ObjectName, &ServicePlan)> {
        let names = self.remarkable.iter();
        names.filter_map(|name| Some((name, &**self.services.get(name)?)))
    }

    fn owner(&self, claim: Claim) -> Option<&ServicePlan> {
        let first = self.claims.get(&claim)?.first()?;
        self.services.get(&first.service).map(|service| &**service)
    }

    fn without_service(&self) -> impl Iterator<Item = Note> {
        let slices = |(service, slices): (&ObjectName, &Vec<Origin>)| {
            let message = format!("there is no Service {service}; nobody is led to its endpoints");
            let note = |slice: &Origin| {
                let label = "metadata.labels[kubernetes.io/service-name]";
                Note::new(slice.clone().field(label), message.clone())
            };
            slices.iter().map(note).collect::<Vec<_>>()
        };
        self.orphans.iter().flat_map(slices)
    }

    /// The Services that a change may touch.
    fn touched(&mut self, snapshot: &Snapshot, changed: &BTreeSet<Key>) -> BTreeSet<ObjectName> {
        let mut touched = BTreeSet::new();
        for key in changed {
            match key {
                Key::Service(name) => drop(touched.insert(name.clone())),
                Key::EndpointSlice(name) => {
                    let now = snapshot.slices.get(name).map(|slice| slice.service.clone());
                    let before = match &now {
                        Some(service) => self.slices.insert(name.clone(), service.clone()),
                        None => self.slices.remove(name),
                    };
                    touched.extend(before.into_iter().chain(now));
                }
                _ => {}
            }
        }
        touched
    }

    /// Enters what a Service claims now, and returns what it claimed or claims.
    fn reclaim(&mut self, old: Option<&ServicePlan>, new: Option<&ServicePlan>) -> BTreeSet<Claim> {
        let mut contested = BTreeSet::new();
        for (claim, entry) in old.into_iter().flat_map(entries) {
            let Some(claimants) = self.claims.get_mut(&claim) else {
                continue;
            };
            claimants.retain(|claimant| *claimant != entry);
            match claimants.is_empty() {
                true => drop(self.claims.remove(&claim)),
                false => drop(contested.insert(claim)),
            }
        }
        for (claim, entry) in new.into_iter().flat_map(entries) {
            let Some(claimants) = self.claims.get_mut(&claim) else {
                self.claims.insert(claim, vec![entry]);
                continue;
            };
            if let Err(place) = claimants.binary_search(&entry) {
                claimants.insert(place, entry);
            }
            contested.insert(claim);
        }
        contested
    }

    /// Writes down what others have of what a Service claims.
    fn find_losses(&mut self, name: &ObjectName) {
        let Some(service) = self.services.get(name) else {
            self.remarkable.remove(name);
            return;
        };
        let winner = |claim: &Claim| {
            let winner = &self.claims.get(claim)?.first()?.service;
            (winner != name).then(|| winner.clone())
        };
        let lost: BTreeMap<_, _> = claims(service)
            .filter_map(|(claim, _)| Some((claim, winner(&claim)?)))
            .collect();
        let silent = service.notes.is_empty() && service.health_check.is_none();
        match lost.is_empty() && silent {
            true => drop(self.remarkable.remove(name)),
            false => drop(self.remarkable.insert(name.clone())),
        }
        if service.lost != lost {
            let mut service = ServicePlan::clone(service);
            service.lost = lost;
            self.services.insert(name.clone(), Arc::new(service));
        }
    }

    /// Two Services may share an address that leads here from outside, but no port of it.
    fn loss(&self, service: &ServicePlan, claim: &Claim, winner: &ObjectName) -> Option<Note> {
        let (what, origin) = match claim {
            Claim::Address(address) => (
                address.to_string(),
                service.cluster_ips.get(address)?.clone(),
            ),
            Claim::Frontend(at) if service.cluster_ips.contains_key(&at.address) => return None,
            Claim::Frontend(at) => {
                let behind = service.frontends.get(at)?;
                let what = format!("{} port {}/{}", at.address, at.port, at.protocol);
                (what, behind.origin.clone())
            }
        };
        let message = format!("{what} already belongs to Service {winner}; it is left out here");
        Some(Note::new(origin, message))
    }
}

fn entries(service: &ServicePlan) -> impl Iterator<Item = (Claim, Claimant)> + '_ {
    claims(service).map(|(claim, arrival)| {
        let claimant = Claimant {
            arrival,
            created: service.created.unwrap_or(i64::MAX),
            service: service.service.clone(),
        };
        (claim, claimant)
    })
}

fn claims(service: &ServicePlan) -> impl Iterator<Item = (Claim, Arrival)> + '_ {
    let addresses = service
        .cluster_ips
        .keys()
        .map(|ip| (*ip, Arrival::ClusterIp));
    let outside = service
        .outside_ips
        .keys()
        .map(|ip| (*ip, Arrival::ExternalIp));
    let addresses = addresses.chain(outside);
    let addresses = addresses.map(|(address, arrival)| (Claim::Address(address), arrival));
    let frontends = service.frontends.iter();
    let frontends = frontends.map(|(at, behind)| (Claim::Frontend(*at), behind.arrival));
    addresses.chain(frontends)
}

impl Common {
    fn of(snapshot: &Snapshot, node: &str) -> Self {
        let mut common = Self {
            inside: snapshot.pod_networks(),
            served: served(snapshot),
            service_cidrs: snapshot.config.service_cidrs.clone(),
            localhost: snapshot.config.localhost_node_ports,
            ..Self::default()
        };
        common.find_networks(snapshot);
        common.host_ports = host_ports::plan(snapshot, node, &mut common.notes);
        if let Some(this) = snapshot.nodes.get(node) {
            let field = this.origin().field("spec.podCIDRs");
            let cidrs = this.pod_cidrs.iter();
            common.own_pods = cidrs.map(|cidr| (cidr.trunc(), field.clone())).collect();
            common.node_addresses = node_addresses(&snapshot.config, this);
            common.own = this.every_address();
            let four = this.own_addresses().any(|address| address.is_ipv4());
            if snapshot.config.localhost_node_ports == Some(true) && four {
                common.node_addresses.push(localhost::ADDRESS);
            }
        }
        let pods = snapshot.pods_on(node).filter(|pod| !pod.host_network);
        common.pods = pods
            .flat_map(|pod| pod.addresses.iter().map(|ip| (*ip, pod.origin())))
            .collect();
        common.find_strays(snapshot, node);
        common
    }

    /// Addresses of this node's pods outside of its pod CIDRs, which somebody asked for: their packets, too, come to
    /// Services here first.
    fn find_strays(&mut self, snapshot: &Snapshot, node: &str) {
        let pods = self
            .pods
            .iter()
            .map(|(address, pod)| (*address, pod.clone()));
        let others = snapshot.attachments_on(node).flat_map(|attachment| {
            let addresses = attachment.addresses.iter();
            addresses.map(|address| (*address, attachment.origin()))
        });
        for (address, origin) in pods.chain(others).collect::<Vec<_>>() {
            for networks in [&mut self.own_pods, &mut self.inside] {
                if !networks.keys().any(|network| network.contains(&address)) {
                    networks.insert(IpNet::from(address), origin.clone());
                }
            }
        }
    }

    /// The configured ranges; none that nodes or pods have a part in, which could then not be reached.
    fn find_networks(&mut self, snapshot: &Snapshot) {
        let name = Config::object_name();
        let config = Origin::new(Kind::ConfigMap, &name.namespace, &name.name);
        for range in &snapshot.config.service_cidrs {
            let range = range.trunc();
            let origin = config.clone().field("serviceCIDRs");
            let mut nodes = snapshot.nodes.values();
            let node = nodes.find(|node| {
                let overlaps = |cidr: &IpNet| cidr.contains(&range) || range.contains(cidr);
                node.addresses.iter().any(|own| range.contains(own))
                    || node.pod_cidrs.iter().any(overlaps)
            });
            match node {
                Some(node) => {
                    let message = format!(
                        "{range} holds addresses of {} or its pods; what no Service has there is not refused",
                        node.origin()
                    );
                    self.notes.push(Note::new(origin, message));
                }
                None => {
                    self.networks.insert(range, origin);
                }
            }
        }
    }
}

/// The node's primary address of each family, as kube-proxy's nftables mode has it; or, if the configuration names
/// ranges, all that lie in them.
#[must_use]
pub fn node_addresses(config: &Config, node: &Node) -> Vec<IpAddr> {
    let ranges = &config.node_port_addresses;
    if ranges.is_empty() {
        let primary = |family| node.own_addresses().find(|ip| Family::of(*ip) == family);
        return Family::ALL.into_iter().filter_map(primary).collect();
    }
    let underlay = node.underlay.iter();
    let others = underlay.clone().flat_map(|one| &one.node_ports).copied();
    let mut addresses: Vec<IpAddr> = node
        .own_addresses()
        .chain(underlay.flat_map(Underlay::prefixes).map(IpNet::addr))
        .chain(others)
        .filter(|address| ranges.iter().any(|range| range.contains(address)))
        .filter(|address| !is_of_one_link(*address))
        .collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

/// A range such as `::/0` does not mean addresses that each of the node's links may have.
fn is_of_one_link(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(four) => four.is_link_local(),
        IpAddr::V6(six) => six.is_unicast_link_local(),
    }
}

fn served(snapshot: &Snapshot) -> BTreeMap<IpAddr, ObjectName> {
    let services = snapshot.services.values();
    let served = services.filter(|service| service.served_by_node);
    let addresses = served.flat_map(|service| {
        let own = service.cluster_ips.iter();
        own.map(|address| (*address, service.name.clone()))
    });
    addresses.collect()
}
