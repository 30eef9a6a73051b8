//! From what was typed to objects of the snapshot: who sends, and to which addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;

use parfait_cluster::{
    Node, ObjectName, Phase, Pod, PodIsolation, Service, ServiceType, Snapshot, nearest,
};
use parfait_packet::{Family, Hop, Protocol, Reason};

use crate::Question;
use crate::outside;
use crate::side::Side;

/// A question that names something which is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No object of that name.
    #[error("no {kind} {name:?}{}{}", within(namespace.as_deref()), suggestion(nearest.as_deref()))]
    NoSuch {
        /// Its kind.
        kind: &'static str,
        /// Where it was looked for, unless its name says that.
        namespace: Option<String>,
        /// The name as typed.
        name: String,
        /// The most similar name that exists.
        nearest: Option<String>,
    },
    /// Nobody sends from there.
    #[error(
        "{0} cannot be the sender: name a pod, a node, the address of one, or one outside the cluster"
    )]
    NotASender(String),
    /// Nobody outside can mean it.
    #[error(
        "Service {service} has no address for clients outside the cluster: no load balancer's{}, no spec.externalIPs, no \
         spec.ports[].nodePort; ask from a pod or a node",
        in_brackets(pending.as_deref())
    )]
    NotFromOutside {
        /// The Service.
        service: ObjectName,
        /// Why it has no load balancer's, if it should have one.
        pending: Option<String>,
    },
    /// Nothing says which port is meant.
    #[error("which port of {0}? give --port NUMBER, or NAME:PORT")]
    NoPort(String),
    /// The Service has no port of the protocol.
    #[error("Service {service} has no {protocol} port; it has {has}")]
    NoSuchProtocol {
        /// The Service.
        service: ObjectName,
        /// As asked.
        protocol: Protocol,
        /// The ports it has.
        has: String,
    },
    /// The port's name is none of the Service's.
    #[error("Service {service} has no port named {port:?}; it has {has}")]
    NoSuchPort {
        /// The Service.
        service: ObjectName,
        /// The name as typed.
        port: String,
        /// The ports it has.
        has: String,
    },
}

fn within(namespace: Option<&str>) -> String {
    namespace
        .map(|namespace| format!(" in namespace {namespace}"))
        .unwrap_or_default()
}

fn in_brackets(why: Option<&str>) -> String {
    why.map(|why| format!(" ({why})")).unwrap_or_default()
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest
        .map(|name| format!("; did you mean {name:?}?"))
        .unwrap_or_default()
}

/// Who sends.
#[derive(Clone, Copy)]
pub(crate) enum Sender<'a> {
    Pod(&'a Pod),
    Node(&'a Node),
    /// Somebody outside the cluster, with this address.
    Outside(&'a IpAddr),
}

/// Why a pod has no network: it is still to come, and until then the pod is isolated, or the pod has
/// no place or has ended.
pub(crate) fn without_network(snapshot: &Snapshot, pod: &Pod) -> Reason {
    let ended = matches!(pod.phase, Phase::Succeeded | Phase::Failed);
    let isolated = snapshot.config.pod_isolation == PodIsolation::UntilKnown;
    match pod.node {
        Some(_) if !ended && !pod.host_network && isolated => Reason::PodNotKnown,
        _ => Reason::PodNotRunning,
    }
}

/// Who is meant to receive.
pub(crate) struct Target {
    /// In words.
    pub(crate) what: String,
    /// The addresses a client would try, each as likely as the others.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
    /// How the name was looked up.
    pub(crate) name: Vec<Hop>,
    /// Why there are no addresses, if there are none.
    pub(crate) failure: Option<Reason>,
    pub(crate) notes: Vec<String>,
}

impl<'a> Sender<'a> {
    pub(crate) fn find(
        snapshot: &'a Snapshot,
        side: &'a Side,
        namespace: Option<&str>,
    ) -> Result<Self, Error> {
        let namespace = namespace.unwrap_or(ObjectName::DEFAULT_NAMESPACE);
        match side {
            Side::Pod(name, _) => pod(snapshot, name, namespace).map(Self::Pod),
            Side::Node(name, _) => node(snapshot, name).map(Self::Node),
            Side::Address(address, _) => {
                if let Some(pod) = snapshot.pod_at(*address) {
                    return Ok(Self::Pod(pod));
                }
                let node = snapshot.node_at(*address).map(Self::Node);
                let outside = is_outside(snapshot, *address).then_some(Self::Outside(address));
                node.or(outside)
                    .ok_or_else(|| Error::NotASender(address.to_string()))
            }
            Side::Name(name, None) if !name.contains('.') => {
                // A bare name on the sender's side is a pod's: Services do not send.
                pod(snapshot, name, namespace).map(Self::Pod)
            }
            other => Err(Error::NotASender(other.to_string())),
        }
    }

    pub(crate) fn addresses(&self) -> &'a [IpAddr] {
        match self {
            Self::Pod(pod) => &pod.addresses,
            Self::Node(node) => &node.addresses,
            Self::Outside(address) => std::slice::from_ref(address),
        }
    }

    pub(crate) fn address(&self, family: Family) -> Option<IpAddr> {
        self.addresses()
            .iter()
            .copied()
            .find(|address| Family::of(*address) == family)
    }

    /// The node whose network it uses or hangs on.
    pub(crate) fn node(&self) -> Option<&'a str> {
        match self {
            Self::Pod(pod) => pod.node.as_deref(),
            Self::Node(node) => Some(&node.name),
            Self::Outside(_) => None,
        }
    }

    /// The namespace that its names are looked up in.
    pub(crate) fn namespace(&self) -> &'a str {
        match self {
            Self::Pod(pod) => &pod.name.namespace,
            Self::Node(_) | Self::Outside(_) => ObjectName::DEFAULT_NAMESPACE,
        }
    }

    pub(crate) fn describe(&self) -> String {
        let addresses: Vec<_> = self.addresses().iter().map(ToString::to_string).collect();
        let addresses = addresses.join(", ");
        match self {
            Self::Pod(pod) => match &pod.node {
                Some(node) => format!("pod {} ({addresses} on {node})", pod.name),
                None => format!("pod {} (not scheduled)", pod.name),
            },
            Self::Node(node) => format!("node {} ({addresses})", node.name),
            Self::Outside(address) => format!("{address} (outside the cluster)"),
        }
    }
}

