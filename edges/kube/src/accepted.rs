//! Whether all of a policy is used, as a condition in its `status`: for the kinds that have one.
//!
//! A condition is about the object that it is written into: the object is read, judged as read, and written with its
//! `resourceVersion`, so that `observedGeneration` is the generation that was judged. Others' conditions stay. What says
//! so already is not written again, so that nothing is written because of what was written.
//!
//! The API leaves open what implementations say there; `parfait.dev/Accepted` is Parfait's own, beside those of others.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use parfait_cluster::{Key, Note, RawClusterNetworkPolicy, RawNodeNetworkPolicy};
use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::Error;
use crate::kinds::Kind;

/// The type of the condition.
const CONDITION: &str = "parfait.dev/Accepted";

/// How often it is tried if others write at the same time; then again by whoever asks.
const TRIES: usize = 3;

/// The longest message; kubectl prints it in one line.
const LONGEST: usize = 1_024;

/// Whether objects like this have such a status.
#[must_use]
pub const fn has_status(key: &Key) -> bool {
    matches!(
        key,
        Key::ClusterNetworkPolicy(_) | Key::NodeNetworkPolicy(_)
    )
}

/// Makes the status of a policy say whether all of it is used. One that is gone is told nothing, nor one of a kind
/// without [such a status](has_status).
///
/// # Errors
/// If the API server cannot be reached or refuses.
pub async fn accept(client: &Client, key: &Key) -> Result<(), Error> {
    match key {
        Key::ClusterNetworkPolicy(name) => write::<RawClusterNetworkPolicy>(client, name).await,
        Key::NodeNetworkPolicy(name) => write::<RawNodeNetworkPolicy>(client, name).await,
        _ => Ok(()),
    }
}

/// Verbs: get of the kind, patch of its subresource `status`.
async fn write<K: Kind>(client: &Client, name: &str) -> Result<(), Error> {
    let resource = ApiResource::erase::<K>(&());
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let operation = format!("write the status of {} {name}", resource.kind);
    for left in (0..TRIES).rev() {
        let read = api.get_opt(name).await;
        let Some(object) = read.map_err(Error::request(&operation))? else {
            return Ok(());
        };
        let Some(patch) = patch::<K>(&object) else {
            return Ok(());
        };
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        match api.patch_status(name, &params, &patch).await {
            // Somebody else has written meanwhile.
            Err(kube::Error::Api(status)) if status.code == 409 && left > 0 => {}
            // It is gone, or its definition is an older one, without a status.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            written => return written.map(drop).map_err(Error::request(&operation)),
        }
    }
    Ok(())
}

/// What is to be written, if the object does not say it.
fn patch<K: Kind>(object: &DynamicObject) -> Option<Value> {
    let parsed = object.clone().try_parse::<K>().ok()?;
    let (_, _, notes) = parsed.read()?;
    let there = &object.data["status"]["conditions"];
    let there = there.as_array().into_iter().flatten();
    let (own, others): (Vec<&Value>, Vec<&Value>) =
        there.partition(|condition| condition["type"] == CONDITION);
    let before = own.first().map(|own| Condition::deserialize(*own));
    let before = before.and_then(Result::ok);
    let now = condition(&notes, object.metadata.generation, before.as_ref());
    if before.as_ref() == Some(&now) {
        return None;
    }
    let others = others.into_iter().cloned();
    let conditions: Vec<Value> = others.chain([json!(now)]).collect();
    Some(json!({
        "metadata": {"resourceVersion": object.metadata.resource_version},
        "status": {"conditions": conditions},
    }))
}

fn condition(notes: &[Note], generation: Option<i64>, before: Option<&Condition>) -> Condition {
    let (status, reason, message) = match notes {
        [] => ("True", "Accepted", "all of it is used".to_owned()),
        notes => ("False", "Invalid", message(notes)),
    };
    let since = before.filter(|before| before.status == status);
    let since = since.map(|before| before.last_transition_time.clone());
    Condition {
        type_: CONDITION.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: generation,
        last_transition_time: since.unwrap_or_else(|| Time(Timestamp::now())),
    }
}

