//! Questions as a user types them, and what is answered: the verdict of each, and the steps where they
//! matter.
//!
//! Three nodes; node-1 and node-2 share a segment, node-3 is behind a router and so in the tunnel.

#[path = "../../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;
mod pinned;
mod policies;
mod refusals;
mod services;
mod sizes;
mod underlays;
mod ways;

use fixture::{APART, clusters};
use parfait_cluster::Snapshot;
use parfait_inspect::{Answer, Detail, Error, Question, explain, render};
use parfait_packet::{Family, Verdict};

/// What runs besides the pods of [`APART`].
const SHOP: &str = "
pod host-1 on=node-1 ip=192.168.77.11 hostNetwork ports=9100/TCP
pod host-3 on=node-3 ip=192.168.88.13 hostNetwork ports=9100/TCP
pod pending on=node-2 phase=Pending ports=8080/TCP
pod six on=node-1 ip=fd00:10:244:1::6 ports=8080/TCP
service web ip=10.96.0.20 ports=http:80/TCP>8080
slice web-a of=web ports=http:8080/TCP endpoints=10.244.1.3@node-1/web-1,10.244.2.2@node-2/web-2,10.244.3.2@node-3/web-3
service self ip=10.96.0.21 ports=http:80/TCP>8080
slice self-a of=self ports=http:8080/TCP endpoints=10.244.1.3@node-1/web-1
service far ip=10.96.0.22 ports=http:80/TCP>8080
slice far-a of=far ports=http:8080/TCP endpoints=10.244.3.2@node-3/web-3
service empty ip=10.96.0.23 ports=http:80/TCP>8080
slice empty-a of=empty ports=http:8080/TCP endpoints=10.244.2.2@node-2/web-2!notready
service nobody ip=10.96.0.24 ports=http:80/TCP>8080 selector=app:nobody,tier:front
service db headless ports=5432/TCP
slice db-a of=db ports=5432/TCP endpoints=10.244.2.2@node-2/web-2
service quiet headless ports=5432/TCP
service out external=db.example.com ports=5432/TCP
service exporter ip=10.96.0.25 ports=9100/TCP>9100
slice exporter-a of=exporter ports=9100/TCP endpoints=192.168.77.11@node-1/host-1,192.168.88.13@node-3/host-3
service six-only ip=fd00:10:96::6 ports=80/TCP>8080
service kube-system/kube-dns ip=10.96.0.10 ports=dns:53/UDP servedByNode
";

fn shop() -> Snapshot {
    clusters(&[APART, SHOP])
}

fn ask(snapshot: &Snapshot, from: &str, to: &str, with: &str) -> Result<Answer, Error> {
    let words = || with.split_whitespace();
    let question = Question {
        from: from.parse().expect("a side"),
        to: to.parse().expect("a side"),
        port: words().find_map(|word| word.parse().ok()),
        protocol: words().find_map(|word| word.parse().ok()),
        family: words().find_map(|word| match word {
            "IPv4" => Some(Family::Ipv4),
            "IPv6" => Some(Family::Ipv6),
            _ => None,
        }),
        source_port: None,
        namespace: None,
        size: None,
    };
    explain(snapshot, &question)
}

/// The verdict in a word.
fn verdict(answer: &Answer) -> String {
    match &answer.verdict {
        Verdict::Delivered => "delivered".to_owned(),
        Verdict::NotDelivered { reason } => reason.code().to_owned(),
        Verdict::Unknown { reason } => format!("unknown {}", reason.code()),
    }
}

/// Where each way ends, with which source, and what the reply's last step is.
fn outcomes(answer: &Answer) -> Vec<String> {
    let lines = answer.ways.iter().map(|way| {
        let (parts, of) = way.probability;
        let last = way.there.iter().rev().find_map(|hop| hop.packet);
        let packet = last.map(|packet| packet.to_string()).unwrap_or_default();
        format!("{parts}/{of} {}: {packet}", way.end)
    });
    lines.collect()
}

/// The steps of the first way, there and back, without evidence.
fn steps(answer: &Answer) -> String {
    let mut text = String::new();
    let way = &answer.ways[0];
    for (title, hops) in [("there", &way.there), ("back", &way.back)] {
        for hop in hops {
            text += &format!("{title} {} {}: {}\n", hop.place, hop.stage, hop.what);
        }
    }
    text.trim_end().to_owned()
}

