//! [`Offload`]: what a network card does for the kernel with packets inside tunnels, and what came in
//! broken. Names are ethtool(8)'s.

use serde::Serialize;

use crate::IfName;

/// Facts about the interface that a tunnel's packets leave and enter by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Offload {
    /// The interface.
    pub link: IfName,
    /// Its driver; empty if it does not say.
    pub driver: String,
    /// Whether the card cuts large packets inside UDP tunnels and computes both checksums
    /// (`tx-udp_tnl-csum-segmentation`); `None` if the driver does not say.
    pub tunnel_checksums: Option<bool>,
    /// UDP packets that came to this namespace with a wrong checksum, since it exists (`InCsumErrors`
    /// and `Udp6InCsumErrors` of /proc/net/snmp and snmp6).
    pub checksum_errors: u64,
    /// The kernel's release, as `uname -r` prints it.
    pub kernel: String,
}
