//! Gives load balancers their addresses: one agent of the cluster does, elected by a Lease.
//!
//! ```text
//!   Snapshot ─▶ the part that matters ─▶ (holder of the Lease?) ─▶ pools::allocate ─▶ status of Services, Events
//! ```
//!
//! It runs beside the node's own loop, which waits for nothing here. Where there is no LoadBalancerPool, nothing is asked
//! of the API server. Of all nodes only three contend for the Lease, so that a large cluster does not ask for it all
//! the time.
//!
//! What was written is seen again through the watch, a little later. Until then it counts as seen: otherwise a new Service
//! could be given the same address meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Client;
use parfait_cluster::{Key, LoadBalancer, LoadBalancerPool, Note, ObjectName, Snapshot};
use parfait_internet::Announcing;
use parfait_kube::{Events, Lease, RENEW};
use parfait_transport::pools::{self, Decision};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::once::Once;

/// How long a write counts as seen if the watch does not tell of it.
const FRESH: Duration = Duration::from_secs(10);

/// Hands the writer what it decides on.
pub(crate) struct Balancers {
    tell: watch::Sender<Option<Arc<Snapshot>>>,
    api: Arc<parfait_kube::Balancers>,
    node: String,
    /// Services that had to do with load balancers.
    known: BTreeSet<ObjectName>,
}

impl Balancers {
    /// Starts the writer, which ends with this value. Must be called inside a tokio runtime.
    pub(crate) fn start(client: &Client, node: &str) -> Self {
        let (tell, told) = watch::channel(None);
        let api = Arc::new(parfait_kube::Balancers::new(client, node));
        let writer = Writer {
            lease: Lease::new(client, Lease::LOAD_BALANCER, node),
            api: api.clone(),
            events: Events::new(client, node),
            node: node.to_owned(),
            written: BTreeMap::new(),
            said: Once::default(),
            failures: Once::default(),
        };
        tokio::spawn(writer.run(told));
        Self {
            tell,
            api,
            node: node.to_owned(),
            known: BTreeSet::new(),
        }
    }

    /// Says on Services that this node answers for their addresses now.
    pub(crate) fn tell(&self, new: &[Announcing]) {
        for one in new {
            let service = ObjectName::new(&one.origin.namespace, &one.origin.name);
            let message = format!(
                "{} answers for {} on {}",
                self.node, one.address, one.interface
            );
            let api = self.api.clone();
            tokio::spawn(async move { api.announce(&service, message).await });
        }
    }

    /// Takes over what the snapshot says, of which `changed` is new.
    pub(crate) fn follow(&mut self, snapshot: &Snapshot, changed: &BTreeSet<Key>) {
        let matters = |key: &Key| match key {
            Key::Service(name) => {
                let service = snapshot.services.get(name);
                self.known.contains(name) || service.is_some_and(concerns)
            }
            Key::Namespace(_) => {
                let mut pools = snapshot.pools.values();
                pools.any(LoadBalancerPool::reads_namespaces)
            }
            Key::Config | Key::Node(_) | Key::LoadBalancerPool(_) => true,
            _ => false,
        };
        if !changed.iter().any(matters) {
            return;
        }
        let services = snapshot
            .services
            .iter()
            .filter(|(_, service)| concerns(service));
        let mut part = Snapshot::default();
        part.config.clone_from(&snapshot.config);
        part.nodes.clone_from(&snapshot.nodes);
        part.pools.clone_from(&snapshot.pools);
        part.namespaces.clone_from(&snapshot.namespaces);
        part.services = services
            .map(|(name, service)| (name.clone(), service.clone()))
            .collect();
        self.known = part.services.keys().cloned().collect();
        // Those that were given addresses may have to give them back, without any pool.
        let told = |service: &parfait_cluster::Service| {
            let balancer = service.outside.load_balancer.as_deref();
            balancer.is_some_and(|balancer| balancer.told.is_some())
        };
        let part = match part.pools.is_empty() && !part.services.values().any(told) {
            true => None,
            false => Some(Arc::new(part)),
        };
        self.tell.send_if_modified(|old| {
            let differs = *old != part;
            *old = part;
            differs
        });
    }
}

