//! Names of a small cluster, as tables of questions and answers; and the laws of the layer.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use parfait_cluster::{
    Config, Distribution, Endpoint, EndpointPort, EndpointSlice, Key, Namespace, Object,
    ObjectName, Outside, Phase, Pod, Service, ServicePort, ServiceType, Snapshot, TargetPort,
    TrafficPolicy,
};
use parfait_dns::{Data, Name, Rcode, RecordType, Zone};
use parfait_packet::{Family, Protocol};
use proptest::prelude::*;

use crate::{
    Observation, Outcome, Plan, Said, apply, explain, plan, prove, questions, reapply, search_list,
};

fn service(namespace: &str, name: &str, ips: &[&str]) -> Service {
    Service {
        name: ObjectName::new(namespace, name),
        kind: ServiceType::ClusterIp,
        cluster_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        headless: ips.is_empty(),
        ports: vec![ServicePort {
            name: Some("http".to_owned()),
            protocol: Protocol::Tcp,
            port: 80,
            target: TargetPort::Number(8080),
            node_port: None,
        }],
        selector: BTreeMap::new(),
        created: None,
        publish_not_ready: false,
        served_by_node: false,
        left_by: None,
        labels: BTreeMap::new(),
        outside: Outside::default(),
        internal_policy: TrafficPolicy::Cluster,
        affinity: None,
        distribution: Distribution::Even,
    }
}

/// A slice of endpoints written `10.244.1.2`, `10.244.1.2=db-0` with a hostname, or `!…` if not ready.
fn slice(namespace: &str, service: &str, name: &str, endpoints: &[&str]) -> EndpointSlice {
    let endpoint = |text: &&str| {
        let (ready, text) = match text.strip_prefix('!') {
            Some(text) => (false, text),
            None => (true, *text),
        };
        let (address, hostname) = match text.split_once('=') {
            Some((address, hostname)) => (address, Some(hostname.to_owned())),
            None => (text, None),
        };
        Endpoint {
            address: address.parse().unwrap(),
            ready,
            serving: ready,
            terminating: false,
            node: None,
            zone: None,
            hostname,
            pod: None,
            zone_hints: Vec::new(),
            node_hints: Vec::new(),
        }
    };
    let endpoints: Vec<_> = endpoints.iter().map(endpoint).map(Arc::new).collect();
    EndpointSlice {
        name: ObjectName::new(namespace, name),
        service: ObjectName::new(namespace, service),
        family: endpoints.first().map(|e| Family::of(e.address)),
        ports: vec![EndpointPort {
            name: Some("pg".to_owned()),
            protocol: Protocol::Tcp,
            port: 5432,
        }],
        endpoints,
    }
}

fn pod(namespace: &str, name: &str, addresses: &[&str]) -> Pod {
    Pod {
        name: ObjectName::new(namespace, name),
        uid: String::new(),
        created: None,
        labels: BTreeMap::new(),
        node: Some("node-1".to_owned()),
        host_network: false,
        hostname: None,
        subdomain: None,
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        reported: Vec::new(),
        mac: None,
        phase: Phase::Running,
        ready: true,
        terminating: false,
        ports: Vec::new(),
        bandwidth: Default::default(),
    }
}

fn alias(namespace: &str, name: &str, target: &str) -> Service {
    Service {
        kind: ServiceType::ExternalName(target.to_owned()),
        ports: Vec::new(),
        headless: false,
        ..service(namespace, name, &[])
    }
}

fn cluster() -> Snapshot {
    let mut snapshot = Snapshot::default();
    let config = Config {
        service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
        cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
        ..Config::default()
    };
    for object in [
        Object::Config(config),
        Object::Namespace(Namespace::new("default")),
        Object::Namespace(Namespace::new("empty")),
        Object::Service(service(
            "kube-system",
            "kube-dns",
            &["10.96.0.10", "fd00:10:96::a"],
        )),
        Object::Service(service("default", "web", &["10.96.0.7", "fd00:10:96::7"])),
        Object::Service(service("shop", "db", &[])),
        Object::EndpointSlice(slice(
            "shop",
            "db",
            "db-4",
            &[
                "10.244.1.2=db-0",
                "10.244.2.3=db-1",
                "!10.244.3.4=db-2",
                "10.244.1.9",
            ],
        )),
        Object::EndpointSlice(slice("shop", "db", "db-6", &["fd00:10:244:1::2=db-0"])),
        Object::Service(Service {
            publish_not_ready: true,
            ..service("shop", "peers", &[])
        }),
        Object::EndpointSlice(slice("shop", "peers", "peers-4", &["!10.244.3.4=db-2"])),
        Object::Service(service("shop", "nobody", &[])),
        Object::Service(alias("default", "docs", "Docs.Example.org")),
        Object::Service(alias("default", "site", "web.default.svc.cluster.local")),
        Object::Pod(pod(
            "default",
            "client",
            &["10.244.1.2", "fd00:10:244:1::2"],
        )),
    ] {
        snapshot.insert(object);
    }
    snapshot
}

