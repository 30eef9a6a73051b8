//! ConfigMaps and Secrets that a pod's environment and volumes are made of.
//!
//! Which ones a pod needs is read off its spec here, without asking anyone; fetching them is the pod's
//! task's business (`api`).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, Container, PodSpec, Secret};

/// The name of a ConfigMap or Secret in the pod's namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    ConfigMap(String),
    Secret(String),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::ConfigMap(name) => write!(f, "configmap {name:?}"),
            Source::Secret(name) => write!(f, "secret {name:?}"),
        }
    }
}

/// The entries of one of them.
pub type Entries = BTreeMap<String, Vec<u8>>;

/// What was found. A source that does not exist is not in it.
pub type Sources = BTreeMap<Source, Entries>;

/// The entries of a ConfigMap, text and binary.
pub fn config_map_entries(map: ConfigMap) -> Entries {
    let text = map.data.unwrap_or_default().into_iter();
    let binary = map.binary_data.unwrap_or_default().into_iter();
    text.map(|(k, v)| (k, v.into_bytes()))
        .chain(binary.map(|(k, v)| (k, v.0)))
        .collect()
}

/// The entries of a Secret.
pub fn secret_entries(secret: Secret) -> Entries {
    let data = secret.data.unwrap_or_default().into_iter();
    data.map(|(k, v)| (k, v.0)).collect()
}

/// The sources of a container's environment.
pub fn of_container(container: &Container) -> BTreeSet<Source> {
    let mut found = BTreeSet::new();
    for from in container.env_from.iter().flatten() {
        if let Some(r) = &from.config_map_ref {
            found.insert(Source::ConfigMap(r.name.clone()));
        }
        if let Some(r) = &from.secret_ref {
            found.insert(Source::Secret(r.name.clone()));
        }
    }
    for source in container
        .env
        .iter()
        .flatten()
        .filter_map(|e| e.value_from.as_ref())
    {
        if let Some(r) = &source.config_map_key_ref {
            found.insert(Source::ConfigMap(r.name.clone()));
        }
        if let Some(r) = &source.secret_key_ref {
            found.insert(Source::Secret(r.name.clone()));
        }
    }
    found
}

/// The sources of a pod's volumes.
pub fn of_volumes(spec: &PodSpec) -> BTreeSet<Source> {
    let mut found = BTreeSet::new();
    for volume in spec.volumes.iter().flatten() {
        if let Some(v) = &volume.config_map {
            found.insert(Source::ConfigMap(v.name.clone()));
        }
        if let Some(name) = volume.secret.as_ref().and_then(|v| v.secret_name.clone()) {
            found.insert(Source::Secret(name));
        }
        let projected = volume
            .projected
            .iter()
            .flat_map(|p| p.sources.iter().flatten());
        for source in projected {
            if let Some(p) = &source.config_map {
                found.insert(Source::ConfigMap(p.name.clone()));
            }
            if let Some(p) = &source.secret {
                found.insert(Source::Secret(p.name.clone()));
            }
        }
    }
    found
}
