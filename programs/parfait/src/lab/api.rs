//! The way to a lab's API server, and the few questions that several commands ask it.

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Api, Client, Config, Resource};
use parfait_lab_fabric::{Condition, LabDir, LabName, Record, StateRoot};
use serde::de::DeserializeOwned;

use crate::exit::{Failure, said};

/// A running lab.
pub struct Running {
    pub dir: LabDir,
    pub record: Record,
}

/// Finds a running lab; what is there instead, if it is not.
pub fn running(root: &StateRoot, name: &LabName) -> Result<Running, Failure> {
    let dir = root.lab(name);
    match dir.observe()? {
        Condition::Running(record) => Ok(Running {
            dir,
            record: *record,
        }),
        Condition::Changing => Err(parfait_lab_fabric::Error::Busy(name.clone()).into()),
        Condition::Absent | Condition::Dead => {
            parfait_lab_fabric::sweep(root)?;
            let mut running = root.names()?;
            running.retain(|name| matches!(root.lab(name).observe(), Ok(Condition::Running(_))));
            Err(parfait_lab_fabric::Error::NotRunning {
                name: name.clone(),
                running,
            }
            .into())
        }
    }
}

impl Running {
    /// A client with the rights of the lab's administrator.
    pub async fn client(&self) -> Result<Client, Failure> {
        client(&self.dir.kubeconfig()).await
    }
}

/// A client for a kubeconfig.
pub async fn client(kubeconfig: &std::path::Path) -> Result<Client, Failure> {
    let wrong = |error| match error {
        KubeconfigError::ReadConfig(error, path) => {
            Failure::usage(format!("{}: {error}", path.display()))
        }
        other => Failure::usage(format!("{}: {other}", kubeconfig.display())),
    };
    let read = Kubeconfig::read_from(kubeconfig).map_err(wrong)?;
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
    let config = config.map_err(wrong)?;
    Client::try_from(config).map_err(Failure::from)
}

/// All objects of a kind.
pub async fn all<K>(client: &Client) -> Result<Vec<K>, Failure>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let list = Api::<K>::all(client.clone())
        .list(&ListParams::default())
        .await;
    list.map(|list| list.items)
        .map_err(|e| Failure::failed(format!("cannot list {}: {}", K::plural(&()), said(&e))))
}

/// Whether a condition of a node is true.
pub fn node_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .as_ref()
        .and_then(|s| s.conditions.as_deref())
        .unwrap_or_default();
    conditions
        .iter()
        .any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Whether a pod takes traffic.
pub fn pod_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|s| s.conditions.as_deref())
        .unwrap_or_default();
    conditions
        .iter()
        .any(|c| c.type_ == "Ready" && c.status == "True")
}

/// A pod's phase.
pub fn pod_phase(pod: &Pod) -> &str {
    if pod.metadata.deletion_timestamp.is_some() {
        return "Terminating";
    }
    pod.status
        .as_ref()
        .and_then(|s| s.phase.as_deref())
        .unwrap_or("Pending")
}

/// `name`, or `name.namespace` outside of `default`: how pods and Services are written on the
/// command line.
pub fn short_name(name: &str, namespace: &str) -> String {
    if namespace == "default" {
        name.to_owned()
    } else {
        format!("{name}.{namespace}")
    }
}
