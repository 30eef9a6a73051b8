//! Tells Services, EndpointSlices and policies what of them is not used, as Events: who wrote them reads no agent's log.
//!
//! Every agent finds the same faults, so that one is enough: that of the first node in an order by hash, of those that are
//! Ready. Where that changes, the next one says it again, which the API server counts as a repetition. What only planning
//! finds in a policy is known where its pods are; there the first of these nodes says it.

use std::collections::BTreeSet;
use std::time::Duration;

use kube::Client;
use parfait_cluster::{Key, Note, Snapshot};
use parfait_kube::Events;
use parfait_transport::{policy, pools};
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
        let first = pools::writers(snapshot).first().copied();
        let first = first == Some(self.node.as_str());
        let everywhere = read(snapshot).filter(|_| first);
        let here = planned
            .iter()
            .filter(|note| match policy::is_of(&note.origin) {
                true => policy::first_node(snapshot, &note.origin) == Some(&*self.node),
                false => first,
            });
        let mut notes: BTreeSet<&Note> = everywhere.chain(here).collect();
        notes.retain(|note| Events::are_about(note.origin.kind));
        for note in self.said.news(notes.into_iter().cloned()) {
            // The writer ends with this value.
            let _ = self.queue.send(note);
        }
    }
}

/// What of Services, their endpoints and policies could not be read.
fn read(snapshot: &Snapshot) -> impl Iterator<Item = &Note> {
    let notes = snapshot.notes.iter();
    let theirs = notes.filter(|(key, _)| {
        let policies = matches!(key, Key::NetworkPolicy(_) | Key::ClusterNetworkPolicy(_));
        policies || Key::is_of_a_service(key)
    });
    theirs.flat_map(|(_, notes)| notes)
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