/// An answer in short: the rcode and what `dig +short` prints.
fn ask(zone: &Zone, name: &str, kind: RecordType) -> String {
    let answer = zone.answer(&name.parse().unwrap(), kind);
    let mut words = vec![format!("{:?}", answer.rcode)];
    words.extend(answer.records.iter().map(|f| f.record.data.to_string()));
    words.extend(answer.outside.map(|n| format!("→ {n}")));
    words.join(" ")
}

const QUESTIONS: &[(&str, RecordType, &str)] = &[
    (
        "web.default.svc.cluster.local",
        RecordType::A,
        "NoError 10.96.0.7",
    ),
    (
        "WEB.Default.svc.cluster.LOCAL",
        RecordType::Aaaa,
        "NoError fd00:10:96::7",
    ),
    (
        "_http._tcp.web.default.svc.cluster.local",
        RecordType::Srv,
        "NoError 0 100 80 web.default.svc.cluster.local.",
    ),
    (
        "_tcp.web.default.svc.cluster.local",
        RecordType::Srv,
        "NoError",
    ),
    (
        "_http._udp.web.default.svc.cluster.local",
        RecordType::Srv,
        "NxDomain",
    ),
    (
        "7.0.96.10.in-addr.arpa",
        RecordType::Ptr,
        "NoError web.default.svc.cluster.local.",
    ),
    // Headless: the ready endpoints, by their hostnames or addresses.
    (
        "db.shop.svc.cluster.local",
        RecordType::A,
        "NoError 10.244.1.2 10.244.1.9 10.244.2.3",
    ),
    (
        "db.shop.svc.cluster.local",
        RecordType::Aaaa,
        "NoError fd00:10:244:1::2",
    ),
    (
        "db-0.db.shop.svc.cluster.local",
        RecordType::A,
        "NoError 10.244.1.2",
    ),
    (
        "db-0.db.shop.svc.cluster.local",
        RecordType::Aaaa,
        "NoError fd00:10:244:1::2",
    ),
    (
        "db-1.db.shop.svc.cluster.local",
        RecordType::Aaaa,
        "NoError",
    ),
    ("db-2.db.shop.svc.cluster.local", RecordType::A, "NxDomain"),
    (
        "10-244-1-9.db.shop.svc.cluster.local",
        RecordType::A,
        "NoError 10.244.1.9",
    ),
    (
        "2.1.244.10.in-addr.arpa",
        RecordType::Ptr,
        "NoError db-0.db.shop.svc.cluster.local.",
    ),
    (
        "4.3.244.10.in-addr.arpa",
        RecordType::Ptr,
        "NoError db-2.peers.shop.svc.cluster.local.",
    ),
    ("9.9.244.10.in-addr.arpa", RecordType::Ptr, "NxDomain"),
    ("9.9.168.192.in-addr.arpa", RecordType::Ptr, "NotOurs"),
    (
        "peers.shop.svc.cluster.local",
        RecordType::A,
        "NoError 10.244.3.4",
    ),
    ("nobody.shop.svc.cluster.local", RecordType::A, "NoError"),
    // Aliases.
    (
        "docs.default.svc.cluster.local",
        RecordType::A,
        "NoError docs.example.org. → docs.example.org.",
    ),
    (
        "site.default.svc.cluster.local",
        RecordType::A,
        "NoError web.default.svc.cluster.local. 10.96.0.7",
    ),
    // Pods.
    (
        "10-244-1-2.default.pod.cluster.local",
        RecordType::A,
        "NoError 10.244.1.2",
    ),
    (
        "fd00-10-244-1--2.default.pod.cluster.local",
        RecordType::Aaaa,
        "NoError fd00:10:244:1::2",
    ),
    (
        "10-244-1-2.shop.pod.cluster.local",
        RecordType::A,
        "NxDomain",
    ),
    // What exists only because something exists below it, and what does not.
    ("shop.svc.cluster.local", RecordType::A, "NoError"),
    ("empty.svc.cluster.local", RecordType::A, "NoError"),
    ("nosuch.svc.cluster.local", RecordType::A, "NxDomain"),
    ("svc.cluster.local", RecordType::A, "NoError"),
    ("web.cluster.local", RecordType::A, "NxDomain"),
    (
        "dns-version.cluster.local",
        RecordType::Txt,
        "NoError \"1.1.0\"",
    ),
    (
        "cluster.local",
        RecordType::Ns,
        "NoError ns.dns.cluster.local.",
    ),
    ("ns.dns.cluster.local", RecordType::A, "NoError 10.96.0.10"),
    ("example.org", RecordType::A, "NotOurs"),
];

