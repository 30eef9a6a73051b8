//! What the tests find on this machine: programs they compare the product with, and whether they may
//! make namespaces. Nothing is installed here; `.ci/run` does that on Debian.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program that tests or stories use: its name, its Debian package, and what for.
const PROGRAMS: [(&str, &str, &str); 19] = [
    (
        "ip",
        "iproute2",
        "kernel tests compare links, routes and neighbours with it",
    ),
    ("nft", "nftables", "kernel tests compare rulesets with it"),
    ("conntrack", "conntrack", "tests of connection tracking"),
    ("ping", "iputils-ping", "stories"),
    ("tcpdump", "tcpdump", "tests that look at the wire"),
    ("dig", "dnsutils", "DNS tests and stories"),
    ("curl", "curl", "stories"),
    ("wget", "wget", "stories"),
    ("nc", "netcat-openbsd", "stories"),
    ("iperf3", "iperf3", "tests that keep a connection busy"),
    (
        "containerd",
        "containerd",
        "tests with a real container runtime",
    ),
    ("runc", "runc", "tests with a real container runtime"),
    (
        "busybox",
        "busybox-static",
        "the one image of tests with a real container runtime",
    ),
    (
        "iptables",
        "iptables",
        "tests with the reference plugins portmap and firewall",
    ),
    (
        "bird",
        "bird2",
        "stories of announced pod networks and load balancers",
    ),
    ("ps", "procps", "tests that nothing is left running"),
    ("unshare", "util-linux", "tests without root"),
    (
        "psql",
        "postgresql",
        "the story of an application with a database",
    ),
    (
        "kubectl",
        "kubectl from kubernetes.io",
        "API server tests and stories",
    ),
];

/// Folders that hold programs and may not be in the PATH of someone who is not root.
const ALSO: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// How kernel tests get the rights they need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// We are root.
    Root,
    /// A user namespace in which we are root can be made.
    UserNamespace,
    /// Neither: kernel tests skip.
    None,
}

/// Prints what is missing, and what will be skipped for it.
pub fn report(rights: Rights) {
    let missing: Vec<_> = PROGRAMS
        .iter()
        .filter(|(program, ..)| find(program).is_none())
        .collect();
    if missing.is_empty() {
        println!("host programs: all {} found", PROGRAMS.len());
    }
    for (program, package, what_for) in missing {
        println!("host programs: no `{program}` ({what_for}); Debian package: {package}");
    }
    match rights {
        Rights::Root => println!("namespaces: as root"),
        Rights::UserNamespace => println!("namespaces: as root of a user namespace"),
        Rights::None => println!(
            "namespaces: NOT ALLOWED, kernel tests and stories will be skipped; run as root, or allow user \
             namespaces (sysctl kernel.unprivileged_userns_clone=1, \
             kernel.apparmor_restrict_unprivileged_userns=0)"
        ),
    }
}

/// What this user may do.
pub fn rights() -> Rights {
    let quiet = |command: &mut Command| {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    if is_root() && quiet(Command::new("unshare").args(["-nm", "true"])) {
        Rights::Root
    } else if quiet(Command::new("unshare").args(["-Urnm", "true"])) {
        Rights::UserNamespace
    } else {
        Rights::None
    }
}

/// The PATH with the folders of system programs, so that `ip` and `nft` are found without root, too.
pub fn path() -> String {
    let mut path = std::env::var("PATH").unwrap_or_default();
    for folder in ALSO {
        if !path.split(':').any(|part| part == folder) && Path::new(folder).is_dir() {
            path = format!("{path}:{folder}");
        }
    }
    path
}

fn find(program: &str) -> Option<PathBuf> {
    path()
        .split(':')
        .map(|folder| Path::new(folder).join(program))
        .find(|file| file.is_file())
}

/// The effective user is 0. `/proc` says so without a call into libc.
pub fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    uids.and_then(|uids| uids.split_whitespace().nth(1)) == Some("0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_is_found_and_nonsense_is_not() {
        assert!(find("sh").is_some());
        assert!(find("no-such-program").is_none());
    }
}
