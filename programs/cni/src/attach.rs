//! [`Attachment`]: the virtual cable between a pod and its node, and the addresses, neighbours and
//! routes on both ends.
//!
//! ```text
//!            pod's namespace                     node's namespace
//!   eth0 10.244.1.2/32, fd00:…::2/128 ◀══ veth ══▶ pf3f29… (no address)
//!   default via 169.254.1.1 onlink                 10.244.1.2 dev pf3f29… proto 113 scope link
//!   default via fe80::1                            fd00:…::2 dev pf3f29… proto 113
//!   169.254.1.1 lladdr HOST-MAC PERMANENT          10.244.1.2 lladdr POD-MAC PERMANENT
//!   fe80::1     lladdr HOST-MAC PERMANENT          fd00:…::2  lladdr POD-MAC PERMANENT
//! ```
//!
//! Nobody asks for an address on this cable, so nothing floods and nobody can answer in another's
//! name. The node's end checks the sources of IPv4 packets strictly (`rp_filter` 1, RFC 3704): a pod
//! can send from its own address only. For IPv6 the kernel has no such setting; that is for the
//! ruleset.
//!
//! The order makes packets flow last: the node's end comes up when its settings are right, and the
//! routes come after the neighbours.

use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use parfait_kernel::{Kernel, NetNs, Socket, sysctl};
use parfait_linux::attachment::{host_mac, pod_gateway, pod_mac};
use parfait_linux::{
    Address, Alias, IfName, Link, LinkKind, Mac, Mtu, Neighbour, Object, Ownership, Route,
    RouteProtocol, State, Sysctl, SysctlKey, diff,
};
use parfait_packet::Family;
use rustix::io::Errno;

use crate::bandwidth;
use crate::error::{Code, Error};
use crate::record::Bandwidth;
use crate::result::Answer;

/// One pod's attachment: all there is to know to make, check and remove it.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// The node's end.
    pub host: IfName,
    /// The pod's end.
    pub pod: IfName,
    /// The pod's addresses; at least one.
    pub addresses: Vec<IpAddr>,
    /// The Ethernet address of the pod's end, if one was asked for.
    pub mac: Option<Mac>,
    /// The node's own addresses.
    pub node: Vec<IpAddr>,
    /// The size of packets on it.
    pub mtu: Mtu,
    /// What the node's end is for.
    pub alias: Alias,
    /// The pod's limits.
    pub bandwidth: Option<Bandwidth>,
}

impl Attachment {
    /// The source of what the node sends to the pod: the interface has no address of its own.
    fn node_address(&self, family: Family) -> Option<IpAddr> {
        self.node
            .iter()
            .copied()
            .find(|address| Family::of(*address) == family)
    }

    /// The node's end.
    #[must_use]
    pub fn host_link(&self) -> Link {
        Link {
            mac: self.addresses.first().copied().map(host_mac),
            mtu: self.mtu,
            alias: Some(self.alias.clone()),
            ..Link::new(self.host.clone(), LinkKind::Veth { peer: None })
        }
    }

    /// The pod's end.
    #[must_use]
    pub fn pod_link(&self) -> Link {
        Link {
            mac: self
                .mac
                .or_else(|| self.addresses.first().copied().map(pod_mac)),
            mtu: self.mtu,
            ..Link::new(self.pod.clone(), LinkKind::Veth { peer: None })
        }
    }

    /// What lies on the node's end.
    #[must_use]
    pub fn on_host(&self) -> State {
        let mut state = State::default();
        for address in &self.addresses {
            if let Some(mac) = self.pod_link().mac {
                state.insert(Neighbour::permanent(self.host.clone(), *address, mac), None);
            }
            let route = Route {
                protocol: RouteProtocol::PARFAIT_CNI,
                source: self.node_address(Family::of(*address)),
                ..Route::direct(IpNet::from(*address), self.host.clone())
            };
            state.insert(route, None);
        }
        state
    }

    /// What lies on the pod's end.
    #[must_use]
    pub fn on_pod(&self) -> State {
        let mut state = State::default();
        for address in &self.addresses {
            let gateway = pod_gateway(Family::of(*address));
            state.insert(Address::new(self.pod.clone(), IpNet::from(*address)), None);
            if let Some(mac) = self.host_link().mac {
                state.insert(Neighbour::permanent(self.pod.clone(), gateway, mac), None);
            }
            let route = Route {
                protocol: RouteProtocol::PARFAIT_CNI,
                // A link-local next hop is on its link without being told so.
                onlink: gateway.is_ipv4(),
                ..Route::via(everywhere(gateway), gateway, self.pod.clone())
            };
            state.insert(route, None);
        }
        state
    }

