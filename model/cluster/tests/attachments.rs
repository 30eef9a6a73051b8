//! Which attachments a node knows, and what its pods' addresses then are: [`Snapshot::attach`], as a
//! table of what can have happened.

mod fixture;

use std::net::IpAddr;

use fixture::cluster;
use parfait_cluster::{Attachment, Key, ObjectName, Snapshot};

/// `CONTAINER POD[#UID] ADDRESS`, `-` for no pod; a container `…/net1` is the pod's second interface.
fn attachments(text: &str) -> Vec<Attachment> {
    let one = |line: &str| {
        let [id, pod, address] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let (name, uid) = match pod.split_once('#') {
            Some((name, uid)) => (name, Some(uid.to_owned())),
            None => (pod, None),
        };
        Attachment {
            id: id.to_owned(),
            pod: (pod != "-").then(|| (ObjectName::new("default", name), uid)),
            interface: format!("pf-{name}"),
            first: !id.ends_with("/net1"),
            addresses: vec![address.parse().expect("an address")],
            mac: None,
            port_mappings: Vec::new(),
        }
    };
    text.lines().map(str::trim).map(one).collect()
}

fn known(snapshot: &Snapshot) -> String {
    let known = snapshot.attachments_on("node-1");
    let known = known.map(|a| format!("{}={}", a.id, a.addresses[0]));
    known.collect::<Vec<_>>().join(" ")
}

fn address(snapshot: &Snapshot, pod: &str) -> String {
    let pod = &snapshot.pods[&ObjectName::new("default", pod)];
    let addresses = pod.addresses.iter().map(IpAddr::to_string);
    addresses.collect::<Vec<_>>().join(",")
}

/// What happened; the Pod (without one, there is none); the attachments; the known ones; the pod's addresses.
const CASES: &[(&str, &str, &str, &str, &str)] = &[
    (
        "the API does not tell the address yet",
        "pod web-0 on=node-1 phase=Pending uid=b",
        "c2/eth0 web-0#b 10.244.1.7",
        "c2/eth0=10.244.1.7",
        "10.244.1.7",
    ),
    (
        "the API tells it",
        "pod web-0 on=node-1 ip=10.244.1.7 uid=b",
        "c2/eth0 web-0#b 10.244.1.7",
        "c2/eth0=10.244.1.7",
        "10.244.1.7",
    ),
    (
        "only the API tells it",
        "pod web-0 on=node-1 ip=10.244.1.7 uid=b",
        "",
        "",
        "10.244.1.7",
    ),
    (
        "a pod was replaced by one of its name, whose container is not there yet",
        "pod web-0 on=node-1 phase=Pending uid=b",
        "c1/eth0 web-0#a 10.244.1.6",
        "",
        "",
    ),
    (
        "and now it is, while the old one's DEL is still to come",
        "pod web-0 on=node-1 phase=Pending uid=b",
        "c1/eth0 web-0#a 10.244.1.6\nc2/eth0 web-0#b 10.244.1.7",
        "c2/eth0=10.244.1.7",
        "10.244.1.7",
    ),
    (
        "the pod got a new sandbox after a reboot, and the API tells the old one's address",
        "pod web-0 on=node-1 ip=10.244.1.6 uid=b",
        "c3/eth0 web-0#b 10.244.1.7",
        "c3/eth0=10.244.1.7",
        "10.244.1.7",
    ),
    (
        "the API tells which of a pod's two containers is the current one",
        "pod web-0 on=node-1 ip=10.244.1.6 uid=b",
        "c2/eth0 web-0#b 10.244.1.6\nc3/eth0 web-0#b 10.244.1.7",
        "c2/eth0=10.244.1.6 c3/eth0=10.244.1.7",
        "10.244.1.6",
    ),
    (
        "the runtime does not name the UID",
        "pod web-0 on=node-1 phase=Pending uid=b",
        "c2/eth0 web-0 10.244.1.7",
        "c2/eth0=10.244.1.7",
        "10.244.1.7",
    ),
    (
        "a second interface is known with its pod, and gives it no address",
        "pod web-0 on=node-1 ip=10.244.1.7 uid=b",
        "c2/net1 web-0#b 10.244.1.8",
        "c2/net1=10.244.1.8",
        "10.244.1.7",
    ),
    (
        "the pod is bound to another node",
        "pod web-0 on=node-2 phase=Pending uid=b",
        "c2/eth0 web-0#b 10.244.1.7",
        "",
        "",
    ),
    (
        "the pod has ended",
        "pod web-0 on=node-1 phase=Succeeded uid=b",
        "c2/eth0 web-0#b 10.244.1.7",
        "",
        "",
    ),
    (
        "the pod uses the node's network",
        "pod web-0 on=node-1 hostNetwork phase=Pending uid=b",
        "c2/eth0 web-0#b 10.244.1.7",
        "",
        "",
    ),
    (
        "the caller is no kubelet",
        "pod web-0 on=node-1 phase=Pending",
        "c9/eth0 - 10.244.1.9",
        "c9/eth0=10.244.1.9",
        "",
    ),
];

#[test]
fn who_is_known_and_with_which_address() {
    for (what, pod, attached, wanted, pods) in CASES {
        let mut snapshot = cluster(pod);
        snapshot.attach("node-1", attachments(attached));
        assert_eq!(known(&snapshot), *wanted, "{what}");
        assert_eq!(address(&snapshot, "web-0"), *pods, "{what}");
    }
}

#[test]
fn a_pod_that_the_api_does_not_know_stays_unknown() {
    let mut snapshot = cluster("pod other on=node-1 phase=Pending");
    snapshot.attach("node-1", attachments("c2/eth0 web-0 10.244.1.7"));
    assert_eq!(known(&snapshot), "");
    assert_eq!(address(&snapshot, "other"), "");
}

#[test]
fn attaching_again_forgets_what_was_attached_before() {
    let text = "pod a on=node-1 phase=Pending\npod b on=node-1 ip=10.244.1.3 uid=b";
    let mut snapshot = cluster(text);
    let untouched = snapshot.clone();
    snapshot.attach(
        "node-1",
        attachments("c1/eth0 a 10.244.1.2\nc2/eth0 b#b 10.244.1.5"),
    );
    let once = snapshot.clone();
    assert_eq!(address(&snapshot, "b"), "10.244.1.5");
    let pod = |name| Key::Pod(ObjectName::new("default", name));
    let changed = snapshot.attach(
        "node-1",
        attachments("c1/eth0 a 10.244.1.2\nc2/eth0 b#b 10.244.1.5"),
    );
    assert_eq!((changed, &snapshot), ([].into(), &once));
    let changed = snapshot.attach("node-1", attachments("c1/eth0 a 10.244.1.2"));
    let here = Key::Node("node-1".to_owned());
    assert_eq!(changed, [here.clone(), pod("b")].into());
    let changed = snapshot.attach("node-1", []);
    assert_eq!(changed, [here, pod("a")].into());
    assert_eq!(snapshot.pods, untouched.pods);
}
