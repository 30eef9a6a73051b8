//! From a parsed request to a response: which verb, and the context every verb needs.

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::authorize::Accounts;
use crate::body;
use crate::custom::Customs;
use crate::registry::{self, Resource};
use crate::request::{Options, Target};
use crate::status::ApiError;
use crate::store::{Object, Store};
use crate::view::View;

mod delete;
mod read;
mod subresource;
mod write;

pub use subresource::of as subresources;
pub use write::{Checks, Warnings, create_object};

/// What all requests share.
pub struct Core {
    /// The objects.
    pub store: Store,
    /// Fires when the server stops; open watches end then.
    pub stop: CancellationToken,
    /// What CustomResourceDefinitions add to the table of kinds.
    pub customs: Customs,
    /// Who but the lab's own programs may come in.
    pub accounts: Accounts,
}

impl Core {
    /// Every resource that is served, in discovery's order.
    pub fn rows(&self) -> Vec<&'static Resource> {
        let customs = self.customs.rows(&self.store);
        registry::all().iter().chain(customs).collect()
    }

    /// The resource at a path, if served.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
        let custom = || {
            let rows = self.customs.rows(&self.store);
            let is_it = |row: &&Resource| {
                row.group == group && row.version == version && row.plural == plural
            };
            rows.into_iter().find(is_it)
        };
        registry::find(group, version, plural).or_else(custom)
    }
}

/// One request, parsed.
pub struct Call {
    /// What the server holds.
    pub core: Arc<Core>,
    /// What the path leads to.
    pub target: Target,
    /// The query.
    pub options: Options,
    /// How the client wants to see the answer.
    pub view: View,
    /// The request's content type.
    pub content_type: String,
    /// The request's body.
    pub body: Bytes,
}

/// Answers one request for a resource.
pub async fn handle(core: Arc<Core>, request: Request<Body>) -> Response<Body> {
    match answer(core, request).await {
        Ok(response) => response,
        Err(error) => error_response(&error),
    }
}

async fn answer(core: Arc<Core>, request: Request<Body>) -> Result<Response<Body>, ApiError> {
    let (parts, body) = request.into_parts();
    let target = Target::parse(parts.uri.path(), |group, version, plural| {
        core.find(group, version, plural)
    })?;
    let options = Options::parse(&parts.uri)?;
    let view = View::parse(
        &text(&parts.headers, header::ACCEPT),
        &options.include_object,
    )?;
    let content_type = text(&parts.headers, header::CONTENT_TYPE);
    let body = axum::body::to_bytes(body, body::LIMIT)
        .await
        .map_err(|_| ApiError::too_large(body::LIMIT))?;
    let call = Call {
        core,
        target,
        options,
        view,
        content_type,
        body,
    };
    let warnings = Warnings::about(call.target.resource);
    let answered = dispatch(call, &parts.method);
    let mut response = answered.unwrap_or_else(|error| error_response(&error));
    warnings.put_into(&mut response);
    Ok(response)
}

fn dispatch(call: Call, method: &Method) -> Result<Response<Body>, ApiError> {
    if call.target.subresource.is_some() {
        return subresource::dispatch(call, method);
    }
    match (method, call.target.name.is_some()) {
        (&Method::GET, false) if call.options.watch => read::watch(call),
        (&Method::GET, true) if call.options.watch => read::watch(call),
        (&Method::GET, false) => read::list(&call),
        (&Method::GET, true) => read::get(&call),
        (&Method::POST, false) => write::create(&call),
        (&Method::PUT, true) => write::replace(&call),
        (&Method::PATCH, true) => write::patch(&call),
        (&Method::DELETE, true) => delete::one(&call),
        (&Method::DELETE, false) => delete::collection(&call),
        _ => Err(ApiError::method_not_allowed()),
    }
}

/// A refusal as a response.
pub fn error_response(error: &ApiError) -> Response<Body> {
    let code = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json_response(code, Bytes::from(error.to_status().to_string()))
}

/// JSON text as a response.
pub fn json_response(code: StatusCode, json: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(json));
    *response.status_mut() = code;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response.headers_mut().insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, private"),
    );
    response
}

/// A value as a response.
pub fn value_response(code: StatusCode, value: &Value) -> Response<Body> {
    json_response(code, Bytes::from(value.to_string()))
}

impl Call {
    /// One object, as the client wants to see it.
    fn show(&self, code: StatusCode, object: &Object) -> Response<Body> {
        json_response(code, self.view.one(self.target.resource, object))
    }

    fn name(&self) -> &str {
        self.target.name.as_deref().unwrap_or_default()
    }

    fn key(&self) -> crate::store::Key {
        crate::store::Key::new(self.target.namespace(), self.name())
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> String {
    let values: Vec<&str> = headers
        .get_all(name)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .collect();
    values.join(",")
}

#[cfg(test)]
mod tests;
