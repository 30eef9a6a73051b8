//! Reading the whole cluster once, for a question.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Client;
use kube::api::{Api, ListParams};
use parfait_cluster::{
    Config, RawClusterNetworkPolicy, RawLoadBalancerPool, RawNodeNetworkPolicy, Snapshot,
};

use crate::Error;
use crate::kinds::{Kind, is_not_served};

/// A kind that could not be read, and why: an answer without it may be incomplete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The kind.
    pub kind: String,
    /// What the API server said.
    pub why: String,
}

/// Reads every kind that the network depends on. A kind that may not be read is skipped.
///
/// # Errors
/// If the cluster cannot be reached at all.
pub async fn read(client: &Client) -> Result<(Snapshot, Vec<Skipped>), Error> {
    let version = client.apiserver_version().await;
    version.map_err(Error::request("reach the API server"))?;
    let mut reader = Reader {
        client,
        snapshot: Snapshot::default(),
        skipped: Vec::new(),
    };
    reader.config().await;
    reader.all::<Namespace>().await;
    reader.all::<Node>().await;
    reader.all::<Pod>().await;
    reader.all::<Service>().await;
    reader.all::<EndpointSlice>().await;
    reader.all::<NetworkPolicy>().await;
    reader.all::<RawClusterNetworkPolicy>().await;
    reader.all::<RawNodeNetworkPolicy>().await;
    reader.all::<RawLoadBalancerPool>().await;
    reader.snapshot.recall();
    Ok((reader.snapshot, reader.skipped))
}

struct Reader<'a> {
    client: &'a Client,
    snapshot: Snapshot,
    skipped: Vec<Skipped>,
}

impl Reader<'_> {
    /// The one ConfigMap: no right to read others is needed.
    async fn config(&mut self) {
        let name = Config::object_name();
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), &name.namespace);
        let only = ListParams::default().fields(&format!("metadata.name={}", name.name));
        self.list(&api, &only).await;
    }

    async fn all<K: Kind>(&mut self) {
        let api = Api::<K>::all(self.client.clone());
        self.list(&api, &ListParams::default()).await;
    }

    async fn list<K: Kind>(&mut self, api: &Api<K>, params: &ListParams) {
        match api.list(params).await {
            Ok(objects) => {
                for (key, object, notes) in objects.items.iter().filter_map(K::read) {
                    self.snapshot.take(key, object, notes);
                }
            }
            // Not every cluster has every custom kind.
            Err(error) if is_not_served(&error) => {}
            Err(error) => self.skipped.push(Skipped {
                kind: K::kind(&()).into_owned(),
                why: error.to_string(),
            }),
        }
    }
}
