//! Tells Services and EndpointSlices what of them is not used, as Events: who wrote them reads no agent's log.
//!
//! Every agent finds the same faults, so that one is enough: that of the first node in an order by hash, of those that are
//! Ready. Where that changes, the next one says it again, which the API server counts as a repetition.

use std::collections::BTreeSet;
use std::time::Duration;

use kube::Client;
use parfait_cluster::{Key, Note, Snapshot};
use parfait_kube::Events;
use parfait_transport::pools;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::once::Once;

/// Between two Events: a cluster may come with thousands of faults.
const PAUSE: Duration = Duration::from_millis(100);

/// Hands over what is to be told.
pub(crate) struct Telling {
    node: String,
    queue: mpsc::UnboundedSender<Note>,
    said: Once<Note>,
}

impl Telling {
    /// Starts the writer, which ends with this value. Must be called inside a tokio runtime.
    pub(crate) fn start(client: &Client, node: &str) -> Self {
        let (queue, notes) = mpsc::unbounded_channel();
        tokio::spawn(write(Events::new(client, node), notes));
        Self {
            node: node.to_owned(),
            queue,
            said: Once::default(),
        }
    }

    /// After a turn: what could not be planned, and what of objects could not be read.
    pub(crate) fn follow(&mut self, snapshot: &Snapshot, planned: &BTreeSet<Note>) {
        let mut notes: BTreeSet<&Note> = read(snapshot).chain(planned).collect();
        notes.retain(|note| Events::are_about(note.origin.kind));
        if !notes.is_empty() && pools::writers(snapshot).first() != Some(&self.node.as_str()) {
            notes.clear();
        }
        for note in self.said.news(notes.into_iter().cloned()) {
            // The writer ends with this value.
            let _ = self.queue.send(note);
        }
    }
}

/// What of Services and their endpoints could not be read.
fn read(snapshot: &Snapshot) -> impl Iterator<Item = &Note> {
    let notes = snapshot.notes.iter();
    let of_services = notes.filter(|(key, _)| Key::is_of_a_service(key));
    of_services.flat_map(|(_, notes)| notes)
}

async fn write(events: Events, mut notes: mpsc::UnboundedReceiver<Note>) {
    while let Some(note) = notes.recv().await {
        // It is in the log already.
        if let Err(error) = events.warn(&note).await {
            tracing::debug!("an Event is lost: {error}");
        }
        sleep(PAUSE).await;
    }
}
