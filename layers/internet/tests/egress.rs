//! With which source address pods leave the cluster, as `nft` prints what decides it.

#[path = "../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;

use std::net::IpAddr;

use fixture::{APART, DUAL, clusters};
use parfait_cluster::{Path, Paths, Snapshot};
use parfait_internet::Plan;
use parfait_linux::nft::evaluate::ct_state;
use parfait_linux::nft::{
    AddressType, Context, End, Family as TableFamily, Hook, evaluate, render,
};
use parfait_packet::{Family, Packet, Protocol};
use serde_json::{Value, json};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The cluster with this `egress`, whose node-1 has these addresses besides.
fn snapshot(text: &str, egress: Value, has: &[&str]) -> Snapshot {
    let more = "pod prod/mailer on=node-1 ip=10.244.1.9\npod prod/shop on=node-1 ip=10.244.1.10";
    let mut snapshot = clusters(&[text, more]);
    snapshot.config.egress = serde_json::from_value(egress).expect("egress");
    let this = snapshot.nodes.get_mut("node-1").expect("node-1");
    let underlay = this.underlay.as_mut().expect("reported");
    underlay.egress = has.iter().map(|address| ip(address)).collect();
    let mailer = parfait_cluster::ObjectName::new("prod", "mailer");
    let mailer = snapshot.pods.get_mut(&mailer).expect("mailer");
    mailer.labels.insert("app".to_owned(), "mailer".to_owned());
    snapshot
}

/// node-2 is on the segment, node-3 behind the tunnel.
fn plan(snapshot: &Snapshot) -> Plan {
    let mut paths = Paths::new();
    for family in Family::ALL {
        let direct = Path::Direct {
            interface: "eth0".to_owned(),
            via: ip("192.168.77.12"),
            mtu: None,
        };
        let tunnel = Path::Vxlan {
            device: "pf-vxlan".to_owned(),
            remote: ip("192.168.88.13"),
            mac: [2, 0, 0, 0, 0, 3],
            mtu: None,
        };
        paths.insert(("node-2".to_owned(), family), direct);
        paths.insert(("node-3".to_owned(), family), tunnel);
    }
    parfait_internet::plan(snapshot, "node-1", &paths)
}

/// With which source a new connection leaves, or how it ends.
fn source(plan: &Plan, from: &str, to: &str) -> String {
    let tables = parfait_internet::apply(plan).tables;
    let packet = Packet::new(ip(from), ip(to), Protocol::Tcp, 80).expect("one family");
    let elsewhere = |_| AddressType::Unicast;
    let mut context = Context::new(packet, &elsewhere);
    let interface = plan.pods.iter().find(|pod| pod.address == ip(from));
    let interface = interface.map(|pod| pod.interface.to_string());
    context.iifname = interface.as_deref();
    context.oifname = Some("eth0");
    let forwarded = evaluate(&tables, Hook::Forward, &context);
    match &forwarded[0].end {
        End::Accepted => {}
        End::Rejected(_) => return "refused".to_owned(),
        other => return format!("{other:?}"),
    }
    let left = evaluate(&tables, Hook::Postrouting, &context);
    match left[0].masquerade {
        true => "the node's".to_owned(),
        false => left[0].packet.source.to_string(),
    }
}

fn notes(plan: &Plan) -> Vec<String> {
    plan.notes.iter().map(ToString::to_string).collect()
}

const OUTSIDE: &str = "198.51.100.1";

#[test]
fn the_rules_are_the_same_as_before_where_nothing_is_chosen() {
    let plain = plan(&snapshot(APART, json!({}), &["192.0.2.10"]));
    assert_eq!(plain.sources, parfait_internet::egress::Sources::default());
    assert_eq!(source(&plain, "10.244.1.9", OUTSIDE), "the node's");
}

#[test]
fn a_network_that_knows_the_way_back_sees_pods_themselves() {
    // It covers the pod network: in a set of prefixes only one of the two may be.
    let egress = json!({"nonMasqueradeCIDRs": ["10.0.0.0/8", "198.51.100.0/24"]});
    let plan = plan(&snapshot(APART, egress, &[]));
    let set: Vec<_> = plan.unmasqueraded.keys().map(ToString::to_string).collect();
    assert_eq!(set, ["10.0.0.0/8", "192.168.77.12/32", "198.51.100.0/24"]);
    assert_eq!(source(&plan, "10.244.1.9", OUTSIDE), "10.244.1.9");
    assert_eq!(source(&plan, "10.244.1.9", "10.1.2.3"), "10.244.1.9");
    assert_eq!(source(&plan, "10.244.1.9", "203.0.113.1"), "the node's");
}

#[test]
fn without_masquerade_only_nodes_behind_the_tunnel_see_another_source() {
    let plan = plan(&snapshot(APART, json!({"masquerade": false}), &[]));
    assert_eq!(source(&plan, "10.244.1.9", OUTSIDE), "10.244.1.9");
    assert_eq!(source(&plan, "10.244.1.9", "192.168.77.12"), "10.244.1.9");
    assert_eq!(source(&plan, "10.244.1.9", "192.168.88.13"), "the node's");
    let state = parfait_internet::apply(&plan);
    let printed = render::ruleset(&state.tables);
    assert!(printed.contains("oifname \"pf-vxlan\" ip saddr != @pod_networks masquerade"));
}

