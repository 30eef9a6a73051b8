//! A folder of YAML with no cluster: what would be where.

use std::io::Write;
use std::path::PathBuf;

use parfait_lab_controllers::{Config, Object, Simulation, simulate};

use crate::support::{parse, web};

fn objects(yaml: &str) -> Vec<Object> {
    parse(yaml)
        .into_iter()
        .map(|value| Object::parse(value).unwrap())
        .collect()
}

fn run(yaml: &str, nodes: usize) -> Simulation {
    simulate(objects(yaml), &Config::default(), nodes)
}

#[test]
fn nodes_pods_and_services_get_readable_addresses() {
    let service = "\n---\napiVersion: v1\nkind: Service\nmetadata: { name: web }\nspec: { selector: { app: web }, ports: [{ port: 80 }] }\n";
    let simulation = run(&(web(4) + service), 3);
    assert!(simulation.settled);
    assert_eq!(simulation.notes, [""; 0]);
    let world = &simulation.world;
    let addresses: Vec<String> = world
        .nodes
        .values()
        .flat_map(|node| node.status.as_ref().unwrap().addresses.clone().unwrap())
        .filter(|address| address.type_ == "InternalIP")
        .map(|address| address.address)
        .collect();
    assert_eq!(
        addresses,
        [
            "192.168.77.11",
            "fd00:77::11",
            "192.168.77.12",
            "fd00:77::12",
            "192.168.77.13",
            "fd00:77::13"
        ]
    );
    let mut pod_ips: Vec<Vec<String>> = world
        .pods
        .values()
        .map(|pod| {
            pod.status
                .as_ref()
                .unwrap()
                .pod_ips
                .iter()
                .flatten()
                .map(|ip| ip.ip.clone())
                .collect()
        })
        .collect();
    pod_ips.sort();
    assert_eq!(pod_ips[0], ["10.244.1.2", "fd00:10:244:1::2"]);
    assert_eq!(pod_ips[1], ["10.244.1.3", "fd00:10:244:1::3"]);
    assert_eq!(pod_ips[2], ["10.244.2.2", "fd00:10:244:2::2"]);
    let service = world
        .services
        .values()
        .next()
        .unwrap()
        .spec
        .clone()
        .unwrap();
    assert_eq!(service.cluster_ip.as_deref(), Some("10.96.0.2"));
    assert_eq!(
        service.ports.unwrap()[0].target_port,
        Some(k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(80))
    );
    let endpoints = world
        .endpoint_slices
        .values()
        .next()
        .unwrap()
        .endpoints
        .clone()
        .unwrap();
    assert_eq!(endpoints.len(), 4);
    assert!(
        endpoints
            .iter()
            .all(|e| e.conditions.as_ref().unwrap().ready == Some(true))
    );
}

#[test]
fn the_same_folder_gives_the_same_cluster() {
    let (one, two) = (run(&web(7), 3), run(&web(7), 3));
    assert_eq!(one.world, two.world);
}

#[test]
fn services_of_all_kinds_get_what_an_api_server_gives() {
    let yaml = "
apiVersion: v1
kind: Service
metadata: { name: a-dual }
spec: { ipFamilyPolicy: PreferDualStack, ports: [{ port: 1 }] }
---
apiVersion: v1
kind: Service
metadata: { name: b-given }
spec: { clusterIP: 10.96.0.3, ports: [{ port: 1 }] }
---
apiVersion: v1
kind: Service
metadata: { name: c-node }
spec: { type: NodePort, ports: [{ port: 1 }, { port: 2, nodePort: 30000 }] }
---
apiVersion: v1
kind: Service
metadata: { name: d-headless }
spec: { clusterIP: None, selector: { a: b } }
---
apiVersion: v1
kind: Service
metadata: { name: e-six }
spec: { ipFamilies: [IPv6], ports: [{ port: 1 }] }
";
    let simulation = run(yaml, 1);
    let ips: Vec<Vec<String>> = simulation
        .world
        .services
        .values()
        .map(|service| {
            service
                .spec
                .as_ref()
                .unwrap()
                .cluster_ips
                .clone()
                .unwrap_or_default()
        })
        .collect();
    let expected: [&[&str]; 5] = [
        &["10.96.0.2", "fd00:10:96::2"],
        &["10.96.0.3"],
        &["10.96.0.4"],
        &["None"],
        &["fd00:10:96::3"],
    ];
    assert_eq!(ips, expected);
    let node = simulation.world.services[&("default".to_owned(), "c-node".to_owned())]
        .spec
        .clone()
        .unwrap();
    let ports: Vec<Option<i32>> = node
        .ports
        .unwrap()
        .iter()
        .map(|port| port.node_port)
        .collect();
    assert_eq!(ports, [Some(30001), Some(30000)]);
}

