//! Who is meant by a peer: [`Members`], the pods of the cluster by namespace.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

use parfait_cluster::{LabelSelector, Peer, Pod, Service, Snapshot, TargetPort};
use parfait_packet::Protocol;

/// What a peer can mean: a pod with a network of its own, or a Service that nodes' agents answer for.
pub(super) struct Member<'a> {
    pub(super) labels: &'a BTreeMap<String, String>,
    pub(super) addresses: &'a [IpAddr],
    ports: Ports<'a>,
}

enum Ports<'a> {
    Pod(&'a Pod),
    Service(&'a Service),
}

impl Member<'_> {
    /// The ports that it calls so.
    pub(super) fn named(&self, protocol: Protocol, name: &str) -> Vec<u16> {
        let mut numbers: Vec<u16> = match self.ports {
            Ports::Pod(pod) => named(pod, protocol, name).collect(),
            Ports::Service(service) => {
                let ports = service.ports.iter().filter(|port| {
                    let target = TargetPort::Name(name.to_owned());
                    port.name.as_deref() == Some(name) || port.target == target
                });
                let ports = ports.filter(|port| port.protocol == protocol);
                ports.map(|port| port.port).collect()
            }
        };
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }
}

/// The ports that a pod's containers call so.
pub(super) fn named<'a>(
    pod: &'a Pod,
    protocol: Protocol,
    name: &'a str,
) -> impl Iterator<Item = u16> + 'a {
    let ports = pod
        .ports
        .iter()
        .filter(move |port| port.protocol == protocol);
    let ports = ports.filter(move |port| port.name.as_deref() == Some(name));
    ports.map(|port| port.port)
}

/// Whose rule a peer stands in (if that matters) and the peer.
type Asked<'a> = (Option<&'a str>, &'a Peer);

/// All that peers can mean, by namespace; what was asked once is remembered.
pub(super) struct Members<'a> {
    snapshot: &'a Snapshot,
    by_namespace: BTreeMap<&'a str, Vec<Rc<Member<'a>>>>,
    asked: RefCell<BTreeMap<Asked<'a>, Rc<[Rc<Member<'a>>]>>>,
}

impl<'a> Members<'a> {
    pub(super) fn of(snapshot: &'a Snapshot) -> Self {
        let mut by_namespace: BTreeMap<&str, Vec<Rc<Member<'_>>>> = BTreeMap::new();
        let pods = snapshot.pods.values();
        for pod in pods.filter(|pod| !pod.host_network && pod.has_network()) {
            let member = Member {
                labels: &pod.labels,
                addresses: &pod.addresses,
                ports: Ports::Pod(pod),
            };
            let there = by_namespace.entry(&pod.name.namespace).or_default();
            there.push(Rc::new(member));
        }
        let services = snapshot.services.values();
        for service in services.filter(|service| service.served_by_node) {
            let member = Member {
                labels: stands_for(service),
                addresses: &service.cluster_ips,
                ports: Ports::Service(service),
            };
            let there = by_namespace.entry(&service.name.namespace).or_default();
            there.push(Rc::new(member));
        }
        Self {
            snapshot,
            by_namespace,
            asked: RefCell::default(),
        }
    }

    /// Everybody.
    pub(super) fn all(&self) -> impl Iterator<Item = &Rc<Member<'a>>> {
        self.by_namespace.values().flatten()
    }

    /// Those whom a peer means in a rule of a policy of this namespace. An `ipBlock` means none of them.
    pub(super) fn meant(&self, namespace: &'a str, peer: &'a Peer) -> Rc<[Rc<Member<'a>>]> {
        let Peer::Pods { namespaces, pods } = peer else {
            return Rc::default();
        };
        let whose = namespaces.is_none().then_some(namespace);
        let found = self.asked.borrow().get(&(whose, peer)).cloned();
        if let Some(found) = found {
            return found;
        }
        let there: Box<dyn Iterator<Item = &str>> = match namespaces {
            None => Box::new(std::iter::once(namespace)),
            Some(selector) => Box::new(self.namespaces(selector)),
        };
        let there = there.filter_map(|namespace| self.by_namespace.get(namespace));
        let meant = there.flatten().filter(|member| pods.matches(member.labels));
        let meant: Rc<[_]> = meant.cloned().collect();
        let mut asked = self.asked.borrow_mut();
        asked.insert((whose, peer), Rc::clone(&meant));
        meant
    }

    fn namespaces<'s>(
        &'s self,
        selector: &'s LabelSelector,
    ) -> impl Iterator<Item = &'a str> + use<'a, 's> {
        let all = self.snapshot.namespaces.values();
        let meant = all.filter(|namespace| selector.matches(&namespace.labels));
        meant.map(|namespace| namespace.name.as_str())
    }
}

/// The labels of the pods that would answer for a Service, if nodes' agents did not.
pub(super) fn stands_for(service: &Service) -> &BTreeMap<String, String> {
    match service.selector.is_empty() {
        true => &service.labels,
        false => &service.selector,
    }
}
