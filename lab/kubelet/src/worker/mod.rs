//! One pod's task: it asks [`lifecycle::decide`] what to do, does it, and tells the API.
//!
//! ```text
//!   watch ──┐
//!   probes ─┼─▶ inbox ─▶ book ─▶ decide ─▶ start, stop, sandbox ─▶ status
//!   exits ──┘            ▲                                   │
//!                        └───────────── again ◀──────────────┘
//! ```
//!
//! Everything that takes long (waiting for a grace period, probing) is a task of its own that writes to the inbox, so
//! that a deletion is heard at once. The pod's task ends when the API has let the pod go.

mod probing;
mod start;
mod stop;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodCondition, PodStatus};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::api::{self, Answer};
use crate::container::{ExecSpec, Report, cgroup};
use crate::fields::Addresses;
use crate::kubelet::Kubelet;
use crate::lifecycle::{self, Action, Book, Ended, State, Stop};
use crate::paths::PodPaths;
use crate::probes::Kind;
use crate::runtime::Hand;
use crate::sandbox::{self, Sandbox, SandboxError};
use crate::status;

/// How long containers get to end with the kubelet.
const CLOSING: Duration = Duration::from_secs(2);

/// What a pod's task hears.
#[derive(Debug)]
pub enum Input {
    /// The API has this pod now.
    Pod(Box<Pod>),
    /// The API has it no more.
    Gone,
    /// Run number `attempt` of a container has ended.
    Exited {
        container: String,
        attempt: u32,
        report: Report,
    },
    Probe {
        container: String,
        attempt: u32,
        kind: Kind,
        heard: Heard,
    },
    /// A `postStart` hook failed.
    HookFailed {
        container: String,
        attempt: u32,
        message: String,
    },
}

/// What a probe found.
#[derive(Debug)]
pub enum Heard {
    /// One answer that was no.
    Failed(String),
    /// Enough answers in a row.
    Verdict(bool),
}

/// A container that runs, with what belongs to it.
struct Live {
    hand: Hand,
    attempt: u32,
    /// How to run a program beside it.
    exec: ExecSpec,
    /// Its probes and hooks, ended with it.
    tasks: Vec<AbortHandle>,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// One pod's task.
pub struct Worker {
    kubelet: Arc<Kubelet>,
    pod: Pod,
    paths: PodPaths,
    book: Book,
    addresses: Addresses,
    sandbox: Option<Sandbox>,
    live: BTreeMap<String, Live>,
    /// Runs of each container so far, which number its logs.
    attempts: BTreeMap<String, u32>,
    inbox: mpsc::UnboundedReceiver<Input>,
    outbox: mpsc::UnboundedSender<Input>,
    published: Option<PodStatus>,
    /// The API did not take the last status.
    unpublished: bool,
    /// The API has no such pod any more.
    gone: bool,
    /// It had ended before this kubelet started; nothing is to be done but to confirm its deletion.
    over: bool,
    /// Seconds of grace in a deletion.
    grace: Option<i64>,
    said: BTreeSet<String>,
}

impl Worker {
    /// The task's state, and where to write to it.
    pub fn new(kubelet: Arc<Kubelet>, pod: Pod) -> (Worker, mpsc::UnboundedSender<Input>) {
        let (outbox, inbox) = mpsc::unbounded_channel();
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        let mut worker = Worker {
            paths: kubelet.paths.pod(namespace, name),
            book: Book::new(&pod, Timestamp::now()),
            addresses: Addresses {
                pod: Vec::new(),
                host: kubelet.options.node_ips.clone(),
            },
            sandbox: None,
            live: BTreeMap::new(),
            attempts: BTreeMap::new(),
            inbox,
            outbox: outbox.clone(),
            published: None,
            unpublished: false,
            gone: false,
            over: matches!(phase, Some("Succeeded" | "Failed")),
            grace: None,
            said: BTreeSet::new(),
            kubelet,
            pod,
        };
        worker.hear_deletion();
        (worker, outbox)
    }

    /// Runs the pod until the API has let it go.
    pub async fn run(mut self) {
        loop {
            let now = Timestamp::now();
            if lifecycle::past_deadline(&self.book, now) && self.book.stop.is_none() {
                self.book.stop = Some(Stop::Deadline);
            }
            let decision = match self.over {
                true => lifecycle::Decision::default(),
                false => lifecycle::decide(&self.book, now),
            };
            let acted = !decision.actions.is_empty();
            for action in decision.actions {
                self.act(action).await;
            }
            self.publish().await;
            if acted {
                while let Ok(input) = self.inbox.try_recv() {
                    self.hear(input);
                }
                continue;
            }
            if self.is_down() && self.let_go().await {
                return;
            }
            if self.wait(decision.wake).await {
                return self.close().await;
            }
        }
    }

