//! What holds whatever happens, in whatever order.
//!
//! The writes of a step are applied in random order and some not at all, pods become ready when they like,
//! users change their minds.

use std::collections::BTreeSet;

use parfait_lab_controllers::{Write, pods};
use proptest::prelude::*;
use serde_json::json;

use crate::support::{Cluster, cluster, key, web};

/// One thing that happens.
#[derive(Clone, Debug)]
enum Happening {
    /// The controllers step; the writes whose bit is set arrive, in an order that depends on the seed.
    Step { seed: u64, arriving: u64 },
    /// The pod with this number (modulo their count) is started, becomes ready, or ends.
    Kubelet(usize),
    /// Another image.
    Image(u8),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => (any::<u64>(), any::<u64>()).prop_map(|(seed, arriving)| Happening::Step { seed, arriving }),
        6 => any::<usize>().prop_map(Happening::Kubelet),
        1 => (1u8..4).prop_map(Happening::Image),
    ]
}

fn shuffled(writes: Vec<Write>, seed: u64) -> Vec<Write> {
    let mut keyed: Vec<(u64, Write)> = writes
        .into_iter()
        .enumerate()
        .map(|(n, write)| {
            (
                seed.wrapping_mul(n as u64 + 1)
                    .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                    .rotate_left(17),
                write,
            )
        })
        .collect();
    keyed.sort_by_key(|(key, _)| *key);
    keyed.into_iter().map(|(_, write)| write).collect()
}

fn kubelet(cluster: &mut Cluster, number: usize) {
    let all = cluster.pods();
    if all.is_empty() {
        return;
    }
    let pod = &all[number % all.len()];
    if pods::node_name(pod).is_none() {
        return;
    }
    if pod.metadata.deletion_timestamp.is_some() {
        cluster.end_pod(pod);
    } else if pods::phase(pod) == "Pending" {
        cluster.start_pod(pod, number % 5_000);
    } else {
        cluster.set_ready(pod, true);
    }
}

fn counts(cluster: &Cluster) -> (usize, usize) {
    let active: Vec<_> = cluster.pods().into_iter().filter(pods::is_active).collect();
    (
        active.len(),
        active.iter().filter(|pod| pods::is_ready(pod)).count(),
    )
}

/// Every Service's slices hold exactly the selected pods that have an address and have not finished.
fn endpoints_are_right(cluster: &Cluster) -> Result<(), TestCaseError> {
    let expected: BTreeSet<String> = cluster
        .pods()
        .iter()
        .filter(|pod| !pods::is_finished(pod))
        .filter(|pod| pod.status.as_ref().is_some_and(|s| s.pod_ip.is_some()))
        .map(|pod| key(pod).1)
        .collect();
    let mut found = Vec::new();
    for slice in cluster.memory.world.endpoint_slices.values() {
        for endpoint in slice.endpoints.iter().flatten() {
            found.push(endpoint.target_ref.as_ref().unwrap().name.clone().unwrap());
        }
    }
    prop_assert_eq!(
        found.len(),
        found.iter().collect::<BTreeSet<_>>().len(),
        "no pod twice"
    );
    prop_assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
    Ok(())
}

const SERVICE: &str = "\n---\napiVersion: v1\nkind: Service\nmetadata: { name: web }\nspec: { selector: { app: web }, ports: [{ port: 80, targetPort: http }], ipFamilies: [IPv4] }\n";

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_rolling_update_keeps_its_bounds(
        replicas in 1i32..7,
        surge in 0i32..4,
        unavailable in 0i32..4,
        happenings in prop::collection::vec(happening(), 20..120),
    ) {
        let strategy = format!("  strategy: {{ rollingUpdate: {{ maxSurge: {surge}, maxUnavailable: {unavailable} }} }}\n  selector");
        let mut cluster = cluster(3, &(web(replicas).replace("  selector", &strategy) + SERVICE));
        cluster.run();
        let unavailable = if surge == 0 { unavailable.max(1) } else { unavailable };
        let ceiling = (replicas + surge) as usize;
        let floor = (replicas - unavailable).max(0) as usize;
        for happening in happenings {
            match happening {
                Happening::Step { seed, arriving } => {
                    for (n, write) in shuffled(cluster.step(), seed).into_iter().enumerate() {
                        if arriving >> (n % 64) & 1 == 1 {
                            cluster.apply(&write);
                        }
                        let (active, available) = counts(&cluster);
                        prop_assert!(active <= ceiling, "{active} pods, at most {ceiling} allowed");
                        prop_assert!(available >= floor, "{available} available, at least {floor} wanted");
                    }
                }
                Happening::Kubelet(number) => kubelet(&mut cluster, number),
                Happening::Image(version) => cluster.edit("Deployment", "web", |web| {
                    web["spec"]["template"]["spec"]["containers"][0]["image"] = json!(format!("go-web:v{version}"));
                }),
            }
        }
        // Left in peace, it comes to rest, complete and tidy.
        cluster.run();
        prop_assert_eq!(counts(&cluster), (replicas as usize, replicas as usize));
        prop_assert!(cluster.step().is_empty());
        endpoints_are_right(&cluster)?;
    }

    #[test]
    fn slices_are_right_after_every_settling(
        happenings in prop::collection::vec(any::<usize>(), 1..40),
        replicas in 0i32..12,
    ) {
        let mut cluster = cluster(2, &(web(replicas) + SERVICE));
        for number in happenings {
            cluster.settle();
            endpoints_are_right(&cluster)?;
            match number % 5 {
                0 if !cluster.pods().is_empty() => {
                    let names = cluster.pod_names();
                    let name = names[number / 5 % names.len()].clone();
                    cluster.delete("Pod", &name);
                }
                1 => cluster.edit("Deployment", "web", |web| web["spec"]["replicas"] = json!(number / 5 % 12)),
                _ => kubelet(&mut cluster, number / 5),
            }
        }
        cluster.run();
        endpoints_are_right(&cluster)?;
        prop_assert!(cluster.step().is_empty(), "{:?}", cluster.wants());
    }
}