impl Target {
    pub(crate) fn find(
        snapshot: &Snapshot,
        sender: Sender<'_>,
        question: &Question,
    ) -> Result<Self, Error> {
        let finder = Finder { snapshot, question };
        let namespace = question.namespace.as_deref().unwrap_or(sender.namespace());
        match &question.to {
            Side::Pod(name, port) => {
                let pod = pod(snapshot, name, namespace)?;
                finder.pod(pod, *port)
            }
            Side::Node(name, port) => {
                let node = node(snapshot, name)?;
                let what = format!("node {}", node.name);
                finder.plain(what, node.addresses.clone(), *port)
            }
            Side::Service(name, port) => {
                let service = service(snapshot, name, namespace)?;
                let mut target = finder.service(service, port.as_deref())?;
                if matches!(sender, Sender::Outside(_)) {
                    finder.for_outside(service, &mut target)?;
                }
                Ok(target)
            }
            Side::Address(address, port) => finder.address(*address, *port),
            Side::Name(name, port) => finder.name(sender, name, *port),
        }
    }

    fn new(what: String, addresses: Vec<IpAddr>, protocol: Protocol, port: u16) -> Self {
        Self {
            what,
            addresses,
            protocol,
            port,
            name: Vec::new(),
            failure: None,
            notes: Vec::new(),
        }
    }
}

struct Finder<'a> {
    snapshot: &'a Snapshot,
    question: &'a Question,
}

