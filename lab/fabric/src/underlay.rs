//! The switch and the machines on it.
//!
//! ```text
//!   # in the lab's own network namespace
//!   ip link add underlay type bridge;  ip addr add 192.168.77.1/24 dev underlay
//!   # for each node
//!   ip link add n1 type veth peer name eth0 netns node-1;  ip link set n1 master underlay up
//!   ip -n node-1 addr add 192.168.77.11/24 dev eth0;  ip -n node-1 route add default via 192.168.77.1
//! ```
//!
//! The default route makes addresses outside of the underlay (a Service's) routable in a node, as
//! they are on any real machine; the switch forwards nothing, so that there is no way out.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;

use rustix::mount::mount_bind;
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::state::LabDir;
use crate::supervise::Machine;
use crate::{Error, LabSpec};

/// Builds the underlay and the nodes, and holds each node's namespace by a file.
pub(crate) fn build(dir: &LabDir, spec: &LabSpec) -> Result<Vec<Machine>, Error> {
    let mut machines = Vec::new();
    for (index, name) in (1..=spec.nodes).zip(spec.node_names()) {
        let netns = new_netns().map_err(|e| Error::Network {
            what: format!("make {name}"),
            why: e.to_string(),
        })?;
        let path = dir.node_netns(&name);
        fs::write(&path, b"").map_err(|e| Error::state("create", &path, e))?;
        let from = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&netns));
        mount_bind(&from, &path).map_err(|e| Error::state("mount a namespace at", &path, e))?;
        machines.push(Machine {
            addresses: spec.node_addresses(index),
            netns,
            dir: dir.node(&name),
            name,
        });
    }
    Ok(machines)
}

fn new_netns() -> io::Result<OwnedFd> {
    std::thread::spawn(|| {
        // SAFETY: only this thread changes its network namespace, and it ends here.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        Ok(File::open("/proc/thread-self/ns/net")?.into())
    })
    .join()
    .unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
}
