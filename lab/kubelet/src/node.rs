//! The node as the API shows it: registered, described, Ready or not, and alive.
//!
//! Ready means that pods can have a network: a CNI configuration is there, and its plugins say so. The condition is re-examined several times a
//! second, since it is the last thing a lab waits for; what is there already costs one directory listing. The lease in
//! `kube-node-lease` is renewed every ten seconds, as by every kubelet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{
    Node as ApiNode, NodeAddress, NodeCondition, NodeStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::time::Instant;

use crate::cni;
use crate::kubelet::Kubelet;
use crate::status::time;

const LOOK: Duration = Duration::from_millis(100);
const HEARTBEAT: Duration = Duration::from_secs(10);
const LEASE_SECONDS: i32 = 40;

/// Registers the node and keeps its status and lease, for ever.
pub async fn keep(kubelet: Arc<Kubelet>) {
    let api: Api<ApiNode> = Api::all(kubelet.client.clone());
    register(&kubelet, &api).await;
    let mut next_beat = Instant::now();
    let mut readiness = cni::Readiness::default();
    let mut shown: Option<Result<(), String>> = None;
    let mut since = Timestamp::now();
    loop {
        let options = &kubelet.options;
        let network = readiness
            .look(&options.cni_conf_dir, &options.cni_bin_dir)
            .await;
        let changed = shown.as_ref() != Some(&network);
        if changed || Instant::now() >= next_beat {
            if shown.as_ref().map(Result::is_ok) != Some(network.is_ok()) {
                since = Timestamp::now();
            }
            kubelet.network_ready.send_replace(network.is_ok());
            let mut status = json!({"status": status(&kubelet, &network, since)});
            // Addresses are keyed by type, and a dual-stack node has two of one type: a merge would
            // make them one. The real kubelet replaces the list as well.
            if let Some(addresses) = status["status"]["addresses"].as_array_mut() {
                addresses.push(json!({"$patch": "replace"}));
            }
            let params = PatchParams::default();
            let name = &kubelet.options.node_name;
            match api
                .patch_status(name, &params, &Patch::Strategic(&status))
                .await
            {
                Ok(_) => {
                    shown = Some(network);
                    next_beat = Instant::now() + HEARTBEAT;
                }
                Err(kube::Error::Api(e)) if e.code == 404 => register(&kubelet, &api).await,
                Err(error) => {
                    tracing::warn!(%error, node = %name, "node status not taken");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
            if changed || shown.is_some() {
                renew_lease(&kubelet).await;
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn register(kubelet: &Kubelet, api: &Api<ApiNode>) {
    let node = ApiNode {
        metadata: ObjectMeta {
            name: Some(kubelet.options.node_name.clone()),
            labels: Some(labels(kubelet)),
            ..ObjectMeta::default()
        },
        ..ApiNode::default()
    };
    loop {
        match api.create(&PostParams::default(), &node).await {
            Ok(_) => return,
            Err(kube::Error::Api(e)) if e.code == 409 => {
                let patch = json!({"metadata": {"labels": node.metadata.labels}});
                let name = &kubelet.options.node_name;
                let params = PatchParams::default();
                if api
                    .patch(name, &params, &Patch::Merge(&patch))
                    .await
                    .is_ok()
                {
                    return;
                }
            }
            Err(error) => tracing::warn!(%error, "node not registered, trying again"),
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

fn labels(kubelet: &Kubelet) -> BTreeMap<String, String> {
    let options = &kubelet.options;
    let mut labels = options.labels.clone();
    let mut set = |key: &str, value: &str| labels.insert(key.to_owned(), value.to_owned());
    set("kubernetes.io/hostname", &options.node_name);
    for prefix in ["kubernetes.io", "beta.kubernetes.io"] {
        set(&format!("{prefix}/os"), "linux");
        set(&format!("{prefix}/arch"), architecture());
    }
    if let Some(zone) = &options.zone {
        set("topology.kubernetes.io/zone", zone);
    }
    labels
}

/// As Go names it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn status(kubelet: &Kubelet, network: &Result<(), String>, since: Timestamp) -> NodeStatus {
    let options = &kubelet.options;
    let address = |type_: &str, address: String| NodeAddress {
        type_: type_.to_owned(),
        address,
    };
    let mut addresses: Vec<NodeAddress> = options
        .node_ips
        .iter()
        .map(|ip| address("InternalIP", ip.to_string()))
        .collect();
    addresses.push(address("Hostname", options.node_name.clone()));
    let capacity: BTreeMap<String, Quantity> = [
        ("cpu", kubelet.machine.cpus.to_string()),
        ("memory", format!("{}Ki", kubelet.machine.memory / 1024)),
        ("pods", options.max_pods.to_string()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), Quantity(value)))
    .collect();
    NodeStatus {
        addresses: Some(addresses),
        allocatable: Some(capacity.clone()),
        capacity: Some(capacity),
        conditions: Some(conditions(network, since)),
        node_info: Some(system_info()),
        ..NodeStatus::default()
    }
}

fn conditions(network: &Result<(), String>, since: Timestamp) -> Vec<NodeCondition> {
    let now = Timestamp::now();
    let condition = |type_: &str, status: &str, reason: &str, message: String| NodeCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_heartbeat_time: Some(time(now)),
        last_transition_time: Some(time(since)),
    };
    let ready = match network {
        Ok(()) => condition(
            "Ready",
            "True",
            "KubeletReady",
            "kubelet is posting ready status".to_owned(),
        ),
        Err(error) => condition(
            "Ready",
            "False",
            "KubeletNotReady",
            format!(
                "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:{error}"
            ),
        ),
    };
    let fine = [
        (
            "MemoryPressure",
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available",
        ),
        (
            "DiskPressure",
            "KubeletHasNoDiskPressure",
            "kubelet has no disk pressure",
        ),
        (
            "PIDPressure",
            "KubeletHasSufficientPID",
            "kubelet has sufficient PID available",
        ),
    ];
    fine.iter()
        .map(|(type_, reason, message)| condition(type_, "False", reason, (*message).to_owned()))
        .chain([ready])
        .collect()
}

fn system_info() -> NodeSystemInfo {
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let os = read("/etc/os-release");
    let pretty = os.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    NodeSystemInfo {
        architecture: architecture().to_owned(),
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        container_runtime_version: format!("parfait://{}", env!("CARGO_PKG_VERSION")),
        kernel_version: read("/proc/sys/kernel/osrelease"),
        kubelet_version: "v1.36.0".to_owned(),
        operating_system: "linux".to_owned(),
        os_image: pretty.unwrap_or("Linux").trim_matches('"').to_owned(),
        ..NodeSystemInfo::default()
    }
}

async fn renew_lease(kubelet: &Kubelet) {
    let api: Api<Lease> = Api::namespaced(kubelet.client.clone(), "kube-node-lease");
    let name = &kubelet.options.node_name;
    let now = MicroTime(Timestamp::now());
    let patch = json!({"spec": {"renewTime": now}});
    match api
        .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
    {
        Ok(_) => {}
        Err(kube::Error::Api(e)) if e.code == 404 => {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(name.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(LeaseSpec {
                    holder_identity: Some(name.clone()),
                    lease_duration_seconds: Some(LEASE_SECONDS),
                    renew_time: Some(now),
                    ..LeaseSpec::default()
                }),
            };
            if let Err(error) = api.create(&PostParams::default(), &lease).await {
                tracing::debug!(%error, "lease not created");
            }
        }
        Err(error) => tracing::debug!(%error, "lease not renewed"),
    }
}
