//! `parfait explain`: a packet's way, in a running lab, on any cluster, or in a folder of YAML.
//!
//! Only where the picture of the cluster comes from is decided here; walking the packet is
//! `programs/inspect`'s.

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Client;
use parfait_cluster::{
    Note, Parsed, RawClusterNetworkPolicy, RawLoadBalancerPool, RawNodeNetworkPolicy, Snapshot,
    parse,
};
use parfait_inspect::{Answer, Detail, Memory, OnPaper, Question as Asked, Size, render};
use parfait_lab_apiserver::Server;
use parfait_lab_controllers as controllers;
use parfait_lab_fabric::{Condition, IpFamily, LabName, LabSpec, Routing, StateRoot};
use parfait_transport::pools;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::args::{Explain, Family, Output, Picture, Protocol};
use crate::exit::Failure;
use crate::lab::api::{self, Running};
use crate::lab::{apply, bootstrap, manifest};
use crate::memory::{OfLab, OfMachine};
use crate::output::say;

/// A question that `lab check` asks about a failure.
#[derive(Clone, Debug)]
pub struct Question {
    /// `pod/NAME.NAMESPACE` or `node/NAME`.
    pub from: String,
    /// A name or an address.
    pub to: String,
    pub port: u16,
    pub udp: bool,
}

/// The subcommand; its exit code is the verdict's.
pub async fn run(root: &StateRoot, args: &Explain) -> Result<u8, Failure> {
    let (snapshot, mut notes, source) = snapshot(root, &args.picture).await?;
    let from = pod_of(
        &args.from,
        &snapshot,
        args.namespace.as_deref().unwrap_or("default"),
        &mut notes,
    );
    let to = pod_of(
        &args.to,
        &snapshot,
        args.namespace.as_deref().unwrap_or("default"),
        &mut notes,
    );
    let asked = Asked {
        from: from.parse().map_err(Failure::usage)?,
        to: to.parse().map_err(Failure::usage)?,
        port: args.port,
        protocol: args.protocol.map(protocol),
        family: args.ip_family.map(family),
        source_port: args.source_port,
        namespace: args.namespace.clone(),
        size: args.length.map(|bytes| Size {
            bytes,
            whole: args.df,
        }),
    };
    let memory: &dyn Memory = match source {
        Source::Folder => &OnPaper,
        Source::Lab => &OfLab {
            root,
            name: &args.picture.which.name,
        },
        Source::Cluster => &OfMachine {
            snapshot: &snapshot,
        },
    };
    let mut answer =
        parfait_inspect::explain_with(&snapshot, &asked, memory).map_err(Failure::usage)?;
    answer.notes.extend(notes);
    print(args, &answer)?;
    Ok(answer.exit_code())
}

/// Answers a question about a running lab: the text, and whether the packet should be delivered.
pub async fn of_running(lab: &Running, question: &Question) -> Result<(String, bool), Failure> {
    let (snapshot, _) = parfait_kube::read(&lab.client().await?)
        .await
        .map_err(Failure::failed)?;
    let asked = Asked {
        from: question.from.parse().map_err(Failure::usage)?,
        to: question.to.parse().map_err(Failure::usage)?,
        port: Some(question.port),
        protocol: Some(if question.udp {
            parfait_packet::Protocol::Udp
        } else {
            parfait_packet::Protocol::Tcp
        }),
        family: None,
        source_port: None,
        namespace: None,
        size: None,
    };
    let answer = parfait_inspect::explain(&snapshot, &asked).map_err(Failure::failed)?;
    let delivered = matches!(answer.verdict, parfait_packet::Verdict::Delivered);
    Ok((render(&answer, Detail::Normal), delivered))
}

fn print(args: &Explain, answer: &Answer) -> Result<(), Failure> {
    let detail = match (args.short, args.full) {
        (true, _) => Detail::Short,
        (_, true) => Detail::Full,
        _ => Detail::Normal,
    };
    match args.output {
        Output::Json => say!(
            "{}",
            serde_json::to_string_pretty(answer).map_err(Failure::failed)?
        ),
        Output::Text => say!("{}", render(answer, detail).trim_end()),
    }
    Ok(())
}

