//! A pod's status as the API shows it, from what the [`Book`] knows.
//!
//! Pure: the same book gives the same status, so the caller can compare and patch only changes. Conditions of
//! other owners (`PodScheduled`, readiness gates) are kept as they are. Names, reasons and messages are the
//! kubelet's, since scripts and people know them.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::fields::Addresses;
use crate::lifecycle::{Book, Ended, Phase, Role, State, Stop, Track};

/// The conditions that the kubelet writes.
pub const OWN_CONDITIONS: &[&str] = &[
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
];

/// Writes the status. `before` are the conditions which the API has, for times of transition and other owners.
pub fn render(
    pod: &Pod,
    book: &Book,
    addresses: &Addresses,
    before: &[PodCondition],
    now: Timestamp,
) -> PodStatus {
    let phase = book.phase();
    let ip = |ip: &IpAddr| ip.to_string();
    let (mains, inits): (Vec<&Track>, Vec<&Track>) =
        book.tracks.iter().partition(|t| t.role == Role::Main);
    let statuses = |tracks: Vec<&Track>| -> Vec<ContainerStatus> {
        tracks
            .into_iter()
            .map(|t| container_status(pod, t))
            .collect()
    };
    let deadline = book.stop == Some(Stop::Deadline);
    PodStatus {
        phase: Some(phase.as_str().to_owned()),
        conditions: Some(conditions(pod, book, phase, before, now)),
        message: deadline
            .then(|| "Pod was active on the node longer than the specified deadline".to_owned()),
        reason: deadline.then(|| "DeadlineExceeded".to_owned()),
        host_ip: addresses.host.first().map(ip),
        host_ips: some(
            addresses
                .host
                .iter()
                .map(|a| HostIP { ip: ip(a) })
                .collect(),
        ),
        pod_ip: addresses.pod.first().map(ip),
        pod_ips: some(addresses.pod.iter().map(|a| PodIP { ip: ip(a) }).collect()),
        start_time: Some(time(book.started_at)),
        init_container_statuses: some(statuses(inits)),
        container_statuses: some(statuses(mains)),
        qos_class: pod.spec.as_ref().map(|s| qos_class(s).to_owned()),
        ..PodStatus::default()
    }
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    Some(list).filter(|l| !l.is_empty())
}

/// The API's times are in whole seconds.
pub fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

fn container_status(pod: &Pod, track: &Track) -> ContainerStatus {
    let last = match &track.state {
        State::BackOff { ended, .. } => Some(ended),
        _ => track.last.as_ref(),
    };
    let id = match &track.state {
        State::Running { id, .. } => Some(id),
        State::Ended(e) | State::BackOff { ended: e, .. } => Some(&e.id),
        State::Waiting { .. } => track.last.as_ref().map(|e| &e.id),
    };
    ContainerStatus {
        name: track.name.clone(),
        image: track.image.clone(),
        image_id: format!("parfait://{}", track.image),
        container_id: id
            .filter(|id| !id.is_empty())
            .map(|id| format!("parfait://{id}")),
        ready: match track.role {
            Role::Init => matches!(&track.state, State::Ended(e) if e.code == 0),
            Role::Main | Role::Sidecar => track.ready,
        },
        started: Some(track.started),
        restart_count: i32::try_from(track.restarts).unwrap_or(i32::MAX),
        state: Some(state(pod, track)),
        last_state: last.map(|e| ContainerState {
            terminated: Some(terminated(e)),
            ..ContainerState::default()
        }),
        ..ContainerStatus::default()
    }
}

fn state(pod: &Pod, track: &Track) -> ContainerState {
    let waiting = |reason: &str, message: Option<String>| ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message,
        }),
        ..ContainerState::default()
    };
    match &track.state {
        State::Waiting { reason, message } => waiting(reason, message.clone()),
        State::Running { since, .. } => ContainerState {
            running: Some(ContainerStateRunning {
                started_at: Some(time(*since)),
            }),
            ..ContainerState::default()
        },
        // Without a wait it is about to start again, and the end is still what there is to see.
        State::BackOff { ended, delay, .. } if delay.is_zero() => ContainerState {
            terminated: Some(terminated(ended)),
            ..ContainerState::default()
        },
        State::BackOff { delay, .. } => waiting(
            "CrashLoopBackOff",
            Some(backoff_message(pod, &track.name, *delay)),
        ),
        State::Ended(ended) => ContainerState {
            terminated: Some(terminated(ended)),
            ..ContainerState::default()
        },
    }
}

/// The message of `CrashLoopBackOff` and of the event `BackOff`.
pub fn backoff_message(pod: &Pod, container: &str, delay: std::time::Duration) -> String {
    let seconds = delay.as_secs();
    let wait = match (seconds / 60, seconds % 60) {
        (0, s) => format!("{s}s"),
        (m, s) => format!("{m}m{s}s"),
    };
    let meta = &pod.metadata;
    format!(
        "back-off {wait} restarting failed container={container} pod={}_{}({})",
        meta.name.as_deref().unwrap_or_default(),
        meta.namespace.as_deref().unwrap_or_default(),
        meta.uid.as_deref().unwrap_or_default(),
    )
}

