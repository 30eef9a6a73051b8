//! The rows of workloads.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Column, Columns, age, age_of, column, containers, items, labels, name, number, or_none,
    selector, text, wide,
};

/// Deployment.
pub const DEPLOYMENTS: Columns = Columns {
    columns: &[
        column("Name"),
        column("Ready"),
        column("Up-to-date"),
        column("Available"),
        column("Age"),
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    cells: |object, now| {
        let mut cells = vec![
            name(object),
            ready_of(object),
            json!(number(object, &["status", "updatedReplicas"])),
            json!(number(object, &["status", "availableReplicas"])),
            age_of(object, now),
        ];
        cells.extend(containers(&object["spec"]["template"]["spec"]));
        cells.push(selector(&object["spec"]["selector"]));
        cells
    },
};

const REPLICA_COLUMNS: &[Column] = &[
    column("Name"),
    column("Desired"),
    column("Current"),
    column("Ready"),
    column("Age"),
    wide("Containers"),
    wide("Images"),
    wide("Selector"),
];

fn replica_cells(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut cells = vec![
        name(object),
        json!(number(object, &["spec", "replicas"])),
        json!(number(object, &["status", "replicas"])),
        json!(number(object, &["status", "readyReplicas"])),
        age_of(object, now),
    ];
    cells.extend(containers(&object["spec"]["template"]["spec"]));
    cells
}

/// ReplicaSet.
pub const REPLICASETS: Columns = Columns {
    columns: REPLICA_COLUMNS,
    cells: |object, now| {
        let mut cells = replica_cells(object, now);
        cells.push(selector(&object["spec"]["selector"]));
        cells
    },
};

/// ReplicationController, whose selector is a plain map.
pub const REPLICATIONCONTROLLERS: Columns = Columns {
    columns: REPLICA_COLUMNS,
    cells: |object, now| {
        let mut cells = replica_cells(object, now);
        cells.push(labels(&object["spec"]["selector"]));
        cells
    },
};

/// StatefulSet.
pub const STATEFULSETS: Columns = Columns {
    columns: &[
        column("Name"),
        column("Ready"),
        column("Age"),
        wide("Containers"),
        wide("Images"),
    ],
    cells: |object, now| {
        let mut cells = vec![name(object), ready_of(object), age_of(object, now)];
        cells.extend(containers(&object["spec"]["template"]["spec"]));
        cells
    },
};

/// DaemonSet.
pub const DAEMONSETS: Columns = Columns {
    columns: &[
        column("Name"),
        column("Desired"),
        column("Current"),
        column("Ready"),
        column("Up-to-date"),
        column("Available"),
        column("Node Selector"),
        column("Age"),
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    cells: |object, now| {
        let status = |field: &str| json!(number(object, &["status", field]));
        let mut cells = vec![
            name(object),
            status("desiredNumberScheduled"),
            status("currentNumberScheduled"),
            status("numberReady"),
            status("updatedNumberScheduled"),
            status("numberAvailable"),
            labels(&object["spec"]["template"]["spec"]["nodeSelector"]),
            age_of(object, now),
        ];
        cells.extend(containers(&object["spec"]["template"]["spec"]));
        cells.push(selector(&object["spec"]["selector"]));
        cells
    },
};

/// Job.
pub const JOBS: Columns = Columns {
    columns: &[
        column("Name"),
        column("Status"),
        column("Completions"),
        column("Duration"),
        column("Age"),
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    cells: |object, now| {
        let is = |kind: &str| {
            items(&object["status"]["conditions"])
                .any(|c| c["type"] == kind && c["status"] == "True")
        };
        let status = ["Complete", "Failed", "Suspended"]
            .into_iter()
            .find(|k| is(k))
            .unwrap_or("Running");
        let wanted = object["spec"]["completions"]
            .as_i64()
            .map_or("1".to_owned(), |n| n.to_string());
        let seconds = |field: &str| {
            text(object, &["status", field])
                .parse::<Timestamp>()
                .ok()
                .map(|t| t.as_second())
        };
        let duration = match (seconds("startTime"), seconds("completionTime")) {
            (None, _) => String::new(),
            (Some(start), end) => age::human(end.unwrap_or(now.as_second()) - start),
        };
        let mut cells = vec![
            name(object),
            json!(status),
            json!(format!(
                "{}/{wanted}",
                number(object, &["status", "succeeded"])
            )),
            json!(duration),
            age_of(object, now),
        ];
        cells.extend(containers(&object["spec"]["template"]["spec"]));
        cells.push(selector(&object["spec"]["selector"]));
        cells
    },
};

/// CronJob.
pub const CRONJOBS: Columns = Columns {
    columns: &[
        column("Name"),
        column("Schedule"),
        column("Timezone"),
        column("Suspend"),
        column("Active"),
        column("Last Schedule"),
        column("Age"),
        wide("Containers"),
        wide("Images"),
        wide("Selector"),
    ],
    cells: |object, now| {
        let last = match text(object, &["status", "lastScheduleTime"]) {
            "" => "<none>".to_owned(),
            time => age::since(time, now),
        };
        let job = &object["spec"]["jobTemplate"]["spec"];
        let suspended = if object["spec"]["suspend"] == true {
            "True"
        } else {
            "False"
        };
        let mut cells = vec![
            name(object),
            json!(text(object, &["spec", "schedule"])),
            or_none(text(object, &["spec", "timeZone"])),
            json!(suspended),
            json!(items(&object["status"]["active"]).count()),
            json!(last),
            age_of(object, now),
        ];
        cells.extend(containers(&job["template"]["spec"]));
        cells.push(selector(&job["selector"]));
        cells
    },
};

fn ready_of(object: &Value) -> Value {
    json!(format!(
        "{}/{}",
        number(object, &["status", "readyReplicas"]),
        number(object, &["spec", "replicas"])
    ))
}
