//! Services and endpoints that cannot be used as they stand: each is told by its field, and the Services next to it are
//! as if it were not there.

#[path = "../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;

use std::collections::BTreeSet;

use fixture::{DUAL, clusters};
use parfait_cluster::{Key as Changed, ObjectName, Snapshot};
use parfait_linux::nft::{Key, Table};
use parfait_packet::{Kind, Origin};
use parfait_transport::{Plan, apply, plan, replan};

/// What is in order, and stays so.
const GOOD: &str = "
service good ip=10.96.0.20,fd00:10:96::20 ports=http:80/TCP>8080@30080 affinity=60 created=2026-01-01T00:00:00Z
slice good-a of=good ports=http:8080/TCP endpoints=10.244.1.3@node-1/web-1,10.244.2.2@node-2/web-2
slice good-6 of=good ports=http:8080/TCP endpoints=fd00:10:244:1::3@node-1/web-1
";

/// Where it is, by what it is found, and what it leads to.
type Element = (String, Key, String);

/// The elements of a Service and its slices.
fn elements(tables: &[Table], name: &str) -> BTreeSet<Element> {
    let is_its = |origin: &Origin| match origin.kind {
        Kind::Service => origin.name == name,
        Kind::EndpointSlice => origin.name.starts_with(&format!("{name}-")),
        _ => false,
    };
    let mut found = BTreeSet::new();
    for table in tables {
        for (name, set) in &table.sets {
            let of_it = set
                .elements
                .iter()
                .filter(|(_, element)| element.origin.as_ref().is_some_and(is_its));
            for (key, element) in of_it {
                let data = format!("{:?}", element.data);
                found.insert((format!("{:?} {name}", table.family), key.clone(), data));
            }
        }
    }
    found
}

/// What is told of a cluster: by who read it, and by the plan.
fn told(snapshot: &Snapshot) -> Vec<String> {
    let read = snapshot.notes.values().flatten().cloned();
    let notes = read.chain(plan(snapshot, "node-1").notes());
    notes.map(|note| note.to_string()).collect()
}

/// With this, the good Service is what it was without, and these are the notes.
fn check(bad: &str, wanted: &[&str]) {
    let alone = apply(&plan(&clusters(&[DUAL, GOOD]), "node-1"));
    let snapshot = clusters(&[DUAL, GOOD, bad]);
    let together = apply(&plan(&snapshot, "node-1"));
    let good = elements(&alone, "good");
    assert!(good.len() > 10, "{good:?}");
    assert_eq!(elements(&together, "good"), good, "{bad}");
    assert_eq!(told(&snapshot), wanted, "{bad}");
}

#[test]
fn a_node_port_that_another_service_has() {
    check(
        "service twin ip=10.96.0.21 ports=http:80/TCP>8080@30080 created=2026-01-02T00:00:00Z
         slice twin-a of=twin ports=http:8080/TCP endpoints=10.244.1.3@node-1/web-1",
        &[
            "Service default/twin spec.ports[http]: 192.168.77.11 port 30080/tcp already belongs to Service default/good; \
           it is left out here",
            "Service default/twin spec.ports[http]: fd00:77::11 port 30080/tcp already belongs to Service default/good; \
           it is left out here",
        ],
    );
}

/// `spec.externalIPs` is anybody's to write, who may write Services.
#[test]
fn an_address_that_every_node_answers_itself() {
    let dns = "service dns ip=10.96.0.10 ports=dns:53/UDP servedByNode";
    let greedy = "service greedy ip=10.96.0.26 ports=dns:53/UDP externalIPs=10.96.0.10,203.0.113.7 balanced=10.96.0.10
                  slice greedy-a of=greedy ports=dns:53/UDP endpoints=10.244.1.3@node-1/web-1";
    let left_out = |field: &str| {
        format!(
            "Service default/greedy {field}: 10.96.0.10 belongs to Service default/dns, which every node answers \
             itself; it is left out here"
        )
    };
    let told = ["status.loadBalancer.ingress", "spec.externalIPs"].map(left_out);
    check(
        &format!("{dns}\n{greedy}"),
        &told.each_ref().map(String::as_str),
    );
    let has = |plan: &Plan, address: &str| {
        let found = elements(&apply(plan), "greedy");
        found
            .iter()
            .any(|(_, key, _)| format!("{key:?}").contains(&format!("({address})")))
    };
    let with = clusters(&[DUAL, dns, greedy]);
    let without = clusters(&[DUAL, greedy]);
    let mut at_node_1 = plan(&without, "node-1");
    assert!(has(&at_node_1, "10.96.0.10"));
    let dns = [Changed::Service(ObjectName::new("default", "dns"))].into();
    replan(&mut at_node_1, &with, &dns);
    assert!(!has(&at_node_1, "10.96.0.10") && has(&at_node_1, "203.0.113.7"));
    assert_eq!(at_node_1, plan(&with, "node-1"));
    replan(&mut at_node_1, &without, &dns);
    assert_eq!(at_node_1, plan(&without, "node-1"));
}

