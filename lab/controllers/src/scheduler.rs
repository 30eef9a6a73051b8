//! The scheduler: which node a pod runs on.
//!
//! Two questions, as in Kubernetes: which nodes may it run on (nodeSelector, required node affinity,
//! taints, required pod affinity and anti-affinity, host ports, room for one more pod), and which of
//! those is best. Best here is simple and predictable: the node with the fewest pods of the same owner
//! (or the same `app`), then the fewest pods, then the first by name.
//!
//! A node that is not ready or is cordoned counts as tainted, so that the same toleration rules hold.
//! A pod that fits nowhere gets the `Unschedulable` condition and an event, in Kubernetes' words.
//! Left out: CPU and memory requests (the lab's nodes share one machine), preferences, preemption, and
//! topology spread constraints; pods of another `schedulerName` or with scheduling gates are not touched.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Node, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodCondition, PodSpec, Taint, Toleration,
};

use crate::affinity;
use crate::object::{controller_of, is_terminating, reference};
use crate::pods;
use crate::world::{World, name_of, namespace_of, uid_of};
use crate::write::{Severity, Write};

const COMPONENT: &str = "default-scheduler";
const DEFAULT_MAX_PODS: usize = 110;

pub fn step(world: &World, now: Timestamp) -> Vec<Write> {
    let mut waiting: Vec<&Pod> = world.pods.values().filter(|pod| is_ours(pod)).collect();
    if waiting.is_empty() {
        return Vec::new();
    }
    waiting.sort_by_key(|pod| {
        (
            pods::created(&pod.metadata),
            namespace_of(*pod),
            natural(name_of(*pod)),
        )
    });
    let mut nodes: Vec<Seat> = world
        .nodes
        .values()
        .map(|node| Seat::new(world, node))
        .collect();
    nodes.sort_by_key(|seat| natural(name_of(seat.node)));
    let mut writes = Vec::new();
    for pod in waiting {
        match choose(pod, &nodes) {
            Ok(best) => {
                nodes[best].seat(pod);
                writes.extend(bind(pod, nodes[best].node));
            }
            Err(why) => writes.extend(unschedulable(pod, why, now)),
        }
    }
    writes
}

/// Whether a node lets a pod of this spec in: selector, node affinity and taints. The question a
/// DaemonSet asks for every node.
pub fn admits(spec: &PodSpec, node: &Node) -> bool {
    selector_refusal(spec, node).is_none() && taint_refusal(spec, node).is_none()
}

/// A node and the pods on it, those placed in this very step included.
pub(crate) struct Seat<'a> {
    pub node: &'a Node,
    pub pods: Vec<&'a Pod>,
    /// Those of them that refuse certain neighbours.
    pub repelling: Vec<&'a Pod>,
}

impl<'a> Seat<'a> {
    fn new(world: &'a World, node: &'a Node) -> Seat<'a> {
        let here =
            |pod: &&Pod| pods::node_name(pod) == Some(name_of(node)) && !pods::is_finished(pod);
        let mut seat = Seat {
            node,
            pods: Vec::new(),
            repelling: Vec::new(),
        };
        for pod in world.pods.values().filter(here) {
            seat.seat(pod);
        }
        seat
    }

    fn seat(&mut self, pod: &'a Pod) {
        self.pods.push(pod);
        if affinity::repels(pod) {
            self.repelling.push(pod);
        }
    }
}

/// Orders `node-2` before `node-10`: digits compare as numbers.
pub(crate) fn natural(name: &str) -> (&str, u64, &str) {
    let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let (head, tail) = name.split_at(name.len() - digits);
    (head, tail.parse().unwrap_or(0), tail)
}

fn is_ours(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    pods::node_name(pod).is_none()
        && pods::is_active(pod)
        && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
        && spec
            .scheduler_name
            .as_deref()
            .is_none_or(|name| matches!(name, "" | "default-scheduler"))
}

