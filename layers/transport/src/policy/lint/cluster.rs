//! ClusterNetworkPolicies: their rules are asked in order, so what an earlier one matches a later one never sees.

use parfait_cluster::{ClusterNetworkPolicy, Direction, Key, Pod};

use super::{Check, Linter, covers, rules};

pub(super) fn check(linter: &mut Linter<'_>, policy: &ClusterNetworkPolicy) {
    let key = Key::ClusterNetworkPolicy(policy.name.clone());
    for note in linter.snapshot.notes.get(&key).into_iter().flatten() {
        linter.tell(Check::Mistake, &note.origin, note.message.clone());
    }
    let selected: Vec<&Pod> = linter
        .snapshot
        .pods
        .values()
        .filter(|pod| {
            let namespace = linter.snapshot.namespaces.get(&pod.name.namespace);
            let there = namespace.is_some_and(|found| policy.namespaces.matches(&found.labels));
            there && !pod.host_network && policy.pods.matches(&pod.labels)
        })
        .collect();
    if selected.is_empty() {
        let field = policy.origin().field("spec.subject");
        let message = "no pod with a network of its own fits it".to_owned();
        linter.tell(Check::SelectsNoPod, &field, message);
    }
    for direction in Direction::ALL {
        let all = policy.rules(direction);
        for (index, rule) in all.iter().enumerate() {
            let origin = policy.rule_origin(direction, index);
            let before = all[..index].iter();
            let by = before.map(|earlier| covers::covers(&earlier.matches, &rule.matches));
            if let Some(earlier) = by
                .enumerate()
                .find_map(|(nth, covers)| covers.then_some(nth))
            {
                let earlier = policy.rule_origin(direction, earlier);
                let message = format!(
                    "it is never asked: {} matches all that it does",
                    earlier.field
                );
                linter.tell(Check::RuleShadowed, &origin, message);
            }
            rules::check(linter, "", &selected, direction, &rule.matches, &origin);
        }
    }
}
