//! [`Record`]: what one attachment was given. The plugin writes it before it attaches, and takes it
//! back on DEL; the agent reads it to know a pod's addresses before the API does.
//!
//! ```json
//! {"version":1,"containerID":"4f…","ifname":"eth0","pod":{"namespace":"default","name":"web-1"},
//!  "interface":"pf3f29c1d40a2b","addresses":["10.244.1.2","fd00:10:244:1::2"],
//!  "netns":"/var/run/netns/cni-…","boot":"7c…"}
//! ```

use std::fmt::Display;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use parfait_linux::{IfName, Mac};
use serde::{Deserialize, Deserializer, Serialize};

use crate::config::AttachmentId;

/// What one attachment was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The container and its interface.
    #[serde(flatten)]
    pub id: AttachmentId,
    /// The network's name (`name` of the configuration): GC is about one network. Empty if unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub network: String,
    /// The pod, if the runtime named one (`K8S_POD_NAMESPACE`, `K8S_POD_NAME`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodName>,
    /// The node's end of its veth pair.
    #[serde(deserialize_with = "interface")]
    pub interface: IfName,
    /// At most one of each family, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// The Ethernet address that was asked for; without one, it follows from the first address.
    #[serde(
        default,
        deserialize_with = "mac",
        skip_serializing_if = "Option::is_none"
    )]
    pub mac: Option<Mac>,
    /// The capability `portMappings`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub port_mappings: Vec<PortMapping>,
    /// The capability `bandwidth`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bandwidth>,
    /// The file of the container's network namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<PathBuf>,
    /// The boot in which it was given (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
}

/// A pod by its namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID, if the runtime named it (`K8S_POD_UID`): it tells the pod from the next one of its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

impl Display for PodName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A port of the node that leads to one of the pod (CNI conventions, `portMappings`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// The node's port.
    pub host_port: u16,
    /// The pod's port.
    pub container_port: u16,
    /// `tcp`, `udp` or `sctp`.
    #[serde(default = "tcp")]
    pub protocol: String,
    /// The node's address; without one, every address.
    #[serde(default, rename = "hostIP", skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
}

fn tcp() -> String {
    "tcp".to_owned()
}

/// Limits as the pod sees them (CNI conventions, `bandwidth`). Rates are bits per second, bursts are
/// bits; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Bandwidth {
    /// What comes in.
    pub ingress_rate: u64,
    /// How much may come in at once.
    pub ingress_burst: u64,
    /// What goes out.
    pub egress_rate: u64,
    /// How much may go out at once.
    pub egress_burst: u64,
}

fn interface<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IfName, D::Error> {
    let text = String::deserialize(deserializer)?;
    IfName::new(&text).map_err(serde::de::Error::custom)
}

fn mac<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Mac>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    let parsed = text.map(|text| Mac::from_str(&text)).transpose();
    parsed.map_err(serde::de::Error::custom)
}
