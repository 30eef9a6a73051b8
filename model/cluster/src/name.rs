//! [`ObjectName`]: namespace and name, which identify an object among those of its kind.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An object's namespace and name. Sorts by namespace, then name, as `kubectl get -A` does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectName {
    /// The namespace, never empty.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl ObjectName {
    /// The namespace of an object that names none.
    pub const DEFAULT_NAMESPACE: &'static str = "default";

    /// A name in a namespace; an empty namespace means `default`.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        let namespace = match namespace {
            "" => Self::DEFAULT_NAMESPACE,
            given => given,
        };
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
