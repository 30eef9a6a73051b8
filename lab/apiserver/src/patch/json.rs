//! JSON patch (RFC 6902), applied one operation at a time so that a small patch cannot make a large object.
//!
//! `copy` can double a value with every operation: two dozen of them make gigabytes of a kilobyte, and `add` at ever
//! longer paths makes a value too deep for any recursion. kube-apiserver therefore bounds the number of operations and the
//! bytes copied by all of them together (`maxJSONPatchOperations`, `AccumulatedCopySizeLimit`); the depth is bounded here
//! to what a body may have as well.

use json_patch::{Patch, PatchOperation};
use serde_json::Value;

use crate::body;
use crate::status::ApiError;

/// The operations of one patch.
const OPERATIONS: usize = 10_000;

/// How deep an object may be nested; a body's limit is serde_json's, 128.
const DEPTH: usize = 128;

/// Applies a patch, all of it or nothing.
pub fn apply(current: &Value, patch: &Value) -> Result<Value, ApiError> {
    let operations = patch.as_array().map_or(0, Vec::len);
    if operations > OPERATIONS {
        let message = format!(
            "The allowed maximum operations in a JSON patch is {OPERATIONS}, got {operations}"
        );
        return Err(too_large(message));
    }
    let Patch(operations) = serde_json::from_value(patch.clone())
        .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
    let mut value = current.clone();
    let mut copied = 0;
    for (i, operation) in operations.into_iter().enumerate() {
        bound(&value, &operation, &mut copied)?;
        json_patch::patch(&mut value, &[operation]).map_err(|error| {
            let (path, kind) = (error.path, error.kind);
            refused(&format!(
                "operation {i} failed at path {:?}: {kind}",
                path.as_str()
            ))
        })?;
    }
    Ok(value)
}

/// Refuses an operation whose result would be too large or too deep.
fn bound(value: &Value, operation: &PatchOperation, copied: &mut usize) -> Result<(), ApiError> {
    let (path, new) = match operation {
        PatchOperation::Add(add) => (add.path.as_str(), Some(&add.value)),
        PatchOperation::Replace(replace) => (replace.path.as_str(), Some(&replace.value)),
        PatchOperation::Move(from) => (from.path.as_str(), value.pointer(from.from.as_str())),
        PatchOperation::Copy(copy) => {
            let source = value.pointer(copy.from.as_str());
            *copied += source.map_or(0, size);
            if *copied > body::LIMIT {
                let limit = body::LIMIT;
                return Err(too_large(format!(
                    "the copies of a JSON patch may not make more than {limit} bytes"
                )));
            }
            (copy.path.as_str(), source)
        }
        PatchOperation::Remove(_) | PatchOperation::Test(_) => return Ok(()),
    };
    if path.matches('/').count() + new.map_or(0, depth) > DEPTH {
        return Err(refused(&format!(
            "an object may not be nested more than {DEPTH} deep"
        )));
    }
    Ok(())
}

/// What a value takes as JSON, about.
fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => items.iter().map(|v| size(v) + 1).sum::<usize>() + 2,
        Value::Object(fields) => {
            let field = |(key, v): (&String, &Value)| key.len() + 4 + size(v);
            fields.iter().map(field).sum::<usize>() + 2
        }
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn too_large(message: String) -> ApiError {
    ApiError {
        message,
        ..ApiError::too_large(body::LIMIT)
    }
}

fn refused(error: &str) -> ApiError {
    let mut refusal = ApiError::bad_request(format!(
        "the server rejected our request due to an error in our request: {error}"
    ));
    refusal.code = 422;
    refusal.reason = "Invalid";
    refusal
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// 24 operations would make 16 GiB of a kilobyte, and stopped the machine.
    #[test]
    fn copies_that_double_are_refused() {
        let mut patch =
            vec![json!({ "op": "add", "path": "/a", "value": { "x": "x".repeat(1000) } })];
        patch.extend(
            (0..24).map(|i| json!({ "op": "copy", "from": "/a", "path": format!("/a/{i}") })),
        );
        let error = apply(&json!({}), &Value::Array(patch)).expect_err("too large");
        assert_eq!(error.code, 413, "{error:?}");
    }

    #[test]
    fn paths_that_grow_do_not_make_a_value_too_deep_to_drop() {
        let nest = (0..100).fold(json!({}), |inner, _| json!({ "a": inner }));
        let patch: Vec<Value> = (0..100)
            .map(|i| json!({ "op": "add", "path": "/a".repeat(1 + 100 * i), "value": nest }))
            .collect();
        let error = apply(&json!({}), &Value::Array(patch)).expect_err("too deep");
        assert_eq!(error.code, 422, "{error:?}");
    }

    #[test]
    fn too_many_operations_are_refused() {
        let patch = vec![json!({ "op": "test", "path": "", "value": {} }); OPERATIONS + 1];
        let error = apply(&json!({}), &Value::Array(patch)).expect_err("too many");
        assert_eq!(error.code, 413);
    }

    #[test]
    fn nothing_is_applied_of_a_patch_that_fails() {
        let patch =
            json!([{ "op": "add", "path": "/a", "value": 1 }, { "op": "remove", "path": "/b" }]);
        let current = json!({ "c": [] });
        let error = apply(&current, &patch).expect_err("no /b");
        assert_eq!(error.code, 422);
        assert!(
            error.message.contains("operation 1 failed at path \"/b\""),
            "{error:?}"
        );
        let patch = json!([
            { "op": "add", "path": "/c/-", "value": 1 }, { "op": "copy", "from": "/c", "path": "/d" },
            { "op": "move", "from": "/c", "path": "/e" },
        ]);
        assert_eq!(
            apply(&current, &patch).expect("it applies"),
            json!({ "d": [1], "e": [1] })
        );
    }
}
