//! Watches by raw HTTP: what a reflector relies on.

mod support;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::sync::Arc;
use support::Lab;

type Connection = hyper::client::conn::http1::SendRequest<Full<Bytes>>;

async fn connect(lab: &Lab) -> Connection {
    let mut roots = tokio_rustls::rustls::RootCertStore::empty();
    use rustls::pki_types::pem::PemObject;
    let ca = rustls::pki_types::CertificateDer::from_pem_slice(lab.server.ca_pem().as_bytes())
        .expect("a PEM");
    roots.add(ca).expect("a CA");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", lab.port))
        .await
        .expect("it listens");
    let name = "kubernetes.default.svc".try_into().expect("a name");
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .expect("TLS");
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .expect("HTTP");
    tokio::spawn(connection);
    sender
}

fn request(lab: &Lab, method: Method, path: &str, body: &Value) -> Request<Full<Bytes>> {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header("authorization", format!("Bearer {}", lab.server.token()))
        .header("content-type", "application/json")
        .body(Full::from(body))
        .expect("a request")
}

async fn call(lab: &Lab, method: Method, path: &str, body: &Value) -> (StatusCode, Value) {
    let mut connection = connect(lab).await;
    let response = connection
        .send_request(request(lab, method, path, body))
        .await
        .expect("an answer");
    let status = response.status();
    let bytes = response
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes();
    (status, serde_json::from_slice(&bytes).expect("JSON"))
}

/// A watch, read line by line.
struct Lines {
    body: hyper::body::Incoming,
    buffer: Vec<u8>,
    _connection: Connection,
}

impl Lines {
    async fn open(lab: &Lab, path: &str) -> Lines {
        let mut connection = connect(lab).await;
        let response = connection
            .send_request(request(lab, Method::GET, path, &Value::Null))
            .await
            .expect("an answer");
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        Lines {
            body: response.into_body(),
            buffer: Vec::new(),
            _connection: connection,
        }
    }

    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("a line is JSON"));
            }
            let frame =
                tokio::time::timeout(std::time::Duration::from_secs(10), self.body.frame()).await;
            match frame.expect("the watch says something in time")? {
                Ok(frame) => self
                    .buffer
                    .extend_from_slice(&frame.into_data().unwrap_or_default()),
                Err(_) => return None,
            }
        }
    }

    async fn summary(&mut self) -> String {
        let event = self.next().await.expect("an event");
        let name = event["object"]["metadata"]["name"].as_str().unwrap_or("-");
        format!("{} {name}", event["type"].as_str().unwrap_or_default())
    }
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str, label: &str) -> Value {
    json!({ "metadata": { "name": name, "labels": { "l": label } } })
}

#[tokio::test]
async fn a_watch_follows_a_list_and_a_selector_turns_changes_into_arrivals() {
    let lab = Lab::start();
    call(&lab, Method::POST, MAPS, &map("a", "1")).await;
    let (_, list) = call(&lab, Method::GET, MAPS, &Value::Null).await;
    let version = list["metadata"]["resourceVersion"]
        .as_str()
        .expect("a version")
        .to_owned();
    let mut all = Lines::open(
        &lab,
        &format!("{MAPS}?watch=true&resourceVersion={version}"),
    )
    .await;
    let mut ones = Lines::open(&lab, &format!("{MAPS}?watch=true&labelSelector=l%3D1")).await;
    assert_eq!(ones.summary().await, "ADDED a");
    call(&lab, Method::POST, MAPS, &map("b", "2")).await;
    call(&lab, Method::PUT, &format!("{MAPS}/b"), &map("b", "1")).await;
    call(&lab, Method::PUT, &format!("{MAPS}/b"), &map("b", "1")).await;
    call(&lab, Method::PUT, &format!("{MAPS}/a"), &map("a", "2")).await;
    call(&lab, Method::DELETE, &format!("{MAPS}/b"), &Value::Null).await;
    for expected in ["ADDED b", "MODIFIED b", "MODIFIED a", "DELETED b"] {
        assert_eq!(all.summary().await, expected);
    }
    for expected in ["ADDED b", "DELETED a", "DELETED b"] {
        assert_eq!(ones.summary().await, expected);
    }
}

