//! [`NetNs`]: a network namespace, held by a file descriptor (network_namespaces(7), setns(2)).
//!
//! Which namespace a program is in is a property of each *thread*. So work in another namespace runs on a thread of its
//! own, which ends with it; a program with one thread may [visit](NetNs::visit) it instead.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::Error;
use crate::error::errno_of;

/// The file through which a thread's own network namespace is opened.
const OWN: &str = "/proc/thread-self/ns/net";

/// A network namespace. It exists at least as long as this value or a clone of it.
#[derive(Clone, Debug)]
pub struct NetNs {
    fd: Arc<OwnedFd>,
    path: PathBuf,
}

impl NetNs {
    /// The calling thread's.
    ///
    /// # Errors
    /// If /proc is not mounted.
    pub fn current() -> Result<Self, Error> {
        Self::open(Path::new(OWN))
    }

    /// The one bound to a file: `/run/netns/NAME`, `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// If there is no such file, or it is no namespace (found out on first use).
    pub fn open(path: &Path) -> Result<Self, Error> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|errno| Error::netns("opening", path, errno))?;
        Ok(Self {
            fd: Arc::new(fd),
            path: path.to_owned(),
        })
    }

    /// The one behind a file descriptor, as it is passed between processes.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self {
            path: PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd())),
            fd: Arc::new(fd),
        }
    }

    /// A new one without a name: it goes with its last holder. Its `lo` is down.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn create() -> Result<Self, Error> {
        on_thread("creating", Path::new("(anonymous)"), || {
            unshare()?;
            Self::current()
        })?
    }

    /// A new one that stays until it is removed, bound to a file that is made for it.
    ///
    /// # Errors
    /// If the file exists, or the kernel refuses.
    pub fn create_at(path: &Path) -> Result<Self, Error> {
        let fail = |errno| Error::netns("creating", path, errno);
        let create = || -> Result<Self, Error> {
            File::create_new(path).map_err(|error| fail(errno_of(&error)))?;
            unshare()?;
            mount_bind(OWN, path).map_err(fail)?;
            Self::open(path)
        };
        let created = on_thread("creating", path, create)?;
        if let Err(error) = &created
            && error.errno() != Some(Errno::EXIST)
        {
            // Nothing is bound to it: it is an empty file that we made.
            let _ = std::fs::remove_file(path);
        }
        created
    }

    /// Takes the name of a namespace away. It goes with its last holder. Success if there is none.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub fn remove(path: &Path) -> Result<(), Error> {
        match unmount(path, UnmountFlags::DETACH) {
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(errno) => return Err(Error::netns("unmounting", path, errno)),
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::netns("removing", path, errno_of(&error)))
            }
            _ => Ok(()),
        }
    }

    /// Runs something in this namespace, on a thread of its own, and waits for it. A panic in there
    /// goes on in here.
    ///
    /// # Errors
    /// If the namespace cannot be entered.
    pub fn run<T: Send>(&self, run: impl FnOnce() -> T + Send) -> Result<T, Error> {
        on_thread("entering", &self.path, || {
            self.enter()?;
            Ok(run())
        })?
    }

    /// Runs something in this namespace on the calling thread, which comes back whatever happens. For programs that have no
    /// other thread and start fast: a new thread costs more than all that is done in there.
    ///
    /// # Errors
    /// If the namespace cannot be entered.
    pub fn visit<T>(&self, run: impl FnOnce() -> T) -> Result<T, Error> {
        let back = Back(Self::current()?);
        self.enter()?;
        let done = run();
        drop(back);
        Ok(done)
    }

    /// Moves the calling *thread* into this namespace. For programs that do so once, at their start.
    ///
    /// # Errors
    /// If the kernel refuses, or the file is no network namespace.
    pub fn enter(&self) -> Result<(), Error> {
        move_into_link_name_space(self.fd.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(|errno| Error::netns("entering", &self.path, errno))
    }

    /// Whether both are the same namespace.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        let identity = |netns: &Self| {
            let stat = rustix::fs::fstat(&*netns.fd).ok()?;
            Some((stat.st_dev, stat.st_ino))
        };
        identity(self).is_some() && identity(self) == identity(other)
    }

    /// Where it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for NetNs {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Brings the calling thread back when it is dropped.
struct Back(NetNs);

impl Drop for Back {
    fn drop(&mut self) {
        if let Err(error) = self.0.enter() {
            // Whatever this thread did next, it would do it to the wrong machine.
            eprintln!("going back from a network namespace: {error}");
            std::process::abort();
        }
    }
}

fn unshare() -> Result<(), Error> {
    // SAFETY: only the network namespace of this thread changes; file descriptors stay shared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
        .map_err(|errno| Error::netns("creating", Path::new("(anonymous)"), errno))
}

fn on_thread<T: Send>(
    operation: &'static str,
    path: &Path,
    run: impl FnOnce() -> T + Send,
) -> Result<T, Error> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, run)
            .map_err(|error| Error::netns(operation, path, errno_of(&error)))?;
        thread
            .join()
            .map_err(|panic| std::panic::resume_unwind(panic))
    })
}
