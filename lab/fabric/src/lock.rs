//! The lock that a lab holds for as long as it lives.
//!
//! `lab up` takes it, hands the open file to the supervisor, and the kernel releases it when the
//! last process that has it open is gone, however it died. So "is this lab alive?" is never
//! guessed from a number in a file. Source: `flock(2)`.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::Error;

/// A held lock.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock, creating its file when asked to. `None`: somebody else has it, or (without
    /// `create`) there is no such file.
    pub(crate) fn acquire(path: &Path, create: bool) -> Result<Option<Self>, Error> {
        loop {
            let opened = OpenOptions::new()
                .read(true)
                .write(true)
                .create(create)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(path);
            let file = match opened {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound && !create => {
                    return Ok(None);
                }
                Err(error) => return Err(Error::state("open", path, error)),
            };
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(errno) => return Err(Error::state("lock", path, errno)),
            }
            // The file may have been removed between open and flock: a lock on it would guard nothing.
            let held = file
                .metadata()
                .map_err(|e| Error::state("examine", path, e))?;
            if fs::metadata(path)
                .is_ok_and(|now| (now.dev(), now.ino()) == (held.dev(), held.ino()))
            {
                return Ok(Some(Self {
                    file,
                    path: path.to_owned(),
                }));
            }
        }
    }

    /// The open file, to be inherited by the supervisor.
    pub(crate) const fn file(&self) -> &File {
        &self.file
    }

    /// Removes the lock's file and lets go.
    pub(crate) fn remove(self) -> Result<(), Error> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::state("remove", &self.path, error))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lab.lock");
        assert!(
            Lock::acquire(&path, false).unwrap().is_none(),
            "nothing there"
        );
        let held = Lock::acquire(&path, true).unwrap().unwrap();
        assert!(Lock::acquire(&path, true).unwrap().is_none());
        drop(held);
        let held = Lock::acquire(&path, false).unwrap().unwrap();
        held.remove().unwrap();
        assert!(!path.exists());
    }
}