fn terminated(ended: &Ended) -> ContainerStateTerminated {
    ContainerStateTerminated {
        exit_code: ended.code,
        signal: ended.signal,
        reason: Some(ended.reason.to_owned()),
        message: ended.message.clone(),
        started_at: ended.started_at.map(time),
        finished_at: Some(time(ended.finished_at)),
        container_id: Some(format!("parfait://{}", ended.id)).filter(|_| !ended.id.is_empty()),
    }
}

/// One condition: its status, and why it is not `True`.
struct Verdict {
    type_: &'static str,
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

fn conditions(
    pod: &Pod,
    book: &Book,
    phase: Phase,
    before: &[PodCondition],
    now: Timestamp,
) -> Vec<PodCondition> {
    let verdicts = verdicts(pod, book, phase, before);
    let ours: Vec<&str> = verdicts.iter().map(|v| v.type_).collect();
    let mut list: Vec<PodCondition> = before
        .iter()
        .filter(|c| !ours.contains(&c.type_.as_str()))
        .cloned()
        .collect();
    for verdict in verdicts {
        let status = if verdict.holds { "True" } else { "False" };
        let old = before
            .iter()
            .find(|c| c.type_ == verdict.type_ && c.status == status);
        list.push(PodCondition {
            type_: verdict.type_.to_owned(),
            status: status.to_owned(),
            reason: verdict.reason.map(str::to_owned),
            message: verdict.message,
            last_transition_time: old
                .and_then(|c| c.last_transition_time.clone())
                .or_else(|| Some(time(now))),
            ..PodCondition::default()
        });
    }
    list
}

fn verdicts(pod: &Pod, book: &Book, phase: Phase, before: &[PodCondition]) -> Vec<Verdict> {
    let names = |tracks: &[&Track]| {
        let names: Vec<&str> = tracks.iter().map(|t| t.name.as_str()).collect();
        format!("[{}]", names.join(" "))
    };
    let verdict = |type_, why: Option<(&'static str, String)>| Verdict {
        type_,
        holds: why.is_none(),
        reason: why.as_ref().map(|(reason, _)| *reason),
        message: why.map(|(_, message)| message).filter(|m| !m.is_empty()),
    };
    let waiting: Vec<&Track> = book
        .tracks
        .iter()
        .filter(|t| match t.role {
            Role::Init => !matches!(&t.state, State::Ended(e) if e.code == 0),
            Role::Sidecar => !t.started,
            Role::Main => false,
        })
        .collect();
    let not_initialized = (!book.initialized()).then(|| {
        let text = format!("containers with incomplete status: {}", names(&waiting));
        ("ContainersNotInitialized", text)
    });
    let unready: Vec<&Track> = book
        .tracks
        .iter()
        .filter(|t| t.role != Role::Init && !t.ready)
        .collect();
    let not_ready = match phase {
        Phase::Succeeded => Some(("PodCompleted", String::new())),
        Phase::Failed => Some(("PodFailed", String::new())),
        _ if unready.is_empty() => None,
        _ => Some((
            "ContainersNotReady",
            format!("containers with unready status: {}", names(&unready)),
        )),
    };
    let gates = pod.spec.as_ref().and_then(|s| s.readiness_gates.as_ref());
    let closed = gates.into_iter().flatten().find(|gate| {
        !before
            .iter()
            .any(|c| c.type_ == gate.condition_type && c.status == "True")
    });
    let pod_not_ready = not_ready.clone().or_else(|| {
        closed.map(|gate| {
            let text = format!(
                "the status of pod readiness gate {:?} is not \"True\"",
                gate.condition_type
            );
            ("ReadinessGatesNotReady", text)
        })
    });
    let no_sandbox = (!book.sandbox).then(|| ("PodSandboxNotReady", String::new()));
    vec![
        verdict("PodReadyToStartContainers", no_sandbox),
        verdict("Initialized", not_initialized),
        verdict("Ready", pod_not_ready),
        verdict("ContainersReady", not_ready),
    ]
}

/// Guaranteed, Burstable or BestEffort, by the requests and limits of all containers.
pub fn qos_class(spec: &PodSpec) -> &'static str {
    let containers = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    let (mut any, mut all_equal) = (false, true);
    for container in containers {
        let resources = container.resources.as_ref();
        let of = |list: fn(&k8s_openapi::api::core::v1::ResourceRequirements) -> Option<String>| {
            resources.and_then(list)
        };
        let pairs = [
            (
                of(|r| r.limits.as_ref()?.get("cpu").map(|q| q.0.clone())),
                of(|r| r.requests.as_ref()?.get("cpu").map(|q| q.0.clone())),
            ),
            (
                of(|r| r.limits.as_ref()?.get("memory").map(|q| q.0.clone())),
                of(|r| r.requests.as_ref()?.get("memory").map(|q| q.0.clone())),
            ),
        ];
        for (limit, request) in pairs {
            any |= limit.is_some() || request.is_some();
            all_equal &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, all_equal) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
