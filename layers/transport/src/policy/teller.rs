//! Which node's agent tells of a policy what planning found: planning finds it where the policy's pods
//! are, or on its nodes.

use parfait_cluster::{ObjectName, Phase, Pod, Snapshot};
use parfait_packet::{Kind, Origin};

/// Whether something is a policy's.
#[must_use]
pub fn is_of(origin: &Origin) -> bool {
    matches!(
        origin.kind,
        Kind::NetworkPolicy | Kind::ClusterNetworkPolicy | Kind::NodeNetworkPolicy
    )
}

/// The first node, by name, that a policy is for, or with a pod that it is for. Pods whose network is still to come count: other nodes learn
/// of it later than their own.
#[must_use]
pub fn first_node<'a>(snapshot: &'a Snapshot, policy: &Origin) -> Option<&'a str> {
    if policy.kind == Kind::NodeNetworkPolicy {
        let policy = snapshot.node_policies.get(&policy.name)?;
        let mut nodes = snapshot.nodes.values();
        let first = nodes.find(|node| policy.nodes.matches(&node.labels))?;
        return Some(&first.name);
    }
    let lasting = |pod: &&Pod| !matches!(pod.phase, Phase::Succeeded | Phase::Failed);
    let pods = snapshot.pods.values().filter(lasting);
    let theirs = pods.filter(|pod| !pod.host_network && is_for(snapshot, policy, pod));
    theirs.filter_map(|pod| pod.node.as_deref()).min()
}

fn is_for(snapshot: &Snapshot, policy: &Origin, pod: &Pod) -> bool {
    if policy.kind == Kind::NetworkPolicy {
        let name = ObjectName::new(&policy.namespace, &policy.name);
        let policy = snapshot.policies.get(&name);
        return policy.is_some_and(|policy| {
            pod.name.namespace == name.namespace && policy.pods.matches(&pod.labels)
        });
    }
    let namespace = snapshot.namespaces.get(&pod.name.namespace);
    let policy = snapshot.cluster_policies.get(&policy.name);
    let (Some(namespace), Some(policy)) = (namespace, policy) else {
        return false;
    };
    policy.namespaces.matches(&namespace.labels) && policy.pods.matches(&pod.labels)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use parfait_cluster::{LabelSelector, NetworkPolicy, NodeNetworkPolicy, Object, Parsed, parse};

    use super::*;

    #[test]
    fn the_first_node_with_a_pod_of_the_policy_tells() {
        let mut snapshot = Snapshot::default();
        for (name, node, app) in [
            ("a", "node-3", "web"),
            ("b", "node-2", "web"),
            ("c", "node-1", "db"),
        ] {
            let pod = serde_json::json!({
                "metadata": {"name": name, "namespace": "shop", "labels": {"app": app}},
                "spec": {"nodeName": node, "containers": []},
            });
            let pod = serde_json::from_value(pod).expect("a Pod");
            let (object, _) = parse(Parsed::Pod(&pod), &|_| Err(String::new()));
            snapshot.insert(object.expect("a pod"));
        }
        let policy = NetworkPolicy {
            name: ObjectName::new("shop", "web"),
            pods: LabelSelector {
                match_labels: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
                ..LabelSelector::default()
            },
            ingress: Some(Vec::new()),
            egress: None,
        };
        let origin = policy.origin().field("spec.ingress[0]");
        assert!(is_of(&origin));
        assert_eq!(first_node(&snapshot, &origin), None, "it is gone");
        snapshot.insert(Object::NetworkPolicy(policy));
        assert_eq!(first_node(&snapshot, &origin), Some("node-2"));
    }

    #[test]
    fn the_first_node_that_a_policy_is_for_tells() {
        let mut snapshot = Snapshot::default();
        for (name, role) in [("node-1", "inner"), ("node-2", "edge"), ("node-3", "edge")] {
            let node = serde_json::json!({"metadata": {"name": name, "labels": {"role": role}}});
            let node = serde_json::from_value(node).expect("a Node");
            let (object, _) = parse(Parsed::Node(&node), &|_| Err(String::new()));
            snapshot.insert(object.expect("a node"));
        }
        let edge = BTreeMap::from([("role".to_owned(), "edge".to_owned())]);
        let policy = NodeNetworkPolicy {
            name: "edge".to_owned(),
            priority: 1,
            nodes: LabelSelector {
                match_labels: edge,
                ..LabelSelector::default()
            },
            ingress: Vec::new(),
        };
        let origin = policy.rule_origin(0);
        assert!(is_of(&origin));
        assert_eq!(first_node(&snapshot, &origin), None, "it is gone");
        snapshot.insert(Object::NodeNetworkPolicy(policy));
        assert_eq!(first_node(&snapshot, &origin), Some("node-2"));
    }
}
