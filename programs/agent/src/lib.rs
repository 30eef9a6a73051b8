//! The node's agent: snapshot → plan → diff → execute → prove, level-triggered, for ever.
//!
//! ```text
//!   API server ──Feed──▶ Snapshot ──NodePlan──▶ State ──diff──▶ steps ──▶ kernel
//!   CNI plugin ──records──▶ ┘            (it rings when there is a new one)
//!                                      │                                    │
//!                                      ├──▶ node.json, CNI configuration    └──observe── every 30 s
//!                                      └──▶ zone ──▶ DNS server
//!   rules that deny ──counters, samples──▶ /metrics, log, denials.json
//! ```
//!
//! Promises: a restart reads the kernel, finds nothing to change, and disturbs no packet. What the API
//! server has not finished listing is never treated as deleted. A failed step is tried again with a
//! growing pause, and keeps no other from being done. Pods may come once their node's own network
//! stands, cluster DNS included. When the agent ends, everything stays as it is.
//!
//! What other programs change in links, addresses, routes and rules is heard at once, anything else
//! noticed at the next look, within [`Options::resync`]: it is proved, told and put right. Neighbours
//! are not listened to, which would wake the agent with the traffic.
//!
//! Deliberately absent: deciding anything, which the layers do; making pods' veth pairs, which the
//! CNI plugin does, so that pods start while the agent is down.

mod accepting;
pub mod attachments;
mod balancers;
pub mod denials;
mod denied;
mod doorbell;
mod ended;
mod features;
mod files;
mod flows;
mod health;
mod machine;
mod memory;
mod merge;
mod names;
mod once;
mod options;
mod standby;
mod take_over;
mod telling;
mod turn;
mod underlay;
mod upkeep;
mod watch;

use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use parfait_cluster::{Key, Snapshot};
use parfait_kernel::events::Events;
use parfait_kube::{Feed, News};
use tokio::signal::unix::{SignalKind, signal};

use denials::Denials;
use doorbell::Doorbell;
pub use files::FilesError;
pub use machine::{Machine, SyncError};
pub use options::Options;
pub use take_over::Predecessor;
use watch::Watch;

pub use upkeep::{Differences, Round, Upkeep, prove};

