//! Load balancers' addresses are written by whoever decided on the Service as it is, once.
//!
//! Two agents may believe for a moment that they hold the Lease, and one may end between a write and what it remembers
//! of it. Neither may undo what the other wrote.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use parfait_cluster::{LoadBalancer, ObjectName, RawLoadBalancerPool, Snapshot, Told};
use parfait_kube::Balancers;
use parfait_lab_apiserver::{Config, Family, Server};
use parfait_transport::pools;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_decide_at_once_one_writes() {
    let client = cluster().await;
    for round in 0..25 {
        let (before, _) = read(&client).await;
        let addresses: Vec<IpAddr> = (0..4).map(|n| ip(round * 4 + n)).collect();
        let writes = addresses.iter().map(|address| {
            let (client, before, address) = (client.clone(), before.clone(), *address);
            tokio::spawn(async move { write(&client, &before, address).await })
        });
        let mut written = Vec::new();
        for (task, address) in writes.collect::<Vec<_>>().into_iter().zip(&addresses) {
            if task.await.unwrap() {
                written.push(*address);
            }
        }
        let held = read(&client).await.0.held;
        assert_eq!(written, held, "round {round}: who wrote, and what is there");
        assert_eq!(held.len(), 1);
    }
}

#[tokio::test]
async fn what_was_decided_on_something_else_is_not_written() {
    let client = cluster().await;
    let (before, _) = read(&client).await;
    let wish = json!({"metadata": {"annotations": {LoadBalancer::WISHES: "192.0.2.9"}}});
    let (params, patch) = (PatchParams::default(), Patch::Merge(wish));
    api(&client).patch("web", &params, &patch).await.unwrap();
    assert!(!write(&client, &before, ip(1)).await, "it has a wish now");
    assert_eq!(read(&client).await.0.held, Vec::<IpAddr>::new());
    let (now, _) = read(&client).await;
    api(&client)
        .delete("web", &DeleteParams::default())
        .await
        .unwrap();
    assert!(!write(&client, &now, ip(1)).await, "it is gone");
}

/// A writer that ends between a write and what comes after it has left nothing half done: the next one finds the decision
/// carried out.
#[tokio::test]
async fn who_comes_after_a_crash_has_nothing_to_do() {
    let client = cluster().await;
    let (before, snapshot) = read(&client).await;
    let decisions = pools::allocate(&snapshot);
    let [decision] = &decisions[..] else {
        panic!("{decisions:?}");
    };
    let balancers = Balancers::new(&client, "node-1");
    let told = decision.told.as_ref();
    let written = balancers.write(&decision.service, &before, &decision.addresses, told);
    assert!(written.await.unwrap());
    let (now, snapshot) = read(&client).await;
    let again = pools::allocate(&snapshot);
    assert_eq!(&again, &decisions);
    assert!(again[0].is_done(&now), "{now:?}");
}

async fn write(client: &Client, before: &LoadBalancer, address: IpAddr) -> bool {
    let told = Told {
        satisfied: true,
        reason: "Allocated".to_owned(),
        message: format!("{address} from LoadBalancerPool office"),
    };
    let balancers = Balancers::new(client, "node-1");
    let written = balancers
        .write(&web(), before, &[address], Some(&told))
        .await;
    written.unwrap()
}

fn ip(n: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, n])
}

fn web() -> ObjectName {
    ObjectName::new("default", "web")
}

fn api(client: &Client) -> Api<Service> {
    Api::namespaced(client.clone(), "default")
}

/// What the Service asks for and has, and the cluster.
async fn read(client: &Client) -> (LoadBalancer, Snapshot) {
    let (snapshot, _) = parfait_kube::read(client).await.unwrap();
    let balancer = snapshot.services[&web()].outside.load_balancer.clone();
    (*balancer.unwrap(), snapshot)
}

/// A Service of type LoadBalancer, and a pool.
async fn cluster() -> Client {
    let server = Server::new(Config {
        families: vec![Family::Ipv4],
        service_cidr_v4: Some("10.96.0.0/16".parse().unwrap()),
        ..Config::default()
    });
    let client = Client::new(server.unwrap().in_process(), "default");
    let create = PostParams::default();
    let definition = include_str!("../../../examples/load-balancer/crd.yaml");
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    let definition = serde_saphyr::from_str(definition).unwrap();
    definitions.create(&create, &definition).await.unwrap();
    let pool = json!({
        "apiVersion": "parfait.dev/v1alpha1", "kind": "LoadBalancerPool", "metadata": {"name": "office"},
        "spec": {"addresses": ["192.0.2.0/24"]},
    });
    let pool: RawLoadBalancerPool = serde_json::from_value(pool).unwrap();
    let pools = Api::<RawLoadBalancerPool>::all(client.clone());
    pools.create(&create, &pool).await.unwrap();
    let service = json!({
        "metadata": {"name": "web"},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
    });
    let service = serde_json::from_value(service).unwrap();
    api(&client).create(&create, &service).await.unwrap();
    client
}
