//! The driver: keeps a [`World`] equal to the API server's state and carries out what [`crate::step`] wants.
//!
//! ```text
//! watches ─▶ inbox ─▶ World ─▶ step ─▶ writes ─▶ API server
//!                       ▲                 │
//!                       └── the answers ──┘
//! ```
//!
//! * Nothing is decided before every kind has been listed once (`watch.rs`): what is not known yet is not absent.
//! * The answer to a write goes into the World at once, so the next step sees its effect without waiting for
//!   the watch; a Deployment's pods are placed in five round trips. Older watch events do not undo it.
//! * A refused write (conflict, already there, gone) makes the driver look at that one object again; any
//!   other failure is tried again later and later (`Pace`). So is a write that succeeds and is wanted again
//!   unchanged, a sign of a server that does not keep what it was given.
//! * It steps after every change, gathered for ten milliseconds, and once a second for what only time
//!   changes (Leases, deadlines, `minReadySeconds`).

mod events;
mod execute;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::config::Config;
use crate::object::{Object, ObjectRef, controller_of};
use crate::world::World;
use crate::write::{Event, Severity, Write};
use execute::{Kinds, Outcome, Seen};
use watch::Message;

const GATHER: Duration = Duration::from_millis(10);
const TICK: Duration = Duration::from_secs(1);
/// A longer pause than this between two steps means that the machine slept.
const GAP: SignedDuration = SignedDuration::from_secs(5);
const IMPATIENT: Duration = Duration::from_secs(10);
const IN_FLIGHT: usize = 32;
/// Steps without a look at the clock or the shutdown signal.
const MAX_ROUNDS: usize = 64;

/// Why the controllers gave up. Everything that may pass by itself is retried instead.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the API server refuses to list its kinds: {0}; give the controllers a token that may read and write everything"
    )]
    Forbidden(#[source] Box<kube::Error>),
    #[error("all watches have ended; the controllers can see nothing any more")]
    WatchesEnded,
}

/// Runs all controllers until `shutdown` completes.
pub async fn run(
    client: Client,
    config: Config,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    tokio::select! {
        () = shutdown => Ok(()),
        result = work(client, config) => result,
    }
}

async fn work(client: Client, config: Config) -> Result<(), Error> {
    let (inbox_in, mut inbox) = mpsc::unbounded_channel();
    let (events, event_inbox) = mpsc::unbounded_channel();
    // Dropping the set, when the driver is told to stop, ends every task in it.
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(watch::discover(client.clone(), inbox_in.clone()));
    tasks.spawn(events::record(client.clone(), event_inbox));
    let mut driver = Driver {
        client,
        config,
        events,
        world: World::default(),
        kinds: Kinds::default(),
        lists: BTreeMap::new(),
        unlisted: BTreeSet::new(),
        pace: Pace::default(),
        last_act: Timestamp::UNIX_EPOCH,
        waiting_since: Instant::now(),
    };
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            message = inbox.recv() => {
                let message = message.ok_or(Error::WatchesEnded)?;
                let urgent = driver.receive(message, &mut tasks, &inbox_in)?;
                if !urgent {
                    continue;
                }
                let until = Instant::now() + GATHER;
                while let Ok(Some(message)) = tokio::time::timeout_at(until, inbox.recv()).await {
                    driver.receive(message, &mut tasks, &inbox_in)?;
                }
            }
            _ = tick.tick() => {}
        }
        for _ in 0..MAX_ROUNDS {
            while let Ok(message) = inbox.try_recv() {
                driver.receive(message, &mut tasks, &inbox_in)?;
            }
            if !driver.act().await {
                break;
            }
        }
    }
}

struct Driver {
    client: Client,
    config: Config,
    events: mpsc::UnboundedSender<Event>,
    world: World,
    kinds: Kinds,
    /// Lists being received, by `(apiVersion, kind)`.
    lists: BTreeMap<(String, String), Vec<Object>>,
    /// Kinds whose first list is still to come. Before discovery has answered, the World is empty and
    /// `kinds` too, and nothing is decided.
    unlisted: BTreeSet<(String, String)>,
    pace: Pace,
    last_act: Timestamp,
    waiting_since: Instant,
}

