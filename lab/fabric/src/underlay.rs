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
//! With `--underlay routed` or `bgp` there are two such bridges and the lab's namespace forwards between them;
//! in a `cloud` there is none: each node's cable ends at the router, which knows by a route who is behind it.
//!
//! The default route makes addresses outside of the underlay (a Service's) routable in a node, as
//! they are on any real machine; there is no way out of the lab.
//!
//! The settings are written down here rather than left to the host, because a new network namespace
//! copies the host's IPv4 settings (`net.core.devconf_inherit_init_net`), forwarding among them.
//! Duplicate address detection is off: it would keep every IPv6 address waiting for a second, and
//! nobody else gives out addresses here.

use std::collections::BTreeMap;
use std::path::Path;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use parfait_kernel::{Kernel, NetNs, Socket, sysctl};
use parfait_linux::{
    Address, IfName, Item, Link, LinkKind, Mtu, Object, Route, RouteProtocol, Step, Sysctl,
    SysctlKey,
};

use crate::spec::{Segment, port};
use crate::state::LabDir;
use crate::supervise::Machine;
use crate::{Error, LabSpec, Underlay, probe};

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
    let mtu = Mtu::new(spec.mtu).map_err(|e| network("set the underlay's MTU", e))?;
    let mut switch = Socket::open().map_err(|e| network("reach the kernel's network", e))?;
    settings(spec)?;
    if spec.underlay != Underlay::Flat {
        forward(spec)?;
    }
    probe::features(&mut switch, spec)?;
    execute(&mut switch, "make the underlay", &[up(IfName::loopback())])?;
    let mut machines = BTreeMap::new();
    for segment in spec.segments() {
        let link = named(&segment.link)?;
        let bridged = spec.underlay != Underlay::Cloud;
        if bridged {
            let bridge = Link {
                mtu,
                ..Link::new(link.clone(), LinkKind::Bridge)
            };
            execute(&mut switch, "make the underlay", &[create(bridge)])?;
        }
        for index in &segment.nodes {
            let near = Link {
                mtu,
                master: bridged.then(|| link.clone()),
                ..Link::new(named(&port(*index))?, veth())
            };
            machines.insert(
                *index,
                machine(dir, spec, *index, &mut switch, &near, &segment)?,
            );
        }
        let mut steps: Vec<_> = segment
            .gateways
            .iter()
            .map(|net| create(Address::new(link.clone(), *net)))
            .collect();
        if !bridged {
            // Who is behind a port, no prefix says.
            let nodes = segment
                .nodes
                .iter()
                .flat_map(|node| spec.node_prefixes(*node));
            steps.extend(nodes.map(|net| create(boot(Route::direct(net, link.clone())))));
        }
        execute(&mut switch, "make the underlay", &steps)?;
    }
    Ok(machines.into_values().collect())
}

/// A node, with its cable to the switch or router.
fn machine(
    dir: &LabDir,
    spec: &LabSpec,
    index: u8,
    switch: &mut Socket,
    near: &Link,
    segment: &Segment,
) -> Result<Machine, Error> {
    let name = format!("node-{index}");
    let eth0 = named("eth0")?;
    let netns = NetNs::create_at(&dir.node_netns(&name))
        .map_err(|e| network(&format!("make {name}"), e))?;
    netns
        .run(|| settings(spec))
        .map_err(|e| network(&format!("enter {name}"), e))??;
    let far = Link {
        mtu: near.mtu,
        ..Link::new(eth0.clone(), veth())
    };
    cable(switch, near, &far, &netns).map_err(|e| network(&format!("connect {name}"), e))?;
    let mut node = Socket::open_in(&netns).map_err(|e| network(&format!("enter {name}"), e))?;
    let mut steps = vec![up(IfName::loopback())];
    let addresses = spec.node_prefixes(index).into_iter();
    steps.extend(addresses.map(|net| create(Address::new(eth0.clone(), net))));
    let gateways = segment.gateways.iter();
    steps.extend(gateways.map(|net| create(default_route(*net, &eth0))));
    execute(&mut node, &format!("set up {name}"), &steps)?;
    files(dir, spec, &name)?;
    Ok(Machine {
        addresses: spec.node_addresses(index),
        netns,
        dir: dir.node(&name),
        name,
    })
}

fn named(text: &str) -> Result<IfName, Error> {
    IfName::new(text).map_err(|e| network("name a link", e))
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

fn default_route(gateway: IpNet, link: &IfName) -> Route {
    let everything = match gateway {
        IpNet::V4(_) => IpNet::V4(Ipv4Net::default()),
        IpNet::V6(_) => IpNet::V6(Ipv6Net::default()),
    };
    boot(Route {
        // In a cloud, no prefix says that the router is there.
        onlink: gateway.prefix_len() == gateway.max_prefix_len(),
        ..Route::via(everything, gateway.addr(), link.clone())
    })
}

/// Not one of Parfait's: a machine has it before any agent comes, and keeps it afterwards.
fn boot(route: Route) -> Route {
    Route {
        protocol: RouteProtocol(BOOT),
        ..route
    }
}

/// `RTPROT_BOOT` of linux/rtnetlink.h: what was there when the machine came up.
const BOOT: u8 = 3;

/// Makes the lab's own namespace a router. Nodes are told of no better way, so that they learn none by ICMP.
fn forward(spec: &LabSpec) -> Result<(), Error> {
    let mut keys = vec![
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv4.conf.all.send_redirects", "0"),
    ];
    if spec.ip_family.v6() {
        keys.push(("net.ipv6.conf.all.forwarding", "1"));
    }
    for (key, value) in keys {
        let key = SysctlKey::new(key).map_err(|e| network("set up the router", e))?;
        sysctl::write(&Sysctl::new(key, value)).map_err(|e| network("set up the router", e))?;
    }
    Ok(())
}

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
