//! [`NodeConfig`]: what the agent tells the plugin, in `<stateDir>/node.json`. Until the file is
//! there, pods cannot be attached, and the runtime tries again.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::error::{Code, Error};
use crate::file::replace;

/// What the plugin must know about its node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeConfig {
    /// The node's name.
    pub node: String,
    /// Its own addresses: the sources of what it sends to its pods.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// The ranges its pods get their addresses from, at most one a family (`Node.spec.podCIDRs`).
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<IpNet>,
    /// The MTU of the pods' interfaces.
    pub mtu: u32,
}

impl NodeConfig {
    /// Where it is.
    #[must_use]
    pub fn path(state_dir: &Path) -> PathBuf {
        state_dir.join("node.json")
    }

    /// Writes it so that a reader sees the old one or the new one, whole. Does nothing if it is
    /// there already.
    ///
    /// # Errors
    /// If the folder cannot be made, or the file not written.
    pub fn write(&self, state_dir: &Path) -> Result<(), Error> {
        if Self::read(state_dir).is_ok_and(|old| old == *self) {
            return Ok(());
        }
        let text = serde_json::to_string_pretty(self)
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