    /// Waits for news. True: the kubelet is told to end.
    async fn wait(&mut self, wake: Option<Timestamp>) -> bool {
        let now = Timestamp::now();
        let mut pause = wake.map_or(Duration::from_secs(3600), |at| {
            at.duration_since(now)
                .unsigned_abs()
                .max(Duration::from_millis(1))
        });
        if self.unpublished || self.is_down() {
            pause = pause.min(Duration::from_secs(1));
        }
        let mut ready = self.kubelet.network_ready.subscribe();
        let mut closing = self.kubelet.closing.subscribe();
        tokio::select! {
            input = self.inbox.recv() => if let Some(input) = input { self.hear(input) },
            _ = ready.changed(), if !self.book.sandbox => self.book.sandbox_retry_now(),
            _ = closing.wait_for(|told| *told) => return true,
            () = tokio::time::sleep(pause) => {}
        }
        false
    }

    /// Ends with the kubelet: the containers are told, those that do not listen are killed, the network is detached. The
    /// API is not told, since the pod is not to be ended, only this run of it.
    async fn close(mut self) {
        let end = tokio::time::Instant::now() + CLOSING;
        for live in self.live.values() {
            live.hand.signal(libc::SIGTERM).await;
        }
        while !self.live.is_empty() {
            match tokio::time::timeout_at(end, self.inbox.recv()).await {
                Ok(Some(Input::Exited { container, .. })) => drop(self.live.remove(&container)),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
        self.live.clear();
        if self.book.sandbox {
            self.remove_sandbox().await;
        }
        self.remove_cgroup();
    }

    /// It is being deleted, and nothing of it is left.
    fn is_down(&self) -> bool {
        let stopped = self.over || (!self.book.sandbox && self.live.is_empty());
        (self.gone || self.book.stop == Some(Stop::Deleted)) && stopped
    }

    async fn let_go(&mut self) -> bool {
        if !self.gone
            && api::confirm_deletion(&self.kubelet.client, &self.pod).await == Answer::Later
        {
            return false;
        }
        let meta = &self.pod.metadata;
        let (namespace, name) = (meta.namespace.as_deref(), meta.name.as_deref());
        let logs = self.kubelet.paths.logs(
            namespace.unwrap_or("default"),
            name.unwrap_or_default(),
            meta.uid.as_deref().unwrap_or_default(),
        );
        let _ = tokio::fs::remove_dir_all(logs).await;
        self.remove_cgroup();
        true
    }

    /// Those of the containers are gone with them.
    fn remove_cgroup(&self) {
        let uid = self.pod.metadata.uid.as_deref().unwrap_or_default();
        if let Some(base) = self
            .kubelet
            .options
            .cgroup
            .as_ref()
            .filter(|_| !uid.is_empty())
        {
            cgroup::remove_tree(&format!("{base}/{uid}"));
        }
    }

    async fn act(&mut self, action: Action) {
        match action {
            Action::MakeSandbox => self.make_sandbox().await,
            Action::Start(name) => self.start(&name).await,
            Action::Stop(name) => {
                let grace = self.grace_of_pod();
                self.stop(&name, grace, &format!("Stopping container {name}"));
            }
            Action::RemoveSandbox => self.remove_sandbox().await,
        }
    }

    async fn make_sandbox(&mut self) {
        // The stages before the network can be seen by whoever asks why it takes so long.
        self.publish().await;
        let Some(result) = self.make_unless_stopped().await else {
            return;
        };
        match result {
            Ok(made) => {
                self.addresses.pod = made.addresses.clone();
                for warning in &made.warnings {
                    self.kubelet
                        .recorder
                        .warning(&self.pod, None, "VolumeNotPersistent", warning);
                }
                self.sandbox = Some(made);
                self.book.sandbox_made();
            }
            Err(error) => {
                let message = error.to_string();
                self.kubelet
                    .recorder
                    .warning(&self.pod, None, error.reason(), &message);
                self.book.sandbox_failed(Timestamp::now());
            }
        }
    }

    /// Making a sandbox may take long, if a plugin waits. A deletion is heard meanwhile and ends it.
    async fn make_unless_stopped(&mut self) -> Option<Result<Sandbox, SandboxError>> {
        let (kubelet, pod, paths) = (self.kubelet.clone(), self.pod.clone(), self.paths.clone());
        let mut closing = kubelet.closing.subscribe();
        let mut making = std::pin::pin!(sandbox::make(&kubelet, &pod, &paths));
        loop {
            tokio::select! {
                result = &mut making => return Some(result),
                _ = closing.wait_for(|told| *told) => break,
                input = self.inbox.recv() => {
                    if let Some(input) = input {
                        self.hear(input);
                    }
                    if self.book.stop.is_some() {
                        break;
                    }
                }
            }
        }
        sandbox::remove_dir(&kubelet, &paths).await;
        None
    }

    async fn remove_sandbox(&mut self) {
        let record = self.sandbox.take().and_then(|s| s.record);
        if let Err(error) = sandbox::remove(&self.kubelet, record.as_ref(), &self.paths).await {
            self.kubelet
                .recorder
                .warning(&self.pod, None, "FailedKillPod", &error.to_string());
        }
        self.book.sandbox = false;
    }

    /// Seconds that the containers get to end.
    fn grace_of_pod(&self) -> u64 {
        let spec = self.pod.spec.as_ref();
        let grace = self
            .grace
            .or(spec.and_then(|s| s.termination_grace_period_seconds));
        grace.unwrap_or(30).max(0).unsigned_abs()
    }

    fn hear(&mut self, input: Input) {
        match input {
            Input::Pod(pod) => {
                self.pod = *pod;
                self.hear_deletion();
            }
            Input::Gone => {
                self.gone = true;
                self.book.stop = Some(Stop::Deleted);
                self.hurry(1);
            }
            Input::Exited {
                container,
                attempt,
                report,
            } => self.hear_exit(&container, attempt, &report),
            Input::Probe {
                container,
                attempt,
                kind,
                heard,
            } => {
                if self
                    .live
                    .get(&container)
                    .is_some_and(|l| l.attempt == attempt)
                {
                    self.hear_probe(&container, kind, heard);
                }
            }
            Input::HookFailed {
                container,
                attempt,
                message,
            } => {
                if self
                    .live
                    .get(&container)
                    .is_some_and(|l| l.attempt == attempt)
                {
                    let text = format!("PostStartHook failed: {message}");
                    self.warn(&container, "FailedPostStartHook", &text);
                    self.stop(&container, self.grace_of_pod(), "FailedPostStartHook");
                }
            }
        }
    }

    /// Notices that the pod is being deleted, or must end sooner than it was told.
    fn hear_deletion(&mut self) {
        if self.pod.metadata.deletion_timestamp.is_none() {
            return;
        }
        let grace = self.pod.metadata.deletion_grace_period_seconds;
        let sooner = matches!((self.grace, grace), (Some(old), Some(new)) if new < old);
        self.grace = grace.or(self.grace);
        self.book.stop = Some(Stop::Deleted);
        if sooner {
            self.hurry(self.grace_of_pod());
        }
    }

    fn hear_exit(&mut self, name: &str, attempt: u32, report: &Report) {
        let Some(live) = self.live.remove(name).filter(|l| l.attempt == attempt) else {
            return;
        };
        let Report::Exited {
            code,
            signal,
            oom_killed,
        } = report
        else {
            return;
        };
        let code = code.or(signal.map(|s| 128 + s)).unwrap_or(137);
        let (since, id) = match self.book.track(name).map(|t| &t.state) {
            Some(State::Running { since, id }) => (Some(*since), id.clone()),
            _ => (None, String::new()),
        };
        let ended = Ended {
            code,
            signal: *signal,
            reason: match (oom_killed, code) {
                (true, _) => "OOMKilled",
                (false, 0) => "Completed",
                _ => "Error",
            },
            message: start::last_words(
                &self.kubelet,
                &self.pod,
                &self.paths,
                name,
                live.attempt,
                code,
            ),
            started_at: since,
            finished_at: Timestamp::now(),
            id,
        };
        drop(live);
        self.note_end(name, ended);
    }

    /// Writes an end into the book, and says so if it leads to a wait.
    fn note_end(&mut self, name: &str, ended: Ended) {
        let stops = self.book.stop.is_some();
        let backoff = self.kubelet.options.backoff;
        let Some(track) = self.book.track_mut(name) else {
            return;
        };
        track.ended(ended, &backoff, stops);
        if let State::BackOff { delay, .. } = &track.state
            && !delay.is_zero()
        {
            let message = status::backoff_message(&self.pod, name, *delay);
            self.warn(name, "BackOff", &message);
        }
    }

    fn warn(&self, container: &str, reason: &'static str, message: &str) {
        self.kubelet
            .recorder
            .warning(&self.pod, Some(container), reason, message);
    }

    /// Says something once in the life of the pod.
    fn warn_once(&mut self, container: &str, reason: &'static str, message: &str) {
        if self.said.insert(format!("{container} {reason} {message}")) {
            self.warn(container, reason, message);
        }
    }

    fn container(&self, name: &str) -> Option<Container> {
        let spec = self.pod.spec.as_ref()?;
        let inits = spec.init_containers.iter().flatten();
        inits
            .chain(&spec.containers)
            .find(|c| c.name == name)
            .cloned()
    }

    /// Tells the API what has changed.
    async fn publish(&mut self) {
        if self.over || self.gone {
            return;
        }
        let before = self.conditions();
        let status = status::render(
            &self.pod,
            &self.book,
            &self.addresses,
            &before,
            Timestamp::now(),
        );
        if self.published.as_ref() == Some(&status) && !self.unpublished {
            return;
        }
        let answer = api::write_status(&self.kubelet.client, &self.pod, &status).await;
        self.unpublished = answer == Answer::Later;
        self.published = Some(status);
    }

    /// The conditions to start from: ours as last told, others' as the API has them.
    fn conditions(&self) -> Vec<PodCondition> {
        let api = self
            .pod
            .status
            .iter()
            .flat_map(|s| s.conditions.iter().flatten());
        let Some(told) = &self.published else {
            return api.cloned().collect();
        };
        let ours = told.conditions.iter().flatten();
        let ours = ours.filter(|c| status::OWN_CONDITIONS.contains(&c.type_.as_str()));
        api.filter(|c| !status::OWN_CONDITIONS.contains(&c.type_.as_str()))
            .chain(ours)
            .cloned()
            .collect()
    }
}
