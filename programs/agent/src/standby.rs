//! Stands in for others, and others for this node: who answers for load balancers' addresses on the segment.
//!
//! ```text
//!   peers' beats ─▶ Liveness ─▶ Hearing ─▶ the node's loop plans anew ─▶ addresses on the interface
//!                                                                └─▶ announced to the segment, and lent for 2 s
//! ```
//!
//! The addresses are planned and executed like all others. Here is what cannot wait for a turn: beats every 200 ms, and
//! telling the kernel that this agent is still there. If it is not, the kernel takes the addresses away, since
//! another node has them by then; if it comes back within a second, nobody has noticed.
//!
//! Without a pool of this kind no port is opened and nothing is sent.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use parfait_cluster::{Announcement, Hearing, Key, Snapshot};
use parfait_internet::{Announcing, Beat, Liveness, liveness};
use parfait_kernel::Socket;
use parfait_linux::{Address, IfName};
use parfait_serve::beats::{Beats, Message};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::once::Once;
use crate::upkeep::Round;

/// How often the kernel hears of an address that is lent.
const RENEWED: Duration = Duration::from_millis(500);

/// After a takeover, when the segment is told: a frame may be lost.
const TOLD: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(3),
];

/// What the node's loop hands to the task.
#[derive(Default)]
struct Task {
    peers: BTreeMap<String, Vec<IpAddr>>,
    in_force: bool,
    held: Vec<Announcing>,
    /// When the segment is to be told, and of what.
    due: Vec<(Instant, IfName, IpAddr)>,
}

/// The node's part in standing in.
pub(crate) struct Standby {
    node: String,
    task: Arc<Mutex<Task>>,
    hearing: watch::Receiver<Hearing>,
}

impl Standby {
    /// Starts the task, which ends with this value. Must be called inside a tokio runtime. What the lender changes in the
    /// kernel must not wake the node's loop.
    pub(crate) fn start(node: &str, lender: Socket) -> Self {
        let (hear, hearing) = watch::channel(Hearing::default());
        let task = Arc::new(Mutex::new(Task::default()));
        tokio::spawn(run(node.to_owned(), lender, Arc::downgrade(&task), hear));
        Self {
            node: node.to_owned(),
            task,
            hearing,
        }
    }

