//! [`LabelSelector`]: which objects are meant, by their labels, as everywhere in the Kubernetes API
//! (`meta/v1 LabelSelector`).
//!
//! ```yaml
//! matchLabels: {app: web}
//! matchExpressions:
//!   - {key: tier, operator: In, values: [front, back]}      # In | NotIn | Exists | DoesNotExist
//! ```

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Which objects are meant. All its parts must hold; the empty selector means every object.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct LabelSelector {
    /// Labels that the object must have, with these values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// What else must hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelExpression>,
}

/// One of `matchExpressions`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelExpression {
    /// The label.
    pub key: String,
    /// What is asked of it.
    pub operator: LabelOperator,
    /// The values of `In` and `NotIn`; none for the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// What is asked of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LabelOperator {
    /// It has one of the values.
    In,
    /// It has none of the values, or is not there.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

impl LabelSelector {
    /// Whether an object with these labels is meant.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let mut equal = self.match_labels.iter();
        equal.all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|e| e.matches(labels))
    }

    /// What an object with these labels lacks to be meant: `label app=web`.
    #[must_use]
    pub fn missing(&self, labels: &BTreeMap<String, String>) -> Vec<String> {
        let equal = self.match_labels.iter();
        let equal = equal.filter(|(key, value)| labels.get(*key) != Some(*value));
        let equal = equal.map(|(key, value)| format!("label {key}={value}"));
        let others = self.match_expressions.iter();
        let others = others.filter(|expression| !expression.matches(labels));
        equal.chain(others.map(ToString::to_string)).collect()
    }

    /// What is wrong with it: an expression whose values do not fit its operator.
    pub(crate) fn fault(&self) -> Option<String> {
        self.match_expressions
            .iter()
            .find_map(LabelExpression::fault)
    }
}

impl LabelExpression {
    /// What is wrong with it: its values do not fit its operator.
    pub(crate) fn fault(&self) -> Option<String> {
        let Self {
            key,
            operator,
            values,
        } = self;
        let needed = matches!(operator, LabelOperator::In | LabelOperator::NotIn);
        match (needed, values.is_empty()) {
            (true, true) => Some(format!("{operator:?} of {key} needs at least one value")),
            (false, false) => Some(format!("{operator:?} of {key} takes no values")),
            _ => None,
        }
    }

    /// Whether an object with these labels fulfils it.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let found = labels.get(&self.key);
        match self.operator {
            LabelOperator::In => found.is_some_and(|value| self.values.contains(value)),
            LabelOperator::NotIn => found.is_none_or(|value| !self.values.contains(value)),
            LabelOperator::Exists => found.is_some(),
            LabelOperator::DoesNotExist => found.is_none(),
        }
    }
}

impl fmt::Display for LabelExpression {
    /// What an object must have: `label tier in (front, back)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, values) = (&self.key, self.values.join(", "));
        match self.operator {
            LabelOperator::In => write!(f, "label {key} in ({values})"),
            LabelOperator::NotIn => write!(f, "no label {key} in ({values})"),
            LabelOperator::Exists => write!(f, "label {key}"),
            LabelOperator::DoesNotExist => write!(f, "no label {key}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_means_what_the_api_says() {
        let labels: BTreeMap<String, String> = [("app", "web"), ("tier", "front")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
        let table = [
            (r#"{}"#, true),
            (r#"{"matchLabels": {"app": "web"}}"#, true),
            (r#"{"matchLabels": {"app": "web", "tier": "back"}}"#, false),
            (
                r#"{"matchExpressions": [{"key": "app", "operator": "In", "values": ["x", "web"]}]}"#,
                true,
            ),
            (
                r#"{"matchExpressions": [{"key": "no", "operator": "In", "values": ["x"]}]}"#,
                false,
            ),
            (
                r#"{"matchExpressions": [{"key": "no", "operator": "NotIn", "values": ["x"]}]}"#,
                true,
            ),
            (
                r#"{"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}"#,
                false,
            ),
            (
                r#"{"matchExpressions": [{"key": "app", "operator": "Exists"}]}"#,
                true,
            ),
            (
                r#"{"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}"#,
                false,
            ),
        ];
        for (text, wanted) in table {
            let selector: LabelSelector = serde_json::from_str(text).unwrap();
            assert_eq!(selector.matches(&labels), wanted, "{text}");
            assert_eq!(selector.fault(), None, "{text}");
        }
        for text in [
            r#"{"matchExpressions": [{"key": "app", "operator": "In"}]}"#,
            r#"{"matchExpressions": [{"key": "app", "operator": "Exists", "values": ["x"]}]}"#,
        ] {
            let selector: LabelSelector = serde_json::from_str(text).unwrap();
            assert!(selector.fault().is_some(), "{text}");
        }
    }
}
