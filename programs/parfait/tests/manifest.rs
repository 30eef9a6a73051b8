//! `parfait manifest`: what it prints is what a cluster takes, and least privilege: every request to the API server that
//! the agent's code makes is allowed by its rules, and no rule allows what none of them needs.
//!
//! The API server is a lab's, which asks RBAC as Kubernetes does. That a whole agent can work with these rights is what
//! every lab shows: its agents have no others.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use k8s_openapi::api::rbac::v1::PolicyRule;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, PostParams};
use parfait_cluster::{Key, LoadBalancer, Note, ObjectName, Snapshot, Told, Underlay};
use parfait_kube::{Balancers, Events, Feed, Lease, rights};
use parfait_lab_apiserver::{Config, Family, Right, Server};
use parfait_packet::{Kind, Origin};

/// Long enough for what should happen.
const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_may_do_what_it_does_and_nothing_else() {
    let (server, url) = serve();
    prepare(&Client::new(server.in_process(), "default")).await;
    let dir = tempfile::tempdir().unwrap();
    let token = server.account_token("kube-system", "parfait");
    let file = dir.path().join("kubeconfig");
    std::fs::write(&file, server.kubeconfig_of(&token, &url, "agent")).unwrap();

    let client = parfait_kube::client(Some(&file)).await.unwrap();
    let feed = ask_everything(&client).await;

    let all = rights::everywhere().into_iter();
    let all = all.chain(rights::in_kube_system());
    let granted: BTreeSet<Right> = all.flat_map(|rule| each(&rule)).collect();
    // The feed goes on to watch what it has listed.
    let end = Instant::now() + SOON;
    while server.used_rights() != granted && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(feed);
    let used = server.used_rights();
    assert_eq!(used, granted, "left: needed, right: granted");
}

/// kubectl checks names, types and unknown fields with the server, and finds nothing to change the second time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_takes_what_is_printed() {
    let dir = tempfile::tempdir().unwrap();
    let (server, url) = serve();
    let file = dir.path().join("kubeconfig");
    std::fs::write(&file, server.kubeconfig(&url, "admin")).unwrap();
    let manifest = dir.path().join("parfait.yaml");
    let printed = printed(&["--take-over", "kube-proxy"]);
    std::fs::write(&manifest, &printed).unwrap();
    let apply = |more: &[&str]| {
        let mut kubectl = Command::new("kubectl");
        kubectl.env("KUBECONFIG", &file).env("HOME", dir.path());
        kubectl.args(["apply", "--validate=strict", "-f"]);
        kubectl.arg(&manifest).args(more).output()
    };
    let Ok(dry) = apply(&["--dry-run=server"]) else {
        writeln!(
            std::io::stderr(),
            "SKIP: a_cluster_takes_what_is_printed: no kubectl"
        )
        .unwrap();
        return;
    };
    let objects = printed.split("\n---\n").count();
    for (answer, word) in [
        (dry, "created (server dry run)"),
        (apply(&[]).unwrap(), "created"),
        (apply(&[]).unwrap(), "unchanged"),
    ] {
        let (out, err) = (&answer.stdout, &answer.stderr);
        let (out, err) = (String::from_utf8_lossy(out), String::from_utf8_lossy(err));
        assert!(answer.status.success() && err.is_empty(), "{out}{err}");
        assert_eq!(
            out.lines().filter(|line| line.ends_with(word)).count(),
            objects,
            "{out}"
        );
    }
}

#[test]
fn a_configuration_that_agents_would_refuse_is_not_printed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.yaml");
    for (text, said) in [
        ("routing: bgp\nclusterCIDRs: [10.244.0.0/16]\n", None),
        ("rooting: bgp\n", Some("unknown field `rooting`")),
        (
            "clusterCIDRs: [10.0.0.0/8]\nserviceCIDRs: [10.96.0.0/16]\n",
            Some("overlap"),
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        let answer = parfait(&["--config", file.to_str().unwrap()]);
        let code = if said.is_none() { 0 } else { 2 };
        assert_eq!(answer.status.code(), Some(code), "{answer:?}");
        let (out, err) = (&answer.stdout, &answer.stderr);
        let (out, err) = (String::from_utf8_lossy(out), String::from_utf8_lossy(err));
        match said {
            None => assert!(out.contains("    routing: bgp\n    clusterCIDRs:"), "{out}"),
            Some(said) => assert!(out.is_empty() && err.contains(said), "{err}"),
        }
    }
}

fn parfait(more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_parfait"))
        .args(["manifest", "--image", "parfait"])
        .args(["--api-server", "192.0.2.10:6443"])
        .args(more)
        .output()
        .unwrap()
}

fn printed(more: &[&str]) -> String {
    let answer = parfait(more);
    assert!(answer.status.success(), "{answer:?}");
    String::from_utf8(answer.stdout).unwrap()
}

