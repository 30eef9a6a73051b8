//! What the CNI plugin has attached on this node, read from its records: a pod's addresses before the
//! API server tells them.

use std::collections::BTreeSet;
use std::path::Path;

use parfait_cluster::{Attachment, Key, ObjectName, PortMapping, Snapshot};
use parfait_cni::{Record, ipam};
use parfait_linux::attachment::host_interface;

/// What names the running boot: a network namespace does not outlive it.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// Whether what is new in the snapshot can make the records say something else: pods of this node that came, went or
/// changed; or nothing, as when the plugin rings. Other nodes' pods change all the time.
#[must_use]
pub fn are_concerned(snapshot: &Snapshot, node: &str, changed: &BTreeSet<Key>) -> bool {
    let mut changed_keys = changed.iter();
    changed.is_empty()
        || changed_keys.any(|key| match key {
            Key::Pod(name) => {
                let pod = snapshot.pods.get(name);
                let attached =
                    |of: &Attachment| of.pod.as_ref().is_some_and(|(pod, _)| pod == name);
                pod.is_some_and(|pod| pod.node.as_deref() == Some(node))
                    || snapshot.attachments_on(node).any(attached)
            }
            Key::Config | Key::Node(_) => true,
            _ => false,
        })
}

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

#[cfg(test)]
mod tests {
    use parfait_cluster::{Object, Phase, Pod};

    use super::*;

    fn pod(name: &str, node: &str) -> Pod {
        Pod {
            name: ObjectName::new("default", name),
            uid: "1".to_owned(),
            created: None,
            labels: Default::default(),
            node: Some(node.to_owned()),
            host_network: false,
            hostname: None,
            subdomain: None,
            addresses: Vec::new(),
            reported: Vec::new(),
            mac: None,
            phase: Phase::Pending,
            ready: false,
            terminating: false,
            ports: Vec::new(),
            bandwidth: Default::default(),
        }
    }

    #[test]
    fn records_are_read_for_pods_of_this_node_and_for_the_bell() {
        let mut snapshot = Snapshot::default();
        for (name, node) in [("here", "node-1"), ("gone", "node-1"), ("far", "node-2")] {
            snapshot.insert(Object::Pod(pod(name, node)));
        }
        let record = Attachment {
            id: "1/eth0".to_owned(),
            pod: Some((ObjectName::new("default", "gone"), None)),
            interface: "pf000000000001".to_owned(),
            first: true,
            addresses: Vec::new(),
            mac: None,
            port_mappings: Vec::new(),
        };
        snapshot.attach("node-1", [record]);
        let of = |name: &str| Key::Pod(ObjectName::new("default", name));
        snapshot.remove(&of("gone"));
        let concerned =
            |keys: &[Key]| are_concerned(&snapshot, "node-1", &keys.iter().cloned().collect());
        assert!(concerned(&[]));
        assert!(concerned(&[of("far"), of("here")]));
        assert!(concerned(&[of("gone")]));
        assert!(!concerned(&[of("far"), of("nobody")]));
        assert!(!concerned(&[Key::Namespace("default".to_owned())]));
    }
}
