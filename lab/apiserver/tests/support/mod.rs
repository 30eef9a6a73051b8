//! A server on loopback and a real kubectl in a temporary home, for the tests beside this directory.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use parfait_lab_apiserver::{Config, Family, Server};
use tokio_util::sync::CancellationToken;

/// A server that serves on a thread of its own until dropped.
pub struct Lab {
    pub server: Server,
    pub port: u16,
    home: tempfile::TempDir,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Lab {
    pub fn start() -> Lab {
        let server = Server::new(Config {
            families: vec![Family::Ipv4, Family::Ipv6],
            service_cidr_v4: Some("10.96.0.0/16".parse().expect("a network")),
            service_cidr_v6: Some("fd00:10:96::/112".parse().expect("a network")),
            ..Config::default()
        })
        .expect("a server can be made");
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let home = tempfile::tempdir().expect("a temporary directory");
        let kubeconfig = server.kubeconfig(&format!("https://127.0.0.1:{port}"), "lab");
        std::fs::write(home.path().join("config"), kubeconfig).expect("the kubeconfig is written");
        let stop = CancellationToken::new();
        let (serving, stopped) = (server.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let runtime = runtime.expect("a runtime");
            runtime
                .block_on(serving.serve(vec![listener], stopped.cancelled()))
                .expect("it serves");
        });
        Lab {
            server,
            port,
            home,
            stop,
            thread: Some(thread),
        }
    }

    /// kubectl with arguments split at spaces.
    pub fn kubectl(&self, arguments: &str) -> Answer {
        self.kubectl_with(&arguments.split_whitespace().collect::<Vec<_>>(), "")
    }

    /// kubectl with a manifest on standard input.
    pub fn kubectl_with(&self, arguments: &[&str], stdin: &str) -> Answer {
        let mut child = self
            .command()
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl starts");
        let mut pipe = child.stdin.take().expect("its standard input is a pipe");
        pipe.write_all(stdin.as_bytes()).expect("kubectl reads");
        drop(pipe);
        Answer::of(
            arguments.join(" "),
            child.wait_with_output().expect("kubectl ends"),
        )
    }

    /// kubectl, not yet started.
    pub fn command(&self) -> Command {
        let mut command = Command::new("kubectl");
        command.env("KUBECONFIG", self.home.path().join("config"));
        command.env("HOME", self.home.path());
        command
    }

    pub fn apply(&self, manifest: &str) -> Answer {
        // Without the marker kubectl takes a manifest that begins with a brace for JSON.
        self.kubectl_with(&["apply", "-f", "-"], &format!("---\n{manifest}"))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What kubectl said.
pub struct Answer {
    what: String,
    pub ok: bool,
    pub out: String,
    pub err: String,
}

impl Answer {
    fn of(what: String, output: Output) -> Answer {
        Answer {
            what,
            ok: output.status.success(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The output of a command that must succeed.
    #[track_caller]
    pub fn good(self) -> String {
        assert!(
            self.ok,
            "kubectl {} failed:\n{}{}",
            self.what, self.out, self.err
        );
        self.out
    }

    /// The complaint of a command that must fail.
    #[track_caller]
    pub fn bad(self) -> String {
        assert!(!self.ok, "kubectl {} succeeded:\n{}", self.what, self.out);
        self.err
    }
}

/// A lab, or a loud reason why the test does not run.
pub fn lab_for_kubectl() -> Option<Lab> {
    if Command::new("kubectl")
        .args(["version", "--client"])
        .output()
        .is_ok_and(|o| o.status.success())
    {
        return Some(Lab::start());
    }
    let _ = writeln!(
        std::io::stderr(),
        "SKIP: apiserver: no kubectl in PATH; this test drives the API server with the real one"
    );
    None
}

/// A file of the manifests by other people, from `PARFAIT_SHARED` or beside the repository.
pub fn shared(path: &str) -> Option<PathBuf> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = std::env::var_os("PARFAIT_SHARED")
        .map_or_else(|| repository.join("../shared"), PathBuf::from);
    let file = folder.join(path);
    if !file.exists() {
        let _ = writeln!(
            std::io::stderr(),
            "ABSENT: apiserver: {} is not there; set PARFAIT_SHARED to the folder that holds {path}",
            file.display()
        );
        return None;
    }
    Some(file)
}