impl Driver {
    /// Takes one message in. Says whether a decision may depend on it.
    fn receive(
        &mut self,
        message: Message,
        tasks: &mut tokio::task::JoinSet<()>,
        inbox: &mpsc::UnboundedSender<Message>,
    ) -> Result<bool, Error> {
        match message {
            Message::Forbidden(error) => Err(Error::Forbidden(error)),
            Message::Kinds(kinds) => {
                for kind in kinds {
                    let id = (kind.api_version(), kind.kind.clone());
                    if self.kinds.add(kind.clone()) {
                        self.unlisted.insert(id);
                        tasks.spawn(watch::kind(self.client.clone(), kind, inbox.clone()));
                    }
                }
                Ok(false)
            }
            Message::ListStarts(id) => {
                self.lists.insert(id, Vec::new());
                Ok(false)
            }
            Message::Listed(id, object) => {
                self.lists.entry(id).or_default().push(object);
                Ok(false)
            }
            Message::ListEnds(id) => {
                self.replace(&id);
                self.unlisted.remove(&id);
                Ok(true)
            }
            Message::Unavailable(id) => {
                self.unlisted.remove(&id);
                Ok(true)
            }
            Message::Changed(object) => Ok(self.learn(object)),
            Message::Gone(object) => {
                let target = object.reference();
                let same = self
                    .world
                    .object(&target)
                    .is_some_and(|o| o.uid() == target.uid);
                if same {
                    self.world.remove(&target);
                }
                Ok(same)
            }
        }
    }

    /// A complete list of a kind takes the place of what was known of it.
    fn replace(&mut self, id: &(String, String)) {
        let objects = self.lists.remove(id).unwrap_or_default();
        let listed: BTreeSet<ObjectRef> = objects.iter().map(Object::reference).collect();
        let views = self.world.views();
        let known = views
            .iter()
            .filter(|view| view.api_version == id.0 && view.kind == id.1);
        let absent: Vec<ObjectRef> = known
            .map(crate::namespace::view_reference)
            .filter(|r| !listed.contains(r))
            .collect();
        for target in absent {
            self.world.remove(&target);
        }
        for object in objects {
            self.learn(object);
        }
        self.world
            .listed
            .insert((crate::object::group_of(&id.0).to_owned(), id.1.clone()));
    }

    /// Puts an object into the World unless a newer version is there. Says whether a decision may
    /// depend on it: heartbeats and events decide nothing, or nothing that cannot wait for the tick.
    fn learn(&mut self, object: Object) -> bool {
        let target = object.reference();
        if let Some(known) = self.world.object(&target)
            && known.uid() == object.uid()
            && version(&known) > version(&object)
        {
            return false;
        }
        let urgent = !matches!(object.kind(), "Lease" | "Event");
        self.world.insert(object);
        urgent
    }

    /// One step. Says whether it wrote anything.
    async fn act(&mut self) -> bool {
        if self.kinds.is_empty() || !self.unlisted.is_empty() {
            self.complain();
            return false;
        }
        let now = Timestamp::now();
        if now.duration_since(self.last_act) > GAP {
            self.world.watching_since = Some(now);
        }
        self.last_act = now;
        let wanted = crate::step(&self.world, &self.config, now);
        let mut writes = told_of(wanted);
        writes.retain(|(write, _)| self.pace.permits(write));
        let wrote = !writes.is_empty();
        let (client, kinds) = (&self.client, &self.kinds);
        let outcomes: Vec<_> = futures::stream::iter(writes)
            .map(|(write, events)| async move {
                let outcome = execute::execute(client, kinds, &write).await;
                (write, events, outcome)
            })
            .buffer_unordered(IN_FLIGHT)
            .collect()
            .await;
        for (write, events, outcome) in outcomes {
            let done = matches!(outcome, Outcome::Done(_));
            for event in events.into_iter().filter(|_| done) {
                // The recorder ends only with the driver.
                let _ = self.events.send(event);
            }
            self.settle(&write, outcome);
        }
        wrote
    }

    /// Says, now and then, what the controllers are waiting for.
    fn complain(&mut self) {
        if self.waiting_since.elapsed() < IMPATIENT {
            return;
        }
        self.waiting_since = Instant::now();
        match self.unlisted.first() {
            Some((api_version, kind)) => tracing::warn!(
                "still waiting for the first list of {api_version} {kind} and {} other kinds; nothing is decided before",
                self.unlisted.len() - 1
            ),
            None => tracing::warn!("still waiting for the API server to tell its kinds"),
        }
    }

