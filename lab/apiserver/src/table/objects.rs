//! The rows of Nodes, Namespaces, Events and the small kinds.

use serde_json::{Value, json};

use super::{
    Columns, age, age_of, column, containers, items, labels, name, number, or_none, text, wide,
};

/// Any kind without columns of its own.
pub const DEFAULT: Columns = Columns {
    columns: &[column("Name"), column("Age")],
    cells: |object, now| vec![name(object), age_of(object, now)],
};

/// Kinds that show when they were made.
pub const CREATED_AT: Columns = Columns {
    columns: &[column("Name"), column("Created At")],
    cells: |object, _| {
        vec![
            name(object),
            object["metadata"]["creationTimestamp"].clone(),
        ]
    },
};

/// Node.
pub const NODES: Columns = Columns {
    columns: &[
        column("Name"),
        column("Status"),
        column("Roles"),
        column("Age"),
        column("Version"),
        wide("Internal-IP"),
        wide("External-IP"),
        wide("OS-Image"),
        wide("Kernel-Version"),
        wide("Container-Runtime"),
    ],
    cells: |object, now| {
        let info = |field: &str| text(object, &["status", "nodeInfo", field]).to_owned();
        let unknown = |text: String| {
            json!(if text.is_empty() {
                "<unknown>".to_owned()
            } else {
                text
            })
        };
        let address = |kind: &str| {
            let found = items(&object["status"]["addresses"]).find(|a| a["type"] == kind);
            or_none(found.map_or("", |a| text(a, &["address"])))
        };
        vec![
            name(object),
            json!(node_status(object)),
            or_none(&roles(object)),
            age_of(object, now),
            json!(info("kubeletVersion")),
            address("InternalIP"),
            address("ExternalIP"),
            unknown(info("osImage")),
            unknown(info("kernelVersion")),
            unknown(info("containerRuntimeVersion")),
        ]
    },
};

