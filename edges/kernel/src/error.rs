//! [`Error`]: what the kernel refused, about which object, and what to do.

use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// A system call that failed, or an answer that makes no sense.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A netlink socket could not be opened.
    #[error("opening a netlink socket: {errno}{}", hint(*.errno))]
    Open {
        /// Why.
        errno: Errno,
    },
    /// Sending to or receiving from the kernel failed.
    #[error("{operation}: {errno}{}", hint(*.errno))]
    Exchange {
        /// What was being done.
        operation: String,
        /// Why.
        errno: Errno,
    },
    /// The kernel refused one step.
    #[error("{step}: {errno}{}{}", said(message.as_deref()), hint(*.errno))]
    Step {
        /// The step, as an operator would type it.
        step: String,
        /// Why.
        errno: Errno,
        /// What the kernel added in words (its extended acknowledgement).
        message: Option<String>,
    },
    /// Something that is not Parfait's is in the way of a step.
    #[error(
        "{step}: another program has put something else there: {found}. Remove it, or find out who needs it"
    )]
    Conflict {
        /// The step, as an operator would type it.
        step: String,
        /// What is in the way.
        found: String,
    },
    /// A step needs a link that is not there.
    #[error("{step}: there is no link {link}. Was it removed or renamed meanwhile?")]
    NoSuchLink {
        /// The step, as an operator would type it.
        step: String,
        /// The link's name.
        link: String,
    },
    /// A setting could not be read or written.
    #[error("{operation} /proc/sys/{path}: {errno}{}", setting_hint(*.errno))]
    Sysctl {
        /// `reading` or `writing VALUE to`.
        operation: String,
        /// Below /proc/sys.
        path: String,
        /// Why.
        errno: Errno,
    },
    /// A network namespace could not be made, entered or removed.
    #[error("{operation} network namespace {}: {errno}{}", .path.display(), hint(*.errno))]
    NetNs {
        /// What was being done.
        operation: &'static str,
        /// Where it is bound, or `(anonymous)`.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
    /// The kernel's answer could not be read.
    #[error("the kernel's answer about {what} could not be read: {message}")]
    Decode {
        /// What was asked for.
        what: &'static str,
        /// What is wrong with it.
        message: String,
    },
}

impl Error {
    /// The error number, if a system call gave one.
    #[must_use]
    pub const fn errno(&self) -> Option<Errno> {
        match self {
            Self::Open { errno }
            | Self::Exchange { errno, .. }
            | Self::Step { errno, .. }
            | Self::Sysctl { errno, .. }
            | Self::NetNs { errno, .. } => Some(*errno),
            Self::Conflict { .. } | Self::NoSuchLink { .. } | Self::Decode { .. } => None,
        }
    }

    pub(crate) fn exchange(operation: &str, error: &std::io::Error) -> Self {
        Self::Exchange {
            operation: operation.to_owned(),
            errno: errno_of(error),
        }
    }

    pub(crate) fn netns(operation: &'static str, path: &Path, errno: Errno) -> Self {
        Self::NetNs {
            operation,
            path: path.to_owned(),
            errno,
        }
    }
}

/// The error number behind an I/O error; EIO if the standard library made it up.
pub(crate) fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

fn said(message: Option<&str>) -> String {
    message.map_or_else(String::new, |message| format!(" ({message})"))
}

/// What to do about the errors that have one usual cause.
fn hint(errno: Errno) -> &'static str {
    match errno {
        Errno::PERM | Errno::ACCESS => ". Run it as root, or with the capability CAP_NET_ADMIN",
        Errno::ROFS => ". /proc/sys is read-only here: the container must be privileged",
        Errno::OPNOTSUPP | Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT => {
            ". This kernel lacks the feature: load its module, or use another kernel"
        }
        Errno::NOBUFS | Errno::NOMEM => {
            ". The kernel is out of memory for this; it is tried again on the next round"
        }
        Errno::NETUNREACH => ". The next hop is not on a link that is up",
        _ => "",
    }
}

fn setting_hint(errno: Errno) -> &'static str {
    match errno {
        Errno::NOENT => {
            ". There is no such interface, or this kernel was started without IPv6 (ipv6.disable=1)"
        }
        other => hint(other),
    }
}
