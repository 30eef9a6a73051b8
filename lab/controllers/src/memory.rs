//! A small API server in memory: applies [`Write`]s to a [`World`].
//!
//! It keeps the rules that controllers lean on: resourceVersion conflicts, generations, uids, finalizers,
//! grace periods. [`crate::simulate()`] uses it in place of a cluster, and so do the tests of every controller. It
//! does not validate, and it allocates no Service addresses.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use crate::names;
use crate::object::{Object, ObjectRef};
use crate::pods;
use crate::world::World;
use crate::write::{Delete, Event, Propagation, Write};

/// Why a write was refused, as an API server would.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{0} already exists")]
    AlreadyExists(ObjectRef),
    #[error("{0} does not exist")]
    NotFound(ObjectRef),
    #[error("{0} has been changed or replaced meanwhile")]
    Conflict(ObjectRef),
}

/// A world that writes can be applied to.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    pub world: World,
    /// Every event recorded, in order.
    pub events: Vec<Event>,
    revision: u64,
}

impl Memory {
    /// Takes a world in, giving every object the metadata an API server would have given it.
    pub fn new(world: World, now: Timestamp) -> Memory {
        let mut memory = Memory {
            world: World {
                listed: world.listed.clone(),
                watching_since: world.watching_since,
                ..World::default()
            },
            ..Memory::default()
        };
        let values = world.to_values();
        for object in values
            .into_iter()
            .filter_map(|value| Object::parse(value).ok())
        {
            let (created, generation) = (
                object.meta().creation_timestamp.clone(),
                object.meta().generation,
            );
            let uid = object.meta().uid.clone();
            let mut object = memory.admit(object, now);
            let meta = object.meta_mut();
            meta.creation_timestamp = created.or(meta.creation_timestamp.take());
            meta.generation = generation.or(meta.generation);
            meta.uid = uid.or(meta.uid.take());
            memory.world.insert(object);
        }
        memory
    }

    pub fn apply(&mut self, write: &Write, now: Timestamp) -> Result<(), Refusal> {
        match write {
            Write::Create(object) => self.create(object.clone(), now),
            Write::Update(object) => self.update(object.clone()),
            Write::UpdateStatus(object) => self.update_status(object),
            Write::Delete(delete) => self.delete(delete, now),
            Write::Bind {
                namespace,
                pod,
                node,
                uid,
            } => self.bind(namespace, pod, uid, node, now),
            Write::Finalize(namespace) => self.finalize(namespace),
            Write::Event(event) => {
                self.events.push(event.clone());
                Ok(())
            }
        }
    }

    /// Changes one pod as its kubelet would.
    pub fn change_pod(&mut self, namespace: &str, name: &str, change: impl FnOnce(&mut Pod)) {
        let key = (namespace.to_owned(), name.to_owned());
        let Some(before) = self.world.pods.get(&key) else {
            return;
        };
        let mut pod = before.clone();
        change(&mut pod);
        if pod != *before {
            pod.metadata.resource_version = Some(self.next_version());
            self.world.pods.insert(key, pod);
        }
    }

    fn next_version(&mut self) -> String {
        self.revision += 1;
        self.revision.to_string()
    }

    /// The metadata and defaults of a new object.
    fn admit(&mut self, mut object: Object, now: Timestamp) -> Object {
        let version = self.next_version();
        let (kind, namespace, name) = (
            object.kind().to_owned(),
            object.namespace().to_owned(),
            object.name().to_owned(),
        );
        match &mut object {
            Object::Pod(pod) => {
                let status = pod.status.get_or_insert_with(PodStatus::default);
                status.phase.get_or_insert_with(|| "Pending".to_owned());
            }
            Object::Namespace(namespace) => {
                let spec = namespace.spec.get_or_insert_default();
                spec.finalizers
                    .get_or_insert_with(|| vec!["kubernetes".to_owned()]);
            }
            _ => {}
        }
        let meta = object.meta_mut();
        meta.uid = Some(uid(&[&kind, &namespace, &name, &version]));
        meta.resource_version = Some(version);
        meta.creation_timestamp = Some(Time(now));
        meta.generation = Some(1);
        object
    }

    fn create(&mut self, object: Object, now: Timestamp) -> Result<(), Refusal> {
        if self.world.object(&object.reference()).is_some() {
            return Err(Refusal::AlreadyExists(object.reference()));
        }
        let object = self.admit(object, now);
        self.world.insert(object);
        Ok(())
    }

    /// The stored object, if it is the incarnation and the version that is meant.
    fn stored(&self, target: &ObjectRef, version: Option<&String>) -> Result<Object, Refusal> {
        let stored = self
            .world
            .object(target)
            .ok_or_else(|| Refusal::NotFound(target.clone()))?;
        let other_incarnation = !target.uid.is_empty() && stored.uid() != target.uid;
        let other_version = version.is_some() && version != stored.meta().resource_version.as_ref();
        if other_incarnation || other_version {
            return Err(Refusal::Conflict(target.clone()));
        }
        Ok(stored)
    }

