//! What the transport layer wants of a node, as `nft` would print it, for Services of all sorts; and
//! every kind of difference that [`parfait_transport::prove`] must find.

#[path = "../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;

use fixture::{THREE, cluster, clusters};
use parfait_cluster::{Key, ObjectName, Snapshot};
use parfait_linux::nft::{
    Data, Element, Family as TableFamily, Rule, Statement, Table, Tables, Value, Verdict, render,
};
use parfait_packet::{Packet, Protocol, Reason};
use parfait_transport::{Plan, apply, plan, prove, replan};

const WEB: &str = "service web ip=10.96.0.20 ports=http:80/TCP>8080";
const ONE: &str = "slice web-a of=web ports=http:8080/TCP endpoints=10.244.1.3@node-1/web-1";
const ALL: &str = "slice web-a of=web ports=http:8080/TCP \
    endpoints=10.244.1.3@node-1/web-1,10.244.2.2@node-2/web-2,10.244.3.2@node-3/web-3";

fn table(snapshot: &Snapshot, node: &str, family: TableFamily) -> Table {
    let tables = apply(&plan(snapshot, node));
    let found = tables.into_iter().find(|table| table.family == family);
    found.expect("one of each family")
}

/// What is filled whatever Services there are.
const COMMON: [&str; 9] = [
    "service_choices",
    "restricted_choices",
    "local_choices",
    "hairpin",
    "service_networks",
    "service_clients",
    "service_pods",
    "node_addresses",
    "node_sources",
];

/// The maps and sets of `ip parfait` on node-1, an element a line, without [`COMMON`].
fn elements(snapshot: &Snapshot) -> Vec<String> {
    let table = table(snapshot, "node-1", TableFamily::Ip);
    let of_services = table
        .sets
        .iter()
        .filter(|(name, _)| !COMMON.contains(&name.as_str()));
    let lines = of_services.flat_map(|(name, set)| {
        let print = move |(key, element): (&Vec<Value>, &Element)| {
            let plain = Element {
                origin: None,
                ..element.clone()
            };
            format!("{name}: {}", render::element(&set.key, key, &plain))
        };
        set.elements.iter().map(print)
    });
    lines.collect()
}

fn notes(plan: &Plan) -> Vec<String> {
    plan.notes().iter().map(ToString::to_string).collect()
}