#[tokio::test]
async fn the_past_that_is_forgotten_is_gone_and_the_present_is_announced() {
    let lab = Lab::start();
    let (_, first) = call(&lab, Method::POST, MAPS, &map("a", "0")).await;
    let version = first["metadata"]["resourceVersion"]
        .as_str()
        .expect("a version")
        .to_owned();
    let mut connection = connect(&lab).await;
    for n in 0..4200 {
        let change = request(
            &lab,
            Method::PUT,
            &format!("{MAPS}/a"),
            &map("a", &n.to_string()),
        );
        let response = connection.send_request(change).await.expect("an answer");
        response.into_body().collect().await.expect("a body");
    }
    let mut late = Lines::open(
        &lab,
        &format!("{MAPS}?watch=true&resourceVersion={version}"),
    )
    .await;
    let event = late.next().await.expect("an event");
    assert_eq!(
        (
            &event["type"],
            &event["object"]["code"],
            &event["object"]["reason"]
        ),
        (&json!("ERROR"), &json!(410), &json!("Expired"))
    );
    assert!(late.next().await.is_none());

    let path = format!(
        "{MAPS}?watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=1"
    );
    let mut initial = Lines::open(&lab, &path).await;
    assert_eq!(initial.summary().await, "ADDED a");
    let end = initial.next().await.expect("a bookmark");
    assert_eq!(
        end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    // The timeout ends it, after one more bookmark.
    assert_eq!(initial.summary().await, "BOOKMARK -");
    assert!(initial.next().await.is_none());
}

/// After a restart the server knows nothing of a client's past, and says so.
#[tokio::test]
async fn a_watch_from_another_life_is_told_to_list_again() {
    let before = Lab::start();
    let (_, list) = call(&before, Method::GET, MAPS, &Value::Null).await;
    let version = list["metadata"]["resourceVersion"]
        .as_str()
        .expect("a version")
        .to_owned();
    drop(before);
    tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    let after = Lab::start();
    for version in [version.as_str(), "9999999999999"] {
        let mut watch = Lines::open(
            &after,
            &format!("{MAPS}?watch=true&resourceVersion={version}"),
        )
        .await;
        assert_eq!(watch.next().await.expect("an event")["object"]["code"], 410);
    }
}

#[tokio::test]
async fn lists_come_in_chunks_of_one_revision() {
    let lab = Lab::start();
    for n in 0..5 {
        call(&lab, Method::POST, MAPS, &map(&format!("m{n}"), "x")).await;
    }
    let (_, one) = call(&lab, Method::GET, &format!("{MAPS}?limit=2"), &Value::Null).await;
    assert_eq!(one["metadata"]["remainingItemCount"], 3);
    call(&lab, Method::DELETE, &format!("{MAPS}/m3"), &Value::Null).await;
    call(&lab, Method::POST, MAPS, &map("m9", "x")).await;
    let token = one["metadata"]["continue"].as_str().expect("a token");
    let (_, two) = call(
        &lab,
        Method::GET,
        &format!("{MAPS}?limit=9&continue={token}"),
        &Value::Null,
    )
    .await;
    let names: Vec<&str> = two["items"]
        .as_array()
        .expect("items")
        .iter()
        .filter_map(|i| i["metadata"]["name"].as_str())
        .collect();
    assert_eq!(names, ["m2", "m3", "m4"]);
    assert_eq!(
        two["metadata"]["resourceVersion"],
        one["metadata"]["resourceVersion"]
    );
    let (code, error) = call(
        &lab,
        Method::GET,
        &format!("{MAPS}?continue=nonsense"),
        &Value::Null,
    )
    .await;
    assert_eq!(
        (code, &error["reason"]),
        (StatusCode::BAD_REQUEST, &json!("BadRequest"))
    );
}

#[tokio::test]
async fn conflicts_and_preconditions() {
    let lab = Lab::start();
    let (code, made) = call(&lab, Method::POST, MAPS, &map("a", "1")).await;
    assert_eq!(code, StatusCode::CREATED);
    assert_eq!(
        call(&lab, Method::POST, MAPS, &map("a", "1")).await.0,
        StatusCode::CONFLICT
    );
    let mut stale = made.clone();
    stale["data"] = json!({ "x": "y" });
    assert_eq!(
        call(&lab, Method::PUT, &format!("{MAPS}/a"), &stale)
            .await
            .0,
        StatusCode::OK
    );
    let (code, error) = call(&lab, Method::PUT, &format!("{MAPS}/a"), &stale).await;
    assert_eq!(
        (code, &error["reason"]),
        (StatusCode::CONFLICT, &json!("Conflict"))
    );
    let wrong = json!({ "preconditions": { "uid": "other" } });
    assert_eq!(
        call(&lab, Method::DELETE, &format!("{MAPS}/a"), &wrong)
            .await
            .0,
        StatusCode::CONFLICT
    );
    let (code, gone) = call(&lab, Method::DELETE, &format!("{MAPS}/a"), &Value::Null).await;
    assert_eq!(
        (code, &gone["status"], &gone["details"]["uid"]),
        (StatusCode::OK, &json!("Success"), &made["metadata"]["uid"])
    );
}

#[tokio::test]
async fn events_are_heard_in_both_dialects() {
    let lab = Lab::start();
    let events = "/apis/events.k8s.io/v1/namespaces/default/events";
    let event = json!({ "metadata": { "generateName": "e-" }, "note": "hello", "regarding": { "kind": "Pod", "name": "p" },
        "eventTime": "2026-01-01T00:00:00.000000Z", "action": "A", "reason": "R", "type": "Normal", "reportingController": "c" });
    assert_eq!(
        call(&lab, Method::POST, events, &event).await.0,
        StatusCode::CREATED
    );
    let (_, list) = call(
        &lab,
        Method::GET,
        "/api/v1/events?fieldSelector=involvedObject.name%3Dp",
        &Value::Null,
    )
    .await;
    assert_eq!(list["items"][0]["message"], "hello");
}

#[tokio::test]
async fn the_door_asks_for_a_token_but_not_for_health() {
    let lab = Lab::start();
    let mut connection = connect(&lab).await;
    let unknown = Request::get("/api/v1/pods")
        .header("host", "x")
        .body(Full::<Bytes>::default())
        .expect("a request");
    let response = connection.send_request(unknown).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    response.into_body().collect().await.expect("a body");
    let open = Request::get("/readyz")
        .header("host", "x")
        .body(Full::<Bytes>::default())
        .expect("a request");
    assert_eq!(
        connection
            .send_request(open)
            .await
            .expect("an answer")
            .status(),
        StatusCode::OK
    );
}
