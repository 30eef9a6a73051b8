//! Strategic merge: a JSON merge patch that knows which lists are really maps.
//!
//! `kubectl apply`, `edit`, `set`, `label` and `scale` send it for built-in kinds. On top of a merge patch:
//!
//! | directive | where | meaning |
//! |---|---|---|
//! | `$patch: replace` | object, or item of a keyed list | the patch is the new value |
//! | `$patch: delete` | object, or item of a keyed list | the object, or the item with that key, goes |
//! | `$patch: merge` | object | the default |
//! | `$retainKeys: [a, b]` | object | every other key goes before merging |
//! | `$setElementOrder/f: [..]` | object | the order of list `f` after merging |
//! | `$deleteFromPrimitiveList/f: [..]` | object | these go from the set `f` |
//!
//! Follows `k8s.io/apimachinery/pkg/util/strategicpatch/patch.go`; which lists are keyed is in [`super::schema`].
//! Promise: any patch either applies or is refused; none panics, whatever its shape.

use serde_json::{Map, Value};

use super::schema::{Field, PLAIN, Schema};
use crate::status::ApiError;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

/// Applies a strategic-merge patch to a whole object.
pub fn apply(schema: &Schema, current: &Value, patch: &Value) -> Result<Value, ApiError> {
    let (Value::Object(current), Value::Object(patch)) = (current, patch) else {
        return Err(ApiError::bad_request(
            "a strategic merge patch must be a JSON object",
        ));
    };
    merge_object(schema, current.clone(), patch).map(Value::Object)
}

type Object = Map<String, Value>;

fn merge_object(schema: &Schema, mut current: Object, patch: &Object) -> Result<Object, ApiError> {
    match patch.get(PATCH).map(directive).transpose()? {
        Some(Directive::Replace) => return Ok(stripped(patch)),
        Some(Directive::Delete) => return Ok(Object::new()),
        Some(Directive::Merge) | None => {}
    }
    if let Some(keys) = patch.get(RETAIN_KEYS) {
        let keys = list(RETAIN_KEYS, keys)?;
        current.retain(|key, _| keys.iter().any(|k| k == key));
    }
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix(DELETE_FROM) {
            let gone = list(key, value)?;
            if let Some(Value::Array(items)) = current.get_mut(field) {
                items.retain(|item| !gone.contains(item));
            }
        }
    }
    let before = current.clone();
    for (key, value) in patch.iter().filter(|(key, _)| !key.starts_with('$')) {
        if value.is_null() {
            current.remove(key);
            continue;
        }
        let merged = merge_field(schema.field(key), key, current.remove(key), value)?;
        current.insert(key.clone(), merged);
    }
    for (key, order) in patch {
        if let Some(field) = key.strip_prefix(ORDER) {
            let order = list(key, order)?;
            if let Some(Value::Array(items)) = current.get_mut(field) {
                let server = before
                    .get(field)
                    .and_then(Value::as_array)
                    .map_or(&[][..], Vec::as_slice);
                let merge_key = match schema.field(field) {
                    Some(Field::Keyed(key, _)) => Some(key),
                    _ => None,
                };
                reorder(merge_key, items, order, server);
            }
        }
    }
    Ok(current)
}

fn merge_field(
    field: Option<Field>,
    key: &str,
    current: Option<Value>,
    patch: &Value,
) -> Result<Value, ApiError> {
    match (current, patch) {
        (Some(Value::Object(current)), Value::Object(patch)) => {
            let schema = if let Some(Field::Object(schema)) = field {
                schema
            } else {
                &PLAIN
            };
            merge_object(schema, current, patch).map(Value::Object)
        }
        (Some(Value::Array(current)), Value::Array(patch)) => match field {
            Some(Field::Keyed(merge_key, schema)) => {
                merge_keyed(merge_key, schema, key, current, patch)
            }
            Some(Field::Set) => Ok(merge_set(current, patch)),
            _ => Ok(clean(&Value::Array(patch.clone()))),
        },
        // Nothing to merge with: the patch is the value, items with one key twice (a port, TCP and UDP) included.
        (None, Value::Array(patch)) => Ok(clean(&Value::Array(live_items(patch)))),
        (None, Value::Object(patch)) => {
            let schema = if let Some(Field::Object(schema)) = field {
                schema
            } else {
                &PLAIN
            };
            merge_object(schema, Object::new(), patch).map(Value::Object)
        }
        (_, patch) => Ok(clean(patch)),
    }
}

fn merge_set(mut current: Vec<Value>, patch: &[Value]) -> Value {
    let server = current.clone();
    for item in patch {
        if !current.contains(item) {
            current.push(item.clone());
        }
    }
    reorder(None, &mut current, patch, &server);
    Value::Array(current)
}

