//! [`Members`]: whom peers can mean, by namespace, as far as policies ask: labels, addresses, names of ports.
//!
//! It follows the cluster object by object and says what was there before, which the snapshot does not know any more:
//! whom a change concerns is found by asking both. Labels and ports are shared, as the pods of one app have the same.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use parfait_cluster::{
    Direction, Key, LabelSelector, ObjectName, Peer, Pod, PolicyRule, Service, Snapshot, TargetPort,
};
use parfait_packet::Protocol;

use super::select::{named_ports, stands_for};

/// Labels of an object.
pub(super) type Labels = BTreeMap<String, String>;

/// Ports with a name, in order.
type NamedPorts = Vec<(Protocol, String, u16)>;

/// What a peer can mean: a pod with a network of its own, or a Service that nodes' agents answer for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    labels: Arc<Labels>,
    ports: Arc<NamedPorts>,
    pub(super) addresses: Box<[IpAddr]>,
}

impl Member {
    /// The ports that it calls so.
    pub(super) fn named(&self, protocol: Protocol, name: &str) -> impl Iterator<Item = u16> {
        let ports = self.ports.iter();
        let ports = ports.filter(move |(other, called, _)| *other == protocol && called == name);
        ports.map(|(.., number)| *number)
    }
}

/// What is in a namespace.
#[derive(Debug, Default)]
struct There {
    /// `None` if there is no such Namespace, and no selector means it.
    labels: Option<Labels>,
    /// Pods, and Services that nodes' agents answer for, by name.
    members: BTreeMap<(What, String), Member>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Pod,
    Service,
}

/// What a change makes different.
#[derive(Debug)]
pub(super) enum Moved {
    /// One of a namespace was or is another.
    Member {
        namespace: String,
        before: Option<Member>,
        after: Option<Member>,
    },
    /// The labels of a namespace were or are others, and so are those who are meant of its members.
    Namespace {
        name: String,
        before: Option<Labels>,
        after: Option<Labels>,
    },
}

/// Addresses of one before and after.
type Change<'m> = (&'m [IpAddr], &'m [IpAddr]);

impl Moved {
    /// The namespace in which something moved.
    pub(super) fn namespace(&self) -> &str {
        match self {
            Self::Member { namespace, .. } => namespace,
            Self::Namespace { name, .. } => name,
        }
    }

    /// What it makes different of whom a peer means, if only addresses matter.
    pub(super) fn in_peer<'m>(
        &'m self,
        members: &'m Members,
        whose: &str,
        peer: &Peer,
    ) -> Vec<Change<'m>> {
        match self {
            Self::Member {
                namespace,
                before,
                after,
            } => {
                let addresses = |member: &'m Option<Member>| -> &'m [IpAddr] {
                    let member = member.as_ref();
                    let meant = member.filter(|one| members.means(whose, peer, namespace, one));
                    meant.map_or(&[], |member| &member.addresses)
                };
                let change = (addresses(before), addresses(after));
                (change.0 != change.1)
                    .then_some(change)
                    .into_iter()
                    .collect()
            }
            Self::Namespace { name, .. } => {
                let Peer::Pods { pods, .. } = peer else {
                    return Vec::new();
                };
                let [was, is] = self.selected_by(peer);
                let there = members.there.get(name).filter(|_| was != is);
                let there = there.into_iter().flat_map(|there| there.members.values());
                let meant = there.filter(|member| pods.matches(&member.labels));
                let addresses = meant.map(|member| &*member.addresses);
                addresses
                    .map(|all| if was { (all, &[][..]) } else { (&[][..], all) })
                    .collect()
            }
        }
    }

    /// Whether it makes a rule mean others, or at other ports: a rule whose peers are `grouped` does not.
    pub(super) fn is_in_rule(
        &self,
        members: &Members,
        own: &str,
        rule: &PolicyRule,
        direction: Direction,
        grouped: impl Fn(&Peer) -> bool,
    ) -> bool {
        // What goes out to a name goes to each one's own port.
        let named = direction == Direction::Egress && named_ports(rule).next().is_some();
        let Some(peers) = &rule.peers else {
            return named && matches!(self, Self::Member { .. });
        };
        peers.iter().any(|peer| {
            let renamed = || named && self.is_in_ports(members, own, peer);
            let moved = renamed() || !self.in_peer(members, own, peer).is_empty();
            moved && (named || !grouped(peer))
        })
    }

    /// Whether one whom a peer means calls other ports by names.
    fn is_in_ports(&self, members: &Members, own: &str, peer: &Peer) -> bool {
        match self {
            Self::Member {
                namespace,
                before: Some(before),
                after: Some(after),
            } => before.ports != after.ports && members.means(own, peer, namespace, after),
            _ => false,
        }
    }

    /// Whether a peer's selector meant a namespace before, and does after.
    fn selected_by(&self, peer: &Peer) -> [bool; 2] {
        match (self, peer) {
            (Self::Namespace { before, after, .. }, Peer::Pods { namespaces, .. }) => {
                [before, after].map(|labels| is_meant(namespaces.as_ref(), labels.as_ref()))
            }
            _ => [false; 2],
        }
    }
}

