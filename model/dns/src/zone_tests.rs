//! A zone and the questions it is asked, as a table.

use super::*;
use parfait_packet::Kind;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn record(data: Data) -> Record {
    Record {
        data,
        origin: Origin::new(Kind::Service, "default", "web"),
    }
}

fn zone() -> Zone {
    let soa = record(Data::Soa {
        primary: name("ns.dns.cluster.local"),
        mailbox: name("hostmaster.cluster.local"),
        negative_ttl: 5,
    });
    let networks = vec!["10.96.0.0/16".parse().unwrap()];
    let mut zone = Zone::new(name("cluster.local"), soa, 5, networks);
    let web = name("web.default.svc.cluster.local");
    let address = |text: &str| record(Data::Address(text.parse().unwrap()));
    zone.insert(web.clone(), address("10.96.0.7"));
    zone.insert(web.clone(), address("fd00:10:96::7"));
    zone.insert(
        name("_http._tcp.web.default.svc.cluster.local"),
        record(Data::Srv {
            priority: 0,
            weight: 100,
            port: 80,
            target: web.clone(),
        }),
    );
    zone.insert(
        Name::reverse("10.96.0.7".parse().unwrap()),
        record(Data::Ptr(web.clone())),
    );
    let alias = |from: &str, to: &str| (name(from), record(Data::Cname(name(to))));
    for (from, to) in [
        alias(
            "alias.default.svc.cluster.local",
            "web.default.svc.cluster.local",
        ),
        alias("away.default.svc.cluster.local", "example.org"),
        alias(
            "broken.default.svc.cluster.local",
            "nosuch.default.svc.cluster.local",
        ),
        alias(
            "loop.default.svc.cluster.local",
            "loop.default.svc.cluster.local",
        ),
    ] {
        zone.insert(from, to);
    }
    zone.insert_empty(name("quiet.svc.cluster.local"));
    zone
}

/// An answer in short: the rcode and what `dig +short` would print.
fn ask(zone: &Zone, question: &str, kind: RecordType) -> String {
    let answer = zone.answer(&name(question), kind);
    let mut words = vec![format!("{:?}", answer.rcode)];
    words.extend(answer.records.iter().map(|f| f.record.data.to_string()));
    if !answer.authority.is_empty() {
        words.push("(SOA)".to_owned());
    }
    words.extend(answer.outside.map(|n| format!("→ {n}")));
    words.join(" ")
}

/// Name, type, and the answer.
const QUESTIONS: &[(&str, RecordType, &str)] = &[
    (
        "web.default.svc.cluster.local",
        RecordType::A,
        "NoError 10.96.0.7",
    ),
    (
        "WEB.default.svc.Cluster.LOCAL",
        RecordType::Aaaa,
        "NoError fd00:10:96::7",
    ),
    (
        "web.default.svc.cluster.local",
        RecordType::Any,
        "NoError 10.96.0.7 fd00:10:96::7",
    ),
    (
        "web.default.svc.cluster.local",
        RecordType::Txt,
        "NoError (SOA)",
    ),
    (
        "nosuch.default.svc.cluster.local",
        RecordType::A,
        "NxDomain (SOA)",
    ),
    // Names in between exist when something exists below them.
    ("default.svc.cluster.local", RecordType::A, "NoError (SOA)"),
    ("svc.cluster.local", RecordType::A, "NoError (SOA)"),
    (
        "_tcp.web.default.svc.cluster.local",
        RecordType::A,
        "NoError (SOA)",
    ),
    ("quiet.svc.cluster.local", RecordType::A, "NoError (SOA)"),
    ("nosuch.svc.cluster.local", RecordType::A, "NxDomain (SOA)"),
    ("efault.svc.cluster.local", RecordType::A, "NxDomain (SOA)"),
    ("cluster.local", RecordType::A, "NoError (SOA)"),
    (
        "cluster.local",
        RecordType::Soa,
        "NoError ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5",
    ),
    (
        "_http._tcp.web.default.svc.cluster.local",
        RecordType::Srv,
        "NoError 0 100 80 web.default.svc.cluster.local.",
    ),
    (
        "7.0.96.10.in-addr.arpa",
        RecordType::Ptr,
        "NoError web.default.svc.cluster.local.",
    ),
    ("8.0.96.10.in-addr.arpa", RecordType::Ptr, "NxDomain (SOA)"),
    ("1.1.1.1.in-addr.arpa", RecordType::Ptr, "NotOurs"),
    ("example.org", RecordType::A, "NotOurs"),
    // A name without a dot is never asked outside for its address.
    ("web", RecordType::A, "NxDomain"),
    ("web", RecordType::Ns, "NotOurs"),
    ("notcluster.local", RecordType::A, "NotOurs"),
    (
        "alias.default.svc.cluster.local",
        RecordType::A,
        "NoError web.default.svc.cluster.local. 10.96.0.7",
    ),
    (
        "alias.default.svc.cluster.local",
        RecordType::Cname,
        "NoError web.default.svc.cluster.local.",
    ),
    (
        "alias.default.svc.cluster.local",
        RecordType::Txt,
        "NoError web.default.svc.cluster.local. (SOA)",
    ),
    (
        "away.default.svc.cluster.local",
        RecordType::A,
        "NoError example.org. → example.org.",
    ),
    (
        "broken.default.svc.cluster.local",
        RecordType::A,
        "NxDomain nosuch.default.svc.cluster.local. (SOA)",
    ),
];

#[test]
fn questions_and_answers() {
    let zone = zone();
    for (question, kind, expected) in QUESTIONS {
        assert_eq!(ask(&zone, question, *kind), *expected, "{question} {kind}");
    }
}

#[test]
fn a_circle_of_aliases_ends() {
    let answer = ask(&zone(), "loop.default.svc.cluster.local", RecordType::A);
    assert!(answer.ends_with("(SOA)"), "{answer}");
}

#[test]
fn srv_brings_the_addresses_along() {
    let zone = zone();
    let question = name("_http._tcp.web.default.svc.cluster.local");
    let answer = zone.answer(&question, RecordType::Srv);
    let shown: Vec<_> = answer
        .additional
        .iter()
        .map(|f| f.shown(zone.ttl()).to_string())
        .collect();
    assert_eq!(
        shown,
        [
            "web.default.svc.cluster.local. 5 IN A 10.96.0.7",
            "web.default.svc.cluster.local. 5 IN AAAA fd00:10:96::7"
        ]
    );
}

#[test]
fn what_is_removed_is_gone_and_its_neighbours_are_not() {
    let mut zone = zone();
    let address = record(Data::Address("10.96.0.8".parse().unwrap()));
    zone.insert(name("web2.default.svc.cluster.local"), address.clone());
    zone.insert(name("web-2.default.svc.cluster.local"), address);
    let web = name("web.default.svc.cluster.local");
    zone.remove_below(&web);
    zone.remove_reverse("10.96.0.7".parse().unwrap(), &web);
    for (question, kind, expected) in [
        (
            "web.default.svc.cluster.local",
            RecordType::A,
            "NxDomain (SOA)",
        ),
        (
            "_http._tcp.web.default.svc.cluster.local",
            RecordType::Srv,
            "NxDomain (SOA)",
        ),
        ("7.0.96.10.in-addr.arpa", RecordType::Ptr, "NxDomain (SOA)"),
        (
            "web2.default.svc.cluster.local",
            RecordType::A,
            "NoError 10.96.0.8",
        ),
        (
            "web-2.default.svc.cluster.local",
            RecordType::A,
            "NoError 10.96.0.8",
        ),
    ] {
        assert_eq!(ask(&zone, question, kind), expected, "{question}");
    }
}
