//! Node ports at the node's own 127.0.0.1, where the configuration asks for them (`localhostNodePorts: true`).
//!
//! ```text
//!   a program of the node ──▶ 127.0.0.1:30080 ──services──▶ 10.244.2.4:8080, from an address of the node instead of 127.0.0.1
//! ```
//!
//! The kernel sends nothing from 127.0.0.0/8 by another interface than `lo`, and takes no answers to it from there, unless
//! `route_localnet` is set; and then it would let in whatever a neighbour sends there (CVE-2020-8558), which chain
//! `loopback-guard` drops. As in kube-proxy's iptables mode (`--iptables-localhost-nodeports`). For `::1` there is no such
//! setting, so that nothing is made of it.
//!
//! The setting outlives the rules. So `false` is something else than nothing: it plans 0.

use std::net::{IpAddr, Ipv4Addr};

use parfait_cluster::Config;
use parfait_linux::{Sysctl, SysctlKey};
use parfait_packet::{Family, Origin};

use crate::Common;

/// Where programs of the node find node ports besides.
pub(crate) const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// `net.ipv4.conf.all.route_localnet`, if the configuration says anything about it.
#[must_use]
pub fn setting(common: &Common) -> Option<(Sysctl, Origin)> {
    let value = if common.localhost? { "1" } else { "0" };
    let key = SysctlKey::every(Family::Ipv4, "all", "route_localnet");
    let origin = Config::origin().field("localhostNodePorts");
    Some((Sysctl::new(key, value), origin))
}

/// Whether node ports are at 127.0.0.1.
pub(crate) fn is_on(common: &Common) -> bool {
    common.node_addresses.contains(&ADDRESS)
}
