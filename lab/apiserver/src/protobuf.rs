//! Request bodies in Kubernetes' protobuf, which kubectl's typed clients send (`kubectl create …`, `drain`).
//!
//! ```text
//!  "k8s\0"  Unknown { 1: TypeMeta { 1: apiVersion, 2: kind }, 2: the object's own message }
//! ```
//!
//! Numbers, not names, are on the wire, so reading needs a table (`protobuf/schema.rs`). It holds what kubectl's
//! imperative commands send and not the whole API: a message or a field outside of it is refused by name, never
//! dropped. Responses are always JSON; clients that prefer protobuf take it.
//!
//! Source: the wire format of protobuf, `k8s.io/apimachinery/pkg/runtime/serializer/protobuf`, and the field numbers of
//! the API's `.proto` files. Go writes fields that are no pointers even when empty; those are left out here as in JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::status::ApiError;

mod schema;

use schema::{Field, Type, message};

const MAGIC: &[u8] = b"k8s\0";

/// Reads an enveloped object.
pub fn decode(bytes: &[u8]) -> Result<Value, ApiError> {
    envelope(bytes).map_err(|why| {
        ApiError::unsupported_media_type(format!(
            "cannot read this application/vnd.kubernetes.protobuf body: {why}; send application/json"
        ))
    })
}