/// All that peers can mean.
#[derive(Debug, Default)]
pub(super) struct Members {
    there: BTreeMap<String, There>,
    labels: Shared<Labels>,
    ports: Shared<NamedPorts>,
}

impl Members {
    /// Those of a cluster.
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let mut members = Self::default();
        for name in snapshot.namespaces.keys() {
            members.follow(snapshot, &Key::Namespace(name.clone()));
        }
        for pod in snapshot.pods.values() {
            members.put(
                What::Pod,
                &pod.name,
                Some(pod).filter(|pod| is_member(pod)).map(Found::Pod),
            );
        }
        let services = snapshot.services.values();
        for service in services.filter(|service| service.served_by_node) {
            members.put(What::Service, &service.name, Some(Found::Service(service)));
        }
        members
    }

    /// Brings one object to what the snapshot says of it; `None` if that is the same.
    pub(super) fn follow(&mut self, snapshot: &Snapshot, key: &Key) -> Option<Moved> {
        match key {
            Key::Pod(name) => {
                let pod = snapshot.pods.get(name).filter(|pod| is_member(pod));
                self.put(What::Pod, name, pod.map(Found::Pod))
            }
            Key::Service(name) => {
                let service = snapshot.services.get(name);
                let service = service.filter(|service| service.served_by_node);
                self.put(What::Service, name, service.map(Found::Service))
            }
            Key::Namespace(name) => {
                let after = snapshot.namespaces.get(name);
                let after = after.map(|namespace| namespace.labels.clone());
                let there = self.there.entry(name.clone()).or_default();
                let before = std::mem::replace(&mut there.labels, after.clone());
                self.forget_empty(name);
                (before != after).then(|| Moved::Namespace {
                    name: name.clone(),
                    before,
                    after,
                })
            }
            _ => None,
        }
    }

    fn put(&mut self, what: What, name: &ObjectName, found: Option<Found<'_>>) -> Option<Moved> {
        let after = found.map(|found| Member {
            labels: self.labels.share(found.labels()),
            ports: self.ports.share(&found.ports()),
            addresses: found.addresses().into(),
        });
        let key = (what, name.name.clone());
        let known = self.there.get(&name.namespace);
        let before = known.and_then(|there| there.members.get(&key)).cloned();
        if before == after {
            return None;
        }
        let there = self.there.entry(name.namespace.clone()).or_default();
        match &after {
            Some(member) => drop(there.members.insert(key, member.clone())),
            None => drop(there.members.remove(&key)),
        }
        self.forget_empty(&name.namespace);
        Some(Moved::Member {
            namespace: name.namespace.clone(),
            before,
            after,
        })
    }

    fn forget_empty(&mut self, namespace: &str) {
        let there = self.there.get(namespace);
        if there.is_some_and(|there| there.labels.is_none() && there.members.is_empty()) {
            self.there.remove(namespace);
        }
    }

    /// Everybody.
    pub(super) fn all(&self) -> impl Iterator<Item = &Member> {
        self.there.values().flat_map(|there| there.members.values())
    }

    /// Those whom a peer means in a rule of a policy of this namespace. An `ipBlock` means none of them.
    pub(super) fn meant<'m>(
        &'m self,
        namespace: &'m str,
        peer: &'m Peer,
    ) -> Box<dyn Iterator<Item = &'m Member> + 'm> {
        let Peer::Pods { namespaces, pods } = peer else {
            return Box::new(std::iter::empty());
        };
        let one = namespaces.is_none().then(|| self.there.get(namespace));
        let several = namespaces.as_ref().map(|selector| {
            let all = self.there.values();
            all.filter(|there| is_meant(Some(selector), there.labels.as_ref()))
        });
        let there = one
            .flatten()
            .into_iter()
            .chain(several.into_iter().flatten());
        let members = there.flat_map(|there| there.members.values());
        Box::new(members.filter(|member| pods.matches(&member.labels)))
    }

    /// Whether a peer means one who is, or was, in a namespace.
    pub(super) fn means(&self, own: &str, peer: &Peer, namespace: &str, member: &Member) -> bool {
        let Peer::Pods { namespaces, pods } = peer else {
            return false;
        };
        let there = match namespaces {
            None => own == namespace,
            selector => {
                let there = self.there.get(namespace);
                is_meant(
                    selector.as_ref(),
                    there.and_then(|there| there.labels.as_ref()),
                )
            }
        };
        there && pods.matches(&member.labels)
    }
}

