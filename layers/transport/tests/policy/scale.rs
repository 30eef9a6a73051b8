//! What changes make different in the kernel where many classes name the same pods: counted, not timed
//! (`cargo xtask bench policy` times).

use std::collections::BTreeSet;
use std::sync::Arc;

use parfait_cluster::{Key, Object, ObjectName, Snapshot};
use parfait_linux::nft::diff::{Action, NftStep};
use parfait_linux::nft::{Family, Table, diff, render};
use parfait_transport::policy::group::LARGE;
use parfait_transport::policy::{self, Planner};
use serde_json::{Value, json};

use crate::random::typed;
use crate::reference::Objects;
use crate::snapshot;

const NODE: &str = "node-1";

/// Namespaces with a pod of this node each, and policies.
fn cluster(namespaces: usize, dns: usize, policies: &[Value]) -> Snapshot {
    guarded(namespaces, dns, policies, Vec::new())
}

fn guarded(namespaces: usize, dns: usize, policies: &[Value], cluster: Vec<Value>) -> Snapshot {
    let named = |number: usize| format!("ns-{number}");
    let pod = |namespace: &str, name: &str, app: &str, node: usize, at: usize| {
        let ip = format!("10.244.{node}.{at}");
        typed(json!({
            "metadata": {"namespace": namespace, "name": name, "labels": {"app": app}},
            "spec": {"nodeName": format!("node-{node}"), "containers": [{"name": "main"}]},
            "status": {"phase": "Running", "podIPs": [{"ip": ip}]},
        }))
    };
    let namespace =
        |name: String| typed(json!({"metadata": {"name": name, "labels": {"name": name}}}));
    let own = (0..namespaces).map(|number| pod(&named(number), "own", "web", 1, number + 2));
    let theirs = (0..dns).map(|number| {
        let name = format!("dns-{number}");
        pod("kube-system", &name, "dns", 2, number + 2)
    });
    let all = (0..namespaces).flat_map(|number| {
        policies.iter().enumerate().map(move |(index, spec)| {
            let metadata =
                json!({"name": format!("policy-{index}"), "namespace": format!("ns-{number}")});
            typed(json!({"metadata": metadata, "spec": spec}))
        })
    });
    snapshot(&Objects {
        namespaces: (0..namespaces)
            .map(named)
            .chain(["kube-system".to_owned()])
            .map(namespace)
            .collect(),
        pods: own.chain(theirs).collect(),
        services: Vec::new(),
        policies: all.collect(),
        cluster: cluster.into_iter().map(typed).collect(),
        of_nodes: Vec::new(),
        nodes: Vec::new(),
    })
}

/// Egress to pods of kube-system with a label.
fn to(app: &str) -> Value {
    let peer = json!({"namespaceSelector": {"matchLabels": {"name": "kube-system"}}, "podSelector": {"matchLabels": {"app": app}}});
    let ports = json!([{"port": 53, "protocol": "UDP"}, {"port": 53}]);
    json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [peer], "ports": ports}]})
}

/// Follows, and says what the kernel is told.
fn follow(planner: &mut Planner, snapshot: &Snapshot, key: Key) -> Vec<NftStep> {
    let before = planner.plan().clone();
    planner.follow(snapshot, &[key].into());
    let patch = policy::difference(&before, planner.plan());
    diff(&patch.before, &patch.after)
}

fn relabel(snapshot: &mut Snapshot, name: &ObjectName, app: &str) -> Key {
    let mut pod = snapshot.pods[name].clone();
    pod.labels.insert("app".to_owned(), app.to_owned());
    snapshot.insert(Object::Pod(pod));
    Key::Pod(name.clone())
}

/// So many elements come or go.
fn elements(steps: &[NftStep]) -> usize {
    let each = steps.iter().map(|step| match &step.action {
        Action::AddElements(_, _, elements) => elements.len(),
        Action::DeleteElements(_, _, keys) => keys.len(),
        _ => 0,
    });
    each.sum()
}

fn sets(table: &Table) -> BTreeSet<&str> {
    table.sets.keys().map(String::as_str).collect()
}

#[test]
fn a_pod_that_very_many_classes_name_is_one_element() {
    let mut now = cluster(20, 2, &[to("dns")]);
    let mut planner = Planner::new(&now, NODE);
    let classes = planner.plan().classes();
    assert_eq!(classes.len(), 20);
    let before: Vec<_> = classes.values().map(|class| class.name.clone()).collect();
    for (app, change) in [("other", "delete element"), ("dns", "add element")] {
        let key = relabel(&mut now, &ObjectName::new("kube-system", "dns-0"), app);
        let steps = follow(&mut planner, &now, key);
        let [step] = &*steps else { panic!("{steps:?}") };
        let said = step.to_string();
        assert!(said.starts_with(change), "{said}");
        assert!(
            said.contains("@peers-") || said.contains(" peers-"),
            "{said}"
        );
        assert!(said.contains("10.244.2.2"), "{said}");
    }
    // Not even if nobody is there any more, or more than enough for a set of a single class.
    for last in 0..2 {
        let key = Key::Pod(ObjectName::new("kube-system", &format!("dns-{last}")));
        now.remove(&key);
        assert_eq!(elements(&follow(&mut planner, &now, key)), 1);
    }
    let after = planner.plan().classes().into_keys().map(str::to_owned);
    assert_eq!(after.collect::<Vec<_>>(), before);
}

