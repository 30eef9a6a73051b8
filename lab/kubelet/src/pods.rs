//! The node's pods: one task each, started and informed by a watch.
//!
//! A pod is its UID. One with the name of an older one (a StatefulSet's) waits until that is gone from the node.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::mpsc;
use tokio::task::{Id, JoinSet};

use crate::kubelet::Kubelet;
use crate::worker::{Input, Worker};

/// Namespace and name.
type Key = (String, String);

/// The UIDs remembered as done, so that a late word about one does not start it again.
const REMEMBERED: usize = 10_000;

struct Entry {
    uid: String,
    outbox: mpsc::UnboundedSender<Input>,
}

struct Pods {
    kubelet: Arc<Kubelet>,
    entries: BTreeMap<Key, Entry>,
    /// Pods that wait for an older one of their name.
    waiting: BTreeMap<Key, Pod>,
    tasks: JoinSet<()>,
    keys: HashMap<Id, Key>,
    done: BTreeSet<String>,
    /// UIDs seen since the watch began anew.
    listed: Option<BTreeSet<String>>,
}

/// How long pods get to end with the kubelet.
const PATIENCE: Duration = Duration::from_secs(3);

/// Watches and runs the pods of this node, until the kubelet is told to end.
pub async fn serve(kubelet: Arc<Kubelet>) {
    let api: Api<Pod> = Api::all(kubelet.client.clone());
    let selector = format!("spec.nodeName={}", kubelet.options.node_name);
    let config = watcher::Config::default().fields(&selector);
    let mut events = std::pin::pin!(watcher(api, config).default_backoff());
    let mut pods = Pods {
        kubelet,
        entries: BTreeMap::new(),
        waiting: BTreeMap::new(),
        tasks: JoinSet::new(),
        keys: HashMap::new(),
        done: BTreeSet::new(),
        listed: None,
    };
    let mut closing = pods.kubelet.closing.subscribe();
    loop {
        tokio::select! {
            _ = closing.wait_for(|told| *told) => break,
            event = events.next() => match event {
                Some(Ok(event)) => pods.hear(event),
                Some(Err(error)) => tracing::warn!(%error, "watching pods"),
                None => break,
            },
            Some(ended) = pods.tasks.join_next_with_id() => match ended {
                Ok((id, ())) => pods.ended(id),
                Err(error) => {
                    tracing::error!(%error, "a pod's task has failed");
                    pods.ended(error.id());
                }
            },
        }
    }
    let all = async { while pods.tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(PATIENCE, all).await.is_err() {
        tracing::warn!("some pods did not end in time");
    }
}

impl Pods {
    fn hear(&mut self, event: watcher::Event<Pod>) {
        match event {
            watcher::Event::Init => self.listed = Some(BTreeSet::new()),
            watcher::Event::InitApply(pod) => {
                let uid = pod.metadata.uid.clone().unwrap_or_default();
                if let Some(listed) = &mut self.listed {
                    listed.insert(uid);
                }
                self.apply(pod);
            }
            watcher::Event::InitDone => {
                let listed = self.listed.take().unwrap_or_default();
                for entry in self.entries.values().filter(|e| !listed.contains(&e.uid)) {
                    let _ = entry.outbox.send(Input::Gone);
                }
                self.waiting.retain(|_, pod| {
                    pod.metadata
                        .uid
                        .as_ref()
                        .is_some_and(|u| listed.contains(u))
                });
            }
            watcher::Event::Apply(pod) => self.apply(pod),
            watcher::Event::Delete(pod) => self.delete(&pod),
        }
    }

    fn apply(&mut self, pod: Pod) {
        let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref());
        if node != Some(&self.kubelet.options.node_name) {
            return;
        }
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let key = key(&pod);
        // They become file names; every API server has checked them, and a slip there must not reach the host.
        if [&key.0, &key.1, &uid]
            .iter()
            .any(|name| name.contains('/') || name.starts_with('.'))
        {
            return tracing::error!(?key, uid, "a pod with an impossible name is not run");
        }
        match self.entries.get(&key) {
            Some(entry) if entry.uid == uid => {
                let _ = entry.outbox.send(Input::Pod(Box::new(pod)));
            }
            Some(entry) => {
                let _ = entry.outbox.send(Input::Gone);
                self.waiting.insert(key, pod);
            }
            None => self.begin(key, uid, pod),
        }
    }

    fn begin(&mut self, key: Key, uid: String, pod: Pod) {
        if self.done.contains(&uid) {
            return;
        }
        let (worker, outbox) = Worker::new(self.kubelet.clone(), pod);
        let task = self.tasks.spawn(worker.run());
        self.keys.insert(task.id(), key.clone());
        self.entries.insert(key, Entry { uid, outbox });
    }

    fn delete(&mut self, pod: &Pod) {
        let (key, uid) = (key(pod), pod.metadata.uid.as_deref());
        if let Some(entry) = self.entries.get(&key)
            && uid == Some(&entry.uid)
        {
            let _ = entry.outbox.send(Input::Gone);
        }
        if self
            .waiting
            .get(&key)
            .is_some_and(|p| p.metadata.uid.as_deref() == uid)
        {
            self.waiting.remove(&key);
        }
    }

    fn ended(&mut self, id: Id) {
        let Some(key) = self.keys.remove(&id) else {
            return;
        };
        if let Some(entry) = self.entries.remove(&key) {
            if self.done.len() >= REMEMBERED {
                self.done.clear();
            }
            self.done.insert(entry.uid);
        }
        if let Some(pod) = self.waiting.remove(&key) {
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            self.begin(key, uid, pod);
        }
    }
}

fn key(pod: &Pod) -> Key {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    (text(&pod.metadata.namespace), text(&pod.metadata.name))
}
