//! Ends: of namespaces with what is in them, and of owners with what they own.

use parfait_lab_controllers::memory::Refusal;
use parfait_lab_controllers::object::ObjectRef;
use parfait_lab_controllers::write::{Delete, Propagation};
use parfait_lab_controllers::{Object, Write};
use serde_json::{Value, json};

use crate::support::{Cluster, cluster, web};

const SHOP: &str = "
---
apiVersion: v1
kind: Namespace
metadata: { name: shop }
---
apiVersion: v1
kind: Secret
metadata: { name: key, namespace: shop }
---
apiVersion: v1
kind: Service
metadata: { name: web, namespace: shop }
spec: { selector: { app: web }, ports: [{ port: 80 }] }
";

fn shop() -> Cluster {
    let web = web(3).replace("name: web }\n", "name: web, namespace: shop }\n");
    let mut cluster = cluster(2, &(web + SHOP));
    cluster.run();
    cluster
}

/// `Kind name` of everything in a namespace.
fn inside(cluster: &Cluster, namespace: &str) -> Vec<String> {
    let values = cluster.memory.world.to_values();
    let inside = values
        .iter()
        .filter(|v| v["metadata"]["namespace"] == namespace);
    inside
        .map(|v| {
            format!(
                "{} {}",
                v["kind"].as_str().unwrap(),
                v["metadata"]["name"].as_str().unwrap()
            )
        })
        .collect()
}

fn delete(cluster: &mut Cluster, kind: &str, name: &str, propagation: Option<Propagation>) {
    let target = Object::parse(cluster.value(kind, name))
        .unwrap()
        .reference();
    cluster.apply(&Write::Delete(Delete {
        target,
        propagation,
        ..Delete::default()
    }));
}

#[test]
fn a_namespace_takes_everything_with_it_and_nothing_new_is_made_in_it() {
    let mut cluster = shop();
    assert!(
        inside(&cluster, "shop").len() >= 9,
        "{:?}",
        inside(&cluster, "shop")
    );
    delete(&mut cluster, "Namespace", "shop", None);
    cluster.settle();
    // The pods have their grace; the namespace waits for them.
    let left = inside(&cluster, "shop");
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(left.iter().all(|line| line.starts_with("Pod ")), "{left:?}");
    cluster.value("Namespace", "shop");
    cluster.run();
    assert_eq!(inside(&cluster, "shop"), [""; 0]);
    assert!(
        !cluster
            .memory
            .world
            .namespaces
            .contains_key(&(String::new(), "shop".to_owned()))
    );
    assert!(
        inside(&cluster, "default").contains(&"ServiceAccount default".to_owned()),
        "others are untouched"
    );
}

#[test]
fn a_write_based_on_an_old_version_or_another_incarnation_is_refused() {
    let mut cluster = shop();
    let old = Object::parse(cluster.value("Secret", "key")).unwrap();
    cluster.edit("Secret", "key", |secret| {
        secret["metadata"]["labels"] = json!({"a": "b"});
    });
    let now = cluster.now;
    let conflict = Refusal::Conflict(old.reference());
    let update = Write::Update(old.clone());
    assert_eq!(cluster.memory.apply(&update, now), Err(conflict));
    let mut target = old.reference();
    target.uid = "another".to_owned();
    let delete = Write::Delete(Delete {
        target: target.clone(),
        ..Delete::default()
    });
    assert_eq!(
        cluster.memory.apply(&delete, now),
        Err(Refusal::Conflict(target))
    );
    let create = Write::Create(old.clone());
    let exists = Refusal::AlreadyExists(old.reference());
    assert_eq!(cluster.memory.apply(&create, now), Err(exists));
}

#[test]
fn an_object_with_a_finalizer_holds_its_namespace() {
    let mut cluster = shop();
    cluster.edit("Secret", "key", |secret| {
        secret["metadata"]["finalizers"] = json!(["example.org/wait"])
    });
    delete(&mut cluster, "Namespace", "shop", None);
    cluster.run();
    assert_eq!(inside(&cluster, "shop"), ["Secret key"]);
    cluster.edit("Secret", "key", |secret| {
        secret["metadata"]["finalizers"] = Value::Null
    });
    cluster.run();
    assert!(
        !cluster
            .memory
            .world
            .namespaces
            .contains_key(&(String::new(), "shop".to_owned()))
    );
}

