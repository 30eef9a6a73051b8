//! ClusterNetworkPolicies as administrators write them: what the kernel then holds, what is said of a packet, and of
//! mistakes.

use parfait_cluster::{Direction, Key, Parsed, Snapshot};
use parfait_linux::conntrack::{Entry, Tuple};
use parfait_linux::nft::{Table, render};
use parfait_transport::policy;
use serde_json::{Value, json};

use crate::tables::{add, note_planned, said, with};

const WEB: &str = "10.244.1.2";
const CLIENT: &str = "10.244.1.3";
const PROBE: &str = "10.244.2.4";

/// Adds ClusterNetworkPolicies to a cluster with NetworkPolicies; and what was noted about all.
fn cluster(policies: &[(&str, Value)], own: &[(&str, Value)]) -> (Snapshot, Vec<String>) {
    let (mut snapshot, mut said) = with(own);
    for (name, spec) in policies {
        let raw = json!({"metadata": {"name": name}, "spec": spec});
        let raw = serde_json::from_value(raw).expect("a ClusterNetworkPolicy");
        add(&mut snapshot, Parsed::ClusterNetworkPolicy(&raw), &mut said);
    }
    note_planned(&snapshot, &mut said);
    (snapshot, said)
}

fn spec(tier: &str, priority: u16, more: Value) -> Value {
    let mut spec = json!({"tier": tier, "priority": priority, "subject": {"namespaces": {}}});
    let more = more.as_object().cloned().unwrap_or_default();
    spec.as_object_mut().expect("an object").extend(more);
    spec
}

fn everybody() -> Value {
    json!([{"namespaces": {}}])
}

fn ops() -> Value {
    json!([{"namespaces": {"matchLabels": {"team": "ops"}}}])
}

fn at(port: u16) -> Value {
    json!([{"tcp": {"destinationPort": {"number": port}}}])
}

#[test]
fn what_nft_shows_of_tiers() {
    let admin = json!({
        "ingress": [{"action": "Accept", "from": ops(), "protocols": at(9100)},
                    {"action": "Deny", "from": everybody(), "protocols": at(9100)},
                    {"action": "Deny", "from": everybody(), "protocols": [{"tcp": {"destinationPort": {"range": {"start": 22, "end": 23}}}}]},
                    {"action": "Pass", "from": ops()}],
        "egress": [{"action": "Deny", "to": [{"nodes": {}}, {"networks": ["169.254.169.254/32"]}]}],
    });
    let baseline = json!({"ingress": [{"action": "Deny", "from": everybody()}]});
    let own = json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress", "Egress"],
                     "ingress": [{"ports": [{"port": 80}]}]});
    let (snapshot, notes) = cluster(
        &[
            ("admin", spec("Admin", 10, admin)),
            ("base", spec("Baseline", 10, baseline)),
        ],
        &[("web", own)],
    );
    assert_eq!(notes, [""; 0]);
    let tables = policy::apply(&policy::plan(&snapshot, "node-1")).into_iter();
    let tables = tables.map(|table| (table.key(), table)).collect();
    insta::assert_snapshot!(render::ruleset(&tables));
}

