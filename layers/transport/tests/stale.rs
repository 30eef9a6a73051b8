//! Which tracked connections are of no use: a table of cases that Kubernetes' users have reported (FIELD parts, by
//! their numbers at kubernetes/kubernetes), and the law that what a plan's own rules make is never one of them.

#[path = "../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;

use std::net::{IpAddr, SocketAddr};

use fixture::{DUAL, THREE, clusters};
use parfait_cluster::{Snapshot, TrafficPolicy};
use parfait_linux::conntrack::{Entry, Tuple};
use parfait_packet::Protocol;
use parfait_transport::{Change, Former, Frontend, PassedOver, Plan, apply, plan, stale};

const SERVICES: &str = "service dns ip=10.96.0.20 ports=dns:53/UDP>5353,web:80/TCP>8080,sig:9/SCTP
service sticky ip=10.96.0.21 ports=dns:53/UDP>5353
service names ip=10.96.0.10 ports=dns:53/UDP servedByNode";

/// The node's own addresses.
const OWN: [&str; 2] = ["192.168.77.11", "fd00:77::11"];

/// Three ports of Service dns, and Service sticky, with these endpoints.
fn endpoints(list: &str) -> Snapshot {
    let slices = ["dns", "sticky"].map(|of| {
        format!("slice {of}-a of={of} ports=dns:5353/UDP,web:8080/TCP,sig:9/SCTP endpoints={list}")
    });
    let slices = match list.is_empty() {
        true => String::new(),
        false => slices.join("\n"),
    };
    let mut snapshot = clusters(&[THREE, SERVICES, &slices]);
    for service in snapshot.services.values_mut() {
        match service.name.name.as_str() {
            "dns" => {
                service.outside.external_ips = vec![ip("203.0.113.9")];
                service.ports[0].node_port = Some(30_053);
            }
            "sticky" => service.affinity = Some(60),
            _ => {}
        }
    }
    snapshot
}

