//! The programs of a node: started in its network namespace, logged, and started again when they die.
//!
//! A program that ends is restarted after 0.1 s, then twice as long each time up to 10 s; half a
//! minute of life makes it innocent again. On shutdown it gets SIGTERM, and SIGKILL after a grace.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use parfait_kernel::NetNs;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::Command;
use tokio::sync::{mpsc, watch};

use crate::underlay::network;
use crate::{Error, Machine};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
const INNOCENT_AFTER: Duration = Duration::from_secs(30);

/// A program to keep running on a machine.
#[derive(Debug)]
pub struct Child {
    /// What it is called in messages: `agent of node-1`.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Where its output goes.
    pub log: PathBuf,
    /// How long it may take to end when asked to.
    pub grace: Duration,
}

/// What happened to a child.
#[derive(Debug)]
pub enum ChildEvent {
    /// It runs, under this number.
    Started(u32),
    /// It could not be started.
    NotStarted(io::Error),
    /// It ended without being asked to, and is started again after the pause.
    Ended(ExitStatus, Duration),
}

/// A child being kept running.
#[derive(Debug)]
pub struct Supervised {
    child: Child,
    netns: NetNs,
    hostname: String,
}

impl Supervised {
    /// `child` on `machine`.
    #[must_use]
    pub fn new(child: Child, machine: &Machine) -> Self {
        Self {
            child,
            netns: machine.netns.clone(),
            hostname: machine.name.clone(),
        }
    }

    /// `child` beside the switch or router: in the lab's own network namespace.
    ///
    /// # Errors
    /// If the caller's network namespace cannot be opened.
    pub fn at_the_router(child: Child) -> Result<Self, Error> {
        let here = NetNs::current();
        let netns = here.map_err(|e| network("open the router's network namespace", e))?;
        Ok(Self {
            child,
            netns,
            hostname: "router".to_owned(),
        })
    }

    /// Keeps it running until `shutdown` turns true; then ends it. Events carry the child's name.
    pub async fn run(
        self,
        mut shutdown: watch::Receiver<bool>,
        events: mpsc::UnboundedSender<(String, ChildEvent)>,
    ) {
        let mut pause = FIRST_PAUSE;
        let tell = |event| {
            // Without a reader nobody wants to know.
            let _ = events.send((self.child.name.clone(), event));
        };
        while !*shutdown.borrow() {
            let began = Instant::now();
            match self.start() {
                Err(error) => tell(ChildEvent::NotStarted(error)),
                Ok(mut process) => {
                    tell(ChildEvent::Started(process.id().unwrap_or_default()));
                    tokio::select! {
                        _ = stopping(&mut shutdown) => return self.end(&mut process).await,
                        ended = process.wait() => {
                            if began.elapsed() > INNOCENT_AFTER {
                                pause = FIRST_PAUSE;
                            }
                            if let Ok(status) = ended {
                                tell(ChildEvent::Ended(status, pause));
                            }
                        }
                    }
                }
            }
            tokio::select! {
                _ = stopping(&mut shutdown) => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn start(&self) -> io::Result<tokio::process::Child> {
        let (reader, writer) = io::pipe()?;
        let netns = self.netns.as_raw_fd();
        let hostname = self.hostname.clone().into_bytes();
        let mut command = Command::new(&self.child.program);
        command
            .args(&self.child.arguments)
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .kill_on_drop(true);
        // SAFETY: only system calls which are safe between fork and exec, on memory made before.
        unsafe {
            command.pre_exec(move || {
                let entered = libc::setns(netns, libc::CLONE_NEWNET) == 0
                    && libc::unshare(libc::CLONE_NEWUTS) == 0
                    && libc::sethostname(hostname.as_ptr().cast(), hostname.len()) == 0;
                if entered {
                    Ok(())
                } else {
                    Err(io::Error::last_os_error())
                }
            });
        }
        let child = command.spawn()?;
        let log = LogFile::open(&self.child.log)?;
        let reader = OwnedFd::from(reader);
        rustix::io::ioctl_fionbio(&reader, true)?;
        tokio::spawn(copy(pipe::Receiver::from_owned_fd(reader)?, log));
        Ok(child)
    }

    async fn end(&self, process: &mut tokio::process::Child) {
        if let Some(pid) = process
            .id()
            .and_then(|pid| rustix::process::Pid::from_raw(pid as i32))
        {
            // It is not reaped yet, so that the number is still its own.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        if tokio::time::timeout(self.child.grace, process.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                "{} did not end in {:?}, killing it",
                self.child.name,
                self.child.grace
            );
            let _ = process.kill().await;
        }
    }
}

async fn stopping(shutdown: &mut watch::Receiver<bool>) {
    // A sender that is gone means the same.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

async fn copy(mut from: pipe::Receiver, mut log: LogFile) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(n) => log.append(&buffer[..n]),
        }
    }
}

