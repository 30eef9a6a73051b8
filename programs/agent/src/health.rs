//! Health checks of Services with `externalTrafficPolicy: Local`: load balancers ask each node at the Service's
//! `healthCheckNodePort` whether it has endpoints, and are answered from what the transport layer planned.
//!
//! ```text
//!   Plan::health_checks ─▶ listen when a port is new ─▶ 200 or 503, as kube-proxy answers
//! ```
//!
//! A node that could not bring its rules to the plan for [`STALE`] says so (`serviceProxyHealthy: false`, 503), as kube-proxy
//! does: what it counts may not be where its packets go.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parfait_cluster::ObjectName;
use parfait_serve::health::{BindError, Health, Server};

/// How long rules may differ from the plan: kube-proxy's `healthTimeout`, twice its sync period of 30 s.
const STALE: Duration = Duration::from_secs(60);

/// The health checks of this node.
#[derive(Default)]
pub(crate) struct HealthChecks {
    server: Server,
    /// What is answered.
    told: BTreeMap<u16, Health>,
    /// Some port could not be listened on.
    failed: bool,
    /// Since when the rules are not as planned.
    stale: Option<Instant>,
}

impl HealthChecks {
    /// Answers at each port of a Service how many endpoints it has here, by a plan whose rules are in the kernel or not.
    ///
    /// # Errors
    /// The ports that somebody else has.
    pub(crate) async fn serve(
        &mut self,
        checks: BTreeMap<u16, (&ObjectName, usize)>,
        in_force: bool,
    ) -> Result<(), Vec<BindError>> {
        self.stale = match in_force {
            true => None,
            false => self.stale.or_else(|| Some(Instant::now())),
        };
        let service_proxy_healthy = self.stale.is_none_or(|since| since.elapsed() < STALE);
        let wanted: BTreeMap<u16, Health> = checks
            .into_iter()
            .map(|(port, (service, local_endpoints))| {
                let health = Health {
                    namespace: service.namespace.clone(),
                    name: service.name.clone(),
                    local_endpoints,
                    service_proxy_healthy,
                };
                (port, health)
            })
            .collect();
        if wanted == self.told && !self.failed {
            return Ok(());
        }
        let listened = self.server.listen(wanted.clone()).await;
        self.failed = listened.is_err();
        if !self.told.keys().eq(wanted.keys()) {
            let ports: Vec<u16> = self.server.ports().collect();
            tracing::info!(?ports, "health checks of Services are answered");
        }
        self.told = wanted;
        listened
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    async fn status(port: u16) -> String {
        let url = format!("http://127.0.0.1:{port}/healthz");
        let asked = tokio::task::spawn_blocking(move || {
            let write = "%{stderr}%{http_code} %header{x-load-balancing-endpoint-weight}";
            let curl = Command::new("curl")
                .args(["-s", "-m", "20", "-w", write, &url])
                .output();
            let said = curl.expect("curl runs");
            let healthy = String::from_utf8_lossy(&said.stdout).contains("Healthy\":true");
            format!("{} {healthy}", String::from_utf8_lossy(&said.stderr))
        });
        asked.await.expect("curl ends")
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_planned_is_answered() {
        let free = std::net::TcpListener::bind("[::]:0").and_then(|held| held.local_addr());
        let port = free.expect("a free port").port();
        let web = ObjectName::new("shop", "web");
        let plan = |endpoints| BTreeMap::from([(port, (&web, endpoints))]);
        let mut checks = HealthChecks::default();
        checks.serve(plan(2), true).await.expect("free");
        assert_eq!(status(port).await, "200 2 true");
        checks.serve(plan(0), true).await.expect("its own");
        assert_eq!(status(port).await, "503 0 true");
        checks.serve(plan(1), false).await.expect("its own");
        assert_eq!(status(port).await, "200 1 true", "a hiccup is not told");
        checks.stale = Instant::now().checked_sub(STALE);
        checks.serve(plan(1), false).await.expect("its own");
        assert_eq!(status(port).await, "503 1 false", "kube-proxy's words");
        checks.serve(plan(1), true).await.expect("its own");
        assert_eq!(status(port).await, "200 1 true");
        checks.serve(BTreeMap::new(), true).await.expect("nothing");
        assert!(status(port).await.starts_with("000"), "nobody listens");
    }

    #[tokio::test]
    async fn a_port_that_somebody_has_is_tried_again() {
        let taken = tokio::net::TcpListener::bind("[::]:0").await;
        let taken = taken.expect("a free port");
        let port = taken.local_addr().expect("bound").port();
        let mut checks = HealthChecks::default();
        let web = ObjectName::new("shop", "web");
        let plan = || BTreeMap::from([(port, (&web, 1))]);
        assert!(checks.serve(plan(), true).await.is_err());
        assert!(checks.serve(plan(), true).await.is_err(), "still so");
        drop(taken);
        assert!(checks.serve(plan(), true).await.is_ok());
    }
}
