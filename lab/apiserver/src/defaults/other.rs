//! Defaults of the small kinds.

use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolumeClaim, Secret};

use super::or_text;

/// Namespace: its own name as a label, and the finalizer that keeps it until it is empty.
pub fn namespace(object: &mut Namespace) {
    if let Some(name) = object.metadata.name.clone() {
        let labels = object.metadata.labels.get_or_insert_default();
        labels.insert("kubernetes.io/metadata.name".to_owned(), name);
    }
    // Only a namespace that is not on its way out gets it: the controller takes it off at the end.
    let staying = object.metadata.deletion_timestamp.is_none();
    let spec = object.spec.get_or_insert_default();
    if staying && spec.finalizers.as_ref().is_none_or(Vec::is_empty) {
        spec.finalizers = Some(vec!["kubernetes".to_owned()]);
    }
}

/// Secret: `stringData` is written into `data` and not kept.
pub fn secret(object: &mut Secret) {
    or_text(&mut object.type_, "Opaque");
    for (key, text) in object.string_data.take().into_iter().flatten() {
        object
            .data
            .get_or_insert_default()
            .insert(key, k8s_openapi::ByteString(text.into_bytes()));
    }
}

/// PersistentVolumeClaim.
pub fn persistent_volume_claim(object: &mut PersistentVolumeClaim) {
    if let Some(spec) = object.spec.as_mut() {
        or_text(&mut spec.volume_mode, "Filesystem");
    }
}

/// Node: the old single range and the list of ranges say the same.
pub fn node(object: &mut Node) {
    let spec = object.spec.get_or_insert_default();
    match (
        &spec.pod_cidr,
        spec.pod_cidrs.as_ref().and_then(|list| list.first()),
    ) {
        (Some(one), None) if !one.is_empty() => spec.pod_cidrs = Some(vec![one.clone()]),
        (None, Some(first)) => spec.pod_cidr = Some(first.clone()),
        _ => {}
    }
}