#[test]
fn peers_of_a_few_classes_become_groups_by_the_elements_that_these_save() {
    let groups = |namespaces: usize, dns: usize| {
        let now = cluster(namespaces, dns, &[to("dns")]);
        let tables = policy::apply(&policy::plan(&now, NODE));
        let sets = sets(&tables[0]);
        sets.iter()
            .filter(|name| name.starts_with("peers-") && !name.contains("-ports"))
            .count()
    };
    assert_eq!(groups(2, 128), 0, "256 elements in all");
    assert_eq!(groups(2, 129), 1, "258");
    assert_eq!(groups(16, 16), 0, "256 again");
    assert_eq!(groups(16, 17), 1);
    assert_eq!(groups(17, 1), 1, "whom 17 classes name, more will");
}

/// One pod more or less, again and again, where that decides whether a peer is a group.
#[test]
fn a_peer_between_two_forms_costs_no_more_than_its_elements() {
    let mut now = cluster(16, 17, &[to("dns")]);
    let mut planner = Planner::new(&now, NODE);
    let one = ObjectName::new("kube-system", "dns-0");
    for app in ["other", "dns", "other"] {
        let key = relabel(&mut now, &one, app);
        let steps = follow(&mut planner, &now, key);
        // Two ports for each of a class's own elements, or for the group.
        let most = 2 * LARGE + 17 + 2 * 16;
        assert!(elements(&steps) <= most, "{} elements", elements(&steps));
        let is_set = |step: &NftStep| matches!(step.action, Action::AddSet(..));
        assert!(steps.iter().any(is_set), "it is another form");
    }
}

#[test]
fn a_packet_looks_up_few_groups_however_many_are_named() {
    let apps = ["a", "b", "c", "d", "e", "dns"];
    let policies: Vec<Value> = apps.iter().map(|app| to(app)).collect();
    let mut now = cluster(20, 2, &policies);
    let mut planner = Planner::new(&now, NODE);
    let tables = policy::apply(planner.plan());
    let chain = |name: &str| &tables[0].chains[name];
    for class in planner.plan().classes().into_values() {
        let rules = &chain(&class.name).rules;
        let looked = rules.iter().map(|rule| render::rule(Family::Ip, rule));
        let groups: BTreeSet<String> = looked
            .flat_map(|rule| {
                let words = rule.split(' ').map(str::to_owned);
                words
                    .filter(|word| word.starts_with("@peers-"))
                    .collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(groups.len(), 4, "{rules:?}");
    }
    // The last ones are in sets of the classes' own, and follow all the same.
    let key = relabel(&mut now, &ObjectName::new("kube-system", "dns-0"), "other");
    let steps = follow(&mut planner, &now, key);
    assert_eq!(elements(&steps), 20 * 2, "two ports in each of 20 classes");
    assert_eq!(planner.plan(), Planner::new(&now, NODE).plan());
}

#[test]
fn a_rule_of_the_cluster_leaves_alone_what_namespaces_say_and_other_rules() {
    let policy = |name: &str, ports: [u16; 2]| {
        let deny = |port: u16| {
            let at = json!([{"tcp": {"destinationPort": {"number": port}}}]);
            json!({"action": "Deny", "to": [{"namespaces": {}}], "protocols": at})
        };
        json!({"metadata": {"name": name}, "spec": {
            "tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, "egress": ports.map(deny),
        }})
    };
    let snapshot = |port| {
        let cluster = vec![policy("first", [21, 22]), policy("second", [23, port])];
        guarded(20, 2, &[to("dns")], cluster)
    };
    let mut planner = Planner::new(&snapshot(24), NODE);
    let before = planner.plan().clone();
    let key = Key::ClusterNetworkPolicy("second".to_owned());
    let steps = follow(&mut planner, &snapshot(25), key);
    // Of each of 22 pods, at the old port and at the new one.
    assert_eq!(elements(&steps), 2 * 22);
    let is_rule = |step: &NftStep| matches!(step.action, Action::AddRules(..));
    assert!(!steps.iter().any(is_rule), "{steps:?}");
    let (before, after) = (before.classes(), planner.plan().classes());
    assert_eq!(after.len(), 20);
    for (name, class) in after {
        let [admin, own] = &*class.tiers else {
            panic!("{class:?}")
        };
        let [was_admin, was_own] = &*before[name].tiers else {
            panic!("{class:?}")
        };
        assert!(
            Arc::ptr_eq(own, was_own),
            "NetworkPolicies are not compiled again"
        );
        assert!(!Arc::ptr_eq(admin, was_admin));
    }
}
