//! Rows of typical objects, as `kubectl get -o wide` shows them.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::Columns;
use crate::registry::{self, core};

fn row(columns: &Columns, object: &Value) -> String {
    let now: Timestamp = "2026-01-01T00:10:00Z".parse().expect("a time");
    let cells = (columns.cells)(object, now);
    assert_eq!(cells.len(), columns.columns.len(), "{object}");
    let shown = cells
        .iter()
        .map(|c| c.as_str().map_or_else(|| c.to_string(), str::to_owned));
    shown.collect::<Vec<_>>().join(" | ")
}

fn meta(name: &str) -> Value {
    json!({ "name": name, "creationTimestamp": "2026-01-01T00:05:00Z" })
}

#[test]
fn every_kind_has_a_cell_for_every_column() {
    for resource in registry::all() {
        row(&resource.columns, &json!({ "metadata": meta("x") }));
    }
}

#[test]
fn pods() {
    let columns = &core("pods").columns;
    let running = json!({
        "metadata": meta("p"), "spec": { "nodeName": "node-1", "containers": [{ "name": "a" }, { "name": "b" }] },
        "status": {
            "phase": "Running", "podIP": "10.244.1.2", "podIPs": [{ "ip": "10.244.1.2" }, { "ip": "fd00::2" }],
            "containerStatuses": [
                { "name": "a", "ready": true, "restartCount": 2, "state": { "running": {} },
                  "lastState": { "terminated": { "finishedAt": "2026-01-01T00:09:00Z" } } },
                { "name": "b", "ready": false, "restartCount": 0, "state": { "waiting": { "reason": "CrashLoopBackOff" } } },
            ],
        },
    });
    assert_eq!(
        row(columns, &running),
        "p | 1/2 | CrashLoopBackOff | 2 (60s ago) | 5m | 10.244.1.2 | node-1 | <none> | <none>"
    );
    let status = |pod: Value| {
        row(columns, &pod)
            .split(" | ")
            .nth(2)
            .unwrap_or_default()
            .to_owned()
    };
    let init = json!([{ "name": "i", "state": { "running": {} } }]);
    assert_eq!(
        status(
            json!({ "metadata": meta("p"), "spec": { "initContainers": [{ "name": "i" }] },
                       "status": { "phase": "Pending", "initContainerStatuses": init } })
        ),
        "Init:0/1"
    );
    let done = json!([{ "name": "a", "state": { "terminated": { "exitCode": 3 } } }]);
    assert_eq!(
        status(
            json!({ "metadata": meta("p"), "status": { "phase": "Failed", "containerStatuses": done } })
        ),
        "ExitCode:3"
    );
    let mut going = meta("p");
    going["deletionTimestamp"] = json!("2026-01-01T00:09:00Z");
    assert_eq!(
        status(json!({ "metadata": going, "status": { "phase": "Running" } })),
        "Terminating"
    );
}

#[test]
fn services_and_their_endpoints() {
    let ports = json!([{ "port": 80, "protocol": "TCP", "nodePort": 30080 }, { "port": 53, "protocol": "UDP" }]);
    let service = json!({ "metadata": meta("s"), "spec": {
        "type": "LoadBalancer", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "ports": ports, "selector": { "a": "b" } } });
    assert_eq!(
        row(&core("services").columns, &service),
        "s | LoadBalancer | 10.96.0.1 | <pending> | 80:30080/TCP,53/UDP | 5m | a=b"
    );
    let slices = registry::find("discovery.k8s.io", "v1", "endpointslices").expect("served");
    let slice = json!({ "metadata": meta("e"), "addressType": "IPv4", "ports": [{ "port": 80 }],
        "endpoints": [{ "addresses": ["1"] }, { "addresses": ["2"] }, { "addresses": ["3"] }, { "addresses": ["4"] }] });
    assert_eq!(
        row(&slices.columns, &slice),
        "e | IPv4 | 80 | 1,2,3 + 1 more... | 5m"
    );
}

#[test]
fn nodes_and_workloads() {
    let node = json!({
        "metadata": { "name": "node-1", "creationTimestamp": "2026-01-01T00:05:00Z", "labels": { "node-role.kubernetes.io/worker": "" } },
        "spec": { "unschedulable": true },
        "status": { "conditions": [{ "type": "Ready", "status": "True" }], "addresses": [{ "type": "InternalIP", "address": "192.168.77.11" }],
                    "nodeInfo": { "kubeletVersion": "v1" } },
    });
    assert_eq!(
        row(&core("nodes").columns, &node),
        "node-1 | Ready,SchedulingDisabled | worker | 5m | v1 | 192.168.77.11 | <none> | <unknown> | <unknown> | <unknown>"
    );
    let deployments = registry::find("apps", "v1", "deployments").expect("served");
    let deployment = json!({ "metadata": meta("d"), "status": { "readyReplicas": 1, "updatedReplicas": 2 },
        "spec": { "replicas": 3, "selector": { "matchExpressions": [{ "key": "a", "operator": "In", "values": ["x", "y"] }] },
                  "template": { "spec": { "containers": [{ "name": "a", "image": "i:1" }] } } } });
    assert_eq!(
        row(&deployments.columns, &deployment),
        "d | 1/3 | 2 | 0 | 5m | a | i:1 | a in (x,y)"
    );
}
