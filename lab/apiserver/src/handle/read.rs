//! get, list and watch.
//!
//! A list in chunks stays a list of one revision: the `continue` token carries it, and the store undoes its log to
//! answer later chunks. Once the log has forgotten that revision the token is expired, as in Kubernetes.

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderValue, Response, StatusCode, header};
use serde::{Deserialize, Serialize};

use super::{Call, json_response};
use crate::select::Selector;
use crate::status::ApiError;
use crate::store::{Key, Object};
use crate::watch::{Start, Watch};

/// GET of one object.
pub fn get(call: &Call) -> Result<Response<Body>, ApiError> {
    let resource = call.target.resource;
    let object = call.core.store.read(resource.slot, &call.key());
    let object = object.ok_or_else(|| ApiError::not_found(resource, call.name()))?;
    Ok(call.show(StatusCode::OK, &object))
}

#[derive(Serialize, Deserialize)]
struct Continue {
    revision: u64,
    namespace: String,
    name: String,
}

/// GET of a collection.
pub fn list(call: &Call) -> Result<Response<Body>, ApiError> {
    let (resource, options) = (call.target.resource, &call.options);
    let selector = Selector::parse(resource, &options.label_selector, &options.field_selector)?;
    let token = parse_token(&options.continue_token)?;
    let current = call.core.store.revision();
    if let Some(asked) = options.resource_version.filter(|asked| *asked > current) {
        return Err(ApiError::too_large_resource_version(asked, current));
    }
    let exact = options.resource_version_match == "Exact";
    let at = match &token {
        Some(token) => Some(token.revision),
        None if exact => options.resource_version,
        None => None,
    };
    let listing = call.core.store.list(resource.slot, call.target.namespace.as_deref(), at).map_err(|_| {
        ApiError::expired(
            "The provided continue parameter is too old to display a consistent list result. You must start a new \
             list without the continue parameter.",
        )
    })?;
    let after = token.map(|t| Key::new(t.namespace, t.name));
    let selected: Vec<&Object> = listing
        .objects
        .iter()
        .filter(|o| after.as_ref().is_none_or(|after| o.key() > *after))
        .filter(|o| selector.is_empty() || selector.matches(&o.value))
        .map(AsRef::as_ref)
        .collect();
    let shown = if options.limit == 0 {
        selected.len()
    } else {
        options.limit.min(selected.len())
    };
    let left_out = selected.len() - shown;
    let token = match selected.get(shown.wrapping_sub(1)) {
        Some(last) if left_out > 0 => print_token(last.key(), listing.revision)?,
        _ => String::new(),
    };
    let text = call.view.list(
        resource,
        &selected[..shown],
        listing.revision,
        &token,
        left_out,
    );
    Ok(json_response(StatusCode::OK, text))
}

/// GET with `watch=true`.
pub fn watch(call: Call) -> Result<Response<Body>, ApiError> {
    let (resource, options) = (call.target.resource, &call.options);
    let mut fields = options.field_selector.clone();
    if let Some(name) = &call.target.name {
        fields = format!("metadata.name={name}");
    }
    let selector = Selector::parse(resource, &options.label_selector, &fields)?;
    if options.send_initial_events && options.resource_version_match != "NotOlderThan" {
        return Err(ApiError::bad_request(
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ));
    }
    let start = match options.resource_version {
        Some(revision) if revision > 0 && !options.send_initial_events => Start::After(revision),
        _ => Start::FromState {
            announce_end: options.send_initial_events && options.bookmarks,
        },
    };
    let watch = Watch::new(
        call.core.clone(),
        &call.target,
        selector,
        call.view,
        options,
        start,
    );
    let mut response = Response::new(Body::from_stream(watch.into_stream()));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response.headers_mut().insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, private"),
    );
    Ok(response)
}

fn parse_token(text: &str) -> Result<Option<Continue>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    let bytes = URL_SAFE_NO_PAD.decode(text).ok();
    let token = bytes.and_then(|b| serde_json::from_slice(&b).ok());
    token.map(Some).ok_or_else(|| {
        ApiError::bad_request("continue key is not valid: it was not made by this server")
    })
}

fn print_token(key: Key, revision: u64) -> Result<String, ApiError> {
    let token = Continue {
        revision,
        namespace: key.namespace,
        name: key.name,
    };
    let text = serde_json::to_vec(&token).map_err(|error| ApiError::internal(error.to_string()))?;
    Ok(URL_SAFE_NO_PAD.encode(text))
}
