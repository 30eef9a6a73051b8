//! gRPC without a code generator: the health service, and a polite no to everything else.
//!
//! A gRPC call is an HTTP/2 POST to `/package.Service/Method`; each message is a byte that says whether
//! it is compressed, four of its length, and the protocol buffer; the outcome stands in the trailers
//! (gRPC's PROTOCOL-HTTP2.md). `grpc.health.v1.Health` is defined by gRPC's health-checking.md; the
//! stand-in says `SERVING` for every service, since it stands in for any.

use crate::body::Body;
use crate::identity::Identity;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{HeaderMap, Request, Response, Version};
use std::time::Duration;
use tokio::time::timeout;

/// `HealthCheckResponse { status: SERVING }` with its prefix: field 1, a varint, 1.
const SERVING: [u8; 7] = [0, 0, 0, 0, 2, 0x08, 0x01];
const OK: u16 = 0;
const UNIMPLEMENTED: u16 = 12;

/// Whether a request is a gRPC call.
pub fn is_grpc<B>(request: &Request<B>) -> bool {
    let media_type = request.headers().get(header::CONTENT_TYPE);
    request.version() == Version::HTTP_2
        && media_type.is_some_and(|t| t.as_bytes().starts_with(b"application/grpc"))
}

/// Answers a call.
pub async fn answer(identity: &Identity, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let message = Bytes::from_static(&SERVING);
    match head.uri.path() {
        "/grpc.health.v1.Health/Check" => {
            // The question is read to its end, as some clients expect, and whatever it is the answer is yes.
            let reading = Limited::new(body, 64 * 1024).collect();
            let _ = timeout(Duration::from_secs(10), reading).await;
            let trailers = outcome(OK, None);
            respond(
                identity,
                Body::Message {
                    message: Some(message),
                    trailers: Some(trailers),
                },
            )
        }
        "/grpc.health.v1.Health/Watch" => respond(identity, Body::Stream(Some(message))),
        method => {
            let text = format!(
                "{} stands in for this service and has no method {method}",
                identity.name()
            );
            let mut response = respond(identity, Body::Bytes(Bytes::new()));
            response
                .headers_mut()
                .extend(outcome(UNIMPLEMENTED, Some(&text)));
            response
        }
    }
}

/// The start of every answer, with the server's identity in the metadata.
fn respond(identity: &Identity, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    let media_type = HeaderValue::from_static("application/grpc");
    headers.insert(header::CONTENT_TYPE, media_type);
    let known = [
        ("parfait-pod", Some(identity.name())),
        ("parfait-node", identity.node.clone()),
        ("parfait-image", identity.image.clone()),
    ];
    for (name, value) in known {
        if let Some(value) = value.and_then(|v| HeaderValue::from_str(&v).ok()) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    response
}

/// The outcome of a call, as headers or trailers.
fn outcome(code: u16, message: Option<&str>) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert(HeaderName::from_static("grpc-status"), code.into());
    let message = message.map(percent_encode);
    if let Some(message) = message.and_then(|m| HeaderValue::from_str(&m).ok()) {
        trailers.insert(HeaderName::from_static("grpc-message"), message);
    }
    trailers
}

/// gRPC's percent-encoding of `grpc-message`: printable ASCII but the percent sign stays.
fn percent_encode(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b' '..=b'~' if b != b'%' => (b as char).to_string(),
            _ => format!("%{b:02X}"),
        })
        .collect()
}
