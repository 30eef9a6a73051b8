//! [`Snapshot`]: one consistent picture of the cluster, in ordered maps, so that the same cluster
//! always plans to the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use parfait_packet::Origin;

use crate::{
    Attachment, ClusterNetworkPolicy, Config, EndpointSlice, Hearing, LoadBalancerPool, Namespace,
    NetworkPolicy, Node, NodeNetworkPolicy, Note, Object, ObjectName, Pod, Service,
};

/// What identifies an object in a [`Snapshot`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// The configuration.
    Config,
    /// A Node.
    Node(String),
    /// A Pod.
    Pod(ObjectName),
    /// A Service.
    Service(ObjectName),
    /// An EndpointSlice.
    EndpointSlice(ObjectName),
    /// A Namespace.
    Namespace(String),
    /// A NetworkPolicy.
    NetworkPolicy(ObjectName),
    /// A ClusterNetworkPolicy.
    ClusterNetworkPolicy(String),
    /// A NodeNetworkPolicy.
    NodeNetworkPolicy(String),
    /// A LoadBalancerPool.
    LoadBalancerPool(String),
}

/// The cluster at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The configuration.
    pub config: Config,
    /// The ConfigMap cannot be read, and `config` is the one before it, or see [`Snapshot::recall`].
    pub config_kept: bool,
    /// All Nodes, by name.
    pub nodes: BTreeMap<String, Node>,
    /// All Pods.
    pub pods: BTreeMap<ObjectName, Pod>,
    /// All Services.
    pub services: BTreeMap<ObjectName, Service>,
    /// All EndpointSlices, which plans share.
    pub slices: BTreeMap<ObjectName, Arc<EndpointSlice>>,
    /// All Namespaces, by name.
    pub namespaces: BTreeMap<String, Namespace>,
    /// All NetworkPolicies.
    pub policies: BTreeMap<ObjectName, NetworkPolicy>,
    /// All ClusterNetworkPolicies, by name.
    pub cluster_policies: BTreeMap<String, ClusterNetworkPolicy>,
    /// All NodeNetworkPolicies, by name.
    pub node_policies: BTreeMap<String, NodeNetworkPolicy>,
    /// All LoadBalancerPools, by name.
    pub pools: BTreeMap<String, LoadBalancerPool>,
    /// What the agent that plans hears of its peers.
    pub hearing: Hearing,
    /// What was wrong with objects when they were parsed.
    pub notes: BTreeMap<Key, Vec<Note>>,
    /// By node, see [`Snapshot::attach`].
    pub(crate) attachments: BTreeMap<String, Vec<Attachment>>,
    slices_of: BTreeMap<ObjectName, BTreeSet<ObjectName>>,
}

/// How many nodes report which configuration is in force.
const REPORTING: usize = 3;

/// Where [`Snapshot::recall`] leaves its note.
const IN_FORCE: &str = "in force";

impl Key {
    /// Whether it is a Service's or one of its slices'.
    #[must_use]
    pub const fn is_of_a_service(&self) -> bool {
        matches!(self, Self::Service(_) | Self::EndpointSlice(_))
    }
}

impl Object {
    /// What identifies this object.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::Config(_) => Key::Config,
            Self::Node(node) => Key::Node(node.name.clone()),
            Self::Pod(pod) => Key::Pod(pod.name.clone()),
            Self::Service(service) => Key::Service(service.name.clone()),
            Self::EndpointSlice(slice) => Key::EndpointSlice(slice.name.clone()),
            Self::Namespace(namespace) => Key::Namespace(namespace.name.clone()),
            Self::NetworkPolicy(policy) => Key::NetworkPolicy(policy.name.clone()),
            Self::ClusterNetworkPolicy(policy) => Key::ClusterNetworkPolicy(policy.name.clone()),
            Self::NodeNetworkPolicy(policy) => Key::NodeNetworkPolicy(policy.name.clone()),
            Self::LoadBalancerPool(pool) => Key::LoadBalancerPool(pool.name.clone()),
        }
    }
}