impl Finder<'_> {
    fn plain(
        &self,
        what: String,
        addresses: Vec<IpAddr>,
        port: Option<u16>,
    ) -> Result<Target, Error> {
        let protocol = self.question.protocol.unwrap_or(Protocol::Tcp);
        let port = match self.question.port.or(port) {
            Some(port) => port,
            None if !protocol.has_ports() => 0,
            None => return Err(Error::NoPort(what)),
        };
        Ok(Target::new(what, addresses, protocol, port))
    }

    fn pod(&self, pod: &Pod, port: Option<u16>) -> Result<Target, Error> {
        let wanted = self.question.protocol;
        let declared = pod
            .ports
            .iter()
            .find(|port| wanted.is_none_or(|p| p == port.protocol));
        let what = match &pod.node {
            Some(node) => format!("pod {} on {node}", pod.name),
            None => format!("pod {}", pod.name),
        };
        let given = self.question.port.or(port).is_some();
        let mut target = match declared.filter(|_| !given) {
            Some(port) => Target::new(what, pod.addresses.clone(), port.protocol, port.port),
            None => self.plain(what, pod.addresses.clone(), port)?,
        };
        if !pod.has_network() {
            target.addresses.clear();
            target.failure = Some(without_network(self.snapshot, pod));
        }
        Ok(target)
    }

    fn address(&self, address: IpAddr, port: Option<u16>) -> Result<Target, Error> {
        let number = self.question.port.or(port);
        let has = |service: &&Service| service.ports.iter().any(|p| Some(p.port) == number);
        let services = outside::services_at(self.snapshot, address);
        let with_port = services.iter().copied().find(has);
        if let Some(service) = with_port.or(services.first().copied()) {
            let mut target = self.service(service, port.map(|p| p.to_string()).as_deref())?;
            target.addresses = vec![address];
            return Ok(target);
        }
        let what = match self.snapshot.pod_at(address) {
            Some(pod) => {
                let mut target = match port {
                    Some(port) => self.plain(format!("pod {}", pod.name), vec![], Some(port))?,
                    None => self.pod(pod, None)?,
                };
                target.addresses = vec![address];
                return Ok(target);
            }
            None => match self.snapshot.node_at(address) {
                Some(node) => format!("node {}", node.name),
                None => format!("address {address}"),
            },
        };
        self.plain(what, vec![address], port)
    }

    fn service(&self, service: &Service, port: Option<&str>) -> Result<Target, Error> {
        let what = format!("Service {}", service.name);
        let given = self.question.port.map(|port| port.to_string());
        let (protocol, number) = match given.as_deref().or(port) {
            Some(text) => self.service_port(service, text)?,
            None => match service.ports.iter().find(|port| self.wants(port.protocol)) {
                Some(port) => (port.protocol, port.port),
                None if self.question.protocol == Some(Protocol::Icmp) => (Protocol::Icmp, 0),
                None => match (&service.kind, self.question.protocol) {
                    // Nobody in the cluster is asked for it.
                    (ServiceType::ExternalName(_), wanted) => (wanted.unwrap_or(Protocol::Tcp), 0),
                    (_, Some(protocol)) => {
                        return Err(Error::NoSuchProtocol {
                            service: service.name.clone(),
                            protocol,
                            has: describe_ports(service),
                        });
                    }
                    (_, None) => return Err(Error::NoPort(what)),
                },
            },
        };
        let mut target = Target::new(what, service.cluster_ips.clone(), protocol, number);
        if let ServiceType::ExternalName(name) = &service.kind {
            target.failure = Some(Reason::ExternalDestination);
            target
                .notes
                .push(format!("Service {} is an alias for {name}", service.name));
        } else if service.headless {
            self.headless(service, &mut target);
        }
        if let Some(label) = service.left_by {
            target.notes.push(format!(
                "Service {} has the label {label}, so Parfait leads nobody to its endpoints; as with kube-proxy, its \
                 addresses are another program's to serve",
                service.name
            ));
        }
        Ok(target)
    }

    /// Clients outside do not use the Service's own addresses.
    fn for_outside(&self, service: &Service, target: &mut Target) -> Result<(), Error> {
        let wanted = (target.port, target.protocol);
        let mut ports = service.ports.iter();
        let port = ports.find(|port| (port.port, port.protocol) == wanted);
        let node_port = port.and_then(|port| port.node_port);
        let (addresses, port) = outside::ways_in(self.snapshot, service, (target.port, node_port));
        let pending = parfait_transport::pools::pending(self.snapshot, service);
        if addresses.is_empty() {
            return Err(Error::NotFromOutside {
                service: service.name.clone(),
                pending,
            });
        }
        target.notes.extend(pending.map(|why| {
            format!(
                "Service {} has no load balancer's address: {why}; this is the way to another address of it",
                service.name
            )
        }));
        (target.addresses, target.port) = (addresses, port);
        Ok(())
    }

    fn wants(&self, protocol: Protocol) -> bool {
        self.question
            .protocol
            .is_none_or(|wanted| wanted == protocol)
    }

    fn service_port(&self, service: &Service, text: &str) -> Result<(Protocol, u16), Error> {
        let default = self.question.protocol.unwrap_or(Protocol::Tcp);
        if let Ok(number) = text.parse::<u16>() {
            let found = service
                .ports
                .iter()
                .find(|port| port.port == number && self.wants(port.protocol));
            return Ok((found.map_or(default, |port| port.protocol), number));
        }
        let named = service
            .ports
            .iter()
            .find(|port| port.name.as_deref() == Some(text));
        named
            .map(|port| (port.protocol, port.port))
            .ok_or_else(|| Error::NoSuchPort {
                service: service.name.clone(),
                port: text.to_owned(),
                has: describe_ports(service),
            })
    }

    /// A headless Service has no address of its own: its name leads to its endpoints.
    fn headless(&self, service: &Service, target: &mut Target) {
        let mut ports = BTreeMap::new();
        for slice in self.snapshot.slices_of(&service.name) {
            let number = slice.ports.iter().find(|port| {
                let of = service.ports.iter().find(|p| p.port == target.port);
                of.is_some_and(|of| of.name == port.name && of.protocol == port.protocol)
            });
            for endpoint in slice.endpoints.iter().filter(|e| e.ready) {
                ports.insert(
                    endpoint.address,
                    number.map_or(target.port, |port| port.port),
                );
            }
        }
        target.notes.push(format!(
            "Service {} is headless: clients connect to its endpoints themselves",
            service.name
        ));
        target.port = ports.values().next().copied().unwrap_or(target.port);
        target.addresses = ports.into_keys().collect();
        if target.addresses.is_empty() {
            target.failure = Some(Reason::NameWithoutAddress);
        }
    }

    fn name(&self, sender: Sender<'_>, name: &str, port: Option<u16>) -> Result<Target, Error> {
        let looked_up = crate::names::look_up(self.snapshot, sender.namespace(), name);
        let port_text = port.map(|port| port.to_string());
        let mut target = match looked_up
            .service
            .and_then(|name| self.snapshot.services.get(&name))
        {
            Some(service) => self.service(service, port_text.as_deref())?,
            None if looked_up.failure.is_some() => {
                let port = self.question.port.or(port).unwrap_or(0);
                let protocol = self.question.protocol.unwrap_or(Protocol::Tcp);
                Target::new(format!("name {name}"), Vec::new(), protocol, port)
            }
            None => self.plain(format!("name {name}"), Vec::new(), port)?,
        };
        target.addresses = looked_up.addresses;
        target.name = looked_up.hops;
        target.failure = looked_up.failure;
        Ok(target)
    }
}

