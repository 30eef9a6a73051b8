//! What load balancers ask each node: at a Service's `healthCheckNodePort` whether it has endpoints
//! (`externalTrafficPolicy: Local`), and at `/healthz` whether it takes packets at all (`Cluster`).
//!
//! ```text
//!   Plan::health_checks ─▶ listen when a port is new ─▶ 200 or 503, as kube-proxy answers
//!   Node                ─▶ listen once               ─▶ 503 while it is about to leave
//! ```
//!
//! A node that could not bring its rules to the plan for [`STALE`] says so at both (`serviceProxyHealthy: false`, 503), as
//! kube-proxy does: what it counts may not be where its packets go. One that has never done it does not listen.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parfait_cluster::ObjectName;
use parfait_serve::health::{BindError, Health, Server};
use parfait_serve::healthz::{Healthz, Proxy};

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
    /// When they last were.
    updated: Option<Timestamp>,
    /// Where it is asked for the node.
    address: Option<SocketAddr>,
    healthz: Option<Healthz>,
}

impl HealthChecks {
    /// Those of a node that is asked for itself at this address.
    pub(crate) fn at(address: Option<SocketAddr>) -> Self {
        Self {
            address,
            ..Self::default()
        }
    }

    /// Notes whether the plan's rules are in the kernel.
    fn note(&mut self, in_force: bool) {
        if in_force {
            (self.stale, self.updated) = (None, Some(Timestamp::now()));
        } else {
            self.stale.get_or_insert_with(Instant::now);
        }
    }

    fn is_healthy(&self) -> bool {
        self.stale.is_none_or(|since| since.elapsed() < STALE)
    }

    /// Answers whether the node takes packets; it does not if it is about to leave.
    ///
    /// # Errors
    /// The address, if somebody else has it.
    pub(crate) async fn serve_node(&mut self, leaving: bool) -> Result<(), String> {
        let (Some(address), Some(last_updated)) = (self.address, self.updated) else {
            return Ok(());
        };
        let proxy = Proxy {
            healthy: self.is_healthy(),
            node_eligible: !leaving,
            last_updated,
        };
        if let Some(healthz) = &self.healthz {
            healthz.store(proxy);
            return Ok(());
        }
        let listened = Healthz::listen(address, proxy).await;
        let healthz = listened.map_err(|error| {
            format!(
                "healthz: listen at {address}: {error}; load balancers may take this node for dead: stop what listens there, \
                 kube-proxy perhaps, or give --healthz-bind-address"
            )
        })?;
        self.healthz = Some(healthz);
        Ok(())
    }

    /// Answers at each port of a Service how many endpoints it has here, by a plan whose rules are in the kernel or not.
    ///
    /// # Errors
    /// The ports that somebody else has.
    pub(crate) async fn serve(
        &mut self,
        checks: BTreeMap<u16, (&ObjectName, usize)>,
        in_force: bool,
    ) -> Result<(), Vec<BindError>> {
        self.note(in_force);
        let service_proxy_healthy = self.is_healthy();
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

    /// The status at `/healthz` and at `/livez`.
    async fn node(checks: &HealthChecks) -> Option<String> {
        let port = checks.healthz.as_ref()?.address().port();
        let asked = tokio::task::spawn_blocking(move || {
            let status = |path| {
                let url = format!("http://127.0.0.1:{port}/{path}");
                let args = ["-s", "-m", "20", "-o", "/dev/null", "-w", "%{http_code}"];
                let curl = Command::new("curl").args(args).arg(url).output();
                String::from_utf8(curl.expect("curl runs").stdout).expect("a number")
            };
            format!("{} {}", status("healthz"), status("livez"))
        });
        Some(asked.await.expect("curl ends"))
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_node_is_asked_once_its_rules_stand() {
        let taken = tokio::net::TcpListener::bind("[::]:0").await;
        let taken = taken.expect("a free port");
        let mut checks = HealthChecks::at(taken.local_addr().ok());
        checks.note(false);
        assert_eq!(checks.serve_node(false).await, Ok(()));
        assert_eq!(
            node(&checks).await,
            None,
            "never as planned: nobody listens"
        );
        checks.note(true);
        let error = checks.serve_node(false).await.expect_err("taken");
        assert!(error.contains("--healthz-bind-address"), "{error}");
        drop(taken);
        for (in_force, leaving, said) in [
            (true, false, "200 200"),
            (true, true, "503 200"),
            (false, false, "200 200"),
        ] {
            checks.note(in_force);
            checks.serve_node(leaving).await.expect("free");
            assert_eq!(
                node(&checks).await.as_deref(),
                Some(said),
                "{in_force} {leaving}"
            );
        }
        checks.stale = Instant::now().checked_sub(STALE);
        checks.serve_node(false).await.expect("its own");
        assert_eq!(node(&checks).await.as_deref(), Some("503 503"));
        checks.note(true);
        checks.serve_node(false).await.expect("its own");
        assert_eq!(node(&checks).await.as_deref(), Some("200 200"));
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
