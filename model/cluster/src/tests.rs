//! Parsing, as tables of YAML-like JSON and what is made of it.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use serde_json::{Value, json};

use super::*;

fn read(object: Parsed<'_>) -> (Option<Object>, Vec<String>) {
    let yaml = |text: &str| serde_json::from_str(text).map_err(|error| error.to_string());
    let (object, notes) = parse(object, &yaml);
    (object, notes.iter().map(ToString::to_string).collect())
}

fn service(value: Value) -> (Option<Object>, Vec<String>) {
    let service: core::Service = serde_json::from_value(value).expect("a Service");
    read(Parsed::Service(&service))
}

fn slice(value: Value) -> (Option<Object>, Vec<String>) {
    let slice: discovery::EndpointSlice = serde_json::from_value(value).expect("a slice");
    read(Parsed::EndpointSlice(&slice))
}

#[test]
fn one_bad_port_leaves_the_other() {
    let (object, notes) = service(json!({
        "metadata": {"name": "web"},
        "spec": {"clusterIP": "10.96.0.20", "ports": [
            {"name": "http", "port": 80, "targetPort": "http"},
            {"name": "bad", "port": 70000},
        ]},
    }));
    let Some(Object::Service(service)) = object else {
        panic!("no Service");
    };
    assert_eq!(service.name, ObjectName::new("default", "web"));
    assert_eq!(service.ports.len(), 1);
    assert_eq!(service.ports[0].target, TargetPort::Name("http".into()));
    assert_eq!(
        notes,
        ["Service default/web spec.ports[bad]: 70000 is not a port (1 to 65535); it is left out"]
    );
}

#[test]
fn a_headless_service_has_no_addresses() {
    let (object, notes) = service(json!({
        "metadata": {"name": "db", "namespace": "shop"},
        "spec": {"clusterIP": "None", "clusterIPs": ["None"]},
    }));
    let Some(Object::Service(service)) = object else {
        panic!("no Service");
    };
    assert!(service.headless && service.cluster_ips.is_empty() && notes.is_empty());
}

#[test]
fn how_a_service_is_reached_from_outside() {
    let (object, notes) = service(json!({
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "type": "LoadBalancer", "clusterIP": "10.96.0.20",
            "externalIPs": ["192.0.2.7", "web.example.org"],
            "loadBalancerSourceRanges": [" 198.51.100.0/24", "everybody"],
            "loadBalancerClass": "parfait.dev/announced",
            "externalTrafficPolicy": "Local", "internalTrafficPolicy": "local",
            "healthCheckNodePort": 31000,
            "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}},
            "trafficDistribution": "PreferClose",
        },
        "status": {"loadBalancer": {"ingress": [
            {"ip": "203.0.113.9"}, {"ip": "203.0.113.10", "ipMode": "Proxy"}, {"hostname": "lb.example.org"},
        ]}},
    }));
    let Some(Object::Service(service)) = object else {
        panic!("no Service");
    };
    let expected = Outside {
        external_ips: vec!["192.0.2.7".parse().unwrap()],
        load_balancer_ips: vec!["203.0.113.9".parse().unwrap()],
        source_ranges: Some(vec!["198.51.100.0/24".parse().unwrap()]),
        load_balancer: Some(Box::new(LoadBalancer {
            wanted: true,
            class: Some("parfait.dev/announced".to_owned()),
            families: vec![parfait_packet::Family::Ipv4],
            held: vec!["203.0.113.9".parse().unwrap()],
            elsewhere: true,
            ..LoadBalancer::default()
        })),
        policy: TrafficPolicy::Local,
        health_check_node_port: Some(31000),
    };
    assert_eq!(service.outside, expected);
    assert_eq!(service.internal_policy, TrafficPolicy::Cluster);
    assert_eq!(service.affinity, Some(10_800));
    assert_eq!(service.distribution, Distribution::SameZone);
    assert_eq!(
        notes,
        [
            "Service shop/web spec.externalIPs: \"web.example.org\" is not an IP address; it is left out",
            "Service shop/web spec.loadBalancerSourceRanges: \"everybody\" is not a CIDR; it is left out",
            "Service shop/web spec.internalTrafficPolicy: \"local\" is neither Cluster nor Local; Cluster is assumed",
            "Service shop/web spec.sessionAffinityConfig.clientIP.timeoutSeconds: 0 s is not 1 to 86400; 10800 s is assumed",
        ]
    );
}

