//! [`Config`]: what the administrator chose for the whole cluster.
//!
//! It lives in the ConfigMap `kube-system/parfait`, key `config.yaml`, so that every agent and every
//! `parfait explain` reads the same. All fields have defaults; an unknown field is an error.
//!
//! ```yaml
//! routing: auto                # auto | direct | vxlan | bgp
//! clusterCIDRs: [10.244.0.0/16, fd00:10:244::/56]
//! serviceCIDRs: [10.96.0.0/16, fd00:10:96::/112]
//! clusterDomain: cluster.local
//! foreignChanges: restore      # restore | report
//! podIsolation: untilKnown     # untilKnown | none: what a pod may do before its node's agent knows it
//! deniedConnections: end       # end | keep: what becomes of those that a new NetworkPolicy forbids
//! egress:
//!   masquerade: true           # false: pods leave the cluster with their own addresses
//!   nonMasqueradeCIDRs: []     # destinations where they do in any case
//!   addresses: []              # chosen source addresses, see egress.rs
//! nodePortAddresses: []        # where a node answers to node ports: by default its primary addresses
//! ```

use ipnet::IpNet;
use parfait_packet::{Kind, Origin};
use serde::{Deserialize, Serialize};

use crate::{Egress, ObjectName, nearest};

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
    /// As `direct`, along routes that a routing daemon on each node learns, BIRD or FRR: none are made here.
    Bgp,
}

/// What the agent does about what another program changed in what is Parfait's: a setting, an address, a
/// route, a rule, a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ForeignChanges {
    /// It is told and put back.
    #[default]
    Restore,
    /// It is told once, and left, until the plan itself changes there or the agent starts anew.
    Report,
}

/// What a pod may exchange packets with before its node's agent knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PodIsolation {
    /// With its own node only: what is decided about the pod holds from its first packet, and while
    /// no agent runs, a new pod waits.
    #[default]
    UntilKnown,
    /// With everybody.
    None,
}

/// What becomes of connections that were allowed when they began, and that policies now forbid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeniedConnections {
    /// They end at once.
    #[default]
    End,
    /// They go on until one of their ends ends them.
    Keep,
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
    /// What the agent does about other programs' changes.
    #[serde(rename = "foreignChanges")]
    pub foreign_changes: ForeignChanges,
    /// What a pod may do before its node's agent knows it.
    #[serde(rename = "podIsolation")]
    pub pod_isolation: PodIsolation,
    /// What becomes of connections that policies forbid since they began.
    #[serde(rename = "deniedConnections")]
    pub denied_connections: DeniedConnections,
    /// With which source address pods' packets leave the cluster.
    pub egress: Egress,
    /// At which of its addresses a node answers to node ports: those in one of these ranges. Empty: its
    /// primary address of each family.
    #[serde(rename = "nodePortAddresses")]
    pub node_port_addresses: Vec<IpNet>,
    /// Whether a node answers to node ports at its own 127.0.0.1 too. `false` also puts back what that needs of the
    /// kernel; without either, that is left alone.
    #[serde(rename = "localhostNodePorts")]
    pub localhost_node_ports: Option<bool>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            routing: Routing::Auto,
            cluster_cidrs: Vec::new(),
            service_cidrs: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            foreign_changes: ForeignChanges::Restore,
            pod_isolation: PodIsolation::UntilKnown,
            denied_connections: DeniedConnections::End,
            egress: Egress::default(),
            node_port_addresses: Vec::new(),
            localhost_node_ports: None,
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
    /// A range that has no room.
    #[error(
        "{0} {1} has fewer than 4 addresses, so nothing can be given out of it: use a shorter prefix"
    )]
    TooSmall(&'static str, IpNet),
    /// The part about egress cannot be meant so.
    #[error("{0}")]
    Egress(String),
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

    /// The ConfigMap, for what exists because of it.
    #[must_use]
    pub fn origin() -> Origin {
        let name = Self::object_name();
        Origin::new(Kind::ConfigMap, &name.namespace, &name.name)
    }

    /// The key of the ConfigMap that holds the YAML.
    pub const KEY: &'static str = "config.yaml";

    /// Checks what types alone cannot.
    ///
    /// # Errors
    /// If a range is too small, two overlap, the domain is not a DNS name, or the part about egress makes
    /// no sense.
    pub fn check(self) -> Result<Self, ConfigError> {
        let fields = [
            ("clusterCIDRs", &self.cluster_cidrs),
            ("serviceCIDRs", &self.service_cidrs),
        ];
        for (field, ranges) in fields {
            let small = |range: &&IpNet| range.max_prefix_len() - range.prefix_len() < 2;
            if let Some(range) = ranges.iter().find(small) {
                return Err(ConfigError::TooSmall(field, *range));
            }
        }
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
        match self.egress.fault() {
            Some(fault) => Err(ConfigError::Egress(fault)),
            None => Ok(self),
        }
    }
}

/// What a YAML library says of a mistake, on one line; of a field or value that there is not, with the one that was
/// probably meant. Libraries quote differently: `` unknown field `x`, expected one of `a`, `b` `` or `… of a, b`.
pub(crate) fn suggest(message: String) -> String {
    let first = message.lines().next().unwrap_or_default();
    let said = first.strip_prefix("error: ").unwrap_or(first);
    let unknown = ["unknown field `", "unknown variant `"];
    let rest = unknown.iter().find_map(|words| said.split_once(words));
    let parts = rest.and_then(|(_, rest)| {
        rest.split_once('`')?
            .1
            .split_once("expected ")
            .map(|(_, names)| (rest, names))
    });
    let meant = parts.and_then(|(rest, names)| {
        let wrong = rest.split('`').next()?;
        let names = names.split(|c: char| !c.is_ascii_alphanumeric());
        nearest(
            wrong,
            names.filter(|name| !["", "one", "of", "or"].contains(name)),
        )
    });
    match meant {
        Some(meant) => format!("{said}; did you mean {meant}?"),
        None => said.to_owned(),
    }
}