impl Snapshot {
    /// Adds an object, or replaces the one with the same key.
    pub fn insert(&mut self, object: Object) {
        self.remove(&object.key());
        match object {
            Object::Config(config) => self.config = config,
            Object::Node(node) => {
                self.nodes.insert(node.name.clone(), node);
            }
            Object::Pod(pod) => {
                self.pods.insert(pod.name.clone(), pod);
            }
            Object::Service(service) => {
                self.services.insert(service.name.clone(), service);
            }
            Object::EndpointSlice(slice) => {
                let of = self.slices_of.entry(slice.service.clone()).or_default();
                of.insert(slice.name.clone());
                self.slices.insert(slice.name.clone(), Arc::new(slice));
            }
            Object::Namespace(namespace) => {
                self.namespaces.insert(namespace.name.clone(), namespace);
            }
            Object::NetworkPolicy(policy) => {
                self.policies.insert(policy.name.clone(), policy);
            }
            Object::ClusterNetworkPolicy(policy) => {
                self.cluster_policies.insert(policy.name.clone(), policy);
            }
            Object::NodeNetworkPolicy(policy) => {
                self.node_policies.insert(policy.name.clone(), policy);
            }
            Object::LoadBalancerPool(pool) => {
                self.pools.insert(pool.name.clone(), pool);
            }
        }
    }

    /// Removes an object, and the notes about it, if it is there.
    pub fn remove(&mut self, key: &Key) {
        self.notes.remove(key);
        match key {
            Key::Config => (self.config, self.config_kept) = (Config::default(), false),
            Key::Node(name) => drop(self.nodes.remove(name)),
            Key::Pod(name) => drop(self.pods.remove(name)),
            Key::Service(name) => drop(self.services.remove(name)),
            Key::EndpointSlice(name) => {
                let Some(slice) = self.slices.remove(name) else {
                    return;
                };
                if let Some(of) = self.slices_of.get_mut(&slice.service) {
                    of.remove(name);
                    if of.is_empty() {
                        self.slices_of.remove(&slice.service);
                    }
                }
            }
            Key::Namespace(name) => drop(self.namespaces.remove(name)),
            Key::NetworkPolicy(name) => drop(self.policies.remove(name)),
            Key::ClusterNetworkPolicy(name) => drop(self.cluster_policies.remove(name)),
            Key::NodeNetworkPolicy(name) => drop(self.node_policies.remove(name)),
            Key::LoadBalancerPool(name) => drop(self.pools.remove(name)),
        }
    }

    /// Takes what [`crate::parse`] returned: the object, if it could be used, and the notes about it. Whether anything is
    /// another for it: much of an object, its status above all, is written often and read by nobody here.
    pub fn take(&mut self, key: Key, object: Option<Object>, notes: Vec<Note>) -> bool {
        let noted = self.notes.get(&key).map_or(&[][..], Vec::as_slice);
        let same = match &object {
            Some(object) => self.holds(object),
            None if key == Key::Config => self.config_kept,
            None => !self.contains(&key),
        };
        if same && noted == notes {
            return false;
        }
        match object {
            Some(object) => self.insert(object),
            // A configuration that cannot be read leaves the last good one in force.
            None if key == Key::Config => self.config_kept = true,
            None => self.remove(&key),
        }
        if !notes.is_empty() {
            self.notes.insert(key, notes);
        }
        true
    }

    /// Whether this very object is there.
    fn holds(&self, object: &Object) -> bool {
        match object {
            Object::Config(config) => self.config == *config && !self.config_kept,
            Object::Node(node) => self.nodes.get(&node.name) == Some(node),
            Object::Pod(pod) => self.pods.get(&pod.name) == Some(pod),
            Object::Service(service) => self.services.get(&service.name) == Some(service),
            Object::EndpointSlice(slice) => {
                let known = self.slices.get(&slice.name);
                known.is_some_and(|known| **known == *slice)
            }
            Object::Namespace(one) => self.namespaces.get(&one.name) == Some(one),
            Object::NetworkPolicy(policy) => self.policies.get(&policy.name) == Some(policy),
            Object::ClusterNetworkPolicy(policy) => {
                self.cluster_policies.get(&policy.name) == Some(policy)
            }
            Object::NodeNetworkPolicy(policy) => {
                self.node_policies.get(&policy.name) == Some(policy)
            }
            Object::LoadBalancerPool(pool) => self.pools.get(&pool.name) == Some(pool),
        }
    }

