//! Where load balancers ask this node whether it has endpoints of a Service (`spec.healthCheckNodePort`).
//!
//! ```text
//!   GET node:31000 ──▶ Service default/web: 2 endpoints here
//! ```
//!
//! Only a Service with `externalTrafficPolicy: Local` has one. Answering is not done here: the agent listens.

use std::collections::BTreeMap;

use parfait_cluster::{Note, ObjectName};
use parfait_packet::{Kind, Origin};

use crate::Plan;

/// The field of the Service.
const FIELD: &str = "spec.healthCheckNodePort";

impl Plan {
    /// The Service that is asked for at each port, and how many of its endpoints on this node take new connections.
    /// The API server gives no port to two Services; where objects come from elsewhere, the older has it, as with node ports.
    #[must_use]
    pub fn health_checks(&self) -> BTreeMap<u16, (&ObjectName, usize)> {
        let mut checks = BTreeMap::new();
        let mut services: Vec<_> = self.remarkable().collect();
        // By name they are already.
        services.sort_by_key(|(_, service)| service.created.unwrap_or(i64::MAX));
        for (name, service) in services {
            if let Some((port, endpoints)) = service.health_check {
                checks.entry(port).or_insert((name, endpoints));
            }
        }
        checks
    }

    pub(crate) fn lost_health_checks(&self) -> impl Iterator<Item = Note> {
        let checks = self.health_checks();
        self.remarkable().filter_map(move |(name, service)| {
            let (port, _) = service.health_check?;
            let (winner, _) = checks.get(&port).filter(|(winner, _)| *winner != name)?;
            let origin = Origin::new(Kind::Service, &name.namespace, &name.name).field(FIELD);
            let message = format!(
                "port {port} already answers health checks of Service {winner}; load balancers are told of that one alone"
            );
            Some(Note::new(origin, message))
        })
    }
}
