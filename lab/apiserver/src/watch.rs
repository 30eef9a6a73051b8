//! Watches: the changes of a resource as a stream of JSON lines.
//!
//! A watch holds nothing but a revision: whenever the resource changes it reads the log from there, so a slow client
//! costs no memory and, once too far behind, is told `Expired` and lists again. An object that comes to match
//! the selector is ADDED, one that ceases to match is DELETED, as kube-apiserver's watch cache has it.
//!
//! Bookmarks go out every minute and before a timeout to those who allow them; `sendInitialEvents` (KEP-3157) is served.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, Stream};
use serde_json::Value;
use tokio::sync::watch::Receiver;
use tokio::time::Instant;

use crate::handle::Core;
use crate::registry::Resource;
use crate::request::{Options, Target};
use crate::select::Selector;
use crate::status::ApiError;
use crate::store::{Change, Object};
use crate::view::View;

const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(40 * 60);

/// Where a watch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the changes after a revision.
    After(u64),
    /// With the present state as ADDED events, and perhaps a bookmark that ends it.
    FromState {
        /// Whether the end of the initial events is marked by a bookmark.
        announce_end: bool,
    },
}

/// One open watch.
pub struct Watch {
    core: Arc<Core>,
    resource: &'static Resource,
    namespace: Option<String>,
    selector: Selector,
    view: View,
    bookmarks: bool,
    wake: Receiver<u64>,
    state: State,
    headers_sent: bool,
    next_bookmark: Instant,
    deadline: Instant,
}

#[derive(Clone, Copy)]
enum State {
    Starting(Start),
    Following(u64),
    Ended,
}

impl Watch {
    /// Opens a watch; nothing is read before the stream is polled.
    pub fn new(
        core: Arc<Core>,
        target: &Target,
        selector: Selector,
        view: View,
        options: &Options,
        start: Start,
    ) -> Self {
        let now = Instant::now();
        let timeout = options
            .timeout_seconds
            .map_or(DEFAULT_TIMEOUT, |s| Duration::from_secs(s.min(86_400)));
        Watch {
            wake: core.store.subscribe(target.resource.slot),
            core,
            resource: target.resource,
            namespace: target.namespace.clone(),
            selector,
            view,
            bookmarks: options.bookmarks,
            state: State::Starting(start),
            headers_sent: false,
            next_bookmark: now + BOOKMARK_EVERY,
            deadline: now + timeout,
        }
    }

    /// The watch as a stream of chunks, each of whole lines.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, Infallible>> {
        stream::unfold(self, |mut watch| async move {
            let chunk = watch.next().await?;
            Some((Ok(chunk), watch))
        })
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            match self.state {
                State::Ended => return None,
                State::Starting(start) => {
                    let chunk = self.begin(start);
                    if !chunk.is_empty() {
                        return Some(chunk.into());
                    }
                }
                State::Following(revision) => {
                    // Mark the wake-up seen before reading: a change in between wakes us again.
                    self.wake.borrow_and_update();
                    let chunk = self.follow(revision);
                    if !chunk.is_empty() {
                        return Some(chunk.into());
                    }
                    if let Some(chunk) = self.sleep().await {
                        return Some(chunk.into());
                    }
                }
            }
        }
    }

    fn begin(&mut self, start: Start) -> Vec<u8> {
        let announce_end = match start {
            Start::After(revision) => {
                self.state = State::Following(revision);
                return Vec::new();
            }
            Start::FromState { announce_end } => announce_end,
        };
        let mut out = Vec::new();
        // The present is always remembered.
        if let Ok(listing) =
            self.core
                .store
                .list(self.resource.slot, self.namespace.as_deref(), None)
        {
            for object in &listing.objects {
                if self.selector.matches(&object.value) {
                    self.line(&mut out, "ADDED", object);
                }
            }
            if announce_end {
                bookmark(
                    &mut out,
                    self.view.bookmark(self.resource, listing.revision, true),
                );
            }
            self.state = State::Following(listing.revision);
        }
        out
    }

    fn follow(&mut self, revision: u64) -> Vec<u8> {
        let mut out = Vec::new();
        match self.core.store.changes(self.resource.slot, revision) {
            Ok((changes, now)) => {
                for change in &changes {
                    self.event(&mut out, change);
                }
                self.state = State::Following(now);
            }
            Err(forgotten) => {
                let error = ApiError::expired(format!(
                    "too old resource version: {revision} ({})",
                    forgotten.oldest
                ));
                write_event(&mut out, "ERROR", error.to_status().to_string().as_bytes());
                self.state = State::Ended;
            }
        }
        out
    }

    fn event(&mut self, out: &mut Vec<u8>, change: &Change) {
        let selected = |object: &Option<Arc<Object>>| {
            object.as_ref().is_some_and(|o| {
                self.namespace
                    .as_ref()
                    .is_none_or(|n| o.value["metadata"]["namespace"] == n.as_str())
                    && self.selector.matches(&o.value)
            })
        };
        match (
            selected(&change.before),
            selected(&change.after),
            &change.after,
            &change.last,
            &change.before,
        ) {
            (true, false, None, Some(last), _) => self.line(out, "DELETED", last),
            // It still exists and no longer matches: the client sees its last matching state go.
            (true, false, Some(after), _, Some(before)) => {
                let ghost = before.at_revision(after.revision);
                self.line(out, "DELETED", &ghost);
            }
            (false, true, Some(after), ..) => self.line(out, "ADDED", after),
            (true, true, Some(after), ..) => self.line(out, "MODIFIED", after),
            _ => {}
        }
    }

    fn line(&mut self, out: &mut Vec<u8>, kind: &str, object: &Object) {
        let object = self.view.event(self.resource, object, !self.headers_sent);
        self.headers_sent = true;
        write_event(out, kind, &object);
    }

    /// Waits for a change, the next bookmark, the deadline or the end of the server.
    async fn sleep(&mut self) -> Option<Vec<u8>> {
        let State::Following(revision) = self.state else {
            return None;
        };
        let until = if self.bookmarks {
            self.next_bookmark.min(self.deadline)
        } else {
            self.deadline
        };
        tokio::select! {
            changed = self.wake.changed() => {
                if changed.is_err() {
                    self.state = State::Ended;
                }
                return None;
            }
            () = self.core.stop.cancelled() => {
                self.state = State::Ended;
                return None;
            }
            () = tokio::time::sleep_until(until) => {}
        }
        if Instant::now() >= self.deadline {
            self.state = State::Ended;
        }
        self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
        let mut out = Vec::new();
        if self.bookmarks {
            bookmark(&mut out, self.view.bookmark(self.resource, revision, false));
        }
        (!out.is_empty()).then_some(out)
    }
}

fn bookmark(out: &mut Vec<u8>, object: Value) {
    write_event(out, "BOOKMARK", object.to_string().as_bytes());
}

fn write_event(out: &mut Vec<u8>, kind: &str, object: &[u8]) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
}