/// Whether a selector means a namespace with these labels.
fn is_meant(selector: Option<&LabelSelector>, labels: Option<&Labels>) -> bool {
    match (selector, labels) {
        (Some(selector), Some(labels)) => selector.matches(labels),
        _ => false,
    }
}

fn is_member(pod: &Pod) -> bool {
    !pod.host_network && pod.has_network()
}

/// A member's object.
enum Found<'a> {
    Pod(&'a Pod),
    Service(&'a Service),
}

impl<'a> Found<'a> {
    fn labels(&self) -> &'a Labels {
        match self {
            Self::Pod(pod) => &pod.labels,
            Self::Service(service) => stands_for(service),
        }
    }

    fn addresses(&self) -> &'a [IpAddr] {
        match self {
            Self::Pod(pod) => &pod.addresses,
            Self::Service(service) => &service.cluster_ips,
        }
    }

    fn ports(&self) -> NamedPorts {
        let mut ports: NamedPorts = match self {
            Self::Pod(pod) => {
                let named = |port: &parfait_cluster::ContainerPort| {
                    Some((port.protocol, port.name.clone()?, port.port))
                };
                pod.ports.iter().filter_map(named).collect()
            }
            Self::Service(service) => {
                let ports = service.ports.iter().flat_map(|port| {
                    let target = match &port.target {
                        TargetPort::Name(name) => Some(name),
                        TargetPort::Number(_) => None,
                    };
                    let names = port.name.iter().chain(target);
                    names.map(|name| (port.protocol, name.clone(), port.port))
                });
                ports.collect()
            }
        };
        ports.sort();
        ports.dedup();
        ports
    }
}

/// Values that many have.
#[derive(Debug)]
struct Shared<T> {
    values: BTreeSet<Arc<T>>,
    /// So many values are looked through for those that nobody has any more.
    sweep: usize,
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self {
            values: BTreeSet::new(),
            sweep: SWEEP,
        }
    }
}

/// Below it nothing is worth looking through.
const SWEEP: usize = 1_024;

impl<T: Ord + Clone> Shared<T> {
    fn share(&mut self, value: &T) -> Arc<T> {
        if let Some(known) = self.values.get(value) {
            return Arc::clone(known);
        }
        if self.values.len() >= self.sweep {
            self.values.retain(|value| Arc::strong_count(value) > 1);
            self.sweep = (self.values.len() * 2).max(SWEEP);
        }
        let value = Arc::new(value.clone());
        self.values.insert(Arc::clone(&value));
        value
    }
}
