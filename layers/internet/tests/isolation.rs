//! Isolated until known: the rules as `nft` prints them, and what they do to packets, as a table.

#[path = "../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;

use fixture::{DUAL, cluster, clusters};
use parfait_cluster::{Attachment, ObjectName, Paths, Snapshot};
use parfait_internet::{KnownPods, apply, nobody_known};
use parfait_linux::attachment::host_interface;
use parfait_linux::nft::evaluate::ct_state;
use parfait_linux::nft::{AddressType, Context, End, Hook, Tables, evaluate, render};
use parfait_packet::{Packet, Protocol};

fn tables(snapshot: &Snapshot) -> Tables {
    let plan = parfait_internet::plan(snapshot, "node-1", &Paths::new());
    apply(&plan).tables
}

/// Whether a connection's first packet is let through from one interface to another.
fn passes(tables: &Tables, iif: &str, from: &str, oif: &str, to: &str) -> bool {
    passes_as(ct_state::NEW, tables, [iif, from, oif, to])
}

fn passes_as(state: u32, tables: &Tables, [iif, from, oif, to]: [&str; 4]) -> bool {
    let ip = |text: &str| text.parse().expect("an address");
    let packet = Packet::new(ip(from), ip(to), Protocol::Udp, 53).expect("one family");
    let elsewhere = |_| AddressType::Unicast;
    let mut context = Context::new(packet, &elsewhere);
    (context.iifname, context.oifname) = (Some(iif), Some(oif));
    context.ct_state = state;
    let branches = evaluate(tables, Hook::Forward, &context);
    branches.iter().all(|branch| branch.end == End::Accepted)
}

fn interface(pod: &str) -> String {
    host_interface("default", pod).to_string()
}

fn attachment(id: &str, pod: Option<&str>, interface: &str, address: &str) -> Attachment {
    Attachment {
        id: id.to_owned(),
        pod: pod.map(|name| (ObjectName::new("default", name), None)),
        interface: interface.to_owned(),
        first: id.ends_with("/eth0"),
        addresses: vec![address.parse().expect("an address")],
        mac: None,
        port_mappings: Vec::new(),
    }
}

#[test]
fn only_known_pods_exchange_packets_with_others() {
    let tables = tables(&cluster(DUAL));
    let (client, web, new) = (interface("client"), interface("web-1"), interface("new"));
    let (client, web, new) = (client.as_str(), web.as_str(), new.as_str());
    // From which interface and address, to which; whether it passes.
    let table = [
        (client, "10.244.1.2", web, "10.244.1.3", true),
        (client, "fd00:10:244:1::2", web, "fd00:10:244:1::3", true),
        (client, "10.244.1.2", "eth0", "192.0.2.1", true),
        ("eth0", "192.0.2.1", client, "10.244.1.2", true),
        (client, "10.244.1.2", "pf-vxlan", "10.244.3.2", true),
        (
            "pf-vxlan",
            "fd00:10:244:3::2",
            client,
            "fd00:10:244:1::2",
            true,
        ),
        ("eth0", "10.244.2.2", "pf-vxlan", "10.244.3.2", true),
        // Itself, through its Service.
        (web, "10.244.1.3", web, "10.244.1.3", true),
        // A new pod is nobody's sender and nobody's receiver.
        (new, "10.244.1.9", web, "10.244.1.3", false),
        (new, "10.244.1.9", "eth0", "192.0.2.1", false),
        (new, "10.244.1.9", "pf-vxlan", "10.244.3.2", false),
        (new, "fd00:10:244:1::9", web, "fd00:10:244:1::3", false),
        (web, "10.244.1.3", new, "10.244.1.9", false),
        ("eth0", "192.0.2.1", new, "10.244.1.9", false),
        (
            "pf-vxlan",
            "fd00:10:244:3::2",
            new,
            "fd00:10:244:1::9",
            false,
        ),
        // A known pod's address is its own alone, and its own the only one it has.
        (new, "10.244.1.2", web, "10.244.1.3", false),
        (client, "10.244.1.3", "eth0", "192.0.2.1", false),
        (
            client,
            "fd00:10:244:1::3",
            "eth0",
            "fd00:10:244:2::2",
            false,
        ),
    ];
    for (iif, from, oif, to, wanted) in table {
        let found = passes(&tables, iif, from, oif, to);
        assert_eq!(found, wanted, "{from} by {iif} to {to} by {oif}");
    }
}

/// What is not of a connection is looked up; of what is, only who sends IPv6, where no `rp_filter` looks.
#[test]
fn what_belongs_to_a_connection_was_let_through_before() {
    let tables = tables(&cluster(DUAL));
    let (client, new) = (interface("client"), interface("new"));
    let v4 = [new.as_str(), "10.244.1.9", "eth0", "192.0.2.1"];
    let borrowed = [client.as_str(), "fd00:10:244:1::3", "eth0", "2001:db8::1"];
    let answered = ["eth0", "2001:db8::1", new.as_str(), "fd00:10:244:1::9"];
    for (state, wanted) in [
        (ct_state::ESTABLISHED, [true, false, true]),
        (ct_state::RELATED, [true, false, true]),
        (ct_state::NEW, [false; 3]),
        (ct_state::INVALID, [false; 3]),
        (ct_state::UNTRACKED, [false; 3]),
    ] {
        let found = [v4, borrowed, answered].map(|way| passes_as(state, &tables, way));
        assert_eq!(found, wanted, "ct state {state}");
    }
}

