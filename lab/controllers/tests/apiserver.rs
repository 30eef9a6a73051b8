//! The driver against the lab's API server, with kubelets that only say that pods run.
//!
//! What the tests in `pure` cannot show: that watches become a World, that writes arrive, that the two agree on
//! conflicts and finalizers, that it is quick, and that an unmodified kubectl is content.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Event, Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use parfait_lab_apiserver as apiserver;
use parfait_lab_controllers as controllers;
use serde_json::json;

/// A cluster of three nodes. Everything in it ends with the test's runtime.
struct Cluster {
    client: Client,
    server: apiserver::Server,
}

async fn cluster() -> Cluster {
    troubled_cluster(Trouble::default()).await
}

/// What is wrong with the API server.
#[derive(Clone, Copy, Default)]
struct Trouble {
    /// Lists and writes are answered at once, but every event of a watch comes that much later, as on a busy machine.
    late_watches: Duration,
    /// Nobody may create pods.
    no_pods: bool,
}

async fn troubled_cluster(trouble: Trouble) -> Cluster {
    let server = apiserver::Server::new(apiserver::Config {
        families: vec![apiserver::Family::Ipv4, apiserver::Family::Ipv6],
        service_cidr_v4: Some("10.96.0.0/16".parse().unwrap()),
        service_cidr_v6: Some("fd00:10:96::/112".parse().unwrap()),
        ..apiserver::Config::default()
    })
    .unwrap();
    let between = axum::middleware::from_fn(move |request, next| trouble.meet(request, next));
    let client = Client::new(server.in_process().layer(between), "default");
    for number in 1..=3 {
        let name = format!("node-{number}");
        let node: Node = serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } }
        }))
        .unwrap();
        let nodes: Api<Node> = Api::all(client.clone());
        nodes.create(&PostParams::default(), &node).await.unwrap();
        let ready = json!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }] } });
        nodes
            .patch_status(&name, &PatchParams::default(), &Patch::Merge(&ready))
            .await
            .unwrap();
    }
    let config = controllers::Config::default();
    tokio::spawn(controllers::run(
        client.clone(),
        config,
        std::future::pending(),
    ));
    tokio::spawn(kubelets(client.clone()));
    Cluster { client, server }
}

impl Trouble {
    async fn meet(self, request: Request, next: Next) -> Response {
        let query = request.uri().query().unwrap_or_default();
        let watching = query.contains("watch=true");
        let creating = request.method() == "POST" && request.uri().path().ends_with("/pods");
        if self.no_pods && creating {
            return (StatusCode::FORBIDDEN, "no pods today").into_response();
        }
        let response = next.run(request).await;
        if !watching || self.late_watches.is_zero() {
            return response;
        }
        response.map(|body| {
            let late = body.into_data_stream().map(move |chunk| async move {
                tokio::time::sleep(self.late_watches).await;
                chunk
            });
            Body::from_stream(late.buffered(1_000))
        })
    }
}

/// Starts every placed pod and ends every deleted one.
async fn kubelets(client: Client) {
    let pods: Api<Pod> = Api::all(client.clone());
    let mut events = watcher(pods, watcher::Config::default())
        .default_backoff()
        .applied_objects()
        .boxed();
    let mut number = 1;
    while let Some(pod) = events.next().await {
        let Ok(pod) = pod else { continue };
        let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap());
        let name = pod.name_any();
        if pod.metadata.deletion_timestamp.is_some() {
            let now = DeleteParams {
                grace_period_seconds: Some(0),
                ..DeleteParams::default()
            };
            let _ = api.delete(&name, &now).await;
            continue;
        }
        let phase = pod
            .status
            .as_ref()
            .and_then(|s| s.phase.as_deref())
            .unwrap_or("Pending");
        if controllers::pods::node_name(&pod).is_none() || phase != "Pending" {
            continue;
        }
        number += 1;
        let (v4, v6) = (
            format!("10.244.1.{number}"),
            format!("fd00:10:244:1::{number:x}"),
        );
        let status = json!({ "status": {
            "phase": "Running",
            "podIP": v4,
            "podIPs": [{ "ip": v4 }, { "ip": v6 }],
            "conditions": [{ "type": "Ready", "status": "True" }],
        }});
        let _ = api
            .patch_status(&name, &PatchParams::default(), &Patch::Merge(&status))
            .await;
    }
}

