//! What runs in a lab: the API server and the controllers in this process, and an agent and a
//! kubelet on each machine.
//!
//! ```text
//!   supervisor ── API server  127.0.0.1:PORT and [::1]:PORT on the host, 192.168.77.1:6443 inside
//!              ├─ controllers
//!              ├─ in node-1: parfait agent, parfait lab-kubelet
//!              └─ in node-2: …
//! ```
//!
//! On SIGTERM the kubelets end first, so that pods get their grace while the network still works;
//! then the agents, then everything else.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use parfait_lab_apiserver::Server;
use parfait_lab_fabric::{
    Child, ChildEvent, Inside, LabDir, LogFile, Machine, Supervised, Underlay, has_learned,
    lab_cgroup_name,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::api::{all, node_ready};
use super::{bird, bootstrap, routes};
use crate::exit::Failure;
use crate::manifest;

/// How long nodes may take to become ready. It takes a second or two; a machine under load gets more.
const NODES_PATIENCE: Duration = Duration::from_secs(60);
/// How long kubelets get for their pods, and agents for themselves, when the lab ends.
const KUBELET_GRACE: Duration = Duration::from_secs(4);
const AGENT_GRACE: Duration = Duration::from_secs(1);

/// `lab-supervise DIR`: becomes a lab. Called before any thread is started.
pub fn supervise(lab: &Path) -> ExitCode {
    // Of limited size, as a lab may live long; standard error leads to the same file.
    match LogFile::open(&lab.join("logs/supervisor.log")) {
        Ok(log) => crate::log::to(Mutex::new(log)),
        Err(_) => crate::log::to(std::io::stderr),
    }
    parfait_lab_fabric::supervise(lab, |inside| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build();
        let runtime = runtime.map_err(|e| format!("cannot start: {e}"))?;
        let done = runtime.block_on(work(inside));
        runtime.shutdown_timeout(Duration::from_secs(1));
        done
    })
}

async fn work(mut inside: Inside) -> Result<(), String> {
    let ended = match run(&mut inside).await {
        Ok(()) => return Ok(()),
        Err(failure) => failure.to_string(),
    };
    // `lab up` may be gone, or may have been told that all is well: the log has it too.
    let _ = inside.events.send(&parfait_lab_fabric::Event::Failed {
        message: ended.clone(),
    });
    Err(ended)
}

async fn run(inside: &mut Inside) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::failed)?;
    let (stop, stopped) = watch::channel(false);
    let server = Server::new(bootstrap::api_server(&inside.spec)).map_err(Failure::failed)?;
    write_kubeconfigs(inside, &server)?;
    let client = Client::new(server.in_process(), "default");
    bootstrap::create(&client, &inside.spec).await?;
    let mut tasks = serve(inside, server, &client, &stopped)?;
    inside
        .events
        .step("the API server answers")
        .map_err(Failure::failed)?;

    let (tell, mut told) = mpsc::unbounded_channel();
    let (stop_kubelets, kubelets_stopped) = watch::channel(false);
    let (stop_agents, agents_stopped) = watch::channel(false);
    let (mut kubelets, mut agents) = (JoinSet::new(), JoinSet::new());
    for machine in &inside.machines {
        prepare(machine)
            .map_err(|e| Failure::failed(format!("cannot prepare {}: {e}", machine.name)))?;
        agents.spawn(
            Supervised::new(agent(&inside.dir, machine), machine)
                .run(agents_stopped.clone(), tell.clone()),
        );
        kubelets.spawn(
            Supervised::new(kubelet(inside, machine), machine)
                .run(kubelets_stopped.clone(), tell.clone()),
        );
    }
    let daemons = routing_daemons(inside, &agents_stopped, &tell, &mut agents)?;
    tokio::select! {
        ready = nodes_ready(inside, &client, &mut told) => ready?,
        _ = terminate.recv() => return Err(Failure::failed("it was told to end before it was ready")),
        ended = tasks.join_next() => return Err(Failure::failed(ending(ended))),
    }
    if daemons {
        learned(inside, &client).await?;
    }
    inside.ready()?;
    let code = loop {
        tokio::select! {
            _ = terminate.recv() => break Ok(()),
            ended = tasks.join_next() => break Err(Failure::failed(ending(ended))),
            Some((name, event)) = told.recv() => report(&name, &event),
        }
    };
    // Whoever waits on these channels has not gone: they are the tasks awaited below.
    let _ = stop_kubelets.send(true);
    while kubelets.join_next().await.is_some() {}
    let _ = stop_agents.send(true);
    while agents.join_next().await.is_some() {}
    let _ = stop.send(true);
    let _ = tokio::time::timeout(Duration::from_secs(1), async {
        while tasks.join_next().await.is_some() {}
    })
    .await;
    code
}