    /// Makes it. What stands already, as it should and in this namespace, is left alone: a runtime that
    /// died may ask again for what it has.
    ///
    /// # Errors
    /// If anything cannot be made. Then all of it is removed again.
    pub fn add(&self, node: &mut Socket, netns: &NetNs) -> Result<(), Error> {
        if !self.create_pair(node, netns)? {
            return Ok(());
        }
        let made = self.set_up(node, netns);
        if made.is_err() {
            // The first error is what counts; a link that stays is found by DEL.
            let _ = node.delete_link(&self.host);
        }
        made
    }

    /// `false` if everything stands already.
    fn create_pair(&self, node: &mut Socket, netns: &NetNs) -> Result<bool, Error> {
        // The alias comes with the settings, in `set_up`.
        let host = Link {
            up: false,
            alias: None,
            ..self.host_link()
        };
        let pod = Link {
            up: false,
            ..self.pod_link()
        };
        let create = |node: &mut Socket| match node.create_veth(&host, &pod, Some(netns)) {
            Err(error) if error.errno() == Some(Errno::EXIST) => Ok(false),
            made => made.map(|()| true),
        };
        if create(node)? {
            return Ok(true);
        }
        let same = |found: Link| found.mac == host.mac;
        if node.link(&self.host)?.is_some_and(same)
            && self
                .differences(node, netns, None)
                .is_ok_and(|all| all.is_empty())
        {
            return Ok(false);
        }
        // Left over from this pod's earlier container, whose DEL got lost or comes later, or half made.
        // If it was not that, the pod has such an interface already.
        if node.delete_link(&self.host)? && create(node)? {
            return Ok(true);
        }
        Err(name_taken(&self.pod))
    }

    fn set_up(&self, node: &mut Socket, netns: &NetNs) -> Result<(), Error> {
        netns.visit(|| self.set_up_pod())??;
        node.bring_up(&self.host, &self.alias, &self.host_settings())?;
        if let Some(bucket) = bandwidth::ingress(self.bandwidth) {
            node.set_tbf(&self.host, &bucket)?;
        }
        execute(node, &self.on_host())
    }

    /// Runs inside the pod's namespace.
    fn set_up_pod(&self) -> Result<(), Error> {
        let mut socket = Socket::open()?;
        for setting in self.pod_settings() {
            sysctl::write(&setting)?;
        }
        socket.set_up(&IfName::loopback())?;
        socket.set_up(&self.pod)?;
        if let Some(bucket) = bandwidth::egress(self.bandwidth) {
            socket.set_tbf(&self.pod, &bucket)?;
        }
        execute(&mut socket, &self.on_pod())
    }

    fn has(&self, family: Family) -> bool {
        self.addresses.iter().any(|ip| Family::of(*ip) == family)
    }

    fn host_settings(&self) -> Vec<Sysctl> {
        let set = |family, setting: &str, value: &str| {
            Sysctl::new(SysctlKey::conf(family, &self.host, setting), value)
        };
        let mut settings = vec![
            set(Family::Ipv4, "rp_filter", "1"),
            // See the internet layer: a pod is never told of a shorter way.
            set(Family::Ipv4, "send_redirects", "0"),
        ];
        if self.has(Family::Ipv6) {
            settings.extend([
                set(Family::Ipv6, "disable_ipv6", "0"),
                // No link-local address: nobody talks to this end itself.
                set(Family::Ipv6, "addr_gen_mode", "1"),
                set(Family::Ipv6, "accept_ra", "0"),
            ]);
        }
        settings
    }

    /// Some runtimes turn IPv6 off in every new namespace.
    fn pod_settings(&self) -> Vec<Sysctl> {
        if !self.has(Family::Ipv6) {
            return Vec::new();
        }
        let set = |link: &IfName, setting: &str, value: &str| {
            Sysctl::new(SysctlKey::conf(Family::Ipv6, link, setting), value)
        };
        vec![
            set(&IfName::loopback(), "disable_ipv6", "0"),
            set(&self.pod, "disable_ipv6", "0"),
            set(&self.pod, "accept_dad", "0"),
        ]
    }

