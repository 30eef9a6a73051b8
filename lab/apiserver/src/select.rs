//! Label and field selectors: parsed once per request, matched against stored objects.
//!
//! Labels follow `k8s.io/apimachinery/pkg/labels`: `a=b`, `a==b`, `a!=b`, `a in (x,y)`, `a notin (x,y)`, `a`, `!a`,
//! `a>1`, `a<1`, comma for and. Fields follow `pkg/fields`: `path=value`, `path!=value`; which paths exist depends on
//! the resource and asking for another is an error, as in Kubernetes.

use serde_json::Value;

use crate::registry::Resource;
use crate::status::ApiError;

/// Both selectors of one request.
#[derive(Debug, Clone, Default)]
pub struct Selector {
    labels: Vec<LabelRequirement>,
    fields: Vec<FieldRequirement>,
}

impl Selector {
    /// Reads `labelSelector` and `fieldSelector`.
    pub fn parse(resource: &Resource, labels: &str, fields: &str) -> Result<Self, ApiError> {
        Ok(Selector {
            labels: parse_labels(labels)?,
            fields: parse_fields(resource, labels, fields)?,
        })
    }

    /// Selects everything.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether a stored object is selected.
    pub fn matches(&self, object: &Value) -> bool {
        self.labels.iter().all(|r| r.matches(object))
            && self.fields.iter().all(|r| r.matches(object))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct LabelRequirement {
    key: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
    Above(i64),
    Below(i64),
}

impl LabelRequirement {
    fn matches(&self, object: &Value) -> bool {
        let value = object
            .get("metadata")
            .and_then(|m| m.get("labels"))
            .and_then(|l| l.get(&self.key))
            .and_then(Value::as_str);
        let number = || value.and_then(|v| v.parse::<i64>().ok());
        match &self.test {
            Test::In(set) => value.is_some_and(|v| set.iter().any(|s| s == v)),
            Test::NotIn(set) => value.is_none_or(|v| !set.iter().any(|s| s == v)),
            Test::Exists => value.is_some(),
            Test::Absent => value.is_none(),
            Test::Above(bound) => number().is_some_and(|n| n > *bound),
            Test::Below(bound) => number().is_some_and(|n| n < *bound),
        }
    }
}

#[derive(Debug, Clone)]
struct FieldRequirement {
    pointer: String,
    value: String,
    equal: bool,
}

impl FieldRequirement {
    fn matches(&self, object: &Value) -> bool {
        let found = match object.pointer(&self.pointer) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Bool(flag)) => flag.to_string(),
            Some(Value::Number(number)) => number.to_string(),
            // A flag that is not set is false, as the typed field is in Kubernetes.
            None if matches!(
                self.pointer.as_str(),
                "/spec/unschedulable" | "/spec/hostNetwork"
            ) =>
            {
                "false".to_owned()
            }
            _ => String::new(),
        };
        (found == self.value) == self.equal
    }
}

fn parse_labels(text: &str) -> Result<Vec<LabelRequirement>, ApiError> {
    let mut parser = LabelParser { rest: text.trim() };
    let mut requirements = Vec::new();
    while !parser.rest.is_empty() {
        requirements.push(parser.requirement().map_err(|why| {
            ApiError::bad_request(format!(
                "unable to parse requirement in label selector {text:?}: {why}"
            ))
        })?);
        if !parser.rest.is_empty() && !parser.eat(",") {
            return Err(ApiError::bad_request(format!(
                "unable to parse label selector {text:?}: found {:?}, expected ','",
                parser.rest
            )));
        }
    }
    Ok(requirements)
}

struct LabelParser<'a> {
    rest: &'a str,
}

impl LabelParser<'_> {
    fn requirement(&mut self) -> Result<LabelRequirement, String> {
        if self.eat("!") {
            return Ok(LabelRequirement {
                key: self.key()?,
                test: Test::Absent,
            });
        }
        let key = self.key()?;
        let test = if self.eat("==") || (!self.rest.starts_with("!=") && self.eat("=")) {
            Test::In(vec![self.value()?])
        } else if self.eat("!=") {
            Test::NotIn(vec![self.value()?])
        } else if self.eat(">") {
            Test::Above(self.number()?)
        } else if self.eat("<") {
            Test::Below(self.number()?)
        } else if self.eat_word("in") {
            Test::In(self.set()?)
        } else if self.eat_word("notin") {
            Test::NotIn(self.set()?)
        } else {
            Test::Exists
        };
        Ok(LabelRequirement { key, test })
    }

    fn eat(&mut self, token: &str) -> bool {
        self.rest = self.rest.trim_start();
        let found = self.rest.strip_prefix(token);
        if let Some(rest) = found {
            self.rest = rest.trim_start();
        }
        found.is_some()
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let follows = |rest: &str| rest.starts_with(['(', ' ', '\t']);
        self.rest.strip_prefix(word).is_some_and(follows) && self.eat(word)
    }

    fn token(&mut self) -> String {
        self.rest = self.rest.trim_start();
        let legal = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        let end = self.rest.find(|c| !legal(c)).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        token.to_owned()
    }

    fn key(&mut self) -> Result<String, String> {
        let key = self.token();
        if crate::validate::names::is_qualified_name(&key) {
            Ok(key)
        } else {
            Err(format!("{key:?} is not a label key"))
        }
    }

    fn value(&mut self) -> Result<String, String> {
        let value = self.token();
        if crate::validate::names::is_label_value(&value) {
            Ok(value)
        } else {
            Err(format!("{value:?} is not a label value"))
        }
    }

    fn number(&mut self) -> Result<i64, String> {
        let value = self.token();
        value
            .parse()
            .map_err(|_| format!("{value:?} is not an integer"))
    }

    fn set(&mut self) -> Result<Vec<String>, String> {
        if !self.eat("(") {
            return Err("expected '('".to_owned());
        }
        let mut set = vec![self.value()?];
        while self.eat(",") {
            set.push(self.value()?);
        }
        if self.eat(")") {
            Ok(set)
        } else {
            Err(format!("found {:?}, expected ')'", self.rest))
        }
    }
}

