//! What a wire is, and how much fits through it.

use std::net::IpAddr;

use parfait_cluster::Path;
use parfait_linux::{Mtu, Vxlan};
use parfait_packet::{Family, Origin};

use crate::Plan;
use crate::plan::overhead;

/// The wire between this node and a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wire {
    /// `direct` or `vxlan`.
    pub kind: &'static str,
    /// In one line: what carries the packet.
    pub what: String,
    /// The interface it leaves by.
    pub interface: String,
    /// The underlay address it goes to.
    pub to: IpAddr,
    /// In a tunnel, what is outside: the source address, and the UDP port at the other end.
    pub outer: Option<(IpAddr, u16)>,
    /// The largest packet that fits, in bytes.
    pub mtu: Option<Mtu>,
    /// The headers that the wire adds, in bytes.
    pub overhead: u32,
    /// Why this path.
    pub origin: Origin,
}

/// Explains the wire to a peer. `None` if no path leads there.
#[must_use]
pub fn explain(plan: &Plan, peer: &str, family: Family) -> Option<Wire> {
    let underlay = plan.underlay.as_ref()?;
    let whole = |name: &str| {
        let one = underlay.interfaces().find(|one| one.interface == name)?;
        Mtu::new(one.mtu).ok()
    };
    let narrowed = |mtu: Option<u32>| mtu.and_then(|mtu| Mtu::new(mtu).ok());
    let origin = Origin::new(parfait_packet::Kind::Node, "", peer);
    match plan.paths.get(&(peer.to_owned(), family))? {
        Path::Direct {
            interface,
            via,
            mtu,
        } => Some(Wire {
            kind: "direct",
            what: format!(
                "unchanged over {interface} to {via}: the underlay carries pod addresses"
            ),
            interface: interface.clone(),
            to: *via,
            outer: None,
            mtu: narrowed(*mtu).or_else(|| whole(interface)),
            overhead: 0,
            origin: origin.field("status.addresses"),
        }),
        Path::Learned { interface, via } => Some(Wire {
            kind: "learned",
            what: format!(
                "unchanged over {interface} to {via}, along a route that a routing daemon has learned"
            ),
            interface: interface.clone(),
            to: *via,
            outer: None,
            mtu: whole(interface),
            overhead: 0,
            origin: origin.field("spec.podCIDRs"),
        }),
        Path::Vxlan {
            device,
            remote,
            mtu,
            ..
        } => {
            let tunnel = plan.tunnel.as_ref()?;
            let overhead = overhead(Family::of(tunnel.local));
            Some(Wire {
                kind: "vxlan",
                what: format!(
                    "inside UDP from {} to {remote} port {} (VXLAN {}, {overhead} bytes of headers)",
                    tunnel.local,
                    Vxlan::PORT,
                    tunnel.vni
                ),
                interface: device.clone(),
                to: *remote,
                outer: Some((tunnel.local, Vxlan::PORT)),
                mtu: narrowed(*mtu).or(Some(tunnel.mtu)),
                overhead,
                origin: origin.field("status.addresses"),
            })
        }
    }
}
