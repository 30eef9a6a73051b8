//! Where the kubelet keeps what.
//!
//! ```text
//! STATE/parfait                                the binary, bound here, so that a rebuild does not disturb the lab
//! STATE/root                                   where every container builds its root, in its own mount namespace
//! STATE/pods/NAMESPACE_POD/netns               the pod's network namespace, bound as in /run/netns
//! STATE/pods/NAMESPACE_POD/resolv.conf, hosts  what its containers see under /etc
//! STATE/pods/NAMESPACE_POD/sandbox.json        how to take it down again
//! STATE/pods/NAMESPACE_POD/volumes/            a tmpfs with the pod's volumes
//! STATE/pods/NAMESPACE_POD_UID/CONTAINER/N.log the output of its containers, N counts restarts
//! ```
//!
//! Underscores cannot be part of names in Kubernetes, so the parts can be told from each other.

use std::path::{Path, PathBuf};

/// The kubelet's state directory.
#[derive(Debug, Clone)]
pub struct Paths {
    state: PathBuf,
}

/// The directory of one pod's sandbox.
#[derive(Debug, Clone)]
pub struct PodPaths {
    dir: PathBuf,
}

impl Paths {
    pub fn new(state: impl Into<PathBuf>) -> Paths {
        Paths {
            state: state.into(),
        }
    }

    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The lab's binary.
    pub fn parfait(&self) -> PathBuf {
        self.state.join("parfait")
    }

    /// The mount point of containers' roots.
    pub fn root(&self) -> PathBuf {
        self.state.join("root")
    }

    /// The directory of all pods.
    pub fn pods(&self) -> PathBuf {
        self.state.join("pods")
    }

    /// The sandbox of a pod.
    pub fn pod(&self, namespace: &str, name: &str) -> PodPaths {
        PodPaths {
            dir: self.pods().join(format!("{namespace}_{name}")),
        }
    }

    /// The logs of a pod, one directory for each container.
    pub fn logs(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.pods().join(format!("{namespace}_{name}_{uid}"))
    }

    /// The log of a container's `attempt`, counted from 0.
    pub fn log(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        container: &str,
        attempt: u32,
    ) -> PathBuf {
        self.logs(namespace, name, uid)
            .join(container)
            .join(format!("{attempt}.log"))
    }

    /// The sandboxes that are there, known or left over.
    pub fn sandboxes(&self) -> Vec<PodPaths> {
        let entries = std::fs::read_dir(self.pods())
            .into_iter()
            .flatten()
            .flatten();
        entries
            .filter(|e| e.file_name().to_string_lossy().matches('_').count() == 1)
            .map(|e| PodPaths { dir: e.path() })
            .collect()
    }
}

impl PodPaths {
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What `CNI_NETNS` names, and what `setns(2)` enters.
    pub fn netns(&self) -> PathBuf {
        self.dir.join("netns")
    }

    pub fn resolv_conf(&self) -> PathBuf {
        self.dir.join("resolv.conf")
    }

    pub fn hosts(&self) -> PathBuf {
        self.dir.join("hosts")
    }

    pub fn hostname(&self) -> PathBuf {
        self.dir.join("hostname")
    }

    pub fn sandbox(&self) -> PathBuf {
        self.dir.join("sandbox.json")
    }

    pub fn volumes(&self) -> PathBuf {
        self.dir.join("volumes")
    }
}
