//! Random policies of all kinds for pods labelled `app` in namespaces labelled `team`, `a` or `b` each, at the addresses of
//! `model/cluster/tests/fixture`. Included by path from the tests of other crates as well.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

pub const PORTS: [u16; 4] = [53, 80, 85, 8080];

/// Ranges that lie in each other, of pods and of others.
const BLOCKS: [&str; 9] = [
    "0.0.0.0/0",
    "10.244.0.0/16",
    "10.244.1.0/24",
    "10.244.1.2/32",
    "10.244.2.2/31",
    "192.0.2.0/24",
    "::/0",
    "fd00:10:244:1::/64",
    "fd00:10:244:1::2/128",
];

fn selector(key: &'static str, values: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let expression = (
        select(&["In", "NotIn", "Exists", "DoesNotExist"][..]),
        prop::sample::subsequence(values, 1..=values.len()),
    );
    let expression =
        expression.prop_map(
            move |(operator, values)| match ["In", "NotIn"].contains(&operator) {
                true => json!({"key": key, "operator": operator, "values": values}),
                false => json!({"key": key, "operator": operator}),
            },
        );
    let equal = prop::option::of(select(values));
    let expressions = prop::collection::vec(expression, 0..2);
    (equal, expressions).prop_map(move |(equal, expressions)| {
        let mut selector = Map::new();
        if let Some(value) = equal {
            selector.insert("matchLabels".to_owned(), json!({key: value}));
        }
        if !expressions.is_empty() {
            selector.insert("matchExpressions".to_owned(), json!(expressions));
        }
        Value::Object(selector)
    })
}

fn peer() -> impl Strategy<Value = Value> {
    let pods = || selector("app", &["a", "b"]);
    let namespaces = || selector("team", &["a", "b"]);
    let block = (
        select(&BLOCKS[..]),
        prop::sample::subsequence(&BLOCKS[..], 0..3),
    );
    let block = block.prop_map(|(cidr, except)| {
        let net = |text: &str| text.parse::<ipnet::IpNet>().expect("a CIDR");
        // The API server takes no others.
        let except = except
            .into_iter()
            .filter(|e| *e != cidr && net(cidr).contains(&net(e)));
        json!({"ipBlock": {"cidr": cidr, "except": except.collect::<Vec<_>>()}})
    });
    prop_oneof![
        1 => pods().prop_map(|pods| json!({"podSelector": pods})),
        1 => namespaces().prop_map(|namespaces| json!({"namespaceSelector": namespaces})),
        1 => (pods(), namespaces()).prop_map(|(pods, namespaces)| {
            json!({"podSelector": pods, "namespaceSelector": namespaces})
        }),
        2 => block,
    ]
}

fn port() -> impl Strategy<Value = Value> {
    let protocol = prop::option::weighted(0.3, select(&["TCP", "UDP", "SCTP"][..]));
    let port = prop_oneof![
        1 => Just(json!({})),
        3 => select(&PORTS[..]).prop_map(|port| json!({"port": port})),
        2 => (select(&PORTS[..]), 0_u16..30).prop_map(|(port, more)| {
            json!({"port": port, "endPort": port + more})
        }),
        2 => select(&["http", "dns", "none"][..]).prop_map(|name| json!({"port": name})),
    ];
    (protocol, port).prop_map(|(protocol, mut port)| {
        if let Some(protocol) = protocol {
            port["protocol"] = json!(protocol);
        }
        port
    })
}

fn rules(peers: &'static str) -> impl Strategy<Value = Option<Value>> {
    let list = |strategy| prop::option::weighted(0.8, prop::collection::vec(strategy, 0..4));
    let rule = (list(peer().boxed()), list(port().boxed()));
    let rule = rule.prop_map(move |(from, ports)| {
        let mut rule = Map::new();
        rule.extend(from.map(|from| (peers.to_owned(), json!(from))));
        rule.extend(ports.map(|ports| ("ports".to_owned(), json!(ports))));
        Value::Object(rule)
    });
    let rules = prop::collection::vec(rule, 0..3);
    prop::option::weighted(0.8, rules).prop_map(|rules| rules.map(|rules| json!(rules)))
}

/// A policy's `spec`.
pub fn policy() -> impl Strategy<Value = Value> {
    let types = prop::option::weighted(
        0.3,
        prop::sample::subsequence(&["Ingress", "Egress"][..], 0..=2),
    );
    let pods = prop_oneof![2 => Just(json!({})), 1 => selector("app", &["a", "b"])];
    (pods, types, rules("from"), rules("to")).prop_map(|(pods, types, ingress, egress)| {
        let mut spec = Map::new();
        spec.insert("podSelector".to_owned(), pods);
        spec.extend(types.map(|types| ("policyTypes".to_owned(), json!(types))));
        spec.extend(ingress.map(|rules| ("ingress".to_owned(), rules)));
        spec.extend(egress.map(|rules| ("egress".to_owned(), rules)));
        Value::Object(spec)
    })
}

