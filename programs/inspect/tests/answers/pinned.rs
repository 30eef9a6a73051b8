//! Flows that a kernel remembers: pinned by a tracked connection, or kept by session affinity.

use std::net::{IpAddr, SocketAddr};

use parfait_inspect::{By, Ended, Keeps, Memory, explain_with};
use parfait_linux::conntrack::{Entry, Tuple};
use parfait_transport::Frontend;
use parfait_transport::affinity::Kept;

use super::*;

/// What node-1's kernel remembers, and nobody else's.
#[derive(Default)]
struct Kernel {
    entries: Vec<Entry>,
    kept: Vec<Keeps>,
    ended: Vec<Ended>,
}

impl Memory for Kernel {
    fn kept(&self, node: &str, clients: &[IpAddr]) -> Result<Vec<Keeps>, String> {
        let of_these = self
            .kept
            .iter()
            .filter(|keeps| clients.contains(&keeps.kept.client));
        match node {
            "node-1" => Ok(of_these.copied().collect()),
            _ => Err(format!("this machine is not {node}")),
        }
    }

    fn connection(&self, node: &str, first: &Tuple) -> Result<Option<Entry>, String> {
        let found = self.entries.iter().find(|entry| entry.original == *first);
        match node {
            "node-1" => Ok(found.cloned()),
            _ => Err(format!("this machine is not {node}")),
        }
    }

    fn ended(&self, node: &str, port: u16) -> Result<Vec<Ended>, String> {
        let of_these = self.ended.iter().filter(|ended| {
            let Tuple {
                source,
                destination,
                ..
            } = ended.direction;
            source.port() == port || destination.port() == port
        });
        match node {
            "node-1" => Ok(of_these.copied().collect()),
            _ => Err(format!("this machine is not {node}")),
        }
    }

    fn connections(&self, node: &str, client: IpAddr, at: Frontend) -> Result<Vec<Entry>, String> {
        let of_these = self.entries.iter().filter(|entry| {
            let sent = &entry.original;
            (sent.source.ip(), sent.destination) == (client, SocketAddr::new(at.address, at.port))
        });
        match node {
            "node-1" => Ok(of_these.cloned().collect()),
            _ => Err(format!("this machine is not {node}")),
        }
    }
}

const FRONT: &str = "
pod web-4 on=node-1 ip=10.244.1.4 ports=8080/TCP
service web ip=10.96.0.20 ports=http:80/TCP>8080,dns:53/UDP>5353
slice web-a of=web ports=http:8080/TCP,dns:5353/UDP \
endpoints=10.244.1.3@node-1/web-1,10.244.2.2@node-2/web-2,10.244.1.4@node-1/web-4!serving
service few ip=10.96.0.22 ports=http:80/TCP>8080 affinity=60
slice few-a of=few ports=http:8080/TCP endpoints=10.244.1.3@node-1/web-1,10.244.2.2@node-2/web-2
";

/// The client's port, unless another is given.
const PORT: u16 = 40_312;

/// `PROTOCOL DESTINATION ENDPOINT [SOURCE] STATUS STATE`, of the pod client.
fn entry(protocol: u8, to: &str, endpoint: &str, answered: bool, state: u8) -> Entry {
    let [client, to, endpoint] = ["10.244.1.2:40312", to, endpoint]
        .map(|text| text.parse::<SocketAddr>().expect("a socket"));
    let tuple = |source, destination| Tuple {
        protocol,
        source,
        destination,
        icmp: None,
    };
    Entry {
        original: tuple(client, to),
        reply: tuple(endpoint, client),
        status: if answered { 2 } else { 0 } | if to == endpoint { 0 } else { 32 },
        state,
        expires: 86_390,
        zone: 0,
        id: 1,
        midway: false,
    }
}

/// A question about packets from one side to another, of one connection if a source port is told.
fn question(from: &str, to: &str, source_port: Option<u16>) -> Question {
    Question {
        from: from.parse().expect("a side"),
        to: to.parse().expect("a side"),
        port: None,
        protocol: None,
        family: None,
        source_port,
        namespace: None,
        size: None,
    }
}

fn asked(kernel: &Kernel, to: &str, port: Option<u16>) -> Answer {
    let question = question("pod/client", to, port);
    explain_with(&clusters(&[APART, FRONT]), &question, kernel).expect("a question")
}

