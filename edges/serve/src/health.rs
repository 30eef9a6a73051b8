//! Health checks of Services: where load balancers ask a node whether it has endpoints of a Service with
//! `externalTrafficPolicy: Local` (`spec.healthCheckNodePort`).
//!
//! ```text
//!   load balancer ──GET /──▶ node:31000 ──▶ 200, 2 local endpoints     send packets here
//!                        └─▶ node:31000 ──▶ 503, 0 local endpoints     send none
//! ```
//!
//! The answer is kube-proxy's (`pkg/proxy/healthcheck/service_health.go`): any path, 200 with local endpoints and
//! 503 without, the counts as JSON, and the header `X-Load-Balancing-Endpoint-Weight`. Which Services are asked for
//! where is decided by the transport layer.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http_body_util::Full;
use hyper::body::Bytes;
use tokio::task::JoinHandle;

use crate::http::{self, Answer};

/// What a load balancer is told about a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's name.
    pub name: String,
    /// How many of its endpoints on this node take new connections.
    pub local_endpoints: usize,
    /// Whether packets go where endpoints are counted: the node's rules are in force.
    pub service_proxy_healthy: bool,
}

/// A port that could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error(
    "health checks of Service {namespace}/{name}: listen on port {port}: {source}; load balancers take this node for dead"
)]
pub struct BindError {
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's name.
    pub name: String,
    /// The port.
    pub port: u16,
    /// The system's reason.
    pub source: io::Error,
}

/// The health checks of this node.
#[derive(Default)]
pub struct Server {
    ports: BTreeMap<u16, Port>,
}

struct Port {
    health: Arc<ArcSwap<Health>>,
    task: JoinHandle<()>,
}

impl Drop for Port {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Answers at these ports of all the node's addresses, and no more at any other. What is told may
    /// change without a connection noticing.
    ///
    /// # Errors
    /// The ports that somebody else has; all others are served.
    pub async fn listen(&mut self, wanted: BTreeMap<u16, Health>) -> Result<(), Vec<BindError>> {
        self.ports.retain(|port, _| wanted.contains_key(port));
        let mut errors = Vec::new();
        for (port, health) in wanted {
            if let Some(served) = self.ports.get(&port) {
                served.health.store(Arc::new(health));
                continue;
            }
            match http::bind(port).await {
                Ok(listener) => {
                    let health = Arc::new(ArcSwap::from_pointee(health));
                    let asked = health.clone();
                    let task = tokio::spawn(http::serve(listener, move |_| answer(&asked.load())));
                    self.ports.insert(port, Port { health, task });
                }
                Err(source) => errors.push(BindError {
                    namespace: health.namespace,
                    name: health.name,
                    port,
                    source,
                }),
            }
        }
        match errors.is_empty() {
            true => Ok(()),
            false => Err(errors),
        }
    }

    /// The ports that are answered at.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.ports.keys().copied()
    }
}

fn answer(health: &Health) -> Answer {
    let body = format!(
        "{{\"service\":{{\"namespace\":\"{}\",\"name\":\"{}\"}},\"localEndpoints\":{},\"serviceProxyHealthy\":{}}}\n",
        health.namespace, health.name, health.local_endpoints, health.service_proxy_healthy
    );
    http::json(health.local_endpoints > 0 && health.service_proxy_healthy)
        .header("X-Load-Balancing-Endpoint-Weight", health.local_endpoints)
        .body(Full::new(Bytes::from(body)))
}
