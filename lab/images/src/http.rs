//! The stand-in's answers over HTTP/1 and HTTP/2: who it is, and who called.
//!
//! Every path answers 200, so that any probe passes. The query may ask for something else:
//! `?status=503`, `?delay=250ms` (or `2s`, up to a minute), `?size=10k` (or `1m`, up to 64 MiB).

use crate::body::Body;
use crate::console::say;
use crate::grpc;
use crate::identity::Identity;
use crate::serve::Ends;
use crate::stand_in::Stand;
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{HeaderMap, Request, Response, StatusCode, Version};
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Component, Path};
use std::time::Duration;
use tokio::time::{sleep, timeout};

const LARGEST_REQUEST: usize = 1024 * 1024;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const LONGEST_DELAY: Duration = Duration::from_secs(60);
const LARGEST_SIZE: u64 = 64 * 1024 * 1024;
/// The largest file of `--root` that is served, and the longest request body that is shown.
const LARGEST_FILE: u64 = 16 * 1024 * 1024;
const LONGEST_SHOWN: usize = 4096;

/// Answers a request.
pub async fn answer(stand: &Stand, ends: Ends, request: Request<Incoming>) -> Response<Body> {
    if grpc::is_grpc(&request) {
        return grpc::answer(&stand.identity, request).await;
    }
    let (head, body) = request.into_parts();
    let body = match read(body).await {
        Ok(body) => body,
        Err(status) => {
            let mut refused = plain(status, format!("{status}\n"));
            let headers = refused.headers_mut();
            if head.version < Version::HTTP_2 {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            return refused;
        }
    };
    let query = Query::parse(head.uri.query().unwrap_or_default());
    sleep(query.delay).await;
    let mut response = match query.size {
        Some(size) => with_type("text/plain; charset=utf-8", Body::Filler(size)),
        None => content(stand, ends, &head, &query, &body).await,
    };
    if let Some(status) = query.status {
        *response.status_mut() = status;
    }
    log(ends, &head, response.status());
    response
}

/// What a server tells its caller, as JSON.
#[derive(Serialize)]
pub struct Called<'a> {
    server: &'a Identity,
    called: Side<'a>,
    client: Side<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<Asked>,
}

#[derive(Serialize)]
struct Side<'a> {
    address: IpAddr,
    port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    method: String,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<String>,
    version: String,
    headers: BTreeMap<String, String>,
    body_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
}

impl<'a> Called<'a> {
    /// The part that is the same for every protocol.
    pub fn new(stand: &'a Stand, ends: Ends, protocol: &'a str) -> Called<'a> {
        let number = ends.local.port();
        let declared = stand.options.ports.iter().find(|p| p.number == number);
        Called {
            server: &stand.identity,
            called: Side {
                address: ends.local.ip(),
                port: number,
                name: declared.and_then(|p| p.name.as_deref()),
                protocol: Some(protocol),
            },
            client: Side {
                address: ends.peer.ip(),
                port: ends.peer.port(),
                name: None,
                protocol: None,
            },
            request: None,
        }
    }
}

impl Asked {
    fn new(head: &hyper::http::request::Parts, body: &[u8]) -> Asked {
        let shown = (!body.is_empty() && body.len() <= LONGEST_SHOWN)
            .then(|| String::from_utf8(body.to_vec()).ok())
            .flatten();
        Asked {
            method: head.method.to_string(),
            path: head.uri.path().to_owned(),
            query: head.uri.query().map(str::to_owned),
            version: format!("{:?}", head.version),
            headers: joined(&head.headers),
            body_bytes: body.len(),
            body: shown,
        }
    }
}

/// Headers by name; one that comes several times is joined by commas (RFC 9110, section 5.2).
fn joined(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut joined = BTreeMap::<String, String>::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        joined
            .entry(name.to_string())
            .and_modify(|all| {
                all.push_str(", ");
                all.push_str(&value);
            })
            .or_insert_with(|| value.to_string());
    }
    joined
}

