//! Random policies of all kinds for a cluster's pods.

use parfait_cluster::{Namespace, Object, Parsed, Snapshot, parse};
use proptest::test_runner::TestRunner;
use serde_json::json;

use crate::pick;
use crate::policies::{cluster_policy, node_policy, policy};

/// The cluster with labels and policies: few enough that not everything is denied.
pub fn with_policies(snapshot: &Snapshot, runner: &mut TestRunner) -> Result<Snapshot, String> {
    let mut snapshot = snapshot.clone();
    for (pod, label) in snapshot
        .pods
        .values_mut()
        .zip(["a", "b"].into_iter().cycle())
    {
        pod.labels.insert("app".to_owned(), label.to_owned());
    }
    let mut namespace = Namespace::new("default");
    namespace.labels.insert("team".to_owned(), "a".to_owned());
    snapshot.insert(Object::Namespace(namespace));
    for number in 0..2 {
        let spec = pick(&policy(), runner)?;
        let name = format!("policy-{number}");
        let policy = json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec});
        let policy = serde_json::from_value(policy).map_err(|error| error.to_string())?;
        let (object, _) = parse(Parsed::NetworkPolicy(&policy), &|_| Err(String::new()));
        snapshot.insert(object.ok_or("no policy")?);
    }
    for number in 0..2 {
        let spec = pick(&cluster_policy(), runner)?;
        let policy = json!({"metadata": {"name": format!("cluster-{number}")}, "spec": spec});
        let policy = serde_json::from_value(policy).map_err(|error| error.to_string())?;
        let parsed = Parsed::ClusterNetworkPolicy(&policy);
        let (object, _) = parse(parsed, &|_| Err(String::new()));
        snapshot.insert(object.ok_or("no policy")?);
    }
    let spec = pick(&node_policy(), runner)?;
    let policy = json!({"metadata": {"name": "node"}, "spec": spec});
    let policy = serde_json::from_value(policy).map_err(|error| error.to_string())?;
    let (object, _) = parse(Parsed::NodeNetworkPolicy(&policy), &|_| Err(String::new()));
    snapshot.insert(object.ok_or("no policy")?);
    Ok(snapshot)
}
