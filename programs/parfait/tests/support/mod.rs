//! A desk to work at: a state directory of its own, the program, and perhaps somebody who is not root.

#![allow(dead_code, reason = "each test program uses its part")]

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use kube::{Api, Client};
use tempfile::TempDir;

/// A state directory, and perhaps the program for somebody who is not root.
pub struct Desk(pub TempDir, Option<PathBuf>);

impl Desk {
    /// `None`, said aloud, where labs cannot be made.
    pub fn new(test: &str) -> Option<Self> {
        let allowed = Command::new("unshare").args(["-Urn", "true"]).status();
        if !rustix::process::geteuid().is_root() && !allowed.is_ok_and(|status| status.success()) {
            writeln!(
                &mut std::io::stderr().lock(),
                "SKIP: {test}: namespaces are not allowed here"
            )
            .unwrap();
            return None;
        }
        Some(Self(
            tempfile::Builder::new()
                .prefix("parfait-")
                .tempdir()
                .unwrap(),
            None,
        ))
    }

    /// A desk of nobody's, where we are root; elsewhere the ordinary one is without root already.
    pub fn without_root(test: &str) -> Option<Self> {
        let mut desk = Self::new(test)?;
        if !rustix::process::geteuid().is_root() {
            return Some(desk);
        }
        let program = desk.0.path().join("parfait");
        // Not by this process: what another test starts meanwhile would hold the file open for writing.
        let copied = Command::new("cp")
            .arg(env!("CARGO_BIN_EXE_parfait"))
            .arg(&program)
            .status();
        assert!(copied.expect("cp runs").success());
        std::os::unix::fs::chown(desk.0.path(), Some(65534), Some(65534)).unwrap();
        desk.1 = Some(program);
        let allowed = Command::new("setpriv")
            .args([
                "--reuid",
                "65534",
                "--clear-groups",
                "unshare",
                "-Urn",
                "true",
            ])
            .status();
        if allowed.is_ok_and(|status| status.success()) {
            return Some(desk);
        }
        writeln!(
            &mut std::io::stderr().lock(),
            "SKIP: {test}: user namespaces are not allowed here"
        )
        .unwrap();
        None
    }

    pub fn command(&self, line: &[&str]) -> Command {
        let mut command = match &self.1 {
            None => Command::new(env!("CARGO_BIN_EXE_parfait")),
            Some(program) => {
                let mut command = Command::new("setpriv");
                command
                    .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
                    .arg(program);
                command
            }
        };
        command
            .env("PARFAIT_STATE_DIR", self.0.path())
            .env_remove("PARFAIT_LAB")
            .env_remove("KUBECONFIG")
            .args(line);
        command
    }

    pub fn run(&self, line: &[&str]) -> (Option<i32>, String, String) {
        let Output {
            status,
            stdout,
            stderr,
        } = self.command(line).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (status.code(), text(stdout), text(stderr))
    }

    pub fn ok(&self, line: &[&str]) -> String {
        let (code, out, err) = self.run(line);
        assert_eq!(code, Some(0), "parfait {}:\n{out}{err}", line.join(" "));
        out
    }

    /// Fails with this code and says these things.
    pub fn fails(&self, code: i32, line: &[&str], said: &[&str]) {
        let (was, out, err) = self.run(line);
        assert_eq!(was, Some(code), "parfait {}:\n{out}{err}", line.join(" "));
        for text in said {
            assert!(err.contains(text), "{text:?} is not in:\n{err}");
        }
    }

    pub fn file(&self, name: &str, content: &str) -> String {
        let path: PathBuf = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    pub fn interrupt(&self, child: &mut Child) -> Option<i32> {
        let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        child.wait().unwrap().code()
    }

    pub fn nothing_is_left(&self) {
        let labs = fs::read_dir(self.0.path().join("labs")).map_or(0, Iterator::count);
        assert_eq!(labs, 0, "something is left in {}", self.0.path().display());
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.run(&["lab", "down", "--all", "--grace", "1s"]);
    }
}

/// The Events that Parfait wrote in namespace `default` of the desk's lab: once they are enough, or after a minute.
pub fn events(desk: &Desk, enough: impl Fn(&[Event]) -> bool) -> Vec<Event> {
    ask(desk, async |client| {
        let api: Api<Event> = Api::namespaced(client, "default");
        let begin = Instant::now();
        loop {
            let mut events = api.list(&ListParams::default()).await.unwrap().items;
            events.retain(|event| event.reporting_controller.as_deref() == Some("parfait"));
            if enough(&events) || begin.elapsed() > Duration::from_secs(60) {
                return events;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
}

/// What the API server of the desk's lab answers.
pub fn ask<T>(desk: &Desk, question: impl AsyncFnOnce(Client) -> T) -> T {
    let kubeconfig = desk.ok(&["lab", "kubeconfig", "--path"]);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let client = parfait_kube::client(Some(kubeconfig.trim().as_ref()));
        question(client.await.unwrap()).await
    })
}