#[test]
fn tiers_are_asked_in_order_and_the_first_rule_that_matches_decides() {
    let admin = json!({"ingress": [
        {"name": "ops", "action": "Accept", "from": ops(), "protocols": at(22)},
        {"name": "no-ssh", "action": "Deny", "from": everybody(), "protocols": at(22)},
        {"action": "Pass", "from": everybody(), "protocols": at(80)},
    ]});
    let late = json!({"ingress": [{"action": "Deny", "from": everybody(), "protocols": at(80)}]});
    let baseline = json!({"ingress": [{"action": "Deny", "from": everybody()}]});
    let own = json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"ports": [{"port": 80}]}]});
    let (snapshot, notes) = cluster(
        &[
            ("a", spec("Admin", 10, admin)),
            ("late", spec("Admin", 20, late)),
            ("base", spec("Baseline", 0, baseline)),
        ],
        &[("web", own)],
    );
    assert_eq!(notes, [""; 0]);
    let a = "ClusterNetworkPolicy a spec.ingress";
    let table = [
        (PROBE, WEB, 22, format!("allowed by {a}[0] \"ops\"")),
        (
            CLIENT,
            WEB,
            22,
            format!(
                "denied by {a}[1] \"no-ssh\" (Admin), if namespace shop had label team=ops ({a}[0])"
            ),
        ),
        // Passed on before `late` is asked, and allowed by the pod's own policy.
        (
            CLIENT,
            WEB,
            80,
            format!("allowed by NetworkPolicy shop/web spec.ingress[0], after {a}[2]"),
        ),
        // Isolated by its own policy, so Baseline has no say.
        (
            CLIENT,
            WEB,
            81,
            "denied, if the port were 80/tcp (NetworkPolicy shop/web spec.ingress[0])".to_owned(),
        ),
        (
            WEB,
            CLIENT,
            80,
            format!(
                "denied by ClusterNetworkPolicy base spec.ingress[0] (Baseline), after {a}[2], if \
                 namespace shop had label team=ops and the port were 22/tcp ({a}[0])"
            ),
        ),
        // Nobody of the cluster, so no rule is about it.
        ("192.0.2.1", CLIENT, 22, "allowed".to_owned()),
    ];
    for (from, to, port, wanted) in table {
        assert_eq!(
            said(&snapshot, from, to, port),
            wanted,
            "{from} to {to}:{port}"
        );
    }
}

#[test]
fn one_priority_is_decided_by_name_and_noted() {
    let rule = |action: &str| json!({"ingress": [{"action": action, "from": everybody()}]});
    let (snapshot, notes) = cluster(
        &[
            ("b", spec("Admin", 7, rule("Deny"))),
            ("a", spec("Admin", 7, rule("Accept"))),
        ],
        &[],
    );
    let note = "ClusterNetworkPolicy b spec.priority: 7 is also the priority of ClusterNetworkPolicy a, and both are for the \
                same pods; a, the first by name, is asked first";
    assert_eq!(notes, [note]);
    let wanted = "allowed by ClusterNetworkPolicy a spec.ingress[0]";
    assert_eq!(said(&snapshot, CLIENT, WEB, 80), wanted);
    // Where both do the same, nobody can tell which was first.
    let (_, notes) = cluster(
        &[
            ("b", spec("Admin", 7, rule("Deny"))),
            ("a", spec("Admin", 7, rule("Deny"))),
        ],
        &[],
    );
    assert_eq!(notes, [""; 0]);
}

/// Rules with a mistake, and what is noted at which field.
fn mistakes() -> Vec<(Value, &'static str)> {
    let ingress = |action: &str, from: Value, protocols: Value| json!({"ingress": [{"action": action, "from": from, "protocols": protocols}]});
    let egress = |action: &str, to: Value| json!({"egress": [{"action": action, "to": to}]});
    let any = Value::Null;
    let like = json!([{"namespaces": {"matchExpressions": [{"key": "a", "operator": "Like"}]}}]);
    let domain = json!([{"domainNames": ["*.example.com"]}]);
    let range = json!([{"tcp": {"destinationPort": {"range": {"start": 90, "end": 80}}}}]);
    vec![
        (
            ingress("Deny", json!([{}]), any.clone()),
            "ingress[0].from[0]: {} is not one of namespaces, pods",
        ),
        (
            ingress("Pass", json!([]), any.clone()),
            "ingress[0].from: it names nobody",
        ),
        (
            ingress("Deny", json!([{"networks": ["10.0.0.0/8"]}]), any.clone()),
            "ingress[0].from[0]: {\"networks\":[\"10.0.0.0/8\"]} is not one of namespaces, pods",
        ),
        (
            ingress("Deny", like, any.clone()),
            "ingress[0].from[0]: \"Like\" is none of In, NotIn, Exists, DoesNotExist",
        ),
        (
            ingress("Deny", everybody(), range),
            "ingress[0].protocols[0]: range end 80 is less than start 90",
        ),
        (
            ingress("Deny", everybody(), at(0)),
            "ingress[0].protocols[0]: 0 is not a port (1 to 65535)",
        ),
        (
            ingress("Deny", everybody(), json!([{"tcp": {}}])),
            "ingress[0].protocols[0]: {\"tcp\":{}} is not one of tcp, udp, sctp with a destinationPort, destinationNamedPort",
        ),
        (
            ingress("Deny", everybody(), json!([])),
            "ingress[0].protocols: it names none",
        ),
        (
            ingress("Log", everybody(), any.clone()),
            "ingress[0].action: \"Log\" is none of Accept, Deny, Pass",
        ),
        (
            egress("Deny", json!([{"networks": ["10.0.0.0/33"]}])),
            "egress[0].to[0].networks[0]: \"10.0.0.0/33\" is not a CIDR",
        ),
        (
            egress("Pass", domain),
            "egress[0].to[0].domainNames: [\"*.example.com\"]: domain names are not supported yet",
        ),
        (
            egress("Deny", json!([{"domainNames": ["*"]}])),
            "egress[0].to[0].domainNames: [\"*\"]: domain names are not supported yet",
        ),
        (
            json!({"egress": [{"action": "Deny", "to": [{"nodes": {}}], "protocols": [{"destinationNamedPort": "http"}]}]}),
            "egress[0].protocols: networks and nodes have no named ports",
        ),
        (
            json!({"egress": [{"action": "Deny", "from": everybody()}]}),
            "egress[0].from: it has no place in egress",
        ),
    ]
}

