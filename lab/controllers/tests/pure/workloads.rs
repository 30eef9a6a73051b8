//! StatefulSets, DaemonSets and Jobs.

use serde_json::json;

use crate::support::{Cluster, add, cluster, node};
use parfait_lab_controllers::Write;

const DB: &str = "
apiVersion: apps/v1
kind: StatefulSet
metadata: { name: db }
spec:
  replicas: 3
  serviceName: db
  selector: { matchLabels: { app: db } }
  template:
    metadata: { labels: { app: db } }
    spec:
      containers: [{ name: db, image: postgres:v1 }]
";

const AGENT: &str = "
apiVersion: apps/v1
kind: DaemonSet
metadata: { name: agent, namespace: kube-system }
spec:
  selector: { matchLabels: { app: agent } }
  template:
    metadata: { labels: { app: agent } }
    spec:
      containers: [{ name: agent, image: idle:v1 }]
";

fn images(cluster: &Cluster) -> Vec<String> {
    let image = |pod: &k8s_openapi::api::core::v1::Pod| {
        pod.spec.as_ref().unwrap().containers[0]
            .image
            .clone()
            .unwrap()
    };
    cluster.pods().iter().map(image).collect()
}

#[test]
fn ordered_pods_come_one_after_the_other_and_go_in_reverse() {
    let mut cluster = cluster(3, DB);
    for expected in [
        vec!["db-0"],
        vec!["db-0", "db-1"],
        vec!["db-0", "db-1", "db-2"],
    ] {
        cluster.settle();
        assert_eq!(cluster.pod_names(), expected);
        cluster.kubelets(true);
    }
    cluster.run();
    cluster.edit("StatefulSet", "db", |db| db["spec"]["replicas"] = json!(1));
    cluster.settle();
    let ending: Vec<String> = cluster
        .pods()
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_some())
        .map(|pod| pod.metadata.name.clone().unwrap())
        .collect();
    assert_eq!(ending, ["db-2"], "db-1 waits for db-2 to end");
    cluster.run();
    assert_eq!(cluster.pod_names(), ["db-0"]);
}

#[test]
fn parallel_pods_come_and_go_together() {
    let mut cluster = cluster(
        3,
        &DB.replace("  replicas", "  podManagementPolicy: Parallel\n  replicas"),
    );
    cluster.settle();
    assert_eq!(cluster.pod_names(), ["db-0", "db-1", "db-2"]);
    cluster.run();
    cluster.edit("StatefulSet", "db", |db| db["spec"]["replicas"] = json!(0));
    cluster.settle();
    assert!(
        cluster
            .pods()
            .iter()
            .all(|pod| pod.metadata.deletion_timestamp.is_some())
    );
}

#[test]
fn a_stateful_pod_knows_its_name_and_keeps_it() {
    let mut cluster = cluster(3, DB);
    cluster.run();
    let pod = cluster.value("Pod", "db-1");
    assert_eq!(pod["spec"]["hostname"], "db-1");
    assert_eq!(pod["spec"]["subdomain"], "db");
    assert_eq!(
        pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"],
        "1"
    );
    assert_eq!(
        pod["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"],
        "db-1"
    );
    let uid = pod["metadata"]["uid"].clone();
    cluster.delete("Pod", "db-1");
    cluster.run();
    assert_eq!(cluster.pod_names(), ["db-0", "db-1", "db-2"]);
    assert_ne!(cluster.value("Pod", "db-1")["metadata"]["uid"], uid);
}

#[test]
fn a_stateful_update_starts_at_the_end_and_stops_at_the_partition() {
    let mut cluster = cluster(3, DB);
    cluster.run();
    cluster.edit("StatefulSet", "db", |db| {
        db["spec"]["updateStrategy"] = json!({"rollingUpdate": {"partition": 1}});
        db["spec"]["template"]["spec"]["containers"][0]["image"] = json!("postgres:v2");
    });
    cluster.settle();
    let ending = cluster
        .pods()
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_some())
        .count();
    assert_eq!(ending, 1, "one at a time");
    cluster.run();
    assert_eq!(
        images(&cluster),
        ["postgres:v1", "postgres:v2", "postgres:v2"]
    );
    let status = cluster.value("StatefulSet", "db")["status"].clone();
    assert_eq!(status["updatedReplicas"], 2);
    assert_ne!(status["currentRevision"], status["updateRevision"]);
    // Below the partition, a lost pod comes back as it was.
    cluster.delete("Pod", "db-0");
    cluster.run();
    assert_eq!(images(&cluster)[0], "postgres:v1");
    cluster.edit("StatefulSet", "db", |db| {
        db["spec"]["updateStrategy"]["rollingUpdate"]["partition"] = json!(0)
    });
    cluster.run();
    assert_eq!(images(&cluster), ["postgres:v2"; 3]);
    let status = cluster.value("StatefulSet", "db")["status"].clone();
    assert_eq!(status["currentRevision"], status["updateRevision"]);
    assert_eq!(cluster.memory.world.controller_revisions.len(), 2);
}

#[test]
fn volume_claims_become_empty_directories_and_an_event_says_so() {
    let claims = "  volumeClaimTemplates: [{ metadata: { name: data }, spec: {} }]\n  serviceName";
    let mut cluster = cluster(1, &DB.replace("  serviceName", claims));
    cluster.run();
    assert_eq!(
        cluster.value("Pod", "db-0")["spec"]["volumes"],
        json!([{"name": "data", "emptyDir": {}}])
    );
    let told = cluster
        .events("db")
        .iter()
        .filter(|e| e.starts_with("VolumeClaimTemplatesIgnored"))
        .count();
    assert_eq!(told, 1);
}

