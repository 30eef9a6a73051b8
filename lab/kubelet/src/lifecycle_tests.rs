//! Lives of pods, told in steps.

use serde_json::json;

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).expect("a time")
}

fn book(spec: serde_json::Value) -> Book {
    let pod: Pod =
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).expect("pod");
    Book::new(&pod, at(0))
}

fn end(code: i32, from: i64, to: i64) -> Ended {
    Ended {
        code,
        signal: None,
        reason: if code == 0 { "Completed" } else { "Error" },
        message: None,
        started_at: Some(at(from)),
        finished_at: at(to),
        id: String::new(),
    }
}

impl Book {
    fn begin(&mut self, name: &str, now: i64) {
        self.track_mut(name)
            .expect(name)
            .begun(at(now), String::new());
    }

    fn end(&mut self, name: &str, code: i32, from: i64, to: i64) {
        let stops = self.stop.is_some();
        let track = self.track_mut(name).expect(name);
        track.ended(end(code, from, to), &Backoff::default(), stops);
    }

    /// The actions now, as words.
    fn steps(&self, now: i64) -> Vec<String> {
        let actions = decide(self, at(now)).actions;
        actions
            .into_iter()
            .map(|a| match a {
                Action::MakeSandbox => "sandbox".to_owned(),
                Action::Start(n) => format!("start {n}"),
                Action::Stop(n) => format!("stop {n}"),
                Action::RemoveSandbox => "remove".to_owned(),
            })
            .collect()
    }
}

fn two() -> serde_json::Value {
    json!({
        "initContainers": [
            {"name": "i1", "image": "x"},
            {"name": "side", "image": "x", "restartPolicy": "Always", "startupProbe": {"exec": {}}},
            {"name": "i2", "image": "x"}],
        "containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "x", "readinessProbe": {"exec": {}}}]
    })
}

#[test]
fn init_containers_in_order_then_all() {
    let mut b = book(two());
    assert_eq!(b.steps(0), ["sandbox"]);
    b.sandbox_made();
    assert_eq!(b.steps(0), ["start i1"]);
    b.begin("i1", 0);
    assert_eq!((b.steps(1), b.phase()), (vec![], Phase::Pending));
    b.end("i1", 0, 0, 1);
    assert_eq!(b.steps(1), ["start side"]);
    b.begin("side", 1);
    assert_eq!(
        b.steps(2),
        Vec::<String>::new(),
        "its startup probe has not succeeded"
    );
    b.track_mut("side").expect("side").startup_passed();
    assert_eq!(b.steps(2), ["start i2"]);
    b.begin("i2", 2);
    b.end("i2", 0, 2, 3);
    assert!(b.initialized());
    assert_eq!(b.steps(3), ["start a", "start b"]);
    b.begin("a", 3);
    b.begin("b", 3);
    assert_eq!((b.steps(4), b.phase()), (vec![], Phase::Running));
    let ready: Vec<bool> = b.tracks.iter().map(|t| t.ready).collect();
    assert_eq!(ready, [false, true, false, true, false]);
}

/// A manifest with this once ended the kubelet, each time it was started again.
#[test]
fn a_deadline_after_the_end_of_time_is_none() {
    let with = |seconds: i64| {
        book(json!({"activeDeadlineSeconds": seconds, "containers": [{"name": "a", "image": "x"}]}))
    };
    assert_eq!(with(i64::MAX).deadline, None);
    assert_eq!(with(60).deadline, Some(at(60)));
}

#[test]
fn a_failing_init_container_is_tried_again_or_fails_the_pod() {
    let mut b = book(two());
    b.sandbox_made();
    b.begin("i1", 0);
    b.end("i1", 1, 0, 1);
    assert_eq!(b.steps(1), ["start i1"], "the first time at once");
    b.begin("i1", 1);
    b.end("i1", 1, 1, 2);
    assert_eq!(b.steps(2), Vec::<String>::new());
    assert_eq!(decide(&b, at(2)).wake, Some(at(12)));
    let mut spec = two();
    spec["restartPolicy"] = json!("Never");
    let mut b = book(spec);
    b.sandbox_made();
    b.begin("i1", 0);
    b.end("i1", 1, 0, 1);
    assert_eq!(
        (b.steps(1), b.phase()),
        (vec!["remove".to_owned()], Phase::Failed)
    );
}

