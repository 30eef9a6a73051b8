//! What there is to watch, and the watches.
//!
//! Every kind the API server can list and watch is watched, those without a controller too: a namespace is
//! empty only when nothing of any kind is in it, and an owner may be of any kind. New kinds
//! (CustomResourceDefinitions) are noticed within half a minute.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use kube::api::{Api, ApiResource, DynamicObject, TypeMeta};
use kube::discovery::{Discovery, Scope, verbs};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use tokio::sync::mpsc::UnboundedSender;

use crate::object::{KindInfo, Object, known_kinds};

const LOOK_AGAIN: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_millis(100);

/// What the driver hears.
pub enum Message {
    /// Kinds to watch; those already watched may be among them.
    Kinds(Vec<KindInfo>),
    ListStarts((String, String)),
    Listed((String, String), Object),
    ListEnds((String, String)),
    /// The kind cannot be listed and will not be soon: nothing waits for it.
    Unavailable((String, String)),
    Changed(Object),
    Gone(Object),
    Forbidden(Box<kube::Error>),
}

/// Tells which kinds the API server has, again and again.
pub async fn discover(client: Client, inbox: UnboundedSender<Message>) {
    let mut pause = RETRY;
    loop {
        let (message, wait) = match Discovery::new(client.clone()).run().await {
            Ok(discovery) => (Some(Message::Kinds(watchable(&discovery))), LOOK_AGAIN),
            Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403) => (
                Some(Message::Forbidden(Box::new(kube::Error::Api(status)))),
                LOOK_AGAIN,
            ),
            Err(error) => {
                tracing::debug!("discovery: {error}; trying again");
                pause = (pause * 2).min(Duration::from_secs(5));
                (None, pause)
            }
        };
        if message.is_some_and(|message| inbox.send(message).is_err()) {
            return;
        }
        tokio::time::sleep(wait).await;
    }
}

/// Watches one kind for ever.
pub async fn kind(client: Client, kind: KindInfo, inbox: UnboundedSender<Message>) {
    let id = (kind.api_version(), kind.kind.clone());
    let api: Api<DynamicObject> = Api::all_with(client, &resource(&kind));
    let mut stream = watcher(api, watcher::Config::default())
        .default_backoff()
        .boxed();
    loop {
        let event = match stream.try_next().await {
            Ok(Some(event)) => event,
            Ok(None) => return,
            Err(error) => {
                let (version, name) = &id;
                tracing::debug!("watch of {version} {name}: {error}; trying again");
                if is_refused(&kind, &error)
                    && inbox.send(Message::Unavailable(id.clone())).is_err()
                {
                    return;
                }
                continue;
            }
        };
        let message = match event {
            watcher::Event::Init => Some(Message::ListStarts(id.clone())),
            watcher::Event::InitApply(object) => {
                parse(&kind, object).map(|object| Message::Listed(id.clone(), object))
            }
            watcher::Event::InitDone => Some(Message::ListEnds(id.clone())),
            watcher::Event::Apply(object) => parse(&kind, object).map(Message::Changed),
            watcher::Event::Delete(object) => parse(&kind, object).map(Message::Gone),
        };
        if message.is_some_and(|message| inbox.send(message).is_err()) {
            return;
        }
    }
}

/// Whether the server does not offer the kind to us at all. Of a kind that decisions depend on, only its
/// absence counts: what may not be seen must not be taken for absent.
fn is_refused(kind: &KindInfo, error: &watcher::Error) -> bool {
    let watcher::Error::InitialListFailed(kube::Error::Api(status)) = error else {
        return false;
    };
    match status.code {
        404 => true,
        403 | 405 => !known_kinds().contains(kind),
        _ => false,
    }
}

/// How `kube` names a kind.
pub fn resource(kind: &KindInfo) -> ApiResource {
    ApiResource {
        group: kind.group.clone(),
        version: kind.version.clone(),
        api_version: kind.api_version(),
        kind: kind.kind.clone(),
        plural: kind.plural.clone(),
    }
}

/// An object as the controllers know it. Items of a list come without their kind.
pub fn parse(kind: &KindInfo, mut object: DynamicObject) -> Option<Object> {
    object.types = Some(TypeMeta {
        api_version: kind.api_version(),
        kind: kind.kind.clone(),
    });
    // Nobody here reads them, and they are half of an object.
    object.managed_fields_mut().clear();
    let value = serde_json::to_value(&object).ok()?;
    Object::parse(value)
        .map_err(|error| tracing::warn!("ignored: {error}"))
        .ok()
}

/// The kinds to watch: those the controllers know in the version they know, others in the version the
/// server prefers. Events of the newer group are the core group's under another name.
fn watchable(discovery: &Discovery) -> Vec<KindInfo> {
    let mut kinds = known_kinds();
    for group in discovery
        .groups()
        .filter(|group| group.name() != "events.k8s.io")
    {
        for (resource, capabilities) in group.recommended_resources() {
            let known = kinds
                .iter()
                .any(|k| k.group == resource.group && k.kind == resource.kind);
            let operable = capabilities.supports_operation(verbs::LIST)
                && capabilities.supports_operation(verbs::WATCH)
                && capabilities.supports_operation(verbs::DELETE);
            if known || !operable {
                continue;
            }
            kinds.push(KindInfo {
                group: resource.group,
                version: resource.version,
                kind: resource.kind,
                plural: resource.plural,
                namespaced: capabilities.scope == Scope::Namespaced,
            });
        }
    }
    kinds
}
