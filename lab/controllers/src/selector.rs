//! Label selectors, and numbers that may be percentages.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

type Labels = BTreeMap<String, String>;

/// Whether labels satisfy a selector. The empty selector matches everything; an operator this
/// version does not know matches nothing.
pub fn matches(selector: &LabelSelector, labels: Option<&Labels>) -> bool {
    let empty = Labels::new();
    let labels = labels.unwrap_or(&empty);
    let by_labels = selector
        .match_labels
        .iter()
        .flatten()
        .all(|(key, value)| labels.get(key) == Some(value));
    by_labels
        && selector
            .match_expressions
            .iter()
            .flatten()
            .all(|requirement| {
                let value = labels.get(&requirement.key);
                let listed =
                    |value: &String| requirement.values.iter().flatten().any(|one| one == value);
                match requirement.operator.as_str() {
                    "In" => value.is_some_and(listed),
                    "NotIn" => !value.is_some_and(listed),
                    "Exists" => value.is_some(),
                    "DoesNotExist" => value.is_none(),
                    _ => false,
                }
            })
}

/// Whether labels contain every pair of a Service's selector.
pub fn contains(labels: Option<&Labels>, wanted: &Labels) -> bool {
    wanted
        .iter()
        .all(|(key, value)| labels.and_then(|l| l.get(key)) == Some(value))
}

/// A selector without any requirement. `apps/v1` refuses it, so that no controller owns everything.
pub fn is_empty(selector: &LabelSelector) -> bool {
    selector
        .match_labels
        .as_ref()
        .is_none_or(BTreeMap::is_empty)
        && selector
            .match_expressions
            .as_ref()
            .is_none_or(Vec::is_empty)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    Up,
    Down,
}

/// `3` or `25%` of `total`. What is neither counts as the default.
pub fn resolve(value: Option<&IntOrString>, default: &str, total: i32, round: Round) -> i32 {
    let percent = |text: &str| -> Option<i32> {
        let share: i64 = text.strip_suffix('%')?.parse().ok()?;
        let product = share.max(0) * i64::from(total.max(0));
        let value = match round {
            Round::Up => (product + 99) / 100,
            Round::Down => product / 100,
        };
        i32::try_from(value).ok()
    };
    let number = |text: &str| percent(text).or_else(|| text.parse().ok());
    let resolved = match value {
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(text)) => number(text),
        None => None,
    };
    resolved.or_else(|| number(default)).unwrap_or(0).max(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_as_a_deployment_needs_them() {
        let percent = |text: &str| IntOrString::String(text.to_owned());
        for (value, total, round, expected) in [
            (Some(percent("25%")), 10, Round::Up, 3),
            (Some(percent("25%")), 10, Round::Down, 2),
            (Some(IntOrString::Int(4)), 10, Round::Down, 4),
            (None, 4, Round::Up, 1),
            (Some(percent("nonsense")), 4, Round::Down, 1),
            (Some(IntOrString::Int(-3)), 4, Round::Down, 0),
        ] {
            assert_eq!(
                resolve(value.as_ref(), "25%", total, round),
                expected,
                "{value:?} of {total}"
            );
        }
    }
}
