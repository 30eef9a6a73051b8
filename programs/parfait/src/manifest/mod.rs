//! `parfait manifest`: what an administrator applies to a cluster to run Parfait, printed from what the programs
//! themselves go by.
//!
//! ```text
//!   examples/*/crd.yaml ──────▶ the kinds            parfait_kube::rights ──▶ roles     Config ──▶ ConfigMap
//!   the agent's own options ──▶ the DaemonSet
//! ```
//!
//! Promises: the rights are what the agent's requests need, and no more; a lab's agents run with them. The directories that
//! a pod of the DaemonSet sees are those that the agent writes to. A configuration that agents would refuse is not printed.
//!
//! Left out: applying it, which kubectl does; an image; the Service of cluster DNS, which a cluster has already
//! (README.md says how agents are made to answer for it).

mod daemon_set;
mod roles;

use k8s_openapi::api::core::v1::ConfigMap;
use parfait_cluster::Config;
use serde_json::json;

use crate::args::Manifest;
use crate::exit::{DONE, Failure};
use crate::output::say;
pub use roles::{ACCOUNT, rights};

/// The kinds that Parfait adds to a cluster, or that it needs of others.
pub const DEFINITIONS: [&str; 3] = [
    include_str!("../../../../examples/load-balancer/crd.yaml"),
    include_str!("../../../../examples/cluster-network-policy/crd.yaml"),
    include_str!("../../../../examples/node-network-policy/crd.yaml"),
];

/// Where everything of Parfait's lives that lives in a namespace.
pub const NAMESPACE: &str = "kube-system";

/// Prints it.
pub fn run(args: &Manifest) -> Result<u8, Failure> {
    let config = config(args)?;
    let mut documents: Vec<String> = DEFINITIONS.iter().map(ToString::to_string).collect();
    let rights = rights();
    documents.push(yaml(&rights.account)?);
    documents.push(yaml(&rights.cluster_role)?);
    documents.push(yaml(&rights.cluster_binding)?);
    documents.push(yaml(&rights.role)?);
    documents.push(yaml(&rights.binding)?);
    documents.push(yaml(&config)?);
    documents.push(yaml(&daemon_set::daemon_set(args)?)?);
    say!(
        "{}",
        documents
            .iter()
            .map(|text| text.trim_end())
            .collect::<Vec<_>>()
            .join("\n---\n")
    );
    Ok(DONE)
}

fn yaml(object: &impl serde::Serialize) -> Result<String, Failure> {
    serde_saphyr::to_string(object).map_err(Failure::failed)
}

/// The ConfigMap, if agents will understand it.
fn config(args: &Manifest) -> Result<ConfigMap, Failure> {
    let text = match &args.config {
        None => "routing: auto\n".to_owned(),
        Some(path) => {
            let wrong = |why: String| Failure::usage(format!("--config {}: {why}", path.display()));
            let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
            let read = parfait_kube::config_yaml(&text).map_err(wrong)?;
            read.check().map_err(|e| wrong(e.to_string()))?;
            text
        }
    };
    let name = Config::object_name();
    serde_json::from_value(json!({
        "metadata": {"name": name.name, "namespace": name.namespace},
        "data": {Config::KEY: text},
    }))
    .map_err(Failure::failed)
}
