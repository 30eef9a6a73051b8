//! Lives of pods on a real node.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Node, Pod};
use kube::Api;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cluster::{Cluster, PATIENCE};

type Test = for<'a> fn(&'a Cluster) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

const TESTS: &[(&str, Test)] = &[
    ("a_node_waits_for_its_network", |c| {
        Box::pin(a_node_waits_for_its_network(c))
    }),
    ("a_web_server_is_ready_and_serves", |c| {
        Box::pin(a_web_server_is_ready_and_serves(c))
    }),
    ("probes_of_every_kind", |c| {
        Box::pin(probes_of_every_kind(c))
    }),
    ("a_liveness_probe_restarts", |c| {
        Box::pin(a_liveness_probe_restarts(c))
    }),
    ("init_containers_and_volumes", |c| {
        Box::pin(init_containers_and_volumes(c))
    }),
    ("a_job_ends_and_stays", |c| {
        Box::pin(a_job_ends_and_stays(c))
    }),
    ("a_crash_is_seen_and_retried", |c| {
        Box::pin(a_crash_is_seen_and_retried(c))
    }),
    ("what_is_missing_is_awaited", |c| {
        Box::pin(what_is_missing_is_awaited(c))
    }),
    ("deletion_gives_grace", |c| {
        Box::pin(deletion_gives_grace(c))
    }),
    ("a_pod_of_the_host_network", |c| {
        Box::pin(a_pod_of_the_host_network(c))
    }),
    ("the_hosts_files_are_refused", |c| {
        Box::pin(the_hosts_files_are_refused(c))
    }),
    ("a_link_in_a_volume_leads_nowhere", |c| {
        Box::pin(a_link_in_a_volume_leads_nowhere(c))
    }),
    ("images_that_say_too_little_or_too_much", |c| {
        Box::pin(images_that_say_too_little_or_too_much(c))
    }),
    ("a_forced_deletion_makes_room", |c| {
        Box::pin(a_forced_deletion_makes_room(c))
    }),
    ("a_kubelet_that_died_is_cleaned_up_after", |c| {
        Box::pin(a_kubelet_that_died_is_cleaned_up_after(c))
    }),
    ("a_kubelet_ends_with_its_pods", |c| {
        Box::pin(a_kubelet_ends_with_its_pods(c))
    }),
    ("nothing_is_left", |c| Box::pin(nothing_is_left(c))),
];

pub async fn all(kind: &str, filter: Option<&str>) -> bool {
    let cluster = std::sync::Arc::new(Cluster::start().await);
    let mut ok = true;
    for (i, (name, test)) in TESTS.iter().enumerate() {
        // The first makes the node ready for all others.
        if i > 0 && filter.is_some_and(|f| !name.contains(f)) {
            continue;
        }
        let begun = Instant::now();
        let own = cluster.clone();
        let result = tokio::spawn(async move { test(&own).await }).await;
        let word = if result.is_ok() { "ok" } else { "FAILED" };
        println!("test {kind}::{name} ... {word} ({:.1?})", begun.elapsed());
        ok &= result.is_ok();
    }
    ok
}

fn condition<'a>(pod: &'a Pod, type_: &str) -> &'a str {
    let list = pod
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten());
    list.into_iter()
        .find(|c| c.type_ == type_)
        .map_or("", |c| &c.status)
}

fn ready(pod: &Pod) -> bool {
    condition(pod, "Ready") == "True"
}

fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|s| s.phase.as_deref())
        .unwrap_or("")
}

fn container(pod: &Pod) -> ContainerStatus {
    let list = pod
        .status
        .iter()
        .flat_map(|s| s.container_statuses.iter().flatten());
    list.into_iter().next().cloned().unwrap_or_default()
}

fn waiting(state: &Option<ContainerState>) -> (&str, &str) {
    let waiting = state.as_ref().and_then(|s| s.waiting.as_ref());
    let text =
        |field: fn(&k8s_openapi::api::core::v1::ContainerStateWaiting) -> &Option<String>| {
            waiting.and_then(|w| field(w).as_deref()).unwrap_or("")
        };
    (text(|w| &w.reason), text(|w| &w.message))
}

