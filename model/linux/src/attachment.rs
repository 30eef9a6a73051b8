//! The names and addresses of a pod's attachment: both ends of its veth pair.
//!
//! They follow from the pod alone, so that the CNI plugin, which makes them, and a plan, which may be
//! computed on another machine, agree without asking each other.
//!
//! ```text
//!   pod: eth0 (pod_mac) ◀══ veth ══▶ pf3f29c1… (host_mac) :node
//!        default via 169.254.1.1 lladdr host_mac
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use parfait_packet::Family;

use crate::{IfName, Mac};

/// The gateway that every pod has: the same on every node, never asked for on the wire.
#[must_use]
pub const fn pod_gateway(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1)),
        Family::Ipv6 => IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
    }
}

/// The node's end of a pod's veth pair: `pf` and twelve hexadecimal digits.
#[must_use]
pub fn host_interface(namespace: &str, pod: &str) -> IfName {
    let seed = fnv1a(&[namespace.as_bytes(), b"/", pod.as_bytes()]);
    IfName::new(&format!("pf{:012x}", seed >> 16)).expect("14 bytes of letters and digits")
}

/// Whether an interface's name is one that [`host_interface`] makes.
#[must_use]
pub fn is_host_interface(name: &str) -> bool {
    name.len() == 14
        && name
            .strip_prefix("pf")
            .is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Whether another program has called an interface so that its name begins as pods' do: `pf0hpf` of a BlueField, but neither
/// a pod's nor the tunnel's.
#[must_use]
pub fn is_named_alike(name: &str) -> bool {
    name.starts_with("pf") && name != "pf-vxlan" && !is_host_interface(name)
}

/// The Ethernet address of a pod's end, from its first IP address.
#[must_use]
pub fn pod_mac(address: IpAddr) -> Mac {
    mac(b"pod", address.to_string().as_bytes())
}

/// The Ethernet address of the node's end, from the pod's first IP address.
#[must_use]
pub fn host_mac(address: IpAddr) -> Mac {
    mac(b"host", address.to_string().as_bytes())
}

/// The Ethernet address of a node's tunnel device.
#[must_use]
pub fn tunnel_mac(node: &str) -> Mac {
    mac(b"tunnel", node.as_bytes())
}

fn mac(role: &[u8], of: &[u8]) -> Mac {
    let [a, b, c, d, e, f, _, _] = fnv1a(&[role, b" ", of]).to_be_bytes();
    Mac::local([a, b, c, d, e, f])
}

/// FNV-1a, 64 bits (draft-eastlake-fnv): stable everywhere and for ever, which Rust's own hasher is not. Whoever
/// chooses the bytes can choose the hash.
#[must_use]
pub fn fnv1a(parts: &[&[u8]]) -> u64 {
    parts
        .iter()
        .copied()
        .flatten()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_never_change() {
        // A node that is upgraded must find the interfaces that the version before it made.
        assert_eq!(
            host_interface("default", "web-1").as_str(),
            "pf2019a5a4401b"
        );
        assert!(is_host_interface("pf2019a5a4401b"));
        assert!(!is_host_interface("pf-vxlan") && !is_host_interface("eth0"));
        assert!(is_named_alike("pf0hpf") && is_named_alike("pf2019a5a4401"));
        assert!(
            !["pf2019a5a4401b", "pf-vxlan", "eth0"]
                .map(is_named_alike)
                .contains(&true)
        );
    }

    #[test]
    fn the_two_ends_differ() {
        let address = "10.244.1.2".parse().unwrap();
        assert_ne!(pod_mac(address), host_mac(address));
    }
}
