//! How `explain` tells with which source a pod leaves the cluster, and the law that the ruleset, as explained,
//! gives the same source as the configuration says, for random choices.

#[path = "../../../model/cluster/tests/fixture/mod.rs"]
mod fixture;

use parfait_cluster::{ObjectName, Snapshot};
use parfait_inspect::{Answer, Detail, Question, Side, explain, render};
use parfait_packet::{Reason, Verdict};
use proptest::prelude::*;
use serde_json::{Value, json};

const OUTSIDE: &str = "198.51.100.1";

fn snapshot(egress: Value, has: &[&str]) -> Snapshot {
    let mut snapshot =
        fixture::clusters(&[fixture::DUAL, "pod prod/mailer on=node-1 ip=10.244.1.9"]);
    snapshot.config.egress = serde_json::from_value(egress).expect("egress");
    let this = snapshot.nodes.get_mut("node-1").expect("node-1");
    let has = has
        .iter()
        .map(|address| address.parse().expect("an address"));
    this.underlay.as_mut().expect("reported").egress = has.collect();
    snapshot
}

fn ask(snapshot: &Snapshot, pod: &str, to: &str) -> Answer {
    let question = Question {
        from: Side::Pod(pod.to_owned(), None),
        to: Side::Address(to.parse().expect("an address"), Some(80)),
        port: None,
        protocol: None,
        family: None,
        source_port: None,
        namespace: None,
        size: None,
    };
    explain(snapshot, &question).expect("an answer")
}

#[test]
fn the_entry_and_the_source_are_named_and_the_way_back() {
    let egress = json!({"addresses": [{"namespace": "prod", "addresses": ["192.0.2.10"]}]});
    let answer = ask(&snapshot(egress, &["192.0.2.10"]), "mailer.prod", OUTSIDE);
    let text = render(&answer, Detail::Normal);
    for part in [
        "internet    postrouting the source 10.244.1.9 becomes 192.0.2.10, which was chosen for this pod; what is \
         answered to 192.0.2.10 comes back to node-1, and is given to the pod",
        "because of ConfigMap kube-system/parfait egress.addresses[0]",
    ] {
        assert!(text.contains(part), "{part:?} is missing:\n{text}");
    }
    assert!(matches!(
        answer.verdict,
        Verdict::Unknown {
            reason: Reason::ExternalDestination
        }
    ));
}

#[test]
fn a_pod_without_its_egress_address_is_refused_and_the_entry_named() {
    let egress = json!({"addresses": [{"namespace": "prod", "addresses": ["192.0.2.10"]}]});
    let answer = ask(&snapshot(egress, &[]), "mailer.prod", OUTSIDE);
    let text = render(&answer, Detail::Normal);
    for part in [
        "refused: node-1 has none of the IPv4 addresses of ConfigMap kube-system/parfait egress.addresses[0]",
        "not delivered: the pod's node has none of the addresses with which the pod must leave the cluster \
         (internet layer, PF211)",
        "note: ConfigMap kube-system/parfait egress.addresses[0]: Node node-1 has none of 192.0.2.10",
    ] {
        assert!(text.contains(part), "{part:?} is missing:\n{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(64)
    })]

    /// An oracle that knows only the configuration's documentation.
    #[test]
    fn a_pod_leaves_with_what_the_configuration_says(
        entries in prop::collection::vec((any::<bool>(), 10u8..14), 0..4),
        has in prop::collection::btree_set(10u8..14, 0..3),
        masquerade: bool,
        exempt: bool,
    ) {
        let namespace = |prod: &bool| if *prod { "prod" } else { "default" };
        let egress = json!({
            "masquerade": masquerade,
            "nonMasqueradeCIDRs": if exempt { vec!["198.51.100.0/24"] } else { vec![] },
            "addresses": entries.iter().map(|(prod, last)| json!({
                "namespace": namespace(prod), "addresses": [format!("192.0.2.{last}")],
            })).collect::<Vec<_>>(),
        });
        let has: Vec<_> = has.iter().map(|last| format!("192.0.2.{last}")).collect();
        let has: Vec<_> = has.iter().map(String::as_str).collect();
        let snapshot = snapshot(egress, &has);
        for (pod, own, prod) in [("mailer.prod", "10.244.1.9", true), ("client", "10.244.1.2", false)] {
            let entry = entries.iter().find(|(of, _)| *of == prod).map(|(_, last)| format!("192.0.2.{last}"));
            let wanted = match entry {
                _ if exempt => Some(own.to_owned()),
                Some(address) if has.contains(&address.as_str()) => Some(address),
                Some(_) => None,
                None if masquerade => Some("192.168.77.11".to_owned()),
                None => Some(own.to_owned()),
            };
            let answer = ask(&snapshot, pod, OUTSIDE);
            let refused = answer.verdict == Verdict::NotDelivered { reason: Reason::NoEgressAddress };
            let last = answer.ways[0].there.last().and_then(|hop| hop.packet).expect("a packet");
            let seen = (!refused).then(|| last.source.to_string());
            prop_assert_eq!(&seen, &wanted, "{}", render(&answer, Detail::Full));
            // The answer comes back to the pod, or, where it is sent to the pod's own address, nobody can say.
            let back: Vec<_> = answer.ways[0].back.iter().map(|hop| hop.packet.expect("a packet")).collect();
            let text = render(&answer, Detail::Full);
            match wanted {
                None => prop_assert!(back.is_empty(), "{text}"),
                Some(source) => {
                    prop_assert_eq!(back[0].destination.to_string(), source.clone(), "{}", &text);
                    prop_assert_eq!(back[back.len() - 1].destination.to_string(), own, "{}", &text);
                    prop_assert_eq!(back.len() > 1, source != own, "{}", &text);
                }
            }
            let inside = ask(&snapshot, pod, "10.244.2.2");
            let last = inside.ways[0].there.last().and_then(|hop| hop.packet).expect("a packet");
            prop_assert_eq!(last.source.to_string(), own);
        }
        let name = ObjectName::new("prod", "mailer");
        prop_assert!(snapshot.pods.contains_key(&name));
    }
}
