//! Cluster DNS on this node: the zone is swapped whole, and served at the addresses that the plan
//! has put on the loopback.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use parfait_cluster::{Key, Snapshot};
use parfait_serve::dns;
use tokio::task::JoinHandle;

/// The port of DNS (RFC 1035 section 4.2).
const PORT: u16 = 53;

/// The node's DNS server.
pub(crate) struct Names {
    upstreams: Vec<SocketAddr>,
    /// What the zone is made of; `None` until the first snapshot.
    plan: Option<parfait_application::Plan>,
    server: Option<Arc<dns::Names>>,
    serving: Option<(BTreeSet<SocketAddr>, JoinHandle<()>)>,
}

impl Names {
    pub(crate) fn new(upstreams: Vec<SocketAddr>) -> Self {
        Self {
            upstreams,
            plan: None,
            server: None,
            serving: None,
        }
    }

    /// Brings the sockets to the addresses that are served.
    pub(crate) fn serve(&mut self, plan: &parfait_internet::Plan) -> Result<(), dns::BindError> {
        let Some(server) = self.server.clone() else {
            return Ok(());
        };
        let served = plan
            .served
            .iter()
            .map(|served| SocketAddr::new(served.address, PORT));
        let served: BTreeSet<SocketAddr> = served.collect();
        let ended = |(_, task): &(_, JoinHandle<()>)| task.is_finished();
        let same = self.serving.as_ref().is_some_and(|(at, _)| *at == served);
        if same && !self.serving.as_ref().is_some_and(ended) {
            return Ok(());
        }
        // Closes the sockets, so that the same addresses can be bound again.
        if let Some((_, task)) = self.serving.take() {
            task.abort();
        }
        if served.is_empty() {
            return Ok(());
        }
        let addresses: Vec<_> = served.iter().copied().collect();
        let sockets = dns::bind(&addresses)?;
        tracing::info!(?addresses, "cluster DNS answers");
        let task = tokio::spawn(async move {
            if let Err(error) = dns::run(sockets, server).await {
                tracing::warn!("cluster DNS: {error}");
            }
        });
        self.serving = Some((served, task));
        Ok(())
    }

    /// Brings the zone to what the snapshot says, of which `changed` is new.
    pub(crate) fn follow(&mut self, snapshot: &Snapshot, changed: &BTreeSet<Key>) {
        let (Some(plan), Some(server)) = (&mut self.plan, &self.server) else {
            let plan = parfait_application::plan(snapshot);
            let zone = parfait_application::apply(&plan);
            self.server = Some(Arc::new(dns::Names::new(zone, self.upstreams.clone())));
            self.plan = Some(plan);
            return;
        };
        let changes: Vec<_> = changed
            .iter()
            .flat_map(|key| plan.replan(snapshot, key))
            .collect();
        if !changes.is_empty() {
            let mut zone = (*server.zone()).clone();
            parfait_application::reapply(&mut zone, plan, &changes);
            server.swap(zone);
        }
    }
}
