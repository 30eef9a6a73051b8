//! Reading the whole cluster once, for a question.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Client;
use kube::api::{Api, ListParams};
use parfait_cluster::{
    RawClusterNetworkPolicy, RawLoadBalancerPool, RawNodeNetworkPolicy, Snapshot,
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
    let all = ListParams::default();
    let config = ListParams::default().fields("metadata.name=parfait");
    reader.list::<ConfigMap>(&config).await;
    reader.list::<Namespace>(&all).await;
    reader.list::<Node>(&all).await;
    reader.list::<Pod>(&all).await;
    reader.list::<Service>(&all).await;
    reader.list::<EndpointSlice>(&all).await;
    reader.list::<NetworkPolicy>(&all).await;
    reader.list::<RawClusterNetworkPolicy>(&all).await;
    reader.list::<RawNodeNetworkPolicy>(&all).await;
    reader.list::<RawLoadBalancerPool>(&all).await;
    reader.snapshot.recall();
    Ok((reader.snapshot, reader.skipped))
}

struct Reader<'a> {
    client: &'a Client,
    snapshot: Snapshot,
    skipped: Vec<Skipped>,
}

impl Reader<'_> {
    async fn list<K: Kind>(&mut self, params: &ListParams) {
        match Api::<K>::all(self.client.clone()).list(params).await {
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
