//! Changes of a cluster, one by one, in objects that chance picks.

use std::collections::BTreeSet;
use std::net::IpAddr;

use parfait_cluster::{Key, Object, Pod, PolicyPort, PolicyRule, PortMatch, Snapshot};
use parfait_linux::nft::Value;
use parfait_packet::Protocol;
use parfait_transport::policy;

use crate::large::OURS;

/// What changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The label of a pod elsewhere that this node's pods may talk to.
    Peer,
    /// Such a pod goes, and comes again.
    Gone,
    /// The label of a pod elsewhere that nearly every policy names: one of cluster DNS.
    Dns,
    /// A label of a pod elsewhere that no policy asks for.
    Nobody,
    /// The label of a pod of this node.
    Own,
    /// A port in a rule of a policy of a namespace that has pods here.
    Policy,
    /// A port in a rule of a ClusterNetworkPolicy.
    Cluster,
    /// The label of a namespace.
    Namespace,
}

/// All of them, by what is printed.
pub const KINDS: [(Kind, &str); 8] = [
    (Kind::Peer, "peer"),
    (Kind::Gone, "gone"),
    (Kind::Dns, "dns"),
    (Kind::Nobody, "nobody"),
    (Kind::Own, "own"),
    (Kind::Policy, "policy"),
    (Kind::Cluster, "cluster"),
    (Kind::Namespace, "namespace"),
];

/// One thing becomes this; `None` is gone.
pub type Change = (Key, Option<Object>);

/// Objects that can change so.
pub struct Random {
    kind: Kind,
    keys: Vec<Key>,
    at: usize,
}

impl Random {
    /// Among all of the snapshot; `None` if there are none.
    pub fn new(snapshot: &Snapshot, kind: Kind) -> Option<Self> {
        let pods = |wanted: &dyn Fn(&Pod) -> bool| {
            let pods = snapshot.pods.values().filter(|pod| wanted(pod));
            pods.map(|pod| Key::Pod(pod.name.clone())).collect()
        };
        let here = |pod: &Pod| pod.node.as_deref() == Some(OURS);
        let keys: Vec<Key> = match kind {
            Kind::Peer | Kind::Gone => {
                let peers = peers(snapshot);
                pods(&|pod| !here(pod) && pod.addresses.iter().any(|ip| peers.contains(ip)))
            }
            Kind::Dns => pods(&|pod| !here(pod) && is_dns(pod)),
            Kind::Nobody => pods(&|pod| !here(pod)),
            Kind::Own => pods(&here),
            Kind::Policy => {
                let pods = snapshot.pods.values().filter(|pod| here(pod));
                let there: BTreeSet<&str> = pods.map(|pod| pod.name.namespace.as_str()).collect();
                let names = snapshot.policies.keys();
                let names = names.filter(|name| there.contains(name.namespace.as_str()));
                names.cloned().map(Key::NetworkPolicy).collect()
            }
            Kind::Cluster => {
                let names = snapshot.cluster_policies.keys();
                names.cloned().map(Key::ClusterNetworkPolicy).collect()
            }
            Kind::Namespace => {
                let names = snapshot.namespaces.keys();
                names.cloned().map(Key::Namespace).collect()
            }
        };
        let any = !keys.is_empty();
        any.then_some(Self { kind, keys, at: 0 })
    }

    /// The next one.
    pub fn next(&mut self, snapshot: &Snapshot) -> Change {
        // A prime far from the number of objects comes to all of them, in no order.
        self.at = (self.at + 1_000_003) % self.keys.len();
        let key = self.keys[self.at].clone();
        let object = self.changed(object(snapshot, &key));
        (key, object)
    }

    fn changed(&self, object: Option<Object>) -> Option<Object> {
        let text = |text: &str| text.to_owned();
        match object? {
            Object::Pod(_) if self.kind == Kind::Gone => None,
            Object::Pod(mut pod) => {
                let (key, value) = match self.kind {
                    Kind::Nobody => ("version", "v3"),
                    Kind::Own => ("app", "app-0"),
                    _ => ("app", "another"),
                };
                pod.labels.insert(text(key), text(value));
                Some(Object::Pod(pod))
            }
            Object::NetworkPolicy(mut policy) => {
                let rules = policy.ingress.iter_mut().chain(&mut policy.egress);
                rules.flatten().for_each(one_more);
                Some(Object::NetworkPolicy(policy))
            }
            Object::ClusterNetworkPolicy(mut policy) => {
                let rules = policy.ingress.iter_mut().chain(&mut policy.egress);
                rules.for_each(|rule| one_more(&mut rule.matches));
                Some(Object::ClusterNetworkPolicy(policy))
            }
            Object::Namespace(mut namespace) => {
                namespace.labels.insert(text("team"), text("team-0"));
                Some(Object::Namespace(namespace))
            }
            other => Some(other),
        }
    }

    /// Whether a change of this kind is seen in the kernel; `None` if it depends.
    pub const fn is_seen(&self) -> Option<bool> {
        match self.kind {
            Kind::Nobody => Some(false),
            Kind::Peer | Kind::Gone | Kind::Dns | Kind::Own | Kind::Policy => Some(true),
            Kind::Cluster | Kind::Namespace => None,
        }
    }
}

/// One more port of a rule.
fn one_more(rule: &mut PolicyRule) {
    let port = PolicyPort {
        protocol: Protocol::Tcp,
        port: PortMatch::Numbers(8443, 8443),
    };
    rule.ports.get_or_insert_default().push(port);
}

/// As `everywhere` of the fixture allows to ask for names.
fn is_dns(pod: &Pod) -> bool {
    pod.name.namespace == "kube-system" && pod.labels.get("app").is_some_and(|app| app == "app-0")
}

/// What there is now.
pub fn object(snapshot: &Snapshot, key: &Key) -> Option<Object> {
    match key {
        Key::Pod(name) => snapshot.pods.get(name).cloned().map(Object::Pod),
        Key::NetworkPolicy(name) => {
            let policy = snapshot.policies.get(name).cloned();
            policy.map(Object::NetworkPolicy)
        }
        Key::ClusterNetworkPolicy(name) => {
            let policy = snapshot.cluster_policies.get(name).cloned();
            policy.map(Object::ClusterNetworkPolicy)
        }
        Key::Namespace(name) => {
            let namespace = snapshot.namespaces.get(name).cloned();
            namespace.map(Object::Namespace)
        }
        _ => None,
    }
}

/// The addresses that policies allow to talk with this node's pods.
fn peers(snapshot: &Snapshot) -> BTreeSet<IpAddr> {
    let tables = policy::apply(&policy::plan(snapshot, OURS));
    let sets = tables.iter().flat_map(|table| table.sets.values());
    let keys = sets.flat_map(|set| set.elements.keys());
    let addresses = keys.filter_map(|key| match key.first() {
        Some(Value::Address(address)) => Some(*address),
        _ => None,
    });
    addresses.collect()
}
