//! The life of a pod as a value: what is known of its containers, and what to do next.
//!
//! ```text
//!   sandbox ─▶ init containers, one after the other ─▶ all containers ─▶ (probes, restarts) ─▶ end
//!                 (sidecars: init containers that keep running, before and beside the others)
//! ```
//!
//! [`Book`] is written by events (a container started, ended, a probe changed its mind, the pod was deleted) and
//! [`decide`] reads it: which steps to take now, and when to look again. It has no clock and starts nothing, so
//! every case can be tried in a table. The rules are the kubelet's (`pkg/kubelet/kuberuntime`, KEP-753 for
//! sidecars); deliberately absent: in-place resize, ephemeral containers, pod-level restart rules.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};

/// What part a container plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Init,
    /// An init container with `restartPolicy: Always`.
    Sidecar,
    Main,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

/// How long to wait before a container that keeps ending is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    pub first: Duration,
    pub longest: Duration,
    /// A container that ran this long is forgiven.
    pub reset: Duration,
}

impl Default for Backoff {
    /// The numbers of Kubernetes.
    fn default() -> Backoff {
        Backoff {
            first: Duration::from_secs(10),
            longest: Duration::from_secs(300),
            reset: Duration::from_secs(600),
        }
    }
}

impl Backoff {
    /// The wait after `crashes` ends in a row before this one: none, then 10 s, 20 s, 40 s, …
    fn after(&self, crashes: u32) -> Duration {
        match crashes.checked_sub(1) {
            None => Duration::ZERO,
            Some(n) => self.longest.min(self.first.saturating_mul(1 << n.min(16))),
        }
    }
}

