//! Namespace deletion: first everything in it, then the namespace itself.
//!
//! A namespace carries the finalizer `kubernetes` in its spec, so that a deletion only marks it. This
//! controller deletes what is inside, of every kind the cluster has, and takes the finalizer away when nothing
//! is left; an object with a finalizer of its own holds the namespace until its owner lets go.

use k8s_openapi::api::core::v1::Namespace;

use crate::object::{ObjectRef, is_terminating};
use crate::world::{View, World, name_of};
use crate::write::Write;

const FINALIZER: &str = "kubernetes";

pub fn step(world: &World) -> Vec<Write> {
    let ending: Vec<&Namespace> = world
        .namespaces
        .values()
        .filter(|ns| is_terminating(&ns.metadata))
        .collect();
    if ending.is_empty() {
        return Vec::new();
    }
    let views = world.views();
    ending
        .into_iter()
        .flat_map(|namespace| empty(namespace, &views))
        .collect()
}

fn empty(namespace: &Namespace, views: &[View]) -> Vec<Write> {
    let finalizers = namespace
        .spec
        .as_ref()
        .and_then(|s| s.finalizers.as_deref())
        .unwrap_or_default();
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        return Vec::new();
    }
    let inside: Vec<&View> = views
        .iter()
        .filter(|view| view.meta.namespace.as_deref() == Some(name_of(namespace)))
        .collect();
    if inside.is_empty() {
        let mut namespace = namespace.clone();
        let spec = namespace.spec.get_or_insert_default();
        let finalizers = spec.finalizers.get_or_insert_default();
        finalizers.retain(|finalizer| finalizer != FINALIZER);
        return vec![Write::Finalize(Box::new(namespace))];
    }
    inside
        .into_iter()
        .filter(|view| !is_terminating(view.meta))
        .map(|view| Write::delete(view_reference(view)))
        .collect()
}

pub(crate) fn view_reference(view: &View) -> ObjectRef {
    ObjectRef {
        api_version: view.api_version.to_owned(),
        kind: view.kind.to_owned(),
        namespace: view.meta.namespace.clone().unwrap_or_default(),
        name: view.meta.name.clone().unwrap_or_default(),
        uid: view.meta.uid.clone().unwrap_or_default(),
    }
}
