//! The pod's network namespace: made, named by a bind mount, and unmade.
//!
//! A namespace lives as long as something refers to it. Like `ip netns` and every container runtime we bind it to
//! a file, so that the CNI plugin gets a path for `CNI_NETNS` and `lab exec` can enter it. The mount is in the lab's
//! own mount namespace, so when the lab is gone so is every pod network.
//!
//! Inside: `lo` is up, port numbers need no privilege and `ping` no capability, as container runtimes set it
//! up (containerd's `enable_unprivileged_ports` and `enable_unprivileged_icmp`), since pods run as any user.

use std::fs::File;
use std::path::Path;

use rustix::thread::UnshareFlags;

use crate::container::StepError;

/// Makes a network namespace bound at `path`, with these settings of its `/proc/sys/net`. Blocking.
pub fn create(path: &Path, sysctls: &[(String, String)]) -> Result<(), StepError> {
    File::create(path).map_err(StepError::at(format!("make {}", path.display())))?;
    let (path, sysctls) = (path.to_owned(), sysctls.to_vec());
    // The new namespace is this thread's alone, which ends with it.
    std::thread::spawn(move || on_own_thread(&path, &sysctls))
        .join()
        .unwrap_or_else(|_| {
            Err(StepError::new(
                "make a network namespace",
                "its thread died",
            ))
        })
}

/// Binds the kubelet's own network namespace, the node's, at `path`. Blocking.
pub fn bind_own(path: &Path) -> Result<(), StepError> {
    File::create(path).map_err(StepError::at(format!("make {}", path.display())))?;
    crate::container::bind_file(Path::new("/proc/self/ns/net"), path)
}

fn on_own_thread(path: &Path, sysctls: &[(String, String)]) -> Result<(), StepError> {
    // SAFETY: CLONE_NEWNET concerns this thread alone, which opens no sockets but the one below.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
        .map_err(StepError::at("make a network namespace"))?;
    raise_loopback()?;
    // In a user namespace with one group the whole range is not to be had; the one group is.
    let ping = "net.ipv4.ping_group_range";
    if write_sysctl(ping, "0 2147483647").is_err() {
        let _ = write_sysctl(ping, "0 0");
    }
    let _ = write_sysctl("net.ipv4.ip_unprivileged_port_start", "0");
    for (name, value) in sysctls {
        write_sysctl(name, value).map_err(StepError::at(format!("set {name}={value}")))?;
    }
    crate::container::bind_file(Path::new("/proc/thread-self/ns/net"), path)
}

/// Unbinds and removes it. Processes and devices in it keep it alive a little longer.
pub fn remove(path: &Path) {
    let _ = rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH);
    let _ = std::fs::remove_file(path);
}

/// `/proc/sys/net` shows the namespace of the thread that looks.
fn write_sysctl(name: &str, value: &str) -> std::io::Result<()> {
    std::fs::write(format!("/proc/sys/{}", name.replace('.', "/")), value)
}

/// `ip link set lo up`.
fn raise_loopback() -> Result<(), StepError> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    use std::os::fd::AsRawFd;
    let step = "raise lo";
    let socket = rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(StepError::at(step))?;
    // SAFETY: all zeroes is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which lives through the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result == 0 {
        return Ok(());
    }
    Err(StepError::at(step)(std::io::Error::last_os_error()))
}

/// The `securityContext.sysctls` that can be set: those of the network namespace which Kubernetes calls safe.
pub fn is_safe_sysctl(name: &str) -> bool {
    const SAFE: &[&str] = &[
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    ];
    SAFE.contains(&name.replace('/', ".").as_str())
}