/// What they do to `CLIENT` → `WEB`:80.
#[test]
fn mistakes_fail_closed_and_are_noted() {
    for (rules, wanted) in mistakes() {
        let (snapshot, notes) = cluster(&[("p", spec("Admin", 1, rules.clone()))], &[]);
        let note = format!("ClusterNetworkPolicy p spec.{wanted}; the rule denies everything");
        assert_eq!(notes, [note], "{rules}");
        let found = said(&snapshot, CLIENT, WEB, 80);
        assert!(
            found.starts_with("denied by ClusterNetworkPolicy p"),
            "{rules}: {found}"
        );
    }
    // A rule that accepts accepts nothing, and what is behind it decides.
    let domain = json!([{"domainNames": ["*.example.com"]}]);
    let accept = json!({"egress": [{"action": "Accept", "to": domain}, {"action": "Deny", "to": everybody()}]});
    let (snapshot, notes) = cluster(&[("p", spec("Admin", 1, accept))], &[]);
    let note = "ClusterNetworkPolicy p spec.egress[0].to[0].domainNames: [\"*.example.com\"]: domain names are not supported \
                yet; the rule accepts nothing";
    assert_eq!(notes, [note]);
    let found = said(&snapshot, CLIENT, WEB, 80);
    assert_eq!(
        found,
        "denied by ClusterNetworkPolicy p spec.egress[1] (Admin)"
    );
}