    fn settle(&mut self, write: &Write, outcome: Outcome) {
        match outcome {
            Outcome::Done(Seen::Is(objects)) | Outcome::Overtaken(Seen::Is(objects)) => {
                for object in objects {
                    self.learn(object);
                }
            }
            Outcome::Done(Seen::Gone(target)) | Outcome::Overtaken(Seen::Gone(target)) => {
                self.world.remove(&target);
            }
            Outcome::Failed(error) => {
                self.pace.failed(write);
                self.report(write, &error);
            }
        }
    }

    fn report(&self, write: &Write, error: &execute::Failure) {
        tracing::warn!("{error}");
        let Write::Create(Object::Pod(pod)) = write else {
            return;
        };
        let Some(owner) = controller_of(&pod.metadata) else {
            return;
        };
        let event = Event {
            regarding: ObjectRef {
                api_version: owner.api_version.clone(),
                kind: owner.kind.clone(),
                namespace: pod.metadata.namespace.clone().unwrap_or_default(),
                name: owner.name.clone(),
                uid: owner.uid.clone(),
            },
            severity: Severity::Warning,
            reason: "FailedCreate".to_owned(),
            message: format!("Error creating: {}", error.cause()),
            component: "replicaset-controller",
        };
        let _ = self.events.send(event);
    }
}

/// Each write with the events behind it, which tell of it.
fn told_of(wanted: Vec<Write>) -> Vec<(Write, Vec<Event>)> {
    let mut writes: Vec<(Write, Vec<Event>)> = Vec::new();
    for write in wanted {
        match (write, writes.last_mut()) {
            (Write::Event(event), Some((_, events))) => events.push(event),
            (Write::Event(_), None) => {}
            (write, _) => writes.push((write, Vec::new())),
        }
    }
    writes
}

/// A resourceVersion as the number it is in every server known here; one that is not sorts first.
fn version(object: &Object) -> u64 {
    object
        .meta()
        .resource_version
        .as_ref()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

/// When a write may be tried (again).
#[derive(Default)]
struct Pace {
    writes: BTreeMap<(&'static str, ObjectRef), Tried>,
}

struct Tried {
    /// Without the resourceVersion, which changes with every round of a quarrel.
    content: Write,
    times: u32,
    last: Instant,
    not_before: Instant,
}

impl Pace {
    /// How often the same write may be wanted in a row before it is held back.
    const PATIENCE: u32 = 6;
    /// After this long without being wanted, a write counts as new.
    const FORGET: Duration = Duration::from_secs(60);
    const LONGEST: Duration = Duration::from_secs(30);

    fn permits(&mut self, write: &Write) -> bool {
        let now = Instant::now();
        let Some(key) = Self::key(write) else {
            return true;
        };
        if self.writes.len() > 4_096 {
            self.writes
                .retain(|_, tried| now.duration_since(tried.last) < Self::FORGET);
        }
        let content = without_version(write.clone());
        let fresh = |tried: &Tried| {
            tried.content != content || now.duration_since(tried.last) > Self::FORGET
        };
        match self.writes.get_mut(&key) {
            Some(tried) if !fresh(tried) => {
                if now < tried.not_before {
                    return false;
                }
                tried.times += 1;
                tried.last = now;
                if tried.times >= Self::PATIENCE {
                    tried.not_before = now + delay(tried.times - Self::PATIENCE);
                }
                true
            }
            _ => {
                self.writes.insert(
                    key,
                    Tried {
                        content,
                        times: 1,
                        last: now,
                        not_before: now,
                    },
                );
                true
            }
        }
    }

    fn failed(&mut self, write: &Write) {
        let Some(key) = Self::key(write) else { return };
        if let Some(tried) = self.writes.get_mut(&key) {
            tried.not_before = Instant::now() + delay(tried.times);
        }
    }

    fn key(write: &Write) -> Option<(&'static str, ObjectRef)> {
        Some((write.verb(), write.target()?))
    }
}

/// 0.1 s, 0.2 s, 0.4 s, … up to half a minute.
fn delay(times: u32) -> Duration {
    Duration::from_millis(100)
        .saturating_mul(1 << times.min(12))
        .min(Pace::LONGEST)
}

fn without_version(mut write: Write) -> Write {
    match &mut write {
        Write::Create(object) | Write::Update(object) | Write::UpdateStatus(object) => {
            object.meta_mut().resource_version = None;
            object.meta_mut().managed_fields = None;
        }
        Write::Finalize(namespace) => namespace.metadata.resource_version = None,
        Write::Delete(_) | Write::Bind { .. } | Write::Event(_) => {}
    }
    write
}
