//! [`Lease`]: one of several programs does a job, by a coordination.k8s.io Lease.
//!
//! ```text
//!   node-1 ──renews every few seconds──▶ Lease kube-system/NAME {holderIdentity: node-1, renewTime}
//!   node-2 ──sees it unchanged for 15 s──▶ takes it
//! ```
//!
//! As client-go's leader election: whether a lease has run out is told from how long it has not changed by one's own
//! clock, so that clocks need not agree. Who could not renew for long is no holder any more by its own word, before
//! others take over.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1 as coordination;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Client;
use kube::api::{Api, PostParams};

use crate::Error;

/// How long a lease lasts that nobody renews.
const DURATION: Duration = Duration::from_secs(15);

/// After how long its holder gives up if it cannot renew.
const DEADLINE: Duration = Duration::from_secs(10);

/// How often it is renewed, or looked at.
pub const RENEW: Duration = Duration::from_secs(4);

/// A lease that this program holds, or would like to.
pub struct Lease {
    api: Api<coordination::Lease>,
    name: String,
    identity: String,
    /// The holder and its last renewal, and when that was seen first.
    seen: Option<(String, Instant)>,
    renewed: Option<Instant>,
}

impl Lease {
    /// Who gives load balancers' addresses out.
    pub const LOAD_BALANCER: &'static str = "parfait-load-balancer";

    /// A lease in `kube-system`, for a program of this identity.
    #[must_use]
    pub fn new(client: &Client, name: &str, identity: &str) -> Self {
        Self {
            api: Api::namespaced(client.clone(), "kube-system"),
            name: name.to_owned(),
            identity: identity.to_owned(),
            seen: None,
            renewed: None,
        }
    }

    /// Whether this program holds the lease, for long enough to do something.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.renewed
            .is_some_and(|renewed| renewed.elapsed() < DEADLINE)
    }

    /// Renews the lease, or takes it if nobody holds it.
    ///
    /// # Errors
    /// If the API server cannot be reached or refuses.
    pub async fn renew(&mut self) -> Result<(), Error> {
        let began = Instant::now();
        let done = self.try_renew().await;
        match done {
            Ok(held) => self.renewed = held.then_some(began),
            // Somebody else was faster, and is looked at the next time.
            Err(kube::Error::Api(status)) if status.code == 409 => self.renewed = None,
            Err(error) => return Err(Error::request(&format!("renew Lease {}", self.name))(error)),
        }
        Ok(())
    }

    async fn try_renew(&mut self) -> Result<bool, kube::Error> {
        let parameters = PostParams::default();
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let lease = coordination::Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.spec(0, None)),
            };
            self.api.create(&parameters, &lease).await?;
            return Ok(true);
        };
        let spec = lease.spec.unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        let mine = holder == self.identity;
        if !mine && !holder.is_empty() && !self.has_run_out(&spec) {
            return Ok(false);
        }
        let since = spec.acquire_time.filter(|_| mine);
        let transitions = spec.lease_transitions.unwrap_or_default() + i32::from(!mine);
        lease.spec = Some(self.spec(transitions, since));
        self.api.replace(&self.name, &parameters, &lease).await?;
        Ok(true)
    }

    /// Whether the lease has not changed for as long as it lasts.
    fn has_run_out(&mut self, spec: &coordination::LeaseSpec) -> bool {
        let lasts = spec
            .lease_duration_seconds
            .and_then(|seconds| u64::try_from(seconds).ok());
        let lasts = lasts.map_or(DURATION, Duration::from_secs);
        let state = format!("{:?} {:?}", spec.holder_identity, spec.renew_time);
        match &self.seen {
            Some((seen, since)) if *seen == state => since.elapsed() > lasts,
            _ => {
                self.seen = Some((state, Instant::now()));
                false
            }
        }
    }

    fn spec(&self, transitions: i32, since: Option<MicroTime>) -> coordination::LeaseSpec {
        let now = MicroTime(Timestamp::now());
        coordination::LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: Some(since.unwrap_or_else(|| now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..coordination::LeaseSpec::default()
        }
    }
}