    /// Whether any object is there under a key.
    fn contains(&self, key: &Key) -> bool {
        match key {
            Key::Config => true,
            Key::Node(name) => self.nodes.contains_key(name),
            Key::Pod(name) => self.pods.contains_key(name),
            Key::Service(name) => self.services.contains_key(name),
            Key::EndpointSlice(name) => self.slices.contains_key(name),
            Key::Namespace(name) => self.namespaces.contains_key(name),
            Key::NetworkPolicy(name) => self.policies.contains_key(name),
            Key::ClusterNetworkPolicy(name) => self.cluster_policies.contains_key(name),
            Key::NodeNetworkPolicy(name) => self.node_policies.contains_key(name),
            Key::LoadBalancerPool(name) => self.pools.contains_key(name),
        }
    }

    /// The configuration that a node's agent reports to be in force: while the ConfigMap cannot be read, and of
    /// the first nodes by name alone, as every agent hears of every change of a Node.
    #[must_use]
    pub fn config_to_report(&self, node: &str) -> Option<Box<Config>> {
        let reports = self.nodes.keys().take(REPORTING).any(|name| name == node);
        (reports && self.config_kept).then(|| Box::new(self.config.clone()))
    }

    /// While the ConfigMap cannot be read, takes the configuration that agents report to be in force. For who
    /// begins only now and has none in memory.
    pub fn recall(&mut self) {
        if !self.config_kept {
            return;
        }
        let in_force = |node: &Node| node.underlay.as_ref()?.config.as_deref().cloned();
        let reported = self.nodes.values().find_map(in_force);
        let message = match &reported {
            Some(_) => "agents report which configuration they go by, and this goes by it too",
            None => "no agent reports which configuration it goes by; the defaults are assumed",
        };
        self.config = reported.unwrap_or_default();
        let notes = self.notes.entry(Key::Config).or_default();
        notes.retain(|note| note.origin.field != IN_FORCE);
        notes.push(Note::new(Config::origin().field(IN_FORCE), message));
    }

    /// The EndpointSlices of a Service, by name.
    pub fn slices_of(&self, service: &ObjectName) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        let names = self.slices_of.get(service).into_iter().flatten();
        names.filter_map(|name| self.slices.get(name))
    }

    /// The pods of a node that have a network, host-network pods included.
    pub fn pods_on(&self, node: &str) -> impl Iterator<Item = &Pod> {
        self.pods
            .values()
            .filter(move |pod| pod.node.as_deref() == Some(node) && pod.has_network())
    }

    /// Where pods have their addresses: the configured ranges, and the pod CIDRs that lie outside them.
    #[must_use]
    pub fn pod_networks(&self) -> BTreeMap<IpNet, Origin> {
        let field = Config::origin().field("clusterCIDRs");
        let ranges = self.config.cluster_cidrs.iter();
        let mut networks: BTreeMap<IpNet, Origin> =
            ranges.map(|cidr| (cidr.trunc(), field.clone())).collect();
        for node in self.nodes.values() {
            for cidr in &node.pod_cidrs {
                if !networks.keys().any(|known| known.contains(cidr)) {
                    networks.insert(cidr.trunc(), node.origin().field("spec.podCIDRs"));
                }
            }
        }
        networks
    }

    /// The pod that has this address for itself.
    #[must_use]
    pub fn pod_at(&self, address: IpAddr) -> Option<&Pod> {
        let mut candidates = self.pods.values().filter(|pod| {
            !pod.host_network && pod.has_network() && pod.addresses.contains(&address)
        });
        candidates.next()
    }

    /// The node that has this address, as InternalIP or as its own in the pod network.
    #[must_use]
    pub fn node_at(&self, address: IpAddr) -> Option<&Node> {
        let family = parfait_packet::Family::of(address);
        let mut candidates = self.nodes.values().filter(|node| {
            node.addresses.contains(&address) || node.pod_network_address(family) == Some(address)
        });
        candidates.next()
    }

    /// The Service that has this address.
    #[must_use]
    pub fn service_at(&self, address: IpAddr) -> Option<&Service> {
        self.services
            .values()
            .find(|service| service.cluster_ips.contains(&address))
    }
}
