//! Required pod affinity and anti-affinity: near or away from other pods.
//!
//! "Near" means: on a node whose label `topologyKey` has the same value. Anti-affinity holds both ways: a
//! pod already placed may also refuse a new neighbour. Preferences, `matchLabelKeys` and
//! `mismatchLabelKeys` are left out; a `namespaceSelector` counts as every namespace.

use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm};

use crate::pods;
use crate::scheduler::Seat;
use crate::selector;
use crate::world::namespace_of;

/// Why the pod may not be placed there because of other pods, in the scheduler's words.
pub(crate) fn refusal(pod: &Pod, seat: &Seat, nodes: &[Seat]) -> Option<&'static str> {
    for term in wanted(pod) {
        let near = neighbours(term, seat, nodes).any(|other| concerns(term, pod, other));
        let anywhere = || {
            nodes
                .iter()
                .flat_map(|n| &n.pods)
                .any(|other| concerns(term, pod, other))
        };
        // The first of a group that wants to be together has nobody to go to.
        let first_of_its_kind = || concerns(term, pod, pod) && !anywhere();
        if !near && !first_of_its_kind() {
            return Some("node(s) didn't match pod affinity rules");
        }
    }
    for term in unwanted(pod) {
        if neighbours(term, seat, nodes).any(|other| concerns(term, pod, other)) {
            return Some("node(s) didn't match pod anti-affinity rules");
        }
    }
    for (node, other) in nodes
        .iter()
        .flat_map(|node| node.repelling.iter().map(move |other| (node, other)))
    {
        let refuses = |term: &PodAffinityTerm| {
            same_topology(&term.topology_key, node, seat) && concerns(term, other, pod)
        };
        if unwanted(other).iter().any(refuses) {
            return Some("node(s) didn't satisfy existing pods anti-affinity rules");
        }
    }
    None
}

/// Whether the pod refuses certain neighbours.
pub(crate) fn repels(pod: &Pod) -> bool {
    !unwanted(pod).is_empty()
}

fn wanted(pod: &Pod) -> &[PodAffinityTerm] {
    let affinity = pod
        .spec
        .as_ref()
        .and_then(|s| s.affinity.as_ref()?.pod_affinity.as_ref());
    affinity
        .and_then(|a| {
            a.required_during_scheduling_ignored_during_execution
                .as_deref()
        })
        .unwrap_or_default()
}

fn unwanted(pod: &Pod) -> &[PodAffinityTerm] {
    let affinity = pod
        .spec
        .as_ref()
        .and_then(|s| s.affinity.as_ref()?.pod_anti_affinity.as_ref());
    affinity
        .and_then(|a| {
            a.required_during_scheduling_ignored_during_execution
                .as_deref()
        })
        .unwrap_or_default()
}

fn neighbours<'a>(
    term: &'a PodAffinityTerm,
    seat: &'a Seat,
    nodes: &'a [Seat],
) -> impl Iterator<Item = &'a Pod> {
    nodes
        .iter()
        .filter(|node| same_topology(&term.topology_key, node, seat))
        .flat_map(|node| node.pods.iter().copied())
}

fn same_topology(key: &str, one: &Seat, other: &Seat) -> bool {
    let value = |seat: &Seat| pods::labels(&seat.node.metadata).get(key).cloned();
    value(one).is_some() && value(one) == value(other)
}

/// Whether `term` of `owner` speaks about `other`.
fn concerns(term: &PodAffinityTerm, owner: &Pod, other: &Pod) -> bool {
    let listed = term.namespaces.as_deref().unwrap_or_default();
    let namespace_fits = term.namespace_selector.is_some()
        || if listed.is_empty() {
            namespace_of(owner) == namespace_of(other)
        } else {
            listed
                .iter()
                .any(|namespace| namespace == namespace_of(other))
        };
    namespace_fits
        && term
            .label_selector
            .as_ref()
            .is_some_and(|selector| selector::matches(selector, other.metadata.labels.as_ref()))
}