fn envelope(bytes: &[u8]) -> Result<Value, String> {
    let body = bytes
        .strip_prefix(MAGIC)
        .ok_or("it does not begin with \"k8s\\0\"")?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    let mut reader = Reader { rest: body };
    while let Some((number, wire)) = reader.field()? {
        match (number, wire) {
            (1, Wire::Bytes(meta)) => {
                let mut meta = Reader { rest: meta };
                while let Some((number, wire)) = meta.field()? {
                    match (number, wire) {
                        (1, Wire::Bytes(text)) => api_version = utf8(text)?,
                        (2, Wire::Bytes(text)) => kind = utf8(text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let fields =
        message(&kind).ok_or_else(|| format!("{kind} is not among the kinds read in this form"))?;
    let mut object = read_message(&kind, fields, raw)?;
    object["apiVersion"] = json!(api_version);
    object["kind"] = json!(kind);
    Ok(object)
}

fn read_message(name: &str, fields: &[Field], bytes: &[u8]) -> Result<Value, String> {
    let mut object = Map::new();
    let mut reader = Reader { rest: bytes };
    while let Some((number, wire)) = reader.field()? {
        let Some(field) = fields.iter().find(|f| f.number == number) else {
            if wire.is_default() {
                continue;
            }
            return Err(format!("field {number} of {name} is not read in this form"));
        };
        read_field(&mut object, name, field, wire)?;
    }
    Ok(Value::Object(object))
}

fn read_field(
    object: &mut Map<String, Value>,
    name: &str,
    field: &Field,
    wire: Wire<'_>,
) -> Result<(), String> {
    match &field.kind {
        Type::Skip => {}
        // An embedded struct: its fields are the owner's in JSON.
        Type::Inline(inner) => {
            if let Value::Object(fields) =
                read_value(name, &Type::Message(inner.clone()), wire)?.unwrap_or_default()
            {
                object.extend(fields);
            }
        }
        Type::List(item) => {
            let list = object
                .entry(field.name.clone())
                .or_insert_with(|| json!([]));
            // An empty text is still an element.
            let value = read_value(name, item, wire)?.unwrap_or_else(|| json!(""));
            if let Some(list) = list.as_array_mut() {
                list.push(value);
            }
        }
        Type::Map(value_type) => {
            let Wire::Bytes(entry) = wire else {
                return Err(mismatch(name, field));
            };
            let (mut key, mut value) = (String::new(), None);
            let mut reader = Reader { rest: entry };
            while let Some((number, wire)) = reader.field()? {
                match (number, wire) {
                    (1, Wire::Bytes(text)) => key = utf8(text)?,
                    (2, wire) => value = read_value(name, value_type, wire)?,
                    _ => {}
                }
            }
            let map = object
                .entry(field.name.clone())
                .or_insert_with(|| json!({}));
            map[key] = value.unwrap_or_else(|| json!(""));
        }
        kind => {
            let value =
                read_value(name, kind, wire).map_err(|error| format!("{}: {error}", field.name))?;
            if let Some(value) = value {
                object.insert(field.name.clone(), value);
            }
        }
    }
    Ok(())
}

fn mismatch(name: &str, field: &Field) -> String {
    format!("{name}.{} has another type on the wire", field.name)
}

/// One value; nothing for a zero that JSON leaves out.
fn read_value(name: &str, kind: &Type, wire: Wire<'_>) -> Result<Option<Value>, String> {
    let value = match (kind, wire) {
        (Type::Text { keep_empty }, Wire::Bytes(text)) => {
            let text = utf8(text)?;
            (*keep_empty || !text.is_empty()).then(|| json!(text))
        }
        (Type::Number { keep_zero }, Wire::Varint(number)) => {
            // Negative numbers are sign-extended to 64 bits, for 32-bit fields too.
            let number = number.cast_signed();
            (*keep_zero || number != 0).then(|| json!(number))
        }
        (Type::Flag { keep_false }, Wire::Varint(flag)) => {
            (*keep_false || flag != 0).then(|| json!(flag != 0))
        }
        (Type::Blob, Wire::Bytes(bytes)) => Some(json!(STANDARD.encode(bytes))),
        (Type::Time, Wire::Bytes(bytes)) => time(bytes)?,
        (Type::Quantity, Wire::Bytes(bytes)) => match (Reader { rest: bytes }).field()? {
            Some((1, Wire::Bytes(text))) => Some(json!(utf8(text)?)),
            _ => None,
        },
        (Type::IntOrString, Wire::Bytes(bytes)) => int_or_string(bytes)?,
        (Type::Message(inner), Wire::Bytes(bytes)) => {
            let fields =
                message(inner).ok_or_else(|| format!("{inner} is not read in this form"))?;
            Some(read_message(inner, fields, bytes)?)
        }
        _ => return Err(format!("a field of {name} has another type on the wire")),
    };
    Ok(value)
}

fn time(bytes: &[u8]) -> Result<Option<Value>, String> {
    let mut reader = Reader { rest: bytes };
    while let Some((number, wire)) = reader.field()? {
        if let (1, Wire::Varint(seconds)) = (number, wire) {
            let time =
                Timestamp::from_second(seconds.cast_signed()).map_err(|error| error.to_string())?;
            return Ok(Some(json!(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())));
        }
    }
    Ok(None)
}

fn int_or_string(bytes: &[u8]) -> Result<Option<Value>, String> {
    let (mut is_text, mut number, mut text) = (false, 0, String::new());
    let mut reader = Reader { rest: bytes };
    while let Some((field, wire)) = reader.field()? {
        match (field, wire) {
            (1, Wire::Varint(kind)) => is_text = kind == 1,
            (2, Wire::Varint(value)) => number = value.cast_signed(),
            (3, Wire::Bytes(value)) => text = utf8(value)?,
            _ => {}
        }
    }
    Ok(Some(if is_text { json!(text) } else { json!(number) }))
}

fn utf8(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|error| error.to_string())
}

/// A field's value as it is on the wire.
enum Wire<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed(u64),
}

impl Wire<'_> {
    fn is_default(&self) -> bool {
        match self {
            Wire::Varint(number) | Wire::Fixed(number) => *number == 0,
            Wire::Bytes(bytes) => bytes.is_empty(),
        }
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn field(&mut self) -> Result<Option<(u64, Wire<'a>)>, String> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed(self.fixed(8)?),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|error| error.to_string())?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed(self.fixed(4)?),
            other => return Err(format!("wire type {other} is unknown")),
        };
        Ok(Some((tag >> 3, wire)))
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.take(1)? else {
                return Err("it ends early".to_owned());
            };
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number is longer than 64 bits".to_owned())
    }

    fn fixed(&mut self, length: usize) -> Result<u64, String> {
        Ok(self
            .take(length)?
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        if length > self.rest.len() {
            return Err("it ends early".to_owned());
        }
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(field: u8, content: &[u8]) -> Vec<u8> {
        let mut out = vec![
            field << 3 | 2,
            u8::try_from(content.len()).expect("a short test"),
        ];
        out.extend_from_slice(content);
        out
    }

    fn enveloped(kind: &str, object: &[u8]) -> Vec<u8> {
        let meta = [bytes(1, b"v1"), bytes(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), bytes(1, &meta), bytes(2, object)].concat()
    }

    #[test]
    fn a_config_map() {
        let metadata = [bytes(1, b"c"), bytes(3, b""), bytes(8, b"")].concat();
        let entry = [bytes(1, b"k"), bytes(2, b"v")].concat();
        let object = [bytes(1, &metadata), bytes(2, &entry)].concat();
        assert_eq!(
            decode(&enveloped("ConfigMap", &object)).expect("it is read"),
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "c" }, "data": { "k": "v" } })
        );
    }

    #[test]
    fn what_is_not_in_the_table_is_refused_by_name() {
        let error = decode(&enveloped("ConfigMap", &bytes(15, b"x"))).expect_err("no such field");
        assert!(
            error.message.contains("field 15 of ConfigMap"),
            "{}",
            error.message
        );
        assert_eq!(
            decode(&enveloped("Gadget", b""))
                .expect_err("no such kind")
                .code,
            415
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(object in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = decode(&enveloped("Pod", &object));
            let _ = decode(&object);
        }
    }
}
