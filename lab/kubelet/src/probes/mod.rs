//! Probes: when to ask a container how it is, and what its answers mean.
//!
//! [`Counter`] is the decision (thresholds), the modules below do the asking: [`http`], [`tcp`], [`grpc`], and exec
//! through the container program. Network probes come from the node's own network namespace to the pod's address, as
//! from every kubelet, so that policies and routes are tried as they are in a real cluster.
//!
//! One deviation, on purpose: until a startup or readiness probe first succeeds it is tried silently several
//! times a second between its periods (not before `initialDelaySeconds`), and only success counts. A server that needs 50 ms
//! to listen would otherwise be noticed after a full period, ten seconds by default, and a lab is for looking.
//! What the lab does with HTTPS probes is in [`http`]. The loop that asks is in the pod's task.

pub mod grpc;
pub mod http;
pub mod tcp;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Which question a probe asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Startup,
    Readiness,
    Liveness,
}

impl Kind {
    /// As events say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Startup => "Startup",
            Kind::Readiness => "Readiness",
            Kind::Liveness => "Liveness",
        }
    }
}

/// How to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handler {
    Http(http::Request),
    Tcp(SocketAddr),
    Grpc { to: SocketAddr, service: String },
    Exec(Vec<String>),
}

/// When to ask, and how many answers count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    pub initial_delay: Duration,
    pub period: Duration,
    pub timeout: Duration,
    pub success_threshold: u32,
    pub failure_threshold: u32,
}

impl Timing {
    /// The fields of a probe with the defaults of the API.
    pub fn of(probe: &Probe) -> Timing {
        let number = |field: Option<i32>, default: u32| match field {
            Some(n) if n > 0 => n.unsigned_abs(),
            _ => default,
        };
        let seconds = |field, default| Duration::from_secs(u64::from(number(field, default)));
        Timing {
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
            success_threshold: number(probe.success_threshold, 1),
            failure_threshold: number(probe.failure_threshold, 3),
        }
    }
}

/// How a probe asks the container of a pod at `address`, or what is wrong with it.
pub fn handler(
    probe: &Probe,
    container: &Container,
    address: Option<IpAddr>,
) -> Result<Handler, String> {
    if let Some(exec) = &probe.exec {
        return Ok(Handler::Exec(exec.command.clone().unwrap_or_default()));
    }
    if let Some(get) = &probe.http_get {
        return http::Request::of(get, container, address).map(Handler::Http);
    }
    let address = address.ok_or("the pod has no address");
    if let Some(socket) = &probe.tcp_socket {
        let ip = match socket.host.as_deref().filter(|h| !h.is_empty()) {
            Some(host) => host
                .parse()
                .map_err(|_| format!("tcpSocket.host {host:?} is not an address"))?,
            None => address?,
        };
        return Ok(Handler::Tcp(SocketAddr::new(
            ip,
            port(&socket.port, container)?,
        )));
    }
    if let Some(grpc) = &probe.grpc {
        let number =
            u16::try_from(grpc.port).map_err(|_| format!("port {} is no port", grpc.port))?;
        return Ok(Handler::Grpc {
            to: SocketAddr::new(address?, number),
            service: grpc.service.clone().unwrap_or_default(),
        });
    }
    Err("the probe has no handler: give one of exec, httpGet, tcpSocket, grpc".to_owned())
}

/// A port by number or by its name in the container.
pub fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(n) => *n,
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten();
            let named = named.filter(|p| p.name.as_deref() == Some(name));
            match (named.map(|p| p.container_port).next(), name.parse()) {
                (Some(n), _) | (None, Ok(n)) => n,
                _ => {
                    return Err(format!(
                        "container {:?} has no port named {name:?}",
                        container.name
                    ));
                }
            }
        }
    };
    u16::try_from(number)
        .ok()
        .filter(|n| *n > 0)
        .ok_or_else(|| format!("port {number} is no port"))
}

/// Counts answers in a row until they mean something.
#[derive(Debug, Clone)]
pub struct Counter {
    success_threshold: u32,
    failure_threshold: u32,
    row: u32,
    last: Option<bool>,
}

impl Counter {
    pub fn new(timing: &Timing) -> Counter {
        Counter {
            success_threshold: timing.success_threshold,
            failure_threshold: timing.failure_threshold,
            row: 0,
            last: None,
        }
    }

    /// Takes one answer. Gives the verdict that it leads to, if there are enough in a row.
    pub fn count(&mut self, success: bool) -> Option<bool> {
        if self.last != Some(success) {
            self.row = 0;
            self.last = Some(success);
        }
        self.row = self.row.saturating_add(1);
        let threshold = if success {
            self.success_threshold
        } else {
            self.failure_threshold
        };
        (self.row >= threshold).then_some(success)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn verdicts_need_enough_answers_in_a_row() {
        let probe: Probe =
            serde_json::from_value(json!({"successThreshold": 2, "failureThreshold": 3}))
                .expect("probe");
        let mut counter = Counter::new(&Timing::of(&probe));
        let answers = [
            true, false, true, true, false, false, true, false, false, false, false,
        ];
        let verdicts: Vec<Option<bool>> = answers.iter().map(|a| counter.count(*a)).collect();
        let (y, n) = (Some(true), Some(false));
        assert_eq!(
            verdicts,
            [None, None, None, y, None, None, None, None, None, n, n]
        );
    }

    #[test]
    fn handlers_find_their_ports() {
        let container: Container = serde_json::from_value(json!({"name": "c",
            "ports": [{"name": "web", "containerPort": 8080}]}))
        .expect("container");
        let ip: IpAddr = "fd00::5".parse().expect("ip");
        let of = |probe: serde_json::Value| {
            handler(
                &serde_json::from_value(probe).expect("probe"),
                &container,
                Some(ip),
            )
        };
        assert_eq!(
            of(json!({"tcpSocket": {"port": "web"}})),
            Ok(Handler::Tcp(SocketAddr::new(ip, 8080)))
        );
        assert_eq!(
            of(json!({"grpc": {"port": 9}})),
            Ok(Handler::Grpc {
                to: SocketAddr::new(ip, 9),
                service: String::new()
            })
        );
        assert!(
            of(json!({"tcpSocket": {"port": "nope"}}))
                .expect_err("no port")
                .contains("nope")
        );
        assert!(of(json!({})).is_err());
    }
}