#[test]
fn questions_and_answers() {
    let zone = apply(&plan(&cluster()));
    for (name, kind, expected) in QUESTIONS {
        assert_eq!(ask(&zone, name, *kind), *expected, "{name} {kind}");
    }
}

#[test]
fn every_srv_of_a_headless_service_names_a_host_with_an_address() {
    let zone = apply(&plan(&cluster()));
    let name: Name = "_pg._tcp.db.shop.svc.cluster.local".parse().unwrap();
    let answer = zone.answer(&name, RecordType::Srv);
    let said: Vec<_> = answer
        .records
        .iter()
        .map(|f| f.record.data.to_string())
        .collect();
    assert_eq!(
        said,
        [
            "0 25 5432 10-244-1-9.db.shop.svc.cluster.local.",
            "0 25 5432 db-0.db.shop.svc.cluster.local.",
            "0 25 5432 db-1.db.shop.svc.cluster.local.",
        ]
    );
    assert_eq!(answer.additional.len(), 4);
}

#[test]
fn every_answer_names_its_object() {
    let zone = apply(&plan(&cluster()));
    for (name, kind, origin) in [
        (
            "web.default.svc.cluster.local",
            RecordType::A,
            "Service default/web spec.clusterIPs",
        ),
        (
            "db-1.db.shop.svc.cluster.local",
            RecordType::A,
            "EndpointSlice shop/db-4 endpoints[10.244.2.3]",
        ),
        (
            "_http._tcp.web.default.svc.cluster.local",
            RecordType::Srv,
            "Service default/web spec.ports[http]",
        ),
        (
            "docs.default.svc.cluster.local",
            RecordType::A,
            "Service default/docs spec.externalName",
        ),
        (
            "10-244-1-2.default.pod.cluster.local",
            RecordType::A,
            "Pod default/client status.podIPs",
        ),
    ] {
        let answer = zone.answer(&name.parse().unwrap(), kind);
        let origins: Vec<_> = answer.origins().iter().map(ToString::to_string).collect();
        assert_eq!(origins, [origin], "{name}");
    }
}

#[test]
fn what_cannot_be_named_leaves_a_note_and_the_rest() {
    let mut snapshot = cluster();
    snapshot.insert(Object::Service(alias("default", "bad", "two..dots")));
    snapshot.insert(Object::EndpointSlice(slice(
        "shop",
        "db",
        "db-x",
        &["10.244.7.7=Not_A_Label"],
    )));
    let plan = plan(&snapshot);
    let notes: Vec<_> = plan.notes().map(ToString::to_string).collect();
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(
        notes[0].starts_with("Service default/bad spec.externalName: "),
        "{notes:?}"
    );
    assert!(notes[1].contains("Not_A_Label"), "{notes:?}");
    let zone = apply(&plan);
    assert_eq!(
        ask(&zone, "bad.default.svc.cluster.local", RecordType::A),
        "NxDomain"
    );
    assert_eq!(
        ask(&zone, "10-244-7-7.db.shop.svc.cluster.local", RecordType::A),
        "NoError 10.244.7.7"
    );
    assert_eq!(
        ask(&zone, "web.default.svc.cluster.local", RecordType::A),
        "NoError 10.96.0.7"
    );
}

