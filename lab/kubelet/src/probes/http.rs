//! The HTTP probe: a GET that must answer 200 to 399.
//!
//! A redirect therefore counts as success without being followed. With `scheme: HTTPS` the kubelet speaks TLS and
//! verifies nothing. The lab's kubelet does not speak TLS: such a probe succeeds when the port accepts a connection, which
//! is also what a stand-in, without certificates, can offer.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction};
use tokio::net::TcpStream;

use super::{port, tcp};

/// The kubelet stops reading there as well.
const MAX_BODY: usize = 10 << 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub to: SocketAddr,
    pub tls: bool,
    pub path: String,
    pub headers: Vec<(String, String)>,
}

impl Request {
    /// What an `httpGet` asks of the container of a pod at `address`.
    pub fn of(
        get: &HTTPGetAction,
        container: &Container,
        address: Option<IpAddr>,
    ) -> Result<Request, String> {
        let ip = match get.host.as_deref().filter(|h| !h.is_empty()) {
            Some("localhost") => IpAddr::from([127, 0, 0, 1]),
            Some(host) => host
                .parse()
                .map_err(|_| format!("httpGet.host {host:?} is not an address"))?,
            None => address.ok_or("the pod has no address")?,
        };
        let path = get.path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/");
        let headers = get.http_headers.iter().flatten();
        Ok(Request {
            to: SocketAddr::new(ip, port(&get.port, container)?),
            tls: get
                .scheme
                .as_deref()
                .is_some_and(|s| s.eq_ignore_ascii_case("https")),
            path: if path.starts_with('/') {
                path.to_owned()
            } else {
                format!("/{path}")
            },
            headers: headers.map(|h| (h.name.clone(), h.value.clone())).collect(),
        })
    }
}

/// Asks once. The caller limits the time.
pub async fn ask(request: &Request) -> Result<(), String> {
    if request.tls {
        return tcp::ask(request.to).await;
    }
    let url = format!("http://{}{}", request.to, request.path);
    let failed = |e: String| format!("Get \"{url}\": {e}");
    let stream = TcpStream::connect(request.to)
        .await
        .map_err(|e| failed(format!("dial tcp {}: {e}", request.to)))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| failed(e.to_string()))?;
    let driver = tokio::spawn(connection);
    let answer = sender
        .send_request(build(request).map_err(failed)?)
        .await
        .map_err(|e| failed(e.to_string()));
    let result = match answer {
        Ok(answer) => {
            let status = answer.status();
            // Read as much as a kubelet would, so that the server can finish its answer.
            let _ = Limited::new(answer.into_body(), MAX_BODY).collect().await;
            match status.as_u16() {
                200..=399 => Ok(()),
                code => Err(format!("HTTP probe failed with statuscode: {code}")),
            }
        }
        Err(error) => Err(error),
    };
    driver.abort();
    result
}

fn build(request: &Request) -> Result<http::Request<Empty<Bytes>>, String> {
    let mut builder = http::Request::get(&request.path);
    let given = |name: &str| {
        request
            .headers
            .iter()
            .any(|(n, _)| n.eq_ignore_ascii_case(name))
    };
    for (name, value) in &request.headers {
        builder = builder.header(name, value);
    }
    for (name, value) in [
        ("host", request.to.to_string()),
        ("user-agent", "kube-probe/1.36".to_owned()),
        ("accept", "*/*".to_owned()),
        ("connection", "close".to_owned()),
    ] {
        if !given(name) {
            builder = builder.header(name, value);
        }
    }
    builder.body(Empty::new()).map_err(|e| e.to_string())
}
