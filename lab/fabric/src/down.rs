//! Ending labs: the ones asked to, and what the dead ones left.

use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::lock::Lock;
use crate::process::{signal, wait_gone};
use crate::state::{Condition, LabDir, StateRoot};
use crate::{Error, LabName, up};

/// How long a killed process may take to go.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// How a lab ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Its programs ended when they were asked to.
    Stopped,
    /// They did not in time and were killed.
    Killed,
    /// It was dead already; what it left is removed.
    WasDead,
    /// There was nothing of this name.
    NothingThere,
}

/// Ends a lab and removes everything it left. Programs get `grace` to end by themselves.
pub fn down(root: &StateRoot, name: &LabName, grace: Duration) -> Result<Ended, Error> {
    let dir = root.lab(name);
    if !dir.lock_path().exists() && !dir.path().exists() {
        return Ok(Ended::NothingThere);
    }
    if let Some(lock) = Lock::acquire(&dir.lock_path(), true)? {
        clear(&dir, lock)?;
        return Ok(Ended::WasDead);
    }
    let ended = match find(&dir)? {
        Some(init) => end(&dir, &init, grace)?,
        None => Ended::WasDead,
    };
    // The last process may still be on its way out with the lock in its hands.
    let end = Instant::now() + KILL_PATIENCE;
    loop {
        if let Some(lock) = Lock::acquire(&dir.lock_path(), true)? {
            clear(&dir, lock)?;
            return Ok(ended);
        }
        if Instant::now() > end {
            return Err(Error::Busy(name.clone()));
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Removes what dead labs left; answers which.
pub fn sweep(root: &StateRoot) -> Result<Vec<LabName>, Error> {
    let mut swept = Vec::new();
    for name in root.names()? {
        let dir = root.lab(&name);
        if !matches!(dir.observe()?, Condition::Dead | Condition::Absent) {
            continue;
        }
        // Between the look and the lock another command may have been faster.
        if let Some(lock) = Lock::acquire(&dir.lock_path(), true)? {
            let was_there = dir.path().exists();
            clear(&dir, lock)?;
            if was_there {
                swept.push(name);
            }
        }
    }
    Ok(swept)
}

fn clear(dir: &LabDir, lock: Lock) -> Result<(), Error> {
    up::clear(dir)?;
    lock.remove()
}

/// A handle on PID 1. A lab that is just being made has no record yet: wait for it a little.
fn find(dir: &LabDir) -> Result<Option<OwnedFd>, Error> {
    for _ in 0..500 {
        match dir.record() {
            Ok(record) => {
                return record
                    .init
                    .open()
                    .map_err(|e| Error::state("open PID 1 of", dir.path(), e));
            }
            // The lock is free or gone: it died meanwhile.
            Err(_) if !matches!(dir.observe()?, Condition::Changing) => return Ok(None),
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
    Err(Error::Busy(dir.name().clone()))
}

fn end(dir: &LabDir, init: &OwnedFd, grace: Duration) -> Result<Ended, Error> {
    let failed = |e| Error::state("end PID 1 of", dir.path(), e);
    signal(init, Signal::TERM).map_err(failed)?;
    if wait_gone(init, grace).map_err(failed)? {
        return Ok(Ended::Stopped);
    }
    signal(init, Signal::KILL).map_err(failed)?;
    if wait_gone(init, KILL_PATIENCE).map_err(failed)? {
        return Ok(Ended::Killed);
    }
    let pid = dir.record().map_or(0, |record| record.init.pid);
    Err(Error::StillThere {
        name: dir.name().clone(),
        pid,
        seconds: KILL_PATIENCE.as_secs(),
    })
}