/// `allocateLoadBalancerNodePorts: false` leaves 0; and what a Service of another type has left in its status is nobody's.
#[test]
fn a_node_port_of_zero_is_none_and_only_load_balancers_have_a_status() {
    let of_type = |kind: &str| {
        let (object, notes) = service(json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {
                "type": kind, "clusterIP": "10.96.0.20", "allocateLoadBalancerNodePorts": false,
                "ports": [{"port": 80, "nodePort": 0}],
            },
            "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}]}},
        }));
        let Some(Object::Service(service)) = object else {
            panic!("no Service");
        };
        assert_eq!(notes, Vec::<String>::new());
        assert_eq!(service.ports[0].node_port, None);
        service.outside.load_balancer_ips.len()
    };
    assert_eq!(["LoadBalancer", "NodePort"].map(of_type), [1, 0]);
}

#[test]
fn endpoints_that_would_reach_the_node_itself_are_left_out() {
    let (object, notes) = slice(json!({
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"port": 8080}],
        "endpoints": [
            {"addresses": ["10.244.1.2"]},
            {"addresses": ["127.0.0.1"]},
            {"addresses": ["fd00::1"]},
            {"addresses": ["10.244.1.3"], "conditions": {"ready": false, "serving": true, "terminating": true}},
        ],
    }));
    let Some(Object::EndpointSlice(slice)) = object else {
        panic!("no EndpointSlice");
    };
    let usable: Vec<_> = slice
        .endpoints
        .iter()
        .map(|e| (e.address.to_string(), e.ready, e.serving))
        .collect();
    assert_eq!(
        usable,
        [
            ("10.244.1.2".into(), true, true),
            ("10.244.1.3".into(), false, true)
        ]
    );
    assert_eq!(notes.len(), 2, "{notes:?}");
}

/// The ConfigMap with this configuration.
fn map(text: &str) -> core::ConfigMap {
    let object = serde_json::json!({
        "metadata": {"name": "parfait", "namespace": "kube-system"},
        "data": {Config::KEY: text},
    });
    serde_json::from_value(object).unwrap()
}

#[test]
fn a_bad_configuration_leaves_the_last_good_one() {
    let mut snapshot = Snapshot::default();
    for text in [
        r#"{"routing": "vxlan", "clusterCIDRs": ["10.244.0.0/16"]}"#,
        r#"{"routing": "magic"}"#,
        r#"{"clusterCIDRs": ["10.0.0.0/8"], "serviceCIDRs": ["10.96.0.0/16"]}"#,
        r#"{"unknown": true}"#,
    ] {
        let config = map(text);
        let yaml = |text: &str| serde_json::from_str(text).map_err(|error| error.to_string());
        let (object, notes) = parse(Parsed::ConfigMap(&config), &yaml);
        assert_eq!(object.is_some(), notes.is_empty());
        snapshot.take(Key::Config, object, notes);
    }
    assert_eq!(snapshot.config.routing, Routing::Vxlan);
    assert_eq!(snapshot.notes[&Key::Config].len(), 1);
}

#[test]
fn a_node_leaves_if_it_is_deleted_or_the_autoscaler_says_so() {
    let named = |spec| json!({"metadata": {"name": "node-1"}, "spec": spec});
    let taint = |key: &str| named(json!({"taints": [{"key": key, "effect": "NoSchedule"}]}));
    let deleted = json!({"name": "node-1", "deletionTimestamp": "2026-11-27T07:00:00Z"});
    for (node, leaving) in [
        (named(json!({})), false),
        (taint("node.kubernetes.io/unschedulable"), false),
        (taint("ToBeDeletedByClusterAutoscaler"), true),
        (json!({"metadata": deleted}), true),
    ] {
        let parsed: core::Node = serde_json::from_value(node.clone()).expect("a Node");
        let (object, _) = read(Parsed::Node(&parsed));
        let Some(Object::Node(found)) = object else {
            panic!("{node}");
        };
        assert_eq!(found.leaving, leaving, "{node}");
    }
}

