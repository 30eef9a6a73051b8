//! Request bodies: JSON, YAML or (for some kinds) protobuf, read into a value, with duplicate JSON keys noted on the way.
//!
//! `serde_json` keeps the last of two equal keys and says nothing; server-side field validation must say something
//! (`duplicate field "spec.x"`). So the value is built by a visitor of our own that remembers the path of each repeat.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::protobuf;
use crate::status::ApiError;

/// The largest body read, as kube-apiserver's.
pub const LIMIT: usize = 3 * 1024 * 1024;

/// A body and the fields that occurred twice in one object.
#[derive(Debug)]
pub struct Decoded {
    /// The value; of repeated keys the last one.
    pub value: Value,
    /// Paths of repeated keys.
    pub duplicates: Vec<String>,
}

/// Reads a body by its content type; JSON when none is given.
pub fn decode(content_type: &str, bytes: &[u8]) -> Result<Decoded, ApiError> {
    match content_type.split(';').next().unwrap_or_default().trim() {
        "" | "application/json" => decode_json(bytes),
        "application/yaml" => {
            let text = std::str::from_utf8(bytes).map_err(|error| {
                ApiError::bad_request(format!("the body is not UTF-8: {error}"))
            })?;
            let value = serde_saphyr::from_str(text)
                .map_err(|error| ApiError::bad_request(format!("couldn't parse YAML: {error}")))?;
            Ok(Decoded {
                value,
                duplicates: Vec::new(),
            })
        }
        "application/vnd.kubernetes.protobuf" => Ok(Decoded {
            value: protobuf::decode(bytes)?,
            duplicates: Vec::new(),
        }),
        other => Err(ApiError::unsupported_media_type(format!(
            "the body of the request was in an unknown format ({other:?}) - accepted media types include: \
             application/json, application/yaml, application/vnd.kubernetes.protobuf"
        ))),
    }
}

/// Reads JSON whatever the content type says.
pub fn decode_json(bytes: &[u8]) -> Result<Decoded, ApiError> {
    let duplicates = RefCell::new(Vec::new());
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let seed = Node {
        path: String::new(),
        duplicates: &duplicates,
    };
    let value = seed
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| ApiError::bad_request(format!("couldn't parse JSON: {error}")))?;
    Ok(Decoded {
        value,
        duplicates: duplicates.into_inner(),
    })
}

struct Node<'a> {
    path: String,
    duplicates: &'a RefCell<Vec<String>>,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(Number::from_f64(v).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::String(v))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let path = format!("{}[{}]", self.path, items.len());
            match seq.next_element_seed(Node {
                path,
                duplicates: self.duplicates,
            })? {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let path = if self.path.is_empty() {
                key.clone()
            } else {
                format!("{}.{key}", self.path)
            };
            let value = map.next_value_seed(Node {
                path: path.clone(),
                duplicates: self.duplicates,
            })?;
            if object.insert(key, value).is_some() {
                self.duplicates.borrow_mut().push(path);
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn duplicates_are_named_and_the_last_one_counts() {
        let text = br#"{"a":1,"spec":{"x":[{"n":1,"n":2}],"y":true,"y":null},"a":2.5}"#;
        let decoded = decode("application/json", text).expect("it parses");
        assert_eq!(
            decoded.value,
            json!({ "a": 2.5, "spec": { "x": [{ "n": 2 }], "y": null } })
        );
        assert_eq!(decoded.duplicates, ["spec.x[0].n", "spec.y", "a"]);
    }

    #[test]
    fn bodies_that_are_no_json_are_400_and_unknown_forms_415() {
        for text in ["", "{", "{} x", "[1,]"] {
            assert_eq!(
                decode("application/json", text.as_bytes())
                    .expect_err(text)
                    .code,
                400
            );
        }
        assert_eq!(
            decode("application/vnd.kubernetes.protobuf", b"k8s")
                .expect_err("protobuf")
                .code,
            415
        );
        assert_eq!(
            decode("application/yaml", b"a: [1]").expect("YAML").value,
            json!({ "a": [1] })
        );
    }
}