#[test]
fn restarts_wait_longer_each_time_up_to_five_minutes() {
    let mut b = book(json!({"containers": [{"name": "a"}]}));
    b.sandbox_made();
    let mut now = 0;
    let mut waits = Vec::new();
    for _ in 0..8 {
        b.begin("a", now);
        b.end("a", 1, now, now + 1);
        now += 1;
        let wake = match &b.track("a").expect("a").state {
            State::BackOff { until, .. } => until.as_second() - at(0).as_second(),
            other => panic!("{other:?}"),
        };
        waits.push(wake - now);
        now = wake;
        assert_eq!(b.steps(now), ["start a"]);
    }
    assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    assert_eq!(b.track("a").expect("a").restarts, 7);
    b.begin("a", now);
    b.end("a", 1, now, now + 700);
    assert_eq!(
        b.steps(now + 700),
        ["start a"],
        "forgiven after ten minutes"
    );
}

#[test]
fn restart_policies() {
    for (policy, code, again, phase) in [
        ("Always", 0, true, Phase::Running),
        ("Always", 1, true, Phase::Running),
        ("OnFailure", 0, false, Phase::Succeeded),
        ("OnFailure", 1, true, Phase::Running),
        ("Never", 0, false, Phase::Succeeded),
        ("Never", 1, false, Phase::Failed),
    ] {
        let mut b = book(json!({"restartPolicy": policy, "containers": [{"name": "a"}]}));
        b.sandbox_made();
        b.begin("a", 0);
        b.end("a", code, 0, 1);
        let expected = if again { ["start a"] } else { ["remove"] };
        assert_eq!(
            (b.steps(1), b.phase()),
            (vec![expected[0].to_owned()], phase),
            "{policy} {code}"
        );
    }
}

#[test]
fn deletion_stops_sidecars_last() {
    let mut b = book(two());
    b.sandbox_made();
    for name in ["i1", "i2"] {
        b.begin(name, 0);
        b.end(name, 0, 0, 0);
    }
    for name in ["side", "a", "b"] {
        b.begin(name, 0);
    }
    b.stop = Some(Stop::Deleted);
    assert_eq!(b.steps(5), ["stop a", "stop b"]);
    for name in ["a", "b"] {
        b.track_mut(name).expect(name).stopping = true;
    }
    assert_eq!((b.steps(5), b.phase()), (vec![], Phase::Running));
    b.end("a", 0, 0, 6);
    b.end("b", 143, 0, 6);
    assert_eq!(b.steps(6), ["stop side"]);
    b.end("side", 0, 0, 7);
    assert_eq!(
        (b.steps(7), b.phase()),
        (vec!["remove".to_owned()], Phase::Failed)
    );
    b.sandbox = false;
    assert_eq!(b.steps(8), Vec::<String>::new());
}

#[test]
fn what_cannot_start_yet_is_tried_later() {
    let mut b = book(json!({"containers": [{"name": "a"}], "activeDeadlineSeconds": 60}));
    b.sandbox_failed(at(0));
    assert_eq!(b.steps(0), Vec::<String>::new());
    assert_eq!(b.steps(1), ["sandbox"]);
    b.sandbox_made();
    let track = b.track_mut("a").expect("a");
    track.postponed(
        "CreateContainerConfigError",
        "no such configmap".to_owned(),
        at(5),
    );
    assert_eq!((b.steps(1), b.phase()), (vec![], Phase::Pending));
    assert_eq!(b.steps(5), ["start a"]);
    b.begin("a", 5);
    assert!(!past_deadline(&b, at(59)) && past_deadline(&b, at(60)));
    assert_eq!(b.steps(61), ["stop a"]);
}