#[test]
fn every_question_has_its_verdict() {
    let table = [
        // from, to, port and protocol, the verdict
        ("pod/client", "pod/web-1", "", "delivered"),
        ("pod/client", "pod/web-2", "", "delivered"),
        ("pod/client", "pod/web-3", "", "delivered"),
        ("pod/web-1", "pod/web-1", "", "delivered"),
        ("pod/client", "pod/web-2", "icmp", "delivered"),
        ("pod/client", "svc/web", "", "delivered"),
        ("pod/client", "svc/web:http", "", "delivered"),
        ("pod/client", "10.96.0.20:80", "", "delivered"),
        ("pod/web-1", "svc/self", "", "delivered"),
        ("node/node-1", "svc/web", "", "delivered"),
        ("node/1", "pod/web-3", "", "delivered"),
        ("pod/host-1", "pod/web-3", "", "delivered"),
        ("pod/client", "pod/host-1", "", "delivered"),
        ("pod/client", "pod/host-3", "", "delivered"),
        ("pod/client", "svc/exporter", "", "delivered"),
        ("node/node-2", "svc/exporter", "", "delivered"),
        ("pod/client", "node/node-1", "22", "delivered"),
        ("pod/client", "node/node-2", "22", "delivered"),
        ("pod/client", "node/node-3", "22", "delivered"),
        ("pod/client", "svc/db", "", "delivered"),
        ("pod/client", "svc/kube-dns.kube-system", "", "delivered"),
        ("10.244.1.2", "10.244.2.2:8080", "", "delivered"),
        ("pod/client", "198.51.100.1:443", "", "unknown PF903"),
        ("pod/client", "svc/out", "", "unknown PF903"),
        ("pod/client", "svc/out", "udp", "unknown PF903"),
        ("pod/client", "pod/web-2:8080", "", "delivered"),
        ("pod/client", "node/node-2:22", "", "delivered"),
        ("pod/client", "out:5432", "", "unknown PF903"),
        ("pod/client", "nosuch:5432", "", "PF401"),
        ("pod/client", "example.org:443", "", "unknown PF903"),
        ("pod/client", "10.244.2.99:80", "", "PF202"),
        ("pod/client", "10.244.1.99:80", "", "PF202"),
        ("pod/client", "10.244.9.9:80", "", "PF202"),
        ("node/node-1", "10.244.9.9:80", "", "PF202"),
        ("pod/client", "10.96.9.9:80", "", "PF307"),
        ("pod/client", "10.96.9.9:53", "udp", "PF307"),
        ("pod/client", "10.96.9.9", "icmp", "PF307"),
        ("node/node-1", "10.96.9.9:80", "", "PF307"),
        ("pod/client", "10.96.0.10:53", "udp", "delivered"),
        ("node/node-1", "10.96.0.10:53", "udp", "delivered"),
        ("node/node-1", "10.96.0.10:53", "tcp", "delivered"),
        ("pod/client", "pod/pending", "", "PF210"),
        ("pod/pending", "pod/web-1", "", "PF210"),
        ("pod/client", "pod/six", "", "PF204"),
        ("pod/six", "svc/web", "", "PF204"),
        ("pod/client", "svc/six-only", "", "PF204"),
        ("pod/client", "svc/empty", "", "PF301"),
        ("pod/client", "svc/nobody", "", "PF301"),
        ("node/node-1", "svc/nobody", "", "PF301"),
        ("pod/client", "svc/web", "81", "PF302"),
        ("pod/client", "svc/web", "80 udp", "PF302"),
        ("pod/client", "svc/quiet", "", "PF402"),
    ];
    let snapshot = shop();
    for (from, to, with, wanted) in table {
        let answer = ask(&snapshot, from, to, with);
        let answer = answer.unwrap_or_else(|error| panic!("{from} {to} {with}: {error}"));
        let text = render(&answer, Detail::Full);
        assert_eq!(verdict(&answer), wanted, "{from} {to} {with}\n{text}");
        let code = match wanted {
            "delivered" => 0,
            _ if wanted.starts_with("unknown") => 3,
            _ => 1,
        };
        assert_eq!(answer.exit_code(), code);
    }
}

