//! One Kubernetes object of any kind.
//!
//! The controllers work on the types of `k8s-openapi`; this file gives those types one shape, so
//! that a write, a store and the garbage collector need not know the kind. Kinds that no controller
//! decides about (Secrets, NetworkPolicies, custom resources, …) travel as [`Object::Other`]: they
//! are kept, deleted with their namespace and collected with their owner, never interpreted.
//!
//! The list of kinds stands once, in `for_each_kind`; [`crate::World`] has one store for each.

use k8s_openapi::api::apps::v1::{
    ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet,
};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::{ClusterResourceScope, Metadata, NamespaceResourceScope, Resource};
use kube::api::DynamicObject;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::world::{Store, World};

/// Calls the macro `$then` with every kind that the controllers know by type:
/// `Variant store_field`.
macro_rules! for_each_kind {
    ($then:ident) => {
        $then! {
            Namespace namespaces,
            Node nodes,
            Pod pods,
            Service services,
            ServiceAccount service_accounts,
            ConfigMap config_maps,
            EndpointSlice endpoint_slices,
            Deployment deployments,
            ReplicaSet replica_sets,
            StatefulSet stateful_sets,
            DaemonSet daemon_sets,
            ControllerRevision controller_revisions,
            Lease leases,
            Job jobs,
        }
    };
}
pub(crate) use for_each_kind;

/// A value that is not a usable Kubernetes object.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    #[error(
        "the object has no `{field}`; every Kubernetes object needs apiVersion, kind and metadata.name"
    )]
    MissingField { field: &'static str },
    #[error(
        "{kind} {name:?} does not have the shape of {api_version} {kind}: {source}; compare it with `kubectl explain {kind}`"
    )]
    Malformed {
        api_version: String,
        kind: String,
        name: String,
        source: serde_json::Error,
    },
}

/// What a kind must offer to be stored and written.
pub trait Kind:
    Resource + Metadata<Ty = ObjectMeta> + Clone + PartialEq + Serialize + DeserializeOwned
{
    /// Whether objects of this kind live in a namespace.
    const NAMESPACED: bool;
    fn store(world: &World) -> &Store<Self>;
    fn store_mut(world: &mut World) -> &mut Store<Self>;
    fn into_object(self) -> Object;
}

/// The scope of a `k8s-openapi` kind as a constant.
pub trait Scope {
    const NAMESPACED: bool;
}
impl Scope for NamespaceResourceScope {
    const NAMESPACED: bool = true;
}
impl Scope for ClusterResourceScope {
    const NAMESPACED: bool = false;
}

/// What the API server needs to know to find a kind's URL.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KindInfo {
    /// Empty for the core group.
    pub group: String,
    pub version: String,
    pub kind: String,
    pub plural: String,
    pub namespaced: bool,
}

impl KindInfo {
    /// `v1`, `apps/v1`, …
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }
}

/// The group of an `apiVersion`: empty for the core group.
pub fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// Names one object, and with `uid` one incarnation of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectRef {
    pub api_version: String,
    pub kind: String,
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    pub name: String,
    /// Empty where any incarnation is meant.
    pub uid: String,
}

impl std::fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

