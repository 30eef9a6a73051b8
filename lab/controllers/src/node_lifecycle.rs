//! Node lifecycle: a node nobody hears from is not ready, and neither are its pods.
//!
//! A kubelet renews its Lease in `kube-node-lease` every ten seconds. When the Lease is older than
//! [`Config::node_grace_seconds`], the node's Ready condition becomes `Unknown`, and its pods' Ready
//! condition `False`, so that Services stop sending to them. The kubelet sets both again when it is back.
//! Pods of a node that no longer exists are deleted.
//!
//! Left out: eviction. In Kubernetes the pods of a lost node are deleted after five minutes; in a lab a
//! node is lost on purpose, and its pods should still be there when it comes back.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::config::Config;
use crate::object::{ObjectRef, reference};
use crate::pods;
use crate::scheduler::node_ready;
use crate::world::{World, name_of};
use crate::write::{Delete, Severity, Write};

const COMPONENT: &str = "node-controller";

pub fn step(world: &World, config: &Config, now: Timestamp) -> Vec<Write> {
    let mut writes = Vec::new();
    for node in world.nodes.values() {
        if is_silent(world, node, config, now) && node_ready(node) != Some("Unknown") {
            writes.extend(lost(node, now));
        } else if node_ready(node) == Some("Unknown") {
            let here = |pod: &&Pod| pods::node_name(pod) == Some(name_of(node));
            writes.extend(
                world
                    .pods
                    .values()
                    .filter(here)
                    .filter_map(|pod| not_ready(pod, now)),
            );
        }
    }
    writes.extend(world.pods.values().filter_map(|pod| homeless(world, pod)));
    writes
}

fn is_silent(world: &World, node: &Node, config: &Config, now: Timestamp) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    let Some(ready) = conditions.and_then(|c| c.iter().find(|c| c.type_ == "Ready")) else {
        // A node that has never reported is starting, not lost.
        return false;
    };
    let lease = world
        .find::<Lease>("kube-node-lease", name_of(node))
        .and_then(|l| l.spec.as_ref());
    let renewed = lease
        .and_then(|spec| spec.renew_time.as_ref())
        .map(|time| time.0);
    let heard = [
        world.watching_since,
        renewed,
        ready.last_heartbeat_time.as_ref().map(|time| time.0),
        ready.last_transition_time.as_ref().map(|time| time.0),
        node.metadata.creation_timestamp.as_ref().map(|time| time.0),
    ];
    let Some(last) = heard.into_iter().flatten().max() else {
        return false;
    };
    now.duration_since(last) > SignedDuration::from_secs(config.node_grace_seconds)
}

fn lost(node: &Node, now: Timestamp) -> Vec<Write> {
    let mut changed = node.clone();
    let conditions = changed
        .status
        .get_or_insert_default()
        .conditions
        .get_or_insert_default();
    let heartbeat = conditions
        .iter()
        .find(|c| c.type_ == "Ready")
        .and_then(|c| c.last_heartbeat_time.clone());
    conditions.retain(|c| c.type_ != "Ready");
    conditions.push(NodeCondition {
        type_: "Ready".to_owned(),
        status: "Unknown".to_owned(),
        reason: Some("NodeStatusUnknown".to_owned()),
        message: Some("Kubelet stopped posting node status.".to_owned()),
        last_heartbeat_time: heartbeat,
        last_transition_time: Some(Time(now)),
    });
    let message = format!("Node {} status is now: NodeNotReady", name_of(node));
    vec![
        Write::UpdateStatus(changed.into()),
        Write::event(
            reference(node),
            Severity::Warning,
            COMPONENT,
            "NodeNotReady",
            message,
        ),
    ]
}

fn not_ready(pod: &Pod, now: Timestamp) -> Option<Write> {
    if !pods::is_ready(pod) {
        return None;
    }
    let mut changed = pod.clone();
    let condition = PodCondition {
        type_: "Ready".to_owned(),
        status: "False".to_owned(),
        reason: Some("NodeNotReady".to_owned()),
        message: Some("the pod's node has stopped reporting".to_owned()),
        ..PodCondition::default()
    };
    pods::set_condition(&mut changed, condition, now).then(|| Write::UpdateStatus(changed.into()))
}

/// A pod whose node is gone cannot be stopped by anybody, so it is deleted outright.
fn homeless(world: &World, pod: &Pod) -> Option<Write> {
    let node = pods::node_name(pod)?;
    // A finalizer may hold a pod that has nothing else to wait for.
    let ending = pod.metadata.deletion_grace_period_seconds == Some(0);
    if world.find::<Node>("", node).is_some() || ending {
        return None;
    }
    Some(Write::Delete(Delete {
        target: reference(pod),
        grace_seconds: Some(0),
        propagation: None,
        if_absent: vec![ObjectRef {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: node.to_owned(),
            ..ObjectRef::default()
        }],
    }))
}