/// A ClusterNetworkPolicy's `spec`.
pub fn cluster_policy() -> impl Strategy<Value = Value> {
    let tier = select(&["Admin", "Admin", "Baseline"][..]);
    // Equal ones as well.
    let priority = 0..4;
    let peers = |peer| prop::collection::vec(peer, 1..3);
    let ingress = ranked("from", peers(pods_peer().boxed()).boxed(), true);
    let to_pods = ranked("to", peers(pods_peer().boxed()).boxed(), true);
    let elsewhere = ranked("to", peers(address_peer().boxed()).boxed(), false);
    let egress = prop_oneof![to_pods, elsewhere];
    let ingress = prop::collection::vec(ingress, 0..3);
    let egress = prop::collection::vec(egress, 0..3);
    (tier, priority, pods_peer(), ingress, egress).prop_map(
        |(tier, priority, subject, ingress, egress)| {
            json!({"tier": tier, "priority": priority, "subject": subject, "ingress": ingress, "egress": egress})
        },
    )
}

fn pods_peer() -> impl Strategy<Value = Value> {
    let pods = || selector("app", &["a", "b"]);
    let namespaces = || selector("team", &["a", "b"]);
    prop_oneof![
        1 => Just(json!({"namespaces": {}})),
        1 => namespaces().prop_map(|namespaces| json!({"namespaces": namespaces})),
        2 => (pods(), prop_oneof![Just(json!({})), namespaces()]).prop_map(|(pods, namespaces)| {
            json!({"pods": {"podSelector": pods, "namespaceSelector": namespaces}})
        }),
    ]
}

fn address_peer() -> impl Strategy<Value = Value> {
    let networks = prop::sample::subsequence(&BLOCKS[..], 1..3);
    prop_oneof![
        2 => networks.prop_map(|networks| json!({"networks": networks})),
        1 => selector("team", &["a", "b"]).prop_map(|nodes| json!({"nodes": nodes})),
        1 => pods_peer(),
    ]
}

fn ranked(
    list: &'static str,
    peers: BoxedStrategy<Vec<Value>>,
    named: bool,
) -> impl Strategy<Value = Value> {
    let protocol = select(&["tcp", "tcp", "udp", "sctp"][..]);
    let port = prop_oneof![
        2 => select(&PORTS[..]).prop_map(|port| json!({"number": port})),
        1 => (select(&PORTS[..]), 1_u16..30).prop_map(|(port, more)| {
            json!({"range": {"start": port, "end": port + more}})
        }),
    ];
    let numbered =
        (protocol, port).prop_map(|(protocol, port)| json!({protocol: {"destinationPort": port}}));
    let name = select(&["http", "dns", "none"][..]);
    let name = name.prop_map(|name| json!({"destinationNamedPort": name}));
    let one = match named {
        true => prop_oneof![2 => numbered, 1 => name].boxed(),
        false => numbered.boxed(),
    };
    let protocols = prop::option::of(prop::collection::vec(one, 1..3));
    let action = select(&["Accept", "Deny", "Deny", "Pass"][..]);
    (action, peers, protocols).prop_map(move |(action, peers, protocols)| {
        let mut rule = Map::new();
        rule.insert("action".to_owned(), json!(action));
        rule.insert(list.to_owned(), json!(peers));
        rule.extend(protocols.map(|protocols| ("protocols".to_owned(), json!(protocols))));
        Value::Object(rule)
    })
}

/// A NodeNetworkPolicy's `spec`.
pub fn node_policy() -> impl Strategy<Value = Value> {
    let from = prop::collection::vec(address_peer(), 1..3).boxed();
    let rule = ranked("from", from, false).prop_map(|mut rule| {
        // There is no tier to pass on to.
        if rule["action"] == "Pass" {
            rule["action"] = json!("Deny");
        }
        rule
    });
    let nodes = prop::option::of(selector("team", &["a", "b"]));
    let rules = prop::collection::vec(rule, 1..4);
    (0..4, nodes, rules).prop_map(|(priority, nodes, rules)| {
        let mut spec = Map::new();
        spec.insert("priority".to_owned(), json!(priority));
        spec.extend(nodes.map(|nodes| ("nodeSelector".to_owned(), nodes)));
        spec.insert("ingress".to_owned(), json!(rules));
        Value::Object(spec)
    })
}