#[test]
fn a_daemon_runs_on_every_node_new_ones_and_cordoned_ones_too() {
    let mut cluster = cluster(3, AGENT);
    cluster.edit("Node", "node-2", |node| {
        node["spec"]["unschedulable"] = json!(true)
    });
    cluster.run();
    assert_eq!(cluster.spread(), [1, 1, 1]);
    let mut world = cluster.memory.world.clone();
    add(&mut world, node("node-4"));
    let new = world.nodes.pop_last().unwrap().1;
    cluster.apply(&Write::Create(new.into()));
    cluster.run();
    assert_eq!(cluster.spread(), [1, 1, 1, 1]);
    let status = cluster.value("DaemonSet", "agent")["status"].clone();
    assert_eq!(
        (&status["desiredNumberScheduled"], &status["numberReady"]),
        (&json!(4), &json!(4))
    );
    assert_eq!(
        (
            &status["numberAvailable"],
            &status["updatedNumberScheduled"]
        ),
        (&json!(4), &json!(4))
    );
}

#[test]
fn a_daemon_keeps_to_its_node_selector_and_taints() {
    let mut cluster = cluster(
        3,
        &AGENT.replace(
            "      containers",
            "      nodeSelector: { gpu: 'yes' }\n      containers",
        ),
    );
    cluster.edit("Node", "node-1", |node| {
        node["metadata"]["labels"]["gpu"] = json!("yes")
    });
    cluster.edit("Node", "node-3", |node| {
        node["metadata"]["labels"]["gpu"] = json!("yes");
        node["spec"]["taints"] = json!([{"key": "mine", "effect": "NoSchedule"}]);
    });
    cluster.run();
    assert_eq!(cluster.spread(), [1, 0, 0]);
    cluster.edit("Node", "node-1", |node| {
        node["metadata"]["labels"]["gpu"] = json!("no")
    });
    cluster.run();
    assert_eq!(cluster.spread(), [0, 0, 0]);
}

#[test]
fn a_daemon_is_updated_node_by_node() {
    let mut cluster = cluster(3, AGENT);
    cluster.run();
    cluster.edit("DaemonSet", "agent", |agent| {
        agent["spec"]["template"]["spec"]["containers"][0]["image"] = json!("idle:v2");
    });
    for _ in 0..40 {
        let ready = cluster
            .pods()
            .iter()
            .filter(|p| {
                p.metadata.deletion_timestamp.is_none()
                    && parfait_lab_controllers::pods::is_ready(p)
            })
            .count();
        assert!(ready >= 2, "maxUnavailable is 1, {ready} of 3 are ready");
        cluster.settle();
        cluster.kubelets(true);
    }
    assert_eq!(images(&cluster), ["idle:v2"; 3]);
}

const ONCE: &str = "
apiVersion: batch/v1
kind: Job
metadata: { name: once }
spec:
  completions: 3
  parallelism: 2
  backoffLimit: 1
  template:
    metadata: { labels: { app: once } }
    spec: { restartPolicy: Never, containers: [{ name: c, image: tool }] }
";

/// Ends every running pod in a phase, as its kubelet would.
fn end_all(cluster: &mut Cluster, phase: &str) -> usize {
    cluster.settle();
    cluster.kubelets(true);
    let mut ended = 0;
    for name in cluster.pod_names() {
        cluster.memory.change_pod("default", &name, |pod| {
            let status = pod.status.get_or_insert_default();
            if status.phase.as_deref() == Some("Running") {
                status.phase = Some(phase.to_owned());
                ended += 1;
            }
        });
    }
    ended
}

fn verdict(cluster: &Cluster) -> String {
    let condition = &cluster.value("Job", "once")["status"]["conditions"][0];
    format!("{} {}", condition["type"], condition["reason"]).replace('"', "")
}

#[test]
fn a_job_runs_until_enough_pods_have_succeeded() {
    let mut cluster = cluster(2, ONCE);
    assert_eq!(end_all(&mut cluster, "Succeeded"), 2, "two at a time");
    assert_eq!(end_all(&mut cluster, "Succeeded"), 1, "the third alone");
    cluster.run();
    assert_eq!(verdict(&cluster), "Complete CompletionsReached");
    assert_eq!(cluster.value("Job", "once")["status"]["succeeded"], 3);
    assert_eq!(cluster.pods().len(), 3, "their logs can still be read");
}

#[test]
fn a_job_gives_up_after_its_backoff_limit_or_deadline() {
    let mut failing = cluster(2, ONCE);
    end_all(&mut failing, "Failed");
    failing.run();
    assert_eq!(verdict(&failing), "Failed BackoffLimitExceeded");
    let mut late = cluster(
        2,
        &ONCE.replace(
            "  completions",
            "  activeDeadlineSeconds: 30\n  completions",
        ),
    );
    late.run();
    late.wait(30);
    late.run();
    assert_eq!(verdict(&late), "Failed DeadlineExceeded");
    assert_eq!(late.pods().len(), 0);
}

#[test]
fn a_finished_job_goes_after_its_time_and_its_pods_with_it() {
    let mut cluster = cluster(
        2,
        &ONCE.replace("  completions: 3", "  ttlSecondsAfterFinished: 20"),
    );
    end_all(&mut cluster, "Succeeded");
    cluster.run();
    assert_eq!(verdict(&cluster), "Complete CompletionsReached");
    cluster.wait(20);
    cluster.run();
    assert!(cluster.memory.world.jobs.is_empty() && cluster.pods().is_empty());
}

#[test]
fn an_indexed_job_is_refused_in_so_many_words() {
    let mut cluster = cluster(
        2,
        &ONCE.replace("  completions", "  completionMode: Indexed\n  completions"),
    );
    cluster.run();
    assert_eq!(verdict(&cluster), "Failed IndexedNotSupported");
}