#[test]
fn a_whole_answer_as_text() {
    let answer = ask(&shop(), "pod/client", "svc/far", "").expect("an answer");
    let wanted = "\
pod default/client (10.244.1.2 on node-1) → Service default/far port 80/tcp

there
  pod default/client
    link        egress     leaves by eth0 to its gateway on node-1, interface pfb5eb0c41497f
                           | default via 169.254.1.1 dev eth0 onlink
                           because of Pod default/client
  node node-1
    transport   prerouting the destination becomes 10.244.3.2:8080 (pod default/web-3), the only endpoint
                           | meta priority set ip daddr . meta l4proto . th dport map @services meta priority vmap @service_choices comment \"Parfait Services\"
                           | 10.96.0.22 . tcp . 80 comment \"Service default/far spec.ports[http]\" : 0:1, 0:1 comment \"Parfait Services\" : goto n1
                           | meta priority set none dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 1 map @endpoints_1 comment \"Parfait Services\"
                           | 10.96.0.22 . tcp . 80 . 0 comment \"EndpointSlice default/far-a\" : 10.244.3.2 . 8080
                           because of Service default/far spec.ports[http], EndpointSlice default/far-a
    internet    routing    to 10.244.3.1 through pf-vxlan
                           | 10.244.3.0/24 via 10.244.3.1 dev pf-vxlan proto 112 src 10.244.1.1 onlink
                           because of Node node-3 spec.podCIDRs
    transport   postrouting the source 10.244.1.2 is kept: the client is a pod of this node
  underlay
    link        wire       vxlan: inside UDP from 192.168.77.11 to 192.168.88.13 port 4789 (VXLAN 4242, 50 bytes of headers), MTU 1450
                           | d2:0b:56:8a:c3:10 dev pf-vxlan dst 192.168.88.13 self permanent
                           because of Node node-3 status.addresses
  node node-3
    internet    routing    straight to it through pf2019a3a4401b
                           | 10.244.3.2 dev pf2019a3a4401b proto 113 scope link src 192.168.88.13
                           because of Pod default/web-3
    link        wire       veth pf2019a3a4401b to eth0 of pod default/web-3
                           | 10.244.3.2 dev pf2019a3a4401b lladdr 7e:e4:8a:0e:aa:ff PERMANENT
                           because of Pod default/web-3
  pod default/web-3
    transport   delivery   received from 10.244.1.2:40000
                           because of Pod default/web-3

back
  pod default/web-3
    link        egress     leaves by eth0 to its gateway on node-3, interface pf2019a3a4401b
                           | default via 169.254.1.1 dev eth0 onlink
                           because of Pod default/web-3
  node node-3
    internet    routing    to 10.244.1.1 through pf-vxlan
                           | 10.244.1.0/24 via 10.244.1.1 dev pf-vxlan proto 112 src 10.244.3.1 onlink
                           because of Node node-1 spec.podCIDRs
  underlay
    link        wire       vxlan: inside UDP from 192.168.88.13 to 192.168.77.11 port 4789 (VXLAN 4242, 50 bytes of headers), MTU 1450
                           | d2:0b:54:8a:c3:10 dev pf-vxlan dst 192.168.77.11 self permanent
                           because of Node node-1 status.addresses
  node node-1
    transport   prerouting conntrack undoes the translation: tcp 10.244.3.2:8080 → 10.244.1.2:40000 becomes tcp 10.96.0.22:80 → 10.244.1.2:40000
    internet    routing    straight to it through pfb5eb0c41497f
                           | 10.244.1.2 dev pfb5eb0c41497f proto 113 scope link src 192.168.77.11
                           because of Pod default/client
    link        wire       veth pfb5eb0c41497f to eth0 of pod default/client
                           | 10.244.1.2 dev pfb5eb0c41497f lladdr 6e:e0:b8:0e:a0:98 PERMANENT
                           because of Pod default/client
  pod default/client
    transport   delivery   received from 10.96.0.22:80
                           because of Pod default/client

  largest packet: 1450 bytes
  a larger one: at pod default/client, the sender's own kernel refuses it (message too long, mtu 1450)
  a larger one back: at pod default/web-3, the sender's own kernel refuses it (message too long, mtu 1450)

delivered
";
    assert_eq!(render(&answer, Detail::Full), wanted);
}

