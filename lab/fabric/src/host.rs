//! Leaving the host: one namespace after the other, and what to say when the host refuses.
//!
//! Each kind is unshared by a call of its own, so that a refusal names the feature that is missing
//! rather than "Invalid argument". Sources: `unshare(2)`, `user_namespaces(7)` (limits in
//! `/proc/sys/user`), the AppArmor restriction of Ubuntu 23.10 and later, Debian's
//! `kernel.unprivileged_userns_clone`.

use std::{fs, io};

use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::Error;

/// What the host says about unprivileged namespaces; read once, when something failed.
#[derive(Clone, Copy, Debug, Default)]
struct Facts {
    rootless: bool,
    limit: Option<u64>,
    userns_clone: Option<u64>,
    apparmor_restricts: Option<u64>,
}

/// A kind of namespace, in the order in which they are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    User,
    Mount,
    Pid,
    Network,
    Ipc,
    Uts,
}

impl Kind {
    const fn flag(self) -> UnshareFlags {
        match self {
            Self::User => UnshareFlags::NEWUSER,
            Self::Mount => UnshareFlags::NEWNS,
            Self::Pid => UnshareFlags::NEWPID,
            Self::Network => UnshareFlags::NEWNET,
            Self::Ipc => UnshareFlags::NEWIPC,
            Self::Uts => UnshareFlags::NEWUTS,
        }
    }

    /// Its name, its limit in `/proc/sys/user`, and its kernel option.
    const fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::User => ("user", "max_user_namespaces", "CONFIG_USER_NS"),
            Self::Mount => ("mount", "max_mnt_namespaces", "CONFIG_NAMESPACES"),
            Self::Pid => ("PID", "max_pid_namespaces", "CONFIG_PID_NS"),
            Self::Network => ("network", "max_net_namespaces", "CONFIG_NET_NS"),
            Self::Ipc => ("IPC", "max_ipc_namespaces", "CONFIG_IPC_NS"),
            Self::Uts => ("UTS", "max_uts_namespaces", "CONFIG_UTS_NS"),
        }
    }
}

/// Whether this process may make namespaces without making a user namespace first: it has
/// `CAP_SYS_ADMIN` and `CAP_NET_ADMIN`. (Root in a container often has neither.)
pub(crate) fn privileged() -> bool {
    const NEEDED: u64 = 1 << 12 | 1 << 21;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    effective & NEEDED == NEEDED
}

/// Leaves the host's namespaces. `rootless`: in a user namespace whose root is the caller.
///
/// The process must have one thread.
pub(crate) fn leave(rootless: bool) -> Result<(), Error> {
    if rootless {
        let (uid, gid) = (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        unshare(Kind::User, rootless)?;
        map_ids(uid, gid)?;
    }
    for kind in [Kind::Mount, Kind::Pid, Kind::Network, Kind::Ipc, Kind::Uts] {
        unshare(kind, rootless)?;
    }
    Ok(())
}

/// Whoever called becomes root inside. `setgroups` must be denied first (`user_namespaces(7)`).
fn map_ids(uid: u32, gid: u32) -> Result<(), Error> {
    let writes = [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("0 {uid} 1")),
        ("gid_map", format!("0 {gid} 1")),
    ];
    for (file, line) in writes {
        fs::write(format!("/proc/self/{file}"), line).map_err(|source| Error::Host {
            what: format!("map user {uid} to root in the lab (/proc/self/{file})"),
            source,
            why: "a user namespace was made, but the system does not let its owner use it"
                .to_owned(),
            remedy: REMEDY_APPARMOR.to_owned(),
        })?;
    }
    Ok(())
}

fn unshare(kind: Kind, rootless: bool) -> Result<(), Error> {
    // SAFETY: no CLONE_FILES: file descriptors stay shared with nobody else, as there is one thread.
    unsafe { unshare_unsafe(kind.flag()) }.map_err(|errno| {
        let read = |path: String| fs::read_to_string(path).ok()?.trim().parse().ok();
        let facts = Facts {
            rootless,
            limit: read(format!("/proc/sys/user/{}", kind.words().1)),
            userns_clone: read("/proc/sys/kernel/unprivileged_userns_clone".to_owned()),
            apparmor_restricts: read(
                "/proc/sys/kernel/apparmor_restrict_unprivileged_userns".to_owned(),
            ),
        };
        refused(kind, errno.raw_os_error(), facts)
    })
}

const REMEDY_APPARMOR: &str = "as root: `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0` (until the next boot), or an AppArmor profile with `userns,` for this program; or run parfait as root";

fn refused(kind: Kind, errno: i32, facts: Facts) -> Error {
    let (name, limit, option) = kind.words();
    let (why, remedy) = match errno {
        libc::ENOSPC => {
            let value = facts.limit.map_or_else(String::new, |n| format!(" (it is {n})"));
            (
                format!("the limit user.{limit}{value} is reached"),
                format!("as root: `sysctl -w user.{limit}=10000`"),
            )
        }
        libc::EUSERS => (
            "namespaces are nested too deeply (32 levels)".to_owned(),
            "run parfait outside of some of the containers it runs in".to_owned(),
        ),
        libc::EINVAL | libc::ENOSYS => (
            format!("this kernel was built without {name} namespaces"),
            format!("use a kernel with {option}=y"),
        ),
        _ if facts.rootless && facts.userns_clone == Some(0) => (
            "kernel.unprivileged_userns_clone is 0: only root may make namespaces".to_owned(),
            "as root: `sysctl -w kernel.unprivileged_userns_clone=1`, or run parfait as root".to_owned(),
        ),
        _ if facts.rootless && facts.apparmor_restricts.is_some_and(|n| n > 0) => (
            "AppArmor takes all capabilities away in the user namespaces of unprivileged users".to_owned(),
            REMEDY_APPARMOR.to_owned(),
        ),
        _ => (
            "the system forbids it: a container's seccomp profile, a security module, or a missing CAP_SYS_ADMIN".to_owned(),
            "outside of a container: run parfait as root; inside of one: start it with `--security-opt seccomp=unconfined` or `--privileged`".to_owned(),
        ),
    };
    Error::Host {
        what: format!("make a {name} namespace"),
        source: io::Error::from_raw_os_error(errno),
        why,
        remedy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_why_and_what_to_do() {
        let rootless = Facts {
            rootless: true,
            ..Facts::default()
        };
        let cases = [
            (
                Kind::User,
                libc::ENOSPC,
                Facts {
                    limit: Some(0),
                    ..rootless
                },
                "user.max_user_namespaces (it is 0)",
                "sysctl -w user.max_user_namespaces",
            ),
            (
                Kind::User,
                libc::EPERM,
                Facts {
                    userns_clone: Some(0),
                    ..rootless
                },
                "only root may",
                "unprivileged_userns_clone=1",
            ),
            (
                Kind::Mount,
                libc::EPERM,
                Facts {
                    apparmor_restricts: Some(1),
                    ..rootless
                },
                "AppArmor",
                "apparmor_restrict_unprivileged_userns=0",
            ),
            (
                Kind::Network,
                libc::EINVAL,
                Facts::default(),
                "without network namespaces",
                "CONFIG_NET_NS=y",
            ),
            (
                Kind::Pid,
                libc::EPERM,
                Facts::default(),
                "seccomp",
                "--privileged",
            ),
        ];
        for (kind, errno, facts, why, remedy) in cases {
            let text = refused(kind, errno, facts).to_string();
            assert!(
                text.contains(why) && text.contains(remedy),
                "{kind:?} {errno}: {text}"
            );
            assert!(text.starts_with("cannot make a "), "{text}");
        }
    }
}
