//! Events about objects of which something cannot be used.

use std::fmt::Debug;

use k8s_openapi::api::core::v1::{ObjectReference, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::Api;
use kube::core::{ClusterResourceScope, NamespaceResourceScope};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use parfait_cluster::{
    Note, RawClusterNetworkPolicy as ClusterNetworkPolicy, RawLoadBalancerPool as LoadBalancerPool,
    RawNodeNetworkPolicy as NodeNetworkPolicy,
};
use parfait_packet::Kind;
use serde::de::DeserializeOwned;

use crate::Error;

/// Writes Events.
pub struct Events {
    client: Client,
    recorder: Recorder,
}

impl Events {
    /// A writer whose Events say that they come from this node.
    #[must_use]
    pub fn new(client: &Client, node: &str) -> Self {
        let reporter = Reporter {
            controller: "parfait".to_owned(),
            instance: Some(node.to_owned()),
        };
        Self {
            client: client.clone(),
            recorder: Recorder::new(client.clone(), reporter),
        }
    }

    /// Tells an object what of it is not used. Of kinds that [`Events::are_about`] only; an object that is gone is told
    /// nothing.
    ///
    /// # Errors
    /// If the API server cannot be reached or refuses.
    pub async fn warn(&self, note: &Note) -> Result<(), Error> {
        let operation = format!("write an Event about {}", note.origin);
        let found = self
            .object(note)
            .await
            .map_err(Error::request(&operation))?;
        let Some(object) = found else {
            return Ok(());
        };
        let event = Event {
            type_: EventType::Warning,
            reason: "Invalid".to_owned(),
            note: Some(note.in_object()),
            action: "Plan".to_owned(),
            secondary: None,
        };
        let written = self.recorder.publish(&event, &object).await;
        written.map_err(Error::request(&operation))
    }

    /// Whether objects of this kind are told.
    #[must_use]
    pub const fn are_about(kind: Kind) -> bool {
        matches!(
            kind,
            Kind::Service
                | Kind::EndpointSlice
                | Kind::NetworkPolicy
                | Kind::ClusterNetworkPolicy
                | Kind::NodeNetworkPolicy
                | Kind::LoadBalancerPool
        )
    }

    async fn object(&self, note: &Note) -> Result<Option<ObjectReference>, kube::Error> {
        let (namespace, name) = (&note.origin.namespace, &note.origin.name);
        match note.origin.kind {
            Kind::Service => self.reference::<Service>(namespace, name).await,
            Kind::EndpointSlice => self.reference::<EndpointSlice>(namespace, name).await,
            Kind::NetworkPolicy => self.reference::<NetworkPolicy>(namespace, name).await,
            Kind::ClusterNetworkPolicy => self.of_all::<ClusterNetworkPolicy>(name).await,
            Kind::NodeNetworkPolicy => self.of_all::<NodeNetworkPolicy>(name).await,
            Kind::LoadBalancerPool => self.of_all::<LoadBalancerPool>(name).await,
            _ => Ok(None),
        }
    }

    /// An Event names the very object, by its UID.
    async fn reference<K>(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<ObjectReference>, kube::Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug,
        K: DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let found = api.get_opt(name).await?;
        Ok(found.map(|found| found.object_ref(&())))
    }

    /// The same of a kind that is in no namespace.
    async fn of_all<K>(&self, name: &str) -> Result<Option<ObjectReference>, kube::Error>
    where
        K: Resource<DynamicType = (), Scope = ClusterResourceScope> + Clone + Debug,
        K: DeserializeOwned,
    {
        let api: Api<K> = Api::all(self.client.clone());
        let found = api.get_opt(name).await?;
        Ok(found.map(|found| found.object_ref(&())))
    }
}
