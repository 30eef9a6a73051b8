//! [`Denied`]: when tracked connections are judged by policies anew, and what that may cost.
//!
//! A node can track a million: they are listed when policies came to something else on this node, and when the agent
//! begins; and for no more than a tenth of the time. What that puts off is for the next round. Which connections are
//! forbidden, the transport layer decides ([`parfait_transport::policy::forbidden`]).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parfait_kernel::conntrack::Filter;
use parfait_kernel::{Kernel, Netfilter};
use parfait_transport::policy::{ENDED, Plan, end, forbidden};

use crate::machine::Machine;

/// How much longer than listing and removing took, nothing is listed again.
const PAUSE: u32 = 9;

/// What takes less is not counted.
const CHEAP: Duration = Duration::from_millis(5);

/// What became of the connections of one node.
#[derive(Debug, Default)]
pub(crate) struct Denied {
    /// The plan that they were judged by.
    judged: Option<Arc<Plan>>,
    not_before: Option<Instant>,
}

impl Denied {
    /// After the tables were made as planned: ends the connections that policies forbid. Whether that is done, or for
    /// the next round.
    ///
    /// # Errors
    /// If the kernel does not let itself be asked.
    pub(crate) fn tend<K: Kernel, N: Netfilter>(
        &mut self,
        plan: &Arc<Plan>,
        own: &BTreeSet<IpAddr>,
        machine: &mut Machine<K, N>,
    ) -> Result<bool, String> {
        let same = |judged: &Arc<Plan>| Arc::ptr_eq(judged, plan) || judged == plan;
        if self.judged.as_ref().is_some_and(same) {
            return Ok(true);
        }
        if plan.pods.is_empty() && plan.host.is_none() {
            self.judged = Some(Arc::clone(plan));
            return Ok(true);
        }
        let now = Instant::now();
        if self.not_before.is_some_and(|not_before| now < not_before) {
            return Ok(false);
        }
        let ended = judge(plan, own, machine);
        let took = now.elapsed();
        self.not_before = (took > CHEAP).then(|| Instant::now() + took * PAUSE);
        let ended = ended?;
        self.judged = Some(Arc::clone(plan));
        if ended > 0 {
            tracing::info!(ended, "connections that policies do not allow any more");
        }
        Ok(true)
    }
}

/// Gives how many were ended.
fn judge<K: Kernel, N: Netfilter>(
    plan: &Plan,
    own: &BTreeSet<IpAddr>,
    machine: &mut Machine<K, N>,
) -> Result<usize, String> {
    let (_, netfilter) = machine.parts();
    let entries = netfilter.connections(&Filter::default());
    let entries = entries.map_err(|error| error.to_string())?;
    let forbidden = forbidden(plan, own, &entries);
    // First into the set, so that no packet comes between.
    let noted = machine.tend(ENDED, |tables| end(plan, own, &forbidden, tables));
    noted.map_err(|error| error.to_string())?;
    let (_, netfilter) = machine.parts();
    let mut ended = 0;
    for one in &forbidden {
        let removed = netfilter.delete_connection(one.entry);
        if removed.map_err(|error| error.to_string())? {
            ended += 1;
            let direction = one.direction.name();
            tracing::debug!(
                "ended a connection: {}, {direction} of {}",
                one.entry,
                one.pod
            );
        }
    }
    Ok(ended)
}