fn ip_of(pod: &Pod) -> String {
    pod.status
        .as_ref()
        .and_then(|s| s.pod_ip.clone())
        .unwrap_or_default()
}

async fn get(address: &str, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address)
        .await
        .expect("connect");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("write");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("read");
    text
}

async fn a_node_waits_for_its_network(c: &Cluster) {
    let api: Api<Node> = Api::all(c.client.clone());
    let ready_of = |node: &Node| {
        let list = node
            .status
            .iter()
            .flat_map(|s| s.conditions.iter().flatten());
        let ready = list.into_iter().find(|c| c.type_ == "Ready").cloned();
        ready.map(|c| (c.status, c.message.unwrap_or_default()))
    };
    let until = async |status: &str| {
        for _ in 0..200 {
            if let Some(node) = api.get_opt("node-1").await.expect("get")
                && ready_of(&node).is_some_and(|(s, _)| s == status)
            {
                return node;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the node never became {status}");
    };
    let node = until("False").await;
    assert!(
        ready_of(&node)
            .expect("Ready")
            .1
            .contains("NetworkPluginNotReady")
    );
    c.connect();
    let node = until("True").await;
    let labels = node.metadata.labels.expect("labels");
    for (key, value) in [
        ("kubernetes.io/hostname", "node-1"),
        ("kubernetes.io/os", "linux"),
        ("topology.kubernetes.io/zone", "zone-a"),
    ] {
        assert_eq!(labels.get(key).map(String::as_str), Some(value));
    }
}

async fn a_web_server_is_ready_and_serves(c: &Cluster) {
    // What is not ready at its first probe is asked again long before the next one.
    c.create(
        "web",
        json!({"containers": [{
        "name": "main", "image": "example.com/team/shop:v3",
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 3600}}]}),
    )
    .await;
    let pod = c.until("web", "ready", ready).await;
    assert_eq!(phase(&pod), "Running");
    let answer = get(&format!("{}:8080", ip_of(&pod)), "/").await;
    assert!(
        answer.contains("\"node-1\"") && answer.contains("web"),
        "{answer}"
    );
    assert!(c.cni_calls().iter().any(|l| l.starts_with(
        "ADD eth0 IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID="
    )));
    c.until_told("web", "Started Started container main").await;
    let dir = c.dir.join("state/pods/default_web");
    let resolv = std::fs::read_to_string(dir.join("resolv.conf")).expect("resolv.conf");
    assert!(resolv.contains("nameserver 10.96.0.10\n"), "{resolv}");
    assert!(dir.join("netns").exists());
    c.delete("web", Some(5)).await;
    c.until_gone("web").await;
    assert!(!dir.exists());
}

async fn probes_of_every_kind(c: &Cluster) {
    let spec = |probe: serde_json::Value| {
        json!({"containers": [{"name": "main", "image": "shop", "ports": [{"containerPort": 9000}],
            "readinessProbe": probe}]})
    };
    for (name, probe) in [
        ("by-http", json!({"httpGet": {"path": "/", "port": 9000}})),
        ("by-tcp", json!({"tcpSocket": {"port": 9000}})),
        ("by-grpc", json!({"grpc": {"port": 9000}})),
        (
            "by-exec",
            json!({"exec": {"command": ["/bin/sh", "-c", "test -e /etc/hosts"]}}),
        ),
        (
            "by-program",
            json!({"exec": {"command": ["/bin/grpc_health_probe", "-addr=:9000"]}, "timeoutSeconds": 5}),
        ),
    ] {
        c.create(name, spec(probe)).await;
    }
    c.create(
        "never",
        spec(json!({"exec": {"command": ["false"]}, "periodSeconds": 1})),
    )
    .await;
    for name in ["by-http", "by-tcp", "by-grpc", "by-exec", "by-program"] {
        c.until(name, "ready", ready).await;
        c.delete(name, Some(1)).await;
    }
    let pod = c.until("never", "running", |p| phase(p) == "Running").await;
    assert!(!ready(&pod));
    c.until_told("never", "Unhealthy Readiness probe failed")
        .await;
    c.delete("never", Some(1)).await;
}

async fn a_liveness_probe_restarts(c: &Cluster) {
    c.create("sick", json!({"terminationGracePeriodSeconds": 1, "containers": [{
        "name": "main", "image": "busybox",
        "command": ["sh", "-c", "trap 'exit 0' TERM; touch /tmp/well; sleep 2; rm /tmp/well; while :; do sleep 0.1; done"],
        "startupProbe": {"exec": {"command": ["test", "-e", "/tmp/well"]}},
        "livenessProbe": {"exec": {"command": ["test", "-e", "/tmp/well"]}, "periodSeconds": 1, "failureThreshold": 2}}]}))
        .await;
    let pod = c
        .until("sick", "restarted", |p| container(p).restart_count >= 1)
        .await;
    let last = container(&pod)
        .last_state
        .and_then(|s| s.terminated)
        .expect("a last state");
    assert_eq!(last.exit_code, 0);
    for event in [
        "Unhealthy Liveness probe failed",
        "Killing Container main failed liveness probe, will be restarted",
    ] {
        c.until_told("sick", event).await;
    }
    c.delete("sick", Some(1)).await;
}

async fn init_containers_and_volumes(c: &Cluster) {
    c.config_map(
        json!({"metadata": {"name": "conf"}, "data": {"greeting": "hello", "app.ini": "x=1\n"}}),
    )
    .await;
    c.create("stages", json!({
        "hostname": "stage-0", "subdomain": "stages",
        "volumes": [{"name": "work", "emptyDir": {}}, {"name": "conf", "configMap": {"name": "conf"}}],
        "initContainers": [
            {"name": "first", "image": "busybox", "command": ["sh", "-c", "echo first > /work/log"],
             "volumeMounts": [{"name": "work", "mountPath": "/work"}]},
            {"name": "side", "image": "busybox", "restartPolicy": "Always",
             "command": ["sh", "-c", "echo side >> /work/log; sleep 1000"],
             "startupProbe": {"exec": {"command": ["grep", "side", "/work/log"]}},
             "volumeMounts": [{"name": "work", "mountPath": "/work"}]},
            {"name": "second", "image": "busybox", "command": ["sh", "-c", "echo second >> /work/log"],
             "volumeMounts": [{"name": "work", "mountPath": "/work"}]}],
        "containers": [{"name": "main", "image": "busybox",
            "command": ["sh", "-c", "cat /work/log /etc/app/app.ini /sub/log; echo $GREETING $IP $(HOSTNAME); hostname; cat /etc/hosts; sleep 1000"],
            "env": [{"name": "GREETING", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "greeting"}}},
                    {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
            "volumeMounts": [{"name": "work", "mountPath": "/var/run/work", "subPath": "deep/er"},
                {"name": "work", "mountPath": "/work", "readOnly": true},
                {"name": "work", "mountPath": "/sub/log", "subPath": "log"},
                {"name": "conf", "mountPath": "/etc/app"}]}]}))
        .await;
    let pod = c.until("stages", "ready", ready).await;
    let ip = ip_of(&pod);
    let hosts = format!("{ip}\tstage-0.stages.default.svc.cluster.local\tstage-0\n");
    let log = c.until_logged(&pod, "main", &hosts).await;
    assert!(
        log.starts_with(&format!(
            "first\nside\nsecond\nx=1\nfirst\nside\nsecond\nhello {ip} stage-0\nstage-0\n"
        )),
        "{log}"
    );
    let inits = pod
        .status
        .and_then(|s| s.init_container_statuses)
        .expect("statuses");
    let reasons: Vec<String> = inits
        .iter()
        .map(
            |s| match s.state.as_ref().and_then(|s| s.terminated.as_ref()) {
                Some(t) => t.reason.clone().unwrap_or_default(),
                None => "Running".to_owned(),
            },
        )
        .collect();
    assert_eq!(reasons, ["Completed", "Running", "Completed"]);
    c.delete("stages", Some(1)).await;
}

async fn a_job_ends_and_stays(c: &Cluster) {
    for (name, code, expected) in [("good", 0, "Succeeded"), ("bad", 3, "Failed")] {
        c.create(
            name,
            json!({"restartPolicy": "Never", "containers": [{"name": "main", "image": "busybox",
            "command": ["sh", "-c", format!("echo the last word; exit {code}")]}]}),
        )
        .await;
        let pod = c.until(name, expected, |p| phase(p) == expected).await;
        let ended = container(&pod)
            .state
            .and_then(|s| s.terminated)
            .expect("an end");
        assert_eq!(ended.exit_code, code);
        assert_eq!(
            ended.message.as_deref(),
            (code != 0).then_some("the last word")
        );
        assert!(!ready(&pod));
        c.delete(name, None).await;
        c.until_gone(name).await;
    }
}

async fn a_crash_is_seen_and_retried(c: &Cluster) {
    c.create(
        "crash",
        json!({"containers": [{"name": "main", "image": "busybox", "command": ["false"]}]}),
    )
    .await;
    c.create("missing", json!({"containers": [{"name": "main", "image": "busybox", "command": ["/no/such/program"]}]})).await;
    let looping = |p: &Pod| {
        waiting(&container(p).state).0 == "CrashLoopBackOff" && container(p).restart_count >= 2
    };
    let pod = c.until("crash", "in a crash loop", looping).await;
    assert!(waiting(&container(&pod).state).1.starts_with("back-off"));
    assert_eq!(phase(&pod), "Running");
    c.until_told("crash", "BackOff back-off").await;
    let pod = c
        .until("missing", "explained", |p| {
            container(p).last_state.is_some()
        })
        .await;
    let last = container(&pod)
        .last_state
        .and_then(|s| s.terminated)
        .expect("a last state");
    assert_eq!(last.reason.as_deref(), Some("StartError"));
    assert!(
        last.message
            .expect("a message")
            .contains("a program of this machine")
    );
    for name in ["crash", "missing"] {
        c.delete(name, Some(1)).await;
        c.until_gone(name).await;
    }
}

async fn what_is_missing_is_awaited(c: &Cluster) {
    c.create(
        "waits",
        json!({"containers": [{"name": "main", "image": "web", "ports": [{"containerPort": 80}],
        "envFrom": [{"configMapRef": {"name": "later"}}]}]}),
    )
    .await;
    let waits = |p: &Pod| waiting(&container(p).state).0 == "CreateContainerConfigError";
    let pod = c.until("waits", "waiting for its ConfigMap", waits).await;
    assert!(
        waiting(&container(&pod).state)
            .1
            .contains("configmap \"later\" not found")
    );
    c.config_map(json!({"metadata": {"name": "later"}, "data": {}}))
        .await;
    c.until("waits", "ready", ready).await;
    c.delete("waits", Some(1)).await;
}

async fn deletion_gives_grace(c: &Cluster) {
    let script = |trap: &str| {
        json!({"terminationGracePeriodSeconds": 3600, "containers": [{"name": "main", "image": "busybox",
            "command": ["sh", "-c", format!("trap '{trap}' TERM; echo ready; while :; do sleep 0.1; done")],
            "readinessProbe": {"exec": {"command": ["true"]}},
            "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", "echo hook > /proc/1/fd/1"]}}}}]})
    };
    c.create("polite", script("sleep 3; exit 0")).await;
    c.create("stubborn", script("")).await;
    for name in ["polite", "stubborn"] {
        let pod = c.until(name, "ready", ready).await;
        c.until_logged(&pod, "main", "ready").await;
    }
    let begun = Instant::now();
    c.delete("polite", None).await;
    let pod = c
        .until("polite", "terminating", |p| {
            p.metadata.deletion_timestamp.is_some()
        })
        .await;
    assert!(ready(&pod), "it serves while it terminates");
    c.until_gone("polite").await;
    let polite = begun.elapsed();
    assert!(polite > Duration::from_millis(2900), "{polite:?}");
    let begun = Instant::now();
    c.delete("stubborn", Some(3)).await;
    // That it goes at all shows that it was killed.
    c.until_gone("stubborn").await;
    let stubborn = begun.elapsed();
    assert!(stubborn > Duration::from_millis(2900), "{stubborn:?}");
    c.until_told("polite", "Killing Stopping container main")
        .await;
}

