//! `parfait policy list`: the policies; or the classes that they make of pods, and what these allow.

use std::collections::{BTreeMap, BTreeSet};

use parfait_cluster::{ClusterNetworkPolicy, Direction, Key, NetworkPolicy, Pod, Snapshot};
use parfait_lab_fabric::StateRoot;
use parfait_packet::Origin;
use parfait_transport::policy::Effective;
use parfait_transport::policy::overview::{Overview, of_class};
use serde_json::{Value, json};

use super::nodes::{self, List};
use super::{asked, explain, say_json, say_notes};
use crate::args::{Output, PolicyList};
use crate::exit::{DONE, Failure};
use crate::explain::snapshot;
use crate::lab::Columns;
use crate::output::say;

pub async fn run(root: &StateRoot, args: &PolicyList) -> Result<u8, Failure> {
    let (snapshot, notes, _) = snapshot(root, &args.picture).await?;
    match args.effective {
        true => effective(&snapshot, args)?,
        false => policies(&snapshot, args)?,
    }
    if args.output == Output::Text {
        say_notes(&notes);
    }
    Ok(DONE)
}

/// A policy, and the pods that it is for.
struct Row {
    policy: Origin,
    /// Tier and priority of a ClusterNetworkPolicy.
    rank: Option<(&'static str, u16)>,
    directions: Vec<&'static str>,
    rules: usize,
    /// How many pods of each node.
    pods: BTreeMap<String, usize>,
    notes: Vec<String>,
}

impl Row {
    fn of(snapshot: &Snapshot, policy: &NetworkPolicy) -> Self {
        let rules = |way: &Direction| Some((way.name(), policy.rules(*way)?.len()));
        let fits = |pod: &Pod| {
            pod.name.namespace == policy.name.namespace && policy.pods.matches(&pod.labels)
        };
        let key = Key::NetworkPolicy(policy.name.clone());
        let rules = Direction::ALL.iter().filter_map(rules);
        Self::new(snapshot, policy.origin(), None, rules, fits, &key)
    }

    fn of_cluster(snapshot: &Snapshot, policy: &ClusterNetworkPolicy) -> Self {
        let rules = Direction::ALL
            .iter()
            .map(|way| (way.name(), policy.rules(*way).len()));
        let fits = |pod: &Pod| {
            let namespace = snapshot.namespaces.get(&pod.name.namespace);
            let there = namespace.is_some_and(|found| policy.namespaces.matches(&found.labels));
            there && policy.pods.matches(&pod.labels)
        };
        let key = Key::ClusterNetworkPolicy(policy.name.clone());
        let rank = Some((policy.tier.name(), policy.priority));
        let rules = rules.filter(|(_, rules)| *rules > 0);
        Self::new(snapshot, policy.origin(), rank, rules, fits, &key)
    }

