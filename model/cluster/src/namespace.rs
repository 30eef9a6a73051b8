//! [`Namespace`]: a part of the cluster, known to policies by its labels.

use std::collections::BTreeMap;

use parfait_packet::{Kind, Origin};

/// A Namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Its labels. The API server gives each `kubernetes.io/metadata.name`.
    pub labels: BTreeMap<String, String>,
}

impl Namespace {
    /// A Namespace as the API server makes it if nobody asks for more.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let label = ("kubernetes.io/metadata.name".to_owned(), name.to_owned());
        Self {
            name: name.to_owned(),
            labels: [label].into(),
        }
    }

    /// The object, for what exists because of it.
    #[must_use]
    pub fn origin(&self) -> Origin {
        Origin::new(Kind::Namespace, "", &self.name)
    }
}
