//! Pods from the API to their end: a kubelet of the lab against the lab's API server, with a CNI plugin that is a shell
//! script.
//!
//! This target has its own `main`, for it is also the binary that the kubelet starts (`lab-container`, `image`). It
//! runs everything twice, as root and rootless, in namespaces of its own; the test's network namespace plays the node.

mod cluster;
mod life;

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let Some(applet) = parfait_lab_images::applet(&args[0]) {
        return applet(args[1..].to_vec());
    }
    match args.get(1).map(String::as_str) {
        Some("lab-container") => parfait_lab_kubelet::container_main(),
        Some("image") => parfait_lab_images::main(args[2..].to_vec()),
        Some("inside") => inside(args.get(2).map_or("", String::as_str), args.get(3)),
        Some("--list") => ExitCode::SUCCESS,
        filter => twice(filter.filter(|f| !f.starts_with('-'))),
    }
}

fn twice(filter: Option<&str>) -> ExitCode {
    if !Command::new("ip")
        .arg("-V")
        .output()
        .is_ok_and(|o| o.status.success())
    {
        eprintln!("SKIP pods: the test's CNI plugin needs the program ip (package iproute2)");
        let all = std::env::var_os("PARFAIT_REQUIRE_ALL").is_some();
        return if all {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        };
    }
    let root = rustix::process::geteuid().is_root();
    let first = if root {
        half("root", filter)
    } else {
        ExitCode::SUCCESS
    };
    let second = half("rootless", filter);
    if first == ExitCode::SUCCESS {
        second
    } else {
        first
    }
}

fn half(kind: &str, filter: Option<&str>) -> ExitCode {
    let dir = tempfile::tempdir().expect("temporary directory");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("chmod");
    let copy = dir.path().join("parfait");
    std::fs::copy(std::env::current_exe().expect("own path"), &copy).expect("copy of this program");
    let mut command = Command::new("unshare");
    if kind == "rootless" {
        if rustix::process::geteuid().is_root() {
            command = Command::new("setpriv");
            command.args([
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "unshare",
            ]);
        }
        command.args(["-U", "-r"]);
    }
    let status = command
        .args(["-m", "-p", "-f", "-n", "--mount-proc", "--kill-child"])
        .arg(&copy)
        .args(["inside", kind])
        .args(filter)
        .status();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        other => {
            eprintln!("pods: the {kind} half failed: {other:?}");
            ExitCode::FAILURE
        }
    }
}

fn inside(kind: &str, filter: Option<&String>) -> ExitCode {
    if std::env::var_os("RUST_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_writer(std::io::stderr)
            .init();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let ok = runtime.block_on(life::all(kind, filter.map(String::as_str)));
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    if ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