    /// Compares what is there with what was made, as far as `answer`, the last plugin's result, still has it: a plugin
    /// after this one may have taken routes away and told so, or made the pod's MTU smaller.
    ///
    /// # Errors
    /// Names everything that is missing or different.
    pub fn check(&self, node: &mut Socket, netns: &NetNs, answer: &Answer) -> Result<(), Error> {
        let wrong = self.differences(node, netns, Some(answer))?;
        if wrong.is_empty() {
            return Ok(());
        }
        let message = format!("missing or changed: {}", wrong.join("; "));
        Err(Error::new(Code::Drifted, message)
            .advise("Delete the pod, so that it is made and attached anew."))
    }

    fn differences(
        &self,
        node: &mut Socket,
        netns: &NetNs,
        answer: Option<&Answer>,
    ) -> Result<Vec<String>, Error> {
        let mut inside = Socket::open_in(netns)?;
        let (on_node, on_pod) = (node.observe(&[])?, inside.observe(&[])?);
        let mut wrong = Vec::new();
        let mut compare = |found: &State, wanted: Object, place: &str| {
            if !found.satisfies(&wanted) {
                wrong.push(format!("{place}: {wanted}"));
            }
        };
        let host = self.on_host();
        compare(&on_node, self.host_link().into(), "node");
        for item in host.objects() {
            compare(&on_node, item.value, "node");
        }
        let mut link = self.pod_link();
        if let (Some(_), Some(found)) = (answer, on_pod.links.get(&self.pod)) {
            link.mtu = link.mtu.min(found.value.mtu);
        }
        compare(&on_pod, link.into(), "pod");
        for item in self.on_pod().objects() {
            let elsewhere = |answer: &Answer| match &item.value {
                Object::Route(route) => {
                    !answer.routes.iter().any(|one| one.dst == route.destination)
                }
                _ => false,
            };
            if !answer.is_some_and(elsewhere) {
                compare(&on_pod, item.value, "pod");
            }
        }
        for (socket, name, wanted, place) in [
            (node, &self.host, bandwidth::ingress(self.bandwidth), "node"),
            (
                &mut inside,
                &self.pod,
                bandwidth::egress(self.bandwidth),
                "pod",
            ),
        ] {
            if let Some(wanted) = wanted
                && !socket
                    .tbf(name)?
                    .is_some_and(|found| found.satisfies(&wanted))
            {
                wrong.push(format!("{place}: {name} {wanted}"));
            }
        }
        Ok(wrong)
    }
}

/// Removes an attachment's cable by its node's end. The name is the pod's; the Ethernet address
/// tells whether it is this attachment's, or already the one of the pod's next container.
///
/// # Errors
/// If the kernel refuses.
pub fn remove(node: &mut Socket, host: &IfName, addresses: &[IpAddr]) -> Result<(), Error> {
    let ours = addresses.first().copied().map(host_mac);
    match ours {
        Some(mac) => node.delete_link_soon(host, mac)?,
        None => false,
    };
    Ok(())
}

/// The container's network namespace.
///
/// # Errors
/// If there is none at this path, or it is the node's own and that was not said to be right.
pub fn container_netns(path: &Path, may_be_own: bool) -> Result<NetNs, Error> {
    let netns = NetNs::open(path).map_err(|error| {
        Error::new(Code::UnknownContainer, error.to_string())
            .advise("The container ended meanwhile, or CNI_NETNS is wrong.")
    })?;
    if !may_be_own && NetNs::current()?.is(&netns) {
        let message = format!(
            "CNI_NETNS {} is the node's own network namespace",
            path.display()
        );
        return Err(Error::new(Code::InvalidNetNs, message).advise(
            "Pods with hostNetwork need no CNI plugin. If it is meant, set CNI_NETNS_OVERRIDE=1.",
        ));
    }
    Ok(netns)
}

/// There can be no two interfaces of one name.
#[must_use]
pub fn name_taken(name: &IfName) -> Error {
    let message = format!("the container already has an interface {name}");
    Error::new(Code::InvalidEnvironment, message)
        .advise("Use another CNI_IFNAME, or DEL the container first.")
}

fn everywhere(gateway: IpAddr) -> IpNet {
    match gateway {
        IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

fn execute(socket: &mut Socket, state: &State) -> Result<(), Error> {
    let steps = diff(&State::default(), state, &Ownership::agent([]));
    socket.execute(&steps).map_err(|errors| {
        let messages: Vec<_> = errors.iter().map(ToString::to_string).collect();
        Error::new(Code::Io, messages.join("; "))
    })
}
