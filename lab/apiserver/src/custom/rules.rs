//! Rules in the Common Expression Language (`x-kubernetes-validations`): those that are known by their text.
//!
//! There is no interpreter here. The rules of the definitions that Parfait itself needs are each written as a function;
//! every other rule is stored and not evaluated. Source: the definition of ClusterNetworkPolicy that network-policy-api
//! publishes.

use ipnet::IpNet;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use serde_json::Value;

use crate::status::FieldErrors;

/// The text of a rule, its spaces as one, and what it asks of a value.
type Rule = (&'static str, fn(&Value) -> bool);

const KNOWN: [Rule; 3] = [
    ("self.start < self.end", |range| {
        let [start, end] = ["start", "end"].map(|end| range[end].as_i64());
        start < end
    }),
    ("isCIDR(self)", |text| {
        text.as_str()
            .is_some_and(|text| text.parse::<IpNet>().is_ok())
    }),
    (
        "!(self.to.exists(peer, has(peer.networks) || has(peer.nodes) || has(peer.domainNames)) && has(self.protocols) \
         && self.protocols.exists(protocol, has(protocol.destinationNamedPort)))",
        |rule| {
            let any = |list: &str, has: &[&str]| {
                let items = rule[list].as_array().into_iter().flatten();
                let mut fields = items.flat_map(|item| has.iter().map(|field| item.get(*field)));
                fields.any(|field| field.is_some())
            };
            let addresses = any("to", &["networks", "nodes", "domainNames"]);
            !(addresses && any("protocols", &["destinationNamedPort"]))
        },
    ),
];

/// Checks a value by the rules that are known.
pub(super) fn check(value: &Value, schema: &JSONSchemaProps, path: &str, errors: &mut FieldErrors) {
    for asked in schema.x_kubernetes_validations.iter().flatten() {
        let words: Vec<&str> = asked.rule.split_whitespace().collect();
        let text = words.join(" ");
        let known = KNOWN.iter().find(|(rule, _)| *rule == text);
        if known.is_some_and(|(_, holds)| !holds(value)) {
            let message = asked.message.clone();
            let found = match value {
                Value::Object(_) => Value::from("object"),
                other => other.clone(),
            };
            errors.invalid(path, found, message.unwrap_or(text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(rule: &str, value: &Value) -> Vec<String> {
        let schema = json!({ "x-kubernetes-validations": [{ "rule": rule, "message": "wrong" }] });
        let schema = serde_json::from_value(schema).unwrap();
        let mut errors = FieldErrors::default();
        check(value, &schema, "spec", &mut errors);
        errors.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn rules_that_are_known_are_evaluated_and_others_are_not() {
        let upside_down = json!({ "start": 2, "end": 2 });
        let wrong = ["spec: Invalid value: \"object\": wrong"];
        assert_eq!(said("self.start  <\n self.end", &upside_down), wrong);
        assert_eq!(said("self.start > self.end", &upside_down), [""; 0]);
        let fine = json!({ "start": 2, "end": 3 });
        assert_eq!(said("self.start < self.end", &fine), [""; 0]);
        assert_eq!(said("isCIDR(self)", &json!("10.0.0.0/8")), [""; 0]);
        let wrong = ["spec: Invalid value: \"10.0.0.0/33\": wrong"];
        assert_eq!(said("isCIDR(self)", &json!("10.0.0.0/33")), wrong);
    }
}
