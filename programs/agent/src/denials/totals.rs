//! [`Totals`]: what policies have denied since the agent began, from what the kernel's rules have counted.
//!
//! Rules come and go with classes of pods; totals of a policy only grow, for as long as the policy is there.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use parfait_cluster::{Direction, ObjectName, Snapshot};
use parfait_kernel::nft::Counts;
use parfait_packet::{Kind, Origin};
use parfait_transport::policy::denial::Place;

/// What is counted for a policy, or for one of its rules.
type Series = (Origin, Direction);

/// The totals of one node.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    /// What the kernel said last.
    last: Counts,
    /// A denied packet counts for each of the policies that isolate the pod.
    by_policy: BTreeMap<Series, u64>,
    /// It counts once here.
    denied: BTreeMap<Direction, u64>,
    /// Packets of connections that policies have ended.
    ended: u64,
    /// Those of which the agent was told.
    pub(super) sampled: u64,
    /// How often some were lost because they came too fast.
    pub(super) overruns: u64,
}

impl Totals {
    /// Adds what was counted since the last time, in the places of the rules that did.
    pub(super) fn count(&mut self, counts: Counts, places: &BTreeMap<String, Place>) {
        for ((family, chain), packets) in &counts {
            let before = self.last.get(&(*family, chain.clone())).copied();
            // A rule that was made anew begins with 0.
            let more = before.map_or(*packets, |before| {
                packets.checked_sub(before).unwrap_or(*packets)
            });
            if more == 0 {
                continue;
            }
            let Some(place) = places.get(chain) else {
                if parfait_transport::policy::ENDING.contains(&chain.as_str()) {
                    self.ended += more;
                }
                continue;
            };
            *self.denied.entry(place.direction).or_default() += more;
            let by = match &place.rule {
                Some(rule) => std::slice::from_ref(rule),
                None => &place.policies,
            };
            for one in by {
                let series = (one.clone(), place.direction);
                *self.by_policy.entry(series).or_default() += more;
            }
        }
        self.last = counts;
    }

    /// Forgets policies that are gone, so that there are never more series than there is reason for.
    pub(super) fn keep(&mut self, snapshot: &Snapshot) {
        self.by_policy.retain(|(origin, _), _| match origin.kind {
            Kind::ClusterNetworkPolicy => snapshot.cluster_policies.contains_key(&origin.name),
            Kind::NodeNetworkPolicy => snapshot.node_policies.contains_key(&origin.name),
            _ => {
                let name = ObjectName::new(&origin.namespace, &origin.name);
                snapshot.policies.contains_key(&name)
            }
        });
    }

    /// How many packets were denied.
    pub(super) fn denied(&self) -> u64 {
        self.denied.values().sum()
    }

    /// How many denied packets nobody was told of.
    pub(super) fn unsampled(&self) -> u64 {
        self.denied().saturating_sub(self.sampled)
    }

    /// As Prometheus reads it.
    pub(super) fn text(&self) -> String {
        let policies = self.by_policy.iter().map(|((origin, direction), packets)| {
            let labels = format!(
                "{{kind=\"{}\",namespace=\"{}\",policy=\"{}\",rule=\"{}\",direction=\"{}\"}}",
                origin.kind.name(),
                origin.namespace,
                origin.name,
                origin.field,
                direction.name()
            );
            (labels, *packets)
        });
        let directions = Direction::ALL.map(|direction| {
            let packets = self.denied.get(&direction).copied().unwrap_or_default();
            (format!("{{direction=\"{}\"}}", direction.name()), packets)
        });
        let one = |value| [(String::new(), value)];
        let mut text = String::new();
        write(
            &mut text,
            "parfait_policy_denied_packets_total",
            "Packets that a policy denied; one counts for each policy that isolates the pod.",
            policies,
        );
        write(
            &mut text,
            "parfait_denied_packets_total",
            "Packets that policies denied.",
            directions,
        );
        write(
            &mut text,
            "parfait_denied_packets_sampled_total",
            "Denied packets that were explained.",
            one(self.sampled),
        );
        write(
            &mut text,
            "parfait_denied_packets_overruns_total",
            "How often samples of denied packets came faster than they were read.",
            one(self.overruns),
        );
        write(
            &mut text,
            "parfait_ended_connections_packets_total",
            "Packets of connections that a changed policy has ended.",
            one(self.ended),
        );
        text
    }
}

fn write(
    text: &mut String,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = (String, u64)>,
) {
    // A String takes everything.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
    for (labels, value) in values {
        let _ = writeln!(text, "{name}{labels} {value}");
    }
}