fn node_status(node: &Value) -> String {
    let ready = items(&node["status"]["conditions"]).find(|c| c["type"] == "Ready");
    let mut status = match ready.map(|c| text(c, &["status"])) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if node["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    status
}

fn roles(node: &Value) -> String {
    let labels = node["metadata"]["labels"].as_object();
    let mut roles: Vec<&str> = labels
        .into_iter()
        .flatten()
        .filter_map(
            |(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
                Some(role) => Some(role),
                None if key == "kubernetes.io/role" => value.as_str(),
                None => None,
            },
        )
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    roles.join(",")
}

/// Namespace.
pub const NAMESPACES: Columns = Columns {
    columns: &[column("Name"), column("Status"), column("Age")],
    cells: |object, now| {
        vec![
            name(object),
            object["status"]["phase"].clone(),
            age_of(object, now),
        ]
    },
};

/// ConfigMap.
pub const CONFIGMAPS: Columns = Columns {
    columns: &[column("Name"), column("Data"), column("Age")],
    cells: |object, now| {
        let count = |field: &str| object[field].as_object().map_or(0, |m| m.len());
        vec![
            name(object),
            json!(count("data") + count("binaryData")),
            age_of(object, now),
        ]
    },
};

/// Secret.
pub const SECRETS: Columns = Columns {
    columns: &[
        column("Name"),
        column("Type"),
        column("Data"),
        column("Age"),
    ],
    cells: |object, now| {
        let count = object["data"].as_object().map_or(0, |m| m.len());
        vec![
            name(object),
            object["type"].clone(),
            json!(count),
            age_of(object, now),
        ]
    },
};

/// ServiceAccount.
pub const SERVICEACCOUNTS: Columns = Columns {
    columns: &[column("Name"), column("Secrets"), column("Age")],
    cells: |object, now| {
        vec![
            name(object),
            json!(items(&object["secrets"]).count()),
            age_of(object, now),
        ]
    },
};

/// Event.
pub const EVENTS: Columns = Columns {
    columns: &[
        column("Last Seen"),
        column("Type"),
        column("Reason"),
        column("Object"),
        wide("Subobject"),
        wide("Source"),
        column("Message"),
        wide("First Seen"),
        wide("Count"),
        wide("Name"),
    ],
    cells: |object, now| {
        let since = |texts: &[&str]| {
            texts
                .iter()
                .find(|t| !t.is_empty())
                .map_or("<unknown>".to_owned(), |t| age::since(t, now))
        };
        let event_time = text(object, &["eventTime"]);
        let (first, last) = (
            text(object, &["firstTimestamp"]),
            text(object, &["lastTimestamp"]),
        );
        let series = text(object, &["series", "lastObservedTime"]);
        let count = match (
            number(object, &["series", "count"]),
            number(object, &["count"]),
        ) {
            (0, 0) => 1,
            (0, count) => count,
            (series, _) => series,
        };
        let about = &object["involvedObject"];
        let source = match (
            text(object, &["source", "component"]),
            text(object, &["source", "host"]),
        ) {
            ("", _) => text(object, &["reportingComponent"]).to_owned(),
            (component, "") => component.to_owned(),
            (component, host) => format!("{component}, {host}"),
        };
        let kind = text(about, &["kind"]).to_lowercase();
        let target = match text(about, &["name"]) {
            "" => kind,
            name => format!("{kind}/{name}"),
        };
        vec![
            json!(since(&[series, last, event_time])),
            json!(text(object, &["type"])),
            json!(text(object, &["reason"])),
            json!(target),
            json!(text(about, &["fieldPath"])),
            json!(source),
            json!(text(object, &["message"]).trim()),
            json!(since(&[first, event_time])),
            json!(count),
            name(object),
        ]
    },
};

/// Lease.
pub const LEASES: Columns = Columns {
    columns: &[column("Name"), column("Holder"), column("Age")],
    cells: |object, now| {
        vec![
            name(object),
            json!(text(object, &["spec", "holderIdentity"])),
            age_of(object, now),
        ]
    },
};

/// ControllerRevision.
pub const CONTROLLERREVISIONS: Columns = Columns {
    columns: &[
        column("Name"),
        column("Controller"),
        column("Revision"),
        column("Age"),
    ],
    cells: |object, now| {
        let owner = items(&object["metadata"]["ownerReferences"]).find(|o| o["controller"] == true);
        let owner = owner.map_or("<none>".to_owned(), |o| {
            let group = text(o, &["apiVersion"])
                .split_once('/')
                .map_or("", |(group, _)| group);
            let kind = text(o, &["kind"]).to_lowercase();
            let kind = if group.is_empty() {
                kind
            } else {
                format!("{kind}.{group}")
            };
            format!("{kind}/{}", text(o, &["name"]))
        });
        vec![
            name(object),
            json!(owner),
            json!(number(object, &["revision"])),
            age_of(object, now),
        ]
    },
};

/// RoleBinding and ClusterRoleBinding.
pub const ROLEBINDINGS: Columns = Columns {
    columns: &[
        column("Name"),
        column("Role"),
        column("Age"),
        wide("Users"),
        wide("Groups"),
        wide("ServiceAccounts"),
    ],
    cells: |object, now| {
        let role = format!(
            "{}/{}",
            text(object, &["roleRef", "kind"]),
            text(object, &["roleRef", "name"])
        );
        let subjects = |kind: &str| {
            let names: Vec<String> = items(&object["subjects"])
                .filter(|s| s["kind"] == kind)
                .map(|s| match text(s, &["namespace"]) {
                    "" => text(s, &["name"]).to_owned(),
                    namespace => format!("{namespace}/{}", text(s, &["name"])),
                })
                .collect();
            json!(names.join(", "))
        };
        vec![
            name(object),
            json!(role),
            age_of(object, now),
            subjects("User"),
            subjects("Group"),
            subjects("ServiceAccount"),
        ]
    },
};

/// PodTemplate.
pub const PODTEMPLATES: Columns = Columns {
    columns: &[
        column("Name"),
        column("Containers"),
        column("Images"),
        column("Pod Labels"),
    ],
    cells: |object, _| {
        let [names, images] = containers(&object["template"]["spec"]);
        vec![
            name(object),
            names,
            images,
            labels(&object["template"]["metadata"]["labels"]),
        ]
    },
};

/// PersistentVolumeClaim.
pub const PERSISTENTVOLUMECLAIMS: Columns = Columns {
    columns: &[
        column("Name"),
        column("Status"),
        column("Volume"),
        column("Capacity"),
        column("Access Modes"),
        column("StorageClass"),
        column("VolumeAttributesClass"),
        column("Age"),
        wide("VolumeMode"),
    ],
    cells: |object, now| {
        let phase = match object["metadata"]["deletionTimestamp"].is_string() {
            true => "Terminating",
            false => text(object, &["status", "phase"]),
        };
        vec![
            name(object),
            json!(phase),
            json!(text(object, &["spec", "volumeName"])),
            json!(text(object, &["status", "capacity", "storage"])),
            json!(access_modes(&object["status"]["accessModes"])),
            json!(text(object, &["spec", "storageClassName"])),
            json!(unset(text(object, &["spec", "volumeAttributesClassName"]))),
            age_of(object, now),
            json!(unset(text(object, &["spec", "volumeMode"]))),
        ]
    },
};

/// PersistentVolume.
pub const PERSISTENTVOLUMES: Columns = Columns {
    columns: &[
        column("Name"),
        column("Capacity"),
        column("Access Modes"),
        column("Reclaim Policy"),
        column("Status"),
        column("Claim"),
        column("StorageClass"),
        column("VolumeAttributesClass"),
        column("Reason"),
        column("Age"),
        wide("VolumeMode"),
    ],
    cells: |object, now| {
        let claim = &object["spec"]["claimRef"];
        let claim = match text(claim, &["name"]) {
            "" => String::new(),
            name => format!("{}/{name}", text(claim, &["namespace"])),
        };
        vec![
            name(object),
            json!(text(object, &["spec", "capacity", "storage"])),
            json!(access_modes(&object["spec"]["accessModes"])),
            json!(text(object, &["spec", "persistentVolumeReclaimPolicy"])),
            json!(text(object, &["status", "phase"])),
            json!(claim),
            json!(text(object, &["spec", "storageClassName"])),
            json!(unset(text(object, &["spec", "volumeAttributesClassName"]))),
            json!(text(object, &["status", "reason"])),
            age_of(object, now),
            json!(unset(text(object, &["spec", "volumeMode"]))),
        ]
    },
};

fn unset(text: &str) -> &str {
    if text.is_empty() { "<unset>" } else { text }
}

fn access_modes(modes: &Value) -> String {
    let short = items(modes)
        .filter_map(Value::as_str)
        .map(|mode| match mode {
            "ReadWriteOnce" => "RWO",
            "ReadOnlyMany" => "ROX",
            "ReadWriteMany" => "RWX",
            "ReadWriteOncePod" => "RWOP",
            other => other,
        });
    short.collect::<Vec<_>>().join(",")
}

/// StorageClass.
pub const STORAGECLASSES: Columns = Columns {
    columns: &[
        column("Name"),
        column("Provisioner"),
        column("ReclaimPolicy"),
        column("VolumeBindingMode"),
        column("AllowVolumeExpansion"),
        column("Age"),
    ],
    cells: |object, now| {
        let or = |field: &str, default: &str| match text(object, &[field]) {
            "" => json!(default),
            text => json!(text),
        };
        vec![
            name(object),
            json!(text(object, &["provisioner"])),
            or("reclaimPolicy", "Delete"),
            or("volumeBindingMode", "Immediate"),
            json!(object["allowVolumeExpansion"] == true),
            age_of(object, now),
        ]
    },
};

/// PriorityClass.
pub const PRIORITYCLASSES: Columns = Columns {
    columns: &[
        column("Name"),
        column("Value"),
        column("Global-Default"),
        column("Age"),
        column("PreemptionPolicy"),
    ],
    cells: |object, now| {
        let policy = match text(object, &["preemptionPolicy"]) {
            "" => "PreemptLowerPriority",
            policy => policy,
        };
        vec![
            name(object),
            json!(number(object, &["value"])),
            json!(object["globalDefault"] == true),
            age_of(object, now),
            json!(policy),
        ]
    },
};

/// PodDisruptionBudget.
pub const PODDISRUPTIONBUDGETS: Columns = Columns {
    columns: &[
        column("Name"),
        column("Min Available"),
        column("Max Unavailable"),
        column("Allowed Disruptions"),
        column("Age"),
    ],
    cells: |object, now| {
        let bound = |field: &str| match &object["spec"][field] {
            Value::Null => json!("N/A"),
            Value::Number(number) => json!(number.to_string()),
            other => other.clone(),
        };
        vec![
            name(object),
            bound("minAvailable"),
            bound("maxUnavailable"),
            json!(number(object, &["status", "disruptionsAllowed"])),
            age_of(object, now),
        ]
    },
};
