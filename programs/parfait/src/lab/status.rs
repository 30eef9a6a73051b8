//! `parfait lab status`: what runs, where it answers, where its logs are.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::Client;
use parfait_lab_fabric::{IpFamily, LabName, Routing, StateRoot, Underlay};
use serde::Serialize;

use super::api::{self, Running, all, node_ready, pod_phase, pod_ready, short_name};
use super::columns::Columns;
use super::list::age;
use crate::args::{Output, Status};
use crate::exit::{DONE, FAILED, Failure};
use crate::output::{counted, say};

#[derive(Serialize)]
struct View {
    name: LabName,
    version: String,
    started: u64,
    api: Vec<SocketAddr>,
    ip_family: IpFamily,
    routing: Routing,
    underlay: Underlay,
    rootless: bool,
    pid: i32,
    kubeconfig: PathBuf,
    logs: Vec<PathBuf>,
    nodes: Vec<NodeView>,
    pods: BTreeMap<String, usize>,
    pods_ready: usize,
    services: Vec<ServiceView>,
}

#[derive(Serialize)]
struct NodeView {
    name: String,
    ready: bool,
    addresses: Vec<String>,
    pod_cidrs: Vec<String>,
    pods: usize,
}

#[derive(Serialize)]
struct ServiceView {
    name: String,
    addresses: Vec<String>,
    ports: Vec<String>,
}

/// Exit code 1 when a node is not ready.
pub async fn run(root: &StateRoot, args: &Status) -> Result<u8, Failure> {
    let lab = api::running(root, &args.which.name)?;
    let view = View::of(&lab, &lab.client().await?).await?;
    match args.output {
        Output::Json => say!(
            "{}",
            serde_json::to_string_pretty(&view).map_err(Failure::failed)?
        ),
        Output::Text => view.print(),
    }
    let whole = view.nodes.len() == usize::from(lab.record.spec.nodes)
        && view.nodes.iter().all(|node| node.ready);
    Ok(if whole { DONE } else { FAILED })
}

/// Prints what runs, for people.
pub async fn print(lab: &Running, client: &Client) -> Result<(), Failure> {
    View::of(lab, client).await.map(|view| view.print())
}

fn node_view(node: &Node, pods: &[Pod]) -> NodeView {
    let name = node.metadata.name.clone().unwrap_or_default();
    let here = |pod: &&Pod| pod.spec.as_ref().and_then(|s| s.node_name.as_ref()) == Some(&name);
    let addresses = node
        .status
        .iter()
        .flat_map(|s| s.addresses.iter().flatten());
    NodeView {
        ready: node_ready(node),
        addresses: addresses
            .filter(|a| a.type_ == "InternalIP")
            .map(|a| a.address.clone())
            .collect(),
        pod_cidrs: node
            .spec
            .as_ref()
            .and_then(|s| s.pod_cidrs.clone())
            .unwrap_or_default(),
        pods: pods.iter().filter(here).count(),
        name,
    }
}

fn service_view(service: &Service) -> ServiceView {
    let spec = service.spec.clone().unwrap_or_default();
    let namespace = service.metadata.namespace.as_deref().unwrap_or("default");
    let port = |p: &k8s_openapi::api::core::v1::ServicePort| {
        format!("{}/{}", p.port, p.protocol.as_deref().unwrap_or("TCP"))
    };
    ServiceView {
        name: short_name(
            service.metadata.name.as_deref().unwrap_or_default(),
            namespace,
        ),
        addresses: spec.cluster_ips.unwrap_or_default(),
        ports: spec.ports.iter().flatten().map(port).collect(),
    }
}

impl View {
    async fn of(lab: &Running, client: &Client) -> Result<Self, Failure> {
        let nodes: Vec<Node> = all(client).await?;
        let pods: Vec<Pod> = all(client).await?;
        let services: Vec<Service> = all(client).await?;
        let mut phases = BTreeMap::new();
        for pod in &pods {
            *phases.entry(pod_phase(pod).to_owned()).or_insert(0) += 1;
        }
        let record = &lab.record;
        let of_node =
            |node: String| ["agent", "kubelet"].map(|p| lab.dir.log(&format!("{p}-{node}")));
        let of_nodes = record.spec.node_names().flat_map(of_node);
        Ok(Self {
            name: lab.dir.name().clone(),
            version: record.version.clone(),
            started: record.started,
            api: record.api.clone(),
            ip_family: record.spec.ip_family,
            routing: record.spec.routing,
            underlay: record.spec.underlay,
            rootless: record.rootless,
            pid: record.init.pid,
            kubeconfig: lab.dir.kubeconfig(),
            logs: std::iter::once(lab.dir.log("supervisor"))
                .chain(of_nodes)
                .collect(),
            nodes: nodes.iter().map(|node| node_view(node, &pods)).collect(),
            pods: phases,
            pods_ready: pods.iter().filter(|pod| pod_ready(pod)).count(),
            services: services.iter().map(service_view).collect(),
        })
    }

    fn print(&self) {
        let rootless = if self.rootless { ", rootless" } else { "" };
        let underlay = match self.underlay {
            Underlay::Flat => String::new(),
            underlay => format!(", underlay {underlay}"),
        };
        say!(
            "lab {}: {}, {}, routing {}{underlay}{rootless}, up {}",
            self.name,
            counted(self.nodes.len(), "node", "nodes"),
            self.ip_family,
            self.routing,
            age(self.started)
        );
        let api: Vec<_> = self.api.iter().map(|a| format!("https://{a}")).collect();
        say!("API server  {}", api.join("  "));
        say!("kubeconfig  {}", self.kubeconfig.display());
        if let Some(dir) = self.logs.first().and_then(|log| log.parent()) {
            say!("logs        {}/*.log", dir.display());
        }
        let mut table = Columns::new(["NODE", "READY", "ADDRESSES", "POD CIDRS", "PODS"]);
        for node in &self.nodes {
            let ready = if node.ready { "yes" } else { "NO" };
            let pods = node.pods.to_string();
            table.row([
                &node.name,
                ready,
                &node.addresses.join(" "),
                &node.pod_cidrs.join(" "),
                &pods,
            ]);
        }
        say!("\n{table}");
        let phases: Vec<_> = self
            .pods
            .iter()
            .map(|(phase, n)| format!("{n} {phase}"))
            .collect();
        let phases = if phases.is_empty() {
            "none".to_owned()
        } else {
            format!("{} ({} ready)", phases.join(", "), self.pods_ready)
        };
        say!("\npods: {phases}");
        let mut services = Columns::new(["SERVICE", "ADDRESSES", "PORTS"]);
        for service in &self.services {
            services.row([
                &service.name,
                &service.addresses.join(" "),
                &service.ports.join(" "),
            ]);
        }
        say!("\n{services}");
    }
}
