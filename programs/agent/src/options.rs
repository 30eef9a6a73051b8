//! What the agent is told on its command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::Predecessor;

/// The agent's options.
#[derive(Clone, Debug)]
pub struct Options {
    /// The kubeconfig; `None` for the pod's service account, or kubectl's defaults.
    pub kubeconfig: Option<PathBuf>,
    /// The Node object that this machine is.
    pub node_name: String,
    /// Where the agent and the CNI plugin keep what must survive a restart.
    pub state_dir: PathBuf,
    /// Where the container runtime looks for CNI configurations.
    pub cni_conf_dir: PathBuf,
    /// Where the container runtime looks for CNI plugins.
    pub cni_bin_dir: PathBuf,
    /// Nameservers for names outside the cluster domain.
    pub upstreams: Vec<SocketAddr>,
    /// How often the kernel is compared with the plan when nothing changes.
    pub resync: Duration,
    /// Where what has been counted can be read; `None` for nowhere.
    pub metrics: Option<SocketAddr>,
    /// Where load balancers ask whether the node takes packets; `None` for nowhere.
    pub healthz: Option<SocketAddr>,
    /// Whose rules are removed once the agent's own stand.
    pub take_over: Option<Predecessor>,
}

impl Options {
    /// The options of an agent for a node, with the usual paths.
    #[must_use]
    pub fn new(node_name: &str) -> Self {
        Self {
            kubeconfig: None,
            node_name: node_name.to_owned(),
            state_dir: "/var/lib/parfait".into(),
            cni_conf_dir: "/etc/cni/net.d".into(),
            cni_bin_dir: "/opt/cni/bin".into(),
            upstreams: Vec::new(),
            resync: Duration::from_secs(30),
            metrics: None,
            healthz: None,
            take_over: None,
        }
    }
}