macro_rules! define_object {
    ($($variant:ident $field:ident,)*) => {
        /// An object of a kind the controllers know, or of any other kind.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Object {
            $($variant(Box<$variant>),)*
            Other(Box<DynamicObject>),
        }

        impl Object {
            /// Parses one object from its JSON form. Unknown kinds become [`Object::Other`].
            pub fn parse(value: Value) -> Result<Object, ObjectError> {
                let text = |field: &'static str| {
                    value[field].as_str().map(str::to_owned).ok_or(ObjectError::MissingField { field })
                };
                let (api_version, kind) = (text("apiVersion")?, text("kind")?);
                let name = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                if name.is_empty() {
                    return Err(ObjectError::MissingField { field: "metadata.name" });
                }
                let parsed = match (api_version.as_str(), kind.as_str()) {
                    $((<$variant as Resource>::API_VERSION, <$variant as Resource>::KIND) =>
                        serde_json::from_value::<$variant>(value).map(|o| Object::$variant(Box::new(o))),)*
                    _ => serde_json::from_value::<DynamicObject>(value).map(|o| Object::Other(Box::new(o))),
                };
                parsed.map_err(|source| ObjectError::Malformed { api_version, kind, name, source })
            }

            pub fn meta(&self) -> &ObjectMeta {
                match self {
                    $(Object::$variant(o) => &o.metadata,)*
                    Object::Other(o) => &o.metadata,
                }
            }

            pub fn meta_mut(&mut self) -> &mut ObjectMeta {
                match self {
                    $(Object::$variant(o) => &mut o.metadata,)*
                    Object::Other(o) => &mut o.metadata,
                }
            }

            pub fn api_version(&self) -> &str {
                match self {
                    $(Object::$variant(_) => <$variant as Resource>::API_VERSION,)*
                    Object::Other(o) => o.types.as_ref().map_or("", |t| t.api_version.as_str()),
                }
            }

            pub fn kind(&self) -> &str {
                match self {
                    $(Object::$variant(_) => <$variant as Resource>::KIND,)*
                    Object::Other(o) => o.types.as_ref().map_or("", |t| t.kind.as_str()),
                }
            }

            /// The object as the API carries it.
            pub fn to_value(&self) -> Value {
                let value = match self {
                    $(Object::$variant(o) => serde_json::to_value(o),)*
                    Object::Other(o) => serde_json::to_value(o),
                };
                // Serialising a plain struct of strings, numbers and maps cannot fail.
                value.unwrap_or(Value::Null)
            }
        }

        $(impl Kind for $variant {
            const NAMESPACED: bool = <<$variant as Resource>::Scope as Scope>::NAMESPACED;
            fn store(world: &World) -> &Store<Self> { &world.$field }
            fn store_mut(world: &mut World) -> &mut Store<Self> { &mut world.$field }
            fn into_object(self) -> Object { Object::$variant(Box::new(self)) }
        })*

        /// The kinds every controller needs, for whoever fills a [`World`].
        pub fn known_kinds() -> Vec<KindInfo> {
            vec![$(KindInfo {
                group: <$variant as Resource>::GROUP.to_owned(),
                version: <$variant as Resource>::VERSION.to_owned(),
                kind: <$variant as Resource>::KIND.to_owned(),
                plural: <$variant as Resource>::URL_PATH_SEGMENT.to_owned(),
                namespaced: <$variant as Kind>::NAMESPACED,
            },)*]
        }
    };
}
for_each_kind!(define_object);

impl Object {
    pub fn name(&self) -> &str {
        self.meta().name.as_deref().unwrap_or_default()
    }

    pub fn namespace(&self) -> &str {
        self.meta().namespace.as_deref().unwrap_or_default()
    }

    pub fn uid(&self) -> &str {
        self.meta().uid.as_deref().unwrap_or_default()
    }

    pub fn reference(&self) -> ObjectRef {
        ObjectRef {
            api_version: self.api_version().to_owned(),
            kind: self.kind().to_owned(),
            namespace: self.namespace().to_owned(),
            name: self.name().to_owned(),
            uid: self.uid().to_owned(),
        }
    }
}

impl<K: Kind> From<K> for Object {
    fn from(object: K) -> Object {
        object.into_object()
    }
}

/// The reference of a typed object.
pub fn reference<K: Kind>(object: &K) -> ObjectRef {
    let meta = object.metadata();
    ObjectRef {
        api_version: K::API_VERSION.to_owned(),
        kind: K::KIND.to_owned(),
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
    }
}

/// The owner reference with which `owner` controls its children.
pub fn controller_reference<K: Kind>(owner: &K) -> OwnerReference {
    let meta = owner.metadata();
    OwnerReference {
        api_version: K::API_VERSION.to_owned(),
        kind: K::KIND.to_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The one owner that controls the object, if any.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true))
}

/// Whether someone asked for the object's deletion.
pub fn is_terminating(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some()
}