fn choose(pod: &Pod, nodes: &[Seat]) -> Result<usize, String> {
    if nodes.is_empty() {
        return Err("no nodes available to schedule pods".to_owned());
    }
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut best: Option<((usize, usize, usize), usize)> = None;
    for (index, seat) in nodes.iter().enumerate() {
        if let Some(reason) = refusal(pod, seat, nodes) {
            *reasons.entry(reason).or_default() += 1;
            continue;
        }
        let alike = seat
            .pods
            .iter()
            .filter(|other| is_alike(pod, other))
            .count();
        let score = (alike, seat.pods.len(), index);
        if best.is_none_or(|(lowest, _)| score < lowest) {
            best = Some((score, index));
        }
    }
    if let Some((_, index)) = best {
        return Ok(index);
    }
    let mut parts: Vec<String> = reasons
        .into_iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    parts.sort();
    Err(format!(
        "0/{} nodes are available: {}.",
        nodes.len(),
        parts.join(", ")
    ))
}

/// Pods of the same controller, or without one of the same application.
fn is_alike(pod: &Pod, other: &Pod) -> bool {
    if namespace_of(pod) != namespace_of(other) {
        return false;
    }
    if let Some(owner) = controller_of(&pod.metadata) {
        return controller_of(&other.metadata).is_some_and(|theirs| theirs.uid == owner.uid);
    }
    ["app", "app.kubernetes.io/name"].iter().any(|key| {
        let app = pods::labels(&pod.metadata).get(*key);
        app.is_some() && app == pods::labels(&other.metadata).get(*key)
    })
}

/// Why the pod may not go there, as the scheduler's message spells it.
fn refusal(pod: &Pod, seat: &Seat, nodes: &[Seat]) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    taint_refusal(spec, seat.node)
        .or_else(|| selector_refusal(spec, seat.node))
        .or_else(|| {
            let limit = seat
                .node
                .status
                .as_ref()
                .and_then(|s| s.allocatable.as_ref());
            let limit = limit
                .and_then(|a| a.get("pods"))
                .and_then(|quantity| quantity.0.parse().ok());
            (seat.pods.len() >= limit.unwrap_or(DEFAULT_MAX_PODS))
                .then(|| "Too many pods".to_owned())
        })
        .or_else(|| {
            let wanted = host_ports(pod);
            let clash = seat.pods.iter().any(|other| {
                host_ports(other)
                    .iter()
                    .any(|theirs| wanted.iter().any(|ours| clashes(ours, theirs)))
            });
            clash.then(|| "node(s) didn't have free ports for the requested pod ports".to_owned())
        })
        .or_else(|| affinity::refusal(pod, seat, nodes).map(str::to_owned))
}

fn selector_refusal(spec: &PodSpec, node: &Node) -> Option<String> {
    let labels = pods::labels(&node.metadata);
    let selected = spec
        .node_selector
        .iter()
        .flatten()
        .all(|(key, value)| labels.get(key) == Some(value));
    let required = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| {
            a.required_during_scheduling_ignored_during_execution
                .as_ref()
        });
    let affine = required.is_none_or(|selector| {
        selector
            .node_selector_terms
            .iter()
            .any(|term| term_matches(term, node))
    });
    (!selected || !affine).then(|| "node(s) didn't match Pod's node affinity/selector".to_owned())
}

fn taint_refusal(spec: &PodSpec, node: &Node) -> Option<String> {
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let taint = effective_taints(node)
        .into_iter()
        .filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"))
        .find(|taint| {
            !tolerations
                .iter()
                .any(|toleration| tolerates(toleration, taint))
        })?;
    let value = taint.value.as_deref().unwrap_or_default();
    Some(format!(
        "node(s) had untolerated taint {{{}: {value}}}",
        taint.key
    ))
}

