//! What all parts of one kubelet share, and how it starts.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::container::cgroup;
use crate::dns::ClusterDns;
use crate::events::Recorder;
use crate::fields::Machine;
use crate::lifecycle::Backoff;
use crate::paths::Paths;
use crate::{netns, node, pods, sandbox};

/// How to run a kubelet.
#[derive(Debug, Clone)]
pub struct Options {
    pub node_name: String,
    /// The node's addresses, the preferred family first.
    pub node_ips: Vec<IpAddr>,
    pub kubeconfig: PathBuf,
    /// Where it keeps its state ([`Paths`]); best a tmpfs of the lab's.
    pub state_dir: PathBuf,
    pub cni_conf_dir: PathBuf,
    pub cni_bin_dir: PathBuf,
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    /// `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
    /// Further labels of the node.
    pub labels: BTreeMap<String, String>,
    pub max_pods: u32,
    /// The cgroup below which its containers get theirs, as `parfait/lab/node-1`; `None` uses no cgroups.
    pub cgroup: Option<String>,
    /// Paths that no container may see, besides the state directory and the kubeconfig's.
    pub hide: Vec<PathBuf>,
    /// The node's own resolver configuration, for pods with `dnsPolicy: Default`.
    pub resolv_conf: PathBuf,
    pub backoff: Backoff,
    /// The binary that is `lab-container` and `image`; by default this one.
    pub program: Option<PathBuf>,
}

impl Options {
    /// The usual values for what is seldom given.
    pub fn new(node_name: impl Into<String>, kubeconfig: PathBuf, state_dir: PathBuf) -> Options {
        Options {
            node_name: node_name.into(),
            node_ips: Vec::new(),
            kubeconfig,
            state_dir,
            cni_conf_dir: "/etc/cni/net.d".into(),
            cni_bin_dir: "/opt/cni/bin".into(),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            zone: None,
            labels: BTreeMap::new(),
            max_pods: 110,
            cgroup: None,
            hide: Vec::new(),
            resolv_conf: "/etc/resolv.conf".into(),
            backoff: Backoff::default(),
            program: None,
        }
    }
}

/// Why a kubelet cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("kubeconfig {path}: {message}")]
    Kubeconfig { path: PathBuf, message: String },
    #[error(
        "state directory {path}: {source}: it must be writable and in a mount namespace of the lab's"
    )]
    State {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// One running kubelet.
pub struct Kubelet {
    pub options: Options,
    pub client: kube::Client,
    pub recorder: Recorder,
    pub paths: Paths,
    pub machine: Machine,
    pub dns: ClusterDns,
    /// A CNI configuration is there.
    pub network_ready: watch::Sender<bool>,
    /// The kubelet is told to end, and its pods with it.
    pub closing: watch::Sender<bool>,
    /// The resolver configuration of the node, read once.
    pub host_resolv_conf: String,
    /// What no container may see.
    pub hidden: Vec<PathBuf>,
}

/// Runs a kubelet until SIGTERM or an error that leaves nothing to do. When it ends its containers end; on SIGTERM they
/// are told to, and their networks are detached.
pub async fn run(options: Options) -> Result<(), Error> {
    let kubelet = Arc::new(start(options).await?);
    let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(|source| Error::State {
            path: kubelet.options.state_dir.clone(),
            source,
        })?;
    sandbox::remove_left_overs(&kubelet).await;
    sandbox::collect(&kubelet).await;
    tracing::info!(node = %kubelet.options.node_name, "kubelet is up");
    // A set, so that it ends with this function however that ends.
    let mut keeping = JoinSet::new();
    keeping.spawn(node::keep(kubelet.clone()));
    let closing = kubelet.clone();
    keeping.spawn(async move {
        term.recv().await;
        tracing::info!("told to end");
        closing.closing.send_replace(true);
    });
    pods::serve(kubelet.clone()).await;
    Ok(())
}

async fn start(options: Options) -> Result<Kubelet, Error> {
    let paths = Paths::new(&options.state_dir);
    prepare_state(&paths, &options).map_err(|source| Error::State {
        path: options.state_dir.clone(),
        source,
    })?;
    let client = client(&options).await?;
    let mut hidden = options.hide.clone();
    hidden.push(options.state_dir.clone());
    hidden.extend(options.kubeconfig.parent().map(PathBuf::from));
    // Not every home is below /home or /root, which no container sees.
    hidden.extend(std::env::var_os("HOME").map(PathBuf::from));
    // A relative path, or the root itself, cannot be covered.
    hidden.retain(|p| p.is_absolute() && p.components().count() > 2);
    Ok(Kubelet {
        recorder: Recorder::start(client.clone(), options.node_name.clone()),
        dns: ClusterDns {
            servers: options.cluster_dns.clone(),
            domain: options.cluster_domain.clone(),
        },
        machine: machine(),
        network_ready: watch::channel(false).0,
        closing: watch::channel(false).0,
        host_resolv_conf: std::fs::read_to_string(&options.resolv_conf).unwrap_or_default(),
        client,
        paths,
        options,
        hidden,
    })
}

async fn client(options: &Options) -> Result<kube::Client, Error> {
    let bad = |message: String| Error::Kubeconfig {
        path: options.kubeconfig.clone(),
        message,
    };
    let file = Kubeconfig::read_from(&options.kubeconfig).map_err(|e| bad(e.to_string()))?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .map_err(|e| bad(e.to_string()))?;
    kube::Client::try_from(config).map_err(|e| bad(e.to_string()))
}

/// Makes the directories, and binds the binary so that it stays what it is.
fn prepare_state(paths: &Paths, options: &Options) -> std::io::Result<()> {
    std::fs::create_dir_all(paths.pods())?;
    std::fs::create_dir_all(paths.root())?;
    let binary = match &options.program {
        Some(path) => path.clone(),
        None => std::env::current_exe()?,
    };
    let bound = paths.parfait();
    netns::remove(&bound);
    std::fs::write(&bound, "")?;
    crate::container::bind_file(&binary, &bound).map_err(std::io::Error::other)?;
    if let Some(name) = &options.cgroup {
        cgroup::remove_tree(name);
    }
    Ok(())
}

fn machine() -> Machine {
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = memory.lines().find_map(|l| {
        l.strip_prefix("MemTotal:")?
            .trim()
            .strip_suffix(" kB")?
            .parse::<u64>()
            .ok()
    });
    Machine {
        cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
        memory: total.unwrap_or(0) * 1024,
    }
}
