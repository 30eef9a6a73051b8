//! Statuses, as kubectl would show them.

use serde_json::json;

use super::*;
use crate::lifecycle::Backoff;

fn pod() -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "shop", "uid": "u-1"},
        "spec": {"containers": [{"name": "a", "image": "x"}], "readinessGates": [{"conditionType": "example.com/open"}]}
    }))
    .expect("a pod")
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).expect("a time")
}

fn of<'a>(status: &'a PodStatus, type_: &str) -> (&'a str, Option<&'a str>) {
    let list = status.conditions.as_deref().unwrap_or_default();
    let c = list.iter().find(|c| c.type_ == type_).expect("a condition");
    (c.status.as_str(), c.reason.as_deref())
}

#[test]
fn conditions_keep_their_times_and_other_owners() {
    let pod = pod();
    let addresses = Addresses {
        pod: vec!["10.244.1.5".parse().expect("ip")],
        host: vec!["192.168.77.11".parse().expect("ip")],
    };
    let mut book = Book::new(&pod, at(0));
    let scheduled: PodCondition =
        serde_json::from_value(json!({"type": "PodScheduled", "status": "True"}))
            .expect("condition");
    let first = render(
        &pod,
        &book,
        &addresses,
        std::slice::from_ref(&scheduled),
        at(1),
    );
    assert_eq!(first.phase.as_deref(), Some("Pending"));
    assert_eq!(
        of(&first, "ContainersReady"),
        ("False", Some("ContainersNotReady"))
    );
    assert_eq!(of(&first, "PodScheduled"), ("True", None));
    book.sandbox_made();
    book.track_mut("a")
        .expect("a")
        .begun(at(2), "c1".to_owned());
    let mut before = first.conditions.clone().expect("conditions");
    let second = render(&pod, &book, &addresses, &before, at(3));
    assert_eq!(of(&second, "ContainersReady"), ("True", None));
    assert_eq!(
        of(&second, "Ready"),
        ("False", Some("ReadinessGatesNotReady"))
    );
    let unchanged = |s: &PodStatus| {
        s.conditions
            .as_deref()
            .unwrap_or_default()
            .iter()
            .find(|c| c.type_ == "Initialized")
            .and_then(|c| c.last_transition_time.clone())
    };
    assert_eq!(unchanged(&second), unchanged(&first));
    before = second.conditions.clone().expect("conditions");
    before.push(
        serde_json::from_value(json!({"type": "example.com/open", "status": "True"})).expect("c"),
    );
    let third = render(&pod, &book, &addresses, &before, at(4));
    assert_eq!(of(&third, "Ready"), ("True", None));
    assert_eq!(third.pod_ip.as_deref(), Some("10.244.1.5"));
    assert_eq!(third.qos_class.as_deref(), Some("BestEffort"));
    let container = &third.container_statuses.as_deref().expect("statuses")[0];
    assert_eq!(container.container_id.as_deref(), Some("parfait://c1"));
    assert!(container.ready && container.started == Some(true));
}

#[test]
fn a_crashing_container_is_shown_waiting() {
    let pod = pod();
    let mut book = Book::new(&pod, at(0));
    book.sandbox_made();
    let track = book.track_mut("a").expect("a");
    for run in 0..2 {
        track.begun(at(run), format!("c{run}"));
        let ended = Ended {
            code: 1,
            signal: None,
            reason: "Error",
            message: Some("boom".to_owned()),
            started_at: Some(at(run)),
            finished_at: at(run + 1),
            id: format!("c{run}"),
        };
        track.ended(ended, &Backoff::default(), false);
    }
    let status = render(&pod, &book, &Addresses::default(), &[], at(3));
    let c = &status.container_statuses.as_deref().expect("statuses")[0];
    let waiting = c
        .state
        .as_ref()
        .and_then(|s| s.waiting.as_ref())
        .expect("waiting");
    assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
    assert_eq!(
        waiting.message.as_deref(),
        Some("back-off 10s restarting failed container=a pod=web_shop(u-1)")
    );
    let last = c
        .last_state
        .as_ref()
        .and_then(|s| s.terminated.as_ref())
        .expect("last");
    assert_eq!((last.exit_code, last.message.as_deref()), (1, Some("boom")));
    assert_eq!(c.restart_count, 1);
}

#[test]
fn qos_classes() {
    for (resources, class) in [
        (json!({}), "BestEffort"),
        (json!({"requests": {"cpu": "1"}}), "Burstable"),
        (
            json!({"limits": {"cpu": "1", "memory": "1Gi"}}),
            "Guaranteed",
        ),
        (
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}),
            "Burstable",
        ),
    ] {
        let spec: PodSpec =
            serde_json::from_value(json!({"containers": [{"name": "a", "resources": resources}]}))
                .expect("spec");
        assert_eq!(qos_class(&spec), class);
    }
}