#[test]
fn a_card_that_is_called_like_a_pods_interface_is_left_alone() {
    let text = DUAL.replace("gateway=", "interface=pf0hpf gateway=");
    let tables = tables(&cluster(&text));
    assert!(passes(&tables, "pf0hpf", "192.0.2.1", "eth1", "192.0.2.2"));
    assert!(passes(&tables, "eth1", "192.0.2.2", "pf0hpf", "192.0.2.1"));
    let pod = interface("stranger");
    assert!(!passes(&tables, &pod, "10.244.1.77", "pf0hpf", "192.0.2.1"));
}

#[test]
fn a_card_that_carries_no_address_of_the_node_is_left_alone_too() {
    let mut cluster = cluster(DUAL);
    let pod = interface("stranger");
    let node = cluster.nodes.get_mut("node-1").unwrap();
    // Whatever is reported, what is called exactly as a pod's interface is one.
    node.underlay.as_mut().unwrap().cards = vec!["pf0vf1".to_owned(), pod.clone()];
    let tables = tables(&cluster);
    assert!(passes(&tables, "pf0vf1", "192.0.2.1", "eth1", "192.0.2.2"));
    assert!(passes(&tables, "eth1", "192.0.2.2", "pf0vf1", "192.0.2.1"));
    assert!(!passes(&tables, "pf0vf2", "192.0.2.1", "eth1", "192.0.2.2"));
    assert!(!passes(&tables, &pod, "10.244.1.77", "eth0", "192.0.2.1"));
}

#[test]
fn without_an_agent_nobody_is_known() {
    let tables: Tables = nobody_known().map(|table| (table.key(), table)).into();
    let wanted = "\
table ip parfait {
	set known_pods {
		typeof iifname . ip saddr
	}

	chain isolation {
		type filter hook forward priority filter - 10; policy accept;
		ct state ! established,related iifname \"pf*\" iifname != \"pf-vxlan\" iifname . ip saddr != @known_pods drop comment \"Parfait isolation\"
		ct state ! established,related oifname \"pf*\" oifname != \"pf-vxlan\" oifname . ip daddr != @known_pods drop comment \"Parfait isolation\"
	}
}
";
    assert!(
        render::ruleset(&tables).starts_with(wanted),
        "{}",
        render::ruleset(&tables)
    );
    let pod = interface("web-1");
    for (own, other) in [
        ("10.244.1.3", "192.0.2.1"),
        ("fd00:10:244:1::3", "2001:db8::1"),
    ] {
        assert!(!passes(&tables, &pod, own, "eth0", other));
        assert!(!passes(&tables, "eth0", other, &pod, own));
    }
}

#[test]
fn the_agents_rules_are_those_of_the_plugin_and_more() {
    let planned = tables(&cluster("node node-1 pods=10.244.1.0/24"));
    for table in nobody_known() {
        let planned = &planned[&table.key()];
        for (name, set) in &table.sets {
            assert_eq!(&planned.sets[name], set);
        }
        for (name, chain) in &table.chains {
            assert_eq!(&planned.chains[name], chain);
        }
    }
}

#[test]
fn a_pod_is_known_by_its_attachment_before_the_api_tells_its_address() {
    let mut snapshot = clusters(&[DUAL, "pod new on=node-1 phase=Pending"]);
    let new = interface("new");
    snapshot.attach(
        "node-1",
        [
            attachment("c1/eth0", Some("new"), &new, "10.244.1.9"),
            attachment("c1/net1", Some("new"), "pf00000000000a", "10.244.1.10"),
            attachment("c2/eth0", Some("nobody"), "pf00000000000b", "10.244.1.11"),
            attachment("c3/eth0", None, "pf00000000000c", "10.244.1.12"),
        ],
    );
    let plan = parfait_internet::plan(&snapshot, "node-1", &Paths::new());
    let lines = |known: &KnownPods| {
        let lines = known.iter().map(|((interface, address), origin)| {
            let name = if *interface == host_interface("default", "new") {
                "pf-new".to_owned()
            } else {
                interface.to_string()
            };
            format!("{name} {address} {origin}")
        });
        lines.collect::<Vec<_>>()
    };
    let known = lines(&plan.known_pods.expect("pods are isolated"));
    let new: Vec<_> = known
        .iter()
        .filter(|line| {
            let address = line.split(' ').nth(1).unwrap_or_default();
            ["10.244.1.9", "10.244.1.10", "10.244.1.11", "10.244.1.12"].contains(&address)
        })
        .map(String::as_str)
        .collect();
    let wanted = [
        "pf00000000000a 10.244.1.10 Pod default/new",
        "pf00000000000c 10.244.1.12 Parfait container c3/eth0",
        "pf-new 10.244.1.9 Pod default/new",
    ];
    assert_eq!(new.len(), wanted.len(), "{new:?}");
    for line in wanted {
        assert!(new.contains(&line), "{line} is not in {new:?}");
    }
}

#[test]
fn who_asks_for_it_gets_no_isolation() {
    let tables = tables(&clusters(&[
        DUAL,
        "config clusterCIDRs=10.244.0.0/16 podIsolation=none",
    ]));
    assert!(tables.values().all(|table| {
        !table.sets.contains_key("known_pods") && !table.chains.contains_key("isolation")
    }));
    assert!(passes(
        &tables,
        "pf00000000000a",
        "10.244.1.9",
        "eth0",
        "192.0.2.1"
    ));
}
