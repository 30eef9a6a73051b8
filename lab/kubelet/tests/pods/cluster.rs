//! One node: an API server, a kubelet, and a CNI plugin.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use parfait_lab_apiserver::{Config, Family, Server};
use parfait_lab_kubelet::{Backoff, Options};

/// How long what should happen may take: a busy machine needs a while.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Cluster {
    pub client: kube::Client,
    pub dir: PathBuf,
    kubelet: std::sync::Mutex<Option<tokio::task::JoinHandle<()>>>,
    _state: tempfile::TempDir,
}

/// Makes a veth pair, one end in the pod, with the next addresses; notes every call.
const PLUGIN: &str = r#"#!/bin/sh
exec 2>>DIR/cni.err
cat > DIR/stdin.$CNI_COMMAND
echo "$CNI_COMMAND $CNI_IFNAME $CNI_ARGS" >> DIR/calls
host=v$(echo $CNI_CONTAINERID | tail -c 9)
case $CNI_COMMAND in
ADD)
  until mkdir DIR/lock 2>/dev/null; do sleep 0.02; done
  n=$(($(cat DIR/next 2>/dev/null || echo 1) + 1)); echo $n > DIR/next; rmdir DIR/lock
  ip link add $host type veth peer name $host-p && ip link set $host up || exit 1
  nsenter --net=$CNI_NETNS true || exit 1
  exec 3<$CNI_NETNS
  ip link set $host-p netns /proc/$$/fd/3 2>/dev/null || {
    nsenter --net=$CNI_NETNS sleep 5 & sleep 0.1; ip link set $host-p netns $!; }
  in="nsenter --net=$CNI_NETNS"
  $in ip link set $host-p name eth0; $in ip link set eth0 up
  $in ip addr add 10.244.1.$n/32 dev eth0
  $in ip route add 10.244.1.1 dev eth0; $in ip route add default via 10.244.1.1 dev eth0
  ip route add 10.244.1.$n/32 dev $host
  echo "{\"cniVersion\":\"1.0.0\",\"ips\":[{\"address\":\"10.244.1.$n/32\"}]}" ;;
DEL) ip link del $host 2>/dev/null; true ;;
esac
"#;

impl Cluster {
    /// Starts everything. The node's address is 10.244.1.1, on lo.
    pub async fn start() -> Cluster {
        for args in ["link set lo up", "addr add 10.244.1.1/32 dev lo"] {
            ip(args);
        }
        let state = tempfile::tempdir().expect("temporary directory");
        let dir = state.path().to_owned();
        for sub in ["net.d", "bin", "state"] {
            std::fs::create_dir(dir.join(sub)).expect("mkdir");
        }
        let plugin = dir.join("bin/test-veth");
        std::fs::write(&plugin, PLUGIN.replace("DIR", &dir.display().to_string())).expect("write");
        std::fs::set_permissions(&plugin, PermissionsExt::from_mode(0o755)).expect("chmod");
        let server = Server::new(Config {
            families: vec![Family::Ipv4],
            service_cidr_v4: Some("10.96.0.0/16".parse().expect("cidr")),
            ..Config::default()
        })
        .expect("an API server");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let url = format!("https://{}", listener.local_addr().expect("address"));
        let kubeconfig = dir.join("kubeconfig");
        std::fs::write(&kubeconfig, server.kubeconfig(&url, "test")).expect("write");
        let client = kube::Client::new(server.in_process(), "default");
        tokio::spawn(async move { server.serve(vec![listener], std::future::pending()).await });
        let cluster = Cluster {
            client,
            dir,
            kubelet: std::sync::Mutex::new(None),
            _state: state,
        };
        cluster.start_kubelet();
        cluster
    }

    pub fn start_kubelet(&self) {
        let mut options = Options::new(
            "node-1",
            self.dir.join("kubeconfig"),
            self.dir.join("state"),
        );
        options.node_ips = vec!["10.244.1.1".parse().expect("ip")];
        options.cni_conf_dir = self.dir.join("net.d");
        options.cni_bin_dir = self.dir.join("bin");
        options.cluster_dns = vec!["10.96.0.10".parse().expect("ip")];
        options.zone = Some("zone-a".to_owned());
        options.backoff = Backoff {
            first: Duration::from_millis(500),
            longest: Duration::from_secs(2),
            reset: Duration::from_secs(600),
        };
        let task = tokio::spawn(async move {
            if let Err(error) = parfait_lab_kubelet::run(options).await {
                panic!("kubelet: {error}");
            }
        });
        *self.kubelet.lock().expect("lock") = Some(task);
    }