fn chosen() -> Value {
    json!({"addresses": [
        {"namespace": "prod", "podSelector": {"matchLabels": {"app": "mailer"}},
         "addresses": ["192.0.2.99", "192.0.2.10", "2001:db8::10"]},
        {"namespace": "prod", "addresses": ["192.0.2.11"]},
    ]})
}

#[test]
fn a_chosen_address_is_used_outside_of_the_cluster_only() {
    let plan = plan(&snapshot(APART, chosen(), &["192.0.2.10", "192.0.2.11"]));
    for (from, to, wanted) in [
        ("10.244.1.9", OUTSIDE, "192.0.2.10"),
        ("10.244.1.10", OUTSIDE, "192.0.2.11"),
        ("10.244.1.2", OUTSIDE, "the node's"),
        ("10.244.1.9", "10.244.2.2", "10.244.1.9"),
        ("10.244.1.9", "192.168.77.12", "10.244.1.9"),
        ("10.244.1.9", "192.168.88.13", "the node's"),
    ] {
        assert_eq!(source(&plan, from, to), wanted, "{from} to {to}");
    }
    assert_eq!(
        notes(&plan),
        [
            "ConfigMap kube-system/parfait egress.addresses[1]: Pod prod/mailer is meant by \
             egress.addresses[0] too, which comes first and counts; narrow one of the two selectors"
        ]
    );
    let table = parfait_internet::apply(&plan).tables;
    let printed = render::ruleset(&table);
    for part in [
        "10.244.1.9 comment \"ConfigMap kube-system/parfait egress.addresses[0]\" : 192.0.2.10",
        "ip daddr != @inside snat to ip saddr map @egress fully-random",
        "ct direction original ip saddr @egress_refused ip daddr != @inside reject with icmp admin-prohibited",
    ] {
        assert!(printed.contains(part), "{part} is missing:\n{printed}");
    }
}

#[test]
fn a_pod_whose_node_has_none_of_its_addresses_is_refused_outside_and_nowhere_else() {
    let plan = plan(&snapshot(APART, chosen(), &["192.0.2.10"]));
    for (from, to, wanted) in [
        ("10.244.1.10", OUTSIDE, "refused"),
        ("10.244.1.10", "10.244.2.2", "10.244.1.10"),
        ("10.244.1.10", "192.168.88.13", "the node's"),
        ("10.244.1.9", OUTSIDE, "192.0.2.10"),
        ("10.244.1.2", OUTSIDE, "the node's"),
    ] {
        assert_eq!(source(&plan, from, to), wanted, "{from} to {to}");
    }
    assert!(
        notes(&plan).contains(
            &"ConfigMap kube-system/parfait egress.addresses[1]: Node node-1 has none of 192.0.2.11, so IPv4 \
              packets of Pod prod/shop that would leave the cluster are refused; give the node one of them, \
              or name one that it has"
                .to_owned()
        ),
        "{:?}",
        notes(&plan)
    );
    // What it answers to somebody outside is not its own traffic.
    let tables = parfait_internet::apply(&plan).tables;
    let packet = Packet::new(ip("10.244.1.10"), ip(OUTSIDE), Protocol::Tcp, 80).expect("a packet");
    let elsewhere = |_| AddressType::Unicast;
    let mut context = Context::new(packet, &elsewhere);
    context.reply = true;
    context.ct_state = ct_state::ESTABLISHED;
    let interface = plan.pods.iter().find(|pod| pod.address == packet.source);
    context.iifname = interface.map(|pod| pod.interface.as_str());
    context.oifname = Some("eth0");
    assert_eq!(
        evaluate(&tables, Hook::Forward, &context)[0].end,
        End::Accepted
    );
}

#[test]
fn both_families_are_chosen_alike() {
    let egress = json!({"addresses": [{"namespace": "default", "addresses": ["2001:db8::10"]}]});
    let mut snapshot = snapshot(DUAL, egress, &[]);
    let this = snapshot.nodes.get_mut("node-1").expect("node-1");
    let underlay = this.underlay.as_mut().expect("reported");
    underlay
        .addresses
        .push("2001:db8::10/64".parse().expect("a prefix"));
    let plan = plan(&snapshot);
    assert_eq!(
        source(&plan, "fd00:10:244:1::2", "2001:db8:9::1"),
        "2001:db8::10"
    );
    // No IPv4 address is named: the node's would be a leak.
    assert_eq!(source(&plan, "10.244.1.2", OUTSIDE), "refused");
    assert!(
        notes(&plan)[0]
            .contains("it names no IPv4 address, so IPv4 packets of Pod default/client and 1 more"),
        "{:?}",
        notes(&plan)
    );
    let families: Vec<_> = parfait_internet::apply(&plan).tables.into_keys().collect();
    assert_eq!(families[0].0, TableFamily::Ip);
}
