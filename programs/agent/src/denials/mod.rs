//! `Denials`: no denial is silent. What policies deny on this node is counted, sampled, explained and told.
//!
//! ```text
//!   rules ─┬─ counter ───────▶ Totals ──▶ /metrics
//!          └─ log group 4244 ─▶ Recent ──▶ a line in the log, and denials.json (`parfait policy denials`)
//! ```
//!
//! The kernel hands over at most one packet a second of each class of pods (five at first), so that a flood costs
//! little; what is not handed over is counted all the same, and the difference said. Counters are read after samples and
//! before rules change (after samples only), if that was not done in the last seconds (`APART`), and at the regular looks.

mod recent;
mod totals;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parfait_cluster::Snapshot;
use parfait_kernel::nflog::{Logged, PacketLog};
use parfait_kernel::nft::NftSocket;
use parfait_serve::metrics::Metrics;
use parfait_transport::policy::Plan;
use parfait_transport::policy::denial::{GROUP, Place, places};
use serde_json::{Value, json};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::files;
use recent::Recent;
use totals::Totals;

/// Where the samples are written, in the agent's state folder.
pub const FILE: &str = "denials.json";

/// Between two readings of the counters, and two writings of the file.
const APART: Duration = Duration::from_secs(5);
const WRITTEN: Duration = Duration::from_secs(1);

/// The denials of one node.
pub(crate) struct Denials {
    log: Option<AsyncFd<PacketLog>>,
    counters: Option<NftSocket>,
    counted: Option<Instant>,
    metrics: Option<Metrics>,
    file: PathBuf,
    written: Option<Instant>,
    /// Something is not in the file yet.
    unwritten: bool,
    /// Samples came since the counters were read.
    uncounted: bool,
    plan: Option<Arc<Plan>>,
    places: BTreeMap<String, Place>,
    totals: Totals,
    recent: Recent,
    /// How many unsampled packets were said.
    said: u64,
}

impl Denials {
    /// Begins to listen in the calling thread's network namespace. What is not possible is told, and left.
    pub(crate) async fn open(state_dir: &Path, metrics: Option<SocketAddr>) -> Self {
        let log = PacketLog::open(GROUP).map_err(|error| error.to_string());
        let log = log.and_then(|log| {
            // SAFETY: the descriptor is the one that `log` owns; it stays open, and the same one, until the AsyncFd
            // takes it back.
            let waiting = unsafe { AsyncFd::register_with_interest(log, Interest::READABLE) };
            waiting.map_err(|error| error.to_string())
        });
        if let Err(error) = &log {
            tracing::warn!("{error}: what policies deny is counted, and not explained");
        }
        let counters = NftSocket::open();
        if let Err(error) = &counters {
            tracing::warn!("{error}: what policies deny is not counted");
        }
        let metrics = match metrics {
            None => None,
            Some(address) => Metrics::listen(address)
                .await
                .map_err(|error| tracing::warn!("metrics: listen at {address}: {error}"))
                .ok(),
        };
        Self {
            log: log.ok(),
            counters: counters.ok(),
            counted: None,
            metrics,
            file: state_dir.join(FILE),
            written: None,
            unwritten: true,
            uncounted: false,
            plan: None,
            places: BTreeMap::new(),
            totals: Totals::default(),
            recent: Recent::default(),
            said: 0,
        }
    }

    /// Waits for samples, or until it is time to count what came with the last ones. May be dropped at any time.
    pub(crate) async fn heard(&mut self) -> Vec<Logged> {
        match self.due() {
            None => self.next().await,
            Some(due) => tokio::select! {
                samples = self.next() => samples,
                () = tokio::time::sleep_until(due.into()) => Vec::new(),
            },
        }
    }

    /// When something is to be counted or written that came too soon after the last time.
    fn due(&self) -> Option<Instant> {
        let after = |last: Option<Instant>, pause| last.map_or_else(Instant::now, |at| at + pause);
        let count = self.uncounted.then(|| after(self.counted, APART));
        let write = self.unwritten.then(|| after(self.written, WRITTEN));
        count.into_iter().chain(write).min()
    }

