//! Tells Services, EndpointSlices, policies and pools what of them is not used, as Events: who wrote them reads no agent's
//! log.
//!
//! Every agent finds the same faults, so that one is enough: that of the first node in an order by hash, of those that are
//! Ready. Where that changes, the next one says it again, which the API server counts as a repetition. What only planning
//! finds in a policy is known where its pods are; there the first of these nodes says it.
//!
//! Watches of different kinds run at different speeds, so a slice may be heard of before its Service: what is to be told
//! must have lasted ([`LASTING`]).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kube::Client;
use parfait_cluster::{Key, Note, Snapshot};
use parfait_kube::Events;
use parfait_transport::{policy, pools};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

/// Between two Events: a cluster may come with thousands of faults.
const PAUSE: Duration = Duration::from_millis(100);

/// What is mended sooner was no fault, but news that came out of order.
const LASTING: Duration = Duration::from_secs(3);

/// Hands over what is to be told.
pub(crate) struct Telling {
    node: String,
    now: watch::Sender<BTreeSet<Note>>,
}

impl Telling {
    /// Starts the writer, which ends with this value. Must be called inside a tokio runtime.
    pub(crate) fn start(client: &Client, node: &str) -> Self {
        let (now, notes) = watch::channel(BTreeSet::new());
        tokio::spawn(write(Events::new(client, node), notes));
        Self {
            node: node.to_owned(),
            now,
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
        let notes = everywhere.chain(here);
        let notes = notes.filter(|note| Events::are_about(note.origin.kind));
        let notes: BTreeSet<Note> = notes.cloned().collect();
        self.now.send_if_modified(|now| {
            let changes = *now != notes;
            *now = notes;
            changes
        });
    }
}

/// What of Services, their endpoints, policies and pools could not be read.
fn read(snapshot: &Snapshot) -> impl Iterator<Item = &Note> {
    let notes = snapshot.notes.iter();
    let theirs = notes.filter(|(key, _)| {
        let others = matches!(
            key,
            Key::NetworkPolicy(_)
                | Key::ClusterNetworkPolicy(_)
                | Key::NodeNetworkPolicy(_)
                | Key::LoadBalancerPool(_)
        );
        others || Key::is_of_a_service(key)
    });
    theirs.flat_map(|(_, notes)| notes)
}

async fn write(events: Events, mut notes: watch::Receiver<BTreeSet<Note>>) {
    let mut lasting = Lasting::default();
    loop {
        let due = lasting.due(&notes.borrow_and_update(), Instant::now());
        for note in due {
            // It is in the log already.
            if let Err(error) = events.warn(&note).await {
                tracing::debug!("an Event is lost: {error}");
            }
            sleep(PAUSE).await;
        }
        let changed = match lasting.next() {
            None => notes.changed().await,
            Some(next) => tokio::select! {
                changed = notes.changed() => changed,
                () = sleep_until(next) => Ok(()),
            },
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Since when there is what to tell, and what of it is told.
#[derive(Debug, Default)]
struct Lasting(BTreeMap<Note, (Instant, bool)>);

impl Lasting {
    /// What has lasted, and is not told.
    fn due(&mut self, notes: &BTreeSet<Note>, now: Instant) -> Vec<Note> {
        self.0.retain(|note, _| notes.contains(note));
        for note in notes {
            self.0.entry(note.clone()).or_insert((now, false));
        }
        let lasted = self.0.iter_mut();
        let due = lasted.filter(|(_, (since, told))| !told && *since + LASTING <= now);
        due.map(|(note, (_, told))| {
            *told = true;
            note.clone()
        })
        .collect()
    }

    /// When the next will have lasted.
    fn next(&self) -> Option<Instant> {
        let untold = self.0.values().filter(|(_, told)| !told);
        untold.map(|(since, _)| *since + LASTING).min()
    }
}

#[cfg(test)]
mod tests {
    use parfait_packet::Origin;

    use super::*;

    #[test]
    fn what_lasts_is_told_once_and_what_does_not_is_not() {
        let notes = |texts: &[&str]| {
            let texts = texts.iter();
            let notes = texts.map(|text| Note::new(Origin::parfait("test"), (*text).to_owned()));
            notes.collect::<BTreeSet<_>>()
        };
        let told = |due: Vec<Note>| {
            let due = due.into_iter().map(|note| note.message);
            due.collect::<Vec<_>>()
        };
        let start = Instant::now();
        let mut lasting = Lasting::default();
        assert_eq!(
            told(lasting.due(&notes(&["stays", "goes"]), start)),
            [""; 0]
        );
        assert_eq!(lasting.next(), Some(start + LASTING));
        let later = start + LASTING / 2;
        assert_eq!(told(lasting.due(&notes(&["stays"]), later)), [""; 0]);
        let both = notes(&["stays", "goes"]);
        assert_eq!(told(lasting.due(&both, later)), [""; 0]);
        assert_eq!(told(lasting.due(&both, start + LASTING)), ["stays"]);
        assert_eq!(lasting.next(), Some(later + LASTING));
        assert_eq!(told(lasting.due(&both, later + LASTING)), ["goes"]);
        assert_eq!(lasting.next(), None);
        // What ended is told again when it comes back.
        assert_eq!(told(lasting.due(&notes(&[]), later)), [""; 0]);
        let again = later + LASTING * 2;
        assert_eq!(told(lasting.due(&both, again)), [""; 0]);
        assert_eq!(told(lasting.due(&both, again + LASTING)), ["goes", "stays"]);
    }
}