#[test]
fn who_begins_while_the_configuration_cannot_be_read_goes_by_the_one_that_agents_report() {
    let node = |name: &str, report: &str| {
        let report = report.replace('\'', "\"");
        let annotations = [(Underlay::ANNOTATION.to_owned(), report)].into();
        let node = core::Node {
            metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                name: Some(name.to_owned()),
                annotations: Some(annotations),
                ..Default::default()
            },
            ..Default::default()
        };
        parse(Parsed::Node(&node), &|_| Err(String::new()))
    };
    let plain = "{'interface': 'eth0', 'mtu': 1500, 'addresses': []}";
    let read = |snapshot: &mut Snapshot, name: &str, report: &str| {
        let (object, notes) = node(name, report);
        assert_eq!(notes, []);
        snapshot.take(Key::Node(name.to_owned()), object, notes);
    };
    let mut agent = Snapshot::default();
    let broken = |snapshot: &mut Snapshot| {
        let note = Note::new(Config::origin(), "broken");
        snapshot.take(Key::Config, None, vec![note]);
    };
    for name in ["a", "b", "c", "d"] {
        read(&mut agent, name, plain);
    }
    let config = Config {
        routing: Routing::Vxlan,
        ..Config::default()
    };
    agent.insert(Object::Config(config.clone()));
    assert_eq!(agent.config_to_report("a"), None, "the ConfigMap says it");
    broken(&mut agent);
    let reports = ["a", "c", "d"].map(|name| agent.config_to_report(name).is_some());
    assert_eq!(reports, [true, true, false], "not everybody");

    let mut other = Snapshot::default();
    broken(&mut other);
    read(&mut other, "a", plain);
    other.recall();
    let said = |snapshot: &Snapshot| snapshot.notes[&Key::Config][1].to_string();
    assert!(said(&other).ends_with("the defaults are assumed"));
    let mut underlay = other.nodes["a"].underlay.clone().unwrap();
    underlay.config = agent.config_to_report("a");
    let report = serde_json::to_string(&underlay).unwrap();
    read(&mut other, "b", &report);
    other.recall();
    assert_eq!(other.config, config);
    assert!(said(&other).contains("agents report"), "{}", said(&other));
    assert_eq!(other.notes[&Key::Config].len(), 2);

    // Agents of a later version may know more.
    read(
        &mut other,
        "b",
        &report.replace("\"routing\"", "\"later\":1,\"routing\""),
    );
    assert_eq!(other.nodes["b"].underlay.as_ref().unwrap().config, None);
}

/// What is said of a configuration; nothing if it is taken.
fn refusal(text: &str) -> String {
    let config = map(text);
    let yaml = |text: &str| serde_json::from_str(text).map_err(|error| error.to_string());
    let (object, notes) = parse(Parsed::ConfigMap(&config), &yaml);
    assert_eq!(object.is_some(), notes.is_empty());
    notes.iter().map(|note| note.message.clone()).collect()
}