    async fn next(&mut self) -> Vec<Logged> {
        let Some(log) = &mut self.log else {
            return std::future::pending().await;
        };
        let read = match log.readable_mut().await {
            Ok(mut ready) => {
                ready.clear_ready();
                let log = ready.get_inner_mut();
                let read = log.read().map_err(|error| error.to_string());
                self.totals.overruns = log.overruns();
                read
            }
            Err(error) => Err(error.to_string()),
        };
        read.unwrap_or_else(|error| {
            tracing::warn!("{error}: what policies deny is counted, and not explained");
            self.log = None;
            Vec::new()
        })
    }

    /// Explains samples, and tells of them.
    pub(crate) fn explain(&mut self, snapshot: &Snapshot, samples: &[Logged]) {
        let Some(plan) = self.plan.clone() else {
            return;
        };
        for sample in samples {
            self.totals.sampled += 1;
            let line = self.recent.take(&plan, snapshot, sample, SystemTime::now());
            if let Some(line) = line {
                tracing::info!("{line}");
            }
            self.unwritten = true;
            self.uncounted = true;
        }
        self.count(false);
        self.write();
    }

    /// Before rules change, and at the regular looks: reads what was counted. `now` even if there is no reason, or too soon.
    pub(crate) fn count(&mut self, now: bool) {
        let lately = self
            .counted
            .is_some_and(|counted| counted.elapsed() < APART);
        if lately && !now {
            return;
        }
        self.uncounted = false;
        let Some(counters) = self.counters.as_mut().filter(|_| !self.places.is_empty()) else {
            return;
        };
        let before = self.totals.denied();
        match counters.counts("parfait") {
            Ok(counts) => self.totals.count(counts, &self.places),
            Err(error) => tracing::debug!("what policies deny cannot be counted now: {error}"),
        }
        self.counted = Some(Instant::now());
        self.unwritten |= self.totals.denied() > before;
        if now {
            self.say_unsampled();
        }
        self.publish();
    }

    /// After a turn: the policies that are in force.
    pub(crate) fn follow(&mut self, snapshot: &Snapshot, plan: Option<&Arc<Plan>>) {
        let Some(plan) = plan else { return };
        if self
            .plan
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(known, plan))
        {
            return;
        }
        self.plan = Some(Arc::clone(plan));
        self.places = places(plan);
        self.totals.keep(snapshot);
        self.publish();
    }

    fn publish(&mut self) {
        if let Some(metrics) = &self.metrics {
            metrics.store(self.totals.text());
        }
        self.write();
    }

    /// That some were only counted.
    fn say_unsampled(&mut self) {
        let unsampled = self.totals.unsampled();
        let left_out = std::mem::take(&mut self.recent.left_out);
        if unsampled > self.said || left_out > 0 {
            let more = unsampled.saturating_sub(self.said);
            tracing::info!(
                overruns = self.totals.overruns,
                packets = more,
                lines_left_out = left_out,
                "policies denied more that was counted and not sampled"
            );
        }
        self.said = unsampled.max(self.said);
    }

    fn write(&mut self) {
        let lately = self
            .written
            .is_some_and(|written| written.elapsed() < WRITTEN);
        if !self.unwritten || lately {
            return;
        }
        self.written = Some(Instant::now());
        self.unwritten = false;
        if let Err(error) = files::replace(&self.file, self.as_json().to_string().as_bytes()) {
            tracing::debug!("{error}");
        }
    }

    fn as_json(&self) -> Value {
        json!({
            "denied": self.totals.denied(),
            "sampled": self.totals.sampled,
            "unsampled": self.totals.unsampled(),
            "overruns": self.totals.overruns,
            "denials": self.recent.as_json(),
        })
    }
}
