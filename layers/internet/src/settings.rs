//! The kernel's settings that pods' packets depend on.
//!
//! ```text
//! net.ipv4.ip_forward = 1                     and of the underlay, the tunnel and pods' interfaces themselves:
//!                                             the kernel asks the interface a packet came in on
//! net.ipv4.conf.all.rp_filter = 0             or 1, but not 2: the kernel takes the larger one of all and the
//!                                             interface's own, so 2 would make pods' loose
//! net.ipv4.conf.eth0.rp_filter = 2            loose: a peer's pods may come in by the tunnel or not, and a
//!                                             node may have several ways out
//! net.ipv4.conf.pf3f29….rp_filter = 1         strict: a pod sends with its own address
//! net.ipv4.conf.all.send_redirects = 0        and of the interfaces: the kernel sends if either says so
//! net.ipv6.conf.all.forwarding = 1            IPv6 asks nothing else
//! net.ipv6.conf.eth0.accept_ra = 2            where a router told the default route: forwarding alone would
//!                                             make the kernel forget it
//! net.ipv4.neigh.default.gc_thresh3 = 16384   or more: on a segment with thousands of peers
//! ```
//!
//! Left alone, because nothing of this layer depends on it: `route_localnet` (the transport layer sets it where node ports or host ports
//! are at 127.0.0.1); `net.bridge.bridge-nf-call-*`, since
//! pods are routed and no packet of theirs crosses a bridge of the node, and since other programs rely on
//! either value; pinned neighbours are not counted by `gc_thresh*` (`neigh_alloc` in net/core/neighbour.c exempts
//! NUD_PERMANENT), so that the tunnel's need no room.
//!
//! What they mean: Documentation/networking/ip-sysctl.rst of the kernel; `ip_forward`, `ip6_forward`,
//! `IN_DEV_RPFILTER` and `IN_DEV_TX_REDIRECTS` in its source.

use std::collections::BTreeSet;

use parfait_linux::{IfName, Sysctl, SysctlKey};
use parfait_packet::{Family, Origin};

use crate::Plan;

/// How many neighbours the kernel keeps by default before it collects them (`gc_thresh2`, halved).
const NEIGHBOURS: usize = 256;

/// The settings of a node, and what each is there for.
#[must_use]
pub fn settings(plan: &Plan) -> Vec<(Sysctl, Origin)> {
    let mut settings = machine();
    let forwarding = Origin::parfait("forwarding");
    let redirects = Origin::parfait("redirects");
    let sources = Origin::parfait("reverse path filter");
    let mut of = |link: &IfName, setting, value, origin: &Origin| {
        let key = SysctlKey::conf(Family::Ipv4, link, setting);
        settings.push((Sysctl::new(key, value), origin.clone()));
    };
    let tunnel = plan.tunnel.as_ref().map(|(device, _)| device);
    for link in plan.underlays.keys().chain(tunnel) {
        of(link, "forwarding", "1", &forwarding);
        of(link, "rp_filter", "2", &sources);
        of(link, "send_redirects", "0", &redirects);
    }
    for pod in plan.pods.iter().filter(|pod| pod.address.is_ipv4()) {
        of(&pod.interface, "forwarding", "1", &pod.origin);
        of(&pod.interface, "rp_filter", "1", &pod.origin);
        of(&pod.interface, "send_redirects", "0", &pod.origin);
    }
    for (underlay, _) in plan.underlays.iter().filter(|(_, advertised)| **advertised) {
        let key = SysctlKey::conf(Family::Ipv6, underlay, "accept_ra");
        let origin = Origin::parfait("router advertisements");
        settings.push((Sysctl::new(key, "2"), origin));
    }
    for family in Family::ALL {
        settings.extend(neighbours(plan, family));
    }
    settings
}

/// Those that no plan changes.
fn machine() -> Vec<(Sysctl, Origin)> {
    let every = |which, setting| SysctlKey::every(Family::Ipv4, which, setting);
    let mut settings: Vec<_> = Family::ALL
        .map(|family| {
            let forward = Sysctl::new(SysctlKey::forwarding(family), "1");
            (forward, Origin::parfait("forwarding"))
        })
        .into();
    settings.extend([
        // Pods' interfaces are made with it.
        (
            Sysctl::new(every("default", "forwarding"), "1"),
            Origin::parfait("forwarding"),
        ),
        (
            Sysctl::new(every("all", "rp_filter"), "0").or_within(0, 1),
            Origin::parfait("reverse path filter"),
        ),
        // A pod that reaches itself through its Service would be told to go straight there, in vain; and the
        // kernel counts that against the errors it owes the pod (ip_error, ip_rt_send_redirect).
        (
            Sysctl::new(every("all", "send_redirects"), "0"),
            Origin::parfait("redirects"),
        ),
    ]);
    settings
}

/// Room for the neighbours of a large segment, which are not pinned: the kernel asks for them. In steps of two,
/// so that not every node that joins changes them.
fn neighbours(plan: &Plan, family: Family) -> Vec<(Sysctl, Origin)> {
    let tunnel = plan.tunnel.as_ref().map(|(device, _)| device);
    let direct = plan
        .peers
        .iter()
        .filter(|peer| Some(&peer.interface) != tunnel && Family::of(peer.via) == family);
    let asked: BTreeSet<_> = direct.map(|peer| peer.via).collect();
    if asked.len() <= NEIGHBOURS {
        return Vec::new();
    }
    let all = asked.len().next_power_of_two() * 2;
    let thresholds = [
        ("gc_thresh1", all / 2),
        ("gc_thresh2", all),
        ("gc_thresh3", all * 2),
    ];
    let setting = |(name, least): (&str, usize)| {
        let key = SysctlKey::neighbours(family, name);
        let least_number = u64::try_from(least).unwrap_or(u64::MAX);
        let setting = Sysctl::new(key, &least.to_string()).or_within(least_number, u64::MAX);
        (setting, Origin::parfait("neighbours"))
    };
    thresholds.map(setting).into()
}