async fn a_pod_of_the_host_network(c: &Cluster) {
    c.create(
        "host",
        json!({"hostNetwork": true, "containers": [{"name": "main", "image": "web",
        "ports": [{"containerPort": 7777}], "readinessProbe": {"tcpSocket": {"port": 7777}}}]}),
    )
    .await;
    let pod = c.until("host", "ready", ready).await;
    assert_eq!(ip_of(&pod), "10.244.1.1");
    assert!(
        get("10.244.1.1:7777", "/")
            .await
            .starts_with("HTTP/1.1 200")
    );
    assert!(
        !c.cni_calls()
            .iter()
            .any(|l| l.contains("K8S_POD_NAME=host;"))
    );
    c.delete("host", Some(1)).await;
    c.until_gone("host").await;
}

async fn the_hosts_files_are_refused(c: &Cluster) {
    c.create(
        "greedy",
        json!({"volumes": [{"name": "etc", "hostPath": {"path": "/etc"}}],
        "containers": [{"name": "main", "image": "web", "ports": [{"containerPort": 80}],
            "volumeMounts": [{"name": "etc", "mountPath": "/host"}]}]}),
    )
    .await;
    c.until_told("greedy", "hostPath \"/etc\" is refused").await;
    c.delete("greedy", Some(1)).await;
    c.until_gone("greedy").await;
}