async fn read(body: Incoming) -> Result<Bytes, StatusCode> {
    let collecting = Limited::new(body, LARGEST_REQUEST).collect();
    match timeout(REQUEST_TIMEOUT, collecting).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(StatusCode::PAYLOAD_TOO_LARGE)
        }
        Ok(Err(_)) => Err(StatusCode::BAD_REQUEST),
        Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
    }
}

async fn content(
    stand: &Stand,
    ends: Ends,
    head: &hyper::http::request::Parts,
    query: &Query,
    body: &[u8],
) -> Response<Body> {
    let options = &stand.options;
    let path = head.uri.path();
    if options.hostname {
        return plain(StatusCode::OK, format!("{}\n", stand.identity.hostname));
    }
    if let Some(text) = &options.text {
        return plain(StatusCode::OK, format!("{text}\n"));
    }
    if options.agnhost {
        match path {
            "/hostname" => return plain(StatusCode::OK, stand.identity.hostname.clone()),
            "/clientip" => return plain(StatusCode::OK, ends.peer.to_string()),
            "/echo" => {
                return plain(StatusCode::OK, query.message.clone().unwrap_or_default());
            }
            _ => {}
        }
    }
    if let Some(root) = &options.root
        && let Some(found) = file(root, path).await
    {
        return found;
    }
    let wants_json = head.headers.get(header::ACCEPT).is_some_and(|accept| {
        accept
            .to_str()
            .is_ok_and(|a| a.contains("application/json"))
    });
    if options.page && !wants_json {
        return with_type(
            "text/html; charset=utf-8",
            Body::Bytes(page(&stand.identity, ends).into()),
        );
    }
    let mut called = Called::new(stand, ends, "TCP");
    called.request = Some(Asked::new(head, body));
    let mut json = serde_json::to_vec_pretty(&called).unwrap_or_default();
    json.push(b'\n');
    with_type("application/json", Body::Bytes(json.into()))
}

