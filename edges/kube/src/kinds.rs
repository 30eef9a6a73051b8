//! The API's kinds that the network depends on, and how each is read.

use std::fmt::Debug;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Resource;
use parfait_cluster::{Config, Key, Note, Object, ObjectName, Parsed, parse};
use serde::de::DeserializeOwned;

/// A kind that is read into the snapshot.
pub(crate) trait Kind:
    Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static
{
    /// What identifies this object in the snapshot; `None` if the network does not depend on it.
    fn key(&self) -> Option<Key>;

    /// The object, for the parser.
    fn parsed(&self) -> Parsed<'_>;

    /// Reads the object.
    fn read(&self) -> Option<(Key, Option<Object>, Vec<Note>)> {
        let (object, notes) = parse(self.parsed(), &config_yaml);
        Some((self.key()?, object, notes))
    }
}

/// Turns the configuration's YAML into a [`Config`].
///
/// # Errors
/// What is wrong with the text, with line and column.
pub fn config_yaml(text: &str) -> Result<Config, String> {
    serde_saphyr::from_str(text).map_err(|error| error.to_string())
}

fn name(object: &impl Resource) -> ObjectName {
    let meta = object.meta();
    ObjectName::new(
        meta.namespace.as_deref().unwrap_or_default(),
        meta.name.as_deref().unwrap_or_default(),
    )
}

macro_rules! kinds {
    ($($kind:ident => $key:expr;)*) => {
        $(impl Kind for $kind {
            fn key(&self) -> Option<Key> {
                let key: fn(ObjectName) -> Option<Key> = $key;
                key(name(self))
            }

            fn parsed(&self) -> Parsed<'_> {
                Parsed::$kind(self)
            }
        })*
    };
}

kinds! {
    ConfigMap => |name| (name == Config::object_name()).then_some(Key::Config);
    Namespace => |name| Some(Key::Namespace(name.name));
    Node => |name| Some(Key::Node(name.name));
    Pod => |name| Some(Key::Pod(name));
    Service => |name| Some(Key::Service(name));
    EndpointSlice => |name| Some(Key::EndpointSlice(name));
    NetworkPolicy => |name| Some(Key::NetworkPolicy(name));
}
