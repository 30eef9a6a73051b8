//! Strategic merge against a table of cases after those in Kubernetes' `strategicpatch` tests.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::apply;
use crate::patch::schema;

fn pod(spec: Value) -> Value {
    json!({ "spec": spec })
}

fn check(current: Value, patch: Value, expected: Value) {
    let found = apply(&schema::POD, &pod(current), &pod(patch)).expect("the patch applies");
    assert_eq!(found, pod(expected));
}

#[test]
fn keyed_lists_merge_by_key() {
    check(
        json!({ "containers": [{ "name": "a", "image": "1" }, { "name": "b", "image": "1" }] }),
        json!({ "containers": [{ "name": "b", "image": "2" }, { "name": "c", "image": "3" }] }),
        json!({ "containers": [
            { "name": "a", "image": "1" }, { "name": "b", "image": "2" }, { "name": "c", "image": "3" } ] }),
    );
}

#[test]
fn plain_lists_are_replaced() {
    check(
        json!({ "tolerations": [{ "key": "a" }], "containers": [{ "name": "a", "args": ["x", "y"] }] }),
        json!({ "tolerations": [{ "key": "b" }], "containers": [{ "name": "a", "args": ["z"] }] }),
        json!({ "tolerations": [{ "key": "b" }], "containers": [{ "name": "a", "args": ["z"] }] }),
    );
}

#[test]
fn items_are_deleted_by_directive_and_fields_by_null() {
    check(
        json!({ "hostname": "h", "containers": [{ "name": "a", "env": [{ "name": "X", "value": "1" }, { "name": "Y" }] }] }),
        json!({ "hostname": null, "containers": [{ "name": "a", "env": [{ "name": "X", "$patch": "delete" }] }] }),
        json!({ "containers": [{ "name": "a", "env": [{ "name": "Y" }] }] }),
    );
}

#[test]
fn replace_takes_the_patch_for_the_whole() {
    check(
        json!({ "containers": [{ "name": "a" }, { "name": "b" }], "securityContext": { "runAsUser": 1 } }),
        json!({ "containers": [{ "name": "c" }, { "$patch": "replace" }],
                "securityContext": { "$patch": "replace", "fsGroup": 2 } }),
        json!({ "containers": [{ "name": "c" }], "securityContext": { "fsGroup": 2 } }),
    );
}

#[test]
fn retain_keys_clears_the_other_ones() {
    check(
        json!({ "volumes": [{ "name": "v", "emptyDir": {} }] }),
        json!({ "volumes": [{ "name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": { "path": "/x" } }] }),
        json!({ "volumes": [{ "name": "v", "hostPath": { "path": "/x" } }] }),
    );
}

#[test]
fn sets_gain_and_lose_members() {
    let current = json!({ "metadata": { "finalizers": ["a", "b"] } });
    let patch = json!({ "metadata": { "$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"] } });
    let found = apply(&schema::POD, &current, &patch).expect("the patch applies");
    assert_eq!(found, json!({ "metadata": { "finalizers": ["c", "b"] } }));
}

#[test]
fn element_order_is_the_clients_with_server_items_kept_in_place() {
    check(
        json!({ "containers": [{ "name": "a" }, { "name": "s" }, { "name": "b" }] }),
        json!({ "$setElementOrder/containers": [{ "name": "b" }, { "name": "c" }, { "name": "a" }],
                "containers": [{ "name": "c" }] }),
        json!({ "containers": [{ "name": "s" }, { "name": "b" }, { "name": "c" }, { "name": "a" }] }),
    );
}

#[test]
fn one_port_for_two_protocols_survives_where_there_was_no_list() {
    let ports = json!([{ "containerPort": 53, "protocol": "TCP" }, { "containerPort": 53, "protocol": "UDP" }]);
    check(
        json!({ "containers": [{ "name": "dns" }] }),
        json!({ "containers": [{ "name": "dns", "ports": ports }] }),
        json!({ "containers": [{ "name": "dns", "ports": ports }] }),
    );
}

#[test]
fn nonsense_is_refused_not_guessed() {
    for patch in [
        json!({ "spec": { "$patch": "explode" } }),
        json!({ "spec": { "$retainKeys": 1 } }),
        json!({ "spec": { "containers": [{ "image": "keyless" }] } }),
        json!({ "spec": { "containers": ["a"] } }),
        json!([]),
    ] {
        let error =
            apply(&schema::POD, &pod(json!({ "containers": [] })), &patch).expect_err("refused");
        assert_eq!(error.code, 400, "{patch}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let key = prop::sample::select(vec![
        "spec",
        "metadata",
        "containers",
        "name",
        "env",
        "finalizers",
        "$patch",
        "$retainKeys",
        "ports",
        "$setElementOrder/containers",
        "$deleteFromPrimitiveList/finalizers",
        "containerPort",
        "volumes",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        Just(json!("a")),
        Just(json!("delete")),
        Just(json!("replace")),
        Just(json!(1)),
        Just(json!(true)),
    ];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(key.clone().prop_map(str::to_owned), inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_patch_panics(current in any_json(), patch in any_json()) {
        let _ = apply(&schema::POD, &current, &patch);
    }

    #[test]
    fn an_empty_patch_changes_nothing(current in any_json()) {
        if current.is_object() {
            prop_assert_eq!(apply(&schema::POD, &current, &json!({})).expect("applies"), current);
        }
    }
}