#[test]
fn what_is_not_modelled_is_kept_and_said() {
    let yaml = "
apiVersion: batch/v1
kind: CronJob
metadata: { name: nightly }
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: deny }
spec: { podSelector: {} }
---
apiVersion: parfait.dev/v1alpha1
kind: NodeNetworkPolicy
metadata: { name: door }
";
    let simulation = run(yaml, 1);
    assert_eq!(
        simulation.notes,
        [
            "CronJob default/nightly (batch/v1) is kept, but no controller of the lab acts on this kind"
        ]
    );
    assert_eq!(simulation.world.others.len(), 3);
    let mut others = simulation.world.others.values();
    assert!(others.any(|other| other.metadata.namespace.is_none()));
}

#[test]
fn a_workload_whose_pods_would_not_be_its_own_makes_none() {
    let yaml = web(2).replace("labels: { app: web }", "labels: { app: wbe }");
    let simulation = run(&yaml, 1);
    assert!(simulation.settled);
    assert_eq!(simulation.world.pods.len(), 0);
    assert_eq!(
        simulation.notes,
        [
            "Deployment default/web makes no pods: its selector does not match the labels of its own pod template"
        ]
    );
}

#[test]
fn an_export_of_running_pods_keeps_their_places_and_addresses() {
    let yaml = "
apiVersion: v1
kind: Pod
metadata:
  name: old
  uid: u-1
  ownerReferences: [{ apiVersion: apps/v1, kind: ReplicaSet, name: rs, uid: u-2, controller: true }]
spec: { nodeName: worker-7, containers: [{ name: c, image: i }] }
status: { phase: Running, podIP: 10.1.2.3, podIPs: [{ ip: 10.1.2.3 }] }
";
    let simulation = run(yaml, 2);
    let pod = simulation.world.pods.values().next().unwrap();
    assert_eq!(
        pod.status.as_ref().unwrap().pod_ip.as_deref(),
        Some("10.1.2.3")
    );
    assert!(
        simulation
            .world
            .nodes
            .keys()
            .any(|(_, name)| name == "worker-7")
    );
    assert_eq!(simulation.notes.len(), 2, "{:?}", simulation.notes);
}

#[test]
fn a_pod_that_fits_nowhere_is_told() {
    let simulation = run(
        &web(1).replace(
            "      containers",
            "      nodeSelector: { disk: ssd }\n      containers",
        ),
        2,
    );
    let told = simulation
        .events
        .iter()
        .any(|event| event.reason == "FailedScheduling");
    assert!(told && simulation.settled);
}

#[test]
fn real_applications_manifests_come_up() {
    let folder = std::env::var_os("PARFAIT_SHARED")
        .map(PathBuf::from)
        .unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"));
    let folder = folder.join("manifests");
    if !folder.is_dir() {
        let text = format!(
            "ABSENT: real_applications_manifests_come_up: no manifests at {}; set PARFAIT_SHARED to the folder that has them",
            folder.display()
        );
        writeln!(std::io::stderr(), "{text}").unwrap();
        return;
    }
    let mut seen = 0;
    for file in ["guestbook.yaml", "online-boutique.yaml"] {
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        for nodes in [1, 3, 8] {
            let simulation = run(&text, nodes);
            assert!(simulation.settled, "{file}: {:?}", simulation.notes);
            assert!(!simulation.world.deployments.is_empty());
            for deployment in simulation.world.deployments.values() {
                seen += 1;
                let name = deployment.metadata.name.clone().unwrap();
                let status = deployment.status.clone().unwrap();
                let wanted = deployment.spec.as_ref().unwrap().replicas.unwrap_or(1);
                assert_eq!(
                    status.available_replicas,
                    Some(wanted),
                    "{file}: {name} on {nodes} nodes"
                );
            }
            for ((_, name), service) in &simulation.world.services {
                let spec = service.spec.as_ref().unwrap();
                let behind = simulation.world.endpoint_slices.values().any(|slice| {
                    let of = slice
                        .metadata
                        .labels
                        .as_ref()
                        .unwrap()
                        .get("kubernetes.io/service-name");
                    of == Some(name) && slice.endpoints.as_ref().is_some_and(|e| !e.is_empty())
                });
                assert!(
                    behind || spec.selector.is_none(),
                    "{file}: Service {name} has no endpoints"
                );
            }
        }
    }
    assert!(seen > 20);
}