/// What node-1 holds for a Service with three endpoints.
const RULESET: &str = "\
table ip parfait {
	map affinity {
		typeof ip saddr . ip daddr . meta l4proto . th dport : ip daddr . th dport
		size 65536
		flags dynamic,timeout
		timeout 3h
	}

	set cluster_ips {
		typeof ip daddr
		elements = { 10.96.0.20 comment \"Service default/web spec.clusterIPs\" }
	}

	map endpoints_3 {
		typeof ip daddr . meta l4proto . th dport . numgen random mod 3 : ip daddr . th dport
		elements = { 10.96.0.20 . tcp . 80 . 0 comment \"EndpointSlice default/web-a\" : 10.244.1.3 . 8080,
			     10.96.0.20 . tcp . 80 . 1 comment \"EndpointSlice default/web-a\" : 10.244.2.2 . 8080,
			     10.96.0.20 . tcp . 80 . 2 comment \"EndpointSlice default/web-a\" : 10.244.3.2 . 8080 }
	}

	set hairpin {
		typeof ip saddr . ip daddr
		elements = { 10.244.1.2 . 10.244.1.2 comment \"Pod default/client\",
			     10.244.1.3 . 10.244.1.3 comment \"Pod default/web-1\" }
	}

	map inside_services {
		typeof ip daddr . meta l4proto . th dport : meta priority
	}

	map local_choices {
		typeof meta priority : verdict
		elements = { 0:3 comment \"Parfait Services\" : goto n3 }
	}

	set node_addresses {
		typeof ip daddr
		elements = { 192.168.77.11 comment \"Parfait node addresses\" }
	}

	set node_ports_sctp {
		typeof th dport
	}

	set node_ports_tcp {
		typeof th dport
	}

	set node_ports_udp {
		typeof th dport
	}

	set node_sources {
		typeof ip daddr
		elements = { 10.244.1.1 comment \"Parfait node addresses\", 192.168.77.11 comment \"Parfait node addresses\" }
	}

	set outside_ips {
		typeof ip daddr
	}

	map outside_services {
		typeof ip daddr . meta l4proto . th dport : meta priority
	}

	set refused {
		typeof ip daddr . meta l4proto . th dport
	}

	map restricted_choices {
		typeof meta priority : verdict
		elements = { 0:3 comment \"Parfait Services\" : goto n3, f:2 comment \"Parfait Services\" : goto local }
	}

	map restricted_services {
		typeof ip daddr . meta l4proto . th dport : meta priority
	}

	map service_choices {
		typeof meta priority : verdict
		elements = { 0:3 comment \"Parfait Services\" : goto n3, f:1 comment \"Parfait Services\" : goto restricted, f:2 comment \"Parfait Services\" : goto local }
	}

	set service_clients {
		typeof ip daddr
		flags interval
		elements = { 10.244.0.0/16 comment \"ConfigMap kube-system/parfait clusterCIDRs\" }
	}

	set service_networks {
		typeof ip daddr
		flags interval
		elements = { 10.96.0.0/16 comment \"ConfigMap kube-system/parfait serviceCIDRs\" }
	}

	set service_pods {
		typeof ip daddr
		flags interval
		elements = { 10.244.1.0/24 comment \"Node node-1 spec.podCIDRs\" }
	}

	map services {
		typeof ip daddr . meta l4proto . th dport : meta priority
		elements = { 10.96.0.20 . tcp . 80 comment \"Service default/web spec.ports[http]\" : 0:3 }
	}

	set source_ranges {
		typeof ip daddr . meta l4proto . th dport . ip saddr
		flags interval
	}

	chain local {
		ip saddr @service_clients meta priority set ip daddr . meta l4proto . th dport map @inside_services meta priority vmap @local_choices comment \"Parfait Services\"
		fib saddr type local meta priority set ip daddr . meta l4proto . th dport map @inside_services meta priority vmap @local_choices comment \"Parfait Services\"
		meta priority set ip daddr . meta l4proto . th dport map @outside_services meta priority vmap @local_choices comment \"Parfait Services\"
		drop comment \"Parfait externalTrafficPolicy: Local\"
	}

	chain n3 {
		meta priority set none dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 3 map @endpoints_3 comment \"Parfait Services\"
	}

	chain refusal {
		reject with tcp reset comment \"Parfait Services without endpoints\"
		reject comment \"Parfait Services without endpoints\"
	}

	chain refuse {
		ip daddr @cluster_ips goto refusal comment \"Parfait Services without endpoints\"
		ip daddr @service_networks oifname != \"lo\" goto refusal comment \"Parfait addresses without a Service\"
		goto refuse-ports comment \"Parfait Services without endpoints\"
	}

	chain refuse-forward {
		type filter hook forward priority filter; policy accept;
		ct state new goto refuse comment \"Parfait Services without endpoints\"
		ct state invalid meta l4proto tcp goto strays comment \"Parfait packets of no connection\"
	}

	chain refuse-input {
		type filter hook input priority filter; policy accept;
		ct state new goto refuse-ports comment \"Parfait Services without endpoints\"
	}

	chain refuse-output {
		type filter hook output priority filter; policy accept;
		ct state new goto refuse comment \"Parfait Services without endpoints\"
	}

	chain refuse-ports {
		ip daddr . meta l4proto . th dport @refused goto refusal comment \"Parfait Services without endpoints\"
	}

	chain restricted {
		ip daddr . meta l4proto . th dport . ip saddr != @source_ranges drop comment \"Parfait loadBalancerSourceRanges\"
		meta priority set ip daddr . meta l4proto . th dport map @restricted_services meta priority vmap @restricted_choices comment \"Parfait Services\"
	}

	chain services-output {
		type nat hook output priority -100; policy accept;
		meta priority set ip daddr . meta l4proto . th dport map @services meta priority vmap @service_choices comment \"Parfait Services\"
	}

	chain services-postrouting {
		type nat hook postrouting priority srcnat - 1; policy accept;
		ct status dnat ip saddr . ip daddr @hairpin masquerade comment \"Parfait hairpin\"
		ct status dnat ct original ip daddr @cluster_ips ip saddr != @service_pods fib saddr type != local ip daddr != @service_pods masquerade fully-random comment \"Parfait clients outside the cluster\"
		ct status dnat ct original ip daddr @outside_ips ip saddr != @service_pods fib saddr type != local ip daddr != @service_pods masquerade fully-random comment \"Parfait clients of another node\"
		ct status dnat meta l4proto tcp ct original ip daddr @node_addresses ct original proto-dst @node_ports_tcp ip saddr != @service_pods fib saddr type != local ip daddr != @service_pods masquerade fully-random comment \"Parfait clients of another node\"
		ct status dnat meta l4proto udp ct original ip daddr @node_addresses ct original proto-dst @node_ports_udp ip saddr != @service_pods fib saddr type != local ip daddr != @service_pods masquerade fully-random comment \"Parfait clients of another node\"
		ct status dnat meta l4proto sctp ct original ip daddr @node_addresses ct original proto-dst @node_ports_sctp ip saddr != @service_pods fib saddr type != local ip daddr != @service_pods masquerade fully-random comment \"Parfait clients of another node\"
		ct status dnat ip saddr != @service_pods ip saddr != @node_sources fib saddr type local ip daddr != @service_pods oifname != \"lo\" masquerade fully-random comment \"Parfait the node's other addresses\"
	}

	chain services-prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		meta priority set ip daddr . meta l4proto . th dport map @services meta priority vmap @service_choices comment \"Parfait Services\"
	}

	chain strays {
		ip saddr @service_pods drop comment \"Parfait packets of no connection\"
		ip daddr @service_pods drop comment \"Parfait packets of no connection\"
	}
}";

#[test]
fn three_endpoints_as_nft_prints_them() {
    let snapshot = clusters(&[THREE, WEB, ALL]);
    let table = table(&snapshot, "node-1", TableFamily::Ip);
    assert_eq!(table.to_string(), RULESET);
}

#[test]
fn a_range_that_nodes_or_pods_have_a_part_in_is_not_refused() {
    let table = [
        ("10.96.0.0/16", "10.244.1.0/24", "192.168.77.11/24", true),
        ("10.96.0.0/16", "10.96.1.0/24", "192.168.77.11/24", false),
        ("10.96.1.0/28", "10.96.1.0/24", "192.168.77.11/24", false),
        (
            "192.168.77.0/24",
            "10.244.1.0/24",
            "192.168.77.11/24",
            false,
        ),
    ];
    for (services, pods, underlay, refused) in table {
        let text =
            format!("config serviceCIDRs={services}\nnode node-1 pods={pods} underlay={underlay}");
        let plan = plan(&cluster(&text), "node-1");
        assert_eq!(plan.common.networks.len(), usize::from(refused), "{text}");
        let wanted = format!(
            "ConfigMap kube-system/parfait serviceCIDRs: {services} holds addresses of Node node-1 or its \
             pods; what no Service has there is not refused"
        );
        let wanted = if refused { vec![] } else { vec![wanted] };
        assert_eq!(notes(&plan), wanted, "{text}");
    }
}

#[test]
fn services_without_an_address_of_a_family_leave_its_table_empty() {
    let snapshot = clusters(&[THREE, WEB, ALL]);
    let empty = table(&clusters(&[THREE]), "node-1", TableFamily::Ip6);
    let table = table(&snapshot, "node-1", TableFamily::Ip6);
    assert!(
        (table.sets.iter())
            .all(|(name, set)| name.ends_with("_choices") || set.elements.is_empty()),
        "{table}"
    );
    assert_eq!(table, empty);
}

#[test]
fn one_endpoint_is_chosen_of_one() {
    let wanted = [
        "cluster_ips: 10.96.0.20",
        "endpoints_1: 10.96.0.20 . tcp . 80 . 0 : 10.244.1.3 . 8080",
        "services: 10.96.0.20 . tcp . 80 : 0:1",
    ];
    assert_eq!(elements(&clusters(&[THREE, WEB, ONE])), wanted);
}

#[test]
fn no_endpoints_leave_only_the_address_to_refuse() {
    assert_eq!(
        elements(&clusters(&[THREE, WEB])),
        ["cluster_ips: 10.96.0.20"]
    );
}

#[test]
fn services_with_as_many_endpoints_share_a_chain_and_a_map() {
    let api = "service api ip=10.96.0.30 ports=9000/TCP>9000
               slice api-a of=api ports=9000/TCP endpoints=10.244.2.2@node-2/web-2";
    let snapshot = clusters(&[THREE, WEB, ONE, api]);
    let wanted = [
        "cluster_ips: 10.96.0.20",
        "cluster_ips: 10.96.0.30",
        "endpoints_1: 10.96.0.20 . tcp . 80 . 0 : 10.244.1.3 . 8080",
        "endpoints_1: 10.96.0.30 . tcp . 9000 . 0 : 10.244.2.2 . 9000",
        "services: 10.96.0.20 . tcp . 80 : 0:1",
        "services: 10.96.0.30 . tcp . 9000 : 0:1",
    ];
    assert_eq!(elements(&snapshot), wanted);
    let table = table(&snapshot, "node-1", TableFamily::Ip);
    let choices = table.chains.values().filter(|chain| {
        let mut statements = chain.rules.iter().flat_map(|rule| &rule.statements);
        statements.any(|statement| matches!(statement, Statement::DnatMap { .. }))
    });
    assert_eq!(choices.count(), 1);
}

#[test]
fn headless_services_and_aliases_are_names_only() {
    let snapshot = clusters(&[
        THREE,
        "service db headless ports=5432/TCP
         service out external=db.example.com ports=5432/TCP externalIPs=203.0.113.7
         slice out-a of=out ports=5432/TCP endpoints=10.244.1.3@node-1/web-1
         slice db-a of=db ports=5432/TCP endpoints=10.244.1.3@node-1/web-1",
    ]);
    assert_eq!(elements(&snapshot), Vec::<String>::new());
    assert!(notes(&plan(&snapshot, "node-1")).is_empty());
}

/// As Kubernetes' tests have it: "should implement service.kubernetes.io/service-proxy-name", and `headless`.
#[test]
fn a_label_leaves_a_service_to_others_while_it_is_there() {
    for label in ["service-proxy-name:other", "headless:"] {
        let labelled = format!(
            "service web ip=10.96.0.20 ports=http:80/TCP>8080@30080 labels=service.kubernetes.io/{label}"
        );
        let of_others = clusters(&[THREE, &labelled, ALL]);
        let ours = clusters(&[THREE, WEB, ALL]);
        let mut plan = plan(&of_others, "node-1");
        assert_eq!(elements(&of_others), Vec::<String>::new());
        assert!(
            notes(&plan).is_empty(),
            "its slices are not without a Service"
        );
        let key = Key::Service(ObjectName::new("default", "web"));
        for snapshot in [&ours, &of_others] {
            replan(&mut plan, snapshot, &[key.clone()].into());
            assert_eq!(plan, parfait_transport::plan(snapshot, "node-1"));
        }
    }
}

#[test]
fn what_the_agent_answers_itself_is_not_translated() {
    let snapshot = clusters(&[
        THREE,
        "service kube-system/kube-dns ip=10.96.0.10 ports=dns:53/UDP servedByNode
         slice kube-system/kube-dns-a of=kube-dns ports=dns:53/UDP endpoints=10.244.1.3@node-1",
    ]);
    assert_eq!(elements(&snapshot), Vec::<String>::new());
}

#[test]
fn the_same_port_over_two_protocols_is_two_frontends() {
    let snapshot = clusters(&[
        THREE,
        "service dns ip=10.96.0.53 ports=dns:53/UDP>5353,dns-tcp:53/TCP>5354
         slice dns-a of=dns ports=dns:5353/UDP,dns-tcp:5354/TCP endpoints=10.244.2.2@node-2/web-2",
    ]);
    let wanted = [
        "cluster_ips: 10.96.0.53",
        "endpoints_1: 10.96.0.53 . tcp . 53 . 0 : 10.244.2.2 . 5354",
        "endpoints_1: 10.96.0.53 . udp . 53 . 0 : 10.244.2.2 . 5353",
        "services: 10.96.0.53 . tcp . 53 : 0:1",
        "services: 10.96.0.53 . udp . 53 : 0:1",
    ];
    assert_eq!(elements(&snapshot), wanted);
}

#[test]
fn an_address_that_two_services_claim_goes_to_the_first_with_a_note() {
    let snapshot = clusters(&[THREE, WEB, ONE, "service zap ip=10.96.0.20 ports=81/TCP"]);
    let plan = plan(&snapshot, "node-1");
    assert_eq!(
        notes(&plan),
        [
            "Service default/zap spec.clusterIPs: 10.96.0.20 already belongs to Service default/web; \
             it is left out here"
        ]
    );
    assert_eq!(frontends(&plan), 1);
}

/// How many addresses and ports lead to a Service.
fn frontends(plan: &Plan) -> usize {
    let services = plan.services.values();
    services.map(|service| service.held().count()).sum()
}

/// The endpoints that stand behind web, and those passed over with the reason.
fn behind(slices: &str) -> (Vec<String>, Vec<String>) {
    let plan = plan(&clusters(&[THREE, WEB, slices]), "node-1");
    let services = plan.services.values();
    let mut behind = services.flat_map(|service| service.frontends.values());
    let behind = behind.next().expect("a frontend");
    let pool = &behind.inside;
    let backends = pool.backends.iter().map(|b| {
        let (address, port) = b.socket();
        format!("{address}:{port}")
    });
    let passed = behind
        .passed_over(pool, &plan.here)
        .into_iter()
        .map(|(b, why)| format!("{} {}", b.endpoint.address, why.what()));
    (backends.collect(), passed.collect())
}

#[test]
fn candidates_are_ready_or_else_serving_while_they_terminate() {
    let slice =
        |endpoints: &str| format!("slice web-a of=web ports=http:8080/TCP endpoints={endpoints}");
    let table: [(&str, &[&str], &[&str]); 6] = [
        (
            "10.244.1.3,10.244.2.2!notready",
            &["10.244.1.3:8080"],
            &["10.244.2.2 not ready"],
        ),
        (
            "10.244.1.3,10.244.2.2!serving",
            &["10.244.1.3:8080"],
            &["10.244.2.2 terminating"],
        ),
        // KEP-1669: better a server that is about to go than none.
        (
            "10.244.1.3!notready,10.244.2.2!serving",
            &["10.244.2.2:8080"],
            &["10.244.1.3 not ready"],
        ),
        (
            "10.244.1.3!terminating,10.244.2.2!serving",
            &["10.244.2.2:8080"],
            &["10.244.1.3 terminating"],
        ),
        (
            "10.244.1.3!terminating,10.244.2.2!notready",
            &[],
            &["10.244.1.3 terminating", "10.244.2.2 not ready"],
        ),
        (
            "10.244.2.2,10.244.1.3",
            &["10.244.1.3:8080", "10.244.2.2:8080"],
            &[],
        ),
    ];
    for (endpoints, backends, passed_over) in table {
        let found = behind(&slice(endpoints));
        let wanted = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            found,
            (wanted(backends), wanted(passed_over)),
            "{endpoints}"
        );
    }
}

#[test]
fn an_endpoint_in_two_slices_counts_once() {
    let slices = "slice web-a of=web ports=http:8080/TCP endpoints=10.244.1.3@node-1/web-1
                  slice web-b of=web ports=http:8080/TCP endpoints=10.244.1.3@node-1/web-1,10.244.2.2";
    assert_eq!(behind(slices).0, ["10.244.1.3:8080", "10.244.2.2:8080"]);
}

#[test]
fn a_ready_endpoint_in_one_slice_is_not_passed_over_for_another() {
    let slices = "slice web-a of=web ports=http:8080/TCP endpoints=10.244.1.3@node-1/web-1
                  slice web-b of=web ports=http:8080/TCP endpoints=10.244.1.3@node-1/web-1!notready";
    assert_eq!(behind(slices), (vec!["10.244.1.3:8080".to_owned()], vec![]));
}

#[test]
fn slices_may_have_ports_of_their_own() {
    // A target port that is a name may be another number in each pod, hence in each slice.
    let slices = "slice web-a of=web ports=http:8080/TCP endpoints=10.244.1.3
                  slice web-b of=web ports=http:9090/TCP endpoints=10.244.2.2
                  slice web-c of=web ports=other:1/TCP endpoints=10.244.3.2";
    assert_eq!(behind(slices).0, ["10.244.1.3:8080", "10.244.2.2:9090"]);
}

#[test]
fn slices_of_another_namespace_or_service_are_not_ours() {
    let slices = "slice other/web-a of=web ports=http:8080/TCP endpoints=10.244.1.3
                  slice web-b of=webs ports=http:8080/TCP endpoints=10.244.2.2";
    assert!(behind(slices).0.is_empty());
}

#[test]
fn publish_not_ready_is_said_by_the_slice() {
    // The EndpointSlice controller writes ready=true for such a Service: nothing to do here.
    let snapshot = clusters(&[
        THREE,
        "service web ip=10.96.0.20 ports=http:80/TCP>8080 publishNotReady",
        ONE,
    ]);
    assert_eq!(frontends(&plan(&snapshot, "node-1")), 1);
    let web = snapshot.services.values().next().expect("web");
    assert!(web.publish_not_ready);
}

#[test]
fn hairpins_are_of_this_nodes_pods() {
    let snapshot = clusters(&[THREE, WEB, ALL]);
    for (node, own) in [
        ("node-1", vec!["10.244.1.2", "10.244.1.3"]),
        ("node-2", vec!["10.244.2.2"]),
        ("node-3", vec!["10.244.3.2"]),
    ] {
        let table = table(&snapshot, node, TableFamily::Ip);
        let keys: Vec<_> = table.sets["hairpin"].elements.keys().cloned().collect();
        let twice = |ip: &str| vec![Value::Address(ip.parse().expect("an address")); 2];
        assert_eq!(keys, own.into_iter().map(twice).collect::<Vec<_>>());
    }
}

#[test]
fn a_packet_is_explained_by_the_service_it_meets() {
    let others = "service empty ip=10.96.0.21 ports=80/TCP
                  service dns ip=10.96.0.10 ports=53/UDP servedByNode";
    let snapshot = clusters(&[THREE, WEB, ALL, others]);
    let plan = plan(&snapshot, "node-1");
    let explain = |to: &str, port| {
        let source = "10.244.1.2".parse().expect("an address");
        let packet = Packet::new(source, to.parse().expect("an address"), Protocol::Tcp, port);
        let explained = parfait_transport::explain(&plan, &packet?, false)?;
        Some((
            explained.origin.to_string(),
            explained.candidates.len(),
            explained.refused,
        ))
    };
    let text = str::to_owned;
    assert_eq!(
        explain("10.96.0.20", 80),
        Some((text("Service default/web spec.ports[http]"), 3, None))
    );
    assert_eq!(
        explain("10.96.0.20", 81),
        Some((
            text("Service default/web spec.ports"),
            0,
            Some(Reason::NoSuchServicePort)
        ))
    );
    assert_eq!(
        explain("10.96.0.21", 80),
        Some((
            text("Service default/empty spec.ports[80]"),
            0,
            Some(Reason::NoEndpoints)
        ))
    );
    assert_eq!(
        explain("10.96.9.9", 80),
        Some((
            text("ConfigMap kube-system/parfait serviceCIDRs"),
            0,
            Some(Reason::NoService)
        ))
    );
    assert_eq!(explain("10.96.0.10", 53), None, "the agent answers there");
    assert_eq!(explain("10.244.2.2", 8080), None);
}

#[test]
fn planning_twice_gives_the_same() {
    let snapshot = clusters(&[THREE, WEB, ALL]);
    assert_eq!(plan(&snapshot, "node-1"), plan(&snapshot, "node-1"));
    let print = || {
        let tables = apply(&plan(&snapshot, "node-1"));
        tables.iter().map(ToString::to_string).collect::<String>()
    };
    assert_eq!(print(), print());
}

/// What `prove` says after the kernel was changed behind the agent's back.
fn findings(change: impl FnOnce(&mut Table)) -> Vec<String> {
    let desired = apply(&plan(&clusters(&[THREE, WEB, ALL]), "node-1"));
    let key = |table: &Table| (table.family, table.name.clone());
    let mut observed: Tables = desired
        .iter()
        .map(|table| (key(table), table.clone()))
        .collect();
    change(
        observed
            .get_mut(&(TableFamily::Ip, "parfait".to_owned()))
            .expect("planned"),
    );
    prove(&desired, &observed)
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn nothing_is_found_where_nothing_differs() {
    assert_eq!(findings(|_| {}), Vec::<String>::new());
    let of_others = findings(|table| {
        // Another layer's parts of the same table.
        let masquerade = table.chains["refuse-input"].clone();
        table.chains.insert("source_nat".to_owned(), masquerade);
        let set = table.sets["cluster_ips"].clone();
        table.sets.insert("own_pods".to_owned(), set);
    });
    assert_eq!(of_others, Vec::<String>::new());
}

#[test]
fn a_missing_element_is_found_with_its_service() {
    let found = findings(|table| {
        table
            .sets
            .get_mut("services")
            .expect("planned")
            .elements
            .clear();
    });
    assert_eq!(found.len(), 1);
    assert!(
        found[0].starts_with("transport layer: missing: element @services 10.96.0.20 . tcp . 80"),
        "{found:?}"
    );
    assert!(
        found[0].ends_with("[Service default/web spec.ports[http]] (PF351)"),
        "{found:?}"
    );
}

#[test]
fn an_element_that_leads_elsewhere_is_found() {
    let found = findings(|table| {
        let map = table.sets.get_mut("endpoints_3").expect("planned");
        let element = map.elements.values_mut().next().expect("three");
        element.data = Data::Target("10.244.9.9".parse().expect("an address"), 8080);
    });
    assert_eq!(found.len(), 1);
    assert!(
        found[0].contains("different: element @endpoints_3 10.96.0.20 . tcp . 80 . 0"),
        "{found:?}"
    );
    assert!(found[0].contains("10.244.9.9 . 8080"), "{found:?}");
    assert!(
        found[0].ends_with("[EndpointSlice default/web-a] (PF351)"),
        "{found:?}"
    );
}

#[test]
fn an_extra_element_is_found() {
    let found = findings(|table| {
        let set = table.sets.get_mut("cluster_ips").expect("planned");
        let stray = Value::Address("10.96.0.99".parse().expect("an address"));
        let element = Element {
            data: Data::None,
            origin: None,
        };
        set.elements.insert(vec![stray], element);
    });
    assert_eq!(
        found,
        ["transport layer: extra: element @cluster_ips 10.96.0.99 (PF351)"]
    );
}

#[test]
fn a_changed_a_missing_and_an_extra_rule_are_found() {
    let accept = || Rule {
        statements: vec![Statement::Verdict(Verdict::Accept)],
        origin: None,
    };
    let changed =
        findings(|table| table.chains.get_mut("n3").expect("planned").rules = vec![accept()]);
    assert_eq!(changed.len(), 1);
    assert!(
        changed[0].contains("different: chain n3: ")
            && changed[0].contains("(found chain n3: accept)"),
        "{changed:?}"
    );
    let missing = findings(|table| {
        table
            .chains
            .get_mut("services-output")
            .expect("planned")
            .rules
            .clear()
    });
    assert_eq!(missing.len(), 1);
    assert!(
        missing[0].contains("missing: chain services-output: "),
        "{missing:?}"
    );
    let extra = findings(|table| {
        table
            .chains
            .get_mut("n3")
            .expect("planned")
            .rules
            .push(accept())
    });
    assert_eq!(extra, ["transport layer: extra: chain n3: accept (PF351)"]);
}

#[test]
fn left_over_chains_and_maps_are_found() {
    let found = findings(|table| {
        let chain = table.chains["n3"].clone();
        table.chains.insert("n7".to_owned(), chain);
        let map = table.sets["endpoints_3"].clone();
        table.sets.insert("endpoints_7".to_owned(), map);
    });
    assert_eq!(
        found,
        [
            "transport layer: extra: set endpoints_7 (PF351)",
            "transport layer: extra: chain n7 (PF351)"
        ]
    );
}

#[test]
fn a_missing_table_is_found() {
    let desired = apply(&plan(&cluster(THREE), "node-1"));
    let found = prove(&desired, &Tables::new());
    let found: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "transport layer: missing: table ip parfait (PF351)",
            "transport layer: missing: table ip6 parfait (PF351)"
        ]
    );
}
