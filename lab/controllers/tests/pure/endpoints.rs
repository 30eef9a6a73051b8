//! EndpointSlices: exactly the pods behind a Service, in the state they are in.

use serde_json::{Value, json};

use crate::support::{Cluster, cluster, web};

fn service(extra: &str) -> String {
    format!(
        "
---
apiVersion: v1
kind: Service
metadata: {{ name: web, labels: {{ team: shop }} }}
spec:
  selector: {{ app: web }}
  ports: [{{ name: http, port: 80, targetPort: http }}]
  ipFamilies: [IPv4, IPv6]
{extra}
"
    )
}

fn slices(cluster: &Cluster) -> Vec<Value> {
    cluster
        .memory
        .world
        .to_values()
        .into_iter()
        .filter(|v| v["kind"] == "EndpointSlice")
        .collect()
}

fn of_family(cluster: &Cluster, family: &str) -> Vec<Value> {
    slices(cluster)
        .into_iter()
        .filter(|slice| slice["addressType"] == family)
        .collect()
}

/// `node/ready,serving,terminating` of every IPv4 endpoint, sorted.
fn states(cluster: &Cluster) -> Vec<String> {
    let mut states: Vec<String> = of_family(cluster, "IPv4")
        .iter()
        .flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default())
        .map(|e| {
            let c = &e["conditions"];
            format!("{} {} {}", c["ready"], c["serving"], c["terminating"])
        })
        .collect();
    states.sort();
    states
}