/// Whether an address is nobody's in the cluster, and could be somebody's outside.
fn is_outside(snapshot: &Snapshot, address: IpAddr) -> bool {
    let pods = snapshot.pod_networks();
    let services = snapshot.config.service_cidrs.iter();
    let mut ours = pods.keys().chain(services);
    let special = address.is_loopback() || address.is_unspecified() || address.is_multicast();
    !special
        && !ours.any(|network| network.contains(&address))
        && outside::services_at(snapshot, address).is_empty()
}

/// The ports of a Service, in words.
pub(crate) fn describe_ports(service: &Service) -> String {
    let ports = service.ports.iter().map(|port| match &port.name {
        Some(name) => format!("{name} ({}/{})", port.port, port.protocol),
        None => format!("{}/{}", port.port, port.protocol),
    });
    let ports: Vec<_> = ports.collect();
    if ports.is_empty() {
        "none".to_owned()
    } else {
        ports.join(", ")
    }
}

/// Finds `NAME` in the namespace asked for, or `NAME.NAMESPACE`.
fn find<'a, T>(
    objects: &'a BTreeMap<ObjectName, T>,
    kind: &'static str,
    text: &str,
    namespace: &str,
) -> Result<&'a T, Error> {
    if let Some(found) = objects.get(&ObjectName::new(namespace, text)) {
        return Ok(found);
    }
    if let Some((name, namespace)) = text.rsplit_once('.')
        && let Some(found) = objects.get(&ObjectName::new(namespace, name))
    {
        return Ok(found);
    }
    let names = objects
        .keys()
        .map(|name| match name.namespace == namespace {
            true => name.name.clone(),
            false => format!("{}.{}", name.name, name.namespace),
        });
    Err(Error::NoSuch {
        kind,
        namespace: (!text.contains('.')).then(|| namespace.to_owned()),
        name: text.to_owned(),
        nearest: named(text, names),
    })
}

fn pod<'a>(snapshot: &'a Snapshot, text: &str, namespace: &str) -> Result<&'a Pod, Error> {
    find(&snapshot.pods, "pod", text, namespace)
}

fn service<'a>(snapshot: &'a Snapshot, text: &str, namespace: &str) -> Result<&'a Service, Error> {
    find(&snapshot.services, "Service", text, namespace)
}

fn node<'a>(snapshot: &'a Snapshot, text: &str) -> Result<&'a Node, Error> {
    let by_number = format!("node-{text}");
    let found = snapshot
        .nodes
        .get(text)
        .or_else(|| snapshot.nodes.get(&by_number));
    found.ok_or_else(|| Error::NoSuch {
        kind: "node",
        namespace: None,
        name: text.to_owned(),
        nearest: named(text, snapshot.nodes.keys().cloned()),
    })
}

fn named(text: &str, names: impl Iterator<Item = String>) -> Option<String> {
    let names: Vec<String> = names.collect();
    nearest(text, names.iter().map(String::as_str)).map(str::to_owned)
}
