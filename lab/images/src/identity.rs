//! Who a built-in program is: the pod, its node and its addresses, for the answers it gives.

use serde::Serialize;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// What a program knows about itself. The kubelet tells it by `PARFAIT_…` in the environment.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Identity {
    pub program: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    pub hostname: String,
    pub addresses: Vec<IpAddr>,
}

impl Identity {
    /// Reads it from the environment. `image` is what the command line says, if it does.
    pub fn here(program: &'static str, image: Option<String>) -> Identity {
        Identity {
            program,
            image: image.or_else(|| variable("PARFAIT_IMAGE")),
            namespace: variable("PARFAIT_NAMESPACE"),
            pod: variable("PARFAIT_POD"),
            container: variable("PARFAIT_CONTAINER"),
            node: variable("PARFAIT_NODE"),
            hostname: hostname(),
            addresses: own_addresses(),
        }
    }

    /// `shop/web-1`, or the host's name outside of a pod.
    pub fn name(&self) -> String {
        match (&self.namespace, &self.pod) {
            (Some(namespace), Some(pod)) => format!("{namespace}/{pod}"),
            (None, Some(pod)) => pod.clone(),
            _ => self.hostname.clone(),
        }
    }
}

/// A variable of the environment, if it is set to something.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// An address as people write it: an IPv4 address that came through an IPv6 socket is an IPv4 address.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn hostname() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// The source addresses this network namespace would use, one a family. Connecting a UDP socket asks
/// the routing table and sends nothing; the destinations are documentation addresses (RFC 5737, 3849).
fn own_addresses() -> Vec<IpAddr> {
    let far_v4 = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let far_v6 = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
    let source = |any: IpAddr, far: IpAddr| -> Option<IpAddr> {
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect((far, 9)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    let v4 = source(Ipv4Addr::UNSPECIFIED.into(), far_v4);
    let v6 = source(Ipv6Addr::UNSPECIFIED.into(), far_v6);
    v4.into_iter().chain(v6).collect()
}
