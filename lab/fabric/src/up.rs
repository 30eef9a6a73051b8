//! `lab up`'s half of starting a lab: the directory, the lock, the detached process, its events.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, PipeReader, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::event::Event;
use crate::lock::Lock;
use crate::state::{Condition, LabDir, StateRoot};
use crate::supervise::LOCK_FD;
use crate::{Error, LabSpec, cgroup};

/// What a lab needs at the least: its logs are limited to a few MiB each.
const ROOM_KIB: u64 = 16 * 1024;

/// How much of the log is shown when a lab dies at once.
const TAIL: u64 = 2048;

/// A lab on its way up.
#[derive(Debug)]
pub struct Starting {
    dir: LabDir,
    events: BufReader<PipeReader>,
    first: Child,
    ready: bool,
    failed: Option<String>,
}

/// Starts the lab `spec` in the background; `supervisor` is the program whose last argument is the
/// lab's directory and which calls [`crate::supervise`].
///
/// Whatever a lab of this name left that is not alive any more is removed first.
pub fn start(root: &StateRoot, spec: &LabSpec, supervisor: Command) -> Result<Starting, Error> {
    root.create()?;
    let dir = root.lab(&spec.name);
    let lock = take_lock(&dir)?;
    // We have the lock, so that nobody alive uses what is there.
    clear(&dir)?;
    check_room(dir.path().parent().unwrap_or(dir.path()))?;
    match dir
        .create(spec)
        .and_then(|()| spawn(&dir, &lock, supervisor))
    {
        Ok(starting) => Ok(starting),
        Err(error) => {
            // The first error is the one to tell; what is left is removed by the next command.
            let _ = dir.remove().and_then(|()| lock.remove());
            Err(error)
        }
    }
}

/// Removes what a dead lab left; the caller holds its lock.
pub(crate) fn clear(dir: &LabDir) -> Result<(), Error> {
    if let Ok(record) = dir.record() {
        for (path, error) in cgroup::remove(dir.path(), &record.cgroups) {
            tracing::warn!("cannot remove cgroup {}: {error}", path.display());
        }
    }
    dir.remove()
}

impl Starting {
    /// The next event; `None` after [`Event::Ready`].
    pub fn next_event(&mut self) -> Result<Option<Event>, Error> {
        if self.ready {
            return Ok(None);
        }
        let mut line = Vec::new();
        let pipe = |e| Error::state("read the events of", self.dir.path(), e);
        (&mut self.events)
            .take(1 << 16)
            .read_until(b'\n', &mut line)
            .map_err(pipe)?;
        if line.is_empty() {
            return Err(self.died());
        }
        let event: Event = serde_json::from_slice(&line).map_err(|e| pipe(e.into()))?;
        match &event {
            Event::Ready { .. } => {
                self.ready = true;
                // It ended when PID 1 was on its way.
                let _ = self.first.wait();
            }
            Event::Failed { message } => self.failed = Some(message.clone()),
            Event::Step { .. } | Event::Warning { .. } => {}
        }
        Ok(Some(event))
    }

    /// The lab's directory.
    #[must_use]
    pub const fn dir(&self) -> &LabDir {
        &self.dir
    }

    fn died(&mut self) -> Error {
        let _ = self.first.wait();
        let log = self.dir.log("supervisor");
        let tail = if self.failed.is_some() {
            String::new()
        } else {
            tail(&log)
        };
        Error::Died {
            message: self.failed.take(),
            log,
            tail,
        }
    }
}

fn take_lock(dir: &LabDir) -> Result<Lock, Error> {
    // Another command may look at the lab just now, which takes the lock for a moment.
    for _ in 0..100 {
        if let Some(lock) = Lock::acquire(&dir.lock_path(), true)? {
            return Ok(lock);
        }
        if let Condition::Running(_) = dir.observe()? {
            return Err(Error::AlreadyRunning(dir.name().clone()));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Err(Error::Busy(dir.name().clone()))
}

fn check_room(path: &Path) -> Result<(), Error> {
    let stat = rustix::fs::statvfs(path).map_err(|e| Error::state("examine", path, e))?;
    let free_kib = stat.f_bavail.saturating_mul(stat.f_frsize) / 1024;
    if free_kib < ROOM_KIB {
        return Err(Error::NoRoom {
            path: path.to_owned(),
            free_kib,
            needed_kib: ROOM_KIB,
        });
    }
    Ok(())
}

fn spawn(dir: &LabDir, lock: &Lock, mut supervisor: Command) -> Result<Starting, Error> {
    let log_path = dir.log("supervisor");
    let log: File = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&log_path)
        .map_err(|e| Error::state("create", &log_path, e))?;
    let program = Path::new(supervisor.get_program()).to_owned();
    let start = |e: io::Error| Error::state("start", &program, e);
    let (reader, writer) = io::pipe().map_err(start)?;
    supervisor
        .arg(dir.path())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(log);
    let lock_fd = lock.file().as_raw_fd();
    // SAFETY: only system calls which are safe between fork and exec. The duplicate is without
    // CLOEXEC, so that it survives the exec; setsid detaches from the terminal and its signals.
    unsafe {
        supervisor.pre_exec(move || {
            if libc::setsid() < 0 {
                return Err(io::Error::last_os_error());
            }
            let done = if lock_fd == LOCK_FD {
                libc::fcntl(lock_fd, libc::F_SETFD, 0)
            } else {
                libc::dup2(lock_fd, LOCK_FD)
            };
            if done < 0 {
                Err(io::Error::last_os_error())
            } else {
                Ok(())
            }
        });
    }
    let first = supervisor
        .spawn()
        .map_err(|e| Error::state("start", &program, e))?;
    // The command holds the write end of the pipe as long as it lives.
    drop(supervisor);
    Ok(Starting {
        dir: dir.clone(),
        events: BufReader::new(reader),
        first,
        ready: false,
        failed: None,
    })
}

fn tail(log: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        file.take(TAIL).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    text.trim_end()
        .lines()
        .fold(String::new(), |all, line| all + "\n    " + line)
}
