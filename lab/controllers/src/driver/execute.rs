//! Carrying out one write, and what came of it.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Binding, Namespace, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, DynamicObject, PostParams, Preconditions, PropagationPolicy};
use kube::{Client, core::Status};
use serde_json::Value;

use super::watch::{parse, resource};
use crate::object::{KindInfo, Object, ObjectRef};
use crate::write::{Delete, Propagation, Write};

const TIMEOUT: Duration = Duration::from_secs(10);

/// The kinds that are watched, by `(apiVersion, kind)`.
#[derive(Default)]
pub struct Kinds(BTreeMap<(String, String), KindInfo>);

impl Kinds {
    /// Says whether the kind is new.
    pub fn add(&mut self, kind: KindInfo) -> bool {
        self.0
            .insert((kind.api_version(), kind.kind.clone()), kind)
            .is_none()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn find(&self, target: &ObjectRef) -> Option<&KindInfo> {
        self.0
            .get(&(target.api_version.clone(), target.kind.clone()))
    }
}

/// What came of a write.
pub enum Outcome {
    /// It was carried out.
    Done(Seen),
    /// It was not, because the World was behind, or had no reason any more.
    Overtaken(Seen),
    Failed(Failure),
}

/// What the World should learn from a write.
pub enum Seen {
    /// These objects are like this now.
    Is(Vec<Object>),
    Gone(ObjectRef),
}

/// A write the API server did not take, for a reason that may take time to pass.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("cannot {verb} {target}: {error}")]
    Api {
        verb: &'static str,
        target: ObjectRef,
        error: Box<kube::Error>,
    },
    #[error("cannot {verb} {target}: no answer in {} s", TIMEOUT.as_secs())]
    Timeout {
        verb: &'static str,
        target: ObjectRef,
    },
    #[error("cannot {verb} {target}: the API server does not offer the kind {}/{}", target.api_version, target.kind)]
    UnknownKind {
        verb: &'static str,
        target: ObjectRef,
    },
}

impl Failure {
    /// What the API server said.
    pub fn cause(&self) -> String {
        match self {
            Failure::Api { error, .. } => match &**error {
                kube::Error::Api(status) => status.message.clone(),
                other => other.to_string(),
            },
            other => other.to_string(),
        }
    }
}

pub async fn execute(client: &Client, kinds: &Kinds, write: &Write) -> Outcome {
    let verb = write.verb();
    let Some(target) = write.target() else {
        return Outcome::Done(Seen::Is(Vec::new()));
    };
    let Some(kind) = kinds.find(&target) else {
        return Outcome::Failed(Failure::UnknownKind { verb, target });
    };
    let request = Request {
        client,
        kinds,
        kind,
        target: &target,
    };
    match tokio::time::timeout(TIMEOUT, request.send(write)).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => Outcome::Failed(Failure::Api {
            verb,
            target,
            error: Box::new(error),
        }),
        Err(_) => Outcome::Failed(Failure::Timeout { verb, target }),
    }
}

/// A write on its way.
struct Request<'a> {
    client: &'a Client,
    kinds: &'a Kinds,
    kind: &'a KindInfo,
    target: &'a ObjectRef,
}

