//! Connecting, and what can go wrong with the API server.

use std::path::{Path, PathBuf};

use kube::config::{KubeConfigOptions, Kubeconfig};

/// What went wrong, with which object, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig file cannot be used.
    #[error(
        "kubeconfig {path}: {source}; give --kubeconfig FILE or set KUBECONFIG to a file that kubectl accepts"
    )]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<kube::config::KubeconfigError>,
    },
    /// There is neither a kubeconfig nor a pod's service account.
    #[error("there is no cluster to ask: {0}; give --kubeconfig FILE or set KUBECONFIG")]
    NoCluster(Box<kube::config::InferConfigError>),
    /// A request failed.
    #[error("{operation}: {source}")]
    Request {
        /// What was asked for.
        operation: String,
        /// What the API server, or the way to it, answered.
        source: Box<kube::Error>,
    },
}

impl Error {
    pub(crate) fn request(operation: &str) -> impl FnOnce(kube::Error) -> Self + use<'_> {
        move |source| Self::Request {
            operation: operation.to_owned(),
            source: Box::new(source),
        }
    }
}

/// A client for the cluster of a kubeconfig file, or, without one, for the cluster that `KUBECONFIG`,
/// `~/.kube/config` or this pod's service account name.
///
/// # Errors
/// If there is no usable configuration. Nothing is sent yet.
pub async fn client(kubeconfig: Option<&Path>) -> Result<kube::Client, Error> {
    let config = match kubeconfig {
        Some(path) => {
            let failed = |source| Error::Kubeconfig {
                path: path.to_owned(),
                source: Box::new(source),
            };
            let file = Kubeconfig::read_from(path).map_err(failed)?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .map_err(failed)?
        }
        None => kube::Config::infer()
            .await
            .map_err(|error| Error::NoCluster(Box::new(error)))?,
    };
    kube::Client::try_from(config).map_err(Error::request("connect"))
}