    /// The kubelet dies, as if killed.
    pub async fn kill_kubelet(&self) {
        let task = self
            .kubelet
            .lock()
            .expect("lock")
            .take()
            .expect("a kubelet");
        task.abort();
        let _ = task.await;
    }

    /// The kubelet is told to end, and does.
    pub async fn end_kubelet(&self) {
        let task = self
            .kubelet
            .lock()
            .expect("lock")
            .take()
            .expect("a kubelet");
        let own = rustix::process::getpid();
        rustix::process::kill_process(own, rustix::process::Signal::TERM).expect("signal");
        task.await.expect("kubelet");
    }

    /// The network becomes ready.
    pub fn connect(&self) {
        let list = r#"{"cniVersion":"1.0.0","name":"test","plugins":[{"type":"test-veth"}]}"#;
        std::fs::write(self.dir.join("net.d/10-test.conflist"), list).expect("write");
    }

    pub fn cni_calls(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.join("calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Creates a pod on the node from its name and spec.
    pub async fn create(&self, name: &str, spec: serde_json::Value) -> Pod {
        let mut spec = spec;
        spec["nodeName"] = "node-1".into();
        let pod =
            serde_json::json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": spec});
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        self.pods()
            .create(&PostParams::default(), &pod)
            .await
            .unwrap_or_else(|e| panic!("create {name}: {e}"))
    }

    pub async fn config_map(&self, value: serde_json::Value) {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), "default");
        let map = serde_json::from_value(value).expect("a ConfigMap");
        api.create(&PostParams::default(), &map)
            .await
            .expect("create");
    }

    pub async fn delete(&self, name: &str, grace: Option<u32>) {
        let params = DeleteParams {
            grace_period_seconds: grace,
            ..DeleteParams::default()
        };
        self.pods().delete(name, &params).await.expect("delete");
    }

    /// Waits until a pod looks as it should.
    pub async fn until(&self, name: &str, what: &str, test: impl Fn(&Pod) -> bool) -> Pod {
        let end = Instant::now() + PATIENCE;
        loop {
            let pod = self.pods().get_opt(name).await.expect("get");
            if let Some(pod) = &pod
                && test(pod)
            {
                return pod.clone();
            }
            if Instant::now() > end {
                let status = pod.map(|p| serde_json::to_string_pretty(&p.status).expect("json"));
                panic!(
                    "{name} never became {what}: {}\n{:#?}",
                    status.unwrap_or_default(),
                    self.events(name).await
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub async fn until_gone(&self, name: &str) {
        let end = Instant::now() + PATIENCE;
        while self.pods().get_opt(name).await.expect("get").is_some() {
            assert!(Instant::now() < end, "{name} is never gone");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until an event about a pod says this, as `reason message`.
    pub async fn until_told(&self, name: &str, said: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            let events = self.events(name).await;
            if events.iter().any(|event| event.contains(said)) {
                return;
            }
            assert!(Instant::now() < end, "{said}: {events:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the log of a container's first run says this, and gives all of it.
    pub async fn until_logged(&self, pod: &Pod, container: &str, said: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let log = self.log(pod, container, 0);
            if log.contains(said) {
                return log;
            }
            assert!(Instant::now() < end, "{said}: {log}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// `reason message` of every event about a pod.
    async fn events(&self, name: &str) -> Vec<String> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), "default");
        let list = api.list(&ListParams::default()).await.expect("events");
        list.items
            .into_iter()
            .filter(|e| e.involved_object.name.as_deref() == Some(name))
            .map(|e| {
                format!(
                    "{} {}",
                    e.reason.unwrap_or_default(),
                    e.message.unwrap_or_default()
                )
            })
            .collect()
    }

    /// The log of a container's run, without times.
    pub fn log(&self, pod: &Pod, container: &str, attempt: u32) -> String {
        let paths = parfait_lab_kubelet::Paths::new(self.dir.join("state"));
        let meta = &pod.metadata;
        let (name, uid) = (
            meta.name.as_deref().expect("name"),
            meta.uid.as_deref().expect("uid"),
        );
        read_log(&paths.log("default", name, uid, container, attempt))
    }
}

fn read_log(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .map(|l| l.splitn(4, ' ').nth(3).unwrap_or("").to_owned() + "\n")
        .collect()
}

fn ip(args: &str) {
    let status = std::process::Command::new("ip")
        .args(args.split(' '))
        .status();
    assert!(status.is_ok_and(|s| s.success()), "ip {args}");
}