/// The node's taints, and those that Kubernetes' node controller would add for its state.
fn effective_taints(node: &Node) -> Vec<Taint> {
    let spec = node.spec.as_ref();
    let mut taints = spec.and_then(|s| s.taints.clone()).unwrap_or_default();
    let mut add = |key: &str| {
        if !taints.iter().any(|taint| taint.key == key) {
            let effect = "NoSchedule".to_owned();
            taints.push(Taint {
                key: key.to_owned(),
                effect,
                ..Taint::default()
            });
        }
    };
    if spec.and_then(|s| s.unschedulable) == Some(true) {
        add("node.kubernetes.io/unschedulable");
    }
    match node_ready(node) {
        Some("True") => {}
        Some("Unknown") => add("node.kubernetes.io/unreachable"),
        _ => add("node.kubernetes.io/not-ready"),
    }
    taints
}

/// The status of a node's Ready condition.
pub fn node_ready(node: &Node) -> Option<&str> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions
        .iter()
        .find(|c| c.type_ == "Ready")
        .map(|c| c.status.as_str())
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let exists = toleration.operator.as_deref() == Some("Exists");
    let key_fits = match filled(&toleration.key) {
        Some(key) => key == taint.key,
        None => exists,
    };
    let effect_fits = filled(&toleration.effect).is_none_or(|effect| effect == taint.effect);
    let value = |text: &Option<String>| text.clone().unwrap_or_default();
    key_fits && effect_fits && (exists || value(&toleration.value) == value(&taint.value))
}

/// All requirements of a term must hold; a term without any matches no node.
fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let labels = pods::labels(&node.metadata);
    let by_label = |r: &NodeSelectorRequirement| holds(r, labels.get(&r.key).map(String::as_str));
    let by_field =
        |r: &NodeSelectorRequirement| r.key == "metadata.name" && holds(r, Some(name_of(node)));
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(by_label)
        && fields.iter().all(by_field)
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = |value: &str| values.iter().any(|one| one == value);
    let number = |text: &str| text.parse::<i64>().ok();
    let compared = |order: fn(&i64, &i64) -> bool| {
        let ours = value.and_then(number);
        let theirs = values.first().and_then(|text| number(text));
        ours.zip(theirs)
            .is_some_and(|(ours, theirs)| order(&ours, &theirs))
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared(i64::gt),
        "Lt" => compared(i64::lt),
        _ => false,
    }
}

type HostPort = (i32, String, String);

fn host_ports(pod: &Pod) -> BTreeSet<HostPort> {
    let Some(spec) = &pod.spec else {
        return BTreeSet::new();
    };
    let host_network = spec.host_network == Some(true);
    let ports = spec
        .containers
        .iter()
        .flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number = port.host_port.filter(|number| *number > 0);
            let number = number.or(host_network.then_some(port.container_port))?;
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            Some((number, protocol, port.host_ip.clone().unwrap_or_default()))
        })
        .collect()
}

fn clashes(ours: &HostPort, theirs: &HostPort) -> bool {
    let any = |address: &str| matches!(address, "" | "0.0.0.0" | "::");
    ours.0 == theirs.0
        && ours.1 == theirs.1
        && (any(&ours.2) || any(&theirs.2) || ours.2 == theirs.2)
}

fn bind(pod: &Pod, node: &Node) -> [Write; 2] {
    let (namespace, name, node) = (namespace_of(pod), name_of(pod), name_of(node));
    let message = format!("Successfully assigned {namespace}/{name} to {node}");
    [
        Write::Bind {
            namespace: namespace.to_owned(),
            pod: name.to_owned(),
            uid: uid_of(pod).to_owned(),
            node: node.to_owned(),
        },
        Write::event(
            reference(pod),
            Severity::Normal,
            COMPONENT,
            "Scheduled",
            message,
        ),
    ]
}

fn unschedulable(pod: &Pod, message: String, now: Timestamp) -> Vec<Write> {
    let mut changed = pod.clone();
    let condition = PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some("Unschedulable".to_owned()),
        message: Some(message.clone()),
        ..PodCondition::default()
    };
    if is_terminating(&pod.metadata) || !pods::set_condition(&mut changed, condition, now) {
        return Vec::new();
    }
    vec![
        Write::UpdateStatus(changed.into()),
        Write::event(
            reference(pod),
            Severity::Warning,
            COMPONENT,
            "FailedScheduling",
            message,
        ),
    ]
}