    fn new(
        snapshot: &Snapshot,
        policy: Origin,
        rank: Option<(&'static str, u16)>,
        rules: impl Iterator<Item = (&'static str, usize)>,
        fits: impl Fn(&Pod) -> bool,
        key: &Key,
    ) -> Self {
        let (directions, rules): (Vec<_>, Vec<_>) = rules.unzip();
        let mut pods = BTreeMap::new();
        let all = snapshot.pods.values();
        for pod in all.filter(|pod| !pod.host_network && pod.has_network() && fits(pod)) {
            let node = pod.node.clone().unwrap_or_default();
            *pods.entry(node).or_default() += 1;
        }
        let notes = snapshot.notes.get(key).into_iter().flatten();
        Self {
            policy,
            rank,
            directions,
            rules: rules.iter().sum(),
            pods,
            notes: notes.map(ToString::to_string).collect(),
        }
    }

    fn as_json(&self) -> Value {
        json!({
            "kind": self.policy.kind.name(),
            "namespace": self.policy.namespace,
            "name": self.policy.name,
            "tier": self.rank.map(|(tier, _)| tier),
            "priority": self.rank.map(|(_, priority)| priority),
            "directions": self.directions,
            "rules": self.rules,
            "podsByNode": self.pods,
            "notes": self.notes,
        })
    }

    /// The last columns of both tables.
    fn cells(&self) -> [String; 4] {
        let nodes = self
            .pods
            .iter()
            .map(|(node, pods)| format!("{node} {pods}"));
        [
            self.directions.join(", "),
            self.rules.to_string(),
            self.pods.values().sum::<usize>().to_string(),
            nodes.collect::<Vec<_>>().join(", "),
        ]
    }
}

fn policies(snapshot: &Snapshot, args: &PolicyList) -> Result<(), Failure> {
    let policies = snapshot.policies.values();
    let policies = policies.filter(|policy| asked(&args.namespace, &policy.name.namespace));
    let mut rows: Vec<Row> = policies.map(|policy| Row::of(snapshot, policy)).collect();
    // Those of the cluster are of no namespace.
    let cluster = snapshot.cluster_policies.values();
    let cluster = cluster.filter(|_| args.namespace.is_empty());
    let mut ranked: Vec<_> = cluster
        .map(|policy| (policy.tier, policy.priority, policy))
        .collect();
    ranked.sort_by_key(|(tier, priority, policy)| (*tier, *priority, &policy.name));
    rows.extend(
        ranked
            .iter()
            .map(|(.., policy)| Row::of_cluster(snapshot, policy)),
    );
    // Nor are those of nodes.
    let nodes = args.namespace.is_empty().then(|| List::of(snapshot));
    let nodes = nodes.filter(|nodes| !nodes.is_empty());
    if args.output == Output::Json {
        let nodes = nodes.iter().flat_map(List::as_json);
        return say_json(&rows.iter().map(Row::as_json).chain(nodes).collect());
    }
    if rows.is_empty() {
        say!("no policies: every pod may talk to every pod");
    }
    print(&rows);
    if let Some(nodes) = &nodes {
        say!();
        nodes.print();
    }
    let of_nodes = nodes.iter().flat_map(List::notes);
    for note in rows.iter().flat_map(|row| &row.notes).chain(of_nodes) {
        say!("note: {note}");
    }
    Ok(())
}

fn print(rows: &[Row]) {
    let header = [
        "NAMESPACE",
        "NAME",
        "ISOLATES FOR",
        "RULES",
        "PODS",
        "ON NODES",
    ];
    let mut table = Columns::new(header);
    let header = [
        "TIER", "PRIORITY", "NAME", "JUDGES", "RULES", "PODS", "ON NODES",
    ];
    let mut cluster = Columns::new(header);
    for row in rows {
        let [directions, rules, pods, nodes] = row.cells();
        let (namespace, name) = (&row.policy.namespace, &row.policy.name);
        match row.rank {
            None => table.row([namespace, name, &directions, &rules, &pods, &nodes]),
            Some((tier, priority)) => {
                let priority = priority.to_string();
                cluster.row([tier, &priority, name, &directions, &rules, &pods, &nodes]);
            }
        }
    }
    let ranked = rows.iter().filter(|row| row.rank.is_some()).count();
    if ranked > 0 {
        say!("{cluster}");
    }
    if ranked > 0 && rows.len() > ranked {
        say!();
    }
    if rows.len() > ranked {
        say!("{table}");
    }
}

fn effective(snapshot: &Snapshot, args: &PolicyList) -> Result<(), Failure> {
    let effective = Effective::of(snapshot);
    let mut classes: Vec<(BTreeSet<&Origin>, Overview)> = effective
        .classes()
        .into_values()
        .map(|(class, pods)| (pods, of_class(snapshot, class)))
        .filter(|(pods, _)| {
            pods.iter()
                .any(|pod| asked(&args.namespace, &pod.namespace))
        })
        .collect();
    classes
        .sort_by(|(some, one), (more, other)| (some, one.direction).cmp(&(more, other.direction)));
    let nodes = match args.namespace.is_empty() {
        true => nodes::effective(snapshot, &effective),
        false => Vec::new(),
    };
    if args.output == Output::Json {
        let class = |of: &str, whose: Value, overview: &Overview| {
            let mut value = explain::as_json(overview);
            value[of] = whose;
            value
        };
        let classes = classes.iter();
        let classes = classes.map(|(pods, overview)| class("pods", json!(pods), overview));
        let nodes = nodes.iter();
        let nodes = nodes.map(|(nodes, overview)| class("nodes", json!(nodes), overview));
        return say_json(&classes.chain(nodes).collect());
    }
    if classes.is_empty() {
        say!("no pod is isolated");
    }
    let classes = classes.into_iter().map(|(pods, overview)| {
        let pods: Vec<Origin> = pods.into_iter().cloned().collect();
        (pods, overview)
    });
    for (index, (whose, overview)) in classes.chain(nodes).enumerate() {
        if index > 0 {
            say!();
        }
        say!("{}", explain::some(&whose, ToString::to_string));
        explain::print(&overview);
    }
    Ok(())
}
