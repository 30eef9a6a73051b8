//! [`Link`]: a network interface, as `ip link` shows it.
//!
//! Only the kinds Parfait makes are known by their options (veth(4), VXLAN as in RFC 7348 and the
//! kernel's Documentation/networking/vxlan.rst, bridge). Every other kind is kept by its name, so
//! that foreign interfaces can be listed and left alone.

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

use crate::{Alias, IfName, Mac, Mtu, Vni};

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// Its name.
    pub name: IfName,
    /// What it is.
    pub kind: LinkKind,
    /// Its Ethernet address. `None` in a plan means "whatever the kernel chooses".
    pub mac: Option<Mac>,
    /// The largest packet it takes.
    pub mtu: Mtu,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether its cable is plugged in: of a veth, that the other end is up. No plan asks for it.
    pub carrier: bool,
    /// The bridge it is a port of.
    pub master: Option<IfName>,
    /// What it is for, in words. `None` in a plan means "leave it".
    pub alias: Option<Alias>,
}

/// What a [`Link`] is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkKind {
    /// `lo`.
    Loopback,
    /// One end of a virtual cable. The other end's name is only known when it lies in the same
    /// network namespace.
    Veth {
        /// The other end, if it is in this namespace.
        peer: Option<IfName>,
    },
    /// An Ethernet over UDP tunnel.
    Vxlan(Vxlan),
    /// A learning switch.
    Bridge,
    /// Any other kind, by its name (`tun`, `wireguard`, …); a physical device is `device`.
    Other(String),
}

/// The options of a VXLAN device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Vxlan {
    /// The network identifier in each packet's header.
    pub vni: Vni,
    /// The UDP port it sends to and listens on; 4789 by RFC 7348.
    pub port: u16,
    /// The underlay address it sends from; also decides the outer packets' family.
    pub local: IpAddr,
    /// Whether it learns from what it receives. Parfait's never does: every entry is planned.
    pub learning: bool,
}

impl Vxlan {
    /// The port that IANA assigned to VXLAN (RFC 7348 section 8).
    pub const PORT: u16 = 4789;

    /// The bytes that a packet grows by: an outer IP header (20 or 40 bytes), UDP (8), VXLAN (8)
    /// and the inner Ethernet header (14).
    #[must_use]
    pub const fn overhead(&self) -> u32 {
        match self.local {
            IpAddr::V4(_) => 50,
            IpAddr::V6(_) => 70,
        }
    }
}

impl Link {
    /// A link that is up, with Ethernet's MTU and an address of the kernel's choice.
    #[must_use]
    pub const fn new(name: IfName, kind: LinkKind) -> Self {
        Self {
            name,
            kind,
            mac: None,
            mtu: Mtu::ETHERNET,
            up: true,
            carrier: true,
            master: None,
            alias: None,
        }
    }

    /// Whether this observed link is as `desired` asks: what the plan leaves open does not count.
    #[must_use]
    pub fn satisfies(&self, desired: &Self) -> bool {
        self.kind.satisfies(&desired.kind)
            && self.mtu == desired.mtu
            && self.up == desired.up
            && self.master == desired.master
            && (desired.mac.is_none() || desired.mac == self.mac)
            && (desired.alias.is_none() || desired.alias == self.alias)
    }

    /// The options as `ip link add` takes them, from the name on.
    pub(crate) fn options(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(mac) = self.mac {
            write!(f, " address {mac}")?;
        }
        write!(f, " mtu {}", self.mtu)?;
        if let Some(master) = &self.master {
            write!(f, " master {master}")?;
        }
        f.write_str(if self.up { " up" } else { " down" })?;
        if let Some(alias) = &self.alias {
            write!(f, " alias \"{alias}\"")?;
        }
        Ok(())
    }
}

impl fmt::Display for Link {
    /// `pf-vxlan: mtu 1450 up vxlan id 4242 local 192.168.77.11 dstport 4789 nolearning`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.name)?;
        self.options(f)?;
        if self.up && !self.carrier {
            f.write_str(" no-carrier")?;
        }
        write!(f, " {}", self.kind)
    }
}

impl LinkKind {
    /// The kind's name, as `ip link add type NAME` takes it.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Loopback => "loopback",
            Self::Veth { .. } => "veth",
            Self::Vxlan(_) => "vxlan",
            Self::Bridge => "bridge",
            Self::Other(name) => name,
        }
    }

    /// Whether a link of this kind need not be made anew to be of the `desired` kind.
    #[must_use]
    pub fn satisfies(&self, desired: &Self) -> bool {
        match (self, desired) {
            (Self::Veth { peer }, Self::Veth { peer: wanted }) => {
                wanted.is_none() || peer.is_none() || wanted == peer
            }
            _ => self == desired,
        }
    }
}

impl fmt::Display for LinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Veth { peer: Some(peer) } => write!(f, " peer name {peer}"),
            Self::Vxlan(vxlan) => write!(
                f,
                " id {} local {} dstport {} {}",
                vxlan.vni,
                vxlan.local,
                vxlan.port,
                if vxlan.learning {
                    "learning"
                } else {
                    "nolearning"
                }
            ),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vxlan() -> Link {
        let options = Vxlan {
            vni: Vni::new(4242).unwrap(),
            port: Vxlan::PORT,
            local: "192.168.77.11".parse().unwrap(),
            learning: false,
        };
        let mut link = Link::new(IfName::new("pf-vxlan").unwrap(), LinkKind::Vxlan(options));
        link.mtu = Mtu::ETHERNET.less(options.overhead());
        link
    }

    #[test]
    fn prints_as_ip_link_does() {
        assert_eq!(
            vxlan().to_string(),
            "pf-vxlan: mtu 1450 up vxlan id 4242 local 192.168.77.11 dstport 4789 nolearning"
        );
    }

    #[test]
    fn what_a_plan_leaves_open_is_satisfied_by_anything() {
        let mut observed = vxlan();
        observed.mac = Some(Mac::local([1; 6]));
        observed.alias = Some(Alias::new("Node node-1"));
        assert!(observed.satisfies(&vxlan()));
        assert!(!vxlan().satisfies(&observed));
    }
}
