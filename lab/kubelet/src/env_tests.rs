//! Environments, as a manifest asks for them.

use serde_json::json;

use super::*;

fn pod() -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "web-0", "namespace": "shop", "uid": "u-1", "labels": {"app": "web"}},
        "spec": {"nodeName": "node-1", "containers": []}
    }))
    .expect("a pod")
}

fn services() -> Vec<Service> {
    serde_json::from_value(json!([
        {"metadata": {"name": "redis-leader", "namespace": "shop"},
         "spec": {"clusterIP": "10.96.0.7", "ports": [
            {"name": "db", "port": 6379, "protocol": "TCP"}, {"name": "stats", "port": 80, "protocol": "UDP"}]}},
        {"metadata": {"name": "headless", "namespace": "shop"},
         "spec": {"clusterIP": "None", "ports": [{"port": 1}]}},
        {"metadata": {"name": "other", "namespace": "elsewhere"},
         "spec": {"clusterIP": "10.96.0.8", "ports": [{"port": 1}]}},
        {"metadata": {"name": "kubernetes", "namespace": "default"},
         "spec": {"clusterIP": "fd00::1", "ports": [{"name": "https", "port": 443}]}}
    ]))
    .expect("services")
}

fn built(container: serde_json::Value) -> Result<BTreeMap<String, String>, EnvError> {
    let container: Container = serde_json::from_value(container).expect("a container");
    let addresses = Addresses {
        pod: vec![
            "10.244.1.5".parse().expect("ip"),
            "fd00::5".parse().expect("ip"),
        ],
        host: vec!["192.168.77.11".parse().expect("ip")],
    };
    let mut sources = Sources::new();
    let entries = |list: &[(&str, &str)]| -> Entries {
        list.iter()
            .map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec()))
            .collect()
    };
    sources.insert(
        Source::ConfigMap("conf".into()),
        entries(&[("LEVEL", "debug"), ("MODE", "a")]),
    );
    sources.insert(
        Source::Secret("pass".into()),
        entries(&[("password", "s3cret")]),
    );
    let (pod, services) = (pod(), services());
    let around = Surroundings {
        pod: &pod,
        addresses: &addresses,
        machine: Machine {
            cpus: 2,
            memory: 1 << 30,
        },
        sources: &sources,
        services: &services,
    };
    Ok(build(&container, &around, "web-0")?.into_iter().collect())
}

#[test]
fn values_references_and_expansion() {
    let env = built(json!({"name": "c",
        "resources": {"limits": {"memory": "64Mi"}},
        "envFrom": [{"configMapRef": {"name": "conf"}}, {"prefix": "P_", "secretRef": {"name": "pass"}},
                    {"configMapRef": {"name": "gone", "optional": true}}],
        "env": [
            {"name": "MODE", "value": "b"},
            {"name": "HOST", "value": "redis"},
            {"name": "URL", "value": "$(HOST):6379/$(NOPE) costs $$5 $(MODE)"},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "IPS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIPs"}}},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "PW", "valueFrom": {"secretKeyRef": {"name": "pass", "key": "password"}}},
            {"name": "NONE", "valueFrom": {"secretKeyRef": {"name": "pass", "key": "x", "optional": true}}}
        ]}))
    .expect("an environment");
    for (name, value) in [
        ("LEVEL", "debug"),
        ("MODE", "b"),
        ("P_password", "s3cret"),
        ("URL", "redis:6379/$(NOPE) costs $5 b"),
        ("IP", "10.244.1.5"),
        ("IPS", "10.244.1.5,fd00::5"),
        ("NODE", "node-1"),
        ("APP", "web"),
        ("MEM", "64"),
        ("CPU", "2"),
        ("PW", "s3cret"),
        ("HOSTNAME", "web-0"),
    ] {
        assert_eq!(env.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(!env.contains_key("NONE"));
}

#[test]
fn services_are_announced() {
    let env = built(json!({"name": "c"})).expect("an environment");
    for (name, value) in [
        ("REDIS_LEADER_SERVICE_HOST", "10.96.0.7"),
        ("REDIS_LEADER_SERVICE_PORT", "6379"),
        ("REDIS_LEADER_SERVICE_PORT_STATS", "80"),
        ("REDIS_LEADER_PORT", "tcp://10.96.0.7:6379"),
        ("REDIS_LEADER_PORT_80_UDP_ADDR", "10.96.0.7"),
        ("KUBERNETES_SERVICE_HOST", "fd00::1"),
        ("KUBERNETES_PORT", "tcp://[fd00::1]:443"),
    ] {
        assert_eq!(env.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(
        !env.keys()
            .any(|k| k.starts_with("OTHER") || k.starts_with("HEADLESS"))
    );
}

#[test]
fn what_is_missing_is_named() {
    let missing = |from: serde_json::Value| {
        built(json!({"name": "c", "env": [{"name": "X", "valueFrom": from}]}))
            .expect_err("it must fail")
            .to_string()
    };
    let text = missing(json!({"configMapKeyRef": {"name": "gone", "key": "k"}}));
    assert!(text.starts_with("configmap \"gone\" not found"), "{text}");
    let text = missing(json!({"secretKeyRef": {"name": "pass", "key": "k"}}));
    assert!(
        text.starts_with("secret \"pass\" has no key \"k\""),
        "{text}"
    );
    let text = missing(json!({"fieldRef": {"fieldPath": "spec.moon"}}));
    assert!(text.contains("spec.moon"), "{text}");
}
