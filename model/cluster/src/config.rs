//! [`Config`]: what the administrator chose for the whole cluster.
//!
//! It lives in the ConfigMap `kube-system/parfait`, key `config.yaml`, so that every agent and every
//! `parfait explain` reads the same. All fields have defaults; an unknown field is an error.
//!
//! ```yaml
//! routing: auto                # auto | direct | vxlan
//! clusterCIDRs: [10.244.0.0/16, fd00:10:244::/56]
//! serviceCIDRs: [10.96.0.0/16, fd00:10:96::/112]
//! clusterDomain: cluster.local
//! ```

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::ObjectName;

/// How pod packets cross the underlay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Routing {
    /// `direct` to peers on the same segment, `vxlan` to the others.
    #[default]
    Auto,
    /// The underlay carries pod addresses everywhere.
    Direct,
    /// Always in a VXLAN tunnel.
    Vxlan,
}

/// The cluster-wide configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How pod packets cross the underlay.
    pub routing: Routing,
    /// The ranges that nodes' pod CIDRs come from. Empty: only the nodes' own are known.
    #[serde(rename = "clusterCIDRs")]
    pub cluster_cidrs: Vec<IpNet>,
    /// The ranges that Services' addresses come from. Empty: only the Services' own are known.
    #[serde(rename = "serviceCIDRs")]
    pub service_cidrs: Vec<IpNet>,
    /// The DNS domain of the cluster, without a final dot.
    #[serde(rename = "clusterDomain")]
    pub cluster_domain: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            routing: Routing::Auto,
            cluster_cidrs: Vec::new(),
            service_cidrs: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
        }
    }
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// It is not the documented YAML.
    #[error("ConfigMap kube-system/parfait, key config.yaml: {0}")]
    Syntax(String),
    /// Two ranges share addresses.
    #[error("{0} and {1} overlap: give pods and Services ranges of their own")]
    Overlap(IpNet, IpNet),
    /// The domain is not a DNS name.
    #[error("clusterDomain {0:?} is not a DNS name: use one like cluster.local")]
    Domain(String),
}

impl Config {
    /// The ConfigMap's namespace and name.
    #[must_use]
    pub fn object_name() -> ObjectName {
        ObjectName::new("kube-system", "parfait")
    }

    /// The key of the ConfigMap that holds the YAML.
    pub const KEY: &'static str = "config.yaml";

    /// Checks what types alone cannot.
    ///
    /// # Errors
    /// If two ranges overlap or the domain is not a DNS name.
    pub fn check(self) -> Result<Self, ConfigError> {
        let ranges: Vec<IpNet> = [&self.cluster_cidrs[..], &self.service_cidrs[..]].concat();
        for (index, a) in ranges.iter().enumerate() {
            for b in &ranges[index + 1..] {
                if a.contains(&b.network()) || b.contains(&a.network()) {
                    return Err(ConfigError::Overlap(*a, *b));
                }
            }
        }
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        if !self.cluster_domain.split('.').all(label) {
            return Err(ConfigError::Domain(self.cluster_domain));
        }
        Ok(self)
    }
}
