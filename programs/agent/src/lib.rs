//! The node's agent: snapshot → plan → diff → execute → prove, level-triggered, for ever.
//!
//! ```text
//!   API server ──Feed──▶ Snapshot ──NodePlan──▶ State ──diff──▶ steps ──▶ kernel
//!                                      │                                    │
//!                                      ├──▶ node.json, CNI configuration    └──observe── every 30 s
//!                                      └──▶ zone ──▶ DNS server
//! ```
//!
//! Promises: a restart reads the kernel, finds nothing to change, and disturbs no packet. What the API
//! server has not finished listing is never treated as deleted. A failed step is tried again with a
//! growing pause, and keeps no other from being done. When the agent ends, everything stays as it is.
//!
//! Deliberately absent: deciding anything, which the layers do; making pods' veth pairs, which the
//! CNI plugin does, so that pods start while the agent is down.

mod files;
mod machine;
mod names;
mod options;
mod turn;

use std::collections::BTreeSet;
use std::time::Duration;

use parfait_cluster::Snapshot;
use parfait_kube::Feed;
use tokio::signal::unix::{SignalKind, signal};

pub use files::FilesError;
pub use machine::{Machine, SyncError};
pub use options::Options;

/// Why the agent cannot run at all. What fails later is logged and tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no usable way to the API server.
    #[error(transparent)]
    Kube(#[from] parfait_kube::Error),
    /// The kernel cannot be reached.
    #[error(
        "netlink: {0}; the agent needs CAP_NET_ADMIN in its network namespace and a kernel with nf_tables"
    )]
    Netlink(String),
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
    let client = parfait_kube::client(options.kubeconfig.as_deref()).await?;
    let machine = Machine::open().map_err(|error| Error::Netlink(error.to_string()))?;
    let mut feed = Feed::start(&client, &options.node_name);
    let mut terminated = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let mut interrupted = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    tracing::info!(
        node = options.node_name,
        "waiting for the API server's lists"
    );
    let mut snapshot = Snapshot::default();
    let mut turns = turn::Turns::new(options, client, machine);
    let mut listed = false;
    let mut pause = RETRY.0;
    loop {
        let mut touched = BTreeSet::new();
        let wait = if turns.failed() {
            pause
        } else {
            turns.resync()
        };
        tokio::select! {
            changed = feed.next(&mut snapshot) => match changed {
                None => return Err(Error::Ended),
                Some(changed) => {
                    listed = true;
                    tracing::debug!(?changed, "changed");
                    touched = changed;
                }
            },
            () = tokio::time::sleep(wait), if listed => turns.look_again(),
            _ = terminated.recv() => return Ok(()),
            _ = interrupted.recv() => return Ok(()),
        }
        let failed_before = turns.failed();
        turns.turn(&snapshot, &touched).await;
        pause = if turns.failed() && failed_before {
            RETRY.1.min(pause * 2)
        } else {
            RETRY.0
        };
    }
}