impl Request<'_> {
    async fn send(&self, write: &Write) -> Result<Outcome, kube::Error> {
        let answer = match write {
            Write::Create(object) => {
                self.api()
                    .create(&PostParams::default(), &dynamic(object)?)
                    .await
            }
            Write::Update(object) => {
                self.api()
                    .replace(&self.target.name, &PostParams::default(), &dynamic(object)?)
                    .await
            }
            Write::UpdateStatus(object) => {
                let object = dynamic(object)?;
                self.api()
                    .replace_status(&self.target.name, &PostParams::default(), &object)
                    .await
            }
            Write::Delete(delete) => return self.delete(delete).await,
            Write::Bind { node, .. } => return self.bind(node).await,
            Write::Finalize(namespace) => return self.finalize(namespace).await,
            Write::Event(_) => return Ok(Outcome::Done(Seen::Is(Vec::new()))),
        };
        match answer {
            // An update that takes the last finalizer away is a deletion.
            Ok(object) => Ok(Outcome::Done(Seen::Is(
                parse(self.kind, object).into_iter().collect(),
            ))),
            Err(error) => self.refused(error).await,
        }
    }

    /// After an answer that does not say what the object is like now.
    async fn done(&self) -> Result<Outcome, kube::Error> {
        Ok(Outcome::Done(self.look_again().await?))
    }

    async fn refused(&self, error: kube::Error) -> Result<Outcome, kube::Error> {
        if is_stale(&error) {
            Ok(Outcome::Overtaken(self.look_again().await?))
        } else {
            Err(error)
        }
    }

    fn api(&self) -> Api<DynamicObject> {
        api(self.client, self.kind, &self.target.namespace)
    }

    /// What the object really is.
    async fn look_again(&self) -> Result<Seen, kube::Error> {
        Ok(match self.api().get_opt(&self.target.name).await? {
            Some(object) => Seen::Is(parse(self.kind, object).into_iter().collect()),
            None => Seen::Gone(self.target.clone()),
        })
    }

    async fn delete(&self, delete: &Delete) -> Result<Outcome, kube::Error> {
        let mut living = Vec::new();
        for wanted in &delete.if_absent {
            // An owner of a kind nobody can ask for is not known to be gone.
            let Some(kind) = self.kinds.find(wanted) else {
                return Ok(Outcome::Overtaken(Seen::Is(Vec::new())));
            };
            let found = api(self.client, kind, &wanted.namespace)
                .get_opt(&wanted.name)
                .await?;
            let found = found.and_then(|object| parse(kind, object));
            living.extend(found.filter(|o| wanted.uid.is_empty() || o.uid() == wanted.uid));
        }
        if !living.is_empty() {
            return Ok(Outcome::Overtaken(Seen::Is(living)));
        }
        let uid = Some(self.target.uid.clone()).filter(|uid| !uid.is_empty());
        let parameters = DeleteParams {
            grace_period_seconds: delete.grace_seconds.and_then(|s| u32::try_from(s).ok()),
            propagation_policy: delete.propagation.map(|propagation| match propagation {
                Propagation::Background => PropagationPolicy::Background,
                Propagation::Foreground => PropagationPolicy::Foreground,
            }),
            preconditions: Some(Preconditions {
                uid,
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        match self.api().delete(&self.target.name, &parameters).await {
            // The answer may be the object as it was or as it is: only a look tells.
            Ok(_) => self.done().await,
            Err(error) => self.refused(error).await,
        }
    }

    async fn bind(&self, node: &str) -> Result<Outcome, kube::Error> {
        let uid = Some(self.target.uid.clone()).filter(|uid| !uid.is_empty());
        let binding = Binding {
            metadata: ObjectMeta {
                name: Some(self.target.name.clone()),
                namespace: Some(self.target.namespace.clone()),
                uid,
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Node".to_owned()),
                name: Some(node.to_owned()),
                ..ObjectReference::default()
            },
        };
        let url = format!(
            "/api/v1/namespaces/{}/pods/{}/binding",
            self.target.namespace, self.target.name
        );
        let body = serde_json::to_vec(&binding).map_err(kube::Error::SerdeError)?;
        let request = http_request("POST", &url, body)?;
        match self.client.request::<Status>(request).await {
            // The answer tells no resourceVersion, without which an older watch event would unbind the pod.
            Ok(_) => self.done().await,
            Err(error) => self.refused(error).await,
        }
    }

    async fn finalize(&self, namespace: &Namespace) -> Result<Outcome, kube::Error> {
        let url = format!("/api/v1/namespaces/{}/finalize", self.target.name);
        let value = Object::from(namespace.clone()).to_value();
        let body = serde_json::to_vec(&value).map_err(kube::Error::SerdeError)?;
        let request = http_request("PUT", &url, body)?;
        match self.client.request::<Value>(request).await {
            Ok(_) => self.done().await,
            Err(error) => self.refused(error).await,
        }
    }
}

fn api(client: &Client, kind: &KindInfo, namespace: &str) -> Api<DynamicObject> {
    if kind.namespaced {
        Api::namespaced_with(client.clone(), namespace, &resource(kind))
    } else {
        Api::all_with(client.clone(), &resource(kind))
    }
}

fn dynamic(object: &Object) -> Result<DynamicObject, kube::Error> {
    serde_json::from_value(object.to_value()).map_err(kube::Error::SerdeError)
}

fn http_request(
    method: &str,
    url: &str,
    body: Vec<u8>,
) -> Result<http::Request<Vec<u8>>, kube::Error> {
    http::Request::builder()
        .method(method)
        .uri(url)
        .header("content-type", "application/json")
        .body(body)
        .map_err(kube::Error::HttpError)
}

/// Conflict, already there, gone: the World was behind.
fn is_stale(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 404 | 409 | 410))
}
