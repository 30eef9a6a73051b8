//! The API's kinds that the network depends on, and how each is read.

use std::fmt::Debug;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Resource;
use parfait_cluster::{
    Config, Key, Note, Object, ObjectName, Parsed, RawClusterNetworkPolicy as ClusterNetworkPolicy,
    RawLoadBalancerPool as LoadBalancerPool, RawNodeNetworkPolicy as NodeNetworkPolicy, parse,
};
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
    serde_saphyr::from_str(text).map_err(|error| {
        let said = error.to_string();
        let said = said.lines().next().unwrap_or_default();
        let said = said.strip_prefix("error: ").unwrap_or(said);
        let said = said.replace(ADVICE, "; it may stand there once");
        match field(text) {
            // The library says where it is, but not of what.
            Some(field) => format!("{field}: {said}"),
            None => said,
        }
    })
}

/// What the YAML library advises the programmer who calls it.
const ADVICE: &str = ", set DuplicateKeyPolicy in Options if acceptable";

/// The field whose value cannot be meant so, `egress.addresses[0].namespace`.
fn field(text: &str) -> Option<String> {
    let value: serde_json::Value = serde_saphyr::from_str(text).ok()?;
    let error = serde_path_to_error::deserialize::<_, Config>(value).err()?;
    let path = error.path().to_string();
    (path != ".").then_some(path)
}

/// Whether the API server has no such kind: nobody has installed its CustomResourceDefinition.
pub(crate) fn is_not_served(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
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
    ClusterNetworkPolicy => |name| Some(Key::ClusterNetworkPolicy(name.name));
    NodeNetworkPolicy => |name| Some(Key::NodeNetworkPolicy(name.name));
    LoadBalancerPool => |name| Some(Key::LoadBalancerPool(name.name));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_in_the_yaml_is_told_with_its_field() {
        for (text, wanted) in [
            (
                "routing: auto\nrouting: vxlan\n",
                "line 2 column 1: duplicate mapping key: routing; it may stand there once",
            ),
            (
                "clusterCIDRs: [10.244.0.0]\n",
                "clusterCIDRs[0]: line 1 column 16: invalid IP address syntax",
            ),
            (
                "egress: {masquerade: perhaps}\n",
                "egress.masquerade: line 1 column 22: ",
            ),
            (
                "egress:\n  addresses:\n  - {namespace: a, addresses: [fd00::zz]}\n",
                "egress.addresses[0].addresses[0]: line 3 column 32: ",
            ),
        ] {
            let said = config_yaml(text).expect_err(text);
            assert!(said.starts_with(wanted), "{said}");
        }
    }
}
