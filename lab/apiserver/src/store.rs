//! Objects in memory, with one revision counter and an event log per resource.
//!
//! ```text
//!  write ──▶ [ lock ] check, allocate addresses, revision += 1 ──▶ objects
//!                                                             └──▶ log (ring) ──▶ watchers wake
//!  read  ──▶ [ lock ] clone Arcs ──▶ print outside the lock
//! ```
//!
//! Promises: every write has a revision of its own, larger than all before; a reader who lists at revision R and
//! watches from R misses nothing, or is told `Expired`; an object is printed once, however many watchers it has.
//! The lock is never held across an await: every method is synchronous and short.
//!
//! Left out: durability. A restart of the lab's API server begins with nothing; saving is a later concern and would
//! hang off [`Store::write`] alone.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::allocate::Addresses;
use crate::status::ApiError;

/// How many changes of one resource are remembered. A watcher further behind must list again.
const LOG_EVENTS: usize = 4096;

/// Namespace (empty for cluster-scoped objects) and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Namespace, or empty.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// A key from its parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Key {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

/// A stored object: immutable, shared, printed at most once.
pub struct Object {
    /// The JSON value, `metadata.resourceVersion` included.
    pub value: Value,
    /// The revision that wrote it.
    pub revision: u64,
    json: OnceLock<Bytes>,
}

impl Object {
    fn new(mut value: Value, revision: u64) -> Arc<Self> {
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("resourceVersion".to_owned(), json!(revision.to_string()));
        }
        Arc::new(Object {
            value,
            revision,
            json: OnceLock::new(),
        })
    }

    /// An object that is only shown, as a dry run's result.
    pub fn unstored(value: Value) -> Arc<Self> {
        let version = value["metadata"]["resourceVersion"]
            .as_str()
            .and_then(|v| v.parse().ok());
        Arc::new(Object {
            value,
            revision: version.unwrap_or(0),
            json: OnceLock::new(),
        })
    }

    /// The object as JSON text.
    pub fn json(&self) -> Bytes {
        self.json
            .get_or_init(|| Bytes::from(self.value.to_string()))
            .clone()
    }

    /// The same object under a later revision: how a watcher sees it leave its selection.
    pub fn at_revision(&self, revision: u64) -> Arc<Self> {
        Object::new(self.value.clone(), revision)
    }

    /// Its key, read back from its metadata.
    pub fn key(&self) -> Key {
        let text = |field: &str| self.value["metadata"][field].as_str().unwrap_or_default();
        Key::new(text("namespace"), text("name"))
    }
}

/// What happened to an object.
#[derive(Clone)]
pub struct Change {
    /// Revision of the change.
    pub revision: u64,
    /// The object before; absent when it was created.
    pub before: Option<Arc<Object>>,
    /// The object after; absent when it was removed.
    pub after: Option<Arc<Object>>,
    /// The last state of a removed object, under the revision of its removal.
    pub last: Option<Arc<Object>>,
}

/// The revision asked for is no longer remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forgotten {
    /// The oldest revision that can still be asked for.
    pub oldest: u64,
}

/// A consistent reading of one resource.
pub struct Listing {
    /// The objects, in order of namespace and name.
    pub objects: Vec<Arc<Object>>,
    /// The revision this is the state of.
    pub revision: u64,
}

struct Slot {
    objects: BTreeMap<Key, Arc<Object>>,
    log: VecDeque<Change>,
    /// Changes up to this revision have left the log.
    forgotten: u64,
    wake: watch::Sender<u64>,
}

struct Inner {
    revision: u64,
    slots: Vec<Slot>,
    addresses: Addresses,
}

/// The store.
pub struct Store {
    inner: RwLock<Inner>,
}

impl Store {
    /// An empty store with places for `slots_needed` resources, whose revisions begin after `first`. A server that was restarted must
    /// begin later than it ended: then a client of its former life is told that its past is forgotten.
    pub fn new(slots_needed: usize, addresses: Addresses, first: u64) -> Self {
        let slots = std::iter::repeat_with(|| Slot::new(first));
        let slots = slots.take(slots_needed).collect();
        Store {
            inner: RwLock::new(Inner {
                revision: first,
                slots,
                addresses,
            }),
        }
    }

