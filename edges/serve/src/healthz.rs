//! Whether a node takes packets to Services: what load balancers ask it for those with `externalTrafficPolicy: Cluster`,
//! which every node serves (KEP-3836).
//!
//! ```text
//!   GET :10256/healthz ──▶ 200, or 503 while the node is about to leave, or its rules are not as planned
//!   GET :10256/livez   ──▶ the same, whether it leaves or not
//! ```
//!
//! Port and answer are kube-proxy's (`pkg/proxy/healthcheck/proxy_health.go`).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode};
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::http::{self, Answer};

/// What is said of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Its rules are as planned.
    pub healthy: bool,
    /// It stays: it is not being deleted, nor about to be by the cluster autoscaler.
    pub node_eligible: bool,
    /// When its rules were last as planned.
    pub last_updated: Timestamp,
}

/// A server; it ends with this value.
pub struct Healthz {
    proxy: Arc<ArcSwap<Proxy>>,
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Healthz {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Healthz {
    /// Answers at this address; `[::]` is all of the node's, of IPv4 too.
    ///
    /// # Errors
    /// If somebody else has it, or the machine has not.
    pub async fn listen(address: SocketAddr, proxy: Proxy) -> io::Result<Self> {
        let listener = match address {
            SocketAddr::V6(all) if all.ip().is_unspecified() => http::bind(all.port()).await?,
            one => TcpListener::bind(one).await?,
        };
        let address = listener.local_addr()?;
        let proxy = Arc::new(ArcSwap::from_pointee(proxy));
        let asked = proxy.clone();
        let task = tokio::spawn(http::serve(listener, move |request| {
            answer(request, &asked.load())
        }));
        Ok(Self {
            proxy,
            address,
            task,
        })
    }

    /// What is answered from now on.
    pub fn store(&self, proxy: Proxy) {
        self.proxy.store(Arc::new(proxy));
    }

    /// Where it answers.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

fn answer(request: &Request<Incoming>, proxy: &Proxy) -> Answer {
    let yes = match request.uri().path() {
        "/healthz" => proxy.healthy && proxy.node_eligible,
        "/livez" => proxy.healthy,
        _ => {
            let body = Full::new(Bytes::from_static(b"look at /healthz or /livez\n"));
            let not_found = Response::builder().status(StatusCode::NOT_FOUND);
            return not_found.body(body);
        }
    };
    let now = Timestamp::now();
    let last_updated = if proxy.healthy {
        now
    } else {
        proxy.last_updated
    };
    let body = format!(
        "{{\"lastUpdated\":\"{last_updated}\",\"currentTime\":\"{now}\",\"nodeEligible\":{}}}\n",
        proxy.node_eligible
    );
    http::json(yes).body(Full::new(Bytes::from(body)))
}
