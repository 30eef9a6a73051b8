//! What a pod's state means, how one is made from a template, and whose it is.
//!
//! Words as in Kubernetes' `pkg/controller/controller_utils.go`: a pod is *active* while it is
//! neither finished nor being deleted, *ready* when its kubelet says so, and *available* when it has
//! been ready for `minReadySeconds`.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, ObjectMeta, OwnerReference, Time,
};

use crate::object::{Kind, controller_of, controller_reference, is_terminating};
use crate::selector;
use crate::world::{World, namespace_of, uid_of};
use crate::write::Write;

pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status
        .as_ref()?
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == kind)
}

pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|c| c.status == "True")
}

/// All containers have ended for good.
pub fn is_finished(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

pub fn is_active(pod: &Pod) -> bool {
    !is_finished(pod) && !is_terminating(&pod.metadata)
}

pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    let Some(ready) = condition(pod, "Ready").filter(|c| c.status == "True") else {
        return false;
    };
    if min_ready_seconds <= 0 {
        return true;
    }
    let Some(Time(since)) = ready.last_transition_time else {
        return false;
    };
    now.duration_since(since) >= SignedDuration::from_secs(i64::from(min_ready_seconds))
}

pub fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|s| s.phase.as_deref())
        .unwrap_or("Pending")
}

pub fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec
        .as_ref()?
        .node_name
        .as_deref()
        .filter(|name| !name.is_empty())
}

pub fn created(meta: &ObjectMeta) -> Timestamp {
    meta.creation_timestamp
        .as_ref()
        .map_or(Timestamp::UNIX_EPOCH, |t| t.0)
}

/// Sets one condition, keeping the transition time where the status does not change. Says whether
/// anything changed.
pub fn set_condition(pod: &mut Pod, mut wanted: PodCondition, now: Timestamp) -> bool {
    let conditions = pod
        .status
        .get_or_insert_with(PodStatus::default)
        .conditions
        .get_or_insert_with(Vec::new);
    match conditions.iter_mut().find(|c| c.type_ == wanted.type_) {
        Some(present) => {
            wanted.last_transition_time = if present.status == wanted.status {
                present.last_transition_time.clone()
            } else {
                Some(Time(now))
            };
            wanted.last_probe_time = present.last_probe_time.clone();
            wanted.observed_generation = present.observed_generation;
            let changed = *present != wanted;
            *present = wanted;
            changed
        }
        None => {
            wanted.last_transition_time = Some(Time(now));
            conditions.push(wanted);
            true
        }
    }
}

/// A pod as its owner's template describes it.
pub fn from_template<K: Kind>(
    owner: &K,
    template: &PodTemplateSpec,
    name: String,
    extra_labels: &[(&str, &str)],
) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    let mut labels = meta.labels.unwrap_or_default();
    for (key, value) in extra_labels {
        labels.insert((*key).to_owned(), (*value).to_owned());
    }
    let base = owner.metadata().name.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            namespace: Some(namespace_of(owner).to_owned()),
            generate_name: Some(format!("{base}-")),
            name: Some(name),
            labels: (!labels.is_empty()).then_some(labels),
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![controller_reference(owner)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Whether pods of this template would belong to the owner with this selector. An API server refuses
/// an owner of which that is not true: it would make pods for ever.
pub fn template_fits(selector: &LabelSelector, template: &PodTemplateSpec) -> bool {
    let labels = template.metadata.as_ref().and_then(|m| m.labels.as_ref());
    !selector::is_empty(selector) && selector::matches(selector, labels)
}

/// What an owner controls, and the writes that make the truth match its selector: orphans that
/// match are adopted, children that match no longer are released. Both take part from the next
/// step on.
pub fn claim<'a, O: Kind, K: Kind + 'a>(
    world: &'a World,
    owner: &O,
    wanted: &LabelSelector,
) -> (Vec<&'a K>, Vec<Write>) {
    let (uid, owner_lives) = (uid_of(owner), !is_terminating(owner.metadata()));
    let namespace = owner.metadata().namespace.clone().unwrap_or_default();
    let (mut owned, mut writes) = (Vec::new(), Vec::new());
    if selector::is_empty(wanted) {
        return (owned, writes);
    }
    let inside = K::store(world)
        .range((namespace.clone(), String::new())..)
        .take_while(|((ns, _), _)| *ns == namespace)
        .map(|(_, object)| object);
    for child in inside {
        let meta = child.metadata();
        let matching = selector::matches(wanted, meta.labels.as_ref());
        match controller_of(meta) {
            Some(controller) if controller.uid == uid && !matching && owner_lives => {
                writes.push(with_owners(child, |owners| owners.retain(|o| o.uid != uid)));
            }
            Some(controller) if controller.uid == uid => owned.push(child),
            None if matching && owner_lives && !is_terminating(meta) => {
                writes.push(with_owners(child, |owners| {
                    owners.push(controller_reference(owner))
                }));
            }
            _ => {}
        }
    }
    (owned, writes)
}

/// How many of some pods are active, ready and available.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub active: i32,
    pub ready: i32,
    pub available: i32,
}

pub fn count<'a>(
    pods: impl IntoIterator<Item = &'a Pod>,
    min_ready_seconds: i32,
    now: Timestamp,
) -> Count {
    let mut count = Count::default();
    for pod in pods.into_iter().filter(|pod| is_active(pod)) {
        count.active += 1;
        count.ready += i32::from(is_ready(pod));
        count.available += i32::from(is_available(pod, min_ready_seconds, now));
    }
    count
}

pub fn labels(meta: &ObjectMeta) -> &BTreeMap<String, String> {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    meta.labels.as_ref().unwrap_or(&NONE)
}

/// Zero is spelled by absence in most of Kubernetes' statuses.
pub fn nonzero(number: i32) -> Option<i32> {
    (number != 0).then_some(number)
}

fn with_owners<K: Kind>(child: &K, change: impl FnOnce(&mut Vec<OwnerReference>)) -> Write {
    let mut child = child.clone();
    let owners = child
        .metadata_mut()
        .owner_references
        .get_or_insert_with(Vec::new);
    change(owners);
    if owners.is_empty() {
        child.metadata_mut().owner_references = None;
    }
    Write::Update(child.into_object())
}
