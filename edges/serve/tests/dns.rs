//! The DNS server asked by the real dig, each test in a network namespace of its own.

#![allow(clippy::unwrap_used, reason = "a test may end by panicking")]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use parfait_dns::{Data, Name, Rcode, Record, RecordType, Zone};
use parfait_packet::Origin;
use parfait_serve::dns::{self, Names};

const V4: &str = "10.96.0.10";
const V6: &str = "fd00:10:96::a";
const UPSTREAM: &str = "127.0.0.53";

/// Runs a test on a thread in a network namespace of its own, with lo up and the Service's addresses
/// on it. What the test starts is in there too. Needs root and the programs `ip` and `dig`.
fn in_namespace(test: &str, body: impl FnOnce() + Send + 'static) {
    let skip = |why: &str| {
        let _ = writeln!(std::io::stderr(), "SKIP: {test}: {why}");
    };
    for program in ["ip", "dig"] {
        if Command::new(program).arg("-V").output().is_err() {
            return skip(&format!("this machine has no {program}"));
        }
    }
    let (report, entered) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        // SAFETY: only this thread moves, and what it starts starts in the new namespace.
        let moved = unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0;
        report.send(moved).unwrap();
        if !moved {
            return;
        }
        ip("link set lo up");
        for (family, address) in [("-4", format!("{V4}/32")), ("-6", format!("{V6}/128"))] {
            ip(&format!("{family} address add {address} dev lo"));
        }
        body();
    });
    if !entered.recv().unwrap() {
        skip("no permission for a network namespace (run as root)");
    }
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn ip(line: &str) {
    let status = Command::new("ip").args(line.split(' ')).status().unwrap();
    assert!(status.success(), "ip {line}");
}

/// Answers for a zone at addresses, on a thread of its own, until the test's process ends.
fn serve(zone: Zone, addresses: &[&str], upstreams: &[&str]) -> Arc<Names> {
    let at = |ip: &&str| SocketAddr::new(ip.parse().unwrap(), 53);
    let addresses: Vec<_> = addresses.iter().map(at).collect();
    let names = Arc::new(Names::new(zone, upstreams.iter().map(at).collect()));
    let sockets = dns::bind(&addresses).unwrap();
    let served = names.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(dns::run(sockets, served)).unwrap();
    });
    names
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn record(data: Data) -> Record {
    Record {
        data,
        origin: Origin::parfait("test"),
    }
}

fn empty_zone(domain: &str) -> Zone {
    let soa = record(Data::Soa {
        primary: name(&format!("ns.dns.{domain}")),
        mailbox: name(&format!("hostmaster.{domain}")),
        negative_ttl: 5,
    });
    Zone::new(name(domain), soa, 5, vec!["10.96.0.0/16".parse().unwrap()])
}

fn cluster() -> Zone {
    let mut zone = empty_zone("cluster.local");
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
        record(Data::Ptr(web)),
    );
    zone.insert(
        name("dns-version.cluster.local"),
        record(Data::Txt("1.1.0".to_owned())),
    );
    let away = record(Data::Cname(name("www.example.org")));
    zone.insert(name("away.default.svc.cluster.local"), away);
    for n in 0..100u8 {
        let many = name("many.shop.svc.cluster.local");
        zone.insert(many, record(Data::Address(IpAddr::from([10, 244, 1, n]))));
    }
    zone
}

