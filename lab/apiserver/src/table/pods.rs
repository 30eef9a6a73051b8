//! The row of a Pod: above all its STATUS, which is put together from containers, conditions and deletion.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::{Columns, age, age_of, column, items, name, number, or_none, text, wide};

/// Pod.
pub const PODS: Columns = Columns {
    columns: &[
        column("Name"),
        column("Ready"),
        column("Status"),
        column("Restarts"),
        column("Age"),
        wide("IP"),
        wide("Node"),
        wide("Nominated Node"),
        wide("Readiness Gates"),
    ],
    cells,
};

fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let statuses: Vec<&Value> = items(&pod["status"]["containerStatuses"]).collect();
    let ready = statuses.iter().filter(|c| c["ready"] == true).count();
    let total = items(&pod["spec"]["containers"]).count();
    let gates: Vec<&Value> = items(&pod["spec"]["readinessGates"]).collect();
    let gates = if gates.is_empty() {
        json!("<none>")
    } else {
        let passed = |gate: &&&Value| {
            items(&pod["status"]["conditions"])
                .any(|c| c["type"] == gate["conditionType"] && c["status"] == "True")
        };
        json!(format!(
            "{}/{}",
            gates.iter().filter(passed).count(),
            gates.len()
        ))
    };
    let ip = items(&pod["status"]["podIPs"])
        .next()
        .map_or(text(pod, &["status", "podIP"]), |ip| text(ip, &["ip"]));
    vec![
        name(pod),
        json!(format!("{ready}/{total}")),
        json!(status(pod)),
        json!(restarts(&statuses, now)),
        age_of(pod, now),
        or_none(ip),
        or_none(text(pod, &["spec", "nodeName"])),
        or_none(text(pod, &["status", "nominatedNodeName"])),
        gates,
    ]
}

fn restarts(statuses: &[&Value], now: Timestamp) -> String {
    let total: i64 = statuses.iter().map(|c| number(c, &["restartCount"])).sum();
    let last = statuses
        .iter()
        .filter_map(|c| {
            text(c, &["lastState", "terminated", "finishedAt"])
                .parse::<Timestamp>()
                .ok()
        })
        .max();
    match last {
        Some(last) if total > 0 => format!(
            "{total} ({} ago)",
            age::human(now.as_second() - last.as_second())
        ),
        _ => total.to_string(),
    }
}

fn status(pod: &Value) -> String {
    let mut reason = match text(pod, &["status", "reason"]) {
        "" => text(pod, &["status", "phase"]).to_owned(),
        reason => reason.to_owned(),
    };
    let gated = |c: &Value| c["type"] == "PodScheduled" && c["reason"] == "SchedulingGated";
    if items(&pod["status"]["conditions"]).any(gated) {
        reason = "SchedulingGated".to_owned();
    }
    match initializing(pod) {
        Some(init) => reason = init,
        None => reason = running(pod, reason),
    }
    if pod["metadata"]["deletionTimestamp"].is_string() {
        reason = if pod["status"]["reason"] == "NodeLost" {
            "Unknown"
        } else {
            "Terminating"
        }
        .to_owned();
    }
    reason
}

/// `Init:…` while an init container has not ended well.
fn initializing(pod: &Value) -> Option<String> {
    let total = items(&pod["spec"]["initContainers"]).count();
    for (i, container) in items(&pod["status"]["initContainerStatuses"]).enumerate() {
        let (state, sidecar) = (
            &container["state"],
            is_sidecar(pod, text(container, &["name"])),
        );
        if state["terminated"].is_object() && number(state, &["terminated", "exitCode"]) == 0 {
            continue;
        }
        if sidecar && container["started"] == true {
            continue;
        }
        if state["terminated"].is_object() {
            return Some(format!("Init:{}", ended(&state["terminated"])));
        }
        return Some(match text(state, &["waiting", "reason"]) {
            "" | "PodInitializing" => format!("Init:{i}/{total}"),
            reason => format!("Init:{reason}"),
        });
    }
    None
}

fn is_sidecar(pod: &Value, name: &str) -> bool {
    items(&pod["spec"]["initContainers"])
        .any(|c| c["name"] == name && c["restartPolicy"] == "Always")
}

fn running(pod: &Value, phase: String) -> String {
    let mut reason = phase;
    let mut any_running = false;
    let statuses: Vec<&Value> = items(&pod["status"]["containerStatuses"]).collect();
    for container in statuses.iter().rev() {
        let state = &container["state"];
        match text(state, &["waiting", "reason"]) {
            "" if state["terminated"].is_object() => reason = ended(&state["terminated"]),
            "" => any_running |= container["ready"] == true && state["running"].is_object(),
            waiting => reason = waiting.to_owned(),
        }
    }
    if reason == "Completed" && any_running {
        let ready = items(&pod["status"]["conditions"])
            .any(|c| c["type"] == "Ready" && c["status"] == "True");
        reason = if ready { "Running" } else { "NotReady" }.to_owned();
    }
    reason
}

fn ended(terminated: &Value) -> String {
    match (
        text(terminated, &["reason"]),
        number(terminated, &["signal"]),
    ) {
        ("", 0) => format!("ExitCode:{}", number(terminated, &["exitCode"])),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}
