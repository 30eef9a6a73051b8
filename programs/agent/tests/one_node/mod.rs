//! A node with pods and somebody outside, each in a network namespace, joined as the CNI plugin and a switch would.
//!
//! ```text
//!   pods 10.244.1.N, fd00:10:244:1::N ══ node-1 ┐ eth0 ══ eth0 ┌ outside: 198.51.100.1, 2001:db8:9::1
//!                                                 192.168.77.11, fd00:77::11
//! ```

#![allow(dead_code, reason = "each test takes what it needs of this")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::process::{Command, Output};

use parfait_kernel::NetNs;
use parfait_linux::attachment::{host_interface, host_mac, pod_mac};

/// What a script says in a namespace.
pub fn sh(netns: &NetNs, script: &str) -> Output {
    let run = || Command::new("sh").args(["-ec", script]).output().unwrap();
    netns.run(run).unwrap()
}

/// Runs a script in a namespace; it must end well.
pub fn must(netns: &NetNs, script: &str) {
    let output = sh(netns, script);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {error}");
}

/// The namespaces. They go with this value.
pub struct Machines {
    pub outside: NetNs,
    pub node: NetNs,
    pub pods: BTreeMap<&'static str, NetNs>,
}

impl Machines {
    /// With pods of these namespaces, names and last bytes of their addresses; `None`, said aloud, where namespaces are
    /// not allowed.
    pub fn new(test: &str, wanted: &[(&'static str, &'static str, u8)]) -> Option<Self> {
        Self::build(wanted)
            .inspect_err(|error| {
                let _ = writeln!(std::io::stderr(), "SKIP: {test}: {error}");
            })
            .ok()
    }

    fn build(wanted: &[(&'static str, &'static str, u8)]) -> Result<Self, parfait_kernel::Error> {
        let (outside, node) = (NetNs::create()?, NetNs::create()?);
        let path = |netns: &NetNs| format!("/proc/{}/fd/{}", std::process::id(), netns.as_raw_fd());
        must(
            &node,
            &format!(
                "sysctl -qw net.ipv6.conf.default.accept_dad=0
                 ip link set lo up
                 ip link add eth0 type veth peer name eth0 netns {}
                 ip link set eth0 up
                 ip addr add 192.168.77.11/24 dev eth0
                 ip addr add fd00:77::11/64 dev eth0 nodad
                 ip addr add 192.0.2.10/32 dev lo
                 ip addr add 2001:db8::10/128 dev lo
                 ip route add default via 192.168.77.1
                 ip -6 route add default via fd00:77::1",
                path(&outside)
            ),
        );
        // Somebody outside knows the way to whoever may come, pods included.
        must(
            &outside,
            "ip link set lo up
             ip link set eth0 up
             ip addr add 192.168.77.1/24 dev eth0
             ip addr add fd00:77::1/64 dev eth0 nodad
             ip addr add 198.51.100.1/32 dev lo
             ip addr add 2001:db8:9::1/128 dev lo
             ip route add default via 192.168.77.11
             ip -6 route add default via fd00:77::11",
        );
        let mut pods = BTreeMap::new();
        for &(namespace, name, last) in wanted {
            let pod = NetNs::create()?;
            let first = format!("10.244.1.{last}").parse().unwrap();
            let (near, far) = (host_mac(first), pod_mac(first));
            let link = host_interface(namespace, name);
            let netns = path(&pod);
            must(
                &node,
                &format!(
                    "ip link add {link} address {near} type veth peer name eth0 address {far} netns {netns}
                     ip link set {link} up"
                ),
            );
            must(
                &pod,
                &format!(
                    "ip link set lo up
                     ip link set eth0 up
                     ip addr add 10.244.1.{last}/32 dev eth0
                     ip addr add fd00:10:244:1::{last}/128 dev eth0 nodad
                     ip neigh add 169.254.1.1 lladdr {near} dev eth0
                     ip neigh add fe80::1 lladdr {near} dev eth0
                     ip route add default via 169.254.1.1 dev eth0 onlink
                     ip -6 route add default via fe80::1 dev eth0"
                ),
            );
            pods.insert(name, pod);
        }
        Ok(Self {
            outside,
            node,
            pods,
        })
    }
}