impl Cluster {
    async fn create(&self, value: serde_json::Value) {
        let kind = value["kind"].as_str().unwrap().to_owned();
        let client = self.client.clone();
        let one = PostParams::default();
        match kind.as_str() {
            "Deployment" => drop(
                Api::<Deployment>::default_namespaced(client)
                    .create(&one, &parse(value))
                    .await
                    .unwrap(),
            ),
            "StatefulSet" => drop(
                Api::<StatefulSet>::default_namespaced(client)
                    .create(&one, &parse(value))
                    .await
                    .unwrap(),
            ),
            "DaemonSet" => drop(
                Api::<DaemonSet>::default_namespaced(client)
                    .create(&one, &parse(value))
                    .await
                    .unwrap(),
            ),
            "Service" => drop(
                Api::<Service>::default_namespaced(client)
                    .create(&one, &parse(value))
                    .await
                    .unwrap(),
            ),
            other => panic!("no test creates a {other}"),
        }
    }

    async fn pods(&self) -> Vec<Pod> {
        Api::<Pod>::all(self.client.clone())
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
    }
}

fn parse<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).unwrap()
}

/// Waits until `check` says so.
async fn until<F: Future<Output = bool>>(what: &str, mut check: impl FnMut() -> F) {
    let start = Instant::now();
    while !check().await {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "after a minute still not: {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How long this thread has been computing (proc_pid_schedstat).
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

fn workload(kind: &str, name: &str, replicas: i32) -> serde_json::Value {
    let mut value = json!({
        "apiVersion": "apps/v1", "kind": kind, "metadata": { "name": name },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": name } },
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": { "containers": [{ "name": "c", "image": "go-web:v1", "ports": [{ "containerPort": 8080 }] }] },
            },
        },
    });
    match kind {
        "StatefulSet" => value["spec"]["serviceName"] = json!(name),
        "DaemonSet" => drop(value["spec"].as_object_mut().unwrap().remove("replicas")),
        _ => {}
    }
    value
}

// Everything is on this one thread, whose processor time is measured: the clock also runs for others.
#[tokio::test(flavor = "current_thread")]
async fn twelve_pods_are_placed_quickly_and_behind_their_service() {
    let cluster = cluster().await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    until("nodes have their CIDRs", async || {
        let all = nodes.list(&ListParams::default()).await.unwrap().items;
        all.iter().all(|node| {
            node.spec
                .as_ref()
                .is_some_and(|spec| spec.pod_cidrs.is_some())
        })
    })
    .await;
    cluster
        .create(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web" },
            "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": 8080 }] },
        }))
        .await;
    let start = processor_time();
    cluster.create(workload("Deployment", "web", 12)).await;
    until("12 pods are placed", async || {
        let pods = cluster.pods().await;
        pods.len() == 12
            && pods
                .iter()
                .all(|pod| controllers::pods::node_name(pod).is_some())
    })
    .await;
    let taken = processor_time() - start;
    eprintln!(
        "12 pods placed after {} ms of processor time",
        taken.as_millis()
    );
    assert!(taken < Duration::from_secs(2), "{taken:?}, aimed at 0.2 s");
    let slices: Api<EndpointSlice> = Api::default_namespaced(cluster.client.clone());
    until("12 endpoints are ready", async || {
        let of_web = ListParams::default().labels("kubernetes.io/service-name=web");
        let slices = slices.list(&of_web).await.unwrap().items;
        let ready = slices
            .iter()
            .flat_map(|s| s.endpoints.iter().flatten())
            .filter(|e| e.conditions.as_ref().is_some_and(|c| c.ready == Some(true)));
        ready.count() == 12
    })
    .await;
    let events: Api<Event> = Api::default_namespaced(cluster.client.clone());
    until("12 pods were told where they go", async || {
        let events = events.list(&ListParams::default()).await.unwrap().items;
        events
            .iter()
            .filter(|event| event.reason.as_deref() == Some("Scheduled"))
            .count()
            == 12
    })
    .await;
}