/// The steps of a search in short, and its outcome.
fn search(name: &str, namespace: &str) -> (Vec<String>, Outcome) {
    let zone = apply(&plan(&cluster()));
    let found = explain(&zone, &search_list(zone.domain(), namespace), 5, name).unwrap();
    let steps = found.steps.iter().map(|step| {
        let said = match &step.said {
            Said::Addresses { .. } => "found",
            Said::NoAddress(_) => "no address",
            Said::NoName => "no name",
            Said::Outside { .. } => "outside",
        };
        format!("{} {said}", step.name)
    });
    (steps.collect(), found.outcome)
}

#[test]
fn a_name_is_searched_as_the_resolver_does() {
    use parfait_packet::Reason;
    let web = || {
        Outcome::Addresses(
            ["10.96.0.7", "fd00:10:96::7"]
                .map(|a| a.parse::<IpAddr>().unwrap())
                .to_vec(),
        )
    };
    let (steps, outcome) = search("web", "default");
    assert_eq!(steps, ["web.default.svc.cluster.local. found"]);
    assert_eq!(outcome, web());
    let (steps, outcome) = search("web.default", "shop");
    assert_eq!(
        steps,
        [
            "web.default.shop.svc.cluster.local. no name",
            "web.default.svc.cluster.local. found"
        ]
    );
    assert_eq!(outcome, web());
    let (steps, outcome) = search("web.default.svc.cluster.local", "shop");
    assert_eq!(
        steps.len(),
        4,
        "four dots are fewer than ndots:5, so the suffixes come first"
    );
    assert_eq!(outcome, web());
    assert_eq!(search("web.default.svc.cluster.local.", "shop").0.len(), 1);
    let (steps, outcome) = search("web", "shop");
    assert_eq!(steps.last().unwrap(), "web. no name");
    assert_eq!(outcome, Outcome::Nothing(Reason::NoSuchName));
    assert_eq!(
        search("nobody", "shop").1,
        Outcome::Nothing(Reason::NameWithoutAddress)
    );
    assert_eq!(
        search("nosuch.cluster.local.", "shop").1,
        Outcome::Nothing(Reason::NoSuchName)
    );
    assert_eq!(
        search("docs", "default").1,
        Outcome::Nothing(Reason::ExternalDestination)
    );
    let (steps, _) = search("a.b.c.d.e.f", "default");
    assert_eq!(
        steps[0], "a.b.c.d.e.f. outside",
        "six labels are tried as they are first"
    );
}

/// What a server that holds `zone` says to every question of `asked`.
fn observe(zone: &Zone, asked: &Zone) -> Vec<Observation> {
    let questions = questions(asked).into_iter();
    let observe = |(name, kind)| {
        let answer = zone.answer(&name, kind);
        let records = answer
            .records
            .iter()
            .map(|f| (f.name.clone(), f.record.data.clone()));
        Observation {
            kind,
            rcode: answer.rcode,
            records: records.collect(),
            name,
        }
    };
    questions.map(observe).collect()
}

#[test]
fn prove_finds_what_is_missing_extra_and_different() {
    let desired = apply(&plan(&cluster()));
    assert_eq!(prove(&desired, &observe(&desired, &desired)), []);
    let mut old = cluster();
    old.remove(&Key::Service(ObjectName::new("default", "web")));
    old.insert(Object::EndpointSlice(slice(
        "shop",
        "peers",
        "peers-4",
        &["10.244.8.8=db-2"],
    )));
    let findings = prove(&desired, &observe(&apply(&plan(&old)), &desired));
    let said: Vec<_> = findings.iter().map(ToString::to_string).collect();
    for expected in [
        "application layer: different: web.default.svc.cluster.local. A: NoError (found NxDomain) [Service default/web spec.clusterIPs] (PF451)",
        "application layer: missing: web.default.svc.cluster.local. 5 IN A 10.96.0.7 [Service default/web spec.clusterIPs] (PF451)",
        "application layer: missing: peers.shop.svc.cluster.local. 5 IN A 10.244.3.4 [EndpointSlice shop/peers-4 endpoints[10.244.3.4]] (PF451)",
        "application layer: extra: peers.shop.svc.cluster.local. 5 IN A 10.244.8.8 (PF451)",
    ] {
        assert!(
            said.iter().any(|s| s == expected),
            "{expected}\nnot in {said:#?}"
        );
    }
}