#[test]
fn of_a_policy_that_cannot_be_trusted_only_denials_are_used() {
    let rules = json!({"ingress": [
        {"action": "Accept", "from": everybody()},
        {"action": "Pass", "from": everybody()},
        {"action": "Deny", "from": everybody(), "protocols": at(80)},
    ]});
    let like =
        json!({"pods": {"podSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}}});
    let mistakes = [
        (
            "tier",
            json!("Top"),
            "\"Top\" is none of Admin, Baseline, and counts as Admin",
        ),
        (
            "priority",
            json!(1001),
            "1001 is not a number from 0 to 1000, and counts as 1000",
        ),
        (
            "subject",
            json!({}),
            "it must have one of namespaces, pods: {} counts as all pods",
        ),
        (
            "subject",
            like,
            "\"Like\" is none of In, NotIn, Exists, DoesNotExist; it is left out",
        ),
    ];
    for (field, value, wanted) in mistakes {
        let mut bad = spec("Admin", 1, rules.clone());
        bad[field] = value;
        let other = json!({"ingress": [{"action": "Accept", "from": ops()}]});
        let (snapshot, notes) = cluster(&[("bad", bad), ("good", spec("Admin", 2, other))], &[]);
        let note = format!(
            "ClusterNetworkPolicy bad spec.{field}: {wanted}; of this policy only rules that deny are used"
        );
        assert_eq!(notes, [note]);
        let found = said(&snapshot, CLIENT, WEB, 80);
        assert_eq!(
            found,
            "denied by ClusterNetworkPolicy bad spec.ingress[2] (Admin), if namespace shop had label team=ops \
                           (ClusterNetworkPolicy good spec.ingress[0])"
        );
        assert_eq!(said(&snapshot, CLIENT, WEB, 81), "allowed", "{field}");
        // It harms no other.
        let found = said(&snapshot, PROBE, WEB, 80);
        assert_eq!(
            found,
            "allowed by ClusterNetworkPolicy good spec.ingress[0]"
        );
    }
}

/// A connection of TCP, `10.244.1.3:4000 192.168.77.11:22`.
pub fn connection(text: &str) -> Entry {
    let ends = text.split_once(' ').expect("two ends");
    let [source, destination] =
        [ends.0, ends.1].map(|end| end.parse().expect("an address and a port"));
    let tuple = |source, destination| Tuple {
        protocol: 6,
        source,
        destination,
        icmp: None,
    };
    Entry {
        original: tuple(source, destination),
        reply: tuple(destination, source),
        status: 6,
        state: 3,
        expires: 100,
        zone: 0,
        id: 0,
        midway: false,
    }
}

/// Those to the own node end as well, if it is a ClusterNetworkPolicy that denies them.
#[test]
fn connections_that_tiers_deny_end() {
    let admin = json!({"egress": [
        {"action": "Accept", "to": [{"nodes": {}}], "protocols": at(6443)},
        {"action": "Deny", "to": [{"nodes": {}}]},
        {"action": "Pass", "to": everybody()},
    ]});
    let own = json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"]});
    let (snapshot, notes) = cluster(&[("a", spec("Admin", 1, admin))], &[("web", own)]);
    assert_eq!(notes, [""; 0]);
    let plan = policy::plan(&snapshot, "node-1");
    let node = ["192.168.77.11", "10.244.1.1"].map(|ip| ip.parse().expect("an address"));
    let entries = [
        "10.244.1.3:4000 192.168.77.11:22",   // denied
        "10.244.1.3:4000 192.168.77.11:6443", // accepted
        "10.244.1.3:4000 192.168.77.12:22",   // denied, to another node
        "10.244.1.3:4000 10.244.1.1:22",      // denied, by another address of the node's
        "192.168.77.11:4000 10.244.1.3:22",   // the node to its pod
        "10.244.1.3:4000 10.244.2.3:22",      // passed on, and nobody else says anything
        "10.244.1.2:4000 10.244.2.3:22",      // passed on to a NetworkPolicy that isolates
        "10.244.1.2:4000 192.168.77.11:6443", // accepted, whatever that says
    ];
    let entries = entries.map(connection);
    let ended: Vec<String> = policy::forbidden(&plan, &node.into(), &entries)
        .iter()
        .map(|one| {
            assert_eq!(one.direction, Direction::Egress);
            let original = &one.entry.original;
            format!("{} {}", original.source, original.destination)
        })
        .collect();
    let wanted = [
        "10.244.1.3:4000 192.168.77.11:22",
        "10.244.1.3:4000 192.168.77.12:22",
        "10.244.1.3:4000 10.244.1.1:22",
        "10.244.1.2:4000 10.244.2.3:22",
    ];
    assert_eq!(ended, wanted);
}

#[test]
fn each_rule_that_denies_is_counted_apart_as_long_as_they_are_few() {
    let denials = |rules: u16| {
        let deny = |port| json!({"action": "Deny", "from": everybody(), "protocols": at(port)});
        let rules: Vec<Value> = (1..=rules).map(deny).collect();
        let half = rules.len() / 2;
        let [first, second] =
            [&rules[..half], &rules[half..]].map(|rules| json!({"ingress": rules}));
        let (snapshot, notes) = cluster(
            &[
                ("first", spec("Admin", 1, first)),
                ("second", spec("Admin", 2, second)),
            ],
            &[],
        );
        assert_eq!(notes, [""; 0]);
        let places = policy::denial::places(&policy::plan(&snapshot, "node-1"));
        let of = |place: &policy::denial::Place| match &place.rule {
            Some(rule) => rule.to_string(),
            None => {
                let policies = place.policies.iter().map(ToString::to_string);
                policies.collect::<Vec<_>>().join(", ")
            }
        };
        let mut all: Vec<String> = places.values().map(of).collect();
        all.sort();
        all
    };
    assert_eq!(
        denials(3),
        [
            "ClusterNetworkPolicy first spec.ingress[0]",
            "ClusterNetworkPolicy second spec.ingress[0]",
            "ClusterNetworkPolicy second spec.ingress[1]",
        ]
    );
    assert_eq!(denials(32).len(), 32);
    assert_eq!(
        denials(33),
        ["ClusterNetworkPolicy first, ClusterNetworkPolicy second"]
    );
}

/// Two pods with the same ClusterNetworkPolicies and other NetworkPolicies have a tier in common. Not where a rule names a
/// port: only one of the two has it.
#[test]
fn classes_share_tiers_unless_these_mean_something_else_at_each() {
    let sets = |protocols: Value| {
        let rule = json!([{"action": "Deny", "from": ops(), "protocols": protocols}]);
        let own = json!({"podSelector": {"matchLabels": {"app": "web"}}, "ingress": [{"ports": [{"port": 80}]}]});
        let admin = spec("Admin", 1, json!({"ingress": rule}));
        let (snapshot, notes) = cluster(&[("admin", admin)], &[("web", own)]);
        assert_eq!(notes, [""; 0]);
        let plan = policy::plan(&snapshot, "node-1");
        assert_eq!(plan.classes().len(), 2);
        let tables = policy::apply(&plan);
        let sets = tables.iter().flat_map(|table| table.sets.keys());
        let sets = sets.filter(|name| name.contains("Admin")).cloned();
        sets.collect::<Vec<_>>()
    };
    let [shared] = &*sets(at(22)) else {
        panic!("one")
    };
    assert!(shared.starts_with("ingress-Admin-"), "{shared}");
    let [own] = &*sets(json!([{"destinationNamedPort": "http"}])) else {
        panic!("one")
    };
    assert!(own.starts_with("ingress-shop-"), "{own}");
}

/// What is for every pod is once in the kernel, wherever it stands among the policies that are for some of them.
#[test]
fn tiers_share_the_steps_that_they_have_in_common() {
    let for_all =
        |from: Value| json!({"ingress": [{"action": "Deny", "from": from, "protocols": at(22)}]});
    let mut of_web = spec(
        "Admin",
        2,
        json!({"ingress": [{"action": "Deny", "from": ops(), "protocols": at(23)}]}),
    );
    of_web["subject"] =
        json!({"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "web"}}}});
    let policies = [
        ("first", spec("Admin", 1, for_all(ops()))),
        ("of-web", of_web),
        ("last", spec("Admin", 3, for_all(everybody()))),
    ];
    let (snapshot, notes) = cluster(&policies, &[]);
    assert_eq!(notes, [""; 0]);
    let plan = policy::plan(&snapshot, "node-1");
    let tables = policy::apply(&plan);
    let names = |ends: &str, of: &[String]| of.iter().filter(|name| name.ends_with(ends)).count();
    let sets: Vec<String> = tables[0].sets.keys().cloned().collect();
    let chains: Vec<String> = tables[0].chains.keys().cloned().collect();
    let tiers = chains
        .iter()
        .filter(|name| name.starts_with("ingress-Admin-"));
    assert_eq!(
        tiers.count(),
        2 + 3,
        "two tiers, and three rules: {chains:?}"
    );
    assert_eq!(names("-deny", &chains), 3, "{chains:?}");
    assert_eq!(names("-host-ports", &sets), 3, "{sets:?}");
    // All of them end with the class of which they are, not with the first one.
    let mut follows = policy::Planner::new(&snapshot, "node-1");
    let mut without = snapshot.clone();
    let web = Key::ClusterNetworkPolicy("of-web".to_owned());
    without.remove(&web);
    follows.follow(&without, &[web].into());
    let patch = policy::difference(&plan, follows.plan());
    let gone = |table: &Table| {
        table
            .sets
            .keys()
            .filter(|name| name.ends_with("-host-ports"))
            .count()
    };
    let before: usize = patch.before.values().map(gone).sum();
    let after: usize = patch.after.values().map(gone).sum();
    assert_eq!((before, after), (1, 0), "that of one rule goes");
}