/// The API server on all its sockets, and the controllers.
fn serve(
    inside: &mut Inside,
    server: Server,
    client: &Client,
    stopped: &watch::Receiver<bool>,
) -> Result<JoinSet<String>, Failure> {
    let mut listeners = std::mem::take(&mut inside.listeners);
    for address in bootstrap::advertised(&inside.spec) {
        listeners.push(
            TcpListener::bind(address)
                .map_err(|e| Failure::failed(format!("cannot listen on {address}: {e}")))?,
        );
    }
    let config = bootstrap::controllers(
        inside.spec.ip_family,
        bootstrap::advertised(&inside.spec),
        Some(server.ca_pem().to_owned()),
    );
    let mut tasks = JoinSet::new();
    let stop = until(stopped.clone());
    tasks.spawn(async move {
        let ended = server.serve(listeners, stop).await;
        ended.map_or_else(|e| e.to_string(), |()| "the API server ended".to_owned())
    });
    if matches!(inside.spec.underlay, Underlay::Routed | Underlay::Cloud) {
        let (client, spec) = (client.clone(), inside.spec.clone());
        let stop = until(stopped.clone());
        tasks.spawn(async move {
            tokio::select! {
                why = routes::run(client, spec) => why,
                () = stop => "the router's routes were kept".to_owned(),
            }
        });
    }
    let (client, stop) = (client.clone(), until(stopped.clone()));
    tasks.spawn(async move {
        let ended = parfait_lab_controllers::run(client, config, stop).await;
        ended.map_or_else(|e| e.to_string(), |()| "the controllers ended".to_owned())
    });
    Ok(tasks)
}

/// With `--underlay bgp`: BIRD on every node and on the router. Whether there is any.
fn routing_daemons(
    inside: &Inside,
    stopped: &watch::Receiver<bool>,
    tell: &mpsc::UnboundedSender<(String, ChildEvent)>,
    running: &mut JoinSet<()>,
) -> Result<bool, Failure> {
    if inside.spec.underlay != Underlay::Bgp {
        return Ok(false);
    }
    let ranges = bootstrap::cluster_cidrs(&inside.spec);
    let child = |machine| bird::child(&inside.dir, &inside.spec, machine, &ranges);
    let router = Supervised::at_the_router(child(None)?)?;
    running.spawn(router.run(stopped.clone(), tell.clone()));
    for (number, machine) in (1..).zip(&inside.machines) {
        let daemon = Supervised::new(child(Some(number))?, machine);
        running.spawn(daemon.run(stopped.clone(), tell.clone()));
    }
    Ok(true)
}