    /// One object.
    pub fn read(&self, slot: usize, key: &Key) -> Option<Arc<Object>> {
        self.reading().slots[slot].objects.get(key).cloned()
    }

    /// The revision of the last change of a resource, 0 if there was none.
    pub fn last_change(&self, slot: usize) -> u64 {
        *self.reading().slots[slot].wake.borrow()
    }

    /// A place for a further resource.
    pub fn add_slot(&self) -> usize {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let slot = Slot::new(inner.revision);
        inner.slots.push(slot);
        inner.slots.len() - 1
    }

    /// Removes all objects of a resource.
    pub fn clear(&self, slot: usize) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let keys: Vec<Key> = inner.slots[slot].objects.keys().cloned().collect();
        let mut writer = Writer { inner: &mut inner };
        for key in keys {
            writer.remove(slot, &key);
        }
    }

    /// The current revision.
    pub fn revision(&self) -> u64 {
        self.reading().revision
    }

    /// All objects of a resource, or those of one namespace, now or at an earlier revision.
    pub fn list(
        &self,
        slot: usize,
        namespace: Option<&str>,
        at: Option<u64>,
    ) -> Result<Listing, Forgotten> {
        let inner = self.reading();
        let current = inner.revision;
        let slot = &inner.slots[slot];
        let revision = at.unwrap_or(current).min(current);
        if revision < slot.forgotten {
            return Err(Forgotten {
                oldest: slot.forgotten,
            });
        }
        let within = |key: &&Key| namespace.is_none_or(|n| key.namespace == n);
        let undo_from = slot.log.partition_point(|c| c.revision <= revision);
        if undo_from == slot.log.len() {
            let objects = match namespace {
                Some(namespace) => slot
                    .objects
                    .range(Key::new(namespace, "")..)
                    .take_while(|(k, _)| k.namespace == namespace)
                    .map(|(_, o)| o.clone())
                    .collect(),
                None => slot.objects.values().cloned().collect(),
            };
            return Ok(Listing { objects, revision });
        }
        // An earlier state: undo the log from its end.
        let mut objects = slot.objects.clone();
        for change in slot.log.range(undo_from..).rev() {
            match (&change.before, &change.after) {
                (Some(before), _) => drop(objects.insert(before.key(), before.clone())),
                (None, Some(after)) => drop(objects.remove(&after.key())),
                (None, None) => {}
            }
        }
        let objects = objects
            .iter()
            .filter(|(k, _)| within(k))
            .map(|(_, o)| o.clone())
            .collect();
        Ok(Listing { objects, revision })
    }

    /// Changes of a resource after `revision`, and the revision they lead up to.
    pub fn changes(&self, slot: usize, revision: u64) -> Result<(Vec<Change>, u64), Forgotten> {
        let inner = self.reading();
        let slot = &inner.slots[slot];
        // A revision this server has not reached yet is one of another server.
        if revision < slot.forgotten || revision > inner.revision {
            return Err(Forgotten {
                oldest: slot.forgotten,
            });
        }
        let from = slot.log.partition_point(|c| c.revision <= revision);
        Ok((slot.log.range(from..).cloned().collect(), inner.revision))
    }

    /// Wakes when the resource changes.
    pub fn subscribe(&self, slot: usize) -> watch::Receiver<u64> {
        self.reading().slots[slot].wake.subscribe()
    }

    /// Runs `f` with exclusive access. What `f` wrote stays even if it then fails, so it checks first.
    pub fn write<T>(
        &self,
        f: impl FnOnce(&mut Writer<'_>) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        f(&mut Writer { inner: &mut inner })
    }

    fn reading(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Exclusive access to the store, for the length of one write.
pub struct Writer<'a> {
    inner: &'a mut Inner,
}

impl Writer<'_> {
    /// One object as it is now.
    pub fn read(&self, slot: usize, key: &Key) -> Option<&Arc<Object>> {
        self.inner.slots[slot].objects.get(key)
    }

    /// The Services' address pools.
    pub fn addresses(&mut self) -> &mut Addresses {
        &mut self.inner.addresses
    }

    /// Removes the objects written longest ago until at most `limit` are left.
    pub fn shrink(&mut self, slot: usize, limit: usize) {
        while self.inner.slots[slot].objects.len() > limit {
            let objects = &self.inner.slots[slot].objects;
            let oldest = objects
                .iter()
                .min_by_key(|(_, object)| object.revision)
                .map(|(key, _)| key.clone());
            match oldest {
                Some(key) => drop(self.remove(slot, &key)),
                None => return,
            }
        }
    }

    /// Creates or replaces an object.
    pub fn put(&mut self, slot: usize, key: Key, value: Value) -> Arc<Object> {
        self.inner.revision += 1;
        let revision = self.inner.revision;
        let object = Object::new(value, revision);
        let slot = &mut self.inner.slots[slot];
        let before = slot.objects.insert(key, object.clone());
        slot.record(Change {
            revision,
            before,
            after: Some(object.clone()),
            last: None,
        });
        object
    }

    /// Removes an object; answers its last state under the revision of the removal.
    pub fn remove(&mut self, slot: usize, key: &Key) -> Option<Arc<Object>> {
        let before = self.inner.slots[slot].objects.remove(key)?;
        self.inner.revision += 1;
        let revision = self.inner.revision;
        let last = before.at_revision(revision);
        let change = Change {
            revision,
            before: Some(before),
            after: None,
            last: Some(last.clone()),
        };
        self.inner.slots[slot].record(change);
        Some(last)
    }
}

