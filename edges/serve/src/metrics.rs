//! What has been counted on this node, for Prometheus to read (its text format, version 0.0.4).
//!
//! ```text
//!   GET http://127.0.0.1:9442/metrics ──▶ the text that was stored last
//! ```
//!
//! It names policies and asks nobody who he is: who listens at more than the loopback lets everybody read it who reaches
//! the node there.

use std::io;
use std::net::SocketAddr;
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

/// Clients that are served at the same time; more wait.
const CLIENTS: usize = 16;

/// How long a client may take to ask, and a whole visit may last.
const PATIENCE: Duration = Duration::from_secs(10);
const VISIT: Duration = Duration::from_secs(30);

const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A server; it ends with this value.
pub struct Metrics {
    text: Arc<ArcSwap<String>>,
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Metrics {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Metrics {
    /// Answers at this address.
    ///
    /// # Errors
    /// If somebody else has it, or the machine has not.
    pub async fn listen(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let text = Arc::new(ArcSwap::from_pointee(String::new()));
        let task = tokio::spawn(accept(listener, text.clone()));
        Ok(Self {
            text,
            address,
            task,
        })
    }

    /// What is answered from now on.
    pub fn store(&self, text: String) {
        self.text.store(Arc::new(text));
    }

    /// Where it answers.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
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
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let metrics = Metrics::listen(loopback).await.expect("a free port");
        let port = metrics.address().port();
        let asked = async |at: &'static str| {
            let (host, path) = at.split_once('/').expect("a path");
            let url = format!("http://{host}:{port}/{path}");
            let curl = move || {
                Command::new("curl")
                    .args(["-s", "-m", "20", "-w", "%{http_code}", &url])
                    .output()
            };
            let said = tokio::task::spawn_blocking(curl).await.expect("curl ends");
            String::from_utf8(said.expect("curl runs").stdout).expect("text")
        };
        metrics.store("a 1\n".to_owned());
        assert_eq!(asked("127.0.0.1/metrics").await, "a 1\n200");
        metrics.store("a 2\n".to_owned());
        assert_eq!(asked("127.0.0.1/metrics").await, "a 2\n200");
        assert_eq!(asked("127.0.0.1/").await, "look at /metrics\n404");
        assert_eq!(asked("127.0.0.2/metrics").await, "000", "nowhere else");
    }
}