async fn a_link_in_a_volume_leads_nowhere(c: &Cluster) {
    let work = json!([{"name": "work", "emptyDir": {}}]);
    c.create("sly", json!({"volumes": work,
        "initContainers": [{"name": "lay", "image": "busybox", "command": ["ln", "-s", "/etc", "/work/way"],
            "volumeMounts": [{"name": "work", "mountPath": "/work"}]}],
        "containers": [{"name": "main", "image": "busybox", "command": ["sleep", "1000"],
            "volumeMounts": [{"name": "work", "mountPath": "/out", "subPath": "way"}]}]})).await;
    let refused = |p: &Pod| waiting(&container(p).state).1.contains("subPath \"way\"");
    c.until("sly", "refused", refused).await;
    // The same with a volume mounted inside another, where the place to mount it has to be made.
    let bin = c.dir.join("bin");
    c.create(
        "slyer",
        json!({"restartPolicy": "Never",
        "volumes": [{"name": "work", "emptyDir": {}}, {"name": "inner", "emptyDir": {}}],
        "initContainers": [{"name": "lay", "image": "busybox", "command": ["ln", "-s", bin, "/work/way"],
            "volumeMounts": [{"name": "work", "mountPath": "/work"}]}],
        "containers": [{"name": "main", "image": "busybox", "command": ["sleep", "1000"],
            "volumeMounts": [{"name": "work", "mountPath": "/out"}, {"name": "inner", "mountPath": "/out/way/deep"}]}]}),
    )
    .await;
    let pod = c.until("slyer", "failed", |p| phase(p) == "Failed").await;
    let ended = container(&pod)
        .state
        .and_then(|s| s.terminated)
        .expect("an end");
    let message = ended.message.unwrap_or_default();
    assert!(
        message.contains("is a symbolic link in a volume"),
        "{message}"
    );
    assert!(!bin.join("deep").exists());
    for name in ["sly", "slyer"] {
        c.delete(name, Some(1)).await;
        c.until_gone(name).await;
    }
}