/// Whether a Service has or wants an address from outside.
fn concerns(service: &parfait_cluster::Service) -> bool {
    let outside = &service.outside;
    outside.load_balancer.is_some() || !outside.external_ips.is_empty()
}

struct Writer {
    lease: Lease,
    api: Arc<parfait_kube::Balancers>,
    events: Events,
    node: String,
    /// What was written and not seen since: what it was decided on, and when.
    written: BTreeMap<ObjectName, (LoadBalancer, Decision, Instant)>,
    /// What is wrong with pools, and what could not be written.
    said: Once<Note>,
    failures: Once<String>,
}

impl Writer {
    async fn run(mut self, mut told: watch::Receiver<Option<Arc<Snapshot>>>) {
        let mut renewal = Instant::now();
        loop {
            tokio::select! {
                changed = told.changed() => if changed.is_err() { return },
                () = sleep(renewal.saturating_duration_since(Instant::now())) => {}
            }
            let snapshot = told.borrow_and_update().clone();
            let candidate = snapshot
                .as_ref()
                .filter(|snapshot| pools::writers(snapshot).contains(&self.node.as_str()));
            let Some(snapshot) = candidate else {
                renewal = Instant::now() + RENEW;
                continue;
            };
            let mut failures = BTreeSet::new();
            if Instant::now() >= renewal {
                failures.extend(
                    self.lease
                        .renew()
                        .await
                        .err()
                        .map(|error| error.to_string()),
                );
                renewal = Instant::now() + RENEW;
            }
            if self.lease.is_held() {
                self.write(snapshot, &mut failures).await;
            }
            for failure in self.failures.news(failures) {
                tracing::warn!("load balancers: {failure}; trying again");
            }
        }
    }

    async fn write(&mut self, snapshot: &Snapshot, failures: &mut BTreeSet<String>) {
        for fault in self.said.news(pools::faults(snapshot)) {
            tracing::warn!("{fault}");
            if let Err(error) = self.events.warn(&fault).await {
                tracing::debug!("an Event is lost: {error}");
            }
        }
        let snapshot = self.with_written(snapshot);
        for decision in pools::allocate(&snapshot) {
            let service = snapshot.services.get(&decision.service);
            let Some(before) = service.and_then(|service| service.outside.load_balancer.as_deref())
            else {
                continue;
            };
            if decision.is_done(before) {
                continue;
            }
            if !self.lease.is_held() {
                return;
            }
            let name = &decision.service.clone();
            let done = self
                .api
                .write(name, before, &decision.addresses, decision.told.as_ref());
            match done.await {
                Ok(true) => {
                    tracing::info!(service = %name, addresses = ?decision.addresses, "load balancer");
                    let entry = self.written.entry(name.clone());
                    let entry = entry.or_insert((before.clone(), decision.clone(), Instant::now()));
                    (entry.1, entry.2) = (decision, Instant::now());
                }
                // It has changed since, of which the watch will tell.
                Ok(false) => {}
                Err(error) => drop(failures.insert(error.to_string())),
            }
        }
    }

    /// The snapshot as it will be when the watch has told of what was written.
    fn with_written(&mut self, snapshot: &Snapshot) -> Snapshot {
        let mut seen = snapshot.clone();
        self.written.retain(|name, (before, decision, at)| {
            let service = seen.services.get_mut(name);
            let balancer = service.and_then(|service| service.outside.load_balancer.as_deref_mut());
            match balancer.filter(|balancer| *balancer == before && at.elapsed() < FRESH) {
                None => false,
                Some(balancer) => {
                    balancer.held.clone_from(&decision.addresses);
                    balancer.told.clone_from(&decision.told);
                    balancer.elsewhere = false;
                    true
                }
            }
        });
        seen
    }
}
