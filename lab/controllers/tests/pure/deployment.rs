//! Deployments: from nothing to pods, from one version to the next, back again, and what is said meanwhile.

use serde_json::{Value, json};

use crate::support::{Cluster, cluster, web};

fn sizes(cluster: &Cluster) -> Vec<(String, i64)> {
    let mut sets: Vec<(String, i64)> = cluster
        .memory
        .world
        .replica_sets
        .values()
        .map(|set| {
            let image = set
                .spec
                .as_ref()
                .unwrap()
                .template
                .as_ref()
                .unwrap()
                .spec
                .as_ref()
                .unwrap();
            (
                image.containers[0].image.clone().unwrap(),
                i64::from(set.spec.as_ref().unwrap().replicas.unwrap()),
            )
        })
        .collect();
    sets.sort();
    sets
}

fn condition(cluster: &Cluster, kind: &str) -> Value {
    let web = cluster.value("Deployment", "web");
    web["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|c| c["type"] == kind)
        .unwrap()
        .clone()
}

fn set_image(cluster: &mut Cluster, image: &str) {
    cluster.edit("Deployment", "web", |web| {
        web["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
    });
}

fn named(image: &str, size: i64) -> (String, i64) {
    (image.to_owned(), size)
}

#[test]
fn a_deployment_becomes_a_replica_set_then_pods_then_ready() {
    let mut cluster = cluster(2, &web(3));
    let wants = cluster.wants();
    let set = wants
        .iter()
        .find_map(|w| w.strip_prefix("create ReplicaSet default/"))
        .unwrap()
        .to_owned();
    assert!(set.starts_with("web-"), "{wants:?}");
    assert!(
        cluster
            .wants()
            .contains(&"update the status of Deployment default/web".to_owned())
    );
    cluster.settle();
    assert_eq!(cluster.pods().len(), 3);
    let pod = cluster.pods().remove(0);
    assert!(pod.metadata.name.unwrap().starts_with(&format!("{set}-")));
    assert_eq!(
        pod.metadata.labels.unwrap()["pod-template-hash"],
        set["web-".len()..]
    );
    assert_eq!(
        condition(&cluster, "Available")["reason"],
        "MinimumReplicasUnavailable"
    );
    assert_eq!(
        condition(&cluster, "Progressing")["reason"],
        "ReplicaSetUpdated"
    );
    cluster.run();
    let status = &cluster.value("Deployment", "web")["status"];
    for count in [
        "replicas",
        "readyReplicas",
        "availableReplicas",
        "updatedReplicas",
    ] {
        assert_eq!(status[count], 3, "{count}");
    }
    assert_eq!(status["observedGeneration"], 1);
    assert_eq!(
        condition(&cluster, "Available")["reason"],
        "MinimumReplicasAvailable"
    );
    let progressing = condition(&cluster, "Progressing");
    assert_eq!(progressing["reason"], "NewReplicaSetAvailable");
    assert_eq!(
        progressing["message"],
        format!("ReplicaSet \"{set}\" has successfully progressed.")
    );
    assert_eq!(
        cluster.events("web"),
        [format!(
            "ScalingReplicaSet: Scaled up replica set {set} from 0 to 3"
        )]
    );
}

#[test]
fn scaling_goes_up_and_down_and_to_nothing() {
    let mut cluster = cluster(3, &web(3));
    cluster.run();
    for size in [12, 1, 0, 5] {
        cluster.edit("Deployment", "web", |web| {
            web["spec"]["replicas"] = json!(size)
        });
        cluster.run();
        assert_eq!(cluster.pods().len(), size);
        assert_eq!(sizes(&cluster), [named("go-web:v1", size as i64)]);
    }
}

#[test]
fn a_rolling_update_stops_while_the_new_pods_are_not_ready() {
    let mut cluster = cluster(3, &web(4));
    // The nodes' heartbeats are not part of this story.
    cluster.config.node_grace_seconds = 3_600;
    cluster.run();
    set_image(&mut cluster, "go-web:v2");
    cluster.settle();
    cluster.kubelets(false);
    cluster.settle();
    // 25 % of 4: one more, one less.
    assert_eq!(
        sizes(&cluster),
        [named("go-web:v1", 3), named("go-web:v2", 2)]
    );
    let message = condition(&cluster, "Progressing")["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(message.ends_with("is progressing."), "{message}");
    cluster.wait(601);
    cluster.settle();
    assert_eq!(
        condition(&cluster, "Progressing")["reason"],
        "ProgressDeadlineExceeded"
    );
    cluster.run();
    assert_eq!(
        sizes(&cluster),
        [named("go-web:v1", 0), named("go-web:v2", 4)]
    );
    assert_eq!(
        condition(&cluster, "Progressing")["reason"],
        "NewReplicaSetAvailable"
    );
}

#[test]
fn recreate_lets_the_old_pods_end_first() {
    let strategy = web(3).replace("  selector", "  strategy: { type: Recreate }\n  selector");
    let mut cluster = cluster(3, &strategy);
    cluster.run();
    set_image(&mut cluster, "go-web:v2");
    cluster.settle();
    // The kubelets have not ended the old pods yet: nothing new appears.
    assert_eq!(sizes(&cluster), [named("go-web:v1", 0)]);
    assert_eq!(cluster.pods().len(), 3);
    cluster.run();
    assert_eq!(
        sizes(&cluster),
        [named("go-web:v1", 0), named("go-web:v2", 3)]
    );
}

#[test]
fn rolling_back_uses_the_old_replica_set_with_a_new_revision() {
    let revision = |value: &Value| {
        value["metadata"]["annotations"]["deployment.kubernetes.io/revision"].clone()
    };
    let mut cluster = cluster(3, &web(2));
    cluster.run();
    assert_eq!(revision(&cluster.value("Deployment", "web")), "1");
    set_image(&mut cluster, "go-web:v2");
    cluster.run();
    assert_eq!(revision(&cluster.value("Deployment", "web")), "2");
    set_image(&mut cluster, "go-web:v1");
    cluster.run();
    assert_eq!(revision(&cluster.value("Deployment", "web")), "3");
    assert_eq!(
        sizes(&cluster),
        [named("go-web:v1", 2), named("go-web:v2", 0)]
    );
}

#[test]
fn the_history_is_as_long_as_it_may_be() {
    let mut cluster = cluster(
        2,
        &web(1).replace("  selector", "  revisionHistoryLimit: 2\n  selector"),
    );
    for version in 1..=6 {
        set_image(&mut cluster, &format!("go-web:v{version}"));
        cluster.run();
    }
    let kept = [
        named("go-web:v4", 0),
        named("go-web:v5", 0),
        named("go-web:v6", 1),
    ];
    assert_eq!(sizes(&cluster), kept);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll_out() {
    let mut cluster = cluster(2, &web(2));
    cluster.run();
    cluster.edit("Deployment", "web", |web| {
        web["spec"]["paused"] = json!(true);
        web["spec"]["replicas"] = json!(3);
        web["spec"]["template"]["spec"]["containers"][0]["image"] = json!("go-web:v2");
    });
    cluster.run();
    assert_eq!(sizes(&cluster), [named("go-web:v1", 3)]);
    assert_eq!(
        condition(&cluster, "Progressing")["reason"],
        "DeploymentPaused"
    );
    cluster.edit("Deployment", "web", |web| {
        web["spec"]["paused"] = json!(false)
    });
    cluster.run();
    assert_eq!(
        sizes(&cluster),
        [named("go-web:v1", 0), named("go-web:v2", 3)]
    );
}

#[test]
fn min_ready_seconds_holds_the_update_back() {
    let mut cluster = cluster(
        2,
        &web(2).replace("  selector", "  minReadySeconds: 30\n  selector"),
    );
    cluster.run();
    assert_eq!(
        cluster.value("Deployment", "web")["status"]["readyReplicas"],
        2
    );
    assert_eq!(
        cluster.value("Deployment", "web")["status"]["availableReplicas"],
        Value::Null
    );
    cluster.wait(31);
    cluster.run();
    assert_eq!(
        cluster.value("Deployment", "web")["status"]["availableReplicas"],
        2
    );
}

#[test]
fn a_pod_relabelled_is_released_and_replaced_and_one_that_matches_is_adopted() {
    let mut cluster = cluster(2, &web(2));
    cluster.run();
    let name = cluster.pod_names().remove(0);
    cluster.edit("Pod", &name, |pod| {
        pod["metadata"]["labels"]["app"] = json!("under-study")
    });
    cluster.run();
    assert_eq!(cluster.pods().len(), 3);
    assert_eq!(
        cluster.value("Pod", &name)["metadata"]["ownerReferences"],
        Value::Null
    );
    cluster.edit("Pod", &name, |pod| {
        pod["metadata"]["labels"]["app"] = json!("web")
    });
    cluster.run();
    assert_eq!(cluster.pods().len(), 2, "one too many, so one goes");
}

#[test]
fn a_deleted_pod_is_replaced_under_another_name() {
    let mut cluster = cluster(2, &web(1));
    cluster.run();
    let name = cluster.pod_names().remove(0);
    cluster.delete("Pod", &name);
    cluster.settle();
    assert_eq!(
        cluster.pods().len(),
        2,
        "the replacement does not wait for the end"
    );
    cluster.run();
    assert_eq!(cluster.pods().len(), 1);
    assert_ne!(cluster.pod_names().remove(0), name);
}

#[test]
fn acting_twice_on_the_same_picture_makes_no_double() {
    let mut cluster = cluster(2, &web(5));
    let first = cluster.step();
    first.iter().for_each(|write| cluster.apply(write));
    let stale = cluster.step();
    stale.iter().for_each(|write| cluster.apply(write));
    // The very same writes once more, as a driver would that has not heard the answers.
    stale.iter().for_each(|write| cluster.apply(write));
    first.iter().for_each(|write| cluster.apply(write));
    assert_eq!(cluster.pods().len(), 5);
    assert_eq!(cluster.memory.world.replica_sets.len(), 1);
}