/// Waits until every node has learned the way to every other's pods.
async fn learned(inside: &mut Inside, client: &Client) -> Result<(), Failure> {
    let end = Instant::now() + NODES_PATIENCE;
    let nodes: Vec<Node> = all(client).await?;
    let cidrs_of = |node: &Node| -> Vec<IpNet> {
        let cidrs = node
            .spec
            .iter()
            .flat_map(|spec| spec.pod_cidrs.iter().flatten());
        cidrs.filter_map(|cidr| cidr.parse().ok()).collect()
    };
    for machine in &inside.machines {
        let others = nodes
            .iter()
            .filter(|node| node.metadata.name.as_ref() != Some(&machine.name));
        let others: Vec<IpNet> = others.flat_map(cidrs_of).collect();
        while !has_learned(&machine.netns, &others)? {
            if Instant::now() > end {
                let logs = inside.dir.log(&format!("bird-{}", machine.name));
                return Err(Failure::failed(format!(
                    "{} has not learned the ways to all other nodes' pods after {} s; its routing daemon's log: {}",
                    machine.name,
                    NODES_PATIENCE.as_secs(),
                    logs.display()
                )));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let told = inside
        .events
        .step("every node has learned the ways to all pods");
    told.map_err(Failure::failed)
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // A sender that is gone means the same.
    let _ = stopped.wait_for(|stop| *stop).await;
}

fn ending(ended: Option<Result<String, tokio::task::JoinError>>) -> String {
    match ended {
        Some(Ok(why)) => why,
        Some(Err(error)) => error.to_string(),
        None => "nothing runs".to_owned(),
    }
}

fn write_kubeconfigs(inside: &Inside, server: &Server) -> Result<(), Failure> {
    let dir = &inside.dir;
    let name = format!("parfait-{}", dir.name());
    let url = |address: &SocketAddr| format!("https://{address}");
    if let Some(address) = inside.api.first() {
        dir.write(
            &dir.kubeconfig(),
            server.kubeconfig(&url(address), &name).as_bytes(),
        )?;
    }
    if let Some(address) = bootstrap::advertised(&inside.spec).first() {
        dir.write(
            &dir.node_kubeconfig(),
            server.kubeconfig(&url(address), &name).as_bytes(),
        )?;
        let token = server.account_token(manifest::NAMESPACE, manifest::ACCOUNT);
        dir.write(
            &dir.agent_kubeconfig(),
            server
                .kubeconfig_of(&token, &url(address), &name)
                .as_bytes(),
        )?;
    }
    Ok(())
}

/// Directories of a machine's own where `/var/lib/parfait`, `/etc/cni/net.d` and `/opt/cni/bin` are
/// on a real one.
struct Places {
    lib: PathBuf,
    conf: PathBuf,
    bin: PathBuf,
}

impl Places {
    fn of(machine: &Machine) -> Self {
        let dir = &machine.dir;
        Self {
            lib: dir.join("lib"),
            conf: dir.join("cni/net.d"),
            bin: dir.join("cni/bin"),
        }
    }
}

fn prepare(machine: &Machine) -> std::io::Result<()> {
    let places = Places::of(machine);
    for dir in [&places.lib, &places.conf, &places.bin] {
        std::fs::create_dir_all(dir)?;
    }
    Ok(())
}

fn agent(dir: &LabDir, machine: &Machine) -> Child {
    let places = Places::of(machine);
    let flags = [
        ("--kubeconfig", dir.agent_kubeconfig()),
        ("--agent-state-dir", places.lib),
        ("--cni-conf-dir", places.conf),
        ("--cni-bin-dir", places.bin),
    ];
    let mut arguments = vec![
        "agent".into(),
        "--node-name".into(),
        machine.name.clone().into(),
    ];
    arguments.extend(
        flags
            .into_iter()
            .flat_map(|(flag, path)| [flag.into(), path.into_os_string()]),
    );
    Child {
        name: format!("agent of {}", machine.name),
        program: dir.program(),
        arguments,
        log: dir.log(&format!("agent-{}", machine.name)),
        grace: AGENT_GRACE,
    }
}

fn kubelet(inside: &Inside, machine: &Machine) -> Child {
    let (dir, places) = (&inside.dir, Places::of(machine));
    let flags = [
        ("--kubeconfig", dir.node_kubeconfig()),
        ("--kubelet-state-dir", machine.dir.clone()),
        ("--cni-conf-dir", places.conf),
        ("--cni-bin-dir", places.bin),
        // Other labs' credentials too.
        (
            "--hide",
            dir.path().parent().unwrap_or(dir.path()).to_owned(),
        ),
        ("--resolv-conf", machine.dir.join("resolv.conf")),
        (
            "--cgroup",
            PathBuf::from(lab_cgroup_name(dir.path())).join(&machine.name),
        ),
    ];
    let mut arguments = vec![
        "lab-kubelet".into(),
        "--node-name".into(),
        machine.name.clone().into(),
    ];
    arguments.extend(
        flags
            .into_iter()
            .flat_map(|(flag, path)| [flag.into(), path.into_os_string()]),
    );
    for address in machine.addresses.all() {
        arguments.extend(["--node-ip".into(), address.to_string().into()]);
    }
    for address in bootstrap::dns_addresses(&inside.spec) {
        arguments.extend(["--cluster-dns".into(), address.to_string().into()]);
    }
    Child {
        name: format!("kubelet of {}", machine.name),
        program: dir.program(),
        arguments,
        log: dir.log(&format!("kubelet-{}", machine.name)),
        grace: KUBELET_GRACE,
    }
}

/// Waits until every node can take pods, or nobody waits any more.
async fn nodes_ready(
    inside: &mut Inside,
    client: &Client,
    told: &mut mpsc::UnboundedReceiver<(String, ChildEvent)>,
) -> Result<(), Failure> {
    let end = Instant::now() + NODES_PATIENCE;
    let (mut ready, mut warned): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    loop {
        while let Ok((name, event)) = told.try_recv() {
            report(&name, &event);
            if let ChildEvent::NotStarted(error) = &event {
                return Err(Failure::failed(format!("cannot start the {name}: {error}")));
            }
            if let ChildEvent::Ended(status, _) = &event
                && !warned.contains(&name)
            {
                warned.push(name.clone());
                let what = format!("the {name} ended ({status}) and is started again");
                inside
                    .events
                    .send(&parfait_lab_fabric::Event::Warning { what })
                    .map_err(Failure::failed)?;
            }
        }
        let nodes: Vec<Node> = all(client).await?;
        for name in nodes
            .iter()
            .filter(|node| usable(node))
            .filter_map(|node| node.metadata.name.clone())
        {
            if !ready.contains(&name) {
                inside
                    .events
                    .step(format!("{name} is ready"))
                    .map_err(Failure::failed)?;
                ready.push(name);
            }
        }
        if ready.len() == inside.machines.len() {
            return Ok(());
        }
        if inside.events.abandoned() {
            return Err(Failure::failed(
                "`lab up` was interrupted before the lab was ready",
            ));
        }
        if Instant::now() > end {
            return Err(Failure::failed(late(inside, &nodes, &ready)));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Ready, and with addresses for pods.
fn usable(node: &Node) -> bool {
    let cidrs = node.spec.as_ref().and_then(|s| s.pod_cidrs.as_ref());
    node_ready(node) && network_available(node) && cidrs.is_some_and(|cidrs| !cidrs.is_empty())
}

/// What a cloud's route controller says of the node, which it says of every one.
fn network_available(node: &Node) -> bool {
    let conditions = node
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten());
    let mut said = conditions.filter(|c| c.type_ == "NetworkUnavailable");
    said.all(|c| c.status == "False")
}

/// Which nodes are not ready, why, and the last lines of their logs.
fn late(inside: &Inside, nodes: &[Node], ready: &[String]) -> String {
    let mut text = format!(
        "not every node is ready after {} s:",
        NODES_PATIENCE.as_secs()
    );
    for machine in inside
        .machines
        .iter()
        .filter(|machine| !ready.contains(&machine.name))
    {
        let node = nodes
            .iter()
            .find(|node| node.metadata.name.as_deref() == Some(&machine.name));
        let conditions = node.and_then(|n| n.status.as_ref()?.conditions.as_ref());
        let why = conditions.and_then(|c| c.iter().find(|c| c.type_ == "Ready")?.message.clone());
        text += &format!(
            "\n  {}: {}",
            machine.name,
            why.as_deref().unwrap_or("it has not said why")
        );
        for program in ["agent", "kubelet"] {
            let log = inside.dir.log(&format!("{program}-{}", machine.name));
            let last = std::fs::read_to_string(&log).unwrap_or_default();
            if let Some(line) = last.lines().rev().find(|line| !line.trim().is_empty()) {
                text += &format!("\n    {program}: {line}");
            }
        }
    }
    text
}

fn report(name: &str, event: &ChildEvent) {
    match event {
        ChildEvent::Started(pid) => tracing::info!("{name} runs as process {pid}"),
        ChildEvent::NotStarted(error) => tracing::error!("{name} cannot be started: {error}"),
        ChildEvent::Ended(status, pause) => {
            tracing::warn!("{name} ended ({status}), started again in {pause:?}")
        }
    }
}