#[test]
fn a_refusal_as_text() {
    let answer = ask(&shop(), "pod/client", "svc/empty", "").expect("an answer");
    let wanted = "\
pod default/client (10.244.1.2 on node-1) → Service default/empty port 80/tcp

there
  pod default/client
    link        egress     leaves by eth0 to its gateway on node-1, interface pfb5eb0c41497f
                           because of Pod default/client
  node node-1
    internet    routing    to 192.168.77.1 through eth0
                           because of Node node-1 metadata.annotations[parfait.dev/underlay]
    transport   forward    refused: the Service has no ready endpoints; pod default/web-2 is not ready
                           because of Service default/empty spec.ports[http]

not delivered: the Service has no endpoints, so the connection is refused (transport layer, PF301)
  usual cause: No ready pod matches the Service's selector, or none has the port that its targetPort names.
  what to do:  The step above says which; compare spec.selector with the pods' labels (`kubectl get pods --show-labels`), and see why pods are not Ready.
";
    assert_eq!(render(&answer, Detail::Normal), wanted);
}

#[test]
fn one_line_is_enough_for_a_script() {
    let short = |to: &str| {
        render(
            &ask(&shop(), "pod/client", to, "").expect("an answer"),
            Detail::Short,
        )
    };
    let wanted = "\
pod default/client (10.244.1.2 on node-1) → Service default/web port 80/tcp: delivered
pod default/client (10.244.1.2 on node-1) → Service default/nobody port 80/tcp: not delivered: the Service has no endpoints, so the connection is refused (transport layer, PF301)
";
    assert_eq!(short("svc/web") + &short("svc/nobody"), wanted);
}

#[test]
fn the_json_keeps_its_shape() {
    let answer = ask(&shop(), "pod/client", "svc/far", "").expect("an answer");
    let value = serde_json::to_value(&answer).expect("JSON");
    let keys = |value: &serde_json::Value| {
        let object = value.as_object().expect("an object");
        let mut keys: Vec<_> = object.keys().cloned().collect();
        keys.sort();
        keys.join(" ")
    };
    assert_eq!(
        keys(&value),
        "from name notes port protocol to verdict ways"
    );
    assert_eq!(
        value["verdict"],
        serde_json::json!({"verdict": "delivered"})
    );
    assert_eq!(
        keys(&value["ways"][0]),
        "back end larger largerBack mtu mtuBack probability there verdict"
    );
    assert_eq!(value["ways"][0]["probability"], serde_json::json!([1, 1]));
    let hop = &value["ways"][0]["there"][1];
    assert_eq!(keys(hop), "evidence layer origins packet place stage what");
    assert_eq!(hop["stage"], "prerouting");
    assert_eq!(hop["layer"], "transport");
    assert_eq!(hop["packet"]["destination"], "10.244.3.2");
    assert_eq!(
        keys(&hop["packet"]),
        "destination destination_port protocol source source_port"
    );
    let refused = ask(&shop(), "pod/client", "svc/empty", "").expect("an answer");
    let value = serde_json::to_value(&refused.verdict).expect("JSON");
    assert_eq!(value["verdict"], "notDelivered");
    assert_eq!(value["reason"]["code"], "PF301");
    assert_eq!(keys(&value["reason"]), "cause code layer remedy what");
}

#[test]
fn of_two_families_the_asker_chooses() {
    let dual = clusters(&[fixture::DUAL]);
    let walked = |with: &str| {
        let answer = ask(&dual, "pod/client", "pod/web-2", with).unwrap();
        let packet = answer.ways[0].there[0].packet.unwrap();
        (packet.destination.to_string(), answer.notes)
    };
    let (address, notes) = walked("");
    assert_eq!(address, "10.244.2.2");
    assert_eq!(
        notes,
        ["both sides also have IPv6, and the sender's program chooses; this is the way of IPv4"]
    );
    assert_eq!(walked("IPv6"), ("fd00:10:244:2::2".to_owned(), Vec::new()));
    // Asked for a family that one side lacks.
    let answer = ask(&shop(), "pod/client", "pod/web-2", "IPv6").unwrap();
    assert_eq!(verdict(&answer), "PF204");
}