/// What dig prints.
fn dig(line: &str) -> String {
    let output = Command::new("dig")
        .args(["+tries=1", "+time=4"])
        .args(line.split(' '))
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn dig_finds_every_kind_of_record() {
    in_namespace("dig_finds_every_kind_of_record", || {
        let _names = serve(cluster(), &[V4, V6], &[]);
        for (question, expected) in [
            ("web.default.svc.cluster.local A", "10.96.0.7\n"),
            ("WEB.default.SVC.cluster.local AAAA", "fd00:10:96::7\n"),
            (
                "_http._tcp.web.default.svc.cluster.local SRV",
                "0 100 80 web.default.svc.cluster.local.\n",
            ),
            ("-x 10.96.0.7", "web.default.svc.cluster.local.\n"),
            ("dns-version.cluster.local TXT", "\"1.1.0\"\n"),
            (
                "cluster.local SOA",
                "ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5\n",
            ),
            ("nosuch.default.svc.cluster.local A", ""),
        ] {
            for server in [V4, V6] {
                for transport in ["+notcp", "+tcp"] {
                    let said = dig(&format!("+short {transport} @{server} {question}"));
                    assert_eq!(said, expected, "{question} {transport} @{server}");
                }
            }
        }
    });
}

#[test]
fn what_does_not_exist_is_told_from_what_has_no_such_record() {
    in_namespace(
        "what_does_not_exist_is_told_from_what_has_no_such_record",
        || {
            let names = serve(cluster(), &[V4], &[]);
            let status = |question: &str| {
                let said = dig(&format!("@{V4} {question}"));
                let soa = said.contains("AUTHORITY: 1") && said.contains("\tSOA\t");
                let code = said
                    .split("status: ")
                    .nth(1)
                    .and_then(|s| s.split(',').next());
                (
                    code.unwrap_or("none").to_owned(),
                    soa,
                    said.contains(" aa "),
                )
            };
            let answer = |code: &str, soa, aa| (code.to_owned(), soa, aa);
            assert_eq!(
                status("nosuch.default.svc.cluster.local"),
                answer("NXDOMAIN", true, true)
            );
            assert_eq!(
                status("web.default.svc.cluster.local TXT"),
                answer("NOERROR", true, true)
            );
            assert_eq!(
                status("default.svc.cluster.local"),
                answer("NOERROR", true, true)
            );
            assert_eq!(status("web"), answer("NXDOMAIN", false, false));
            assert_eq!(status("www.example.org"), answer("SERVFAIL", false, false));
            assert_eq!(
                status("+norecurse www.example.org"),
                answer("REFUSED", false, false)
            );
            assert_eq!(
                status("+edns=1 +noednsneg cluster.local"),
                answer("BADVERS", false, false)
            );
            assert_eq!(
                status("+opcode=2 cluster.local"),
                answer("NOTIMP", false, false)
            );
            assert_eq!(
                status("version.bind CH TXT"),
                answer("REFUSED", false, false)
            );
            let counts = names.counters.read();
            assert_eq!((counts.no_name, counts.no_data), (2, 2), "{counts:?}");
        },
    );
}

#[test]
fn a_long_answer_comes_over_tcp() {
    in_namespace("a_long_answer_comes_over_tcp", || {
        let _names = serve(cluster(), &[V4], &[]);
        let size = |said: &str| -> usize {
            let size = said.split("MSG SIZE  rcvd: ").nth(1).unwrap();
            size.trim().parse().unwrap()
        };
        let cut = dig(&format!(
            "+noedns +ignore @{V4} many.shop.svc.cluster.local"
        ));
        assert!(cut.contains(" tc "), "{cut}");
        assert!(size(&cut) <= 512, "{cut}");
        let cut = dig(&format!(
            "+bufsize=4096 +ignore @{V4} many.shop.svc.cluster.local"
        ));
        assert!(
            cut.contains(" tc ") && size(&cut) <= 1232 && size(&cut) > 512,
            "{cut}"
        );
        let whole = dig(&format!("+noedns @{V4} many.shop.svc.cluster.local"));
        assert!(whole.contains("ANSWER: 100"), "{whole}");
        assert!(
            whole.contains("(TCP)") || whole.contains("retrying in TCP"),
            "{whole}"
        );
    });
}

#[test]
fn other_names_are_asked_upstream() {
    in_namespace("other_names_are_asked_upstream", || {
        let mut outside = empty_zone("org");
        let address = |text: &str| record(Data::Address(text.parse().unwrap()));
        outside.insert(name("www.example.org"), address("192.0.2.1"));
        for n in 0..100u8 {
            outside.insert(
                name("many.example.org"),
                record(Data::Address([192, 0, 2, n].into())),
            );
        }
        let _upstream = serve(outside, &[UPSTREAM], &[]);
        // The first upstream server is not there; the second is.
        let names = serve(cluster(), &[V4], &["127.0.0.99", UPSTREAM]);
        let short = |question: &str| dig(&format!("+short @{V4} {question}"));
        assert_eq!(short("www.example.org"), "192.0.2.1\n");
        assert_eq!(short("+tcp www.example.org"), "192.0.2.1\n");
        assert_eq!(short("many.example.org").lines().count(), 100);
        assert_eq!(
            short("away.default.svc.cluster.local"),
            "www.example.org.\n192.0.2.1\n"
        );
        let nosuch = dig(&format!("@{V4} nosuch.example.org"));
        assert!(
            nosuch.contains("NXDOMAIN") && nosuch.contains(" ra"),
            "{nosuch}"
        );
        let elsewhere = dig(&format!("@{V4} www.example.com"));
        assert!(elsewhere.contains("SERVFAIL"), "{elsewhere}");
        assert_eq!(short("web.default.svc.cluster.local"), "10.96.0.7\n");
        assert!(names.counters.read().forwarded >= 6);
    });
}

#[test]
fn the_zone_is_swapped_while_questions_come() {
    in_namespace("the_zone_is_swapped_while_questions_come", || {
        let names = serve(empty_zone("cluster.local"), &[V4], &[]);
        assert_eq!(
            dig(&format!("+short @{V4} web.default.svc.cluster.local")),
            ""
        );
        names.swap(cluster());
        assert_eq!(
            dig(&format!("+short @{V4} web.default.svc.cluster.local")),
            "10.96.0.7\n"
        );
    });
}

#[test]
fn questions_are_pipelined_and_garbage_ends_only_its_own_connection() {
    in_namespace(
        "questions_are_pipelined_and_garbage_ends_only_its_own_connection",
        || {
            let _names = serve(cluster(), &[V4], &[]);
            let question = |id: u8| {
                let mut packet = vec![0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
                for label in ["web", "default", "svc", "cluster", "local"] {
                    packet.push(u8::try_from(label.len()).unwrap());
                    packet.extend(label.bytes());
                }
                packet.extend([0, 0, 1, 0, 1]);
                let mut framed = u16::try_from(packet.len()).unwrap().to_be_bytes().to_vec();
                framed.extend(packet);
                framed
            };
            let connect = || {
                let stream = TcpStream::connect((V4, 53)).unwrap();
                stream
                    .set_read_timeout(Some(Duration::from_secs(4)))
                    .unwrap();
                stream
            };
            let mut garbage = connect();
            garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
            let mut silent = connect();
            silent.write_all(&[0]).unwrap();
            let mut stream = connect();
            let all: Vec<u8> = (1..=50).flat_map(question).collect();
            // In two pieces that do not respect the messages.
            stream.write_all(&all[..33]).unwrap();
            std::thread::sleep(Duration::from_millis(50));
            stream.write_all(&all[33..]).unwrap();
            for id in 1..=50 {
                let mut length = [0; 2];
                stream.read_exact(&mut length).unwrap();
                let mut answer = vec![0; u16::from_be_bytes(length).into()];
                stream.read_exact(&mut answer).unwrap();
                assert_eq!(answer[1], id);
                assert_eq!(&answer[6..8], &[0, 1], "one answer");
            }
        },
    );
}

#[test]
fn an_address_can_be_bound_before_the_node_has_it_but_not_twice() {
    in_namespace(
        "an_address_can_be_bound_before_the_node_has_it_but_not_twice",
        || {
            let _names = serve(cluster(), &["10.96.0.99"], &[]);
            assert!(dig("+short @10.96.0.99 web.default.svc.cluster.local").contains(";;"));
            ip("address add 10.96.0.99/32 dev lo");
            assert_eq!(
                dig("+short @10.96.0.99 web.default.svc.cluster.local"),
                "10.96.0.7\n"
            );
            let again = dns::bind(&["10.96.0.99:53".parse().unwrap()])
                .unwrap_err()
                .to_string();
            assert!(
                again.contains("10.96.0.99:53") && again.contains("EADDRINUSE"),
                "{again}"
            );
        },
    );
}

#[test]
fn our_own_client_hears_what_the_zone_says() {
    in_namespace("our_own_client_hears_what_the_zone_says", || {
        let zone = cluster();
        let _names = serve(zone.clone(), &[V4, V6], &[]);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let patience = Duration::from_secs(4);
        for server in [V4, V6] {
            let server = SocketAddr::new(server.parse().unwrap(), 53);
            let questions: Vec<_> = zone
                .records()
                .map(|f| (f.name.clone(), f.record.data.kind()))
                .collect();
            for (question, kind) in questions {
                let reply = runtime
                    .block_on(dns::ask(server, &question, kind, patience))
                    .unwrap();
                let answer = zone.answer(&question, kind);
                let mut expected: Vec<_> = answer
                    .records
                    .iter()
                    .map(|f| (f.name.clone(), f.record.data.clone()))
                    .collect();
                let mut records = reply.records;
                records.sort();
                expected.sort();
                assert_eq!(
                    (reply.rcode, records),
                    (answer.rcode, expected),
                    "{question} {kind}"
                );
                assert!(reply.authoritative);
            }
        }
        let nobody = "127.0.0.99:53".parse().unwrap();
        let (web, outside) = (name("web"), name("example.org"));
        let asked = dns::ask(nobody, &web, RecordType::A, Duration::from_millis(300));
        assert!(runtime.block_on(asked).is_err());
        let v4 = SocketAddr::new(V4.parse().unwrap(), 53);
        let asked = dns::ask(v4, &outside, RecordType::A, patience);
        assert_eq!(runtime.block_on(asked).unwrap().rcode, Rcode::NotOurs);
    });
}

#[test]
fn addresses_come_and_go_without_disturbing_the_others() {
    in_namespace(
        "addresses_come_and_go_without_disturbing_the_others",
        || {
            let at = |ips: &[&str]| -> BTreeSet<SocketAddr> {
                ips.iter()
                    .map(|ip| SocketAddr::new(ip.parse().unwrap(), 53))
                    .collect()
            };
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap();
            let names = Arc::new(Names::new(cluster(), Vec::new()));
            let mut server = dns::Server::new(names);
            let answers = |ip: &str| {
                dig(&format!("+short @{ip} web.default.svc.cluster.local")) == "10.96.0.7\n"
            };
            for (wanted, silent) in [
                (vec![V4], V6),
                (vec![V4, V6], "127.0.0.1"),
                (vec![V6], V4),
                (vec![V4], V6),
            ] {
                runtime.block_on(server.listen(&at(&wanted))).unwrap();
                assert!(wanted.iter().all(|ip| answers(ip)), "{wanted:?}");
                assert!(!answers(silent), "{silent} beside {wanted:?}");
                // What it left is free at once.
                assert!(dns::bind(&[SocketAddr::new(silent.parse().unwrap(), 53)]).is_ok());
            }
            // One that is taken is said, and does not keep the others from being served.
            let _other = dns::bind(&["127.0.0.1:53".parse().unwrap()]).unwrap();
            let error = runtime
                .block_on(server.listen(&at(&["127.0.0.1", V4, V6])))
                .unwrap_err();
            assert!(error.to_string().contains("127.0.0.1:53"), "{error}");
            assert!(answers(V4) && answers(V6));
        },
    );
}
