//! The sandbox: a pod's network, volumes and name files, made before its first container and removed after its last.
//!
//! What is needed to remove it is written to `sandbox.json` before the network is attached, so that a kubelet which
//! starts over can detach what its predecessor left (CNI plugins must be told, or addresses leak).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cni::{self, Attachment, CniError, Network};
use crate::container::StepError;
use crate::dns;
use crate::fields::Addresses;
use crate::kubelet::Kubelet;
use crate::paths::PodPaths;
use crate::sources::{self, Sources};
use crate::volumes::{self, Content, Makings, VolumeError};
use crate::{api, netns};

/// How much all volumes of a pod may hold together.
const VOLUME_BYTES: u64 = 256 << 20;

/// What is needed to take a pod's network down.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    pub network: Network,
    pub attachment: Attachment,
    pub result: Option<Value>,
}

/// A sandbox that stands.
#[derive(Debug, Clone)]
pub struct Sandbox {
    pub addresses: Vec<IpAddr>,
    pub hostname: String,
    /// `None` for a pod in the node's own network.
    pub record: Option<Record>,
    /// What the user should know about its volumes.
    pub warnings: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error(transparent)]
    Network(#[from] CniError),
    #[error(transparent)]
    Step(#[from] StepError),
    #[error("reading what the volumes are made of: {0}")]
    Api(#[from] kube::Error),
    #[error("forbidden sysctl {name:?}: only the safe ones of the network namespace can be set")]
    Sysctl { name: String },
}

impl SandboxError {
    /// The reason of the event.
    pub fn reason(&self) -> &'static str {
        match self {
            SandboxError::Volume(_) | SandboxError::Api(_) => "FailedMount",
            SandboxError::Network(CniError::NoNetwork { .. }) => "NetworkNotReady",
            SandboxError::Sysctl { .. } => "SysctlForbidden",
            SandboxError::Network(_) | SandboxError::Step(_) => "FailedCreatePodSandBox",
        }
    }
}

/// Makes a pod's sandbox. If that fails nothing is left of it.
pub async fn make(kubelet: &Kubelet, pod: &Pod, paths: &PodPaths) -> Result<Sandbox, SandboxError> {
    // Left by an earlier pod of this name, if anything.
    remove_dir(kubelet, paths).await;
    let made = try_make(kubelet, pod, paths).await;
    if made.is_err() {
        remove_dir(kubelet, paths).await;
    }
    made
}

async fn try_make(kubelet: &Kubelet, pod: &Pod, paths: &PodPaths) -> Result<Sandbox, SandboxError> {
    let dir = paths.dir().to_owned();
    std::fs::create_dir_all(&dir).map_err(StepError::at(format!("make {}", dir.display())))?;
    let warnings = make_volumes(kubelet, pod, paths).await?;
    let host_network = pod.spec.as_ref().and_then(|s| s.host_network) == Some(true);
    let (addresses, record) = if host_network {
        // Whoever looks for the pod's network finds the node's.
        let path = paths.netns();
        blocking(move || netns::bind_own(&path)).await?;
        (kubelet.options.node_ips.clone(), None)
    } else {
        let record = attach(kubelet, pod, paths).await?;
        let addresses = record
            .result
            .as_ref()
            .map(cni::addresses)
            .unwrap_or_default();
        (addresses, Some(record))
    };
    let hostname = dns::hostname(pod, &kubelet.options.node_name);
    let domain = &kubelet.options.cluster_domain;
    for (path, text) in [
        (
            paths.hosts(),
            dns::hosts(pod, &hostname, domain, &addresses),
        ),
        (
            paths.resolv_conf(),
            dns::resolv_conf(pod, &kubelet.dns, &kubelet.host_resolv_conf),
        ),
        (paths.hostname(), format!("{hostname}\n")),
    ] {
        write(&path, text.as_bytes())?;
    }
    Ok(Sandbox {
        addresses,
        hostname,
        record,
        warnings,
    })
}

/// Makes the volumes; returns warnings about them.
async fn make_volumes(
    kubelet: &Kubelet,
    pod: &Pod,
    paths: &PodPaths,
) -> Result<Vec<String>, SandboxError> {
    let Some(spec) = &pod.spec else {
        return Ok(Vec::new());
    };
    let wanted = sources::of_volumes(spec);
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let sources: Sources = api::sources(&kubelet.client, namespace, &wanted).await?;
    let addresses = Addresses {
        pod: Vec::new(),
        host: kubelet.options.node_ips.clone(),
    };
    let makings = Makings {
        pod,
        addresses: &addresses,
        machine: kubelet.machine,
        sources: &sources,
    };
    let mut contents = BTreeMap::new();
    let mut warnings = Vec::new();
    for volume in spec.volumes.iter().flatten() {
        let content = volumes::content(volume, &makings)?;
        if let Content::Empty {
            warning: Some(text),
            ..
        } = &content
        {
            warnings.push(text.clone());
        }
        contents.insert(volume.name.clone(), content);
    }
    let group = spec.security_context.as_ref().and_then(|c| c.fs_group);
    let group = group
        .and_then(|g| u32::try_from(g).ok())
        .filter(|g| crate::container::mapped("gid_map", *g));
    let dir = paths.volumes();
    blocking(move || volumes::make(&dir, VOLUME_BYTES, &contents, group)).await?;
    Ok(warnings)
}

async fn attach(kubelet: &Kubelet, pod: &Pod, paths: &PodPaths) -> Result<Record, SandboxError> {
    let network = cni::find_network(&kubelet.options.cni_conf_dir)?;
    let spec = pod.spec.as_ref();
    let asked = spec.and_then(|s| s.security_context.as_ref()?.sysctls.clone());
    let sysctls: Vec<(String, String)> = asked
        .into_iter()
        .flatten()
        .map(|s| (s.name, s.value))
        .collect();
    if let Some((name, _)) = sysctls
        .iter()
        .find(|(name, _)| !netns::is_safe_sysctl(name))
    {
        return Err(SandboxError::Sysctl { name: name.clone() });
    }
    let path = paths.netns();
    blocking(move || netns::create(&path, &sysctls)).await?;
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let meta = &pod.metadata;
    let mut record = Record {
        network,
        attachment: Attachment {
            container_id: new_id(&text(&meta.uid)),
            netns: paths.netns(),
            namespace: text(&meta.namespace),
            name: text(&meta.name),
            uid: text(&meta.uid),
            port_mappings: cni::port_mappings(pod),
            bandwidth: cni::bandwidth(pod)?,
            annotations: meta.annotations.clone().unwrap_or_default(),
        },
        result: None,
    };
    save(paths, &record)?;
    let bin = &kubelet.options.cni_bin_dir;
    record.result = Some(cni::add(&record.network, &record.attachment, bin).await?);
    save(paths, &record)?;
    Ok(record)
}

/// Detaches the network and removes everything. An error is one of the plugins'; the rest is removed all the same.
pub async fn remove(
    kubelet: &Kubelet,
    record: Option<&Record>,
    paths: &PodPaths,
) -> Result<(), CniError> {
    let mut result = Ok(());
    if let Some(record) = record {
        let bin = &kubelet.options.cni_bin_dir;
        result = cni::del(
            &record.network,
            &record.attachment,
            bin,
            record.result.as_ref(),
        )
        .await;
    }
    let paths = paths.clone();
    blocking(move || {
        netns::remove(&paths.netns());
        volumes::remove(paths.dir());
    })
    .await;
    result
}

/// Removes what an earlier kubelet of this node left.
pub async fn remove_left_overs(kubelet: &Kubelet) {
    for paths in kubelet.paths.sandboxes() {
        tracing::info!(sandbox = %paths.dir().display(), "removing what an earlier kubelet left");
        remove_dir(kubelet, &paths).await;
    }
}

/// Has the network plugins remove what no sandbox has: what was attached by a kubelet that died before it wrote that down, or
/// that had its state taken away.
pub async fn collect(kubelet: &Kubelet) {
    let options = &kubelet.options;
    let Ok(network) = cni::find_network(&options.cni_conf_dir) else {
        return;
    };
    let sandboxes = kubelet.paths.sandboxes().into_iter();
    let containers: Vec<String> = sandboxes
        .filter_map(|paths| recorded(&paths))
        .map(|record| record.attachment.container_id)
        .collect();
    if let Err(error) = cni::collect(&network, &containers, &options.cni_bin_dir).await {
        tracing::warn!(%error, "what earlier pods left of the network is not all removed");
    }
}

fn recorded(paths: &PodPaths) -> Option<Record> {
    let text = std::fs::read(paths.sandbox()).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Removes the sandbox at `paths`, of which only what is on disk is known.
pub async fn remove_dir(kubelet: &Kubelet, paths: &PodPaths) {
    if !paths.dir().exists() {
        return;
    }
    let record = recorded(paths);
    if let Err(error) = remove(kubelet, record.as_ref(), paths).await {
        tracing::warn!(%error, sandbox = %paths.dir().display(), "pod network not detached cleanly");
    }
}

/// An identity no other container or sandbox has: the pod's, and the time.
pub fn new_id(uid: &str) -> String {
    let plain: String = uid.chars().filter(char::is_ascii_hexdigit).collect();
    format!("{plain:0<32.32}{:032x}", Timestamp::now().as_nanosecond())
}

fn save(paths: &PodPaths, record: &Record) -> Result<(), StepError> {
    let text = serde_json::to_vec(record).unwrap_or_default();
    write(&paths.sandbox(), &text)
}

fn write(path: &PathBuf, bytes: &[u8]) -> Result<(), StepError> {
    std::fs::write(path, bytes).map_err(StepError::at(format!("write {}", path.display())))
}

/// Runs what blocks where it may.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