/// An API server on loopback, and where.
fn serve() -> (Server, String) {
    let server = Server::new(Config {
        families: vec![Family::Ipv4],
        service_cidr_v4: Some("10.96.0.0/16".parse().unwrap()),
        ..Config::default()
    });
    let server = server.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let serving = server.clone();
    tokio::spawn(async move { serving.serve(vec![listener], std::future::pending()).await });
    (server, url)
}

/// Everything that the agent's code asks of the API server.
async fn ask_everything(client: &Client) -> Feed {
    let mut snapshot = Snapshot::default();
    let mut feed = Feed::start(client);
    let listed = tokio::time::timeout(SOON, feed.next(&mut snapshot)).await;
    listed
        .expect("every kind may be listed")
        .expect("the watches last");
    let text = r#"{"interface": "eth0", "mtu": 1500, "addresses": ["192.0.2.1/24"]}"#;
    let underlay: Underlay = serde_json::from_str(text).unwrap();
    parfait_kube::report_underlay(client, "node-1", &underlay)
        .await
        .unwrap();

    let mut lease = Lease::new(client, Lease::LOAD_BALANCER, "node-1");
    lease.renew().await.unwrap();
    lease.renew().await.unwrap();
    assert!(lease.is_held());

    let events = Events::new(client, "node-1");
    for (kind, namespace) in [
        (Kind::Service, "default"),
        (Kind::EndpointSlice, "default"),
        (Kind::NetworkPolicy, "default"),
        (Kind::ClusterNetworkPolicy, ""),
        (Kind::LoadBalancerPool, ""),
    ] {
        let note = Note::new(
            Origin::new(kind, namespace, "web"),
            "it is not used".to_owned(),
        );
        // The second is the first one, said again.
        events.warn(&note).await.unwrap();
        events.warn(&note).await.unwrap();
    }

    for key in [
        Key::ClusterNetworkPolicy("web".to_owned()),
        Key::NodeNetworkPolicy("web".to_owned()),
    ] {
        parfait_kube::accept(client, &key).await.unwrap();
    }

    let balancers = Balancers::new(client, "node-1");
    let name = ObjectName::new("default", "web");
    let before: LoadBalancer = *snapshot.services[&name]
        .outside
        .load_balancer
        .clone()
        .unwrap();
    let told = Told {
        satisfied: true,
        reason: "Allocated".to_owned(),
        message: "192.0.2.1 from LoadBalancerPool office".to_owned(),
    };
    let address = "192.0.2.1".parse().unwrap();
    let written = balancers
        .write(&name, &before, &[address], Some(&told))
        .await;
    assert!(written.unwrap(), "the Service is as it was");
    feed
}

/// What `parfait manifest` prints, and one object of each kind that an Event can be about.
async fn prepare(client: &Client) {
    let printed = printed(&[]);
    for text in [printed.as_str(), OBJECTS] {
        let objects = serde_saphyr::from_multiple::<DynamicObject>(text);
        for object in objects.unwrap() {
            create(client, object).await;
        }
    }
}

async fn create(client: &Client, object: DynamicObject) {
    let kind = GroupVersionKind::try_from(object.types.as_ref().unwrap()).unwrap();
    let resource = ApiResource::from_gvk(&kind);
    let api: Api<DynamicObject> = match &object.metadata.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let what = format!("{} {:?}", kind.kind, object.metadata.name);
    let created = api.create(&PostParams::default(), &object).await;
    created.unwrap_or_else(|error| panic!("{what}: {error}"));
}

const OBJECTS: &str = r"
apiVersion: v1
kind: Node
metadata: {name: node-1}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {type: LoadBalancer, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web, namespace: default}
addressType: IPv4
endpoints: []
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: default}
spec: {podSelector: {}}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: web}
spec:
  tier: Admin
  priority: 1
  subject: {namespaces: {}}
---
apiVersion: parfait.dev/v1alpha1
kind: NodeNetworkPolicy
metadata: {name: web}
spec: {priority: 1, ingress: [{action: Accept, from: [{networks: [192.0.2.0/24]}]}]}
---
apiVersion: parfait.dev/v1alpha1
kind: LoadBalancerPool
metadata: {name: web}
spec: {addresses: [192.0.2.1]}
";

/// What one rule allows, verb by verb.
fn each(rule: &PolicyRule) -> Vec<Right> {
    let one = |list: &Option<Vec<String>>| match list.as_deref() {
        Some([one]) => one.clone(),
        other => panic!("{other:?} is not one"),
    };
    let right = |verb: &String| Right {
        verb: verb.clone(),
        group: one(&rule.api_groups),
        resource: one(&rule.resources),
        names: rule.resource_names.clone().unwrap_or_default(),
    };
    rule.verbs.iter().map(right).collect()
}
