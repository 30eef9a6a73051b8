//! What Parfait tells the API server.

use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use parfait_cluster::Underlay;

use crate::Error;

/// Writes what a node's agent found about its underlay into the Node's annotation, so that the
/// node's plan can be computed anywhere.
///
/// # Errors
/// If the API server cannot be reached or refuses.
pub async fn report_underlay(
    client: &Client,
    node: &str,
    underlay: &Underlay,
) -> Result<(), Error> {
    let text = serde_json::json!(underlay).to_string();
    let patch = serde_json::json!({"metadata": {"annotations": {Underlay::ANNOTATION: text}}});
    Api::<Node>::all(client.clone())
        .patch_metadata(node, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .map_err(Error::request(&format!("annotate Node {node}")))?;
    Ok(())
}