/// What is said where the destination is decided.
fn decided(answer: &Answer) -> String {
    let mut hops = answer.ways.iter().flat_map(|way| &way.there);
    let found = hops.find(|hop| hop.stage == parfait_packet::Stage::Prerouting);
    found.map(|hop| hop.what.clone()).unwrap_or_default()
}

#[test]
fn a_tracked_connection_decides_whatever_chance_would() {
    let kernel = Kernel {
        entries: vec![entry(6, "10.96.0.20:80", "10.244.2.2:8080", true, 3)],
        ..Kernel::default()
    };
    let answer = asked(&kernel, "svc/web", Some(PORT));
    assert_eq!(
        outcomes(&answer),
        ["1/1 pod default/web-2 on node-2: tcp 10.244.1.2:40312 → 10.244.2.2:8080"]
    );
    assert_eq!(verdict(&answer), "delivered");
    assert_eq!(
        decided(&answer),
        "pinned by a tracked connection (ESTABLISHED, 10.96.0.20:80 → 10.244.2.2:8080, expires in 86390 s): \
         the destination becomes 10.244.2.2:8080 (pod default/web-2)"
    );
    let [pinned] = answer.ways[0].pinned.as_slice() else {
        panic!("{:?}", answer.ways);
    };
    assert_eq!(
        (pinned.by, pinned.node.as_str()),
        (By::Connection, "node-1")
    );
    assert_eq!(pinned.to.to_string(), "10.244.2.2:8080");
    // node-2 was passed too, and could not be asked.
    assert!(
        answer
            .notes
            .concat()
            .contains("node-2 tracks are not known: this machine is not node-2")
    );
}

#[test]
fn another_port_is_another_flow_and_no_port_asks_for_none() {
    let kernel = Kernel {
        entries: vec![entry(6, "10.96.0.20:80", "10.244.2.2:8080", true, 3)],
        ..Kernel::default()
    };
    for port in [Some(PORT + 1), None] {
        let answer = asked(&kernel, "svc/web", port);
        assert_eq!(answer.ways.len(), 2, "{port:?}");
        assert!(answer.ways.iter().all(|way| way.pinned.is_empty()));
        let said = answer
            .notes
            .concat()
            .contains("node-1 tracks no connection tcp 10.244.1.2:40313");
        assert_eq!(said, port.is_some());
    }
}

#[test]
fn connections_that_there_are_stand_beside_the_way_of_a_new_one() {
    let ends = ["10.244.2.2:8080", "10.244.1.3:8080", "10.244.2.2:8080"];
    let mut entries: Vec<_> = (0..7)
        .map(|n| entry(6, "10.96.0.20:80", ends[n % 3], true, 3))
        .collect();
    for (port, entry) in (PORT..).zip(&mut entries) {
        entry.original.source.set_port(port);
    }
    // Nobody answers there any more, and nobody ever did.
    let mut stale = entry(6, "10.96.0.20:80", "10.244.1.9:8080", false, 1);
    stale.original.source.set_port(50_000);
    entries.push(stale);
    // Closed by both ends.
    let mut over = entry(6, "10.96.0.20:80", "10.244.1.3:8080", true, 7);
    over.original.source.set_port(50_001);
    entries.push(over);
    let mut other = entry(6, "10.96.0.22:80", "10.244.1.3:8080", true, 3);
    other.original.source.set_port(50_001);
    entries.push(other);
    let kernel = Kernel {
        entries,
        ..Kernel::default()
    };
    let answer = asked(&kernel, "svc/web", None);
    assert_eq!(answer.ways.len(), 2, "a new one may go to either");
    let text = parfait_inspect::render(&answer, parfait_inspect::Detail::Normal);
    let from = text.find("open already").expect("a list");
    let to = text[from..].find("\n\n").expect("an end");
    assert_eq!(
        &text[from..from + to],
        "\
open already, as node-1 tracks: 8, 1 stale; --source-port PORT shows the way of one
  port 50000  10.96.0.20:80 → 10.244.1.9:8080, SYN_SENT, expires in 86390 s; stale, and the agent removes it: \
10.244.1.9:8080 serves no more
  port 40312  10.96.0.20:80 → 10.244.2.2:8080 (pod default/web-2), ESTABLISHED, expires in 86390 s
  port 40313  10.96.0.20:80 → 10.244.1.3:8080 (pod default/web-1), ESTABLISHED, expires in 86390 s
  port 40314  10.96.0.20:80 → 10.244.2.2:8080 (pod default/web-2), ESTABLISHED, expires in 86390 s
  port 40315  10.96.0.20:80 → 10.244.2.2:8080 (pod default/web-2), ESTABLISHED, expires in 86390 s
  and 3 more"
    );
    let json = serde_json::to_value(&answer).expect("JSON");
    let tracked = &json["tracked"][0];
    assert_eq!(
        (&tracked["count"], &tracked["stale"]),
        (&8.into(), &1.into())
    );
    let first = &tracked["first"][0];
    assert_eq!(first["sourcePort"], 50_000);
    assert_eq!(first["stale"], "10.244.1.9:8080 serves no more");
    // Of one flow, that one is what matters; of none, nothing is said.
    for (to, port) in [("svc/web", Some(PORT)), ("pod/web-2", None)] {
        assert_eq!(asked(&kernel, to, port).tracked, [], "{to}");
    }
}