#[test]
fn what_a_server_adds_to_an_alias_from_outside_is_not_ours_to_judge() {
    let zone = apply(&plan(&cluster()));
    let name: Name = "docs.default.svc.cluster.local".parse().unwrap();
    let target: Name = "docs.example.org".parse().unwrap();
    let address = Data::Address("192.0.2.1".parse().unwrap());
    let observed = Observation {
        name: name.clone(),
        kind: RecordType::A,
        rcode: Rcode::NoError,
        records: vec![(name, Data::Cname(target.clone())), (target, address)],
    };
    assert_eq!(prove(&zone, &[observed]), []);
}

/// One event of a cluster's life.
#[derive(Clone, Debug)]
enum Event {
    Insert(Box<Object>),
    Remove(Key),
}

impl Event {
    fn insert(object: Object) -> Self {
        Self::Insert(Box::new(object))
    }
}

fn event() -> impl Strategy<Value = Event> {
    let namespace = || proptest::sample::select(vec!["a", "kube-system"]);
    let name = || proptest::sample::select(vec!["x", "y", "kube-dns"]);
    let ip = || (0u8..4).prop_map(|n| format!("10.244.1.{n}"));
    let endpoint =
        (ip(), proptest::option::of(0u8..3), any::<bool>()).prop_map(|(ip, host, ready)| {
            let host = host.map_or(String::new(), |n| format!("=h-{n}"));
            format!("{}{ip}{host}", if ready { "" } else { "!" })
        });
    let endpoints = proptest::collection::vec(endpoint, 0..4);
    prop_oneof![
        (namespace(), name(), 0u8..4, 1u8..5).prop_map(|(ns, name, kind, n)| {
            let ip = format!("10.96.0.{n}");
            Event::insert(Object::Service(match kind {
                0 => service(ns, name, &[]),
                1 => alias(ns, name, "x.a.svc.cluster.local"),
                _ => service(ns, name, &[&ip]),
            }))
        }),
        (namespace(), name(), name(), endpoints).prop_map(|(ns, of, name, endpoints)| {
            let endpoints: Vec<&str> = endpoints.iter().map(String::as_str).collect();
            Event::insert(Object::EndpointSlice(slice(ns, of, name, &endpoints)))
        }),
        (namespace(), name(), ip()).prop_map(|(ns, name, ip)| Event::insert(Object::Pod(pod(
            ns,
            name,
            &[&ip]
        )))),
        namespace().prop_map(|ns| Event::insert(Object::Namespace(Namespace::new(ns)))),
        (namespace(), name(), 0u8..4).prop_map(|(ns, name, kind)| {
            let object = ObjectName::new(ns, name);
            Event::Remove(match kind {
                0 => Key::Service(object),
                1 => Key::EndpointSlice(object),
                2 => Key::Pod(object),
                _ => Key::Namespace(ns.to_owned()),
            })
        }),
    ]
}

proptest! {
    /// Planning and lowering only what changed gives what doing all of it anew gives.
    #[test]
    fn a_change_at_a_time_is_the_whole(events in proptest::collection::vec(event(), 1..40)) {
        let mut snapshot = Snapshot::default();
        let mut kept: Plan = plan(&snapshot);
        let mut zone = apply(&kept);
        for event in events {
            let key = match event {
                Event::Insert(object) => {
                    let key = object.key();
                    snapshot.insert(*object);
                    key
                }
                Event::Remove(key) => {
                    snapshot.remove(&key);
                    key
                }
            };
            let changes = kept.replan(&snapshot, &key);
            reapply(&mut zone, &kept, &changes);
            let whole = plan(&snapshot);
            prop_assert_eq!(&kept, &whole);
            prop_assert_eq!(&zone, &apply(&whole));
            prop_assert_eq!(prove(&zone, &observe(&zone, &zone)), vec![]);
        }
    }

    #[test]
    fn any_name_can_be_explained(name in ".{0,300}") {
        let zone = apply(&plan(&cluster()));
        let _ = explain(&zone, &search_list(zone.domain(), "default"), 5, &name);
    }
}