fn planned(list: &str) -> Plan {
    plan(&endpoints(list), "node-1")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// `PROTOCOL DESTINATION ENDPOINT [answered]`, of a client of this node; the same endpoint as destination is
/// an entry that was not translated.
fn entry(text: &str) -> Entry {
    let words: Vec<&str> = text.split_whitespace().collect();
    let protocol = match words[0] {
        "tcp" => 6,
        "udp" => 17,
        "sctp" => 132,
        other => panic!("{other}"),
    };
    let [to, endpoint] = [1, 2].map(|n| words[n].parse::<SocketAddr>().expect("a socket"));
    let client = match to {
        SocketAddr::V4(_) => "10.244.1.2:40000",
        SocketAddr::V6(_) => "[fd00:10:244:1::2]:40000",
    };
    let client = client.parse().expect("a socket");
    let tuple = |source, destination| Tuple {
        protocol,
        source,
        destination,
        icmp: None,
    };
    let bit = |set, bit| if set { bit } else { 0 };
    Entry {
        original: tuple(client, to),
        reply: tuple(endpoint, client),
        status: bit(to != endpoint, 32) | bit(words.contains(&"answered"), 2),
        state: 0,
        expires: 30,
        zone: u16::from(words.contains(&"zone")),
        id: 0,
        midway: false,
    }
}

/// What is wrong with these, a line each: `udp 10.96.0.20:53: 10.244.2.2:5353 serves no more`.
fn judge(plan: &Plan, former: &Former, entries: &[&str]) -> Vec<String> {
    let entries: Vec<Entry> = entries.iter().map(|text| entry(text)).collect();
    let own = |address: IpAddr| OWN.iter().any(|own| ip(own) == address);
    let found = stale(plan, former, &own, &entries);
    found
        .iter()
        .map(|stale| format!("{}: {}", stale.entry.original.destination, stale.why))
        .collect()
}

/// A UDP port of a Service.
fn at(text: &str) -> Frontend {
    let socket: SocketAddr = text.parse().expect("a socket");
    Frontend {
        address: socket.ip(),
        protocol: Protocol::Udp,
        port: socket.port(),
    }
}

fn changes(before: &Plan, after: &Plan) -> Vec<Change> {
    let names = before.services.keys().chain(after.services.keys());
    let mut changes: Vec<Change> = names
        .map(|name| {
            (
                before.services.get(name).cloned(),
                after.services.get(name).cloned(),
            )
        })
        .filter(|(old, new)| old != new)
        .collect();
    changes.dedup();
    changes
}

/// From one plan to the next, and what is then of no use.
fn after(before: &Plan, now: &Plan, entries: &[&str]) -> Vec<String> {
    let mut former = Former::default();
    former.add(&changes(before, now));
    judge(now, &former, entries)
}

const BOTH: &str = "10.244.1.3@node-1/web-1,10.244.2.2@node-2/web-2";
const ONE: &str = "10.244.1.3@node-1/web-1";

/// kubernetes/kubernetes#125467, #126130: a UDP client stays with an endpoint that was replaced.
#[test]
fn an_endpoint_that_was_replaced() {
    let found = after(
        &planned(BOTH),
        &planned(ONE),
        &[
            "udp 10.96.0.20:53 10.244.1.3:5353 answered",
            "udp 10.96.0.20:53 10.244.2.2:5353 answered",
            "udp 203.0.113.9:53 10.244.2.2:5353",
            "udp 192.168.77.11:30053 10.244.2.2:5353",
            // The pod serves, but not at this port.
            "udp 10.96.0.20:53 10.244.1.3:53",
        ],
    );
    assert_eq!(
        found,
        [
            "10.96.0.20:53: 10.244.2.2:5353 serves no more",
            "203.0.113.9:53: 10.244.2.2:5353 serves no more",
            "192.168.77.11:30053: 10.244.2.2:5353 serves no more",
            "10.96.0.20:53: 10.244.1.3:53 serves no more",
        ]
    );
}

/// kubernetes/kubernetes#139628: of a Service that is scaled to zero nothing was removed, for 13 hours.
#[test]
fn a_service_that_is_scaled_to_zero() {
    let found = after(
        &planned(ONE),
        &planned(""),
        &[
            "udp 10.96.0.20:53 10.244.1.3:5353",
            "udp 192.168.77.11:30053 10.244.1.3:5353 answered",
        ],
    );
    assert_eq!(
        found,
        [
            "10.96.0.20:53: 10.244.1.3:5353 serves no more",
            "192.168.77.11:30053: 10.244.1.3:5353 serves no more",
        ]
    );
}

/// kubernetes/kubernetes#141371: so was nothing of a Service that is deleted, or loses an address or port.
#[test]
fn an_address_or_port_that_is_gone() {
    let before = planned(ONE);
    let entries = [
        "udp 10.96.0.20:53 10.244.1.3:5353",
        "udp 203.0.113.9:53 10.244.1.3:5353",
        "udp 192.168.77.11:30053 10.244.1.3:5353",
        // Somebody else's: nothing was planned there, or it leads elsewhere.
        "udp 192.168.77.11:30054 10.244.1.3:5353",
        "udp 192.168.77.11:30053 172.17.0.2:5353",
    ];
    let mut less = endpoints(ONE);
    let dns = less.services.values_mut().next().expect("Service dns");
    dns.outside.external_ips.clear();
    dns.ports[0].node_port = None;
    let gone = "no Service has that address and port any more";
    let outside = [
        format!("203.0.113.9:53: {gone}"),
        format!("192.168.77.11:30053: {gone}"),
    ];
    assert_eq!(after(&before, &plan(&less, "node-1"), &entries), outside);
    less.services.pop_first();
    less.slices.clear();
    let none = plan(&less, "node-1");
    let all = [format!("10.96.0.20:53: {gone}")]
        .into_iter()
        .chain(outside);
    assert_eq!(after(&before, &none, &entries), all.collect::<Vec<_>>());
}

/// It lost its last packet long before: an association is still its endpoint's while that is listed.
#[test]
fn an_association_whose_endpoint_has_drained() {
    let draining = planned("10.244.1.3@node-1/web-1!terminating,10.244.2.2@node-2/web-2");
    let now = planned("10.244.2.2@node-2/web-2");
    let flow = ["sctp 10.96.0.20:9 10.244.1.3:9 answered"];
    assert_eq!(after(&planned(BOTH), &draining, &flow), [""; 0]);
    let mut former = Former::default();
    assert!(former.add(&changes(&draining, &now)), "flows are looked at");
    assert_eq!(
        judge(&now, &former, &flow),
        ["10.96.0.20:9: 10.244.1.3:9 serves no more"]
    );
}

/// The agent was down meanwhile: the tables say what was planned before.
#[test]
fn an_address_that_went_while_the_agent_was_down() {
    let tables = apply(&planned(ONE)).into_iter();
    let tables = tables.map(|table| (table.key(), table)).collect();
    let mut former = Former::default();
    former.observe(&tables);
    let now = plan(&clusters(&[THREE]), "node-1");
    let found = judge(
        &now,
        &former,
        &[
            "udp 203.0.113.9:53 10.244.1.3:5353",
            "udp 192.168.77.11:30053 10.244.1.3:5353",
            "udp 192.168.77.11:30054 10.244.1.3:5353",
        ],
    );
    let gone = "no Service has that address and port any more";
    assert_eq!(
        found,
        [
            format!("203.0.113.9:53: {gone}"),
            format!("192.168.77.11:30053: {gone}"),
        ]
    );
    // In the range of Services' addresses nobody else translates, so there it is known even without.
    let found = judge(
        &now,
        &Former::default(),
        &[
            "udp 203.0.113.9:53 10.244.1.3:5353",
            "udp 10.96.0.20:53 10.244.1.3:5353",
        ],
    );
    assert_eq!(found, [format!("10.96.0.20:53: {gone}")]);
}

/// Where clients keep their endpoint, the tables name it in the names of chains; and one that is no pod is nobody else's.
#[test]
fn a_kept_endpoint_that_went_while_the_agent_was_down() {
    let at = |endpoint: &str, six: &str| {
        let text = format!(
            "service kept ip=10.96.0.22,fd00:10:96::22 ports=dns:53/UDP>5353 affinity=60 externalIPs=203.0.113.8,2001:db8::8
             slice kept-4 of=kept ports=dns:5353/UDP endpoints={endpoint}
             slice kept-6 of=kept ports=dns:5353/UDP endpoints={six}"
        );
        plan(&clusters(&[DUAL, &text]), "node-1")
    };
    let before = at("192.168.77.12@node-2", "fd00:77::12@node-2");
    let mut former = Former::default();
    let tables = apply(&before).into_iter();
    former.observe(&tables.map(|table| (table.key(), table)).collect());
    let now = at("192.168.77.13@node-3", "fd00:77::13@node-3");
    let entries = [
        "udp 203.0.113.8:53 192.168.77.12:5353 answered",
        "udp 203.0.113.8:53 192.168.77.99:5353 answered",
        "udp [2001:db8::8]:53 [fd00:77::12]:5353 answered",
    ];
    let wanted = [
        "203.0.113.8:53: 192.168.77.12:5353 serves no more",
        "[2001:db8::8]:53: [fd00:77::12]:5353 serves no more",
    ];
    assert_eq!(judge(&now, &former, &entries), wanted);
    assert_eq!(judge(&before, &former, &entries), Vec::<String>::new());
}

/// kubernetes/kubernetes#122740: a restart must remove nothing of what serves.
#[test]
fn a_restart_removes_nothing() {
    let now = planned(BOTH);
    let tables = apply(&now).into_iter();
    let mut former = Former::default();
    former.observe(&tables.map(|table| (table.key(), table)).collect());
    let serving = [
        "udp 10.96.0.20:53 10.244.1.3:5353 answered",
        "udp 10.96.0.20:53 10.244.2.2:5353",
        "udp 10.96.0.21:53 10.244.2.2:5353",
        "udp 203.0.113.9:53 10.244.2.2:5353",
        "udp 192.168.77.11:30053 10.244.1.3:5353",
        "sctp 10.96.0.20:9 10.244.1.3:9 answered",
        "tcp 10.96.0.20:80 10.244.1.3:8080",
    ];
    assert_eq!(judge(&now, &former, &serving), Vec::<String>::new());
    assert!(
        !former.add(&changes(&now, &planned(BOTH))),
        "and nothing is listed"
    );
}

/// kubernetes/kubernetes#114668, #122741: a flow that began before there was an endpoint, or the Service.
#[test]
fn a_flow_that_was_black_holed_before_the_endpoint_existed() {
    let flows = [
        "udp 10.96.0.20:53 10.96.0.20:53",
        "udp 203.0.113.9:53 203.0.113.9:53",
        "udp 192.168.77.11:30053 192.168.77.11:30053",
        "tcp 10.96.0.20:80 10.96.0.20:80",
        // Answered, at an address that is not the Service's alone: it works, whoever answers.
        "udp 203.0.113.9:53 203.0.113.9:53 answered",
        "udp 192.168.77.11:30053 192.168.77.11:30053 answered",
    ];
    let none = planned("");
    assert_eq!(
        judge(&none, &Former::default(), &flows),
        Vec::<String>::new()
    );
    let mut former = Former::default();
    assert!(
        former.add(&changes(&none, &planned(ONE))),
        "is looked for at once"
    );
    let found = judge(&planned(ONE), &former, &flows);
    let untranslated = |at: &str| format!("{at}: there was no endpoint when it began");
    let at = [
        "10.96.0.20:53",
        "203.0.113.9:53",
        "192.168.77.11:30053",
        "10.96.0.20:80",
    ];
    assert_eq!(found, at.map(untranslated));
}

/// KEP-1669: an endpoint that serves while it terminates keeps its flows, though new ones go elsewhere; and whatever
/// policies and hints say now, flows that have an endpoint keep it.
#[test]
fn flows_stay_with_an_endpoint_that_serves() {
    let flow = ["udp 10.96.0.20:53 10.244.2.2:5353 answered"];
    let both = planned(BOTH);
    for state in ["!serving", "!notready", "!terminating"] {
        let now = planned(&format!("{BOTH}{state}"));
        let kept = after(&both, &now, &flow).is_empty();
        assert_eq!(kept, state == "!serving", "{state}");
    }
    let serving = planned(&format!("{BOTH}!serving"));
    let mut former = Former::default();
    assert!(
        former.add(&changes(&serving, &planned(ONE))),
        "it is gone after all"
    );
    assert_eq!(judge(&planned(ONE), &former, &flow).len(), 1);
    let mut local = endpoints(BOTH);
    for service in local.services.values_mut() {
        service.internal_policy = TrafficPolicy::Local;
        service.outside.policy = TrafficPolicy::Local;
    }
    let outside = "udp 192.168.77.11:30053 10.244.2.2:5353";
    let local = plan(&local, "node-1");
    assert_eq!(
        after(&both, &local, &[flow[0], outside]),
        Vec::<String>::new()
    );
}

/// kubernetes/kubernetes#101607: SYNs of a client with few ports keep an entry to a dead endpoint. What is established
/// is left to its ends (#102631: removing it breaks graceful endings).
#[test]
fn tcp_that_nobody_answered_and_only_that() {
    let entries = [
        "tcp 10.96.0.20:80 10.244.2.2:8080",
        "tcp 10.96.0.20:80 10.244.2.2:8080 answered",
        "tcp 10.96.0.20:80 10.244.1.3:8080",
    ];
    let found = after(&planned(BOTH), &planned(ONE), &entries);
    assert_eq!(found, ["10.96.0.20:80: 10.244.2.2:8080 serves no more"]);
    assert_eq!(
        after(&planned(ONE), &planned(""), &entries[1..2]),
        Vec::<String>::new()
    );
}

/// An association would be tried again from the same port for ever; it ends when its endpoint is not even listed.
#[test]
fn sctp_whose_endpoint_is_gone() {
    let entries = ["sctp 10.96.0.20:9 10.244.2.2:9 answered"];
    let terminating = planned(&format!("{BOTH}!terminating"));
    assert_eq!(
        judge(&terminating, &Former::default(), &entries),
        Vec::<String>::new()
    );
    let found = after(&terminating, &planned(ONE), &entries);
    assert_eq!(found, ["10.96.0.20:9: 10.244.2.2:9 serves no more"]);
}

/// Never: what the node answers itself, other programs' translations, sockets and zones, and what is no Service's.
#[test]
fn what_is_not_ours_is_left() {
    let others = [
        "udp 10.96.0.10:53 10.96.0.10:53 answered",
        "udp 10.96.0.10:53 10.96.0.10:53",
        "udp 192.168.77.11:30053 172.17.0.2:53 answered",
        "udp 203.0.113.9:53 198.51.100.4:53",
        "udp 192.168.77.11:123 192.168.77.11:123 answered",
        "udp 198.51.100.7:30053 198.51.100.7:30053",
        "udp 198.51.100.7:53 10.244.1.3:5353",
        "udp 10.96.0.20:53 10.244.2.2:5353 zone",
        "tcp 192.168.77.11:22 192.168.77.11:22 answered",
    ];
    for list in [ONE, ""] {
        let found = after(&planned(BOTH), &planned(list), &others);
        assert_eq!(found, Vec::<String>::new());
    }
}

/// Datagrams to a host port stay with a pod that is gone, or with the node (containernetworking/plugins#123).
#[test]
fn a_host_port_whose_pod_is_gone() {
    let pod = |ip: &str| {
        let pod = format!("pod log on=node-1 ip={ip} hostPorts=514/UDP>5514");
        plan(&clusters(&[THREE, &pod]), "node-1")
    };
    let none = plan(&clusters(&[THREE]), "node-1");
    let entries = [
        "udp 192.168.77.11:514 10.244.1.8:5514",
        "udp 192.168.77.11:514 10.244.1.9:5514",
        "udp 192.168.77.11:514 192.168.77.11:514",
        "udp 192.168.77.11:514 192.168.77.11:514 answered",
        "udp 198.51.100.7:514 198.51.100.7:514",
    ];
    let from_to = |before: &Plan, now: &Plan| {
        let mut former = Former::default();
        let ports = [before, now].map(|plan| &plan.common.host_ports);
        assert!(former.add_host_ports(ports[0], ports[1]));
        judge(now, &former, &entries)
    };
    assert_eq!(
        from_to(&pod("10.244.1.8"), &pod("10.244.1.9")),
        [
            "192.168.77.11:514: 10.244.1.8:5514 serves no more",
            "192.168.77.11:514: there was no endpoint when it began",
        ]
    );
    assert_eq!(
        from_to(&pod("10.244.1.8"), &none),
        ["192.168.77.11:514: no Service has that address and port any more"]
    );
}

/// Another node may have chosen it, or this one before there were so many.
#[test]
fn an_endpoint_that_is_one_of_too_many_keeps_its_flows() {
    let list = |count: u32| {
        let endpoint = |n| format!("10.244.{}.{}@node-2", n / 250, n % 250 + 1);
        (0..count).map(endpoint).collect::<Vec<_>>().join(",")
    };
    let before = planned(&list(9_000));
    let (_, dns) = before.find(&at("10.96.0.20:53")).expect("a Service");
    let (one, why) = dns
        .passed_over(&dns.inside, &before.here)
        .pop()
        .expect("one");
    assert_eq!(why, PassedOver::BeyondMost);
    let gone = "10.244.35.250:5353";
    assert_eq!(SocketAddr::from(one.socket()).to_string(), gone);
    let flows = ["udp 10.96.0.20:53 10.244.35.250:5353 answered"];
    assert!(judge(&before, &Former::default(), &flows).is_empty());
    let now = planned(&list(8_999));
    let changes = changes(&before, &now);
    let mut former = Former::default();
    assert!(former.add(&changes), "flows are looked for");
    assert_eq!(
        judge(&now, &former, &flows),
        [format!("10.96.0.20:53: {gone} serves no more")]
    );
}

/// What the rules of a plan make of any packet is never of no use, whatever was planned before; and TCP's changes
/// alone are no reason to list anything.
#[test]
fn what_the_rules_make_is_never_stale() {
    let lists = ["", ONE, BOTH, "10.244.2.2@node-2/web-2!serving"];
    let six = "service six ip=fd00:10:96::6 ports=dns:53/UDP\nslice six-a of=six ports=dns:53/UDP endpoints=fd00:10:244:1::3";
    let mut plans: Vec<Plan> = lists.map(planned).into();
    plans.push(plan(&clusters(&[DUAL, six]), "node-1"));
    let mut tried = 0;
    for before in &plans {
        for now in &plans {
            let mut former = Former::default();
            former.add(&changes(before, now));
            let own = |_: IpAddr| true;
            for (at, behind) in now.services.values().flat_map(|service| service.held()) {
                for backend in behind
                    .inside
                    .backends
                    .iter()
                    .chain(&behind.outside.backends)
                {
                    let socket = SocketAddr::from(backend.socket());
                    let to = SocketAddr::new(at.address, at.port);
                    let entries = [entry(&format!("{} {to} {socket}", at.protocol))];
                    assert_eq!(stale(now, &former, &own, &entries), []);
                    tried += 1;
                }
            }
        }
    }
    assert!(tried > 100, "{tried}");
    let mut web = endpoints(ONE);
    let dns = web.services.values_mut().next().expect("Service dns");
    dns.ports
        .retain(|port| port.node_port.is_none() && port.port == 80);
    web.services.retain(|name, _| name.name == "dns");
    let before = plan(&web, "node-1");
    web.slices.clear();
    let now = plan(&web, "node-1");
    let changes = changes(&before, &now);
    assert_eq!(changes.len(), 1);
    assert!(!Former::default().add(&changes));
}