#[test]
fn an_endpoint_that_takes_no_new_connections_keeps_the_old_ones() {
    let table = [
        (
            "10.244.1.4:8080",
            "delivered",
            "; new connections do not go there: it is terminating",
        ),
        (
            "10.244.1.9:8080",
            "PF202",
            "; new connections do not go there: it is no endpoint any more",
        ),
    ];
    for (endpoint, wanted, said) in table {
        let kernel = Kernel {
            entries: vec![entry(6, "10.96.0.20:80", endpoint, true, 3)],
            ..Kernel::default()
        };
        let answer = asked(&kernel, "svc/web", Some(PORT));
        assert_eq!(verdict(&answer), wanted, "{endpoint}");
        assert!(decided(&answer).ends_with(said), "{}", decided(&answer));
    }
}

/// FIELD B4: the black hole that nobody sees, named.
#[test]
fn a_stale_entry_is_named_with_the_reason() {
    let table = [
        (
            entry(17, "10.96.0.20:53", "10.244.1.9:5353", true, 0),
            "PF202",
            "10.244.1.9:5353 serves no more",
        ),
        (
            entry(17, "10.96.0.20:53", "10.96.0.20:53", false, 0),
            "PF305",
            "there was no endpoint when it began",
        ),
    ];
    for (entry, wanted, why) in table {
        let kernel = Kernel {
            entries: vec![entry],
            ..Kernel::default()
        };
        let answer = asked(&kernel, "svc/web:dns", Some(PORT));
        let said = decided(&answer);
        assert!(
            said.ends_with(&format!("; stale, and the agent removes it: {why}")),
            "{said}"
        );
        assert_eq!(answer.ways[0].pinned[0].stale.as_deref(), Some(why));
        assert_eq!(verdict(&answer), wanted, "{said}");
        let json = serde_json::to_value(&answer).expect("JSON");
        assert_eq!(json["ways"][0]["pinned"][0]["stale"], why);
    }
}

#[test]
fn a_source_that_was_masqueraded_stays_so_and_comes_back() {
    let mut outside = entry(6, "10.96.0.20:80", "10.244.2.2:8080", true, 3);
    outside.original.source = "198.51.100.1:40312".parse().expect("a socket");
    outside.original.destination = "192.168.77.11:30080".parse().expect("a socket");
    outside.reply.destination = "192.168.77.11:1025".parse().expect("a socket");
    let kernel = Kernel {
        entries: vec![outside],
        ..Kernel::default()
    };
    let question = question("198.51.100.1", "192.168.77.11:30080", Some(PORT));
    let front = FRONT.replace("http:80/TCP>8080,", "http:80/TCP>8080@30080,");
    let answer = explain_with(&clusters(&[APART, &front]), &question, &kernel).expect("a question");
    assert_eq!(verdict(&answer), "delivered", "{}", steps(&answer));
    assert_eq!(
        outcomes(&answer),
        ["1/1 pod default/web-2 on node-2: tcp 192.168.77.11:1025 → 10.244.2.2:8080"]
    );
    assert!(steps(&answer).contains(
        "the source 198.51.100.1 becomes 192.168.77.11:1025, as when the connection began"
    ));
}

