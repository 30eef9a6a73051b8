//! Paths outside the resources, and the front door: who may come in.
//!
//! ```text
//!  /healthz /livez /readyz /version      open to all
//!  /api /apis /openapi                   discovery
//!  /api/v1/… /apis/G/V/…                 resources (handle.rs)
//! ```
//!
//! Everything but the first row needs a bearer token. The lab's own may do everything; those of ServiceAccounts what RBAC
//! gives them ([`crate::authorize`]).

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::middleware::{self, Next};
use axum::response::IntoResponse;
use axum::routing::get;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::authorize::authorize;
use crate::handle::{self, Core, error_response, json_response, value_response};
use crate::status::ApiError;
use crate::{discovery, openapi};

/// The version reported: that of the API types.
pub const VERSION: &str = "v1.36.0";

/// Everything the server answers, for callers who are already trusted.
pub fn trusted(core: Arc<Core>) -> Router {
    Router::new()
        .route("/healthz", get(ok))
        .route("/livez", get(ok))
        .route("/readyz", get(ok))
        .route("/version", get(version))
        .route("/version/", get(version))
        .route("/api", get(api))
        .route("/api/", get(api))
        .route("/apis", get(apis))
        .route("/apis/", get(apis))
        .route("/api/v1", get(core_resources))
        .route("/api/v1/", get(core_resources))
        .route("/apis/{group}", get(group))
        .route("/apis/{group}/{version}", get(group_resources))
        .route("/openapi/v2", get(openapi_v2))
        .route("/openapi/v3", get(openapi_index))
        .route("/openapi/v3/{*path}", get(openapi_v3))
        .fallback(resources)
        .with_state(core)
}

/// The same behind bearer tokens.
pub fn guarded(core: Arc<Core>, token: &str) -> Router {
    let own: Arc<str> = token.into();
    trusted(core.clone()).layer(middleware::from_fn(
        move |request: Request<Body>, next: Next| {
            let let_in = let_in(&core, &own, &request);
            async move {
                match let_in {
                    Ok(()) => next.run(request).await,
                    Err(error) => error_response(&error),
                }
            }
        },
    ))
}

fn let_in(core: &Core, own: &str, request: &Request<Body>) -> Result<(), ApiError> {
    if ["/healthz", "/livez", "/readyz", "/version"].contains(&request.uri().path()) {
        return Ok(());
    }
    let given = request.headers().get(header::AUTHORIZATION);
    let given = given.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let given = given.ok_or_else(ApiError::unauthorized)?;
    if equal(given.as_bytes(), own.as_bytes()) {
        return Ok(());
    }
    let account = core.accounts.find(given);
    let account = account.ok_or_else(ApiError::unauthorized)?;
    authorize(core, &account, request.method(), request.uri())
}

/// Compares without telling by the time it takes how much was right.
fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .fold(0, |difference, (x, y)| difference | (x ^ y))
            == 0
}

async fn resources(State(core): State<Arc<Core>>, request: Request<Body>) -> Response<Body> {
    handle::handle(core, request).await
}

async fn ok() -> impl IntoResponse {
    "ok"
}

async fn version() -> Response<Body> {
    let value = json!({
        "major": "1", "minor": "36", "gitVersion": format!("{VERSION}+parfait"), "gitCommit": "", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none", "compiler": "rustc", "platform": "linux/amd64",
    });
    value_response(StatusCode::OK, &value)
}

async fn api(State(core): State<Arc<Core>>, headers: HeaderMap) -> Response<Body> {
    discovery_response(&headers, &core, true, discovery::core_versions())
}

async fn apis(State(core): State<Arc<Core>>, headers: HeaderMap) -> Response<Body> {
    let list = discovery::group_list(&core.rows());
    discovery_response(&headers, &core, false, list)
}

fn discovery_response(
    headers: &HeaderMap,
    core: &Core,
    legacy: bool,
    plain: Value,
) -> Response<Body> {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    if !discovery::wants_aggregated(accept) {
        return value_response(StatusCode::OK, &plain);
    }
    let mut response = json_response(
        StatusCode::OK,
        Bytes::from(discovery::aggregated(&core.rows(), legacy).to_string()),
    );
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(discovery::AGGREGATED),
    );
    response
}

async fn core_resources(State(core): State<Arc<Core>>) -> Response<Body> {
    or_404(discovery::resource_list(&core.rows(), "", "v1"))
}

async fn group(State(core): State<Arc<Core>>, Path(name): Path<String>) -> Response<Body> {
    or_404(discovery::group(&core.rows(), &name))
}

async fn group_resources(
    State(core): State<Arc<Core>>,
    Path((group, version)): Path<(String, String)>,
) -> Response<Body> {
    or_404(discovery::resource_list(&core.rows(), &group, &version))
}

async fn openapi_v3(State(core): State<Arc<Core>>, Path(path): Path<String>) -> Response<Body> {
    or_404(openapi::document(&core.rows(), &path))
}

async fn openapi_index(State(core): State<Arc<Core>>) -> Response<Body> {
    value_response(StatusCode::OK, &openapi::index(&core.rows()))
}

/// Asked for in protobuf, an empty document (which is what zero bytes mean there): clients then use what they know.
async fn openapi_v2(State(core): State<Arc<Core>>, headers: HeaderMap) -> Response<Body> {
    const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    const OLD_NAME: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    if !accept.contains(PROTOBUF) && !accept.contains(OLD_NAME) {
        return value_response(StatusCode::OK, &openapi::v2(&core.rows()));
    }
    let mut response = json_response(StatusCode::OK, Bytes::new());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
    response
}

fn or_404(value: Option<Value>) -> Response<Body> {
    match value {
        Some(value) => value_response(StatusCode::OK, &value),
        None => error_response(&ApiError::no_such_resource()),
    }
}
