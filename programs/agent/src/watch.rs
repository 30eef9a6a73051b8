//! [`Watch`]: somebody else's changes to the kernel, as a reason to look again now and not at the next
//! regular look.
//!
//! ```text
//!   change, change, change ─▶ (settled) ─▶ look … change ─▶ (not too soon) ─▶ look
//! ```
//!
//! Changes come in bursts: a program reloads its ruleset, a link goes down with its routes. So a look
//! waits until the burst is over, but not longer than [`LONGEST`]; and a program that changes something
//! all the time costs two looks a second. Where the kernel cannot be heard, the regular looks remain.

use std::time::{Duration, Instant};

use parfait_kernel::events::Events;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{sleep_until, timeout_at};

/// A burst is over when nothing came for this long.
const SETTLED: Duration = Duration::from_millis(30);

/// How long a look waits for the end of a burst.
const LONGEST: Duration = Duration::from_millis(300);

/// The time between two looks.
const APART: Duration = Duration::from_millis(500);

/// Listens to one network namespace.
pub(crate) struct Watch {
    events: Option<AsyncFd<Events>>,
    /// When the first change came that nobody has looked at.
    heard: Option<Instant>,
    looked: Instant,
}

impl Watch {
    /// Listens, or says why not.
    pub(crate) fn new(events: Result<Events, parfait_kernel::Error>) -> Self {
        let events = events.map_err(|error| error.to_string());
        let events = events.and_then(|events| {
            // SAFETY: the descriptor is the one that `events` owns; it stays open, and the same one, until
            // the AsyncFd takes it back.
            let waiting = unsafe { AsyncFd::register_with_interest(events, Interest::READABLE) };
            waiting.map_err(|error| error.to_string())
        });
        if let Err(error) = &events {
            tracing::warn!("{error}: what others change is noticed at the regular looks only");
        }
        let now = Instant::now();
        Self {
            events: events.ok(),
            heard: None,
            looked: now.checked_sub(APART).unwrap_or(now),
        }
    }

    /// Waits until somebody has changed something and it is time to look. May be dropped at any time.
    pub(crate) async fn changed(&mut self) {
        while self.heard.is_none() {
            self.next().await;
        }
        let first = self.heard.unwrap_or_else(Instant::now);
        let latest = (first + LONGEST).max(self.looked + APART);
        loop {
            let settled = (Instant::now() + SETTLED).max(self.looked + APART);
            let until = settled.min(latest);
            match timeout_at(until.into(), self.next()).await {
                Ok(()) if Instant::now() < latest => {}
                _ => break,
            }
        }
        sleep_until((self.looked + APART).into()).await;
        self.heard = None;
        self.looked = Instant::now();
    }

    /// Waits for news.
    async fn next(&mut self) {
        let Some(events) = &mut self.events else {
            return std::future::pending().await;
        };
        let heard = match events.readable_mut().await {
            Ok(mut ready) => {
                ready.clear_ready();
                ready.get_inner_mut().heard().map_err(|e| e.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        match heard {
            Ok(false) => {}
            Ok(true) => drop(self.heard.get_or_insert_with(Instant::now)),
            Err(error) => {
                tracing::warn!("{error}: what others change is noticed at the regular looks only");
                self.events = None;
            }
        }
    }
}