fn keeps(endpoint: &str) -> Keeps {
    Keeps {
        kept: Kept {
            client: "10.244.1.2".parse().expect("an address"),
            at: Frontend {
                address: "10.96.0.22".parse().expect("an address"),
                protocol: parfait_packet::Protocol::Tcp,
                port: 80,
            },
            endpoint: endpoint.parse().expect("a socket"),
        },
        expires: 41,
    }
}

#[test]
fn what_a_client_keeps_is_found_by_the_rules() {
    for (endpoint, pod, node) in [
        ("10.244.1.3:8080", "web-1", "node-1"),
        ("10.244.2.2:8080", "web-2", "node-2"),
    ] {
        let kernel = Kernel {
            kept: vec![keeps(endpoint)],
            ..Kernel::default()
        };
        let answer = asked(&kernel, "svc/few", None);
        assert_eq!(
            outcomes(&answer),
            [format!(
                "1/1 pod default/{pod} on {node}: tcp 10.244.1.2:40000 → {endpoint}"
            )]
        );
        assert_eq!(
            decided(&answer),
            format!(
                "the destination becomes {endpoint} (pod default/{pod}), kept by ClientIP affinity (41 s left)"
            )
        );
        assert_eq!(answer.ways[0].pinned[0].by, By::Affinity);
    }
}

#[test]
fn an_endpoint_that_is_kept_and_gone_is_stale() {
    let kernel = Kernel {
        kept: vec![keeps("10.244.1.9:8080")],
        ..Kernel::default()
    };
    let answer = asked(&kernel, "svc/few", None);
    assert_eq!(verdict(&answer), "PF202");
    assert_eq!(
        answer.ways[0].pinned[0].stale.as_deref(),
        Some("10.244.1.9:8080 serves no more")
    );
}

#[test]
fn where_the_kernel_cannot_be_asked_that_is_said_if_it_matters() {
    let ask = |from: &str, to: &str| {
        let question = question(from, to, None);
        let answer = explain_with(&clusters(&[APART, FRONT]), &question, &Kernel::default());
        answer.expect("a question").notes.concat()
    };
    let note = "which endpoints clients keep at node-2 is not known: this machine is not node-2";
    assert!(ask("pod/web-2", "svc/few").contains(note));
    assert!(!ask("pod/web-2", "svc/web").contains("is not known"));
    assert!(!ask("pod/client", "svc/few").contains("is not known"));
}

/// Its next packets would be judged as those of a new one; but they are dropped in both directions, also where policies
/// let the other end begin one.
#[test]
fn a_connection_that_policies_ended_is_over_for_both_of_its_ends() {
    let web = serde_json::json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"]});
    let snapshot = policies::shop_with(&[("no-calls", web)]);
    let sockets =
        ["10.244.1.2:40312", "10.244.1.3:8080"].map(|text| text.parse().expect("a socket"));
    let ended = |[source, destination]: [SocketAddr; 2]| Ended {
        direction: Tuple {
            protocol: 6,
            source,
            destination,
            icmp: None,
        },
        expires: 86_000,
    };
    let [client, server] = sockets;
    let kernel = Kernel {
        ended: vec![ended([client, server]), ended([server, client])],
        ..Kernel::default()
    };
    let asked = |from: &str, to: &str, source_port| {
        let question = question(from, to, source_port);
        let answer = explain_with(&snapshot, &question, &kernel).expect("a question");
        let hop = answer.ways[0].there.last().expect("a step");
        (verdict(&answer), hop.what.clone())
    };
    let over = "dropped: policies ended this connection, and it stays ended until they allow it, or for 86000 s";
    let denied = "Pod default/web-1 may not receive this: NetworkPolicy default/no-calls isolates it for ingress, and no \
                  rule could allow it";
    let (pod, port) = ("pod/web-1:8080", Some(PORT));
    assert_eq!(
        asked("pod/client", pod, port),
        ("PF313".to_owned(), format!("{over}; {denied}"))
    );
    let back = asked("pod/web-1", "pod/client:40312", Some(8080));
    assert_eq!(back, ("PF313".to_owned(), over.to_owned()));
    // A new one is denied, or let through, by the rules alone.
    let new = ("PF311".to_owned(), format!("dropped: {denied}"));
    assert_eq!(asked("pod/client", pod, None), new);
    assert_eq!(asked("pod/client", pod, Some(40_313)), new);
    let (verdict, _) = asked("pod/web-1", "pod/client:40312", None);
    assert_eq!(verdict, "delivered");
}