/// Found on a busy machine: the watch told of a pod as it had been created after the pod had been bound, so it
/// counted as waiting again, was bound again, and was told a second time where it goes, sometimes elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_is_told_its_node_once_however_late_the_watch_is() {
    let cluster = troubled_cluster(Trouble {
        late_watches: Duration::from_millis(100),
        ..Trouble::default()
    })
    .await;
    cluster.create(workload("Deployment", "web", 12)).await;
    until("12 pods are ready", async || {
        let pods = cluster.pods().await;
        pods.len() == 12 && pods.iter().all(controllers::pods::is_ready)
    })
    .await;
    let events: Api<Event> = Api::default_namespaced(cluster.client.clone());
    let told = async || {
        let events = events.list(&ListParams::default()).await.unwrap().items;
        let mut told: Vec<String> = events
            .into_iter()
            .filter(|event| event.reason.as_deref() == Some("Scheduled"))
            .map(|event| format!("{} x{}", event.message.unwrap(), event.count.unwrap()))
            .collect();
        told.sort();
        told
    };
    until("12 pods were told where they go", async || {
        told().await.len() >= 12
    })
    .await;
    let mut expected: Vec<String> = (cluster.pods().await.iter())
        .map(|pod| {
            let node = controllers::pods::node_name(pod).unwrap();
            let name = pod.name_any();
            format!("Successfully assigned default/{name} to {node} x1")
        })
        .collect();
    expected.sort();
    assert_eq!(told().await, expected);
}