/// A file under the root, or the index of a directory there. The path may not leave the root.
async fn file(root: &Path, path: &str) -> Option<Response<Body>> {
    let inside = percent_decode(path.trim_start_matches('/'));
    let inside = Path::new(&inside);
    let plain = |c: Component<'_>| matches!(c, Component::Normal(_));
    if !inside.components().all(plain) {
        return None;
    }
    let mut file = root.join(inside);
    if tokio::fs::metadata(&file).await.ok()?.is_dir() {
        file.push("index.html");
    }
    let metadata = tokio::fs::metadata(&file).await.ok()?;
    if !metadata.is_file() || metadata.len() > LARGEST_FILE {
        return None;
    }
    let bytes = tokio::fs::read(&file).await.ok()?;
    let media_type = match file.extension().and_then(|e| e.to_str()) {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("css") => "text/css",
        Some("js") => "text/javascript",
        Some("json") => "application/json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("txt" | "conf") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    };
    Some(with_type(media_type, Body::Bytes(bytes.into())))
}

fn page(identity: &Identity, ends: Ends) -> String {
    let image = identity.image.as_deref().unwrap_or("a web server");
    let node = identity.node.as_deref().unwrap_or("?");
    let [image, name, node] = [image, &identity.name(), node].map(escape);
    format!(
        "<!DOCTYPE html>\n<html>\n<head><title>Welcome to {image}</title></head>\n<body>\n\
         <h1>Welcome to {image}</h1>\n<p>Pod {name} on {node}, at {}, answers {}.</p>\n</body>\n</html>\n",
        ends.local, ends.peer
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// A short answer of plain text.
pub fn plain(status: StatusCode, text: String) -> Response<Body> {
    let mut response = with_type("text/plain; charset=utf-8", Body::Bytes(text.into()));
    *response.status_mut() = status;
    response
}

fn with_type(media_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::SERVER, HeaderValue::from_static("parfait"));
    response
}

/// What a query asks of the answer. What cannot be read is not asked.
#[derive(Debug, Default, PartialEq, Eq)]
struct Query {
    status: Option<StatusCode>,
    delay: Duration,
    size: Option<u64>,
    /// agnhost's `msg`.
    message: Option<String>,
}

impl Query {
    fn parse(query: &str) -> Query {
        let mut parsed = Query::default();
        for pair in query.split('&') {
            let Some((name, value)) = pair.split_once('=') else {
                continue;
            };
            let value = percent_decode(&value.replace('+', " "));
            match name {
                "status" => {
                    let status = value.parse().ok().filter(|s| (200..600).contains(s));
                    parsed.status = status.and_then(|s| StatusCode::from_u16(s).ok());
                }
                "delay" => parsed.delay = duration(&value).unwrap_or_default().min(LONGEST_DELAY),
                "size" => parsed.size = size(&value).map(|s| s.min(LARGEST_SIZE)),
                "msg" => parsed.message = Some(value),
                _ => {}
            }
        }
        parsed
    }
}

/// `250ms`, `2s`, or `2` for seconds.
pub fn duration(text: &str) -> Option<Duration> {
    if let Some(milliseconds) = text.strip_suffix("ms") {
        return milliseconds.parse().ok().map(Duration::from_millis);
    }
    let seconds: f64 = text.strip_suffix('s').unwrap_or(text).parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// `512`, `10k` or `1m`, in units of 1024.
fn size(text: &str) -> Option<u64> {
    let text = text.to_ascii_lowercase();
    let (number, unit) = match text.char_indices().last()? {
        (end, 'k') => (&text[..end], 1024),
        (end, 'm') => (&text[..end], 1024 * 1024),
        _ => (text.as_str(), 1),
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// Undoes percent-encoding (RFC 3986, section 2.1); what is not UTF-8 then is replaced.
fn percent_decode(text: &str) -> String {
    let digit = |b: Option<&u8>| b.and_then(|b| (*b as char).to_digit(16));
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let pair = (digit(bytes.get(at + 1)), digit(bytes.get(at + 2)));
        match (byte, pair) {
            (b'%', (Some(high), Some(low))) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// A line for `kubectl logs`. The kubelet's probes come every few seconds and are left out.
fn log(ends: Ends, head: &hyper::http::request::Parts, status: StatusCode) {
    let agent = head.headers.get(header::USER_AGENT);
    if agent.is_some_and(|a| a.as_bytes().starts_with(b"kube-probe/")) {
        return;
    }
    say(&format!(
        "{} {} {} → {}",
        ends.peer,
        head.method,
        head.uri,
        status.as_u16()
    ));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn queries() {
        let q = Query::parse("status=503&delay=250ms&size=10k&msg=a+b%21");
        assert_eq!(q.status, Some(StatusCode::SERVICE_UNAVAILABLE));
        assert_eq!(q.delay, Duration::from_millis(250));
        assert_eq!(q.size, Some(10 * 1024));
        assert_eq!(q.message.as_deref(), Some("a b!"));
        for nothing in [
            "",
            "&&",
            "status=99",
            "status=100",
            "status=x",
            "delay=-1s",
            "delay=nan",
            "size=",
            "size=k",
        ] {
            assert_eq!(Query::parse(nothing), Query::default(), "{nothing}");
        }
        assert_eq!(Query::parse("delay=9h").delay, Duration::ZERO);
        assert_eq!(Query::parse("delay=99999s").delay, LONGEST_DELAY);
        assert_eq!(Query::parse("size=999999999m").size, Some(LARGEST_SIZE));
        assert_eq!(Query::parse("delay=1.5").delay, Duration::from_millis(1500));
    }

    #[tokio::test]
    async fn files_stay_under_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir(&root).unwrap();
        std::fs::write(root.join("index.html"), "home").unwrap();
        std::fs::write(dir.path().join("secret"), "secret").unwrap();
        for (path, found) in [
            ("/", true),
            ("/index.html", true),
            ("/nosuch", false),
            ("/../secret", false),
            ("/%2e%2e/secret", false),
            ("/..%2fsecret", false),
            ("//etc/passwd", false),
            ("/%2fetc/passwd", false),
            ("/%00", false),
        ] {
            assert_eq!(file(&root, path).await.is_some(), found, "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_query_can_be_read(query in ".*") {
            Query::parse(&query);
        }
    }
}
