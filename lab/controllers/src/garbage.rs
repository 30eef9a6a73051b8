//! The garbage collector: an object goes when all its owners are gone.
//!
//! Three ways to delete an owner, as `kubectl delete --cascade` names them:
//!
//! * `background`: the owner goes at once and its dependents follow;
//! * `foreground`: the finalizer `foregroundDeletion` holds the owner until every dependent with
//!   `blockOwnerDeletion` is gone;
//! * `orphan`: the finalizer `orphan` holds the owner until its dependents no longer name it.
//!
//! An owner counts as gone only where all objects of its kind are known to the [`World`], and the driver
//! asks for it once more by name before anything is deleted for its sake.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::namespace::view_reference;
use crate::object::{Object, ObjectRef, is_terminating};
use crate::world::{View, World};
use crate::write::{Delete, Propagation, Write};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

pub fn step(world: &World) -> Vec<Write> {
    let views = world.views();
    let by_uid: BTreeMap<&str, &View> = views
        .iter()
        .filter_map(|view| Some((view.meta.uid.as_deref()?, view)))
        .collect();
    let mut dependents: BTreeMap<&str, Vec<&View>> = BTreeMap::new();
    for view in &views {
        for owner in view.meta.owner_references.iter().flatten() {
            dependents.entry(owner.uid.as_str()).or_default().push(view);
        }
    }
    let of = |meta: &ObjectMeta| {
        meta.uid
            .as_deref()
            .and_then(|uid| dependents.get(uid))
            .map_or(&[][..], Vec::as_slice)
    };
    let mut writes = Vec::new();
    for view in &views {
        if is_terminating(view.meta) && has_finalizer(view.meta, ORPHAN) {
            writes.extend(orphan(world, view, of(view.meta)));
        } else if is_terminating(view.meta) && has_finalizer(view.meta, FOREGROUND) {
            writes.extend(release(world, view, of(view.meta)));
        } else if view
            .meta
            .owner_references
            .as_ref()
            .is_some_and(|owners| !owners.is_empty())
        {
            writes.extend(collect(world, view, &by_uid, !of(view.meta).is_empty()));
        }
    }
    writes
}

fn has_finalizer(meta: &ObjectMeta, name: &str) -> bool {
    meta.finalizers
        .iter()
        .flatten()
        .any(|finalizer| finalizer == name)
}

/// How an owner reference stands.
#[derive(PartialEq)]
enum Owner {
    /// It exists, or nobody can say that it does not.
    Solid,
    /// It is being deleted in the foreground and waits for this dependent.
    Waiting,
    Absent,
}

fn collect(
    world: &World,
    view: &View,
    by_uid: &BTreeMap<&str, &View>,
    has_dependents: bool,
) -> Option<Write> {
    if is_terminating(view.meta) {
        return None;
    }
    let state = |owner: &OwnerReference| match by_uid.get(owner.uid.as_str()) {
        Some(present)
            if is_terminating(present.meta) && has_finalizer(present.meta, FOREGROUND) =>
        {
            Owner::Waiting
        }
        Some(_) => Owner::Solid,
        None if world.is_listed(&owner.api_version, &owner.kind) => Owner::Absent,
        None => Owner::Solid,
    };
    let owners = view.meta.owner_references.as_deref().unwrap_or_default();
    let states: Vec<Owner> = owners.iter().map(state).collect();
    if states.contains(&Owner::Solid) {
        // Some owner still wants it; the others are struck from the list.
        if !states.contains(&Owner::Absent) {
            return None;
        }
        let mut object = world.object(&view_reference(view))?;
        let mut states = states.into_iter();
        keep(&mut object.meta_mut().owner_references, |_| {
            states.next() != Some(Owner::Absent)
        });
        return Some(Write::Update(object));
    }
    let absent = owners
        .iter()
        .zip(&states)
        .filter(|(_, state)| **state == Owner::Absent);
    let if_absent = absent
        .map(|(owner, _)| owner_reference(world, view, owner))
        .collect();
    let foreground = states.contains(&Owner::Waiting) && has_dependents;
    let propagation = if foreground {
        Propagation::Foreground
    } else {
        Propagation::Background
    };
    Some(Write::Delete(Delete {
        target: view_reference(view),
        propagation: Some(propagation),
        grace_seconds: None,
        if_absent,
    }))
}

/// An owner is in its dependent's namespace or in none.
fn owner_reference(world: &World, view: &View, owner: &OwnerReference) -> ObjectRef {
    let cluster_scoped = crate::object::known_kinds().iter().any(|kind| {
        kind.kind == owner.kind && kind.api_version() == owner.api_version && !kind.namespaced
    }) || world
        .others
        .keys()
        .any(|(api_version, kind, (namespace, _))| {
            *api_version == owner.api_version && *kind == owner.kind && namespace.is_empty()
        });
    let namespace = view.meta.namespace.clone().filter(|_| !cluster_scoped);
    ObjectRef {
        api_version: owner.api_version.clone(),
        kind: owner.kind.clone(),
        namespace: namespace.unwrap_or_default(),
        name: owner.name.clone(),
        uid: owner.uid.clone(),
    }
}

/// Foreground: the owner may go when no dependent blocks it.
fn release(world: &World, owner: &View, dependents: &[&View]) -> Option<Write> {
    let blocks = |view: &&&View| {
        let references = view.meta.owner_references.iter().flatten();
        references
            .filter(|reference| Some(reference.uid.as_str()) == owner.meta.uid.as_deref())
            .any(|reference| reference.block_owner_deletion == Some(true))
    };
    if dependents.iter().find(blocks).is_some() {
        return None;
    }
    without_finalizer(world, owner, FOREGROUND)
}

/// Orphan: the dependents forget the owner, then it goes.
fn orphan(world: &World, owner: &View, dependents: &[&View]) -> Vec<Write> {
    if dependents.is_empty() {
        return without_finalizer(world, owner, ORPHAN)
            .into_iter()
            .collect();
    }
    let forget = |view: &&View| -> Option<Object> {
        let mut object = world.object(&view_reference(view))?;
        keep(&mut object.meta_mut().owner_references, |reference| {
            Some(reference.uid.as_str()) != owner.meta.uid.as_deref()
        });
        Some(object)
    };
    dependents
        .iter()
        .filter_map(forget)
        .map(Write::Update)
        .collect()
}

fn without_finalizer(world: &World, view: &View, name: &str) -> Option<Write> {
    let mut object = world.object(&view_reference(view))?;
    keep(&mut object.meta_mut().finalizers, |finalizer| {
        finalizer != name
    });
    Some(Write::Update(object))
}

/// Drops items from a list; an empty list is spelled by its absence.
fn keep<T>(list: &mut Option<Vec<T>>, wanted: impl FnMut(&T) -> bool) {
    if let Some(items) = list {
        items.retain(wanted);
    }
    if list.as_ref().is_some_and(Vec::is_empty) {
        *list = None;
    }
}
