//! [`Flows`]: which tracked connections are looked through after which change, and what that may cost.
//!
//! ```text
//!   a UDP endpoint goes ──▶ tables are changed ──▶ UDP connections are listed ──▶ those to it are removed
//!   the first round, and every regular look: those of the other protocols as well
//! ```
//!
//! Which connections are of no use, the transport layer decides ([`parfait_transport::stale()`]). A node can track a
//! million: they are listed at most once a round, only if datagrams or associations may have lost an endpoint or got
//! their first, and for no more than a tenth of the time. What that puts off is for the next round.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parfait_cluster::ObjectName;
use parfait_kernel::conntrack::Filter;
use parfait_kernel::{Netfilter, nft};
use parfait_linux::nft::Tables;
use parfait_packet::{Family, Protocol};
use parfait_transport::{Change, Former, HostPorts, Plan, ServicePlan, Stale, stale};

/// How much longer than listing and removing took, nothing is listed again.
const PAUSE: u32 = 9;

/// What takes less is not counted. What finds nothing is: the kernel went through its whole table all the same.
const CHEAP: Duration = Duration::from_millis(5);

/// What may have changed since the last time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Changed<'a> {
    /// Anything: what it is, is found out by comparing.
    Anything,
    /// These Services, and no other.
    Services(&'a [Change]),
}

/// How it went.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// There was nothing to do, or all is done.
    Done,
    /// It is for the next round.
    PutOff,
    /// The kernel does not let itself be asked; it is for the next regular look.
    Failed(nft::Error),
}

/// What is to be looked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Owed {
    Nothing,
    /// What loses its endpoint without noticing.
    Datagrams,
    Everything,
}

/// The connections of one node that lead through Services.
#[derive(Debug)]
pub(crate) struct Flows {
    /// The Services with datagrams or associations, as they were last.
    services: BTreeMap<ObjectName, Arc<ServicePlan>>,
    host_ports: HostPorts,
    /// Where connections may still lead.
    former: Former,
    owed: Owed,
    not_before: Option<Instant>,
}

impl Default for Flows {
    fn default() -> Self {
        Self {
            services: BTreeMap::new(),
            host_ports: HostPorts::new(),
            former: Former::default(),
            owed: Owed::Everything,
            not_before: None,
        }
    }
}

impl Flows {
    /// Before the tables are changed for the first time: they say what was planned before the agent was away.
    pub(crate) fn remember(&mut self, tables: &Tables) {
        self.former.observe(tables);
    }

    /// Everything is looked through, whatever changed.
    pub(crate) fn look(&mut self) {
        self.owed = Owed::Everything;
    }

    /// After the tables were made as planned: removes the connections that no longer lead anywhere.
    pub(crate) fn tend(
        &mut self,
        plan: &Plan,
        changed: Changed<'_>,
        own: &BTreeSet<IpAddr>,
        netfilter: &mut impl Netfilter,
    ) -> Outcome {
        self.learn(plan, changed);
        let now = Instant::now();
        match (self.owed, self.not_before) {
            (Owed::Nothing, _) => return Outcome::Done,
            (_, Some(not_before)) if now < not_before => return Outcome::PutOff,
            _ => {}
        }
        let removed = self.remove(plan, own, netfilter);
        let took = now.elapsed();
        self.not_before = (took > CHEAP).then(|| Instant::now() + took * PAUSE);
        self.owed = Owed::Nothing;
        match removed {
            Ok(()) => {
                self.former = Former::default();
                Outcome::Done
            }
            Err(error) => Outcome::Failed(error),
        }
    }

    fn learn(&mut self, plan: &Plan, changed: Changed<'_>) {
        let found = match changed {
            Changed::Services(changes) => {
                for (old, new) in changes {
                    if let Some(service) = old.as_ref().or(new.as_ref()) {
                        self.services.remove(&service.service);
                    }
                    self.services.extend(new.iter().filter_map(blind));
                }
                self.former.add(changes)
            }
            Changed::Anything => {
                let after = plan.services.values().filter_map(blind).collect();
                let before = std::mem::replace(&mut self.services, after);
                let names: BTreeSet<_> = before.keys().chain(self.services.keys()).collect();
                let of = |name| (before.get(name).cloned(), self.services.get(name).cloned());
                let both = names.into_iter().map(of);
                let changes: Vec<Change> = both.filter(|(old, new)| old != new).collect();
                self.former.add(&changes)
            }
        };
        let ports = &plan.common.host_ports;
        let moved =
            self.host_ports != *ports && self.former.add_host_ports(&self.host_ports, ports);
        if moved {
            self.host_ports.clone_from(ports);
        }
        if found || moved {
            self.owed = self.owed.max(Owed::Datagrams);
        }
    }

    fn remove(
        &self,
        plan: &Plan,
        own: &BTreeSet<IpAddr>,
        netfilter: &mut impl Netfilter,
    ) -> Result<(), nft::Error> {
        let mut tally = BTreeMap::new();
        for filter in self.filters() {
            let entries = netfilter.connections(&filter)?;
            for stale in stale(plan, &self.former, &|ip| own.contains(&ip), &entries) {
                if netfilter.delete_connection(stale.entry)? {
                    tracing::debug!("removed a connection: {stale}");
                    count(&mut tally, &stale);
                }
            }
        }
        for (what, count) in tally {
            tracing::info!(removed = count, "connections that led nowhere: {what}");
        }
        Ok(())
    }

    fn filters(&self) -> Vec<Filter> {
        let all = [Protocol::Udp, Protocol::Sctp, Protocol::Tcp].into_iter();
        let owed = all.filter(|protocol| is_blind(*protocol) || self.owed == Owed::Everything);
        owed.map(|protocol| Filter {
            protocol: Some(protocol.number(Family::Ipv4)),
            // Others are their ends' to end.
            unanswered: protocol == Protocol::Tcp,
            ..Filter::default()
        })
        .collect()
    }
}

/// A Service by its name, if it has datagrams or associations.
fn blind(service: &Arc<ServicePlan>) -> Option<(ObjectName, Arc<ServicePlan>)> {
    let mut frontends = service.frontends.keys();
    let is = frontends.any(|at| is_blind(at.protocol));
    is.then(|| (service.service.clone(), service.clone()))
}

/// Whether who sends does not learn that nobody receives, or goes on all the same.
fn is_blind(protocol: Protocol) -> bool {
    protocol != Protocol::Tcp
}

/// One line for all connections to one place that end for one reason.
fn count(tally: &mut BTreeMap<String, usize>, stale: &Stale<'_>) {
    let to = stale.entry.original.destination;
    let what = format!("to {to} of {}: {}", stale.origin, stale.why);
    *tally.entry(what).or_default() += 1;
}

#[cfg(test)]
mod tests {
    use parfait_kernel::FakeNetfilter;

    use super::*;

    #[test]
    fn a_list_without_any_connection_is_paid_for_all_the_same() {
        let mut kernel = FakeNetfilter::default();
        kernel.listing = Duration::from_millis(200);
        let mut flows = Flows::default();
        let (plan, own) = (Plan::default(), BTreeSet::new());
        let mut tend = |flows: &mut Flows| flows.tend(&plan, Changed::Anything, &own, &mut kernel);
        assert!(matches!(tend(&mut flows), Outcome::Done));
        flows.look();
        assert!(matches!(tend(&mut flows), Outcome::PutOff));
    }
}