fn merge_keyed(
    merge_key: &str,
    schema: &Schema,
    field: &str,
    mut current: Vec<Value>,
    patch: &[Value],
) -> Result<Value, ApiError> {
    let replaces = patch
        .iter()
        .any(|item| item.get(PATCH).and_then(Value::as_str) == Some("replace"));
    if replaces {
        // One item saying `replace` means the whole list; the bare directive itself is no element.
        let items = patch.iter().filter_map(Value::as_object).map(stripped);
        return Ok(Value::Array(
            items
                .filter(|item| !item.is_empty())
                .map(Value::Object)
                .collect(),
        ));
    }
    let server = current.clone();
    for item in patch {
        let Value::Object(item) = item else {
            return Err(ApiError::bad_request(format!(
                "patch of {field}: every element must be an object"
            )));
        };
        let Some(key) = item.get(merge_key) else {
            return Err(ApiError::bad_request(format!(
                "map: {} does not contain declared merge key: {merge_key}",
                Value::Object(item.clone())
            )));
        };
        let delete = match item.get(PATCH).map(directive).transpose()? {
            Some(Directive::Delete) => true,
            Some(Directive::Merge | Directive::Replace) | None => false,
        };
        if delete {
            current.retain(|c| c.get(merge_key) != Some(key));
            continue;
        }
        match current.iter_mut().find(|c| c.get(merge_key) == Some(key)) {
            Some(Value::Object(existing)) => {
                *existing = merge_object(schema, std::mem::take(existing), item)?
            }
            _ => current.push(Value::Object(merge_object(schema, Object::new(), item)?)),
        }
    }
    reorder(Some(merge_key), &mut current, &live_items(patch), &server);
    Ok(Value::Array(current))
}

/// Items of a patch that are values, not deletions.
fn live_items(patch: &[Value]) -> Vec<Value> {
    patch
        .iter()
        .filter(|item| item.get(PATCH).is_none())
        .cloned()
        .collect()
}

/// Puts `items` in the order the client asked for, keeping the server's own items where they were relative to their
/// neighbours (`normalizeElementOrder` in the original). Without an order of its own, a patch orders by itself: what
/// it adds comes first.
fn reorder(merge_key: Option<&str>, items: &mut Vec<Value>, order: &[Value], server: &[Value]) {
    let identity = |item: &Value| -> Value {
        match merge_key {
            Some(key) => item.get(key).cloned().unwrap_or(Value::Null),
            None => item.clone(),
        }
    };
    // The order list of a keyed field holds objects with just the key.
    let order: Vec<Value> = order.iter().map(identity).collect();
    let server: Vec<Value> = server.iter().map(identity).collect();
    let wanted = |item: &Value| order.iter().position(|o| *o == identity(item));
    let placed = |item: &Value| server.iter().position(|s| *s == identity(item));

    let (mut ours, mut theirs): (Vec<Value>, Vec<Value>) = std::mem::take(items)
        .into_iter()
        .partition(|item| wanted(item).is_some());
    ours.sort_by_key(&wanted);
    theirs.sort_by_key(|item| placed(item).unwrap_or(usize::MAX));
    let (mut ours, mut theirs) = (ours.into_iter().peekable(), theirs.into_iter().peekable());
    loop {
        let take_theirs = match (theirs.peek(), ours.peek()) {
            (None, None) => break,
            (None, Some(_)) => false,
            (Some(_), None) => true,
            (Some(a), Some(b)) => matches!((placed(a), placed(b)), (Some(a), Some(b)) if a < b),
        };
        items.extend(if take_theirs {
            theirs.next()
        } else {
            ours.next()
        });
    }
}

enum Directive {
    Replace,
    Delete,
    Merge,
}

fn directive(value: &Value) -> Result<Directive, ApiError> {
    match value.as_str() {
        Some("replace") => Ok(Directive::Replace),
        Some("delete") => Ok(Directive::Delete),
        Some("merge") => Ok(Directive::Merge),
        _ => Err(ApiError::bad_request(format!(
            "unrecognized patch directive {PATCH}: {value}"
        ))),
    }
}

fn list<'a>(name: &str, value: &'a Value) -> Result<&'a [Value], ApiError> {
    value
        .as_array()
        .map(Vec::as_slice)
        .ok_or_else(|| ApiError::bad_request(format!("{name} must be a list, not {value}")))
}

/// A patch value used as a value: directives and nulls gone.
fn clean(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(stripped(map)),
        Value::Array(items) => Value::Array(items.iter().map(clean).collect()),
        other => other.clone(),
    }
}

fn stripped(map: &Object) -> Object {
    map.iter()
        .filter(|(key, value)| !value.is_null() && !is_directive(key))
        .map(|(key, value)| (key.clone(), clean(value)))
        .collect()
}

fn is_directive(key: &str) -> bool {
    key == PATCH || key == RETAIN_KEYS || key.starts_with(ORDER) || key.starts_with(DELETE_FROM)
}

#[cfg(test)]
mod tests;
