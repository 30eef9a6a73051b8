//! [`Origin`]: the API object, and the field of it, that something in the kernel exists for.
//!
//! Its text form, `Service default/web spec.ports[http]`, is what goes into nft comments and user
//! data, and what a finding prints. [`Origin::parse`] reads it back from the kernel.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// The kinds of objects that network state can come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Kind {
    /// core/v1 Node.
    Node,
    /// core/v1 Pod.
    Pod,
    /// core/v1 Namespace.
    Namespace,
    /// core/v1 Service.
    Service,
    /// discovery.k8s.io/v1 EndpointSlice.
    EndpointSlice,
    /// networking.k8s.io/v1 NetworkPolicy.
    NetworkPolicy,
    /// policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy.
    ClusterNetworkPolicy,
    /// parfait.dev/v1alpha1 NodeNetworkPolicy.
    NodeNetworkPolicy,
    /// parfait.dev/v1alpha1 LoadBalancerPool.
    LoadBalancerPool,
    /// core/v1 ConfigMap, in practice Parfait's own configuration.
    ConfigMap,
    /// Parfait itself: what every node has, whatever the cluster declares.
    Parfait,
}

impl Kind {
    const ALL: [Self; 11] = [
        Self::Node,
        Self::Pod,
        Self::Namespace,
        Self::Service,
        Self::EndpointSlice,
        Self::NetworkPolicy,
        Self::ClusterNetworkPolicy,
        Self::NodeNetworkPolicy,
        Self::LoadBalancerPool,
        Self::ConfigMap,
        Self::Parfait,
    ];

    /// The kind as the API spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Node => "Node",
            Self::Pod => "Pod",
            Self::Namespace => "Namespace",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::ClusterNetworkPolicy => "ClusterNetworkPolicy",
            Self::NodeNetworkPolicy => "NodeNetworkPolicy",
            Self::LoadBalancerPool => "LoadBalancerPool",
            Self::ConfigMap => "ConfigMap",
            Self::Parfait => "Parfait",
        }
    }
}

/// Why something exists: the object, and the field of it, that asked for it.
///
/// Everything in a plan and in the kernel names one, so clones share the text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin(Arc<Asked>);

/// The parts of an [`Origin`], which reads as one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asked {
    /// The object's kind.
    pub kind: Kind,
    /// Its namespace, empty for kinds without one.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The field, as `kubectl explain` spells it; empty when the whole object is meant.
    pub field: String,
}

impl Deref for Origin {
    type Target = Asked;

    fn deref(&self) -> &Asked {
        &self.0
    }
}

impl Origin {
    /// An object in a namespace, or one without (`namespace` empty).
    #[must_use]
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self(Arc::new(Asked {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            field: String::new(),
        }))
    }

    /// What every node has because Parfait runs there; `name` says which part.
    #[must_use]
    pub fn parfait(name: &str) -> Self {
        Self::new(Kind::Parfait, "", name)
    }

    /// The same object, naming no field of it.
    #[must_use]
    pub fn object(&self) -> Self {
        self.clone().field("")
    }

    /// The same object, naming one field of it.
    #[must_use]
    pub fn field(mut self, field: &str) -> Self {
        field.clone_into(&mut Arc::make_mut(&mut self.0).field);
        self
    }

    /// Reads the text form back. `None` if the text was not written by [`Origin`]'s `Display`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.splitn(3, ' ');
        let kind = words.next()?;
        let kind = Kind::ALL.into_iter().find(|k| k.name() == kind)?;
        let object = words.next().filter(|object| !object.is_empty())?;
        let (namespace, name) = object.split_once('/').unwrap_or(("", object));
        let field = words.next().unwrap_or("");
        Some(Self::new(kind, namespace, name).field(field))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())?;
        f.write_str(" ")?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)?;
        if !self.field.is_empty() {
            write!(f, " {}", self.field)?;
        }
        Ok(())
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_as_an_administrator_would_say_it() {
        let origin = Origin::new(Kind::Service, "default", "web").field("spec.ports[http]");
        assert_eq!(origin.to_string(), "Service default/web spec.ports[http]");
        assert_eq!(
            Origin::new(Kind::Node, "", "node-1").to_string(),
            "Node node-1"
        );
    }

    #[test]
    fn text_of_others_is_not_an_origin() {
        for text in ["", "Service", "Gadget default/web", "Service "] {
            assert_eq!(Origin::parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(
            kind in prop::sample::select(Kind::ALL.to_vec()),
            namespace in "[a-z0-9-]{0,8}", name in "[a-z0-9.-]{1,12}", field in "([a-z.]{1,9}( [a-z]{1,4})?)?",
        ) {
            let origin = Origin::new(kind, &namespace, &name).field(&field);
            prop_assert_eq!(Origin::parse(&origin.to_string()), Some(origin));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in ".{0,64}") {
            let _ = Origin::parse(&text);
        }
    }
}