/// `deploy/web` stands for its first pod, as nobody types generated names; everything else for
/// itself. Pods are told by their names: NAME-HASH-SUFFIX, NAME-NUMBER, NAME-SUFFIX.
pub fn pod_of(text: &str, snapshot: &Snapshot, namespace: &str, notes: &mut Vec<String>) -> String {
    let Some((kind, target)) = text.split_once('/') else {
        return text.to_owned();
    };
    let parts = match kind {
        "deploy" | "deployment" | "deployments" => 2,
        "sts" | "statefulset" | "statefulsets" | "ds" | "daemonset" | "daemonsets" | "rs"
        | "replicaset" => 1,
        _ => return text.to_owned(),
    };
    let (target, port) = match target.split_once(':') {
        Some((target, port)) => (target, format!(":{port}")),
        None => (target, String::new()),
    };
    let (name, namespace) = target.split_once('.').unwrap_or((target, namespace));
    let is_its = |pod: &str| {
        let rest = pod
            .strip_prefix(name)
            .and_then(|rest| rest.strip_prefix('-'));
        rest.is_some_and(|rest| !rest.is_empty() && rest.split('-').count() == parts)
    };
    match snapshot
        .pods
        .keys()
        .find(|pod| pod.namespace == namespace && is_its(&pod.name))
    {
        Some(pod) => {
            notes.push(format!("{text} stands for its first pod, {}", pod.name));
            format!("pod/{}.{}{port}", pod.name, pod.namespace)
        }
        // The answer will say that there is no such pod, and which is nearest.
        None => format!("pod/{name}.{namespace}{port}"),
    }
}

const fn protocol(protocol: Protocol) -> parfait_packet::Protocol {
    match protocol {
        Protocol::Tcp => parfait_packet::Protocol::Tcp,
        Protocol::Udp => parfait_packet::Protocol::Udp,
        Protocol::Sctp => parfait_packet::Protocol::Sctp,
        Protocol::Icmp => parfait_packet::Protocol::Icmp,
    }
}

pub const fn family(family: Family) -> parfait_packet::Family {
    match family {
        Family::Ipv4 => parfait_packet::Family::Ipv4,
        Family::Ipv6 => parfait_packet::Family::Ipv6,
    }
}

/// Where the picture of a cluster comes from, and so whose kernels can be asked.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    Folder,
    Lab,
    Cluster,
}

/// The picture of the cluster that the arguments mean, with what should be said about it.
pub async fn snapshot(
    root: &StateRoot,
    args: &Picture,
) -> Result<(Snapshot, Vec<String>, Source), Failure> {
    if !args.filename.is_empty() {
        let (snapshot, notes) = folder(args).await?;
        return Ok((snapshot, notes, Source::Folder));
    }
    let (client, source) = match &args.kubeconfig {
        Some(path) => (api::client(path).await?, Source::Cluster),
        None => match root.lab(&args.which.name).observe()? {
            Condition::Running(_) => {
                let lab = api::running(root, &args.which.name)?;
                (lab.client().await?, Source::Lab)
            }
            // No lab: whatever kubectl would talk to.
            _ => (parfait_kube::client(None).await.map_err(|e| {
                Failure::failed(format!("no lab {} runs, and {e}\n  do:  `parfait lab up`, --kubeconfig FILE, or -f DIR for manifests alone", args.which.name))
            })?, Source::Cluster),
        },
    };
    let (snapshot, skipped) = parfait_kube::read(&client).await.map_err(Failure::failed)?;
    let notes = skipped
        .iter()
        .map(|s| format!("{} could not be read: {}", s.kind, s.why))
        .collect();
    Ok((snapshot, notes, source))
}

/// The cluster that the controllers would make of a folder, in a lab with the defaults. What its API
/// server would refuse is left out, and said.
async fn folder(args: &Picture) -> Result<(Snapshot, Vec<String>), Failure> {
    let manifests = manifest::read(&args.filename).map_err(|faults| {
        let lines: Vec<_> = faults.iter().map(ToString::to_string).collect();
        Failure::usage(lines.join("\nparfait: "))
    })?;
    let spec = LabSpec {
        name: LabName::default(),
        nodes: args.nodes,
        ip_family: IpFamily::Dual,
        routing: Routing::Auto,
        underlay: parfait_lab_fabric::Underlay::Flat,
        mtu: 1500,
    };
    let mut accepted = vec![bootstrap::config_map(&spec), bootstrap::dns_service(&spec)];
    let refused = accept(&spec, &manifests, &mut accepted).await?;
    let rest = Rest::among(&accepted)?;
    let objects = accepted.into_iter().map(controllers::Object::parse);
    let objects = objects.collect::<Result<_, _>>().map_err(Failure::usage)?;
    let config = bootstrap::controllers(spec.ip_family, Vec::new(), None);
    let simulation = controllers::simulate(objects, &config, args.nodes.into());
    let mut snapshot = Snapshot::default();
    let unread = read(&simulation.world, &rest, &mut snapshot);
    give_addresses(&mut snapshot);
    let mut notes = vec![
        "no cluster: pods are placed as the lab would, and every pod is taken to be ready"
            .to_owned(),
    ];
    let left_out =
        |fault: &manifest::Fault| format!("left out, as the API server would refuse it: {fault}");
    notes.extend(refused.iter().map(left_out));
    notes.extend(simulation.notes);
    let faults = pools::faults(&snapshot);
    notes.extend(unread.iter().chain(&faults).map(ToString::to_string));
    Ok((snapshot, notes))
}