/// `SuccessfulCreate` was told, again and again, of pods that the API server had refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_told_of_a_write_that_was_refused() {
    let cluster = troubled_cluster(Trouble {
        no_pods: true,
        ..Trouble::default()
    })
    .await;
    cluster.create(workload("Deployment", "web", 1)).await;
    let events: Api<Event> = Api::default_namespaced(cluster.client.clone());
    let told = async |reason: &str| {
        let events = events.list(&ListParams::default()).await.unwrap().items;
        events.iter().any(|e| e.reason.as_deref() == Some(reason))
    };
    until("the refusal is told", async || told("FailedCreate").await).await;
    assert!(told("ScalingReplicaSet").await, "that was carried out");
    assert!(!told("SuccessfulCreate").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_comes_to_rest() {
    let cluster = cluster().await;
    for (kind, name) in [
        ("Deployment", "web"),
        ("StatefulSet", "db"),
        ("DaemonSet", "agent"),
    ] {
        cluster.create(workload(kind, name, 3)).await;
    }
    until("9 pods are ready", async || {
        let pods = cluster.pods().await;
        pods.len() == 9 && pods.iter().all(controllers::pods::is_ready)
    })
    .await;
    // At rest, nothing is written any more, and the server's version stays.
    let version = async || {
        let pods: Api<Pod> = Api::all(cluster.client.clone());
        let list = pods.list(&ListParams::default()).await.unwrap();
        list.metadata.resource_version.unwrap()
    };
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let before = version().await;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(version().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_are_deleted_in_each_of_the_three_ways() {
    let cluster = cluster().await;
    let deployments: Api<Deployment> = Api::default_namespaced(cluster.client.clone());
    let ways: [(&str, DeleteParams, usize); 3] = [
        ("background", DeleteParams::background(), 0),
        ("foreground", DeleteParams::foreground(), 0),
        ("orphan", DeleteParams::orphan(), 2),
    ];
    for (name, parameters, left) in ways {
        cluster.create(workload("Deployment", name, 2)).await;
        let mine = async || {
            let pods = cluster.pods().await;
            pods.into_iter()
                .filter(|pod| pod.labels().get("app").is_some_and(|app| app == name))
                .collect::<Vec<_>>()
        };
        until("2 pods are ready", async || {
            mine()
                .await
                .iter()
                .filter(|p| controllers::pods::is_ready(p))
                .count()
                == 2
        })
        .await;
        deployments.delete(name, &parameters).await.unwrap();
        until("the Deployment is gone", async || {
            deployments.get_opt(name).await.unwrap().is_none()
        })
        .await;
        until(&format!("{left} pods are left ({name})"), async || {
            mine().await.len() == left
        })
        .await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(mine().await.len(), left, "{name}");
    }
}

/// A kubectl that knows only this cluster, and a folder with a small shop to apply.
struct Kubectl {
    folder: tempfile::TempDir,
}

impl Kubectl {
    fn new(cluster: &Cluster) -> Kubectl {
        let folder = tempfile::tempdir().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let kubeconfig = cluster.server.kubeconfig(&url, "lab");
        std::fs::write(folder.path().join("kubeconfig"), kubeconfig).unwrap();
        let server = cluster.server.clone();
        tokio::spawn(async move { server.serve(vec![listener], std::future::pending()).await });
        let mut web = workload("Deployment", "web", 4);
        web["metadata"]["namespace"] = json!("shop");
        let namespace =
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "shop" } });
        let service = json!({ "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "web", "namespace": "shop" },
            "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80 }] } });
        // JSON is YAML, but a file that begins with a brace is taken for one JSON object.
        let all = format!("# shop\n{namespace}\n---\n{web}\n---\n{service}\n");
        std::fs::write(folder.path().join("shop.yaml"), all).unwrap();
        Kubectl { folder }
    }

    async fn run(&self, arguments: &str) -> String {
        let mut command = tokio::process::Command::new("kubectl");
        command
            .args(arguments.split(' '))
            .current_dir(self.folder.path())
            .env("KUBECONFIG", "kubeconfig")
            .env("HOME", "/nonexistent");
        let output = command.output().await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "kubectl {arguments}\n{text}{errors}"
        );
        text
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_rolls_out_scales_and_deletes() {
    if Command::new("kubectl")
        .arg("version")
        .arg("--client")
        .output()
        .is_err()
    {
        writeln!(
            std::io::stderr(),
            "SKIP: kubectl_rolls_out_scales_and_deletes: there is no kubectl here"
        )
        .unwrap();
        return;
    }
    let cluster = cluster().await;
    let kubectl = Kubectl::new(&cluster);
    let kubectl = async |arguments: &str| kubectl.run(arguments).await;
    kubectl("apply -f shop.yaml").await;
    let text = kubectl("rollout status -n shop deployment/web --timeout=60s").await;
    assert!(
        text.contains("deployment \"web\" successfully rolled out"),
        "{text}"
    );
    kubectl("set image -n shop deployment/web c=go-web:v2").await;
    kubectl("rollout status -n shop deployment/web --timeout=60s").await;
    let text = kubectl("rollout history -n shop deployment/web").await;
    assert!(text.contains("1 ") && text.contains("2 "), "{text}");
    kubectl("rollout undo -n shop deployment/web").await;
    kubectl("rollout status -n shop deployment/web --timeout=60s").await;
    let text =
        kubectl("get -n shop deployment/web -o jsonpath={.spec.template.spec.containers[0].image}")
            .await;
    assert_eq!(text, "go-web:v1");
    for size in [7, 1] {
        kubectl(&format!("scale -n shop deployment/web --replicas={size}")).await;
        kubectl(&format!("wait -n shop deployment/web --for=jsonpath={{.status.availableReplicas}}={size} --timeout=60s")).await;
    }
    kubectl("rollout restart -n shop deployment/web").await;
    kubectl("rollout status -n shop deployment/web --timeout=60s").await;
    let text = kubectl("describe -n shop deployment/web").await;
    assert!(text.contains("ScalingReplicaSet"), "{text}");
    kubectl("delete namespace shop --timeout=60s").await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    assert!(namespaces.get_opt("shop").await.unwrap().is_none());
    assert_eq!(cluster.pods().await.len(), 0);
}
