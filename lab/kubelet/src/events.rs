//! Events: what the kubelet has to say about a pod, for `kubectl describe` and `kubectl get events`.
//!
//! Said once, an event is created; said again, its count goes up. They are sent by a task of their own, so that
//! no pod waits for them; one that the API does not take (its namespace is going) is dropped.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::mpsc;

use crate::status::time;

/// How many different events are remembered for counting.
const REMEMBERED: usize = 4096;

/// Takes events for a node.
#[derive(Debug, Clone)]
pub struct Recorder {
    tx: mpsc::UnboundedSender<Said>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Said {
    namespace: String,
    name: String,
    uid: String,
    field_path: Option<String>,
    warning: bool,
    reason: &'static str,
    message: String,
}

/// How an event was first written.
struct Written {
    name: String,
    count: i32,
}

impl Recorder {
    /// Starts the sending task.
    pub fn start(client: kube::Client, node: String) -> Recorder {
        let (tx, rx) = mpsc::unbounded_channel();
        tokio::spawn(send_all(client, node, rx));
        Recorder { tx }
    }

    pub fn normal(&self, pod: &Pod, container: Option<&str>, reason: &'static str, message: &str) {
        self.say(pod, container, false, reason, message);
    }

    pub fn warning(&self, pod: &Pod, container: Option<&str>, reason: &'static str, message: &str) {
        tracing::info!(
            pod = pod.metadata.name.as_deref().unwrap_or_default(),
            namespace = pod.metadata.namespace.as_deref().unwrap_or_default(),
            container,
            reason,
            message,
            "warning"
        );
        self.say(pod, container, true, reason, message);
    }

    fn say(
        &self,
        pod: &Pod,
        container: Option<&str>,
        warning: bool,
        reason: &'static str,
        message: &str,
    ) {
        let inits = pod
            .spec
            .iter()
            .flat_map(|s| s.init_containers.iter().flatten());
        let field_path = container.map(|name| {
            let list = match inits.into_iter().any(|c| c.name == name) {
                true => "initContainers",
                false => "containers",
            };
            format!("spec.{list}{{{name}}}")
        });
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let _ = self.tx.send(Said {
            namespace: text(&pod.metadata.namespace),
            name: text(&pod.metadata.name),
            uid: text(&pod.metadata.uid),
            field_path,
            warning,
            reason,
            // The API takes 1024 bytes.
            message: message.chars().take(900).collect(),
        });
    }
}

async fn send_all(client: kube::Client, node: String, mut rx: mpsc::UnboundedReceiver<Said>) {
    let mut known: BTreeMap<Said, Written> = BTreeMap::new();
    while let Some(said) = rx.recv().await {
        let api: Api<Event> = Api::namespaced(client.clone(), &said.namespace);
        let now = Timestamp::now();
        if let Some(written) = known.get_mut(&said) {
            written.count += 1;
            let patch = json!({"count": written.count, "lastTimestamp": time(now)});
            let params = PatchParams::default();
            if api
                .patch(&written.name, &params, &Patch::Merge(&patch))
                .await
                .is_ok()
            {
                continue;
            }
            known.remove(&said);
        }
        let event = first(&said, &node, now);
        let name = event.metadata.name.clone().unwrap_or_default();
        match api.create(&PostParams::default(), &event).await {
            Ok(_) => {
                if known.len() >= REMEMBERED {
                    known.clear();
                }
                known.insert(said, Written { name, count: 1 });
            }
            Err(error) => tracing::debug!(%error, reason = said.reason, "event not taken"),
        }
    }
}

fn first(said: &Said, node: &str, now: Timestamp) -> Event {
    let suffix = now.as_nanosecond() as u64;
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{suffix:016x}", said.name)),
            namespace: Some(said.namespace.clone()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(said.namespace.clone()),
            name: Some(said.name.clone()),
            uid: Some(said.uid.clone()),
            field_path: said.field_path.clone(),
            ..ObjectReference::default()
        },
        type_: Some(if said.warning { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(said.reason.to_owned()),
        message: Some(said.message.clone()),
        source: Some(EventSource {
            component: Some("kubelet".to_owned()),
            host: Some(node.to_owned()),
        }),
        reporting_component: Some("kubelet".to_owned()),
        reporting_instance: Some(node.to_owned()),
        first_timestamp: Some(time(now)),
        last_timestamp: Some(time(now)),
        count: Some(1),
        ..Event::default()
    }
}
