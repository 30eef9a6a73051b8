//! A cluster in memory, described in YAML and read back as short lines.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodIP};
use parfait_lab_controllers::memory::Memory;
use parfait_lab_controllers::object::reference;
use parfait_lab_controllers::write::Delete;
use parfait_lab_controllers::{Config, Object, World, Write, pods, step};
use serde_json::{Value, json};

pub struct Cluster {
    pub memory: Memory,
    pub config: Config,
    pub now: Timestamp,
}

/// A cluster with `nodes` ready nodes and the objects of a YAML text.
pub fn cluster(nodes: usize, yaml: &str) -> Cluster {
    let mut world = World::default();
    for namespace in ["default", "kube-system", "kube-node-lease"] {
        add(
            &mut world,
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
        );
        add(
            &mut world,
            json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": namespace}}),
        );
    }
    for number in 1..=nodes {
        add(&mut world, node(&format!("node-{number}")));
    }
    for value in parse(yaml) {
        add(&mut world, value);
    }
    let now = "2026-03-01T12:00:00Z".parse().unwrap();
    Cluster {
        memory: Memory::new(world, now),
        config: Config::default(),
        now,
    }
}

pub fn node(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}})
}

/// The documents of a YAML text; those in a namespace are in `default` unless they say otherwise.
pub fn parse(yaml: &str) -> Vec<Value> {
    let values: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap();
    let in_default = |mut value: Value| {
        if !matches!(value["kind"].as_str(), Some("Node" | "Namespace"))
            && value["metadata"]["namespace"].is_null()
        {
            value["metadata"]["namespace"] = json!("default");
        }
        value
    };
    values
        .into_iter()
        .filter(|value| !value.is_null())
        .map(in_default)
        .collect()
}

pub fn add(world: &mut World, value: Value) {
    world.insert_value(value).unwrap();
}

pub fn object(yaml: &str) -> Object {
    Object::parse(parse(yaml).remove(0)).unwrap()
}

impl Cluster {
    pub fn step(&self) -> Vec<Write> {
        step(&self.memory.world, &self.config, self.now)
    }

    /// What the next step would do, one line a write, events left out, sorted.
    pub fn wants(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.step().iter().filter_map(line).collect();
        lines.sort();
        lines
    }

    /// Lets the controllers work until they want nothing more.
    pub fn settle(&mut self) {
        for _ in 0..500 {
            let writes = self.step();
            if writes.is_empty() {
                return;
            }
            for write in writes {
                self.apply(&write);
            }
        }
        panic!("the controllers do not settle: {:?}", self.wants());
    }

    pub fn apply(&mut self, write: &Write) {
        // A refusal is what another write of the same step may cause.
        let _ = self.memory.apply(write, self.now);
    }

    pub fn create(&mut self, yaml: &str) {
        for value in parse(yaml) {
            let write = Write::Create(Object::parse(value).unwrap());
            self.memory.apply(&write, self.now).unwrap();
        }
    }

    /// Lets the kubelets start every placed pod (ready or not) and end every deleted one.
    pub fn kubelets(&mut self, ready: bool) {
        let placed: Vec<Pod> = self
            .memory
            .world
            .pods
            .values()
            .filter(|pod| pods::node_name(pod).is_some())
            .cloned()
            .collect();
        for (index, pod) in placed.iter().enumerate() {
            if pod.metadata.deletion_timestamp.is_some() {
                self.end_pod(pod);
            } else if pods::phase(pod) == "Pending" {
                self.start_pod(pod, index);
                self.set_ready(pod, ready);
            } else if ready {
                self.set_ready(pod, true);
            }
        }
    }

    pub fn start_pod(&mut self, pod: &Pod, number: usize) {
        let key = key(pod);
        self.memory.change_pod(&key.0, &key.1, |pod| {
            let status = pod.status.get_or_insert_default();
            status.phase = Some("Running".to_owned());
            let v4 = format!("10.244.{}.{}", number / 200, 2 + number % 200);
            let v6 = format!("fd00:10:244::{:x}", 2 + number);
            status.pod_ips = Some(vec![PodIP { ip: v4.clone() }, PodIP { ip: v6 }]);
            status.pod_ip = Some(v4);
        });
    }