async fn images_that_say_too_little_or_too_much(c: &Cluster) {
    c.create(
        "mute",
        json!({"containers": [{"name": "main", "image": "example.com/loadgenerator:v1"}]}),
    )
    .await;
    c.until("mute", "ready", ready).await;
    c.until_told("mute", "declares no ports").await;
    let port = json!([{"containerPort": 8080}]);
    c.create(
        "double",
        json!({"containers": [{"name": "one", "image": "shop", "ports": port},
                              {"name": "two", "image": "shop", "ports": port}]}),
    )
    .await;
    let crashed = |p: &Pod| {
        let list = p
            .status
            .iter()
            .flat_map(|s| s.container_statuses.iter().flatten());
        list.into_iter().any(|s| s.last_state.is_some())
    };
    let pod = c.until("double", "crashing", crashed).await;
    let list = pod
        .status
        .iter()
        .flat_map(|s| s.container_statuses.iter().flatten());
    let messages: Vec<String> = list
        .filter_map(|s| s.last_state.as_ref()?.terminated.as_ref()?.message.clone())
        .collect();
    assert!(messages.iter().any(|m| m.contains("8080")), "{messages:?}");
    for name in ["mute", "double"] {
        c.delete(name, Some(1)).await;
        c.until_gone(name).await;
    }
}

