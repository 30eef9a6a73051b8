//! Recording events: what `kubectl describe` shows below an object.
//!
//! The same event again counts up instead of filling the list: its name comes from what it says. Recording
//! runs beside the controllers, so that it delays nothing, and a lost event is only logged.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event as CoreEvent, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::names;
use crate::write::Event;

const REMEMBERED: usize = 4_096;

pub async fn record(client: Client, mut inbox: UnboundedReceiver<Event>) {
    let mut counts: BTreeMap<String, i32> = BTreeMap::new();
    while let Some(event) = inbox.recv().await {
        let object = core_event(&event, Timestamp::now());
        let name = object.metadata.name.clone().unwrap_or_default();
        let namespace = object.metadata.namespace.clone().unwrap_or_default();
        let api: Api<CoreEvent> = Api::namespaced(client.clone(), &namespace);
        if counts.len() > REMEMBERED {
            counts.clear();
        }
        let count = counts.entry(name.clone()).or_insert(0);
        *count += 1;
        let result = if *count == 1 {
            match api.create(&PostParams::default(), &object).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    *count = known_count(&api, &name).await + 1;
                    again(&api, &name, *count).await
                }
                other => other.map(|_| ()),
            }
        } else {
            again(&api, &name, *count).await
        };
        if let Err(error) = result {
            // A namespace that is going takes no more events.
            tracing::debug!(
                "event {} of {} is lost: {error}",
                event.reason,
                event.regarding
            );
            counts.remove(&name);
        }
    }
}

async fn known_count(api: &Api<CoreEvent>, name: &str) -> i32 {
    api.get(name)
        .await
        .ok()
        .and_then(|event| event.count)
        .unwrap_or(1)
}

async fn again(api: &Api<CoreEvent>, name: &str, count: i32) -> Result<(), kube::Error> {
    let patch = json!({ "count": count, "lastTimestamp": Time(Timestamp::now()) });
    api.patch(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .map(|_| ())
}

fn core_event(event: &Event, now: Timestamp) -> CoreEvent {
    let about = &event.regarding;
    let hash = names::suffix(
        16,
        &[&about.uid, &event.reason, &event.message, event.component],
    );
    // Events about cluster-scoped objects live in `default`, where kubectl looks for them.
    let namespace = if about.namespace.is_empty() {
        "default"
    } else {
        &about.namespace
    };
    CoreEvent {
        metadata: ObjectMeta {
            name: Some(format!("{}.{hash}", about.name)),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some(about.api_version.clone()),
            kind: Some(about.kind.clone()),
            namespace: Some(about.namespace.clone()).filter(|ns| !ns.is_empty()),
            name: Some(about.name.clone()),
            uid: Some(about.uid.clone()),
            ..ObjectReference::default()
        },
        type_: Some(event.severity.as_str().to_owned()),
        reason: Some(event.reason.clone()),
        message: Some(event.message.clone()),
        count: Some(1),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        source: Some(EventSource {
            component: Some(event.component.to_owned()),
            host: None,
        }),
        reporting_component: Some(event.component.to_owned()),
        ..CoreEvent::default()
    }
}
