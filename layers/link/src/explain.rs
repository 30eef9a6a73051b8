//! What a wire is, and how much fits through it.

use std::net::IpAddr;

use parfait_cluster::Path;
use parfait_linux::Mtu;
use parfait_packet::{Family, Origin};

use crate::Plan;

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
    let whole = Mtu::new(underlay.mtu).ok();
    let origin = Origin::new(parfait_packet::Kind::Node, "", peer);
    match plan.paths.get(&(peer.to_owned(), family))? {
        Path::Direct { interface, via } => Some(Wire {
            kind: "direct",
            what: format!(
                "unchanged over {interface} to {via}: the underlay carries pod addresses"
            ),
            interface: interface.clone(),
            to: *via,
            mtu: whole,
            overhead: 0,
            origin: origin.field("status.addresses"),
        }),
        Path::Vxlan { device, remote, .. } => {
            let tunnel = plan.tunnel.as_ref()?;
            let overhead = underlay.mtu.saturating_sub(tunnel.mtu.bytes());
            Some(Wire {
                kind: "vxlan",
                what: format!(
                    "inside UDP from {} to {remote} (VXLAN {}, {overhead} bytes of headers)",
                    tunnel.local, tunnel.vni
                ),
                interface: device.clone(),
                to: *remote,
                mtu: Some(tunnel.mtu),
                overhead,
                origin: origin.field("status.addresses"),
            })
        }
    }
}
