//! [`Feed`]: the cluster's changes, as they happen, into a [`Snapshot`].

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use parfait_cluster::{
    Config, Key, Note, Object, RawClusterNetworkPolicy, RawLoadBalancerPool, RawNodeNetworkPolicy,
    Snapshot,
};
use std::collections::BTreeSet;
use tokio::sync::mpsc;

use crate::kinds::{Kind, is_not_served};

/// How many changes may wait: a slow consumer holds the watches back instead of filling memory.
const WAITING: usize = 1024;

/// The kinds that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Watched {
    Config,
    Namespace,
    Node,
    Pod,
    Service,
    EndpointSlice,
    NetworkPolicy,
    ClusterNetworkPolicy,
    NodeNetworkPolicy,
    LoadBalancerPool,
}

impl Watched {
    const ALL: [Self; 10] = [
        Self::Config,
        Self::Namespace,
        Self::Node,
        Self::Pod,
        Self::Service,
        Self::EndpointSlice,
        Self::NetworkPolicy,
        Self::ClusterNetworkPolicy,
        Self::NodeNetworkPolicy,
        Self::LoadBalancerPool,
    ];

    fn of(key: &Key) -> Self {
        match key {
            Key::Config => Self::Config,
            Key::Node(_) => Self::Node,
            Key::Pod(_) => Self::Pod,
            Key::Service(_) => Self::Service,
            Key::EndpointSlice(_) => Self::EndpointSlice,
            Key::Namespace(_) => Self::Namespace,
            Key::NetworkPolicy(_) => Self::NetworkPolicy,
            Key::ClusterNetworkPolicy(_) => Self::ClusterNetworkPolicy,
            Key::NodeNetworkPolicy(_) => Self::NodeNetworkPolicy,
            Key::LoadBalancerPool(_) => Self::LoadBalancerPool,
        }
    }
}

enum Change {
    Applied(Key, Box<Option<Object>>, Vec<Note>),
    Deleted(Key),
    /// A list is complete: what it does not name is gone.
    Listed(Watched, BTreeSet<Key>),
}

/// What came of objects since the last time.
#[derive(Debug, Default)]
pub struct News {
    /// Those of which anything was told, be it only what nobody here reads, as most of a status is.
    pub told: BTreeSet<Key>,
    /// Those of them that are others in the snapshot.
    pub changed: BTreeSet<Key>,
}

impl News {
    /// What must be looked at again, whatever was told.
    pub fn add(&mut self, key: Key) {
        self.told.insert(key.clone());
        self.changed.insert(key);
    }
}

/// The changes of the kinds that a node's network depends on.
pub struct Feed {
    changes: mpsc::Receiver<Change>,
    unlisted: BTreeSet<Watched>,
}

impl Feed {
    /// Starts watching all objects of these kinds: pods of other nodes too, since policies say which of them
    /// may talk to those here. Must be called inside a tokio runtime; the watches end when the feed is dropped.
    #[must_use]
    pub fn start(client: &Client) -> Self {
        let (sender, changes) = mpsc::channel(WAITING);
        let follow = Follow {
            client: client.clone(),
            sender,
        };
        follow.config();
        follow.all::<Namespace>(Watched::Namespace);
        follow.all::<Node>(Watched::Node);
        follow.all::<Pod>(Watched::Pod);
        follow.all::<Service>(Watched::Service);
        follow.all::<EndpointSlice>(Watched::EndpointSlice);
        follow.all::<NetworkPolicy>(Watched::NetworkPolicy);
        follow.all::<RawClusterNetworkPolicy>(Watched::ClusterNetworkPolicy);
        follow.all::<RawNodeNetworkPolicy>(Watched::NodeNetworkPolicy);
        follow.all::<RawLoadBalancerPool>(Watched::LoadBalancerPool);
        Self {
            changes,
            unlisted: Watched::ALL.into(),
        }
    }

    /// Waits for changes and takes all that have come into `snapshot`. Returns what they touch;
    /// the first time only when every kind is listed whole. `None` when all watches have ended.
    pub async fn next(&mut self, snapshot: &mut Snapshot) -> Option<News> {
        let mut news = News::default();
        loop {
            let change = self.changes.recv().await?;
            self.take(change, snapshot, &mut news);
            while let Ok(change) = self.changes.try_recv() {
                self.take(change, snapshot, &mut news);
            }
            if self.unlisted.is_empty() {
                return Some(news);
            }
        }
    }

    fn take(&mut self, change: Change, snapshot: &mut Snapshot, news: &mut News) {
        match change {
            Change::Applied(key, object, notes) => {
                news.told.insert(key.clone());
                if snapshot.take(key.clone(), *object, notes) {
                    for note in snapshot.notes.get(&key).into_iter().flatten() {
                        tracing::warn!("{note}");
                    }
                    news.changed.insert(key);
                }
            }
            Change::Deleted(key) => {
                snapshot.remove(&key);
                news.add(key);
            }
            Change::Listed(kind, listed) => {
                self.unlisted.remove(&kind);
                let gone =
                    keys(snapshot).filter(|key| Watched::of(key) == kind && !listed.contains(key));
                for key in gone.collect::<Vec<_>>() {
                    snapshot.remove(&key);
                    news.add(key);
                }
            }
        }
    }
}

