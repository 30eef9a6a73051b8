//! [`Attachment`]: what the CNI plugin has attached on a node, which that node knows before the API
//! does; and [`Snapshot::attach`], which joins it with the pods.
//!
//! ```text
//!   ADD ─▶ the plugin's record ─▶ the agent knows 10.244.1.7          some milliseconds
//!     └─▶ runtime ─▶ kubelet ─▶ status.podIPs ─▶ API ─▶ everybody     a second
//! ```
//!
//! An attachment is *known* when it is clear for whom it is: the Pod it names is bound to the node, has
//! not ended, and is the one of this UID, not another of its name. One that names no pod is known at
//! once: its caller is no kubelet, and no object will ever come. Everything else stays unknown.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use parfait_packet::{Kind, Origin, Protocol};

use crate::{Key, ObjectName, Phase, Pod, Snapshot};

/// One interface that the CNI plugin gave to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The container and its interface, `CONTAINER/IFNAME`.
    pub id: String,
    /// The pod and its UID, as far as the runtime named them.
    pub pod: Option<(ObjectName, Option<String>)>,
    /// The node's end.
    pub interface: String,
    /// Whether it is the pod's first interface, whose addresses are the pod's.
    pub first: bool,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The Ethernet address that was asked for, if it was.
    pub mac: Option<[u8; 6]>,
    /// The node's ports that lead to it, by the capability `portMappings`.
    pub port_mappings: Vec<PortMapping>,
}

/// A port of the node that leads to one of the container (CNI conventions, `portMappings`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortMapping {
    /// The protocol.
    pub protocol: Protocol,
    /// The node's port.
    pub host_port: u16,
    /// The node's address; `None` for all.
    pub host_ip: Option<IpAddr>,
    /// The container's port.
    pub port: u16,
}

impl Attachment {
    /// The pod, or, where there is none, the attachment by its own name.
    #[must_use]
    pub fn origin(&self) -> Origin {
        match &self.pod {
            Some((pod, _)) => Origin::new(Kind::Pod, &pod.namespace, &pod.name),
            None => Origin::parfait(&format!("container {}", self.id)),
        }
    }

    fn is_of(&self, pod: &Pod, node: &str) -> bool {
        let same = |uid: &Option<String>| match uid {
            Some(uid) => pod.uid.is_empty() || *uid == pod.uid,
            None => true,
        };
        let named = self.pod.as_ref();
        named.is_some_and(|(_, uid)| same(uid))
            && pod.node.as_deref() == Some(node)
            && !pod.host_network
            && !matches!(pod.phase, Phase::Succeeded | Phase::Failed)
    }
}

impl Snapshot {
    /// Joins what is attached on a node with the pods there: a pod gets its addresses before the API
    /// tells them, and those it really has where the API is behind. What was joined before is
    /// forgotten; so it can be done at every turn, on the same snapshot. Returns the pods whose addresses
    /// are others now, and the node if anything else about what is attached is.
    pub fn attach(
        &mut self,
        node: &str,
        attachments: impl IntoIterator<Item = Attachment>,
    ) -> BTreeSet<Key> {
        let mut before = BTreeMap::new();
        let here = self.pods.values_mut();
        for pod in here.filter(|pod| pod.node.as_deref() == Some(node)) {
            let reported = pod.reported.clone();
            before.insert(
                pod.name.clone(),
                std::mem::replace(&mut pod.addresses, reported),
            );
            pod.mac = None;
        }
        let mut known = Vec::new();
        for attachment in attachments {
            if let Some((name, _)) = &attachment.pod {
                let pod = self.pods.get_mut(name);
                let Some(pod) = pod.filter(|pod| attachment.is_of(pod, node)) else {
                    continue;
                };
                // Of two, the earlier container's DEL has not come yet; the API may say which it is.
                let earlier = known.iter().any(|other: &Attachment| {
                    other.first && other.pod == attachment.pod && other.addresses == pod.reported
                });
                if attachment.first && !earlier {
                    pod.addresses.clone_from(&attachment.addresses);
                    pod.mac = attachment.mac;
                }
            }
            known.push(attachment);
        }
        let same = self.attachments.get(node).map_or(&[][..], Vec::as_slice) == known;
        self.attachments.insert(node.to_owned(), known);
        before.retain(|name, addresses| self.pods[name].addresses != *addresses);
        let node = (!same).then(|| Key::Node(node.to_owned()));
        before.into_keys().map(Key::Pod).chain(node).collect()
    }

    /// The known attachments of a node; none where nobody has looked.
    pub fn attachments_on(&self, node: &str) -> impl Iterator<Item = &Attachment> {
        self.attachments.get(node).into_iter().flatten()
    }
}
