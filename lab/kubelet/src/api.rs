//! The few questions to the API that a pod's task has.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, PodStatus, Secret, Service};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};

use crate::sources::{self, Source, Sources};
use crate::status::OWN_CONDITIONS;

/// Fetches ConfigMaps and Secrets. One that does not exist is left out.
pub async fn sources(
    client: &kube::Client,
    namespace: &str,
    wanted: &BTreeSet<Source>,
) -> Result<Sources, kube::Error> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let mut found = Sources::new();
    for source in wanted {
        let entries = match source {
            Source::ConfigMap(name) => maps.get_opt(name).await?.map(sources::config_map_entries),
            Source::Secret(name) => secrets.get_opt(name).await?.map(sources::secret_entries),
        };
        if let Some(entries) = entries {
            found.insert(source.clone(), entries);
        }
    }
    Ok(found)
}

/// The Services whose variables a pod of `namespace` gets.
pub async fn services(client: &kube::Client, namespace: &str) -> Result<Vec<Service>, kube::Error> {
    let own: Api<Service> = Api::namespaced(client.clone(), namespace);
    let mut list = own.list(&ListParams::default()).await?.items;
    if namespace != "default" {
        let default: Api<Service> = Api::namespaced(client.clone(), "default");
        list.extend(default.get_opt("kubernetes").await?);
    }
    Ok(list)
}

/// What became of a request about a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Done,
    /// The pod is gone, or another one has its name.
    Gone,
    /// Not now; ask again.
    Later,
}

/// Writes a pod's status, if it is still the same pod.
pub async fn write_status(client: &kube::Client, pod: &Pod, status: &PodStatus) -> Answer {
    let (api, name) = of(client, pod);
    let patch = status_patch(pod, status);
    let result = api
        .patch_status(name, &PatchParams::default(), &Patch::Strategic(&patch))
        .await;
    answer(result.map(drop), pod, "status not taken")
}

/// A strategic merge patch, as the kubelet's: of the conditions it has only our own, so that one which another writes at
/// the same moment (the scheduler, a readiness gate's owner) is not lost. Addresses are merged by the API unless told otherwise.
fn status_patch(pod: &Pod, status: &PodStatus) -> Value {
    let mut patch = json!({"metadata": {"uid": pod.metadata.uid}, "status": status});
    let fields = &mut patch["status"];
    if let Some(conditions) = fields["conditions"].as_array_mut() {
        conditions.retain(|c| {
            c["type"]
                .as_str()
                .is_some_and(|t| OWN_CONDITIONS.contains(&t))
        });
    }
    for list in ["podIPs", "hostIPs"] {
        if let Some(list) = fields[list].as_array_mut() {
            list.insert(0, json!({"$patch": "replace"}));
        }
    }
    patch
}

/// Confirms that a pod is no more, so that the API lets it go.
pub async fn confirm_deletion(client: &kube::Client, pod: &Pod) -> Answer {
    let (api, name) = of(client, pod);
    let params = DeleteParams::default()
        .grace_period(0)
        .preconditions(Preconditions {
            uid: pod.metadata.uid.clone(),
            resource_version: None,
        });
    let result = api.delete(name, &params).await;
    answer(result.map(drop), pod, "deletion not confirmed")
}

fn of<'a>(client: &kube::Client, pod: &'a Pod) -> (Api<Pod>, &'a str) {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    (Api::namespaced(client.clone(), namespace), name)
}

fn answer(result: Result<(), kube::Error>, pod: &Pod, what: &str) -> Answer {
    match result {
        Ok(()) => Answer::Done,
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Answer::Gone,
        Err(error) => {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            tracing::warn!(pod = name, %error, "{what}");
            Answer::Later
        }
    }
}