impl Slot {
    fn new(revision: u64) -> Self {
        Slot {
            objects: BTreeMap::new(),
            log: VecDeque::new(),
            forgotten: revision,
            wake: watch::Sender::new(0),
        }
    }

    fn record(&mut self, change: Change) {
        let revision = change.revision;
        self.log.push_back(change);
        while self.log.len() > LOG_EVENTS {
            if let Some(old) = self.log.pop_front() {
                self.forgotten = old.revision;
            }
        }
        self.wake.send_replace(revision);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> Store {
        Store::new(2, Addresses::new(None, None, Vec::new()), 1)
    }

    fn put(store: &Store, name: &str, n: u64) -> u64 {
        let value = json!({ "metadata": { "name": name, "namespace": "a" }, "n": n });
        store
            .write(|w| Ok(w.put(0, Key::new("a", name), value).revision))
            .expect("a plain write")
    }

    fn names(listing: &Listing) -> Vec<String> {
        listing
            .objects
            .iter()
            .map(|o| format!("{}={}", o.key().name, o.value["n"]))
            .collect()
    }

    #[test]
    fn a_list_at_an_earlier_revision_is_that_state() {
        let store = store();
        put(&store, "x", 1);
        let then = put(&store, "y", 1);
        put(&store, "x", 2);
        put(&store, "z", 1);
        store
            .write(|w| Ok(w.remove(0, &Key::new("a", "y"))))
            .expect("a removal");
        assert_eq!(
            names(&store.list(0, Some("a"), Some(then)).expect("remembered")),
            ["x=1", "y=1"]
        );
        assert_eq!(
            names(&store.list(0, None, None).expect("now")),
            ["x=2", "z=1"]
        );
        assert_eq!(store.changes(0, then).expect("remembered").0.len(), 3);
        assert!(
            store
                .list(1, None, None)
                .expect("another slot")
                .objects
                .is_empty()
        );
    }

    #[test]
    fn shrinking_removes_what_was_written_longest_ago() {
        let store = store();
        for name in ["a", "b", "c"] {
            put(&store, name, 1);
        }
        put(&store, "a", 2);
        store
            .write(|w| {
                w.shrink(0, 2);
                Ok(())
            })
            .expect("a removal");
        assert_eq!(
            names(&store.list(0, None, None).expect("now")),
            ["a=2", "c=1"]
        );
    }

    #[test]
    fn what_left_the_log_is_forgotten_aloud() {
        let store = store();
        let first = put(&store, "x", 0);
        for n in 0..LOG_EVENTS as u64 + 5 {
            put(&store, "x", n);
        }
        assert!(store.changes(0, first).is_err());
        assert!(store.list(0, None, Some(first)).is_err());
        assert!(store.changes(0, store.revision() + 1).is_err());
        assert!(
            store
                .changes(0, store.revision())
                .expect("now is remembered")
                .0
                .is_empty()
        );
    }
}
