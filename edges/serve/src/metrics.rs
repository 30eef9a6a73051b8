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

use arc_swap::ArcSwap;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode, header};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::http::{self, Answer};

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
        let stored = text.clone();
        let task = tokio::spawn(http::serve(listener, move |request| {
            answer(request, stored.load_full())
        }));
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

fn answer(request: &Request<Incoming>, text: Arc<String>) -> Answer {
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
