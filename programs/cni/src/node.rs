//! [`NodeConfig`]: what the agent tells the plugin, in `<stateDir>/node.json`. Until the file is
//! there, pods cannot be attached, and the runtime tries again.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use parfait_cluster::PodIsolation;
use serde::{Deserialize, Serialize};

use crate::error::{Code, Error};
use crate::file::replace;
use crate::ipam::Pool;

/// What the plugin must know about its node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeConfig {
    /// The node's name.
    pub node: String,
    /// Its own addresses: the sources of what it sends to its pods.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// The ranges its pods get their addresses from (`Node.spec.podCIDRs`).
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<IpNet>,
    /// Further ranges, used when those above are used up. The administrator writes them into the file,
    /// and sees to it that other machines reach them; the agent keeps them.
    #[serde(default, rename = "extraCIDRs", skip_serializing_if = "Vec::is_empty")]
    pub extra_cidrs: Vec<IpNet>,
    /// The ranges of Services' addresses, which no pod may have.
    #[serde(
        default,
        rename = "serviceCIDRs",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub service_cidrs: Vec<IpNet>,
    /// The MTU of the pods' interfaces.
    pub mtu: u32,
    /// What a pod may do before the agent knows it.
    #[serde(default)]
    pub pod_isolation: PodIsolation,
}

impl NodeConfig {
    /// Where it is.
    #[must_use]
    pub fn path(state_dir: &Path) -> PathBuf {
        state_dir.join("node.json")
    }

    /// All ranges, in the order in which they are used up.
    #[must_use]
    pub fn ranges(&self) -> Vec<IpNet> {
        [&self.pod_cidrs[..], &self.extra_cidrs[..]].concat()
    }

    /// What pods get their addresses from.
    ///
    /// # Errors
    /// [`Code::TryAgainLater`] if there is no range yet, [`Code::InvalidConfig`] if a range cannot be
    /// used: too small, twice, or another's.
    pub fn pool(&self) -> Result<Pool, Error> {
        let ranges = self.ranges();
        if ranges.is_empty() {
            let message = "this node has no pod CIDR yet";
            return Err(Error::new(Code::TryAgainLater, message).advise(
                "Check the controller manager's --allocate-node-cidrs and --cluster-cidr.",
            ));
        }
        let own = self.addresses.iter();
        let own = own.map(|ip| (IpNet::from(*ip), "this node's own address"));
        let services = self.service_cidrs.iter();
        let services = services.map(|range| (*range, "the Services' range"));
        let foreign: Vec<_> = own.chain(services).collect();
        Pool::parse(&ranges, &foreign)
    }

    /// Writes it so that a reader sees the old one or the new one, whole. Does nothing if it is
    /// there already. Keeps the administrator's ranges, if this has none.
    ///
    /// # Errors
    /// If the folder cannot be made, or the file not written.
    pub fn write(&self, state_dir: &Path) -> Result<(), Error> {
        let mut new = self.clone();
        if let Ok(old) = Self::read(state_dir) {
            if new.extra_cidrs.is_empty() {
                new.extra_cidrs.clone_from(&old.extra_cidrs);
            }
            if new == old {
                return Ok(());
            }
        }
        let text = serde_json::to_string_pretty(&new)
            .map_err(|error| Error::new(Code::Io, format!("writing node.json: {error}")))?;
        replace(&Self::path(state_dir), text.as_bytes(), &|_| {})
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`Code::TryAgainLater`] if it is not there yet; otherwise if it cannot be read.
    pub fn read(state_dir: &Path) -> Result<Self, Error> {
        let path = Self::path(state_dir);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let message = format!(
                    "the agent has not written {} yet, so this node's pod CIDRs are unknown",
                    path.display()
                );
                return Err(Error::new(Code::TryAgainLater, message).advise(
                    "Wait for the parfait agent on this node; if it runs, see its log: the node may have no spec.podCIDRs.",
                ));
            }
            Err(error) => return Err(Error::file("reading", &path, &error)),
        };
        serde_json::from_str(&text).map_err(|error| {
            let message = format!("{} is not what the agent writes: {error}", path.display());
            Error::new(Code::Io, message).advise("Restart the agent: it writes the file anew.")
        })
    }
}