#[test]
fn an_own_address_outside_of_the_service_cidrs() {
    let stray = "service stray ip=10.97.0.5 ports=http:80/TCP>8080
                 slice stray-a of=stray ports=http:8080/TCP endpoints=10.244.1.3@node-1/web-1";
    let note = "Service default/stray spec.clusterIPs: 10.97.0.5 lies in none of the configured serviceCIDRs; it is served, \
                but what no Service has next to it is not refused, and if it is a pod's as well, the pod is not reached";
    check(stray, &[note]);
    // It is served, and the note goes when the range is configured.
    let snapshot = clusters(&[DUAL, GOOD, stray]);
    let mut at_node_1 = plan(&snapshot, "node-1");
    assert!(!elements(&apply(&at_node_1), "stray").is_empty());
    let wider = clusters(&[
        DUAL,
        GOOD,
        stray,
        "config clusterCIDRs=10.244.0.0/16,fd00:10:244::/56 serviceCIDRs=10.96.0.0/15,fd00:10:96::/112",
    ]);
    replan(&mut at_node_1, &wider, &[Changed::Config].into());
    assert_eq!(at_node_1.notes(), []);
    assert_eq!(at_node_1, plan(&wider, "node-1"));
}

#[test]
fn endpoints_that_nobody_could_reach() {
    let unusable = [
        "127.0.0.1",
        "169.254.1.1",
        "224.0.0.1",
        "0.0.0.0",
        "255.255.255.255",
    ];
    let list: Vec<_> = unusable.iter().map(|ip| format!("{ip}@node-1")).collect();
    let about = "EndpointSlice default/bad-a endpoints:";
    let first = unusable[..3].iter();
    let first = first
        .map(|ip| format!("{about} {ip:?} is not a usable IPv4 address; the endpoint is left out"));
    let rest = format!("{about} 2 more have no usable IPv4 address, and are left out");
    let told: Vec<_> = first.chain([rest]).collect();
    check(
        &format!(
            "service bad ip=10.96.0.22 ports=http:80/TCP>8080
             slice bad-a of=bad ports=http:8080/TCP endpoints=10.244.1.3@node-1/web-1,{}",
            list.join(",")
        ),
        &told.iter().map(String::as_str).collect::<Vec<_>>(),
    );
}

#[test]
fn endpoints_of_the_other_family() {
    check(
        "service mixed ip=10.96.0.23 ports=http:80/TCP>8080
         slice mixed-a of=mixed ports=http:8080/TCP endpoints=10.244.1.3@node-1/web-1,fd00:10:244:1::3@node-1/web-1",
        &["EndpointSlice default/mixed-a endpoints: \"10.244.1.3\" is not a usable IPv6 address; the endpoint is left out"],
    );
}

#[test]
fn a_slice_of_no_service() {
    check(
        "slice lost-a of=lost ports=http:8080/TCP endpoints=10.244.1.3@node-1/web-1",
        &[
            "EndpointSlice default/lost-a metadata.labels[kubernetes.io/service-name]: there is no Service default/lost; \
           nobody is led to its endpoints",
        ],
    );
}

#[test]
fn an_endpoint_that_no_pod_has() {
    // A selectorless Service may lead anywhere: nothing is wrong with it.
    check(
        "service out ip=10.96.0.24 ports=http:80/TCP>8080
         slice out-a of=out ports=http:8080/TCP endpoints=203.0.113.80@node-1/gone",
        &[],
    );
}

/// `count` endpoints on other nodes, a hundred in each slice.
fn many(count: u32) -> String {
    let mut text = "service many ip=10.96.0.25 ports=http:80/TCP>8080\n".to_owned();
    for (slice, first) in (0..count).step_by(100).enumerate() {
        let numbers = first..count.min(first + 100);
        let endpoint = |n: u32| format!("10.100.{}.{}@node-2", n / 256, n % 256);
        let list: Vec<_> = numbers.map(endpoint).collect();
        text += &format!(
            "slice many-{slice} of=many ports=http:8080/TCP endpoints={}\n",
            list.join(",")
        );
    }
    text
}

/// The endpoints that a node leads to.
fn chosen(text: &str, node: &str) -> BTreeSet<String> {
    let tables = apply(&plan(&clusters(&[DUAL, text]), node));
    let maps = tables.iter().flat_map(|table| &table.sets);
    let maps = maps.filter(|(name, _)| name.starts_with("endpoints_"));
    let elements = maps.flat_map(|(_, map)| map.elements.values());
    elements
        .map(|element| format!("{:?}", element.data))
        .collect()
}

#[test]
fn more_endpoints_than_a_node_leads_to() {
    check(
        &many(20_000),
        &[
            "Service default/many: 20000 endpoints would take connections; each node leads to 8192 of them, and each to others",
        ],
    );
    let all = many(20_000);
    let [one, two] = ["node-1", "node-2"].map(|node| chosen(&all, node));
    assert_eq!([one.len(), two.len()], [8192, 8192]);
    // Of two independent samples of 82 slices of 200, 130 are in one or both, give or take four.
    let together = one.union(&two).count();
    assert!((12_000..14_000).contains(&together), "{together}");
    // When ten of the slices go, a node keeps what it can.
    let cut = all.find("slice many-190").expect("a slice");
    let fewer = chosen(&all[..cut], "node-1");
    assert_eq!(fewer.len(), 8192);
    let kept = one.intersection(&fewer).count();
    assert!(kept > 8192 * 88 / 100, "{kept}");
}

#[test]
fn as_many_endpoints_as_a_node_leads_to() {
    check(&many(8192), &[]);
    assert_eq!(chosen(&many(8192), "node-1").len(), 8192);
}