fn keys(snapshot: &Snapshot) -> impl Iterator<Item = Key> + '_ {
    let nodes = snapshot.nodes.keys().cloned().map(Key::Node);
    let pods = snapshot.pods.keys().cloned().map(Key::Pod);
    let services = snapshot.services.keys().cloned().map(Key::Service);
    let slices = snapshot.slices.keys().cloned().map(Key::EndpointSlice);
    let namespaces = snapshot.namespaces.keys().cloned().map(Key::Namespace);
    let policies = snapshot.policies.keys().cloned().map(Key::NetworkPolicy);
    let cluster = snapshot.cluster_policies.keys().cloned();
    let cluster = cluster.map(Key::ClusterNetworkPolicy);
    let nodes_own = snapshot.node_policies.keys().cloned();
    let nodes_own = nodes_own.map(Key::NodeNetworkPolicy);
    let pools = snapshot.pools.keys().cloned().map(Key::LoadBalancerPool);
    let config = std::iter::once(Key::Config);
    nodes
        .chain(pods)
        .chain(services)
        .chain(slices)
        .chain(namespaces)
        .chain(policies)
        .chain(cluster)
        .chain(nodes_own)
        .chain(pools)
        .chain(config)
}

struct Follow {
    client: Client,
    sender: mpsc::Sender<Change>,
}

impl Follow {
    /// The one ConfigMap: no right to read others is needed.
    fn config(&self) {
        let name = Config::object_name();
        let api = Api::<ConfigMap>::namespaced(self.client.clone(), &name.namespace);
        let only = watcher::Config::default().fields(&format!("metadata.name={}", name.name));
        self.kind(Watched::Config, api, only);
    }

    fn all<K: Kind>(&self, kind: Watched) {
        let api = Api::<K>::all(self.client.clone());
        self.kind(kind, api, watcher::Config::default());
    }

    /// Follows one kind for ever. Errors are logged and tried again with a growing pause. Of a custom kind that is not
    /// installed there are no objects; when it is, that is noticed within the longest pause, half a minute.
    fn kind<K: Kind>(&self, kind: Watched, api: Api<K>, config: watcher::Config) {
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let mut events = watcher::watcher(api, config).default_backoff().boxed();
            let mut listed = BTreeSet::new();
            while let Some(event) = events.next().await {
                let change = match event {
                    Ok(event) => change(kind, event, &mut listed),
                    Err(watcher::Error::InitialListFailed(error)) if is_not_served(&error) => {
                        Some(Change::Listed(kind, BTreeSet::new()))
                    }
                    Err(error) => {
                        tracing::warn!("watch of {}: {error}; trying again", K::kind(&()));
                        None
                    }
                };
                let Some(change) = change else { continue };
                if sender.send(change).await.is_err() {
                    return;
                }
            }
        });
    }
}

fn change<K: Kind>(kind: Watched, event: Event<K>, listed: &mut BTreeSet<Key>) -> Option<Change> {
    match event {
        Event::Init => {
            listed.clear();
            None
        }
        Event::InitApply(object) => {
            let (key, object, notes) = object.read()?;
            listed.insert(key.clone());
            Some(Change::Applied(key, Box::new(object), notes))
        }
        Event::InitDone => Some(Change::Listed(kind, std::mem::take(listed))),
        Event::Apply(object) => {
            let (key, object, notes) = object.read()?;
            Some(Change::Applied(key, Box::new(object), notes))
        }
        Event::Delete(object) => object.key().map(Change::Deleted),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A policy of which a rule cannot be read, as an agent finds it after its status was written so many times.
    fn policy(version: u32, spec: &Value) -> RawClusterNetworkPolicy {
        let condition = json!({"type": "parfait.dev/Accepted", "message": version.to_string()});
        let policy = json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha2",
            "kind": "ClusterNetworkPolicy",
            "metadata": {"name": "domains", "resourceVersion": version.to_string()},
            "spec": spec,
            "status": {"conditions": [condition]},
        });
        serde_json::from_value(policy).expect("an object")
    }

    #[tokio::test]
    async fn a_written_status_is_told_and_changes_nothing() {
        let (sender, changes) = mpsc::channel(WAITING);
        let mut feed = Feed {
            changes,
            unlisted: BTreeSet::new(),
        };
        let mut snapshot = Snapshot::default();
        let key = Key::ClusterNetworkPolicy("domains".to_owned());
        let spec = |domain: &str| {
            json!({
                "tier": "Admin", "priority": 7, "subject": {"namespaces": {}},
                "egress": [{"action": "Accept", "to": [{"domainNames": [domain]}]},
                           {"action": "Deny", "to": [{"networks": ["192.0.2.0/24"]}]}],
            })
        };
        let mut other = spec("*.example.com");
        other["egress"][1]["to"][0]["networks"][0] = json!("192.0.2.0/25");
        for (version, spec, changes) in [
            (1, &spec("*.example.com"), true),
            (2, &spec("*.example.com"), false),
            (3, &other, true),
            (4, &other, false),
        ] {
            let applied = Event::Apply(policy(version, spec));
            let applied = change(Watched::ClusterNetworkPolicy, applied, &mut BTreeSet::new());
            let sent = sender.send(applied.expect("a change")).await;
            assert!(sent.is_ok());
            let news = feed.next(&mut snapshot).await.expect("a change");
            assert_eq!(news.told, [key.clone()].into(), "version {version}");
            assert_eq!(!news.changed.is_empty(), changes, "version {version}");
            assert_eq!(snapshot.notes[&key].len(), 1, "version {version}");
        }
    }
}
