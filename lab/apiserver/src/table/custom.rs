//! The columns that a CustomResourceDefinition declares (`additionalPrinterColumns`).
//!
//! A column's path is the part of kubectl's JSONPath that definitions use: fields, indexes, `[*]` and
//! `[?(@.key=="value")]`. What leads nowhere prints nothing.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::age;

/// One declared column.
pub struct Printer {
    name: String,
    kind: String,
    path: Vec<Segment>,
    wide: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Segment {
    Field(String),
    Index(usize),
    All,
    With { key: String, value: String },
}

impl Printer {
    /// A column from its declaration.
    pub fn new(name: &str, kind: &str, path: &str, wide: bool) -> Self {
        Self {
            name: name.to_owned(),
            kind: kind.to_owned(),
            path: parse(path),
            wide,
        }
    }

    pub(super) fn definition(&self) -> Value {
        json!({
            "name": self.name, "type": self.kind, "format": "", "description": "", "priority": i32::from(self.wide),
        })
    }

    pub(super) fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let mut found = vec![object];
        for segment in &self.path {
            found = found
                .into_iter()
                .flat_map(|value| segment.of(value))
                .collect();
        }
        match (found.as_slice(), self.kind.as_str()) {
            ([], _) => Value::Null,
            ([time], "date") => json!(age::since(time.as_str().unwrap_or_default(), now)),
            ([one], "string") if !one.is_string() => json!(one.to_string()),
            ([one], _) => (*one).clone(),
            (many, _) => {
                let texts = many.iter().map(|value| match value {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                });
                json!(texts.collect::<Vec<_>>().join(","))
            }
        }
    }
}

impl Segment {
    fn of<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match self {
            Self::Field(name) => value.get(name).into_iter().collect(),
            Self::Index(index) => value.get(*index).into_iter().collect(),
            Self::All => super::items(value).collect(),
            Self::With { key, value: wanted } => super::items(value)
                .filter(|item| item[key.as_str()].as_str() == Some(wanted))
                .collect(),
        }
    }
}

/// `.status.conditions[?(@.type=="Ready")].status`; a dot within a field's name is written `\.`.
fn parse(path: &str) -> Vec<Segment> {
    let mut segments = Vec::new();
    let mut rest = path;
    while let Some(start) = rest.chars().next() {
        if start == '[' {
            let end = rest.find(']').unwrap_or(rest.len());
            segments.extend(bracket(&rest[1..end]));
            rest = rest.get(end + 1..).unwrap_or_default();
            continue;
        }
        let from = rest.strip_prefix('.').unwrap_or(rest);
        let mut name = String::new();
        let mut taken = 0;
        let mut escaped = false;
        for c in from.chars() {
            match c {
                '\\' if !escaped => escaped = true,
                '.' | '[' if !escaped => break,
                _ => {
                    name.push(c);
                    escaped = false;
                }
            }
            taken += c.len_utf8();
        }
        if !name.is_empty() {
            segments.push(Segment::Field(name));
        }
        // A path of nothing but dots still ends.
        let step = rest.len() - from.len() + taken;
        rest = &rest[step.max(1)..];
    }
    segments
}

fn bracket(inner: &str) -> Option<Segment> {
    if inner == "*" {
        return Some(Segment::All);
    }
    if let Ok(index) = inner.parse() {
        return Some(Segment::Index(index));
    }
    let quoted = |text: &str| text.trim().trim_matches(['\'', '"']).to_owned();
    let Some(filter) = inner
        .strip_prefix("?(@.")
        .and_then(|text| text.strip_suffix(')'))
    else {
        return Some(Segment::Field(quoted(inner)));
    };
    let (key, value) = filter.split_once("==")?;
    Some(Segment::With {
        key: key.trim().to_owned(),
        value: quoted(value),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_definitions_use() {
        let object = json!({
            "metadata": { "annotations": { "a.b/c": "yes" } },
            "spec": { "addresses": ["192.0.2.0/28", "2001:db8::/64"], "n": 3 },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }, { "type": "Full", "status": "False" }] },
        });
        let cases = [
            (".spec.n", "integer", json!(3)),
            (".spec.addresses[1]", "string", json!("2001:db8::/64")),
            (
                ".spec.addresses[*]",
                "string",
                json!("192.0.2.0/28,2001:db8::/64"),
            ),
            (
                r#".status.conditions[?(@.type=="Ready")].status"#,
                "string",
                json!("True"),
            ),
            (r".metadata.annotations.a\.b/c", "string", json!("yes")),
            (".metadata.annotations['a.b/c']", "string", json!("yes")),
            (".spec.none.deeper", "string", Value::Null),
            ("...", "string", object.clone()),
        ];
        for (path, kind, expected) in cases {
            let cell = Printer::new("X", kind, path, false).cell(&object, Timestamp::UNIX_EPOCH);
            let expected = match &expected {
                Value::Object(_) => json!(expected.to_string()),
                _ => expected,
            };
            assert_eq!(cell, expected, "{path}");
        }
    }

    #[test]
    fn any_text_is_a_path() {
        for path in ["", ".", "[", "]", "[?(@.", ".a[", "\\", ".é[ü]"] {
            let _ = parse(path);
        }
    }
}