/// A log of limited size: when it is full it becomes `NAME.1`, and a new one is begun.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    length: u64,
    failing: bool,
}

impl LogFile {
    /// The most one file holds; a log and its predecessor together hold twice that.
    pub const LIMIT: u64 = 4 << 20;

    /// Opens a log, at its end.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        let length = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            length,
            failing: false,
        })
    }

    /// Writes as much as can be written: a full disk must not stop a program, so that lines are
    /// lost then, which is said once.
    pub fn append(&mut self, bytes: &[u8]) {
        let result = self.rotate().and_then(|()| self.file.write_all(bytes));
        self.length += bytes.len() as u64;
        match result {
            Ok(()) => self.failing = false,
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::warn!(
                    "lines are lost: cannot write {}: {error}",
                    self.path.display()
                );
            }
            Err(_) => {}
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        if self.length < Self::LIMIT {
            return Ok(());
        }
        let mut previous = self.path.clone().into_os_string();
        previous.push(".1");
        fs::rename(&self.path, previous)?;
        *self = Self::open(&self.path)?;
        Ok(())
    }
}

/// For loggers: what cannot be written is lost, and that is no error.
impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.rotate().and_then(|()| self.file.write_all(bytes));
        self.length += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        let spec = crate::LabSpec {
            name: crate::LabName::default(),
            nodes: 1,
            ip_family: crate::IpFamily::Dual,
            routing: crate::Routing::Auto,
            underlay: crate::Underlay::Flat,
            mtu: 1500,
        };
        Machine {
            name: "node-1".to_owned(),
            addresses: spec.node_addresses(1),
            netns: NetNs::current().unwrap(),
            dir: PathBuf::from("/nonexistent"),
        }
    }

    #[test]
    fn a_log_has_a_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.log");
        let mut log = LogFile::open(&path).unwrap();
        let line = [b'x'; 1 << 20];
        for _ in 0..10 {
            log.append(&line);
        }
        let total: u64 = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().metadata().unwrap().len())
            .sum();
        assert!(total <= 2 * LogFile::LIMIT + line.len() as u64, "{total}");
        assert!(dir.path().join("agent.log.1").exists());
    }

    #[tokio::test]
    async fn what_ends_is_started_again_and_what_runs_is_ended() {
        if !rustix::process::geteuid().is_root() {
            writeln!(
                &mut std::io::stderr().lock(),
                "SKIP: children: entering a network namespace needs root"
            )
            .unwrap();
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let child = Child {
            name: "counter".to_owned(),
            program: "/bin/sh".into(),
            arguments: [
                "-c",
                "echo run on $(uname -n); [ $(wc -l < \"$0\") -lt 2 ] || exec sleep 60",
            ]
            .into_iter()
            .map(OsString::from)
            .chain([log.clone().into_os_string()])
            .collect(),
            log: log.clone(),
            grace: Duration::from_secs(5),
        };
        let (stop, stopped) = watch::channel(false);
        let (tell, mut told) = mpsc::unbounded_channel();
        let running = tokio::spawn(Supervised::new(child, &machine()).run(stopped, tell));
        let mut starts = 0;
        while fs::read_to_string(&log).unwrap_or_default().lines().count() < 2 {
            if let Ok(Some((_, ChildEvent::Started(_)))) =
                tokio::time::timeout(Duration::from_secs(10), told.recv()).await
            {
                starts += 1;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert!(starts < 10);
        }
        assert!(
            fs::read_to_string(&log)
                .unwrap()
                .starts_with("run on node-1\n")
        );
        stop.send(true).unwrap();
        tokio::time::timeout(Duration::from_secs(2), running)
            .await
            .unwrap()
            .unwrap();
    }
}