    /// Waits until another peer is heard, or one no more. May be dropped at any time.
    pub(crate) async fn changed(&mut self) {
        if self.hearing.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// What is heard now.
    pub(crate) fn hearing(&mut self) -> Hearing {
        self.hearing.borrow_and_update().clone()
    }

    /// After a turn: what this node holds now, and whom it listens to. Addresses that are new are told to the segment, and
    /// returned.
    pub(crate) fn follow(
        &self,
        snapshot: &Snapshot,
        changed: &BTreeSet<Key>,
        round: &Round,
    ) -> Vec<Announcing> {
        let announcing = round.plan.internet.announcing.iter();
        let held = announcing.filter(|one| one.announcement == Announcement::Neighbor);
        let held: Vec<_> = held.cloned().collect();
        let mut task = self.lock();
        let matters = |key: &Key| parfait_internet::announce::depends_on(snapshot, key);
        if changed.is_empty() || changed.iter().any(matters) {
            task.peers = peers(snapshot, &self.node);
        }
        task.in_force = round.tables;
        let now = Instant::now();
        task.due
            .retain(|(.., address)| held.iter().any(|one| one.address == *address));
        let before = std::mem::replace(&mut task.held, held.clone());
        let new: Vec<_> = held
            .into_iter()
            .filter(|one| !before.contains(one))
            .collect();
        for one in &new {
            let (address, interface) = (one.address, &one.interface);
            tracing::info!(%address, %interface, "answering ARP and NDP for a load balancer");
            task.tell(one, now);
        }
        new
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Task> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The peers, and the addresses that their beats come from.
fn peers(snapshot: &Snapshot, node: &str) -> BTreeMap<String, Vec<IpAddr>> {
    let peers = parfait_internet::peers(snapshot, node).into_iter();
    let addresses = |name: String| {
        let node = snapshot.nodes.get(&name)?;
        Some((name, node.own_addresses().collect::<Vec<_>>()))
    };
    peers.filter_map(addresses).collect()
}

impl Task {
    fn tell(&mut self, one: &Announcing, now: Instant) {
        let due = TOLD.map(|after| (now + after, one.interface.clone(), one.address));
        self.due.extend(due);
    }

    /// Tells the segment what is due.
    fn announce(&mut self, now: Instant) {
        let (due, later) = self.due.drain(..).partition(|(at, ..)| *at <= now);
        self.due = later;
        let mut by_link: BTreeMap<IfName, BTreeSet<IpAddr>> = BTreeMap::new();
        let due: Vec<(Instant, IfName, IpAddr)> = due;
        for (_, link, address) in due {
            by_link.entry(link).or_default().insert(address);
        }
        for (link, addresses) in by_link {
            let addresses: Vec<_> = addresses.into_iter().collect();
            if let Err(error) = parfait_kernel::announce(&link, &addresses) {
                tracing::warn!("{error}: neighbours find out by themselves, within a minute or so");
            }
        }
    }

    fn renew(&self, lender: &mut Socket) {
        let address = |one: &Announcing| parfait_internet::apply::on_link(one);
        let held: Vec<Address> = self.held.iter().map(address).collect();
        if held.is_empty() {
            return;
        }
        if let Err(error) = lender.lend(&held) {
            tracing::warn!("{error}");
        }
    }
}

async fn run(node: String, lender: Socket, task: Weak<Mutex<Task>>, hear: watch::Sender<Hearing>) {
    let mut ears = Ears {
        node,
        lender,
        liveness: Liveness::default(),
        began: Instant::now(),
        renewed: Instant::now(),
    };
    let mut beats: Option<Beats> = None;
    let mut failures = Once::default();
    let mut ticks = tokio::time::interval(liveness::BEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let received = async {
            match &beats {
                Some(beats) => beats.receive().await,
                None => std::future::pending().await,
            }
        };
        let received = tokio::select! {
            received = received => Some(received),
            _ = ticks.tick() => None,
        };
        let heard = match received {
            Some(Err(error)) => {
                tracing::warn!("beats of other agents: {error}");
                beats = None;
                None
            }
            Some(Ok(heard)) => Some(heard),
            None => None,
        };
        let Some(task) = task.upgrade() else { return };
        let (hearing, wanted) = {
            let mut task = task.lock().unwrap_or_else(PoisonError::into_inner);
            let hearing = ears.act(&mut task, heard, beats.as_ref());
            (hearing, !task.peers.is_empty())
        };
        hear.send_if_modified(|old| {
            let differs = *old != hearing;
            *old = hearing;
            differs
        });
        match (wanted, &beats) {
            (false, Some(_)) => beats = None,
            (true, None) => beats = open(&mut failures).await,
            _ => {}
        }
    }
}

/// What the task remembers.
struct Ears {
    node: String,
    lender: Socket,
    liveness: Liveness,
    began: Instant,
    renewed: Instant,
}

impl Ears {
    /// Takes in what was heard or, every [`liveness::BEAT`], is heard itself. Does what is due, and says who is heard.
    fn act(
        &mut self,
        task: &mut Task,
        heard: Option<(IpAddr, Message)>,
        beats: Option<&Beats>,
    ) -> Hearing {
        let now = Instant::now();
        let time = now - self.began;
        match heard {
            Some((from, message)) => {
                let peer = task.peers.get(&message.node);
                let known = peer.is_some_and(|own| own.contains(&from));
                let beat = Beat {
                    in_force: message.in_force,
                    hears: message.hears,
                };
                if known && self.liveness.heard(&message.node, beat, time) {
                    for one in task.held.clone() {
                        task.tell(&one, now);
                    }
                }
            }
            None => {
                let peers = task.peers.keys().cloned().collect();
                self.liveness.listen(&peers, time);
                self.beat(task, beats);
            }
        }
        task.announce(now);
        if now - self.renewed >= RENEWED {
            self.renewed = now;
            task.renew(&mut self.lender);
        }
        self.liveness.hearing(time)
    }

    fn beat(&self, task: &Task, beats: Option<&Beats>) {
        let Some(beats) = beats else { return };
        for (peer, hears) in self.liveness.beats() {
            let message = Message {
                node: self.node.clone(),
                in_force: task.in_force,
                hears,
            };
            if let Some(to) = task.peers.get(peer).and_then(|own| own.first()) {
                beats.send(*to, &message);
            }
        }
    }
}

async fn open(failures: &mut Once<String>) -> Option<Beats> {
    let opened = Beats::open().await.map_err(|error| error.to_string());
    for error in failures.news(opened.as_ref().err().cloned()) {
        let port = parfait_serve::beats::PORT;
        tracing::warn!(
            "UDP port {port}: {error}: other agents are not heard, and may take this node for dead"
        );
    }
    opened.ok()
}