/// Asks an API server in memory, so that the same is accepted as in a lab, with the same words.
async fn accept(
    spec: &LabSpec,
    manifests: &[manifest::Manifest],
    accepted: &mut Vec<Value>,
) -> Result<Vec<manifest::Fault>, Failure> {
    let server = Server::new(bootstrap::api_server(spec)).map_err(Failure::failed)?;
    let client = Client::new(server.in_process(), "default");
    bootstrap::create(&client, spec).await?;
    apply::apply(&client, manifests, |manifest, _| {
        accepted.push(manifest.object.clone())
    })
    .await
}

/// The objects that no controller knows.
struct Rest {
    own: Vec<NetworkPolicy>,
    cluster: Vec<RawClusterNetworkPolicy>,
    node: Vec<RawNodeNetworkPolicy>,
    pools: Vec<RawLoadBalancerPool>,
}

impl Rest {
    fn among(objects: &[Value]) -> Result<Self, Failure> {
        Ok(Self {
            own: of_kind("NetworkPolicy", objects)?,
            cluster: of_kind("ClusterNetworkPolicy", objects)?,
            node: of_kind("NodeNetworkPolicy", objects)?,
            pools: of_kind("LoadBalancerPool", objects)?,
        })
    }
}

fn of_kind<T: DeserializeOwned>(kind: &str, objects: &[Value]) -> Result<Vec<T>, Failure> {
    let objects = objects.iter().filter(|object| object["kind"] == kind);
    let read = objects.map(|object| serde_json::from_value(object.clone()));
    read.collect::<Result<_, _>>().map_err(Failure::usage)
}

/// Takes over what a cluster would hold; says of what cannot be read at all why.
fn read(world: &controllers::World, rest: &Rest, snapshot: &mut Snapshot) -> Vec<Note> {
    let mut unread = Vec::new();
    let mut take = |object: Parsed<'_>| {
        let (object, notes) = parse(object, &parfait_kube::config_yaml);
        match object {
            Some(object) => drop(snapshot.take(object.key(), Some(object), notes)),
            None => unread.extend(notes),
        }
    };
    world
        .config_maps
        .values()
        .map(Parsed::ConfigMap)
        .for_each(&mut take);
    world
        .namespaces
        .values()
        .map(Parsed::Namespace)
        .for_each(&mut take);
    world.nodes.values().map(Parsed::Node).for_each(&mut take);
    world.pods.values().map(Parsed::Pod).for_each(&mut take);
    world
        .services
        .values()
        .map(Parsed::Service)
        .for_each(&mut take);
    world
        .endpoint_slices
        .values()
        .map(Parsed::EndpointSlice)
        .for_each(&mut take);
    let Rest {
        own,
        cluster,
        node,
        pools,
    } = rest;
    own.iter().map(Parsed::NetworkPolicy).for_each(&mut take);
    let cluster = cluster.iter().map(Parsed::ClusterNetworkPolicy);
    cluster.for_each(&mut take);
    let node = node.iter().map(Parsed::NodeNetworkPolicy);
    node.for_each(&mut take);
    let pools = pools.iter().map(Parsed::LoadBalancerPool);
    pools.for_each(&mut take);
    unread
}

/// What agents would write into Services' status.
fn give_addresses(snapshot: &mut Snapshot) {
    for decision in pools::allocate(snapshot) {
        let service = snapshot.services.get_mut(&decision.service);
        let Some(outside) = service.map(|service| &mut service.outside) else {
            continue;
        };
        outside.load_balancer_ips.clone_from(&decision.addresses);
        if let Some(balancer) = &mut outside.load_balancer {
            balancer.held = decision.addresses;
            balancer.told = decision.told;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_stands_for_its_first_pod() {
        let mut snapshot = Snapshot::default();
        for name in ["web-api-6f-b", "web-6f-a", "web-0"] {
            let pod: k8s_openapi::api::core::v1::Pod = serde_json::from_value(
                serde_json::json!({"metadata": {"name": name, "namespace": "default"}}),
            )
            .unwrap();
            let (object, _) = parse(Parsed::Pod(&pod), &parfait_kube::config_yaml);
            snapshot.insert(object.unwrap());
        }
        let mut notes = Vec::new();
        let mut of = |text: &str| pod_of(text, &snapshot, "default", &mut notes);
        assert_eq!(of("deploy/web"), "pod/web-6f-a.default");
        assert_eq!(of("deploy/web-api"), "pod/web-api-6f-b.default");
        assert_eq!(of("sts/web"), "pod/web-0.default");
        assert_eq!(of("sts/web:80"), "pod/web-0.default:80");
        assert_eq!(of("deploy/none.shop"), "pod/none.shop");
        assert_eq!(of("svc/web:80"), "svc/web:80");
        assert_eq!(notes.len(), 4);
    }
}
