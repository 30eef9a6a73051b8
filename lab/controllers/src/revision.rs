//! ControllerRevisions: the pod templates a StatefulSet or DaemonSet has had.
//!
//! `kubectl rollout history` and `undo` read them, and a StatefulSet with a partition needs the old
//! template to make an old pod again. Shape as in Kubernetes: `data` is a patch of `spec.template`.

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::json;

use crate::names;
use crate::object::{Kind, controller_of, controller_reference, is_terminating, reference};
use crate::world::{World, name_of, namespace_of, uid_of};
use crate::write::Write;

/// The label that says from which revision a pod was made.
pub const HASH_LABEL: &str = "controller-revision-hash";

/// The name of the revision that holds a template.
pub fn name<K: Kind>(owner: &K, template: &PodTemplateSpec) -> String {
    format!("{}-{}", name_of(owner), names::template_hash(template))
}

/// The write without which `template` is not the newest revision; `None` when it is.
pub fn ensure<K: Kind>(world: &World, owner: &K, template: &PodTemplateSpec) -> Option<Write> {
    let name = name(owner, template);
    let known = owned(world, owner);
    let newest = known.iter().map(|r| r.revision).max().unwrap_or(0);
    match known.iter().find(|r| name_of(**r) == name) {
        Some(present) if present.revision == newest => None,
        Some(present) => {
            let mut present = (*present).clone();
            present.revision = newest + 1;
            Some(Write::Update(present.into()))
        }
        None => Some(Write::Create(new(owner, template, name, newest + 1).into())),
    }
}

/// The template a revision holds.
pub fn template(world: &World, namespace: &str, name: &str) -> Option<PodTemplateSpec> {
    let revision = world.find::<ControllerRevision>(namespace, name)?;
    let template = revision.data.as_ref()?.0.get("spec")?.get("template")?;
    serde_json::from_value(template.clone()).ok()
}

/// Deletes the oldest revisions beyond the limit that nothing uses.
pub fn clean_up<K: Kind>(world: &World, owner: &K, in_use: &[&str], limit: i32) -> Vec<Write> {
    let mut unused: Vec<&ControllerRevision> = owned(world, owner)
        .into_iter()
        .filter(|r| !is_terminating(&r.metadata))
        .filter(|r| !in_use.iter().any(|used| name_of(*r) == *used))
        .collect();
    unused.sort_by_key(|r| r.revision);
    let surplus = unused.len().saturating_sub(limit.max(0) as usize);
    unused
        .into_iter()
        .take(surplus)
        .map(|r| Write::delete(reference(r)))
        .collect()
}

fn owned<'a, K: Kind>(world: &'a World, owner: &'a K) -> Vec<&'a ControllerRevision> {
    world
        .in_namespace::<ControllerRevision>(namespace_of(owner))
        .filter(|r| controller_of(&r.metadata).is_some_and(|c| c.uid == uid_of(owner)))
        .collect()
}

fn new<K: Kind>(
    owner: &K,
    template: &PodTemplateSpec,
    name: String,
    revision: i64,
) -> ControllerRevision {
    let mut labels = template
        .metadata
        .as_ref()
        .and_then(|m| m.labels.clone())
        .unwrap_or_default();
    labels.insert(HASH_LABEL.to_owned(), names::template_hash(template));
    let mut data = json!({ "spec": { "template": template } });
    data["spec"]["template"]["$patch"] = json!("replace");
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: owner.metadata().namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data)),
        revision,
    }
}