/// How one run of a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub code: i32,
    pub signal: Option<i32>,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`.
    pub reason: &'static str,
    pub message: Option<String>,
    pub started_at: Option<Timestamp>,
    pub finished_at: Timestamp,
    pub id: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Waiting {
        reason: &'static str,
        message: Option<String>,
    },
    Running {
        since: Timestamp,
        id: String,
    },
    /// Ended, to be started again at `until`.
    BackOff {
        ended: Ended,
        until: Timestamp,
        delay: Duration,
    },
    /// Ended for good.
    Ended(Ended),
}

/// What is known of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Track {
    pub name: String,
    pub image: String,
    pub role: Role,
    pub policy: RestartPolicy,
    pub state: State,
    pub last: Option<Ended>,
    pub restarts: u32,
    /// Ends in a row, which lengthen the next wait.
    crashes: u32,
    has_startup: bool,
    has_readiness: bool,
    /// The startup probe has succeeded, or there is none.
    pub started: bool,
    /// The readiness probe says so, or there is none.
    pub ready: bool,
    /// It has been told to end.
    pub stopping: bool,
    /// It could not be started for a reason that may pass; not before this time again.
    not_before: Option<Timestamp>,
}

/// Why a pod must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It is being deleted.
    Deleted,
    /// `activeDeadlineSeconds` are over.
    Deadline,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

impl Phase {
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Pending => "Pending",
            Phase::Running => "Running",
            Phase::Succeeded => "Succeeded",
            Phase::Failed => "Failed",
        }
    }
}

/// What is known of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Book {
    /// Its network and volumes are there.
    pub sandbox: bool,
    sandbox_not_before: Option<Timestamp>,
    sandbox_failures: u32,
    pub stop: Option<Stop>,
    /// In the order of the spec, init containers first.
    pub tracks: Vec<Track>,
    pub started_at: Timestamp,
    deadline: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    MakeSandbox,
    Start(String),
    Stop(String),
    RemoveSandbox,
}

/// What to do now, and when to decide again if nothing happens before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    pub actions: Vec<Action>,
    pub wake: Option<Timestamp>,
}

impl Book {
    /// A pod of which nothing runs. Restart counts go on from what the API has, if an earlier kubelet ran it.
    pub fn new(pod: &Pod, now: Timestamp) -> Book {
        let Some(spec) = &pod.spec else {
            return Book::empty(now);
        };
        let policy = match spec.restart_policy.as_deref() {
            Some("Never") => RestartPolicy::Never,
            Some("OnFailure") => RestartPolicy::OnFailure,
            _ => RestartPolicy::Always,
        };
        let inits = spec.init_containers.iter().flatten().map(|c| {
            let sidecar = c.restart_policy.as_deref() == Some("Always");
            match (sidecar, policy) {
                (true, _) => Track::new(c, Role::Sidecar, RestartPolicy::Always, pod),
                // An init container that has succeeded is never started again.
                (false, RestartPolicy::Never) => Track::new(c, Role::Init, policy, pod),
                (false, _) => Track::new(c, Role::Init, RestartPolicy::OnFailure, pod),
            }
        });
        let mains = spec
            .containers
            .iter()
            .map(|c| Track::new(c, Role::Main, policy, pod));
        let started_at = pod
            .status
            .as_ref()
            .and_then(|s| s.start_time.as_ref())
            .map_or(now, |t| t.0);
        Book {
            tracks: inits.chain(mains).collect(),
            started_at,
            // One that is later than any time there is never comes.
            deadline: spec.active_deadline_seconds.and_then(|s| {
                started_at
                    .checked_add(SignedDuration::from_secs(s.max(0)))
                    .ok()
            }),
            ..Book::empty(now)
        }
    }

    fn empty(now: Timestamp) -> Book {
        Book {
            sandbox: false,
            sandbox_not_before: None,
            sandbox_failures: 0,
            stop: None,
            tracks: Vec::new(),
            started_at: now,
            deadline: None,
        }
    }

    pub fn track(&self, name: &str) -> Option<&Track> {
        self.tracks.iter().find(|t| t.name == name)
    }

    pub fn track_mut(&mut self, name: &str) -> Option<&mut Track> {
        self.tracks.iter_mut().find(|t| t.name == name)
    }

    /// The sandbox could not be made: again in 0.5 s, 1 s, 2 s, … at most 10 s.
    pub fn sandbox_failed(&mut self, now: Timestamp) {
        let wait = Duration::from_millis(500 << self.sandbox_failures.min(5));
        self.sandbox_failures += 1;
        self.sandbox_not_before = now.checked_add(wait.min(Duration::from_secs(10))).ok();
    }

    /// What hindered the sandbox may be over.
    pub fn sandbox_retry_now(&mut self) {
        self.sandbox_not_before = None;
    }

    pub fn sandbox_made(&mut self) {
        self.sandbox = true;
        self.sandbox_failures = 0;
    }

    pub fn running(&self) -> impl Iterator<Item = &Track> {
        self.tracks.iter().filter(|t| t.is_running())
    }

    /// Whether every init container has done its part. Once the others have run it stays so, even if a sidecar
    /// ends later.
    pub fn initialized(&self) -> bool {
        let mut inits = self.tracks.iter().filter(|t| t.role != Role::Main);
        self.mains().any(Track::has_run) || inits.all(Track::init_done)
    }

    fn mains(&self) -> impl Iterator<Item = &Track> {
        self.tracks.iter().filter(|t| t.role == Role::Main)
    }

    /// Nothing of this pod will run any more, by itself.
    fn finished(&self) -> bool {
        let init_failed = self
            .tracks
            .iter()
            .any(|t| t.role == Role::Init && matches!(&t.state, State::Ended(e) if e.code != 0));
        init_failed || self.mains().all(|t| matches!(t.state, State::Ended(_)))
    }

    pub fn phase(&self) -> Phase {
        let failed = |t: &Track| match &t.state {
            State::Ended(e) | State::BackOff { ended: e, .. } => e.code != 0,
            State::Waiting { .. } => true,
            State::Running { .. } => false,
        };
        let nothing_runs = self.running().next().is_none();
        if self.stop == Some(Stop::Deadline) && nothing_runs {
            return Phase::Failed;
        }
        let stopped = self.stop.is_some() && nothing_runs && self.mains().any(Track::has_run);
        if self.finished() || stopped {
            let regular = self.tracks.iter().filter(|t| t.role != Role::Sidecar);
            return match regular.filter(|t| failed(t)).count() {
                0 => Phase::Succeeded,
                _ => Phase::Failed,
            };
        }
        if self.mains().any(Track::has_run) {
            Phase::Running
        } else {
            Phase::Pending
        }
    }
}

impl Track {
    fn new(container: &Container, role: Role, policy: RestartPolicy, pod: &Pod) -> Track {
        let has_startup = container.startup_probe.is_some();
        let has_readiness = container.readiness_probe.is_some();
        let before = pod.status.as_ref().and_then(|status| {
            let lists = [&status.container_statuses, &status.init_container_statuses];
            lists
                .into_iter()
                .flatten()
                .flatten()
                .find(|s| s.name == container.name && s.container_id.is_some())
        });
        Track {
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            role,
            policy,
            state: State::Waiting {
                reason: if role == Role::Main && pod_has_init(pod) {
                    "PodInitializing"
                } else {
                    "ContainerCreating"
                },
                message: None,
            },
            last: None,
            restarts: before.map_or(0, |s| u32::try_from(s.restart_count).unwrap_or(0) + 1),
            crashes: 0,
            has_startup,
            has_readiness,
            started: false,
            ready: false,
            stopping: false,
            not_before: None,
        }
    }

    pub fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    fn has_run(&self) -> bool {
        !matches!(self.state, State::Waiting { .. }) || self.last.is_some()
    }

    fn init_done(&self) -> bool {
        match (&self.state, self.role) {
            (State::Running { .. }, Role::Sidecar) => self.started,
            (State::Ended(e), Role::Init) => e.code == 0,
            _ => false,
        }
    }

    /// It runs now.
    pub fn begun(&mut self, now: Timestamp, id: String) {
        if let State::BackOff { ended, .. } | State::Ended(ended) = &self.state {
            self.last = Some(ended.clone());
            self.restarts += 1;
        }
        self.state = State::Running { since: now, id };
        self.started = !self.has_startup;
        self.ready = self.started && !self.has_readiness;
        self.stopping = false;
        self.not_before = None;
    }

    /// The startup probe has succeeded.
    pub fn startup_passed(&mut self) {
        self.started = true;
        self.ready = !self.has_readiness;
    }

    /// It ended, or could not be started; what next depends on the policy.
    pub fn ended(&mut self, ended: Ended, backoff: &Backoff, pod_stops: bool) {
        let again = match self.policy {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => ended.code != 0,
            RestartPolicy::Never => false,
        };
        (self.started, self.ready, self.stopping) = (false, false, false);
        if !again || pod_stops {
            self.state = State::Ended(ended);
            return;
        }
        let ran = ended.started_at.map_or(SignedDuration::ZERO, |s| {
            ended.finished_at.duration_since(s)
        });
        if ran.unsigned_abs() >= backoff.reset {
            self.crashes = 0;
        }
        let delay = backoff.after(self.crashes);
        self.crashes += 1;
        let until = ended
            .finished_at
            .checked_add(delay)
            .unwrap_or(Timestamp::MAX);
        self.state = State::BackOff {
            ended,
            until,
            delay,
        };
    }

    /// It cannot be started yet, for a reason that may pass (a missing ConfigMap).
    pub fn postponed(&mut self, reason: &'static str, message: String, until: Timestamp) {
        self.not_before = Some(until);
        if !matches!(self.state, State::BackOff { .. }) {
            self.state = State::Waiting {
                reason,
                message: Some(message),
            };
        }
    }

    /// When it may be started: `None` if it must not.
    fn due(&self) -> Option<Timestamp> {
        let at = match &self.state {
            State::Waiting { .. } => Timestamp::MIN,
            State::BackOff { until, .. } => *until,
            State::Running { .. } | State::Ended(_) => return None,
        };
        Some(at.max(self.not_before.unwrap_or(Timestamp::MIN)))
    }
}

fn pod_has_init(pod: &Pod) -> bool {
    let inits = pod.spec.as_ref().and_then(|s| s.init_containers.as_ref());
    inits.is_some_and(|l| !l.is_empty())
}

/// Decides what to do now.
pub fn decide(book: &Book, now: Timestamp) -> Decision {
    if book.stop.is_some() || book.finished() {
        return decide_stop(book);
    }
    if let Some(deadline) = book.deadline
        && deadline <= now
    {
        return decide_stop(book);
    }
    let mut decision = Decision {
        wake: book.deadline,
        ..Decision::default()
    };
    if !book.sandbox {
        match book.sandbox_not_before.filter(|t| *t > now) {
            Some(later) => decision.look_again(later),
            None => decision.actions.push(Action::MakeSandbox),
        }
        return decision;
    }
    for track in book.tracks.iter().filter(|t| t.role != Role::Main) {
        // A sidecar is started again at any time, an init container only until all have succeeded.
        if track.role == Role::Sidecar || !book.initialized() {
            decision.start(track, now);
        }
        if !track.init_done() && !book.initialized() {
            return decision;
        }
    }
    for track in book.mains() {
        decision.start(track, now);
    }
    decision
}

/// Whether `activeDeadlineSeconds` are over.
pub fn past_deadline(book: &Book, now: Timestamp) -> bool {
    book.deadline.is_some_and(|d| d <= now) && !book.finished()
}

/// Ends what runs: first everything but sidecars, then these in reverse order, then the sandbox.
fn decide_stop(book: &Book) -> Decision {
    let mut decision = Decision::default();
    let regular: Vec<&Track> = book.running().filter(|t| t.role != Role::Sidecar).collect();
    if !regular.is_empty() {
        let untold = regular.iter().filter(|t| !t.stopping);
        decision.actions = untold.map(|t| Action::Stop(t.name.clone())).collect();
    } else if let Some(sidecar) = book.running().last() {
        if !sidecar.stopping {
            decision.actions.push(Action::Stop(sidecar.name.clone()));
        }
    } else if book.sandbox {
        decision.actions.push(Action::RemoveSandbox);
    }
    decision
}

impl Decision {
    fn start(&mut self, track: &Track, now: Timestamp) {
        match track.due() {
            Some(due) if due <= now => self.actions.push(Action::Start(track.name.clone())),
            Some(due) => self.look_again(due),
            None => {}
        }
    }

    fn look_again(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}

#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod tests;
