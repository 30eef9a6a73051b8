//! [`Egress`]: with which source address pods' packets leave the cluster.
//!
//! ```yaml
//! egress:
//!   masquerade: true                          # or false: pods leave with their own address
//!   nonMasqueradeCIDRs: [10.0.0.0/8]          # there too
//!   addresses:                                # the first entry that means a pod counts
//!     - namespace: prod
//!       podSelector: {matchLabels: {app: mailer}}        # left out: every pod of the namespace
//!       addresses: [192.0.2.10, 2001:db8::10]
//! ```

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{Config, LabelSelector, Pod};
use parfait_packet::Origin;

/// With which source address pods' packets leave the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Egress {
    /// Whether a pod's packets leave the cluster with its node's address (the default). Without it they
    /// leave with the pod's own, and the network around must know the way back.
    pub masquerade: bool,
    /// Destinations to which pods' packets keep the pod's own address in any case, besides the cluster's own
    /// ranges (as in ip-masq-agent): networks that know the way back.
    #[serde(rename = "nonMasqueradeCIDRs")]
    pub non_masquerade_cidrs: Vec<IpNet>,
    /// Pods whose packets leave the cluster with chosen addresses. The first entry that means a pod counts.
    pub addresses: Vec<EgressAddresses>,
}

/// Chosen source addresses of some pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct EgressAddresses {
    /// The pods' namespace.
    pub namespace: String,
    /// Which of its pods; all, if it is left out.
    #[serde(default)]
    pub pod_selector: LabelSelector,
    /// Addresses of nodes. A pod's packets leave its own node with the first of their family that this node
    /// has. Where it has none they are refused: another source would be a leak.
    pub addresses: Vec<IpAddr>,
}

impl Default for Egress {
    fn default() -> Self {
        Self {
            masquerade: true,
            non_masquerade_cidrs: Vec::new(),
            addresses: Vec::new(),
        }
    }
}

impl Egress {
    /// The entries that mean a pod, with their numbers: the first one counts.
    pub fn of<'a>(&'a self, pod: &'a Pod) -> impl Iterator<Item = (usize, &'a EgressAddresses)> {
        let entries = self.addresses.iter().enumerate();
        entries.filter(|(_, entry)| {
            entry.namespace == pod.name.namespace && entry.pod_selector.matches(&pod.labels)
        })
    }

    /// The entry of this number, for what exists because of it.
    #[must_use]
    pub fn origin(number: usize) -> Origin {
        Config::origin().field(&format!("egress.addresses[{number}]"))
    }

    /// What is wrong with it, and what to do.
    pub(crate) fn fault(&self) -> Option<String> {
        for net in &self.non_masquerade_cidrs {
            if net.trunc() != *net {
                return Some(format!(
                    "egress.nonMasqueradeCIDRs: {net} has bits behind its prefix: write {}",
                    net.trunc()
                ));
            }
        }
        let mut entries = self.addresses.iter().enumerate();
        entries.find_map(|(number, entry)| {
            let fault = entry.fault()?;
            Some(format!("egress.addresses[{number}]: {fault}"))
        })
    }
}

impl EgressAddresses {
    fn fault(&self) -> Option<String> {
        if self.namespace.is_empty() {
            return Some("namespace is empty: name the pods' namespace".to_owned());
        }
        if self.addresses.is_empty() {
            return Some(
                "addresses is empty: name at least one address of a node, or remove the entry"
                    .to_owned(),
            );
        }
        let odd = |a: &&IpAddr| a.is_unspecified() || a.is_loopback() || a.is_multicast();
        if let Some(address) = self.addresses.iter().find(odd) {
            return Some(format!(
                "{address} can be no source of a packet that leaves a node: name an address that nodes have"
            ));
        }
        let fault = self.pod_selector.fault()?;
        Some(format!("podSelector: {fault}"))
    }
}