/// Why the agent cannot run at all. What fails later is logged and tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no usable way to the API server.
    #[error(transparent)]
    Kube(#[from] parfait_kube::Error),
    /// The kernel cannot be asked.
    #[error("this node's kernel cannot be used: {0}")]
    Kernel(#[from] SyncError),
    /// Signals cannot be received.
    #[error("signals: {0}")]
    Signals(#[source] std::io::Error),
    /// All watches have ended.
    #[error("the watches of the API server have ended; restart the agent")]
    Ended,
}

/// How long a failed turn waits before it is tried again, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// If it cannot start, or its watches end.
pub async fn run(options: Options) -> Result<(), Error> {
    let mut upkeep = Upkeep::open(&options.node_name)?;
    if let Some(predecessor) = options.take_over {
        upkeep.take_over(predecessor);
    }
    let (kernel, netfilter) = upkeep.machine().parts();
    let lender = parfait_kernel::Socket::open().map_err(SyncError::observe)?;
    let own = [
        kernel.as_raw_fd(),
        netfilter.as_raw_fd(),
        lender.as_raw_fd(),
    ];
    let mut watch = Watch::new(Events::open(&own));
    let client = parfait_kube::client(options.kubeconfig.as_deref()).await?;
    let mut feed = Feed::start(&client);
    let mut terminated = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let mut interrupted = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    tracing::info!(
        node = options.node_name,
        "waiting for the API server's lists"
    );
    let node = options.node_name.clone();
    let mut doorbell = Doorbell::open(&options.state_dir);
    let mut snapshot = Snapshot::default();
    let mut timer = Timer::new(options.resync);
    let mut denials = Denials::open(&options.state_dir, options.metrics).await;
    let mut turns = turn::Turns::new(options, client, upkeep, lender);
    let mut listed = false;
    loop {
        let mut news = News::default();
        tokio::select! {
            changed = feed.next(&mut snapshot) => match changed {
                None => return Err(Error::Ended),
                Some(told) => {
                    if !std::mem::replace(&mut listed, true) {
                        snapshot.recall();
                    }
                    tracing::debug!(changed = ?told.changed, "changed");
                    news = told;
                }
            },
            () = tokio::time::sleep_until(timer.next().into()), if listed => {}
            () = watch.changed(), if listed => turns.look_again(),
            () = doorbell.rung(), if listed => {}
            () = turns.peers_changed(), if listed => {
                news.add(Key::Node(node.clone()));
            }
            samples = denials.heard(), if listed => {
                denials.explain(&snapshot, &samples);
                continue;
            }
            // Everything stays as it is: pods go on talking.
            _ = terminated.recv() => return Ok(()),
            _ = interrupted.recv() => return Ok(()),
        }
        let look = timer.must_look(Instant::now());
        if look {
            turns.look_around();
        }
        denials.count(look);
        let unfinished = turns.turn(&mut snapshot, &news).await;
        denials.follow(&snapshot, turns.policies());
        doorbell.answer(turns.known());
        timer.ended(unfinished, Instant::now());
    }
}

/// When the loop turns though nothing was told: to look at the kernel at fixed intervals, however busy
/// the API server is, and to try again what failed.
struct Timer {
    resync: Duration,
    look: Instant,
    /// When to try again, and how long that was put off.
    retry: Option<(Instant, Duration)>,
}

impl Timer {
    fn new(resync: Duration) -> Self {
        Self {
            resync,
            look: Instant::now() + resync,
            retry: None,
        }
    }

    fn next(&self) -> Instant {
        let retry = self.retry.map_or(self.look, |(at, _)| at);
        retry.min(self.look)
    }

    /// Whether it is time to look again. Then the next time is set.
    fn must_look(&mut self, now: Instant) -> bool {
        let must = now >= self.look;
        if must {
            self.look = now + self.resync;
        }
        must
    }

    /// A turn ended. Turns that come earlier because something changed do not make the pause grow.
    fn ended(&mut self, unfinished: bool, now: Instant) {
        self.retry = match self.retry {
            _ if !unfinished => None,
            None => Some((now + RETRY.0, RETRY.0)),
            Some((at, pause)) if now < at => Some((at, pause)),
            Some((_, pause)) => {
                let pause = RETRY.1.min(pause * 2);
                Some((now + pause, pause))
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failing_turns_come_later_and_later_and_changes_do_not_count() {
        let start = Instant::now();
        let mut timer = Timer::new(Duration::from_secs(1000));
        let at = |millis| start + Duration::from_millis(millis);
        timer.ended(true, at(0));
        assert_eq!(timer.next(), at(200));
        timer.ended(true, at(100));
        assert_eq!(timer.next(), at(200), "an early turn puts nothing off");
        timer.ended(true, at(200));
        assert_eq!(timer.next(), at(600));
        for _ in 0..20 {
            let now = timer.next();
            timer.ended(true, now);
        }
        let now = timer.next();
        timer.ended(true, now);
        assert_eq!(timer.next(), now + RETRY.1);
        timer.ended(false, now);
        assert!(timer.next() > now + RETRY.1, "only the next look is left");
    }

    #[test]
    fn steady_changes_do_not_keep_from_looking() {
        let start = Instant::now();
        let mut timer = Timer::new(Duration::from_secs(30));
        let mut looks = 0;
        for second in 0..100 {
            let now = start + Duration::from_secs(second);
            looks += u32::from(timer.must_look(now));
            timer.ended(false, now);
        }
        assert!(looks >= 3, "{looks} looks in 100 seconds of steady changes");
    }
}
