//! What every container test needs: a state directory and a hand on a container.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use parfait_lab_kubelet::container::{
    ExecSpec, Limits, LogSpec, Report, Request, RootSpec, RunSpec,
};

pub struct Stage {
    pub root: bool,
    pub dir: tempfile::TempDir,
}

/// A container that has been started.
pub struct Running {
    child: Child,
    hand: Option<ChildStdin>,
    reports: BufReader<ChildStdout>,
    log: PathBuf,
}

/// How it ended.
#[derive(Debug)]
pub struct Ended {
    pub report: Report,
    pub log: String,
}

impl Stage {
    pub fn new(root: bool) -> Stage {
        // A tmpfs, as the lab's state is in memory, and so that overlays have a filesystem that can be upper.
        let base = std::env::temp_dir();
        let dir = tempfile::tempdir_in(base).expect("temporary directory");
        std::fs::create_dir(dir.path().join("root")).expect("mkdir");
        Stage { root, dir }
    }

    /// A container that runs `script` with sh.
    pub fn sh(&self, script: &str) -> RunSpec {
        self.command(&["/bin/sh", "-c", script])
    }

    pub fn command(&self, argv: &[&str]) -> RunSpec {
        RunSpec {
            hostname: "web-0".to_owned(),
            argv: argv.iter().map(|a| (*a).to_owned()).collect(),
            env: vec![(
                "PATH".to_owned(),
                "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/parfait/bin".to_owned(),
            )],
            root: RootSpec {
                base: self.dir.path().join("root"),
                scratch_bytes: 64 << 20,
                hide: vec![self.dir.path().to_owned()],
                parfait: std::env::current_exe().expect("own path"),
                applets: vec!["grpc_health_probe".to_owned()],
                ..RootSpec::default()
            },
            capabilities: vec![10, 13],
            limits: Limits {
                cgroup: Some(format!("parfait-test-{}/c", std::process::id())),
                pids: 301,
                memory: Some(128 << 20),
                nofile: 1024,
            },
            log: LogSpec {
                path: self.dir.path().join("logs/0.log"),
                max_bytes: 1 << 20,
            },
            ..RunSpec::default()
        }
    }

    pub fn start(&self, spec: RunSpec) -> Running {
        let log = spec.log.path.clone();
        let mut child = shim(&Request::Run(Box::new(spec)));
        Running {
            hand: child.stdin.take(),
            reports: BufReader::new(child.stdout.take().expect("stdout")),
            child,
            log,
        }
    }

    /// Starts a container and waits for its end.
    pub fn run(&self, spec: RunSpec) -> Ended {
        let mut running = self.start(spec);
        match running.report() {
            Report::Started { .. } => running.end(),
            report => Ended {
                report,
                log: String::new(),
            },
        }
    }

    /// Runs a script that must end well, and returns what it printed.
    pub fn output(&self, spec: RunSpec) -> String {
        let ended = self.run(spec);
        assert_eq!(ended.code(), Some(0), "{ended:#?}");
        ended.log
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let name = format!("parfait-test-{}", std::process::id());
        parfait_lab_kubelet::container::cgroup::remove_tree(&name);
    }
}

fn shim(request: &Request) -> Child {
    let mut child = Command::new("/proc/self/exe")
        .arg("lab-container")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start lab-container");
    let mut line = serde_json::to_vec(request).expect("request");
    line.push(b'\n');
    let hand = child.stdin.as_mut().expect("stdin");
    hand.write_all(&line).expect("write the request");
    child
}

impl Running {
    /// The next report.
    pub fn report(&mut self) -> Report {
        let mut line = String::new();
        self.reports.read_line(&mut line).expect("a report");
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("report {line:?}: {e}"))
    }

    pub fn started(&mut self) -> i32 {
        match self.report() {
            Report::Started { pid, .. } => pid,
            other => panic!("not started: {other:?}"),
        }
    }

    pub fn signal(&mut self, number: u8) {
        let hand = self.hand.as_mut().expect("a hand");
        hand.write_all(&[number]).expect("signal");
    }

    /// Lets go, as the kubelet's death would.
    pub fn let_go(&mut self) {
        self.hand = None;
    }

    pub fn kill_monitor(&mut self) {
        self.child.kill().expect("kill the monitor");
    }

    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        text.lines()
            .map(|l| l.splitn(4, ' ').nth(3).unwrap_or("").to_owned() + "\n")
            .collect()
    }

    pub fn wait_for_log(&self, word: &str) {
        for _ in 0..500 {
            if self.log().contains(word) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("no {word:?} in the log:\n{}", self.log());
    }

    pub fn end(mut self) -> Ended {
        let report = self.report();
        self.child.wait().expect("monitor");
        Ended {
            report,
            log: self.log(),
        }
    }
}

impl Ended {
    pub fn code(&self) -> Option<i32> {
        match self.report {
            Report::Exited { code, .. } => code,
            _ => None,
        }
    }

    pub fn signal(&self) -> Option<i32> {
        match self.report {
            Report::Exited { signal, .. } => signal,
            _ => None,
        }
    }
}

/// Runs a program in a container; returns its exit code and output.
pub fn exec(pid: i32, like: &RunSpec, argv: &[&str]) -> (i32, String) {
    let spec = ExecSpec {
        pid,
        argv: argv.iter().map(|a| (*a).to_owned()).collect(),
        env: like.env.clone(),
        cwd: None,
        identity: like.identity.clone(),
        capabilities: like.capabilities.clone(),
        limits: like.limits.clone(),
    };
    let mut child = shim(&Request::Exec(spec));
    let hand = child.stdin.take();
    let output = child.wait_with_output().expect("exec");
    drop(hand);
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}
