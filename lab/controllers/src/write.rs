//! What a controller wants done: the only output of a decision.
//!
//! Writes are values. The [driver](crate::driver) sends them to the API server, the in-memory server
//! of [`crate::memory`] applies them to a [`World`](crate::World); a test compares them.

use k8s_openapi::api::core::v1::Namespace;

use crate::object::{Object, ObjectRef};

/// One request to the API server.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    Create(Object),
    /// Replaces the object; its resourceVersion guards against a lost update.
    Update(Object),
    /// Replaces the status subresource, guarded likewise.
    UpdateStatus(Object),
    Delete(Delete),
    /// Gives a pod its node (the `binding` subresource).
    Bind {
        namespace: String,
        pod: String,
        uid: String,
        node: String,
    },
    /// Replaces a namespace's `spec.finalizers` (the `finalize` subresource).
    Finalize(Box<Namespace>),
    /// Tells of the write before it: it is recorded if and when that was carried out.
    Event(Event),
}

/// A deletion, of exactly the incarnation the controller saw.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delete {
    pub target: ObjectRef,
    pub propagation: Option<Propagation>,
    /// `Some(0)` deletes a pod without asking its kubelet.
    pub grace_seconds: Option<i64>,
    /// Delete only if none of these exists when asked for one by one: what a controller sees may
    /// be a moment old, and an absent owner is a reason to delete that must be certain.
    pub if_absent: Vec<ObjectRef>,
}

/// What happens to the dependents of a deleted object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Background,
    Foreground,
}

impl Propagation {
    pub fn as_str(self) -> &'static str {
        match self {
            Propagation::Background => "Background",
            Propagation::Foreground => "Foreground",
        }
    }
}

/// Something a person would want to know about an object (`kubectl describe`, `kubectl events`).
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub regarding: ObjectRef,
    pub severity: Severity,
    /// CamelCase, for programs.
    pub reason: String,
    /// A sentence, for people.
    pub message: String,
    /// Which controller speaks.
    pub component: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Normal,
    Warning,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Normal => "Normal",
            Severity::Warning => "Warning",
        }
    }
}

impl Write {
    /// The object the write is about; an event is about nothing that could conflict.
    pub fn target(&self) -> Option<ObjectRef> {
        match self {
            Write::Create(object) | Write::Update(object) | Write::UpdateStatus(object) => {
                Some(object.reference())
            }
            Write::Delete(delete) => Some(delete.target.clone()),
            Write::Bind {
                namespace,
                pod,
                uid,
                ..
            } => Some(ObjectRef {
                api_version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                namespace: namespace.clone(),
                name: pod.clone(),
                uid: uid.clone(),
            }),
            Write::Finalize(namespace) => Some(Object::from((**namespace).clone()).reference()),
            Write::Event(_) => None,
        }
    }

    /// The request in a word, for logs and error messages.
    pub fn verb(&self) -> &'static str {
        match self {
            Write::Create(_) => "create",
            Write::Update(_) => "update",
            Write::UpdateStatus(_) => "update the status of",
            Write::Delete(_) => "delete",
            Write::Bind { .. } => "bind",
            Write::Finalize(_) => "finalize",
            Write::Event(_) => "record an event",
        }
    }

    pub(crate) fn event(
        regarding: ObjectRef,
        severity: Severity,
        component: &'static str,
        reason: &str,
        message: impl Into<String>,
    ) -> Write {
        Write::Event(Event {
            regarding,
            severity,
            reason: reason.to_owned(),
            message: message.into(),
            component,
        })
    }

    pub(crate) fn delete(target: ObjectRef) -> Write {
        Write::Delete(Delete {
            target,
            ..Delete::default()
        })
    }
}
