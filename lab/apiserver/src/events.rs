//! Events speak two dialects: core `v1` and `events.k8s.io/v1`. They are stored in the first.
//!
//! Only names differ (`pkg/apis/events/v1/conversion.go`), so conversion is a table of renames.

use serde_json::{Map, Value, json};

/// core v1 name, events.k8s.io/v1 name.
const RENAMES: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// The stored form of an `events.k8s.io/v1` Event.
pub fn to_core_v1(event: &Value) -> Value {
    let mut core = renamed(event, |key| {
        RENAMES
            .iter()
            .find(|(_, v1)| *v1 == key)
            .map(|(core, _)| *core)
    });
    if let Some(core) = core.as_object_mut() {
        core.insert("apiVersion".to_owned(), json!("v1"));
        core.entry("involvedObject").or_insert_with(|| json!({}));
    }
    core
}

/// The `events.k8s.io/v1` form of a stored Event.
pub fn to_events_v1(event: &Value) -> Value {
    let mut spoken = renamed(event, |key| {
        RENAMES
            .iter()
            .find(|(core, _)| *core == key)
            .map(|(_, v1)| *v1)
    });
    if let Some(spoken) = spoken.as_object_mut() {
        spoken.insert("apiVersion".to_owned(), json!("events.k8s.io/v1"));
    }
    spoken
}

fn renamed(event: &Value, name: impl Fn(&str) -> Option<&'static str>) -> Value {
    let Some(event) = event.as_object() else {
        return event.clone();
    };
    let rename =
        |(key, value): (&String, &Value)| (name(key).unwrap_or(key).to_owned(), value.clone());
    Value::Object(event.iter().map(rename).collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let spoken = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": { "name": "e" }, "note": "hello",
            "regarding": { "kind": "Pod" }, "reportingController": "c", "reason": "R", "eventTime": "2026-01-01T00:00:00.000000Z",
        });
        let core = to_core_v1(&spoken);
        assert_eq!(core["message"], "hello");
        assert_eq!(core["apiVersion"], "v1");
        assert_eq!(to_events_v1(&core), spoken);
    }
}
