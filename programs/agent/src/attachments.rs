//! What the CNI plugin has attached on this node, read from its records: a pod's addresses before the
//! API server tells them.

use std::path::Path;

use parfait_cluster::{Attachment, ObjectName, PortMapping};
use parfait_cni::{Record, ipam};
use parfait_linux::attachment::host_interface;

/// What names the running boot: a network namespace does not outlive it.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// The attachments of this boot, and what is wrong with records that cannot be read.
#[must_use]
pub fn read(state_dir: &Path) -> (Vec<Attachment>, Vec<String>) {
    let boot = std::fs::read_to_string(BOOT).unwrap_or_default();
    match ipam::read_all(state_dir) {
        Ok((records, errors)) => {
            let of_this_boot = records.into_iter().filter(|r| r.boot == boot.trim());
            let errors = errors.iter().map(ToString::to_string);
            (of_this_boot.map(attachment).collect(), errors.collect())
        }
        Err(error) => (Vec::new(), vec![error.to_string()]),
    }
}

fn attachment(record: Record) -> Attachment {
    let first =
        |(pod, _): &(ObjectName, _)| record.interface == host_interface(&pod.namespace, &pod.name);
    let pod = record
        .pod
        .as_ref()
        .map(|pod| (ObjectName::new(&pod.namespace, &pod.name), pod.uid.clone()));
    Attachment {
        id: record.id.to_string(),
        first: pod.as_ref().is_some_and(first),
        pod,
        interface: record.interface.to_string(),
        mac: record.mac.map(|mac| mac.bytes()),
        port_mappings: record.port_mappings.iter().filter_map(mapping).collect(),
        addresses: record.addresses,
    }
}

fn mapping(recorded: &parfait_cni::PortMapping) -> Option<PortMapping> {
    Some(PortMapping {
        protocol: recorded.protocol.parse().ok()?,
        host_port: recorded.host_port,
        host_ip: recorded.host_ip,
        port: recorded.container_port,
    })
}
