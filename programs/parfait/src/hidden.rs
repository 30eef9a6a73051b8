//! What the program is when it is not people who call it.
//!
//! | called as | is |
//! |---|---|
//! | anything, with `CNI_COMMAND` set and no arguments, or `parfait cni` | the CNI plugin |
//! | `grpc_health_probe …` | the gRPC health probe |
//! | `parfait lab-supervise DIR` | a lab ([`lab::supervise`]) |
//! | `parfait lab-kubelet …` | a node's kubelet |
//! | `parfait lab-container` | PID 1 of a container |
//! | `parfait lab-connect STATE NAME TARGET` | `lab check`'s hands in a pod's network |
//! | `parfait lab-memory STATE NAME TARGET QUESTION` | `explain`'s eyes in a node's network |
//! | `parfait image NAME …` | a built-in program of a container |

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use crate::exit::Failure;
use crate::lab;

/// Runs what is meant, unless it is the command line.
pub fn dispatch() -> Option<ExitCode> {
    let arguments: Vec<String> = std::env::args_os()
        .map(|a| a.to_string_lossy().into_owned())
        .collect();
    let (program, rest) = arguments.split_first()?;
    let plugin = rest.is_empty() && std::env::var_os("CNI_COMMAND").is_some();
    if plugin || rest == ["cni"] {
        return Some(parfait_cni::process());
    }
    if let Some(applet) = parfait_lab_images::applet(program) {
        return Some(applet(rest.to_vec()));
    }
    let (command, rest) = rest.split_first()?;
    let code =
        |done: Result<u8, Failure>| done.map_or_else(|failure| failure.report(), ExitCode::from);
    match (command.as_str(), rest) {
        ("lab-supervise", [dir]) => Some(lab::supervise(Path::new(dir))),
        ("lab-kubelet", rest) => Some(code(kubelet(rest))),
        ("lab-container", _) => Some(parfait_lab_kubelet::container_main()),
        ("lab-connect", rest) => Some(code(lab::connect(rest))),
        ("lab-memory", rest) => Some(code(crate::memory::in_lab(rest))),
        ("image", rest) => Some(parfait_lab_images::main(rest.to_vec())),
        _ => None,
    }
}

/// What the supervisor tells a kubelet.
#[derive(Debug, Parser)]
#[command(name = "parfait lab-kubelet")]
struct Kubelet {
    #[arg(long)]
    node_name: String,
    #[arg(long)]
    node_ip: Vec<IpAddr>,
    #[arg(long)]
    kubeconfig: PathBuf,
    #[arg(long)]
    kubelet_state_dir: PathBuf,
    #[arg(long)]
    cni_conf_dir: PathBuf,
    #[arg(long)]
    cni_bin_dir: PathBuf,
    #[arg(long)]
    cluster_dns: Vec<IpAddr>,
    #[arg(long)]
    cgroup: Option<String>,
    #[arg(long)]
    hide: Vec<PathBuf>,
    #[arg(long)]
    resolv_conf: PathBuf,
}

fn kubelet(arguments: &[String]) -> Result<u8, Failure> {
    let told = Kubelet::try_parse_from(
        std::iter::once("lab-kubelet").chain(arguments.iter().map(String::as_str)),
    )
    .map_err(Failure::usage)?;
    crate::log::to(std::io::stderr);
    let options = parfait_lab_kubelet::Options {
        node_ips: told.node_ip,
        cni_conf_dir: told.cni_conf_dir,
        cni_bin_dir: told.cni_bin_dir,
        cluster_dns: told.cluster_dns,
        cgroup: told.cgroup,
        hide: told.hide,
        resolv_conf: told.resolv_conf,
        ..parfait_lab_kubelet::Options::new(told.node_name, told.kubeconfig, told.kubelet_state_dir)
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let ended = runtime
        .map_err(Failure::failed)?
        .block_on(parfait_lab_kubelet::run(options));
    ended.map_err(Failure::failed)?;
    Ok(crate::exit::DONE)
}
