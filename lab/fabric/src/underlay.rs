//! The switch and the machines on it.
//!
//! ```text
//!   # in the lab's own network namespace
//!   ip link add underlay type bridge;  ip addr add 192.168.77.1/24 dev underlay
//!   # for each node
//!   ip link add n1 type veth peer name eth0 netns node-1;  ip link set n1 master underlay up
//!   ip -n node-1 addr add 192.168.77.11/24 dev eth0;  ip -n node-1 route add default via 192.168.77.1
//! ```
//!
//! The default route makes addresses outside of the underlay (a Service's) routable in a node, as
//! they are on any real machine; the switch forwards nothing, so that there is no way out.
//!
//! The settings are written down here rather than left to the host, because a new network namespace
//! copies the host's IPv4 settings (`net.core.devconf_inherit_init_net`), forwarding among them.
//! Duplicate address detection is off: it would keep every IPv6 address waiting for a second, and
//! nobody else gives out addresses here.

use std::net::IpAddr;
use std::path::Path;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use parfait_kernel::{Kernel, NetNs, Socket, sysctl};
use parfait_linux::{
    Address, IfName, Item, Link, LinkKind, Mtu, Object, Route, Step, Sysctl, SysctlKey,
};

use crate::state::LabDir;
use crate::supervise::Machine;
use crate::{Error, LabSpec, probe};