    pub fn set_ready(&mut self, pod: &Pod, ready: bool) {
        let (key, now) = (key(pod), self.now);
        let condition = PodCondition {
            type_: "Ready".to_owned(),
            status: if ready { "True" } else { "False" }.to_owned(),
            ..PodCondition::default()
        };
        self.memory.change_pod(&key.0, &key.1, |pod| {
            pods::set_condition(pod, condition, now);
        });
    }

    pub fn end_pod(&mut self, pod: &Pod) {
        let delete = Delete {
            target: reference(pod),
            grace_seconds: Some(0),
            ..Delete::default()
        };
        self.apply(&Write::Delete(delete));
    }

    /// Controllers and kubelets in turn, until nothing changes.
    pub fn run(&mut self) {
        for _ in 0..200 {
            self.settle();
            let before = self.memory.world.clone();
            self.kubelets(true);
            if self.memory.world == before && self.step().is_empty() {
                return;
            }
        }
        panic!("the cluster does not come to rest");
    }

    pub fn wait(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    pub fn pods(&self) -> Vec<Pod> {
        self.memory.world.pods.values().cloned().collect()
    }

    pub fn pod_names(&self) -> Vec<String> {
        self.pods().iter().map(|pod| key(pod).1).collect()
    }

    /// `[3, 2, 2]`: how many pods each node has.
    pub fn spread(&self) -> Vec<usize> {
        let on = |node: &str| {
            self.pods()
                .iter()
                .filter(|pod| pods::node_name(pod) == Some(node))
                .count()
        };
        self.memory
            .world
            .nodes
            .keys()
            .map(|(_, name)| on(name))
            .collect()
    }

    /// Changes one object by editing its JSON form, as a user with kubectl would.
    pub fn edit(&mut self, kind: &str, name: &str, change: impl Fn(&mut Value)) {
        let mut value = self.value(kind, name);
        change(&mut value);
        self.memory
            .apply(&Write::Update(Object::parse(value).unwrap()), self.now)
            .unwrap();
    }

    pub fn value(&self, kind: &str, name: &str) -> Value {
        let all = self.memory.world.to_values();
        all.into_iter()
            .find(|v| v["kind"] == kind && v["metadata"]["name"] == name)
            .unwrap_or_else(|| panic!("there is no {kind} {name}"))
    }

    pub fn delete(&mut self, kind: &str, name: &str) {
        let target = Object::parse(self.value(kind, name)).unwrap().reference();
        self.memory
            .apply(
                &Write::Delete(Delete {
                    target,
                    ..Delete::default()
                }),
                self.now,
            )
            .unwrap();
    }

    /// `Reason: message` of every event so far about an object.
    pub fn events(&self, name: &str) -> Vec<String> {
        let about = self
            .memory
            .events
            .iter()
            .filter(|event| event.regarding.name == name);
        about
            .map(|event| format!("{}: {}", event.reason, event.message))
            .collect()
    }
}

pub fn key(pod: &Pod) -> (String, String) {
    (
        pod.metadata.namespace.clone().unwrap_or_default(),
        pod.metadata.name.clone().unwrap_or_default(),
    )
}

fn line(write: &Write) -> Option<String> {
    match write {
        Write::Event(_) => None,
        Write::Bind { pod, node, .. } => Some(format!("bind {pod} to {node}")),
        other => Some(format!("{} {}", other.verb(), other.target()?)),
    }
}

/// A Deployment `web` of go-web with that many replicas.
pub fn web(replicas: i32) -> String {
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{ name: web }}
spec:
  replicas: {replicas}
  selector: {{ matchLabels: {{ app: web }} }}
  template:
    metadata: {{ labels: {{ app: web }} }}
    spec:
      containers:
      - name: web
        image: go-web:v1
        ports: [{{ name: http, containerPort: 8080 }}]
"
    )
}