    fn update(&mut self, mut object: Object) -> Result<(), Refusal> {
        let target = object.reference();
        let stored = self.stored(&target, object.meta().resource_version.as_ref())?;
        let (before, after) = (stored.to_value(), object.to_value());
        let generation =
            stored.meta().generation.unwrap_or(0) + i64::from(before["spec"] != after["spec"]);
        object.meta_mut().generation = Some(generation);
        self.store(object);
        Ok(())
    }

    fn update_status(&mut self, object: &Object) -> Result<(), Refusal> {
        let target = object.reference();
        let stored = self.stored(&target, object.meta().resource_version.as_ref())?;
        let mut value = stored.to_value();
        value["status"] = object.to_value()["status"].take();
        if let Ok(changed) = Object::parse(value) {
            self.store(changed);
        }
        Ok(())
    }

    /// Stores a new version, or removes an object whose deletion nothing holds any more.
    fn store(&mut self, mut object: Object) {
        object.meta_mut().resource_version = Some(self.next_version());
        if object.meta().deletion_timestamp.is_some() && !is_held(&object) {
            self.world.remove(&object.reference());
        } else {
            self.world.insert(object);
        }
    }

    fn delete(&mut self, delete: &Delete, now: Timestamp) -> Result<(), Refusal> {
        let exists = |wanted: &ObjectRef| {
            let found = self.world.object(wanted);
            found.is_some_and(|found| wanted.uid.is_empty() || found.uid() == wanted.uid)
        };
        if delete.if_absent.iter().any(exists) {
            return Ok(());
        }
        let mut object = self.stored(&delete.target, None)?;
        let grace = match &object {
            Object::Pod(pod) if pods::node_name(pod).is_some() && !pods::is_finished(pod) => {
                delete.grace_seconds.unwrap_or(30)
            }
            _ => 0,
        };
        let meta = object.meta_mut();
        if delete.propagation == Some(Propagation::Foreground) {
            let finalizers = meta.finalizers.get_or_insert_default();
            if !finalizers.iter().any(|f| f == "foregroundDeletion") {
                finalizers.push("foregroundDeletion".to_owned());
            }
        }
        meta.deletion_timestamp.get_or_insert(Time(now));
        meta.deletion_grace_period_seconds = Some(grace);
        // Asking again for what is already under way changes nothing.
        if !is_held(&object) || self.world.object(&delete.target).as_ref() != Some(&object) {
            self.store(object);
        }
        Ok(())
    }

    fn bind(
        &mut self,
        namespace: &str,
        name: &str,
        uid: &str,
        node: &str,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let target = ObjectRef {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
        };
        let Object::Pod(mut pod) = self.stored(&target, None)? else {
            return Err(Refusal::NotFound(target));
        };
        if pods::node_name(&pod).is_some() {
            return Err(Refusal::Conflict(target));
        }
        pod.spec.get_or_insert_default().node_name = Some(node.to_owned());
        let condition = PodCondition {
            type_: "PodScheduled".to_owned(),
            status: "True".to_owned(),
            ..PodCondition::default()
        };
        pods::set_condition(&mut pod, condition, now);
        self.store(Object::Pod(pod));
        Ok(())
    }

    fn finalize(&mut self, namespace: &Namespace) -> Result<(), Refusal> {
        let object = Object::from(namespace.clone());
        let stored = self.stored(
            &object.reference(),
            namespace.metadata.resource_version.as_ref(),
        )?;
        let Object::Namespace(mut stored) = stored else {
            return Err(Refusal::NotFound(object.reference()));
        };
        stored.spec = namespace.spec.clone();
        self.store(Object::Namespace(stored));
        Ok(())
    }
}

/// Whether something still stands between a deleted object and its end.
fn is_held(object: &Object) -> bool {
    let meta: &ObjectMeta = object.meta();
    let finalizers = meta.finalizers.as_ref().is_some_and(|f| !f.is_empty());
    let inner = match object {
        Object::Namespace(namespace) => {
            let spec = namespace.spec.as_ref().and_then(|s| s.finalizers.as_ref());
            spec.is_some_and(|f| !f.is_empty())
        }
        Object::Pod(_) => meta.deletion_grace_period_seconds.unwrap_or(0) > 0,
        _ => false,
    };
    finalizers || inner
}

/// A uid that looks like one and depends only on what it is for.
fn uid(parts: &[&str]) -> String {
    let letters = names::suffix(20, parts);
    let hex: String = letters
        .bytes()
        .map(|b| char::from(b"0123456789abcdef"[usize::from(b) % 16]))
        .collect();
    let tail = names::suffix(12, &[&letters, "tail"]);
    let tail: String = tail
        .bytes()
        .map(|b| char::from(b"0123456789abcdef"[usize::from(b) % 16]))
        .collect();
    format!(
        "{}-{}-4{}-8{}-{tail}",
        &hex[..8],
        &hex[8..12],
        &hex[12..15],
        &hex[15..18]
    )
}