/// What every machine starts with: IPv4 settings as the kernel has them by itself, no waiting for
/// IPv6 addresses, no routers listened to.
const SETTINGS4: [(&str, &str); 3] = [
    ("net.ipv4.ip_forward", "0"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
];
const SETTINGS6: [(&str, &str); 5] = [
    ("net.ipv6.conf.all.disable_ipv6", "0"),
    ("net.ipv6.conf.default.disable_ipv6", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv6.conf.default.dad_transmits", "0"),
    ("net.ipv6.conf.default.accept_ra", "0"),
];

/// Builds the underlay and the nodes, and holds each node's namespace by a file.
pub(crate) fn build(dir: &LabDir, spec: &LabSpec) -> Result<Vec<Machine>, Error> {
    let names = Names::new()?;
    let mtu = Mtu::new(spec.mtu).map_err(|e| network("set the underlay's MTU", e))?;
    let mut switch = Socket::open().map_err(|e| network("reach the kernel's network", e))?;
    settings(spec)?;
    probe::features(&mut switch, spec)?;
    let bridge = Link {
        mtu,
        ..Link::new(names.underlay.clone(), LinkKind::Bridge)
    };
    let mut steps = vec![up(IfName::loopback()), create(bridge)];
    steps.extend(
        spec.gateways()
            .into_iter()
            .map(|net| create(Address::new(names.underlay.clone(), net))),
    );
    execute(&mut switch, "make the underlay", &steps)?;

    let mut machines = Vec::new();
    for (index, name) in (1..=spec.nodes).zip(spec.node_names()) {
        let addresses = spec.node_addresses(index);
        let netns = NetNs::create_at(&dir.node_netns(&name))
            .map_err(|e| network(&format!("make {name}"), e))?;
        netns
            .run(|| settings(spec))
            .map_err(|e| network(&format!("enter {name}"), e))??;
        let plug = IfName::new(&format!("n{index}")).map_err(|e| network("name a link", e))?;
        let near = Link {
            mtu,
            master: Some(names.underlay.clone()),
            ..Link::new(plug, veth())
        };
        let far = Link {
            mtu,
            ..Link::new(names.eth0.clone(), veth())
        };
        cable(&mut switch, &near, &far, &netns)
            .map_err(|e| network(&format!("connect {name}"), e))?;
        let mut node = Socket::open_in(&netns).map_err(|e| network(&format!("enter {name}"), e))?;
        let mut steps = vec![up(IfName::loopback())];
        steps.extend(
            addresses
                .with_prefix()
                .into_iter()
                .map(|net| create(Address::new(names.eth0.clone(), net))),
        );
        steps.extend(
            spec.gateways()
                .iter()
                .map(|net| create(default_route(net.addr(), &names.eth0))),
        );
        execute(&mut node, &format!("set up {name}"), &steps)?;
        files(dir, spec, &name)?;
        machines.push(Machine {
            addresses,
            netns,
            dir: dir.node(&name),
            name,
        });
    }
    Ok(machines)
}

struct Names {
    underlay: IfName,
    eth0: IfName,
}

impl Names {
    fn new() -> Result<Self, Error> {
        let name = |text| IfName::new(text).map_err(|e| network("name a link", e));
        Ok(Self {
            underlay: name("underlay")?,
            eth0: name("eth0")?,
        })
    }
}

const fn veth() -> LinkKind {
    LinkKind::Veth { peer: None }
}

/// Makes the pair with one end in the node at once: moving it there later takes a hundred times as
/// long.
fn cable(
    switch: &mut Socket,
    near: &Link,
    far: &Link,
    netns: &NetNs,
) -> Result<(), parfait_kernel::Error> {
    switch.create_veth(near, far, Some(netns))?;
    // Whether the master was taken up on creation is the kernel edge's affair: a change settles it.
    let change = Step::Change(Item::new(Object::from(near.clone()), None));
    switch
        .execute(&[change])
        .map_err(|mut errors| errors.remove(0))
}

fn up(name: IfName) -> Step {
    Step::Change(Item::new(
        Object::from(Link {
            mtu: Mtu::new(65_536).unwrap_or(Mtu::ETHERNET),
            ..Link::new(name, LinkKind::Loopback)
        }),
        None,
    ))
}

fn create(object: impl Into<Object>) -> Step {
    Step::Create(Item::new(object.into(), None))
}

fn default_route(gateway: IpAddr, link: &IfName) -> Route {
    let everything = match gateway {
        IpAddr::V4(_) => IpNet::V4(Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(Ipv6Net::default()),
    };
    // Not one of Parfait's: a machine has it before any agent comes, and keeps it afterwards.
    Route {
        protocol: parfait_linux::RouteProtocol(BOOT),
        ..Route::via(everything, gateway, link.clone())
    }
}

/// `RTPROT_BOOT` of linux/rtnetlink.h: what was there when the machine came up.
const BOOT: u8 = 3;

fn settings(spec: &LabSpec) -> Result<(), Error> {
    let v6 = if spec.ip_family.v6() {
        &SETTINGS6[..]
    } else {
        &[]
    };
    if spec.ip_family.v6() && !Path::new("/proc/sys/net/ipv6").exists() {
        return Err(probe::missing(
            "use IPv6",
            libc::EAFNOSUPPORT,
            "this kernel has no IPv6, or was started with ipv6.disable=1",
            "`parfait lab up --ip-family ipv4`, or a kernel with CONFIG_IPV6=y",
        ));
    }
    for (key, value) in SETTINGS4.iter().chain(v6) {
        let key = SysctlKey::new(key).map_err(|e| network("set up a machine", e))?;
        sysctl::write(&Sysctl::new(key, value)).map_err(|e| network("set up a machine", e))?;
    }
    Ok(())
}

/// What programs run by `lab exec` find in `/etc`: the cluster's DNS and the other nodes' names.
fn files(dir: &LabDir, spec: &LabSpec, node: &str) -> Result<(), Error> {
    let mut hosts = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
    for (index, name) in (1..=spec.nodes).zip(spec.node_names()) {
        for address in spec.node_addresses(index).all() {
            hosts += &format!("{address} {name}\n");
        }
    }
    let mut resolv = String::new();
    if spec.ip_family.v4() {
        resolv += "nameserver 10.96.0.10\n";
    }
    if spec.ip_family.v6() {
        resolv += "nameserver fd00:10:96::a\n";
    }
    // No search list: a pod's resolv.conf would take it over, as in any cluster.
    for (file, content) in [("hosts", &hosts), ("resolv.conf", &resolv)] {
        dir.write(&dir.node(node).join(file), content.as_bytes())?;
    }
    Ok(())
}

fn execute(socket: &mut Socket, what: &str, steps: &[Step]) -> Result<(), Error> {
    socket.execute(steps).map_err(|errors| {
        let all: Vec<_> = errors.iter().map(ToString::to_string).collect();
        network(what, all.join("; "))
    })
}

pub(crate) fn network(what: &str, why: impl ToString) -> Error {
    Error::Network {
        what: what.to_owned(),
        why: why.to_string(),
    }
}
