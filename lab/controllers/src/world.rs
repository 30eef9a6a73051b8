//! What the controllers see: every object of the cluster, by kind, namespace and name.
//!
//! A [`World`] is plain data. In a running lab the [driver](crate::driver) keeps it equal to the API
//! server's state; offline, [`crate::simulate()`] fills it from a folder of YAML. Every controller is
//! a function of it, so that the same decisions run in both.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::Metadata;
use k8s_openapi::api::apps::v1::{
    ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet,
};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DynamicObject;
use serde_json::Value;

use crate::object::{Kind, Object, ObjectError, ObjectRef, for_each_kind, group_of};

/// `(namespace, name)`; the namespace is empty for cluster-scoped objects.
pub type Key = (String, String);

/// All objects of one kind.
pub type Store<K> = BTreeMap<Key, K>;

/// Identity and metadata of an object of whatever kind.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
    pub meta: &'a ObjectMeta,
}

macro_rules! define_world {
    ($($variant:ident $field:ident,)*) => {
        /// All objects the controllers can see.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct World {
            $(pub $field: Store<$variant>,)*
            /// Objects of kinds that no controller decides about, by `(apiVersion, kind, key)`.
            pub others: BTreeMap<(String, String, Key), DynamicObject>,
            /// `(group, kind)` of the other kinds that are listed completely: only of these may
            /// the garbage collector conclude that an owner is absent.
            pub listed: BTreeSet<(String, String)>,
            /// Since when this world has been watched without a gap. What was silent while nobody
            /// listened is not to blame for it.
            pub watching_since: Option<Timestamp>,
        }

        impl World {
            /// Adds or replaces one object.
            pub fn insert(&mut self, object: Object) {
                let key = key_of(object.meta());
                match object {
                    $(Object::$variant(o) => { self.$field.insert(key, *o); })*
                    Object::Other(o) => {
                        let types = o.types.clone().unwrap_or_default();
                        self.others.insert((types.api_version, types.kind, key), *o);
                    }
                }
            }

            /// Removes one object, whichever its incarnation, and returns it.
            pub fn remove(&mut self, object: &ObjectRef) -> Option<Object> {
                let key = (object.namespace.clone(), object.name.clone());
                match (object.api_version.as_str(), object.kind.as_str()) {
                    $((<$variant as k8s_openapi::Resource>::API_VERSION, stringify!($variant)) =>
                        self.$field.remove(&key).map(Object::from),)*
                    (api_version, kind) => self
                        .others
                        .remove(&(api_version.to_owned(), kind.to_owned(), key))
                        .map(|o| Object::Other(Box::new(o))),
                }
            }

            /// A copy of one object, whichever its incarnation.
            pub fn object(&self, object: &ObjectRef) -> Option<Object> {
                let key = (object.namespace.clone(), object.name.clone());
                match (object.api_version.as_str(), object.kind.as_str()) {
                    $((<$variant as k8s_openapi::Resource>::API_VERSION, stringify!($variant)) =>
                        self.$field.get(&key).cloned().map(Object::from),)*
                    (api_version, kind) => self
                        .others
                        .get(&(api_version.to_owned(), kind.to_owned(), key))
                        .map(|o| Object::Other(Box::new(o.clone()))),
                }
            }

            /// Every object's identity and metadata, ordered by kind and key.
            pub fn views(&self) -> Vec<View<'_>> {
                let mut views = Vec::new();
                $(views.extend(self.$field.values().map(|o| View {
                    api_version: <$variant as k8s_openapi::Resource>::API_VERSION,
                    kind: <$variant as k8s_openapi::Resource>::KIND,
                    meta: &o.metadata,
                }));)*
                views.extend(self.others.iter().map(|((api_version, kind, _), o)| View {
                    api_version,
                    kind,
                    meta: &o.metadata,
                }));
                views
            }

            /// Every object as the API carries it, ordered by kind and key.
            pub fn to_values(&self) -> Vec<Value> {
                let mut values = Vec::new();
                $(values.extend(self.$field.values().cloned().map(|o| Object::from(o).to_value()));)*
                values.extend(self.others.values().cloned().map(|o| Object::Other(Box::new(o)).to_value()));
                values
            }

            /// Whether all objects of a kind are in the world.
            pub fn is_listed(&self, api_version: &str, kind: &str) -> bool {
                let group = group_of(api_version);
                match (group, kind) {
                    $((<$variant as k8s_openapi::Resource>::GROUP, stringify!($variant)) => true,)*
                    _ => self.listed.contains(&(group.to_owned(), kind.to_owned())),
                }
            }
        }
    };
}
for_each_kind!(define_world);

impl World {
    /// Adds one object in its JSON form. A kind that no controller knows is kept in
    /// [`World::others`] and the returned note says so; a malformed object is an error.
    pub fn insert_value(&mut self, value: Value) -> Result<Option<String>, ObjectError> {
        let object = Object::parse(value)?;
        let note = match &object {
            Object::Other(_) if !is_passive(object.api_version(), object.kind()) => Some(format!(
                "{} ({}) is kept, but no controller of the lab acts on this kind",
                object.reference(),
                object.api_version()
            )),
            _ => None,
        };
        self.insert(object);
        Ok(note)
    }

    /// The objects of one kind in one namespace, by name.
    pub fn in_namespace<'a, K: Kind + 'a>(
        &'a self,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a K> + 'a {
        K::store(self)
            .range((namespace.to_owned(), String::new())..)
            .take_while(move |((ns, _), _)| ns == namespace)
            .map(|(_, object)| object)
    }

    pub fn find<K: Kind>(&self, namespace: &str, name: &str) -> Option<&K> {
        K::store(self).get(&(namespace.to_owned(), name.to_owned()))
    }

    /// Whether new objects may be created in the namespace: it exists and is not being deleted.
    pub fn accepts_new(&self, namespace: &str) -> bool {
        self.find::<Namespace>("", namespace)
            .is_some_and(|ns| ns.metadata.deletion_timestamp.is_none())
    }
}

/// Kinds that are only read by somebody else, so that no controller need act on them.
pub(crate) fn is_passive(api_version: &str, kind: &str) -> bool {
    let group = group_of(api_version);
    match group {
        "" => !matches!(kind, "ReplicationController" | "PersistentVolumeClaim"),
        "networking.k8s.io" | "rbac.authorization.k8s.io" | "events.k8s.io" => true,
        "gateway.networking.k8s.io" | "policy.networking.k8s.io" | "parfait.dev" => true,
        "apiextensions.k8s.io" | "storage.k8s.io" | "scheduling.k8s.io" => true,
        _ => false,
    }
}

pub(crate) fn key_of(meta: &ObjectMeta) -> Key {
    (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

pub(crate) fn name_of<K: Metadata<Ty = ObjectMeta>>(object: &K) -> &str {
    object.metadata().name.as_deref().unwrap_or_default()
}

pub(crate) fn namespace_of<K: Metadata<Ty = ObjectMeta>>(object: &K) -> &str {
    object.metadata().namespace.as_deref().unwrap_or_default()
}

pub(crate) fn uid_of<K: Metadata<Ty = ObjectMeta>>(object: &K) -> &str {
    object.metadata().uid.as_deref().unwrap_or_default()
}
