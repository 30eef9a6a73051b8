//! What has been counted on this node, for Prometheus to read (its text format, version 0.0.4).
//!
//! ```text
//!   GET http://node:9442/metrics ──▶ the text that was stored last
//! ```

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::health::bind;

/// Clients that are served at the same time; more wait.
const CLIENTS: usize = 16;

/// How long a client may take to ask, and a whole visit may last.
const PATIENCE: Duration = Duration::from_secs(10);
const VISIT: Duration = Duration::from_secs(30);

const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A server; it ends with this value.
pub struct Metrics {
    text: Arc<ArcSwap<String>>,
    port: u16,
    task: JoinHandle<()>,
}

impl Drop for Metrics {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Metrics {
    /// Answers at this port of all the node's addresses.
    ///
    /// # Errors
    /// If somebody else has the port.
    pub async fn listen(port: u16) -> io::Result<Self> {
        let listener = bind(port).await?;
        let port = listener.local_addr()?.port();
        let text = Arc::new(ArcSwap::from_pointee(String::new()));
        let task = tokio::spawn(accept(listener, text.clone()));
        Ok(Self { text, port, task })
    }

    /// What is answered from now on.
    pub fn store(&self, text: String) {
        self.text.store(Arc::new(text));
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}

async fn accept(listener: TcpListener, text: Arc<ArcSwap<String>>) {
    let clients = Arc::new(Semaphore::new(CLIENTS));
    // The semaphore is never closed.
    while let Ok(permit) = clients.clone().acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: others must end first.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let text = text.clone();
        tokio::spawn(async move {
            // Who breaks off, or lasts too long, is not answered; that is its own affair.
            let _ = tokio::time::timeout(VISIT, serve(stream, &text)).await;
            drop(permit);
        });
    }
}

async fn serve(stream: TcpStream, text: &ArcSwap<String>) {
    let service = service_fn(async |request| answer(&request, text.load_full()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), service);
    let _ = connection.await;
}

fn answer(
    request: &Request<Incoming>,
    text: Arc<String>,
) -> Result<Response<Full<Bytes>>, hyper::http::Error> {
    let (status, body) = match request.uri().path() {
        "/metrics" => (StatusCode::OK, Bytes::from(Arc::unwrap_or_clone(text))),
        _ => (
            StatusCode::NOT_FOUND,
            Bytes::from_static(b"look at /metrics\n"),
        ),
    };
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, FORMAT)
        .body(Full::new(body))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn curl_reads_what_was_stored_last() {
        let metrics = Metrics::listen(0).await.expect("a free port");
        let port = metrics.port();
        let asked = async |path: &'static str| {
            let url = format!("http://127.0.0.1:{port}{path}");
            let curl = move || {
                Command::new("curl")
                    .args(["-s", "-m", "20", "-w", "%{http_code}", &url])
                    .output()
            };
            let said = tokio::task::spawn_blocking(curl).await.expect("curl ends");
            String::from_utf8(said.expect("curl runs").stdout).expect("text")
        };
        metrics.store("a 1\n".to_owned());
        assert_eq!(asked("/metrics").await, "a 1\n200");
        metrics.store("a 2\n".to_owned());
        assert_eq!(asked("/metrics").await, "a 2\n200");
        assert_eq!(asked("/").await, "look at /metrics\n404");
    }
}