#[cfg(test)]
mod tests {
    use parfait_cluster::{LabelSelector, NodeNetworkPolicy, Object};
    use parfait_linux::nft::Family;

    use super::*;

    fn place(direction: Direction, policies: &[&str], rule: Option<&str>) -> Place {
        let policy = |name: &&str| Origin::new(Kind::NetworkPolicy, "shop", name);
        let admin = Origin::new(Kind::ClusterNetworkPolicy, "", "admin");
        Place {
            direction,
            policies: policies.iter().map(policy).collect(),
            rule: rule.map(|field| admin.field(field)),
        }
    }

    fn counts(of: &[(&str, u64)]) -> Counts {
        let counts = of.iter();
        counts
            .map(|(chain, packets)| ((Family::Ip, (*chain).to_owned()), *packets))
            .collect()
    }

    #[test]
    fn totals_of_a_node_s_policy_go_on_for_as_long_as_it_is_there() {
        let policy = NodeNetworkPolicy {
            name: "door".to_owned(),
            priority: 1,
            nodes: LabelSelector::default(),
            ingress: Vec::new(),
        };
        let rule = Place {
            rule: Some(policy.rule_origin(1)),
            ..place(Direction::Ingress, &[], None)
        };
        let mut snapshot = Snapshot::default();
        snapshot.insert(Object::NodeNetworkPolicy(policy));
        let places = |chain: &str| BTreeMap::from([(chain.to_owned(), rule.clone())]);
        let mut totals = Totals::default();
        totals.count(
            counts(&[("node-policies-1-deny", 3)]),
            &places("node-policies-1-deny"),
        );
        totals.keep(&snapshot);
        // Another policy comes before it, and its chain is another.
        totals.count(
            counts(&[("node-policies-2-deny", 4)]),
            &places("node-policies-2-deny"),
        );
        totals.keep(&snapshot);
        let series = r#"{kind="NodeNetworkPolicy",namespace="",policy="door",rule="spec.ingress[1]",direction="ingress"} 7"#;
        assert!(totals.text().contains(series), "{}", totals.text());
        totals.keep(&Snapshot::default());
        assert!(!totals.text().contains("door"));
    }

    #[test]
    fn totals_grow_whatever_becomes_of_rules() {
        let both = place(Direction::Ingress, &["deny-all", "web"], None);
        let rule = place(Direction::Egress, &[], Some("spec.egress[1]"));
        let places = BTreeMap::from([
            ("ingress-a".to_owned(), both),
            ("egress-b-deny".to_owned(), rule),
        ]);
        let mut totals = Totals::default();
        totals.count(
            counts(&[
                ("ingress-a", 5),
                ("egress-b-deny", 2),
                ("policy-forward", 1),
                ("foreign", 7),
            ]),
            &places,
        );
        totals.count(
            counts(&[
                ("ingress-a", 6),
                ("egress-b-deny", 2),
                ("policy-forward", 1),
            ]),
            &places,
        );
        // The chain was made anew, and the other is gone.
        totals.count(counts(&[("ingress-a", 3), ("policy-forward", 1)]), &places);
        totals.count(
            counts(&[
                ("ingress-a", 3),
                ("egress-b-deny", 1),
                ("policy-forward", 1),
            ]),
            &places,
        );
        // Of the node's own rules, what ended is in two chains.
        totals.count(counts(&[("node-input", 2), ("node-output", 1)]), &places);
        totals.sampled = 4;
        totals.overruns = 2;
        assert_eq!((totals.denied(), totals.unsampled()), (12, 8));
        let text = totals.text();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let wanted = [
            r#"parfait_policy_denied_packets_total{kind="NetworkPolicy",namespace="shop",policy="deny-all",rule="",direction="ingress"} 9"#,
            r#"parfait_policy_denied_packets_total{kind="NetworkPolicy",namespace="shop",policy="web",rule="",direction="ingress"} 9"#,
            r#"parfait_policy_denied_packets_total{kind="ClusterNetworkPolicy",namespace="",policy="admin",rule="spec.egress[1]",direction="egress"} 3"#,
            r#"parfait_denied_packets_total{direction="ingress"} 9"#,
            r#"parfait_denied_packets_total{direction="egress"} 3"#,
            "parfait_denied_packets_sampled_total 4",
            "parfait_denied_packets_overruns_total 2",
            "parfait_ended_connections_packets_total 4",
        ];
        assert_eq!(lines, wanted);
        totals.keep(&Snapshot::default());
        assert!(
            !totals.text().contains("policy_denied_packets_total{"),
            "bounded by the policies that are there"
        );
    }
}