#[test]
fn a_slice_per_family_with_everything_a_proxy_and_a_person_need() {
    let mut cluster = cluster(1, &(web(1) + &service("")));
    cluster.edit("Node", "node-1", |node| {
        node["metadata"]["labels"]["topology.kubernetes.io/zone"] = json!("zone-a");
    });
    cluster.run();
    let v4 = of_family(&cluster, "IPv4").remove(0);
    assert_eq!(
        v4["metadata"]["labels"],
        json!({
            "kubernetes.io/service-name": "web",
            "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            "team": "shop",
        })
    );
    assert_eq!(v4["metadata"]["ownerReferences"][0]["kind"], "Service");
    assert_eq!(
        v4["ports"],
        json!([{"name": "http", "port": 8080, "protocol": "TCP"}])
    );
    let pod = cluster.value("Pod", &cluster.pod_names()[0]);
    assert_eq!(
        v4["endpoints"],
        json!([{
            "addresses": ["10.244.0.2"],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": "node-1",
            "zone": "zone-a",
            "targetRef": {"kind": "Pod", "namespace": "default",
                "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]},
        }])
    );
    let v6 = of_family(&cluster, "IPv6").remove(0);
    assert_eq!(v6["endpoints"][0]["addresses"], json!(["fd00:10:244::2"]));
    assert_eq!(slices(&cluster).len(), 2);
}

#[test]
fn hints_follow_the_traffic_distribution_and_readiness() {
    let mut cluster = cluster(1, &(web(1) + &service("")));
    cluster.edit("Node", "node-1", |node| {
        node["metadata"]["labels"]["topology.kubernetes.io/zone"] = json!("zone-a");
    });
    cluster.run();
    let zones = json!([{"name": "zone-a"}]);
    for (wanted, hints) in [
        (json!("PreferSameZone"), json!({"forZones": zones})),
        (json!("PreferClose"), json!({"forZones": zones})),
        (
            json!("PreferSameNode"),
            json!({"forNodes": [{"name": "node-1"}], "forZones": zones}),
        ),
        (Value::Null, Value::Null),
    ] {
        cluster.edit("Service", "web", |service| {
            service["spec"]["trafficDistribution"] = wanted.clone();
        });
        cluster.run();
        let endpoint = &of_family(&cluster, "IPv4")[0]["endpoints"][0];
        assert_eq!(endpoint["hints"], hints, "{wanted}");
    }
    cluster.edit("Service", "web", |service| {
        service["spec"]["trafficDistribution"] = json!("PreferSameZone");
    });
    cluster.kubelets(false);
    cluster.settle();
    let name = cluster.pod_names().remove(0);
    cluster.edit("Pod", &name, |pod| {
        for condition in pod["status"]["conditions"].as_array_mut().unwrap() {
            condition["status"] = json!("False");
        }
    });
    cluster.settle();
    let endpoint = &of_family(&cluster, "IPv4")[0]["endpoints"][0];
    assert_eq!(endpoint["conditions"]["ready"], json!(false));
    assert_eq!(
        endpoint["hints"],
        Value::Null,
        "an endpoint that is not ready"
    );
}

#[test]
fn conditions_follow_the_pod() {
    let mut cluster = cluster(1, &(web(2) + &service("")));
    cluster.settle();
    assert_eq!(states(&cluster), [""; 0], "no address, no endpoint");
    cluster.kubelets(false);
    cluster.settle();
    assert_eq!(states(&cluster), ["false false false"; 2]);
    cluster.kubelets(true);
    cluster.settle();
    assert_eq!(states(&cluster), ["true true false"; 2]);
    let name = cluster.pod_names().remove(0);
    cluster.delete("Pod", &name);
    cluster.settle();
    // Its replacement has no address yet.
    assert_eq!(states(&cluster), ["false true true", "true true false"]);
    let slices_before = slices(&cluster).len();
    cluster.run();
    assert_eq!(states(&cluster), ["true true false"; 2]);
    assert_eq!(
        slices(&cluster).len(),
        slices_before,
        "the slices are reused"
    );
}

#[test]
fn finished_pods_are_out_and_published_unready_ones_are_in() {
    let mut cluster = cluster(1, &(web(2) + &service("  publishNotReadyAddresses: true")));
    cluster.settle();
    cluster.kubelets(false);
    cluster.settle();
    assert_eq!(states(&cluster), ["true true false"; 2]);
    let (namespace, name) = ("default", cluster.pod_names().remove(0));
    cluster.memory.change_pod(namespace, &name, |pod| {
        pod.status.get_or_insert_default().phase = Some("Failed".to_owned());
    });
    cluster.settle();
    assert_eq!(states(&cluster), ["true true false"; 1]);
}

#[test]
fn a_named_port_with_two_numbers_makes_two_slices() {
    let pod = |name: &str, port: u16| {
        format!(
            "
---
apiVersion: v1
kind: Pod
metadata: {{ name: {name}, labels: {{ app: web }} }}
spec:
  containers: [{{ name: c, image: idle, ports: [{{ name: http, containerPort: {port} }}] }}]
"
        )
    };
    let single = service("").replace("[IPv4, IPv6]", "[IPv4]");
    let mut cluster = cluster(
        1,
        &(pod("a", 8080) + &pod("b", 9090) + &pod("c", 8080) + &single),
    );
    cluster.run();
    let mut found: Vec<(i64, usize)> = slices(&cluster)
        .iter()
        .map(|s| {
            (
                s["ports"][0]["port"].as_i64().unwrap(),
                s["endpoints"].as_array().unwrap().len(),
            )
        })
        .collect();
    found.sort_unstable();
    assert_eq!(found, [(8080, 2), (9090, 1)]);
}

#[test]
fn slices_hold_a_hundred_and_one_change_touches_one_slice() {
    let single = service("").replace("[IPv4, IPv6]", "[IPv4]");
    let mut cluster = cluster(3, &(web(230) + &single));
    cluster.run();
    let mut lengths: Vec<usize> = slices(&cluster)
        .iter()
        .map(|s| s["endpoints"].as_array().unwrap().len())
        .collect();
    lengths.sort_unstable();
    assert_eq!(lengths, [30, 100, 100]);
    let name = cluster.pod_names().remove(100);
    cluster.memory.change_pod("default", &name, |pod| {
        pod.status.get_or_insert_default().conditions = None;
    });
    let touched = cluster
        .wants()
        .iter()
        .filter(|w| w.contains("EndpointSlice"))
        .count();
    assert_eq!(touched, 1);
}

#[test]
fn headless_pods_with_a_subdomain_have_hostnames() {
    let yaml = "
apiVersion: v1
kind: Service
metadata: { name: db }
spec: { clusterIP: None, selector: { app: db } }
---
apiVersion: apps/v1
kind: StatefulSet
metadata: { name: db }
spec:
  replicas: 1
  serviceName: db
  selector: { matchLabels: { app: db } }
  template:
    metadata: { labels: { app: db } }
    spec: { containers: [{ name: db, image: postgres }] }
";
    let mut cluster = cluster(1, yaml);
    cluster.run();
    let all = slices(&cluster);
    // Without families of its own, a headless Service has the cluster's.
    assert_eq!(all.len(), 2);
    for slice in all {
        assert_eq!(slice["endpoints"][0]["hostname"], "db-0");
        assert_eq!(
            slice["metadata"]["labels"]["service.kubernetes.io/headless"],
            ""
        );
        assert_eq!(slice["ports"], Value::Null);
    }
}

#[test]
fn services_that_are_not_ours_to_fill_are_left_alone() {
    let table = [
        (
            "a Service without a selector",
            "spec: { ports: [{ port: 80 }] }",
        ),
        (
            "an ExternalName",
            "spec: { type: ExternalName, externalName: example.org, selector: { app: web } }",
        ),
    ];
    for (what, spec) in table {
        let yaml =
            format!("\n---\napiVersion: v1\nkind: Service\nmetadata: {{ name: s }}\n{spec}\n");
        let mut cluster = cluster(1, &(web(1) + &yaml));
        cluster.run();
        assert_eq!(slices(&cluster).len(), 0, "{what}");
    }
}

#[test]
fn a_service_nobody_stands_behind_has_an_empty_slice_and_a_deleted_one_none() {
    let mut cluster = cluster(1, &service(""));
    cluster.run();
    assert_eq!(slices(&cluster).len(), 2);
    assert!(
        slices(&cluster)
            .iter()
            .all(|slice| slice["endpoints"].is_null())
    );
    cluster.delete("Service", "web");
    cluster.run();
    assert_eq!(slices(&cluster).len(), 0);
}

#[test]
fn the_api_servers_own_service() {
    let mut cluster = cluster(1, "");
    cluster.config.api_server = vec![
        "192.168.77.1:6443".parse().unwrap(),
        "[fd00:77::1]:6443".parse().unwrap(),
    ];
    cluster.config.root_ca = Some("PEM".to_owned());
    cluster.settle();
    let service = cluster.value("Service", "kubernetes");
    assert_eq!(
        service["spec"]["clusterIPs"],
        json!(["10.96.0.1", "fd00:10:96::1"])
    );
    assert_eq!(service["spec"]["ports"][0]["targetPort"], 6443);
    let slice = cluster.value("EndpointSlice", "kubernetes-ipv6");
    assert_eq!(slice["endpoints"][0]["addresses"], json!(["fd00:77::1"]));
    assert_eq!(
        slice["metadata"]["labels"]["kubernetes.io/service-name"],
        "kubernetes"
    );
    assert_eq!(
        cluster.value("ConfigMap", "kube-root-ca.crt")["data"]["ca.crt"],
        "PEM"
    );
    // The API server moves: only the slice changes.
    cluster.config.api_server[0] = "192.168.77.2:6443".parse().unwrap();
    assert_eq!(cluster.wants(), ["update EndpointSlice default/kubernetes"]);
}