#[test]
fn background_the_owner_goes_first_and_the_rest_follows() {
    let mut cluster = cluster(2, &web(3));
    cluster.run();
    delete(
        &mut cluster,
        "Deployment",
        "web",
        Some(Propagation::Background),
    );
    assert_eq!(cluster.memory.world.deployments.len(), 0);
    cluster.run();
    assert_eq!(cluster.memory.world.replica_sets.len(), 0);
    assert_eq!(cluster.pods().len(), 0);
}

#[test]
fn foreground_the_owner_goes_last() {
    let mut cluster = cluster(2, &web(3));
    cluster.run();
    delete(
        &mut cluster,
        "Deployment",
        "web",
        Some(Propagation::Foreground),
    );
    cluster.settle();
    assert_eq!(cluster.memory.world.deployments.len(), 1);
    assert_eq!(cluster.memory.world.replica_sets.len(), 1);
    assert!(
        cluster
            .pods()
            .iter()
            .all(|pod| pod.metadata.deletion_timestamp.is_some())
    );
    assert_eq!(cluster.pods().len(), 3, "no replacements either");
    cluster.run();
    assert_eq!(cluster.pods().len(), 0);
    assert_eq!(cluster.memory.world.replica_sets.len(), 0);
    assert_eq!(cluster.memory.world.deployments.len(), 0);
}

#[test]
fn orphan_the_dependents_stay_and_are_adopted_again() {
    let mut cluster = cluster(2, &web(3));
    cluster.run();
    let names = cluster.pod_names();
    cluster.edit("Deployment", "web", |web| {
        web["metadata"]["finalizers"] = json!(["orphan"])
    });
    delete(&mut cluster, "Deployment", "web", None);
    cluster.run();
    assert_eq!(cluster.memory.world.deployments.len(), 0);
    assert_eq!(cluster.pod_names(), names);
    let set = cluster.memory.world.replica_sets.values().next().unwrap();
    assert_eq!(set.metadata.owner_references, None);
    cluster.create(&web(3));
    cluster.run();
    assert_eq!(
        cluster.pod_names(),
        names,
        "the new Deployment takes them over as they are"
    );
    assert_eq!(cluster.memory.world.replica_sets.len(), 1);
}

#[test]
fn an_owner_that_cannot_be_seen_is_not_absent() {
    let owned = "
apiVersion: v1
kind: ConfigMap
metadata:
  name: owned
  ownerReferences: [{ apiVersion: example.org/v1, kind: Widget, name: w, uid: u-1 }]
";
    let mut cluster = cluster(0, owned);
    assert_eq!(cluster.wants(), [""; 0], "nobody has listed the Widgets");
    cluster
        .memory
        .world
        .listed
        .insert(("example.org".to_owned(), "Widget".to_owned()));
    let writes = cluster.step();
    let [Write::Delete(delete)] = writes.as_slice() else {
        panic!("{writes:?}")
    };
    assert_eq!(delete.target.name, "owned");
    // And even then it is asked for by name first.
    let asked: Vec<String> = delete.if_absent.iter().map(ObjectRef::to_string).collect();
    assert_eq!(asked, ["Widget default/w"]);
}

#[test]
fn one_of_two_owners_is_enough_to_stay() {
    let yaml = "
apiVersion: v1
kind: ConfigMap
metadata: { name: owner, uid: u-owner }
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: owned
  ownerReferences:
  - { apiVersion: v1, kind: ConfigMap, name: owner, uid: u-owner }
  - { apiVersion: v1, kind: ConfigMap, name: gone, uid: u-gone }
";
    let mut cluster = cluster(1, yaml);
    cluster.settle();
    let owners = cluster.value("ConfigMap", "owned")["metadata"]["ownerReferences"].clone();
    assert_eq!(owners.as_array().unwrap().len(), 1);
    cluster.delete("ConfigMap", "owner");
    cluster.settle();
    assert!(
        !cluster
            .memory
            .world
            .config_maps
            .keys()
            .any(|(_, name)| name == "owned")
    );
}