fn parse_fields(
    resource: &Resource,
    labels: &str,
    text: &str,
) -> Result<Vec<FieldRequirement>, ApiError> {
    let mut requirements = Vec::new();
    for term in split_terms(text) {
        let (path, value, equal) = split_operator(&term).ok_or_else(|| {
            ApiError::bad_request(format!(
                "invalid selector: {text:?}; can't understand {term:?}"
            ))
        })?;
        let path = path.trim();
        let Some(pointer) = field_pointer(resource, path) else {
            return Err(ApiError::bad_request(format!(
                "Unable to find {:?} that match label selector {labels:?}, field selector {text:?}: field label \
                 not supported: {path}",
                format!("{}, Resource={}", resource.api_version(), resource.plural),
            )));
        };
        requirements.push(FieldRequirement {
            pointer,
            value: unescape(value),
            equal,
        });
    }
    Ok(requirements)
}

/// Splits at commas that no backslash protects.
fn split_terms(text: &str) -> Vec<String> {
    let mut terms = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        if c == ',' && !escaped {
            terms.push(String::new());
        } else if let Some(term) = terms.last_mut() {
            term.push(c);
        }
        escaped = c == '\\' && !escaped;
    }
    terms.retain(|t| !t.trim().is_empty());
    terms
}

fn split_operator(term: &str) -> Option<(&str, &str, bool)> {
    let at = term.find(['=', '!'])?;
    let (path, rest) = term.split_at(at);
    if let Some(value) = rest.strip_prefix("!=") {
        return Some((path, value, false));
    }
    let value = rest.strip_prefix("==").or_else(|| rest.strip_prefix('='))?;
    Some((path, value, true))
}

fn unescape(value: &str) -> String {
    let mut out = String::new();
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        out.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    out
}

fn field_pointer(resource: &Resource, path: &str) -> Option<String> {
    let extra: &[&str] = match (resource.group, resource.kind) {
        ("", "Pod") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        ("", "Node") => &["spec.unschedulable"],
        ("", "Namespace") => &["status.phase"],
        ("", "Secret") => &["type"],
        ("", "Service") => &["spec.clusterIP", "spec.type"],
        ("", "Event") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "type",
        ],
        ("events.k8s.io", "Event") => match path {
            // Events are stored as core v1, where these have other names.
            "regarding.kind" => return Some("/involvedObject/kind".to_owned()),
            "regarding.namespace" => return Some("/involvedObject/namespace".to_owned()),
            "regarding.name" => return Some("/involvedObject/name".to_owned()),
            "regarding.uid" => return Some("/involvedObject/uid".to_owned()),
            "reportingController" => return Some("/reportingComponent".to_owned()),
            _ => &["reason", "type"],
        },
        ("apps", "ReplicaSet") | ("", "ReplicationController") => &["status.replicas"],
        ("batch", "Job") => &["status.successful"],
        _ => &[],
    };
    if resource.is_core("Event") && path == "source" {
        return Some("/source/component".to_owned());
    }
    let known =
        matches!(path, "metadata.name") || (path == "metadata.namespace" && resource.namespaced);
    (known || extra.contains(&path)).then(|| format!("/{}", path.replace('.', "/")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::registry::core;

    fn selects(labels: &str, fields: &str) -> bool {
        let object = json!({
            "metadata": { "name": "p", "labels": { "app": "web", "tier": "2" } },
            "spec": { "nodeName": "node-1" }, "status": { "phase": "Running" },
        });
        Selector::parse(core("pods"), labels, fields)
            .expect("the selector parses")
            .matches(&object)
    }

    #[test]
    fn labels() {
        for (text, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier!=3", true),
            ("app!=web", false),
            ("other!=web", true),
            ("app in (web, api)", true),
            ("app in (api)", false),
            ("app notin (api,db),tier", true),
            ("other notin (x)", true),
            ("!other", true),
            ("!app", false),
            ("tier>1,tier<3", true),
            ("in in (x)", false),
            ("app=", false),
        ] {
            assert_eq!(selects(text, ""), expected, "{text}");
        }
    }

    #[test]
    fn fields() {
        for (text, expected) in [
            ("metadata.name=p", true),
            (
                "spec.nodeName=node-1,status.phase!=Failed,status.phase!=Succeeded",
                true,
            ),
            ("spec.nodeName==", false),
            ("spec.hostNetwork=false", true),
        ] {
            assert_eq!(selects("", text), expected, "{text}");
        }
        let error =
            Selector::parse(core("pods"), "", "spec.nope=1").expect_err("not a field of pods");
        assert!(
            error
                .message
                .ends_with("field label not supported: spec.nope"),
            "{}",
            error.message
        );
    }

    #[test]
    fn malformed_selectors_are_refused() {
        for text in [
            "app in web",
            "app in (a",
            "a b",
            "=x",
            ",",
            "app=web,,b",
            "a=b=c",
            "-a=b",
        ] {
            assert_eq!(
                Selector::parse(core("pods"), text, "")
                    .expect_err(text)
                    .code,
                400
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(labels in ".{0,40}", fields in "[a-z.=!\\\\,]{0,40}") {
            let _ = Selector::parse(core("pods"), &labels, &fields);
            let _ = Selector::parse(core("pods"), "", &fields);
        }
    }
}
