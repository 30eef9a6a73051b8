//! Cluster DNS on this node: the zone is swapped whole, and served at the addresses that the plan
//! has put on the loopback.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use parfait_cluster::{Key, Snapshot};
use parfait_serve::dns;

/// The port of DNS (RFC 1035 section 4.2).
const PORT: u16 = 53;

/// The node's DNS server.
pub(crate) struct Names {
    upstreams: Vec<SocketAddr>,
    /// Nothing until the first snapshot.
    served: Option<Served>,
}

struct Served {
    /// What the zone is made of.
    plan: parfait_application::Plan,
    names: Arc<dns::Names>,
    server: dns::Server,
}

impl Names {
    pub(crate) fn new(upstreams: Vec<SocketAddr>) -> Self {
        Self {
            upstreams,
            served: None,
        }
    }

    /// Brings the sockets to the addresses that are served.
    pub(crate) async fn serve(
        &mut self,
        plan: &parfait_internet::Plan,
    ) -> Result<(), dns::BindError> {
        let Some(Served { server, .. }) = &mut self.served else {
            return Ok(());
        };
        let wanted = plan.served.iter();
        let wanted: BTreeSet<_> = wanted
            .map(|served| SocketAddr::new(served.address, PORT))
            .collect();
        let before: BTreeSet<_> = server.addresses().collect();
        let outcome = server.listen(&wanted).await;
        let now: BTreeSet<_> = server.addresses().collect();
        if before != now {
            tracing::info!(addresses = ?now, "cluster DNS answers");
        }
        outcome
    }

    /// Brings the zone to what the snapshot says, of which `changed` is new.
    pub(crate) fn follow(&mut self, snapshot: &Snapshot, changed: &BTreeSet<Key>) {
        let Some(Served { plan, names, .. }) = &mut self.served else {
            let plan = parfait_application::plan(snapshot);
            let zone = parfait_application::apply(&plan);
            let names = Arc::new(dns::Names::new(zone, self.upstreams.clone()));
            self.served = Some(Served {
                plan,
                server: dns::Server::new(names.clone()),
                names,
            });
            return;
        };
        let changes: Vec<_> = changed
            .iter()
            .flat_map(|key| plan.replan(snapshot, key))
            .collect();
        if !changes.is_empty() {
            let mut zone = (*names.zone()).clone();
            parfait_application::reapply(&mut zone, plan, &changes);
            names.swap(zone);
        }
    }
}