#[test]
fn a_bad_configuration_is_told_with_the_field_and_what_to_do() {
    let table = [
        (r#"{"clusterCIDR": []}"#, "did you mean clusterCIDRs?"),
        (
            r#"{"egress": {"masqerade": true}}"#,
            "did you mean masquerade?",
        ),
        (
            r#"{"egress": {"addresses": [{"namespace": "x", "podSelektor": {}, "addresses": ["192.0.2.1"]}]}}"#,
            "did you mean podSelector?",
        ),
        (r#"{"foreignChanges": "restor"}"#, "did you mean restore?"),
        (r#"{"podIsolation": "unknown"}"#, "did you mean untilKnown?"),
        (
            r#"{"serviceCIDRs": ["10.96.0.1/32"]}"#,
            "serviceCIDRs 10.96.0.1/32 has fewer than 4 addresses",
        ),
        (
            r#"{"clusterCIDRs": ["fd00::/127"]}"#,
            "clusterCIDRs fd00::/127 has fewer than 4 addresses",
        ),
        (
            r#"{"egress": {"nonMasqueradeCIDRs": ["10.1.2.3/8"]}}"#,
            "10.1.2.3/8 has bits behind its prefix: write 10.0.0.0/8",
        ),
        (
            r#"{"egress": {"addresses": [{"namespace": "x", "addresses": []}]}}"#,
            "egress.addresses[0]: addresses is empty: name at least one",
        ),
        (
            r#"{"egress": {"addresses": [{"namespace": "", "addresses": ["192.0.2.1"]}]}}"#,
            "egress.addresses[0]: namespace is empty",
        ),
        (
            r#"{"egress": {"addresses": [{"namespace": "x", "addresses": ["::1"]}]}}"#,
            "::1 can be no source of a packet that leaves a node",
        ),
        (
            r#"{"egress": {"addresses": [{"namespace": "x", "addresses": ["192.0.2.1"],
                "podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}]}}"#,
            "podSelector: In of a needs at least one value",
        ),
    ];
    for (text, wanted) in table {
        let said = refusal(text);
        assert!(said.contains(wanted), "{text}: {said}");
        assert!(
            said.ends_with("; the configuration before it stays in force"),
            "{said}"
        );
    }
    let good = r#"{"foreignChanges": "report", "podIsolation": "none", "egress": {"masquerade": false, "nonMasqueradeCIDRs": ["10.0.0.0/8"],
        "addresses": [{"namespace": "x", "podSelector": {"matchLabels": {"a": "b"}},
                       "addresses": ["192.0.2.1", "2001:db8::1"]}]}}"#;
    assert_eq!(refusal(good), "");
}

#[test]
fn what_is_said_of_a_mistake_is_one_line_whatever_the_yaml_library() {
    let said = "error: line 5 column 1: unknown field `egres`, expected one of routing, clusterCIDRs, egress\n --> \
                <input>:5:1\n5 | egres: {}\n  | ^ unknown field `egres`, expected one of routing";
    assert_eq!(
        crate::config::suggest(said.to_owned()),
        "line 5 column 1: unknown field `egres`, expected one of routing, clusterCIDRs, egress; did you mean egress?"
    );
}

#[test]
fn a_slice_that_moves_to_another_service_leaves_the_first() {
    let mut snapshot = Snapshot::default();
    for owner in ["a", "b"] {
        let (object, _) = slice(json!({
            "metadata": {"name": "s", "labels": {"kubernetes.io/service-name": owner}},
            "addressType": "IPv4",
        }));
        snapshot.insert(object.expect("a slice"));
    }
    let count = |name| {
        snapshot
            .slices_of(&ObjectName::new("default", name))
            .count()
    };
    assert_eq!((count("a"), count("b")), (0, 1));
}

#[test]
fn a_nodes_own_address_in_the_pod_network_is_the_first() {
    let node: core::Node = serde_json::from_value(json!({
        "metadata": {"name": "node-1", "annotations": {
            "parfait.dev/underlay": r#"{"interface":"eth0","mtu":1500,"addresses":["192.168.77.11/24"]}"#}},
        "spec": {"podCIDRs": ["10.244.1.0/24", "fd00:10:244:1::/64"]},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.168.77.11"},
                                 {"type": "Hostname", "address": "node-1"}]},
    }))
    .expect("a Node");
    let (Some(Object::Node(node)), notes) = read(Parsed::Node(&node)) else {
        panic!("no Node");
    };
    assert!(notes.is_empty(), "{notes:?}");
    let own = parfait_packet::Family::ALL
        .map(|family| node.pod_network_address(family).expect("own").to_string());
    assert_eq!(own, ["10.244.1.1", "fd00:10:244:1::1"]);
    assert_eq!(node.underlay.expect("reported").mtu, 1500);
}

/// As the API server validates (`ValidateNonSpecialIP`), and once more, for objects that came another way.
#[test]
fn addresses_that_nobody_could_reach_are_left_out() {
    let special = [
        "0.0.0.0",
        "127.0.0.1",
        "169.254.1.1",
        "224.0.0.1",
        "255.255.255.255",
    ];
    for text in special {
        let (object, notes) = service(json!({
            "metadata": {"name": "web"},
            "spec": {"clusterIP": text, "externalIPs": [text, "192.0.2.7"], "type": "LoadBalancer"},
            "status": {"loadBalancer": {"ingress": [{"ip": text}]}},
        }));
        let Some(Object::Service(service)) = object else {
            panic!("no Service");
        };
        assert!(service.cluster_ips.is_empty(), "{text}");
        assert!(service.outside.load_balancer_ips.is_empty(), "{text}");
        assert_eq!(service.outside.external_ips.len(), 1, "{text}");
        let note = |field| {
            format!(
                "Service default/web {field}: {text} is no address that others could reach; it is left out"
            )
        };
        let fields = [
            "spec.clusterIPs",
            "spec.externalIPs",
            "status.loadBalancer.ingress",
        ];
        assert_eq!(notes, fields.map(note));
    }
}

#[test]
fn endpoints_at_special_addresses_are_left_out_and_the_others_stay() {
    for (family, good, bad) in [
        (
            "IPv4",
            "10.244.1.2",
            ["169.254.1.1", "239.1.1.1", "0.0.0.0", "::1", "web-1"],
        ),
        (
            "IPv6",
            "fd00::2",
            ["fe80::1", "ff02::1", "::", "::ffff:10.0.0.1", "10.244.1.2"],
        ),
    ] {
        for text in bad {
            let (object, notes) = slice(json!({
                "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
                "addressType": family, "ports": [{"port": 8080}],
                "endpoints": [{"addresses": [text]}, {"addresses": [good]}],
            }));
            let Some(Object::EndpointSlice(slice)) = object else {
                panic!("no EndpointSlice");
            };
            assert_eq!(slice.endpoints.len(), 1, "{text}");
            let wanted = format!(
                "EndpointSlice default/web-1 endpoints: {text:?} is not a usable {family} address; the endpoint is left out"
            );
            assert_eq!(notes, [wanted]);
        }
    }
}

#[test]
fn slices_that_belong_to_no_service_or_name_no_addresses_are_told() {
    let table = [
        (
            json!({"metadata": {"name": "stray"}, "addressType": "IPv4", "endpoints": []}),
            "EndpointSlice default/stray metadata.labels: the label kubernetes.io/service-name is missing; it belongs \
             to no Service",
        ),
        (
            json!({
                "metadata": {"name": "names", "labels": {"kubernetes.io/service-name": "web"}},
                "addressType": "MAC", "endpoints": [{"addresses": ["02:00:00:00:00:01"]}],
            }),
            "EndpointSlice default/names addressType: \"MAC\" is not IPv4, IPv6 or FQDN; the slice is left out",
        ),
    ];
    for (value, wanted) in table {
        let (object, notes) = slice(value);
        assert!(object.is_none());
        assert_eq!(notes, [wanted]);
    }
}

#[test]
fn a_slice_of_names_is_its_services_and_has_no_endpoint() {
    let (object, notes) = slice(json!({
        "metadata": {"name": "names", "labels": {"kubernetes.io/service-name": "web"}}, "addressType": "FQDN",
        "endpoints": [
            {"addresses": ["a.example.org"]}, {"addresses": ["b.example.org"]}, {"addresses": ["c.example.org"]},
            {"addresses": ["d.example.org"]}, {"addresses": ["e.example.org"]},
        ],
    }));
    let Some(Object::EndpointSlice(slice)) = object else {
        panic!("no EndpointSlice");
    };
    assert_eq!(slice.service.name, "web");
    assert!(slice.endpoints.is_empty());
    assert_eq!(
        notes,
        [
            "EndpointSlice default/names addressType: FQDN endpoints are names, not addresses (a.example.org, \
             b.example.org, c.example.org, 2 more): no packet goes to them, as with kube-proxy"
        ]
    );
}

#[test]
fn a_node_port_that_is_no_port_leaves_the_service() {
    let (object, notes) = service(json!({
        "metadata": {"name": "web"},
        "spec": {"clusterIP": "10.96.0.20", "type": "NodePort", "ports": [{"name": "http", "port": 80, "nodePort": 70000}]},
    }));
    let Some(Object::Service(service)) = object else {
        panic!("no Service");
    };
    assert_eq!(service.ports[0].node_port, None);
    assert_eq!(
        notes,
        [
            "Service default/web spec.ports[http].nodePort: 70000 is not a port (1 to 65535); it is left out"
        ]
    );
}

/// The API server refuses all of these; objects in files, and of other servers, come without it.
#[test]
fn what_a_service_says_twice_counts_once() {
    let (object, notes) = service(json!({
        "metadata": {"name": "web"},
        "spec": {"clusterIP": "10.96.0.20", "type": "LoadBalancer", "healthCheckNodePort": 70000, "ports": [
            {"name": "http", "port": 80, "nodePort": 30080},
            {"name": "dns", "port": 80, "protocol": "UDP", "nodePort": 30080},
            {"name": "again", "port": 80},
            {"name": "http", "port": 81},
            {"name": "other", "port": 82, "nodePort": 30080},
            {"port": 83},
            {"port": 84},
        ]},
    }));
    let Some(Object::Service(service)) = object else {
        panic!("no Service");
    };
    let ports = service.ports.iter();
    let ports: Vec<_> = ports.map(|port| (port.port, port.node_port)).collect();
    let wanted = [(80, Some(30080)), (80, Some(30080)), (82, None), (83, None)];
    assert_eq!(ports, wanted);
    assert_eq!(service.outside.health_check_node_port, None);
    let note = |text: &str| format!("Service default/web spec.{text}; it is left out");
    assert_eq!(
        notes,
        [
            "ports[again]: another port of tcp has port 80 already",
            "ports[http]: another port of tcp has a name already",
            "ports[other].nodePort: another port has 30080/tcp already",
            "ports[84]: another port of tcp has a name already",
            "healthCheckNodePort: 70000 is not a port (1 to 65535)",
        ]
        .map(note)
    );
}

#[test]
fn a_slice_without_numbers_and_addresses_is_told_in_few_words() {
    let none = json!({"addresses": []});
    let bad = |n: u8| json!({"addresses": [format!("127.0.0.{n}")]});
    let (object, notes) = slice(json!({
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": [{"name": "http"}, {"name": "more", "port": 8080}],
        "endpoints": [none, bad(1), bad(2), bad(3), {"addresses": ["10.244.1.2", "10.244.1.3"]}, bad(4)],
    }));
    let Some(Object::EndpointSlice(slice)) = object else {
        panic!("no EndpointSlice");
    };
    assert_eq!((slice.ports.len(), slice.endpoints.len()), (1, 1));
    let note = |text: &str| format!("EndpointSlice default/web-1 {text}");
    assert_eq!(
        notes,
        [
            "ports: port \"http\" has no number; it is left out, as with kube-proxy",
            "endpoints: \"\" is not a usable IPv4 address; the endpoint is left out",
            "endpoints: \"127.0.0.1\" is not a usable IPv4 address; the endpoint is left out",
            "endpoints: \"127.0.0.2\" is not a usable IPv4 address; the endpoint is left out",
            "endpoints: 2 more have no usable IPv4 address, and are left out",
        ]
        .map(note)
    );
}

/// What there is instead, is another matter: the API's default, or nothing.
#[test]
fn values_that_the_api_does_not_know_are_told_with_their_field() {
    let port = |more: Value| {
        let mut port = json!({"name": "http", "port": 80});
        let more = more.as_object().expect("fields").clone();
        port.as_object_mut().expect("fields").extend(more);
        json!({"ports": [port]})
    };
    for (spec, told) in [
        (
            json!({"type": "Loadbalancer"}),
            "type: unknown type \"Loadbalancer\"; the Service is left out",
        ),
        (
            port(json!({"port": 0})),
            "ports[http]: 0 is not a port (1 to 65535); it is left out",
        ),
        (
            port(json!({"targetPort": 65_536})),
            "ports[http]: 65536 is not a port (1 to 65535); it is left out",
        ),
        (
            port(json!({"protocol": "ICMP"})),
            "ports[http]: protocol \"ICMP\" is none of TCP, UDP, SCTP; the port is left out",
        ),
        (
            json!({"externalTrafficPolicy": "Nearest"}),
            "externalTrafficPolicy: \"Nearest\" is neither Cluster nor Local; Cluster is assumed",
        ),
        (
            json!({"sessionAffinity": "Cookie"}),
            "sessionAffinity: \"Cookie\" is neither None nor ClientIP; None is assumed",
        ),
        (
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86_401}}}),
            "sessionAffinityConfig.clientIP.timeoutSeconds: 86401 s is not 1 to 86400; 10800 s is assumed",
        ),
        (
            json!({"trafficDistribution": "Far"}),
            "trafficDistribution: \"Far\" is not known (PreferSameZone, PreferSameNode); all endpoints are used alike",
        ),
        (
            json!({"loadBalancerSourceRanges": ["10.0.0.0/33"]}),
            "loadBalancerSourceRanges: \"10.0.0.0/33\" is not a CIDR; it is left out",
        ),
    ] {
        let (_, notes) = service(json!({"metadata": {"name": "web"}, "spec": spec}));
        assert_eq!(notes, [format!("Service default/web spec.{told}")]);
    }
}