/// `spec.egress[0].to[0]: …; spec.ingress[1]: …; and 7 more`
fn message(notes: &[Note]) -> String {
    let mut message = String::new();
    for (index, note) in notes.iter().enumerate() {
        let said = note.in_object();
        match message.len() + said.len() {
            _ if index == 0 => message = said,
            ..=LONGEST => message = format!("{message}; {said}"),
            _ => return format!("{message}; and {} more", notes.len() - index),
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A policy of which a rule cannot be used, and what another implementation says of it.
    fn policy() -> DynamicObject {
        let policy = json!({
            "apiVersion": "policy.networking.k8s.io/v1alpha2",
            "kind": "ClusterNetworkPolicy",
            "metadata": {"name": "domains", "generation": 3, "resourceVersion": "71"},
            "spec": {
                "tier": "Admin", "priority": 7, "subject": {"namespaces": {}},
                "egress": [{"action": "Accept", "to": [{"domainNames": ["*.example.com"]}]}],
            },
            "status": {"conditions": [{
                "type": "Ready-In-Zone-a", "status": "True", "reason": "SetupSucceeded", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]},
        });
        serde_json::from_value(policy).expect("an object")
    }

    fn written(object: &mut DynamicObject) -> Option<Vec<Value>> {
        let patch = patch::<RawClusterNetworkPolicy>(object)?;
        assert_eq!(
            patch["metadata"]["resourceVersion"], "71",
            "of what was read"
        );
        object.data["status"] = patch["status"].clone();
        Some(
            object.data["status"]["conditions"]
                .as_array()
                .expect("a list")
                .clone(),
        )
    }

    #[test]
    fn a_policy_is_told_what_of_it_is_not_used_and_once_it_is_mended() {
        let mut policy = policy();
        let first = written(&mut policy).expect("nothing is there yet");
        assert_eq!(first.len(), 2, "others' conditions stay");
        assert_eq!(first[0]["type"], "Ready-In-Zone-a");
        let own = &first[1];
        let said = ["type", "status", "reason"].map(|field| own[field].as_str());
        assert_eq!(said, [CONDITION, "False", "Invalid"].map(Some));
        let message = own["message"].as_str().unwrap_or_default();
        assert!(
            message.starts_with("spec.egress[0]") && message.contains("domainNames"),
            "{message}"
        );
        assert_eq!(own["observedGeneration"], 3);
        assert_eq!(written(&mut policy), None, "it says so already");

        // Time passes only when what is said changes.
        policy.data["status"]["conditions"][1]["lastTransitionTime"] =
            json!("2026-01-02T00:00:00Z");
        policy.metadata.generation = Some(4);
        let second = written(&mut policy).expect("another generation");
        assert_eq!(second[1]["observedGeneration"], 4);
        assert_eq!(second[1]["lastTransitionTime"], "2026-01-02T00:00:00Z");
        policy.data["spec"]["egress"] = json!([]);
        let mended = written(&mut policy).expect("it is mended");
        assert_eq!(
            (&mended[1]["status"], &mended[1]["reason"]),
            (&json!("True"), &json!("Accepted"))
        );
        assert_ne!(mended[1]["lastTransitionTime"], "2026-01-02T00:00:00Z");
    }

    #[test]
    fn a_message_has_an_end() {
        let by = parfait_packet::Origin::parfait("test");
        let notes: Vec<_> = (0..100)
            .map(|index| {
                Note::new(
                    by.clone().field(&format!("spec.egress[{index}]")),
                    "x".repeat(80),
                )
            })
            .collect();
        let message = message(&notes);
        assert!(message.starts_with("spec.egress[0]: xxx"), "{message}");
        assert!(message.len() < LONGEST + 32, "{}", message.len());
        assert!(message.ends_with("; and 90 more"), "{message}");
    }
}