async fn a_forced_deletion_makes_room(c: &Cluster) {
    let stubborn = json!({"containers": [{"name": "main", "image": "busybox",
        "command": ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"]}]});
    c.create("twin-0", stubborn.clone()).await;
    let first = c.until("twin-0", "ready", ready).await;
    c.delete("twin-0", Some(0)).await;
    c.create("twin-0", stubborn).await;
    let second = c.until("twin-0", "ready", ready).await;
    assert_ne!(first.metadata.uid, second.metadata.uid);
    assert_ne!(ip_of(&first), ip_of(&second));
    c.delete("twin-0", Some(1)).await;
    c.until_gone("twin-0").await;
}

async fn a_kubelet_that_died_is_cleaned_up_after(c: &Cluster) {
    let web = json!({"containers": [{"name": "main", "image": "web", "ports": [{"containerPort": 80}],
        "readinessProbe": {"tcpSocket": {"port": 80}}}]});
    c.create("survivor", web).await;
    let before = c.until("survivor", "ready", ready).await;
    c.kill_kubelet().await;
    c.start_kubelet();
    let restarted = |p: &Pod| ready(p) && container(p).restart_count == 1;
    let after = c.until("survivor", "restarted", restarted).await;
    assert_ne!(ip_of(&before), ip_of(&after));
    let ips = after.status.as_ref().and_then(|s| s.pod_ips.as_ref());
    assert_eq!(
        ips.map(Vec::len),
        Some(1),
        "the old address is not kept beside the new"
    );
    let old = c
        .cni_calls()
        .iter()
        .filter(|l| l.starts_with("DEL") && l.contains("K8S_POD_NAME=survivor;"))
        .count();
    assert!(old >= 1, "the old network is detached");
    assert!(
        get(&format!("{}:80", ip_of(&after)), "/")
            .await
            .starts_with("HTTP/1.1 200")
    );
}

async fn a_kubelet_ends_with_its_pods(c: &Cluster) {
    let pod = c.until("survivor", "ready", ready).await;
    let begun = Instant::now();
    c.end_kubelet().await;
    assert!(
        begun.elapsed() < Duration::from_secs(25),
        "{:?}, and a pod's own grace is half a minute",
        begun.elapsed()
    );
    assert!(
        tokio::net::TcpStream::connect(format!("{}:80", ip_of(&pod)))
            .await
            .is_err()
    );
    assert!(!c.dir.join("state/pods/default_survivor").exists());
    c.start_kubelet();
    c.until("survivor", "restarted", |p| {
        ready(p) && container(p).restart_count == 2
    })
    .await;
    c.delete("survivor", Some(1)).await;
    c.until_gone("survivor").await;
}

async fn nothing_is_left(c: &Cluster) {
    for pod in c
        .pods()
        .list(&kube::api::ListParams::default())
        .await
        .expect("list")
    {
        c.until_gone(pod.metadata.name.as_deref().expect("name"))
            .await;
    }
    // The API lets a pod go before its logs are removed.
    let end = Instant::now() + PATIENCE;
    loop {
        let dir = std::fs::read_dir(c.dir.join("state/pods")).expect("pods");
        let left: Vec<_> = dir.flatten().collect();
        if left.is_empty() {
            break;
        }
        assert!(Instant::now() < end, "{left:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    assert!(!mounts.contains("/state/pods/"), "{mounts}");
    let (adds, dels) = c
        .cni_calls()
        .into_iter()
        .partition::<Vec<_>, _>(|l| l.starts_with("ADD"));
    assert!(!adds.is_empty());
    assert!(dels.len() >= adds.len(), "{adds:?} {dels:?}");
}
